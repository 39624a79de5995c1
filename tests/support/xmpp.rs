//! An XMPP client over TCP that says what a test wants.

use super::LONG;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";
pub const SASL: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";

/// An XMPP client over TCP.
pub struct Xmpp(pub TcpStream);

impl Xmpp {
    pub fn log_in(door: SocketAddr, name: &str) -> Xmpp {
        let mut client = Xmpp::prove(door, name);
        client.say("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        client.until("</iq>");
        client
    }

    /// Logs in, and binds no resource. The password is the name.
    pub fn prove(door: SocketAddr, name: &str) -> Xmpp {
        let mut client = Xmpp(TcpStream::connect(door).unwrap());
        client.0.set_read_timeout(Some(LONG)).unwrap();
        client.0.set_nodelay(true).unwrap();
        client.say(OPEN);
        client.until("</stream:features>");
        client.say(&plain(name, name));
        client.until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        client.say(OPEN);
        client.until("</stream:features>");
        client
    }

    pub fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// All that comes up to and with `end`.
    pub fn until(&mut self, end: &str) -> String {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(end.as_bytes()) {
            match self.0.read(&mut byte) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => assert_eq!(read.unwrap(), 1, "closed after {}", String::from_utf8_lossy(&text)),
            }
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }
}

pub fn plain(name: &str, password: &str) -> String {
    format!("<auth {SASL} mechanism='PLAIN'>{}</auth>", BASE64_STANDARD.encode(format!("\0{name}\0{password}")))
}
