//! A whole node on PostgreSQL (M1, M3): users and subscriptions outlive it; presence goes on while the database is away, and what
//! must be durable is refused; the command line finds its users there.

mod support;

use fanal::admin::client::{Client as Admin, ClientError};
use fanal::base::config::{Config, DatabaseUrl, StoreKind};
use fanal::base::reason::Reason;
use fanal::client::{Client, Error};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use support::postgres::{Proxy, Way, query, server};
use support::served::{Served, fanal};
use support::*;

fn on_postgres(url: &str, dir: &tempfile::TempDir) -> Config {
    let mut config = config(2);
    config.store.kind = StoreKind::Postgres;
    config.store.url = Some(DatabaseUrl(url.to_owned()));
    config.node.data = dir.path().join("data");
    config
}

fn status(client: &mut Client, text: &str) {
    let resource = client.logged_in().expect("logged in").resource().to_owned();
    let presence = fanal::client::Presence { resource, status: text.to_owned(), ..fanal::client::Presence::default() };
    client.set_presence(&presence).expect("presence is set");
}

/// Waits for a presence with this text.
fn hears(client: &mut Client, text: &str) {
    while presence(client).presence.is_none_or(|presence| presence.status != text) {}
}

/// The body of an answer of the admin API.
fn get(admin: std::net::SocketAddr, path: &str) -> String {
    let mut socket = std::net::TcpStream::connect(admin).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn users_and_subscriptions_outlive_the_node() {
    let Some(server) = server() else { return };
    let (dir, url) = (tempfile::tempdir().unwrap(), server.new_url());
    let config = on_postgres(&url, &dir);
    let node = TestNode::start(&config);
    let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    subscribe(&mut alice, &mut bob);
    status(&mut bob, "before");
    bob.ping().unwrap();
    drop((alice, bob));
    node.stop();
    assert_eq!(query(&url, "SELECT alive FROM fanal_nodes WHERE node = 1").unwrap(), [["f"]]);
    let node = TestNode::start(&config);
    let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    assert_eq!(alice.roster().unwrap()[0].jid, "bob@localhost");
    available(&mut alice);
    status(&mut bob, "after");
    hears(&mut alice, "after");
    assert_eq!(query(&url, "SELECT epoch FROM fanal_nodes WHERE node = 1").unwrap(), [["2"]]);
}

#[test]
fn m3_presence_goes_on_while_the_database_is_away_and_what_must_be_durable_is_refused() {
    let Some(server) = server() else { return };
    let (dir, database, proxy) = (tempfile::tempdir().unwrap(), server.new_database(), Proxy::to(server));
    let mut config = on_postgres(&proxy.url(&database), &dir);
    config.store.timeout_ms = 1_000;
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    let mut node = TestNode::start(&config);
    let admin = Admin::new(node.0.as_mut().unwrap().start_admin(&config).unwrap(), None);
    let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    subscribe(&mut alice, &mut bob);
    available(&mut alice);
    proxy.set(Way::Closed);
    let began = Instant::now();
    match alice.subscribe("carol@localhost", "") {
        Err(Error::Refused(refusal)) => {
            assert_eq!(refusal.reason(), Some(Reason::StorageFailed));
            assert!(refusal.text.contains("could not be written"), "{}", refusal.text);
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    match admin.add_user("erin@localhost", None) {
        Err(ClientError::Refused { status: 503, error, .. }) => assert!(error.contains("could not be written"), "{error}"),
        other => panic!("{other:?}"),
    }
    status(&mut bob, "away");
    hears(&mut alice, "away");
    proxy.set(Way::Open);
    let end = Instant::now() + LONG;
    while let Err(why) = alice.set_contact("dave@localhost", "", &[]) {
        assert!(Instant::now() < end, "{why}");
    }
    status(&mut bob, "back");
    hears(&mut alice, "back");
    drop((alice, bob));
    node.stop();
    let kept = query(&server.url(&database), "SELECT convert_from(substr(rest, 2), 'UTF8') FROM fanal_roster ORDER BY 1").unwrap();
    assert!(kept.contains(&vec!["dave@localhost".to_owned()]) && !kept.contains(&vec!["carol@localhost".to_owned()]), "{kept:?}");
}

#[test]
fn the_command_line_finds_users_in_the_database_and_a_killed_node_starts_again() {
    let Some(server) = server() else { return };
    let (dir, url) = (tempfile::tempdir().unwrap(), server.new_url());
    let config = on_postgres(&url, &dir);
    let file = dir.path().join("cli.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let user = |args: &[&str]| {
        let output = fanal(&[&["user"], args, &["--config", file.to_str().unwrap()]].concat()).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    assert!(user(&["add", "alice", "--no-password"]).starts_with("added alice@localhost"));
    assert!(user(&["list"]).starts_with("alice@localhost"));
    let served = Served::start_with_config(&config.node.data, 1, &config);
    let refused = fanal(&["store", "check", &url]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("node 1 uses it"), "{refused:?}");
    let metrics = get(served.admin, "/metrics");
    assert!(metrics.contains("fanal_store_up 1") && metrics.contains("fanal_store_connects_total 1"), "{metrics}");
    served.kill();
    Served::start_with_config(&config.node.data, 1, &config).stop();
    assert!(user(&["del", "alice"]).starts_with("deleted alice@localhost"), "it was stopped, and its place is free");
    assert!(query(&url, "SELECT * FROM fanal_accounts").unwrap().is_empty());
}
