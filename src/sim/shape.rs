//! The nodes of a run: how many in how many clusters, who owns which users, and what their links are told.
//!
//! Lives on: the simulator. Serves Z2, Z4, Z9. Drawn apart from the mix, so that a seed of a lone node stays what it was.
//! Invariant: clusters and nodes are numbered from 1; the first cluster keeps the directory, if there are others.

use super::mix::{one_of, seldom};
use super::node::DOMAIN;
use crate::base::config::{Compression, Link};
use crate::base::id::{NodeId, UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::limits::Limits;
use crate::base::map::SLOTS;
use crate::base::random::Random;
use crate::link;
use crate::link::classify::Policy;
use crate::ownership::clusters::{Cluster, Place};
use crate::shard::{Between, LinkTerms};
use crate::wire::link::Site;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where links come in at every node.
const PORT: u16 = 7402;
/// What may be let wait for other clusters.
const WAITING: [&str; 7] = ["show", "status_text", "details", "inactive", "subscriptions", "messages", "questions"];
/// An answer that takes longer is not waited for (`shard::asked`; `presence::gateway`, which gives up sooner).
const ANSWERS_IN: Duration = Duration::from_secs(63);
/// So long a message's sender waits for somebody to acknowledge it (`presence::home::receipts`).
const ACKNOWLEDGED_IN: Duration = Duration::from_secs(10);
/// What nothing is heard of is said again by then (`presence::home::peers`).
const SAID_AGAIN_IN: Duration = Duration::from_secs(11);
/// Slots that one node has in a row.
const ROW: usize = 7;

/// Chances are in thousandths, weights are relative to those of `Mix`.
#[derive(Clone, Debug)]
pub struct Shape {
    pub clusters: usize,
    /// Nodes of each.
    pub nodes: usize,
    /// Of each node, in the order of their clusters.
    pub cores: Vec<u16>,
    /// By how many milliseconds each node's wall clock is wrong.
    skews: Vec<i64>,
    pub link: Link,
    /// Bytes of a presence above which it goes by reference.
    inline_max: u32,
    /// Longest time for which nothing gets from one node to another, and for which a node stays down.
    pub cut: Duration,
    pub down: Duration,
    /// Weights of the steps: something is cut, a connection breaks.
    pub cuts: u64,
    pub breaks: u64,
    /// And: one of several clusters lies.
    pub lies: u64,
    /// And: an old life of a node comes back.
    pub replays: u64,
    /// Nothing ever lasts longer than the grace: no node is lost.
    pub is_gentle: bool,
    /// The chance of a core, in each turn, to hear of owners that slots have got meanwhile; `None`: all know all owners.
    pub owners_heard: Option<u64>,
}

impl Shape {
    pub fn lone(cores: u16) -> Shape {
        Shape {
            clusters: 1,
            nodes: 1,
            cores: vec![cores],
            skews: vec![0],
            link: Link::default(),
            inline_max: u32::MAX,
            cut: Duration::ZERO,
            down: Duration::ZERO,
            cuts: 0,
            breaks: 0,
            lies: 0,
            replays: 0,
            is_gentle: false,
            owners_heard: None,
        }
    }

    /// `cores`: of a node that is alone. Numbers of nodes and clusters that are not given are drawn.
    pub fn draw(seed: u64, cores: u16, nodes: Option<usize>, clusters: Option<usize>) -> Shape {
        let mut random = Random::new(seed ^ 0x6e6f_6465_7300);
        let drawn = draw_size(&mut Random::new(seed ^ 0x7369_7a65));
        let (nodes, clusters) = (nodes.unwrap_or(drawn.0).max(1), clusters.unwrap_or(drawn.1).max(1));
        if clusters * nodes == 1 {
            return Shape::lone(cores);
        }
        let is_gentle = random.one_in(4);
        let link = draw_link(&mut random, is_gentle);
        let all = clusters * nodes;
        let short = Duration::from_millis(u64::from(link.silent_ms) * 3);
        Shape {
            clusters,
            nodes,
            cores: (0..all).map(|_| 1 + random.below(2) as u16).collect(),
            skews: (0..all).map(|_| random.below(1_200_000) as i64 - 600_000).collect(),
            cut: if is_gentle { short } else { Duration::from_millis(one_of(&mut random, &[100, 1000, 5000])) },
            down: Duration::from_millis(one_of(&mut random, &[0, 500, 5000])),
            link,
            // Drawn apart, so that seeds stay what they were.
            inline_max: if seed.is_multiple_of(2) { 40 } else { 4096 },
            cuts: seldom(&mut random, 12),
            breaks: seldom(&mut random, 12),
            lies: if clusters > 1 { seldom(&mut random, 20) } else { 0 },
            replays: seldom(&mut random, 12),
            is_gentle,
            owners_heard: draw_owners_heard(&mut Random::new(seed ^ 0x6f77_6e65_7273)),
        }
    }

    pub fn is_alone(&self) -> bool {
        self.cores.len() == 1
    }

    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.cores.len()
    }

    /// The nodes of a cluster; clusters are counted from 0 here.
    pub fn of_cluster(&self, cluster: usize) -> std::ops::Range<usize> {
        cluster * self.nodes..(cluster + 1) * self.nodes
    }

    pub fn cluster_of(&self, node: usize) -> usize {
        node / self.nodes
    }

    /// Who a node is; one that is alone is nobody.
    pub fn site(&self, node: usize) -> Site {
        if self.is_alone() {
            return Site { cluster: 0, node: NodeId::default() };
        }
        Site { cluster: 1 + self.cluster_of(node) as u16, node: NodeId(1 + (node % self.nodes) as u16) }
    }

    /// The cluster that keeps the directory; 0: there's none.
    pub fn directory(&self) -> u16 {
        u16::from(self.clusters > 1)
    }

    pub fn skew(&self, node: usize) -> i64 {
        self.skews[node]
    }

    pub fn user(&self, number: u64) -> Bare {
        Bare::new(&format!("u{number}@{DOMAIN}")).expect("a JID")
    }

    /// The cluster of a user; a stranger is none's, and looked for in the first.
    pub fn cluster_of_user(&self, jid: &Bare) -> usize {
        let number = jid.as_str().strip_prefix('u').and_then(|rest| rest.split('@').next()?.parse::<usize>().ok());
        number.unwrap_or(0) % self.clusters
    }

    /// The node that owns a slot of a cluster, or will once it's owned.
    pub fn owner(&self, cluster: usize, slot: u16) -> usize {
        cluster * self.nodes + usize::from(slot) / ROW % self.nodes
    }

    /// The node where a user's home is.
    pub fn home(&self, jid: &Bare) -> usize {
        self.owner(self.cluster_of_user(jid), slot_of(jid.as_str()))
    }

    pub fn home_of(&self, user: UserId) -> usize {
        self.owner(usize::from(user.cluster().saturating_sub(1)), user.slot())
    }

    /// Who owns each slot, as the nodes of any cluster are told.
    pub fn owners(&self) -> Arc<[NodeId]> {
        (0..SLOTS).map(|slot| self.site(slot / ROW % self.nodes).node).collect()
    }

    fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1 + node as u8], PORT))
    }

    /// The node at an address.
    pub fn at(&self, address: SocketAddr) -> Option<usize> {
        self.all().find(|&node| self.address(node) == address)
    }

    fn named(&self, nodes: impl Iterator<Item = usize>) -> Vec<(NodeId, SocketAddr)> {
        nodes.map(|node| (self.site(node).node, self.address(node))).collect()
    }

    /// What a node is told of the others in one of its lives.
    pub fn terms(&self, node: usize, epoch: u32, limits: &Limits) -> Option<Arc<LinkTerms>> {
        if self.is_alone() {
            return None;
        }
        let cluster = self.cluster_of(node);
        let terms = LinkTerms {
            me: self.site(node),
            epoch: u64::from(epoch),
            digest: [7; 32],
            settings: link::Settings::new(&self.link, limits),
            peers: self.named(self.of_cluster(cluster).filter(|&other| other != node)),
            between: (self.clusters > 1).then(|| self.between(cluster)),
            inline_max: self.inline_max,
        };
        Some(Arc::new(terms))
    }

    fn between(&self, cluster: usize) -> Between {
        let identity = [1 + cluster as u8; 32];
        let place = Place { domains: vec![DOMAIN.to_owned()], nodes: self.named(self.of_cluster(cluster)) };
        Between {
            own: Cluster { number: 1 + cluster as u16, identity: Between::short(&identity), place },
            identity,
            directory: self.directory(),
            at: if cluster == 0 { Vec::new() } else { self.named(self.of_cluster(0)) },
            policy: Policy::new(self.link.non_real_time.iter().map(String::as_str)),
            link: self.link.clone(),
            dictionary: Vec::new(),
            is_shared: false,
        }
    }

    /// How far time goes on at once while there is nothing to do: with links, less than what they take for silence.
    pub fn idles_for(&self) -> Duration {
        Duration::from_millis(if self.is_alone() { 80 } else { 160 })
    }

    /// How long it may take until all have given up what they wait for.
    pub fn settles_in(&self) -> Duration {
        if self.is_alone() { ACKNOWLEDGED_IN } else { ANSWERS_IN }
    }

    /// And until, after a start, all have met and said again what may have been lost.
    pub fn meets_in(&self) -> Duration {
        if self.is_alone() { Duration::ZERO } else { SAID_AGAIN_IN }
    }
}

