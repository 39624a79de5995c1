//! Snapshots as Prometheus reads them (G5, C1): the OpenMetrics text format, made by `prometheus-client`.
//!
//! Lives on: the control thread, at each scrape. Every sample has the label `core`, but for those of the node and the process. The
//! stages come twice: as a classic histogram, from which Prometheus makes quantiles of any interval, and as quantiles since the
//! start, which are exact to 1 %.

use super::fields::{Counters, Field, Gauges, LinkCounts, LinkGauges, NodeCount};
use super::process::Process;
use super::snapshot::Snapshot;
use super::stage::Stage;
use crate::base::time::WallClock;
use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt::Error;

/// What the answer to a scrape declares itself to be.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the buckets, in nanoseconds: 1 us to 10 s. What is longer is in `+Inf`.
const BUCKETS: [u64; 22] = {
    let mut ends = [0; 22];
    let (mut at, mut decade) = (0, 1_000);
    while at < 22 {
        ends[at] = decade * [1, 2, 5][at % 3];
        if at % 3 == 2 {
            decade *= 10;
        }
        at += 1;
    }
    ends
};

const QUANTILES: [(&str, f64); 5] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("0.999", 0.999), ("1", 1.0)];

/// What a scrape is told.
#[derive(Debug)]
pub struct Scrape {
    pub cores: Vec<Snapshot>,
    /// Counts of the node as a whole. Their names differ from those of `Counters`.
    pub node: Vec<NodeCount>,
    pub links: Links,
    /// Waits of the store for the disk, in nanoseconds.
    pub store_syncs: Histogram<u64>,
    /// Whether the store can be reached.
    pub store_up: bool,
    /// What may be used up at most, by the keys of `[limits]`.
    pub limits: Vec<(&'static str, u64)>,
    /// Left out when the certificate doesn't say.
    pub certificate_seconds_left: Option<i64>,
    /// The same of the one for links.
    pub link_certificate_seconds_left: Option<i64>,
    /// Left out when it can't be read.
    pub process: Option<Process>,
    /// When the process began.
    pub started: WallClock,
}

/// The links to other nodes.
#[derive(Debug, Default)]
pub struct Links {
    /// By the other node's name.
    pub peers: Vec<(String, LinkCounts, LinkGauges)>,
    /// Connections turned away or ended, by reason.
    pub ended: Vec<(String, u64)>,
    /// Who owns which users; `None`: all are here.
    pub owners: Option<Owners>,
}

/// Who owns which users of a cluster.
#[derive(Debug)]
pub struct Owners {
    /// Whoever keeps the table answers.
    pub up: bool,
    /// This node is a member.
    pub joined: bool,
    pub epoch: u32,
    pub free: u32,
    pub waiting: u32,
    /// How many are in each state.
    pub members: Vec<(&'static str, u64)>,
    /// By node.
    pub slots: Vec<(String, u32)>,
}

/// The whole answer to a scrape.
pub fn text(mut scrape: Scrape) -> String {
    let mut registry = Registry::default();
    let fanal = registry.sub_registry_with_prefix("fanal");
    fanal.register_collector(Box::new(Cores(scrape.cores)));
    fanal.register_collector(Box::new(OfNode {
        counts: scrape.node,
        store_syncs: scrape.store_syncs,
        store_up: scrape.store_up,
        certificates: [
            ("certificate_seconds_left", scrape.certificate_seconds_left),
            ("link_certificate_seconds_left", scrape.link_certificate_seconds_left),
        ],
    }));
    let Links { owners, .. } = &mut scrape.links;
    owners.take().into_iter().for_each(|owners| fanal.register_collector(Box::new(owners)));
    fanal.register_collector(Box::new(scrape.links));
    fanal.register_collector(Box::new(OfConfig(scrape.limits)));
    if let Some(process) = scrape.process {
        registry.sub_registry_with_prefix("process").register_collector(Box::new(OfProcess(process, scrape.started)));
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to memory does not fail");
    text
}

/// Labels of one sample.
#[derive(Debug)]
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), Error> {
        self.0.encode(encoder)
    }
}

#[derive(Debug)]
struct Cores(Vec<Snapshot>);

impl Collector for Cores {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let names: Vec<String> = self.0.iter().map(Snapshot::core_name).collect();
        let cores: Vec<(&str, &Snapshot)> = names.iter().map(String::as_str).zip(&self.0).collect();
        counters(&mut encoder, &cores)?;
        gauges(&mut encoder, &cores)?;
        dropped(&mut encoder, &cores)?;
        histograms(&mut encoder, &cores)?;
        quantiles(&mut encoder, &cores)
    }
}

fn help(field: &Field) -> String {
    format!("{}, in {}.", field.help, field.unit)
}

