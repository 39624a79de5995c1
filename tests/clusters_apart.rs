//! Two clusters that were apart, in memory: who was gone meanwhile is shown as they are, and not before that is known.

mod nodes_world;

use fanal::base::id::{CoreId, NodeId, Seat, UserId, slot_of};
use fanal::presence::border::{Crossing, place_of};
use fanal::presence::relay::Known;
use fanal::wire::native::Show;
use nodes_world::{World, jid};

/// Z13: what the other cluster, which has given up nobody, has put off until the cut was over may come by another way than the
/// question how they are, and before that is answered (tests/namespaces.rs, once in thirty runs).
#[test]
fn z13_who_comes_back_is_never_shown_as_they_were_before_the_cut() {
    // Bob's home, who stands for him in Ann's cluster, by whom that asks, and by whom it is told.
    for (home, gateway, asks, tells) in [(2, 0, 3, 1), (3, 1, 2, 0)] {
        for at in [0, 1] {
            let mut world = World::clusters(2, 2, 2);
            let (ann, bob) = (world.name_on(0, 0), world.name_on(home, 0));
            let (a, b) = (world.online(at, &ann), world.online(home, &bob));
            world.subscribes((&ann, a), (&bob, b));
            world.seen(a);
            world.cut_clusters(1, 2);
            world.lose_cluster(1, 2);
            assert_eq!(world.seen(a), [Show::Unavailable]);
            world.shows(b, Show::Away);
            world.find(gateway, asks);
            world.mend(home, tells);
            world.settle();
            assert_eq!(world.seen(a), [], "Bob's home has not been reached: {home} at {at}");
            world.heal_clusters(1, 2);
            assert_eq!(world.seen(a), [Show::Away], "{home} at {at}");
            world.shows(b, Show::Chat);
            assert_eq!(world.seen(a), [Show::Chat]);
        }
    }
}

/// G4: what a link has no room for does not gather: of each cluster one word waits, and what joins it is counted.
#[test]
fn g4_words_about_homes_that_find_no_room_are_told_as_one_and_counted() {
    let mut world = World::clusters(2, 2, 1);
    let other = NodeId::of_cluster(2);
    let joined = |world: &mut World| {
        let (now, shard) = (world.now, &mut world.nodes[0].shards[0]);
        shard.snapshot(now).counters.lapses_joined
    };
    let told = |world: &World, since: usize| {
        let words = world.entries[since..].iter().filter(|(from, to, _)| (*from, *to) == (1, 2));
        words
            .filter_map(|(.., bytes)| match postcard::from_bytes(bytes).unwrap() {
                Crossing::Lapsed(lapsed) => Some(lapsed.gone),
                _ => None,
            })
            .collect::<Vec<bool>>()
    };
    let (before, since) = (joined(&mut world), world.entries.len());
    world.cut(0, 2);
    world.cut(0, 3);
    world.nodes[0].shards[0].out.peers.get_mut(&other).unwrap().full = true;
    for _ in 0..3 {
        world.nodes[0].shards[0].peer_lost(world.now, NodeId(2));
        world.find(0, 1);
    }
    assert_eq!((told(&world, since), joined(&mut world)), (vec![], before + 5));
    world.mend(0, 2);
    world.mend(0, 3);
    world.nodes[0].shards[0].out.peers.get_mut(&other).unwrap().full = false;
    world.settle();
    assert_eq!((told(&world, since), joined(&mut world)), (vec![false], before + 5), "the last of them");
}

/// Z13: who can't be asked how they are is not taken for the same as before, and keeps nobody else waiting.
#[test]
fn z13_a_node_answers_for_homes_that_it_can_not_reach_when_another_cluster_compares() {
    let mut world = World::clusters(2, 2, 1);
    let names = [2, 3].map(|node| world.name_on(node, 0));
    let known = names.map(|name| (UserId::new(2, slot_of(jid(&name).as_str()), 1), 7));
    world.lose(2, 3);
    let (place, number, asked) = (place_of(Seat { node: NodeId(1), core: CoreId(0) }), 5, known.len() as u32);
    let compare = postcard::to_stdvec(&Crossing::Compare { place, number, known: Known(known.to_vec()) }).unwrap();
    let (now, before) = (world.now, world.entries.len());
    world.nodes[3].shards[0].from_cluster(now, 1, &compare).unwrap();
    world.settle();
    let said: Vec<Crossing> = world.entries[before..].iter().map(|(_, _, bytes)| postcard::from_bytes(bytes).unwrap()).collect();
    let compared = |crossing: &Crossing| if let Crossing::Compared { number: 5, count, .. } = crossing { *count } else { 0 };
    assert_eq!(said.iter().map(compared).sum::<u32>(), asked);
    let refused = |user| said.iter().any(|said| matches!(said, Crossing::Refused { publisher, .. } if *publisher == user));
    assert!(known.iter().all(|(user, _)| refused(*user)), "nobody watches the one, and the other one's home is out of reach");
}
