//! One core in memory, and XMPP clients of it: every byte passes the translators and the real shard, and no socket.
#![allow(dead_code)]

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::credentials::ScramCredentials;
use fanal::base::id::{ConnId, CoreId, NodeId, UserId, slot_of};
use fanal::base::jid::Bare;
use fanal::base::limits::Limits;
use fanal::base::secrets::Secrets;
use fanal::base::time::{Time, WallClock};
use fanal::front::doors::{Doors, Speaks};
use fanal::front::sasl::Decoys;
use fanal::front::token::Keys;
use fanal::front::xmpp::{Rules, StartTls};
use fanal::metrics::meter::Units;
use fanal::presence::home::Place;
use fanal::shard::batch::{Command, Order};
use fanal::shard::{Settings, Shard};
use fanal::store::memory::Memory;
use fanal::store::rows::{self, Row};
use fanal::store::{Backend, Completion, Table};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub const DOMAIN: &str = "example.org";
pub const OPENING: &str = "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams'>";

pub struct World {
    pub shard: Shard,
    pub store: Memory,
    pub now: Time,
    /// What each connection was sent and has not read yet.
    heard: BTreeMap<u32, String>,
    closed: Vec<u32>,
    users: u32,
}

/// One connection.
#[derive(Clone, Copy)]
pub struct Client(pub ConnId);

/// Alice at her desk and Bob on his phone, who see each other.
pub fn two_friends() -> (World, Client, Client) {
    let mut world = World::new();
    world.account("alice");
    world.account("bob");
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.friends(("alice", alice), ("bob", bob));
    (world, alice, bob)
}

impl World {
    pub fn new() -> World {
        World::with(StartTls::No)
    }

    pub fn with(start_tls: StartTls) -> World {
        World::made(start_tls, true)
    }

    /// `registration`: whether anybody may make an account.
    pub fn made(start_tls: StartTls, registration: bool) -> World {
        World::by(Rules { domain: DOMAIN.into(), stanza_bytes: 40_000, start_tls, registration, location: None })
    }

    pub fn by(rules: Rules) -> World {
        let (limits, registration) = (Arc::new(Limits::default()), rules.registration);
        let settings = Settings {
            links: None,
            node: NodeId::default(),
            core: CoreId(0),
            cores: 1,
            domain: DOMAIN.into(),
            limits: limits.clone(),
            token_keys: Keys::default(),
            trunk_keys: Keys::default(),
            doors: Doors { listeners: vec![Speaks::Xmpp], xmpp: Some(Arc::new(rules)), ..Doors::default() },
            plain: true,
            open_registration: registration,
            hook: false,
            decoys: Decoys::new([7; 32]),
            sample: 0,
            units: Units::default(),
            clock: || Time(0),
        };
        let place =
            Place { cluster: 0, directory: 0, epoch: 1, domain: DOMAIN.into(), limits, wall_at_zero: WallClock(1_700_000_000_000) };
        let shard = Shard::new(settings, place, Secrets::from_number(1));
        World { shard, store: Memory::default(), now: Time(1), heard: BTreeMap::new(), closed: Vec::new(), users: 0 }
    }

    /// An account whose password is its name.
    pub fn account(&mut self, name: &str) {
        let jid = Bare::new(&format!("{name}@{DOMAIN}")).unwrap();
        self.users += 1;
        let scram = Some(ScramCredentials::from_password(name, b"salt", 1));
        let account = rows::Account { user: UserId::new(0, slot_of(jid.as_str()), self.users), scram, created: WallClock(1) };
        self.shard.homes.load(Table::Accounts, &rows::user_key(&jid), &account.encode()).unwrap();
    }

    pub fn connect(&mut self) -> Client {
        Client(self.shard.accepted(self.now, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).expect("there is room"))
    }

    /// A client says something; everything that follows happens.
    pub fn say(&mut self, client: Client, text: impl AsRef<[u8]>) {
        self.now = Time(self.now.0 + 1_000_000);
        self.shard.received(self.now, client.0, text.as_ref());
        self.settle();
    }

