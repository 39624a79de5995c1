//! The back end on disk: one redb file, one redb table per `Table`, so that a table's rows lie together, its keys carry no prefix
//! and its length is known before it's loaded.
//!
//! Lives on: the storage thread; `open` and `load` on the main thread before it starts. Serves J10, M3. Invariants: a transaction
//! that was reported as failed never appears; a damaged file or a newer one is refused before a byte of it is changed.
//!
//! Commits have two phases (two syncs): then a broken tree can't be mistaken for a commit that a crash cut off, so damage is
//! always reported and never "repaired" by dropping the last commit; and outside input can't forge a checksum. Group commit pays
//! for the second sync.

use super::dir::{DataDir, OpenError, io_error};
use super::disk::{Disk, Guarded, Header, Overlay, Watch, restore};
use super::rows::{FORMAT_KEY, decode_u32, encode_u32};
use super::{Backend, CACHE_BYTES, Commit, Failure, PROGRESS_ROWS, RowFn, Settled, Table, unreadable};
use ::redb::backends::FileBackend;
use ::redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, StorageError, TableDefinition, TableError,
};
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::sync::Arc;

/// The format of the file as a whole: its tables and how their keys are built. 1 had no messages and no documents. A file
/// of an earlier format is made one of this format when it's opened; an earlier fanal then refuses it.
pub const FORMAT: u32 = 2;

type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Rows {
    TableDefinition::new(table.name())
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The store on disk.
pub struct RedbStore {
    /// What messages call the file.
    place: String,
    disk: Disk,
    state: State,
    /// Held as long as the file is used.
    _dir: Option<DataDir>,
}

enum State {
    Open(Database, Arc<Watch>),
    /// After a failure, until it can be opened again.
    Closed,
    /// After a failure, until this header could be put back.
    InDoubt(Box<Header>),
}

impl RedbStore {
    /// Opens the rows of a data directory; makes them when there are none.
    pub fn open(dir: DataDir) -> Result<RedbStore, OpenError> {
        dir.create_rows(|file, place| RedbStore::create_on(Arc::new(FileBackend::new(file).map_err(damaged(place))?), place))?;
        let path = dir.rows_path();
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io_error(&path, "open the file"))?;
        let place = path.display().to_string();
        let disk = Arc::new(FileBackend::new(file).map_err(damaged(&place))?);
        Ok(RedbStore { _dir: Some(dir), ..RedbStore::open_on(disk, &place)? })
    }

    /// Writes an empty store to an empty file.
    pub fn create_on(disk: Disk, place: &str) -> Result<(), OpenError> {
        let fill = move || -> Result<(), ::redb::Error> {
            let watch = Arc::new(Watch::new(Header::BLANK));
            make_tables(&builder().create_with_backend(Guarded { disk, watch })?)
        };
        fill().map_err(|error| OpenError::Io {
            place: place.to_owned(),
            what: "create the store",
            source: std::io::Error::other(error),
        })
    }

    /// Opens a store that is there. `place` is what messages call it.
    pub fn open_on(disk: Disk, place: &str) -> Result<RedbStore, OpenError> {
        let format = examine(&disk, place)?;
        let (db, watch) = open_database(&disk).map_err(damaged(place))?;
        if format < FORMAT {
            make_tables(&db).map_err(|error| OpenError::Io {
                place: place.to_owned(),
                what: "bring the store to this version's format",
                source: std::io::Error::other(error),
            })?;
        }
        Ok(RedbStore { place: place.to_owned(), disk, state: State::Open(db, watch), _dir: None })
    }

    /// The value of one row.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let get = || -> Result<_, ::redb::Error> {
            let rows = self.database()?.begin_read()?.open_table(definition(table))?;
            Ok(rows.get(key)?.map(|value| value.value().to_vec()))
        };
        get().map_err(|error| self.unreadable(table, &error))
    }

    fn database(&self) -> Result<&Database, ::redb::Error> {
        match &self.state {
            State::Open(db, _) => Ok(db),
            State::Closed | State::InDoubt(_) => Err(::redb::Error::DatabaseClosed),
        }
    }

    fn unreadable(&self, table: Table, error: &::redb::Error) -> String {
        format!("{}: table {} can't be read: {error}. Restore the file from a backup", self.place, table.name())
    }

    fn refusal(&self, error: &dyn std::fmt::Display) -> String {
        format!("{}: the change could not be written: {error}. Free space on the disk or repair it", self.place)
    }

    /// Finds out what became of a failed transaction, takes it back, and opens the file anew.
    fn after_failure(&mut self, before: Header, error: &::redb::Error) -> Result<(), Failure> {
        let State::Open(db, watch) = std::mem::replace(&mut self.state, State::Closed) else {
            unreachable!("only an open database takes transactions")
        };
        watch.cut_off();
        drop(db);
        let reason = self.refusal(error);
        if watch.synced().committed_since(&before) {
            return Ok(());
        }
        if let Some(header) = watch.to_restore() {
            self.state = State::InDoubt(Box::new(header));
            self.heal().map_err(|why| Failure::InDoubt(format!("{reason}; {why}")))?;
        }
        Err(Failure::Refused(reason))
    }

    fn reopen(&mut self) -> Result<(), Failure> {
        self.heal().map_err(Failure::Refused)?;
        if matches!(self.state, State::Closed) {
            let (db, watch) = open_database(&self.disk).map_err(|error| {
                Failure::Refused(format!(
                    "{}: the file can't be opened again after a failure: {error}. Repair the disk",
                    self.place
                ))
            })?;
            self.state = State::Open(db, watch);
        }
        Ok(())
    }
}

