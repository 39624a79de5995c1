//! Slots without owners, and owners that some cores know before others (Z4, M1): nodes in memory.

mod nodes_world;

use fanal::base::id::{NodeId, UserId, slot_of};
use fanal::base::limits::Limits;
use fanal::presence::control::{Control, Note, Way, WayKind};
use fanal::presence::subscription;
use fanal::shard::Word;
use fanal::shard::batch::{Command, Order};
use fanal::store::Table;
use fanal::wire::native::{Action, Show};
use nodes_world::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Cores of a node are told of owners. Node 1 looks after slots without any.
fn tell(world: &mut World, node: usize, owners: &Arc<[NodeId]>, steward: u16) {
    for shard in &mut world.nodes[node].shards {
        let order = Order::Owners { owners: owners.clone(), steward: NodeId(steward) };
        shard.command(world.now, Command { ticket: 0, order });
    }
    world.settle();
}

/// Slots that the cores of a node want owners for.
fn wanted(world: &mut World, node: usize) -> BTreeSet<u16> {
    let words = world.nodes[node].shards.iter_mut().flat_map(|shard| std::mem::take(&mut shard.words));
    let slots = words.map(|word| match word {
        Word::Wanted(slots) => slots,
        _ => panic!("nobody says anything of owners here"),
    });
    slots.flatten().collect()
}

/// The owners, but this slot has none.
fn without(world: &World, name: &str) -> (u16, Arc<[NodeId]>) {
    let slot = slot_of(jid(name).as_str());
    let owner = |(at, &node): (usize, &NodeId)| if at == usize::from(slot) { NodeId(0) } else { node };
    (slot, world.owners.iter().enumerate().map(owner).collect())
}

fn users(world: &World) -> Vec<usize> {
    world.nodes.iter().map(|node| node.shards.iter().map(|shard| shard.homes.user_count()).sum()).collect()
}

/// Z4.
#[test]
fn z4_who_comes_into_being_waits_for_an_owner_and_what_is_said_meanwhile_finds_the_user() {
    for cores in [1, 2] {
        let mut world = World::new(3, cores);
        let (ann, bob) = (world.name_on(1, 0), world.name_on(2, 0));
        let owners = world.owners.clone();
        let (slot, open) = without(&world, &ann);
        (0..3).for_each(|node| tell(&mut world, node, &open, 1));
        let b = world.online(2, &bob);
        world.heard(b);
        let a = world.online(2, &ann);
        assert_eq!((world.heard(a), users(&world)), (vec![Heard::Other], vec![0, 0, 1]), "the hello alone");
        assert_eq!((0..3).map(|node| wanted(&mut world, node)).collect::<Vec<_>>(), [[slot].into(), [].into(), [].into()]);
        // The steward hears of the owner first, then a third node, and the owner last.
        tell(&mut world, 0, &owners, 1);
        tell(&mut world, 2, &owners, 1);
        assert!(users(&world)[1] <= 1);
        tell(&mut world, 1, &owners, 1);
        assert_eq!(users(&world), [0, 1, 1]);
        world.subscribes((&bob, b), (&ann, a));
        world.seen(b);
        world.shows(a, Show::Away);
        assert_eq!(world.seen(b), [Show::Away]);
    }
}

/// Z4.
#[test]
fn z4_before_a_node_knows_the_owners_all_waits_and_not_for_ever() {
    for cores in [1, 2] {
        let mut world = World::new(2, cores);
        let (ann, bob, cara) = (world.name_on(0, 0), world.name_on(1, 0), world.name_on(0, 1));
        let (owners, b) = (world.owners.clone(), world.online(1, &bob));
        world.heard(b);
        let (slot, open) = without(&world, &ann);
        tell(&mut world, 1, &open, 0);
        let a = world.online(1, &ann);
        world.subscription(b, Action::Subscribe, &ann);
        world.subscription(b, Action::Subscribed, &ann);
        assert_eq!(world.heard(a), [Heard::Other], "the hello alone");
        assert!(wanted(&mut world, 1).is_subset(&[slot].into()));
        tell(&mut world, 1, &owners, 1);
        assert!(world.heard(a).len() >= 2, "it's in, and has been asked");
        world.subscription(a, Action::Subscribed, &bob);
        world.seen(b);
        world.shows(a, Show::Away);
        assert_eq!(world.seen(b), [Show::Away]);
        let (_, open) = without(&world, &cara);
        tell(&mut world, 1, &open, 0);
        let late = world.knocks(1, &cara);
        let counted = |world: &mut World| {
            let (now, shards) = (world.now, world.nodes[1].shards.iter_mut());
            let snapshots = shards.map(|shard| shard.snapshot(now));
            snapshots
                .fold([0, 0], |[waiting, gone], one| [waiting + one.gauges.owners_waiting, gone + one.counters.owners_given_up])
        };
        assert_eq!(counted(&mut world), [1, 0]);
        world.now = world.now + Duration::from_millis(Limits::default().log_in_ms.into());
        world.settle();
        assert_eq!(world.heard(late), [Heard::Other, Heard::Error(36)]);
        assert_eq!(counted(&mut world), [0, 1]);
    }
}