fn counters(encoder: &mut DescriptorEncoder, cores: &[(&str, &Snapshot)]) -> Result<(), Error> {
    for (at, field) in Counters::FIELDS.iter().enumerate() {
        let mut metric = encoder.encode_descriptor(field.name, &help(field), None, MetricType::Counter)?;
        for (core, snapshot) in cores {
            let value = snapshot.counters.values().nth(at).expect("as many values as fields");
            ConstCounter::new(value).encode(metric.encode_family(&Labels(&[("core", core)]))?)?;
        }
    }
    Ok(())
}

fn gauges(encoder: &mut DescriptorEncoder, cores: &[(&str, &Snapshot)]) -> Result<(), Error> {
    for (at, field) in Gauges::FIELDS.iter().enumerate() {
        let mut metric = encoder.encode_descriptor(field.name, &help(field), None, MetricType::Gauge)?;
        for (core, snapshot) in cores {
            let value = snapshot.gauges.values().nth(at).expect("as many values as fields");
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(metric.encode_family(&Labels(&[("core", core)]))?)?;
        }
    }
    Ok(())
}

fn dropped(encoder: &mut DescriptorEncoder, cores: &[(&str, &Snapshot)]) -> Result<(), Error> {
    let help = "What was refused, dropped or ended, by reason.";
    let mut metric = encoder.encode_descriptor("dropped", help, None, MetricType::Counter)?;
    for (core, snapshot) in cores {
        for (reason, count) in snapshot.dropped.iter() {
            let labels = [("core", *core), ("reason", reason.metric())];
            ConstCounter::new(count).encode(metric.encode_family(&Labels(&labels))?)?;
        }
    }
    Ok(())
}

