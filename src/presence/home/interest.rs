//! Edges ask to watch a publisher, and are granted it only for a subscriber the publisher approved (Z6, Z8).

use super::Homes;
use crate::base::id::{Seat, UserId};
use crate::presence::control::{Control, Snapshot};
use crate::presence::frame::Events;
use crate::presence::outbox::Outbox;
use crate::presence::user::{Destination, User};

impl Homes {
    pub fn watch(&mut self, publisher: UserId, subscriber: UserId, (seat, slot, nonce): (Seat, u32, u32), out: &mut Outbox) {
        let epoch = self.place.epoch;
        let user = self.by_user(publisher).and_then(|at| self.user(at)).filter(|user| user.approves(subscriber));
        let Some(user) = user else {
            self.counters.refused_watches += 1;
            return out.send(seat, Control::Refused { publisher, subscriber, slot, nonce });
        };
        let destination = Destination { seat, slot };
        if !user.outbound.contains(&destination) {
            user.outbound.push(destination);
        }
        let mut events = Events::default();
        user.events(epoch, &mut events);
        let revoked = user.unconfirmed();
        let behind = out.bound[usize::from(seat.core.0)].updates.len();
        let jid = user.jid.clone();
        let snapshot = Snapshot { publisher, jid, subscriber, slot, nonce, events, behind, revoked };
        out.send(seat, Control::Snapshot(Box::new(snapshot)));
        self.counters.watches += 1;
    }

    pub fn unwatch(&mut self, publisher: UserId, seat: Seat, slot: u32) {
        if let Some(user) = self.by_user(publisher).and_then(|at| self.user(at)) {
            user.outbound.retain(|destination| *destination != Destination { seat, slot });
        }
    }
}

/// A subscriber may see the user no more: every edge that has the user in its table must know before the next update.
pub(super) fn revoke(user: &User, subscriber: UserId, out: &mut Outbox) {
    if subscriber == UserId::NOBODY {
        return;
    }
    for &Destination { seat, slot } in &user.outbound {
        out.send(seat, Control::Revoke { publisher: user.id, subscriber, slot });
    }
}
