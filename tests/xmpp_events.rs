//! Personal eventing (XEP-0163) and what it rests on (XEP-0060, XEP-0115).
//! Dialogues of XMPP clients with one core, without sockets.
mod xmpp_world;

use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::{Digest, Sha1};
use xmpp_world::*;

const NODE: &str = "urn:xmpp:mood";
const TO_ALICE: &str = " to='alice@example.org'";

/// A client's description with these features, and its hash.
fn description(features: &[&str]) -> (String, String) {
    let mut sorted = features.to_vec();
    sorted.sort_unstable();
    let text: String = ["client/pc//x"].iter().chain(&sorted).flat_map(|part| [*part, "<"]).collect();
    let features: String = features.iter().map(|feature| format!("<feature var='{feature}'/>")).collect();
    let identity = "<identity category='client' type='pc' name='x'/>";
    (
        format!("<query xmlns='http://jabber.org/protocol/disco#info'>{identity}{features}</query>"),
        BASE64_STANDARD.encode(Sha1::digest(text)),
    )
}

fn with_caps(version: &str) -> String {
    format!("<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:client' ver='{version}'/></presence>")
}

/// The id of the server's question about capabilities, if there is one.
fn question(heard: &str) -> Option<&str> {
    let (_, rest) = heard.split_once("id='caps-")?;
    rest.split('\'').next()
}

/// A client says what it can do; gives what it hears then.
fn announces(world: &mut World, client: Client, features: &[&str]) -> String {
    let (query, version) = description(features);
    let mut heard = world.ask(client, with_caps(&version));
    if let Some(number) = question(&heard).map(str::to_owned) {
        assert!(heard.contains(&format!("node='urn:client#{version}'")), "{heard}");
        heard += &world.ask(client, format!("<iq type='result' id='caps-{number}' to='{DOMAIN}'>{query}</iq>"));
    }
    heard
}

fn hears_mood(world: &mut World, client: Client) -> String {
    announces(world, client, &["http://jabber.org/protocol/disco#info", "urn:xmpp:mood+notify"])
}

fn pubsub(inner: &str) -> String {
    format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{inner}</pubsub>")
}

fn owner(inner: &str) -> String {
    format!("<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>{inner}</pubsub>")
}

fn iq(kind: &str, to: &str, payload: &str) -> String {
    format!("<iq type='{kind}' id='q'{to}>{payload}</iq>")
}

fn publish(id: &str, mood: &str, options: &[(&str, &str)]) -> String {
    let fields: String =
        options.iter().map(|(name, value)| format!("<field var='pubsub#{name}'><value>{value}</value></field>")).collect();
    let options = match options {
        [] => String::new(),
        _ => format!("<publish-options><x xmlns='jabber:x:data' type='submit'>{fields}</x></publish-options>"),
    };
    let item = format!("<item id='{id}'><mood xmlns='urn:m'>{mood}</mood></item>");
    iq("set", "", &pubsub(&format!("<publish node='{NODE}'>{item}</publish>{options}")))
}

fn event(to: &str, id: &str, mood: &str) -> String {
    format!(
        "<message type='headline' from='alice@example.org' to='{to}'><event xmlns='http://jabber.org/protocol/pubsub#event'>\
         <items node='{NODE}'><item id='{id}'><mood xmlns='urn:m'>{mood}</mood></item></items></event></message>"
    )
}

fn items() -> String {
    iq("get", TO_ALICE, &pubsub(&format!("<items node='{NODE}'/>")))
}

struct Cast {
    world: World,
    alice: Client,
    bob: Client,
    carol: Client,
}

/// Alice and bob are friends, carol is a stranger.
fn cast() -> Cast {
    let mut world = World::new();
    ["alice", "bob", "carol"].iter().for_each(|name| world.account(name));
    let (alice, bob, carol) = (world.online("alice", "desk"), world.online("bob", "phone"), world.online("carol", "x"));
    world.friends(("alice", alice), ("bob", bob));
    Cast { world, alice, bob, carol }
}

