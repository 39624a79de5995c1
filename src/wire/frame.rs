//! Frames: a 16-byte header and a body, and the splitter that finds them in what a socket gives.
//!
//! Lives on: every core, one `Frames` per connection, and in clients. Serves G2: a frame that lies whole in a received chunk is
//! read where it lies. Invariants: a connection between frames keeps nothing on the heap; one within a frame keeps at most
//! that frame. The flatbuffers crate reads unaligned, so nothing is copied for alignment.

use crate::base::reason::Reason;
use crate::wire::native::Kind;
use thin_vec::ThinVec;

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 16;
/// Every frame is a multiple of this long, so that each starts aligned if the first does.
pub const ALIGNMENT: usize = 8;

/// Length of a body once padded.
pub fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// What stands before each body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes after the header, padding included.
    pub body: u32,
    pub kind: Kind,
    /// Which session of a trunk; 0 elsewhere.
    pub stream: u32,
    /// The client's number for this request, which comes back in the answer; 0: no answer wanted unless it fails.
    pub request: u32,
}

impl Frame<'_> {
    /// What a frame of kind [`RAW`] says.
    pub fn raw(&self) -> &[u8] {
        &self.body[..self.header.stream as usize]
    }
}

impl Header {
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.body.to_le_bytes());
        bytes[4] = self.kind.0;
        bytes[8..12].copy_from_slice(&self.stream.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.request.to_le_bytes());
        bytes
    }

    /// Reads a header. `max_frame` counts the header too.
    ///
    /// Errors: `FrameTooLarge`; `BadFrame` when the length is not a multiple of 8 or a reserved byte is set.
    pub fn decode(bytes: &[u8; HEADER_BYTES], max_frame: u32) -> Result<Header, Reason> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let body = word(0);
        if body > max_frame.saturating_sub(HEADER_BYTES as u32) {
            return Err(Reason::FrameTooLarge);
        }
        if !(body as usize).is_multiple_of(ALIGNMENT) || bytes[5..8] != [0; 3] {
            return Err(Reason::BadFrame);
        }
        Ok(Header { body, kind: Kind(bytes[4]), stream: word(8), request: word(12) })
    }

    /// Length of the whole frame.
    pub fn frame_bytes(self) -> usize {
        HEADER_BYTES + self.body as usize
    }
}

/// Never on a native connection: what a translator (`front::translate`) says to its peer by itself. `stream` is the length in bytes
/// without padding; `request` is the translator's own.
pub const RAW: Kind = Kind(255);

/// Appends a frame of kind [`RAW`] with what `write` appends.
pub fn write_raw(out: &mut Vec<u8>, request: u32, write: impl FnOnce(&mut Vec<u8>)) {
    write_counted(out, RAW, request, write);
}

/// Appends a frame whose `stream` is the length in bytes of what `write` appends, without padding.
pub fn write_counted(out: &mut Vec<u8>, kind: Kind, request: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    write(out);
    let bytes = out.len() - start - HEADER_BYTES;
    out.resize(start + HEADER_BYTES + padded(bytes), 0);
    let header = Header { body: padded(bytes) as u32, kind, stream: bytes as u32, request };
    out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
}

/// The frames of a buffer that holds whole ones of this process's own making.
///
/// Panics when it doesn't.
pub fn each_whole(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let header = Header::decode(bytes.first_chunk()?, u32::MAX).expect("a frame of our own");
        let (frame, rest) = bytes.split_at(header.frame_bytes());
        bytes = rest;
        Some(Frame { header, body: &frame[HEADER_BYTES..] })
    })
}

/// One frame as found. Its body is not verified yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub header: Header,
    pub body: &'a [u8],
}

/// Bytes as received, and how far they were read.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    bytes: &'a [u8],
    read: usize,
    /// Start of the last frame found whole in this chunk.
    last: usize,
}

impl<'a> Chunk<'a> {
    pub fn new(bytes: &'a [u8]) -> Chunk<'a> {
        Chunk { bytes, read: 0, last: 0 }
    }

    pub fn unread(&self) -> &'a [u8] {
        &self.bytes[self.read..]
    }

    /// The streams that the next frames are for, as far as they lie whole in the chunk.
    pub fn streams(&self) -> impl Iterator<Item = u32> {
        let mut rest = self.unread();
        std::iter::from_fn(move || {
            let header = Header::decode(rest.first_chunk()?, u32::MAX).ok()?;
            rest = rest.get(header.frame_bytes()..)?;
            Some(header.stream)
        })
    }

    fn take(&mut self, most: usize) -> &'a [u8] {
        let taken = &self.unread()[..most.min(self.bytes.len() - self.read)];
        self.read += taken.len();
        taken
    }
}

/// Finds frames in a stream of chunks.
#[derive(Default, Debug)]
pub struct Frames {
    /// The frame that is incomplete, or that was completed and handed out by the last call.
    partial: ThinVec<u8>,
}

impl Frames {
    /// The next frame, or `None` when the chunk is used up: call until then, so that nothing is kept for no reason.
    ///
    /// Errors: as `Header::decode`. After an error the stream can't be read on.
    #[inline]
    pub fn next<'s, 'a: 's>(&'s mut self, chunk: &mut Chunk<'a>, max_frame: u32) -> Result<Option<Frame<'s>>, Reason> {
        if !self.partial.is_empty() {
            if !self.is_whole() {
                return self.complete(chunk, max_frame);
            }
            self.partial = ThinVec::new();
        }
        if let Some(bytes) = chunk.unread().first_chunk() {
            let header = Header::decode(bytes, max_frame)?;
            let whole = header.frame_bytes();
            if chunk.unread().len() >= whole {
                chunk.last = chunk.read;
                let frame = chunk.take(whole);
                return Ok(Some(Frame { header, body: &frame[HEADER_BYTES..] }));
            }
        }
        self.partial.extend_from_slice(chunk.take(usize::MAX));
        Ok(None)
    }

