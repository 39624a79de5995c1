//! Our half of SCRAM against rsasl's client. It has no -PLUS mechanisms to choose from: those are `front::sasl`'s own tests.

use fanal::base::credentials::{Hash, ITERATIONS, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::front::Mechanism;
use fanal::front::binding::Bindings;
use fanal::front::sasl::{Decoys, NONCE_BYTES, Scram, Terms};
use rsasl::prelude::{Mechname, SASLClient, SASLConfig};

/// Whether the server lets the client in, and the client believes the server.
fn log_in(terms: Terms, password: &str, credentials: Option<&ScramCredentials>) -> bool {
    let mechanism = Mechanism::Scram { hash: terms.hash, bound: terms.bound };
    let config = SASLConfig::with_credentials(None, "user".to_owned(), password.to_owned()).unwrap();
    let name = Mechname::parse(mechanism.name().as_bytes()).unwrap();
    let mut session = SASLClient::new(config).start_suggested(&[name]).unwrap();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    session.step(None, &mut first).unwrap();
    let (decoys, user) = (Decoys::new([7; 32]), Bare::new("user@localhost").unwrap());
    let (scram, challenge) = Scram::start(terms, &first, &user, &decoys.or(credentials, &user), [3; NONCE_BYTES]).unwrap();
    session.step(Some(&challenge), &mut last).unwrap();
    let Some(signature) = scram.finish(&last) else { return false };
    session.step(Some(&signature), &mut Vec::new()).unwrap().is_finished()
}

fn credentials() -> ScramCredentials {
    ScramCredentials::from_password("pencil", b"sixteen bytes of", ITERATIONS)
}

#[test]
fn another_implementation_logs_in_by_both_hashes_with_the_right_password_only() {
    for hash in [Hash::Sha1, Hash::Sha256] {
        for exporter in [None, Some([5; 32])] {
            let channel = Bindings { exporter, end_point: None };
            let terms = Terms { hash, bound: false, channel };
            assert!(log_in(terms, "pencil", Some(&credentials())), "{terms:?}");
            assert!(!log_in(terms, "Pencil", Some(&credentials())), "{terms:?}");
            assert!(!log_in(terms, "pencil", None), "{terms:?}");
        }
    }
}

#[test]
fn an_account_from_before_sha_1_is_let_in_by_sha_256() {
    let old = ScramCredentials { sha1: None, ..credentials() };
    for hash in [Hash::Sha1, Hash::Sha256] {
        let terms = Terms { hash, bound: false, channel: Bindings::default() };
        assert_eq!(log_in(terms, "pencil", Some(&old)), hash == Hash::Sha256);
    }
}
