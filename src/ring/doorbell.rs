//! Who must be woken (G3): a core that is about to sleep says so, and whoever has published for it rings, once per sleep.
//!
//! Lives on: the sleeping core (`Sleeper`) and every core that publishes for it (`Doorbell`). How no wake-up is lost: the sleeper
//! says "asleep" and *then* looks at its inputs once more; the publisher publishes and *then* looks whether the other sleeps. On
//! both sides a sequentially consistent fence stands between the write and the look, so at least one of the two sees the other:
//! either the sleeper finds the batch or the publisher finds the sleeper. `tests/loom/ring_loom.rs` checks it.
//! Invariant: the bell is rung at most once per announcement, however many cores publish.

use super::sync::{Arc, AtomicBool, Ordering, OwnLine, fence};

/// What ends a core's sleep: a write to its eventfd, or a condition variable in tests.
pub trait Bell: Send + Sync {
    /// Wakes the core. A ring that comes when the core is awake already must end its next sleep early (an eventfd does): the core
    /// looks at its inputs and sleeps again.
    fn ring(&self);
}

/// What the publishing cores see of a core that may sleep.
pub struct Doorbell {
    /// Set by the sleeper, cleared by it or by the one core that rings. Every write is a swap: plain stores would do under C11,
    /// but loom does not order them against another core's swap, and a sleep is rare enough not to notice.
    asleep: OwnLine<AtomicBool>,
    bell: std::sync::Arc<dyn Bell>,
}

/// A doorbell for the core that `bell` wakes. Clone the first for every core that publishes to it; the second stays on that core.
pub fn doorbell(bell: std::sync::Arc<dyn Bell>) -> (Arc<Doorbell>, Sleeper) {
    let doorbell = Arc::new(Doorbell { asleep: OwnLine(AtomicBool::new(false)), bell });
    (doorbell.clone(), Sleeper { doorbell })
}

impl Doorbell {
    /// To be called after publishing for this core: rings if it sleeps. True: it rang.
    pub fn published(&self) -> bool {
        before_looking();
        self.ring_if_asleep()
    }

    /// As `published`, when `before_looking` was called since the last thing published: one fence for many doorbells.
    pub(super) fn ring_if_asleep(&self) -> bool {
        // Looking first keeps the line shared while the core is awake; the swap lets exactly one publisher ring.
        let rings = self.asleep.0.load(Ordering::Relaxed) && self.asleep.0.swap(false, Ordering::AcqRel);
        if rings {
            self.bell.ring();
        }
        rings
    }
}

/// Orders what was written (a batch, or "asleep") before what is looked at next (the other's flag, or the rings).
#[inline]
pub(super) fn before_looking() {
    fence(Ordering::SeqCst);
}

/// The sleeping core's side. A sleep goes: `announce`, look at *every* input again, sleep on the bell unless there was something,
/// `awake`.
pub struct Sleeper {
    doorbell: Arc<Doorbell>,
}

impl Sleeper {
    /// Says that this core is about to sleep. Whatever is published from now on and isn't found by the next look at the inputs
    /// rings the bell.
    pub fn announce(&mut self) {
        self.doorbell.asleep.0.swap(true, Ordering::AcqRel);
        before_looking();
    }

    /// Says that this core doesn't sleep (any more), whether it was rung, woke for another reason or found something to do.
    pub fn awake(&mut self) {
        self.doorbell.asleep.0.swap(false, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
pub(super) mod tests {
    use super::*;
    use crate::ring::spsc::ring;
    use std::sync::atomic::AtomicU64;
    use std::sync::{Condvar, Mutex};

    /// A bell for tests: counts rings, and keeps one that comes too early, as an eventfd does.
    #[derive(Default)]
    pub(in crate::ring) struct TestBell {
        rung: Mutex<bool>,
        changed: Condvar,
        pub(in crate::ring) rings: AtomicU64,
    }

    impl Bell for TestBell {
        fn ring(&self) {
            self.rings.fetch_add(1, Ordering::Relaxed);
            *self.rung.lock().unwrap() = true;
            self.changed.notify_one();
        }
    }

    impl TestBell {
        pub(in crate::ring) fn sleep(&self) {
            let mut rung = self.changed.wait_while(self.rung.lock().unwrap(), |rung| !*rung).unwrap();
            *rung = false;
        }

        pub(in crate::ring) fn rings(&self) -> u64 {
            self.rings.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn only_a_sleeping_core_is_rung_and_only_once_per_sleep() {
        let bell = std::sync::Arc::new(TestBell::default());
        let (door, mut sleeper) = doorbell(bell.clone());
        assert!(!door.published(), "awake at first");
        sleeper.announce();
        assert!(door.published());
        assert!(!door.published(), "once per sleep");
        sleeper.awake();
        assert!(!door.published());
        sleeper.announce();
        sleeper.awake();
        assert!(!door.published(), "it found something to do and didn't sleep");
        assert_eq!(bell.rings(), 1);
    }

    /// A lost wake-up would leave the consumer asleep and hang this test.
    #[test]
    fn a_core_that_sleeps_whenever_it_can_gets_everything() {
        const ITEMS: u64 = if cfg!(miri) { 300 } else { 50_000 };
        let bell = std::sync::Arc::new(TestBell::default());
        let (door, mut sleeper) = doorbell(bell.clone());
        let (mut tx, mut rx) = ring(16);
        let producer = std::thread::spawn(move || {
            for n in 0..ITEMS {
                while tx.try_push(n).is_err() {
                    std::thread::yield_now();
                }
                door.published();
            }
        });
        let (mut expected, mut sleeps) = (0, 0);
        while expected < ITEMS {
            while let Some(n) = rx.pop() {
                assert_eq!(n, expected);
                expected += 1;
            }
            if expected < ITEMS {
                sleeper.announce();
                sleeps += 1;
                if rx.is_empty() {
                    bell.sleep();
                }
                sleeper.awake();
            }
        }
        producer.join().unwrap();
        assert!(bell.rings() <= sleeps, "{} rings for {sleeps} sleeps", bell.rings());
    }
}
