//! Sessions at which nobody looks (XEP-0352): they get messages, and of presence, once somebody looks again, the newest.
//!
//! What a session subscribes to is kept back at its edge, which holds the connection's line; presence that homes send to sessions
//! themselves, the user's own other sessions' and directed presence, is kept back here.

use super::Homes;
use super::reply::{done, tell};
use crate::base::id::SessionId;
use crate::presence::control::{Asker, EdgeRef, SessionEvent, UserRef};
use crate::presence::outbox::Outbox;
use crate::presence::user::{User, Withheld};

impl Homes {
    pub(super) fn set_activity(&mut self, at: UserRef, session: SessionId, active: bool, asker: Asker, out: &mut Outbox) {
        if active {
            self.catch_up(at, session, asker, out);
            self.go_on_telling(at, session, out);
        } else {
            let session = self.user(at).and_then(|user| user.session(session)).expect("the caller found it");
            session.extra().withheld.get_or_insert_default();
        }
        done(asker, out);
    }

    /// Tells a session what was kept back from it.
    fn catch_up(&mut self, at: UserRef, id: SessionId, asker: Asker, out: &mut Outbox) {
        let user = self.user(at).expect("the caller found it");
        if user.session(id).expect("the caller found it").withheld().is_none() {
            return;
        }
        tell_others(user, id, asker, out);
        let session = user.session(id).expect("the caller found it");
        let withheld = session.extra.as_mut().and_then(|extra| extra.withheld.take());
        withheld.into_iter().for_each(|withheld| tell_directed(asker.edge, *withheld, out));
    }
}

/// Tells an available session of all other ones of its user, also of those that went while that was kept back from it: now it has
/// missed nothing.
pub(super) fn tell_others(user: &mut User, id: SessionId, asker: Asker, out: &mut Outbox) {
    let mut events = user.other_events(id);
    let Some(session) = user.session(id).filter(|session| session.available) else { return };
    let missed = session.withheld().map(|withheld| std::mem::take(&mut withheld.own)).unwrap_or_default();
    for ended in missed.ended() {
        if user.sessions.iter().all(|session| session.id != ended.session || !session.available) {
            ended.tell(user.id, &mut events);
        }
    }
    tell(asker, SessionEvent::Events(events), out);
}

/// The directed presence that was kept back goes out.
pub(super) fn tell_directed(edge: EdgeRef, withheld: Withheld, out: &mut Outbox) {
    for directed in withheld.directed {
        out.tell(edge, SessionEvent::Directed(directed));
    }
}

/// Notes down what a session is not told of another one of its user.
pub(super) fn withhold(withheld: &mut Withheld, event: &[u8]) {
    withheld.own.note(event);
}
