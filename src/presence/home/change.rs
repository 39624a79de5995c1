//! Changes that must be stored before they count: one at a time per user, each planned on stored state, carried out when the store
//! has it, refused when it hasn't.
//!
//! So a reader never sees a change that a crash could take back, and what is acknowledged is never lost.

use super::offline::Keeping;
use super::plan::{Edit, Effect, Plan, Whom};
use super::receipts::Given;
use super::reply::{done, refuse};
use super::update::revoke_directed;
use super::{Homes, account, in_vain, interest, news, plan};
use crate::base::id::{Seat, SessionId, UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::border::{Astray, Strayed};
use crate::presence::control::{Arrival, Ask, Asker, Attach, Control, SessionEvent, UserRef, Way, WayName};
use crate::presence::edge::Edge;
use crate::presence::errand::Caller;
use crate::presence::outbox::Outbox;
use crate::presence::user::{Session, User};
use crate::store::{Completion, Durability, Table, Write, rows};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A way whose storing failed is tried again after this long: its sender has been told that it's on its way.
const RETRY: Duration = Duration::from_millis(500);

/// Something that changes what is stored of a user.
#[derive(Debug)]
pub enum Change {
    /// A log-in that waits until the account has come into being.
    Attach(Box<Attach>),
    Ask {
        session: SessionId,
        asker: Asker,
        ask: Box<Ask>,
    },
    Way(Box<Way>),
    /// A contact's home has stored a way.
    WayDone(Box<Arrival>),
    /// There is no such contact.
    WayInVain(Box<WayName>),
    /// A way of another node will not come again; but it may have, and wait before this.
    WayForgotten(Box<WayName>),
    /// The account goes; the answer is for the operator.
    Remove(Caller),
    /// The same, and nobody has heard of the account.
    Retract,
}

/// A change that is with the store.
#[derive(Debug)]
pub struct Storing {
    pub(super) plan: Plan,
    /// What is tried again, or whom to tell, should the store fail.
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) enum Origin {
    Creation,
    /// Nothing is with the store: a new account waits for the directory, and what comes behind it waits with it.
    Settling,
    Client(Asker),
    Way(Box<Way>),
    WayInVain(Box<WayName>),
    /// Nothing is with the store: a way waits to be tried again, and what comes behind it waits with it.
    Retry,
    Removal(Waiter),
}

/// Who waits to hear of an account that is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiter {
    Operator(Caller),
    Client(Asker),
    Nobody,
}

impl Storing {
    /// Whether the account itself is being stored.
    pub fn is_creation(&self) -> bool {
        matches!(self.origin, Origin::Creation | Origin::Settling)
    }

    /// Whether the account is stored and waits for the directory.
    pub fn is_settling(&self) -> bool {
        matches!(self.origin, Origin::Settling)
    }

    /// Whether the account is being removed.
    pub fn is_removal(&self) -> bool {
        matches!(self.origin, Origin::Removal(_))
    }
}

/// Who waits for a commit.
#[derive(Debug)]
pub(super) enum Waits {
    User(UserRef),
    /// A way to a user who does not exist.
    Stranger(Bare, Plan),
    Message(Box<Keeping>),
    Given(Given),
    /// That a way has arrived on another node, which waits to hear of it.
    Forgotten(Box<WayName>),
    /// That a way whose sender is gone was in vain.
    InVain(Box<WayName>),
}

impl Homes {
    /// A client asks for a change.
    pub(super) fn ask_change(
        &mut self,
        now: Time,
        at: UserRef,
        session: SessionId,
        asker: Asker,
        ask: Box<Ask>,
        edge: &mut Edge,
        out: &mut Outbox,
    ) {
        let most = self.place.limits.pending_per_user as usize;
        let Some(user) = self.user(at) else { return };
        if user.rare().waiting.len().max(user.rare().under_way.len()) >= most {
            return refuse(asker, Reason::TooManyPending, "", out);
        }
        user.rare().waiting.push_back(Change::Ask { session, asker, ask });
        self.run_changes(now, at, edge, out);
    }

    /// A subscription change of another user arrives (Z8).
    pub fn way(&mut self, now: Time, way: Box<Way>, edge: &mut Edge, out: &mut Outbox) {
        let to = way.to.clone();
        self.arrives(now, to, Change::Way(way), edge, out);
    }

    /// The other user's home has stored a way.
    pub fn way_done(&mut self, now: Time, arrival: Box<Arrival>, edge: &mut Edge, out: &mut Outbox) {
        self.arrives(now, arrival.name.from.clone(), Change::WayDone(arrival), edge, out);
    }

