//! The command line as a person meets it: what it prints, where errors go, and the exit status.
#![cfg(feature = "runtime")]
mod support;

use fanal::base::config::{Config, LogIn};
use fanal::base::jid::Bare;
use fanal::base::time::WallClock;
use fanal::front::doors::Speaks;
use fanal::front::token::Keys;
use fanal::node::keys::NodeKeys;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use support::served::{Served, fanal};

fn run(args: &[&str]) -> Output {
    fanal(args).output().expect("the binary runs")
}

/// What a command that must succeed printed.
fn printed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that must fail said: the first line of stderr, and the rest.
fn refused(args: &[&str]) -> (String, String) {
    let output = run(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?} printed {:?}", String::from_utf8_lossy(&output.stdout));
    let (line, rest) = said.split_once('\n').expect("a whole line");
    (line.to_owned(), rest.to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn the_printed_configuration_is_the_library_s_and_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanal.toml");
    let shown = printed(&["config"]);
    assert_eq!(shown, Config::default_file());
    std::fs::write(&file, shown).unwrap();
    assert_eq!(printed(&["config", "--check", "--config", text(&file)]), "the configuration is sound\n");
}

#[test]
fn a_mistake_in_the_file_is_one_line_with_its_place_and_then_the_place_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanal.toml");
    std::fs::write(&file, "[node]\ndomain = \"localhost\"\ncores = \"two\"\n").unwrap();
    let (line, rest) = refused(&["config", "--check", "--config", text(&file)]);
    assert!(line.starts_with(&format!("error: {}:3:9: node.cores: \"two\" names no processors: write ", text(&file))), "{line}");
    assert!(rest.contains("cores = \"two\"") && rest.contains("fanal.toml:3:9"), "{rest}");
}

#[test]
fn what_the_machine_does_not_have_is_found_in_the_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanal.toml");
    std::fs::write(&file, "[node]\ncores = [60000]\n").unwrap();
    let check = ["config", "--check", "--config", text(&file)];
    let (line, _) = refused(&check);
    assert!(
        line.contains("fanal.toml:2:9: node.cores: processor 60000 is not available") && line.contains("choose among"),
        "{line}"
    );
    let free = fanal::drive::pin::processors()[0].id.to_string();
    assert!(printed(&[&check[..], &["--cores", &free]].concat()).contains("sound"));
}

#[test]
fn a_file_that_is_no_text_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanal.toml");
    std::fs::write(&file, b"[node]\ndomain = \"caf\xe9\"\n").unwrap();
    let (line, _) = refused(&["config", "--check", "--config", text(&file)]);
    assert!(line.contains("fanal.toml:2: ") && line.contains("save the file as UTF-8"), "{line}");
}

#[test]
fn what_a_node_cannot_have_is_named_with_the_key_and_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let serve = |args: &[&str]| refused(&[&["serve", "--data", text(&data)], args].concat()).0;
    let line = serve(&["--native", &taken, "--admin", "127.0.0.1:0"]);
    assert!(line.starts_with(&format!("error: listen.native: can't listen on {taken}: ")), "{line}");
    assert!(line.contains("choose another port") && line.matches(&taken).count() == 1, "{line}");
    let line = serve(&["--native", "127.0.0.1:0", "--admin", &taken]);
    assert!(line.contains(&taken) && line.contains("choose another listen.admin"), "{line}");
    let line = serve(&["--cores", "60000"]);
    assert!(line.starts_with("error: node.cores: processor 60000 is not available") && line.contains("choose among"), "{line}");
    let output = run(&["serve", "--native", "here"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.lines().next().unwrap().contains("like 127.0.0.1:7400"), "{said}");
}

