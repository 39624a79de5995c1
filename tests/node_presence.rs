//! One node over real sockets: users subscribe, change presence, and approved subscribers hear of it.
mod support;
use support::*;

#[test]
fn g1_an_approved_subscriber_hears_of_every_change() {
    for cores in [1, 2] {
        let node = TestNode::start(&config(cores));
        let mut alice = node.user("alice@localhost", "desk");
        let mut bob = node.user("bob@localhost", "phone");
        available(&mut alice);
        available(&mut bob);
        subscribe(&mut bob, &mut alice);
        let seen = presence(&mut bob);
        assert_eq!(seen.presence.as_ref().map(|p| p.resource.as_str()), Some("desk"));
    }
}
