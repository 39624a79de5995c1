//! The storage thread: takes commits from all cores, makes all that wait one transaction, and tells each core in order.
//!
//! Lives on: its own thread; a `Port` lives on its core. Serves J10, M3. The sync in progress is the time in which the next group
//! gathers: nothing waits on purpose, except ride-along commits. The hand-over is a bounded channel of the standard library and
//! not a lock-free ring: it's not on the presence path, and `try_send` never waits for room. Invariants: a core never has more than
//! `PORT_COMMITS` or `PORT_BYTES` under way, so neither channel can be full; completions of a core come in the order of its
//! commits; while a transaction is in doubt, its commits and all later ones wait, and fail together when it's settled.

use super::{Backend, Commit, Completion, Durability, Failure};
use super::{GROUP_BYTES, GROUP_COMMITS, HEAL_MS, PORT_BYTES, PORT_COMMITS, RIDE_ALONG_MS};
use crate::base::id::CoreId;
use crate::base::reason::Reason;
use hdrhistogram::Histogram;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Called after completions were put for a core: rings that core's bell.
pub type Wake = Box<dyn Fn() + Send>;

/// Longest sync the histogram tells apart, in nanoseconds; longer ones count as this.
const LONGEST_SYNC_NS: u64 = 60_000_000_000;

enum Order {
    Commit(CoreId, Commit),
    Stop,
}

/// What one core has under way.
#[derive(Default)]
struct Load {
    commits: AtomicUsize,
    bytes: AtomicUsize,
}

/// What the storage thread has done, readable while it runs.
struct Counters {
    loads: Vec<Load>,
    commits: AtomicU64,
    transactions: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    sync_ns: Mutex<Histogram<u64>>,
}

/// A reading of the counters. All count from the start but `waiting`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Commits made durable, ride-along ones included.
    pub commits: u64,
    /// Transactions they were made in.
    pub transactions: u64,
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Commits that failed.
    pub failed: u64,
    /// Commits that were not taken from a core: `overloaded`.
    pub refused: u64,
    /// Commits under way now.
    pub waiting: u64,
}

/// A core's way to the storage thread.
pub struct Port {
    core: CoreId,
    orders: SyncSender<Order>,
    done: Receiver<Completion>,
    counters: Arc<Counters>,
}

/// A commit the storage thread did not take, with the reason to tell the client.
#[derive(Debug)]
pub struct NotTaken {
    pub commit: Commit,
    pub reason: Reason,
}

impl Port {
    /// Hands over a commit. Never waits.
    pub fn hand_over(&self, commit: Commit) -> Result<(), NotTaken> {
        let load = &self.counters.loads[usize::from(self.core.0)];
        let bytes = commit.bytes();
        let under_way = load.bytes.load(Relaxed);
        // A commit larger than the limit may still pass, alone.
        if load.commits.load(Relaxed) >= PORT_COMMITS || (under_way > 0 && under_way + bytes > PORT_BYTES) {
            self.counters.refused.fetch_add(1, Relaxed);
            return Err(NotTaken { commit, reason: Reason::Overloaded });
        }
        load.commits.fetch_add(1, Relaxed);
        load.bytes.fetch_add(bytes, Relaxed);
        self.orders.try_send(Order::Commit(self.core, commit)).map_err(|error| {
            load.commits.fetch_sub(1, Relaxed);
            load.bytes.fetch_sub(bytes, Relaxed);
            self.counters.refused.fetch_add(1, Relaxed);
            match error {
                std::sync::mpsc::TrySendError::Full(Order::Commit(_, commit)) => NotTaken { commit, reason: Reason::Overloaded },
                std::sync::mpsc::TrySendError::Disconnected(Order::Commit(_, commit)) => {
                    NotTaken { commit, reason: Reason::StorageFailed }
                }
                _ => unreachable!("a commit was sent"),
            }
        })
    }

    /// The next completion, if there is one.
    pub fn take(&self) -> Option<Completion> {
        let completion = self.done.try_recv().ok()?;
        self.counters.loads[usize::from(self.core.0)].commits.fetch_sub(1, Relaxed);
        Some(completion)
    }
}

/// The running storage thread.
pub struct StorageThread {
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
}

