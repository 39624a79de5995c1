//! Sessions hear of documents, their user's own and those of users whose presence they see (XEP-0163 4.3): the newest of each, when
//! they become available or say what they want, and again when it changes.
//!
//! A change is only noted down, at the homes of those who may hear of it; what the document says is fetched when a session is to be
//! told. So however often documents change, a slow or inactive session is told the newest state once, and whether it may see that
//! is decided at that moment by the publisher's home.
//!
//! Lives on: every core. Serves C8 (XEP-0163), M2. Invariants: a session has one question under way at most; it notes down one
//! entry for a publisher, and only for publishers that it sees; a question that a link may have lost is asked again, and whoever
//! can't be reached, or does not answer, keeps it waiting for the others once in a round at most.

use super::Homes;
use super::question::may_read;
use super::reply::{done, refuse, tell};
use crate::base::id::{NodeId, Seat, SessionId, UserId};
use crate::base::limits::{DOCUMENT_NAME_BYTES, INTERESTS};
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Ask, Asker, Control, Fetch, Fetched, News, SessionEvent, UserRef};
use crate::presence::outbox::Outbox;
use crate::presence::user::{Session, User};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

/// What telling of a document takes beside its data, about.
const TELLING_BYTES: usize = 128;
/// How often sessions that have asked elsewhere are looked at: an answer is waited for this long at least, and twice as long at
/// most.
const LOOK: Duration = Duration::from_secs(31);

/// What a session wants to hear of, and has still to be told.
#[derive(Default, Debug)]
pub struct Interests {
    names: Vec<Box<str>>,
    due: BTreeMap<UserId, Due>,
    /// Whose documents were asked for last: the next one's are behind that.
    last: UserId,
    state: State,
    /// Bytes told since the edge was last asked whether the client reads them.
    told: usize,
    next_question: u32,
}

/// Documents of one publisher, as bits by the places of their names.
#[derive(Clone, Copy, Default, Debug)]
struct Due {
    names: u64,
    /// Those of `names` that may have been removed: the session is told that too.
    changed: u64,
}

impl Due {
    fn add(&mut self, other: Due) {
        self.names |= other.names;
        self.changed |= other.changed;
    }
}

#[derive(Default, Debug)]
enum State {
    #[default]
    Idle,
    /// A publisher's home was asked.
    Asked { number: u32, publisher: UserId, due: Due },
    /// The edge says when the client has read what there was.
    Paused,
}

impl Interests {
    /// All names, as bits.
    fn all(&self) -> u64 {
        (0..self.names.len()).fold(0, |all, place| all | 1 << place)
    }

    fn note(&mut self, publisher: UserId, due: Due) {
        if due.names != 0 {
            self.due.entry(publisher).or_default().add(due);
        }
    }

    /// What was asked is to be asked again.
    fn take_back(&mut self) {
        if let State::Asked { publisher, due, .. } = std::mem::take(&mut self.state) {
            self.note(publisher, due);
        }
        self.told = 0;
    }

    fn asked(&self) -> Option<(u32, UserId)> {
        match self.state {
            State::Asked { number, publisher, .. } => Some((number, publisher)),
            State::Idle | State::Paused => None,
        }
    }

    /// Whose documents are asked for next: in turn, of those who can be reached.
    fn next(&self, out: &Outbox) -> Option<UserId> {
        let behind = self.due.range((Excluded(self.last), Unbounded));
        let mut publishers = behind.chain(self.due.range(..=self.last)).map(|(&publisher, _)| publisher);
        let is_there = |publisher: &UserId| out.refusal(out.map.straight(*publisher)) != Some(Reason::HomeOutOfReach);
        publishers.find(is_there)
    }
}

/// Sessions that have asked another node, or cluster.
#[derive(Default)]
pub(super) struct AskedElsewhere {
    /// With the question that they were waiting for at the last look; 0: none.
    sessions: BTreeMap<(UserId, SessionId), u32>,
    look: Option<Time>,
}

