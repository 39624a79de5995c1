//! One node over real sockets: sessions at which nobody looks (XEP-0352), and copies of messages (XEP-0280).
mod support;

use fanal::base::reason::Reason;
use fanal::client::{Answer, Client, Event, Message, Presence, TrunkEvent};
use fanal::wire::encode::MessageFields;
use fanal::wire::native::{self, MessageKind, Show};
use std::time::Duration;
use support::*;

fn status(client: &mut Client, status: &str) {
    client.set_presence(&Presence { status: status.into(), ..Presence::default() }).unwrap();
}

/// The statuses of what has come when the node has answered a ping; of one who has gone, none.
fn seen(client: &mut Client) -> Vec<String> {
    client.ping().unwrap();
    let events = std::iter::from_fn(|| client.next_event(Duration::ZERO).unwrap());
    let presence = |event| match event {
        Event::Presence(presence) if presence.last => None,
        Event::Presence(presence) if presence.show == Show::Unavailable => Some(String::new()),
        Event::Presence(presence) => Some(presence.presence?.status),
        Event::Directed(directed) => Some(directed.presence.status),
        _ => None,
    };
    events.filter_map(presence).collect()
}

fn copies(client: &mut Client) -> Vec<(native::Copy, Message)> {
    client.ping().unwrap();
    let events = std::iter::from_fn(|| client.next_event(Duration::ZERO).unwrap());
    let message = |event| if let Event::Message(message) = event { Some((message.copy, message)) } else { None };
    events.filter_map(message).collect()
}

#[test]
fn xep_0352_an_inactive_session_gets_messages_and_then_the_newest_of_each_sender() {
    on_one_and_two_cores(|node| {
        let mut bob = node.user("bob@localhost", "b");
        let mut others: Vec<Client> = (0..4).map(|n| node.user(&format!("user{n}@localhost"), "u")).collect();
        available(&mut bob);
        for other in &mut others {
            subscribe(&mut bob, other);
            status(other, "first");
            presence(&mut bob);
        }
        let mut gone = others.pop().unwrap();
        bob.set_active(false).unwrap();
        (0..5).for_each(|n| others.iter_mut().for_each(|other| status(other, &format!("{n}"))));
        others[0].set_directed_presence("bob@localhost", &Presence { status: "for you".into(), ..Presence::default() }).unwrap();
        let mut desk = node.user("bob@localhost", "desk");
        status(&mut desk, "own");
        gone.ping().unwrap();
        gone.log_out("").unwrap();
        for n in 0..100 {
            let mut brief = node.user("user1@localhost", &format!("r{n}"));
            available(&mut brief);
            brief.log_out("").unwrap();
        }
        others[1].send_message("bob@localhost/b", "1", b"hello").unwrap();
        let message = until(&mut bob, |event| match event {
            Event::Message(message) => Some(message),
            Event::Presence(presence) => panic!("it was kept back: {presence:?}"),
            _ => None,
        });
        assert_eq!(message.body, b"hello");
        assert_eq!(seen(&mut bob), [""; 0]);
        bob.set_active(true).unwrap();
        let mut came = seen(&mut bob);
        came.sort();
        assert_eq!(came, ["", "4", "4", "4", "for you", "own"]);
        status(&mut others[2], "live again");
        assert_eq!(presence(&mut bob).presence.unwrap().status, "live again");
    });
}

/// A phone that nobody looks at, while another session of its user has gone; and one that has just come.
fn phone_that_has_missed_an_end(node: &TestNode) -> (Client, Client) {
    let (mut phone, mut desk) = (node.user("bob@localhost", "phone"), node.user("bob@localhost", "desk"));
    available(&mut phone);
    status(&mut desk, "here");
    assert_eq!(seen(&mut phone), ["here"]);
    phone.set_active(false).unwrap();
    desk.log_out("").unwrap();
    (phone, node.user("bob@localhost", "tablet"))
}

#[test]
fn an_own_session_that_went_meanwhile_is_seen_to_have_gone() {
    on_one_and_two_cores(|node| {
        let (mut phone, mut tablet) = phone_that_has_missed_an_end(node);
        status(&mut tablet, "brief");
        tablet.log_out("").unwrap();
        assert_eq!(seen(&mut phone), [""; 0]);
        phone.set_active(true).unwrap();
        assert_eq!(seen(&mut phone), [""], "one has gone, and of the other it never heard");
    });
}

