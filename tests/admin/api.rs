//! What is there and who gets it.

use crate::fake::{Wire, ask, get, loopback, post, request, secret, start};
use fanal::admin::client::{Client, ClientError};
use fanal::admin::server::{Server, Settings, StartError};
use fanal::metrics::table::Report;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

#[test]
fn an_operator_manages_users_with_the_client() {
    let (server, state) = start(loopback());
    let client = Client::new(server.address(), None);
    client.add_user("alice@localhost", Some("pass \"word\" \u{1F511}")).unwrap();
    client.add_user("Bob@localhost", None).unwrap();
    let users = client.users(None, 100, None).unwrap();
    let jids: Vec<&str> = users.users.iter().map(|user| user.jid.as_str()).collect();
    assert_eq!((jids, users.next), (vec!["alice@localhost", "bob@localhost"], None));
    assert_eq!(users.users[0].id, "0x1000200000001");
    let passwords: Vec<_> = state.lock().unwrap().users.values().cloned().collect();
    assert_eq!(passwords, [Some("pass \"word\" \u{1F511}".to_owned()), None]);
    assert_eq!(client.transfer("alice@localhost", "node2.example.org:7400").unwrap(), 3);
    client.remove_user("alice@localhost").unwrap();
    assert_eq!(state.lock().unwrap().users.len(), 1);
    assert_eq!(client.reload_certificate().unwrap(), "the certificate in a.pem");
    state.lock().unwrap().bad_certificate = true;
    assert!(matches!(client.reload_certificate(), Err(ClientError::Refused { status: 409, .. })));
}

/// Row Z1.
#[test]
fn z1_clusters_are_listed_and_forgotten_and_the_users_of_one_node_are_asked_for() {
    let (server, _state) = start(loopback());
    let client = Client::new(server.address(), None);
    assert_eq!(client.clusters().unwrap().directory, 1);
    assert!(client.forget_cluster(7, false).unwrap_err().to_string().contains("cluster 7 has users"));
    assert_eq!(client.forget_cluster(7, true).unwrap().gone, 7);
    ask(server.address(), "DELETE", "/clusters/x", "", "").is_error(400, "a number from 0 to 65535");
    ask(server.address(), "DELETE", "/clusters/7?force=yes", "", "").is_error(400, "force is true");
    get(server.address(), "/clusters/7").is_error(405, "DELETE");
    client.add_user("alice@localhost", None).unwrap();
    let page = |node| client.users(None, 10, node).unwrap();
    assert_eq!([None, Some(4), Some(5)].map(|node| page(node).users.len()), [1, 1, 0]);
    assert_eq!((page(None).users[0].node, page(None).missing), (4, vec![5]));
    get(server.address(), "/users?node=-1").is_error(400, "node is a number");
}

#[test]
fn refusals_reach_the_operator_with_their_status_and_words() {
    let (server, _state) = start(loopback());
    let client = Client::new(server.address(), None);
    client.add_user("alice@localhost", None).unwrap();
    let refused = |result: Result<(), ClientError>| match result {
        Err(ClientError::Refused { status, error, .. }) => (status, error),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(client.add_user("alice@localhost", None)).0, 409);
    assert_eq!(refused(client.remove_user("carol@localhost")).0, 404);
    assert_eq!(refused(client.add_user("alice@elsewhere", None)).0, 400);
    let (status, error) = refused(client.add_user("no jid", None));
    assert!(status == 400 && error.contains("write local@domain"), "{error}");
    assert_eq!(refused(client.transfer("alice@localhost", "nowhere").map(drop)).0, 400);
}

