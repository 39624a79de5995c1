//! The operator's questions to a whole cluster: its users, the clusters that its directory knows, and that one be forgotten.
//!
//! Lives on: the control thread. Serves Z1. Invariants: who does not answer in time is named, and what the others say is not lost;
//! a cluster is forgotten last, when all of its names are, so that whoever is interrupted can go on.

use super::control::Controller;
use crate::admin::{ClusterEntry, ClusterList, Forgotten, NodeEntry, Refusal, UserLine, UserList};
use crate::base::id::{NodeId, Seat};
use crate::base::jid::Bare;
use crate::ownership::clusters::Cluster;
use crate::presence::survey::{Found, Inspect, merge};
use crate::shard::batch::Order;
use crate::shard::{Answer, Places};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long all cores of the cluster together may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names of a forgotten cluster that one core deletes in one commit.
const PIECE: usize = 1_000;

/// What cores have said, and the nodes of which nothing, or not all, was heard.
struct Heard {
    found: Vec<(Seat, Found)>,
    missing: BTreeSet<u16>,
}

impl Controller {
    /// A page of the cluster's users, or of one node's, in the order of their names.
    ///
    /// # Errors
    /// There is no such node; the first core does not answer.
    pub fn users(&mut self, after: Option<&Bare>, limit: usize, node: Option<u16>) -> Result<UserList, Refusal> {
        let inspect = Inspect::Users { after: after.cloned(), most: limit };
        let mut places = self.places()?;
        if let Some(node) = node {
            places.seats.retain(|seat| seat.node.0 == node);
            places.inhabited.retain(|of| of.0 == node);
        }
        let Heard { found, missing } = self.survey(&places, &inspect)?;
        if let Some(node) = node.filter(|_| places.seats.is_empty() && missing.is_empty()) {
            return Err(Refusal::Missing(format!("there is no node {node} in this cluster: see fanal cluster status")));
        }
        let parts = found.into_iter().filter_map(|(seat, found)| match found {
            Found::Users { users, more } => Some((seat.node.0, users, more)),
            _ => None,
        });
        let (page, more) = merge(parts.collect(), limit);
        let line = |(node, user): (u16, crate::presence::survey::UserLine)| UserLine {
            jid: user.jid,
            user: user.user,
            node,
            sessions: user.sessions,
            contacts: user.contacts,
        };
        Ok(UserList { users: page.into_iter().map(line).collect(), more, missing: missing.into_iter().collect() })
    }

    /// The clusters that this node knows of, its own among them; how many users each has only the directory can say.
    pub(super) fn clusters(&mut self) -> Result<ClusterList, Refusal> {
        let status = Controller::cluster(self).map_err(Refusal::Unavailable)?;
        let directory = self.directory()?;
        let places = self.places()?;
        let keeps = directory == status.cluster;
        let heard =
            if keeps { self.survey(&places, &Inspect::Names)? } else { Heard { found: Vec::new(), missing: BTreeSet::new() } };
        let counts = sum(&heard.found);
        let found: BTreeSet<(u16, u16)> =
            status.nodes.iter().filter(|node| node.found).map(|node| (node.cluster.unwrap_or(status.cluster), node.node)).collect();
        let entry = |cluster: &Cluster| ClusterEntry {
            number: cluster.number,
            directory: cluster.number == directory,
            domains: cluster.place.domains.clone(),
            users: keeps.then(|| counts.get(&cluster.number).copied().unwrap_or_default()),
            nodes: cluster
                .place
                .nodes
                .iter()
                .map(|(node, address)| NodeEntry {
                    node: node.0,
                    address: address.to_string(),
                    found: found.contains(&(cluster.number, node.0)) || (cluster.number, node.0) == (status.cluster, status.node),
                })
                .collect(),
        };
        let own = self.membership.links.as_ref().and_then(|links| links.between.as_ref()).map(|between| &between.own);
        let mut clusters: Vec<ClusterEntry> = places.clusters.others(status.cluster).chain(own).map(entry).collect();
        clusters.sort_unstable_by_key(|cluster| cluster.number);
        Ok(ClusterList { cluster: status.cluster, directory, clusters, missing: heard.missing.into_iter().collect() })
    }

