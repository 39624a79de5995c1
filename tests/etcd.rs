//! The etcd engine against a real etcd: rows Z1, Z4, M1, R7's watching. Skipped, with a word, where there is no etcd.

#![cfg(feature = "runtime")]

mod support;

use fanal::base::config::Endpoint;
use fanal::base::id::NodeId;
use fanal::node::etcd::{Etcd, Settings};
use fanal::ownership::{Command, Event, Myself, NOBODY, Refusal, Slots, State, Terms};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;
use support::etcd::{PATIENCE, Server, Way};

/// What a node has heard.
#[derive(Default)]
struct Heard {
    slots: Slots,
    joined: Option<u32>,
    events: Vec<Event>,
}

impl Heard {
    fn owns(&self, node: u16, slot: u16) -> Option<u32> {
        let (owner, epoch) = self.slots.owner(slot)?;
        (owner.0 == node && self.joined.is_some_and(|since| epoch >= since)).then_some(epoch)
    }
}

/// What all nodes have heard. No slot ever has two owners.
#[derive(Default)]
struct Ledger {
    nodes: Mutex<BTreeMap<u16, Heard>>,
    news: Condvar,
}

impl Ledger {
    fn hear(&self, node: u16, event: Event) {
        let mut nodes = self.nodes.lock().unwrap();
        let heard = nodes.entry(node).or_default();
        match &event {
            Event::Joined { epoch } => heard.joined = Some(*epoch),
            Event::Fenced => heard.joined = None,
            Event::Changed(lines) => _ = heard.slots.merge(lines),
            _ => {}
        }
        heard.events.push(event);
        for slot in 0..600 {
            let owners: Vec<_> = nodes.iter().filter_map(|(node, heard)| Some((*node, heard.owns(*node, slot)?))).collect();
            assert!(owners.len() <= 1, "slot {slot} has owners {owners:?}");
        }
        self.news.notify_all();
    }

    fn wait(&self, what: &str, until: impl Fn(&BTreeMap<u16, Heard>) -> bool) {
        let nodes = self.nodes.lock().unwrap();
        let (nodes, late) = self.news.wait_timeout_while(nodes, PATIENCE, |nodes| !until(nodes)).unwrap();
        let events: Vec<_> = nodes.iter().map(|(node, heard)| (node, &heard.events)).collect();
        assert!(!late.timed_out(), "{what}: {events:?}");
    }

    fn wait_for(&self, node: u16, event: &Event) {
        self.wait(&format!("{node} hears {event:?}"), |nodes| nodes.get(&node).is_some_and(|heard| heard.events.contains(event)));
    }

    /// A node that has joined may not have heard yet that another one has.
    fn wait_until_known(&self, node: u16, other: u16) {
        let is_other = |event: &Event| matches!(event, Event::Member(member) if member.node == NodeId(other));
        self.wait(&format!("{node} knows {other}"), |nodes| nodes[&node].events.iter().any(is_other));
    }

    fn wait_for_away(&self, node: u16) {
        let is_away = |event: &Event| matches!(event, Event::Away(_));
        self.wait(&format!("{node} hears that etcd is away"), |nodes| nodes[&node].events.iter().any(is_away));
    }

    /// Every node has the same owner for each of these slots.
    fn wait_for_owners(&self, slots: std::ops::Range<u16>) -> BTreeMap<u16, u32> {
        let agree = |nodes: &BTreeMap<u16, Heard>, slot| {
            let owner = nodes.values().next()?.slots.owner(slot)?;
            let same = nodes.values().all(|heard| heard.slots.owner(slot) == Some(owner));
            same.then_some(owner.0.0)
        };
        let all = |nodes: &BTreeMap<u16, Heard>| slots.clone().all(|slot| agree(nodes, slot).is_some());
        self.wait("all agree", all);
        let nodes = self.nodes.lock().unwrap();
        let mut counts = BTreeMap::new();
        slots.filter_map(|slot| agree(&nodes, slot)).for_each(|owner| *counts.entry(owner).or_default() += 1);
        counts
    }
}

