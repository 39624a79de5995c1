//! Event frames, as native connections get them: encoded once at the publisher's home, then only copied (G2).
//!
//! Invariant: the bytes handed to these functions came from `encode`, here or on another core; anything else is our own fault and
//! panics.

use crate::wire::event::{self, BatchWriter, Head};
use crate::wire::frame::HEADER_BYTES;

/// One event frame of a publisher's session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    pub fn new(head: Head, presence: &[u8]) -> Frame {
        let mut bytes = Vec::new();
        encode(&mut bytes, head, presence);
        Frame(bytes)
    }

    pub fn head(&self) -> Head {
        head(&self.0)
    }
}

/// Replaces the bytes by a frame.
#[inline]
pub fn encode(into: &mut Vec<u8>, head: Head, presence: &[u8]) {
    into.clear();
    event::write(into, head, presence);
}

/// Who, and which version.
#[inline]
pub fn head(frame: &[u8]) -> Head {
    Head::read(&frame[HEADER_BYTES..]).expect("a frame that was encoded here").0
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

/// Replaces the bytes by one batch of frames, for a stream of a trunk or (0) a connection's own session.
pub fn batch<'a>(into: &mut Vec<u8>, stream: u32, frames: impl Iterator<Item = &'a [u8]>) {
    into.clear();
    let streams = if stream == 0 { &[][..] } else { &[stream] };
    let mut writer = BatchWriter::start(into);
    for frame in frames {
        writer.push(into, &frame[HEADER_BYTES..], streams);
    }
    writer.finish(into);
}
