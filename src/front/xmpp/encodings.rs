//! Presence stanzas that were written once for all subscribers on this core (issue 3: only the addressee differs).
//!
//! Lives on: every core. Invariants: at most [`BYTES`] and the stanza last added are kept, twice over; what is
//! kept of a session is its newest version that was asked for.

use crate::base::id::{SessionId, UserId};
use crate::wire::event::Head;
use ahash::RandomState;
use std::collections::HashMap;

/// Bytes of stanzas kept in one generation. At the limit: the older generation is forgotten.
pub const BYTES: usize = 4 << 20;
/// What keeping a stanza costs beside its bytes.
const ENTRY_BYTES: usize = 96;

/// A stanza, but for its addressee.
struct Encoding {
    head: Head,
    /// From behind the stanza's name on.
    rest: Box<[u8]>,
    resource: Box<str>,
}

type Generation = HashMap<(UserId, SessionId), Encoding, RandomState>;

/// Two generations: what is used moves to the young one, and what isn't goes with the old one.
pub struct Encodings {
    young: Generation,
    old: Generation,
    /// Of the young generation.
    bytes: usize,
    /// Stanzas written.
    pub written: u64,
}

impl Default for Encodings {
    fn default() -> Encodings {
        // Keys are the server's own numbers: nobody can choose them to collide.
        let hasher = RandomState::with_seeds(0x6661, 0x6e61, 0x6c78, 0x6d70);
        Encodings { young: HashMap::with_hasher(hasher.clone()), old: HashMap::with_hasher(hasher), bytes: 0, written: 0 }
    }
}

impl Encodings {
    /// The stanza of an event, from behind its name on: kept, or as `write` makes it. `write` is given the resource last seen of
    /// that session, and gives the one it found.
    pub fn get(&mut self, head: Head, write: impl FnOnce(&mut Vec<u8>, &str) -> Box<str>) -> &[u8] {
        let key = (head.user, head.session);
        if self.young.get(&key).is_none_or(|kept| kept.head != head) {
            let known = self.young.remove(&key).or_else(|| self.old.remove(&key));
            let encoding = match known {
                Some(kept) if kept.head == head => kept,
                known => self.write(head, known.map_or_else(Box::default, |kept| kept.resource), write),
            };
            self.keep(key, encoding);
        }
        &self.young[&key].rest
    }

    fn write(&mut self, head: Head, resource: Box<str>, write: impl FnOnce(&mut Vec<u8>, &str) -> Box<str>) -> Encoding {
        let mut rest = Vec::new();
        let resource = write(&mut rest, &resource);
        self.written += 1;
        Encoding { head, rest: rest.into_boxed_slice(), resource }
    }

    fn keep(&mut self, key: (UserId, SessionId), encoding: Encoding) {
        if self.bytes >= BYTES {
            self.old = std::mem::replace(&mut self.young, HashMap::with_hasher(self.old.hasher().clone()));
            self.bytes = 0;
        }
        self.bytes += encoding.rest.len() + encoding.resource.len() + ENTRY_BYTES;
        self.young.insert(key, encoding);
    }
}
