//! Sessions come, go, break and resume (RFC 6120 7.7, RFC 6121 4.2 to 4.5). Authentication was done where the connection is.

use super::Homes;
use super::activity::tell_directed;
use super::change::Change;
use super::reply::refuse;
use crate::base::id::SessionId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Asker, Attach, Attached, Control, EdgeRef, Resume, SessionEnd, SessionEvent, UserRef};
use crate::presence::edge::Edge;
use crate::presence::outbox::Outbox;
use crate::presence::user::Session;
use crate::wire::presence;
use std::cmp::Reverse;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Length of a resource made up by the server.
const RESOURCE_LETTERS: usize = 8;

impl Homes {
    /// An authenticated log-in becomes a session, and its first presence, if it has one, is set: the answer and the contacts who
    /// are there then leave in one piece.
    pub fn attach(&mut self, now: Time, attach: Attach, edge: &mut Edge, out: &mut Outbox) {
        let asker = attach.asker;
        if !attach.presence.is_empty() && out.is_any_full() {
            // It would ask for the presence of all contacts.
            return refuse(asker, Reason::Overloaded, "", out);
        }
        let Some(at) = self.by_name(&attach.jid) else {
            if !attach.create {
                return refuse(asker, Reason::LogInFailed, "", out);
            }
            return self.create_for(attach, out);
        };
        let user = self.user(at).expect("found by name");
        if user.rare.as_ref().is_some_and(|rare| rare.storing.as_ref().is_some_and(|storing| storing.is_creation())) {
            user.rare().waiting.push_back(Change::Attach(Box::new(attach)));
            return;
        }
        let taken = user.sessions.iter().find(|session| *session.resource == *attach.resource).map(|session| session.id);
        if let Some(old) = taken {
            self.replace(now, at, old, edge, out);
        }
        let most = self.place.limits.sessions_per_user as usize;
        if self.user(at).expect("found by name").sessions.len() >= most {
            return refuse(asker, Reason::TooManySessions, format!("{most} at most"), out);
        }
        let resource = match attach.resource.as_str() {
            "" => self.secrets.letters(RESOURCE_LETTERS),
            _ => attach.resource,
        };
        let resume = self.secrets.bytes16();
        let user = self.user(at).expect("found by name");
        let id = SessionId(user.next_session);
        // Numbers of sessions are never used again in the node's life.
        let Some(next_session) = user.next_session.checked_add(1) else {
            return refuse(asker, Reason::TooManySessions, "since the node's start", out);
        };
        user.next_session = next_session;
        let session = Session::new(id, asker.edge, resource.into(), resume);
        let (jid, resource) = (user.jid.clone(), session.resource.clone());
        // Most users have one session, and a vector's first growth would make room for four.
        user.sessions.reserve_exact(1);
        user.sessions.push(session);
        self.sessions += 1;
        self.counters.log_ins += 1;
        let attached = Attached { asker, at, session: id, jid, resource, resume, resumed: false, data: attach.data };
        out.send(asker.edge.seat, Control::Attached(Box::new(attached)));
        if !attach.presence.is_empty() {
            let view = presence::read(&attach.presence).expect("it was verified where it came in");
            self.update(now, at, id, &view, Asker { edge: asker.edge, request: 0 }, edge, out);
        }
    }

    /// RFC 6120 7.7.2.2: the newer log-in takes the resource.
    fn replace(&mut self, now: Time, at: UserRef, old: SessionId, edge: &mut Edge, out: &mut Outbox) {
        let old_edge = self.user(at).and_then(|user| user.session(old)).and_then(|session| session.edge);
        self.end_session(now, at, old, "", edge, out);
        if let Some(old_edge) = old_edge {
            out.tell(old_edge, SessionEvent::Ended(Reason::Replaced));
        }
    }

