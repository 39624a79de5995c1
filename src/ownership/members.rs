//! The nodes of a cluster and whose number is whose.
//!
//! Lives on: the coordination thread. Serves Z1. Pure. Invariants: a number has one holder; a holder is replaced only by a later
//! life of itself, or when nothing is lost by it.

use super::slots::{NOBODY, Slots};
use crate::base::id::NodeId;
use crate::store::rows::Row;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Members of one cluster. At the limit: the next one is refused, `Refusal::Full`.
pub const MEMBERS: usize = 1_024;
/// Doors that one member has. At the limit: the join is refused, `Refusal::Malformed`.
pub const MEMBER_DOORS: usize = 16;
/// Bytes of the name of a door.
const DOOR_BYTES: usize = 32;

/// Which process it is. Of the same identity, the later one is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Life {
    /// A random number that stays with the data directory; where nothing is kept, with the process.
    pub identity: u64,
    /// Grows with each start of the process: the epoch of its store.
    pub start: u64,
    /// Grows with each time that it joins: a lease that was lost is never held again.
    pub join: u32,
}

impl Life {
    /// Whether this is the same process or data directory, and not an earlier life.
    pub fn follows(self, other: Life) -> bool {
        self.identity == other.identity && self >= other
    }
}

/// Whether a member is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum State {
    /// It is given slots.
    Serving,
    /// It keeps what it has until it leaves.
    Draining,
    /// It has left or was not heard for the time of its lease.
    Gone,
}

/// One node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    pub node: NodeId,
    pub life: Life,
    pub state: State,
    /// Its data directory outlives the process.
    pub keeps: bool,
    /// Cores: a user of a slot lives on core `slot % cores` there.
    pub cores: u16,
    /// Where nodes connect to it.
    pub link: SocketAddr,
    /// Where clients connect to it, by the name of the door.
    pub doors: Vec<(String, SocketAddr)>,
    /// Users it owns, as it told last.
    pub users: u32,
    /// Its free capacity (C2), as it told last.
    pub free: u32,
}

impl Row for Member {}

impl Member {
    /// Whether another one of this number may come.
    pub fn is_there(&self) -> bool {
        self.state != State::Gone
    }

    /// The same but for what changes all the time.
    pub fn same(&self, other: &Member) -> bool {
        let key = |member: &Member| (member.node, member.life, member.state, member.cores, member.link);
        key(self) == key(other) && self.doors == other.doors
    }
}

/// Why something can't be had. Each names the thing, the reason and the fix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    #[error("cluster.node = {}: the node at {by} has this number: give each node its own", .node.0)]
    NumberInUse { node: NodeId, by: SocketAddr },
    #[error(
        "cluster.node = {}: the users of this number are in the data directory of another node, last at {by}: start that one, \
        or restore its data directory here, or have the number forgotten", .node.0
    )]
    NumberHeld { node: NodeId, by: SocketAddr },
    #[error("cluster.node: 0 is nobody's number: give each node its own, from 1")]
    NoNumber,
    #[error("a later life of this node has joined: this process must end")]
    Outlived,
    #[error(
        "cluster.lease_ms is {} at the others, and it is {} that they share a database (store.kind): write the same here",
        .0.lease_ms, .0.take_over
    )]
    Terms(super::Terms),
    #[error("the cluster has {MEMBERS} nodes already: have one forgotten that will never return")]
    Full,
    #[error("what the node says of itself is too long or not whole: it must be another version of fanal, run the same on all")]
    Malformed,
    #[error("the coordinator's table is older than this node's: its data directory was lost or replaced, restore it")]
    TableLost,
    #[error("no node takes users now: start one, or wait until one has joined")]
    NobodyServes,
    #[error("its owner is away, and the users' data with it: start that node again")]
    OwnerAway,
    #[error("users stay with the node whose disk they are on: nodes take users over where they share a database (store.kind)")]
    Stays,
    #[error("node {} is there: stop it first", .0.0)]
    StillThere(NodeId),
    #[error("there is no node {}: look at the numbers of this cluster", .0.0)]
    Unknown(NodeId),
    #[error("the table can't be stored: {0}")]
    Storage(String),
    #[error("the coordination engine can't be reached: {0}")]
    Away(String),
    #[error("the table has used up its epochs: start with a new one, all nodes stopped")]
    Exhausted,
}

/// The members of a cluster by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members(BTreeMap<NodeId, Member>);

impl Members {
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.0.get(&node)
    }

    pub fn get_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.0.get_mut(&node)
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }

    /// Puts a member in, or replaces the one of its number.
    pub fn put(&mut self, member: Member) {
        self.0.insert(member.node, member);
    }

    pub fn remove(&mut self, node: NodeId) -> Option<Member> {
        self.0.remove(&node)
    }

    /// Whether this one may have its number.
    ///
    /// # Errors
    /// The number is another's, or what it says of itself can't be.
    pub fn admit(&self, new: &Member, slots: &Slots, take_over: bool) -> Result<(), Refusal> {
        let (node, is_short) = (new.node, |name: &str| name.len() <= DOOR_BYTES);
        if node == NOBODY {
            return Err(Refusal::NoNumber);
        }
        if new.cores == 0 || new.doors.len() > MEMBER_DOORS || !new.doors.iter().all(|(name, _)| is_short(name)) {
            return Err(Refusal::Malformed);
        }
        match self.get(node) {
            None if self.0.len() >= MEMBERS => Err(Refusal::Full),
            None => Ok(()),
            Some(old) if old.life.identity == new.life.identity => match new.life.follows(old.life) {
                true => Ok(()),
                false => Err(Refusal::Outlived),
            },
            Some(old) if old.is_there() => Err(Refusal::NumberInUse { node, by: old.link }),
            Some(old) if old.keeps && !take_over && slots.count(node) > 0 => Err(Refusal::NumberHeld { node, by: old.link }),
            Some(_) => Ok(()),
        }
    }
}
