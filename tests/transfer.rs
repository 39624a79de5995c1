//! Sessions told to move (C8, R5): a client is told where to, in its protocol's own words, follows, and misses no update that was
//! made while it was on its way. Pages follow in `node_ws` and, in Chromium, in `node_demo`.
mod support;

use fanal::base::credentials::{ITERATIONS, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::client::{Client, Event, Presence};
use fanal::front::doors::Speaks;
use fanal::node::control::Controller;
use std::net::SocketAddr;
use support::xmpp::Xmpp;
use support::*;

/// A node with XMPP doors; alice and bob have their names as passwords.
struct Site {
    node: TestNode,
    control: Controller,
}

impl Site {
    fn start(cores: usize) -> Site {
        let mut config = config(cores);
        let any_port = Some("127.0.0.1:0".parse().unwrap());
        (config.listen.xmpp, config.listen.ws, config.login.plain) = (any_port, any_port, true);
        let mut node = TestNode::start(&config);
        let mut control = node.0.as_mut().unwrap().control();
        for name in ["alice", "bob"] {
            let credentials = ScramCredentials::from_password(name, &[7; 16], ITERATIONS);
            control.add_user(&Bare::new(&format!("{name}@localhost")).unwrap(), Some(credentials)).unwrap();
        }
        Site { node, control }
    }

    fn address(&self, door: Speaks) -> SocketAddr {
        self.node.node().address(door).expect("the door is open")
    }

    /// Tells alice's session to move.
    fn transfer(&mut self, address: &str) {
        assert_eq!(self.control.transfer(&Bare::new("alice@localhost").unwrap(), address), Ok(1));
    }
}

fn say(client: &mut Client, status: &str) {
    client.set_presence(&Presence { status: status.into(), ..Presence::default() }).unwrap();
}

/// The next presence that has a status.
fn status(client: &mut Client) -> String {
    until(client, |event| match event {
        Event::Presence(event) => event.presence.map(|presence| presence.status).filter(|status| !status.is_empty()),
        _ => None,
    })
}

#[test]
fn c8_r5_a_native_client_follows_and_misses_nothing_said_meanwhile() {
    for cores in [1, 2] {
        let mut site = Site::start(cores);
        let (mut alice, mut bob) = (site.node.user("alice@localhost", "a"), site.node.user("bob@localhost", "b"));
        available(&mut alice);
        available(&mut bob);
        subscribe(&mut alice, &mut bob);
        subscribe(&mut bob, &mut alice);
        for round in 0..3 {
            site.transfer(&site.node.address());
            let told = until(&mut alice, |event| match event {
                Event::Transfer(address) => Some(address),
                _ => None,
            });
            say(&mut bob, &format!("before {round}"));
            say(&mut bob, &format!("on the way {round}"));
            assert!(alice.follow(&told).unwrap().resumed);
            let mut heard = status(&mut alice);
            if heard.starts_with("before") {
                heard = status(&mut alice);
            }
            assert_eq!(heard, format!("on the way {round}"), "and the last is the newest");
            no_presence(&mut alice);
            say(&mut alice, &format!("arrived {round}"));
            assert_eq!(status(&mut bob), format!("arrived {round}"), "nobody saw her go");
        }
    }
}

/// What an XMPP client is told, and the address in it.
fn other_host(alice: &mut Xmpp) -> SocketAddr {
    let said = alice.until("</stream:stream>");
    let start = "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>";
    let (_, rest) = said.split_once(start).expect("it is told where to go");
    rest.strip_suffix("</see-other-host></stream:error></stream:stream>").and_then(|address| address.parse().ok()).unwrap()
}

/// alice, by XMPP, and bob see each other.
fn friends(site: &Site) -> (Xmpp, Client) {
    let (mut alice, mut bob) = (Xmpp::log_in(site.address(Speaks::Xmpp), "alice"), site.node.user("bob@localhost", "b"));
    available(&mut bob);
    bob.approve("alice@localhost").unwrap();
    alice.say("<presence/><presence type='subscribed' to='bob@localhost'/><presence type='subscribe' to='bob@localhost'/>");
    alice.until("from='bob@localhost/b'");
    bob.roster().unwrap();
    bob.subscribe("alice@localhost", "").unwrap();
    until(&mut bob, |event| matches!(event, Event::Presence(_)).then_some(()));
    (alice, bob)
}

#[test]
fn c8_r5_an_xmpp_client_follows_see_other_host_and_hears_what_was_said_meanwhile() {
    for cores in [1, 2] {
        let mut site = Site::start(cores);
        let (mut alice, mut bob) = friends(&site);
        site.transfer(&site.address(Speaks::Xmpp).to_string());
        let there = other_host(&mut alice);
        say(&mut bob, "on the way");
        let mut alice = Xmpp::log_in(there, "alice");
        alice.say("<presence><status>arrived</status></presence>");
        alice.until("<status>on the way</status>");
        assert_eq!(status(&mut bob), "arrived");
    }
}

#[test]
fn c8_r5_a_managed_stream_is_resumed_where_it_was_told_to_go_and_nobody_sees_it_leave() {
    for cores in [1, 2] {
        let mut site = Site::start(cores);
        let (mut alice, mut bob) = friends(&site);
        alice.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        alice.until("<enabled ");
        let enabled = alice.until(">");
        let (_, id) = enabled.split_once("id='").expect("it can be resumed");
        let (id, _) = id.split_once('\'').unwrap();
        site.transfer(&site.address(Speaks::Xmpp).to_string());
        let there = other_host(&mut alice);
        say(&mut bob, "on the way");
        let mut alice = Xmpp::prove(there, "alice");
        alice.say(&format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{id}'/>"));
        alice.until("<resumed ");
        alice.until("<status>on the way</status>");
        alice.say("<presence><status>arrived</status></presence>");
        let next = until(&mut bob, |event| match event {
            Event::Presence(event) => Some(event.presence.map(|presence| presence.status)),
            _ => None,
        });
        assert_eq!(next.as_deref(), Some("arrived"), "no farewell in between");
    }
}
