//! Secrets that nobody may guess (resume tokens, made-up resources), from a seed that the operating system gave.
//!
//! SHA-256 in counter mode over a 256-bit seed: neither the past nor the future of the stream can be told from a part of it. For
//! everything that need not be secret there is `random`.

use sha2::{Digest, Sha256};

/// A stream of secret bytes.
#[derive(Clone)]
pub struct Secrets {
    seed: [u8; 32],
    counter: u64,
}

impl Secrets {
    pub fn new(seed: [u8; 32]) -> Secrets {
        Secrets { seed, counter: 0 }
    }

    /// For tests and the simulator, where the seed is a number that people type.
    pub fn from_number(seed: u64) -> Secrets {
        Secrets::new(Sha256::digest(seed.to_le_bytes()).into())
    }

    fn block(&mut self) -> [u8; 32] {
        self.counter += 1;
        Sha256::new().chain_update(self.seed).chain_update(self.counter.to_le_bytes()).finalize().into()
    }

    /// A stream of its own for one purpose, so that drawing more here changes nothing there.
    pub fn fork(&mut self) -> Secrets {
        Secrets::new(self.block())
    }

    pub fn bytes16(&mut self) -> [u8; 16] {
        *self.block().first_chunk().expect("a block has 32 bytes")
    }

    /// Lower-case letters and digits, for names that people may have to read out; at most 32.
    pub fn letters(&mut self, count: usize) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        self.block().iter().take(count).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_stream_and_another_seed_another() {
        let draw = |seed| {
            let mut secrets = Secrets::from_number(seed);
            (secrets.letters(8), secrets.bytes16())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
