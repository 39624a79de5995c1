//! What one user, client or core may use up, each limit reached over real sockets: what is too much is refused with the limit's own
//! reason, is counted, and leaves everything else as it was. Limits with tests of their own: rosters and backlogs (`node_large`,
//! `node_limits`), messages that wait (`node_offline`), documents (`node_documents`), accounts (`node_accounts`), rates
//! (`node_rates`), log-ins elsewhere (`node_hook`), addresses (`bad_input`).
mod support;

use fanal::base::limits::Limits;
use fanal::base::reason::Reason;
use fanal::client::{Client, Error, Event, LogIn};
use fanal::node::Stopped;
use fanal::wire::decode::ServerFrame;
use fanal::wire::encode::{MessageFields, PresenceFields, Tag};
use fanal::wire::native::{Access, Action};
use std::io::Write;
use std::time::Instant;
use support::raw::{Bystanders, Raw};
use support::*;

fn node(cores: usize, change: impl FnOnce(&mut Limits)) -> TestNode {
    let mut config = config(cores);
    change(&mut config.limits);
    TestNode::start(&config)
}

fn refusal<T>(result: Result<T, Error>) -> Option<Reason> {
    result.err().map(|error| error.reason().expect("the node says why"))
}

/// How often the node has counted this reason.
fn counted(stopped: &Stopped, reason: Reason) -> u64 {
    stopped.hosts.iter().map(|host| host.shard.recorder.dropped.get(reason)).sum()
}

#[test]
fn a_user_has_so_many_sessions_contacts_blocked_users_and_directed_presences() {
    let node = node(1, |limits| {
        (limits.sessions_per_user, limits.contacts_per_user, limits.roster_bytes_per_user) = (2, 1, 1024);
        (limits.blocked_per_user, limits.directed_per_session) = (1, 1);
    });
    let (mut alice, phone) = (node.user("alice@localhost", "desk"), node.user("alice@localhost", "phone"));
    let third = node.connect().log_in("alice@localhost", LogIn::Token(&node.token("alice@localhost")), "tablet").map(drop);
    assert_eq!(refusal(third), Some(Reason::TooManySessions));
    assert_eq!(refusal(alice.set_contact("bob@localhost", "", &[])), None);
    assert_eq!(refusal(alice.set_contact("carol@localhost", "", &[])), Some(Reason::TooManyContacts));
    assert_eq!(refusal(alice.set_contact("bob@localhost", "Bob", &[])), None, "who is there is no further one");
    assert_eq!(refusal(alice.set_contact("bob@localhost", &"B".repeat(1024), &[])), Some(Reason::TooManyContacts));
    assert_eq!(refusal(alice.block("bob@localhost")), None);
    assert_eq!(refusal(alice.block("carol@localhost")), Some(Reason::TooManyBlocked));
    available(&mut alice);
    let here = Default::default();
    assert_eq!(refusal(alice.set_directed_presence("dave@localhost", &here)), None);
    assert_eq!(refusal(alice.set_directed_presence("erin@localhost", &here)), Some(Reason::TooManyDirected));
    drop((alice, phone));
    let stopped = node.stop();
    let reasons = [Reason::TooManySessions, Reason::TooManyContacts, Reason::TooManyBlocked, Reason::TooManyDirected];
    assert_eq!(reasons.map(|reason| counted(&stopped, reason)), [1, 2, 1, 1]);
}

#[test]
fn so_many_requests_wait_for_an_answer_and_the_next_is_turned_down() {
    for cores in [1, 2] {
        let node = node(cores, |limits| limits.requests_per_user = 2);
        let mut bob = node.user("bob@localhost", "b");
        available(&mut bob);
        let mut askers: Vec<Client> = (0..3).map(|n| node.user(&format!("asker{n}@localhost"), "a")).collect();
        let told =
            |client: &mut Client| until(client, |event| if let Event::Subscription(told) = event { Some(told) } else { None });
        for (n, asker) in askers.iter_mut().enumerate() {
            available(asker);
            asker.roster().unwrap();
            asker.subscribe("bob@localhost", "let me see you").unwrap();
            if n < 2 {
                assert_eq!(told(&mut bob).jid, bare(asker));
            }
        }
        let turned_down = told(&mut askers[2]);
        assert_eq!((turned_down.action, turned_down.note.as_str()), (Action::Unsubscribed, Reason::TooManyRequests.text()));
        // An answer makes room.
        bob.approve("asker0@localhost").unwrap();
        askers[2].subscribe("bob@localhost", "once more").unwrap();
        assert_eq!(told(&mut bob).jid, "asker2@localhost");
        drop((bob, askers));
        let refused: u64 = node.stop().hosts.iter().map(|host| host.shard.homes.counters.requests_refused).sum();
        assert_eq!(refused, 1);
    }
}

