//! Several nodes of one cluster in memory: real shards with their rings, stores of their own, and between the nodes the bytes
//! that a link carries. No socket, no clock. A client connects to any node; its user's home is where the slot's owner is (M2).

use fanal::base::id::{ConnId, CoreId, NodeId, SessionId, UserId, slot_of};
use fanal::base::jid::Bare;
use fanal::base::limits::Limits;
use fanal::base::map::SLOTS;
use fanal::base::secrets::Secrets;
use fanal::base::time::{Time, WallClock};
use fanal::client::codec::Codec;
use fanal::front::doors::{Doors, Speaks};
use fanal::front::sasl::Decoys;
use fanal::front::token::{Keys, Scope};
use fanal::metrics::meter::Units;
use fanal::presence::home::Place;
use fanal::presence::outbox::Parcel;
use fanal::presence::passage;
use fanal::shard::batch::{Batch, Command, Order};
use fanal::shard::{Settings, Shard, Word};
use fanal::store::memory::Memory;
use fanal::store::rows::{self, Row};
use fanal::store::{Backend, Completion, Durability, Table};
use fanal::wire::decode::ServerFrame;
use fanal::wire::encode::{Encoder, LogInFields, PresenceFields, SubscriptionFields, Tag};
use fanal::wire::event::Event;
use fanal::wire::frame::Chunk;
use fanal::wire::native::{Action, Show};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const DOMAIN: &str = "example.org";
const WALL: WallClock = WallClock(1_700_000_000_000);

fn keys() -> Keys {
    Keys::new([[7; 32]]).unwrap()
}

struct Node {
    id: NodeId,
    shards: Vec<Shard>,
    store: Memory,
}

struct World {
    nodes: Vec<Node>,
    owners: Arc<[NodeId]>,
    cores: u16,
    now: Time,
    /// Pairs of nodes that can't reach each other.
    cut: BTreeSet<(u16, u16)>,
    encoder: Encoder,
    /// Frames of updates that crossed between nodes.
    crossed: usize,
}

/// A connection to a core of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Client {
    node: usize,
    core: usize,
    conn: ConnId,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Heard {
    Presence { session: SessionId, show: Show },
    Error(u16),
    Other,
}

fn jid(name: &str) -> Bare {
    Bare::new(&format!("{name}@{DOMAIN}")).unwrap()
}

impl World {
    /// Nodes 1, 2, ... with so many cores each. Slots belong to the nodes in turn.
    fn new(nodes: u16, cores: u16) -> World {
        let owners: Arc<[NodeId]> = (0..SLOTS).map(|slot| NodeId(1 + (slot / 7) as u16 % nodes)).collect();
        let (now, crossed) = (Time(1), 0);
        let mut world = World { nodes: vec![], owners, cores, now, cut: BTreeSet::new(), encoder: Encoder::default(), crossed };
        (1..=nodes).for_each(|node| {
            let node = world.node(NodeId(node), 1, Memory::default());
            world.nodes.push(node);
        });
        world.each_pair(|world, from, to| world.find(from, to));
        world.settle();
        world
    }

    /// A node in one of its lives.
    fn node(&self, id: NodeId, epoch: u32, store: Memory) -> Node {
        let mut shards: Vec<Shard> = (0..self.cores).map(|core| shard(id, CoreId(core), self.cores, epoch, &self.owners)).collect();
        for table in Table::ALL {
            let mut row = |key: &[u8], value: &[u8]| {
                let owner = std::str::from_utf8(key.split(|&byte| byte == 0).next().unwrap()).unwrap_or_default();
                let core = usize::from(slot_of(owner) % self.cores);
                let cores = if table == Table::Meta { 0..shards.len() } else { core..core + 1 };
                shards[cores].iter_mut().for_each(|shard| shard.homes.load(table, key, value).unwrap());
                Ok(())
            };
            store.load(table, &mut row, &mut |_, _| ()).unwrap();
        }
        shards.iter_mut().for_each(|shard| shard.homes.start(&mut shard.out));
        Node { id, shards, store }
    }

    fn each_pair(&mut self, mut visit: impl FnMut(&mut World, usize, usize)) {
        for from in 0..self.nodes.len() {
            (0..self.nodes.len()).filter(|&to| to != from).for_each(|to| visit(self, from, to));
        }
    }