    /// A way from another node will not come again.
    pub fn way_forgotten(&mut self, now: Time, name: Box<WayName>, edge: &mut Edge, out: &mut Outbox) {
        self.arrives(now, name.to.clone(), Change::WayForgotten(name), edge, out);
    }

    /// A way had arrived here before the node's start, and its sender did not know it.
    pub fn way_arrived(&mut self, name: WayName, last: u64, out: &mut Outbox) {
        self.note_heard(&name, last, out);
        self.confirm(name, last, out);
    }

    /// Ways and confirmations keep their order, because what came before a confirmation was said without knowing the way.
    fn arrives(&mut self, now: Time, to: Bare, change: Change, edge: &mut Edge, out: &mut Outbox) {
        if matches!(&change, Change::Way(way) if self.is_stray(way)) {
            return;
        }
        if let Some(strays) = self.strays.get_mut(&to) {
            return strays.push_back(change);
        }
        match self.by_name(&to) {
            Some(at) => {
                self.user(at).expect("found by name").rare().waiting.push_back(change);
                self.run_changes(now, at, edge, out);
            }
            None => {
                self.strays.insert(to.clone(), VecDeque::from([change]));
                self.store_stray(now, to, edge, out);
            }
        }
    }

    /// Whether a way is being taken in as one to somebody who does not exist.
    fn is_stray(&self, way: &Way) -> bool {
        let strays = self.strays.get(&way.to);
        strays.into_iter().flatten().any(|change| matches!(change, Change::Way(other) if other.name() == way.name()))
    }

    /// Whether a way has been taken in here, or is about to be, though its receiver may be known to be elsewhere by now.
    pub fn has_taken(&self, way: &Way) -> bool {
        self.is_stray(way) || self.once.has(way, &self.heard)
    }

    /// The next way to somebody who does not exist; to somebody who has come into being meanwhile, all that wait.
    fn store_stray(&mut self, now: Time, to: Bare, edge: &mut Edge, out: &mut Outbox) {
        let exists = self.by_name(&to).is_some();
        loop {
            let strays = self.strays.get_mut(&to).expect("the caller put some there");
            let is_word = |change: &mut Change| !exists && matches!(change, Change::WayDone(_) | Change::WayForgotten(_));
            match strays.pop_front_if(is_word) {
                Some(Change::WayDone(arrival)) => self.way_confirmed(*arrival, out),
                Some(Change::WayForgotten(name)) => self.forget_heard(&name, out),
                _ => break,
            }
        }
        let strays = self.strays.get_mut(&to).expect("nothing above takes them away");
        match strays.front() {
            Some(Change::Way(way)) if !exists && self.once.has(way, &self.heard) => {
                let name = way.name();
                strays.pop_front();
                self.confirm_again(name, out);
                self.store_stray(now, to, edge, out);
            }
            Some(Change::Way(way)) if !exists && way.cluster == 0 && !out.map.is_owned(slot_of(to.as_str())) => {
                let (home, name) = (out.map.home_of(&way.from), Box::new(way.name()));
                strays.pop_front();
                out.send(home, Control::WayInVain(name));
                self.store_stray(now, to, edge, out);
            }
            Some(Change::Way(way)) if !exists => {
                let plan = plan::for_stranger(way, &mut self.next_way);
                let ticket = out.commit(plan.writes.clone(), Durability::Synced);
                self.storing.insert(ticket, Waits::Stranger(to, plan));
            }
            _ => {
                let changes = self.strays.remove(&to).unwrap_or_default();
                changes.into_iter().for_each(|change| self.arrives(now, to.clone(), change, edge, out));
            }
        }
    }

    fn stray_stored(&mut self, now: Time, to: Bare, plan: Plan, stored: bool, edge: &mut Edge, out: &mut Outbox) {
        if !stored {
            return self.stray_retries.push_back((now + RETRY, to));
        }
        self.strays.get_mut(&to).and_then(VecDeque::pop_front).expect("the way that was stored comes first");
        self.has_arrived(plan.arrives, out);
        plan.effects.into_iter().for_each(|effect| self.send_stray(effect, out));
        self.store_stray(now, to, edge, out);
    }

    /// Sends what comes from nobody who is here.
    pub(super) fn send_stray(&mut self, effect: Effect, out: &mut Outbox) {
        match effect {
            Effect::Way(way) => {
                self.set_adrift((*way).clone());
                self.set_out(way, out);
            }
            _ => unreachable!("only ways leave from nobody"),
        }
    }

