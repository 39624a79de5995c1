//! The door as a whole: bytes of a socket in, bytes of a socket out.

use super::read::{PROTOCOL_ERROR, TOO_BIG, UNSUPPORTED};
use super::*;
use crate::base::id::{SessionId, UserId, Version};
use crate::base::jid::Bare;
use crate::front::translate::Users;
use crate::front::{json, xmpp};
use crate::wire::encode::{LoggedInAs, PresenceFields};
use crate::wire::event::{self, Head};
use crate::wire::native::Show;

/// Everybody is bob.
struct Bob(Bare);

impl Users for Bob {
    fn jid(&self, _: UserId) -> Option<&Bare> {
        Some(&self.0)
    }
}

fn xmpp_rules() -> Arc<xmpp::Rules> {
    let start_tls = xmpp::StartTls::No;
    Arc::new(xmpp::Rules {
        domain: "localhost".into(),
        stanza_bytes: 10_000,
        start_tls,
        registration: false,
        location: Some("node".into()),
    })
}

/// A door and the line behind it.
struct Line {
    door: WebSocket,
    users: Bob,
    /// Native frames that the door made of what came.
    frames: Vec<u8>,
    /// Bytes that went out.
    out: Vec<u8>,
    ended: Option<Reason>,
}

impl Line {
    fn new() -> Line {
        let rules = Rules { xmpp: Some(xmpp_rules()), ..Rules::new(1000) };
        let users = Bob(Bare::new("bob@localhost").unwrap());
        Line { door: WebSocket::new(Arc::new(rules)), users, frames: Vec::new(), out: Vec::new(), ended: None }
    }

