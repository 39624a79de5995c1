//! An update crosses to each other core, node and cluster at most once, however many subscribers it has there.

use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId, Version};
use crate::wire::event::Head;
use crate::wire::native::Show;
use std::collections::BTreeSet;

#[derive(Default)]
pub struct Crossings {
    between: BTreeSet<((usize, usize), State)>,
    seen: BTreeSet<((usize, CoreId), State)>,
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
    pub fn linked(&mut self, way: (usize, usize), head: &Head) -> Held {
        let first = is_first(&mut self.between, way, head);
        Check::OneUpdatePerBoundary.holds(first, || format!("{head:?} went from node {} to {} twice", way.0, way.1))
    }
}
