//! Moves a deployment from one back end to another, and shows that both then hold the same.
//!
//! Lives on: the thread of `fanal store`. Serves M1, M3. Invariants: nothing is written to a place that holds rows, unless they are
//! to be replaced; the epoch of the target is never lower than before, nor than the source's; what is said to be equal was read
//! back from both sides.
//!
//! Back ends hand out the rows of one owner in order, but not the owners: so each slot has a hash of its own, and the hash of a
//! table is that of its slots' hashes.

use super::rows::{
    Account, BadRow, Contact, Document, EPOCH_KEY, FORMAT_KEY, LastPresence, Message, Request, Row, Way, decode_u32, encode_u32,
    slot_of_key,
};
use super::{Backend, Commit, Durability, Failure, GROUP_BYTES, Table, Write};
use sha2::{Digest, Sha256};
use std::fmt;

/// Rows in one transaction of a copy.
const COPY_ROWS: usize = 8_192;

/// What a table holds, in short.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    pub table: Table,
    pub rows: u64,
    pub hash: [u8; 32],
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:14} {:>12} rows  ", self.table.name(), self.rows)?;
        self.hash.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hears what is being done with which table, and rows done.
pub type Progress<'a> = dyn FnMut(&'static str, Table, u64) + 'a;

/// Whether the row is part of the deployment, and not of its place.
fn belongs(table: Table, key: &[u8]) -> bool {
    table != Table::Meta || (key != FORMAT_KEY && key != EPOCH_KEY)
}

/// Rows of the deployment, of all tables.
pub fn count(store: &dyn Backend) -> Result<u64, String> {
    let mut rows = 0;
    for table in Table::ALL {
        let mut row = |key: &[u8], _: &[u8]| {
            rows += u64::from(belongs(table, key));
            Ok(())
        };
        store.load(table, &mut row, &mut |_, _| ())?;
    }
    Ok(rows)
}

/// Deletes all rows of the deployment.
pub fn clear(store: &mut dyn Backend, progress: &mut Progress<'_>) -> Result<(), String> {
    for table in Table::ALL {
        let mut keys = Vec::new();
        let mut row = |key: &[u8], _: &[u8]| {
            keys.extend(belongs(table, key).then(|| key.to_vec()));
            Ok(())
        };
        store.load(table, &mut row, &mut |_, _| ())?;
        let mut done = 0;
        let mut writer = Writer::new(store);
        for key in keys {
            writer.put(Write { table, key, value: None })?;
            done += 1;
            progress("emptying", table, done);
        }
        writer.flush()?;
    }
    Ok(())
}

/// Copies all rows of the deployment to a place that has none, and the epoch.
pub fn copy(from: &dyn Backend, to: &mut dyn Backend, progress: &mut Progress<'_>) -> Result<(), String> {
    let epoch = epoch(from)?.max(epoch(to)?);
    let mut writer = Writer::new(to);
    for table in Table::ALL {
        let (mut failed, mut done) = (None, 0);
        let mut row = |key: &[u8], value: &[u8]| {
            if failed.is_none() && belongs(table, key) {
                failed = writer.put(Write { table, key: key.to_vec(), value: Some(value.to_vec()) }).err();
                done += 1;
                progress("copying", table, done);
            }
            Ok(())
        };
        from.load(table, &mut row, &mut |_, _| ())?;
        failed.map_or(Ok(()), Err)?;
    }
    writer.put(Write { table: Table::Meta, key: EPOCH_KEY.to_vec(), value: Some(encode_u32(epoch)) })?;
    writer.flush()
}

/// Reads every row, also what it means, and sums the tables up.
pub fn sums(store: &dyn Backend, progress: &mut Progress<'_>) -> Result<Vec<Sum>, String> {
    Table::ALL.into_iter().map(|table| sum(store, table, progress)).collect()
}

fn sum(store: &dyn Backend, table: Table, progress: &mut Progress<'_>) -> Result<Sum, String> {
    let mut slots = vec![None; usize::from(u16::MAX) + 1];
    let mut rows = 0;
    let mut row = |key: &[u8], value: &[u8]| {
        check(table, key, value)?;
        if belongs(table, key) {
            let slot = usize::from(slot_of_key(table, key).unwrap_or(0));
            let hash: &mut Sha256 = slots[slot].get_or_insert_with(Sha256::new);
            for part in [key, value] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            rows += 1;
            progress("reading", table, rows);
        }
        Ok(())
    };
    store.load(table, &mut row, &mut |_, _| ())?;
    let mut whole = Sha256::new();
    for (slot, hash) in (0u16..=u16::MAX).zip(slots) {
        if let Some(hash) = hash {
            whole.update(slot.to_le_bytes());
            whole.update(hash.finalize());
        }
    }
    Ok(Sum { table, rows, hash: whole.finalize().into() })
}

fn check(table: Table, key: &[u8], value: &[u8]) -> Result<(), BadRow> {
    match table {
        Table::Accounts => Account::decode(value).map(drop),
        Table::Roster => Contact::decode(value).map(drop),
        Table::Requests => Request::decode(value).map(drop),
        Table::LastPresence => LastPresence::decode(value).map(drop),
        Table::Ways => Way::decode(value).map(drop),
        Table::Messages => Message::decode(value).map(drop),
        Table::Documents => Document::decode(value).map(drop),
        Table::Meta if key == EPOCH_KEY => decode_u32(value).map(drop),
        Table::Meta | Table::Blocked => Ok(()),
    }
}

/// How often the deployment was started.
pub fn epoch(store: &dyn Backend) -> Result<u32, String> {
    let mut epoch = 0;
    let mut row = |key: &[u8], value: &[u8]| {
        if key == EPOCH_KEY {
            epoch = decode_u32(value)?;
        }
        Ok(())
    };
    store.load(Table::Meta, &mut row, &mut |_, _| ())?;
    Ok(epoch)
}

/// Gathers writes into transactions.
struct Writer<'a> {
    to: &'a mut dyn Backend,
    writes: Vec<Write>,
    bytes: usize,
}

impl Writer<'_> {
    fn new(to: &mut dyn Backend) -> Writer<'_> {
        Writer { to, writes: Vec::new(), bytes: 0 }
    }

    fn put(&mut self, write: Write) -> Result<(), String> {
        self.bytes += write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        self.writes.push(write);
        if self.writes.len() >= COPY_ROWS || self.bytes >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), String> {
        self.bytes = 0;
        let writes = std::mem::take(&mut self.writes);
        if writes.is_empty() {
            return Ok(());
        }
        let commit = Commit { ticket: 0, writes, durability: Durability::Synced };
        self.to.apply(&[commit]).map(drop).map_err(Failure::reason)
    }
}