    fn find(&mut self, from: usize, to: usize) {
        let (now, node, cores) = (self.now, self.nodes[to].id, self.cores);
        self.nodes[from].shards.iter_mut().for_each(|shard| shard.peer_found(now, node, cores));
    }

    /// Two nodes can't reach each other; what updates were between them is lost.
    fn cut(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let node = self.nodes[to].id;
            self.cut.insert((from as u16, to as u16));
            self.nodes[from].shards.iter_mut().for_each(|shard| shard.out.peers.get_mut(&node).unwrap().slow = true);
        }
    }

    fn heal(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let node = self.nodes[to].id;
            self.cut.remove(&(from as u16, to as u16));
            for shard in &mut self.nodes[from].shards {
                if let Some(peer) = shard.out.peers.get_mut(&node) {
                    peer.slow = false;
                }
            }
            self.find(from, to);
        }
        self.settle();
    }

    /// A node is gone, and the others have noticed.
    fn kill(&mut self, node: usize) {
        let (now, id) = (self.now, self.nodes[node].id);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.cut.insert((node as u16, other as u16));
            self.cut.insert((other as u16, node as u16));
            self.nodes[other].shards.iter_mut().for_each(|shard| shard.peer_lost(now, id));
        }
        self.settle();
    }

    /// It comes back, with what its store has.
    fn revive(&mut self, node: usize, epoch: u32) {
        let (id, store) = (self.nodes[node].id, std::mem::take(&mut self.nodes[node].store));
        self.nodes[node] = self.node(id, epoch, store);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.cut.remove(&(node as u16, other as u16));
            self.cut.remove(&(other as u16, node as u16));
            self.find(node, other);
            self.find(other, node);
        }
        self.settle();
    }

    /// A name whose user's home is on a node.
    fn name_on(&self, node: usize, nth: usize) -> String {
        let here = |name: &String| self.owners[usize::from(slot_of(jid(name).as_str()))] == self.nodes[node].id;
        (0..).map(|n| format!("u{n}")).filter(here).nth(nth).unwrap()
    }

    /// A user logs in at a node and is available.
    fn online(&mut self, node: usize, name: &str) -> Client {
        let core = usize::from(slot_of(jid(name).as_str()) % self.cores);
        let conn = self.nodes[node].shards[core].accepted(self.now, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
        let client = Client { node, core, conn };
        let token = keys().sign(Scope::User(&jid(name)), WallClock(WALL.0 + 1_000_000)).unwrap();
        let presence = self.encoder.presence(&PresenceFields { resource: "desk", ..Default::default() });
        let jid = jid(name);
        let fields = LogInFields {
            jid: jid.as_str(),
            mechanism: fanal::front::Mechanism::Token.name(),
            data: token.as_bytes(),
            resource: "desk",
            presence: &presence,
            ..Default::default()
        };
        self.say(client, |encoder, out| encoder.hello(out, Tag::request(1), "test"));
        self.say(client, |encoder, out| encoder.log_in(out, Tag::request(2), &fields));
        client
    }

    fn say(&mut self, client: Client, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut self.encoder, &mut bytes);
        self.now = Time(self.now.0 + 1_000_000);
        self.nodes[client.node].shards[client.core].received(self.now, client.conn, &bytes);
        self.settle();
    }

    fn owned_by(&mut self, owners: &Arc<[NodeId]>) {
        (0..self.nodes.len()).for_each(|node| self.tell_owners(node, owners));
    }

    fn tell_owners(&mut self, node: usize, owners: &Arc<[NodeId]>) {
        for shard in &mut self.nodes[node].shards {
            shard.command(self.now, Command { ticket: 0, order: Order::Owners(owners.clone()) });
        }
        self.settle();
    }

    /// Slots that the cores of a node want owners for.
    fn wanted(&mut self, node: usize) -> BTreeSet<u16> {
        let words = self.nodes[node].shards.iter_mut().flat_map(|shard| std::mem::take(&mut shard.words));
        let slots = words.map(|word| match word {
            Word::Wanted(slots) => slots,
            Word::Heard { .. } | Word::Met(_) => panic!("nobody says anything of owners here"),
        });
        slots.flatten().collect()
    }

    /// A user begins to log in at a node by password.
    fn knocks(&mut self, node: usize, name: &str) -> Client {
        let core = usize::from(slot_of(jid(name).as_str()) % self.cores);
        let conn = self.nodes[node].shards[core].accepted(self.now, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
        let (client, jid, data) = (Client { node, core, conn }, jid(name), format!("n,,n={name},r=abc"));
        let mechanism = "SCRAM-SHA-256";
        let fields = LogInFields { jid: jid.as_str(), mechanism, data: data.as_bytes(), ..Default::default() };
        self.say(client, |encoder, out| encoder.hello(out, Tag::request(1), "test"));
        self.say(client, |encoder, out| encoder.log_in(out, Tag::request(2), &fields));
        client
    }

    fn subscription(&mut self, client: Client, action: Action, contact: &str) {
        let jid = jid(contact);
        let fields = SubscriptionFields { action, jid: jid.as_str(), ..Default::default() };
        self.say(client, |encoder, out| encoder.subscription(out, Tag::request(3), &fields));
    }

    /// `watcher` sees `publisher` from now on.
    fn subscribes(&mut self, watcher: (&str, Client), publisher: (&str, Client)) {
        self.subscription(watcher.1, Action::Subscribe, publisher.0);
        self.subscription(publisher.1, Action::Subscribed, watcher.0);
    }

    fn shows(&mut self, client: Client, show: Show) {
        let fields = PresenceFields { resource: "desk", show, ..Default::default() };
        self.say(client, |encoder, out| encoder.set_presence(out, Tag::request(0), &fields));
    }

    /// What a client has heard since it was last asked.
    fn heard(&mut self, client: Client) -> Vec<Heard> {
        let shard = &mut self.nodes[client.node].shards[client.core];
        let Some(bytes) = shard.take(self.now, client.conn.slot) else { return Vec::new() };
        let (mut heard, mut codec, mut chunk) = (Vec::new(), Codec::default(), Chunk::new(&bytes));
        let presence = |event: Event<'_>| Heard::Presence { session: event.head.session, show: event.head.show };
        while let Some(received) = codec.next(&mut chunk).unwrap() {
            match received.frame {
                ServerFrame::Event(event) => heard.push(presence(event)),
                ServerFrame::EventBatch(batch) => heard.extend(batch.iter().map(|event| presence(event.unwrap()))),
                ServerFrame::Error(error) => heard.push(Heard::Error(error.reason())),
                _ => heard.push(Heard::Other),
            }
        }
        shard.out.lines.sent(client.conn.slot, bytes);
        heard
    }

    /// The presence it has heard of.
    fn seen(&mut self, client: Client) -> Vec<Show> {
        let shows = self.heard(client).into_iter().filter_map(|heard| match heard {
            Heard::Presence { show, .. } => Some(show),
            _ => None,
        });
        shows.collect()
    }

    /// Everything that follows happens.
    fn settle(&mut self) {
        while (0..self.nodes.len()).fold(false, |busy, node| self.store(node) | self.rings(node) | self.links(node) | busy) {}
        for node in &self.nodes {
            node.shards.iter().for_each(Shard::check);
        }
    }

    fn store(&mut self, node: usize) -> bool {
        let (now, Node { shards, store, .. }) = (self.now, &mut self.nodes[node]);
        let mut busy = false;
        for shard in shards {
            shard.turn(now);
            for commit in std::mem::take(&mut shard.out.commits) {
                store.apply(std::slice::from_ref(&commit)).unwrap();
                if commit.durability == Durability::Synced {
                    let completion = Completion { core: shard.settings.core, ticket: commit.ticket, result: Ok(()) };
                    shard.completed(now, completion);
                }
                busy = true;
            }
        }
        busy
    }

    fn rings(&mut self, node: usize) -> bool {
        let (now, shards) = (self.now, &mut self.nodes[node].shards);
        let mut busy = false;
        for from in 0..shards.len() {
            for to in (0..shards.len()).filter(|&to| to != from) {
                let mut batch = Batch::default();
                if shards[from].has_for(CoreId(to as u16)) {
                    shards[from].fill(now, CoreId(to as u16), &mut batch);
                    shards[to].batch(now, &mut batch);
                    busy = true;
                }
            }
        }
        busy
    }

    /// What cores say to other nodes arrives at the cores with the same numbers there.
    fn links(&mut self, from: usize) -> bool {
        let (now, mut busy) = (self.now, false);
        let nodes = self.nodes.len();
        for (core, to) in (0..usize::from(self.cores)).flat_map(|core| (0..nodes).map(move |to| (core, to))) {
            let node = self.nodes[to].id;
            if self.cut.contains(&(from as u16, to as u16)) {
                continue;
            }
            let Some(peer) = self.nodes[from].shards[core].peer(now, node) else { continue };
            let ((parcels, updates), mut rest) = (peer.take(), 0);
            let there = &mut self.nodes[to].shards[core];
            for parcel in parcels {
                match parcel {
                    Parcel::Control(core, control) => there.from_node(now, core, &passage::encode(&control, Vec::new())).unwrap(),
                    Parcel::Updates(bytes) => {
                        self.crossed += fanal::presence::frame::frames(&updates[rest..rest + bytes]).count();
                        there.updates_from_node(now, updates[rest..rest + bytes].to_vec()).unwrap();
                        rest += bytes;
                    }
                }
            }
            busy = true;
        }
        busy
    }
}

