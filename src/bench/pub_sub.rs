//! The users of a benchmark on a bus without presence: a channel for each user, to which those who would subscribe to its
//! presence subscribe. What fan-out alone costs elsewhere.
//!
//! Lives on: the generator's pinned thread. Serves G6. Redis is spoken to in RESP3, in which a client that subscribes may publish,
//! so that each user has one connection, as everywhere. Messages are as long as fanal's events.

use super::crowd::UNDER_WAY;
use super::dialect::Dialect;
use super::graph::Graph;
use super::progress::Progress;
use super::steps::{Steps, Tally};
use super::talk::{Traffic, number};
use super::wires::Wires;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a message: a sequence and padding. With its channel and framing it is about as long as a native event.
const PAYLOAD_BYTES: usize = 48;

/// Which bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bus {
    Redis,
    Nats,
}

impl Bus {
    fn greeting(self) -> &'static str {
        match self {
            Bus::Redis => "HELLO 3\r\nPING\r\n",
            Bus::Nats => "CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n",
        }
    }

    fn subscribe(self, channel: u32) -> String {
        match self {
            Bus::Redis => format!("SUBSCRIBE {channel}\r\n"),
            Bus::Nats => format!("SUB {channel} {channel}\r\n"),
        }
    }

    /// What answers PING.
    fn pong(self) -> &'static [u8] {
        match self {
            Bus::Redis => b"+PONG",
            Bus::Nats => b"PONG",
        }
    }

    fn publish(self, channel: u32, payload: &str, into: &mut Vec<u8>) {
        let bytes = payload.len();
        let text = match self {
            Bus::Redis => {
                let channel = channel.to_string();
                format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${bytes}\r\n{payload}\r\n", channel.len())
            }
            Bus::Nats => format!("PUB {channel} {bytes}\r\n{payload}\r\n"),
        };
        into.extend_from_slice(text.as_bytes());
    }

    /// The first whole item of `bytes`: its length, and what it is.
    fn item(self, bytes: &[u8]) -> Option<(usize, Item<'_>)> {
        let mut rest = bytes;
        let first = line(&mut rest)?;
        let item = match (self, first) {
            (_, [b'-', ..]) => Item::Refusal(first),
            (Bus::Redis, b">3") => {
                let (kind, channel, last) = (bulk(&mut rest)?, bulk(&mut rest)?, bulk(&mut rest)?);
                if kind == b"message" { Item::Message(number(channel)?, number(last.get(..8)?)?) } else { Item::Other }
            }
            (Bus::Nats, [b'M', b'S', b'G', b' ', ..]) => {
                let mut words = first.split(|&byte| byte == b' ');
                let (channel, bytes) = (number(words.nth(1)?)?, number(words.next_back()?)?);
                let payload = rest.get(..bytes as usize)?;
                rest = rest.get(bytes as usize + 2..)?;
                Item::Message(channel, number(payload.get(..8)?)?)
            }
            _ if first == self.pong() => Item::Pong,
            _ => Item::Other,
        };
        Some((bytes.len() - rest.len(), item))
    }
}

enum Item<'a> {
    /// From which channel, and its sequence.
    Message(u32, u32),
    Pong,
    Refusal(&'a [u8]),
    Other,
}

fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &bytes[..end];
    *bytes = &bytes[end + 2..];
    Some(line)
}

/// A RESP bulk string, or the integer that stands for one.
fn bulk<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let head = line(bytes)?;
    let [b'$', length @ ..] = head else { return Some(head) };
    let length = number(length)? as usize;
    let bulk = bytes.get(..length)?;
    *bytes = bytes.get(length + 2..)?;
    Some(bulk)
}

/// Users of a bus.
pub struct Members {
    bus: Bus,
    wires: Wires,
    tally: Tally,
}

impl Members {
    /// Nobody is there yet.
    pub fn new(bus: Bus, target: SocketAddr, users: u32) -> io::Result<Members> {
        Ok(Members { bus, wires: Wires::to(target, false)?, tally: Tally::new(users, UNDER_WAY) })
    }
}

