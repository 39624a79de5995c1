//! One of everything that crosses between clusters, and of what they say of themselves.

use fanal::base::id::{CoreId, NodeId, Seat, SessionId, UserId, Version, slot_of};
use fanal::base::jid::Bare;
use fanal::base::map::Slots;
use fanal::base::time::WallClock;
use fanal::ownership::clusters::{Cluster, Place, write_clusters, write_place};
use fanal::presence::border::{self, Astray, Strayed};
use fanal::presence::control::{
    Arrival, Asker, Content, Control, Directed, EdgeRef, Fetch, Fetched, Message, News, Note, Question, SessionEvent, Snapshot,
    Wanted, Way, WayKind, WayName,
};
use fanal::presence::directory::Inquiry;
use fanal::presence::frame::Events;
use fanal::presence::lapsed::Lapsed;
use fanal::presence::subscription::Action;
use fanal::wire::event::Head;
use fanal::wire::native::{Copy, MessageKind, Show};

/// A user of cluster 2, who speaks, and one of cluster 1, who is spoken to.
struct Users {
    ann: Bare,
    theirs: UserId,
    bob: Bare,
    ours: UserId,
}

const EDGE: EdgeRef = EdgeRef { seat: Seat { node: NodeId(0), core: CoreId(1) }, slot: 1, generation: 9 };
const ASKER: Asker = Asker { edge: EDGE, request: 4 };

/// What crosses, with the cluster that says it before it; what a cluster says when it logs in, and what it hears.
pub fn all(presence: &[u8]) -> Vec<Vec<u8>> {
    let (ann, bob) = (Bare::new("ann@localhost").unwrap(), Bare::new("bob@localhost").unwrap());
    let user = |cluster, jid: &Bare| UserId::new(cluster, slot_of(jid.as_str()), 1);
    let users = Users { theirs: user(2, &ann), ours: user(1, &bob), ann, bob };
    let controls = subscriptions(&users, presence).into_iter().chain(others(&users, presence));
    let crossing = |control| border::encode(control, 1, vec![0]).expect("it crosses");
    let place = Place { domains: vec!["localhost".into()], nodes: vec![(NodeId(1), "10.0.0.1:7402".parse().unwrap())] };
    let clusters = [2, 3].map(|number| Cluster { number, identity: number.into(), place: place.clone() });
    let tables = [write_place(&place, Vec::new()), write_clusters(clusters.iter(), Vec::new())];
    controls.map(crossing).chain(tables).collect()
}

fn subscriptions(Users { ann, theirs, bob, ours }: &Users, presence: &[u8]) -> Vec<Control> {
    let (slot, nonce, subscriber, publisher) = (0, 5, *ours, *theirs);
    let name = WayName { from: bob.clone(), to: ann.clone(), sequence: 7, cluster: 1 };
    let way = Way {
        from: ann.clone(),
        from_user: *theirs,
        to: bob.clone(),
        to_user: *ours,
        kind: WayKind::Stanza(Action::Subscribe),
        note: Note::new("hi"),
        sequence: 3,
        cluster: 0,
        knows: vec![(1, 7)],
    };
    let version = Version { epoch: 1, sequence: 2 };
    let events = Events::of(Head { user: *theirs, version, session: SessionId(1), show: Show::Away, flags: 0 }, presence);
    let snapshot = Snapshot { publisher, jid: ann.clone(), subscriber, slot, nonce, events, behind: 0, revoked: vec![*ours] };
    let lapsed = Lapsed { cluster: 2, gone: true, slots: Slots::all() };
    vec![
        Control::Way(Box::new(way)),
        Control::WayDone(Box::new(Arrival { name: name.clone(), before: 4 })),
        Control::WayForgotten(Box::new(name)),
        Control::Watch { publisher: *ours, subscriber: *theirs, seat: EDGE.seat, slot, nonce, known: Some(6) },
        Control::Unwatch { publisher: *ours, seat: EDGE.seat, slot },
        Control::Snapshot(Box::new(snapshot)),
        Control::Refused { publisher, subscriber, slot, nonce },
        Control::Obtain { publisher: *ours, session: SessionId(1), seat: EDGE.seat },
        Control::Attention { publisher: *ours, seat: EDGE.seat, slot, active: false },
        Control::Revoke { publisher, subscriber, slot },
        Control::Lapsed(Box::new(lapsed)),
    ]
}

fn others(Users { ann, theirs, bob, ours }: &Users, presence: &[u8]) -> Vec<Control> {
    let content = Content { kind: MessageKind::Chat, id: "m".into(), body: b"hello".to_vec(), extensions: String::new() };
    let message = Message {
        from: ann.clone(),
        from_resource: "desk".into(),
        to: bob.clone(),
        to_resource: None,
        content,
        asker: ASKER,
        given: Vec::new(),
        stamp: WallClock(0),
        kept: 0,
        receipt: 0,
        copy: Copy::None,
    };
    let what = Wanted::Document("card".into());
    let question = Question { from: ann.clone(), from_user: *theirs, about: bob.clone(), what, asker: ASKER };
    let (from, from_resource, to_resource) = (ann.clone(), "desk".into(), Some("desk".into()));
    let directed = Directed { from, from_resource, to: bob.clone(), to_resource, presence: presence.to_vec() };
    let fetch = |publisher, from: &Bare, from_user| {
        let (session, names) = (SessionId(1), vec![("mood".into(), true)]);
        Fetch { publisher, from: from.clone(), from_user, session, number: 2, names }
    };
    let documents = vec![("mood".into(), b"good".to_vec())];
    vec![
        Control::Message(Box::new(message)),
        Control::Question(Box::new(question)),
        Control::Directed(Box::new(directed)),
        Control::News(Box::new(News { publisher: *theirs, name: "mood".into(), subscribers: vec![*ours] })),
        Control::Fetch(Box::new(fetch(*ours, ann, *theirs))),
        Control::Fetched(Box::new(Fetched { fetch: fetch(*theirs, bob, *ours), documents })),
        Control::ToSession { edge: EDGE, event: SessionEvent::Done { request: 4 } },
        Control::Astray(Box::new(Astray { jid: bob.clone(), cluster: 1, what: Strayed::Ticket(3) })),
        Control::Directory(Box::new(Inquiry::Locate { jid: ann.clone(), by: 2 })),
        Control::Directory(Box::new(Inquiry::Settle { jid: ann.clone(), user: *theirs, by: 2 })),
    ]
}
