//! Stream management (XEP-0198) of XMPP clients, without sockets: a connection breaks, and nothing that matters is lost.
mod xmpp_world;

use fanal::front::xmpp::{Rules, StartTls};
use std::time::Duration;
use xmpp_world::*;

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// Alice, and Bob whose stream is managed under this id.
fn managed() -> (World, Client, Client, String) {
    let mut world = World::new();
    world.account("alice");
    world.account("bob");
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.friends(("alice", alice), ("bob", bob));
    let enabled = world.ask(bob, ENABLE);
    assert!(
        enabled.starts_with("<enabled xmlns='urn:xmpp:sm:3' id='") && enabled.ends_with("' resume='true' max='30'/>"),
        "{enabled}"
    );
    let id = enabled.split('\'').nth(3).unwrap().to_owned();
    (world, alice, bob, id)
}

fn message(world: &mut World, alice: Client, n: usize) {
    assert_eq!(world.ask(alice, format!("<message to='bob@example.org' type='chat' id='m{n}'><body>{n}</body></message>")), "");
}

fn resume(world: &mut World, id: &str, h: u32) -> (Client, String) {
    let again = world.prove("bob");
    let heard = world.ask(again, format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"));
    (again, heard)
}

#[test]
fn the_server_counts_and_asks_for_what_must_not_be_lost() {
    let (mut world, alice, bob, _) = managed();
    world.say(alice, "<presence><status>1</status></presence>");
    assert!(!world.heard(bob).contains("<r "), "presence needs no acknowledgement");
    message(&mut world, alice, 1);
    assert!(world.heard(bob).ends_with("</message><r xmlns='urn:xmpp:sm:3'/>"));
    message(&mut world, alice, 2);
    assert!(world.heard(bob).ends_with("</message>"), "it was asked already");
    world.say(bob, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(world.ask(bob, "<r xmlns='urn:xmpp:sm:3'/>"), "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    world.say(bob, "<presence/><message to='alice@example.org'><body>x</body></message>");
    assert!(world.ask(bob, "<r xmlns='urn:xmpp:sm:3'/>").ends_with("<a xmlns='urn:xmpp:sm:3' h='2'/>"));
    for n in 0..600 {
        message(&mut world, alice, n);
        world.say(bob, format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", 5 + n));
        assert!(!world.is_closed(bob), "{n}");
    }
}

#[test]
fn a_resumed_stream_gets_what_it_missed_and_of_presence_the_newest() {
    let (mut world, alice, bob, id) = managed();
    message(&mut world, alice, 1);
    message(&mut world, alice, 2);
    world.say(bob, "<iq type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq>");
    world.cut(bob);
    message(&mut world, alice, 3);
    for n in 0..5 {
        world.say(alice, format!("<presence><status>{n}</status></presence>"));
    }
    let (again, heard) = resume(&mut world, &id, 1);
    assert!(heard.starts_with(&format!("<resumed xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>")), "{heard}");
    for (what, times) in
        [("id='m1'", 0), ("id='m2'", 1), ("id='m3'", 1), ("<iq type='result' id='q'", 1), ("<status>", 1), ("<status>4<", 1)]
    {
        assert_eq!(heard.matches(what).count(), times, "{what}: {heard}");
    }
    world.heard(alice);
    assert!(world.ask(again, "<message to='alice@example.org' id='x'><body>x</body></message>").is_empty());
    assert!(world.heard(alice).contains("from='bob@example.org/phone'"));
    let stanzas = heard.matches("<message ").count() + heard.matches("<presence ").count() + heard.matches("<iq ").count();
    world.say(again, format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", stanzas + 1));
    assert!(!world.is_closed(again));
    world.cut(again);
    let (_, heard) = resume(&mut world, &id, stanzas as u32 + 1);
    assert!(heard.starts_with("<resumed ") && !heard.contains("<message "), "{heard}");
}

#[test]
fn a_stream_is_resumed_while_its_old_connection_seems_to_live() {
    let (mut world, alice, bob, id) = managed();
    message(&mut world, alice, 1);
    let (again, heard) = resume(&mut world, &id, 0);
    assert!(heard.starts_with("<resumed ") && heard.contains("id='m1'"), "{heard}");
    world.say(bob, "<presence><status>from the past</status></presence>");
    message(&mut world, alice, 2);
    assert!(world.heard(again).contains("id='m2'"));
    assert!(!world.heard(bob).contains("id='m2'") && !world.heard(alice).contains("past"));
}

#[test]
fn what_cannot_be_resumed_is_refused_and_a_new_session_bound() {
    let (mut world, _, bob, id) = managed();
    for (previd, h) in [("", "0"), ("nonsense", "0"), ("0000000000000001", "0"), (&id, "x"), (&id, "-1")] {
        let again = world.prove("bob");
        let heard = world.ask(again, format!("<resume xmlns='urn:xmpp:sm:3' previd='{previd}' h='{h}'/>"));
        assert!(heard.starts_with("<failed xmlns='urn:xmpp:sm:3'><item-not-found "), "{heard}");
        let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
        assert!(world.ask(again, bind).contains("<jid>bob@example.org/"));
    }
    let stranger = world.prove("alice");
    let heard = world.ask(stranger, format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    assert!(heard.starts_with("<failed "), "nobody resumes another user's stream");
    world.say(bob, "</stream:stream>");
    assert!(resume(&mut world, &id, 0).1.starts_with("<failed "), "a stream that was closed is over");
}

#[test]
fn acknowledging_what_was_never_sent_ends_the_stream() {
    let (mut world, _, bob, id) = managed();
    let heard = world.ask(bob, "<a xmlns='urn:xmpp:sm:3' h='7'/>");
    assert!(heard.contains("<stream:error><undefined-condition ") && world.is_closed(bob), "{heard}");
    assert!(heard.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='7' send-count='0'/></stream:error>"), "{heard}");
    let (again, heard) = resume(&mut world, &id, 0);
    assert!(heard.starts_with("<failed ") && !world.is_closed(again), "{heard}");
}

#[test]
fn what_is_never_acknowledged_ends_the_stream_at_its_limit() {
    let (mut world, alice, bob, _) = managed();
    for n in 0..2000 {
        world.say(bob, format!("<iq type='get' id='{n}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"));
    }
    assert!(world.is_closed(bob) && world.heard(bob).contains("<policy-violation "));
    assert!(world.ask(alice, "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>").contains("type='result'"));
}

#[test]
fn whoever_cannot_come_back_is_gone_when_the_connection_breaks() {
    for (enable, stays) in [("", false), ("<enable xmlns='urn:xmpp:sm:3'/>", false), (ENABLE, true)] {
        let mut world = World::new();
        world.account("alice");
        world.account("bob");
        let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
        world.friends(("alice", alice), ("bob", bob));
        world.say(bob, enable);
        world.heard(alice);
        world.cut(bob);
        let gone = world.heard(alice).contains("from='bob@example.org/phone' type='unavailable'");
        assert_eq!(gone, !stays, "{enable}");
    }
}

#[test]
fn xep_0198_a_client_comes_back_in_the_time_it_wanted_and_never_later_than_the_node_lets_it() {
    for (max, told) in [(" max='10'", 10), (" max='600'", 30), (" max='4294967295'", 30), (" max='soon'", 30), ("", 30)] {
        let enable = format!("<enable xmlns='urn:xmpp:sm:3' resume='true'{max}/>");
        let (mut world, alice, bob) = two_friends();
        let enabled = world.ask(bob, &enable);
        assert!(enabled.ends_with(&format!(" resume='true' max='{told}'/>")), "{enabled}");
        let id = enabled.split('\'').nth(3).unwrap();
        let mut connection = bob;
        for round in 0..2 {
            world.cut(connection);
            // What is said takes time, too.
            world.wait(Duration::from_millis(told * 1000 - 100));
            world.say(alice, "<r xmlns='urn:xmpp:sm:3'/>");
            let heard = world.heard(alice);
            assert!(!heard.contains("type='unavailable'"), "max={told}: he may still come, but in round {round}: {heard}");
            if round == 0 {
                let (again, heard) = resume(&mut world, id, 0);
                assert!(heard.starts_with("<resumed "), "{heard}");
                connection = again;
            }
        }
        world.wait(Duration::from_millis(100));
        assert!(world.heard(alice).contains("type='unavailable'"), "max={told}");
        assert!(resume(&mut world, id, 0).1.starts_with("<failed "));
    }
}

#[test]
fn xep_0198_a_client_is_told_where_this_very_node_is() {
    let location = Some("[2001:db8::1]:5222".into());
    let (domain, stanza_bytes, start_tls) = (DOMAIN.into(), 40_000, StartTls::No);
    let mut world = World::by(Rules { domain, stanza_bytes, start_tls, registration: false, location });
    world.account("bob");
    let bob = world.log_in("bob", "phone");
    let enabled = world.ask(bob, ENABLE);
    assert!(enabled.ends_with(" resume='true' max='30' location='[2001:db8::1]:5222'/>"), "{enabled}");
    let other = world.log_in("bob", "desk");
    assert_eq!(world.ask(other, "<enable xmlns='urn:xmpp:sm:3'/>"), "<enabled xmlns='urn:xmpp:sm:3'/>", "who can't come back");
}
