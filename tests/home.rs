//! A home core, alone with what edges, other homes and the store tell it: each test is an order of events that their queues allow.

use fanal::base::id::{CoreId, NodeId, Seat, SessionId, UserId, home_of_slot, slot_of};
use fanal::base::jid::Bare;
use fanal::base::limits::Limits;
use fanal::base::map::Map;
use fanal::base::reason::Reason;
use fanal::base::secrets::Secrets;
use fanal::base::time::{Time, WallClock};
use fanal::presence::control::{
    Arrival, Ask, Asker, Attach, Attached, Content, Control, EdgeRef, Note, Resume, SessionEnd, SessionEvent, UserRef, Way,
    WayKind, WayName,
};
use fanal::presence::edge::Edge;
use fanal::presence::errand::{Answer, Caller, Who};
use fanal::presence::home::{Homes, Place};
use fanal::presence::outbox::Outbox;
use fanal::presence::relay::Question;
use fanal::presence::subscription::{Action, State};
use fanal::presence::user::{Destination, User};
use fanal::store::{Completion, Durability, Table};
use fanal::wire::encode::{Encoder, PresenceFields};
use fanal::wire::native::{MessageKind, Show};
use fanal::wire::presence;
use std::sync::Arc;
use std::time::Duration;

const HERE: CoreId = CoreId(0);
const THERE: CoreId = CoreId(1);

fn seat(core: CoreId) -> Seat {
    Seat { node: NodeId(0), core }
}

struct World {
    now: Time,
    homes: Homes,
    edge: Edge,
    out: Outbox,
    edges: u32,
    /// What went to the other core.
    told: Vec<Control>,
}

#[derive(Clone)]
struct Session {
    at: UserRef,
    id: SessionId,
    edge: EdgeRef,
    token: [u8; 16],
    resource: String,
}

/// The n-th user of this core.
fn user(n: usize) -> Bare {
    let names = (0..).map(|n| Bare::new(&format!("user{n}@d")).unwrap());
    names.filter(|jid| home_of_slot(slot_of(jid.as_str()), 2) == HERE).nth(n).unwrap()
}

/// A user of the other core, or one whose gateway that is.
fn elsewhere() -> Bare {
    let mut names = (0..).map(|n| Bare::new(&format!("user{n}@d")).unwrap());
    names.find(|jid| home_of_slot(slot_of(jid.as_str()), 2) == THERE).unwrap()
}

impl World {
    fn new(batch_bytes: u32) -> World {
        let limits = Arc::new(Limits::default());
        let place = Place { cluster: 0, directory: 0, epoch: 1, domain: "d".into(), limits, wall_at_zero: WallClock::default() };
        World {
            now: Time(1),
            homes: Homes::new(place, ahash::RandomState::with_seed(1), Secrets::from_number(1)),
            edge: Edge::new(&Map::alone(HERE, 2), ahash::RandomState::with_seed(1)),
            out: Outbox::new(Map::alone(HERE, 2), &Limits { ring_batch_bytes: batch_bytes, ..Limits::default() }, 1500),
            edges: 0,
            told: Vec::new(),
        }
    }

