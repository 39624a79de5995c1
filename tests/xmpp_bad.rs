//! What no XMPP client should send: each row gets the standard's own error, then the connection closes, and nobody else notices.
mod xmpp_world;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::id::ConnId;
use fanal::base::limits::Limits;
use fanal::front::xmpp::{StartTls, WAITING};
use xmpp_world::*;

const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

/// A world with one healthy client.
fn world() -> (World, Client) {
    let mut world = World::new();
    world.account("alice");
    world.account("mallory");
    let alice = world.online("alice", "desk");
    (world, alice)
}

fn is_well(world: &mut World, alice: Client) {
    let heard = world.ask(alice, "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_eq!(heard, "<iq type='result' id='p' to='alice@example.org/desk'></iq>");
}

/// The stream ended with this error, after an opening.
fn ended_with(world: &mut World, client: Client, heard: &str, condition: &str) {
    assert!(heard.contains(&format!("<stream:error><{condition} xmlns='{STREAMS}'/>")), "{condition}: {heard}");
    assert!(heard.ends_with("</stream:error></stream:stream>"), "{heard}");
    assert!(world.is_closed(client));
}

fn repeated(what: &str, times: usize) -> String {
    what.repeat(times)
}

/// What is wrong whoever says it, and the condition it ends with.
fn bad_xml() -> Vec<(Vec<u8>, &'static str)> {
    let bomb = format!("<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol1 '{}'>]>", repeated("&lol;", 1000));
    let rows: [(&str, &str); 12] = [
        (&repeated("<a>", 10_000), "policy-violation"),
        (&format!("<message a='{}'/>", repeated("x", 1 << 20)), "policy-violation"),
        (&format!("<message><body>{}</body></message>", repeated("x", 1 << 20)), "policy-violation"),
        (&format!("<message {}/>", (0..5000).map(|n| format!("a{n}='' ")).collect::<String>()), "policy-violation"),
        (&format!("<message>{}</message>", repeated("<a/>", 5000)), "policy-violation"),
        (&bomb, "restricted-xml"),
        ("<message>&lol;</message>", "restricted-xml"),
        ("<!-- a comment -->", "restricted-xml"),
        ("<?php 1 ?>", "restricted-xml"),
        ("<message>\0</message>", "not-well-formed"),
        ("<message></presence>", "not-well-formed"),
        ("<x:message/>", "bad-namespace-prefix"),
    ];
    let mut rows: Vec<_> = rows.into_iter().map(|(text, condition)| (text.as_bytes().to_vec(), condition)).collect();
    for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        rows.push(([b"<message><body>", bad, b"</body></message>"].concat(), "unsupported-encoding"));
    }
    rows
}

#[test]
fn bad_xml_ends_the_stream_with_its_own_error_before_and_after_the_log_in() {
    let (mut world, alice) = world();
    for (text, condition) in bad_xml() {
        let stranger = world.open();
        let heard = world.ask(stranger, &text);
        ended_with(&mut world, stranger, &heard, condition);
        let mallory = world.online("mallory", "x");
        let heard = world.ask(mallory, &text);
        ended_with(&mut world, mallory, &heard, condition);
        assert_eq!(world.ask(mallory, "<presence/>"), "", "nothing more is heard");
        is_well(&mut world, alice);
    }
}

#[test]
fn a_dialogue_is_the_same_wherever_it_is_cut() {
    let dialogue = "<presence/><message to='alice@example.org' id='1'><body>gr\u{fc}\u{df}e &#x1F600;</body></message>\
         <iq type='get' id='2'><ping xmlns='urn:xmpp:ping'/></iq>";
    let whole = {
        let (mut world, alice) = world();
        let mallory = world.log_in("mallory", "x");
        (world.ask(mallory, dialogue), world.heard(alice))
    };
    for cut in 1..dialogue.len() {
        let (mut world, alice) = world();
        let mallory = world.log_in("mallory", "x");
        let mut heard = world.ask(mallory, &dialogue.as_bytes()[..cut]);
        world.say(mallory, &dialogue.as_bytes()[cut..]);
        heard += &world.heard(mallory);
        assert_eq!((heard, world.heard(alice)), whole, "cut at {cut}");
    }
}

