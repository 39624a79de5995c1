//! A short break goes unnoticed: where nothing lasts as long as the grace, no node is ever counted as lost, so nobody is shown as
//! gone because of it and no session ends.

use super::{Check, Held};
use crate::sim::Env;
use crate::sim::nodes::Nodes;

pub fn check(env: &Env, nodes: &Nodes) -> Held {
    for core in nodes.cores().filter(|_| env.shape.is_gentle) {
        let lost = core.shard.link_report().peers.into_iter().find(|(_, peer)| peer.counts.link_losses > 0);
        Check::ShortBreaksGoUnnoticed.holds(lost.is_none(), || {
            let site = lost.map(|(site, _)| site);
            format!("node {} has lost {site:?}, though every break was short", core.node)
        })?;
    }
    Ok(())
}
