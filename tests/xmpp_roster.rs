//! Rosters and presence as a client sees them change (RFC 6121 2 to 4). Dialogues of XMPP clients with one core, without sockets.
mod xmpp_world;

use xmpp_world::*;

const GET: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";

#[test]
fn rfc_6121_2_1_6_only_sessions_that_asked_for_the_roster_hear_of_its_changes() {
    let (mut world, desk, _) = two_friends();
    let [tablet, watch] = ["tablet", "watch"].map(|resource| world.online("alice", resource));
    world.ask(desk, GET);
    world.ask(tablet, GET);
    world.heard(watch);
    let set = "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='B'/></query></iq>";
    let item = "<item jid='bob@example.org' name='B' subscription='both'/>";
    for heard in [world.ask(desk, set), world.heard(tablet)] {
        assert_eq!(heard.matches(item).count(), 1, "{heard}");
        assert!(heard.contains("<iq type='set' id='push-") && !heard.contains(" from="), "it is the account's own: {heard}");
    }
    assert_eq!(world.heard(watch), "");
}

#[test]
fn rfc_6121_2_1_2_items_say_what_was_asked_for_and_what_was_approved_in_advance() {
    let mut world = World::new();
    ["alice", "bob"].iter().for_each(|name| world.account(name));
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.ask(alice, GET);
    world.ask(bob, GET);
    let asked = world.ask(alice, "<presence type='subscribe' to='bob@example.org'/>");
    assert!(asked.contains("<item jid='bob@example.org' subscription='none' ask='subscribe'/>"), "{asked}");
    world.say(bob, "<presence type='unsubscribed' to='alice@example.org'/>");
    let refused = world.heard(alice);
    assert!(refused.contains("<item jid='bob@example.org' subscription='none'/>"), "{refused}");
    assert!(refused.contains("<presence type='unsubscribed' from='bob@example.org' to='alice@example.org'>"), "{refused}");
    let approved = world.ask(bob, "<presence type='subscribed' to='alice@example.org'/>");
    assert!(approved.contains("<item jid='alice@example.org' subscription='none' approved='true'/>"), "3.4: {approved}");
    let granted = world.ask(alice, "<presence type='subscribe' to='bob@example.org'/>");
    assert!(granted.contains("<item jid='bob@example.org' subscription='to'/>"), "nobody had to be asked: {granted}");
    assert!(granted.contains("<presence to='alice@example.org/desk' from='bob@example.org/phone'></presence>"), "{granted}");
    let told = world.heard(bob);
    assert!(!told.contains("type='subscribe'") && told.contains("subscription='from'"), "{told}");
}

#[test]
fn rfc_6121_4_2_2_who_comes_sees_each_resource_of_contacts_and_own_ones_and_they_see_it() {
    let (mut world, desk, bob) = two_friends();
    world.say(desk, "<presence><show>dnd</show></presence>");
    let other = world.online("bob", "other");
    world.heard(bob);
    world.heard(other);
    let tablet = world.log_in("alice", "tablet");
    assert_eq!(world.heard(bob), "", "4.2.1: a resource is not available before its first presence");
    let heard = world.ask(tablet, "<presence/>");
    for from in ["alice@example.org/tablet", "alice@example.org/desk", "bob@example.org/phone", "bob@example.org/other"] {
        assert_eq!(heard.matches(&format!("<presence to='alice@example.org/tablet' from='{from}'>")).count(), 1, "{from}: {heard}");
    }
    for (client, jid) in [(desk, "alice@example.org/desk"), (bob, "bob@example.org/phone"), (other, "bob@example.org/other")] {
        let seen = world.heard(client);
        assert!(seen.ends_with(&format!("<presence to='{jid}' from='alice@example.org/tablet'></presence>")), "{seen}");
    }
}

#[test]
fn rfc_6121_4_3_2_who_is_away_is_shown_as_last_seen_and_since_when() {
    let (mut world, alice, bob) = two_friends();
    world.say(bob, "<presence type='unavailable'><status>home</status></presence>");
    let last = "from='bob@example.org/phone' type='unavailable'><status>home</status><delay xmlns='urn:xmpp:delay' stamp='2023-";
    let tablet = world.log_in("alice", "tablet");
    assert_eq!(world.ask(tablet, "<presence/>").matches(last).count(), 1, "on coming");
    assert_eq!(world.ask(alice, "<presence type='probe' to='bob@example.org'/>").matches(last).count(), 1, "on asking");
}

#[test]
fn xep_0030_8_an_account_is_described_to_those_who_see_its_user_and_to_nobody_else() {
    let (mut world, alice, bob) = two_friends();
    world.account("carol");
    let carol = world.online("carol", "x");
    let ask = |name: &str, node: &str| {
        format!("<iq type='get' id='d' to='{name}@example.org'><query xmlns='http://jabber.org/protocol/disco#info'{node}/></iq>")
    };
    for (client, name) in [(alice, "bob"), (alice, "alice"), (bob, "alice")] {
        let heard = world.ask(client, ask(name, ""));
        assert!(heard.starts_with(&format!("<iq type='result' id='d' from='{name}@example.org'")), "{heard}");
        assert!(heard.contains("<identity category='pubsub' type='pep'/>"), "{heard}");
        assert!(world.ask(client, ask(name, " node='n'")).contains("<item-not-found "), "of the whole account only");
    }
    let strange = world.ask(carol, ask("alice", ""));
    assert!(strange.contains("<service-unavailable "), "{strange}");
    assert_eq!(world.ask(carol, ask("nobody", "")).replace("nobody", "alice"), strange, "there is no telling");
    assert_eq!(world.ask(carol, ask("alice", " node='n'")), strange);
    world.say(alice, "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='bob@example.org'/></block></iq>");
    world.heard(bob);
    assert!(world.ask(bob, ask("alice", "")).contains("<service-unavailable "), "XEP-0191: as if nobody were there");
}
