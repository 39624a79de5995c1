//! What a node of a cluster knows at the start: who the others are, where they are, and who keeps the table of owners.
//!
//! Lives on: the thread that starts the node. Serves Z1, Z4, G4. Invariant: every node of a cluster, configured alike, tells its
//! cores the same.

use super::listeners::Listening;
use super::trust::{Trust, Unusable};
use crate::admin::{ClusterStatus, NodeStatus};
use crate::base::config::cluster::Peer;
use crate::base::config::{self, Config, Coordination, Endpoint, Fault, StoreKind};
use crate::base::id::NodeId;
use crate::base::time::WallClock;
use crate::link;
use crate::link::classify::Policy;
use crate::ownership::clusters::{Cluster, Place};
use crate::ownership::{Myself, Terms};
use crate::shard::{Between, LinkReport, LinkTerms, PeerReport};
use crate::wire::link::Site;
use sha2::{Digest, Sha256};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// A node's place in its cluster.
pub(super) struct Membership {
    /// 0: the node is alone.
    pub number: u16,
    pub node: NodeId,
    /// Where the other nodes connect.
    pub address: Option<SocketAddr>,
    pub links: Option<Arc<LinkTerms>>,
    pub table: Option<TablePlace>,
}

/// Where the table of owners is kept, and what this node says of itself there.
pub(super) struct TablePlace {
    pub terms: Terms,
    pub kept_by: KeptBy,
    /// The node from which nobody takes users over, where all others' are: it keeps the table itself.
    pub irreplaceable: Option<NodeId>,
    node: NodeId,
    link: SocketAddr,
    start: u64,
    keeps: bool,
}

/// Who keeps it.
#[derive(Clone, Debug)]
pub(super) enum KeptBy {
    Node(NodeId),
    /// For the cluster of this number.
    Etcd {
        cluster: u16,
        endpoints: Vec<Endpoint>,
        /// `None`: it's asked in the clear.
        trust: Option<Trust>,
    },
}

impl TablePlace {
    /// `identity` as in `Life`.
    pub fn myself(&self, cores: u16, identity: u64, listening: &[Listening]) -> Myself {
        let doors = listening.iter().map(|door| (door.speaks.name().to_owned(), door.address)).collect();
        let &TablePlace { node, link, start, keeps, .. } = self;
        Myself { node, identity, start, keeps, cores, link, doors }
    }
}

impl Membership {
    /// The place that a configuration names. `epoch` is the store's; one that keeps nothing begins anew with each start, so the
    /// clock has its part in what tells one life of the node from the next.
    ///
    /// # Errors
    /// The dictionary can't be used.
    pub fn of(config: &Config, epoch: u32, wall: WallClock) -> Result<Membership, Fault> {
        let cluster = &config.cluster;
        let (Some(number), Some(node)) = (cluster.number, cluster.node) else {
            return Ok(Membership { number: 0, node: NodeId::default(), address: None, links: None, table: None });
        };
        let node = NodeId(node);
        let (own, others): (Vec<&Peer>, Vec<&Peer>) = cluster.nodes.iter().partition(|peer| peer.node == node);
        let (kept_by, link) = match cluster.coordination {
            Coordination::Embedded => {
                (cluster.coordinator().map(|first| KeptBy::Node(first.node)), own.first().map(|own| own.address))
            }
            Coordination::Etcd => {
                let endpoints = cluster.etcd.iter().filter_map(|url| Endpoint::parse(url).ok()).collect();
                (Some(KeptBy::Etcd { cluster: number, endpoints, trust: trust(cluster)? }), config.link.own_address())
            }
        };
        let (Some(kept_by), Some(link)) = (kept_by, link) else {
            return Err(Fault::new("cluster", "it does not say where this node is", "check the configuration: `fanal config`"));
        };
        let terms = LinkTerms {
            me: Site { cluster: number, node },
            epoch: u64::from(epoch) << LIFE_BITS | wall.0 & ((1 << LIFE_BITS) - 1),
            digest: digest(config),
            settings: link::Settings::new(&config.link, &config.limits),
            peers: others.iter().map(|peer| (peer.node, peer.address)).collect(),
            between: between(config, link)?,
            inline_max: config.presence.inline_max,
        };
        let take_over = config.store.kind == StoreKind::Postgres;
        let irreplaceable = match kept_by {
            KeptBy::Node(at) if take_over && !others.is_empty() => Some(at),
            _ => None,
        };
        let table = TablePlace {
            terms: Terms { lease_ms: cluster.lease_ms, take_over },
            kept_by,
            irreplaceable,
            node,
            link,
            start: terms.epoch,
            keeps: config.store.kind == StoreKind::Redb,
        };
        let address = config.link.listen.or(Some(link));
        Ok(Membership { number, node, address, links: Some(Arc::new(terms)), table: Some(table) })
    }

