//! One connection to the database, with the statements that are used on it all day.
//!
//! Lives on: the storage thread, on a runtime of its own. Serves M3. Invariant: a connection on which something was given up half
//! way is never used again.

use super::schema::{name, split};
use super::target::{Target, words};
use super::tls::Connector;
use super::{Rows, Trouble, Writer};
use crate::store::Table;
use futures_util::future::{join_all, join3, try_join_all};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

/// A statement other than those of a transaction may take this long: the server ends it then.
const STATEMENT_MS: u64 = 30_000;
/// A transaction whose client says nothing for so long is rolled back, so that the locks of a node that is dead, or stands still,
/// end: whoever takes its users over waits for them.
const IDLE_MS: u64 = 2_000;

pub(super) struct Session {
    pub client: Client,
    /// Moves the bytes; ends with the session.
    driver: JoinHandle<()>,
    statements: Option<Statements>,
    /// Whether the database knows `synchronous_commit`.
    can_hurry: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

struct Statements {
    /// Counts a node's transactions up, if it still is the node.
    fence: Statement,
    /// Holds the node's row, if it still is the node.
    hold: Statement,
    put: Vec<Statement>,
    delete: Vec<Statement>,
    get: Vec<Statement>,
    page: Vec<Statement>,
}

/// What a transaction is made for.
#[derive(Clone, Copy)]
pub(super) struct Fence {
    pub writer: Writer,
    pub epoch: u32,
    /// The transaction's number; `None`: one that may be lost, which needs none.
    pub number: Option<i64>,
    pub version: i64,
}

/// How a transaction ended that was not made for sure.
pub(super) enum Broken {
    /// It's not there and will not be.
    Before(Trouble),
    /// The node has been replaced: its row has another epoch or number.
    Fenced,
    /// The database was told to commit and did not say that it had.
    Unknown(String),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        Broken::Before(judge(&error))
    }
}

/// Whether what failed is worth another try.
pub(super) fn judge(error: &Error) -> Trouble {
    let why = words(error);
    let Some(code) = error.code() else { return Trouble::Lost(why) };
    match code.code() {
        // Serialization failure, deadlock; two nodes that make the same table.
        "40001" | "40P01" | "23505" | "42P07" | "42710" | "XX000" => Trouble::Again(why),
        // Shutting down or starting, no room for a connection, a standby.
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25006" | "25P03" => Trouble::Lost(why),
        code if code.starts_with("08") => Trouble::Lost(why),
        _ => Trouble::Refused(why),
    }
}

impl Session {
    pub async fn open(target: &Target) -> Result<Session, Trouble> {
        let connected = target.config.connect(Connector(target.tls.clone())).await;
        let (client, connection) = connected.map_err(|error| judge(&error))?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer hears of it.
            _ = connection.await;
        });
        let mut session = Session { client, driver, statements: None, can_hurry: false };
        session.set_up().await.map_err(|error| judge(&error))?;
        Ok(session)
    }

    async fn set_up(&mut self) -> Result<(), Error> {
        let times = format!("SET statement_timeout = {STATEMENT_MS}; SET idle_in_transaction_session_timeout = {IDLE_MS}");
        self.client.batch_execute(&times).await?;
        // Elsewhere every commit is synchronous.
        if let Ok(row) = self.client.query_one("SHOW synchronous_commit", &[]).await {
            self.can_hurry = true;
            if row.get::<_, &str>(0) == "off" {
                self.client.batch_execute("SET synchronous_commit = on").await?;
            }
        }
        Ok(())
    }

    /// Once the tables are there.
    pub async fn prepare(&mut self) -> Result<(), Trouble> {
        self.statements = Some(self.prepared().await.map_err(|error| judge(&error))?);
        Ok(())
    }

    async fn prepared(&self) -> Result<Statements, Error> {
        Ok(Statements {
            fence: self.client.prepare(FENCE).await?,
            hold: self.client.prepare(HOLD).await?,
            put: self.prepare_each(put_text).await?,
            delete: self.prepare_each(delete_text).await?,
            get: self.prepare_each(get_text).await?,
            page: self.prepare_each(page_text).await?,
        })
    }

    /// A statement for each table.
    async fn prepare_each(&self, text: fn(Table) -> String) -> Result<Vec<Statement>, Error> {
        try_join_all(Table::ALL.map(|table| async move { self.client.prepare(&text(table)).await })).await
    }

    fn statements(&self) -> &Statements {
        self.statements.as_ref().expect("prepared when it was opened")
    }

    /// One transaction, in two trips: all of it, then the commit. Gives the nanoseconds that the commit took. Sets `committing`
    /// before the database may commit.
    pub async fn write(&self, rows: &Rows<'_>, fence: Fence, most: Duration, committing: &mut bool) -> Result<u64, Broken> {
        let hurry = if fence.number.is_none() && self.can_hurry { "; SET LOCAL synchronous_commit = off" } else { "" };
        let begin = format!("BEGIN; SET LOCAL statement_timeout = {}{hurry}", most.as_millis().max(1));
        let (begun, held, changed) = join3(self.client.batch_execute(&begin), self.hold(fence), self.change(rows, fence)).await;
        begun?;
        if !held? {
            return Err(Broken::Fenced);
        }
        changed?;
        *committing = true;
        let began = Instant::now();
        match self.client.batch_execute("COMMIT").await {
            Ok(()) => Ok(began.elapsed().as_nanos() as u64),
            Err(error) => Err(Broken::Unknown(words(&error))),
        }
    }

    async fn hold(&self, fence: Fence) -> Result<bool, Error> {
        let Fence { writer, epoch, number, .. } = fence;
        let (cluster, node, epoch) = (writer.cluster(), writer.node(), i64::from(epoch));
        match number {
            Some(number) => {
                let changed = self.client.execute(&self.statements().fence, &[&cluster, &node, &epoch, &number]).await?;
                Ok(changed == 1)
            }
            None => Ok(!self.client.query(&self.statements().hold, &[&cluster, &node, &epoch]).await?.is_empty()),
        }
    }

    /// Every table's rows in one statement for those put and one for those deleted, all under way at once.
    async fn change(&self, rows: &Rows<'_>, fence: Fence) -> Result<(), Error> {
        let mut batches: Vec<Batch<'_>> = Vec::new();
        for (&(table, key), value) in rows {
            let is_put = value.is_some();
            let last = batches.iter_mut().rev().take(2).find(|batch| batch.table == table && batch.is_put == is_put);
            let batch = match last {
                Some(batch) => batch,
                None => {
                    batches.push(Batch::new(table, is_put));
                    batches.last_mut().expect("just put")
                }
            };
            batch.push(key, *value);
        }
        let cluster = fence.writer.cluster();
        let runs = batches.iter().map(|batch| batch.run(self, &cluster, &fence.version));
        join_all(runs).await.into_iter().collect()
    }

    pub async fn get(&self, writer: Writer, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let (slot, owner, rest) = split(table, key);
        let statement = &self.statements().get[table as usize];
        let row = self.client.query_opt(statement, &[&writer.cluster(), &slot, &owner, &rest]).await;
        row.map(|row| row.map(|row| row.get(0))).map_err(|error| judge(&error))
    }

    /// The next rows of a table from this one on, in the order of slot, owner, rest.
    pub async fn page(&self, writer: Writer, table: Table, from: &Row, last_slot: i32, most: i64) -> Result<Vec<Row>, Trouble> {
        let statement = &self.statements().page[table as usize];
        let params: [&(dyn ToSql + Sync); 6] = [&writer.cluster(), &from.slot, &from.owner, &from.rest, &last_slot, &most];
        let rows = self.client.query(statement, &params).await.map_err(|error| judge(&error))?;
        let read = |row: &tokio_postgres::Row| Row { slot: row.get(0), owner: row.get(1), rest: row.get(2), value: row.get(3) };
        Ok(rows.iter().map(read).collect())
    }
}