fn shard(node: NodeId, core: CoreId, cores: u16, epoch: u32, owners: &Arc<[NodeId]>) -> Shard {
    let limits = Arc::new(Limits::default());
    let settings = Settings {
        links: None,
        node,
        core,
        cores,
        domain: DOMAIN.into(),
        limits: limits.clone(),
        token_keys: keys(),
        trunk_keys: Keys::default(),
        doors: Doors { listeners: vec![Speaks::Native], ..Doors::default() },
        plain: true,
        open_registration: false,
        hook: false,
        decoys: Decoys::new([7; 32]),
        sample: 0,
        units: Units::default(),
        clock: || Time(0),
    };
    let place = Place { cluster: 1, epoch, domain: DOMAIN.into(), limits, wall_at_zero: WALL };
    let mut shard = Shard::new(settings, place, Secrets::from_number(u64::from(node.0) << 16 | u64::from(core.0)));
    shard.out.map.set_owners(owners.clone());
    shard
}

/// Ann and Bob, whose homes are on nodes 1 and 2, see each other.
fn friends(world: &mut World, at: (usize, usize)) -> ((String, Client), (String, Client)) {
    let (ann, bob) = (world.name_on(0, 0), world.name_on(1, 0));
    let (a, b) = (world.online(at.0, &ann), world.online(at.1, &bob));
    world.subscribes((&ann, a), (&bob, b));
    world.subscribes((&bob, b), (&ann, a));
    world.seen(a);
    world.seen(b);
    ((ann, a), (bob, b))
}

