//! Clusters as they are: real nodes, sockets, links over io_uring; each cluster logs in to the directory (Z1, Z2), and users of
//! different ones see each other and write to each other.

mod support;

use fanal::admin::client::Client as Admin;
use fanal::base::config::Config;
use fanal::base::config::cluster::Peer;
use fanal::base::id::NodeId;
use fanal::base::reason::Reason;
use fanal::client::{Client, Event, Presence};
use fanal::wire::native::Show;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::clusters::{Clusters, KEY, Place, befriend, configured, eventually, hears, log_in, peers, sees, show, writes};
use support::served::{Served, fanal, user_on};
use support::tap::Tap;
use support::until;

/// Rows Z1, Z2.
#[test]
fn z1_z2_clusters_log_in_to_the_directory_and_every_node_finds_all_others() {
    // The directory's number may be lower or higher than the others'; nodes may have different cores.
    Clusters::start(&[(1, &[1]), (2, &[1])]);
    Clusters::start(&[(9, &[2, 1]), (2, &[1, 2])]);
    Clusters::start(&[(5, &[1]), (7, &[1, 1]), (3, &[2])]);
}

/// Rows Z1, Z2.
#[test]
fn z1_a_second_cluster_of_the_same_number_stays_out_and_the_first_goes_on() {
    let directory = peers(2);
    let start = |number: u16, nodes: &[Peer], node: usize| Place::start(&configured(number, nodes, node, 1, (1, &directory)));
    let [first, second] = [start(1, &directory, 0), start(1, &directory, 1)];
    let holder = start(7, &peers(1), 0);
    holder.finds(1);
    let data = tempfile::tempdir().unwrap();
    let late = Served::start_with_config(&data.path().join("late"), 1, &configured(7, &peers(1), 0, 1, (1, &directory)));
    let other = start(8, &peers(1), 0);
    other.finds(2);
    holder.finds(2);
    [&first, &second].into_iter().for_each(|node| node.finds(2));
    eventually(|| late.log().contains("another cluster has this cluster's number"), || late.log());
    assert!(Admin::new(late.admin, None).get("/metrics").unwrap().contains("fanal_clusters_known{core=\"0\"} 0"));
    late.stop();
}

/// Rows Z8, Z9.
#[test]
fn z8_z9_users_of_different_clusters_subscribe_see_and_write_to_each_other() {
    let clusters = Clusters::start(&[(4, &[1, 2]), (2, &[2])]);
    let [first, second] = [&clusters.0[0], &clusters.0[1]];
    for (nth, node) in [0, 1, 0, 1].into_iter().enumerate() {
        let (ann, bob) = (format!("ann{nth}@localhost"), format!("bob{nth}@localhost"));
        let (mut one, mut two) = (first[node].user(&ann), second[0].user(&bob));
        befriend((&ann, &mut one), (&bob, &mut two));
        sees(&mut one, Show::Available);
        show(&mut two, Show::Away);
        sees(&mut one, Show::Away);
        befriend((&bob, &mut two), (&ann, &mut one));
        sees(&mut two, Show::Available);
        one.send_message(&bob, "1", b"to the other cluster").unwrap();
        hears(&mut two, "to the other cluster");
        two.send_message(&ann, "2", b"and back").unwrap();
        hears(&mut one, "and back");
        two.log_out("").unwrap();
        sees(&mut one, Show::Unavailable);
    }
}

/// Two clusters of one node each; what goes between them is counted on the wire, between the second and the first, the directory's.
fn tapped(change: impl Fn(&mut Config)) -> (Place, Place, Tap) {
    let (directory, other) = (peers(1), peers(1));
    let tap = Tap::before(directory[0].address);
    let start = |number: u16, nodes: &[Peer], directory: &[Peer]| {
        let mut config = configured(number, nodes, 0, 1, (1, directory));
        change(&mut config);
        Place::start(&config)
    };
    let first = start(1, &directory, &directory);
    let second = start(2, &other, &[Peer { node: NodeId(1), address: tap.address }]);
    [&first, &second].into_iter().for_each(|place| place.finds(1));
    (first, second, tap)
}

