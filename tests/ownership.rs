//! Ownership among several nodes under loss, repetition, disorder, restarts, failing stores and clocks that drift: rows Z1, Z4, M1.

use fanal::base::id::NodeId;
use fanal::base::time::Time;
use fanal::ownership::{
    Assignment, Command, Coordinator, Event, Follower, Life, Myself, Output, RETRY, Refusal, SLOTS, State, Stored, Terms, decode,
    encode,
};
use fanal::store::memory::Memory;
use fanal::store::{Backend, Commit, Durability, Table, Write};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const MS: u64 = 1_000_000;
/// Slots that users of these tests are in: of two blocks.
const PLACES: [u16; 12] = [0, 1, 2, 3, 250, 255, 256, 257, 300, 511, 40_000, 65_535];

fn terms(take_over: bool) -> Terms {
    Terms { lease_ms: 2_000, take_over }
}

fn myself(node: u16, identity: u64, start: u64) -> Myself {
    let link = format!("127.0.0.1:{}", 7_000 + node).parse().unwrap();
    Myself { node: NodeId(node), identity, start, keeps: true, cores: 2, link, doors: vec![("native".to_owned(), link)] }
}

/// A message on its way.
#[derive(Clone, Debug)]
struct Packet {
    node: u16,
    to_coordinator: bool,
    bytes: Vec<u8>,
}

struct Peer {
    follower: Follower,
    events: Vec<Event>,
    start: u64,
    /// What its clock shows: rate in thousandths, and offset.
    clock: (u64, u64),
}

struct World {
    terms: Terms,
    now: u64,
    store: Memory,
    coordinator: Coordinator,
    starts: u64,
    /// A commit that the disk has not answered.
    commit: Option<Vec<Write>>,
    peers: BTreeMap<u16, Peer>,
    packets: Vec<Packet>,
    /// Who acted as owner of (slot, epoch), and the greatest epoch of each slot that anybody acted under.
    acted: BTreeMap<(u16, u32), (u16, u64)>,
}

impl World {
    fn new(nodes: u16, take_over: bool) -> World {
        let terms = terms(take_over);
        let coordinator = Coordinator::new(Time(0), terms, 1, Stored::default());
        let mut world = World {
            terms,
            now: 1_000 * MS,
            store: Memory::default(),
            coordinator,
            starts: 1,
            commit: None,
            peers: BTreeMap::new(),
            packets: Vec::new(),
            acted: BTreeMap::new(),
        };
        for node in 1..=nodes {
            let clock = (970 + 30 * (u64::from(node) % 3), 77_777 * MS * u64::from(node));
            world.start(node, 1, clock);
        }
        world
    }

    fn start(&mut self, node: u16, start: u64, clock: (u64, u64)) {
        let now = Time(self.now * clock.0 / 1_000 + clock.1);
        let follower = Follower::new(now, self.terms, myself(node, u64::from(node), start));
        self.peers.insert(node, Peer { follower, events: Vec::new(), start, clock });
        self.gather();
    }

    fn clock(&self, node: u16) -> Time {
        let clock = self.peers[&node].clock;
        Time(self.now * clock.0 / 1_000 + clock.1)
    }

    fn gather(&mut self) {
        for (node, peer) in &mut self.peers {
            for ask in peer.follower.take_asks() {
                self.packets.push(Packet { node: *node, to_coordinator: true, bytes: encode(&ask, Vec::new()) });
            }
            peer.events.extend(peer.follower.take_events());
        }
        for output in self.coordinator.take() {
            match output {
                Output::Tell { to, tell } => {
                    self.packets.push(Packet { node: to.0, to_coordinator: false, bytes: encode(&tell, Vec::new()) });
                }
                Output::Store(writes) => assert!(self.commit.replace(writes).is_none(), "one commit at a time"),
            }
        }
    }

    fn deliver(&mut self, packet: &Packet) {
        if packet.to_coordinator {
            self.coordinator.ask(Time(self.now), NodeId(packet.node), decode(&packet.bytes).expect("it's whole"));
        } else {
            let now = self.clock(packet.node);
            let peer = self.peers.get_mut(&packet.node).unwrap();
            peer.follower.hear(now, decode(&packet.bytes).expect("it's whole"));
        }
        self.gather();
    }

