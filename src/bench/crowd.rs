//! The users of a benchmark: logged in, available, and subscribed to each other, all of it through the protocol itself.
//!
//! Lives on: the generator's pinned thread. Serves G6. User 5 is `bench-5@domain`.

use super::dialect::Dialect;
use super::graph::Graph;
use super::presences::{Directory, Places, Presences, RESOURCE, frames, is_there, presence, refused};
use super::progress::Progress;
use super::steps::{Steps, Tally, Until};
use super::wires::Wires;
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::WallClock;
use crate::front::token::{Keys, Scope};
use crate::wire::decode::{self, ServerFrame};
use crate::wire::encode::{Encoder, LogInFields, SubscriptionFields, Tag};
use crate::wire::event::Event;
use crate::wire::frame::Header;
use crate::wire::native::{Action, Show};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

/// Requests under way at once. A subscription goes on with up to five commits, one after the other, and the store takes 4,096 from
/// a core.
pub const UNDER_WAY: u64 = 512;

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

    /// What lets a user in.
    ///
    /// # Errors
    /// There is no key, or the domain is none.
    pub fn token(&self, user: u32) -> io::Result<String> {
        let jid = self.jid(user);
        let bare = Bare::new(&jid).ok_or_else(|| io::Error::other(format!("{jid} is no JID: check the domain")))?;
        let token = self.token_keys.sign(Scope::User(&bare), WallClock(u64::MAX));
        token.ok_or_else(|| io::Error::other("there is no token key to sign with: say --token-key"))
    }
}

/// Users that are logged in.
pub struct Crowd {
    access: Access,
    pub wires: Wires,
    /// The number of its first user.
    first: u32,
    pub places: Places,
    directory: Directory,
    encoder: Encoder,
    tally: Tally,
    /// Who was let in, by connection and stream.
    logged_in: Vec<(u32, u32, UserId)>,
}

impl Crowd {
    /// The users of these numbers; nobody is there yet. Everywhere else they are counted from the first of them.
    pub fn new(access: Access, users: Range<u32>, trunks: u32) -> io::Result<Crowd> {
        let targets = vec![access.target];
        Crowd::at(targets, access, users, trunks)
    }

    /// The same at several nodes instead of one: connection n is to the target n, counted around.
    pub fn at(targets: Vec<SocketAddr>, access: Access, users: Range<u32>, trunks: u32) -> io::Result<Crowd> {
        let (first, users) = (users.start, users.len() as u32);
        let wires = Wires::to_all(targets, access.tls)?;
        let (places, directory) = (Places { trunks: trunks.min(users) }, Directory::default());
        let (encoder, tally, logged_in) = (Encoder::default(), Tally::new(users, UNDER_WAY), Vec::new());
        Ok(Crowd { access, wires, first, places, directory, encoder, tally, logged_in })
    }

    /// Opens the trunks, if there are any.
    pub fn open_trunks(&mut self, progress: &Progress) -> io::Result<()> {
        if self.places.trunks == 0 {
            return Ok(());
        }
        let token = self.access.trunk_keys.sign(Scope::Trunk("bench"), WallClock(u64::MAX));
        let token = token.ok_or_else(|| io::Error::other("there is no trunk key to sign with: say --trunk-key"))?;
        self.step("trunks", Until::Answered(self.places.trunks.into()), progress, |crowd, _| {
            let conn = crowd.wires.connect()?;
            let mut out = Vec::new();
            crowd.encoder.hello(&mut out, Tag::default(), "fanal bench");
            let log_in = LogInFields { mechanism: "TRUNK", data: token.as_bytes(), ..LogInFields::default() };
            crowd.encoder.log_in(&mut out, Tag::request(1), &log_in);
            crowd.wires.send(conn, &out)
        })
    }

    /// Appends what a user says to log in: on its own connection the hello too. `presence`: the first one; empty: none yet.
    pub fn write_log_in(&mut self, user: u32, presence: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let (number, tag) = (self.first + user, self.tag(user));
        let fields = LogInFields { jid: &self.access.jid(number), resource: RESOURCE, presence, ..LogInFields::default() };
        if self.places.trunks > 0 {
            self.encoder.log_in(out, tag, &fields);
            return Ok(());
        }
        let token = self.access.token(number)?;
        self.encoder.hello(out, Tag::default(), "fanal bench");
        self.encoder.log_in(out, tag, &LogInFields { mechanism: "TOKEN", data: token.as_bytes(), ..fields });
        Ok(())
    }

    /// A user's request.
    fn tag(&self, user: u32) -> Tag {
        Tag { stream: self.places.of(user).1, request: 1 }
    }

