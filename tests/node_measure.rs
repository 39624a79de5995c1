//! What a running node tells of itself (G5, C1) and what an operator can do to it (C8).
mod support;

use fanal::admin::ClientEntry;
use fanal::admin::client::Client as Admin;
use fanal::base::id::UserId;
use fanal::client::{Answer, Client, Event, Presence, Trunk, TrunkEvent};
use fanal::wire::encode::SubscriptionFields;
use fanal::wire::native::Action;
use std::collections::BTreeSet;
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
fn g5_what_is_counted_is_counted_from_the_nodes_start_on_the_store_included() {
    let (before, started) = (fanal::drive::clock::now(), std::time::Instant::now());
    assert!(before.0 > 0, "the machine runs longer than the node");
    let (node, admin) = with_admin(2);
    let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    subscribe(&mut alice, &mut bob);
    let report = admin.stats().unwrap();
    assert!(report.all.seconds > 0.0 && report.all.seconds <= started.elapsed().as_secs_f64(), "{} s", report.all.seconds);
    let commits = report.node["store_commits"];
    assert!(commits >= report.all.counters["changes_stored"] && report.all.counters["changes_stored"] >= 4, "{report:?}");
    let text = admin.get("/metrics").unwrap();
    let line = |name: &str| text.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
    assert!(line("fanal_store_commits_total ") && line("fanal_store_sync_seconds_count "), "{text}");
}

/// Publishers and subscribers of a trunk live on both cores, and many updates are on their way at once.
#[test]
fn g3_what_goes_to_another_core_goes_in_batches() {
    const PUBLISHERS: u32 = 64;
    const ROUNDS: u32 = 20;
    let (node, admin) = with_admin(2);
    let mut fan = node.user("fan@localhost", "f");
    available(&mut fan);
    let mut trunk = node.trunk();
    let jids: Vec<String> = (0..PUBLISHERS).map(|n| format!("publisher{n}@localhost")).collect();
    trunk.log_in_all(1, &jids, "game").unwrap();
    for stream in 1..=PUBLISHERS {
        let fields =
            SubscriptionFields { action: Action::Subscribed, jid: "fan@localhost", user: UserId::NOBODY, note: "", extensions: "" };
        trunk.send(stream, |encoder, out, tag| encoder.subscription(out, tag, &fields));
    }
    answers(&mut trunk, PUBLISHERS);
    jids.iter().for_each(|jid| fan.subscribe(jid, "").unwrap());
    let approved = |fan: &mut Client| fan.roster().unwrap().iter().filter(|contact| contact.subscription.0 & 1 == 1).count();
    while approved(&mut fan) < PUBLISHERS as usize {}
    let before = admin.stats().unwrap();
    for round in 0..ROUNDS {
        for stream in 1..=PUBLISHERS {
            let presence = Presence { resource: "game".into(), status: format!("round {round}"), ..Presence::default() };
            trunk.send(stream, |encoder, out, tag| encoder.set_presence(out, tag, &presence.fields()));
        }
        answers(&mut trunk, PUBLISHERS);
    }
    let last = format!("round {}", ROUNDS - 1);
    let mut heard = BTreeSet::new();
    while heard.len() < PUBLISHERS as usize {
        let event = presence(&mut fan);
        if event.presence.is_some_and(|presence| presence.status == last) {
            heard.insert(event.user);
        }
    }
    let after = admin.stats().unwrap();
    let came = |name: &str| after.all.counters[name] - before.all.counters[name];
    let crossed = u64::from(PUBLISHERS * ROUNDS);
    assert_eq!(came("updates"), crossed);
    assert!(came("batches") > 0 && came("batches") * 4 < crossed, "{} batches for {crossed} updates", came("batches"));
    assert!(came("batches_read") <= after.all.counters["batches"] && came("doorbells") <= came("batches"));
    for core in &after.cores {
        assert!(core.counters["updates"] > 0 && core.counters["batches"] > 0, "both cores publish: {core:?}");
    }
}

/// Sends what is queued and waits for so many answers.
fn answers(trunk: &mut Trunk, count: u32) {
    trunk.flush().unwrap();
    let mut missing = count;
    while missing > 0 {
        match trunk.next(LONG).unwrap().expect("all are answered") {
            TrunkEvent::Answer(_, Answer::Done) => missing -= 1,
            TrunkEvent::Answer(_, other) => panic!("{other:?}"),
            TrunkEvent::Event(..) => {}
        }
    }
}

