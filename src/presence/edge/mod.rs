//! The edge role of a core: the sessions whose sockets it owns, and what they watch (the document's inbound table, Z7; J1).
//!
//! Lives on: every core. Serves Z7, J6, G1, G2. `interest` grants and takes away, `fan_out` delivers, `cache` keeps what a
//! publisher of another core last told, `names` who it is and `forms` an update's other forms, where doors have them;
//! `attention` tells whom nobody looks at. Invariants: a session in a publisher's list has that publisher in its own list, and the
//! reverse; a publisher is kept exactly as long as a session watches it or waits to; nobody is in a list whom the publisher's home
//! has not approved.

mod attention;
mod fan_out;
mod forms;
mod interest;
mod names;

use super::ask_first::AskFirst;
use super::cache::Cache;
use super::control::{Ask, Asker, EdgeRef, StreamRef, UserRef};
use super::frame::Events;
use super::missed::Missed;
use crate::base::id::{ConnId, Seat, SessionId, UserId, first_of_life};
use crate::base::map::Map;
use crate::wire::lines::Lines;
use ahash::RandomState;
use forms::Forms;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use thin_vec::ThinVec;

/// What an edge counts. The shard adds it to the core's counters.
#[derive(Clone, Copy, Default, Debug)]
pub struct EdgeCounters {
    pub deliveries: u64,
    pub conflated: u64,
    /// Snapshots answered from what the edge knew already.
    pub local_snapshots: u64,
    pub stale_updates: u64,
    /// Connections that could not be told of all farewells while they were slow.
    pub farewells_overrun: u64,
}

/// A session at its edge: one cache line, since every update looks at it.
#[derive(Debug)]
#[repr(align(64))]
pub struct EdgeSession {
    pub conn: ConnId,
    pub stream: u32,
    pub generation: u32,
    /// Known once the home has attached it.
    pub home: Option<Home>,
    /// Slots of the publishers it watches or waits to watch.
    watching: Vec<u32>,
}

/// A session as its home knows it.
#[derive(Clone, Copy, Debug)]
pub struct Home {
    pub user: UserId,
    /// The user's slot at home.
    pub slot: u32,
    pub session: SessionId,
}

impl Home {
    pub fn at(self) -> UserRef {
        UserRef { user: self.user, slot: self.slot }
    }
}

impl EdgeSession {
    pub fn stream_ref(&self) -> StreamRef {
        StreamRef { conn: self.conn, stream: self.stream }
    }
}

/// Whether the publisher's home has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    Asked,
    Given,
}

/// A publisher that sessions of this core watch: one cache line, and for a few subscribers nothing else.
#[repr(align(64))]
struct Publisher {
    user: UserId,
    /// Connection slots of sessions that have a connection to themselves.
    direct: SmallVec<[u32; 4]>,
    trunks: ThinVec<TrunkGroup>,
    /// What a publisher of another core last told. A publisher of this core is read at its home.
    cache: Cache,
    /// Those who get nothing yet.
    pending: Option<Box<Pending>>,
    /// Questions with lower nonces were asked for an earlier record of the same publisher in the same slot; their answers may still
    /// come.
    nonce: u32,
    grant: Grant,
}

/// Who gets nothing of a publisher before its home says so.
#[derive(Default)]
struct Pending {
    /// Sessions not yet granted, by their slots here.
    waiting: Vec<u32>,
    /// Users the publisher revoked.
    ask_first: AskFirst,
}

impl Publisher {
    fn waiting(&self) -> &[u32] {
        self.pending.as_ref().map_or(&[], |pending| &pending.waiting)
    }

    /// Whether the home must be asked before this user gets anything.
    fn must_ask(&self, user: UserId) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.ask_first.must_ask(user))
    }

    fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    /// Gives back the memory of a list that nobody is in.
    fn tidy(&mut self) {
        self.pending.take_if(|pending| pending.waiting.is_empty() && pending.ask_first.is_empty());
    }

    fn is_watched(&self) -> bool {
        !self.direct.is_empty() || !self.trunks.is_empty() || !self.waiting().is_empty()
    }
}

/// The streams of one trunk that watch a publisher: one event for all of them.
struct TrunkGroup {
    conn: u32,
    streams: SmallVec<[u32; 4]>,
}

/// What a slow connection has still to hear, newest per publisher: slots of publishers, and their sessions that ended meanwhile.
#[derive(Default)]
struct PutOff {
    publishers: BTreeMap<u32, Missed>,
    /// The slot to go on with, so that each has its turn however often those before it change.
    next: u32,
}

impl PutOff {
    fn take_next(&mut self) -> Option<(u32, Missed)> {
        let slot = self.publishers.range(self.next..).chain(&self.publishers).next().map(|(&slot, _)| slot)?;
        self.next = slot + 1;
        self.publishers.remove_entry(&slot)
    }
}