impl StorageThread {
    /// Starts the thread; one `Wake` and one `Port` for each core, in the order of their numbers.
    pub fn start(backend: Box<dyn Backend>, wakes: Vec<Wake>) -> io::Result<(StorageThread, Vec<Port>)> {
        let cores = wakes.len();
        let counters = Arc::new(Counters {
            loads: (0..cores).map(|_| Load::default()).collect(),
            commits: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            sync_ns: Mutex::new(Histogram::new_with_bounds(1, LONGEST_SYNC_NS, 2).expect("the bounds are in order")),
        });
        let (orders, taken) = sync_channel(cores * PORT_COMMITS + 1);
        let (mut ports, mut bells) = (Vec::new(), Vec::new());
        for (core, wake) in (0..).map(CoreId).zip(wakes) {
            let (put, done) = sync_channel(PORT_COMMITS);
            bells.push(Bell { put, wake, rung: false });
            ports.push(Port { core, orders: orders.clone(), done, counters: counters.clone() });
        }
        let worker = Worker {
            backend,
            taken,
            bells,
            counters: counters.clone(),
            group: Group::default(),
            doubt: None,
            failing: false,
            stopping: false,
        };
        let thread = std::thread::Builder::new().name("fanal-store".to_owned()).spawn(move || worker.run())?;
        Ok((StorageThread { orders, thread, counters }, ports))
    }

    /// Makes everything durable that was handed over, tells the cores, closes the file and ends. Waits for all that.
    pub fn stop(self) {
        // Should the thread be gone, `join` says so.
        _ = self.orders.send(Order::Stop);
        self.thread.join().expect("the storage thread has no reason to panic");
    }

    /// For whoever wants to know what the thread does.
    pub fn readings(&self) -> Readings {
        Readings(self.counters.clone())
    }
}

/// What the storage thread has done, from any thread, as long as somebody wants to know.
#[derive(Clone)]
pub struct Readings(Arc<Counters>);

impl Readings {
    /// Reads the counters.
    pub fn figures(&self) -> Figures {
        let counters = &self.0;
        Figures {
            commits: counters.commits.load(Relaxed),
            transactions: counters.transactions.load(Relaxed),
            rows: counters.rows.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            waiting: counters.loads.iter().map(|load| load.commits.load(Relaxed) as u64).sum(),
        }
    }

    /// How long each transaction waited for the disk, in nanoseconds.
    pub fn sync_times(&self) -> Histogram<u64> {
        self.0.sync_ns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The next transaction.
#[derive(Default)]
struct Group {
    cores: Vec<CoreId>,
    commits: Vec<Commit>,
    bytes: usize,
    synced: bool,
    /// When the first ride-along commit has waited long enough.
    deadline: Option<Instant>,
}

impl Group {
    fn push(&mut self, core: CoreId, commit: Commit) {
        self.bytes += commit.bytes();
        match commit.durability {
            Durability::Synced => self.synced = true,
            Durability::RideAlong => _ = self.deadline.get_or_insert_with(|| Instant::now() + Duration::from_millis(RIDE_ALONG_MS)),
        }
        self.cores.push(core);
        self.commits.push(commit);
    }

    fn full(&self) -> bool {
        self.commits.len() >= GROUP_COMMITS || self.bytes >= GROUP_BYTES
    }
}

/// Where the completions of a core go.
struct Bell {
    put: SyncSender<Completion>,
    wake: Wake,
    rung: bool,
}

/// A transaction whose fate the disk did not tell, and all commits since: they're answered once it's settled. No more than
/// `PORT_COMMITS` of each core.
struct Doubt {
    cores: Vec<CoreId>,
    commits: Vec<Commit>,
    reason: String,
    next_try: Instant,
}

struct Worker {
    backend: Box<dyn Backend>,
    taken: Receiver<Order>,
    bells: Vec<Bell>,
    counters: Arc<Counters>,
    group: Group,
    doubt: Option<Doubt>,
    /// Whether the last transaction failed: it's said once, not for each.
    failing: bool,
    stopping: bool,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.gather();
            let group = std::mem::take(&mut self.group);
            let drained = group.commits.is_empty() && self.stopping;
            self.commit(group);
            self.settle_doubt();
            if drained {
                break;
            }
        }
        if let Some(doubt) = &self.doubt {
            tracing::error!("{}: {} commits stay in doubt until the next start", doubt.reason, doubt.commits.len());
        }
    }