    /// Has a cluster forgotten, with all names that it has; as much as can be done in time, and the rest with the next call.
    pub(super) fn forget_cluster(&mut self, number: u16, force: bool) -> Result<Forgotten, Refusal> {
        let list = self.clusters()?;
        let cluster = list.clusters.iter().find(|cluster| cluster.number == number);
        if list.directory != list.cluster {
            let keeper = list.clusters.iter().find(|cluster| cluster.number == list.directory);
            let at: Vec<&str> = keeper.iter().flat_map(|cluster| &cluster.nodes).map(|node| node.address.as_str()).collect();
            let why = format!("cluster {} keeps the directory: ask one of its nodes ({})", list.directory, at.join(", "));
            return Err(Refusal::Conflict(why));
        }
        let cluster =
            cluster.ok_or_else(|| Refusal::Missing(format!("no cluster {number} is known: see fanal directory clusters")))?;
        if number == list.cluster {
            return Err(Refusal::Conflict(format!("cluster {number} keeps the directory, and can't forget itself")));
        }
        if let Some(node) = cluster.nodes.iter().find(|node| node.found) {
            let why = format!(
                "node {} of cluster {number} is logged in now and would come back at once: stop its nodes first",
                node.node
            );
            return Err(Refusal::Conflict(why));
        }
        if let Some(node) = list.missing.first() {
            let why = format!("node {node} can't be reached, and keeps a part of the directory: try again when it's back");
            return Err(Refusal::Unavailable(why));
        }
        let users = cluster.users.unwrap_or_default();
        if users > 0 && !force {
            let why = format!(
                "cluster {number} has {users} users: have them removed there, or use --force: then others may have their names, \
                 and whoever has them as contacts loses these subscriptions for good"
            );
            return Err(Refusal::Conflict(why));
        }
        let places = self.places()?;
        let until = Instant::now() + PATIENCE;
        let mut forgotten = Forgotten { gone: 0, left: users };
        while forgotten.left > 0 && Instant::now() < until {
            let (gone, left) = self.forget_names(&places, number)?;
            forgotten = Forgotten { gone: forgotten.gone + gone, left };
        }
        if forgotten.left == 0 {
            self.forget_number(number)?;
        }
        Ok(forgotten)
    }

    /// Every core of the directory deletes some names.
    fn forget_names(&mut self, places: &Places, cluster: u16) -> Result<(u64, u64), Refusal> {
        let Heard { found, missing } = self.survey(places, &Inspect::Forget { cluster, most: PIECE })?;
        if let Some(node) = missing.first() {
            return Err(Refusal::Unavailable(format!("node {node} has not deleted its names: try again")));
        }
        Ok(found.iter().fold((0, 0), |(all_gone, all_left), (_, found)| match found {
            Found::Forgotten { gone, left } => (all_gone + gone, all_left + left),
            _ => (all_gone, all_left),
        }))
    }

    fn forget_number(&mut self, number: u16) -> Result<(), Refusal> {
        match self.ask(0, Order::ForgetCluster(number)).map_err(Refusal::Unavailable)? {
            Answer::Done(result) => result.map_err(Refusal::Conflict),
            other => Err(Refusal::Unavailable(format!("core 0 answered {other:?}"))),
        }
    }

    fn directory(&self) -> Result<u16, Refusal> {
        let between = self.membership.links.as_ref().and_then(|links| links.between.as_ref());
        let fix = "this node knows of no other clusters: directory.cluster says which one keeps their directory";
        Ok(between.ok_or_else(|| Refusal::Conflict(fix.to_owned()))?.directory)
    }

    fn places(&mut self) -> Result<Places, Refusal> {
        match self.ask(0, Order::Places).map_err(Refusal::Unavailable)? {
            Answer::Places(places) => Ok(*places),
            other => Err(Refusal::Unavailable(format!("core 0 answered {other:?}"))),
        }
    }

    /// Asks these cores at once, by way of the first one here.
    fn survey(&mut self, places: &Places, inspect: &Inspect) -> Result<Heard, Refusal> {
        let unknown = places.inhabited.iter().filter(|node| places.seats.iter().all(|seat| seat.node != **node));
        let mut heard = Heard { found: Vec::new(), missing: unknown.map(|node| node.0).collect() };
        let mut asked = BTreeMap::new();
        for &seat in &places.seats {
            let ticket = self.order(0, Order::Survey { seat, inspect: inspect.clone() }).map_err(Refusal::Unavailable)?;
            asked.insert(ticket, seat);
        }
        let until = Instant::now() + PATIENCE;
        while !asked.is_empty() {
            let Some((ticket, answer)) = self.answer(until) else { break };
            let Some(seat) = asked.remove(&ticket) else { continue };
            match answer {
                Answer::Found(found) => heard.found.push((seat, *found)),
                _ => _ = heard.missing.insert(seat.node.0),
            }
        }
        heard.missing.extend(asked.into_values().map(|seat| seat.node.0));
        // Of a node that is gone, and whose users others have taken over, there is nothing to hear.
        heard.missing.retain(|&node| places.inhabited.contains(&NodeId(node)));
        Ok(heard)
    }
}

fn sum(found: &[(Seat, Found)]) -> BTreeMap<u16, u64> {
    let mut sum = BTreeMap::new();
    let counts = found.iter().filter_map(|(_, found)| match found {
        Found::Names(counts) => Some(counts),
        _ => None,
    });
    counts.flatten().for_each(|(cluster, names)| *sum.entry(*cluster).or_default() += names);
    sum
}
