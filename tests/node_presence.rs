//! One node over real sockets: presence and who may see it. Each test runs with users on one core and spread over two.
mod support;

use fanal::base::reason::Reason;
use fanal::client::{Answer, Client, Event, LogIn, Presence, Trunk, TrunkEvent};
use fanal::wire::encode::{Encoder, LogInFields, MessageFields, PresenceFields, Tag};
use fanal::wire::native::{Action, MessageKind, Show, SubscriptionState};
use std::time::Duration;
use support::*;

#[test]
fn g1_an_approved_subscriber_hears_of_every_change_until_the_last() {
    on_one_and_two_cores(|node| {
        for n in 0..4 {
            let mut alice = node.user(&format!("alice{n}@localhost"), "desk");
            let mut bob = node.user(&format!("bob{n}@localhost"), "phone");
            available(&mut alice);
            available(&mut bob);
            subscribe(&mut bob, &mut alice);
            let first = presence(&mut bob);
            assert_eq!(first.presence.map(|p| p.resource).as_deref(), Some("desk"));
            for status in ["one", "two", "three"] {
                alice.set_presence(&Presence { show: Show::Away, status: status.into(), ..Presence::default() }).unwrap();
                let seen = presence(&mut bob);
                assert_eq!((seen.user, seen.show), (first.user, Show::Away));
                assert_eq!(seen.presence.unwrap().status, status);
            }
            alice.log_out("good night").unwrap();
            let last = presence(&mut bob);
            assert_eq!((last.show, last.presence.unwrap().status.as_str()), (Show::Unavailable, "good night"));
        }
    });
}

#[test]
fn g2_a_subscriber_gets_the_publishers_own_bytes() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut bob);
        available(&mut alice);
        subscribe(&mut bob, &mut alice);
        presence(&mut bob);
        let sent = Presence {
            resource: "a".into(),
            show: Show::DoNotDisturb,
            priority: -3,
            status: "in a meeting".into(),
            idle_since: 1234,
            caps: "caps".into(),
            payload: vec![0, 255, 1],
            stamp: 0,
            extensions: "<x xmlns='urn:x'/>".into(),
        };
        alice.set_presence(&sent).unwrap();
        assert_eq!(presence(&mut bob).presence, Some(sent));
    });
}

#[test]
fn j6_nobody_unapproved_hears_anything() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        bob.subscribe("alice@localhost", "please").unwrap();
        let request = until(&mut alice, |event| match event {
            Event::Subscription(request) => Some(request),
            _ => None,
        });
        assert_eq!((request.action, request.jid.as_str(), request.note.as_str()), (Action::Subscribe, "bob@localhost", "please"));
        alice.set_presence(&Presence { status: "secret".into(), ..Presence::default() }).unwrap();
        no_presence(&mut bob);
        assert!(bob.probe("alice@localhost").is_err(), "a probe is refused too");
        alice.approve("bob@localhost").unwrap();
        assert_eq!(presence(&mut bob).presence.unwrap().status, "secret");
        alice.deny("bob@localhost").unwrap();
        assert_eq!(presence(&mut bob).show, Show::Unavailable, "taken back: shown as gone");
        alice.set_presence(&Presence { status: "secret again".into(), ..Presence::default() }).unwrap();
        no_presence(&mut bob);
    });
}

#[test]
fn rfc_6121_both_rosters_follow_the_subscription() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        alice.roster().unwrap();
        subscribe(&mut bob, &mut alice);
        subscribe(&mut alice, &mut bob);
        let of_bob = until(&mut bob, |event| match event {
            Event::RosterPush(contact) if contact.subscription == SubscriptionState::Both => Some(contact),
            _ => None,
        });
        assert_eq!(of_bob.jid, "alice@localhost");
        bob.set_contact("alice@localhost", "Alice", &["friends", "work"]).unwrap();
        let contact = bob.roster().unwrap().remove(0);
        assert_eq!((contact.name.as_str(), contact.groups.len(), contact.subscription), ("Alice", 2, SubscriptionState::Both));
        bob.remove_contact("alice@localhost").unwrap();
        assert_eq!(bob.roster().unwrap(), []);
        until(&mut alice, |event| match event {
            Event::RosterPush(contact) if contact.subscription == SubscriptionState::None => Some(()),
            _ => None,
        });
    });
}

