//! Bad input and limits over real sockets: each offender hears a numeric reason and a clear text, is counted, and nobody else
//! notices.
mod support;

use fanal::base::reason::Reason;
use fanal::client::{Client, Error, Event, LogIn, Presence};
use fanal::wire::decode::ServerFrame;
use fanal::wire::encode::{Encoder, LogInFields, Tag};
use fanal::wire::frame::HEADER_BYTES;
use fanal::wire::native::{Hello, HelloArgs, Kind, Show};
use std::io::{Read, Write};
use std::net::TcpStream;
use support::raw::{Bystanders, Raw, header};
use support::served::Served;
use support::*;

/// A Hello of a client from the future.
fn hello_of_versions(lowest: u16, version: u16) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let hello = Hello::create(&mut builder, &HelloArgs { version, lowest, ..HelloArgs::default() });
    builder.finish_minimal(hello);
    let mut body = builder.finished_data().to_vec();
    body.resize(body.len().next_multiple_of(8), 0);
    [header(body.len() as u32, Kind::Hello.0), body].concat()
}

#[test]
fn every_kind_of_bad_frame_has_its_reason_and_hurts_nobody_else() {
    let node = TestNode::start(&config(2));
    let mut others = Bystanders::new(&node);
    let cases: Vec<(Reason, Vec<u8>)> = vec![
        (Reason::FrameTooLarge, header(1 << 30, Kind::Hello.0)),
        (Reason::BadFrame, [header(8, Kind::Hello.0), vec![0xff; 8]].concat()),
        (Reason::BadFrame, header(7, Kind::Hello.0)),
        (Reason::BadFrame, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        (Reason::OutOfOrder, {
            let mut frame = Vec::new();
            Encoder::default().roster_get(&mut frame, Tag::request(1));
            frame
        }),
        (Reason::OutOfOrder, {
            let mut frame = Vec::new();
            Encoder::default().hello(&mut frame, Tag::default(), "twice");
            Encoder::default().hello(&mut frame, Tag::default(), "twice");
            frame
        }),
    ];
    for (reason, bytes) in cases {
        let mut raw = Raw::connect(&node);
        raw.stream.write_all(&bytes).unwrap();
        let (number, text) = raw.last_error().expect("told why");
        let known = Reason::from_number(number);
        assert!(known == Some(reason) || (reason == Reason::BadFrame && known == Some(Reason::FrameTooLarge)), "{number} {text}");
        assert!(!text.is_empty());
        others.are_well();
    }
    drop(others);
    let stopped = node.stop();
    let counted: u64 =
        stopped.hosts.iter().map(|host| host.shard.recorder.dropped.iter().map(|(_, count)| count).sum::<u64>()).sum();
    assert!(counted >= 6, "each was counted: {counted}");
}

#[test]
fn unknown_versions_are_told_which_one_is_spoken() {
    let node = TestNode::start(&config(1));
    let mut raw = Raw::connect(&node);
    raw.stream.write_all(&hello_of_versions(7, 9)).unwrap();
    assert_eq!(raw.last_error().map(|(number, _)| number), Some(Reason::UnknownVersion as u16));
}

/// What was on its way when the node ended the session is no fault.
#[test]
fn behind_a_session_that_the_node_has_ended_what_is_for_it_is_answered_and_anybody_may_log_in() {
    on_one_and_two_cores(|node| {
        let mut first = node.user("alice@localhost", "desk");
        let _second = node.user("alice@localhost", "desk");
        let replaced = until(&mut first, |event| match event {
            Event::Refused(refusal) => Some(refusal.reason()),
            _ => None,
        });
        assert_eq!(replaced, Some(Reason::Replaced));
        for asked in [first.set_presence(&Presence::default()), first.roster().map(drop)] {
            assert!(matches!(&asked, Err(Error::Refused(refusal)) if refusal.reason() == Some(Reason::NotLoggedIn)), "{asked:?}");
        }
        first.log_in("bob@localhost", LogIn::Token(&node.token("bob@localhost")), "desk").unwrap();
        first.set_presence(&Presence::default()).unwrap();
    });
}

/// Which frames may come is decided by those before them, not by how they were cut into packets.
#[test]
fn behind_a_log_out_in_the_same_packet_anybody_may_log_in_and_nothing_else_may_come() {
    on_one_and_two_cores(|node| {
        for (n, jid) in ["alice@localhost", "bob@localhost", "carol@localhost", "alice@localhost"].into_iter().enumerate() {
            let (mut raw, mut is_done) = (Raw::logged_in(node, &format!("first{n}@localhost")), false);
            let token = node.token(jid);
            let log_in = LogInFields { jid, mechanism: "TOKEN", data: token.as_bytes(), resource: "raw", ..LogInFields::default() };
            raw.say(|encoder, out| {
                encoder.log_out(out, Tag::request(2), "bye");
                encoder.log_in(out, Tag::request(3), &log_in);
            });
            raw.until(|frame| {
                is_done |= matches!(frame, ServerFrame::Done);
                matches!(frame, ServerFrame::LoggedIn(new) if new.jid() == format!("{jid}/raw"))
            });
            assert!(is_done, "the log-out was answered first");
            raw.say(|encoder, out| {
                encoder.log_out(out, Tag::request(4), "");
                encoder.roster_get(out, Tag::request(5));
            });
            assert_eq!(raw.last_error().map(|(n, _)| n), Some(Reason::OutOfOrder as u16));
        }
    });
}

#[test]
fn a_client_that_does_not_log_in_is_ended_in_time() {
    let mut config = config(1);
    config.limits.log_in_ms = 1000;
    let node = TestNode::start(&config);
    assert_eq!(Raw::connect(&node).last_error().map(|(n, _)| n), Some(Reason::LogInTooSlow as u16));
    assert_eq!(Raw::greeted(&node).last_error().map(|(n, _)| n), Some(Reason::LogInTooSlow as u16));
}

#[test]
fn too_many_wrong_passwords_end_the_connection() {
    let node = TestNode::start(&config(2));
    let mut client = node.connect();
    let mut refused = || client.log_in("alice@localhost", LogIn::Token("wrong"), "").unwrap_err();
    assert_eq!(refused().reason(), Some(Reason::LogInFailed));
    assert_eq!(refused().reason(), Some(Reason::LogInFailed));
    // The third answer is the same; what comes after it is the end.
    assert_eq!(refused().reason(), Some(Reason::LogInFailed));
    assert!(client.ping().is_err());
}

#[test]
fn a_flood_from_one_client_ends_that_client() {
    let mut config = config(1);
    (config.limits.frames_per_second, config.limits.frames_burst, config.limits.throttle_ms) = (100, 200, 100);
    let node = TestNode::start(&config);
    let mut others = Bystanders::new(&node);
    let mut raw = Raw::greeted(&node);
    let mut frames = Vec::new();
    for n in 0..400 {
        raw.encoder.ping(&mut frames, Tag::default(), n);
    }
    raw.stream.write_all(&frames).unwrap();
    assert_eq!(raw.last_error().map(|(n, _)| n), Some(Reason::Flood as u16));
    others.are_well();
}

#[test]
fn a_client_that_never_reads_loses_only_what_is_old_and_then_its_connection() {
    let mut config = config(1);
    (config.limits.high_water_bytes, config.limits.stalled_ms) = (16 << 10, 1000);
    (config.limits.resume_ms, config.limits.bytes_burst) = (0, 64 << 20);
    let node = TestNode::start(&config);
    let mut others = Bystanders::new(&node);
    let mut sloth = node.user("sloth@localhost", "s");
    available(&mut sloth);
    subscribe(&mut others.0, &mut sloth);
    subscribe(&mut sloth, &mut others.0);
    // Nobody reads for the sloth from here on: its socket buffers fill, then its line, then only the newest is kept.
    let big = vec![7; 30_000];
    for n in 0..1000 {
        let status = format!("update {n}");
        others.0.set_presence(&Presence { status: status.clone(), payload: big.clone(), ..Presence::default() }).unwrap();
        let got = presence(&mut others.1);
        assert_eq!(got.presence.unwrap().status, status, "{:?}", got.version);
    }
    others.are_well();
    // It is seen to go, though it never read a word of it.
    until(&mut others.0, |event| match event {
        Event::Presence(event) if event.show == Show::Unavailable => Some(()),
        _ => None,
    });
    drop(others);
    let stopped = node.stop();
    assert!(stopped.hosts.iter().map(|host| host.shard.edge.counters.conflated).sum::<u64>() > 0);
}

#[test]
fn a_slow_client_that_reads_again_has_the_final_state() {
    let mut config = config(1);
    (config.limits.high_water_bytes, config.limits.bytes_burst) = (16 << 10, 64 << 20);
    let node = TestNode::start(&config);
    let mut others = Bystanders::new(&node);
    let mut slow = node.user("slow@localhost", "s");
    available(&mut slow);
    subscribe(&mut slow, &mut others.0);
    let big = vec![7; 30_000];
    for n in 0..600 {
        let status = format!("update {n}");
        others.0.set_presence(&Presence { status, payload: big.clone(), ..Presence::default() }).unwrap();
        presence(&mut others.1);
    }
    let mut seen = 0;
    until(&mut slow, |event| match event {
        Event::Presence(event) => {
            seen += 1;
            event.presence.filter(|presence| presence.status == "update 599").map(drop)
        }
        _ => None,
    });
    assert!(seen < 600, "it was spared some of them");
    no_presence(&mut slow);
}

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

const DESCRIPTORS: usize = 150;

#[test]
fn without_descriptors_accepting_pauses_and_nobody_else_notices() {
    let folder = tempfile::tempdir().unwrap();
    let node = Served::start_with_descriptors(&folder.path().join("data"), DESCRIPTORS);
    let client = |jid: &str| {
        let mut client = Client::connect(&node.native.to_string(), LONG).unwrap();
        client.log_in(jid, LogIn::Token(&node.token(jid)), "here").unwrap();
        available(&mut client);
        client
    };
    let (mut alice, mut bob) = (client("alice@localhost"), client("bob@localhost"));
    subscribe(&mut bob, &mut alice);
    let room = DESCRIPTORS - descriptors(node.pid());
    let mut others: Vec<TcpStream> = (0..room + 30).map(|_| TcpStream::connect(node.native).unwrap()).collect();
    let mut hello = Vec::new();
    Encoder::default().hello(&mut hello, Tag::default(), "a test");
    others.iter_mut().for_each(|other| other.write_all(&hello).unwrap());
    let began = std::time::Instant::now();
    while descriptors(node.pid()) < DESCRIPTORS {
        assert!(began.elapsed() < LONG, "the node takes as many as it can");
    }
    for n in 0..50 {
        let status = format!("update {n}");
        alice.set_presence(&Presence { status: status.clone(), ..Presence::default() }).unwrap();
        until(&mut bob, |event| match event {
            Event::Presence(event) => event.presence.filter(|presence| presence.status == status),
            _ => None,
        });
    }
    // Those who came first go; those who came last are greeted in their place.
    others.drain(..room + 10);
    for other in &mut others {
        other.set_read_timeout(Some(LONG)).unwrap();
        other.read_exact(&mut [0; HEADER_BYTES]).expect("a greeting");
    }
    drop(others);
    let metrics = fanal::admin::client::Client::new(node.admin, None).stats().unwrap();
    assert!(metrics.all.counters["accepts_failed"] > 0);
    node.stop();
}

#[test]
fn a_stopped_node_tells_every_client_why() {
    let node = TestNode::start(&config(2));
    let mut clients: Vec<Client> = (0..10).map(|n| node.user(&format!("user{n}@localhost"), "r")).collect();
    let stopping = std::thread::spawn(move || node.stop());
    for client in &mut clients {
        let refusal = until(client, |event| match event {
            Event::Refused(refusal) => Some(refusal),
            _ => None,
        });
        assert_eq!(refusal.reason(), Some(Reason::ShuttingDown));
    }
    drop(clients);
    stopping.join().unwrap();
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(2);
    config.store.kind = fanal::base::config::StoreKind::Redb;
    config.node.data = dir.path().join("data");
    let node = TestNode::start(&config);
    let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    available(&mut alice);
    available(&mut bob);
    subscribe(&mut bob, &mut alice);
    bob.set_contact("alice@localhost", "Alice", &["friends"]).unwrap();
    bob.block("mallory@localhost").unwrap();
    let number = bob.roster().unwrap()[0].user;
    alice.log_out("good night").unwrap();
    drop(bob);
    node.stop();
    // One core instead of two: where users live is not stored.
    config.node.cores = support::config(1).node.cores;
    let node = TestNode::start(&config);
    let mut bob = node.user("bob@localhost", "b");
    available(&mut bob);
    let last = presence(&mut bob);
    assert_eq!((last.user, last.presence.unwrap().status.as_str()), (number, "good night"));
    let contact = bob.roster().unwrap().remove(0);
    assert_eq!((contact.jid.as_str(), contact.name.as_str(), contact.subscription.0), ("alice@localhost", "Alice", 1));
    assert_eq!(bob.block_list().unwrap(), ["mallory@localhost"]);
    let mut alice = node.user("alice@localhost", "a");
    available(&mut alice);
    assert_eq!(presence(&mut bob).presence.unwrap().resource, "a");
}
