//! This core's lanes to other nodes: connections that carry a link instead of a client.
//!
//! Lives on: every core of a node that has links. Serves G4, M2, M4, Z2. A lane of a node is owned by the core of its number,
//! counted around; a connection whose hello names a lane of another core is handed to that. What `peers` wants said to another
//! node goes out by this core's own lane. Invariants: a node counts as found, at every core, once all its lanes are up, and as
//! gone when one of them is: so no two cores of this node disagree for longer than a turn of their rings.

use super::Shard;
use super::batch::Entry;
use super::connection::Doorway;
use super::owners::Word;
use crate::base::id::{ConnId, CoreId, NodeId};
use crate::base::random::Random;
use crate::base::reason::LinkReason;
use crate::base::time::Time;
use crate::front::native::{Door, Parting};
use crate::front::translate::{HANDSHAKE, Translate};
use crate::link::{Ends, Incoming, Machine, Notice};
use crate::presence::frame;
use crate::presence::outbox::Parcel;
use crate::presence::passage;
use crate::wire::frame::Chunk;
use crate::wire::link::{Hello, Site};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Bytes of a connection that has not said yet which lane it is for: a hello. At the limit it is refused.
const HELLO_BYTES: usize = 1024;
/// In place of a core, in an entry: all lanes are up at the node that says so, and each of its cores can answer.
const READY: u16 = u16::MAX;
/// The same: this is for the thread that keeps the table of owners.
const OWNERS: u16 = u16::MAX - 1;
/// Updates that go to another node as one.
const RUN_BYTES: usize = 64 << 10;

/// What a node with links is told at its start.
#[derive(Clone, Debug)]
pub struct LinkTerms {
    pub me: Site,
    /// This start of the node: from 1, and greater with each.
    pub epoch: u64,
    /// Of the configuration that all nodes should share.
    pub digest: [u8; 32],
    pub settings: crate::link::Settings,
    /// The other nodes of the cluster, and where they are.
    pub peers: Vec<(NodeId, SocketAddr)>,
}

/// What is at the other end of a link's connection.
#[derive(Debug)]
pub(super) enum Far {
    /// It has not said its hello yet, or not all of it.
    Unknown(Vec<u8>),
    Lane(NodeId, u16),
}

/// What a core tells the others of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneNews {
    pub node: NodeId,
    pub lane: u16,
    pub state: LaneState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneState {
    /// To a node of so many cores.
    Up {
        cores: u16,
    },
    /// The other node can answer by all of its cores.
    Ready,
    /// After a break; updates may have been lost.
    Resumed,
    Down,
}

/// How far a node can be reached.
#[derive(Default)]
struct Reach {
    cores: u16,
    up: BTreeSet<u16>,
    /// The other node has said that it's ready, and has been told that this one is.
    ready: bool,
    told: bool,
    found: bool,
}

impl Reach {
    /// Whether all lanes are up, at this end.
    fn is_whole(&self, own: u16) -> bool {
        self.cores > 0 && (0..Hello::lanes(own, self.cores)).all(|lane| self.up.contains(&lane))
    }
}

#[derive(Default)]
pub(super) struct Links {
    lanes: BTreeMap<(NodeId, u16), Machine>,
    reach: BTreeMap<NodeId, Reach>,
    /// Connections that are wanted.
    pub dials: Vec<(u64, SocketAddr)>,
}

impl Links {
    pub fn lane(&mut self, key: (NodeId, u16)) -> Option<&mut Machine> {
        self.lanes.get_mut(&key)
    }
}

/// A dial's token says whose it is.
fn token(node: NodeId, lane: u16) -> u64 {
    u64::from(node.0) << 16 | u64::from(lane)
}

impl Shard {
    /// Opens this core's own lane to every other node.
    pub(super) fn open_lanes(&mut self, now: Time) {
        let Some(terms) = self.settings.links.clone() else { return };
        for &(node, _) in &terms.peers {
            self.open_lane(now, &terms, node, self.settings.core.0);
        }
    }

    fn open_lane(&mut self, now: Time, terms: &LinkTerms, node: NodeId, lane: u16) {
        if self.links.lanes.contains_key(&(node, lane)) {
            return;
        }
        let (me, cores) = (terms.me, self.settings.cores);
        let peer = Site { cluster: me.cluster, node };
        let ends = Ends { me, peer, lane, cores, epoch: terms.epoch, digest: terms.digest };
        let seed = u128::from_le_bytes(self.secrets.bytes16()) as u64;
        let machine = Machine::new(now, ends, terms.settings, Random::new(seed));
        self.links.lanes.insert((node, lane), machine);
    }

