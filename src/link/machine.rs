//! One lane between two nodes, over a connection that may break at any time.
//!
//! Of two connections the one dialled later wins, at both ends. Whoever breaks the rules on an agreed connection loses it and is
//! given up, so that both rebuild; one that is not agreed on yet changes nothing. Silence of the peer counts only while this end
//! was awake. A peer that reads nothing fills its line, and is ended by its marks as clients are.

use super::backoff::Backoff;
use super::pair::{Meeting, Pair};
use super::talk::{End, Talk, part, say};
use super::{Ends, Incoming, LinkCounters, Notice, Refused, Settings};
use crate::base::id::ConnId;
use crate::base::limits::LINK_FRAME_BYTES;
use crate::base::random::{Random, mix};
use crate::base::reason::LinkReason;
use crate::base::time::Time;
use crate::wire::frame::{Chunk, Frames, HEADER_BYTES};
use crate::wire::lines::Lines;
use crate::wire::link::{self, FIRST_BYTES, Frame, Hello, Life, Purpose, Site};
use std::collections::VecDeque;

/// Longest entry, update or complex message.
const CONTENT_BYTES: usize = LINK_FRAME_BYTES as usize - HEADER_BYTES - 16;

/// A connection that nothing was agreed on yet.
#[derive(Debug)]
struct Trial {
    conn: ConnId,
    frames: Frames,
    since: Time,
    /// By this end.
    dialled: bool,
}

/// The connection in use.
#[derive(Debug)]
struct Open {
    frames: Frames,
    talk: Talk,
}

/// One end of a lane.
#[derive(Debug)]
pub struct Machine {
    ends: Ends,
    settings: Settings,
    pair: Pair,
    /// At the end that dials.
    backoff: Option<Backoff>,
    /// Of the peer's node, as it last said.
    peer_cores: u16,
    /// The last dial: of this end, or of the peer in its life.
    attempt: u32,
    trial: Option<Trial>,
    open: Option<Open>,
    end: Option<End>,
    /// When the peer was heard last.
    heard: Time,
    notices: VecDeque<Notice>,
    counters: LinkCounters,
}

impl Machine {
    /// The end that dials wants to at once, or nearly so.
    pub fn new(now: Time, ends: Ends, settings: Settings, random: Random) -> Machine {
        let mut backoff = ends.dials.then(|| Backoff::new(settings.backoff, settings.backoff_max, random));
        backoff.iter_mut().for_each(|backoff| backoff.want(now));
        Machine {
            ends,
            settings,
            pair: Pair::new(Life { epoch: ends.epoch, term: 0 }),
            backoff,
            peer_cores: 0,
            attempt: 0,
            trial: None,
            open: None,
            end: None,
            heard: now,
            notices: VecDeque::new(),
            counters: LinkCounters::default(),
        }
    }

    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// The peer's life, while it is up.
    pub fn peer_life(&self) -> Option<Life> {
        self.pair.peer()
    }

    /// Cores of the peer's node; 0: it has never said.
    pub fn peer_cores(&self) -> u16 {
        self.peer_cores
    }

    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Whether the peer is up: entries are taken, even during a short break.
    pub fn is_up(&self) -> bool {
        self.pair.peer().is_some()
    }

    /// The connection in use.
    pub fn conn(&self) -> Option<ConnId> {
        self.open.as_ref().map(|open| open.talk.conn)
    }

    /// Whether updates and complex messages may go out.
    #[inline]
    pub fn is_ready(&self, lines: &Lines) -> bool {
        let ready = |open: &Open| lines.is_open(open.talk.conn) && !lines.is_slow(open.talk.conn.slot);
        self.end.is_none() && self.open.as_ref().is_some_and(ready)
    }

    /// Entries that wait for their acknowledgement, and their bytes.
    pub fn kept(&self) -> (usize, usize) {
        (self.pair.kept(), self.pair.kept_bytes())
    }

    /// Whether so much waits for its acknowledgement that nothing should be begun that adds to it.
    pub fn is_pressed(&self) -> bool {
        let (entries, bytes) = self.kept();
        entries > self.settings.entries / 2 || bytes > self.settings.entry_bytes / 2
    }

    /// The next thing the owner must know.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    // What happens to connections.

