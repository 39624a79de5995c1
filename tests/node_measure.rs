//! What a running node tells of itself (G5, C1) and what an operator can do to it (C8).
mod support;

use fanal::admin::client::Client as Admin;
use fanal::client::{Event, Presence};
use support::*;

/// Changes of presence by each publisher.
const CHANGES: usize = 100;

/// A node with its admin API on any port, and a client of it.
fn with_admin(cores: usize) -> (TestNode, Admin) {
    let mut config = config(cores);
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    config.metrics.sample = 1;
    let mut node = TestNode::start(&config);
    let address = node.0.as_mut().unwrap().start_admin(&config).unwrap();
    (node, Admin::new(address, None))
}

/// The sum over all cores of a counter in the Prometheus text.
fn metric(text: &str, name: &str) -> f64 {
    let samples = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn g5_c1_every_stage_and_counter_can_be_read_while_the_node_runs() {
    for cores in [1, 2] {
        let (node, admin) = with_admin(cores);
        let mut publishers: Vec<_> = (0..4).map(|n| node.user(&format!("publisher{n}@localhost"), "p")).collect();
        let mut subscriber = node.user("subscriber@localhost", "s");
        available(&mut subscriber);
        for publisher in &mut publishers {
            available(publisher);
            subscribe(&mut subscriber, publisher);
            presence(&mut subscriber);
            // Enough for the driver to time some: it times one receive and one send of 64.
            for _ in 0..CHANGES {
                publisher.set_presence(&Presence { payload: vec![1; 4000], ..Presence::default() }).unwrap();
                presence(&mut subscriber);
            }
        }
        let text = admin.get("/metrics").unwrap();
        let changes = 4.0 * CHANGES as f64;
        assert_eq!(metric(&text, "fanal_updates_total"), 5.0 + changes, "five initial presences and the changes");
        assert!(metric(&text, "fanal_deliveries_total") >= changes);
        assert!(metric(&text, "fanal_message_units_in_total") >= 2.0 * changes, "C1: a message above the unit counts as several");
        assert!(metric(&text, "fanal_message_units_out_total") >= 3.0 * changes, "C1");
        assert!(metric(&text, "fanal_published_bytes_total") >= 4000.0 * changes, "C1: size of what is published");
        assert_eq!(metric(&text, "fanal_sessions"), 5.0);
        assert_eq!(metric(&text, "fanal_subscriptions"), 4.0, "C1: number of subscriptions");
        assert_eq!(metric(&text, "fanal_cq_overflow_total"), 0.0);
        for stage in ["receive", "decode", "apply", "fan_out", "flush_wait", "send", "end_to_end"] {
            let timed = text
                .lines()
                .any(|line| line.starts_with("fanal_stage_seconds_count{") && line.contains(stage) && !line.ends_with(" 0"));
            assert!(timed, "stage {stage} was timed:\n{text}");
        }
        assert!(admin.stats().is_ok());
    }
}

#[test]
fn c8_the_operator_tells_a_users_sessions_to_go_on_elsewhere() {
    let (node, admin) = with_admin(2);
    let mut alice = node.user("alice@localhost", "a");
    let mut bob = node.user("bob@localhost", "b");
    available(&mut alice);
    available(&mut bob);
    subscribe(&mut bob, &mut alice);
    presence(&mut bob);
    let address = node.address();
    assert_eq!(admin.transfer("alice@localhost", &address).unwrap(), 1);
    let told = until(&mut alice, |event| match event {
        Event::Transfer(address) => Some(address),
        _ => None,
    });
    assert_eq!(told, address);
    assert!(alice.follow(&told).unwrap().resumed);
    alice.set_presence(&Presence { status: "moved".into(), ..Presence::default() }).unwrap();
    assert_eq!(presence(&mut bob).presence.unwrap().status, "moved", "no farewell in between");
    assert!(admin.transfer("nobody@localhost", &address).is_err());
}
