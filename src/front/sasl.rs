//! The server's half of SCRAM-SHA-256 (RFC 5802, RFC 7677) and PLAIN (RFC 4616).
//!
//! Lives on: every core; only [`PlainCheck::run`] is slow, and belongs on another thread. Serves the native door, and any later one
//! that speaks SASL. Invariants: an unknown user can't be told from a wrong password; secrets are compared in constant time; no
//! message, however broken, does more than fail.
//!
//! The rsasl crate is the client's half (`client::sasl`), and so checks this one independently. It is not used here, because its
//! server indexes into messages before it looks at their length (four bytes from anybody would stop the process), takes its nonce
//! from global randomness, and compares keys in variable time.

use crate::base::credentials::{ITERATIONS, SALT_BYTES, ScramCredentials, hmac};
use crate::base::jid::Bare;
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Longest SASL message taken. At the limit: the log-in fails.
pub const MESSAGE_BYTES: usize = 4096;
/// Randomness the host gives to each SCRAM exchange.
pub const NONCE_BYTES: usize = 18;

/// Makes up credentials for users that don't exist: the same ones each time, and nobody knows their password.
#[derive(Clone)]
pub struct Decoys {
    secret: [u8; 32],
}

impl Decoys {
    /// The secret is the deployment's own; all its nodes need the same, or the made-up salts differ between them.
    pub fn new(secret: [u8; 32]) -> Decoys {
        Decoys { secret }
    }

    pub fn credentials(&self, user: &Bare) -> ScramCredentials {
        let made_up = |what: &[u8]| hmac(&self.secret, &[what, user.as_str().as_bytes()]);
        ScramCredentials {
            salt: made_up(b"salt ")[..SALT_BYTES].to_vec(),
            iterations: ITERATIONS,
            stored_key: made_up(b"stored key "),
            server_key: made_up(b"server key "),
        }
    }

    fn or(&self, credentials: Option<&ScramCredentials>, user: &Bare) -> ScramCredentials {
        let decoy = self.credentials(user);
        credentials.cloned().unwrap_or(decoy)
    }
}

/// A SCRAM-SHA-256 exchange between the server's challenge and the client's proof.
pub struct Scram {
    credentials: ScramCredentials,
    /// What the proof must be bound to: the base64 of the client's GS2 header, and both nonces.
    binding: String,
    nonce: String,
    /// client-first-message-bare "," server-first-message ","
    said: String,
}

impl Scram {
    /// Takes the client's first message; gives the challenge to send. `None`: the log-in has failed.
    ///
    /// `credentials` are those of the account, `None` when there is no such user. `nonce` must be random.
    pub fn start(
        message: &[u8],
        user: &Bare,
        credentials: Option<&ScramCredentials>,
        decoys: &Decoys,
        nonce: [u8; NONCE_BYTES],
    ) -> Option<(Scram, Vec<u8>)> {
        Scram::start_with(message, user, decoys.or(credentials, user), &BASE64_STANDARD.encode(nonce))
    }

    fn start_with(message: &[u8], user: &Bare, credentials: ScramCredentials, nonce: &str) -> Option<(Scram, Vec<u8>)> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (flag, authzid, bare) = (parts.next()?, parts.next()?, parts.next()?);
        let header = &message[..message.len() - bare.len()];
        let authzid_fits = authzid.is_empty() || unescape(authzid.strip_prefix("a=")?)? == user.as_str();
        let mut attributes = bare.split(',');
        let name = unescape(attributes.next()?.strip_prefix("n=")?)?;
        let client_nonce = attributes.next()?.strip_prefix("r=")?;
        if !matches!(flag, "n" | "y") || !authzid_fits || !names(&name, user) || client_nonce.is_empty() {
            return None;
        }
        let nonce = format!("{client_nonce}{nonce}");
        let challenge = format!("r={nonce},s={},i={}", BASE64_STANDARD.encode(&credentials.salt), credentials.iterations);
        let said = format!("{bare},{challenge},");
        Some((Scram { credentials, binding: BASE64_STANDARD.encode(header), nonce, said }, challenge.into_bytes()))
    }

    /// Takes the client's proof; gives the server's own, to send with LoggedIn. `None`: the log-in has failed.
    pub fn finish(self, message: &[u8]) -> Option<Vec<u8>> {
        let (without_proof, proof) = text(message)?.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let bound = attributes.next()?.strip_prefix("c=")? == self.binding && attributes.next()?.strip_prefix("r=")? == self.nonce;
        let proof: [u8; 32] = BASE64_STANDARD.decode(proof).ok()?.try_into().ok()?;
        let said = [self.said.as_bytes(), without_proof.as_bytes()];
        let mut client_key = hmac(&self.credentials.stored_key, &said);
        for (key, proof) in client_key.iter_mut().zip(proof) {
            *key ^= proof;
        }
        let proven: bool = Sha256::digest(client_key).ct_eq(&self.credentials.stored_key).into();
        let signature = hmac(&self.credentials.server_key, &said);
        (bound && proven).then(|| format!("v={}", BASE64_STANDARD.encode(signature)).into_bytes())
    }
}

/// A password to check. It owns what it needs, so that it can go to a thread that may be slow.
pub struct PlainCheck {
    credentials: ScramCredentials,
    password: String,
}

