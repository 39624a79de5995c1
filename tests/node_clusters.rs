//! Clusters as they are: real nodes, sockets, links over io_uring; each cluster logs in to the directory (Z1, Z2), and users of
//! different ones see each other and write to each other.

mod support;

use fanal::admin::client::Client as Admin;
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Secret};
use fanal::base::id::NodeId;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use support::{LONG, TestNode, config};

/// Addresses that nobody uses.
fn addresses(nodes: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

fn peers(nodes: usize) -> Vec<Peer> {
    (1..).zip(addresses(nodes)).map(|(node, address)| Peer { node: NodeId(node), address }).collect()
}

/// A node with its admin API.
struct Place {
    node: TestNode,
    admin: Admin,
}

impl Place {
    fn start(config: &Config) -> Place {
        let mut node = TestNode::start(config);
        let address = node.0.as_mut().unwrap().start_admin(config).unwrap();
        Place { node, admin: Admin::new(address, None) }
    }

    /// The sum over all cores.
    fn metric(&self, name: &str) -> u64 {
        let text = self.admin.get("/metrics").unwrap();
        let samples = text.lines().filter(|line| line.starts_with(&format!("fanal_{name}{{")));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Waits until every core of the node has found so many other clusters.
    fn finds(&self, clusters: u64) {
        let cores = u64::from(self.node.node().cores);
        eventually(|| self.metric("clusters_found") == clusters * cores, || format!("{} found", self.metric("clusters_found")));
    }
}

fn eventually(is_so: impl Fn() -> bool, what: impl Fn() -> String) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How the nodes of one cluster are configured; the directory's nodes come from the first cluster.
fn configured(number: u16, nodes: &[Peer], node: usize, cores: usize, directory: (u16, &[Peer])) -> Config {
    let mut config = config(cores);
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    (config.cluster.number, config.cluster.node) = (Some(number), Some(nodes[node].node.0));
    config.cluster.nodes = nodes.to_vec();
    config.directory.cluster = Some(directory.0);
    if directory.0 != number {
        config.directory.at = directory.1.to_vec();
    }
    config.login.token_keys = vec![Secret::new("the same key at every node, for tests").unwrap()];
    config
}

/// Clusters with numbers of their own, the cores of each node of each; the first keeps the directory.
struct Clusters(Vec<Vec<Place>>);

impl Clusters {
    fn start(clusters: &[(u16, &[usize])]) -> Clusters {
        let nodes: Vec<Vec<Peer>> = clusters.iter().map(|(_, cores)| peers(cores.len())).collect();
        let directory = (clusters[0].0, &nodes[0][..]);
        let place = |at: usize, node: usize| {
            let (number, cores) = clusters[at];
            Place::start(&configured(number, &nodes[at], node, cores[node], directory))
        };
        let all = (0..clusters.len()).map(|at| (0..clusters[at].1.len()).map(|node| place(at, node)).collect()).collect();
        let clusters = Clusters(all);
        let others = clusters.0.len() as u64 - 1;
        clusters.0.iter().flatten().for_each(|place| place.finds(others));
        clusters
    }
}

/// Rows Z1, Z2.
#[test]
fn z1_z2_clusters_log_in_to_the_directory_and_every_node_finds_all_others() {
    // The directory's number may be lower or higher than the others'; nodes may have different cores.
    Clusters::start(&[(1, &[1]), (2, &[1])]);
    Clusters::start(&[(9, &[2, 1]), (2, &[1, 2])]);
    Clusters::start(&[(5, &[1]), (7, &[1, 1]), (3, &[2])]);
}

/// Rows Z1, Z2.
#[test]
fn z1_a_second_cluster_of_the_same_number_stays_out_and_the_first_goes_on() {
    let directory = peers(2);
    let start = |number: u16, nodes: &[Peer], node: usize| Place::start(&configured(number, nodes, node, 1, (1, &directory)));
    let [first, second] = [start(1, &directory, 0), start(1, &directory, 1)];
    let holder = start(7, &peers(1), 0);
    holder.finds(1);
    let late = start(7, &peers(1), 0);
    let other = start(8, &peers(1), 0);
    other.finds(2);
    holder.finds(2);
    [&first, &second].into_iter().for_each(|node| node.finds(2));
    assert_eq!((late.metric("clusters_known"), late.metric("clusters_found")), (0, 0));
}