    /// A client goes on with a session whose connection broke: no farewell, no new log-in, the newest state of each contact.
    pub fn resume(&mut self, resume: Resume, out: &mut Outbox) {
        let Resume { jid, token, received, asker } = resume;
        let found = self.by_name(&jid).and_then(|at| {
            let sessions = &self.get(at)?.sessions;
            let session = sessions.iter().find(|session| bool::from(session.resume.ct_eq(&token)))?;
            Some((at, session.id))
        });
        let Some((at, id)) = found else {
            return refuse(asker, Reason::ResumeFailed, "", out);
        };
        self.counters.resumes += 1;
        let token = self.secrets.bytes16();
        let user = self.get(at).expect("found by name");
        let (jid, requests) = (user.jid.clone(), user.requests().iter().map(super::plan::request_event).collect::<Vec<_>>());
        let (roster, publishers) = (super::plan::roster_event(&user.roster, 0, None, &self.place.limits), user.watched());
        let (own, blocked) = (user.other_events(id), user.blocked().to_vec());
        let user = self.user(at).expect("found by name");
        let session = user.session(id).expect("found above");
        if let Some(old) = session.edge.replace(asker.edge) {
            out.tell(old, SessionEvent::Ended(Reason::Replaced));
        }
        session.resume = token;
        let (available, interested, resource) = (session.available, session.interested, session.resource.clone());
        let hears_of_blocks = session.hears_of_blocks();
        let extra = session.extra();
        extra.ends_at = None;
        let acknowledged = extra.acknowledge(received);
        // XEP-0352 5: a session that is resumed is active.
        let withheld = extra.withheld.take();
        let again: Vec<_> = extra.unacknowledged.iter().cloned().collect();
        let edge = asker.edge;
        let attached = Attached { asker, at, session: id, jid, resource, resume: token, resumed: true, data: Vec::new() };
        out.send(edge.seat, Control::Attached(Box::new(attached)));
        let tell = |event, out: &mut Outbox| out.tell(edge, event);
        if interested {
            tell(roster, out);
        }
        if hears_of_blocks {
            tell(SessionEvent::BlockList { request: 0, jids: blocked }, out);
        }
        if available {
            tell(SessionEvent::Events(own), out);
            requests.into_iter().for_each(|event| tell(event, out));
            out.send(edge.seat, Control::Interest { edge, publishers });
        }
        for (number, message) in again {
            tell(SessionEvent::Message { number, message }, out);
        }
        if let Some(withheld) = withheld {
            tell_directed(edge, *withheld, out);
        }
        self.go_on_telling(at, id, out);
        self.acknowledged(at, acknowledged, out);
    }

    /// A session's connection or stream ended. A late word from a connection that the session has left is ignored.
    pub fn detach(
        &mut self,
        now: Time,
        at: UserRef,
        id: SessionId,
        from: EdgeRef,
        end: SessionEnd,
        edge: &mut Edge,
        out: &mut Outbox,
    ) {
        let most_ms = self.place.limits.resume_ms;
        let Some(session) = self.user(at).and_then(|user| user.session(id)) else { return };
        if session.edge != Some(from) {
            self.counters.stale += 1;
            return;
        }
        match end {
            SessionEnd::Lost { within_ms } if within_ms.min(most_ms) > 0 => {
                let ends_at = now + Duration::from_millis(within_ms.min(most_ms).into());
                session.edge = None;
                session.extra().ends_at = Some(ends_at);
                self.detached.push(Reverse((ends_at, at, id)));
            }
            SessionEnd::LoggedOut { status } => self.end_session(now, at, id, &status, edge, out),
            SessionEnd::Lost { .. } | SessionEnd::Ended => self.end_session(now, at, id, "", edge, out),
        }
    }

    /// Ends the sessions that were not resumed in time. Returns when the next one is due.
    pub fn end_detached(&mut self, now: Time, edge: &mut Edge, out: &mut Outbox) -> Option<Time> {
        while let Some(&Reverse((due, at, id))) = self.detached.peek() {
            if due > now {
                return Some(due);
            }
            self.detached.pop();
            let session = self.user(at).and_then(|user| user.session(id));
            let over = session.is_some_and(|session| session.extra.as_ref().is_some_and(|extra| extra.ends_at == Some(due)));
            if over {
                self.end_session(now, at, id, "", edge, out);
            }
        }
        None
    }

    /// Tells a user's sessions to go on at another address (C8). Returns how many were told.
    pub fn transfer(&mut self, at: UserRef, address: &str, out: &mut Outbox) -> usize {
        let Some(user) = self.user(at) else { return 0 };
        let edges: Vec<EdgeRef> = user.sessions.iter().filter_map(|session| session.edge).collect();
        for &edge in &edges {
            out.tell(edge, SessionEvent::Transfer { address: address.to_owned() });
        }
        self.counters.transfers += edges.len() as u64;
        edges.len()
    }
}
