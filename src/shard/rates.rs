//! How much may come: bytes and frames a second, from a connection, from a user, from an address.
//!
//! Lives on: every core; a user's sessions are on its home core (trunks are trusted). Serves G2. A connection has a purse, and what
//! comes costs it one comparison per received buffer. Once the purse is spent (or the connection goes), its content is charged to
//! the buckets of the connection, its user and its address, and it is full again. Whoever owes a bucket is not read until that is
//! made up for, so that the peer's own kernel holds it up; whoever would have to wait longer than `throttle_ms` is ended: `flood`.
//! Invariants: what has been received is worked off, never thrown away; a bucket is kept only while it isn't full, and so many at
//! most.

use super::Shard;
use super::addresses::network;
use super::connection::{Doorway, Purse, seconds};
use crate::base::id::{ConnId, UserId};
use crate::base::limits::Limits;
use crate::base::rate::{Bucket, Rate};
use crate::base::reason::Reason;
use crate::base::time::Time;
use ahash::RandomState;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// Buckets of a kind that are kept. At the limit: those that are full go; if those are too few, all.
const BUCKETS: usize = 65_536;

/// The buckets of one kind, by whose they are: bytes, frames. One that isn't here is full.
struct Buckets<K> {
    rates: [Rate; 2],
    owed: HashMap<K, [Bucket; 2], RandomState>,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(hasher: RandomState, bytes: Rate, frames: Rate) -> Buckets<K> {
        Buckets { rates: [bytes, frames], owed: HashMap::with_hasher(hasher) }
    }

    /// Charges what was used. Gives the nanoseconds until each bucket has made up for it.
    fn charge(&mut self, now: Time, key: K, used: [u64; 2]) -> [u64; 2] {
        if self.owed.len() >= BUCKETS && !self.owed.contains_key(&key) {
            self.owed.retain(|_, buckets| buckets.iter().any(|bucket| !bucket.is_full(now)));
            if self.owed.len() > BUCKETS / 2 {
                self.owed.clear();
            }
        }
        let [bytes, frames] = self.owed.entry(key).or_default();
        [bytes.take(now, used[0], self.rates[0]), frames.take(now, used[1], self.rates[1])]
    }
}

/// One core's buckets, and the connections that aren't read.
pub(super) struct Rates {
    connections: Buckets<ConnId>,
    users: Buckets<UserId>,
    addresses: Buckets<IpAddr>,
    longest: Duration,
    /// Until when each is not read, and the same in order of time; what doesn't agree is out of date.
    paused: HashMap<ConnId, Time, RandomState>,
    order: BinaryHeap<Reverse<(Time, ConnId)>>,
}

impl Rates {
    pub fn new(limits: &Limits, hasher: RandomState) -> Rates {
        let l = limits;
        let rate = Rate::new;
        Rates {
            connections: Buckets::new(
                hasher.clone(),
                rate(l.bytes_per_second, l.bytes_burst),
                rate(l.frames_per_second, l.frames_burst),
            ),
            users: Buckets::new(
                hasher.clone(),
                rate(l.user_bytes_per_second, l.user_bytes_burst),
                rate(l.user_frames_per_second, l.user_frames_burst),
            ),
            addresses: Buckets::new(
                hasher.clone(),
                rate(l.address_bytes_per_second, l.address_bytes_burst),
                rate(l.address_frames_per_second, l.address_frames_burst),
            ),
            longest: Duration::from_millis(u64::from(limits.throttle_ms)),
            paused: HashMap::with_hasher(hasher),
            order: BinaryHeap::new(),
        }
    }

    pub fn is_paused(&self, conn: ConnId) -> bool {
        self.paused.contains_key(&conn)
    }

    pub fn paused(&self) -> usize {
        self.paused.len()
    }

    /// True: it wasn't paused before.
    fn pause(&mut self, conn: ConnId, until: Time) -> bool {
        self.order.push(Reverse((until, conn)));
        self.paused.insert(conn, until).is_none()
    }

    fn forget(&mut self, conn: ConnId) {
        self.connections.owed.remove(&conn);
        self.paused.remove(&conn);
    }
}

impl Shard {
    /// A connection's purse is spent.
    #[cold]
    pub(super) fn charge(&mut self, now: Time, conn: ConnId) {
        let wait = self.settle(now, conn);
        let Some(connection) = self.connection(conn) else { return };
        connection.purse = Purse::full();
        if wait == 0 || matches!(connection.door, Doorway::Closing) {
            return;
        }
        let wait = Duration::from_nanos(wait);
        if wait > self.rates.longest {
            self.end_connection(conn, Reason::Flood, "");
        } else if self.rates.pause(conn, now + wait) {
            self.pauses.push((conn, true));
        }
    }

