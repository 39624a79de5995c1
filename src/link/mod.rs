//! What goes between nodes and between clusters: the state of one lane as a value.
//!
//! Lives on: every core of a node that has links. Serves G4, Z5, Z9-Z13. Pure: time, bytes and randomness are arguments. A core
//! owns one [`Machine`] for each of its lanes, and is told by the first bytes of an accepted connection which one it is for
//! (`Hello::peek`; a connection of nobody's lane is told so by [`refuse`]). How a shard drives one:
//!
//! 1. [`Notice::Dial`]: dial the peer; then `dialled` with the connection, or `dial_failed`. Accepted ones: `accepted`. What is to
//!    be sent stands on the connection's line (`wire::lines`), opened with [`Settings::marks`].
//! 2. Bytes: `next` until it gives nothing, as with a door. Entries come once and in order; updates and complex messages as they
//!    are. What is in them is the owner's to check; one that makes no sense: `accuse`.
//! 3. A connection that broke: `disconnected`. Time: `tick` at `deadline`. After each of these, `notice` until there is none.
//! 4. To send: `send` (reliable, bounded), `update` and `complex` (not): those are refused while there is no connection or its line
//!    is slow, and the owner keeps the newest of each (user, session) until [`Notice::Up`], [`Notice::Resumed`], or the line has
//!    drained (`Lines::take_drained`), as `presence::outbox` does between cores.
//!
//! To another cluster, [`classify`] says of each thing whether it may wait. What may goes to the [`gather::Gather`] of that
//! cluster; when that is due and the lane is ready, `Gather::take` makes a complex message of it, for `send_complex` if there is
//! more in it than updates, else for `complex`. What may not goes at once, as an update or entry of its own. On arrival
//! `wire::complex::Unpacker` gives the things back one by one.
//!
//! Invariants: an entry is given to the peer's owner exactly once and in order while both keep their lives; what is kept is bounded
//! by `link.entries` and `link.entry_bytes`; whatever a peer sends has no effect but on its own lane; the machine never waits.

mod backoff;
pub mod classify;
pub mod gather;
mod machine;
mod pair;
mod talk;
#[cfg(test)]
mod tests;

pub use machine::Machine;

use crate::base::config::Link;
use crate::base::id::ConnId;
use crate::base::limits::Limits;
use crate::base::reason::{LinkReason, Reason};
use crate::wire::lines::{Lines, Marks};
use crate::wire::link::{Frame, Life, Site};
use std::time::Duration;

/// What a machine is told at its start and never changes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    heartbeat: Duration,
    silent: Duration,
    backoff: Duration,
    backoff_max: Duration,
    grace: Duration,
    entries: usize,
    entry_bytes: usize,
    high_water_bytes: u32,
}

impl Settings {
    pub fn new(link: &Link, limits: &Limits) -> Settings {
        let time = |ms: u32| Duration::from_millis(u64::from(ms));
        Settings {
            heartbeat: time(link.heartbeat_ms),
            silent: time(link.silent_ms),
            backoff: time(link.backoff_ms),
            backoff_max: time(link.backoff_max_ms),
            grace: time(link.grace_ms),
            entries: link.entries as usize,
            entry_bytes: link.entry_bytes as usize,
            high_water_bytes: limits.trunk_high_water_bytes,
        }
    }

    /// What one core may have under way at once by a lane that many share, of what sets out by itself: its answers, and what
    /// follows from them, are to find room, too.
    pub fn share(&self) -> usize {
        (self.entries / 64).max(1)
    }

    /// The marks of a lane's line: updates stop at the lower one, and entries, all of which may be sent again at once, end below
    /// the upper one.
    pub fn marks(&self) -> Marks {
        let high = self.high_water_bytes;
        let sent_again = (self.entry_bytes as u32).saturating_add(self.entries as u32 * ENTRY_FRAME_BYTES);
        Marks {
            high,
            most: high.saturating_add(sent_again.saturating_mul(2)).saturating_add(crate::base::limits::LINK_FRAME_BYTES),
        }
    }
}

