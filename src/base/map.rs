//! Who lives where in a cluster, as one core knows it.
//!
//! Lives on: every core, in its outbox. Serves Z4, Z7, M1, M2. Pure. Invariants: a name and the number of the same user lead to the
//! same place; what is for a slot that no node owns is its steward's. Users of other clusters have a **gateway**, the core that
//! would be their home if they were of this one: all others go through it, and only that goes to the cluster.

use super::id::{CoreId, MOST_CLUSTER, NodeId, Seat, UserId, home_of_slot, slot_of};
use super::jid::Bare;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The owner of each slot of user numbers.
pub const SLOTS: usize = 1 << 16;

/// In the place of a slot's owner: there are users in it, and they are not where they are to be yet.
pub const COMING: NodeId = NodeId(u16::MAX);

/// A set of slots, a bit for each.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Slots(Box<[u8]>);

impl Slots {
    pub fn of(has: impl Fn(u16) -> bool) -> Slots {
        let eight = |byte: usize| (0..8).fold(0, |bits, bit| bits | u8::from(has((byte * 8 + bit) as u16)) << bit);
        Slots((0..SLOTS / 8).map(eight).collect())
    }

    pub fn all() -> Slots {
        Slots(vec![u8::MAX; SLOTS / 8].into())
    }

    pub fn has(&self, slot: u16) -> bool {
        self.0[usize::from(slot / 8)] >> (slot % 8) & 1 == 1
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&bits| bits == 0)
    }

    pub fn add(&mut self, others: &Slots) {
        self.0.iter_mut().zip(&others.0).for_each(|(bits, others)| *bits |= others);
    }

    pub fn remove(&mut self, others: &Slots) {
        self.0.iter_mut().zip(&others.0).for_each(|(bits, others)| *bits &= !others);
    }
}

impl Default for Slots {
    /// None.
    fn default() -> Slots {
        Slots(vec![0; SLOTS / 8].into())
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots", self.0.iter().map(|bits| bits.count_ones()).sum::<u32>())
    }
}

impl From<Slots> for Vec<u8> {
    fn from(slots: Slots) -> Vec<u8> {
        slots.0.into()
    }
}

impl TryFrom<Vec<u8>> for Slots {
    type Error = &'static str;

    fn try_from(bits: Vec<u8>) -> Result<Slots, &'static str> {
        if bits.len() == SLOTS / 8 { Ok(Slots(bits.into())) } else { Err("not a bit for each slot") }
    }
}

