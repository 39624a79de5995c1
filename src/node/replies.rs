//! The way back from the threads that work for the cores: passwords, and the service outside.
//!
//! Lives on: those threads; each core has the other end. Invariant: a core that sleeps is woken for each reply.

use crate::base::id::CoreId;
use crate::drive::Bell;
use crate::shard::{Whose, Worked};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What came of a task.
pub struct Reply {
    pub whose: Whose,
    pub worked: Worked,
}

/// The ways to all cores.
#[derive(Clone)]
pub struct Replies(Vec<(Sender<Reply>, Bell)>);

impl Replies {
    /// The ways, and where they lead, core by core.
    pub fn new(bells: &[Bell]) -> (Replies, Vec<Receiver<Reply>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = bells.iter().map(|_| channel()).unzip();
        (Replies(senders.into_iter().zip(bells.iter().cloned()).collect()), receivers)
    }

    pub fn put(&self, core: CoreId, whose: Whose, worked: Worked) {
        let (sender, bell) = &self.0[usize::from(core.0)];
        // A core that has stopped wants no reply.
        if sender.send(Reply { whose, worked }).is_ok() {
            bell.ring();
        }
    }
}
