//! TLS towards services outside: whose certificates they may have, and which one this node shows them.
//!
//! Lives on: the threads of `hook` and `etcd`. Serves Z1, Z4, G1. Invariant: what is said goes to nobody but whom the file of
//! authorities vouches for, by the name under which it was asked for.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file that can't be used.
#[derive(Debug)]
pub struct Unusable {
    pub path: String,
    pub why: String,
}

/// Whom to trust.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// By files of PEM: the authorities, and this node's own certificate and key, if it is to show one.
    ///
    /// # Errors
    /// One of them can't be used.
    pub fn new(authorities: &Path, own: Option<[&Path; 2]>) -> Result<Trust, Unusable> {
        let bad = |path: &Path, why: String| Unusable { path: path.display().to_string(), why };
        let read = |path: &Path| std::fs::read(path).map_err(|error| bad(path, error.to_string()));
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Unusable> {
            let pem = read(path)?;
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            match found.map_err(|error| bad(path, error.to_string()))? {
                none if none.is_empty() => Err(bad(path, "there is no certificate in it".into())),
                some => Ok(some),
            }
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities)? {
            roots.add(certificate).map_err(|error| bad(authorities, error.to_string()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(authorities, error.to_string()))?
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some([chain, key]) => {
                let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| bad(key, error.to_string()))?;
                config.with_client_auth_cert(certificates(chain)?, secret).map_err(|error| bad(chain, error.to_string()))?
            }
        };
        Ok(Trust(Arc::new(config)))
    }

    /// What is said to the service of this name.
    ///
    /// # Errors
    /// There is no memory, or no randomness.
    pub fn session(&self, name: &ServerName<'static>) -> io::Result<ClientConnection> {
        ClientConnection::new(self.0.clone(), name.clone()).map_err(io::Error::other)
    }
}
