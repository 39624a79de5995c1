//! The store on PostgreSQL (J10, M1, M3): the same contents as any other back end, transactions of unknown end, a database that is
//! away, nodes that share one. A real server, one for all tests here.
#![cfg(feature = "runtime")]

mod support;

use fanal::base::id::slot_of;
use fanal::store::dir::OpenError;
use fanal::store::memory::Memory;
use fanal::store::postgres::{PostgresStore, SCHEMA, Settings, TOOL, Target, Writer};
use fanal::store::redb::RedbStore;
use fanal::store::rows::{self, Row};
use fanal::store::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use support::postgres::{Proxy, Server, Way, query, server};

/// Long enough for a loaded machine where the database is there.
const PATIENT: Duration = Duration::from_secs(60);
/// Short, where it is away.
const SHORT: Duration = Duration::from_millis(1_500);

fn settings(url: &str, node: u16, patience: Duration) -> Settings {
    Settings { target: Target::parse(url).unwrap(), writer: Writer { cluster: 0, node }, patience, seed: 1 }
}

fn open(url: &str, node: u16) -> PostgresStore {
    open_with(settings(url, node, PATIENT))
}

fn open_with(settings: Settings) -> PostgresStore {
    let mut store = PostgresStore::open(settings, None).unwrap();
    store.begin_epoch().unwrap();
    store
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Write {
    Write { table, key: key.to_vec(), value: Some(value.to_vec()) }
}

fn synced(write: Write) -> Commit {
    Commit { ticket: 0, writes: vec![write], durability: Durability::Synced }
}

fn late(write: Write) -> Commit {
    Commit { durability: Durability::RideAlong, ..synced(write) }
}

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// All rows but those that say which place this is.
fn contents(store: &dyn Backend) -> Rows {
    let mut all = Rows::new();
    for table in Table::ALL {
        let mut row = |key: &[u8], value: &[u8]| {
            if table != Table::Meta || (key != rows::EPOCH_KEY && key != rows::FORMAT_KEY) {
                assert_eq!(all.insert((table, key.to_vec()), value.to_vec()), None, "a row came twice");
            }
            Ok(())
        };
        store.load(table, &mut row, &mut |_, _| ()).unwrap();
    }
    all
}

/// Keys as there are: few, so that rows are changed and deleted.
fn keys(table: Table) -> BoxedStrategy<Vec<u8>> {
    let jid = || prop::sample::select(vec!["a@x", "b@x", "bb@x", "c\u{e9}@x"]).prop_map(|jid| jid.as_bytes().to_vec());
    let with = |rest: BoxedStrategy<Vec<u8>>| (jid(), rest).prop_map(|(jid, rest)| [jid, vec![0], rest].concat()).boxed();
    match table {
        Table::Meta => (0u16..3).prop_map(rows::serial_key).boxed(),
        Table::Accounts | Table::LastPresence => jid().boxed(),
        Table::Ways => with((jid(), 0u64..3).prop_map(|(jid, n)| [jid, vec![0], n.to_be_bytes().to_vec()].concat()).boxed()),
        Table::Messages => with((0u64..3).prop_map(|n| n.to_be_bytes().to_vec()).boxed()),
        _ => with(jid().boxed()),
    }
}

fn writes() -> impl Strategy<Value = Write> {
    let table = prop::sample::select(Table::ALL.to_vec());
    let write = |table: Table| (Just(table), keys(table), prop::option::of(prop::collection::vec(any::<u8>(), 0..9)));
    table.prop_flat_map(write).prop_map(|(table, key, value)| Write { table, key, value })
}

fn commits() -> impl Strategy<Value = Commit> {
    let writes = prop::collection::vec(writes(), 0..4);
    (writes, any::<bool>()).prop_map(|(writes, is_late)| Commit {
        ticket: 0,
        writes,
        durability: if is_late { Durability::RideAlong } else { Durability::Synced },
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_redb_and_postgres_hold_the_same_after_the_same_commits(
        groups in prop::collection::vec(prop::collection::vec(commits(), 1..6), 1..8),
    ) {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let Some(server) = server() else { return Ok(()) };
        let cluster = NEXT.fetch_add(1, Ordering::Relaxed);
        let writer = Writer { cluster, node: 1 };
        let mut postgres = open_with(Settings { writer, ..settings(&server.url("postgres"), 1, PATIENT) });
        let dir = tempfile::tempdir().unwrap();
        let mut redb = RedbStore::open(dir::DataDir::take(dir.path()).unwrap()).unwrap();
        let mut memory = Memory::default();
        for group in &groups {
            memory.apply(group).unwrap();
            redb.apply(group).unwrap();
            postgres.apply(group).unwrap();
        }
        prop_assert_eq!(contents(&redb), contents(&memory));
        prop_assert_eq!(contents(&postgres), contents(&memory));
        for write in groups.iter().flatten().flat_map(|commit| &commit.writes) {
            let expected = memory.fetch(write.table, &write.key);
            prop_assert_eq!(redb.fetch(write.table, &write.key), expected.clone());
            prop_assert_eq!(postgres.fetch(write.table, &write.key), expected);
        }
        // Another process reads the same.
        let again = open_with(Settings { writer, ..settings(&server.url("postgres"), 1, PATIENT) });
        prop_assert_eq!(contents(&again), contents(&memory));
    }
}

#[test]
fn a_large_table_comes_whole_and_once_and_by_slots() {
    let Some(server) = server() else { return };
    let mut store = open(&server.new_url(), 1);
    let names: Vec<String> = (0..20_000).map(|n| format!("user{n}@x")).collect();
    let writes = names.iter().map(|name| put(Table::Accounts, name.as_bytes(), name.as_bytes())).collect();
    store.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }]).unwrap();
    assert_eq!(contents(&store).len(), names.len());
    let mut found = Vec::new();
    let slots = 1_000..=30_000;
    let mut row = |key: &[u8], _: &[u8]| {
        found.push(String::from_utf8(key.to_vec()).unwrap());
        Ok(())
    };
    store.load_slots(Table::Accounts, slots.clone(), &mut row, &mut |_, _| ()).unwrap();
    let mut expected: Vec<String> = names.into_iter().filter(|name| slots.contains(&slot_of(name))).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(expected.len() > 8_192 / 2, "more than part of an answer: {}", expected.len());
}

