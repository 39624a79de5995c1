//! What is kept of a publisher whose home is elsewhere: the newest event frame of each session, one behind the other in one block.
//!
//! Lives on: an edge, with the record of a publisher of another core, and a relay. Serves Z7. Invariants: a session has one frame
//! at most; a farewell stands here only alone, as what is remembered of a user without sessions.

use super::frame::{self, Events, is_farewell};
use crate::base::id::SessionId;
use crate::wire::event::{self, Head};
use std::ops::Range;
use thin_vec::ThinVec;

/// One block for all: an update finds what it replaces in a single step, and the bytes tell whose it is.
#[derive(Default)]
pub struct Cache(ThinVec<u8>);

/// What an update is to who is told all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    Old,
    /// Of a session that was there.
    Change,
    /// A session is there that was not.
    Coming,
}

impl Cache {
    /// Frames as a home has sent them.
    pub fn of(events: &Events) -> Cache {
        let mut cache = Cache::default();
        cache.append(events.bytes());
        cache
    }

    /// All frames.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the last byte, which lies where the next update is likely to write.
    #[inline]
    pub fn glance(&self) -> u32 {
        self.0.last().map_or(0, |&last| u32::from(last))
    }

    /// Takes in an update.
    #[inline]
    pub fn put(&mut self, head: &Head, frame: &[u8]) -> News {
        match self.find(head.session) {
            Some((_, kept)) if !is_newer(head, &kept) => return News::Old,
            Some((at, kept)) if is_farewell(&kept) => {
                self.0.drain(at);
                if !is_farewell(head) {
                    self.append(frame);
                    return News::Coming;
                }
                // It was back, and went before anybody here heard of that: whoever was told that it's gone knows it.
                self.remember(head, frame);
                return News::Old;
            }
            Some((at, _)) if at.len() == frame.len() && !is_farewell(head) => self.0[at].copy_from_slice(frame),
            Some((at, _)) => {
                self.0.drain(at);
                match is_farewell(head) {
                    true if self.0.is_empty() => self.remember(head, frame),
                    true => {}
                    false => self.append(frame),
                }
            }
            None if is_farewell(head) => {
                // Nobody here has heard of that session: it came and went while the ring was full.
                if frame::frames(&self.0).all(|kept| is_farewell(&frame::head(kept))) {
                    self.remember(head, frame);
                }
                return News::Old;
            }
            None => {
                if frame::frames(&self.0).any(|kept| is_farewell(&frame::head(kept))) {
                    self.0.clear();
                }
                self.append(frame);
                return News::Coming;
            }
        }
        News::Change
    }

    /// Whether it has nothing as new of that session.
    pub fn lacks(&self, head: &Head) -> bool {
        self.find(head.session).is_none_or(|(_, kept)| is_newer(head, &kept))
    }

    /// A session's frame.
    pub fn of_session(&self, session: SessionId) -> Option<&[u8]> {
        self.find(session).map(|(at, _)| &self.0[at])
    }

    /// A session has gone of which no farewell came.
    pub fn forget(&mut self, session: SessionId) {
        if let Some((at, _)) = self.find(session) {
            self.0.drain(at);
        }
    }

    #[inline]
    fn find(&self, session: SessionId) -> Option<(Range<usize>, Head)> {
        let mut start = 0;
        frame::frames(&self.0).find_map(|kept| {
            let (at, head) = (start..start + kept.len(), frame::head(kept));
            start = at.end;
            (head.session == session).then_some((at, head))
        })
    }

    /// What later subscribers are told of a user whose last session has gone.
    fn remember(&mut self, head: &Head, frame: &[u8]) {
        let last = Events::of(Head { flags: event::LAST, ..*head }, frame::presence(frame));
        self.0.clear();
        self.append(last.bytes());
    }

    fn append(&mut self, frames: &[u8]) {
        let at = self.0.len();
        self.0.reserve_exact(frames.len());
        self.0.resize(at + frames.len(), 0);
        self.0[at..].copy_from_slice(frames);
    }
}