    /// What a client has heard since it was last asked.
    pub fn heard(&mut self, client: Client) -> String {
        self.heard.remove(&client.0.slot).unwrap_or_default()
    }

    /// Says something and gives what comes back.
    pub fn ask(&mut self, client: Client, text: impl AsRef<[u8]>) -> String {
        self.heard(client);
        self.say(client, text);
        self.heard(client)
    }

    pub fn is_closed(&self, client: Client) -> bool {
        self.closed.contains(&client.0.slot)
    }

    /// The operator wants something.
    pub fn order(&mut self, order: Order) {
        self.shard.command(self.now, Command { ticket: 1, order });
        self.settle();
    }

    /// Nothing happens for so long.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.settle();
    }

    /// The connection breaks.
    pub fn cut(&mut self, client: Client) {
        self.shard.lost(self.now, client.0);
        self.shard.out.lines.discard(client.0.slot);
        self.settle();
        self.shard.out.lines.release(client.0.slot, None);
    }

    pub fn settle(&mut self) {
        let mut dirty = Vec::new();
        loop {
            self.shard.turn(self.now);
            let commits = std::mem::take(&mut self.shard.out.commits);
            let checks = std::mem::take(&mut self.shard.checks);
            self.shard.out.lines.hasten(Time::MAX);
            self.shard.out.lines.take_dirty(&mut dirty);
            if commits.is_empty() && checks.is_empty() && dirty.is_empty() {
                return;
            }
            for commit in commits {
                self.store.apply(std::slice::from_ref(&commit)).expect("memory holds");
                self.shard.completed(self.now, Completion { core: CoreId(0), ticket: commit.ticket, result: Ok(()) });
            }
            for task in checks {
                self.shard.worked(self.now, task.whose, Some(task.work.run()));
            }
            for &slot in &dirty {
                self.flush(slot);
            }
        }
    }

    fn flush(&mut self, slot: u32) {
        if let Some(buffer) = self.shard.take(self.now, slot) {
            let text = std::str::from_utf8(&buffer).expect("what is sent is UTF-8");
            self.heard.entry(slot).or_default().push_str(text);
            self.shard.out.lines.sent(slot, buffer);
        }
        if self.shard.out.lines.may_close(slot) && !self.closed.contains(&slot) {
            self.closed.push(slot);
        }
    }

    /// A client that has opened its stream and heard what is offered.
    pub fn open(&mut self) -> Client {
        let client = self.connect();
        let heard = self.ask(client, OPENING);
        assert!(heard.contains("<stream:features>") && heard.contains("<mechanism>PLAIN</mechanism>"), "{heard}");
        client
    }

    /// A client that has logged in.
    pub fn prove(&mut self, name: &str) -> Client {
        let client = self.open();
        let auth = self.ask(client, plain(name, name));
        assert_eq!(auth, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        let features = self.ask(client, OPENING);
        assert!(features.contains("urn:ietf:params:xml:ns:xmpp-bind"), "{features}");
        client
    }

    /// A client that has logged in and bound a resource.
    pub fn log_in(&mut self, name: &str, resource: &str) -> Client {
        let client = self.prove(name);
        let bind = format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
        );
        let bound = self.ask(client, bind);
        assert!(bound.contains(&format!("<jid>{name}@{DOMAIN}/{resource}</jid>")), "{bound}");
        client
    }

    /// A client that is online.
    pub fn online(&mut self, name: &str, resource: &str) -> Client {
        let client = self.log_in(name, resource);
        self.say(client, "<presence/>");
        self.heard(client);
        client
    }

    /// Two users who see each other.
    pub fn friends(&mut self, a: (&str, Client), b: (&str, Client)) {
        for (from, to) in [(a, b), (b, a)] {
            self.say(from.1, format!("<presence type='subscribe' to='{}@{DOMAIN}'/>", to.0));
            self.say(to.1, format!("<presence type='subscribed' to='{}@{DOMAIN}'/>", from.0));
        }
        self.heard(a.1);
        self.heard(b.1);
    }
}

pub fn plain(name: &str, password: &str) -> String {
    let data = BASE64_STANDARD.encode(format!("\0{name}\0{password}"));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>")
}
