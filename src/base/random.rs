//! Seeded random numbers as a value: for the simulator, for jitter, and for ids that needn't be secret.
//!
//! Lives on: whoever holds it. Pure: the seed is an argument. Not for secrets: those come from the operating system, in the binary.
//! Invariant: the same seed gives the same numbers, in every version, so that a failing seed of the simulator can be replayed.

/// xoshiro256** (Blackman and Vigna), seeded through splitmix64.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut counter = seed;
        Random { state: std::array::from_fn(|_| split_mix(&mut counter)) }
    }

    /// A generator of its own for one part, so that what one part draws doesn't change what the others get.
    pub fn fork(&mut self) -> Random {
        Random::new(self.next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number from 0 to `bound` - 1, each as likely (Lemire's method; the bias is below 2^-64 * bound).
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `n` times on average.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number from 0 up to, but not, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of these; `None` when there's none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len() as u64) as usize])
    }

    /// Puts them into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A number that tells all that were mixed into it, in their order, from any others (the finish of splitmix64).
pub fn mix(sum: u64, number: u64) -> u64 {
    split_mix(&mut (sum ^ number))
}

/// The next number of splitmix64 (Steele, Lea and Flood).
fn split_mix(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *counter;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_are_the_published_algorithms() {
        let mut counter = 1_234_567;
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([(); 3].map(|_| split_mix(&mut counter)), published);
        let mut random = Random { state: [1, 2, 3, 4] };
        assert_eq!([(); 4].map(|_| random.next_u64()), [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::new(7);
        let mut seen = [0u32; 10];
        for _ in 0..100_000 {
            seen[random.below(10) as usize] += 1;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert!(seen.iter().all(|n| (9_500..10_500).contains(n)), "{seen:?}");
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn a_shuffle_loses_nothing_and_a_pick_takes_what_is_there() {
        let mut random = Random::new(1);
        let mut items: Vec<u32> = (0..100).collect();
        random.shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        assert!(random.pick(&items).is_some_and(|n| *n < 100));
        assert_eq!(random.pick::<u32>(&[]), None);
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_fork_is_independent_and_bytes_fill_to_the_end() {
        let mut random = Random::new(3);
        let mut fork = random.fork();
        assert_ne!(fork.next_u64(), random.next_u64());
        let mut bytes = [0u8; 13];
        random.fill(&mut bytes);
        assert!(bytes[8..].iter().any(|&b| b != 0));
    }
}
