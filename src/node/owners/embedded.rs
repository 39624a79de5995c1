//! The embedded engine of a running node: a follower, on one node the coordinator and its store, and what both say over links.
//!
//! Lives on: the thread `fanal-owners`. Serves Z4, M1. Invariant: after each call nothing is left that follower and coordinator
//! want of each other or of the store.

use crate::base::id::NodeId;
use crate::base::time::Time;
use crate::node::cluster::TablePlace;
use crate::ownership::{Command, Coordinator, Event, Follower, Myself, Output, Stored, decode, encode};
use crate::store::thread::Port;
use crate::store::{Commit, Durability, Write};

pub(super) struct Embedded {
    node: NodeId,
    /// Who keeps the table.
    pub at: NodeId,
    pub follower: Follower,
    coordinator: Option<Coordinator>,
    port: Port,
    ticket: u64,
    /// What is to be said to the engines of other nodes, in this order.
    pub says: Vec<(NodeId, Vec<u8>)>,
}

impl Embedded {
    /// `table`: as it was stored, if this is the node that keeps it.
    pub fn new(now: Time, place: &TablePlace, at: NodeId, me: Myself, table: Stored, port: Port) -> Embedded {
        let (node, terms) = (me.node, place.terms);
        let coordinator = (at == node).then(|| Coordinator::new(now, terms, me.start, table));
        Embedded { node, at, follower: Follower::new(now, terms, me), coordinator, port, ticket: 0, says: Vec::new() }
    }

    /// When to call `go_on` at the latest.
    pub fn next(&self) -> Time {
        self.coordinator.iter().map(Coordinator::next).fold(self.follower.next(), Time::min)
    }

    pub fn command(&mut self, now: Time, command: Command) {
        self.follower.command(now, command);
        self.exchange(now);
    }

    /// Another node's engine can be spoken to.
    pub fn met(&mut self, now: Time, node: NodeId) {
        if node == self.at {
            self.follower.met(now);
        }
        self.exchange(now);
    }

    /// Another node's engine has said this.
    pub fn heard(&mut self, now: Time, from: NodeId, bytes: &[u8]) {
        match &mut self.coordinator {
            Some(coordinator) => decode(bytes).into_iter().for_each(|ask| coordinator.ask(now, from, ask)),
            None if from == self.at => decode(bytes).into_iter().for_each(|tell| self.follower.hear(now, tell)),
            // It takes another node for the one that keeps the table; their configurations differ, which their links say.
            None => {}
        }
        self.exchange(now);
    }

    /// Takes what the store has answered, and lets time pass. Gives what has happened since the last time.
    pub fn go_on(&mut self, now: Time) -> Vec<Event> {
        while let Some(completion) = self.port.take() {
            if let Some(coordinator) = &mut self.coordinator {
                coordinator.stored(now, completion.result);
            }
        }
        self.follower.tick(now);
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.tick(now);
        }
        self.exchange(now);
        self.follower.take_events()
    }

    /// Carries what follower and coordinator want said and stored, until neither wants anything.
    fn exchange(&mut self, now: Time) {
        loop {
            let asks = self.follower.take_asks();
            let outputs = self.coordinator.as_mut().map(Coordinator::take).unwrap_or_default();
            if asks.is_empty() && outputs.is_empty() {
                break;
            }
            for ask in asks {
                match &mut self.coordinator {
                    Some(coordinator) => coordinator.ask(now, self.node, ask),
                    None => self.says.push((self.at, encode(&ask, Vec::new()))),
                }
            }
            for output in outputs {
                match output {
                    Output::Tell { to, tell } if to == self.node => self.follower.hear(now, tell),
                    Output::Tell { to, tell } => self.says.push((to, encode(&tell, Vec::new()))),
                    Output::Store(writes) => self.store(now, writes),
                }
            }
        }
    }

    fn store(&mut self, now: Time, writes: Vec<Write>) {
        self.ticket += 1;
        let commit = Commit { ticket: self.ticket, writes, durability: Durability::Synced };
        if let (Err(refused), Some(coordinator)) = (self.port.hand_over(commit), &mut self.coordinator) {
            coordinator.stored(now, Err(refused.reason.text().to_owned()));
        }
    }
}
