//! This core's lanes to other nodes: connections that carry a link instead of a client.
//!
//! Lives on: every core of a node that has links. Serves G4, M2, M4, Z2. A lane of a node is owned by the core of its number,
//! counted around; a connection whose hello names a lane of another core is handed to that. `reach` says which nodes are found, and
//! by which of its nodes another cluster is spoken to; `send` brings what `peers` wants said onto this core's own lanes, and
//! `crossing` what goes to other clusters; `between` is the log-in of clusters, `numbers` who gives them numbers, `lapsed` word
//! of homes that are gone or back. Invariant:
//! whatever comes by a lane concerns the node, or the cluster, that the lane is of.

mod between;
mod crossing;
mod lapsed;
mod nodes;
mod numbers;
mod reach;
mod send;

pub use between::Between;
pub use reach::LaneNews;

use super::Shard;
use super::connection::Doorway;
use super::owners::Word;
use crate::base::id::{ConnId, CoreId, NodeId, UserId};
use crate::base::random::Random;
use crate::base::reason::LinkReason;
use crate::base::time::{Time, WallClock};
use crate::front::native::{Door, Parting};
use crate::front::translate::{HANDSHAKE, Translate};
use crate::link::{Ends, Incoming, Machine, Notice};
use crate::ownership::clusters::Clusters;
use crate::presence::passage::BadPassage;
use crate::wire::frame::Chunk;
use crate::wire::link::{Hello, Site};
use crossing::Crossings;
use numbers::LogIns;
use reach::{LaneState, Reach, Route};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes of a connection that has not said yet which lane it is for: a hello. At the limit it is refused.
const HELLO_BYTES: usize = 1024;

/// What an entry's first two bytes say it is; in a link within the cluster they are the number of the core it is for else, and
/// [`CROSSING`] in one between clusters.
mod word {
    /// All lanes are up at the node that says so, and each of its cores can answer. Behind it: which lanes (`Reach::lanes`).
    pub const READY: u16 = u16::MAX;
    /// A cluster logs in to the directory.
    pub const JOIN: u16 = u16::MAX - 1;
    /// The directory tells of clusters.
    pub const CLUSTERS: u16 = u16::MAX - 2;
    /// A cluster that wants to log in can't.
    pub const DENIED: u16 = u16::MAX - 3;
    /// Updates from another cluster may have been lost: compare.
    pub const AGAIN: u16 = u16::MAX - 4;
    /// A node of this cluster can't reach another cluster.
    pub const CUT_OFF: u16 = u16::MAX - 5;
    /// This is for the thread that keeps the table of owners.
    pub const OWNERS: u16 = u16::MAX - 6;
    /// The directory's operator has had a cluster forgotten.
    pub const FORGOTTEN: u16 = u16::MAX - 7;
    pub const CROSSING: u16 = 0;
}

/// What a node with links is told at its start.
#[derive(Clone, Debug)]
pub struct LinkTerms {
    pub me: Site,
    /// This start of the node: from 1, and greater with each.
    pub epoch: u64,
    /// Of the configuration that all nodes should share.
    pub digest: [u8; 32],
    pub settings: crate::link::Settings,
    /// The other nodes of the cluster, and where they are, as far as that is known from the start.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// `None`: there are no other clusters.
    pub between: Option<Between>,
    /// Bytes of a presence above which it goes to other nodes by reference.
    pub inline_max: u32,
}

impl LinkTerms {
    /// What stands for the peer of a lane: a node, or the cluster that it is of.
    fn peer(&self, site: Site) -> NodeId {
        if self.is_inside(site) { site.node } else { NodeId::of_cluster(site.cluster) }
    }

    fn is_inside(&self, site: Site) -> bool {
        site.cluster == self.me.cluster
    }

    fn inside(&self, node: NodeId) -> Site {
        Site { cluster: self.me.cluster, node }
    }
}

/// A lane of whose, and which.
pub(super) type Lane = (Site, u16);

/// What is at the other end of a link's connection.
#[derive(Debug)]
pub(super) enum Far {
    /// It has not said its hello yet, or not all of it.
    Unknown(Vec<u8>),
    Lane(Site, u16),
}