    fn command(&mut self, node: u16, command: Command) {
        let now = self.clock(node);
        self.peers.get_mut(&node).unwrap().follower.command(now, command);
        self.gather();
    }

    fn store(&mut self, works: bool) {
        let Some(writes) = self.commit.take() else { return };
        if works {
            self.store.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }]).unwrap();
        }
        self.coordinator.stored(Time(self.now), works.then_some(()).ok_or_else(|| "the disk is full".to_owned()));
        self.gather();
    }

    fn restart_coordinator(&mut self) {
        self.starts += 1;
        self.commit = None;
        let mut stored = Stored::default();
        self.store.load(Table::Meta, &mut |key, value| stored.load(key, value), &mut |_, _| ()).unwrap();
        self.coordinator = Coordinator::new(Time(self.now), self.terms, self.starts, stored);
    }

    fn tick(&mut self, node: u16) {
        let now = self.clock(node);
        self.peers.get_mut(&node).unwrap().follower.tick(now);
        self.gather();
    }

    /// One thing happens.
    fn step(&mut self, (what, a, b): (u8, u16, u16)) {
        let node = a % self.peers.len() as u16 + 1;
        let at = usize::from(b) % self.packets.len().max(1);
        match what {
            0..30 if !self.packets.is_empty() => {
                let packet = self.packets.remove(at);
                self.deliver(&packet);
            }
            30..34 if !self.packets.is_empty() => _ = self.packets.remove(at),
            34..37 if !self.packets.is_empty() => self.deliver(&self.packets[at].clone()),
            37..50 => self.now += u64::from(b % 400) * MS,
            50 => self.now += 2_500 * MS,
            51..65 => self.tick(node),
            65..70 => self.coordinator.tick(Time(self.now)),
            70..80 => self.store(true),
            80 => self.store(false),
            81..92 => self.command(node, Command::Assign(PLACES[usize::from(b) % PLACES.len()])),
            92 => {
                let (start, clock) = (self.peers[&node].start + 1, self.peers[&node].clock);
                self.start(node, start, clock);
            }
            93 => self.restart_coordinator(),
            94 => self.command(node, Command::Rebalance),
            95 => self.command(node, Command::Report { users: u32::from(b), free: 0 }),
            _ => {}
        }
        self.gather();
        self.check();
    }

    /// At most one owner of a slot, and never one under an epoch that another has gone beyond.
    fn check(&mut self) {
        for slot in PLACES {
            let owners: Vec<(u16, u32)> =
                self.peers.iter().filter_map(|(node, peer)| Some((*node, peer.follower.owns(self.clock(*node), slot)?))).collect();
            assert!(owners.len() <= 1, "slot {slot} has owners {owners:?}");
            let Some(&(node, epoch)) = owners.first() else { continue };
            let life = (node, self.peers[&node].start);
            let first = *self.acted.entry((slot, epoch)).or_insert(life);
            assert_eq!(first, life, "two lives act under slot {slot}'s epoch {epoch}");
            let later = self.acted.range((slot, epoch + 1)..=(slot, u32::MAX)).next();
            assert!(later.is_none(), "{life:?} acts for slot {slot} under {epoch} after {later:?}");
        }
    }

    /// Everything works again, for this long.
    fn heal(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        while self.now < until {
            self.now += 50 * MS;
            self.coordinator.tick(Time(self.now));
            self.gather();
            (1..=self.peers.len() as u16).for_each(|node| self.tick(node));
            while self.commit.is_some() || !self.packets.is_empty() {
                for packet in std::mem::take(&mut self.packets) {
                    self.deliver(&packet);
                    self.check();
                }
                self.store(true);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn z4_a_slot_has_one_owner_whatever_happens_and_all_agree_when_it_is_over(
        nodes in 2u16..5, take_over: bool, steps in vec((0u8..96, any::<u16>(), any::<u16>()), 0..600),
    ) {
        let mut world = World::new(nodes, take_over);
        steps.into_iter().for_each(|step| world.step(step));
        world.heal(8_000);
        PLACES.iter().for_each(|slot| world.command(1, Command::Assign(*slot)));
        world.heal(4_000);
        for (node, peer) in &world.peers {
            prop_assert_eq!(peer.follower.slots(), world.coordinator.slots(), "node {}", node);
            let serving = peer.follower.members().iter().filter(|member| member.state == State::Serving);
            prop_assert_eq!(serving.count(), usize::from(nodes));
        }
        for slot in PLACES {
            let (owner, epoch) = world.coordinator.slots().owner(slot).expect("everybody serves");
            prop_assert_eq!(world.peers[&owner.0].follower.owns(world.clock(owner.0), slot), Some(epoch));
        }
    }
}

fn settled(nodes: u16, take_over: bool) -> World {
    let mut world = World::new(nodes, take_over);
    world.heal(1_000);
    world
}

fn owners(world: &World) -> BTreeMap<u16, u32> {
    (1..=world.peers.len() as u16).map(|node| (node, world.coordinator.slots().count(NodeId(node)))).collect()
}

#[test]
fn m1_the_node_with_the_fewest_users_gets_the_slot_and_of_equals_the_lowest_number() {
    let mut world = settled(3, false);
    for (node, users) in [(1, 10), (2, 4), (3, 4)] {
        world.command(node, Command::Report { users, free: 0 });
    }
    world.heal(1_000);
    for slot in 0..4 {
        world.command(1, Command::Assign(slot));
        world.heal(50);
    }
    let owner = |slot| world.coordinator.slots().owner(slot).unwrap().0.0;
    assert_eq!([0, 1, 2, 3].map(owner), [2, 3, 2, 3]);
    let (before, revision) = (owners(&world), world.coordinator.slots().revision());
    world.command(3, Command::Assign(0));
    world.heal(5_000);
    assert_eq!((owners(&world), world.coordinator.slots().revision()), (before, revision), "nothing moves by itself");
}

/// Lets one node be unheard, and gives the milliseconds until all others know.
fn silence(world: &mut World, node: u16) -> u64 {
    let from = world.now;
    let knows = |world: &World, other: u16| {
        world.peers[&other].follower.members().get(NodeId(node)).is_some_and(|member| member.state == State::Gone)
    };
    while !world.peers.keys().all(|&other| other == node || knows(world, other)) {
        world.now += 50 * MS;
        assert!(world.now - from < 10_000 * MS, "nobody noticed");
        world.coordinator.tick(Time(world.now));
        world.gather();
        (1..=world.peers.len() as u16).for_each(|peer| world.tick(peer));
        while world.commit.is_some() || !world.packets.is_empty() {
            for packet in std::mem::take(&mut world.packets).into_iter().filter(|packet| packet.node != node) {
                world.deliver(&packet);
            }
            world.store(true);
        }
        world.check();
    }
    (world.now - from) / MS
}

#[test]
fn a_lost_nodes_slots_are_taken_over_within_3_s_under_higher_epochs_and_it_is_fenced_before() {
    let mut world = settled(3, true);
    for slot in 0..300 {
        world.command(1, Command::Assign(slot));
    }
    world.heal(1_000);
    assert_eq!(owners(&world), BTreeMap::from([(1, 100), (2, 100), (3, 100)]));
    let lost: Vec<u16> = world.coordinator.slots().slots_of(NodeId(3)).collect();
    let top = world.coordinator.slots().revision();
    let took = silence(&mut world, 3);
    assert!(took < 3_000, "{took} ms");
    assert!(world.peers[&3].events.contains(&Event::Fenced));
    assert_eq!(owners(&world), BTreeMap::from([(1, 150), (2, 150), (3, 0)]));
    assert!(lost.iter().all(|slot| world.coordinator.slots().owner(*slot).is_some_and(|(_, epoch)| epoch > top)));
    world.heal(3_000);
    let events = &world.peers[&3].events;
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Joined { .. })).count(), 2, "it has joined again");
    world.command(3, Command::Rebalance);
    world.heal(3_000);
    let counts = owners(&world);
    assert!(counts.values().all(|count| (90..=110).contains(count)), "{counts:?}");
    let revision = world.coordinator.slots().revision();
    world.command(3, Command::Rebalance);
    world.heal(3_000);
    assert_eq!(world.coordinator.slots().revision(), revision, "what is even stays as it is");
}

