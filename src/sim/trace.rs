//! What happened in a run: a hash of all of it, and the last steps in words.
//!
//! Lives on: the simulator. Invariant: the hash depends on every input and output and their order, and on nothing else.

use crate::base::time::Time;
use std::collections::VecDeque;
use std::fmt::Arguments;

/// The words and the hash of one run.
pub struct Trace {
    hash: u64,
    kept: usize,
    tail: VecDeque<String>,
    pub step: u64,
}

impl Trace {
    /// Keeps the last `kept` lines.
    pub fn new(kept: usize) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, kept, tail: VecDeque::new(), step: 0 }
    }

    /// Notes what happened, for people and for the hash.
    pub fn note(&mut self, now: Time, what: Arguments<'_>) {
        let line = format!("{:>6} {:>12.6} s  {what}", self.step, now.0 as f64 / 1e9);
        self.bytes(0, line.as_bytes());
        if self.tail.len() >= self.kept {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// Notes bytes that went somewhere, for the hash alone.
    pub fn bytes(&mut self, place: u64, bytes: &[u8]) {
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let (words, rest) = bytes.as_chunks::<8>();
        let mut hash = mix(self.hash, place ^ (bytes.len() as u64) << 32);
        for word in words {
            hash = mix(hash, u64::from_le_bytes(*word));
        }
        self.hash = rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)));
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines, oldest first.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
