//! Requests whose answers come from other nodes: log-ins at homes elsewhere, and what a session asks of users whose homes are
//! neither here nor with its own, or may come to be elsewhere, since their slots have no owner yet. A link that is lost takes
//! requests and answers with it, and at neither end can anybody say which of them had arrived: so whoever has asked keeps in mind
//! what is asked of which node.
//!
//! Lives on: every core. Serves M2, M4, Z9. What a session's own home answers is not kept here: with that home the session ends.
//! Invariants: of what is kept each one is answered once, by the node, or with `home_out_of_reach` once that is lost or two looks
//! have found it waiting; what was refused so may have been done nevertheless, and the node's answer to it is dropped.

use super::Shard;
use crate::base::id::{NodeId, Seat, slot_of};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Ask, Asker, EdgeRef, SessionEvent};
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests that one core keeps in mind. At the limit: refused, `overloaded`.
const ASKED: usize = 65_536;
/// How often they are looked at: an answer is waited for this long at least, and twice as long at most. Other clusters' answers
/// have less (`presence::gateway`).
const LOOK: Duration = Duration::from_secs(31);

/// A session's or a log-in's place at the edge, and the number of the request.
type Key = (u32, u32, u32);

struct Waiting {
    edge: EdgeRef,
    node: NodeId,
    /// How often it was found waiting.
    looks: u8,
}

/// Found waiting so often, it is refused. It is kept until the next look, so that an answer that comes later is known.
const REFUSED: u8 = 2;

#[derive(Default)]
pub(super) struct Asked {
    waiting: BTreeMap<Key, Waiting>,
    due: Option<Time>,
}

fn key(edge: EdgeRef, request: u32) -> Key {
    (edge.slot, edge.generation, request)
}

impl Asked {
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= ASKED
    }

    fn note(&mut self, Asker { edge, request }: Asker, node: NodeId) {
        self.waiting.insert(key(edge, request), Waiting { edge, node, looks: 0 });
    }

    /// An answer has come. False: it comes too late, and was refused.
    pub fn answered(&mut self, edge: EdgeRef, request: u32) -> bool {
        self.waiting.is_empty() || self.waiting.remove(&key(edge, request)).is_none_or(|waiting| waiting.looks < REFUSED)
    }

    /// Something is asked under a number: from now on it's the answer to this that is awaited.
    fn begins(&mut self, edge: EdgeRef, request: u32) {
        if !self.waiting.is_empty() && self.waiting.get(&key(edge, request)).is_some_and(|waiting| waiting.looks >= REFUSED) {
            self.waiting.remove(&key(edge, request));
        }
    }

    /// A node is lost, and nothing comes from it any more: what is to be refused.
    fn lost(&mut self, node: NodeId) -> Vec<(EdgeRef, u32)> {
        let lost = self.waiting.extract_if(.., |_, waiting| waiting.node == node);
        lost.filter(|(_, waiting)| waiting.looks < REFUSED).map(|((.., request), waiting)| (waiting.edge, request)).collect()
    }

    /// Looks at all that waits: what is to be refused.
    fn look(&mut self) -> Vec<(EdgeRef, u32)> {
        self.waiting.retain(|_, waiting| waiting.looks < REFUSED);
        self.waiting.values_mut().for_each(|waiting| waiting.looks += 1);
        let late = self.waiting.iter().filter(|(_, waiting)| waiting.looks == REFUSED);
        late.map(|((.., request), waiting)| (waiting.edge, *request)).collect()
    }
}

/// The request that an event answers.
pub(super) fn request_of(event: &SessionEvent) -> u32 {
    match *event {
        SessionEvent::Done { request }
        | SessionEvent::Error { request, .. }
        | SessionEvent::LastSeen { request, .. }
        | SessionEvent::Document { request, .. } => request,
        _ => 0,
    }
}

impl Shard {
    /// A user's log-in goes to a home; as long as none is there, to whoever finds one, and from there to another node perhaps.
    pub(super) fn note_log_in(&mut self, asker: Asker, home: Seat, jid: &Bare) {
        let map = &self.out.map;
        if home.node != map.here.node || !map.is_owned(slot_of(jid.as_str())) {
            self.asked.note(asker, home.node);
        }
    }

    /// A session asks something, by its home, that the home of another user answers. False: there is no room to keep that in mind.
    pub(super) fn note_ask(&mut self, asker: Asker, home: Seat, ask: &Ask) -> bool {
        self.asked.begins(asker.edge, asker.request);
        let (Ask::Message { to: other, .. } | Ask::LastSeen { jid: other } | Ask::DocumentGet { jid: Some(other), .. }) = ask
        else {
            return true;
        };
        let map = &self.out.map;
        let node = map.home_of(other).node;
        let is_near = map.is_owned(slot_of(other.as_str())) && (node == map.here.node || node == home.node);
        if asker.request == 0 || is_near {
            return true;
        }
        let has_room = !self.asked.is_full();
        if has_room {
            self.asked.note(asker, node);
        }
        has_room
    }

    /// A node is lost: what was asked of it is answered.
    pub(super) fn give_up_asked(&mut self, node: NodeId) {
        let lost = self.asked.lost(node);
        self.refuse_asked(lost);
    }

    /// Gives up what was waited for too long. Gives when to look again.
    pub(super) fn look_at_asked(&mut self, now: Time) -> Option<Time> {
        if self.asked.due.is_some_and(|due| due <= now) {
            self.asked.due = None;
            let late = self.asked.look();
            self.refuse_asked(late);
        }
        match self.asked.waiting.is_empty() {
            true => self.asked.due = None,
            false => _ = self.asked.due.get_or_insert(now + LOOK),
        }
        self.asked.due
    }

    fn refuse_asked(&mut self, asked: Vec<(EdgeRef, u32)>) {
        for (edge, request) in asked {
            self.request_failed(edge, request, Reason::HomeOutOfReach, "");
        }
    }
}
