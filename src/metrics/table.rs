//! What `fanal stats` prints (G5): a report of every core and of all together, as a table for people or as JSON for programs.
//!
//! Lives on: the control thread makes the `Report`, the command line prints it. Pure.

use super::fields::{Counters, Field, Gauges, LinkCounts, NodeCount};
use super::snapshot::Snapshot;
use super::stage::Stage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What `GET /stats` sends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// On average one of this many events is timed.
    pub sample_every: u32,
    pub cores: Vec<Part>,
    pub all: Part,
    /// What no core counts by itself: the store, and the links to all other nodes. Since the start, too.
    pub node: BTreeMap<String, u64>,
}

/// One core, or all of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// "0", "1", ... or "all".
    pub core: String,
    /// How long was counted.
    pub seconds: f64,
    pub stages: Vec<StageLine>,
    pub counters: BTreeMap<String, u64>,
    pub gauges: BTreeMap<String, u64>,
    /// By reason; those that never happened aren't there.
    pub dropped: BTreeMap<String, u64>,
}

/// The times of a stage, in microseconds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StageLine {
    pub stage: String,
    /// Events timed.
    pub count: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Report {
    /// A report of these cores. Without any, everything is 0.
    pub fn new(snapshots: &[Snapshot], node: &[NodeCount]) -> Report {
        let all = Snapshot::merged(snapshots);
        Report {
            sample_every: all.as_ref().map_or(1, |all| all.sample_every),
            cores: snapshots.iter().map(Part::new).collect(),
            all: all.as_ref().map_or_else(Part::nothing, Part::new),
            node: node.iter().map(|count| (count.name.to_owned(), count.value)).collect(),
        }
    }

    /// Adds what has happened on the links to another node.
    pub fn add_link(&mut self, counts: &LinkCounts) {
        for (name, count) in named(LinkCounts::FIELDS, counts.values()) {
            *self.node.entry(name).or_default() += count;
        }
    }

    /// The table for people: the stages per core and of all, then what was counted, gauged and dropped by all. What happened per
    /// second is told of the time since `earlier`, or else since the start.
    pub fn table(&self, earlier: Option<&Report>) -> String {
        let mut text = format!("stage times in us, 1 of {} events timed\n", self.sample_every);
        let _ = writeln!(
            text,
            "{:>5} {:<11} {:>12} {:>10} {:>10} {:>10} {:>10}",
            "core", "stage", "count", "p50", "p99", "p99.9", "max"
        );
        for part in self.cores.iter().chain([&self.all]) {
            for line in part.stages.iter().filter(|line| line.count > 0) {
                let StageLine { stage, count, p50_us, p99_us, p999_us, max_us } = line;
                let _ = writeln!(
                    text,
                    "{:>5} {stage:<11} {count:>12} {p50_us:>10.1} {p99_us:>10.1} {p999_us:>10.1} {max_us:>10.1}",
                    part.core
                );
            }
        }
        let _ = writeln!(text, "\n{:<24} {:>16} {:>14}", "counted", "total", "per second");
        for (name, &total) in self.all.counters.iter().chain(&self.node).filter(|&(_, &total)| total > 0) {
            let (before, began) = earlier.map_or((0, 0.0), |earlier| (earlier.counted(name), earlier.all.seconds));
            let per_second = total.saturating_sub(before) as f64 / (self.all.seconds - began).max(1e-9);
            let _ = writeln!(text, "{name:<24} {total:>16} {per_second:>14.1}");
        }
        columns(&mut text, "now", &self.all.gauges);
        columns(&mut text, "dropped", &self.all.dropped);
        text
    }

    fn counted(&self, name: &str) -> u64 {
        self.all.counters.get(name).or_else(|| self.node.get(name)).copied().unwrap_or_default()
    }
}

fn columns(text: &mut String, title: &str, numbers: &BTreeMap<String, u64>) {
    if numbers.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for (name, number) in numbers {
        let _ = writeln!(text, "{name:<24} {number:>16}");
    }
}

