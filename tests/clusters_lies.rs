//! A cluster that lies changes nothing that it may not: each lie is a test (issue 4, "Bad input and faults"). The liar is the third
//! cluster; what it says comes to any core of the first one.

mod nodes_world;

use fanal::base::id::{SessionId, UserId, Version, slot_of};
use fanal::base::jid::Bare;
use fanal::presence::border::{Astray, Crossing, Letter, Reply, State, Strayed, Ticket};
use fanal::presence::control::{Arrival, Content, Directed, Fetch, Note, Way, WayKind, WayName};
use fanal::presence::directory::Inquiry;
use fanal::presence::frame::Events;
use fanal::presence::subscription;
use fanal::wire::encode::{PresenceFields, Tag};
use fanal::wire::event::{Head, REFERENCE};
use fanal::wire::native::{Access, Action, MessageKind, Show};
use nodes_world::{Client, Heard, World, jid};

const LIAR: u16 = 3;

/// Ann is in the first cluster, Bob in the second; they see each other. Mallory is a user of the liar's.
struct Stage {
    world: World,
    ann: (Bare, UserId, Client),
    bob: (Bare, UserId, Client),
    mallory: (Bare, UserId, Client),
}

fn user(cluster: u16, jid: &Bare) -> UserId {
    UserId::new(cluster, slot_of(jid.as_str()), 1)
}

impl Stage {
    fn new() -> Stage {
        let mut world = World::clusters(3, 2, 2);
        let (ann, bob, mallory) = (world.name_on(0, 0), world.name_on(2, 0), world.name_on(4, 0));
        let (a, b, m) = (world.online(1, &ann), world.online(3, &bob), world.online(4, &mallory));
        world.subscribes((&ann, a), (&bob, b));
        world.subscribes((&bob, b), (&ann, a));
        [a, b, m].into_iter().for_each(|client| _ = world.heard(client));
        let (ann, bob, mallory) = (jid(&ann), jid(&bob), jid(&mallory));
        let (ann, bob) = ((ann.clone(), user(1, &ann), a), (bob.clone(), user(2, &bob), b));
        Stage { world, ann, bob, mallory: (mallory.clone(), user(LIAR, &mallory), m) }
    }

    /// The liar says something to each core of the first cluster in turn.
    fn says(&mut self, crossing: &Crossing) {
        let bytes = postcard::to_stdvec(crossing).unwrap();
        self.each_core(|shard, now| shard.from_cluster(now, LIAR, &bytes).unwrap());
    }

