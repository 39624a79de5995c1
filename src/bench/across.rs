//! Who sits where in several clusters, who hears whom there, and how all that is recognised as what it is.
//!
//! Lives on: the generator's pinned thread. Serves G6, Z6, Z12. Users are counted over all clusters, so that `Places` puts each on
//! a connection to a node of its cluster; within a cluster they have numbers from 0. Invariant: whoever looks away hears of
//! nothing.

use super::graph::Graph;
use super::presences::Presences;
use super::talk::Traffic;

/// Where everybody is.
#[derive(Clone, Copy)]
pub(super) struct Seating {
    pub clusters: u32,
    /// Of each cluster.
    pub nodes: u32,
}

impl Seating {
    /// The number of a cluster's nth user.
    pub fn user(self, cluster: u32, nth: u32) -> u32 {
        (nth / self.nodes * self.clusters + cluster) * self.nodes + nth % self.nodes
    }

    /// The cluster of a user, and which one it is there.
    fn place(self, user: u32) -> (u32, u32) {
        let (round, rest) = (user / (self.nodes * self.clusters), user % (self.nodes * self.clusters));
        (rest / self.nodes, round * self.nodes + rest % self.nodes)
    }

    /// How many users are counted when each cluster has so many.
    pub fn users(self, of_each: u32) -> u32 {
        of_each.next_multiple_of(self.nodes) * self.clusters
    }
}

/// The users of the first cluster speak, and those of the others listen.
pub(super) struct Across {
    said: Presences,
    seating: Seating,
    /// Of each user of the first cluster: subscribers in all others who look.
    audiences: Vec<u32>,
}

impl Across {
    /// In each cluster but the first one these are subscribed, and the first `away` users look away.
    pub(super) fn new(said: Presences, seating: Seating, graph: &Graph, away: u32) -> Across {
        let looking = |user| graph.subscribers(user).filter(|&subscriber| subscriber >= away).count() as u32;
        let audiences = (0..graph.users()).map(|user| looking(user) * (seating.clusters - 1)).collect();
        Across { said, seating, audiences }
    }

    /// `Presences::states`, of the first cluster's users.
    pub(super) fn states(&self, bytes: &[u8], mut state: impl FnMut(u32, u32, bool, u32)) -> usize {
        let place = |user| self.seating.place(user).1;
        self.said.states(bytes, |user, sequence, is_there, count| state(place(user), sequence, is_there, count))
    }
}

impl Traffic for Across {
    fn conn(&self, user: u32) -> u32 {
        self.said.conn(self.seating.user(0, user))
    }

    fn make(&mut self, user: u32, sequence: u32, into: &mut Vec<u8>) {
        self.said.make(self.seating.user(0, user), sequence, into);
    }

    #[inline]
    fn recognise(&mut self, conn: u32, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        let seating = self.seating;
        self.said.recognise(conn, bytes, |user, sequence, count| delivered(seating.place(user).1, sequence, count))
    }

    fn refusal(&self) -> Option<&str> {
        self.said.refusal()
    }

    fn audience(&self, user: u32) -> u32 {
        self.audiences[user as usize]
    }

    fn event_bytes(&self) -> usize {
        self.said.event_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sits_in_its_cluster_and_is_found_there() {
        let seating = Seating { clusters: 3, nodes: 2 };
        let mut seen: Vec<u32> = (0..3).flat_map(|cluster| (0..8).map(move |nth| seating.user(cluster, nth))).collect();
        for cluster in 0..3 {
            for nth in 0..8 {
                let user = seating.user(cluster, nth);
                assert_eq!(seating.place(user), (cluster, nth));
                assert_eq!(user % 6 / 2, cluster, "its connection is to a node of its cluster");
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..seating.users(8)).collect::<Vec<_>>());
    }
}
