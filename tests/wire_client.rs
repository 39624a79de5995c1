//! The client library over real sockets, against a small server made of the same door and encoder that a node uses.
#![cfg(feature = "runtime")]

mod wire_samples;

use fanal::base::credentials::ScramCredentials;
use fanal::base::id::{SessionId, UserId, Version};
use fanal::base::jid::Bare;
use fanal::base::limits::Limits;
use fanal::base::reason::Reason;
use fanal::base::time::WallClock;
use fanal::client::{Client, Error, Event, LogIn, Message, Presence, Trunk, TrunkEvent};
use fanal::front::Mechanism;
use fanal::front::binding::Bindings;
use fanal::front::native::{Door, Incoming, Rules};
use fanal::front::sasl::{Decoys, PlainCheck, Scram, Terms, plain_password};
use fanal::front::token::{Keys, Scope};
use fanal::wire::decode::ClientFrame;
use fanal::wire::encode::{Encoder, LoggedInAs, MessageFields, SubscriptionFields, Tag};
use fanal::wire::event::{self, BatchWriter, Head};
use fanal::wire::frame::Chunk;
use fanal::wire::native::{Action, Show, SubscriptionState};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const SECONDS: Duration = Duration::from_secs(10);
const GREETING: fanal::wire::encode::Greeting<'_> = wire_samples::GREETING;

fn keys() -> Keys {
    Keys::new(["a key of the log-in service"]).unwrap()
}

fn token(scope: Scope<'_>) -> String {
    keys().sign(scope, WallClock(u64::MAX)).unwrap()
}

fn alice() -> Bare {
    Bare::new("alice@localhost").unwrap()
}

/// What the tests ask the server about.
#[derive(Default, Debug)]
struct Seen {
    acknowledged: Vec<u64>,
    resumed_from: Vec<u64>,
    pongs: Vec<u64>,
}

/// Serves any number of connections, each on a thread of its own that ends with it.
fn serve() -> (String, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = seen.clone();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, seen) = (socket.unwrap(), shared.clone());
            thread::spawn(move || Server::new(seen).run(socket));
        }
    });
    (address, seen)
}

struct Server {
    seen: Arc<Mutex<Seen>>,
    encoder: Encoder,
    credentials: ScramCredentials,
    scram: Option<Scram>,
    sequence: u32,
    closing: bool,
}

/// What the host must tell the door.
enum Verdict {
    None,
    Open,
    Trunk,
    Challenged,
    Refused,
}

impl Server {
    fn new(seen: Arc<Mutex<Seen>>) -> Server {
        let credentials = ScramCredentials::from_password("pencil", b"0123456789abcdef", 4096);
        Server { seen, encoder: Encoder::default(), credentials, scram: None, sequence: 5, closing: false }
    }

    fn run(mut self, mut socket: TcpStream) {
        let rules = Rules::new(&Limits::default());
        let (mut door, mut buffer, mut out) = (Door::default(), [0; 4096], Vec::new());
        while !self.closing {
            let length = socket.read(&mut buffer).unwrap_or(0);
            if length == 0 {
                return;
            }
            let mut chunk = Chunk::new(&buffer[..length]);
            loop {
                let verdict = match door.next(&mut chunk, &rules) {
                    Ok(Some(incoming)) => self.handle(&incoming, &mut out),
                    Ok(None) => break,
                    Err(reason) => {
                        self.encoder.error(&mut out, Tag::default(), reason, "");
                        self.closing = true;
                        break;
                    }
                };
                match verdict {
                    Verdict::None => {}
                    Verdict::Open => door.opened(),
                    Verdict::Trunk => door.opened_trunk(),
                    Verdict::Challenged => door.challenged(),
                    Verdict::Refused => {
                        if let Err(reason) = door.refused(&rules) {
                            self.encoder.error(&mut out, Tag::default(), reason, "");
                            self.closing = true;
                            break;
                        }
                    }
                }
            }
            // A client that is gone needs no answer.
            let _gone = socket.write_all(&std::mem::take(&mut out));
        }
    }