    /// Works off what the core has for itself.
    fn work_off(&mut self) {
        while !self.out.controls.is_empty() {
            for (core, control) in std::mem::take(&mut self.out.controls) {
                let World { now, homes, edge, out, .. } = self;
                match control {
                    control if core == THERE => self.told.push(control),
                    Control::Way(way) => homes.way(*now, way, edge, out),
                    Control::WayDone(arrival) => homes.way_done(*now, arrival, edge, out),
                    Control::Message(message) => homes.message(*now, message, out),
                    Control::Answered { answer, .. } => assert!(matches!(answer, Answer::Done)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// The store answers all that it was handed.
    fn store(&mut self, result: Result<(), String>) {
        self.work_off();
        while !self.out.commits.is_empty() {
            for commit in std::mem::take(&mut self.out.commits) {
                if commit.durability == Durability::Synced {
                    let completion = Completion { core: HERE, ticket: commit.ticket, result: result.clone() };
                    self.homes.complete(self.now, completion, &mut self.edge, &mut self.out);
                }
                self.work_off();
            }
        }
    }

    fn next_edge(&mut self) -> EdgeRef {
        self.edges += 1;
        EdgeRef { seat: seat(THERE), slot: self.edges, generation: self.edges }
    }

    fn attached(&mut self) -> Option<Session> {
        self.work_off();
        let told = std::mem::take(&mut self.told);
        told.into_iter().rev().find_map(|control| match control {
            Control::Attached(attached) => {
                let Attached { asker, at, session: id, resume: token, resource, .. } = *attached;
                Some(Session { at, id, edge: asker.edge, token, resource: resource.to_string() })
            }
            _ => None,
        })
    }

    fn log_in(&mut self, jid: &Bare) -> Option<Session> {
        let asker = Asker { edge: self.next_edge(), request: 1 };
        let attach =
            Attach { jid: jid.clone(), resource: String::new(), create: true, asker, data: Vec::new(), presence: Vec::new() };
        self.homes.attach(self.now, attach, &mut self.edge, &mut self.out);
        self.attached()
    }

    /// A user who did not exist logs in.
    fn new_user(&mut self, jid: &Bare) -> Session {
        assert!(self.log_in(jid).is_none());
        self.store(Ok(()));
        self.attached().expect("a created user is logged in")
    }

    fn set_presence(&mut self, session: &Session, show: Show) {
        let fields = PresenceFields { resource: &session.resource, show, ..PresenceFields::default() };
        let bytes = Encoder::default().presence(&fields);
        let asker = Asker { edge: session.edge, request: 0 };
        let view = presence::read(&bytes).unwrap();
        self.homes.update(self.now, session.at, session.id, &view, asker, &mut self.edge, &mut self.out);
        self.work_off();
    }

    fn ask(&mut self, session: &Session, ask: Ask) {
        let asker = Asker { edge: session.edge, request: 7 };
        self.homes.ask(self.now, session.at, session.id, asker, Box::new(ask), &mut self.edge, &mut self.out);
        self.work_off();
    }

    fn subscription(&mut self, session: &Session, action: Action, contact: &Bare) {
        self.ask(session, Ask::Subscription { action, contact: contact.clone(), note: Note::default() });
    }

    fn user(&self, jid: &Bare) -> &User {
        self.homes.get(self.homes.by_name(jid).unwrap()).unwrap()
    }

    fn state(&self, owner: &Bare, contact: &Bare) -> State {
        self.user(owner).roster.by_jid(contact).map_or(State::NONE, |item| item.state)
    }
}

#[test]
fn what_comes_from_a_connection_that_the_session_has_left_is_not_heard() {
    let (mut world, ann) = (World::new(1 << 20), user(0));
    let before = world.new_user(&ann);
    world.set_presence(&before, Show::Chat);
    let end = SessionEnd::Lost { within_ms: u32::MAX };
    world.homes.detach(world.now, before.at, before.id, before.edge, end, &mut world.edge, &mut world.out);
    let asker = Asker { edge: world.next_edge(), request: 2 };
    let resume = Resume { jid: ann.clone(), token: before.token.to_vec(), received: 0, asker };
    world.homes.resume(resume, &mut world.out);
    let after = world.attached().expect("the token is right");
    assert_eq!(after.id, before.id);
    world.set_presence(&before, Show::Unavailable);
    world.subscription(&before, Action::Subscribe, &user(1));
    assert!(world.user(&ann).has_available() && world.out.commits.is_empty());
    world.set_presence(&after, Show::Unavailable);
    assert!(!world.user(&ann).has_available());
}

/// Sim seed 89919: log-ins waited until the store took the way.
#[test]
fn z8_a_user_can_log_in_while_a_way_to_the_user_waits_to_be_tried_again() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let session = world.new_user(&ann);
    world.new_user(&bob);
    world.subscription(&session, Action::Subscribe, &bob);
    let commit = world.out.commits.pop().expect("the request is stored");
    world.homes.complete(
        world.now,
        Completion { core: HERE, ticket: commit.ticket, result: Ok(()) },
        &mut world.edge,
        &mut world.out,
    );
    world.store(Err("the disk is full".into()));
    assert_eq!(world.state(&bob, &ann), State::NONE);
    assert!(world.log_in(&bob).is_some());
    world.now = world.now + Duration::from_secs(1);
    world.homes.retry(world.now, &mut world.edge, &mut world.out);
    world.store(Ok(()));
    assert!(world.state(&bob, &ann).has(State::PENDING_IN));
}

/// Sim seed 1613: the answer was given to one who had the same name before, and was taken for one to the new user's request.
#[test]
fn z8_a_confirmation_does_not_overtake_answers_that_wait_until_their_receiver_exists() {
    let (mut world, ann) = (World::new(1 << 20), user(0));
    let bob = Bare::new("bob@d").unwrap();
    // An answer to an ann of before waits, because the store fails.
    let kind = WayKind::Stanza(Action::Unsubscribed);
    let way = |sequence, kind| {
        let (from, to, note) = (bob.clone(), ann.clone(), Note::default());
        Box::new(Way { from, from_user: UserId(9), to, to_user: UserId::NOBODY, kind, note, sequence, cluster: 0, knows: vec![] })
    };
    world.homes.way(world.now, way(1, kind), &mut world.edge, &mut world.out);
    world.store(Err("the disk is full".into()));
    let session = world.new_user(&ann);
    world.subscription(&session, Action::Subscribe, &bob);
    world.store(Ok(()));
    let sent = world.user(&ann).rare.as_ref().expect("a request is under way").under_way[0].sequence;
    let name = WayName { from: ann.clone(), to: bob.clone(), sequence: sent, cluster: 0 };
    let arrival = Box::new(Arrival { name, before: 0 });
    world.homes.way_done(world.now, arrival, &mut world.edge, &mut world.out);
    world.homes.way(world.now, way(2, WayKind::Stanza(Action::Subscribed)), &mut world.edge, &mut world.out);
    world.now = world.now + Duration::from_secs(1);
    world.homes.retry(world.now, &mut world.edge, &mut world.out);
    world.store(Ok(()));
    assert!(world.state(&ann, &bob).has(State::TO), "{:?}", world.state(&ann, &bob));
}

/// Sim seed 66326: the core watched with another record when its ring had room again, and was told twice.
#[test]
fn what_was_put_off_for_a_core_is_sent_once_although_it_watches_anew() {
    let (mut world, ann, bob) = (World::new(0), user(0), user(1));
    let (one, two) = (world.new_user(&ann), world.new_user(&bob));
    world.subscription(&two, Action::Subscribe, &ann);
    world.store(Ok(()));
    world.subscription(&one, Action::Subscribed, &bob);
    world.store(Ok(()));
    world.set_presence(&one, Show::Chat);
    let (publisher, subscriber, seat) = (one.at.user, two.at.user, seat(THERE));
    let question = |slot, nonce| Question { subscriber, seat, slot, nonce, known: None };
    world.homes.watch(publisher, question(5, 1), &mut world.out);
    world.set_presence(&one, Show::Away);
    world.homes.unwatch(publisher, Destination { seat, slot: 5 }, &mut world.out);
    world.homes.watch(publisher, question(6, 2), &mut world.out);
    world.set_presence(&one, Show::Chat);
    assert_eq!(world.out.bound[1].put_off.len(), 2);
    let bound = std::mem::take(&mut world.out.bound);
    world.out = Outbox::new(Map::alone(HERE, 2), &Limits::default(), 1500);
    world.out.bound = bound;
    world.homes.send_put_off(THERE, world.now, &mut world.out);
    let slots: Vec<u32> = world.out.bound[1].updates.iter().map(|update| update.slot).collect();
    assert_eq!(slots, [6]);
}

#[test]
fn a_session_that_acknowledges_nothing_is_sent_so_many_bytes_of_messages_and_no_more() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two) = (world.new_user(&ann), world.new_user(&bob));
    world.set_presence(&two, Show::Chat);
    let content = Content { kind: MessageKind::Chat, id: String::new(), body: vec![0; 60_000], extensions: String::new() };
    let write = |world: &mut World| {
        let ask = Ask::Message { to: bob.clone(), resource: None, content: content.clone() };
        world.ask(&one, ask);
        let answers = std::mem::take(&mut world.told);
        let number = |control: &Control| match control {
            Control::ToSession { event: SessionEvent::Message { number, .. }, .. } => Some(*number),
            _ => None,
        };
        answers.iter().find_map(number)
    };
    let most = u64::from(Limits::default().unacknowledged_bytes) / 60_000 + 1;
    let numbers: Vec<_> = (0..most + 2).filter_map(|_| write(&mut world)).collect();
    assert_eq!(numbers, (1..=most).collect::<Vec<_>>());
    world.ask(&two, Ask::Ack { received: 2 });
    assert_eq!(write(&mut world), Some(most + 1));
    world.ask(&two, Ask::Ack { received: most + 1 });
    let refilled = (0..most + 2).filter_map(|_| write(&mut world)).count() as u64;
    assert_eq!(refilled, most, "all the room is there again");
}

/// All is over: nothing is kept of it but the two rosters.
#[test]
fn z8_nothing_is_left_of_changes_that_have_been_made() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two) = (world.new_user(&ann), world.new_user(&bob));
    let there_and_back = [Action::Subscribe, Action::Unsubscribe];
    for action in there_and_back.into_iter().cycle().take(100) {
        world.subscription(&one, action, &bob);
        world.store(Ok(()));
        let answer = if action == Action::Subscribe { Action::Subscribed } else { Action::Unsubscribed };
        world.subscription(&two, answer, &ann);
        world.store(Ok(()));
        let blocked = action == Action::Subscribe;
        world.ask(&two, Ask::Block { jid: ann.clone(), blocked });
        world.store(Ok(()));
    }
    for jid in [&ann, &bob] {
        assert!(world.user(jid).rare.is_none(), "{jid}");
    }
    let refused = |control: &Control| matches!(control, Control::ToSession { event: SessionEvent::Error { .. }, .. });
    assert!(!world.told.iter().any(refused));
}

