//! One direction of a pair of cores (G3): batches go out over one ring, and come back empty over another.
//!
//! Lives on: the sending core (`Outward`) and the receiving core (`Inward`). What a turn of the loop has gathered for the other
//! core leaves as one batch; a batch is read where it lies and then given back, so its memory returns to the core that made it and
//! is used again while it is still warm. Invariants: a batch is empty when it comes back; the way back always has room, because a
//! batch is made only when nothing waits there, so at most `capacity` + 1 batches are ever outside the sender.

use super::spsc::{Consumer, Producer, ring};

/// Empty batches that may wait for the sender. Above that one is freed per published batch, so the memory of a burst goes away.
pub const SPARE_BATCHES: usize = 4;

/// What one core gathers for another during one turn.
pub trait Batch: Default + Send {
    fn is_empty(&self) -> bool;

    /// Forgets the content and keeps the memory, up to a bound of the batch's own. Called by the reader.
    fn clear(&mut self);
}

/// What became of the gathered batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// Nothing had been gathered.
    Nothing,
    /// It is on its way; the other core may have to be woken.
    Sent,
    /// The ring is full. The batch stays and more may be gathered: the caller conflates and tries again next turn.
    Full,
}

/// A way from one core to another that holds up to `capacity` published batches.
///
/// # Panics
/// When `capacity` is not a power of two.
pub fn exchange<B: Batch>(capacity: usize) -> (Outward<B>, Inward<B>) {
    let (out, arriving) = ring(capacity);
    // `capacity` + 1 batches may come back before the sender looks.
    let (giving_back, coming_back) = ring(2 * capacity);
    (Outward { gathered: B::default(), out, coming_back }, Inward { arriving, giving_back })
}

/// The sending end.
pub struct Outward<B> {
    gathered: B,
    out: Producer<B>,
    coming_back: Consumer<B>,
}

impl<B: Batch> Outward<B> {
    /// The batch being gathered.
    #[inline]
    pub fn batch(&mut self) -> &mut B {
        &mut self.gathered
    }

    /// Sends off what was gathered, once per turn. After `Sent` somebody has to ask the other core's doorbell.
    pub fn publish(&mut self) -> Published {
        if self.gathered.is_empty() {
            return Published::Nothing;
        }
        if self.out.is_full() {
            return Published::Full;
        }
        let batch = std::mem::replace(&mut self.gathered, Self::empty_batch(&mut self.coming_back));
        assert!(self.out.try_push(batch).is_ok(), "only this end fills the ring, and there was room");
        Published::Sent
    }

    fn empty_batch(coming_back: &mut Consumer<B>) -> B {
        if coming_back.len() > SPARE_BATCHES {
            drop(coming_back.pop());
        }
        let batch = coming_back.pop().unwrap_or_default();
        assert!(batch.is_empty(), "a batch comes back empty");
        batch
    }

    /// Whether nothing is gathered that has still to go.
    pub fn is_sent(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Whether `publish` would find no room now.
    pub fn is_full(&self) -> bool {
        self.out.is_full()
    }

    /// Batches that are published and not yet taken.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }
}

/// The receiving end.
pub struct Inward<B> {
    arriving: Consumer<B>,
    giving_back: Producer<B>,
}

impl<B: Batch> Inward<B> {
    /// Lets `read` look at the next batch, then gives its memory back. False: there was none.
    pub fn next(&mut self, read: impl FnOnce(&mut B)) -> bool {
        let Some(mut batch) = self.arriving.pop() else { return false };
        read(&mut batch);
        batch.clear();
        assert!(self.giving_back.try_push(batch).is_ok(), "the way back has room for every batch there is");
        true
    }

