//! What may wait for one cluster, until it is worth a complex message (Z10).
//!
//! Lives on: cores with a connection to another cluster, one for each. Pure. An update takes the place of an older one of the same
//! (user, session); what is no update keeps its order. Invariants: what waits is bounded by `link.complex_count` and
//! `link.complex_bytes`; nothing waits for longer than `link.complex_ms` if `take` is called when `is_due`; an update that waits is
//! never older than one that went ahead of it in real time (`overtaken`); what is whole gives way to nothing by reference.

use crate::base::config::Link;
use crate::base::id::{SessionId, UserId};
use crate::base::time::Time;
use crate::wire::complex::{Packer, Row};
use crate::wire::event::{Head, REFERENCE};
use ahash::RandomState;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// About the bytes of an update in a message, its presence apart.
const ROW_BYTES: usize = 16;

/// What one destination's queue has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GatherCounters {
    pub updates: u64,
    /// Updates that took the place of an older one.
    pub replaced: u64,
    /// Updates that a newer one in real time made needless.
    pub overtaken: u64,
    pub others: u64,
    /// Complex messages, the bytes of them, and the updates in them.
    pub messages: u64,
    pub packed_bytes: u64,
    pub packed_updates: u64,
    /// Things that did not fit: the message had to be taken first.
    pub refused: u64,
}

impl GatherCounters {
    /// Adds another queue's numbers.
    pub fn add(&mut self, other: &GatherCounters) {
        let GatherCounters { updates, replaced, overtaken, others, messages, packed_bytes, packed_updates, refused } = other;
        self.updates += updates;
        self.replaced += replaced;
        self.overtaken += overtaken;
        self.others += others;
        self.messages += messages;
        self.packed_bytes += packed_bytes;
        self.packed_updates += packed_updates;
        self.refused += refused;
    }
}

/// The queue of one destination.
pub struct Gather {
    count: usize,
    most_bytes: usize,
    age: Duration,
    rows: Vec<Row>,
    places: HashMap<(UserId, SessionId), u32, RandomState>,
    presences: Vec<Arc<[u8]>>,
    numbers: HashMap<Arc<[u8]>, u32, RandomState>,
    others: Vec<Box<[u8]>>,
    bytes: usize,
    /// When the first came.
    since: Option<Time>,
    counters: GatherCounters,
}

impl Gather {
    pub fn new(link: &Link, hasher: RandomState) -> Gather {
        Gather {
            count: link.complex_count as usize,
            most_bytes: link.complex_bytes as usize,
            age: Duration::from_millis(u64::from(link.complex_ms)),
            rows: Vec::new(),
            places: HashMap::with_hasher(hasher.clone()),
            presences: Vec::new(),
            numbers: HashMap::with_hasher(hasher),
            others: Vec::new(),
            bytes: 0,
            since: None,
            counters: GatherCounters::default(),
        }
    }

    pub fn counters(&self) -> &GatherCounters {
        &self.counters
    }

