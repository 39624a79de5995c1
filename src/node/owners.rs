//! Who owns which users, in a running node: the embedded engine of `ownership` with its clock, its store and its links.
//!
//! Lives on: the thread `fanal-owners` of each node of a cluster. Serves Z4, M1. The node with the lowest number keeps the table;
//! the others speak with it over the first lanes of core 0. Invariants: cores are told whole tables, in their order; users whose
//! rows are on this disk are this node's from its start on, since nobody else can have them; nothing here waits for a core.

use super::cluster::TablePlace;
use super::load::Kept;
use super::tenure::Tenure;
use crate::base::id::NodeId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::drive::{Bell, clock};
use crate::ownership::{Command, Coordinator, Event, Follower, Myself, Output, decode, encode};
use crate::shard::Word;
use crate::shard::batch::{self, Order};
use crate::store::thread::{Port, Wake};
use crate::store::{Commit, Durability, Write};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What may wait for the thread. At the limit: a word is not taken, and said again.
const WORDS: usize = 4_096;

/// What it may take to write what is to be written before this node leaves. At the limit: it's lost.
const GIVE_UP: Duration = Duration::from_secs(3);

/// What the thread hears.
enum Heard {
    Word(Word),
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
    /// Hands over what a core says. What could not be taken stays, but for what is said again by whoever said it.
    pub fn take(&self, words: &mut Vec<Word>) {
        for word in std::mem::take(words) {
            match self.put.try_send(Heard::Word(word)) {
                Err(TrySendError::Full(Heard::Word(Word::Heard { .. } | Word::Met(_)))) => {}
                Err(TrySendError::Full(Heard::Word(word))) => words.push(word),
                Ok(()) | Err(_) => {}
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
        ports: Ports,
        cores: Vec<(Sender<batch::Command>, Bell)>,
    ) -> io::Result<Owners> {
        let Opening { desk, taken } = self;
        let Kept { table, owners, inhabited } = kept;
        let Ports { table: port, shared } = ports;
        let (now, node, &TablePlace { terms, at, .. }) = (clock::now(), me.node, place);
        let coordinator = (at == node).then(|| Coordinator::new(now, terms, me.start, table));
        let mut follower = Follower::new(now, terms, me);
        follower.claim((0..=u16::MAX).filter(|&slot| owners[usize::from(slot)] == node));
        // Nobody may have had them yet: the tools made them, or a copy of another store.
        inhabited.into_iter().for_each(|slot| follower.command(now, Command::Assign(slot)));
        let tenure = shared.map(|port| Tenure::new(node, cores.len() as u16, port));
        let (owners, users) = (owners.to_vec(), desk.users.clone());
        let engine = Engine { node, at, follower, coordinator, owners, has_news: false, tenure, port, ticket: 0, cores, users };
        let thread = std::thread::Builder::new().name("fanal-owners".into()).spawn(move || engine.run(taken))?;
        Ok(Owners { desk, thread })
    }
}

/// The thread's ways to the store.
pub(super) struct Ports {
    /// For the table.
    pub table: Port,
    /// For what nodes share.
    pub shared: Option<Port>,
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

struct Engine {
    node: NodeId,
    /// Who keeps the table.
    at: NodeId,
    follower: Follower,
    coordinator: Option<Coordinator>,
    /// By slot, as the cores are told.
    owners: Vec<NodeId>,
    has_news: bool,
    /// Where nodes take users over.
    tenure: Option<Tenure>,
    port: Port,
    ticket: u64,
    cores: Vec<(Sender<batch::Command>, Bell)>,
    users: Arc<[AtomicU32]>,
}

impl Engine {
    fn run(mut self, taken: Receiver<Heard>) {
        loop {
            let now = clock::now();
            self.go_on(now);
            let next = self.coordinator.iter().map(Coordinator::next).fold(self.follower.next(), Time::min);
            let next = self.tenure.iter().map(Tenure::next).fold(next, Time::min);
            match taken.recv_timeout(next - now) {
                Ok(Heard::Word(word)) => self.hear(clock::now(), word),
                Ok(Heard::Stored) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Heard::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.give_all_up(&taken);
        let now = clock::now();
        self.follower.command(now, Command::Leave);
        self.exchange(now);
    }

    /// Before others may have this node's users, what is to be written of them is written.
    fn give_all_up(&mut self, taken: &Receiver<Heard>) {
        let Some(tenure) = &mut self.tenure else { return };
        tenure.give_up(Reason::ShuttingDown);
        self.tell_cores();
        let (until, mut stores) = (clock::now() + GIVE_UP, false);
        while let Some(tenure) = &mut self.tenure {
            stores |= !stores && tenure.is_caught_up() && tenure.store_nothing();
            if stores && tenure.is_stored() {
                break;
            }
            match taken.recv_timeout(until - clock::now()) {
                Ok(Heard::Word(Word::CaughtUp)) => tenure.caught_up(),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }

    /// Cores hear what of theirs comes or goes, and then of all owners.
    fn tell_cores(&mut self) {
        if let Some(tenure) = &mut self.tenure {
            let (orders, has_news) = tenure.take();
            orders.into_iter().for_each(|(core, order)| self.order(core, order));
            self.has_news |= has_news;
        }
        if std::mem::take(&mut self.has_news) {
            let owners: Arc<[NodeId]> = match &self.tenure {
                Some(tenure) => tenure.owners(),
                None => self.owners.clone().into(),
            };
            (0..self.cores.len()).for_each(|core| self.order(core, Order::Owners { owners: owners.clone(), steward: self.at }));
        }
    }

    fn go_on(&mut self, now: Time) {
        while let Some(completion) = self.port.take() {
            if let Some(coordinator) = &mut self.coordinator {
                coordinator.stored(now, completion.result);
            }
        }
        let users = self.users.iter().map(|users| users.load(Relaxed)).fold(0, u32::saturating_add);
        self.follower.command(now, Command::Report { users, free: 0 });
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.tick(now);
        }
        self.exchange(now);
        // What goes is given up before anything else comes.
        self.tell_cores();
        if let Some(tenure) = &mut self.tenure {
            tenure.go_on(now);
            self.tell_cores();
        }
    }

    fn hear(&mut self, now: Time, word: Word) {
        match (word, &mut self.coordinator) {
            (Word::Wanted(slots), _) => slots.into_iter().for_each(|slot| self.follower.command(now, Command::Assign(slot))),
            (Word::Met(node), _) if node == self.at => self.follower.met(now),
            (Word::Met(_), _) => {}
            (Word::CaughtUp, _) => self.tenure.iter_mut().for_each(Tenure::caught_up),
            (Word::Unreadable { slot, why }, _) => self.tenure.iter_mut().for_each(|tenure| tenure.unreadable(slot, &why)),
            (Word::Heard { from, bytes }, Some(coordinator)) => {
                decode(&bytes).into_iter().for_each(|ask| coordinator.ask(now, from, ask));
            }
            (Word::Heard { from, bytes }, None) if from == self.at => {
                decode(&bytes).into_iter().for_each(|tell| self.follower.hear(now, tell));
            }
            // It takes another node for the one that keeps the table; their configurations differ, which their links say.
            (Word::Heard { .. }, None) => {}
        }
    }

    /// Carries what follower and coordinator want said and stored, until neither wants anything.
    fn exchange(&mut self, now: Time) {
        loop {
            let asks = self.follower.take_asks();
            let outputs = self.coordinator.as_mut().map(Coordinator::take).unwrap_or_default();
            if asks.is_empty() && outputs.is_empty() {
                break;
            }
            for ask in asks {
                match &mut self.coordinator {
                    Some(coordinator) => coordinator.ask(now, self.node, ask),
                    None => self.say(self.at, encode(&ask, Vec::new())),
                }
            }
            for output in outputs {
                match output {
                    Output::Tell { to, tell } if to == self.node => self.follower.hear(now, tell),
                    Output::Tell { to, tell } => self.say(to, encode(&tell, Vec::new())),
                    Output::Store(writes) => self.store(now, writes),
                }
            }
        }
        for event in self.follower.take_events() {
            self.tenure.iter_mut().for_each(|tenure| tenure.hear(&event));
            match event {
                Event::Changed(lines) => {
                    lines.iter().for_each(|line| self.owners[usize::from(line.slot)] = line.node);
                    self.has_news = true;
                }
                Event::NotJoined(why) | Event::Refused(_, why) => tracing::warn!("the cluster: {why}"),
                Event::Away(true) => tracing::warn!("the cluster: node {}, which keeps the table of owners, is away", self.at.0),
                Event::Away(false) => tracing::info!("the cluster: node {} is there again", self.at.0),
                Event::Joined { .. } => self.has_news = true,
                Event::Fenced | Event::Member(_) | Event::Forgotten(_) => {}
            }
        }
    }

    fn store(&mut self, now: Time, writes: Vec<Write>) {
        self.ticket += 1;
        let commit = Commit { ticket: self.ticket, writes, durability: Durability::Synced };
        if let (Err(refused), Some(coordinator)) = (self.port.hand_over(commit), &mut self.coordinator) {
            coordinator.stored(now, Err(refused.reason.text().to_owned()));
        }
    }

    fn say(&self, to: NodeId, bytes: Vec<u8>) {
        self.order(0, Order::Say { to, bytes });
    }

    fn order(&self, core: usize, order: Order) {
        let (orders, bell) = &self.cores[core];
        // A core that has stopped needs none.
        if orders.send(batch::Command { ticket: 0, order }).is_ok() {
            bell.ring();
        }
    }
}
