//! One core's state, whole, and the only place where it changes: bytes, batches, completions and time go in; lines, batches,
//! commits and answers come out. The drivers (`drive`, `sim`) differ in nothing but where those come from and go to.
//!
//! Lives on: every core. Serves G1. One file per source of change: `connections`, `log_in`, `hashed`, `hook` and `register`
//! (clients; `errands` of theirs and the operator's to homes; `translated` for those who don't speak native frames; `rates`,
//! `handshakes` and `addresses` bound them), `route` (other cores and this one), `links` (other nodes' connections; `link_faults`:
//! those that came to nothing; `link_report`: how they are), `peers` (what other nodes say; `asked`: what
//! they were asked), `owners` (who owns which users),
//! `border` (other clusters), `watch_over` (time), `operate` (the operator); `tell` turns what homes say into frames; `batch` is
//! what cores exchange. Invariants: nothing here blocks, asks for the time, or touches another core's memory; after each input
//! everything addressed to this core itself has been worked off.

mod addresses;
mod asked;
pub mod batch;
mod border;
mod clients;
mod connection;
mod connections;
mod entrant;
mod errands;
mod expect;
mod handshakes;
mod hashed;
pub mod hook;
mod link_faults;
mod link_report;
mod links;
mod log_in;
mod measure;
mod operate;
mod owners;
mod peers;
mod rates;
mod register;
mod route;
mod tell;
mod translated;
mod watch_over;

pub use clients::ClientLine;
pub use expect::EXPECTED;
pub use link_report::{LinkReport, PeerReport};
pub use links::{Between, LinkTerms};
pub use operate::{Answer, Places};
pub use owners::{Row, Word};

use crate::base::credentials::{ITERATIONS, SALT_BYTES, ScramCredentials};
use crate::base::hashed::TokenSecret;
use crate::base::id::{ConnId, CoreId, NodeId, RawSocket};
use crate::base::limits::Limits;
use crate::base::map::Map;
use crate::base::sealing::Sealing;
use crate::base::secrets::Secrets;
use crate::base::time::Time;
use crate::front::Mechanism;
use crate::front::doors::{Doors, FORMS};
use crate::front::native::Rules;
use crate::front::sasl::{Decoys, PlainCheck};
use crate::front::token::Keys;
use crate::front::translate::Channel;
use crate::metrics::meter::{Meter, Taken, Units};
use crate::metrics::recorder::Recorder;
use crate::presence::control::{Asker, EdgeRef};
use crate::presence::edge::Edge;
use crate::presence::gateway::Gateway;
use crate::presence::home::{Homes, Place};
use crate::presence::outbox::Outbox;
use crate::store::Table;
use crate::wire::encode::Encoder;
use ahash::RandomState;
use batch::Entry;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What a shard is told at its start and never changes.
#[derive(Clone)]
pub struct Settings {
    /// 0: the node is alone.
    pub node: NodeId,
    pub core: CoreId,
    pub cores: u16,
    pub domain: String,
    /// How this node speaks with others; `None`: it has no links.
    pub links: Option<Arc<LinkTerms>>,
    pub limits: Arc<Limits>,
    pub token_keys: Keys,
    pub trunk_keys: Keys,
    /// What the node's listeners speak, by their numbers.
    pub doors: Doors,
    /// Whether passwords may come as they are over connections that others can read.
    pub plain: bool,
    /// Whether people may make their own accounts.
    pub open_registration: bool,
    /// Whether there is a service to ask about those whose keys are not here.
    pub hook: bool,
    pub decoys: Decoys,
    /// On average one of this many updates is timed; 0: none.
    pub sample: u32,
    pub units: Units,
    /// For timing stages, and for nothing else: what happens never depends on it.
    pub clock: fn() -> Time,
}

impl Settings {
    /// Whether a mechanism is taken on a connection.
    fn takes(&self, mechanism: Mechanism, channel: Channel) -> bool {
        match mechanism {
            Mechanism::Token => self.hook || !self.token_keys.is_empty(),
            Mechanism::Scram { bound, .. } => !bound || !channel.bindings().is_empty(),
            Mechanism::Plain => self.plain || channel != Channel::Clear,
            Mechanism::Hashed { .. } if self.limits.hashed_token_hours == 0 => false,
            // What is shown of one that is bound to nothing is as good as a password while it lasts.
            Mechanism::Hashed { bound: false } => self.takes(Mechanism::Plain, channel),
            Mechanism::Hashed { bound: true } => channel.bindings().exporter.is_some(),
            Mechanism::Trunk => !self.trunk_keys.is_empty(),
        }
    }