    /// This node stops: the others are told, and need not wait to find out.
    pub(super) fn leave_lanes(&mut self) {
        for mut machine in std::mem::take(&mut self.links.lanes).into_values() {
            machine.leave(&mut self.out.lines);
        }
    }

    /// The connections that are wanted since the last call, by their tokens.
    pub fn take_dials(&mut self) -> Vec<(u64, SocketAddr)> {
        std::mem::take(&mut self.links.dials)
    }

    /// What came of a dial: a connection that is to have a line, or none.
    pub fn dialled(&mut self, now: Time, token: u64, made: Option<SocketAddr>) -> Option<ConnId> {
        let (node, lane) = (NodeId((token >> 16) as u16), token as u16);
        let Some(address) = made else {
            self.links.lanes.get_mut(&(node, lane))?.dial_failed(now);
            return None;
        };
        if self.stopping || !self.links.lanes.contains_key(&(node, lane)) {
            return None;
        }
        let translator = self.dial_securely(now, (node, lane))?;
        let conn = self.open_link(now, address.ip(), Far::Lane(node, lane), translator);
        let machine = self.links.lanes.get_mut(&(node, lane)).expect("looked up above");
        machine.dialled(now, conn, &mut self.out.lines);
        Some(conn)
    }

    /// The peer of this core's lanes that is this node.
    pub(super) fn peer_at(&self, site: Site) -> Option<NodeId> {
        let terms = self.settings.links.as_ref().filter(|terms| terms.me.cluster == site.cluster)?;
        terms.peers.iter().map(|(node, _)| *node).find(|node| *node == site.node)
    }

    /// A connection of another node, or of whoever says so.
    pub(super) fn open_link(
        &mut self,
        now: Time,
        peer: std::net::IpAddr,
        far: Far,
        translator: Option<Box<dyn Translate>>,
    ) -> ConnId {
        let conn = self.open(now, peer, super::connection::seconds(now), Door::default(), translator);
        if let Some(terms) = &self.settings.links {
            self.out.lines.set_marks(conn, terms.settings.marks());
        }
        self.set_door(conn, Doorway::Link(far));
        conn
    }

    /// Bytes from the far end of a link.
    pub(super) fn received_link(&mut self, now: Time, conn: ConnId, far: Far, bytes: &[u8]) {
        match far {
            Far::Lane(node, lane) => {
                self.set_door(conn, Doorway::Link(Far::Lane(node, lane)));
                self.read_lane(now, conn, (node, lane), bytes);
            }
            Far::Unknown(mut said) => {
                said.extend_from_slice(bytes);
                match Hello::peek(&said) {
                    _ if said.starts_with(&[HANDSHAKE]) => self.turn_away(now, conn, None, LinkReason::NotAlike),
                    Ok(None) if said.len() <= HELLO_BYTES => self.set_door(conn, Doorway::Link(Far::Unknown(said))),
                    Ok(None) => self.turn_away(now, conn, None, LinkReason::TooLong),
                    Ok(Some(hello)) => self.meet(now, conn, hello, said),
                    Err(reason) => self.turn_away(now, conn, None, reason),
                }
            }
        }
    }

    /// A hello has come whole: it's for a lane of this core, of another one, or of none.
    fn meet(&mut self, now: Time, conn: ConnId, hello: Hello, said: Vec<u8>) {
        let Some(terms) = self.settings.links.clone() else { return };
        let (node, lane) = (hello.from.node, hello.lane);
        let reason = match terms.peers.iter().any(|(known, _)| *known == node) {
            _ if !self.translators.is_peer(conn.slot, hello.from) => Some(LinkReason::WrongCertificate),
            _ if hello.from == terms.me => Some(LinkReason::SameNumbers),
            _ if hello.from.cluster != terms.me.cluster => Some(LinkReason::WrongCluster),
            true if lane >= Hello::lanes(self.settings.cores, hello.cores) => Some(LinkReason::WrongLane),
            true => None,
            false => Some(LinkReason::UnknownPeer),
        };
        if let Some(reason) = reason {
            return self.turn_away(now, conn, Some(hello.from), reason);
        }
        let core = CoreId(lane % self.settings.cores);
        if core != self.settings.core {
            let parting = Box::new(Parting::unread(said));
            self.set_door(conn, Doorway::Leaving { to: core, parting, is_link: true });
            self.departures.push(conn);
            return;
        }
        self.open_lane(now, &terms, node, lane);
        self.set_door(conn, Doorway::Link(Far::Lane(node, lane)));
        let machine = self.links.lanes.get_mut(&(node, lane)).expect("just opened");
        machine.accepted(now, conn, &mut self.out.lines);
        self.read_lane(now, conn, (node, lane), &said);
    }

