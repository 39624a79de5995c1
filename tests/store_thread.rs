//! The storage thread (J10, M3): group commit, order, limits, ride-along commits, failures. The back end is memory behind a
//! gate, so that each test decides when a transaction ends.
#![cfg(feature = "runtime")]

use fanal::base::id::CoreId;
use fanal::base::reason::Reason;
use fanal::store::memory::{Fault, Memory};
use fanal::store::thread::{Figures, Port, StorageThread, Wake};
use fanal::store::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Far longer than anything here takes; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A back end that tells of each transaction and waits until it may go on.
struct Gated {
    memory: Arc<Mutex<Memory>>,
    began: Sender<Vec<u64>>,
    go_on: Receiver<()>,
    ended: Sender<()>,
}

impl Backend for Gated {
    fn apply(&mut self, commits: &[Commit]) -> Result<u64, Failure> {
        self.began.send(commits.iter().map(|commit| commit.ticket).collect()).expect("the test listens");
        self.go_on.recv_timeout(PATIENCE).expect("the test opens the gate");
        let result = self.memory.lock().unwrap().apply(commits);
        self.ended.send(()).expect("the test listens");
        result
    }

    fn heal(&mut self) -> Result<Settled, String> {
        self.memory.lock().unwrap().heal()
    }

    fn fetch(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.memory.lock().unwrap().fetch(table, key)
    }

    fn load(&self, table: Table, row: &mut RowFn<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<(), String> {
        self.memory.lock().unwrap().load(table, row, progress)
    }
}

struct Rig {
    thread: Option<StorageThread>,
    ports: Vec<Port>,
    memory: Arc<Mutex<Memory>>,
    began: Receiver<Vec<u64>>,
    go_on: Sender<()>,
    ended: Receiver<()>,
    woken: Receiver<CoreId>,
}

impl Rig {
    fn new(cores: u16) -> Rig {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let (began_out, began) = channel();
        let (go_on, gate) = channel();
        let (ended_out, ended) = channel();
        let (wake_out, woken) = channel();
        let wake = |core| -> Wake {
            let out = wake_out.clone();
            Box::new(move || out.send(CoreId(core)).unwrap_or_default())
        };
        let gated = Box::new(Gated { memory: memory.clone(), began: began_out, go_on: gate, ended: ended_out });
        let (thread, ports) = StorageThread::start(gated, (0..cores).map(wake).collect()).unwrap();
        Rig { thread: Some(thread), ports, memory, began, go_on, ended, woken }
    }

    fn figures(&self) -> Figures {
        self.thread.as_ref().expect("it runs").readings().figures()
    }

    fn stop(&mut self) {
        self.thread.take().expect("it runs").stop();
    }

    fn began(&self) -> Vec<u64> {
        self.began.recv_timeout(PATIENCE).expect("a transaction begins")
    }

    fn go_on(&self) {
        self.go_on.send(()).unwrap();
    }

    fn woken(&self) -> CoreId {
        self.woken.recv_timeout(PATIENCE).expect("a core is woken")
    }

