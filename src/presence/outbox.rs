//! What one step of a core wants done elsewhere: bytes on its connections' lines, entries for other cores, commits for the store.
//!
//! Lives on: every core, owned by the shard. Serves G2, G3. Invariants: nothing here waits for another core; an update for a core
//! whose ring is full is remembered once per publisher's session, not once per update.

use super::control::{Control, EdgeRef, SessionEvent, Snapshot, UserRef};
use super::frame::{self, Events, is_farewell, is_reference};
use super::lapsed::Lapses;
use super::missed::Ended;
use crate::base::id::{CoreId, NodeId, Seat, SessionId, UserId};
use crate::base::limits::Limits;
use crate::base::map::Map;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::store::{Commit, Durability, Write};
use crate::wire::lines::Lines;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes before each event frame in `Updates`: frame length, destination slot.
const UPDATE_HEAD: usize = 8;

/// Presence updates for one other core: contiguous, read in place there.
#[derive(Default, Debug)]
pub struct Updates {
    bytes: Vec<u8>,
    count: u32,
    /// When the first of them was made.
    since: Option<Time>,
}

/// One update out of `Updates`.
pub struct UpdateEntry<'a> {
    pub slot: u32,
    pub frame: &'a [u8],
}

impl Updates {
    pub fn push(&mut self, slot: u32, at: Time, frame: &[u8]) {
        self.since.get_or_insert(at);
        let head = frame.len() as u64 | u64::from(slot) << 32;
        self.bytes.extend_from_slice(&head.to_le_bytes());
        self.bytes.extend_from_slice(frame);
        self.count += 1;
    }

    /// The entries in order. Panics on bytes that `push` did not write, which would be our own fault.
    pub fn iter(&self) -> impl Iterator<Item = UpdateEntry<'_>> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_first_chunk::<UPDATE_HEAD>()?;
            let head = u64::from_le_bytes(*head);
            let (frame, after) = tail.split_at(head as u32 as usize);
            rest = after;
            Some(UpdateEntry { slot: (head >> 32) as u32, frame })
        })
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn since(&self) -> Option<Time> {
        self.since
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.since) = (0, None);
    }
}

/// A publisher's session whose newest state still has to reach a core, and what it was when it was put off: its farewell, should it
/// be gone by then.
pub type PutOff = BTreeMap<(u32, UserId, SessionId), (UserRef, Ended)>;

/// What goes to one other core.
#[derive(Default)]
pub struct Bound {
    pub updates: Updates,
    pub put_off: PutOff,
    /// Entries that wait because the core has not taken those before them: the shard keeps count.
    pub waiting: usize,
}

/// What goes to one other node, in order.
#[derive(Default)]
pub struct Peer {
    parcels: Vec<Parcel>,
    /// Event frames, one behind the other.
    updates: Vec<u8>,
    pub put_off: PutOff,
    pub wanted: Wanted,
    pub lapses: Lapses,
    /// The node can be reached by all of its cores.
    pub found: bool,
    /// The link can't keep up, or is not there for a moment: updates are put off.
    pub slow: bool,
    /// Nothing may be begun that adds to what waits for the node.
    pub full: bool,
}

/// Sessions whose newest presence a node is owed, whole: it has heard of one by reference and asked, or could not be sent one. Each
/// has its turn once in a round, so that none waits for ever; and nothing else is told of it meanwhile, but that it has gone.
#[derive(Default)]
pub struct Wanted {
    next: BTreeSet<(UserId, SessionId)>,
    round: BTreeSet<(UserId, SessionId)>,
}

impl Wanted {
    pub fn add(&mut self, user: UserId, session: SessionId) {
        self.next.insert((user, session));
    }

    fn has(&self, user: UserId, session: SessionId) -> bool {
        self.next.contains(&(user, session)) || self.round.contains(&(user, session))
    }

    /// How many this round has.
    pub fn begin_round(&mut self) -> usize {
        if self.round.is_empty() {
            std::mem::swap(&mut self.round, &mut self.next);
        }
        self.round.len()
    }

    pub fn take_one(&mut self) -> Option<(UserId, SessionId)> {
        self.round.pop_first()
    }
}

/// A piece of it.
pub enum Parcel {
    Control(CoreId, Control),
    /// So many bytes of updates.
    Updates(usize),
}