#[test]
fn m2_users_see_each_other_whichever_nodes_they_live_on_and_connect_to() {
    for cores in [1, 2, 3] {
        for at in [(0, 1), (1, 0), (0, 0), (1, 1), (2, 2)] {
            let mut world = World::new(3, cores);
            let ((_, ann), (_, bob)) = friends(&mut world, at);
            world.shows(ann, Show::Away);
            assert_eq!(world.seen(bob), [Show::Away], "{cores} cores, {at:?}");
            world.shows(bob, Show::DoNotDisturb);
            assert_eq!(world.seen(ann), [Show::DoNotDisturb], "{cores} cores, {at:?}");
            world.say(ann, |encoder, out| encoder.log_out(out, Tag::request(9), "bye"));
            assert_eq!(world.seen(bob), [Show::Unavailable], "{cores} cores, {at:?}");
        }
    }
}

#[test]
fn m4_an_update_crosses_to_a_node_once_however_many_subscribers_it_has_there() {
    let mut world = World::new(2, 2);
    let ann = world.name_on(0, 0);
    let publisher = world.online(0, &ann);
    let mut subscribers = Vec::new();
    for nth in 0..20 {
        let name = world.name_on(1, nth);
        let client = world.online(1, &name);
        world.subscribes((&name, client), (&ann, publisher));
        world.seen(client);
        subscribers.push(client);
    }
    let before = world.crossed;
    world.shows(publisher, Show::Away);
    assert_eq!(world.crossed - before, 1);
    assert!(subscribers.into_iter().all(|client| world.seen(client) == [Show::Away]));
    let relays: usize = world.nodes[1].shards.iter().map(|shard| shard.homes.relays.count()).sum();
    assert_eq!(relays, 1);
    let (answered, asked) = world.nodes[1].shards.iter().fold((0, 0), |(answered, asked), shard| {
        let counters = shard.homes.relays.counters;
        (answered + counters.answered, asked + counters.asked)
    });
    assert_eq!((answered, asked), (1, 1), "the second core is answered by the relay, everybody else by an edge");
}