fn start(ledger: &Arc<Ledger>, etcd: SocketAddr, (node, identity): (u16, u64), take_over: bool) -> Etcd {
    let link = SocketAddr::from(([127, 0, 0, 1], 7_000 + node));
    let me = Myself { node: NodeId(node), identity, start: 1, keeps: true, cores: 2, link, doors: Vec::new() };
    let endpoints = vec![Endpoint::parse(&format!("http://{etcd}")).unwrap()];
    let terms = Terms { lease_ms: 1_000, take_over };
    let ledger = ledger.clone();
    // Those that are refused are none of the nodes.
    let heard_as = if identity == u64::from(node) { node } else { 100 + node };
    let tell = Box::new(move |event| ledger.hear(heard_as, event));
    Etcd::start(Settings { cluster: 1, terms, me, claims: Vec::new(), endpoints, trust: None, seed: identity }, tell).unwrap()
}

fn has_joined(nodes: &BTreeMap<u16, Heard>, node: u16) -> bool {
    nodes.get(&node).is_some_and(|heard| heard.joined.is_some())
}

fn command_all(etcd: &Etcd, commands: impl IntoIterator<Item = Command>) {
    commands.into_iter().for_each(|command| assert!(etcd.command(command)));
}

#[test]
fn z1_m1_members_have_numbers_of_their_own_and_the_fewest_users_decide_also_after_etcd_was_killed() {
    let Some(mut server) = Server::start() else { return };
    let ledger = Arc::new(Ledger::default());
    let (one, two) = (start(&ledger, server.address(), (1, 1), false), start(&ledger, server.address(), (2, 2), false));
    ledger.wait("both join", |nodes| has_joined(nodes, 1) && has_joined(nodes, 2));
    let intruder = start(&ledger, server.address(), (2, 9), false);
    let by = "127.0.0.1:7002".parse().unwrap();
    ledger.wait_for(102, &Event::NotJoined(Refusal::NumberInUse { node: NodeId(2), by }));
    intruder.stop();
    ledger.nodes.lock().unwrap().remove(&102);

    ledger.wait_until_known(1, 2);
    command_all(&one, [Command::Report { users: 100, free: 0 }]);
    command_all(&one, (0..50).map(Command::Assign));
    assert_eq!(ledger.wait_for_owners(0..50), BTreeMap::from([(2, 50)]));

    server.kill_and_restart(|| {
        ledger.wait_for_away(1);
        ledger.wait_for_away(2);
        command_all(&one, [Command::Assign(300)]);
        ledger.wait("it's refused while etcd is away", |nodes| {
            nodes[&1].events.iter().any(|event| matches!(event, Event::Refused(Command::Assign(300), Refusal::Away(_))))
        });
    });
    ledger.wait_for(1, &Event::Back);
    ledger.wait_for(2, &Event::Back);
    command_all(&one, (300..310).map(Command::Assign));
    ledger.wait_for_owners(300..310);
    let nodes = ledger.nodes.lock().unwrap();
    assert!(nodes.values().all(|heard| !heard.events.contains(&Event::Fenced)), "nobody would have taken over");
    assert!(nodes[&2].owns(2, 7).is_some(), "what was owned is owned");
    drop(nodes);
    one.stop();
    two.stop();
}

#[test]
fn a_watch_that_missed_what_is_compacted_lists_all_again() {
    let Some(server) = Server::start() else { return };
    let (ledger, way) = (Arc::new(Ledger::default()), Way::to(server.address()));
    let (one, two) = (start(&ledger, server.address(), (1, 1), false), start(&ledger, way.address, (2, 2), false));
    ledger.wait("both join", |nodes| has_joined(nodes, 1) && has_joined(nodes, 2));
    way.cut();
    ledger.wait_for_away(2);
    for block in [0u16, 256] {
        command_all(&one, (block..block + 20).map(Command::Assign));
        ledger.wait("they are assigned", |nodes| (block..block + 20).all(|slot| nodes[&1].slots.owner(slot).is_some()));
    }
    server.compact();
    way.heal();
    ledger.wait_for_owners(0..20);
    ledger.wait_for_owners(256..276);
    one.stop();
    two.stop();
}

