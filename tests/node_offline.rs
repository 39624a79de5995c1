//! One node over real sockets: messages that wait for their recipient (XEP-0160), and questions between sessions (RFC 6120 8.2.3).
mod support;

use fanal::base::config::StoreKind;
use fanal::base::reason::Reason;
use fanal::client::{Client, Event, LogIn, Message, Presence};
use fanal::wire::encode::MessageFields;
use fanal::wire::native::MessageKind as K;
use std::thread;
use std::time::Duration;
use support::served::Served;
use support::*;

/// A user who has an account and is not there.
fn away(node: &TestNode, jid: &str) {
    node.user(jid, "before").log_out("").unwrap();
}

fn message(client: &mut Client) -> Message {
    until(client, |event| match event {
        Event::Message(message) => Some(message),
        _ => None,
    })
}

/// The messages that the node had for a client when it was asked.
fn messages(client: &mut Client) -> Vec<Message> {
    client.ping().unwrap();
    let events = std::iter::from_fn(|| client.next_event(Duration::ZERO).unwrap());
    let message = |event| if let Event::Message(message) = event { Some(message) } else { None };
    events.filter_map(message).collect()
}

fn refused(client: &mut Client, message: MessageFields<'_>) -> Option<Reason> {
    client.send(&message).err().map(|error| error.reason().expect("the node says why"))
}

#[test]
fn xep_0160_messages_wait_for_the_first_presence_that_takes_messages() {
    on_one_and_two_cores(|node| {
        let mut alice = node.user("alice@localhost", "a");
        available(&mut alice);
        for name in ["bob@localhost", "carol@localhost"] {
            away(node, name);
            let gone = format!("{name}/before");
            for (to, id, kind) in [(name, "1", K::Normal), (&gone, "2", K::Chat), (name, "3", K::Chat)] {
                let fields = MessageFields { to, id, kind, body: b"hello", extensions: "<x xmlns='urn:x'/>", ..Default::default() };
                assert_eq!(refused(&mut alice, fields), None);
            }
            let mut other = node.user(name, "b");
            other.set_presence(&Presence { priority: -1, ..Presence::default() }).unwrap();
            assert_eq!(messages(&mut other), []);
            other.set_presence(&Presence { priority: 3, ..Presence::default() }).unwrap();
            let got: Vec<Message> = (0..3).map(|_| message(&mut other)).collect();
            assert_eq!(got.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
            assert!(got.iter().all(|m| m.stamp > 1_600_000_000_000 && m.from == "alice@localhost/a" && m.body == b"hello"));
            assert_eq!((got[0].kind, got[1].kind, got[1].extensions.as_str()), (K::Normal, K::Chat, "<x xmlns='urn:x'/>"));
            alice.send_message(name, "4", b"now").unwrap();
            assert_eq!(message(&mut other).stamp, 0, "it did not have to wait");
            let mut second = node.user(name, "c");
            available(&mut second);
            assert_eq!(messages(&mut second), [], "each comes once");
        }
    });
}

#[test]
fn only_what_is_worth_keeping_is_kept() {
    on_one_and_two_cores(|node| {
        let mut alice = node.user("alice@localhost", "a");
        away(node, "bob@localhost");
        let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        for (kind, body, extensions, answer) in [
            (K::Headline, &b"news"[..], "", None),
            (K::Error, b"", "", None),
            (K::GroupChat, b"all", "", Some(Reason::RecipientUnavailable)),
            (K::Chat, b"", composing, None),
            (K::Chat, b"secret", "<no-store xmlns='urn:xmpp:hints'/>", None),
            (K::Get, b"", "<query xmlns='jabber:iq:version'/>", Some(Reason::RecipientUnavailable)),
            (K::Result, b"", "", None),
        ] {
            let fields = MessageFields { to: "bob@localhost", id: "1", kind, body, extensions, ..Default::default() };
            assert_eq!(refused(&mut alice, fields), answer, "{kind:?}");
        }
        assert_eq!(alice.send_message("nobody@localhost", "1", b"").unwrap_err().reason(), Some(Reason::NoSuchUser));
        let mut bob = node.user("bob@localhost", "b");
        available(&mut bob);
        assert_eq!(messages(&mut bob), []);
    });
}

#[test]
fn so_many_wait_and_no_more_and_then_there_is_room_again() {
    let mut config = config(2);
    (config.limits.offline_messages_per_user, config.limits.offline_bytes_per_user) = (3, 20_000);
    let node = TestNode::start(&config);
    let (mut alice, mut carol) = (node.user("alice@localhost", "a"), node.user("carol@localhost", "c"));
    away(&node, "bob@localhost");
    for _ in 0..2 {
        assert_eq!(alice.send_message("bob@localhost", "long", &[7; 30_000]).unwrap_err().reason(), Some(Reason::TooManyMessages));
        (0..3).for_each(|_| alice.send_message("bob@localhost", "short", b"").unwrap());
        for client in [&mut alice, &mut carol] {
            let refused = client.send_message("bob@localhost", "one more", b"").unwrap_err();
            assert_eq!(refused.reason(), Some(Reason::TooManyMessages));
        }
        let mut bob = node.user("bob@localhost", "b");
        available(&mut bob);
        (0..3).for_each(|_| assert_eq!(message(&mut bob).id, "short"));
        bob.ping().unwrap();
        bob.log_out("").unwrap();
    }
}

#[test]
fn what_waits_survives_a_restart_and_what_was_taken_does_not_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(2);
    config.store.kind = StoreKind::Redb;
    config.node.data = dir.path().join("data");
    let node = TestNode::start(&config);
    away(&node, "bob@localhost");
    let mut alice = node.user("alice@localhost", "a");
    (1..=3).for_each(|n| alice.send_message("bob@localhost", &n.to_string(), b"kept").unwrap());
    drop(alice);
    node.stop();
    let node = TestNode::start(&config);
    let mut bob = node.user("bob@localhost", "b");
    available(&mut bob);
    (1..=3).for_each(|n| assert_eq!(message(&mut bob).id, n.to_string()));
    bob.ping().unwrap();
    drop(bob);
    node.stop();
    let node = TestNode::start(&config);
    let mut bob = node.user("bob@localhost", "b");
    available(&mut bob);
    assert_eq!(messages(&mut bob), []);
}

