//! When gathered bytes are sent: a pure function of what is gathered and of what else waits.
//!
//! Lives on: every core. Cost follows messages per send (a send on loopback costs 3-5 us of kernel, whatever it carries), so bytes
//! are held back while more is coming in and never longer than `hold`.

use crate::base::time::Time;
use std::time::Duration;

/// The knobs. `Default` is what was measured best; the figures are in `drive`'s module text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// How long the oldest gathered byte may wait while received bytes or other cores' batches still wait to be read.
    pub hold: Duration,
    /// How long it may wait although nothing else waits, for what is about to arrive.
    pub linger: Duration,
    /// Lingering is for busy times only: it needs so many receives since the last flush.
    pub crowd: u32,
    /// Sends put into the ring at once. What is left over goes after the next look at the completions.
    pub sends: u32,
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Gathered {
    /// When the oldest of it was gathered; `None`: nothing is.
    pub since: Option<Time>,
    /// Receives that were handled since the last flush.
    pub receives: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    Now,
    /// Nothing to send, or not before this time unless things change.
    Until(Option<Time>),
}

impl FlushPolicy {
    /// `more`: something that may add to the gathered bytes waits to be read.
    pub fn decide(&self, now: Time, gathered: Gathered, more: bool) -> Flush {
        let Some(since) = gathered.since else { return Flush::Until(None) };
        let patience = match more {
            true => self.hold,
            false if gathered.receives >= self.crowd => self.linger,
            false => Duration::ZERO,
        };
        let due = since + patience;
        if now >= due { Flush::Now } else { Flush::Until(Some(due)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: FlushPolicy =
        FlushPolicy { hold: Duration::from_micros(100), linger: Duration::from_micros(20), crowd: 4, sends: 64 };
    const START: Time = Time(1_000_000);

    fn gathered(receives: u32) -> Gathered {
        Gathered { since: Some(START), receives }
    }

    #[test]
    fn nothing_gathered_is_never_due() {
        assert_eq!(POLICY.decide(START, Gathered::default(), true), Flush::Until(None));
        assert_eq!(POLICY.decide(START, Gathered::default(), false), Flush::Until(None));
    }

    #[test]
    fn a_quiet_core_sends_at_once() {
        assert_eq!(POLICY.decide(START, gathered(3), false), Flush::Now);
    }

    #[test]
    fn a_busy_core_lingers_and_never_longer_than_it_may() {
        let due = START + POLICY.linger;
        assert_eq!(POLICY.decide(START, gathered(4), false), Flush::Until(Some(due)));
        assert_eq!(POLICY.decide(due, gathered(4), false), Flush::Now);
    }

    #[test]
    fn bytes_are_held_while_more_comes_in_and_never_longer_than_they_may() {
        let due = START + POLICY.hold;
        assert_eq!(POLICY.decide(Time(due.0 - 1), gathered(1), true), Flush::Until(Some(due)));
        assert_eq!(POLICY.decide(due, gathered(1), true), Flush::Now);
    }
}
