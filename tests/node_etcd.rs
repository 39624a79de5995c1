//! Nodes of one cluster that find each other and share out users by a real etcd: processes of their own, sockets, links. Z1, Z4,
//! M1, M4. Skipped, with a word, where there is no etcd.

#![cfg(feature = "runtime")]

mod support;

use fanal::admin::MemberState;
use fanal::admin::client::{Client as Admin, ClientError};
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Coordination};
use fanal::base::id::NodeId;
use fanal::client::{Client, Event};
use fanal::wire::native::Show;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use support::clusters::{addresses, befriend, log_in, sees, show};
use support::etcd::{Server, Way};
use support::served::{Served, fanal, user_on, users};
use support::{LONG, until};

/// Nodes of a cluster, each of its own process with a store of its own.
struct Cluster {
    data: tempfile::TempDir,
    links: Vec<SocketAddr>,
}

impl Cluster {
    /// Of so many nodes, none of which runs yet.
    fn new(nodes: usize) -> Cluster {
        Cluster { data: tempfile::tempdir().unwrap(), links: addresses(nodes) }
    }

    /// A node that finds etcd there.
    fn serve(&self, node: usize, etcd: SocketAddr) -> Served {
        self.serve_with(node, etcd, |_| ())
    }

    fn serve_with(&self, node: usize, etcd: SocketAddr, change: impl Fn(&mut Config)) -> Served {
        let mut config = Config::default();
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
        (config.cluster.coordination, config.cluster.etcd) = (Coordination::Etcd, vec![format!("http://{etcd}")]);
        config.link.listen = Some(self.links[node]);
        change(&mut config);
        Served::start_with_config(&self.path(node), 1, &config)
    }

    fn path(&self, node: usize) -> std::path::PathBuf {
        Path::new(self.data.path()).join(node.to_string())
    }
}

fn user(node: &Served, jid: &str) -> Client {
    log_in(&node.native.to_string(), &node.token(jid), jid)
}

/// Two users on different nodes, the first of whom sees the second.
fn pair(one: &Served, other: &Served) -> (Client, Client, String) {
    let (ann, bob) = (user_on(one.admin, one.admin, "ann"), user_on(one.admin, other.admin, "bob"));
    let (mut watcher, mut publisher) = (user(one, &ann), user(other, &bob));
    befriend((&ann, &mut watcher), (&bob, &mut publisher));
    sees(&mut watcher, Show::Available);
    (watcher, publisher, bob)
}

/// Z1, Z4, M1, M4.
#[test]
fn z4_nodes_find_each_other_in_etcd_share_out_users_and_one_that_comes_later_gets_some() {
    let Some(server) = Server::start() else { return };
    let cluster = Cluster::new(3);
    let (first, second) = (cluster.serve(0, server.address()), cluster.serve(1, server.address()));
    let (mut watcher, mut publisher, bob) = pair(&first, &second);
    let third = cluster.serve(2, server.address());
    let cara = user_on(first.admin, third.admin, "cara");
    let mut late = user(&second, &cara);
    late.subscribe(&bob, "").unwrap();
    until(&mut publisher, |event| matches!(event, Event::Subscription(_)).then_some(()));
    publisher.approve(&cara).unwrap();
    sees(&mut late, Show::Available);
    show(&mut publisher, Show::Away);
    sees(&mut watcher, Show::Away);
    sees(&mut late, Show::Away);
    drop((watcher, publisher, late));
    let before = [&first, &second, &third].map(|node| users(node.admin));
    [first, second, third].into_iter().for_each(Served::stop);
    let nodes = [2, 1, 0].map(|node| cluster.serve(node, server.address()));
    drop(user(&nodes[0], &bob));
    assert_eq!([2, 1, 0].map(|at| users(nodes[at].admin)), before, "all are where they were");
    nodes.into_iter().for_each(Served::stop);
}

/// Z4: presence goes on without etcd, and who comes into being waits for it.
#[test]
fn z4_while_etcd_is_away_presence_goes_on_and_assignments_wait() {
    let Some(mut server) = Server::start() else { return };
    let cluster = Cluster::new(2);
    let (first, second) = (cluster.serve(0, server.address()), cluster.serve(1, server.address()));
    let (mut watcher, mut publisher, _) = pair(&first, &second);
    let admin = first.admin;
    let waits = std::cell::OnceCell::new();
    server.kill_and_restart(|| {
        let made = std::thread::spawn(move || {
            (0..64).map(|n| Admin::new(admin, None).add_user(&format!("late{n}@localhost"), None)).all(|made| made.is_ok())
        });
        _ = waits.set(made);
        // Longer than any lease.
        let end = Instant::now() + Duration::from_secs(4);
        for turn in 0.. {
            let shown = [Show::Away, Show::DoNotDisturb][turn % 2];
            show(&mut publisher, shown);
            sees(&mut watcher, shown);
            if Instant::now() > end {
                break;
            }
        }
    });
    assert!(waits.into_inner().unwrap().join().unwrap(), "they were made in the end: {}", first.log());
    user_on(first.admin, second.admin, "new");
    drop((watcher, publisher));
    first.stop();
    second.stop();
}

