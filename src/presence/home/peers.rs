//! Other nodes of the cluster, as the homes of a core see them: their edges watch users of this core, users of this core have
//! sessions there, and subscription changes are on their way between them.
//!
//! Lives on: every core. Serves M2, Z8, Z13. Invariant: of a node that is gone, no destination and no session is left, nor anybody
//! who is about to get one.

use super::Homes;
use super::change::{Change, forget_way, way_row};
use crate::base::id::{NodeId, SessionId};
use crate::base::jid::Bare;
use crate::base::time::Time;
use crate::presence::control::{Arrival, Control, EdgeRef, SessionEnd, UserRef, Way, WayKind, WayName};
use crate::presence::edge::Edge;
use crate::presence::frame::{self, is_farewell, is_reference};
use crate::presence::missed::Ended;
use crate::presence::outbox::Outbox;
use crate::presence::relay::SLOT;
use crate::presence::user::{UnderWay, User};
use crate::store::{Durability, Write};
use crate::wire::event::Head;
use std::collections::{BTreeMap, VecDeque};

/// Ways of one other cluster at one core whose senders have not said yet that they won't come again; and ways for one user that
/// wait to be stored. At the limit: the next one from there is not taken in.
const FAR_WAYS: usize = 65_536;

impl Homes {
    /// Nobody of another node watches users of this core any more, and sessions whose connections were there are broken: they may
    /// be resumed by another node for as long as any broken session. Log-ins that wait for an account have been refused there.
    pub fn node_gone(&mut self, now: Time, node: NodeId, edge: &mut Edge, out: &mut Outbox) {
        let mut broken: Vec<(UserRef, SessionId, EdgeRef)> = Vec::new();
        for (slot, user) in self.users.iter_mut().enumerate().filter_map(|(slot, user)| Some((slot, user.as_mut()?))) {
            user.outbound.retain(|destination| destination.seat.node != node);
            if let Some(rare) = &mut user.rare {
                rare.waiting.retain(|change| !matches!(change, Change::Attach(attach) if attach.asker.edge.seat.node == node));
            }
            let at = user.at(slot as u32);
            let there = user.sessions.iter().filter_map(|session| Some((session.id, session.edge?)));
            broken.extend(there.filter(|(_, edge)| edge.seat.node == node).map(|(session, edge)| (at, session, edge)));
        }
        for (at, session, from) in broken {
            self.detach(now, at, session, from, SessionEnd::Lost { within_ms: self.place.limits.resume_ms }, edge, out);
        }
    }

    /// An update could not go to another node now: the newest will, later. What is whole may be what was asked for, which isn't
    /// asked again: the session is owed, and so is one that has gone, for it may be back by reference before that is told.
    pub fn put_off_for(&self, node: NodeId, frame: &[u8], out: &mut Outbox) {
        let head @ Head { user, session, .. } = frame::head(frame);
        let at = self.by_user(user).unwrap_or(UserRef { user, slot: SLOT });
        // Else it only passes through, and was not kept here.
        let is_owed = out.map.gateway(user) == out.map.here && !is_reference(&head);
        let Some(peer) = out.peers.get_mut(&node) else { return };
        if is_owed {
            peer.wanted.add(user, session);
        }
        if !is_owed || is_farewell(&head) {
            peer.put_off.insert((SLOT, user, session), (at, Ended::of(frame)));
        }
    }

    /// A way has been carried out: its sender hears of it, before anything that follows from it. Nothing that its sender said
    /// before the last one of this user's ways arrived there comes any more.
    pub(super) fn has_arrived(&mut self, arrived: Option<(WayName, u64)>, out: &mut Outbox) {
        let Some((name, last)) = arrived else { return };
        self.note_heard(&name, last, out);
        let is_far = !out.map.is_certain(&name.from);
        let user = self.by_name(&name.to).and_then(|at| self.user(at)).filter(|_| is_far);
        let is_settled = |way: &UnderWay| way.cluster == name.cluster && way.arrived.is_some_and(|before| before <= name.sequence);
        let settled = user.map(|user| user.settled(&name.from, is_settled));
        self.confirm(name, last, out);
        settled.into_iter().flatten().for_each(|name| forget_way(Box::new(name), &mut self.storing, out));
    }

    /// Tells the sender of a way that it has arrived, and which ways back may still come that were made before: those that wait to
    /// set out.
    pub(super) fn confirm(&self, name: WayName, last: u64, out: &mut Outbox) {
        let before = match out.map.is_certain(&name.from) {
            true => 0,
            false => self.ways_between(&name.to, &name.from).map(|way| way.sequence).filter(|&way| way <= last).max().unwrap_or(0),
        };
        out.send(out.map.home_of(&name.from), Arrival { name, before }.done());
    }

    /// The same once more; of one that was not to come again, that it arrived.
    pub(super) fn confirm_again(&self, name: WayName, out: &mut Outbox) {
        let last = self.heard.get(&name).copied().unwrap_or(0);
        self.confirm(name, last, out);
    }