impl Backend for RedbStore {
    fn apply(&mut self, commits: &[Commit]) -> Result<u64, Failure> {
        self.reopen()?;
        let State::Open(db, watch) = &self.state else { unreachable!("just opened") };
        let before = watch.synced();
        match write(db, commits) {
            Ok(()) => Ok(watch.take_sync_ns()),
            Err(error) => self.after_failure(before, &error).map(|()| 0),
        }
    }

    fn heal(&mut self) -> Result<Settled, String> {
        if let State::InDoubt(header) = &self.state {
            restore(&self.disk, header).map_err(|error| self.refusal(&error))?;
            self.state = State::Closed;
        }
        Ok(Settled::NotMade)
    }

    fn fetch(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.reopen().map_err(|failure| failure.reason())?;
        self.get(table, key)
    }

    fn load(&self, table: Table, row: &mut RowFn<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<(), String> {
        let begin = || -> Result<_, ::redb::Error> {
            let rows = self.database()?.begin_read()?.open_table(definition(table))?;
            Ok((rows.len()?, rows.range::<&[u8]>(..)?))
        };
        let (all, rows) = begin().map_err(|error| self.unreadable(table, &error))?;
        for (done, entry) in (1u64..).zip(rows) {
            let (key, value) = entry.map_err(|error| self.unreadable(table, &error.into()))?;
            row(key.value(), value.value()).map_err(|why| unreadable(&self.place, table, key.value(), &why))?;
            if done.is_multiple_of(PROGRESS_ROWS) {
                progress(done, all);
            }
        }
        progress(all, all);
        Ok(())
    }
}

/// Makes the tables that are missing, and says that the file has this format.
fn make_tables(db: &Database) -> Result<(), ::redb::Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_two_phase_commit(true);
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    transaction.open_table(definition(Table::Meta))?.insert(FORMAT_KEY, encode_u32(FORMAT).as_slice())?;
    Ok(transaction.commit()?)
}

fn write(db: &Database, commits: &[Commit]) -> Result<(), ::redb::Error> {
    let mut transaction = db.begin_write()?;
    transaction.set_two_phase_commit(true);
    {
        let mut tables = [const { None }; Table::ALL.len()];
        for write in commits.iter().flat_map(|commit| &commit.writes) {
            let slot = &mut tables[write.table as usize];
            let table = match slot {
                Some(table) => table,
                None => slot.insert(transaction.open_table(definition(write.table))?),
            };
            match &write.value {
                Some(value) => _ = table.insert(write.key.as_slice(), value.as_slice())?,
                None => _ = table.remove(write.key.as_slice())?,
            }
        }
    }
    Ok(transaction.commit()?)
}

fn open_database(disk: &Disk) -> Result<(Database, Arc<Watch>), DatabaseError> {
    let watch = Arc::new(Watch::new(Header::read(disk)?));
    let db = builder().create_with_backend(Guarded { disk: disk.clone(), watch: watch.clone() })?;
    Ok((db, watch))
}

/// Reads the whole file, checks every checksum and the format, which it gives, and changes nothing. redb does the check when it
/// opens a file that it distrusts; otherwise it would trust the pages, and panic on bad ones.
fn examine(disk: &Disk, place: &str) -> Result<u32, OpenError> {
    let broken = |why: &str| OpenError::Damaged { place: place.to_owned(), why: why.to_owned() };
    let overlay = Overlay::distrusted(disk.clone()).map_err(|error| damaged(place)(error.into()))?;
    let db = builder().create_with_backend(overlay).map_err(damaged(place))?;
    let format = || -> Result<_, ::redb::Error> {
        let meta = match db.begin_read()?.open_table(definition(Table::Meta)) {
            Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => return Ok(None),
            opened => opened?,
        };
        Ok(meta.get(FORMAT_KEY)?.and_then(|value| decode_u32(value.value()).ok()))
    };
    match format().map_err(|error| broken(&error.to_string()))? {
        None => Err(broken("it's a redb file, but not one of fanal's")),
        Some(found) if found > FORMAT => Err(OpenError::Newer { place: place.to_owned(), found, known: FORMAT }),
        Some(found) => Ok(found),
    }
}

/// Puts the words around an error that redb met while opening.
fn damaged(place: &str) -> impl FnOnce(DatabaseError) -> OpenError {
    let place = place.to_owned();
    move |error| match error {
        DatabaseError::Storage(StorageError::Corrupted(why)) => OpenError::Damaged { place, why },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            ErrorKind::UnexpectedEof => OpenError::Damaged { place, why: "its end is missing".to_owned() },
            ErrorKind::InvalidData => OpenError::Damaged { place, why: source.to_string() },
            _ => OpenError::Io { place, what: "read the file", source },
        },
        other => OpenError::Damaged { place, why: other.to_string() },
    }
}