impl Peer {
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Takes all of it, and the bytes of its updates.
    pub fn take(&mut self) -> (Vec<Parcel>, Vec<u8>) {
        (std::mem::take(&mut self.parcels), std::mem::take(&mut self.updates))
    }

    /// Appends an update as it is.
    pub fn update(&mut self, frame: &[u8]) {
        self.updates.extend_from_slice(frame);
        match self.parcels.last_mut() {
            Some(Parcel::Updates(bytes)) => *bytes += frame.len(),
            _ => self.parcels.push(Parcel::Updates(frame.len())),
        }
    }
}

/// All of it.
pub struct Outbox {
    pub map: Map,
    pub lines: Lines,
    pub bound: Vec<Bound>,
    /// Other nodes of the cluster that can be reached.
    pub peers: BTreeMap<NodeId, Peer>,
    /// What was for a node that can't be reached, or for a slot without an owner.
    pub undelivered: Vec<Control>,
    /// In order; those for this core itself are worked off before the step ends.
    pub controls: Vec<(CoreId, Control)>,
    pub commits: Vec<Commit>,
    /// Sessions for which another node, or cluster, was asked what documents say, since the homes looked last.
    pub asked_elsewhere: Vec<(UserId, SessionId)>,
    /// Bytes of a presence above which it goes to another node by reference (M5).
    pub inline_max: usize,
    /// Users whose ways set out again at once to one other node or cluster.
    pub again_at_once: usize,
    /// Updates that went so.
    pub referred: u64,
    /// Words about homes that joined one that still waited for its link.
    pub lapses_joined: u64,
    next_ticket: u64,
    /// Bytes of updates for one core above which they are put off.
    batch_bytes: usize,
    /// Entries that may wait for one core.
    most_waiting: usize,
}

impl Outbox {
    /// `unit_bytes`: a message up to this long counts as one unit of load (C1).
    pub fn new(map: Map, limits: &Limits, unit_bytes: u32) -> Outbox {
        Outbox {
            lines: Lines::counting(unit_bytes),
            bound: (0..map.cores).map(|_| Bound::default()).collect(),
            map,
            peers: BTreeMap::new(),
            undelivered: Vec::new(),
            controls: Vec::new(),
            commits: Vec::new(),
            asked_elsewhere: Vec::new(),
            inline_max: usize::MAX,
            again_at_once: 1_024,
            referred: 0,
            lapses_joined: 0,
            next_ticket: 1,
            batch_bytes: limits.ring_batch_bytes as usize,
            most_waiting: limits.ring_control as usize,
        }
    }

    pub fn send(&mut self, seat: Seat, control: Control) {
        if seat.node == self.map.here.node {
            return self.controls.push((seat.core, control));
        }
        match self.peers.get_mut(&seat.node) {
            Some(peer) => peer.parcels.push(Parcel::Control(seat.core, control)),
            None => self.undelivered.push(control),
        }
    }

    /// Tells whoever watches a publisher its state: what is long of it by reference, if that is on another node.
    pub fn send_state(&mut self, seat: Seat, mut snapshot: Snapshot) {
        if seat.node != self.map.here.node && snapshot.events.iter().any(|frame| self.is_long(frame)) {
            let mut events = Events::default();
            for frame in snapshot.events.iter() {
                match self.is_long(frame) {
                    true => events.append(frame::reference(frame).bytes()),
                    false => events.append(frame),
                }
            }
            snapshot.events = events;
        }
        self.send(seat, Control::Snapshot(Box::new(snapshot)));
    }

    /// Whether a presence goes to other nodes by reference. A farewell never does: the session is gone, and can't be asked for.
    #[inline]
    pub fn is_long(&self, frame: &[u8]) -> bool {
        if frame::presence(frame).len() <= self.inline_max {
            return false;
        }
        let head = frame::head(frame);
        !is_farewell(&head) && !is_reference(&head)
    }

    /// Tells a session something.
    pub fn tell(&mut self, edge: EdgeRef, event: SessionEvent) {
        self.send(edge.seat, Control::ToSession { edge, event });
    }

    /// Whether a core has so much to take that nothing may be begun that adds to it. What goes on, or comes to its end, still may.
    #[inline]
    pub fn is_full(&self, seat: Seat) -> bool {
        self.refusal(seat).is_some()
    }

