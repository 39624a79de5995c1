//! Ways to users whose slots have no owner: there are no such users, and that is said by whoever looks after the slot.
//!
//! Lives on: every core. Serves Z4, Z8. The slot may have an owner any moment, who knows nothing of what was said before. So
//! nothing is kept of such a way where it has come to; that it was in vain goes back to its sender's home, which stores what
//! follows from it together with its end. Invariant: a way is in vain once, and only while it's under way.

use super::change::{Change, Waits, way_row};
use super::plan::{Plan, stanza_arrived};
use super::{Homes, Place};
use crate::base::id::UserId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Note, Way, WayKind, WayName};
use crate::presence::edge::Edge;
use crate::presence::outbox::Outbox;
use crate::presence::subscription::Action;
use crate::presence::user::User;
use crate::store::Durability;

impl Homes {
    /// A way has found nobody.
    pub fn way_in_vain(&mut self, now: Time, name: Box<WayName>, edge: &mut Edge, out: &mut Outbox) {
        // Whoever has the sender's name now may be somebody else.
        let is_adrift = self.adrift.contains_key(&(name.from.clone(), name.to.clone(), name.sequence));
        match self.by_name(&name.from).filter(|_| !is_adrift) {
            Some(at) => {
                self.user(at).expect("found by name").rare().waiting.push_back(Change::WayInVain(name));
                self.run_changes(now, at, edge, out);
            }
            None => {
                let ticket = out.commit(vec![way_row(&name)], Durability::Synced);
                self.storing.insert(ticket, Waits::InVain(name));
            }
        }
    }
}

/// What follows for the sender: a request is denied (RFC 6121 3.1.3). `None`: it's not under way any more.
pub(super) fn plan(user: &User, place: &Place, name: &WayName, next_way: &mut u64) -> Option<Plan> {
    let mut under_way = user.rare.iter().flat_map(|rare| &rare.under_way).filter(|way| way.arrived.is_none());
    let found = under_way.find(|way| (way.sequence, &way.to) == (name.sequence, &name.to))?;
    let mut plan = Plan::default();
    plan.writes.push(way_row(name));
    if found.kind == WayKind::Stanza(Action::Subscribe) {
        let denial = Way {
            from: name.to.clone(),
            from_user: UserId::NOBODY,
            to: user.jid.clone(),
            to_user: user.id,
            kind: WayKind::Stanza(Action::Unsubscribed),
            note: Note::new(Reason::NoSuchUser.text()),
            sequence: 0,
            cluster: 0,
            knows: vec![(0, name.sequence)],
        };
        stanza_arrived(user, place, &denial, Action::Unsubscribed, &mut plan, next_way);
    }
    Some(plan)
}