    /// Fills the group: waits for a reason to make a transaction, then takes all that waits.
    fn gather(&mut self) {
        while !(self.group.synced || self.group.full() || self.stopping) {
            let deadline = self.group.deadline.into_iter().chain(self.doubt.as_ref().map(|doubt| doubt.next_try)).min();
            let order = match deadline {
                None => self.taken.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => self.taken.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            match order {
                Ok(order) => self.accept(order),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
        }
        while !self.group.full() {
            let Ok(order) = self.taken.try_recv() else { break };
            self.accept(order);
        }
    }

    fn accept(&mut self, order: Order) {
        match order {
            Order::Commit(core, commit) => self.group.push(core, commit),
            Order::Stop => self.stopping = true,
        }
    }

    fn commit(&mut self, group: Group) {
        if group.commits.is_empty() {
            return;
        }
        let Group { cores, commits, bytes, .. } = group;
        if let Some(doubt) = &mut self.doubt {
            doubt.cores.extend(cores);
            doubt.commits.extend(commits);
            return;
        }
        match self.backend.apply(&commits) {
            Ok(sync_ns) => {
                if std::mem::take(&mut self.failing) {
                    tracing::warn!("the store works again");
                }
                self.counters.count(&commits, bytes, sync_ns);
                self.answer(&cores, &commits, &Ok(()));
            }
            Err(Failure::Refused(reason)) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("{} commits failed, and more may: {reason}", commits.len());
                }
                self.answer(&cores, &commits, &Err(reason));
            }
            Err(Failure::InDoubt(reason)) => {
                tracing::error!(
                    "{} commits are in doubt, and nothing can be stored until that is settled: {reason}",
                    commits.len()
                );
                self.doubt = Some(Doubt { cores, commits, reason, next_try: next_try() });
            }
        }
    }

    fn settle_doubt(&mut self) {
        let due = |doubt: &mut Doubt| self.stopping || Instant::now() >= doubt.next_try;
        let Some(mut doubt) = self.doubt.take_if(due) else { return };
        match self.backend.heal() {
            Ok(()) => {
                tracing::warn!("the disk works again: {} commits that were held back were not made", doubt.commits.len());
                self.answer(&doubt.cores, &doubt.commits, &Err(doubt.reason));
            }
            Err(reason) => {
                tracing::error!("{} commits wait for the disk: {reason}", doubt.commits.len());
                doubt.reason = reason;
                doubt.next_try = next_try();
                self.doubt = Some(doubt);
            }
        }
    }

    /// Tells each core what became of its commits, and rings once.
    fn answer(&mut self, cores: &[CoreId], commits: &[Commit], result: &Result<(), String>) {
        if result.is_err() {
            self.counters.failed.fetch_add(commits.len() as u64, Relaxed);
        }
        for (&core, commit) in cores.iter().zip(commits) {
            let load = &self.counters.loads[usize::from(core.0)];
            load.bytes.fetch_sub(commit.bytes(), Relaxed);
            if commit.durability == Durability::RideAlong {
                load.commits.fetch_sub(1, Relaxed);
                continue;
            }
            let bell = &mut self.bells[usize::from(core.0)];
            match bell.put.try_send(Completion { core, ticket: commit.ticket, result: result.clone() }) {
                Ok(()) => bell.rung = true,
                Err(std::sync::mpsc::TrySendError::Full(_)) => panic!("a core has at most PORT_COMMITS completions to take"),
                // The core has ended and does not ask any more.
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {}
            }
        }
        for bell in self.bells.iter_mut().filter(|bell| bell.rung) {
            bell.rung = false;
            (bell.wake)();
        }
    }
}

impl Counters {
    fn count(&self, commits: &[Commit], bytes: usize, sync_ns: u64) {
        self.commits.fetch_add(commits.len() as u64, Relaxed);
        self.transactions.fetch_add(1, Relaxed);
        self.rows.fetch_add(commits.iter().map(|commit| commit.writes.len() as u64).sum(), Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.sync_ns.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(sync_ns);
    }
}

fn next_try() -> Instant {
    Instant::now() + Duration::from_millis(HEAL_MS)
}
