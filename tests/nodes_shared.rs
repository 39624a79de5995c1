//! Nodes of a cluster that share a database, as processes, and take over the users of one that is gone (M1, M3, Z4, Z13).

mod support;

use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, DatabaseUrl, Secret, StoreKind};
use fanal::base::id::NodeId;
use fanal::base::reason::Reason;
use fanal::client::{Client, Error, Event, LogIn, Presence};
use fanal::wire::native::Show;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::postgres::{Server, query, server};
use support::served::{Served, user_on, users};
use support::{LONG, until};

const KEY: &str = "the same key at every node, for tests";
/// Shorter than the default, so that tests are.
const LEASE: Duration = Duration::from_millis(1_000);
/// Above what it takes, for a machine that does not let the survivors run.
const LATE: Duration = Duration::from_secs(5);

/// The nodes 1 to 3 and their database.
struct Trio {
    nodes: Vec<Option<Served>>,
    url: String,
    peers: Vec<Peer>,
    data: tempfile::TempDir,
}

impl Trio {
    fn start(server: &Server) -> Trio {
        let held: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let peers = (1..).zip(&held).map(|(node, at)| Peer { node: NodeId(node), address: at.local_addr().unwrap() }).collect();
        drop(held);
        let data = tempfile::tempdir().unwrap();
        let mut trio = Trio { nodes: vec![None, None, None], url: server.new_url(), peers, data };
        (0..3).for_each(|node| trio.serve(node));
        trio
    }

    fn serve(&mut self, node: usize) {
        let mut config = Config::default();
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
        (config.cluster.nodes, config.cluster.lease_ms) = (self.peers.clone(), LEASE.as_millis() as u32);
        (config.store.kind, config.store.url) = (StoreKind::Postgres, Some(DatabaseUrl(self.url.clone())));
        config.store.timeout_ms = 1_000;
        config.login.token_keys = vec![Secret::new(KEY).unwrap()];
        self.nodes[node] = Some(Served::start_with_config(&self.data.path().join(node.to_string()), 1, &config));
    }

    fn node(&self, node: usize) -> &Served {
        self.nodes[node].as_ref().expect("it runs")
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].take().expect("it runs").kill();
    }

    /// A new user whose home is on a node.
    fn user_on(&self, node: usize, kind: &str) -> String {
        user_on(self.node(0).admin, self.node(node).admin, kind)
    }

    /// A session of a user at a node, as soon as the home can be reached.
    fn log_in(&self, node: usize, jid: &str) -> Client {
        let (end, node) = (Instant::now() + LONG, self.node(node));
        loop {
            let mut client = Client::connect(&node.native.to_string(), LONG).unwrap();
            match client.log_in(jid, LogIn::Token(&node.token_by(KEY, jid)), "desk") {
                Ok(_) => {
                    client.set_presence(&Presence::default()).unwrap();
                    return client;
                }
                Err(error) => assert!(Instant::now() < end, "{jid}: {error}"),
            }
        }
    }

    fn stop(self) {
        self.nodes.into_iter().flatten().for_each(Served::stop);
    }
}

fn befriend(one: (&str, &mut Client), other: (&str, &mut Client)) {
    one.1.subscribe(other.0, "").unwrap();
    until(other.1, |event| matches!(event, Event::Subscription(_)).then_some(()));
    other.1.approve(one.0).unwrap();
    sees(one.1, Show::Available);
}

/// Waits for a contact to be shown like this, and nothing else before.
fn sees(client: &mut Client, show: Show) {
    let seen = until(client, |event| match event {
        Event::Presence(event) => Some(event.show),
        _ => None,
    });
    assert_eq!(seen, show);
}

fn show(client: &mut Client, show: Show) {
    client.set_presence(&Presence { show, ..Presence::default() }).unwrap();
}

fn signal(node: &Served, signal: Signal) {
    kill(Pid::from_raw(node.pid() as i32), signal).unwrap();
}

/// M1, Z13.
#[test]
fn z13_the_users_of_a_killed_node_are_taken_over_with_all_they_have_and_shown_as_gone_once() {
    let Some(server) = server() else { return };
    let mut trio = Trio::start(server);
    let (ann, bob, cara, dan) = (trio.user_on(2, "ann"), trio.user_on(1, "bob"), trio.user_on(0, "cara"), trio.user_on(2, "dan"));
    let [mut a, mut b, mut c, mut d] = [(2, &ann), (1, &bob), (0, &cara), (1, &dan)].map(|(node, jid)| trio.log_in(node, jid));
    befriend((&bob, &mut b), (&ann, &mut a));
    befriend((&cara, &mut c), (&ann, &mut a));
    befriend((&ann, &mut a), (&bob, &mut b));
    let killed = Instant::now();
    trio.kill(2);
    for client in [&mut b, &mut c] {
        sees(client, Show::Unavailable);
    }
    assert!(killed.elapsed() < Duration::from_secs(3) + LATE, "{:?}", killed.elapsed());
    until(&mut d, |event| matches!(&event, Event::Refused(refusal) if refusal.reason() == Some(Reason::HomeOutOfReach)).then_some(()));
    let mut a = trio.log_in(0, &ann);
    assert!(killed.elapsed() < LEASE + LATE, "{:?}", killed.elapsed());
    let mut contacts: Vec<String> = a.roster().unwrap().into_iter().map(|contact| contact.jid).collect();
    contacts.sort_unstable();
    assert_eq!(contacts, [bob.clone(), cara.clone()]);
    sees(&mut a, Show::Available);
    for client in [&mut b, &mut c] {
        sees(client, Show::Available);
    }
    show(&mut a, Show::Away);
    show(&mut b, Show::Chat);
    [&mut b, &mut c].into_iter().for_each(|client| sees(client, Show::Away));
    sees(&mut a, Show::Chat);
    drop(trio.log_in(1, &dan));
    // It returns, and has nothing but what it's given anew.
    trio.serve(2);
    let eve = trio.user_on(2, "eve");
    assert!(!users(trio.node(2).admin).contains(&ann) && users(trio.node(2).admin).contains(&eve));
    show(&mut a, Show::DoNotDisturb);
    [&mut b, &mut c].into_iter().for_each(|client| sees(client, Show::DoNotDisturb));
    drop((a, b, c, d));
    trio.stop();
}