#[test]
fn who_is_revoked_hears_nothing_more_on_another_node() {
    let mut world = World::new(2, 2);
    let ((ann, a), (bob, b)) = friends(&mut world, (0, 1));
    let other = world.name_on(1, 1);
    let c = world.online(1, &other);
    world.subscribes((&other, c), (&ann, a));
    world.seen(c);
    world.subscription(a, Action::Unsubscribed, &bob);
    assert_eq!(world.seen(b), [Show::Unavailable]);
    world.shows(a, Show::Away);
    assert_eq!((world.seen(b), world.seen(c)), (vec![], vec![Show::Away]));
}

#[test]
fn what_happened_while_two_nodes_were_apart_is_made_good_once_they_meet_again() {
    let mut world = World::new(2, 2);
    let ((ann, a), (_, b)) = friends(&mut world, (0, 1));
    world.cut(0, 1);
    world.shows(a, Show::Away);
    world.shows(a, Show::DoNotDisturb);
    world.subscription(b, Action::Unsubscribe, &ann);
    assert_eq!((world.seen(b), world.seen(a)), (vec![Show::Unavailable], vec![]));
    world.heal(0, 1);
    assert_eq!(world.seen(b), [], "Bob has unsubscribed");
    world.shows(b, Show::Chat);
    assert_eq!(world.seen(a), [Show::Chat], "Ann still sees Bob");
    world.cut(0, 1);
    world.shows(b, Show::Away);
    world.shows(b, Show::ExtendedAway);
    world.heal(0, 1);
    assert_eq!(world.seen(a), [Show::ExtendedAway], "the newest, once");
}

#[test]
fn z13_the_users_of_a_lost_node_are_shown_as_gone_once_and_come_back_with_it() {
    let mut world = World::new(2, 2);
    let ((ann, _), (bob, _)) = friends(&mut world, (0, 1));
    world.kill(0);
    let watcher = world.online(1, &bob);
    world.seen(watcher);
    world.revive(0, 2);
    let a = world.online(0, &ann);
    assert_eq!(world.seen(watcher), [Show::Available]);
    world.shows(a, Show::Away);
    assert_eq!(world.seen(watcher), [Show::Away]);
    world.kill(0);
    assert_eq!(world.seen(watcher), [Show::Unavailable], "exactly once");
}

#[test]
fn a_client_of_a_node_whose_home_is_gone_is_told_and_can_try_again() {
    let mut world = World::new(2, 1);
    let ann = world.name_on(0, 0);
    let client = world.online(1, &ann);
    world.heard(client);
    world.kill(0);
    assert!(world.heard(client).contains(&Heard::Error(36)));
    let again = world.online(1, &ann);
    assert!(world.heard(again).contains(&Heard::Error(36)));
    world.revive(0, 2);
    let again = world.online(1, &ann);
    assert!(!world.heard(again).iter().any(|heard| matches!(heard, Heard::Error(_))));
}

/// M2.
#[test]
fn m2_who_waits_for_the_keys_of_a_home_that_is_lost_meanwhile_is_told_and_can_try_again() {
    for cores in [1, 2] {
        let mut world = World::new(2, cores);
        let ann = world.name_on(0, 0);
        world.cut(0, 1);
        let client = world.knocks(1, &ann);
        assert_eq!(world.heard(client), [Heard::Other], "the hello alone");
        world.kill(0);
        assert_eq!(world.heard(client), [Heard::Error(36)]);
        world.revive(0, 2);
        let again = world.knocks(1, &ann);
        assert_eq!(world.heard(again), [Heard::Other, Heard::Other], "a challenge");
    }
}

