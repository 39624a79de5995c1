//! Log-ins by hashed token (XEP-0484), and the tokens that come with others.
//!
//! Invariant: a token is given only to who has just proved who they are.

use super::Shard;
use super::log_in::Entrant;
use crate::base::hashed::{CLIENT_BYTES, Outcome, Shown, Token};
use crate::base::id::ConnId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::front::Mechanism;
use crate::front::sasl;
use crate::wire::encode::Tag;
use crate::wire::native;

/// What a log-in says of hashed tokens.
pub(super) struct Tokens {
    /// What the client calls itself; empty: it wants none of this.
    client: String,
    /// A new one is wanted: bound to connections, or not.
    wanted: Option<bool>,
    count: u32,
    /// No token of this client is to be good any more.
    invalid: bool,
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

impl Shard {
    /// How long a token is good, in milliseconds; 0: there are none.
    fn token_life(&self) -> u64 {
        u64::from(self.settings.limits.hashed_token_hours) * 3_600_000
    }

    /// A client shows its token.
    pub(super) fn hashed(
        &mut self,
        now: Time,
        conn: ConnId,
        tag: Tag,
        mut entrant: Entrant,
        channel: Option<[u8; 32]>,
        data: &[u8],
    ) {
        let proof = sasl::hashed_proof(data, &entrant.jid).filter(|_| !entrant.tokens.client.is_empty());
        let (Some(proof), Some(at)) = (proof, self.homes.by_name(&entrant.jid)) else {
            return self.refuse_log_in(conn, tag, Reason::LogInFailed, "");
        };
        let (secret, life_ms) = (&self.token_secret, self.token_life());
        let (tokens, now_ms) = (&entrant.tokens, self.homes.place.wall(now));
        let shown = Shown { client: &tokens.client, channel, count: tokens.count, proof, now: now_ms, life_ms };
        let outcome = self.homes.with_tokens(at, &mut self.out, |clients, owner| {
            let outcome = clients.check(secret, owner, &shown);
            if tokens.invalid && matches!(outcome, Outcome::Good { .. }) {
                clients.forget(&tokens.client);
            }
            outcome
        });
        match outcome {
            None => self.refuse_log_in(conn, tag, Reason::Overloaded, ""),
            Some(Outcome::Wrong) => self.refuse_log_in(conn, tag, Reason::LogInFailed, ""),
            Some(Outcome::Expired) => self.refuse_log_in(conn, tag, Reason::TokenExpired, ""),
            Some(Outcome::Good { answer, due }) => {
                if due && !entrant.tokens.invalid {
                    entrant.tokens.wanted.get_or_insert(channel.is_some());
                }
                self.admit(now, conn, tag, entrant, false, answer);
            }
        }
    }

    /// The token that comes with a log-in, if one is wanted and can be had now: who has no account yet gets one next time.
    pub(super) fn token_for(&mut self, now: Time, entrant: &Entrant) -> Option<Token> {
        let (life_ms, secret) = (self.token_life(), &self.token_secret);
        let bound = entrant.tokens.wanted.filter(|_| life_ms > 0)?;
        let (at, now) = (self.homes.by_name(&entrant.jid)?, self.homes.place.wall(now));
        self.homes.with_tokens(at, &mut self.out, |clients, owner| {
            clients.issue(secret, owner, &entrant.tokens.client, bound, now, life_ms)
        })
    }
}
