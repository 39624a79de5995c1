//! One node over real sockets: accounts that people make, change and remove themselves (XEP-0077).
mod support;

use fanal::base::reason::Reason;
use fanal::client::{Client, Error, Event, LogIn};
use support::*;

fn reason(result: Result<(), Error>) -> Option<Reason> {
    result.err().map(|error| error.reason().expect("the node says why"))
}

fn logs_in(node: &TestNode, password: &str) -> Option<Reason> {
    let mut client = node.connect();
    reason(client.log_in("alice@localhost", LogIn::Password(password), "").map(drop))
}

#[test]
fn nobody_makes_an_account_unless_the_operator_lets_people_make_them() {
    on_one_and_two_cores(|node| {
        let mut client = node.connect();
        assert_eq!(reason(client.register("alice@localhost", "secret")), Some(Reason::RegistrationClosed));
        assert_eq!(logs_in(node, "secret"), Some(Reason::LogInFailed));
    });
}

#[test]
fn who_makes_an_account_logs_in_with_its_password_and_with_the_next_one_and_removes_it() {
    for cores in [1, 2] {
        let mut config = config(cores);
        config.login.open_registration = true;
        let node = TestNode::start(&config);
        let mut client = node.connect();
        assert_eq!(reason(client.register("alice@localhost", "secret")), None);
        client.log_in("alice@localhost", LogIn::Password("secret"), "desk").expect("on the same connection");
        assert_eq!(reason(node.connect().register("alice@localhost", "other")), Some(Reason::UserExists));
        assert_eq!(logs_in(&node, "other"), Some(Reason::LogInFailed));
        assert_eq!(reason(client.set_password("")), Some(Reason::BadRequest));
        assert_eq!(reason(client.set_password(&"x".repeat(1025))), Some(Reason::TooLarge));
        client.set_password("better").unwrap();
        assert_eq!((logs_in(&node, "secret"), logs_in(&node, "better")), (Some(Reason::LogInFailed), None));
        let mut phone: Client = node.connect();
        phone.log_in("alice@localhost", LogIn::Password("better"), "phone").unwrap();
        client.remove_account().unwrap();
        for session in [&mut client, &mut phone] {
            let ended = until(session, |event| if let Event::Refused(refusal) = event { refusal.reason() } else { None });
            assert_eq!(ended, Reason::AccountRemoved);
        }
        assert_eq!(logs_in(&node, "better"), Some(Reason::LogInFailed));
        assert_eq!(reason(client.register("alice@localhost", "anew")), None, "the name is free again");
    }
}

#[test]
fn what_is_no_name_or_no_password_is_refused_and_too_many_accounts_of_one_address_are() {
    let mut config = config(1);
    config.login.open_registration = true;
    (config.limits.registrations_per_minute, config.limits.log_in_attempts) = (3, 100);
    let node = TestNode::start(&config);
    let mut client = node.connect();
    for (jid, password, refusal) in [
        ("no name", "secret", Reason::BadJid),
        ("alice@elsewhere", "secret", Reason::LogInFailed),
        ("alice@localhost", "", Reason::BadRequest),
        ("alice@localhost", &"x".repeat(1025), Reason::TooLarge),
    ] {
        assert_eq!(reason(client.register(jid, password)), Some(refusal), "{jid}");
    }
    let mut made: Vec<_> = (0..8).map(|n| reason(client.register(&format!("user{n}@localhost"), "secret"))).collect();
    made.dedup();
    // A new minute may have begun meanwhile.
    assert!(made.len() <= 4 && made[..2] == [None, Some(Reason::TooManyRegistrations)], "{made:?}");
}
