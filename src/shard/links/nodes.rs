//! The other nodes of this cluster, which may come and go.
//!
//! Lives on: every core of a node that has links. Serves Z1, Z4. Where the configuration names them they stay; where they find each
//! other by a coordination engine, every core is told of them by its node. Invariant: there are lanes to those that are known, and
//! to no other one.

use super::Shard;
use crate::base::id::NodeId;
use crate::base::time::Time;
use std::net::SocketAddr;
use std::sync::Arc;

impl Shard {
    /// The other nodes of the cluster, and where they are.
    pub(super) fn peers(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        let terms = self.terms();
        let known = self.links.nodes.as_deref().unwrap_or(&terms.peers);
        known.iter().copied().filter(|(node, _)| *node != terms.me.node)
    }

    pub(super) fn is_peer(&self, node: NodeId) -> bool {
        self.peers().any(|(peer, _)| peer == node)
    }

    /// From now on these are the nodes of the cluster, this one among them.
    pub(in crate::shard) fn set_nodes(&mut self, now: Time, nodes: Arc<[(NodeId, SocketAddr)]>) {
        if self.links.nodes.replace(nodes.clone()) == Some(nodes) {
            return;
        }
        self.forget_sites(now, |shard, site| shard.terms().is_inside(*site) && !shard.is_peer(site.node));
        for (node, _) in self.peers().collect::<Vec<_>>() {
            self.open_own_lanes(now, self.terms().inside(node));
        }
        self.has_moved();
    }
}
