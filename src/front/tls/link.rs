//! How nodes prove to each other which they are: certificates of the clusters' own authorities, at both ends, in TLS 1.3.
//!
//! Lives on: shared by all cores; only handshakes look at it. Serves Z2, G4. A certificate names its node as
//! `node-2.cluster-1.fanal` (a DNS name among its alternative names). Every authority in `link.ca` is trusted for every node that
//! its certificates name: to hold one to a cluster of its own is up to the operator (X.509 name constraints, which are kept to).
//! Invariants: a connection goes by what was there at its first byte; there is no resumption, so each connection is proved anew.

use super::terms::{BadIdentity, Identity};
use crate::base::time::WallClock;
use crate::wire::link::Site;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use std::sync::{Arc, PoisonError, RwLock};

/// What is spoken inside (ALPN).
const APPLICATION: &[u8] = b"fanal-link";

/// What is wrong with the files of `[link]`.
#[derive(Debug, thiserror::Error)]
pub enum BadCredentials {
    #[error("link.ca can't be read as PEM: {0}")]
    Authority(pem::Error),
    #[error("link.ca holds no certificate (BEGIN CERTIFICATE)")]
    NoAuthority,
    #[error("link.ca holds something that is no authority's certificate: {0}")]
    BadAuthority(Error),
    #[error("link.certificate, link.key: {0}")]
    Identity(#[from] BadIdentity),
    #[error("link.certificate is not of this node, which is {wanted}: {why}")]
    NotOurs { wanted: String, why: Error },
    #[error("TLS can't be set up: {0}")]
    Library(#[from] Error),
    #[error("TLS can't be set up: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// A node's certificate for links with its key, and the authorities that it trusts.
pub struct LinkIdentity {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// When the certificate ends, as far as it can be read.
    pub ends: Option<WallClock>,
}

impl LinkIdentity {
    /// Reads the authorities, the chain with the node's own certificate first, and its key, all PEM. A certificate that has ended
    /// is taken: it is for others to refuse.
    ///
    /// # Errors
    /// They can't be read, or the other nodes could not take this one for `own`.
    pub fn from_pem(authorities: &[u8], chain: &[u8], key: &[u8], own: Site) -> Result<LinkIdentity, BadCredentials> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots(authorities)?);
        let identity = Arc::new(Identity::from_pem(chain, key)?);
        check_own(&identity, &roots, &provider, own)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
        let mut server = builder.with_client_cert_verifier(clients).with_cert_resolver(identity.clone());
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![APPLICATION.to_vec()];
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13])?;
        let mut client = builder.with_root_certificates(roots).with_client_cert_resolver(identity.clone());
        client.resumption = Resumption::disabled();
        client.alpn_protocols = vec![APPLICATION.to_vec()];
        Ok(LinkIdentity { server: Arc::new(server), client: Arc::new(client), ends: identity.ends })
    }
}

/// What a node's links go by. Handshakes that begin after `replace` go by the new one; links that are up stay.
pub struct LinkCredentials(RwLock<Arc<LinkIdentity>>);

impl LinkCredentials {
    pub fn new(identity: LinkIdentity) -> LinkCredentials {
        LinkCredentials(RwLock::new(Arc::new(identity)))
    }

    pub fn replace(&self, identity: LinkIdentity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).server.clone()
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).client.clone()
    }
}

/// What a certificate calls a node.
pub(super) fn name(site: Site) -> ServerName<'static> {
    ServerName::try_from(site.certified_name()).expect("letters, digits, hyphens and dots")
}

/// Whether a certificate names this node.
pub(super) fn is_for(certificate: &CertificateDer<'_>, site: Site) -> bool {
    ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, &name(site))).is_ok()
}

fn roots(authorities: &[u8]) -> Result<RootCertStore, BadCredentials> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        roots.add(authority.map_err(BadCredentials::Authority)?).map_err(BadCredentials::BadAuthority)?;
    }
    if roots.is_empty() { Err(BadCredentials::NoAuthority) } else { Ok(roots) }
}

/// Looks at the own certificate as the other nodes will.
fn check_own(
    identity: &Identity,
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    own: Site,
) -> Result<(), BadCredentials> {
    let [certificate, issuers @ ..] = &identity.key.cert[..] else { return Err(BadIdentity::NoCertificate.into()) };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    match verifier.verify_server_cert(certificate, issuers, &name(own), &[], UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => Ok(()),
        Err(why) => Err(BadCredentials::NotOurs { wanted: own.certified_name(), why }),
    }
}
