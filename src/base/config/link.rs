//! `[link]`: what nodes and clusters say to each other, and when they give each other up.

use super::{Config, Fault};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Units stand in the names; without one it's a count. All of it is of one lane of a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Where this node takes other nodes' links; none: at its own entry in `cluster.nodes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where other nodes are told to connect to this one, with etcd; none: where it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// PEM: the authorities of this cluster, and of others that it is linked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// PEM: this node's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM: its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Whether links may go over a network in the clear.
    pub plain: bool,
    /// A Ping goes out so often.
    pub heartbeat_ms: u32,
    /// Silence at which a connection is ended.
    pub silent_ms: u32,
    /// About the wait before the first dial after a loss; it doubles with each failure, and full jitter is taken of it.
    pub backoff_ms: u32,
    /// What it doubles up to.
    pub backoff_max_ms: u32,
    /// Entries sent and not acknowledged. At the limit: `overloaded` to whoever asked.
    pub entries: u32,
    /// Their bytes. At the limit: the same.
    pub entry_bytes: u32,
    /// Silence, connected or not, at which the other node counts as lost.
    pub grace_ms: u32,
    /// What may wait for a complex message to another cluster: some of [`WAITING`].
    pub non_real_time: Vec<String>,
    /// How long all clients of a cluster who watch somebody must have been inactive before that counts.
    pub inactive_ms: u32,
    /// Things in a complex message, at most. At the limit: it goes.
    pub complex_count: u32,
    /// Their bytes before they are packed. At the limit: it goes.
    pub complex_bytes: u32,
    /// How long they wait. At the limit: it goes.
    pub complex_ms: u32,
    pub compression: Compression,
    /// A file by which zstd packs smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<PathBuf>,
}

/// The words of `non_real_time`: what each means stands at `link::classify::Matter`.
pub const WAITING: &[&str] = &["show", "status_text", "details", "inactive", "subscriptions", "messages", "questions"];

/// How complex messages are packed. All are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Lz4,
    Zstd,
    None,
}

impl Default for Link {
    fn default() -> Link {
        Link {
            listen: None,
            address: None,
            ca: None,
            certificate: None,
            key: None,
            plain: false,
            heartbeat_ms: 400,
            silent_ms: 1_500,
            backoff_ms: 50,
            backoff_max_ms: 500,
            entries: 65_536,
            entry_bytes: 32 << 20,
            grace_ms: 2_500,
            non_real_time: Vec::new(),
            inactive_ms: 10_000,
            complex_count: 1_024,
            complex_bytes: 256 << 10,
            complex_ms: 1_000,
            compression: Compression::default(),
            dictionary: None,
        }
    }
}

impl Link {
    /// Where other nodes connect to this one, if they hear it from etcd.
    pub fn own_address(&self) -> Option<SocketAddr> {
        self.address.or(self.listen)
    }

    /// The files by which links prove who they are: authorities, certificate, key. `None`: links go in the clear.
    pub fn files(&self) -> Option<[&Path; 3]> {
        Some([self.ca.as_deref()?, self.certificate.as_deref()?, self.key.as_deref()?])
    }
}

/// What makes certificates for links.
const MAKE: &str = "`fanal link ca` makes an authority, and `fanal link certificate` a certificate for each node";

/// What no single key can tell.
pub(super) fn check(config: &Config) -> Result<(), Fault> {
    let link = &config.link;
    check_tls(config)?;
    if let Some(word) = link.non_real_time.iter().find(|word| !WAITING.contains(&word.as_str())) {
        let fix = format!("known are {}; everything else is real-time always", WAITING.join(", "));
        return Err(Fault::new("link.non_real_time", format!("there is nothing called \"{word}\""), fix));
    }
    // The first of each may be at most the second.
    let pairs = [
        ("heartbeat_ms", link.heartbeat_ms, "silent_ms", link.silent_ms, "or every pause is a loss"),
        ("silent_ms", link.silent_ms, "grace_ms", link.grace_ms, "or a node is lost before its connection is"),
        ("backoff_ms", link.backoff_ms, "backoff_max_ms", link.backoff_max_ms, "or the wait can't grow"),
    ];
    match pairs.into_iter().find(|(_, low, _, high, _)| low > high) {
        Some((low, value, high, most, why)) => {
            let problem = format!("{value} is more than {high} = {most}");
            Err(Fault::new(format!("link.{low}"), problem, format!("make {low} at most {high}, {why}")))
        }
        None => Ok(()),
    }
}

/// Links go inside TLS, or stay on this machine.
fn check_tls(config: &Config) -> Result<(), Fault> {
    let link = &config.link;
    let files = [("ca", &link.ca), ("certificate", &link.certificate), ("key", &link.key)];
    if let Some((given, _)) = files.iter().find(|(_, file)| file.is_some()) {
        return match files.iter().find(|(_, file)| file.is_none()) {
            Some((missing, _)) => {
                let problem = format!("there is no link.{missing} to it");
                Err(Fault::new(format!("link.{given}"), problem, format!("name all three files: {MAKE}")))
            }
            None => Ok(()),
        };
    }
    let nodes = config.cluster.nodes.iter().map(|peer| ("cluster.nodes", peer.address));
    let own = [("link.listen", link.listen), ("link.address", link.address)];
    let mut addresses = nodes.chain(own.into_iter().filter_map(|(key, address)| Some((key, address?))));
    match addresses.find(|(_, address)| !link.plain && !address.ip().is_loopback()) {
        Some((key, open)) => {
            let problem = format!("{open} is not on this machine alone, and links in the clear can be read and forged on the way");
            Err(Fault::new(key, problem, format!("set link.ca, link.certificate and link.key: {MAKE}")))
        }
        None => Ok(()),
    }
}