/// Z13, G4.
#[test]
fn z13_the_users_of_a_killed_node_are_shown_as_gone_and_come_back_with_it_and_the_others_go_on() {
    let Some(server) = Server::start() else { return };
    let cluster = Cluster::new(3);
    let [first, second, third] = [0, 1, 2].map(|node| cluster.serve(node, server.address()));
    let (mut watcher, publisher, bob) = pair(&second, &first);
    first.kill();
    sees(&mut watcher, Show::Unavailable);
    drop(publisher);
    // The one with the lowest number looked after slots without owners.
    user_on(second.admin, third.admin, "dora");
    let first = cluster.serve(0, server.address());
    let again = user(&third, &bob);
    sees(&mut watcher, Show::Available);
    drop((watcher, again));
    [first, second, third].into_iter().for_each(Served::stop);
}

/// A node that can't reach etcd goes on with what it knows, and hears what it missed, whatever is compacted by then.
#[test]
fn z4_a_node_cut_off_from_etcd_goes_on_and_catches_up() {
    let Some(server) = Server::start() else { return };
    let (cluster, way) = (Cluster::new(3), Way::to(server.address()));
    let (first, second) = (cluster.serve(0, way.address), cluster.serve(1, server.address()));
    let (mut watcher, mut publisher, _) = pair(&second, &first);
    way.cut();
    let third = cluster.serve(2, server.address());
    let cara = user_on(second.admin, third.admin, "cara");
    show(&mut publisher, Show::Away);
    sees(&mut watcher, Show::Away);
    // It looked after slots without owners. The others agree on another one, and tell it.
    let steward = |node: &Served| Admin::new(node.admin, None).cluster().unwrap().owners.unwrap().steward;
    eventually(|| [&first, &second, &third].iter().all(|node| steward(node) == 2));
    server.compact();
    way.heal();
    eventually(|| [&first, &second, &third].iter().all(|node| steward(node) == 1));
    // Its node has heard of the third one, and of who is there.
    let mut late = user(&first, &cara);
    show(&mut late, Show::DoNotDisturb);
    drop((watcher, publisher, late));
    [first, second, third].into_iter().for_each(Served::stop);
}

