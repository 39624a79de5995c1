//! Several nodes in memory, of one cluster or of several: real shards with their rings, stores of their own, and between the nodes
//! the bytes that a link carries. No socket, no clock. A client connects to any node of its user's cluster; the home is where the
//! slot's owner is.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use fanal::base::id::{ConnId, CoreId, NodeId, SessionId, slot_of};
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
use fanal::presence::border;
use fanal::presence::home::Place;
use fanal::presence::outbox::Parcel;
use fanal::presence::passage;
use fanal::shard::batch::Batch;
use fanal::shard::{Settings, Shard};
use fanal::store::memory::Memory;
use fanal::store::{Backend, Completion, Durability, Table};
use fanal::wire::decode::ServerFrame;
use fanal::wire::encode::{Encoder, LogInFields, MessageFields, PresenceFields, SubscriptionFields, Tag};
use fanal::wire::event::Event;
use fanal::wire::frame::Chunk;
use fanal::wire::native::{Action, MessageKind, Show};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a presence above which it goes by reference.
pub const INLINE_MAX: usize = 4096;
pub const DOMAIN: &str = "example.org";
pub const WALL: WallClock = WallClock(1_700_000_000_000);

fn keys() -> Keys {
    Keys::new([[7; 32]]).unwrap()
}

pub struct Node {
    pub cluster: u16,
    pub id: NodeId,
    pub shards: Vec<Shard>,
    pub store: Memory,
}

pub struct World {
    pub nodes: Vec<Node>,
    /// Alike in every cluster.
    pub owners: Arc<[NodeId]>,
    pub cores: u16,
    pub now: Time,
    /// Of each cluster.
    per_cluster: u16,
    /// The cluster that keeps the directory; 0: there is one cluster, and none.
    directory: u16,
    /// Pairs of nodes that can't reach each other.
    cut: BTreeSet<(u16, u16)>,
    /// A node whose store does not answer.
    pub stalled: Option<usize>,
    pub encoder: Encoder,
    /// Frames of updates that crossed between nodes of a cluster, and between clusters.
    pub crossed: usize,
    pub abroad: usize,
    /// Bytes of all that crossed between any two nodes.
    pub bytes: usize,
    /// Entries between clusters, and their bytes.
    pub entries: Vec<(u16, u16, Vec<u8>)>,
    /// Most entries that a core has had for another cluster at once.
    pub most_at_once: usize,
}

/// A connection to a core of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    pub node: usize,
    pub core: usize,
    pub conn: ConnId,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// With a payload of so many bytes.
    Presence {
        session: SessionId,
        show: Show,
        payload: usize,
    },
    Error(u16),
    /// From whom, and what.
    Message(String, Vec<u8>),
    Directed(String),
    /// Of whom, and what it says.
    Document(String, Vec<u8>),
    DocumentChanged(String, Vec<u8>),
    LastSeen(String),
    Done,
    Other,
}

pub fn jid(name: &str) -> Bare {
    Bare::new(&format!("{name}@{DOMAIN}")).unwrap()
}

impl World {
    /// One cluster with the nodes 1, 2, ... with so many cores each. Slots belong to the nodes in turn.
    pub fn new(nodes: u16, cores: u16) -> World {
        World::of(1, nodes, cores, 0)
    }

    /// Clusters 1, 2, ... with so many nodes each; the first keeps the directory.
    pub fn clusters(clusters: u16, nodes: u16, cores: u16) -> World {
        World::of(clusters, nodes, cores, 1)
    }

    fn of(clusters: u16, per_cluster: u16, cores: u16, directory: u16) -> World {
        let owners: Arc<[NodeId]> = (0..SLOTS).map(|slot| NodeId(1 + (slot / 7) as u16 % per_cluster)).collect();
        let mut world = World {
            nodes: Vec::new(),
            owners,
            cores,
            now: Time(1),
            per_cluster,
            directory,
            cut: BTreeSet::new(),
            stalled: None,
            encoder: Encoder::default(),
            crossed: 0,
            abroad: 0,
            bytes: 0,
            entries: Vec::new(),
            most_at_once: 0,
        };
        for (cluster, node) in (1..=clusters).flat_map(|cluster| (1..=per_cluster).map(move |node| (cluster, node))) {
            let node = world.node(cluster, NodeId(node), 1, Memory::default());
            world.nodes.push(node);
        }
        world.each_pair(|world, from, to| world.find(from, to));
        world.settle();
        world
    }

