//! The store on a disk that fails (issue 2, point 6): nothing acknowledged is lost, nothing that failed appears later, nothing
//! is half there. The disk below is memory that behaves at its worst: until a sync, each write may be lost, kept or torn; a
//! failed sync keeps some of them and forgets the others, while what is read still shows them all.
#![cfg(feature = "runtime")]

use fanal::store::memory::Memory;
use fanal::store::redb::RedbStore;
use fanal::store::{Backend, Commit, Durability, Failure, Table, Write};
use redb::StorageBackend;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

const SECTOR: usize = 512;
const PLACE: &str = "disk";

/// Numbers that follow from a seed (splitmix64).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % sides
    }
}

/// What goes wrong with an operation that changes the disk.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    /// It fails; a write may have been done in part, a sync forgets some writes.
    Error,
    /// There is no space: writes and growth fail, syncs work.
    Full,
    /// The machine stops. Nothing works until the disk is taken out with `after_crash`.
    Crash,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Debug)]
struct State {
    /// What is surely on the disk.
    durable: Vec<u8>,
    /// What a reader sees.
    shown: Vec<u8>,
    /// Changes since the last sync.
    pending: Vec<Change>,
    /// Operations so far that change something.
    operations: u64,
    /// During these operations this goes wrong.
    faults: Vec<(Range<u64>, Fault)>,
    crashed: bool,
    dice: Dice,
}

#[derive(Debug)]
struct FaultyDisk(Mutex<State>);

fn apply_write(bytes: &mut [u8], at: usize, data: &[u8]) {
    // A write beyond the length belongs to a growth that was lost with it.
    let end = (at + data.len()).min(bytes.len());
    if at < end {
        bytes[at..end].copy_from_slice(&data[..end - at]);
    }
}

impl State {
    /// Some of the pending changes reach the disk: the first `resized` of them if they're lengths, which the file system changes in
    /// order, and any of the writes.
    fn keep_some(&mut self, resized: usize) {
        for (number, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            match change {
                Change::SetLen(len) if number < resized => self.durable.resize(len, 0),
                Change::SetLen(_) => {}
                Change::Write(at, data) => match self.dice.roll(3) {
                    0 => {}
                    1 => apply_write(&mut self.durable, at, &data),
                    _ => self.tear(at, &data),
                },
            }
        }
    }

    fn tear(&mut self, at: usize, data: &[u8]) {
        let mut from = 0;
        while from < data.len() {
            let to = data.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
            if self.dice.roll(2) == 0 {
                apply_write(&mut self.durable, at + from, &data[from..to]);
            }
            from = to;
        }
    }

