//! Presence events: how an update looks to its subscribers.
//!
//! Lives on: every core; an event is written once and appended to every line. Serves G2: the publisher's flatbuffer is the tail
//! of the event, byte for byte, and a trunk's stream numbers are spliced in before it. An event *body* is [`Head`], streams,
//! presence; the body without streams is what crosses cores. Invariant: every body is padded to 8 bytes.

use crate::base::id::{SessionId, UserId, Version};
use crate::base::reason::Reason;
use crate::wire::frame::{HEADER_BYTES, Header, padded};
use crate::wire::native::{EventHead, Kind, Show};
use crate::wire::presence::{self, PresenceView};

/// Length of the fixed part of an event body.
pub const HEAD_BYTES: usize = 24;
/// Streams of one event; for more subscribers on one trunk there are several events.
pub const MAX_STREAMS: usize = u16::MAX as usize;
/// Length of what stands before each event in a batch: the event's length, and zeros.
const ENTRY_BYTES: usize = 8;
/// Flag: the last presence of a user who is not online.
pub const LAST: u8 = 2;
/// Flag, between nodes alone: the presence names the session and nothing else; the whole of it is to be asked for (M5).
pub const REFERENCE: u8 = 4;

/// Who, and which version: the fixed part of an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Head {
    pub user: UserId,
    pub version: Version,
    pub session: SessionId,
    pub show: Show,
    pub flags: u8,
}

impl Head {
    fn encode(self, streams: u16) -> [u8; HEAD_BYTES] {
        EventHead::new(self.user.0, self.version.epoch, self.version.sequence, self.session.0, streams, self.show, self.flags).0
    }

    /// The head of a body and how many streams follow it. Verifies nothing else.
    ///
    /// Errors: `BadFrame` when the body is too short or `show` is unknown.
    #[inline]
    pub fn read(body: &[u8]) -> Result<(Head, usize), Reason> {
        let head = EventHead(*body.first_chunk::<HEAD_BYTES>().ok_or(Reason::BadFrame)?);
        if head.show().0 > Show::ENUM_MAX {
            return Err(Reason::BadFrame);
        }
        let version = Version { epoch: head.epoch(), sequence: head.sequence() };
        let (user, session) = (UserId(head.user()), SessionId(head.session()));
        Ok((Head { user, version, session, show: head.show(), flags: head.flags() }, usize::from(head.streams())))
    }
}

/// Appends an event body without streams: what crosses cores, and the input of `write_body` and `splice`.
#[inline]
pub fn body(out: &mut Vec<u8>, head: Head, presence: &[u8]) {
    out.reserve(HEAD_BYTES + padded(presence.len()));
    out.extend_from_slice(&head.encode(0));
    out.extend_from_slice(presence);
    pad(out, presence.len());
}

/// Appends the Event frame for every connection that is not a trunk. `presence` is the publisher's body of SetPresence, or empty.
#[inline]
pub fn write(out: &mut Vec<u8>, head: Head, presence: &[u8]) {
    let length = HEAD_BYTES + padded(presence.len());
    let mut start = [0; HEADER_BYTES + HEAD_BYTES];
    start[..HEADER_BYTES].copy_from_slice(&header(Kind::Event, length));
    start[HEADER_BYTES..].copy_from_slice(&head.encode(0));
    out.reserve(HEADER_BYTES + length);
    out.extend_from_slice(&start);
    out.extend_from_slice(presence);
    pad(out, presence.len());
}

/// Appends the Event frame of a body without streams.
#[inline]
pub fn write_body(out: &mut Vec<u8>, body: &[u8]) {
    out.reserve(HEADER_BYTES + body.len());
    out.extend_from_slice(&header(Kind::Event, body.len()));
    out.extend_from_slice(body);
}

/// Appends the Event frame of a body without streams for these streams of a trunk.
///
/// Panics when `body` is not one that `body` wrote.
pub fn splice(out: &mut Vec<u8>, body: &[u8], streams: &[u32]) {
    for streams in streams.chunks(MAX_STREAMS) {
        out.extend_from_slice(&header(Kind::Event, body.len() + padded(streams.len() * 4)));
        spliced(out, body, streams);
    }
}

