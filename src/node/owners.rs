//! Who owns which users, in a running node: the coordination engine, and what the cores and the operator are told of it.
//!
//! Lives on: the thread `fanal-owners` of each node of a cluster. Serves Z4, M1. The engine is embedded (the node with the lowest
//! number keeps the table; the others speak with it over the first lanes of core 0) or etcd, on threads of its own; both take the
//! same commands and tell the same events. Slots without owners are looked after by the steward: the node that keeps the table, or
//! with etcd the one with the lowest number of those that are there. Invariants: cores are told whole tables, in their order; users
//! whose rows are on this disk are this node's from its start on, since nobody else can have them; nothing here waits for a core.

mod embedded;
mod orders;

use super::cluster::{KeptBy, TablePlace};
use super::etcd::{self, Etcd};
use super::load::Kept;
use super::tenure::Tenure;
use crate::admin;
use crate::base::id::NodeId;
use crate::base::reason::Reason;
use crate::base::time::{Time, WallClock};
use crate::drive::{Bell, clock};
use crate::ownership::{Assignment, Command, Event, Member, Members, Myself, NOBODY, Refusal, State, Terms, decode, encode};
use crate::shard::Word;
use crate::shard::batch::{self, Order};
use crate::store::thread::{Port, Wake};
use embedded::Embedded;
use orders::{Forgetting, Question};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What may wait for the thread. At the limit: a core's word is not taken, and said again; etcd's thread waits.
const WORDS: usize = 4_096;
/// Slots that are asked for again at once. The others come next, when these have owners.
const ASKED_AT_ONCE: usize = 1_024;
/// What is heard at once, before the cores are told what has become of it.
const WORDS_AT_ONCE: usize = 256;

/// What it may take to write what is to be written before this node leaves. At the limit: it's lost.
const GIVE_UP: Duration = Duration::from_secs(3);

/// What the thread hears.
enum Heard {
    Word(Word),
    /// etcd's thread tells.
    Event(Event),
    /// The operator asks.
    Question(Question),
    /// The store has answered.
    Stored,
    Stop,
}

/// What these threads of two nodes say to each other where etcd keeps the table.
#[derive(Serialize, Deserialize)]
enum Said {
    /// Who looks after slots without owners.
    Steward(NodeId),
    /// The operator has asked for it, and each node gives its own part.
    Rebalance,
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

    /// So many users live on a core; those count, too, whom it knows as the directory.
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
        let (now, node, link, terms) = (clock::now(), me.node, me.link, place.terms);
        let claims: Vec<u16> = (0..=u16::MAX).filter(|&slot| owners[usize::from(slot)] == node).collect();
        let engine = match &place.kept_by {
            &KeptBy::Node(at) => {
                let mut embedded = Embedded::new(now, place, at, me, table, port);
                embedded.follower.claim(claims);
                Engine::Embedded(Box::new(embedded))
            }
            KeptBy::Etcd { cluster, endpoints, trust } => {
                let settings = etcd::Settings {
                    cluster: *cluster,
                    terms,
                    seed: me.identity,
                    me,
                    claims,
                    endpoints: endpoints.clone(),
                    trust: trust.clone(),
                };
                let put = desk.put.clone();
                // When this thread has ended, nobody wants to hear it.
                Engine::Etcd(Etcd::start(settings, Box::new(move |event| _ = put.send(Heard::Event(event))))?)
            }
        };
        let (owners, users) = (owners.to_vec(), desk.users.clone());
        if let Some(at) = place.irreplaceable {
            tracing::warn!(
                "the cluster: nobody takes over the users of {at}, which keeps the table of owners itself; \
                 with cluster.coordination = \"etcd\" any node's are"
            );
        }
        let keeper = Keeper {
            node,
            irreplaceable: place.irreplaceable,
            link,
            terms,
            engine,
            owners,
            has_news: false,
            tenure: terms.take_over.then(|| Tenure::new(node, cores.len() as u16, terms, inhabited, shared)),
            knows_table: false,
            steward: NOBODY,
            said_steward: None,
            members: Members::default(),
            has_new_members: false,
            wanted: BTreeSet::new(),
            ask_at: now,
            joined: None,
            not_joined: None,
            away: None,
            epoch: 0,
            forgetting: None,
            cores,
            users,
        };
        let thread = std::thread::Builder::new().name("fanal-owners".into()).spawn(move || keeper.run(taken))?;
        Ok(Owners { desk, thread })
    }
}

/// The thread's ways to the store.
pub(super) struct Ports {
    /// For the table.
    pub table: Port,
    /// For what nodes share.
    pub shared: Port,
}

/// The running thread.
pub(super) struct Owners {
    desk: Desk,
    thread: JoinHandle<()>,
}