#[test]
fn an_operator_finds_a_users_rows_by_the_jid() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    open(&url, 1).apply(&[synced(put(Table::Roster, b"alice@x\0bob@x", b"row"))]).unwrap();
    let sql = "SELECT slot, convert_from(owner, 'UTF8'), convert_from(substr(rest, 2), 'UTF8'), value FROM fanal_roster \
               WHERE cluster = 0 AND owner = 'alice@x'";
    assert_eq!(query(&url, sql).unwrap(), [[&slot_of("alice@x").to_string(), "alice@x", "bob@x", "\\x726f77"]]);
}

#[test]
fn nodes_that_start_at_once_make_the_tables_once_and_each_has_an_epoch_of_its_own() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    let start = |node| {
        let url = url.clone();
        std::thread::spawn(move || PostgresStore::open(settings(&url, node, PATIENT), None).unwrap().begin_epoch().unwrap())
    };
    let mut epochs: Vec<u32> = (1..=8).map(start).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=8).collect::<Vec<_>>());
    assert_eq!(query(&url, "SELECT version FROM fanal_schema").unwrap(), [[SCHEMA.to_string()]]);
    assert_eq!(PostgresStore::open(settings(&url, 3, PATIENT), None).unwrap().begin_epoch().unwrap(), 9, "higher than any before");
}