#[test]
fn z8_j10_requests_and_last_presence_wait_for_log_in() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        alice.set_presence(&Presence { status: "last words".into(), ..Presence::default() }).unwrap();
        alice.approve("bob@localhost").unwrap();
        alice.log_out("last words").unwrap();
        available(&mut bob);
        bob.roster().unwrap();
        bob.subscribe("alice@localhost", "").unwrap();
        let last = presence(&mut bob);
        assert!(last.last && last.show == Show::Unavailable, "{last:?}");
        let kept = last.presence.unwrap();
        assert_eq!(kept.status, "last words");
        assert!(kept.stamp > 1_600_000_000_000, "stamped by the server");
        bob.subscribe("carol@localhost", "no such user yet").unwrap();
        let mut dave = node.user("dave@localhost", "d");
        dave.subscribe("bob@localhost", "hello").unwrap();
        bob.log_out("").unwrap();
        let mut bob = node.user("bob@localhost", "b2");
        available(&mut bob);
        let request = until(&mut bob, |event| match event {
            Event::Subscription(request) => Some(request),
            _ => None,
        });
        assert_eq!((request.jid.as_str(), request.note.as_str()), ("dave@localhost", "hello"));
    });
}

#[test]
fn g2_a_log_in_may_bring_the_first_presence() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        subscribe(&mut alice, &mut bob);
        subscribe(&mut bob, &mut alice);
        bob.log_out("").unwrap();
        until(&mut alice, |event| match event {
            Event::Presence(event) if event.show == Show::Unavailable => Some(()),
            _ => None,
        });
        let token = LogIn::Token(&node.token("bob@localhost"));
        let mut back = node.connect();
        let here = Presence { status: "back".into(), ..Presence::default() };
        back.log_in_with("bob@localhost", token, "b2", &here).unwrap();
        let seen = presence(&mut alice).presence.unwrap();
        assert_eq!((seen.resource.as_str(), seen.status.as_str()), ("b2", "back"));
        assert_eq!(presence(&mut back).presence.unwrap().resource, "a", "who is there comes without a word more");

        let refused = node.connect().log_in_with("bob@localhost", token, "", &here).unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::WrongResource), "nobody knows yet what the resource will be");
    });
}

#[test]
fn g2_a_stranger_and_a_trunks_stream_may_bring_it_too() {
    on_one_and_two_cores(|node| {
        let mut trunk = node.trunk();
        let encoder = &mut Encoder::default();
        let here = encoder.presence(&PresenceFields { resource: "game", ..PresenceFields::default() });
        let elsewhere = encoder.presence(&PresenceFields { resource: "elsewhere", ..PresenceFields::default() });
        for (stream, presence, reason) in [(1, &here, None), (2, &elsewhere, Some(Reason::WrongResource)), (2, &here, None)] {
            let jid = format!("player{stream}@localhost");
            let log_in = LogInFields { jid: &jid, resource: "game", presence, ..LogInFields::default() };
            let asked = trunk.send(stream, |encoder, out, tag| encoder.log_in(out, tag, &log_in));
            trunk.flush().unwrap();
            assert_eq!(refusal(&mut trunk, asked), reason);
        }
        let (mut second, jid) = (node.connect(), "player1@localhost");
        second.log_in_with(jid, LogIn::Token(&node.token(jid)), "desk", &Presence::default()).unwrap();
        assert_eq!(presence(&mut second).presence.unwrap().resource, "game");
    });
}

#[test]
fn several_sessions_of_a_user_see_each_other_and_are_all_seen() {
    on_one_and_two_cores(|node| {
        let mut bob = node.user("bob@localhost", "b");
        let (mut desk, mut phone) = (node.user("alice@localhost", "desk"), node.user("alice@localhost", "phone"));
        available(&mut bob);
        available(&mut desk);
        subscribe(&mut bob, &mut desk);
        presence(&mut bob);
        available(&mut phone);
        assert_eq!(presence(&mut desk).presence.unwrap().resource, "phone");
        assert_eq!(presence(&mut phone).presence.unwrap().resource, "desk");
        let seen = presence(&mut bob);
        assert_eq!(seen.presence.unwrap().resource, "phone");
        phone.log_out("").unwrap();
        let gone = presence(&mut bob);
        assert_eq!((gone.session, gone.show), (seen.session, Show::Unavailable));
        assert_eq!(presence(&mut desk).show, Show::Unavailable);
    });
}

