//! When to dial again: doubling waits, of which full jitter is taken, so that those who lost one peer don't all come back at once.
//!
//! Invariant: at most one dial is under way; none is wanted more often than the wait says.

use crate::base::random::Random;
use crate::base::time::Time;
use std::time::Duration;

/// Doublings after which the wait is the longest anyway.
const MOST_DOUBLINGS: u32 = 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// There is a connection, or this end doesn't dial.
    Idle,
    Waiting(Time),
    /// Until the dial counts as failed.
    Dialling(Time),
}

#[derive(Debug)]
pub(super) struct Backoff {
    state: State,
    failures: u32,
    random: Random,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration, random: Random) -> Backoff {
        Backoff { state: State::Idle, failures: 0, random, first, longest }
    }

    /// A connection is wanted after a wait.
    pub(super) fn want(&mut self, now: Time) {
        let wait = self.first.saturating_mul(1 << self.failures.min(MOST_DOUBLINGS)).min(self.longest);
        let drawn = self.random.below(wait.as_nanos() as u64 + 1);
        self.state = State::Waiting(now + Duration::from_nanos(drawn));
    }

    /// A dial failed, or what came of it.
    pub(super) fn failed(&mut self, now: Time) {
        self.failures = self.failures.saturating_add(1);
        self.want(now);
    }

    /// There is a connection, whether it turns out a good one or not.
    pub(super) fn rest(&mut self) {
        self.state = State::Idle;
    }

    /// A connection was a good one: the next wait is the shortest again.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(super) fn is_dialling(&self) -> bool {
        matches!(self.state, State::Dialling(_))
    }

    pub(super) fn deadline(&self) -> Time {
        match self.state {
            State::Idle => Time::MAX,
            State::Waiting(until) | State::Dialling(until) => until,
        }
    }

    /// Whether to dial now. One that has had no answer for `patience` has failed.
    pub(super) fn is_due(&mut self, now: Time, patience: Duration) -> bool {
        if matches!(self.state, State::Dialling(until) if until <= now) {
            self.failed(now);
        }
        let is_due = matches!(self.state, State::Waiting(until) if until <= now);
        if is_due {
            self.state = State::Dialling(now + patience);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_all_of_it() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, longest, Random::new(1));
        for failures in 0..40u32 {
            let most = first.saturating_mul(1 << failures.min(20)).min(longest);
            let waits: Vec<Duration> = (0..200)
                .map(|_| {
                    (backoff.failures, backoff.state) = (failures, State::Idle);
                    backoff.want(Time(1000));
                    backoff.deadline() - Time(1000)
                })
                .collect();
            assert!(waits.iter().all(|&wait| wait <= most), "{failures}");
            assert!(waits.iter().any(|&wait| wait > most / 10 * 9) && waits.iter().any(|&wait| wait < most / 10), "{failures}");
        }
    }

    #[test]
    fn one_dial_at_a_time_and_one_without_an_answer_has_failed() {
        let patience = Duration::from_secs(1);
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1), Random::new(1));
        assert!(!backoff.is_due(Time::MAX, patience), "nobody wanted one");
        backoff.want(Time(0));
        let due = backoff.deadline();
        assert!(backoff.is_due(due, patience) && !backoff.is_due(due, patience));
        let over = backoff.deadline();
        assert_eq!(over, due + patience);
        let again = backoff.is_due(over, patience) || backoff.is_due(backoff.deadline(), patience);
        assert!(again && backoff.is_dialling());
    }
}
