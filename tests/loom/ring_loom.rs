//! Every interleaving of the ring, the doorbell and a mesh of two cores, as loom enumerates them under the C11 memory model (G3).
//!
//! Run by `cargo test --package fanal-loom`. The programs are so small that all of their interleavings are explored, with no
//! bound on preemptions, in half a minute.
//!
//! That loom sees through this code was tried by breaking it, one line at a time:
//! - `Producer::try_push` stores the tail `Relaxed`: "Causality violation: Concurrent write accesses" in the ring tests;
//! - `Consumer::pop` stores the head `Relaxed`: the same, once a slot is used again;
//! - no fence in `Sleeper::announce`, or none in `Doorbell::published` (`before_looking`): "deadlock" in the wake-up tests,
//!   which is the lost wake-up;
//! - the flag is loaded and stored instead of swapped: two rings for one sleep.

use fanal_loom::base::id::CoreId;
use fanal_loom::ring::doorbell::{Bell, doorbell};
use fanal_loom::ring::exchange::Batch;
use fanal_loom::ring::mesh::mesh;
use fanal_loom::ring::spsc::ring;
use loom::sync::{Arc, Notify, atomic::AtomicUsize, atomic::Ordering};
use loom::thread;

/// Loom calls a program that can't go on a deadlock: that is how a lost wake-up shows. A ring that comes too early is kept.
struct ModelBell {
    wake: Notify,
    rings: AtomicUsize,
}

impl ModelBell {
    fn new() -> std::sync::Arc<ModelBell> {
        std::sync::Arc::new(ModelBell { wake: Notify::new(), rings: AtomicUsize::new(0) })
    }

    fn rings(&self) -> usize {
        self.rings.load(Ordering::Relaxed)
    }
}

impl Bell for ModelBell {
    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.wake.notify();
    }
}

#[derive(Default)]
struct Numbers(Vec<u32>);

impl Batch for Numbers {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn clear(&mut self) {
        self.0.clear()
    }
}

#[test]
fn items_come_out_once_and_in_order_while_both_ends_work() {
    loom::model(|| {
        let (mut tx, mut rx) = ring(2);
        let producer = thread::spawn(move || {
            for n in 0..3u32 {
                let mut item = Box::new(n);
                while let Err(back) = tx.try_push(item) {
                    item = back;
                    thread::yield_now();
                }
            }
        });
        for n in 0..3u32 {
            let item = loop {
                match rx.pop() {
                    Some(item) => break item,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*item, n);
        }
        assert!(rx.pop().is_none());
        producer.join().unwrap();
    });
}

#[test]
fn a_slot_is_used_again_only_when_its_item_is_out() {
    loom::model(|| {
        let (mut tx, mut rx) = ring(1);
        let producer = thread::spawn(move || (0..3u32).filter(|&n| tx.try_push(Box::new(n)).is_ok()).collect::<Vec<_>>());
        let mut got: Vec<u32> = (0..3).filter_map(|_| rx.pop()).map(|item| *item).collect();
        let sent = producer.join().unwrap();
        got.extend(std::iter::from_fn(|| rx.pop()).map(|item| *item));
        assert_eq!(got, sent);
    });
}

#[test]
fn what_each_end_is_told_of_the_fill_is_never_wrong_in_its_own_disfavour() {
    loom::model(|| {
        let (mut tx, mut rx) = ring(2);
        let producer = thread::spawn(move || {
            for n in 0..2u32 {
                assert!(!tx.is_full(), "two items fit");
                tx.try_push(n).unwrap();
            }
        });
        if !rx.is_empty() {
            assert_eq!(rx.pop(), Some(0), "an item that was seen can be taken");
        }
        producer.join().unwrap();
    });
}

#[test]
fn items_left_behind_are_dropped_once_whichever_end_goes_last() {
    loom::model(|| {
        let item = Arc::new(());
        let (mut tx, mut rx) = ring(2);
        let mine = item.clone();
        let producer = thread::spawn(move || {
            tx.try_push(mine.clone()).unwrap();
            tx.try_push(mine).unwrap();
        });
        drop(rx.pop());
        drop(rx);
        producer.join().unwrap();
        assert_eq!(Arc::strong_count(&item), 1);
    });
}

#[test]
fn a_core_that_announced_looked_again_and_slept_is_woken() {
    loom::model(|| {
        let bell = ModelBell::new();
        let (door, mut sleeper) = doorbell(bell.clone());
        let (mut tx, mut rx) = ring(2);
        let producer = thread::spawn(move || {
            tx.try_push(1u32).unwrap();
            door.published();
            tx.try_push(2).unwrap();
            door.published();
        });
        let (mut got, mut sleeps) = (0, 0);
        while got < 2 {
            while rx.pop().is_some() {
                got += 1;
            }
            if got < 2 {
                sleeper.announce();
                sleeps += 1;
                if rx.is_empty() {
                    bell.wake.wait();
                }
                sleeper.awake();
            }
        }
        producer.join().unwrap();
        assert!(bell.rings() <= sleeps);
    });
}

#[test]
fn two_publishers_ring_a_sleeping_core_once() {
    loom::model(|| {
        let bell = ModelBell::new();
        let (door, mut sleeper) = doorbell(bell.clone());
        sleeper.announce();
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let door = door.clone();
                thread::spawn(move || door.published())
            })
            .collect();
        let rang = publishers.into_iter().map(|publisher| publisher.join().unwrap()).filter(|&rang| rang).count();
        assert_eq!((rang, bell.rings()), (1, 1));
        bell.wake.wait();
    });
}

