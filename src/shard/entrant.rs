//! Who wants in: what a log-in says of the session it is to make, and of tokens.
//!
//! Lives on: the core that has the connection. Invariant: nobody in here has proved anything yet.

use crate::base::hashed::CLIENT_BYTES;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::front::Mechanism;
use crate::wire::native;

/// Who wants in, and as what.
pub(super) struct Entrant {
    pub jid: Bare,
    /// Empty: one is made up.
    pub resource: String,
    /// The first presence, for the home; empty: none yet.
    pub presence: Vec<u8>,
    /// The session is made by a Bind.
    pub bind_later: bool,
    pub tokens: Tokens,
}

/// What a log-in says of hashed tokens.
pub(super) struct Tokens {
    /// What the client calls itself; empty: it wants none of this.
    pub client: String,
    /// A new one is wanted: bound to connections, or not.
    pub wanted: Option<bool>,
    pub count: u32,
    /// No token of this client is to be good any more.
    pub invalid: bool,
}

impl Tokens {
    pub fn none() -> Tokens {
        Tokens { client: String::new(), wanted: None, count: 0, invalid: false }
    }

    pub fn read(log_in: &native::LogIn<'_>) -> Result<Tokens, (Reason, &'static str)> {
        let (client, wanted) = (log_in.client().unwrap_or_default(), log_in.token_for().unwrap_or_default());
        if client.len() > CLIENT_BYTES {
            return Err((Reason::TooLarge, "client"));
        }
        let wanted = match (wanted, Mechanism::from_name(wanted)) {
            ("", _) => None,
            (_, Some(Mechanism::Hashed { bound })) if !client.is_empty() && log_in.bind_later() => Some(bound),
            (_, Some(Mechanism::Hashed { .. })) => return Err((Reason::BadRequest, "a token needs client and bind_later")),
            _ => return Err((Reason::BadRequest, "token_for: there are no tokens for this mechanism")),
        };
        Ok(Tokens { client: client.into(), wanted, count: log_in.token_count(), invalid: log_in.token_invalid() })
    }
}