    /// A node in one of its lives.
    fn node(&self, cluster: u16, id: NodeId, epoch: u32, store: Memory) -> Node {
        let shard = |core| self.shard(cluster, id, CoreId(core), epoch);
        let mut shards: Vec<Shard> = (0..self.cores).map(shard).collect();
        for table in Table::ALL {
            let mut row = |key: &[u8], value: &[u8]| {
                let owner = std::str::from_utf8(key.split(|&byte| byte == 0).next().unwrap()).unwrap_or_default();
                let core = usize::from(slot_of(owner) % self.cores);
                let cores = if table == Table::Meta { 0..shards.len() } else { core..core + 1 };
                shards[cores].iter_mut().for_each(|shard| shard.load(table, key, value).unwrap());
                Ok(())
            };
            store.load(table, &mut row, &mut |_, _| ()).unwrap();
        }
        shards.iter_mut().for_each(|shard| shard.homes.start(&mut shard.out));
        Node { cluster, id, shards, store }
    }

    pub fn each_pair(&mut self, mut visit: impl FnMut(&mut World, usize, usize)) {
        for from in 0..self.nodes.len() {
            (0..self.nodes.len()).filter(|&to| to != from).for_each(|to| visit(self, from, to));
        }
    }

    pub fn find(&mut self, from: usize, to: usize) {
        let (now, node) = (self.now, self.seen_as(from, to));
        let cores = if node.cluster().is_none() { self.cores } else { 1 };
        self.nodes[from].shards.iter_mut().for_each(|shard| shard.peer_found(now, node, cores));
    }

    /// What a node calls another one.
    fn seen_as(&self, from: usize, to: usize) -> NodeId {
        let Node { cluster, id, .. } = self.nodes[to];
        if cluster == self.nodes[from].cluster { id } else { NodeId::of_cluster(cluster) }
    }

    /// The node of a cluster that a node uses for all of that: each another one, and not the one that owns the same slots.
    fn uses(&self, from: usize, to: usize) -> bool {
        let (here, there) = (&self.nodes[from], &self.nodes[to]);
        here.cluster == there.cluster || there.id.0 % self.per_cluster == (here.id.0 + 1) % self.per_cluster
    }

    /// Two clusters can't reach each other, and have not noticed for good.
    pub fn cut_clusters(&mut self, one: u16, other: u16) {
        self.each_pair(|world, from, to| {
            if (world.nodes[from].cluster, world.nodes[to].cluster) == (one, other) {
                world.cut(from, to);
            }
        });
    }

    pub fn heal_clusters(&mut self, one: u16, other: u16) {
        self.each_pair(|world, from, to| {
            if (world.nodes[from].cluster, world.nodes[to].cluster) == (one, other) {
                world.heal(from, to);
            }
        });
    }

    /// A cluster has given another one up.
    pub fn lose_cluster(&mut self, at: u16, lost: u16) {
        let (now, lost) = (self.now, NodeId::of_cluster(lost));
        for node in self.nodes.iter_mut().filter(|node| node.cluster == at) {
            node.shards.iter_mut().for_each(|shard| shard.peer_lost(now, lost));
        }
        self.settle();
    }