#[test]
fn the_command_line_overrides_the_file_and_is_checked_like_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanal.toml");
    std::fs::write(&file, "[listen]\nadmin = \"127.0.0.1:1\"\n").unwrap();
    let check = ["config", "--check", "--config", text(&file)];
    let (line, _) = refused(&[&check[..], &["--admin", "0.0.0.0:1"]].concat());
    assert!(line.starts_with("error: listen.admin: ") && line.contains("admin_token"), "{line}");
    let (line, _) = refused(&[&check[..], &["--cores", "0,0"]].concat());
    assert!(line.starts_with("error: node.cores: "), "{line}");
    let free = fanal::drive::pin::processors()[0].id.to_string();
    assert!(printed(&[&check[..], &["--cores", &free, "--domain", "example.org"]].concat()).contains("sound"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (line, _) = refused(&["config", "--check", "--config", "no/such/file.toml"]);
    assert!(line.starts_with("error: no/such/file.toml: can't read the configuration: ") && line.contains("--config"), "{line}");
}

#[test]
fn users_of_a_stopped_node_are_added_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let with_data =
        |args: &[&str]| -> Vec<String> { args.iter().chain(&["--data", text(&data)]).map(|&arg| arg.to_owned()).collect() };
    let run = |args: &[&str]| printed(&with_data(args).iter().map(|arg| &**arg).collect::<Vec<_>>());
    let refused = |args: &[&str]| refused(&with_data(args).iter().map(|arg| &**arg).collect::<Vec<_>>()).0;

    assert!(refused(&["user", "list"]).contains("there is no data here"));
    assert!(run(&["user", "add", "alice@localhost", "--password", "secret"]).starts_with("added alice@localhost, number 0x"));
    assert!(run(&["user", "add", "Bob", "--no-password"]).starts_with("added bob@localhost, number 0x"));
    assert!(refused(&["user", "add", "alice", "--password", "other"]).contains("there is such a user already"));
    assert_eq!(run(&["user", "add", "alice", "--password", "other", "--replace"]), "alice@localhost has another password\n");

    let list = run(&["user", "list"]);
    let ways: Vec<(&str, &str)> = list.lines().map(|l| (l.split('\t').next().unwrap(), l.rsplit('\t').next().unwrap())).collect();
    assert_eq!(ways, [("alice@localhost", "password"), ("bob@localhost", "token")]);

    assert_eq!(run(&["user", "del", "alice"]), "deleted alice@localhost\n");
    assert!(refused(&["user", "del", "alice"]).contains("there is no such user"));
    assert_eq!(run(&["user", "list"]).lines().count(), 1);
}

#[test]
fn what_is_no_user_here_is_refused_with_the_fix_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let add = |jid: &str| refused(&["user", "add", jid, "--password", "p", "--data", text(&data)]).0;
    let line = add("alice@example.org");
    assert!(line.contains("this node's users are @localhost") && line.contains("--domain"), "{line}");
    let line = add("a b");
    assert!(line.contains("not a user: write local@localhost"), "{line}");
    assert!(!data.exists());
}

#[test]
fn a_password_can_be_given_on_standard_input_and_be_neither_empty_nor_endless() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let add = ["user", "add", "alice", "--data", text(&data)];
    let mut child = fanal(&add).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"added alice@localhost"));
    let output = run(&add);
    assert!(String::from_utf8(output.stderr).unwrap().contains("the password is empty"));
    let output = run(&[&add[..], &["--password", &"p".repeat(1025)]].concat());
    assert!(String::from_utf8(output.stderr).unwrap().contains("the password is 1025 bytes long: give one of at most 1024"));
}

