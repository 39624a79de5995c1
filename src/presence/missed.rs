//! What a subscriber is not told of a publisher's sessions while it is slow or nobody looks at it: the newest state of those that
//! are there is found where it is kept, so only those that went need to be noted, and none that came in between.
//!
//! Lives on: edges, for slow connections, and homes, for the user's own sessions. Invariant: it names no more sessions than the
//! publisher has had at once, but for those whose first presence was conflated before it came here.

use super::farewell;
use super::frame::{self, Events};
use crate::base::id::{SessionId, UserId, Version};
use crate::wire::event::Head;
use crate::wire::native::Show;
use compact_str::CompactString;

/// A session that has gone, or that somebody may not see any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    pub session: SessionId,
    pub version: Version,
    pub resource: CompactString,
}

impl Ended {
    /// What an event frame says of its session.
    pub fn of(event: &[u8]) -> Ended {
        let (Head { session, version, .. }, resource) = (frame::head(event), farewell::resource(frame::presence(event)));
        Ended { session, version, resource }
    }

    /// Adds the farewell. Its version is that of the state it ends: one more than the last seen would be a lie, and clients let a
    /// farewell of the same version win.
    pub fn tell(&self, user: UserId, events: &mut Events) {
        let head = Head { user, version: self.version, session: self.session, show: Show::Unavailable, flags: 0 };
        events.push(head, &farewell::farewell(&self.resource, None, Default::default()));
    }
}

#[derive(Default, Debug)]
pub struct Missed {
    ended: Vec<Ended>,
    /// The subscriber has never heard of these.
    came: Vec<SessionId>,
}

impl Missed {
    /// An update that is not told. `comes`: the session was not there before.
    pub fn note(&mut self, event: &[u8], comes: bool) {
        let head = frame::head(event);
        let came = self.came.iter().position(|&session| session == head.session);
        let is_known = || self.ended.iter().any(|ended| ended.session == head.session);
        match (head.show == Show::Unavailable, came) {
            (false, None) if comes && !is_known() => self.came.push(head.session),
            (false, _) => {}
            (true, Some(at)) => _ = self.came.swap_remove(at),
            (true, None) => match self.ended.iter_mut().find(|ended| ended.session == head.session) {
                Some(ended) => ended.version = head.version,
                None => self.ended.push(Ended::of(event)),
            },
        }
    }

    /// Sessions that went, and may have come again.
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_comes_and_goes_in_between_leaves_no_trace() {
        let mut missed = Missed::default();
        let mut note = |session, sequence, show, comes| {
            let version = Version { epoch: 1, sequence };
            let head = Head { user: UserId(7), version, session: SessionId(session), show, flags: 0 };
            missed.note(Events::of(head, &farewell::farewell("desk", None, Default::default())).bytes(), comes);
        };
        for session in 10..1000 {
            // Some were there before, and had gone.
            let first = session % 5;
            note(session, first + 1, Show::Available, true);
            note(session, first + 2, Show::Away, false);
            note(session, first + 3, Show::Unavailable, false);
        }
        note(3, 7, Show::Unavailable, false);
        note(3, 8, Show::Chat, true);
        note(3, 9, Show::Unavailable, false);
        let (session, version) = (SessionId(3), Version { epoch: 1, sequence: 9 });
        assert_eq!(missed.ended(), [Ended { session, version, resource: "desk".into() }]);
        assert_eq!(missed.came, []);
    }
}
