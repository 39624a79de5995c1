//! Both ends of a TLS connection in memory: ours, and rustls' own client.
#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use fanal::base::credentials::Hash;
use fanal::front::binding::EndPoint;
use fanal::front::tls::{Application, Certificates, Fault, Identity, Terms, Tls};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::sync::Arc;

/// RFC 9266 4.2.
pub const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// A node with a certificate, and what a client must know to trust it.
pub struct Site {
    pub certificates: Arc<Certificates>,
    pub terms: Terms,
    pub roots: RootCertStore,
}

pub fn made(roots: &mut RootCertStore) -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = made.cert.pem();
    roots.add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()).unwrap();
    Identity::from_pem(chain.as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap()
}

impl Site {
    pub fn new() -> Site {
        let mut roots = RootCertStore::empty();
        let certificates = Arc::new(Certificates::new(made(&mut roots)));
        let terms = Terms::new(certificates.clone()).unwrap();
        Site { certificates, terms, roots }
    }

    pub fn client_config(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        builder.with_root_certificates(self.roots.clone()).with_no_client_auth()
    }

    pub fn pair(&self, version: &'static SupportedProtocolVersion) -> Pair {
        self.pair_of(&Arc::new(self.client_config(version)))
    }

    pub fn pair_of(&self, config: &Arc<ClientConfig>) -> Pair {
        let client = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let server = Tls::new(&self.terms, Application::Xmpp).unwrap();
        Pair { client, server, at_client: Vec::new(), at_server: Vec::new() }
    }
}

/// Both ends of a connection, and what has arrived at each.
pub struct Pair {
    pub client: ClientConnection,
    pub server: Tls,
    pub at_client: Vec<u8>,
    pub at_server: Vec<u8>,
}

impl Pair {
    /// Carries bytes until nobody has any more, those to the server in pieces of `piece`.
    pub fn carry_in(&mut self, piece: usize) -> Result<(), Fault> {
        loop {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            while self.client.wants_write() {
                self.client.write_tls(&mut up).unwrap();
            }
            for piece in up.chunks(piece) {
                self.server.received(piece, &mut self.at_server)?;
            }
            self.server.send(&[], &mut down)?;
            self.hear(&down);
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
        }
    }

    pub fn carry(&mut self) {
        self.carry_in(usize::MAX).unwrap();
    }

    /// The client takes what came from the server.
    pub fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            let state = self.client.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.client.reader().read_exact(&mut plain).unwrap();
            self.at_client.extend(plain);
        }
    }

    pub fn ask(&mut self, text: &[u8]) {
        self.client.writer().write_all(text).unwrap();
    }

    pub fn tell(&mut self, text: &[u8]) {
        let mut out = Vec::new();
        self.server.send(text, &mut out).unwrap();
        self.hear(&out);
    }

    /// A few words both ways.
    pub fn talk(&mut self) {
        let (asked, told) = (self.at_server.len(), self.at_client.len());
        self.ask(b"who is there?");
        self.carry();
        self.tell(b"everybody");
        assert_eq!((&self.at_server[asked..], &self.at_client[told..]), (&b"who is there?"[..], &b"everybody"[..]));
    }
}

/// What the server's certificate is to a client whose node has one by ECDSA P-256 (RFC 5929 4.1).
pub fn end_point(client: &ClientConnection) -> Option<EndPoint> {
    EndPoint::new(&Hash::Sha256.digest(&client.peer_certificates().unwrap()[0]))
}
