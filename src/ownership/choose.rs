//! Choosers: who is to own a slot. Each proposes lines of the table; nothing else writes it.
//!
//! Serves Z4, M1 (least users), R7 (take-over). Pure. Invariants: the same table and loads give the same proposal; of nodes that
//! are as good, the one with the lowest number; a slot is given to serving nodes only; only `rebalance` moves one whose owner
//! serves, and it stops where moving would not help.

use super::members::{Member, Members, State};
use super::slots::{NOBODY, Slots};
use crate::base::id::NodeId;
use std::collections::BTreeMap;

/// How far from the mean a node may be before `rebalance` moves slots away from it or to it: one in this many.
pub const BALANCED: u64 = 10;

/// How many users each serving node has, those included whom a proposal brings it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loads(BTreeMap<NodeId, u64>);

impl Loads {
    /// Of the serving members: what they told, plus what was `given` to them since, which they can't have told.
    pub fn new(members: &Members, given: impl Fn(NodeId) -> u64) -> Loads {
        let serving = members.iter().filter(|member| member.state == State::Serving);
        let load = |member: &Member| u64::from(member.users) + given(member.node);
        Loads(serving.map(|member| (member.node, load(member))).collect())
    }

    /// Only those with the fewest users, so many of them.
    pub fn least(self, nodes: usize) -> Loads {
        let mut loads: Vec<(NodeId, u64)> = self.0.into_iter().collect();
        loads.sort_by_key(|(node, load)| (*load, *node));
        loads.truncate(nodes);
        Loads(loads.into_iter().collect())
    }

    /// The node with the fewest users, who are now this many more. `None`: nobody serves.
    pub fn least_users(&mut self, more: u64) -> Option<NodeId> {
        let (&node, load) = self.0.iter_mut().min_by_key(|(node, load)| (**load, **node))?;
        *load += more;
        Some(node)
    }
}

/// Owners for slots that have none, each slot with one user to come (Z4, M1). Slots that have an owner are left out.
pub fn assign(slots: &Slots, wanted: impl IntoIterator<Item = u16>, loads: &mut Loads) -> Vec<(u16, NodeId)> {
    let free = wanted.into_iter().filter(|slot| slots.owner(*slot).is_none());
    free.map_while(|slot| Some((slot, loads.least_users(1)?))).collect()
}

/// New owners for all slots of a node that is gone; its users are thought to be spread evenly over them.
pub fn take_over(slots: &Slots, lost: &Member, loads: &mut Loads) -> Vec<(u16, NodeId)> {
    let each = u64::from(lost.users.div_ceil(slots.count(lost.node).max(1))).max(1);
    slots.slots_of(lost.node).map_while(|slot| Some((slot, loads.least_users(each)?))).collect()
}

