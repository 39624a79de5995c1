//! What has not been heard of is told again: subscription changes under way to users elsewhere, and that theirs have arrived here.
//!
//! Lives on: every core. Serves Z8, Z13. What is told again is told by pairs: a user of this core, or somebody who was, and one of
//! another node or cluster. Invariants: one node or cluster is told of so many pairs at a time, and of the next when those are
//! answered or have had their time, so no lane gets more than it takes, and none waits for another one; of each pair that something
//! is under way between it is told again, in turn, however many there are; that a way has arrived is told before what may follow
//! from it.

use super::Homes;
use super::peers::sent_again;
use crate::base::id::{NodeId, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Control, Way, WayName};
use crate::presence::outbox::Outbox;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

/// How long nothing is heard of a way that a link may have lost before it is sent again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the next pairs wait for those before them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who is here, and who is elsewhere.
type Pair = (Bare, Bare);

/// Ways that a link may lose.
#[derive(Default)]
pub(super) struct FarWays {
    /// Between whom some are under way.
    pairs: BTreeSet<Pair>,
    /// What is told again, by the node or cluster that is told.
    rounds: BTreeMap<NodeId, Round>,
    /// When all of it is told again next.
    due: Option<Time>,
}

/// What is told again to one node or cluster.
#[derive(Default)]
struct Round {
    waiting: BTreeSet<Pair>,
    /// The last of `waiting` that had its turn.
    last: Option<Pair>,
    /// Those that it was told of and has not answered, and how long the next ones wait for them.
    told: BTreeSet<Pair>,
    until: Option<Time>,
}

impl Round {
    /// The next pair in turn.
    fn take_one(&mut self) -> Option<Pair> {
        let behind = self.last.as_ref().and_then(|last| self.waiting.range((Excluded(last), Unbounded)).next());
        let next = behind.or_else(|| self.waiting.first())?.clone();
        self.waiting.remove(&next);
        self.last = Some(next.clone());
        Some(next)
    }

    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.told.is_empty()
    }
}

impl FarWays {
    /// Another node looks after these users from now on.
    pub fn release(&mut self, goes: impl Fn(&Bare) -> bool) {
        self.pairs.retain(|(own, _)| !goes(own));
        for round in self.rounds.values_mut() {
            round.waiting.retain(|(own, _)| !goes(own));
            round.told.retain(|(own, _)| !goes(own));
        }
    }

    fn is_waiting(&self, pair: &Pair) -> bool {
        self.rounds.values().any(|round| round.waiting.contains(pair))
    }
}

impl Homes {
    /// A way that a link may lose is under way. False: it does not set out now, but will by itself.
    pub(super) fn may_set_out(&mut self, way: &Way, out: &Outbox) -> bool {
        let pair = (way.from.clone(), way.to.clone());
        self.far_ways.pairs.insert(pair.clone());
        // From core to core nothing is lost. One that is held back would come behind what its receiver hears from elsewhere, though
        // its answer has long been given: that nobody has this name, behind the word of somebody who has it by now.
        if way.to_user != UserId::NOBODY && towards(&way.to, way.to_user, out) == out.map.here.node {
            return true;
        }
        match out.refusal(out.map.home_of(&way.to)) {
            // To a node that is not found yet all set out once it is, behind the word of what has arrived from there.
            Some(Reason::HomeOutOfReach) => false,
            Some(_) => {
                let round = self.far_ways.rounds.entry(towards(&way.to, way.to_user, out)).or_default();
                round.waiting.insert(pair);
                false
            }
            None => !self.far_ways.is_waiting(&pair),
        }
    }

    /// Whether ways between these may have been lost by a link: they go one after the other, though the receiver may be on this
    /// node by now.
    pub(super) fn are_far(&self, from: &Bare, to: &Bare) -> bool {
        !self.far_ways.pairs.is_empty() && self.far_ways.pairs.contains(&(from.clone(), to.clone()))
    }

    /// Subscription changes that are under way to users of another node set out again: their receivers know those that have
    /// arrived. And those that have arrived from there are told of once more.
    pub fn ways_again(&mut self, node: NodeId, out: &mut Outbox) {
        let is_there = |to: &Bare, to_user: UserId| match node.cluster() {
            // Of one whose receiver is not known yet, nobody knows the cluster either.
            Some(cluster) => {
                let other = out.map.abroad(to_user);
                to_user == UserId::NOBODY || other.is_some_and(|other| other == cluster || cluster == out.map.directory)
            }
            None => out.map.home_of(to).node == node,
        };
        let mut ways: Vec<Way> = self.adrift.values().filter(|way| is_there(&way.to, way.to_user)).cloned().collect();
        for user in self.users.iter().flatten() {
            let under_way = user.rare.iter().flat_map(|rare| &rare.under_way);
            ways.extend(under_way.filter(|way| is_there(&way.to, way.to_user)).map(|way| sent_again(user, way)));
        }
        ways.sort_unstable_by_key(|way| way.sequence);
        let heard = self.heard.keys().filter(|name| out.map.end(name.cluster, &name.from).node == node);
        let round = self.far_ways.rounds.entry(node).or_default();
        round.waiting.extend(heard.map(|name| (name.to.clone(), name.from.clone())));
        // The answers may never come.
        round.told.clear();
        for way in ways {
            let pair = (way.from.clone(), way.to.clone());
            if out.map.is_certain(&way.to) && !self.far_ways.pairs.contains(&pair) {
                out.send(out.map.home_of(&way.to), Control::Way(Box::new(way)));
            } else {
                self.far_ways.pairs.insert(pair.clone());
                round.waiting.insert(pair);
            }
        }
        self.tell_next(node, out);
    }

