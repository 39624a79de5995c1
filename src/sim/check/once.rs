//! An update crosses to each other core at most once, however many subscribers it has there.

use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId, Version};
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Crossings {
    seen: BTreeSet<((usize, CoreId), UserId, SessionId, Version)>,
}

impl Crossings {
    /// A core reads an update of another core's user.
    pub fn crossed(&mut self, to: (usize, CoreId), publisher: UserId, session: SessionId, version: Version) -> Held {
        let first = self.seen.insert((to, publisher, session, version));
        Check::OneUpdatePerBoundary
            .holds(first, || format!("{version:?} of {session:?} of {publisher:?} came to core {to:?} twice"))
    }

    /// How many updates have crossed.
    pub fn count(&self) -> usize {
        self.seen.len()
    }
}
