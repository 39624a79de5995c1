//! Who owns which users, in a running node: the coordination engine, and what the cores and the operator are told of it.
//!
//! Lives on: the thread `fanal-owners` of each node of a cluster. Serves Z4, M1. The engine is embedded (the node with the lowest
//! number keeps the table; the others speak with it over the first lanes of core 0) or etcd, on threads of its own; both take the
//! same commands and tell the same events. Slots without owners are looked after by the steward: the node that keeps the table, or
//! with etcd the one with the lowest number of those that are there. Invariants: cores are told whole tables, in their order; users
//! whose rows are on this disk are this node's from its start on, since nobody else can have them; nothing here waits for a core.

mod embedded;

use super::cluster::{KeptBy, TablePlace};
use super::etcd::{self, Etcd};
use super::load::Kept;
use crate::base::id::NodeId;
use crate::base::time::Time;
use crate::drive::{Bell, clock};
use crate::ownership::{Command, Event, Members, Myself, NOBODY, Refusal, Terms};
use crate::shard::Word;
use crate::shard::batch::{self, Order};
use crate::store::thread::{Port, Wake};
use embedded::Embedded;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// What may wait for the thread. At the limit: a core's word is not taken, and said again; etcd's thread waits.
const WORDS: usize = 4_096;
/// What is heard at once, before the cores are told what has become of it.
const WORDS_AT_ONCE: usize = 256;

/// What the thread hears.
enum Heard {
    Word(Word),
    /// etcd's thread tells.
    Event(Event),
    /// The store has answered.
    Stored,
    Stop,
}

/// A core's way to the thread.
#[derive(Clone)]
pub struct Desk {
    put: SyncSender<Heard>,
    /// Users of each core.
    users: Arc<[AtomicU32]>,
}

impl Desk {
    /// Hands over what a core says. What it wants and could not be taken stays: all else is said again by whoever said it.
    pub fn take(&self, words: &mut Vec<Word>) {
        for word in std::mem::take(words) {
            if let Err(TrySendError::Full(Heard::Word(word @ Word::Wanted(_)))) = self.put.try_send(Heard::Word(word)) {
                words.push(word);
            }
        }
    }

    /// So many users live on a core.
    pub fn note_users(&self, core: usize, users: usize) {
        self.users[core].store(users as u32, Relaxed);
    }
}

/// What the thread begins with.
pub(super) struct Opening {
    desk: Desk,
    taken: Receiver<Heard>,
}

impl Opening {
    pub fn new(cores: u16) -> Opening {
        let (put, taken) = sync_channel(WORDS);
        Opening { desk: Desk { put, users: (0..cores).map(|_| AtomicU32::new(0)).collect() }, taken }
    }

    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// For the store, after each of its answers to this thread.
    pub fn wake(&self) -> Wake {
        let put = self.desk.put.clone();
        // When so much waits, it looks for answers anyway.
        Box::new(move || _ = put.try_send(Heard::Stored))
    }

    /// Starts the thread.
    pub fn start(
        self,
        place: &TablePlace,
        me: Myself,
        kept: Kept,
        port: Port,
        cores: Vec<(Sender<batch::Command>, Bell)>,
    ) -> io::Result<Owners> {
        let Opening { desk, taken } = self;
        let Kept { table, owners } = kept;
        let (now, node, link, terms) = (clock::now(), me.node, me.link, place.terms);
        let claims: Vec<u16> = (0..=u16::MAX).filter(|&slot| owners[usize::from(slot)] == node).collect();
        let engine = match &place.kept_by {
            &KeptBy::Node(at) => {
                let mut embedded = Embedded::new(now, place, at, me, table, port);
                embedded.follower.claim(claims);
                Engine::Embedded(Box::new(embedded))
            }
            KeptBy::Etcd { cluster, endpoints } => {
                let settings =
                    etcd::Settings { cluster: *cluster, terms, seed: me.identity, me, claims, endpoints: endpoints.clone() };
                let put = desk.put.clone();
                // When this thread has ended, nobody wants to hear it.
                Engine::Etcd(Etcd::start(settings, Box::new(move |event| _ = put.send(Heard::Event(event))))?)
            }
        };
        let (owners, users) = (owners.to_vec(), desk.users.clone());
        let keeper = Keeper {
            node,
            link,
            terms,
            engine,
            owners,
            has_news: false,
            knows_table: false,
            steward: NOBODY,
            members: Members::default(),
            has_new_members: false,
            again: BTreeSet::new(),
            cores,
            users,
        };
        let thread = std::thread::Builder::new().name("fanal-owners".into()).spawn(move || keeper.run(taken))?;
        Ok(Owners { desk, thread })
    }
}

