//! Who is revoked hears nothing more, whichever nodes the two live on and connect to (Z7, Z8): nodes in memory.

mod nodes_world;

use fanal::base::id::{CoreId, NodeId, SessionId, Version, slot_of};
use fanal::presence::control::{Asker, Control, Snapshot, Update};
use fanal::presence::frame::Events;
use fanal::presence::outbox::Parcel;
use fanal::presence::passage;
use fanal::wire::encode::{PresenceFields, Tag};
use fanal::wire::event::Head;
use fanal::wire::native::{Action, Show};
use nodes_world::{World, jid};

/// Z8.
#[test]
fn who_is_revoked_hears_nothing_more_on_another_node() {
    let mut world = World::new(2, 2);
    let ((ann, a), (bob, b)) = world.friends((0, 0), (1, 1));
    let other = world.name_on(1, 1);
    world.revokes((&ann, a), (&bob, b), (&other, 1));
}

/// Simulator 475817: that a watch is granted and that the approval has ended came at once, from the core that has the lane.
#[test]
fn z8_who_is_revoked_at_once_behind_the_grant_hears_nothing_more() {
    let mut world = World::new(2, 2);
    let core_of = |name: &str| usize::from(slot_of(jid(name).as_str()) % 2);
    let ann = world.name_on(0, 0);
    let bob = (0..).map(|nth| world.name_on(1, nth)).find(|bob| core_of(bob) == core_of(&ann)).expect("half of all");
    let (a, b) = (world.online(0, &ann), world.online(1, &bob));
    world.subscribes((&bob, b), (&ann, a));
    world.say(b, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
    world.cut(0, 1);
    let b = world.online(1, &bob);
    world.seen(b);
    let (here, there) = (core_of(&ann), 1 - core_of(&ann));
    let shards = &mut world.nodes[1].shards;
    let (parcels, _) = shards[here].out.peers.get_mut(&NodeId(1)).expect("it was found").take();
    let asked = parcels.into_iter().find_map(|parcel| match parcel {
        Parcel::Control(_, Control::Watch { publisher, subscriber, slot, nonce, .. }) => Some((publisher, subscriber, slot, nonce)),
        _ => None,
    });
    let (publisher, subscriber, slot, nonce) = asked.expect("Ann's home is asked");
    let mut event = |show, sequence| {
        let presence = world.encoder.presence(&PresenceFields { show, resource: "desk", ..Default::default() });
        let version = Version { epoch: 1, sequence };
        Events::of(Head { user: publisher, version, session: SessionId(1), show, flags: 0 }, &presence)
    };
    let (events, revoked) = (event(Show::Available, 8), Vec::new());
    let snapshot = Snapshot { publisher, jid: jid(&ann), subscriber, slot, nonce, events, behind: 0, revoked };
    let said = [Control::Snapshot(Box::new(snapshot)), Control::Revoke { publisher, subscriber, slot }];
    for control in said {
        let bytes = passage::encode(&control, Vec::new());
        shards[there].from_node(world.now, CoreId(here as u16), &bytes).expect("it can be read");
    }
    shards[there].updates_from_node(world.now, event(Show::Away, 9).into()).expect("they can be read");
    world.rings(1);
    assert_eq!(world.seen(b), [Show::Available, Show::Unavailable], "what was said while Bob was approved, and no more");
}

/// Simulator 4451: that Bob may see Ann was on its way to where he is connected when she revoked him, and came before the word of
/// that.
#[test]
fn z8_who_was_revoked_lately_is_asked_about_by_whoever_begins_to_watch() {
    let mut world = World::new(3, 1);
    let [ann, bob, cara] = [0, 1, 2].map(|node| world.name_on(node, 0));
    let [a, b, c] = [(0, &ann), (2, &bob), (2, &cara)].map(|(node, name)| world.online(node, name));
    [(&bob, b), (&cara, c)].into_iter().for_each(|(name, client)| world.subscribes((name, client), (&ann, a)));
    world.say(b, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
    world.say(c, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
    let b = world.online(2, &bob);
    world.shows(b, Show::Unavailable);
    world.cut(1, 2);
    world.nodes[1].shards[0].out.peers.get_mut(&NodeId(3)).expect("it was found").slow = false;
    let to_edge = |world: &mut World| world.nodes[1].shards[0].out.peers.get_mut(&NodeId(3)).expect("it was found").take().0;
    let (edge, at) = world.nodes[2].shards[0].edge.session(b.conn.slot, 0).expect("Bob is logged in");
    let presence = world.encoder.presence(&PresenceFields { resource: "desk", ..Default::default() });
    let update = Box::new(Update { presence, asker: Asker { edge, request: 0 } });
    let control = Control::Update { at: at.at(), session: at.session, update };
    world.nodes[1].shards[0].from_node(world.now, CoreId(0), &passage::encode(&control, Vec::new())).expect("it can be read");
    let interest = to_edge(&mut world);
    world.subscription(a, Action::Unsubscribed, &bob);
    let c = world.online(2, &cara);
    assert_eq!(world.seen(c), [Show::Available]);
    world.seen(b);
    for parcel in interest {
        let Parcel::Control(core, control) = parcel else { continue };
        let bytes = passage::encode(&control, Vec::new());
        world.nodes[2].shards[0].from_node(world.now, core, &bytes).expect("it can be read");
    }
    world.settle();
    world.shows(a, Show::Away);
    assert_eq!((world.seen(b), world.seen(c)), (vec![], vec![Show::Away]));
}
