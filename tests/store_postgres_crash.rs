//! PostgreSQL under kill -9 while it is written to (J10, M3): what was acknowledged is there afterwards, what was refused is not.
//! A server of this file's own, which syncs what it commits.
#![cfg(feature = "runtime")]

mod support;

use fanal::store::postgres::{PostgresStore, Settings, Target, Writer};
use fanal::store::thread::{Port, StorageThread, Wake};
use fanal::store::*;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use support::postgres::{Server, query};

const PATIENT: Duration = Duration::from_secs(60);
/// Commits under way at once.
const WINDOW: u64 = 64;

struct Load {
    port: Port,
    woken: Receiver<()>,
    next: u64,
    answered: BTreeMap<u64, Result<(), String>>,
}

impl Load {
    /// Hands over commits and takes answers until so many have come.
    fn until(&mut self, answers: usize) {
        while self.answered.len() < answers {
            while self.next - (self.answered.len() as u64) < WINDOW {
                let key = format!("user{}@x", self.next).into_bytes();
                let write = Write { table: Table::Accounts, key, value: Some(self.next.to_string().into_bytes()) };
                self.port.hand_over(Commit { ticket: self.next, writes: vec![write], durability: Durability::Synced }).unwrap();
                self.next += 1;
            }
            self.woken.recv_timeout(PATIENT).expect("answers come");
            self.take();
        }
    }

    /// Goes on until the store has its server, again: the connection comes back by itself.
    fn until_up(&mut self, thread: &StorageThread) {
        while !thread.readings().figures().health.up {
            self.until(self.answered.len() + 1);
        }
    }

    fn take(&mut self) {
        while let Some(completion) = self.port.take() {
            self.answered.insert(completion.ticket, completion.result);
        }
    }
}

#[test]
fn a_killed_server_loses_nothing_acknowledged_and_shows_nothing_refused() {
    let Some(server) = Server::start("") else { return };
    let url = server.new_url();
    let settings = Settings {
        target: Target::parse(&url).unwrap(),
        writer: Writer { cluster: 0, node: 1 },
        // Longer than a restart, so that many wait for it; and shorter, so that many are refused.
        patience: Duration::from_millis(3_000),
        seed: 1,
    };
    let mut store = PostgresStore::open(settings, None).unwrap();
    store.begin_epoch().unwrap();
    let (wake, woken) = channel();
    let wakes: Vec<Wake> = vec![Box::new(move || wake.send(()).unwrap_or_default())];
    let (thread, mut ports) = StorageThread::start(Box::new(store), wakes).unwrap();
    let mut load = Load { port: ports.remove(0), woken, next: 0, answered: BTreeMap::new() };
    for round in 1..=4 {
        // On a busy machine a restart may take longer than the patience: what is killed is a server that the store has back.
        load.until_up(&thread);
        load.until(load.answered.len() + 2_000);
        server.kill();
        if round == 4 {
            // Long enough that the thread gives up and refuses.
            while load.answered.values().all(Result::is_ok) {
                load.until(load.answered.len() + 1);
            }
        }
        server.run();
    }
    load.until_up(&thread);
    load.until(load.answered.len() + 1_000);
    let figures = thread.readings().figures();
    assert!(figures.health.losses >= 4, "{figures:?}");
    thread.stop();
    load.take();
    assert_eq!(load.answered.len() as u64, load.next, "every commit is answered");
    let rows = query(&url, "SELECT convert_from(owner, 'UTF8'), convert_from(value, 'UTF8') FROM fanal_accounts").unwrap();
    let found: BTreeMap<String, String> = rows.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect();
    let refused = load.answered.values().filter(|result| result.is_err()).count();
    assert!(refused > 0 && refused < load.answered.len(), "{refused}");
    for (ticket, result) in &load.answered {
        let there = found.get(&format!("user{ticket}@x"));
        match result {
            Ok(()) => assert_eq!(there, Some(&ticket.to_string()), "acknowledged and lost"),
            Err(why) => assert_eq!(there, None, "refused and there: {why}"),
        }
    }
}