/// A farewell in the place of a home that is out of reach has the version of what it ends, which may come back with it.
#[inline]
fn is_newer(head: &Head, kept: &Head) -> bool {
    head.version > kept.version || head.version == kept.version && is_farewell(head) != is_farewell(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{UserId, Version};
    use crate::wire::native::Show;

    /// A presence of so many words of 8 bytes.
    fn put(cache: &mut Cache, session: u32, sequence: u32, show: Show, words: usize) -> bool {
        let version = Version { epoch: 1, sequence };
        let head = Head { user: UserId(7), version, session: SessionId(session), show, flags: 0 };
        cache.put(&head, Events::of(head, &vec![sequence as u8; 8 * words]).bytes()) != News::Old
    }

    /// Session, version, whether it is a farewell, length of the presence.
    fn kept(cache: &Cache) -> Vec<(u32, u32, bool, usize)> {
        let kept = |bytes: &[u8]| {
            let head = frame::head(bytes);
            assert!(frame::presence(bytes).iter().all(|&byte| byte == head.version.sequence as u8));
            assert_eq!(head.flags == event::LAST, is_farewell(&head), "a farewell is kept as the last presence");
            (head.session.0, head.version.sequence, is_farewell(&head), frame::presence(bytes).len())
        };
        frame::frames(cache.bytes()).map(kept).collect()
    }

    #[test]
    fn each_session_has_its_newest_frame_whatever_its_length() {
        let mut cache = Cache::default();
        assert!(put(&mut cache, 1, 1, Show::Away, 2) && put(&mut cache, 2, 1, Show::Chat, 3));
        assert!(put(&mut cache, 1, 3, Show::Chat, 2) && put(&mut cache, 2, 2, Show::Away, 1));
        assert!(!put(&mut cache, 1, 3, Show::Away, 2) && !put(&mut cache, 1, 2, Show::Away, 5), "no news");
        assert_eq!(kept(&cache), [(1, 3, false, 16), (2, 2, false, 8)]);
        assert!(put(&mut cache, 1, 4, Show::Away, 9));
        assert_eq!(kept(&cache), [(2, 2, false, 8), (1, 4, false, 72)]);
    }

    #[test]
    fn z13_a_session_whose_home_was_out_of_reach_goes_and_comes_back_with_one_version() {
        let mut cache = Cache::default();
        assert!(put(&mut cache, 1, 5, Show::Away, 1));
        assert!(put(&mut cache, 1, 5, Show::Unavailable, 0) && !put(&mut cache, 1, 5, Show::Unavailable, 0));
        assert!(put(&mut cache, 1, 5, Show::Away, 1) && !put(&mut cache, 1, 5, Show::Away, 1));
        assert_eq!(kept(&cache), [(1, 5, false, 8)]);
    }

    #[test]
    fn z13_who_hears_of_every_update_knows_which_sessions_come() {
        let mut cache = Cache::default();
        let mut hears = |session, sequence, show| {
            let version = Version { epoch: 1, sequence };
            let head = Head { user: UserId(7), version, session: SessionId(session), show, flags: 0 };
            (cache.lacks(&head), cache.put(&head, Events::of(head, &[sequence as u8; 8]).bytes()))
        };
        assert_eq!(hears(1, 1, Show::Away), (true, News::Coming));
        assert_eq!(hears(1, 1, Show::Away), (false, News::Old));
        assert_eq!(hears(1, 2, Show::Chat), (true, News::Change));
        assert_eq!(hears(2, 4, Show::Chat), (true, News::Coming));
        assert_eq!(hears(1, 2, Show::Unavailable), (true, News::Change));
        assert_eq!(hears(1, 3, Show::Away), (true, News::Coming));
        assert_eq!(hears(1, 4, Show::Unavailable), (true, News::Change));
        assert_eq!(hears(2, 4, Show::Unavailable), (true, News::Change), "the last one's farewell is kept");
        assert_eq!(hears(2, 4, Show::Unavailable), (false, News::Old));
        assert_eq!(hears(2, 6, Show::Unavailable), (true, News::Old), "it was back, and nobody knows");
        assert_eq!(hears(2, 6, Show::Chat), (true, News::Coming));
    }

    #[test]
    fn the_last_farewell_is_kept_until_a_session_comes() {
        let mut cache = Cache::default();
        put(&mut cache, 1, 1, Show::Away, 1);
        put(&mut cache, 2, 1, Show::Away, 1);
        assert!(put(&mut cache, 1, 2, Show::Unavailable, 0));
        assert_eq!(kept(&cache), [(2, 1, false, 8)]);
        assert!(put(&mut cache, 2, 2, Show::Unavailable, 1));
        assert_eq!(kept(&cache), [(2, 2, true, 8)]);
        assert!(!put(&mut cache, 3, 5, Show::Unavailable, 0), "nobody here has heard of that session");
        assert_eq!(kept(&cache), [(3, 5, true, 0)]);
        assert!(put(&mut cache, 4, 1, Show::Chat, 2));
        assert_eq!(kept(&cache), [(4, 1, false, 16)]);
        assert!(!put(&mut cache, 5, 1, Show::Unavailable, 0));
        assert_eq!(kept(&cache), [(4, 1, false, 16)]);
    }
}