/// Rows Z6, M4, Z1.
#[test]
fn z6_m4_an_update_crosses_once_with_one_subscriber_and_with_twenty() {
    let (first, second, tap) = tapped(|_| ());
    let publisher = "pub@localhost";
    let mut speaker = second.user(publisher);
    let mut subscribers: Vec<Client> = Vec::new();
    for nth in 0..20 {
        let name = format!("sub{nth}@localhost");
        let mut subscriber = first.user(&name);
        befriend((&name, &mut subscriber), (publisher, &mut speaker));
        sees(&mut subscriber, Show::Available);
        subscribers.push(subscriber);
        if nth == 0 || nth == 19 {
            let before = tap.to_node.read();
            for kind in [Show::Away, Show::Available] {
                show(&mut speaker, kind);
                subscribers.iter_mut().for_each(|subscriber| sees(subscriber, kind));
            }
            let [frames, updates, complex] = before;
            assert_eq!(tap.to_node.read(), [frames + 2, updates + 2, complex], "{} subscribers", nth + 1);
        }
    }
    assert_eq!(second.metric("across_updates_total"), tap.to_node.read()[1]);
    // Both know whose it is, and whose nobody is.
    for place in [&first, &second] {
        let cluster = |jid| place.admin.locate(jid).unwrap().cluster;
        assert_eq!(["pub@localhost", "sub3@localhost", "nobody@localhost"].map(cluster), [Some(2), Some(1), None]);
        let address = place.address.to_string();
        let says = |args: &[&str]| {
            let output = fanal(&["directory", "lookup", "pub@localhost", "--admin", &address]).args(args).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(says(&[]), "pub@localhost is of cluster 2\n");
        assert_eq!(says(&["--json"]), "{\"jid\":\"pub@localhost\",\"cluster\":2}\n");
    }
}

/// Rows Z5, Z10, Z11, Z12.
#[test]
fn z10_z12_changes_of_status_text_gather_and_real_time_things_go_past_them() {
    let (first, second, tap) = tapped(|config| {
        config.link.non_real_time = vec!["status_text".into()];
        (config.link.complex_count, config.link.complex_ms) = (2, 3_600_000);
    });
    let names = ["bob@localhost", "eve@localhost"];
    let [mut bob, mut eve] = names.map(|name| second.user(name));
    let mut ann = first.user("ann@localhost");
    befriend(("ann@localhost", &mut ann), (names[0], &mut bob));
    sees(&mut ann, Show::Available);
    befriend(("ann@localhost", &mut ann), (names[1], &mut eve));
    sees(&mut ann, Show::Available);
    let before = tap.to_node.read();
    writes(&mut bob, "at lunch");
    // One waits, for an hour; nothing else does.
    bob.ping().unwrap();
    bob.send_message("ann@localhost", "1", b"I'm at lunch").unwrap();
    hears(&mut ann, "I'm at lunch");
    show(&mut eve, Show::Away);
    sees(&mut ann, Show::Away);
    let [frames, updates, complex] = before;
    assert_eq!(tap.to_node.read(), [frames + 1, updates + 1, complex], "the text waits");
    // The second closes the message; the newest of each is in it.
    writes(&mut bob, "at coffee");
    bob.ping().unwrap();
    show(&mut eve, Show::Available);
    sees(&mut ann, Show::Available);
    writes(&mut eve, "reading");
    let mut texts = [(); 2].map(|()| {
        until(&mut ann, |event| match event {
            Event::Presence(event) => event.presence.map(|presence| presence.status).filter(|status| !status.is_empty()),
            _ => None,
        })
    });
    texts.sort();
    assert_eq!(texts, ["at coffee", "reading"]);
    assert_eq!(tap.to_node.read(), [frames + 2, updates + 2, complex + 1]);
    let counted = ["gathered_updates_total", "gathered_replaced_total", "complex_messages_total", "complex_updates_total"];
    assert_eq!(counted.map(|name| second.metric(name)), [3, 1, 1, 2]);
    assert_eq!(first.metric("complex_received_total"), 1);
}

/// Row M5.
#[test]
fn m5_a_long_presence_is_told_by_reference_and_fetched_once_by_the_other_cluster() {
    let (first, second, tap) = tapped(|config| config.presence.inline_max = 2000);
    let publisher = "pub@localhost";
    let mut speaker = second.user(publisher);
    let mut subscribers: Vec<Client> = Vec::new();
    for nth in 0..5 {
        let name = format!("sub{nth}@localhost");
        let mut subscriber = first.user(&name);
        befriend((&name, &mut subscriber), (publisher, &mut speaker));
        sees(&mut subscriber, Show::Available);
        subscribers.push(subscriber);
    }
    for (payload, updates) in [(30_000, 2), (1000, 1), (20_000, 2)] {
        let before = (tap.to_node.read()[1], tap.to_node.bytes.load(Ordering::SeqCst));
        publishes(&mut speaker, payload);
        subscribers.iter_mut().for_each(|subscriber| sees_payload(subscriber, payload));
        let (read, bytes) = (tap.to_node.read()[1] - before.0, tap.to_node.bytes.load(Ordering::SeqCst) - before.1);
        // Pings and acknowledgements go there, too.
        assert!(read == updates && bytes < payload as u64 + 5000, "{read} updates, {bytes} bytes for {payload}");
    }
    let counted = (["updates_referred_total", "presences_told_whole_total"].map(|name| second.metric(name)), "relay_fetched_total");
    assert_eq!((counted.0, first.metric(counted.1)), ([2, 2], 2));
}

/// Rows Z12, Z11.
#[test]
fn z12_what_only_inactive_clients_watch_waits_and_who_looks_again_sees_the_newest_within_the_bound() {
    let (first, second, tap) = tapped(|config| {
        config.link.non_real_time = vec!["inactive".into()];
        (config.link.inactive_ms, config.link.complex_ms) = (50, 300);
    });
    let names = ["bob@localhost", "eve@localhost"];
    let [mut bob, mut eve] = names.map(|name| second.user(name));
    let [mut ann, mut cat] = ["ann@localhost", "cat@localhost"].map(|name| first.user(name));
    befriend(("ann@localhost", &mut ann), (names[0], &mut bob));
    befriend(("cat@localhost", &mut cat), (names[0], &mut bob));
    befriend(("cat@localhost", &mut cat), (names[1], &mut eve));
    sees(&mut ann, Show::Available);
    (0..2).for_each(|_| sees(&mut cat, Show::Available));
    ann.set_active(false).unwrap();
    show(&mut bob, Show::Away);
    sees(&mut cat, Show::Away);
    assert_eq!(second.metric("gathered_inactive_total"), 0, "she's not the only one who watches him");
    cat.set_active(false).unwrap();
    eventually(|| first.metric("publishers_unheeded") == 2, || first.metric("publishers_unheeded").to_string());
    // What it says of that comes before a message.
    ann.send_message(names[1], "1", b"I'm not looking").unwrap();
    hears(&mut eve, "I'm not looking");
    let before = tap.to_node.read();
    for kind in [Show::Chat, Show::ExtendedAway, Show::DoNotDisturb] {
        show(&mut bob, kind);
        show(&mut eve, kind);
        [&mut bob, &mut eve].into_iter().for_each(|client| _ = client.ping().unwrap());
    }
    eve.send_message("ann@localhost", "2", b"but you hear").unwrap();
    hears(&mut ann, "but you hear");
    assert_eq!(tap.to_node.read()[1], before[1], "no update goes by itself");
    assert_eq!(second.metric("gathered_inactive_total"), 6);
    ann.set_active(true).unwrap();
    sees(&mut ann, Show::DoNotDisturb);
    assert!(tap.to_node.read()[2] > before[2], "it was in a complex message");
    // He is looked at again; she is not.
    ann.send_message(names[1], "3", b"now I am").unwrap();
    hears(&mut eve, "now I am");
    let before = tap.to_node.read();
    show(&mut eve, Show::Chat);
    show(&mut bob, Show::Chat);
    sees(&mut ann, Show::Chat);
    assert_eq!(tap.to_node.read()[1], before[1] + 1);
}

fn publishes(client: &mut Client, payload: usize) {
    client.set_presence(&Presence { payload: vec![7; payload], ..Presence::default() }).unwrap();
}

fn sees_payload(client: &mut Client, payload: usize) {
    until(client, |event| match event {
        Event::Presence(event) => event.presence.filter(|presence| presence.payload == vec![7; payload]).map(drop),
        _ => None,
    });
}

/// Above what the requirement says, for a machine that does not let the survivors run.
const LATE: Duration = Duration::from_secs(2);

/// Row Z13.
#[test]
fn z13_a_killed_nodes_users_are_shown_as_gone_in_the_other_cluster_and_come_back_and_the_rest_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let (here, there) = (peers(1), peers(2));
    let serve = |number: u16, nodes: &[Peer], node: usize| {
        let mut config = configured(number, nodes, node, 1, (1, &here));
        config.store = Config::default().store;
        config.listen = Config::default().listen;
        Served::start_with_config(&data.path().join(format!("{number}-{node}")), 1, &config)
    };
    let near = serve(1, &here, 0);
    // The second one is the one that the near node prefers.
    let (first, second) = (serve(2, &there, 0), serve(2, &there, 1));
    let user = |node: &Served, jid: &str| log_in(&node.native.to_string(), &node.token_by(KEY, jid), jid);
    // Who stands for ann in the other cluster is its first node, which looks after slots without users.
    let (ann, bob, eve) =
        ("ann@localhost".to_owned(), user_on(first.admin, second.admin, "bob"), user_on(second.admin, first.admin, "eve"));
    let (mut one, mut two, mut three) = (user(&near, &ann), user(&second, &bob), user(&first, &eve));
    befriend((&ann, &mut one), (&bob, &mut two));
    sees(&mut one, Show::Available);
    befriend((&ann, &mut one), (&eve, &mut three));
    sees(&mut one, Show::Available);
    let killed = Instant::now();
    kill(Pid::from_raw(second.pid() as i32), Signal::SIGKILL).unwrap();
    sees(&mut one, Show::Unavailable);
    assert!(killed.elapsed() < Duration::from_secs(3) + LATE, "{:?}", killed.elapsed());
    // What goes to the other cluster goes by its other node.
    show(&mut three, Show::Away);
    sees(&mut one, Show::Away);
    one.send_message(&eve, "1", b"are you there?").unwrap();
    hears(&mut three, "are you there?");
    let refused = one.send_message(&bob, "2", b"and you?").unwrap_err();
    assert!(refused.to_string().contains(Reason::HomeOutOfReach.text()), "{refused}");
    drop(second);
    let second = serve(2, &there, 1);
    let again = user(&second, &bob);
    sees(&mut one, Show::Available);
    // A client that reads nothing holds its node up.
    drop((one, three, again));
    [near, first, second].into_iter().for_each(Served::stop);
}