#[derive(Default)]
pub(super) struct Links {
    lanes: BTreeMap<Lane, Machine>,
    reach: BTreeMap<Site, Reach>,
    /// By cluster.
    routes: BTreeMap<u16, Route>,
    crossings: Crossings,
    /// The nodes of this cluster, if they come and go.
    nodes: Option<Arc<[(NodeId, SocketAddr)]>>,
    /// The other clusters, as the directory knows them.
    clusters: Arc<Clusters>,
    /// Those that the store has, until the first turn.
    stored: Clusters,
    log_ins: LogIns,
    /// What the link itself has to say to a node, by this core's own lane, with the next turn.
    words: Vec<(Site, Vec<u8>)>,
    /// Connections that are wanted.
    dials: Vec<(u64, SocketAddr)>,
}

impl Links {
    pub fn clusters(&self) -> Arc<Clusters> {
        self.clusters.clone()
    }

    pub fn lane(&mut self, lane: Lane) -> Option<&mut Machine> {
        self.lanes.get_mut(&lane)
    }

    pub fn lanes_to(&self, site: Site) -> impl Iterator<Item = &Machine> {
        self.lanes.range((site, 0)..=(site, u16::MAX)).map(|(_, machine)| machine)
    }

    /// Somebody of a cluster looks at a publisher, for all that is known.
    pub fn heed(&mut self, cluster: Option<u16>, publisher: UserId) {
        if let Some(cluster) = cluster {
            self.crossings.heed(cluster, publisher);
        }
    }

    /// Another node's cores, whether it can be reached, and since when it can or can't be.
    pub fn reach_of(&self, site: Site) -> (u16, bool, Option<WallClock>) {
        self.reach.get(&site).map_or((0, false, None), |reach| (reach.cores, reach.found, reach.since))
    }
}

/// A dial's token says whose it is.
fn token((site, lane): Lane) -> u64 {
    u64::from(site.cluster) << 32 | u64::from(site.node.0) << 16 | u64::from(lane)
}

fn lane_of(token: u64) -> Lane {
    (Site { cluster: (token >> 32) as u16, node: NodeId((token >> 16) as u16) }, token as u16)
}

impl Shard {
    /// The links' terms; only for what a lane has brought about.
    fn terms(&self) -> &LinkTerms {
        self.settings.links.as_ref().expect("a node with lanes has links")
    }

    /// Opens this core's own lane to every other node that is known from the start.
    pub(super) fn open_lanes(&mut self, now: Time) {
        let Some(terms) = self.settings.links.clone() else { return };
        for &(node, _) in &terms.peers {
            self.open_own_lanes(now, terms.inside(node));
        }
        self.begin_between(now);
    }

    /// Opens this core's lanes to a node: the one of its number and, if that has more cores, some more.
    fn open_own_lanes(&mut self, now: Time, site: Site) {
        let (own, core) = (self.settings.cores, self.settings.core.0);
        let cores = self.links.reach.get(&site).map_or(0, |reach| reach.cores);
        (0..Hello::lanes(own, cores)).filter(|lane| lane % own == core).for_each(|lane| self.open_lane(now, (site, lane)));
    }

    fn open_lane(&mut self, now: Time, (site, lane): Lane) {
        if self.links.lanes.contains_key(&(site, lane)) {
            return;
        }
        let (terms, cores) = (self.terms(), self.settings.cores);
        let (me, epoch, settings) = (terms.me, terms.epoch, terms.settings);
        let (digest, dials) = match terms.between.as_ref().filter(|_| !terms.is_inside(site)) {
            Some(between) => (between.identity, between.dials(me, site)),
            None => (terms.digest, me < site),
        };
        let ends = Ends { me, peer: site, lane, cores, epoch, digest, dials };
        let seed = u128::from_le_bytes(self.secrets.bytes16()) as u64;
        self.links.lanes.insert((site, lane), Machine::new(now, ends, settings, Random::new(seed)));
    }