#[test]
fn a_role_that_may_not_make_tables_can_use_them_and_is_told_when_there_are_none() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    query(&url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC; DROP ROLE IF EXISTS small; CREATE ROLE small LOGIN").unwrap();
    let small = url.replace("fanal@", "small@");
    let Err(why) = PostgresStore::open(settings(&small, 1, SHORT), None) else { panic!("nobody made tables") };
    assert!(why.to_string().contains("permission denied") && why.to_string().contains("Grant"), "{why}");
    drop(open(&url, 1));
    query(&url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO small").unwrap();
    open(&small, 1).apply(&[synced(put(Table::Accounts, b"a@x", b"1"))]).unwrap();
    query(&url, "DROP OWNED BY small; DROP ROLE small").unwrap();
}

#[test]
fn tables_of_a_newer_fanal_are_left_alone() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    drop(open(&url, 1));
    query(&url, "UPDATE fanal_schema SET version = 99").unwrap();
    match PostgresStore::open(settings(&url, 1, PATIENT), None) {
        Err(OpenError::Newer { found: 99, .. }) => {}
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_node_that_was_replaced_writes_nothing_more() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    let mut old = open(&url, 1);
    old.apply(&[synced(put(Table::Accounts, b"a@x", b"old"))]).unwrap();
    let mut new = open(&url, 1);
    let Err(Failure::Refused(why)) = old.apply(&[synced(put(Table::Accounts, b"a@x", b"late"))]) else { panic!("it was replaced") };
    assert!(why.contains("another process"), "{why}");
    old.apply(&[late(put(Table::LastPresence, b"a@x", b"late"))]).unwrap();
    old.tend();
    assert_eq!(new.fetch(Table::Accounts, b"a@x"), Ok(Some(b"old".to_vec())));
    assert_eq!(new.fetch(Table::LastPresence, b"a@x"), Ok(None));
    new.apply(&[synced(put(Table::Accounts, b"a@x", b"new"))]).unwrap();
}

#[test]
fn a_node_whose_database_has_lost_commits_says_so_and_stores_nothing() {
    let Some(server) = server() else { return };
    let (url, proxy) = (server.new_database(), Proxy::to(server));
    let mut store = open(&proxy.url(&url), 1);
    for value in [b"1", b"2"] {
        store.apply(&[synced(put(Table::Accounts, b"a@x", value))]).unwrap();
    }
    query(&server.url(&url), "UPDATE fanal_nodes SET number = 1").unwrap();
    proxy.set(Way::Closed);
    proxy.set(Way::Open);
    let Err(Failure::Refused(why)) = store.apply(&[synced(put(Table::Accounts, b"a@x", b"3"))]) else { panic!("it has lost one") };
    assert!(why.contains("has lost"), "{why}");
}

#[test]
fn of_two_last_presences_the_newer_stays_whichever_comes_last() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    let mut store = open(&url, 1);
    store.apply(&[late(put(Table::LastPresence, b"a@x", b"first"))]).unwrap();
    query(&url, "UPDATE fanal_last_presence SET value = 'newer', version = version + 1000").unwrap();
    store.apply(&[late(put(Table::LastPresence, b"a@x", b"older"))]).unwrap();
    assert_eq!(store.fetch(Table::LastPresence, b"a@x"), Ok(Some(b"newer".to_vec())));
    // A node that takes users over begins an epoch first: it is newer than all before.
    store.begin_epoch().unwrap();
    store.apply(&[late(put(Table::LastPresence, b"a@x", b"newest"))]).unwrap();
    assert_eq!(store.fetch(Table::LastPresence, b"a@x"), Ok(Some(b"newest".to_vec())));
}

/// A store behind a way that can be cut, and its database.
fn behind_proxy(server: &Server, patience: Duration) -> (Proxy, String, PostgresStore) {
    let (database, proxy) = (server.new_database(), Proxy::to(server));
    drop(open(&server.url(&database), 1));
    let store = open_with(settings(&proxy.url(&database), 1, patience));
    (proxy, server.url(&database), store)
}

/// Opens the way as soon as it was cut.
fn reopen_when_cut(proxy: &Proxy) {
    while !proxy.is(Way::Closed) {
        std::thread::yield_now();
    }
    proxy.set(Way::Open);
}

