//! Several clusters of several nodes in memory. Seen from a cluster each other one is one more node; what crosses is counted.

mod nodes_world;

use ahash::RandomState;
use fanal::base::id::NodeId;
use fanal::presence::border;
use fanal::presence::directory::Directory;
use fanal::presence::outbox::Parcel;
use fanal::store::Table;
use fanal::wire::encode::Tag;
use fanal::wire::native::{Access, Action, Show};
use nodes_world::{Client, Heard, World, jid};
use std::time::Duration;

/// Two clusters of two nodes each: 0 and 1 are of the first, which keeps the directory, 2 and 3 of the second.
fn two(cores: u16) -> World {
    World::clusters(2, 2, cores)
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
            let ((_, ann), (_, bob)) = world.friends((one, at), (other, other));
            world.shows(ann, Show::Away);
            assert_eq!(world.seen(bob), [Show::Away], "{cores} cores, {one} at {at}, {other}");
            world.shows(bob, Show::DoNotDisturb);
            assert_eq!(world.seen(ann), [Show::DoNotDisturb], "{cores} cores, {one} at {at}, {other}");
            world.say(ann, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
            assert_eq!(world.seen(bob), [Show::Unavailable], "{cores} cores, {one} at {at}, {other}");
            for node in 0..4 {
                assert_eq!(world.rows(node, Table::Ways, b""), 0, "both ends have forgotten the ways");
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
    let ((ann, a), (bob, b)) = world.friends((0, 1), (2, 2));
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
    let ((ann, a), (bob, b)) = world.friends((0, 1), (2, 2));
    let other = world.name_on(3, 5);
    world.revokes((&ann, a), (&bob, b), (&other, 3));
}

/// Z1, Z3: the directory is asked once for each user, and knows everybody.
#[test]
fn z3_the_directory_is_asked_once_for_each_user() {
    let mut world = two(1);
    let _ = world.friends((2, 2), (0, 0));
    let located = |world: &World| world.nodes.iter().flat_map(|node| &node.shards).map(|s| s.homes.directory.located).sum::<u64>();
    let before = located(&world);
    assert_eq!(before, 1, "the directory's own cluster asks itself");
    let ((_, a), (_, b)) = world.friends((2, 3), (1, 1));
    assert_eq!(located(&world), before + 1, "another user");
    world.shows(a, Show::Away);
    assert_eq!(world.seen(b), [Show::Away]);
    let names: usize = world.nodes.iter().flat_map(|node| &node.shards).map(|shard| shard.homes.directory.count()).sum();
    assert_eq!(names, 3);
    assert_eq!((0..4).map(|node| world.rows(node, Table::Meta, b"directory:")).sum::<usize>(), 3);
    assert_eq!((0..4).map(|node| world.rows(node, Table::Meta, b"unsettled:")).sum::<usize>(), 0);
}

/// Z1: who lives where the directory is kept is found there, though the directory has not been told yet.
#[test]
fn z1_who_lives_with_the_directory_is_found_before_it_has_been_told() {
    let mut world = two(1);
    let (ann, bob) = (world.name_on(0, 0), world.name_on(2, 0));
    let a = world.online(0, &ann);
    world.nodes[0].shards[0].homes.directory = Directory::new(RandomState::with_seed(1));
    let b = world.online(2, &bob);
    world.subscribes((&bob, b), (&ann, a));
    world.seen(b);
    world.shows(a, Show::Away);
    assert_eq!(world.seen(b), [Show::Away]);
}

/// Z13: what happened while two clusters were apart is made good once they meet again.
#[test]
fn z13_what_happened_while_two_clusters_were_apart_is_made_good() {
    let mut world = two(2);
    let ((ann, a), (_, b)) = world.friends((0, 1), (2, 2));
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

/// Ann of the first cluster, and users of the second one, whom she asks for their presence while the clusters are apart.
fn many_asked(world: &mut World, count: usize) -> (Client, Vec<(String, Client)>) {
    let ann = world.name_on(0, 0);
    let a = world.online(0, &ann);
    let names: Vec<String> = (0..count).map(|nth| world.name_on(2 + nth % 2, nth / 2)).collect();
    let bobs: Vec<(String, Client)> = names.into_iter().map(|name| (name.clone(), world.online(2, &name))).collect();
    world.cut_clusters(1, 2);
    world.lose_cluster(1, 2);
    world.lose_cluster(2, 1);
    bobs.iter().for_each(|(name, _)| world.subscription(a, Action::Subscribe, name));
    (a, bobs)
}

/// The clusters meet again, with so many users whose ways may set out at once.
fn meet(world: &mut World, at_once: usize) {
    world.nodes.iter_mut().flat_map(|node| &mut node.shards).for_each(|shard| shard.out.again_at_once = at_once);
    world.most_at_once = 0;
    world.heal_clusters(1, 2);
}

fn ways(world: &World) -> usize {
    (0..4).map(|node| world.rows(node, Table::Ways, b"")).sum()
}

/// Z8, Z13: a lane has room for so much, whatever was under way.
#[test]
fn z13_ways_set_out_again_some_at_a_time_and_all_of_them_arrive() {
    let mut world = two(1);
    let (a, bobs) = many_asked(&mut world, 60);
    assert_eq!(ways(&world), 60);
    meet(&mut world, 4);
    assert!(world.most_at_once <= 16, "{} at once: some ways, and what follows from them", world.most_at_once);
    assert_eq!(ways(&world), 0, "all have arrived, and both ends have forgotten them");
    world.heard(a);
    let ann = world.name_on(0, 0);
    for (name, bob) in bobs {
        world.subscription(bob, Action::Subscribed, &ann);
        assert_eq!(world.seen(a), [Show::Available], "{name} has heard the request");
    }
}

/// Z8, Z13: whoever says nothing keeps the others waiting for a moment.
#[test]
fn z13_ways_whose_receivers_do_not_answer_do_not_hold_up_the_others() {
    let mut world = two(1);
    let _ = many_asked(&mut world, 60);
    world.stalled = Some(3);
    meet(&mut world, 4);
    for _ in 0..20 {
        world.later(Duration::from_secs(1));
    }
    assert_eq!(world.rows(2, Table::Ways, b"") + world.rows(0, Table::Ways, b"") + world.rows(1, Table::Ways, b""), 30);
    world.stalled = None;
    (0..20).for_each(|_| world.later(Duration::from_secs(1)));
    assert_eq!(ways(&world), 0);
}

/// Z8, Z13: a way that a full lane does not take is not lost, and is not sent in vain.
#[test]
fn z13_ways_that_a_full_lane_does_not_take_come_when_it_has_room() {
    let mut world = two(1);
    let _ = many_asked(&mut world, 6);
    let full = |world: &mut World, full: bool| {
        let peers = world.nodes.iter_mut().filter(|node| node.cluster == 1).flat_map(|node| &mut node.shards);
        let peers = peers.filter_map(|shard| shard.out.peers.get_mut(&NodeId::of_cluster(2)));
        peers.for_each(|peer| peer.full = full);
    };
    meet(&mut world, 1);
    assert_eq!(ways(&world), 0);
    full(&mut world, true);
    let (ann, bob) = (world.name_on(0, 0), world.name_on(2, 9));
    let (a, b) = (world.online(0, &ann), world.online(2, &bob));
    let before = world.entries.len();
    world.subscription(a, Action::Subscribe, &bob);
    world.later(Duration::from_secs(30));
    assert_eq!((ways(&world), world.entries.len()), (1, before), "it waits at its sender's home");
    full(&mut world, false);
    world.later(Duration::from_secs(10));
    assert_eq!(ways(&world), 0);
    world.subscription(b, Action::Subscribed, &ann);
    assert_eq!(world.seen(a).last(), Some(&Show::Available));
}

/// Z9: what is no presence goes by the receiver's cluster, and then its node; what becomes of it is told where it was asked.
#[test]
fn z9_messages_go_to_the_cluster_and_node_of_their_receiver_and_errors_come_back() {
    for cores in [1, 2] {
        let mut world = two(cores);
        let ((ann, a), (bob, b)) = world.friends((0, 1), (3, 3));
        world.writes(a, &bob, "hello");
        let from = format!("{}/desk", jid(&ann));
        assert_eq!((world.heard(b), world.heard(a)), (vec![Heard::Message(from, b"hello".to_vec())], vec![Heard::Done]));
        world.writes(b, &ann, "and you");
        let from = format!("{}/desk", jid(&bob));
        assert_eq!((world.heard(a), world.heard(b)), (vec![Heard::Message(from, b"and you".to_vec())], vec![Heard::Done]));
        world.writes(a, "nobody.2", "hello");
        assert_eq!(world.heard(a), [Heard::Error(3)], "no_such_user");
        let block = jid(&ann);
        world.say(b, |encoder, out| encoder.block(out, Tag::request(7), block.as_str(), true));
        world.heard(a);
        world.writes(a, &bob, "hello?");
        assert_eq!(world.heard(a), [Heard::Error(4)], "recipient_unavailable, by the other cluster");
        assert!(world.nodes.iter().flat_map(|node| &node.shards).all(|shard| shard.gateway.ticket_count() == 0));
    }
}

/// Z9: so do questions and directed presence, and documents that change.
#[test]
fn z9_questions_documents_and_directed_presence_cross() {
    let mut world = two(2);
    let ((ann, a), (bob, b)) = world.friends((0, 1), (3, 3));
    let bobs = jid(&bob);
    world.say(a, |encoder, out| encoder.interests(out, Tag::request(7), &["mood"]));
    world.heard(a);
    let entries = world.entries.len();
    world.say(b, |encoder, out| encoder.document_set(out, Tag::request(7), "mood", b"good", Access::Contacts));
    assert_eq!(world.heard(a), [Heard::DocumentChanged(bobs.to_string(), b"good".to_vec())]);
    assert_eq!(world.entries.len() - entries, 3, "news, a question, and its answer");
    world.say(a, |encoder, out| encoder.document_get(out, Tag::request(7), bobs.as_str(), "mood"));
    assert_eq!(world.heard(a), [Heard::Document(bobs.to_string(), b"good".to_vec())]);
    world.say(a, |encoder, out| encoder.last_seen_get(out, Tag::request(7), bobs.as_str()));
    assert_eq!(world.heard(a), [Heard::LastSeen(bobs.to_string())]);
    let other = world.online(2, &world.name_on(2, 7));
    world.heard(other);
    world.say(other, |encoder, out| encoder.document_get(out, Tag::request(7), jid(&ann).as_str(), "mood"));
    assert_eq!(world.heard(other), [Heard::Error(28)], "not_found, and nobody can tell why");
    let presence = world.encoder.presence(&fanal::wire::encode::PresenceFields { resource: "desk", ..Default::default() });
    world.heard(b);
    world.say(other, |encoder, out| encoder.directed_presence(out, Tag::request(7), jid(&ann).as_str(), &presence));
    assert!(matches!(&world.heard(a)[..], [Heard::Directed(_)]));
}

/// Z8: an account that is removed is gone from both clusters' tables, and from the directory (Z1).
#[test]
fn z8_an_account_that_is_removed_is_gone_from_both_ends_and_the_directory() {
    for (one, other) in [(0, 2), (2, 0)] {
        let mut world = two(2);
        let ((ann, a), (_, b)) = world.friends((one, one), (other, other));
        world.say(a, |encoder, out| encoder.account_remove(out, Tag::request(7)));
        assert_eq!(world.seen(b), [Show::Unavailable]);
        assert_eq!((tables(&world, 1), tables(&world, 2)), ((0, 0), (0, 0)));
        let mut prefix = b"directory:".to_vec();
        prefix.extend_from_slice(jid(&ann).as_str().as_bytes());
        assert_eq!((0..4).map(|node| world.rows(node, Table::Meta, &prefix)).sum::<usize>(), 0);
        assert_eq!((0..4).map(|node| world.rows(node, Table::Meta, b"unsettled:")).sum::<usize>(), 0);
        assert_eq!((0..4).map(|node| world.rows(node, Table::Ways, b"")).sum::<usize>(), 0);
    }
}

/// Z3: who has moved is found by the second cluster's answer to the first thing that went astray, and that gets there.
#[test]
fn z3_a_stale_entry_is_corrected_on_the_first_wrong_delivery() {
    let mut world = World::clusters(3, 2, 1);
    let (ann, bob) = (world.name_on(2, 0), world.name_on(4, 0));
    let (a, b) = (world.online(2, &ann), world.online(4, &bob));
    world.writes(a, &bob, "one");
    world.heard(b);
    assert_eq!(world.heard(a).last(), Some(&Heard::Done));
    world.say(b, |encoder, out| encoder.account_remove(out, Tag::request(7)));
    // The same name, in the directory's own cluster.
    let moved = world.online(0, &bob);
    world.heard(moved);
    let corrected = |world: &World| world.nodes.iter().flat_map(|n| &n.shards).map(|s| s.gateway.counters.corrected).sum::<u64>();
    assert_eq!(corrected(&world), 0);
    world.writes(a, &bob, "two");
    let from = format!("{}/desk", jid(&ann));
    assert_eq!((world.heard(moved), world.heard(a)), (vec![Heard::Message(from.clone(), b"two".to_vec())], vec![Heard::Done]));
    assert_eq!(corrected(&world), 1);
    let entries = world.entries.len();
    world.writes(a, &bob, "three");
    assert_eq!((world.heard(moved), world.entries.len() - entries), (vec![Heard::Message(from, b"three".to_vec())], 2));
    world.say(moved, |encoder, out| encoder.account_remove(out, Tag::request(7)));
    let moved = world.online(5, &bob);
    world.heard(moved);
    world.subscription(a, Action::Subscribe, &bob);
    world.subscription(moved, Action::Subscribed, &ann);
    world.seen(a);
    world.shows(moved, Show::Chat);
    assert_eq!(world.seen(a), [Show::Chat], "a way finds it, too");
}

/// Z13: who has missed nothing is told nothing; what crosses after a cut is in proportion to what changed.
#[test]
fn z13_after_a_cut_only_what_changed_is_told() {
    let mut world = two(2);
    let watcher = world.name_on(2, 0);
    let w = world.online(2, &watcher);
    let publishers: Vec<Client> = (0..40)
        .map(|nth| {
            let name = world.name_on(nth % 2, nth / 2);
            let client = world.online(nth % 2, &name);
            world.subscribes((&watcher, w), (&name, client));
            client
        })
        .collect();
    world.seen(w);
    let mut told = |changes: usize, lost: bool| {
        world.cut_clusters(1, 2);
        if lost {
            world.lose_cluster(1, 2);
            world.lose_cluster(2, 1);
            assert_eq!(world.seen(w), [Show::Unavailable; 40], "once");
        }
        publishers[..changes].iter().for_each(|client| world.shows(*client, Show::Away));
        publishers[..changes].iter().for_each(|client| world.shows(*client, Show::Chat));
        world.seen(w);
        let (abroad, entries) = (world.abroad, world.entries.len());
        // The updates that were put off are lost on the way.
        for shard in world.nodes[..2].iter_mut().flat_map(|node| &mut node.shards) {
            shard.out.peers.values_mut().for_each(|peer| peer.put_off.clear());
        }
        world.heal_clusters(1, 2);
        let (seen, again) = (world.seen(w), if lost { 40 } else { changes });
        assert_eq!((seen.len(), world.abroad), (again, abroad), "once");
        assert!(seen.iter().filter(|show| **show == Show::Chat).count() >= changes && !seen.contains(&Show::Unavailable));
        world.entries[entries..].iter().filter(|(from, ..)| *from == 1).map(|(.., bytes)| bytes.len()).sum::<usize>()
    };
    for lost in [false, true] {
        let (none, three) = (told(0, lost), told(3, lost));
        assert!(none < 100 && (100..1500).contains(&three), "{none} and {three} bytes");
    }
}

/// Z7: an update that is put off on its way inside the other cluster, by a node that keeps nothing of its publisher, is not lost.
#[test]
fn z7_an_update_that_can_not_be_passed_on_at_once_is_asked_for_when_it_can() {
    let mut world = two(2);
    // Bob's gateway is node 1 of the first cluster, and what his node sends comes to node 0.
    let ((_, a), (_, b)) = world.friends((1, 1), (3, 3));
    world.cut(0, 1);
    world.shows(b, Show::Away);
    world.shows(b, Show::Chat);
    assert_eq!(world.seen(a), []);
    world.heal(0, 1);
    assert_eq!(world.seen(a), [Show::Chat]);
    let slow: Vec<_> = world.nodes[0].shards.iter_mut().flat_map(|shard| shard.out.peers.values_mut()).collect();
    slow.into_iter().for_each(|peer| peer.slow = true);
    world.shows(b, Show::Away);
    assert_eq!(world.seen(a), []);
    let slow: Vec<_> = world.nodes[0].shards.iter_mut().flat_map(|shard| shard.out.peers.values_mut()).collect();
    slow.into_iter().for_each(|peer| peer.slow = false);
    world.settle();
    assert_eq!(world.seen(a), [Show::Away], "the gateway has asked for it");
}

/// Z13: a node of another cluster is gone: its users are shown as gone once, and are there again with it.
#[test]
fn z13_the_users_of_another_clusters_lost_node_go_once_and_come_back_with_it() {
    let mut world = two(2);
    let ((ann, _), (_, b)) = world.friends((0, 0), (2, 2));
    world.kill(0);
    assert_eq!(world.seen(b), [Show::Unavailable], "exactly once");
    world.revive(0, 2);
    assert_eq!(world.seen(b), [], "the last that is known of her is that she's gone");
    let a = world.online(0, &ann);
    assert_eq!(world.seen(b), [Show::Available]);
    world.shows(a, Show::Away);
    assert_eq!(world.seen(b), [Show::Away]);
}

/// Z13: the node of a gateway begins anew, and with it what it kept of other clusters' users.
#[test]
fn z13_a_gateway_that_begins_anew_asks_for_everything_again() {
    let mut world = two(2);
    let (bob, gateway) = (world.name_on(2, 0), 0);
    let b = world.online(2, &bob);
    let ann = world.name_on(1, 0);
    let a = world.online(1, &ann);
    world.subscribes((&ann, a), (&bob, b));
    world.seen(a);
    world.kill(gateway);
    assert_eq!(world.seen(a), [Show::Unavailable], "whoever told of him is gone");
    world.shows(b, Show::Away);
    assert_eq!(world.seen(a), []);
    world.revive(gateway, 2);
    assert_eq!(world.seen(a), [Show::Away]);
    world.shows(b, Show::Chat);
    assert_eq!(world.seen(a), [Show::Chat]);
}

/// Z1, Z9: while the directory is out of reach, what is known goes on, and the rest is refused; accounts are settled later.
#[test]
fn z1_without_the_directory_known_users_are_reached_and_others_are_refused() {
    let mut world = World::clusters(3, 1, 1);
    let (ann, bob) = (world.name_on(1, 0), world.name_on(2, 0));
    let (a, b) = (world.online(1, &ann), world.online(2, &bob));
    world.subscribes((&ann, a), (&bob, b));
    world.heard(a);
    for cluster in [2, 3] {
        world.cut_clusters(cluster, 1);
        world.lose_cluster(cluster, 1);
    }
    world.writes(a, &bob, "hello");
    world.heard(b);
    assert_eq!(world.heard(a), [Heard::Done]);
    let (eve, stranger) = (world.name_on(2, 3), world.name_on(1, 4));
    let e = world.online(2, &eve);
    let s = world.online(1, &stranger);
    world.heard(s);
    world.writes(s, &eve, "hello");
    assert_eq!(world.heard(s), [Heard::Error(36)], "home_out_of_reach");
    world.subscription(s, Action::Subscribe, &eve);
    assert_eq!(world.rows(2, Table::Meta, b"unsettled:"), 1);
    world.heal_clusters(3, 1);
    world.heal_clusters(2, 1);
    assert_eq!(world.rows(2, Table::Meta, b"unsettled:"), 0);
    world.subscription(e, Action::Subscribed, &stranger);
    assert_eq!(world.seen(s), [Show::Available], "the way was kept, and found its receiver");
}

/// Z9: a cluster that can't be reached says so at once, and who waits for its answer hears when it's lost.
#[test]
fn z9_who_waits_for_a_cluster_that_is_lost_is_told() {
    let mut world = two(1);
    let ((_, a), (bob, b)) = world.friends((2, 2), (0, 0));
    world.heard(a);
    world.cut_clusters(1, 2);
    world.writes(a, &bob, "hello");
    assert_eq!(world.heard(a), []);
    world.lose_cluster(2, 1);
    assert_eq!(world.heard(a).last(), Some(&Heard::Error(36)));
    world.writes(a, &bob, "hello");
    assert_eq!(world.heard(a), [Heard::Error(36)]);
    world.heal_clusters(2, 1);
    world.writes(a, &bob, "hello");
    world.heard(b);
    assert_eq!(world.heard(a).last(), Some(&Heard::Done));
}

/// Z7: a state and an update right behind it may come by a core that they are not for. They are taken in one behind the other.
#[test]
fn z7_an_update_right_behind_a_state_is_taken_in_whichever_core_they_come_by() {
    let mut world = two(2);
    let (ann, bob) = (world.name_on(0, 0), world.name_on(2, 0));
    let (a, b) = (world.online(0, &ann), world.online(2, &bob));
    world.subscribes((&bob, b), (&ann, a));
    world.say(b, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
    world.cut_clusters(1, 2);
    let b = world.online(2, &bob);
    let said = |world: &mut World, node: usize, cluster: u16| {
        let peers = world.nodes[node].shards.iter_mut().filter_map(|shard| shard.out.peers.get_mut(&NodeId::of_cluster(cluster)));
        peers.map(|peer| peer.take()).find(|(parcels, _)| !parcels.is_empty()).expect("something is said")
    };
    let crossing = |parcels: Vec<Parcel>, to| match parcels.into_iter().next().expect("something is said") {
        Parcel::Control(_, control) => border::encode(control, to, Vec::new()).expect("it crosses"),
        Parcel::Updates(_) => panic!("an update comes behind it"),
    };
    let asked = [2, 3].into_iter().filter(|&node| world.nodes[node].shards.iter().any(|shard| shard.homes.relays.count() > 0));
    let gateway = asked.collect::<Vec<_>>()[0];
    let (watch, _) = said(&mut world, gateway, 1);
    let now = world.now;
    world.nodes[0].shards[a.core].from_cluster(now, 2, &crossing(watch, 1)).unwrap();
    world.nodes[0].shards[a.core].out.peers.get_mut(&NodeId::of_cluster(2)).unwrap().slow = false;
    world.publishes(a, 77);
    let (state, update) = said(&mut world, 0, 2);
    let other = &mut world.nodes[gateway].shards[1 - a.core];
    other.from_cluster(now, 1, &crossing(state, 2)).unwrap();
    other.updates_from_cluster(now, 1, update).unwrap();
    world.settle();
    assert_eq!(world.payloads(b), [0, 77]);
}
