//! The directory and the operator's view of clusters, over sockets: who is asked how often, what a restart remembers, what is
//! forgotten, and the list of a whole cluster's users.

mod support;

use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, StoreKind};
use fanal::client::{Client, Event};
use fanal::wire::native::{Show, SubscriptionState};
use std::path::Path;
use support::clusters::{Clusters, Place, befriend, configured, eventually, hears, peers, sees, show};
use support::served::{fanal, user_on};
use support::until;

/// What the command says, and whether it went well.
fn says(args: &[&str], node: &Place) -> (bool, String) {
    let output = fanal(args).args(["--admin", &node.address.to_string()]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn on_disk(mut config: Config, data: &Path) -> Config {
    config.store.kind = StoreKind::Redb;
    config.node.data = data.to_owned();
    config
}

/// Row Z3.
#[test]
fn z3_the_directory_is_asked_once_for_a_user_and_a_stale_entry_is_corrected_on_the_first_wrong_delivery() {
    let clusters = Clusters::start(&[(1, &[1]), (2, &[1]), (3, &[1])]);
    let [first, second, third] = [0, 1, 2].map(|at| &clusters.0[at][0]);
    let ann = "ann@localhost";
    let (mut one, mut bob) = (second.user(ann), third.user("bob@localhost"));
    for body in ["one", "two", "three"] {
        bob.send_message(ann, "1", body.as_bytes()).unwrap();
        hears(&mut one, body);
    }
    let counts = || ["directory_asked_total", "directory_corrected_total"].map(|name| third.metric(name));
    assert_eq!(counts(), [1, 0]);
    second.admin.remove_user(ann).unwrap();
    let cluster = |of: &Place| of.admin.locate(ann).unwrap().cluster;
    eventually(|| cluster(first).is_none(), || format!("{ann} is of {:?}", cluster(first)));
    let mut one = first.user(ann);
    bob.send_message(ann, "2", b"welcome back").unwrap();
    hears(&mut one, "welcome back");
    assert_eq!(counts(), [2, 1]);
}

/// Row Z7.
#[test]
fn z7_an_update_of_another_cluster_goes_once_to_each_node_however_many_subscribe_there() {
    let clusters = Clusters::start(&[(1, &[1]), (2, &[2, 1])]);
    let (far, nodes) = (&clusters.0[0][0], &clusters.0[1]);
    let publisher = "pub@localhost";
    let mut speaker = far.user(publisher);
    let mut subscribers: Vec<Client> = (0..8)
        .map(|nth| {
            let name = user_on(nodes[0].address, nodes[nth % 2].address, &format!("sub{nth}x"));
            let mut subscriber = nodes[nth % 2].user(&name);
            befriend((&name, &mut subscriber), (publisher, &mut speaker));
            sees(&mut subscriber, Show::Available);
            subscriber
        })
        .collect();
    let taken = || [0, 1].map(|node| nodes[node].metric("relay_updates_total"));
    let before = taken();
    for kind in [Show::Away, Show::Chat] {
        show(&mut speaker, kind);
        subscribers.iter_mut().for_each(|subscriber| sees(subscriber, kind));
    }
    assert_eq!(taken(), before.map(|before| before + 2));
}

/// The names of a page.
fn page(node: &Place, after: Option<&str>, limit: usize) -> (Vec<String>, Option<String>, Vec<u16>) {
    let page = node.admin.users(after, limit, None).unwrap();
    (page.users.into_iter().map(|user| user.jid).collect(), page.next, page.missing)
}

/// Row Z4.
#[test]
fn z4_any_node_lists_the_users_of_the_whole_cluster_and_says_who_can_not_be_reached() {
    let nodes = peers(2);
    let start = |node| Place::start(&configured(1, &nodes, node, 2, (1, &nodes)));
    let [first, second] = [start(0), start(1)];
    let mut names: Vec<String> =
        (0..4).flat_map(|nth| [&first, &second].map(|home| user_on(first.address, home.address, &format!("u{nth}x")))).collect();
    let all = page(&first, None, 1_000).0;
    names.iter().for_each(|name| assert!(all.contains(name), "{name} is missing"));
    assert!(all.is_sorted(), "{all:?}");
    for node in [&first, &second] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let (names, next, missing) = page(node, after.as_deref(), 3);
            assert!(names.len() <= 3 && missing.is_empty(), "{missing:?}");
            listed.extend(names);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, all);
    }
    let (is_whole, text) = says(&["user", "list"], &second);
    assert!(is_whole && text.lines().count() == all.len() && text.contains("\tnode 1\t") && text.contains("\tnode 2\t"), "{text}");
    let of_two = second.admin.users(None, 1_000, Some(2)).unwrap().users;
    assert!(!of_two.is_empty() && of_two.iter().all(|user| user.node == 2));
    assert!(first.admin.users(None, 10, Some(7)).unwrap_err().to_string().contains("no node 7"));
    second.node.stop();
    eventually(|| page(&first, None, 10).2 == [2], || format!("{:?}", page(&first, None, 10)));
    names.retain(|name| of_two.iter().all(|user| user.jid != *name));
    let (is_whole, text) = says(&["user", "list"], &first);
    assert!(!is_whole && text.contains("node 2 of the cluster can't be reached"), "{text}");
    names.iter().for_each(|name| assert!(text.contains(name.as_str()), "{name}: {text}"));
}