#[test]
fn a_password_that_is_typed_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let terminal = nix::pty::openpty(None, None).unwrap();
    let (mut screen, mut keys) = (File::from(terminal.master.try_clone().unwrap()), File::from(terminal.master));
    let slave = || terminal.slave.try_clone().unwrap();
    let mut child = {
        let mut command = fanal(&["user", "add", "alice", "--data", text(&data)]);
        command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap()
    };
    drop(terminal.slave);
    let (mut shown, mut byte) = (Vec::new(), [0]);
    let mut until = |end: &str| {
        while !shown.ends_with(end.as_bytes()) {
            screen.read_exact(&mut byte).expect("the command goes on");
            shown.push(byte[0]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    };
    until("password: ");
    keys.write_all(b"secret\n").unwrap();
    let said = until("added alice@localhost");
    assert!(!said.contains("secret"), "{said}");
    until("\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_node_serves_until_it_is_told_to_stop_and_its_data_is_its_own_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let served = Served::start(&data, 1);
    TcpStream::connect(served.native).expect("it listens");
    let (line, _) = refused(&["serve", "--data", text(&data), "--native", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert!(line.contains("a node is running on this directory"), "{line}");
    served.stop();
    assert_eq!(printed(&["user", "list", "--data", text(&data)]), "");
}

#[test]
fn users_of_a_running_node_are_managed_through_its_admin_address() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let served = Served::start(&data, 1);
    let admin = served.admin.to_string();
    let to_node = ["--admin", &*admin];
    assert!(printed(&[&["user", "add", "alice@localhost", "--password", "p"], &to_node[..]].concat()).starts_with("added alice"));
    // The directory is in use, so the command goes to the node that uses it.
    assert!(
        printed(&[
            "user",
            "add",
            "bob",
            "--no-password",
            "--data",
            text(&data),
            "--config",
            text(&admin_only(folder.path(), &admin))
        ])
        .starts_with("added bob")
    );
    let (line, _) = refused(&[&["user", "add", "alice@localhost", "--password", "p"], &to_node[..]].concat());
    assert!(line.contains("alice@localhost"), "{line}");
    let (line, _) = refused(&[&["user", "add", "alice@elsewhere", "--password", "p"], &to_node[..]].concat());
    assert!(line.contains("this node's users are @localhost"), "{line}");
    // Found busy, and no node at the configured address.
    let (line, _) = refused(&["user", "list", "--data", text(&data), "--config", text(&admin_only(folder.path(), "127.0.0.1:1"))]);
    assert!(line.contains("a node is running on this directory") && line.contains("give it with --admin"), "{line}");
    let list = printed(&[&["user", "list"], &to_node[..]].concat());
    assert_eq!(list.lines().map(|line| line.split('\t').next().unwrap()).collect::<Vec<_>>(), ["alice@localhost", "bob@localhost"]);
    printed(&[&["user", "del", "alice@localhost"], &to_node[..]].concat());
    served.stop();
    assert_eq!(printed(&["user", "list", "--data", text(&data)]).lines().count(), 1);
    let (line, _) = refused(&[&["user", "list"], &to_node[..]].concat());
    assert!(line.contains("no node answers at the admin address"), "{line}");
}

/// A configuration that only names the admin address.
fn admin_only(folder: &Path, admin: &str) -> PathBuf {
    let file = folder.join("fanal.toml");
    std::fs::write(&file, format!("[listen]\nadmin = \"{admin}\"\n")).unwrap();
    file
}

#[test]
fn stats_are_a_table_for_people_and_json_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(&folder.path().join("data"), 1);
    let admin = served.admin.to_string();
    let stats = |more: &[&str]| printed(&[&["stats", "--admin", &admin], more].concat());
    assert!(stats(&[]).lines().count() > 3);
    assert!(stats(&["--json"]).trim_start().starts_with('{'));
    assert!(stats(&["--histograms"]).starts_with('#'));
    let _client = TcpStream::connect(served.native).expect("it listens");
    assert!(stats(&["--clients"]).starts_with("client "));
    assert!(stats(&["--clients", "5", "--json"]).contains("\"clients\""));
    served.stop();
}

#[test]
fn a_token_lets_in_whom_it_names_with_the_keys_the_node_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (line, _) = refused(&["token", "alice", "--data", text(&data)]);
    assert!(line.contains("run `fanal serve`"), "{line}");
    Served::start(&data, 1).stop();
    let token = |args: &[&str]| printed(&[&["token"], args, &["--data", text(&data)]].concat());
    let (user, trunk) = (token(&["alice"]), token(&["--trunk", "game-1", "--seconds", "60"]));
    let keys = NodeKeys::read(&LogIn::default(), &data).unwrap();
    let alice = Bare::new("alice@localhost").unwrap();
    assert_eq!(keys.token.verify_user(user.trim().as_bytes(), &alice, WallClock(0)), Ok(()));
    assert_eq!(keys.trunk.verify_trunk(trunk.trim().as_bytes(), WallClock(0)), Ok("game-1".to_owned()));
}

#[test]
fn configured_keys_need_no_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanal.toml");
    let key = "0123456789abcdef0123456789abcdef";
    std::fs::write(&file, format!("[login]\ntoken_keys = [\"{key}\"]\n[node]\ndata = \"no/such/place\"\n")).unwrap();
    let token = printed(&["token", "alice@localhost", "--config", text(&file)]);
    let alice = Bare::new("alice@localhost").unwrap();
    assert_eq!(Keys::new([key]).unwrap().verify_user(token.trim().as_bytes(), &alice, WallClock(0)), Ok(()));
}

