//! The driver over real loopback sockets (G1, G4): every pitfall of io_uring that the table in `drive` names, by what a peer sees.

mod dial;
mod host;

use fanal::drive::{Config, DriveCounters, RingSize, Stage, TaskRun, setup};
use host::{LAST_WORDS, Mailbox, Node, PATIENCE, Script, mailbox, own_address, pattern, round_trip, sockets_on, until};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn an_echo_comes_back_whole_and_in_order() {
    let node = Node::start(Config::default(), Script::Echo);
    let sent = pattern(1 << 20);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(round_trip(&node.connect(), &sent) == sent));
        }
    });
    let small = node.connect();
    for number in 0..100 {
        assert_eq!(round_trip(&small, &[number]), [number]);
    }
    drop(small);
    let (seen, counters) = node.stop();
    assert_eq!((seen.opened, counters.accepts), (9, 9));
    assert_eq!((counters.bytes_in, counters.bytes_out), ((8 << 20) + 100, counters.bytes_in));
    for stage in [Stage::Receive, Stage::FlushWait, Stage::Send] {
        assert!(seen.stages.contains(&stage), "{stage:?} was observed");
    }
}

#[test]
fn peers_that_vanish_mid_send_take_nothing_with_them() {
    let node = Node::start(Config::default(), Script::Answer(8 << 20));
    for _ in 0..40 {
        let mut stream = node.connect();
        stream.write_all(b"?").unwrap();
        // Enough has come that a send is under way; the rest can't fit into the sockets, and closing unread data resets.
        stream.read_exact(&mut [0; 4096]).unwrap();
    }
    let mut survivor = node.connect();
    survivor.write_all(b"?").unwrap();
    let mut all = vec![0; 8 << 20];
    survivor.read_exact(&mut all).unwrap();
    drop(survivor);
    let (seen, counters) = node.stop();
    assert_eq!((seen.lost, counters.closed), (41, 41));
}

#[test]
fn connections_closed_from_both_ends_at_once() {
    let node = Node::start(Config::default(), Script::Close);
    for round in 0..500 {
        let mut stream = node.connect();
        stream.write_all(b"last").unwrap();
        match round % 3 {
            0 => stream.shutdown(Shutdown::Write).unwrap(),
            1 => assert_eq!(read_to_end(&mut stream), b"last"),
            _ => {}
        }
    }
    let (seen, counters) = node.stop();
    assert!(seen.opened <= 500 && counters.accepts - counters.refused == seen.opened, "{counters:?}");
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A hundred clients at once each get back all that they have sent; gives what the node has counted.
fn echoed_to_many(node: Node) -> DriveCounters {
    let sent = pattern(20_000);
    let streams: Vec<TcpStream> = (0..100).map(|_| node.connect()).collect();
    for stream in &streams {
        (&mut &*stream).write_all(&sent).unwrap();
    }
    for stream in &streams {
        let mut back = vec![0; sent.len()];
        (&mut &*stream).read_exact(&mut back).unwrap();
        assert!(back == sent);
    }
    drop(streams);
    node.stop().1
}

#[test]
fn many_connections_share_a_handful_of_buffers() {
    let config = Config { buffers: 4, buffer_bytes: 256, ..Config::default() };
    let node = Node::start(config, Script::Echo);
    let counters = echoed_to_many(node);
    assert!(counters.starved > 0, "{counters:?}");
    assert_eq!(counters.bytes_in, 100 * 20_000);
}

#[test]
fn a_completion_queue_that_overflows_loses_nothing() {
    let config = Config {
        ring: RingSize { submissions: 4, completions: 8 },
        completions_per_turn: 2,
        buffers: 512,
        buffer_bytes: 256,
        ..Config::default()
    };
    let node = Node::start(config, Script::Echo);
    let counters = echoed_to_many(node);
    assert!(counters.cq_overflow > 0, "{counters:?}");
}

#[test]
fn a_slow_reader_gets_all_and_holds_up_nobody() {
    const SIZE: usize = 24 << 20;
    let node = Node::start(Config::default(), Script::Answer(SIZE));
    let mut slow = node.connect();
    slow.write_all(b"?").unwrap();
    slow.read_exact(&mut [0; 1]).unwrap();
    let mut quick = node.connect();
    quick.write_all(b"?").unwrap();
    let mut all = vec![0; SIZE];
    quick.read_exact(&mut all).unwrap();
    slow.read_exact(&mut all[1..]).unwrap();
    drop((slow, quick));
    let (_, counters) = node.stop();
    assert!(counters.short_sends > 0, "{counters:?}");
    assert_eq!(counters.bytes_out, 2 * SIZE as u64);
}

#[test]
fn a_connection_moves_between_cores_with_bytes_in_flight_both_ways() {
    let (here, there) = (mailbox(), mailbox());
    // Few buffers, so that the cores take small bites and the connection moves often.
    let config = Config { buffers: 8, ..Config::default() };
    let wander = |other: &Mailbox| Script::Wander { every: 50_000, other: other.clone() };
    let first = Node::start_with(config, wander(&there), here.clone());
    let second = Node::start_with(config, wander(&here), there.clone());
    let sent = pattern(8 << 20);
    let stream = first.connect();
    assert!(round_trip(&stream, &sent) == sent);
    drop(stream);
    // The socket may be between the cores when its end of stream is still to be read: whoever gets it sees the end.
    until("the connection ends", || sockets_on(first.address) == 1);
    let (first_seen, first_counters) = first.stop();
    let (_, second_counters) = second.stop();
    assert!(first_seen.departed >= 10, "{first_seen:?}");
    assert_eq!(first_counters.adopted, second_counters.departed);
    assert_eq!(second_counters.adopted, first_counters.departed);
}

#[test]
fn a_thousand_connections_opened_and_dropped_leave_nothing_behind() {
    let node = Node::start(Config::default(), Script::Echo);
    for _ in 0..10 {
        let streams: Vec<TcpStream> = (0..100).map(|_| node.connect()).collect();
        for (number, stream) in streams.iter().enumerate() {
            if number % 2 == 0 {
                assert_eq!(round_trip(stream, b"hello"), b"hello");
            }
        }
    }
    until("all connections are accepted and closed", || sockets_on(node.address) == 1);
    let (seen, counters) = node.stop();
    assert_eq!((seen.opened, seen.lost, counters.cut), (1000, 1000, 0));
}

/// A socket that does not listen yet refuses every accept with EINVAL, as old kernels do multishot ones.
#[test]
fn where_multishot_accept_is_refused_connections_are_accepted_one_by_one() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&own_address().into()).unwrap();
    let config = Config { accept_pause: Duration::from_millis(1), ..Config::default() };
    let node = Node::start_on(config, Script::Echo, mailbox(), vec![socket.try_clone().unwrap().into()]);
    until("both kinds of accept are refused", || node.watched.accepts_failed.load(Ordering::Acquire) > 0);
    socket.listen(16).unwrap();
    drop(socket);
    let streams: Vec<_> = (0..10).map(|_| node.connect()).collect();
    for stream in &streams {
        assert_eq!(round_trip(stream, b"hello"), b"hello");
    }
    drop(streams);
    let (seen, counters) = node.stop();
    assert_eq!((seen.opened, counters.accepts), (10, 10));
}

