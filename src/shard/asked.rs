//! Requests whose answers come from other nodes: log-ins at homes elsewhere, and what a session asks of users whose homes are
//! neither here nor with its own. A link that is lost takes requests and answers with it, and at neither end can anybody say which
//! of them had arrived: so whoever has asked keeps in mind what is asked of which node.
//!
//! Lives on: every core. Serves M2, M4, Z9. What a session's own home answers is not kept here: with that home the session ends.
//! Invariants: of what is kept each one is answered, by the node, or with `home_out_of_reach` once that is lost or two looks have
//! found it waiting; what was refused so may have been done nevertheless.

use super::Shard;
use crate::base::id::{NodeId, Seat};
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
    /// It was waiting already when it was looked at last.
    looked_at: bool,
}

#[derive(Default)]
pub(super) struct Asked {
    waiting: BTreeMap<Key, Waiting>,
    look: Option<Time>,
}

fn key(edge: EdgeRef, request: u32) -> Key {
    (edge.slot, edge.generation, request)
}

impl Asked {
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= ASKED
    }

    fn note(&mut self, Asker { edge, request }: Asker, node: NodeId) {
        self.waiting.insert(key(edge, request), Waiting { edge, node, looked_at: false });
    }

    /// An answer has come.
    pub fn answered(&mut self, edge: EdgeRef, request: u32) {
        if !self.waiting.is_empty() {
            self.waiting.remove(&key(edge, request));
        }
    }

    fn take(&mut self, which: impl Fn(&Waiting) -> bool) -> Vec<(EdgeRef, u32)> {
        self.waiting.extract_if(.., |_, waiting| which(waiting)).map(|((.., request), waiting)| (waiting.edge, request)).collect()
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
    /// A log-in goes to a home.
    pub(super) fn note_log_in(&mut self, asker: Asker, home: Seat) {
        if home.node != self.out.map.here.node {
            self.asked.note(asker, home.node);
        }
    }

    /// A session asks something, by its home, that the home of another user answers. False: there is no room to keep that in mind.
    pub(super) fn note_ask(&mut self, asker: Asker, home: Seat, ask: &Ask) -> bool {
        let (Ask::Message { to: other, .. } | Ask::LastSeen { jid: other } | Ask::DocumentGet { jid: Some(other), .. }) = ask
        else {
            return true;
        };
        let node = self.out.map.home_of(other).node;
        if asker.request == 0 || node == self.out.map.here.node || node == home.node {
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
        let lost = self.asked.take(|waiting| waiting.node == node);
        self.refuse_asked(lost);
    }

    /// Gives up what was waited for too long. Gives when to look again.
    pub(super) fn look_at_asked(&mut self, now: Time) -> Option<Time> {
        if self.asked.look.is_some_and(|look| look <= now) {
            self.asked.look = None;
            let late = self.asked.take(|waiting| waiting.looked_at);
            self.asked.waiting.values_mut().for_each(|waiting| waiting.looked_at = true);
            self.refuse_asked(late);
        }
        match self.asked.waiting.is_empty() {
            true => self.asked.look = None,
            false => _ = self.asked.look.get_or_insert(now + LOOK),
        }
        self.asked.look
    }

    fn refuse_asked(&mut self, asked: Vec<(EdgeRef, u32)>) {
        for (edge, request) in asked {
            self.request_failed(edge, request, Reason::HomeOutOfReach, "");
        }
    }
}