/// What is asked in the name of a slow client when it has read what it got: the rest of a roster, more of the documents.
#[derive(Debug)]
pub struct Rest {
    pub asker: Asker,
    pub ask: Box<Ask>,
}

/// All sessions whose sockets this core owns.
pub struct Edge {
    here: Seat,
    cores: u16,
    sessions: Vec<Option<EdgeSession>>,
    free_sessions: Vec<u32>,
    next_generation: u32,
    next_nonce: u32,
    /// The session of a connection that is not a trunk, by the connection's slot.
    by_conn: Vec<u32>,
    /// The sessions of a trunk by stream number, by the trunk's connection slot.
    streams: HashMap<u32, Vec<u32>, RandomState>,
    publishers: Vec<Option<Publisher>>,
    free_publishers: Vec<u32>,
    by_user: HashMap<UserId, u32, RandomState>,
    put_off: HashMap<u32, PutOff, RandomState>,
    /// The latest question to a publisher's home about a subscriber that is not answered yet: its nonce.
    asked: HashMap<(u32, UserId), u32, RandomState>,
    /// While a batch is read: the new records, by slot, and how many of the batch's updates are older than their snapshots.
    behind: HashMap<u32, usize, RandomState>,
    /// What waits until connections have read what they have.
    rests: HashMap<u32, Vec<Rest>, RandomState>,
    names: Option<names::Names>,
    forms: Forms,
    attention: attention::Attention,
    scratch: Events,
    /// Connections found slow during one update.
    slow: Vec<u32>,
    pub counters: EdgeCounters,
}

/// Lines of one publisher's subscribers that are read ahead; those behind are read while the first are written.
const GLANCED_LINES: usize = 4;

/// No session's slot.
pub const NO_SESSION: u32 = u32::MAX;

impl Edge {
    pub fn new(map: &Map, hasher: RandomState) -> Edge {
        Edge {
            here: map.here,
            cores: map.cores,
            sessions: Vec::new(),
            free_sessions: Vec::new(),
            next_generation: 1,
            next_nonce: 0,
            by_conn: Vec::new(),
            streams: HashMap::with_hasher(hasher.clone()),
            publishers: Vec::new(),
            free_publishers: Vec::new(),
            by_user: HashMap::with_hasher(hasher.clone()),
            put_off: HashMap::with_hasher(hasher.clone()),
            asked: HashMap::with_hasher(hasher.clone()),
            behind: HashMap::with_hasher(hasher.clone()),
            rests: HashMap::with_hasher(hasher),
            names: None,
            forms: Forms::default(),
            attention: attention::Attention::default(),
            scratch: Events::default(),
            slow: Vec::new(),
            counters: EdgeCounters::default(),
        }
    }

    /// Of this life of the node. A session of another one is not known, whoever speaks of it.
    pub fn in_life(mut self, epoch: u32) -> Edge {
        self.next_generation = first_of_life(epoch);
        self
    }

    /// A place for a session that is logging in. `stream` is 0 for a connection of its own.
    pub fn open(&mut self, conn: ConnId, stream: u32) -> EdgeRef {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let session = EdgeSession { conn, stream, generation, home: None, watching: Vec::new() };
        let slot = match self.free_sessions.pop() {
            Some(slot) => {
                self.sessions[slot as usize] = Some(session);
                slot
            }
            None => {
                self.sessions.push(Some(session));
                (self.sessions.len() - 1) as u32
            }
        };
        *self.place(conn.slot, stream) = slot;
        EdgeRef { seat: self.here, slot, generation }
    }

    /// Where the session of a connection or stream is noted down.
    fn place(&mut self, conn_slot: u32, stream: u32) -> &mut u32 {
        let (table, index) = match stream {
            0 => (&mut self.by_conn, conn_slot as usize),
            stream => (self.streams.entry(conn_slot).or_default(), stream as usize),
        };
        if table.len() <= index {
            table.resize(index + 1, NO_SESSION);
        }
        &mut table[index]
    }

    /// The session that a frame of a connection (stream 0) or of a trunk's stream belongs to.
    #[inline]
    pub fn find(&self, conn_slot: u32, stream: u32) -> Option<EdgeRef> {
        let slot = if stream == 0 { self.session_of_conn(conn_slot) } else { self.session_of_stream(conn_slot, stream) }?;
        self.edge_ref(slot)
    }

    /// The same once its home has attached it.
    #[inline]
    pub fn session(&self, conn_slot: u32, stream: u32) -> Option<(EdgeRef, Home)> {
        let slot = if stream == 0 { self.session_of_conn(conn_slot) } else { self.session_of_stream(conn_slot, stream) }?;
        let session = self.at_slot(slot)?;
        Some((EdgeRef { seat: self.here, slot, generation: session.generation }, session.home?))
    }

