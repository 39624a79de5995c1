//! A native connection that says what a test wants, sound or not; and two users to whom nothing may happen meanwhile.

use super::*;
use fanal::client::codec::Codec;
use fanal::wire::decode::ServerFrame;
use fanal::wire::encode::{Encoder, LogInFields, Tag};
use fanal::wire::frame::{Chunk, HEADER_BYTES, Header};
use fanal::wire::native::Kind;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// A connection that says what a test wants, sound or not.
pub struct Raw {
    pub stream: TcpStream,
    pub encoder: Encoder,
}

impl Raw {
    pub fn connect(node: &TestNode) -> Raw {
        let stream = TcpStream::connect(node.node().native()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Raw { stream, encoder: Encoder::default() }
    }

    pub fn greeted(node: &TestNode) -> Raw {
        let mut raw = Raw::connect(node);
        raw.say(|encoder, out| encoder.hello(out, Tag::default(), "a test"));
        raw
    }

    pub fn say(&mut self, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut frame = Vec::new();
        write(&mut self.encoder, &mut frame);
        self.stream.write_all(&frame).unwrap();
    }

    /// A session of this user, once there is one.
    pub fn logged_in(node: &TestNode, jid: &str) -> Raw {
        let (mut raw, token) = (Raw::greeted(node), node.token(jid));
        let log_in = LogInFields { jid, mechanism: "TOKEN", data: token.as_bytes(), resource: "raw", ..LogInFields::default() };
        raw.say(|encoder, out| encoder.log_in(out, Tag::request(1), &log_in));
        raw.until(|frame| matches!(frame, ServerFrame::LoggedIn(_)));
        raw
    }

    /// Reads until the node has said this; what stands behind it in the same piece is not looked at.
    pub fn until(&mut self, mut said: impl FnMut(&ServerFrame<'_>) -> bool) {
        let (mut codec, mut bytes) = (Codec::default(), [0; 4096]);
        loop {
            let read = match self.stream.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("more comes"),
            };
            assert!(read > 0, "the connection goes on");
            let mut chunk = Chunk::new(&bytes[..read]);
            while let Some(received) = codec.next(&mut chunk).expect("sound frames") {
                if said(&received.frame) {
                    return;
                }
            }
        }
    }

    /// Reads until the node closes; gives the last error it said, if any.
    pub fn last_error(mut self) -> Option<(u16, String)> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("the node closes the connection properly");
        let (mut codec, mut chunk, mut last) = (Codec::default(), Chunk::new(&bytes), None);
        while let Ok(Some(received)) = codec.next(&mut chunk) {
            if let ServerFrame::Error(error) = received.frame {
                last = Some((error.reason(), error.text().unwrap_or_default().to_owned()));
            }
        }
        last
    }
}

pub fn header(body: u32, kind: u8) -> Vec<u8> {
    let mut bytes = Header { body, kind: Kind(kind), stream: 0, request: 0 }.encode().to_vec();
    bytes.resize(HEADER_BYTES, 0);
    bytes
}

/// Two users who see each other, to show that others are unaffected.
pub struct Bystanders(pub Client, pub Client);

impl Bystanders {
    pub fn new(node: &TestNode) -> Bystanders {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        subscribe(&mut bob, &mut alice);
        presence(&mut bob);
        Bystanders(alice, bob)
    }

    pub fn are_well(&mut self) {
        self.0.set_presence(&Presence { status: "still here".into(), ..Presence::default() }).unwrap();
        assert_eq!(presence(&mut self.1).presence.unwrap().status, "still here");
    }
}
