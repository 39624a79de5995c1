//! The fuzz targets on stable: seeded mutations of good frames and messages, the same ones each time.

#[path = "../fuzz/targets.rs"]
mod targets;
mod wire_crossings;
mod wire_samples;

use fanal::base::credentials::ScramCredentials;
use fanal::base::id::{NodeId, SessionId, UserId, Version};
use fanal::base::jid::Bare;
use fanal::base::time::{Time, WallClock};
use fanal::ownership::{Command, Coordinator, Follower, Myself, Output, Stored, Terms, encode as write_message};
use fanal::store::rows::{self, Row};
use fanal::store::{Table, Write};
use fanal::wire::complex::{self, Compression, Packer};
use fanal::wire::encode::Encoder;
use fanal::wire::event::Head;
use fanal::wire::frame::HEADER_BYTES;
use fanal::wire::link::{Frame, Hello, Life, Purpose, Site};
use fanal::wire::native::Show;
use std::sync::Mutex;
use std::thread::available_parallelism;

/// Mutations of each seed for each target that it's made for, and for each other one: some hundred thousand in all, in a few
/// seconds. `scripts/fuzz` goes on from there.
const ROUNDS: usize = 500;
const STRAY_ROUNDS: usize = 20;

/// Bytes to begin with, and the targets that they are made for.
type Seed = (&'static [&'static str], Vec<u8>);

const FRAMES: &[&str] = &["frames", "door", "codec"];
const BODIES: &[&str] = &["presence_flatbuffer"];
const SASL: &[&str] = &["sasl", "token"];
const OPERATORS: &[&str] = &["http", "config", "jid"];
const STORED: &[&str] = &["rows"];
const OWNERS: &[&str] = &["ownership", "rows"];
const XMPP: &[&str] = &["xmpp", "xml"];
const TLS: &[&str] = &["tls"];
const PAGES: &[&str] = &["web_socket", "json"];
const LINKS: &[&str] = &["link", "lane"];
const COMPLEX: &[&str] = &["complex"];
const CLUSTERS: &[&str] = &["border", "clusters"];

/// SplitMix64: the tests need the same numbers each time, not good ones.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ number >> 31) % bound as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.below(256) as u8,
                2 => bytes[at] = [0, 1, 4, 8, 0x7f, 0x80, 0xff][self.below(7)],
                3 => bytes.truncate(at),
                4 => bytes.insert(at, self.below(256) as u8),
                _ => {
                    let piece = bytes[at..bytes.len().min(at + 1 + self.below(16))].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
    }
}

fn seeds() -> Vec<Seed> {
    let client: Vec<Vec<u8>> = wire_samples::of_client().into_iter().map(|sample| sample.bytes).collect();
    let server: Vec<Vec<u8>> = wire_samples::of_server().into_iter().map(|sample| sample.bytes).collect();
    let mut encoder = Encoder::default();
    let sessions = client.iter().flat_map(|frame| {
        let mut start = Vec::new();
        encoder.hello(&mut start, wire_samples::TAG, "fuzz");
        encoder.log_in(&mut start, wire_samples::TAG, &wire_samples::LOG_IN);
        (0..4).map(move |how| [&[how], &start[..], frame].concat()).collect::<Vec<_>>()
    });
    let texts = [
        "n,,n=user,r=rOprNGfwEbeRWgbNEkqO\nc=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "n,a=user@localhost,n=us=2Cer,r=x\nc=biws,r=x,p=",
        "p=tls-exporter,,n=user,r=x\nc=cD10bHMtZXhwb3J0ZXIsLAkJ,r=xBwcHBwcHBwcHBwcHBwcHBwcHBwcH,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "p=tls-server-end-point,,n=user,r=x\nc=cD10bHMtc2VydmVyLWVuZC1wb2ludCws,r=x,p=",
        "\0user\0pencil",
        "r=nonce,s=c2FsdA==,i=1\nv=AAAA",
        "fanal1.dXNlcnwxODAwMDAwMDAwMDAwfGFsaWNlQGxvY2FsaG9zdA.6VKeWUNVON4LjLUwFIlkedMVOa8W-l6_Dul6bdRIdUw",
    ];
    let texts = texts.into_iter().map(|text| text.as_bytes().to_vec());
    let bodies = [client.clone(), server.clone()].concat().into_iter().map(|frame| frame[HEADER_BYTES..].to_vec());
    let sessions: Vec<Vec<u8>> = sessions.collect();
    let all = [
        (FRAMES, [client, server, sessions].concat()),
        (SASL, texts.collect()),
        (OPERATORS, texts_of_operators().collect()),
        (STORED, rows().collect()),
        (OWNERS, owners().collect()),
        (XMPP, xmpp().collect()),
        (TLS, hellos().collect()),
        (PAGES, pages().collect()),
        (LINKS, links().collect()),
        (COMPLEX, complex().collect()),
        (CLUSTERS, wire_crossings::all(&Encoder::default().presence(&wire_samples::PRESENCE))),
        (BODIES, bodies.collect()),
    ];
    all.into_iter().flat_map(|(of, seeds)| seeds.into_iter().map(move |seed| (of, seed))).collect()
}

