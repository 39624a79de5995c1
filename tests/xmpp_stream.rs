//! What a stream says of itself: its language (RFC 6120 4.7.4), the server's capabilities (XEP-0115), its age (XEP-0012).
//! Dialogues of XMPP clients with one core, without sockets.
mod xmpp_world;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::limits::Limits;
use fanal::shard::batch::Order;
use fanal::wire::xml::Element;
use sha1::{Digest, Sha1};
use std::time::Duration;
use xmpp_world::*;

/// The value of an attribute, in a piece of XML.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.split(&format!(" {name}='")).nth(1).and_then(|rest| rest.split('\'').next()).expect("it has that attribute")
}

#[test]
fn rfc_6120_4_7_the_servers_opening_has_its_name_a_number_of_its_own_and_whom_it_is_for() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for (from, to) in [("", ""), (" from='alice@example.org'", " to='alice@example.org'"), (" from='&lt;'", "")] {
        let client = world.connect();
        let heard = world.ask(client, OPENING.replace(" to=", &format!("{from} to=")));
        let (opening, _) = heard.split_once('>').and_then(|(_, rest)| rest.split_once('>')).expect("a declaration, an opening");
        ids.push(value(opening, "id").to_owned());
        assert!(opening.contains(&format!(" from='example.org'{to} id='")), "{from}: {opening}");
        assert!(opening.ends_with(" version='1.0' xml:lang='en'"), "{opening}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() >= 11), "they can't be guessed: {ids:?}");
}

#[test]
fn rfc_6120_4_3_the_features_say_what_can_be_done_next_and_nothing_else() {
    let mut world = World::new();
    world.account("alice");
    let alice = world.connect();
    let names = |heard: &str| {
        let (_, features) = heard.split_once("<stream:features>").expect("there are some");
        let (features, _) = features.split_once("</stream:features>").unwrap();
        let features = Element::parse(format!("<x xmlns='x'>{features}</x>").as_bytes()).expect("well-formed");
        features.children().map(|child| format!("{} {}", child.name, child.namespace.as_str())).collect::<Vec<_>>()
    };
    let before = [
        "mechanisms urn:ietf:params:xml:ns:xmpp-sasl",
        "authentication urn:xmpp:sasl:2",
        "register http://jabber.org/features/iq-register",
        "limits urn:xmpp:stream-limits:0",
    ];
    assert_eq!(names(&world.ask(alice, OPENING)), before, "no channel to bind to, no TLS to begin");
    world.ask(alice, plain("alice", "alice"));
    let after = [
        "bind urn:ietf:params:xml:ns:xmpp-bind",
        "session urn:ietf:params:xml:ns:xmpp-session",
        "sm urn:xmpp:sm:3",
        "sub urn:xmpp:features:pre-approval",
        "ver urn:xmpp:features:rosterver",
        "csi urn:xmpp:csi:0",
        "c http://jabber.org/protocol/caps",
        "limits urn:xmpp:stream-limits:0",
    ];
    let heard = world.ask(alice, OPENING);
    assert_eq!(names(&heard), after);
    assert!(heard.contains("<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>"), "RFC 3921 3: {heard}");
}

#[test]
fn xep_0199_a_silent_client_is_asked_and_one_that_stays_silent_is_gone() {
    let (mut world, alice, bob) = two_friends();
    let most = Duration::from_millis(Limits::default().ping_ms.into());
    let answers = |world: &mut World, client, kind: &str| {
        let asked = world.heard(client);
        assert!(asked.starts_with("<iq type='get' id='ping-") && asked.contains(" from='example.org'"), "{asked}");
        assert!(asked.contains("<ping xmlns='urn:xmpp:ping'/>"), "{asked}");
        world.say(client, format!("<iq type='{kind}' id='{}' to='example.org'/>", value(&asked, "id")));
    };
    for kind in ["result", "error"] {
        world.wait(most + Duration::from_secs(1));
        answers(&mut world, alice, kind);
        answers(&mut world, bob, kind);
    }
    world.wait(most + Duration::from_secs(1));
    answers(&mut world, bob, "result");
    world.heard(alice);
    world.wait(most + Duration::from_secs(1));
    let ended = world.heard(alice);
    assert!(ended.contains("<stream:error><connection-timeout ") && ended.ends_with("</stream:stream>"), "{ended}");
    assert!(world.is_closed(alice) && !world.is_closed(bob));
    assert!(world.heard(bob).contains("from='alice@example.org/desk' type='unavailable'"));
}

#[test]
fn rfc_6120_4_9_3_20_a_node_that_stops_says_so() {
    let (mut world, alice, _) = two_friends();
    let stranger = world.open();
    world.order(Order::Stop);
    for client in [alice, stranger] {
        let heard = world.heard(client);
        assert!(heard.contains("<stream:error><system-shutdown ") && heard.ends_with("</stream:stream>"), "{heard}");
        assert!(world.is_closed(client));
    }
}

#[test]
fn rfc_6120_8_1_5_a_stanza_without_a_language_has_its_streams() {
    let mut world = World::new();
    ["alice", "bob"].iter().for_each(|name| world.account(name));
    let bob = world.online("bob", "phone");
    let alice = world.open();
    world.ask(alice, plain("alice", "alice"));
    world.ask(alice, OPENING.replace(" to=", " xml:lang='de-CH' to="));
    world.ask(alice, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>desk</resource></bind></iq>");
    world.say(alice, "<presence/>");
    world.friends(("alice", alice), ("bob", bob));
    for (stanza, language) in [
        ("<message to='bob@example.org/phone'><body>x</body></message>", "de-CH"),
        ("<message to='bob@example.org/phone' xml:lang='fr'><body>x</body></message>", "fr"),
        ("<iq type='get' id='q' to='bob@example.org/phone'><x xmlns='urn:x'/></iq>", "de-CH"),
        ("<presence><status>x</status></presence>", "de-CH"),
        ("<presence xml:lang='fr'><status>x</status></presence>", "fr"),
        ("<presence to='bob@example.org'/>", "de-CH"),
    ] {
        world.say(alice, stanza);
        let heard = world.heard(bob);
        assert_eq!(heard.matches("xml:lang=").count(), 1, "{stanza}: {heard}");
        assert_eq!(value(&heard, "xml:lang"), language, "{stanza}: {heard}");
    }
    world.heard(alice);
    world.say(bob, "<message to='alice@example.org/desk'><body>x</body></message>");
    assert!(!world.heard(alice).contains("xml:lang"), "the other stream has none");
}

#[test]
fn rfc_6120_4_7_4_what_is_no_language_is_none() {
    let long = "a-".repeat(30) + "a";
    for language in ["", "d e", "-", "&apos;", "deutschdeutsch", &long] {
        let mut world = World::new();
        world.account("alice");
        let alice = world.open();
        world.ask(alice, plain("alice", "alice"));
        world.ask(alice, OPENING.replace(" to=", &format!(" xml:lang='{language}' to=")));
        world.ask(alice, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        let own = world.ask(alice, "<presence><status>x</status></presence>");
        assert!(own.contains("<status>x</status>") && !own.contains("xml:lang"), "{language}: {own}");
    }
}

#[test]
fn rfc_6120_4_9_2_and_8_3_2_the_servers_words_are_in_a_language_that_it_names() {
    let mut world = World::new();
    world.account("alice");
    let alice = world.online("alice", "desk");
    let words = |heard: &str| heard.matches("<text ").count();
    let refused = world.ask(alice, "<message to='nobody@example.org' id='m'><body>x</body></message>");
    assert_eq!((words(&refused), refused.matches(" xml:lang='en'>").count()), (1, 1), "{refused}");
    let ended = world.ask(alice, "<nonsense xmlns='urn:x'/>");
    assert_eq!((words(&ended), ended.matches(" xml:lang='en'>").count()), (1, 1), "{ended}");
    let stranger = world.open();
    let failed = world.ask(stranger, plain("alice", "wrong"));
    assert!(failed.contains("<text xml:lang='en'>"), "{failed}");
}

#[test]
fn xep_0115_5_1_the_server_announces_the_hash_of_its_description() {
    let mut world = World::new();
    world.account("alice");
    let alice = world.open();
    world.ask(alice, plain("alice", "alice"));
    let features = world.ask(alice, OPENING);
    let caps = features.split("<c ").nth(1).expect("it announces them");
    let caps = format!("<c {}", caps.split("/>").next().unwrap());
    assert_eq!((value(&caps, "xmlns"), value(&caps, "hash")), ("http://jabber.org/protocol/caps", "sha-1"));
    let (node, version) = (value(&caps, "node").to_owned(), value(&caps, "ver").to_owned());
    world.ask(alice, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    let info = |node: &str| {
        format!("<iq type='get' id='d' to='example.org'><query xmlns='http://jabber.org/protocol/disco#info'{node}/></iq>")
    };
    let answers = [world.ask(alice, info("")), world.ask(alice, info(&format!(" node='{node}#{version}'")))];
    for answer in &answers {
        let answer = Element::parse(answer.replacen("<iq ", "<iq xmlns='jabber:client' ", 1).as_bytes()).unwrap();
        let query = answer.children().next().expect("an answer");
        let part = |child: &Element, name| child.attribute(name).unwrap_or_default().to_owned();
        let of = |name: &'static str| query.children().filter(move |child| child.name.as_str() == name);
        let mut identities: Vec<String> = of("identity")
            .map(|i| {
                format!("{}/{}/{}/{}<", part(i, "category"), part(i, "type"), i.language().unwrap_or_default(), part(i, "name"))
            })
            .collect();
        let mut features: Vec<String> = of("feature").map(|feature| format!("{}<", part(feature, "var"))).collect();
        identities.sort();
        features.sort();
        let text = identities.concat() + &features.concat();
        assert_eq!(BASE64_STANDARD.encode(Sha1::digest(text)), version);
    }
    assert!(answers[1].contains(&format!("node='{node}#{version}'")), "it says of which node");
    assert!(world.ask(alice, info(&format!(" node='{node}#other'"))).contains("<item-not-found "));
}

#[test]
fn xep_0012_the_server_says_how_long_it_has_run_and_a_client_answers_for_itself() {
    let mut world = World::new();
    ["alice", "bob"].iter().for_each(|name| world.account(name));
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.friends(("alice", alice), ("bob", bob));
    let ask = |to: &str| format!("<iq type='get' id='l'{to}><query xmlns='jabber:iq:last'/></iq>");
    let seconds = |heard: &str| value(heard, "seconds").parse::<u64>().unwrap();
    assert_eq!(seconds(&world.ask(alice, ask(" to='example.org'"))), 0);
    world.now = world.now + std::time::Duration::from_secs(90);
    assert_eq!(seconds(&world.ask(alice, ask(" to='example.org'"))), 90);
    for own in ["", " to='alice@example.org'"] {
        assert_eq!(seconds(&world.ask(alice, ask(own))), 0, "who asks is here");
    }
    assert_eq!(world.ask(alice, ask(" to='bob@example.org/phone'")), "");
    assert!(world.heard(bob).contains("<iq type='get' id='l' from='alice@example.org/desk' to='bob@example.org/phone'>"));
}
