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
const RECOVERY_BIT: u8 = 2;
const TWO_PHASE_BIT: u8 = 4;
/// Where the two commit slots begin, and how long one is.
const SLOTS: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;

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

    /// Both slots hold the last commit, which was not closed and not made in two phases.
    fn distrusted(mut self) -> io::Result<Header> {
        if self.0[GOD_BYTE] & TWO_PHASE_BIT == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its header was not written by fanal"));
        }
        let primary = usize::from(self.primary());
        self.0.copy_within(SLOTS[primary]..SLOTS[primary] + SLOT_BYTES, SLOTS[1 - primary]);
        self.0[GOD_BYTE] = (self.0[GOD_BYTE] | RECOVERY_BIT) & !TWO_PHASE_BIT;
        Ok(self)
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
    /// The file with a header that makes redb distrust it: whoever opens it checks every checksum below the last commit before it
    /// reads a page, and finds no other commit to fall back to.
    pub fn distrusted(disk: Disk) -> io::Result<Overlay> {
        let len = disk.len()?;
        let header = Header::read(&disk)?.distrusted()?;
        let overlay = Overlay { disk, state: Mutex::new(Written { len, visible: len, pages: BTreeMap::new() }) };
        overlay.write(0, &header.0)?;
        Ok(overlay)
    }

    fn state(&self) -> MutexGuard<'_, Written> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as the disk has it; zeroes beyond what is visible of it.
    fn original(&self, page: u64, visible: u64) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
        let there = visible.saturating_sub(page * PAGE).min(PAGE);
        if there > 0 {
            self.disk.read(page * PAGE, &mut bytes[..there as usize])?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use ::redb::backends::InMemoryBackend;
    use proptest::prelude::*;

    /// Memory that fails its second write.
    #[derive(Debug, Default)]
    struct SecondFails(InMemoryBackend, AtomicU64);

    impl StorageBackend for SecondFails {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            if self.1.fetch_add(1, Ordering::Relaxed) == 1 { Err(io::ErrorKind::Other.into()) } else { self.0.write(offset, data) }
        }
    }

    #[test]
    fn nothing_is_written_after_the_first_failure() {
        let disk: Disk = Arc::new(SecondFails::default());
        let guarded = Guarded { disk: disk.clone(), watch: Arc::new(Watch::new(Header::BLANK)) };
        guarded.set_len(1000).unwrap();
        guarded.write(600, b"one").unwrap();
        assert!(guarded.write(700, b"two").is_err());
        assert!(guarded.write(800, b"three").is_err() && guarded.sync_data().is_err() && guarded.set_len(2000).is_err());
        let mut bytes = vec![0; 1000];
        guarded.read(0, &mut bytes).unwrap();
        assert_eq!((&bytes[600..603], bytes[700], bytes[800], disk.len().unwrap()), (b"one".as_slice(), 0, 0, 1000));
    }

    #[test]
    fn a_header_is_restored_only_when_it_could_name_a_failed_commit() {
        let mut header = Header::BLANK;
        header.0[GOD_BYTE] = TWO_PHASE_BIT;
        let disk: Disk = Arc::new(InMemoryBackend::new());
        disk.set_len(1000).unwrap();
        restore(&disk, &header).unwrap();
        let watch = Arc::new(Watch::new(header));
        let guarded = Guarded { disk, watch: watch.clone() };
        guarded.write(SLOTS[1] as u64, &[7; SLOT_BYTES]).unwrap();
        assert_eq!(watch.to_restore(), None, "the other slot alone does no harm");
        guarded.write(GOD_BYTE as u64, &[TWO_PHASE_BIT | PRIMARY_BIT]).unwrap();
        assert_eq!(watch.to_restore(), Some(header));
        assert!(!watch.synced().committed_since(&header));
        guarded.sync_data().unwrap();
        assert_eq!(watch.to_restore(), None);
        assert!(watch.synced().committed_since(&header));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize, Vec<u8>),
        SetLen(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..20_000, proptest::collection::vec(1u8.., 1..6_000)).prop_map(|(at, data)| Step::Write(at, data)),
            (512usize..26_000).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn an_overlay_reads_like_a_file_and_changes_none(steps in proptest::collection::vec(step(), 0..12), at in 0usize..20_000) {
            let mut model: Vec<u8> = (0..10_000).map(|n| n as u8).collect();
            model[GOD_BYTE] = TWO_PHASE_BIT;
            let disk: Disk = Arc::new(InMemoryBackend::new());
            disk.set_len(model.len() as u64).unwrap();
            disk.write(0, &model).unwrap();
            let original = model.clone();
            let overlay = Overlay::distrusted(disk.clone()).unwrap();
            model[..HEADER_BYTES].copy_from_slice(&Header::read(&disk).unwrap().distrusted().unwrap().0);
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        model.resize(model.len().max(at + data.len()), 0);
                        model[at..at + data.len()].copy_from_slice(&data);
                        overlay.write(at as u64, &data).unwrap();
                    }
                    Step::SetLen(len) => {
                        model.resize(len, 0);
                        overlay.set_len(len as u64).unwrap();
                    }
                }
            }
            prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            let from = at.min(model.len());
            let mut read = vec![0; model.len() - from];
            overlay.read(from as u64, &mut read).unwrap();
            prop_assert!(read == model[from..]);
            prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            let mut untouched = vec![0; original.len()];
            disk.read(0, &mut untouched).unwrap();
            prop_assert!(untouched == original);
        }
    }
}
