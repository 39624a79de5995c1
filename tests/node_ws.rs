//! The WebSocket door of a running node, over real sockets: JSON, native frames and XMPP inside, pages, and everything illegal.
mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::credentials::{ITERATIONS, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::client::codec::Codec;
use fanal::front::doors::Speaks;
use fanal::wire::decode::ServerFrame;
use fanal::wire::encode::{Encoder, LogInFields, MessageFields, PresenceFields, Tag};
use fanal::wire::frame::Chunk;
use simd_json::OwnedValue;
use simd_json::prelude::*;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use support::web::{Patient, close_code, frame, read_to_end, upgrade};
use support::*;
use tungstenite::client::ClientRequestBuilder;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::{Message, WebSocket};

fn node(cores: usize, change: impl FnOnce(&mut fanal::base::config::Config)) -> TestNode {
    let mut config = config(cores);
    config.listen.ws = Some("127.0.0.1:0".parse().unwrap());
    change(&mut config);
    TestNode::start(&config)
}

fn on_one_and_two_cores(test: impl Fn(&TestNode)) {
    for cores in [1, 2] {
        test(&node(cores, |_| {}));
    }
}

fn door(node: &TestNode) -> SocketAddr {
    node.node().address(Speaks::WebSocket).expect("the door is open")
}

fn tcp(node: &TestNode) -> TcpStream {
    let socket = TcpStream::connect(door(node)).expect("the node listens");
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn open(node: &TestNode, path: &str, protocol: &str) -> WebSocket<Patient> {
    let uri = format!("ws://{}{path}", door(node)).parse().unwrap();
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol);
    tungstenite::client(request, Patient(tcp(node))).expect("the upgrade succeeds").0
}

/// A page that speaks JSON.
struct Page {
    socket: WebSocket<Patient>,
    jid: String,
    resume: String,
    received: u64,
    /// What came while something else was awaited.
    later: Vec<OwnedValue>,
}

impl Page {
    fn open(node: &TestNode) -> Page {
        let socket = open(node, "/ws", "fanal.json.v1");
        let mut page = Page { socket, jid: String::new(), resume: String::new(), received: 0, later: Vec::new() };
        let hello = page.until(|message| is(message, "hello"));
        assert_eq!(hello.get_str("domain"), Some("localhost"));
        page
    }

    fn log_in(node: &TestNode, jid: &str, resource: &str) -> Page {
        let mut page = Page::open(node);
        let token = BASE64_STANDARD.encode(node.token(jid));
        page.say(&format!(
            r#"{{"type":"log_in","id":1,"jid":"{jid}","mechanism":"TOKEN","data":"{token}",
                "resource":"{resource}","presence":{{}}}}"#
        ));
        page.logged_in();
        page
    }

    /// Goes on with the session of another connection.
    fn resume(&mut self, other: &Page) {
        self.say(&format!(
            r#"{{"type":"resume","id":1,"jid":"{}","token":"{}","received":{}}}"#,
            bare(&other.jid),
            other.resume,
            other.received
        ));
        assert_eq!(self.logged_in().get_bool("resumed"), Some(true));
    }

    fn logged_in(&mut self) -> OwnedValue {
        let answer = self.until(|message| is(message, "logged_in") || is(message, "error"));
        assert!(is(&answer, "logged_in"), "{answer}");
        self.jid = answer.get_str("jid").unwrap().to_owned();
        self.resume = answer.get_str("resume").unwrap().to_owned();
        answer
    }

    fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("the connection lives");
    }

    fn next(&mut self) -> OwnedValue {
        loop {
            match self.socket.read().expect("the connection lives") {
                Message::Text(text) => return simd_json::to_owned_value(&mut text.as_bytes().to_vec()).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The first message that `wanted` takes.
    fn until(&mut self, wanted: impl Fn(&OwnedValue) -> bool) -> OwnedValue {
        let kept = self.later.iter().position(&wanted);
        if let Some(at) = kept {
            return self.later.remove(at);
        }
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
            self.later.push(message);
        }
    }

    /// The next presence of somebody.
    fn presence(&mut self, jid: &str) -> OwnedValue {
        let event = self.until(|message| is(message, "event") && message.get_str("jid") == Some(jid));
        event.get("presence").expect("one").clone()
    }

    fn done(&mut self, request: &str) {
        self.say(request);
        let answer = self.until(|message| message.get_u64("id").is_some() && (is(message, "done") || is(message, "error")));
        assert!(is(&answer, "done"), "{request}: {answer}");
    }

    /// Becomes somebody whom `jid` sees, and who sees `jid`.
    fn befriend(&mut self, other: &mut Page) {
        let (own, others) = (bare(&self.jid), bare(&other.jid));
        other.done(&format!(r#"{{"type":"subscription","id":2,"action":"subscribed","jid":"{own}"}}"#));
        self.done(&format!(r#"{{"type":"subscription","id":2,"action":"subscribed","jid":"{others}"}}"#));
        self.done(&format!(r#"{{"type":"subscription","id":3,"action":"subscribe","jid":"{others}"}}"#));
        other.done(&format!(r#"{{"type":"subscription","id":3,"action":"subscribe","jid":"{own}"}}"#));
        assert_eq!(self.presence(&others).get_str("show"), Some("available"));
        assert_eq!(other.presence(&own).get_str("show"), Some("available"));
    }
}

fn is(message: &OwnedValue, kind: &str) -> bool {
    message.get_str("type") == Some(kind)
}

fn bare(jid: &str) -> String {
    jid.split('/').next().unwrap().to_owned()
}

#[test]
fn two_pages_see_each_other_come_change_and_go() {
    on_one_and_two_cores(|node| {
        for n in 0..4 {
            let (mut alice, mut bob) =
                (Page::log_in(node, &format!("alice{n}@localhost"), "a"), Page::log_in(node, &format!("bob{n}@localhost"), "b"));
            alice.befriend(&mut bob);
            alice.done(r#"{"type":"set_presence","id":5,"presence":{"show":"away","status":"back at \"three\"","priority":-5}}"#);
            let seen = bob.presence(&bare(&alice.jid));
            assert_eq!((seen.get_str("resource"), seen.get_str("show")), (Some("a"), Some("away")));
            assert_eq!((seen.get_str("status"), seen.get_i64("priority")), (Some("back at \"three\""), Some(-5)));
            alice.done(r#"{"type":"log_out","id":6,"status":"gone home"}"#);
            let seen = bob.presence(&bare(&alice.jid));
            assert_eq!((seen.get_str("show"), seen.get_str("status")), (Some("unavailable"), Some("gone home")));
        }
    });
}

#[test]
fn a_native_client_and_a_page_see_each_other_and_write() {
    on_one_and_two_cores(|node| {
        let mut alice = node.user("alice@localhost", "desk");
        available(&mut alice);
        let mut bob = Page::log_in(node, "bob@localhost", "b");
        alice.approve("bob@localhost").unwrap();
        bob.done(r#"{"type":"subscription","id":2,"action":"subscribe","jid":"alice@localhost"}"#);
        assert_eq!(bob.presence("alice@localhost").get_str("resource"), Some("desk"));
        alice.send(&MessageFields { to: "bob@localhost", body: b"hello", ..MessageFields::default() }).unwrap();
        let message = bob.until(|message| is(message, "message"));
        assert_eq!((message.get_str("from"), message.get_str("body")), (Some("alice@localhost/desk"), Some("hello")));
        assert_eq!(message.get_u64("number"), Some(1));
        bob.say(r#"{"type":"ack","received":1}"#);
        bob.done(r#"{"type":"message","id":4,"to":"alice@localhost/desk","kind":"chat","body":"hi"}"#);
        let body = until(&mut alice, |event| match event {
            fanal::client::Event::Message(message) => Some(message.body),
            _ => None,
        });
        assert_eq!(body, b"hi");
    });
}

#[test]
fn a_page_that_was_cut_off_resumes_and_misses_nothing() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (Page::log_in(node, "alice@localhost", "a"), Page::log_in(node, "bob@localhost", "b"));
        alice.befriend(&mut bob);
        bob.socket.get_ref().0.shutdown(Shutdown::Both).unwrap();
        for status in ["one", "two", "three"] {
            alice.done(&format!(r#"{{"type":"set_presence","id":5,"presence":{{"status":"{status}"}}}}"#));
        }
        let mut again = Page::open(node);
        again.resume(&bob);
        assert_eq!(again.presence("alice@localhost").get_str("status"), Some("three"));
        again.done(r#"{"type":"set_presence","id":9,"presence":{"status":"there again"}}"#);
        assert_eq!(
            alice.until(|message| is(message, "event") && has_status(message, "there again")).get_str("jid"),
            Some("bob@localhost")
        );
    });
}

fn has_status(event: &OwnedValue, status: &str) -> bool {
    event.get("presence").and_then(|presence| presence.get_str("status")) == Some(status)
}

#[test]
fn native_frames_go_through_binary_messages() {
    on_one_and_two_cores(|node| {
        let mut socket = open(node, "/ws", "fanal.fb.v1");
        let (mut encoder, mut out, token) = (Encoder::default(), Vec::new(), node.token("alice@localhost"));
        let presence = encoder.presence(&PresenceFields { resource: "a", ..PresenceFields::default() });
        encoder.hello(&mut out, Tag::request(1), "test");
        let fields = LogInFields {
            jid: "alice@localhost",
            mechanism: "TOKEN",
            data: token.as_bytes(),
            resource: "a",
            presence: &presence,
            ..LogInFields::default()
        };
        encoder.log_in(&mut out, Tag::request(2), &fields);
        socket.send(Message::binary(out)).unwrap();
        let mut jid = None;
        while jid.is_none() {
            let Message::Binary(bytes) = socket.read().expect("the connection lives") else { continue };
            let (mut codec, mut chunk) = (Codec::default(), Chunk::new(&bytes));
            while let Some(received) = codec.next(&mut chunk).expect("whole frames") {
                if let ServerFrame::LoggedIn(logged_in) = received.frame {
                    jid = Some(logged_in.jid().to_owned());
                }
            }
        }
        assert_eq!(jid.as_deref(), Some("alice@localhost/a"));
    });
}

#[test]
fn xmpp_opens_its_stream_and_closes_it() {
    let node = node(1, |config| config.login.plain = true);
    let mut socket = open(&node, "/xmpp-websocket", "xmpp");
    let framing = "xmlns='urn:ietf:params:xml:ns:xmpp-framing'";
    socket.send(Message::text(format!("<open {framing} to='localhost' version='1.0'/>"))).unwrap();
    let mut text = || match socket.read().expect("the connection lives") {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    };
    let opened = text();
    assert!(opened.starts_with("<open ") && opened.contains("from='localhost'"), "{opened}");
    let features = text();
    assert!(features.contains("features") && features.contains("SCRAM-SHA-256"), "{features}");
    socket.send(Message::text(format!("<close {framing}/>"))).unwrap();
    let mut last = Vec::new();
    while let Ok(message) = socket.read() {
        last.push(message);
    }
    assert!(matches!(&last[0], Message::Text(text) if text.starts_with("<close ")), "{last:?}");
    assert!(matches!(&last[1], Message::Close(Some(CloseFrame { code, .. })) if u16::from(*code) == 1000), "{last:?}");
}

/// Asks over a connection of its own; everything that comes until it closes.
fn ask(node: &TestNode, request: &[u8]) -> Vec<u8> {
    let mut socket = tcp(node);
    socket.write_all(request).unwrap();
    read_to_end(socket)
}

#[test]
fn pages_are_served_and_everything_else_is_refused() {
    let node = node(1, |_| {});
    for (path, status) in
        [("/demo", "200"), ("/fanal/fanal.js", "200"), ("/.well-known/host-meta", "200"), ("/", "404"), ("/ws", "426")]
    {
        let answer = ask(&node, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    }
}

#[test]
fn every_illegal_frame_gets_its_close_code_and_nobody_else_notices() {
    let node = node(1, |_| {});
    let (mut alice, mut bob) = (Page::log_in(&node, "alice@localhost", "a"), Page::log_in(&node, "bob@localhost", "b"));
    alice.befriend(&mut bob);
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not masked", vec![0x81, 2, b'{', b'}'], 1002),
        ("a reserved bit", frame(0xc1, b"{}"), 1002),
        ("a reserved opcode", frame(0x83, b""), 1002),
        ("a reserved control opcode", frame(0x8b, b""), 1002),
        ("a fragmented ping", frame(0x09, b""), 1002),
        ("a continuation of nothing", frame(0x80, b"{}"), 1002),
        ("a message inside a message", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002),
        ("a long length for a short message", [&[0x81, 0xfe, 0, 2, 0, 0, 0, 0][..], b"{}"].concat(), 1002),
        ("a close code of nobody", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("bytes", frame(0x82, b"{}"), 1003),
        ("no UTF-8", frame(0x81, b"\"\xff\""), 1007),
        ("no JSON", frame(0x81, b"{"), 1007),
        ("JSON that means nothing", frame(0x81, b"{}"), 1007),
        ("out of order", frame(0x81, br#"{"type":"roster_get"}"#), 1008),
        ("a gigabyte", [0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0].to_vec(), 1009),
        ("a good end", frame(0x88, &1000u16.to_be_bytes()), 1000),
    ];
    for (n, (what, bytes, code)) in cases.into_iter().enumerate() {
        let answer = ask(&node, &[upgrade("/ws", "fanal.json.v1").as_bytes(), &bytes].concat());
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{what}");
        assert_eq!(close_code(&answer), Some(code), "{what}: {}", String::from_utf8_lossy(&answer));
        alice.done(&format!(r#"{{"type":"set_presence","id":5,"presence":{{"status":"{n}"}}}}"#));
        assert_eq!(bob.presence("alice@localhost").get_str("status"), Some(n.to_string().as_str()));
    }
}

#[test]
fn pings_and_fragments_count_against_the_rate() {
    let node = node(1, |config| {
        let limits = &mut config.limits;
        (limits.frames_per_second, limits.frames_burst, limits.throttle_ms) = (1, 50, 1000);
    });
    for first in [0x89, 0x8a, 0x00] {
        let mut bytes = [upgrade("/ws", "fanal.json.v1").as_bytes(), &frame(0x01, b"")].concat();
        bytes.extend(std::iter::repeat_n(frame(first, b""), 200).flatten());
        let answer = ask(&node, &bytes);
        assert_eq!(close_code(&answer), Some(1008), "{first:#x}");
        assert!(String::from_utf8_lossy(&answer).contains(r#""name":"flood""#));
    }
}

#[test]
fn a_request_that_never_ends_is_told_so_and_closed() {
    let node = node(1, |config| config.limits.log_in_ms = 1);
    let answer = ask(&node, b"GET /ws HTTP/1.1\r\nHost: ");
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    let answer = ask(&node, upgrade("/ws", "fanal.json.v1").as_bytes());
    assert_eq!(close_code(&answer), Some(1008), "a WebSocket on which nobody logs in");
}

#[test]
fn c8_r5_a_page_told_to_move_resumes_there_and_misses_nothing_said_meanwhile() {
    for cores in [1, 2] {
        let mut node = node(cores, |_| {});
        let (mut alice, mut bob) = (Page::log_in(&node, "alice@localhost", "a"), Page::log_in(&node, "bob@localhost", "b"));
        alice.befriend(&mut bob);
        let mut control = node.0.as_mut().unwrap().control();
        let address = door(&node).to_string();
        assert_eq!(control.transfer(&Bare::new("bob@localhost").unwrap(), &address), Ok(1));
        assert_eq!(bob.until(|message| is(message, "transfer")).get_str("address"), Some(address.as_str()));
        alice.done(r#"{"type":"set_presence","id":5,"presence":{"status":"on the way"}}"#);
        let mut there = Page::open(&node);
        there.resume(&bob);
        assert_eq!(there.presence("alice@localhost").get_str("status"), Some("on the way"));
        there.done(r#"{"type":"set_presence","id":9,"presence":{"status":"arrived"}}"#);
        assert_eq!(alice.presence("bob@localhost").get_str("status"), Some("arrived"), "no farewell in between");
    }
}

#[test]
fn c8_r5_xmpp_over_websocket_is_told_a_uri_and_can_open_it() {
    let mut node = node(1, |config| config.login.plain = true);
    let mut control = node.0.as_mut().unwrap().control();
    let credentials = ScramCredentials::from_password("alice", &[7; 16], ITERATIONS);
    let alice = Bare::new("alice@localhost").unwrap();
    control.add_user(&alice, Some(credentials)).unwrap();
    let mut there = door(&node).to_string();
    for told in [there.clone(), format!("ws://{there}/xmpp-websocket")] {
        let mut session = Stream::log_in(&format!("ws://{}/xmpp-websocket", door(&node)), &node);
        assert_eq!(control.transfer(&alice, &told), Ok(1));
        let close = session.until("<close ");
        let (_, uri) = close.split_once("see-other-uri='").expect("it is told where to go");
        there = uri.split_once('\'').unwrap().0.to_owned();
        assert_eq!(there, format!("ws://{}/xmpp-websocket", door(&node)));
        Stream::log_in(&there, &node);
    }
}

/// A stream of RFC 7395.
struct Stream(WebSocket<Patient>);

impl Stream {
    fn log_in(uri: &str, node: &TestNode) -> Stream {
        let request = ClientRequestBuilder::new(uri.parse().unwrap()).with_sub_protocol("xmpp");
        let mut stream = Stream(tungstenite::client(request, Patient(tcp(node))).expect("the upgrade succeeds").0);
        let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
        let bind = "<iq xmlns='jabber:client' type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
        let auth = support::xmpp::plain("alice", "alice");
        for (said, answer) in [(open, "features"), (&auth, "<success"), (open, "features"), (bind, "<jid>")] {
            stream.0.send(Message::text(said)).unwrap();
            stream.until(answer);
        }
        stream
    }

    fn until(&mut self, wanted: &str) -> String {
        loop {
            match self.0.read().expect("the connection lives") {
                Message::Text(text) if text.contains(wanted) => return text.to_string(),
                _ => {}
            }
        }
    }
}
