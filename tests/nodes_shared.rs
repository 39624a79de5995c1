//! Nodes of a cluster that share a database, as processes, and take over the users of one that is gone (M1, M3, Z4, Z13).

mod support;

use fanal::admin::client::{Client as Admin, ClientError};
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Coordination, DatabaseUrl, Secret, StoreKind};
use fanal::base::reason::Reason;
use fanal::client::{Client, Error, Event, LogIn, Presence};
use fanal::wire::native::Show;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::clusters::{self, KEY, show};
use support::postgres::{Server, query, server};
use support::served::{Served, fanal, user_on, users};
use support::{LONG, presence, until};

const LEASE: Duration = Duration::from_millis(2_000);
/// Above what it takes, for a machine that does not let the survivors run.
const LATE: Duration = Duration::from_secs(5);

/// One test at a time: a node that the machine does not let run loses its lease, as it should.
static ONE: Mutex<()> = Mutex::new(());

/// The nodes 1 to 3 and their database.
struct Trio {
    cores: usize,
    lease: Duration,
    /// Who shares users out, if not node 1.
    etcd: Option<SocketAddr>,
    nodes: Vec<Option<Served>>,
    url: String,
    peers: Vec<Peer>,
    data: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Trio {
    fn start(server: &Server, cores: usize) -> Trio {
        let mut trio = Trio::prepare(server, cores);
        (0..3).for_each(|node| trio.serve(node));
        trio
    }

    fn prepare(server: &Server, cores: usize) -> Trio {
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let data = tempfile::tempdir().unwrap();
        Trio {
            cores,
            lease: LEASE,
            etcd: None,
            nodes: vec![None, None, None],
            url: server.new_url(),
            peers: clusters::peers(3),
            data,
            _alone: alone,
        }
    }

    fn serve(&mut self, node: usize) {
        self.nodes[node] = Some(Served::start_with_config(&self.place(node), self.cores, &self.config(node)));
    }

    fn place(&self, node: usize) -> PathBuf {
        self.data.path().join(node.to_string())
    }

    fn config(&self, node: usize) -> Config {
        let mut config = Config::default();
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
        config.cluster.lease_ms = self.lease.as_millis() as u32;
        match self.etcd {
            Some(etcd) => {
                (config.cluster.coordination, config.cluster.etcd) = (Coordination::Etcd, vec![format!("http://{etcd}")]);
                config.link.listen = Some(self.peers[node].address);
            }
            None => config.cluster.nodes = self.peers.clone(),
        }
        (config.store.kind, config.store.url) = (StoreKind::Postgres, Some(DatabaseUrl(self.url.clone())));
        config.store.timeout_ms = 1_000;
        config.login.token_keys = vec![Secret::new(KEY).unwrap()];
        config
    }

    fn node(&self, node: usize) -> &Served {
        self.nodes[node].as_ref().expect("it runs")
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].take().expect("it runs").kill();
    }

    /// A new user whose home is on a node.
    fn user_on(&self, node: usize, kind: &str) -> String {
        user_on(self.node(node).admin, self.node(node).admin, kind)
    }

    /// A session of a user at a node, as soon as the home can be reached.
    fn log_in(&self, node: usize, jid: &str) -> Client {
        let node = self.node(node);
        clusters::log_in(&node.native.to_string(), &node.token_by(KEY, jid), jid)
    }

    fn stop(&mut self) {
        self.nodes.iter_mut().filter_map(Option::take).for_each(Served::stop);
    }
}

fn befriend(one: (&str, &mut Client), other: (&str, &mut Client)) {
    clusters::befriend((one.0, &mut *one.1), other);
    sees(one.1, Show::Available);
}

/// Waits for a contact to be shown like this, and nothing else before.
fn sees(client: &mut Client, show: Show) {
    assert_eq!(presence(client).show, show);
}

fn signal(node: &Served, signal: Signal) {
    kill(Pid::from_raw(node.pid() as i32), signal).unwrap();
}

