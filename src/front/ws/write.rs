//! WebSocket frames of a server: a header before each message, since nothing is masked on this way.
//!
//! Lives on: every core. Pure. Invariants: a length stands in as few bytes as it can (RFC 6455 5.2); a reason to close is text of
//! at most 123 bytes.

use crate::base::reason::Reason;

/// What a frame is (RFC 6455 11.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    /// `None`: a reserved one.
    pub fn from_bits(bits: u8) -> Option<Opcode> {
        use Opcode::*;
        [Continuation, Text, Binary, Close, Ping, Pong].into_iter().find(|opcode| *opcode as u8 == bits)
    }

    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Length of the header of most messages, for which room is left before they are written.
const USUAL_HEADER: usize = 4;
/// Most that a control frame may carry (RFC 6455 5.5).
pub const CONTROL_BYTES: usize = 125;
/// Of which a reason to close gets what its code leaves.
const REASON_BYTES: usize = CONTROL_BYTES - 2;

/// Appends a text message: what `content` appends. It must not touch what stands in `out` already.
#[inline]
pub fn text(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; USUAL_HEADER]);
    content(out);
    let (header, length) = header(Opcode::Text, out.len() - start - USUAL_HEADER);
    if length == USUAL_HEADER {
        out[start..start + length].copy_from_slice(&header[..length]);
    } else {
        // Short messages move two bytes down; those of 64 KiB and more move up.
        out.splice(start..start + USUAL_HEADER, header[..length].iter().copied());
    }
}

/// Turns what stands from a place to the end into a text message.
pub fn wrap_text(out: &mut Vec<u8>, from: usize) {
    let (header, length) = header(Opcode::Text, out.len() - from);
    out.splice(from..from, header[..length].iter().copied());
}

/// The header of a whole message or control frame, and its length.
#[inline]
fn header(opcode: Opcode, payload: usize) -> ([u8; 10], usize) {
    let mut header = [0x80 | opcode as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let length = match payload {
        0..126 => {
            header[1] = payload as u8;
            2
        }
        126..0x1_0000 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (header, length)
}

/// Appends a frame whose payload is there already.
///
/// Panics when a control frame gets more than [`CONTROL_BYTES`].
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    assert!(!opcode.is_control() || payload.len() <= CONTROL_BYTES, "a control frame is short");
    let (header, length) = header(opcode, payload.len());
    out.reserve(length + payload.len());
    out.extend_from_slice(&header[..length]);
    out.extend_from_slice(payload);
}

/// Appends a Close frame. A reason that is too long is cut.
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES)];
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    frame(out, Opcode::Close, &payload);
}

/// The close code of a connection that has done its work.
pub const NORMAL: u16 = 1000;

/// The close code that says a reason (RFC 6455 7.4.1 and the registry it made; 1012 to 1014 are from there).
pub fn close_code(reason: Reason) -> u16 {
    match reason {
        Reason::BadFrame => 1007,
        Reason::FrameTooLarge => 1009,
        Reason::TooManyConnections => 1013,
        Reason::ShuttingDown => 1012,
        reason if reason.closes() && reason != Reason::ConnectionLost => 1008,
        _ => NORMAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_as_short_as_the_length_allows() {
        for (payload, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (70_000, 10)] {
            let body: Vec<u8> = (0..payload).map(|n| n as u8).collect();
            let (mut filled, mut copied) = (b"before".to_vec(), b"before".to_vec());
            let mut wrapped = [&b"before"[..], &body].concat();
            text(&mut filled, |out| out.extend_from_slice(&body));
            frame(&mut copied, Opcode::Text, &body);
            wrap_text(&mut wrapped, 6);
            assert_eq!(filled, copied, "{payload}");
            assert_eq!(wrapped, copied, "{payload}");
            assert_eq!(filled.len(), 6 + header + payload);
            assert!(filled.starts_with(b"before\x81") && filled.ends_with(&body));
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        close(&mut out, 1008, &"\u{e9}".repeat(100));
        assert_eq!(out[..4], [0x88, 124, 0x03, 0xf0]);
        assert_eq!(std::str::from_utf8(&out[4..]), Ok("\u{e9}".repeat(61).as_str()));
    }

    #[test]
    fn every_reason_has_a_code_that_a_server_may_send() {
        for &reason in Reason::ALL {
            assert!([1000, 1007, 1008, 1009, 1012, 1013].contains(&close_code(reason)), "{reason:?}");
        }
    }
}
