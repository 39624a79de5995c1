//! Hashed tokens at the client (XEP-0484): what a log-in says of them, and the one for the next.
//!
//! Lives on: the thread of its owner. Sans-IO. Invariant: a showing counts whether an answer comes or not.

use super::sasl::HASHED_BOUND;
use super::values::HashedToken;
use crate::wire::encode::LogInFields;

#[derive(Default)]
pub(super) struct Tokens {
    wish: Wish,
    /// For the next log-in.
    pub kept: Option<HashedToken>,
}

/// What log-ins are to do about the tokens of the client of this name.
#[derive(Default)]
pub(super) enum Wish {
    #[default]
    Nothing,
    Bring(String),
    Void(String),
}

/// What one log-in says.
pub(super) struct Said {
    client: String,
    wanted: &'static str,
    /// Whether the token that is shown or wanted is bound to connections.
    bound: bool,
    count: u32,
    invalid: bool,
}

impl Said {
    pub fn fields(&self) -> LogInFields<'_> {
        let Said { client, wanted: token_for, count: token_count, invalid: token_invalid, .. } = self;
        let (token_count, token_invalid) = (*token_count, *token_invalid);
        LogInFields { bind_later: true, client, token_for, token_count, token_invalid, ..LogInFields::default() }
    }
}

impl Tokens {
    pub fn wish(&mut self, wish: Wish) {
        self.wish = wish;
    }

    /// Whether log-ins say anything of tokens.
    pub fn has_wish(&self) -> bool {
        !matches!(self.wish, Wish::Nothing)
    }

    /// A log-in begins, by a token that is `shown` or otherwise; `best` is the mechanism that a token can be had for.
    pub fn begin(&mut self, shown: Option<&HashedToken>, best: Option<&'static str>) -> Said {
        let invalid = matches!(self.wish, Wish::Void(_));
        if let Some(shown) = shown {
            let HashedToken { client, bound, count, .. } = shown.clone();
            let count = count.saturating_add(1);
            self.kept = Some(HashedToken { count, ..shown.clone() });
            // It's renewed when its time has come, without being asked for.
            return Said { client, wanted: "", bound, count, invalid };
        }
        let (client, wanted) = match &self.wish {
            Wish::Nothing => (String::new(), ""),
            Wish::Bring(client) => (client.clone(), best.unwrap_or_default()),
            Wish::Void(client) => (client.clone(), ""),
        };
        Said { client, wanted, bound: wanted == HASHED_BOUND, count: 0, invalid }
    }

    /// The log-in has succeeded, and brought a token with its end, or none.
    pub fn end(&mut self, said: Said, given: Option<(String, u64)>) {
        if said.invalid {
            *self = Tokens::default();
        }
        if let Some((text, until)) = given {
            self.kept = Some(HashedToken { client: said.client, bound: said.bound, text, until, count: 0 });
        }
    }
}
