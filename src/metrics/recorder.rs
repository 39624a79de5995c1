//! One core's measurements (G5): histograms of the stages an update goes through, counters, gauges, drops by reason.
//!
//! Lives on: every core, which alone writes it; plain memory, no atomics, nothing allocated after the start. Invariants: recording
//! never fails (a time beyond the range counts as the range's end); switched off, it costs one comparison.

use super::fields::{Counters, Dropped, Gauges};
use super::snapshot::Snapshot;
use super::stage::{Stage, stage_histogram};
use crate::base::id::CoreId;
use crate::base::time::Time;
use hdrhistogram::Histogram;

/// One core's measurements.
pub struct Recorder {
    pub counters: Counters,
    /// Filled in by the core before a snapshot is taken.
    pub gauges: Gauges,
    pub dropped: Dropped,
    core: CoreId,
    stages: Box<[Histogram<u64>]>,
    recording: bool,
    /// On average one of this many events is timed.
    sample_every: u32,
    /// Events until the next timed one.
    until_sample: u32,
    /// State of the sequence that spreads the samples.
    spread: u32,
    started: Time,
}

impl Recorder {
    /// `sample_every`: on average one of this many events is timed (`Config::metrics.sample`); 1 times all of them, 0 none.
    pub fn new(core: CoreId, sample_every: u32, now: Time) -> Recorder {
        Recorder {
            counters: Counters::default(),
            gauges: Gauges::default(),
            dropped: Dropped::default(),
            core,
            stages: Stage::ALL.iter().map(|_| stage_histogram()).collect(),
            recording: sample_every > 0,
            sample_every: sample_every.max(1),
            until_sample: 1,
            spread: u32::from(core.0).wrapping_add(0x9e37_79b9) | 1,
            started: now,
        }
    }

    /// Whether this event is to be timed. The gaps vary around their mean, so that a workload with a rhythm of its own isn't always
    /// met at the same beat; they're the same in every run.
    #[inline]
    pub fn sample(&mut self) -> bool {
        if !self.recording {
            return false;
        }
        self.until_sample -= 1;
        if self.until_sample > 0 {
            return false;
        }
        self.until_sample = self.next_gap();
        true
    }

    /// Between 1 and 2 * `sample_every` - 1.
    fn next_gap(&mut self) -> u32 {
        // Xorshift32 (Marsaglia, 2003): never 0 when it begins with something else.
        self.spread ^= self.spread << 13;
        self.spread ^= self.spread >> 17;
        self.spread ^= self.spread << 5;
        let range = u64::from(self.sample_every) * 2 - 1;
        1 + ((u64::from(self.spread) * range) >> 32) as u32
    }

    #[inline]
    pub fn record(&mut self, stage: Stage, nanos: u64) {
        self.record_many(stage, nanos, 1);
    }

    /// The same time for several events that went through the stage together.
    #[inline]
    pub fn record_many(&mut self, stage: Stage, nanos: u64, events: u64) {
        if self.recording {
            self.stages[stage as usize].saturating_record_n(nanos, events);
        }
    }

    /// Switches the histograms on or off. Counters always count: they cost nothing.
    pub fn set_recording(&mut self, recording: bool) {
        self.recording = recording;
    }

    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A copy of all of it as of `now`. The recorder goes on as if nothing had happened.
    pub fn snapshot(&self, now: Time) -> Box<Snapshot> {
        Box::new(Snapshot {
            core: Some(self.core),
            started: self.started,
            at: now,
            sample_every: self.sample_every,
            stages: self.stages.to_vec(),
            counters: self.counters,
            gauges: self.gauges,
            dropped: self.dropped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::LONGEST_NANOS;
    use super::*;

    #[test]
    fn samples_are_one_in_n_on_average_and_not_in_step() {
        let mut recorder = Recorder::new(CoreId(0), 16, Time::ZERO);
        let sampled: Vec<usize> = (0..160_000).filter(|_| recorder.sample()).collect();
        assert!((9_500..10_500).contains(&sampled.len()), "{}", sampled.len());
        let gaps: std::collections::BTreeSet<usize> = sampled.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() == 31 && gaps.contains(&1) && gaps.contains(&31), "{gaps:?}");
    }

    #[test]
    fn one_in_one_times_all_and_one_in_none_times_nothing() {
        let mut all = Recorder::new(CoreId(0), 1, Time::ZERO);
        assert!((0..100).all(|_| all.sample()));
        let mut none = Recorder::new(CoreId(0), 0, Time::ZERO);
        assert!((0..100).all(|_| !none.sample()));
        none.record(Stage::Send, 5);
        assert_eq!(none.snapshot(Time::ZERO).stage(Stage::Send).len(), 0);
    }

    #[test]
    fn the_switch_stops_histograms_and_not_counters() {
        let mut recorder = Recorder::new(CoreId(3), 1, Time::ZERO);
        recorder.record(Stage::Apply, 1_000);
        recorder.set_recording(false);
        recorder.record(Stage::Apply, 1_000);
        recorder.counters.updates += 2;
        assert!(!recorder.sample() && !recorder.is_recording());
        let snapshot = recorder.snapshot(Time(9));
        assert_eq!((snapshot.stage(Stage::Apply).len(), snapshot.counters.updates), (1, 2));
    }

    #[test]
    fn times_beyond_the_range_are_kept_at_its_end() {
        let mut recorder = Recorder::new(CoreId(0), 1, Time::ZERO);
        for nanos in [0, 1, u64::MAX] {
            recorder.record(Stage::Send, nanos);
        }
        let snapshot = recorder.snapshot(Time::ZERO);
        let send = snapshot.stage(Stage::Send);
        assert_eq!(send.len(), 3);
        assert!(send.max() >= LONGEST_NANOS && send.max() < LONGEST_NANOS + LONGEST_NANOS / 50);
    }

    #[test]
    fn quantiles_are_right_to_one_percent_and_a_stage_stays_small() {
        let mut histogram = stage_histogram();
        (1..=100_000u64).for_each(|n| histogram.saturating_record(n * 100));
        for quantile in [0.5, 0.99, 0.999] {
            let (got, truth) = (histogram.value_at_quantile(quantile) as f64, quantile * 10_000_000.0);
            assert!((got / truth - 1.0).abs() < 0.01, "{quantile}: {got} against {truth}");
        }
        assert!(histogram.distinct_values() * 8 < 32 << 10, "{} bytes", histogram.distinct_values() * 8);
    }
}
