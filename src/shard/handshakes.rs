//! TLS handshakes, so many a turn: a storm of log-ins waits, and fan-out does not.
//!
//! Lives on: every core. Serves C8, G1. A handshake takes as long as a hundred updates, and its cost is known before the peer's
//! bytes are looked at. Once a turn has spent [`TURN_US`] on them, what comes for others is put aside and goes first in the next
//! turn, in the order in which it came. Invariants: a connection without a handshake before it never waits; what waits for a
//! connection is bounded, and forgotten with it; while anything waits, the core does not sleep.

use super::Shard;
use crate::base::id::ConnId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::front::translate::Channel;
use ahash::RandomState;
use std::collections::{HashMap, VecDeque};

/// About the microseconds of a turn that handshakes may take.
const TURN_US: u32 = 1000;
/// Bytes that may wait for one connection. At the limit: `tls_failed`.
const WAITING_BYTES: usize = 64 * 1024;

/// What handshakes have taken of this turn, and whose bytes wait for the next.
pub(super) struct Handshakes {
    used_us: u32,
    queue: VecDeque<ConnId>,
    bytes: HashMap<ConnId, Vec<u8>, RandomState>,
}

/// What is to happen with bytes of a handshake.
#[derive(PartialEq, Eq, Debug)]
enum Turn {
    Now,
    Later,
    TooMuch,
}

impl Handshakes {
    pub(super) fn new(hasher: RandomState) -> Handshakes {
        Handshakes { used_us: 0, queue: VecDeque::new(), bytes: HashMap::with_hasher(hasher) }
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.bytes.remove(&conn);
    }

    /// Whether these bytes may be looked at. Those that must wait are kept.
    fn admit(&mut self, conn: ConnId, bytes: &[u8]) -> Turn {
        if let Some(waiting) = self.bytes.get_mut(&conn) {
            if waiting.len() + bytes.len() > WAITING_BYTES {
                return Turn::TooMuch;
            }
            waiting.extend_from_slice(bytes);
            return Turn::Later;
        }
        if self.used_us < TURN_US {
            return Turn::Now;
        }
        self.bytes.insert(conn, bytes.to_vec());
        self.queue.push_back(conn);
        Turn::Later
    }

    /// The next whose bytes wait, while the turn has room.
    fn next(&mut self) -> Option<(ConnId, Vec<u8>)> {
        while self.used_us < TURN_US {
            let conn = self.queue.pop_front()?;
            // A connection that is gone has nothing here any more.
            if let Some(bytes) = self.bytes.remove(&conn) {
                return Some((conn, bytes));
            }
        }
        None
    }
}

impl Shard {
    /// Bytes of a peer that has a translator: now, or in a later turn when they are of a handshake and there were many.
    pub(super) fn received_in_turn(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        if self.translators.handshake_us(conn.slot) == 0 {
            return self.received_foreign(now, conn, bytes);
        }
        match self.handshakes.admit(conn, bytes) {
            Turn::Now => self.shake_hands(now, conn, bytes),
            Turn::Later => {}
            Turn::TooMuch => {
                self.handshakes.forget(conn);
                self.end_connection(conn, Reason::TlsFailed, "");
            }
        }
    }

    /// A new turn: those who had to wait go first. Gives when to look again.
    pub(super) fn go_on_with_handshakes(&mut self, now: Time) -> Option<Time> {
        self.handshakes.used_us = 0;
        while let Some((conn, bytes)) = self.handshakes.next() {
            self.shake_hands(now, conn, &bytes);
        }
        (!self.handshakes.queue.is_empty()).then_some(now)
    }

    fn shake_hands(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let before = self.translators.handshake_us(conn.slot);
        self.received_foreign(now, conn, bytes);
        let after = self.translators.handshake_us(conn.slot);
        // Whoever turns out to speak without TLS, or fails at once, has taken nothing of it.
        if after > 0 || self.translators.channel(conn.slot) != Channel::Clear {
            self.handshakes.used_us += before.saturating_sub(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId { slot, generation: 1 }
    }

    #[test]
    fn what_comes_beyond_the_turns_share_waits_in_order_and_in_one_piece() {
        let mut handshakes = Handshakes::new(RandomState::with_seeds(1, 2, 3, 4));
        assert_eq!(handshakes.admit(conn(1), b"a"), Turn::Now);
        handshakes.used_us = TURN_US;
        for (slot, bytes) in [(2, b"b"), (3, b"c"), (2, b"d"), (4, b"e")] {
            assert_eq!(handshakes.admit(conn(slot), bytes), Turn::Later);
        }
        assert_eq!(handshakes.next(), None, "not in this turn");
        handshakes.forget(conn(3));
        handshakes.used_us = 0;
        assert_eq!(handshakes.admit(conn(4), b"f"), Turn::Later, "its earlier bytes still wait");
        assert_eq!(handshakes.next(), Some((conn(2), b"bd".to_vec())));
        assert_eq!(handshakes.next(), Some((conn(4), b"ef".to_vec())));
        assert_eq!((handshakes.next(), handshakes.bytes.len()), (None, 0));
    }

    #[test]
    fn what_waits_for_one_connection_is_bounded() {
        let mut handshakes = Handshakes::new(RandomState::with_seeds(1, 2, 3, 4));
        handshakes.used_us = TURN_US;
        assert_eq!(handshakes.admit(conn(1), &[0; WAITING_BYTES]), Turn::Later);
        assert_eq!(handshakes.admit(conn(1), b"x"), Turn::TooMuch);
    }
}
