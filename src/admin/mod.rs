//! The admin API (G5): metrics, health, users and transfers over HTTP/1.1, for operators, Prometheus and the command line.
//!
//! Lives on: threads of its own, away from the cores; it reaches them only through `Control`. Invariants: it listens on loopback
//! unless a token is set; connections, sizes and times are bounded; whatever comes in, the answer is a status with a JSON
//! error that names the fix, and the node goes on. From the inside out: `http` (bytes <-> requests and responses, pure),
//! `routes` (a request -> a response), `server` (sockets and threads), `client` (the other end).
//! It is plain blocking code with one thread per connection: there are few of them, and no loop to keep free.

pub mod client;
mod cluster;
mod directory;
pub mod http;
mod owners;
mod routes;
pub mod server;

pub use cluster::{ClusterStatus, NodeStatus};
pub use directory::{ClusterEntry, ClusterList, Forgotten, Location, NodeEntry};
pub use owners::{MemberState, MemberStatus, OwnersOrder, OwnersStatus};

use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::metrics::fields::NodeCount;
use crate::metrics::snapshot::Snapshot;
use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Reads a JSON body, which is used up.
///
/// Errors: what is wrong with it.
pub fn read_json<T: DeserializeOwned>(body: &mut [u8]) -> Result<T, String> {
    simd_json::serde::from_slice(body).map_err(|problem| problem.to_string())
}

/// What the node does for its operator. One call at a time; a call may wait for the cores.
pub trait Control: Send {
    /// What every core has measured.
    fn snapshots(&mut self) -> Result<Vec<Snapshot>, Refusal>;

    /// What is counted for the node as a whole.
    fn node_counts(&mut self) -> Vec<NodeCount>;

    /// How long each transaction of the store waited for the disk, in nanoseconds.
    fn store_syncs(&mut self) -> Histogram<u64>;

    /// Whether the store can be reached.
    fn store_up(&mut self) -> bool;

    /// Seconds until the TLS certificate ends, below 0 afterwards; `None`: it doesn't say.
    fn certificate_seconds_left(&mut self) -> Option<i64>;

    /// The same of the certificate for links; `None`: there is none, too.
    fn link_certificate_seconds_left(&mut self) -> Option<i64>;

    /// How this node finds its cluster.
    fn cluster(&mut self) -> Result<ClusterStatus, Refusal>;

    /// Changes who owns which users. What there is to say about it (Z4, M1).
    fn share_out(&mut self, order: OwnersOrder) -> Result<String, Refusal>;

    fn health(&mut self) -> Health;

    /// Adds a user; without a password, one who logs in by token or trunk only.
    fn add_user(&mut self, jid: &Bare, password: Option<&str>) -> Result<(), Refusal>;

    /// Removes a user with everything kept, and ends the user's sessions.
    fn remove_user(&mut self, jid: &Bare) -> Result<(), Refusal>;

    /// Up to `limit` users of the cluster, or of one of its nodes, in the order of their JIDs, from the first one behind `after`.
    fn list_users(&mut self, after: Option<&Bare>, limit: usize, node: Option<u16>) -> Result<UserList, Refusal>;

    /// The clients with the most load, the heaviest first (C1).
    fn clients(&mut self, most: usize) -> Result<Vec<ClientEntry>, Refusal>;

    /// Tells a user's sessions to go on at `address` (host:port). The number of sessions told (C8).
    fn transfer(&mut self, jid: &Bare, address: &str) -> Result<usize, Refusal>;

    /// Which cluster a user is of (Z1); 0: this node is alone; `None`: of none.
    fn locate(&mut self, jid: &Bare) -> Result<Option<u16>, Refusal>;

    /// The clusters that are known (Z1).
    fn clusters(&mut self) -> Result<ClusterList, Refusal>;

    /// Has a cluster forgotten; with users only by force. What is left then needs another call (Z1).
    fn forget_cluster(&mut self, number: u16, force: bool) -> Result<Forgotten, Refusal>;

    /// Reads the TLS certificate's files again; no session ends. What there is to say about it.
    fn reload_certificate(&mut self) -> Result<String, Refusal>;
}

/// How the node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// It works: a supervisor need not restart it.
    pub live: bool,
    /// It takes clients.
    pub ready: bool,
    /// Why not, for people.
    pub why: String,
}

/// Why the node did not do what was asked, with the fix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request makes no sense: 400.
    Wrong(String),
    /// There is no such user: 404.
    Missing(String),
    /// It clashes with what is there: 409.
    Conflict(String),
    /// The node can't at the moment: 503.
    Unavailable(String),
}

/// A part of the list of users.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserList {
    pub users: Vec<UserLine>,
    /// There are some behind the last one.
    pub more: bool,
    /// Nodes that did not answer: their users are missing.
    pub missing: Vec<u16>,
}

/// One user in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserLine {
    pub jid: Bare,
    pub user: UserId,
    /// The node with the user's home; 0: this one is alone.
    pub node: u16,
    pub sessions: usize,
    pub contacts: usize,
}

/// `POST /users`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub jid: String,
    /// Without one the user logs in by token or trunk only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `POST /transfer`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferOrder {
    pub jid: String,
    /// host:port.
    pub address: String,
}

/// A page of `GET /users`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserPage {
    pub users: Vec<UserEntry>,
    /// `after` of the next page, when there is one.
    pub next: Option<String>,
    /// Nodes of the cluster that could not be reached: their users are not in it.
    pub missing: Vec<u16>,
}

/// One user of a page. `id` is hexadecimal text: JSON's numbers lose digits of 64 bits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserEntry {
    pub jid: String,
    pub id: String,
    /// The node with the user's home; 0: this one is alone.
    pub node: u16,
    pub sessions: usize,
    pub contacts: usize,
}

/// `GET /clients`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientList {
    pub clients: Vec<ClientEntry>,
}

impl ClientList {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<40} {:>5} {:>8} {:>10} {:>10} {:>12} {:>15}\n",
            "client", "core", "sessions", "units in", "units out", "publications", "published bytes"
        );
        for client in &self.clients {
            let name = match (&client.jid, client.trunk) {
                (Some(jid), _) => jid.clone(),
                (None, true) => format!("trunk from {}", client.peer),
                (None, false) => format!("nobody yet, from {}", client.peer),
            };
            let ClientEntry { core, sessions, units_in, units_out, publications, published_bytes, .. } = client;
            text += &format!(
                "{name:<40} {core:>5} {sessions:>8} {units_in:>10} {units_out:>10} {publications:>12} {published_bytes:>15}\n"
            );
        }
        text
    }
}

/// One client of the list, and the load it caused in the last unit of time (C1; `metrics.meter_unit_ms` and `meter_unit_bytes`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClientEntry {
    pub core: u16,
    pub peer: IpAddr,
    /// None for a trunk, and before the log-in.
    pub jid: Option<String>,
    pub trunk: bool,
    pub sessions: usize,
    pub units_in: u32,
    pub units_out: u32,
    pub publications: u32,
    pub published_bytes: u32,
}

/// Every answer that isn't a success.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
}
