//! HdrHistogram interval logs (G5): V2, deflated, base64; one line per interval, core and stage, tagged `core0_apply`. The
//! project's own viewers, plotters and libraries in every language read them.
//!
//! Lives on: the control thread. Pure: snapshots and the wall clock come in, text goes out. Invariants: every event of a core that
//! is pushed regularly stands in exactly one interval; the log holds the last `keep` intervals, so its memory is bounded.

use super::snapshot::Snapshot;
use super::stage::Stage;
use crate::base::time::WallClock;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::collections::VecDeque;
use std::time::Duration;

/// Intervals kept in memory for `/histograms`: ten minutes at the default of ten seconds.
pub const INTERVALS_KEPT: usize = 60;

/// The last intervals of every core, as text.
pub struct IntervalLog {
    keep: usize,
    intervals: VecDeque<String>,
    /// The last snapshot of each core.
    last: Vec<Snapshot>,
}

impl IntervalLog {
    /// `keep`: intervals that `text` shows; older ones are forgotten.
    pub fn new(keep: usize) -> IntervalLog {
        IntervalLog { keep, intervals: VecDeque::new(), last: Vec::new() }
    }

    /// What a log begins with.
    pub fn header() -> &'static str {
        concat!(
            "#[Histogram log format version 1.3]\n",
            "#[fanal: one tag per core and stage; values and Interval_Max in nanoseconds]\n",
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        )
    }

    /// Ends an interval: the lines with what each core did since the last push, for appending to a file that begins with `header`.
    /// Stages without an event have no line. `wall` is the time of the snapshots.
    pub fn push(&mut self, snapshots: Vec<Snapshot>, wall: WallClock) -> &str {
        let intervals: Vec<Snapshot> = snapshots
            .iter()
            .map(|now| match self.last.iter().find(|last| last.core == now.core) {
                Some(last) => now.since(last),
                None => now.clone(),
            })
            .collect();
        self.last = snapshots;
        while self.intervals.len() >= self.keep.max(1) {
            self.intervals.pop_front();
        }
        self.intervals.push_back(lines(&intervals, wall));
        self.intervals.back().expect("it was just put there")
    }

    /// A whole log of the intervals kept, oldest first.
    pub fn text(&self) -> String {
        let mut text = String::from(IntervalLog::header());
        self.intervals.iter().for_each(|interval| text.push_str(interval));
        text
    }
}

/// The lines of one interval, in the order of the snapshots. `wall` is when it ended.
fn lines(intervals: &[Snapshot], wall: WallClock) -> String {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer =
        IntervalLogWriterBuilder::new().begin_log_with(&mut text, &mut serializer).expect("writing to memory does not fail");
    for interval in intervals {
        let start = Duration::from_millis(wall.0).saturating_sub(interval.length());
        for &stage in Stage::ALL.iter().filter(|&&stage| !interval.stage(stage).is_empty()) {
            let tag = format!("core{}_{}", interval.core_name(), stage.metric());
            let tag = Tag::new(&tag).expect("a tag of letters, digits and underscores");
            writer
                .write_histogram(interval.stage(stage), start, interval.length(), Some(tag))
                .expect("a histogram of u64 counts is serialised to memory");
        }
    }
    String::from_utf8(text).expect("interval logs are ASCII")
}

#[cfg(test)]
mod tests {
    use super::super::recorder::Recorder;
    use super::*;
    use crate::base::id::CoreId;
    use crate::base::time::Time;
    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    const SECOND: u64 = 1_000_000_000;

    /// Tag, start in ms, length in ms, events, largest value; read by the crate's own parser.
    fn read_back(text: &str) -> Vec<(String, u64, u64, u64, u64)> {
        IntervalLogIterator::new(text.as_bytes())
            .filter_map(|entry| match entry.expect("the parser takes every line") {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .map(|interval| {
                let bytes = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram = Deserializer::new().deserialize::<u64, _>(&mut &bytes[..]).unwrap();
                let ms = |duration: Duration| duration.as_millis() as u64;
                let tag = interval.tag().unwrap().as_str().to_owned();
                assert_eq!(interval.max(), histogram.max() as f64);
                (tag, ms(interval.start_timestamp()), ms(interval.duration()), histogram.len(), histogram.max())
            })
            .collect()
    }

    #[test]
    fn the_crates_own_parser_reads_back_every_interval_of_every_core_and_stage() {
        let mut cores: Vec<_> = (0..2).map(|core| Recorder::new(CoreId(core), 1, Time(0))).collect();
        let mut log = IntervalLog::new(10);
        for (end, nanos) in [(10, 1_000), (20, 5_000)] {
            cores[0].record_many(Stage::Apply, nanos, end);
            cores[1].record(Stage::Send, nanos);
            let snapshots = cores.iter().map(|core| *core.snapshot(Time(end * SECOND))).collect();
            log.push(snapshots, WallClock(1_700_000_000_000 + end * 1_000));
        }
        let largest = |nanos: u64| super::super::stage::stage_histogram().highest_equivalent(nanos);
        let start = 1_700_000_000_000;
        let expected = [
            ("core0_apply", start, 10_000, 10, largest(1_000)),
            ("core1_send", start, 10_000, 1, largest(1_000)),
            ("core0_apply", start + 10_000, 10_000, 20, largest(5_000)),
            ("core1_send", start + 10_000, 10_000, 1, largest(5_000)),
        ];
        assert_eq!(read_back(&log.text()), expected.map(|(tag, a, b, c, d)| (tag.to_owned(), a, b, c, d)));
    }

    #[test]
    fn the_log_forgets_what_is_older_than_it_may_keep() {
        let mut core = Recorder::new(CoreId(0), 1, Time(0));
        let mut log = IntervalLog::new(3);
        for second in 1..=10u64 {
            core.record_many(Stage::Decode, 100, second);
            let lines = log.push(vec![*core.snapshot(Time(second * SECOND))], WallClock(second * 1_000)).to_owned();
            assert_eq!(read_back(&lines).len(), 1);
        }
        let events: Vec<u64> = read_back(&log.text()).into_iter().map(|line| line.3).collect();
        assert_eq!(events, [8, 9, 10]);
    }

    #[test]
    fn an_interval_in_which_nothing_happened_has_no_lines() {
        let core = Recorder::new(CoreId(0), 1, Time(0));
        let mut log = IntervalLog::new(3);
        assert_eq!(log.push(vec![*core.snapshot(Time(SECOND))], WallClock(1_000)), "");
        assert_eq!(read_back(&log.text()), []);
    }
}
