//! Coming back without the password: the Rust client and hashed tokens (XEP-0484), over real sockets.
mod support;

use fanal::base::config::StoreKind;
use fanal::base::reason::Reason;
use fanal::client::sasl::SaslError;
use fanal::client::{Client, Error, HashedToken, LogIn, LoggedIn, Presence, Tls};
use support::*;
use tempfile::TempDir;

const ALICE: &str = "alice@localhost";

/// A node with a certificate, where alice and bob have the password "pencil".
struct Site {
    node: TestNode,
    dir: TempDir,
}

impl Site {
    fn start(cores: usize) -> Site {
        let (node, dir) = certified::start(config(cores), &["alice", "bob"]);
        Site { node, dir }
    }

    fn connect(&self) -> Client {
        let tls = Tls::with_certificate(&certified::certificate(&self.dir)).unwrap();
        Client::connect_tls(&self.node.address(), &tls, LONG).unwrap()
    }

    /// Alice, whose client keeps a token.
    fn alice(&self, resource: &str) -> Client {
        let mut alice = self.connect();
        with_token(&mut alice, resource);
        alice
    }

    fn by_token(&self, token: &HashedToken, resource: &str) -> Result<Client, Error> {
        let mut client = self.connect();
        client.log_in(ALICE, LogIn::Hashed(token), resource).map(|_| ())?;
        Ok(client)
    }
}

fn with_token(client: &mut Client, resource: &str) -> HashedToken {
    client.remember_as("telescope");
    client.log_in(ALICE, LogIn::Password("pencil"), resource).unwrap();
    kept(client)
}

fn kept(client: &Client) -> HashedToken {
    client.hashed_token().expect("a token").clone()
}

fn assert_failed<T>(answer: Result<T, Error>) {
    assert_eq!(answer.err().and_then(|error| error.reason()), Some(Reason::LogInFailed));
}

#[test]
fn xep_0484_a_client_comes_back_by_a_token_that_holds_for_its_connection_and_no_showing_is_of_use_twice() {
    for cores in [1, 2] {
        let site = Site::start(cores);
        let mut bob = site.connect();
        bob.log_in("bob@localhost", LogIn::Password("pencil"), "b").unwrap();
        let mut alice = site.alice("first");
        subscribe(&mut bob, &mut alice);
        available(&mut bob);
        let token = kept(&alice);
        assert!(token.bound && token.count == 0 && !format!("{token:?}").contains(&token.text));
        // With the first presence, as any log-in.
        let mut again = site.connect();
        let here = Presence { status: "back".into(), ..Presence::default() };
        let LoggedIn { jid, resumed, .. } = again.log_in_with(ALICE, LogIn::Hashed(&token), "second", &here).unwrap();
        assert_eq!((jid.as_str(), *resumed), ("alice@localhost/second", false));
        assert_eq!(presence(&mut bob).presence.unwrap().status, "back");
        assert_eq!(kept(&again), HashedToken { count: 1, ..token.clone() });
        assert_failed(site.by_token(&token, "third"));
        site.by_token(&kept(&again), "third").unwrap();
        let unbound = site.node.connect().log_in(ALICE, LogIn::Hashed(&token), "third").map(drop);
        assert!(matches!(unbound, Err(Error::Sasl(SaslError::Unbound))));
    }
}

#[test]
fn xep_0484_where_passwords_may_be_said_in_the_clear_there_are_tokens_and_elsewhere_none() {
    for plain in [true, false] {
        let mut config = config(1);
        config.login.plain = plain;
        let (node, _dir) = certified::start(config, &["alice"]);
        let mut alice = node.connect();
        alice.remember_as("telescope");
        alice.log_in(ALICE, LogIn::Password("pencil"), "first").unwrap();
        assert_eq!(alice.hashed_token().map(|token| token.bound), plain.then_some(false));
        if plain {
            node.connect().log_in(ALICE, LogIn::Hashed(&kept(&alice)), "second").unwrap();
        }
    }
}

#[test]
fn xep_0484_a_refused_token_is_forgotten_and_the_password_still_lets_in() {
    let site = Site::start(2);
    let mut alice = site.alice("first");
    let token = HashedToken { text: "another".into(), ..kept(&alice) };
    let mut other = site.connect();
    assert_failed(other.log_in(ALICE, LogIn::Hashed(&token), "second"));
    assert_eq!(other.hashed_token(), None);
    let token = with_token(&mut other, "second");
    site.by_token(&token, "third").unwrap();
    // Another password voids all tokens.
    alice.set_password("crayon").unwrap();
    assert_failed(site.by_token(&HashedToken { count: 1, ..token }, "third"));
}

#[test]
fn xep_0484_a_client_can_have_its_tokens_voided() {
    let site = Site::start(1);
    let token = kept(&site.alice("first"));
    let mut last = site.connect();
    last.forget_as("telescope");
    last.log_in(ALICE, LogIn::Hashed(&token), "second").unwrap();
    assert_eq!(last.hashed_token(), None);
    assert_failed(site.by_token(&HashedToken { count: 1, ..token }, "third"));
}

#[test]
fn a_client_reconnects_to_its_session_and_when_that_has_ended_to_a_new_one_by_its_token() {
    for cores in [1, 2] {
        let site = Site::start(cores);
        let (mut alice, mut bob) = (site.alice("dome"), site.connect());
        bob.log_in("bob@localhost", LogIn::Password("pencil"), "b").unwrap();
        subscribe(&mut alice, &mut bob);
        available(&mut alice);
        available(&mut bob);
        presence(&mut alice);
        alice.break_connection();
        assert!(alice.reconnect().unwrap().resumed);
        // Somebody takes her place.
        let mut other = site.connect();
        other.log_in(ALICE, LogIn::Password("pencil"), "dome").unwrap();
        alice.break_connection();
        let LoggedIn { jid, resumed, .. } = alice.reconnect().unwrap();
        assert_eq!((jid.as_str(), *resumed), ("alice@localhost/dome", false));
        available(&mut alice);
        assert_eq!(presence(&mut alice).presence.unwrap().resource, "b", "all is told anew");
        // Without a token there is no way back from there.
        other.break_connection();
        assert_eq!(other.reconnect().map(drop).unwrap_err().reason(), Some(Reason::ResumeFailed));
    }
}

#[test]
fn xep_0484_a_token_outlives_a_restart_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(2);
    (config.store.kind, config.node.data, config.login.plain) = (StoreKind::Redb, dir.path().join("data"), true);
    let (node, _dir) = certified::start(config.clone(), &["alice"]);
    let token = with_token(&mut node.connect(), "first");
    node.stop();
    let node = TestNode::start(&config);
    node.connect().log_in(ALICE, LogIn::Hashed(&token), "second").unwrap();
}
