//! One node over real sockets, and a service of the operator's that decides on log-ins (`login.http`): what it says, and what
//! becomes of log-ins when it says nothing.
mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::config::Config;
use fanal::base::credentials::{ITERATIONS, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::base::reason::Reason;
use fanal::client::{Client, LogIn};
use fanal::front::doors::Speaks;
use fanal::metrics::fields::Counters;
use fanal::node::certificates::self_signed;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const NO: &str = "HTTP/1.1 403 Forbidden\r\n\r\n";
const OPEN: &str =
    "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// The service: a thread that hands each request over, with the way to answer it.
struct Service {
    address: SocketAddr,
    asked: Receiver<Asked>,
}

struct Asked {
    request: String,
    connection: Box<dyn ReadWrite>,
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

impl Asked {
    fn answer(mut self, answer: &str) {
        // The node may have given up.
        let _ = self.connection.write_all(answer.as_bytes()).and_then(|()| self.connection.flush());
    }

    fn body(&self) -> &str {
        self.request.split_once("\r\n\r\n").expect("a whole request").1
    }
}

impl Service {
    fn start() -> Service {
        Service::start_with(|stream| Box::new(stream))
    }

    fn start_with(wrap: impl Fn(TcpStream) -> Box<dyn ReadWrite> + Send + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, (put, asked)) = (listener.local_addr().unwrap(), channel());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if read_request(wrap(stream.unwrap()), &put).is_none() {
                    return;
                }
            }
        });
        Service { address, asked }
    }

    /// A configuration that asks this service, with an XMPP door that takes passwords as they are.
    fn config(&self, cores: usize) -> Config {
        let mut config = config(cores);
        config.login.http = Some(format!("http://{}/check?key=1", self.address));
        config.login.plain = true;
        config.listen.xmpp = Some("127.0.0.1:0".parse().unwrap());
        config.limits.log_in_attempts = 100;
        config.limits.http_ms = LONG.as_millis() as u32;
        config
    }

    fn next(&self) -> Asked {
        self.asked.recv_timeout(LONG).expect("the node asks")
    }

    /// Answers everybody: whether the password is "pencil", or the token begins with "opaque".
    fn answer_all(self) {
        std::thread::spawn(move || {
            for asked in self.asked {
                let good = asked.body().contains(r#""password":"pencil""#) || asked.body().contains(r#""token":"opaque"#);
                asked.answer(if good { OK } else { NO });
            }
        });
    }
}

/// `None`: the test is over.
fn read_request(mut connection: Box<dyn ReadWrite>, put: &Sender<Asked>) -> Option<()> {
    let (mut request, mut byte) = (String::new(), [0]);
    let is_whole = |request: &str| {
        let (head, body) = request.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
        Some(body.len() == length.parse::<usize>().ok()?)
    };
    while is_whole(&request) != Some(true) {
        match connection.read_exact(&mut byte) {
            Ok(()) => request.push(char::from(byte[0])),
            // The node does not trust it, or has given up.
            _ => return Some(()),
        }
    }
    put.send(Asked { request, connection }).ok()
}

fn attempt(node: &TestNode, jid: &str, log_in: LogIn<'_>) -> Option<Reason> {
    let mut client = node.connect();
    client.log_in(jid, log_in, "").err().map(|error| error.reason().expect("the node says why"))
}

fn plain(node: &TestNode, name: &str, password: &str) -> Option<Reason> {
    attempt(node, &format!("{name}@localhost"), LogIn::PlainPassword(password))
}

/// Begins a log-in on a thread of its own.
fn begin(node: &TestNode, name: &'static str) -> std::thread::JoinHandle<Option<Reason>> {
    let mut client: Client = node.connect();
    std::thread::spawn(move || {
        let outcome = client.log_in(&format!("{name}@localhost"), LogIn::PlainPassword("pencil"), "");
        outcome.err().map(|error| error.reason().expect("the node says why"))
    })
}

fn counted(node: &mut TestNode) -> Counters {
    let stopped = node.0.take().unwrap().stop().unwrap();
    let mut all = Counters::default();
    for mut host in stopped.hosts {
        all.add(&host.shard.snapshot(fanal::drive::clock::now()).counters);
    }
    all
}

/// A stream of XMPP with its features read.
fn xmpp(node: &TestNode) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.node().address(Speaks::Xmpp).unwrap()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(OPEN.as_bytes()).unwrap();
    let features = hear(&mut stream, "</stream:features>");
    (stream, features)
}

