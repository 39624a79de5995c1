//! Who lives where in a cluster, as one core knows it.
//!
//! Lives on: every core, in its outbox. Serves Z4, M1, M2. Pure. Invariant: a name and the number of the same user lead to the same
//! place.

use super::id::{CoreId, NodeId, Seat, UserId, home_of_slot, slot_of};
use super::jid::Bare;

/// A core's map of its cluster.
#[derive(Clone, Debug)]
pub struct Map {
    pub here: Seat,
    /// Of this node.
    pub cores: u16,
}

impl Map {
    /// Of a node that is alone: all users live on it.
    pub fn alone(core: CoreId, cores: u16) -> Map {
        Map { here: Seat { node: NodeId::default(), core }, cores }
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

    #[inline]
    fn home_of_slot(&self, slot: u16) -> Seat {
        Seat { node: self.here.node, core: home_of_slot(slot, self.cores) }
    }
}