    /// Two nodes can't reach each other; what updates were between them is lost.
    pub fn cut(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let node = self.seen_as(from, to);
            self.cut.insert((from as u16, to as u16));
            let peers = self.nodes[from].shards.iter_mut().filter_map(|shard| shard.out.peers.get_mut(&node));
            peers.for_each(|peer| peer.slow = true);
        }
    }

    /// They have given each other up.
    pub fn lose(&mut self, one: usize, other: usize) {
        for (at, lost) in [(one, other), (other, one)] {
            let (now, lost) = (self.now, self.seen_as(at, lost));
            self.nodes[at].shards.iter_mut().for_each(|shard| shard.peer_lost(now, lost));
        }
        self.settle();
    }

    pub fn heal(&mut self, one: usize, other: usize) {
        self.mend(one, other);
        [(one, other), (other, one)].into_iter().for_each(|(from, to)| self.find(from, to));
        self.settle();
    }

    /// The same, and nobody has noticed anything.
    pub fn mend(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let node = self.seen_as(from, to);
            self.cut.remove(&(from as u16, to as u16));
            for shard in &mut self.nodes[from].shards {
                if let Some(peer) = shard.out.peers.get_mut(&node) {
                    peer.slow = false;
                }
            }
        }
    }

    /// A node is gone, and the others of its cluster have noticed.
    pub fn kill(&mut self, node: usize) {
        let (now, id) = (self.now, self.nodes[node].id);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.cut.insert((node as u16, other as u16));
            self.cut.insert((other as u16, node as u16));
            if self.nodes[other].cluster == self.nodes[node].cluster {
                self.nodes[other].shards.iter_mut().for_each(|shard| shard.peer_lost(now, id));
            }
        }
        self.settle();
    }

    /// It comes back, with what its store has.
    pub fn revive(&mut self, node: usize, epoch: u32) {
        let Node { cluster, id, .. } = self.nodes[node];
        let store = std::mem::take(&mut self.nodes[node].store);
        self.nodes[node] = self.node(cluster, id, epoch, store);
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.cut.remove(&(node as u16, other as u16));
            self.cut.remove(&(other as u16, node as u16));
            self.find(node, other);
            self.find(other, node);
        }
        self.settle();
    }

    /// A name whose user's home is on a node.
    pub fn name_on(&self, node: usize, nth: usize) -> String {
        let Node { cluster, id, .. } = self.nodes[node];
        let here = |name: &String| self.owners[usize::from(slot_of(jid(name).as_str()))] == id;
        (0..).map(|n| format!("u{n}.{cluster}")).filter(here).nth(nth).unwrap()
    }

    /// Rows of a node's table whose keys begin so.
    pub fn rows(&self, node: usize, table: Table, prefix: &[u8]) -> usize {
        self.nodes[node].store.rows(table).filter(|(key, _)| key.starts_with(prefix)).count()
    }

    /// A user logs in at a node and is available.
    pub fn online(&mut self, node: usize, name: &str) -> Client {
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

    pub fn say(&mut self, client: Client, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut self.encoder, &mut bytes);
        self.now = Time(self.now.0 + 1_000_000);
        self.nodes[client.node].shards[client.core].received(self.now, client.conn, &bytes);
        self.settle();
    }

    /// A user begins to log in at a node by password.
    pub fn knocks(&mut self, node: usize, name: &str) -> Client {
        let core = usize::from(slot_of(jid(name).as_str()) % self.cores);
        let conn = self.nodes[node].shards[core].accepted(self.now, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
        let (client, jid, data) = (Client { node, core, conn }, jid(name), format!("n,,n={name},r=abc"));
        let mechanism = "SCRAM-SHA-256";
        let fields = LogInFields { jid: jid.as_str(), mechanism, data: data.as_bytes(), ..Default::default() };
        self.say(client, |encoder, out| encoder.hello(out, Tag::request(1), "test"));
        self.say(client, |encoder, out| encoder.log_in(out, Tag::request(2), &fields));
        client
    }

    pub fn subscription(&mut self, client: Client, action: Action, contact: &str) {
        let jid = jid(contact);
        let fields = SubscriptionFields { action, jid: jid.as_str(), ..Default::default() };
        self.say(client, |encoder, out| encoder.subscription(out, Tag::request(3), &fields));
    }

    /// `watcher` sees `publisher` from now on.
    pub fn subscribes(&mut self, watcher: (&str, Client), publisher: (&str, Client)) {
        self.subscription(watcher.1, Action::Subscribe, publisher.0);
        self.subscription(publisher.1, Action::Subscribed, watcher.0);
    }

    /// Ann revokes Bob, who hears nothing more of her; somebody else, who connects to this node, still does.
    pub fn revokes(&mut self, (ann, a): (&str, Client), (bob, b): (&str, Client), (other, node): (&str, usize)) {
        let c = self.online(node, other);
        self.subscribes((other, c), (ann, a));
        self.seen(c);
        self.subscription(a, Action::Unsubscribed, bob);
        assert_eq!(self.seen(b), [Show::Unavailable]);
        self.shows(a, Show::Away);
        assert_eq!((self.seen(b), self.seen(c)), (vec![], vec![Show::Away]));
    }

    /// Ann and Bob, who see each other: of each the home, and the node of the same cluster that they are connected to.
    pub fn friends(&mut self, (ann, at): (usize, usize), (bob, there): (usize, usize)) -> ((String, Client), (String, Client)) {
        let (ann, bob) = (self.name_on(ann, 0), self.name_on(bob, 0));
        let (a, b) = (self.online(at, &ann), self.online(there, &bob));
        self.subscribes((&ann, a), (&bob, b));
        self.subscribes((&bob, b), (&ann, a));
        self.seen(a);
        self.seen(b);
        ((ann, a), (bob, b))
    }

    pub fn shows(&mut self, client: Client, show: Show) {
        let fields = PresenceFields { resource: "desk", show, ..Default::default() };
        self.say(client, |encoder, out| encoder.set_presence(out, Tag::request(0), &fields));
    }

    /// A presence with a payload of so many bytes. Nothing follows from it yet.
    pub fn publishes(&mut self, client: Client, payload: usize) {
        self.sets(client, &PresenceFields { resource: "desk", payload: &vec![7; payload], ..Default::default() });
    }

    /// A presence from which nothing follows yet.
    pub fn sets(&mut self, client: Client, fields: &PresenceFields<'_>) {
        let mut bytes = Vec::new();
        self.encoder.set_presence(&mut bytes, Tag::request(0), fields);
        self.nodes[client.node].shards[client.core].received(self.now, client.conn, &bytes);
    }

    /// The payloads of the presence it has heard of.
    pub fn payloads(&mut self, client: Client) -> Vec<usize> {
        let payloads = self.heard(client).into_iter().filter_map(|heard| match heard {
            Heard::Presence { payload, .. } => Some(payload),
            _ => None,
        });
        payloads.collect()
    }

    /// Presences told by reference that a node has asked for, and those it was asked for.
    pub fn fetched(&self, node: usize) -> (u64, u64) {
        let counters =
            self.nodes[node].shards.iter().map(|shard| &shard.homes).map(|homes| (&homes.relays.counters, homes.counters));
        counters.fold((0, 0), |(asked, told), (relays, homes)| (asked + relays.fetched, told + homes.told_whole))
    }

    /// What a client has heard since it was last asked. It acknowledges the messages among it.
    pub fn heard(&mut self, client: Client) -> Vec<Heard> {
        let shard = &mut self.nodes[client.node].shards[client.core];
        let Some(bytes) = shard.take(self.now, client.conn.slot) else { return Vec::new() };
        let (mut heard, mut codec, mut chunk) = (Vec::new(), Codec::default(), Chunk::new(&bytes));
        let mut last = None;
        let presence = |event: Event<'_>| {
            let payload = event.presence.map_or(0, |presence| presence.fields().payload.len());
            Heard::Presence { session: event.head.session, show: event.head.show, payload }
        };
        while let Some(received) = codec.next(&mut chunk).unwrap() {
            match received.frame {
                ServerFrame::Event(event) => heard.push(presence(event)),
                ServerFrame::EventBatch(batch) => heard.extend(batch.iter().map(|event| presence(event.unwrap()))),
                ServerFrame::Error(error) => heard.push(Heard::Error(error.reason())),
                ServerFrame::Message(message) => {
                    let body = message.body().map(|body| body.bytes().to_vec()).unwrap_or_default();
                    heard.push(Heard::Message(message.from().unwrap_or_default().to_owned(), body));
                    last = Some(message.number());
                }
                ServerFrame::DirectedPresence { from, .. } => heard.push(Heard::Directed(from.to_owned())),
                ServerFrame::Document(document) => {
                    let data = document.data().map(|data| data.bytes().to_vec()).unwrap_or_default();
                    heard.push(Heard::Document(document.jid().to_owned(), data));
                }
                ServerFrame::DocumentChanged(document) => {
                    let data = document.data().map(|data| data.bytes().to_vec()).unwrap_or_default();
                    heard.push(Heard::DocumentChanged(document.jid().to_owned(), data));
                }
                ServerFrame::LastSeen(last) => heard.push(Heard::LastSeen(last.jid().to_owned())),
                ServerFrame::Done => heard.push(Heard::Done),
                _ => heard.push(Heard::Other),
            }
        }
        shard.out.lines.sent(client.conn.slot, bytes);
        if let Some(last) = last {
            self.say(client, |encoder, out| encoder.ack(out, Tag::default(), last));
        }
        heard
    }

    /// Sends a message and asks to be told what becomes of it.
    pub fn writes(&mut self, client: Client, to: &str, body: &str) {
        let jid = jid(to);
        let fields = MessageFields { to: jid.as_str(), body: body.as_bytes(), kind: MessageKind::Chat, ..Default::default() };
        self.say(client, |encoder, out| encoder.message(out, Tag::request(5), &fields));
    }

    /// The presence it has heard of.
    pub fn seen(&mut self, client: Client) -> Vec<Show> {
        let shows = self.heard(client).into_iter().filter_map(|heard| match heard {
            Heard::Presence { show, .. } => Some(show),
            _ => None,
        });
        shows.collect()
    }

    /// Everything that follows happens.
    pub fn settle(&mut self) {
        while (0..self.nodes.len()).fold(false, |busy, node| self.store(node) | self.rings(node) | self.links(node) | busy) {}
        for node in &self.nodes {
            node.shards.iter().for_each(Shard::check);
        }
    }

    /// Time passes.
    pub fn later(&mut self, time: Duration) {
        self.now = self.now + time;
        self.settle();
    }

    pub fn store(&mut self, node: usize) -> bool {
        let (now, Node { shards, store, .. }) = (self.now, &mut self.nodes[node]);
        let mut busy = false;
        for shard in shards {
            shard.turn(now);
            if self.stalled == Some(node) {
                continue;
            }
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

    pub fn rings(&mut self, node: usize) -> bool {
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
    pub fn links(&mut self, from: usize) -> bool {
        let (now, mut busy) = (self.now, false);
        let nodes = self.nodes.len();
        for (core, to) in (0..usize::from(self.cores)).flat_map(|core| (0..nodes).map(move |to| (core, to))) {
            let node = self.seen_as(from, to);
            if self.cut.contains(&(from as u16, to as u16)) || !self.uses(from, to) {
                continue;
            }
            let Some(peer) = self.nodes[from].shards[core].peer(now, node) else { continue };
            let ((parcels, updates), mut rest) = (peer.take(), 0);
            self.bytes += updates.len();
            let (here, foreign) = (self.nodes[from].cluster, node.cluster());
            if foreign.is_some() {
                let entries = parcels.iter().filter(|parcel| matches!(parcel, Parcel::Control(..))).count();
                self.most_at_once = self.most_at_once.max(entries);
            }
            let there = &mut self.nodes[to].shards[core];
            for parcel in parcels {
                match (parcel, foreign) {
                    (Parcel::Control(_, control), Some(cluster)) => {
                        let bytes = border::encode(control, cluster, Vec::new()).expect("it may cross");
                        self.bytes += bytes.len();
                        there.from_cluster(now, here, &bytes).unwrap();
                        self.entries.push((here, cluster, bytes));
                    }
                    (Parcel::Updates(bytes), Some(_)) => {
                        self.abroad += fanal::presence::frame::frames(&updates[rest..rest + bytes]).count();
                        there.updates_from_cluster(now, here, updates[rest..rest + bytes].to_vec()).unwrap();
                        rest += bytes;
                    }
                    (Parcel::Control(core, control), None) => {
                        let bytes = passage::encode(&control, Vec::new());
                        self.bytes += bytes.len();
                        there.from_node(now, core, &bytes).unwrap()
                    }
                    (Parcel::Updates(bytes), None) => {
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

    fn shard(&self, cluster: u16, node: NodeId, core: CoreId, epoch: u32) -> Shard {
        let World { cores, directory, .. } = *self;
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
        let place = Place { cluster, directory, epoch, domain: DOMAIN.into(), limits, wall_at_zero: WALL };
        let mut shard = Shard::new(
            settings,
            place,
            Secrets::from_number(u64::from(cluster) << 32 | u64::from(node.0) << 16 | u64::from(core.0)),
        );
        shard.out.map.set_owners(self.owners.clone());
        shard.out.inline_max = INLINE_MAX;
        shard
    }
}
