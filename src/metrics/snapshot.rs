//! What a core's measurements were at one moment (G5). Two of them give an interval, several cores' give the node.
//!
//! Lives on: whoever asked for it; it has no tie to the core any more. Invariant: `since` and `merged` keep the number of events.

use super::fields::{Counters, Dropped, Gauges};
use super::stage::{Stage, stage_histogram};
use crate::base::id::CoreId;
use crate::base::time::Time;
use hdrhistogram::Histogram;
use std::time::Duration;

/// One core's measurements, or several cores' together.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// `None`: several cores together.
    pub core: Option<CoreId>,
    /// Where the counts begin.
    pub started: Time,
    /// Where they end.
    pub at: Time,
    /// On average one of this many events is timed.
    pub sample_every: u32,
    pub(super) stages: Vec<Histogram<u64>>,
    pub counters: Counters,
    pub gauges: Gauges,
    pub dropped: Dropped,
}

impl Snapshot {
    /// The times of a stage in nanoseconds.
    pub fn stage(&self, stage: Stage) -> &Histogram<u64> {
        &self.stages[stage as usize]
    }

    /// How long was counted.
    pub fn length(&self) -> Duration {
        self.at - self.started
    }

    /// "0", "1", ...; "all" for several cores together.
    pub fn core_name(&self) -> String {
        self.core.map_or("all".to_owned(), |core| core.0.to_string())
    }

    /// What came on top since `earlier`, an older snapshot of the same core. Gauges are those of now. When `earlier` is of another
    /// run (the core counts from a later start), everything has come on top.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        assert_eq!(self.core, earlier.core, "intervals are of one core");
        if earlier.started != self.started || earlier.at > self.at {
            return self.clone();
        }
        let mut interval = self.clone();
        interval.started = earlier.at;
        interval.counters = self.counters.since(&earlier.counters);
        interval.dropped = self.dropped.since(&earlier.dropped);
        for (stage, before) in interval.stages.iter_mut().zip(&earlier.stages) {
            stage.subtract(before).expect("histograms of one run only grow");
        }
        interval
    }

    /// All of these cores together: the longest time counted, everything else added up. `None` without any.
    pub fn merged<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> Option<Snapshot> {
        snapshots.into_iter().fold(None, |all, one| {
            let mut all = match all {
                None => return Some(Snapshot { core: None, ..one.clone() }),
                Some(all) => all,
            };
            all.started = all.started.min(one.started);
            all.at = all.at.max(one.at);
            all.counters.add(&one.counters);
            all.gauges.add(&one.gauges);
            all.dropped.add(&one.dropped);
            for (stage, more) in all.stages.iter_mut().zip(&one.stages) {
                stage.add(more).expect("all stages have one range");
            }
            Some(all)
        })
    }

    /// Nothing counted: what a core that has just started would give.
    pub fn empty(core: CoreId, now: Time) -> Snapshot {
        Snapshot {
            core: Some(core),
            started: now,
            at: now,
            sample_every: 1,
            stages: Stage::ALL.iter().map(|_| stage_histogram()).collect(),
            counters: Counters::default(),
            gauges: Gauges::default(),
            dropped: Dropped::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorder::Recorder;
    use super::*;
    use crate::base::reason::Reason;

    #[test]
    fn an_interval_holds_what_came_on_top_and_the_recorder_is_not_disturbed() {
        let mut recorder = Recorder::new(CoreId(1), 1, Time(100));
        recorder.record(Stage::Send, 1_000);
        recorder.counters.sends += 1;
        let first = recorder.snapshot(Time(200));
        assert_eq!(first, recorder.snapshot(Time(200)));
        recorder.record_many(Stage::Send, 50_000, 3);
        recorder.counters.sends += 3;
        recorder.gauges.sessions = 4;
        recorder.dropped.count(Reason::Flood);
        let interval = recorder.snapshot(Time(500)).since(&first);
        assert_eq!((interval.started, interval.at, interval.length()), (Time(200), Time(500), Duration::from_nanos(300)));
        assert_eq!((interval.counters.sends, interval.gauges.sessions, interval.dropped.get(Reason::Flood)), (3, 4, 1));
        let send = interval.stage(Stage::Send);
        assert_eq!(send.len(), 3);
        assert!(send.min() > 49_000 && send.max() < 51_000);
    }

    #[test]
    fn a_core_that_started_anew_has_no_negative_interval() {
        let mut old = Recorder::new(CoreId(0), 1, Time(0));
        old.counters.updates = 100;
        let before = old.snapshot(Time(50));
        let mut new = Recorder::new(CoreId(0), 1, Time(60));
        new.counters.updates = 5;
        assert_eq!(new.snapshot(Time(70)).since(&before).counters.updates, 5);
    }

    #[test]
    fn cores_add_up() {
        let snapshots: Vec<_> = (0..3)
            .map(|core| {
                let mut recorder = Recorder::new(CoreId(core), 1, Time(u64::from(core)));
                recorder.record_many(Stage::FanOut, 1_000 * u64::from(core + 1), 10);
                recorder.counters.updates = 7;
                recorder.gauges.users_online = 2;
                recorder.dropped.count(Reason::BadFrame);
                *recorder.snapshot(Time(1_000))
            })
            .collect();
        let all = Snapshot::merged(&snapshots).unwrap();
        assert_eq!((all.core, all.started, all.at), (None, Time(0), Time(1_000)));
        assert_eq!((all.counters.updates, all.gauges.users_online, all.dropped.get(Reason::BadFrame)), (21, 6, 3));
        assert_eq!(all.stage(Stage::FanOut).len(), 30);
        assert!(Snapshot::merged(&[]).is_none());
    }
}
