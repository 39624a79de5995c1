//! Rows and keys (J10, M3): what was written is read again, and any other bytes give an error and no panic.

use fanal::base::credentials::{ScramCredentials, Sha1Keys};
use fanal::base::id::UserId;
use fanal::base::jid::Bare;
use fanal::base::time::WallClock;
use fanal::store::rows::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn jid() -> impl Strategy<Value = Bare> {
    ("[a-z0-9._-]{1,20}", "[a-z]{1,10}").prop_map(|(local, domain)| Bare::new(&format!("{local}@{domain}")).expect("a plain JID"))
}

fn scram() -> impl Strategy<Value = ScramCredentials> {
    let sha1 = (any::<[u8; 20]>(), any::<[u8; 20]>());
    let sha1 = sha1.prop_map(|(stored_key, server_key)| Sha1Keys { stored_key, server_key });
    (vec(any::<u8>(), 0..40), any::<u32>(), any::<[u8; 32]>(), any::<[u8; 32]>(), proptest::option::of(sha1)).prop_map(
        |(salt, iterations, stored_key, server_key, sha1)| ScramCredentials { salt, iterations, stored_key, server_key, sha1 },
    )
}

fn comes_back<R: Row + PartialEq + std::fmt::Debug>(row: R) -> Result<(), TestCaseError> {
    let bytes = row.encode();
    prop_assert_eq!(bytes[0], R::VERSION);
    let back = R::decode(&bytes);
    prop_assert_eq!(back.as_ref(), Ok(&row));
    prop_assert_eq!(R::decode(&bytes[..bytes.len() - 1]).ok(), None, "a cut row");
    prop_assert_eq!(R::decode(&[bytes, vec![0]].concat()).ok(), None, "a row with a tail");
    Ok(())
}

