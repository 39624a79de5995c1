//! Atomics and cells, loom's when loom checks the interleavings (`--cfg loom`), the standard library's otherwise.
//!
//! Invariant: the code above this module is the same in both cases.

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
};
#[cfg(not(loom))]
pub(super) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};

/// The standard cell with loom's interface, which brackets each access so that loom can see overlapping ones.
#[cfg(not(loom))]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Keeps what two cores write on cache lines of their own. 128 bytes: processors fetch lines in pairs.
#[repr(align(128))]
pub(super) struct OwnLine<T>(pub(super) T);