/// G5, M1: what the operator is told, and may want.
#[test]
fn g5_the_operator_sees_who_shares_out_users_drains_a_node_and_has_a_lost_one_forgotten() {
    let Some(server) = Server::start() else { return };
    let (cluster, way) = (Cluster::new(2), Way::to(server.address()));
    let (first, second) = (cluster.serve(0, way.address), cluster.serve(1, server.address()));
    user_on(first.admin, second.admin, "bob");
    let admin = Admin::new(first.admin, None);
    let owners = || admin.cluster().unwrap().owners.expect("it's in a cluster");
    let slots =
        |node: u16| owners().members.iter().find(|member| member.node == node).map(|member| (member.state, member.slots > 0));
    assert_eq!((owners().kept_by.as_str(), owners().away_since_ms, owners().steward), ("etcd", None, 1));
    assert_eq!(slots(2), Some((MemberState::Serving, true)));
    let metrics = admin.get("/metrics").unwrap();
    assert!(metrics.contains("fanal_owners_up 1") && metrics.contains("fanal_owners_members{state=\"serving\"} 2"), "{metrics}");

    let refused = |answer: Result<String, ClientError>, status: u16, word: &str| match answer {
        Err(ClientError::Refused { status: said, error, .. }) => assert!(said == status && error.contains(word), "{error}"),
        other => panic!("{other:?}"),
    };
    refused(admin.rebalance(), 409, "share a database");
    refused(admin.forget_node(2, false), 409, "node 2 is there: stop it first");
    refused(admin.forget_node(7, false), 404, "there is no node 7");
    let says = |words: &[&str], at: SocketAddr| {
        let output = fanal(&["cluster"]).args(words).args(["--admin", &at.to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(says(&["drain"], second.admin).contains("node 2 is given no more users"));
    eventually(|| slots(2) == Some((MemberState::Draining, true)));
    let before = users(second.admin);
    user_on(second.admin, first.admin, "cara");
    assert_eq!(users(second.admin), before, "it's given no more");

    second.kill();
    eventually(|| slots(2) == Some((MemberState::Gone, true)));
    refused(admin.forget_node(2, false), 409, "--force");
    assert!(says(&["forget", "2", "--force"], first.admin).contains("node 2 is forgotten"));
    eventually(|| slots(2).is_none() && admin.cluster().unwrap().nodes.is_empty());
    before.iter().for_each(|jid| admin.add_user(jid, None).unwrap());
    way.cut();
    eventually(|| owners().away_since_ms.is_some());
    assert!(says(&["status"], first.admin).contains("by etcd, AWAY"));
    way.heal();
    first.stop();
}

fn eventually(is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "it did not come about");
        std::thread::yield_now();
    }
}

/// Z1, Z2: a cluster whose nodes come and go, and another one that hears of them from the directory.
#[test]
fn z2_other_clusters_hear_of_nodes_that_find_each_other_in_etcd() {
    let Some(server) = Server::start() else { return };
    let cluster = Cluster::new(4);
    let directory = |config: &mut Config| {
        (config.cluster.number, config.cluster.coordination) = (Some(8), Coordination::Embedded);
        config.cluster.nodes = vec![Peer { node: NodeId(1), address: cluster.links[3] }];
        (config.cluster.etcd, config.link.listen) = (Vec::new(), None);
        (config.directory.cluster, config.node.domain) = (Some(8), "there.example".into());
    };
    let elsewhere = |config: &mut Config| {
        config.directory.cluster = Some(8);
        config.directory.at = vec![Peer { node: NodeId(1), address: cluster.links[3] }];
    };
    let there = cluster.serve_with(3, server.address(), |config| {
        config.cluster.node = Some(1);
        directory(config);
    });
    let first = cluster.serve_with(0, server.address(), elsewhere);
    let second = cluster.serve_with(1, server.address(), elsewhere);
    let (ann, eve) = (user_on(first.admin, second.admin, "ann"), "eve@there.example");
    Admin::new(there.admin, None).add_user(eve, None).unwrap();
    let (mut watcher, mut publisher) = (user(&there, eve), user(&second, &ann));
    eventually(|| Admin::new(there.admin, None).locate(&ann).is_ok_and(|location| location.cluster == Some(1)));
    befriend((eve, &mut watcher), (&ann, &mut publisher));
    sees(&mut watcher, Show::Available);
    let third = cluster.serve_with(2, server.address(), elsewhere);
    let nodes = |site: &fanal::admin::NodeStatus| site.cluster == Some(1) && site.found;
    eventually(|| Admin::new(there.admin, None).cluster().unwrap().nodes.iter().filter(|site| nodes(site)).count() == 3);
    // Whichever of them the other cluster speaks to.
    first.kill();
    show(&mut publisher, Show::Away);
    sees(&mut watcher, Show::Away);
    drop((watcher, publisher));
    [second, third, there].into_iter().for_each(Served::stop);
}

/// Z1: whom etcd's authority vouches for is heard, and lets in who shows a certificate.
#[test]
fn z1_etcd_is_asked_inside_tls_and_by_the_nodes_own_certificate() {
    let Some(server) = Server::start_private() else { return };
    let cluster = Cluster::new(2);
    let files = ["ca.pem", "own.pem", "own.key"].map(|file| server.dir.path().join(file));
    let [ca, certificate, key] = files.clone();
    let serve = |node, own: bool| {
        cluster.serve_with(node, server.address(), |config| {
            config.cluster.etcd = vec![format!("https://{}", server.address())];
            config.cluster.etcd_ca = Some(ca.clone());
            let shown = Some((certificate.clone(), key.clone())).filter(|_| own);
            (config.cluster.etcd_certificate, config.cluster.etcd_key) = shown.unzip();
        })
    };
    let (first, stranger) = (serve(0, true), serve(1, false));
    let owners = |node: &Served| Admin::new(node.admin, None).cluster().unwrap().owners.unwrap();
    eventually(|| owners(&first).joined.is_some() && owners(&stranger).why.is_some());
    assert_eq!(owners(&stranger).joined, None);
    stranger.stop();
    let second = serve(1, true);
    drop(pair(&first, &second));
    first.stop();
    second.stop();
    let [_, certificate, key] = files;
    std::fs::write(&key, "no key").unwrap();
    let text = format!(
        "[cluster]\nnumber = 1\nnode = 1\ncoordination = \"etcd\"\netcd = [\"https://a:1\"]\netcd_ca = {certificate:?}\n\
        etcd_certificate = {certificate:?}\netcd_key = {key:?}\n[link]\nlisten = \"127.0.0.1:7402\"\n[store]\nkind = \"memory\""
    );
    let error = fanal::node::Node::start(&Config::parse("fanal.toml", &text).unwrap()).err().unwrap().to_string();
    assert!(error.contains("own.key can't be used"), "{error}");
}

/// Z1: a number is one node's.
#[test]
fn z1_a_second_node_of_the_same_number_is_told_so_and_takes_nothing() {
    let Some(server) = Server::start() else { return };
    let cluster = Cluster::new(2);
    let first = cluster.serve(0, server.address());
    user_on(first.admin, first.admin, "ann");
    let other = Cluster { data: tempfile::tempdir().unwrap(), links: vec![cluster.links[1]] };
    let second = other.serve(0, server.address());
    let end = Instant::now() + LONG;
    while !second.log().contains("has this number: give each node its own") {
        assert!(Instant::now() < end, "{}", second.log());
        std::thread::yield_now();
    }
    user_on(first.admin, first.admin, "bob");
    assert!(users(second.admin).is_empty());
    first.stop();
    second.stop();
}
