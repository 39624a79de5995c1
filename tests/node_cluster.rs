//! Several nodes of one cluster as they are: real cores, sockets, links over io_uring; a client connects to any of them (M2, M4,
//! G4).

mod support;

use fanal::admin::Refusal;
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Link, Secret};
use fanal::base::id::NodeId;
use fanal::base::jid::Bare;
use fanal::client::{Answer, Client, Event, Presence, Trunk, TrunkEvent};
use fanal::node::control::Controller;
use fanal::wire::encode::{MessageFields, Tag};
use fanal::wire::native::Show;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::clusters::{Place, addresses, befriend, configured, eventually, log_in, peers, sees, show};
use support::served::{Served, user_on, users};
use support::tap::Tap;
use support::{LONG, TestNode, config, until};

/// The nodes 1, 2, ... with so many cores each.
struct Cluster {
    nodes: Vec<TestNode>,
    cores: Vec<usize>,
    peers: Vec<Peer>,
    controls: Vec<Controller>,
    /// Names that were made up.
    names: u32,
}

impl Cluster {
    fn start(cores: &[usize]) -> Cluster {
        let peers = peers(cores.len());
        let mut cluster = Cluster { nodes: Vec::new(), cores: cores.to_vec(), peers, controls: Vec::new(), names: 0 };
        for node in 0..cores.len() {
            let mut started = cluster.node(node);
            cluster.controls.push(started.0.as_mut().unwrap().control());
            cluster.nodes.push(started);
        }
        cluster
    }

    fn node(&self, node: usize) -> TestNode {
        TestNode::start(&self.config(node))
    }

    fn config(&self, node: usize) -> Config {
        let mut config = config(self.cores[node]);
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
        config.cluster.nodes = self.peers.clone();
        config.login.token_keys = vec![Secret::new("the same key at every node, for tests").unwrap()];
        config
    }

    /// A new user whose home is on a node.
    fn name_on(&mut self, node: usize) -> String {
        let end = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < end, "node {node} is given no users");
            self.names += 1;
            let jid = Bare::new(&format!("u{}@localhost", self.names)).unwrap();
            self.controls[0]
                .add_user(&jid, None)
                .or_else(|why| if matches!(why, Refusal::Unavailable(_)) { Ok(()) } else { Err(why) })
                .unwrap();
            if self.controls[node].users(None, 1000, Some(node as u16 + 1)).unwrap().users.iter().any(|line| line.jid == jid) {
                return jid.to_string();
            }
        }
    }

    fn user(&self, node: usize, jid: &str) -> Client {
        let at = &self.nodes[node];
        log_in(&at.address(), &at.token(jid), jid)
    }
}

