//! An old life of a node comes back: what it said in the beginning of a connection long over is said once more, its hello first, as
//! by a copy of it that has slept.
//!
//! Lives on: the simulator. Serves Z2, G4. The checks know nothing of it: who took it for the node would carry out twice what was
//! carried out, or lose the node for its former self. Invariant: it comes only where the node itself is known; who has never heard
//! of a later life can't know an old one, and has only certificates to go by.

use super::Env;
use super::counts::Happening;
use super::nodes::Nodes;
use crate::wire::link::Hello;
use std::collections::BTreeMap;

/// Bytes of a connection's beginning that are kept.
const KEPT: usize = 4096;

/// What has come to nodes by each connection that another one has opened: to whom, and how it began.
#[derive(Default)]
pub struct Openings(BTreeMap<i32, (usize, Vec<u8>)>);

impl Openings {
    /// A node has read bytes.
    pub fn heard(&mut self, link: i32, node: usize, bytes: &[u8]) {
        let (_, kept) = self.0.entry(link).or_insert_with(|| (node, Vec::new()));
        let room = KEPT - kept.len();
        kept.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }
}

/// One of them comes to the same node again.
pub fn replay(env: &mut Env, nodes: &mut Nodes) {
    let links: Vec<i32> = env.openings.0.keys().copied().collect();
    let Some((node, bytes)) = env.random.pick(&links).map(|link| env.openings.0[link].clone()) else { return };
    let (Ok(Some(hello)), true) = (Hello::peek(&bytes), env.is_up[node]) else { return };
    let cores = &mut nodes.nodes[node].cores;
    let at = usize::from(hello.lane) % cores.len();
    let report = cores[at].shard.link_report();
    let known = report.peers.get(&hello.from).filter(|peer| peer.gauges.link_found > 0);
    if known.and_then(|peer| peer.life).is_some_and(|life| life.epoch >= hello.life.epoch) {
        env.trace.note(env.now, format_args!("node {node} hears again: {hello:?}"));
        env.count(Happening::Replayed);
        cores[at].hear_again(env.now, &bytes);
    }
}
