//! Point to point: messages, directed presence, probes, and the requests that change nothing (RFC 6121 4.3, 4.6, 5, 8.5).

use super::Homes;
use super::activity::tell_others;
use super::receipts::may_be_lost;
use super::reply::{done, refuse, tell};
use super::{change::Change, plan, question};
use crate::base::id::SessionId;
use crate::base::jid::Bare;
use crate::base::limits::Limits;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Ask, Asker, Content, Control, Directed, Message, SessionEvent, UserRef, Wanted};
use crate::presence::edge::Edge;
use crate::presence::errand::Answer;
use crate::presence::mailbox::Mailbox;
use crate::presence::outbox::Outbox;
use crate::presence::roster::version_text;
use crate::presence::user::{Session, User};
use crate::wire::native::{self, MessageKind, Show};

/// What became of a message that was not refused.
pub(super) enum Fate {
    /// Sessions have it, or the store is to have it: it's safe once one of them says so.
    UnderWay,
    /// There is nothing more to do: it was dropped as its kind wants, or may be.
    Safe,
}

pub(super) type Refusal = (Reason, String);

impl Homes {
    /// A request of one of a user's sessions.
    pub fn ask(
        &mut self,
        now: Time,
        at: UserRef,
        session: SessionId,
        asker: Asker,
        ask: Box<Ask>,
        edge: &mut Edge,
        out: &mut Outbox,
    ) {
        let found = self.user(at).and_then(|user| user.session(session));
        if found.is_none_or(|session| session.edge != Some(asker.edge)) {
            self.counters.stale += 1;
            return;
        }
        match *ask {
            Ask::RosterGet { after, kept } => self.roster_get(at, session, asker, after.as_ref(), &kept, out),
            Ask::Carbons { enabled } => {
                let session = self.user(at).and_then(|user| user.session(session)).expect("just found");
                session.extra().carbons = enabled;
                done(asker, out);
            }
            Ask::Interests { names } => self.set_interests(at, session, asker, names, out),
            Ask::GoOn => self.go_on_telling(at, session, out),
            Ask::Activity { active } => self.set_activity(at, session, active, asker, out),
            Ask::LastSeen { jid } => self.ask_about(at, asker, jid, Wanted::LastSeen, out),
            Ask::DocumentGet { jid, name } => {
                let about = jid.unwrap_or_else(|| self.get(at).expect("just found").jid.clone());
                self.ask_about(at, asker, about, Wanted::Document(name), out)
            }
            Ask::DocumentSet { ref data, .. } if !self.has_room_for(data) || out.is_any_full() => {
                refuse(asker, Reason::Overloaded, "", out)
            }
            Ask::BlockListGet => {
                let user = self.user(at).expect("just found");
                user.session(session).expect("just found").extra().blocks = true;
                let jids = user.blocked().to_vec();
                tell(asker, SessionEvent::BlockList { request: asker.request, jids }, out);
            }
            Ask::Message { to, resource, content } => self.message_from(at, session, asker, (to, resource), content, out),
            Ask::Directed { to, resource, show, presence } => {
                self.directed_from(at, session, asker, (to, resource), show, presence, out)
            }
            Ask::Probe { publisher } => self.probe(at, session, asker, &publisher, out),
            Ask::Ack { received } => {
                let session = self.user(at).and_then(|user| user.session(session)).expect("just found");
                let received = session.extra.as_mut().map(|extra| extra.acknowledge(received));
                self.acknowledged(at, received.unwrap_or_default(), out);
            }
            _ => self.ask_change(now, at, session, asker, ask, edge, out),
        }
    }

    fn roster_get(&mut self, at: UserRef, session: SessionId, asker: Asker, after: Option<&Bare>, kept: &str, out: &mut Outbox) {
        let limits = self.place.limits.clone();
        let user = self.user(at).expect("the caller found it");
        user.session(session).expect("the caller found it").interested = true;
        if !kept.is_empty() {
            let version = user.roster.version();
            if kept == version_text(version) {
                return tell(asker, SessionEvent::RosterUnchanged { request: asker.request, version }, out);
            }
        }
        tell(asker, plan::roster_event(&user.roster, asker.request, after, &limits), out);
    }