impl Owners {
    /// The control thread's way to it.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

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
    /// See `TablePlace`.
    irreplaceable: Option<NodeId>,
    /// Where the other nodes connect to this one.
    link: SocketAddr,
    terms: Terms,
    engine: Engine,
    /// By slot, as the cores are told.
    owners: Vec<NodeId>,
    has_news: bool,
    /// Where nodes take users over.
    tenure: Option<Tenure>,
    /// The table has been heard.
    knows_table: bool,
    /// As the cores are told.
    steward: NodeId,
    /// As another node has said while etcd was away.
    said_steward: Option<NodeId>,
    members: Members,
    has_new_members: bool,
    /// Slots that have been asked for, and have no owner yet.
    wanted: BTreeSet<u16>,
    /// When they are asked for again.
    ask_at: Time,
    /// From which epoch on what is assigned to this node counts.
    joined: Option<u32>,
    /// Why this node can't join.
    not_joined: Option<String>,
    /// Since when the engine does not answer, and why.
    away: Option<(WallClock, String)>,
    /// The highest that is known.
    epoch: u32,
    forgetting: Option<Forgetting>,
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
        self.give_all_up(&taken);
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
        let (next, confirm) = match &self.engine {
            Engine::Embedded(embedded) => (embedded.next(), embedded.follower.confirm_at()),
            Engine::Etcd(_) => (now + self.terms.beat(), Time::MAX),
        };
        self.tenure.iter().map(|tenure| tenure.next(confirm)).fold(next, Time::min)
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
        let steward = self.steward();
        if std::mem::take(&mut self.has_news) | (std::mem::replace(&mut self.steward, steward) != steward) {
            let owners: Arc<[NodeId]> = match &self.tenure {
                Some(tenure) => tenure.owners(),
                None => self.owners.clone().into(),
            };
            (0..self.cores.len()).for_each(|core| self.order(core, Order::Owners { owners: owners.clone(), steward }));
        }
    }

    fn go_on(&mut self, now: Time) {
        let users = self.users.iter().map(|users| users.load(Relaxed)).fold(0, u32::saturating_add);
        self.command(now, Command::Report { users, free: 0 });
        let events = self.engine.embedded().map(|embedded| embedded.go_on(now)).unwrap_or_default();
        events.into_iter().for_each(|event| self.happened(event));
        self.wanted.extend(self.tenure.as_mut().map(Tenure::take_wanted).unwrap_or_default());
        self.ask_again(now);
        self.say();
        if std::mem::take(&mut self.has_new_members) {
            self.tell_members();
        }
        let steward = self.steward;
        // What goes is given up before anything else comes.
        self.tell_cores();
        self.go_on_with_tenure(now);
        if let Engine::Etcd(_) = self.engine
            && self.steward != steward
        {
            self.say_steward(self.others());
        }
    }

    fn go_on_with_tenure(&mut self, now: Time) {
        if self.tenure.as_mut().is_some_and(Tenure::take_replaced) {
            tracing::warn!("the cluster: the database has this node's place for another process, or has lost it: it begins anew");
            self.command(now, Command::Rejoin);
        }
        if let Some(tenure) = &mut self.tenure {
            tenure.go_on(now);
            if let Engine::Embedded(embedded) = &mut self.engine {
                tenure.take_confirmed().into_iter().for_each(|asked| embedded.follower.confirm(asked));
                if now >= embedded.follower.confirm_at() {
                    tenure.confirm(now);
                }
            }
            self.tell_cores();
        }
    }

    /// Takes in what was said. True: this thread is to end.
    fn hear(&mut self, now: Time, heard: Heard) -> bool {
        match heard {
            Heard::Word(Word::Wanted(mut slots)) => {
                slots.retain(|&slot| self.owners[usize::from(slot)] == NOBODY);
                slots.iter().for_each(|&slot| _ = self.command(now, Command::Assign(slot)));
                self.wanted.append(&mut slots);
            }
            Heard::Word(Word::Met(node)) => match &mut self.engine {
                Engine::Embedded(embedded) => embedded.met(now, node),
                Engine::Etcd(_) => self.say_steward([node]),
            },
            Heard::Word(Word::Heard { from, bytes }) => match &mut self.engine {
                Engine::Embedded(embedded) => embedded.heard(now, from, &bytes),
                Engine::Etcd(_) => match decode(&bytes) {
                    Some(Said::Steward(node)) => self.said_steward = Some(node),
                    Some(Said::Rebalance) => _ = self.command(now, Command::Rebalance),
                    None => {}
                },
            },
            Heard::Word(Word::CaughtUp) => self.tenure.iter_mut().for_each(Tenure::caught_up),
            Heard::Word(Word::Unreadable { slot, why }) => self.tenure.iter_mut().for_each(|tenure| tenure.unreadable(slot, &why)),
            Heard::Event(event) => self.happened(event),
            Heard::Question(question) => self.answer(now, question),
            Heard::Stored => {}
            Heard::Stop => return true,
        }
        false
    }

    /// The engine is told what this node wants of it. False: not now.
    fn command(&mut self, now: Time, command: Command) -> bool {
        match &mut self.engine {
            Engine::Embedded(embedded) => embedded.command(now, command),
            Engine::Etcd(etcd) => return etcd.command(command),
        }
        true
    }

    /// Asks again for what has no owner yet: the engine may have been away.
    fn ask_again(&mut self, now: Time) {
        if now >= self.ask_at {
            self.ask_at = now + self.terms.beat();
            self.wanted.clone().into_iter().take(ASKED_AT_ONCE).for_each(|slot| _ = self.command(now, Command::Assign(slot)));
        }
    }

    /// What the engine tells, whichever it is.
    fn happened(&mut self, event: Event) {
        self.tenure.iter_mut().for_each(|tenure| tenure.hear(&event));
        match event {
            Event::Changed(lines) => {
                self.say_taken(&lines);
                (self.has_news, self.knows_table) = (true, true);
                for line in lines {
                    self.owners[usize::from(line.slot)] = line.node;
                    self.epoch = self.epoch.max(line.epoch);
                    self.wanted.remove(&line.slot);
                }
            }
            Event::Joined { epoch } => {
                (self.has_news, self.knows_table) = (true, true);
                (self.joined, self.not_joined) = (Some(epoch), None);
            }
            Event::Member(member) => {
                self.say_member(&member);
                self.members.put(member);
                self.has_new_members = true;
            }
            Event::Forgotten(node) => {
                self.members.remove(node);
                self.has_new_members = true;
                self.forgot(node, Ok(()));
            }
            // It's asked for again.
            Event::Refused(Command::Assign(_), Refusal::Away(_)) => {}
            Event::Refused(Command::Forget(node), why) => self.forgot(node, Err(admin::Refusal::Conflict(why.to_string()))),
            Event::Refused(command, why) => {
                if let Command::Assign(slot) = command {
                    self.wanted.remove(&slot);
                }
                tracing::warn!("the cluster: {why}");
            }
            Event::NotJoined(why) => {
                tracing::warn!("the cluster: {why}");
                self.not_joined = Some(why.to_string());
            }
            Event::Away(why) => {
                tracing::warn!("the cluster: {}, which keeps the table of owners, is away: {why}", self.engine.name());
                self.away = Some((clock::wall(), why));
            }
            Event::Back => {
                tracing::info!("the cluster: {} is there again", self.engine.name());
                (self.away, self.said_steward) = (None, None);
            }
            Event::Fenced => self.joined = None,
        }
    }

    /// The log hears of nodes that come, go or are drained.
    fn say_member(&self, member: &Member) {
        let known = self.members.get(member.node).map(|known| (known.life, known.state));
        if member.node == self.node || known == Some((member.life, member.state)) {
            return;
        }
        let (node, at) = (member.node, member.link);
        match member.state {
            State::Serving => tracing::info!("the cluster: {node} at {at} is there"),
            State::Draining => tracing::info!("the cluster: {node} at {at} is given no more users"),
            State::Gone if known.is_some() => {
                tracing::warn!("the cluster: {node} at {at} is gone: it has left, or its lease has ended")
            }
            State::Gone => {}
        }
    }

    /// The log hears of what comes to this node from another.
    fn say_taken(&self, lines: &[Assignment]) {
        let mut taken = BTreeMap::<NodeId, usize>::new();
        for line in lines.iter().filter(|line| line.node == self.node) {
            *taken.entry(self.owners[usize::from(line.slot)]).or_default() += 1;
        }
        for (node, slots) in taken.into_iter().filter(|(node, _)| ![NOBODY, self.node].contains(node)) {
            tracing::info!("the cluster: {slots} slots of {node} come to this node");
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

    /// Who looks after slots without owners, once it's known which those are. A node that is cut off from etcd goes by what the
    /// others say: it may be gone for them.
    fn steward(&self) -> NodeId {
        let first = || self.members.iter().find(|member| member.is_there()).map_or(NOBODY, |member| member.node);
        match (&self.engine, &self.away) {
            _ if !self.knows_table => NOBODY,
            (Engine::Embedded(embedded), _) => embedded.at,
            (Engine::Etcd(_), Some(_)) => self.said_steward.unwrap_or_else(first),
            (Engine::Etcd(_), None) => first(),
        }
    }

    /// Tells other nodes who that is by what stands in etcd now.
    fn say_steward(&self, to: impl IntoIterator<Item = NodeId>) {
        if self.away.is_none() && self.steward != NOBODY {
            self.say_to(to, &Said::Steward(self.steward));
        }
    }

    /// Tells other nodes something that etcd does not.
    fn say_to(&self, to: impl IntoIterator<Item = NodeId>, said: &Said) {
        to.into_iter().for_each(|to| self.order(0, Order::Say { to, bytes: encode(said, Vec::new()) }));
    }

    fn others(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().map(|member| member.node).filter(|node| *node != self.node)
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
