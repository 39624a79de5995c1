//! Connections that the driver makes itself (G4: links), by what the host is told and the peer sees.

use super::host::{GREETING, Node, PATIENCE, Script, own_address, pattern, round_trip, sockets_on, until};
use fanal::drive::{Config, Dial, TaskRun, setup};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(own_address()).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port that was just given back.
fn deserted() -> SocketAddr {
    listener().1
}

/// Somebody who never answers: the backlog is full, and the fillers keep it so.
struct Mute {
    listener: Socket,
    address: SocketAddr,
    fillers: Vec<Socket>,
}

impl Mute {
    fn new() -> Mute {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&own_address().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut mute = Mute { listener, address: address.as_socket().unwrap(), fillers: Vec::new() };
        for _ in 0..4 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            assert_eq!(filler.connect(&address).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
            mute.fillers.push(filler);
        }
        mute
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, GREETING, "what the host says when it hears of the connection goes out");
    stream
}

#[test]
fn a_connection_that_was_dialled_is_like_any_other() {
    let (listener, address) = listener();
    let node = Node::start(Config::default(), Script::Echo);
    node.dial(node.dials(7..8, address));
    let stream = accept(&listener);
    assert_eq!(stream.peer_addr().unwrap().ip(), node.address.ip(), "it comes from where it is to come from");
    let sent = pattern(1 << 20);
    assert!(round_trip(&stream, &sent) == sent);
    let told = node.told(1);
    assert!(matches!(told[..], [(7, Ok(peer))] if peer == address), "{told:?}");
    drop(stream);
    until("the connection ends", || sockets_on(node.address) == 1);
    let (seen, counters) = node.stop();
    assert_eq!((seen.opened, seen.lost, counters.dials, counters.dials_failed), (1, 1, 1, 0));
}

#[test]
fn two_drivers_meet() {
    let (caller, called) = (Node::start(Config::default(), Script::Close), Node::start(Config::default(), Script::Echo));
    caller.dial([Dial { token: 1, address: called.address, from: None }]);
    assert!(caller.told(1)[0].1.is_ok());
    until("the callers' host has hung up", || sockets_on(called.address) == 1);
    assert_eq!(caller.stop().0.lost, 1);
    assert_eq!(called.stop().0.lost, 1);
}

#[test]
fn a_refused_dial_says_so() {
    let node = Node::start(Config::default(), Script::Echo);
    node.dial(node.dials(1..2, deserted()));
    let told = node.told(1);
    assert!(matches!(&told[..], [(1, Err(error))] if error.kind() == ErrorKind::ConnectionRefused), "{told:?}");
    assert_eq!(sockets_on(node.address), 1, "its descriptor is gone");
    assert_eq!(node.stop().1.dials_failed, 1);
}