#[test]
fn a_commit_of_unknown_end_is_asked_for_and_made_once() {
    let Some(server) = server() else { return };
    let (proxy, url, mut store) = behind_proxy(server, PATIENT);
    for (way, made) in [(Way::CutBeforeCommit, "1"), (Way::CutAfterCommit, "2")] {
        proxy.set(way);
        std::thread::scope(|scope| {
            scope.spawn(|| reopen_when_cut(&proxy));
            store.apply(&[synced(put(Table::Accounts, b"a@x", made.as_bytes()))]).unwrap();
        });
        assert_eq!(query(&url, "SELECT convert_from(value, 'UTF8') FROM fanal_accounts").unwrap(), [[made]]);
    }
    assert_eq!(store.health().settled, 2);
    store.apply(&[synced(put(Table::Accounts, b"a@x", b"3"))]).expect("the numbers go on");
}

#[test]
fn a_commit_stays_in_doubt_until_the_database_tells() {
    let Some(server) = server() else { return };
    let (proxy, url, mut store) = behind_proxy(server, SHORT);
    for (way, settled, value) in [(Way::CutBeforeCommit, Settled::NotMade, None), (Way::CutAfterCommit, Settled::Made, Some("b"))] {
        proxy.set(way);
        let doubtful = store.apply(&[synced(put(Table::Accounts, b"a@x", b"b"))]);
        assert!(matches!(doubtful, Err(Failure::InDoubt(_))), "{doubtful:?}");
        assert!(store.heal().is_err(), "it is still away");
        proxy.set(Way::Open);
        assert_eq!(store.heal(), Ok(settled));
        let found = query(&url, "SELECT convert_from(value, 'UTF8') FROM fanal_accounts").unwrap();
        assert_eq!(found, value.map_or(vec![], |value| vec![vec![value.to_owned()]]));
    }
    store.apply(&[synced(put(Table::Accounts, b"a@x", b"c"))]).expect("the numbers go on");
}

#[test]
fn while_the_database_is_away_what_must_be_durable_is_refused_in_time_and_presence_waits() {
    let Some(server) = server() else { return };
    for way in [Way::Closed, Way::Stalled] {
        let (proxy, url, mut store) = behind_proxy(server, SHORT);
        proxy.set(way);
        let began = Instant::now();
        let Err(Failure::Refused(why)) = store.apply(&[synced(put(Table::Accounts, b"a@x", b"1"))]) else { panic!("it is away") };
        assert!(began.elapsed() < SHORT, "{:?}", began.elapsed());
        assert!(why.contains("could not be written") && why.contains("127.0.0.1") && why.contains("Look after"), "{why}");
        let began = Instant::now();
        for value in 0..100u8 {
            assert!(store.apply(&[synced(put(Table::Accounts, b"a@x", &[value]))]).is_err());
            store.apply(&[late(put(Table::LastPresence, b"a@x", &[b'0' + value % 10]))]).expect("presence goes on");
        }
        assert!(began.elapsed() < SHORT / 4, "nobody waits again: {:?}", began.elapsed());
        assert_eq!(store.fetch(Table::LastPresence, b"a@x"), Ok(Some(b"9".to_vec())));
        assert!(!store.health().up);
        store.tend();
        proxy.set(Way::Open);
        while !store.health().up {
            store.tend();
            std::thread::yield_now();
        }
        let found = "SELECT convert_from(value, 'UTF8') FROM fanal_last_presence";
        assert_eq!(query(&url, found).unwrap(), [["9"]], "the newest was written");
        assert!(query(&url, "SELECT * FROM fanal_accounts").unwrap().is_empty(), "what was refused is not there");
        store.apply(&[synced(put(Table::Accounts, b"a@x", b"2"))]).unwrap();
    }
}

