//! Log-ins by hashed token (XEP-0484), and the tokens that come with others: made and checked at the user's home.
//!
//! Invariant: a token is given only to who has just proved who they are.

use super::Shard;
use super::entrant::{Entrant, Tokens};
use super::log_in::Then;
use crate::base::hashed::{Outcome, Shown, Token};
use crate::base::id::ConnId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::front::sasl;
use crate::presence::errand::{Answer, ShownToken, What};
use crate::wire::encode::Tag;

impl Shard {
    /// How long a token is good, in milliseconds; 0: there are none.
    pub(super) fn token_life(&self) -> u64 {
        u64::from(self.settings.limits.hashed_token_hours) * 3_600_000
    }

    /// A client shows its token.
    pub(super) fn hashed(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, channel: Option<[u8; 32]>, data: &[u8]) {
        let proof = sasl::hashed_proof(data, &entrant.jid).filter(|_| !entrant.tokens.client.is_empty());
        let Some(proof) = proof else { return self.refuse_log_in(conn, tag, Reason::LogInFailed, "") };
        let Tokens { client, count, invalid, .. } = &entrant.tokens;
        let shown = ShownToken { client: client.clone(), channel, count: *count, proof: proof.to_vec(), invalid: *invalid };
        self.ask_home(conn, tag, entrant, What::Check(Box::new(shown)), Then::Hashed { bound: channel.is_some() });
    }

    /// The user's home looks at a token.
    pub(super) fn check_token(&mut self, now: Time, jid: &Bare, shown: &ShownToken) -> Answer {
        let ShownToken { client, channel, count, proof, invalid } = shown;
        let Some(at) = self.homes.by_name(jid) else { return Answer::Checked(Outcome::Wrong) };
        let (secret, life_ms, now) = (&self.token_secret, self.token_life(), self.homes.place.wall(now));
        let shown = Shown { client, channel: *channel, count: *count, proof, now, life_ms };
        let outcome = self.homes.with_tokens(at, &mut self.out, |clients, owner| {
            let outcome = clients.check(secret, owner, &shown);
            if *invalid && matches!(outcome, Outcome::Good { .. }) {
                clients.forget(client);
            }
            outcome
        });
        let not_now = Answer::Refused { reason: Reason::Overloaded, detail: String::new() };
        outcome.map_or(not_now, Answer::Checked)
    }

    /// The home has said what a token is worth.
    pub(super) fn token_checked(&mut self, conn: ConnId, tag: Tag, mut entrant: Entrant, bound: bool, outcome: Outcome) {
        match outcome {
            Outcome::Wrong => self.refuse_log_in(conn, tag, Reason::LogInFailed, ""),
            Outcome::Expired => self.refuse_log_in(conn, tag, Reason::TokenExpired, ""),
            Outcome::Good { answer, due } => {
                if due && !entrant.tokens.invalid {
                    entrant.tokens.wanted.get_or_insert(bound);
                }
                self.admit(conn, tag, entrant, false, answer);
            }
        }
    }

    /// The token that comes with a log-in, if it can be had now: who has no account yet gets one next time.
    pub(super) fn issue_token(&mut self, now: Time, jid: &Bare, client: &str, bound: bool) -> Option<Token> {
        let (life_ms, secret) = (self.token_life(), &self.token_secret);
        let (at, now) = (self.homes.by_name(jid)?, self.homes.place.wall(now));
        self.homes.with_tokens(at, &mut self.out, |clients, owner| clients.issue(secret, owner, client, bound, now, life_ms))
    }
}