/// A row as the database gives it.
pub(super) struct Row {
    pub slot: i32,
    pub owner: Vec<u8>,
    pub rest: Vec<u8>,
    pub value: Vec<u8>,
}

/// Rows of one table for one statement.
struct Batch<'a> {
    table: Table,
    is_put: bool,
    slots: Vec<i32>,
    owners: Vec<&'a [u8]>,
    rests: Vec<&'a [u8]>,
    values: Vec<&'a [u8]>,
}

impl<'a> Batch<'a> {
    fn new(table: Table, is_put: bool) -> Batch<'a> {
        Batch { table, is_put, slots: Vec::new(), owners: Vec::new(), rests: Vec::new(), values: Vec::new() }
    }

    fn push(&mut self, key: &'a [u8], value: Option<&'a [u8]>) {
        let (slot, owner, rest) = split(self.table, key);
        self.slots.push(slot);
        self.owners.push(owner);
        self.rests.push(rest);
        self.values.extend(value);
    }

    async fn run(&self, session: &Session, cluster: &i32, version: &i64) -> Result<(), Error> {
        let Batch { slots, owners, rests, values, .. } = self;
        let (client, statements, table) = (&session.client, session.statements(), self.table as usize);
        let done = match self.is_put {
            true => client.execute(&statements.put[table], &[cluster, version, slots, owners, rests, values]).await,
            false => client.execute(&statements.delete[table], &[cluster, slots, owners, rests]).await,
        };
        done.map(drop)
    }
}

const FENCE: &str = "UPDATE fanal_nodes SET number = $4::INT8, alive = TRUE, seen = now() \
    WHERE cluster = $1 AND node = $2 AND epoch = $3 AND number = $4::INT8 - 1";
const HOLD: &str = "SELECT number FROM fanal_nodes WHERE cluster = $1 AND node = $2 AND epoch = $3 FOR UPDATE";

/// Last presence may come twice and late: of two rows the newer stays.
fn put_text(table: Table) -> String {
    let name = name(table);
    let newer = if table == Table::LastPresence { format!(" WHERE {name}.version < excluded.version") } else { String::new() };
    format!(
        "INSERT INTO {name} (cluster, slot, owner, rest, value, version) \
         SELECT $1::INT4, u.slot, u.owner, u.rest, u.value, $2::INT8 \
         FROM unnest($3::INT4[], $4::BYTEA[], $5::BYTEA[], $6::BYTEA[]) AS u (slot, owner, rest, value) \
         ON CONFLICT (cluster, slot, owner, rest) DO UPDATE SET value = excluded.value, version = excluded.version{newer}"
    )
}

fn delete_text(table: Table) -> String {
    let name = name(table);
    format!(
        "DELETE FROM {name} WHERE cluster = $1 AND (slot, owner, rest) IN \
         (SELECT u.slot, u.owner, u.rest FROM unnest($2::INT4[], $3::BYTEA[], $4::BYTEA[]) AS u (slot, owner, rest))"
    )
}

fn get_text(table: Table) -> String {
    format!("SELECT value FROM {} WHERE cluster = $1 AND slot = $2 AND owner = $3 AND rest = $4", name(table))
}

fn page_text(table: Table) -> String {
    format!(
        "SELECT slot, owner, rest, value FROM {} WHERE cluster = $1 AND (slot, owner, rest) >= ($2, $3, $4) AND slot <= $5 \
         ORDER BY slot, owner, rest LIMIT $6",
        name(table)
    )
}
