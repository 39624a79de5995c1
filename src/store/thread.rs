//! The storage thread: takes commits from all cores, makes all that wait one transaction, and tells each core in order.
//!
//! Lives on: its own thread; a `Port` lives on its core. Serves J10, M3. The sync in progress is the time in which the next group
//! gathers: nothing waits on purpose, except ride-along commits. The hand-over is a bounded channel of the standard library and
//! not a lock-free ring: it's not on the presence path, and `try_send` never waits for room. Invariants: a core never has more than
//! `PORT_COMMITS` or `PORT_BYTES` under way, so neither channel can be full, nor more than `PORT_READS` rows asked for; completions
//! of a core come in the order of its commits; while a transaction is in doubt, its commits wait until it's settled, and later
//! ones that must be durable are refused; what a core reads is what it has handed over, or newer.

use super::shared::{Reply, Request};
use super::{Backend, Commit, Completion, Durability, Failure, Fetched, Health, Settled, Table};
use super::{GROUP_BYTES, GROUP_COMMITS, HEAL_MS, PORT_BYTES, PORT_COMMITS, PORT_READS, RIDE_ALONG_MS};
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
    Fetch(Fetch),
    Request(CoreId, Request),
    Stop,
}

/// A row that a core wants.
struct Fetch {
    core: CoreId,
    ticket: u64,
    table: Table,
    key: Vec<u8>,
}

/// What one core has under way.
#[derive(Default)]
struct Load {
    commits: AtomicUsize,
    bytes: AtomicUsize,
    reads: AtomicUsize,
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
    health: Mutex<Health>,
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
    /// The back end's own.
    pub health: Health,
}

/// A core's way to the storage thread.
pub struct Port {
    core: CoreId,
    orders: SyncSender<Order>,
    done: Receiver<Completion>,
    fetched: Receiver<Fetched>,
    replies: Receiver<Reply>,
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

    /// Asks for the value of a row, such as a user's last presence. Never waits; the answer comes by `take_fetched`.
    pub fn fetch(&self, ticket: u64, table: Table, key: Vec<u8>) -> Result<(), Reason> {
        let reads = &self.counters.loads[usize::from(self.core.0)].reads;
        if reads.load(Relaxed) >= PORT_READS {
            self.counters.refused.fetch_add(1, Relaxed);
            return Err(Reason::Overloaded);
        }
        reads.fetch_add(1, Relaxed);
        self.orders.try_send(Order::Fetch(Fetch { core: self.core, ticket, table, key })).map_err(|_| {
            reads.fetch_sub(1, Relaxed);
            Reason::StorageFailed
        })
    }

    /// Asks a store that is shared; the answer comes by `take_reply`, before the next question. False: the thread has ended.
    pub fn ask(&self, request: Request) -> bool {
        self.orders.try_send(Order::Request(self.core, request)).is_ok()
    }

    pub fn take_reply(&self) -> Option<Reply> {
        self.replies.try_recv().ok()
    }

