//! All ways between N cores (G3): an exchange per ordered pair and a doorbell per core.
//!
//! Lives on: each core owns its `Ports`; made before the cores start. Invariants: `to[i]` of core j leads to `from[j]` of core i;
//! no core has a way to itself; after `publish_all` every core that was sent a batch is awake or has been rung.

use super::doorbell::{Bell, Doorbell, Sleeper, before_looking, doorbell};
use super::exchange::{Batch, Inward, Outward, Published, exchange};
use super::sync::Arc;
use crate::base::id::CoreId;

/// What a core's ports have done since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Batches sent to other cores.
    pub batches: u64,
    /// Times a gathered batch had to stay because the ring was full.
    pub full: u64,
    /// Bells of sleeping cores rung.
    pub doorbells: u64,
    /// Batches read from other cores.
    pub read: u64,
}

/// One core's ends of all the exchanges.
pub struct Ports<B> {
    pub core: CoreId,
    /// The way to each core, by its number. `None` for the core itself.
    pub to: Vec<Option<Outward<B>>>,
    /// What comes from each core, by its number. `None` for the core itself.
    pub from: Vec<Option<Inward<B>>>,
    /// This core's own sleep.
    pub sleeper: Sleeper,
    pub counts: Counts,
    doorbells: Vec<Arc<Doorbell>>,
    /// Which cores the turn's batches went to; kept to re-use its memory.
    sent_to: Vec<usize>,
    /// Where the next `receive` begins, so that no core is always last.
    first: usize,
}

/// The ports of every core, in order. `capacity` is the number of published batches one direction of a pair holds
/// (`Limits::ring_batches`); `bells[i]` wakes core i, and there is one per core.
///
/// # Panics
/// When `capacity` is not a power of two, or there are no bells or more than 65,535.
pub fn mesh<B: Batch>(capacity: usize, bells: Vec<std::sync::Arc<dyn Bell>>) -> Vec<Ports<B>> {
    let cores = u16::try_from(bells.len()).expect("a node has at most 65,535 cores");
    assert!(cores > 0, "a mesh has at least one core");
    let (doorbells, sleepers): (Vec<_>, Vec<_>) = bells.into_iter().map(doorbell).unzip();
    let mut ports: Vec<Ports<B>> = (0..cores)
        .zip(sleepers)
        .map(|(core, sleeper)| Ports {
            core: CoreId(core),
            to: (0..cores).map(|_| None).collect(),
            from: (0..cores).map(|_| None).collect(),
            sleeper,
            counts: Counts::default(),
            doorbells: doorbells.clone(),
            sent_to: Vec::with_capacity(usize::from(cores)),
            first: 0,
        })
        .collect();
    for sender in 0..usize::from(cores) {
        for receiver in (0..usize::from(cores)).filter(|&receiver| receiver != sender) {
            let (out, inward) = exchange(capacity);
            ports[sender].to[receiver] = Some(out);
            ports[receiver].from[sender] = Some(inward);
        }
    }
    ports
}

impl<B: Batch> Ports<B> {
    /// The batch being gathered for another core.
    ///
    /// # Panics
    /// When `core` is this core (it reaches itself without a ring) or none of the node's.
    #[inline]
    pub fn batch(&mut self, core: CoreId) -> &mut B {
        self.to[usize::from(core.0)].as_mut().expect("a core has no ring to itself").batch()
    }

    /// Sends off everything gathered, once per turn, and rings the cores that sleep. A full ring is counted and its batch stays.
    pub fn publish_all(&mut self) {
        for (core, out) in self.to.iter_mut().enumerate() {
            match out.as_mut().map_or(Published::Nothing, Outward::publish) {
                Published::Nothing => {}
                Published::Sent => self.sent_to.push(core),
                Published::Full => self.counts.full += 1,
            }
        }
        if self.sent_to.is_empty() {
            return;
        }
        self.counts.batches += self.sent_to.len() as u64;
        before_looking();
        for core in self.sent_to.drain(..) {
            self.counts.doorbells += u64::from(self.doorbells[core].ring_if_asleep());
        }
    }

    /// Reads up to `most` batches from each other core where they lie, and gives their memory back. The number read; which core
    /// comes first changes with every call.
    pub fn receive(&mut self, most: usize, mut read: impl FnMut(CoreId, &mut B)) -> usize {
        let cores = self.from.len();
        self.first = (self.first + 1) % cores;
        let mut total = 0;
        for core in (self.first..cores).chain(0..self.first) {
            let Some(inward) = &mut self.from[core] else { continue };
            let mut left = most;
            while left > 0 && inward.next(|batch| read(CoreId(core as u16), batch)) {
                left -= 1;
                total += 1;
            }
        }
        self.counts.read += total as u64;
        total
    }

    /// Whether no other core has sent anything. To be asked between `sleeper.announce()` and the sleep.
    pub fn is_empty(&self) -> bool {
        self.from.iter().flatten().all(Inward::is_empty)
    }

