//! Which slots this node has, of those that the table gives it, where nodes share a database and take users over.
//!
//! Lives on: the thread `fanal-owners`. Serves M1, Z4, Z13, R7. A slot that is given to this node is taken in the database (so that
//! whoever had it before writes nothing more), its users' rows are loaded, a page at a time, and then it's open. When it's taken
//! away, or the lease is lost, it's closed at once, and then given up there, so that the next one need not wait. Invariants: cores
//! are told of a slot as their own only while it's open; nothing is taken while a core has still to give something up, so what a
//! core writes is written under the epoch that it was made in; rows under way are those of one page; a node whose place in the
//! database another process has had, though its lease holds, finds out within a lease and begins anew.

use crate::base::id::{NodeId, home_of_slot, slot_of};
use crate::base::map::{self, COMING};
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::ownership::{Assignment, Event, NOBODY, Slots, Terms};
use crate::shard::Row;
use crate::shard::batch::Order;
use crate::store::rows::{self, Row as _, slot_of_key};
use crate::store::shared::{Page, Place, Reply, Request};
use crate::store::thread::Port;
use crate::store::{Commit, Durability, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What the database refused is asked again after this long.
const RETRY: Duration = Duration::from_millis(500);

/// And what another node has not given up yet after this long.
const HELD_RETRY: Duration = Duration::from_millis(50);

/// Slots that are being taken.
struct Taking {
    slots: BTreeSet<u16>,
    /// Known once they are taken.
    epoch: Option<u32>,
    /// Whoever was replaced may act until then.
    not_before: Time,
    /// What is to be read next; a table's number may be behind the last.
    table: usize,
    from: Place,
}

pub(super) struct Tenure {
    node: NodeId,
    cores: u16,
    terms: Terms,
    port: Port,
    table: Slots,
    /// From which epoch on what is assigned to this node counts; `None`: nothing does.
    joined: Option<u32>,
    open: BTreeSet<u16>,
    /// Slots that had users when this node started.
    inhabited: BTreeSet<u16>,
    /// Slots that somebody has given up, and whose users need a home.
    wanted: Vec<u16>,
    /// Nodes that are gone, ...
    gone: BTreeSet<NodeId>,
    /// ... and slots that came from one.
    lost: BTreeSet<u16>,
    /// Since when somebody who is there has not given up what this node is to have.
    held: BTreeMap<u16, Time>,
    /// What is closed, and has to be given up in the database.
    giving: BTreeSet<u16>,
    /// What it's asked to take as given up.
    given: BTreeSet<u16>,
    /// Rows of these can't be read.
    damaged: BTreeSet<u16>,
    taking: Option<Taking>,
    /// The database has been asked something; what it says is of use.
    asked: Option<bool>,
    /// When it was asked last whether somebody has taken this node's place, and when nobody had.
    confirming: Time,
    confirmed: Option<Time>,
    /// Somebody has.
    is_replaced: bool,
    /// Orders that cores have not carried out yet.
    undone: usize,
    /// What this node had before is void: the database has to know.
    is_new: bool,
    retry_at: Time,
    /// Whether it's known that the database can't be asked.
    failing: bool,
    orders: Vec<(usize, Order)>,
    has_news: bool,
}

impl Tenure {
    pub fn new(node: NodeId, cores: u16, terms: Terms, inhabited: BTreeSet<u16>, port: Port) -> Tenure {
        Tenure {
            node,
            cores,
            terms,
            port,
            table: Slots::default(),
            joined: None,
            open: BTreeSet::new(),
            wanted: inhabited.iter().copied().collect(),
            inhabited,
            gone: BTreeSet::new(),
            lost: BTreeSet::new(),
            held: BTreeMap::new(),
            giving: BTreeSet::new(),
            given: BTreeSet::new(),
            damaged: BTreeSet::new(),
            taking: None,
            asked: None,
            confirming: Time::ZERO,
            confirmed: None,
            is_replaced: false,
            undone: 0,
            is_new: false,
            retry_at: Time::ZERO,
            failing: false,
            orders: Vec::new(),
            has_news: false,
        }
    }

    /// Whom the cores are told of as the owner of each slot.
    pub fn owners(&self) -> Arc<[NodeId]> {
        let own = |slot: u16| if self.open.contains(&slot) { self.node } else { COMING };
        let shown = |slot: u16| match self.table.line(slot) {
            line if line.node == self.node => own(slot),
            // There are users in it, whose next home is not known yet: what is for them waits.
            line if line.node == NOBODY && (line.epoch > 0 || self.inhabited.contains(&slot)) => COMING,
            line => line.node,
        };
        (0..=u16::MAX).map(shown).collect()
    }

    /// What is to be told to cores, in this order; and whether there are other owners to tell them of behind it.
    pub fn take(&mut self) -> (Vec<(usize, Order)>, bool) {
        (std::mem::take(&mut self.orders), std::mem::take(&mut self.has_news))
    }

    /// Slots that need an owner.
    pub fn take_wanted(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.wanted)
    }

    /// When to call `go_on` at the latest; and `confirm`, if that is wanted from some time on. What is under way says itself when
    /// it's done.
    pub fn next(&self, confirm_at: Time) -> Time {
        if !self.is_free() {
            return Time::MAX;
        }
        let retry = if self.retry_at > Time::ZERO { self.retry_at } else { Time::MAX };
        retry.min(confirm_at.max(self.confirming + self.terms.confirm_every()))
    }

    /// Has the database asked whether somebody has taken this node's place, if that is not too soon after the last time.
    pub fn confirm(&mut self, now: Time) {
        if self.is_free() && now >= self.confirming + self.terms.confirm_every() {
            self.confirming = now;
            self.ask(Request::Confirm);
        }
    }

    /// Nothing is under way, at the database or at a core.
    fn is_free(&self) -> bool {
        self.asked.is_none() && self.undone == 0
    }

    /// Somebody has taken this node's place though it counted itself its holder: it stores nothing until it has joined anew.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.is_replaced)
    }

    /// When nobody had.
    pub fn take_confirmed(&mut self) -> Option<Time> {
        self.confirmed.take()
    }

    /// The coordination engine says something.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Joined { epoch } => self.joined = Some(*epoch),
            Event::Fenced => {
                tracing::warn!("the cluster: this node's lease is lost, and with it its users: others may have them");
                self.joined = None;
                self.is_new = true;
                self.giving.clear();
                self.give_up(Reason::HomeOutOfReach);
            }
            Event::Changed(lines) => self.change(lines),
            Event::Member(member) => {
                match member.is_there() {
                    true => self.gone.remove(&member.node),
                    false => self.gone.insert(member.node),
                };
                return;
            }
            _ => return,
        }
        self.has_news = true;
    }

    fn change(&mut self, lines: &[Assignment]) {
        let (mut lost, mut anew) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            let before = self.table.line(line.slot);
            if line.node != self.node && self.forget(line.slot) {
                lost.insert(line.slot);
            }
            if line.node == NOBODY {
                self.wanted.push(line.slot);
            }
            if line.node != before.node {
                match line.node == self.node && self.gone.contains(&before.node) {
                    true => self.lost.insert(line.slot),
                    false => self.lost.remove(&line.slot),
                };
            }
            if line.node == before.node && before.epoch < line.epoch {
                anew.insert(line.slot);
            }
        }
        self.table.merge(lines);
        self.close(lost, Reason::HomeOutOfReach);
        if !anew.is_empty() {
            let slots = set_of(&anew);
            self.orders.extend((0..self.cores.into()).map(|core| (core, Order::Anew(slots.clone()))));
        }
    }

    /// A slot is another's now; in the database it may be this node's, or come to be. True: cores may have users of it.
    fn forget(&mut self, slot: u16) -> bool {
        let taking = self.taking.as_mut();
        let is_taken = taking.and_then(|taking| taking.slots.remove(&slot).then_some(taking.epoch.is_some()));
        let was_open = self.open.remove(&slot);
        if was_open || is_taken.is_some() {
            self.giving.insert(slot);
        }
        was_open || is_taken == Some(true)
    }

    /// All that this node has, it has no longer.
    pub fn give_up(&mut self, reason: Reason) {
        let mut slots = std::mem::take(&mut self.open);
        slots.extend(self.taking.take().into_iter().filter(|taking| taking.epoch.is_some()).flat_map(|taking| taking.slots));
        self.asked = self.asked.map(|_| false);
        self.close(slots, reason);
    }

    fn close(&mut self, slots: BTreeSet<u16>, reason: Reason) {
        if slots.is_empty() {
            return;
        }
        let slots = set_of(&slots);
        self.orders.extend((0..self.cores.into()).map(|core| (core, Order::GiveUp { slots: slots.clone(), reason })));
        self.undone += usize::from(self.cores);
    }

    /// A core has done what it was told.
    pub fn caught_up(&mut self) {
        self.undone -= 1;
    }

    pub fn is_caught_up(&self) -> bool {
        self.undone == 0
    }

    pub fn unreadable(&mut self, slot: u16, why: &str) {
        if !self.damaged.insert(slot) {
            return;
        }
        let fix = "restore the database from a backup, or delete the row, and start this node again";
        tracing::error!("{why}. The users of slot {slot} can't be served: {fix}");
    }

    /// Goes on with what is being taken.
    pub fn go_on(&mut self, now: Time) {
        while let Some(reply) = self.port.take_reply() {
            if self.asked.take() == Some(true) {
                self.replied(now, reply);
            }
        }
        if !self.is_free() || now < self.retry_at {
            return;
        }
        self.retry_at = Time::ZERO;
        if self.taking.is_none() && now >= self.confirming + self.terms.lease() {
            return self.confirm(now);
        }
        if !self.giving.is_empty() {
            self.given = std::mem::take(&mut self.giving);
            return self.ask(Request::Give { slots: self.given.iter().copied().collect() });
        }
        if self.taking.is_none() {
            self.begin(now);
        }
        self.read_on(now);
    }

    /// Takes what was given to this node and is not open.
    fn begin(&mut self, now: Time) {
        let Some(since) = self.joined else { return };
        let counts = |slot: &u16| self.table.line(*slot).epoch >= since && !self.open.contains(slot);
        let slots = self.table.slots_of(self.node).filter(counts).filter(|slot| !self.damaged.contains(slot));
        let (slots, force) = self.due(now, slots.collect());
        if let Some(&first) = slots.first() {
            let request = Request::Take { slots: slots.iter().copied().collect(), anew: self.is_new, force };
            self.ask(request);
            self.taking = Some(Taking { slots, epoch: None, not_before: Time::ZERO, table: 0, from: start(Table::ALL[0], first) });
        }
    }

    /// Which of these are taken now, and whether by force: those whose node is gone, or has not given them up for a lease. What a
    /// node that is there has to give up first does not hold them up.
    fn due(&mut self, now: Time, slots: BTreeSet<u16>) -> (BTreeSet<u16>, bool) {
        self.held.retain(|slot, _| slots.contains(slot));
        let is_late = |slot: &u16| self.held.get(slot).is_some_and(|since| now >= *since + self.terms.lease());
        let forced: BTreeSet<u16> = slots.iter().copied().filter(|slot| self.lost.contains(slot) || is_late(slot)).collect();
        if forced.is_empty() { (slots, false) } else { (forced, true) }
    }

    fn ask(&mut self, request: Request) {
        self.asked = self.port.ask(request).then_some(true);
    }

    fn replied(&mut self, now: Time, reply: Reply) {
        let (taking, failed) = match (self.taking.take(), reply) {
            (taking, Reply::Confirmed(said)) => {
                self.confirmed = (said == Ok(true)).then_some(self.confirming);
                self.is_replaced = said == Ok(false) && self.joined.is_some() && !self.is_new;
                (taking, None)
            }
            (taking, Reply::Given(said)) => {
                if said.is_err() {
                    self.giving.append(&mut self.given);
                }
                (taking, said.err())
            }
            (taking, Reply::Taken(Ok(None))) => {
                let held = taking.into_iter().flat_map(|taking| taking.slots);
                held.for_each(|slot| _ = self.held.entry(slot).or_insert(now));
                self.retry_at = now + HELD_RETRY;
                (None, None)
            }
            (Some(taking), Reply::Taken(Ok(Some((epoch, replaces))))) => {
                self.is_new = false;
                self.lost.retain(|slot| !taking.slots.contains(slot));
                self.held.retain(|slot, _| !taking.slots.contains(slot));
                let not_before = if replaces { now + self.terms.before_acting() } else { now };
                (Some(Taking { epoch: Some(epoch), not_before, ..taking }), None)
            }
            (Some(taking), Reply::Page(Ok(page))) => (Some(self.distribute(taking, page)), None),
            // Nothing was taken, and the table may have changed.
            (_, Reply::Taken(Err(why))) => (None, Some(why)),
            (taking, Reply::Page(Err(why))) => (taking, Some(why)),
            (None, _) => (None, None),
        };
        self.taking = taking;
        if let Some(why) = failed {
            self.retry_at = now + RETRY;
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!("users can't be taken over, and it's tried again: {why}");
            }
        }
    }

    /// Asks for the next page; when there is none, the slots are open.
    fn read_on(&mut self, now: Time) {
        let Some(taking) = self.taking.as_ref().filter(|taking| taking.epoch.is_some()) else { return };
        if let Some(&table) = Table::ALL.get(taking.table) {
            let last = match table {
                Table::Ways => u16::MAX,
                _ => taking.slots.last().copied().unwrap_or_default(),
            };
            let from = taking.from.clone();
            return self.ask(Request::Page { table, from, last });
        }
        if now < taking.not_before {
            self.retry_at = taking.not_before;
            return;
        }
        let Taking { slots, .. } = self.taking.take().expect("just looked");
        self.failing = false;
        self.open.extend(slots.difference(&self.damaged));
        self.has_news = true;
    }

    /// Gives each core the rows of its users.
    fn distribute(&mut self, mut taking: Taking, page: Page) -> Taking {
        let (table, epoch) = (Table::ALL[taking.table], taking.epoch.expect("taken before it's read"));
        let mut parts: BTreeMap<u16, Vec<Row>> = BTreeMap::new();
        for (key, value) in page.rows {
            if let Some(slot) = wanted_at(table, &key, &value, &taking.slots) {
                parts.entry(home_of_slot(slot, self.cores).0).or_default().push((table, key, value));
            }
        }
        for (core, rows) in parts {
            self.orders.push((core.into(), Order::Take { epoch, rows }));
            self.undone += 1;
        }
        // Slots of others are passed over.
        let next = page.next.and_then(|place| match table {
            Table::Ways => Some(place),
            _ if taking.slots.contains(&place.slot) => Some(place),
            _ => taking.slots.range(place.slot..).next().map(|&slot| start(table, slot)),
        });
        match next {
            Some(place) => taking.from = place,
            None => {
                taking.table += 1;
                let first = taking.slots.first().copied().unwrap_or_default();
                taking.from = start(Table::ALL.get(taking.table).copied().unwrap_or(table), first);
            }
        }
        taking
    }

    /// Something that is stored behind all that cores have handed over before; `is_stored` says when it is.
    pub fn store_nothing(&mut self) -> bool {
        self.port.hand_over(Commit { ticket: 0, writes: Vec::new(), durability: Durability::Synced }).is_ok()
    }

    pub fn is_stored(&mut self) -> bool {
        self.port.take().is_some()
    }
}

