//! What must outlive the process, as commands and completions. The back ends (`memory`, `redb`, `postgres`) know tables, keys and
//! bytes, and nothing of presence; `rows` says what the bytes mean.
//!
//! Lives on: the storage thread (`thread`); cores hand it commits through a `Port` and never wait. Serves J10, M3, M5. Invariants:
//! a commit is durable whole or not at all; its completion comes after it is durable; completions come in the order of the commits
//! of one core, but those in doubt, which come when it's settled; a commit that was failed never appears later.

pub mod memory;
pub mod rows;

#[cfg(feature = "runtime")]
pub mod copy;
#[cfg(feature = "runtime")]
pub mod dir;
#[cfg(feature = "runtime")]
mod disk;
#[cfg(feature = "runtime")]
pub mod offline;
#[cfg(feature = "runtime")]
pub mod postgres;
#[cfg(feature = "runtime")]
pub mod redb;
pub mod shared;
#[cfg(feature = "runtime")]
pub mod thread;

use crate::base::id::CoreId;
use rows::{BadRow, EPOCH_KEY};
use shared::{NOT_SHARED, Page, Place};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long a ride-along commit waits for a synced one before it's synced alone. At the limit: one more transaction.
pub const RIDE_ALONG_MS: u64 = 500;
/// Commits in one transaction. At the limit: the next ones go into the next transaction.
pub const GROUP_COMMITS: usize = 4_096;
/// Bytes of keys and values in one transaction. At the limit: the same. A larger commit goes alone.
pub const GROUP_BYTES: usize = 8 << 20;
/// Commits of one core that were handed over and whose completion the core has not taken. At the limit: refused, `overloaded`.
pub const PORT_COMMITS: usize = 4_096;
/// Bytes of keys and values of one core that wait for the storage thread. At the limit: refused, `overloaded`.
pub const PORT_BYTES: usize = 32 << 20;
/// Rows of one core that were asked for and not taken. At the limit: refused, `overloaded`.
pub const PORT_READS: usize = 1_024;
/// How often the storage thread tries to settle a transaction whose fate the disk would not tell.
pub const HEAL_MS: u64 = 1_000;
/// Memory the redb back end may use for pages. At the limit: pages are read from the file again.
pub const CACHE_BYTES: usize = 64 << 20;
/// Rows between two calls of `load`'s progress callback.
pub const PROGRESS_ROWS: u64 = 65_536;

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
    /// Receiver's bare JID, NUL, sequence -> `rows::Message`: messages that wait for their receiver.
    Messages = 7,
    /// Bare JID, NUL, name -> `rows::Document`
    Documents = 8,
}

impl Table {
    pub const ALL: [Table; 9] = [
        Table::Meta,
        Table::Accounts,
        Table::Roster,
        Table::Requests,
        Table::Blocked,
        Table::LastPresence,
        Table::Ways,
        Table::Messages,
        Table::Documents,
    ];

    /// What the table is called on disk and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Accounts => "accounts",
            Table::Roster => "roster",
            Table::Requests => "requests",
            Table::Blocked => "blocked",
            Table::LastPresence => "last_presence",
            Table::Ways => "ways",
            Table::Messages => "messages",
            Table::Documents => "documents",
        }
    }
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

impl Commit {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.writes.iter().map(|write| write.key.len() + write.value.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// What comes back. A failed commit changed nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    pub core: CoreId,
    pub ticket: u64,
    pub result: Result<(), String>,
}

/// A row that a core asked for: `None`, there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    pub ticket: u64,
    pub result: Result<Option<Vec<u8>>, String>,
}

/// What became of a transaction that was in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It's there, whole.
    Made,
    /// Nothing of it is there, and nothing will be.
    NotMade,
}

/// How a back end fares. All count from the start but `up`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Health {
    /// Whether it can be reached.
    pub up: bool,
    /// How often it was connected to, and how often that broke.
    pub connects: u64,
    pub losses: u64,
    /// Transactions tried again.
    pub retries: u64,
    /// Transactions of unknown end that were asked for.
    pub settled: u64,
    /// Rows that might be late and found no room to wait.
    pub late_dropped: u64,
}

impl Default for Health {
    /// A back end that is always there.
    fn default() -> Health {
        Health { up: true, connects: 0, losses: 0, retries: 0, settled: 0, late_dropped: 0 }
    }
}

/// Why a transaction was not made. The text names the thing, the reason and the fix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nothing of it is there, and nothing of it will appear.
    Refused(String),
    /// The disk or database took part of it and then stopped answering: whether it's there is known only after `heal` succeeded.
    InDoubt(String),
}

