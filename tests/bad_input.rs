//! Bad input of every kind at the doors of a served node, a case a line: each gets the standard's own error, then the connection
//! closes. Two bystanders, one native and one of XMPP, tell each other their presence all along and miss none of it, and the node's
//! memory is bounded. What isn't here is in `node_ws` (JSON over WebSocket), `tls_sockets`, `node_limits` and `xmpp_bad`.
mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::config::{Config, StoreKind};
use fanal::client::{Client, Event, LogIn, Presence};
use fanal::metrics::table::Report;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::served::Served;
use support::web::{close_code, frame, read_to_end, upgrade};
use support::xmpp::{OPEN, SASL, Xmpp, plain};
use support::{LONG, available, until};

/// By how much the node may have grown, in KB: what its allocator keeps, and what belongs to the bystanders.
const GROWTH_KB: u64 = 32 << 10;

/// A node with all doors, in a process of its own.
struct Site {
    node: Served,
    _folder: tempfile::TempDir,
    before_kb: u64,
    bystanders: Option<(Sender<()>, JoinHandle<u32>)>,
}

impl Site {
    fn start(change: impl FnOnce(&mut Config)) -> Site {
        let (folder, mut config) = (tempfile::tempdir().unwrap(), Config::default());
        let any_port = Some("127.0.0.1:0".parse().unwrap());
        (config.listen.xmpp, config.listen.xmpps, config.listen.ws) = (any_port, any_port, any_port);
        (config.login.plain, config.store.kind) = (true, StoreKind::Memory);
        // Whoever means ill may try again and again.
        config.limits.exempt = Vec::new();
        change(&mut config);
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // The tokens of a node that keeps nothing can't be made elsewhere, so everybody has a password.
        let node = Served::start_with_config(&data, 2, &config);
        let admin = fanal::admin::client::Client::new(node.admin, None);
        for name in ["alice", "bob", "mallory"] {
            admin.add_user(&format!("{name}@localhost"), Some(name)).unwrap();
        }
        let (stop, stopped) = channel();
        let (mut alice, mut bob) = bystanders(&node);
        let thread = std::thread::spawn(move || {
            let mut told = 0;
            // A pace, and the end.
            while stopped.recv_timeout(Duration::from_millis(5)).is_err() {
                told += 1;
                converse(&mut alice, &mut bob, told);
            }
            told
        });
        let before_kb = memory_kb(&node, "VmRSS:");
        Site { node, _folder: folder, before_kb, bystanders: Some((stop, thread)) }
    }

    fn address(&self, door: &str) -> SocketAddr {
        self.node.doors[door]
    }

    fn report(&self) -> Report {
        fanal::admin::client::Client::new(self.node.admin, None).stats().unwrap()
    }

    /// Waits until only the bystanders are left.
    fn is_quiet(&self) {
        let began = Instant::now();
        while self.report().all.gauges["connections"] > 2 {
            assert!(began.elapsed() < LONG, "connections are left: {:?}", self.report().all.gauges);
        }
    }

    /// Nobody is left, the bystanders missed nothing, and the node is as small as before.
    fn end_well(mut self) {
        self.is_quiet();
        let (stop, thread) = self.bystanders.take().unwrap();
        stop.send(()).expect("the bystanders are well");
        assert!(thread.join().expect("the bystanders missed nothing") > 0);
        let (after, most) = (memory_kb(&self.node, "VmRSS:"), memory_kb(&self.node, "VmHWM:"));
        assert!(after < self.before_kb + GROWTH_KB && most < self.before_kb + 2 * GROWTH_KB, "{} {after} {most}", self.before_kb);
        self.node.stop();
    }
}