impl Part {
    fn new(snapshot: &Snapshot) -> Part {
        let dropped = snapshot.dropped.iter().filter(|&(_, n)| n > 0);
        Part {
            core: snapshot.core_name(),
            seconds: snapshot.length().as_secs_f64(),
            stages: Stage::ALL.iter().map(|&stage| StageLine::new(stage, snapshot)).collect(),
            counters: named(Counters::FIELDS, snapshot.counters.values()),
            gauges: named(Gauges::FIELDS, snapshot.gauges.values()),
            dropped: dropped.map(|(reason, n)| (reason.metric().to_owned(), n)).collect(),
        }
    }

    fn nothing() -> Part {
        Part {
            core: "all".into(),
            seconds: 0.0,
            stages: Vec::new(),
            counters: BTreeMap::new(),
            gauges: BTreeMap::new(),
            dropped: BTreeMap::new(),
        }
    }
}

fn named(fields: &[Field], values: impl Iterator<Item = u64>) -> BTreeMap<String, u64> {
    fields.iter().map(|field| field.name.to_owned()).zip(values).collect()
}

impl StageLine {
    fn new(stage: Stage, snapshot: &Snapshot) -> StageLine {
        let times = snapshot.stage(stage);
        let quantile = |quantile| times.value_at_quantile(quantile) as f64 / 1_000.0;
        StageLine {
            stage: stage.metric().to_owned(),
            count: times.len(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: times.max() as f64 / 1_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorder::Recorder;
    use super::*;
    use crate::base::id::CoreId;
    use crate::base::reason::Reason;
    use crate::base::time::Time;

    const NODE: [NodeCount; 1] = [NodeCount { name: "store_commits", help: "Commits", value: 30 }];

    fn two_cores() -> Vec<Snapshot> {
        (0..2)
            .map(|core| {
                let mut recorder = Recorder::new(CoreId(core), 16, Time(0));
                for n in 1..=1_000 {
                    recorder.record(Stage::FanOut, n * 1_000);
                }
                recorder.counters.deliveries = 5_000;
                recorder.gauges.sessions = 3;
                recorder.dropped.count(Reason::Flood);
                *recorder.snapshot(Time(10_000_000_000))
            })
            .collect()
    }

    #[test]
    fn the_table_shows_each_core_and_all_of_them() {
        let table = Report::new(&two_cores(), &NODE).table(None);
        let row = |begin: &[&str]| {
            let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            table.lines().map(cells).find(|cells| cells.iter().zip(begin).all(|(a, b)| a == b) && cells.len() >= begin.len())
        };
        assert_eq!(row(&["0", "fan_out"]).unwrap()[2..], ["1000", "501.8", "991.2", "999.4", "1003.5"]);
        assert_eq!(row(&["all", "fan_out"]).unwrap()[2], "2000");
        assert_eq!(row(&["deliveries"]).unwrap()[1..], ["10000", "1000.0"]);
        assert_eq!(row(&["store_commits"]).unwrap()[1..], ["30", "3.0"]);
        assert_eq!(row(&["sessions"]).unwrap()[1..], ["6"]);
        assert_eq!(row(&["flood"]).unwrap()[1..], ["2"]);
        assert_eq!(row(&["1", "apply"]), None, "stages without an event aren't shown");
    }

    #[test]
    fn what_happened_per_second_is_told_since_an_earlier_report() {
        let earlier = Report::new(&two_cores(), &NODE);
        let mut later = earlier.clone();
        later.all.seconds += 2.0;
        *later.all.counters.get_mut("deliveries").unwrap() += 7;
        let table = later.table(Some(&earlier));
        let rate = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().last().unwrap();
        assert_eq!((rate("deliveries"), rate("store_commits")), ("3.5", "0.0"));
    }

    #[test]
    fn a_node_without_cores_has_an_empty_report() {
        let report = Report::new(&[], &[]);
        assert_eq!((report.cores.len(), report.all.core.as_str()), (0, "all"));
        assert!(report.table(None).starts_with("stage times"));
    }
}