/// Row Z13.
#[test]
fn z13_when_one_link_of_several_is_cut_nobody_is_shown_in_a_state_that_is_past() {
    // The first cluster keeps the directory; what the second one's node has to its second node goes through a tap.
    let (there, here) = (peers(2), peers(1));
    let tap = Tap::before(there[1].address);
    let at = [there[0], Peer { address: tap.address, ..there[1] }];
    let [first, second] = [0, 1].map(|node| Place::start(&configured(1, &there, node, 1, (1, &there))));
    let near = Place::start(&configured(2, &here, 0, 1, (1, &at)));
    [&first, &second, &near].into_iter().for_each(|place| place.finds(1));
    let (ann, bob, eve) =
        ("ann@localhost".to_owned(), user_on(first.address, second.address, "bob"), user_on(second.address, first.address, "eve"));
    let (mut one, mut two, mut three) = (near.user(&ann), second.user(&bob), first.user(&eve));
    befriend((&ann, &mut one), (&bob, &mut two));
    sees(&mut one, Show::Available);
    befriend((&ann, &mut one), (&eve, &mut three));
    sees(&mut one, Show::Available);
    tap.cut();
    sees(&mut one, Show::Unavailable);
    // Of the other node's users nothing is lost, whichever was used before.
    show(&mut three, Show::Away);
    sees(&mut one, Show::Away);
    show(&mut two, Show::DoNotDisturb);
    tap.heal();
    sees(&mut one, Show::DoNotDisturb);
    show(&mut two, Show::Chat);
    sees(&mut one, Show::Chat);
}