#[test]
fn a_newer_log_in_takes_the_resource_and_the_old_session_is_told() {
    on_one_and_two_cores(|node| {
        let mut old = node.user("alice@localhost", "desk");
        available(&mut old);
        let mut new = node.user("alice@localhost", "desk");
        let refusal = until(&mut old, |event| match event {
            Event::Refused(refusal) => Some(refusal),
            _ => None,
        });
        assert_eq!(refusal.reason(), Some(fanal::base::reason::Reason::Replaced));
        available(&mut new);
        new.ping().unwrap();
    });
}

#[test]
fn two_first_log_ins_at_once_make_one_user_and_the_later_session_stays() {
    let node = TestNode::start(&config(1));
    for n in 0..20 {
        let jid = format!("newcomer{n}@localhost");
        let both = std::sync::Barrier::new(2);
        let (address, token) = (node.address(), node.token(&jid));
        let numbers: Vec<_> = std::thread::scope(|scope| {
            let log_in = || {
                let mut client = Client::connect(&address, LONG).unwrap();
                both.wait();
                let user = client.log_in(&jid, LogIn::Token(&token), "same").unwrap().user;
                (client, user)
            };
            let threads = [scope.spawn(log_in), scope.spawn(log_in)];
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(numbers[0].1, numbers[1].1);
    }
}

#[test]
fn a_blocked_user_sees_nothing_and_is_not_seen() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        alice.roster().unwrap();
        subscribe(&mut bob, &mut alice);
        subscribe(&mut alice, &mut bob);
        presence(&mut bob);
        presence(&mut alice);
        alice.block("bob@localhost").unwrap();
        assert_eq!(alice.block_list().unwrap(), ["bob@localhost"]);
        assert_eq!(presence(&mut bob).show, Show::Unavailable);
        assert_eq!(presence(&mut alice).show, Show::Unavailable);
        alice.set_presence(&Presence { status: "unseen".into(), ..Presence::default() }).unwrap();
        bob.set_presence(&Presence { status: "unseen".into(), ..Presence::default() }).unwrap();
        no_presence(&mut bob);
        no_presence(&mut alice);
        assert!(bob.send_message("alice@localhost", "1", b"hello").is_err());
        alice.unblock("bob@localhost").unwrap();
        assert_eq!(presence(&mut bob).presence.unwrap().status, "unseen");
        assert_eq!(presence(&mut alice).presence.unwrap().status, "unseen");
    });
}

#[test]
fn directed_presence_reaches_its_addressee_and_so_does_the_farewell() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        alice.set_directed_presence("bob@localhost", &Presence { status: "for you".into(), ..Presence::default() }).unwrap();
        let directed = |client: &mut _| {
            until(client, |event| match event {
                Event::Directed(directed) => Some(directed),
                _ => None,
            })
        };
        let seen = directed(&mut bob);
        assert_eq!((seen.from.as_str(), seen.presence.status.as_str()), ("alice@localhost/a", "for you"));
        alice.log_out("").unwrap();
        let gone = directed(&mut bob);
        assert_eq!((gone.from.as_str(), gone.presence.show), ("alice@localhost/a", Show::Unavailable));
    });
}

#[test]
fn a_broken_session_is_resumed_without_a_farewell_and_hears_only_the_newest() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        subscribe(&mut bob, &mut alice);
        subscribe(&mut alice, &mut bob);
        presence(&mut bob);
        presence(&mut alice);
        bob.break_connection();
        for status in ["1", "2", "newest"] {
            alice.set_presence(&Presence { status: status.into(), ..Presence::default() }).unwrap();
        }
        alice.send_message("bob@localhost/b", "m1", b"while you were out").unwrap();
        bob.resume().unwrap();
        let (mut told, mut message) = (None, None);
        until(&mut bob, |event| {
            match event {
                Event::Presence(presence) => told = presence.presence,
                Event::Message(got) => message = Some(got),
                _ => {}
            }
            (told.is_some() && message.is_some()).then_some(())
        });
        assert_eq!(told.unwrap().status, "newest");
        let message = message.unwrap();
        assert_eq!((message.id.as_str(), &message.body[..]), ("m1", &b"while you were out"[..]));
        no_presence(&mut alice);
    });
}

