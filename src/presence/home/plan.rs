//! What a change does, worked out on stored state: the rows to write, then the edits in memory, then what follows. No side effect
//! happens here.

use super::Place;
use crate::base::credentials::ScramCredentials;
use crate::base::id::{SessionId, UserId};
use crate::base::jid::Bare;
use crate::base::limits::{DOCUMENT_NAME_BYTES, Limits, SUBSCRIPTION_EXTENSION_BYTES, TEXT_BYTES};
use crate::base::reason::Reason;
use crate::presence::control::{Ask, Contact, FAREWELL, Note, SessionEvent, Way, WayKind, WayName};
use crate::presence::roster::{Detail, Item, Roster};
use crate::presence::subscription::{self, Action, Flow, Outcome, State};
use crate::presence::user::{Document, Request, User};
use crate::store::{
    Table, Write,
    rows::{self, Row},
};
use crate::wire::native::Access;

/// A change of the user's state in memory.
#[derive(Debug)]
pub(super) enum Edit {
    PutItem(Item),
    RemoveItem(Bare),
    PutRequest(Request),
    RemoveRequest(Bare),
    Block(Bare),
    Unblock(Bare),
    SetCredentials(Box<ScramCredentials>),
    PutDocument(Document),
    RemoveDocument(String),
}

/// What follows from a change.
#[derive(Debug)]
pub(super) enum Effect {
    Push(Bare),
    PushRemoved(Bare),
    Tell {
        whom: Whom,
        event: SessionEvent,
    },
    Way(Box<Way>),
    /// A subscriber loses the user's presence at once.
    Revoke(UserId),
    /// The same of somebody who was sent directed presence.
    RevokeDirected(Bare),
    /// A document has changed; whether contacts may, or could, read it.
    Document {
        name: String,
        widely: bool,
    },
    /// A request for a subscription found no room.
    NoRoom,
    /// The user's available sessions see a publisher from now on, or no longer.
    See(UserId),
    Unsee(UserId),
}

/// Which of a user's sessions hear of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whom {
    Available,
    /// RFC 6121 2.2: those that have asked for the roster.
    Interested,
    /// XEP-0191: those that have asked for the block list.
    Blocking,
}

#[derive(Default, Debug)]
pub(super) struct Plan {
    /// The way that is carried out, and the number of the last one that the core had sent before.
    pub arrives: Option<(WayName, u64)>,
    pub writes: Vec<Write>,
    pub edits: Vec<Edit>,
    pub effects: Vec<Effect>,
}

type Refusal = (Reason, String);

impl Plan {
    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push(Write { table, key, value: Some(value) });
    }

    pub(super) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.push(Write { table, key, value: None });
    }

    /// Sends a way: stored with the change it follows from.
    pub(super) fn send(
        &mut self,
        (from, from_user): (&Bare, UserId),
        (to, to_user): (&Bare, UserId),
        kind: WayKind,
        note: &Note,
        next_way: &mut u64,
    ) {
        *next_way += 1;
        let way = Way {
            from: from.clone(),
            from_user,
            to: to.clone(),
            to_user,
            kind,
            note: note.clone(),
            sequence: *next_way,
            cluster: 0,
            knows: Vec::new(),
        };
        self.put_way(&way, None);
        self.effects.push(Effect::Way(Box::new(way)));
    }

    fn put_way(&mut self, way: &Way, arrived: Option<u64>) {
        let Way { from, from_user, to, to_user, kind, note, sequence, .. } = way;
        let Note { text: note, extensions } = if arrived.is_none() { note.clone() } else { Note::default() };
        // One from nobody of another cluster: where it came from is found again.
        let from_user = if *from_user == UserId::NOBODY { UserId::new(way.cluster, 0, 0) } else { *from_user };
        let row = rows::Way { kind: kind.number(), note, from_user, to_user: *to_user, arrived, extensions };
        self.put(Table::Ways, rows::way_key(from, to, *sequence), row.encode());
    }

    /// A way is carried out: that it has arrived is stored with what it does, until its sender knows.
    fn receive(&mut self, way: &Way, next_way: u64) {
        self.put_way(way, Some(next_way));
        self.arrives = Some((way.name(), next_way));
    }

    fn put_item(&mut self, owner: &Bare, item: Item) {
        let key = rows::pair_key(owner, &item.jid);
        if item.state.is_idle() && item.state.has(State::HIDDEN) {
            self.delete(Table::Roster, key);
            self.edits.push(Edit::RemoveItem(item.jid));
        } else {
            self.put(Table::Roster, key, stored(&item).encode());
            self.edits.push(Edit::PutItem(item));
        }
    }
}

