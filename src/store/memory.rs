//! A back end that keeps its rows in memory: for the simulator, which breaks it on purpose, and for benchmarks.
//!
//! Lives on: whoever owns it. Invariant: a transaction is applied whole or not at all, as on disk. What "survives" a crash of a
//! simulated node is this value: give it to the node's next life.

use super::{Backend, Commit, Failure, PROGRESS_ROWS, RowFn, Settled, Table, unreadable};
use std::collections::BTreeMap;

/// What the simulator wants to go wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    #[default]
    None,
    /// Every transaction is refused with this reason.
    Refuse(String),
    /// Every transaction is refused and stays in doubt until the fault is taken away.
    Doubt(String),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    tables: [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()],
    pub fault: Fault,
    /// Transactions made and refused.
    pub transactions: u64,
    pub refused: u64,
}

impl Memory {
    /// The value of one row.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.tables[table as usize].get(key).map(Vec::as_slice)
    }

    /// All rows of a table in the order of their keys.
    pub fn rows(&self, table: Table) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.tables[table as usize].iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

impl Backend for Memory {
    fn apply(&mut self, commits: &[Commit]) -> Result<u64, Failure> {
        let failure = match &self.fault {
            Fault::None => None,
            Fault::Refuse(reason) => Some(Failure::Refused(reason.clone())),
            Fault::Doubt(reason) => Some(Failure::InDoubt(reason.clone())),
        };
        if let Some(failure) = failure {
            self.refused += 1;
            return Err(failure);
        }
        for write in commits.iter().flat_map(|commit| &commit.writes) {
            let table = &mut self.tables[write.table as usize];
            match &write.value {
                Some(value) => _ = table.insert(write.key.clone(), value.clone()),
                None => _ = table.remove(&write.key),
            }
        }
        self.transactions += 1;
        Ok(0)
    }

    fn heal(&mut self) -> Result<Settled, String> {
        match &self.fault {
            Fault::Doubt(reason) => Err(reason.clone()),
            Fault::None | Fault::Refuse(_) => Ok(Settled::NotMade),
        }
    }

    fn fetch(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.get(table, key).map(<[u8]>::to_vec))
    }

    fn load(&self, table: Table, row: &mut RowFn<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<(), String> {
        let all = self.tables[table as usize].len() as u64;
        for (done, (key, value)) in (1u64..).zip(self.rows(table)) {
            row(key, value).map_err(|why| unreadable("memory", table, key, &why))?;
            if done.is_multiple_of(PROGRESS_ROWS) {
                progress(done, all);
            }
        }
        progress(all, all);
        Ok(())
    }
}