/// Slots to move so that serving nodes have about as many users; a node that returned gets its share. Each node's users are thought
/// to be spread evenly over its slots; one without users counts each slot as one, so that empty slots are spread, too.
pub fn rebalance(slots: &Slots, loads: &Loads) -> Vec<(u16, NodeId)> {
    let weight = |node: NodeId, load: u64| (load / u64::from(slots.count(node).max(1))).max(1);
    let mut loads: BTreeMap<NodeId, (u64, u64)> = loads
        .0
        .iter()
        .map(|(&node, &load)| {
            let load = load.max(slots.count(node).into());
            (node, (load, weight(node, load)))
        })
        .collect();
    let Some(mean) = loads.values().map(|(load, _)| load).sum::<u64>().checked_div(loads.len() as u64) else { return Vec::new() };
    let (most, least) = (mean + mean / BALANCED, mean - mean / BALANCED);
    let mut left: BTreeMap<NodeId, Vec<u16>> = loads.keys().map(|&node| (node, slots.slots_of(node).collect())).collect();
    let mut moves = Vec::new();
    while let (Some((&full, &(high, each))), Some((&empty, &(low, _)))) = (
        loads.iter().max_by_key(|(node, (load, _))| (*load, std::cmp::Reverse(**node))),
        loads.iter().min_by_key(|(node, (load, _))| (*load, **node)),
    ) {
        let helps = low + each < high && (high > most || low < least);
        let Some(slot) = left.get_mut(&full).and_then(Vec::pop).filter(|_| helps && full != NOBODY) else { break };
        moves.push((slot, empty));
        loads.entry(full).and_modify(|(load, _)| *load -= each.min(*load));
        loads.entry(empty).and_modify(|(load, _)| *load += each);
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::super::members::Life;
    use super::super::slots::Assignment;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn member(node: u16, users: u32, state: State) -> Member {
        let (life, link) = (Life { identity: 1, start: 1, join: 1 }, "127.0.0.1:1".parse().unwrap());
        Member { node: NodeId(node), life, state, keeps: true, cores: 1, link, doors: Vec::new(), users, free: 0 }
    }

    /// Members with users, of whom every fourth is gone; and slots with owners, among them nobody.
    fn world() -> impl Strategy<Value = (Members, Slots)> {
        let owners = vec((any::<u16>(), 0u16..7), 0..300);
        (vec((0u32..1_000, 0u8..4), 1..6), owners).prop_map(|(users, owners)| {
            let (mut members, mut slots) = (Members::default(), Slots::default());
            for (node, (users, state)) in (1..).zip(users) {
                members.put(member(
                    node,
                    users,
                    [State::Serving, State::Serving, State::Draining, State::Gone][usize::from(state)],
                ));
            }
            let line = |(epoch, (slot, node)): (u32, (u16, u16))| Assignment { slot, node: NodeId(node), epoch };
            slots.merge(&(1..).zip(owners).map(line).collect::<Vec<_>>());
            (members, slots)
        })
    }

    proptest! {
        #[test]
        fn z4_only_slots_of_nobody_are_assigned_and_the_fewest_users_get_them(
            (members, slots) in world(), wanted in vec(any::<u16>(), 0..99),
        ) {
            let mut loads = Loads::new(&members, |_| 0);
            let before = loads.clone();
            let lines = assign(&slots, wanted.clone(), &mut loads);
            let mut users = before.0.clone();
            for (slot, node) in &lines {
                prop_assert_eq!(slots.owner(*slot), None);
                prop_assert!(users.iter().all(|(other, load)| (users[node], *node) <= (*load, *other)));
                *users.get_mut(node).unwrap() += 1;
            }
            prop_assert_eq!(users, loads.0);
            let free = wanted.iter().filter(|slot| slots.owner(**slot).is_none()).count();
            prop_assert_eq!(lines.len(), if before.0.is_empty() { 0 } else { free });
            prop_assert_eq!(lines, assign(&slots, wanted, &mut before.clone()), "the same again");
        }

        #[test]
        fn a_take_over_is_of_all_slots_of_the_lost_node_to_serving_ones((members, slots) in world(), node in 1u16..6) {
            let lost = member(node, 500, State::Gone);
            let mut loads = Loads::new(&members, |_| 0);
            loads.0.remove(&lost.node);
            let lines = take_over(&slots, &lost, &mut loads);
            let all: Vec<u16> = slots.slots_of(lost.node).collect();
            let given: Vec<u16> = lines.iter().map(|(slot, _)| *slot).collect();
            prop_assert_eq!(given, if loads.0.is_empty() { Vec::new() } else { all });
            prop_assert!(lines.iter().all(|(_, node)| loads.0.contains_key(node)));
        }

        #[test]
        fn a_rebalance_moves_from_serving_to_serving_nodes_and_is_done_then((members, slots) in world()) {
            let loads = Loads::new(&members, |_| 0);
            let moves = rebalance(&slots, &loads);
            for (slot, to) in &moves {
                let from = slots.owner(*slot).expect("it has an owner").0;
                prop_assert!(loads.0.contains_key(&from) && loads.0.contains_key(to) && from != *to);
            }
            let mut once: Vec<u16> = moves.iter().map(|(slot, _)| *slot).collect();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), moves.len(), "no slot moves twice");
        }

        #[test]
        fn a_table_is_the_same_however_its_lines_come((_, slots) in world(), seed in any::<u64>()) {
            let mut lines: Vec<Assignment> = (0..=u16::MAX).map(|slot| slots.line(slot)).filter(|line| line.epoch > 0).collect();
            lines.extend(lines.clone());
            crate::base::random::Random::new(seed).shuffle(&mut lines);
            let mut other = Slots::default();
            lines.iter().for_each(|line| _ = other.merge(&[*line]));
            let same = |slots: &Slots| (0..=u16::MAX).map(|slot| slots.line(slot)).collect::<Vec<_>>();
            prop_assert_eq!(same(&other), same(&slots));
            prop_assert!((0..7).all(|node| other.count(NodeId(node)) as usize == other.slots_of(NodeId(node)).count()));
        }
    }

    #[test]
    fn a_node_that_returns_gets_its_share_and_what_is_even_stays() {
        let (mut members, mut slots) = (Members::default(), Slots::default());
        slots.merge(&(0..900).map(|slot| Assignment { slot, node: NodeId(1 + slot % 2), epoch: 1 }).collect::<Vec<_>>());
        for (node, users) in [(1, 450), (2, 450), (3, 0)] {
            members.put(member(node, users, State::Serving));
        }
        let moves = rebalance(&slots, &Loads::new(&members, |_| 0));
        assert!((270..=300).contains(&moves.len()) && moves.iter().all(|(_, to)| *to == NodeId(3)), "{}", moves.len());
        members.put(member(3, 0, State::Gone));
        assert_eq!(rebalance(&slots, &Loads::new(&members, |_| 0)), [], "even");
    }
}
