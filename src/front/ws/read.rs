//! WebSocket frames of a client: found in chunks cut anywhere, unmasked, put together to messages, held to RFC 6455 section 5.
//!
//! Lives on: the core that owns the connection. Pure. Invariants: a text message handed out is UTF-8 (8.1); what is kept never
//! outgrows the longest message, and one control frame; an idle reader keeps nothing on the heap; after a fault nothing is read.

use super::write::{CONTROL_BYTES, Opcode};
use thin_vec::ThinVec;

/// Length of the longest header: two bytes, a length of eight, the mask.
const HEADER_BYTES: usize = 14;

/// What a client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// A frame that doesn't end its message.
    Fragment,
    Ping(&'a [u8]),
    Pong,
    /// With the code, when it has one.
    Close(Option<u16>),
}

/// Why a connection can't be read on: the code to close with, and a sentence for whoever wrote the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub code: u16,
    pub text: &'static str,
}

/// The codes of RFC 6455 7.4.1 that faults have.
pub const PROTOCOL_ERROR: u16 = 1002;
pub const UNSUPPORTED: u16 = 1003;
pub const NOT_SENSE: u16 = 1007;
pub const TOO_BIG: u16 = 1009;

/// The frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_last: bool,
    /// Turned so that its first byte is for the next byte of the payload.
    mask: [u8; 4],
    /// Bytes of the payload still to come.
    left: u32,
}

/// The state of one connection's way in. A new one is `Reader::default()`.
#[derive(Default, Debug)]
pub struct Reader {
    /// The message so far, unmasked, or the one handed out by the last call.
    message: ThinVec<u8>,
    /// The same of a control frame, which may come between the fragments of a message.
    control: ThinVec<u8>,
    /// A header that is incomplete.
    header: [u8; HEADER_BYTES],
    header_bytes: u8,
    frame: Option<Frame>,
    /// What the message is whose first fragment came.
    fragments_of: Option<Opcode>,
}