    /// The sessions of a connection: its own, or those of all its streams.
    pub fn sessions_on(&self, conn_slot: u32) -> Vec<EdgeRef> {
        let streams = self.streams.get(&conn_slot).into_iter().flatten().copied().filter(|&slot| slot != NO_SESSION);
        self.session_of_conn(conn_slot).into_iter().chain(streams).filter_map(|slot| self.edge_ref(slot)).collect()
    }

    pub fn get(&self, edge: EdgeRef) -> Option<&EdgeSession> {
        self.sessions.get(edge.slot as usize)?.as_ref().filter(|session| session.generation == edge.generation)
    }

    /// The session in a slot, for callers who keep slots only as long as the session lives.
    pub fn at_slot(&self, slot: u32) -> Option<&EdgeSession> {
        self.sessions.get(slot as usize)?.as_ref()
    }

    pub fn edge_ref(&self, slot: u32) -> Option<EdgeRef> {
        self.at_slot(slot).map(|session| EdgeRef { seat: self.here, slot, generation: session.generation })
    }

    /// The home has attached a session.
    pub fn attach(&mut self, edge: EdgeRef, home: Home) {
        if let Some(session) = self.sessions[edge.slot as usize].as_mut().filter(|s| s.generation == edge.generation) {
            session.home = Some(home);
        }
    }

    /// A session's connection or stream has ended: it watches nobody any more. Returns where its home was.
    pub fn close(&mut self, edge: EdgeRef, out: &mut super::outbox::Outbox) -> Option<Home> {
        self.get(edge)?;
        self.unwatch_all(edge.slot, out);
        self.forget_attention(edge.slot);
        let session = self.sessions[edge.slot as usize].take().expect("got above");
        self.free_sessions.push(edge.slot);
        *self.place(session.conn.slot, session.stream) = NO_SESSION;
        session.home
    }

    /// The sessions whose users' homes are these.
    pub fn sessions_of_homes(&self, concerns: impl Fn(UserId) -> bool) -> Vec<EdgeRef> {
        let concerned = |session: &EdgeSession| session.home.is_some_and(|home| concerns(home.user));
        let slots = self.sessions.iter().enumerate().filter(|(_, session)| session.as_ref().is_some_and(concerned));
        slots.filter_map(|(slot, _)| self.edge_ref(slot as u32)).collect()
    }

    /// A connection is gone: nothing is put off for it any more.
    pub fn forget_conn(&mut self, conn: ConnId) {
        self.put_off.remove(&conn.slot);
        self.rests.remove(&conn.slot);
        self.streams.remove(&conn.slot);
    }

    pub fn session_count(&self) -> usize {
        self.sessions.len() - self.free_sessions.len()
    }

    pub fn publisher_count(&self) -> usize {
        self.by_user.len()
    }

    /// Where the session of a connection is, or `NO_SESSION`.
    #[inline]
    pub fn session_slot(&self, conn_slot: u32) -> u32 {
        self.by_conn.get(conn_slot as usize).copied().unwrap_or(NO_SESSION)
    }

    /// The same of a trunk's stream.
    #[inline]
    pub fn stream_slot(&self, conn_slot: u32, stream: u32) -> u32 {
        self.session_of_stream(conn_slot, stream).unwrap_or(NO_SESSION)
    }

    /// Reads a publisher's record, for the cache.
    #[inline]
    pub fn glance(&self, slot: u32) -> u32 {
        self.publishers.get(slot as usize).and_then(Option::as_ref).map_or(0, |publisher| publisher.nonce)
    }

    /// Reads what is kept of a publisher of another core, for the cache.
    #[inline]
    pub fn glance_at_cache(&self, slot: u32) -> u32 {
        self.publishers.get(slot as usize).and_then(Option::as_ref).map_or(0, |publisher| publisher.cache.glance())
    }

    /// Reads the trunks of a publisher and the lines of its first subscribers, for the cache.
    #[inline]
    pub fn glance_at_lines(&self, slot: u32, lines: &Lines) -> u32 {
        let Some(publisher) = self.publishers.get(slot as usize).and_then(Option::as_ref) else { return 0 };
        let trunks = publisher.trunks.iter().fold(0, |seen, group| seen ^ group.conn);
        publisher.direct.iter().take(GLANCED_LINES).fold(trunks, |seen, &conn| seen ^ lines.glance(conn))
    }

    /// Questions to publishers' homes that are not answered yet.
    pub fn asked_count(&self) -> usize {
        self.asked.len()
    }

    fn session_of_conn(&self, conn_slot: u32) -> Option<u32> {
        self.by_conn.get(conn_slot as usize).copied().filter(|&slot| slot != NO_SESSION)
    }

    fn session_of_stream(&self, conn_slot: u32, stream: u32) -> Option<u32> {
        self.streams.get(&conn_slot)?.get(stream as usize).copied().filter(|&slot| slot != NO_SESSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_and_a_publisher_are_one_cache_line_each() {
        assert_eq!(size_of::<Option<EdgeSession>>(), 64);
        assert_eq!(size_of::<Option<Publisher>>(), 64);
    }
}