    fn message_from(
        &mut self,
        at: UserRef,
        session: SessionId,
        asker: Asker,
        (to, to_resource): (Bare, Option<String>),
        content: Content,
        out: &mut Outbox,
    ) {
        if !self.place.reaches(&to) {
            return refuse(asker, Reason::NoSuchUser, to.to_string(), out);
        }
        if out.is_full(out.map.home_of(&to)) {
            return refuse(asker, Reason::Overloaded, "", out);
        }
        let limits = self.place.limits.clone();
        let user = self.user(at).expect("the caller found it");
        if user.has_blocked(&to) {
            return match content.kind {
                MessageKind::Error | MessageKind::Result | MessageKind::Failure => done(asker, out),
                _ => refuse(asker, Reason::Blocked, to.to_string(), out),
            };
        }
        let from_resource = user.session(session).expect("the caller found it").resource.clone();
        let message = Message::new((user.jid.clone(), from_resource), (to, to_resource), content, asker);
        if message.to != message.from {
            give_copies(user, &message, native::Copy::Sent, &[session], &limits, out);
        }
        out.send(out.map.home_of(&message.to), Control::Message(Box::new(message)));
    }

    /// A message arrives at its recipient's home.
    pub fn message(&mut self, now: Time, mut message: Box<Message>, out: &mut Outbox) {
        self.counters.messages += 1;
        let Some(receipt) = self.receipts.open(now, &message) else {
            return refuse(message.asker, Reason::Overloaded, "", out);
        };
        message.receipt = receipt;
        self.deliver_or_answer(now, message, out);
    }

    /// Delivers a message whose sender is owed an answer.
    fn deliver_or_answer(&mut self, now: Time, message: Box<Message>, out: &mut Outbox) {
        let receipt = message.receipt;
        match self.deliver(now, message, out) {
            Ok(Fate::UnderWay) => {}
            Ok(Fate::Safe) => self.receipts.safe(receipt, out),
            Err((reason, detail)) => self.receipts.refuse(receipt, reason, detail, out),
        }
    }

    /// Gives a message to the sessions that `recipients` chooses, or keeps it for later.
    fn deliver(&mut self, now: Time, mut message: Box<Message>, out: &mut Outbox) -> Result<Fate, Refusal> {
        let limits = self.place.limits.clone();
        let at = self.by_name(&message.to).ok_or_else(|| (Reason::NoSuchUser, message.to.to_string()))?;
        let user = self.user(at).expect("found by name");
        if user.has_blocked(&message.from) {
            return Err((Reason::RecipientUnavailable, message.to.to_string()));
        }
        let (resource, kind) = (message.to_resource.as_deref(), message.content.kind);
        let is_unanswerable = matches!(kind, MessageKind::Get | MessageKind::Set) && !question::may_ask(user, &message);
        let Some(chosen) = recipients(user, resource, kind) else { return Ok(Fate::Safe) };
        let is_named = user.sessions.iter().any(|session| Some(&*session.resource) == resource);
        let must_wait = chosen.is_empty() || (!is_named && user.mailbox().is_some_and(Mailbox::is_arriving));
        if must_wait && is_for_any(kind, resource) {
            return self.keep(now, at, message, out);
        }
        if chosen.is_empty() || is_unanswerable {
            return Err((Reason::RecipientUnavailable, format!("message {:?} to {}", message.content.id, message.to)));
        }
        let full = |session: &Session| session.extra.as_ref().is_some_and(|extra| !extra.has_room(&limits));
        let room: Vec<SessionId> = user.sessions.iter().filter(|s| chosen.contains(&s.id) && !full(s)).map(|s| s.id).collect();
        if room.is_empty() {
            return Err((Reason::TooManyMessages, format!("message {:?} to {}", message.content.id, message.to)));
        }
        let may_be_lost = may_be_lost(&message);
        if may_be_lost {
            message.receipt = 0;
        }
        message.given.clone_from(&room);
        let connected = user.sessions.iter().any(|session| room.contains(&session.id) && session.edge.is_some());
        for id in room {
            give(user.session(id).expect("chosen from the list"), message.clone(), out);
        }
        give_copies(user, &message, native::Copy::Received, &chosen, &limits, out);
        if may_be_lost {
            return Ok(Fate::Safe);
        }
        self.given(now, at, &message, connected);
        Ok(Fate::UnderWay)
    }