fn hear(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with(end) {
        stream.read_exact(&mut byte).expect(&text);
        text.push(char::from(byte[0]));
    }
    text
}

fn auth(stream: &mut TcpStream, name: &str, password: &str, end: &str) -> String {
    let data = BASE64_STANDARD.encode(format!("\0{name}\0{password}"));
    write!(stream, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>").unwrap();
    hear(stream, end)
}

#[test]
fn the_service_is_told_who_with_what_from_where_and_whom_it_lets_in_has_an_account() {
    for cores in [1, 2] {
        let service = Service::start();
        let mut node = TestNode::start(&service.config(cores));
        let alice = begin(&node, "alice");
        let asked = service.next();
        assert!(asked.request.starts_with("POST /check?key=1 HTTP/1.1\r\n"), "{}", asked.request);
        assert_eq!(asked.body(), r#"{"jid":"alice@localhost","password":"pencil","address":"127.0.0.1"}"#);
        asked.answer(OK);
        assert_eq!(alice.join().unwrap(), None);
        let mut control = node.0.as_mut().unwrap().control();
        let users = control.users(None, 1000, None).unwrap().users;
        assert!(users.iter().any(|user| user.jid.as_str() == "alice@localhost"), "it has an account");
        service.answer_all();
        assert_eq!(plain(&node, "alice", "pencils"), Some(Reason::LogInFailed));
        assert_eq!(plain(&node, "bob", "pencils"), Some(Reason::LogInFailed));
        assert_eq!(attempt(&node, "bob@localhost", LogIn::Token("opaque \"and\" odd")), None);
        assert_eq!(attempt(&node, "bob@localhost", LogIn::Token("other")), Some(Reason::LogInFailed));
        let counters = counted(&mut node);
        assert_eq!((counters.hook_asked, counters.hook_allowed, counters.hook_denied), (5, 2, 3));
    }
}

#[test]
fn what_can_be_decided_here_is_not_asked_about() {
    let service = Service::start();
    let mut node = TestNode::start(&service.config(1));
    service.answer_all();
    let mut control = node.0.as_mut().unwrap().control();
    let credentials = ScramCredentials::from_password("own", &[7; 16], ITERATIONS);
    control.add_user(&Bare::new("bot@localhost").unwrap(), Some(credentials)).unwrap();
    assert_eq!((plain(&node, "bot", "own"), plain(&node, "bot", "pencil")), (None, Some(Reason::LogInFailed)));
    assert_eq!(attempt(&node, "bot@localhost", LogIn::Password("own")), None, "SCRAM");
    assert_eq!(attempt(&node, "alice@localhost", LogIn::Password("pencil")), Some(Reason::LogInFailed), "nothing to ask with");
    let mut alice = node.user("alice@localhost", "");
    assert_eq!(attempt(&node, "bob@localhost", LogIn::Token(&node.token("alice@localhost"))), Some(Reason::LogInFailed));
    assert_eq!(alice.set_password("new").unwrap_err().reason(), Some(Reason::RegistrationClosed), "it would cut her off");
    drop(alice);
    let counters = counted(&mut node);
    assert_eq!((counters.hook_asked, counters.registrations), (0, 0));
}

#[test]
fn xmpp_clients_are_told_of_plain_alone_and_get_in_by_it() {
    let service = Service::start();
    let mut config = service.config(1);
    let node = TestNode::start(&config);
    service.answer_all();
    let (mut stream, features) = xmpp(&node);
    assert!(features.contains("<mechanism>PLAIN</mechanism>") && !features.contains("SCRAM"), "{features}");
    assert!(auth(&mut stream, "alice", "wrong", "</failure>").contains("<not-authorized/>"));
    assert!(auth(&mut stream, "alice", "pencil", "/>").contains("<success"));
    config.login.http = None;
    let (_, features) = xmpp(&TestNode::start(&config));
    assert!(features.contains("<mechanism>SCRAM-SHA-256</mechanism>"), "{features}");
}

#[test]
fn what_is_no_verdict_is_a_temporary_failure_and_says_nothing_about_anybody() {
    let service = Service::start();
    let mut node = TestNode::start(&service.config(1));
    let answers = [
        "HTTP/1.1 500 Oh\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        "HTTP/1.1 201 Created\r\n\r\n",
        "nonsense\r\n\r\n",
        "",
    ];
    for answer in answers {
        let alice = begin(&node, "alice");
        service.next().answer(answer);
        assert_eq!(alice.join().unwrap(), Some(Reason::LogInUnavailable), "{answer:?}");
    }
    let (mut stream, _) = xmpp(&node);
    let told = std::thread::spawn(move || auth(&mut stream, "alice", "pencil", "</failure>"));
    service.next().answer("");
    assert!(told.join().unwrap().contains("<temporary-auth-failure/>"));
    assert_eq!(counted(&mut node).hook_failed, answers.len() as u64 + 1);
}

#[test]
fn a_service_that_is_down_or_asleep_fails_log_ins_in_time_and_holds_up_nobody_else() {
    let service = Service::start();
    let mut config = service.config(1);
    config.limits.http_ms = 200;
    let node = TestNode::start(&config);
    let (alice, asked) = (begin(&node, "alice"), service.next());
    let (mut bob, mut carol) = (node.user("bob@localhost", "b"), node.user("carol@localhost", "c"));
    subscribe(&mut bob, &mut carol);
    available(&mut bob);
    available(&mut carol);
    presence(&mut bob);
    assert_eq!(alice.join().unwrap(), Some(Reason::LogInUnavailable), "it took too long");
    drop(asked);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.login.http = Some(format!("http://{nobody}/"));
    let node = TestNode::start(&config);
    assert_eq!(plain(&node, "alice", "pencil"), Some(Reason::LogInUnavailable), "nobody is there");
    node.user("bob@localhost", "b");
}

#[test]
fn several_are_asked_about_at_once_and_when_too_many_wait_the_next_is_refused_at_once() {
    let service = Service::start();
    let mut config = service.config(1);
    (config.limits.http_requests, config.limits.http_waiting) = (2, 1);
    let mut node = TestNode::start(&config);
    let (alice, first) = (begin(&node, "alice"), service.next());
    let (bob, second) = (begin(&node, "bob"), service.next());
    // One of these waits, and the others find that one does.
    let (put, outcomes) = channel();
    for name in ["carol", "dave", "erin"] {
        let (one, put) = (begin(&node, name), put.clone());
        std::thread::spawn(move || put.send(one.join().unwrap()));
    }
    for _ in 0..2 {
        assert_eq!(outcomes.recv_timeout(LONG).unwrap(), Some(Reason::Overloaded));
    }
    node.user("frank@localhost", "");
    for asked in [first, second] {
        asked.answer(OK);
    }
    service.next().answer(OK);
    assert_eq!((outcomes.recv_timeout(LONG).unwrap(), alice.join().unwrap(), bob.join().unwrap()), (None, None, None));
    let counters = counted(&mut node);
    assert_eq!((counters.hook_asked, counters.hook_allowed, counters.hook_refused), (5, 3, 2));
}

#[test]
fn who_leaves_while_the_service_thinks_is_forgotten() {
    let service = Service::start();
    let mut node = TestNode::start(&service.config(1));
    let (mut stream, _) = xmpp(&node);
    let data = BASE64_STANDARD.encode("\0alice\0pencil");
    write!(stream, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>").unwrap();
    let asked = service.next();
    drop(stream);
    asked.answer(OK);
    let bob = begin(&node, "bob");
    service.next().answer(OK);
    assert_eq!(bob.join().unwrap(), None);
    assert_eq!(counted(&mut node).log_ins, 1);
}

#[test]
fn over_https_the_service_must_prove_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (self_signed("localhost").unwrap(), self_signed("localhost").unwrap());
    let chain = vec![CertificateDer::from_pem_slice(own.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.as_bytes()).unwrap();
    let tls = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let service =
        Service::start_with(move |stream| Box::new(StreamOwned::new(ServerConnection::new(tls.clone()).unwrap(), stream)));
    let mut config = service.config(1);
    config.login.http = Some(format!("https://localhost:{}/check", service.address.port()));
    service.answer_all();
    for (trusted, outcome) in [(&own, None), (&other, Some(Reason::LogInUnavailable))] {
        let file = dir.path().join("trusted.pem");
        std::fs::write(&file, trusted).unwrap();
        config.login.http_ca = Some(file);
        assert_eq!(config.check(), Ok(()));
        assert_eq!(plain(&TestNode::start(&config), "alice", "pencil"), outcome);
    }
    config.login.http_ca = Some(dir.path().join("nothing.pem"));
    let error = fanal::node::Node::start(&config).err().expect("there is nothing to trust").to_string();
    assert!(error.contains("login.http_ca") && error.contains("nothing.pem"), "{error}");
}
