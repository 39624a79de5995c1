//! A session's presence changes: the way of an update at its home (design.md section 4, steps 3 to 5).

use super::activity::withhold;
use super::reply::{done, refuse};
use super::{Homes, news};
use crate::base::id::{CoreId, NodeId, Seat, SessionId, Version};
use crate::base::jid::Bare;
use crate::base::limits::LAST_SEQUENCE;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::cache::News;
use crate::presence::control::{Asker, Control, Directed, SessionEvent, UserRef};
use crate::presence::edge::Edge;
use crate::presence::farewell;
use crate::presence::frame::{self, Events};
use crate::presence::missed::Missed;
use crate::presence::outbox::{Outbox, PutOff};
use crate::presence::relay::SLOT;
use crate::presence::user::{Destination, Last, User};
use crate::store::{
    Durability, Table, Write,
    rows::{self, Row},
};
use crate::wire::event::Head;
use crate::wire::native::Show;
use crate::wire::presence::PresenceView;
use compact_str::CompactString;

/// Bytes of presence asked for by reference that go to another node in one turn, at most one presence above it. At the limit: the
/// others go with the next.
const WHOLE_BYTES: usize = 1 << 20;

impl Homes {
    /// A session sets its presence.
    pub fn update(
        &mut self,
        now: Time,
        at: UserRef,
        session: SessionId,
        view: &PresenceView<'_>,
        asker: Asker,
        edge: &mut Edge,
        out: &mut Outbox,
    ) {
        let show = view.show;
        let Homes { users, counters, stopwatch, scratch: frame, .. } = self;
        let user = users.get_mut(at.slot as usize).and_then(Option::as_mut).filter(|user| user.id == at.user);
        let Some((user, position)) = user.and_then(|user| user.position(session).map(|position| (user, position))) else {
            counters.stale += 1;
            return;
        };
        let found = &mut user.sessions[position];
        if found.edge != Some(asker.edge) {
            // What the connection said that the session has left would undo what it has said on the one it was resumed on.
            counters.stale += 1;
            return;
        }
        if found.resource != view.resource {
            return refuse(asker, Reason::WrongResource, "", out);
        }
        let (was_available, was_willing) = (found.available, found.is_willing());
        if show == Show::Unavailable && !was_available {
            return done(asker, out);
        }
        if !was_available && out.is_any_full() {
            // It would ask for the presence of all contacts.
            return refuse(asker, Reason::Overloaded, "", out);
        }
        if found.sequence == LAST_SEQUENCE {
            return self.wear_out(now, at, session, asker, edge, out);
        }
        found.sequence += 1;
        found.show = show;
        found.priority = view.priority;
        found.available = show != Show::Unavailable;
        found.presence.clear();
        found.presence.extend_from_slice(view.bytes);
        found.encode(at.user, user.epoch, frame);
        let begins = found.is_willing() && !was_willing;
        if let Some(stopwatch) = stopwatch {
            stopwatch.lap();
        }
        let news = if was_available { News::Change } else { News::Coming };
        counters.put_off += spread(now, at, user, session, (frame, news), edge, out);
        counters.updates += 1;
        if was_available == (show == Show::Unavailable) {
            match was_available {
                false => {
                    became_available(user, session, out);
                    self.tell_all(at, session, out);
                }
                true => self.became_unavailable(now, at, session, view.bytes, out),
            }
        }
        if begins {
            self.hand_out(at, out);
        }
        done(asker, out);
    }

    /// A session has no versions left.
    #[cold]
    fn wear_out(&mut self, now: Time, at: UserRef, session: SessionId, asker: Asker, edge: &mut Edge, out: &mut Outbox) {
        self.end_session(now, at, session, "", edge, out);
        let event = SessionEvent::Ended(Reason::SessionWornOut);
        out.tell(asker.edge, event);
    }

    /// Everything that follows from a session's farewell but the farewell's own fan-out.
    fn became_unavailable(&mut self, now: Time, at: UserRef, session: SessionId, presence: &[u8], out: &mut Outbox) {
        let stamp = self.place.wall(now);
        let Some(user) = self.user(at) else { return };
        let (jid, epoch) = (user.jid.clone(), user.epoch);
        let Some(found) = user.session(session) else { return };
        if let Some(edge) = found.edge {
            out.send(edge.seat, Control::UninterestAll { edge });
        }
        news::rests(found);
        let directed = found.extra.as_mut().map(|extra| std::mem::take(&mut extra.directed)).unwrap_or_default();
        let resource = found.resource.clone();
        let version = Version { epoch, sequence: found.sequence };
        directed.into_iter().for_each(|to| say_farewell(&jid, &resource, to, out));
        if !user.has_available() {
            let status = farewell::status(presence);
            let last = Last { session, version, stamp, presence: farewell::farewell(&resource, status.as_deref(), stamp) };
            let value = rows::LastPresence { stamp, presence: last.presence.clone() }.encode();
            let write = Write { table: Table::LastPresence, key: rows::user_key(&jid), value: Some(value) };
            user.rare().last = Some(last);
            out.commit(vec![write], Durability::RideAlong);
        }
    }