    /// What a session had not acknowledged when it ended goes to the user's other sessions, or waits for the next one, or goes back
    /// to the sender as an error; but nothing that another session was given too, or has acknowledged.
    pub(super) fn return_messages(&mut self, now: Time, at: UserRef, ended: Session, out: &mut Outbox) {
        for (_, mut message) in ended.extra.into_iter().flat_map(|extra| extra.unacknowledged) {
            let user = self.by_name(&message.to).and_then(|at| self.get(at));
            if user.is_some_and(|user| user.sessions.iter().any(|session| message.given.contains(&session.id))) {
                continue;
            }
            if message.copy != native::Copy::None {
                continue;
            }
            let mailbox = self.user(at).and_then(|user| user.rare.as_mut()?.mailbox.as_mut());
            if message.kept != 0 {
                if let Some(mailbox) = mailbox.filter(|mailbox| mailbox.has(message.kept)) {
                    mailbox.put(message);
                }
            } else if message.receipt == 0 || self.receipts.is_owed(message.receipt) {
                message.to_resource = None;
                self.deliver_or_answer(now, message, out);
            }
        }
        self.hand_out(at, out);
    }

    fn directed_from(
        &mut self,
        at: UserRef,
        session: SessionId,
        asker: Asker,
        to: (Bare, Option<String>),
        show: Show,
        presence: Vec<u8>,
        out: &mut Outbox,
    ) {
        let most = self.place.limits.directed_per_session as usize;
        if !self.place.reaches(&to.0) {
            return refuse(asker, Reason::NoSuchUser, to.0.to_string(), out);
        }
        if out.is_full(out.map.home_of(&to.0)) {
            return refuse(asker, Reason::Overloaded, "", out);
        }
        let user = self.user(at).expect("the caller found it");
        if user.has_blocked(&to.0) {
            return refuse(asker, Reason::Blocked, to.0.to_string(), out);
        }
        let from = user.jid.clone();
        let found = user.session(session).expect("the caller found it");
        let from_resource = found.resource.clone();
        let directed = &mut found.extra().directed;
        if show == Show::Unavailable {
            directed.retain(|known| *known != to);
        } else if !directed.contains(&to) {
            if directed.len() >= most {
                return refuse(asker, Reason::TooManyDirected, format!("{most} at most"), out);
            }
            directed.push(to.clone());
        }
        let directed = Directed { from, from_resource, to: to.0, to_resource: to.1, presence };
        out.send(out.map.home_of(&directed.to), Control::Directed(Box::new(directed)));
        done(asker, out);
    }

    /// Directed presence arrives (RFC 6121 4.6.2): it needs no subscription, but blocked users have none.
    pub fn directed(&mut self, directed: Box<Directed>, out: &mut Outbox) {
        let limits = self.place.limits.clone();
        let Some(user) = self.by_name(&directed.to).and_then(|at| self.user(at)) else { return };
        if user.has_blocked(&directed.from) {
            return;
        }
        let wanted = directed.to_resource.as_deref();
        // RFC 6121 8.5.3.1: the session that is named need not be available.
        let wants = |s: &&mut Session| wanted.map_or(s.available, |resource| *s.resource == *resource);
        for session in user.sessions.iter_mut().filter(wants) {
            if session.withheld().is_some_and(|withheld| withheld.keep(&directed, &limits)) {
                continue;
            }
            let Some(edge) = session.edge else { continue };
            out.tell(edge, SessionEvent::Directed(directed.clone()));
        }
    }