    /// The next row that was asked for, if one has come. In the order in which they were asked for.
    pub fn take_fetched(&self) -> Option<Fetched> {
        let fetched = self.fetched.try_recv().ok()?;
        self.counters.loads[usize::from(self.core.0)].reads.fetch_sub(1, Relaxed);
        Some(fetched)
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
            health: Mutex::new(backend.health()),
        });
        let (orders, taken) = sync_channel(cores * (PORT_COMMITS + PORT_READS + 1) + 1);
        let (mut ports, mut bells) = (Vec::new(), Vec::new());
        for (core, wake) in (0..).map(CoreId).zip(wakes) {
            let (put, done) = sync_channel(PORT_COMMITS);
            let (give, fetched) = sync_channel(PORT_READS);
            let (reply, replies) = sync_channel(1);
            bells.push(Bell { put, give, reply, wake, rung: false });
            ports.push(Port { core, orders: orders.clone(), done, fetched, replies, counters: counters.clone() });
        }
        let worker = Worker {
            backend,
            taken,
            bells,
            counters: counters.clone(),
            group: Group::default(),
            fetches: Vec::new(),
            requests: Vec::new(),
            tend_at: Some(Instant::now()),
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
            health: *counters.health.lock().unwrap_or_else(PoisonError::into_inner),
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

    /// Whether there is a reason to make it a transaction now.
    fn is_due(&self) -> bool {
        self.synced || self.full() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Where the completions of a core go, and the rows it asked for.
struct Bell {
    put: SyncSender<Completion>,
    give: SyncSender<Fetched>,
    reply: SyncSender<Reply>,
    wake: Wake,
    rung: bool,
}

/// A transaction whose fate the disk did not tell: its commits are answered once it's settled.
struct Doubt {
    cores: Vec<CoreId>,
    commits: Vec<Commit>,
    /// Ride-along commits that came since. No more than `PORT_COMMITS` of each core.
    late: Group,
    reason: String,
    next_try: Instant,
}

struct Worker {
    backend: Box<dyn Backend>,
    taken: Receiver<Order>,
    bells: Vec<Bell>,
    counters: Arc<Counters>,
    group: Group,
    fetches: Vec<Fetch>,
    requests: Vec<(CoreId, Request)>,
    /// When the back end wants to be called.
    tend_at: Option<Instant>,
    doubt: Option<Doubt>,
    /// Whether the last transaction failed: it's said once, not for each.
    failing: bool,
    stopping: bool,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.gather();
            let due = self.stopping || self.group.is_due() || !self.requests.is_empty();
            let group = if due { std::mem::take(&mut self.group) } else { Group::default() };
            let drained = group.commits.is_empty() && self.stopping;
            self.commit(group);
            self.settle_doubt();
            self.answer_fetches();
            self.answer_requests();
            self.tend();
            if drained {
                break;
            }
        }
        self.backend.close();
        if let Some(doubt) = &self.doubt {
            tracing::error!("{}: {} commits stay in doubt until the next start", doubt.reason, doubt.commits.len());
        }
    }

    /// Fills the group: waits for a reason to make a transaction, then takes all that waits.
    fn gather(&mut self) {
        while !(self.group.synced || self.group.full() || self.stopping || !self.fetches.is_empty() || !self.requests.is_empty()) {
            let next_try = self.doubt.as_ref().map(|doubt| doubt.next_try);
            let deadline = self.group.deadline.into_iter().chain(next_try.or(self.tend_at)).min();
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
            Order::Fetch(fetch) => self.fetches.push(fetch),
            Order::Request(core, request) => self.requests.push((core, request)),
            Order::Stop => self.stopping = true,
        }
    }

    fn commit(&mut self, group: Group) {
        if group.commits.is_empty() {
            return;
        }
        let Group { cores, commits, bytes, .. } = group;
        if self.doubt.is_some() {
            return self.hold_off(cores, commits);
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
                self.doubt = Some(Doubt { cores, commits, late: Group::default(), reason, next_try: next_try() });
            }
        }
    }

    /// While a transaction is in doubt: refuses what must be durable, and keeps the rest for later.
    fn hold_off(&mut self, cores: Vec<CoreId>, commits: Vec<Commit>) {
        let Some(doubt) = &mut self.doubt else { return };
        let (mut whose, mut refused) = (Vec::new(), Vec::new());
        for (core, commit) in cores.into_iter().zip(commits) {
            match commit.durability {
                Durability::RideAlong => doubt.late.push(core, commit),
                Durability::Synced => {
                    whose.push(core);
                    refused.push(commit);
                }
            }
        }
        let reason = doubt.reason.clone();
        self.answer(&whose, &refused, &Err(reason));
    }

    fn settle_doubt(&mut self) {
        let due = |doubt: &mut Doubt| self.stopping || Instant::now() >= doubt.next_try;
        let Some(mut doubt) = self.doubt.take_if(due) else { return };
        match self.backend.heal() {
            Ok(settled) => {
                let (word, result) = match settled {
                    Settled::Made => ("had been made", Ok(())),
                    Settled::NotMade => ("were not made", Err(doubt.reason)),
                };
                tracing::warn!("the store works again: {} commits that were in doubt {word}", doubt.commits.len());
                self.answer(&doubt.cores, &doubt.commits, &result);
                self.commit(doubt.late);
            }
            Err(reason) => {
                if doubt.reason != reason {
                    tracing::error!("{} commits stay in doubt: {reason}", doubt.commits.len());
                }
                doubt.reason = reason;
                doubt.next_try = next_try();
                self.doubt = Some(doubt);
            }
        }
    }

    /// A ride-along commit that waits is newer than what the back end has.
    fn answer_fetches(&mut self) {
        for Fetch { core, ticket, table, key } in std::mem::take(&mut self.fetches) {
            let late = self.doubt.iter().flat_map(|doubt| &doubt.late.commits);
            let mut writes = late.chain(&self.group.commits).flat_map(|commit| &commit.writes);
            let result = match writes.rfind(|write| write.table == table && write.key == key) {
                Some(write) => Ok(write.value.clone()),
                None => self.backend.fetch(table, &key),
            };
            let bell = &mut self.bells[usize::from(core.0)];
            match bell.give.try_send(Fetched { ticket, result }) {
                Ok(()) => bell.rung = true,
                Err(std::sync::mpsc::TrySendError::Full(_)) => panic!("a core has at most PORT_READS rows to take"),
                // The core has ended and does not ask any more.
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {}
            }
        }
        self.ring();
    }

    /// What was handed over before has been written, or will not be.
    fn answer_requests(&mut self) {
        for (core, request) in std::mem::take(&mut self.requests) {
            let reply = match request {
                Request::Confirm => Reply::Confirmed(self.backend.confirm()),
                Request::Take { slots, anew, force } => Reply::Taken(self.take_slots(&slots, anew, force)),
                Request::Give { slots } => Reply::Given(self.backend.give_slots(&slots)),
                Request::Page { table, from, last } => Reply::Page(self.backend.page(table, &from, last)),
            };
            let bell = &mut self.bells[usize::from(core.0)];
            // Whoever asks twice before it has taken the first answer has ended.
            bell.rung |= bell.reply.try_send(reply).is_ok();
        }
        self.ring();
    }

    fn take_slots(&mut self, slots: &[u16], anew: bool, force: bool) -> Result<Option<(u32, bool)>, String> {
        if let Some(Doubt { cores, commits, late, reason, .. }) = self.doubt.take_if(|_| anew) {
            // Whoever waited for these has gone, and whether they were made shows when the slots are read.
            self.answer(&cores, &commits, &Err(reason.clone()));
            self.answer(&late.cores, &late.commits, &Err(reason));
        }
        match &self.doubt {
            Some(doubt) => Err(doubt.reason.clone()),
            None => self.backend.take_slots(slots, anew, force),
        }
    }

    /// Lets the back end do what is due by itself. A transaction in doubt comes first.
    fn tend(&mut self) {
        if self.doubt.is_none() && self.tend_at.is_some_and(|at| Instant::now() >= at) {
            self.tend_at = self.backend.tend().map(|wait| Instant::now() + wait);
        }
        *self.counters.health.lock().unwrap_or_else(PoisonError::into_inner) = self.backend.health();
    }

    fn ring(&mut self) {
        for bell in self.bells.iter_mut().filter(|bell| bell.rung) {
            bell.rung = false;
            (bell.wake)();
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
        self.ring();
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
