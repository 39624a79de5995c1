//! The embedded engine: one node keeps the table in its store, and the others ask it.
//!
//! Lives on: the coordination thread of the node with the lowest configured number. Serves Z1, Z4, M1, R7's watching. Pure.
//! Invariants: nothing is told before it's stored; one commit is under way at a time, and what is asked for meanwhile goes into
//! the next; a slot that was given up is assigned again when every node that is there knows of that; whoever is in the stored
//! members is believed to hold a lease when a coordinator starts.

use super::Terms;
use super::choose::{self, Loads};
use super::members::{Life, MEMBERS, Member, Members, Refusal, State};
use super::message::{Ask, Tell, Wish};
use super::plan::{Plan, Stored};
use super::slots::{DELTA_ASSIGNMENTS, NOBODY, Slots};
use crate::base::id::NodeId;
use crate::base::time::Time;
use crate::store::Write;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Pause after a commit that failed, before the next one.
pub const RETRY: Duration = Duration::from_secs(1);
/// Members in one message.
const MEMBERS_PART: usize = 64;

/// What a coordinator wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Tell {
        to: NodeId,
        tell: Tell,
    },
    /// One synced commit; `stored` must be called with what became of it.
    Store(Vec<Write>),
}

/// What is known of a member that may be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lease {
    until: Time,
    /// Its assignments count from this epoch on. `None`: it joined an earlier life of the coordinator.
    epoch: Option<u32>,
    /// It knows the table up to this revision, ...
    revision: u32,
    /// ... and was sent it up to this one.
    sent: u32,
}

/// What was asked for and is not in a plan yet.
#[derive(Default)]
struct Waiting {
    joins: BTreeMap<NodeId, (Member, u64, u32)>,
    slots: BTreeSet<u16>,
    /// Slots whose users' rows a node has.
    claims: BTreeMap<u16, NodeId>,
    /// Who is to be forgotten, and who asked for it.
    forget: BTreeMap<NodeId, NodeId>,
    rebalance: Option<NodeId>,
    /// Slots that were given up for another node.
    moves: BTreeMap<u16, NodeId>,
}

/// The machine.
pub struct Coordinator {
    terms: Terms,
    /// The start of this life, and how often the members have changed in it.
    stamp: (u64, u64),
    slots: Slots,
    members: Members,
    leases: BTreeMap<NodeId, Lease>,
    waiting: Waiting,
    writing: Option<Plan>,
    retry_at: Time,
    /// When all have told how many users they have since slots were moved last: nothing is shared out anew before.
    counted_at: Time,
    /// Users that newly assigned slots will bring a node, until it has told of as many more, or for the time of a lease.
    given: BTreeMap<NodeId, (u64, Time)>,
    out: Vec<Output>,
}

