//! What must outlive the process, as commands and completions. The back ends (`memory`, `redb`) know tables, keys and bytes, and
//! nothing of presence; `rows` says what the bytes mean.
//!
//! Lives on: the storage thread; cores hand it commits and never wait. Serves J10, M3. Invariants: a commit is durable whole or
//! not at all; its completion comes after it is durable; completions come in the order of the commits of one core.

pub mod rows;

use crate::base::id::CoreId;

/// The tables. The numbers are on disk: they are for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    /// "epoch" and other facts about the deployment.
    Meta = 0,
    /// bare JID -> `rows::Account`
    Accounts = 1,
    /// bare JID, NUL, contact's bare JID -> `rows::Contact`
    Roster = 2,
    /// bare JID, NUL, asker's bare JID -> `rows::Request` (RFC 6121 3.1.3: kept until answered)
    Requests = 3,
    /// bare JID, NUL, blocked bare JID -> empty
    Blocked = 4,
    /// bare JID -> `rows::LastPresence`
    LastPresence = 5,
    /// Sender's bare JID, NUL, receiver's bare JID, NUL, sequence -> `rows::Way`: subscription changes on their way to the other
    /// user's home; deleted in the commit that applies them there.
    Ways = 6,
}

impl Table {
    pub const ALL: [Table; 7] =
        [Table::Meta, Table::Accounts, Table::Roster, Table::Requests, Table::Blocked, Table::LastPresence, Table::Ways];
}

/// One change of one row: a value to put, or `None` to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// How soon a commit must be safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Its completion means it survives a crash of the machine.
    Synced,
    /// It rides along with the next synced commit, or is synced within `store::RIDE_ALONG_MS`; it has no completion.
    RideAlong,
}

/// What a core hands to the storage thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Comes back in the completion. Counted up by each core.
    pub ticket: u64,
    pub writes: Vec<Write>,
    pub durability: Durability,
}

/// What comes back. A failed commit changed nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    pub core: CoreId,
    pub ticket: u64,
    pub result: Result<(), String>,
}