impl Reader {
    /// What the next frame brings, or `None` when the input is used up: call until then, so that nothing is kept for no reason.
    /// `most`: the longest message, in bytes.
    pub fn next<'s>(&'s mut self, input: &mut &[u8], most: u32) -> Result<Option<Incoming<'s>>, Fault> {
        self.forget_what_was_handed_out();
        let Some(frame) = self.whole_frame(input, most)? else {
            self.let_go();
            return Ok(None);
        };
        let opcode = match frame.opcode {
            control if control.is_control() => control,
            opcode if frame.is_last => self.fragments_of.take().unwrap_or(opcode),
            opcode => {
                self.fragments_of = Some(self.fragments_of.unwrap_or(opcode));
                return Ok(Some(Incoming::Fragment));
            }
        };
        self.hand_out(opcode).map(Some)
    }

    /// Reads as far as the input goes, or to the end of a frame.
    fn whole_frame(&mut self, input: &mut &[u8], most: u32) -> Result<Option<Frame>, Fault> {
        if self.frame.is_none() {
            self.frame = self.head(input, most)?;
        }
        let Some(mut frame) = self.frame else { return Ok(None) };
        self.payload(&mut frame, input);
        let is_whole = frame.left == 0;
        self.frame = (!is_whole).then_some(frame);
        Ok(is_whole.then_some(frame))
    }

    fn forget_what_was_handed_out(&mut self) {
        let reads = |control: bool| self.frame.is_some_and(|frame| frame.opcode.is_control() == control);
        if self.fragments_of.is_none() && !reads(false) {
            self.message.clear();
        }
        if !reads(true) {
            self.control.clear();
        }
    }

    /// Gives back memory that holds nothing.
    fn let_go(&mut self) {
        if self.message.is_empty() {
            self.message = ThinVec::new();
        }
        if self.control.is_empty() {
            self.control = ThinVec::new();
        }
    }

    fn hand_out(&self, opcode: Opcode) -> Result<Incoming<'_>, Fault> {
        Ok(match opcode {
            Opcode::Binary | Opcode::Continuation => Incoming::Binary(&self.message),
            Opcode::Text => Incoming::Text(text(&self.message)?),
            Opcode::Ping => Incoming::Ping(&self.control),
            Opcode::Pong => Incoming::Pong,
            Opcode::Close => Incoming::Close(close_code(&self.control)?),
        })
    }

    /// Reads a header as far as the input goes.
    fn head(&mut self, input: &mut &[u8], most: u32) -> Result<Option<Frame>, Fault> {
        loop {
            let have = usize::from(self.header_bytes);
            let wanted = match self.header[..have] {
                [first, second, ..] => {
                    self.check_start(first, second)?;
                    2 + length_bytes(second) + 4
                }
                _ => 2,
            };
            if have == wanted && have > 2 {
                self.header_bytes = 0;
                let mask = *self.header[..have].last_chunk().expect("it is longer");
                return self.frame(&self.header[..have - 4], mask, most).map(Some);
            }
            let taken = take(input, wanted - have);
            if taken.is_empty() {
                return Ok(None);
            }
            self.header[have..have + taken.len()].copy_from_slice(taken);
            self.header_bytes += taken.len() as u8;
        }
    }

    /// What the first two bytes of a header say already.
    fn check_start(&self, first: u8, second: u8) -> Result<Opcode, Fault> {
        let fault = |text| Err(Fault { code: PROTOCOL_ERROR, text });
        if first & 0x70 != 0 {
            return fault("a reserved bit is set: no extension was agreed upon");
        }
        let Some(opcode) = Opcode::from_bits(first & 0x0f) else { return fault("a reserved opcode") };
        if second & 0x80 == 0 {
            return fault("a client masks its frames");
        }
        match opcode {
            control if control.is_control() && first & 0x80 == 0 => fault("a control frame may not be fragmented"),
            control if control.is_control() && usize::from(second & 0x7f) > CONTROL_BYTES => fault("a control frame is too long"),
            Opcode::Continuation if self.fragments_of.is_none() => fault("a continuation of nothing"),
            Opcode::Text | Opcode::Binary if self.fragments_of.is_some() => fault("a new message before the last one ended"),
            opcode => Ok(opcode),
        }
    }

    fn frame(&self, header: &[u8], mask: [u8; 4], most: u32) -> Result<Frame, Fault> {
        let (first, second) = (header[0], header[1]);
        let opcode = self.check_start(first, second)?;
        let length = match &header[2..] {
            [] => u64::from(second & 0x7f),
            bytes => bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let least = [0, 126, 0x1_0000][[0, 2, 8].iter().position(|n| *n == header.len() - 2).expect("one of three")];
        if length < least || length >> 63 != 0 {
            return Err(Fault { code: PROTOCOL_ERROR, text: "a length is written in as few bytes as it can be" });
        }
        let before = if opcode.is_control() { 0 } else { self.message.len() as u64 };
        if before + length > u64::from(most) && !opcode.is_control() {
            return Err(Fault { code: TOO_BIG, text: "the message is too long" });
        }
        Ok(Frame { opcode, is_last: first & 0x80 != 0, mask, left: length as u32 })
    }

    /// Reads the payload as far as the input goes.
    fn payload(&mut self, frame: &mut Frame, input: &mut &[u8]) {
        let masked = take(input, frame.left as usize);
        let into = if frame.opcode.is_control() { &mut self.control } else { &mut self.message };
        let start = into.len();
        if into.capacity() - start < masked.len() {
            // Doubles, so that what comes in small pieces is not copied often; stops at the frame's length.
            let room = (into.capacity() * 2).max(start + masked.len()).min(start + frame.left as usize);
            into.reserve_exact(room - start);
        }
        into.extend_from_slice(masked);
        unmask(&mut into[start..], frame.mask);
        frame.mask.rotate_left(masked.len() % 4);
        frame.left -= masked.len() as u32;
    }

    /// Bytes this holds on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.message.capacity() + self.control.capacity()
    }
}

/// Bytes of a header that a length takes beyond the two that are always there.
fn length_bytes(second: u8) -> usize {
    match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

/// Takes the mask off (RFC 6455 5.3), eight bytes at a time; the compiler makes it more where the machine has wider registers.
#[inline]
pub fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes(std::array::from_fn(|n| mask[n % 4]));
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault { code: NOT_SENSE, text: "a text message is UTF-8" })
}