#[test]
fn what_waits_for_the_database_is_bounded_and_counted() {
    let Some(server) = server() else { return };
    let (proxy, _, mut store) = behind_proxy(server, SHORT);
    proxy.set(Way::Closed);
    let value = vec![0; 1 << 20];
    for n in 0..40 {
        store.apply(&[late(put(Table::LastPresence, format!("user{n}@x").as_bytes(), &value))]).unwrap();
    }
    let kept = postgres::LATE_BYTES as u64 >> 20;
    assert!((24..=25).contains(&(store.health().late_dropped - (16 - kept))), "{}", store.health().late_dropped);
}

#[test]
fn a_transaction_in_the_way_of_another_is_made_after_it() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    let mut store = open(&url, 1);
    store.apply(&[synced(put(Table::Accounts, b"a@x", b"1"))]).unwrap();
    let in_the_way = url.clone();
    let blocker = std::thread::spawn(move || {
        query(&in_the_way, "BEGIN; UPDATE fanal_accounts SET version = 0; SELECT pg_sleep(0.3); COMMIT").unwrap();
    });
    store.apply(&[synced(put(Table::Accounts, b"a@x", b"2"))]).unwrap();
    blocker.join().unwrap();
    assert_eq!(store.fetch(Table::Accounts, b"a@x"), Ok(Some(b"2".to_vec())));
}

#[test]
fn tools_are_refused_while_a_node_lives() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    let mut node = open(&url, 1);
    let Err(why) = PostgresStore::open_as_tool(settings(&url, TOOL, PATIENT)) else { panic!("a node lives") };
    assert!(why.to_string().contains("node 1 uses it"), "{why}");
    node.close();
    let mut tool = PostgresStore::open_as_tool(settings(&url, TOOL, PATIENT)).unwrap();
    tool.apply(&[synced(put(Table::Accounts, b"a@x", b"tool"))]).unwrap();
    let mut node = open(&url, 1);
    assert!(tool.apply(&[synced(put(Table::Accounts, b"a@x", b"late"))]).is_err(), "a node has begun since");
    assert_eq!(node.fetch(Table::Accounts, b"a@x"), Ok(Some(b"tool".to_vec())));
}

#[test]
fn a_deployment_moves_to_a_database_and_back_and_stays_the_same() {
    let Some(server) = server() else { return };
    let (there, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let redb = |dir: &tempfile::TempDir| RedbStore::open(dir::DataDir::take(dir.path()).unwrap()).unwrap();
    let presence = rows::LastPresence { stamp: fanal::base::time::WallClock(7), presence: vec![1, 2, 3] };
    let contact = rows::Contact::default();
    let mut from = redb(&there);
    for n in 0..3_000 {
        let (user, other) = (format!("user{n}@x"), format!("user{}@x", n + 1));
        let pair = [user.as_bytes(), &[0], other.as_bytes()].concat();
        let writes =
            vec![put(Table::Roster, &pair, &contact.encode()), put(Table::LastPresence, user.as_bytes(), &presence.encode())];
        from.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }]).unwrap();
    }
    from.apply(&[synced(put(Table::Meta, &rows::serial_key(0xff01), &rows::encode_u32(9)))]).unwrap();
    from.begin_epoch().unwrap();
    let sums = copy::sums(&from, &mut |_, _, _| ()).unwrap();
    drop(from);
    let url = server.new_url();
    let fanal = |args: &[&str]| support::served::fanal(args).output().unwrap();
    let (there, back) = (there.path().to_str().unwrap(), back.path().to_str().unwrap());
    let moved = fanal(&["store", "copy", there, &url]);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert!(String::from_utf8_lossy(&moved.stdout).contains("both places hold the same"));
    let again = fanal(&["store", "copy", there, &url]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("holds 6001 rows already"), "{again:?}");
    query(&url, "DELETE FROM fanal_roster WHERE slot > 30000").unwrap();
    assert!(fanal(&["store", "copy", there, &url, "--replace"]).status.success());
    assert!(fanal(&["store", "copy", &url, back]).status.success());
    let returned = RedbStore::open(dir::DataDir::take(std::path::Path::new(back)).unwrap()).unwrap();
    assert_eq!(copy::sums(&returned, &mut |_, _, _| ()).unwrap(), sums);
    assert!(copy::epoch(&returned).unwrap() >= 1);
    drop(returned);
    let checked = |place: &str| String::from_utf8(fanal(&["store", "check", place]).stdout).unwrap();
    assert_eq!(checked(&url), checked(back));
}