#[test]
fn xep_0163_4_3_contacts_who_want_to_hear_are_told_what_is_published_and_nobody_else() {
    let Cast { mut world, alice, bob, carol } = cast();
    let (tablet, watch) = (world.online("alice", "tablet"), world.online("bob", "watch"));
    for client in [bob, carol, tablet] {
        hears_mood(&mut world, client);
    }
    announces(&mut world, watch, &["urn:xmpp:tune+notify", "urn:xmpp:mood"]);
    [alice, bob, carol, tablet, watch].iter().for_each(|client| drop(world.heard(*client)));
    let answer = world.ask(alice, publish("current", "happy", &[]));
    assert!(answer.starts_with("<iq type='result' id='q'") && answer.contains("<item id='current'/>"), "{answer}");
    assert_eq!(answer.matches("<message").count(), 0, "it has not asked to hear");
    assert_eq!(world.heard(bob), event("bob@example.org/phone", "current", "happy"));
    assert_eq!(world.heard(tablet), event("alice@example.org/tablet", "current", "happy"));
    assert_eq!((world.heard(carol), world.heard(watch)), (String::new(), String::new()));
    let retract = pubsub(&format!("<retract node='{NODE}' notify='true'><item id='current'/></retract>"));
    assert!(world.ask(alice, iq("set", "", &retract)).contains("type='result'"));
    assert!(
        world
            .heard(bob)
            .contains(&format!("<event xmlns='http://jabber.org/protocol/pubsub#event'><purge node='{NODE}'/></event>"))
    );
    assert_eq!(world.heard(carol), "");
}

#[test]
fn xep_0163_4_3_4_who_comes_is_told_the_last_item_of_each_contact_once() {
    let Cast { mut world, alice, bob, carol } = cast();
    world.say(alice, publish("1", "happy", &[]));
    let told = |heard: &str| heard.matches("<event ").count();
    let heard = hears_mood(&mut world, bob);
    assert_eq!((told(&heard), heard.contains(&event("bob@example.org/phone", "1", "happy"))), (1, true), "{heard}");
    assert_eq!(told(&hears_mood(&mut world, bob)), 0, "it knows");
    assert_eq!(told(&world.ask(bob, "<presence><show>away</show></presence>")), 0);
    world.say(bob, "<presence type='unavailable'/>");
    world.say(alice, publish("2", "sad", &[]));
    assert_eq!(told(&world.heard(bob)), 0, "it's not there");
    let heard = world.ask(bob, "<presence/>");
    assert_eq!((told(&heard), heard.contains(&event("bob@example.org/phone", "2", "sad"))), (1, true), "{heard}");
    hears_mood(&mut world, carol);
    world.say(carol, "<presence type='subscribe' to='alice@example.org'/>");
    assert_eq!(told(&world.heard(carol)), 0, "not yet");
    world.say(alice, "<presence type='subscribed' to='carol@example.org'/>");
    assert!(world.heard(carol).contains(&event("carol@example.org/x", "2", "sad")), "a new contact is told");
}

#[test]
fn xep_0163_whoever_may_not_see_the_publisher_is_told_nothing() {
    let Cast { mut world, alice, bob, .. } = cast();
    hears_mood(&mut world, bob);
    let block =
        |verb: &str| format!("<iq type='set' id='b'><{verb} xmlns='urn:xmpp:blocking'><item jid='bob@example.org'/></{verb}></iq>");
    world.say(alice, block("block"));
    world.heard(bob);
    world.say(alice, publish("1", "happy", &[("access_model", "open")]));
    assert_eq!(world.heard(bob), "");
    world.say(alice, block("unblock"));
    assert!(world.heard(bob).contains(&event("bob@example.org/phone", "1", "happy")), "it may see the user again");
    world.say(alice, "<presence type='unsubscribed' to='bob@example.org'/>");
    world.heard(bob);
    world.say(alice, publish("2", "sad", &[]));
    assert_eq!(world.heard(bob), "");
    assert!(
        world.ask(bob, items()).contains("<item id='2'") || world.ask(bob, items()).contains(" id='2'"),
        "an open node is read by all"
    );
}

#[test]
fn xep_0352_an_inactive_client_is_told_the_newest_item_when_it_is_active_again() {
    let Cast { mut world, alice, bob, .. } = cast();
    hears_mood(&mut world, bob);
    world.ask(bob, "<inactive xmlns='urn:xmpp:csi:0'/>");
    for mood in ["a", "b", "c"] {
        world.say(alice, publish("1", mood, &[]));
    }
    assert_eq!(world.heard(bob), "");
    assert_eq!(world.ask(bob, "<active xmlns='urn:xmpp:csi:0'/>"), event("bob@example.org/phone", "1", "c"));
}

