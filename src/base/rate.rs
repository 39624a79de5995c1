//! Token buckets: so much a second, and so much at once.
//!
//! Lives on: every core. Invariant: a bucket that is full is no different from a new one, so nothing need be kept of it.

use super::time::Time;

/// Fractions of a nanosecond, in bits: a rate of gigabytes a second has still a price.
const FRACTION_BITS: u32 = 20;

/// What fills a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Nanoseconds that one takes, with [`FRACTION_BITS`] below the point.
    price: u64,
    /// Nanoseconds that a full bucket is worth: the burst.
    ahead_ns: u64,
}

impl Rate {
    /// `burst` may be taken at once. Below 1 a second is 1 a second.
    pub fn new(per_second: u32, burst: u32) -> Rate {
        let price = (1_000_000_000 << FRACTION_BITS) / u64::from(per_second.max(1));
        Rate { price, ahead_ns: cost(price, u64::from(burst)) }
    }
}

fn cost(price: u64, amount: u64) -> u64 {
    u64::try_from((u128::from(price) * u128::from(amount)) >> FRACTION_BITS).unwrap_or(u64::MAX)
}

/// A bucket, kept as the time at which it will be full again. A new one is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket(Time);

impl Bucket {
    /// Takes so much, whether it is there or not. Gives the nanoseconds until the bucket has made up for it: 0 when it was there.
    pub fn take(&mut self, now: Time, amount: u64, rate: Rate) -> u64 {
        self.0 = Time(self.0.max(now).0.saturating_add(cost(rate.price, amount)));
        self.0.since(now).saturating_sub(rate.ahead_ns)
    }

    pub fn is_full(&self, now: Time) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_is_there_at_once_and_then_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(10, 5));
        let now = Time(7 * SECOND);
        assert_eq!(bucket.take(now, 5, rate), 0);
        assert_eq!(bucket.take(now, 1, rate), SECOND / 10);
        assert_eq!(bucket.take(now, 20, rate), 21 * SECOND / 10, "what was taken is owed");
        assert!(!bucket.is_full(now));
        let later = Time(now.0 + 26 * SECOND / 10);
        assert!(bucket.is_full(later));
        assert_eq!([bucket.take(later, 5, rate), bucket.take(later, 1, rate)], [0, SECOND / 10], "it is never more than full");
    }

    #[test]
    fn who_keeps_to_the_rate_never_waits_however_high_it_is() {
        for per_second in [1, 3, 1000, 1 << 20, u32::MAX] {
            let (mut bucket, rate) = (Bucket::default(), Rate::new(per_second, per_second));
            for second in 1..1000 {
                assert_eq!(bucket.take(Time(second * SECOND), u64::from(per_second), rate), 0, "{per_second}");
            }
            assert!(bucket.take(Time(999 * SECOND), u64::from(per_second), rate) > 900_000_000, "{per_second}");
        }
    }

    #[test]
    fn no_amount_overflows() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(Time(1), u64::MAX, Rate::new(1, 1)), u64::MAX - 1 - SECOND);
    }
}