    fn fault(&mut self) -> Option<Fault> {
        let now = self.operations;
        self.operations += 1;
        let fault = self.faults.iter().find(|(during, _)| during.contains(&now)).map(|&(_, fault)| fault);
        self.crashed |= fault == Some(Fault::Crash);
        if self.crashed { Some(Fault::Crash) } else { fault }
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl FaultyDisk {
    fn new(bytes: Vec<u8>, seed: u64, faults: Vec<(Range<u64>, Fault)>) -> Arc<FaultyDisk> {
        let (shown, pending) = (bytes.clone(), Vec::new());
        Arc::new(FaultyDisk(Mutex::new(State {
            durable: bytes,
            shown,
            pending,
            operations: 0,
            faults,
            crashed: false,
            dice: Dice(seed),
        })))
    }

    fn crashed(&self) -> bool {
        self.0.lock().unwrap().crashed
    }

    fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    /// Ends every fault that is going on.
    fn mend(&self) {
        self.0.lock().unwrap().faults.clear();
    }

    /// What the next start finds.
    fn after_crash(&self) -> Vec<u8> {
        let mut state = self.0.lock().unwrap();
        let resized = state.pending.len() as u64 + 1;
        let resized = state.dice.roll(resized) as usize;
        state.keep_some(resized);
        state.durable.clone()
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().shown.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        if state.crashed {
            return Err(broken());
        }
        let from = state.shown.get(offset as usize..offset as usize + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match state.fault() {
            Some(Fault::Full) if len > state.shown.len() as u64 => return Err(full()),
            None | Some(Fault::Full) => {}
            Some(Fault::Error | Fault::Crash) => return Err(broken()),
        }
        state.shown.resize(len as usize, 0);
        state.pending.push(Change::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match state.fault() {
            None | Some(Fault::Full) => {
                state.durable = state.durable_with_all();
                Ok(())
            }
            Some(Fault::Error) => {
                // Pages are forgotten, but never the length: that is the file system's own.
                state.keep_some(usize::MAX);
                Err(broken())
            }
            Some(Fault::Crash) => Err(broken()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, result) = match state.fault() {
            None => (data.len(), Ok(())),
            Some(Fault::Crash) => (0, Err(broken())),
            Some(Fault::Full) => (state.dice.roll(data.len() as u64 + 1) as usize, Err(full())),
            Some(Fault::Error) => (state.dice.roll(data.len() as u64 + 1) as usize, Err(broken())),
        };
        let at = offset as usize;
        assert!(at + done <= state.shown.len(), "redb sets the length first");
        apply_write(&mut state.shown, at, &data[..done]);
        state.pending.push(Change::Write(at, data[..done].to_vec()));
        result
    }
}

impl State {
    fn durable_with_all(&mut self) -> Vec<u8> {
        let mut durable = std::mem::take(&mut self.durable);
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::SetLen(len) => durable.resize(len, 0),
                Change::Write(at, data) => apply_write(&mut durable, at, &data),
            }
        }
        durable
    }
}

/// An empty store, as a start finds it.
fn empty_store() -> Vec<u8> {
    let disk = FaultyDisk::new(Vec::new(), 0, Vec::new());
    RedbStore::create_on(disk.clone(), PLACE).unwrap();
    disk.after_crash()
}

/// A transaction of a few commits: rows put, replaced and deleted in several tables, small and large.
fn transaction(dice: &mut Dice, number: u64) -> Vec<Commit> {
    let write = |dice: &mut Dice| {
        let table = Table::ALL[1 + dice.roll(6) as usize];
        let key = format!("user{}@localhost", dice.roll(40)).into_bytes();
        let length = if dice.roll(8) == 0 { 9_000 } else { dice.roll(300) } as usize;
        let value = number.to_be_bytes().into_iter().chain(std::iter::repeat_n(number as u8, length)).collect();
        Write { table, key, value: (dice.roll(4) > 0).then_some(value) }
    };
    let commit = |dice: &mut Dice| {
        let writes = (0..=dice.roll(6)).map(|_| write(dice)).collect();
        Commit { ticket: number, writes, durability: Durability::Synced }
    };
    (0..=dice.roll(3)).map(|_| commit(dice)).collect()
}

fn rows_of(store: &dyn Backend) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    for table in Table::ALL.into_iter().filter(|&table| table != Table::Meta) {
        let mut take = |key: &[u8], value: &[u8]| {
            rows.push((table, key.to_vec(), value.to_vec()));
            Ok(())
        };
        store.load(table, &mut take, &mut |_, _| ()).unwrap();
    }
    rows
}

/// What must be in the store, and what else may be: a transaction that was under way when the machine stopped.
#[derive(Default)]
struct Expected {
    acknowledged: Memory,
    under_way: Option<Memory>,
    made: u64,
    refused: u64,
}

impl Expected {
    fn check(&mut self, store: &RedbStore, story: &str) {
        let rows = rows_of(store);
        if let Some(under_way) = self.under_way.take().filter(|memory| rows_of(memory) == rows) {
            self.acknowledged = under_way;
        }
        assert!(rows == rows_of(&self.acknowledged), "{story}: the store does not hold what was acknowledged");
    }

    /// One transaction against the store and the model. False once the machine has stopped.
    fn step(&mut self, store: &mut RedbStore, disk: &FaultyDisk, commits: &[Commit]) -> bool {
        let mut with = self.acknowledged.clone();
        with.apply(commits).unwrap();
        match store.apply(commits) {
            Ok(_) => {
                self.acknowledged = with;
                self.made += 1;
            }
            // The node stopped with the machine: it told nobody.
            Err(_) if disk.crashed() => self.under_way = Some(with),
            Err(Failure::Refused(reason)) => self.refuse(&reason),
            Err(Failure::InDoubt(reason)) => {
                disk.mend();
                store.heal().expect("the disk works");
                self.refuse(&reason);
            }
        }
        !disk.crashed()
    }

    fn refuse(&mut self, reason: &str) {
        self.refused += 1;
        assert!(reason.starts_with("disk: the ") && reason.contains("os error"), "{reason}");
    }
}

/// One life of a node on a disk: transactions until the machine stops, which it does after them at the latest.
fn live(expected: &mut Expected, disk: &Arc<FaultyDisk>, dice: &mut Dice, transactions: u64, story: &str) -> Vec<u8> {
    match RedbStore::open_on(disk.clone(), PLACE) {
        Ok(mut store) => {
            expected.check(&store, story);
            for number in 0..transactions {
                if !expected.step(&mut store, disk, &transaction(dice, number)) {
                    break;
                }
            }
        }
        Err(error) => assert!(disk.crashed() || disk.operations() > 0, "{story}: {error}"),
    }
    disk.after_crash()
}

fn must_open(expected: &mut Expected, image: Vec<u8>, story: &str) {
    let disk = FaultyDisk::new(image, 0, Vec::new());
    let store = RedbStore::open_on(disk, PLACE).unwrap_or_else(|error| panic!("{story}: {error}"));
    expected.check(&store, story);
}

/// Every single operation of a short life fails once, in each way.
#[test]
fn a_failure_of_any_one_operation_loses_nothing() {
    let empty = empty_store();
    let calm = FaultyDisk::new(empty.clone(), 1, Vec::new());
    live(&mut Expected::default(), &calm, &mut Dice(7), 8, "calm");
    let operations = calm.operations();
    assert!(operations > 60, "{operations}");
    for fault in [Fault::Error, Fault::Full, Fault::Crash] {
        let mut refused = 0;
        for at in 0..operations {
            let story = format!("{fault:?} at operation {at}");
            let mut expected = Expected::default();
            let disk = FaultyDisk::new(empty.clone(), at, vec![(at..at + 1, fault)]);
            let image = live(&mut expected, &disk, &mut Dice(7), 8, &story);
            must_open(&mut expected, image, &story);
            refused += expected.refused;
        }
        assert!(fault == Fault::Crash || refused > 10, "{fault:?} was met {refused} times");
    }
}

/// From any one operation on, all fail for a while; then the disk works again.
#[test]
fn a_disk_that_fails_for_a_while_is_used_again() {
    let empty = empty_store();
    for fault in [Fault::Error, Fault::Full] {
        for at in 0..70 {
            let story = format!("{fault:?} from operation {at}");
            let mut expected = Expected::default();
            let disk = FaultyDisk::new(empty.clone(), at, Vec::new());
            let mut dice = Dice(at);
            let mut store = RedbStore::open_on(disk.clone(), PLACE).unwrap();
            let began = disk.operations();
            disk.0.lock().unwrap().faults.push((began + at..began + at + 12, fault));
            for number in 0..20 {
                assert!(expected.step(&mut store, &disk, &transaction(&mut dice, number)));
            }
            assert!(expected.refused > 0 && expected.made > 0, "{story}: {} refused, {} made", expected.refused, expected.made);
            expected.check(&store, &story);
            must_open(&mut expected, disk.after_crash(), &story);
        }
    }
}

/// Many lives on one disk, with several failures in each, in the middle of opening, too.
#[test]
fn many_lives_with_many_failures_lose_nothing() {
    let seeds = std::env::var("FANAL_STORE_SEEDS").map_or(150, |seeds| seeds.parse().expect("FANAL_STORE_SEEDS is a number"));
    let (mut made, mut refused) = (0, 0);
    for seed in 0..seeds {
        let mut dice = Dice(seed);
        let mut expected = Expected::default();
        let mut image = empty_store();
        for life in 0..5 {
            let story = format!("seed {seed}, life {life}");
            let mut fault = |kind, long| {
                let at = dice.roll(120);
                (at..at + 1 + dice.roll(long), kind)
            };
            let mut faults = vec![fault(Fault::Crash, 1), fault(Fault::Error, 1), fault(Fault::Error, 3), fault(Fault::Full, 10)];
            let count = dice.roll(5) as usize;
            faults.truncate(count);
            let disk = FaultyDisk::new(image, dice.roll(u64::MAX), faults);
            image = live(&mut expected, &disk, &mut dice, 20, &story);
        }
        must_open(&mut expected, image, &format!("seed {seed}, the end"));
        made += expected.made;
        refused += expected.refused;
    }
    assert!(made > 10 * seeds && refused > seeds, "{made} made, {refused} refused");
}

/// A disk that takes no writes at all, as when it was mounted read-only after an error.
#[test]
fn a_disk_that_takes_no_writes_fails_every_commit_with_the_reason() {
    let disk = FaultyDisk::new(empty_store(), 0, Vec::new());
    let mut store = RedbStore::open_on(disk.clone(), PLACE).unwrap();
    disk.0.lock().unwrap().faults.push((0..u64::MAX, Fault::Full));
    let mut dice = Dice(1);
    for number in 0..3 {
        let Err(Failure::Refused(reason)) = store.apply(&transaction(&mut dice, number)) else { panic!("nothing can be written") };
        assert!(reason.contains("No space left on device"), "{reason}");
    }
    disk.mend();
    let mut expected = Expected::default();
    assert!(expected.step(&mut store, &disk, &transaction(&mut dice, 3)));
    expected.check(&store, "mended");
}
