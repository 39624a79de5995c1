//! What one side writes the other side reads, field by field, for any content (G2).

mod wire_samples;

use fanal::base::id::{SessionId, UserId, Version};
use fanal::base::reason::Reason;
use fanal::client::codec::Codec;
use fanal::client::values::Presence;
use fanal::wire::decode::{self, ClientFrame, ServerFrame};
use fanal::wire::encode::{Encoder, LogInFields, PresenceFields, Tag};
use fanal::wire::event::{self, BatchWriter, Head};
use fanal::wire::frame::{Chunk, Frames, HEADER_BYTES};
use fanal::wire::native::{Access, Kind, Show, SubscriptionState};
use fanal::wire::presence;
use proptest::prelude::*;
use wire_samples::{GREETING, HEAD, LOG_IN, LOG_IN_BY_TOKEN, LOGGED_IN, MESSAGE, PRESENCE, SUBSCRIPTION, Sample, TAG};

fn sample(samples: Vec<Sample>, kind: Kind) -> Vec<u8> {
    samples.into_iter().find(|sample| sample.kind == kind).unwrap().bytes
}

fn from_client(kind: Kind, check: impl FnOnce(ClientFrame<'_>)) {
    let bytes = sample(wire_samples::of_client(), kind);
    check(decode::from_client(kind, &bytes[HEADER_BYTES..]).unwrap());
}

fn from_server(kind: Kind, check: impl FnOnce(ServerFrame<'_>)) {
    let bytes = sample(wire_samples::of_server(), kind);
    check(decode::from_server(kind, &bytes[HEADER_BYTES..]).unwrap());
}

macro_rules! read {
    ($side:ident, $kind:ident, $table:ident => $($field:expr, $wanted:expr);+ $(;)?) => {
        $side(Kind::$kind, |frame| match frame {
            read!(@ $side $kind $table) => { $(assert_eq!($field, $wanted);)+ }
            _ => panic!("not a {:?}", Kind::$kind),
        })
    };
    (@ from_client $kind:ident $table:ident) => { ClientFrame::$kind($table) };
    (@ from_server $kind:ident $table:ident) => { ServerFrame::$kind($table) };
}

#[test]
fn a_server_reads_what_a_client_wrote() {
    let mut first_presences = 0;
    read!(from_client, Hello, t => t.version(), 1; t.lowest(), 1; t.software(), Some("a client"));
    read!(from_client, Ping, t => t.data(), 0x0102_0304_0506_0708);
    read!(from_client, Pong, t => t.data(), 0x0102_0304_0506_0708);
    read!(from_client, Message, t => t.to(), Some(MESSAGE.to); t.id(), Some(MESSAGE.id); t.body().unwrap().bytes(), MESSAGE.body);
    for sample in wire_samples::of_client().into_iter().filter(|sample| sample.kind == Kind::LogIn) {
        let frame = decode::from_client(sample.kind, &sample.bytes[HEADER_BYTES..]).unwrap();
        let ClientFrame::LogIn { log_in, presence } = frame else { panic!() };
        // The one that only proves who it is asks for a token.
        let wrote = if log_in.bind_later() { LOG_IN_BY_TOKEN } else { LOG_IN };
        assert_eq!((log_in.jid(), log_in.mechanism()), (Some(wrote.jid), Some(wrote.mechanism)));
        assert_eq!((log_in.data().unwrap().bytes(), log_in.resource().unwrap_or_default()), (wrote.data, wrote.resource));
        let wanted = (log_in.client().unwrap_or_default(), log_in.token_for().unwrap_or_default());
        assert_eq!(wanted, (wrote.client, wrote.token_for));
        assert_eq!((log_in.token_count(), log_in.token_invalid()), (wrote.token_count, wrote.token_invalid));
        assert_eq!(presence.map(|presence| presence.fields()), log_in.presence().map(|_| PRESENCE));
        first_presences += usize::from(presence.is_some());
    }
    assert_eq!(first_presences, 1);
    read!(from_client, SaslResponse, t => t.data().unwrap().bytes(), b"response");
    read!(from_client, Resume, t => t.jid(), "alice@localhost"; t.token().bytes(), [1; 16]; t.received(), 3);
    read!(from_client, LogOut, t => t.status(), Some("gone home"));
    read!(from_client, SetPresence, t => t.fields(), PRESENCE);
    read!(from_client, Probe, t => t.jid(), "bob@localhost");
    read!(from_client, Subscription, t => t.action(), SUBSCRIPTION.action; t.jid(), "bob@localhost"; t.note(), Some("welcome");
        t.extensions(), Some(SUBSCRIPTION.extensions));
    read!(from_client, RosterSet, t => t.jid(), "bob@localhost"; t.name(), Some("Bob"); t.remove(), false;
        t.groups().unwrap().iter().collect::<Vec<_>>(), wire_samples::groups());
    read!(from_client, Block, t => t.jid(), "bob@localhost"; t.blocked(), false);
    read!(from_client, Ack, t => t.received(), 3);
    from_client(Kind::DirectedPresence, |frame| {
        let ClientFrame::DirectedPresence { to, presence } = frame else { panic!() };
        assert_eq!((to, presence.fields()), ("bob@localhost", PRESENCE));
        assert_eq!(presence.bytes, Encoder::default().presence(&PRESENCE));
    });
    read!(from_client, DocumentSet, t => t.name(), "card"; t.data().unwrap().bytes(), b"data"; t.access(), Access::Contacts);
    read!(from_client, DocumentGet, t => t.jid(), Some("bob@localhost"); t.name(), "card");
    read!(from_client, Register, t => t.jid(), "alice@localhost"; t.password(), "secret");
    read!(from_client, PasswordSet, t => t.password(), "secret");
    from_client(Kind::AccountRemove, |frame| assert!(matches!(frame, ClientFrame::AccountRemove)));
    read!(from_client, Interests, t => t.names().unwrap().iter().collect::<Vec<_>>(), ["card", "mood"]; t.again(), false);
    read!(from_client, Carbons, t => t.enabled(), true);
    read!(from_client, Activity, t => t.active(), true);
    read!(from_client, LastSeenGet, t => t.jid(), "bob@localhost");
    from_client(Kind::BlockListGet, |frame| assert!(matches!(frame, ClientFrame::BlockListGet)));
}

#[test]
fn a_client_reads_what_a_server_wrote() {
    read!(from_server, Hello, t => t.domain(), Some("localhost"); t.max_frame(), GREETING.max_frame;
        t.mechanisms().unwrap().iter().collect::<Vec<_>>(), GREETING.mechanisms;
        t.bindings().unwrap().iter().collect::<Vec<_>>(), GREETING.bindings);
    read!(from_server, Message, t => t.from(), Some(MESSAGE.from); t.number(), 3; t.body().unwrap().bytes(), MESSAGE.body);
    read!(from_server, SaslChallenge, t => t.data().unwrap().bytes(), b"challenge");
    read!(from_server, LoggedIn, t => t.user(), 42; t.jid(), LOGGED_IN.jid; t.session(), 9; t.resumed(), true;
        t.resume().unwrap().bytes(), LOGGED_IN.resume; t.resume_within_ms(), 30_000; t.data().unwrap().bytes(), LOGGED_IN.data);
    read!(from_server, Error, t => t.reason(), 21; t.text(), Some(Reason::LogInFailed.text()));
    read!(from_server, SubscriptionEvent, t => t.action(), SUBSCRIPTION.action; t.user(), 42; t.note(), Some("welcome"));
    let mut rosters = Vec::new();
    for sample in wire_samples::of_server().iter().filter(|sample| sample.kind == Kind::Roster) {
        let ServerFrame::Roster(t) = decode::from_server(sample.kind, &sample.bytes[HEADER_BYTES..]).unwrap() else { panic!() };
        let version = t.version().map(str::to_owned);
        rosters.push((t.items().map_or(0, |items| items.len()), t.more(), version, t.unchanged()));
    }
    let version = || Some(wire_samples::VERSION.to_owned());
    assert_eq!(rosters, [(2, false, version(), false), (1, true, None, false), (0, false, version(), true)]);
    read!(from_server, Document, t => t.jid(), "bob@localhost"; t.name(), "card"; t.data().unwrap().bytes(), b"data";
        t.access(), Access::Contacts);
    read!(from_server, DocumentChanged, t => t.jid(), "bob@localhost"; t.name(), "card"; t.data().unwrap().bytes(), b"data");
    read!(from_server, LastSeen, t => t.jid(), "bob@localhost"; t.seconds(), 90; t.status(), Some("gone home"));
    read!(from_server, RosterPush, t => t.item().jid(), "bob@localhost"; t.item().subscription(), SubscriptionState::Both;
        t.item().ask(), true; t.item().approved(), true; t.item().removed(), true;
        t.version(), Some(wire_samples::VERSION));
    read!(from_server, BlockList, t => t.jids().unwrap().iter().collect::<Vec<_>>(), ["carol@localhost"]);
    read!(from_server, BlockPush, t => t.jid(), "carol@localhost"; t.blocked(), true);
    read!(from_server, Transfer, t => t.address(), "127.0.0.1:5290");
    from_server(Kind::EventBatch, |frame| {
        let ServerFrame::EventBatch(batch) = frame else { panic!() };
        let streams: Vec<Vec<u32>> = batch.iter().map(|event| event.unwrap().streams.iter().collect()).collect();
        assert_eq!(streams, [vec![], vec![4, 5]]);
    });
}

#[test]
fn each_side_refuses_the_other_sides_frames_and_unknown_kinds() {
    for sample in wire_samples::of_server() {
        let both = [Kind::Hello, Kind::Ping, Kind::Pong, Kind::Message].contains(&sample.kind);
        assert_eq!(decode::from_client(sample.kind, &sample.bytes[HEADER_BYTES..]).is_ok(), both, "{:?}", sample.kind);
    }
    for sample in wire_samples::of_client() {
        let both = [Kind::Hello, Kind::Ping, Kind::Pong, Kind::Message].contains(&sample.kind);
        assert_eq!(decode::from_server(sample.kind, &sample.bytes[HEADER_BYTES..]).is_ok(), both, "{:?}", sample.kind);
    }
    assert_eq!(decode::from_client(Kind(255), &[0; 64]).err(), Some(Reason::BadFrame));
    assert_eq!(decode::from_client(Kind::SetPresence, &[]).err(), Some(Reason::BadFrame));
}

#[test]
fn numbers_that_name_nothing_and_stamps_of_clients_are_refused() {
    let mut encoder = Encoder::default();
    for (fields, fits) in [
        (PRESENCE, true),
        (PresenceFields { show: Show(6), ..PRESENCE }, false),
        (PresenceFields { show: Show(255), ..PRESENCE }, false),
        (PresenceFields { stamp: 1, ..PRESENCE }, false),
    ] {
        let bytes = encoder.presence(&fields);
        assert_eq!(decode::from_client(Kind::SetPresence, &bytes).is_ok(), fits, "{fields:?}");
        let mut frame = Vec::new();
        encoder.directed_presence(&mut frame, TAG, "bob@localhost", &bytes);
        assert_eq!(decode::from_client(Kind::DirectedPresence, &frame[HEADER_BYTES..]).is_ok(), fits, "{fields:?}");
        frame.clear();
        encoder.log_in(&mut frame, TAG, &LogInFields { presence: &bytes, ..LOG_IN });
        assert_eq!(decode::from_client(Kind::LogIn, &frame[HEADER_BYTES..]).is_ok(), fits, "{fields:?}");
    }
    let mut frame = Vec::new();
    let action = fanal::wire::native::Action(4);
    encoder.subscription(&mut frame, TAG, &fanal::wire::encode::SubscriptionFields { action, ..SUBSCRIPTION });
    assert_eq!(decode::from_client(Kind::Subscription, &frame[HEADER_BYTES..]).err(), Some(Reason::BadFrame));
}

#[test]
fn an_event_for_more_streams_than_fit_becomes_several() {
    let (mut body, mut out) = (Vec::new(), Vec::new());
    event::body(&mut body, HEAD, &Encoder::default().presence(&PRESENCE));
    let streams: Vec<u32> = (1..=100_000).collect();
    event::splice(&mut out, &body, &streams);
    let mut batched = Vec::new();
    let mut batch = BatchWriter::start(&mut batched);
    batch.push(&mut batched, &body, &streams);
    assert_eq!(batch.frame_bytes(&batched), batched.len());
    batch.finish(&mut batched);
    for bytes in [out, batched] {
        let (mut codec, mut chunk, mut found) = (Codec::default(), Chunk::new(&bytes), Vec::new());
        while let Some(received) = codec.next(&mut chunk).unwrap() {
            match received.frame {
                ServerFrame::Event(event) => found.extend(event.streams.iter()),
                ServerFrame::EventBatch(batch) => batch.iter().for_each(|event| found.extend(event.unwrap().streams.iter())),
                _ => panic!(),
            }
        }
        assert_eq!(found, streams);
    }
}

#[test]
fn a_batch_without_events_is_no_frame() {
    let mut out = b"before".to_vec();
    BatchWriter::start(&mut out).finish(&mut out);
    assert_eq!(out, b"before");
}

#[test]
fn a_batch_with_a_damaged_event_ends_there() {
    let bytes = sample(wire_samples::of_server(), Kind::EventBatch);
    for damage in [
        |b: &mut Vec<u8>| b[HEADER_BYTES] = 1,
        |b: &mut Vec<u8>| b.truncate(b.len() - 8),
        |b: &mut Vec<u8>| b[HEADER_BYTES + 4] = 1,
    ] {
        let mut bytes = bytes.clone();
        damage(&mut bytes);
        let ServerFrame::EventBatch(batch) = decode::from_server(Kind::EventBatch, &bytes[HEADER_BYTES..]).unwrap() else {
            panic!()
        };
        assert_eq!(batch.iter().last().unwrap().err(), Some(Reason::BadFrame));
    }
}

fn any_presence() -> impl Strategy<Value = Presence> {
    let text = || prop_oneof![Just(String::new()), "\\PC{0,40}"];
    let payload = prop::collection::vec(any::<u8>(), 0..100);
    ((text(), 0u8..=5, any::<i8>()), text(), any::<u64>(), text(), payload, any::<u64>(), text()).prop_map(
        |((resource, show, priority), status, idle_since, caps, payload, stamp, extensions)| Presence {
            resource,
            show: Show(show),
            priority,
            status,
            idle_since,
            caps,
            payload,
            stamp,
            extensions,
        },
    )
}

fn any_head() -> impl Strategy<Value = Head> {
    (any::<u64>(), any::<(u32, u32)>(), any::<u32>(), 0u8..=5, any::<u8>()).prop_map(|(user, version, session, show, flags)| Head {
        user: UserId(user),
        version: Version { epoch: version.0, sequence: version.1 },
        session: SessionId(session),
        show: Show(show),
        flags,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_presence_comes_back_field_by_field_and_the_general_verifier_agrees(presence in any_presence()) {
        let bytes = Encoder::default().presence(&presence.fields());
        let view = presence::read(&bytes).unwrap();
        prop_assert_eq!(Presence::from(view.fields()), presence);
        prop_assert!(bytes.len().is_multiple_of(8) && flatbuffers::root::<fanal::wire::native::Presence>(&bytes).is_ok());
    }

    #[test]
    fn any_event_comes_back_with_the_publishers_own_bytes(
        head in any_head(), presence in any_presence(), streams in prop::collection::vec(any::<u32>(), 0..20),
    ) {
        let mut encoder = Encoder::default();
        let mut set = Vec::new();
        encoder.set_presence(&mut set, Tag::default(), &presence.fields());
        let presence = &set[HEADER_BYTES..];
        let (mut body, mut plain, mut of_body, mut spliced) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        event::body(&mut body, head, presence);
        event::write(&mut plain, head, presence);
        event::write_body(&mut of_body, &body);
        event::splice(&mut spliced, &body, &streams);
        prop_assert_eq!(&plain, &of_body);
        prop_assert!(plain.ends_with(presence));
        prop_assert!(streams.is_empty() || spliced.ends_with(presence));
        for (frame, streams) in [(&plain, &[][..]), (&spliced, &streams[..])] {
            if let Some(frame) = Frames::default().next(&mut Chunk::new(frame), u32::MAX).unwrap() {
                let event = event::read(frame.body).unwrap();
                prop_assert_eq!(event.head, head);
                prop_assert_eq!(event.presence.unwrap().bytes, presence);
                prop_assert_eq!(event.streams.iter().collect::<Vec<_>>(), streams);
            }
        }
    }

    #[test]
    fn presence_bytes_encoded_before_make_the_same_frame(presence in any_presence(), request in any::<u32>()) {
        let mut encoder = Encoder::default();
        let (mut at_once, mut from_bytes) = (Vec::new(), Vec::new());
        encoder.set_presence(&mut at_once, Tag::request(request), &presence.fields());
        let bytes = encoder.presence(&presence.fields());
        encoder.set_presence_bytes(&mut from_bytes, Tag::request(request), &bytes);
        prop_assert_eq!(at_once, from_bytes);
    }
}
