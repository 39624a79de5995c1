//! Where the node's certificate comes from: files of the operator's, or one that signs itself, made once and kept. That of its
//! links is read again with it.
//!
//! Lives on: the thread that starts the node, and the control thread. Serves G5. Invariants: a certificate that can't be read
//! never takes the place of one that works; the made one's key is readable by this user alone; `reload` ends no session; of one
//! that ends soon is warned when it is read, and every day.

use super::keys::write_secret;
use super::link_certificates::LinkKeeper;
use crate::base::config::{Config, StoreKind};
use crate::base::time::WallClock;
use crate::drive::clock;
use crate::front::tls::{BadCredentials, BadIdentity, Certificates, Identity};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;
use std::{fs, io};

/// The file in the data directory: certificate and key, as PEM.
const FILE: &str = "certificate.pem";
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// How long before a certificate's end the node begins to warn.
const WARN: Duration = Duration::from_secs(14 * 86_400);

/// Why there is no certificate to be had. Each names the file, the reason and the fix.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{key}: {path} can't be read: {source}. Check the path, and that this user may read it")]
    Read { key: &'static str, path: String, source: io::Error },
    #[error("tls.certificate {certificate}, tls.key {key}: {why}. Put the certificate and its issuers, and its key, there as PEM")]
    Bad { certificate: String, key: String, why: BadIdentity },
    #[error("the self-signed certificate {path} is damaged: {why}. Delete it to have a new one made")]
    BadMade { path: String, why: BadIdentity },
    #[error("the self-signed certificate can't be kept in {path}: {source}. Check that this user may write there")]
    Write { path: String, source: io::Error },
    #[error("a self-signed certificate can't be made: {0}. Set tls.certificate and tls.key")]
    Make(String),
    #[error("{place}: {why}. `fanal link ca` and `fanal link certificate` make what [link] needs")]
    BadLink { place: String, why: BadCredentials },
    #[error("TLS can't be set up: {0}")]
    Terms(#[from] rustls::Error),
}

/// The node's certificate, and where it is read again.
pub struct Keeper {
    pub certificates: Arc<Certificates>,
    source: Source,
    domain: String,
    end: End,
    /// `None`: links go in the clear, or there are none.
    pub links: Option<LinkKeeper>,
}

/// When a certificate ends, in milliseconds since 1970; 0: it doesn't say.
#[derive(Default)]
pub(super) struct End(AtomicU64);

impl End {
    pub fn set(&self, ends: Option<WallClock>) {
        self.0.store(ends.unwrap_or_default().0, Relaxed);
    }

    /// Seconds until then, below 0 afterwards; `None`: it doesn't say.
    pub fn seconds_left(&self) -> Option<i64> {
        let ends = self.0.load(Relaxed);
        (ends != 0).then(|| (ends / 1000).cast_signed() - (clock::wall().0 / 1000).cast_signed())
    }

    /// What there is to say about a certificate that ends soon, and whom it concerns.
    pub fn warning(&self, whom: &str) -> Option<String> {
        let left = self.seconds_left().filter(|left| *left < WARN.as_secs().cast_signed())?;
        let days = left.unsigned_abs() / DAY.as_secs();
        let when = if left < 0 { format!("has ended {days} days ago") } else { format!("ends in {days} days") };
        Some(format!("it {when}: put a new one in its place and send SIGHUP, or {whom} will refuse it"))
    }
}

enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// Made by us: the file; none: only in memory.
    Made(Option<PathBuf>),
}

impl Keeper {
    /// Reads the certificate, or makes one. Gives what there is to say about it, too.
    pub fn open(config: &Config) -> Result<(Keeper, String), CertificateError> {
        let domain = config.node.domain.clone();
        let source = match (&config.tls.certificate, &config.tls.key) {
            (Some(certificate), Some(key)) => Source::Files { certificate: certificate.clone(), key: key.clone() },
            _ if config.store.kind == StoreKind::Memory => Source::Made(None),
            _ => Source::Made(Some(config.node.data.join(FILE))),
        };
        let (identity, said) = source.load(&domain)?;
        let (end, links) = (End::default(), LinkKeeper::open(config)?);
        end.set(identity.ends);
        let keeper = Keeper { certificates: Arc::new(Certificates::new(identity)), source, domain, end, links };
        let said = keeper.with_warning(said);
        Ok((keeper, said))
    }

    /// Reads the files again: handshakes from now on go by what is there, sessions go on as they are. Gives what there is to say.
    ///
    /// # Errors
    /// The files can't be used; everything stays as it was.
    pub fn reload(&self) -> Result<String, CertificateError> {
        let (identity, said) = self.source.load(&self.domain)?;
        if let Some(links) = &self.links {
            links.replace(links.read()?);
        }
        self.end.set(identity.ends);
        self.certificates.replace(identity);
        Ok(self.with_warning(said))
    }