/// Where a table is read from. Ways of all users are looked at, for the receivers' sake.
fn start(table: Table, first: u16) -> Place {
    Place { slot: if table == Table::Ways { 0 } else { first }, behind: Vec::new() }
}

/// At which user's home a row is wanted, of those in these slots. A way that has arrived is its receiver's, too: it may come again.
fn wanted_at(table: Table, key: &[u8], value: &[u8], slots: &BTreeSet<u16>) -> Option<u16> {
    let slot = slot_of_key(table, key)?;
    if slots.contains(&slot) || table != Table::Ways {
        return Some(slot).filter(|slot| slots.contains(slot));
    }
    let receiver = slot_of(rows::split_way(key).ok()?.1);
    let has_arrived = rows::Way::decode(value).is_ok_and(|way| way.arrived.is_some());
    Some(receiver).filter(|slot| has_arrived && slots.contains(slot))
}

fn set_of(slots: &BTreeSet<u16>) -> Arc<map::Slots> {
    Arc::new(map::Slots::of(|slot| slots.contains(&slot)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::UserId;
    use crate::base::jid::Bare;
    use crate::store::memory::Memory;
    use crate::store::thread::StorageThread;

    /// Z4: the database may be slow, or refuse at once.
    #[test]
    fn z4_the_database_is_asked_for_confirmation_at_a_pace_and_waited_for_without_turning() {
        let terms = Terms { lease_ms: 1_600, take_over: true };
        let (_thread, mut ports) = StorageThread::start(Box::new(Memory::default()), vec![Box::new(|| {})]).unwrap();
        let mut tenure = Tenure::new(NodeId(1), 1, terms, BTreeSet::new(), ports.pop().unwrap());
        let after = |ms: u64| Time::ZERO + Duration::from_millis(10_000 + ms);
        for round in [0, 100, 200] {
            assert!(tenure.next(Time::ZERO) <= after(round), "it's time");
            tenure.confirm(after(round));
            assert_eq!(tenure.next(Time::ZERO), Time::MAX, "the answer wakes it");
            while !tenure.is_free() {
                tenure.go_on(after(round));
            }
            tenure.confirm(after(round + 99));
            assert!(tenure.is_free() && tenure.next(Time::ZERO) == after(round + 100), "too soon");
        }
        assert_eq!((tenure.next(Time::MAX), tenure.next(after(500))), (Time::MAX, after(500)));
    }

    /// M1: force ends the place of whoever has a slot.
    #[test]
    fn m1_what_one_node_has_held_for_too_long_is_no_reason_to_take_another_ones_slots_by_force() {
        let terms = Terms { lease_ms: 1_600, take_over: true };
        let (_thread, mut ports) = StorageThread::start(Box::new(Memory::default()), vec![Box::new(|| {})]).unwrap();
        let mut tenure = Tenure::new(NodeId(1), 1, terms, BTreeSet::new(), ports.pop().unwrap());
        let at = |ms: u64| Time::ZERO + Duration::from_millis(ms);
        let mut held = |now: u64, slots: &[u16]| {
            let (slots, force) = tenure.due(at(now), slots.iter().copied().collect());
            let taking = Taking { slots: slots.clone(), epoch: None, not_before: at(0), table: 0, from: start(Table::Ways, 0) };
            tenure.taking = Some(taking);
            tenure.replied(at(now), Reply::Taken(Ok(None)));
            (slots, force)
        };
        assert_eq!(held(0, &[5]), ([5].into(), false));
        assert_eq!(held(1_000, &[5, 6]), ([5, 6].into(), false));
        assert_eq!(held(1_700, &[5, 6]), ([5].into(), true), "6 has not been waited for so long");
        assert_eq!(held(2_000, &[6]), ([6].into(), false), "5 is for another node by now");
        assert_eq!(held(2_100, &[]), ([].into(), false));
        assert_eq!(held(2_700, &[5, 6]), ([5, 6].into(), false), "it begins anew");
    }

    #[test]
    fn m1_a_way_goes_to_its_senders_home_and_one_that_has_arrived_to_its_receivers() {
        let [ann, bob] = ["ann@d", "bob@d"].map(|name| Bare::new(name).unwrap());
        let [ann_slot, bob_slot] = [&ann, &bob].map(|jid| slot_of(jid.as_str()));
        let (key, nobody) = (rows::way_key(&ann, &bob, 1), UserId::NOBODY);
        let row = |arrived| {
            let (note, extensions) = (String::new(), String::new());
            rows::Way { kind: 0, note, from_user: nobody, to_user: nobody, arrived, extensions }.encode()
        };
        let at = |arrived, slots: &[u16]| wanted_at(Table::Ways, &key, &row(arrived), &slots.iter().copied().collect());
        assert_eq!([at(None, &[ann_slot]), at(None, &[ann_slot, bob_slot])], [Some(ann_slot); 2]);
        assert_eq!([at(Some(3), &[bob_slot]), at(None, &[bob_slot]), at(Some(3), &[])], [Some(bob_slot), None, None]);
        let other = rows::pair_key(&ann, &bob);
        assert_eq!(wanted_at(Table::Roster, &other, b"", &[bob_slot].into()), None);
        assert_eq!(wanted_at(Table::Meta, rows::EPOCH_KEY, b"", &[0].into()), None, "it's the deployment's");
    }
}
