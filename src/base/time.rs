//! Time as a value. Nothing in the pure core asks what time it is; it is told.

use std::ops::{Add, Sub};

/// Nanoseconds on the node's monotonic clock; comparable between its cores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    pub const ZERO: Time = Time(0);
    /// Later than everything.
    pub const MAX: Time = Time(u64::MAX);

    /// Nanoseconds since `earlier`; 0 when it is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<std::time::Duration> for Time {
    type Output = Time;
    fn add(self, by: std::time::Duration) -> Time {
        Time(self.0.saturating_add(by.as_nanos() as u64))
    }
}

impl Sub<std::time::Duration> for Time {
    type Output = Time;
    fn sub(self, by: std::time::Duration) -> Time {
        Time(self.0.saturating_sub(by.as_nanos() as u64))
    }
}

impl Sub<Time> for Time {
    type Output = std::time::Duration;
    fn sub(self, earlier: Time) -> std::time::Duration {
        std::time::Duration::from_nanos(self.since(earlier))
    }
}

/// Milliseconds since 1970, for what people and clients read (stamps), never for order or time-outs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct WallClock(pub u64);
