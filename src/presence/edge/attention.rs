//! Which publishers of other clusters nobody here looks at, because the clients of all who watch them are inactive (XEP-0352): what
//! is news of those may wait on its way here.
//!
//! Lives on: every core, if the operator lets such news wait. Serves Z5, Z12. Only inactive sessions are looked at, now and then,
//! so that no update costs anything. Invariants: that somebody looks at a publisher again is said at once; that nobody does, when
//! it has been so for `link.inactive_ms`.

use super::Edge;
use crate::base::time::Time;
use crate::presence::control::Control;
use crate::presence::outbox::Outbox;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// In how many steps all inactive sessions are looked at once.
const STEPS: u32 = 16;

#[derive(Default)]
pub(super) struct Attention {
    /// Sessions of inactive clients, by their slots.
    inactive: BTreeSet<u32>,
    /// The one to go on with.
    next: u32,
    looked: Time,
    /// Publishers at which nobody looks, by their slots: since when, or `None` once that was told.
    unheeded: BTreeMap<u32, Option<Time>>,
}

impl Edge {
    /// The client of a connection's own session becomes active or inactive.
    pub fn set_active(&mut self, conn_slot: u32, active: bool, out: &mut Outbox) {
        let Some(slot) = self.session_of_conn(conn_slot) else { return };
        if !active {
            self.attention.inactive.insert(slot);
        } else if self.attention.inactive.remove(&slot) && !self.attention.unheeded.is_empty() {
            let watching = self.at_slot(slot).map(|session| session.watching.clone()).unwrap_or_default();
            watching.into_iter().for_each(|publisher| self.heed(publisher, out));
        }
    }

    /// Publishers of which it was told that nobody looks at them here.
    pub fn unheeded_count(&self) -> usize {
        self.attention.unheeded.values().filter(|since| since.is_none()).count()
    }

    /// Looks at some of the inactive sessions. Gives when it wants to again. `after`: how long nobody must have looked at somebody.
    pub fn look_after_attention(&mut self, now: Time, after: Duration, out: &mut Outbox) -> Option<Time> {
        let (sessions, step) = (self.attention.inactive.len(), after / STEPS);
        if sessions == 0 {
            return None;
        }
        let due = self.attention.looked + step;
        if due > now {
            return Some(due);
        }
        self.attention.looked = now;
        for _ in 0..sessions.div_ceil(STEPS as usize) {
            let inactive = &self.attention.inactive;
            let next = inactive.range(self.attention.next..).next().or(inactive.first()).copied();
            let Some(slot) = next else { break };
            self.attention.next = slot + 1;
            let watching = self.at_slot(slot).map(|session| session.watching.clone()).unwrap_or_default();
            watching.into_iter().for_each(|publisher| self.look_at(publisher, now, after, out));
        }
        Some(now + step)
    }

    fn look_at(&mut self, slot: u32, now: Time, after: Duration, out: &mut Outbox) {
        let Some(publisher) = self.publishers[slot as usize].as_ref() else { return };
        let user = publisher.user;
        if out.map.abroad(user).is_none() {
            return;
        }
        let is_unheeded = publisher.trunks.is_empty() && publisher.direct.iter().all(|&conn| out.lines.is_held(conn));
        if !is_unheeded || publisher.direct.is_empty() {
            return self.heed(slot, out);
        }
        let since = self.attention.unheeded.entry(slot).or_insert(Some(now));
        if since.is_some_and(|since| since + after <= now) {
            *since = None;
            let seat = out.map.here;
            out.send(out.map.near(user), Control::Attention { publisher: user, seat, slot, active: false });
        }
    }

    /// Somebody looks at a publisher.
    pub(super) fn heed(&mut self, slot: u32, out: &mut Outbox) {
        if self.attention.unheeded.remove(&slot) == Some(None)
            && let Some(publisher) = self.publishers[slot as usize].as_ref()
        {
            let (publisher, seat) = (publisher.user, out.map.here);
            out.send(out.map.near(publisher), Control::Attention { publisher, seat, slot, active: true });
        }
    }

    /// Nobody watches a publisher any more.
    pub(super) fn unheed(&mut self, slot: u32) {
        self.attention.unheeded.remove(&slot);
    }

    /// A session is over.
    pub(super) fn forget_attention(&mut self, session_slot: u32) {
        self.attention.inactive.remove(&session_slot);
    }
}
