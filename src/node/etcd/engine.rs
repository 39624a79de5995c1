//! What the etcd thread does: join, keep the lease, follow the keys, and write what is wanted.

use super::api::Keys;
use super::api::{Done, Grant, LeaseOf, Leased, Line, Newest, Number, Op, Range, Ranged, Topic, Txn, Watch, WatchFrom, Watched};
use super::gateway::{Gateway, Watching};
use super::view::{View, by_block};
use super::{Settings, Tell};
use crate::base::id::NodeId;
use crate::base::random::Random;
use crate::ownership::choose::{self, Loads};
use crate::ownership::{Assignment, Command, Event, Member, NOBODY, Refusal, State, Terms, encode};
use crate::store::rows::Row;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// Blocks in one transaction: etcd takes 128 comparisons and as many writes in one, and 1.5 MB.
const TXN_BLOCKS: usize = 24;
/// Nodes that one transaction gives slots to.
const TXN_NODES: usize = 64;
/// Nodes whose slots are taken over at once: they are compared in each transaction, too.
const TXN_LOST: usize = 16;
/// First pause after a failure; it doubles up to the time between two beats.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Orders that are taken before the thread looks after the lease again.
const ORDERS_AT_ONCE: usize = 1_024;

pub(super) enum Order {
    Command(Command),
    /// A line of the watch with this number, or why it has ended.
    Watched(u64, Result<Watched, String>),
    Stop,
}

/// A lease and until when it surely holds.
#[derive(Clone, Copy)]
struct Lease {
    id: i64,
    until: Instant,
}

pub(super) struct Engine {
    terms: Terms,
    me: Member,
    /// Slots whose users' rows are on this node's disk.
    claims: Vec<u16>,
    gateway: Gateway,
    view: View,
    orders: (SyncSender<Order>, Receiver<Order>),
    tell: Tell,
    random: Random,
    lease: Option<Lease>,
    /// This node's key is there, and hangs on the lease.
    is_member: bool,
    /// From which epoch on assignments to this node count.
    joined: Option<u32>,
    watching: Option<(u64, Watching)>,
    watches: u64,
    /// The newest revision and the number of keys in etcd, at the last look: all known here by the next one.
    missing: Option<(i64, usize)>,
    wanted: BTreeSet<u16>,
    /// Slots that this node gives up, and for whom.
    moves: BTreeMap<u16, NodeId>,
    /// It is to give up its part again, but not before all have told how many users they have since it did so last.
    rebalances: bool,
    counted_at: Instant,
    /// Users that newly assigned slots will bring, until the time is over.
    given: BTreeMap<NodeId, (u64, Instant)>,
    next_beat: Instant,
    failures: u32,
    is_away: bool,
    has_left: bool,
    said: Option<Refusal>,
}

impl Engine {
    pub(super) fn new(settings: Settings, gateway: Gateway, orders: (SyncSender<Order>, Receiver<Order>), tell: Tell) -> Engine {
        Engine {
            terms: settings.terms,
            me: settings.me.member(),
            claims: settings.claims,
            gateway,
            view: View::new(Keys::new(settings.cluster)),
            orders,
            tell,
            random: Random::new(settings.seed),
            lease: None,
            is_member: false,
            joined: None,
            watching: None,
            watches: 0,
            missing: None,
            wanted: BTreeSet::new(),
            moves: BTreeMap::new(),
            rebalances: false,
            counted_at: Instant::now(),
            given: BTreeMap::new(),
            next_beat: Instant::now(),
            failures: 0,
            is_away: false,
            has_left: false,
            said: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let wait = self.next().saturating_duration_since(Instant::now());
            let first = match self.orders.1.recv_timeout(wait) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let more: Vec<Order> = self.orders.1.try_iter().take(ORDERS_AT_ONCE).collect();
            for order in first.into_iter().chain(more) {
                match order {
                    Order::Stop => return,
                    Order::Command(command) => self.command(command),
                    Order::Watched(number, line) => self.watched(number, line),
                }
            }
            self.turn();
        }
    }

