//! kill -9 of a whole node (issue 2, point 6): clients change rosters, block lists and subscriptions over real sockets, the process
//! is killed at any moment and started again on the same directory, again and again. What was acknowledged is there; what was under
//! way is there whole or not at all, on both sides of a subscription.
//!
//! `FANAL_NODE_KILLS` sets how often (default 8).
#![cfg(feature = "runtime")]
mod support;

use fanal::client::{Client, Contact, Error, Event, LogIn, Presence};
use fanal::wire::native::Action;
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use support::LONG;
use support::served::Served;

/// Pairs of users that work at the same time.
const PAIRS: usize = 3;
/// Contacts of each, and users to block.
const NAMES: u64 = 5;

/// What one key has as its value: a contact's name, whether somebody is blocked, how far a subscription has come.
type Key = String;

/// What a pair of users must find after a restart.
#[derive(Default)]
struct Wishes {
    acknowledged: BTreeMap<Key, String>,
    /// What was under way: this, or what was acknowledged before.
    under_way: Option<(Key, String)>,
    step: u64,
}

impl Wishes {
    /// Does something, and notes it down when the node has said that it's done.
    fn ask(&mut self, key: &str, value: &str, done: &Sender<()>, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        self.under_way = Some((key.to_owned(), value.to_owned()));
        work()?;
        self.acknowledged.extend(self.under_way.take());
        // Nobody listens any more when the node is being killed.
        _ = done.send(());
        Ok(())
    }

    fn value(&self, key: &str) -> &str {
        self.acknowledged.get(key).map_or("", String::as_str)
    }

    /// Checks what was found, and goes on from there.
    fn found(&mut self, key: &str, value: &str) {
        let expected = self.value(key);
        let under_way = self.under_way.as_ref().filter(|(at, _)| at == key).map(|(_, value)| value.as_str());
        assert!(value == expected || Some(value) == under_way, "{key}: {value:?} and not {expected:?}, under way {under_way:?}");
        self.acknowledged.insert(key.to_owned(), value.to_owned());
    }
}

/// A user with a contact who answers.
struct Pair {
    user: Client,
    contact: Client,
}

fn jid(role: &str, pair: usize) -> String {
    format!("{role}{pair}@localhost")
}

fn item(client: &mut Client, jid: &str) -> Option<Contact> {
    client.roster().expect("the node answers").into_iter().find(|contact| contact.jid == jid)
}

/// Waits for a subscription request or news of one.
fn hear(client: &mut Client, action: Action) -> Result<(), Error> {
    loop {
        match client.next_event(LONG)? {
            Some(Event::Subscription(request)) if request.action == action => return Ok(()),
            Some(_) => {}
            None => panic!("{action:?} did not come in {LONG:?}"),
        }
    }
}

impl Pair {
    fn log_in(node: &Served, pair: usize) -> Pair {
        let client = |role: &str| {
            let jid = jid(role, pair);
            let mut client = Client::connect(&node.native.to_string(), LONG).expect("the node answers");
            client.log_in(&jid, LogIn::Token(&node.token(&jid)), "test").expect("the token is good");
            client
        };
        Pair { user: client("user"), contact: client("contact") }
    }

    /// Changes one thing after the other until the node is gone.
    fn work(&mut self, pair: usize, wishes: &mut Wishes, done: &Sender<()>) -> Result<(), Error> {
        let contact = jid("contact", pair);
        loop {
            wishes.step += 1;
            let step = wishes.step;
            let other = format!("other{}@localhost", step % NAMES);
            let name = format!("name {step}");
            wishes.ask(&format!("named {other}"), &name, done, || self.user.set_contact(&other, &name, &["group"]))?;
            if step.is_multiple_of(3) {
                wishes.ask(&format!("named {other}"), "", done, || self.user.remove_contact(&other))?;
            }
            let blocked = format!("blocked {other}");
            match wishes.value(&blocked) {
                "" => wishes.ask(&blocked, "yes", done, || self.user.block(&other))?,
                _ => wishes.ask(&blocked, "", done, || self.user.unblock(&other))?,
            }
            match wishes.value("subscription") {
                "" => wishes.ask("subscription", "asked", done, || self.user.subscribe(&contact, "please"))?,
                "asked" => {
                    hear(&mut self.contact, Action::Subscribe)?;
                    wishes.ask("subscription", "approved", done, || self.contact.approve(&jid("user", pair)))?;
                }
                _ => wishes.ask("subscription", "", done, || self.user.unsubscribe(&contact))?,
            }
        }
    }