/// Decoding may fail or not, but what it takes it also writes so that it's read again.
fn is_harmless<R: Row + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
    match R::decode(bytes) {
        Ok(row) => prop_assert_eq!(R::decode(&row.encode()), Ok(row)),
        Err(why) => prop_assert!(!why.to_string().is_empty()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn accounts_come_back(user: u64, scram in proptest::option::of(scram()), created: u64) {
        comes_back(Account { user: UserId(user), scram, created: WallClock(created) })?;
    }

    #[test]
    fn contacts_come_back(user: u64, state: u8, name: String, groups: Vec<String>) {
        comes_back(Contact { user: UserId(user), state, name, groups })?;
    }

    #[test]
    fn requests_and_ways_come_back(texts: [String; 2], user: u64, other: u64, stamp: u64, kind: u8, arrived: Option<u64>) {
        let (user, other, stamp, [note, extensions]) = (UserId(user), UserId(other), WallClock(stamp), texts);
        comes_back(Request { note: note.clone(), user, stamp, extensions: extensions.clone() })?;
        comes_back(Way { kind, note: note.clone(), from_user: user, to_user: other, arrived, extensions })?;
        // Version 1 had no extensions.
        let of_before = |row: Vec<u8>| [&[1], &row[1..row.len() - 1]].concat();
        let request = Request { note: note.clone(), user, stamp, extensions: String::new() };
        prop_assert_eq!(Request::decode(&of_before(request.encode())), Ok(request));
        let way = Way { kind, note, from_user: user, to_user: other, arrived, extensions: String::new() };
        prop_assert_eq!(Way::decode(&of_before(way.encode())), Ok(way));
    }

    #[test]
    fn last_presences_come_back(stamp: u64, presence: Vec<u8>) {
        comes_back(LastPresence { stamp: WallClock(stamp), presence })?;
    }

    #[test]
    fn messages_come_back(user: u64, names: [String; 3], to_resource: Option<String>, kind: u8, body: Vec<u8>, stamp: u64) {
        let [from, id, extensions] = names;
        let stamp = WallClock(stamp);
        let user = UserId(user);
        comes_back(Message { user, from, from_resource: id.clone(), to_resource, kind, id, body, extensions, stamp })?;
    }

    #[test]
    fn any_bytes_are_read_without_harm(version in 0u8..3, mut bytes: Vec<u8>) {
        bytes.insert(0, version);
        is_harmless::<Account>(&bytes)?;
        is_harmless::<Contact>(&bytes)?;
        is_harmless::<Request>(&bytes)?;
        is_harmless::<LastPresence>(&bytes)?;
        is_harmless::<Way>(&bytes)?;
        is_harmless::<Message>(&bytes)?;
    }

    #[test]
    fn keys_give_back_their_parts(owner in jid(), other in jid(), sequence: u64, slot: u16) {
        let (user, pair, way) = (user_key(&owner), pair_key(&owner, &other), way_key(&owner, &other, sequence));
        prop_assert_eq!(split_user(&user), Ok(owner.as_str()));
        prop_assert!(pair.starts_with(&owner_prefix(&owner)));
        prop_assert_eq!(split_pair(&pair), Ok((owner.as_str(), other.as_str())));
        prop_assert_eq!(split_way(&way), Ok((owner.as_str(), other.as_str(), sequence)));
        let message = message_key(&owner, sequence);
        prop_assert_eq!(split_message(&message), Ok((owner.as_str(), sequence)));
        prop_assert_eq!(split_serial(&serial_key(slot)), Some(slot));
    }

    #[test]
    fn ways_of_a_pair_sort_by_sequence(from in jid(), to in jid(), one: u64, two: u64) {
        prop_assert_eq!(way_key(&from, &to, one).cmp(&way_key(&from, &to, two)), one.cmp(&two));
    }

    #[test]
    fn any_key_is_split_without_harm(key in vec(prop_oneof![Just(0u8), any::<u8>()], 0..40)) {
        if let Ok(user) = split_user(&key) {
            prop_assert_eq!(user.as_bytes(), &key);
        }
        if let Ok((owner, other)) = split_pair(&key) {
            prop_assert_eq!([owner.as_bytes(), other.as_bytes()].join(&0), key.clone());
        }
        if let Ok((from, to, sequence)) = split_way(&key) {
            prop_assert_eq!([from.as_bytes(), to.as_bytes(), &sequence.to_be_bytes()].join(&0), key);
        }
    }
}

#[test]
fn what_is_wrong_with_a_row_is_said() {
    assert_eq!(Contact::decode(&[]), Err(BadRow::Empty));
    assert_eq!(Contact::decode(&[ROW_VERSION, 0xff]), Err(BadRow::Fields));
    let newer = Contact::decode(&[ROW_VERSION + 1]).unwrap_err();
    assert!(newer.to_string().contains("start the newer fanal"), "{newer}");
    for key in [b"".as_slice(), b"a@b", b"a@b\0", b"\0a@b", b"a@b\0c@d\0", b"a@b\0\xff"] {
        assert_eq!(split_pair(key), Err(BadRow::Key), "{key:?}");
    }
    assert_eq!(split_way(b"a@b\0c@d\0\0\0\0"), Err(BadRow::Key));
}

/// Bytes written by version 1, which every later fanal must read.
#[test]
fn rows_written_by_version_1_are_read() {
    let contact = Contact { user: UserId(300), state: 3, name: "Bob".into(), groups: vec!["Work".into()] };
    assert_eq!(Contact::decode(b"\x01\xac\x02\x03\x03Bob\x01\x04Work"), Ok(contact));
    let account = Account { user: UserId(1), scram: None, created: WallClock(2) };
    assert_eq!(Account::decode(b"\x01\x01\x00\x02"), Ok(account.clone()));
    // Its credentials were for SHA-256 alone.
    let (salt, sha1) = (vec![7; 4], None);
    let scram = Some(ScramCredentials { salt, iterations: 4096, stored_key: [1; 32], server_key: [2; 32], sha1 });
    let old = [&b"\x01\x01\x01\x04\x07\x07\x07\x07\x80\x20"[..], &[1; 32], &[2; 32], b"\x02"].concat();
    assert_eq!(Account::decode(&old), Ok(Account { scram, ..account }));
    assert_eq!(Account::decode(&old[..old.len() - 1]), Err(BadRow::Fields));
    assert!(matches!(Account::decode(b"\x00\x01\x00\x02"), Err(BadRow::Version(0, 2))));
}

#[test]
fn credentials_stay_out_of_logs() {
    let scram = ScramCredentials { salt: vec![7; 4], iterations: 4096, stored_key: [171; 32], server_key: [205; 32], sha1: None };
    let text = format!("{scram:?}");
    assert!(text.contains("4096") && !text.contains("171") && !text.contains("205"), "{text}");
}
