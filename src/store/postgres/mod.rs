//! The back end on PostgreSQL, and on what speaks like it: the same rows as in `redb`, for one node or for many that share a
//! database.
//!
//! Lives on: the storage thread, whose runtime (tokio, of one thread) runs only while a call lasts; `open` and `load` on the main
//! thread before it starts. Serves J10, M1, M3. Invariants:
//! - a transaction that was reported as failed never appears, and one of unknown end is asked for before anything else is done:
//!   each counts its node's row in `fanal_nodes` up by one, and whoever settles counts it up by two, so that the number's parity
//!   tells what became of it; what is still under way in the database holds that row, and the question waits for it;
//! - a node that has been replaced writes nothing more (`epoch` of that row), and one whose database has lost commits (a restored
//!   backup, a standby that lagged) says so and stores nothing until it is started again; whoever takes slots over changes the row
//!   of the node that had taken them before (`fanal_slots`), which may write again once it has begun anew, without them;
//! - every try is harmless: rows are put and deleted by key, last presence only by a newer `version`, which is the epoch (one
//!   counter for all nodes of the deployment) and then a count; a node that takes over users begins an epoch first;
//! - no call takes longer than `Settings::patience`, whatever the database does; while it's away, what must be durable is refused
//!   at once, and what may be late is kept, the newest of each row, up to `LATE_BYTES`.
//!
//! Portable: tables with a primary key and no other index, `INSERT .. SELECT .. FROM unnest(..) ON CONFLICT DO UPDATE`, `DELETE ..
//! WHERE (..) IN (SELECT .. FROM unnest(..))`, row comparison with `ORDER BY .. LIMIT`, `SELECT .. FOR UPDATE`, `CREATE TABLE IF
//! NOT EXISTS`, INT4, INT8, BYTEA, BOOL, TIMESTAMPTZ. CockroachDB, YugabyteDB and Citus document all of these (only PostgreSQL is
//! tested). Not used: advisory locks, LISTEN, triggers, functions, sequences, foreign keys, collations. `synchronous_commit` is
//! used where there is such a setting. Serialization failures, which CockroachDB and YugabyteDB give freely, are tried again.

mod schema;
mod session;
mod target;
mod tls;
mod work;

pub use schema::SCHEMA;
pub use target::{Target, is_url};

use super::dir::{DataDir, OpenError};
use super::shared::{Page, Place};
use super::{Backend, Commit, Failure, Health, PROGRESS_ROWS, RowFn, Settled, Table, unreadable};
use session::Row;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use work::Work;

/// Bytes of late rows kept while the database is away. At the limit: newer ones are dropped, `fanal_store_late_dropped_total`.
pub const LATE_BYTES: usize = 16 << 20;
/// Epochs of a deployment: what is left of a version's 63 bits. At the limit: no node starts.
pub const EPOCHS: u32 = 1 << 23;
/// Rows in one answer of the database to `load`.
const PAGE_ROWS: i64 = 8_192;
/// Rows in one answer while the node serves: what waits for the store meanwhile waits for no more than these.
const SMALL_PAGE_ROWS: i64 = 2_048;
/// How often a connection is looked after, and the node's row says that it lives.
const TEND: Duration = Duration::from_secs(1);
/// How long a node counts as living after it last said so.
const ALIVE_SECONDS: u32 = 15;

/// The node number of tools, which are refused while a node lives.
pub const TOOL: u16 = 0;

/// Which node of which cluster writes. `TOOL` is `fanal user` or `fanal store`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    pub cluster: u16,
    pub node: u16,
}

impl Writer {
    fn cluster(self) -> i32 {
        i32::from(self.cluster)
    }

    fn node(self) -> i32 {
        i32::from(self.node)
    }
}

/// How a node uses the database.
#[derive(Clone)]
pub struct Settings {
    pub target: Target,
    pub writer: Writer,
    /// How long a change may wait for the database.
    pub patience: Duration,
    /// For the jitter of waits.
    pub seed: u64,
}

/// What a transaction changes: the last value of each row, `None` to delete it.
type Rows<'a> = BTreeMap<(Table, &'a [u8]), Option<&'a [u8]>>;

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Trouble {
    /// The connection is gone, or the database can't be written now.
    Lost(String),
    /// Another transaction was in the way.
    Again(String),
    /// The database said no.
    Refused(String),
}

impl Trouble {
    fn why(&self) -> &str {
        match self {
            Trouble::Lost(why) | Trouble::Again(why) | Trouble::Refused(why) => why,
        }
    }
}

/// The store in a database.
pub struct PostgresStore {
    runtime: Runtime,
    work: Work,
    /// Held as long as the store is used.
    _dir: Option<DataDir>,
}

