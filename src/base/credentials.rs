//! What the node keeps instead of a password: the SCRAM-SHA-256 credentials of an account (RFC 5802, RFC 7677).
//!
//! Lives on: any thread. `from_password` and `verify_password` cost about a millisecond, so never call them on a core.
//! Invariant: neither the password nor anything to log in with elsewhere can be had from them but by guessing.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use subtle::ConstantTimeEq;

/// PBKDF2 rounds of a new account (RFC 7677 4 asks for at least this many).
pub const ITERATIONS: u32 = 4096;
/// Length of a new account's salt.
pub const SALT_BYTES: usize = 16;

/// Enough to check a password, or a SCRAM proof of it, and to prove to the client that we know it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramCredentials {
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl ScramCredentials {
    /// Derives the credentials of a password. The salt must be random and this account's own.
    ///
    /// Panics when `iterations` is 0.
    pub fn from_password(password: &str, salt: &[u8], iterations: u32) -> ScramCredentials {
        assert!(iterations > 0, "SCRAM needs at least one iteration");
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(prepare(password).as_bytes(), salt, iterations, &mut salted);
        let client_key = hmac(&salted, &[b"Client Key"]);
        ScramCredentials {
            salt: salt.to_vec(),
            iterations,
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// Whether this is the password, in time that tells nothing about how wrong it is.
    pub fn verify_password(&self, password: &str) -> bool {
        let other = ScramCredentials::from_password(password, &self.salt, self.iterations);
        other.stored_key.ct_eq(&self.stored_key).into()
    }
}

impl fmt::Debug for ScramCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramCredentials {{ iterations: {}, .. }}", self.iterations)
    }
}

/// A password as it's hashed: what looks alike is alike (SASLprep, RFC 4013). One that can't be prepared is taken as it is.
pub fn prepare(password: &str) -> Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}

/// HMAC-SHA-256 of the parts, one after the other.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_verifies() {
        let credentials = ScramCredentials::from_password("pencil", b"0123456789abcdef", ITERATIONS);
        assert!(credentials.verify_password("pencil"));
        for wrong in ["", "pencil ", "Pencil", "penci"] {
            assert!(!credentials.verify_password(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_password_is_the_same_however_its_letters_are_composed() {
        let credentials = ScramCredentials::from_password("Ame\u{301}lie", b"salt", 1);
        assert!(credentials.verify_password("Am\u{e9}lie"));
        assert!(!credentials.verify_password("Amelie"));
    }

    #[test]
    fn what_is_logged_tells_no_secret() {
        let credentials = ScramCredentials::from_password("pencil", b"salt", 1);
        assert_eq!(format!("{credentials:?}"), "ScramCredentials { iterations: 1, .. }");
    }
}
