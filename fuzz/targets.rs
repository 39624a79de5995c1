//! What each fuzz target does with its bytes: run every decoder and read everything it gives. None may panic, and what they
//! say must be consistent. They cover all bytes that come from outside: from clients (`frames`, `door`, `presence_flatbuffer`,
//! `web_socket`, `json`, `xmpp`, `xml`, `sasl`, `token`, `tls`, `jid`), servers (`codec`), other nodes (`link`, `lane`,
//! `ownership`) and clusters (`complex`, `border`, `clusters`), operators (`http`, `config`) and the disk (`rows`). `scripts/fuzz`
//! has cargo-fuzz feed them; `tests/wire_fuzz.rs` does on stable, with mutations of good frames.

mod links;

use fanal::admin::http::{self, Parsed};
use fanal::admin::{ClientList, NewUser, TransferOrder, UserPage, read_json};
use fanal::base::config::Config;
use fanal::base::credentials::{Hash, ScramCredentials};
use fanal::base::id::{SessionId, UserId, Version};
use fanal::base::jid::Bare;
use fanal::base::limits::{JID_PART_BYTES, Limits};
use fanal::base::reason::Reason;
use fanal::base::secrets::Secrets;
use fanal::base::time::{Time, WallClock};
use fanal::client::codec::Codec;
use fanal::client::inbox::Inbox;
use fanal::front::binding::{Bindings, EndPoint};
use fanal::front::json::{self, Json};
use fanal::front::native::{Door, Rules};
use fanal::front::sasl::{Decoys, PlainCheck, Scram, Terms as ScramTerms, plain_password};
use fanal::front::tls::{Application, Certificates, HANDSHAKE_BYTES, Identity, Terms, Tls};
use fanal::front::token::Keys;
use fanal::front::translate::{Core, Translate, Users};
use fanal::front::ws::{self, WebSocket};
use fanal::front::xmpp::{self, StartTls, Xmpp};
use fanal::metrics::table::Report;
use fanal::ownership::{Ask, Slots, Stored, Tell, decode as read_message, encode as write_message};
use fanal::presence::home::{Homes, Place};
use fanal::store::Table;
use fanal::store::rows::{self, Row};
use fanal::wire::decode::{self, ClientFrame};
use fanal::wire::encode::{Encoder, Greeting, LoggedInAs, MessageFields, Tag};
use fanal::wire::event::{self, Head};
use fanal::wire::frame::{Chunk, Frames, each_whole};
use fanal::wire::native::{Access, Kind, Presence, Show};
use fanal::wire::presence;
use fanal::wire::xml::{Bounds, Fault, Item, Parsers, Reader};
use std::hint::black_box;
use std::sync::{Arc, LazyLock};

pub use links::{border, clusters, complex, lane, link};

pub type Target = fn(&[u8]);

/// Every target by name.
pub const ALL: &[(&str, Target)] = &[
    ("frames", frames),
    ("door", door),
    ("codec", codec),
    ("presence_flatbuffer", presence_flatbuffer),
    ("sasl", sasl),
    ("token", token),
    ("tls", tls),
    ("rows", rows),
    ("ownership", ownership),
    ("http", http),
    ("config", config),
    ("jid", jid),
    ("web_socket", web_socket),
    ("json", json),
    ("xmpp", xmpp),
    ("xml", xml),
    ("link", link),
    ("lane", lane),
    ("complex", complex),
    ("border", border),
    ("clusters", clusters),
];

/// Splits the bytes where the first one says; whole or in two, the same frames must be found.
pub fn frames(data: &[u8]) {
    let Some((&at, stream)) = data.split_first() else { return };
    let split = |pieces: &[&[u8]]| {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            let mut chunk = Chunk::new(piece);
            loop {
                match frames.next(&mut chunk, 4096) {
                    Ok(Some(frame)) => found.push(Ok((frame.header, frame.body.to_vec()))),
                    Ok(None) => break,
                    Err(reason) => {
                        found.push(Err(reason));
                        return found;
                    }
                }
                assert!(frames.heap_bytes() <= 4096);
            }
        }
        found
    };
    let (first, second) = stream.split_at(usize::from(at).min(stream.len()));
    assert_eq!(split(&[stream]), split(&[first, second]));
}