pub(super) fn stored(item: &Item) -> rows::Contact {
    rows::Contact {
        user: item.user,
        state: item.state.bits(),
        name: item.name().to_owned(),
        groups: item.groups().map(str::to_owned).collect(),
    }
}

/// The item of a contact, or the one that comes into being: hidden until the user wants it in the roster.
fn item_or_new(user: &User, jid: &Bare) -> Item {
    let fresh = || Item { user: UserId::NOBODY, jid: jid.clone(), state: State::HIDDEN, detail: None };
    user.roster.by_jid(jid).cloned().unwrap_or_else(fresh)
}

pub(super) fn for_ask(user: &User, place: &Place, _session: SessionId, ask: &Ask, next_way: &mut u64) -> Result<Plan, Refusal> {
    match ask {
        Ask::Subscription { action, contact, note } => subscription_asked(user, place, *action, contact, note, next_way),
        Ask::RosterSet { contact, name, groups } => roster_set(user, place, contact, name, groups),
        Ask::RosterRemove { contact } => roster_remove(user, place, contact, next_way),
        Ask::Block { jid, blocked } => block(user, place, jid, *blocked, next_way),
        Ask::UnblockAll => {
            let mut plan = Plan::default();
            user.blocked().iter().for_each(|jid| plan_block(&mut plan, user, place, jid, false, next_way));
            Ok(plan)
        }
        Ask::DocumentSet { name, data, access } => document_set(user, place, name, data, *access),
        Ask::Credentials(credentials) => {
            let mut plan = Plan::default();
            plan.writes.push(account_row(user, Some(credentials)));
            plan.edits.push(Edit::SetCredentials(credentials.clone()));
            Ok(plan)
        }
        _ => unreachable!("only changes are planned"),
    }
}

fn check_room(user: &User, place: &Place, item: &Item) -> Result<(), Refusal> {
    let most = place.limits.contacts_per_user;
    let was_visible = user.roster.by_jid(&item.jid).is_some_and(|old| old.state.is_visible());
    if item.state.is_visible() && !was_visible && user.roster.contacts() >= most {
        return Err((Reason::TooManyContacts, format!("{most} at most")));
    }
    let most_bytes = place.limits.roster_bytes_per_user;
    if user.roster.would_exceed(item, most_bytes as usize, most) {
        return Err((Reason::TooManyContacts, format!("{most_bytes} bytes at most")));
    }
    Ok(())
}

fn subscription_asked(
    user: &User,
    place: &Place,
    action: Action,
    contact: &Bare,
    note: &Note,
    next_way: &mut u64,
) -> Result<Plan, Refusal> {
    if *contact == user.jid {
        return Err((Reason::BadRequest, "nobody subscribes to oneself: own sessions see each other anyway".into()));
    }
    if !place.reaches(contact) {
        return Err((Reason::NoSuchUser, format!("{contact} is not of {}", place.domain)));
    }
    for (what, text, most) in [("note", &note.text, TEXT_BYTES), ("extensions", &note.extensions, SUBSCRIPTION_EXTENSION_BYTES)] {
        if text.len() > most {
            return Err((Reason::TooLarge, format!("{what}: {most} bytes at most")));
        }
    }
    let mut item = item_or_new(user, contact);
    let old = item.state;
    let outcome = subscription::outbound(old, action);
    item.state = match action {
        Action::Subscribe | Action::Subscribed => outcome.state.without(State::HIDDEN),
        Action::Unsubscribe | Action::Unsubscribed => outcome.state,
    };
    check_room(user, place, &item)?;
    let mut plan = Plan::default();
    let (contact_user, new) = (item.user, item.state);
    if new != old {
        plan.put_item(&user.jid, item);
    }
    if old.has(State::PENDING_IN) && !new.has(State::PENDING_IN) {
        plan.delete(Table::Requests, rows::pair_key(&user.jid, contact));
        plan.edits.push(Edit::RemoveRequest(contact.clone()));
    }
    follow(&mut plan, user, &outcome, contact, contact_user, old);
    if outcome.route {
        plan.send((&user.jid, user.id), (contact, contact_user), WayKind::Stanza(action), note, next_way);
    }
    Ok(plan)
}