    fn each_core(&mut self, mut tell: impl FnMut(&mut fanal::shard::Shard, fanal::base::time::Time)) {
        for (node, core) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            tell(&mut self.world.nodes[node].shards[core], self.world.now);
            self.world.settle();
        }
    }

    /// Everything that the liar has been told since, as it was said.
    fn told(&mut self) -> Vec<Crossing> {
        let entries = std::mem::take(&mut self.world.entries).into_iter();
        entries.filter(|(_, to, _)| *to == LIAR).map(|(_, _, bytes)| postcard::from_bytes(&bytes).unwrap()).collect()
    }

    fn refused(&self) -> u64 {
        self.world.nodes.iter().flat_map(|node| &node.shards).map(|shard| shard.gateway.counters.refused).sum()
    }

    /// Ann and Bob have heard nothing, and see each other as before; nobody else sees them.
    fn is_as_before(&mut self) {
        let ((_, _, a), (_, _, b)) = (self.ann.clone(), self.bob.clone());
        assert_eq!((self.world.heard(a), self.world.heard(b)), (vec![], vec![]));
        let abroad = self.world.abroad;
        self.world.shows(a, Show::Away);
        self.world.shows(b, Show::Chat);
        assert_eq!((self.world.seen(a), self.world.seen(b)), (vec![Show::Chat], vec![Show::Away]));
        assert_eq!(self.world.abroad - abroad, 2, "one to each of the two clusters");
        self.world.shows(a, Show::Available);
        self.world.shows(b, Show::Available);
        self.world.heard(a);
        self.world.heard(b);
    }

    /// Says it, and nothing follows but that it's counted.
    fn says_in_vain(&mut self, crossing: &Crossing) {
        let refused = self.refused();
        self.world.entries.clear();
        self.says(crossing);
        assert_eq!(self.refused() - refused, 4, "{crossing:?}");
        let told: Vec<_> = self.told().into_iter().filter(|crossing| !matches!(crossing, Crossing::Inquiry(_))).collect();
        assert!(told.is_empty(), "{told:?}");
        self.is_as_before();
    }

    fn letter(&self, from: &Bare, body: usize) -> Crossing {
        let content = Content { kind: MessageKind::Chat, id: String::new(), body: vec![b'x'; body], extensions: String::new() };
        let (from, to, from_resource) = (from.clone(), self.ann.0.clone(), "desk".to_owned());
        let ticket = Ticket { place: 1 << 16, number: 1, wants: true };
        Crossing::Letter(Box::new(Letter { from, from_resource, to, to_resource: None, content, ticket }))
    }

    fn way(&self, from: (&Bare, UserId), kind: WayKind) -> Crossing {
        let ((from, from_user), (to, to_user)) = (from, (self.ann.0.clone(), self.ann.1));
        let (from, note, sequence, cluster) = (from.clone(), Note::default(), 77, 0);
        Crossing::Way(Box::new(Way { from, from_user, to, to_user, kind, note, sequence, cluster, knows: vec![] }))
    }

    fn event(&mut self, user: UserId, sequence: u32) -> Events {
        let presence = self.world.encoder.presence(&PresenceFields { resource: "desk", show: Show::Away, ..Default::default() });
        let head = Head { user, version: Version { epoch: 9, sequence }, session: SessionId(1), show: Show::Away, flags: 0 };
        Events::of(head, &presence)
    }
}

/// Z6, Z8: watches of somebody who has approved nobody there, under the number of anybody or of nobody.
#[test]
fn z8_a_cluster_that_claims_subscriptions_nobody_approved_is_told_nothing() {
    let mut stage = Stage::new();
    let (publisher, mallory) = (stage.ann.1, stage.mallory.1);
    for subscriber in [mallory, UserId::NOBODY] {
        stage.world.entries.clear();
        stage.says(&Crossing::Watch { publisher, subscriber, nonce: 7, known: None });
        let told = stage.told();
        assert!(told.len() == 4 && told.iter().all(|crossing| matches!(crossing, Crossing::Refused { .. })), "{told:?}");
    }
    for subscriber in [stage.bob.1, stage.ann.1, UserId::new(2, 0, 1)] {
        stage.says_in_vain(&Crossing::Watch { publisher, subscriber, nonce: 7, known: None });
    }
    stage.says_in_vain(&Crossing::Watch { publisher: stage.bob.1, subscriber: mallory, nonce: 7, known: None });
    stage.is_as_before();
}

/// Z6: who was approved and is revoked gets nothing more, even if its cluster never lets go.
#[test]
fn z6_a_cluster_whose_last_subscriber_is_revoked_gets_nothing_more_whatever_it_says() {
    let mut stage = Stage::new();
    let (publisher, mallory, a) = (stage.ann.1, stage.mallory.clone(), stage.ann.2);
    stage.world.nodes[0].shards[0].check();
    let name = mallory.0.local().to_owned();
    stage.world.subscription(mallory.2, Action::Subscribe, stage.ann.0.clone().local());
    stage.world.subscription(a, Action::Subscribed, &name);
    stage.says(&Crossing::Watch { publisher, subscriber: mallory.1, nonce: 7, known: None });
    let abroad = stage.world.abroad;
    stage.world.shows(a, Show::Away);
    assert_eq!(stage.world.abroad - abroad, 2, "to Bob's cluster and to Mallory's");
    stage.world.subscription(a, Action::Unsubscribed, &name);
    for subscriber in [mallory.1, UserId::NOBODY] {
        stage.says(&Crossing::Watch { publisher, subscriber, nonce: 8, known: None });
    }
    let abroad = stage.world.abroad;
    stage.world.shows(a, Show::Chat);
    assert_eq!(stage.world.abroad - abroad, 1, "to Bob's");
}