impl Coordinator {
    /// Goes on from what was stored. `start` grows with each start.
    pub fn new(now: Time, terms: Terms, start: u64, stored: Stored) -> Coordinator {
        let Stored { slots, members } = stored;
        let lease = Lease { until: now + terms.lease(), epoch: None, revision: 0, sent: 0 };
        Coordinator {
            terms,
            stamp: (start, 1),
            leases: members.iter().map(|member| (member.node, lease)).collect(),
            slots,
            members,
            waiting: Waiting::default(),
            writing: None,
            retry_at: Time::ZERO,
            counted_at: Time::ZERO,
            given: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    /// The table as it's stored.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    /// What is to be done, in this order.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }

    /// When to call `tick` at the latest.
    pub fn next(&self) -> Time {
        let retry = if self.writing.is_none() && self.retry_at > Time::ZERO { self.retry_at } else { Time::MAX };
        let rebalance = if self.is_waited_for() { self.counted_at.max(self.retry_at) } else { Time::MAX };
        self.leases.values().map(|lease| lease.until).fold(retry.min(rebalance), Time::min)
    }

    /// Takes what the follower of a node asks.
    pub fn ask(&mut self, now: Time, from: NodeId, ask: Ask) {
        match ask {
            Ask::Join { member, terms, revision, sent } => self.join(now, from, member, terms, revision, sent),
            Ask::Beat { life, sent, revision, members, users, free, draining } => {
                if self.holds(now, from, life) {
                    self.beat(now, from, (users, free, draining), revision, members);
                    self.tell(from, Tell::Held { life, sent });
                } else {
                    self.tell(from, Tell::Rejoin { life });
                }
            }
            Ask::Assign { life, slots } if self.holds(now, from, life) => self.waiting.slots.extend(slots),
            Ask::Claim { life, slots } if self.holds(now, from, life) => {
                slots.into_iter().for_each(|slot| _ = self.waiting.claims.entry(slot).or_insert(from));
            }
            Ask::Leave { life } if self.holds(now, from, life) => self.lose(from),
            Ask::Rebalance { life } if self.holds(now, from, life) => self.waiting.rebalance = Some(from),
            Ask::Forget { life, node } if self.holds(now, from, life) => _ = self.waiting.forget.insert(node, from),
            // Whoever does not hold a lease hears so on its next beat.
            Ask::Assign { .. } | Ask::Claim { .. } | Ask::Leave { .. } | Ask::Rebalance { .. } | Ask::Forget { .. } => {}
        }
        self.tick(now);
    }

    /// Lets leases run out, and plans what can be done now.
    pub fn tick(&mut self, now: Time) {
        let over = |(node, lease): (&NodeId, &Lease)| (lease.until <= now).then_some(*node);
        for node in self.leases.iter().filter_map(over).collect::<Vec<_>>() {
            self.lose(node);
        }
        if self.writing.is_some() || now < self.retry_at {
            return;
        }
        self.retry_at = Time::ZERO;
        let plan = self.plan(now);
        if !plan.is_empty() {
            self.out.push(Output::Store(plan.writes(&self.slots)));
            self.writing = Some(plan);
        }
    }

    /// What became of the commit.
    ///
    /// # Panics
    /// When none is under way.
    pub fn stored(&mut self, now: Time, result: Result<(), String>) {
        let plan = self.writing.take().expect("one commit was asked for");
        match result {
            Ok(()) => self.carry_out(now, plan),
            Err(why) => self.give_up(now, plan, &why),
        }
        self.tick(now);
    }

    fn tell(&mut self, to: NodeId, tell: Tell) {
        self.out.push(Output::Tell { to, tell });
    }

    /// Whether this life is the member of this number and may go on. Where nobody takes over, one that was gone may.
    fn holds(&mut self, now: Time, node: NodeId, life: Life) -> bool {
        let terms = self.terms;
        let Some(member) = self.members.get_mut(node).filter(|member| member.life == life) else { return false };
        let lease = self.leases.get(&node).is_some_and(|lease| lease.until > now);
        if lease || terms.take_over {
            return lease && member.is_there();
        }
        member.state = State::Serving;
        self.leases.insert(node, Lease { until: now + terms.lease(), epoch: None, revision: 0, sent: 0 });
        self.tell_members();
        true
    }

    fn join(&mut self, now: Time, from: NodeId, member: Member, terms: Terms, revision: u32, sent: u64) {
        let life = member.life;
        let same = self.members.get(from).filter(|old| old.life == life);
        let lease = self.leases.get_mut(&from).filter(|lease| lease.until > now);
        if let (Some(_), Some(Lease { until, epoch: Some(epoch), .. })) = (same, lease) {
            // It asks again: it may not have heard the answer.
            *until = now + self.terms.lease();
            let epoch = *epoch;
            return self.tell(from, Tell::Welcome { life, sent, epoch });
        }
        let other = self.waiting.joins.get(&from).map(|(other, ..)| other).filter(|other| !life.follows(other.life));
        let refusal = match other {
            _ if member.node != from => Some(Refusal::Malformed),
            _ if terms != self.terms => Some(Refusal::Terms(self.terms)),
            _ if revision > self.slots.revision() => Some(Refusal::TableLost),
            Some(other) => Some(Refusal::NumberInUse { node: from, by: other.link }),
            None => self.members.admit(&member, &self.slots, terms.take_over).err(),
        };
        match refusal {
            Some(why) => self.tell(from, Tell::NotJoined { life, why }),
            None => _ = self.waiting.joins.insert(from, (member, sent, revision)),
        }
    }

    fn beat(&mut self, now: Time, from: NodeId, load: (u32, u32, bool), revision: u32, members: (u64, u64)) {
        let Some((member, lease)) = self.members.get_mut(from).zip(self.leases.get_mut(&from)) else { return };
        let state = if load.2 { State::Draining } else { State::Serving };
        let is_new = std::mem::replace(&mut member.state, state) != state;
        if let Some((given, until)) = self.given.get_mut(&from) {
            let told = u64::from(load.0.saturating_sub(member.users));
            *given = if now < *until { given.saturating_sub(told) } else { 0 };
        }
        (member.users, member.free) = (load.0, load.1);
        lease.until = now + self.terms.lease();
        // What is on its way now will be known by the next beat.
        let missed = revision == lease.revision && revision < self.slots.revision();
        lease.revision = revision;
        lease.sent = if missed { revision } else { lease.sent.max(revision) };
        self.send_table(from);
        if is_new {
            self.tell_members();
        } else if members != self.stamp {
            self.tell_members_to(from);
        }
    }

    fn lose(&mut self, node: NodeId) {
        self.leases.remove(&node);
        self.given.remove(&node);
        if let Some(member) = self.members.get_mut(node) {
            member.state = State::Gone;
            self.tell_members();
        }
    }

    fn plan(&mut self, now: Time) -> Plan {
        let Some(epoch) = self.slots.revision().checked_add(1) else {
            self.refuse_all(&Refusal::Exhausted);
            return Plan::default();
        };
        let mut plan = Plan::new(epoch);
        for (node, (member, sent, revision)) in std::mem::take(&mut self.waiting.joins) {
            let life = member.life;
            match self.members.admit(&member, &self.slots, self.terms.take_over) {
                Ok(()) => {
                    plan.assign(self.slots.slots_of(node).map(|slot| (slot, node)));
                    plan.joins.push((Member { state: State::Serving, ..member }, sent, revision));
                }
                Err(why) => self.tell(node, Tell::NotJoined { life, why }),
            }
        }
        self.plan_forgetting(&mut plan);
        let mut loads = Loads::new(&self.members, |node| self.given.get(&node).map_or(0, |(given, _)| *given));
        if self.terms.take_over {
            let owns = |member: &&Member| !member.is_there() && self.slots.count(member.node) > 0;
            for lost in self.members.iter().filter(owns).filter(|lost| !plan.joins(lost.node)).collect::<Vec<_>>() {
                plan.assign(choose::take_over(&self.slots, lost, &mut loads));
            }
        }
        let claims = std::mem::take(&mut self.waiting.claims);
        plan.assign(claims.into_iter().filter(|(slot, _)| self.slots.owner(*slot).is_none()));
        self.plan_moves(now, &mut plan);
        self.plan_assigning(now, &mut plan, &mut loads);
        self.plan_rebalancing(now, &mut plan, &loads);
        plan
    }

    fn plan_forgetting(&mut self, plan: &mut Plan) {
        for (node, by) in std::mem::take(&mut self.waiting.forget) {
            let why = match self.members.get(node) {
                None => Some(Refusal::Unknown(node)),
                Some(member) => (member.is_there() || plan.joins(node)).then_some(Refusal::StillThere(node)),
            };
            match why {
                Some(why) => self.tell(by, Tell::Refused { command: Wish::Forget(node), why }),
                None => {
                    plan.assign(self.slots.slots_of(node).map(|slot| (slot, NOBODY)));
                    plan.forgotten.push((node, by));
                }
            }
        }
    }

    /// A slot without owner may be assigned: nobody who is there still believes to own it.
    fn is_settled(&self, slot: u16) -> bool {
        let epoch = self.slots.line(slot).epoch;
        self.leases.values().all(|lease| lease.revision >= epoch)
    }

    fn is_serving(&self, node: NodeId) -> bool {
        self.members.get(node).is_some_and(|member| member.state == State::Serving)
    }

    fn plan_moves(&mut self, now: Time, plan: &mut Plan) {
        let free = |slot: &u16| self.slots.owner(*slot).is_none() && self.is_settled(*slot);
        let due: Vec<(u16, NodeId)> = self.waiting.moves.iter().filter(|(slot, _)| free(slot)).map(|(s, n)| (*s, *n)).collect();
        for (slot, node) in due {
            self.counted_at = now + self.terms.lease();
            self.waiting.moves.remove(&slot);
            // Where the one it was for is gone, whoever has the fewest users gets it.
            match self.is_serving(node) {
                true => plan.assign([(slot, node)]),
                false => _ = self.waiting.slots.insert(slot),
            }
        }
    }

    fn plan_assigning(&mut self, now: Time, plan: &mut Plan, loads: &mut Loads) {
        let wanted = std::mem::take(&mut self.waiting.slots);
        let open = wanted.into_iter().filter(|slot| self.slots.owner(*slot).is_none() && !plan.has(*slot));
        let (due, later): (Vec<u16>, Vec<u16>) = open.partition(|slot| self.is_settled(*slot));
        self.waiting.slots.extend(later.into_iter().filter(|slot| !self.waiting.moves.contains_key(slot)));
        let lines = choose::assign(&self.slots, due.iter().copied(), loads);
        for (_, node) in &lines {
            let (given, until) = self.given.entry(*node).or_default();
            (*given, *until) = (*given + 1, now + self.terms.lease());
        }
        // Someone joins in this very plan: there will be an owner to choose.
        if lines.is_empty() && !plan.joins.is_empty() {
            return self.waiting.slots.extend(due);
        }
        if lines.is_empty() && !due.is_empty() {
            return self.tell_not_assigned(&due, &Refusal::NobodyServes);
        }
        plan.asked.extend(due);
        plan.assign(lines);
    }

    /// A rebalance waits for nothing but the numbers of users.
    fn is_waited_for(&self) -> bool {
        self.waiting.rebalance.is_some() && self.waiting.moves.is_empty() && self.writing.is_none()
    }

    fn plan_rebalancing(&mut self, now: Time, plan: &mut Plan, loads: &Loads) {
        // What is under way would be moved twice, and to whom it came more than is due.
        let is_quiet = plan.moves_nothing() && self.waiting.moves.is_empty() && now >= self.counted_at;
        let Some(by) = self.waiting.rebalance.take_if(|_| is_quiet) else { return };
        if !self.terms.take_over {
            return self.tell(by, Tell::Refused { command: Wish::Rebalance, why: Refusal::Stays });
        }
        plan.moves = choose::rebalance(&self.slots, loads).into_iter().collect();
        plan.assign(plan.moves.clone().into_keys().map(|slot| (slot, NOBODY)));
    }

    fn carry_out(&mut self, now: Time, plan: Plan) {
        let (lines, epoch, before) = (plan.assignments(), plan.epoch, self.slots.revision());
        if !lines.is_empty() {
            self.slots.advance(&lines, epoch);
        }
        let is_news = !plan.joins.is_empty() || !plan.forgotten.is_empty();
        for (node, _) in &plan.forgotten {
            self.members.remove(*node);
        }
        let until = now + self.terms.lease();
        for (member, sent, revision) in plan.joins {
            let (to, life) = (member.node, member.life);
            self.leases.insert(to, Lease { until, epoch: Some(epoch), revision, sent: revision });
            self.members.put(member);
            self.tell(to, Tell::Welcome { life, sent, epoch });
        }
        self.waiting.moves.extend(plan.moves);
        let deltas = self.slots.deltas(before, &lines);
        for node in self.leases.keys().copied().collect::<Vec<_>>() {
            // Who knows all but these lines is sent them alone.
            if self.leases[&node].sent == before {
                self.leases.entry(node).and_modify(|lease| lease.sent = self.slots.revision());
                deltas.iter().for_each(|delta| self.out.push(Output::Tell { to: node, tell: Tell::Delta(delta.clone()) }));
            }
            self.send_table(node);
        }
        if is_news {
            self.tell_members();
        }
    }

    fn give_up(&mut self, now: Time, plan: Plan, why: &str) {
        self.retry_at = now + RETRY;
        let why = Refusal::Storage(why.to_owned());
        for (member, ..) in plan.joins {
            self.tell(member.node, Tell::NotJoined { life: member.life, why: why.clone() });
        }
        for (node, by) in plan.forgotten {
            self.tell(by, Tell::Refused { command: Wish::Forget(node), why: why.clone() });
        }
        self.tell_not_assigned(&plan.asked, &why);
    }

    fn refuse_all(&mut self, why: &Refusal) {
        let waiting = std::mem::take(&mut self.waiting);
        for (node, (member, ..)) in waiting.joins {
            self.tell(node, Tell::NotJoined { life: member.life, why: why.clone() });
        }
        self.tell_not_assigned(&waiting.slots.into_iter().collect::<Vec<_>>(), why);
    }

    /// Sends what a member has not been sent of the table.
    fn send_table(&mut self, to: NodeId) {
        let Some(lease) = self.leases.get_mut(&to).filter(|lease| lease.sent < self.slots.revision()) else { return };
        let since = std::mem::replace(&mut lease.sent, self.slots.revision());
        for delta in self.slots.since(since) {
            self.tell(to, Tell::Delta(delta));
        }
    }

    fn tell_not_assigned(&mut self, slots: &[u16], why: &Refusal) {
        for slots in slots.chunks(DELTA_ASSIGNMENTS) {
            let tell = Tell::NotAssigned { slots: slots.to_vec(), why: why.clone() };
            let to_each = self.leases.keys().map(|to| Output::Tell { to: *to, tell: tell.clone() });
            self.out.extend(to_each);
        }
    }

    /// The members have changed: everybody hears.
    fn tell_members(&mut self) {
        self.stamp.1 += 1;
        for node in self.leases.keys().copied().collect::<Vec<_>>() {
            self.tell_members_to(node);
        }
    }

    fn tell_members_to(&mut self, to: NodeId) {
        let members: Vec<Member> = self.members.iter().take(MEMBERS).cloned().collect();
        let parts = members.len().div_ceil(MEMBERS_PART).max(1) as u16;
        for (part, members) in (0..parts).zip(members.chunks(MEMBERS_PART)) {
            self.tell(to, Tell::Members { stamp: self.stamp, part, parts, members: members.to_vec() });
        }
    }
}