    /// Whether a mechanism is announced, too. A client takes the best one announced and gives up when that fails; so where there
    /// is a service to ask, which needs the password itself, SCRAM is not announced beside PLAIN.
    fn offers(&self, mechanism: Mechanism, channel: Channel) -> bool {
        let hides = self.hook && self.takes(Mechanism::Plain, channel) && matches!(mechanism, Mechanism::Scram { .. });
        self.takes(mechanism, channel) && !hides
    }

    /// The names of the mechanisms offered on a connection.
    fn mechanisms(&self, channel: Channel) -> Vec<&'static str> {
        Mechanism::ALL.into_iter().filter(|mechanism| self.offers(*mechanism, channel)).map(Mechanism::name).collect()
    }
}

/// Something to do with a password, for another thread.
pub struct PasswordTask {
    pub whose: Whose,
    pub work: Work,
}

/// Who waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// A log-in, or a registration.
    Connection(ConnId),
    /// A session that wants another password.
    Session(Asker),
}

pub enum Work {
    Check(PlainCheck),
    /// Make what is kept in place of a password.
    Derive {
        password: String,
        salt: [u8; SALT_BYTES],
    },
}

/// What came of it.
pub enum Worked {
    /// Whether the password is right.
    Checked(bool),
    Derived(Box<ScramCredentials>),
    /// What the service outside has said about a log-in, and how long it took.
    Judged {
        verdict: hook::Verdict,
        nanos: u64,
    },
}

impl Work {
    /// Takes about a millisecond.
    pub fn run(self) -> Worked {
        match self {
            Work::Check(check) => Worked::Checked(check.run()),
            Work::Derive { password, salt } => {
                Worked::Derived(Box::new(ScramCredentials::from_password(&password, &salt, ITERATIONS)))
            }
        }
    }
}

/// The state of one core.
pub struct Shard {
    pub settings: Settings,
    pub homes: Homes,
    pub edge: Edge,
    pub out: Outbox,
    /// What is known of other clusters' users.
    pub gateway: Gateway,
    pub recorder: Recorder,
    /// Connections that want to go to another core, for the driver to stop.
    pub departures: Vec<ConnId>,
    /// Connections that came from another core, for the driver to go on with.
    pub adoptions: Vec<(ConnId, RawSocket)>,
    /// Connections that are not to be read from now on (true), or are again, for the driver.
    pub pauses: Vec<(ConnId, bool)>,
    /// Descriptors that nobody needs any more, for the driver to close.
    pub orphans: Vec<RawSocket>,
    /// What there is to do with passwords, for another thread.
    pub checks: Vec<PasswordTask>,
    /// What there is to ask the service outside.
    pub questions: Vec<hook::Question>,
    /// For the thread that keeps the table of owners.
    pub words: Vec<Word>,
    waiting: owners::Waiting,
    /// Sessions of whose new passwords keys are being derived.
    deriving: Vec<EdgeRef>,
    registrations: register::Registrations,
    /// Answers to the operator, by ticket.
    pub answers: Vec<(u64, Answer)>,
    /// The operator's orders that other nodes are to answer, by ticket.
    orders: BTreeMap<u64, NodeId>,
    /// For other cores, by core.
    entries: Vec<Vec<Entry>>,
    connections: Vec<Option<connection::Connection>>,
    /// Addresses of the connections' other ends, by slot: no update looks at them.
    peers: Vec<IpAddr>,
    addresses: addresses::Addresses,
    rates: rates::Rates,
    translators: translated::Translators,
    links: links::Links,
    link_faults: link_faults::Faults,
    /// Of the connection whose words were taken last.
    sealing: Option<Box<Sealing>>,
    log_ins: log_in::LogIns,
    asked: asked::Asked,
    handshakes: handshakes::Handshakes,
    outcomes: Vec<(ConnId, log_in::Outcome)>,
    rules: Rules,
    encoder: Encoder,
    token_secret: TokenSecret,
    secrets: Secrets,
    frames: Vec<u8>,
    meter: Meter,
    /// What the chunk being read has brought so far (C1).
    taken: Taken,
    watched: Option<clients::Watched>,
    look_next: usize,
    looked_at: Time,
    stopping: bool,
    /// When the first turn was.
    started: Option<Time>,
}

