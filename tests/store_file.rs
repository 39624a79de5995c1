//! The data directory and the file in it (issue 2, point 6; J10): what is damaged, newer or in use is refused with a clear
//! error and left as it is; the offline commands; epochs; loading.
#![cfg(feature = "runtime")]

use ::redb::StorageBackend;
use ::redb::backends::InMemoryBackend;
use fanal::base::credentials::ScramCredentials;
use fanal::base::id::{UserId, slot_of};
use fanal::base::jid::Bare;
use fanal::base::time::WallClock;
use fanal::store::dir::{DataDir, OpenError};
use fanal::store::offline::{Offline, OfflineError};
use fanal::store::redb::RedbStore;
use fanal::store::rows::*;
use fanal::store::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// Keys and values in order.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn open(path: &Path) -> RedbStore {
    RedbStore::open(DataDir::take_or_create(path).unwrap()).unwrap()
}

fn jid(text: &str) -> Bare {
    Bare::new(text).unwrap()
}

fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> Write {
    Write { table, key, value: Some(value) }
}

fn commit(store: &mut dyn Backend, writes: Vec<Write>) {
    store.apply(&[Commit { ticket: 1, writes, durability: Durability::Synced }]).unwrap();
}

fn rows_of(store: &dyn Backend, table: Table) -> Rows {
    let mut rows = Vec::new();
    let mut take = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    store.load(table, &mut take, &mut |_, _| ()).unwrap();
    rows
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_directory_and_its_files_are_for_their_owner_only() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("var/fanal");
    drop(open(&path));
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("fanal.redb")), 0o600);
    assert!(!path.join("fanal.redb.new").exists());
}

#[test]
fn what_was_written_is_there_after_a_restart_in_the_order_of_the_keys() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = open(temp.path());
    let row = |n: u32| put(Table::Roster, n.to_be_bytes().to_vec(), vec![n as u8; 100]);
    commit(&mut store, (0..3000).rev().map(row).collect());
    commit(&mut store, vec![Write { table: Table::Roster, key: 7u32.to_be_bytes().to_vec(), value: None }]);
    drop(store);
    let store = open(temp.path());
    let expected: Vec<_> = (0..3000u32).filter(|&n| n != 7).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 100])).collect();
    assert_eq!(rows_of(&store, Table::Roster), expected);
    assert_eq!(rows_of(&store, Table::Requests), []);
    assert_eq!(store.get(Table::Roster, &9u32.to_be_bytes()), Ok(Some(vec![9; 100])));
    assert_eq!(store.get(Table::Roster, &7u32.to_be_bytes()), Ok(None));
}

#[test]
fn the_progress_of_a_load_ends_with_all_rows() {
    let mut memory = memory::Memory::default();
    let temp = tempfile::tempdir().unwrap();
    let mut on_disk = open(temp.path());
    let rows = 2 * PROGRESS_ROWS + 5;
    let writes: Vec<_> = (0..rows).map(|n| put(Table::Blocked, n.to_be_bytes().to_vec(), vec![])).collect();
    commit(&mut memory, writes.clone());
    commit(&mut on_disk, writes);
    for store in [&memory as &dyn Backend, &on_disk] {
        let mut heard = Vec::new();
        store.load(Table::Blocked, &mut |_, _| Ok(()), &mut |done, all| heard.push((done, all))).unwrap();
        assert_eq!(heard, [(PROGRESS_ROWS, rows), (2 * PROGRESS_ROWS, rows), (rows, rows)]);
    }
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = open(temp.path());
    commit(&mut store, vec![put(Table::Accounts, b"bob@localhost".to_vec(), vec![9])]);
    let error = store.load(Table::Accounts, &mut |_, value| Account::decode(value).map(drop), &mut |_, _| ()).unwrap_err();
    for part in ["fanal.redb", "table accounts", "\"bob@localhost\"", "version is 9", "start the newer fanal"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn each_start_has_a_higher_epoch() {
    let temp = tempfile::tempdir().unwrap();
    for epoch in 1..=3 {
        assert_eq!(open(temp.path()).begin_epoch(), Ok(epoch));
    }
    let mut memory = memory::Memory::default();
    assert_eq!((memory.begin_epoch(), memory.begin_epoch()), (Ok(1), Ok(2)));
    commit(&mut memory, vec![put(Table::Meta, EPOCH_KEY.to_vec(), encode_u32(u32::MAX))]);
    assert!(memory.begin_epoch().unwrap_err().contains("new data directory"));
}

#[test]
fn a_second_opener_is_told_who_uses_the_directory() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let text = Offline::open(temp.path()).err().expect("it's in use").to_string();
    assert!(text.contains("a node is running on this directory"), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("use its admin address"), "{text}");
    drop(store);
    assert!(Offline::open(temp.path()).is_ok());
}

#[test]
fn a_directory_without_data_is_not_made_by_looking() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("typo");
    assert!(matches!(Offline::open(&path), Err(OfflineError::Open(OpenError::Missing { .. }))));
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_no_directory_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    std::fs::write(&path, "").unwrap();
    let text = DataDir::take_or_create(&path).unwrap_err().to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains("can't create the directory"), "{text}");
}

