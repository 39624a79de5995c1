//! Clusters as they are: real nodes and sockets, each with its admin API, and clients of different ones.

use super::{LONG, TestNode, config, until};
use fanal::admin::client::Client as Admin;
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Secret};
use fanal::base::id::NodeId;
use fanal::client::{Client, Event, LogIn, Presence};
use fanal::wire::native::Show;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The key of log-in tokens at every node.
pub const KEY: &str = "the same key at every node, for tests";

/// Addresses that nobody uses: each of an address of the loopback network that only it has, so that no node's other doors, which
/// are all on 127.0.0.1, can be given the same port.
pub fn addresses(nodes: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let address = |_| {
        let [low, high, ..] = std::process::id().to_le_bytes();
        let own = Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed));
        TcpListener::bind((own, 0)).unwrap().local_addr().unwrap()
    };
    (0..nodes).map(address).collect()
}

pub fn peers(nodes: usize) -> Vec<Peer> {
    (1..).zip(addresses(nodes)).map(|(node, address)| Peer { node: NodeId(node), address }).collect()
}

/// A node with its admin API.
pub struct Place {
    pub node: TestNode,
    pub address: SocketAddr,
    pub admin: Admin,
}

impl Place {
    pub fn start(config: &Config) -> Place {
        let mut node = TestNode::start(config);
        let address = node.0.as_mut().unwrap().start_admin(config).unwrap();
        Place { node, address, admin: Admin::new(address, None) }
    }

    /// A user logs in here.
    pub fn user(&self, jid: &str) -> Client {
        log_in(&self.node.address(), &self.node.token(jid), jid)
    }

    /// The sum over all cores.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.admin.get("/metrics").unwrap();
        let samples = text.lines().filter(|line| line.starts_with(&format!("fanal_{name}{{")));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Waits until every core of the node has found so many other clusters.
    pub fn finds(&self, clusters: u64) {
        let cores = u64::from(self.node.node().cores);
        eventually(|| self.metric("clusters_found") == clusters * cores, || format!("{} found", self.metric("clusters_found")));
    }
}

pub fn eventually(is_so: impl Fn() -> bool, what: impl Fn() -> String) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How the nodes of one cluster are configured; the directory's nodes come from the first cluster.
pub fn configured(number: u16, nodes: &[Peer], node: usize, cores: usize, directory: (u16, &[Peer])) -> Config {
    let mut config = config(cores);
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    (config.cluster.number, config.cluster.node) = (Some(number), Some(nodes[node].node.0));
    config.cluster.nodes = nodes.to_vec();
    config.directory.cluster = Some(directory.0);
    if directory.0 != number {
        config.directory.at = directory.1.to_vec();
    }
    config.login.token_keys = vec![Secret::new(KEY).unwrap()];
    config
}

/// Clusters with numbers of their own, the cores of each node of each; the first keeps the directory.
pub struct Clusters(pub Vec<Vec<Place>>);

impl Clusters {
    pub fn start(clusters: &[(u16, &[usize])]) -> Clusters {
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

/// A client logs in, as soon as its user's home can be reached.
pub fn log_in(address: &str, token: &str, jid: &str) -> Client {
    let end = Instant::now() + LONG;
    loop {
        let mut client = Client::connect(address, LONG).unwrap();
        match client.log_in(jid, LogIn::Token(token), "desk") {
            Ok(_) => {
                client.set_presence(&Presence::default()).unwrap();
                return client;
            }
            Err(error) => assert!(Instant::now() < end, "{jid}: {error}"),
        }
    }
}

/// `one` sees `other` from now on. Who has logged in can be found, wherever that was.
pub fn befriend(one: (&str, &mut Client), other: (&str, &mut Client)) {
    one.1.subscribe(other.0, "").unwrap();
    until(other.1, |event| match event {
        Event::Subscription(request) if request.jid == one.0 => Some(()),
        _ => None,
    });
    other.1.approve(one.0).unwrap();
}

pub fn sees(client: &mut Client, show: Show) {
    until(client, |event| match event {
        Event::Presence(event) if event.show == show => Some(()),
        _ => None,
    });
}

pub fn show(client: &mut Client, show: Show) {
    client.set_presence(&Presence { show, ..Presence::default() }).unwrap();
}

pub fn writes(client: &mut Client, status: &str) {
    client.set_presence(&Presence { status: status.into(), ..Presence::default() }).unwrap();
}

pub fn hears(client: &mut Client, body: &str) {
    until(client, |event| match event {
        Event::Message(message) if message.body == body.as_bytes() => Some(()),
        _ => None,
    });
}