/// What an entry's frame needs beside its bytes, at most.
const ENTRY_FRAME_BYTES: u32 = 32;

/// Whose lane it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    pub me: Site,
    pub peer: Site,
    pub lane: u16,
    /// Of this node.
    pub cores: u16,
    /// This start of the node: from 1, and greater with each.
    pub epoch: u64,
    /// Of the configuration that both should share; to another cluster, what tells this one from any other of its number.
    pub digest: [u8; 32],
    /// Whether this end dials. The other one never does.
    pub dials: bool,
}

/// Something the owner must know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A connection is wanted.
    Dial,
    /// The peer is there, for the first time in its life or after it was lost: it knows nothing of this node. `alike`: its
    /// configuration agrees; if not, warn. `pact`: what both ends, and no other pair of their lives, have for this one.
    Up { life: Life, pact: u64, alike: bool },
    /// After a short break the same peer goes on. Entries are safe; updates may have been lost, so compare.
    Resumed,
    /// Another life of the peer took the place of the one before, which is gone: it knows nothing of this node. So many
    /// entries were never acknowledged; which of them arrived, nobody knows.
    Restarted { life: Life, pact: u64, alike: bool, unknown: usize },
    /// The peer counts as down: silent for longer than the grace, stopped, or it broke the rules. The same of its entries.
    Lost { unknown: usize },
    /// The peer, or this end, ended or refused a connection.
    Ended(LinkReason),
}

/// What came from the peer.
#[derive(PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    Entry(&'a [u8]),
    /// The tag is the one that the sender's owner gave it.
    Update {
        tag: u32,
        bytes: &'a [u8],
    },
    Complex(&'a [u8]),
    Notice(Notice),
    /// Something the machine has dealt with itself.
    Nothing,
}

/// Why something can't be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// As much waits for the peer's acknowledgement as may.
    Full,
    /// Longer than a frame may be.
    TooLong,
    /// There is no peer, or it is about to be given up.
    Down,
}

impl Refused {
    /// What whoever asked is told.
    pub fn reason(self) -> Reason {
        match self {
            Refused::Full | Refused::Down => Reason::Overloaded,
            Refused::TooLong => Reason::TooLarge,
        }
    }

    /// Why the lane ends if it is something that must not be lost. `None`: it has ended already.
    pub fn ends(self) -> Option<LinkReason> {
        match self {
            Refused::Full => Some(LinkReason::LaneFull),
            Refused::TooLong => Some(LinkReason::TooLong),
            Refused::Down => None,
        }
    }
}

/// What one lane has done. All of them only grow, but for the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    pub entries_sent: u64,
    pub entries_received: u64,
    /// Sent once more after a break.
    pub entries_repeated: u64,
    /// Received once more, and dropped.
    pub entries_dropped: u64,
    /// Never acknowledged, with the peer gone.
    pub entries_returned: u64,
    /// Refused at `link.entries` or `link.entry_bytes`.
    pub refused: u64,
    /// Times the owner gave the peer up because something that must not be lost was refused.
    pub overflows: u64,
    pub updates_sent: u64,
    pub updates_received: u64,
    /// Updates and complex messages that the owner had to keep: no connection, or a slow line.
    pub put_off: u64,
    pub complex_sent: u64,
    pub complex_received: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub dials: u64,
    pub dials_failed: u64,
    /// Connections that were agreed on; of those, the ones that went on where another had broken.
    pub connections: u64,
    pub resumed: u64,
    /// Connections ended because nothing came.
    pub silences: u64,
    /// Connections refused at either end before anything was agreed on.
    pub refusals: u64,
    /// The peer broke the rules.
    pub violations: u64,
    /// Times the peer was lost, or another life of it came.
    pub losses: u64,
    /// The last round trip in nanoseconds; 0: none was measured.
    pub rtt_ns: u64,
}

/// Turns away a connection that no machine is there for.
pub fn refuse(conn: ConnId, reason: LinkReason, lines: &mut Lines) {
    lines.append(conn.slot, &Frame::Refusal(reason).encode());
    lines.close(conn);
}