fn histograms(encoder: &mut DescriptorEncoder, cores: &[(&str, &Snapshot)]) -> Result<(), Error> {
    let stages: Vec<String> = Stage::ALL.iter().map(|stage| format!("{}: {}", stage.metric(), stage.help())).collect();
    let help = format!("Time of the events timed, by stage. {}.", stages.join("; "));
    let mut metric = encoder.encode_descriptor("stage_seconds", &help, None, MetricType::Histogram)?;
    for (core, snapshot) in cores {
        for &stage in Stage::ALL {
            let (sum, buckets) = buckets(snapshot.stage(stage));
            let labels = [("core", *core), ("stage", stage.metric())];
            let count = snapshot.stage(stage).len();
            metric.encode_family(&Labels(&labels))?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    Ok(())
}

/// The sum in seconds, and how many events fall into each bucket, by its end in seconds.
fn buckets(times: &Histogram<u64>) -> (f64, Vec<(f64, u64)>) {
    let ends = BUCKETS.iter().map(|&end| end as f64 / 1e9).chain([f64::INFINITY]);
    let mut buckets: Vec<(f64, u64)> = ends.map(|end| (end, 0)).collect();
    let mut sum = 0.0;
    for point in times.iter_recorded() {
        let nanos = times.median_equivalent(point.value_iterated_to());
        buckets[BUCKETS.partition_point(|&end| end < nanos)].1 += point.count_at_value();
        sum += nanos as f64 / 1e9 * point.count_at_value() as f64;
    }
    (sum, buckets)
}

fn quantiles(encoder: &mut DescriptorEncoder, cores: &[(&str, &Snapshot)]) -> Result<(), Error> {
    let help = "Quantiles of the time of the events timed since the start, by stage; the quantile 1 is the maximum.";
    let mut metric = encoder.encode_descriptor("stage_quantile_seconds", help, None, MetricType::Gauge)?;
    for (core, snapshot) in cores {
        for &stage in Stage::ALL.iter().filter(|&&stage| !snapshot.stage(stage).is_empty()) {
            for (name, quantile) in QUANTILES {
                let seconds = snapshot.stage(stage).value_at_quantile(quantile) as f64 / 1e9;
                let labels = [("core", *core), ("stage", stage.metric()), ("quantile", name)];
                ConstGauge::new(seconds).encode(metric.encode_family(&Labels(&labels))?)?;
            }
        }
    }
    Ok(())
}

#[derive(Debug)]
struct OfNode {
    counts: Vec<NodeCount>,
    store_syncs: Histogram<u64>,
    store_up: bool,
    certificates: [(&'static str, Option<i64>); 2],
}

impl Collector for OfNode {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        for count in &self.counts {
            let metric = encoder.encode_descriptor(count.name, &format!("{}.", count.help), None, MetricType::Counter)?;
            ConstCounter::new(count.value).encode(metric)?;
        }
        for (name, left) in self.certificates {
            let Some(left) = left else { continue };
            let help = "Seconds until the TLS certificate ends, below 0 afterwards; link_: the one for links.";
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(left).encode(metric)?;
        }
        let help = "1 while the store can be reached, 0 while its database is away.";
        let metric = encoder.encode_descriptor("store_up", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(self.store_up)).encode(metric)?;
        let help = "Waits of the store for the disk, one for each transaction.";
        let (sum, buckets) = buckets(&self.store_syncs);
        let mut metric = encoder.encode_descriptor("store_sync_seconds", help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, self.store_syncs.len(), &buckets, None)
    }
}

impl Collector for Links {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        if self.peers.is_empty() {
            return Ok(());
        }
        for (at, field) in LinkCounts::FIELDS.iter().enumerate() {
            let mut metric = encoder.encode_descriptor(field.name, &help(field), None, MetricType::Counter)?;
            for (node, counts, _) in &self.peers {
                let value = counts.values().nth(at).expect("as many values as fields");
                ConstCounter::new(value).encode(metric.encode_family(&Labels(&[("node", node)]))?)?;
            }
        }
        for (at, field) in LinkGauges::FIELDS.iter().enumerate() {
            let mut metric = encoder.encode_descriptor(field.name, &help(field), None, MetricType::Gauge)?;
            for (node, _, gauges) in &self.peers {
                let value = gauges.values().nth(at).expect("as many values as fields");
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(metric.encode_family(&Labels(&[("node", node)]))?)?;
            }
        }
        let help = "Links turned away or ended, by reason.";
        let mut metric = encoder.encode_descriptor("link_ended", help, None, MetricType::Counter)?;
        for (reason, count) in &self.ended {
            ConstCounter::new(*count).encode(metric.encode_family(&Labels(&[("reason", reason)]))?)?;
        }
        Ok(())
    }
}

impl Collector for Owners {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let gauges = [
            ("owners_up", "1 while whoever keeps the table of owners answers.", i64::from(self.up)),
            ("owners_joined", "1 while this node is a member of its cluster.", i64::from(self.joined)),
            ("owners_epoch", "The highest epoch of the table of owners that is known here.", self.epoch.into()),
            ("owners_free", "Slots of users that no node owns.", self.free.into()),
            ("owners_wanted", "Slots that this node wants an owner for, and that have none yet.", self.waiting.into()),
        ];
        for (name, help, value) in gauges {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Nodes of the cluster, by state.";
        let mut metric = encoder.encode_descriptor("owners_members", help, None, MetricType::Gauge)?;
        for (state, count) in &self.members {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(metric.encode_family(&Labels(&[("state", state)]))?)?;
        }
        let help = "Slots of users that a node owns, of 65,536.";
        let mut metric = encoder.encode_descriptor("owners_slots", help, None, MetricType::Gauge)?;
        for (node, slots) in &self.slots {
            ConstGauge::new(i64::from(*slots)).encode(metric.encode_family(&Labels(&[("node", node)]))?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OfConfig(Vec<(&'static str, u64)>);

impl Collector for OfConfig {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let help = "What one client, user or core may use up at most, by the key in [limits].";
        let mut metric = encoder.encode_descriptor("limit", help, None, MetricType::Gauge)?;
        for (key, limit) in &self.0 {
            let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
            ConstGauge::new(limit).encode(metric.encode_family(&Labels(&[("key", key)]))?)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OfProcess(Process, WallClock);

impl Collector for OfProcess {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let OfProcess(process, started) = self;
        let help = "Processor time used by all threads, in seconds.";
        let cpu = encoder.encode_descriptor("cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(process.cpu.as_secs_f64()).encode(cpu)?;
        let gauges = [
            ("resident_memory_bytes", "Physical memory held, in bytes.", process.resident_bytes as f64),
            ("open_fds", "Descriptors open.", process.open_fds as f64),
            ("max_fds", "Descriptors that may be open.", process.max_fds as f64),
            ("start_time_seconds", "When the process started, in seconds since 1970.", started.0 as f64 / 1e3),
        ];
        for (name, help, value) in gauges {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::stage_histogram;
    use super::*;

    #[test]
    fn buckets_go_from_a_microsecond_to_ten_seconds_in_steps_of_1_2_5() {
        assert_eq!(BUCKETS[..4], [1_000, 2_000, 5_000, 10_000]);
        assert_eq!(BUCKETS[21], 10_000_000_000);
    }

    #[test]
    fn every_event_falls_into_one_bucket() {
        let mut times = stage_histogram();
        for nanos in [10, 999, 1_500, 4_000_000_000, 30_000_000_000] {
            times.saturating_record(nanos);
        }
        let (sum, buckets) = buckets(&times);
        let filled: Vec<_> = buckets.iter().filter(|bucket| bucket.1 > 0).copied().collect();
        assert_eq!(filled, [(1e-6, 2), (2e-6, 1), (5.0, 1), (f64::INFINITY, 1)]);
        assert!((sum - 34.0).abs() < 0.4, "{sum}");
    }
}
