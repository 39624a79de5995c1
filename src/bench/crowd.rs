//! The users of a benchmark: logged in, available, and subscribed to each other, all of it through the protocol itself.
//!
//! Lives on: the generator's pinned thread. Serves G6. User 5 is `bench-5@domain`. Invariant: when a step returns,
//! every request of it was answered, and a refusal ended the benchmark with the server's own words.

use super::graph::Graph;
use super::progress::Progress;
use super::wires::Wires;
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::time::WallClock;
use crate::front::token::{Keys, Scope};
use crate::wire::decode::{self, ServerFrame};
use crate::wire::encode::{Encoder, LogInFields, PresenceFields, SubscriptionFields, Tag};
use crate::wire::event::{Event, LAST};
use crate::wire::frame::{HEADER_BYTES, Header};
use crate::wire::native::{Action, Kind, Show};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Requests of the set-up that are under way at once. A subscription goes on with up to five commits, one after the other, and the
/// store takes 4,096 from a core.
const UNDER_WAY: u64 = 512;
/// The same for one user.
const UNDER_WAY_PER_USER: u64 = 64;
/// How long the set-up waits for the next answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest frame a server may send.
const FRAME_BYTES: u32 = 64 << 20;
const RESOURCE: &str = "b";

/// How to get in.
#[derive(Clone)]
pub struct Access {
    pub target: SocketAddr,
    /// It begins with a handshake, and all else is said inside.
    pub tls: bool,
    pub domain: String,
    pub token_keys: Keys,
    pub trunk_keys: Keys,
}

impl Access {
    /// The name of a user.
    pub fn jid(&self, user: u32) -> String {
        format!("bench-{user}@{}", self.domain)
    }
}

/// Where users are: each on a connection of the same number, or with `trunks` above 0 all on streams of these.
#[derive(Clone, Copy)]
pub struct Places {
    pub trunks: u32,
}

impl Places {
    /// The connection and stream of a user.
    pub fn of(self, user: u32) -> (u32, u32) {
        match self.trunks {
            0 => (user, 0),
            trunks => (user % trunks, 1 + user / trunks),
        }
    }

    pub fn user_at(self, conn: u32, stream: u32) -> u32 {
        match self.trunks {
            0 => conn,
            trunks => (stream - 1) * trunks + conn,
        }
    }
}

/// Users that are logged in.
pub struct Crowd {
    access: Access,
    pub wires: Wires,
    /// The number of its first user, and how many there are.
    first: u32,
    users: u32,
    pub places: Places,
    directory: Directory,
    encoder: Encoder,
    /// What the steps' requests brought.
    came: Came,
    /// Available presences of contacts that came so far.
    pub seen: u64,
}

#[derive(Default)]
struct Came {
    answers: u64,
    logged_in: Vec<(u32, u32, UserId)>,
    refusal: Option<String>,
}

impl Crowd {
    /// The users of these numbers; nobody is there yet. Everywhere else they are counted from the first of them.
    pub fn new(access: Access, users: Range<u32>, trunks: u32) -> io::Result<Crowd> {
        let (first, users) = (users.start, users.len() as u32);
        let wires = Wires::to(access.target, access.tls)?;
        let (encoder, came) = (Encoder::default(), Came::default());
        let places = Places { trunks: trunks.min(users) };
        Ok(Crowd { access, wires, first, users, places, directory: Directory::default(), encoder, came, seen: 0 })
    }

    /// Connects and logs everybody in.
    pub fn log_in(&mut self, progress: &Progress) -> io::Result<()> {
        self.open_trunks()?;
        let users = u64::from(self.users);
        self.step("log-ins", users, progress, |crowd, user, tag, out| {
            if crowd.places.trunks == 0 {
                crowd.wires.connect()?;
            }
            crowd.write_log_in(user as u32, tag, b"", out)
        })?;
        let ids = std::mem::take(&mut self.came.logged_in);
        let ids = ids.into_iter().map(|(conn, stream, id)| (self.places.user_at(conn, stream), id)).collect();
        self.directory = Directory::new(ids);
        Ok(())
    }

    /// Opens the trunks, if there are any.
    pub fn open_trunks(&mut self) -> io::Result<()> {
        if self.places.trunks == 0 {
            return Ok(());
        }
        let token = self.access.trunk_keys.sign(Scope::Trunk("bench"), WallClock(u64::MAX));
        let token = token.ok_or_else(|| io::Error::other("there is no trunk key to sign with: say --trunk-key"))?;
        for _ in 0..self.places.trunks {
            let conn = self.wires.connect()?;
            let mut out = Vec::new();
            self.encoder.hello(&mut out, Tag::default(), "fanal bench");
            let log_in = LogInFields { mechanism: "TRUNK", data: token.as_bytes(), ..LogInFields::default() };
            self.encoder.log_in(&mut out, Tag::request(1), &log_in);
            self.wires.send(conn, &out)?;
        }
        self.await_answers(u64::from(self.places.trunks))?;
        self.came = Came::default();
        Ok(())
    }

