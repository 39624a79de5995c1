//! The load of clients and of the node, as C1 counts it: messages in and out per unit of time, where a message longer than a unit
//! of size counts as several.
//!
//! Lives on: every core; each session carries a `ClientLoad`, each core one `Meter`. Pure. Invariants: a message counts at least
//! once; a client's load is 16 bytes.

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
    pub fn of(&self, bytes: usize) -> u32 {
        if bytes <= self.unit_bytes as usize {
            return 1;
        }
        u32::try_from(bytes.div_ceil(self.unit_bytes.max(1) as usize)).unwrap_or(u32::MAX).max(1)
    }
}

/// One client's load since it came. The numbers wrap round; `since` is right as long as fewer than 2^32 lie between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientLoad {
    /// Units received from the client.
    pub units_in: u32,
    /// Units sent to the client.
    pub units_out: u32,
    /// Changes of presence it published.
    pub publications: u32,
    /// Bytes of presence it published.
    pub published_bytes: u32,
}

impl ClientLoad {
    pub fn received(&mut self, units: u32) {
        self.units_in = self.units_in.wrapping_add(units);
    }

    pub fn sent(&mut self, units: u32) {
        self.units_out = self.units_out.wrapping_add(units);
    }

    pub fn published(&mut self, bytes: usize) {
        self.publications = self.publications.wrapping_add(1);
        self.published_bytes = self.published_bytes.wrapping_add(bytes as u32);
    }

    /// What came on top since an earlier look.
    pub fn since(&self, earlier: &ClientLoad) -> ClientLoad {
        ClientLoad {
            units_in: self.units_in.wrapping_sub(earlier.units_in),
            units_out: self.units_out.wrapping_sub(earlier.units_out),
            publications: self.publications.wrapping_sub(earlier.publications),
            published_bytes: self.published_bytes.wrapping_sub(earlier.published_bytes),
        }
    }
}

/// Events in the last unit of time, sliding: this window's events, and of the one before as much as the unit still covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Window {
    number: u64,
    current: u64,
    previous: u64,
}

impl Window {
    fn turn_to(&mut self, number: u64) {
        if number > self.number {
            self.previous = if number == self.number + 1 { self.current } else { 0 };
            self.current = 0;
            self.number = number;
        }
    }
}

/// What went through one core in the last unit of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// Units received from clients.
    pub units_in: u64,
    /// Units sent to clients.
    pub units_out: u64,
    pub publications: u64,
    pub published_bytes: u64,
}

/// One core's meter; a node's load is the sum of its cores'.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meter {
    units: Units,
    windows: [Window; 4],
}

impl Meter {
    pub fn new(units: Units) -> Meter {
        Meter { units, windows: [Window::default(); 4] }
    }

    pub fn units(&self) -> Units {
        self.units
    }

    /// A message came from a client. Gives what it counted, for the client's own load.
    pub fn received(&mut self, now: Time, bytes: usize) -> u32 {
        let units = self.units.of(bytes);
        self.count(now, 0, u64::from(units));
        units
    }

    /// A message went to a client. Gives what it counted, for the client's own load.
    pub fn sent(&mut self, now: Time, bytes: usize) -> u32 {
        let units = self.units.of(bytes);
        self.count(now, 1, u64::from(units));
        units
    }

    /// Several messages of one length went to clients, as in a fan-out.
    pub fn sent_many(&mut self, now: Time, bytes: usize, messages: u64) {
        self.count(now, 1, u64::from(self.units.of(bytes)) * messages);
    }

    /// A client published presence.
    pub fn published(&mut self, now: Time, bytes: usize) {
        self.count(now, 2, 1);
        self.count(now, 3, bytes as u64);
    }

    /// What went through in the unit of time before `now`.
    pub fn rate(&mut self, now: Time) -> Rate {
        let unit = self.unit_nanos();
        let left = unit - now.0 % unit;
        let [units_in, units_out, publications, published_bytes] = std::array::from_fn(|at| {
            let window = &mut self.windows[at];
            window.turn_to(now.0 / unit);
            let covered = u128::from(window.previous) * u128::from(left) / u128::from(unit);
            window.current + covered as u64
        });
        Rate { units_in, units_out, publications, published_bytes }
    }

    fn count(&mut self, now: Time, at: usize, by: u64) {
        let number = now.0 / self.unit_nanos();
        let window = &mut self.windows[at];
        window.turn_to(number);
        window.current = window.current.saturating_add(by);
    }

    fn unit_nanos(&self) -> u64 {
        u64::from(self.units.unit_ms.max(1)) * 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_long_message_counts_as_several_and_an_empty_one_as_one() {
        let units = Units { unit_ms: 1_000, unit_bytes: 1_500 };
        assert_eq!([0, 1, 1_500, 1_501, 4_500].map(|bytes| units.of(bytes)), [1, 1, 1, 2, 3]);
        assert_eq!(Units { unit_ms: 0, unit_bytes: 0 }.of(3), 3, "a unit of 0 is taken for 1");
    }

    #[test]
    fn a_clients_load_is_small_and_its_differences_survive_the_wrap() {
        assert_eq!(size_of::<ClientLoad>(), 16);
        let mut load = ClientLoad { units_in: u32::MAX, ..ClientLoad::default() };
        let before = load;
        load.received(2);
        load.sent(3);
        load.published(100);
        assert_eq!(load.since(&before), ClientLoad { units_in: 2, units_out: 3, publications: 1, published_bytes: 100 });
    }

    #[test]
    fn the_window_slides_and_forgets() {
        let mut meter = Meter::new(Units { unit_ms: 100, unit_bytes: 10 });
        assert_eq!(meter.received(Time(50 * MS), 95), 10);
        meter.sent(Time(50 * MS), 5);
        meter.sent_many(Time(50 * MS), 11, 4);
        meter.published(Time(50 * MS), 64);
        let rate = |meter: &mut Meter, ms: u64| meter.rate(Time(ms * MS));
        assert_eq!(rate(&mut meter, 99), Rate { units_in: 10, units_out: 9, publications: 1, published_bytes: 64 });
        assert_eq!(rate(&mut meter, 150).units_in, 5, "half of the last window is still covered");
        assert_eq!(rate(&mut meter, 200), Rate::default());
        meter.received(Time(210 * MS), 1);
        assert_eq!(rate(&mut meter, 999), Rate::default(), "windows without an event leave nothing behind");
    }

    proptest! {
        /// A steady flow is measured as what it is, whenever one looks.
        #[test]
        fn a_steady_flow_reads_right_at_any_moment(per_ms in 1u64..20, look_at in 1_000u64..2_000) {
            let mut meter = Meter::new(Units { unit_ms: 100, unit_bytes: 1_500 });
            for ms in 0..look_at {
                meter.sent_many(Time(ms * MS), 64, per_ms);
            }
            let rate = meter.rate(Time(look_at * MS)).units_out;
            prop_assert!(rate.abs_diff(per_ms * 100) <= per_ms, "{} against {}", rate, per_ms * 100);
        }
    }
}