    /// After a restart: everything acknowledged is there, and both sides of the subscription come to agree.
    fn check(&mut self, pair: usize, wishes: &mut Wishes) {
        let names: BTreeMap<String, String> =
            self.user.roster().expect("the node answers").into_iter().map(|contact| (contact.jid, contact.name)).collect();
        let blocked = self.user.block_list().expect("the node answers");
        for other in (0..NAMES).map(|n| format!("other{n}@localhost")) {
            wishes.found(&format!("named {other}"), names.get(&other).map_or("", String::as_str));
            wishes.found(&format!("blocked {other}"), if blocked.contains(&other) { "yes" } else { "" });
        }
        let (user, contact) = (jid("user", pair), jid("contact", pair));
        // Who made the last step knows at once how far it came; the other side hears of it.
        let asks = |item: Option<Contact>| item.is_some_and(|item| item.ask || item.subscription.0 & 1 == 1);
        let approves = |item: Option<Contact>| item.is_some_and(|item| item.subscription.0 & 2 == 2);
        // An approval from before the last unsubscribe may still stand: the other side has not heard of that yet.
        let approval = ("subscription".to_owned(), "approved".to_owned());
        let approval_asked_for = wishes.value("subscription") == "approved" || wishes.under_way.as_ref() == Some(&approval);
        let way = match (asks(item(&mut self.user, &contact)), approves(item(&mut self.contact, &user))) {
            (false, _) => "",
            (true, true) if approval_asked_for => "approved",
            (true, _) => "asked",
        };
        wishes.found("subscription", way);
        wishes.under_way = None;
        self.contact.set_presence(&Presence::default()).expect("the node answers");
        let sees = |item: Option<Contact>| item.is_some_and(|item| item.subscription.0 & 1 == 1);
        match way {
            // The request itself is heard by the next round's work.
            "asked" => assert!(!sees(item(&mut self.user, &contact))),
            "approved" => while !sees(item(&mut self.user, &contact)) {},
            _ => while approves(item(&mut self.contact, &user)) {},
        }
    }
}

#[test]
fn what_a_node_acknowledged_survives_kill_9() {
    let kills = std::env::var("FANAL_NODE_KILLS").map_or(8, |kills| kills.parse().expect("FANAL_NODE_KILLS is a number"));
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut wishes: Vec<Wishes> = (0..PAIRS).map(|_| Wishes::default()).collect();
    for kill in 0..=kills {
        let node = Served::start(&data, 2);
        let mut pairs: Vec<Pair> = (0..PAIRS).map(|pair| Pair::log_in(&node, pair)).collect();
        for (pair, (clients, wishes)) in pairs.iter_mut().zip(&mut wishes).enumerate() {
            clients.check(pair, wishes);
        }
        if kill == kills {
            return node.stop();
        }
        let (done, acknowledged) = channel();
        thread::scope(|scope| {
            for (pair, (mut clients, wishes)) in pairs.into_iter().zip(&mut wishes).enumerate() {
                let done = done.clone();
                scope.spawn(move || clients.work(pair, wishes, &done).expect_err("only the end of the node ends this"));
            }
            // Spread without a pattern; the kernel's timing does the rest.
            let count = 1 + kill * 7919 % 200;
            assert_eq!(acknowledged.iter().take(count).count(), count);
            node.kill();
        });
    }
}