    /// Appends what a user says to log in: on its own connection the hello too. `presence`: the first one; empty: none yet.
    pub fn write_log_in(&mut self, user: u32, tag: Tag, presence: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let jid = self.access.jid(self.first + user);
        if self.places.trunks > 0 {
            self.encoder.log_in(out, tag, &LogInFields { jid: &jid, resource: RESOURCE, presence, ..LogInFields::default() });
            return Ok(());
        }
        let bare = Bare::new(&jid).ok_or_else(|| io::Error::other(format!("{jid} is no JID: check the domain")))?;
        let token = self.access.token_keys.sign(Scope::User(&bare), WallClock(u64::MAX));
        let token = token.ok_or_else(|| io::Error::other("there is no token key to sign with: say --token-key"))?;
        self.encoder.hello(out, Tag::default(), "fanal bench");
        let log_in = LogInFields {
            jid: &jid,
            mechanism: "TOKEN",
            data: token.as_bytes(),
            resource: RESOURCE,
            presence,
            ..LogInFields::default()
        };
        self.encoder.log_in(out, tag, &log_in);
        Ok(())
    }

    /// Everybody sets a first presence.
    pub fn become_available(&mut self, progress: &Progress) -> io::Result<()> {
        let presence = presence(Show::Available);
        let users = u64::from(self.users);
        self.step("presences", users, progress, |crowd, _, tag, out| {
            crowd.encoder.set_presence_bytes(out, tag, &presence);
            Ok(())
        })
    }

    /// Makes the graph: everybody approves in advance, then subscribes. Returns when every subscriber has seen every publisher.
    pub fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()> {
        let pairs = u64::from(self.users) * u64::from(graph.degree());
        let users = u64::from(self.users);
        self.step("approvals", pairs, progress, |crowd, n, tag, out| {
            let subscriber = graph.subscriber((n % users) as u32, (n / users) as u32);
            crowd.write_subscription(Action::Subscribed, subscriber, tag, out);
            Ok(())
        })?;
        self.step("subscriptions", pairs, progress, |crowd, n, tag, out| {
            let subscriber = (n % users) as u32;
            let publisher = graph.publisher(subscriber, (n / users) as u32);
            crowd.write_subscription(Action::Subscribe, publisher, tag, out);
            Ok(())
        })?;
        self.await_seen(pairs, progress)
    }

    fn write_subscription(&mut self, action: Action, whom: u32, tag: Tag, out: &mut Vec<u8>) {
        let jid = self.access.jid(self.first + whom);
        self.encoder.subscription(
            out,
            tag,
            &SubscriptionFields { action, jid: &jid, user: UserId::NOBODY, note: "", extensions: "" },
        );
    }

    /// Waits until so many available presences of contacts have come, over all users.
    pub fn await_seen(&mut self, count: u64, progress: &Progress) -> io::Result<()> {
        progress.begin("first presences", count);
        while self.seen < count {
            self.hear()?;
            progress.at(self.seen);
        }
        Ok(())
    }

    /// One request of each kind of `count`, of user n % users, a bounded number under way at once.
    fn step(
        &mut self,
        what: &'static str,
        count: u64,
        progress: &Progress,
        mut write: impl FnMut(&mut Crowd, u64, Tag, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        progress.begin(what, count);
        self.came = Came::default();
        let most = UNDER_WAY.min(UNDER_WAY_PER_USER * u64::from(self.users));
        let mut out = Vec::new();
        let mut asked = 0;
        while self.came.answers < count {
            while asked < count && asked - self.came.answers < most {
                let (conn, stream) = self.places.of((asked % u64::from(self.users)) as u32);
                out.clear();
                write(self, asked, Tag { stream, request: 1 }, &mut out)?;
                self.wires.send(conn, &out)?;
                asked += 1;
            }
            self.hear()?;
            progress.at(self.came.answers);
        }
        Ok(())
    }

    fn await_answers(&mut self, count: u64) -> io::Result<()> {
        while self.came.answers < count {
            self.hear()?;
        }
        Ok(())
    }

    /// Waits for something and sorts it.
    fn hear(&mut self) -> io::Result<()> {
        let Crowd { wires, came, seen, .. } = self;
        let began = Instant::now();
        let heard = wires.listen(PATIENCE, |conn, bytes| {
            frames(bytes, |header, body| {
                if let Err(why) = sort(conn, header, body, came, seen) {
                    came.refusal.get_or_insert(why);
                }
            })
        });
        if let Some(refusal) = &self.came.refusal {
            return Err(io::Error::other(refusal.clone()));
        }
        if heard? == 0 && began.elapsed() >= PATIENCE {
            return Err(io::Error::other(format!("the node says nothing for {} s: it has stalled", PATIENCE.as_secs())));
        }
        Ok(())
    }

    /// Everybody logs out; returns when the node has ended every connection.
    pub fn log_out(self) -> io::Result<Directory> {
        self.wires.farewell(&last_words())?;
        Ok(self.directory)
    }

    /// The connections, and which user a number of the node's is.
    pub fn into_parts(self) -> (Wires, Directory) {
        (self.wires, self.directory)
    }
}

/// What ends all sessions of a connection at once.
pub fn last_words() -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::default().log_out(&mut out, Tag::default(), "");
    out
}