impl Homes {
    /// A session says what it wants to hear of; nothing: the same as before, once more.
    pub(super) fn set_interests(&mut self, at: UserRef, id: SessionId, asker: Asker, names: Option<Vec<String>>, out: &mut Outbox) {
        let is_long = |name: &String| name.len() > DOCUMENT_NAME_BYTES;
        if names.as_ref().is_some_and(|names| names.len() > INTERESTS || names.iter().any(is_long)) {
            let most = format!("{INTERESTS} names of {DOCUMENT_NAME_BYTES} bytes at most");
            return refuse(asker, Reason::TooLarge, most, out);
        }
        if names.iter().flatten().any(|name| name.chars().any(char::is_control)) {
            return refuse(asker, Reason::BadRequest, "the name of a document", out);
        }
        let user = self.user(at).expect("the caller found it");
        let publishers = publishers(user);
        let session = user.session(id).expect("the caller found it");
        let available = session.available;
        let extra = session.extra();
        match names {
            Some(names) if names.is_empty() => extra.interests = None,
            Some(names) => {
                let mut interests = Interests { names: names.into_iter().map(Box::from).collect(), ..Interests::default() };
                let old = extra.interests.take().unwrap_or_default();
                interests.next_question = old.next_question;
                let is_new = |place: &usize| !old.names.contains(&interests.names[*place]);
                let fresh = (0..interests.names.len()).filter(is_new).fold(0, |fresh, place| fresh | 1 << place);
                // What the session had still to be told of the others is noted down anew.
                let rest = !old.due.is_empty() || !matches!(old.state, State::Idle);
                let names = if rest { interests.all() } else { fresh };
                if available {
                    publishers.into_iter().for_each(|publisher| interests.note(publisher, Due { names, changed: 0 }));
                }
                extra.interests = Some(Box::new(interests));
            }
            None => {
                if let Some(interests) = extra.interests.as_mut().filter(|_| available) {
                    let names = interests.all();
                    publishers.into_iter().for_each(|publisher| interests.note(publisher, Due { names, changed: 0 }));
                }
            }
        }
        tell_next(user, id, out);
        done(asker, out);
    }

    /// A session may be told more: it has read what there was, or somebody looks at its client again, or it was resumed.
    pub(super) fn go_on_telling(&mut self, at: UserRef, id: SessionId, out: &mut Outbox) {
        let Some(user) = self.user(at) else { return };
        if let Some(interests) = user.session(id).and_then(interests) {
            interests.take_back();
            tell_next(user, id, out);
        }
    }

    /// A session that has become available is told everything.
    pub(super) fn tell_all(&mut self, at: UserRef, id: SessionId, out: &mut Outbox) {
        let Some(user) = self.user(at) else { return };
        if user.session(id).is_some_and(|session| interests(session).is_some()) {
            for publisher in publishers(user) {
                note_all(user, id, publisher);
            }
            tell_next(user, id, out);
        }
    }

    /// Another node, or cluster, can be reached, or no longer: what it was asked is lost, and what is for it goes out, or waits.
    pub fn documents_again(&mut self, node: NodeId, out: &mut Outbox) {
        for user in self.users.iter_mut().flatten() {
            for position in 0..user.sessions.len() {
                let session = &mut user.sessions[position];
                let id = session.id;
                let Some(interests) = interests(session) else { continue };
                if interests.asked().is_some_and(|(_, publisher)| out.map.straight(publisher).node == node) {
                    interests.take_back();
                }
                tell_next(user, id, out);
            }
        }
    }

    /// Asks again what nobody has answered for too long. Gives when to look again.
    pub(super) fn look_at_questions(&mut self, now: Time, out: &mut Outbox) -> Option<Time> {
        let AskedElsewhere { mut sessions, mut look } = std::mem::take(&mut self.asked_elsewhere);
        out.asked_elsewhere.drain(..).for_each(|asked| _ = sessions.entry(asked).or_default());
        if look.is_some_and(|look| look <= now) {
            look = None;
            sessions.retain(|&(user, session), waits_for| self.still_waits(user, session, waits_for, out));
        }
        match sessions.is_empty() {
            true => look = None,
            false => _ = look.get_or_insert(now + LOOK),
        }
        self.asked_elsewhere = AskedElsewhere { sessions, look };
        look
    }