    pub(super) fn remove_user(&mut self, now: Time, at: UserRef, caller: Caller, edge: &mut Edge, out: &mut Outbox) {
        if let Some(user) = self.user(at) {
            user.rare().waiting.push_back(Change::Remove(caller));
            self.run_changes(now, at, edge, out);
        }
    }

    /// Works off a user's changes until one has to wait for the store.
    pub(super) fn run_changes(&mut self, now: Time, at: UserRef, edge: &mut Edge, out: &mut Outbox) {
        loop {
            let Homes { users, place, next_way, heard, once, unsettled, directory, .. } = self;
            let user = users.get_mut(at.slot as usize).and_then(Option::as_mut).filter(|user| user.id == at.user);
            let Some(user) = user else { return };
            let Some(rare) = user.rare.as_mut().filter(|rare| rare.storing.is_none()) else { return };
            let Some(change) = rare.waiting.pop_front() else { return user.tidy() };
            let (planned, origin) = match change {
                Change::Attach(attach) => {
                    self.attach(now, *attach, edge, out);
                    continue;
                }
                Change::Ask { asker, ask, .. } if matches!(*ask, Ask::AccountRemove) => {
                    (account::plan_removal(user, next_way), Origin::Removal(Waiter::Client(asker)))
                }
                Change::Ask { session, asker, ask } => match plan::for_ask(user, place, session, &ask, next_way) {
                    Ok(plan) => (plan, Origin::Client(asker)),
                    Err((reason, detail)) => {
                        refuse(asker, reason, detail, out);
                        continue;
                    }
                },
                Change::WayDone(arrival) => {
                    self.way_confirmed(*arrival, out);
                    continue;
                }
                Change::WayForgotten(name) => {
                    self.forget_heard(&name, out);
                    continue;
                }
                Change::WayInVain(name) => match in_vain::plan(user, place, &name, next_way) {
                    Some(plan) => (plan, Origin::WayInVain(name)),
                    None => continue,
                },
                Change::Way(way) if once.has(&way, heard) => {
                    self.confirm_again(way.name(), out);
                    continue;
                }
                Change::Way(way) if way.cluster != 0 && unsettled.hides(user, place, directory) => {
                    send_back(&way, out);
                    continue;
                }
                Change::Way(way) => (plan::for_way(user, place, &way, next_way), Origin::Way(way)),
                Change::Remove(caller) => (account::plan_removal(user, next_way), Origin::Removal(Waiter::Operator(caller))),
                Change::Retract => (account::plan_removal(user, next_way), Origin::Removal(Waiter::Nobody)),
            };
            let mut planned = planned;
            if let Origin::Removal(_) = origin {
                planned.writes.extend(Homes::ways_given_up(user, out));
                let jid = user.jid.clone();
                planned.writes.extend(self.unsettled_row(&jid, UserId::NOBODY));
            }
            if planned.writes.is_empty() {
                self.carry_out(now, at, planned, origin, edge, out);
                continue;
            }
            self.store_change(at, planned, origin, out);
        }
    }

    pub(super) fn store_change(&mut self, at: UserRef, mut plan: Plan, origin: Origin, out: &mut Outbox) {
        let ticket = out.commit(std::mem::take(&mut plan.writes), Durability::Synced);
        self.storing.insert(ticket, Waits::User(at));
        let user = self.user(at).expect("a change is stored for a user who is there");
        user.rare().storing = Some(Box::new(Storing { plan, origin }));
    }

    /// The store has answered.
    pub fn complete(&mut self, now: Time, completion: Completion, edge: &mut Edge, out: &mut Outbox) {
        let at = match self.storing.remove(&completion.ticket) {
            None => return,
            Some(Waits::Stranger(to, plan)) => {
                return self.stray_stored(now, to, plan, completion.result.is_ok(), edge, out);
            }
            Some(Waits::Message(keeping)) => return self.kept(*keeping, completion.result, out),
            Some(Waits::Given(given)) => return self.given_is_kept(now, given, completion.result, out),
            // It's under way all the same, and will be in vain again.
            Some(Waits::InVain(_)) if completion.result.is_err() => return,
            Some(Waits::InVain(name)) => return self.way_confirmed(Arrival { name: *name, before: 0 }, out),
            // Not deleted, its row is found at the next start, and the way sets out again.
            Some(Waits::Forgotten(_)) if completion.result.is_err() => return,
            Some(Waits::Forgotten(name)) => return out.send(out.map.end(name.cluster, &name.to), Control::WayForgotten(name)),
            Some(Waits::User(at)) => at,
        };
        let Some(user) = self.user(at) else { return };
        let Storing { plan, origin } = *user.rare().storing.take().expect("a user with a commit is storing");
        match completion.result {
            Ok(()) => {
                self.counters.changes += 1;
                if matches!(origin, Origin::Creation) {
                    if self.waits_for_directory(now, at, out) {
                        return;
                    }
                    self.created(at, out);
                }
                self.carry_out(now, at, plan, origin, edge, out);
            }
            Err(why) => {
                self.counters.failed_changes += 1;
                self.give_up(now, at, origin, &why, out);
            }
        }
        self.run_changes(now, at, edge, out);
    }