impl PostgresStore {
    /// Connects, and makes the tables or brings them to this version. Tries for as long as `Settings::patience`.
    pub fn open(settings: Settings, dir: Option<DataDir>) -> Result<PostgresStore, OpenError> {
        let place = settings.target.place.clone();
        let cannot = |why: String| OpenError::Database {
            place: place.clone(),
            why,
            fix: "Start the database, or correct store.url; then start this again",
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| cannot(error.to_string()))?;
        let mut work = Work::new(settings);
        runtime.block_on(work.open())?;
        Ok(PostgresStore { runtime, work, _dir: dir })
    }

    /// For tools: refuses while a node of the deployment lives, and begins an epoch, without which nothing can be written.
    pub fn open_as_tool(settings: Settings) -> Result<PostgresStore, OpenError> {
        let place = settings.target.place.clone();
        let mut store = PostgresStore::open(settings, None)?;
        let bad = |why: String| OpenError::Database { place: place.clone(), why, fix: "Try again when the database works" };
        match store.runtime.block_on(store.work.living_node()).map_err(bad)? {
            Some(node) => Err(OpenError::Database {
                place: place.clone(),
                why: format!("node {node} uses it"),
                fix: "Stop the node first, or use its admin address; one that was killed counts as gone after 15 s",
            }),
            None => store.begin_epoch().map_err(bad).map(|_| store),
        }
    }
}

impl Backend for PostgresStore {
    fn apply(&mut self, commits: &[Commit]) -> Result<u64, Failure> {
        self.runtime.block_on(self.work.apply(commits))
    }

    fn heal(&mut self) -> Result<Settled, String> {
        self.runtime.block_on(self.work.heal())
    }

    fn fetch(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.runtime.block_on(self.work.fetch(table, key))
    }

    fn load(&self, table: Table, row: &mut RowFn<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<(), String> {
        self.load_slots(table, 0..=u16::MAX, row, progress)
    }

    fn load_slots(
        &self,
        table: Table,
        slots: RangeInclusive<u16>,
        row: &mut RowFn<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), String> {
        // What belongs to the deployment lies in slot 0.
        let (first, last) = (if table == Table::Meta { 0 } else { *slots.start() }, *slots.end());
        let mut from = Row { slot: i32::from(first), owner: Vec::new(), rest: Vec::new(), value: Vec::new() };
        let (mut key, mut last_key, mut done) = (Vec::new(), None, 0);
        loop {
            let mut page = self.runtime.block_on(self.work.page(table, &from, i32::from(last), PAGE_ROWS))?;
            let whole = page.len() as i64 == PAGE_ROWS;
            for read in &page {
                key.clear();
                key.extend_from_slice(&read.owner);
                key.extend_from_slice(&read.rest);
                let again = last_key.as_ref() == Some(&(read.slot, key.clone()));
                if again || !super::rows::slot_of_key(table, &key).is_none_or(|slot| slots.contains(&slot)) {
                    continue;
                }
                row(&key, &read.value).map_err(|why| unreadable(&self.work.place(), table, &key, &why))?;
                done += 1;
                if done % PROGRESS_ROWS == 0 {
                    progress(done, done);
                }
            }
            let Some(end) = page.pop().filter(|_| whole) else { break };
            last_key = Some((end.slot, [end.owner.as_slice(), &end.rest].concat()));
            from = end;
        }
        progress(done, done);
        Ok(())
    }

    fn begin_epoch(&mut self) -> Result<u32, String> {
        self.runtime.block_on(self.work.begin_epoch())
    }

    fn inhabited(&self) -> Result<BTreeSet<u16>, String> {
        self.runtime.block_on(self.work.inhabited())
    }

    fn confirm(&mut self) -> Result<bool, String> {
        self.runtime.block_on(self.work.confirm())
    }

    fn take_slots(&mut self, slots: &[u16], anew: bool, force: bool) -> Result<Option<(u32, bool)>, String> {
        self.runtime.block_on(self.work.take_slots(slots, anew, force))
    }

    fn give_slots(&mut self, slots: &[u16]) -> Result<(), String> {
        self.runtime.block_on(self.work.give_slots(slots))
    }

    fn page(&mut self, table: Table, from: &Place, last: u16) -> Result<Page, String> {
        let (_, owner, rest) = schema::split(table, &from.behind);
        let row = Row { slot: from.slot.into(), owner: owner.to_vec(), rest: rest.to_vec(), value: Vec::new() };
        let rows = self.runtime.block_on(self.work.small_page(table, &row, last.into(), SMALL_PAGE_ROWS))?;
        let more = rows.len() as i64 == SMALL_PAGE_ROWS;
        let rows = rows.into_iter().map(|row| ([row.owner, row.rest].concat(), row.value)).collect();
        Ok(Page::of(table, from, rows, more))
    }

    fn tend(&mut self) -> Option<Duration> {
        Some(self.runtime.block_on(self.work.tend()))
    }

    fn health(&self) -> Health {
        self.work.health
    }

    fn close(&mut self) {
        self.runtime.block_on(self.work.close());
    }
}