/// Z8: ways under the names or numbers of others.
#[test]
fn z8_a_cluster_that_speaks_for_users_it_does_not_own_changes_no_subscription() {
    let mut stage = Stage::new();
    let (ann, bob, mallory) = (stage.ann.clone(), stage.bob.clone(), stage.mallory.clone());
    let ghost = Bare::new("ghost@example.org").unwrap();
    for kind in [subscription::Action::Subscribe, subscription::Action::Subscribed, subscription::Action::Unsubscribe] {
        let kind = WayKind::Stanza(kind);
        for from in [
            (&bob.0, bob.1),
            (&bob.0, user(LIAR, &bob.0)),
            (&bob.0, mallory.1),
            (&ann.0, user(LIAR, &ann.0)),
            (&mallory.0, UserId::NOBODY),
            (&mallory.0, bob.1),
        ] {
            stage.says_in_vain(&stage.way(from, kind));
        }
    }
    stage.says_in_vain(&stage.way((&bob.0, UserId::NOBODY), WayKind::Stanza(subscription::Action::Unsubscribed)));
    stage.says_in_vain(&stage.way((&bob.0, user(LIAR, &bob.0)), WayKind::Hide));
    stage.says_in_vain(&stage.way((&ghost, user(LIAR, &ghost)), WayKind::Stanza(subscription::Action::Subscribe)));
}

/// Z8: a copy of a request may come to a contact after it was settled elsewhere (seed 441487 of the simulator): whoever takes
/// somebody for a subscriber who is none is told, so that both ends agree.
#[test]
fn z8_a_cluster_that_approves_what_nobody_asks_for_is_told_that_nobody_has_subscribed() {
    let mut stage = Stage::new();
    let mallory = stage.mallory.clone();
    stage.says(&stage.way((&mallory.0, mallory.1), WayKind::Stanza(subscription::Action::Subscribed)));
    let ways = stage.told().into_iter().filter_map(|crossing| match crossing {
        Crossing::Way(way) => Some((way.to.clone(), way.kind)),
        _ => None,
    });
    let unsubscribe = WayKind::Stanza(subscription::Action::Unsubscribe);
    assert_eq!(ways.collect::<Vec<_>>(), [(mallory.0, unsubscribe)], "once");
}

/// Z8: a way to another cluster is not confirmed by a third one, which is told that it gets none: it need not keep it in mind.
#[test]
fn z8_a_cluster_that_confirms_ways_to_others_confirms_nothing() {
    let mut stage = Stage::new();
    let (a, b) = (stage.ann.2, stage.bob.2);
    stage.world.cut_clusters(1, 2);
    stage.world.subscription(a, Action::Unsubscribe, stage.bob.0.clone().local());
    stage.world.heard(a);
    stage.world.entries.clear();
    for sequence in (1 << 40)..(1 << 40) + 20 {
        let (from, to, cluster) = (stage.ann.0.clone(), stage.bob.0.clone(), 2);
        let name = WayName { from, to, sequence, cluster };
        stage.says(&Crossing::WayDone(Box::new(Arrival { name, before: 0 })));
        let told = stage.told();
        assert!(told.len() == 4 && told.iter().all(|crossing| matches!(crossing, Crossing::WayForgotten(_))), "{told:?}");
    }
    stage.world.heal_clusters(1, 2);
    let abroad = stage.world.abroad;
    stage.world.shows(b, Show::Away);
    assert_eq!(stage.world.abroad, abroad, "Bob's home has heard of it");
}

