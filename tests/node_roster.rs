//! One node over real sockets: versions of rosters (RFC 6121 2.6), what goes with subscription stanzas, and when a user was last
//! here (XEP-0012).
mod support;

use fanal::base::config::StoreKind;
use fanal::base::reason::Reason;
use fanal::client::{Client, Event, SubscriptionRequest};
use fanal::wire::encode::SubscriptionFields;
use fanal::wire::native::Action;
use support::*;

fn request(client: &mut Client) -> SubscriptionRequest {
    until(client, |event| match event {
        Event::Subscription(request) => Some(request),
        _ => None,
    })
}

#[test]
fn a_roster_that_the_client_has_kept_is_not_sent_again_until_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(2);
    config.store.kind = StoreKind::Redb;
    config.node.data = dir.path().join("data");
    let mut versions: Vec<String> = Vec::new();
    for life in 0..3 {
        let node = TestNode::start(&config);
        let mut alice = node.user("alice@localhost", "a");
        let kept = versions.last().cloned().unwrap_or_default();
        let first = alice.roster_since(&kept).unwrap();
        assert_eq!((first.unchanged, first.contacts.len()), (life > 0, 0), "of a life before, or empty");
        alice.set_contact("bob@localhost", &format!("Bob {life}"), &[]).unwrap();
        let changed = alice.roster_since(&first.version).unwrap();
        assert!(!changed.unchanged && changed.contacts[0].name == format!("Bob {life}"));
        assert!(alice.roster_since(&changed.version).unwrap().unchanged);
        assert!(!alice.roster_since("nonsense").unwrap().unchanged);
        versions.push(changed.version);
        assert_eq!(alice.roster().unwrap().len(), 1, "without a version it always comes");
        drop(alice);
        node.stop();
    }
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), 3);
}

#[test]
fn a_push_says_what_the_roster_is_called_with_it() {
    on_one_and_two_cores(|node| {
        let (mut desk, mut phone) = (node.user("alice@localhost", "desk"), node.user("alice@localhost", "phone"));
        desk.roster().unwrap();
        phone.set_contact("bob@localhost", "Bob", &["friends"]).unwrap();
        phone.remove_contact("bob@localhost").unwrap();
        let empty = phone.roster_since("").unwrap().version;
        phone.set_contact("bob@localhost", "Bob", &["friends"]).unwrap();
        let pushed = std::iter::from_fn(|| {
            Some(until(&mut desk, |event| match event {
                Event::RosterPush(contact) => Some(contact.version),
                _ => None,
            }))
        });
        let pushed: Vec<String> = pushed.take(3).collect();
        assert_eq!((&pushed[1], &pushed[0]), (&empty, &pushed[2]), "the same state has the same name");
        assert!(desk.roster_since(&pushed[2]).unwrap().unchanged);
    });
}

#[test]
fn what_goes_with_a_subscription_reaches_the_other_side_though_it_has_to_wait() {
    on_one_and_two_cores(|node| {
        node.user("bob@localhost", "before").log_out("").unwrap();
        let mut alice = node.user("alice@localhost", "a");
        let stanza = |action, jid| SubscriptionFields {
            action,
            jid,
            note: "it's me",
            extensions: "<nick xmlns='http://jabber.org/protocol/nick'>Al</nick>",
            ..Default::default()
        };
        alice.roster().unwrap();
        alice.send_subscription(&stanza(Action::Subscribe, "bob@localhost")).unwrap();
        let mut bob = node.user("bob@localhost", "b");
        available(&mut bob);
        let asked = request(&mut bob);
        assert_eq!((asked.action, asked.note.as_str()), (Action::Subscribe, "it's me"));
        assert_eq!(asked.extensions, stanza(Action::Subscribe, "").extensions);
        bob.send_subscription(&stanza(Action::Subscribed, "alice@localhost")).unwrap();
        let answer = request(&mut alice);
        assert_eq!((answer.action, answer.extensions.as_str()), (Action::Subscribed, stanza(Action::Subscribe, "").extensions));
        let long = "x".repeat(5000);
        let refused =
            alice.send_subscription(&SubscriptionFields { extensions: &long, ..stanza(Action::Subscribe, "carol@localhost") });
        assert_eq!(refused.unwrap_err().reason(), Some(Reason::TooLarge));
    });
}

#[test]
fn xep_0012_only_those_who_see_a_user_are_told_when_it_was_last_here() {
    on_one_and_two_cores(|node| {
        let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
        for jid in ["alice@localhost", "nobody@localhost"] {
            assert_eq!(bob.last_seen(jid).unwrap_err().reason(), Some(Reason::NotAuthorized), "{jid}");
        }
        available(&mut bob);
        subscribe(&mut bob, &mut alice);
        assert_eq!(bob.last_seen("alice@localhost").unwrap_err().reason(), Some(Reason::NotFound), "never seen");
        available(&mut alice);
        presence(&mut bob);
        assert_eq!(bob.last_seen("alice@localhost").unwrap().seconds, 0);
        alice.log_out("good night").unwrap();
        presence(&mut bob);
        let seen = bob.last_seen("alice@localhost").unwrap();
        assert!(seen.seconds < 60 && seen.status == "good night" && seen.jid == "alice@localhost", "{seen:?}");
        let mut alice = node.user("alice@localhost", "a");
        assert_eq!(alice.last_seen("alice@localhost").unwrap().status, "good night", "one's own");
        alice.block("bob@localhost").unwrap();
        assert_eq!(bob.last_seen("alice@localhost").unwrap_err().reason(), Some(Reason::NotAuthorized));
    });
}
