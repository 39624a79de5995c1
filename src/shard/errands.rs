//! Errands to users' homes ([`crate::presence::errand`]): what log-ins, registrations and the operator want, and what homes answer.
//!
//! Lives on: every core. Serves M1, M2. Invariants: a connection waits for one answer at most, and no longer than it may take to
//! log in; a home that can't be reached is said to be so, whether it has such a user or not.

use super::entrant::Entrant;
use super::log_in::{Outcome, Then};
use super::{Answer as ToOperator, Shard};
use crate::base::id::{ConnId, NodeId, Seat};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::Control;
use crate::presence::errand::{Answer, Caller, Errand, What, Who};
use crate::presence::survey::{Inspect, Survey};
use crate::wire::encode::Tag;

impl Shard {
    /// Sends a connection's errand; it goes on with `then` when the answer is here.
    pub(super) fn ask_home(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, what: What, then: Then) {
        let (jid, ConnId { slot, generation }) = (entrant.jid.clone(), conn);
        let nonce = self.log_ins.waits_for_home(conn, tag, entrant, then);
        self.send_errand(jid, Who::Client { slot, generation, nonce }, what);
    }

    pub(super) fn send_errand(&mut self, jid: Bare, who: Who, what: What) {
        let (home, caller) = (self.out.map.home_of(&jid), Caller { seat: self.out.map.here, who });
        match self.out.refusal(home) {
            Some(reason) => caller.refuse(reason, format!("{jid}: {}", reason.text()), &mut self.out),
            None => {
                self.note_order(who, home);
                self.out.send(home, Control::Errand(Box::new(Errand { jid, caller, what })));
            }
        }
    }

    /// The operator waits for the answer of another node, if that's who asks.
    fn note_order(&mut self, who: Who, home: Seat) {
        if let Who::Operator { ticket } = who
            && home.node != self.out.map.here.node
        {
            self.orders.insert(ticket, home.node);
        }
    }

    /// Asks a core of this cluster what it has.
    pub(super) fn send_survey(&mut self, seat: Seat, who: Who, inspect: Inspect) {
        let caller = Caller { seat: self.out.map.here, who };
        match self.out.refusal(seat) {
            Some(reason) => caller.refuse(reason, reason.text().to_owned(), &mut self.out),
            None => {
                self.note_order(who, seat);
                self.out.send(seat, Control::Survey(Box::new(Survey { caller, inspect })));
            }
        }
    }

    /// Somebody wants something of a user whose home is here.
    pub(super) fn errand(&mut self, now: Time, Errand { jid, caller, what }: Errand) {
        if self.out.map.home_of(&jid) != self.out.map.here {
            // The user has moved while this was on its way.
            let reason = Reason::HomeOutOfReach;
            return caller.refuse(reason, format!("{jid}: {}", reason.text()), &mut self.out);
        }
        let answer = match what {
            What::Keys => {
                let own = self.homes.by_name(&jid).and_then(|at| self.homes.get(at)?.credentials.as_deref());
                let credentials = Box::new(self.settings.decoys.or(own, &jid));
                Answer::Keys { credentials, known: own.is_some() }
            }
            What::Check(shown) => self.check_token(now, &jid, &shown),
            What::Issue { client, bound } => Answer::Issued(self.issue_token(now, &jid, &client, bound)),
            What::Create(credentials) => return self.homes.add_user(caller, &jid, credentials, &mut self.out),
            What::Remove => return self.homes.delete_user(now, caller, &jid, &mut self.edge, &mut self.out),
            What::Transfer { address } => {
                let told = self.homes.by_name(&jid).map_or(0, |at| self.homes.transfer(at, &address, &mut self.out));
                Answer::Transferred(told as u64)
            }
            What::Locate => return self.look_up(now, jid, caller),
        };
        caller.answer(answer, &mut self.out);
    }

    /// The home has answered.
    pub(super) fn answered(&mut self, who: Who, answer: Answer) {
        match who {
            Who::Operator { ticket } => {
                self.orders.remove(&ticket);
                self.answers.extend(to_operator(answer).map(|answer| (ticket, answer)));
            }
            Who::Client { slot, generation, nonce } => {
                let conn = ConnId { slot, generation };
                // It may have gone meanwhile, or have begun anew.
                let Some((entrant, request, then)) = self.log_ins.go_on(conn, nonce) else { return };
                let tag = Tag::request(request);
                match (then, answer) {
                    (_, Answer::Refused { reason, .. }) => self.refuse_log_in(conn, tag, reason, ""),
                    (Then::Scram(terms, data), Answer::Keys { credentials, .. }) => {
                        self.scram_first(conn, tag, entrant, terms, &data, &credentials);
                    }
                    (Then::Plain(password), Answer::Keys { credentials, known }) => {
                        self.check_plain(conn, tag, entrant, password, *credentials, known);
                    }
                    (Then::Hashed { bound }, Answer::Checked(outcome)) => self.token_checked(conn, tag, entrant, bound, outcome),
                    (Then::Token { create, data }, Answer::Issued(token)) => {
                        self.authenticated(conn, tag, entrant, create, &data, token.as_ref());
                    }
                    (Then::Registered, Answer::Done) => self.account_made(conn, tag),
                    // No home answers anything else than it was asked.
                    _ => self.refuse_log_in(conn, tag, Reason::HomeOutOfReach, ""),
                }
            }
        }
    }

    /// A node is gone: whoever waits for its answer has it.
    pub(super) fn give_up_errands(&mut self, node: NodeId) {
        let map = &self.out.map;
        for (conn, nonce) in self.log_ins.waiting(|jid| map.home_of(jid).node == node) {
            let who = Who::Client { slot: conn.slot, generation: conn.generation, nonce };
            self.answered(who, Answer::Refused { reason: Reason::HomeOutOfReach, detail: String::new() });
        }
        let lost: Vec<u64> = self.orders.iter().filter(|(_, of)| **of == node).map(|(ticket, _)| *ticket).collect();
        for ticket in lost {
            let (reason, detail) = (Reason::HomeOutOfReach, Reason::HomeOutOfReach.text().to_owned());
            self.answered(Who::Operator { ticket }, Answer::Refused { reason, detail });
        }
    }

    /// An account was made: the connection that asked for it may log in.
    fn account_made(&mut self, conn: ConnId, tag: Tag) {
        self.outcomes.push((conn, Outcome::Registered));
        if tag.request != 0 {
            self.frames.clear();
            self.encoder.done(&mut self.frames, tag);
            self.out.lines.append(conn.slot, &self.frames);
        }
    }
}

/// `None`: it's no answer to anything that the operator wants.
fn to_operator(answer: Answer) -> Option<ToOperator> {
    match answer {
        Answer::Done => Some(ToOperator::Done(Ok(()))),
        Answer::Refused { reason, detail } => Some(ToOperator::Refused(reason, detail)),
        Answer::Transferred(told) => Some(ToOperator::Transferred(told as usize)),
        Answer::Located(cluster) => Some(ToOperator::Located(cluster)),
        Answer::Found(found) => Some(ToOperator::Found(found)),
        Answer::Keys { .. } | Answer::Checked(_) | Answer::Issued(_) => None,
    }
}