    fn say(&mut self, user: u32, write: impl FnOnce(&mut Encoder, &mut Vec<u8>, Tag)) -> io::Result<()> {
        let (tag, mut out) = (self.tag(user), Vec::new());
        write(&mut self.encoder, &mut out, tag);
        self.wires.send(self.places.of(user).0, &out)
    }

    /// A user's request about another one.
    pub fn say_subscription(&mut self, user: u32, action: Action, whom: u32) -> io::Result<()> {
        let jid = self.access.jid(self.first + whom);
        let fields = SubscriptionFields { action, jid: &jid, ..SubscriptionFields::default() };
        self.say(user, |encoder, out, tag| encoder.subscription(out, tag, &fields))
    }

    /// A user's client is looked at, or not.
    pub fn say_activity(&mut self, user: u32, active: bool) -> io::Result<()> {
        self.say(user, |encoder, out, tag| encoder.activity(out, tag, active))
    }

    /// Everybody logs out; returns when the node has ended every connection.
    pub fn log_out(self) -> io::Result<Directory> {
        self.wires.farewell(&Crowd::last_words())?;
        Ok(self.directory)
    }
}

impl Steps for Crowd {
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn listen(&mut self, patience: Duration) -> io::Result<usize> {
        let Crowd { wires, tally, logged_in, .. } = self;
        wires.listen(patience, |conn, bytes| {
            frames(bytes, |header, body| {
                if let Err(reason) = sort(conn, header, body, tally, logged_in) {
                    tally.fail(format!("connection {conn} got a bad frame: {reason:?}"));
                }
            })
        })
    }
}

impl Dialect for Crowd {
    type Traffic = Presences;

    fn log_in(&mut self, progress: &Progress) -> io::Result<()> {
        self.open_trunks(progress)?;
        self.step_of_all("log-ins", progress, |crowd, user| {
            if crowd.places.trunks == 0 {
                crowd.wires.connect()?;
            }
            let mut out = Vec::new();
            crowd.write_log_in(user, b"", &mut out)?;
            crowd.wires.send(crowd.places.of(user).0, &out)
        })?;
        let (places, logged_in) = (self.places, std::mem::take(&mut self.logged_in));
        self.directory =
            Directory::new(logged_in.into_iter().map(|(conn, stream, id)| (places.user_at(conn, stream), id)).collect());
        Ok(())
    }

    fn become_available(&mut self, progress: &Progress) -> io::Result<()> {
        let presence = presence(Show::Available);
        self.step_of_all("presences", progress, |crowd, user| {
            crowd.say(user, |encoder, out, tag| encoder.set_presence_bytes(out, tag, &presence))
        })
    }

    /// Everybody approves in advance, then subscribes.
    fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()> {
        self.step("approvals", Until::Answered(graph.pairs()), progress, |crowd, number| {
            let (user, subscriber) = graph.approval(number);
            crowd.say_subscription(user, Action::Subscribed, subscriber)
        })?;
        self.step("subscriptions", Until::Answered(graph.pairs()), progress, |crowd, number| {
            let (user, publisher) = graph.subscription(number);
            crowd.say_subscription(user, Action::Subscribe, publisher)
        })?;
        self.step("first presences", Until::Seen(graph.pairs()), progress, |_, _| Ok(()))
    }

    fn begin(self, audience: u32) -> (Wires, Presences) {
        (self.wires, Presences::new(self.directory, self.places, audience))
    }

    fn last_words() -> Vec<u8> {
        let mut out = Vec::new();
        Encoder::default().log_out(&mut out, Tag::default(), "");
        out
    }
}

fn sort(conn: u32, header: Header, body: &[u8], tally: &mut Tally, logged_in: &mut Vec<(u32, u32, UserId)>) -> Result<(), Reason> {
    match decode::from_server(header.kind, body)? {
        ServerFrame::Event(event) => tally.seen += available(&event),
        ServerFrame::EventBatch(batch) => {
            for event in batch.iter() {
                tally.seen += available(&event?);
            }
        }
        ServerFrame::Error(_) => tally.refuse(refused(body).unwrap_or_default()),
        ServerFrame::LoggedIn(entered) => {
            logged_in.push((conn, header.stream, UserId(entered.user())));
            tally.answers += 1;
        }
        _ if header.request != 0 => tally.answers += 1,
        _ => {}
    }
    Ok(())
}

fn available(event: &Event<'_>) -> u64 {
    if !is_there(event) { 0 } else { event.streams.len().max(1) as u64 }
}
