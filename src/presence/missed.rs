//! What a subscriber is not told of a publisher's sessions while it is slow or nobody looks at it: the newest state of those that
//! are there is found where it is kept, so only those that went need to be noted, and none that came in between.
//!
//! Lives on: edges, for slow connections, and homes, for the user's own sessions. Invariant: it names no more sessions than the
//! publisher has had at once, but for those whose first presence was conflated before it came here.

use crate::base::id::{SessionId, Version};
use crate::wire::event::Head;
use crate::wire::native::Show;

#[derive(Default, Debug)]
pub struct Missed {
    ended: Vec<(SessionId, Version)>,
    /// The subscriber has never heard of these.
    came: Vec<SessionId>,
}

impl Missed {
    /// An update that is not told.
    pub fn note(&mut self, head: &Head) {
        let came = self.came.iter().position(|&session| session == head.session);
        match (head.show == Show::Unavailable, came) {
            (false, None) if head.version.sequence == 1 => self.came.push(head.session),
            (false, _) => {}
            (true, Some(at)) => _ = self.came.swap_remove(at),
            (true, None) => match self.ended.iter_mut().find(|(session, _)| *session == head.session) {
                Some((_, version)) => *version = head.version,
                None => self.ended.push((head.session, head.version)),
            },
        }
    }

    /// Sessions that went, and may have come again.
    pub fn ended(&self) -> &[(SessionId, Version)] {
        &self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::UserId;

    #[test]
    fn a_session_that_comes_and_goes_in_between_leaves_no_trace() {
        let mut missed = Missed::default();
        let mut note = |session, sequence, show| {
            let version = Version { epoch: 1, sequence };
            missed.note(&Head { user: UserId(7), version, session: SessionId(session), show, flags: 0 });
        };
        for session in 10..1000 {
            note(session, 1, Show::Available);
            note(session, 2, Show::Away);
            note(session, 3, Show::Unavailable);
        }
        note(3, 7, Show::Unavailable);
        note(3, 8, Show::Chat);
        note(3, 9, Show::Unavailable);
        assert_eq!(missed.ended(), [(SessionId(3), Version { epoch: 1, sequence: 9 })]);
        assert_eq!(missed.came, []);
    }
}
