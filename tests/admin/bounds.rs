//! Whatever comes in, the node goes on and everyone else is served.

use crate::fake::{Wire, get, loopback, request, start};
use fanal::admin::http::{BODY_BYTES, HEAD_BYTES};
use fanal::admin::server::{CONNECTIONS, Server, Settings, Times};
use fanal::base::jid::Bare;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn impatient(times: Times) -> Settings {
    Settings { times, ..loopback() }
}

fn works(server: &Server) {
    assert_eq!(get(server.address(), "/healthz").status, 200);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (server, _state) = start(loopback());
    let mut wire = Wire::new(server.address());
    wire.0.get_ref().set_nodelay(true).unwrap();
    for byte in request("GET", "/healthz", "", "").bytes() {
        wire.send([byte]);
    }
    assert_eq!(wire.answer().unwrap().status, 200);
}

#[test]
fn what_is_too_large_or_no_request_is_answered_and_closed() {
    let (server, _state) = start(loopback());
    let long_head = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES));
    let many_headers = request("GET", "/healthz", &"A: b\r\n".repeat(100), "");
    let large_body = request("POST", "/users", "Content-Type: application/json\r\n", &"x".repeat(BODY_BYTES + 1));
    let cases: [(&[u8], u16); 7] = [
        (long_head.as_bytes(), 431),
        (many_headers.as_bytes(), 431),
        (large_body.as_bytes(), 413),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"POST /users HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /users HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
    ];
    for (bytes, status) in cases {
        let mut wire = Wire::new(server.address());
        wire.send(bytes);
        let answer = wire.answer().unwrap();
        answer.is_error(status, "");
        assert_eq!(answer.headers["connection"], "close");
        drop(wire.0.get_ref().shutdown(std::net::Shutdown::Write));
        assert!(wire.is_closed());
    }
    works(&server);
    assert!(get(server.address(), "/metrics").body.contains("fanal_admin_bad_requests_total 7\n"));
}

#[test]
fn a_slow_request_is_told_so_and_a_silent_connection_is_closed() {
    let quick = Duration::from_millis(150);
    let (server, _state) = start(impatient(Times { request: quick, idle: quick, ..Times::default() }));
    let mut slow = Wire::new(server.address());
    slow.send("GET /healthz HT");
    slow.answer().unwrap().is_error(408, "in time");
    let mut half = Wire::new(server.address());
    half.send("POST /users HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n{");
    half.answer().unwrap().is_error(408, "in time");
    let mut silent = Wire::new(server.address());
    assert!(silent.is_closed());
    works(&server);
}

