//! A directory that is kept by a cluster on etcd and a shared database, as processes: what is known of clusters and their users
//! outlives any node (Z1, Z2, Z3). Skipped, with a word, where there is no etcd or no PostgreSQL.

#![cfg(feature = "runtime")]

mod support;

use fanal::admin::client::Client as Admin;
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Coordination, DatabaseUrl, Secret, StoreKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::clusters::{KEY, addresses, eventually, peers};
use support::etcd;
use support::postgres::server;
use support::served::Served;

/// Users of the second cluster: so many that both nodes of the directory know some.
const USERS: usize = 24;

/// As it is configured if nothing is said.
const LEASE: Duration = Duration::from_millis(2_000);
/// Above what it takes, for a machine that does not let the survivors run.
const LATE: Duration = Duration::from_secs(5);

/// Cluster 1 keeps the directory by two nodes; others log in to it.
struct Directory {
    etcd: etcd::Server,
    url: String,
    nodes: Vec<Peer>,
    data: tempfile::TempDir,
}

impl Directory {
    fn new() -> Option<Directory> {
        let (server, etcd) = (server()?, etcd::Server::start()?);
        Some(Directory { etcd, url: server.new_url(), nodes: peers(2), data: tempfile::tempdir().unwrap() })
    }

    fn keeper(&self, node: usize) -> Served {
        let mut config = Config::default();
        (config.cluster.number, config.cluster.node) = (Some(1), Some(self.nodes[node].node.0));
        let etcd = format!("http://{}", self.etcd.address());
        (config.cluster.coordination, config.cluster.etcd) = (Coordination::Etcd, vec![etcd]);
        config.link.listen = Some(self.nodes[node].address);
        (config.store.kind, config.store.url) = (StoreKind::Postgres, Some(DatabaseUrl(self.url.clone())));
        config.directory.cluster = Some(1);
        self.serve(&format!("keeper{node}"), config)
    }

    /// The one node of another cluster.
    fn member(&self, number: u16, name: &str, address: SocketAddr) -> Served {
        self.member_at(&self.nodes, number, name, address)
    }

    /// The same, which knows of these nodes of the directory.
    fn member_at(&self, nodes: &[Peer], number: u16, name: &str, address: SocketAddr) -> Served {
        let mut config = Config::default();
        (config.cluster.number, config.cluster.node) = (Some(number), Some(1));
        config.cluster.nodes = vec![Peer { address, ..self.nodes[0] }];
        (config.directory.cluster, config.directory.at) = (Some(1), nodes.to_vec());
        self.serve(name, config)
    }

    fn serve(&self, name: &str, mut config: Config) -> Served {
        config.login.token_keys = vec![Secret::new(KEY).unwrap()];
        let place: PathBuf = self.data.path().join(name);
        Served::start_with_config(&place, 1, &config)
    }
}

fn admin(node: &Served) -> Admin {
    Admin::new(node.admin, None)
}

fn name(number: usize) -> String {
    format!("u{number}@localhost")
}

/// Of which cluster a user is, as a node says; waits until it can say.
fn cluster_of(node: &Served, jid: &str) -> Option<u16> {
    let located = || admin(node).locate(jid).ok();
    eventually(|| located().is_some(), || format!("{jid}: {:?}", admin(node).locate(jid).err().map(|why| why.to_string())));
    located().expect("it was, a moment ago").cluster
}

/// Waits until the directory knows that a user is of a cluster.
fn is_of(node: &Served, jid: &str, cluster: u16) {
    eventually(|| cluster_of(node, jid) == Some(cluster), || format!("{jid} is of {:?}", cluster_of(node, jid)));
}

/// The numbers of the clusters that a node knows, and how many users each has.
fn clusters(node: &Served) -> Vec<(u16, Option<u64>)> {
    let list = admin(node).clusters().map(|list| list.clusters).unwrap_or_default();
    list.iter().map(|cluster| (cluster.number, cluster.users)).collect()
}

fn add(node: &Served, jid: &str) {
    eventually(|| admin(node).add_user(jid, None).is_ok(), || format!("{jid}: {}", node.log()));
}

