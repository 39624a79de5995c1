//! `[cluster]`: which cluster and node this is, where the others are, and who keeps the table of owners.

use super::{Config, Endpoint, Fault, Link};
use crate::base::id::{MOST_NODE, NodeId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Shortest lease with etcd, in milliseconds: it gives none that is shorter (1.5 times its election timeout, in whole seconds).
pub const LEAST_ETCD_LEASE_MS: u32 = 2_000;

/// A node among others. Without a number it's a lone node, which knows of no cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's number, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// This node's number in it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u16>,
    /// All nodes of the cluster, for the embedded engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Peer>,
    pub coordination: Coordination,
    /// Where etcd is (`Endpoint`).
    pub etcd: Vec<String>,
    /// PEM: whose certificates etcd's members may have, with https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_ca: Option<PathBuf>,
    /// PEM: what this node shows them, if they want to see one, and its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_key: Option<PathBuf>,
    pub lease_ms: u32,
}

/// Who keeps the table of owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coordination {
    /// The node with the lowest number, in its store.
    #[default]
    Embedded,
    Etcd,
}

/// A node's number and where other nodes connect to it, written like "1=127.0.0.1:7402".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Peer {
    pub node: NodeId,
    pub address: SocketAddr,
}

impl Peer {
    /// `None`: it's not written like that.
    pub fn parse(text: &str) -> Option<Peer> {
        let (node, address) = text.split_once('=')?;
        let node = node.parse().ok().filter(|number| (1..=MOST_NODE).contains(number))?;
        Some(Peer { node: NodeId(node), address: address.parse().ok()? })
    }
}

impl TryFrom<String> for Peer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Peer, &'static str> {
        Peer::parse(&text).ok_or("it is not a number, = and an address")
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> String {
        format!("{}={}", peer.node.0, peer.address)
    }
}

impl Default for Cluster {
    fn default() -> Cluster {
        let (nodes, etcd) = (Vec::new(), Vec::new());
        let coordination = Coordination::Embedded;
        Cluster {
            number: None,
            node: None,
            nodes,
            coordination,
            etcd,
            etcd_ca: None,
            etcd_certificate: None,
            etcd_key: None,
            lease_ms: 2_000,
        }
    }
}

impl Cluster {
    /// The files by which etcd is asked inside TLS: the authorities, and what this node shows. `None`: it's asked in the clear.
    pub fn etcd_files(&self) -> Option<(&Path, Option<[&Path; 2]>)> {
        let own = self.etcd_certificate.as_deref().zip(self.etcd_key.as_deref());
        Some((self.etcd_ca.as_deref()?, own.map(|(certificate, key)| [certificate, key])))
    }

    /// The node that keeps the table, if that is one of them: the one with the lowest number.
    pub fn coordinator(&self) -> Option<Peer> {
        let embedded = self.coordination == Coordination::Embedded;
        self.nodes.iter().filter(|_| embedded).min_by_key(|peer| peer.node).copied()
    }
}

pub(super) fn check(config: &Config) -> Result<(), Fault> {
    let cluster = &config.cluster;
    let (Some(_), Some(node)) = (cluster.number, cluster.node) else {
        return check_alone(cluster);
    };
    match cluster.coordination {
        Coordination::Embedded => check_embedded(cluster, node, config.link.address),
        Coordination::Etcd => check_etcd(cluster).and_then(|()| check_address(&config.link)),
    }
}

fn check_alone(cluster: &Cluster) -> Result<(), Fault> {
    match (cluster.number, cluster.node) {
        (Some(_), None) => Err(Fault::new("cluster.number", "this node has no number in it", "write cluster.node, from 1")),
        _ if *cluster != Cluster::default() => {
            let fix = "write cluster.number, from 1, or take [cluster] out for a lone node";
            Err(Fault::new("cluster", "the cluster has no number", fix))
        }
        _ => Ok(()),
    }
}