    fn read_lane(&mut self, now: Time, conn: ConnId, key: (NodeId, u16), bytes: &[u8]) {
        // Out of its place while it is read: what comes changes the rest of the core.
        let Some(mut machine) = self.links.lanes.remove(&key) else { return };
        let mut chunk = Chunk::new(bytes);
        while let Some(incoming) = machine.next(now, conn, &mut chunk, &mut self.out.lines) {
            let read = match incoming {
                Incoming::Nothing | Incoming::Complex(_) => Ok(()),
                Incoming::Notice(notice) => {
                    let cores = machine.peer_cores();
                    self.notice(now, key, cores, notice);
                    Ok(())
                }
                Incoming::Entry(bytes) => match bytes.split_first_chunk() {
                    Some((&core, _)) if u16::from_le_bytes(core) == READY => {
                        self.tell_of_lane(now, LaneNews { node: key.0, lane: key.1, state: LaneState::Ready });
                        Ok(())
                    }
                    Some((&core, said)) if u16::from_le_bytes(core) == OWNERS => {
                        self.words.push(Word::Heard { from: key.0, bytes: said.to_vec() });
                        Ok(())
                    }
                    Some((core, said)) => self.from_node(now, CoreId(u16::from_le_bytes(*core)), said),
                    None => Err(passage::BadPassage),
                },
                Incoming::Update { bytes, .. } => self.updates_from_node(now, bytes.to_vec()),
            };
            if read.is_err() {
                machine.accuse(LinkReason::BadFrame);
            }
        }
        self.links.lanes.insert(key, machine);
    }

    /// A lane's connection is gone.
    pub(super) fn link_lost(&mut self, now: Time, conn: ConnId, node: NodeId, lane: u16) {
        if let Some(machine) = self.links.lanes.get_mut(&(node, lane)) {
            machine.disconnected(now, conn);
        }
    }

    /// A lane has something to say.
    fn notice(&mut self, now: Time, (node, lane): (NodeId, u16), cores: u16, notice: Notice) {
        let state = match notice {
            Notice::Dial => {
                let terms = self.settings.links.clone();
                let address = terms.iter().flat_map(|terms| &terms.peers).find(|(known, _)| *known == node);
                return self.links.dials.extend(address.map(|(_, address)| (token(node, lane), *address)));
            }
            Notice::Ended(reason) => return self.link_ended(now, node, reason),
            Notice::Up { .. } => LaneState::Up { cores },
            Notice::Resumed => LaneState::Resumed,
            Notice::Lost { .. } => LaneState::Down,
            Notice::Restarted { .. } => {
                self.tell_of_lane(now, LaneNews { node, lane, state: LaneState::Down });
                LaneState::Up { cores }
            }
        };
        self.tell_of_lane(now, LaneNews { node, lane, state });
    }

    /// Every core of this node hears of a lane of this core.
    fn tell_of_lane(&mut self, now: Time, news: LaneNews) {
        let (own, cores) = (self.settings.core, self.settings.cores);
        for core in (0..cores).map(CoreId).filter(|&core| core != own) {
            self.put_aside(core, Entry::Lane(news));
        }
        self.hear_of_lane(now, news);
    }

    pub(super) fn hear_of_lane(&mut self, now: Time, LaneNews { node, lane, state }: LaneNews) {
        let own = self.settings.cores;
        let reach = self.links.reach.entry(node).or_default();
        match state {
            LaneState::Up { cores } => {
                // What answers it may be on its way before all lanes are up; it goes to the right core from the first on.
                self.out.map.set_cores(node, cores);
                self.out.peers.entry(node).or_default();
                reach.cores = cores;
                reach.up.insert(lane);
                if (self.settings.core.0, lane) == (0, 0) {
                    self.words.push(Word::Met(node));
                }
                let lanes = Hello::lanes(own, cores);
                if let Some(terms) = self.settings.links.clone() {
                    // The other node has more cores: some of its lanes end here, too.
                    let core = self.settings.core.0;
                    let ours = (0..lanes).filter(|lane| lane % own == core);
                    ours.for_each(|lane| self.open_lane(now, &terms, node, lane));
                }
            }
            LaneState::Ready => reach.ready = true,
            LaneState::Resumed if reach.found => {
                let cores = reach.cores;
                self.peer_found(now, node, cores);
            }
            LaneState::Resumed => {}
            LaneState::Down => {
                reach.up.remove(&lane);
                (reach.ready, reach.told) = (false, false);
                if reach.up.is_empty() {
                    self.out.peers.remove(&node);
                }
                if std::mem::take(&mut reach.found) {
                    self.peer_lost(now, node);
                }
            }
        }
        let Some(reach) = self.links.reach.get_mut(&node) else { return };
        if reach.ready && !reach.found && reach.is_whole(own) {
            reach.found = true;
            self.link_faults.better(node);
            let cores = reach.cores;
            self.peer_found(now, node, cores);
        }
    }