    /// A way has arrived. Unless it never left this node, it may come again until its sender says that it won't.
    pub(super) fn note_heard(&mut self, name: &WayName, last: u64, out: &Outbox) {
        if !out.map.is_certain(&name.from) {
            self.once.note(name);
            let is_new = self.heard.insert(name.clone(), last).is_none();
            if is_new && name.cluster != 0 {
                *self.heard_from.entry(name.cluster).or_default() += 1;
            }
        }
    }

    /// Whether another way from a cluster may be taken in for a user. One that is not is sent again when the clusters next meet.
    pub fn has_room_for_way(&self, to: &Bare, cluster: u16) -> bool {
        let user = self.by_name(to).and_then(|at| self.get(at));
        let waiting = user.and_then(|user| user.rare.as_ref()).map_or(0, |rare| rare.waiting.len());
        let strays = self.strays.get(to).map_or(0, VecDeque::len);
        let heard = self.heard_from.get(&cluster).copied().unwrap_or(0);
        waiting.max(strays) < FAR_WAYS && heard < FAR_WAYS
    }

    /// A way whose sender is not here is under way all the same, until its receiver says that it has arrived.
    pub(super) fn set_adrift(&mut self, way: Way) {
        self.adrift.insert((way.from.clone(), way.to.clone(), way.sequence), way);
    }

    /// The deletions of what a user who goes has under way and nobody would take any more: they are stored with the removal.
    pub(super) fn ways_given_up(user: &User, out: &Outbox) -> Vec<Write> {
        let under_way = user.rare.iter().flat_map(|rare| &rare.under_way);
        let given_up = under_way.filter(|way| way.arrived.is_none() && !is_left_behind(way.kind, &way.to, out));
        given_up.map(|way| way_row(&sent_again(user, way).name())).collect()
    }

    /// All else that such a user has under way sets out without a sender.
    pub(super) fn set_all_adrift(&mut self, user: &User, out: &mut Outbox) {
        let under_way = user.rare.iter().flat_map(|rare| &rare.under_way);
        for way in under_way {
            let (left, is_far) = (sent_again(user, way), !out.map.is_certain(&way.to));
            match way.arrived {
                None if is_left_behind(way.kind, &way.to, out) => self.set_adrift(left),
                None => {}
                Some(_) if is_far => forget_way(Box::new(WayName { cluster: way.cluster, ..left.name() }), &mut self.storing, out),
                Some(_) => {}
            }
        }
    }

    /// The same after a start, of one of a user who is gone. False: it is forgotten.
    pub(super) fn leave_behind(&mut self, way: &Way, out: &mut Outbox) -> bool {
        let is_kept = is_left_behind(way.kind, &way.to, out);
        match is_kept {
            true => self.set_adrift(way.clone()),
            false => _ = out.commit(vec![way_row(&way.name())], Durability::RideAlong),
        }
        is_kept
    }

    /// Sends a way. To a home that a link may not reach only when none is under way there from the same user to the same one: those
    /// behind wait for its confirmation, so that they arrive in order whatever breaks.
    pub(super) fn set_out(&mut self, way: Box<Way>, out: &mut Outbox) {
        if out.map.is_certain(&way.to) && !self.are_far(&way.from, &way.to) {
            return out.send(out.map.home_of(&way.to), Control::Way(way));
        }
        let is_next = self.next_way(&way.from, &way.to).is_none_or(|next| next.sequence == way.sequence);
        if self.may_set_out(&way, out) && is_next {
            self.send_way(*way, out);
        }
    }

    /// Sends a way with word of what its sender's home knew when it was made, of what the receiver's may not know that it knows.
    pub(super) fn send_way(&self, mut way: Way, out: &mut Outbox) {
        let back = |sequence, cluster| WayName { from: way.to.clone(), to: way.from.clone(), sequence, cluster };
        let heard = self.heard.range(back(0, 0)..=back(u64::MAX, u16::MAX));
        let mut knows: BTreeMap<u16, u64> = BTreeMap::new();
        for (name, _) in heard.filter(|(_, last)| **last < way.sequence) {
            let known = knows.entry(name.cluster).or_default();
            *known = name.sequence.max(*known);
        }
        way.knows = knows.into_iter().collect();
        out.send(out.map.home_of(&way.to), Control::Way(Box::new(way)));
    }

    /// The ways from a user, or from nobody who is here, to another one of which it isn't known that they have arrived.
    fn ways_between(&self, from: &Bare, to: &Bare) -> impl Iterator<Item = Way> {
        let place = |sequence| (from.clone(), to.clone(), sequence);
        let adrift = self.adrift.range(place(0)..=place(u64::MAX)).map(|(_, way)| way.clone());
        let user = self.by_name(from).and_then(|at| self.get(at));
        let under_way = user
            .into_iter()
            .flat_map(|user| user.rare.iter().flat_map(move |rare| rare.under_way.iter().map(move |way| (user, way))));
        let own = under_way.filter(move |(_, way)| way.to == *to && way.arrived.is_none()).map(|(user, way)| sent_again(user, way));
        adrift.chain(own)
    }