    /// What all cores know of the cluster, in the operator's words.
    pub fn status(&self, report: LinkReport, encrypted: bool) -> ClusterStatus {
        let terms = self.links.as_deref();
        let peer = |peer: PeerReport| NodeStatus {
            cluster: Some(peer.site.cluster).filter(|cluster| *cluster != self.number),
            node: peer.site.node.0,
            address: peer.address.map_or_else(String::new, |address| address.to_string()),
            found: peer.gauges.link_found > 0,
            since_ms: peer.since.map(|since| since.0),
            epoch: peer.life.map(|life| life.epoch >> LIFE_BITS),
            why: peer.why,
            gauges: peer.gauges,
            counts: peer.counts,
        };
        let failed = (report.tls_failed > 0).then(|| ("tls_failed".to_owned(), report.tls_failed));
        let ended = report.ended.into_iter().map(|(reason, count)| (reason.metric().to_owned(), count));
        ClusterStatus {
            cluster: self.number,
            node: self.node.0,
            address: self.address.map(|address| address.to_string()),
            epoch: terms.map_or(0, |terms| terms.epoch >> LIFE_BITS),
            encrypted,
            users: report.users,
            relays: report.relays,
            publishers_across: report.across,
            waits: report.waits,
            owners: None,
            nodes: report.peers.into_values().map(peer).collect(),
            ended: ended.chain(failed).collect(),
            stranger: report.stranger,
        }
    }
}

/// Milliseconds of the wall clock that stand in a life's number: 34 years.
const LIFE_BITS: u32 = 40;

/// What this node is told of other clusters; `None`: there are none.
fn between(config: &Config, link: SocketAddr) -> Result<Option<Between>, Fault> {
    let (Some(number), Some(directory)) = (config.cluster.number, config.directory.cluster) else { return Ok(None) };
    let named = |peers: &[Peer]| peers.iter().map(|peer| (peer.node, peer.address)).collect();
    let identity = identity(config);
    let nodes = match config.cluster.coordination {
        Coordination::Embedded => named(&config.cluster.nodes),
        // The others will be heard of.
        Coordination::Etcd => vec![(NodeId(config.cluster.node.unwrap_or_default()), link)],
    };
    let place = Place { domains: vec![config.node.domain.clone()], nodes };
    let dictionary = match &config.link.dictionary {
        Some(file) => std::fs::read(file).map_err(|why| unusable(file, &why))?,
        None => Vec::new(),
    };
    let between = Between {
        own: Cluster { number, identity: Between::short(&identity), place },
        identity,
        directory,
        at: named(&config.directory.at),
        policy: Policy::new(config.link.non_real_time.iter().map(String::as_str)),
        link: config.link.clone(),
        dictionary,
        is_shared: config.store.kind == StoreKind::Postgres,
    };
    between.try_out().map_err(|why| unusable(config.link.dictionary.as_deref().unwrap_or("zstd".as_ref()), &why))?;
    Ok(Some(between))
}

fn unusable(dictionary: &Path, why: &io::Error) -> Fault {
    let problem = format!("{} can't be used: {why}", dictionary.display());
    Fault::new("link.dictionary", problem, "name a file that `zstd --train` made, or take it out")
}

/// How etcd's members prove who they are.
fn trust(cluster: &config::Cluster) -> Result<Option<Trust>, Fault> {
    let bad = |Unusable { path, why }| {
        let key = if cluster.etcd_ca.as_deref() == Some(Path::new(&path)) { "cluster.etcd_ca" } else { "cluster.etcd_certificate" };
        Fault::new(key, format!("{path} can't be used: {why}"), "name files of PEM: authorities, and a certificate with its key")
    };
    cluster.etcd_files().map(|(authorities, own)| Trust::new(authorities, own)).transpose().map_err(bad)
}

/// What tells a cluster from any other one that is configured with the same number: its users' domain, and where its first node is,
/// or the first of etcd's. So it stays the same when other nodes come and go.
fn identity(config: &Config) -> [u8; 32] {
    let first = config.cluster.nodes.iter().min_by_key(|peer| peer.node).copied().map(String::from);
    let shared = (&config.node.domain, first.or_else(|| config.cluster.etcd.iter().min().cloned()));
    Sha256::digest(postcard::to_stdvec(&shared).expect("a configuration is plain values")).into()
}

