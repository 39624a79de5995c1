//! The users of a benchmark as browsers are: WebSockets with `fanal.json.v1` in them, logged in with tokens.
//!
//! Lives on: the generator's pinned thread. Serves G6. Messages are recognised, not parsed: the server is trusted to write sound
//! JSON, and a figure to be sound only if every delivery was recognised. User 5 is `bench-5@domain`.

use super::crowd::{Access, UNDER_WAY};
use super::dialect::Dialect;
use super::graph::Graph;
use super::progress::Progress;
use super::steps::{Steps, Tally, Until};
use super::talk::{Traffic, number};
use super::wires::Wires;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// How the message of an update begins, up to the number of its user.
const EVENT: &[u8] = br#"{"type":"event","jid":"bench-"#;
/// The end of a response to an upgrade that was granted.
const UPGRADED: &[u8] = b"HTTP/1.1 101 ";

/// Users of the WebSocket door.
pub struct Pages {
    access: Access,
    wires: Wires,
    /// The number of the first one.
    first: u32,
    tally: Tally,
    event_bytes: usize,
}

impl Pages {
    /// The users of these numbers; nobody is there yet. Everywhere else they are counted from the first of them.
    pub fn new(access: Access, users: Range<u32>) -> io::Result<Pages> {
        let wires = Wires::to(access.target, access.tls)?;
        let tally = Tally::new(users.len() as u32, UNDER_WAY);
        Ok(Pages { access, wires, first: users.start, tally, event_bytes: 0 })
    }

    fn say(&mut self, user: u32, text: &str) -> io::Result<()> {
        self.wires.send(user, &framed(text))
    }

