//! Presence that was written once for all subscribers on this core (issue 3: only the addressee differs).
//!
//! Lives on: every core. Invariants: each version of a session has an encoding of its own, since a line may hold several when it
//! is translated; of each table at most [`BYTES`] and the entry last added are kept, twice over.

use crate::wire::event::Head;
use ahash::RandomState;
use std::collections::HashMap;
use std::hash::Hash;

/// Bytes kept in one generation of a table. At the limit: the older generation is forgotten.
pub const BYTES: usize = 4 << 20;
/// What keeping an entry costs beside its bytes.
const ENTRY_BYTES: usize = 96;

/// Two generations: what is used moves to the young one, and what isn't goes with the old one.
pub(super) struct Aging<K> {
    young: HashMap<K, Box<[u8]>, RandomState>,
    old: HashMap<K, Box<[u8]>, RandomState>,
    /// Of the young generation.
    bytes: usize,
}

impl<K: Hash + Eq + Copy> Aging<K> {
    pub fn new() -> Aging<K> {
        // Keys are the server's own numbers: nobody can choose them to collide.
        let hasher = RandomState::with_seeds(0x6661, 0x6e61, 0x6c78, 0x6d70);
        Aging { young: HashMap::with_hasher(hasher.clone()), old: HashMap::with_hasher(hasher), bytes: 0 }
    }

    /// What is kept of a key, or else what `make` makes.
    #[inline]
    fn get(&mut self, key: K, make: impl FnOnce() -> Box<[u8]>) -> &[u8] {
        if !self.young.contains_key(&key) {
            let kept = self.old.remove(&key).unwrap_or_else(make);
            self.put(key, kept);
        }
        &self.young[&key]
    }

    /// What is kept of a key.
    pub fn find(&mut self, key: K) -> Option<&[u8]> {
        if let Some(kept) = self.old.remove(&key) {
            self.put(key, kept);
        }
        self.young.get(&key).map(|kept| &kept[..])
    }

    /// Keeps something of a key, in place of what was kept.
    pub fn put(&mut self, key: K, value: Box<[u8]>) {
        if self.bytes >= BYTES {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.bytes = 0;
        }
        self.bytes += value.len() + ENTRY_BYTES;
        self.young.insert(key, value);
    }
}

/// Encodings of events.
pub struct Encodings(Aging<Head>);

impl Default for Encodings {
    fn default() -> Encodings {
        Encodings(Aging::new())
    }
}

impl Encodings {
    /// The encoding of an event: kept, or as `write` makes it.
    #[inline]
    pub fn get(&mut self, head: Head, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.0.get(head, || {
            let mut encoding = Vec::new();
            write(&mut encoding);
            encoding.into_boxed_slice()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{SessionId, UserId, Version};
    use crate::wire::native::Show;

    fn head(session: u32, sequence: u32) -> Head {
        let version = Version { epoch: 1, sequence };
        Head { user: UserId(7), version, session: SessionId(session), show: Show::Available, flags: 0 }
    }

    /// What comes of a head, and whether it was written for that.
    fn get(encodings: &mut Encodings, head: Head, text: &str) -> (String, bool) {
        let mut written = false;
        let encoding = encodings.get(head, |out| {
            written = true;
            out.extend_from_slice(text.as_bytes());
        });
        (String::from_utf8(encoding.to_vec()).unwrap(), written)
    }

    #[test]
    fn each_version_is_written_once_in_whatever_order_lines_hold_them() {
        let mut encodings = Encodings::default();
        for line in 0..3 {
            for version in 1..9 {
                assert_eq!(get(&mut encodings, head(1, version), &version.to_string()), (version.to_string(), line == 0));
            }
        }
        assert_eq!(get(&mut encodings, head(2, 1), "another session"), ("another session".into(), true));
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let mut encodings = Encodings::default();
        let text = "x".repeat(1000);
        for version in 1..20_000 {
            get(&mut encodings, head(1, version), &text);
            assert!(!get(&mut encodings, head(2, 1), "used").1 || version == 1);
        }
        let kept =
            |table: &HashMap<Head, Box<[u8]>, RandomState>| table.values().map(|value| value.len() + ENTRY_BYTES).sum::<usize>();
        assert!(kept(&encodings.0.young) + kept(&encodings.0.old) <= 2 * (BYTES + text.len() + ENTRY_BYTES));
        assert!(get(&mut encodings, head(1, 1), &text).1, "it was forgotten");
    }
}