    /// The connection that `Notice::Dial` wanted is there.
    pub fn dialled(&mut self, now: Time, conn: ConnId, lines: &mut Lines) {
        self.attempt += 1;
        self.begin(Trial { conn, frames: Frames::default(), since: now, dialled: true }, lines);
        let hello = Frame::Hello(self.hello());
        say(&mut self.counters, conn, &hello, lines);
    }

    /// The peer could not be reached.
    pub fn dial_failed(&mut self, now: Time) {
        let is_awaited = self.backoff.as_ref().is_some_and(Backoff::is_dialling);
        if is_awaited {
            self.counters.dials_failed += 1;
            self.dial_later(now, false);
        }
    }

    /// A connection came whose first frame says that it is for this lane. Its bytes come to `next` from the first on.
    /// The end that dials takes none.
    pub fn accepted(&mut self, now: Time, conn: ConnId, lines: &mut Lines) {
        if self.ends.dials {
            part(&mut self.counters, conn, &Frame::Refusal(LinkReason::NotExpected), lines);
            self.counters.refusals += 1;
            self.notices.push_back(Notice::Ended(LinkReason::NotExpected));
            return;
        }
        self.begin(Trial { conn, frames: Frames::default(), since: now, dialled: false }, lines);
    }

    fn begin(&mut self, trial: Trial, lines: &mut Lines) {
        self.backoff.iter_mut().for_each(Backoff::rest);
        if let Some(older) = self.trial.replace(trial) {
            part(&mut self.counters, older.conn, &Frame::Bye(LinkReason::Replaced), lines);
        }
    }

    /// A connection broke, or was closed.
    pub fn disconnected(&mut self, now: Time, conn: ConnId) {
        if self.trial.take_if(|trial| trial.conn == conn).is_some() {
            self.tried(now);
        }
        if let Some(open) = self.open.take_if(|open| open.talk.conn == conn) {
            self.interrupted(now, &open);
        }
    }

    /// What the peer sent makes no sense to the owner: the same happens as when it broke the link's own rules, with the next call
    /// of `next` or `tick`, which is due at once.
    pub fn accuse(&mut self, reason: LinkReason) {
        if self.open.is_some() {
            self.end = Some(End::Broke(reason));
        }
    }

    /// The same when something that must not be lost was refused: nothing goes out behind it. While the connection is broken the
    /// peer is given up without a word.
    pub fn overflow(&mut self, refused: Refused) {
        let Some(reason) = refused.ends() else { return };
        self.counters.overflows += 1;
        match self.open.is_some() {
            true => self.accuse(reason),
            false => {
                self.notices.push_back(Notice::Ended(reason));
                self.give_up();
            }
        }
    }

    /// The peer counts as lost for a reason of the owner's: both begin anew, as if it had broken the rules.
    pub fn renounce(&mut self, now: Time, reason: LinkReason, lines: &mut Lines) {
        if self.open.is_some() {
            self.end = Some(End::Broke(reason));
            self.finish(now, lines);
        } else if self.is_up() {
            self.give_up();
        }
    }

    /// Says goodbye: this node stops.
    pub fn leave(&mut self, lines: &mut Lines) {
        for conn in [self.trial.take().map(|trial| trial.conn), self.open.take().map(|open| open.talk.conn)].into_iter().flatten() {
            part(&mut self.counters, conn, &Frame::Bye(LinkReason::Leaving), lines);
        }
    }

    // What is sent.

    /// Sends an entry, or keeps it until a short break is over: it arrives once and in order while both live.
    ///
    /// Errors: `Full`, `TooLong`, `Down`; then it was not taken.
    pub fn send(&mut self, bytes: &[u8], lines: &mut Lines) -> Result<(), Refused> {
        self.keep(bytes, lines, |sequence| Frame::Entry { sequence, bytes })
    }

    /// The same for a complex message with something in it that must not be lost.
    ///
    /// Errors: as `send`.
    pub fn send_complex(&mut self, bytes: &[u8], lines: &mut Lines) -> Result<(), Refused> {
        self.keep(bytes, lines, |sequence| Frame::Complex { sequence: Some(sequence), bytes })?;
        self.counters.complex_sent += 1;
        Ok(())
    }

