//! The load of clients and of the node, as C1 counts it: messages in and out per unit of time, where a message longer than a unit
//! of size counts as several.
//!
//! Lives on: every core, which has one `Meter`; each connection carries a `Taken`, and its line what went out. Pure. Invariants: a
//! message counts at least once; what is counted only grows (or wraps round), and rates come of the difference of two looks, so
//! that counting costs an addition and nothing is done per delivery.

use crate::base::time::Time;

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

    fn nanos(&self) -> u64 {
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

    fn scaled(self, by: u64, of: u64) -> ClientLoad {
        let scale = |count: u32| (u128::from(count) * u128::from(by) / u128::from(of.max(1))) as u32;
        let Taken { units, publications, published_bytes } = self.taken;
        let taken = Taken { units: scale(units), publications: scale(publications), published_bytes: scale(published_bytes) };
        ClientLoad { taken, units_out: scale(self.units_out) }
    }
}

/// One client's load at two moments, from which the load of a unit of time comes: it reaches back one unit or more, if the client
/// is that old.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    older: (Time, ClientLoad),
    newer: (Time, ClientLoad),
}

impl Marks {
    /// The marks of a client that came at this time.
    pub fn new(came: Time) -> Marks {
        let mark = (came, ClientLoad::default());
        Marks { older: mark, newer: mark }
    }

    /// Looks at the client again: often enough is once in a unit.
    pub fn look(&mut self, now: Time, load: ClientLoad, units: &Units) {
        if now.since(self.newer.0) >= units.nanos() {
            self.older = std::mem::replace(&mut self.newer, (now, load));
        }
    }

    /// What a unit of time up to now has brought; of a younger client, all there was.
    pub fn per_unit(&self, now: Time, load: ClientLoad, units: &Units) -> ClientLoad {
        let (since, earlier) = self.older;
        let (over, unit) = (now.since(since), units.nanos());
        let load = load.since(&earlier);
        if over > unit { load.scaled(unit, over) } else { load }
    }
}

/// What went through one core: since its start, or in a unit of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Units received from clients.
    pub units_in: u64,
    /// Units sent to clients.
    pub units_out: u64,
    pub publications: u64,
    pub published_bytes: u64,
}

impl Load {
    fn each(self, other: Load, of: impl Fn(u64, u64) -> u64) -> Load {
        Load {
            units_in: of(self.units_in, other.units_in),
            units_out: of(self.units_out, other.units_out),
            publications: of(self.publications, other.publications),
            published_bytes: of(self.published_bytes, other.published_bytes),
        }
    }
}

/// One core's meter: the sum over its clients in the last unit of time, sliding. A node's load is the sum of its cores'.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meter {
    units: Units,
    /// What had been counted at the last look.
    seen: Load,
    window: u64,
    current: Load,
    previous: Load,
}

impl Meter {
    pub fn new(units: Units) -> Meter {
        Meter { units, ..Meter::default() }
    }

    /// Takes in all that was counted since the start. What came on top counts as of now, so call it many times in a unit.
    pub fn look(&mut self, now: Time, counted: Load) {
        let window = now.0 / self.units.nanos();
        if window > self.window {
            self.previous = if window == self.window + 1 { self.current } else { Load::default() };
            self.current = Load::default();
            self.window = window;
        }
        let new = counted.each(self.seen, u64::wrapping_sub);
        self.current = self.current.each(new, u64::saturating_add);
        self.seen = counted;
    }

    /// What went through in the unit of time before `now`, the time of the last look: this window's, and of the one before as much
    /// as the unit still covers.
    pub fn rate(&self, now: Time) -> Load {
        let unit = self.units.nanos();
        let left = unit - now.0 % unit;
        let share = |current: u64, previous: u64| current + (u128::from(previous) * u128::from(left) / u128::from(unit)) as u64;
        self.current.each(self.previous, share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const UNITS: Units = Units { unit_ms: 100, unit_bytes: 1_500 };

    fn load(units: u32) -> ClientLoad {
        ClientLoad { taken: Taken { units, publications: 1, published_bytes: units }, units_out: 2 * units }
    }

    #[test]
    fn c1_a_long_message_counts_as_several_and_an_empty_one_as_one() {
        assert_eq!([0, 1, 1_500, 1_501, 4_500].map(|bytes| UNITS.of(bytes)), [1, 1, 1, 2, 3]);
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

    #[test]
    fn c1_a_clients_load_is_that_of_a_unit_of_time() {
        let mut marks = Marks::new(Time(50 * MS));
        assert_eq!(marks.per_unit(Time(80 * MS), load(10), &UNITS), load(10), "younger than a unit: all of it");
        marks.look(Time(150 * MS), load(20), &UNITS);
        assert_eq!(marks.per_unit(Time(250 * MS), load(40), &UNITS).taken.units, 20, "40 in two units");
        marks.look(Time(250 * MS), load(40), &UNITS);
        marks.look(Time(350 * MS), load(40), &UNITS);
        assert_eq!(marks.per_unit(Time(450 * MS), load(40), &UNITS), ClientLoad::default(), "idle for two units");
    }

    #[test]
    fn c1_the_cores_window_slides_and_forgets() {
        let mut meter = Meter::new(UNITS);
        let counted = Load { units_in: 10, units_out: 9, publications: 1, published_bytes: 64 };
        let rate = |meter: &mut Meter, ms: u64, counted: Load| {
            meter.look(Time(ms * MS), counted);
            meter.rate(Time(ms * MS))
        };
        assert_eq!(rate(&mut meter, 50, counted), counted);
        assert_eq!(rate(&mut meter, 150, counted).units_in, 5, "half of the last window is still covered");
        assert_eq!(rate(&mut meter, 200, counted), Load::default());
        let more = Load { units_in: 11, ..counted };
        assert_eq!(rate(&mut meter, 210, more).units_in, 1);
        assert_eq!(rate(&mut meter, 999, more), Load::default(), "windows without an event leave nothing behind");
    }

    proptest! {
        /// A steady flow is measured as what it is, whenever one looks.
        #[test]
        fn c1_a_steady_flow_reads_right_at_any_moment(per_ms in 1u64..20, look_at in 1_000u64..2_000) {
            let mut meter = Meter::new(UNITS);
            for ms in 0..look_at {
                meter.look(Time(ms * MS), Load { units_out: (ms + 1) * per_ms, ..Load::default() });
            }
            let now = Time(look_at * MS);
            meter.look(now, Load { units_out: look_at * per_ms, ..Load::default() });
            let rate = meter.rate(now).units_out;
            prop_assert!(rate.abs_diff(per_ms * 100) <= per_ms, "{} against {}", rate, per_ms * 100);
        }
    }
}
