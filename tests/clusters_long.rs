//! Presence that is too long to be sent unasked, between clusters and inside them, in memory: it is told of by reference, and
//! fetched (M5).

mod nodes_world;

use fanal::base::id::NodeId;
use fanal::wire::encode::PresenceFields;
use fanal::wire::native::Show;
use nodes_world::World;

/// M5: it crosses the border once, and goes once to each node behind it; each is told by reference and asks.
#[test]
fn m5_a_long_presence_is_fetched_once_by_a_cluster_and_once_by_each_of_its_nodes() {
    for cores in [1, 2] {
        let mut world = World::clusters(2, 2, cores);
        let ann = world.name_on(0, 0);
        let a = world.online(1, &ann);
        let mut subscribers = Vec::new();
        for nth in 0..10 {
            let node = 2 + nth % 2;
            let name = world.name_on(node, nth / 2);
            let client = world.online(node, &name);
            world.subscribes((&name, client), (&ann, a));
            world.seen(client);
            subscribers.push(client);
        }
        for (payload, times, least) in [(20_000, 1, 40_000), (1000, 0, 2000), (30_000, 1, 60_000)] {
            let before = [0, 2, 3].map(|node| world.fetched(node));
            let bytes = world.bytes;
            // From where she is connected to where her home is, it goes whole.
            world.publishes(a, payload);
            world.settle();
            let after = [0, 2, 3].map(|node| world.fetched(node));
            assert!(subscribers.iter().all(|client| world.payloads(*client) == [payload]), "{cores} cores, {payload}");
            let more = |node: usize| (after[node].0 - before[node].0, after[node].1 - before[node].1);
            assert_eq!((more(0), more(1).0 + more(2).0, more(1).1 + more(2).1), ((0, times), 2 * times, times));
            let bytes = world.bytes - bytes;
            assert!((least..least + 2 * payload + 2000).contains(&bytes), "{bytes} for {payload}");
        }
    }
}

/// M5: a presence goes while a node asks its gateway for it, and is back before the node hears that it had gone.
#[test]
fn m5_a_presence_that_goes_and_comes_while_it_is_fetched_comes_whole() {
    let mut tried = 0;
    for (at, other) in (0..3).flat_map(|at| (3..6).map(move |other| (at, other))) {
        let mut world = World::clusters(2, 3, 1);
        let ((_, a), (_, b)) = world.friends((at, at), (other, other));
        let relays = |world: &World, node: usize| world.nodes[node].shards[0].homes.relays.count();
        let Some(gateway) = (0..3).find(|&node| node != at && relays(&world, node) > 0) else { continue };
        // The node says nothing: not even what it has to pass on.
        let others = |world: &mut World| {
            let turn = |world: &mut World, node| world.store(node) | world.rings(node) | world.links(node);
            while (0..6).filter(|&node| node != at).fold(false, |busy, node| turn(world, node) | busy) {}
        };
        let slow = |world: &mut World, slow| {
            let peers = &mut world.nodes[gateway].shards[0].out.peers;
            peers.get_mut(&NodeId(at as u16 + 1)).expect("of the same cluster").slow = slow;
        };
        world.publishes(b, 20_000);
        others(&mut world);
        if world.fetched(gateway).0 == 0 {
            continue;
        }
        slow(&mut world, true);
        world.sets(b, &PresenceFields { resource: "desk", show: Show::Unavailable, ..Default::default() });
        others(&mut world);
        world.settle();
        world.publishes(b, 21_000);
        world.settle();
        assert!(world.payloads(a).is_empty());
        slow(&mut world, false);
        world.settle();
        assert_eq!((world.payloads(a), world.fetched(at).0), (vec![21_000], 1), "{at} {other}");
        tried += 1;
    }
    assert!(tried > 0);
}

/// M5, Z13: what was lost between two clusters, or inside one, is fetched again; nobody is shown as gone meanwhile.
#[test]
fn m5_what_is_lost_on_its_way_between_clusters_is_fetched_again() {
    let mut world = World::clusters(2, 2, 2);
    // Bob's gateway is node 1 of the first cluster, and what his node sends comes to node 0.
    let ((_, a), (_, b)) = world.friends((1, 1), (3, 3));
    for cut in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)] {
        for (nth, payload) in [20_000, 21_000].into_iter().enumerate() {
            world.publishes(b, payload);
            if nth == 0 {
                world.cut(cut.0, cut.1);
            }
            world.settle();
        }
        for shard in world.nodes.iter_mut().flat_map(|node| &mut node.shards) {
            shard.out.peers.values_mut().for_each(|peer| _ = std::mem::take(&mut peer.wanted));
        }
        world.heal(cut.0, cut.1);
        let heard = world.payloads(a);
        assert!(heard.last() == Some(&21_000) && !heard.contains(&0), "{cut:?}: {heard:?}");
    }
}