/// What a client of TLS 1.2 and 1.3 says first, cut in its header and in its middle, and what others say.
fn hellos() -> impl Iterator<Item = Vec<u8>> {
    let digits: Vec<u8> = HELLO.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
    let hello: Vec<u8> = digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    let cut = [3, 100].map(|at| [&[at][..], &hello].concat());
    cut.into_iter().chain([b"\x09<?xml version='1.0'?>".to_vec(), b"\x02\x15\x03\x01\x00\x02\x02\x28".to_vec()])
}

/// A ClientHello of rustls.
const HELLO: &str = "
    16030100eb010000e703037596218385b2792e03154f6e0b432b5e3fffefa1fc7dd6a99047cbb8685bc14d201c20fb154e65e5a3bba8bf
    a47dd6d293a3e99d676e7cc0cfe08fb0ee56fcf8890014130213011303c02cc02bcca9c030c02fcca800ff0100008a000d001c001a0503
    040306030807080608050804060105010401090409050906002b000504030403030000000e000c0000096c6f63616c686f737400050005
    0100000000002d000201010017000000230000003300260024001d0020b0e21f4d9cc38049d06c8067c93d8bfb328d814871228756e138
    48752856577b000b00020100000a00040002001d
";

/// What either end of a lane may hear, with what the target `lane` needs before it.
fn links() -> impl Iterator<Item = Vec<u8>> {
    let (low, high) = (Site { cluster: 1, node: NodeId(1) }, Site { cluster: 1, node: NodeId(2) });
    let (life, known) = (Life { epoch: 3, term: 1 }, Some(Life { epoch: 9, term: 0 }));
    let (purpose, digest) = (Purpose::Inside, [7; 32]);
    let hello = Hello { from: low, to: high, purpose, cores: 2, lane: 0, attempt: 1, life, known, received: 0, digest };
    let talk: Vec<u8> = [
        Frame::Ping(1),
        Frame::Entry { sequence: 1, bytes: b"entry" },
        Frame::Update { tag: 4, bytes: &[5; 24] },
        Frame::Complex { sequence: Some(2), bytes: b"tight" },
        Frame::Complex { sequence: None, bytes: b"loose" },
        Frame::Ack(1),
        Frame::Pong(2),
        Frame::Bye(fanal::base::reason::LinkReason::Leaving),
    ]
    .iter()
    .flat_map(Frame::encode)
    .collect();
    let first = [(0, Frame::Hello(hello)), (3, Frame::Welcome(Hello { from: high, to: low, ..hello }))];
    let alone = talk.clone();
    first.into_iter().map(move |(how, first)| [&[how], &first.encode()[..], &talk].concat()).chain([alone])
}

