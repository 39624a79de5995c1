//! The server's half of SCRAM with SHA-1 and SHA-256 (RFC 5802, RFC 7677), bound to the TLS connection (RFC 9266), to the server's
//! certificate (RFC 5929) or to nothing, and of PLAIN (RFC 4616).
//!
//! Lives on: every core; only [`PlainCheck::run`] is slow, and belongs on another thread. Serves the native door, and any later one
//! that speaks SASL. Invariants: an unknown user can't be told from a wrong password; secrets are compared in constant time; no
//! message, however broken, does more than fail.
//!
//! The rsasl crate is the client's half (`client::sasl`), and so checks this one independently. It is not used here, because its
//! server indexes into messages before it looks at their length (four bytes from anybody would stop the process), takes its nonce
//! from global randomness, and compares keys in variable time.

use crate::base::credentials::{Hash, ITERATIONS, SALT_BYTES, ScramCredentials, Sha1Keys};
use crate::base::hashed::TokenSecret;
use crate::base::jid::Bare;
use crate::front::binding::Bindings;
use base64::{Engine, prelude::BASE64_STANDARD};
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

    /// What hashed tokens are made of: the same secret, for another use.
    pub fn token_secret(&self) -> TokenSecret {
        TokenSecret::new(&self.secret)
    }

    pub fn credentials(&self, user: &Bare) -> ScramCredentials {
        let made_up = |what: &[u8]| Hash::Sha256.hmac(&self.secret, &[what, user.as_str().as_bytes()]);
        let key = |what| made_up(what).try_into().expect("SHA-256 gives 32 bytes");
        let short_key = |what| made_up(what)[..20].try_into().expect("20 bytes");
        ScramCredentials {
            salt: made_up(b"salt ")[..SALT_BYTES].to_vec(),
            iterations: ITERATIONS,
            stored_key: key(b"stored key "),
            server_key: key(b"server key "),
            sha1: Some(Sha1Keys { stored_key: short_key(b"stored key 1 "), server_key: short_key(b"server key 1 ") }),
        }
    }

    /// An account's credentials, with what it lacks; or what is made up for who has none.
    pub fn or(&self, credentials: Option<&ScramCredentials>, user: &Bare) -> ScramCredentials {
        let decoy = self.credentials(user);
        match credentials {
            // An account from before SHA-1: its salt stays the same for both, and nobody gets in by SHA-1.
            Some(own) => ScramCredentials { sha1: own.sha1.clone().or(decoy.sha1), ..own.clone() },
            None => decoy,
        }
    }
}

/// What a SCRAM exchange goes by.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub hash: Hash,
    /// The client chose a -PLUS mechanism.
    pub bound: bool,
    /// What the connection can be bound to. With any of it the -PLUS mechanisms were offered, with none they were not.
    pub channel: Bindings,
}

/// A SCRAM exchange between the server's challenge and the client's proof.
pub struct Scram {
    hash: Hash,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
    /// What the proof must be bound to: the base64 of the client's GS2 header with the channel's data, and both nonces.
    binding: String,
    nonce: String,
    /// client-first-message-bare "," server-first-message ","
    said: String,
}

impl Scram {
    /// Takes the client's first message; gives the challenge to send. `None`: the log-in has failed.
    ///
    /// `credentials` are those of the account, or made up ([`Decoys::or`]) when there is no such user. `nonce` must be random.
    pub fn start(
        terms: Terms,
        message: &[u8],
        user: &Bare,
        credentials: &ScramCredentials,
        nonce: [u8; NONCE_BYTES],
    ) -> Option<(Scram, Vec<u8>)> {
        Scram::start_with(terms, message, user, credentials, &BASE64_STANDARD.encode(nonce))
    }

