//! Event frames, as native connections get them: encoded once at the publisher's home, then only copied (G2).
//!
//! Invariant: the bytes handed to these functions came from `encode`, here or on another core; anything else is our own fault and
//! panics.

use super::farewell;
use crate::base::random::mix;
use crate::wire::event::{self, BatchWriter, Event, Head};
use crate::wire::frame::{HEADER_BYTES, Header};
use crate::wire::native::{Kind, Show};
use serde::{Deserialize, Serialize};

/// Event frames, one behind the other in one block.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Events(Vec<u8>);

impl From<Events> for Vec<u8> {
    fn from(events: Events) -> Vec<u8> {
        events.0
    }
}

impl TryFrom<Vec<u8>> for Events {
    type Error = &'static str;

    /// Bytes of another node, which may be anything.
    fn try_from(block: Vec<u8>) -> Result<Events, &'static str> {
        let mut rest = &block[..];
        while !rest.is_empty() {
            rest = split_event(rest).ok_or("event frames without streams")?;
        }
        Ok(Events(block))
    }
}

/// What stands behind the first frame of bytes that may be anything; `None`: they don't begin with the event of a connection.
fn split_event(bytes: &[u8]) -> Option<&[u8]> {
    let header = Header::decode(bytes.first_chunk()?, u32::MAX).ok()?;
    let (first, rest) = bytes.split_at_checked(header.frame_bytes())?;
    let event = event::read(first.get(HEADER_BYTES..)?).ok()?;
    (header.kind == Kind::Event && event.streams.is_empty()).then_some(rest)
}

impl Events {
    /// One frame.
    pub fn of(head: Head, presence: &[u8]) -> Events {
        let mut events = Events::default();
        events.push(head, presence);
        events
    }

    pub fn push(&mut self, head: Head, presence: &[u8]) {
        event::write(&mut self.0, head, presence);
    }

    /// Adds frames that were encoded before.
    pub fn append(&mut self, frames: &[u8]) {
        self.0.extend_from_slice(frames);
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        frames(&self.0)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The frames in a block of them.
pub fn frames(mut block: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let header = Header::decode(block.first_chunk()?, u32::MAX).expect("a frame that was encoded here");
        let (first, rest) = block.split_at(header.frame_bytes());
        block = rest;
        Some(first)
    })
}

/// Replaces the bytes by a frame.
#[inline]
pub fn encode(into: &mut Vec<u8>, head: Head, presence: &[u8]) {
    into.clear();
    event::write(into, head, presence);
}

/// All of it, read again.
pub fn event(frame: &[u8]) -> Event<'_> {
    event::read(&frame[HEADER_BYTES..]).expect("a frame that was encoded here")
}

/// Who, and which version.
#[inline]
pub fn head(frame: &[u8]) -> Head {
    Head::read(&frame[HEADER_BYTES..]).expect("a frame that was encoded here").0
}

/// Whether it ends a session.
pub fn is_farewell(head: &Head) -> bool {
    head.show == Show::Unavailable
}

/// What stands for a frame whose presence is asked for: who, and which version.
pub fn reference(frame: &[u8]) -> Events {
    let head = head(frame);
    let stand_in = farewell::stand_in(&farewell::resource(presence(frame)), head.show);
    Events::of(Head { flags: head.flags | event::REFERENCE, ..head }, &stand_in)
}

/// Whether it is such a one.
#[inline]
pub fn is_reference(head: &Head) -> bool {
    head.flags & event::REFERENCE != 0
}

/// What tells a state from another one: which sessions there are, and which versions of them, in any order.
pub fn digest(block: &[u8]) -> u64 {
    let mixed = |frame: &[u8]| {
        let Head { session, version, .. } = head(frame);
        let (session, version) = (u64::from(session.0), u64::from(version.epoch) << 32 | u64::from(version.sequence));
        mix(mix(u64::from(is_farewell(&head(frame))), session), version)
    };
    frames(block).fold(0, |sum, frame| sum.wrapping_add(mixed(frame)))
}

/// Everything behind the head.
pub fn presence(frame: &[u8]) -> &[u8] {
    &frame[HEADER_BYTES + event::HEAD_BYTES..]
}

/// Upper bound of what `append_addressed` appends.
pub fn addressed_len(frame: &[u8], streams: usize) -> usize {
    let frames = streams.div_ceil(event::MAX_STREAMS);
    frame.len() * frames + streams * 4 + 8 * frames
}

/// Appends the frame for these streams of a trunk.
#[inline]
pub fn append_addressed(to: &mut Vec<u8>, frame: &[u8], streams: &[u32]) {
    event::splice(to, &frame[HEADER_BYTES..], streams);
}

/// Upper bound of what `batch` appends.
pub fn batch_len(frames: &[u8]) -> usize {
    HEADER_BYTES + frames.len()
}

/// Appends one batch of frames, for a stream of a trunk or (0) a connection's own session.
pub fn batch(to: &mut Vec<u8>, stream: u32, block: &[u8]) {
    to.reserve(batch_len(block));
    let streams = if stream == 0 { &[][..] } else { &[stream] };
    let mut writer = BatchWriter::start(to);
    for frame in frames(block) {
        writer.push(to, &frame[HEADER_BYTES..], streams);
    }
    writer.finish(to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{SessionId, UserId, Version};

    #[test]
    fn z13_states_are_told_apart_by_sessions_and_versions_in_whatever_order() {
        let frame = |session, epoch, sequence, show| {
            let head = Head { user: UserId(7), version: Version { epoch, sequence }, session: SessionId(session), show, flags: 0 };
            Events::of(head, &[1; 16]).bytes().to_vec()
        };
        let (one, two) = (frame(1, 1, 5, Show::Away), frame(2, 1, 5, Show::Away));
        assert_eq!(digest(&[one.clone(), two.clone()].concat()), digest(&[two.clone(), one.clone()].concat()));
        let states =
            [Vec::new(), one, two, frame(1, 2, 5, Show::Away), frame(1, 1, 6, Show::Away), frame(1, 1, 5, Show::Unavailable)];
        let digests: std::collections::BTreeSet<u64> = states.iter().map(|state| digest(state)).collect();
        assert_eq!(digests.len(), states.len());
    }
}