    /// Once a turn: looks after the lanes' time. Gives when it must again.
    pub(super) fn go_on_with_links(&mut self, now: Time) -> Option<Time> {
        let keys: Vec<(NodeId, u16)> = self.links.lanes.keys().copied().collect();
        let mut next: Option<Time> = None;
        for key in keys {
            let Some(mut machine) = self.links.lanes.remove(&key) else { continue };
            if machine.deadline() <= now {
                machine.tick(now, &mut self.out.lines);
            }
            while let Some(notice) = machine.notice() {
                self.notice(now, key, machine.peer_cores(), notice);
            }
            next = Some(next.map_or(machine.deadline(), |next| next.min(machine.deadline())));
            self.links.lanes.insert(key, machine);
        }
        next
    }

    /// Sends what there is for other nodes, by this core's own lanes: last in a turn, for whatever was done before may add to it.
    pub fn send_to_peers(&mut self, now: Time) {
        let core = self.settings.core.0;
        let nodes: Vec<NodeId> = self.links.lanes.keys().filter(|(_, lane)| *lane == core).map(|(node, _)| *node).collect();
        for node in nodes {
            let Some(mut machine) = self.links.lanes.remove(&(node, core)) else { continue };
            if machine.is_up() {
                self.send_to(now, node, &mut machine);
            }
            self.links.lanes.insert((node, core), machine);
        }
    }

    fn send_to(&mut self, now: Time, node: NodeId, machine: &mut Machine) {
        let own = self.settings.cores;
        if let Some(reach) = self.links.reach.get_mut(&node).filter(|reach| !reach.told && reach.is_whole(own)) {
            reach.told = machine.send(&READY.to_le_bytes(), &mut self.out.lines).is_ok();
        }
        let is_ready = machine.is_ready(&self.out.lines);
        let Some(peer) = self.out.peers.get_mut(&node) else { return };
        (peer.slow, peer.full) = (!is_ready, machine.is_pressed());
        let Some(peer) = self.peer(now, node) else { return };
        let (parcels, updates) = peer.take();
        let mut rest = &updates[..];
        let mut words = Vec::new();
        for parcel in parcels {
            match parcel {
                Parcel::Control(core, control) => {
                    words.clear();
                    words.extend_from_slice(&core.0.to_le_bytes());
                    words = passage::encode(&control, words);
                    if machine.send(&words, &mut self.out.lines).is_err() {
                        // More waits than may, or it is longer than a frame: both ends begin anew.
                        machine.accuse(LinkReason::TooLong);
                    }
                }
                Parcel::Updates(bytes) => {
                    let (run, behind) = rest.split_at(bytes);
                    rest = behind;
                    self.send_updates(node, run, machine);
                }
            }
        }
    }

    /// Says something about owners to another node, by the first lane. While that is not up it is lost, and said again.
    pub(super) fn say_of_owners(&mut self, to: NodeId, bytes: &[u8]) {
        if let Some(machine) = self.links.lanes.get_mut(&(to, 0)).filter(|machine| machine.is_up()) {
            // One that is refused is lost, too.
            _ = machine.send(&[&OWNERS.to_le_bytes(), bytes].concat(), &mut self.out.lines);
        }
    }

    /// Sends event frames, a run of them as one; what can't go now is put off.
    fn send_updates(&mut self, node: NodeId, mut run: &[u8], machine: &mut Machine) {
        while !run.is_empty() {
            let mut bytes = 0;
            for frame in frame::frames(run) {
                if bytes > 0 && bytes + frame.len() > RUN_BYTES {
                    break;
                }
                bytes += frame.len();
            }
            let (now, behind) = run.split_at(bytes);
            if !machine.update(0, now, &mut self.out.lines) {
                frame::frames(now).for_each(|frame| self.homes.put_off_for(node, frame, &mut self.out));
            }
            run = behind;
        }
    }
}
