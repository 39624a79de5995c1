//! Stream management (XEP-0198): what was sent and not acknowledged, so that a connection that breaks is not the session's end.
//!
//! Lives on: every core, in [`super::Memory`]: a stream is resumed by another connection of the same core, that of the user's home.
//! Invariants: presence is counted, and never kept: after a resumption the newest of each sender comes from the core, as do
//! messages, which the core keeps itself; of the rest, at most [`KEPT`] stanzas and [`KEPT_BYTES`] are kept; whoever resumes a
//! stream owns it alone.

use ahash::RandomState;
use std::collections::{HashMap, VecDeque};

/// Stanzas of one stream that wait for the client's acknowledgement, without presence. At the limit: `policy-violation`.
pub const KEPT: usize = 1024;
/// Bytes of those, without messages.
pub const KEPT_BYTES: usize = 64 << 10;

/// A stanza that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    /// The core keeps it under this number.
    Message(u64),
    Stanza(Box<[u8]>),
    /// The core tells of it again.
    News,
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Kept::Message(_) | Kept::News => 0,
            Kept::Stanza(bytes) => bytes.len(),
        }
    }
}

/// A stream that is managed.
pub(super) struct Stream {
    /// The full JID.
    pub jid: Box<str>,
    /// The core's own token of the session; empty: the client does not want to resume.
    pub token: Box<[u8]>,
    /// Which connection it belongs to: the number grows with each resumption.
    owner: u32,
    /// Stanzas of the client that were handled, wrapping round.
    pub handled: u32,
    /// Stanzas sent to the client, wrapping round, and how many of them it has acknowledged.
    sent: u32,
    acknowledged: u32,
    /// What has not been acknowledged, with its place among all that was sent.
    kept: VecDeque<(u32, Kept)>,
    kept_bytes: usize,
    /// The place of the last of the documents' changes among what was sent, while it's not acknowledged.
    news: Option<u32>,
    /// The client was asked and has not answered yet.
    asked: bool,
    /// When its connection broke, and how long it may be resumed from then, in milliseconds.
    lost: Option<u64>,
    pub within_ms: u32,
}

/// What an acknowledgement was good for.
pub(super) enum Acknowledged {
    /// The number of the last message among what was acknowledged.
    Message(u64),
    Nothing,
    /// More than the stanzas that were ever sent, this many.
    TooMuch(u32),
}

/// The managed streams of a core.
pub(super) struct Streams {
    by_id: HashMap<u64, Stream, RandomState>,
    /// At this many, those whose time is over are forgotten.
    sweep_at: usize,
}

/// A connection's part in a managed stream.
pub(super) struct Counting {
    pub id: u64,
    pub owner: u32,
    /// `<enabled/>` has gone out: what follows counts.
    pub on: bool,
    /// For how many milliseconds the client was told that it may come back; 0: it may not.
    pub within_ms: u32,
    /// Sent since the stream was last told.
    pub sent: u32,
    pub kept: Vec<(u32, Kept)>,
}

impl Counting {
    pub fn new(id: u64, owner: u32) -> Counting {
        Counting { id, owner, on: false, within_ms: 0, sent: 0, kept: Vec::new() }
    }

    pub fn count(&mut self, kept: Option<Kept>) {
        self.sent = self.sent.wrapping_add(1);
        if let Some(kept) = kept {
            self.kept.push((self.sent, kept));
        }
    }
}

impl Stream {
    pub const FIRST_OWNER: u32 = 1;

    pub fn new(jid: &str, token: &[u8], within_ms: u32) -> Stream {
        Stream {
            jid: jid.into(),
            token: token.into(),
            owner: Stream::FIRST_OWNER,
            handled: 0,
            sent: 0,
            acknowledged: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            news: None,
            asked: false,
            lost: None,
            within_ms,
        }
    }

