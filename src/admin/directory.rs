//! `GET /directory/JID`, `GET /clusters` and `DELETE /clusters/N`: what the directory knows, for machines and for people.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Where a user is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Location {
    pub jid: String,
    /// 0: of this node, which is alone; `None`: there is no such user as far as the directory knows.
    pub cluster: Option<u16>,
}

/// The clusters that a node knows of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterList {
    /// The one that the node is of.
    pub cluster: u16,
    /// The one that keeps the directory.
    pub directory: u16,
    /// In the order of their numbers.
    pub clusters: Vec<ClusterEntry>,
    /// Nodes of the directory that could not be reached: more users may be known there.
    pub missing: Vec<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterEntry {
    pub number: u16,
    /// Whether it keeps the directory.
    pub directory: bool,
    pub domains: Vec<String>,
    pub nodes: Vec<NodeEntry>,
    /// Users that it has, as far as the directory knows; `None`: only that can say.
    pub users: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEntry {
    pub node: u16,
    /// Where others connect.
    pub address: String,
    /// Whether the node that tells can reach it.
    pub found: bool,
}

/// What became of a cluster's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forgotten {
    pub gone: u64,
    /// To be forgotten yet, before the cluster is.
    pub left: u64,
}

impl ClusterEntry {
    fn state(&self, own: u16) -> &'static str {
        match self.nodes.iter().filter(|node| node.found).count() {
            _ if self.number == own => "this cluster",
            0 => "not found",
            found if found == self.nodes.len() => "found",
            _ => "found in part",
        }
    }
}

impl ClusterList {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = row(["cluster", "state", "users", "domains", "node", "address", ""]);
        for cluster in &self.clusters {
            let (number, users) = (cluster.number.to_string(), cluster.users.map_or("-".to_owned(), |users| users.to_string()));
            let (domains, state) = (cluster.domains.join(", "), cluster.state(self.cluster));
            for (at, node) in cluster.nodes.iter().enumerate() {
                let first = if at == 0 { [&*number, state, &*users, &*domains] } else { [""; 4] };
                let [number, state, users, domains] = first;
                let found = if node.found { "" } else { "not found" };
                text += &row([number, state, users, domains, &node.node.to_string(), &node.address, found]);
            }
        }
        let _ = writeln!(text, "\ncluster {} keeps the directory", self.directory);
        if self.directory != self.cluster {
            let _ = writeln!(text, "how many users each has its nodes can say: ask one of them");
        }
        for node in &self.missing {
            let _ = writeln!(text, "node {node} can't be reached: it may know of more users (fanal cluster status)");
        }
        text
    }
}

fn row([number, state, users, domains, node, address, found]: [&str; 7]) -> String {
    let line = format!("{number:<8} {state:<14} {users:>10}  {domains:<24} {node:<6} {address:<22} {found}");
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z1_the_table_says_which_clusters_there_are_where_and_how_many_users_each_has() {
        let node = |node, found| NodeEntry { node, address: format!("10.0.0.{node}:7402"), found };
        let entry = |number: u16, nodes| ClusterEntry {
            number,
            directory: number == 1,
            domains: vec![format!("{number}.example")],
            nodes,
            users: Some(u64::from(number) * 100),
        };
        let clusters =
            vec![entry(1, vec![node(1, true)]), entry(2, vec![node(1, true), node(2, false)]), entry(3, vec![node(7, false)])];
        let list = ClusterList { cluster: 1, directory: 1, clusters, missing: vec![9] };
        let table = list.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["1", "this", "cluster", "100", "1.example", "1", "10.0.0.1:7402"]);
        assert_eq!(lines[2], ["2", "found", "in", "part", "200", "2.example", "1", "10.0.0.1:7402"]);
        assert_eq!(lines[3], ["2", "10.0.0.2:7402", "not", "found"]);
        assert_eq!(lines[4], ["3", "not", "found", "300", "3.example", "7", "10.0.0.7:7402", "not", "found"]);
        assert!(table.contains("cluster 1 keeps the directory\n") && table.contains("node 9 can't be reached"), "{table}");
        let mut elsewhere = ClusterList { cluster: 2, ..list };
        elsewhere.clusters[0].users = None;
        assert!(elsewhere.table().contains("its nodes can say"), "{}", elsewhere.table());
    }
}