#[test]
fn so_many_changes_of_a_user_wait_for_the_store() {
    let node = node(1, |limits| limits.pending_per_user = 2);
    let mut raw = Raw::logged_in(&node, "alice@localhost");
    let mut frames = Vec::new();
    let names: Vec<String> = (1..=10).map(|n| format!("contact{n}@localhost")).collect();
    names.iter().for_each(|name| raw.encoder.roster_set::<&str>(&mut frames, Tag::default(), name, "", &[]));
    raw.encoder.ping(&mut frames, Tag::default(), 7);
    raw.stream.write_all(&frames).unwrap();
    raw.until(|frame| matches!(frame, ServerFrame::Pong(_)));
    // It waits for those before it, and names one that was taken.
    let mut alice = node.user("alice@localhost", "another");
    while refusal(alice.set_contact(&names[0], "the first", &[])) == Some(Reason::TooManyPending) {}
    let kept = alice.roster().unwrap().len() as u64;
    drop((alice, raw));
    let refused = counted(&node.stop(), Reason::TooManyPending);
    assert!((1..10).contains(&kept) && kept + refused >= 10, "{kept} kept and {refused} refused");
}

#[test]
fn a_session_that_takes_no_messages_holds_up_those_who_write_to_it() {
    let node = node(1, |limits| limits.unacknowledged_messages = 3);
    let (mut alice, mut bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    available(&mut bob);
    let mut write = || refusal(alice.send_message("bob@localhost/b", "", b"hello"));
    assert_eq!([write(), write(), write(), write()], [None, None, None, Some(Reason::TooManyMessages)]);
    // It reads, and so it acknowledges.
    (0..3).for_each(|_| until(&mut bob, |event| matches!(event, Event::Message(_)).then_some(())));
    bob.ping().unwrap();
    assert_eq!(write(), None);
    drop((alice, bob));
    assert_eq!(counted(&node.stop(), Reason::TooManyMessages), 1);
}

#[test]
fn a_core_has_room_for_so_many_users_documents_and_messages() {
    let node = node(1, |limits| {
        (limits.users_per_core, limits.document_bytes_per_core, limits.offline_bytes_per_core) = (2, 100, 300);
    });
    let (mut alice, bob) = (node.user("alice@localhost", "a"), node.user("bob@localhost", "b"));
    let third = node.connect().log_in("carol@localhost", LogIn::Token(&node.token("carol@localhost")), "c").map(drop);
    assert_eq!(refusal(third), Some(Reason::Overloaded));
    assert_eq!(refusal(alice.set_document("small", &[7; 50], Access::Own)), None);
    assert_eq!(refusal(alice.set_document("large", &[7; 100], Access::Own)), Some(Reason::Overloaded));
    assert_eq!(refusal(alice.set_document("small", &[], Access::Own)), None, "what goes makes room");
    assert_eq!(refusal(alice.set_document("large", &[7; 90], Access::Own)), None);
    bob.log_out("").unwrap();
    assert_eq!(refusal(alice.send_message("bob@localhost", "", &[7; 100])), None);
    assert_eq!(refusal(alice.send_message("bob@localhost", "", &[7; 300])), Some(Reason::RecipientUnavailable));
    drop(alice);
    let stopped = node.stop();
    assert_eq!((counted(&stopped, Reason::Overloaded), counted(&stopped, Reason::RecipientUnavailable)), (2, 1));
}

#[test]
fn a_trunk_has_so_many_streams_and_one_session_on_each() {
    let node = node(2, |limits| limits.streams_per_trunk = 2);
    let mut trunk = node.trunk();
    assert_eq!(refusal(trunk.log_in(2, "alice@localhost", "a")), None);
    assert_eq!(refusal(trunk.log_in(2, "bob@localhost", "b")), Some(Reason::StreamInUse));
    assert_eq!(refusal(trunk.log_in(3, "bob@localhost", "b")), Some(Reason::TooManyStreams));
    assert_eq!(refusal(trunk.log_in(1, "bob@localhost", "b")), None);
    drop(trunk);
    assert_eq!(counted(&node.stop(), Reason::TooManyStreams), 1);
}

#[test]
fn a_trunk_that_never_reads_is_ended_and_nobody_else_notices() {
    let node = node(2, |limits| {
        (limits.high_water_bytes, limits.trunk_high_water_bytes, limits.trunk_backlog_bytes) = (65_536, 65_536, 256 << 10);
        (limits.bytes_burst, limits.user_bytes_burst) = (1 << 30, 1 << 30);
    });
    let mut others = Bystanders::new(&node);
    let (mut carol, mut trunk) = (node.trunk(), node.trunk());
    carol.log_in(1, "carol@localhost", "c").unwrap();
    let jids: Vec<String> = (1..=30).map(|n| format!("user{n}@localhost")).collect();
    trunk.log_in_all(1, &jids, "game").unwrap();
    let here = PresenceFields { resource: "game", ..PresenceFields::default() };
    (1..=30).for_each(|stream| _ = trunk.send(stream, |encoder, out, tag| encoder.set_presence(out, tag, &here)));
    trunk.flush().unwrap();
    // More than the kernel keeps for it, and for each session less than may wait to be acknowledged.
    for n in 0..30 * 30 {
        let message = MessageFields { to: &format!("{}/game", jids[n % 30]), body: &[7; 30_000], ..MessageFields::default() };
        carol.send(1, |encoder, out, tag| encoder.message(out, tag, &message));
        carol.flush().unwrap();
    }
    others.are_well();
    drop((carol, trunk, others));
    assert_eq!(counted(&node.stop(), Reason::NeverReads), 1);
}

#[test]
fn a_core_has_so_many_connections_and_the_next_is_told_so() {
    let node = node(1, |limits| limits.connections_per_core = 2);
    let held = (node.connect(), node.connect());
    let (number, text) = Raw::connect(&node).last_error().expect("it is told why");
    assert_eq!((number, text.as_str()), (Reason::TooManyConnections as u16, Reason::TooManyConnections.text()));
    drop(held);
    assert_eq!(counted(&node.stop(), Reason::TooManyConnections), 1);
}

/// A connection goes to the core where its user lives, and what an address may have there holds for it, too.
#[test]
fn an_address_gets_no_further_by_naming_users_of_another_core() {
    let node = node(2, |limits| (limits.connections_per_address, limits.exempt) = (5, Vec::new()));
    let token = node.token("alice@localhost");
    let mut held = Vec::new();
    for n in 0..60 {
        let refused = match Client::connect(&node.address(), LONG) {
            Err(error) => error,
            Ok(mut client) => match client.log_in("alice@localhost", LogIn::Token(&token), &format!("r{n}")).map(drop) {
                Err(error) => error,
                Ok(()) => {
                    held.push(client);
                    continue;
                }
            },
        };
        assert_eq!(refused.reason(), Some(Reason::TooManyConnections));
    }
    assert_eq!(held.len(), 5);
    drop(held);
    let stopped = node.stop();
    assert!(stopped.hosts.iter().map(|host| host.drive.adopted).sum::<u64>() > 0, "some came by the other core");
    assert_eq!(counted(&stopped, Reason::TooManyConnections), 55);
}

#[test]
fn going_from_core_to_core_gives_nobody_more_time_to_log_in() {
    let node = node(2, |limits| (limits.log_in_ms, limits.log_in_attempts) = (1000, 1_000_000));
    let (mut client, began) = (node.connect(), Instant::now());
    let mut attempt = |n: u32| refusal(client.log_in(&format!("user{n}@localhost"), LogIn::Token("wrong"), "").map(drop));
    let end = (0..).map(&mut attempt).take_while(|_| began.elapsed() < LONG).find(|end| *end != Some(Reason::LogInFailed));
    assert_eq!(end, Some(Some(Reason::LogInTooSlow)));
}

#[test]
fn who_says_nothing_at_all_is_asked_and_then_ended() {
    let node = node(1, |limits| limits.ping_ms = 1000);
    let mut well = node.user("bob@localhost", "b");
    let silent = Raw::logged_in(&node, "alice@localhost");
    let ended = std::thread::spawn(move || silent.last_error());
    while !ended.is_finished() {
        well.next_event(MOMENT).expect("who answers stays");
    }
    assert_eq!(ended.join().unwrap().map(|(number, _)| number), Some(Reason::Silent as u16));
}
