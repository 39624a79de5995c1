//! What a kernel needs to encrypt what a socket sends (kTLS), as a value: made by the TLS door, used by the driver.
//!
//! Invariant: whoever has made one encrypts nothing on that connection any more; a number of a record is never used twice.

use std::fmt;

/// How records are encrypted (RFC 8446 B.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
}

impl Cipher {
    pub fn key_bytes(self) -> usize {
        match self {
            Cipher::Aes128Gcm => 16,
            Cipher::Aes256Gcm => 32,
        }
    }
}

/// The keys of one direction of a TLS 1.3 connection, and the number of its next record.
pub struct Sealing {
    pub cipher: Cipher,
    /// As long as `cipher` has it; zeros behind.
    pub key: [u8; 32],
    pub iv: [u8; 12],
    pub sequence: u64,
}

impl Drop for Sealing {
    fn drop(&mut self) {
        self.key = std::hint::black_box([0; 32]);
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealing({:?})", self.cipher)
    }
}
