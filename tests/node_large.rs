//! What is long reaches a client that reads slowly, whole and in pieces, while the node keeps little of it: a roster of the most
//! contacts with the longest names, and the first presence of as many contacts (J10).
mod support;

use fanal::admin::client::Client as Admin;
use fanal::base::id::UserId;
use fanal::client::Presence;
use fanal::wire::decode::{self, ServerFrame};
use fanal::wire::encode::{Encoder, LogInFields, SubscriptionFields, Tag};
use fanal::wire::frame::{Chunk, Frame, Frames};
use fanal::wire::native::{Action, Show};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use support::*;

/// More than the kernel keeps for a socket: about 17 KB each.
const CONTACTS: usize = 1000;
/// The same with presence of 60 KB.
const PUBLISHERS: usize = 300;

/// Longest frame: a piece and one item above it.
const LONGEST: u32 = 160 << 10;

/// A session that reads when it's told to.
struct Slow {
    stream: TcpStream,
    encoder: Encoder,
    frames: Frames,
}

impl Slow {
    fn log_in(node: &TestNode, jid: &str, resource: &str) -> Slow {
        let stream = TcpStream::connect(node.node().native()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut slow = Slow { stream, encoder: Encoder::default(), frames: Frames::default() };
        slow.say(|encoder, out| encoder.hello(out, Tag::default(), "a test"));
        let token = node.token(jid);
        let log_in = LogInFields { jid, mechanism: "TOKEN", data: token.as_bytes(), resource, ..LogInFields::default() };
        slow.say(|encoder, out| encoder.log_in(out, Tag::request(1), &log_in));
        slow.read(|_, frame| match frame {
            ServerFrame::LoggedIn(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        slow
    }

    fn say(&mut self, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut frame = Vec::new();
        write(&mut self.encoder, &mut frame);
        self.stream.write_all(&frame).unwrap();
    }

    /// Reads frames until `hear` has heard enough.
    fn read(&mut self, mut hear: impl FnMut(Tag, ServerFrame<'_>) -> ControlFlow<()>) {
        let mut bytes = vec![0; 16 << 10];
        loop {
            let count = self.stream.read(&mut bytes).expect("more comes");
            assert!(count > 0, "the node ended the connection");
            let mut chunk = Chunk::new(&bytes[..count]);
            while let Some(Frame { header, body }) = self.frames.next(&mut chunk, LONGEST).expect("frames of bounded length") {
                let tag = Tag { stream: header.stream, request: header.request };
                if hear(tag, decode::from_server(header.kind, body).expect("sound frames")).is_break() {
                    return;
                }
            }
        }
    }
}

fn with_admin(cores: usize) -> (TestNode, Admin) {
    let mut config = config(cores);
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    config.limits.contacts_per_user = CONTACTS as u32;
    config.limits.roster_bytes_per_user = 32 << 20;
    let mut node = TestNode::start(&config);
    let address = node.0.as_mut().unwrap().start_admin(&config).unwrap();
    (node, Admin::new(address, None))
}

/// Waits until as much is kept for a connection as may be; never is it more than that and a few pieces.
fn until_slow(admin: &Admin) {
    let limits = fanal::base::limits::Limits::default();
    loop {
        let kept = admin.stats().unwrap().all.gauges["backlog_bytes"];
        assert!(kept <= u64::from(limits.high_water_bytes + 4 * limits.piece_bytes), "{kept} bytes kept");
        if kept > u64::from(limits.high_water_bytes) {
            return;
        }
    }
}

#[test]
fn the_largest_roster_reaches_a_client_that_reads_slowly() {
    let (node, admin) = with_admin(1);
    let mut owner = node.user("owner@localhost", "fast");
    let groups: Vec<String> = (0..16).map(|n| format!("{n:x>1000}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    for n in 0..CONTACTS {
        owner.set_contact(&format!("contact{n}@localhost"), &"n".repeat(1000), &groups).unwrap();
    }
    let names: BTreeSet<String> = (0..CONTACTS).map(|n| format!("contact{n}@localhost")).collect();
    let mut slow = Slow::log_in(&node, "owner@localhost", "slow");
    slow.say(|encoder, out| encoder.roster_get(out, Tag::request(7)));
    until_slow(&admin);
    // Meanwhile one contact goes and another is renamed: both are told of, whether they were sent already or not.
    owner.remove_contact("contact1@localhost").unwrap();
    owner.set_contact("contact2@localhost", "renamed", &[]).unwrap();
    let (mut roster, mut pieces, mut pushes) = (std::collections::BTreeMap::new(), 0, 0);
    slow.read(|tag, frame| {
        match frame {
            ServerFrame::Roster(piece) => {
                assert_eq!(tag, Tag::request(7));
                pieces += 1;
                let items = piece.items().into_iter().flatten();
                roster.extend(items.map(|item| (item.jid().to_owned(), item.name().unwrap_or_default().to_owned())));
                if !piece.more() {
                    return ControlFlow::Break(());
                }
            }
            ServerFrame::RosterPush(push) => {
                pushes += 1;
                match push.item().removed() {
                    true => drop(roster.remove(push.item().jid())),
                    false => drop(roster.insert(push.item().jid().to_owned(), push.item().name().unwrap_or_default().to_owned())),
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert!(pieces > 100 && pushes == 2, "{pieces} pieces, {pushes} pushes");
    assert_eq!(roster["contact2@localhost"], "renamed");
    let known: BTreeSet<String> = roster.into_keys().collect();
    assert_eq!(names.difference(&known).collect::<Vec<_>>(), ["contact1@localhost"]);
    // The client library puts the pieces together.
    assert_eq!(owner.roster().unwrap().len(), CONTACTS - 1);
}

#[test]
fn the_presence_of_the_most_contacts_reaches_a_client_that_reads_slowly() {
    for cores in [1, 2] {
        let (node, admin) = with_admin(cores);
        let mut trunk = node.trunk();
        let jids: Vec<String> = (0..PUBLISHERS).map(|n| format!("publisher{n}@localhost")).collect();
        trunk.log_in_all(1, &jids, "game").unwrap();
        let presence = Presence { resource: "game".into(), payload: vec![7; 60_000], ..Presence::default() };
        let last = (1..=PUBLISHERS as u32).map(|stream| {
            let fields = SubscriptionFields {
                action: Action::Subscribed,
                jid: "fan@localhost",
                user: UserId::NOBODY,
                note: "",
                extensions: "",
            };
            trunk.send(stream, |encoder, out, tag| encoder.subscription(out, tag, &fields));
            trunk.send(stream, |encoder, out, tag| encoder.set_presence(out, tag, &presence.fields()))
        });
        let mut unanswered = 2 * last.count();
        trunk.flush().unwrap();
        while unanswered > 0 {
            if let fanal::client::TrunkEvent::Answer(..) = trunk.next(LONG).unwrap().expect("all are answered") {
                unanswered -= 1;
            }
        }
        let mut fan = node.user("fan@localhost", "settings");
        jids.iter().for_each(|jid| fan.subscribe(jid, "").unwrap());
        let approved = |fan: &mut fanal::client::Client| fan.roster().unwrap().iter().filter(|c| c.subscription.0 & 1 == 1).count();
        while approved(&mut fan) < PUBLISHERS {}

        // Once with a publisher's first subscriber of the core, once answered from what the core knows.
        for resource in ["first", "second"] {
            let mut slow = Slow::log_in(&node, "fan@localhost", resource);
            let own = Presence { resource: resource.into(), ..Presence::default() };
            slow.say(|encoder, out| encoder.set_presence(out, Tag::request(2), &own.fields()));
            until_slow(&admin);
            let mut seen = BTreeSet::new();
            slow.read(|_, frame| {
                let mut see = |event: &fanal::wire::event::Event<'_>| {
                    if event.head.show != Show::Unavailable && event.presence.is_some_and(|p| p.fields().payload.len() == 60_000) {
                        seen.insert(event.head.user);
                    }
                };
                match frame {
                    ServerFrame::Event(event) => see(&event),
                    ServerFrame::EventBatch(batch) => batch.iter().for_each(|event| see(&event.expect("sound events"))),
                    _ => {}
                }
                if seen.len() == PUBLISHERS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
    }
}