fn memory_kb(node: &Served, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Two who see each other.
fn bystanders(node: &Served) -> (Client, Xmpp) {
    let mut alice = Client::connect(&node.native.to_string(), LONG).unwrap();
    alice.log_in("alice@localhost", LogIn::Password("alice"), "here").unwrap();
    let mut bob = Xmpp::log_in(node.doors["xmpp"], "bob");
    available(&mut alice);
    alice.approve("bob@localhost").unwrap();
    bob.say("<presence/><presence type='subscribed' to='alice@localhost'/>");
    bob.say("<presence type='subscribe' to='alice@localhost'/><iq type='get' id='sync'><ping xmlns='urn:xmpp:ping'/></iq>");
    bob.until("id='sync'");
    alice.roster().unwrap();
    alice.subscribe("bob@localhost", "").unwrap();
    until(&mut alice, |event| matches!(event, Event::Presence(_)).then_some(()));
    (alice, bob)
}

/// Each hears what the other says next, and nothing else.
fn converse(alice: &mut Client, bob: &mut Xmpp, n: u32) {
    alice.set_presence(&Presence { status: n.to_string(), resource: "here".into(), ..Presence::default() }).unwrap();
    // He hears himself, too.
    let heard = loop {
        let heard = bob.until("</presence>");
        if heard.contains(" from='alice@localhost/here'") && heard.contains("<status>") {
            break heard;
        }
    };
    assert!(heard.contains(&format!("<status>{n}</status>")), "{n}: {heard}");
    bob.say(&format!("<presence><status>{n}</status></presence>"));
    let heard = until(alice, |event| match event {
        Event::Presence(event) => event.presence,
        _ => None,
    });
    assert_eq!(heard.status, n.to_string());
}

/// What whoever means ill is told before the connection closes.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// RFC 6120 4.9.3.
    Stream(&'static str),
    /// RFC 6120 6.5, and the stream's end after so many attempts.
    Sasl(&'static str),
    /// RFC 6455 7.4.
    Close(u16),
    /// HTTP's status, in place of a WebSocket.
    Http(u16),
    /// An alert of TLS.
    Alert,
}

impl Told {
    fn check(self, what: &str, heard: &[u8]) {
        let text = String::from_utf8_lossy(heard);
        let stream_error = |condition: &str| {
            text.contains(&format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"))
                && text.ends_with("</stream:stream>")
        };
        let good = match self {
            Told::Stream(condition) => stream_error(condition),
            Told::Sasl(condition) => text.contains(&format!("<failure {SASL}><{condition}/>")) && stream_error("policy-violation"),
            Told::Close(code) => close_code(heard) == Some(code),
            Told::Http(status) => text.starts_with(&format!("HTTP/1.1 {status} ")),
            Told::Alert => heard.first() == Some(&21),
        };
        assert!(good, "{what}: {self:?}, not {text}");
    }
}

/// Says it, whether it is taken or not, and hears all that comes.
fn ask(door: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(door).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    say(&mut socket, bytes);
    read_to_end(socket)
}

fn say(socket: &mut TcpStream, bytes: &[u8]) {
    if let Err(error) = socket.write_all(bytes) {
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    }
}

/// What is wrong in any stream.
fn bad_xml() -> Vec<(&'static str, Vec<u8>, Told)> {
    let many = |what: &str, times| what.repeat(times);
    let body = |bytes: &[u8]| [b"<message><body>", bytes, b"</body></message>"].concat();
    let attributes: String = (0..5000).map(|n| format!("a{n}='' ")).collect();
    let bomb = format!("<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol1 '{}'>]><message>&lol1;</message>", many("&lol;", 1000));
    let policy = Told::Stream("policy-violation");
    let (restricted, malformed) = (Told::Stream("restricted-xml"), Told::Stream("not-well-formed"));
    let encoding = Told::Stream("unsupported-encoding");
    vec![
        ("10,000 levels", many("<a>", 10_000).into(), policy),
        ("10,000 levels of a stanza", format!("<message>{}", many("<a>", 10_000)).into(), policy),
        ("a megabyte in an attribute", format!("<message a='{}'/>", many("x", 1 << 20)).into(), policy),
        ("a megabyte in a name", format!("<{}/>", many("x", 1 << 20)).into(), policy),
        ("a megabyte in a stanza", body(&[b'x'; 1 << 20]), policy),
        ("5000 attributes", format!("<message {attributes}/>").into(), policy),
        ("5000 elements", format!("<message>{}</message>", many("<a/>", 5000)).into(), policy),
        ("a bomb of entities", bomb.into(), restricted),
        ("an external entity", "<!DOCTYPE x [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><message>&x;</message>".into(), restricted),
        ("an entity of nobody", "<message>&lol;</message>".into(), restricted),
        ("a comment", "<!-- a comment -->".into(), restricted),
        ("a processing instruction", "<?php 1 ?>".into(), restricted),
        ("NUL", body(b"\0"), malformed),
        ("a number of NUL", body(b"&#0;"), malformed),
        ("elements that cross", "<message></presence>".into(), malformed),
        ("a prefix of nobody", "<x:message/>".into(), Told::Stream("bad-namespace-prefix")),
        ("a byte that no character has", body(b"\xff"), encoding),
        ("a character longer than it must be", body(b"\xc0\x80"), encoding),
        ("half a surrogate", body(b"\xed\xa0\x80"), encoding),
        ("a character beyond the last", body(b"\xf4\x90\x80\x80"), encoding),
        ("a character that stops halfway", body(b"\xf0\x9f\x98"), encoding),
    ]
}

/// What is wrong in a log-in, whatever step it is in.
fn bad_sasl() -> Vec<(&'static str, String, Told)> {
    let scram = |first: &str| format!("<auth {SASL} mechanism='SCRAM-SHA-256'>{}</auth>", BASE64_STANDARD.encode(first));
    let begun = scram("n,,n=alice,r=abc");
    let (malformed, refused) = (Told::Sasl("malformed-request"), Told::Sasl("not-authorized"));
    vec![
        ("no such mechanism", format!("<auth {SASL} mechanism='NONSENSE'>=</auth>"), Told::Sasl("invalid-mechanism")),
        ("no base64", format!("<auth {SASL} mechanism='PLAIN'>!!</auth>"), Told::Sasl("incorrect-encoding")),
        ("no message", format!("<auth {SASL} mechanism='PLAIN'>=</auth>"), malformed),
        ("no UTF-8", format!("<auth {SASL} mechanism='PLAIN'>/w==</auth>"), malformed),
        ("an answer to nothing", format!("<response {SASL}>=</response>"), malformed),
        ("a SCRAM without a name", scram("n,,"), malformed),
        ("a wrong escape", scram("n,,n=a=xyz,r=1"), malformed),
        ("a channel that isn't", scram("p=tls-unique,,n=alice,r=1"), refused),
        ("a wrong password", plain("alice", "wrong"), refused),
        ("nobody", plain("nobody", "nobody"), refused),
        ("a wrong proof", format!("{begun}<response {SASL}>bm9uc2Vuc2U=</response>"), refused),
        ("a log-in begun and left", format!("{begun}<abort {SASL}/>"), Told::Sasl("aborted")),
    ]
}

#[test]
fn what_is_no_xml_and_no_log_in_gets_its_stream_error() {
    let site = Site::start(|config| config.limits.throttle_ms = 1);
    let door = site.address("xmpp");
    for (what, bytes, told) in bad_xml() {
        told.check(what, &ask(door, &[OPEN.as_bytes(), &bytes].concat()));
        let mut mallory = Xmpp::log_in(door, "mallory");
        say(&mut mallory.0, &bytes);
        told.check(what, &read_to_end(mallory.0));
    }
    for (what, text, told) in bad_sasl() {
        told.check(what, &ask(door, format!("{OPEN}{}", text.repeat(10)).as_bytes()));
    }
    for (what, text, condition) in [
        ("another host", OPEN.replace("localhost", "elsewhere.org"), "host-unknown"),
        ("another protocol", OPEN.replace("etherx", "etherz"), "invalid-namespace"),
        ("a stanza too early", format!("{OPEN}<presence/>"), "not-authorized"),
        ("somebody else's name", String::new(), "invalid-from"),
        ("more than may come", String::new(), "policy-violation"),
    ] {
        let heard = match condition {
            "invalid-from" => {
                let mut mallory = Xmpp::log_in(door, "mallory");
                mallory.say("<message from='alice@localhost' to='bob@localhost'><body>x</body></message>");
                read_to_end(mallory.0)
            }
            _ if text.is_empty() => {
                let mut mallory = Xmpp::log_in(door, "mallory");
                say(&mut mallory.0, "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>".repeat(30_000).as_bytes());
                read_to_end(mallory.0)
            }
            _ => ask(door, text.as_bytes()),
        };
        Told::Stream(condition).check(what, &heard);
    }
    site.end_well();
}

#[test]
fn characters_may_be_cut_at_every_byte_and_what_is_none_is_found_there_too() {
    let site = Site::start(|_| {});
    let mut mallory = Xmpp::log_in(site.address("xmpp"), "mallory");
    let ping = "<iq type='get' id='gr\u{fc}\u{df}e \u{20ac} \u{1f600} &#x1F600;'><ping xmlns='urn:xmpp:ping'/></iq>";
    for cut in 0..=ping.len() {
        let (one, other) = ping.as_bytes().split_at(cut);
        mallory.0.write_all(one).unwrap();
        mallory.0.write_all(other).unwrap();
        let heard = mallory.until("</iq>");
        assert!(heard.contains("id='gr\u{fc}\u{df}e \u{20ac} \u{1f600} \u{1f600}'"), "{cut}: {heard}");
    }
    for byte in ping.bytes() {
        mallory.0.write_all(&[byte]).unwrap();
    }
    mallory.until("</iq>");
    for byte in b"<message><body>\xe2\x82(</body>" {
        // The last of them may come when it is over already.
        say(&mut mallory.0, &[*byte]);
    }
    Told::Stream("unsupported-encoding").check("half a character", &read_to_end(mallory.0));
    site.end_well();
}

#[test]
fn what_is_no_websocket_and_no_xmpp_in_it_gets_its_close_code() {
    let site = Site::start(|_| {});
    let upgrade = upgrade("/xmpp-websocket", "xmpp");
    let open = frame(0x81, b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>");
    let after = |bytes: Vec<u8>| [open.clone(), bytes].concat();
    for (what, bytes, told) in [
        ("not masked", vec![0x81, 1, b'<'], Told::Close(1002)),
        ("a reserved bit", frame(0xc1, b"<a/>"), Told::Close(1002)),
        ("a reserved opcode", frame(0x83, b""), Told::Close(1002)),
        ("a fragmented ping", frame(0x09, b""), Told::Close(1002)),
        ("a continuation of nothing", frame(0x80, b"<a/>"), Told::Close(1002)),
        ("a message inside a message", [frame(0x01, b"<"), frame(0x81, b"a/>")].concat(), Told::Close(1002)),
        ("a ping of 126 bytes", [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(), Told::Close(1002)),
        ("a close code of nobody", frame(0x88, &1005u16.to_be_bytes()), Told::Close(1002)),
        ("half a close code", frame(0x88, &[3]), Told::Close(1002)),
        ("bytes", frame(0x82, b"<a/>"), Told::Close(1003)),
        ("no UTF-8", frame(0x81, b"<a b='\xff'/>"), Told::Close(1007)),
        ("a gigabyte", [0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0].to_vec(), Told::Close(1009)),
        ("a good end", frame(0x88, &1000u16.to_be_bytes()), Told::Close(1000)),
    ] {
        let heard = ask(site.address("ws"), &[upgrade.as_bytes(), &bytes].concat());
        told.check(what, &heard);
        let heard = ask(site.address("ws"), &[upgrade.as_bytes(), &after(bytes)].concat());
        told.check(what, &heard);
    }
    for (what, request, status) in [
        ("no upgrade", upgrade.replace("Upgrade: websocket\r\n", ""), 426),
        ("no key", upgrade.replace("dGhlIHNhbXBsZSBub25jZQ==", ""), 400),
        ("another version", upgrade.replace("Version: 13", "Version: 7"), 426),
        ("no HTTP", "\r\n\r\n\r\n".to_owned(), 400),
        ("a head without an end", format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20)), 431),
    ] {
        Told::Http(status).check(what, &ask(site.address("ws"), request.as_bytes()));
    }
    site.end_well();
}

#[test]
fn what_is_begun_and_never_continued_is_ended_in_time() {
    let site = Site::start(|config| config.limits.log_in_ms = 1000);
    let hello = client_hello();
    let slow = Told::Stream("connection-timeout");
    let cases: Vec<(&str, &str, Vec<u8>, Option<Told>)> = vec![
        ("nothing", "xmpp", Vec::new(), Some(slow)),
        ("half a stream's head", "xmpp", OPEN.as_bytes()[..40].to_vec(), Some(slow)),
        ("a stream", "xmpp", OPEN.into(), Some(slow)),
        ("half a log-in", "xmpp", format!("{OPEN}<auth {SASL} mechanism='PLAIN'/>").into(), Some(slow)),
        ("no handshake", "xmpps", Vec::new(), None),
        ("half a hello", "xmpps", hello[..100].to_vec(), None),
        ("no hello", "xmpps", OPEN.into(), Some(Told::Alert)),
        ("half a request", "ws", b"GET /ws HTTP/1.1\r\nHost: ".to_vec(), Some(Told::Http(408))),
        ("a WebSocket", "ws", upgrade("/xmpp-websocket", "xmpp").into(), Some(Told::Close(1008))),
    ];
    let sockets = cases.iter().map(|(_, door, bytes, _)| {
        let mut socket = TcpStream::connect(site.address(door)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.write_all(bytes).unwrap();
        socket
    });
    let sockets: Vec<TcpStream> = sockets.collect();
    for ((what, _, _, told), socket) in cases.iter().zip(sockets) {
        let heard = read_to_end(socket);
        told.iter().for_each(|told| told.check(what, &heard));
    }
    assert!(site.report().all.dropped["log_in_too_slow"] > 0);
    site.end_well();
}

/// The first bytes of a handshake.
fn client_hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let mut client = rustls::ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// A connection from an address of one's choice.
fn from(address: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn ten_thousand_connections_come_and_go_with_and_without_handshakes() {
    let site = Site::start(|config| config.limits.connections_per_address = 200);
    let (hello, upgrade) = (client_hello(), upgrade("/ws", "fanal.json.v1"));
    let doors = ["xmpp", "xmpps", "ws", "native"];
    let said: [&[u8]; 5] = [b"", OPEN.as_bytes(), &hello, &hello[..100], upgrade.as_bytes()];
    for round in 0..10 {
        let sockets = (0..1000_usize).map(|n| {
            // Five addresses a round: of each, 200 are let in by a core, at most.
            let mut socket = from(IpAddr::from([127, 1, round, 1 + (n % 5) as u8]), site.address(doors[n % 4]));
            say(&mut socket, said[n % 7 % 5]);
            socket
        });
        drop(sockets.collect::<Vec<_>>());
    }
    let told = ask(site.address("xmpp"), format!("{OPEN}</stream:stream>").as_bytes());
    assert!(String::from_utf8_lossy(&told).ends_with("</stream:stream>"), "who means well comes in");
    let began = Instant::now();
    while site.report().all.counters["accepts"] < 10_000 {
        assert!(began.elapsed() < LONG, "all of them are seen");
    }
    site.end_well();
}

#[test]
fn an_address_has_its_share_of_connections_and_no_more() {
    let site = Site::start(|config| config.limits.connections_per_address = 50);
    let address = IpAddr::from([127, 2, 0, 1]);
    let greedy: Vec<TcpStream> = (0..400).map(|_| from(address, site.address("xmpp"))).collect();
    let began = Instant::now();
    while site.report().all.dropped["too_many_connections"] < 300 {
        assert!(began.elapsed() < LONG, "the rest is refused");
    }
    for (door, told) in [("xmpp", Told::Stream("resource-constraint")), ("ws", Told::Http(503))] {
        told.check("one more", &read_to_end(from(address, site.address(door))));
    }
    assert_eq!(read_to_end(from(address, site.address("xmpps"))), b"", "who expects TLS hears no other words");
    assert_eq!(Xmpp::log_in(site.address("xmpp"), "mallory").0.shutdown(std::net::Shutdown::Both).ok(), Some(()));
    drop(greedy);
    site.end_well();
}

#[test]
fn who_never_reads_is_ended_and_costs_no_more_than_a_backlog() {
    let site = Site::start(|config| {
        let limits = &mut config.limits;
        (limits.stalled_ms, limits.bytes_burst, limits.user_bytes_burst) = (1000, 64 << 20, 64 << 20);
        (limits.high_water_bytes, limits.backlog_bytes) = (128 << 10, 512 << 10);
    });
    let mut sloth = Xmpp::log_in(site.address("xmpp"), "mallory");
    let ping = format!("<iq type='get' id='{}'><ping xmlns='urn:xmpp:ping'/></iq>", "x".repeat(1000));
    let pings = ping.repeat(1000);
    // Its own socket buffers fill, then the kernel's here, then its line; then it is over, and the rest isn't taken any more.
    for _ in 0..12 {
        say(&mut sloth.0, pings.as_bytes());
    }
    let began = Instant::now();
    while site.report().all.dropped["never_reads"] == 0 {
        assert!(began.elapsed() < LONG, "it never reads");
    }
    drop(sloth);
    site.end_well();
}
