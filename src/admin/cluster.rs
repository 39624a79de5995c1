//! `GET /cluster`: how a node finds its cluster, for machines and for people.

use super::OwnersStatus;
use crate::base::id::NodeId;
use crate::metrics::fields::{LinkCounts, LinkGauges, Waits};
use crate::wire::link::Site;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What one node knows of its cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// 0: the node is alone.
    pub cluster: u16,
    pub node: u16,
    /// Where it takes links.
    pub address: Option<String>,
    /// Counts this node's starts.
    pub epoch: u64,
    /// Whether links go inside TLS.
    pub encrypted: bool,
    /// Users whose home is here.
    pub users: u64,
    /// Publishers of other nodes that are watched here.
    pub relays: u64,
    /// Users of this node who are watched at other nodes.
    pub publishers_across: u64,
    /// What waits here for others.
    pub waits: Waits,
    /// Who owns which users; `None`: all are here.
    pub owners: Option<OwnersStatus>,
    /// The other nodes, of this cluster and of others.
    pub nodes: Vec<NodeStatus>,
    /// Links turned away or ended, by reason.
    pub ended: BTreeMap<String, u64>,
    /// Why the last connection of nobody who is configured came to nothing.
    pub stranger: Option<String>,
}

/// What it knows of another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Another one than that of the node that tells; `None`: the same.
    pub cluster: Option<u16>,
    pub node: u16,
    pub address: String,
    /// Whether it can be reached by all of its lanes.
    pub found: bool,
    /// When it was found or lost last, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Counts its starts, while it is up.
    pub epoch: Option<u64>,
    /// Why the last connection came to nothing.
    pub why: Option<String>,
    pub gauges: LinkGauges,
    pub counts: LinkCounts,
}

impl NodeStatus {
    /// What it's called.
    pub fn name(&self) -> String {
        let node = NodeId(self.node);
        self.cluster.map_or_else(|| node.to_string(), |cluster| Site { cluster, node }.to_string())
    }
}

impl ClusterStatus {
    /// The table for people. `now_ms`: milliseconds since 1970.
    pub fn table(&self, now_ms: u64) -> String {
        if self.cluster == 0 {
            return "this node is alone: it belongs to no cluster (cluster.number, cluster.node)\n".into();
        }
        let how = if self.encrypted { "inside TLS" } else { "in the clear" };
        let mut text = format!(
            "cluster {}, links {how}\n{} users here, {} watched at other nodes, {} of others watched here\n\n",
            self.cluster, self.users, self.publishers_across, self.relays
        );
        text += &row(["", "address", "", "since", "epoch", "lanes", "round trip", "waiting"].map(str::to_owned));
        let own = self.address.clone().unwrap_or_default();
        let dash = || "-".to_owned();
        let here = format!("node {}", self.node);
        text += &row([here, own, "this node".into(), dash(), self.epoch.to_string(), dash(), dash(), dash()]);
        for node in &self.nodes {
            let gauges = node.gauges;
            let since = node.since_ms.map_or_else(dash, |since| ago(now_ms.saturating_sub(since)));
            let rtt = if gauges.link_rtt_ns == 0 { dash() } else { format!("{:.2} ms", gauges.link_rtt_ns as f64 / 1e6) };
            text += &row([
                node.name(),
                node.address.clone(),
                if node.found { "found" } else { "not found" }.into(),
                since,
                node.epoch.map_or_else(dash, |epoch| epoch.to_string()),
                format!("{} of {}", gauges.link_lanes_up, gauges.link_lanes),
                rtt,
                (gauges.link_entries_waiting + gauges.link_updates_waiting).to_string(),
            ]);
        }
        let reasons: String = self
            .nodes
            .iter()
            .filter(|node| !node.found)
            .filter_map(|node| Some(format!("{}: {}\n", node.name(), node.why.as_ref()?)))
            .collect();
        if !reasons.is_empty() {
            let _ = write!(text, "\n{reasons}");
        }
        if let Some(owners) = &self.owners {
            text += &owners.table(|since| ago(now_ms.saturating_sub(since)));
        }
        if self.waits != Waits::default() {
            let Waits { owners, directory, answers, unsettled } = self.waits;
            let _ = writeln!(
                text,
                "\nwaiting: {owners} for owners of users, {directory} for the directory, {answers} for answers of other clusters; \
                 {unsettled} users the directory does not know of yet"
            );
        }
        if let Some(why) = &self.stranger {
            let _ = writeln!(text, "\na link of none of them, {why}");
        }
        if !self.ended.is_empty() {
            let ended: Vec<String> = self.ended.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            let _ = writeln!(text, "\nconnections turned away or ended: {}", ended.join(", "));
        }
        text
    }
}

