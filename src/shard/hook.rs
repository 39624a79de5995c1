//! Log-ins that a service outside decides (`login.http`): passwords of users who have none here, and tokens that none of the node's
//! keys has signed. A question leaves with the turn; the answer comes when it comes, and the connection waits for it.
//!
//! Invariants: a connection has one question under way at most (its door is deciding); nothing but "allowed" lets anybody in.

use super::Shard;
use super::entrant::Entrant;
use crate::base::id::ConnId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::front::token::{TOKEN_BYTES, TokenFault};
use crate::metrics::stage::Stage;
use crate::wire::encode::Tag;
use std::net::IpAddr;

/// Whether somebody may log in.
pub struct Question {
    pub conn: ConnId,
    pub jid: Bare,
    pub proof: Proof,
    /// Where the client is.
    pub address: IpAddr,
}

/// What a client showed.
pub enum Proof {
    Password(String),
    Token(String),
}

/// What the service says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Allowed,
    Denied,
    /// It gave no answer, none in time, or none that is known.
    Failed,
    /// It was not asked: too many wait.
    Refused,
}

impl Shard {
    /// A token came that is not good here: it may be one of the service's.
    pub(super) fn foreign_token(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, token: &[u8], fault: TokenFault) {
        let is_foreign = matches!(fault, TokenFault::Malformed | TokenFault::Signature) && token.len() <= TOKEN_BYTES;
        match std::str::from_utf8(token) {
            Ok(token) if self.settings.hook && is_foreign && !token.is_empty() => {
                self.ask_hook(conn, tag, entrant, Proof::Token(token.to_owned()));
            }
            _ => self.refuse_log_in(conn, tag, Reason::LogInFailed, ""),
        }
    }

    pub(super) fn ask_hook(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, proof: Proof) {
        let (jid, address) = (entrant.jid.clone(), self.peers[conn.slot as usize].to_canonical());
        self.recorder.counters.hook_asked += 1;
        self.log_ins.waits_for_check(conn, tag, entrant);
        self.questions.push(Question { conn, jid, proof, address });
    }

    /// Counts what the service has said, `nanos` after it was asked, and what comes of it.
    pub(super) fn judged(&mut self, verdict: Verdict, nanos: u64) -> Result<(), Reason> {
        let counters = &mut self.recorder.counters;
        let (counter, outcome) = match verdict {
            Verdict::Allowed => (&mut counters.hook_allowed, Ok(())),
            Verdict::Denied => (&mut counters.hook_denied, Err(Reason::LogInFailed)),
            Verdict::Failed => (&mut counters.hook_failed, Err(Reason::LogInUnavailable)),
            Verdict::Refused => (&mut counters.hook_refused, Err(Reason::Overloaded)),
        };
        *counter += 1;
        if verdict != Verdict::Refused {
            self.recorder.record(Stage::LogInHook, nanos);
        }
        outcome
    }
}