    /// A change that could not be stored is not made.
    fn give_up(&mut self, now: Time, at: UserRef, origin: Origin, why: &str, out: &mut Outbox) {
        match origin {
            Origin::Client(asker) => refuse(asker, Reason::StorageFailed, why, out),
            Origin::Creation => self.creation_failed(at, why, out),
            Origin::Retry | Origin::Settling => unreachable!("nothing was with the store"),
            Origin::Removal(waiter) => waiter.answer(Err(why), out),
            Origin::Way(way) => self.try_again(now, at, Change::Way(way)),
            Origin::WayInVain(name) => self.try_again(now, at, Change::WayInVain(name)),
        }
    }

    /// Nothing else of this user runs before this is tried again, so that ways keep their order.
    fn try_again(&mut self, now: Time, at: UserRef, change: Change) {
        let rare = self.user(at).expect("just used").rare();
        rare.waiting.push_front(change);
        rare.storing = Some(Box::new(Storing { plan: Plan::default(), origin: Origin::Retry }));
        self.retries.push_back((now + RETRY, at));
    }

    /// Tries again what the store failed to keep. Returns when the next try is due.
    pub fn retry(&mut self, now: Time, edge: &mut Edge, out: &mut Outbox) -> Option<Time> {
        while let Some((_, at)) = self.retries.pop_front_if(|(due, _)| *due <= now) {
            if let Some(user) = self.user(at) {
                user.rare().storing = None;
                self.run_changes(now, at, edge, out);
            }
        }
        while let Some((_, to)) = self.stray_retries.pop_front_if(|(due, _)| *due <= now) {
            self.store_stray(now, to, edge, out);
        }
        self.revoked.forget_old(now);
        let farewells = self.say_farewells(now, edge, out);
        let (far, questions) = (self.send_far_ways(now, out), self.look_at_questions(now, out));
        let (retries, strays) = (self.retries.front(), self.stray_retries.front());
        let next = [retries.map(|(due, _)| *due), strays.map(|(due, _)| *due), farewells, far, questions];
        next.into_iter().flatten().min()
    }

    /// Makes a stored change and what follows from it.
    fn carry_out(&mut self, now: Time, at: UserRef, plan: Plan, origin: Origin, edge: &mut Edge, out: &mut Outbox) {
        if let Origin::Removal(waiter) = origin {
            self.finish_removal(now, at, plan, waiter, edge, out);
            return;
        }
        if self.user(at).is_some() {
            self.has_arrived(plan.arrives, out);
        }
        let Some(user) = self.user(at) else { return };
        let (before, mut refused, mut sent, mut revoked) = (user.document_bytes(), 0, Vec::new(), Vec::new());
        for edit in plan.edits {
            edit.apply(user);
        }
        let after = user.document_bytes();
        for effect in plan.effects {
            match effect {
                Effect::Push(jid) => push(user, &jid, false, out),
                Effect::PushRemoved(jid) => push(user, &jid, true, out),
                Effect::Tell { whom, event } => tell(user, whom, &event, out),
                Effect::Way(way) => {
                    user.sent(&way, None);
                    sent.push(way);
                }
                Effect::Revoke(subscriber) => {
                    interest::revoke(user, subscriber, out);
                    revoked.push(subscriber);
                }
                Effect::RevokeDirected(jid) => revoke_directed(user, &jid, out),
                Effect::Document { name, widely } => news::spread(user, &name, widely, out),
                Effect::NoRoom => refused += 1,
                Effect::See(publisher) => {
                    for edge in available_edges(user) {
                        out.send(edge.seat, Control::Interest { edge, publishers: vec![publisher] });
                    }
                    news::sees(user, publisher, out);
                }
                Effect::Unsee(publisher) => {
                    for edge in available_edges(user) {
                        out.send(edge.seat, Control::Uninterest { edge, publisher });
                    }
                }
            }
        }
        match origin {
            Origin::Client(asker) => done(asker, out),
            Origin::WayInVain(name) => self.way_confirmed(Arrival { name: *name, before: 0 }, out),
            _ => {}
        }
        sent.into_iter().for_each(|way| self.set_out(way, out));
        let known = revoked.into_iter().filter(|&subscriber| subscriber != UserId::NOBODY);
        known.for_each(|subscriber| self.revoked.note(now, at.user, subscriber));
        self.document_bytes = self.document_bytes - before + after;
        self.counters.requests_refused += refused;
    }
}