#[test]
fn dripping_bytes_does_not_extend_the_time() {
    let times = Times { request: Duration::from_millis(300), ..Times::default() };
    let (server, _state) = start(impatient(times));
    let mut wire = Wire::new(server.address());
    let mut dripping = wire.0.get_ref().try_clone().unwrap();
    let began = Instant::now();
    let thread = std::thread::spawn(move || {
        let patience = Instant::now() + Duration::from_secs(20);
        let mut bytes = b"GET /healthz HTTP/1.1\r\nX: ".iter().copied().chain(std::iter::repeat(b'x'));
        while Instant::now() < patience && dripping.write_all(&[bytes.next().unwrap()]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    wire.answer().unwrap().is_error(408, "in time");
    assert!(began.elapsed() < Duration::from_secs(10));
    drop(wire);
    thread.join().unwrap();
}

#[test]
fn a_client_that_waits_before_its_body_is_told_to_go_on() {
    let (server, _state) = start(loopback());
    let mut wire = Wire::new(server.address());
    let body = "{\"jid\":\"alice@localhost\"}";
    let headers = "Content-Type: application/json\r\nExpect: 100-continue\r\n";
    let all = request("POST", "/users", headers, body);
    wire.send(&all[..all.len() - body.len()]);
    assert_eq!(wire.answer().unwrap().status, 100);
    wire.send(body);
    assert_eq!(wire.answer().unwrap().status, 201);
}

#[test]
fn a_client_that_never_reads_is_cut_off_and_holds_up_nobody() {
    let (server, state) = start(impatient(Times { answer: Duration::from_millis(200), ..Times::default() }));
    for n in 0..1_000 {
        let jid = format!("{}{n}@localhost", "long".repeat(200));
        state.lock().unwrap().users.insert(Bare::new(&jid).unwrap(), None);
    }
    let mut deaf = Wire::new(server.address());
    deaf.send(request("GET", "/users?limit=1000", "", "").repeat(40));
    works(&server);
    // The answers are 36 MB, more than the sockets take; the node gives up on them and closes.
    let patience = Instant::now() + Duration::from_secs(20);
    while deaf.0.get_mut().write(b"\r\n").is_ok() {
        assert!(Instant::now() < patience, "still connected");
        works(&server);
    }
}

#[test]
fn connections_beyond_the_limit_are_refused_and_served_again_later() {
    let (server, _state) = start(loopback());
    let mut open: Vec<Wire> = (0..CONNECTIONS).map(|_| Wire::new(server.address())).collect();
    for wire in &mut open {
        wire.send(request("GET", "/healthz", "", ""));
        assert_eq!(wire.answer().unwrap().status, 200);
    }
    let mut refused = Wire::new(server.address());
    refused.answer().unwrap().is_error(503, "try again later");
    open.pop();
    let patience = Instant::now() + Duration::from_secs(20);
    let metrics = loop {
        let mut wire = Wire::new(server.address());
        // A refused connection may be gone before the request is on its way.
        let _ = wire.0.get_mut().write_all(request("GET", "/metrics", "", "").as_bytes());
        match wire.answer() {
            Some(answer) if answer.status == 200 => break answer,
            _ => assert!(Instant::now() < patience, "never served again"),
        }
    };
    let count = metrics.body.lines().find_map(|line| line.strip_prefix("fanal_admin_connections_refused_total "));
    assert!(count.unwrap().parse::<u64>().unwrap() >= 1);
}

#[test]
fn garbage_never_stops_it() {
    let (server, _state) = start(impatient(Times { request: Duration::from_millis(200), ..Times::default() }));
    let valid = request("POST", "/users?x=%41", "Content-Type: application/json\r\n", "{\"jid\":\"a@localhost\"}").into_bytes();
    let mut random = 0x1234_5678_9abc_def0_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    for _ in 0..200 {
        let mut bytes = valid.clone();
        for _ in 0..1 + next() % 8 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        let mut wire = Wire::new(server.address());
        wire.send(&bytes);
        wire.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        if let Some(answer) = wire.answer() {
            assert!((200..600).contains(&answer.status), "{answer:?}");
        }
    }
    works(&server);
}

#[test]
fn stopping_ends_connections_and_frees_the_port() {
    let (server, _state) = start(loopback());
    let address = server.address();
    let mut idle = Wire::new(address);
    idle.send(request("GET", "/healthz", "", ""));
    assert_eq!(idle.answer().unwrap().status, 200);
    let mut half = Wire::new(address);
    half.send("GET /hea");
    server.stop();
    assert!(idle.is_closed() && half.is_closed());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn stopping_does_not_wait_long_for_a_client_that_never_reads() {
    let (server, state) = start(impatient(Times { answer: Duration::from_secs(600), ..Times::default() }));
    for n in 0..1_000 {
        let jid = format!("{}{n}@localhost", "long".repeat(200));
        state.lock().unwrap().users.insert(Bare::new(&jid).unwrap(), None);
    }
    let mut deaf = Wire::new(server.address());
    deaf.send(request("GET", "/users?limit=1000", "", "").repeat(40));
    works(&server);
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn an_address_in_use_is_named_with_the_fix() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let settings = Settings::new(taken.local_addr().unwrap(), None);
    let error = Server::start(settings, Box::new(crate::fake::Node(Default::default()))).err().unwrap().to_string();
    assert!(error.contains(&taken.local_addr().unwrap().to_string()) && error.contains("choose another listen.admin"), "{error}");
    let mut settings = loopback();
    settings.interval_log = Some("/nowhere/at/all.hlog".into());
    let error = Server::start(settings, Box::new(crate::fake::Node(Default::default()))).err().unwrap().to_string();
    assert!(error.contains("/nowhere/at/all.hlog") && error.contains("metrics.interval_log"), "{error}");
}