/// Row Z1.
#[test]
fn z1_the_directory_remembers_the_clusters_and_their_users_until_one_is_to_be_forgotten() {
    let data = tempfile::tempdir().unwrap();
    let directory = peers(1);
    let keeper = || Place::start(&on_disk(configured(1, &directory, 0, 2, (1, &directory)), data.path()));
    let cluster = |nodes: &[Peer]| Place::start(&configured(2, nodes, 0, 1, (1, &directory)));
    let (first, second) = (keeper(), cluster(&peers(1)));
    [&first, &second].into_iter().for_each(|place| place.finds(1));
    drop(second.user("ann@localhost"));
    let (_, table) = says(&["directory", "clusters"], &second);
    assert!(table.contains("cluster 1 keeps the directory") && table.contains("its nodes can say"), "{table}");
    let (is_done, why) = says(&["directory", "forget", "2"], &second);
    assert!(!is_done && why.contains(&format!("ask one of its nodes ({})", directory[0].address)), "{why}");
    let (is_done, why) = says(&["directory", "forget", "2"], &first);
    assert!(!is_done && why.contains("logged in now"), "{why}");
    second.node.stop();
    first.node.stop();
    let first = keeper();
    let list = first.admin.clusters().unwrap().clusters;
    let known: Vec<_> = list.iter().map(|cluster| (cluster.number, cluster.users, cluster.nodes[0].found)).collect();
    assert_eq!(known, [(1, Some(0), true), (2, Some(1), false)]);
    assert_eq!(first.admin.locate("ann@localhost").unwrap().cluster, Some(2));
    // Another cluster does not get its number.
    let other = cluster(&peers(1));
    let why = || other.admin.cluster().unwrap().nodes.iter().filter_map(|node| node.why.clone()).collect::<String>();
    eventually(|| why().contains("another cluster has this cluster's number"), why);
    for (number, words) in [("2", "cluster 2 has 1 users"), ("1", "can't forget itself"), ("9", "no cluster 9 is known")] {
        let (is_done, why) = says(&["directory", "forget", number], &first);
        assert!(!is_done && why.contains(words), "{why}");
    }
    assert_eq!(says(&["directory", "forget", "2", "--force"], &first), (true, "cluster 2 is forgotten, with 1 names\n".into()));
    [&first, &other].into_iter().for_each(|place| place.finds(1));
    assert_eq!(first.admin.locate("ann@localhost").unwrap().cluster, None);
    drop(first.user("ann@localhost"));
    assert_eq!(other.admin.locate("ann@localhost").unwrap().cluster, Some(1), "the name is free");
    let (is_done, json) = says(&["directory", "clusters", "--json"], &first);
    assert!(is_done && json.contains("\"number\":2") && json.contains("\"users\":0"), "{json}");
}

/// Row Z1.
#[test]
fn z1_a_cluster_is_forgotten_at_every_node_of_the_directory_and_in_the_other_clusters() {
    let mut clusters = Clusters::start(&[(1, &[1, 2]), (2, &[1]), (3, &[2])]);
    let gone = clusters.0.remove(1).remove(0);
    // Names of it at both nodes of the directory.
    let mut names = [0, 1].map(|node| {
        let (first, home) = (&clusters.0[0][0], &clusters.0[0][node]);
        user_on(first.address, home.address, &format!("at{node}x"))
    });
    for name in &mut names {
        clusters.0[0][0].admin.remove_user(name).unwrap();
        eventually(|| gone.admin.add_user(name, None).is_ok(), || format!("{name} is not free"));
    }
    gone.node.stop();
    let keeper = &clusters.0[0][0];
    let found = || keeper.admin.clusters().unwrap().clusters[1].nodes[0].found;
    eventually(|| !found(), || "it is still there".into());
    assert_eq!(says(&["directory", "forget", "2", "--force"], keeper), (true, "cluster 2 is forgotten, with 2 names\n".into()));
    for node in clusters.0.iter().flatten() {
        let known = || node.admin.clusters().unwrap().clusters.iter().map(|cluster| cluster.number).collect::<Vec<_>>();
        eventually(|| known() == [1, 3], || format!("{:?}", known()));
        assert_eq!(names.each_ref().map(|name| node.admin.locate(name).unwrap().cluster), [None, None]);
    }
}

/// What a contact is to a user: the state, and whether a request of the user's waits.
fn contact(client: &mut Client, jid: &str) -> (SubscriptionState, bool) {
    let roster = client.roster().unwrap();
    let contact = roster.iter().find(|contact| contact.jid == jid).unwrap();
    (contact.subscription, contact.ask)
}