#[test]
fn users_are_added_listed_and_deleted_offline() {
    let temp = tempfile::tempdir().unwrap();
    let (alice, bob) = (jid("alice@localhost"), jid("bob@localhost"));
    let mut offline = Offline::open_or_create(temp.path()).unwrap();
    let number = offline.add(&bob, 3, None, WallClock(5)).unwrap();
    assert_eq!(number, UserId::new(3, slot_of("bob@localhost"), 1));
    offline.add(&alice, 3, None, WallClock(6)).unwrap();
    assert!(matches!(offline.add(&alice, 3, None, WallClock(6)), Err(OfflineError::Exists(_))));
    drop(offline);
    let mut offline = Offline::open(temp.path()).unwrap();
    let scram = ScramCredentials { salt: vec![1], iterations: 4096, stored_key: [2; 32], server_key: [3; 32], sha1: None };
    offline.set_credentials(&bob, Some(scram.clone())).unwrap();
    let account = Account { user: number, scram: Some(scram), created: WallClock(5) };
    assert_eq!(offline.account(&bob).unwrap(), Some(account));
    let names: Vec<_> = offline.accounts().unwrap().into_iter().map(|(jid, _)| jid).collect();
    assert_eq!(names, [alice.clone(), bob.clone()]);
    offline.remove(&bob).unwrap();
    assert_eq!(offline.account(&bob).unwrap(), None);
    assert!(matches!(offline.remove(&bob), Err(OfflineError::NoSuchUser(_))));
    assert!(matches!(offline.set_credentials(&bob, None), Err(OfflineError::NoSuchUser(_))));
    let again = offline.add(&bob, 3, None, WallClock(7)).unwrap();
    assert_eq!(again.serial(), 2, "a number is never given out twice");
}