fn spliced(out: &mut Vec<u8>, body: &[u8], streams: &[u32]) {
    /// Where `streams` stands in the head.
    const AT: usize = 20;
    let start = out.len();
    out.extend_from_slice(&body[..HEAD_BYTES]);
    out[start + AT..start + AT + 2].copy_from_slice(&(streams.len() as u16).to_le_bytes());
    out.reserve(streams.len() * 4 + body.len());
    for stream in streams {
        out.extend_from_slice(&stream.to_le_bytes());
    }
    pad(out, streams.len() * 4);
    out.extend_from_slice(&body[HEAD_BYTES..]);
}

#[inline]
fn header(kind: Kind, body: usize) -> [u8; HEADER_BYTES] {
    Header { body: body as u32, kind, stream: 0, request: 0 }.encode()
}

/// Pads what follows `written` bytes. Those that are padded already, nearly all, cost one test.
#[inline]
fn pad(out: &mut Vec<u8>, written: usize) {
    let zeros = padded(written) - written;
    if zeros > 0 {
        out.extend_from_slice(&[0; 8][..zeros]);
    }
}

/// Writes an EventBatch frame event by event. Nothing else may be appended to the buffer until `finish`.
pub struct BatchWriter {
    start: usize,
}

impl BatchWriter {
    pub fn start(out: &mut Vec<u8>) -> BatchWriter {
        let start = out.len();
        out.extend_from_slice(&header(Kind::EventBatch, 0));
        BatchWriter { start }
    }

    /// Adds a body without streams; on a trunk, for these streams.
    pub fn push(&mut self, out: &mut Vec<u8>, body: &[u8], streams: &[u32]) {
        if streams.is_empty() {
            Self::entry(out, body.len());
            out.extend_from_slice(body);
        }
        for streams in streams.chunks(MAX_STREAMS) {
            Self::entry(out, body.len() + padded(streams.len() * 4));
            spliced(out, body, streams);
        }
    }

    fn entry(out: &mut Vec<u8>, length: usize) {
        out.extend_from_slice(&(length as u64).to_le_bytes());
    }

    /// Length of the frame so far.
    pub fn frame_bytes(&self, out: &[u8]) -> usize {
        out.len() - self.start
    }

    /// Completes the frame; one without events is taken back.
    pub fn finish(self, out: &mut Vec<u8>) {
        let body = out.len() - self.start - HEADER_BYTES;
        if body == 0 {
            out.truncate(self.start);
        } else {
            out[self.start..self.start + HEADER_BYTES].copy_from_slice(&header(Kind::EventBatch, body));
        }
    }
}

/// An event as received, verified.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    pub head: Head,
    /// The trunk's streams it is for; empty elsewhere.
    pub streams: Streams<'a>,
    /// Of a session that was cut off it has the resource only.
    pub presence: Option<PresenceView<'a>>,
}

/// Reads and verifies an event body.
///
/// Errors: `BadFrame`.
#[inline]
pub fn read(body: &[u8]) -> Result<Event<'_>, Reason> {
    let (head, count) = Head::read(body)?;
    let rest = &body[HEAD_BYTES..];
    let streams = rest.get(..count * 4).ok_or(Reason::BadFrame)?;
    let tail = rest.get(padded(count * 4)..).ok_or(Reason::BadFrame)?;
    let presence = if tail.is_empty() { None } else { Some(presence::read(tail)?) };
    Ok(Event { head, streams: Streams(streams), presence })
}

/// The stream numbers of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Streams<'a>(&'a [u8]);

impl<'a> Streams<'a> {
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.0.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    pub fn len(self) -> usize {
        self.0.len() / 4
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// The body of an EventBatch. Its events are verified one by one as they are read.
#[derive(Clone, Copy)]
pub struct Batch<'a>(&'a [u8]);

impl<'a> Batch<'a> {
    pub fn new(body: &'a [u8]) -> Batch<'a> {
        Batch(body)
    }

    /// The events, up to the first that is bad.
    ///
    /// Errors: `BadFrame`, last.
    pub fn iter(self) -> impl Iterator<Item = Result<Event<'a>, Reason>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let entry = Self::split(rest);
            rest = entry.map_or(&[], |(_, after)| after);
            let event = entry.ok_or(Reason::BadFrame).and_then(|(body, _)| read(body));
            if event.is_err() {
                rest = &[];
            }
            Some(event)
        })
    }

    fn split(rest: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, rest) = rest.split_first_chunk::<ENTRY_BYTES>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        if length.is_multiple_of(8) { rest.split_at_checked(length) } else { None }
    }
}
