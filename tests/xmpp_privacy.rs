//! Who is not to be heard of and who is not to hear (XEP-0191), in dialogues of XMPP clients with one core, without sockets.
mod xmpp_world;

use xmpp_world::*;

const LIST: &str = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";

fn two_friends() -> (World, Client, Client) {
    let mut world = World::new();
    world.account("alice");
    world.account("bob");
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.friends(("alice", alice), ("bob", bob));
    (world, alice, bob)
}

fn block(verb: &str, names: &[&str]) -> String {
    let items: String = names.iter().map(|name| format!("<item jid='{name}@{DOMAIN}'/>")).collect();
    format!("<iq type='set' id='b'><{verb} xmlns='urn:xmpp:blocking'>{items}</{verb}></iq>")
}

fn pushes(heard: &str, verb: &str, name: &str) -> usize {
    heard.matches(&format!("<{verb} xmlns='urn:xmpp:blocking'><item jid='{name}@{DOMAIN}'/></{verb}></iq>")).count()
}

#[test]
fn xep_0191_3_3_each_session_that_asked_for_the_list_is_told_of_its_changes_and_no_other() {
    let (mut world, desk, _) = two_friends();
    let (tablet, watch) = (world.online("alice", "tablet"), world.online("alice", "watch"));
    world.ask(tablet, LIST);
    let answer = world.ask(desk, block("block", &["bob", "carol"]));
    assert_eq!(answer.matches("<iq ").count(), 1, "it has not asked for the list: {answer}");
    assert!(answer.contains("<iq type='result' id='b' to='alice@example.org/desk'></iq>"), "{answer}");
    let heard = world.heard(tablet);
    assert!(heard.contains("<iq type='set' id='push-1' to='alice@example.org/tablet'><block "), "{heard}");
    assert_eq!((pushes(&heard, "block", "bob"), pushes(&heard, "block", "carol")), (1, 1), "{heard}");
    assert!(!world.heard(watch).contains("urn:xmpp:blocking"), "it has not asked for the list");
    world.say(desk, block("block", &["carol"]));
    assert!(!world.heard(tablet).contains("urn:xmpp:blocking"), "nothing has changed");
    world.ask(watch, LIST);
    let heard = world.ask(watch, block("unblock", &["carol"]));
    assert_eq!((pushes(&heard, "unblock", "carol"), pushes(&world.heard(tablet), "unblock", "carol")), (1, 1), "{heard}");
}

#[test]
fn xep_0191_3_5_everybody_is_unblocked_at_once() {
    let (mut world, alice, bob) = two_friends();
    world.ask(alice, LIST);
    world.say(alice, block("block", &["bob", "carol", "dave"]));
    world.heard(bob);
    let heard = world.ask(alice, block("unblock", &[]));
    assert!(heard.contains("<iq type='result' id='b'"), "{heard}");
    assert!(["bob", "carol", "dave"].iter().all(|name| pushes(&heard, "unblock", name) == 1), "{heard}");
    assert!(world.ask(alice, LIST).contains("<blocklist xmlns='urn:xmpp:blocking'></blocklist>"));
    let here = "<presence to='bob@example.org/phone' from='alice@example.org/desk'></presence>";
    assert_eq!(world.heard(bob), here, "and sees the user again");
    assert!(world.ask(alice, block("unblock", &[])).contains("<iq type='result' id='b'"), "nobody is left");
    assert!(world.ask(alice, block("block", &[])).contains("<bad-request "));
}

#[test]
fn xep_0191_nothing_passes_between_a_user_and_one_who_is_blocked() {
    let (mut world, alice, bob) = two_friends();
    world.say(alice, block("block", &["bob"]));
    let gone = |from: &str, to: &str| format!("<presence to='{to}' from='{from}' type='unavailable'></presence>");
    assert_eq!(world.heard(bob), gone("alice@example.org/desk", "bob@example.org/phone"));
    assert!(world.heard(alice).contains(&gone("bob@example.org/phone", "alice@example.org/desk")));
    for to in ["alice@example.org", "alice@example.org/desk"] {
        for stanza in [
            format!("<message type='chat' id='m' to='{to}'><body>x</body></message>"),
            format!("<iq type='get' id='m' to='{to}/desk'><query xmlns='jabber:iq:version'/></iq>").replace("/desk/", "/"),
        ] {
            let refused = world.ask(bob, &stanza);
            assert!(refused.contains("type='error' id='m'"), "{stanza}: {refused}");
            assert!(refused.contains("<service-unavailable "), "as if nobody were there: {refused}");
        }
        world.say(bob, format!("<presence to='{to}'/><presence type='probe' to='{to}'/>"));
        assert!(!world.heard(bob).contains("from='alice"), "nothing is known of who blocks");
    }
    assert_eq!(world.heard(alice), "");
    for stanza in [
        "<message type='chat' id='m' to='bob@example.org'><body>x</body></message>",
        "<iq type='get' id='m' to='bob@example.org/phone'><query xmlns='jabber:iq:version'/></iq>",
        "<presence id='m' to='bob@example.org'/>",
    ] {
        let refused = world.ask(alice, stanza);
        let why = "<not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>";
        assert!(refused.contains(why) && refused.contains("<blocked xmlns='urn:xmpp:blocking:errors'/>"), "{refused}");
    }
    assert_eq!(world.ask(alice, "<iq type='result' id='m' to='bob@example.org/phone'/>"), "", "an answer is never answered");
    assert_eq!(world.heard(bob), "");
    world.say(alice, block("unblock", &["bob"]));
    let here = |from: &str, to: &str| format!("<presence to='{to}' from='{from}'></presence>");
    assert_eq!(world.heard(bob), here("alice@example.org/desk", "bob@example.org/phone"));
    assert!(world.heard(alice).contains(&here("bob@example.org/phone", "alice@example.org/desk")));
}

#[test]
fn xep_0191_a_stranger_who_was_sent_presence_is_sent_a_farewell_when_blocked() {
    let (mut world, alice, _) = two_friends();
    world.account("carol");
    let carol = world.online("carol", "x");
    world.say(alice, "<presence to='carol@example.org/x'/>");
    world.heard(carol);
    world.say(alice, block("block", &["carol"]));
    let gone = "<presence to='carol@example.org/x' from='alice@example.org/desk' type='unavailable'></presence>";
    assert_eq!(world.heard(carol), gone);
    world.say(alice, "<presence type='unavailable'/>");
    assert_eq!(world.heard(carol), "", "and no second one");
}

#[test]
fn xep_0191_a_resumed_stream_is_told_the_whole_list() {
    let (mut world, alice, _) = two_friends();
    let tablet = world.online("alice", "tablet");
    world.ask(tablet, LIST);
    let enabled = world.ask(tablet, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let id = enabled.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("it may come back").to_owned();
    world.cut(tablet);
    world.say(alice, block("block", &["carol"]));
    let again = world.prove("alice");
    let heard = world.ask(again, format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{id}'/>"));
    assert!(heard.contains("<unblock xmlns='urn:xmpp:blocking'></unblock></iq>"), "what was there before is void: {heard}");
    assert_eq!(pushes(&heard, "block", "carol"), 1, "{heard}");
}
