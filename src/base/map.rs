//! Who lives where in a cluster, as one core knows it.
//!
//! Lives on: every core, in its outbox. Serves Z4, M1, M2. Pure. Invariants: a name and the number of the same user lead to the
//! same place; a user of a slot that no node owns has no home.

use super::id::{CoreId, NodeId, Seat, UserId, home_of_slot, slot_of};
use super::jid::Bare;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The owner of each slot of user numbers.
pub const SLOTS: usize = 1 << 16;

/// A core's map of its cluster.
#[derive(Clone, Debug)]
pub struct Map {
    pub here: Seat,
    /// Of this node.
    pub cores: u16,
    /// By slot, `NodeId(0)` where there is none; `None`: this node owns all.
    owners: Option<Arc<[NodeId]>>,
    /// The cores of the other nodes, as far as they are known.
    others: BTreeMap<NodeId, u16>,
}

impl Map {
    /// Of a node that is alone: all users live on it.
    pub fn alone(core: CoreId, cores: u16) -> Map {
        Map::of_node(NodeId::default(), core, cores)
    }

    /// Of a node that owns all users as long as nothing else is said.
    pub fn of_node(node: NodeId, core: CoreId, cores: u16) -> Map {
        Map { here: Seat { node, core }, cores, owners: None, others: BTreeMap::new() }
    }

    /// Who owns each slot from now on; there are [`SLOTS`] of them.
    pub fn set_owners(&mut self, owners: Arc<[NodeId]>) {
        assert_eq!(owners.len(), SLOTS, "every slot is named");
        self.owners = Some(owners);
    }

    /// Another node has told how many cores it has.
    pub fn set_cores(&mut self, node: NodeId, cores: u16) {
        self.others.insert(node, cores);
    }

    /// Where a user's home is.
    #[inline]
    pub fn home(&self, user: UserId) -> Seat {
        self.home_of_slot(user.slot())
    }

    /// Where the home of the user of this name is.
    pub fn home_of(&self, jid: &Bare) -> Seat {
        self.home_of_slot(slot_of(jid.as_str()))
    }

    /// The core of this node that stands for a user: the home, or what keeps in touch with it.
    #[inline]
    pub fn near(&self, user: UserId) -> Seat {
        Seat { node: self.here.node, core: user.home(self.cores) }
    }

    /// Whether a slot has an owner.
    #[inline]
    pub fn is_owned(&self, slot: u16) -> bool {
        self.owners.as_ref().is_none_or(|owners| owners[usize::from(slot)] != NodeId::default())
    }

    /// Whether a user's home is on this node.
    pub fn is_here(&self, user: UserId) -> bool {
        self.owner(user.slot()) == self.here.node
    }

    #[inline]
    fn owner(&self, slot: u16) -> NodeId {
        self.owners.as_ref().map_or(self.here.node, |owners| owners[usize::from(slot)])
    }

    /// Where the homes of a slot's users are.
    #[inline]
    pub fn home_of_slot(&self, slot: u16) -> Seat {
        let node = self.owner(slot);
        // Of a node that has never been heard of, any core: what is for it is not sent.
        let cores = if node == self.here.node { self.cores } else { self.others.get(&node).copied().unwrap_or(1) };
        Seat { node, core: home_of_slot(slot, cores) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_number_lead_to_the_same_core_of_the_owner() {
        let mut map = Map::of_node(NodeId(1), CoreId(0), 2);
        let ann = Bare::new("ann@d").unwrap();
        let user = UserId::new(1, slot_of(ann.as_str()), 7);
        assert!(map.is_here(user) && map.home(user) == map.near(user));
        map.set_owners((0..SLOTS).map(|slot| NodeId((slot == usize::from(user.slot())) as u16 * 2)).collect());
        map.set_cores(NodeId(2), 5);
        assert_eq!(map.home(user), Seat { node: NodeId(2), core: CoreId(user.slot() % 5) });
        assert_eq!(map.home_of(&ann), map.home(user));
        assert!(!map.is_here(user) && map.near(user).node == NodeId(1));
        let other = user.slot().wrapping_add(1);
        assert!(!map.is_owned(other) && !map.is_here(UserId::new(1, other, 1)) && map.is_owned(user.slot()));
    }
}