/// Z4: what is for a user of a slot without an owner waits for one, in its order, and not for ever; nobody comes into being meanwhile.
#[test]
fn z4_what_is_for_a_slot_without_an_owner_waits_until_it_has_one() {
    for cores in [1, 2] {
        let mut world = World::new(2, cores);
        let (ann, bob) = (world.name_on(0, 0), world.name_on(1, 0));
        let slot = slot_of(jid(&ann).as_str());
        let b = world.online(1, &bob);
        let owners = world.owners.clone();
        let without = |slot: u16| -> Arc<[NodeId]> {
            let owner = |(at, &node): (usize, &NodeId)| if at == usize::from(slot) { NodeId(0) } else { node };
            owners.iter().enumerate().map(owner).collect()
        };
        world.owned_by(&without(slot));
        let (a, early) = (world.online(1, &ann), world.heard(b).len());
        world.subscription(b, Action::Subscribe, &ann);
        world.subscription(b, Action::Subscribed, &ann);
        assert_eq!((world.heard(a), early), (vec![Heard::Other], 2), "the hello alone");
        assert_eq!(world.wanted(1), BTreeSet::from([slot]), "it is asked for once");
        assert_eq!(world.nodes.iter().flat_map(|node| &node.shards).map(|shard| shard.homes.user_count()).sum::<usize>(), 1);
        // Node 2 hears of the owner before that does.
        world.tell_owners(1, &owners);
        assert!(world.heard(a).is_empty());
        world.tell_owners(0, &owners);
        assert!(world.heard(a).len() >= 2, "it's in, and has been asked");
        world.subscription(a, Action::Subscribed, &bob);
        world.seen(b);
        world.shows(a, Show::Away);
        assert_eq!(world.seen(b), [Show::Away]);
        let cara = world.name_on(0, 1);
        world.owned_by(&without(slot_of(jid(&cara).as_str())));
        let late = world.knocks(1, &cara);
        world.now = world.now + Duration::from_millis(Limits::default().log_in_ms.into());
        world.settle();
        assert_eq!(world.heard(late), [Heard::Other, Heard::Error(36)]);
    }
}

#[test]
fn z8_a_way_is_carried_out_once_though_it_comes_twice() {
    let mut world = World::new(2, 1);
    let (ann, bob) = (world.name_on(0, 0), world.name_on(1, 0));
    let (a, b) = (world.online(0, &ann), world.online(1, &bob));
    world.cut(0, 1);
    world.subscription(a, Action::Subscribe, &bob);
    // The nodes meet twice before anything is confirmed.
    world.find(0, 1);
    world.find(0, 1);
    world.heal(0, 1);
    let asked = |world: &mut World, client| world.heard(client).iter().filter(|heard| **heard == Heard::Other).count();
    assert_eq!(asked(&mut world, b), 3, "hello, log-in, and one request");
    world.subscription(b, Action::Subscribed, &ann);
    assert_eq!(world.seen(a), [Show::Available]);
    for node in &world.nodes {
        let mut ways = 0;
        node.store
            .load(
                Table::Ways,
                &mut |_, _| {
                    ways += 1;
                    Ok(())
                },
                &mut |_, _| (),
            )
            .unwrap();
        assert_eq!(ways, 0, "both ends have forgotten them");
    }
}

#[test]
fn accounts_have_numbers_of_their_cluster() {
    let mut world = World::new(2, 1);
    let name = world.name_on(1, 0);
    world.online(0, &name);
    let mut users = BTreeMap::new();
    let mut row = |key: &[u8], value: &[u8]| {
        users.insert(key.to_vec(), rows::Account::decode(value).unwrap().user);
        Ok(())
    };
    world.nodes[1].store.load(Table::Accounts, &mut row, &mut |_, _| ()).unwrap();
    let slot = slot_of(jid(&name).as_str());
    assert_eq!(users.into_values().collect::<Vec<_>>(), [UserId::new(1, slot, 1)]);
}