/// Z9: messages, directed presence and questions under the names of others.
#[test]
fn z9_a_cluster_that_writes_under_other_names_is_not_heard() {
    let mut stage = Stage::new();
    let (ann, bob, mallory) = (stage.ann.clone(), stage.bob.clone(), stage.mallory.clone());
    let a = ann.2;
    stage.world.say(a, |encoder, out| encoder.document_set(out, Tag::request(7), "mood", b"secret", Access::Own));
    stage.world.heard(a);
    for from in [&bob.0, &ann.0, &jid("ghost")] {
        stage.says_in_vain(&stage.letter(from, 1));
        let presence = stage.world.encoder.presence(&PresenceFields { resource: "desk", ..Default::default() });
        let (to, from_resource) = (ann.0.clone(), "desk".into());
        let directed = Directed { from: from.clone(), from_resource, to, to_resource: None, presence };
        stage.says_in_vain(&Crossing::Directed(Box::new(directed)));
        let (names, session) = (vec![("mood".into(), true)], SessionId(1));
        let fetch = Fetch { publisher: ann.1, from: from.clone(), from_user: user(LIAR, from), session, number: 1, names };
        stage.says_in_vain(&Crossing::Fetch(Box::new(fetch)));
    }
    stage.says(&stage.letter(&mallory.0, 1));
    assert_eq!(stage.world.heard(a).len(), 4, "what is its own's is");
}

/// Z7: the state and the updates of publishers of others, or of its own that nobody watches.
#[test]
fn z7_a_cluster_that_tells_of_publishers_it_does_not_own_is_not_believed() {
    let mut stage = Stage::new();
    let (ann, bob, mallory) = (stage.ann.clone(), stage.bob.clone(), stage.mallory.clone());
    for publisher in [ann.1, bob.1] {
        let (events, refused) = (stage.event(publisher, 50), stage.refused());
        stage.each_core(|shard, now| shard.updates_from_cluster(now, LIAR, events.bytes().to_vec()).unwrap());
        assert_eq!(stage.refused() - refused, 4);
        stage.is_as_before();
        let (subscriber, nonce) = (UserId::NOBODY, 1);
        stage.says_in_vain(&Crossing::Revoke { publisher, subscriber: ann.1 });
        stage.says_in_vain(&Crossing::Refused { publisher, subscriber, nonce });
        for (publisher, jid) in [(publisher, bob.0.clone()), (mallory.1, bob.0.clone()), (user(LIAR, &bob.0), bob.0.clone())] {
            let state = State { publisher, jid, subscriber, nonce, events: events.clone(), revoked: vec![ann.1] };
            stage.says_in_vain(&Crossing::State(Box::new(state)));
        }
    }
    // Its own, which nobody watches: it's told so, and nothing is kept.
    let events = stage.event(mallory.1, 50);
    stage.world.entries.clear();
    stage.each_core(|shard, now| shard.updates_from_cluster(now, LIAR, events.bytes().to_vec()).unwrap());
    let told = stage.told();
    assert!(told.len() == 4 && told.iter().all(|crossing| matches!(crossing, Crossing::Unwatch { .. })), "{told:?}");
    stage.is_as_before();
}

/// M5: the presence of a user that it does not watch, or watches no more, asked for as if it had been told of it by reference.
#[test]
fn m5_a_cluster_gets_no_presence_that_it_was_not_told_of() {
    let mut stage = Stage::new();
    let (publisher, a) = (stage.ann.1, stage.ann.2);
    stage.world.publishes(a, 20_000);
    stage.world.settle();
    let b = stage.bob.2;
    assert_eq!(stage.world.payloads(b), [20_000]);
    let whole = |stage: &Stage| (0..stage.world.nodes.len()).map(|node| stage.world.fetched(node).1).sum::<u64>();
    let before = (whole(&stage), stage.world.abroad);
    for session in 0..3 {
        stage.says(&Crossing::Obtain { publisher, session: SessionId(session) });
    }
    assert_eq!((whole(&stage), stage.world.abroad), before);
    // Nor does it say how others are told (Z12).
    stage.says_in_vain(&Crossing::Attention { publisher, active: false });
    stage.is_as_before();
}