/// M1: an operator may ask twice.
#[test]
fn m1_another_rebalance_waits_until_all_have_told_how_many_users_the_one_before_has_left_them() {
    let mut world = settled(3, true);
    let tell = |world: &mut World, users: [u32; 3]| {
        (1..).zip(users).for_each(|(node, users)| world.command(node, Command::Report { users, free: 0 }));
    };
    (0..300).for_each(|slot| world.command(1, Command::Assign(slot)));
    silence(&mut world, 3);
    tell(&mut world, [150, 150, 0]);
    world.heal(3_000);
    for wait in [0, 100, 200, 1_000] {
        world.heal(wait);
        world.command(3, Command::Rebalance);
    }
    let even = owners(&world);
    assert!(
        even.values().all(|slots| (90..=110).contains(slots)),
        "no more than were due, though nobody has told of them: {even:?}"
    );
    tell(&mut world, [100, 100, 100]);
    let revision = world.coordinator.slots().revision();
    world.heal(4_000);
    assert_eq!(world.coordinator.slots().revision(), revision);
    tell(&mut world, [300, 100, 100]);
    world.heal(1_000);
    world.command(3, Command::Rebalance);
    world.heal(1_000);
    assert!(owners(&world)[&1] < even[&1], "later on another one is for what is told then");
}

