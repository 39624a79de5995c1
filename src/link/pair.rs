//! What two lives of two nodes have told each other: numbers, what is kept until acknowledged, and where to go on after a break.
//!
//! Entries of a pair are numbered from 1 in each direction. A life that ends (a restart, or one side giving the other up) ends the
//! pair: its numbers mean nothing any more, and what was kept goes back to the owner. Invariants: `acknowledged` <= what the peer
//! has received <= `last_sent`; what is kept is exactly what lies between the first and the last.

use super::{Refused, Settings};
use crate::base::reason::LinkReason;
use crate::wire::frame::each_whole;
use crate::wire::link::{self, Frame, Hello, Life};
use std::collections::VecDeque;

/// How two lives met.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Meeting {
    First,
    Again,
    /// So many entries were not acknowledged.
    Another(usize),
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) mine: Life,
    /// None: the peer is down.
    peer: Option<Life>,
    /// Whole frames, as they are sent and sent again, and the entry's place in each.
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    acknowledged: u64,
    received: u64,
}

impl Pair {
    pub(super) fn new(mine: Life) -> Pair {
        Pair { mine, peer: None, kept: VecDeque::new(), kept_bytes: 0, acknowledged: 0, received: 0 }
    }

    pub(super) fn peer(&self) -> Option<Life> {
        self.peer
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    fn last_sent(&self) -> u64 {
        self.acknowledged + self.kept.len() as u64
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Keeps an entry that `write` makes a frame of, given its number, and gives that.
    ///
    /// Errors: `Down`, `Full`.
    pub(super) fn keep(&mut self, bytes: usize, settings: &Settings, write: impl FnOnce(u64) -> Vec<u8>) -> Result<&[u8], Refused> {
        if self.peer.is_none() {
            return Err(Refused::Down);
        }
        if self.kept.len() >= settings.entries || self.kept_bytes + bytes > settings.entry_bytes {
            return Err(Refused::Full);
        }
        self.kept_bytes += bytes;
        self.kept.push_back(write(self.last_sent() + 1));
        Ok(&self.kept[self.kept.len() - 1])
    }

    /// The frames that the peer has not acknowledged.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.iter().map(|frame| &frame[..])
    }

    /// Errors: `BadAck`.
    pub(super) fn acknowledge(&mut self, up_to: u64) -> Result<(), LinkReason> {
        if !(self.acknowledged..=self.last_sent()).contains(&up_to) {
            return Err(LinkReason::BadAck);
        }
        for frame in self.kept.drain(..(up_to - self.acknowledged) as usize) {
            self.kept_bytes -= entry(&frame).len();
        }
        self.acknowledged = up_to;
        Ok(())
    }

    /// An entry came. False: it had come before. `before` is the last number that came on the same connection: there they go up one
    /// by one, from any that is not too high.
    ///
    /// Errors: `SequenceGap`, `Replayed`.
    pub(super) fn receive(&mut self, sequence: u64, before: Option<u64>) -> Result<bool, LinkReason> {
        if before.is_some_and(|before| sequence <= before) || sequence == 0 {
            return Err(LinkReason::Replayed);
        }
        if sequence > before.unwrap_or(self.received) + 1 {
            return Err(LinkReason::SequenceGap);
        }
        let is_new = sequence > self.received;
        self.received = self.received.max(sequence);
        Ok(is_new)
    }

    /// The peer says who it is and how far it got.
    ///
    /// Errors: `OldLife`, `BadAck`, `Forgot`; then nothing has changed.
    pub(super) fn meet(&mut self, hello: &Hello) -> Result<Meeting, LinkReason> {
        let knows_me = hello.known == Some(self.mine);
        let received = if knows_me { hello.received } else { 0 };
        match self.peer {
            Some(known) if hello.life < known => Err(LinkReason::OldLife),
            Some(known) if hello.life == known => {
                if !knows_me && (self.received > 0 || self.acknowledged > 0) {
                    return Err(LinkReason::Forgot);
                }
                self.acknowledge(received).map(|()| Meeting::Again)
            }
            _ if received > 0 => Err(LinkReason::BadAck),
            None => {
                self.peer = Some(hello.life);
                Ok(Meeting::First)
            }
            Some(_) => {
                let unknown = self.start_over();
                self.peer = Some(hello.life);
                Ok(Meeting::Another(unknown))
            }
        }
    }

    /// Gives the peer up: what this end says from now on is said by another life of it. Gives how many
    /// entries were not acknowledged.
    pub(super) fn part(&mut self) -> usize {
        self.mine.term += 1;
        self.start_over()
    }

    fn start_over(&mut self) -> usize {
        (self.peer, self.acknowledged, self.received, self.kept_bytes) = (None, 0, 0, 0);
        self.kept.drain(..).count()
    }
}

/// The entry in a frame of ours.
fn entry(frame: &[u8]) -> &[u8] {
    match each_whole(frame).next().map(|frame| link::read(&frame)) {
        Some(Ok(Frame::Entry { bytes, .. } | Frame::Complex { bytes, .. })) => bytes,
        _ => unreachable!("only entries are kept"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Link;
    use crate::base::limits::Limits;
    use crate::wire::link::{Purpose, Site};

    fn life(epoch: u64, term: u32) -> Life {
        Life { epoch, term }
    }

    fn hello(life: Life, known: Option<Life>, received: u64) -> Hello {
        let (from, to) = (Site::default(), Site::default());
        let purpose = Purpose::Inside;
        Hello { from, to, purpose, cores: 1, lane: 0, attempt: 1, life, known, received, digest: [0; 32] }
    }

    fn pair() -> Pair {
        let mut pair = Pair::new(life(5, 0));
        assert_eq!(pair.meet(&hello(life(7, 0), None, 0)), Ok(Meeting::First));
        pair
    }

    fn send(pair: &mut Pair, bytes: &[u8]) -> Result<(), Refused> {
        let settings = Settings::new(&Link { entries: 3, entry_bytes: 10, ..Link::default() }, &Limits::default());
        pair.keep(bytes.len(), &settings, |sequence| Frame::Entry { sequence, bytes }.encode()).map(drop)
    }

    #[test]
    fn what_is_kept_is_bounded_by_count_and_bytes_and_goes_with_its_acknowledgement() {
        let mut pair = pair();
        assert_eq!([&b"1"[..], b"2", b"3", b"4"].map(|entry| send(&mut pair, entry)), [Ok(()), Ok(()), Ok(()), Err(Refused::Full)]);
        assert_eq!((pair.acknowledge(2), pair.kept(), pair.kept_bytes()), (Ok(()), 1, 1));
        assert_eq!([&[0; 9][..], &[0; 1]].map(|entry| send(&mut pair, entry)), [Ok(()), Err(Refused::Full)]);
        assert_eq!([5, 1].map(|bad| pair.acknowledge(bad)), [Err(LinkReason::BadAck); 2]);
        assert_eq!((pair.acknowledge(4), pair.kept(), pair.kept_bytes()), (Ok(()), 0, 0));
    }

    #[test]
    fn numbers_of_one_connection_go_up_one_by_one_from_any_that_is_not_too_high() {
        let mut pair = pair();
        assert_eq!([(1, None), (2, Some(1)), (3, Some(2))].map(|(n, before)| pair.receive(n, before)), [Ok(true); 3]);
        assert_eq!(
            [(2, None), (3, Some(2)), (4, Some(3))].map(|(n, before)| pair.receive(n, before)),
            [Ok(false), Ok(false), Ok(true)]
        );
        assert_eq!([pair.receive(6, None), pair.receive(6, Some(4))], [Err(LinkReason::SequenceGap); 2]);
        assert_eq!([pair.receive(4, Some(4)), pair.receive(0, None)], [Err(LinkReason::Replayed); 2]);
        assert_eq!(pair.receive(5, Some(3)), Err(LinkReason::SequenceGap), "one by one on each connection");
    }

    #[test]
    fn the_same_lives_go_on_where_they_stopped() {
        let mut pair = pair();
        [&b"a"[..], b"b", b"c"].into_iter().for_each(|entry| send(&mut pair, entry).unwrap());
        assert_eq!(pair.meet(&hello(life(7, 0), Some(life(5, 0)), 2)), Ok(Meeting::Again));
        let frames: Vec<&[u8]> = pair.unacknowledged().collect();
        assert_eq!(frames, [Frame::Entry { sequence: 3, bytes: b"c" }.encode()]);
    }

    #[test]
    fn a_peer_that_never_heard_of_us_gets_all_of_it_and_one_that_forgot_is_refused() {
        let mut pair = pair();
        send(&mut pair, b"a").unwrap();
        assert_eq!(pair.meet(&hello(life(7, 0), None, 0)), Ok(Meeting::Again));
        assert_eq!(pair.meet(&hello(life(7, 0), Some(life(4, 9)), 33)), Ok(Meeting::Again), "of an earlier life of ours");
        assert_eq!(pair.kept(), 1);
        pair.receive(1, None).unwrap();
        assert_eq!(pair.meet(&hello(life(7, 0), None, 0)), Err(LinkReason::Forgot));
    }

    #[test]
    fn another_life_gets_nothing_of_what_was_kept_and_an_older_one_is_refused() {
        let mut pair = pair();
        send(&mut pair, b"a").unwrap();
        pair.receive(1, None).unwrap();
        assert_eq!(pair.meet(&hello(life(7, 1), Some(life(5, 0)), 1)), Err(LinkReason::BadAck));
        assert_eq!(pair.meet(&hello(life(7, 1), None, 0)), Ok(Meeting::Another(1)));
        assert_eq!((pair.received(), pair.kept()), (0, 0));
        for old in [life(7, 0), life(6, 9)] {
            assert_eq!(pair.meet(&hello(old, None, 0)), Err(LinkReason::OldLife));
        }
        assert_eq!(pair.meet(&hello(life(8, 0), Some(life(4, 0)), 5)), Ok(Meeting::Another(0)));
    }

    #[test]
    fn whoever_gives_up_is_another_life_from_then_on() {
        let mut pair = pair();
        send(&mut pair, b"a").unwrap();
        assert_eq!((pair.part(), pair.mine, pair.peer()), (1, life(5, 1), None));
        assert_eq!(send(&mut pair, b"b"), Err(Refused::Down));
        assert_eq!(pair.meet(&hello(life(7, 0), Some(life(5, 0)), 1)), Ok(Meeting::First), "it speaks of the life before");
    }
}