    /// Sends again what nothing was heard of: whoever it came to may have had no use for it yet. And tells once more of what has
    /// arrived here and may come again. Gives when it must again.
    pub(super) fn send_far_ways(&mut self, now: Time, out: &mut Outbox) -> Option<Time> {
        if self.far_ways.due.is_some_and(|due| due <= now) {
            self.far_ways.due = None;
            self.begin_rounds(out);
        }
        let mut late = Vec::new();
        for (&node, round) in &mut self.far_ways.rounds {
            if *round.until.get_or_insert(now + PATIENCE) <= now {
                (round.until, _) = (Some(now + PATIENCE), round.told.clear());
                late.push(node);
            }
        }
        late.into_iter().for_each(|node| self.tell_next(node, out));
        match self.far_ways.pairs.is_empty() && self.heard.is_empty() {
            true => self.far_ways.due = None,
            false => _ = self.far_ways.due.get_or_insert(now + AGAIN),
        }
        self.far_ways.rounds.values().filter_map(|round| round.until).chain(self.far_ways.due).min()
    }

    fn begin_rounds(&mut self, out: &mut Outbox) {
        let mut pairs = Vec::new();
        for (from, to) in std::mem::take(&mut self.far_ways.pairs) {
            if let Some(way) = self.next_way(&from, &to) {
                pairs.push((towards(&to, way.to_user, out), (from, to)));
            }
        }
        self.far_ways.pairs = pairs.iter().map(|(_, pair)| pair.clone()).collect();
        let heard = self.heard.keys().map(|WayName { from, to, cluster, .. }| {
            let told = out.map.end(*cluster, from).node;
            (told, (to.clone(), from.clone()))
        });
        for (node, pair) in pairs.into_iter().chain(heard) {
            self.far_ways.rounds.entry(node).or_default().waiting.insert(pair);
        }
        let nodes: Vec<NodeId> = self.far_ways.rounds.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.tell_next(node, out));
    }

    /// Tells a node or cluster of some more pairs, if those before are answered.
    fn tell_next(&mut self, node: NodeId, out: &mut Outbox) {
        let Some(mut round) = self.far_ways.rounds.remove(&node) else { return };
        if round.told.is_empty() {
            let mut full = Vec::new();
            while round.told.len() + full.len() < out.again_at_once
                && let Some(pair) = round.take_one()
            {
                match out.refusal(out.map.home_of(&pair.1)) {
                    None if self.tell_again(&pair, out) => _ = round.told.insert(pair),
                    // It comes with all others once that is found.
                    None | Some(Reason::HomeOutOfReach) => {}
                    Some(_) => full.push(pair),
                }
            }
            round.until = None;
            round.waiting.extend(full);
        }
        if !round.is_over() {
            self.far_ways.rounds.insert(node, round);
        }
    }

    /// Tells again what there is between two users. False: nothing.
    fn tell_again(&self, (own, other): &Pair, out: &mut Outbox) -> bool {
        let heard = |sequence, cluster| WayName { from: other.clone(), to: own.clone(), sequence, cluster };
        let mut heard = self.heard.range(heard(0, 0)..=heard(u64::MAX, u16::MAX)).peekable();
        let way = self.next_way(own, other);
        let is_any = heard.peek().is_some() || way.is_some();
        // First: else what follows from a way would be taken for older than it.
        heard.for_each(|(name, &last)| self.confirm(name.clone(), last, out));
        if let Some(way) = way {
            self.send_way(way, out);
        }
        is_any
    }

    /// All ways between these have arrived.
    pub(super) fn none_under_way(&mut self, pair: Pair, out: &mut Outbox) {
        self.far_ways.pairs.remove(&pair);
        self.answered(&pair, out);
    }

    /// A way between these that had come from elsewhere does not come again.
    pub(super) fn is_forgotten(&mut self, pair: Pair, out: &mut Outbox) {
        if !self.far_ways.pairs.contains(&pair) {
            self.answered(&pair, out);
        }
    }

    fn answered(&mut self, pair: &Pair, out: &mut Outbox) {
        let answered = |(&node, round): (&NodeId, &mut Round)| (round.told.remove(pair) && round.told.is_empty()).then_some(node);
        let nodes: Vec<NodeId> = self.far_ways.rounds.iter_mut().filter_map(answered).collect();
        nodes.into_iter().for_each(|node| self.tell_next(node, out));
    }
}

/// The node or cluster that a way is for, as far as is known.
fn towards(to: &Bare, to_user: UserId, out: &Outbox) -> NodeId {
    out.map.abroad(to_user).map_or_else(|| out.map.home_of(to).node, NodeId::of_cluster)
}
