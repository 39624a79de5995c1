//! What the operator wants of a core, and what it answers.

use super::batch::{Command, Order};
use super::{ClientLine, LinkReport, Shard};
use crate::base::id::{ConnId, NodeId, Seat};
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::metrics::snapshot::Snapshot;
use crate::ownership::clusters::Clusters;
use crate::presence::errand::Who;
use crate::presence::survey::Found;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a core answers.
#[derive(Debug)]
pub enum Answer {
    Done(Result<(), String>),
    /// The user's home, or what stands for it, won't, and says why to people.
    Refused(Reason, String),
    Snapshot(Box<Snapshot>),
    Links(Box<LinkReport>),
    /// The heaviest first.
    Clients(Vec<ClientLine>),
    /// How many sessions were told to go elsewhere.
    Transferred(usize),
    /// The cluster that a user is of; `None`: of none.
    Located(Option<u16>),
    Found(Box<Found>),
    Places(Box<Places>),
}

/// Where users of this cluster may be, and which other clusters there are.
#[derive(Debug)]
pub struct Places {
    /// The cores of this cluster, as far as this node has heard of them.
    pub seats: Vec<Seat>,
    /// The nodes that own slots.
    pub inhabited: BTreeSet<NodeId>,
    /// As the directory has told of them.
    pub clusters: Arc<Clusters>,
}

impl Shard {
    /// Carries out an order. Some are answered later, when the store has them.
    pub fn command(&mut self, now: Time, Command { ticket, order }: Command) {
        match order {
            Order::Errand { jid, what } => self.send_errand(jid, Who::Operator { ticket }, what),
            Order::Survey { seat, inspect } => self.send_survey(seat, Who::Operator { ticket }, inspect),
            Order::Places => {
                let (map, clusters) = (&self.out.map, self.links.clusters());
                let places = Places { seats: map.seats(), inhabited: map.inhabited(), clusters };
                self.answers.push((ticket, Answer::Places(Box::new(places))));
            }
            Order::ForgetCluster(number) => {
                let done = Answer::Done(self.forget_cluster(now, number));
                self.answers.push((ticket, done));
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
            Order::Nodes(nodes) => self.set_nodes(now, nodes),
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