#[test]
fn a_session_that_is_not_resumed_in_time_ends() {
    let mut config = config(2);
    config.limits.resume_ms = 200;
    let node = TestNode::start(&config);
    let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    available(&mut alice);
    available(&mut bob);
    subscribe(&mut bob, &mut alice);
    presence(&mut bob);
    alice.break_connection();
    assert_eq!(presence(&mut bob).show, Show::Unavailable);
    let refused = alice.resume().unwrap_err();
    assert_eq!(refused.reason(), Some(fanal::base::reason::Reason::ResumeFailed));
}

#[test]
fn c8_a_session_told_to_move_goes_on_at_the_other_address() {
    on_one_and_two_cores(|node| {
        let mut alice = node.user("alice@localhost", "a");
        available(&mut alice);
        let address = node.address();
        alice.follow(&address).unwrap();
        alice.ping().unwrap();
    });
}

#[test]
fn messages_go_to_the_session_named_or_to_the_best_ones() {
    on_one_and_two_cores(|node| {
        let mut bob = node.user("bob@localhost", "b");
        let (mut low, mut high) = (node.user("alice@localhost", "low"), node.user("alice@localhost", "high"));
        available(&mut bob);
        low.set_presence(&Presence { priority: 1, ..Presence::default() }).unwrap();
        high.set_presence(&Presence { priority: 5, ..Presence::default() }).unwrap();
        bob.send_message("alice@localhost", "bare", b"to the best").unwrap();
        bob.send_message("alice@localhost/low", "full", b"to that one").unwrap();
        let next = |client: &mut _| {
            until(client, |event| match event {
                Event::Message(message) => Some(message),
                _ => None,
            })
        };
        assert_eq!(next(&mut high).id, "bare");
        let message = next(&mut low);
        assert_eq!((message.id.as_str(), message.from.as_str()), ("full", "bob@localhost/b"));
        high.set_presence(&Presence { priority: -1, ..Presence::default() }).unwrap();
        low.set_presence(&Presence { priority: -1, ..Presence::default() }).unwrap();
        bob.send_message("alice@localhost", "3", b"it waits").unwrap();
        high.set_presence(&Presence { priority: 0, ..Presence::default() }).unwrap();
        assert_eq!(next(&mut high).id, "3");
        assert!(bob.send_message("nobody@localhost", "4", b"").is_err());
    });
}

/// RFC 6121 8.5.2.1 and 8.5.3.2, the table's rows for each kind.
#[test]
fn the_kind_of_a_message_decides_who_gets_it_and_what_follows_when_nobody_does() {
    use MessageKind as K;
    const REFUSED: Option<Reason> = Some(Reason::RecipientUnavailable);
    on_one_and_two_cores(|node| {
        let mut trunk = node.trunk();
        trunk.log_in(1, "bob@localhost", "b").unwrap();
        let (mut low, mut high) = (node.user("alice@localhost", "low"), node.user("alice@localhost", "high"));
        low.set_presence(&Presence { priority: 1, ..Presence::default() }).unwrap();
        high.set_presence(&Presence { priority: 5, ..Presence::default() }).unwrap();
        node.user("carol@localhost", "unwilling").set_presence(&Presence { priority: -1, ..Presence::default() }).unwrap();
        for (kind, to, answer, for_low, for_high) in [
            (K::Normal, "alice@localhost", None, false, true),
            (K::Chat, "alice@localhost", None, false, true),
            (K::Headline, "alice@localhost", None, true, true),
            (K::GroupChat, "alice@localhost", REFUSED, false, false),
            (K::Error, "alice@localhost", None, false, false),
            (K::GroupChat, "alice@localhost/low", None, true, false),
            (K::Error, "alice@localhost/low", None, true, false),
            (K::Normal, "alice@localhost/gone", REFUSED, false, false),
            (K::Chat, "alice@localhost/gone", None, false, true),
            (K::GroupChat, "alice@localhost/gone", REFUSED, false, false),
            (K::Headline, "alice@localhost/gone", None, false, false),
            (K::Error, "alice@localhost/gone", None, false, false),
            (K::Chat, "carol@localhost", None, false, false),
            (K::GroupChat, "carol@localhost", REFUSED, false, false),
            (K::Headline, "carol@localhost", None, false, false),
        ] {
            let id = format!("{kind:?} to {to}");
            let message = MessageFields { to, id: &id, kind, extensions: "<x xmlns='urn:x'/>", ..MessageFields::default() };
            let asked = trunk.send(1, |encoder, out, tag| encoder.message(out, tag, &message));
            trunk.flush().unwrap();
            let message = |event| if let Event::Message(message) = event { Some(message) } else { None };
            for (client, _) in [(&mut low, for_low), (&mut high, for_high)].into_iter().filter(|(_, due)| *due) {
                let came = until(client, message);
                assert!((came.id, came.kind) == (id.clone(), kind) && came.extensions.starts_with("<x"), "{id}");
            }
            assert_eq!(refusal(&mut trunk, asked), answer, "{id}");
            for client in [&mut low, &mut high] {
                // The answer to a ping comes behind all that was sent before.
                client.ping().unwrap();
                let others = std::iter::from_fn(|| client.next_event(Duration::ZERO).unwrap()).find_map(message);
                assert!(others.is_none(), "{id}: {others:?}");
            }
        }
    });
}