    /// Why nothing may be begun with a core that adds to what it has to take.
    #[inline]
    pub fn refusal(&self, seat: Seat) -> Option<Reason> {
        if seat.node == self.map.here.node {
            return (self.bound[usize::from(seat.core.0)].waiting >= self.most_waiting).then_some(Reason::Overloaded);
        }
        match self.peers.get(&seat.node).filter(|peer| peer.found) {
            Some(peer) => peer.full.then_some(Reason::Overloaded),
            // It waits until the slot has an owner.
            None if seat.node == NodeId::default() => None,
            None => Some(Reason::HomeOutOfReach),
        }
    }

    /// The same of any core.
    pub fn is_any_full(&self) -> bool {
        self.bound.iter().any(|bound| bound.waiting >= self.most_waiting)
    }

    /// Updates that another core of this node has still to be given.
    pub fn updates_for(&self, seat: Seat) -> usize {
        if seat.node == self.map.here.node { self.bound[usize::from(seat.core.0)].updates.len() } else { 0 }
    }

    /// Sends an update to another core, or puts it off. False: put off.
    pub fn update(&mut self, seat: Seat, slot: u32, at: UserRef, now: Time, frame: &[u8]) -> bool {
        if seat.node != self.map.here.node {
            return self.update_far(seat, slot, at, frame);
        }
        let bound = &mut self.bound[usize::from(seat.core.0)];
        if bound.updates.bytes() + frame.len() > self.batch_bytes || !bound.put_off.is_empty() {
            let ended = Ended::of(frame);
            bound.put_off.insert((slot, at.user, ended.session), (at, ended));
            return false;
        }
        bound.updates.push(slot, now, frame);
        true
    }

    /// Sends an update to another node, or tells it of one that it is to ask for, unless the newest goes there anyway.
    fn update_far(&mut self, seat: Seat, slot: u32, at: UserRef, frame: &[u8]) -> bool {
        let head = frame::head(frame);
        let is_owed = |peer: &Peer| peer.wanted.has(at.user, head.session);
        if !is_farewell(&head) && self.peers.get(&seat.node).is_some_and(is_owed) {
            return true;
        }
        if !self.is_long(frame) {
            return self.pass_on(seat, slot, at, frame);
        }
        self.referred += 1;
        self.pass_on(seat, slot, at, frame::reference(frame).bytes())
    }

    /// The same to another node, as it is. One that can't be reached asks for the whole state when it's back.
    pub fn pass_on(&mut self, seat: Seat, slot: u32, at: UserRef, frame: &[u8]) -> bool {
        let Some(peer) = self.peers.get_mut(&seat.node) else { return true };
        if peer.slow || !peer.put_off.is_empty() {
            let ended = Ended::of(frame);
            peer.put_off.insert((slot, at.user, ended.session), (at, ended));
            return false;
        }
        peer.update(frame);
        true
    }

    /// Hands writes to the store. The ticket comes back in the completion.
    pub fn commit(&mut self, writes: Vec<Write>, durability: Durability) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.commits.push(Commit { ticket, writes, durability });
        ticket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Version;
    use crate::presence::frame::Events;

    #[test]
    fn updates_read_back_as_they_were_pushed() {
        let mut updates = Updates::default();
        updates.push(7, Time(11), b"frame one");
        updates.push(8, Time(12), b"");
        let read: Vec<_> = updates.iter().map(|e| (e.slot, e.frame.to_vec())).collect();
        assert_eq!(read, [(7, b"frame one".to_vec()), (8, Vec::new())]);
        assert_eq!((updates.len(), updates.since()), (2, Some(Time(11))));
    }

    #[test]
    fn an_update_for_a_full_batch_is_put_off_once_per_session() {
        let mut out = Outbox::new(Map::alone(CoreId(0), 2), &Limits { ring_batch_bytes: 100, ..Limits::default() }, 1500);
        let (at, session) = (UserRef { user: UserId(5), slot: 0 }, SessionId(1));
        let ended = |sequence| Ended { session, version: Version { epoch: 1, sequence }, resource: "desk".into() };
        let mut update = |sequence| {
            let mut frame = Events::default();
            ended(sequence).tell(at.user, &mut frame);
            out.update(Seat { core: CoreId(1), ..out.map.here }, 3, at, Time(0), frame.bytes())
        };
        assert_eq!([update(1), update(2), update(3)], [true, false, false]);
        assert_eq!(out.bound[1].updates.len(), 1);
        assert_eq!(out.bound[1].put_off.values().cloned().collect::<Vec<_>>(), [(at, ended(3))]);
    }
}