/// The push and the presence that follow from an outcome.
fn follow(plan: &mut Plan, user: &User, outcome: &Outcome, contact: &Bare, contact_user: UserId, old: State) {
    if outcome.push || (old.has(State::HIDDEN) && outcome.state.is_visible() && !old.is_visible()) {
        plan.effects.push(Effect::Push(contact.clone()));
    }
    match outcome.flow {
        Some(Flow::StopFrom) => plan.effects.push(Effect::Revoke(contact_user)),
        Some(Flow::StartTo) if outcome.state.has(State::BARRED) || user.has_blocked(contact) => {}
        Some(Flow::StartTo) => plan.effects.push(Effect::See(contact_user)),
        Some(Flow::StopTo) => plan.effects.push(Effect::Unsee(contact_user)),
        Some(Flow::StartFrom) | None => {}
    }
}

fn roster_set(user: &User, place: &Place, contact: &Bare, name: &str, groups: &[String]) -> Result<Plan, Refusal> {
    if *contact == user.jid {
        return Err((Reason::BadRequest, "nobody is a contact of oneself".into()));
    }
    let mut item = item_or_new(user, contact);
    item.detail = Detail::new(name, groups.iter().map(String::as_str)).map_err(|reason| (reason, "name and groups".into()))?;
    item.state = item.state.without(State::HIDDEN);
    check_room(user, place, &item)?;
    let mut plan = Plan::default();
    plan.put_item(&user.jid, item);
    plan.effects.push(Effect::Push(contact.clone()));
    Ok(plan)
}

fn roster_remove(user: &User, place: &Place, contact: &Bare, next_way: &mut u64) -> Result<Plan, Refusal> {
    let item = user.roster.by_jid(contact).filter(|item| item.state.is_visible());
    let Some(item) = item else { return Err((Reason::NoSuchContact, contact.to_string())) };
    let removal = subscription::removed(item.state);
    let mut plan = Plan::default();
    plan.delete(Table::Roster, rows::pair_key(&user.jid, contact));
    plan.delete(Table::Requests, rows::pair_key(&user.jid, contact));
    plan.edits.push(Edit::RemoveRequest(contact.clone()));
    plan.edits.push(Edit::RemoveItem(contact.clone()));
    if removal.stop_from {
        plan.effects.push(Effect::Revoke(item.user));
    }
    if removal.stop_to {
        plan.effects.push(Effect::Unsee(item.user));
    }
    plan.effects.push(Effect::PushRemoved(contact.clone()));
    if place.reaches(contact) {
        let ways = [(removal.unsubscribe, Action::Unsubscribe), (removal.unsubscribed, Action::Unsubscribed)];
        for (_, action) in ways.into_iter().filter(|(wanted, _)| *wanted) {
            plan.send((&user.jid, user.id), (contact, item.user), WayKind::Stanza(action), &Note::default(), next_way);
        }
    }
    Ok(plan)
}

/// XEP-0191: a blocked contact gets no presence, and the blocker sees none of it.
fn block(user: &User, place: &Place, jid: &Bare, blocked: bool, next_way: &mut u64) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    if *jid == user.jid {
        return Err((Reason::BadRequest, "nobody blocks oneself".into()));
    }
    if user.has_blocked(jid) == blocked {
        return Ok(plan);
    }
    let most = place.limits.blocked_per_user as usize;
    if blocked && user.blocked().len() >= most {
        return Err((Reason::TooManyBlocked, format!("{most} at most")));
    }
    plan_block(&mut plan, user, place, jid, blocked, next_way);
    Ok(plan)
}

/// Adds what blocking or unblocking somebody takes.
fn plan_block(plan: &mut Plan, user: &User, place: &Place, jid: &Bare, blocked: bool, next_way: &mut u64) {
    let (key, item) = (rows::pair_key(&user.jid, jid), user.roster.by_jid(jid));
    plan.effects.push(Effect::Tell { whom: Whom::Blocking, event: SessionEvent::BlockPush { jid: jid.clone(), blocked } });
    if blocked {
        plan.put(Table::Blocked, key, Vec::new());
        plan.effects.push(Effect::RevokeDirected(jid.clone()));
        plan.edits.push(Edit::Block(jid.clone()));
    } else {
        plan.delete(Table::Blocked, key);
        plan.edits.push(Edit::Unblock(jid.clone()));
    }
    if let Some(item) = item {
        match (blocked, item.state.has(State::FROM), item.state.has(State::TO) && !item.state.has(State::BARRED)) {
            (true, from, to) => {
                plan.effects.extend(from.then_some(Effect::Revoke(item.user)));
                plan.effects.extend(to.then_some(Effect::Unsee(item.user)));
            }
            (false, _, to) => plan.effects.extend(to.then_some(Effect::See(item.user))),
        }
    }
    if place.reaches(jid) {
        let kind = if blocked { WayKind::Hide } else { WayKind::Show };
        let contact_user = item.map_or(UserId::NOBODY, |item| item.user);
        plan.send((&user.jid, user.id), (jid, contact_user), kind, &Note::default(), next_way);
    }
}