/// M1, Z13.
#[test]
fn z13_the_users_of_a_killed_node_are_taken_over_with_all_they_have_and_shown_as_gone_once() {
    let Some(server) = server() else { return };
    [1, 2].into_iter().for_each(|cores| is_taken_over(Trio::start(server, cores), 2));
}

/// M1, Z13: etcd outlives any node.
#[test]
fn z13_with_etcd_the_users_of_the_first_node_are_taken_over_too() {
    let (Some(server), Some(etcd)) = (server(), support::etcd::Server::start()) else { return };
    let mut trio = Trio::prepare(server, 1);
    trio.etcd = Some(etcd.address());
    (0..3).for_each(|node| trio.serve(node));
    is_taken_over(trio, 0);
}

fn is_taken_over(mut trio: Trio, lost: usize) {
    let (one, other) = ((lost + 1) % 3, (lost + 2) % 3);
    let (ann, bob) = (trio.user_on(lost, "ann"), trio.user_on(other, "bob"));
    let (cara, dan) = (trio.user_on(one, "cara"), trio.user_on(lost, "dan"));
    let [mut a, mut b, mut c, mut d] =
        [(lost, &ann), (other, &bob), (one, &cara), (other, &dan)].map(|(node, jid)| trio.log_in(node, jid));
    befriend((&bob, &mut b), (&ann, &mut a));
    befriend((&cara, &mut c), (&ann, &mut a));
    befriend((&ann, &mut a), (&bob, &mut b));
    let killed = Instant::now();
    trio.kill(lost);
    for client in [&mut b, &mut c] {
        sees(client, Show::Unavailable);
    }
    assert!(killed.elapsed() < Duration::from_secs(3) + LATE, "{:?}", killed.elapsed());
    until(&mut d, |event| {
        matches!(&event, Event::Refused(refusal) if refusal.reason() == Some(Reason::HomeOutOfReach)).then_some(())
    });
    let mut a = trio.log_in(one, &ann);
    assert!(killed.elapsed() < 2 * LEASE + LATE, "{:?}", killed.elapsed());
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
    drop(trio.log_in(other, &dan));
    let all = Admin::new(trio.node(one).admin, None).users(None, 1_000, None).unwrap();
    let named: BTreeSet<&str> = all.users.iter().map(|user| &*user.jid).collect();
    assert!([&ann, &bob, &cara, &dan].iter().all(|jid| named.contains(jid.as_str())), "{named:?}");
    assert_eq!(all.missing, [0u16; 0], "nobody's users are missing without a node that has none");
    // It returns, and has nothing but what it's given anew.
    trio.serve(lost);
    let eve = trio.user_on(lost, "eve");
    assert!(!users(trio.node(lost).admin).contains(&ann) && users(trio.node(lost).admin).contains(&eve));
    show(&mut a, Show::DoNotDisturb);
    [&mut b, &mut c].into_iter().for_each(|client| sees(client, Show::DoNotDisturb));
    drop((a, b, c, d));
    trio.stop();
}

/// M1, Z13: what a node does that stood still while its users were taken over is void.
#[test]
fn z13_a_node_that_wakes_up_after_its_users_were_taken_over_writes_nothing_and_shows_nothing() {
    let Some(server) = server() else { return };
    let mut trio = Trio::start(server, 1);
    let (ann, bob) = (trio.user_on(2, "ann"), trio.user_on(1, "bob"));
    let (mut stale, mut b) = (trio.log_in(2, &ann), trio.log_in(1, &bob));
    befriend((&bob, &mut b), (&ann, &mut stale));
    signal(trio.node(2), Signal::SIGSTOP);
    sees(&mut b, Show::Unavailable);
    let mut a = trio.log_in(0, &ann);
    sees(&mut b, Show::Available);
    let late = std::thread::spawn(move || {
        _ = stale.set_presence(&Presence { show: Show::Chat, ..Presence::default() });
        stale.set_contact("late@localhost", "", &[])
    });
    signal(trio.node(2), Signal::SIGCONT);
    assert!(late.join().unwrap().is_err());
    clusters::eventually(|| trio.node(2).log().contains("lease is lost"), || trio.node(2).log());
    let eve = trio.user_on(2, "eve");
    drop(trio.log_in(2, &eve));
    show(&mut a, Show::Away);
    sees(&mut b, Show::Away);
    let rows = |table: &str| {
        let of_ann = format!("SELECT convert_from(rest, 'UTF8') FROM {table} WHERE owner = convert_to('{ann}', 'UTF8')");
        query(&trio.url, &of_ann.replace("rest", "substr(rest, 2)")).unwrap()
    };
    assert_eq!((rows("fanal_roster"), rows("fanal_last_presence").len()), (vec![vec![bob]], 0));
    drop((a, b));
    trio.stop();
}