    /// Whether a session waits for an answer; one that it has been waiting for at the last look is not waited for any longer.
    fn still_waits(&mut self, user: UserId, id: SessionId, waits_for: &mut u32, out: &mut Outbox) -> bool {
        let Some(user) = self.by_user(user).and_then(|at| self.user(at)) else { return false };
        let Some(interests) = user.session(id).and_then(interests) else { return false };
        let Some((number, _)) = interests.asked() else { return false };
        if number == *waits_for {
            interests.take_back();
            tell_next(user, id, out);
        }
        *waits_for = number;
        true
    }

    /// Documents of somebody have changed.
    pub fn news(&mut self, news: &News, out: &mut Outbox) {
        for &subscriber in &news.subscribers {
            let Some(user) = self.by_user(subscriber).and_then(|at| self.user(at)) else { continue };
            let sees = user.id == news.publisher || user.roster.by_user(news.publisher).is_some_and(|item| user.sees(item));
            if !sees {
                continue;
            }
            for position in 0..user.sessions.len() {
                let session = &mut user.sessions[position];
                let (id, available) = (session.id, session.available);
                let Some(interests) = interests(session).filter(|_| available) else { continue };
                if let Some(place) = interests.names.iter().position(|name| *name == news.name) {
                    interests.note(news.publisher, Due { names: 1 << place, changed: 1 << place });
                    tell_next(user, id, out);
                }
            }
        }
    }

    /// Somebody's session wants to know what documents of a user of this core say.
    pub fn fetch(&mut self, fetch: Fetch, out: &mut Outbox) {
        let user = self.by_user(fetch.publisher).and_then(|at| self.get(at));
        let Some(user) = user.filter(|user| user.jid == fetch.from || user.approves(fetch.from_user)) else {
            return answer(fetch, Vec::new(), out);
        };
        let document = |(name, changed): &(Box<str>, bool)| {
            let found = user.documents().iter().find(|document| document.name == *name && !document.is_hidden());
            let readable = found.filter(|document| may_read(user, document.access, &fetch.from, fetch.from_user));
            match readable {
                Some(document) => Some((name.clone(), document.data.to_vec())),
                None => changed.then(|| (name.clone(), Vec::new())),
            }
        };
        let documents = fetch.names.iter().filter_map(document).collect();
        answer(fetch, documents, out);
    }

    /// The answer.
    pub fn fetched(&mut self, fetched: Fetched, out: &mut Outbox) {
        let piece = self.place.limits.piece_bytes as usize;
        let Fetched { fetch, documents } = fetched;
        let Some(user) = self.by_user(fetch.from_user).and_then(|at| self.user(at)) else { return };
        let item = user.roster.by_user(fetch.publisher).filter(|item| user.sees(item));
        let sees = user.id == fetch.publisher || item.is_some();
        // Under the name by which the user knows the publisher, whatever the other end says.
        let jid = item.map_or(&user.jid, |item| &item.jid).clone();
        let Some(session) = user.session(fetch.session) else { return };
        let (edge, may_be_told) = (session.edge, session.available && session.withheld().is_none());
        let Some(interests) = interests(session) else { return };
        if !matches!(interests.state, State::Asked { number, .. } if number == fetch.number) {
            return;
        }
        let Some(edge) = edge.filter(|_| may_be_told) else { return interests.take_back() };
        interests.state = State::Idle;
        let documents = documents.into_iter().filter(|(name, _)| sees && interests.names.contains(name));
        let documents: Vec<_> = documents.collect();
        interests.told += documents.iter().map(|(_, data)| data.len() + TELLING_BYTES).sum::<usize>();
        let pauses = interests.told >= piece;
        if pauses {
            (interests.state, interests.told) = (State::Paused, 0);
        }
        let told = documents.len() as u64;
        let asker = Asker { edge, request: 0 };
        for (name, data) in documents {
            tell(asker, SessionEvent::DocumentChanged { jid: jid.clone(), name, data }, out);
        }
        match pauses {
            true => tell(asker, SessionEvent::Pause(Box::new(Ask::GoOn)), out),
            false => tell_next(user, fetch.session, out),
        }
        self.counters.documents_told += told;
    }
}