/// The running thread.
pub(super) struct Owners {
    desk: Desk,
    thread: JoinHandle<()>,
}

impl Owners {
    /// This node leaves the cluster: the others hear of it if they can.
    pub fn stop(self) {
        // Should the thread be gone, `join` says so.
        _ = self.desk.put.send(Heard::Stop);
        self.thread.join().expect("the thread of owners has no reason to panic");
    }
}

/// What the commands go to, and the events come from.
enum Engine {
    Embedded(Box<Embedded>),
    Etcd(Etcd),
}

struct Keeper {
    node: NodeId,
    /// Where the other nodes connect to this one.
    link: SocketAddr,
    terms: Terms,
    engine: Engine,
    /// By slot, as the cores are told.
    owners: Vec<NodeId>,
    has_news: bool,
    /// The table has been heard.
    knows_table: bool,
    /// As the cores are told.
    steward: NodeId,
    members: Members,
    has_new_members: bool,
    /// Slots to ask for again when the engine answers again.
    again: BTreeSet<u16>,
    cores: Vec<(Sender<batch::Command>, Bell)>,
    users: Arc<[AtomicU32]>,
}

impl Keeper {
    fn run(mut self, taken: Receiver<Heard>) {
        loop {
            let now = clock::now();
            self.go_on(now);
            let first = match taken.recv_timeout(self.next(now) - now) {
                Ok(heard) => Some(heard),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let now = clock::now();
            if first.into_iter().chain(taken.try_iter().take(WORDS_AT_ONCE)).any(|heard| self.hear(now, heard)) {
                break;
            }
        }
        // From here on etcd's thread need not wait to be heard.
        drop(taken);
        let now = clock::now();
        self.command(now, Command::Leave);
        self.say();
        if let Engine::Etcd(etcd) = self.engine {
            etcd.stop();
        }
    }

    fn next(&self, now: Time) -> Time {
        match &self.engine {
            Engine::Embedded(embedded) => embedded.next(),
            Engine::Etcd(_) => now + self.terms.beat(),
        }
    }

    fn go_on(&mut self, now: Time) {
        let users = self.users.iter().map(|users| users.load(Relaxed)).fold(0, u32::saturating_add);
        self.command(now, Command::Report { users, free: 0 });
        let events = self.engine.embedded().map(|embedded| embedded.go_on(now)).unwrap_or_default();
        events.into_iter().for_each(|event| self.happened(now, event));
        self.say();
        if std::mem::take(&mut self.has_new_members) {
            self.tell_members();
        }
        let steward = self.steward();
        if std::mem::take(&mut self.has_news) | (std::mem::replace(&mut self.steward, steward) != steward) {
            let owners: Arc<[NodeId]> = self.owners.clone().into();
            (0..self.cores.len()).for_each(|core| self.order(core, Order::Owners { owners: owners.clone(), steward }));
        }
    }

    /// Takes in what was said. True: this thread is to end.
    fn hear(&mut self, now: Time, heard: Heard) -> bool {
        match heard {
            Heard::Word(Word::Wanted(slots)) => slots.into_iter().for_each(|slot| _ = self.command(now, Command::Assign(slot))),
            Heard::Word(Word::Met(node)) => self.engine.embedded().into_iter().for_each(|embedded| embedded.met(now, node)),
            Heard::Word(Word::Heard { from, bytes }) => {
                self.engine.embedded().into_iter().for_each(|embedded| embedded.heard(now, from, &bytes));
            }
            Heard::Event(event) => self.happened(now, event),
            Heard::Stored => {}
            Heard::Stop => return true,
        }
        false
    }

    /// The engine is told what this node wants of it. False: not now.
    fn command(&mut self, now: Time, command: Command) -> bool {
        match (&mut self.engine, command) {
            (Engine::Embedded(embedded), _) => embedded.command(now, command),
            (Engine::Etcd(etcd), _) if etcd.command(command) => {}
            (Engine::Etcd(_), Command::Assign(slot)) => _ = self.again.insert(slot),
            (Engine::Etcd(_), _) => return false,
        }
        true
    }

    /// What the engine tells, whichever it is.
    fn happened(&mut self, now: Time, event: Event) {
        match event {
            Event::Changed(lines) => {
                (self.has_news, self.knows_table) = (true, true);
                lines.iter().for_each(|line| self.owners[usize::from(line.slot)] = line.node);
            }
            Event::Joined { .. } => (self.has_news, self.knows_table) = (true, true),
            Event::Member(member) => {
                self.members.put(member);
                self.has_new_members = true;
            }
            Event::Forgotten(node) => {
                self.members.remove(node);
                self.has_new_members = true;
            }
            Event::Refused(Command::Assign(slot), Refusal::Away(_)) => _ = self.again.insert(slot),
            Event::NotJoined(why) | Event::Refused(_, why) => tracing::warn!("the cluster: {why}"),
            Event::Away(true) => tracing::warn!("the cluster: {}, which keeps the table of owners, is away", self.engine.name()),
            Event::Away(false) => {
                tracing::info!("the cluster: {} is there again", self.engine.name());
                std::mem::take(&mut self.again).into_iter().for_each(|slot| _ = self.command(now, Command::Assign(slot)));
            }
            Event::Fenced => {}
        }
    }

    /// With etcd the nodes find each other by what stands there. Who is gone may be cut off from etcd alone, or come back.
    fn tell_members(&mut self) {
        if let Engine::Etcd(_) = self.engine {
            let others = self.members.iter().filter(|member| member.node != self.node);
            let nodes: Arc<[_]> = others.map(|member| (member.node, member.link)).chain([(self.node, self.link)]).collect();
            (0..self.cores.len()).for_each(|core| self.order(core, Order::Nodes(nodes.clone())));
        }
    }

    /// Who looks after slots without owners, once it's known which those are.
    fn steward(&self) -> NodeId {
        match &self.engine {
            _ if !self.knows_table => NOBODY,
            Engine::Embedded(embedded) => embedded.at,
            Engine::Etcd(_) => self.members.iter().find(|member| member.is_there()).map_or(NOBODY, |member| member.node),
        }
    }

    /// Sends what the engine has to say to other nodes'.
    fn say(&mut self) {
        let says = self.engine.embedded().map(|embedded| std::mem::take(&mut embedded.says)).unwrap_or_default();
        says.into_iter().for_each(|(to, bytes)| self.order(0, Order::Say { to, bytes }));
    }

    fn order(&self, core: usize, order: Order) {
        let (orders, bell) = &self.cores[core];
        // A core that has stopped needs none.
        if orders.send(batch::Command { ticket: 0, order }).is_ok() {
            bell.ring();
        }
    }
}

impl Engine {
    /// The one that speaks over links and waits for the store, if it's that.
    fn embedded(&mut self) -> Option<&mut Embedded> {
        match self {
            Engine::Embedded(embedded) => Some(embedded),
            Engine::Etcd(_) => None,
        }
    }

    /// For people.
    fn name(&self) -> String {
        match self {
            Engine::Embedded(embedded) => embedded.at.to_string(),
            Engine::Etcd(_) => "etcd".to_owned(),
        }
    }
}