#[test]
fn a_dial_that_cannot_begin_says_so_at_once() {
    let node = Node::start(Config::default(), Script::Echo);
    let (address, strange) = (deserted(), "192.0.2.1:0".parse().unwrap());
    node.dial([strange, "[::1]:0".parse().unwrap()].map(|from| Dial { token: 1, address, from: Some(from) }));
    let told = node.told(2);
    assert!(told.iter().all(|(_, made)| made.is_err()), "{told:?}");
    assert_eq!(told[0].1.as_ref().unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    assert_eq!(node.stop().1.dials_failed, 2);
}

#[test]
fn a_peer_that_never_answers_is_given_up_in_time() {
    const SOON: Duration = Duration::from_millis(30);
    let mute = Mute::new();
    let node = Node::start(Config { dial_patience: SOON, ..Config::default() }, Script::Echo);
    let began = Instant::now();
    node.dial(node.dials(1..4, mute.address));
    let told = node.told(3);
    assert!(began.elapsed() >= SOON);
    for (token, made) in &told {
        let error = made.as_ref().unwrap_err();
        assert!(error.kind() == ErrorKind::TimedOut && error.to_string().contains("30 ms"), "{token}: {error}");
    }
    assert_eq!(sockets_on(node.address), 1, "their descriptors are gone");
    let (_, counters) = node.stop();
    assert_eq!((counters.dials_failed, counters.cancels), (3, 3));
}

#[test]
fn a_stop_waits_for_no_dial_and_answers_all() {
    let mute = Mute::new();
    let node = Node::start(Config { dial_patience: PATIENCE, ..Config::default() }, Script::Echo);
    node.dial(node.dials(0..20, mute.address));
    until("the dials are under way", || node.watched.dials.load(Ordering::Acquire) == 20);
    let calls = node.calls.clone();
    let began = Instant::now();
    let (seen, counters) = node.stop();
    assert!(began.elapsed() < PATIENCE / 2 && seen.opened == 0);
    assert_eq!((counters.dials_failed, counters.cancels), (20, 20));
    let told = &calls.lock().unwrap().told;
    assert!(told.len() == 20 && told.iter().all(|(_, made)| made.as_ref().is_err_and(|e| e.kind() == ErrorKind::Interrupted)));
    assert_eq!(mute.fillers.len(), 4);
    drop(mute.listener);
}

/// The stop may come before, between and behind the steps of each dial: none is lost, none answered twice.
#[test]
fn a_stop_in_the_middle_of_dials_leaves_nothing_behind() {
    let called = Node::start(Config::default(), Script::Echo);
    for round in 0..30 {
        let caller = Node::start(Config::default(), Script::Echo);
        let calls = caller.calls.clone();
        caller.dial((0..20).map(|token| Dial { token, address: called.address, from: None }));
        until("some have begun", || caller.watched.dials.load(Ordering::Acquire) >= u64::from(round % 3 > 0));
        let (seen, counters) = caller.stop();
        let calls = calls.lock().unwrap();
        assert_eq!((calls.told.len() + calls.asked.len(), calls.told.len() as u64), (20, counters.dials));
        assert_eq!(calls.told.iter().filter(|(_, made)| made.is_ok()).count() as u64, seen.opened);
    }
    called.stop();
}

#[test]
fn a_thousand_dials_at_once_are_all_answered() {
    setup::probe(1, TaskRun::Cooperative).expect("it raises the limit of descriptors");
    let (caller, called) = (Node::start(Config::default(), Script::Close), Node::start(Config::default(), Script::Echo));
    let nobody = deserted();
    let call = |token| Dial { token, address: if token % 4 == 0 { nobody } else { called.address }, from: None };
    caller.dial((0..1000).map(call));
    let mut told = caller.told(1000);
    told.sort_unstable_by_key(|&(token, _)| token);
    for (number, (token, made)) in told.iter().enumerate() {
        assert_eq!((*token, made.is_ok()), (number as u64, number % 4 != 0), "{made:?}");
    }
    until("all have hung up", || sockets_on(called.address) == 1);
    let (seen, counters) = caller.stop();
    assert_eq!((seen.lost, counters.dials, counters.dials_failed), (750, 1000, 250));
    assert_eq!(called.stop().1.accepts, 750);
}

#[test]
fn a_peer_that_hangs_up_at_once_is_a_lost_connection() {
    const CALLS: u64 = 200;
    let (listener, address) = listener();
    let peer = thread::spawn(move || {
        for number in 0..CALLS {
            let (stream, _) = listener.accept().unwrap();
            // Every second with a reset.
            SockRef::from(&stream).set_linger((number % 2 == 0).then_some(Duration::ZERO)).unwrap();
        }
    });
    let node = Node::start(Config::default(), Script::Echo);
    node.dial(node.dials(0..CALLS, address));
    let told = node.told(CALLS as usize);
    peer.join().unwrap();
    until("all are lost", || sockets_on(node.address) == 1);
    let (seen, _) = node.stop();
    assert_eq!(seen.lost, told.iter().filter(|(_, made)| made.is_ok()).count() as u64);
}

/// On loopback the kernel may choose the very port that is dialled, and joins the socket to itself.
#[test]
fn nobody_is_connected_to_himself() {
    let node = Node::start(Config::default(), Script::Echo);
    let address = deserted();
    node.dial([Dial { token: 1, address, from: Some(address) }]);
    let told = node.told(1);
    assert!(matches!(&told[..], [(1, Err(error))] if error.kind() == ErrorKind::ConnectionRefused), "{told:?}");
    assert_eq!(node.stop().0.opened, 0);
}