/// M1: as any client may that logs in again.
#[test]
fn m1_the_demo_goes_on_when_a_node_is_lost_and_all_are_online_again() {
    let Some(server) = server() else { return };
    let mut trio = Trio::start(server, 1);
    trio.user_on(2, "ann");
    let (first, data) = (trio.node(0), trio.place(0));
    let mut demo = fanal(&["demo", "--users", "60", "--subscribers", "3", "--rate", "100", "--seconds", "15"]);
    demo.arg("--config").arg(data.with_extension("toml")).arg("--data").arg(&data);
    demo.args(["--native", &first.native.to_string(), "--admin", &first.admin.to_string()]).stdout(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    let mut said = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.starts_with("each has 3 subscribers")).expect("traffic begins");
    trio.kill(2);
    let last = said.last().unwrap();
    assert!(demo.wait().unwrap().success());
    assert!(last.contains("; 0 are offline, ") && !last.contains(" 0 refused"), "{last}");
    trio.stop();
}

/// M3: presence needs no database, and nobody's users are taken over without it.
#[test]
fn m3_users_are_taken_over_once_the_database_is_back() {
    let Some(server) = Server::start("-c fsync=off") else { return };
    let mut trio = Trio::start(&server, 1);
    let (ann, bob) = (trio.user_on(2, "ann"), trio.user_on(1, "bob"));
    let (mut a, mut b) = (trio.log_in(2, &ann), trio.log_in(1, &bob));
    befriend((&bob, &mut b), (&ann, &mut a));
    server.kill();
    show(&mut a, Show::Away);
    sees(&mut b, Show::Away);
    match a.set_contact("cara@localhost", "", &[]) {
        Err(Error::Refused(refusal)) => assert_eq!(refusal.reason(), Some(Reason::StorageFailed)),
        other => panic!("{other:?}"),
    }
    match Admin::new(trio.node(0).admin, None).add_user("eve@localhost", None) {
        Err(ClientError::Refused { status: 503, error, .. }) => assert!(error.contains("the database can't be reached"), "{error}"),
        other => panic!("{other:?}"),
    }
    trio.kill(2);
    sees(&mut b, Show::Unavailable);
    let mut client = Client::connect(&trio.node(1).native.to_string(), LONG).unwrap();
    match client.log_in(&ann, LogIn::Token(&trio.node(1).token_by(KEY, &ann)), "desk") {
        Err(Error::Refused(refusal)) => assert_eq!(refusal.reason(), Some(Reason::HomeOutOfReach)),
        other => panic!("{other:?}"),
    }
    server.run();
    let mut a = trio.log_in(0, &ann);
    sees(&mut b, Show::Available);
    a.set_contact("cara@localhost", "", &[]).unwrap();
    drop((a, b, client));
    trio.stop();
}