    /// One on which a WebSocket is open.
    fn open(protocol: Protocol) -> Line {
        let mut line = Line::new();
        line.hear(&request(protocol.path(), &format!("Sec-WebSocket-Protocol: {}\r\n", protocol.name())));
        assert!(line.out.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"), "{}", String::from_utf8_lossy(&line.out));
        line.out.clear();
        line
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.ended.is_some() {
            return;
        }
        let mut replies = Vec::new();
        let (door, frames) = (&mut self.door, &mut self.frames);
        let read = Core::with(&self.users, |core| door.received(bytes, core, frames, &mut replies));
        self.ended = read.err();
        if let Some(reason) = self.ended {
            Encoder::default().error(&mut replies, Tag::default(), reason, "");
        }
        self.say(&replies);
    }

    fn say(&mut self, frames: &[u8]) {
        let (door, out) = (&mut self.door, &mut self.out);
        Core::with(&self.users, |core| door.send(frames, core, out));
    }

    fn heard(mut self, bytes: &[u8]) -> Line {
        self.hear(bytes);
        self
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The code of the Close frame, which must be the last that went out.
    fn close_code(&self) -> Option<u16> {
        let mut rest = &self.out[..];
        while let [first, length, after @ ..] = rest {
            let (bytes, after) = match length {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                short => (usize::from(*short), after),
            };
            let (payload, after) = after.split_at(bytes);
            if *first == 0x88 {
                assert!(after.is_empty(), "nothing follows a Close frame");
                return Some(u16::from_be_bytes([payload[0], payload[1]]));
            }
            rest = after;
        }
        None
    }
}

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const USUAL: &str = "Host: here:7480\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n";

fn request(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{USUAL}{KEY}{more}\r\n").into_bytes()
}

/// A client's frame: its first byte, and its payload masked.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    let start = frame.len();
    frame.extend_from_slice(payload);
    read::unmask(&mut frame[start..], mask);
    frame
}

fn event() -> Vec<u8> {
    let presence = Encoder::default().presence(&PresenceFields { resource: "phone", ..PresenceFields::default() });
    let version = Version { epoch: 1, sequence: 2 };
    let head = Head { user: UserId(5), version, session: SessionId(3), show: Show::Available, flags: 0 };
    let mut frames = Vec::new();
    event::write(&mut frames, head, &presence);
    frames
}

#[test]
fn the_request_of_the_rfc_gets_its_answer() {
    let line = Line::new().heard(&request("/ws", "Sec-WebSocket-Protocol: other, fanal.json.v1\r\nOrigin: http://here:7480\r\n"));
    let answer = line.text();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: fanal.json.v1\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(!answer.contains("Extensions"), "permessage-deflate is declined by silence");
    assert_eq!(line.ended, None);
    assert!(!line.frames.is_empty(), "the native Hello was said for it");
}

#[test]
fn what_is_no_good_request_gets_an_answer_that_says_why_and_the_connection_ends() {
    let ws = "Sec-WebSocket-Protocol: fanal.json.v1\r\n";
    let many: String = (0..40).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(9000));
    let get = |headers: &str| format!("GET /ws HTTP/1.1\r\n{headers}\r\n").into_bytes();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n".to_vec(), "400"),
        (b"<stream:stream>\r\n\r\n".to_vec(), "400"),
        (b"GET /ws HTTP/1.1\r\n\r\n".to_vec(), "400"),
        (get("Host: a b\r\n"), "400"),
        (get("Host: here\r\nHost: there\r\n"), "400"),
        (get("Host: here\r\n"), "426"),
        (get(&format!("{}{KEY}{ws}", USUAL.replace("13", "8"))), "426"),
        (get(&format!("{}{KEY}{ws}", USUAL.replace("keep-alive, Upgrade", "close"))), "426"),
        (get(&format!("{USUAL}{ws}")), "400"),
        (get(&format!("{USUAL}{ws}Sec-WebSocket-Key: short\r\n")), "400"),
        (request("/ws", "Sec-WebSocket-Protocol: xmpp\r\n"), "400"),
        (request("/ws", ""), "400"),
        (request("/ws", &format!("{ws}Origin: https://elsewhere.example\r\n")), "403"),
        (request("/ws", &format!("{ws}Origin: null\r\n")), "403"),
        (request("/ws", &format!("{ws}Content-Length: 5\r\n")), "400"),
        (request("/ws", &format!("{ws}Transfer-Encoding: chunked\r\n")), "400"),
        (request("/ws", &format!("{ws}{many}")), "431"),
        (request("/ws", &format!("{ws}{long}")), "431"),
        (request("/elsewhere", ws), "404"),
        (request("/demo", ws), "404"),
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(), "404"),
        (format!("POST /ws HTTP/1.1\r\n{USUAL}{KEY}{ws}\r\n").into_bytes(), "405"),
        (b"DELETE /demo HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(), "405"),
        (format!("GET /ws HTTP/1.0\r\n{USUAL}{KEY}{ws}\r\n").into_bytes(), "400"),
    ];
    for (asked, status) in cases {
        let line = Line::new().heard(&asked);
        let (asked, answer) = (String::from_utf8_lossy(&asked), line.text());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with('\n'), "{answer}");
        assert_eq!(
            answer.matches("HTTP/1.1").count() - answer.matches("needs HTTP/1.1").count(),
            1 + answer.matches("speak HTTP/1.1").count()
        );
        assert!(line.ended.is_some() && line.frames.is_empty(), "{asked}");
    }
}

#[test]
fn an_unsupported_version_is_told_which_one_is_spoken() {
    let asked = format!("GET /ws HTTP/1.1\r\n{}{KEY}\r\n", USUAL.replace("13", "8"));
    assert!(Line::new().heard(asked.as_bytes()).text().contains("\r\nSec-WebSocket-Version: 13\r\n"));
}

#[test]
fn pages_are_given_and_the_connection_closes() {
    let get = |path: &str| Line::new().heard(format!("GET {path} HTTP/1.1\r\nHost: chat.example:7480\r\n\r\n").as_bytes());
    for (path, content_type, part) in [
        ("/demo", "text/html", "<script"),
        ("/demo?x=1", "text/html", "<script"),
        ("/demo/demo.js", "text/javascript", "import"),
        ("/demo/demo.css", "text/css", "body"),
        ("/fanal/fanal.js", "text/javascript", "export class Fanal"),
        ("/fanal/contacts.js", "text/javascript", "export class Contacts"),
        ("/fanal/scram.js", "text/javascript", "export class Scram"),
        ("/fanal/token.js", "text/javascript", "export class Showing"),
        ("/.well-known/host-meta", "application/xrd+xml", "href='ws://chat.example:7480/xmpp-websocket'"),
        ("/.well-known/host-meta.json", "application/json", "\"href\":\"ws://chat.example:7480/xmpp-websocket\""),
    ] {
        let line = get(path);
        let answer = line.text();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(&format!("Content-Type: {content_type}")), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains(part), "{path}");
        assert!(line.ended.is_some());
    }
    let head = Line::new().heard(b"HEAD /demo HTTP/1.1\r\nHost: here\r\n\r\n").text();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn host_meta_says_wss_on_a_private_connection_and_what_the_operator_says_anywhere() {
    let ask = b"GET /.well-known/host-meta.json HTTP/1.1\r\nHost: here\r\n\r\n";
    let mut line = Line::new();
    line.door.secured();
    assert!(line.heard(ask).text().contains("wss://here/xmpp-websocket"));
    let rules = Rules { xmpp: Some(xmpp_rules()), url: Some("wss://example.org".into()), ..Rules::new(1000) };
    let line = Line { door: WebSocket::new(Arc::new(rules)), ..Line::new() };
    assert!(line.heard(ask).text().contains("wss://example.org/xmpp-websocket"));
}