#[test]
fn the_demo_makes_traffic_that_is_delivered_and_can_be_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let served = Served::start(&data, 1);
    let native = served.native.to_string();
    for _ in 0..2 {
        let demo = ["demo", "--users", "10", "--subscribers", "3", "--rate", "200", "--seconds", "1"];
        let said = printed(&[&demo[..], &["--native", &native, "--data", text(&data)]].concat());
        let last = said.lines().last().unwrap();
        let figures: Vec<u64> = last.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        let [_, updates, deliveries] = figures[..] else { panic!("{said}") };
        assert!(updates > 0 && deliveries > 0 && deliveries <= (updates + 10) * 3, "{said}");
    }
    served.stop();
}

/// What `fanal bench fanout` promises to other programs.
const FANOUT_KEYS: &[&str] = &[
    "updates_per_s",
    "deliveries_per_s",
    "lost",
    "p50_us",
    "p99_us",
    "p999_us",
    "server_cpu_ns_per_delivery",
    "floor_cpu_ns_per_delivery",
    "floor_ratio",
    "bytes_per_session",
];

#[test]
fn g6_an_operator_measures_a_node_that_runs_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let served = Served::start(&data, 1);
    let (native, admin) = (served.native.to_string(), served.admin.to_string());
    let size = ["--users", "20", "--subscribers", "4", "--seconds", "1", "--rounds", "1", "--json"];
    let bench = [&["bench", "fanout"], &size[..], &["--target", &native]].concat();
    let (line, _) = refused(&[&bench[..], &["--data", text(folder.path())]].concat());
    assert!(line.contains("keys can't be read") && line.contains("name --data or --config, or give --token-key"), "{line}");
    // The data directory tells what there is to know: the keys and the process.
    let said = printed(&[&bench[..], &["--data", text(&data), "--admin", &admin]].concat());
    let report: std::collections::BTreeMap<String, simd_json::OwnedValue> =
        simd_json::serde::from_slice(&mut said.into_bytes()).expect("one JSON object");
    FANOUT_KEYS.iter().for_each(|key| assert!(report.contains_key(*key), "{key} is missing in {report:?}"));
    assert_eq!(report["lost"], 0);
    assert!(report["updates_per_s"] != 0 && report["deliveries_per_s"] != 0);
    assert_ne!(report["server_cpu_ns_per_delivery"], simd_json::OwnedValue::default(), "its process was found: {report:?}");
    let keys = std::fs::read_to_string(data.join("keys")).unwrap();
    let key = keys.lines().find_map(|line| line.strip_prefix("token = ")).unwrap();
    let said = printed(&[&bench[..], &["--no-floor", "--token-key", key, "--data", text(folder.path())]].concat());
    assert!(said.contains("\"lost\":0") && said.contains("\"server_cpu_ns_per_delivery\":null"), "{said}");
    let storm = ["bench", "storm", "--users", "20", "--subscribers", "4", "--rounds", "1", "--json", "--target", &native];
    assert!(printed(&[&storm[..], &["--data", text(&data), "--admin", &admin]].concat()).contains("\"lost\":0"));
    let idle = ["bench", "idle", "--users", "20", "--seconds", "0.1", "--json", "--target", &native];
    let said = printed(&[&idle[..], &["--data", text(&data), "--admin", &admin]].concat());
    assert!(said.contains("\"lost\":0") && said.contains("\"bytes_per_account\":null"), "its users are there already: {said}");
    served.stop();
}