#[test]
fn r7_a_node_cut_off_is_fenced_before_another_takes_over_under_higher_epochs_and_gets_its_share_when_it_returns() {
    let Some(server) = Server::start() else { return };
    let (ledger, way) = (Arc::new(Ledger::default()), Way::to(server.address()));
    let (one, two) = (start(&ledger, server.address(), (1, 1), true), start(&ledger, way.address, (2, 2), true));
    ledger.wait("both join", |nodes| has_joined(nodes, 1) && has_joined(nodes, 2));
    ledger.wait_until_known(1, 2);
    command_all(&one, (200..300).map(Command::Assign));
    let before = ledger.wait_for_owners(200..300);
    assert!(before[&1] == 50 && before[&2] == 50, "{before:?}");
    let epochs: Vec<u32> = (200..300).map(|slot| ledger.nodes.lock().unwrap()[&1].slots.line(slot).epoch).collect();

    way.cut();
    let from = Instant::now();
    let all_mine = |nodes: &BTreeMap<u16, Heard>| (200..300).all(|slot| nodes[&1].owns(1, slot).is_some());
    ledger.wait("the other one takes over", all_mine);
    println!("taken over after {:?}", from.elapsed());
    let nodes = ledger.nodes.lock().unwrap();
    assert!(nodes[&2].events.contains(&Event::Fenced) && nodes[&2].joined.is_none());
    let moved = (200..300).zip(&epochs).filter(|(slot, before)| nodes[&1].slots.line(*slot).epoch > **before);
    assert_eq!(moved.count(), 50, "those of the other one, under higher epochs");
    drop(nodes);

    way.heal();
    ledger.wait("it joins again", |nodes| has_joined(nodes, 2));
    let is_back = |nodes: &BTreeMap<u16, Heard>| {
        let last = nodes[&1].events.iter().rev().find_map(|event| match event {
            Event::Member(member) if member.node == NodeId(2) => Some(member.state),
            _ => None,
        });
        last == Some(State::Serving)
    };
    ledger.wait("it's known to be back", is_back);
    let share = |nodes: &BTreeMap<u16, Heard>| (200..300).filter(|slot| nodes[&2].owns(2, *slot).is_some()).count();
    command_all(&one, [Command::Report { users: 100, free: 0 }, Command::Rebalance, Command::Rebalance]);
    ledger.wait("it gets its share", |nodes| share(nodes) >= 40);
    // How many users are left is not told yet.
    command_all(&one, [Command::Rebalance, Command::Assign(5)]);
    ledger.wait("that is done", |nodes| nodes[&1].slots.owner(5).is_some());
    assert!(share(&ledger.nodes.lock().unwrap()) <= 55, "and no more");
    command_all(&two, [Command::Leave]);
    ledger.wait("what it leaves is taken at once", all_mine);
    command_all(&one, [Command::Forget(NodeId(2))]);
    ledger.wait_for(1, &Event::Forgotten(NodeId(2)));
    one.stop();
    two.stop();
}

#[test]
fn all_are_fenced_while_etcd_hangs_and_own_again_what_was_theirs() {
    let Some(server) = Server::start() else { return };
    let ledger = Arc::new(Ledger::default());
    let one = start(&ledger, server.address(), (1, 1), true);
    ledger.wait("it joins", |nodes| has_joined(nodes, 1));
    command_all(&one, (0..10).map(Command::Assign));
    ledger.wait_for_owners(0..10);
    server.signal(Signal::SIGSTOP);
    ledger.wait_for(1, &Event::Fenced);
    assert!(ledger.nodes.lock().unwrap()[&1].slots.owner(3).is_some_and(|(owner, _)| owner != NOBODY), "the table is known still");
    server.signal(Signal::SIGCONT);
    ledger.wait("it owns again", |nodes| (0..10).all(|slot| nodes[&1].owns(1, slot).is_some()));
    one.stop();
}
