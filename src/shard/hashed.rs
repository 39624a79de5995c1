//! Log-ins by hashed token (XEP-0484), and the tokens that come with others.
//!
//! Invariant: a token is given only to who has just proved who they are.

use super::Shard;
use super::entrant::Entrant;
use crate::base::hashed::{Outcome, Shown, Token};
use crate::base::id::ConnId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::front::sasl;
use crate::wire::encode::Tag;

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