/// Rows Z8, Z1: the same becomes of subscriptions with users of a forgotten cluster as with accounts that are removed, also where
/// nobody heard of it at the time; and a cluster that comes under that number later has nothing to do with it.
#[test]
fn z8_subscriptions_with_users_of_a_forgotten_cluster_end_everywhere() {
    let (data, carl) = (tempfile::tempdir().unwrap(), "carl@localhost");
    let [directory, other, away] = [1; 3].map(peers);
    let start = |number, nodes: &[Peer]| Place::start(&configured(number, nodes, 0, 2, (1, &directory)));
    let third = || Place::start(&on_disk(configured(3, &away, 0, 2, (1, &directory)), data.path()));
    let (first, second, late) = (start(1, &directory), start(2, &other), third());
    [&first, &second, &late].into_iter().for_each(|place| place.finds(2));
    let (mut ann, mut bob) = (first.user("ann@localhost"), late.user("bob@localhost"));
    let mut gone = second.user(carl);
    befriend((carl, &mut gone), ("ann@localhost", &mut ann));
    befriend(("ann@localhost", &mut ann), (carl, &mut gone));
    befriend(("bob@localhost", &mut bob), (carl, &mut gone));
    sees(&mut ann, Show::Available);
    sees(&mut bob, Show::Available);
    gone.subscribe("bob@localhost", "").unwrap();
    let asked = |client: &mut Client| {
        until(client, |event| matches!(event, Event::Subscription(request) if request.jid == carl).then_some(()));
    };
    asked(&mut bob);
    assert_eq!(contact(&mut ann, carl), (SubscriptionState::Both, false));
    late.node.stop();
    second.node.stop();
    let found = || first.admin.clusters().unwrap().clusters[1].nodes[0].found;
    eventually(|| !found(), || "it is still there".into());
    let (is_done, why) = says(&["directory", "forget", "2"], &first);
    assert!(!is_done && why.contains("cluster 2 has 1 users") && why.contains("loses these subscriptions for good"), "{why}");
    assert!(says(&["directory", "forget", "2", "--force"], &first).0);
    let ended = |client: &mut Client| {
        until(client, |event| match event {
            Event::RosterPush(contact) => (contact.jid == carl && contact.subscription == SubscriptionState::None).then_some(()),
            _ => None,
        });
    };
    ended(&mut ann);
    assert_eq!(contact(&mut ann, carl), (SubscriptionState::None, false));
    let late = third();
    late.finds(1);
    eventually(|| late.metric("farewells_total") > 0, || "nobody has told it".into());
    let mut bob = late.user("bob@localhost");
    assert_eq!(contact(&mut bob, carl), (SubscriptionState::None, false));
    // Another cluster, another Carl.
    let second = start(2, &other);
    second.finds(2);
    let mut carls = second.user(carl);
    befriend(("ann@localhost", &mut ann), (carl, &mut carls));
    sees(&mut ann, Show::Available);
    assert_eq!(contact(&mut ann, carl), (SubscriptionState::To, false));
}

/// Row Z1.
#[test]
fn z1_the_users_of_a_node_that_was_alone_are_known_to_the_clusters_that_it_joins() {
    let data = tempfile::tempdir().unwrap();
    let (directory, nodes) = (peers(1), peers(1));
    let mut alone = on_disk(support::config(2), data.path());
    alone.listen.admin = "127.0.0.1:0".parse().unwrap();
    let node = Place::start(&alone);
    let names: Vec<String> = (0..300).map(|n| format!("u{n}@localhost")).collect();
    names.iter().for_each(|name| node.admin.add_user(name, None).unwrap());
    node.node.stop();
    // Of one who comes while the node is stopped, and of one who goes, the directory hears, too.
    let later = on_disk(configured(2, &nodes, 0, 2, (1, &directory)), data.path());
    let file = data.path().with_extension("toml");
    std::fs::write(&file, toml::to_string(&later).unwrap()).unwrap();
    for args in [["add", "later@localhost", "--no-password"].as_slice(), &["del", "u0@localhost"]] {
        let output = fanal(&["user"]).args(args).arg("--config").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let first = Place::start(&configured(1, &directory, 0, 1, (1, &directory)));
    let second = Place::start(&later);
    [&first, &second].into_iter().for_each(|place| place.finds(1));
    let settled = || first.admin.clusters().unwrap().clusters[1].users;
    eventually(|| settled() == Some(names.len() as u64), || format!("{:?} are settled", settled()));
    eventually(|| second.metric("users_unsettled") == 0, || format!("{} wait", second.metric("users_unsettled")));
    let cluster = |jid: &str| first.admin.locate(jid).unwrap().cluster;
    assert_eq!(["later", "u0", "u1"].map(|name| cluster(&format!("{name}@localhost"))), [Some(2), None, Some(2)]);
    let (bob, ann) = (&names[7], "ann@localhost");
    let (mut one, mut two) = (first.user(ann), second.user(bob));
    befriend((ann, &mut one), (bob, &mut two));
    sees(&mut one, Show::Available);
    show(&mut two, Show::Away);
    sees(&mut one, Show::Away);
}
