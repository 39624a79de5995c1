//! `fanal user` on the data directory of a stopped node, or on its database.
//!
//! Lives on: the command's own process. Serves issue 2's interfaces. Invariants: refused while a node runs on the directory;
//! a change is durable when the call returns; a serial of a user id is never given out twice.

use super::dir::{DataDir, OpenError};
use super::redb::RedbStore;
use super::rows::{
    Account, BadRow, Contact, Row, UNSETTLED_KEY, decode_u32, encode_u32, serial_key, split_document, split_message, split_pair,
    split_user, split_way, user_key,
};
use super::{Backend, Commit, Durability, Failure, Table, Write};
use crate::base::credentials::ScramCredentials;
use crate::base::id::{UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::time::WallClock;
use std::ops::RangeInclusive;
use std::path::Path;

/// The accounts of a stopped node.
pub struct Offline {
    store: Box<dyn Backend>,
    /// Other clusters are to hear of users who come and go.
    has_directory: bool,
}

/// Why a command on the accounts was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}: there is such a user already: delete it first, or choose another name")]
    Exists(String),
    #[error("{0}: there is no such user: `fanal user list` shows them all")]
    NoSuchUser(String),
    #[error("{0}")]
    Store(String),
}

impl From<Failure> for OfflineError {
    fn from(failure: Failure) -> OfflineError {
        OfflineError::Store(failure.reason())
    }
}

impl Offline {
    /// In a store that is this process's.
    pub fn on(store: Box<dyn Backend>) -> Offline {
        Offline { store, has_directory: false }
    }

    /// The node tells a directory of users who come and go.
    pub fn with_directory(self, has_directory: bool) -> Offline {
        Offline { has_directory, ..self }
    }

    /// Opens a directory that has data.
    pub fn open(dir: &Path) -> Result<Offline, OfflineError> {
        Ok(Offline::on(Box::new(RedbStore::open(DataDir::take(dir)?)?)))
    }

    /// Opens a directory; makes it when it's not there.
    pub fn open_or_create(dir: &Path) -> Result<Offline, OfflineError> {
        Ok(Offline::on(Box::new(RedbStore::open(DataDir::take_or_create(dir)?)?)))
    }

    pub fn account(&mut self, jid: &Bare) -> Result<Option<Account>, OfflineError> {
        let row = self.store.fetch(Table::Accounts, &user_key(jid)).map_err(OfflineError::Store)?;
        row.map(|row| Account::decode(&row)).transpose().map_err(|why| OfflineError::Store(format!("account {jid}: {why}")))
    }

    /// Every account, in the order of the JIDs.
    pub fn accounts(&self) -> Result<Vec<(Bare, Account)>, OfflineError> {
        let mut accounts = self.accounts_in(0..=u16::MAX)?;
        accounts.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(accounts)
    }

    fn accounts_in(&self, slots: RangeInclusive<u16>) -> Result<Vec<(Bare, Account)>, OfflineError> {
        let mut accounts = Vec::new();
        let mut take = |key: &[u8], value: &[u8]| {
            accounts.push((Bare::new(split_user(key)?).ok_or(BadRow::Key)?, Account::decode(value)?));
            Ok(())
        };
        self.store.load_slots(Table::Accounts, slots, &mut take, &mut |_, _| ()).map_err(OfflineError::Store)?;
        Ok(accounts)
    }

    /// Adds a user to a cluster and gives it a number.
    pub fn add(
        &mut self,
        jid: &Bare,
        cluster: u16,
        scram: Option<ScramCredentials>,
        now: WallClock,
    ) -> Result<UserId, OfflineError> {
        if self.account(jid)?.is_some() {
            return Err(OfflineError::Exists(jid.to_string()));
        }
        let slot = slot_of(jid.as_str());
        let serial =
            self.last_serial(slot)?.checked_add(1).ok_or_else(|| OfflineError::Store(format!("{jid}: no numbers left")))?;
        let account = Account { user: UserId::new(cluster, slot, serial), scram, created: now };
        let mut writes = vec![
            Write { table: Table::Meta, key: serial_key(slot), value: Some(encode_u32(serial)) },
            Write { table: Table::Accounts, key: user_key(jid), value: Some(account.encode()) },
        ];
        writes.extend(self.unsettled(jid, account.user));
        self.commit(writes)?;
        Ok(account.user)
    }

    /// Puts other credentials in the place of a user's own.
    pub fn set_credentials(&mut self, jid: &Bare, scram: Option<ScramCredentials>) -> Result<(), OfflineError> {
        let account = self.account(jid)?.ok_or_else(|| OfflineError::NoSuchUser(jid.to_string()))?;
        let row = Account { scram, ..account }.encode();
        self.commit(vec![Write { table: Table::Accounts, key: user_key(jid), value: Some(row) }])
    }

    /// Deletes a user, all rows that are the user's own, and what others' rows grant: whoever gets the name later starts afresh.
    pub fn remove(&mut self, jid: &Bare) -> Result<(), OfflineError> {
        if self.account(jid)?.is_none() {
            return Err(OfflineError::NoSuchUser(jid.to_string()));
        }
        let name = jid.as_str();
        let gone = |table, key: &[u8]| Write { table, key: key.to_vec(), value: None };
        let mut writes = vec![gone(Table::Accounts, &user_key(jid)), gone(Table::LastPresence, &user_key(jid))];
        writes.extend(self.unsettled(jid, UserId::NOBODY));
        for table in [Table::Roster, Table::Requests, Table::Blocked, Table::Ways, Table::Messages, Table::Documents] {
            let mut visit = |key: &[u8], value: &[u8]| {
                let (owner, other) = match table {
                    Table::Ways => split_way(key).map(|(from, to, _)| (from, to))?,
                    Table::Messages => split_message(key).map(|(to, _)| (to, ""))?,
                    Table::Documents => split_document(key).map(|(owner, _)| (owner, ""))?,
                    _ => split_pair(key)?,
                };
                match table {
                    _ if owner == name => writes.push(gone(table, key)),
                    Table::Requests | Table::Ways if other == name => writes.push(gone(table, key)),
                    Table::Roster if other == name => {
                        let contact = Contact { user: UserId::NOBODY, state: 0, ..Contact::decode(value)? };
                        writes.push(Write { table, key: key.to_vec(), value: Some(contact.encode()) });
                    }
                    _ => {}
                }
                Ok(())
            };
            self.store.load(table, &mut visit, &mut |_, _| ()).map_err(OfflineError::Store)?;
        }
        self.commit(writes)
    }

    /// What the node tells the directory at its next start, if there is one.
    fn unsettled(&self, jid: &Bare, user: UserId) -> Option<Write> {
        let (key, value) = ([UNSETTLED_KEY, jid.as_str().as_bytes()].concat(), Some(user.0.to_le_bytes().to_vec()));
        self.has_directory.then_some(Write { table: Table::Meta, key, value })
    }

    /// The highest serial ever given out in a slot, as counted and as seen.
    fn last_serial(&mut self, slot: u16) -> Result<u32, OfflineError> {
        let counted = self.store.fetch(Table::Meta, &serial_key(slot)).map_err(OfflineError::Store)?;
        let counted = counted.map_or(Ok(0), |row| decode_u32(&row)).map_err(|why| OfflineError::Store(why.to_string()))?;
        let seen = self.accounts_in(slot..=slot)?.into_iter();
        Ok(seen.map(|(_, account)| account.user.serial()).max().unwrap_or(0).max(counted))
    }

    fn commit(&mut self, writes: Vec<Write>) -> Result<(), OfflineError> {
        self.store.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }])?;
        Ok(())
    }
}
