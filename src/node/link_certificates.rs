//! Where the certificate of a node's links comes from, and how an operator's own authority makes one.
//!
//! Lives on: the thread that starts the node, the control thread, and `fanal link`. Serves Z2, G5. Invariants: as for the node's
//! other certificate, which `certificates` keeps; nothing that is there is ever written over.

use super::certificates::{CertificateError, DAY, End};
use super::keys::write_secret;
use crate::base::config::Config;
use crate::base::id::NodeId;
use crate::drive::clock;
use crate::front::tls::{BadCredentials, LinkCredentials, LinkIdentity};
use crate::wire::link::Site;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, io};

/// The files that the commands make.
pub const CA: &str = "ca.pem";
pub const CA_KEY: &str = "ca.key";
pub const NODE: &str = "node.pem";
pub const NODE_KEY: &str = "node.key";

/// The certificate that links go by, and where it is read again.
pub struct LinkKeeper {
    pub credentials: Arc<LinkCredentials>,
    files: [PathBuf; 3],
    own: Site,
    pub(super) end: End,
}

impl LinkKeeper {
    /// Reads the files. `None`: the configuration names none, or no cluster.
    pub(super) fn open(config: &Config) -> Result<Option<LinkKeeper>, CertificateError> {
        let (Some(cluster), Some(node), Some(files)) = (config.cluster.number, config.cluster.node, config.link.files()) else {
            return Ok(None);
        };
        let (files, own) = (files.map(Path::to_owned), Site { cluster, node: NodeId(node) });
        let identity = load(&files, own)?;
        let end = End::default();
        end.set(identity.ends);
        Ok(Some(LinkKeeper { credentials: Arc::new(LinkCredentials::new(identity)), files, own, end }))
    }

    /// What is in the files now.
    pub(super) fn read(&self) -> Result<LinkIdentity, CertificateError> {
        load(&self.files, self.own)
    }

    /// Links from now on go by this one.
    pub(super) fn replace(&self, identity: LinkIdentity) {
        self.end.set(identity.ends);
        self.credentials.replace(identity);
    }

    /// What there is to say about it.
    pub(super) fn said(&self) -> String {
        let said = format!("links by the certificate in {}", self.files[1].display());
        self.warning().map_or_else(|| said.clone(), |warning| format!("{said}; {warning}"))
    }

    pub(super) fn warning(&self) -> Option<String> {
        self.end.warning("other nodes")
    }
}

fn load(files: &[PathBuf; 3], own: Site) -> Result<LinkIdentity, CertificateError> {
    let read = |(path, key): (&PathBuf, &'static str)| {
        fs::read(path).map_err(|source| CertificateError::Read { key, path: path.display().to_string(), source })
    };
    let [ca, certificate, key] = files;
    let (ca, chain, key) = (read((ca, "link.ca"))?, read((certificate, "link.certificate"))?, read((key, "link.key"))?);
    LinkIdentity::from_pem(&ca, &chain, &key, own)
        .map_err(|why| CertificateError::BadLink { place: certificate.display().to_string(), why })
}

/// Why an authority or a certificate can't be made. Each names the file, the reason and the fix.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error("{0} is there already, and nodes may go by it: choose another directory, or move it away")]
    Exists(String),
    #[error("{path} can't be {what}: {source}. Check the path, and that this user may use it")]
    File { path: String, what: &'static str, source: io::Error },
    #[error("{path} is no key of an authority: {why}. Name the directory that `fanal link ca` has made")]
    BadKey { path: String, why: rcgen::Error },
    #[error("{ca} and {key} don't belong together: {why}. Name the directory that `fanal link ca` has made")]
    BadPair { ca: String, key: String, why: Box<BadCredentials> },
    #[error("it can't be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Makes an authority in a directory, which is made if it's missing: its certificate and its key, which only this user may read.
///
/// # Errors
/// It can't be written, or one is there.
pub fn make_authority(dir: &Path, days: u32) -> Result<[PathBuf; 2], MakeError> {
    let [certificate, secret] = vacant(dir, [CA, CA_KEY])?;
    let key = KeyPair::generate()?;
    let made = authority(&key, days)?.self_signed(&key)?;
    keep(&secret, &key.serialize_pem())?;
    keep(&certificate, &made.pem())?;
    Ok([certificate, secret])
}

/// Makes a node's certificate and key in a directory, by the authority in another one. Gives its files, and the authority's.
///
/// # Errors
/// The authority can't be read; it can't be written, or one is there.
pub fn make_certificate(ca: &Path, dir: &Path, site: Site, days: u32) -> Result<[PathBuf; 3], MakeError> {
    let (ca_file, ca_key) = (ca.join(CA), ca.join(CA_KEY));
    let name = |path: &Path| path.display().to_string();
    let read = |path: &Path| fs::read_to_string(path).map_err(|source| MakeError::File { path: name(path), what: "read", source });
    let (authorities, key) = (read(&ca_file)?, read(&ca_key)?);
    let [certificate, secret] = vacant(dir, [NODE, NODE_KEY])?;
    let key = KeyPair::from_pem(&key).map_err(|why| MakeError::BadKey { path: name(&ca_key), why })?;
    let issuer = Issuer::new(authority(&key, days)?, key);
    let own = KeyPair::generate()?;
    let made = node(site, days)?.signed_by(&own, &issuer)?.pem();
    LinkIdentity::from_pem(authorities.as_bytes(), made.as_bytes(), own.serialize_pem().as_bytes(), site)
        .map_err(|why| MakeError::BadPair { ca: name(&ca_file), key: name(&ca_key), why: Box::new(why) })?;
    keep(&secret, &own.serialize_pem())?;
    keep(&certificate, &made)?;
    Ok([ca_file, certificate, secret])
}

/// The files' paths, if they are free.
fn vacant<const N: usize>(dir: &Path, names: [&str; N]) -> Result<[PathBuf; N], MakeError> {
    let failed = |source| MakeError::File { path: dir.display().to_string(), what: "made", source };
    fs::create_dir_all(dir).map_err(failed)?;
    let paths = names.map(|name| dir.join(name));
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Err(MakeError::Exists(path.display().to_string())),
        None => Ok(paths),
    }
}

fn keep(path: &Path, pem: &str) -> Result<(), MakeError> {
    write_secret(path, pem).map_err(|source| MakeError::File { path: path.display().to_string(), what: "written", source })
}

/// What an authority says of itself: nothing but its key decides its name, so that the key is all it takes to go on.
fn authority(key: &KeyPair, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = lasting(CertificateParams::new(Vec::<String>::new())?, days);
    let print: String = Sha256::digest(key.der_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("fanal links {print}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn node(site: Site, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = lasting(CertificateParams::new(vec![site.certified_name()])?, days);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, site.certified_name());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Good from yesterday on, for other machines' clocks, for so many days.
fn lasting(mut params: CertificateParams, days: u32) -> CertificateParams {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::wall().0);
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
    params
}
