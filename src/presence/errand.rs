//! What is wanted of a user's home for somebody who has no session there: the proof of a log-in, an account, the operator's wishes.
//!
//! Lives on: every core. Serves M1, M2. An errand goes to the home, wherever that is, and one answer comes back to whoever sent it.
//! Invariants: an answer finds its caller only while that still waits for it (the nonce); who has no account can't be told, at
//! the other end, from who has one: such a user's keys are made up.

use super::control::Control;
use super::outbox::Outbox;
use super::survey::Found;
use crate::base::credentials::ScramCredentials;
use crate::base::hashed::{Outcome, Token};
use crate::base::id::Seat;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use serde::{Deserialize, Serialize};

/// Something wanted of a user's home.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Errand {
    pub jid: Bare,
    pub caller: Caller,
    pub what: What,
}

/// Who waits for the answer, and at which core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Caller {
    pub seat: Seat,
    pub who: Who,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Who {
    /// A connection that logs in or registers. The nonce tells this attempt from its others.
    Client { slot: u32, generation: u32, nonce: u32 },
    /// The operator, at the node with this core.
    Operator { ticket: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// What is kept in place of the password.
    Keys,
    /// Whether a hashed token is good.
    Check(Box<ShownToken>),
    /// A new hashed token for a client, bound to connections or not.
    Issue { client: String, bound: bool },
    /// An account comes into being, with a password or without.
    Create(Option<Box<ScramCredentials>>),
    /// The account goes.
    Remove,
    /// The user's sessions are to go on at this address.
    Transfer { address: String },
    /// Which cluster the user is of.
    Locate,
}

/// A hashed token as a client shows it ([`crate::base::hashed::Shown`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownToken {
    pub client: String,
    pub channel: Option<[u8; 32]>,
    pub count: u32,
    pub proof: Vec<u8>,
    /// No token of this client is to be good any more, if this one is.
    pub invalid: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// `known`: they are an account's own, and not made up.
    Keys {
        credentials: Box<ScramCredentials>,
        known: bool,
    },
    Checked(Outcome),
    /// `None`: the user can have none now.
    Issued(Option<Token>),
    Done,
    /// So many sessions were told.
    Transferred(u64),
    /// The user is of this cluster; `None`: of none.
    Located(Option<u16>),
    /// What a core has found ([`super::survey`]).
    Found(Box<Found>),
    /// `detail` is for the operator.
    Refused {
        reason: Reason,
        detail: String,
    },
}

impl Caller {
    pub fn answer(self, answer: Answer, out: &mut Outbox) {
        out.send(self.seat, Control::Answered { who: self.who, answer });
    }

    pub fn refuse(self, reason: Reason, detail: String, out: &mut Outbox) {
        self.answer(Answer::Refused { reason, detail }, out);
    }
}
