//! What followers and their coordinator say to each other, as values and bytes.
//!
//! Serves Z4, M1. Pure. Invariants: what was encoded decodes to the same; other bytes give an error, never a panic; no message is
//! longer than `MESSAGE_BYTES`, so one fits into an entry of a link.

use super::members::{Life, Member, Refusal};
use super::slots::Delta;
use super::{Command, Terms};
use crate::base::id::NodeId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest message in bytes. At the limit: a longer one is not read.
pub const MESSAGE_BYTES: usize = 128 << 10;

/// From a follower to its coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// May I be this member? `sent`: when, by the follower's own clock.
    Join {
        member: Member,
        terms: Terms,
        revision: u32,
        sent: u64,
    },
    /// I am there. What I know is the table up to `revision`, and the members as of `members`.
    Beat {
        life: Life,
        sent: u64,
        revision: u32,
        members: (u64, u64),
        users: u32,
        free: u32,
        draining: bool,
    },
    /// These slots have no owner, as far as I know.
    Assign {
        life: Life,
        slots: Vec<u16>,
    },
    /// The rows of these slots' users are on my disk: where they have no owner, they are mine.
    Claim {
        life: Life,
        slots: Vec<u16>,
    },
    Leave {
        life: Life,
    },
    Rebalance {
        life: Life,
    },
    Forget {
        life: Life,
        node: NodeId,
    },
}

/// From the coordinator to a follower. What is about a lease names the life that holds it; others are void.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Tell {
    /// You are a member from this epoch on; your lease runs from `sent`.
    Welcome {
        life: Life,
        sent: u64,
        epoch: u32,
    },
    /// Your lease runs from `sent`.
    Held {
        life: Life,
        sent: u64,
    },
    /// Your lease is lost: join again.
    Rejoin {
        life: Life,
    },
    NotJoined {
        life: Life,
        why: Refusal,
    },
    Delta(Delta),
    /// A part of the members, as of (life of the coordinator, count).
    Members {
        stamp: (u64, u64),
        part: u16,
        parts: u16,
        members: Vec<Member>,
    },
    NotAssigned {
        slots: Vec<u16>,
        why: Refusal,
    },
    Refused {
        command: Wish,
        why: Refusal,
    },
}

/// The commands that are answered by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Wish {
    Rebalance,
    Forget(NodeId),
}

impl From<Wish> for Command {
    fn from(wish: Wish) -> Command {
        match wish {
            Wish::Rebalance => Command::Rebalance,
            Wish::Forget(node) => Command::Forget(node),
        }
    }
}

/// Appends the bytes of an `Ask` or a `Tell`.
pub fn encode(message: &impl Serialize, bytes: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(message, bytes).expect("messages are plain values, and memory takes them all")
}

/// Reads an `Ask` or a `Tell`. `None`: the bytes are none, or there are too many.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) if bytes.len() <= MESSAGE_BYTES => Some(message),
        _ => None,
    }
}
