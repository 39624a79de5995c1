//! Who is not to be heard of and who is not to hear (XEP-0191), in dialogues of XMPP clients with one core, without sockets.
mod xmpp_world;

use xmpp_world::*;

const LIST: &str = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";

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

#[test]
fn rfc_6121_4_5_every_farewell_leaves_from_the_full_jid() {
    let (mut world, desk, bob) = two_friends();
    let gone = |from: &str, to: &str| format!("<presence to='{to}' from='{from}' type='unavailable'></presence>");
    // A resource of which the subscriber's core has written nothing: nobody was looking when it came.
    world.say(bob, "<inactive xmlns='urn:xmpp:csi:0'/>");
    let tablet = world.online("alice", "tablet");
    world.say(tablet, "<presence><status>x</status></presence>");
    world.say(bob, "<active xmlns='urn:xmpp:csi:0'/>");
    world.heard(bob);
    world.cut(tablet);
    assert_eq!(world.heard(bob), gone("alice@example.org/tablet", "bob@example.org/phone"));
    world.say(desk, "</stream:stream>");
    assert_eq!(world.heard(bob), gone("alice@example.org/desk", "bob@example.org/phone"));
}

#[test]
fn rfc_6121_4_5_whoever_goes_while_nobody_looks_goes_with_their_resource() {
    let (mut world, desk, bob) = two_friends();
    let other = world.online("bob", "other");
    world.heard(bob);
    world.say(bob, "<inactive xmlns='urn:xmpp:csi:0'/>");
    world.cut(desk);
    world.cut(other);
    world.say(bob, "<active xmlns='urn:xmpp:csi:0'/>");
    let heard = world.heard(bob);
    for from in ["alice@example.org/desk", "bob@example.org/other"] {
        assert!(heard.contains(&format!("from='{from}' type='unavailable'")), "{heard}");
    }
    assert!(!heard.contains("from='alice@example.org'") && !heard.contains("from='bob@example.org'"), "{heard}");
}

#[test]
fn rfc_6121_3_2_who_may_not_see_a_contact_any_more_is_told_of_each_resource() {
    let (mut world, alice, bob) = two_friends();
    world.online("alice", "tablet");
    world.heard(bob);
    world.say(alice, "<presence type='unsubscribed' to='bob@example.org'/>");
    let heard = world.heard(bob);
    for resource in ["desk", "tablet"] {
        assert!(heard.contains(&format!("from='alice@example.org/{resource}' type='unavailable'")), "{heard}");
    }
    assert_eq!(heard.matches("type='unavailable'").count(), 2, "{heard}");
}

#[test]
fn rfc_6121_4_6_3_directed_presence_is_taken_back_by_the_full_jid() {
    let (mut world, alice, _) = two_friends();
    world.account("carol");
    let carol = world.online("carol", "x");
    world.say(alice, "<presence to='carol@example.org'/><presence to='carol@example.org' type='unavailable'/>");
    let gone = "<presence to='carol@example.org/x' from='alice@example.org/desk' type='unavailable'></presence>";
    assert!(world.heard(carol).ends_with(gone));
    world.say(alice, "<presence type='unavailable'/>");
    assert_eq!(world.heard(carol), "", "it was taken back");
    world.say(alice, "<presence/><presence to='carol@example.org'/>");
    world.heard(carol);
    world.say(alice, "</stream:stream>");
    assert_eq!(world.heard(carol), gone);
}

#[test]
fn rfc_6120_13_10_2_a_strangers_question_is_answered_as_if_nobody_were_there() {
    let (mut world, alice, bob) = two_friends();
    world.account("carol");
    let carol = world.online("carol", "x");
    let ask = |to: &str| format!("<iq type='get' id='q' to='{to}'><query xmlns='jabber:iq:version'/></iq>");
    let refused = world.ask(carol, ask("alice@example.org/desk"));
    assert_eq!(refused, world.ask(carol, ask("alice@example.org/none")).replace("/none", "/desk"), "there is no telling");
    assert!(refused.contains("<service-unavailable "), "{refused}");
    assert_eq!(world.heard(alice), "");
    world.say(alice, "<presence to='carol@example.org/x'/>");
    assert_eq!(world.ask(carol, ask("alice@example.org/desk")).matches("type='error'").count(), 0, "it was sent presence");
    assert!(world.heard(alice).contains("id='q' from='carol@example.org/x'"));
    world.say(alice, "<iq type='result' id='q' to='carol@example.org/x'><query xmlns='jabber:iq:version'/></iq>");
    assert!(world.heard(carol).contains("<iq type='result' id='q' from='alice@example.org/desk'"));
    world.say(alice, "<presence to='carol@example.org/x' type='unavailable'/>");
    world.heard(carol);
    assert!(world.ask(carol, ask("alice@example.org/desk")).contains("<service-unavailable "), "it was taken back");
    world.say(alice, "<presence type='unsubscribed' to='bob@example.org'/>");
    world.heard(bob);
    assert!(world.ask(bob, ask("alice@example.org/desk")).contains("<service-unavailable "), "no subscriber any more");
    world.heard(alice);
    world.say(alice, ask("bob@example.org/phone"));
    assert!(world.heard(bob).contains("id='q' from='alice@example.org/desk'"), "a subscriber still");
    let tablet = world.online("alice", "tablet");
    world.say(tablet, ask("alice@example.org/desk"));
    assert!(world.heard(alice).contains("id='q' from='alice@example.org/tablet'"), "one's own");
}
