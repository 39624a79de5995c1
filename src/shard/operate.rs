//! What the operator wants of a core, and what it answers.

use super::batch::{Command, Order};
use super::{ClientLine, LinkReport, Shard};
use crate::base::id::{ConnId, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::metrics::snapshot::Snapshot;
use crate::presence::errand::Who;

/// One user, for lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserLine {
    pub jid: Bare,
    pub user: UserId,
    pub sessions: usize,
    pub contacts: usize,
}

/// What a core answers.
#[derive(Debug)]
pub enum Answer {
    Done(Result<(), String>),
    Users(Vec<UserLine>),
    Snapshot(Box<Snapshot>),
    Links(Box<LinkReport>),
    /// The heaviest first.
    Clients(Vec<ClientLine>),
    /// How many sessions were told to go elsewhere.
    Transferred(usize),
    /// The cluster that a user is of; `None`: of none.
    Located(Option<u16>),
}

impl Shard {
    /// Carries out an order. Some are answered later, when the store has them.
    pub fn command(&mut self, now: Time, Command { ticket, order }: Command) {
        match order {
            Order::Errand { jid, what } => self.send_errand(jid, Who::Operator { ticket }, what),
            Order::ListUsers => {
                let users = self.homes.names().into_iter().filter_map(|jid| {
                    let user = self.homes.get(self.homes.by_name(&jid)?)?;
                    Some(UserLine { user: user.id, sessions: user.sessions.len(), contacts: user.roster.contacts() as usize, jid })
                });
                let users = users.collect();
                self.answers.push((ticket, Answer::Users(users)));
            }
            Order::Snapshot => {
                let snapshot = self.snapshot(now);
                self.answers.push((ticket, Answer::Snapshot(snapshot)));
            }
            Order::Links => {
                let report = Box::new(self.link_report());
                self.answers.push((ticket, Answer::Links(report)));
            }
            Order::Clients { most } => {
                let clients = self.heaviest(now, most);
                self.answers.push((ticket, Answer::Clients(clients)));
            }
            Order::Owners { owners, steward } => self.set_owners(now, owners, steward),
            Order::Take { epoch, rows } => self.take_users(now, epoch, rows),
            Order::GiveUp { slots, reason } => self.give_up_slots(now, &slots, reason),
            Order::Anew(slots) => self.began_anew(now, &slots),
            Order::Say { to, bytes } => self.say_of_owners(to, &bytes),
            Order::Stop => self.stop(),
        }
        self.work_off(now);
    }

    /// Ends every connection with a reason; new ones are refused.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.leave_lanes();
        for slot in 0..self.connections.len() {
            if let Some(connection) = &self.connections[slot] {
                let conn = ConnId { slot: slot as u32, generation: connection.generation };
                self.end_connection(conn, Reason::ShuttingDown, "");
            }
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping
    }
}