/// Z9: answers to what it was never asked, or to what another cluster was.
#[test]
fn z9_answers_to_tickets_that_a_cluster_never_got_reach_nobody() {
    let mut stage = Stage::new();
    let (a, bob) = (stage.ann.2, stage.bob.0.local().to_owned());
    stage.world.cut_clusters(1, 2);
    stage.world.writes(a, &bob, "for Bob");
    let gateways = || (1..=2).flat_map(|node: u32| (0..2).map(move |core| node << 16 | core));
    let first = 0x9e37_79b1_u32.wrapping_add(1);
    for (place, number) in gateways().flat_map(|place| (0..3).map(move |n| (place, first.wrapping_add(n)))) {
        let ticket = Ticket { place, number, wants: true };
        stage.says(&Crossing::Reply { ticket, answer: Reply::Done });
        let what = Strayed::Ticket(number);
        stage.says(&Crossing::Astray(Box::new(Astray { jid: stage.bob.0.clone(), cluster: 2, what })));
    }
    for place in [0, 9 << 16, 1 << 16 | 7, u32::MAX] {
        let ticket = Ticket { place, number: first, wants: true };
        stage.says_in_vain_while_cut(&Crossing::Reply { ticket, answer: Reply::Done });
    }
    assert_eq!(stage.world.heard(a), [], "nobody has answered yet");
    stage.world.heal_clusters(1, 2);
    stage.world.heard(stage.bob.2);
    assert_eq!(stage.world.heard(a).last(), Some(&Heard::Done));
}

impl Stage {
    fn says_in_vain_while_cut(&mut self, crossing: &Crossing) {
        let refused = self.refused();
        self.says(crossing);
        assert_eq!(self.refused() - refused, 4, "{crossing:?}");
    }
}

/// Huge sizes: what is longer than any client may send, more sessions than a user has, and lengths that aren't there.
#[test]
fn huge_sizes_are_refused_and_nothing_is_kept_of_them() {
    let mut stage = Stage::new();
    let mallory = stage.mallory.clone();
    stage.says_in_vain(&stage.letter(&mallory.0, 70_000));
    let note = Note::new("x".repeat(2_000));
    let Crossing::Way(way) = stage.way((&mallory.0, mallory.1), WayKind::Stanza(subscription::Action::Subscribe)) else { return };
    stage.says_in_vain(&Crossing::Way(Box::new(Way { note, ..*way })));
    let bytes = postcard::to_stdvec(&stage.letter(&mallory.0, 10)).unwrap();
    for at in 0..bytes.len() {
        // Any length becomes an enormous one.
        let claimed = [&bytes[..at], &[0xff, 0xff, 0xff, 0xff, 0x0f], &bytes[at + 1..]].concat();
        stage.each_core(|shard, now| _ = shard.from_cluster(now, LIAR, &claimed));
    }
    assert!(stage.world.nodes[0].shards[0].from_cluster(stage.world.now, LIAR, &[]).is_err());
    let a = stage.ann.2;
    stage.world.heard(a);
    stage.is_as_before();
    // Ann watches Mallory, whose cluster makes up sessions.
    let (anns, name) = (stage.ann.0.local().to_owned(), mallory.0.local().to_owned());
    let m = stage.world.online(4, &name);
    stage.world.subscribes((&anns, a), (&name, m));
    let refused = stage.refused();
    let flags = [0, REFERENCE];
    for (session, flags) in (0..2_000).zip(flags.into_iter().cycle()) {
        let presence = stage.world.encoder.presence(&PresenceFields { resource: "desk", ..Default::default() });
        let (user, version) = (mallory.1, Version { epoch: 9, sequence: 1 });
        let head = Head { user, version, session: SessionId(session), show: Show::Available, flags };
        let (now, bytes) = (stage.world.now, Events::of(head, &presence).bytes().to_vec());
        stage.world.nodes[0].shards[0].updates_from_cluster(now, LIAR, bytes).unwrap();
    }
    stage.world.settle();
    assert!(stage.refused() - refused >= 2_000 - fanal::presence::border::FAR_SESSIONS as u64);
}

