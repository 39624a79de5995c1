//! What every handshake of a node goes by: its certificate, which can be replaced while sessions live, and its terms.
//!
//! Lives on: shared by all cores; only handshakes look at it, so its locks are off the presence path. Invariants: a connection goes
//! by one identity, the one at its first byte, whatever is put in its place; a ticket is of no use behind another certificate than
//! the one it was given under, so that a session's certificate is the one that its client has checked, resumed or not.

use super::exporter::Heard;
use super::{end_point, validity};
use crate::base::time::WallClock;
use crate::front::binding::EndPoint;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Tickets for a TLS 1.3 client: one to come back with, and one for a second connection.
const TICKETS: usize = 2;

/// A certificate with its chain, and its key.
pub struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    tickets: Arc<dyn ProducesTickets>,
    /// When the certificate ends, as far as it can be read.
    pub ends: Option<WallClock>,
    /// What a log-in that is bound to the certificate has in it. `None`: its signature has no hash of its own.
    pub end_point: Option<EndPoint>,
}

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum BadIdentity {
    #[error("the certificate file holds no certificate (BEGIN CERTIFICATE)")]
    NoCertificate,
    #[error("the certificate file can't be read as PEM: {0}")]
    Certificate(pem::Error),
    #[error("the key file holds no private key (BEGIN PRIVATE KEY, not encrypted)")]
    NoKey,
    #[error("the private key is encrypted: take the password off it, as `openssl pkey` does, and let nobody else read the file")]
    Encrypted,
    #[error("the key file can't be read as PEM: {0}")]
    Key(pem::Error),
    #[error("the key is not the certificate's: the certificate of the domain itself must come first, its issuers behind it")]
    Mismatch,
    #[error("it can't be used: {0}")]
    Unusable(Error),
}

impl Identity {
    /// Reads a chain, the node's own certificate first, and the key. Both may stand in the same text.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, BadIdentity> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(BadIdentity::Certificate)?;
        if chain.is_empty() {
            return Err(BadIdentity::NoCertificate);
        }
        let is_encrypted = key.windows(b"ENCRYPTED".len()).any(|word| word == b"ENCRYPTED");
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            _ if is_encrypted => BadIdentity::Encrypted,
            pem::Error::NoItemsFound => BadIdentity::NoKey,
            error => BadIdentity::Key(error),
        })?;
        let (ends, end_point) = (validity::ends(&chain[0]), end_point::of(&chain[0]));
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => BadIdentity::Mismatch,
            error => BadIdentity::Unusable(error),
        })?;
        // Its keys change every few hours and are never stored.
        let tickets = Ticketer::new().map_err(BadIdentity::Unusable)?;
        Ok(Identity { key: Arc::new(key), tickets, ends, end_point })
    }

    /// Whether the certificate names this domain: else clients that check it refuse it.
    pub fn is_for(&self, domain: &str) -> bool {
        let name = ServerName::try_from(domain);
        let certificate = self.key.end_entity_cert().and_then(ParsedCertificate::try_from);
        match (certificate, name) {
            (Ok(certificate), Ok(name)) => rustls::client::verify_server_name(&certificate, &name).is_ok(),
            _ => false,
        }
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.clone())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// The node's certificate. Handshakes that begin after `replace` get the new one; sessions go on as they are.
pub struct Certificates(RwLock<Arc<Identity>>);

impl Certificates {
    pub fn new(identity: Identity) -> Certificates {
        Certificates(RwLock::new(Arc::new(identity)))
    }

    /// Tickets given under the same certificate stay good, and those of another end with it.
    pub fn replace(&self, mut identity: Identity) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if identity.key.cert.first() == current.key.cert.first() {
            identity.tickets = current.tickets.clone();
        }
        *current = Arc::new(identity);
    }

    fn current(&self) -> Arc<Identity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is spoken inside. A client that names protocols (ALPN) must name this one; one that names none is taken too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Application {
    Native,
    /// XEP-0368.
    Xmpp,
    /// What WebSocket begins with.
    Http,
}

impl Application {
    fn protocol(self) -> &'static [u8] {
        match self {
            Application::Native => b"fanal",
            Application::Xmpp => b"xmpp-client",
            Application::Http => b"http/1.1",
        }
    }
}

/// The terms of a node's handshakes: TLS 1.2 and 1.3, and tickets to come back with.
#[derive(Clone)]
pub struct Terms {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

impl Terms {
    /// Errors: rustls can't do both versions.
    pub fn new(certificates: Arc<Certificates>) -> Result<Terms, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(certificates.current());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = TICKETS;
        Ok(Terms { config: Arc::new(config), certificates })
    }

    /// Whether the kernel is to encrypt what is sent, where it can.
    pub fn in_kernel(mut self, kernel: bool) -> Terms {
        Arc::make_mut(&mut self.config).enable_secret_extraction = kernel;
        self
    }

    pub(super) fn kernel(&self) -> bool {
        self.config.enable_secret_extraction
    }

    /// For one connection, which hears of its own secrets, and the identity that it goes by; rustls drops the first when the
    /// handshake is done.
    pub(super) fn for_connection(&self, application: Application, heard: Arc<Heard>) -> (Arc<ServerConfig>, Arc<Identity>) {
        let (mut config, identity) = (ServerConfig::clone(&self.config), self.certificates.current());
        config.alpn_protocols = vec![application.protocol().to_vec()];
        config.key_log = heard;
        config.ticketer = identity.tickets.clone();
        config.cert_resolver = identity.clone();
        (Arc::new(config), identity)
    }
}
