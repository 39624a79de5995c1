//! An update crosses to each other core, node and cluster at most once, however many subscribers it has there.

use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId, Version};
use crate::wire::event::Head;
use crate::wire::native::Show;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Crossings {
    between: BTreeSet<((usize, usize), State)>,
    seen: BTreeSet<((usize, CoreId), State)>,
    /// How often a session's presence was asked for, by who did: once more each time that it may be lost.
    asked: BTreeMap<(Asker, UserId, SessionId), usize>,
}

/// A node, or a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asker {
    Node(usize),
    Cluster(usize),
}

/// A state of a session, and whether it's that the session is gone. What has lost a publisher's home shows the sessions there as
/// gone under the last versions that it knows, and as back under the same ones: so one may follow the other, again and again.
type State = (UserId, SessionId, Version, bool);

fn state(head: &Head) -> State {
    (head.user, head.session, head.version, head.show == Show::Unavailable)
}

fn is_first<To: Ord + Copy>(seen: &mut BTreeSet<(To, State)>, to: To, head: &Head) -> bool {
    let (user, session, version, gone) = state(head);
    seen.remove(&(to, (user, session, version, !gone)));
    seen.insert((to, (user, session, version, gone)))
}

impl Crossings {
    /// A core reads an update of another core's user.
    pub fn crossed(&mut self, to: (usize, CoreId), head: &Head) -> Held {
        let first = is_first(&mut self.seen, to, head);
        Check::OneUpdatePerBoundary.holds(first, || format!("{head:?} came to core {to:?} twice"))
    }

    /// A node hears an update from another one.
    pub fn linked(&mut self, way: (usize, usize), to: Asker, head: &Head) -> Held {
        let first = is_first(&mut self.between, way, head) || self.is_asked_for(to, head);
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
}
