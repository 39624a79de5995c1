//! What a node asks of a database that it shares with others when it takes users over, or gets them for the first time.
//!
//! Lives on: asked by the thread that keeps track of owners, answered by the storage thread between two transactions. Serves M1,
//! Z13. Invariants: whoever had the slots before writes nothing more once they are taken; rows come table by table, in the order
//! of slots and keys, a page at a time, so that no commit waits for all of them.

use super::Table;
use super::rows::slot_of_key;

/// Why the other back ends do none of this.
pub(super) const NOT_SHARED: &str = "this store is one node's own: nodes share store.kind = \"postgres\" alone";

/// One question; the next is asked when it's answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Begins an epoch, and takes these slots over. `anew`: this node owned nothing a moment ago, so what it has not written yet is
    /// void, and having been replaced is forgiven. `force`: whoever had them is gone, and need not have given them up.
    Take { slots: Vec<u16>, anew: bool, force: bool },
    /// Gives slots up: nothing more is written of theirs.
    Give { slots: Vec<u16> },
    /// Whether this node may still write.
    Confirm,
    /// The rows of a table behind a place, up to the last slot.
    Page { table: Table, from: Place, last: u16 },
}

/// What is answered. An error names the thing, the reason and the fix; nothing was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The epoch that was begun, and whether somebody was replaced who may not know it yet.
    /// `None`: somebody who is there has not given them up yet.
    Taken(Result<Option<(u32, bool)>, String>),
    Given(Result<(), String>),
    /// False: it stores nothing until it has taken slots anew.
    Confirmed(Result<bool, String>),
    Page(Result<Page, String>),
}

/// A place in a table: all of the slot, or what comes behind this key in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub slot: u16,
    pub behind: Vec<u8>,
}

/// Rows, and where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// `None`: these were the last.
    pub next: Option<Place>,
}

impl Page {
    /// The rows that lie between; `more`: they don't reach the end.
    pub fn of(table: Table, from: &Place, rows: Vec<(Vec<u8>, Vec<u8>)>, more: bool) -> Page {
        let last = rows.last().filter(|_| more).map(|(key, _)| key.clone());
        let slot = |key: &[u8]| slot_of_key(table, key).unwrap_or_default();
        let next = last.map(|behind| Place { slot: slot(&behind), behind });
        Page { rows: rows.into_iter().filter(|(key, _)| *key != from.behind).collect(), next }
    }
}