#[test]
fn without_take_over_a_lost_nodes_slots_stay_its_own_and_it_goes_on() {
    let mut world = settled(2, false);
    world.command(1, Command::Assign(1));
    world.command(1, Command::Assign(2));
    world.heal(500);
    let (before, mine) = (world.coordinator.slots().clone(), 2);
    assert!(silence(&mut world, 2) < 3_000);
    assert!(world.peers[&2].follower.owns(world.clock(2), mine).is_some(), "nobody else ever may");
    world.heal(3_000);
    assert_eq!(world.coordinator.slots(), &before);
    assert!(!world.peers[&2].events.contains(&Event::Fenced));
    world.command(1, Command::Rebalance);
    world.heal(500);
    assert!(world.peers[&1].events.contains(&Event::Refused(Command::Rebalance, Refusal::Stays)));
}

/// Z4.
#[test]
fn z4_a_node_whose_coordinator_is_silent_owns_its_slots_while_the_database_confirms_them_and_no_longer() {
    let mut world = settled(2, true);
    world.command(1, Command::Assign(7));
    world.heal(500);
    let node = world.coordinator.slots().owner(7).unwrap().0.0;
    let pass = |world: &mut World, confirmed: bool| {
        for _ in 0..100 {
            world.now += 100 * MS;
            let now = world.clock(node);
            let follower = &mut world.peers.get_mut(&node).unwrap().follower;
            if confirmed && now >= follower.confirm_at() {
                follower.confirm(now);
            }
            world.tick(node);
            world.packets.clear();
        }
        world.peers[&node].follower.owns(world.clock(node), 7).is_some()
    };
    assert!(pass(&mut world, true) && !world.peers[&node].events.contains(&Event::Fenced));
    assert!(!pass(&mut world, false) && world.peers[&node].events.contains(&Event::Fenced));
    assert!(!pass(&mut world, true), "a lease that was lost is not confirmed");
}

#[test]
fn the_known_table_serves_on_while_the_coordinator_is_away() {
    let mut world = settled(2, false);
    world.command(1, Command::Assign(7));
    world.heal(500);
    for _ in 0..100 {
        world.now += 100 * MS;
        world.tick(1);
        world.packets.clear();
    }
    let peer = &world.peers[&1];
    assert!(matches!(peer.events.last(), Some(Event::Away(_))) && peer.follower.owns(world.clock(1), 7).is_some());
    world.restart_coordinator();
    world.heal(2_000);
    let peer = &world.peers[&1];
    assert!(peer.events.contains(&Event::Back) && peer.follower.owns(world.clock(1), 7).is_some());
    assert!(!peer.events.contains(&Event::Fenced), "nothing was lost");
}

