//! Logging in in one go, without sockets: SASL 2 (XEP-0388), Bind 2 (XEP-0386), with stream management (XEP-0198) in it.
mod xmpp_world;

use base64::{Engine, prelude::BASE64_STANDARD};
use xmpp_world::*;

const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'><tag>App</tag></bind>";
const AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>App</software></user-agent>";

fn initial(name: &str, password: &str) -> String {
    format!("<initial-response>{}</initial-response>", BASE64_STANDARD.encode(format!("\0{name}\0{password}")))
}

/// A log-in by PLAIN with the right password, and what is to come with it.
fn authenticate(name: &str, wishes: &str) -> String {
    format!("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>{}{wishes}</authenticate>", initial(name, name))
}

fn world() -> World {
    let mut world = World::new();
    world.account("alice");
    world.account("bob");
    world
}

/// What stands between two texts.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap_or_else(|| panic!("no {from} in {text}")).0
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='urn:xmpp:sasl:2'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
}

#[test]
fn xep_0388_the_features_say_what_can_come_with_a_log_in() {
    let mut world = world();
    let client = world.connect();
    let heard = world.ask(client, OPENING);
    let offered = between(&heard, "<authentication xmlns='urn:xmpp:sasl:2'>", "</authentication>");
    for part in [
        "<mechanism>SCRAM-SHA-256</mechanism>",
        "<mechanism>PLAIN</mechanism>",
        "<bind xmlns='urn:xmpp:bind:0'><inline>",
        "<feature var='urn:xmpp:carbons:2'/>",
        "<feature var='urn:xmpp:csi:0'/>",
        "<feature var='urn:xmpp:sm:3'/>",
        "<sm xmlns='urn:xmpp:sm:3'/>",
    ] {
        assert!(offered.contains(part), "{part}: {offered}");
    }
}

#[test]
fn xep_0386_one_round_trip_from_the_opening_to_a_session() {
    let mut world = world();
    let client = world.connect();
    let heard = world.ask(client, format!("{OPENING}{}<presence/>", authenticate("alice", &format!("{AGENT}{BIND}"))));
    let success = between(&heard, "<success xmlns='urn:xmpp:sasl:2'>", "</success>");
    let jid = between(success, "<authorization-identifier>", "</authorization-identifier>").to_owned();
    assert!(jid.starts_with("alice@example.org/App/") && jid.len() == "alice@example.org/App/".len() + 12, "{jid}");
    assert!(success.ends_with("<bound xmlns='urn:xmpp:bind:0'></bound>"), "{success}");
    let (_, behind) = heard.split_once("</success>").unwrap();
    assert!(behind.starts_with("<stream:features>") && !behind.contains("xmpp-bind"), "{behind}");
    let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert!(world.ask(client, ping).contains("type='result'"));
    // The same client again takes its own session's place.
    let again = world.connect();
    let heard = world.ask(again, format!("{OPENING}{}", authenticate("alice", &format!("{AGENT}{BIND}"))));
    assert!(heard.contains(&jid), "{heard}");
    assert!(world.heard(client).contains("<conflict ") && world.is_closed(client));
}

#[test]
fn xep_0388_without_a_binding_one_binds_as_ever_and_the_stream_goes_on() {
    let mut world = world();
    let client = world.open();
    let heard = world.ask(client, authenticate("alice", ""));
    assert!(heard.starts_with(
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>alice@example.org</authorization-identifier></success>\
         <stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
    ));
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>desk</resource></bind></iq>";
    assert!(world.ask(client, bind).contains("<jid>alice@example.org/desk</jid>"));
}

#[test]
fn xep_0388_scram_says_its_proof_with_success() {
    let mut world = world();
    let client = world.open();
    let user = fanal::base::jid::Bare::new("alice@example.org").unwrap();
    let (scram, first) = fanal::client::sasl::Scram::start(&user, "alice", None, &[""; 0]).unwrap();
    let start = format!("<initial-response>{}</initial-response>{BIND}", BASE64_STANDARD.encode(first));
    let heard =
        world.ask(client, format!("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256'>{start}</authenticate>"));
    let challenge = between(&heard, "<challenge xmlns='urn:xmpp:sasl:2'>", "</challenge>");
    let (proof, last) = scram.respond(&BASE64_STANDARD.decode(challenge).unwrap()).unwrap();
    let heard = world.ask(client, format!("<response xmlns='urn:xmpp:sasl:2'>{}</response>", BASE64_STANDARD.encode(last)));
    let data = between(&heard, "<additional-data>", "</additional-data>");
    proof.check(&BASE64_STANDARD.decode(data).unwrap()).unwrap();
    assert!(heard.contains("<bound "), "{heard}");
}