impl Steps for Members {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn listen(&mut self, patience: Duration) -> io::Result<usize> {
        let Members { bus, wires, tally, .. } = self;
        wires.listen(patience, |_, bytes| {
            each(*bus, bytes, |item| match item {
                Item::Pong => tally.answers += 1,
                Item::Refusal(why) => tally.refuse(String::from_utf8_lossy(why)),
                Item::Message(..) | Item::Other => {}
            })
        })
    }
}

fn each<'a>(bus: Bus, bytes: &'a [u8], mut each: impl FnMut(Item<'a>)) -> usize {
    let mut used = 0;
    while let Some((length, item)) = bus.item(&bytes[used..]) {
        each(item);
        used += length;
    }
    used
}

impl Dialect for Members {
    type Traffic = Messages;

    fn log_in(&mut self, progress: &Progress) -> io::Result<()> {
        self.step_of_all("connections", progress, |members, _| {
            let conn = members.wires.connect()?;
            members.wires.send(conn, members.bus.greeting().as_bytes())
        })
    }

    fn become_available(&mut self, _progress: &Progress) -> io::Result<()> {
        Ok(())
    }

    /// Each user subscribes to all its channels at once, and says PING behind that.
    fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()> {
        self.step_of_all("subscriptions", progress, |members, user| {
            let channels = (0..graph.degree()).map(|number| members.bus.subscribe(graph.publisher(user, number)));
            let text = channels.collect::<String>() + "PING\r\n";
            members.wires.send(user, text.as_bytes())
        })
    }

    fn begin(self, audience: u32) -> (Wires, Messages) {
        let Members { bus, wires, .. } = self;
        (wires, Messages { bus, audience, refusal: None })
    }

    fn last_words() -> Vec<u8> {
        Vec::new()
    }
}

/// What the users say, and how they hear it.
pub struct Messages {
    bus: Bus,
    audience: u32,
    refusal: Option<String>,
}

impl Traffic for Messages {
    fn conn(&self, user: u32) -> u32 {
        user
    }

    fn make(&mut self, user: u32, sequence: u32, into: &mut Vec<u8>) {
        self.bus.publish(user, &format!("{sequence:08}{:width$}", "", width = PAYLOAD_BYTES - 8), into);
    }

    #[inline]
    fn recognise(&mut self, _conn: u32, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        let Messages { bus, refusal, .. } = self;
        each(*bus, bytes, |item| match item {
            Item::Message(user, sequence) => delivered(user, sequence, 1),
            Item::Refusal(why) => *refusal = Some(String::from_utf8_lossy(why).into_owned()),
            Item::Pong | Item::Other => {}
        })
    }

    fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    fn audience(&self, _: u32) -> u32 {
        self.audience
    }

    fn event_bytes(&self) -> usize {
        match self.bus {
            Bus::Redis => ">3\r\n$7\r\nmessage\r\n$3\r\n100\r\n$48\r\n\r\n".len() + PAYLOAD_BYTES,
            Bus::Nats => "MSG 100 100 48\r\n\r\n".len() + PAYLOAD_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bus: Bus, bytes: &[u8]) -> (usize, Vec<(u32, u32)>) {
        let mut heard = Vec::new();
        let mut messages = Messages { bus, audience: 1, refusal: None };
        let used = messages.recognise(0, bytes, |user, sequence, _| heard.push((user, sequence)));
        (used, heard)
    }

    #[test]
    fn messages_are_found_among_answers_wherever_they_are_cut() {
        let redis =
            b":20\r\n>3\r\n$7\r\nmessage\r\n$2\r\n17\r\n$9\r\n00000042 \r\n>3\r\n$9\r\nsubscribe\r\n$1\r\n5\r\n:1\r\n+PONG\r\n";
        let nats = b"+OK\r\nMSG 17 17 9\r\n00000042 \r\nPONG\r\n";
        for (bus, bytes) in [(Bus::Redis, &redis[..]), (Bus::Nats, &nats[..])] {
            assert_eq!(heard(bus, bytes), (bytes.len(), vec![(17, 42)]));
            for cut in 0..bytes.len() {
                let (used, first) = heard(bus, &bytes[..cut]);
                let (rest, second) = heard(bus, &bytes[used..]);
                assert_eq!((used + rest, [first, second].concat()), (bytes.len(), vec![(17, 42)]));
            }
        }
    }
}