    fn log_in(&mut self, tag: Tag, log_in: &fanal::wire::native::LogIn<'_>, out: &mut Vec<u8>) -> Verdict {
        let data = log_in.data().map_or(&[][..], |data| data.bytes());
        let decoys = Decoys::new([1; 32]);
        if tag.stream != 0 {
            let (user, jid) = (UserId(u64::from(tag.stream)), format!("{}/trunk", log_in.jid().unwrap()));
            self.encoder.logged_in(out, tag, &LoggedInAs { user, jid: &jid, ..LoggedInAs::default() });
            return Verdict::None;
        }
        let user = log_in.jid().and_then(Bare::new);
        let credentials = user.as_ref().is_some_and(|user| *user == alice()).then(|| self.credentials.clone());
        let good = match (Mechanism::from_name(log_in.mechanism().unwrap_or_default()), &user) {
            (Some(Mechanism::Trunk), None) => {
                return match keys().verify_trunk(data, WallClock(0)) {
                    Ok(_) => {
                        self.encoder.done(out, tag);
                        Verdict::Trunk
                    }
                    Err(_) => self.refuse(tag, out),
                };
            }
            (Some(Mechanism::Token), Some(user)) => keys().verify_user(data, user, WallClock(0)).is_ok(),
            (Some(Mechanism::Plain), Some(user)) => plain_password(data, user)
                .is_some_and(|password| PlainCheck::new(password.to_owned(), decoys.or(credentials.as_ref(), user)).run()),
            (Some(Mechanism::Scram { hash, bound }), Some(user)) => {
                let terms = Terms { hash, bound, channel: Bindings::default() };
                if let Some((scram, challenge)) = Scram::start(terms, data, user, &decoys.or(credentials.as_ref(), user), [3; 18]) {
                    self.scram = Some(scram);
                    self.encoder.sasl_challenge(out, tag, &challenge);
                    return Verdict::Challenged;
                }
                false
            }
            _ => false,
        };
        if good { self.welcome(tag, false, b"", out) } else { self.refuse(tag, out) }
    }

    fn refuse(&mut self, tag: Tag, out: &mut Vec<u8>) -> Verdict {
        self.encoder.error(out, tag, Reason::LogInFailed, "");
        Verdict::Refused
    }

    fn welcome(&mut self, tag: Tag, resumed: bool, data: &[u8], out: &mut Vec<u8>) -> Verdict {
        let logged_in = LoggedInAs { jid: "alice@localhost/phone", resumed, data, ..wire_samples::LOGGED_IN };
        self.encoder.logged_in(out, tag, &logged_in);
        self.encoder.ping(out, Tag::default(), 77);
        Verdict::Open
    }

    fn resume(&mut self, tag: Tag, resume: &fanal::wire::native::Resume<'_>, out: &mut Vec<u8>) -> Verdict {
        self.seen.lock().unwrap().resumed_from.push(resume.received());
        if resume.token().bytes() != wire_samples::LOGGED_IN.resume {
            self.encoder.error(out, tag, Reason::ResumeFailed, "");
            return Verdict::Refused;
        }
        let verdict = self.welcome(tag, true, b"", out);
        self.message(1, out);
        self.message(2, out);
        // One that the client has seen, one that is older, and one that is newer.
        for sequence in [6, 3, 7] {
            event::write(out, Self::head(sequence, Show::Away), b"");
        }
        verdict
    }

    fn head(sequence: u32, show: Show) -> Head {
        Head { user: UserId(42), version: Version { epoch: 1, sequence }, session: SessionId(9), show, flags: 0 }
    }

