//! The bell of a core: what wakes its driver.
//!
//! Lives on: the core that sleeps (which reads it) and every core that publishes for it (which rings it). It is one eventfd; the
//! core's ring signals the same one, so there is one thing to sleep on.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Made before the core's thread starts; clones ring the same bell.
#[derive(Clone, Debug)]
pub struct Bell(Arc<EventFd>);

impl Bell {
    /// A blocking eventfd: a read through io_uring then waits instead of failing.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?)))
    }

    /// Wakes the core, or makes its next sleep end at once. For doorbells, which know whether it sleeps, and for the order to stop.
    ///
    /// # Panics
    /// When the eventfd can't be written, which would lose a wake-up.
    pub fn ring(&self) {
        self.0.write(1).expect("an eventfd takes a 1");
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl crate::ring::doorbell::Bell for Bell {
    fn ring(&self) {
        Bell::ring(self);
    }
}
