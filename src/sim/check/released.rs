//! Everything is returned: once every connection is closed and every session has ended, nothing is left of them.

use super::{Check, Held};
use crate::sim::Env;
use crate::sim::nodes::Nodes;

pub fn check(env: &Env, nodes: &Nodes) -> Held {
    for core in nodes.cores() {
        let (shard, links) = (&core.shard, core.links(env));
        let number = (core.node, shard.settings.core.0);
        let left = [
            ("lines", shard.out.lines.len() - links),
            ("connections of clients", core.connections() - links),
            ("buffers", core.buffers_out),
            ("sessions at home", shard.homes.session_count()),
            ("sessions at the edge", shard.edge.session_count()),
            ("watched publishers", shard.edge.publisher_count()),
            ("questions about subscribers", shard.edge.asked_count()),
            ("changes with the store", shard.homes.storing_count()),
            ("interest of edges", interest(core)),
            ("relays", shard.homes.relays.count()),
            ("tickets of other clusters", shard.gateway.ticket_count()),
        ];
        for (what, count) in left {
            Check::EverythingIsReturned.holds(count == 0, || format!("core {number:?} keeps {count} {what}"))?;
        }
    }
    let held = env.links.held_by_servers();
    Check::EverythingIsReturned.holds(held == 0, || format!("nodes hold {held} sockets"))
}

/// Destinations of the users of a core, of whom nobody is there any more.
fn interest(core: &crate::sim::core::Core) -> usize {
    let homes = &core.shard.homes;
    let users = homes.names().into_iter().filter_map(|jid| homes.get(homes.by_name(&jid)?));
    users.map(|user| user.outbound.len()).sum()
}
