//! The native door inside TLS, over real sockets: the same port, the same client, log-ins that hold for one connection only.

mod support;
mod xmpp_world;

use fanal::base::id::ConnId;
use fanal::base::reason::Reason;
use fanal::base::time::WallClock;
use fanal::client::{Client, Error, LogIn, Presence, Tls, Trunk, TrunkEvent};
use fanal::front::doors::Speaks;
use fanal::front::token::Scope;
use fanal::node::certificates::self_signed;
use fanal::wire::decode::{self, ServerFrame};
use fanal::wire::encode::{Encoder, Tag};
use fanal::wire::frame::each_whole;
use fanal::wire::native::Show;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use support::{LONG, TestNode, available, certified, presence, subscribe};

/// A node with a certificate of its own, and alice and bob, whose password is "pencil".
struct Site {
    node: TestNode,
    dir: tempfile::TempDir,
}

impl Site {
    fn start(cores: usize) -> Site {
        let (node, dir) = certified::start(support::config(cores), &["alice", "bob"]);
        Site { node, dir }
    }

    fn certificate(&self) -> PathBuf {
        certified::certificate(&self.dir)
    }

    fn tls(&self) -> Tls {
        Tls::with_certificate(&self.certificate()).unwrap()
    }

    fn connect(&self, tls: &Tls) -> Result<Client, Error> {
        Client::connect_tls(&self.node.address(), tls, LONG)
    }
}

/// The second sees what the first says.
fn says(publisher: &mut Client, subscriber: &mut Client, status: &str) {
    publisher.set_presence(&Presence { status: status.into(), ..Presence::default() }).unwrap();
    while presence(subscriber).presence.is_none_or(|said| said.status != status) {}
}

#[test]
fn c8_a_native_log_in_is_bound_to_its_connection_and_presence_passes_both_ways() {
    for cores in [1, 2] {
        let site = Site::start(cores);
        let mut alice = site.connect(&site.tls()).unwrap();
        assert_eq!(alice.greeting().mechanisms[..2], ["TOKEN", "SCRAM-SHA-256-PLUS"]);
        alice.log_in("alice@localhost", LogIn::Password("pencil"), "desk").unwrap();
        let mut bob = site.node.connect();
        assert!(!bob.greeting().mechanisms.iter().any(|name| name.ends_with("-PLUS")), "the same port, in the clear");
        bob.log_in("bob@localhost", LogIn::Password("pencil"), "phone").unwrap();
        subscribe(&mut alice, &mut bob);
        subscribe(&mut bob, &mut alice);
        available(&mut alice);
        available(&mut bob);
        says(&mut alice, &mut bob, "in private");
        says(&mut bob, &mut alice, "in the clear");
        // More than a record holds, both ways.
        let long = "x".repeat(40_000);
        alice.send_message("bob@localhost", "m", long.as_bytes()).unwrap();
        bob.send_message("alice@localhost", "m", long.as_bytes()).unwrap();
        for client in [&mut alice, &mut bob] {
            let body = support::until(client, |event| match event {
                fanal::client::Event::Message(message) => Some(message.body),
                _ => None,
            });
            assert_eq!(body, long.as_bytes());
        }
        alice.log_out("gone home").unwrap();
        while presence(&mut bob).show != Show::Unavailable {}
    }
}

#[test]
fn a_wrong_password_is_refused_and_a_plain_one_is_taken_in_private() {
    let site = Site::start(1);
    let mut alice = site.connect(&site.tls()).unwrap();
    let refused = alice.log_in("alice@localhost", LogIn::Password("pen"), "desk").unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::LogInFailed));
    alice.log_in("alice@localhost", LogIn::PlainPassword("pencil"), "desk").unwrap();
}

#[test]
fn sessions_live_through_a_new_certificate_and_resume_inside_tls() {
    let site = Site::start(2);
    let (old, by_roots) = (site.tls(), Tls::with_roots("localhost", &site.certificate()).unwrap());
    let mut alice = site.connect(&by_roots).unwrap();
    alice.log_in("alice@localhost", LogIn::Password("pencil"), "desk").unwrap();
    fs::write(site.certificate(), self_signed("localhost").unwrap()).unwrap();
    site.node.node().reload_certificate().unwrap();
    alice.ping().expect("the session goes on");
    assert!(matches!(site.connect(&old), Err(Error::Tls { .. })), "it is another certificate now");
    assert!(matches!(site.connect(&by_roots), Err(Error::Tls { .. })), "a ticket leads to the certificate it was given under");
    let mut bob = site.connect(&site.tls()).unwrap();
    bob.log_in("bob@localhost", LogIn::Password("pencil"), "phone").unwrap();
    bob.break_connection();
    assert!(bob.resume().unwrap().resumed);
    assert!(bob.greeting().mechanisms.iter().any(|name| name.ends_with("-PLUS")), "it came back in private");
}