    fn keep<'b>(&mut self, bytes: &'b [u8], lines: &mut Lines, frame: impl FnOnce(u64) -> Frame<'b>) -> Result<(), Refused> {
        let kept = match bytes.len() {
            // What is lost can't be made up for by what comes behind it.
            _ if self.end.is_some() => Err(Refused::Down),
            0..=CONTENT_BYTES => self.pair.keep(bytes.len(), &self.settings, |sequence| frame(sequence).encode()),
            _ => Err(Refused::TooLong),
        };
        self.counters.refused += u64::from(kept == Err(Refused::Full));
        let kept = kept?;
        self.counters.entries_sent += 1;
        if let Some(open) = &self.open
            && lines.is_open(open.talk.conn)
        {
            self.counters.bytes_sent += kept.len() as u64;
            lines.append(open.talk.conn.slot, kept);
        }
        Ok(())
    }

    /// Sends an update with a number that means something to the peer's owner. False: there is no connection, or its line is slow;
    /// keep the newest of each (user, session).
    #[inline]
    pub fn update(&mut self, tag: u32, bytes: &[u8], lines: &mut Lines) -> bool {
        let sent = self.put(Frame::Update { tag, bytes }, bytes.len(), lines);
        self.counters.updates_sent += u64::from(sent);
        sent
    }

    /// Sends a complex message of updates. False: as with `update`.
    pub fn complex(&mut self, bytes: &[u8], lines: &mut Lines) -> bool {
        let sent = self.put(Frame::Complex { sequence: None, bytes }, bytes.len(), lines);
        self.counters.complex_sent += u64::from(sent);
        sent
    }

    fn put(&mut self, frame: Frame<'_>, bytes: usize, lines: &mut Lines) -> bool {
        let open = self.open.as_ref().filter(|_| bytes <= CONTENT_BYTES && self.is_ready(lines));
        let line = open.and_then(|open| lines.gather(open.talk.conn.slot, HEADER_BYTES + bytes));
        let Some(line) = line else {
            self.counters.put_off += 1;
            return false;
        };
        let before = line.len();
        frame.write(line);
        self.counters.bytes_sent += (line.len() - before) as u64;
        true
    }

    // What comes.

    /// The next thing out of what a connection gave. Call until it gives nothing; bytes of a connection that is not of this lane
    /// any more are ignored.
    #[inline]
    pub fn next<'s, 'a: 's>(
        &'s mut self,
        now: Time,
        conn: ConnId,
        chunk: &mut Chunk<'a>,
        lines: &mut Lines,
    ) -> Option<Incoming<'s>> {
        self.finish(now, lines);
        if let Some(notice) = self.notices.pop_front() {
            return Some(Incoming::Notice(notice));
        }
        if self.trial.as_ref().is_some_and(|trial| trial.conn == conn) {
            return self.greet(now, chunk, lines).then_some(Incoming::Nothing);
        }
        let Open { frames, talk } = self.open.as_mut().filter(|open| open.talk.conn == conn)?;
        if !chunk.unread().is_empty() {
            self.heard = now;
        }
        let heard = match frames.next(chunk, LINK_FRAME_BYTES) {
            Ok(None) => {
                if std::mem::take(&mut talk.owes_ack) {
                    say(&mut self.counters, conn, &Frame::Ack(self.pair.received()), lines);
                }
                return None;
            }
            Ok(Some(frame)) => {
                self.counters.bytes_received += frame.header.frame_bytes() as u64;
                match link::read(&frame) {
                    Ok(frame) => talk.hear(now, frame, &mut self.pair, &mut self.counters, lines),
                    Err(reason) => Err(End::Broke(reason)),
                }
            }
            Err(reason) => Err(End::Broke(link::fault(reason))),
        };
        Some(heard.unwrap_or_else(|end| {
            self.end = Some(end);
            Incoming::Nothing
        }))
    }

    /// Reads a trial's first frame. False: it is not whole yet.
    fn greet(&mut self, now: Time, chunk: &mut Chunk<'_>, lines: &mut Lines) -> bool {
        let Some(trial) = &mut self.trial else { return false };
        let said = match trial.frames.next(chunk, HEADER_BYTES as u32 + FIRST_BYTES) {
            Ok(None) => return false,
            Ok(Some(frame)) => link::read(&frame),
            Err(reason) => Err(link::fault(reason)),
        };
        // Whose fault it is that there will be nothing.
        let (hello, is_told) = match said {
            Ok(Frame::Hello(hello)) if !trial.dialled => (self.judge(&hello, false), false),
            Ok(Frame::Welcome(hello)) if trial.dialled => (self.judge(&hello, true), false),
            Ok(Frame::Refusal(reason) | Frame::Bye(reason)) => (Err(reason), true),
            Ok(_) => (Err(LinkReason::OutOfOrder), false),
            Err(reason) => (Err(reason), false),
        };
        let trial = self.trial.take().expect("it was there");
        match hello.and_then(|hello| self.pair.meet(&hello).map(|meeting| (hello, meeting))) {
            Ok((hello, meeting)) => self.agree(now, trial, &hello, meeting, lines),
            Err(reason) => {
                let last = if trial.dialled { Frame::Bye(reason) } else { Frame::Refusal(reason) };
                if !is_told {
                    say(&mut self.counters, trial.conn, &last, lines);
                }
                lines.close(trial.conn);
                self.counters.refusals += 1;
                self.notices.push_back(Notice::Ended(reason));
                self.tried(now);
            }
        }
        true
    }

    /// Whether a hello is one that this end waits for.
    fn judge(&self, hello: &Hello, dialled: bool) -> Result<Hello, LinkReason> {
        let Ends { me, peer, lane, cores, .. } = self.ends;
        let wrong = |wanted: Site, is: Site| match wanted.cluster == is.cluster {
            true => LinkReason::WrongNode,
            false => LinkReason::WrongCluster,
        };
        let is_older = self.pair.peer() == Some(hello.life) && hello.attempt <= self.attempt;
        match () {
            () if hello.from == me => Err(LinkReason::SameNumbers),
            () if hello.from != peer => Err(wrong(peer, hello.from)),
            () if hello.to != me => Err(wrong(me, hello.to)),
            () if hello.purpose != Purpose::of(me, peer) => Err(LinkReason::WrongPurpose),
            () if hello.lane != lane || lane >= Hello::lanes(cores, hello.cores) => Err(LinkReason::WrongLane),
            () if dialled && hello.attempt != self.attempt => Err(LinkReason::OutOfOrder),
            // It speaks to a life that this end has given up since it said hello.
            () if dialled && hello.known != Some(self.pair.mine) => Err(LinkReason::Forgot),
            () if !dialled && is_older => Err(LinkReason::OlderDial),
            () => Ok(*hello),
        }
    }

    fn hello(&self) -> Hello {
        let Ends { me, peer, lane, cores, digest, .. } = self.ends;
        let (known, received) = (self.pair.peer(), self.pair.received());
        let purpose = Purpose::of(me, peer);
        Hello { from: me, to: peer, purpose, cores, lane, attempt: self.attempt, life: self.pair.mine, known, received, digest }
    }

    /// A connection is agreed on: it takes the place of the one before, and what that one may not have carried goes out again.
    fn agree(&mut self, now: Time, trial: Trial, hello: &Hello, meeting: Meeting, lines: &mut Lines) {
        let conn = trial.conn;
        self.attempt = hello.attempt;
        self.peer_cores = hello.cores;
        if !trial.dialled {
            let welcome = Frame::Welcome(self.hello());
            say(&mut self.counters, conn, &welcome, lines);
        }
        let talk = Talk { conn, since: now, ping_at: now, before: None, owes_ack: false };
        let open = Open { frames: trial.frames, talk };
        if let Some(older) = self.open.replace(open) {
            part(&mut self.counters, older.talk.conn, &Frame::Bye(LinkReason::Replaced), lines);
        }
        self.heard = now;
        self.counters.connections += 1;
        let (life, pact, alike) = (hello.life, self.pact(hello.life), hello.digest == self.ends.digest);
        let notice = match meeting {
            Meeting::First => Notice::Up { life, pact, alike },
            Meeting::Again => {
                self.counters.resumed += 1;
                self.send_again(conn, lines);
                Notice::Resumed
            }
            Meeting::Another(unknown) => {
                self.count_loss(unknown);
                Notice::Restarted { life, pact, alike, unknown }
            }
        };
        self.notices.push_back(notice);
    }

    /// A number for this end's life and the peer's: the same at both ends.
    fn pact(&self, peer: Life) -> u64 {
        let mine = self.pair.mine;
        let (low, high) = if self.ends.me < self.ends.peer { (mine, peer) } else { (peer, mine) };
        [low, high].into_iter().fold(0, |sum, Life { epoch, term }| mix(mix(sum, epoch), u64::from(term)))
    }

    fn send_again(&mut self, conn: ConnId, lines: &mut Lines) {
        for frame in self.pair.unacknowledged() {
            lines.append(conn.slot, frame);
            self.counters.bytes_sent += frame.len() as u64;
            self.counters.entries_repeated += 1;
        }
    }

    // What ends.

    /// Ends the connection in use if a frame on it said so.
    fn finish(&mut self, now: Time, lines: &mut Lines) {
        let Some(end) = self.end.take() else { return };
        let Some(open) = self.open.take() else { return };
        let (reason, gives_up) = match end {
            End::Bye(reason) => (reason, reason == LinkReason::Leaving),
            End::Broke(reason) => {
                self.counters.violations += u64::from(reason.is_violation());
                say(&mut self.counters, open.talk.conn, &Frame::Bye(reason), lines);
                (reason, true)
            }
        };
        lines.close(open.talk.conn);
        self.notices.push_back(Notice::Ended(reason));
        self.interrupted(now, &open);
        if gives_up {
            self.give_up();
        }
    }

    /// The connection in use is gone.
    fn interrupted(&mut self, now: Time, open: &Open) {
        self.end = None;
        let was_good = now.since(open.talk.since) >= self.settings.silent.as_nanos() as u64;
        self.dial_later(now, was_good);
    }

    /// A trial came to nothing.
    fn tried(&mut self, now: Time) {
        self.counters.dials_failed += u64::from(self.backoff.is_some());
        self.dial_later(now, false);
    }

    fn dial_later(&mut self, now: Time, was_good: bool) {
        let is_wanted = self.open.is_none() && self.trial.is_none();
        let Some(backoff) = self.backoff.as_mut().filter(|_| is_wanted) else { return };
        if was_good {
            backoff.succeeded();
            backoff.want(now);
        } else {
            backoff.failed(now);
        }
    }

    fn give_up(&mut self) {
        let unknown = self.pair.part();
        self.count_loss(unknown);
        self.notices.push_back(Notice::Lost { unknown });
    }

    fn count_loss(&mut self, unknown: usize) {
        self.counters.losses += 1;
        self.counters.entries_returned += unknown as u64;
    }

    // Time.

    /// When `tick` is to be called, and `notice`, whatever happens before.
    pub fn deadline(&self) -> Time {
        let is_due = self.end.is_some() || !self.notices.is_empty();
        if is_due { Time::ZERO } else { self.next_of_time() }
    }

    fn next_of_time(&self) -> Time {
        let Settings { silent, grace, .. } = self.settings;
        let trial = self.trial.as_ref().map(|trial| trial.since + silent);
        let open = self.open.as_ref().map(|open| open.talk.ping_at.min(self.heard + silent));
        let lost = (self.open.is_none() && self.is_up()).then(|| self.heard + grace);
        let dial = self.backoff.as_ref().map(Backoff::deadline);
        [trial, open, lost, dial].into_iter().flatten().min().unwrap_or(Time::MAX)
    }

    pub fn tick(&mut self, now: Time, lines: &mut Lines) {
        let Settings { heartbeat, silent, grace, .. } = self.settings;
        // This end stood still itself: what the peer said meanwhile is still to be read.
        let late = now - self.next_of_time();
        if late > heartbeat {
            self.heard = now.min(self.heard + late);
        }
        self.finish(now, lines);
        if let Some(trial) = self.trial.take_if(|trial| trial.since + silent <= now) {
            self.counters.silences += 1;
            part(&mut self.counters, trial.conn, &Frame::Bye(LinkReason::Silent), lines);
            self.tried(now);
        }
        let heard = self.heard;
        if let Some(open) = self.open.take_if(|_| heard + silent <= now) {
            self.counters.silences += 1;
            part(&mut self.counters, open.talk.conn, &Frame::Bye(LinkReason::Silent), lines);
            self.notices.push_back(Notice::Ended(LinkReason::Silent));
            self.interrupted(now, &open);
        }
        if let Some(open) = self.open.as_mut().filter(|open| open.talk.ping_at <= now) {
            open.talk.ping_at = now + heartbeat;
            let conn = open.talk.conn;
            say(&mut self.counters, conn, &Frame::Ping(now.0), lines);
        }
        if self.open.is_none() && self.is_up() && self.heard + grace <= now {
            self.give_up();
        }
        if self.backoff.as_mut().is_some_and(|backoff| backoff.is_due(now, silent)) {
            self.counters.dials += 1;
            self.notices.push_back(Notice::Dial);
        }
    }
}