fn document_set(user: &User, place: &Place, name: &str, data: &[u8], access: Access) -> Result<Plan, Refusal> {
    if name.len() > DOCUMENT_NAME_BYTES {
        return Err((Reason::TooLarge, format!("a name has {DOCUMENT_NAME_BYTES} bytes at most")));
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err((Reason::BadRequest, "the name of the document".into()));
    }
    let (mut plan, key) = (Plan::default(), rows::document_key(&user.jid, name));
    let old = user.documents().iter().find(|old| *old.name == *name);
    let widely = old.is_some_and(|old| old.access != Access::Own) || !data.is_empty() && access != Access::Own;
    if old.is_some() || !data.is_empty() {
        plan.effects.push(Effect::Document { name: name.to_owned(), widely });
    }
    if data.is_empty() {
        plan.delete(Table::Documents, key);
        plan.edits.push(Edit::RemoveDocument(name.to_owned()));
        return Ok(plan);
    }
    let document = Document { name: name.into(), data: data.into(), access };
    let others = || user.documents().iter().filter(|other| *other.name != *name && !other.is_hidden());
    let (most, most_bytes) = (place.limits.documents_per_user as usize, place.limits.document_bytes_per_user as usize);
    if others().count() >= most || others().map(Document::bytes).sum::<usize>() + document.bytes() > most_bytes {
        return Err((Reason::TooManyDocuments, format!("{most} of {most_bytes} bytes together at most")));
    }
    plan.put(Table::Documents, key, rows::Document { data: data.to_vec(), access: access.0 }.encode());
    plan.edits.push(Edit::PutDocument(document));
    Ok(plan)
}

/// A way from another user arrives.
pub(super) fn for_way(user: &User, place: &Place, way: &Way, next_way: &mut u64) -> Plan {
    let mut plan = Plan::default();
    if way.sequence != FAREWELL {
        plan.receive(way, *next_way);
    }
    match way.kind {
        WayKind::Stanza(action) => stanza_arrived(user, place, way, action, &mut plan, next_way),
        WayKind::Hide | WayKind::Show => barred(user, way, &mut plan),
    }
    plan
}