impl Failure {
    pub fn reason(self) -> String {
        match self {
            Failure::Refused(reason) | Failure::InDoubt(reason) => reason,
        }
    }
}

/// A place to keep rows: one writer, which applies whole transactions in order.
pub trait Backend: Send {
    /// Makes all the commits, in order, one durable transaction. Returns the nanoseconds spent on waiting for the disk.
    fn apply(&mut self, commits: &[Commit]) -> Result<u64, Failure>;

    /// After `InDoubt`: finds out what became of the transaction, or undoes what is left of it. `Err` says why that is not possible
    /// now; call it again later.
    fn heal(&mut self) -> Result<Settled, String>;

    /// The value of one row, with all that was applied.
    fn fetch(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Hands out every row of a table, those of one owner in the order of the keys. `row` may refuse one, which ends the load with
    /// an error that names the row. `progress` hears (rows done, rows in all as far as that is known) every `PROGRESS_ROWS` rows
    /// and at the end.
    fn load(&self, table: Table, row: &mut RowFn<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<(), String>;

    /// The same for the users of some slots alone, and what is the deployment's: what a node needs that owns these.
    fn load_slots(
        &self,
        table: Table,
        slots: RangeInclusive<u16>,
        row: &mut RowFn<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), String> {
        let mut of_slots = |key: &[u8], value: &[u8]| match rows::slot_of_key(table, key) {
            Some(slot) if !slots.contains(&slot) => Ok(()),
            _ => row(key, value),
        };
        self.load(table, &mut of_slots, progress)
    }

    /// The slots in which there are accounts, or names of a directory.
    fn inhabited(&self) -> Result<BTreeSet<u16>, String> {
        let mut slots = BTreeSet::new();
        let mut note = |key: &[u8], _: &[u8]| {
            slots.extend(rows::slot_of_key(Table::Accounts, key));
            Ok(())
        };
        self.load(Table::Accounts, &mut note, &mut |_, _| ())?;
        Ok(slots)
    }

    /// See `shared::Request::Confirm`.
    fn confirm(&mut self) -> Result<bool, String> {
        Err(NOT_SHARED.to_owned())
    }

    /// See `shared::Request::Take` and `shared::Reply::Taken`.
    fn take_slots(&mut self, _slots: &[u16], _anew: bool, _force: bool) -> Result<Option<(u32, bool)>, String> {
        Err(NOT_SHARED.to_owned())
    }

    /// See `shared::Request::Give`.
    fn give_slots(&mut self, _slots: &[u16]) -> Result<(), String> {
        Err(NOT_SHARED.to_owned())
    }

    /// See `shared::Request::Page`.
    fn page(&mut self, _table: Table, _from: &Place, _last: u16) -> Result<Page, String> {
        Err(NOT_SHARED.to_owned())
    }

    /// Does what is due by itself, such as connecting again. Gives the time until it wants to be called again; `None`: never.
    fn tend(&mut self) -> Option<Duration> {
        None
    }

    fn health(&self) -> Health {
        Health::default()
    }

    /// Nothing comes after this.
    fn close(&mut self) {}

    /// Counts the deployment's epoch up, durably, and returns it: from 1, once per start, before anything is served.
    fn begin_epoch(&mut self) -> Result<u32, String> {
        let mut epoch = 0;
        let mut find = |key: &[u8], value: &[u8]| {
            if key == EPOCH_KEY {
                epoch = rows::decode_u32(value)?;
            }
            Ok(())
        };
        self.load(Table::Meta, &mut find, &mut |_, _| ())?;
        let epoch = epoch.checked_add(1).ok_or("the epoch has reached its last number: start with a new data directory")?;
        let write = Write { table: Table::Meta, key: EPOCH_KEY.to_vec(), value: Some(rows::encode_u32(epoch)) };
        let commit = Commit { ticket: 0, writes: vec![write], durability: Durability::Synced };
        self.apply(&[commit]).map(|_| epoch).map_err(Failure::reason)
    }
}

/// Takes one row of a table: key and value.
pub type RowFn<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), BadRow> + 'a;

/// The words for a row that can't be read, for every back end.
fn unreadable(place: &str, table: Table, key: &[u8], why: &BadRow) -> String {
    let key = key.escape_ascii();
    let table = table.name();
    format!("{place}: row \"{key}\" of table {table} can't be read: {why}. Restore the file from a backup, or delete the row")
}