    fn say(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| (self.tell)(event));
    }

    /// When this node must stop owning, unless its lease is kept.
    fn fence_at(&self) -> Option<Instant> {
        self.lease.filter(|_| self.joined.is_some() && self.terms.take_over).map(|lease| lease.until)
    }

    fn next(&self) -> Instant {
        let never = Instant::now() + Duration::from_secs(3_600);
        if self.has_left { never } else { self.fence_at().map_or(self.next_beat, |fence| fence.min(self.next_beat)) }
    }

    /// How long a call may take: neither beyond the lease nor so long that no other member of etcd could be asked.
    fn until(&self) -> Instant {
        let patience = Instant::now() + self.terms.beat();
        self.fence_at().map_or(patience, |fence| fence.min(patience))
    }

    fn turn(&mut self) {
        if self.fence_at().is_some_and(|fence| fence <= Instant::now()) {
            self.lose_lease();
        }
        if self.has_left || (self.failures > 0 && Instant::now() < self.next_beat) {
            return;
        }
        let is_due = Instant::now() >= self.next_beat;
        let done = if is_due { self.beat() } else { Ok(()) };
        match done.and_then(|()| self.work()) {
            Ok(()) => self.succeeded(is_due),
            Err(error) => self.failed(&error),
        }
    }

    fn succeeded(&mut self, is_due: bool) {
        self.failures = 0;
        if is_due {
            self.next_beat = Instant::now() + self.terms.beat();
        }
        if std::mem::take(&mut self.is_away) {
            self.say([Event::Back]);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let pause = (FIRST_PAUSE * (1 << self.failures.min(10))).min(self.terms.beat());
        self.next_beat = Instant::now() + pause.mul_f64(0.5 + self.random.unit() / 2.0);
        self.failures += 1;
        // What was asked may have been done all the same.
        self.watching = None;
        if !std::mem::replace(&mut self.is_away, true) {
            let why = format!("{} can't be used: {error}", self.gateway.name());
            self.say([Event::Away(why)]);
        }
        let why = Refusal::Away(error.to_string());
        for slot in std::mem::take(&mut self.wanted) {
            self.say([Event::Refused(Command::Assign(slot), why.clone())]);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            _ if self.has_left => {}
            Command::Assign(slot) if self.view.slots.owner(slot).is_none() => _ = self.wanted.insert(slot),
            Command::Assign(_) => {}
            Command::Report { users, free } => (self.me.users, self.me.free) = (users, free),
            Command::Drain => self.me.state = State::Draining,
            Command::Leave => self.leave(),
            Command::Rebalance if self.terms.take_over => self.rebalances = true,
            Command::Rebalance => self.say([Event::Refused(Command::Rebalance, Refusal::Stays)]),
            Command::Rejoin => self.rejoin(),
            Command::Forget(node) => {
                if let Err(why) = self.forget(node) {
                    self.say([Event::Refused(command, why)]);
                }
            }
        }
    }

    /// Takes a line of the watch; a watch that is none any more says nothing.
    fn watched(&mut self, number: u64, line: Result<Watched, String>) {
        if self.watching.as_ref().is_none_or(|(current, _)| *current != number) {
            return;
        }
        let heard = line.and_then(|line| {
            let over = line.canceled.then(|| "it ended: what it was to begin with is compacted".to_owned());
            over.map_or(Ok(line), Err)
        });
        match heard.and_then(|line| self.view.hear(line)) {
            Ok(events) => self.heard(events),
            Err(why) => {
                tracing::info!("the watch at etcd begins anew: {why}");
                self.watching = None;
                self.next_beat = Instant::now();
            }
        }
    }

    fn heard(&mut self, events: Vec<Event>) {
        self.wanted.retain(|slot| self.view.slots.owner(*slot).is_none());
        self.say(events);
        // Its key hung on the lease: that is over, whatever the clock says.
        let is_lost = self.view.lease(self.me.node) != self.lease.map(|lease| lease.id);
        if self.is_member && is_lost {
            self.lose_lease();
        }
    }

    /// Its key and its lease stay: it joins anew under them, with new epochs.
    fn rejoin(&mut self) {
        self.is_member = false;
        self.me.life.join += 1;
        self.next_beat = Instant::now();
        self.fence();
    }

    fn lose_lease(&mut self) {
        (self.lease, self.is_member) = (None, false);
        self.me.life.join += 1;
        self.next_beat = Instant::now();
        // Where nobody takes over, its slots stay its own.
        if self.terms.take_over {
            self.fence();
        }
    }

    fn fence(&mut self) {
        self.moves.clear();
        self.rebalances = false;
        if self.joined.take().is_some() {
            self.say([Event::Fenced]);
        }
    }

    fn leave(&mut self) {
        self.fence();
        self.has_left = true;
        self.watching = None;
        let Some(lease) = self.lease.take() else { return };
        let revoke = LeaseOf { id: Number(lease.id) };
        if let Err(error) = self.gateway.call::<Leased>("lease/revoke", &revoke, Instant::now() + self.terms.beat()) {
            tracing::warn!("etcd keeps this node's lease until it runs out: {error}");
        }
    }

    /// What is due: the lease is kept, or had; the keys are followed; they say what there is to say of this node.
    fn beat(&mut self) -> io::Result<()> {
        if self.is_member {
            self.keep_lease()?;
        }
        if !self.is_member && !self.join()? {
            return Ok(());
        }
        if self.watching.is_none() {
            self.list()?;
            self.watch()?;
        } else {
            self.look()?;
        }
        let told = self.view.members.get(self.me.node);
        let load = |member: &Member| (member.users, member.free, member.state);
        if self.is_member && told.map(load) != Some(load(&self.me)) {
            let (compare, success) = (vec![self.view.held(self.me.node)], vec![self.put_me(Topic::Member(self.me.node))]);
            self.txn(&Txn { compare, success })?;
        }
        Ok(())
    }

    fn put_me(&self, topic: Topic) -> Op {
        let lease = if matches!(topic, Topic::Member(_)) { self.lease.map_or(0, |lease| lease.id) } else { 0 };
        Op::put(self.view.keys.of(topic), self.me.encode(), lease)
    }

    fn txn(&mut self, txn: &Txn) -> io::Result<Done> {
        let until = self.until();
        self.gateway.call("kv/txn", txn, until)
    }

    fn keep_lease(&mut self) -> io::Result<()> {
        let Some(lease) = self.lease else { return Ok(()) };
        let (sent, until) = (Instant::now(), self.until());
        let kept: Line<Leased> = self.gateway.call("lease/keepalive", &LeaseOf { id: Number(lease.id) }, until)?;
        match kept.result.map_or(0, |kept| kept.seconds.0) {
            ..=0 => self.lose_lease(),
            seconds => self.lease = Some(Lease { until: sent + own(seconds), ..lease }),
        }
        Ok(())
    }

    fn list(&mut self) -> io::Result<()> {
        let ((key, range_end), until) = (self.view.keys.all(), self.until());
        let ranged: Ranged = self.gateway.call("kv/range", &Range { key, range_end, newest: None }, until)?;
        let events = self.view.list(ranged).map_err(io::Error::other)?;
        self.heard(events);
        Ok(())
    }

    fn watch(&mut self) -> io::Result<()> {
        let (key, range_end) = self.view.keys.all();
        let start_revision = Number(self.view.revision + 1);
        let (number, orders) = (self.watches + 1, self.orders.0.clone());
        // When the orders are full, it ends, and `look` will miss what it had to say.
        let hear = move |line: Result<Watched, String>| {
            let goes_on = line.is_ok();
            orders.try_send(Order::Watched(number, line)).is_ok() && goes_on
        };
        let watch = Watch { create_request: WatchFrom { key, range_end, start_revision } };
        let until = self.until();
        self.watching = Some((number, self.gateway.watch(&watch, until, hear)?));
        (self.watches, self.missing) = (number, None);
        Ok(())
    }

    /// Whether the watch still tells all: what etcd has and is not known here, must be known by the next look.
    fn look(&mut self) -> io::Result<()> {
        let ((key, range_end), until) = (self.view.keys.all(), self.until());
        let newest: Ranged = self.gateway.call("kv/range", &Range { key, range_end, newest: Some(Newest::ONE) }, until)?;
        let revision = newest.kvs.first().map_or(0, |kv| kv.mod_revision.0);
        let there = (revision, newest.count.0.try_into().unwrap_or(0));
        let has_missed = |(revision, count)| self.view.revision < revision || (count == there.1 && count != self.view.count());
        if self.missing.is_some_and(has_missed) {
            tracing::info!("the watch at etcd begins anew: it has missed something");
            self.list()?;
            return self.watch();
        }
        self.missing = Some(there);
        Ok(())
    }

    /// Claims the number. False: it can't be had now, which was said.
    fn join(&mut self) -> io::Result<bool> {
        self.lease = self.lease.filter(|lease| lease.until > Instant::now());
        if self.lease.is_none() {
            let (sent, until) = (Instant::now(), self.until());
            let seconds = Number(self.terms.lease_ms.div_ceil(1_000).into());
            let leased: Leased = self.gateway.call("lease/grant", &Grant { seconds }, until)?;
            self.lease = Some(Lease { id: leased.id.0, until: sent + own(leased.seconds.0) });
        }
        self.list()?;
        let node = self.me.node;
        if self.view.lease(node) != self.lease.map(|lease| lease.id) {
            let terms = self.view.terms.filter(|terms| *terms != self.terms).map(Refusal::Terms);
            let refused = terms.or_else(|| self.view.members.admit(&self.me, &self.view.slots, self.terms.take_over).err());
            if let Some(why) = refused {
                self.not_joined(why);
                return Ok(false);
            }
            if !self.claim()? {
                return Err(io::Error::other("another node was quicker"));
            }
            self.list()?;
        }
        self.is_member = self.view.lease(node).is_some() && self.view.lease(node) == self.lease.map(|lease| lease.id);
        if self.is_member && self.joined.is_none() {
            self.begin()?;
        }
        Ok(self.is_member)
    }

    fn claim(&mut self) -> io::Result<bool> {
        let (member, holder) = (Topic::Member(self.me.node), Topic::Holder(self.me.node));
        let compare = [member, holder, Topic::Terms].map(|topic| self.view.unchanged(topic)).to_vec();
        let terms = Op::put(self.view.keys.of(Topic::Terms), encode(&self.terms, Vec::new()), 0);
        let success = vec![self.put_me(member), self.put_me(holder), terms];
        Ok(self.txn(&Txn { compare, success })?.succeeded)
    }

    /// Gives all slots of this node new epochs, those of this life, and takes those that it claims and nobody owns.
    fn begin(&mut self) -> io::Result<()> {
        let (node, epoch) = (self.me.node, self.view.slots.revision() + 1);
        loop {
            let old = |slot: &u16| self.view.slots.line(*slot).epoch < epoch;
            let free = |slot: &u16| self.view.slots.owner(*slot).is_none();
            let claimed = self.claims.iter().copied().filter(free);
            let lines: Vec<(u16, NodeId)> =
                self.view.slots.slots_of(node).filter(old).chain(claimed).map(|slot| (slot, node)).collect();
            if lines.is_empty() {
                break;
            }
            if self.lease.is_none_or(|lease| lease.until <= Instant::now()) {
                return Err(io::Error::other("it was too slow for the lease"));
            }
            self.write(&lines)?;
        }
        (self.joined, self.said) = (Some(epoch), None);
        self.say([Event::Joined { epoch }]);
        Ok(())
    }

    fn not_joined(&mut self, why: Refusal) {
        self.fence();
        if self.said.as_ref() != Some(&why) {
            self.said = Some(why.clone());
            self.say([Event::NotJoined(why)]);
        }
    }

    fn loads(&self) -> Loads {
        let now = Instant::now();
        // What this node has to tell of itself is not written yet.
        let told = self.view.members.get(self.me.node).map_or(0, |told| told.users);
        let untold = |node| if node == self.me.node { u64::from(self.me.users.saturating_sub(told)) } else { 0 };
        let given = |node| self.given.get(&node).filter(|(_, until)| *until > now).map_or(0, |(given, _)| *given) + untold(node);
        Loads::new(&self.view.members, given).least(TXN_NODES)
    }

    /// Writes what is wanted of the table: owners for slots that have none, and for those of nodes that are gone.
    fn work(&mut self) -> io::Result<()> {
        if self.joined.is_none() || !self.is_member {
            return Ok(());
        }
        if self.rebalances && Instant::now() >= self.counted_at {
            self.rebalance();
        }
        let mut loads = self.loads();
        let mut lines: BTreeMap<u16, NodeId> = BTreeMap::new();
        if self.terms.take_over && self.is_first() {
            let is_lost = |member: &&Member| !member.is_there() && self.view.slots.count(member.node) > 0;
            let lost = self.view.members.iter().filter(is_lost).take(TXN_LOST);
            lines.extend(lost.flat_map(|lost| choose::take_over(&self.view.slots, lost, &mut loads)).collect::<Vec<_>>());
        }
        let is_there = |node: NodeId| self.view.lease(node).is_some();
        let moves = std::mem::take(&mut self.moves).into_iter();
        let (here, gone): (Vec<_>, Vec<_>) = moves.partition(|(_, node)| is_there(*node));
        self.wanted.extend(gone.iter().map(|(slot, _)| *slot));
        lines.extend(here);
        let wanted: Vec<u16> = self.wanted.iter().copied().collect();
        let assigned = choose::assign(&self.view.slots, wanted.iter().copied(), &mut loads);
        let until = Instant::now() + self.terms.lease();
        for (_, node) in &assigned {
            let (given, over) = self.given.entry(*node).or_insert((0, until));
            *given = if *over > Instant::now() { *given + 1 } else { 1 };
            *over = until;
        }
        if assigned.is_empty() && !wanted.is_empty() {
            self.wanted.clear();
            self.say(wanted.into_iter().map(|slot| Event::Refused(Command::Assign(slot), Refusal::NobodyServes)));
        }
        // What was moved may be wanted, too.
        assigned.into_iter().for_each(|(slot, node)| _ = lines.entry(slot).or_insert(node));
        let lines: Vec<(u16, NodeId)> = lines.into_iter().collect();
        let written = self.write(&lines);
        // What was in the way is known now: what is left is tried again with the next beat.
        self.wanted.extend(lines.iter().map(|(slot, _)| *slot).filter(|slot| self.view.slots.owner(*slot).is_none()));
        written
    }

    /// The one that takes over, so that not all of them try.
    fn is_first(&self) -> bool {
        self.view.members.iter().find(|member| member.is_there()).is_some_and(|first| first.node == self.me.node)
    }

    /// Writes lines of the table, some blocks at a time. What has changed meanwhile is listed, and not written over.
    fn write(&mut self, lines: &[(u16, NodeId)]) -> io::Result<()> {
        let epoch = self.view.slots.revision() + 1;
        let blocks: Vec<(u8, Vec<(u16, NodeId)>)> = by_block(lines).into_iter().collect();
        for chunk in blocks.chunks(TXN_BLOCKS) {
            if !self.is_member {
                return Err(io::Error::other("this node's lease is over"));
            }
            let line = |(slot, node): &(u16, NodeId)| Assignment { slot: *slot, node: *node, epoch };
            let lines: Vec<Assignment> = chunk.iter().flat_map(|(_, lines)| lines.iter().map(line)).collect();
            let parties = lines.iter().flat_map(|line| [line.node, self.view.slots.line(line.slot).node]);
            let parties: BTreeSet<NodeId> = parties.chain([self.me.node]).filter(|node| *node != NOBODY).collect();
            let held = parties.into_iter().map(|node| self.view.held(node));
            let unchanged = chunk.iter().map(|(block, _)| self.view.unchanged(Topic::Owners(*block)));
            let put = |(block, _): &(u8, _)| Op::put(self.view.keys.of(Topic::Owners(*block)), self.view.block(*block, &lines), 0);
            let txn = Txn { compare: held.chain(unchanged).collect(), success: chunk.iter().map(put).collect() };
            let done = self.txn(&txn)?;
            if !done.succeeded {
                return self.list();
            }
            let blocks: Vec<u8> = chunk.iter().map(|(block, _)| *block).collect();
            let event = self.view.wrote(&blocks, &lines, done.header.revision.0);
            self.heard(vec![event]);
        }
        Ok(())
    }

    /// Gives this node's part of what would be moved away: it stops owning those slots before it writes who is to have them.
    fn rebalance(&mut self) {
        self.rebalances = false;
        let owns = |slot: u16| self.view.slots.owner(slot).is_some_and(|(node, _)| node == self.me.node);
        let moves = choose::rebalance(&self.view.slots, &self.loads());
        self.moves = moves.into_iter().filter(|(slot, _)| owns(*slot)).collect();
        if !self.moves.is_empty() {
            self.counted_at = Instant::now() + self.terms.lease();
        }
        let epoch = self.view.slots.revision() + 1;
        let lines: Vec<Assignment> = self.moves.keys().map(|slot| Assignment { slot: *slot, node: NOBODY, epoch }).collect();
        let event = self.view.assign(&lines);
        self.say([event]);
    }

    fn forget(&mut self, node: NodeId) -> Result<(), Refusal> {
        let away = |error: io::Error| Refusal::Away(error.to_string());
        match self.view.members.get(node) {
            None => return Err(Refusal::Unknown(node)),
            Some(member) if member.is_there() => return Err(Refusal::StillThere(node)),
            Some(_) => {}
        }
        let lines: Vec<(u16, NodeId)> = self.view.slots.slots_of(node).map(|slot| (slot, NOBODY)).collect();
        self.write(&lines).map_err(away)?;
        if self.view.slots.count(node) > 0 {
            return Err(away(io::Error::other("the table was changed meanwhile: try again")));
        }
        let compare = vec![self.view.unchanged(Topic::Member(node)), self.view.held(self.me.node)];
        let success = vec![Op::delete(self.view.keys.of(Topic::Holder(node)))];
        match self.txn(&Txn { compare, success }).map_err(away)?.succeeded {
            true => Ok(()),
            false => Err(Refusal::StillThere(node)),
        }
    }
}

/// How long a lease of so many seconds surely holds, from when it was asked for.
fn own(seconds: i64) -> Duration {
    let ms = u32::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    Terms { lease_ms: ms, take_over: false }.own_lease()
}