fn is_refused(node: &Served, jid: &str) {
    let why = admin(node).add_user(jid, None).expect_err("another cluster has it").to_string();
    assert!(why.contains("for another cluster"), "{why}");
}

/// Why a cluster has no links to others.
fn why_not(node: &Served) -> String {
    admin(node).cluster().unwrap().nodes.into_iter().filter_map(|node| node.why).collect()
}

/// Z1: whichever nodes of the directory they log in at.
#[test]
fn z1_of_two_clusters_that_want_one_number_at_once_one_gets_it() {
    let Some(directory) = Directory::new() else { return };
    let at = addresses(2);
    let keepers = [0, 1].map(|node| directory.keeper(node));
    let (one, other) = std::thread::scope(|scope| {
        let logs_in = |node: usize, name: &'static str| {
            let (directory, at) = (&directory, at[node]);
            scope.spawn(move || directory.member_at(&directory.nodes[node..=node], 5, name, at))
        };
        let both = [logs_in(0, "one"), logs_in(1, "other")];
        let [one, other] = both.map(|started| started.join().unwrap());
        (one, other)
    });
    let both = [one, other];
    let has_number = |node: &Served| clusters(node).len() == 2;
    let refused = |node: &Served| why_not(node).contains("another cluster has this cluster's number");
    let is_settled =
        || both.iter().filter(|node| has_number(node)).count() == 1 && both.iter().filter(|node| refused(node)).count() == 1;
    eventually(is_settled, || format!("{:?} {:?}", both.each_ref().map(clusters), both.each_ref().map(why_not)));
    let places =
        keepers.each_ref().map(|keeper| admin(keeper).clusters().unwrap().clusters.pop().unwrap().nodes[0].address.clone());
    let winner = both.iter().position(has_number).unwrap();
    assert_eq!(places, [at[winner].to_string(), at[winner].to_string()]);
    keepers.into_iter().chain(both).for_each(Served::stop);
}

/// Z1, Z2, Z3.
#[test]
fn z1_what_a_directory_knows_is_taken_over_and_no_name_and_no_number_is_given_twice() {
    let Some(directory) = Directory::new() else { return };
    let at = addresses(3);
    let keepers = [0, 1].map(|node| directory.keeper(node));
    let (second, third) = (directory.member(2, "second", at[0]), directory.member(3, "third", at[1]));
    (0..USERS).for_each(|number| add(&second, &name(number)));
    for keeper in &keepers {
        let all = || clusters(keeper) == [(1, Some(0)), (2, Some(USERS as u64)), (3, Some(0))];
        eventually(all, || format!("{:?}", clusters(keeper)));
    }
    let owners = admin(&keepers[1]).cluster().unwrap().owners.unwrap();
    assert!(owners.members.iter().all(|member| member.slots > 0), "both know some: {owners:?}");
    // The one that looked after slots without owners.
    let [first, other] = keepers;
    assert_eq!(owners.steward, 1);
    first.kill();
    let killed = Instant::now();
    (0..USERS).for_each(|number| assert_eq!(cluster_of(&other, &name(number)), Some(2)));
    assert!(killed.elapsed() < 2 * LEASE + LATE, "{:?}", killed.elapsed());
    (0..USERS).for_each(|number| is_refused(&third, &name(number)));
    add(&third, "new@localhost");
    is_of(&second, "new@localhost", 3);
    is_refused(&second, "new@localhost");
    // Nobody is left who could tell the next one.
    second.stop();
    other.kill();
    let first = directory.keeper(0);
    let all = || clusters(&first) == [(1, Some(0)), (2, Some(USERS as u64)), (3, Some(1))];
    eventually(all, || format!("{:?}", clusters(&first)));
    let stranger = directory.member(2, "stranger", at[2]);
    eventually(|| why_not(&stranger).contains("another cluster has this cluster's number"), || why_not(&stranger));
    let second = directory.member(2, "second", at[0]);
    add(&second, "late@localhost");
    is_of(&first, "late@localhost", 2);
    [first, second, third, stranger].into_iter().for_each(Served::stop);
}
