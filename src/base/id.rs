//! Numbers of users, sessions, cores and connections (Z1).
//!
//! A `UserId` carries the slot that its bare JID hashes to, so that a name and a number lead to the same core without asking
//! anybody. Invariant: `UserId::slot` of a user == `slot_of` of the user's bare JID.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One shard: a pinned thread that owns its users. Counted from 0 within a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CoreId(pub u16);

/// One fanal process of a cluster. Counted from 1 to [`MOST_NODE`]; a node that belongs to no cluster is 0. Seen from a cluster,
/// each other cluster is one more node, whatever is behind it: those have the numbers above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct NodeId(pub u16);

/// Where a life of a node begins to number what it has asked others: far from the lives around it, so that an answer that another
/// life waited for is no answer to anything.
pub fn first_of_life(epoch: u32) -> u32 {
    epoch.wrapping_mul(0x9e37_79b1)
}

/// The highest number of a node.
pub const MOST_NODE: u16 = 0x7fff;
/// The highest number of a cluster.
pub const MOST_CLUSTER: u16 = 0x7fff;

impl NodeId {
    /// What stands for another cluster. Panics on a number that no cluster has.
    pub fn of_cluster(number: u16) -> NodeId {
        assert!((1..=MOST_CLUSTER).contains(&number), "clusters are numbered from 1 to {MOST_CLUSTER}");
        NodeId(MOST_NODE + number)
    }

    /// The cluster that this stands for; `None`: it's a node.
    pub fn cluster(self) -> Option<u16> {
        self.0.checked_sub(MOST_NODE).filter(|&number| number > 0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cluster() {
            Some(cluster) => write!(f, "cluster {cluster}"),
            None => write!(f, "node {}", self.0),
        }
    }
}

/// A core among all those of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Seat {
    pub node: NodeId,
    pub core: CoreId,
}

impl Seat {
    /// What stands for another cluster. Panics on a number that no cluster has.
    pub fn of_cluster(number: u16) -> Seat {
        Seat { node: NodeId::of_cluster(number), core: CoreId(0) }
    }
}

/// A user, for ever: cluster (16 bits), slot (16 bits), serial within the slot (32 bits, from 1). 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct UserId(pub u64);

impl UserId {
    pub const NOBODY: UserId = UserId(0);

    pub fn new(cluster: u16, slot: u16, serial: u32) -> UserId {
        UserId(u64::from(cluster) << 48 | u64::from(slot) << 32 | u64::from(serial))
    }

    pub fn cluster(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub fn slot(self) -> u16 {
        (self.0 >> 32) as u16
    }

    pub fn serial(self) -> u32 {
        self.0 as u32
    }

    /// The core that owns this user on a node of `cores` cores.
    pub fn home(self, cores: u16) -> CoreId {
        home_of_slot(self.slot(), cores)
    }
}

/// The slot of a bare JID: FNV-1a folded to 16 bits. It is written into every `UserId`, so it may never change.
pub fn slot_of(bare_jid: &str) -> u16 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bare_jid.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16
}

pub fn home_of_slot(slot: u16, cores: u16) -> CoreId {
    CoreId(slot % cores)
}

/// Counts a user's sessions; an old session's clean-up carries an old number and so never touches its successor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SessionId(pub u32);

/// A connection of one core. The generation tells a re-used slot's connections apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    pub slot: u32,
    pub generation: u32,
}

/// A descriptor of a connected socket on its way from one core's driver to another's. It does not close itself: whoever holds
/// it hands it to a driver or to `drive::socket::close`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RawSocket(pub i32);

/// The version of a session's presence: of two the higher wins, whichever way they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Version {
    pub epoch: u32,
    pub sequence: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_gives_back_its_parts_and_its_home() {
        let id = UserId::new(0xabcd, 0x1234, 0xdead_beef);
        assert_eq!((id.cluster(), id.slot(), id.serial()), (0xabcd, 0x1234, 0xdead_beef));
        assert_eq!(id.home(7), home_of_slot(0x1234, 7));
    }

    #[test]
    fn a_cluster_seen_from_another_is_a_node_that_no_node_can_be() {
        for number in [1, 7, MOST_CLUSTER] {
            assert_eq!(NodeId::of_cluster(number).cluster(), Some(number));
        }
        assert!([0, 1, MOST_NODE].iter().all(|&node| NodeId(node).cluster().is_none()));
    }

    #[test]
    fn slots_are_the_ones_that_stored_ids_carry() {
        assert_eq!(slot_of(""), 0xcbf2 ^ 0x9ce4 ^ 0x8422 ^ 0x2325);
        assert_eq!(slot_of("alice@localhost"), slot_of("alice@localhost"));
        let mut seen = vec![0u32; 16];
        for n in 0..16_000 {
            seen[usize::from(slot_of(&format!("user{n}@localhost")) % 16)] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
    }
}