#[test]
fn a_deleted_user_leaves_nothing_that_a_later_one_of_the_name_could_use() {
    let temp = tempfile::tempdir().unwrap();
    let (alice, bob, carol) = (jid("alice@localhost"), jid("bob@localhost"), jid("carol@localhost"));
    let number = Offline::open_or_create(temp.path()).unwrap().add(&bob, 0, None, WallClock(5)).unwrap();
    let contact = |user, state| Contact { user, state, name: "Bob".into(), groups: vec![] }.encode();
    let request = Request { note: String::new(), user: number, stamp: WallClock(0), extensions: String::new() }.encode();
    let way =
        Way { kind: 0, note: String::new(), from_user: number, to_user: UserId::NOBODY, arrived: None, extensions: String::new() };
    let way = way.encode();
    let mut store = open(temp.path());
    commit(
        &mut store,
        vec![
            put(Table::Roster, pair_key(&bob, &alice), contact(UserId(1), 3)),
            put(Table::Roster, pair_key(&alice, &bob), contact(number, 3)),
            put(Table::Roster, pair_key(&alice, &carol), contact(UserId(2), 3)),
            put(Table::Requests, pair_key(&bob, &carol), request.clone()),
            put(Table::Requests, pair_key(&carol, &bob), request),
            put(Table::Blocked, pair_key(&bob, &carol), vec![]),
            put(Table::Blocked, pair_key(&carol, &bob), vec![]),
            put(Table::LastPresence, user_key(&bob), LastPresence { stamp: WallClock(0), presence: vec![] }.encode()),
            put(Table::Ways, way_key(&bob, &alice, 1), way.clone()),
            put(Table::Ways, way_key(&alice, &bob, 1), way.clone()),
            put(Table::Ways, way_key(&alice, &carol, 1), way.clone()),
            put(Table::Messages, message_key(&bob, 1), vec![]),
            put(Table::Documents, document_key(&bob, "card"), vec![]),
            put(Table::Messages, message_key(&carol, 1), vec![]),
        ],
    );
    drop(store);
    Offline::open(temp.path()).unwrap().remove(&bob).unwrap();
    let store = open(temp.path());
    let roster = [(pair_key(&alice, &bob), contact(UserId::NOBODY, 0)), (pair_key(&alice, &carol), contact(UserId(2), 3))];
    assert_eq!(rows_of(&store, Table::Roster), roster);
    assert_eq!(rows_of(&store, Table::Blocked), [(pair_key(&carol, &bob), vec![])]);
    assert_eq!(rows_of(&store, Table::Ways), [(way_key(&alice, &carol, 1), way)]);
    assert_eq!(rows_of(&store, Table::Messages), [(message_key(&carol, 1), vec![])]);
    for table in [Table::Accounts, Table::Requests, Table::LastPresence, Table::Documents] {
        assert_eq!(rows_of(&store, table), [], "{table:?}");
    }
}

/// A file with two thousand rows, closed or as a crash leaves it, and the rows.
fn sample(closed: bool) -> (tempfile::TempDir, Vec<u8>, Rows) {
    let temp = tempfile::tempdir().unwrap();
    let mut store = open(temp.path());
    for round in 0..4u32 {
        let row = |n: u32| put(Table::Roster, (n * 7 % 2000).to_be_bytes().to_vec(), vec![round as u8; 60]);
        commit(&mut store, (0..500).map(|n| row(n + 500 * round)).collect());
    }
    let rows = rows_of(&store, Table::Roster);
    let path = temp.path().join("fanal.redb");
    let unclosed = std::fs::read(&path).unwrap();
    drop(store);
    let bytes = if closed { std::fs::read(&path).unwrap() } else { unclosed };
    (temp, bytes, rows)
}

fn disk_of(bytes: &[u8]) -> Arc<InMemoryBackend> {
    let disk = InMemoryBackend::new();
    disk.set_len(bytes.len() as u64).unwrap();
    disk.write(0, bytes).unwrap();
    Arc::new(disk)
}