    /// A session that will not come back: its farewell goes to everyone, and it is forgotten.
    pub(super) fn end_session(
        &mut self,
        now: Time,
        at: UserRef,
        session: SessionId,
        status: &str,
        edge: &mut Edge,
        out: &mut Outbox,
    ) {
        let Some(user) = self.user(at) else { return };
        let epoch = user.epoch;
        let Some(found) = user.session(session) else { return };
        if found.available {
            found.sequence += 1;
            found.available = false;
            let version = Version { epoch, sequence: found.sequence };
            let status = Some(status).filter(|status| !status.is_empty());
            let presence = farewell::farewell(&found.resource, status, Default::default());
            let mut frame = Vec::new();
            let head = Head { user: at.user, version, session, show: Show::Unavailable, flags: 0 };
            frame::encode(&mut frame, head, &presence);
            let put_off = spread(now, at, user, session, (&frame, News::Change), edge, out);
            self.counters.put_off += put_off;
            self.became_unavailable(now, at, session, &presence, out);
        }
        let Some(user) = self.user(at) else { return };
        let position = user.sessions.iter().position(|found| found.id == session).expect("found above");
        let ended = user.sessions.remove(position);
        self.sessions -= 1;
        self.counters.log_outs += 1;
        self.return_messages(now, at, ended, out);
    }

    /// Sends what was put off for another core while its ring was full.
    pub fn send_put_off(&mut self, core: CoreId, now: Time, out: &mut Outbox) {
        let put_off = std::mem::take(&mut out.bound[usize::from(core.0)].put_off);
        self.send_newest(Seat { core, ..out.map.here }, put_off, now, out);
    }

    /// The same for another node.
    pub fn send_put_off_to(&mut self, node: NodeId, now: Time, out: &mut Outbox) {
        let Some(peer) = out.peers.get_mut(&node) else { return };
        let put_off = std::mem::take(&mut peer.put_off);
        self.send_newest(Seat { node, core: out.map.here.core }, put_off, now, out);
    }

    /// Sends another node the newest of what it has heard of by reference, as much as may go in one turn. What has gone is not owed
    /// any more when the node has been told so; while that is put off it is, for it may be back before that, by reference.
    pub fn send_wanted_to(&mut self, node: NodeId, out: &mut Outbox) {
        let (mut frame, mut bytes) = (Vec::new(), 0);
        let Some(peer) = out.peers.get_mut(&node).filter(|peer| peer.put_off.is_empty()) else { return };
        for _ in 0..peer.wanted.begin_round() {
            let Some((user, session)) = (bytes < WHOLE_BYTES).then(|| peer.wanted.take_one()).flatten() else { return };
            let at = self.by_user(user).unwrap_or(UserRef { user, slot: SLOT });
            if self.write_newest(at, session, |there| there.seat.node == node, &mut frame) && !frame.is_empty() {
                self.counters.told_whole += 1;
                bytes += frame.len();
                peer.update(&frame);
            }
        }
    }

    /// Sends the newest state of each session that was put off, once, to where it is still watched.
    fn send_newest(&mut self, to: Seat, put_off: PutOff, now: Time, out: &mut Outbox) {
        let (mut frame, elsewhere) = (Vec::new(), to.node != out.map.here.node);
        for ((slot, user, session), (at, ended)) in put_off {
            // Of another node it's the core that stands for the publisher, whichever that is.
            let is_there = |seat: Seat| seat == to || elsewhere && seat.node == to.node;
            if !self.write_newest(at, session, |there| there.slot == slot && is_there(there.seat), &mut frame) {
                let gateway = out.map.gateway(user);
                if out.map.abroad(user).is_some() && gateway.node == to.node {
                    // It only passed through here.
                    out.send(gateway, Control::Missed { publisher: user });
                }
                continue;
            }
            if frame.is_empty() {
                let mut farewell = Events::default();
                ended.tell(user, &mut farewell);
                frame.extend_from_slice(farewell.bytes());
            }
            out.update(to, slot, at, now, &frame);
        }
    }

    /// Writes a session's newest frame, or nothing if it has gone. False: nobody watches it there any more.
    fn write_newest(&self, at: UserRef, session: SessionId, watches: impl Fn(&Destination) -> bool, frame: &mut Vec<u8>) -> bool {
        frame.clear();
        let Some(home) = self.get(at) else {
            let state = self.relays.state_of(at.user, session, watches);
            frame.extend_from_slice(state.flatten().unwrap_or_default());
            return state.is_some();
        };
        let found = home.sessions.iter().find(|found| found.id == session && found.available);
        if let Some(found) = found {
            found.encode(at.user, home.epoch, frame);
        }
        home.outbound.iter().any(watches)
    }
}

