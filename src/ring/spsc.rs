//! A bounded lock-free ring with one producer and one consumer (G3).
//!
//! Lives on: two cores, one at each end. Invariants: `head` is written only by the consumer and `tail` only by the producer; both
//! count up for ever (wrapping) and `tail - head` <= capacity; the slots from head up to tail hold items, the others nothing.
//! Each end remembers the last index it saw of the other end and reads it anew only when the ring seems full or empty, so that
//! the two cores seldom touch each other's cache line. rtrb does the same job; this one exists because loom must be able to look
//! inside (`sync`).

use super::sync::{Arc, AtomicUsize, Ordering, OwnLine, UnsafeCell};
use std::mem::MaybeUninit;

struct Shared<T> {
    /// Items taken out, ever. Written by the consumer.
    head: OwnLine<AtomicUsize>,
    /// Items put in, ever. Written by the producer.
    tail: OwnLine<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: items move from one thread to the other (hence T: Send) and are never looked at by both: a slot is touched by the
// producer only while it is outside head..tail and by the consumer only while it is inside, and it changes sides by a release
// store that the other side has read with acquire.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the slots own their items.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both ends are gone, and the Arc that held them has ordered everything they did before this.
        let mut head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: slots from head up to tail hold items, and nobody else can reach them any more.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// A ring for at least one and at most `capacity` items.
///
/// # Panics
/// When `capacity` is not a power of two.
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    ring_from(capacity, 0)
}

/// `start` is where the indices begin to count.
fn ring_from<T>(capacity: usize, start: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two, not {capacity}");
    let shared = Arc::new(Shared {
        head: OwnLine(AtomicUsize::new(start)),
        tail: OwnLine(AtomicUsize::new(start)),
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { shared: shared.clone(), tail: start, head_seen: start };
    (producer, Consumer { shared, head: start, tail_seen: start })
}

/// The end that puts items in.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Equals the shared tail, which only this end writes.
    tail: usize,
    /// The consumer's head as last seen: never ahead of the true one.
    head_seen: usize,
}

impl<T> Producer<T> {
    /// Puts an item in, or gives it back when the ring is full.
    #[inline]
    pub fn try_push(&mut self, item: T) -> Result<(), T> {
        if self.tail.wrapping_sub(self.head_seen) == self.capacity() {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == self.capacity() {
                return Err(item);
            }
        }
        // SAFETY: the slot at tail is outside head..tail, so the consumer leaves it alone until the store below; the acquire load
        // of head came after the consumer moved the slot's last item out.
        self.shared.slot(self.tail).with_mut(|slot| unsafe {
            (*slot).write(item);
        });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether `try_push` would give the item back now. The consumer may make room at any moment.
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// Items in the ring; the consumer may have taken some meanwhile.
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.0.load(Ordering::Acquire))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }
}

/// The end that takes items out.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Equals the shared head, which only this end writes.
    head: usize,
    /// The producer's tail as last seen: never ahead of the true one.
    tail_seen: usize,
}

impl<T> Consumer<T> {
    /// Takes the oldest item out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: head is before a tail that was read with acquire, so the slot's item was written before and the producer leaves
        // the slot alone until the store below. It is read once: head moves on.
        let item = self.shared.slot(self.head).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Whether `pop` would find nothing now. The producer may add at any moment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items in the ring; the producer may have added some meanwhile.
    pub fn len(&self) -> usize {
        self.shared.tail.0.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc as Counted;

    #[test]
    fn what_goes_in_comes_out_in_order_and_a_full_ring_gives_the_item_back() {
        let (mut tx, mut rx) = ring(2);
        assert_eq!((tx.try_push(1), tx.try_push(2), tx.try_push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(tx.is_full() && rx.len() == 2);
        assert_eq!((rx.pop(), rx.pop(), rx.pop()), (Some(1), Some(2), None));
        assert!(rx.is_empty() && tx.is_empty());
    }

    #[test]
    #[should_panic(expected = "power of two, not 3")]
    fn a_capacity_that_is_no_power_of_two_is_refused() {
        ring::<u8>(3);
    }

    #[test]
    fn the_indices_may_wrap_round() {
        let (mut tx, mut rx) = ring_from(4, usize::MAX - 1);
        for n in 0..16 {
            assert_eq!(tx.try_push(n), Ok(()));
            assert_eq!(tx.try_push(n + 100), Ok(()));
            assert_eq!((rx.len(), tx.len()), (2, 2));
            assert_eq!((rx.pop(), rx.pop(), rx.pop()), (Some(n), Some(n + 100), None));
        }
    }

    #[test]
    fn items_left_in_the_ring_are_dropped_once() {
        let item = Counted::new(());
        let (mut tx, mut rx) = ring(4);
        for _ in 0..4 {
            assert!(tx.try_push(item.clone()).is_ok());
        }
        drop(rx.pop());
        assert!(tx.try_push(item.clone()).is_ok());
        assert_eq!(Counted::strong_count(&item), 5);
        drop(tx);
        assert_eq!(Counted::strong_count(&item), 5, "the consumer may still take them");
        drop(rx);
        assert_eq!(Counted::strong_count(&item), 1);
    }

    #[test]
    fn two_threads_lose_nothing_and_keep_the_order() {
        const ITEMS: u64 = if cfg!(miri) { 300 } else { 200_000 };
        for capacity in [1, 2, 64] {
            let (mut tx, mut rx) = ring(capacity);
            let producer = std::thread::spawn(move || {
                for n in 0..ITEMS {
                    let mut item = Box::new(n);
                    while let Err(back) = tx.try_push(item) {
                        item = back;
                        std::thread::yield_now();
                    }
                }
            });
            for expected in 0..ITEMS {
                let got = loop {
                    match rx.pop() {
                        Some(item) => break *item,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(got, expected);
            }
            producer.join().unwrap();
            assert!(rx.pop().is_none());
        }
    }

    proptest! {
        #[test]
        fn the_ring_behaves_as_a_bounded_queue(
            exponent in 0u32..5,
            before_wrap in 0usize..40,
            pushes in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let capacity = 1usize << exponent;
            let (mut tx, mut rx) = ring_from(capacity, usize::MAX - before_wrap);
            let mut model = VecDeque::new();
            for (n, push) in pushes.into_iter().enumerate() {
                if push {
                    let room = model.len() < capacity;
                    prop_assert_eq!(tx.try_push(n), if room { Ok(()) } else { Err(n) });
                    if room {
                        model.push_back(n);
                    }
                } else {
                    prop_assert_eq!(rx.pop(), model.pop_front());
                }
                prop_assert_eq!((rx.len(), tx.len()), (model.len(), model.len()));
                prop_assert_eq!((rx.is_empty(), tx.is_full()), (model.is_empty(), model.len() == capacity));
            }
        }
    }
}
