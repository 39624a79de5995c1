//! What Prometheus scrapes keeps the rules of its text format (G5), as `promtool check metrics` would see it: a family is described
//! before its samples, stands in one place, has no sample twice, and histograms add up.
#![cfg(feature = "runtime")]

use fanal::base::config::keys;
use fanal::base::id::CoreId;
use fanal::base::limits::Limits;
use fanal::base::reason::Reason;
use fanal::base::time::{Time, WallClock};
use fanal::metrics::fields::{Counters, Gauges, LinkCounts, LinkGauges, NodeCount};
use fanal::metrics::process::Process;
use fanal::metrics::prometheus::{self, Links, Owners, Scrape};
use fanal::metrics::recorder::Recorder;
use fanal::metrics::stage::{Stage, stage_histogram};
use std::collections::{BTreeMap, BTreeSet};

/// Series (name and labels) with their values, or the faults of the text.
fn read(text: &str) -> Result<BTreeMap<String, f64>, Vec<String>> {
    let (mut series, mut faults) = (BTreeMap::new(), Vec::new());
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| {
        faults.push("no # EOF at the end".into());
        text
    });
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] if !help.is_empty() => {
                if !helped.insert(name.to_owned()) {
                    faults.push(format!("{name} is described twice"));
                }
            }
            ["#", "TYPE", name, what] => {
                if !helped.contains(name) || !typed.insert(name.to_owned()) {
                    faults.push(format!("{name} has no HELP before its TYPE, or two TYPEs"));
                }
                (family, kind) = (name.to_owned(), what.to_owned());
            }
            [] | ["#", ..] => faults.push(format!("not a line of the format: {line}")),
            _ => {
                let (id, value) = line.rsplit_once(' ').unwrap_or((line, ""));
                let (name, labels) = id.split_once('{').map_or((id, ""), |(name, rest)| (name, rest));
                let suffixes: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "histogram" => &["_sum", "_count", "_bucket"],
                    "gauge" => &[""],
                    _ => &[],
                };
                if family.is_empty() || !suffixes.iter().any(|suffix| name == format!("{family}{suffix}")) {
                    faults.push(format!("{name} is no sample of {family}, a {kind}"));
                }
                if !labels.is_empty() && !well_labelled(labels) {
                    faults.push(format!("bad labels: {line}"));
                }
                match value.parse::<f64>() {
                    Ok(value) if value.is_finite() => {
                        if series.insert(in_order(name, labels), value).is_some() {
                            faults.push(format!("{id} twice"));
                        }
                    }
                    _ => faults.push(format!("no number: {line}")),
                }
            }
        }
    }
    if faults.is_empty() { Ok(series) } else { Err(faults) }
}

/// A series' name with its labels in the order of their names.
fn in_order(name: &str, labels: &str) -> String {
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    labels.sort();
    if labels == [""] { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }
}

/// `name="value",...}`: the values here need no escapes.
fn well_labelled(labels: &str) -> bool {
    let Some(inside) = labels.strip_suffix('}') else { return false };
    inside.split(',').all(|label| {
        label.split_once("=\"").is_some_and(|(name, value)| {
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                && value.strip_suffix('"').is_some_and(|value| !value.is_empty() && !value.contains('"'))
        })
    })
}

fn scrape() -> BTreeMap<String, f64> {
    let snapshots = (0..2)
        .map(|core| {
            let mut recorder = Recorder::new(CoreId(core), 1, Time(0));
            for nanos in [500, 1_500, 900_000, 20_000_000_000] {
                recorder.record(Stage::EndToEnd, nanos);
            }
            recorder.counters = Counters { updates: 7, bytes_out: u64::from(core) << 40, ..Counters::default() };
            recorder.gauges = Gauges { sessions: 3, ..Gauges::default() };
            recorder.dropped.count(Reason::Flood);
            *recorder.snapshot(Time(1_000))
        })
        .collect();
    let mut store_syncs = stage_histogram();
    store_syncs.record(3_000_000).unwrap();
    let text = prometheus::text(Scrape {
        cores: snapshots,
        node: vec![NodeCount { name: "store_rows", help: "Rows written", value: 11 }],
        store_syncs,
        links: Links {
            peers: vec![
                ("2".into(), LinkCounts { link_dials: 3, ..LinkCounts::default() }, LinkGauges::default()),
                ("cluster-7".into(), LinkCounts::default(), LinkGauges { link_found: 1, ..LinkGauges::default() }),
            ],
            ended: vec![("silent".into(), 4)],
            owners: Some(Owners {
                up: true,
                joined: false,
                epoch: 70_000,
                free: 3,
                waiting: 2,
                members: vec![("serving", 5)],
                slots: vec![("7".into(), 65_533)],
            }),
        },
        limits: keys::limits(&Limits { sessions_per_user: 7, ..Limits::default() }),
        store_up: true,
        certificate_seconds_left: Some(-5),
        link_certificate_seconds_left: Some(6),
        process: Some(Process::read().unwrap()),
        started: WallClock(1_700_000_000_123),
    });
    read(&text).unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"))
}

