//! One node over real sockets: documents that users keep (XEP-0054, XEP-0049, XEP-0163), and who may read them.
mod support;

use fanal::base::config::StoreKind;
use fanal::base::reason::Reason;
use fanal::client::{Client, Event, Presence};
use fanal::wire::native::Access;
use std::time::Instant;
use support::*;

fn read(client: &mut Client, jid: &str, name: &str) -> Result<Vec<u8>, Reason> {
    client.document(jid, name).map(|document| document.data).map_err(|error| error.reason().expect("the node says why"))
}

#[test]
fn a_document_is_read_by_those_it_is_for() {
    on_one_and_two_cores(|node| {
        let mut alice = node.user("alice@localhost", "a");
        let (mut bob, mut carol) = (node.user("bob@localhost", "b"), node.user("carol@localhost", "c"));
        subscribe(&mut bob, &mut alice);
        for (name, access) in [("own", Access::Own), ("contacts", Access::Contacts), ("all", Access::Everyone)] {
            alice.set_document(name, name.as_bytes(), access).unwrap();
        }
        let absent = Err(Reason::NotFound);
        for (name, for_bob, for_carol) in
            [("own", false, false), ("contacts", true, false), ("all", true, true), ("none", false, false)]
        {
            let data = Ok(name.as_bytes().to_vec());
            assert_eq!(read(&mut alice, "", name), if name == "none" { absent.clone() } else { data.clone() }, "{name}");
            assert_eq!(read(&mut alice, "alice@localhost", name), read(&mut alice, "", name));
            assert_eq!(read(&mut bob, "alice@localhost", name), if for_bob { data.clone() } else { absent.clone() }, "{name}");
            assert_eq!(read(&mut carol, "alice@localhost", name), if for_carol { data } else { absent.clone() }, "{name}");
        }
        assert_eq!(read(&mut bob, "nobody@localhost", "all"), absent);
        alice.block("carol@localhost").unwrap();
        assert_eq!(read(&mut carol, "alice@localhost", "all"), absent, "who is blocked reads nothing");
        alice.set_document("all", b"", Access::Everyone).unwrap();
        assert_eq!(read(&mut bob, "alice@localhost", "all"), absent, "it was removed");
    });
}

#[test]
fn documents_are_bounded_in_number_and_bytes_and_a_name_is_checked() {
    let mut config = config(2);
    (config.limits.documents_per_user, config.limits.document_bytes_per_user) = (3, 1000);
    let node = TestNode::start(&config);
    let mut alice = node.user("alice@localhost", "a");
    let mut set =
        |name: &str, bytes: usize| alice.set_document(name, &vec![7; bytes], Access::Own).map_err(|e| e.reason().unwrap());
    assert_eq!(set("1", 1000), Err(Reason::TooManyDocuments));
    assert_eq!((set("1", 500), set("2", 490)), (Ok(()), Ok(())));
    assert_eq!(set("3", 100), Err(Reason::TooManyDocuments), "too many bytes");
    assert_eq!((set("1", 10), set("3", 100)), (Ok(()), Ok(())));
    assert_eq!(set("4", 1), Err(Reason::TooManyDocuments), "too many");
    assert_eq!((set("1", 0), set("4", 1)), (Ok(()), Ok(())));
    assert_eq!((set("", 1), set("a\u{0}b", 1)), (Err(Reason::BadRequest), Err(Reason::BadRequest)));
    assert_eq!(set(&"n".repeat(257), 1), Err(Reason::TooLarge));
}

