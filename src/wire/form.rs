//! The forms in which connections take presence events: a native frame, or what another door's peers read.
//!
//! Lives on: every core. Serves G2, C8: an update is written once in each form that a core needs, and only copied from then on.
//! Invariant: what stands on a line are whole frames in every form, those of other doors as `RAW` ones.

use super::event::Event;
use crate::base::jid::Bare;

/// How a connection's events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Form {
    /// Event frames.
    #[default]
    Native,
    /// Stanzas without their addressee.
    Xmpp,
    /// Text messages of a WebSocket.
    Json,
}

impl Form {
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// Appends an event of the publisher with this JID, in one form.
pub type Writer = fn(&mut Vec<u8>, &Bare, &Event<'_>);
