//! The control thread's way to the cores: orders out, answers back, told apart by tickets.
//!
//! Lives on: the control thread. Invariant: an answer nobody waits for any more is dropped.

use super::Answered;
use super::certificates::Keeper;
use super::cluster::Membership;
use super::owners::Desk;
use crate::admin::{ClusterStatus, Refusal};
use crate::base::credentials::ScramCredentials;
use crate::base::id::{home_of_slot, slot_of};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::drive::Bell;
use crate::metrics::snapshot::Snapshot;
use crate::presence::errand::What;
use crate::shard::batch::{Command, Order};
use crate::shard::{Answer, ClientLine, LinkReport};
use crate::store::thread::Readings;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// How long the control thread waits for a core.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Controller {
    cores: Vec<(Sender<Command>, Bell)>,
    answers: Receiver<Answered>,
    pub(super) store: Readings,
    pub(super) keeper: Arc<Keeper>,
    pub(super) membership: Arc<Membership>,
    /// The thread that knows who owns which users, in a cluster.
    pub(super) owners: Option<Desk>,
    next_ticket: u64,
}

impl Controller {
    pub(super) fn new(
        cores: Vec<(Sender<Command>, Bell)>,
        answers: Receiver<Answered>,
        store: Readings,
        keeper: Arc<Keeper>,
        membership: Arc<Membership>,
        owners: Option<Desk>,
    ) -> Controller {
        Controller { cores, answers, store, keeper, membership, owners, next_ticket: 1 }
    }

    pub fn add_user(&mut self, jid: &Bare, credentials: Option<ScramCredentials>) -> Result<(), Refusal> {
        self.change(jid, What::Create(credentials.map(Box::new))).map_err(|refusal| match refusal {
            // Of another domain: nobody can be a user here by that name.
            Refusal::Missing(why) => Refusal::Conflict(why),
            other => other,
        })
    }

    pub fn remove_user(&mut self, jid: &Bare) -> Result<(), Refusal> {
        self.change(jid, What::Remove)
    }

    /// Tells a user's sessions to go on elsewhere; gives how many there were.
    pub fn transfer(&mut self, jid: &Bare, address: &str) -> Result<usize, Refusal> {
        match self.errand(jid, What::Transfer { address: address.to_owned() })? {
            Answer::Transferred(told) => Ok(told),
            other => Err(unlike(&other)),
        }
    }

    /// Which cluster a user is of; `None`: of none.
    pub fn locate(&mut self, jid: &Bare) -> Result<Option<u16>, Refusal> {
        match self.errand(jid, What::Locate)? {
            Answer::Located(cluster) => Ok(cluster),
            other => Err(unlike(&other)),
        }
    }

    /// What every core has measured.
    pub fn snapshots(&mut self) -> Result<Vec<Snapshot>, String> {
        (0..self.cores.len())
            .map(|core| match self.ask(core, Order::Snapshot)? {
                Answer::Snapshot(snapshot) => Ok(*snapshot),
                other => Err(format!("core {core} answered {other:?}")),
            })
            .collect()
    }

    /// The clients with the most load, the heaviest first (C1).
    pub fn clients(&mut self, most: usize) -> Result<Vec<ClientLine>, String> {
        let mut clients = Vec::new();
        for core in 0..self.cores.len() {
            match self.ask(core, Order::Clients { most })? {
                Answer::Clients(more) => clients.extend(more),
                other => return Err(format!("core {core} answered {other:?}")),
            }
        }
        clients.sort_by_key(|client| std::cmp::Reverse(client.load.weight()));
        clients.truncate(most);
        Ok(clients)
    }

    /// What the cores know of the cluster, as one.
    pub fn cluster(&mut self) -> Result<ClusterStatus, String> {
        let mut whole = LinkReport::default();
        for core in 0..self.cores.len() {
            match self.ask(core, Order::Links)? {
                Answer::Links(report) => whole.add(*report),
                other => return Err(format!("core {core} answered {other:?}")),
            }
        }
        Ok(self.membership.status(whole, self.keeper.links.is_some()))
    }

    fn change(&mut self, jid: &Bare, what: What) -> Result<(), Refusal> {
        match self.errand(jid, what)? {
            Answer::Done(Ok(())) => Ok(()),
            other => Err(unlike(&other)),
        }
    }

    /// Goes by the core whose user it would be here to the one whose it is.
    fn errand(&mut self, jid: &Bare, what: What) -> Result<Answer, Refusal> {
        let near = home_of_slot(slot_of(jid.as_str()), self.cores.len() as u16);
        let order = Order::Errand { jid: jid.clone(), what };
        match self.answer_of(usize::from(near.0), order).map_err(Refusal::Unavailable)? {
            Some(Answer::Refused(reason, why)) => Err(match reason {
                Reason::NoSuchUser => Refusal::Missing(why),
                Reason::UserExists => Refusal::Conflict(why),
                _ => Refusal::Unavailable(why),
            }),
            Some(answer) => Ok(answer),
            None => {
                let fix = match self.store.figures().health.up {
                    true => "see `fanal cluster status`",
                    false => "the database can't be reached: look after it, and try again",
                };
                let seconds = PATIENCE.as_secs();
                Err(Refusal::Unavailable(format!("{jid}: no answer in {seconds} s, and it may still be done: {fix}")))
            }
        }
    }

    pub(super) fn ask(&mut self, core: usize, order: Order) -> Result<Answer, String> {
        self.answer_of(core, order)?.ok_or_else(|| format!("core {core} did not answer in {} s", PATIENCE.as_secs()))
    }

    /// What a core answers to an order; `None`: nothing in time.
    fn answer_of(&mut self, core: usize, order: Order) -> Result<Option<Answer>, String> {
        let (ticket, until) = (self.order(core, order)?, Instant::now() + PATIENCE);
        while let Some((answered, answer)) = self.answer(until) {
            if answered == ticket {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Gives a core an order, and gives its ticket.
    pub(super) fn order(&mut self, core: usize, order: Order) -> Result<u64, String> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (orders, bell) = &self.cores[core];
        orders.send(Command { ticket, order }).map_err(|_| format!("core {core} has stopped"))?;
        bell.ring();
        Ok(ticket)
    }

    /// The next answer to anything; `None`: none has come in time.
    pub(super) fn answer(&mut self, until: Instant) -> Option<(u64, Answer)> {
        let left = until.saturating_duration_since(Instant::now());
        self.answers.recv_timeout(left).ok().map(|answered| (answered.ticket, answered.answer))
    }
}

fn unlike(answer: &Answer) -> Refusal {
    Refusal::Unavailable(format!("the core answered {answer:?}"))
}