/// Z4: without the node that keeps the table nobody is given users, and everybody keeps those that they have.
#[test]
fn z4_while_the_node_that_keeps_the_table_is_away_the_others_go_on() {
    let Some(server) = server() else { return };
    let mut trio = Trio::prepare(server, 1);
    // Without that node, less than half of it is how long the database may leave the others without an answer.
    trio.lease = 2 * LEASE;
    (0..3).for_each(|node| trio.serve(node));
    let (ann, bob, cara) = (trio.user_on(2, "ann"), trio.user_on(1, "bob"), trio.user_on(0, "cara"));
    let (mut a, mut b, mut c) = (trio.log_in(2, &ann), trio.log_in(1, &bob), trio.log_in(1, &cara));
    befriend((&bob, &mut b), (&ann, &mut a));
    trio.kill(0);
    until(&mut c, |event| {
        matches!(&event, Event::Refused(refusal) if refusal.reason() == Some(Reason::HomeOutOfReach)).then_some(())
    });
    let killed = Instant::now();
    while killed.elapsed() < 3 * trio.lease {
        for shown in [Show::Away, Show::Chat] {
            show(&mut a, shown);
            sees(&mut b, shown);
        }
    }
    b.set_contact("dan@localhost", "", &[]).unwrap();
    trio.serve(0);
    drop(trio.log_in(2, &cara));
    show(&mut a, Show::Away);
    sees(&mut b, Show::Away);
    let logs = [1, 2].map(|node| trio.node(node).log());
    assert!(logs.iter().all(|log| !log.contains("lease is lost")), "{logs:?}");
    let warns = "nobody takes over the users of node 1";
    assert!(logs.iter().all(|log| log.contains(warns)), "{logs:?}");
    let status = fanal(&["cluster", "status", "--admin", &trio.node(1).admin.to_string()]).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains(warns), "{status:?}");
    drop((a, b, c));
    trio.stop();
}

/// M1: users who move between nodes that are there, from all that have too many.
#[test]
fn m1_a_rebalance_moves_users_with_all_they_have_and_harms_no_node() {
    let Some(server) = server() else { return };
    is_rebalanced(Trio::prepare(server, 1));
}

#[test]
fn m1_with_etcd_a_rebalance_that_any_node_is_asked_for_is_one_of_all() {
    let (Some(server), Some(etcd)) = (server(), support::etcd::Server::start()) else { return };
    let mut trio = Trio::prepare(server, 1);
    trio.etcd = Some(etcd.address());
    is_rebalanced(trio);
}

fn is_rebalanced(mut trio: Trio) {
    // So that no node that the machine does not let run for a while counts as harmed.
    trio.lease = 2 * LEASE;
    (0..2).for_each(|node| trio.serve(node));
    let names: Vec<String> = (0..12).map(|n| format!("u{n}@localhost")).collect();
    let end = Instant::now() + LONG;
    for jid in &names {
        while let Err(why) = Admin::new(trio.node(0).admin, None).add_user(jid, None) {
            assert!(Instant::now() < end, "{why}");
        }
    }
    for pair in names.chunks(2) {
        let (mut a, mut b) = (trio.log_in(0, &pair[0]), trio.log_in(1, &pair[1]));
        befriend((&pair[0], &mut a), (&pair[1], &mut b));
    }
    trio.serve(2);
    let homes = |trio: &Trio| (0..3).map(|node| users(trio.node(node).admin).len()).collect::<Vec<_>>();
    while homes(&trio) != [4; 3] {
        assert!(Instant::now() < end, "{:?}", homes(&trio));
        _ = Admin::new(trio.node(0).admin, None).rebalance();
    }
    for pair in names.chunks(2) {
        let mut b = trio.log_in(1, &pair[1]);
        let mut a = trio.log_in(2, &pair[0]);
        sees(&mut a, Show::Available);
        b.set_contact("somebody@localhost", "", &[]).unwrap();
    }
    // With etcd each gives by what it knows of the others: one of them may have given one more meanwhile.
    let homes = homes(&trio);
    assert!(homes.iter().sum::<usize>() == names.len() && homes.iter().all(|users| (3..=5).contains(users)), "{homes:?}");
    for node in 0..3 {
        let log = trio.node(node).log();
        assert!(!log.contains("has taken this node's place") && !log.contains("lease is lost"), "{log}");
    }
    trio.stop();
}