#[test]
fn xep_0386_a_session_begins_with_what_was_wished_for() {
    let mut world = world();
    let wishes = "<bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:carbons:2'/><enable xmlns='urn:xmpp:sm:3' resume='true'/>\
                  <inactive xmlns='urn:xmpp:csi:0'/></bind>";
    let (bob, desk) = (world.online("bob", "phone"), world.online("alice", "desk"));
    world.friends(("alice", desk), ("bob", bob));
    let client = world.open();
    let heard = world.ask(client, authenticate("alice", wishes));
    let bound = between(&heard, "<bound xmlns='urn:xmpp:bind:0'>", "</bound>");
    assert!(bound.starts_with("<enabled xmlns='urn:xmpp:sm:3' id='") && bound.ends_with("resume='true' max='30'/>"), "{bound}");
    world.say(client, "<presence/>");
    world.heard(client);
    world.say(bob, "<presence><status>unseen</status></presence>");
    assert_eq!(world.heard(client), "", "it is inactive");
    world.say(bob, "<message to='alice@example.org/desk' type='chat'><body>copied</body></message>");
    assert!(world.heard(client).contains("<received xmlns='urn:xmpp:carbons:2'>"));
    assert!(world.ask(client, "<active xmlns='urn:xmpp:csi:0'/>").contains("unseen"));
    assert_eq!(world.ask(client, "<r xmlns='urn:xmpp:sm:3'/>"), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
}

#[test]
fn xep_0388_a_stream_is_resumed_with_the_log_in_and_a_lost_one_is_bound_anew() {
    let mut world = world();
    let manage = "<bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
    let client = world.open();
    let heard = world.ask(client, authenticate("alice", manage));
    let id = between(&heard, "<enabled xmlns='urn:xmpp:sm:3' id='", "'").to_owned();
    let jid = between(&heard, "<authorization-identifier>", "<").to_owned();
    world.say(client, "<presence/>");
    world.cut(client);
    let bob = world.online("bob", "phone");
    world.say(bob, "<message to='alice@example.org' type='chat'><body>missed</body></message>");
    let wishes = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>{manage}");
    let again = world.connect();
    let heard = world.ask(again, format!("{OPENING}{}", authenticate("alice", &wishes)));
    assert!(heard.contains(&format!("<authorization-identifier>{jid}</authorization-identifier><resumed ")), "{heard}");
    assert!(heard.contains(&format!("<resumed xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/></success><stream:features>")));
    assert!(!heard.contains("<bound") && heard.split_once("</stream:features>").unwrap().1.contains("missed"), "{heard}");
    // Nobody knows this one: a new session it is.
    let wishes = format!("<resume xmlns='urn:xmpp:sm:3' previd='77' h='0'/>{manage}");
    let third = world.open();
    let heard = world.ask(third, authenticate("alice", &wishes));
    let success = between(&heard, "<success xmlns='urn:xmpp:sasl:2'>", "</success>");
    assert!(success.contains("<failed xmlns='urn:xmpp:sm:3'><item-not-found ") && success.contains("<enabled "), "{success}");
    // Somebody else's.
    let fourth = world.open();
    let heard = world.ask(fourth, authenticate("bob", &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>")));
    assert!(heard.contains("<failed xmlns='urn:xmpp:sm:3'>") && heard.contains(">bob@example.org<"), "{heard}");
    // More than it was ever sent.
    let fifth = world.open();
    let id = between(success, "<enabled xmlns='urn:xmpp:sm:3' id='", "'");
    let heard = world.ask(fifth, authenticate("alice", &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='9'/>")));
    assert!(heard.contains("<stream:error>") && world.is_closed(fifth), "{heard}");
}

#[test]
fn xep_0388_a_session_that_ended_meanwhile_is_told_as_not_resumed() {
    let mut world = world();
    let manage = "<bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
    let client = world.open();
    let heard = world.ask(client, authenticate("alice", manage));
    let id = between(&heard, "<enabled xmlns='urn:xmpp:sm:3' id='", "'").to_owned();
    world.say(client, "<presence/>");
    world.cut(client);
    world.now = fanal::base::time::Time(world.now.0 + 31_000_000_000);
    world.settle();
    let again = world.open();
    let heard = world.ask(again, authenticate("alice", &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>{manage}")));
    let success = between(&heard, "<success xmlns='urn:xmpp:sasl:2'>", "</success>");
    assert!(success.contains("<failed xmlns='urn:xmpp:sm:3' h='1'>") && success.contains("<enabled "), "{success}");
}

#[test]
fn xep_0388_who_can_have_no_session_is_told_without_one_and_may_bind_later() {
    let mut world = world();
    let sessions: Vec<Client> = (0..32).map(|n| world.log_in("alice", &format!("s{n}"))).collect();
    let client = world.open();
    let heard = world.ask(client, authenticate("alice", BIND));
    assert!(heard.contains("<authorization-identifier>alice@example.org</authorization-identifier></success>"), "{heard}");
    world.cut(sessions[0]);
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    assert!(world.ask(client, bind).contains("<jid>alice@example.org/"));
}

#[test]
fn xep_0388_every_wrong_step_fails_in_its_own_words_and_the_next_log_in_may_succeed() {
    let mut world = world();
    let plain = |data: &str| {
        format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{data}</initial-response></authenticate>"
        )
    };
    let wrong = [
        ("<authenticate xmlns='urn:xmpp:sasl:2'/>".to_owned(), "invalid-mechanism"),
        ("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='NONSENSE'/>".to_owned(), "invalid-mechanism"),
        ("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN' upgrade='SCRAM-SHA-256'/>".to_owned(), "invalid-mechanism"),
        (plain("!"), "incorrect-encoding"),
        (plain("eA=="), "malformed-request"),
        (plain(&BASE64_STANDARD.encode("\0alice\0wrong")), "not-authorized"),
        (plain(&BASE64_STANDARD.encode("\0nobody\0wrong")), "not-authorized"),
        (authenticate("alice", &format!("<user-agent id='{}'/>", "x".repeat(257))), "malformed-request"),
        ("<response xmlns='urn:xmpp:sasl:2'/>".to_owned(), "malformed-request"),
        ("<abort xmlns='urn:xmpp:sasl:2'/>".to_owned(), "malformed-request"),
        ("<next xmlns='urn:xmpp:sasl:2' task='X'/>".to_owned(), "malformed-request"),
    ];
    for (step, condition) in wrong {
        let client = world.open();
        let heard = world.ask(client, &step);
        assert!(heard.starts_with(&failure(condition)), "{step}: {heard}");
        assert!(world.ask(client, authenticate("alice", BIND)).contains("<bound "), "{step}");
    }
}

#[test]
fn xep_0388_an_exchange_can_be_begun_late_aborted_and_not_be_mixed_with_the_old_one() {
    let mut world = world();
    let client = world.open();
    let begin = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>";
    assert_eq!(world.ask(client, begin), "<challenge xmlns='urn:xmpp:sasl:2'/>");
    let heard = world.ask(client, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert!(heard.starts_with("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><malformed-request/>"), "{heard}");
    assert!(world.ask(client, "<abort xmlns='urn:xmpp:sasl:2'/>").starts_with(&failure("aborted")));
    let scram = BASE64_STANDARD.encode("n,,n=alice,r=x");
    let begin = format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'><initial-response>{scram}</initial-response></authenticate>"
    );
    assert!(world.ask(client, &begin).starts_with("<challenge xmlns='urn:xmpp:sasl:2'>"));
    assert!(world.ask(client, "<abort xmlns='urn:xmpp:sasl:2'/>").starts_with(&failure("aborted")));
    // A failed log-in of SASL 2 leaves nothing behind for one of the first kind.
    let heard = world.ask(client, plain("alice", "alice"));
    assert_eq!(heard, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    let client = world.open();
    world.say(client, begin);
    let heard = world.ask(client, "<message to='bob@example.org'/>");
    assert!(heard.contains("<not-authorized ") && world.is_closed(client), "{heard}");
}

#[test]
fn xep_0388_who_names_itself_in_the_opening_must_be_that_user() {
    for (from, outcome) in [("alice@example.org", "<success"), ("ALICE@example.org/x", "<success"), ("bob@example.org", "<failure")]
    {
        let mut world = world();
        let client = world.connect();
        let opening = OPENING.replace("<stream:stream ", &format!("<stream:stream from='{from}' "));
        let heard = world.ask(client, format!("{opening}{}", authenticate("alice", BIND)));
        assert!(heard.contains(outcome), "{from}: {heard}");
    }
}

#[test]
fn xep_0388_it_waits_for_tls_where_that_is_required() {
    let mut world = World::with(fanal::front::xmpp::StartTls::Required);
    world.account("alice");
    let client = world.connect();
    let heard = world.ask(client, OPENING);
    assert!(!heard.contains("urn:xmpp:sasl:2"), "{heard}");
    assert!(world.ask(client, authenticate("alice", BIND)).starts_with(&failure("encryption-required")));
}
