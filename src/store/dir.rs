//! The data directory: who may use it, what is in it, and the words for when a store can't be used.
//!
//! Lives on: the main thread at start, and that of `fanal user` and `fanal bench`. Serves issue 2 point 6. Layout: `fanal.lock`
//! (locked by the one process that uses the directory, whose number it holds) and `fanal.redb` (the rows). Invariants:
//! `fanal.redb` appears whole or not at all, so an empty one is damage; what is damaged is never changed.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "fanal.lock";
const ROWS_FILE: &str = "fanal.redb";
/// The rows file while it is made.
const NEW_FILE: &str = "fanal.redb.new";

/// Why a data directory, the file in it or a database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{dir}: a node is running on this directory (process {process}): use its admin address, or stop it first")]
    Busy { dir: String, process: String },
    #[error("{place}: can't {what}: {source}. Check that the path is right and that this user may write there")]
    Io { place: String, what: &'static str, source: io::Error },
    #[error("{dir}: there is no data here: check the path, or add a user or start a node to create it")]
    Missing { dir: String },
    #[error("{place}: the file is damaged: {why}. It was left as it is: restore it from a backup, or move it away to start empty")]
    Damaged { place: String, why: String },
    #[error("{place}: the data has format {found}, this fanal reads up to {known}: start the newer fanal that wrote it")]
    Newer { place: String, found: u32, known: u32 },
    /// Never with the URL itself: it may hold a password.
    #[error("store.url: {why}. Write it like \"postgres://fanal@127.0.0.1/fanal\"")]
    Url { why: String },
    #[error("{place}: {why}. {fix}")]
    Database { place: String, why: String, fix: &'static str },
}

/// A data directory that belongs to this process until it's dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock ends with the process at the latest, however that ends.
    _lock: File,
}

impl DataDir {
    /// Takes the directory; makes it, for its owner only, when it's not there.
    pub fn take_or_create(path: &Path) -> Result<DataDir, OpenError> {
        if !path.is_dir() {
            let make = DirBuilder::new().recursive(true).mode(0o700).create(path);
            make.map_err(io_error(path, "create the directory"))?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                sync_dir(parent)?;
            }
        }
        DataDir::take(path)
    }

    /// Takes a directory that is there.
    pub fn take(path: &Path) -> Result<DataDir, OpenError> {
        if !path.is_dir() {
            return Err(OpenError::Missing { dir: path.display().to_string() });
        }
        let lock_path = path.join(LOCK_FILE);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let mut lock = open.map_err(io_error(&lock_path, "open the lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(path, &mut lock)),
            Err(TryLockError::Error(source)) => return Err(io_error(&lock_path, "lock the file")(source)),
        }
        let note = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
        note.map_err(io_error(&lock_path, "write the lock file"))?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// The process that uses the directory, if there is one.
    pub fn user_of(path: &Path) -> Option<u32> {
        let mut lock = File::open(path.join(LOCK_FILE)).ok()?;
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => holder(&mut lock),
            _ => None,
        }
    }

    /// The file of the rows.
    pub fn rows_path(&self) -> PathBuf {
        self.path.join(ROWS_FILE)
    }

    /// Makes the rows file when there is none: `fill` writes it under another name, and it gets its own once it's on the disk.
    pub(super) fn create_rows(&self, fill: impl FnOnce(File, &str) -> Result<(), OpenError>) -> Result<(), OpenError> {
        let path = self.rows_path();
        if path.try_exists().map_err(io_error(&path, "look for the file"))? {
            return Ok(());
        }
        let new = self.path.join(NEW_FILE);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new);
        let file = open.map_err(io_error(&new, "create the file"))?;
        let kept = file.try_clone().map_err(io_error(&new, "create the file"))?;
        fill(file, &new.display().to_string())?;
        kept.sync_all().map_err(io_error(&new, "sync the file"))?;
        std::fs::rename(&new, &path).map_err(io_error(&new, "rename the file"))?;
        sync_dir(&self.path)
    }
}

fn busy(path: &Path, lock: &mut File) -> OpenError {
    // The holder may be about to write its number; the error is right without it.
    let process = holder(lock).map_or_else(|| "unknown".to_owned(), |process| process.to_string());
    OpenError::Busy { dir: path.display().to_string(), process }
}

/// The process that has locked the file.
fn holder(lock: &mut File) -> Option<u32> {
    let mut process = String::new();
    lock.rewind().and_then(|()| lock.read_to_string(&mut process)).ok()?;
    process.parse().ok()
}

fn sync_dir(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error(path, "sync the directory"))
}

/// Puts the words around an error of the system.
pub(super) fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let place = path.display().to_string();
    move |source| OpenError::Io { place, what, source }
}