/// M1: a node that is stopped leaves its users behind in order, and they need not wait for its lease.
#[test]
fn m1_a_node_that_is_stopped_writes_how_its_users_were_before_others_have_them() {
    let Some(server) = server() else { return };
    let mut trio = Trio::start(server, 1);
    let (ann, bob) = (trio.user_on(2, "ann"), trio.user_on(1, "bob"));
    let (mut a, mut b) = (trio.log_in(2, &ann), trio.log_in(1, &bob));
    befriend((&bob, &mut b), (&ann, &mut a));
    trio.nodes[2].take().unwrap().stop();
    sees(&mut b, Show::Unavailable);
    let last = query(&trio.url, "SELECT convert_from(owner, 'UTF8') FROM fanal_last_presence").unwrap();
    assert!(last.contains(&vec![ann.clone()]), "{last:?}");
    let a = trio.log_in(1, &ann);
    sees(&mut b, Show::Available);
    drop((a, b));
    trio.stop();
}

/// M1: a process with a node's number takes that one's place in the database before it learns that the number is another's.
#[test]
fn m1_a_node_whose_place_was_taken_by_mistake_begins_anew_by_itself_with_etcd_or_without() {
    let (Some(server), Some(etcd)) = (server(), support::etcd::Server::start()) else { return };
    for etcd in [None, Some(etcd.address())] {
        let mut trio = Trio::prepare(server, 1);
        trio.etcd = etcd;
        (0..3).for_each(|node| trio.serve(node));
        let ann = trio.user_on(2, "ann");
        let mut a = trio.log_in(2, &ann);
        a.set_contact("bob@localhost", "", &[]).unwrap();
        let mut config = trio.config(2);
        config.link.listen = Some("127.0.0.1:0".parse().unwrap());
        config.link.address = etcd.map(|_| trio.peers[2].address);
        let twin = Served::start_with_config(&trio.data.path().join("twin"), 1, &config);
        until(&mut a, |event| {
            matches!(&event, Event::Refused(refusal) if refusal.reason() == Some(Reason::HomeOutOfReach)).then_some(())
        });
        let mut a = trio.log_in(0, &ann);
        a.set_contact("cara@localhost", "", &[]).unwrap();
        assert_eq!(a.roster().unwrap().len(), 2);
        assert!(trio.node(2).log().contains("begins anew") && users(trio.node(2).admin).contains(&ann));
        twin.kill();
        drop(a);
        trio.stop();
    }
}

/// M1: the tools, and users that no node has had yet.
#[test]
fn m1_users_that_were_made_while_no_node_ran_are_found_and_tools_leave_running_nodes_alone() {
    let Some(server) = server() else { return };
    let mut trio = Trio::prepare(server, 2);
    let file = trio.data.path().join("cli.toml");
    std::fs::write(&file, toml::to_string(&trio.config(0)).unwrap()).unwrap();
    let run = |args: &[&str]| {
        let output = fanal(args).env("FANAL_PASSWORD", "a long word").output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let user = |args: &[&str]| run(&[&["user"], args, &["--config", file.to_str().unwrap()]].concat());
    for name in ["ann", "bob", "cara"] {
        assert!(user(&["add", name]).starts_with("added"), "{}", user(&["list"]));
    }
    (0..3).for_each(|node| trio.serve(node));
    for (node, jid) in ["ann@localhost", "bob@localhost", "cara@localhost"].into_iter().enumerate() {
        let end = Instant::now() + LONG;
        let mut client = Client::connect(&trio.node(node).native.to_string(), LONG).unwrap();
        while let Err(why) = client.log_in(jid, LogIn::Password("a long word"), "desk") {
            assert!(Instant::now() < end, "{why}");
            client = Client::connect(&trio.node(node).native.to_string(), LONG).unwrap();
        }
    }
    assert!(run(&["store", "check", &trio.url, "--cluster", "1"]).contains("uses it"));
    trio.stop();
    assert!(user(&["list"]).contains("bob@localhost"));
    let copy = trio.data.path().join("copy");
    let said = run(&["store", "copy", &trio.url, copy.to_str().unwrap(), "--cluster", "1"]);
    assert!(said.contains("both places hold the same"), "{said}");
}
