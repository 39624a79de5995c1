//! What every handshake of a node goes by: its certificate, which can be replaced while sessions live, and its terms.
//!
//! Lives on: shared by all cores; only handshakes look at it, so its locks are off the presence path.

use super::exporter::Heard;
use super::validity;
use crate::base::time::WallClock;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Tickets for a TLS 1.3 client: one to come back with, and one for a second connection.
const TICKETS: usize = 2;

/// A certificate with its chain, and its key.
pub struct Identity {
    key: Arc<CertifiedKey>,
    /// When the certificate ends, as far as it can be read.
    pub ends: Option<WallClock>,
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
        let ends = validity::ends(&chain[0]);
        let identity = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        identity.map(|key| Identity { key: Arc::new(key), ends }).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => BadIdentity::Mismatch,
            error => BadIdentity::Unusable(error),
        })
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

/// The node's certificate. Handshakes that begin after `replace` get the new one; sessions go on as they are.
pub struct Certificates(RwLock<Arc<CertifiedKey>>);

impl Certificates {
    pub fn new(identity: Identity) -> Certificates {
        Certificates(RwLock::new(identity.key))
    }

    pub fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity.key;
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
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

/// The terms of a node's handshakes: TLS 1.2 and 1.3, tickets under keys that change every few hours and are never stored.
#[derive(Clone)]
pub struct Terms(Arc<ServerConfig>);

impl Terms {
    /// Errors: the system gives no random numbers for the tickets' keys.
    pub fn new(certificates: Arc<Certificates>) -> Result<Terms, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(certificates);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new()?;
        config.send_tls13_tickets = TICKETS;
        Ok(Terms(Arc::new(config)))
    }

    /// Whether the kernel is to encrypt what is sent, where it can.
    pub fn in_kernel(self, kernel: bool) -> Terms {
        let mut config = ServerConfig::clone(&self.0);
        config.enable_secret_extraction = kernel;
        Terms(Arc::new(config))
    }

    pub(super) fn kernel(&self) -> bool {
        self.0.enable_secret_extraction
    }

    /// For one connection, which hears of its own secrets; rustls drops it when the handshake is done.
    pub(super) fn config(&self, application: Application, heard: Arc<Heard>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.0);
        config.alpn_protocols = vec![application.protocol().to_vec()];
        config.key_log = heard;
        Arc::new(config)
    }
}