#[test]
fn no_command_shows_the_password_of_a_database() {
    let url = "postgres://fanal:hunter2@127.0.0.1:1/fanal";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fanal.toml");
    let data = dir.path().to_str().unwrap();
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = support::served::fanal(&["serve", "--data", data, "--config", file.to_str().unwrap()]).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let away = with(&format!("[store]\nkind = \"postgres\"\nurl = \"{url}\"\ntimeout_ms = 200\n"));
    assert!(away.contains("postgres://fanal@127.0.0.1:1/fanal: can't connect") && away.contains("Start the database"), "{away}");
    let unknown = with(&format!("[store]\nkind = \"sqlite\"\nurl = \"{url}\"\n"));
    let broken = with(&format!("[store]\nurl = \"{url}\"\nkind = 7\n"));
    let check = support::served::fanal(&["store", "check", "postgres://fanal:hunter2@host/fanal"]).output().unwrap();
    for said in [away, unknown, broken, String::from_utf8(check.stderr).unwrap()] {
        assert!(!said.contains("hunter2") && said.contains("error: "), "{said}");
    }
}

#[test]
fn c8_the_database_is_spoken_to_in_private_and_proves_its_name() {
    let pem = |name| fanal::node::certificates::self_signed(name).unwrap();
    let (own, other) = (pem("localhost"), pem("localhost"));
    let Some(server) = Server::start_with_tls(&own) else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (own, other) = (file("own.pem", &own), file("other.pem", &other));
    let at = |host: &str, options: &str| format!("postgres://fanal@{host}:{}/postgres?{options}", server.port());
    let connect = |url: String| PostgresStore::open(settings(&url, 1, PATIENT), None).map(drop).map_err(|why| why.to_string());
    connect(at("localhost", &format!("sslmode=verify-full&sslrootcert={own}"))).unwrap();
    connect(at("127.0.0.1", "sslmode=require")).unwrap();
    let is_private = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'fanal'";
    let _held = open(&at("localhost", "sslmode=require"), 1);
    assert_eq!(query(&server.url("postgres"), is_private).unwrap(), [["t"]]);
    for (host, root) in [("localhost", &other), ("127.0.0.1", &own)] {
        let url = at(host, &format!("sslmode=verify-full&sslrootcert={root}"));
        let why = PostgresStore::open(settings(&url, 1, SHORT), None).err().expect("it is somebody else").to_string();
        assert!(why.contains("certificate"), "{why}");
    }
}

/// M1, Z13: whoever takes slots over replaces whoever has them, until that begins anew; one that has left in order need not be.
#[test]
fn m1_who_has_lost_slots_writes_nothing_more_until_it_begins_anew() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    let (mut one, mut two) = (open(&url, 1), open(&url, 2));
    let row = |value: &[u8]| synced(put(Table::Accounts, b"a@x", value));
    let slot = slot_of("a@x");
    let (first, replaces) = one.take_slots(&[slot], false, false).unwrap().unwrap();
    assert!(!replaces && one.apply(&[row(b"1")]).is_ok() && one.confirm() == Ok(true));
    let slots = [slot, slot.wrapping_add(1)];
    assert_eq!(two.take_slots(&slots, false, false).unwrap(), None, "it's there and has not given it up");
    let (second, replaces) = two.take_slots(&slots, false, true).unwrap().unwrap();
    assert!(replaces && second > first);
    assert!(matches!(one.apply(&[row(b"late")]), Err(Failure::Refused(_))));
    assert_eq!((one.confirm(), two.confirm()), (Ok(false), Ok(true)));
    assert!(one.take_slots(&[7], false, true).is_err(), "it still believes to have its slots");
    assert_eq!(two.fetch(Table::Accounts, b"a@x").unwrap().as_deref(), Some(b"1".as_slice()));
    let (third, replaces) = one.take_slots(&[], true, false).unwrap().unwrap();
    assert!(third > second && !replaces);
    one.apply(&[synced(put(Table::Accounts, b"b@x", b"2"))]).unwrap();
    two.apply(&[row(b"3")]).unwrap();
    two.give_slots(&[slot]).unwrap();
    assert!(!one.take_slots(&[slot], false, false).unwrap().unwrap().1 && two.confirm() == Ok(true), "it was given up");
    two.close();
    assert!(!one.take_slots(&slots, false, false).unwrap().unwrap().1, "it has left in order");
}