/// Runs a command that makes files for links.
fn make(args: &[&str]) {
    let output = fanal(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Row Z2.
#[test]
fn z2_clusters_with_authorities_of_their_own_see_each_other_inside_tls() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (here, there) = (peers(1), peers(1));
    for number in ["1", "2"] {
        let (authority, node) = (at(&format!("ca{number}")), at(&format!("node{number}")));
        make(&["link", "ca", "--out", &authority]);
        make(&["link", "certificate", "--ca", &authority, "--cluster", number, "--node", "1", "--out", &node]);
    }
    let authorities = ["ca1", "ca2"].map(|ca| std::fs::read_to_string(dir.path().join(ca).join("ca.pem")).unwrap()).concat();
    std::fs::write(at("all.pem"), authorities).unwrap();
    let start = |number: u16, nodes: &[Peer]| {
        let mut config = configured(number, nodes, 0, 2, (1, &here));
        let files = dir.path().join(format!("node{number}"));
        config.link.ca = Some(at("all.pem").into());
        (config.link.certificate, config.link.key) = (Some(files.join("node.pem")), Some(files.join("node.key")));
        Place::start(&config)
    };
    let (first, second) = (start(1, &here), start(2, &there));
    [&first, &second].into_iter().for_each(|place| place.finds(1));
    let (ann, bob) = ("ann@localhost", "bob@localhost");
    let (mut one, mut two) = (first.user(ann), second.user(bob));
    befriend((ann, &mut one), (bob, &mut two));
    sees(&mut one, Show::Available);
}
