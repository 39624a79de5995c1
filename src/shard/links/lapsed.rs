//! Other clusters hear that homes of this one began anew, have come back or are out of reach, and this one hears it of theirs.
//!
//! Lives on: every core. Serves Z7, Z13, M4. The core of a cluster that hears it tells all other nodes there, and each node its own
//! cores. Invariants: what waits to be told to a node or cluster is one word for each cluster (`presence::lapsed`), and goes while
//! the lane has room; who hears it asks with all else that is to be compared, so often at most.

use super::Shard;
use crate::base::id::{CoreId, NodeId, Seat, UserId};
use crate::base::time::Time;
use crate::presence::control::Control;
use crate::presence::lapsed::Lapsed;
use crate::shard::batch::Entry;
use std::sync::Arc;

impl Shard {
    /// The other clusters hear that a node of this one is back, or gone. Each node that notices says so, by its first core.
    pub(in crate::shard) fn tell_of_homes(&mut self, node: NodeId, gone: bool) {
        let cluster = self.out.map.cluster;
        if cluster == 0 || node.cluster().is_some() || self.settings.core.0 != 0 {
            return;
        }
        let lapsed = Lapsed { cluster, gone, slots: self.out.map.slots_of(node) };
        self.tell_later(&lapsed, |peer| peer.cluster().is_some());
    }

    /// Another cluster hears that a node of this one can't reach it.
    pub(super) fn tell_of_one_cut_off(&mut self, other: u16, node: NodeId) {
        let lapsed = Lapsed { cluster: self.out.map.cluster, gone: true, slots: self.out.map.slots_of(node) };
        self.tell_later(&lapsed, |peer| peer.cluster() == Some(other));
    }

    /// Another cluster says it of its homes.
    pub(in crate::shard) fn told_by_cluster(&mut self, now: Time, lapsed: Box<Lapsed>) {
        self.tell_later(&lapsed, |peer| peer.cluster().is_none());
        self.told_of_homes(now, lapsed);
    }

    /// The same by another node of this cluster.
    pub(in crate::shard) fn told_of_homes(&mut self, now: Time, lapsed: Box<Lapsed>) {
        let lapsed = Arc::<Lapsed>::from(lapsed);
        self.tell_cores(|| Entry::Lapsed(lapsed.clone()));
        self.lapsed(now, &lapsed);
    }

    /// Homes in another cluster may have forgotten who watches their users, or may be gone.
    pub(in crate::shard) fn lapsed(&mut self, now: Time, lapsed: &Lapsed) {
        if lapsed.gone {
            let Shard { homes, edge, out, .. } = self;
            let (map, there) = (out.map.clone(), Seat::of_cluster(lapsed.cluster));
            let concerns = |user: UserId| map.home(user) == there && lapsed.slots.has(user.slot());
            homes.relays.lost(now, concerns, edge, out);
        }
        self.compare_slots(lapsed.cluster, &lapsed.slots);
    }

    fn tell_later(&mut self, lapsed: &Lapsed, whom: impl Fn(NodeId) -> bool) {
        let told = self.out.peers.iter_mut().filter(|(node, _)| whom(**node));
        self.out.lapses_joined += told.filter_map(|(_, peer)| peer.lapses.add(lapsed).then_some(1)).sum::<u64>();
    }

    /// Tells a node or cluster one thing of what waits, if there is room for it.
    pub(in crate::shard) fn send_lapsed(&mut self, node: NodeId) {
        let peer = self.out.peers.get_mut(&node).filter(|peer| !peer.full);
        if let Some(lapsed) = peer.and_then(|peer| peer.lapses.take_one()) {
            self.out.send(Seat { node, core: CoreId(0) }, Control::Lapsed(Box::new(lapsed)));
        }
    }
}
