//! kill -9 (issue 2, point 6): a real process on a real disk is killed at any moment, again and again on the same directory.
//! What it acknowledged is there, whole; of what it had not acknowledged there is all or nothing.
//!
//! `FANAL_STORE_KILLS` sets how often (default 20).
#![cfg(feature = "runtime")]

use fanal::store::dir::DataDir;
use fanal::store::redb::RedbStore;
use fanal::store::thread::{Port, StorageThread, Wake};
use fanal::store::{Backend, Commit, Durability, Table, Write};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

const CHILD_DIR: &str = "FANAL_STORE_CHILD_DIR";
const CORES: u16 = 2;
/// Tables that each commit writes one row to.
const TABLES: [Table; 3] = [Table::Roster, Table::Requests, Table::Ways];
/// Commits a core of the child has under way.
const WINDOW: u64 = 20;

fn key(core: u16, ticket: u64) -> Vec<u8> {
    [core.to_be_bytes().as_slice(), &ticket.to_be_bytes()].concat()
}

fn commit(core: u16, ticket: u64) -> Commit {
    let row = |table| Write { table, key: key(core, ticket), value: Some(vec![table as u8; 1 + (ticket % 500) as usize]) };
    Commit { ticket, writes: TABLES.into_iter().map(row).collect(), durability: Durability::Synced }
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open(DataDir::take_or_create(path).expect("nobody else is there")).expect("the file is whole")
}

/// The tickets of each core in the store; every one must be there in all tables.
fn tickets(store: &RedbStore) -> Vec<Vec<u64>> {
    let mut found = BTreeMap::<Vec<u8>, usize>::new();
    for table in TABLES {
        let mut take = |key: &[u8], value: &[u8]| {
            assert!(value.iter().all(|&byte| byte == table as u8), "a row of another table");
            *found.entry(key.to_vec()).or_default() += 1;
            Ok(())
        };
        store.load(table, &mut take, &mut |_, _| ()).unwrap();
    }
    let mut tickets = vec![Vec::new(); CORES.into()];
    for (key, count) in found {
        assert_eq!(count, TABLES.len(), "commit {key:?} is half there");
        let (core, ticket) = key.split_at(2);
        tickets[usize::from(u16::from_be_bytes(core.try_into().unwrap()))].push(u64::from_be_bytes(ticket.try_into().unwrap()));
    }
    tickets
}

/// The child: commits as fast as the store takes them, and prints each ticket once it's acknowledged. Ends only by being killed.
fn child(path: &Path) -> ! {
    let store = open(path);
    let mut next: Vec<u64> = tickets(&store).iter().map(|tickets| tickets.len() as u64).collect();
    let (rung, bell) = channel();
    let wake = |core: u16| -> Wake {
        let rung = rung.clone();
        Box::new(move || rung.send(core).expect("the child listens"))
    };
    let (_thread, ports) = StorageThread::start(Box::new(store), (0..CORES).map(wake).collect()).unwrap();
    let mut hand_over = |port: &Port, core: u16| {
        let ticket = next[usize::from(core)];
        next[usize::from(core)] += 1;
        port.hand_over(commit(core, ticket)).expect("the window is smaller than the limit");
    };
    for core in 0..CORES {
        (0..WINDOW).for_each(|_| hand_over(&ports[usize::from(core)], core));
    }
    let mut out = std::io::stdout();
    loop {
        let core = bell.recv().expect("the thread runs");
        let port = &ports[usize::from(core)];
        while let Some(done) = port.take() {
            done.result.expect("the disk works");
            let line = format!("\nacknowledged {core} {}\n", done.ticket);
            out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
            hand_over(port, core);
        }
    }
}

/// Starts a child, kills it once it has acknowledged so many commits, and returns for each core how many it acknowledged in all.
fn kill_after(path: &Path, acknowledgements: usize, acknowledged: &mut [u64]) {
    let name = "what_was_acknowledged_survives_kill_9";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD_DIR, path).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = 0;
    // What the child still said before it died counts, too.
    for line in lines {
        let line = line.unwrap();
        let Some(ticket) = line.strip_prefix("acknowledged ") else { continue };
        let Some((core, ticket)) = ticket.split_once(' ') else { continue };
        let (core, ticket): (usize, u64) = (core.parse().unwrap(), ticket.parse().unwrap());
        assert_eq!(ticket, acknowledged[core], "completions come in order");
        acknowledged[core] += 1;
        seen += 1;
        if seen == acknowledgements {
            child.kill().unwrap();
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen >= acknowledgements, "the child ended by itself after {seen} commits");
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(path) = std::env::var_os(CHILD_DIR) {
        child(Path::new(&path));
    }
    let kills = std::env::var("FANAL_STORE_KILLS").map_or(20, |kills| kills.parse().expect("FANAL_STORE_KILLS is a number"));
    let temp = tempfile::tempdir().unwrap();
    let mut acknowledged = vec![0; CORES.into()];
    for kill in 0..kills {
        // Spread over the groups, without a pattern; the kernel's timing does the rest.
        kill_after(temp.path(), 1 + kill * 7919 % 400, &mut acknowledged);
        for (core, tickets) in tickets(&open(temp.path())).into_iter().enumerate() {
            let there = tickets.len() as u64;
            assert!(tickets.into_iter().eq(0..there), "core {core}: a commit is missing before a later one");
            assert!(there >= acknowledged[core], "core {core}: {} acknowledged, {there} there", acknowledged[core]);
            assert!(there <= acknowledged[core] + WINDOW, "core {core}: more than was under way");
            acknowledged[core] = there;
        }
    }
}