    fn handle(&mut self, incoming: &Incoming<'_>, out: &mut Vec<u8>) -> Verdict {
        let tag = incoming.tag;
        match incoming.frame {
            ClientFrame::Hello(_) => self.encoder.greeting(out, tag, &GREETING),
            ClientFrame::LogIn { log_in, .. } => return self.log_in(tag, &log_in, out),
            ClientFrame::SaslResponse(response) => {
                let data = response.data().map_or(&[][..], |data| data.bytes());
                let proof = self.scram.take().and_then(|scram| scram.finish(data));
                return match proof {
                    Some(proof) => self.welcome(tag, false, &proof, out),
                    None => self.refuse(tag, out),
                };
            }
            ClientFrame::Resume(resume) => return self.resume(tag, &resume, out),
            ClientFrame::SetPresence(presence) => {
                self.sequence += 1;
                let head = Self::head(self.sequence, presence.show);
                if tag.stream == 0 {
                    event::write(out, head, presence.bytes);
                } else {
                    let mut body = Vec::new();
                    event::body(&mut body, head, presence.bytes);
                    let mut batch = BatchWriter::start(out);
                    batch.push(out, &body, &[1, 2]);
                    batch.push(out, &body, &[3]);
                    batch.finish(out);
                }
                self.encoder.done(out, tag);
            }
            ClientFrame::DirectedPresence { presence, .. } => {
                self.encoder.directed_from(out, Tag::default(), "bob@localhost/phone", presence.bytes);
                self.encoder.done(out, tag);
            }
            ClientFrame::Message(_) => {
                self.encoder.done(out, tag);
                self.message(1, out);
                self.message(1, out);
            }
            ClientFrame::Ack(ack) => self.seen.lock().unwrap().acknowledged.push(ack.received()),
            ClientFrame::Pong(pong) => self.seen.lock().unwrap().pongs.push(pong.data()),
            ClientFrame::Ping(ping) => self.encoder.pong(out, tag, ping.data()),
            ClientFrame::Subscription(subscription) => {
                let fields = SubscriptionFields {
                    action: subscription.action(),
                    jid: subscription.jid(),
                    user: UserId(7),
                    note: subscription.note().unwrap_or_default(),
                    ..Default::default()
                };
                self.encoder.subscription_event(out, Tag::default(), &fields);
                self.encoder.roster_push(out, Tag::default(), &wire_samples::contact(&wire_samples::groups()), "2");
                self.encoder.done(out, tag);
            }
            ClientFrame::RosterGet(_) => self.encoder.roster(out, tag, [wire_samples::contact(&wire_samples::groups())], Some("1")),
            ClientFrame::RosterSet(_) => self.encoder.done(out, tag),
            ClientFrame::Block(block) if block.blocked() => self.encoder.done(out, tag),
            ClientFrame::Block(_) => self.encoder.transfer(out, Tag::default(), "127.0.0.1:1"),
            ClientFrame::BlockListGet => self.encoder.block_list(out, tag, &["carol@localhost"]),
            ClientFrame::Probe(_) => self.encoder.error(out, tag, Reason::NoSuchUser, ""),
            ClientFrame::LogOut(_) => {
                self.encoder.done(out, tag);
                self.closing = true;
            }
            _ => panic!("no test here sends this"),
        }
        Verdict::None
    }

    fn message(&mut self, number: u64, out: &mut Vec<u8>) {
        let message = MessageFields {
            from: "bob@localhost/pc",
            to: "alice@localhost",
            id: "m",
            body: b"hello",
            number,
            ..MessageFields::default()
        };
        self.encoder.message(out, Tag::default(), &message);
    }
}

fn logged_in(how: LogIn<'_>) -> (Client, Arc<Mutex<Seen>>) {
    let (address, seen) = serve();
    let mut client = Client::connect(&address, SECONDS).unwrap();
    client.log_in("Alice@localhost", how, "phone").unwrap();
    (client, seen)
}

fn next(client: &mut Client) -> Event {
    client.next_event(SECONDS).unwrap().expect("an event in time")
}

/// The numbers of the messages among the events, and the sequences of the presences, up to what `ping` brings.
fn drain(client: &mut Client) -> (Vec<u64>, Vec<u32>) {
    client.ping().unwrap();
    let (mut messages, mut presences) = (Vec::new(), Vec::new());
    while let Some(event) = client.next_event(Duration::ZERO).unwrap() {
        match event {
            Event::Message(Message { number, .. }) => messages.push(number),
            Event::Presence(presence) => presences.push(presence.version.sequence),
            other => panic!("{other:?}"),
        }
    }
    (messages, presences)
}

