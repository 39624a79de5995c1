//! `fanal bench`: each kind at a small size, with a node of its own and real sockets (G6). What is measured is not judged here: it
//! must all be there, and nothing may be lost.

#![cfg(feature = "runtime")]

mod support;

use fanal::bench::report::KEYS;
use simd_json::OwnedValue;
use simd_json::prelude::*;
use std::process::Command;

/// The report of a benchmark, as a program gets it.
fn report(args: &[&str]) -> OwnedValue {
    let (report, told) = report_and_words("error", args);
    assert!(told.is_empty(), "{args:?}: {told}");
    report
}

/// The same, and what was said beside it, with the nodes' log from this level on.
fn report_and_words(log: &str, args: &[&str]) -> (OwnedValue, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanal"));
    let output = command.arg("bench").args(args).arg("--json").env("FANAL_LOG", log).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {told}");
    let mut said = output.stdout;
    let report = simd_json::to_owned_value(&mut said).unwrap();
    assert_eq!(report["kind"], args[0]);
    assert_eq!(report["lost"], 0u64, "{args:?}");
    KEYS.iter().for_each(|&key| assert!(report.get(key).is_some(), "{key} in {report}"));
    (report, told)
}

fn number(report: &OwnedValue, key: &str) -> f64 {
    report.get(key).and_then(|value| value.cast_f64()).unwrap_or_else(|| panic!("no number {key} in {report}"))
}

fn assert_positive(report: &OwnedValue, keys: &[&str]) {
    keys.iter().for_each(|key| assert!(number(report, key) > 0.0, "{key} in {report}"));
}

fn assert_ascending(report: &OwnedValue, keys: [&str; 3]) {
    let [p50, p99, p999] = keys.map(|key| number(report, key));
    assert!(0.0 < p50 && p50 <= p99 && p99 <= p999, "{keys:?} in {report}");
}

const LATENCY: [&str; 3] = ["p50_us", "p99_us", "p999_us"];
const FLOOR_LATENCY: [&str; 3] = ["floor_p50_us", "floor_p99_us", "floor_p999_us"];

#[test]
fn fanout_holds_the_node_against_the_floor_in_both_loops() {
    let report = report(&["fanout", "--users", "20", "--subscribers", "5", "--seconds", "0.5", "--rounds", "1"]);
    assert_positive(&report, &["updates_per_s", "deliveries_per_s", "server_cpu_ns_per_delivery", "floor_cpu_ns_per_delivery"]);
    assert_positive(&report, &["floor_ratio", "sends_per_delivery", "floor_sends_per_delivery", "floor_us_to_send_to_all"]);
    assert_positive(&report, &["open_loop_updates_per_s", "open_loop_sends_per_delivery", "open_loop_floor_sends_per_delivery"]);
    assert_ascending(&report, LATENCY);
    assert_ascending(&report, FLOOR_LATENCY);
    assert_eq!(report["surplus"], 0u64);
}

#[test]
fn fanout_at_a_given_rate_holds_it_and_so_does_the_floor() {
    let size = ["fanout", "--users", "20", "--subscribers", "5", "--seconds", "0.3"];
    let report = report(&[&size[..], &["--rate", "500"]].concat());
    assert!((100.0..=900.0).contains(&number(&report, "updates_per_s")), "{report}");
    assert_positive(&report, &["deliveries_per_s", "floor_ratio", "sends_per_delivery", "floor_sends_per_delivery"]);
    assert_ascending(&report, LATENCY);
    assert_ascending(&report, FLOOR_LATENCY);
}

#[test]
fn fanout_by_trunk_loses_nothing() {
    let size = ["fanout", "--users", "40", "--subscribers", "5", "--seconds", "0.5", "--rounds", "1"];
    let report = report(&[&size[..], &["--trunk", "3"]].concat());
    assert_eq!(report["connections"], 3u64);
    assert!(report["floor_ratio"].is_null(), "a trunk carries an update once for many: there is no floor to hold it against");
    assert_positive(&report, &["deliveries_per_s"]);
}

#[test]
fn fanout_through_every_door_loses_nothing() {
    for door in ["xmpp", "ws"] {
        let size = ["fanout", "--users", "20", "--subscribers", "5", "--seconds", "0.5", "--rounds", "1"];
        let report = report(&[&size[..], &["--door", door]].concat());
        assert_positive(&report, &["updates_per_s", "deliveries_per_s", "server_cpu_ns_per_delivery", "floor_cpu_ns_per_delivery"]);
        assert_positive(&report, &["floor_ratio", "sends_per_delivery", "open_loop_updates_per_s"]);
        assert!(number(&report, "bytes_per_session").is_finite(), "{report}");
        assert!((100.0..300.0).contains(&number(&report, "event_bytes")), "{report}");
        assert_ascending(&report, LATENCY);
        assert_ascending(&report, FLOOR_LATENCY);
        assert_eq!(report["surplus"], 0u64);
    }
}