/// Feeds a door, and says yes to every log-in; the first byte decides between session and trunk.
pub fn door(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let rules = Rules::new(&Limits::default());
    let (mut door, mut chunk, mut now) = (Door::default(), Chunk::new(stream), Time(1));
    loop {
        now = Time(now.0 + 1_000_000);
        let Ok(Some(incoming)) = door.next(&mut chunk, &rules) else { return };
        read_client_frame(&incoming.frame);
        match how % 4 {
            _ if !door.is_deciding() => {}
            0 => door.opened(),
            1 => door.opened_trunk(),
            2 => door.challenged(),
            _ => {
                let (next, unread) = Door::resume_from(std::mem::take(&mut door).leave(chunk));
                door = next;
                assert!(door.next(&mut Chunk::new(&unread), &rules).is_ok_and(|incoming| incoming.is_some()));
                return;
            }
        }
    }
}

fn read_client_frame(frame: &ClientFrame<'_>) {
    match frame {
        ClientFrame::Hello(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Ping(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Pong(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Message(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::LogIn { log_in, presence } => {
            drop(black_box(format!("{log_in:?}")));
            presence.iter().for_each(|presence| presence_flatbuffer(presence.bytes));
        }
        ClientFrame::Bind { presence, .. } => presence.iter().for_each(|presence| presence_flatbuffer(presence.bytes)),
        ClientFrame::SaslResponse(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Resume(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::LogOut(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::SetPresence(presence) | ClientFrame::DirectedPresence { presence, .. } => presence_flatbuffer(presence.bytes),
        ClientFrame::Probe(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Subscription(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::RosterSet(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Block(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Ack(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::RosterGet(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::DocumentSet(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::DocumentGet(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Interests(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Carbons(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Activity(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::LastSeenGet(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Register(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::PasswordSet(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::BlockListGet | ClientFrame::AccountRemove => {}
    }
}

/// Feeds a client, which reads every field of every frame into values.
pub fn codec(data: &[u8]) {
    let (mut codec, mut chunk, mut inbox, mut out) = (Codec::default(), Chunk::new(data), Inbox::of_session(), Vec::new());
    while let Ok(Some(received)) = codec.next(&mut chunk) {
        if inbox.take(&received, &mut out).is_err() {
            return;
        }
    }
    // What the client sends by itself is sound.
    let (mut frames, mut chunk) = (Frames::default(), Chunk::new(&out));
    while let Some(frame) = frames.next(&mut chunk, 4096).expect("a client writes good frames") {
        assert!(decode::from_client(frame.header.kind, frame.body).is_ok());
    }
}

/// Our reader of Presence and the general verifier agree, and read the same.
pub fn presence_flatbuffer(data: &[u8]) {
    let general = flatbuffers::root::<Presence>(data);
    match presence::read(data) {
        Err(_) => assert!(!general.is_ok_and(|presence| presence.show().0 <= Show::ENUM_MAX), "refused what is sound"),
        Ok(view) => {
            let general = general.expect("took what is not sound");
            let fields = view.fields();
            assert_eq!(fields.resource, general.resource());
            assert_eq!((fields.show, fields.priority), (general.show(), general.priority()));
            assert_eq!((fields.status, fields.caps), (general.status().unwrap_or(""), general.caps().unwrap_or("")));
            assert_eq!((fields.idle_since, fields.stamp), (general.idle_since(), general.stamp()));
            assert_eq!(fields.payload, general.payload().map_or(&[][..], |payload| payload.bytes()));
            assert!(decode::from_client(Kind::SetPresence, data).is_ok() == (fields.stamp == 0));
        }
    }
}

/// The bytes are a first message and, after a line feed, a second one. Nobody gets in with them.
pub fn sasl(data: &[u8]) {
    let user = Bare::new("user@localhost").expect("a JID");
    let credentials = Decoys::new([7; 32]).or(Some(&ScramCredentials::from_password("pencil", b"salt", 1)), &user);
    let (first, second) = match data.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    for (hash, bound) in [(Hash::Sha1, true), (Hash::Sha256, true), (Hash::Sha1, false), (Hash::Sha256, false)] {
        let channel = Bindings { exporter: bound.then_some([9; 32]), end_point: EndPoint::new(&[7; 48]).filter(|_| bound) };
        let terms = ScramTerms { hash, bound, channel };
        if let Some((scram, _)) = Scram::start(terms, first, &user, &credentials, [7; 18]) {
            assert_eq!(scram.finish(second), None);
        }
    }
    if let Some(password) = plain_password(first, &user) {
        black_box(PlainCheck::new(password.to_owned(), credentials).run());
    }
    if let Ok((scram, _)) = fanal::client::sasl::Scram::start(&user, "pencil", None, &[""; 0])
        && let Ok((proof, _)) = scram.respond(first)
    {
        assert!(proof.check(second).is_err());
    }
}

/// No bytes are a good token: nobody knows the key.
pub fn token(data: &[u8]) {
    let keys = Keys::new([b"0123456789abcdef"]).expect("a key");
    let user = Bare::new("user@localhost").expect("a JID");
    assert!(keys.verify_user(data, &user, WallClock(0)).is_err());
    assert!(keys.verify_trunk(data, WallClock(0)).is_err());
}

/// What a node's handshakes go by: made once, since a key is.
static TLS: LazyLock<Terms> = LazyLock::new(|| {
    let pem = fanal::node::certificates::self_signed("localhost").expect("a certificate");
    let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes()).expect("a sound one");
    Terms::new(Arc::new(Certificates::new(identity))).expect("random numbers")
});

/// The start of a handshake, whole and cut where the first byte says: the same comes of it, nothing is ever heard through it, and
/// who fails is told why.
pub fn tls(data: &[u8]) {
    let Some((&at, stream)) = data.split_first() else { return };
    let run = |pieces: &[&[u8]]| {
        let (mut tls, mut plain, mut out) = (Tls::new(&TLS, Application::Xmpp).expect("sound terms"), Vec::new(), Vec::new());
        let failed = pieces.iter().any(|piece| tls.received(piece, &mut plain).is_err());
        assert!(!failed || tls.has_pending() || stream.is_empty());
        tls.send(b"dropped", &mut out).expect("nothing is encrypted");
        assert!(plain.is_empty() && tls.is_handshaking() && tls.bindings().is_empty());
        assert!(tls.heap_bytes() < 2 * HANDSHAKE_BYTES + stream.len());
        (failed, out.len())
    };
    let (first, second) = stream.split_at(usize::from(at).min(stream.len()));
    let (whole, cut) = (run(&[stream]), run(&[first, second]));
    assert_eq!(whole.0, cut.0);
}

/// What nodes say to each other about who owns what. What was read is written and read the same; a table takes any line.
pub fn ownership(data: &[u8]) {
    if let Some(ask) = read_message::<Ask>(data) {
        assert_eq!(read_message(&write_message(&ask, Vec::new())), Some(ask));
    }
    let Some(tell) = read_message::<Tell>(data) else { return };
    if let Tell::Delta(delta) = &tell {
        let mut slots = Slots::default();
        black_box(slots.apply(delta));
        slots.merge(&delta.assignments);
        assert_eq!(slots.merge(&delta.assignments), [], "what is known is not new");
        black_box(slots.since(0));
    }
    assert_eq!(read_message(&write_message(&tell, Vec::new())), Some(tell));
}

/// One row more in a store that has an account, a contact and a way. The first byte chooses the table, the second the key's length.
pub fn rows(data: &[u8]) {
    let [table, key_bytes, row @ ..] = data else { return };
    let table = Table::ALL[usize::from(*table) % Table::ALL.len()];
    let (key, value) = row.split_at(usize::from(*key_bytes).min(row.len()));
    _ = black_box(Stored::default().load(key, value));
    reencode::<rows::Account>(value);
    reencode::<rows::Contact>(value);
    reencode::<rows::Request>(value);
    reencode::<rows::LastPresence>(value);
    reencode::<rows::Way>(value);
    reencode::<rows::Message>(value);
    reencode::<rows::Document>(value);
    let limits = Arc::new(Limits::default());
    let (domain, wall_at_zero) = ("localhost".to_owned(), WallClock(0));
    let place = Place { cluster: 0, directory: 0, epoch: 1, domain, limits, wall_at_zero };
    let mut homes = Homes::new(place, ahash::RandomState::with_seeds(1, 2, 3, 4), Secrets::new([7; 32]));
    for (table, key, value) in stored() {
        homes.load(table, &key, &value).expect("a sound row");
    }
    if stored().iter().any(|(_, stored, _)| stored == key) {
        return;
    }
    if let Err(why) = homes.load(table, key, value) {
        assert!(!why.is_empty());
    }
}

/// Rows in the order in which they are loaded.
fn stored() -> [(Table, Vec<u8>, Vec<u8>); 3] {
    let jid = |text| Bare::new(text).expect("a JID");
    let (alice, bob) = (jid("alice@localhost"), jid("bob@localhost"));
    let account = rows::Account { user: UserId::new(0, 7, 1), scram: None, created: WallClock(1) };
    let contact = rows::Contact { state: 1, name: "Bob".into(), groups: vec!["friends".into()], ..rows::Contact::default() };
    let (note, extensions) = (String::new(), String::new());
    let way = rows::Way { kind: 0, note, from_user: account.user, to_user: account.user, arrived: None, extensions };
    [
        (Table::Accounts, rows::user_key(&alice), account.encode()),
        (Table::Roster, rows::pair_key(&alice, &bob), contact.encode()),
        (Table::Ways, rows::way_key(&alice, &bob, 3), way.encode()),
    ]
}

/// What a row is taken for is written so that it's read again.
fn reencode<R: Row>(value: &[u8]) {
    if let Ok(row) = R::decode(value) {
        assert!(R::decode(&row.encode()).is_ok());
    }
}

/// Requests to the admin port, cut where the first byte says: cut or whole, the same is found. Then what their bodies hold, and
/// what a node answers.
pub fn http(data: &[u8]) {
    let Some((&at, stream)) = data.split_first() else { return };
    let (first, _) = stream.split_at(usize::from(at).min(stream.len()));
    let whole = http::parse(stream);
    match http::parse(first) {
        Ok(Parsed::Whole(request, bytes)) => {
            assert!(bytes <= first.len());
            assert_eq!(whole, Ok(Parsed::Whole(request, bytes)));
        }
        Ok(Parsed::More | Parsed::MoreBody { .. }) => {}
        Err(fault) => assert!((400..600).contains(&fault.status) && !fault.text.is_empty()),
    }
    let body = match whole {
        Ok(Parsed::Whole(request, _)) => request.body,
        _ => stream.to_vec(),
    };
    drop(black_box(read_json::<NewUser>(&mut body.clone())));
    drop(black_box(read_json::<TransferOrder>(&mut body.clone())));
    drop(black_box(read_json::<UserPage>(&mut body.clone())));
    drop(black_box(read_json::<ClientList>(&mut body.clone())));
    drop(black_box(read_json::<Report>(&mut body.clone())));
}

/// Any text is a sound configuration, or an error that says where.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse("fanal.toml", text) {
        Ok(config) => assert!(config.check().is_ok()),
        Err(error) => assert!(error.to_string().starts_with("fanal.toml:")),
    }
}

/// A JID that was taken is in its prepared form, within the limits, and the same when it's read again.
pub fn jid(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((jid, resource)) = Bare::with_resource(text) {
        assert!(jid.as_str().len() <= 2 * JID_PART_BYTES + 1 && resource.is_none_or(|resource| resource.len() <= JID_PART_BYTES));
        assert_eq!(Bare::new(jid.as_str()), Some(jid));
    }
    if let Some(jid) = Bare::new(text) {
        assert!(jid.domain().len() <= JID_PART_BYTES && !jid.as_str().contains(['\0', '/']));
    }
}

/// Nobody is known by number.
struct Nobody;

impl Users for Nobody {
    fn jid(&self, _: UserId) -> Option<&Bare> {
        None
    }
}

fn with_core<T>(work: impl FnOnce(&mut Core<'_>) -> T) -> T {
    let (mut random, mut follow) = (|| 4, Vec::new());
    let (xmpp, json, follow) = (&mut xmpp::Memory::default(), &mut json::Memory::default(), &mut follow);
    work(&mut Core::lending(&mut random, &Nobody, (xmpp, json), follow))
}

/// A WebSocket, cut where the first byte says: cut or whole, the same comes of it, and what goes inside is whole frames.
pub fn web_socket(data: &[u8]) {
    let Some((&at, stream)) = data.split_first() else { return };
    let rules = xmpp::Rules {
        domain: "localhost".into(),
        stanza_bytes: 10_000,
        start_tls: xmpp::StartTls::No,
        registration: false,
        location: None,
    };
    let mut web_rules = ws::Rules::new(10_000);
    web_rules.xmpp = Some(Arc::new(rules));
    let rules = Arc::new(web_rules);
    let run = |pieces: &[&[u8]]| {
        let (mut door, mut frames, mut out) = (WebSocket::new(rules.clone()), Vec::new(), Vec::new());
        for piece in pieces {
            let mut replies = Vec::new();
            let read = with_core(|core| door.received(piece, core, &mut frames, &mut replies));
            if let Err(reason) = read {
                Encoder::default().error(&mut replies, Tag::default(), reason, "");
            }
            with_core(|core| door.send(&replies, core, &mut out));
            assert!(door.heap_bytes() < 64 << 10);
            if read.is_err() {
                break;
            }
        }
        (frames, out)
    };
    let (first, second) = stream.split_at((usize::from(at) * 4).min(stream.len()));
    let whole = run(&[stream]);
    assert_eq!(each_whole(&whole.0).map(|frame| frame.header.frame_bytes()).sum::<usize>(), whole.0.len());
    assert_eq!(whole, run(&[first, second]));
}

/// A JSON message is a sound frame of a client, or a fault that is short.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut frames = Vec::new();
    match Json::default().received(text, &mut json::Memory::default(), &mut frames) {
        Ok(()) => each_whole(&frames).for_each(|frame| assert!(decode::from_client(frame.header.kind, frame.body).is_ok())),
        Err(fault) => assert!(frames.is_empty() && fault.text().len() < 1000),
    }
}

/// What a stream says behind its opening is the same whole, when plain stanzas are read the short way, and byte by byte, when the
/// parser reads all of it.
pub fn xml(data: &[u8]) {
    let stream = [XMPP_OPENING, data].concat();
    assert_eq!(items(&[&stream]), items(&stream.chunks(1).collect::<Vec<_>>()));
}

fn items(pieces: &[&[u8]]) -> (Vec<Item>, Option<Fault>) {
    let (mut reader, mut parsers, mut found) = (Reader::default(), Parsers::default(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match reader.next(&mut rest, Bounds { stanza_bytes: 10_000 }, &mut parsers) {
                Ok(Some(item)) => found.push(item),
                Ok(None) => break,
                Err(fault) => return (found, Some(fault)),
            }
        }
    }
    (found, None)
}

/// An XMPP client says something, before its log-in or after it, cut where the second byte says; a core answers. What the core gets
/// are sound frames, and what the client gets is well-formed.
pub fn xmpp(data: &[u8]) {
    let [how, at, said @ ..] = data else { return };
    let mut talk = Talk::new();
    if how % 2 == 1 {
        talk.say(XMPP_OPENING);
        talk.say(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHVzZXIAcGVuY2ls</auth>");
        talk.say(XMPP_OPENING);
        talk.say(b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        assert!(talk.heard.ends_with(b"</bind></iq>"), "a good log-in");
    }
    if how % 4 == 3 {
        talk.say(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    }
    let (first, second) = said.split_at(usize::from(*at).min(said.len()));
    talk.say(first);
    talk.say(second);
}

const XMPP_OPENING: &[u8] = b"<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

/// An XMPP client and a core that says yes to nearly everything.
struct Talk {
    translator: Xmpp,
    memory: xmpp::Memory,
    json: json::Memory,
    encoder: Encoder,
    /// Of the present stream.
    heard: Vec<u8>,
}

/// Everybody has the same name.
struct Everybody(Bare);

impl Users for Everybody {
    fn jid(&self, _user: UserId) -> Option<&Bare> {
        Some(&self.0)
    }
}

impl Talk {
    fn new() -> Talk {
        let rules = xmpp::Rules {
            domain: "localhost".into(),
            stanza_bytes: 10_000,
            start_tls: StartTls::No,
            registration: true,
            location: None,
        };
        let (memory, json, encoder) = Default::default();
        Talk { translator: Xmpp::new(Arc::new(rules)), memory, json, encoder, heard: Vec::new() }
    }

    fn say(&mut self, bytes: &[u8]) {
        let (mut frames, mut replies, mut follow) = (Vec::new(), Vec::new(), Vec::new());
        let read = self.lend(&mut follow, |translator, core| translator.received(bytes, core, &mut frames, &mut replies));
        self.answer(&frames, &mut replies);
        if let Err(reason) = read {
            self.encoder.error(&mut replies, Tag::default(), reason, "");
        }
        while !replies.is_empty() {
            let (mut out, mut follow) = (Vec::new(), Vec::new());
            self.lend(&mut follow, |translator, core| translator.send(&replies, core, &mut out));
            self.hear(&out);
            replies.clear();
            self.answer(&follow, &mut replies);
        }
    }

    fn lend<T>(&mut self, follow: &mut Vec<u8>, work: impl FnOnce(&mut Xmpp, &mut Core<'_>) -> T) -> T {
        let (users, mut random) = (Everybody(Bare::new("user@localhost").expect("a JID")), || 7);
        let lent = Core::lending(&mut random, &users, (&mut self.memory, &mut self.json), follow);
        let mut core = Core { wall_ms: 1_700_000_000_000, ..lent };
        work(&mut self.translator, &mut core)
    }

    /// A stream of well-formed XML, up to the next one.
    fn hear(&mut self, out: &[u8]) {
        const SUCCESS: &[u8] = b"</success>";
        self.heard.extend_from_slice(out);
        if let Some(at) = self.heard.windows(SUCCESS.len()).position(|said| said == SUCCESS) {
            self.heard.drain(..at + SUCCESS.len());
        }
        if self.heard.starts_with(b"<?xml") {
            let (mut reader, mut rest) = (Reader::default(), &self.heard[..]);
            let mut parsers = Parsers::default();
            while reader.next(&mut rest, Bounds { stanza_bytes: 1 << 20 }, &mut parsers).expect("well-formed").is_some() {}
            assert!(rest.is_empty() && reader.heap_bytes() == 0, "nothing is left half said");
        }
    }

    fn answer(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        let encoder = &mut self.encoder;
        for frame in each_whole(frames) {
            let tag = Tag::request(frame.header.request);
            match decode::from_client(frame.header.kind, frame.body).expect("a sound frame") {
                ClientFrame::Hello(_) => {
                    let mechanisms = &["SCRAM-SHA-256", "PLAIN"];
                    let (software, domain, bindings, max_frame) = ("", "localhost", &["tls-exporter"], 1 << 16);
                    encoder.greeting(out, tag, &Greeting { software, domain, mechanisms, bindings, max_frame });
                }
                ClientFrame::LogIn { .. } | ClientFrame::SaslResponse(_) => encoder.authenticated(out, tag, b"v=1", None),
                ClientFrame::Bind { .. } | ClientFrame::Resume(_) => {
                    let jid = "user@localhost/r";
                    let (user, session, resume) = (UserId(1), SessionId(1), &[7; 16]);
                    let resumed = frame.header.kind == Kind::Resume;
                    let fields = LoggedInAs { user, jid, session, resume, resume_within_ms: 30_000, resumed, data: &[] };
                    encoder.logged_in(out, tag, &fields);
                }
                ClientFrame::SetPresence(presence) => {
                    let version = Version { epoch: 1, sequence: 1 };
                    let head = Head { user: UserId(2), version, session: SessionId(2), show: presence.show, flags: 0 };
                    event::write(out, head, presence.bytes);
                }
                ClientFrame::Message(m) => {
                    let (body, id) = (m.body().map_or(&[][..], |body| body.bytes()), m.id().unwrap_or_default());
                    let fields =
                        MessageFields { from: "user@localhost/x", to: m.to().unwrap_or_default(), id, body, ..Default::default() };
                    let fields =
                        MessageFields { number: 1, kind: m.kind(), extensions: m.extensions().unwrap_or_default(), ..fields };
                    encoder.message(out, Tag::default(), &fields);
                    encoder.error(out, tag, Reason::Overloaded, "");
                }
                ClientFrame::DocumentGet(get) => {
                    let item = b"<item xmlns='http://jabber.org/protocol/pubsub' id='1'/>";
                    encoder.document(out, tag, "user@localhost", get.name(), item, Access::Everyone);
                }
                ClientFrame::DocumentSet(set) => {
                    let data = set.data().map_or(&[][..], |data| data.bytes());
                    encoder.document_changed(out, Tag::default(), "user@localhost", set.name(), data);
                    encoder.done(out, tag);
                }
                ClientFrame::Ack(_) | ClientFrame::Pong(_) => {}
                _ => encoder.done(out, tag),
            }
        }
    }
}