/// The code of a Close frame (RFC 6455 5.5.1, 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    match payload {
        [] => Ok(None),
        [_] => Err(Fault { code: PROTOCOL_ERROR, text: "a close code has two bytes" }),
        [high, low, reason @ ..] => {
            text(reason)?;
            let code = u16::from_be_bytes([*high, *low]);
            match code {
                1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Some(code)),
                _ => Err(Fault { code: PROTOCOL_ERROR, text: "this close code may not be sent" }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client's frame, with the length in as few bytes as it can be.
    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            middle @ 126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// A message in pieces, perhaps with a Ping between them.
    #[derive(Clone, Debug)]
    struct Sent {
        text: bool,
        pieces: Vec<String>,
        pings: bool,
        mask: [u8; 4],
    }

    impl Sent {
        fn bytes(&self) -> Vec<u8> {
            let opcode = if self.text { 1 } else { 2 };
            let last = self.pieces.len() - 1;
            let mut bytes = Vec::new();
            for (at, piece) in self.pieces.iter().enumerate() {
                let first = if at == 0 { opcode } else { 0 } | if at == last { 0x80 } else { 0 };
                bytes.extend(frame(first, piece.as_bytes(), self.mask));
                if self.pings {
                    bytes.extend(frame(0x89, b"are you there", self.mask));
                }
            }
            bytes
        }

        fn found(&self) -> Vec<String> {
            let whole = format!("{}{}", if self.text { "text " } else { "binary " }, self.pieces.concat());
            let ping = if self.pings { vec!["ping are you there".to_owned()] } else { Vec::new() };
            let parts = (1..self.pieces.len()).flat_map(|_| [vec!["fragment".to_owned()], ping.clone()].concat());
            let last = [vec![whole], ping.clone()].concat();
            parts.chain(last).collect()
        }
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let pieces = prop::collection::vec(prop_oneof![".{0,20}", ".{120,140}"], 1..5);
        (any::<bool>(), pieces, any::<bool>(), any::<[u8; 4]>()).prop_map(|(text, pieces, pings, mask)| Sent {
            text,
            pieces,
            pings,
            mask,
        })
    }

    fn read(reader: &mut Reader, mut input: &[u8], into: &mut Vec<String>) -> Result<(), Fault> {
        while let Some(incoming) = reader.next(&mut input, 1 << 20)? {
            into.push(match incoming {
                Incoming::Text(text) => format!("text {text}"),
                Incoming::Binary(bytes) => format!("binary {}", String::from_utf8_lossy(bytes)),
                Incoming::Fragment => "fragment".to_owned(),
                Incoming::Ping(data) => format!("ping {}", String::from_utf8_lossy(data)),
                Incoming::Pong => "pong".to_owned(),
                Incoming::Close(code) => format!("close {code:?}"),
            });
        }
        assert!(input.is_empty());
        Ok(())
    }

    proptest! {
        #[test]
        fn messages_are_found_wherever_they_and_the_stream_are_cut(
            messages in prop::collection::vec(sent(), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(Sent::bytes).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).chain([0, stream.len()]).collect();
            cuts.sort_unstable();
            let (mut reader, mut found) = (Reader::default(), Vec::new());
            for piece in cuts.windows(2) {
                read(&mut reader, &stream[piece[0]..piece[1]], &mut found).unwrap();
            }
            prop_assert_eq!(found, messages.iter().flat_map(Sent::found).collect::<Vec<_>>());
            prop_assert_eq!(reader.heap_bytes(), 0, "nothing is left between messages");
        }

        #[test]
        fn a_mask_is_taken_off_byte_by_byte(bytes: Vec<u8>, mask: [u8; 4]) {
            let mut unmasked = bytes.clone();
            unmask(&mut unmasked, mask);
            let expected: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            prop_assert_eq!(unmasked, expected);
        }
    }

    #[test]
    fn what_is_kept_never_outgrows_the_message() {
        let stream =
            [frame(1, &[b'x'; 3000], [1, 2, 3, 4]), frame(0x89, &[b'p'; 125], [5; 4]), frame(0x80, &[b'y'; 900], [7; 4])].concat();
        let (mut reader, mut found) = (Reader::default(), Vec::new());
        for byte in &stream {
            read(&mut reader, std::slice::from_ref(byte), &mut found).unwrap();
            assert!(reader.heap_bytes() <= 3900 + CONTROL_BYTES, "{}", reader.heap_bytes());
        }
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_length_that_is_too_much_is_refused_before_anything_is_kept() {
        let mut reader = Reader::default();
        let fault = reader.next(&mut &[0x82, 0x80 | 127, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4][..], 1 << 20).unwrap_err();
        assert_eq!((fault.code, reader.heap_bytes()), (TOO_BIG, 0));
        let mut half = Reader::default();
        assert_eq!(half.next(&mut &frame(0x82, &[0; 9], [0; 4])[..14], 1 << 20), Ok(None));
        assert!(half.heap_bytes() < 64, "room for what came, not for what was promised");
    }

    #[test]
    fn an_idle_reader_is_one_cache_line() {
        assert!(size_of::<Reader>() <= 64, "{}", size_of::<Reader>());
    }
}