#[test]
fn g6_an_operator_measures_the_websocket_door_of_a_node_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut config = Config::default();
    config.listen.ws = Some("127.0.0.1:0".parse().unwrap());
    let served = Served::start_with_config(&data, 1, &config);
    let (door, admin) = (served.doors[Speaks::WebSocket.name()].to_string(), served.admin.to_string());
    let size = ["--users", "20", "--subscribers", "4", "--seconds", "0.2", "--rounds", "1", "--no-floor", "--json"];
    let bench = [&["bench", "fanout", "--door", "ws", "--target", &door], &size[..]].concat();
    let said = printed(&[&bench[..], &["--data", text(&data), "--admin", &admin]].concat());
    assert!(said.contains("\"lost\":0") && !said.contains("\"server_cpu_ns_per_delivery\":null"), "{said}");
    FANOUT_KEYS.iter().for_each(|key| assert!(said.contains(&format!("\"{key}\":")), "{key} is missing in {said}"));
    served.stop();
}

#[test]
fn every_subcommand_explains_itself() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed = commands.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names: Vec<&str> = listed.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").collect();
    assert!(names.contains(&"config") && names.contains(&"user"), "{help}");
    for name in names {
        let help = printed(&[name, "--help"]);
        assert!(help.contains("Usage: fanal"), "{name}");
        let examples: Vec<&str> = help.lines().skip_while(|line| *line != "Examples:").skip(1).collect();
        assert!(!examples.is_empty(), "{name}: {help}");
        for example in examples {
            let words: Vec<&str> = example.split_whitespace().skip(1).collect();
            // With --help a command only reads its line, up to a mistake.
            assert_eq!(words[0], name);
            assert!(printed(&[&words[..], &["--help"]].concat()).contains("Usage: fanal"), "{example}");
        }
    }
    let (defaults, serve) = (Config::default(), printed(&["serve", "--help"]).split_whitespace().collect::<Vec<_>>().join(" "));
    let (listen, node) = (defaults.listen, defaults.node);
    for default in [listen.native.to_string(), listen.admin.to_string(), text(&node.data).to_owned(), node.domain] {
        assert!(serve.contains(&format!("[default: {default}]")), "{default} is not in: {serve}");
    }
}

/// Z2: what a cluster's nodes prove themselves with.
#[test]
fn z2_link_makes_authorities_and_certificates_for_this_user_alone_and_writes_over_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca, one, two, three) = (path("authority"), path("one"), path("two"), path("three"));
    assert!(printed(&["link", "ca", "--out", &ca]).contains("ca.key: its key"));
    let of = |ca, node, out| ["link", "certificate", "--ca", ca, "--cluster", "3", "--node", node, "--out", out];
    let said = printed(&of(&ca, "2", &one));
    let table: toml::Table = said.parse().expect("what it says can stand in the configuration");
    assert_eq!(table["link"]["certificate"].as_str(), Some(&*format!("{one}/node.pem")), "{said}");
    assert!(said.contains("node-2.cluster-3.fanal"), "{said}");
    for file in [format!("{ca}/ca.key"), format!("{ca}/ca.pem"), format!("{one}/node.key"), format!("{one}/node.pem")] {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    for again in [&["link", "ca", "--out", &ca][..], &of(&ca, "2", &one)] {
        assert!(refused(again).0.contains("is there already"));
    }
    let json = printed(&[&of(&ca, "1", &two)[..], &["--json"]].concat());
    assert!(json.starts_with('{') && json.contains(&format!("\"key\":\"{two}/node.key\"")), "{json}");
    printed(&["link", "ca", "--out", &path("other")]);
    std::fs::copy(path("other/ca.key"), path("authority/ca.key")).unwrap();
    let (mixed, _) = refused(&of(&ca, "3", &three));
    assert!(mixed.contains("don't belong together") && mixed.contains("fanal link ca"), "{mixed}");
    assert!(refused(&of(&three, "3", &three)).0.contains("ca.pem can't be read"));
}

/// G5: a node without a cluster says so; one that does not answer is named.
#[test]
fn g5_cluster_status_of_a_node_that_is_alone_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let node = Served::start(&folder.path().join("data"), 1);
    let admin = node.admin.to_string();
    assert!(printed(&["cluster", "status", "--admin", &admin]).contains("this node is alone"));
    assert!(printed(&["cluster", "status", "--json", "--admin", &admin]).contains("\"cluster\":0"));
    node.stop();
    assert!(refused(&["cluster", "status", "--admin", &admin]).0.contains(&admin));
}
