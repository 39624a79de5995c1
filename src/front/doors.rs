//! Which door each of a node's listeners has.
//!
//! Lives on: every core. Serves G6, C8.

use super::translate::Translate;

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// Native frames: the connection needs no translator.
    Native,
}

/// What the node's listeners speak, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    pub listeners: Vec<Speaks>,
}

impl Doors {
    /// The translator of a new connection; `None`: it speaks native frames.
    pub fn open(&self, listener: usize) -> Option<Box<dyn Translate>> {
        match self.listeners.get(listener)? {
            Speaks::Native => None,
        }
    }

    /// Whether a door tells its peers the JIDs of publishers.
    pub fn name_publishers(&self) -> bool {
        self.listeners.iter().any(|speaks| *speaks != Speaks::Native)
    }
}
