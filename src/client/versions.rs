//! Which versions of whose presence a client has seen, so that an older one that comes late is ignored.
//!
//! Lives on: any thread of a client. Invariant: what it keeps per publisher is bounded.

use crate::base::id::{SessionId, UserId, Version};
use crate::wire::event::{Head, LAST};
use crate::wire::native::Show;
use std::collections::HashMap;

/// Sessions of one publisher that are kept in mind; beyond it the one with the lowest number, the oldest, is forgotten.
pub const SESSIONS_KEPT: usize = 64;

/// The newest version of each session of each publisher.
#[derive(Default, Debug)]
pub struct Versions {
    seen: HashMap<UserId, Vec<(SessionId, Version)>>,
}

impl Versions {
    /// Whether an event is newer than all before it of that session; remembers it if so.
    ///
    /// The last presence of a user who is not online always is, and so is a farewell that isn't older: a session whose approval was
    /// taken back is told off with the version it had. After it the session is forgotten.
    pub fn is_news(&mut self, head: &Head) -> bool {
        if head.flags & LAST != 0 {
            return true;
        }
        let sessions = self.seen.entry(head.user).or_default();
        if let Some((_, version)) = sessions.iter_mut().find(|(session, _)| *session == head.session) {
            let farewell = head.show == Show::Unavailable;
            let newer = head.version > *version || (farewell && head.version == *version);
            *version = head.version.max(*version);
            if newer && farewell {
                sessions.retain(|(session, _)| *session != head.session);
            }
            return newer;
        }
        if head.show == Show::Unavailable {
            return true;
        }
        if sessions.len() == SESSIONS_KEPT
            && let Some(oldest) = (0..sessions.len()).min_by_key(|&at| sessions[at].0)
        {
            sessions.swap_remove(oldest);
        }
        sessions.push((head.session, head.version));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn head(user: u64, session: u32, epoch: u32, sequence: u32) -> Head {
        let version = Version { epoch, sequence };
        Head { user: UserId(user), version, session: SessionId(session), show: Show::Available, flags: 0 }
    }

    #[test]
    fn older_versions_of_the_same_session_are_no_news() {
        let mut versions = Versions::default();
        assert!(versions.is_news(&head(1, 1, 1, 5)));
        assert!(!versions.is_news(&head(1, 1, 1, 4)));
        assert!(!versions.is_news(&head(1, 1, 1, 5)), "the same again");
        let farewell = Head { show: Show::Unavailable, ..head(1, 1, 1, 5) };
        assert!(versions.is_news(&farewell), "gone");
        assert!(versions.is_news(&head(1, 1, 1, 5)), "approved again");
        assert!(versions.is_news(&head(1, 2, 1, 1)), "another session");
        assert!(versions.is_news(&head(2, 1, 1, 1)), "another user");
        assert!(versions.is_news(&head(1, 1, 2, 1)), "a later epoch");
        assert!(!versions.is_news(&head(1, 1, 1, 9)), "an earlier epoch");
    }

    #[test]
    fn a_publisher_with_many_sessions_is_remembered_for_the_latest() {
        let mut versions = Versions::default();
        for session in 0..1000 {
            assert!(versions.is_news(&head(1, session, 1, 5)));
        }
        assert_eq!(versions.seen[&UserId(1)].len(), SESSIONS_KEPT);
        assert!(!versions.is_news(&head(1, 999, 1, 4)));
    }

    #[test]
    fn last_presence_always_is_news() {
        let mut versions = Versions::default();
        assert!(versions.is_news(&head(1, 1, 1, 5)));
        assert!(versions.is_news(&Head { flags: LAST, ..head(1, 1, 1, 1) }));
    }
}
