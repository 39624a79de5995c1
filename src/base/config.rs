//! What an operator decides: `fanal.toml` as a value. Text in, a `Config` or an error out that names file, line, column, key
//! and fix.
//!
//! Lives on: the main thread, at start. Pure: whoever reads the file is elsewhere. Serves C1 (the meter's units), G5, J9.
//! Invariants: `Config::default()` is sound and listens on loopback only; a `Config` from `Config::parse` is sound; every key
//! stands in `keys::KEYS`, where the printed default file and the documentation come from.

mod check;
pub mod cluster;
mod directory;
mod endpoint;
mod error;
pub mod keys;
mod link;

pub use cluster::{Cluster, Coordination};
pub use directory::Directory;
pub use endpoint::Endpoint;
pub use error::{ConfigError, Fault};
pub use link::{Compression, Link, WAITING};

use super::limits::Limits;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// All of it. A key that isn't written has its default.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub node: Node,
    pub listen: Listen,
    pub tls: Tls,
    pub login: LogIn,
    pub store: Store,
    pub cluster: Cluster,
    pub directory: Directory,
    pub link: Link,
    pub presence: Presence,
    pub limits: Limits,
    pub metrics: Metrics,
}

/// The process itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// The part behind '@' of every user of this node.
    pub domain: String,
    pub cores: Cores,
    /// The data directory.
    pub data: PathBuf,
}

/// Which processors the node's cores are pinned to, one core each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Cores {
    /// One hardware thread of every physical processor that this process may use.
    #[default]
    All,
    These(Vec<u16>),
}

/// Where the node listens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The native door: clients and trunks.
    pub native: SocketAddr,
    /// XMPP clients, with STARTTLS; none: that door is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xmpp: Option<SocketAddr>,
    /// What XMPP clients call this very node: where they come back to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xmpp_location: Option<String>,
    /// XMPP clients that begin with TLS (XEP-0368).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xmpps: Option<SocketAddr>,
    /// WebSocket clients and pages for browsers, with and without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws: Option<SocketAddr>,
    /// Origins of web pages that may open WebSockets, besides the same host's.
    pub ws_origins: Vec<String>,
    /// What clients call the WebSocket door.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws_url: Option<String>,
    /// Metrics, health and administration over HTTP.
    pub admin: SocketAddr,
    /// What an administrator's request must carry. Required when `admin` is reachable from other machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token: Option<Secret>,
}

/// What the node proves with who it is. Without both, it signs a certificate itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM: the domain's certificate, its issuers behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM: its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    pub kernel: KernelTls,
}

/// Whether the kernel encrypts what is sent (kTLS).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelTls {
    /// Where it can.
    #[default]
    Auto,
    Off,
}

/// How users and trunks prove who they are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogIn {
    /// Keys of users' tokens: the first one signs, all of them are accepted.
    pub token_keys: Vec<Secret>,
    /// The same for the tokens of trunks.
    pub trunk_keys: Vec<Secret>,
    /// Whether clients may log in without TLS, and send passwords as they are (SASL PLAIN).
    pub plain: bool,
    /// Whether people may make their own accounts.
    pub open_registration: bool,
    /// The service that decides on those whose keys are not kept here ([`Endpoint`]); none: they don't get in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// PEM: whose certificates that service may have, if it's asked over https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_ca: Option<PathBuf>,
}

/// Where what must outlive the process goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    pub kind: StoreKind,
    /// Where the database is; with `StoreKind::Postgres`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<DatabaseUrl>,
    /// How long a change may wait for the database.
    pub timeout_ms: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A redb file in the data directory.
    #[default]
    Redb,
    /// A PostgreSQL database, or one that speaks like it.
    Postgres,
    /// Nothing is kept: for tests and measurements.
    Memory,
}

/// How presence goes to other nodes and clusters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Presence {
    /// Bytes of a presence above which it goes by reference (M5): whoever hears of it asks for it, once.
    pub inline_max: u32,
}

/// What is measured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// One of this many events is timed.
    pub sample: u32,
    /// Where the HdrHistogram interval log goes. None is written without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_log: Option<PathBuf>,
    pub interval_seconds: u32,
    /// C1: a message longer than this counts as several.
    pub meter_unit_bytes: u32,
    /// C1: load is messages per this time.
    pub meter_unit_ms: u32,
}

impl Default for Node {
    fn default() -> Node {
        Node { domain: "localhost".into(), cores: Cores::All, data: "fanal-data".into() }
    }
}

impl Default for Listen {
    fn default() -> Listen {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Listen {
            native: loopback(7400),
            xmpp: None,
            xmpp_location: None,
            xmpps: None,
            ws: None,
            ws_origins: Vec::new(),
            ws_url: None,
            admin: loopback(7401),
            admin_token: None,
        }
    }
}

impl Default for Store {
    fn default() -> Store {
        Store { kind: StoreKind::default(), url: None, timeout_ms: 5_000 }
    }
}

impl Default for Presence {
    fn default() -> Presence {
        Presence { inline_max: 4096 }
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { sample: 64, interval_log: None, interval_seconds: 10, meter_unit_bytes: 1500, meter_unit_ms: 1000 }
    }
}

impl Config {
    /// Reads the text of a file. `file` is only for the error. A valid file without a line in it gives `Config::default()`.
    pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
        check::read(file, text, |_| Ok(()))
    }

    /// The same, with one more check, whose fault is found in the file, too: whether the values fit this machine.
    pub fn parse_for(file: &str, text: &str, fits: impl Fn(&Config) -> Result<(), Fault>) -> Result<Config, ConfigError> {
        check::read(file, text, fits)
    }

    /// Whether the values go together: what no single key can tell. `parse` has done it; do it again after changing values.
    pub fn check(&self) -> Result<(), Fault> {
        check::together(self)
    }

    /// A file with every key, its meaning and its default, all of it commented out.
    pub fn default_file() -> String {
        keys::default_file()
    }
}

/// A key or token: never printed, not even by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Shortest key that is accepted, in bytes: what can't be guessed.
    pub const LEAST_BYTES: usize = 32;

    /// `None`: too short.
    pub fn new(text: impl Into<String>) -> Option<Secret> {
        let text = text.into();
        (text.len() >= Secret::LEAST_BYTES).then_some(Secret(text))
    }

    /// The secret itself: its bytes are the key.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The URL of a database, which may hold a password: never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(pub String);

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl")
    }
}

impl Serialize for Cores {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Cores::All => to.serialize_str("all"),
            Cores::These(cores) => cores.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Cores, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Cores;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"all\" or a list of processor numbers")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cores, E> {
                match text {
                    "all" => Ok(Cores::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<Cores, A::Error> {
                Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list)).map(Cores::These)
            }
        }
        from.deserialize_any(Visitor)
    }
}