#[test]
fn z1_a_number_in_use_is_refused_with_the_reason_and_one_whose_disk_has_users_too() {
    let mut world = settled(2, false);
    world.command(1, Command::Assign(1));
    world.command(1, Command::Assign(2));
    world.heal(500);
    let join = |world: &mut World, identity| {
        let mut intruder = Follower::new(Time(world.now), world.terms, myself(2, identity, 9));
        let ask = intruder.take_asks().remove(0);
        world.coordinator.ask(Time(world.now), NodeId(2), ask);
        let tells = world.coordinator.take();
        for output in tells {
            match output {
                Output::Tell { to: NodeId(2), tell } => intruder.hear(Time(world.now), tell),
                Output::Tell { .. } => {}
                Output::Store(writes) => _ = world.commit.replace(writes),
            }
        }
        intruder.take_events()
    };
    let by = "127.0.0.1:7002".parse().unwrap();
    let refused = join(&mut world, 99);
    assert_eq!(refused, [Event::NotJoined(Refusal::NumberInUse { node: NodeId(2), by })]);
    silence(&mut world, 2);
    let held = Refusal::NumberHeld { node: NodeId(2), by };
    assert!(join(&mut world, 99).contains(&Event::NotJoined(held.clone())));
    assert!(held.to_string().contains("cluster.node = 2") && held.to_string().contains("start that one"));
    world.coordinator.ask(
        Time(world.now),
        NodeId(1),
        fanal::ownership::Ask::Forget { life: Life { identity: 1, start: 1, join: 1 }, node: NodeId(2) },
    );
    world.gather();
    world.store(true);
    assert_eq!(owners(&world)[&2], 0);
    assert_eq!(join(&mut world, 99), [], "it may join now");
}

#[test]
fn a_node_with_other_terms_and_an_earlier_life_are_refused() {
    let mut world = settled(1, true);
    let refusal = |world: &mut World, terms, me| {
        let mut other = Follower::new(Time(world.now), terms, me);
        world.coordinator.ask(Time(world.now), NodeId(1), other.take_asks().remove(0));
        for output in world.coordinator.take() {
            if let Output::Tell { tell, .. } = output {
                other.hear(Time(world.now), tell);
            }
        }
        other.take_events()
    };
    let other_terms = Terms { lease_ms: 5_000, take_over: true };
    assert_eq!(refusal(&mut world, other_terms, myself(1, 1, 2)), [Event::NotJoined(Refusal::Terms(terms(true)))]);
    assert_eq!(refusal(&mut world, terms(true), myself(1, 1, 0)), [Event::NotJoined(Refusal::Outlived)]);
    assert_eq!(refusal(&mut world, terms(true), myself(0, 1, 0)), [Event::NotJoined(Refusal::Malformed)], "another number");
}

/// Z4.
#[test]
fn z4_a_slot_whose_users_are_on_a_nodes_disk_is_that_nodes_unless_it_has_an_owner() {
    let mut world = settled(2, false);
    world.command(1, Command::Assign(5));
    world.heal(500);
    assert_eq!(world.coordinator.slots().owner(5).map(|(node, _)| node), Some(NodeId(1)));
    world.command(1, Command::Report { users: 0, free: 0 });
    world.command(2, Command::Report { users: 1_000, free: 0 });
    world.peers.get_mut(&2).unwrap().follower.claim([5, 7, 40_000]);
    world.heal(2_000);
    let owner = |world: &World, slot| world.coordinator.slots().owner(slot).map(|(node, _)| node);
    assert_eq!([5, 7, 40_000].map(|slot| owner(&world, slot)), [Some(NodeId(1)), Some(NodeId(2)), Some(NodeId(2))]);
    let revision = world.coordinator.slots().revision();
    world.heal(5_000);
    assert_eq!(world.coordinator.slots().revision(), revision, "it is claimed once");
}

#[test]
fn a_rebalance_is_not_tried_before_the_store_that_failed_is_tried_again() {
    let mut world = settled(2, true);
    world.command(1, Command::Assign(5));
    world.command(1, Command::Rebalance);
    while !world.packets.is_empty() {
        let packet = world.packets.remove(0);
        world.deliver(&packet);
    }
    world.store(false);
    let wakes_at = world.coordinator.next();
    assert_eq!(wakes_at, Time(world.now) + RETRY, "it neither turns until then nor sleeps longer");
}