/// Those whose documents a user's sessions may hear of.
fn publishers(user: &User) -> Vec<UserId> {
    let mut publishers = user.watched();
    publishers.push(user.id);
    publishers
}

fn interests(session: &mut Session) -> Option<&mut Interests> {
    session.extra.as_mut()?.interests.as_deref_mut()
}

fn note_all(user: &mut User, id: SessionId, publisher: UserId) {
    if let Some(interests) = user.session(id).and_then(interests) {
        let names = interests.all();
        interests.note(publisher, Due { names, changed: 0 });
    }
}

/// A user's sessions see a publisher from now on.
pub(super) fn sees(user: &mut User, publisher: UserId, out: &mut Outbox) {
    let available = user.sessions.iter().filter(|session| session.available && session.extra.is_some());
    let available: Vec<SessionId> = available.map(|session| session.id).collect();
    for id in available {
        note_all(user, id, publisher);
        tell_next(user, id, out);
    }
}

/// A session that is not available is told nothing, and everything when it is available again.
pub(super) fn rests(session: &mut Session) {
    if let Some(interests) = interests(session) {
        interests.take_back();
        interests.due.clear();
    }
}

/// A document of a user has changed. `widely`: contacts may see it, or could.
pub(super) fn spread(user: &User, name: &str, widely: bool, out: &mut Outbox) {
    let mut by_home: BTreeMap<Seat, Vec<UserId>> = BTreeMap::new();
    let contacts = user.roster.from().filter(|item| widely && item.user != UserId::NOBODY && !user.has_blocked(&item.jid));
    for subscriber in contacts.map(|item| item.user).chain([user.id]) {
        by_home.entry(out.map.straight(subscriber)).or_default().push(subscriber);
    }
    for (home, subscribers) in by_home {
        out.send(home, Control::News(Box::new(News { publisher: user.id, name: name.into(), subscribers })));
    }
}

fn answer(fetch: Fetch, documents: Vec<(Box<str>, Vec<u8>)>, out: &mut Outbox) {
    out.send(out.map.straight(fetch.from_user), Control::Fetched(Box::new(Fetched { fetch, documents })));
}

/// Asks for what a session is to be told next, if it may be told something.
fn tell_next(user: &mut User, id: SessionId, out: &mut Outbox) {
    let (from, from_user) = (user.jid.clone(), user.id);
    let Some(session) = user.session(id) else { return };
    if !session.available || session.edge.is_none() || session.withheld().is_some() {
        return;
    }
    let Some(interests) = interests(session).filter(|interests| matches!(interests.state, State::Idle)) else { return };
    let Some(publisher) = interests.next(out) else { return };
    let due = interests.due.remove(&publisher).expect("found there");
    interests.last = publisher;
    // 0 is none.
    interests.next_question = interests.next_question.checked_add(1).unwrap_or(1);
    let number = interests.next_question;
    interests.state = State::Asked { number, publisher, due };
    let named = interests.names.iter().enumerate().filter(|(place, _)| due.names & 1 << place != 0);
    let names = named.map(|(place, name)| (name.clone(), due.changed & 1 << place != 0)).collect();
    let fetch = Fetch { publisher, from, from_user, session: id, number, names };
    let home = out.map.straight(publisher);
    if home.node != out.map.here.node {
        out.asked_elsewhere.push((from_user, id));
    }
    out.send(home, Control::Fetch(Box::new(fetch)));
}