/// The numbers and names of the messages that a session was sent since it was last asked.
fn sent(world: &mut World, to: &Session) -> Vec<(u64, String)> {
    let told = std::mem::take(&mut world.told);
    let message = |control: Control| match control {
        Control::ToSession { edge, event: SessionEvent::Message { number, message } } if edge == to.edge => {
            Some((number, message.content.id))
        }
        _ => None,
    };
    told.into_iter().filter_map(message).collect()
}

fn write(world: &mut World, from: &Session, to: &Bare, id: &str) {
    let content = Content { kind: MessageKind::Chat, id: id.into(), body: Vec::new(), extensions: String::new() };
    world.ask(from, Ask::Message { to: to.clone(), resource: None, content });
}

/// How often a sender was told that its message is safe, and why one was refused.
fn answers(world: &mut World, to: &Session) -> (usize, Vec<Reason>) {
    let told = std::mem::take(&mut world.told).into_iter();
    let events = told.filter_map(|control| match control {
        Control::ToSession { edge, event } if edge == to.edge => Some(event),
        _ => None,
    });
    let (mut done, mut refused) = (0, Vec::new());
    for event in events {
        match event {
            SessionEvent::Done { request: 7 } => done += 1,
            SessionEvent::Error { request: 7, reason, .. } => refused.push(reason),
            _ => {}
        }
    }
    (done, refused)
}