#[test]
fn openings_that_are_not_ours_are_refused() {
    let (mut world, alice) = world();
    let ns = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'";
    for (opening, condition) in [
        (format!("<stream:stream to='elsewhere.org' version='1.0' {ns}>"), "host-unknown"),
        (format!("<stream:stream to='example.org' {ns}>"), "unsupported-version"),
        (format!("<stream:features to='example.org' version='1.0' {ns}>"), "invalid-namespace"),
        (
            "<stream:stream xmlns='jabber:server' version='1.0' xmlns:stream='http://etherx.jabber.org/streams'>".into(),
            "invalid-namespace",
        ),
        ("<stream xmlns='jabber:client' version='1.0'>".into(), "invalid-namespace"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n<".into(), "not-well-formed"),
        ("<!DOCTYPE x><stream/>".into(), "restricted-xml"),
        (format!("<stream:stream to='{}' {ns}>", repeated("x", 10_000)), "policy-violation"),
    ] {
        let client = world.connect();
        let heard = world.ask(client, &opening);
        assert!(heard.starts_with("<?xml version='1.0'?><stream:stream "), "the error stands in a stream: {heard}");
        ended_with(&mut world, client, &heard, condition);
    }
    is_well(&mut world, alice);
}

fn sasl(content: &str) -> String {
    format!("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><{content}/>")
}

#[test]
fn wrong_sasl_fails_in_the_standards_words_at_every_step() {
    let (mut world, alice) = world();
    let ns = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
    let scram = |first: &str| format!("<auth {ns} mechanism='SCRAM-SHA-256'>{}</auth>", BASE64_STANDARD.encode(first));
    for (auth, condition) in [
        (format!("<auth {ns} mechanism='NONSENSE'>=</auth>"), "invalid-mechanism"),
        (format!("<auth {ns}/>"), "invalid-mechanism"),
        (format!("<auth {ns} mechanism='PLAIN'>!!</auth>"), "incorrect-encoding"),
        (format!("<auth {ns} mechanism='PLAIN'>=</auth>"), "malformed-request"),
        (format!("<auth {ns} mechanism='PLAIN'>/w==</auth>"), "malformed-request"),
        (format!("<response {ns}>=</response>"), "malformed-request"),
        (format!("<abort {ns}/>"), "malformed-request"),
        (scram("n,,"), "malformed-request"),
        (scram("n,,n=a=xyz,r=1"), "malformed-request"),
        (scram("n,,n=,r=1"), "not-authorized"),
        (scram("p=tls-unique,,n=alice,r=1"), "not-authorized"),
        (scram("n,,n=alice,r="), "not-authorized"),
        (plain("alice", "wrong"), "not-authorized"),
        (plain("nobody", "nobody"), "not-authorized"),
        (plain("alice@elsewhere.org", "alice"), "not-authorized"),
    ] {
        let client = world.open();
        let heard = world.ask(client, &auth);
        assert!(heard.starts_with(&sasl(condition)), "{auth}: {heard}");
        assert!(!world.is_closed(client), "it may try again");
        assert_eq!(world.ask(client, plain("mallory", "mallory")), "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    }
    is_well(&mut world, alice);
}

#[test]
fn an_exchange_can_be_aborted_and_a_wrong_proof_fails() {
    let (mut world, _) = world();
    let ns = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
    let client = world.open();
    let first = format!("<auth {ns} mechanism='SCRAM-SHA-256'>{}</auth>", BASE64_STANDARD.encode("n,,n=alice,r=abc"));
    assert!(world.ask(client, &first).starts_with("<challenge "));
    assert!(world.ask(client, format!("<abort {ns}/>")).starts_with(&sasl("aborted")));
    assert!(world.ask(client, &first).starts_with("<challenge "));
    assert!(world.ask(client, format!("<response {ns}>bm9uc2Vuc2U=</response>")).starts_with(&sasl("not-authorized")));
    let empty = format!("<auth {ns} mechanism='PLAIN'/>");
    assert_eq!(world.ask(client, &empty), format!("<challenge {ns}/>"));
    let response = plain("alice", "alice").replace("auth", "response").replace(" mechanism='PLAIN'", "");
    assert_eq!(world.ask(client, response), format!("<success {ns}/>"));
}

#[test]
fn too_many_wrong_log_ins_end_the_stream() {
    let (mut world, alice) = world();
    for wrong in [plain("alice", "wrong"), "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".to_owned()] {
        let client = world.open();
        let mut heard = String::new();
        for _ in 0..20 {
            heard += &world.ask(client, &wrong);
        }
        ended_with(&mut world, client, &heard, "policy-violation");
    }
    is_well(&mut world, alice);
}

#[test]
fn stanzas_before_their_time_end_the_stream() {
    let (mut world, alice) = world();
    for stanza in [
        "<presence/>",
        "<message/>",
        "<iq type='get' id='1'/>",
        "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
    ] {
        let client = world.open();
        let heard = world.ask(client, stanza);
        ended_with(&mut world, client, &heard, "not-authorized");
    }
    for stanza in ["<presence/>", "<message/>", "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"] {
        let client = world.open();
        world.say(client, plain("mallory", "mallory"));
        world.say(client, OPENING);
        let heard = world.ask(client, stanza);
        ended_with(&mut world, client, &heard, "not-authorized");
    }
    is_well(&mut world, alice);
}

#[test]
fn nobody_speaks_for_another_user() {
    let (mut world, alice) = world();
    for from in ["alice@example.org", "alice@example.org/desk", "mallory@example.org/other", "example.org", "x"] {
        let mallory = world.online("mallory", "x");
        let heard = world.ask(mallory, format!("<message from='{from}' to='alice@example.org'><body>x</body></message>"));
        ended_with(&mut world, mallory, &heard, "invalid-from");
    }
    assert_eq!(world.heard(alice), "");
    let mallory = world.online("mallory", "x");
    world.say(mallory, "<message from='mallory@example.org/x' to='alice@example.org'><body>x</body></message>");
    assert!(world.heard(alice).contains("<body>x</body>"));
}

#[test]
fn unknown_elements_end_the_stream() {
    for element in ["<nonsense/>", "<x xmlns='urn:x'/>", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"] {
        let (mut world, alice) = world();
        let mallory = world.online("mallory", "x");
        let heard = world.ask(mallory, element);
        ended_with(&mut world, mallory, &heard, "unsupported-stanza-type");
        is_well(&mut world, alice);
    }
}

#[test]
fn where_tls_is_required_nothing_else_is_done_before() {
    let mut world = World::with(StartTls::Required);
    world.account("alice");
    let client = world.connect();
    let heard = world.ask(client, OPENING);
    assert!(heard.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"), "{heard}");
    assert!(!heard.contains("mechanism"), "{heard}");
    assert!(world.ask(client, plain("alice", "alice")).starts_with(&sasl("")[..50]), "refused");
    assert_eq!(
        world.ask(client, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
    );
}

#[test]
fn starttls_where_there_is_none_fails() {
    let (mut world, alice) = world();
    let client = world.open();
    let heard = world.ask(client, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(heard, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>");
    assert!(world.is_closed(client));
    is_well(&mut world, alice);
}

#[test]
fn what_is_sent_too_early_waits_and_is_bounded() {
    let (mut world, alice) = world();
    let client = world.connect();
    // All at once: the stream is opened anew before the log-in was answered.
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>";
    let heard = world.ask(client, format!("{OPENING}{}{OPENING}{bind}<presence/>", plain("mallory", "mallory")));
    assert!(
        heard.contains("<success")
            && heard.ends_with("<presence to='mallory@example.org/r' from='mallory@example.org/r'></presence>"),
        "{heard}"
    );
    let client = world.connect();
    let flood = format!("{OPENING}{}{}", plain("mallory", "mallory"), repeated("<presence/>", 10_000));
    let heard = world.ask(client, flood);
    assert!(world.is_closed(client), "{heard}");
    is_well(&mut world, alice);
}

#[test]
fn so_many_questions_wait_and_every_one_gets_its_answer() {
    let mut world = World::new();
    world.account("alice");
    let alice = world.log_in("alice", "desk");
    let ask = |n: usize| format!("<iq type='get' id='q{n}'><query xmlns='jabber:iq:roster'/></iq>");
    let heard = world.ask(alice, (0..WAITING + 20).map(ask).collect::<String>());
    let refused = heard.matches("<resource-constraint ").count();
    assert_eq!((refused, heard.matches("type='result'").count()), (20, WAITING));
    assert_eq!(world.shard.snapshot(world.now).counters.stanzas_refused, 20);
    assert!(world.ask(alice, ask(0)).contains("type='result'"), "then there is room again");
}

#[test]
fn one_address_takes_so_many_connections_and_no_more() {
    let mut world = World::new();
    let most = Limits::default().connections_per_address;
    let accept = |world: &mut World, peer: &str| world.shard.accepted(world.now, peer.parse().unwrap(), 0);
    let taken: Vec<ConnId> = (0..most).map(|_| accept(&mut world, "192.0.2.1").expect("there is room")).collect();
    assert_eq!(accept(&mut world, "192.0.2.1"), None);
    assert_eq!(accept(&mut world, "::ffff:192.0.2.1"), None, "the same address, written otherwise");
    assert!(accept(&mut world, "192.0.2.2").is_some(), "others come in");
    world.cut(Client(taken[0]));
    assert!(accept(&mut world, "192.0.2.1").is_some(), "who goes makes room");
    (0..most).for_each(|n| assert!(accept(&mut world, &format!("2001:db8::{n:x}")).is_some()));
    assert_eq!(accept(&mut world, "2001:db8::ffff"), None, "a network of 64 bits is one address");
    assert!(accept(&mut world, "2001:db8:0:1::").is_some());
    (0..=most).for_each(|_| assert!(accept(&mut world, "127.0.0.1").is_some(), "this machine is not counted"));
}

#[test]
fn what_is_no_character_is_found_wherever_it_is_cut() {
    let (mut world, alice) = world();
    let bad = b"<message><body>\xe2\x82(</body>";
    for cut in 0..=bad.len() {
        let client = world.open();
        let heard = [&bad[..cut], &bad[cut..]].map(|part| world.ask(client, part)).concat();
        assert!(heard.contains("unsupported-encoding"), "{cut}: {heard}");
    }
    is_well(&mut world, alice);
}
