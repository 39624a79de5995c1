//! An edge core, alone with what homes of other cores tell it (Z7): each test is an order of events that two cores' rings allow.

use fanal::base::id::{ConnId, CoreId, SessionId, UserId, Version};
use fanal::base::jid::Bare;
use fanal::base::limits::Limits;
use fanal::base::map::Map;
use fanal::base::secrets::Secrets;
use fanal::base::time::WallClock;
use fanal::client::codec::Codec;
use fanal::presence::control::{Control, EdgeRef, Snapshot};
use fanal::presence::edge::{Edge, Home};
use fanal::presence::frame::Events;
use fanal::presence::home::{Homes, Place};
use fanal::presence::outbox::Outbox;
use fanal::wire::decode::ServerFrame;
use fanal::wire::event::{Event, Head};
use fanal::wire::form::Form;
use fanal::wire::frame::{Chunk, each_whole, write_raw};
use fanal::wire::lines::Marks;
use fanal::wire::native::Show;
use std::cell::Cell;
use std::sync::Arc;

const HERE: CoreId = CoreId(0);
const THERE: CoreId = CoreId(1);

struct World {
    edge: Edge,
    homes: Homes,
    out: Outbox,
}

/// The first of a core's users from this number on.
fn user_of(core: CoreId, from: u16) -> UserId {
    (from..).map(|slot| UserId::new(0, slot, 1)).find(|user| user.home(2) == core).expect("half of all are")
}

fn frame(user: UserId, sequence: u32) -> Events {
    let version = Version { epoch: 1, sequence };
    Events::of(Head { user, version, session: SessionId(1), show: Show::Away, flags: 0 }, &[])
}

impl World {
    fn new() -> World {
        let limits = Arc::new(Limits::default());
        let place = Place { cluster: 0, directory: 0, epoch: 1, domain: "d".into(), limits, wall_at_zero: WallClock::default() };
        World {
            edge: Edge::new(&Map::alone(HERE, 2), ahash::RandomState::with_seed(1)),
            homes: Homes::new(place, ahash::RandomState::with_seed(1), Secrets::from_number(1)),
            out: Outbox::new(Map::alone(HERE, 2), &Limits::default(), 1500),
        }
    }

    /// A user's session with a connection of its own.
    fn session(&mut self, user: UserId) -> (EdgeRef, ConnId) {
        let conn = self.out.lines.open(Marks { high: 1 << 20, most: 2 << 20 });
        let edge = self.edge.open(conn, 0);
        self.edge.attach(edge, Home { user, slot: 0, session: SessionId(1) });
        (edge, conn)
    }

    fn interest(&mut self, edge: EdgeRef, publisher: UserId) {
        self.edge.interest(edge, &[publisher], &self.homes, &mut self.out);
    }

    /// The last watch that was sent: slot and nonce.
    fn watch(&mut self) -> (UserId, u32, u32) {
        let sent = std::mem::take(&mut self.out.controls);
        let watch = sent.into_iter().rev().find_map(|(_, control)| match control {
            Control::Watch { subscriber, slot, nonce, .. } => Some((subscriber, slot, nonce)),
            _ => None,
        });
        watch.expect("the edge asks the publisher's home")
    }

    fn snapshot(&mut self, publisher: UserId, watch: (UserId, u32, u32), state: Events) {
        self.snapshot_behind(publisher, watch, state, 0);
    }

    /// The answer, so many updates before the end of its batch.
    fn snapshot_behind(&mut self, publisher: UserId, (subscriber, slot, nonce): (UserId, u32, u32), state: Events, behind: usize) {
        let jid = Bare::new("publisher@localhost").unwrap();
        let snapshot = Snapshot { publisher, jid, subscriber, slot, nonce, events: state, behind, revoked: Vec::new() };
        self.edge.snapshot(snapshot, &self.homes, &mut self.out);
    }

