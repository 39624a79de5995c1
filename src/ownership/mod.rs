//! Who owns which users in a cluster: one table (slot -> node and epoch), the nodes that are there, and the machines that keep
//! both.
//!
//! Lives on: the coordination thread of each node; cores have a copy of the table. Serves Z1 (numbers of nodes and clusters), Z4,
//! M1, R7's watching. Pure: time, messages and what the store says are arguments.
//!
//! # How it is used
//! A node speaks to its coordination engine in `Command`s and hears `Event`s, whichever engine it is:
//! - embedded: each node has a `Follower`, the node with the lowest configured number a `Coordinator` too. A follower's `Ask`s go
//!   to the coordinator and its `Tell`s come back over whatever carries messages (`link`; loss, repetition and disorder are
//!   harmless). The coordinator's writes go to the store and `Coordinator::stored` says what became of them. Each says by `next`
//!   when it wants `tick`.
//! - etcd: `node::etcd` does both on a thread of its own.
//!
//! A core applies `Event::Changed` to its copy (`Slots::merge`), and acts for a slot only while its node owns it there. A word
//! between nodes about a user carries the epoch of the user's slot; whoever knows a higher one refuses it and answers with that
//! (Z3). `Event::Joined` says from which epoch on this node's assignments count; all its slots follow with new epochs, so
//! versions of presence (epoch, sequence) are newer than those of its former life. `Event::Fenced` means: own nothing from now
//! on. End sessions of own users with a reason, write nothing, send no presence of theirs, until `Joined` comes again.
//!
//! # What holds
//! - A change is stored before anybody is told.
//! - At no time do two nodes count themselves the owner of a slot; the epochs of a slot only grow.
//! - With `take_over`, a node stops by its own clock before the coordinator may give its slots away. Without it, its slots stay
//!   its own while it's away (its users' data are on its own disk), so it is not fenced and goes on.
//! - A node whose coordinator is away goes on, too, as long as the database says that nobody has taken its place
//!   (`Follower::confirm`): without its coordinator nobody is given anything.
//! - A number belongs to one node at a time: another one is refused while the lease holds, and as long as the first one's disk
//!   has users.

pub mod choose;
pub mod clusters;
mod coordinator;
mod follower;
mod members;
mod message;
mod plan;
mod slots;

pub use coordinator::{Coordinator, Output, RETRY};
pub use follower::{Follower, Myself};
pub use members::{Life, MEMBERS, Member, Members, Refusal, State};
pub use message::{Ask, MESSAGE_BYTES, Tell, Wish, decode, encode};
pub use plan::Stored;
pub use slots::{Applied, Assignment, BLOCK, Block, DELTA_ASSIGNMENTS, Delta, NOBODY, SLOTS, Slots, block_of};

use crate::base::id::NodeId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What all nodes of a cluster must agree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terms {
    /// How long a node is believed to be there after it was last heard, in milliseconds.
    pub lease_ms: u32,
    /// Whether other nodes take over the slots of one that is gone: its users' data must be where they can read them.
    pub take_over: bool,
}

impl Terms {
    /// How long a lease lasts for the coordinator.
    pub fn lease(self) -> Duration {
        Duration::from_millis(self.lease_ms.into())
    }

    /// How long it lasts for the node that holds it, from when it asked: a tenth less, which is how far clocks may drift apart.
    pub fn own_lease(self) -> Duration {
        self.lease() * 9 / 10
    }

    /// How long a node that has replaced another one waits before it acts in its place.
    pub fn before_acting(self) -> Duration {
        self.lease() / 2
    }

    /// How long a node that has not been replaced may act from then on: a tenth less.
    pub fn confirmed_lease(self) -> Duration {
        self.before_acting() * 9 / 10
    }

    /// How often a node is heard: four times in a lease.
    pub fn beat(self) -> Duration {
        self.lease() / 4
    }

    /// How often a node that does not hear of its lease asks the database: what is left of that for an answer is short anyway.
    pub fn confirm_every(self) -> Duration {
        self.lease() / 16
    }
}

/// What a node wants of its coordination engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// A user of this slot is here and it has no owner: the node with the fewest users is to have it.
    Assign(u16),
    /// How many users this node owns, and its free capacity (C2).
    Report { users: u32, free: u32 },
    /// Give this node no more slots.
    Drain,
    /// This node has stopped owning and ends: don't wait for its lease.
    Leave,
    /// Move slots from the fullest nodes to the emptiest. Only where nodes take over.
    Rebalance,
    /// This node owns nothing any more, whatever its lease says, and wants to begin anew. Only where nodes take over.
    Rejoin,
    /// An operator says that this node will never return: its slots and its number are free.
    Forget(NodeId),
}

/// What a node hears from its coordination engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// This node is a member. It owns what is assigned to it by this epoch or a later one.
    Joined { epoch: u32 },
    /// Its lease is lost: it owns nothing until it has joined again.
    Fenced,
    /// It can't join: say so to the operator. It is tried again.
    NotJoined(Refusal),
    /// These lines of the table are new.
    Changed(Vec<Assignment>),
    /// This member is new, or something about it but its load is.
    Member(Member),
    /// This number belongs to no member any more.
    Forgotten(NodeId),
    /// What was asked for will not be done.
    Refused(Command, Refusal),
    /// The engine does not answer, and why; the table that is known goes on to be used.
    Away(String),
    /// It answers again.
    Back,
}