/// A presence of the crowd, as a flatbuffer.
pub fn presence(show: Show) -> Vec<u8> {
    Encoder::default().presence(&PresenceFields { resource: RESOURCE, show, ..PresenceFields::default() })
}

fn sort(conn: u32, header: Header, body: &[u8], came: &mut Came, seen: &mut u64) -> Result<(), String> {
    let frame =
        decode::from_server(header.kind, body).map_err(|reason| format!("connection {conn} got a bad frame: {reason:?}"))?;
    match frame {
        ServerFrame::Event(event) => *seen += available(&event),
        ServerFrame::EventBatch(batch) => {
            for event in batch.iter() {
                *seen += available(&event.map_err(|reason| format!("connection {conn} got a bad event: {reason:?}"))?);
            }
        }
        ServerFrame::Error(_) => return Err(format!("the node refused: {}", refused(body).unwrap_or_default())),
        ServerFrame::LoggedIn(logged_in) => {
            came.logged_in.push((conn, header.stream, UserId(logged_in.user())));
            came.answers += 1;
        }
        _ if header.request != 0 => came.answers += 1,
        _ => {}
    }
    Ok(())
}

/// Whether an event says that its publisher is there.
pub fn is_there(event: &Event<'_>) -> bool {
    event.head.show != Show::Unavailable && event.head.flags & LAST == 0
}

/// What an Error frame says.
pub fn refused(body: &[u8]) -> Option<String> {
    match decode::from_server(Kind::Error, body) {
        Ok(ServerFrame::Error(error)) => Some(format!("{} (reason {})", error.text().unwrap_or_default(), error.reason())),
        _ => None,
    }
}

fn available(event: &Event<'_>) -> u64 {
    if !is_there(event) { 0 } else { event.streams.len().max(1) as u64 }
}

/// Hands over the whole frames at the start of `bytes`; gives the length of them all.
pub fn frames(bytes: &[u8], mut each: impl FnMut(Header, &[u8])) -> usize {
    let mut used = 0;
    while let Some(start) = bytes[used..].first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::decode(start, FRAME_BYTES) else { return bytes.len() };
        let Some(frame) = bytes[used..].get(..header.frame_bytes()) else { break };
        each(header, &frame[HEADER_BYTES..]);
        used += header.frame_bytes();
    }
    used
}

/// From the node's numbers of users to ours: two reads of small tables, since the generator asks for every delivery.
#[derive(Default)]
pub struct Directory {
    /// By slot: where its users begin, and the lowest serial among them.
    slots: Vec<(u32, u32)>,
    users: Vec<u32>,
}

const NO_USER: u32 = u32::MAX;

impl Directory {
    fn new(ids: Vec<(u32, UserId)>) -> Directory {
        let mut ranges = vec![(u32::MAX, 0); 1 << 16];
        for (_, id) in &ids {
            let (least, most) = &mut ranges[usize::from(id.slot())];
            (*least, *most) = ((*least).min(id.serial()), (*most).max(id.serial()));
        }
        let mut slots = Vec::with_capacity(ranges.len());
        let mut start = 0;
        for (least, most) in ranges {
            slots.push((start, least));
            start += if least <= most { most - least + 1 } else { 0 };
        }
        let mut users = vec![NO_USER; start as usize];
        for (user, id) in ids {
            let (start, least) = slots[usize::from(id.slot())];
            users[(start + id.serial() - least) as usize] = user;
        }
        Directory { slots, users }
    }

    /// Our number of a user; `None` when it's none of the crowd.
    #[inline]
    pub fn find(&self, id: UserId) -> Option<u32> {
        let (start, least) = self.slots[usize::from(id.slot())];
        let at = u64::from(start) + u64::from(id.serial().checked_sub(least)?);
        self.users.get(at as usize).copied().filter(|&user| user != NO_USER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_is_found_by_its_number_and_nobody_else() {
        let ids: Vec<_> = (0..1000u32).map(|user| (user, UserId::new(0, (user % 300) as u16, 7 + user / 300))).collect();
        let directory = Directory::new(ids.clone());
        for (user, id) in ids {
            assert_eq!(directory.find(id), Some(user));
        }
        assert_eq!(directory.find(UserId::new(0, 5, 1)), None);
        assert_eq!(directory.find(UserId::new(0, 40_000, 1)), None);
    }
}
