//! The tables in the database, and how an older fanal's become ours.
//!
//! Lives on: the thread that opens the store. Serves M1, M3. Invariants: a migration is made by one node at a time, the others
//! wait for it (they lock the row that holds the version); each migration may be run again, for databases whose DDL does not roll
//! back; a database that is up to date is not asked for the right to create tables; a newer one is left alone.
//!
//! One row of `fanal_<table>` is one row of `store::rows`: `owner` is the bare JID before the key's first NUL and `rest` what
//! follows, NUL included, so that `owner || rest` is the key. Both are `bytea`: their order is that of the bytes everywhere, and no
//! change of a collation (a newer libc) breaks the index. `slot` stands in front, so that a node reads the users of its slots in
//! one piece of the primary key, and a sharded database can distribute the tables by it.

use super::Trouble;
use super::session::judge;
use crate::store::Table;
use crate::store::dir::OpenError;
use crate::store::rows;
use std::future::Future;
use tokio_postgres::{Client, error::SqlState};

/// The version of the tables that this fanal makes and knows.
pub const SCHEMA: i32 = 2;

/// What brings the tables from each version to the next one.
fn migration(to: i32) -> Vec<String> {
    match to {
        1 => Table::ALL.iter().map(|&table| make_rows(table)).chain([NODES.to_owned()]).collect(),
        2 => vec![SLOTS.to_owned()],
        _ => unreachable!("there is no such version"),
    }
}

/// `version` is the number of the write that made the row: the node's epoch, then a count (`Stamp`).
fn make_rows(table: Table) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (cluster INT4 NOT NULL, slot INT4 NOT NULL, owner BYTEA NOT NULL, rest BYTEA NOT NULL, \
         value BYTEA NOT NULL, version INT8 NOT NULL, PRIMARY KEY (cluster, slot, owner, rest))",
        name(table)
    )
}

/// Who writes, and how far each got: `number` counts a node's transactions within its epoch.
const NODES: &str = "CREATE TABLE IF NOT EXISTS fanal_nodes (cluster INT4 NOT NULL, node INT4 NOT NULL, epoch INT8 NOT NULL, \
    number INT8 NOT NULL, alive BOOL NOT NULL, seen TIMESTAMPTZ NOT NULL, PRIMARY KEY (cluster, node))";

/// Which node has taken a slot last, where nodes take users over from each other.
const SLOTS: &str = "CREATE TABLE IF NOT EXISTS fanal_slots (cluster INT4 NOT NULL, slot INT4 NOT NULL, node INT4 NOT NULL, \
    PRIMARY KEY (cluster, slot))";

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS fanal_schema (one INT4 PRIMARY KEY, version INT4 NOT NULL)";

/// What a table is called in the database.
pub(super) fn name(table: Table) -> String {
    format!("fanal_{}", table.name())
}

/// The columns of a key: slot, owner, rest.
pub(super) fn split(table: Table, key: &[u8]) -> (i32, &[u8], &[u8]) {
    let slot = rows::slot_of_key(table, key).unwrap_or(0);
    let at = match table {
        Table::Meta => rows::split_serial(key).map(|_| key.len() - size_of::<u16>()),
        _ => key.iter().position(|&byte| byte == 0),
    };
    let (owner, rest) = key.split_at(at.unwrap_or(key.len()));
    (i32::from(slot), owner, rest)
}

/// Makes the tables, or brings them to this version.
pub(super) async fn prepare(client: &Client, place: &str) -> Result<(), OpenError> {
    let bad = |trouble: Trouble| OpenError::Database {
        place: place.to_owned(),
        why: format!("the tables can't be made: {}", trouble.why()),
        fix: "Grant this role CREATE on the schema, or let its owner start a node once",
    };
    let found = match version(client).await.map_err(bad)? {
        Some(found) => found,
        None => {
            again(|| begin(client)).await.map_err(bad)?;
            0
        }
    };
    match found {
        SCHEMA => Ok(()),
        found if found > SCHEMA => {
            Err(OpenError::Newer { place: place.to_owned(), found: u32::try_from(found).unwrap_or(u32::MAX), known: SCHEMA as u32 })
        }
        _ => again(|| migrate(client)).await.map_err(bad),
    }
}

/// `None`: there are no tables of ours.
async fn version(client: &Client) -> Result<Option<i32>, Trouble> {
    match client.query_opt("SELECT version FROM fanal_schema WHERE one = 1", &[]).await {
        Ok(row) => Ok(row.map(|row| row.get(0))),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(judge(&error)),
    }
}

async fn begin(client: &Client) -> Result<(), Trouble> {
    client.batch_execute(VERSIONS).await.map_err(|error| judge(&error))?;
    let first = "INSERT INTO fanal_schema (one, version) VALUES (1, 0) ON CONFLICT (one) DO NOTHING";
    client.batch_execute(first).await.map_err(|error| judge(&error))
}

/// Another node may do the same at the same time: the lock on the row lets one through.
async fn migrate(client: &Client) -> Result<(), Trouble> {
    let made = async {
        client.batch_execute("BEGIN").await?;
        let row = client.query_one("SELECT version FROM fanal_schema WHERE one = 1 FOR UPDATE", &[]).await?;
        for to in row.get::<_, i32>(0) + 1..=SCHEMA {
            for statement in migration(to) {
                client.batch_execute(&statement).await?;
            }
        }
        client.execute("UPDATE fanal_schema SET version = $1 WHERE one = 1 AND version < $1", &[&SCHEMA]).await?;
        client.batch_execute("COMMIT").await
    };
    let result = made.await.map_err(|error| judge(&error));
    if result.is_err() {
        // Where the connection is gone, so is the transaction.
        _ = client.batch_execute("ROLLBACK").await;
    }
    result
}

/// Tries once more what met another node's doing the same.
async fn again<F: Future<Output = Result<(), Trouble>>>(step: impl Fn() -> F) -> Result<(), Trouble> {
    const TRIES: u32 = 20;
    let mut tries = 0;
    loop {
        match step().await {
            Err(Trouble::Again(_)) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::slot_of;

    #[test]
    fn a_key_is_its_columns_put_together() {
        let keys: [(Table, &[u8]); 6] = [
            (Table::Meta, b"epoch"),
            (Table::Meta, b"serial:\0\x05"),
            (Table::Meta, b"serial:\xff\x01"),
            (Table::Accounts, b"alice@localhost"),
            (Table::Roster, b"alice@localhost\0bob@localhost"),
            (Table::Messages, b"alice@localhost\0\0\0\0\0\0\0\0\x01"),
        ];
        for (table, key) in keys {
            let (_, owner, rest) = split(table, key);
            assert_eq!([owner, rest].concat(), key);
        }
        assert_eq!(split(Table::Meta, b"serial:\xff\x01").0, 0xff01);
        assert_eq!(split(Table::Roster, b"alice@localhost\0bob@localhost").1, b"alice@localhost");
        assert_eq!(split(Table::Accounts, b"alice@localhost").0, i32::from(slot_of("alice@localhost")));
    }
}