/// A core's map of its cluster.
#[derive(Clone, Debug)]
pub struct Map {
    pub here: Seat,
    /// Of this node.
    pub cores: u16,
    /// The number of this cluster; 0: there is no other one.
    pub cluster: u16,
    /// The cluster that keeps the directory.
    pub directory: u16,
    /// By slot, `NodeId(0)` where there is none, or `COMING`; `None`: this node owns all.
    owners: Option<Arc<[NodeId]>>,
    /// The node to which what is for slots without owners goes; `NodeId(0)`: it is not known yet whether they have some.
    steward: NodeId,
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
        Map {
            here: Seat { node, core },
            cores,
            cluster: 0,
            directory: 0,
            owners: None,
            steward: NodeId::default(),
            others: BTreeMap::new(),
        }
    }

    /// Who owns each slot from now on; there are [`SLOTS`] of them.
    pub fn set_owners(&mut self, owners: Arc<[NodeId]>) {
        assert_eq!(owners.len(), SLOTS, "every slot is named");
        self.owners = Some(owners);
    }

    /// From now on it's not known where to go with what is for these slots.
    pub fn close(&mut self, slots: &Slots) {
        let owner = |slot: u16| if slots.has(slot) { COMING } else { self.owned_by(slot) };
        self.owners = Some((0..=u16::MAX).map(owner).collect());
    }

    /// The nodes that others' slots have come to since.
    pub fn gained_since(&self, before: &Map) -> BTreeSet<NodeId> {
        let has_moved = |slot: &u16| {
            let (then, now) = (before.owned_by(*slot), self.owned_by(*slot));
            then != now && then != NodeId::default() && now != NodeId::default() && now != COMING
        };
        (0..=u16::MAX).filter(has_moved).map(|slot| self.owned_by(slot)).collect()
    }

    /// Whether a slot's users are on their way to where they are to be.
    pub fn is_coming(&self, slot: u16) -> bool {
        self.owned_by(slot) == COMING
    }

    fn owned_by(&self, slot: u16) -> NodeId {
        self.owners.as_ref().map_or(self.here.node, |owners| owners[usize::from(slot)])
    }

    /// Who looks after slots without owners. What is for them may be for other clusters' users: it's their gateway.
    pub fn set_steward(&mut self, steward: NodeId) {
        self.steward = steward;
    }

    /// Another node has told how many cores it has.
    pub fn set_cores(&mut self, node: NodeId, cores: u16) {
        self.others.insert(node, cores);
    }

    /// Where a user's home is; of another cluster's user, the next on the way there: the gateway, and from that the cluster.
    #[inline]
    pub fn home(&self, user: UserId) -> Seat {
        let seat = self.home_of_slot(user.slot());
        match self.abroad(user) {
            Some(cluster) if seat == self.here => Seat::of_cluster(cluster),
            _ => seat,
        }
    }

    /// Where a user's home is; of another cluster's user, the cluster.
    pub fn straight(&self, user: UserId) -> Seat {
        self.abroad(user).map_or_else(|| self.home_of_slot(user.slot()), Seat::of_cluster)
    }

    /// The slots of a node of this cluster.
    pub fn slots_of(&self, node: NodeId) -> Slots {
        Slots::of(|slot| self.owner(slot) == node)
    }

    /// All cores of this cluster, as far as they are known.
    pub fn seats(&self) -> Vec<Seat> {
        let others = self.others.iter().filter(|(node, _)| node.cluster().is_none()).map(|(node, cores)| (*node, *cores));
        let nodes = others.filter(|(node, _)| *node != self.here.node).chain([(self.here.node, self.cores)]);
        nodes.flat_map(|(node, cores)| (0..cores).map(move |core| Seat { node, core: CoreId(core) })).collect()
    }

    /// The nodes that own slots: nobody is on the others.
    pub fn inhabited(&self) -> BTreeSet<NodeId> {
        (0..=u16::MAX).filter(|&slot| self.is_owned(slot)).map(|slot| self.owner(slot)).collect()
    }

    /// Whether some slots' users are on their way to where they are to be.
    pub fn is_any_coming(&self) -> bool {
        (0..=u16::MAX).any(|slot| self.is_coming(slot))
    }

    /// The home of a user of this cluster, and the gateway of others.
    pub fn gateway(&self, user: UserId) -> Seat {
        self.home_of_slot(user.slot())
    }

    /// The other cluster that a user is of.
    #[inline]
    pub fn abroad(&self, user: UserId) -> Option<u16> {
        let cluster = user.cluster();
        (self.cluster != 0 && cluster != self.cluster && (1..=MOST_CLUSTER).contains(&cluster)).then_some(cluster)
    }

    /// Whether there is such a core, as far as is known here.
    pub fn has(&self, seat: Seat) -> bool {
        let cores = if seat.node == self.here.node { Some(self.cores) } else { self.others.get(&seat.node).copied() };
        cores.is_some_and(|cores| seat.core.0 < cores)
    }

    /// Where the home of the user of this name is, or the gateway if the name is another cluster's.
    pub fn home_of(&self, jid: &Bare) -> Seat {
        self.home_of_slot(slot_of(jid.as_str()))
    }

    /// The other end of a subscription's way: a home in this cluster (0), or another cluster.
    pub fn end(&self, cluster: u16, jid: &Bare) -> Seat {
        if cluster == 0 { self.home_of(jid) } else { Seat::of_cluster(cluster) }
    }

    /// Whether what is for the user of this name gets there in order and for certain: it never leaves this node. What is for a slot
    /// that this node only looks after may go on to the owner.
    pub fn is_certain(&self, jid: &Bare) -> bool {
        self.cluster == 0 && self.home_of(jid).node == self.here.node && self.is_owned(slot_of(jid.as_str()))
    }

    /// The core of this node that stands for a user: the home, or what keeps in touch with it.
    #[inline]
    pub fn near(&self, user: UserId) -> Seat {
        Seat { node: self.here.node, core: user.home(self.cores) }
    }

    /// Whether this core would be the home of the user of this name, or what stands for it, on this node.
    pub fn is_near(&self, jid: &Bare) -> bool {
        home_of_slot(slot_of(jid.as_str()), self.cores) == self.here.core
    }

    /// Whether a slot has an owner.
    #[inline]
    pub fn is_owned(&self, slot: u16) -> bool {
        self.owners.as_ref().is_none_or(|owners| ![NodeId::default(), COMING].contains(&owners[usize::from(slot)]))
    }

    /// Whether it's known where to go with what is for a slot.
    pub fn is_known(&self, slot: u16) -> bool {
        self.owner(slot) != NodeId::default() || self.owners.is_none()
    }

    /// Whether a user's home is on this node.
    pub fn is_here(&self, user: UserId) -> bool {
        self.owner(user.slot()) == self.here.node && self.abroad(user).is_none()
    }

    #[inline]
    fn owner(&self, slot: u16) -> NodeId {
        match &self.owners {
            None => self.here.node,
            Some(owners) => match owners[usize::from(slot)] {
                COMING => NodeId::default(),
                NodeId(0) => self.steward,
                node => node,
            },
        }
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
        assert!(!map.is_known(other));
        map.set_steward(NodeId(1));
        assert!(map.is_known(other) && !map.is_owned(other) && map.home_of_slot(other).node == NodeId(1));
    }

    #[test]
    fn m1_a_slot_that_is_to_come_leads_nowhere_until_it_has() {
        let mut map = Map::of_node(NodeId(1), CoreId(0), 1);
        let all = |node| (0..SLOTS).map(|_| NodeId(node)).collect::<Arc<[NodeId]>>();
        map.set_owners(all(2));
        let before = map.clone();
        assert!(!map.is_any_coming() && map.inhabited() == BTreeSet::from([NodeId(2)]));
        map.close(&Slots::of(|slot| slot == 5));
        assert!(map.is_any_coming());
        assert!(map.is_coming(5) && !map.is_known(5) && !map.is_owned(5) && map.home_of_slot(5).node == NodeId::default());
        assert!(map.is_owned(6) && map.gained_since(&before).is_empty());
        let coming = map.clone();
        map.set_owners((0..SLOTS).map(|slot| NodeId(if slot == 5 { 1 } else { 2 })).collect());
        assert_eq!(map.gained_since(&coming), BTreeSet::from([NodeId(1)]));
        let mut nobody = Map::of_node(NodeId(1), CoreId(0), 1);
        nobody.set_owners(all(0));
        assert!(map.gained_since(&nobody).is_empty(), "what nobody had nobody has lost");
    }

    #[test]
    fn z7_the_way_to_another_clusters_user_goes_through_the_gateway() {
        let mut map = Map::of_node(NodeId(1), CoreId(1), 2);
        map.set_owners((0..SLOTS).map(|slot| NodeId(1 + (slot / 2 % 2) as u16)).collect());
        let [near, far] = [1, 2].map(|slot| UserId::new(9, slot, 1));
        assert!(map.is_here(near), "there is no other cluster");
        map.cluster = 3;
        assert!(!map.is_here(near) && map.is_here(UserId::new(3, 1, 1)) && map.is_here(UserId::new(0, 1, 1)));
        assert_eq!(map.home(near), Seat::of_cluster(9), "this core is the gateway");
        assert_eq!((map.home(far), map.straight(far)), (Seat { node: NodeId(2), core: CoreId(0) }, Seat::of_cluster(9)));
        assert_eq!(map.abroad(UserId::new(0xffff, 1, 1)), None, "no cluster has that number");
        let slots = map.slots_of(NodeId(2));
        assert!(slots.has(2) && slots.has(3) && !slots.has(1) && Slots::try_from(Vec::from(slots.clone())) == Ok(slots));
        assert!(Slots::try_from(vec![0; 7]).is_err());
        map.set_cores(NodeId(2), 1);
        map.set_cores(NodeId::of_cluster(9), 1);
        assert_eq!(map.seats().len(), 3, "clusters have none here");
        assert!(map.has(map.here) && !map.has(Seat { core: CoreId(2), ..map.here }) && map.has(map.gateway(far)));
    }
}
