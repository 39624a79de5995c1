//! The client's half of SCRAM-SHA-256, bound to its connection or not, and of PLAIN, by rsasl; and of hashed tokens.
//!
//! Lives on: any thread of a client. Invariant: rsasl sees only messages whose shape was checked, because it indexes into them.

use super::values::HashedToken;
use crate::base::credentials::{Hash, prepare};
use crate::base::jid::Bare;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::plain::PLAIN;
use rsasl::mechanisms::scram::{SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::prelude::{Mechanism, Mechname, Registry, SASLClient, SASLConfig, Session, SessionError};
use rsasl::property::{AuthId, ChannelBindings, Password};
use thiserror::Error;

/// Most PBKDF2 rounds done for a server: above it, it may want to keep us busy.
const MOST_ITERATIONS: u32 = 1_000_000;

const BOUND: &str = "SCRAM-SHA-256-PLUS";
const UNBOUND: &str = "SCRAM-SHA-256";
const IN_THE_CLEAR: &str = "PLAIN";
/// Of hashed tokens, those that are bound to connections and the others.
pub const HASHED_BOUND: &str = "HT-SHA-256-EXPR";
const HASHED: &str = "HT-SHA-256-NONE";

#[derive(Debug, Error)]
pub enum SaslError {
    #[error("the SASL library refuses the user name or password: {0}")]
    Library(String),
    #[error("the server's SCRAM message is malformed, or asks for more than {MOST_ITERATIONS} iterations")]
    Malformed,
    #[error("the server could not prove that it knows this account: this may not be the right server")]
    ServerUnproven,
    #[error("the token is bound to TLS 1.3 connections and this is none: connect with Client::connect_tls")]
    Unbound,
}

/// The one message of PLAIN.
///
/// Errors: an empty password, or a NUL in it.
pub fn plain(user: &Bare, password: &str) -> Result<Vec<u8>, SaslError> {
    let mut message = Vec::new();
    session(IN_THE_CLEAR, user, password, None)?.step(None, &mut message).map_err(library)?;
    Ok(message)
}

/// The mechanism that a hashed token is wanted for: the best that the server offers. `binding` as in `Scram::start`.
pub fn token_mechanism(binding: Option<[u8; 32]>, offered: &[impl AsRef<str>]) -> Option<&'static str> {
    let best = [true, false].into_iter().filter(|&bound| !bound || binding.is_some()).map(hashed_mechanism);
    best.into_iter().find(|name| offered.iter().any(|offered| offered.as_ref() == *name))
}

fn hashed_mechanism(bound: bool) -> &'static str {
    if bound { HASHED_BOUND } else { HASHED }
}

/// A hashed token that is shown (draft-schmaus-kitten-sasl-ht).
pub struct Showing {
    pub mechanism: &'static str,
    /// For LogIn.
    pub message: Vec<u8>,
    /// What only a server can answer that has the token too.
    answer: Vec<u8>,
}

impl Showing {
    /// `binding` as in `Scram::start`.
    ///
    /// Errors: a token that is bound, and nothing to bind to.
    pub fn of(token: &HashedToken, user: &Bare, binding: Option<[u8; 32]>) -> Result<Showing, SaslError> {
        let channel = if token.bound { binding.ok_or(SaslError::Unbound)?.to_vec() } else { Vec::new() };
        let hash = |who: &[u8]| Hash::Sha256.hmac(token.text.as_bytes(), &[who, &channel]);
        let message = [user.local().as_bytes(), b"\0", &hash(b"Initiator")].concat();
        Ok(Showing { mechanism: hashed_mechanism(token.bound), message, answer: hash(b"Responder") })
    }

    /// Checks the data that came with success.
    pub fn check(&self, data: &[u8]) -> Result<(), SaslError> {
        if data == self.answer { Ok(()) } else { Err(SaslError::ServerUnproven) }
    }
}

/// A SCRAM-SHA-256 exchange.
pub struct Scram {
    session: Session,
    mechanism: &'static str,
}

impl Scram {
    /// Gives the exchange and the first message, for LogIn. `binding`: what both ends of the connection know and nobody else
    /// (tls-exporter); the proof then holds there only, if the server offers that among its mechanisms. If not, it's told that
    /// we would have: so it notices when somebody on the way has taken the offer out.
    pub fn start(
        user: &Bare,
        password: &str,
        binding: Option<[u8; 32]>,
        offered: &[impl AsRef<str>],
    ) -> Result<(Scram, Vec<u8>), SaslError> {
        let bound = binding.is_some() && offered.iter().any(|name| name.as_ref() == BOUND);
        let mechanism = if bound { BOUND } else { UNBOUND };
        let mut scram = Scram { session: session(mechanism, user, password, binding)?, mechanism };
        let mut message = Vec::new();
        scram.session.step(None, &mut message).map_err(library)?;
        Ok((scram, message))
    }

    /// Its name, for LogIn.
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// Takes the server's challenge, gives the response.
    pub fn respond(mut self, challenge: &[u8]) -> Result<(ServerProof, Vec<u8>), SaslError> {
        if !is_challenge(challenge) {
            return Err(SaslError::Malformed);
        }
        let mut message = Vec::new();
        self.session.step(Some(challenge), &mut message).map_err(library)?;
        Ok((ServerProof { session: self.session }, message))
    }
}