#[test]
fn within_a_web_socket_no_tls_is_offered() {
    let xmpp = xmpp::Rules { start_tls: xmpp::StartTls::Required, ..(*xmpp_rules()).clone() };
    let rules = Rules { xmpp: Some(Arc::new(xmpp)), ..Rules::new(1000) };
    let mut line = Line { door: WebSocket::new(Arc::new(rules)), ..Line::new() };
    line.hear(&request(Protocol::Xmpp.path(), "Sec-WebSocket-Protocol: xmpp\r\n"));
    line.hear(&masked(0x81, b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>"));
    let text = line.text();
    assert!(text.contains("<stream:features") && !text.contains("starttls"), "{text}");
}

#[test]
fn an_empty_word_of_the_tls_below_is_no_message() {
    for protocol in [Protocol::Native, Protocol::Json, Protocol::Xmpp] {
        let mut line = Line::new();
        line.door.secured();
        let mut frames = Vec::new();
        write_raw(&mut frames, 0, |_| ());
        line.hear(&request(protocol.path(), &format!("Sec-WebSocket-Protocol: {}\r\n", protocol.name())));
        let before = line.out.len();
        line.say(&frames);
        assert_eq!(line.out.len(), before, "{protocol:?}");
    }
}

#[test]
fn only_origins_that_are_listed_come_in_besides_our_own() {
    let mut rules = Rules::new(1000);
    assert!(rules.lets_in("https://here:7480", "here:7480") && !rules.lets_in("https://here", "here:7480"));
    assert!(!rules.lets_in("https://example.org", "here") && !rules.lets_in("null", "here"));
    rules.origins = vec!["https://example.org".into()];
    assert!(rules.lets_in("https://EXAMPLE.org", "here") && !rules.lets_in("https://example.org.evil", "here"));
    rules.origins = vec!["*".into()];
    assert!(rules.lets_in("https://anything", "here"));
}

#[test]
fn wherever_the_bytes_are_cut_the_same_comes_in_and_goes_out() {
    let stream = [
        request("/ws", "Sec-WebSocket-Protocol: fanal.json.v1\r\n"),
        masked(0x81, br#"{"type":"ping","id":1}"#),
        masked(0x01, br#"{"type":"log_out","#),
        masked(0x89, b"ping"),
        masked(0x80, "\"status\":\"\u{e9}\"}".as_bytes()),
        masked(0x81, format!(r#"{{"type":"probe","jid":"{}"}}"#, "x".repeat(300)).as_bytes()),
        masked(0x88, &1001u16.to_be_bytes()),
    ]
    .concat();
    let whole = Line::new().heard(&stream);
    assert_eq!(whole.close_code_after_head(), Some(1001));
    for cut in 0..stream.len() {
        let mut line = Line::new();
        line.hear(&stream[..cut]);
        line.hear(&stream[cut..]);
        assert_eq!((line.out, line.frames, line.ended), (whole.out.clone(), whole.frames.clone(), whole.ended), "cut at {cut}");
    }
}

impl Line {
    fn close_code_after_head(&self) -> Option<u16> {
        let head = self.out.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        let line = Line { out: self.out[head..].to_vec(), ..Line::new() };
        line.close_code()
    }
}

#[test]
fn every_illegal_frame_ends_the_connection_with_its_own_code() {
    let mut unmasked = masked(0x81, b"x");
    unmasked[1] &= 0x7f;
    let with_length = |bytes: &[u8]| [&[0x81][..], bytes, &[0; 4]].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not masked", unmasked, PROTOCOL_ERROR),
        ("first reserved bit", masked(0xc1, b"x"), PROTOCOL_ERROR),
        ("second reserved bit", masked(0xa1, b"x"), PROTOCOL_ERROR),
        ("third reserved bit", masked(0x91, b"x"), PROTOCOL_ERROR),
        ("a continuation of nothing", masked(0x80, b"x"), PROTOCOL_ERROR),
        ("a message inside a message", [masked(0x01, b"x"), masked(0x81, b"y")].concat(), PROTOCOL_ERROR),
        ("a fragmented ping", masked(0x09, b"x"), PROTOCOL_ERROR),
        ("a fragmented close", masked(0x08, b""), PROTOCOL_ERROR),
        ("a long ping", masked(0x89, &[0; 126]), PROTOCOL_ERROR),
        ("a length with two bytes too many", with_length(&[0x80 | 126, 0, 5]), PROTOCOL_ERROR),
        ("a length with six bytes too many", with_length(&[0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0]), PROTOCOL_ERROR),
        ("a negative length", with_length(&[0x80 | 127, 0x80, 0, 0, 0, 0, 0, 1, 0]), PROTOCOL_ERROR),
        ("the longest length", with_length(&[0x80 | 127, 0x7f, 255, 255, 255, 255, 255, 255, 255]), TOO_BIG),
        ("too long", masked(0x81, &[b'x'; 1001]), TOO_BIG),
        ("too long in pieces", [masked(0x01, &[b'x'; 600]), masked(0x80, &[b'x'; 600])].concat(), TOO_BIG),
        ("no UTF-8", masked(0x81, b"\xff"), read::NOT_SENSE),
        ("half a character", masked(0x81, &"\u{e9}".as_bytes()[..1]), read::NOT_SENSE),
        ("a surrogate", masked(0x81, b"\xed\xa0\x80"), read::NOT_SENSE),
        ("bytes where text is spoken", masked(0x82, b"x"), UNSUPPORTED),
        ("half a close code", masked(0x88, b"x"), PROTOCOL_ERROR),
        ("a close reason that is no text", masked(0x88, b"\x03\xe8\xff"), read::NOT_SENSE),
    ];
    let reserved = (3..=7).chain(11..=15).map(|opcode| ("a reserved opcode", masked(0x80 | opcode, b""), PROTOCOL_ERROR));
    let codes = [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535];
    let codes = codes.map(|code| ("a code that may not be sent", masked(0x88, &code.to_be_bytes()), PROTOCOL_ERROR));
    for (what, bytes, code) in cases.into_iter().chain(reserved).chain(codes) {
        for protocol in [Protocol::Json, Protocol::Xmpp] {
            let line = Line::open(protocol).heard(&bytes);
            assert_eq!((line.close_code(), line.ended), (Some(code), Some(Reason::BadFrame)), "{what}");
        }
    }
    let line = Line::open(Protocol::Native).heard(&masked(0x81, b"x"));
    assert_eq!((line.close_code(), line.ended), (Some(UNSUPPORTED), Some(Reason::BadFrame)));
}

#[test]
fn a_close_is_answered_with_its_code_and_the_session_may_be_resumed() {
    for code in [1000u16, 1001, 1003, 1007, 1014, 3000, 4999] {
        let line = Line::open(Protocol::Json).heard(&masked(0x88, &code.to_be_bytes()));
        assert_eq!((line.close_code(), line.ended), (Some(code), Some(Reason::ConnectionLost)));
    }
    assert_eq!(Line::open(Protocol::Json).heard(&masked(0x88, b"")).close_code(), Some(1000));
}

#[test]
fn what_the_shard_ends_is_said_in_words_and_with_a_close_code() {
    let mut error = Vec::new();
    Encoder::default().error(&mut error, Tag::default(), Reason::ShuttingDown, "");
    let mut line = Line::open(Protocol::Json);
    line.say(&[error.clone(), event()].concat());
    assert_eq!(line.close_code(), Some(1012));
    assert!(line.text().contains(r#""name":"shutting_down""#), "{}", line.text());
    let mut native = Line::open(Protocol::Native);
    native.say(&error);
    assert_eq!((native.close_code(), &native.out[2..2 + error.len()]), (Some(1012), &error[..]));
    let mut asking = Line::new();
    asking.say(&error);
    assert!(asking.text().starts_with("HTTP/1.1 503 "), "{}", asking.text());
    assert!(asking.ended.is_none() && asking.text().ends_with('\n'));
}

#[test]
fn pings_are_answered_in_between_and_counted_once_the_native_door_was_greeted() {
    let mut line = Line::open(Protocol::Json);
    line.frames.clear();
    line.hear(&[masked(0x89, b"abc"), masked(0x8a, b""), masked(0x01, b"")].concat());
    assert_eq!(line.out, b"\x8a\x03abc");
    assert_eq!(each_whole(&line.frames).map(|frame| frame.header.kind).collect::<Vec<_>>(), [Kind::Pong; 3]);
    let mut native = Line::open(Protocol::Native);
    native.hear(&masked(0x89, b"abc"));
    assert_eq!((&native.out[..], native.frames.len()), (&b"\x8a\x03abc"[..], 0));
}

#[test]
fn a_ping_of_the_node_is_one_that_browsers_answer_by_themselves() {
    let mut ping = Vec::new();
    Encoder::default().ping(&mut ping, Tag::default(), 7);
    let mut line = Line::open(Protocol::Json);
    line.say(&ping);
    assert_eq!(line.out, [0x89, 0]);
    let mut native = Line::open(Protocol::Native);
    native.say(&ping);
    assert_eq!(native.out[2..], ping);
}

#[test]
fn native_frames_go_through_as_they_are() {
    let mut hello = Vec::new();
    Encoder::default().hello(&mut hello, Tag::request(1), "test");
    let two = [&hello[..], &hello].concat();
    let mut line = Line::open(Protocol::Native).heard(&masked(0x82, &two));
    assert_eq!((&line.frames, line.ended), (&two, None));
    line.say(&[event(), event()].concat());
    assert_eq!(line.out[4..], [event(), event()].concat(), "one binary message for all that was gathered");
    for bad in [&two[..two.len() - 8], &b"\0"[..], &[&hello[..], b"\0\0\0\0"].concat()] {
        let line = Line::open(Protocol::Native).heard(&masked(0x82, bad));
        assert_eq!((line.close_code(), line.frames.len()), (Some(read::NOT_SENSE), 0));
    }
}

#[test]
fn an_event_written_at_fan_out_is_the_message_that_the_event_becomes() {
    let (frame, mut written) = (event(), Vec::new());
    json::write_form(&mut written, &Bare::new("bob@localhost").unwrap(), &event::read(&frame[HEADER_BYTES..]).unwrap());
    let mut line = Line::open(Protocol::Json);
    line.say(&frame);
    let one = std::mem::take(&mut line.out);
    line.say(&[&written[..], &frame, &written, &written, &frame].concat());
    assert_eq!(line.out, one.repeat(5));
}

#[test]
fn a_message_that_json_cannot_have_is_told_what_is_wrong() {
    for (message, part) in
        [("{", "JSON"), ("[]", "an object"), (r#"{"type":"x"}"#, "unknown"), (r#"{"type":"probe"}"#, "jid is missing")]
    {
        let line = Line::open(Protocol::Json).heard(&masked(0x81, message.as_bytes()));
        assert_eq!(line.close_code(), Some(read::NOT_SENSE), "{message}");
        assert!(line.text().contains(r#"{"type":"error","reason":100,"name":"bad_frame","text":""#), "{}", line.text());
        assert!(line.text().contains(part), "{}", line.text());
    }
}

#[test]
fn an_idle_session_of_json_is_small() {
    let mut line = Line::open(Protocol::Json).heard(&masked(0x81, br#"{"type":"roster_get","id":1}"#));
    let mut logged_in = Vec::new();
    let fields = LoggedInAs { jid: "alice@localhost/phone", ..LoggedInAs::default() };
    Encoder::default().logged_in(&mut logged_in, Tag::request(1), &fields);
    line.say(&logged_in);
    assert!(line.door.heap_bytes() <= 160, "{} bytes", line.door.heap_bytes());
}