fn row([name, address, state, since, epoch, lanes, rtt, waiting]: [String; 8]) -> String {
    format!("{name:<22} {address:<22} {state:<10} {since:>10} {epoch:>6} {lanes:>9} {rtt:>11} {waiting:>8}\n")
}

/// In the largest unit of which there is one.
fn ago(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let unit = units.into_iter().find(|(_, unit)| ms >= *unit);
    unit.map_or_else(|| format!("{ms} ms"), |(name, unit)| format!("{} {name}", ms / unit))
}

#[cfg(test)]
mod tests {
    use super::super::{MemberState, MemberStatus};
    use super::*;

    #[test]
    fn g5_the_table_says_who_is_there_since_when_and_why_another_is_not() {
        let gauges = LinkGauges { link_lanes: 2, link_lanes_up: 2, link_rtt_ns: 120_000, ..LinkGauges::default() };
        let found = NodeStatus {
            cluster: None,
            node: 2,
            address: "10.0.0.2:7402".into(),
            found: true,
            since_ms: Some(1_000),
            epoch: Some(4),
            why: None,
            gauges,
            counts: LinkCounts::default(),
        };
        let why = Some("its certificate has ended".to_owned());
        let lost = NodeStatus { cluster: Some(7), node: 1, found: false, since_ms: None, epoch: None, why, ..found.clone() };
        let ended = [("silent".to_owned(), 3)].into();
        let waits = Waits { owners: 4, directory: 5, answers: 6, unsettled: 7 };
        let member = MemberStatus { node: 2, address: "10.0.0.2:7402".into(), state: MemberState::Draining, slots: 77 };
        let (kept_by, away_since_ms) = ("etcd".to_owned(), Some(3_541_000));
        let owners = Some(OwnersStatus { kept_by, away_since_ms, members: vec![member], ..OwnersStatus::default() });
        let nodes = vec![found, lost];
        let status = ClusterStatus { cluster: 1, node: 1, nodes, ended, waits, owners, ..ClusterStatus::default() };
        let table = status.table(3_601_000);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.iter().any(|line| line.starts_with("node 1 ") && line.contains("this node")), "{table}");
        let two = lines.iter().find(|line| line.starts_with("node 2 ")).unwrap();
        for word in ["10.0.0.2:7402", " found", "1 h", "2 of 2", "0.12 ms"] {
            assert!(two.contains(word), "{word}: {table}");
        }
        assert!(lines.iter().any(|line| line.starts_with("node 1 of cluster 7 ") && line.contains("not found")), "{table}");
        assert!(table.contains("node 1 of cluster 7: its certificate has ended") && table.contains("silent 3"), "{table}");
        assert!(table.contains("waiting: 4 for owners of users, 5 for the directory, 6 for answers"), "{table}");
        assert!(table.contains("by etcd, AWAY for 1 min") && table.contains("NOT joined"), "{table}");
        assert!(lines.iter().any(|line| line.contains("draining") && line.ends_with("77 slots")), "{table}");
        assert!(ClusterStatus::default().table(0).contains("alone"));
    }
}