/// How many nodes each cluster has, and how many clusters there are: half of all seeds are of a lone node, and most others small.
fn draw_size(random: &mut Random) -> (usize, usize) {
    match random.below(40) {
        0..20 => (1, 1),
        20..27 => (2, 1),
        27..34 => (1, 2),
        34..36 => (2, 2),
        36 => (3, 1),
        37 => (1, 3),
        _ => (1 + random.below(3) as usize, 1 + random.below(3) as usize),
    }
}

fn draw_owners_heard(random: &mut Random) -> Option<u64> {
    random.one_in(3).then(|| one_of(random, &[5, 50, 500]))
}

fn draw_link(random: &mut Random, is_gentle: bool) -> Link {
    let heartbeat_ms = one_of(random, &[100, 400]) as u32;
    let silent_ms = heartbeat_ms * 3;
    let waits = random.one_in(2);
    let non_real_time = WAITING.iter().filter(|_| waits && random.one_in(2)).map(|word| word.to_string()).collect();
    Link {
        heartbeat_ms,
        silent_ms,
        backoff_ms: one_of(random, &[5, 50]) as u32,
        backoff_max_ms: one_of(random, &[100, 500]) as u32,
        entries: one_of(random, &[if is_gentle { 65_536 } else { 64 }, 65_536]) as u32,
        entry_bytes: one_of(random, &[if is_gentle { 32 << 20 } else { 100_000 }, 32 << 20]) as u32,
        grace_ms: if is_gentle { 60_000 } else { silent_ms + one_of(random, &[100, 1000]) as u32 },
        non_real_time,
        inactive_ms: 100,
        complex_count: one_of(random, &[2, 1024]) as u32,
        complex_bytes: 256 << 10,
        complex_ms: one_of(random, &[5, 300]) as u32,
        compression: if random.one_in(2) { Compression::Lz4 } else { Compression::None },
        ..Link::default()
    }
}
