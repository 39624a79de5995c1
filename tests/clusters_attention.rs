//! Whom nobody of a cluster looks at, since the clients of all who watch are inactive (XEP-0352): what clusters say to each other
//! of that, in memory. What comes of it is in `tests/node_clusters.rs`.

mod nodes_world;

use fanal::presence::border::{self, Crossing};
use fanal::wire::encode::Tag;
use fanal::wire::native::Show;
use nodes_world::{Client, World};
use std::time::Duration;

/// Looks at what inactive clients of a cluster watch, as long as it takes to be sure; gives what the cluster says of it to others.
fn looks(world: &mut World, cluster: u16) -> Vec<bool> {
    const AFTER: Duration = Duration::from_millis(160);
    world.entries.clear();
    for _ in 0..40 {
        world.now = world.now + AFTER / 16;
        for node in world.nodes.iter_mut().filter(|node| node.cluster == cluster) {
            let now = world.now;
            node.shards.iter_mut().for_each(|shard| _ = shard.edge.look_after_attention(now, AFTER, &mut shard.out));
        }
        world.settle();
    }
    said(world)
}

/// What clusters have said of a publisher: whether somebody looks.
fn said(world: &World) -> Vec<bool> {
    let read = |(.., bytes): &(u16, u16, Vec<u8>)| match border::decode(bytes) {
        Ok(Crossing::Attention { active, .. }) => Some(active),
        _ => None,
    };
    world.entries.iter().filter_map(read).collect()
}

fn looks_away(world: &mut World, client: Client, active: bool) {
    world.say(client, |encoder, out| encoder.activity(out, Tag::request(0), active));
}

/// Z12: a cluster says once of a publisher that nobody there looks, when it is so on all cores of all nodes, and for some time; and
/// at once that somebody does.
#[test]
fn z12_a_cluster_says_of_a_publisher_once_that_only_inactive_clients_watch() {
    for cores in [1, 2] {
        let mut world = World::clusters(2, 2, cores);
        let ann = world.name_on(0, 0);
        let a = world.online(0, &ann);
        let clients: Vec<(String, Client)> = (0..6)
            .map(|nth| {
                let name = world.name_on(2 + nth % 2, nth / 2);
                let client = world.online(2 + nth % 2, &name);
                world.subscribes((&name, client), (&ann, a));
                world.seen(client);
                (name, client)
            })
            .collect();
        let [rest @ .., (last, l)] = &clients[..] else { unreachable!("six") };
        rest.iter().for_each(|(_, client)| looks_away(&mut world, *client, false));
        assert!(looks(&mut world, 2).is_empty(), "one is active");
        looks_away(&mut world, *l, false);
        assert!(said(&world).is_empty(), "not yet");
        assert_eq!(looks(&mut world, 2), [false], "{cores} cores");
        assert!(looks(&mut world, 2).is_empty(), "once");
        // Who looks again sees the newest at once, and is told what comes.
        world.shows(a, Show::Away);
        assert!(world.seen(*l).is_empty());
        looks_away(&mut world, *l, true);
        assert_eq!((said(&world), world.seen(*l)), (vec![true], vec![Show::Away]));
        looks_away(&mut world, *l, false);
        looks_away(&mut world, *l, true);
        looks_away(&mut world, *l, false);
        assert_eq!(said(&world), [true], "who only glances away changes nothing");
        assert_eq!(looks(&mut world, 2), [false]);
        // Another session comes, and goes.
        let other = world.online(3, last);
        assert_eq!(said(&world), [false, true]);
        world.entries.clear();
        world.say(other, |encoder, out| encoder.log_out(out, Tag::request(9), ""));
        // At once, where it was the last one on its core.
        let at_once = said(&world);
        assert_eq!([at_once, looks(&mut world, 2)].concat(), [false], "{cores} cores");
        // After a loss it is said again.
        world.cut_clusters(1, 2);
        world.lose_cluster(1, 2);
        world.lose_cluster(2, 1);
        world.entries.clear();
        world.heal_clusters(1, 2);
        let said = said(&world);
        assert!(!said.is_empty() && !said.contains(&true), "{said:?}");
    }
}
