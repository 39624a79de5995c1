//! Two views of the store's file, both beneath redb: one that can take a failed transaction back, one that changes nothing.
//!
//! Lives on: the storage thread. Serves issue 2 point 6. redb changes only its header in place; all else is copy-on-write, and a
//! page of the last durable tree is not reused before a newer tree is durable. So to put the header back is to take back
//! everything after it. That matters after a failed sync: the kernel may show pages that never reach the disk, so what the file
//! seems to hold proves nothing. Invariants: after the first failure `Guarded` writes nothing more; `Overlay` never writes.

use ::redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The part of the file that is changed in place; one sector, so a disk writes it whole.
pub const HEADER_BYTES: usize = 512;
/// redb's file format: this byte has the bits below.
const GOD_BYTE: usize = 9;
const PRIMARY_BIT: u8 = 1;
const TWO_PHASE_BIT: u8 = 4;

/// A file as redb and its faulty stand-ins in the tests see it.
pub type Disk = Arc<dyn StorageBackend>;

/// The header of a redb file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header([u8; HEADER_BYTES]);

impl Header {
    /// The header of a file that is still empty.
    pub const BLANK: Header = Header([0; HEADER_BYTES]);

    pub fn read(disk: &Disk) -> io::Result<Header> {
        let mut header = Header::BLANK;
        disk.read(0, &mut header.0)?;
        Ok(header)
    }

    /// Which of the two slots holds the last commit.
    fn primary(&self) -> u8 {
        self.0[GOD_BYTE] & PRIMARY_BIT
    }

    /// A commit flips the primary slot, so a different one means that a commit was made.
    pub fn committed_since(&self, before: &Header) -> bool {
        self.primary() != before.primary()
    }
}

#[derive(Debug)]
struct Headers {
    written: Header,
    synced: Header,
}

/// What is known about the file beneath one opened database, which does not tell it itself.
#[derive(Debug)]
pub struct Watch {
    headers: Mutex<Headers>,
    failed: AtomicBool,
    sync_ns: AtomicU64,
}

impl Watch {
    /// For a file whose header on the disk is this one.
    pub fn new(header: Header) -> Watch {
        let headers = Mutex::new(Headers { written: header, synced: header });
        Watch { headers, failed: AtomicBool::new(false), sync_ns: AtomicU64::new(0) }
    }

    fn headers(&self) -> MutexGuard<'_, Headers> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The header that is surely on disk.
    pub fn synced(&self) -> Header {
        self.headers().synced
    }

    /// The header to put back so that nothing since the last sync survives; `None`: nothing does as it is. The last commit was a
    /// two-phase one, so the other slot counts for nothing before the god byte names it.
    pub fn to_restore(&self) -> Option<Header> {
        let headers = self.headers();
        let (written, synced) = (headers.written.0[GOD_BYTE], headers.synced.0[GOD_BYTE]);
        let harmless = written == synced && synced & TWO_PHASE_BIT != 0;
        (headers.written != headers.synced && !harmless).then_some(headers.synced)
    }

    /// From here on nothing is written: whoever still holds the database can't do harm.
    pub fn cut_off(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Nanoseconds spent in syncs since the last call.
    pub fn take_sync_ns(&self) -> u64 {
        self.sync_ns.swap(0, Ordering::Relaxed)
    }
}

/// Puts a header back and makes that durable.
pub fn restore(disk: &Disk, header: &Header) -> io::Result<()> {
    disk.write(0, &header.0)?;
    disk.sync_data()
}

/// The file beneath a database that may be written.
#[derive(Debug)]
pub struct Guarded {
    pub disk: Disk,
    pub watch: Arc<Watch>,
}

impl Guarded {
    fn guard(&self, operation: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.watch.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write failed"));
        }
        operation().inspect_err(|_| self.watch.cut_off())
    }
}

impl StorageBackend for Guarded {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.guard(|| self.disk.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.guard(|| {
            let began = Instant::now();
            let result = self.disk.sync_data();
            self.watch.sync_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
            result?;
            let mut headers = self.watch.headers();
            headers.synced = headers.written;
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.guard(|| {
            if let Some(in_header) = HEADER_BYTES.checked_sub(offset as usize) {
                let part = &data[..data.len().min(in_header)];
                let mut headers = self.watch.headers();
                headers.written.0[offset as usize..][..part.len()].copy_from_slice(part);
            }
            self.disk.write(offset, data)
        })
    }
}

/// Pages of `Overlay`.
const PAGE: u64 = 4096;

/// A file that may be read; what is written to it stays in memory and is forgotten.
#[derive(Debug)]
pub struct Overlay {
    disk: Disk,
    state: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// How much of the disk still shows through; less than all once the file was cut.
    visible: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub fn new(disk: Disk) -> io::Result<Overlay> {
        let len = disk.len()?;
        Ok(Overlay { disk, state: Mutex::new(Written { len, visible: len, pages: BTreeMap::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, Written> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as the disk has it; zeroes beyond what is visible of it.
    fn original(&self, page: u64, visible: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
        let there = visible.saturating_sub(page * PAGE).min(PAGE);
        self.disk.read(page * PAGE, &mut bytes[..there as usize])?;
        Ok(bytes)
    }
}

/// The pieces of `offset..offset + len` by page: page, offset in the page, offset in the range, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let piece = (len - done).min((PAGE - at % PAGE) as usize);
        let result = (at / PAGE, (at % PAGE) as usize, done, piece);
        done += piece;
        (piece > 0).then_some(result)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let end = offset.saturating_add(out.len() as u64);
        if end > state.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if end <= state.visible && state.pages.range(offset / PAGE..=end / PAGE).next().is_none() {
            return self.disk.read(offset, out);
        }
        for (page, in_page, at, piece) in pieces(offset, out.len()) {
            match state.pages.get(&page) {
                Some(bytes) => out[at..at + piece].copy_from_slice(&bytes[in_page..in_page + piece]),
                None => out[at..at + piece].copy_from_slice(&self.original(page, state.visible)?[in_page..in_page + piece]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if len < state.len {
            // What is beyond a cut must read as zeroes when the file grows again.
            state.visible = state.visible.min(len);
            state.pages.split_off(&len.div_ceil(PAGE));
            if let Some(bytes) = state.pages.get_mut(&(len / PAGE)) {
                bytes[(len % PAGE) as usize..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        for (page, in_page, at, piece) in pieces(offset, data.len()) {
            if !state.pages.contains_key(&page) {
                let bytes = self.original(page, state.visible)?;
                state.pages.insert(page, bytes);
            }
            let bytes = state.pages.get_mut(&page).expect("just put there");
            bytes[in_page..in_page + piece].copy_from_slice(&data[at..at + piece]);
        }
        state.len = state.len.max(offset + data.len() as u64);
        Ok(())
    }
}
