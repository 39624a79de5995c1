//! Several nodes of one cluster in memory. A client connects to any node; its user's home is where the slot's owner is (M2).

mod nodes_world;

use fanal::base::id::{CoreId, SessionId, UserId, slot_of};
use fanal::base::reason::Reason;
use fanal::presence::control::{Asker, Attached, Control, EdgeRef, SessionEvent, UserRef};
use fanal::presence::{frame, passage};
use fanal::shard::Shard;
use fanal::store::rows::{self, Row};
use fanal::store::{Backend, Table};
use fanal::wire::encode::{MessageFields, PresenceFields, Tag};
use fanal::wire::native::{Access, Action, MessageKind, Show};
use nodes_world::{Client, Heard, INLINE_MAX, World, jid};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn m2_users_see_each_other_whichever_nodes_they_live_on_and_connect_to() {
    for cores in [1, 2, 3] {
        for at in [(0, 1), (1, 0), (0, 0), (1, 1), (2, 2)] {
            let mut world = World::new(3, cores);
            let ((_, ann), (_, bob)) = world.friends((0, at.0), (1, at.1));
            world.shows(ann, Show::Away);
            assert_eq!(world.seen(bob), [Show::Away], "{cores} cores, {at:?}");
            world.shows(bob, Show::DoNotDisturb);
            assert_eq!(world.seen(ann), [Show::DoNotDisturb], "{cores} cores, {at:?}");
            world.say(ann, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
            assert_eq!(world.seen(bob), [Show::Unavailable], "{cores} cores, {at:?}");
        }
    }
}

/// An answer to a log-in: a session of a user whose home is elsewhere.
fn session_for(edge: EdgeRef, session: u32) -> Vec<u8> {
    let attached = Attached {
        asker: Asker { edge, request: 2 },
        at: UserRef { user: UserId::new(0, 7, 1), slot: 3 },
        session: SessionId(session),
        jid: jid("late"),
        resource: "desk".into(),
        resume: [7; 16],
        resumed: false,
        data: Vec::new(),
    };
    passage::encode(&Control::Attached(Box::new(attached)), Vec::new())
}

#[test]
fn m2_a_log_in_is_decided_once_whatever_else_is_heard_of_it() {
    let mut world = World::new(2, 1);
    let ann = world.name_on(1, 0);
    world.stalled = Some(1);
    let client = world.online(0, &ann);
    let edge = world.nodes[0].shards[0].edge.find(client.conn.slot, 0).expect("it waits for the account");
    let hears = |world: &mut World, said: &[u8]| {
        world.nodes[0].shards[0].from_node(world.now, CoreId(0), said).expect("it can be read");
        world.settle();
    };
    let ended = Control::ToSession { edge, event: SessionEvent::Ended(Reason::Replaced) };
    hears(&mut world, &passage::encode(&ended, Vec::new()));
    world.stalled = None;
    world.settle();
    let session = |world: &World| world.nodes[0].shards[0].edge.session(client.conn.slot, 0).map(|(_, home)| home.session);
    let own = session(&world).expect("it is logged in");
    hears(&mut world, &session_for(edge, 99));
    assert_eq!(session(&world), Some(own));
    world.shows(client, Show::Away);
}

#[test]
fn m2_what_was_asked_in_one_life_of_a_node_is_not_answered_in_another() {
    let mut world = World::new(2, 1);
    let (ann, bob) = (world.name_on(1, 0), world.name_on(1, 1));
    let edge_of = |world: &World, client: Client| world.nodes[0].shards[0].edge.find(client.conn.slot, 0).expect("it's there");
    world.stalled = Some(1);
    let before = world.online(0, &ann);
    let before = edge_of(&world, before);
    world.kill(0);
    world.revive(0, 2);
    let after = world.online(0, &bob);
    assert_eq!((edge_of(&world, after).slot, edge_of(&world, after).seat), (before.slot, before.seat));
    world.nodes[0].shards[0].from_node(world.now, CoreId(0), &session_for(before, 99)).expect("it can be read");
    assert!(world.nodes[0].shards[0].edge.session(after.conn.slot, 0).is_none(), "nobody is logged in by another life's answer");
    world.stalled = None;
    world.settle();
    assert!(world.nodes[0].shards[0].edge.session(after.conn.slot, 0).is_some());
}

#[test]
fn m4_an_update_crosses_to_a_node_once_however_many_subscribers_it_has_there() {
    let mut world = World::new(2, 2);
    let ann = world.name_on(0, 0);
    let publisher = world.online(0, &ann);
    let mut subscribers = Vec::new();
    for nth in 0..20 {
        let name = world.name_on(1, nth);
        let client = world.online(1, &name);
        world.subscribes((&name, client), (&ann, publisher));
        world.seen(client);
        subscribers.push(client);
    }
    let before = world.crossed;
    world.shows(publisher, Show::Away);
    assert_eq!(world.crossed - before, 1);
    assert!(subscribers.into_iter().all(|client| world.seen(client) == [Show::Away]));
    let relays: usize = world.nodes[1].shards.iter().map(|shard| shard.homes.relays.count()).sum();
    assert_eq!(relays, 1);
    let (answered, asked) = world.nodes[1].shards.iter().fold((0, 0), |(answered, asked), shard| {
        let counters = shard.homes.relays.counters;
        (answered + counters.answered, asked + counters.asked)
    });
    assert_eq!((answered, asked), (1, 1), "the second core is answered by the relay, everybody else by an edge");
}

#[test]
fn what_happened_while_two_nodes_were_apart_is_made_good_once_they_meet_again() {
    let mut world = World::new(2, 2);
    let ((ann, a), (_, b)) = world.friends((0, 0), (1, 1));
    world.cut(0, 1);
    world.shows(a, Show::Away);
    world.shows(a, Show::DoNotDisturb);
    world.subscription(b, Action::Unsubscribe, &ann);
    assert_eq!((world.seen(b), world.seen(a)), (vec![Show::Unavailable], vec![]));
    world.heal(0, 1);
    assert_eq!(world.seen(b), [], "Bob has unsubscribed");
    world.shows(b, Show::Chat);
    assert_eq!(world.seen(a), [Show::Chat], "Ann still sees Bob");
    world.cut(0, 1);
    world.shows(b, Show::Away);
    world.shows(b, Show::ExtendedAway);
    world.heal(0, 1);
    assert_eq!(world.seen(a), [Show::ExtendedAway], "the newest, once");
}

#[test]
fn z13_the_users_of_a_lost_node_are_shown_as_gone_once_and_come_back_with_it() {
    let mut world = World::new(2, 2);
    let ((ann, _), (bob, _)) = world.friends((0, 0), (1, 1));
    world.kill(0);
    let watcher = world.online(1, &bob);
    world.seen(watcher);
    world.revive(0, 2);
    let a = world.online(0, &ann);
    assert_eq!(world.seen(watcher), [Show::Available]);
    world.shows(a, Show::Away);
    assert_eq!(world.seen(watcher), [Show::Away]);
    world.kill(0);
    assert_eq!(world.seen(watcher), [Show::Unavailable], "exactly once");
}

#[test]
fn a_client_of_a_node_whose_home_is_gone_is_told_and_can_try_again() {
    let mut world = World::new(2, 1);
    let ann = world.name_on(0, 0);
    let client = world.online(1, &ann);
    world.heard(client);
    world.kill(0);
    assert!(world.heard(client).contains(&Heard::Error(36)));
    let again = world.online(1, &ann);
    assert!(world.heard(again).contains(&Heard::Error(36)));
    world.revive(0, 2);
    let again = world.online(1, &ann);
    assert!(!world.heard(again).iter().any(|heard| matches!(heard, Heard::Error(_))));
}

/// M2.
#[test]
fn m2_who_waits_for_the_keys_of_a_home_that_is_lost_meanwhile_is_told_and_can_try_again() {
    for cores in [1, 2] {
        let mut world = World::new(2, cores);
        let ann = world.name_on(0, 0);
        world.cut(0, 1);
        let client = world.knocks(1, &ann);
        assert_eq!(world.heard(client), [Heard::Other], "the hello alone");
        world.kill(0);
        assert_eq!(world.heard(client), [Heard::Error(36)]);
        world.revive(0, 2);
        let again = world.knocks(1, &ann);
        assert_eq!(world.heard(again), [Heard::Other, Heard::Other], "a challenge");
    }
}

/// M2, Z9.
#[test]
fn m2_who_waits_for_a_home_that_is_lost_meanwhile_is_told() {
    for cores in [1, 2] {
        let mut world = World::new(2, cores);
        let (ann, bob) = (world.name_on(0, 0), world.name_on(1, 0));
        let a = world.online(0, &ann);
        world.heard(a);
        world.cut(0, 1);
        world.writes(a, &bob, "are you there?");
        let b = world.online(0, &bob);
        assert_eq!(world.heard(a), []);
        world.kill(1);
        assert_eq!(world.heard(a), [Heard::Error(36)], "of the message");
        assert!(world.heard(b).contains(&Heard::Error(36)), "of the log-in");
    }
}

/// Z9: for whatever reason an answer does not come.
#[test]
fn z9_nobody_waits_for_an_answer_for_ever() {
    let mut world = World::new(2, 1);
    let (ann, bob) = (world.name_on(0, 0), world.name_on(1, 0));
    let a = world.online(0, &ann);
    world.heard(a);
    world.cut(0, 1);
    world.writes(a, &bob, "are you there?");
    let errors =
        |world: &mut World| world.heard(a).into_iter().filter(|heard| matches!(heard, Heard::Error(_))).collect::<Vec<_>>();
    world.later(Duration::from_secs(30));
    assert_eq!(errors(&mut world), []);
    world.later(Duration::from_secs(32));
    world.later(Duration::from_secs(32));
    assert_eq!(errors(&mut world), [Heard::Error(36)]);
    world.mend(0, 1);
    world.settle();
    assert_eq!(errors(&mut world), [], "the answer comes too late");
    world.writes(a, &bob, "and now?");
    assert_eq!(errors(&mut world).len(), 1, "under the same number");
}

/// Z9: a question is never stored; the session that it went to may be slow to acknowledge it, and may never do.
#[test]
fn z9_who_asks_a_session_that_never_acknowledges_is_told_in_the_end_and_once() {
    for bobs in [0, 1] {
        let mut world = World::new(2, 1);
        let ((_, a), (bob, b)) = world.friends((1 - bobs, 0), (bobs, 1));
        let to = format!("{}/desk", jid(&bob));
        for kind in [MessageKind::Get, MessageKind::Set, MessageKind::GroupChat] {
            let fields = MessageFields { to: &to, id: "q", kind, ..Default::default() };
            let given_up = |world: &mut World| {
                let (now, shard) = (world.now, &mut world.nodes[bobs].shards[0]);
                shard.snapshot(now).counters.messages_given_up
            };
            let before = given_up(&mut world);
            world.say(a, |encoder, out| encoder.message(out, Tag::request(5), &fields));
            world.later(Duration::from_secs(9));
            assert_eq!(world.heard(a), [], "{kind:?}: it may be acknowledged");
            world.later(Duration::from_secs(2));
            assert_eq!(world.heard(a), [Heard::Error(Reason::RecipientUnavailable as u16)], "{kind:?}");
            assert_eq!(given_up(&mut world), before + 1);
            assert!(world.heard(b).iter().any(|heard| matches!(heard, Heard::Message(..))), "and acknowledges it");
            world.later(Duration::from_secs(5));
            assert_eq!(world.heard(a), [], "{kind:?}: once");
            world.say(a, |encoder, out| encoder.message(out, Tag::request(6), &fields));
            world.heard(b);
            assert_eq!((world.heard(a), given_up(&mut world)), (vec![Heard::Done], before + 1), "{kind:?} that is acknowledged");
        }
    }
}

/// Ann wants to hear of moods; Bob, at the other node, and Cleo, at hers, have one each. She hears of Cleo's.
fn moods(world: &mut World) -> (Client, Heard) {
    let ((ann, a), (_, b)) = world.friends((0, 0), (1, 1));
    let cleo = world.name_on(0, 5);
    let c = world.online(0, &cleo);
    world.subscribes((&ann, a), (&cleo, c));
    let mood = |world: &mut World, client: Client, says: &[u8]| {
        world.say(client, |encoder, out| encoder.document_set(out, Tag::request(7), "mood", says, Access::Contacts));
    };
    mood(world, b, b"good");
    mood(world, c, b"bad");
    world.heard(a);
    world.cut(0, 1);
    world.say(a, |encoder, out| encoder.interests(out, Tag::request(7), &["mood"]));
    mood(world, c, b"better");
    (a, Heard::DocumentChanged(jid(&world.name_on(1, 0)).to_string(), b"good".to_vec()))
}

fn documents(world: &mut World, client: Client) -> Vec<Heard> {
    world.heard(client).into_iter().filter(|heard| matches!(heard, Heard::DocumentChanged(..))).collect()
}

/// M2, Z13: a question about documents that is lost with its node is asked again when that is back; meanwhile nobody else's wait.
#[test]
fn m2_what_documents_say_is_asked_again_when_the_node_that_was_asked_is_back() {
    let mut world = World::new(2, 1);
    let (a, bobs) = moods(&mut world);
    let before = documents(&mut world, a);
    world.lose(0, 1);
    let cleos = Heard::DocumentChanged(jid(&world.name_on(0, 5)).to_string(), b"better".to_vec());
    assert_eq!([before, documents(&mut world, a)].concat().last(), Some(&cleos));
    world.heal(0, 1);
    assert_eq!(documents(&mut world, a), [bobs]);
}

/// M2: the same when nobody says that it is lost.
#[test]
fn m2_what_documents_say_is_asked_again_when_no_answer_comes() {
    let mut world = World::new(2, 1);
    let (a, bobs) = moods(&mut world);
    let second = world.nodes[1].id;
    world.nodes[0].shards[0].out.peers.get_mut(&second).unwrap().take();
    world.mend(0, 1);
    world.settle();
    assert!(!documents(&mut world, a).contains(&bobs));
    (0..2).for_each(|_| world.later(Duration::from_secs(31)));
    assert!(documents(&mut world, a).contains(&bobs));
}

/// Z8: the denial waits behind other ways until the request has arrived, and is no answer to it nevertheless.
#[test]
fn z8_what_was_said_before_a_request_came_is_no_answer_to_it() {
    let mut world = World::new(2, 1);
    let ((ann, a), (bob, b)) = world.friends((0, 0), (1, 1));
    world.cut(0, 1);
    [Action::Unsubscribe, Action::Subscribe].into_iter().for_each(|action| world.subscription(b, action, &ann));
    world.subscription(b, Action::Unsubscribed, &ann);
    [Action::Unsubscribe, Action::Subscribe].into_iter().for_each(|action| world.subscription(a, action, &bob));
    world.heal(0, 1);
    world.subscription(b, Action::Subscribed, &ann);
    world.seen(a);
    world.shows(b, Show::Away);
    assert_eq!(world.seen(a), [Show::Away], "Bob has approved the new request");
}

#[test]
fn z8_a_way_is_carried_out_once_though_it_comes_twice() {
    let mut world = World::new(2, 1);
    let (ann, bob) = (world.name_on(0, 0), world.name_on(1, 0));
    let (a, b) = (world.online(0, &ann), world.online(1, &bob));
    world.cut(0, 1);
    world.subscription(a, Action::Subscribe, &bob);
    // The nodes meet twice before anything is confirmed.
    world.find(0, 1);
    world.find(0, 1);
    world.heal(0, 1);
    let asked = |world: &mut World, client| world.heard(client).iter().filter(|heard| **heard == Heard::Other).count();
    assert_eq!(asked(&mut world, b), 3, "hello, log-in, and one request");
    world.subscription(b, Action::Subscribed, &ann);
    assert_eq!(world.seen(a), [Show::Available]);
    for node in &world.nodes {
        let mut ways = 0;
        node.store
            .load(
                Table::Ways,
                &mut |_, _| {
                    ways += 1;
                    Ok(())
                },
                &mut |_, _| (),
            )
            .unwrap();
        assert_eq!(ways, 0, "both ends have forgotten them");
    }
}

#[test]
fn accounts_have_numbers_of_their_cluster() {
    let mut world = World::new(2, 1);
    let name = world.name_on(1, 0);
    world.online(0, &name);
    let mut users = BTreeMap::new();
    let mut row = |key: &[u8], value: &[u8]| {
        users.insert(key.to_vec(), rows::Account::decode(value).unwrap().user);
        Ok(())
    };
    world.nodes[1].store.load(Table::Accounts, &mut row, &mut |_, _| ()).unwrap();
    let slot = slot_of(jid(&name).as_str());
    assert_eq!(users.into_values().collect::<Vec<_>>(), [UserId::new(1, slot, 1)]);
}

/// M5. Each presence is told by reference to a node once, asked for once, and sent once.
#[test]
fn m5_a_long_presence_is_fetched_once_per_node_whoever_subscribes_and_a_short_one_never() {
    for cores in [1, 2] {
        let mut world = World::new(3, cores);
        let ann = world.name_on(0, 0);
        let a = world.online(0, &ann);
        let mut subscribers = Vec::new();
        for (node, nth) in (0..8).map(|nth| (1, nth)).chain((0..3).map(|nth| (2, nth))) {
            let name = world.name_on(node, nth);
            let client = world.online(node, &name);
            world.subscribes((&name, client), (&ann, a));
            world.seen(client);
            subscribers.push(client);
        }
        let mut publish = |payload: usize| {
            let (before, told) = (world.bytes, world.fetched(0).1);
            world.publishes(a, payload);
            world.settle();
            assert!(subscribers.iter().all(|client| world.payloads(*client) == [payload]), "{cores} cores, {payload} bytes");
            assert_eq!((world.fetched(1).0, world.fetched(2).0), (world.fetched(0).1 / 2, world.fetched(0).1 / 2));
            (world.bytes - before, world.fetched(0).1 - told)
        };
        let (bytes, told) = publish(20_000);
        assert!(told == 2 && (40_000..41_000).contains(&bytes), "{told} times, {bytes} bytes");
        let (bytes, told) = publish(1000);
        assert!(told == 0 && bytes < 2 * 1200, "{told} times, {bytes} bytes");
        let (_, told) = publish(INLINE_MAX);
        assert_eq!(told, 2, "what is about it counts, too");
        world.say(a, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
        assert!(subscribers.iter().all(|client| world.seen(*client) == [Show::Unavailable]));
    }
}

/// M5. Who comes later, at whichever core of the node, is told what the node has.
#[test]
fn m5_a_state_that_a_node_is_told_first_is_fetched_too_and_only_once() {
    let mut world = World::new(2, 2);
    let (ann, bob, eve) = (world.name_on(0, 0), world.name_on(1, 0), world.name_on(1, 1));
    let a = world.online(0, &ann);
    world.publishes(a, 20_000);
    world.settle();
    let [b, e] = [&bob, &eve].map(|name| world.online(1, name));
    world.subscribes((&bob, b), (&ann, a));
    assert_eq!((world.payloads(b), world.fetched(1).0), (vec![20_000], 1));
    let bytes = world.bytes;
    world.subscribes((&eve, e), (&ann, a));
    assert_eq!((world.payloads(e), world.fetched(1).0), (vec![20_000], 1));
    assert!(world.bytes - bytes < 5000);
}

/// Ann publishes so much, and the other node has heard of it and not asked yet.
fn referred(world: &mut World, ann: Client, payload: usize) {
    world.publishes(ann, payload);
    while world.rings(0) {}
    assert!(world.links(0), "there is something to say");
}

/// M5. What is asked for is the newest there is; what was overtaken never crosses.
#[test]
fn m5_a_newer_presence_takes_the_place_of_one_that_is_being_fetched() {
    let mut world = World::new(2, 1);
    let ((_, a), (_, b)) = world.friends((0, 0), (1, 1));
    let bytes = world.bytes;
    referred(&mut world, a, 20_000);
    referred(&mut world, a, 21_000);
    world.settle();
    assert_eq!((world.payloads(b), world.fetched(1).0), (vec![21_000], 1));
    assert!(world.bytes - bytes < 22_000);
    referred(&mut world, a, 22_000);
    world.publishes(a, 5);
    world.settle();
    assert_eq!(world.payloads(b), [5], "nothing is left to be fetched");
    referred(&mut world, a, 23_000);
    world.say(a, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
    assert_eq!(world.seen(b), [Show::Unavailable]);
}

/// M5, Z13.
#[test]
fn m5_a_presence_that_is_lost_on_its_way_is_fetched_again_and_what_did_not_change_is_not() {
    let mut world = World::new(2, 2);
    let ((_, a), (_, b)) = world.friends((0, 0), (1, 1));
    referred(&mut world, a, 20_000);
    world.cut(0, 1);
    world.settle();
    assert!(world.payloads(b).is_empty());
    // It was asked for, and lost with the link.
    for shard in world.nodes[0].shards.iter_mut() {
        shard.out.peers.values_mut().for_each(|peer| _ = std::mem::take(&mut peer.wanted));
    }
    world.heal(0, 1);
    assert_eq!(world.payloads(b), [20_000]);
    let (bytes, fetched) = (world.bytes, world.fetched(1));
    world.cut(0, 1);
    world.heal(0, 1);
    assert_eq!((world.payloads(b), world.fetched(1)), (vec![], fetched));
    assert!(world.bytes - bytes < 1000);
}

/// M5, Z13.
#[test]
fn m5_who_is_lost_while_a_presence_is_fetched_is_shown_as_gone_once_and_comes_back() {
    let mut world = World::new(2, 2);
    let ((ann, a), (_, b)) = world.friends((0, 0), (1, 1));
    referred(&mut world, a, 20_000);
    world.kill(0);
    assert_eq!(world.seen(b), [Show::Unavailable]);
    world.revive(0, 2);
    let a = world.online(0, &ann);
    world.publishes(a, 20_000);
    world.settle();
    assert_eq!(world.payloads(b), [0, 20_000]);
}

/// M5. A slow link takes the newest when it can.
#[test]
fn m5_over_a_slow_link_the_newest_is_fetched_when_there_is_room() {
    let mut world = World::new(2, 1);
    let ((_, a), (_, b)) = world.friends((0, 0), (1, 1));
    let slow = |world: &mut World, slow| world.nodes[0].shards[0].out.peers.values_mut().for_each(|peer| peer.slow = slow);
    referred(&mut world, a, 20_000);
    slow(&mut world, true);
    world.settle();
    world.publishes(a, 21_000);
    world.settle();
    world.publishes(a, 22_000);
    world.settle();
    assert!(world.payloads(b).is_empty());
    slow(&mut world, false);
    world.settle();
    assert_eq!(world.payloads(b), [22_000]);
}

/// M5. What a link does not take may have been the answer: whoever has asked for a presence does not ask again when the next one is
/// told by reference.
#[test]
fn m5_an_answer_that_a_link_does_not_take_is_owed_although_it_is_short_or_the_session_gone() {
    for show in [Show::Away, Show::Unavailable] {
        let mut world = World::new(2, 1);
        let ((_, a), (_, b)) = world.friends((0, 0), (1, 1));
        referred(&mut world, a, 20_000);
        assert!(world.links(1), "it asks");
        world.sets(a, &PresenceFields { resource: "desk", show, ..Default::default() });
        while world.rings(0) {}
        let node = world.nodes[1].id;
        let Shard { homes, out, .. } = &mut world.nodes[0].shards[0];
        homes.send_wanted_to(node, out);
        let (_, refused) = out.peers.get_mut(&node).unwrap().take();
        assert!(!refused.is_empty(), "it is answered");
        frame::frames(&refused).for_each(|frame| homes.put_off_for(node, frame, out));
        world.publishes(a, 21_000);
        world.settle();
        assert_eq!((world.payloads(b), world.fetched(1).0), (vec![21_000], 1), "{show:?}");
    }
}