/// Complex messages, packed in every way.
fn complex() -> impl Iterator<Item = Vec<u8>> {
    let presence = Encoder::default().presence(&wire_samples::PRESENCE).into_boxed_slice();
    [Compression::Lz4, Compression::Zstd, Compression::None].into_iter().map(move |compression| {
        let mut rows: Vec<complex::Row> = (1..9u32)
            .map(|n| {
                let version = Version { epoch: n % 2, sequence: n };
                let (user, session) = (UserId::new(1, 200 * n as u16 / 2, n), SessionId(n));
                complex::Row { head: Head { user, version, session, show: Show::Away, flags: 0 }, presence: n % 2 }
            })
            .collect();
        let (mut out, others) = (Vec::new(), [&b"first"[..], &[7; 40]]);
        let presences = [presence.clone(), Box::default()];
        Packer::new(compression, &[]).unwrap().pack(&mut out, others.into_iter(), &mut rows, &presences);
        out
    })
}

/// WebSockets, cut in their requests, and JSON messages.
fn pages() -> impl Iterator<Item = Vec<u8>> {
    let socket = |cut: u8, path: &str, protocol: &str, frames: &[&[u8]]| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        [&[cut], head.as_bytes(), &frames.concat()].concat()
    };
    let frame = |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    let ping = frame(0x89, b"there?");
    let json = [frame(0x01, br#"{"type":"pi"#), ping.clone(), frame(0x80, br#"ng","id":1}"#), frame(0x88, &[0x03, 0xe8])].concat();
    let open = frame(0x81, b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>");
    let sockets = [
        socket(9, "/ws", "fanal.json.v1", &[&json]),
        socket(70, "/ws", "fanal.fb.v1", &[&ping, &frame(0x82, b"")]),
        socket(60, "/xmpp-websocket", "xmpp", &[&open, &frame(0x81, b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")]),
        b"\x03GET /demo HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ];
    let book = include_str!("../schemas/JSON.md").lines().filter(|line| line.starts_with("{\"type\"") && line.ends_with('}'));
    sockets.into_iter().chain(book.map(|line| line.as_bytes().to_vec()))
}

/// Requests to the admin port, configurations and JIDs.
fn texts_of_operators() -> impl Iterator<Item = Vec<u8>> {
    let texts = [
        "\x20GET /users?after=alice%40localhost&limit=7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "\x50POST /users HTTP/1.1\r\nHost: [::1]:7401\r\nAuthorization: Bearer abc\r\nContent-Type: application/json\r\n\
         Content-Length: 41\r\n\r\n{\"jid\": \"bob@localhost\",\"password\": \"pw\"}",
        "\x01{\"jid\": \"alice@localhost\", \"address\": \"\\u0041.example.org:7400\"}",
        "\x01{\"users\": [{\"jid\": \"a@b\", \"id\": \"0x1\", \"node\": 2, \"sessions\": 1, \"contacts\": 1}], \"next\": null, \
         \"missing\": [3]}",
        "[node]\ndomain = \"example.org\"\ncores = [0, 1]\n[limits]\nframe_bytes = 32_768 # é\n[metrics]\nsample = 0x10\n",
        "[login]\ntoken_keys = ['0123456789abcdef0123456789abcdef']\nplain = true\n[store]\nkind = \"memory\"",
        "Ali\u{e9}ce@b\u{fc}cher.example/B\u{e4}lle",
        "alic\u{213b}nxn-\u{f6}crrgcc\u{345}\u{f6}crrm@lxx.ll",
        "alice@[::1]/\u{212b}ngstr\u{f6}m",
    ];
    texts.into_iter().map(|text| text.as_bytes().to_vec())
}

/// What XMPP clients say before their log-in and in their session.
fn xmpp() -> impl Iterator<Item = Vec<u8>> {
    let texts = [
        "\x00\x20<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'><auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' \
         mechanism='SCRAM-SHA-256'>biwsbj11c2VyLHI9YWJj</auth>",
        "\x00\x30<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'><authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>AHVzZXIAcGVuY2ls</initial-response><user-agent id='7'/><resume xmlns='urn:xmpp:sm:3' previd='1' h='0'/>\
         <bind xmlns='urn:xmpp:bind:0'><tag>t</tag><enable xmlns='urn:xmpp:sm:3' resume='1'/><enable xmlns='urn:xmpp:carbons:2'/>\
         <inactive xmlns='urn:xmpp:csi:0'/></bind></authenticate><presence/>",
        "\x01\x30<presence xml:lang='de'><show>away</show><status xml:lang='en'>&lt;</status><priority>-1</priority>\
         <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/><x:y xmlns:x='z' x:a='1'>t</x:y></presence>",
        "<presence id='a'><show>away</show><status>gr\u{fc}n</status>\n<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' \
         node=\"n\" ver='v='/></presence> <message to='user@localhost/r'><body>&amp;</body><x:y xmlns:x='z'/></message><iq/>",
        "\x03\x40<message to='user@localhost' type='chat' id='1'><body>gr\u{fc}\u{df}e</body><thread>t</thread></message>\
         <r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='1'/>\
         <iq type='get' id='2' to='a@localhost/b'><ping xmlns='urn:xmpp:ping'/></iq>",
        "\x01\x10<iq type='set' id='3'><query xmlns='jabber:iq:roster'>\
         <item jid='b@localhost' name='B'><group>g</group></item></query></iq>\
         <iq type='set' id='4'><block xmlns='urn:xmpp:blocking'><item jid='c@localhost'/></block></iq></stream:stream>",
        "\x01\x50<presence type='subscribe' to='b@localhost'><status>hi</status></presence><presence to='c@localhost/d'/>\
         <iq type='get' id='5' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
        "\x01\x60<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/></presence>\
         <iq type='result' id='caps-1' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'>\
         <feature var='urn:m+notify'/></query></iq>\
         <iq type='set' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item id='1'/></publish>\
         <publish-options><x xmlns='jabber:x:data'><field var='pubsub#access_model'><value>open</value></field></x>\
         </publish-options></pubsub></iq>",
    ];
    texts.into_iter().map(|text| text.as_bytes().to_vec())
}

/// A row of each table of the store, with the table's number and the key's length before it.
fn rows() -> impl Iterator<Item = Vec<u8>> {
    let (alice, carol) = (Bare::new("alice@localhost").unwrap(), Bare::new("carol@localhost").unwrap());
    let (user, stamp, note) = (UserId::new(0, 9, 4), WallClock(5), "hi".to_owned());
    let scram = Some(ScramCredentials::from_password("pencil", b"salt", 1));
    let contact = rows::Contact { user, state: 3, name: "Carol".into(), groups: vec!["friends".into()] };
    let pair = rows::pair_key(&alice, &carol);
    let message = rows::Message {
        user,
        from: "carol@localhost".into(),
        from_resource: "phone".into(),
        to_resource: None,
        kind: 1,
        id: "m1".into(),
        body: b"hello".into(),
        extensions: String::new(),
        stamp,
    };
    let rows = [
        (Table::Meta, rows::serial_key(9), rows::encode_u32(4)),
        (Table::Accounts, rows::user_key(&carol), rows::Account { user, scram, created: stamp }.encode()),
        (Table::Roster, pair.clone(), contact.encode()),
        (Table::Requests, pair.clone(), rows::Request { note: note.clone(), user, stamp, extensions: String::new() }.encode()),
        (Table::Blocked, pair, Vec::new()),
        (Table::LastPresence, rows::user_key(&alice), rows::LastPresence { stamp, presence: vec![1; 9] }.encode()),
        (
            Table::Ways,
            rows::way_key(&alice, &carol, 6),
            rows::Way { kind: 4, note, from_user: user, to_user: user, arrived: Some(6), extensions: String::new() }.encode(),
        ),
        (Table::Messages, rows::message_key(&alice, 7), message.encode()),
        (Table::Documents, rows::document_key(&alice, "card"), rows::Document { data: vec![7; 9], access: 1 }.encode()),
    ];
    rows.into_iter().map(|(table, key, value)| {
        let number = Table::ALL.iter().position(|&other| other == table).expect("every table is in the list");
        [&[number as u8, key.len() as u8][..], &key, &value].concat()
    })
}

/// What a node and its coordinator say to each other, and what the coordinator stores.
fn owners() -> impl Iterator<Item = Vec<u8>> {
    let (link, terms) = ("127.0.0.1:7402".parse().unwrap(), Terms { lease_ms: 2_000, take_over: true });
    let doors = vec![("native".to_owned(), link)];
    let me = Myself { node: NodeId(1), identity: 7, start: 1, keeps: true, cores: 2, link, doors };
    let mut follower = Follower::new(Time(5), terms, me);
    let mut coordinator = Coordinator::new(Time(5), terms, 1, Stored::default());
    let (mut bytes, mut stored) = (Vec::new(), Vec::new());
    for round in 0..8 {
        for ask in follower.take_asks() {
            bytes.push(write_message(&ask, Vec::new()));
            coordinator.ask(Time(5), NodeId(1), ask);
        }
        for output in coordinator.take() {
            match output {
                Output::Tell { tell, .. } => {
                    bytes.push(write_message(&tell, Vec::new()));
                    follower.hear(Time(5), tell);
                }
                Output::Store(writes) => {
                    stored.extend(writes);
                    coordinator.stored(Time(5), Ok(()));
                }
            }
        }
        follower.command(Time(5), Command::Assign(round));
    }
    let number = |table: Table| Table::ALL.iter().position(|&other| other == table).expect("every table is in the list") as u8;
    let row =
        |write: &Write| [&[number(write.table), write.key.len() as u8][..], &write.key, write.value.as_ref().unwrap()].concat();
    bytes.extend(stored.iter().map(row));
    bytes.into_iter()
}

/// `scripts/fuzz` says where cargo-fuzz finds what it begins with; else they go where nobody keeps them.
#[test]
fn seeds_are_written_for_cargo_fuzz() {
    let nowhere = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("FANAL_FUZZ_SEEDS").map(std::path::PathBuf::from);
    let directory = kept.as_deref().unwrap_or(nowhere.path());
    let mut seeds: Vec<Vec<u8>> = seeds().into_iter().map(|(_, seed)| seed).collect();
    seeds.sort();
    seeds.dedup();
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(directory.join(format!("seed-{number:03}")), seed).unwrap();
    }
    assert!(std::fs::read_dir(directory).unwrap().count() >= seeds.len());
}

#[test]
fn every_target_has_its_program() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for (name, _) in targets::ALL {
        let program = std::fs::read_to_string(format!("{}/fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(program.contains(&format!("targets::{name}(data)")) && manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

fn run_on_mutations(seeds: &[Seed], mut numbers: Numbers, name: &str, target: targets::Target) {
    assert!(seeds.iter().any(|(of, _)| of.contains(&name)), "nothing is made for {name}");
    for (at, (of, seed)) in seeds.iter().enumerate() {
        for round in 0..if of.contains(&name) { ROUNDS } else { STRAY_ROUNDS } {
            let mut bytes = seed.clone();
            if round > 0 {
                numbers.mutate(&mut bytes);
            }
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{name}, seed {at}, round {round}: {bytes:02x?}");
        }
    }
}

/// The processors share the targets, the slow ones (the last) first; a target's numbers are its own, whoever runs it.
#[test]
fn no_decoder_panics_on_mutated_input() {
    let (seeds, targets) = (seeds(), Mutex::new(targets::ALL.iter().enumerate().rev()));
    let work = || {
        loop {
            let Some((number, (name, target))) = targets.lock().unwrap().next() else { return };
            run_on_mutations(&seeds, Numbers(number as u64), name, *target);
        }
    };
    std::thread::scope(|scope| (0..available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work))));
}

#[test]
fn no_decoder_panics_on_noise() {
    for (number, (name, target)) in targets::ALL.iter().enumerate() {
        let mut numbers = Numbers(1000 + number as u64);
        for round in 0..3000 {
            let bytes: Vec<u8> = (0..numbers.below(200)).map(|_| numbers.below(256) as u8).collect();
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{name}, round {round}: {bytes:02x?}");
        }
    }
}

/// Presence is small enough to change every byte to every value.
#[test]
fn our_presence_reader_and_the_general_verifier_agree_on_every_changed_byte() {
    let bytes = Encoder::default().presence(&wire_samples::PRESENCE);
    for at in 0..bytes.len() {
        for value in 0..=u8::MAX {
            let mut changed = bytes.clone();
            changed[at] = value;
            targets::presence_flatbuffer(&changed);
        }
        targets::presence_flatbuffer(&bytes[..at]);
    }
}
