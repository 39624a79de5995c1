//! Ways: changes of subscriptions between two users, from one home to the other.
//!
//! Lives on: every core; between cores, nodes and clusters as [`super::control::Control`]. Serves Z8. Invariant: a way is carried
//! out once, however often it comes.

use super::control::Control;
use super::subscription::Action;
use crate::base::id::UserId;
use crate::base::jid::Bare;
use serde::{Deserialize, Serialize};

/// The number of a way that nobody has sent: what a contact would have said whose cluster was forgotten. Nobody is told that it has
/// arrived.
pub const FAREWELL: u64 = 0;

/// A subscription change on its way to the other user's home (Z8). Stored with the change it follows from, marked as arrived with
/// the change it makes, deleted when its sender has heard of that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Way {
    pub from: Bare,
    pub from_user: UserId,
    pub to: Bare,
    /// `NOBODY` when the sender does not know it.
    pub to_user: UserId,
    pub kind: WayKind,
    pub note: Note,
    pub sequence: u64,
    /// The cluster that it has come from; 0: this one.
    pub cluster: u16,
    /// The number of the last of the receiver's ways that had been carried out when this one was made, unless the receiver's home
    /// knows that for certain. This way may come before the confirmation of that one, which a link has lost. By cluster, since
    /// each counts by itself, and which one the receiver is of is found out on the way: what gets there is its own, under 0.
    pub knows: Vec<(u16, u64)>,
}

/// That a way has arrived, as its sender's home is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Arrival {
    pub name: WayName,
    /// Ways back that were made before it arrived may still come, up to this number: they say nothing about it. 0: none will.
    pub before: u64,
}

impl Arrival {
    /// What tells the sender's home.
    pub fn done(self) -> Control {
        if self.name.cluster == 0 { Control::WayDone(Box::new(self)) } else { Control::WayConfirmed(Box::new(self)) }
    }
}

impl Way {
    pub fn name(&self) -> WayName {
        WayName { from: self.from.clone(), to: self.to.clone(), sequence: self.sequence, cluster: self.cluster }
    }

    /// Whether a way of the receiver's had been carried out when this one was made.
    pub fn knows_of(&self, sequence: u64) -> bool {
        self.knows.iter().any(|&(cluster, last)| cluster == 0 && sequence <= last)
    }
}

/// What tells one way from all others.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct WayName {
    pub from: Bare,
    pub to: Bare,
    pub sequence: u64,
    /// The cluster at the way's other end; 0: this one.
    pub cluster: u16,
}

/// What goes with a subscription stanza.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Note {
    pub text: String,
    /// XML elements.
    pub extensions: String,
}

impl Note {
    pub fn new(text: impl Into<String>) -> Note {
        Note { text: text.into(), extensions: String::new() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WayKind {
    Stanza(Action),
    /// The sender blocked the receiver.
    Hide,
    /// The sender unblocked the receiver.
    Show,
}

impl WayKind {
    /// Whether the receiver may see the sender no more.
    pub fn revokes(self) -> bool {
        matches!(self, WayKind::Hide | WayKind::Stanza(Action::Unsubscribed))
    }

    /// Whether it may come from somebody who is gone: nothing but that something is over.
    pub fn takes_leave(self) -> bool {
        matches!(self, WayKind::Stanza(Action::Unsubscribe | Action::Unsubscribed) | WayKind::Show)
    }

    /// The number in a stored way.
    pub fn number(self) -> u8 {
        match self {
            WayKind::Stanza(action) => action as u8,
            WayKind::Hide => 4,
            WayKind::Show => 5,
        }
    }

    pub fn from_number(number: u8) -> Option<WayKind> {
        match number {
            4 => Some(WayKind::Hide),
            5 => Some(WayKind::Show),
            _ => Action::from_number(number).map(WayKind::Stanza),
        }
    }
}
