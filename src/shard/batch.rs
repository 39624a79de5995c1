//! What one core hands another in one turn: presence updates as contiguous bytes, and everything else as entries, each in order.
//!
//! The two need no order between each other: an update carries its version, and an edge takes an update only for a publisher it
//! has been granted. Serves G3.

use super::links::LaneNews;
use super::owners::Row;
use crate::base::id::{NodeId, RawSocket, Seat};
use crate::base::jid::Bare;
use crate::base::map::Slots;
use crate::base::reason::Reason;
use crate::front::native::Parting;
use crate::front::translate::Translate;
use crate::ownership::clusters::Clusters;
use crate::presence::control::Control;
use crate::presence::errand::What;
use crate::presence::frame::Events;
use crate::presence::lapsed::Lapsed;
use crate::presence::outbox::Updates;
use crate::presence::survey::Inspect;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Memory of a batch that is kept when it comes back empty.
const KEPT_ENTRIES: usize = 4096;

#[derive(Default)]
pub struct Batch {
    pub updates: Updates,
    pub entries: Vec<Entry>,
}

pub enum Entry {
    Control(Control),
    /// What a core of another node says.
    FromNode(Box<Control>),
    /// What has become of a lane of another core.
    Lane(LaneNews),
    /// The clusters that the directory has told of.
    Clusters(Arc<Clusters>),
    /// A cluster was forgotten: its number, and what told it from any other one.
    Forgotten(u16, u64),
    /// Updates from this cluster may have been lost.
    Compare(u16),
    /// Homes of another cluster.
    Lapsed(Arc<Lapsed>),
    /// Updates of publishers of other nodes.
    Updates(Events),
    Adopt(Box<Adoption>),
    Command(Box<Command>),
}

/// A connection on its way to its user's home core.
pub struct Adoption {
    pub socket: RawSocket,
    pub peer: IpAddr,
    /// When it was accepted, in seconds of the node's clock: it has no more time to log in than others.
    pub accepted: u32,
    /// Its door, with what the client sent from its log-in on.
    pub parting: Parting,
    /// It is a link, which has said its hello.
    pub is_link: bool,
    pub translator: Option<Box<dyn Translate>>,
}

/// What the operator wants of a core.
pub struct Command {
    pub ticket: u64,
    pub order: Order,
}

pub enum Order {
    /// Something of a user's home, wherever that is.
    Errand {
        jid: Bare,
        what: What,
    },
    /// The same of a core of this cluster.
    Survey {
        seat: Seat,
        inspect: Inspect,
    },
    /// Which cores and clusters there are.
    Places,
    /// A cluster is not known any more.
    ForgetCluster(u16),
    /// Who owns each slot of users from now on, and who looks after the others.
    Owners {
        owners: Arc<[NodeId]>,
        steward: NodeId,
    },
    /// Rows of users who are to live here from the next `Owners` on, under this epoch. Answered by `Word::CaughtUp`.
    Take {
        epoch: u32,
        rows: Vec<Row>,
    },
    /// Users of these slots live here no longer. Answered by `Word::CaughtUp`, once everything that will be written of them has
    /// been handed to the store.
    GiveUp {
        slots: Arc<Slots>,
        reason: Reason,
    },
    /// The owner of these slots has begun anew.
    Anew(Arc<Slots>),
    /// The nodes of this cluster from now on, this one among them, and where they are.
    Nodes(Arc<[(NodeId, SocketAddr)]>),
    /// This is for the thread that keeps another node's table of owners.
    Say {
        to: NodeId,
        bytes: Vec<u8>,
    },
    Snapshot,
    /// How the links are.
    Links,
    /// The clients with the most load, at most this many.
    Clients {
        most: usize,
    },
    Stop,
}

impl crate::ring::exchange::Batch for Batch {
    fn is_empty(&self) -> bool {
        self.updates.is_empty() && self.entries.is_empty()
    }

    fn clear(&mut self) {
        self.updates.clear();
        self.entries.clear();
        self.entries.shrink_to(KEPT_ENTRIES);
    }
}