#[test]
fn messages_that_were_confirmed_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let client = |node: &Served, jid: &str| {
        let mut client = Client::connect(&node.native.to_string(), LONG).unwrap();
        client.log_in(jid, LogIn::Token(&node.token(jid)), "here").unwrap();
        client
    };
    let node = Served::start(&data, 2);
    client(&node, "bob@localhost").log_out("").unwrap();
    let mut alice = client(&node, "alice@localhost");
    (0..50).for_each(|n| alice.send_message("bob@localhost", &n.to_string(), b"").unwrap());
    node.kill();
    let node = Served::start(&data, 1);
    let mut bob = client(&node, "bob@localhost");
    available(&mut bob);
    (0..50).for_each(|n| assert_eq!(message(&mut bob).id, n.to_string()));
    drop((alice, bob));
    node.stop();
}

#[test]
fn a_question_goes_to_the_session_it_names_and_the_answer_comes_back() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        subscribe(&mut alice, &mut bob);
        let ask =
            |to, kind| MessageFields { to, id: "q1", kind, extensions: "<ping xmlns='urn:xmpp:ping'/>", ..Default::default() };
        for (question, answer) in [(K::Get, K::Result), (K::Set, K::Failure)] {
            // It is confirmed once Bob's session has acknowledged it.
            let asked = thread::scope(|scope| {
                let sent = scope.spawn(|| alice.send(&ask("bob@localhost/b", question)));
                let asked = message(&mut bob);
                sent.join().expect("it does not panic").unwrap();
                asked
            });
            assert_eq!((asked.kind, asked.id.as_str(), asked.from.as_str()), (question, "q1", "alice@localhost/a"));
            bob.send(&ask("alice@localhost/a", answer)).unwrap();
            let answered = message(&mut alice);
            assert_eq!((answered.kind, answered.extensions.as_str()), (answer, "<ping xmlns='urn:xmpp:ping'/>"));
        }
        available(&mut bob);
        for to in ["bob@localhost", "bob@localhost/gone"] {
            assert_eq!(refused(&mut alice, ask(to, K::Get)), Some(Reason::RecipientUnavailable), "{to}");
            assert_eq!(refused(&mut alice, ask(to, K::Set)), Some(Reason::RecipientUnavailable), "{to}");
            assert_eq!(refused(&mut alice, ask(to, K::Result)), None, "{to}");
        }
        assert_eq!(messages(&mut bob), []);
    });
}
