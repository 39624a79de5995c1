//! Several nodes of one cluster as they are: real cores, sockets, links over io_uring; a client connects to any of them (M2, M4,
//! G4).

mod support;

use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Secret};
use fanal::base::id::{NodeId, slot_of};
use fanal::client::{Client, Event, LogIn, Presence};
use fanal::wire::native::Show;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use support::served::Served;
use support::{LONG, TestNode, config, until};

/// Addresses that nobody uses, each of an address of the loopback network that only this test has.
fn addresses(nodes: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// The nodes 1, 2, ... with so many cores each.
struct Cluster {
    nodes: Vec<TestNode>,
    cores: Vec<usize>,
    peers: Vec<Peer>,
}

impl Cluster {
    fn start(cores: &[usize]) -> Cluster {
        let addresses = addresses(cores.len());
        let peers = (1..).zip(addresses).map(|(node, address)| Peer { node: NodeId(node), address }).collect();
        let mut cluster = Cluster { nodes: Vec::new(), cores: cores.to_vec(), peers };
        for node in 0..cores.len() {
            let started = cluster.node(node);
            cluster.nodes.push(started);
        }
        cluster
    }

    fn node(&self, node: usize) -> TestNode {
        let mut config = config(self.cores[node]);
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
        config.cluster.nodes = self.peers.clone();
        config.login.token_keys = vec![Secret::new("the same key at every node, for tests").unwrap()];
        TestNode::start(&config)
    }

    fn name_on(&self, node: usize, nth: usize) -> String {
        name_on(node, nth, self.peers.len())
    }

    fn user(&self, node: usize, jid: &str) -> Client {
        let at = &self.nodes[node];
        log_in(|| at.connect(), &at.token(jid), jid)
    }
}

/// The name of a user whose home is on a node.
fn name_on(node: usize, nth: usize, nodes: usize) -> String {
    let here = |name: &String| usize::from(slot_of(name)) % nodes == node;
    (0..).map(|n| format!("u{n}@localhost")).filter(here).nth(nth).unwrap()
}

/// A client logs in, as soon as its user's home can be reached.
fn log_in(connect: impl Fn() -> Client, token: &str, jid: &str) -> Client {
    let end = Instant::now() + LONG;
    loop {
        let mut client = connect();
        match client.log_in(jid, LogIn::Token(token), "desk") {
            Ok(_) => {
                client.set_presence(&Presence::default()).unwrap();
                return client;
            }
            Err(error) => assert!(Instant::now() < end, "{jid}: {error}"),
        }
    }
}

fn befriend(one: (&str, &mut Client), other: (&str, &mut Client)) {
    one.1.subscribe(other.0, "").unwrap();
    until(other.1, |event| matches!(event, Event::Subscription(_)).then_some(()));
    other.1.approve(one.0).unwrap();
}

fn sees(client: &mut Client, show: Show) {
    until(client, |event| match event {
        Event::Presence(event) if event.show == show => Some(()),
        _ => None,
    });
}

fn show(client: &mut Client, show: Show) {
    client.set_presence(&Presence { show, ..Presence::default() }).unwrap();
}

#[test]
fn m2_clients_of_different_nodes_see_each_other() {
    for cores in [&[1, 1][..], &[2, 2], &[1, 2], &[2, 1, 2]] {
        let cluster = Cluster::start(cores);
        for (a, b) in [(0, 1), (1, 0), (0, 0)] {
            let (ann, bob) = (cluster.name_on(0, a * 2 + b), cluster.name_on(1, a * 2 + b));
            let (mut one, mut two) = (cluster.user(a, &ann), cluster.user(b, &bob));
            befriend((&ann, &mut one), (&bob, &mut two));
            sees(&mut one, Show::Available);
            show(&mut two, Show::Away);
            sees(&mut one, Show::Away);
            two.log_out("").unwrap();
            sees(&mut one, Show::Unavailable);
        }
    }
}

/// Above what the requirement says, for a machine that does not let the survivor run.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn z13_the_users_of_a_killed_node_are_shown_as_gone_within_three_seconds_and_come_back_with_it() {
    let data = tempfile::tempdir().unwrap();
    let peers: Vec<Peer> = (1..).zip(addresses(2)).map(|(node, address)| Peer { node: NodeId(node), address }).collect();
    let serve = |node: usize| {
        let mut config = Config::default();
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
        config.cluster.nodes = peers.clone();
        Served::start_with_config(&data.path().join(node.to_string()), 1, &config)
    };
    let user =
        |node: &Served, jid: &str| log_in(|| Client::connect(&node.native.to_string(), LONG).unwrap(), &node.token(jid), jid);
    let (ann, bob) = (name_on(0, 0, 2), name_on(1, 0, 2));
    let (first, second) = (serve(0), serve(1));
    let (mut one, mut two) = (user(&first, &ann), user(&second, &bob));
    befriend((&ann, &mut one), (&bob, &mut two));
    sees(&mut one, Show::Available);
    let killed = Instant::now();
    kill(Pid::from_raw(second.pid() as i32), Signal::SIGKILL).unwrap();
    sees(&mut one, Show::Unavailable);
    assert!(killed.elapsed() < Duration::from_secs(3) + LATE, "{:?}", killed.elapsed());
    drop(second);
    let second = serve(1);
    let again = user(&second, &bob);
    sees(&mut one, Show::Available);
    // A client that reads nothing holds its node up.
    drop((one, again));
    first.stop();
    second.stop();
}