impl World {
    /// Time passes, and what no session has acknowledged goes to the store.
    fn later(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        self.homes.keep_given(self.now, &mut self.out);
        self.work_off();
    }

    fn ends(&mut self, session: &Session) {
        let end = SessionEnd::LoggedOut { status: String::new() };
        self.homes.detach(self.now, session.at, session.id, session.edge, end, &mut self.edge, &mut self.out);
        self.work_off();
    }
}

/// Z9, sim seeds 594 and 702: it was confirmed when a session had been sent it, and was lost with the recipient's node.
#[test]
fn z9_a_message_is_confirmed_once_by_the_first_session_that_acknowledges_it() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two, three) = (world.new_user(&ann), world.new_user(&bob), world.log_in(&bob).unwrap());
    [&two, &three].into_iter().for_each(|session| world.set_presence(session, Show::Chat));
    write(&mut world, &one, &bob, "1");
    assert_eq!(answers(&mut world, &one), (0, vec![]), "nobody has acknowledged it");
    world.ask(&three, Ask::Ack { received: 1 });
    assert_eq!(answers(&mut world, &one), (1, vec![]));
    world.ask(&two, Ask::Ack { received: 1 });
    world.later();
    [&three, &two].into_iter().for_each(|session| world.ends(session));
    assert!(world.out.commits.iter().flat_map(|commit| &commit.writes).all(|write| write.table != Table::Messages));
    assert_eq!(answers(&mut world, &one), (0, vec![]), "once");
}