/// Everybody sees every contact, and no core asks a publisher's home twice.
#[test]
fn in_a_storm_everybody_sees_all_contacts_for_one_question_per_core_and_publisher() {
    for way in [&[][..], &["--connected"], &["--trunk", "2"], &["--rate", "1000"]] {
        let report =
            report(&[&["storm", "--users", "51", "--subscribers", "6", "--rounds", "2", "--seconds", "0.01"], way].concat());
        assert_positive(
            &report,
            &["log_ins_per_s", "log_ins_per_s_per_core", "server_cpu_us_per_log_in", "log_ins_per_server_cpu_s"],
        );
        assert_positive(&report, &["watches", "deliveries_per_s"]);
        assert!(number(&report, "watches_per_core_and_publisher") <= 1.0, "{way:?}: {report}");
        assert_ascending(&report, LATENCY);
    }
}

#[test]
fn idle_tells_sessions_from_accounts() {
    let report = report(&["idle", "--users", "60", "--seconds", "0.1"]);
    for key in ["bytes_per_session", "bytes_per_account", "bytes_per_new_user", "bytes_per_further_new_user"] {
        assert!(number(&report, key).is_finite());
    }
    assert!(number(&report, "idle_server_cpu_us_per_s") < 1_000_000.0, "{report}");
}

#[test]
fn idle_sessions_are_measured_at_each_door_inside_tls_and_outside() {
    for way in [&["--door", "xmpp"][..], &["--door", "xmpp", "--tls"], &["--door", "ws"], &["--tls"]] {
        let report = report(&[&["idle", "--users", "30", "--seconds", "0.1"], way].concat());
        for key in ["bytes_per_session", "bytes_per_further_session", "bytes_per_account"] {
            assert!(number(&report, key).is_finite(), "{way:?}: {report}");
        }
    }
}

#[test]
fn inside_tls_fanout_is_held_against_encryption_alone() {
    for door in ["native", "xmpp", "ws"] {
        let size = ["--users", "20", "--subscribers", "5", "--seconds", "0.5", "--rounds", "1"];
        let report = report(&[&["fanout", "--door", door, "--tls"], &size[..]].concat());
        assert_positive(&report, &["deliveries_per_s", "server_cpu_ns_per_delivery", "floor_ratio"]);
        assert_positive(&report, &["tls_record_bytes", "tls_records_per_delivery", "tls_encryption_ns_per_delivery"]);
        assert!(number(&report, "tls_records_per_delivery") <= 1.5, "a record holds all there is to send: {report}");
        assert_eq!(report["surplus"], 0u64);
    }
}

#[test]
fn the_floor_is_measured_by_itself() {
    let report = report(&["floor", "--users", "20", "--subscribers", "5", "--seconds", "0.5", "--rounds", "1"]);
    assert_positive(&report, &["updates_per_s", "deliveries_per_s", "floor_cpu_ns_per_delivery", "floor_us_to_send_to_all"]);
    assert_positive(&report, &["open_loop_updates_per_s", "sends_per_delivery"]);
    assert_ascending(&report, LATENCY);
}

/// Rows Z5, Z6, Z10, M4: an update crosses to another cluster once, however many subscribers are there, as seen on the wire.
#[test]
fn z6_clusters_are_told_of_each_update_once() {
    for (subscribers, nodes, extra) in [("1", "1", None), ("15", "2", None), ("15", "1", Some("--patient"))] {
        let size = ["cluster", "--users", "20", "--seconds", "0.5", "--rounds", "1", "--load", "0", "--window", "1"];
        let given = ["--subscribers", subscribers, "--nodes", nodes];
        let report = report(&[&size[..], &given, &extra.into_iter().collect::<Vec<_>>()].concat());
        assert_eq!(number(&report, "messages_per_update_across"), 1.0, "{report}");
        assert_eq!(number(&report, "gathered") > 0.9, extra.is_some(), "{report}");
        assert_positive(&report, &["bytes_per_update_across", "updates_per_s"]);
        assert_positive(&report, &["sending_cpu_ns_per_update", "receiving_cpu_ns_per_update"]);
    }
}

/// Rows Z2, Z6: what TLS adds to the links is counted in bytes.
#[test]
fn z6_inside_tls_bytes_are_counted_and_messages_cannot_be() {
    let size = ["cluster", "--users", "20", "--subscribers", "5", "--seconds", "0.5", "--rate", "1000", "--nodes", "1"];
    let [clear, sealed] = [None, Some("--tls")].map(|tls| report(&[&size[..], tls.as_slice()].concat()));
    assert_eq!((&clear["tls"], &sealed["tls"]), (&0u64.into(), &1u64.into()));
    let bytes = [&clear, &sealed].map(|report| number(report, "bytes_per_update_across"));
    assert!(bytes[0] + 5.0 < bytes[1], "{bytes:?}");
    assert!(sealed.get("messages_per_update_across").is_none(), "{sealed}");
}

