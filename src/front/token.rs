//! Log-in tokens: the operator's own log-in service signs who may log in and until when; a core checks that in a microsecond, with
//! no database and no other machine.
//!
//! Lives on: every core. A token is `fanal1.PAYLOAD.MAC`: the payload is the base64url (no padding) of `SCOPE|EXPIRY|NAME`, where
//! SCOPE is `user` or `trunk`, EXPIRY milliseconds since 1970 and NAME the bare JID or the trunk's name; MAC is the base64url of
//! the HMAC-SHA-256 of `fanal1.PAYLOAD`. Invariants: a token is good for its scope only, and for its user only.

use crate::base::jid::Bare;
use crate::base::time::WallClock;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;

/// Shortest key taken.
pub const KEY_BYTES: usize = 16;
/// Longest token taken: room for the longest JID. Longer ones are malformed.
pub const TOKEN_BYTES: usize = 4096;
const VERSION: &str = "fanal1";

/// Whom a token lets in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope<'a> {
    User(&'a Bare),
    /// A trunk, by the name the operator gave it.
    Trunk(&'a str),
}

impl<'a> Scope<'a> {
    fn parts(self) -> (&'static str, &'a str) {
        match self {
            Scope::User(jid) => ("user", jid.as_str()),
            Scope::Trunk(name) => ("trunk", name),
        }
    }
}

/// What is wrong with a token. The client is told none of this; it's for the operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TokenFault {
    #[error("the token is not of the form fanal1.PAYLOAD.MAC: check how the log-in service makes it")]
    Malformed,
    #[error("the token is not signed with any of this node's keys: give the node the log-in service's key")]
    Signature,
    #[error("the token has expired: have the log-in service make a new one, and check both clocks")]
    Expired,
    #[error("the token is for another user, or for a trunk instead of a user or the reverse")]
    Scope,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a token key has {0} bytes: use at least {KEY_BYTES}, all of them random")]
pub struct KeyTooShort(usize);

/// The keys whose tokens a node takes. The first is the one that signs.
#[derive(Clone, Default)]
pub struct Keys {
    keys: Vec<Hmac<Sha256>>,
}

impl Keys {
    /// Several keys are for rotation: tokens of each are taken.
    pub fn new<T: AsRef<[u8]>>(keys: impl IntoIterator<Item = T>) -> Result<Keys, KeyTooShort> {
        let key = |key: T| match key.as_ref() {
            short if short.len() < KEY_BYTES => Err(KeyTooShort(short.len())),
            key => Ok(Hmac::new_from_slice(key).expect("HMAC takes keys of any length")),
        };
        Ok(Keys { keys: keys.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// Whether no token can be good.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Makes a token with the first key; `None` without a key.
    pub fn sign(&self, scope: Scope<'_>, expiry: WallClock) -> Option<String> {
        let (scope, name) = scope.parts();
        let payload = BASE64_URL_SAFE_NO_PAD.encode(format!("{scope}|{}|{name}", expiry.0));
        let signed = format!("{VERSION}.{payload}");
        let mac = self.keys.first()?.clone().chain_update(&signed).finalize().into_bytes();
        Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac)))
    }

    /// Checks that a token lets this user log in now.
    pub fn verify_user(&self, token: &[u8], user: &Bare, now: WallClock) -> Result<(), TokenFault> {
        let payload = self.verify(token, now)?;
        if payload.scope == "user" && payload.name == user.as_str() { Ok(()) } else { Err(TokenFault::Scope) }
    }

    /// Checks that a token authorises a trunk now; gives the trunk's name.
    pub fn verify_trunk(&self, token: &[u8], now: WallClock) -> Result<String, TokenFault> {
        let payload = self.verify(token, now)?;
        if payload.scope == "trunk" { Ok(payload.name) } else { Err(TokenFault::Scope) }
    }

    fn verify(&self, token: &[u8], now: WallClock) -> Result<Payload, TokenFault> {
        if token.len() > TOKEN_BYTES {
            return Err(TokenFault::Malformed);
        }
        let token = std::str::from_utf8(token).map_err(|_| TokenFault::Malformed)?;
        let (signed, mac) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let payload = signed.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix('.')).ok_or(TokenFault::Malformed)?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenFault::Malformed);
        let (payload, mac) = (decode(payload)?, decode(mac)?);
        if !self.keys.iter().any(|key| key.clone().chain_update(signed).verify_slice(&mac).is_ok()) {
            return Err(TokenFault::Signature);
        }
        let payload = Payload::read(&payload).ok_or(TokenFault::Malformed)?;
        if payload.expiry > now { Ok(payload) } else { Err(TokenFault::Expired) }
    }
}