    /// Things that wait.
    pub fn len(&self) -> usize {
        self.rows.len() + self.others.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is more in it than updates.
    pub fn must_arrive(&self) -> bool {
        !self.others.is_empty()
    }

    /// About the bytes of what waits, before they are packed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An update waits from now on, unless a newer one does. False: there is no room; take the message first, or, if nothing waits,
    /// send it by itself.
    pub fn update(&mut self, now: Time, head: Head, presence: &[u8]) -> bool {
        let place = self.places.get(&(head.user, head.session)).copied();
        if place.is_some_and(|place| self.rows[place as usize].head.version >= head.version) {
            return true;
        }
        let known = self.numbers.get(presence).copied();
        let more = if place.is_some() { 0 } else { ROW_BYTES } + if known.is_some() { 0 } else { presence.len() };
        if !self.has_room(place.is_none(), more) {
            return false;
        }
        self.bytes += more;
        let presence = known.unwrap_or_else(|| self.number(presence));
        let row = Row { head, presence };
        match place {
            Some(place) => {
                self.rows[place as usize] = row;
                self.counters.replaced += 1;
            }
            None => {
                self.places.insert((head.user, head.session), self.rows.len() as u32);
                self.rows.push(row);
            }
        }
        self.since.get_or_insert(now);
        self.counters.updates += 1;
        true
    }

    fn number(&mut self, presence: &[u8]) -> u32 {
        let (number, presence) = (self.presences.len() as u32, Arc::<[u8]>::from(presence));
        self.presences.push(presence.clone());
        self.numbers.insert(presence, number);
        number
    }

    /// Something else waits from now on. False: as with `update`.
    pub fn other(&mut self, now: Time, bytes: &[u8]) -> bool {
        let more = ROW_BYTES + bytes.len();
        if !self.has_room(true, more) {
            return false;
        }
        self.bytes += more;
        self.others.push(bytes.into());
        self.since.get_or_insert(now);
        self.counters.others += 1;
        true
    }

    fn has_room(&mut self, is_one_more: bool, bytes: usize) -> bool {
        let has_room = self.len() + usize::from(is_one_more) <= self.count && self.bytes + bytes <= self.most_bytes;
        self.counters.refused += u64::from(!has_room);
        has_room
    }

    /// Whether what waits of a session gives way to a newer update. What is whole gives way to none by reference: it may be what
    /// was asked for, and whoever has asked does not ask again.
    pub fn yields_to(&self, newer: &Head) -> bool {
        let by_reference = |head: &Head| head.flags & REFERENCE != 0;
        let waits_whole = || {
            let place = self.places.get(&(newer.user, newer.session));
            place.is_some_and(|&place| !by_reference(&self.rows[place as usize].head))
        };
        !by_reference(newer) || !waits_whole()
    }

    /// A newer update of a session goes in real time: one that waits is needless.
    pub fn overtaken(&mut self, user: UserId, session: SessionId) {
        let Some(place) = self.places.remove(&(user, session)) else { return };
        self.rows.swap_remove(place as usize);
        if let Some(moved) = self.rows.get(place as usize) {
            self.places.insert((moved.head.user, moved.head.session), place);
        }
        self.bytes -= ROW_BYTES;
        self.counters.overtaken += 1;
        if self.is_empty() {
            self.clear();
        }
    }

    /// When the first that waits can wait no longer.
    pub fn deadline(&self) -> Time {
        self.since.map_or(Time::MAX, |since| since + self.age)
    }

    /// Whether it's time for a message: by count, bytes or age.
    pub fn is_due(&self, now: Time) -> bool {
        self.len() >= self.count || self.bytes >= self.most_bytes || self.deadline() <= now
    }

    /// Appends a complex message of all that waits. True: there is more in it than updates, so it must arrive.
    pub fn take(&mut self, packer: &mut Packer, out: &mut Vec<u8>) -> bool {
        let (start, must_arrive) = (out.len(), self.must_arrive());
        packer.pack(out, self.others.iter().map(|other| &other[..]), &mut self.rows, &self.presences);
        self.counters.messages += 1;
        self.counters.packed_bytes += (out.len() - start) as u64;
        self.counters.packed_updates += self.rows.len() as u64;
        self.clear();
        must_arrive
    }

    /// Drops what waits: whom it was for is gone.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.places.clear();
        self.presences.clear();
        self.numbers.clear();
        self.others.clear();
        (self.bytes, self.since) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Version;
    use crate::wire::complex::{Compression, Unpacker};
    use crate::wire::encode::{Encoder, PresenceFields};
    use crate::wire::native::Show;

    const LINK: fn() -> Link = || Link { complex_count: 4, complex_bytes: 4096, complex_ms: 100, ..Link::default() };

    fn gather() -> Gather {
        Gather::new(&LINK(), RandomState::with_seeds(1, 2, 3, 4))
    }

    fn head(user: u64, sequence: u32) -> Head {
        let version = Version { epoch: 1, sequence };
        Head { user: UserId(user), version, session: SessionId(1), show: Show::Away, flags: 0 }
    }

    fn presence(status: &str) -> Vec<u8> {
        Encoder::default().presence(&PresenceFields { resource: "desk", status, ..Default::default() })
    }

    type Taken = (Vec<Vec<u8>>, Vec<(u64, u32, Vec<u8>)>, bool);

    fn take(gather: &mut Gather) -> Taken {
        let mut out = Vec::new();
        let must_arrive = gather.take(&mut Packer::new(Compression::Lz4, &[]).unwrap(), &mut out);
        let mut unpacker = Unpacker::new(&[]).unwrap();
        let complex = unpacker.unpack(&out).unwrap();
        let updates = complex.updates().map(|(head, presence)| (head.user.0, head.version.sequence, presence.to_vec())).collect();
        (complex.others().map(<[u8]>::to_vec).collect(), updates, must_arrive)
    }

    #[test]
    fn z10_a_newer_update_takes_the_place_of_an_older_one_and_everything_else_keeps_its_order() {
        let mut gather = gather();
        assert!(gather.update(Time(0), head(2, 1), &presence("a")) && gather.other(Time(0), b"first"));
        assert!(gather.update(Time(0), head(1, 5), &presence("b")) && gather.other(Time(0), b"second"));
        assert!(gather.update(Time(0), head(2, 2), &presence("c")), "though it is full");
        assert!(gather.update(Time(0), head(1, 4), &presence("old")));
        assert_eq!((gather.len(), gather.counters().replaced), (4, 1));
        let updates = vec![(1, 5, presence("b")), (2, 2, presence("c"))];
        assert_eq!(take(&mut gather), (vec![b"first".to_vec(), b"second".to_vec()], updates, true));
        assert_eq!((gather.is_empty(), gather.bytes(), gather.deadline()), (true, 0, Time::MAX));
        gather.update(Time(0), head(1, 6), &presence("b"));
        assert!(!take(&mut gather).2, "updates alone may be lost");
    }

    #[test]
    fn z10_a_message_is_due_by_count_bytes_or_age() {
        let ms = Time::ZERO + Duration::from_millis(100);
        let mut by_age = gather();
        by_age.update(Time(7), head(1, 1), &presence(""));
        by_age.update(Time(9), head(2, 1), &presence(""));
        assert_eq!(by_age.deadline(), Time(ms.0 + 7));
        assert_eq!([ms.0 + 6, ms.0 + 7].map(|now| by_age.is_due(Time(now))), [false, true]);
        let mut by_count = gather();
        let taken = (0..9).filter(|&user| by_count.update(Time(0), head(user, 1), &presence(""))).count();
        assert!(taken == 4 && by_count.is_due(Time(0)) && by_count.counters().refused == 5);
        let mut by_bytes = gather();
        assert!(by_bytes.other(Time(0), &[0; 4080]) && by_bytes.is_due(Time(0)) && !by_bytes.other(Time(0), b""));
        assert!(!gather().other(Time(0), &[0; 4081]), "too long to wait at all");
    }

    #[test]
    fn m5_what_is_whole_gives_way_to_nothing_by_reference() {
        let by_reference = |sequence| Head { flags: REFERENCE, ..head(1, sequence) };
        let mut gather = gather();
        assert!(gather.yields_to(&by_reference(1)) && gather.update(Time(0), by_reference(1), &presence("")));
        assert!(gather.yields_to(&by_reference(2)) && gather.yields_to(&head(1, 2)));
        gather.update(Time(0), head(1, 2), &presence("b"));
        assert!(!gather.yields_to(&by_reference(3)) && gather.yields_to(&head(1, 3)) && gather.yields_to(&head(2, 3)));
        gather.clear();
        assert!(gather.yields_to(&by_reference(3)));
    }

    #[test]
    fn what_a_newer_update_overtook_does_not_come_after_it() {
        let mut gather = gather();
        (1..4).for_each(|user| assert!(gather.update(Time(0), head(user, 1), &presence(""))));
        gather.overtaken(UserId(1), SessionId(1));
        gather.overtaken(UserId(9), SessionId(1));
        assert!(gather.update(Time(0), head(3, 2), &presence("")));
        assert_eq!(take(&mut gather).1.iter().map(|(user, sequence, _)| (*user, *sequence)).collect::<Vec<_>>(), [(2, 1), (3, 2)]);
        gather.update(Time(0), head(1, 1), &presence(""));
        gather.overtaken(UserId(1), SessionId(1));
        assert_eq!((gather.deadline(), gather.bytes()), (Time::MAX, 0));
    }
}