    /// The client has handled this many, wrapping round.
    pub fn acknowledge(&mut self, handled: u32) -> Acknowledged {
        self.asked = false;
        let newly = handled.wrapping_sub(self.acknowledged);
        if newly > self.sent.wrapping_sub(self.acknowledged) {
            return Acknowledged::TooMuch(self.sent);
        }
        self.news = self.news.filter(|place| place.wrapping_sub(self.acknowledged) > newly);
        let mut message = Acknowledged::Nothing;
        while let Some((place, _)) = self.kept.front()
            && place.wrapping_sub(self.acknowledged) <= newly
        {
            let (_, kept) = self.kept.pop_front().expect("just seen");
            self.kept_bytes -= kept.bytes();
            if let Kept::Message(number) = kept {
                message = Acknowledged::Message(number);
            }
        }
        self.acknowledged = handled;
        message
    }

    /// Takes over what a connection has sent. False: more waits than may.
    fn add(&mut self, counting: &mut Counting) -> bool {
        for (place, kept) in counting.kept.drain(..) {
            let place = self.sent.wrapping_add(place);
            if kept == Kept::News {
                self.news = Some(place);
                continue;
            }
            self.kept_bytes += kept.bytes();
            self.kept.push_back((place, kept));
        }
        self.sent = self.sent.wrapping_add(counting.sent);
        counting.sent = 0;
        self.kept.len() <= KEPT && self.kept_bytes <= KEPT_BYTES
    }

    /// Whether the client should be asked what it has; it is, if this says so.
    pub fn asks(&mut self) -> bool {
        let asks = !self.asked && !self.kept.is_empty();
        self.asked |= asks;
        asks
    }

    /// Begins anew behind what the client says it has: gives what is to be sent once more. Messages come from the core.
    pub fn rewind(&mut self) -> Vec<Box<[u8]>> {
        self.sent = self.acknowledged;
        self.kept_bytes = 0;
        self.asked = false;
        let kept = std::mem::take(&mut self.kept);
        kept.into_iter()
            .filter_map(|(_, kept)| match kept {
                Kept::Stanza(bytes) => Some(bytes),
                Kept::Message(_) | Kept::News => None,
            })
            .collect()
    }

    /// Whether the client may have missed changes of documents, which are not sent once more by the stream.
    pub fn has_lost_news(&mut self) -> bool {
        self.news.take().is_some()
    }
}

impl Default for Streams {
    fn default() -> Streams {
        // Keys are the server's own random numbers.
        Streams { by_id: HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4)), sweep_at: 0 }
    }
}

impl Streams {
    pub fn insert(&mut self, id: u64, stream: Stream, now_ms: u64) {
        if self.by_id.len() >= self.sweep_at {
            let over = |stream: &Stream| stream.lost.is_some_and(|lost| now_ms.saturating_sub(lost) > u64::from(stream.within_ms));
            self.by_id.retain(|_, stream| !over(stream));
            self.sweep_at = (self.by_id.len() * 2).max(1024);
        }
        self.by_id.insert(id, stream);
    }

    /// The stream that a connection owns; `None`: another has taken it over.
    pub fn owned(&mut self, counting: &Counting) -> Option<&mut Stream> {
        self.by_id.get_mut(&counting.id).filter(|stream| stream.owner == counting.owner)
    }

    /// Adds what a connection has sent to its stream.
    pub fn add(&mut self, counting: &mut Counting) -> Added {
        match self.by_id.get_mut(&counting.id).filter(|stream| stream.owner == counting.owner) {
            None => Added::NotOurs,
            Some(stream) => match stream.add(counting) {
                true => Added::Ours { asks: stream.asks() },
                false => Added::TooMuch,
            },
        }
    }