    /// Seconds until the certificate ends, below 0 afterwards; `None`: it doesn't say.
    pub fn seconds_left(&self) -> Option<i64> {
        self.end.seconds_left()
    }

    /// The same of the certificate for links; `None`: there is none, too.
    pub fn link_seconds_left(&self) -> Option<i64> {
        self.links.as_ref()?.end.seconds_left()
    }

    fn with_warning(&self, said: String) -> String {
        let said = self.end.warning(CLIENTS).map_or_else(|| said.clone(), |warning| format!("{said}; {warning}"));
        self.links.as_ref().map_or_else(|| said.clone(), |links| format!("{said}; {}", links.said()))
    }
}

/// Who refuses a node's certificate that has ended.
const CLIENTS: &str = "clients that check";

/// Warns every day in the log, until what this gives is dropped.
pub fn warn_daily(keeper: &Arc<Keeper>) -> io::Result<Sender<()>> {
    let (stop, stopped) = channel::<()>();
    let keeper: Weak<Keeper> = Arc::downgrade(keeper);
    std::thread::Builder::new().name("fanal-certificate".into()).spawn(move || {
        while stopped.recv_timeout(DAY) == Err(RecvTimeoutError::Timeout) {
            let Some(keeper) = keeper.upgrade() else { continue };
            if let Some(warning) = keeper.end.warning(CLIENTS) {
                tracing::warn!("the TLS certificate: {warning}");
            }
            if let Some(warning) = keeper.links.as_ref().and_then(LinkKeeper::warning) {
                tracing::warn!("the certificate for links: {warning}");
            }
        }
    })?;
    Ok(stop)
}

impl Source {
    fn load(&self, domain: &str) -> Result<(Identity, String), CertificateError> {
        match self {
            Source::Files { certificate, key } => from_files(certificate, key, domain),
            Source::Made(None) => {
                let pem = self_signed(domain)?;
                let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes());
                let identity = identity.map_err(|why| CertificateError::Make(why.to_string()))?;
                Ok((identity, format!("a self-signed certificate for {domain}, forgotten when the node stops")))
            }
            Source::Made(Some(path)) => kept(path, domain),
        }
    }
}

fn from_files(certificate: &Path, key: &Path, domain: &str) -> Result<(Identity, String), CertificateError> {
    let read = |name, path: &Path| {
        fs::read(path).map_err(|source| CertificateError::Read { key: name, path: path.display().to_string(), source })
    };
    let (chain, secret) = (read("tls.certificate", certificate)?, read("tls.key", key)?);
    let name = |path: &Path| path.display().to_string();
    let bad = |why| CertificateError::Bad { certificate: name(certificate), key: name(key), why };
    let identity = Identity::from_pem(&chain, &secret).map_err(bad)?;
    let warning = match identity.is_for(domain) {
        true => "",
        false => "; it does not name this node's domain, so clients that check will refuse it",
    };
    Ok((identity, format!("the certificate in {}{warning}", name(certificate))))
}

/// The certificate that was made before, or a new one in its place when the node has another domain now.
fn kept(path: &Path, domain: &str) -> Result<(Identity, String), CertificateError> {
    let name = path.display().to_string();
    let said = format!("a self-signed certificate for {domain}, kept in {name}: set tls.certificate and tls.key for a better one");
    match fs::read(path) {
        Ok(pem) => {
            let identity = Identity::from_pem(&pem, &pem).map_err(|why| CertificateError::BadMade { path: name.clone(), why })?;
            if identity.is_for(domain) || !domain.is_ascii() {
                return Ok((identity, said));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(CertificateError::Read { key: "the self-signed certificate", path: name, source }),
    }
    let pem = self_signed(domain)?;
    write_secret(path, &pem).map_err(|source| CertificateError::Write { path: name.clone(), source })?;
    let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes());
    Ok((identity.map_err(|why| CertificateError::BadMade { path: name, why })?, said))
}

/// A certificate for a domain that signs itself, and its key (ECDSA P-256), as PEM. A domain that is not ASCII stands in the
/// common name alone.
///
/// # Errors
/// The domain is nothing that a certificate can be for.
pub fn self_signed(domain: &str) -> Result<String, CertificateError> {
    let failed = |error: rcgen::Error| CertificateError::Make(error.to_string());
    let names = domain.is_ascii().then(|| domain.to_owned());
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, domain);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(certificate.pem() + &key.serialize_pem())
}