/// Z4, M1.
#[test]
fn an_operator_drains_rebalances_and_forgets_and_hears_what_came_of_it() {
    let (server, _state) = start(loopback());
    let client = Client::new(server.address(), None);
    assert_eq!(client.drain().unwrap(), "node 4 is given no more users");
    assert!(matches!(client.rebalance(), Err(ClientError::Refused { status: 409, .. })));
    assert_eq!(client.forget_node(3, false).unwrap(), "node 3 is forgotten, by force: false");
    assert_eq!(client.forget_node(3, true).unwrap(), "node 3 is forgotten, by force: true");
    assert!(matches!(client.forget_node(9, false), Err(ClientError::Refused { status: 404, .. })));
    let wrong = [("DELETE", "/cluster/x", 400), ("DELETE", "/cluster/3?force=1", 400), ("GET", "/cluster/drain", 405)];
    for (method, path, status) in wrong {
        let answer = ask(server.address(), method, path, "", "");
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

#[test]
fn a_long_list_of_users_comes_in_pages_without_gap_or_repetition() {
    let (server, state) = start(loopback());
    let jids: Vec<String> = (0..250).map(|n| format!("user{n:03}@localhost")).collect();
    for jid in &jids {
        state.lock().unwrap().users.insert(fanal::base::jid::Bare::new(jid).unwrap(), None);
    }
    let client = Client::new(server.address(), None);
    let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = client.users(after.as_deref(), 100, None).unwrap();
        listed.extend(page.users.into_iter().map(|user| user.jid));
        pages += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((listed, pages), (jids, 3));
    assert_eq!(get(server.address(), "/users?limit=7").body.matches("\"jid\"").count(), 7);
    for limit in ["0", "1001", "-1", "x", ""] {
        get(server.address(), &format!("/users?limit={limit}")).is_error(400, "from 1 to 1000");
    }
    get(server.address(), "/users?after=nobody").is_error(400, "write local@domain");
}

#[test]
fn c1_the_clients_with_the_most_load_are_listed() {
    let (server, _state) = start(loopback());
    let list = Client::new(server.address(), None).clients(3).unwrap();
    assert_eq!(list.clients.iter().map(|client| client.units_in).collect::<Vec<_>>(), [100, 99, 98]);
    let table = list.table();
    let first: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(first, ["user0@localhost/phone", "0", "1", "100", "10", "3", "300"]);
    get(server.address(), "/clients?limit=0").is_error(400, "from 1 to 1000");
}

#[test]
fn health_follows_the_node() {
    let (server, state) = start(loopback());
    let status = |path: &str| get(server.address(), path);
    assert_eq!((status("/healthz").status, status("/readyz").status), (200, 200));
    state.lock().unwrap().not_ready = Some("it is stopping".into());
    assert_eq!(status("/healthz").status, 200);
    status("/readyz").is_error(503, "it is stopping");
    state.lock().unwrap().not_live = Some("core 1 is stuck".into());
    status("/healthz").is_error(503, "core 1 is stuck");
    status("/readyz").is_error(503, "core 1 is stuck");
}

#[test]
fn metrics_and_stats_show_every_core() {
    let (server, state) = start(loopback());
    let metrics = get(server.address(), "/metrics");
    assert!(metrics.headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(metrics.body.ends_with("# EOF\n"));
    for line in
        ["fanal_updates_total{core=\"1\"} ", "fanal_store_rows_total 42", "fanal_admin_requests_total 1\n", "process_open_fds "]
    {
        assert!(metrics.body.contains(line), "{line}");
    }
    let report: Report = Client::new(server.address(), None).stats().unwrap();
    assert_eq!((report.cores.len(), report.all.core.as_str()), (2, "all"));
    assert!(report.table(None).contains("end_to_end"));
    state.lock().unwrap().overloaded = true;
    get(server.address(), "/stats").is_error(503, "look at its load");
    get(server.address(), "/metrics").is_error(503, "look at its load");
}

#[test]
fn the_interval_log_grows_by_itself_and_stands_in_the_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fanal.hlog");
    let settings = Settings { interval: Duration::from_millis(20), interval_log: Some(file.clone()), ..loopback() };
    let (server, _state) = start(settings);
    let client = Client::new(server.address(), None);
    let patience = Instant::now() + Duration::from_secs(20);
    let tags = |text: &str| {
        let entries = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.expect("a sound line"));
        entries.filter(|entry| matches!(entry, LogEntry::Interval(_))).count()
    };
    while tags(&client.histograms().unwrap()) < 6 {
        assert!(Instant::now() < patience, "no intervals");
        std::thread::yield_now();
    }
    server.stop();
    let written = std::fs::read_to_string(file).unwrap();
    assert!(written.starts_with("#[Histogram log format version") && tags(&written) >= 6, "{written}");
    assert!(written.contains("Tag=core0_end_to_end,") && written.contains("Tag=core1_end_to_end,"));
}

#[test]
fn head_is_get_without_a_body_and_other_methods_are_told_what_there_is() {
    let (server, _state) = start(loopback());
    let address = server.address();
    let head = ask(address, "HEAD", "/healthz", "", "");
    assert_eq!((head.status, head.headers["content-length"].clone()), (200, get(address, "/healthz").body.len().to_string()));
    for (method, target, allow) in [
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/users", "GET, HEAD, POST"),
        ("GET", "/users/alice@localhost", "DELETE"),
        ("GET", "/transfer", "POST"),
        ("GET", "/certificate", "POST"),
        ("OPTIONS", "/stats", "GET, HEAD"),
        ("BREW", "/healthz", "GET, HEAD"),
    ] {
        let answer = ask(address, method, target, "", "");
        answer.is_error(405, allow);
        assert_eq!(answer.headers["allow"], allow);
    }
    for target in ["/", "/metrics/", "/user", "//", "/%2e%2e/etc/passwd", "*"] {
        get(address, target).is_error(404, "/healthz");
    }
}

#[test]
fn with_a_token_only_who_knows_it_may_ask() {
    let (server, state) = start(Settings { token: Some(secret()), ..loopback() });
    let address = server.address();
    for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic Zm9vOmJhcg==\r\n", "Authorization: Bearer \r\n"] {
        let changes = ["/users/a@localhost", "/clusters/7"].map(|target| ("DELETE", target));
        let changes = changes.into_iter().chain([("POST", "/transfer"), ("POST", "/certificate")]);
        for (method, target) in [("GET", "/metrics"), ("GET", "/users")].into_iter().chain(changes) {
            let answer = ask(address, method, target, headers, "");
            answer.is_error(401, "listen.admin_token");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert_eq!((get(address, "/healthz").status, get(address, "/readyz").status), (200, 200));
    Client::new(address, Some(secret())).add_user("alice@localhost", None).unwrap();
    assert_eq!(state.lock().unwrap().users.len(), 1);
    assert!(matches!(Client::new(address, None).stats(), Err(ClientError::Refused { status: 401, .. })));
}

#[test]
fn other_machines_are_only_let_in_with_a_token() {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let node = || Box::new(crate::fake::Node(Default::default()));
    let refused = Server::start(Settings::new(everywhere, None), node()).err().unwrap();
    assert!(matches!(refused, StartError::TokenNeeded(_)) && refused.to_string().contains("set listen.admin_token"));
    let server = Server::start(Settings::new(everywhere, Some(secret())), node()).unwrap();
    let here = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    get(here, "/stats").is_error(401, "Bearer");
}

#[test]
fn a_web_page_in_a_browser_of_this_machine_gets_nothing() {
    let (server, state) = start(loopback());
    let mut rebound = Wire::new(server.address());
    rebound.send("GET /users HTTP/1.1\r\nHost: evil.example:7401\r\n\r\n");
    rebound.answer().unwrap().is_error(403, "localhost");
    let user = "{\"jid\":\"eve@localhost\",\"password\":\"x\"}";
    let form = ask(server.address(), "POST", "/users", "Content-Type: text/plain\r\n", user);
    form.is_error(415, "application/json");
    assert!(state.lock().unwrap().users.is_empty());
    for host in ["localhost:7401", "127.0.0.1:7401", "[::1]:7401", "LOCALHOST"] {
        let mut wire = Wire::new(server.address());
        wire.send(format!("GET /users HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(wire.answer().unwrap().status, 200, "{host}");
    }
}

#[test]
fn bodies_that_are_not_what_a_route_takes_are_explained() {
    let (server, _state) = start(loopback());
    let deep = "[".repeat(60_000);
    for body in ["{", "[]", "{\"jid\":1}", "{\"jid\":\"a@localhost\",\"pasword\":\"x\"}", "\u{7f}", &deep] {
        post(server.address(), "/users", body).is_error(400, "alice@example.org");
    }
    post(server.address(), "/transfer", "{\"jid\":\"a@localhost\"}").is_error(400, "host:port");
    for address in ["", ":1", "h:", "h:0", "h:70000", "h"] {
        let body = format!("{{\"jid\":\"a@localhost\",\"address\":\"{address}\"}}");
        post(server.address(), "/transfer", &body).is_error(400, "write host:port");
    }
}

#[test]
fn requests_in_one_packet_are_answered_in_their_order() {
    let (server, state) = start(loopback());
    let mut wire = Wire::new(server.address());
    let user = "{\"jid\":\"alice@localhost\"}";
    let json = "Content-Type: application/json\r\n";
    let all =
        [request("GET", "/healthz", "", ""), request("POST", "/users", json, user), request("GET", "/users", "", "")].concat();
    wire.send(all + &request("GET", "/nothing", "", "") + &request("HEAD", "/healthz", "Connection: close\r\n", ""));
    assert_eq!(wire.answer().unwrap().body, "{\"status\":\"live\"}");
    assert_eq!(wire.answer().unwrap().status, 201);
    assert!(wire.answer().unwrap().body.contains("alice@localhost"));
    assert_eq!(wire.answer().unwrap().status, 404);
    let last = wire.answer_to(true).unwrap();
    assert_eq!((last.status, last.headers["connection"].as_str()), (200, "close"));
    assert!(wire.is_closed());
    assert_eq!(state.lock().unwrap().users.len(), 1);
}

#[test]
fn a_client_without_a_node_is_told_what_to_do() {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let error = Client::new(free, None).stats().unwrap_err().to_string();
    assert!(error.contains(&free.to_string()) && error.contains("fanal serve"), "{error}");
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = other.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = other.accept().unwrap();
        let mut bytes = [0; 4096];
        assert!(stream.read(&mut bytes).unwrap() > 0);
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
    });
    assert!(matches!(Client::new(address, None).stats(), Err(ClientError::NotANode(..))));
    thread.join().unwrap();
}