    /// The sequences of the events that a connection was sent since the last call.
    fn heard(&mut self, conn: ConnId) -> Vec<u32> {
        let Some(bytes) = self.out.lines.take(conn.slot) else { return Vec::new() };
        let (mut heard, mut codec, mut chunk) = (Vec::new(), Codec::default(), Chunk::new(&bytes));
        let mut note = |event: Event<'_>| heard.push(event.head.version.sequence);
        while let Some(received) = codec.next(&mut chunk).unwrap() {
            match received.frame {
                ServerFrame::Event(event) => note(event),
                ServerFrame::EventBatch(batch) => batch.iter().for_each(|event| note(event.unwrap())),
                _ => panic!("nothing but events was sent"),
            }
        }
        self.out.lines.sent(conn.slot, bytes);
        heard
    }
}

/// Sim seed 59281: the snapshot for the second subscriber was newer than the update behind it.
#[test]
fn a_second_subscribers_snapshot_takes_no_update_from_the_first() {
    let (publisher, first, second) = (user_of(THERE, 1), user_of(HERE, 1), user_of(HERE, 1000));
    let mut world = World::new();
    let ((one, conn), (two, other)) = (world.session(first), world.session(second));
    world.interest(one, publisher);
    let watch = world.watch();
    world.snapshot(publisher, watch, frame(publisher, 1));
    assert_eq!(world.heard(conn), [1]);
    // The publisher revoked the second subscriber once, so its home is asked again.
    world.edge.revoke(watch.1, publisher, second, &world.homes, &mut world.out);
    world.interest(two, publisher);
    let watch = world.watch();
    assert_eq!(watch.0, second);
    world.snapshot(publisher, watch, frame(publisher, 2));
    world.edge.fan_out_remote(watch.1, frame(publisher, 2).bytes(), &mut world.out.lines);
    assert_eq!(world.heard(conn), [2]);
    assert_eq!(world.heard(other).last(), Some(&2));
}

/// A world with a publisher that somebody else watches already, and a session that is to watch it.
fn watched() -> (World, UserId, (UserId, EdgeRef, ConnId)) {
    let (publisher, first, second) = (user_of(THERE, 1), user_of(HERE, 1), user_of(HERE, 1000));
    let mut world = World::new();
    let (one, _) = world.session(first);
    world.interest(one, publisher);
    let watch = world.watch();
    world.snapshot(publisher, watch, frame(publisher, 1));
    let (two, conn) = world.session(second);
    (world, publisher, (second, two, conn))
}

#[test]
fn a_revocation_that_comes_after_the_next_approval_does_not_last() {
    let (mut world, publisher, (user, session, conn)) = watched();
    world.interest(session, publisher);
    world.edge.revoke(0, publisher, user, &world.homes, &mut world.out);
    assert_eq!(world.heard(conn), [1, 1], "its state, and the farewell");
    let watch = world.watch();
    world.snapshot(publisher, watch, frame(publisher, 2));
    world.edge.fan_out_remote(watch.1, frame(publisher, 2).bytes(), &mut world.out.lines);
    assert_eq!(world.heard(conn), [1, 2]);
    assert_eq!(world.edge.asked_count(), 0);
}

#[test]
fn a_refusal_that_comes_after_the_next_approval_is_not_heard() {
    let (mut world, publisher, (user, session, conn)) = watched();
    world.interest(session, publisher);
    world.edge.revoke(0, publisher, user, &world.homes, &mut world.out);
    let (_, slot, early) = world.watch();
    // Its own home knows of the next approval before the publisher's answer to the question is here.
    world.interest(session, publisher);
    let late = world.watch();
    world.heard(conn);
    world.edge.refused(slot, early, publisher, user, &mut world.out);
    world.snapshot(publisher, late, frame(publisher, 2));
    assert_eq!(world.heard(conn), [1]);
    assert_eq!(world.edge.asked_count(), 0);
}

#[test]
fn an_answer_to_a_question_of_before_is_not_taken_for_a_later_one() {
    let (mut world, publisher, (user, session, conn)) = watched();
    world.interest(session, publisher);
    world.edge.revoke(0, publisher, user, &world.homes, &mut world.out);
    let (_, slot, early) = world.watch();
    world.edge.uninterest(session, publisher, &world.homes, &mut world.out);
    world.interest(session, publisher);
    let late = world.watch();
    world.heard(conn);
    world.edge.refused(slot, early, publisher, user, &mut world.out);
    world.snapshot(publisher, late, frame(publisher, 2));
    assert_eq!(world.heard(conn), [1]);
}