/// Why a request was refused; `None`: it was not.
fn refusal(trunk: &mut Trunk, asked: Tag) -> Option<Reason> {
    trunk.flush().unwrap();
    loop {
        match trunk.next(LONG).unwrap().expect("an answer") {
            TrunkEvent::Answer(tag, Answer::Refused(refusal)) if tag == asked => return refusal.reason(),
            TrunkEvent::Answer(tag, _) if tag == asked => return None,
            _ => {}
        }
    }
}

#[test]
fn log_in_by_password_works_for_accounts_and_fails_for_all_else_alike() {
    let mut config = config(2);
    config.login.plain = true;
    let mut node = TestNode::start(&config);
    let mut control = node.0.as_mut().unwrap().control();
    let alice = fanal::base::jid::Bare::new("alice@localhost").unwrap();
    let credentials = fanal::base::credentials::ScramCredentials::from_password("secret", &[7; 16], 4096);
    control.add_user(&alice, Some(credentials)).unwrap();
    assert!(control.add_user(&alice, None).is_err(), "twice is refused");
    assert_eq!(control.users(None, 1000, None).unwrap().users.len(), 1);
    node.connect().log_in("alice@localhost", LogIn::Password("secret"), "").unwrap();
    node.connect().log_in("alice@localhost", LogIn::PlainPassword("secret"), "").unwrap();
    for (user, how) in [
        ("alice@localhost", LogIn::Password("wrong")),
        ("alice@localhost", LogIn::PlainPassword("wrong")),
        ("mallory@localhost", LogIn::Password("secret")),
        ("mallory@localhost", LogIn::PlainPassword("secret")),
        ("alice@localhost", LogIn::Token("forged")),
        ("alice@localhost", LogIn::Token(&node.token("bob@localhost"))),
    ] {
        let refused = node.connect().log_in(user, how, "").unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::LogInFailed), "{user}");
    }
    for how in [LogIn::Password("secret"), LogIn::PlainPassword("secret"), LogIn::Token(&node.token("alice@localhost"))] {
        let mut client = node.connect();
        client.authenticate("alice@localhost", how).unwrap();
        assert_eq!(client.roster().unwrap_err().reason(), Some(Reason::OutOfOrder), "there is no session yet");
        let mut client = node.connect();
        client.authenticate("alice@localhost", how).unwrap();
        assert_eq!(client.bind("with\u{7}bell").unwrap_err().reason(), Some(Reason::BadRequest));
        assert_eq!(client.bind("desk").unwrap().jid, "alice@localhost/desk", "a resource that is refused is no end");
        assert_eq!(client.roster().unwrap(), []);
    }
    let mut client = node.connect();
    assert_eq!(client.authenticate("alice@localhost", LogIn::Password("wrong")).unwrap_err().reason(), Some(Reason::LogInFailed));
    client.authenticate("alice@localhost", LogIn::Password("secret")).unwrap();
    client.bind("").unwrap();
    control.remove_user(&alice).unwrap();
    assert_eq!(control.users(None, 1000, None).unwrap().users, []);
}

#[test]
fn j1_a_trunk_on_one_core_carries_sessions_of_users_at_home_on_all() {
    on_one_and_two_cores(|node| {
        let mut trunk = node.trunk();
        let jids: Vec<String> = (0..50).map(|n| format!("user{n}@localhost")).collect();
        let sessions = trunk.log_in_all(1, &jids, "game").unwrap();
        assert_eq!(sessions.len(), 50);
        assert!(trunk.log_in(1, "late@localhost", "game").is_err(), "the stream is taken");
    });
}
