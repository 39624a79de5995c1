//! Users who come to this node from another one that had them before, and who go: their slots have another owner now.
//!
//! Lives on: every core of a node that shares its database. Serves M1, R7, Z13. Who watches a user here goes on doing so: the home
//! becomes a relay when the user goes, and a relay becomes the home when the user comes. Invariants: nothing is written for a user
//! who has gone; of whoever waits for an answer about one, each gets one; what a user's presence is told by here is newer than
//! whatever was told before.

use super::change::{Change, Origin, Waits};
use super::interest::revoke;
use super::receipts::Given;
use super::reply::refuse;
use super::{Homes, first_way};
use crate::base::id::slot_of;
use crate::base::jid::Bare;
use crate::base::map::Slots;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{SessionEvent, UserRef};
use crate::presence::edge::Edge;
use crate::presence::frame::Events;
use crate::presence::outbox::Outbox;
use crate::presence::user::User;

impl Homes {
    /// Users are taken over under this epoch: their ways, messages and presences count on from here.
    pub fn begin_epoch(&mut self, epoch: u32) {
        self.place.epoch = self.place.epoch.max(epoch);
        let first = u64::from(epoch) << 40;
        self.next_way = self.next_way.max(first | first_way(self.place.cluster));
        self.next_message = self.next_message.max(first);
    }

    /// The users whose rows were loaded are at home here from now on: what stood for them tells how they are, and goes.
    pub fn arrive(&mut self, now: Time, edge: &mut Edge, out: &mut Outbox) {
        let map = out.map.clone();
        for mut relay in self.relays.take(|user| map.is_here(user)) {
            let mut events = Events::default();
            let at = self.by_user(relay.user());
            at.into_iter().for_each(|at| self.events_at(at.slot, &mut events));
            relay.tell(now, &events, &mut self.relays.counters, edge, out);
            if let Some(user) = at.and_then(|at| self.user(at)) {
                user.outbound.extend_from_slice(relay.watchers());
                user.unconfirmed().into_iter().for_each(|subscriber| revoke(user, subscriber, out));
            }
            relay.questions().for_each(|question| out.send(map.here, question.ask(relay.user())));
        }
        self.set_all_out(out);
    }

    /// Users of these slots go: their sessions end, and nothing of them stays but what tells those here who watch them how they
    /// fare from now on.
    pub fn release(&mut self, now: Time, slots: &Slots, reason: Reason, edge: &mut Edge, out: &mut Outbox) {
        let users = self.users.iter().enumerate().filter_map(|(slot, user)| Some(user.as_ref()?.at(slot as u32)));
        for at in users.filter(|at| slots.has(at.user.slot())).collect::<Vec<_>>() {
            self.release_user(now, at, reason, edge, out);
        }
        let goes = |jid: &Bare| slots.has(slot_of(jid.as_str()));
        self.storing.retain(|_, waits| match waits {
            Waits::User(at) | Waits::Given(Given { at, .. }) => !slots.has(at.user.slot()),
            Waits::Stranger(to, _) => !goes(to),
            Waits::Message(keeping) => !goes(keeping.to()),
            Waits::Forgotten(name) | Waits::InVain(name) => !goes(&name.from),
        });
        self.receipts.release(slots, reason, out);
        for (caller, at) in self.creations.extract_if(.., |(_, at)| slots.has(at.user.slot())) {
            caller.refuse(reason, format!("user {}: {}", at.user.0, reason.text()), out);
        }
        self.retries.retain(|(_, at)| !slots.has(at.user.slot()));
        self.stray_retries.retain(|(_, to)| !goes(to));
        self.strays.retain(|to, _| !goes(to));
        self.adrift.retain(|(from, ..), _| !goes(from));
        self.far_ways.release(goes);
        self.set_out.retain(|(way, _)| !goes(&way.from) && !goes(&way.to));
        self.once.release(goes);
        self.release_unsettled(goes);
        self.directory.release(goes);
        let heard_from = &mut self.heard_from;
        self.heard.retain(|name, _| {
            let count = heard_from.get_mut(&name.cluster).filter(|_| goes(&name.to));
            count.into_iter().for_each(|count| *count -= 1);
            !goes(&name.to)
        });
    }

    fn release_user(&mut self, now: Time, at: UserRef, reason: Reason, edge: &mut Edge, out: &mut Outbox) {
        let sessions: Vec<_> = self.get(at).into_iter().flat_map(|user| &user.sessions).map(|s| (s.id, s.edge)).collect();
        for (session, session_edge) in sessions {
            self.end_session(now, at, session, "", edge, out);
            if let Some(edge) = session_edge {
                out.tell(edge, SessionEvent::Ended(reason));
            }
        }
        let user = self.take(at).expect("the caller found it");
        self.drop_mailbox(&user);
        self.document_bytes -= user.document_bytes();
        let mut events = Events::default();
        user.events(&mut events);
        let watchers = user.outbound.iter().filter(|watcher| watcher.seat.node == out.map.here.node).copied().collect();
        self.relays.put(user.id, user.jid.clone(), &events, watchers);
        give_up(user, reason, out);
    }
}

/// Tells those who wait for a user. Ways are sent again, for nobody has said that they have arrived.
fn give_up(user: User, reason: Reason, out: &mut Outbox) {
    let Some(rare) = user.rare else { return };
    if let Some(Origin::Client(asker)) = rare.storing.as_ref().map(|storing| &storing.origin) {
        refuse(*asker, reason, "", out);
    }
    if let Some(Origin::Removal(waiter)) = rare.storing.as_ref().map(|storing| &storing.origin) {
        waiter.answer(Err(reason.text()), out);
    }
    for change in rare.waiting {
        match change {
            Change::Attach(attach) => refuse(attach.asker, reason, "", out),
            Change::Ask { asker, .. } => refuse(asker, reason, "", out),
            Change::Remove(caller) => caller.refuse(reason, format!("{}: {}", user.jid, reason.text()), out),
            Change::Retract | Change::Way(_) => {}
            Change::WayDone(_) | Change::WayInVain(_) | Change::WayForgotten(_) => {}
        }
    }
}
