//! The ring of one core, seen as two queues: operations in, completions out.
//!
//! Lives on: the thread that made it. Pitfalls A2, A5 and B5 are settled here: an enter that is refused because completions wait
//! (EBUSY, EAGAIN) is no error but "reap first"; nothing is entered when there is nothing to do; deferred and overflowed
//! completions are asked for by flag; and the bell is silent while the core is awake.
//!
//! The ring's own descriptor is not registered (A9): the `io-uring` crate forgets the registration with each `Submitter`, and one
//! enter serves up to a whole turn of sends, so the saved look-up can't be measured.

use super::buffers::Buffers;
use super::setup::{SetupError, make_ring};
use super::{Config, DriveCounters};
use io_uring::{EnterFlags, IoUring, squeue};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;

/// A completion, copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub name: u64,
    pub result: i32,
    pub flags: u32,
}

/// How often on end a full queue is offered to the kernel.
const REFUSALS: u32 = 10_000;

pub(super) struct Queue {
    ring: ManuallyDrop<IoUring>,
    pub buffers: Buffers,
    overflow_seen: u32,
}

impl Queue {
    pub fn new(config: &Config) -> Result<Queue, SetupError> {
        let (ring, _) = make_ring(config.ring, config.task_run)?;
        let buffers = Buffers::new(&ring, config.buffers, config.buffer_bytes).map_err(SetupError::Other)?;
        Ok(Queue { ring: ManuallyDrop::new(ring), buffers, overflow_seen: 0 })
    }

    /// From now on every completion rings `bell`, except while it is disabled.
    pub fn attach(&mut self, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(bell.as_raw_fd())?;
        self.ring.completion().disable_eventfd();
        Ok(())
    }

    /// Queues an operation; enters the kernel first when the queue is full. Fails when the kernel refuses to take any operation
    /// `REFUSALS` times on end.
    ///
    /// # Safety
    /// The memory and the descriptor that `entry` names must stay valid until its last completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry, counters: &mut DriveCounters) -> io::Result<()> {
        for _ in 0..REFUSALS {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter(counters)?;
        }
        Err(io::Error::other("the kernel takes no more operations: it is out of memory, or limited by its cgroup"))
    }

    /// Hands the queued operations to the kernel and lets it post what is complete, unless there's nothing to do.
    pub fn submit(&mut self, counters: &mut DriveCounters) -> io::Result<()> {
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enter(counters)
    }

    /// Enters once, asking for whatever is complete, waiting for nothing.
    pub fn enter(&mut self, counters: &mut DriveCounters) -> io::Result<()> {
        counters.enters += 1;
        let queued = self.ring.submission().len() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: no argument is passed.
        let result = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) };
        self.judge(result, counters)
    }

    fn judge(&mut self, result: io::Result<usize>, counters: &mut DriveCounters) -> io::Result<()> {
        self.count_overflow(counters);
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => Ok(()),
                // Completions wait: the turn reaps them and comes back.
                Some(libc::EBUSY | libc::EAGAIN) => {
                    counters.enters_refused += 1;
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    fn count_overflow(&mut self, counters: &mut DriveCounters) {
        if self.ring.submission().cq_overflow() {
            counters.cq_overflow += 1;
        }
        let lost = self.ring.completion().overflow();
        counters.cq_overflow += u64::from(lost.wrapping_sub(self.overflow_seen));
        self.overflow_seen = lost;
    }

    /// Moves up to `most` completions out of the ring.
    pub fn reap(&mut self, into: &mut Vec<Completion>, most: usize) {
        into.clear();
        let completions = self.ring.completion().take(most);
        into.extend(completions.map(|c| Completion { name: c.user_data(), result: c.result(), flags: c.flags() }));
    }

    /// Whether a look at the completions would find something, now or after an enter.
    pub fn has_completions(&mut self) -> bool {
        let queue = self.ring.submission();
        let kernel_has = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        kernel_has || !self.ring.completion().is_empty()
    }

    pub fn enable_bell(&mut self) {
        self.ring.completion().enable_eventfd();
    }

    pub fn disable_bell(&mut self) {
        self.ring.completion().disable_eventfd();
    }

    /// Buffers that did not come back; see `Buffers::missing`.
    pub fn missing_buffers(&self) -> Option<u16> {
        self.buffers.missing(&self.ring)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: dropped once, here; the buffers, a later field, outlive it.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}
