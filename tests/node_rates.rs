//! Rates over real sockets: who sends more than may come is held up, and loses nothing; who would have to wait too long is ended.
//! A connection's rate, a user's and an address's hold each by itself.
mod support;

use fanal::base::limits::Limits;
use fanal::base::reason::Reason;
use fanal::client::codec::Codec;
use fanal::client::{Client, Presence};
use fanal::metrics::fields::Counters;
use fanal::node::Stopped;
use fanal::wire::decode::ServerFrame;
use fanal::wire::encode::Tag;
use fanal::wire::frame::Chunk;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use support::raw::{Bystanders, Raw};
use support::*;

/// A node on one core.
fn node(change: impl FnOnce(&mut Limits)) -> TestNode {
    let mut config = config(1);
    change(&mut config.limits);
    config.check().expect("the limits are sound");
    TestNode::start(&config)
}

fn counters(stopped: &Stopped) -> Counters {
    let mut sum = Counters::default();
    stopped.hosts.iter().for_each(|host| sum.add(&host.shard.recorder.counters));
    sum
}

/// Sends pings without waiting for answers, and reads all of them. Gives how long it took. What is under way when a connection is
/// first held up comes still, so it takes another one to feel it.
fn pings(raw: &mut Raw, count: u64) -> Duration {
    let began = Instant::now();
    let mut sender = raw.stream.try_clone().unwrap();
    let mut frames = Vec::new();
    (0..count).for_each(|n| raw.encoder.ping(&mut frames, Tag::request(1), n));
    let sending = std::thread::spawn(move || sender.write_all(&frames).unwrap());
    let (mut codec, mut bytes, mut answered) = (Codec::default(), [0; 4096], 0);
    while answered < count {
        let read = match raw.stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        assert!(read > 0, "it goes on");
        let mut chunk = Chunk::new(&bytes[..read]);
        while let Some(received) = codec.next(&mut chunk).unwrap() {
            match received.frame {
                ServerFrame::Pong(pong) => {
                    assert_eq!(pong.data(), answered, "in order");
                    answered += 1;
                }
                ServerFrame::Error(error) => panic!("{:?}", error.text()),
                _ => {}
            }
        }
    }
    sending.join().unwrap();
    began.elapsed()
}

#[test]
fn who_sends_too_many_frames_is_held_up_and_loses_none() {
    let node = node(|limits| (limits.frames_per_second, limits.frames_burst) = (1000, 1000));
    let mut others = Bystanders::new(&node);
    let mut raw = Raw::greeted(&node);
    let took = pings(&mut raw, 2500) + pings(&mut raw, 1);
    assert!(took >= Duration::from_millis(1000), "the burst, then the rate: {took:?}");
    others.are_well();
    drop((others, raw));
    let counted = counters(&node.stop());
    assert!(counted.throttled_connection_frames > 0);
    assert_eq!((counted.throttled_connection_bytes, counted.throttled_user_frames, counted.throttled_address_frames), (0, 0, 0));
}

#[test]
fn who_sends_too_many_bytes_is_held_up_and_loses_none() {
    let node = node(|limits| (limits.bytes_per_second, limits.bytes_burst) = (64 << 10, 64 << 10));
    let mut others = Bystanders::new(&node);
    let mut raw = Raw::greeted(&node);
    let mut one = Vec::new();
    raw.encoder.ping(&mut one, Tag::request(1), 0);
    let took = pings(&mut raw, (160 << 10) / one.len() as u64) + pings(&mut raw, 1);
    assert!(took >= Duration::from_millis(1000), "the burst, then the rate: {took:?}");
    others.are_well();
    drop((others, raw));
    let counted = counters(&node.stop());
    assert!(counted.throttled_connection_bytes > 0);
    assert_eq!((counted.throttled_connection_frames, counted.throttled_address_bytes), (0, 0));
}

/// Four sessions of a user say something by turns, and are held up in it.
fn by_turns(node: &TestNode, times: usize, say: impl Fn(&mut Client)) {
    let mut sessions: Vec<_> = (0..4).map(|n| node.user("mallory@localhost", &format!("s{n}"))).collect();
    let began = Instant::now();
    (0..times).for_each(|n| say(&mut sessions[n % 4]));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1000), "{took:?}");
}