/// The unit of time is longer than the test: the loads are all there was.
#[test]
fn c1_load_is_counted_per_client_and_per_node_in_the_operators_units() {
    let mut config = config(1);
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    (config.metrics.meter_unit_bytes, config.metrics.meter_unit_ms) = (500, 3_600_000);
    let mut node = TestNode::start(&config);
    let admin = Admin::new(node.0.as_mut().unwrap().start_admin(&config).unwrap(), None);
    let mut publisher = node.user("publisher@localhost", "p");
    let mut subscriber = node.user("subscriber@localhost", "s");
    available(&mut subscriber);
    available(&mut publisher);
    subscribe(&mut subscriber, &mut publisher);
    presence(&mut subscriber);
    let mut trunk = node.trunk();
    trunk.log_in(1, "player@localhost", "t").unwrap();
    let load = |jid: Option<&str>| {
        let clients = admin.clients(100).unwrap().clients;
        let heaviest: Vec<u32> = clients.iter().map(|client| client.units_in + client.units_out).collect();
        assert!(heaviest.is_sorted_by(|a, b| a >= b), "{heaviest:?}");
        clients.into_iter().find(|client| client.jid.as_deref() == jid).expect("it is in the list")
    };
    let (publisher_at, subscriber_at) = (Some("publisher@localhost/p"), Some("subscriber@localhost/s"));
    let before = [load(publisher_at), load(subscriber_at)];
    for _ in 0..10 {
        // Between 3 and 4 units of 500 bytes, with what stands around the payload.
        publisher.set_presence(&Presence { payload: vec![1; 1600], ..Presence::default() }).unwrap();
        presence(&mut subscriber);
    }
    let after = [load(publisher_at), load(subscriber_at)];
    assert_eq!(after[0].units_in - before[0].units_in, 40, "four units each");
    assert_eq!(after[0].publications - before[0].publications, 10);
    assert!((16_000..20_000).contains(&(after[0].published_bytes - before[0].published_bytes)));
    assert_eq!((after[1].units_out - before[1].units_out, after[1].units_in), (40, before[1].units_in));
    assert_eq!((after[1].core, after[1].sessions, after[1].trunk), (0, 1, false));
    assert_eq!((load(None).trunk, load(None).sessions), (true, 1), "a trunk is one client");

    let stats = admin.stats().unwrap().all.gauges;
    let clients = admin.clients(100).unwrap();
    let sum = |of: fn(&ClientEntry) -> u32| clients.clients.iter().map(|client| u64::from(of(client))).sum::<u64>();
    assert_eq!(stats["load_in"], sum(|client| client.units_in), "the node's meter is the sum over its clients");
    assert_eq!(stats["load_out"], sum(|client| client.units_out));
    assert_eq!(stats["load_publications"], sum(|client| client.publications));
    assert_eq!(stats["load_published_bytes"], sum(|client| client.published_bytes));
    let text = admin.get("/metrics").unwrap();
    assert_eq!(metric(&text, "fanal_load_in"), stats["load_in"] as f64);
    assert!(text.contains("process_cpu_seconds") && text.contains("process_resident_memory_bytes"), "C1: processor and memory");
    assert_eq!(admin.clients(1).unwrap().clients.len(), 1);
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
    assert_eq!(admin.stats().unwrap().all.counters["transfers"], 1);
    assert!(admin.transfer("nobody@localhost", &address).is_err());
}

/// Z6: a change goes once to each core with a subscriber; J1: a user's home is one core, its subscribers' edges are any; J6: only who
/// is on the home's list gets it.
#[test]
fn z6_j1_j6_a_core_watches_once_and_is_told_once_however_many_of_its_sessions_are_on_the_list() {
    let (node, admin) = with_admin(2);
    let mut publisher = node.user("publisher@localhost", "p");
    let mut stranger = node.user("stranger@localhost", "s");
    available(&mut publisher);
    available(&mut stranger);
    let mut subscribers: Vec<_> = (0..16).map(|n| node.user(&format!("subscriber{n}@localhost"), "s")).collect();
    for subscriber in &mut subscribers {
        available(subscriber);
        subscribe(subscriber, &mut publisher);
        presence(subscriber);
    }
    let before = admin.stats().unwrap().all;
    assert_eq!(before.gauges["publishers_watched"], 2, "the publisher, on each core");
    assert_eq!(before.gauges["interest_rows"], 1, "the other core, once");
    for status in ["one", "two", "three"] {
        publisher.set_presence(&Presence { status: status.into(), ..Presence::default() }).unwrap();
        for subscriber in &mut subscribers {
            assert_eq!(presence(subscriber).presence.unwrap().status, status);
        }
    }
    no_presence(&mut stranger);
    let after = admin.stats().unwrap().all;
    let since = |name: &str| after.counters[name] - before.counters[name];
    assert_eq!((since("updates"), since("deliveries"), since("watches")), (3, 3 * 16, 0));
    assert_eq!((after.gauges["interest_rows"], since("stale_updates")), (1, 0));
}