/// Sim seed 1013721: an update for a record that was given up came behind the snapshot of the next one, and its session stayed.
#[test]
fn updates_that_are_older_than_the_snapshot_in_their_batch_are_skipped() {
    let (publisher, user) = (user_of(THERE, 1), user_of(HERE, 1));
    let mut world = World::new();
    let (session, conn) = world.session(user);
    world.interest(session, publisher);
    let watch = world.watch();
    world.snapshot_behind(publisher, watch, frame(publisher, 1), 2);
    let taken: Vec<bool> = (0..3).map(|number| !world.edge.is_behind(watch.1, number)).collect();
    assert_eq!(taken, [false, false, true]);
    assert!(!world.edge.is_behind(watch.1 + 1, 0));
    world.edge.batch_read();
    assert!(!world.edge.is_behind(watch.1, 0), "it concerns that batch only");
    assert_eq!(world.heard(conn), [1]);
}

#[test]
fn the_home_is_asked_about_everybody_once_too_many_were_revoked_to_be_kept_in_mind() {
    let (mut world, publisher, (user, session, conn)) = watched();
    (1..=5000).for_each(|n| world.edge.revoke(0, publisher, UserId(1 << 40 | n), &world.homes, &mut world.out));
    world.interest(session, publisher);
    let watch = world.watch();
    assert_eq!(watch.0, user);
    assert!(world.heard(conn).is_empty());
    world.snapshot(publisher, watch, frame(publisher, 1));
    assert_eq!(world.heard(conn), [1]);
}

#[test]
fn who_is_refused_hears_nothing_and_leaves_nothing_behind() {
    let (publisher, user) = (user_of(THERE, 1), user_of(HERE, 1));
    let mut world = World::new();
    let (session, conn) = world.session(user);
    world.interest(session, publisher);
    let (_, slot, nonce) = world.watch();
    world.edge.refused(slot, nonce, publisher, user, &mut world.out);
    world.edge.fan_out_remote(slot, frame(publisher, 2).bytes(), &mut world.out.lines);
    assert!(world.heard(conn).is_empty());
    assert_eq!((world.edge.publisher_count(), world.edge.asked_count()), (0, 0));
}

thread_local! {
    static WRITTEN: Cell<usize> = const { Cell::new(0) };
}

/// A door's form; counts how often something is written in it.
fn counted(out: &mut Vec<u8>, jid: &Bare, event: &Event<'_>) {
    WRITTEN.set(WRITTEN.get() + 1);
    write_raw(out, 4, |out| out.extend_from_slice(format!("{jid} {}", event.head.version.sequence).as_bytes()));
}

#[test]
fn g2_an_update_is_written_once_in_a_doors_form_for_all_who_take_it_so() {
    let (publisher, mut world, mut slot) = (user_of(THERE, 1), World::new(), 0);
    world.edge.serve_forms(&[(Form::Xmpp, counted)], ahash::RandomState::with_seed(1));
    let conns: Vec<ConnId> = (0..5)
        .map(|n| {
            let (session, conn) = world.session(user_of(HERE, 1 + 100 * n));
            world.out.lines.set_form(conn, if n == 0 { Form::Native } else { Form::Xmpp });
            world.interest(session, publisher);
            if n == 0 {
                let watch = world.watch();
                slot = watch.1;
                world.snapshot(publisher, watch, frame(publisher, 1));
            }
            assert_eq!(world.heard(conn), [1], "the state that it begins with is written for it alone");
            conn
        })
        .collect();
    for sequence in 2..5 {
        WRITTEN.set(0);
        world.edge.fan_out_remote(slot, frame(publisher, sequence).bytes(), &mut world.out.lines);
        assert_eq!(WRITTEN.get(), 1, "once for four connections");
        assert_eq!(world.heard(conns[0]), [sequence]);
        for conn in &conns[1..] {
            let bytes = world.out.lines.take(conn.slot).expect("it was sent something");
            let frames: Vec<Vec<u8>> = each_whole(&bytes).map(|frame| frame.raw().to_vec()).collect();
            assert_eq!(frames, [format!("publisher@localhost {sequence}").as_bytes()]);
            world.out.lines.sent(conn.slot, bytes);
        }
    }
}
