//! The provided buffers that multishot receives fill (pitfall A3).
//!
//! Lives on: one core; one group per ring. A buffer is read in place and given back in the same turn, so idle connections hold
//! none and a dry group is full again before the turn ends. Invariants: a buffer is either with the kernel or being read by the
//! one `reap` that took it; at exit all are back, which `missing` asks the kernel itself.

use io_uring::{IoUring, types::BufRingEntry};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

/// The group's number in its ring; there is only one.
pub(super) const GROUP: u16 = 0;
/// The kernel's own limit.
const MOST: u16 = 32_768;
const PAGE: usize = 4096;
const REGISTER_BUFFER_STATUS: libc::c_uint = 26;

/// `struct io_uring_buf_status` of the kernel.
#[repr(C)]
#[derive(Default)]
struct Status {
    group: u32,
    head: u32,
    reserved: [u32; 8],
}

pub(super) struct Buffers {
    /// The ring of entries shared with the kernel, and after it the buffers themselves.
    memory: *mut u8,
    layout: Layout,
    count: u16,
    size: u32,
    tail: u16,
    kept: bool,
}

impl Buffers {
    /// Makes `count` buffers (a power of two) of `size` bytes and gives them all to the ring. The memory must be kept until the
    /// ring is gone: `Queue` owns both and drops the ring first.
    ///
    /// # Panics
    /// When `count` is no power of two or above the kernel's limit, or `size` is 0.
    pub fn new(ring: &IoUring, count: u16, size: u32) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && count <= MOST && size > 0, "buffer group of {count} x {size} bytes");
        let entries = (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE);
        let layout = Layout::from_size_align(entries + usize::from(count) * size as usize, PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout's size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        // All of it will be used, in turn, however few connections there are: rather now than while somebody waits.
        for page in (0..layout.size()).step_by(PAGE) {
            // SAFETY: inside the allocation, which nobody else knows yet.
            unsafe { memory.add(page).write_volatile(0) };
        }
        let mut buffers = Buffers { memory, layout, count, size, tail: 0, kept: false };
        // SAFETY: the entries are page-aligned, zeroed, and live as long as `buffers`, which outlives the ring.
        unsafe { ring.submitter().register_buf_ring_with_flags(memory as u64, count, GROUP, 0) }?;
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.count, "the kernel names one of our buffers");
        let entries = (usize::from(self.count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE);
        // SAFETY: `buffer` < count, so the address is inside the allocation.
        unsafe { self.memory.add(entries + usize::from(buffer) * self.size as usize) }
    }

    /// What the kernel wrote to a buffer. The caller took it with a completion and hasn't given it back yet.
    #[inline]
    pub fn read(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(len <= self.size as usize, "the kernel keeps to a buffer's size");
        // SAFETY: inside the allocation, initialised (zeroed, then written by the kernel), and the kernel doesn't write to a buffer
        // between its completion and `publish`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(buffer), len) }
    }

    /// Puts a buffer back; the kernel sees it after `publish`.
    #[inline]
    pub fn give_back(&mut self, buffer: u16) {
        let address = self.address(buffer) as u64;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` < count, so the entry is inside the ring of entries; only this thread writes entries. The tail shares its
        // memory with the first entry's reserved field, which the setters don't touch.
        unsafe {
            let entry = &mut *self.memory.cast::<BufRingEntry>().add(index);
            entry.set_addr(address);
            entry.set_len(self.size);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what came back.
    #[inline]
    pub fn publish(&mut self) {
        // SAFETY: the tail is a u16 inside the registered ring; the kernel reads it with acquire semantics.
        unsafe {
            let tail = BufRingEntry::tail(self.memory.cast::<BufRingEntry>()) as *const AtomicU16;
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Never frees the memory: the kernel may still write to it.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Buffers that are not with the kernel, by the kernel's own account; `None`: this kernel can't say (before 6.8).
    pub fn missing(&self, ring: &IoUring) -> Option<u16> {
        let mut status = Status { group: u32::from(GROUP), ..Status::default() };
        // SAFETY: `status` has the kernel's layout and is valid for the call.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_BUFFER_STATUS, &raw mut status, 1_u32) };
        let with_kernel = self.tail.wrapping_sub(status.head as u16);
        (result == 0).then(|| self.count - with_kernel)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // SAFETY: allocated with this layout; the ring that knew the memory is gone (see `new`).
        unsafe { dealloc(self.memory, self.layout) };
    }
}