impl PlainCheck {
    /// Takes the client's only message. `None`: the log-in has failed.
    pub fn start(message: &[u8], user: &Bare, credentials: Option<&ScramCredentials>, decoys: &Decoys) -> Option<PlainCheck> {
        let mut parts = text(message)?.split('\0');
        let (authzid, name, password) = (parts.next()?, parts.next()?, parts.next()?);
        let authzid_fits = authzid.is_empty() || Bare::new(authzid).as_ref() == Some(user);
        if parts.next().is_some() || !authzid_fits || !names(name, user) || password.is_empty() {
            return None;
        }
        Some(PlainCheck { credentials: decoys.or(credentials, user), password: password.to_owned() })
    }

    /// Whether the password is right. Takes about a millisecond, for a user that doesn't exist too: never call it on a core.
    pub fn run(self) -> bool {
        self.credentials.verify_password(&self.password)
    }
}

fn text(message: &[u8]) -> Option<&str> {
    if message.len() > MESSAGE_BYTES { None } else { std::str::from_utf8(message).ok() }
}

/// Whether a SASL user name, the local part or the whole bare JID, means this user.
fn names(name: &str, user: &Bare) -> bool {
    Bare::new(name).as_ref() == Some(user) || Bare::new(&format!("{name}@{}", user.domain())).as_ref() == Some(user)
}

/// A saslname (RFC 5802 7): "=2C" is a comma, "=3D" an equals sign, and any other "=" a mistake.
pub(super) fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (letter, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        plain.push(letter);
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> ScramCredentials {
        ScramCredentials::from_password("pencil", &BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    }

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn exchange() -> (Scram, Vec<u8>) {
        let user = Bare::new("user@localhost").unwrap();
        Scram::start_with(FIRST.as_bytes(), &user, credentials(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap()
    }

    #[test]
    fn the_example_of_rfc_7677_holds() {
        let (scram, challenge) = exchange();
        assert_eq!(
            String::from_utf8(challenge).unwrap(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(scram.finish(FINAL.as_bytes()).unwrap(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_changed_proof_nonce_or_binding_fails() {
        for (from, to) in [("dHzb", "dHzc"), ("k0,", "k1,"), ("biws", "eSws"), (",p=", ",x=1,p="), ("=dHzbZapW", "=")] {
            let (scram, _) = exchange();
            assert_eq!(scram.finish(FINAL.replacen(from, to, 1).as_bytes()), None, "{from} -> {to}");
        }
    }

    #[test]
    fn broken_messages_fail() {
        let user = Bare::new("user@localhost").unwrap();
        let broken = ["", "n", "n,", "n,,", "n,,n", "n,,n=", "n,,n=user", "n,,n=user,r=", "n,a,n=user,r=x", "n,,n=u=2Cs=,r=x"];
        let refused = ["p=tls-unique,,n=user,r=x", "n,a=other@localhost,n=user,r=x", "n,,n=other,r=x", "n,,m=1,n=user,r=x"];
        for message in broken.into_iter().chain(refused) {
            assert!(Scram::start_with(message.as_bytes(), &user, credentials(), "n").is_none(), "{message:?}");
        }
        assert!(Scram::start_with(&[b'n'; MESSAGE_BYTES + 1], &user, credentials(), "n").is_none());
        for message in ["", "c", "c=", "c=biws", "c=biws,r", "c=biws,r=", ",p=", "c=biws,r=x,p=", "c=biws,r=x,p=!"] {
            assert_eq!(exchange().0.finish(message.as_bytes()), None, "{message:?}");
        }
    }

    #[test]
    fn names_may_be_escaped_and_unprepared() {
        let user = Bare::new("user@localhost").unwrap();
        for name in ["user", "USER", "user@localhost", "User@LOCALHOST"] {
            assert!(names(name, &user), "{name}");
        }
        assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
        for broken in ["=", "=2", "=2c", "a=", "=\u{e9}"] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_user_that_does_not_exist_looks_like_one_that_does() {
        let decoys = Decoys::new([7; 32]);
        let user = Bare::new("nobody@localhost").unwrap();
        let challenge = |nonce| Scram::start(b"n,,n=nobody,r=x", &user, None, &decoys, nonce).unwrap();
        let fields = |challenge: &[u8]| String::from_utf8(challenge.to_vec()).unwrap().split_once(",s=").unwrap().1.to_owned();
        let (scram, first) = challenge([1; NONCE_BYTES]);
        let (_, second) = challenge([2; NONCE_BYTES]);
        assert_eq!(fields(&first), fields(&second), "the salt stays the same");
        assert_eq!(fields(&first).len(), "W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".len());
        let final_message = format!("c=biws,r={},p={}", scram.nonce, BASE64_STANDARD.encode([0; 32]));
        assert_eq!(scram.finish(final_message.as_bytes()), None);
        assert!(!PlainCheck::start(b"\0nobody\0pencil", &user, None, &decoys).unwrap().run());
    }

    #[test]
    fn plain_takes_the_right_password_of_the_right_user_only() {
        let (decoys, user) = (Decoys::new([7; 32]), Bare::new("user@localhost").unwrap());
        let check =
            |message: &str| PlainCheck::start(message.as_bytes(), &user, Some(&credentials()), &decoys).map(PlainCheck::run);
        assert_eq!(check("\0user\0pencil"), Some(true));
        assert_eq!(check("user@localhost\0user@localhost\0pencil"), Some(true));
        assert_eq!(check("\0user\0pencils"), Some(false));
        for broken in ["", "\0", "\0user", "\0user\0", "\0other\0pencil", "other@localhost\0user\0pencil", "\0user\0pencil\0"] {
            assert_eq!(check(broken), None, "{broken:?}");
        }
    }
}