#[test]
fn all_sessions_of_a_user_share_a_rate() {
    let node = node(|limits| (limits.user_frames_per_second, limits.user_frames_burst) = (500, 500));
    let mut others = Bystanders::new(&node);
    // Each alone keeps to the connection's rate by far.
    by_turns(&node, 1600, |session| session.ping().unwrap());
    others.are_well();
    drop(others);
    let counted = counters(&node.stop());
    assert!(counted.throttled_user_frames > 0);
    assert_eq!((counted.throttled_connection_frames, counted.throttled_address_frames), (0, 0));
}

#[test]
fn all_sessions_of_a_user_share_their_bytes() {
    let node = node(|limits| (limits.user_bytes_per_second, limits.user_bytes_burst) = (64 << 10, 64 << 10));
    let mut others = Bystanders::new(&node);
    let heavy = Presence { payload: vec![7; 8 << 10], ..Presence::default() };
    by_turns(&node, 24, |session| {
        session.set_presence(&heavy).unwrap();
        session.ping().unwrap();
    });
    others.are_well();
    drop(others);
    let counted = counters(&node.stop());
    assert!(counted.throttled_user_bytes > 0);
    assert_eq!((counted.throttled_connection_bytes, counted.throttled_user_frames, counted.throttled_address_bytes), (0, 0, 0));
}

/// A connection from an address of one's choice.
fn from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address: IpAddr = address.parse().unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.into()
}

#[test]
fn all_connections_of_an_address_share_a_rate_unless_it_is_exempt() {
    for exempt in [false, true] {
        let node = node(|limits| {
            (limits.address_frames_per_second, limits.address_frames_burst) = (500, 500);
            if !exempt {
                limits.exempt = Vec::new();
            }
        });
        let raw = |address| {
            let mut raw = Raw { stream: from(address, node.node().native()), encoder: Default::default() };
            raw.say(|encoder, out| encoder.hello(out, Tag::default(), "a test"));
            raw
        };
        let mut many: Vec<Raw> = (0..4).map(|_| raw("127.0.0.2")).collect();
        let began = Instant::now();
        for count in [400, 1] {
            many.iter_mut().for_each(|raw| _ = pings(raw, count));
        }
        let took = began.elapsed();
        let other = pings(&mut raw("127.0.0.3"), 400);
        assert!(exempt || took >= Duration::from_millis(1000), "{took:?}");
        assert!(other < Duration::from_millis(1000), "another address is not held up: {other:?}");
        drop(many);
        let counted = counters(&node.stop());
        assert_eq!(counted.throttled_address_frames > 0, !exempt);
        assert_eq!((counted.throttled_connection_frames, counted.throttled_user_frames), (0, 0));
    }
}

#[test]
fn all_connections_of_an_address_share_their_bytes() {
    let node = node(|limits| {
        (limits.address_bytes_per_second, limits.address_bytes_burst, limits.exempt) = (32 << 10, 32 << 10, Vec::new());
    });
    let mut many: Vec<Raw> = (0..4).map(|_| Raw::greeted(&node)).collect();
    let began = Instant::now();
    for count in [600, 1] {
        many.iter_mut().for_each(|raw| _ = pings(raw, count));
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1000), "{took:?}");
    drop(many);
    let counted = counters(&node.stop());
    assert!(counted.throttled_address_bytes > 0);
    assert_eq!((counted.throttled_connection_bytes, counted.throttled_address_frames), (0, 0));
}

#[test]
fn who_goes_and_comes_again_does_not_begin_anew() {
    let node = node(|limits| {
        (limits.address_frames_per_second, limits.address_frames_burst, limits.throttle_ms) = (1, 100, 1000);
        limits.exempt = Vec::new();
    });
    for _ in 0..3 {
        // Less than what a connection may send before its rates are looked at.
        pings(&mut Raw::greeted(&node), 40);
    }
    let mut raw = Raw::greeted(&node);
    let mut frames = Vec::new();
    (0..2000).for_each(|n| raw.encoder.ping(&mut frames, Tag::default(), n));
    // The node may be gone before it has taken all of it.
    _ = raw.stream.write_all(&frames);
    assert_eq!(raw.last_error().map(|(number, _)| number), Some(Reason::Flood as u16));
}