    /// Whether nothing has arrived. This is what a core asks again between announcing its sleep and sleeping.
    pub fn is_empty(&self) -> bool {
        self.arriving.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    impl Batch for Vec<u64> {
        fn is_empty(&self) -> bool {
            Vec::is_empty(self)
        }
        fn clear(&mut self) {
            Vec::clear(self)
        }
    }

    #[test]
    fn a_turn_goes_as_one_batch_and_nothing_gathered_sends_nothing() {
        let (mut out, mut inward) = exchange::<Vec<u64>>(2);
        assert_eq!(out.publish(), Published::Nothing);
        assert!(!inward.next(|_| panic!("nothing was sent")));
        out.batch().extend([1, 2, 3]);
        assert!(inward.is_empty(), "nothing leaves before publish");
        assert_eq!(out.publish(), Published::Sent);
        assert!(inward.next(|batch| assert_eq!(*batch, [1, 2, 3])));
    }

    #[test]
    fn a_full_ring_keeps_the_batch_and_it_goes_later_with_what_was_gathered_since() {
        let (mut out, mut inward) = exchange::<Vec<u64>>(1);
        out.batch().push(1);
        assert_eq!(out.publish(), Published::Sent);
        out.batch().push(2);
        assert_eq!((out.publish(), out.is_full(), out.waiting()), (Published::Full, true, 1));
        out.batch().push(3);
        assert!(inward.next(|batch| assert_eq!(*batch, [1])));
        assert_eq!(out.publish(), Published::Sent);
        assert!(inward.next(|batch| assert_eq!(*batch, [2, 3])));
    }

    #[test]
    fn memory_comes_back_to_the_core_that_made_it() {
        let (mut out, mut inward) = exchange::<Vec<u64>>(8);
        let mut addresses = std::collections::BTreeSet::new();
        for turn in 0..1000 {
            out.batch().extend(0..100);
            addresses.insert(out.batch().as_ptr() as usize);
            assert_eq!(out.publish(), Published::Sent);
            assert!(inward.next(|batch| assert_eq!(batch.len(), 100)), "turn {turn}");
        }
        assert!(addresses.len() <= 2, "two batches take turns, not {}", addresses.len());
    }

    #[test]
    fn the_memory_of_a_burst_goes_away_again() {
        let (mut out, mut inward) = exchange::<Vec<u64>>(64);
        for _ in 0..64 {
            out.batch().push(1);
            assert_eq!(out.publish(), Published::Sent);
        }
        while inward.next(|_| ()) {}
        assert_eq!(out.coming_back.len(), 64);
        for _ in 0..64 {
            out.batch().push(1);
            out.publish();
            inward.next(|_| ());
        }
        assert_eq!(out.coming_back.len(), SPARE_BATCHES);
    }

    proptest! {
        /// The asserts inside are half of this test: whatever the order of turns, the way back never overflows.
        #[test]
        fn batches_arrive_whole_in_order_and_the_way_back_never_fails(
            exponent in 0u32..4,
            turns in proptest::collection::vec((0u64..4, any::<bool>(), 0usize..12), 0..300),
        ) {
            let capacity = 1usize << exponent;
            let (mut out, mut inward) = exchange::<Vec<u64>>(capacity);
            let (mut gathered, mut sent, mut next) = (Vec::new(), VecDeque::new(), 0);
            for (items, publish, reads) in turns {
                for _ in 0..items {
                    out.batch().push(next);
                    gathered.push(next);
                    next += 1;
                }
                if publish {
                    let expected = match (gathered.is_empty(), sent.len() == capacity) {
                        (true, _) => Published::Nothing,
                        (false, true) => Published::Full,
                        (false, false) => Published::Sent,
                    };
                    prop_assert_eq!(out.publish(), expected);
                    if expected == Published::Sent {
                        sent.push_back(std::mem::take(&mut gathered));
                    }
                }
                for _ in 0..reads {
                    let mut got = None;
                    prop_assert_eq!(inward.next(|batch| got = Some(batch.clone())), !sent.is_empty());
                    prop_assert_eq!(got, sent.pop_front());
                }
            }
        }
    }
}
