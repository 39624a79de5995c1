//! An update crosses to each other core, node and cluster at most once, however many subscribers it has there.

use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId, Version};
use crate::wire::event::Head;
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Crossings {
    between: BTreeSet<((usize, usize), UserId, SessionId, Version)>,
    seen: BTreeSet<((usize, CoreId), UserId, SessionId, Version)>,
}

impl Crossings {
    /// A core reads an update of another core's user.
    pub fn crossed(&mut self, to: (usize, CoreId), publisher: UserId, session: SessionId, version: Version) -> Held {
        let first = self.seen.insert((to, publisher, session, version));
        Check::OneUpdatePerBoundary
            .holds(first, || format!("{version:?} of {session:?} of {publisher:?} came to core {to:?} twice"))
    }

    /// A node hears an update from another one.
    pub fn linked(&mut self, way: (usize, usize), head: &Head) -> Held {
        let first = self.between.insert((way, head.user, head.session, head.version));
        Check::OneUpdatePerBoundary.holds(first, || format!("{head:?} went from node {} to {} twice", way.0, way.1))
    }

    /// How many updates have crossed.
    pub fn count(&self) -> usize {
        self.seen.len()
    }
}