    fn tickets(&self, core: usize) -> Vec<u64> {
        std::iter::from_fn(|| self.ports[core].take()).map(|completion| completion.ticket).collect()
    }
}

fn commit(ticket: u64, durability: Durability) -> Commit {
    let write = Write { table: Table::Roster, key: ticket.to_be_bytes().to_vec(), value: Some(vec![1]) };
    Commit { ticket, writes: vec![write], durability }
}

fn synced(ticket: u64) -> Commit {
    commit(ticket, Durability::Synced)
}

#[test]
fn commits_that_wait_together_are_one_transaction_and_come_back_in_order() {
    let mut rig = Rig::new(2);
    rig.ports[0].hand_over(synced(0)).unwrap();
    assert_eq!(rig.began(), [0]);
    for ticket in 1..=1000 {
        rig.ports[0].hand_over(synced(ticket)).unwrap();
        rig.ports[1].hand_over(synced(10_000 + ticket)).unwrap();
    }
    assert_eq!(rig.figures().waiting, 2001);
    rig.go_on();
    assert_eq!(rig.woken(), CoreId(0));
    assert_eq!(rig.began().len(), 2000);
    rig.go_on();
    assert_eq!((rig.woken(), rig.woken()), (CoreId(0), CoreId(1)));
    assert_eq!(rig.tickets(0), (0..=1000).collect::<Vec<_>>());
    assert_eq!(rig.tickets(1), (10_001..=11_000).collect::<Vec<_>>());
    let figures = rig.figures();
    assert_eq!((figures.commits, figures.transactions, figures.rows, figures.bytes, figures.waiting), (2001, 2, 2001, 2001 * 9, 0));
    assert_eq!(rig.thread.as_ref().unwrap().readings().sync_times().len(), 2);
    rig.stop();
    assert!(rig.woken.try_recv().is_err(), "each core is woken once per transaction");
}

#[test]
fn a_group_ends_at_its_limit() {
    let mut rig = Rig::new(2);
    rig.ports[0].hand_over(synced(0)).unwrap();
    assert_eq!(rig.began(), [0]);
    for ticket in 1..PORT_COMMITS as u64 {
        rig.ports[0].hand_over(synced(ticket)).unwrap();
    }
    for ticket in 0..PORT_COMMITS as u64 {
        rig.ports[1].hand_over(synced(ticket)).unwrap();
    }
    rig.go_on();
    assert_eq!(rig.began().len(), GROUP_COMMITS);
    rig.go_on();
    assert_eq!(rig.began().len(), 2 * PORT_COMMITS - 1 - GROUP_COMMITS);
    rig.go_on();
    rig.stop();
}

#[test]
fn a_core_that_has_too_much_under_way_is_refused_and_never_waits() {
    let mut rig = Rig::new(2);
    rig.ports[0].hand_over(synced(0)).unwrap();
    rig.began();
    for ticket in 1..PORT_COMMITS as u64 {
        rig.ports[0].hand_over(synced(ticket)).unwrap();
    }
    let refused = rig.ports[0].hand_over(synced(77)).unwrap_err();
    assert_eq!((refused.commit, refused.reason), (synced(77), Reason::Overloaded));
    rig.ports[1].hand_over(synced(1)).expect("another core has room of its own");
    rig.go_on();
    rig.woken();
    assert_eq!(rig.ports[0].take().map(|completion| completion.ticket), Some(0));
    rig.ports[0].hand_over(synced(77)).expect("a completion was taken");
    assert_eq!(rig.figures().refused, 1);
    rig.began();
    rig.go_on();
    // The last one is in the second group or in a third.
    rig.go_on();
    rig.stop();
    assert_eq!(rig.tickets(0), (1..PORT_COMMITS as u64).chain([77]).collect::<Vec<_>>());
}

#[test]
fn a_core_that_has_too_many_bytes_under_way_is_refused() {
    let mut rig = Rig::new(1);
    let large = |ticket, bytes| {
        let write = Write { table: Table::Roster, key: vec![], value: Some(vec![0; bytes]) };
        Commit { ticket, writes: vec![write], durability: Durability::Synced }
    };
    rig.ports[0].hand_over(large(0, PORT_BYTES + 1)).expect("a large one passes alone");
    rig.began();
    assert_eq!(rig.ports[0].hand_over(large(1, 1)).unwrap_err().reason, Reason::Overloaded);
    rig.go_on();
    rig.woken();
    rig.ports[0].hand_over(large(1, 1)).unwrap();
    rig.go_on();
    rig.stop();
    assert_eq!(rig.tickets(0), [0, 1]);
}

#[test]
fn a_ride_along_commit_goes_with_the_next_synced_one_and_has_no_completion() {
    let mut rig = Rig::new(1);
    rig.ports[0].hand_over(synced(0)).unwrap();
    rig.began();
    rig.ports[0].hand_over(commit(1, Durability::RideAlong)).unwrap();
    rig.ports[0].hand_over(synced(2)).unwrap();
    rig.go_on();
    assert_eq!(rig.began(), [1, 2]);
    rig.go_on();
    rig.stop();
    assert_eq!(rig.tickets(0), [0, 2]);
}

#[test]
fn a_ride_along_commit_does_not_wait_for_ever() {
    let mut rig = Rig::new(1);
    rig.ports[0].hand_over(commit(1, Durability::RideAlong)).unwrap();
    assert_eq!(rig.began(), [1]);
    rig.go_on();
    rig.stop();
    assert!(rig.tickets(0).is_empty());
}

#[test]
fn stop_makes_everything_durable_first() {
    let mut rig = Rig::new(1);
    for ticket in 0..100 {
        rig.ports[0].hand_over(synced(ticket)).unwrap();
    }
    rig.ports[0].hand_over(commit(100, Durability::RideAlong)).unwrap();
    // However the thread groups them, there are no more transactions than commits.
    (0..101).for_each(|_| rig.go_on());
    rig.stop();
    assert_eq!(rig.tickets(0), (0..100).collect::<Vec<_>>());
    assert_eq!(rig.memory.lock().unwrap().rows(Table::Roster).count(), 101);
    assert_eq!(rig.ports[0].hand_over(synced(101)).unwrap_err().reason, Reason::StorageFailed);
}

#[test]
fn a_failed_transaction_fails_each_of_its_commits_and_the_next_one_is_made() {
    let mut rig = Rig::new(1);
    rig.memory.lock().unwrap().fault = Fault::Refuse("no space".into());
    rig.ports[0].hand_over(synced(0)).unwrap();
    rig.began();
    rig.ports[0].hand_over(synced(1)).unwrap();
    rig.ports[0].hand_over(synced(2)).unwrap();
    rig.go_on();
    assert_eq!(rig.began(), [1, 2]);
    rig.go_on();
    assert_eq!((rig.woken(), rig.woken()), (CoreId(0), CoreId(0)));
    for ticket in 0..3 {
        assert_eq!(rig.ports[0].take(), Some(Completion { core: CoreId(0), ticket, result: Err("no space".into()) }));
    }
    assert_eq!((rig.figures().failed, rig.figures().commits), (3, 0));
    rig.memory.lock().unwrap().fault = Fault::None;
    rig.ports[0].hand_over(synced(3)).unwrap();
    rig.began();
    rig.go_on();
    rig.woken();
    assert_eq!(rig.ports[0].take(), Some(Completion { core: CoreId(0), ticket: 3, result: Ok(()) }));
    rig.stop();
    assert_eq!(rig.memory.lock().unwrap().rows(Table::Roster).count(), 1);
}

#[test]
fn a_transaction_in_doubt_is_answered_once_it_is_settled() {
    let mut rig = Rig::new(1);
    rig.memory.lock().unwrap().fault = Fault::Doubt("the disk is gone".into());
    rig.ports[0].hand_over(synced(0)).unwrap();
    rig.began();
    rig.ports[0].hand_over(synced(1)).unwrap();
    rig.go_on();
    rig.ended.recv_timeout(PATIENCE).unwrap();
    rig.woken();
    assert_eq!(rig.tickets(0), [1], "the one behind it is refused at once");
    rig.memory.lock().unwrap().fault = Fault::None;
    // Stopping settles what is left.
    rig.stop();
    let results: Vec<_> = std::iter::from_fn(|| rig.ports[0].take()).map(|done| (done.ticket, done.result)).collect();
    let failed = |ticket| (ticket, Err("the disk is gone".to_owned()));
    assert_eq!(results, [failed(0)]);
    assert_eq!(rig.memory.lock().unwrap().rows(Table::Roster).count(), 0);
}

#[test]
fn while_a_transaction_is_in_doubt_what_must_be_durable_is_refused_and_what_may_be_late_is_kept() {
    let mut rig = Rig::new(1);
    rig.memory.lock().unwrap().fault = Fault::Doubt("the disk is gone".into());
    rig.ports[0].hand_over(synced(0)).unwrap();
    rig.began();
    rig.go_on();
    rig.ended.recv_timeout(PATIENCE).unwrap();
    rig.ports[0].hand_over(commit(1, Durability::RideAlong)).unwrap();
    rig.ports[0].hand_over(synced(2)).unwrap();
    rig.woken();
    assert_eq!(rig.tickets(0), [2], "nobody waits behind it");
    rig.ports[0].fetch(7, Table::Roster, 1u64.to_be_bytes().to_vec()).unwrap();
    rig.woken();
    assert_eq!(rig.ports[0].take_fetched(), Some(Fetched { ticket: 7, result: Ok(Some(vec![1])) }));
    rig.memory.lock().unwrap().fault = Fault::None;
    rig.go_on();
    rig.woken();
    assert_eq!(rig.tickets(0), [0]);
    rig.stop();
    assert_eq!(rig.memory.lock().unwrap().rows(Table::Roster).count(), 1, "the one that was late");
}

#[test]
fn m5_a_core_reads_what_it_has_handed_over_or_newer() {
    let mut rig = Rig::new(2);
    rig.ports[0].hand_over(synced(0)).unwrap();
    rig.began();
    for (ticket, key) in [(10, 0u64), (11, 1), (12, 2)] {
        rig.ports[0].fetch(ticket, Table::Roster, key.to_be_bytes().to_vec()).unwrap();
    }
    rig.ports[0].hand_over(commit(1, Durability::RideAlong)).unwrap();
    rig.ports[1].fetch(20, Table::Roster, 0u64.to_be_bytes().to_vec()).unwrap();
    rig.go_on();
    let found = |ticket| Some(Fetched { ticket, result: Ok(Some(vec![1])) });
    for core in 0..2 {
        while rig.woken() != CoreId(core) {}
    }
    assert_eq!((rig.ports[0].take_fetched(), rig.ports[0].take_fetched()), (found(10), found(11)));
    assert_eq!(rig.ports[0].take_fetched(), Some(Fetched { ticket: 12, result: Ok(None) }));
    assert_eq!(rig.ports[1].take_fetched(), found(20));
    rig.go_on();
    rig.stop();
}

#[test]
fn a_core_that_has_asked_for_too_much_is_refused() {
    let mut rig = Rig::new(1);
    rig.ports[0].hand_over(synced(0)).unwrap();
    rig.began();
    for ticket in 0..PORT_READS as u64 {
        rig.ports[0].fetch(ticket, Table::Roster, vec![]).unwrap();
    }
    assert_eq!(rig.ports[0].fetch(0, Table::Roster, vec![]), Err(Reason::Overloaded));
    rig.go_on();
    while rig.ports[0].take_fetched().is_none() {
        rig.woken();
    }
    rig.ports[0].fetch(0, Table::Roster, vec![]).expect("one was taken");
    rig.stop();
}
