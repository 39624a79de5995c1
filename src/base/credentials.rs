//! What the node keeps instead of a password: the SCRAM credentials of an account, for SHA-256 (RFC 7677) and SHA-1 (RFC 5802).
//!
//! Lives on: any thread. `from_password` and `verify_password` cost about a millisecond, so never call them on a core.
//! Invariant: neither the password nor anything to log in with elsewhere can be had from them but by guessing.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use subtle::ConstantTimeEq;

/// PBKDF2 rounds of a new account (RFC 7677 4 asks for at least this many).
pub const ITERATIONS: u32 = 4096;
/// Length of a new account's salt.
pub const SALT_BYTES: usize = 16;

/// The hash functions that SCRAM is spoken with here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    /// RFC 5802: what every XMPP client knows.
    Sha1,
    /// RFC 7677.
    Sha256,
}

impl Hash {
    /// Length of what it gives.
    pub fn bytes(self) -> usize {
        match self {
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
        }
    }

    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(data).to_vec(),
            Hash::Sha256 => Sha256::digest(data).to_vec(),
        }
    }

    /// HMAC of the parts, one after the other.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        fn of<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
            let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            Hash::Sha1 => of::<Hmac<Sha1>>(key, parts),
            Hash::Sha256 => of::<Hmac<Sha256>>(key, parts),
        }
    }

    /// StoredKey and ServerKey of a password (RFC 5802 3).
    fn keys(self, password: &str, salt: &[u8], iterations: u32) -> (Vec<u8>, Vec<u8>) {
        let (password, mut salted) = (prepare(password), vec![0; self.bytes()]);
        match self {
            Hash::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password.as_bytes(), salt, iterations, &mut salted),
            Hash::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted),
        }
        (self.digest(&self.hmac(&salted, &[b"Client Key"])), self.hmac(&salted, &[b"Server Key"]))
    }
}

/// Enough to check a password, or a SCRAM proof of it, and to prove to the client that we know it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramCredentials {
    pub salt: Vec<u8>,
    pub iterations: u32,
    /// Of SHA-256.
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
    /// `None`: the account is older than SHA-1 here; who has a new password set gets them.
    pub sha1: Option<Sha1Keys>,
}

/// What SCRAM-SHA-1 needs besides salt and iterations.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sha1Keys {
    pub stored_key: [u8; 20],
    pub server_key: [u8; 20],
}

impl ScramCredentials {
    /// Derives the credentials of a password. The salt must be random and this account's own.
    ///
    /// Panics when `iterations` is 0.
    pub fn from_password(password: &str, salt: &[u8], iterations: u32) -> ScramCredentials {
        assert!(iterations > 0, "SCRAM needs at least one iteration");
        let (stored_key, server_key) = Hash::Sha256.keys(password, salt, iterations);
        let (stored_sha1, server_sha1) = Hash::Sha1.keys(password, salt, iterations);
        let sha1 = Sha1Keys { stored_key: sized(&stored_sha1), server_key: sized(&server_sha1) };
        ScramCredentials {
            salt: salt.to_vec(),
            iterations,
            stored_key: sized(&stored_key),
            server_key: sized(&server_key),
            sha1: Some(sha1),
        }
    }

    /// StoredKey and ServerKey for a hash; `None`: the account has none for it.
    pub fn keys(&self, hash: Hash) -> Option<(&[u8], &[u8])> {
        match hash {
            Hash::Sha1 => self.sha1.as_ref().map(|keys| (&keys.stored_key[..], &keys.server_key[..])),
            Hash::Sha256 => Some((&self.stored_key, &self.server_key)),
        }
    }

    /// Whether this is the password, in time that tells nothing about how wrong it is.
    pub fn verify_password(&self, password: &str) -> bool {
        let (stored_key, _) = Hash::Sha256.keys(password, &self.salt, self.iterations);
        stored_key.ct_eq(&self.stored_key).into()
    }
}

fn sized<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a hash has its length")
}

impl fmt::Debug for Sha1Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha1Keys")
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

    /// RFC 5802 5 and RFC 7677 3 tell the exchanges that lead to these.
    #[test]
    fn both_hashes_have_keys_of_their_own_lengths() {
        let credentials = ScramCredentials::from_password("pencil", b"salt", 1);
        for hash in [Hash::Sha1, Hash::Sha256] {
            let (stored, server) = credentials.keys(hash).unwrap();
            assert_eq!((stored.len(), server.len()), (hash.bytes(), hash.bytes()));
            assert_eq!((stored.to_vec(), server.to_vec()), hash.keys("pencil", b"salt", 1));
        }
        let old = ScramCredentials { sha1: None, ..credentials };
        assert!(old.keys(Hash::Sha1).is_none() && old.verify_password("pencil"));
    }

    #[test]
    fn what_is_logged_tells_no_secret() {
        let credentials = ScramCredentials::from_password("pencil", b"salt", 1);
        assert_eq!(format!("{credentials:?}"), "ScramCredentials { iterations: 1, .. }");
    }
}
