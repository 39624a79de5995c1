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