#[test]
fn a_store_that_fails_changes_nothing_and_is_said() {
    let mut world = settled(1, false);
    world.command(1, Command::Assign(5));
    while let Some(packet) = world.packets.pop() {
        world.deliver(&packet);
    }
    world.store(false);
    world.heal(50);
    let why = Refusal::Storage("the disk is full".to_owned());
    assert!(world.peers[&1].events.contains(&Event::Refused(Command::Assign(5), why)));
    assert_eq!(world.coordinator.slots().revision(), 0);
    world.command(1, Command::Assign(5));
    world.heal(RETRY.as_millis() as u64 + 1_000);
    assert!(world.coordinator.slots().owner(5).is_some());
}

#[test]
fn a_node_that_leaves_is_gone_at_once_and_one_that_drains_gets_nothing_new() {
    let mut world = settled(3, true);
    world.command(2, Command::Drain);
    world.heal(1_000);
    for slot in 0..10 {
        world.command(1, Command::Assign(slot));
    }
    world.heal(500);
    assert_eq!(owners(&world), BTreeMap::from([(1, 5), (2, 0), (3, 5)]));
    world.command(3, Command::Leave);
    world.heal(100);
    assert_eq!(owners(&world), BTreeMap::from([(1, 10), (2, 0), (3, 0)]));
    assert!(world.peers[&3].events.contains(&Event::Fenced));
}

#[test]
fn a_whole_table_reaches_a_new_node_in_bounded_parts() {
    let mut world = settled(2, false);
    (0..=u16::MAX).for_each(|slot| world.peers.get_mut(&1).unwrap().follower.command(Time(0), Command::Assign(slot)));
    world.heal(8_000);
    assert_eq!(owners(&world), BTreeMap::from([(1, SLOTS as u32 / 2), (2, SLOTS as u32 / 2)]));
    let clock = world.peers[&2].clock;
    world.start(2, 2, clock);
    let longest = world.packets.iter().map(|packet| packet.bytes.len()).max();
    world.heal(1_000);
    assert!(longest <= Some(fanal::ownership::MESSAGE_BYTES));
    assert_eq!(world.peers[&2].follower.slots(), world.coordinator.slots());
    assert!((0..=u16::MAX).filter(|slot| world.peers[&2].follower.owns(world.clock(2), *slot).is_some()).count() == SLOTS / 2);
}

/// The lease of a member runs from when it asked, so a slow answer is worth less, and one that comes too late nothing.
#[test]
fn a_lease_runs_from_the_question_and_not_from_the_answer() {
    let mut world = World::new(1, true);
    let packet = world.packets.remove(0);
    world.deliver(&packet);
    world.store(true);
    world.now += 2_000 * MS;
    for packet in std::mem::take(&mut world.packets) {
        world.deliver(&packet);
    }
    assert!(!world.peers[&1].events.iter().any(|event| matches!(event, Event::Joined { .. })));
    assert_eq!(terms(true).own_lease(), Duration::from_millis(1_800));
}

#[test]
fn rows_that_were_stored_are_the_table_again_and_damage_is_an_error() {
    let mut world = settled(2, false);
    PLACES.iter().for_each(|slot| world.command(1, Command::Assign(*slot)));
    world.heal(500);
    let before = world.coordinator.slots().clone();
    world.restart_coordinator();
    assert_eq!(world.coordinator.slots(), &before);
    let mut stored = Stored::default();
    assert!(stored.load(b"owners:", &[]).is_err() && stored.load(b"owners:a", b"\x01\x01").is_err());
    assert!(stored.load(b"member:\0", &[]).is_err() && stored.load(b"member:\0\x01", &[1]).is_err());
    assert!(stored.load(b"epoch", b"anything").is_ok(), "another's row");
    let line = Assignment { slot: 9, node: NodeId(1), epoch: 1 };
    assert_eq!(before.line(9), Assignment { node: NodeId(0), epoch: 0, ..line });
}
