//! An update crosses to each other core, node and cluster at most once, however many subscribers it has there.

use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId, Version};
use crate::wire::event::Head;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Crossings {
    between: BTreeSet<((usize, usize), UserId, SessionId, Version)>,
    seen: BTreeSet<((usize, CoreId), UserId, SessionId, Version)>,
    /// How often a session's presence was asked for, by who did: once more each time that it may be lost.
    asked: BTreeMap<(Asker, UserId, SessionId), usize>,
}

/// A node, or a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asker {
    Node(usize),
    Cluster(usize),
}

impl Crossings {
    /// A core reads an update of another core's user.
    pub fn crossed(&mut self, to: (usize, CoreId), publisher: UserId, session: SessionId, version: Version) -> Held {
        let first = self.seen.insert((to, publisher, session, version));
        Check::OneUpdatePerBoundary
            .holds(first, || format!("{version:?} of {session:?} of {publisher:?} came to core {to:?} twice"))
    }

    /// A node hears an update from another one.
    pub fn linked(&mut self, way: (usize, usize), to: Asker, head: &Head) -> Held {
        let first = self.between.insert((way, head.user, head.session, head.version)) || self.is_asked_for(to, head);
        Check::OneUpdatePerBoundary.holds(first, || format!("{head:?} went from node {} to {} twice", way.0, way.1))
    }

    /// Somebody asks for a presence.
    pub fn asked(&mut self, asker: Asker, publisher: UserId, session: SessionId) {
        *self.asked.entry((asker, publisher, session)).or_default() += 1;
    }

    fn is_asked_for(&mut self, to: Asker, head: &Head) -> bool {
        let asked = self.asked.get_mut(&(to, head.user, head.session)).filter(|asked| **asked > 0);
        asked.map(|asked| *asked -= 1).is_some()
    }

    /// How many updates have crossed.
    pub fn count(&self) -> usize {
        self.seen.len()
    }
}