    /// Puts a lane back that was taken out to be worked with, unless it is nobody's any more: then it is down.
    fn keep_lane(&mut self, now: Time, (site, lane): Lane, mut machine: Machine) {
        if self.is_known(site) {
            self.links.lanes.insert((site, lane), machine);
        } else {
            machine.leave(&mut self.out.lines);
            self.tell_of_lane(now, LaneNews { site, lane, state: LaneState::Down { anew: false } });
        }
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
        let lane = lane_of(token);
        let Some(address) = made else {
            self.links.lanes.get_mut(&lane)?.dial_failed(now);
            return None;
        };
        if self.stopping || !self.links.lanes.contains_key(&lane) {
            return None;
        }
        let translator = self.dial_securely(now, lane)?;
        let conn = self.open_link(now, address.ip(), Far::Lane(lane.0, lane.1), translator);
        let machine = self.links.lanes.get_mut(&lane).expect("looked up above");
        machine.dialled(now, conn, &mut self.out.lines);
        Some(conn)
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
            Far::Lane(site, lane) => {
                self.set_door(conn, Doorway::Link(Far::Lane(site, lane)));
                self.read_lane(now, conn, (site, lane), bytes);
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
        let (site, lane) = (hello.from, hello.lane);
        if !self.translators.is_peer(conn.slot, site) {
            return self.turn_away(now, conn, Some(site), LinkReason::WrongCertificate);
        }
        if lane >= Hello::lanes(self.settings.cores, hello.cores) {
            return self.turn_away(now, conn, Some(site), LinkReason::WrongLane);
        }
        let core = CoreId(lane % self.settings.cores);
        if core != self.settings.core {
            let parting = Box::new(Parting::unread(said));
            self.set_door(conn, Doorway::Leaving { to: core, parting, is_link: true });
            self.departures.push(conn);
            return;
        }
        let admitted = match terms.is_inside(site) {
            true if site == terms.me => Err(LinkReason::SameNumbers),
            true if self.is_peer(site.node) => Ok(()),
            true => Err(LinkReason::UnknownPeer),
            false => self.admit_cluster(&hello),
        };
        if let Err(reason) = admitted {
            return self.turn_away(now, conn, Some(site), reason);
        }
        self.open_lane(now, (site, lane));
        self.set_door(conn, Doorway::Link(Far::Lane(site, lane)));
        let machine = self.links.lanes.get_mut(&(site, lane)).expect("just opened");
        machine.accepted(now, conn, &mut self.out.lines);
        self.read_lane(now, conn, (site, lane), &said);
    }

    fn read_lane(&mut self, now: Time, conn: ConnId, lane: Lane, bytes: &[u8]) {
        // Out of its place while it is read: what comes changes the rest of the core.
        let Some(mut machine) = self.links.lanes.remove(&lane) else { return };
        let mut chunk = Chunk::new(bytes);
        while let Some(incoming) = machine.next(now, conn, &mut chunk, &mut self.out.lines) {
            let read = match incoming {
                Incoming::Nothing => Ok(()),
                Incoming::Notice(notice) => {
                    let cores = machine.peer_cores();
                    self.notice(now, lane, cores, notice);
                    Ok(())
                }
                Incoming::Entry(bytes) => self.entry(now, lane, bytes),
                Incoming::Update { bytes, .. } => self.updates(now, lane.0, bytes.to_vec()),
                Incoming::Complex(bytes) => self.complex(now, lane, bytes),
            };
            if read.is_err() {
                machine.accuse(LinkReason::BadFrame);
            }
        }
        self.keep_lane(now, lane, machine);
    }

    /// An entry has come: once, and in order.
    fn entry(&mut self, now: Time, lane: Lane, bytes: &[u8]) -> Result<(), BadPassage> {
        let (word, said) = bytes.split_first_chunk().ok_or(BadPassage)?;
        let site = lane.0;
        match (u16::from_le_bytes(*word), self.terms().is_inside(site)) {
            (word::READY, _) => {
                let lanes = u64::from_le_bytes(said.try_into().map_err(|_| BadPassage)?);
                self.tell_of_lane(now, LaneNews { site, lane: lane.1, state: LaneState::Ready { lanes } });
            }
            (word::JOIN, false) => self.join(now, lane, said)?,
            (word::CLUSTERS, _) => self.told_of_clusters(now, lane, said)?,
            (word::DENIED, false) => self.denied(lane, said)?,
            (word::FORGOTTEN, _) => self.told_to_forget(now, lane, said)?,
            (word::AGAIN, _) => self.asked_again(site, said)?,
            (word::CUT_OFF, true) => self.cut_off(site.node, said)?,
            (word::OWNERS, true) => self.words.push(Word::Heard { from: site.node, bytes: said.to_vec() }),
            (core, true) => self.from_node(now, CoreId(core), said)?,
            (word::CROSSING, false) => self.from_cluster(now, site.cluster, said)?,
            _ => return Err(BadPassage),
        }
        Ok(())
    }

    fn updates(&mut self, now: Time, site: Site, frames: Vec<u8>) -> Result<(), BadPassage> {
        match self.terms().is_inside(site) {
            true => self.updates_from_node(now, frames),
            false => self.updates_from_cluster(now, site.cluster, frames),
        }
    }

    /// A lane's connection is gone.
    pub(super) fn link_lost(&mut self, now: Time, conn: ConnId, site: Site, lane: u16) {
        if let Some(machine) = self.links.lanes.get_mut(&(site, lane)) {
            machine.disconnected(now, conn);
        }
    }

    /// A lane has something to say.
    fn notice(&mut self, now: Time, lane: Lane, cores: u16, notice: Notice) {
        let (site, number) = lane;
        let anew = self.links.reach.get(&site).is_some_and(|reach| reach.found);
        let mut tell = |state| self.tell_of_lane(now, LaneNews { site, lane: number, state });
        match notice {
            Notice::Dial => {
                let address = self.address_of(site);
                self.links.dials.extend(address.map(|address| (token(lane), address)));
            }
            Notice::Ended(reason) => self.link_ended(now, site, reason),
            Notice::Up { pact, .. } => tell(LaneState::Up { cores, pact }),
            Notice::Resumed => tell(LaneState::Resumed),
            Notice::Lost { .. } => tell(LaneState::Down { anew }),
            Notice::Restarted { pact, .. } => {
                tell(LaneState::Down { anew });
                tell(LaneState::Up { cores, pact });
            }
        }
    }

    /// All nodes that there are links to, or are to be.
    pub(super) fn linked_sites(&self) -> BTreeSet<Site> {
        let Some(terms) = &self.settings.links else { return BTreeSet::new() };
        let told = self.links.clusters.others(terms.me.cluster);
        let told =
            told.flat_map(|cluster| cluster.place.nodes.iter().map(|(node, _)| Site { cluster: cluster.number, node: *node }));
        let directory = terms.between.iter().flat_map(|between| between.at.iter().map(|(node, _)| (between.directory, *node)));
        let directory = directory.map(|(cluster, node)| Site { cluster, node });
        let inside = self.peers().map(|(node, _)| terms.inside(node));
        inside.chain(self.links.reach.keys().copied()).chain(told).chain(directory).collect()
    }

    /// Sessions whose newest state waits for a node: what waits for another cluster waits for the node that is used.
    pub(super) fn put_off_for(&self, site: Site) -> usize {
        let peer = self.terms().peer(site);
        let is_used =
            peer.cluster().is_none_or(|cluster| self.links.routes.get(&cluster).is_some_and(|route| route.used == Some(site.node)));
        self.out.peers.get(&peer).filter(|_| is_used).map_or(0, |peer| peer.put_off.len())
    }

    /// Where a node is.
    pub(super) fn address_of(&self, site: Site) -> Option<SocketAddr> {
        let terms = self.terms();
        if terms.is_inside(site) {
            return self.peers().find(|(node, _)| *node == site.node).map(|(_, address)| address);
        }
        let named = |nodes: &[(NodeId, SocketAddr)]| nodes.iter().find(|(node, _)| *node == site.node).map(|(_, address)| *address);
        // What the operator has written here comes first: that may be another way to the same node.
        let written = terms.between.as_ref().and_then(|between| named(between.at_of(site.cluster)));
        written.or_else(|| named(&self.links.clusters.get(site.cluster)?.place.nodes))
    }

    /// Once a turn: looks after the lanes' time. Gives when it must again.
    pub(super) fn go_on_with_links(&mut self, now: Time) -> Option<Time> {
        let lanes: Vec<Lane> = self.links.lanes.keys().copied().collect();
        let compare = self.compare_again(now);
        loop {
            let (mut next, mut is_news) = (compare, false);
            for &lane in &lanes {
                let Some(mut machine) = self.links.lanes.remove(&lane) else { continue };
                if machine.deadline() <= now {
                    machine.tick(now, &mut self.out.lines);
                }
                while let Some(notice) = machine.notice() {
                    is_news = true;
                    self.notice(now, lane, machine.peer_cores(), notice);
                }
                next = Some(next.map_or(machine.deadline(), |next| next.min(machine.deadline())));
                self.keep_lane(now, lane, machine);
            }
            // What is news of one lane may be the end of others.
            if !is_news {
                return next;
            }
        }
    }

    /// A node is lost: this core's other lanes to it begin anew, too, so that nothing comes any more of what was said before.
    fn renounce_lanes(&mut self, now: Time, (site, lost): Lane) {
        for ((_, lane), machine) in self.links.lanes.range_mut((site, 0)..=(site, u16::MAX)) {
            if *lane != lost {
                machine.renounce(now, LinkReason::OtherLane, &mut self.out.lines);
            }
        }
    }
}