/// Sends a frame of one session to every edge with subscribers, and to the user's own other sessions (RFC 6121 4.2.2). Returns
/// how many edges' rings were full. Without its ten words being handed over, an update of two subscribers takes 1 % less.
#[inline(always)]
fn spread(
    now: Time,
    at: UserRef,
    user: &mut User,
    session: SessionId,
    (frame, news): (&[u8], News),
    edge: &mut Edge,
    out: &mut Outbox,
) -> u64 {
    let mut put_off = 0;
    for destination in &user.outbound {
        if destination.seat == out.map.here {
            edge.fan_out(destination.slot, at.user, frame, news, &mut out.lines);
        } else if !out.update(destination.seat, destination.slot, at, now, frame) {
            put_off += 1;
        }
    }
    if user.sessions.len() > 1 {
        for other in user.sessions.iter_mut().filter(|other| other.id != session && other.available) {
            if let Some(withheld) = other.withheld() {
                withhold(withheld, frame, news);
            } else if let Some(edge) = other.edge {
                let mut own = Events::default();
                own.append(frame);
                out.tell(edge, SessionEvent::Events(own));
            }
        }
    }
    put_off
}

/// XEP-0191 3.3: somebody who was sent directed presence is told that the sender has gone.
pub(super) fn revoke_directed(user: &mut User, from: &Bare, out: &mut Outbox) {
    let jid = user.jid.clone();
    for session in &mut user.sessions {
        let Some(extra) = session.extra.as_mut() else { continue };
        for to in extra.directed.extract_if(.., |(to, _)| to == from) {
            say_farewell(&jid, &session.resource, to, out);
        }
    }
}

/// RFC 6121 4.6.3: the farewell to somebody who was sent directed presence.
fn say_farewell(from: &Bare, resource: &CompactString, (to, to_resource): (Bare, Option<String>), out: &mut Outbox) {
    let presence = farewell::farewell(resource, None, Default::default());
    let directed = Directed { from: from.clone(), from_resource: resource.clone(), to, to_resource, presence };
    out.send(out.map.home_of(&directed.to), Control::Directed(Box::new(directed)));
}

/// RFC 6121 4.2.2: a session that becomes available sees its contacts and the user's other sessions, and gets what waited for it.
fn became_available(user: &mut User, session: SessionId, out: &mut Outbox) {
    let own = user.other_events(session);
    let publishers = user.watched();
    let requests: Vec<SessionEvent> = user.requests().iter().map(super::plan::request_event).collect();
    let Some(found) = user.session(session) else { return };
    if let Some(withheld) = found.withheld() {
        // It is told all of them now, and was told of none while it was not available.
        withheld.own = Missed::default();
    }
    let Some(edge) = found.edge else { return };
    if !own.is_empty() {
        out.tell(edge, SessionEvent::Events(own));
    }
    for event in requests {
        out.tell(edge, event);
    }
    if !publishers.is_empty() {
        out.send(edge.seat, Control::Interest { edge, publishers });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::UserId;
    use crate::base::limits::Limits;
    use crate::base::map::Map;
    use crate::base::secrets::Secrets;
    use crate::base::time::WallClock;
    use crate::presence::control::EdgeRef;
    use crate::presence::home::Place;
    use crate::presence::user::Session;
    use crate::wire::encode::{Encoder, PresenceFields};
    use crate::wire::presence;
    use ahash::RandomState;
    use std::sync::Arc;

    #[test]
    fn a_session_without_versions_left_ends_with_a_reason_and_a_farewell() {
        let map = Map::alone(CoreId(0), 2);
        let there = Seat { core: CoreId(1), ..map.here };
        let limits = Arc::new(Limits::default());
        let place = Place { cluster: 0, directory: 0, epoch: 1, domain: "d".into(), limits, wall_at_zero: WallClock::default() };
        let hasher = RandomState::with_seed(1);
        let mut homes = Homes::new(place, hasher.clone(), Secrets::from_number(1));
        let (mut edge, mut out) = (Edge::new(&map, hasher), Outbox::new(map, &Limits::default(), 1500));
        let at_edge = EdgeRef { seat: there, slot: 0, generation: 1 };
        let mut user = User::new(UserId(1), Bare::new("ann@d").unwrap());
        user.sessions.push(Session::new(SessionId(1), at_edge, "r".into(), [0; 16]));
        user.sessions[0].sequence = LAST_SEQUENCE - 1;
        user.outbound.push(Destination { seat: there, slot: 5 });
        homes.sessions = 1;
        let at = homes.insert(user);
        let bytes = Encoder::default().presence(&PresenceFields { resource: "r", show: Show::Away, ..Default::default() });
        let asker = Asker { edge: at_edge, request: 0 };
        for _ in 0..2 {
            homes.update(Time(1), at, SessionId(1), &presence::read(&bytes).unwrap(), asker, &mut edge, &mut out);
        }
        assert_eq!(homes.session_count(), 0);
        let ended = |control: &Control| match control {
            Control::ToSession { event: SessionEvent::Ended(reason), edge } => {
                (*reason, *edge) == (Reason::SessionWornOut, at_edge)
            }
            _ => false,
        };
        assert!(out.controls.iter().any(|(to, control)| *to == there.core && ended(control)));
        let sent: Vec<u32> = out.bound[1].updates.iter().map(|update| frame::head(update.frame).version.sequence).collect();
        assert_eq!(sent, [LAST_SEQUENCE, LAST_SEQUENCE + 1]);
    }
}