impl Shard {
    /// A core without users. Its hash maps are seeded: the same seed gives the same run.
    pub fn new(settings: Settings, place: Place, mut secrets: Secrets) -> Shard {
        let seed = secrets.bytes16();
        let (low, high) = seed.split_at(8);
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
        let hasher = RandomState::with_seeds(number(low), number(high), 1, 2);
        let cores = settings.cores;
        let mut map = Map::of_node(settings.node, settings.core, cores);
        if place.directory != 0 {
            (map.cluster, map.directory) = (place.cluster, place.directory);
        }
        let mut out = Outbox::new(map.clone(), &settings.limits, settings.units.unit_bytes);
        if let Some(links) = &settings.links {
            (out.inline_max, out.again_at_once) = (links.inline_max as usize, links.settings.share());
        }
        let mut edge = Edge::new(&map, hasher.clone()).in_life(place.epoch);
        if settings.doors.name_publishers() {
            edge.serve_forms(FORMS, hasher.clone());
        }
        Shard {
            gateway: Gateway::new(hasher.clone(), place.epoch),
            log_ins: log_in::LogIns::new(hasher.clone(), place.epoch),
            homes: Homes::new(place, hasher.clone(), secrets.fork()),
            edge,
            out,
            recorder: Recorder::new(settings.core, settings.sample, (settings.clock)()),
            departures: Vec::new(),
            adoptions: Vec::new(),
            pauses: Vec::new(),
            orphans: Vec::new(),
            checks: Vec::new(),
            questions: Vec::new(),
            words: Vec::new(),
            waiting: owners::Waiting::default(),
            deriving: Vec::new(),
            registrations: register::Registrations::default(),
            answers: Vec::new(),
            orders: BTreeMap::new(),
            entries: (0..cores).map(|_| Vec::new()).collect(),
            connections: Vec::new(),
            peers: Vec::new(),
            addresses: addresses::Addresses::new(hasher.clone(), settings.limits.exempt.clone()),
            rates: rates::Rates::new(&settings.limits, hasher.clone()),
            translators: translated::Translators::default(),
            links: links::Links::default(),
            link_faults: link_faults::Faults::default(),
            sealing: None,
            asked: asked::Asked::default(),
            handshakes: handshakes::Handshakes::new(hasher),
            outcomes: Vec::new(),
            rules: Rules::new(&settings.limits),
            encoder: Encoder::default(),
            token_secret: settings.decoys.token_secret(),
            secrets,
            frames: Vec::new(),
            meter: Meter::new(settings.units),
            taken: Taken::default(),
            watched: None,
            look_next: 0,
            looked_at: Time::ZERO,
            stopping: false,
            started: None,
            settings,
        }
    }

    /// Takes in one stored row that is this core's; of `Meta` every core has all.
    ///
    /// # Errors
    /// It can't be read.
    pub fn load(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), String> {
        if table == Table::Meta {
            self.load_cluster(key, value)?;
        }
        self.homes.load(table, key, value)
    }

    /// Once a turn, after all input: looks after time, and says when it wants to again.
    pub fn turn(&mut self, now: Time) -> Option<Time> {
        if self.started.is_none() {
            self.started = Some(now);
            self.open_lanes(now);
        }
        let handshakes = self.go_on_with_handshakes(now);
        let reading = self.go_on_reading(now);
        let deadline = self.watch_over(now);
        self.work_off(now);
        let links = self.go_on_with_links(now);
        let log_ins = self.go_on_with_log_ins(now);
        let clusters = self.go_on_with_clusters(now);
        self.work_off(now);
        [handshakes, reading, deadline, links, log_ins, clusters].into_iter().flatten().min()
    }

    /// The invariants of this core's tables; the simulator calls it after every step.
    pub fn check(&self) {
        self.edge.check();
        assert!(self.out.controls.is_empty(), "what a core has for itself is worked off with each input");
    }
}
