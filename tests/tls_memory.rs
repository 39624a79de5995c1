//! What an idle TLS session holds, counted by the C library's own allocator, which serves Rust and aws-lc alike. A test alone in
//! its program, so that nothing else is counted.

use fanal::front::tls::{Application, Certificates, Identity, Terms, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SESSIONS: usize = 500;

fn in_use() -> usize {
    // SAFETY: it only reads the allocator's own figures.
    let figures = unsafe { libc::mallinfo2() };
    figures.uordblks + figures.hblkhd
}

/// A session that has shaken hands, and heard and said something; and what its server's side took.
fn session(terms: &Terms, config: &Arc<ClientConfig>) -> (Box<Tls>, Duration) {
    let mut client = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
    let (mut server, mut plain) = (Box::new(Tls::new(terms, Application::Xmpp).unwrap()), Vec::new());
    client.writer().write_all(&[b'x'; 3000]).unwrap();
    let mut took = Duration::ZERO;
    loop {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let start = Instant::now();
        server.received(&up, &mut plain).unwrap();
        server.send(&[], &mut down).unwrap();
        took += start.elapsed();
        if up.is_empty() && down.is_empty() {
            break;
        }
        let mut bytes = &down[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    let mut down = Vec::new();
    server.send(&[b'y'; 3000], &mut down).unwrap();
    client.read_tls(&mut &down[..]).unwrap();
    client.process_new_packets().unwrap();
    client.reader().read_exact(&mut [0; 3000]).unwrap();
    assert_eq!(plain.len(), 3000);
    // The kernel's part is not ours.
    server.hand_over();
    (server, took)
}

/// Bytes of each session, and microseconds of the server to make one.
fn measure(terms: &Terms, roots: &RootCertStore, version: &'static SupportedProtocolVersion) -> (usize, u128) {
    let builder = ClientConfig::builder_with_protocol_versions(&[version]);
    let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let mut sessions = Vec::with_capacity(SESSIONS);
    sessions.push(session(terms, &config));
    let before = in_use();
    sessions.extend((1..SESSIONS).map(|_| session(terms, &config)));
    let bytes = (in_use() - before) / (SESSIONS - 1);
    for (session, _) in &sessions {
        let said = session.heap_bytes() + size_of::<Tls>();
        assert!((bytes..bytes * 5 / 4).contains(&said), "heap_bytes makes it {said}, it is {bytes}");
    }
    (bytes, sessions.iter().map(|(_, took)| took).sum::<Duration>().as_micros() / SESSIONS as u128)
}

#[test]
fn an_idle_session_holds_little() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = made.cert.pem();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()).unwrap();
    let identity = Identity::from_pem(chain.as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    let terms = Terms::new(Arc::new(Certificates::new(identity))).unwrap();
    for (version, terms, most) in [
        (&rustls::version::TLS12, terms.clone(), 4 * 1024),
        (&rustls::version::TLS13, terms.clone(), 4 * 1024),
        (&rustls::version::TLS13, terms.in_kernel(true), 2 * 1024),
    ] {
        let (bytes, micros) = measure(&terms, &roots, version);
        println!(
            "{:?}: {bytes} bytes, of them Tls itself {}; {micros} us of the server a handshake",
            version.version,
            size_of::<Tls>()
        );
        assert!(bytes <= most, "{bytes} bytes with {version:?}");
    }
}