#[test]
fn who_asks_while_nobody_looks_has_heard_of_all_who_are_there_and_of_those_who_went() {
    on_one_and_two_cores(|node| {
        let (mut phone, mut tablet) = phone_that_has_missed_an_end(node);
        status(&mut tablet, "asked about");
        phone.probe("bob@localhost").unwrap();
        assert_eq!(seen(&mut phone), ["asked about", ""]);
        tablet.log_out("").unwrap();
        phone.set_active(true).unwrap();
        assert_eq!(seen(&mut phone), [""], "the other is known to have gone");
    });
}

#[test]
fn a_session_is_active_again_on_a_new_connection_and_a_trunks_are_always() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        available(&mut bob);
        subscribe(&mut bob, &mut alice);
        bob.set_active(false).unwrap();
        status(&mut alice, "kept back");
        bob.break_connection();
        bob.resume().unwrap();
        assert_eq!(presence(&mut bob).presence.unwrap().status, "kept back");
        let mut trunk = node.trunk();
        trunk.log_in(1, "carol@localhost", "c").unwrap();
        let asked = trunk.send(1, |encoder, out, tag| encoder.activity(out, tag, false));
        trunk.flush().unwrap();
        let refused = std::iter::from_fn(|| trunk.next(LONG).unwrap()).find_map(|event| match event {
            TrunkEvent::Answer(tag, Answer::Refused(refusal)) if tag == asked => refusal.reason(),
            _ => None,
        });
        assert_eq!(refused, Some(Reason::BadRequest));
    });
}

#[test]
fn xep_0280_sessions_that_want_copies_get_what_the_others_send_and_receive() {
    use native::Copy;
    on_one_and_two_cores(|node| {
        let mut alice = node.user("alice@localhost", "a");
        let mut bob: Vec<Client> = ["desk", "phone", "quiet"].map(|name| node.user("bob@localhost", name)).into();
        available(&mut alice);
        bob.iter_mut().for_each(available);
        bob[1].set_carbons(true).unwrap();
        bob[1].set_presence(&Presence { priority: -1, ..Presence::default() }).unwrap();
        let fields =
            |to, id, extensions| MessageFields { to, id, kind: MessageKind::Chat, body: b"hi", extensions, ..Default::default() };
        alice.send(&fields("bob@localhost/desk", "1", "")).unwrap();
        let got = copies(&mut bob[1]);
        assert_eq!(got.iter().map(|(copy, m)| (*copy, m.id.as_str())).collect::<Vec<_>>(), [(Copy::Received, "1")]);
        assert_eq!((got[0].1.from.as_str(), got[0].1.to.as_str()), ("alice@localhost/a", "bob@localhost/desk"));
        assert_eq!(copies(&mut bob[0])[0].0, Copy::None);
        bob[0].send(&fields("alice@localhost", "2", "")).unwrap();
        let got = copies(&mut bob[1]);
        assert_eq!(got.iter().map(|(copy, m)| (*copy, m.id.as_str())).collect::<Vec<_>>(), [(Copy::Sent, "2")]);
        assert_eq!((got[0].1.from.as_str(), got[0].1.to.as_str()), ("bob@localhost/desk", "alice@localhost"));
        bob[0].send(&fields("alice@localhost", "3", "<private xmlns='urn:xmpp:carbons:2'/>")).unwrap();
        alice.send(&MessageFields { kind: MessageKind::Headline, ..fields("bob@localhost", "4", "") }).unwrap();
        bob[0].send(&fields("bob@localhost/quiet", "5", "")).unwrap();
        let got: Vec<String> = copies(&mut bob[1]).into_iter().map(|(_, message)| message.id).collect();
        assert_eq!(got, ["5"], "once, though both ends are its own user's");
        assert!(copies(&mut bob[0]).iter().all(|(copy, _)| *copy == Copy::None));
        bob[1].set_carbons(false).unwrap();
        alice.send(&fields("bob@localhost/desk", "6", "")).unwrap();
        assert_eq!(copies(&mut bob[1]), []);
        assert_eq!(
            copies(&mut bob[2]).iter().map(|(copy, m)| (*copy, m.id.as_str())).collect::<Vec<_>>(),
            [(Copy::None, "4"), (Copy::None, "5")]
        );
    });
}