    /// The first of them.
    pub(super) fn next_way(&self, from: &Bare, to: &Bare) -> Option<Way> {
        self.ways_between(from, to).min_by_key(|way| way.sequence)
    }

    /// A way has arrived: the next one between the same two sets out. It is kept in mind while the contact's ways may come that
    /// were made before.
    pub(super) fn way_confirmed(&mut self, Arrival { name, before }: Arrival, out: &mut Outbox) {
        // One that is confirmed once more has sent the next one out before.
        let is_news = self.next_way(&name.from, &name.to).is_some_and(|way| way.sequence == name.sequence);
        let kept = before > 0 && !self.has_heard_back(&name, before) && self.keep_in_mind(&name, before);
        let user = self.by_name(&name.from).and_then(|at| self.user(at)).filter(|_| !kept);
        let is_over = |way: &UnderWay| way.arrived.is_some() && way.cluster == name.cluster && way.sequence < name.sequence;
        let is_settled = |way: &UnderWay| way.sequence == name.sequence || is_over(way);
        let mut settled = user.map(|user| user.settled(&name.to, is_settled)).unwrap_or_default();
        settled.retain(|settled| settled.sequence != name.sequence);
        self.adrift.remove(&(name.from.clone(), name.to.clone(), name.sequence));
        match self.next_way(&name.from, &name.to) {
            Some(way) if is_news && self.are_far(&name.from, &name.to) => self.send_way(way, out),
            Some(_) => {}
            None => self.none_under_way((name.from.clone(), name.to.clone()), out),
        }
        settled.extend(Some(name).filter(|_| !kept));
        settled.into_iter().for_each(|name| forget_way(Box::new(name), &mut self.storing, out));
    }

    /// Whether a way from the receiver of another one, with this number or a later one, has arrived already. That it will not come
    /// again may have been said since, and have overtaken what this is asked for.
    fn has_heard_back(&self, name: &WayName, before: u64) -> bool {
        let back = |sequence, cluster| WayName { from: name.to.clone(), to: name.from.clone(), sequence, cluster };
        let mut heard = self.heard.range(back(before, 0)..=back(u64::MAX, u16::MAX));
        self.once.is_old(&back(before, name.cluster)) || heard.any(|(heard, _)| heard.cluster == name.cluster)
    }

    /// A way has arrived before ways of the contact that were made without it. False: it is not known here.
    fn keep_in_mind(&mut self, name: &WayName, before: u64) -> bool {
        let user = self.by_name(&name.from).and_then(|at| self.user(at));
        let under_way = user.into_iter().flat_map(|user| &mut user.rare).flat_map(|rare| &mut rare.under_way);
        let mut sent = under_way.filter(|way| way.sequence == name.sequence && way.to == name.to);
        sent.next().map(|way| (way.arrived, way.cluster) = (Some(before), name.cluster)).is_some()
    }

    /// A way from another node will not come again.
    pub(super) fn forget_heard(&mut self, name: &WayName, out: &mut Outbox) {
        if self.heard.remove(name).is_some() {
            if let Some(count) = self.heard_from.get_mut(&name.cluster) {
                *count -= 1;
            }
            self.is_forgotten((name.to.clone(), name.from.clone()), out);
            // On one node the row is the sender's, too.
            if out.map.end(name.cluster, &name.from).node != out.map.here.node {
                out.commit(vec![way_row(name)], Durability::RideAlong);
            }
        }
    }

    /// A way has found nobody in the cluster that it was sent to.
    pub fn way_again(&mut self, name: &WayName, out: &mut Outbox) {
        if let Some(way) = self.adrift.get(&(name.from.clone(), name.to.clone(), name.sequence)) {
            return self.send_way(way.clone(), out);
        }
        let user = self.by_name(&name.from).and_then(|at| self.get(at));
        let under_way = user.iter().filter_map(|user| user.rare.as_ref()).flat_map(|rare| &rare.under_way);
        let mut found = under_way.filter(|way| way.sequence == name.sequence && way.to == name.to);
        if let (Some(user), Some(way)) = (user, found.next()) {
            self.send_way(sent_again(user, way), out);
        }
    }
}

/// Whether a way of a user who goes still sets out: elsewhere nothing is taken from somebody who is gone but leave.
fn is_left_behind(kind: WayKind, to: &Bare, out: &Outbox) -> bool {
    kind.takes_leave() || out.map.is_certain(to)
}

pub(super) fn sent_again(user: &User, way: &UnderWay) -> Way {
    let UnderWay { to, to_user, kind, note, sequence, .. } = way.clone();
    Way { from: user.jid.clone(), from_user: user.id, to, to_user, kind, note, sequence, cluster: 0, knows: vec![] }
}
