//! Bytes of WebSockets, sound or not.

use std::io::{Read, Write};
use std::net::TcpStream;

/// The request that opens one.
pub fn upgrade(path: &str, protocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
}

/// A connection that the other side ends in whatever way.
pub fn read_to_end(mut socket: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it was not closed in time");
    }
    answer
}

/// The code of the Close frame that ends what came.
pub fn close_code(answer: &[u8]) -> Option<u16> {
    let start = (0..answer.len().saturating_sub(3))
        .rev()
        .find(|&at| answer[at] == 0x88 && usize::from(answer[at + 1]) == answer.len() - at - 2)?;
    Some(u16::from_be_bytes([answer[start + 2], answer[start + 3]]))
}

/// Frames with a mask of zeros, so that what they hold can be read here.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// A socket of a process whose cores are interrupted by signals now and then.
pub struct Patient(pub TcpStream);

impl Patient {
    fn retry<T>(mut work: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
        loop {
            match work() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Patient::retry(|| self.0.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        Patient::retry(|| self.0.write(buffer))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