pub(super) fn stanza_arrived(user: &User, place: &Place, way: &Way, action: Action, plan: &mut Plan, next_way: &mut u64) {
    let mut item = item_or_new(user, &way.from);
    let old = item.state;
    if action == Action::Subscribe && user.has_blocked(&way.from) {
        if !old.has(State::FROM) {
            return;
        }
        plan.send((&user.jid, user.id), (&way.from, item.user), WayKind::Hide, &Note::default(), next_way);
    }
    let mut outcome = match user.was_asking(way) {
        true => subscription::overtaken(old, action),
        false => subscription::inbound(old, action),
    };
    if action == Action::Subscribed && !outcome.state.has(State::TO.with(State::PENDING_OUT)) {
        // It answers a copy of a request that came there after the request was settled elsewhere: the contact is to know that, too.
        outcome.reply = Some(Action::Unsubscribe);
    }
    let asks = outcome.state.has(State::PENDING_IN) && !old.has(State::PENDING_IN);
    if asks && user.roster.requests() >= place.limits.requests_per_user {
        let note = Note::new(Reason::TooManyRequests.text());
        plan.effects.push(Effect::NoRoom);
        return plan.send((&user.jid, user.id), (&way.from, item.user), WayKind::Stanza(Action::Unsubscribed), &note, next_way);
    }
    let known = item.user;
    item.state = outcome.state;
    let contact_user = if way.from_user == UserId::NOBODY { known } else { way.from_user };
    let is_over = way.sequence == FAREWELL && !item.state.has(State::BOUND);
    // Another user may have that number one day.
    item.user = if is_over { UserId::NOBODY } else { contact_user };
    if outcome.state != old || known != item.user {
        let is_new = user.roster.by_jid(&way.from).is_none();
        if !(is_new && item.state.without(State::HIDDEN) == State::NONE) {
            plan.put_item(&user.jid, item);
        }
    }
    if asks {
        let request = Request { from: way.from.clone(), user: way.from_user, note: way.note.clone() };
        let Note { text: note, extensions } = request.note.clone();
        let row = rows::Request { note, user: request.user, stamp: Default::default(), extensions };
        plan.put(Table::Requests, rows::pair_key(&user.jid, &way.from), row.encode());
        plan.effects.push(Effect::Tell { whom: Whom::Available, event: request_event(&request) });
        plan.edits.push(Edit::PutRequest(request));
    } else {
        if old.has(State::PENDING_IN) && !outcome.state.has(State::PENDING_IN) {
            plan.delete(Table::Requests, rows::pair_key(&user.jid, &way.from));
            plan.edits.push(Edit::RemoveRequest(way.from.clone()));
        }
        if outcome.route {
            let event = SessionEvent::Subscription { action, from: way.from.clone(), user: contact_user, note: way.note.clone() };
            plan.effects.push(Effect::Tell { whom: Whom::Interested, event });
        }
    }
    follow(plan, user, &outcome, &way.from, if outcome.flow == Some(Flow::StopTo) { known } else { contact_user }, old);
    if let Some(reply) = outcome.reply {
        plan.send((&user.jid, user.id), (&way.from, contact_user), WayKind::Stanza(reply), &Note::default(), next_way);
    }
}

/// The contact blocked the user, or took that back: the contact is not watched while it lasts.
fn barred(user: &User, way: &Way, plan: &mut Plan) {
    let Some(item) = user.roster.by_jid(&way.from) else { return };
    let mut item = item.clone();
    let (publisher, watched) = (item.user, item.state.has(State::TO) && !user.has_blocked(&way.from));
    if way.kind == WayKind::Hide {
        item.state = item.state.with(State::BARRED);
        plan.effects.extend(watched.then_some(Effect::Unsee(publisher)));
    } else {
        item.state = item.state.without(State::BARRED);
        plan.effects.extend(watched.then_some(Effect::See(publisher)));
    }
    plan.put_item(&user.jid, item);
}

/// A way to a user who does not exist: a request is denied (RFC 6121 3.1.3), everything else needs no answer.
pub(super) fn for_stranger(way: &Way, next_way: &mut u64) -> Plan {
    let mut plan = Plan::default();
    plan.receive(way, *next_way);
    if way.kind == WayKind::Stanza(Action::Subscribe) {
        let (stranger, asker) = ((&way.to, UserId::NOBODY), (&way.from, way.from_user));
        let note = Note::new(Reason::NoSuchUser.text());
        plan.send(stranger, asker, WayKind::Stanza(Action::Unsubscribed), &note, next_way);
    }
    plan
}

pub(super) fn request_event(request: &Request) -> SessionEvent {
    SessionEvent::Subscription {
        action: Action::Subscribe,
        from: request.from.clone(),
        user: request.user,
        note: request.note.clone(),
    }
}

/// A piece of the roster for a client, from behind a contact on.
pub(super) fn roster_event(roster: &Roster, request: u32, after: Option<&Bare>, limits: &Limits) -> SessionEvent {
    let (items, more) = roster.piece(after, limits.piece_bytes as usize);
    let version = (!more).then(|| roster.version());
    SessionEvent::Roster { request, items: items.into_iter().map(contact).collect(), version }
}

pub(super) fn contact(item: &Item) -> Contact {
    Contact {
        jid: item.jid.clone(),
        user: item.user,
        name: item.name().to_owned(),
        groups: item.groups().map(str::to_owned).collect(),
        state: item.state,
        removed: false,
    }
}

pub(super) fn removed_contact(jid: &Bare) -> Contact {
    Contact { jid: jid.clone(), user: UserId::NOBODY, name: String::new(), groups: Vec::new(), state: State::NONE, removed: true }
}

/// The row of an account.
pub(super) fn account_row(user: &User, credentials: Option<&ScramCredentials>) -> Write {
    let account = rows::Account { user: user.id, scram: credentials.cloned(), created: Default::default() };
    Write { table: Table::Accounts, key: rows::user_key(&user.jid), value: Some(account.encode()) }
}