impl Waiter {
    pub(super) fn answer(self, result: Result<(), &str>, out: &mut Outbox) {
        match (self, result) {
            (Waiter::Operator(caller), result) => account::answer(caller, result, out),
            // A connection that waits for this can't go on without an answer.
            (Waiter::Client(Asker { edge, request }), Ok(())) => {
                out.tell(edge, SessionEvent::Done { request });
            }
            (Waiter::Client(asker), Err(why)) => refuse(asker, Reason::StorageFailed, why, out),
            (Waiter::Nobody, _) => {}
        }
    }
}

/// A way has arrived, and its sender knows it. Nothing hangs on when its row goes: one that the store did not delete, or that came
/// back in a crash, is deleted after the next start. But a receiver on another node, which has a row of its own, must be told
/// once it has gone for good.
pub(super) fn forget_way(name: Box<WayName>, storing: &mut BTreeMap<u64, Waits>, out: &mut Outbox) {
    let writes = vec![way_row(&name)];
    let end = out.map.end(name.cluster, &name.to);
    if end.node == out.map.here.node {
        out.commit(writes, Durability::RideAlong);
        if !out.map.is_certain(&name.to) {
            out.send(end, Control::WayForgotten(name));
        }
    } else {
        let ticket = out.commit(writes, Durability::Synced);
        storing.insert(ticket, Waits::Forgotten(name));
    }
}

/// A way is for another user than this name's, or for nobody: its sender's cluster is to ask whose the name is.
fn send_back(way: &Way, out: &mut Outbox) {
    let astray = Astray { jid: way.to.clone(), cluster: way.cluster, what: Strayed::Way(way.name()) };
    out.send(Seat::of_cluster(way.cluster), Control::Astray(Box::new(astray)));
}

/// The deletion of a way.
pub(super) fn way_row(name: &WayName) -> Write {
    Write { table: Table::Ways, key: rows::way_key(&name.from, &name.to, name.sequence), value: None }
}

fn available_edges(user: &User) -> Vec<crate::presence::control::EdgeRef> {
    user.sessions.iter().filter(|session| session.available).filter_map(|session| session.edge).collect()
}

fn tell(user: &User, whom: Whom, event: &SessionEvent, out: &mut Outbox) {
    let wants = |session: &&Session| match whom {
        Whom::Available => session.available,
        Whom::Interested => session.interested,
        Whom::Blocking => session.hears_of_blocks(),
    };
    for edge in user.sessions.iter().filter(wants).filter_map(|session| session.edge) {
        out.tell(edge, event.clone());
    }
}

/// RFC 6121 2.1.6: every interested session hears of a change of the roster.
fn push(user: &User, jid: &Bare, removed: bool, out: &mut Outbox) {
    let item = match user.roster.by_jid(jid) {
        Some(item) if !removed && item.state.is_visible() => plan::contact(item),
        _ => plan::removed_contact(jid),
    };
    // The version is worked out only if somebody wants it: it looks at the whole roster.
    if user.sessions.iter().any(|session| session.interested && session.edge.is_some()) {
        tell(user, Whom::Interested, &SessionEvent::RosterPush { item, version: user.roster.version() }, out);
    }
}

impl Edit {
    fn apply(self, user: &mut User) {
        match self {
            Edit::PutItem(item) => user.roster.put(item),
            Edit::RemoveItem(jid) => {
                user.roster.remove(&jid);
            }
            Edit::PutRequest(request) => {
                let requests = &mut user.rare().requests;
                requests.retain(|other| other.from != request.from);
                requests.push(request);
            }
            Edit::RemoveRequest(jid) => user.rare().requests.retain(|request| request.from != jid),
            Edit::Block(jid) => user.block(jid),
            Edit::Unblock(jid) => user.unblock(&jid),
            Edit::SetCredentials(credentials) => user.credentials = Some(credentials),
            Edit::PutDocument(document) => {
                let documents = &mut user.rare().documents;
                documents.retain(|other| other.name != document.name);
                documents.push(document);
            }
            Edit::RemoveDocument(name) => user.rare().documents.retain(|document| *document.name != *name),
        }
    }
}