/// Replays and old epochs: an update that was told before, or belongs to an earlier life, is no news.
#[test]
fn replays_and_old_epochs_are_no_news() {
    let mut stage = Stage::new();
    let (a, b, bob) = (stage.ann.2, stage.bob.2, stage.bob.1);
    stage.world.shows(b, Show::Away);
    assert_eq!(stage.world.seen(a), [Show::Away]);
    let presence = stage.world.encoder.presence(&PresenceFields { resource: "desk", show: Show::Chat, ..Default::default() });
    for (epoch, sequence) in [(1, 1), (1, 2), (0, 99), (0, u32::MAX)] {
        let head = Head { user: bob, version: Version { epoch, sequence }, session: SessionId(1), show: Show::Chat, flags: 0 };
        let bytes = Events::of(head, &presence).bytes().to_vec();
        stage.each_core(|shard, now| shard.updates_from_cluster(now, 2, bytes.clone()).unwrap());
    }
    assert_eq!(stage.world.seen(a), []);
    // A way that comes twice is carried out once.
    let mallory = stage.mallory.clone();
    let way = stage.way((&mallory.0, mallory.1), WayKind::Stanza(subscription::Action::Subscribe));
    stage.says(&way);
    stage.says(&way);
    assert_eq!(stage.world.heard(a).len(), 1, "one request");
}

/// Z1, Z3: whoever is no directory answers nothing, and takes no names; and the directory gives nobody's name to another.
#[test]
fn z1_only_the_directory_is_believed_and_it_takes_no_names_from_their_clusters() {
    let mut stage = Stage::new();
    let (bob, mallory) = (stage.bob.clone(), stage.mallory.clone());
    stage.says_in_vain(&Crossing::Inquiry(Box::new(Inquiry::Located { jid: bob.0.clone(), cluster: LIAR })));
    stage.says_in_vain(&Crossing::Inquiry(Box::new(Inquiry::Settle { jid: bob.0.clone(), user: bob.1, by: 2 })));
    stage.says_in_vain(&Crossing::Inquiry(Box::new(Inquiry::Settle { jid: bob.0.clone(), user: mallory.1, by: LIAR })));
    stage.says_in_vain(&Crossing::Inquiry(Box::new(Inquiry::Settled { jid: bob.0.clone(), user: bob.1, cluster: LIAR })));
    for user in [user(LIAR, &bob.0), UserId::NOBODY] {
        stage.says(&Crossing::Inquiry(Box::new(Inquiry::Settle { jid: bob.0.clone(), user, by: LIAR })));
        stage.is_as_before();
    }
    let ann = stage.ann.2;
    stage.world.writes(ann, bob.0.local(), "still there?");
    stage.world.heard(bob.2);
    assert_eq!(stage.world.heard(ann), [Heard::Done]);
}

/// Ways without end, which their sender never forgets: what is kept of them has a limit, and others' ways are taken in as before.
#[test]
fn z8_ways_that_a_cluster_never_forgets_are_kept_up_to_a_limit() {
    let mut stage = Stage::new();
    let mallory = stage.mallory.clone();
    let Crossing::Way(way) = stage.way((&mallory.0, mallory.1), WayKind::Show) else { unreachable!("it is one") };
    stage.world.cut_clusters(1, LIAR);
    let (refused, most) = (stage.refused(), 65_536);
    // The first one has a number that no way has.
    for sequence in 0..=most + 10 {
        let bytes = postcard::to_stdvec(&Crossing::Way(Box::new(Way { sequence, ..(*way).clone() }))).unwrap();
        stage.world.nodes[0].shards[0].from_cluster(stage.world.now, LIAR, &bytes).unwrap();
        if sequence % 4096 == 0 || sequence >= most {
            stage.world.settle();
        }
    }
    assert_eq!(stage.refused() - refused, 11);
    stage.world.heard(stage.ann.2);
    let (ann, bob) = (stage.ann.clone(), stage.bob.clone());
    stage.world.subscription(bob.2, Action::Unsubscribe, ann.0.local());
    stage.world.heard(ann.2);
    let abroad = stage.world.abroad;
    stage.world.shows(ann.2, Show::Away);
    assert_eq!(stage.world.abroad, abroad, "Bob's way was taken in");
}