    fn start_with(
        terms: Terms,
        message: &[u8],
        user: &Bare,
        credentials: &ScramCredentials,
        nonce: &str,
    ) -> Option<(Scram, Vec<u8>)> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (flag, authzid, bare) = (parts.next()?, parts.next()?, parts.next()?);
        let channel = terms.channel_data(flag)?;
        let header = &message[..message.len() - bare.len()];
        let authzid_fits = authzid.is_empty() || unescape(authzid.strip_prefix("a=")?)? == user.as_str();
        let mut attributes = bare.split(',');
        let name = unescape(attributes.next()?.strip_prefix("n=")?)?;
        let client_nonce = attributes.next()?.strip_prefix("r=")?;
        if !authzid_fits || !names(&name, user) || client_nonce.is_empty() {
            return None;
        }
        let nonce = format!("{client_nonce}{nonce}");
        let challenge = format!("r={nonce},s={},i={}", BASE64_STANDARD.encode(&credentials.salt), credentials.iterations);
        let said = format!("{bare},{challenge},");
        let binding = BASE64_STANDARD.encode([header.as_bytes(), channel.as_slice()].concat());
        let (stored_key, server_key) = credentials.keys(terms.hash)?;
        let (stored_key, server_key) = (stored_key.to_vec(), server_key.to_vec());
        Some((Scram { hash: terms.hash, stored_key, server_key, binding, nonce, said }, challenge.into_bytes()))
    }

    /// Takes the client's proof; gives the server's own, to send with LoggedIn. `None`: the log-in has failed.
    pub fn finish(self, message: &[u8]) -> Option<Vec<u8>> {
        let (without_proof, proof) = text(message)?.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let bound = attributes.next()?.strip_prefix("c=")? == self.binding && attributes.next()?.strip_prefix("r=")? == self.nonce;
        let proof = BASE64_STANDARD.decode(proof).ok().filter(|proof| proof.len() == self.hash.bytes())?;
        let said = [self.said.as_bytes(), without_proof.as_bytes()];
        let mut client_key = self.hash.hmac(&self.stored_key, &said);
        for (key, proof) in client_key.iter_mut().zip(proof) {
            *key ^= proof;
        }
        let proven: bool = self.hash.digest(&client_key).ct_eq(&self.stored_key).into();
        let signature = self.hash.hmac(&self.server_key, &said);
        (bound && proven).then(|| format!("v={}", BASE64_STANDARD.encode(signature)).into_bytes())
    }
}

impl Terms {
    /// What the GS2 flag says the proof is bound to (RFC 5802 6). `None`: it may not say so.
    fn channel_data(&self, flag: &str) -> Option<Vec<u8>> {
        match (flag.strip_prefix("p="), self.bound) {
            (Some(kind), true) => self.channel.data(kind).map(<[u8]>::to_vec),
            (None, false) if flag == "n" => Some(Vec::new()),
            // "I could, but you can't": with the -PLUS mechanisms offered, somebody in between has hidden them.
            (None, false) if flag == "y" && self.channel.is_empty() => Some(Vec::new()),
            _ => None,
        }
    }
}

/// A password to check. It owns what it needs, so that it can go to a thread that may be slow.
pub struct PlainCheck {
    credentials: ScramCredentials,
    password: String,
}

impl PlainCheck {
    /// `credentials` as for [`Scram::start`].
    pub fn new(password: String, credentials: ScramCredentials) -> PlainCheck {
        PlainCheck { credentials, password }
    }

    /// Whether the password is right. Takes about a millisecond, for a user that doesn't exist too: never call it on a core.
    pub fn run(self) -> bool {
        self.credentials.verify_password(&self.password)
    }
}

/// The password in PLAIN's only message. `None`: it can't be read, or is another user's, and the log-in has failed.
pub fn plain_password<'a>(message: &'a [u8], user: &Bare) -> Option<&'a str> {
    let mut parts = text(message)?.split('\0');
    let (authzid, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    let authzid_fits = authzid.is_empty() || Bare::new(authzid).as_ref() == Some(user);
    let is_sound = parts.next().is_none() && authzid_fits && names(name, user) && !password.is_empty();
    is_sound.then_some(password)
}