#[test]
fn every_way_to_log_in_works() {
    let token = token(Scope::User(&alice()));
    for how in [LogIn::Token(&token), LogIn::Password("pencil"), LogIn::PlainPassword("pencil")] {
        let (client, _) = logged_in(how);
        assert_eq!(client.greeting().domain, "localhost");
        let who = client.logged_in().unwrap();
        assert_eq!((who.bare_jid(), who.resource(), who.user), ("alice@localhost", "phone", UserId(42)));
        client.log_out("bye").unwrap();
    }
}

#[test]
fn wrong_credentials_are_refused_alike_and_a_right_one_may_follow() {
    let (address, _) = serve();
    for (jid, how) in [
        ("alice@localhost", LogIn::Password("pen")),
        ("alice@localhost", LogIn::PlainPassword("pen")),
        ("alice@localhost", LogIn::Token("fanal1.x.y")),
        ("nobody@localhost", LogIn::Password("pencil")),
        ("nobody@localhost", LogIn::PlainPassword("pencil")),
    ] {
        let mut client = Client::connect(&address, SECONDS).unwrap();
        let error = client.log_in(jid, how, "").unwrap_err();
        assert_eq!(error.reason(), Some(Reason::LogInFailed), "{error}");
        client.log_in("alice@localhost", LogIn::Password("pencil"), "phone").unwrap();
    }
    let mut client = Client::connect(&address, SECONDS).unwrap();
    for _ in 0..2 {
        client.log_in("alice@localhost", LogIn::Token(""), "").unwrap_err();
    }
    let last = client.log_in("alice@localhost", LogIn::Token(""), "").unwrap_err();
    assert_eq!(last.reason(), Some(Reason::LogInFailed));
    let ended = client.ping().unwrap_err();
    assert_eq!(ended.reason(), Some(Reason::TooManyAttempts), "{ended}");
}

#[test]
fn presence_comes_back_as_it_was_set() {
    let (mut client, seen) = logged_in(LogIn::Password("pencil"));
    let presence = Presence { show: Show::Away, status: "at sea".into(), payload: vec![1, 2], ..Presence::default() };
    client.set_presence(&presence).unwrap();
    let Event::Presence(event) = next(&mut client) else { panic!() };
    assert_eq!(event.presence, Some(Presence { resource: "phone".into(), ..presence.clone() }));
    assert_eq!((event.user, event.session, event.show), (UserId(42), SessionId(9), Show::Away));
    client.set_directed_presence("bob@localhost", &presence).unwrap();
    let Event::Directed(directed) = next(&mut client) else { panic!() };
    assert_eq!((directed.from.as_str(), directed.presence.status.as_str()), ("bob@localhost/phone", "at sea"));
    client.ping().unwrap();
    assert_eq!(seen.lock().unwrap().pongs, [77], "the server's ping was answered meanwhile");
}

#[test]
fn requests_are_answered_and_refused_by_their_number() {
    let (mut client, _) = logged_in(LogIn::Password("pencil"));
    assert_eq!(client.probe("nobody@localhost").unwrap_err().reason(), Some(Reason::NoSuchUser));
    let roster = client.roster().unwrap();
    assert_eq!(
        (roster[0].jid.as_str(), roster[0].groups.len(), roster[0].subscription),
        ("bob@localhost", 2, SubscriptionState::Both)
    );
    client.set_contact("bob@localhost", "Bob", &["friends"]).unwrap();
    client.remove_contact("bob@localhost").unwrap();
    client.block("carol@localhost").unwrap();
    assert_eq!(client.block_list().unwrap(), ["carol@localhost"]);
    client.subscribe("bob@localhost", "it's Alice").unwrap();
    let Event::Subscription(request) = next(&mut client) else { panic!() };
    assert_eq!((request.action, request.note.as_str()), (Action::Subscribe, "it's Alice"));
    assert!(matches!(next(&mut client), Event::RosterPush(contact) if contact.removed));
    for (action, result) in [
        (Action::Subscribed, client.approve("bob@localhost")),
        (Action::Unsubscribed, client.deny("bob@localhost")),
        (Action::Unsubscribe, client.unsubscribe("bob@localhost")),
    ] {
        result.unwrap();
        assert!(matches!(next(&mut client), Event::Subscription(request) if request.action == action));
        assert!(matches!(next(&mut client), Event::RosterPush(_)));
    }
}