/// Z4: a node's cores hear of owners together, and of another node one after the other.
#[test]
fn z4_what_is_for_a_slot_without_an_owner_waits_until_this_core_has_found_who_looks_after_it() {
    for cores in [1, 2] {
        let mut world = World::new(2, cores);
        let (ann, bob) = (world.name_on(1, 0), world.name_on(1, 1));
        let (owners, (slot, open)) = (world.owners.clone(), without(&world, &ann));
        let b = world.online(1, &bob);
        world.heard(b);
        world.cut(0, 1);
        world.lose(0, 1);
        (0..2).for_each(|node| tell(&mut world, node, &open, 1));
        world.writes(b, &ann, "are you there?");
        assert_eq!(world.heard(b), []);
        world.heal(0, 1);
        assert_eq!(world.heard(b), [Heard::Error(3)], "who looks after the slot has nobody in it");
        world.cut(0, 1);
        world.lose(0, 1);
        (0..2).for_each(|node| tell(&mut world, node, &open, 1));
        let a = world.online(1, &ann);
        assert_eq!((world.heard(a), wanted(&mut world, 1)), (vec![Heard::Other], [slot].into()), "the hello alone");
        world.heal(0, 1);
        (0..2).for_each(|node| tell(&mut world, node, &owners, 1));
        assert_eq!((world.heard(a), users(&world)), (vec![Heard::Other], vec![0, 2]), "it's in");
    }
}

/// Z8: who is asked for before there is such a user, and comes later, at another node than the one that has said so. Nothing of
/// that is left behind there. (Simulator 2055, 2238, 4177: two nodes number ways each by itself.)
#[test]
fn z8_who_was_asked_for_in_vain_is_seen_once_there_is_such_a_user_elsewhere() {
    for (cores, home) in [(1, 2), (2, 2), (1, 0), (2, 0)] {
        let mut world = World::new(3, cores);
        let (ann, bob) = (world.name_on(1, 0), world.name_on(home, 0));
        let owners = world.owners.clone();
        let (_, open) = without(&world, &ann);
        (0..3).for_each(|node| tell(&mut world, node, &open, 1));
        let b = world.online(2, &bob);
        world.heard(b);
        for _ in 0..5 {
            world.subscription(b, Action::Subscribe, &ann);
            assert_eq!(world.heard(b), [Heard::Done]);
        }
        assert_eq!((0..3).map(|node| world.rows(node, Table::Ways, b"")).sum::<usize>(), 0);
        (0..3).for_each(|node| tell(&mut world, node, &owners, 1));
        let a = world.online(1, &ann);
        world.subscribes((&bob, b), (&ann, a));
        world.seen(b);
        world.shows(a, Show::Away);
        assert_eq!(world.seen(b), [Show::Away], "{cores} cores, Bob lives on {home}");
        world.later(Duration::from_secs(30));
        assert_eq!((0..3).map(|node| world.rows(node, Table::Ways, b"")).sum::<usize>(), 0);
    }
}

