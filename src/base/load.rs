//! What C1 counts for one client: messages in and out, where a message longer than a unit of size counts as several, and what it
//! publishes.
//!
//! Lives on: every core, in each connection's line. Pure. Invariants: a message counts at least once; the numbers only grow, and
//! wrap round.

/// How load is counted: both units are the operator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Units {
    /// Length of the window over which messages are counted, in milliseconds; at least 1.
    pub unit_ms: u32,
    /// Size up to which a message counts once, in bytes; at least 1.
    pub unit_bytes: u32,
}

impl Default for Units {
    fn default() -> Units {
        Units { unit_ms: 1_000, unit_bytes: 1_500 }
    }
}

impl Units {
    /// What a message of this length counts.
    #[inline]
    pub fn of(&self, bytes: u32) -> u32 {
        if bytes <= self.unit_bytes { 1 } else { bytes.div_ceil(self.unit_bytes.max(1)) }
    }

    /// Length of the window in nanoseconds.
    pub fn nanos(&self) -> u64 {
        u64::from(self.unit_ms.max(1)) * 1_000_000
    }
}

/// What was taken from one client since its connection came to the core; the numbers wrap round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    /// Units received from the client.
    pub units: u32,
    /// Changes of presence it published.
    pub publications: u32,
    /// Bytes of presence it published.
    pub published_bytes: u32,
}

impl Taken {
    /// Adds what a chunk of bytes brought.
    #[inline]
    pub fn add(&mut self, more: Taken) {
        self.units = self.units.wrapping_add(more.units);
        self.publications = self.publications.wrapping_add(more.publications);
        self.published_bytes = self.published_bytes.wrapping_add(more.published_bytes);
    }
}

/// One client's load: since it came, or between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientLoad {
    pub taken: Taken,
    /// Units sent to the client.
    pub units_out: u32,
}

impl ClientLoad {
    /// What came on top since an earlier look; right as long as fewer than 2^32 of each lie between the two.
    pub fn since(&self, earlier: &ClientLoad) -> ClientLoad {
        let (now, then) = (self.taken, earlier.taken);
        let taken = Taken {
            units: now.units.wrapping_sub(then.units),
            publications: now.publications.wrapping_sub(then.publications),
            published_bytes: now.published_bytes.wrapping_sub(then.published_bytes),
        };
        ClientLoad { taken, units_out: self.units_out.wrapping_sub(earlier.units_out) }
    }

    /// Units in both directions: what clients are compared by.
    pub fn weight(&self) -> u64 {
        u64::from(self.taken.units) + u64::from(self.units_out)
    }

    /// The share `by` of `of`.
    pub fn scaled(self, by: u64, of: u64) -> ClientLoad {
        let scale = |count: u32| (u128::from(count) * u128::from(by) / u128::from(of.max(1))) as u32;
        let Taken { units, publications, published_bytes } = self.taken;
        let taken = Taken { units: scale(units), publications: scale(publications), published_bytes: scale(published_bytes) };
        ClientLoad { taken, units_out: scale(self.units_out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_a_long_message_counts_as_several_and_an_empty_one_as_one() {
        let units = Units { unit_ms: 100, unit_bytes: 1_500 };
        assert_eq!([0, 1, 1_500, 1_501, 4_500].map(|bytes| units.of(bytes)), [1, 1, 1, 2, 3]);
        assert_eq!(Units { unit_ms: 0, unit_bytes: 0 }.of(3), 3, "a unit of 0 is taken for 1");
    }

    #[test]
    fn c1_a_clients_load_is_small_and_its_differences_survive_the_wrap() {
        assert_eq!(size_of::<Taken>(), 12);
        let before = ClientLoad { taken: Taken { units: u32::MAX, ..Taken::default() }, ..ClientLoad::default() };
        let mut now = before;
        now.taken.add(Taken { units: 2, publications: 1, published_bytes: 100 });
        now.units_out += 3;
        let taken = Taken { units: 2, publications: 1, published_bytes: 100 };
        assert_eq!(now.since(&before), ClientLoad { taken, units_out: 3 });
    }
}