fn check_embedded(cluster: &Cluster, node: u16, said: Option<SocketAddr>) -> Result<(), Fault> {
    if !cluster.etcd.is_empty() {
        let problem = "nobody asks etcd while cluster.coordination is \"embedded\"";
        return Err(Fault::new("cluster.etcd", problem, "write coordination = \"etcd\", or take it out"));
    }
    for (at, peer) in cluster.nodes.iter().enumerate() {
        let before = &cluster.nodes[..at];
        if before.iter().any(|other| other.node == peer.node) {
            return Err(Fault::new(
                "cluster.nodes",
                format!("number {} stands there twice", peer.node.0),
                "give each node its own",
            ));
        }
        if before.iter().any(|other| other.address == peer.address) {
            return Err(Fault::new("cluster.nodes", format!("{} stands there twice", peer.address), "give each node its own"));
        }
    }
    let Some(own) = cluster.nodes.iter().find(|peer| peer.node.0 == node) else {
        let fix = format!("write all nodes there, the same on each, this one like \"{node}=127.0.0.1:7402\"");
        return Err(Fault::new("cluster.nodes", format!("node {node}, which this is, does not stand there"), fix));
    };
    match said.filter(|said| *said != own.address) {
        Some(_) => Err(Fault::new("link.address", format!("cluster.nodes says {}", own.address), "write the same, or take it out")),
        None => Ok(()),
    }
}

fn check_etcd(cluster: &Cluster) -> Result<(), Fault> {
    let like = "write it like \"http://127.0.0.1:2379\"";
    if !cluster.nodes.is_empty() {
        let problem = "with etcd the nodes find each other there";
        return Err(Fault::new("cluster.nodes", problem, "take it out, or write coordination = \"embedded\""));
    }
    if cluster.etcd.is_empty() {
        return Err(Fault::new("cluster.coordination", "nothing says where etcd is", "write cluster.etcd, all of its members"));
    }
    for url in &cluster.etcd {
        let endpoint = Endpoint::parse(url).map_err(|why| Fault::new("cluster.etcd", format!("\"{url}\": {why}"), like))?;
        if endpoint.is_private != cluster.etcd_ca.is_some() {
            return Err(match endpoint.is_private {
                true => Fault::new("cluster.etcd", "https needs to know whom to trust", "set cluster.etcd_ca"),
                false => Fault::new("cluster.etcd_ca", format!("\"{url}\" is not https"), "write https, or take it out"),
            });
        }
    }
    let own = (&cluster.etcd_certificate, &cluster.etcd_key, &cluster.etcd_ca);
    match own {
        (Some(_), None, _) => return Err(Fault::new("cluster.etcd_certificate", "its key is missing", "set cluster.etcd_key")),
        (None, Some(_), _) => {
            return Err(Fault::new("cluster.etcd_key", "its certificate is missing", "set cluster.etcd_certificate"));
        }
        (Some(_), _, None) => {
            return Err(Fault::new("cluster.etcd_certificate", "etcd is asked without TLS", "set cluster.etcd_ca"));
        }
        _ => {}
    }
    match cluster.lease_ms < LEAST_ETCD_LEASE_MS {
        true => {
            let problem = format!("etcd gives no lease of {} ms", cluster.lease_ms);
            Err(Fault::new("cluster.lease_ms", problem, format!("write {LEAST_ETCD_LEASE_MS} or more")))
        }
        false => Ok(()),
    }
}

