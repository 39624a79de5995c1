//! TLS whichever way the node has chosen at its start: in user space, or with the kernel encrypting what is sent. Clients can't
//! tell.
//!
//! `scripts/test-ktls` runs this in a virtual machine whose kernel does it, and says so with `FANAL_KERNEL_TLS=1`; elsewhere the
//! same holds in user space.

mod support;

use fanal::base::config::KernelTls;
use fanal::client::{Client, Event, LogIn, Presence, Tls};
use fanal::front::doors::Speaks;
use fanal::wire::encode::MessageFields;
use fanal::wire::native::{MessageKind, Show};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedCipherSuite};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::{LONG, TestNode, available, certified, presence, subscribe, until};

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams'>";
const CLOSE: &str = "</stream:stream>";

struct Site {
    node: TestNode,
    dir: tempfile::TempDir,
}

impl Site {
    fn start(cores: usize, kernel: KernelTls) -> Site {
        let mut config = support::config(cores);
        config.tls.kernel = kernel;
        config.listen.xmpps = Some("127.0.0.1:0".parse().unwrap());
        let (node, dir) = certified::start(config, &["alice", "bob"]);
        Site { node, dir }
    }

    fn certificate(&self) -> PathBuf {
        certified::certificate(&self.dir)
    }

    fn user(&self, name: &str) -> Client {
        let tls = Tls::with_certificate(&self.certificate()).unwrap();
        let mut client = Client::connect_tls(&self.node.address(), &tls, LONG).unwrap();
        assert!(client.greeting().mechanisms.iter().any(|name| name == "SCRAM-SHA-256-PLUS"));
        client.log_in(&format!("{name}@localhost"), LogIn::Password("pencil"), "desk").unwrap();
        client
    }

    /// An XMPP stream by this suite.
    fn stream(&self, suite: SupportedCipherSuite) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(PemObject::from_pem_file(self.certificate()).unwrap()).unwrap();
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        let socket = TcpStream::connect(self.node.node().address(Speaks::Xmpps).unwrap()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        StreamOwned::new(ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap(), socket)
    }

    /// Whether the kernel encrypts here. In the virtual machine it must.
    fn in_kernel(&self) -> bool {
        let seals = self.node.node().report.seals;
        assert!(seals || std::env::var("FANAL_KERNEL_TLS").as_deref() != Ok("1"), "this kernel was to do it");
        seals
    }

    /// Stops; gives on how many connections the kernel has encrypted.
    fn sealed(self) -> u64 {
        let stopped = self.node.stop();
        assert_eq!(stopped.hosts.iter().map(|host| host.drive.seals_failed).sum::<u64>(), 0);
        stopped.hosts.iter().map(|host| host.drive.sealed).sum()
    }
}

/// All that comes up to and with `end`.
fn read_until(stream: &mut impl Read, end: &str) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with(end) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {text}");
        text.push(char::from(byte[0]));
    }
    text
}

#[test]
fn clients_speak_with_each_other_and_cannot_tell_who_encrypts() {
    for (cores, kernel) in [(1, KernelTls::Auto), (2, KernelTls::Auto), (1, KernelTls::Off)] {
        let site = Site::start(cores, kernel);
        let in_kernel = kernel == KernelTls::Auto && site.in_kernel();
        let (mut alice, mut bob) = (site.user("alice"), site.user("bob"));
        subscribe(&mut alice, &mut bob);
        subscribe(&mut bob, &mut alice);
        available(&mut alice);
        available(&mut bob);
        for round in 0..50 {
            let status = format!("round {round}");
            alice.set_presence(&Presence { status: status.clone(), ..Presence::default() }).unwrap();
            while presence(&mut bob).presence.is_none_or(|said| said.status != status) {}
        }
        // More than a record holds, and more than a socket takes at once: nobody waits until a headline is safe.
        let long: Vec<u8> = (0..50_000u32).map(|at| (at % 251) as u8).collect();
        for number in 0..20 {
            let (id, kind) = (number.to_string(), MessageKind::Headline);
            alice.send(&MessageFields { kind, to: "bob@localhost", id: &id, body: &long, ..MessageFields::default() }).unwrap();
        }
        for _ in 0..20 {
            let body = until(&mut bob, |event| match event {
                Event::Message(message) => Some(message.body),
                _ => None,
            });
            assert!(body == long);
        }
        alice.log_out("gone home").unwrap();
        while presence(&mut bob).show != Show::Unavailable {}
        drop(bob);
        assert_eq!(site.sealed(), if in_kernel { 2 } else { 0 });
    }
}

#[test]
fn rustls_reads_every_cipher_and_the_goodbye() {
    let site = Site::start(1, KernelTls::Auto);
    let suites = [
        (cipher_suite::TLS13_AES_128_GCM_SHA256, true),
        (cipher_suite::TLS13_AES_256_GCM_SHA384, true),
        (cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, false),
        (cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, false),
    ];
    let mut fit = 0;
    for (suite, fits) in suites {
        let mut stream = site.stream(suite);
        stream.write_all(OPEN.as_bytes()).unwrap();
        assert!(read_until(&mut stream, "</stream:features>").contains("SCRAM-SHA-256"));
        stream.write_all(CLOSE.as_bytes()).unwrap();
        let mut rest = String::new();
        // An end without goodbye would be an error.
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, CLOSE, "{suite:?}");
        fit += u64::from(fits);
    }
    let in_kernel = site.in_kernel();
    assert_eq!(site.sealed(), if in_kernel { fit } else { 0 });
}

/// What `openssl s_client` says, on both its outputs, when this is typed.
fn openssl(site: &Site, options: &[&str], typed: &str) -> String {
    let address = site.node.node().address(Speaks::Xmpps).unwrap().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-verify_return_error", "-CAfile"]).arg(site.certificate()).args(options);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("openssl is installed");
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn openssl_reads_it_to_the_end() {
    let site = Site::start(1, KernelTls::Auto);
    for version in ["-tls1_2", "-tls1_3"] {
        let said = openssl(&site, &[version, "-ign_eof"], &format!("{OPEN}{CLOSE}"));
        assert!(said.contains("SCRAM-SHA-256<") && said.contains(CLOSE), "{said}");
        assert!(!said.contains("unexpected eof"), "{said}");
    }
    let in_kernel = site.in_kernel();
    assert_eq!(site.sealed(), u64::from(in_kernel));
}

#[test]
fn a_client_that_wants_other_keys_of_a_kernel_is_sent_away_alone() {
    let site = Site::start(1, KernelTls::Auto);
    let mut bystander = site.user("alice");
    let mut stream = site.stream(cipher_suite::TLS13_AES_128_GCM_SHA256);
    stream.write_all(OPEN.as_bytes()).unwrap();
    read_until(&mut stream, "</stream:features>");
    stream.conn.refresh_traffic_keys().unwrap();
    stream.write_all(CLOSE.as_bytes()).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("it ends with a goodbye");
    assert_eq!(rest, if site.in_kernel() { "" } else { CLOSE });
    bystander.ping().unwrap();
}