#[test]
fn a_message_sent_twice_arrives_once_and_is_acknowledged() {
    let (mut client, seen) = logged_in(LogIn::Password("pencil"));
    client.send_message("bob@localhost", "m1", b"hello").unwrap();
    assert_eq!(drain(&mut client), (vec![1], vec![]));
    client.ping().unwrap();
    assert_eq!(seen.lock().unwrap().acknowledged, [1, 1]);
}

#[test]
fn a_broken_session_goes_on_where_it_was() {
    let (mut client, seen) = logged_in(LogIn::Password("pencil"));
    client.set_presence(&Presence::default()).unwrap();
    client.send_message("bob@localhost", "m1", b"hello").unwrap();
    assert_eq!(drain(&mut client), (vec![1], vec![6]));
    client.break_connection();
    assert!(client.ping().is_err());
    assert!(client.resume().unwrap().resumed);
    assert_eq!(seen.lock().unwrap().resumed_from, [1]);
    assert_eq!(drain(&mut client), (vec![2], vec![7]), "neither an old message nor an old presence");
}

#[test]
fn a_session_follows_a_transfer_to_another_node() {
    let (mut client, _) = logged_in(LogIn::Password("pencil"));
    let (other, seen) = serve();
    client.follow(&other).unwrap();
    assert_eq!(seen.lock().unwrap().resumed_from, [0]);
    assert_eq!(drain(&mut client).0, [1, 2]);
    let error = client.follow("127.0.0.1:1").unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    client.ping().expect("the old connection still works");
}

#[test]
fn waits_have_an_end() {
    let (address, _) = serve();
    let mut client = Client::connect(&address, Duration::from_secs(1)).unwrap();
    client.log_in("alice@localhost", LogIn::Token(&token(Scope::User(&alice()))), "").unwrap();
    assert_eq!(client.next_event(Duration::from_millis(1)).unwrap(), None);
    assert!(matches!(client.unblock("carol@localhost"), Err(Error::NoAnswer(_))), "this server never answers that");
    assert!(matches!(next(&mut client), Event::Transfer(address) if address == "127.0.0.1:1"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    assert!(matches!(Client::connect(&address, Duration::from_millis(50)), Err(Error::NoAnswer(_))));
}

#[test]
fn a_trunk_carries_many_sessions() {
    let (address, _) = serve();
    let refused = Trunk::connect(&address, &token(Scope::User(&alice())), SECONDS).err().unwrap();
    assert_eq!(refused.reason(), Some(Reason::LogInFailed));
    let mut trunk = Trunk::connect(&address, &token(Scope::Trunk("test")), SECONDS).unwrap();
    let jids: Vec<String> = (1..=3000).map(|n| format!("user{n}@localhost")).collect();
    let sessions = trunk.log_in_all(1, &jids, "trunk").unwrap();
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!((session.user, session.bare_jid()), (UserId(n as u64 + 1), jids[n].as_str()));
    }
    assert_eq!(trunk.log_in(5000, "late@localhost", "").unwrap().bare_jid(), "late@localhost");
    let presence = Presence { resource: "trunk".into(), ..Presence::default() };
    let tag = trunk.send(2, |encoder, out, tag| encoder.set_presence(out, tag, &presence.fields()));
    trunk.flush().unwrap();
    let (mut streams, mut answered) = (Vec::new(), false);
    while streams.len() < 3 || !answered {
        match trunk.next(SECONDS).unwrap().expect("an event in time") {
            TrunkEvent::Event(of, Event::Presence(event)) => {
                assert_eq!(event.presence.as_ref(), Some(&presence));
                streams.extend(of);
            }
            TrunkEvent::Answer(of, fanal::client::values::Answer::Done) => answered = of == tag,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(streams, [1, 2, 3]);
}