    /// Charges what a connection has used. Gives the nanoseconds for which it should not be read.
    fn settle(&mut self, now: Time, conn: ConnId) -> u64 {
        let Some(connection) = self.connection(conn) else { return 0 };
        if matches!(&connection.door, Doorway::Here(door) if door.is_trunk()) || matches!(&connection.door, Doorway::Link(_)) {
            return 0;
        }
        let used = connection.purse.used();
        let user = self.edge.session(conn.slot, 0).map(|(_, home)| home.user);
        let peer = self.peers[conn.slot as usize];
        let peer = (!self.addresses.is_exempt(peer)).then(|| network(peer));
        let rates = &mut self.rates;
        let own = rates.connections.charge(now, conn, used);
        let user = user.map_or([0, 0], |user| rates.users.charge(now, user, used));
        let address = peer.map_or([0, 0], |peer| rates.addresses.charge(now, peer, used));
        let counters = &mut self.recorder.counters;
        for (wait, counter) in [
            (own[0], &mut counters.throttled_connection_bytes),
            (own[1], &mut counters.throttled_connection_frames),
            (user[0], &mut counters.throttled_user_bytes),
            (user[1], &mut counters.throttled_user_frames),
            (address[0], &mut counters.throttled_address_bytes),
            (address[1], &mut counters.throttled_address_frames),
        ] {
            *counter += u64::from(wait > 0);
        }
        [own, user, address].into_iter().flatten().max().unwrap_or(0)
    }

    /// A connection goes: what it has used is charged, too.
    pub(super) fn settle_last(&mut self, now: Time, conn: ConnId) {
        self.settle(now, conn);
        self.rates.forget(conn);
    }

    /// Those who have waited long enough are read again. Gives when the next will be.
    pub(super) fn go_on_reading(&mut self, now: Time) -> Option<Time> {
        while let Some(&Reverse((until, conn))) = self.rates.order.peek() {
            let is_valid = self.rates.paused.get(&conn) == Some(&until);
            if is_valid && until > now {
                return Some(until);
            }
            self.rates.order.pop();
            if !is_valid {
                continue;
            }
            self.rates.paused.remove(&conn);
            self.pauses.push((conn, false));
            if let Some(connection) = self.connection(conn) {
                connection.heard = seconds(now);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets() -> Buckets<u32> {
        Buckets::new(RandomState::with_seeds(1, 2, 3, 4), Rate::new(1000, 2000), Rate::new(10, 20))
    }

    #[test]
    fn a_purse_is_spent_by_bytes_or_by_frames() {
        let mut purse = Purse::full();
        purse.spend(16 << 10);
        assert!(!purse.is_spent(), "so much is in it");
        purse.spend(1);
        assert!(purse.is_spent());
        assert_eq!(purse.used(), [(16 << 10) + 1, 0]);
        let mut purse = Purse::full();
        purse.spend_frames(65);
        assert!(purse.is_spent());
        assert_eq!(purse.used(), [0, 65]);
        purse.spend_frames(u32::MAX);
        purse.spend(usize::MAX);
        assert!(purse.is_spent(), "and stays so, whatever comes");
    }

    #[test]
    fn each_has_buckets_of_its_own_and_bytes_and_frames_have_each_their_own() {
        let (mut buckets, now) = (buckets(), Time(5_000_000_000));
        assert_eq!(buckets.charge(now, 1, [2000, 20]), [0, 0]);
        assert_eq!(buckets.charge(now, 1, [500, 0]), [500_000_000, 0]);
        assert_eq!(buckets.charge(now, 1, [0, 5]), [500_000_000, 500_000_000]);
        assert_eq!(buckets.charge(now, 2, [2000, 20]), [0, 0]);
    }

    #[test]
    fn as_many_buckets_are_kept_as_may_and_those_who_owe_nothing_go_first() {
        let mut buckets = buckets();
        for key in 0..BUCKETS as u32 {
            buckets.charge(Time(u64::from(key)), key, [1000, 0]);
        }
        let later = Time(1_000_000_000 + BUCKETS as u64 - 10);
        buckets.charge(later, u32::MAX, [4000, 0]);
        assert!(buckets.owed.len() <= 11, "{}", buckets.owed.len());
        assert!(buckets.charge(later, u32::MAX, [0, 0])[0] > 0, "who owes is remembered");
        for key in 0..2 * BUCKETS as u32 {
            buckets.charge(later, key, [4000, 0]);
            assert!(buckets.owed.len() <= BUCKETS);
        }
    }
}
