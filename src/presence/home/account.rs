//! Users come into being and go (Z1: their numbers are unique for ever).

use super::change::{Change, Origin, Waiter};
use super::plan::{Plan, account_row};
use super::reply::refuse;
use super::{Homes, Place};
use crate::base::credentials::ScramCredentials;
use crate::base::id::{UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Attach, Note, SessionEvent, UserRef, WayKind};
use crate::presence::edge::Edge;
use crate::presence::errand::{Answer, Caller, Who};
use crate::presence::mailbox::Mailbox;
use crate::presence::outbox::Outbox;
use crate::presence::subscription::{self, Action};
use crate::presence::user::User;
use crate::store::{Table, Write, rows};

impl Homes {
    /// A log-in of a user who does not exist yet, vouched for by a token or a trunk.
    pub(super) fn create_for(&mut self, attach: Attach, out: &mut Outbox) {
        match self.create(&attach.jid, None, out) {
            Err(reason) => refuse(attach.asker, reason, "", out),
            Ok(at) => self.user(at).expect("just made").rare().waiting.push_back(Change::Attach(Box::new(attach))),
        }
    }

    fn create(&mut self, jid: &Bare, credentials: Option<Box<ScramCredentials>>, out: &mut Outbox) -> Result<UserRef, Reason> {
        if self.by_user.len() >= self.place.limits.users_per_core as usize {
            return Err(Reason::Overloaded);
        }
        if jid.domain() != self.place.domain {
            return Err(Reason::NoSuchUser);
        }
        let taken_by = self.directory.holder(jid);
        if taken_by != 0 && taken_by != self.place.cluster {
            return Err(Reason::UserExists);
        }
        let slot = slot_of(jid.as_str());
        let last = self.serials.entry(slot).or_insert(0);
        let serial = last.checked_add(1).ok_or(Reason::Overloaded)?;
        *last = serial;
        let mut user = User::new(UserId::new(self.place.cluster, slot, serial), jid.clone());
        user.credentials = credentials;
        let writes = [Some(account_row(&user, user.credentials.as_deref())), self.unsettled_row(jid, user.id)];
        let at = self.insert(user);
        self.store_change(at, Plan { writes: writes.into_iter().flatten().collect(), ..Plan::default() }, Origin::Creation, out);
        Ok(at)
    }

    pub(super) fn creation_failed(&mut self, at: UserRef, why: &str, out: &mut Outbox) {
        let user = self.take(at).expect("a user being stored is there");
        for (caller, _) in self.creations.extract_if(.., |(_, of)| *of == at) {
            answer(caller, Err(why), out);
        }
        self.refuse_waiting(user, Reason::StorageFailed, out);
    }

    /// The operator adds a user, or somebody makes an account (XEP-0077).
    pub fn add_user(&mut self, caller: Caller, jid: &Bare, credentials: Option<Box<ScramCredentials>>, out: &mut Outbox) {
        if self.by_name(jid).is_some() {
            return caller.refuse(Reason::UserExists, format!("{jid} exists already: delete it first"), out);
        }
        if jid.domain() != self.place.domain {
            let why = format!("{jid}: this node's users are @{0}: add one of that domain", self.place.domain);
            return caller.refuse(Reason::NoSuchUser, why, out);
        }
        match self.create(jid, credentials, out) {
            Ok(at) => self.creations.push((caller, at)),
            Err(reason) => caller.refuse(reason, format!("{jid}: {}", reason.text()), out),
        }
    }

    /// A created account is stored, and the directory knows of it: whoever asked for it is told.
    pub(super) fn created(&mut self, at: UserRef, out: &mut Outbox) {
        for (caller, _) in self.creations.extract_if(.., |(_, of)| *of == at) {
            self.counters.registrations += u64::from(matches!(caller.who, Who::Client { .. }));
            answer(caller, Ok(()), out);
        }
    }

    /// The operator removes a user: sessions end, contacts hear that the subscriptions are over, nothing stays behind.
    pub fn delete_user(&mut self, now: Time, caller: Caller, jid: &Bare, edge: &mut Edge, out: &mut Outbox) {
        match self.by_name(jid) {
            None => caller.refuse(Reason::NoSuchUser, format!("there is no user {jid}"), out),
            Some(at) => self.remove_user(now, at, caller, edge, out),
        }
    }

