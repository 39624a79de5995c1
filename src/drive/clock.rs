//! The node's monotonic clock.
//!
//! Lives on: every core. `CLOCK_MONOTONIC` through the vDSO: 20-25 ns a call, the same on every core, and the clock that the
//! ring's timeouts use. Reading the TSC by hand would save about 15 ns a received frame and cost a calibration and a second
//! notion of time, so it is not done.

use crate::base::time::{Time, WallClock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since some moment before the node started.
#[inline]
pub fn now() -> Time {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid timespec to write to; CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut at) };
    Time(at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64)
}

/// Milliseconds since 1970.
pub fn wall() -> WallClock {
    WallClock(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards_between_threads() {
        let before = now();
        let there = std::thread::spawn(now).join().unwrap();
        let after = now();
        assert!(before <= there && there <= after);
        assert!(wall().0 > 1_600_000_000_000);
    }
}