/// Z9, J10: the other one that had been sent it ends without having acknowledged it.
#[test]
fn z9_what_one_session_has_acknowledged_does_not_come_again_because_another_has_not() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two, three) = (world.new_user(&ann), world.new_user(&bob), world.log_in(&bob).unwrap());
    [&two, &three].into_iter().for_each(|session| world.set_presence(session, Show::Chat));
    write(&mut world, &one, &bob, "1");
    write(&mut world, &one, &bob, "2");
    world.later();
    world.store(Ok(()));
    assert_eq!(answers(&mut world, &one), (2, vec![]), "it's stored");
    world.ask(&two, Ask::Ack { received: 1 });
    [&two, &three].into_iter().for_each(|session| world.ends(session));
    let four = world.log_in(&bob).unwrap();
    world.set_presence(&four, Show::Chat);
    assert_eq!(sent(&mut world, &four), [(1, "2".to_owned())]);
    world.ask(&four, Ask::Ack { received: 1 });
    assert_eq!((world.homes.kept_size(), world.user(&bob).mailbox().is_none()), ((0, 0), true));
}

/// Z9: the store does not take it; the session that has it may still acknowledge it, or ends.
#[test]
fn z9_a_message_that_is_neither_acknowledged_nor_stored_is_not_confirmed() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two) = (world.new_user(&ann), world.new_user(&bob));
    world.set_presence(&two, Show::Chat);
    write(&mut world, &one, &bob, "1");
    for _ in 0..3 {
        world.later();
        world.store(Err("the disk is full".into()));
    }
    assert_eq!((answers(&mut world, &one), world.homes.kept_size()), ((0, vec![]), (0, 0)));
    world.later();
    world.ends(&two);
    world.store(Err("the disk is full".into()));
    assert_eq!(answers(&mut world, &one), (0, vec![Reason::StorageFailed]));
    let three = world.log_in(&bob).unwrap();
    world.set_presence(&three, Show::Chat);
    assert_eq!(sent(&mut world, &three), []);
    // There is room to store all but one of these: that one's sender is told so in the end.
    let most = Limits::default().offline_messages_per_user as usize;
    (0..=most).for_each(|n| write(&mut world, &one, &bob, &n.to_string()));
    world.later();
    world.store(Ok(()));
    (0..8).for_each(|_| world.later());
    assert_eq!(answers(&mut world, &one), (most, vec![]), "it may be acknowledged");
    (0..3).for_each(|_| world.later());
    assert_eq!(answers(&mut world, &one), (0, vec![Reason::TooManyMessages]));
    world.ends(&three);
    assert_eq!(answers(&mut world, &one), (0, vec![]), "once");
}

/// M2, sim seed 130: the log-in had been refused where the connection was, and a session came into being that nobody had.
#[test]
fn m2_a_log_in_that_waits_for_an_account_goes_with_the_node_that_it_came_from() {
    let (mut world, ann) = (World::new(1 << 20), user(0));
    let elsewhere = Seat { node: NodeId(2), core: HERE };
    for seat in [elsewhere, seat(THERE)] {
        let asker = Asker { edge: EdgeRef { seat, slot: 1, generation: 1 }, request: 1 };
        let (resource, data, presence) = (format!("{:?}", seat.node), Vec::new(), Vec::new());
        let attach = Attach { jid: ann.clone(), resource, create: true, asker, data, presence };
        world.homes.attach(world.now, attach, &mut world.edge, &mut world.out);
    }
    world.homes.node_gone(world.now, elsewhere.node, &mut world.edge, &mut world.out);
    world.store(Ok(()));
    assert_eq!(world.user(&ann).sessions.iter().map(|session| session.edge.unwrap().seat).collect::<Vec<_>>(), [seat(THERE)]);
}

