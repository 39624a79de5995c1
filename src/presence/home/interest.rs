//! Edges and relays ask to watch a publisher, and are granted it only for a subscriber the publisher approved (Z6, Z8).

use super::Homes;
use crate::base::id::{NodeId, SessionId, UserId};
use crate::presence::control::{Control, Snapshot};
use crate::presence::frame::{self, Events};
use crate::presence::outbox::Outbox;
use crate::presence::relay::{Compare, Question, SLOT};
use crate::presence::user::{Destination, User};

impl Homes {
    /// Somebody asks to watch a publisher whose home is here; an edge of this node, one whose home is on another. False: the answer
    /// must wait.
    pub fn watch(&mut self, publisher: UserId, question: Question, out: &mut Outbox) -> bool {
        if !out.map.is_here(publisher) {
            return self.relays.watch(publisher, question, out);
        }
        let Question { subscriber, seat, slot, nonce, known } = question;
        let may_watch = |user: &&mut User| match subscriber {
            // A relay that was granted the publisher before. What a cluster says is not enough for that.
            UserId::NOBODY => match seat.node.cluster() {
                Some(cluster) => user.approves_some_of(cluster),
                None => seat.node != out.map.here.node && user.roster.from().next().is_some(),
            },
            subscriber => user.approves(subscriber),
        };
        let is_theirs = |subscriber: &UserId| seat.node.cluster().is_none_or(|cluster| subscriber.cluster() == cluster);
        let lately: Vec<UserId> = self.revoked.by(publisher).iter().copied().filter(is_theirs).collect();
        let Some(user) = self.by_user(publisher).and_then(|at| self.user(at)).filter(may_watch) else {
            self.counters.refused_watches += 1;
            out.send(seat, Control::Refused { publisher, subscriber, slot, nonce });
            return true;
        };
        let destination = Destination { seat, slot };
        if !user.outbound.contains(&destination) {
            user.outbound.push(destination);
        }
        let mut events = Events::default();
        user.events(&mut events);
        let (behind, mut revoked, jid) = (out.updates_for(seat), user.unconfirmed(), user.jid.clone());
        revoked.extend(lately.into_iter().filter(|&subscriber| !user.approves(subscriber)));
        if revoked.is_empty() && known == Some(frame::digest(events.bytes())) {
            self.counters.watches_same += 1;
            return true;
        }
        let snapshot = Snapshot { publisher, jid, subscriber, slot, nonce, events, behind, revoked };
        out.send_state(seat, snapshot);
        self.counters.watches += 1;
        true
    }

    /// Whoever was granted publishers before hears of those that are not as it knows them, and then that it has.
    pub fn compare(&mut self, compare: Compare, out: &mut Outbox) {
        let Compare { seat, place, number, known } = compare;
        let count = known.0.len() as u32;
        for (publisher, digest) in known.0 {
            let (subscriber, known) = (UserId::NOBODY, Some(digest));
            let question = Question { subscriber, seat, slot: SLOT, nonce: 0, known };
            if !self.watch(publisher, question, out) {
                // The answer comes later: until then it must not be taken for the same.
                out.send(seat, Control::Refused { publisher, subscriber, slot: SLOT, nonce: 0 });
            }
        }
        out.send(seat, Control::Compared { place, number, count });
    }

    /// Another node has heard of a session's presence by reference, and wants the whole of it. If the session has ended, its
    /// farewell is under way; if the node does not watch it any more, nothing is owed.
    pub fn obtain(&mut self, publisher: UserId, session: SessionId, node: NodeId, out: &mut Outbox) {
        let is_there = |there: &Destination| there.seat.node == node;
        let is_known = match self.by_user(publisher).and_then(|at| self.get(at)) {
            Some(user) => user.outbound.iter().any(is_there) && user.position(session).is_some(),
            // To a relay it may be gone and come back, before the node hears of that.
            None => self.relays.state_of(publisher, session, is_there).is_some(),
        };
        match out.peers.get_mut(&node).filter(|_| is_known) {
            Some(peer) => peer.wanted.add(publisher, session),
            None => self.counters.stale += 1,
        }
    }

    /// Whether another node, or cluster, watches a user of this core.
    pub fn is_watched_at(&self, publisher: UserId, node: NodeId) -> bool {
        let user = self.by_user(publisher).and_then(|at| self.get(at));
        user.is_some_and(|user| user.outbound.iter().any(|there| there.seat.node == node))
    }

    pub fn unwatch(&mut self, publisher: UserId, gone: Destination, out: &mut Outbox) {
        if !out.map.is_here(publisher) {
            self.relays.unwatch(publisher, gone, out);
        } else if let Some(user) = self.by_user(publisher).and_then(|at| self.user(at)) {
            user.outbound.retain(|destination| *destination != gone);
        }
    }
}

/// A subscriber may see the user no more: every edge that has the user in its table must know before the next update.
pub(super) fn revoke(user: &mut User, subscriber: UserId, out: &mut Outbox) {
    if subscriber == UserId::NOBODY {
        return;
    }
    for &Destination { seat, slot } in &user.outbound {
        out.send(seat, Control::Revoke { publisher: user.id, subscriber, slot });
    }
    // A cluster without subscribers gets nothing more, whatever it says.
    if let Some(cluster) = out.map.abroad(subscriber).filter(|&cluster| !user.approves_some_of(cluster)) {
        user.outbound.retain(|destination| destination.seat.node.cluster() != Some(cluster));
    }
}