/// What is left of an exchange: the server is to prove that it knows the account too.
pub struct ServerProof {
    session: Session,
}

impl ServerProof {
    /// Checks the data that came with LoggedIn.
    pub fn check(mut self, data: &[u8]) -> Result<(), SaslError> {
        let shaped = data.len() > 2;
        let proven = shaped && self.session.step(Some(data), &mut Vec::new()).is_ok_and(|state| state.is_finished());
        if proven { Ok(()) } else { Err(SaslError::ServerUnproven) }
    }
}

/// What rsasl asks for. (Its own credentials leave no room for channel bindings, and its list of mechanisms has none that are
/// bound.)
struct Secrets {
    user: String,
    password: String,
    binding: Option<[u8; 32]>,
}

static MECHANISMS: &[Mechanism] = &[SCRAM_SHA256, SCRAM_SHA256_PLUS, PLAIN];

impl SessionCallback for Secrets {
    fn callback(&self, _: &SessionData, _: &Context<'_>, request: &mut Request<'_>) -> Result<(), SessionError> {
        request.satisfy::<AuthId>(&self.user)?.satisfy::<Password>(self.password.as_bytes())?;
        if let Some(binding) = &self.binding {
            request.satisfy::<ChannelBindings>(binding)?;
        }
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        self.binding.is_some()
    }
}

fn session(mechanism: &str, user: &Bare, password: &str, binding: Option<[u8; 32]>) -> Result<Session, SaslError> {
    let name = Mechname::parse(mechanism.as_bytes()).expect("a mechanism's name is well-formed");
    let secrets = Secrets { user: user.local().to_owned(), password: prepare(password).into_owned(), binding };
    let config = SASLConfig::builder().with_registry(Registry::with_mechanisms(MECHANISMS)).with_callback(secrets);
    let session = config.and_then(|config| SASLClient::new(config).start_suggested(&[name]));
    session.map_err(|error| SaslError::Library(error.to_string()))
}

fn library(error: rsasl::prelude::SessionError) -> SaslError {
    SaslError::Library(error.to_string())
}

/// Whether this is `r=...,s=...,i=...` with a reasonable number of iterations.
fn is_challenge(challenge: &[u8]) -> bool {
    let mut attributes = challenge.split(|&byte| byte == b',');
    let mut has = |name: &[u8]| attributes.next().and_then(|attribute| attribute.strip_prefix(name));
    let (nonce, salt, iterations) = (has(b"r="), has(b"s="), has(b"i="));
    let iterations = iterations.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    nonce.is_some() && salt.is_some() && iterations.is_some_and(|rounds: u32| (1..=MOST_ITERATIONS).contains(&rounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_broken_challenges_are_refused() {
        let user = Bare::new("user@localhost").unwrap();
        for challenge in
            ["", "r", "r=", "r=x,s", "r=x,s=,i", "r=x,s=,i=", "r=x,s=,i=0", "r=x,s=,i=9999999", "r=x,s=YQ==,i=4096", "m=x"]
        {
            let (scram, _) = Scram::start(&user, "pencil", None, &[""; 0]).unwrap();
            assert!(scram.respond(challenge.as_bytes()).is_err(), "{challenge:?}");
        }
    }

    #[test]
    fn xep_0484_a_token_is_shown_where_it_holds_and_the_server_must_have_it_too() {
        let user = Bare::new("user@localhost").unwrap();
        let token = |bound| HashedToken { client: "c".into(), bound, text: "secret".into(), until: 0, count: 0 };
        assert!(matches!(Showing::of(&token(true), &user, None), Err(SaslError::Unbound)));
        for (bound, channel) in [(true, &[9; 32][..]), (false, b"")] {
            let showing = Showing::of(&token(bound), &user, Some([9; 32])).unwrap();
            let hash = |who: &[u8]| Hash::Sha256.hmac(b"secret", &[who, channel]);
            assert_eq!(showing.message, [b"user\0", &hash(b"Initiator")[..]].concat());
            assert!(showing.check(&hash(b"Responder")).is_ok());
            assert!(showing.check(&hash(b"Initiator")).is_err() && showing.check(b"").is_err());
        }
    }

    #[test]
    fn xep_0484_a_token_is_wanted_for_the_best_mechanism_that_both_have() {
        let (bound, loose) = ("HT-SHA-256-EXPR", "HT-SHA-256-NONE");
        assert_eq!(token_mechanism(Some([0; 32]), &["TOKEN", loose, bound]), Some(bound));
        assert_eq!(token_mechanism(None, &[bound, loose]), Some(loose));
        assert_eq!(token_mechanism(None, &[bound]), None);
        assert_eq!(token_mechanism(Some([0; 32]), &[""; 0]), None);
    }

    #[test]
    fn a_password_that_plain_cannot_carry_is_refused() {
        let user = Bare::new("user@localhost").unwrap();
        assert!(plain(&user, "").is_err());
        assert!(plain(&user, "a\0b").is_err());
        assert_eq!(plain(&user, "pencil").unwrap(), b"\0user\0pencil");
    }
}