/// With etcd each node says itself where the others find it.
fn check_address(link: &Link) -> Result<(), Fault> {
    let like = "write the address of this machine that they reach, like \"192.0.2.1:7402\"";
    match link.own_address() {
        None => Err(Fault::new("link.address", "nothing says where the other nodes connect to this one", like)),
        Some(own) if own.ip().is_unspecified() || own.port() == 0 => {
            Err(Fault::new("link.address", format!("{own} is nowhere that the other nodes could connect to"), like))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Config::parse("fanal.toml", text).expect_err("it's wrong").to_string()
    }

    #[test]
    fn a_cluster_is_read_and_its_coordinator_is_the_lowest_number() {
        let text = "[cluster]\nnumber = 3\nnode = 2\nnodes = [\"2=127.0.0.1:7402\", \"1=[::1]:7402\"]\nlease_ms = 1000";
        let cluster = Config::parse("fanal.toml", text).unwrap().cluster;
        assert_eq!((cluster.number, cluster.node, cluster.lease_ms), (Some(3), Some(2), 1000));
        assert_eq!(cluster.coordinator().map(String::from).as_deref(), Some("1=[::1]:7402"));
        let etcd = "[cluster]\nnumber = 3\nnode = 2\ncoordination = \"etcd\"\netcd = [\"http://127.0.0.1:2379\"]\n\
            lease_ms = 3000\n[store]\nkind = \"memory\"\n[link]\nlisten = \"127.0.0.1:7402\"";
        assert_eq!(Config::parse("fanal.toml", etcd).unwrap().cluster.coordinator(), None);
        assert_eq!(Config::parse("fanal.toml", "[cluster]\n").unwrap().cluster, Cluster::default());
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_fix() {
        let base = "[cluster]\nnumber = 1\nnode = 1\n";
        assert!(fault("[cluster]\nnode = 1").contains("write cluster.number"));
        assert!(fault("[cluster]\nnumber = 1").contains("write cluster.node"));
        assert!(fault("[cluster]\nnumber = 0").contains("from 1 to 32767"));
        assert!(fault(base).contains("this one like \"1=127.0.0.1:7402\""));
        assert!(fault(&format!("{base}nodes = [\"1:127.0.0.1\"]")).contains("fanal.toml:4:9: cluster.nodes"));
        assert!(fault(&format!("{base}nodes = [\"1=127.0.0.1:1\", \"1=127.0.0.1:2\"]")).contains("number 1 stands there twice"));
        assert!(fault(&format!("{base}nodes = [\"1=127.0.0.1:1\", \"2=127.0.0.1:1\"]")).contains("127.0.0.1:1 stands there twice"));
        assert!(fault(&format!("{base}nodes = [\"1=127.0.0.1:1\"]\netcd = [\"http://a\"]")).contains("coordination = \"etcd\""));
        let etcd = format!("{base}coordination = \"etcd\"\n");
        assert!(fault(&etcd).contains("write cluster.etcd"));
        assert!(fault(&format!("{etcd}etcd = [\"a:1\"]")).contains("http://127.0.0.1:2379"));
        assert!(fault(&format!("{etcd}etcd = [\"https://a:1\"]")).contains("set cluster.etcd_ca"));
        let file = |key: &str| format!("{key} = \"a.pem\"\n");
        let (ca, certificate, key) = (file("etcd_ca"), file("etcd_certificate"), file("etcd_key"));
        assert!(fault(&format!("{etcd}{ca}etcd = [\"https://a:1\", \"http://b:1\"]")).contains("\"http://b:1\" is not https"));
        assert!(fault(&format!("{etcd}{ca}{certificate}etcd = [\"https://a:1\"]")).contains("set cluster.etcd_key"));
        assert!(fault(&format!("{etcd}{ca}{key}etcd = [\"https://a:1\"]")).contains("set cluster.etcd_certificate"));
        assert!(fault(&format!("{etcd}{certificate}{key}etcd = [\"http://a:1\"]")).contains("without TLS"));
        assert!(fault(&format!("{etcd}etcd = [\"http://a:1\"]\nlease_ms = 1000")).contains("write 2000 or more"));
        let there = format!("{etcd}etcd = [\"http://a:1\"]\n");
        assert!(fault(&there).contains("link.address: nothing says where"), "{}", fault(&there));
        let wild = fault(&format!("{there}[link]\nlisten = \"0.0.0.0:7402\"\nplain = true"));
        assert!(wild.contains("0.0.0.0:7402 is nowhere"), "{wild}");
        let twice = fault(&format!("{base}nodes = [\"1=127.0.0.1:1\"]\n[link]\naddress = \"127.0.0.1:7402\""));
        assert!(twice.contains("cluster.nodes says 127.0.0.1:1"), "{twice}");
        assert!(fault(&format!("{etcd}etcd = [\"http://a:1\"]\nnodes = [\"1=127.0.0.1:1\"]")).contains("embedded"));
    }
}
