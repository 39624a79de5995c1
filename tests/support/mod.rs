//! A real node on loopback for tests, and clients of it.
#![allow(dead_code)]

pub mod certified;
pub mod clusters;
pub mod etcd;
pub mod postgres;
pub mod raw;
pub mod served;
pub mod tap;
pub mod web;
pub mod xmpp;

use fanal::base::config::{Config, Cores, StoreKind};
use fanal::base::jid::Bare;
use fanal::base::time::WallClock;
use fanal::client::{Client, Event, LogIn, Presence, PresenceEvent, Trunk};
use fanal::front::token::Scope;
use fanal::node::{Node, Stopped};
use std::time::{Duration, Instant};

/// Longer than anything takes on a loaded machine.
pub const LONG: Duration = Duration::from_secs(20);
/// How long to look for something that must not come.
pub const MOMENT: Duration = Duration::from_millis(100);

pub struct TestNode(pub Option<Node>);

/// A configuration for one test: nothing kept, any port.
pub fn config(cores: usize) -> Config {
    let mut config = Config::default();
    config.listen.native = "127.0.0.1:0".parse().unwrap();
    config.store.kind = StoreKind::Memory;
    config.node.cores = Cores::These(processors(cores));
    config
}

/// Cores of a test share processors when there are not enough.
fn processors(cores: usize) -> Vec<u16> {
    let available = fanal::drive::pin::processors();
    (0..cores).map(|core| available[core % available.len()].id as u16).collect()
}

/// Runs a test on one core and on two.
pub fn on_one_and_two_cores(test: impl Fn(&TestNode)) {
    for cores in [1, 2] {
        test(&TestNode::start(&config(cores)));
    }
}

impl TestNode {
    pub fn start(config: &Config) -> TestNode {
        TestNode(Some(Node::start(config).expect("the node starts")))
    }

    pub fn node(&self) -> &Node {
        self.0.as_ref().expect("it runs")
    }

    pub fn address(&self) -> String {
        self.node().native().to_string()
    }

    pub fn token(&self, jid: &str) -> String {
        let jid = Bare::new(jid).unwrap();
        self.node().token_keys.sign(Scope::User(&jid), WallClock(u64::MAX)).unwrap()
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.address(), LONG).expect("the node answers")
    }

    /// A user logged in by token. Users come into being at their first log-in.
    pub fn user(&self, jid: &str, resource: &str) -> Client {
        let mut client = self.connect();
        client.log_in(jid, LogIn::Token(&self.token(jid)), resource).expect("the token is good");
        client
    }

    pub fn trunk(&self) -> Trunk {
        let token = self.node().trunk_keys.sign(Scope::Trunk("test"), WallClock(u64::MAX)).unwrap();
        Trunk::connect(&self.address(), &token, LONG).expect("the trunk's token is good")
    }

    pub fn stop(mut self) -> Stopped {
        self.0.take().expect("it runs").stop().expect("the node stops well")
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(node) = self.0.take()
            && !std::thread::panicking()
        {
            node.stop().expect("the node stops well");
        }
    }
}

/// The next event that `wanted` takes; others are passed over. Fails after a long time.
pub fn until<T>(client: &mut Client, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match client.next_event(left).expect("the connection lives") {
            Some(event) => {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            None => panic!("what was waited for did not come in {LONG:?}"),
        }
    }
}

/// The next presence of any contact.
pub fn presence(client: &mut Client) -> PresenceEvent {
    until(client, |event| match event {
        Event::Presence(presence) => Some(presence),
        _ => None,
    })
}

/// Fails if any presence comes within a moment. A ping's answer shows that the node has said all it had to say.
pub fn no_presence(client: &mut Client) {
    client.ping().expect("the node answers");
    while let Some(event) = client.next_event(MOMENT).expect("the connection lives") {
        if let Event::Presence(presence) = event {
            panic!("nobody should have told {presence:?}");
        }
    }
}

/// Makes the first user see the second: asks, and approves.
pub fn subscribe(subscriber: &mut Client, publisher: &mut Client) {
    let (from, to) = (bare(subscriber), bare(publisher));
    publisher.approve(&from).expect("approved in advance");
    subscriber.roster().expect("the roster comes");
    subscriber.subscribe(&to, "").expect("asked");
    until(subscriber, |event| match event {
        Event::RosterPush(contact) if contact.jid == to && contact.subscription.0 & 1 == 1 => Some(()),
        _ => None,
    });
}

pub fn bare(client: &Client) -> String {
    client.logged_in().expect("logged in").bare_jid().to_owned()
}

pub fn available(client: &mut Client) {
    let resource = client.logged_in().expect("logged in").resource().to_owned();
    client.set_presence(&Presence { resource, ..Presence::default() }).expect("presence is set");
}
