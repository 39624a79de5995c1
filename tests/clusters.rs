//! Several clusters of several nodes in memory. Seen from a cluster each other one is one more node; what crosses is counted.

mod nodes_world;

use fanal::store::{Backend, Table};
use fanal::wire::encode::Tag;
use fanal::wire::native::{Action, Show};
use nodes_world::{Client, World};

/// Two clusters of two nodes each: 0 and 1 are of the first, which keeps the directory, 2 and 3 of the second.
fn two(cores: u16) -> World {
    World::clusters(2, 2, cores)
}

/// A user of each of two nodes, who see each other; one of them is connected to another node of the user's cluster.
fn friends(world: &mut World, (one, at): (usize, usize), other: usize) -> ((String, Client), (String, Client)) {
    let (ann, bob) = (world.name_on(one, 0), world.name_on(other, 0));
    let (a, b) = (world.online(at, &ann), world.online(other, &bob));
    world.subscribes((&ann, a), (&bob, b));
    world.subscribes((&bob, b), (&ann, a));
    world.seen(a);
    world.seen(b);
    ((ann, a), (bob, b))
}

fn rows(world: &World, node: usize, table: Table, prefix: &[u8]) -> usize {
    let mut rows = 0;
    let mut row = |key: &[u8], _: &[u8]| {
        rows += usize::from(key.starts_with(prefix));
        Ok(())
    };
    world.nodes[node].store.load(table, &mut row, &mut |_, _| ()).unwrap();
    rows
}

/// Destinations in the outbound tables of a cluster, and relays.
fn tables(world: &World, cluster: u16) -> (u64, usize) {
    let shards = || world.nodes.iter().filter(|node| node.cluster == cluster).flat_map(|node| &node.shards);
    (shards().map(|shard| shard.homes.tally().interest_rows).sum(), shards().map(|shard| shard.homes.relays.count()).sum())
}