    pub(super) fn finish_removal(&mut self, now: Time, at: UserRef, plan: Plan, waiter: Waiter, edge: &mut Edge, out: &mut Outbox) {
        waiter.answer(Ok(()), out);
        if let Some(user) = self.user(at) {
            user.rare().leaving = true;
        }
        let sessions: Vec<_> = self.get(at).into_iter().flat_map(|user| &user.sessions).map(|s| (s.id, s.edge)).collect();
        for (session, session_edge) in sessions {
            self.end_session(now, at, session, "", edge, out);
            if let Some(edge) = session_edge {
                out.tell(edge, SessionEvent::Ended(Reason::AccountRemoved));
            }
        }
        out.commit(
            vec![Write { table: Table::LastPresence, key: rows::user_key(&self.get(at).expect("being removed").jid), value: None }],
            crate::store::Durability::RideAlong,
        );
        let user = self.take(at).expect("being removed");
        self.settle(&user.jid, UserId::NOBODY, out);
        self.drop_mailbox(&user);
        self.document_bytes -= user.document_bytes();
        self.set_all_adrift(&user, out);
        plan.effects.into_iter().for_each(|effect| self.send_stray(effect, out));
        self.refuse_waiting(user, Reason::AccountRemoved, out);
    }

    pub(super) fn take(&mut self, at: UserRef) -> Option<User> {
        let user = self.users.get_mut(at.slot as usize)?.take_if(|user| user.id == at.user)?;
        self.by_name.remove(&user.jid);
        self.by_user.remove(&user.id);
        self.free.push(at.slot);
        Some(user)
    }
}

/// The number of a user of this cluster, as it was stored: perhaps before the cluster had a number.
pub(super) fn as_own(user: UserId, place: &Place) -> UserId {
    match user.cluster() == 0 && user != UserId::NOBODY {
        true => UserId::new(place.cluster, user.slot(), user.serial()),
        false => user,
    }
}

/// What the store has said of an account.
pub(super) fn answer(caller: Caller, result: Result<(), &str>, out: &mut Outbox) {
    match result {
        Ok(()) => caller.answer(Answer::Done, out),
        Err(why) => caller.refuse(Reason::StorageFailed, format!("the store failed: {why}"), out),
    }
}

/// Everything stored of a user goes in one commit, with a farewell to each contact and the serial that may not be given out again.
pub(super) fn plan_removal(user: &User, next_way: &mut u64) -> Plan {
    let mut plan = Plan::default();
    plan.delete(Table::Accounts, rows::user_key(&user.jid));
    plan.delete(Table::LastPresence, rows::user_key(&user.jid));
    let serial = rows::encode_u32(user.id.serial());
    plan.writes.push(Write { table: Table::Meta, key: rows::serial_key(user.id.slot()), value: Some(serial) });
    for sequence in user.mailbox().into_iter().flat_map(Mailbox::rows) {
        plan.delete(Table::Messages, rows::message_key(&user.jid, sequence));
    }
    for document in user.documents() {
        plan.delete(Table::Documents, rows::document_key(&user.jid, &document.name));
    }
    for jid in user.blocked() {
        plan.delete(Table::Blocked, rows::pair_key(&user.jid, jid));
        plan.send((&user.jid, user.id), (jid, UserId::NOBODY), WayKind::Show, &Note::default(), next_way);
    }
    for request in user.requests() {
        plan.delete(Table::Requests, rows::pair_key(&user.jid, &request.from));
    }
    for item in user.roster.iter() {
        plan.delete(Table::Roster, rows::pair_key(&user.jid, &item.jid));
        let removal = subscription::removed(item.state);
        let ways = [(removal.unsubscribe, Action::Unsubscribe), (removal.unsubscribed, Action::Unsubscribed)];
        for (_, action) in ways.into_iter().filter(|(wanted, _)| *wanted) {
            plan.send((&user.jid, user.id), (&item.jid, item.user), WayKind::Stanza(action), &Note::default(), next_way);
        }
    }
    plan
}
