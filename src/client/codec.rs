//! A server's bytes as verified frames. The other way is `wire::encode::Encoder`.
//!
//! Lives on: any thread of a client. Sans-IO. Invariant: a server can make a client keep one frame at most.

use crate::base::reason::Reason;
use crate::wire::decode::{self, ServerFrame};
use crate::wire::encode::Tag;
use crate::wire::frame::{Chunk, Frames};

/// Longest frame taken from a server: all that is long comes in pieces, but for block lists. At the limit: `FrameTooLarge`.
pub const FRAME_BYTES: u32 = 64 << 20;

/// A server's frame, verified; it borrows from the chunk it came in.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// What it's about: the stream of a trunk, and the request it answers.
    pub tag: Tag,
    pub frame: ServerFrame<'a>,
}

/// Finds and verifies the frames in what was received.
#[derive(Default)]
pub struct Codec {
    frames: Frames,
}

impl Codec {
    /// The next frame, or `None` when the chunk is used up: call until then.
    ///
    /// Errors: `BadFrame`, `FrameTooLarge`; the connection can't be read on.
    #[inline]
    pub fn next<'s, 'a: 's>(&'s mut self, chunk: &mut Chunk<'a>) -> Result<Option<Received<'s>>, Reason> {
        let Some(frame) = self.frames.next(chunk, FRAME_BYTES)? else { return Ok(None) };
        let tag = Tag { stream: frame.header.stream, request: frame.header.request };
        Ok(Some(Received { tag, frame: decode::from_server(frame.header.kind, frame.body)? }))
    }
}