    /// Takes a stream over for another connection of the same user, which says what it has.
    pub fn take_over(&mut self, id: u64, bare: &str, handled: u32) -> Option<(Counting, &mut Stream, Acknowledged)> {
        let stream = self.by_id.get_mut(&id)?;
        let same_user = stream.jid.split_once('/').is_some_and(|(owner, _)| owner == bare);
        if !same_user || stream.token.is_empty() {
            return None;
        }
        stream.owner = stream.owner.wrapping_add(1);
        stream.lost = None;
        let acknowledged = stream.acknowledge(handled);
        Some((Counting { within_ms: stream.within_ms, ..Counting::new(id, stream.owner) }, stream, acknowledged))
    }

    pub fn remove(&mut self, counting: &Counting) -> Option<Stream> {
        self.owned(counting)?;
        self.by_id.remove(&counting.id)
    }

    /// The connection has broken.
    pub fn lost(&mut self, counting: &Counting, now_ms: u64) {
        if let Some(stream) = self.owned(counting) {
            stream.lost = Some(now_ms);
            if stream.token.is_empty() {
                self.by_id.remove(&counting.id);
            }
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Added {
    Ours {
        asks: bool,
    },
    TooMuch,
    /// Another connection has taken the stream over.
    NotOurs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_is_forgotten_even_where_the_count_wraps() {
        for start in [0, u32::MAX - 2] {
            let mut stream = Stream::new("a@b/c", b"t", 1000);
            (stream.sent, stream.acknowledged) = (start, start);
            let mut counting = Counting::new(1, 1);
            counting.count(Some(Kept::Message(7)));
            counting.count(None);
            counting.count(Some(Kept::Stanza((*b"<iq/>").into())));
            counting.count(Some(Kept::Message(8)));
            counting.count(None);
            assert!(stream.add(&mut counting) && stream.asks() && !stream.asks());
            assert!(matches!(stream.acknowledge(start.wrapping_add(2)), Acknowledged::Message(7)));
            assert!(
                matches!(stream.acknowledge(start.wrapping_add(6)), Acknowledged::TooMuch(sent) if sent == start.wrapping_add(5))
            );
            assert!(matches!(stream.acknowledge(start.wrapping_add(3)), Acknowledged::Nothing));
            assert_eq!((stream.kept.len(), stream.kept_bytes), (1, 0));
            assert!(stream.rewind().is_empty());
            assert_eq!(stream.sent, start.wrapping_add(3));
        }
    }

    #[test]
    fn a_stream_has_one_owner_and_is_forgotten_in_time() {
        let mut streams = Streams::default();
        streams.insert(5, Stream::new("a@b/c", b"t", 1000), 0);
        let mut first = Counting::new(5, 1);
        assert_eq!(streams.add(&mut first), Added::Ours { asks: false });
        assert!(streams.take_over(5, "other@b", 0).is_none() && streams.take_over(6, "a@b", 0).is_none());
        let (mut second, ..) = streams.take_over(5, "a@b", 0).expect("the owner's own");
        assert_eq!((streams.add(&mut first), streams.add(&mut second)), (Added::NotOurs, Added::Ours { asks: false }));
        streams.lost(&first, 0);
        streams.lost(&second, 10);
        streams.sweep_at = 0;
        streams.insert(6, Stream::new("d@b/c", b"", 1000), 1010);
        assert_eq!(streams.by_id.len(), 2);
        streams.sweep_at = 0;
        streams.insert(7, Stream::new("e@b/c", b"", 1000), 1011);
        assert!(!streams.by_id.contains_key(&5));
    }

    #[test]
    fn what_is_never_acknowledged_is_bounded() {
        let mut stream = Stream::new("a@b/c", b"t", 1000);
        let mut counting = Counting::new(1, 1);
        (0..KEPT).for_each(|n| counting.count(Some(Kept::Message(n as u64))));
        assert!(stream.add(&mut counting));
        counting.count(Some(Kept::Message(0)));
        assert!(!stream.add(&mut counting));
        let mut stream = Stream::new("a@b/c", b"t", 1000);
        counting.count(Some(Kept::Stanza(vec![0; KEPT_BYTES + 1].into())));
        assert!(!stream.add(&mut counting));
    }
}