/// A core of a cluster, and what a user of another one says to one of its users.
fn clustered() -> (World, Session, impl Fn(u64, WayKind, u64) -> Box<Way>) {
    let (mut world, ann) = (World::new(1 << 20), user(0));
    let session = world.new_user(&ann);
    (world.out.map.cluster, world.out.map.directory) = (1, 1);
    let way = move |sequence, kind, knows| {
        let (from, to, from_user, note) = (elsewhere(), ann.clone(), UserId::new(2, 1, 1), Note::default());
        Box::new(Way { from, from_user, to, to_user: UserId::NOBODY, kind, note, sequence, cluster: 2, knows: vec![(0, knows)] })
    };
    (world, session, way)
}

/// Z8, sim seed 20263261311: a copy took another path, and came behind the word that it would not come again.
#[test]
fn z8_a_way_that_comes_after_its_sender_has_forgotten_it_is_not_carried_out_again() {
    let (mut world, session, way) = clustered();
    let (ann, bob) = (user(0), elsewhere());
    let request = || way(5, WayKind::Stanza(Action::Subscribe), 0);
    world.homes.way(world.now, request(), &mut world.edge, &mut world.out);
    world.store(Ok(()));
    assert!(world.state(&ann, &bob).has(State::PENDING_IN));
    world.subscription(&session, Action::Unsubscribed, &bob);
    world.store(Ok(()));
    world.homes.way_forgotten(world.now, Box::new(request().name()), &mut world.edge, &mut world.out);
    world.homes.way(world.now, request(), &mut world.edge, &mut world.out);
    world.store(Ok(()));
    assert!(!world.state(&ann, &bob).has(State::PENDING_IN), "{:?}", world.state(&ann, &bob));
}

/// Z8, sim seed 13 with two nodes in each of two clusters: the confirmation was lost, and the answer came alone.
#[test]
fn z8_an_answer_says_that_it_knows_the_request_though_its_confirmation_is_lost() {
    let (mut world, session, way) = clustered();
    let (ann, bob) = (user(0), elsewhere());
    world.subscription(&session, Action::Subscribe, &bob);
    world.store(Ok(()));
    let sent = world.user(&ann).rare.as_ref().expect("a request is under way").under_way[0].sequence;
    let answers = |world: &mut World, sequence, knows| {
        let way = way(sequence, WayKind::Stanza(Action::Subscribed), knows);
        world.homes.way(world.now, way, &mut world.edge, &mut world.out);
        world.store(Ok(()));
        world.state(&ann, &bob).has(State::TO)
    };
    assert!(!answers(&mut world, 3, sent - 1), "it answers an earlier one");
    assert!(answers(&mut world, 4, sent));
}

/// Z8: and so it does what another cluster is told.
#[test]
fn z8_a_way_tells_of_the_last_one_that_had_come_from_its_receiver_when_it_was_made() {
    let (mut world, session, way) = clustered();
    let bob = elsewhere();
    world.subscription(&session, Action::Subscribe, &bob);
    world.store(Ok(()));
    world.homes.way(world.now, way(5, WayKind::Stanza(Action::Subscribe), 0), &mut world.edge, &mut world.out);
    world.store(Ok(()));
    world.subscription(&session, Action::Subscribed, &bob);
    world.store(Ok(()));
    let knows = |world: &mut World, action| {
        let mut ways = std::mem::take(&mut world.told).into_iter().filter_map(|control| match control {
            Control::Way(way) if way.kind == WayKind::Stanza(action) => Some((way.sequence, way.knows)),
            _ => None,
        });
        ways.next_back().expect("it has set out")
    };
    let (first, knew) = knows(&mut world, Action::Subscribe);
    assert!(knew.is_empty(), "it was made before");
    let name = WayName { from: user(0), to: bob.clone(), sequence: first, cluster: 0 };
    world.homes.way_done(world.now, Box::new(Arrival { name, before: 0 }), &mut world.edge, &mut world.out);
    world.store(Ok(()));
    assert_eq!(knows(&mut world, Action::Subscribed).1, [(2, 5)]);
}