#[test]
fn a_server_must_be_who_it_says_unless_the_client_does_not_care() {
    let site = Site::start(1);
    let other = site.dir.path().join("other.pem");
    fs::write(&other, self_signed("localhost").unwrap()).unwrap();
    let wrong = [
        Tls::with_roots("example.org", &site.certificate()).unwrap(),
        Tls::with_roots("localhost", &other).unwrap(),
        Tls::with_certificate(&other).unwrap(),
    ];
    for tls in wrong {
        let error = site.connect(&tls).err().expect("the certificate is another").to_string();
        assert!(error.contains(&site.node.address()) && error.contains("certificate"), "{error}");
    }
    site.connect(&Tls::insecure().unwrap()).unwrap().ping().unwrap();
    fs::write(&other, "nonsense").unwrap();
    let error = Tls::with_certificate(&other).err().expect("there is none").to_string();
    assert!(error.contains("other.pem") && error.contains("BEGIN CERTIFICATE"), "{error}");
    assert!(Tls::with_roots("not a domain", &site.certificate()).is_err());
}

#[test]
fn a_trunk_inside_tls_carries_many_users() {
    let site = Site::start(2);
    let token = site.node.node().trunk_keys.sign(Scope::Trunk("test"), WallClock(u64::MAX)).unwrap();
    let mut trunk = Trunk::connect_tls(&site.node.address(), &token, &site.tls(), LONG).unwrap();
    let users: Vec<String> = (0..500).map(|user| format!("user-{user}@localhost")).collect();
    assert_eq!(trunk.log_in_all(1, &users, "game").unwrap().len(), users.len());
    for stream in 1..=500 {
        trunk.send(stream, |encoder, out, tag| encoder.ping(out, tag, 7));
    }
    trunk.flush().unwrap();
    for _ in 0..500 {
        assert!(matches!(trunk.next(LONG).unwrap(), Some(TrunkEvent::Answer(..))));
    }
}

/// A rustls client that names this protocol.
fn raw(site: &Site, protocol: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_file(site.certificate()).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let socket = TcpStream::connect(site.node.address()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.set_nodelay(true).unwrap();
    StreamOwned::new(client, socket)
}

#[test]
fn the_protocol_inside_is_named_and_another_is_refused() {
    let site = Site::start(1);
    let mut stream = raw(&site, b"fanal");
    stream.flush().unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"fanal"[..]));
    let error = raw(&site, b"xmpp-client").read(&mut [0]).unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn a_hello_that_comes_byte_by_byte_is_a_handshake_and_a_frame_that_is_cut_is_none() {
    let site = Site::start(1);
    let mut stream = raw(&site, b"fanal");
    let mut hello = Vec::new();
    stream.conn.write_tls(&mut hello).unwrap();
    for byte in hello {
        stream.sock.write_all(&[byte]).unwrap();
    }
    stream.flush().unwrap();
    assert!(!stream.conn.is_handshaking());
    // A Hello in the clear whose second part begins as a handshake does: its request number is 22.
    let (mut socket, mut frame) = (TcpStream::connect(site.node.address()).unwrap(), Vec::new());
    Encoder::default().hello(&mut frame, Tag::request(22), "test");
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(&frame[..12]).unwrap();
    site.node.connect().ping().unwrap();
    socket.write_all(&frame[12..]).unwrap();
    let mut header = [0; 16];
    socket.read_exact(&mut header).unwrap();
    assert_eq!((header[4], header[12]), (1, 22), "its Hello, with the same number");
}

/// What one core says to a Hello from there.
fn greeted(peer: &str, private: bool) -> Option<Reason> {
    let mut world = xmpp_world::World::new();
    (world.shard.settings.doors.listeners, world.shard.settings.doors.private) = (vec![Speaks::Native], private);
    let conn: ConnId = world.shard.accepted(world.now, peer.parse().unwrap(), 0).unwrap();
    let mut hello = Vec::new();
    Encoder::default().hello(&mut hello, Tag::request(1), "test");
    world.shard.received(world.now, conn, &hello);
    let said = world.shard.take(world.now, conn.slot).unwrap();
    each_whole(&said).find_map(|frame| match decode::from_server(frame.header.kind, frame.body).unwrap() {
        ServerFrame::Error(error) => Reason::from_number(error.reason()),
        _ => None,
    })
}

#[test]
fn c8_other_machines_must_use_tls_unless_the_operator_says_otherwise() {
    for (peer, private, refused) in [
        ("192.0.2.1", true, Some(Reason::TlsRequired)),
        ("2001:db8::1", true, Some(Reason::TlsRequired)),
        ("::ffff:192.0.2.1", true, Some(Reason::TlsRequired)),
        ("192.0.2.1", false, None),
        ("127.0.0.1", true, None),
        ("::ffff:127.0.0.1", true, None),
        ("::1", true, None),
    ] {
        assert_eq!(greeted(peer, private), refused, "{peer}");
    }
}