#[test]
fn documents_are_there_after_a_restart_and_gone_with_the_account() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(2);
    config.store.kind = StoreKind::Redb;
    config.node.data = dir.path().join("data");
    let node = TestNode::start(&config);
    node.user("alice@localhost", "a").set_document("card", b"kept", Access::Everyone).unwrap();
    node.stop();
    let mut node = TestNode::start(&config);
    assert_eq!(read(&mut node.user("bob@localhost", "b"), "alice@localhost", "card"), Ok(b"kept".to_vec()));
    let alice = fanal::base::jid::Bare::new("alice@localhost").unwrap();
    node.0.as_mut().unwrap().control().remove_user(&alice).unwrap();
    let mut again = node.user("alice@localhost", "a");
    assert_eq!(read(&mut again, "", "card"), Err(Reason::NotFound));
    drop(again);
    node.stop();
    let node = TestNode::start(&config);
    assert_eq!(read(&mut node.user("alice@localhost", "a"), "", "card"), Err(Reason::NotFound));
}

/// Checks what a session is told of documents, in order of their names: all of this, and then nothing.
fn is_told(client: &mut Client, expected: &[(&str, &str, &str)]) {
    let (mut told, end) = (Vec::new(), Instant::now() + LONG);
    while told.len() < expected.len() && Instant::now() < end {
        told.extend(client.next_event(MOMENT).unwrap().and_then(document));
    }
    // What is too much would come behind, from another core, too.
    client.ping().unwrap();
    while let Some(event) = client.next_event(MOMENT / 5).unwrap() {
        told.extend(document(event));
    }
    told.sort();
    let expected = expected.iter().map(|(jid, name, data)| (jid.to_string(), name.to_string(), data.to_string()));
    assert_eq!(told, expected.collect::<Vec<_>>());
}

/// Whose it is, its name, and what it says.
fn document(event: Event) -> Option<(String, String, String)> {
    let Event::DocumentChanged(document) = event else { return None };
    let data = String::from_utf8(document.data).expect("a text");
    Some((document.jid.split('@').next().unwrap().to_owned(), document.name, data))
}

#[test]
fn xep_0163_sessions_hear_of_documents_that_they_want_and_may_see() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        let mut carol = node.user("carol@localhost", "c");
        subscribe(&mut bob, &mut alice);
        for name in ["mood", "tune", "own"] {
            alice.set_document(name, b"1", if name == "own" { Access::Own } else { Access::Contacts }).unwrap();
        }
        for client in [&mut alice, &mut bob, &mut carol] {
            client.set_interests(&["mood", "own"]).unwrap();
            is_told(client, &[]);
            client.set_presence(&Presence::default()).unwrap();
        }
        is_told(&mut alice, &[("alice", "mood", "1"), ("alice", "own", "1")]);
        is_told(&mut bob, &[("alice", "mood", "1")]);
        is_told(&mut carol, &[]);
        alice.set_document("mood", b"2", Access::Contacts).unwrap();
        alice.set_document("tune", b"2", Access::Contacts).unwrap();
        alice.set_document("own", b"", Access::Own).unwrap();
        is_told(&mut alice, &[("alice", "mood", "2"), ("alice", "own", "")]);
        is_told(&mut bob, &[("alice", "mood", "2")]);
        is_told(&mut carol, &[]);
        bob.set_interests(&["tune", "mood"]).unwrap();
        is_told(&mut bob, &[("alice", "tune", "2")]);
        bob.tell_again().unwrap();
        is_told(&mut bob, &[("alice", "mood", "2"), ("alice", "tune", "2")]);
        alice.set_document("mood", b"2", Access::Own).unwrap();
        is_told(&mut bob, &[("alice", "mood", "")]);
        alice.block("bob@localhost").unwrap();
        alice.set_document("tune", b"3", Access::Everyone).unwrap();
        is_told(&mut bob, &[]);
        alice.unblock("bob@localhost").unwrap();
        is_told(&mut bob, &[("alice", "tune", "3")]);
        bob.set_interests(&[]).unwrap();
        alice.set_document("tune", b"4", Access::Everyone).unwrap();
        is_told(&mut bob, &[]);
        let names: Vec<String> = (0..65).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(bob.set_interests(&names).map_err(|error| error.reason()), Err(Some(Reason::TooLarge)));
    });
}