/// Z8, Z6, Z7: the answer to a request travels back over the border, and presence goes both ways.
#[test]
fn z8_users_of_two_clusters_subscribe_to_and_see_each_other() {
    for cores in [1, 2] {
        for (one, at, other) in [(0, 0, 2), (0, 1, 3), (1, 0, 2), (1, 1, 3), (2, 3, 0)] {
            let mut world = two(cores);
            let ((_, ann), (_, bob)) = friends(&mut world, (one, at), other);
            world.shows(ann, Show::Away);
            assert_eq!(world.seen(bob), [Show::Away], "{cores} cores, {one} at {at}, {other}");
            world.shows(bob, Show::DoNotDisturb);
            assert_eq!(world.seen(ann), [Show::DoNotDisturb], "{cores} cores, {one} at {at}, {other}");
            world.say(ann, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
            assert_eq!(world.seen(bob), [Show::Unavailable], "{cores} cores, {one} at {at}, {other}");
            for node in 0..4 {
                assert_eq!(rows(&world, node, Table::Ways, b""), 0, "both ends have forgotten the ways");
            }
        }
    }
}

/// Z6, M4: one frame crosses the border, however many subscribers there are behind it; and inside one goes to each node (Z7).
#[test]
fn z6_an_update_crosses_to_a_cluster_once_however_many_subscribers_it_has_there() {
    for subscribers in [1, 20, 1000] {
        let mut world = two(2);
        let ann = world.name_on(0, 0);
        let publisher = world.online(0, &ann);
        let mut clients = Vec::new();
        for nth in 0..subscribers {
            let node = 2 + nth % 2;
            let name = world.name_on(node, nth / 2);
            let client = world.online(node, &name);
            world.subscribes((&name, client), (&ann, publisher));
            world.seen(client);
            clients.push(client);
        }
        let (abroad, entries, crossed) = (world.abroad, world.entries.len(), world.crossed);
        world.shows(publisher, Show::Away);
        assert_eq!((world.abroad - abroad, world.entries.len() - entries), (1, 0), "{subscribers} subscribers");
        assert!(world.crossed - crossed <= 2, "to the gateway, and to the other node");
        assert!(clients.into_iter().all(|client| world.seen(client) == [Show::Away]));
    }
}

/// Z8: nothing is left at either end.
#[test]
fn z8_who_unsubscribes_is_out_of_both_tables() {
    let mut world = two(2);
    let ((ann, a), (bob, b)) = friends(&mut world, (0, 1), 2);
    assert_ne!(tables(&world, 1), tables(&two(2), 1));
    world.subscription(a, Action::Unsubscribe, &bob);
    world.subscription(b, Action::Unsubscribe, &ann);
    assert_eq!((world.seen(a), world.seen(b)), (vec![Show::Unavailable], vec![Show::Unavailable]));
    assert_eq!((tables(&world, 1), tables(&world, 2)), ((0, 0), (0, 0)));
    let abroad = world.abroad;
    world.shows(a, Show::Away);
    world.shows(b, Show::Away);
    assert_eq!(world.abroad, abroad, "nothing crosses any more");
}

/// Z8: so it is when the publisher takes the approval back.
#[test]
fn z8_who_is_revoked_hears_nothing_more_and_others_of_that_cluster_do() {
    let mut world = two(2);
    let ((ann, a), (bob, b)) = friends(&mut world, (0, 1), 2);
    let other = world.name_on(3, 5);
    let c = world.online(3, &other);
    world.subscribes((&other, c), (&ann, a));
    world.seen(c);
    world.subscription(a, Action::Unsubscribed, &bob);
    assert_eq!(world.seen(b), [Show::Unavailable]);
    world.shows(a, Show::Away);
    assert_eq!((world.seen(b), world.seen(c)), (vec![], vec![Show::Away]));
}

/// Z1, Z3: the directory is asked once for each user, and knows everybody.
#[test]
fn z3_the_directory_is_asked_once_for_each_user() {
    let mut world = two(1);
    let _ = friends(&mut world, (2, 2), 0);
    let located = |world: &World| world.nodes.iter().flat_map(|node| &node.shards).map(|s| s.homes.directory.located).sum::<u64>();
    let before = located(&world);
    assert_eq!(before, 1, "the directory's own cluster asks itself");
    let ((_, a), (_, b)) = friends(&mut world, (2, 3), 1);
    assert_eq!(located(&world), before + 1, "another user");
    world.shows(a, Show::Away);
    assert_eq!(world.seen(b), [Show::Away]);
    let names: usize = world.nodes.iter().flat_map(|node| &node.shards).map(|shard| shard.homes.directory.count()).sum();
    assert_eq!(names, 3);
    assert_eq!((0..4).map(|node| rows(&world, node, Table::Meta, b"directory:")).sum::<usize>(), 3);
    assert_eq!((0..4).map(|node| rows(&world, node, Table::Meta, b"unsettled:")).sum::<usize>(), 0);
}

/// Z13: what happened while two clusters were apart is made good once they meet again.
#[test]
fn z13_what_happened_while_two_clusters_were_apart_is_made_good() {
    let mut world = two(2);
    let ((ann, a), (_, b)) = friends(&mut world, (0, 1), 2);
    world.cut_clusters(1, 2);
    world.shows(a, Show::Away);
    world.shows(a, Show::DoNotDisturb);
    world.shows(b, Show::Chat);
    world.heal_clusters(1, 2);
    assert_eq!((world.seen(a), world.seen(b)), (vec![Show::Chat], vec![Show::DoNotDisturb]), "the newest, once");
    world.cut_clusters(1, 2);
    world.lose_cluster(1, 2);
    world.lose_cluster(2, 1);
    assert_eq!((world.seen(a), world.seen(b)), (vec![Show::Unavailable], vec![Show::Unavailable]), "exactly once");
    world.shows(a, Show::Away);
    world.subscription(b, Action::Unsubscribe, &ann);
    world.heal_clusters(1, 2);
    assert_eq!((world.seen(a), world.seen(b)), (vec![Show::Chat], vec![]), "Bob has unsubscribed, and Ann sees him again");
}
