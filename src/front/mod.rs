//! The doors of a node: they turn a client's bytes into frames that are sound, allowed and in order.
//!
//! Lives on: every core. Sans-IO: no socket, clock or randomness; the host hands in bytes, time and nonces. A door owns the state
//! of its connection, and nothing of any user.

pub mod binding;
pub mod doors;
pub mod json;
pub mod native;
pub mod sasl;
#[cfg(feature = "runtime")]
pub mod secure;
#[cfg(feature = "runtime")]
pub mod secure_link;
#[cfg(feature = "runtime")]
pub mod tls;
pub mod token;
pub mod translate;
pub mod ws;
pub mod xmpp;

use crate::base::credentials::Hash;

/// How a client may prove who it is, in the order a node offers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// A token that the operator's own log-in service signed (`token`).
    Token,
    /// A password that is never sent (RFC 5802, RFC 7677). `bound`: to the TLS connection or the server's certificate (`binding`),
    /// so that nobody in between can pass the proof on; their names end in -PLUS.
    Scram {
        hash: Hash,
        bound: bool,
    },
    /// A token that was given with another log-in, and is shown by its hash (XEP-0484). `bound`: to the TLS connection, too.
    Hashed {
        bound: bool,
    },
    Plain,
    /// A trunk's own token.
    Trunk,
}

impl Mechanism {
    pub const ALL: [Mechanism; 9] = [
        Mechanism::Token,
        Mechanism::Scram { hash: Hash::Sha256, bound: true },
        Mechanism::Scram { hash: Hash::Sha1, bound: true },
        Mechanism::Scram { hash: Hash::Sha256, bound: false },
        Mechanism::Scram { hash: Hash::Sha1, bound: false },
        Mechanism::Hashed { bound: true },
        Mechanism::Hashed { bound: false },
        Mechanism::Plain,
        Mechanism::Trunk,
    ];

    /// The name in `Hello.mechanisms` and `LogIn.mechanism`.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Token => "TOKEN",
            Mechanism::Scram { hash: Hash::Sha256, bound: true } => "SCRAM-SHA-256-PLUS",
            Mechanism::Scram { hash: Hash::Sha1, bound: true } => "SCRAM-SHA-1-PLUS",
            Mechanism::Scram { hash: Hash::Sha256, bound: false } => "SCRAM-SHA-256",
            Mechanism::Scram { hash: Hash::Sha1, bound: false } => "SCRAM-SHA-1",
            Mechanism::Hashed { bound: true } => "HT-SHA-256-EXPR",
            Mechanism::Hashed { bound: false } => "HT-SHA-256-NONE",
            Mechanism::Plain => "PLAIN",
            Mechanism::Trunk => "TRUNK",
        }
    }

    pub fn from_name(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }
}