    /// Whether everything gathered has gone. A core with a batch that had to stay may sleep only for a moment (a turn's timer):
    /// nobody rings when a full ring has room again.
    pub fn all_sent(&self) -> bool {
        self.to.iter().flatten().all(Outward::is_sent)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::doorbell::tests::TestBell;
    use super::*;

    fn bells(cores: usize) -> (Vec<std::sync::Arc<TestBell>>, Vec<std::sync::Arc<dyn Bell>>) {
        let bells: Vec<_> = (0..cores).map(|_| std::sync::Arc::new(TestBell::default())).collect();
        let as_bells = bells.iter().map(|bell| bell.clone() as std::sync::Arc<dyn Bell>).collect();
        (bells, as_bells)
    }

    #[test]
    fn every_core_reaches_every_other_and_knows_who_sent() {
        let (_, as_bells) = bells(4);
        let mut ports = mesh::<Vec<u64>>(2, as_bells);
        for sender in 0..4u16 {
            for receiver in (0..4u16).filter(|&receiver| receiver != sender) {
                ports[usize::from(sender)].batch(CoreId(receiver)).push(u64::from(sender * 10 + receiver));
            }
            ports[usize::from(sender)].publish_all();
        }
        for receiver in 0..4u16 {
            let mut got = Vec::new();
            let ports = &mut ports[usize::from(receiver)];
            assert!(!ports.is_empty());
            assert_eq!(ports.receive(8, |from, batch| got.push((from.0, batch.clone()))), 3);
            got.sort();
            let expected: Vec<_> = (0..4u16).filter(|&s| s != receiver).map(|s| (s, vec![u64::from(s * 10 + receiver)])).collect();
            assert_eq!(got, expected);
            assert!(ports.is_empty());
            assert_eq!(ports.counts, Counts { batches: 3, full: 0, doorbells: 0, read: 3 });
        }
    }

    #[test]
    fn only_sleeping_cores_that_were_sent_something_are_rung() {
        let (rung, as_bells) = bells(3);
        let mut ports = mesh::<Vec<u64>>(2, as_bells);
        ports[1].sleeper.announce();
        ports[2].sleeper.announce();
        for _ in 0..2 {
            ports[0].batch(CoreId(1)).push(7);
            ports[0].publish_all();
        }
        assert_eq!((rung[1].rings(), rung[2].rings()), (1, 0));
        assert_eq!(ports[0].counts.doorbells, 1);
    }

    #[test]
    fn a_core_that_does_not_read_fills_only_its_own_ring() {
        let (_, as_bells) = bells(3);
        let mut ports = mesh::<Vec<u64>>(2, as_bells);
        for n in 0..5 {
            ports[0].batch(CoreId(1)).push(n);
            ports[0].batch(CoreId(2)).push(n);
            ports[0].publish_all();
            assert_eq!(ports[2].receive(1, |_, _| ()), 1);
        }
        assert_eq!(ports[0].counts, Counts { batches: 7, full: 3, doorbells: 0, read: 0 });
        let mut got = Vec::new();
        ports[1].receive(8, |_, batch| got.append(batch));
        ports[0].publish_all();
        ports[1].receive(8, |_, batch| got.append(batch));
        assert_eq!(got, [0, 1, 2, 3, 4], "what could not go went later");
    }

    #[test]
    fn no_core_is_always_read_last() {
        let (_, as_bells) = bells(3);
        let mut ports = mesh::<Vec<u64>>(2, as_bells);
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..3 {
            for sender in [1, 2] {
                ports[sender].batch(CoreId(0)).push(1);
                ports[sender].publish_all();
            }
            let mut order = Vec::new();
            ports[0].receive(1, |from, _| order.push(from));
            firsts.insert(order[0]);
        }
        assert_eq!(firsts.len(), 2);
    }

    /// Every core sends to every other as fast as it can and sleeps when it has nothing to do; a lost wake-up would hang it.
    #[test]
    fn three_threads_lose_nothing_in_a_storm() {
        const TURNS: u64 = if cfg!(miri) { 50 } else { 5_000 };
        let (rung, as_bells) = bells(3);
        let threads: Vec<_> = mesh::<Vec<u64>>(4, as_bells)
            .into_iter()
            .map(|mut ports| {
                let bell = rung[usize::from(ports.core.0)].clone();
                std::thread::spawn(move || {
                    let others: Vec<_> = (0..3).map(CoreId).filter(|&core| core != ports.core).collect();
                    let (mut turn, mut expected) = (0, [0u64; 3]);
                    let all = |expected: &[u64; 3]| others.iter().all(|core| expected[usize::from(core.0)] == TURNS);
                    while turn < TURNS || !all(&expected) || !ports.all_sent() {
                        let read = ports.receive(4, |from, batch| {
                            for &n in batch.iter() {
                                assert_eq!(n, expected[usize::from(from.0)]);
                                expected[usize::from(from.0)] += 1;
                            }
                        });
                        if turn < TURNS {
                            others.iter().for_each(|&core| ports.batch(core).push(turn));
                            turn += 1;
                        }
                        ports.publish_all();
                        let stuck = !ports.all_sent();
                        if read == 0 && turn == TURNS && !stuck && !all(&expected) {
                            ports.sleeper.announce();
                            if ports.is_empty() {
                                bell.sleep();
                            }
                            ports.sleeper.awake();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