fn bytes_of(disk: &InMemoryBackend) -> Vec<u8> {
    let mut bytes = vec![0; disk.len().unwrap() as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

/// Opens bytes as a file. It's either refused and left as it is, or holds exactly the rows. True: refused.
fn is_refused_or_whole(bytes: &[u8], rows: &[(Vec<u8>, Vec<u8>)], story: &str) -> bool {
    let disk = disk_of(bytes);
    match RedbStore::open_on(disk.clone(), "the file") {
        Ok(store) => {
            assert!(rows_of(&store, Table::Roster) == rows, "{story}: opened, but the rows are others");
            false
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("the file: "), "{story}: {text}");
            assert!(bytes_of(&disk) == bytes, "{story}: a refused file was changed");
            true
        }
    }
}

#[test]
fn a_cut_file_is_reported() {
    let (_temp, bytes, rows) = sample(true);
    let lengths = (0..bytes.len()).step_by(4093).chain([1, 100, 319, 320, 511, 512, 513, 4096, bytes.len() - 1]);
    for len in lengths {
        assert!(is_refused_or_whole(&bytes[..len], &rows, &format!("cut to {len}")), "cut to {len}: not reported");
    }
    is_refused_or_whole(&[bytes.clone(), vec![0; 100]].concat(), &rows, "with a tail");
}

#[test]
fn flipped_bits_are_reported_or_harmless() {
    let (_temp, mut bytes, rows) = sample(true);
    let (header, rest) = ((0..4096 * 8).step_by(89), (4096 * 8..bytes.len() * 8).step_by(3001));
    let mut reported = 0;
    for bit in (0..512 * 8).chain(header).chain(rest) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        reported += u32::from(is_refused_or_whole(&bytes, &rows, &format!("bit {bit}")));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(reported > 300, "{reported}");
}

#[test]
fn zeroed_pages_are_reported_or_harmless() {
    for closed in [true, false] {
        let (_temp, bytes, rows) = sample(closed);
        assert!(!is_refused_or_whole(&bytes, &rows, "nothing zeroed"));
        let mut reported = 0;
        for page in 0..bytes.len() / 4096 {
            let mut bytes = bytes.clone();
            bytes[page * 4096..][..4096].fill(0);
            reported += u32::from(is_refused_or_whole(&bytes, &rows, &format!("page {page}, closed: {closed}")));
        }
        assert!(reported > 20, "{reported}");
    }
}

#[test]
fn an_emptied_file_is_damage_and_stays_as_it_is() {
    let (temp, bytes, _) = sample(true);
    let path = temp.path().join("fanal.redb");
    for content in [Vec::new(), vec![0; bytes.len()], b"something else entirely".repeat(1000)] {
        std::fs::write(&path, &content).unwrap();
        let text = RedbStore::open(DataDir::take(temp.path()).unwrap()).err().expect("it's damaged").to_string();
        assert!(text.contains("fanal.redb: the file is damaged") && text.contains("restore it from a backup"), "{text}");
        assert!(std::fs::read(&path).unwrap() == content, "it was changed");
    }
}

#[test]
fn a_file_of_an_earlier_format_is_made_one_of_this_format_and_keeps_its_rows() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = open(temp.path());
    commit(&mut store, vec![put(Table::Accounts, b"bob@localhost".to_vec(), b"kept".to_vec())]);
    drop(store);
    let path = temp.path().join("fanal.redb");
    let bytes = |name| ::redb::TableDefinition::<&[u8], &[u8]>::new(name);
    let database = ::redb::Database::open(&path).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_two_phase_commit(true);
    assert!(transaction.delete_table(bytes("messages")).unwrap());
    assert!(transaction.delete_table(bytes("documents")).unwrap());
    transaction.open_table(bytes("meta")).unwrap().insert(FORMAT_KEY, encode_u32(1).as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let store = open(temp.path());
    assert_eq!(rows_of(&store, Table::Accounts), [(b"bob@localhost".to_vec(), b"kept".to_vec())]);
    assert_eq!(rows_of(&store, Table::Messages), []);
    assert_eq!(store.get(Table::Meta, FORMAT_KEY), Ok(Some(encode_u32(fanal::store::redb::FORMAT))));
}

#[test]
fn a_file_of_a_newer_format_or_of_another_program_is_refused() {
    let (_temp, bytes, _) = sample(true);
    let disk = disk_of(&bytes);
    let mut store = RedbStore::open_on(disk.clone(), "the file").unwrap();
    commit(&mut store, vec![put(Table::Meta, FORMAT_KEY.to_vec(), encode_u32(7))]);
    drop(store);
    let text = RedbStore::open_on(disk_of(&bytes_of(&disk)), "the file").err().expect("it's newer").to_string();
    assert_eq!(text, "the file: the data has format 7, this fanal reads up to 2: start the newer fanal that wrote it");

    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("other.redb");
    drop(::redb::Database::create(&path).unwrap());
    let other = disk_of(&std::fs::read(&path).unwrap());
    let text = RedbStore::open_on(other, "the file").err().expect("it's not ours").to_string();
    assert!(text.contains("not one of fanal's"), "{text}");
}

#[test]
fn a_half_made_file_of_a_start_that_was_cut_off_is_made_anew() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("fanal.redb.new"), "half").unwrap();
    let mut store = open(temp.path());
    assert_eq!(store.begin_epoch(), Ok(1));
    assert!(!temp.path().join("fanal.redb.new").exists());
}
