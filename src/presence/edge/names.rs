//! The JIDs of publishers, for doors whose events name them: native events only have the user's number.
//!
//! Lives on: an edge of a node with such doors. Serves C8. Invariants: whoever is watched here has a name; of those who were,
//! the last [`GONE`] have, since events of theirs may still wait on lines.

use super::{Edge, HashMap, RandomState, UserId};
use crate::base::jid::Bare;
use std::collections::VecDeque;

/// Publishers remembered when nobody watches them any more. At the limit: the first that went is forgotten; an event of it that
/// still waits is not told by doors that need its name.
const GONE: usize = 65_536;

pub(super) struct Names {
    by_user: HashMap<UserId, Bare, RandomState>,
    gone: VecDeque<UserId>,
}

impl Names {
    pub fn new(hasher: RandomState) -> Names {
        Names { by_user: HashMap::with_hasher(hasher), gone: VecDeque::new() }
    }

    #[inline]
    pub fn get(&self, user: UserId) -> Option<&Bare> {
        self.by_user.get(&user)
    }
}

impl Edge {
    /// The bare JID of a publisher, where names are kept.
    pub fn name(&self, user: UserId) -> Option<&Bare> {
        self.names.as_ref()?.get(user)
    }

    pub(super) fn learn_name(&mut self, user: UserId, jid: Bare) {
        if let Some(names) = &mut self.names {
            names.by_user.insert(user, jid);
        }
    }

    /// Nobody watches this publisher any more.
    pub(super) fn name_gone(&mut self, user: UserId) {
        let Some(names) = &mut self.names else { return };
        names.gone.push_back(user);
        if names.gone.len() > GONE
            && let Some(first) = names.gone.pop_front()
            && !self.by_user.contains_key(&first)
        {
            names.by_user.remove(&first);
        }
    }
}