#[test]
fn a_refused_connection_is_closed_at_once() {
    let node = Node::start(Config::default(), Script::Refuse);
    assert_eq!(read_to_end(&mut node.connect()), b"");
    assert_eq!(node.stop().1.refused, 1);
}

#[test]
fn a_stop_says_goodbye_to_everyone_even_to_those_who_keep_talking() {
    let node = Node::start(Config::default(), Script::Echo);
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = node.connect();
            assert_eq!(round_trip(&stream, b"hello"), b"hello");
            thread::spawn(move || {
                stream.write_all(&pattern(10_000)).unwrap();
                let mut words = vec![0; LAST_WORDS.len()];
                stream.read_exact(&mut words).unwrap();
                // What the node will never read may not turn its last words into a reset.
                let _late = stream.write_all(b"but");
                words.append(&mut read_to_end(&mut stream));
                words
            })
        })
        .collect();
    let (seen, counters) = node.stop();
    for reader in readers {
        assert!(reader.join().unwrap().ends_with(LAST_WORDS));
    }
    assert_eq!((seen.lost, counters.cut), (50, 0));
}

#[test]
fn a_stop_does_not_wait_for_ever_for_one_who_never_reads() {
    let config = Config { drain: Duration::from_millis(100), ..Config::default() };
    let node = Node::start(config, Script::Answer(64 << 20));
    let mut stuck = node.connect();
    stuck.write_all(b"?").unwrap();
    stuck.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(node.stop().1.cut, 1);
}

/// How long the right answer to one byte takes.
fn asked(stream: &mut TcpStream, right: &[u8; 1]) -> Duration {
    let (began, mut answer) = (Instant::now(), [0]);
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, right);
    began.elapsed()
}

#[test]
fn a_deadline_ends_a_sleep() {
    let node = Node::start(Config::default(), Script::Later(Duration::from_millis(3)));
    let mut stream = node.connect();
    for _ in 0..20 {
        assert!(asked(&mut stream, b"!") >= Duration::from_millis(3));
    }
    drop(stream);
    assert!(node.stop().1.sleeps > 0);
}

#[test]
fn what_can_wait_goes_out_when_the_core_is_idle_or_when_its_time_has_come() {
    for (wait, busy) in [(PATIENCE, false), (Duration::from_millis(3), true)] {
        let node = Node::start(Config::default(), Script::Patiently { wait, busy });
        let mut stream = node.connect();
        for _ in 0..20 {
            let took = asked(&mut stream, b"?");
            assert!(if busy { took >= wait } else { took < wait }, "{took:?}");
        }
        drop(stream);
        node.stop();
    }
}

#[test]
fn no_wake_up_is_lost() {
    for task_run in [TaskRun::Cooperative, TaskRun::Deferred] {
        let node = Node::start(Config { task_run, idle_turns: 0, ..Config::default() }, Script::Echo);
        let stream = node.connect();
        for number in 1..=3000 {
            node.watched.raised.store(number, Ordering::Release);
            node.door.published();
            if number % 3 == 0 {
                assert_eq!(round_trip(&stream, b"x"), b"x");
            }
            until("the core hears of the number", || node.watched.seen.load(Ordering::Acquire) == number);
        }
        drop(stream);
        let (_, counters) = node.stop();
        assert!(counters.sleeps > 100, "{counters:?}");
    }
}

#[test]
fn this_machine_passes_the_probe_and_is_told_its_limits() {
    let report = setup::probe(2, TaskRun::Cooperative).unwrap();
    let text = report.to_string();
    assert!(text.contains("io_uring works") && text.contains("connections"), "{text}");
}