/// Of what all nodes of a cluster should be configured with alike.
fn digest(config: &Config) -> [u8; 32] {
    let (mut cluster, mut link) = (config.cluster.clone(), config.link.clone());
    cluster.node = None;
    (link.listen, link.address) = (None, None);
    (cluster.etcd_ca, cluster.etcd_certificate, cluster.etcd_key) = (None, None, None);
    (link.ca, link.certificate, link.key, link.dictionary) = (None, None, None, None);
    let shares = config.store.kind == StoreKind::Postgres;
    let shared = (cluster, &config.directory, link, &config.node.domain, shares);
    Sha256::digest(postcard::to_stdvec(&shared).expect("a configuration is plain values")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(text: &str) -> Result<Membership, Fault> {
        Membership::of(&Config::parse("fanal.toml", text).unwrap(), 3, WallClock(5))
    }

    #[test]
    fn a_lone_node_owns_all_users_and_has_no_links() {
        let alone = membership("").unwrap();
        assert!(alone.links.is_none() && alone.address.is_none() && alone.table.is_none());
    }

    #[test]
    fn nodes_configured_alike_agree_on_who_keeps_the_table() {
        let nodes = "nodes = [\"1=127.0.0.1:7402\", \"2=127.0.0.1:7403\"]";
        let [one, two] = [1, 2].map(|node| membership(&format!("[cluster]\nnumber = 9\nnode = {node}\n{nodes}")).unwrap());
        let [first, second] = [&one, &two].map(|place| place.table.as_ref().unwrap());
        assert!(matches!((&first.kept_by, &second.kept_by), (KeptBy::Node(NodeId(1)), KeptBy::Node(NodeId(1)))));
        assert_eq!(first.terms, second.terms);
        let (links, others) = (one.links.unwrap(), two.links.unwrap());
        assert_eq!((links.digest, links.me.cluster, links.epoch), (others.digest, 9, 3 << 40 | 5));
        assert_eq!(links.peers, [(NodeId(2), "127.0.0.1:7403".parse().unwrap())]);
    }

    #[test]
    fn nodes_may_have_their_own_files_and_addresses_and_are_configured_alike() {
        let text = |listen, file| {
            format!(
                "[cluster]\nnumber = 9\nnode = 1\nnodes = [\"1=192.0.2.1:7402\"]\n\
                 [link]\nlisten = \"{listen}\"\nca = \"{file}\"\ncertificate = \"{file}\"\nkey = \"{file}\""
            )
        };
        let [one, two] = [("0.0.0.0:7402", "a"), ("0.0.0.0:7403", "b")].map(|(at, file)| membership(&text(at, file)).unwrap());
        assert_eq!(one.address, "0.0.0.0:7402".parse().ok());
        assert_eq!(one.links.unwrap().digest, two.links.unwrap().digest);
    }

    #[test]
    fn z2_nodes_configured_alike_tell_the_directory_the_same_and_another_cluster_something_else() {
        let between = |node: u16, first: &str| {
            let nodes = format!("nodes = [\"1={first}\", \"2=127.0.0.1:7403\"]");
            let directory = "[directory]\ncluster = 8\nat = [\"5=127.0.0.1:7409\"]";
            let text = format!("[cluster]\nnumber = 9\nnode = {node}\n{nodes}\n{directory}");
            membership(&text).unwrap().links.unwrap().between.clone().unwrap()
        };
        let [one, two, other] = [(1, "127.0.0.1:7402"), (2, "127.0.0.1:7402"), (1, "127.0.0.1:7404")].map(|(n, at)| between(n, at));
        assert_eq!((one.own.clone(), one.identity, one.directory), (two.own.clone(), two.identity, 8));
        assert_ne!((one.own.identity, one.identity), (other.own.identity, other.identity));
        assert_eq!(one.at, [(NodeId(5), "127.0.0.1:7409".parse().unwrap())]);
        assert!(
            membership("[cluster]\nnumber = 9\nnode = 1\nnodes = [\"1=127.0.0.1:7402\"]").unwrap().links.unwrap().between.is_none()
        );
    }

    #[test]
    fn a_dictionary_that_is_not_there_is_a_fault() {
        let text = "[cluster]\nnumber = 9\nnode = 1\nnodes = [\"1=127.0.0.1:7402\"]\n[directory]\ncluster = 9\n\
            [link]\ndictionary = \"/nowhere/presence.dictionary\"";
        assert!(membership(text).err().unwrap().to_string().contains("/nowhere/presence.dictionary"));
    }
}