#[test]
fn the_text_keeps_the_rules_and_has_every_name_for_every_core() {
    let series = scrape();
    for core in 0..2 {
        for field in Counters::FIELDS {
            assert!(series.contains_key(&format!("fanal_{}_total{{core=\"{core}\"}}", field.name)), "{}", field.name);
        }
        for field in Gauges::FIELDS {
            assert!(series.contains_key(&format!("fanal_{}{{core=\"{core}\"}}", field.name)), "{}", field.name);
        }
        for reason in Reason::ALL {
            let expected = if *reason == Reason::Flood { 1.0 } else { 0.0 };
            assert_eq!(series[&format!("fanal_dropped_total{{core=\"{core}\",reason=\"{}\"}}", reason.metric())], expected);
        }
    }
    for key in keys::KEYS.iter().filter(|key| key.section == "limits" && matches!(key.shape, keys::Shape::Number { .. })) {
        assert!(series.contains_key(&format!("fanal_limit{{key=\"{}\"}}", key.name)), "{}", key.name);
    }
    for node in ["2", "cluster-7"] {
        for field in LinkCounts::FIELDS {
            assert!(series.contains_key(&format!("fanal_{}_total{{node=\"{node}\"}}", field.name)), "{}", field.name);
        }
        for field in LinkGauges::FIELDS {
            assert!(series.contains_key(&format!("fanal_{}{{node=\"{node}\"}}", field.name)), "{}", field.name);
        }
    }
    let of_links =
        ["fanal_link_dials_total{node=\"2\"}", "fanal_link_found{node=\"cluster-7\"}", "fanal_link_ended_total{reason=\"silent\"}"];
    assert_eq!(of_links.map(|name| series[name]), [3.0, 1.0, 4.0]);
    assert_eq!((series["fanal_certificate_seconds_left"], series["fanal_link_certificate_seconds_left"]), (-5.0, 6.0));
    let of_owners = ["up", "joined", "epoch", "free", "wanted", "members{state=\"serving\"}", "slots{node=\"7\"}"];
    let of_owners = of_owners.map(|name| series[&format!("fanal_owners_{name}")]);
    assert_eq!(of_owners, [1.0, 0.0, 70_000.0, 3.0, 2.0, 5.0, 65_533.0]);
    assert_eq!(series["fanal_limit{key=\"sessions_per_user\"}"], 7.0);
    assert_eq!(series["fanal_updates_total{core=\"1\"}"], 7.0);
    assert_eq!(series["fanal_bytes_out_total{core=\"1\"}"], (1u64 << 40) as f64);
    assert_eq!(series["fanal_sessions{core=\"0\"}"], 3.0);
    assert_eq!(series["fanal_store_rows_total"], 11.0);
    assert_eq!((series["fanal_store_sync_seconds_count"], series["fanal_store_sync_seconds_bucket{le=\"0.005\"}"]), (1.0, 1.0));
    assert_eq!(series["process_start_time_seconds"], 1_700_000_000.123);
    assert!(series["process_resident_memory_bytes"] > 1e6);
}

/// The buckets of a stage by their ends in seconds.
fn buckets(series: &BTreeMap<String, f64>, core: u16, stage: &str) -> Vec<(f64, f64)> {
    let before = format!("fanal_stage_seconds_bucket{{core=\"{core}\",le=\"");
    let after = format!("\",stage=\"{stage}\"}}");
    let end = |id: &str| id.strip_prefix(&before)?.strip_suffix(&after)?.replace("+Inf", "inf").parse::<f64>().ok();
    let mut buckets: Vec<_> = series.iter().filter_map(|(id, &count)| Some((end(id)?, count))).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

#[test]
fn histograms_grow_with_their_ends_and_end_in_their_count() {
    let series = scrape();
    for stage in Stage::ALL {
        let buckets = buckets(&series, 0, stage.metric());
        assert_eq!(buckets.len(), 23, "{stage:?}");
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
        let count = series[&format!("fanal_stage_seconds_count{{core=\"0\",stage=\"{}\"}}", stage.metric())];
        assert_eq!(buckets[22], (f64::INFINITY, count));
    }
    let buckets = buckets(&series, 1, "end_to_end");
    let up_to = |seconds: f64| buckets.iter().find(|bucket| bucket.0 == seconds).map(|bucket| bucket.1);
    assert_eq!([1e-6, 2e-6, 5e-4, 1e-3, 10.0].map(up_to), [1.0, 2.0, 2.0, 3.0, 3.0].map(Some));
    let sum = series["fanal_stage_seconds_sum{core=\"1\",stage=\"end_to_end\"}"];
    assert!((sum / 20.000_902 - 1.0).abs() < 0.01, "{sum}");
}

#[test]
fn quantiles_are_told_per_core_and_stage_once_there_are_events() {
    let series = scrape();
    let of = |stage: &str, quantile: &str| {
        series.get(&format!("fanal_stage_quantile_seconds{{core=\"0\",quantile=\"{quantile}\",stage=\"{stage}\"}}"))
    };
    assert!((of("end_to_end", "0.5").unwrap() / 1.5e-6 - 1.0).abs() < 0.02);
    assert!((of("end_to_end", "1").unwrap() / 20.0 - 1.0).abs() < 0.02);
    assert_eq!(of("apply", "0.5"), None);
}

#[test]
fn the_check_finds_what_is_wrong() {
    let good = "# HELP a_x Help.\n# TYPE a_x counter\na_x_total{core=\"0\"} 1\n# EOF\n";
    assert!(read(good).is_ok());
    for (from, to) in [
        ("# EOF\n", ""),
        ("# HELP a_x Help.\n", ""),
        ("# TYPE a_x counter\n", ""),
        ("_total", ""),
        ("\"0\"", "0"),
        ("} 1", "} x"),
        ("# EOF", "a_x_total{core=\"0\"} 2\n# EOF"),
        ("# EOF", "# HELP a_x Again.\n# EOF"),
    ] {
        assert!(read(&good.replacen(from, to, 1)).is_err(), "{from:?} -> {to:?}");
    }
}