#[test]
fn m2_clients_of_different_nodes_see_each_other() {
    for cores in [&[1, 1][..], &[2, 2], &[1, 2], &[2, 1, 2]] {
        let mut cluster = Cluster::start(cores);
        for (a, b) in [(0, 1), (1, 0), (0, 0)] {
            let (ann, bob) = (cluster.name_on(0), cluster.name_on(1));
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

/// A node of its own process, with a store of its own.
fn serve(data: &Path, peers: &[Peer], node: usize) -> Served {
    serve_as(Config::default(), data, peers, node)
}

fn serve_as(mut config: Config, data: &Path, peers: &[Peer], node: usize) -> Served {
    (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
    config.cluster.nodes = peers.to_vec();
    Served::start_with_config(&data.join(node.to_string()), 1, &config)
}

/// Z4, M1.
#[test]
fn z4_a_node_that_joins_later_is_given_users_and_after_a_restart_all_are_where_they_were() {
    let data = tempfile::tempdir().unwrap();
    let peers = peers(3);
    let serve = |node| serve(data.path(), &peers, node);
    let (first, second) = (serve(0), serve(1));
    let names = [user_on(second.admin, first.admin, "a"), user_on(first.admin, second.admin, "b")];
    let third = serve(2);
    let late = user_on(second.admin, third.admin, "c");
    let nodes = [first, second, third];
    let before: Vec<BTreeSet<String>> = nodes.iter().map(|node| users(node.admin)).collect();
    let all = before.iter().flatten().collect::<BTreeSet<_>>().len();
    assert_eq!(before.iter().map(BTreeSet::len).sum::<usize>(), all, "everybody has one home");
    nodes.into_iter().for_each(Served::stop);
    // The one that keeps the table comes last.
    let mut nodes = [2, 1, 0].map(serve);
    nodes.reverse();
    for name in names.iter().chain([&late]) {
        for node in &nodes {
            drop(log_in(&node.native.to_string(), &node.token(name), name));
        }
    }
    assert_eq!(nodes.iter().map(|node| users(node.admin)).collect::<Vec<_>>(), before);
    nodes.into_iter().for_each(Served::stop);
}

/// Above what the requirement says, for a machine that does not let the survivor run.
const LATE: Duration = Duration::from_secs(2);

/// Z13, whichever node it is: the first one keeps the table of owners.
#[test]
fn z13_the_users_of_a_killed_node_are_shown_as_gone_within_three_seconds_and_come_back_with_it() {
    [1, 0].into_iter().for_each(is_missed);
}

fn is_missed(lost: usize) {
    let data = tempfile::tempdir().unwrap();
    let peers = peers(2);
    let serve = |node| serve(data.path(), &peers, node);
    let user = |node: &Served, jid: &str| log_in(&node.native.to_string(), &node.token(jid), jid);
    let (stays, falls) = (serve(1 - lost), serve(lost));
    let (ann, bob) = (user_on(stays.admin, stays.admin, "ann"), user_on(stays.admin, falls.admin, "bob"));
    let (mut one, mut two) = (user(&stays, &ann), user(&falls, &bob));
    befriend((&ann, &mut one), (&bob, &mut two));
    sees(&mut one, Show::Available);
    let killed = Instant::now();
    kill(Pid::from_raw(falls.pid() as i32), Signal::SIGKILL).unwrap();
    sees(&mut one, Show::Unavailable);
    assert!(killed.elapsed() < Duration::from_secs(3) + LATE, "{:?}", killed.elapsed());
    drop(falls);
    let falls = serve(lost);
    let again = user(&falls, &bob);
    sees(&mut one, Show::Available);
    user_on(stays.admin, falls.admin, "cara");
    // A client that reads nothing holds its node up.
    drop((one, again));
    stays.stop();
    falls.stop();
}

/// Updates that a node gets while it stands still, and bytes of each: more than the sockets to it take.
const ROUNDS: u32 = 4_000;
const ROUND_BYTES: usize = 4_000;

/// What a user shows in a round.
fn shows_round(client: &mut Client, round: u32) {
    let mut payload = round.to_le_bytes().to_vec();
    payload.resize(ROUND_BYTES, 0);
    client.set_presence(&Presence { payload, ..Presence::default() }).unwrap();
}

/// How many updates come until the one of this round.
fn sees_round(client: &mut Client, round: u32) -> u32 {
    let mut came = 0;
    until(client, |event| match event {
        Event::Presence(event) => {
            came += 1;
            event.presence.filter(|presence| presence.payload.starts_with(&round.to_le_bytes())).map(drop)
        }
        _ => None,
    });
    came
}

/// G4, M4: a node that reads nothing holds up no other one, and sees the newest when it reads again.
#[test]
fn g4_a_node_that_stands_still_holds_up_no_other_one() {
    let data = tempfile::tempdir().unwrap();
    let peers = peers(3);
    let patient = Config { link: Link { grace_ms: 120_000, silent_ms: 120_000, ..Link::default() }, ..Config::default() };
    let nodes = [0, 1, 2].map(|node| serve_as(patient.clone(), data.path(), &peers, node));
    let names = [0, 1, 2].map(|node| user_on(nodes[0].admin, nodes[node].admin, ["ann", "bob", "cara"][node]));
    let mut users = [0, 1, 2].map(|node| log_in(&nodes[node].native.to_string(), &nodes[node].token(&names[node]), &names[node]));
    let [ann, bob, cara] = &mut users;
    befriend((&names[1], bob), (&names[0], ann));
    befriend((&names[2], cara), (&names[0], ann));
    [&mut *bob, &mut *cara].into_iter().for_each(|client| sees(client, Show::Available));
    let still = Pid::from_raw(nodes[2].pid() as i32);
    kill(still, Signal::SIGSTOP).unwrap();
    for round in 1..=ROUNDS {
        shows_round(ann, round);
        assert_eq!(sees_round(bob, round), 1, "each of them, at once");
    }
    kill(still, Signal::SIGCONT).unwrap();
    let came = sees_round(cara, ROUNDS);
    assert!(came < ROUNDS, "newer ones take the place of older ones that wait");
    drop(users);
    nodes.into_iter().for_each(Served::stop);
}

/// Messages to one node at once, and how many of its answers it may have on their way: fewer.
const MESSAGES: usize = 90;
const ANSWERS: u32 = 16;

/// G4, Z9: a lane that gets full begins anew and says why; whoever waits for an answer is told what is known; all goes on.
#[test]
fn g4_a_lane_that_gets_full_begins_anew_and_nobody_waits_for_ever() {
    let peers = peers(2);
    let place = |node, entries| {
        let mut config = configured(1, &peers, node, 1, (1, &peers));
        config.link.entries = entries;
        Place::start(&config)
    };
    let [asks, answers] = [place(0, Link::default().entries), place(1, ANSWERS)];
    let [bob, ann] = [&asks, &answers].map(|place| user_on(asks.address, place.address, "u"));
    let mut trunk = asks.node.trunk();
    trunk.log_in(1, &bob, "desk").unwrap();
    // Nobody is there to take them: they are safe, and answered, all with one write of the store.
    let send = |trunk: &mut Trunk, id: usize| {
        let fields = MessageFields { to: &ann, id: &id.to_string(), body: b"there?", ..MessageFields::default() };
        trunk.send(1, |encoder, out, tag| encoder.message(out, tag, &fields))
    };
    let mut tags: BTreeMap<Tag, usize> = (0..MESSAGES).map(|id| (send(&mut trunk, id), id)).collect();
    trunk.flush().unwrap();
    let mut safe = BTreeSet::new();
    while !tags.is_empty() {
        let TrunkEvent::Answer(tag, answer) = trunk.next(LONG).unwrap().expect("an answer") else { continue };
        let id = tags.remove(&tag).expect("one answer each");
        if answer == Answer::Done {
            safe.insert(id.to_string());
        }
    }
    let full = |place: &Place| place.admin.get("/metrics").unwrap().contains("link_ended_total{reason=\"lane_full\"}");
    assert!(full(&answers), "it got full");
    eventually(|| full(&asks), || "the other end hears why".into());
    // Whoever was told that a message is safe was told the truth, and nothing comes twice.
    let (mut one, mut two) = (asks.user(&bob), answers.user(&ann));
    one.send_message(&ann, "last", b"there you are").unwrap();
    let mut arrived = BTreeSet::new();
    let mut next = || {
        until(&mut two, |event| match event {
            Event::Message(message) => Some(message.id),
            _ => None,
        })
    };
    while let Some(id) = Some(next()).filter(|id| id != "last") {
        assert!(arrived.insert(id.clone()), "message {id} came twice");
    }
    assert!(arrived.is_superset(&safe), "{safe:?} are safe, {arrived:?} arrived");
    befriend((&bob, &mut one), (&ann, &mut two));
    sees(&mut one, Show::Available);
}

/// M5, counted on the wire: whoever subscribes at a node, and at whichever of its cores, a long presence goes there once.
#[test]
fn m5_a_long_presence_goes_to_a_node_once_and_a_short_one_as_it_is() {
    let addresses = addresses(2);
    let tap = Tap::before(addresses[1]);
    let at = |node, address| Peer { node: NodeId(node), address };
    let peers = vec![at(1, addresses[0]), at(2, tap.address)];
    let mut cluster = Cluster { nodes: Vec::new(), cores: vec![1, 2], peers, controls: Vec::new(), names: 0 };
    for (node, address) in addresses.into_iter().enumerate() {
        let mut config = cluster.config(node);
        config.link.listen = Some(address);
        let mut started = TestNode::start(&config);
        cluster.controls.push(started.0.as_mut().unwrap().control());
        cluster.nodes.push(started);
    }
    let ann = cluster.name_on(0);
    let mut speaker = cluster.user(0, &ann);
    let mut subscribers: Vec<Client> = (0..6)
        .map(|_| {
            let name = cluster.name_on(1);
            let mut client = cluster.user(1, &name);
            befriend((&name, &mut client), (&ann, &mut speaker));
            sees(&mut client, Show::Available);
            client
        })
        .collect();
    for (payload, updates) in [(40_000, 2), (1000, 1), (50_000, 2)] {
        let before = (tap.to_node.read()[1], tap.to_node.bytes.load(Ordering::SeqCst));
        speaker.set_presence(&Presence { payload: vec![7; payload], ..Presence::default() }).unwrap();
        for client in &mut subscribers {
            until(client, |event| match event {
                Event::Presence(event) => event.presence.filter(|presence| presence.payload == vec![7; payload]).map(drop),
                _ => None,
            });
        }
        let (read, bytes) = (tap.to_node.read()[1] - before.0, tap.to_node.bytes.load(Ordering::SeqCst) - before.1);
        assert!(read == updates && bytes < payload as u64 + 5000, "{read} updates, {bytes} bytes for {payload}");
    }
}