#[test]
fn xep_0198_what_a_broken_connection_lost_is_told_to_the_next() {
    for acknowledged in [false, true] {
        let Cast { mut world, alice, bob, .. } = cast();
        hears_mood(&mut world, bob);
        let enabled = world.ask(bob, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        let id = enabled.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("it may come back").to_owned();
        world.say(alice, publish("1", "happy", &[]));
        assert!(world.heard(bob).contains("happy"));
        world.cut(bob);
        let again = world.prove("bob");
        let handled = usize::from(acknowledged);
        let heard = world.ask(again, format!("<resume xmlns='urn:xmpp:sm:3' h='{handled}' previd='{id}'/>"));
        assert_eq!(heard.matches("happy").count(), 1 - handled, "{acknowledged}: {heard}");
        world.heard(again);
        world.say(alice, publish("1", "sad", &[]));
        assert_eq!(world.heard(again), event("bob@example.org/phone", "1", "sad"));
    }
}

#[test]
fn xep_0198_what_changes_while_the_connection_is_broken_comes_when_it_is_resumed() {
    let Cast { mut world, alice, bob, .. } = cast();
    hears_mood(&mut world, bob);
    let enabled = world.ask(bob, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let id = enabled.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("it may come back").to_owned();
    world.cut(bob);
    world.say(alice, publish("1", "happy", &[]));
    let again = world.prove("bob");
    let heard = world.ask(again, format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{id}'/>"));
    assert_eq!(heard.matches("happy").count(), 1, "{heard}");
}

#[test]
fn xep_0115_5_4_clients_are_asked_once_and_believed_only_if_the_hash_is_right() {
    let Cast { mut world, alice, bob, carol } = cast();
    let (query, version) = description(&["urn:xmpp:mood+notify"]);
    let (lie, _) = description(&["urn:xmpp:tune+notify"]);
    let heard = world.ask(carol, with_caps(&version));
    let number = question(&heard).expect("it is asked").to_owned();
    world.say(carol, format!("<iq type='result' id='caps-{number}' to='{DOMAIN}'>{lie}</iq>"));
    let heard = world.ask(bob, with_caps(&version));
    let number = question(&heard).expect("nobody believed the other one").to_owned();
    world.say(bob, format!("<iq type='result' id='caps-99' to='{DOMAIN}'>{lie}</iq>"));
    world.say(bob, format!("<iq type='result' id='caps-{number}' to='{DOMAIN}'>{query}</iq>"));
    assert_eq!(question(&world.ask(bob, with_caps(&version))), None, "it has answered");
    let watch = world.online("bob", "watch");
    assert_eq!(question(&world.ask(watch, with_caps(&version))), None, "it is known what this means");
    world.heard(bob);
    world.say(alice, publish("1", "happy", &[]));
    assert!(world.heard(bob).contains("happy") && world.heard(watch).contains("happy"));
    let silent = world.online("alice", "tablet");
    let heard = world.ask(silent, with_caps("AAAA"));
    let number = question(&heard).expect("it is asked").to_owned();
    assert_eq!(world.ask(silent, format!("<iq type='error' id='caps-{number}' to='{DOMAIN}'/>")), "", "nothing follows");
}

#[test]
fn xep_0060_7_1_5_publish_options_hold_or_the_item_is_refused() {
    let Cast { mut world, alice, bob, carol } = cast();
    let usual = [("persist_items", "true"), ("max_items", "1"), ("access_model", "presence")];
    assert!(world.ask(alice, publish("1", "a", &usual)).contains("type='result'"));
    assert!(world.ask(bob, items()).contains(">a<") && world.ask(carol, items()).contains("type='error'"));
    for option in [
        ("access_model", "open"),
        ("access_model", "roster"),
        ("access_model", "authorize"),
        ("persist_items", "false"),
        ("max_items", "max"),
        ("send_last_published_item", "never"),
        ("unheard_of", "1"),
    ] {
        let refused = world.ask(alice, publish("1", "b", &[option]));
        let why = "<precondition-not-met xmlns='http://jabber.org/protocol/pubsub#errors'/>";
        assert!(refused.contains("<conflict ") && refused.contains(why), "{option:?}: {refused}");
    }
    assert!(world.ask(bob, items()).contains(">a<"));
    assert!(world.ask(alice, publish("1", "c", &[])).contains("type='result'"), "no conditions");
    assert!(world.ask(carol, items()).contains("type='error'"), "it is for contacts still");
}

#[test]
fn xep_0060_8_2_a_node_is_configured_by_its_owner() {
    let Cast { mut world, alice, bob, carol } = cast();
    let get = owner(&format!("<configure node='{NODE}'/>"));
    let set =
        |fields: &str| owner(&format!("<configure node='{NODE}'><x xmlns='jabber:x:data' type='submit'>{fields}</x></configure>"));
    let field = |name: &str, value: &str| format!("<field var='{name}'><value>{value}</value></field>");
    assert!(world.ask(alice, iq("get", "", &get)).contains("<item-not-found "), "there is no such node");
    hears_mood(&mut world, bob);
    world.say(alice, publish("1", "a", &[]));
    let form = world.ask(alice, iq("get", "", &get));
    assert!(form.contains("<field var='pubsub#access_model' type='list-single'><value>presence</value>"), "{form}");
    assert!(world.ask(alice, iq("set", "", &set(&field("pubsub#access_model", "open")))).contains("type='result'"));
    assert!(world.ask(carol, items()).contains(">a<"), "it is open");
    assert!(world.ask(alice, publish("1", "b", &[("access_model", "open")])).contains("type='result'"));
    assert!(world.ask(alice, iq("set", "", &set(&field("pubsub#max_items", "10")))).contains("<not-acceptable "));
    world.heard(bob);
    assert!(world.ask(alice, iq("set", "", &set(&field("pubsub#access_model", "whitelist")))).contains("type='result'"));
    assert!(world.ask(bob, items()).contains("type='error'"));
    for verb in ["configure", "delete"] {
        let other = owner(&format!("<{verb} node='{NODE}'/>"));
        assert!(world.ask(bob, iq("set", TO_ALICE, &other)).contains("<forbidden "), "only the owner");
    }
    assert!(world.ask(alice, iq("set", "", &owner(&format!("<delete node='{NODE}'/>")))).contains("type='result'"));
    assert!(world.ask(alice, iq("set", "", &owner(&format!("<delete node='{NODE}'/>")))).contains("<item-not-found "));
}

#[test]
fn xep_0060_6_5_and_7_2_items_are_fetched_and_taken_back_by_their_names() {
    let Cast { mut world, alice, bob, .. } = cast();
    let retract = |id: &str| iq("set", "", &pubsub(&format!("<retract node='{NODE}'><item id='{id}'/></retract>")));
    let get = |id: &str| iq("get", TO_ALICE, &pubsub(&format!("<items node='{NODE}'><item id='{id}'/></items>")));
    assert!(world.ask(alice, retract("1")).contains("<item-not-found "), "there is none");
    let nameless = iq("set", "", &pubsub(&format!("<publish node='{NODE}'><item><mood xmlns='urn:m'>a</mood></item></publish>")));
    assert!(world.ask(alice, nameless).contains("<item id='current'/>"), "it is given a name");
    world.say(alice, publish("2", "b", &[]));
    assert!(world.ask(bob, get("2")).contains(">b<"), "the newest is the only one");
    let none = world.ask(bob, get("current"));
    assert!(none.contains("<items node='urn:xmpp:mood'></items>"), "{none}");
    assert!(world.ask(alice, retract("current")).contains("<item-not-found "));
    assert!(world.ask(alice, retract("2")).contains("type='result'"));
    assert!(world.ask(bob, get("2")).contains("<item-not-found "));
}

#[test]
fn xep_0060_what_is_not_done_here_or_not_understood_is_refused() {
    let Cast { mut world, alice, bob, .. } = cast();
    let item = "<item id='1'><m xmlns='urn:m'/></item>";
    for (kind, to, payload, condition) in [
        ("set", "", pubsub(""), "bad-request"),
        ("set", "", pubsub(&format!("<publish>{item}</publish>")), "nodeid-required"),
        ("set", "", pubsub("<publish node='n'/>"), "item-required"),
        ("set", "", pubsub(&format!("<publish node='n'>{item}{item}</publish>")), "bad-request"),
        ("set", "", pubsub("<retract node='n'/>"), "item-required"),
        ("set", "", pubsub("<subscribe node='n' jid='alice@example.org'/>"), "feature-not-implemented"),
        ("set", "", pubsub("<create node='n'/>"), "feature-not-implemented"),
        ("get", "", owner("<affiliations node='n'/>"), "feature-not-implemented"),
        ("get", "", pubsub(&format!("<items node='{}'/>", "n".repeat(300))), "not-acceptable"),
        ("set", TO_ALICE, pubsub(&format!("<publish node='n'>{item}</publish>")), "forbidden"),
    ] {
        let client = if to.is_empty() { alice } else { bob };
        let heard = world.ask(client, iq(kind, to, &payload));
        assert!(heard.contains("type='error' id='q'") && heard.contains(condition), "{payload}: {heard}");
        assert_eq!(heard.matches("id='q'").count(), 1, "{heard}");
    }
}