    /// Whether the kept bytes are one whole frame, which therefore was handed out.
    fn is_whole(&self) -> bool {
        self.partial
            .first_chunk()
            .is_some_and(|bytes| Header::decode(bytes, u32::MAX).is_ok_and(|header| header.frame_bytes() == self.partial.len()))
    }

    fn complete<'s>(&'s mut self, chunk: &mut Chunk<'_>, max_frame: u32) -> Result<Option<Frame<'s>>, Reason> {
        if let Some(missing) = HEADER_BYTES.checked_sub(self.partial.len()) {
            self.partial.extend_from_slice(chunk.take(missing));
        }
        let Some(bytes) = self.partial.first_chunk() else { return Ok(None) };
        let header = Header::decode(bytes, max_frame)?;
        let rest = chunk.take(header.frame_bytes() - self.partial.len());
        if self.partial.capacity() - self.partial.len() < rest.len() {
            // Doubles, so that a frame in small pieces is not copied often; stops at the frame's length.
            let room = (self.partial.capacity() * 2).max(self.partial.len() + rest.len()).min(header.frame_bytes());
            self.partial.reserve_exact(room - self.partial.len());
        }
        self.partial.extend_from_slice(rest);
        let whole = self.partial.len() == header.frame_bytes();
        Ok(whole.then(|| Frame { header, body: &self.partial[HEADER_BYTES..] }))
    }

    /// Gives back the last frame that `next` found and everything unread after it.
    pub fn unread_last(self, chunk: Chunk<'_>) -> Vec<u8> {
        if self.partial.is_empty() {
            return chunk.bytes[chunk.last..].to_vec();
        }
        [&self.partial, chunk.unread()].concat()
    }

    /// Whether the stream stands between frames.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// Bytes this holds on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.partial.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, body: usize) -> Vec<u8> {
        let header = Header { body: body as u32, kind, stream: 7, request: 9 };
        [&header.encode()[..], &vec![kind.0; body]].concat()
    }

    #[test]
    fn a_translators_own_words_stand_among_frames() {
        let mut bytes = frame(Kind::Ping, 16);
        write_raw(&mut bytes, 3, |out| out.extend_from_slice(b"<a/>"));
        bytes.extend_from_slice(&frame(Kind::Ack, 0));
        let found: Vec<Frame<'_>> = each_whole(&bytes).collect();
        assert_eq!(found.iter().map(|frame| frame.header.kind).collect::<Vec<_>>(), [Kind::Ping, RAW, Kind::Ack]);
        assert_eq!((found[1].raw(), found[1].header.request), (&b"<a/>"[..], 3));
    }

    fn split(frames: &mut Frames, bytes: &[u8], into: &mut Vec<(u8, usize)>) {
        let mut chunk = Chunk::new(bytes);
        while let Some(frame) = frames.next(&mut chunk, 4096).unwrap() {
            assert!(frame.body.iter().all(|&b| b == frame.header.kind.0));
            into.push((frame.header.kind.0, frame.body.len()));
        }
    }

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let stream = [frame(Kind::Ping, 16), frame(Kind::Ack, 0), frame(Kind::Message, 200)].concat();
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let (mut frames, mut found) = (Frames::default(), Vec::new());
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    split(&mut frames, piece, &mut found);
                }
                assert_eq!(found, [(Kind::Ping.0, 16), (Kind::Ack.0, 0), (Kind::Message.0, 200)]);
                assert_eq!(frames.heap_bytes(), 0);
            }
        }
    }

    #[test]
    fn what_is_kept_never_outgrows_the_frame() {
        let stream = frame(Kind::Message, 4000);
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for byte in &stream {
            assert!(frames.heap_bytes() <= stream.len());
            split(&mut frames, std::slice::from_ref(byte), &mut found);
        }
        assert_eq!(found, [(Kind::Message.0, 4000)]);
    }

    #[test]
    fn a_bad_header_is_refused_before_its_body_comes() {
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = frame(Kind::Ping, 16);
            change(&mut bytes);
            Frames::default().next(&mut Chunk::new(&bytes[..HEADER_BYTES]), 4096).unwrap_err()
        };
        assert_eq!(refused(&|b| b[0] = 17), Reason::BadFrame);
        assert_eq!(refused(&|b| b[5] = 1), Reason::BadFrame);
        assert_eq!(refused(&|b| b[7] = 1), Reason::BadFrame);
        assert_eq!(refused(&|b| b[0..4].copy_from_slice(&4088u32.to_le_bytes())), Reason::FrameTooLarge);
        assert_eq!(refused(&|b| b[3] = 0xff), Reason::FrameTooLarge);
    }

    #[test]
    fn the_last_frame_can_be_given_back_wherever_the_stream_was_cut() {
        let stream = [frame(Kind::Ping, 16), frame(Kind::LogIn, 24), frame(Kind::Ack, 8)].concat();
        for cut in 0..stream.len() {
            let mut frames = Frames::default();
            let mut given_back = None;
            for (at, piece) in [&stream[..cut], &stream[cut..]].into_iter().enumerate() {
                let mut chunk = Chunk::new(piece);
                while given_back.is_none()
                    && let Some(frame) = frames.next(&mut chunk, 4096).unwrap()
                {
                    if frame.header.kind == Kind::LogIn {
                        let later = if at == 0 { &stream[cut..] } else { &[] };
                        given_back = Some([&std::mem::take(&mut frames).unread_last(chunk), later].concat());
                    }
                }
            }
            assert_eq!(given_back.unwrap(), stream[32..], "cut at {cut}");
        }
    }
}