/// What a hashed token's only message shows (draft-schmaus-kitten-sasl-ht 3.1). `None`: it can't be read, or is another user's.
pub fn hashed_proof<'a>(message: &'a [u8], user: &Bare) -> Option<&'a [u8]> {
    let at = message.iter().position(|&byte| byte == 0)?;
    let (name, proof) = (text(&message[..at])?, &message[at + 1..]);
    (names(name, user) && proof.len() == Hash::Sha256.bytes()).then_some(proof)
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
    use crate::front::binding::EndPoint;

    fn credentials() -> ScramCredentials {
        ScramCredentials::from_password("pencil", &BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    }

    const PLAINLY: Terms = Terms { hash: Hash::Sha256, bound: false, channel: Bindings { exporter: None, end_point: None } };
    const EXPORTED: [u8; 32] = [9; 32];
    /// As of a certificate signed by SHA-512.
    const CERTIFIED: [u8; 64] = [5; 64];

    /// What a connection of TLS 1.3 has, one of TLS 1.2, and one of TLS 1.3 whose certificate has no hash.
    fn channels() -> [Bindings; 3] {
        let (exporter, end_point) = (Some(EXPORTED), EndPoint::new(&CERTIFIED));
        [Bindings { exporter, end_point }, Bindings { exporter: None, end_point }, Bindings { exporter, end_point: None }]
    }
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn exchange() -> (Scram, Vec<u8>) {
        let user = Bare::new("user@localhost").unwrap();
        Scram::start_with(PLAINLY, FIRST.as_bytes(), &user, &credentials(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap()
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
    fn the_example_of_rfc_5802_holds() {
        let user = Bare::new("user@localhost").unwrap();
        let credentials = ScramCredentials::from_password("pencil", &BASE64_STANDARD.decode("QSXCR+Q6sek8bf92").unwrap(), 4096);
        let terms = Terms { hash: Hash::Sha1, ..PLAINLY };
        let first = b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL";
        let (scram, challenge) = Scram::start_with(terms, first, &user, &credentials, "3rfcNHYJY1ZVvWVs7j").unwrap();
        assert_eq!(challenge, b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096");
        let last = b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        assert_eq!(scram.finish(last).unwrap(), b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    }

    /// Proves "pencil" as a client would, with this flag and this channel's data.
    fn log_in(terms: Terms, flag: &str, data: &[u8]) -> Option<Vec<u8>> {
        let (user, header) = (Bare::new("user@localhost").unwrap(), format!("{flag},,"));
        let first = format!("{header}n=user,r=abc");
        let (scram, challenge) = Scram::start_with(terms, first.as_bytes(), &user, &credentials(), "def")?;
        let binding = BASE64_STANDARD.encode([header.as_bytes(), data].concat());
        let last = format!("c={binding},r=abcdef");
        let said = format!("n=user,r=abc,{},{last}", String::from_utf8(challenge).unwrap());
        let mut salted = [0; 32];
        let salted = match terms.hash {
            Hash::Sha1 => {
                pbkdf2::pbkdf2_hmac::<sha1::Sha1>(b"pencil", &credentials().salt, 4096, &mut salted[..20]);
                &salted[..20]
            }
            Hash::Sha256 => {
                pbkdf2::pbkdf2_hmac::<sha2::Sha256>(b"pencil", &credentials().salt, 4096, &mut salted);
                &salted
            }
        };
        let key = terms.hash.hmac(salted, &[b"Client Key"]);
        let signature = terms.hash.hmac(&terms.hash.digest(&key), &[said.as_bytes()]);
        let proof: Vec<u8> = key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        scram.finish(format!("{last},p={}", BASE64_STANDARD.encode(proof)).as_bytes())
    }

    #[test]
    fn a_bound_proof_holds_with_the_data_of_its_own_kind_only() {
        let [both, end_point, exporter] = channels();
        for hash in [Hash::Sha1, Hash::Sha256] {
            for (kind, data, other) in [("tls-exporter", &EXPORTED[..], exporter), ("tls-server-end-point", &CERTIFIED, end_point)]
            {
                let (bound, flag) = (Terms { hash, bound: true, channel: both }, format!("p={kind}"));
                assert!(log_in(bound, &flag, data).is_some(), "{kind}");
                assert!(log_in(Terms { channel: other, ..bound }, &flag, data).is_some(), "{kind} is all there is");
                assert_eq!(log_in(bound, &flag, &[8; 32]), None, "another one's");
                assert_eq!(log_in(bound, &flag, b""), None, "none");
                assert_eq!(log_in(bound, &flag, &data[..data.len() - 1]), None, "a part");
                for flag in ["p=tls-unique", "p=", "p", "n", "y"] {
                    assert_eq!(log_in(bound, flag, data), None, "{flag}");
                }
                assert_eq!(
                    log_in(Terms { channel: Bindings::default(), ..bound }, &flag, data),
                    None,
                    "there is nothing to bind to"
                );
            }
            let bound = Terms { hash, bound: true, channel: both };
            assert_eq!(log_in(bound, "p=tls-exporter", &CERTIFIED), None, "the data of the other kind");
            assert_eq!(log_in(bound, "p=tls-server-end-point", &EXPORTED), None, "the data of the other kind");
            assert_eq!(log_in(Terms { channel: end_point, ..bound }, "p=tls-exporter", &EXPORTED), None, "not of this connection");
            assert_eq!(log_in(Terms { channel: exporter, ..bound }, "p=tls-server-end-point", &CERTIFIED), None, "nor this");
        }
    }

    #[test]
    fn a_client_that_was_told_of_no_binding_although_there_is_one_is_refused() {
        for hash in [Hash::Sha1, Hash::Sha256] {
            let without = Terms { hash, ..PLAINLY };
            assert!(log_in(without, "y", b"").is_some() && log_in(without, "n", b"").is_some());
            for channel in channels() {
                let with = Terms { channel, ..without };
                assert_eq!(log_in(with, "y", b""), None, "somebody hid the -PLUS mechanisms");
                assert!(log_in(with, "n", b"").is_some());
                assert_eq!(log_in(with, "p=tls-exporter", &EXPORTED), None, "a binding without -PLUS");
                assert_eq!(log_in(with, "p=tls-server-end-point", &CERTIFIED), None, "a binding without -PLUS");
                assert_eq!(log_in(with, "n", &EXPORTED), None);
            }
        }
    }

    #[test]
    fn an_account_from_before_sha_1_is_let_in_by_sha_256_alone_and_looks_like_any_other() {
        let (decoys, user) = (Decoys::new([7; 32]), Bare::new("user@localhost").unwrap());
        let old = ScramCredentials { sha1: None, ..credentials() };
        let filled = decoys.or(Some(&old), &user);
        assert_eq!((&filled.salt, filled.stored_key), (&old.salt, old.stored_key));
        assert!(filled.sha1.is_some() && filled.sha1 != credentials().sha1);
        assert_eq!(decoys.or(Some(&credentials()), &user), credentials());
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
        let refused = ["p=tls-exporter,,n=user,r=x", "n,a=other@localhost,n=user,r=x", "n,,n=other,r=x", "n,,m=1,n=user,r=x"];
        for message in broken.into_iter().chain(refused) {
            assert!(Scram::start_with(PLAINLY, message.as_bytes(), &user, &credentials(), "n").is_none(), "{message:?}");
        }
        assert!(Scram::start_with(PLAINLY, &[b'n'; MESSAGE_BYTES + 1], &user, &credentials(), "n").is_none());
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
        let fields = |challenge: &[u8]| String::from_utf8(challenge.to_vec()).unwrap().split_once(",s=").unwrap().1.to_owned();
        for hash in [Hash::Sha1, Hash::Sha256] {
            let terms = Terms { hash, ..PLAINLY };
            let challenge = |nonce| Scram::start(terms, b"n,,n=nobody,r=x", &user, &decoys.or(None, &user), nonce).unwrap();
            let (scram, first) = challenge([1; NONCE_BYTES]);
            let (_, second) = challenge([2; NONCE_BYTES]);
            assert_eq!(fields(&first), fields(&second), "the salt stays the same");
            assert_eq!(fields(&first).len(), "W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".len());
            let final_message = format!("c=biws,r={},p={}", scram.nonce, BASE64_STANDARD.encode(vec![0; hash.bytes()]));
            assert_eq!(scram.finish(final_message.as_bytes()), None);
        }
        assert!(!PlainCheck::new("pencil".into(), decoys.or(None, &user)).run());
    }

    #[test]
    fn plain_takes_the_right_password_of_the_right_user_only() {
        let (decoys, user) = (Decoys::new([7; 32]), Bare::new("user@localhost").unwrap());
        let check = |message: &str| {
            let password = plain_password(message.as_bytes(), &user)?;
            Some(PlainCheck::new(password.to_owned(), decoys.or(Some(&credentials()), &user)).run())
        };
        assert_eq!(check("\0user\0pencil"), Some(true));
        assert_eq!(check("user@localhost\0user@localhost\0pencil"), Some(true));
        assert_eq!(check("\0user\0pencils"), Some(false));
        for broken in ["", "\0", "\0user", "\0user\0", "\0other\0pencil", "other@localhost\0user\0pencil", "\0user\0pencil\0"] {
            assert_eq!(check(broken), None, "{broken:?}");
        }
    }
}