struct Payload {
    scope: String,
    expiry: WallClock,
    name: String,
}

impl Payload {
    fn read(bytes: &[u8]) -> Option<Payload> {
        let mut parts = std::str::from_utf8(bytes).ok()?.splitn(3, '|');
        let (scope, expiry, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Payload { scope: scope.to_owned(), expiry: WallClock(expiry.parse().ok()?), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallClock = WallClock(1_763_690_000_000);
    const LATER: WallClock = WallClock(NOW.0 + 1);

    fn keys(keys: &[&str]) -> Keys {
        Keys::new(keys).unwrap()
    }

    fn jid(text: &str) -> Bare {
        Bare::new(text).unwrap()
    }

    #[test]
    fn a_token_lets_its_user_in_until_it_expires() {
        let (keys, alice) = (keys(&["0123456789abcdef"]), jid("alice@localhost"));
        let token = keys.sign(Scope::User(&alice), LATER).unwrap();
        assert_eq!(keys.verify_user(token.as_bytes(), &alice, NOW), Ok(()));
        assert_eq!(keys.verify_user(token.as_bytes(), &alice, LATER), Err(TokenFault::Expired));
        assert_eq!(keys.verify_user(token.as_bytes(), &jid("bob@localhost"), NOW), Err(TokenFault::Scope));
        assert_eq!(keys.verify_trunk(token.as_bytes(), NOW), Err(TokenFault::Scope));
    }

    #[test]
    fn a_trunk_token_lets_no_user_in() {
        let keys = keys(&["0123456789abcdef"]);
        let token = keys.sign(Scope::Trunk("alice@localhost"), LATER).unwrap();
        assert_eq!(keys.verify_trunk(token.as_bytes(), NOW).as_deref(), Ok("alice@localhost"));
        assert_eq!(keys.verify_user(token.as_bytes(), &jid("alice@localhost"), NOW), Err(TokenFault::Scope));
    }

    #[test]
    fn the_old_key_is_taken_while_it_is_configured() {
        let (old, new) = (keys(&["0123456789abcdef"]), keys(&["the new one that signs"]));
        let both = keys(&["the new one that signs", "0123456789abcdef"]);
        let alice = jid("alice@localhost");
        let token = old.sign(Scope::User(&alice), LATER).unwrap();
        assert_eq!(both.verify_user(token.as_bytes(), &alice, NOW), Ok(()));
        assert_eq!(new.verify_user(token.as_bytes(), &alice, NOW), Err(TokenFault::Signature));
        assert_eq!(both.sign(Scope::User(&alice), LATER), new.sign(Scope::User(&alice), LATER));
        assert_eq!(Keys::default().verify_user(token.as_bytes(), &alice, NOW), Err(TokenFault::Signature));
    }

    #[test]
    fn no_changed_token_is_good() {
        let (keys, alice) = (keys(&["0123456789abcdef"]), jid("alice@localhost"));
        let token = keys.sign(Scope::User(&alice), LATER).unwrap();
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut changed = token.clone().into_bytes();
                changed[at] ^= 1 << bit;
                assert!(keys.verify_user(&changed, &alice, NOW).is_err(), "byte {at}, bit {bit}");
            }
            assert!(keys.verify_user(&token.as_bytes()[..at], &alice, NOW).is_err());
        }
    }

    #[test]
    fn a_payload_may_look_like_anything() {
        let keys = keys(&["0123456789abcdef"]);
        for name in ["a|b@localhost", "|", "user|9999999999999|x"] {
            let token = keys.sign(Scope::Trunk(name), LATER).unwrap();
            assert_eq!(keys.verify_trunk(token.as_bytes(), NOW).as_deref(), Ok(name));
        }
        for token in ["", ".", "..", "fanal1", "fanal1.", "fanal1..", "fanal2.e30.e30", "fanal1.e30.e30.e30", "fanal1.=.="] {
            assert!(keys.verify_trunk(token.as_bytes(), NOW).is_err(), "{token}");
        }
    }

    #[test]
    fn a_short_key_is_refused_with_the_fix() {
        let error = Keys::new(["short"]).err().unwrap();
        assert_eq!(error.to_string(), "a token key has 5 bytes: use at least 16, all of them random");
    }
}
