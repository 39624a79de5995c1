//! When gathered bytes are sent: a pure function of what is gathered and of what else waits.
//!
//! Lives on: every core. Cost follows messages per send (a send on loopback costs 3-5 us of kernel, whatever it carries), so bytes
//! are held back while more waits to be read, and never longer than `hold`. Waiting for what has *not* come yet was measured and
//! dropped: see `drive`'s module text.

use crate::base::time::Time;
use std::time::Duration;

/// The knobs; the figures are in `drive`'s module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// How long the oldest gathered byte may wait while received bytes or other cores' batches wait to be read.
    pub hold: Duration,
    /// Sends put into the ring at once. What is left over goes after the next look at the completions, which may add to it.
    pub sends: u32,
}

impl FlushPolicy {
    /// Whether what was gathered since `since` goes now. `more`: something that may add to it waits to be read.
    pub fn is_due(&self, now: Time, since: Time, more: bool) -> bool {
        !more || now >= since + self.hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: FlushPolicy = FlushPolicy { hold: Duration::from_micros(100), sends: 64 };
    const START: Time = Time(1_000_000);

    #[test]
    fn bytes_go_at_once_when_nothing_waits_to_be_read() {
        assert!(POLICY.is_due(START, START, false));
    }

    #[test]
    fn bytes_are_held_while_more_waits_and_never_longer_than_they_may() {
        let due = START + POLICY.hold;
        assert!(!POLICY.is_due(Time(due.0 - 1), START, true));
        assert!(POLICY.is_due(due, START, true));
    }
}