#[test]
fn two_cores_that_publish_to_each_other_and_sleep_both_get_everything() {
    loom::model(|| {
        let bells = [ModelBell::new(), ModelBell::new()];
        let as_bells = bells.iter().map(|bell| bell.clone() as std::sync::Arc<dyn Bell>).collect();
        let mut ports = mesh::<Numbers>(1, as_bells).into_iter();
        let run = |mut ports: fanal_loom::ring::mesh::Ports<Numbers>, bell: std::sync::Arc<ModelBell>| {
            let other = CoreId(1 - ports.core.0);
            ports.batch(other).0.push(7);
            ports.publish_all();
            let mut got = 0;
            while got == 0 {
                ports.receive(1, |_, batch| got += batch.0[0]);
                if got == 0 {
                    ports.sleeper.announce();
                    if ports.is_empty() {
                        bell.wake.wait();
                    }
                    ports.sleeper.awake();
                }
            }
            assert_eq!((got, ports.counts.batches), (7, 1));
        };
        let (first, second) = (ports.next().unwrap(), ports.next().unwrap());
        let bell = bells[1].clone();
        let core = thread::spawn(move || run(second, bell));
        run(first, bells[0].clone());
        core.join().unwrap();
    });
}

#[test]
fn memory_goes_round_between_two_cores() {
    loom::model(|| {
        let bells = (0..2).map(|_| ModelBell::new() as std::sync::Arc<dyn Bell>).collect();
        let mut ports = mesh::<Numbers>(1, bells).into_iter();
        let (mut sender, mut receiver) = (ports.next().unwrap(), ports.next().unwrap());
        let core = thread::spawn(move || {
            for n in 1..=3 {
                sender.batch(CoreId(1)).0.push(n);
                sender.publish_all();
            }
            sender
        });
        let mut got = Vec::new();
        for _ in 0..2 {
            receiver.receive(1, |_, batch| got.append(&mut batch.0));
        }
        let mut sender = core.join().unwrap();
        receiver.receive(1, |_, batch| got.append(&mut batch.0));
        sender.publish_all();
        receiver.receive(1, |_, batch| got.append(&mut batch.0));
        assert_eq!(got, [1, 2, 3]);
        assert!(sender.all_sent());
    });
}
