//! Which door each of a node's listeners has.
//!
//! Lives on: every core. Serves G6, C8.

use super::translate::Translate;
use super::xmpp::{self, Xmpp};
use std::sync::Arc;

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// Native frames: the connection needs no translator.
    Native,
    /// XMPP over TCP.
    Xmpp,
}

/// What the node's listeners speak, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    pub listeners: Vec<Speaks>,
    /// What XMPP clients are held to; `None` where no door speaks it.
    pub xmpp: Option<Arc<xmpp::Rules>>,
}

impl Doors {
    /// The translator of a new connection; `None`: it speaks native frames.
    pub fn open(&self, listener: usize) -> Option<Box<dyn Translate>> {
        match self.listeners.get(listener)? {
            Speaks::Native => None,
            Speaks::Xmpp => Some(Box::new(Xmpp::new(self.xmpp.clone()?))),
        }
    }

    /// Whether a door tells its peers the JIDs of publishers.
    pub fn name_publishers(&self) -> bool {
        self.listeners.iter().any(|speaks| *speaks != Speaks::Native)
    }
}