/// Z8: what was loaded sets out before the owners are known, and they may be the first thing that a core hears (simulator 67).
#[test]
fn z8_what_set_out_before_the_owners_were_known_gets_to_them() {
    let mut world = World::new(2, 1);
    let (ann, bob) = (world.name_on(0, 0), world.name_on(1, 0));
    let (owners, a) = (world.owners.clone(), world.online(0, &ann));
    world.online(1, &bob);
    world.heard(a);
    let (_, open) = without(&world, &ann);
    tell(&mut world, 1, &open, 0);
    let (from, to) = (jid(&bob), jid(&ann));
    let from_user = world.nodes[1].shards[0].homes.by_name(&from).expect("Bob is here").user;
    let (kind, note) = (WayKind::Stanza(subscription::Action::Subscribe), Note::default());
    let way = Way { from, from_user, to, to_user: UserId::NOBODY, kind, note, sequence: 1, cluster: 0, knows: vec![] };
    let shard = &mut world.nodes[1].shards[0];
    shard.out.send(shard.out.map.home_of(&way.to), Control::Way(Box::new(way)));
    assert_eq!(shard.out.undelivered.len(), 1);
    tell(&mut world, 1, &owners, 1);
    assert_eq!(world.heard(a).len(), 1, "Ann is asked");
}

/// M1: a node may hear that it owns somebody after those who send it what is for that user, and while it believes in an owner that
/// is lost.
#[test]
fn m1_a_log_in_that_goes_by_a_node_to_an_owner_lost_before_reaches_the_owner_that_comes_next() {
    for cores in [1, 2] {
        let mut world = World::new(3, cores);
        let ann = world.name_on(2, 0);
        let slot = usize::from(slot_of(jid(&ann).as_str()));
        let owner = |(at, &node): (usize, &NodeId)| if at == slot { NodeId(2) } else { node };
        let owners: Arc<[NodeId]> = world.owners.iter().enumerate().map(owner).collect();
        (0..2).for_each(|node| world.cut(2, node));
        tell(&mut world, 0, &owners, 1);
        let a = world.online(0, &ann);
        assert_eq!(world.heard(a), [Heard::Other], "the hello alone");
        tell(&mut world, 1, &owners, 1);
        assert_eq!((world.heard(a), users(&world)), (vec![Heard::Other], vec![0, 1, 0]), "it's in");
    }
}

/// Z7: the steward is the gateway for other clusters' users in slots without owners, until they have some.
#[test]
fn z7_a_gateway_moves_with_its_slot() {
    for cores in [1, 2] {
        let mut world = World::clusters(2, 2, cores);
        let (ann, bob) = (world.name_on(0, 0), world.name_on(3, 0));
        let owners = world.owners.clone();
        let (_, open) = without(&world, &ann);
        // Those that keep no directory: there names have no slots.
        [2, 3].into_iter().for_each(|node| tell(&mut world, node, &open, 1));
        let (a, b) = (world.online(1, &ann), world.online(2, &bob));
        world.subscribes((&bob, b), (&ann, a));
        world.seen(b);
        world.shows(a, Show::Away);
        assert_eq!(world.seen(b), [Show::Away]);
        [2, 3].into_iter().for_each(|node| tell(&mut world, node, &owners, 1));
        world.seen(b);
        world.shows(a, Show::Chat);
        assert_eq!(world.seen(b), [Show::Chat]);
        world.say(a, |encoder, out| encoder.log_out(out, fanal::wire::encode::Tag::request(9), "bye"));
        assert_eq!(world.seen(b), [Show::Unavailable]);
    }
}

/// Z1: a slot is given to another node while a name of it is being stored by the steward. The directory knows the name all the
/// same.
#[test]
fn z1_a_name_that_is_being_stored_moves_with_its_slot() {
    for cores in [1, 2] {
        let mut world = World::clusters(2, 2, cores);
        let (ann, bob) = (world.name_on(0, 0), world.name_on(3, 0));
        let owners = world.owners.clone();
        let (_, open) = without(&world, &bob);
        [0, 1].into_iter().for_each(|node| tell(&mut world, node, &open, 1));
        world.stalled = Some(0);
        let b = world.online(3, &bob);
        [0, 1].into_iter().for_each(|node| tell(&mut world, node, &owners, 1));
        world.stalled = None;
        let a = world.online(0, &ann);
        world.subscribes((&bob, b), (&ann, a));
        world.seen(b);
        world.shows(a, Show::Away);
        assert_eq!(world.seen(b), [Show::Away]);
    }
}
