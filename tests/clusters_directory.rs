//! The directory in memory: users from before there was one, new accounts that wait for it, names that two clusters want.

mod nodes_world;

use fanal::base::id::{UserId, slot_of};
use fanal::base::time::{Time, WallClock};
use fanal::store::memory::Memory;
use fanal::store::rows::{self, Account, Row};
use fanal::store::{Backend, Commit, Durability, Table, Write};
use fanal::wire::encode::Tag;
use fanal::wire::native::{Action, Show};
use nodes_world::{Client, Heard, World, jid};
use std::time::Duration;

/// What is told of at a time is fewer.
const MANY: usize = 600;

fn names(world: &World) -> usize {
    world.nodes.iter().flat_map(|node| &node.shards).map(|shard| shard.homes.directory.count()).sum()
}

fn unsettled(world: &World, node: usize) -> usize {
    world.nodes[node].shards.iter().map(|shard| shard.homes.unsettled_count()).sum()
}

/// An account as a node made it that belonged to no cluster.
fn from_before(store: &mut Memory, name: &str) {
    let bare = jid(name);
    let account = Account { user: UserId::new(0, slot_of(bare.as_str()), 1), scram: None, created: WallClock(5) };
    let writes = vec![Write { table: Table::Accounts, key: rows::user_key(&bare), value: Some(account.encode()) }];
    store.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }]).unwrap();
}

fn sessions(world: &World, client: Client) -> usize {
    world.nodes[client.node].shards.iter().map(|shard| shard.homes.session_count()).sum()
}

/// Row Z1: a node that was alone, and a cluster that keeps the directory itself, tell it of all users that they have already.
#[test]
fn z1_users_from_before_there_was_a_directory_are_settled_once() {
    for node in [0, 1] {
        let mut world = World::clusters(2, 1, 2);
        let number = world.nodes[node].cluster;
        let old: Vec<String> = (0..MANY).map(|n| format!("old{n}.{number}")).collect();
        old.iter().for_each(|name| from_before(&mut world.nodes[node].store, name));
        // The mark of a start without users.
        assert_eq!(world.rows(node, Table::Meta, b"settled:"), 2);
        let mut store = std::mem::take(&mut world.nodes[node].store);
        let marks = store.rows(Table::Meta).map(|(key, _)| key.to_vec()).filter(|key| key.starts_with(b"settled:"));
        let writes = marks.map(|key| Write { table: Table::Meta, key, value: None }).collect();
        store.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }]).unwrap();
        world.nodes[node].store = store;
        world.kill(node);
        world.revive(node, 2);
        assert_eq!((names(&world), unsettled(&world, node)), (MANY, 0));
        assert_eq!(world.rows(node, Table::Meta, b"settled:"), 2);
        // They are users of their cluster in every way.
        let (ann, bob) = (&old[7], world.name_on(1 - node, 0));
        let (a, b) = (world.online(node, ann), world.online(1 - node, &bob));
        world.subscribes((&bob, b), (ann, a));
        world.seen(b);
        world.shows(a, Show::Away);
        assert_eq!(world.seen(b), [Show::Away]);
        let told = world.entries.len();
        world.kill(node);
        world.revive(node, 3);
        assert_eq!((names(&world), unsettled(&world, node)), (MANY + 1, 0));
        assert!(world.entries.len() < told + 20, "it is not told of all of them again");
    }
}

/// Row Z1: who is told that an account is there may count on others finding it, unless the directory takes too long.
#[test]
fn z1_a_new_account_waits_for_the_directory_but_not_for_ever() {
    for is_healed in [true, false] {
        let mut world = World::clusters(2, 1, 1);
        let ann = world.name_on(1, 0);
        world.cut_clusters(1, 2);
        let client = world.online(1, &ann);
        assert_eq!((sessions(&world, client), unsettled(&world, 1), names(&world)), (0, 1, 0));
        match is_healed {
            true => world.heal_clusters(1, 2),
            false => {
                world.now = Time(world.now.0 + 3_000_000_000);
                world.settle();
            }
        }
        assert_eq!((sessions(&world, client), names(&world)), (1, usize::from(is_healed)));
        let late = world.nodes[1].shards[0].homes.settle_counts().0;
        assert_eq!((late, unsettled(&world, 1)), (u64::from(!is_healed), usize::from(!is_healed)));
    }
}

/// Row Z1: one name, one cluster.
#[test]
fn z1_a_new_account_whose_name_is_another_clusters_is_refused_and_leaves_nothing_behind() {
    let mut world = World::clusters(3, 1, 1);
    let first = world.online(1, "ann");
    assert_eq!(sessions(&world, first), 1);
    let second = world.online(2, "ann");
    let heard = world.heard(second);
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Error(_))), "{heard:?}");
    let shard = &world.nodes[2].shards[0];
    assert_eq!((shard.homes.user_count(), shard.homes.session_count(), shard.homes.settle_counts().1), (0, 0, 1));
    assert_eq!((world.rows(2, Table::Accounts, b""), world.rows(2, Table::Meta, b"unsettled:")), (0, 0));
    assert_eq!((sessions(&world, first), names(&world)), (1, 1));
}

/// Row Z8: an account that the directory has not heard of is not yet the one that other clusters mean by its name, though they have
/// found another one of that name there before: what they say to it, they would take back to nobody (seed 403828 of the simulator).
#[test]
fn z8_what_is_for_a_name_is_not_said_to_an_account_that_the_directory_does_not_know() {
    let mut world = World::clusters(3, 1, 1);
    let (ann, bob) = (world.name_on(1, 0), world.name_on(2, 0));
    let (a, b) = (world.online(1, &ann), world.online(2, &bob));
    world.writes(b, &ann, "one");
    world.say(a, |encoder, out| encoder.account_remove(out, Tag::request(7)));
    world.cut_clusters(1, 2);
    let a = world.online(1, &ann);
    world.later(Duration::from_secs(3));
    assert_eq!((sessions(&world, a), unsettled(&world, 1), names(&world)), (1, 1, 1), "the directory knows bob alone");
    world.heard(a);
    // Bob's cluster goes by what it was told of the name.
    world.subscription(b, Action::Subscribe, &ann);
    assert_eq!(world.heard(a), []);
    assert_eq!((world.rows(1, Table::Requests, b""), world.rows(2, Table::Ways, b"")), (0, 0), "nobody has denied it");
    world.heal_clusters(1, 2);
    assert_eq!(unsettled(&world, 1), 0);
    world.subscribes((&bob, b), (&ann, a));
    world.seen(b);
    world.shows(a, Show::Away);
    assert_eq!(world.seen(b), [Show::Away], "now others find it");
}