/// Whoever may lets the nodes go first, and whoever may not is told how to.
#[test]
fn the_nodes_go_first_or_it_is_said_who_may_let_them() {
    let size = ["bench", "cluster", "--users", "20", "--subscribers", "5", "--seconds", "0.2", "--rate", "500", "--nodes", "1"];
    let output = Command::new(env!("CARGO_BIN_EXE_fanal")).args(size).args(["--nodes-first", "--json"]).output().unwrap();
    let [said, told] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    match output.status.success() {
        true => assert!(said.contains("\"nodes_first\":1"), "{said}"),
        false => assert!(told.contains("ulimit -r"), "{told}"),
    }
}

/// Rows Z5, Z12: news that only inactive clients would see waits, whoever else's does not.
#[test]
fn z12_what_nobody_looks_at_gathers() {
    let size = ["cluster", "--users", "20", "--subscribers", "1", "--seconds", "1", "--rate", "500", "--nodes", "1"];
    let [some, all] = ["0.5", "1"].map(|share| report(&[&size[..], &["--inactive", share]].concat()));
    assert_eq!((&some["unheeded"], &all["unheeded"]), (&10u64.into(), &20u64.into()));
    assert!(number(&some, "gathered") > 0.0 && number(&some, "messages_per_update_across") > 0.4, "{some}");
    assert!(
        number(&all, "gathered") == 1.0 && number(&all, "messages_per_update_across") < 0.4,
        "newer news replaces older: {all}"
    );
}

/// Rows M1, Z13: the users of a killed node log in at the other one.
#[test]
fn m1_the_users_of_a_lost_node_are_counted_until_all_are_back() {
    let Some(server) = support::postgres::server() else { return };
    let url = server.new_url();
    let report = report(&["take-over", "--store", &url, "--users", "200", "--subscribers", "4"]);
    assert!((50..=150).contains(&report["taken_over"].as_u64().unwrap()), "{report}");
    assert_positive(&report, &["noticed_ms", "server_cpu_us_per_user"]);
    assert!(number(&report, "back_ms") >= number(&report, "noticed_ms") + number(&report, "loading_ms"), "{report}");
}

/// Row Z13: after a cut that has shown everybody as gone, everybody is seen as they are, on the wire too for what changed.
#[test]
fn z13_after_a_cut_everybody_is_seen_as_they_are() {
    let (report, told) =
        report_and_words("warn", &["cluster", "--users", "20", "--subscribers", "5", "--nodes", "1", "--cut", "4"]);
    assert!(told.contains("the network is cut"), "the nodes noticed: {told}");
    assert_positive(&report, &["unchanged_resync_bytes", "resync_ms", "resync_bytes", "all_changed_resync_ms"]);
    assert_eq!(report["changed"], 1u64);
    assert!(number(&report, "all_changed_resync_bytes") > number(&report, "unchanged_resync_bytes"), "{report}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_fix() {
    let refused = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_fanal")).arg("bench").args(args).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["fanout", "--users", "10", "--subscribers", "10"]).contains("fewer than --users"));
    assert!(refused(&["storm", "--users", "11", "--subscribers", "3"]).contains("must be even"));
    let target = ["--target", "127.0.0.1:1", "--data", "no/such/directory", "--token-key", "a key that no node has, 32 bytes"];
    assert!(refused(&[&["storm"], &target[..]].concat()).contains("say --trunk-key"));
    assert!(refused(&[&["fanout"], &target[..]].concat()).contains("is the node running"));
    assert!(refused(&["fanout", "--door", "ws", "--trunk", "3"]).contains("only native users share connections"));
    assert!(refused(&["storm", "--trunk", "2", "--connected"]).contains("trunks are always open before a storm"));
    assert!(refused(&["fanout", "--door", "redis"]).contains("name the server that does with --target"));
    assert!(refused(&["fanout", "--door", "nats", "--target", "127.0.0.1:1", "--tls"]).contains("without TLS"));
    assert!(refused(&["cluster", "--cut", "3", "--untapped"]).contains("leave --untapped out"));
    assert!(refused(&["cluster", "--tls", "--nodes", "2"]).contains("say --nodes 1, or --untapped"));
    assert!(refused(&["cluster", "--inactive", "0.5"]).contains("say --rate"));
    assert!(refused(&["cluster", "--inactive", "2"]).contains("a share from 0 to 1"));
    assert!(refused(&["take-over", "--store", "fanal-data"]).contains("does not begin with postgres://"));
    assert!(refused(&["idle", "--door", "redis"]).contains("write native, xmpp or ws"));
    assert!(refused(&["fanout", "--pid", "1"]).contains("say where it listens with --target"));
    assert!(refused(&["floor", "--rate=-1"]).contains("write a number from 0"));
    assert!(refused(&["memory", "--seconds", "0"]).contains("write seconds, above 0"));
    assert!(refused(&["floor", "--load-core", "4000"]).contains("--load-core: processor 4000 is not available"));
    assert!(refused(&["fanout", "--cores", "0,0"]).contains("--cores: processor 0 stands there twice"));
}