    /// RFC 6121 4.3: a probe is answered from what is known here and at the session's edge, of contacts that the session sees. So
    /// it brings nothing that would not be kept up to date afterwards.
    fn probe(&mut self, at: UserRef, session: SessionId, asker: Asker, publisher: &Bare, out: &mut Outbox) {
        self.counters.probes += 1;
        let user = self.get(at).expect("the caller found it");
        let available = user.sessions.iter().any(|own| own.id == session && own.available);
        let contact = user.roster.by_jid(publisher).filter(|item| user.sees(item)).map(|item| item.user);
        let is_own = *publisher == user.jid;
        if contact.is_none() && !is_own {
            return refuse(asker, Reason::NotAuthorized, publisher.to_string(), out);
        }
        if !available {
            return refuse(asker, Reason::NotAvailable, "", out);
        }
        match contact {
            Some(publisher) => tell(asker, SessionEvent::Probed { publisher }, out),
            None => tell_others(self.user(at).expect("the caller found it"), session, asker, out),
        }
        done(asker, out);
    }

    /// Accounts for waiting changes when a user goes: those who wait are told.
    pub(super) fn refuse_waiting(&mut self, user: User, reason: Reason, out: &mut Outbox) {
        let waiting = user.rare.map(|rare| rare.waiting).unwrap_or_default();
        for change in waiting {
            match change {
                Change::Attach(attach) => refuse(attach.asker, reason, "", out),
                Change::Ask { asker, .. } => refuse(asker, reason, "", out),
                Change::Remove(caller) => caller.answer(Answer::Done, out),
                Change::Retract => {}
                Change::WayForgotten(name) => self.forget_heard(&name, out),
                Change::WayDone(arrival) => out.send(out.map.home_of(&arrival.name.from), Control::WayDone(arrival)),
                Change::WayInVain(name) => out.send(out.map.home_of(&name.from), Control::WayInVain(name)),
                Change::Way(way) => out.send(out.map.home_of(&way.to), Control::Way(way)),
            }
        }
    }
}

/// Sends a session a message, and keeps it until it's acknowledged.
pub(super) fn give(session: &mut Session, message: Box<Message>, out: &mut Outbox) {
    let edge = session.edge;
    let number = session.extra().keep(message.clone());
    if let Some(edge) = edge {
        out.tell(edge, SessionEvent::Message { number, message });
    }
}

/// XEP-0280: a copy for each of a user's sessions that wants copies, has room for one, and is neither the sender nor among those
/// that have the message itself.
fn give_copies(user: &mut User, message: &Message, copy: native::Copy, but: &[SessionId], limits: &Limits, out: &mut Outbox) {
    if user.sessions.len() < 2 || !message.is_copied() {
        return;
    }
    let is_own = message.from == user.jid;
    for session in user.sessions.iter_mut().filter(|session| session.wants_copies() && !but.contains(&session.id)) {
        let has_sent = is_own && session.resource == message.from_resource;
        if !has_sent && session.extra().has_room(limits) {
            // Nothing hangs on whether a copy arrives.
            give(session, Box::new(Message { copy, receipt: 0, ..message.clone() }), out);
        }
    }
}

/// RFC 6121 8.5.2 and 8.5.3: the session named, while there is one. Otherwise, of those whose priority is not negative: for a
/// headline all, for what people say to each other those of the highest priority. `None`: to be dropped without a word.
fn recipients(user: &User, resource: Option<&str>, kind: MessageKind) -> Option<Vec<SessionId>> {
    if let Some(named) = user.sessions.iter().find(|session| Some(&*session.resource) == resource) {
        return Some(vec![named.id]);
    }
    let willing = || user.sessions.iter().filter(|session| session.is_willing());
    let best = willing().map(|session| session.priority).max();
    match kind {
        MessageKind::Normal | MessageKind::Chat if is_for_any(kind, resource) => {
            Some(willing().filter(|session| Some(session.priority) == best).map(|session| session.id).collect())
        }
        MessageKind::Headline if resource.is_none() && best.is_some() => Some(willing().map(|session| session.id).collect()),
        // There are no rooms here, and nobody answers for a session that is not there.
        MessageKind::Normal | MessageKind::GroupChat | MessageKind::Get | MessageKind::Set => Some(Vec::new()),
        _ => None,
    }
}

/// Whether a message may reach, or wait for, any session of its recipient's: if it names one that is not there, only what belongs
/// to a conversation may (RFC 6121 8.5.3.2.1).
fn is_for_any(kind: MessageKind, resource: Option<&str>) -> bool {
    kind == MessageKind::Chat || kind == MessageKind::Normal && resource.is_none()
}