    fn say_log_in(&mut self, user: u32) -> io::Result<()> {
        let number = self.first + user;
        let (jid, data) = (self.access.jid(number), STANDARD.encode(self.access.token(number)?));
        self.say(user, &format!(r#"{{"type":"log_in","id":1,"jid":"{jid}","mechanism":"TOKEN","data":"{data}","resource":"b"}}"#))
    }

    fn say_subscription(&mut self, user: u32, action: &str, whom: u32) -> io::Result<()> {
        let jid = self.access.jid(self.first + whom);
        self.say(user, &format!(r#"{{"type":"subscription","id":1,"action":"{action}","jid":"{jid}"}}"#))
    }
}

impl Steps for Pages {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn listen(&mut self, patience: Duration) -> io::Result<usize> {
        let Pages { wires, tally, event_bytes, .. } = self;
        wires.listen(patience, |_, bytes| {
            let used = response_bytes(bytes);
            tally.answers += u64::from(used > 0);
            used + messages(&bytes[used..], |message| match message {
                Message::Event { update: None, bytes } => {
                    tally.seen += 1;
                    *event_bytes = bytes;
                }
                Message::Answer => tally.answers += 1,
                Message::Refusal(text) => tally.refuse(text),
                Message::Event { .. } | Message::Other => {}
            })
        })
    }
}

impl Dialect for Pages {
    type Traffic = Presences;

    fn log_in(&mut self, progress: &Progress) -> io::Result<()> {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: ZmFuYWwgYmVuY2htYXJrIQ==\r\nSec-WebSocket-Protocol: fanal.json.v1\r\n\r\n",
            self.access.target
        );
        self.step_of_all("connections", progress, |pages, _| {
            let conn = pages.wires.connect()?;
            pages.wires.send(conn, request.as_bytes())
        })?;
        self.step_of_all("log-ins", progress, Pages::say_log_in)
    }

    fn become_available(&mut self, progress: &Progress) -> io::Result<()> {
        let available = r#"{"type":"set_presence","id":1,"presence":{"show":"available"}}"#;
        self.step_of_all("presences", progress, |pages, user| pages.say(user, available))
    }

    /// Everybody approves in advance, then subscribes.
    fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()> {
        self.step("approvals", Until::Answered(graph.pairs()), progress, |pages, number| {
            let (user, subscriber) = graph.approval(number);
            pages.say_subscription(user, "subscribed", subscriber)
        })?;
        self.step("subscriptions", Until::Answered(graph.pairs()), progress, |pages, number| {
            let (user, publisher) = graph.subscription(number);
            pages.say_subscription(user, "subscribe", publisher)
        })?;
        self.step("first presences", Until::Seen(graph.pairs()), progress, |_, _| Ok(()))
    }

    fn begin(self, audience: u32) -> (Wires, Presences) {
        let event_bytes = self.event_bytes + r#","status":"00000001""#.len() - "available".len() + "away".len();
        (self.wires, Presences { audience, event_bytes, refusal: None })
    }

    fn last_words() -> Vec<u8> {
        framed(r#"{"type":"log_out"}"#)
    }
}

/// What the pages say, each on the connection of its own number, and how they hear it. The sequence is the status.
pub struct Presences {
    audience: u32,
    event_bytes: usize,
    refusal: Option<String>,
}

impl Traffic for Presences {
    fn conn(&self, user: u32) -> u32 {
        user
    }

    fn make(&mut self, _user: u32, sequence: u32, into: &mut Vec<u8>) {
        let show = if sequence.is_multiple_of(2) { "away" } else { "chat" };
        let said = format!(r#"{{"type":"set_presence","presence":{{"show":"{show}","status":"{sequence:08}"}}}}"#);
        into.extend_from_slice(&framed(&said));
    }

    #[inline]
    fn recognise(&mut self, conn: u32, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        messages(bytes, |message| match message {
            Message::Event { update: Some((user, sequence)), .. } if user != conn => delivered(user, sequence, 1),
            Message::Refusal(text) => self.refusal = Some(text.to_owned()),
            _ => {}
        })
    }

    fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    fn audience(&self, _: u32) -> u32 {
        self.audience
    }

    fn event_bytes(&self) -> usize {
        self.event_bytes
    }
}

enum Message<'a> {
    Event {
        /// Whose, and which; none for a first presence.
        update: Option<(u32, u32)>,
        /// Length of the whole frame.
        bytes: usize,
    },
    /// What answers a request.
    Answer,
    Refusal(&'a str),
    Other,
}

impl<'a> Message<'a> {
    fn of(payload: &'a [u8], bytes: usize) -> Message<'a> {
        if let Some(rest) = payload.strip_prefix(EVENT) {
            return Message::Event { update: update(rest), bytes };
        }
        let text = std::str::from_utf8(payload).unwrap_or_default();
        match text.strip_prefix(r#"{"type":""#).and_then(|rest| rest.split_once('"')) {
            Some(("done" | "logged_in", _)) => Message::Answer,
            Some(("error", _)) => Message::Refusal(text),
            _ => Message::Other,
        }
    }
}

/// Whose update the rest of an event is, and which: it ends with its status.
fn update(rest: &[u8]) -> Option<(u32, u32)> {
    let user = rest.split(|&byte| byte == b'@').next()?;
    let before = rest.strip_suffix(b"\"}}")?;
    let (before, sequence) = before.split_last_chunk::<8>()?;
    before.strip_suffix(br#""status":""#)?;
    Some((number(user)?, number(sequence)?))
}

/// Hands over the whole messages at the start of `bytes`; gives the length of all.
fn messages(bytes: &[u8], mut each: impl FnMut(Message<'_>)) -> usize {
    let mut used = 0;
    while let Some((start, end)) = frame(&bytes[used..]) {
        each(Message::of(&bytes[used + start..used + end], end));
        used += end;
    }
    used
}

/// Where the payload of a server's first frame (RFC 6455 5.2: never masked) begins and ends; `None`: it isn't whole yet.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (bytes.len() >= start + length).then_some((start, start + length))
}

/// Length of the response to an upgrade, if it stands there whole.
fn response_bytes(bytes: &[u8]) -> usize {
    const END: &[u8] = b"\r\n\r\n";
    let end = bytes.starts_with(UPGRADED).then(|| bytes.windows(END.len()).position(|four| four == END)).flatten();
    end.map_or(0, |end| end + END.len())
}

/// A client's text frame. The mask is all zeros, so that masking costs the generator nothing; the server can't know.
fn framed(text: &str) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    let mut frame = vec![0x81];
    match text.len() {
        short @ 0..126 => frame.push(MASKED | short as u8),
        long => {
            frame.push(MASKED | 126);
            frame.extend_from_slice(&u16::try_from(long).expect("the benchmark says nothing longer").to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{SessionId, UserId, Version};
    use crate::base::jid::Bare;
    use crate::front::json;
    use crate::wire::encode::{Encoder, PresenceFields};
    use crate::wire::event::{self, Head};
    use crate::wire::frame::each_whole;
    use crate::wire::native::Show;

    /// An update as the node writes it.
    fn written(user: u32, status: &str) -> Vec<u8> {
        let fields = PresenceFields { resource: "b", show: Show::Away, status, ..PresenceFields::default() };
        let bytes = Encoder::default().presence(&fields);
        let version = Version { epoch: 1, sequence: 9 };
        let head = Head { user: UserId(7), version, session: SessionId(1), show: Show::Away, flags: 0 };
        let (mut body, mut out) = (Vec::new(), Vec::new());
        event::body(&mut body, head, &bytes);
        let event = event::read(&body).unwrap();
        json::write_form(&mut out, &Bare::new(&format!("bench-{user}@localhost")).unwrap(), &event);
        each_whole(&out).next().unwrap().raw().to_vec()
    }

    #[test]
    fn updates_are_recognised_as_the_node_writes_them_wherever_they_are_cut() {
        let text = [written(5, "00000042"), written(6, ""), written(7, "00000043")].concat();
        let mut found = Vec::new();
        let note = |message: Message<'_>| match message {
            Message::Event { update, .. } => found.push(update),
            _ => panic!("it is an event"),
        };
        assert_eq!(messages(&text, note), text.len());
        assert_eq!(found, [Some((5, 42)), None, Some((7, 43))]);
        for cut in 0..text.len() {
            let used = messages(&text[..cut], |_| {});
            assert!(used <= cut && used + messages(&text[used..], |_| {}) == text.len());
        }
    }
}