/// M1: a slot that goes from one node to another and back at once. One that is there has taken it while the other looked.
#[test]
fn m1_a_slot_that_somebody_takes_at_the_same_moment_is_not_taken_without_force() {
    const HOLD: &str = "BEGIN; SELECT value FROM fanal_meta WHERE owner = 'epoch' FOR UPDATE; \
        INSERT INTO fanal_slots (cluster, slot, node) VALUES (0, 7, 1); \
        DO $$ BEGIN FOR n IN 1..6000 LOOP PERFORM pg_stat_clear_snapshot(); EXIT WHEN EXISTS \
            (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))); \
            PERFORM pg_sleep(0.01); END LOOP; END $$; COMMIT";
    const HELD: &str = "SELECT 1 FROM pg_locks JOIN pg_class ON relation = pg_class.oid \
        WHERE relname = 'fanal_slots' AND mode = 'RowExclusiveLock'";
    let Some(server) = server() else { return };
    let url = server.new_url();
    let (mut one, mut two) = (open(&url, 1), open(&url, 2));
    let other = url.clone();
    let taker = std::thread::spawn(move || query(&other, HOLD).unwrap());
    while query(&url, HELD).unwrap().is_empty() {}
    assert_eq!(two.take_slots(&[7], false, false).unwrap(), None, "it has it by now");
    taker.join().unwrap();
    assert_eq!((one.confirm(), two.confirm()), (Ok(true), Ok(true)));
}

/// M1: what a node loads when it takes over, in pieces.
#[test]
fn m1_pages_hold_every_row_of_the_slots_once_and_in_order() {
    let Some(server) = server() else { return };
    let url = server.new_url();
    let mut store = open(&url, 1);
    let names: Vec<String> = (0..5_000).map(|n| format!("u{n}@x")).collect();
    let rows: Vec<Write> = names.iter().map(|name| put(Table::Accounts, name.as_bytes(), b"1")).collect();
    store.apply(&[Commit { ticket: 0, writes: rows, durability: Durability::Synced }]).unwrap();
    let (first, last) = (1_000, 60_000);
    let (mut from, mut found) = (Some(shared::Place { slot: first, behind: Vec::new() }), Vec::new());
    while let Some(place) = from {
        let page = store.page(Table::Accounts, &place, last).unwrap();
        found.extend(page.rows.into_iter().map(|(key, _)| (slot_of(std::str::from_utf8(&key).unwrap()), key)));
        from = page.next;
    }
    let mut wanted: Vec<_> = names.iter().map(|name| (slot_of(name), name.clone().into_bytes())).collect();
    wanted.retain(|(slot, _)| (first..=last).contains(slot));
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    let kept = put(Table::Meta, &[rows::DIRECTORY_KEY, b"kept@x"].concat(), b"1");
    store.apply(&[Commit { ticket: 0, writes: vec![kept], durability: Durability::Synced }]).unwrap();
    let all = names.iter().map(String::as_str).chain(["kept@x"]);
    assert_eq!(store.inhabited().unwrap(), all.map(slot_of).collect(), "a name of the directory is somebody, too");
}