/// Z8, sim seed 262: the denial waited for room, and came behind what the user said who had the name by then, in another cluster.
#[test]
fn z8_that_nobody_has_a_name_is_told_with_the_confirmation_of_the_request_however_much_waits() {
    let (mut world, nobody, asker) = (World::new(1 << 20), user(0), elsewhere());
    (world.out.map.cluster, world.out.map.directory) = (1, 1);
    world.out.bound[usize::from(THERE.0)].waiting = Limits::default().ring_control as usize;
    let (from_user, kind, note) = (UserId::new(1, slot_of(asker.as_str()), 1), WayKind::Stanza(Action::Subscribe), Note::default());
    let (from, to) = (asker, nobody);
    let way = Way { from, from_user, to, to_user: UserId::NOBODY, kind, note, sequence: 5, cluster: 0, knows: vec![] };
    world.homes.way(world.now, Box::new(way), &mut world.edge, &mut world.out);
    world.store(Ok(()));
    let [Control::WayDone(done), Control::Way(denial)] = &world.told[..] else { panic!("{:?}", world.told) };
    assert_eq!((done.name.sequence, denial.kind), (5, WayKind::Stanza(Action::Unsubscribed)));
}

#[test]
fn what_a_session_has_not_acknowledged_waits_for_the_next_one_in_order() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two) = (world.new_user(&ann), world.new_user(&bob));
    (1..=3).for_each(|n| write(&mut world, &one, &bob, &n.to_string()));
    world.store(Ok(()));
    world.set_presence(&two, Show::Chat);
    let expected = [(1, "1".to_owned()), (2, "2".into()), (3, "3".into())];
    assert_eq!(sent(&mut world, &two), expected);
    world.ask(&two, Ask::Ack { received: 1 });
    let end = SessionEnd::LoggedOut { status: String::new() };
    world.homes.detach(world.now, two.at, two.id, two.edge, end, &mut world.edge, &mut world.out);
    let three = world.log_in(&bob).unwrap();
    world.set_presence(&three, Show::Chat);
    assert_eq!(sent(&mut world, &three), [(1, "2".to_owned()), (2, "3".into())]);
    world.ask(&three, Ask::Ack { received: 2 });
    assert!(world.user(&bob).mailbox().is_none() && world.homes.kept_size() == (0, 0));
    let rows = world.out.commits.iter().flat_map(|commit| &commit.writes).filter(|write| write.table == Table::Messages);
    assert_eq!(rows.filter(|write| write.value.is_none()).count(), 3, "each row is deleted");
}

#[test]
fn a_message_that_the_store_does_not_take_is_refused_and_what_is_behind_it_comes() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two) = (world.new_user(&ann), world.new_user(&bob));
    write(&mut world, &one, &bob, "1");
    world.store(Err("the disk is full".into()));
    let refused = |control: &Control| match control {
        Control::ToSession { edge, event: SessionEvent::Error { reason, .. } } => {
            *edge == one.edge && *reason == Reason::StorageFailed
        }
        _ => false,
    };
    assert!(world.told.iter().any(refused));
    write(&mut world, &one, &bob, "2");
    world.set_presence(&two, Show::Chat);
    write(&mut world, &one, &bob, "3");
    assert_eq!(sent(&mut world, &two), [], "it waits behind the one before");
    world.store(Ok(()));
    assert_eq!(sent(&mut world, &two), [(1, "2".to_owned()), (2, "3".into())]);
}

#[test]
fn nothing_waits_any_more_for_a_user_who_is_removed() {
    let (mut world, ann, bob) = (World::new(1 << 20), user(0), user(1));
    let (one, two) = (world.new_user(&ann), world.new_user(&bob));
    world.set_presence(&two, Show::Chat);
    write(&mut world, &one, &bob, "not acknowledged");
    world.set_presence(&two, Show::Unavailable);
    write(&mut world, &one, &bob, "with the store");
    let operator = Caller { seat: world.out.map.here, who: Who::Operator { ticket: 1 } };
    world.homes.delete_user(world.now, operator, &bob, &mut world.edge, &mut world.out);
    write(&mut world, &one, &bob, "too late");
    let put: Vec<_> = world.out.commits.iter().flat_map(|commit| &commit.writes).filter(|w| w.table == Table::Messages).collect();
    assert_eq!(put.iter().map(|write| write.value.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(put[0].key, put[1].key);
    world.store(Ok(()));
    assert_eq!((world.homes.by_name(&bob), world.homes.kept_size()), (None, (0, 0)));
}
