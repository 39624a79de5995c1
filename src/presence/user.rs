//! A user at home: account, roster, requests, sessions, and who must hear of the user's presence.
//!
//! Lives on: the user's home core. Serves G1, J10, Z6. Invariants: session numbers only grow; a session is available exactly when
//! its presence was last set to something else than unavailable; `outbound` names each edge at most once.

use super::control::{Directed, EdgeRef, Message, Note, UserRef, Way, WayKind, WayName};
use super::frame::{self, Events};
use super::mailbox::Mailbox;
use super::missed::Missed;
use super::roster::{Item, Roster};
use super::subscription::{Action, State};
use crate::base::credentials::ScramCredentials;
use crate::base::id::{Seat, SessionId, UserId, Version};
use crate::base::jid::Bare;
use crate::base::limits::Limits;
use crate::base::time::{Time, WallClock};
use crate::wire::event::{self, Head};
use crate::wire::native::{Access, Show};
use compact_str::CompactString;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// An edge with at least one subscriber of the user (a row of the outbound table, Z6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Destination {
    pub seat: Seat,
    /// The publisher's slot there.
    pub slot: u32,
}

/// A connected resource of a user.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    /// Counts this session's presence updates.
    pub sequence: u32,
    /// `None` while its connection is broken and it may be resumed.
    pub edge: Option<EdgeRef>,
    pub show: Show,
    pub priority: i8,
    /// RFC 6121 4.2: it has sent initial presence.
    pub available: bool,
    /// RFC 6121 2.2: it has asked for the roster.
    pub interested: bool,
    pub resource: CompactString,
    /// The presence as its client made it.
    pub presence: Vec<u8>,
    pub resume: [u8; 16],
    /// What only some sessions need.
    pub extra: Option<Box<SessionExtra>>,
}

#[derive(Default, Debug)]
pub struct SessionExtra {
    /// RFC 6121 4.6.3: who was sent directed presence and must hear the farewell.
    pub directed: Vec<(Bare, Option<String>)>,
    /// Messages sent and not yet acknowledged, oldest first.
    pub unacknowledged: VecDeque<(u64, Box<Message>)>,
    /// About what they take in frames.
    unacknowledged_bytes: usize,
    /// Number of the last message sent.
    pub sent: u64,
    /// When the session ends unless it is resumed.
    pub ends_at: Option<Time>,
    /// XEP-0280: it wants copies of what the user's other sessions send and receive.
    pub carbons: bool,
    /// XEP-0191: it has asked for the block list, and hears of changes.
    pub blocks: bool,
    /// XEP-0163: the documents that it hears of.
    pub interests: Option<Box<super::home::Interests>>,
    /// XEP-0352: what is kept back while nobody looks at its client.
    pub withheld: Option<Box<Withheld>>,
}

/// Presence that an inactive session is not told by its home; what it subscribes to is kept back at its edge.
#[derive(Default, Debug)]
pub struct Withheld {
    /// Of the user's own other sessions.
    pub own: Missed,
    /// The newest of each sender.
    pub directed: Vec<Box<Directed>>,
}

impl Withheld {
    /// Keeps directed presence back. False: there is no room for it.
    pub fn keep(&mut self, directed: &Directed, limits: &Limits) -> bool {
        let from = (&directed.from, &directed.from_resource);
        let is_full = self.directed.len() >= limits.directed_per_session as usize;
        match self.directed.iter_mut().find(|other| (&other.from, &other.from_resource) == from) {
            Some(other) => **other = directed.clone(),
            None if is_full => return false,
            None => self.directed.push(Box::new(directed.clone())),
        }
        true
    }
}

impl SessionExtra {
    /// Whether another message may be sent before some are acknowledged.
    pub fn has_room(&self, limits: &Limits) -> bool {
        self.unacknowledged.len() < limits.unacknowledged_messages as usize
            && self.unacknowledged_bytes < limits.unacknowledged_bytes as usize
    }

    /// Keeps a message until it is acknowledged. Gives its number.
    pub fn keep(&mut self, message: Box<Message>) -> u64 {
        self.sent += 1;
        self.unacknowledged_bytes += message.frame_bytes();
        self.unacknowledged.push_back((self.sent, message));
        self.sent
    }

    /// The client has received the messages up to this number: gives them.
    pub fn acknowledge(&mut self, received: u64) -> Vec<Message> {
        let mut acknowledged = Vec::new();
        while let Some((_, message)) = self.unacknowledged.pop_front_if(|(number, _)| *number <= received) {
            self.unacknowledged_bytes -= message.frame_bytes();
            acknowledged.push(*message);
        }
        acknowledged
    }
}

impl Session {
    pub fn new(id: SessionId, edge: EdgeRef, resource: CompactString, resume: [u8; 16]) -> Session {
        Session {
            id,
            sequence: 0,
            edge: Some(edge),
            show: Show::Unavailable,
            priority: 0,
            available: false,
            interested: false,
            resource,
            presence: Vec::new(),
            resume,
            extra: None,
        }
    }

    /// RFC 6121 8.5.2: whether it takes messages sent to the bare JID.
    pub fn is_willing(&self) -> bool {
        self.available && self.priority >= 0
    }

    /// What is kept back from it, if it is inactive.
    pub fn withheld(&mut self) -> Option<&mut Withheld> {
        self.extra.as_mut()?.withheld.as_deref_mut()
    }

    /// XEP-0191: whether it is told of changes of the block list.
    pub fn hears_of_blocks(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.blocks)
    }

    pub fn wants_copies(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.carbons)
    }

    pub fn extra(&mut self) -> &mut SessionExtra {
        self.extra.get_or_insert_default()
    }

    /// The event frame of the session's present state.
    pub fn encode(&self, user: UserId, epoch: u32, into: &mut Vec<u8>) {
        frame::encode(into, self.head(user, epoch), &self.presence);
    }

    fn head(&self, user: UserId, epoch: u32) -> Head {
        let version = Version { epoch, sequence: self.sequence };
        Head { user, version, session: self.id, show: self.show, flags: 0 }
    }
}

/// What is remembered of a user without a session (J10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Last {
    pub session: SessionId,
    pub version: Version,
    pub stamp: WallClock,
    /// A server-made presence with the stamp.
    pub presence: Vec<u8>,
}

/// Somebody's wish to subscribe, kept until it is answered (RFC 6121 3.1.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub from: Bare,
    pub user: UserId,
    pub note: Note,
}

/// Something a user keeps here, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    pub name: Box<str>,
    pub data: Box<[u8]>,
    pub access: Access,
}

impl Document {
    pub fn bytes(&self) -> usize {
        self.name.len() + self.data.len()
    }

    /// It is the node's own: no client can name it.
    pub fn is_hidden(&self) -> bool {
        self.name.starts_with(char::is_control)
    }
}

/// A subscription change on its way to a contact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnderWay {
    pub to: Bare,
    pub to_user: UserId,
    pub kind: WayKind,
    pub note: Note,
    pub sequence: u64,
    /// The contact's cluster, as it said when it had arrived; 0: this one.
    pub cluster: u16,
    /// It has arrived: ways from the contact up to this number were sent before. Kept while such may come.
    pub arrived: Option<u64>,
}

/// What a user's home knows. What every update looks at stands first, in one cache line.
#[repr(C, align(64))]
pub struct User {
    pub id: UserId,
    pub sessions: Vec<Session>,
    pub outbound: SmallVec<[Destination; 2]>,
    pub next_session: u32,
    /// Of the versions of the user's presence: that of the home's when the user came here.
    pub epoch: u32,
    pub jid: Bare,
    pub roster: Box<Roster>,
    pub credentials: Option<Box<ScramCredentials>>,
    pub rare: Option<Box<Rare>>,
}

/// What only some users have.
#[derive(Default)]
pub struct Rare {
    pub requests: Vec<Request>,
    /// In order, so that they are found quickly: every contact is looked for when the user goes online.
    pub blocked: Vec<Bare>,
    pub last: Option<Last>,
    /// Changes of which the contacts' homes have not said yet that they are stored there, in the order in which they were sent.
    pub under_way: Vec<UnderWay>,
    /// The change that is with the store now.
    pub storing: Option<Box<super::home::Storing>>,
    /// Changes that wait for it, oldest first.
    pub waiting: VecDeque<super::home::Change>,
    /// Messages that wait for a session to take them.
    pub mailbox: Option<Box<Mailbox>>,
    pub documents: Vec<Document>,
    /// The account is being removed: its sessions are ended, and nothing is kept for it.
    pub leaving: bool,
}

impl Rare {
    fn is_empty(&self) -> bool {
        let Rare { requests, blocked, last, under_way, storing, waiting, mailbox, documents, leaving } = self;
        let lists = requests.is_empty() && blocked.is_empty() && under_way.is_empty() && waiting.is_empty();
        lists && last.is_none() && storing.is_none() && mailbox.is_none() && documents.is_empty() && !leaving
    }
}

impl User {
    pub fn new(id: UserId, jid: Bare) -> User {
        User {
            id,
            sessions: Vec::new(),
            outbound: SmallVec::new(),
            next_session: 1,
            epoch: 0,
            jid,
            roster: Box::default(),
            credentials: None,
            rare: None,
        }
    }

    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Gives back the memory of what the user no longer has.
    pub fn tidy(&mut self) {
        self.rare.take_if(|rare| rare.is_empty());
    }

    pub fn requests(&self) -> &[Request] {
        self.rare.as_ref().map_or(&[], |rare| &rare.requests)
    }

    pub fn blocked(&self) -> &[Bare] {
        self.rare.as_ref().map_or(&[], |rare| &rare.blocked)
    }

    pub fn has_blocked(&self, jid: &Bare) -> bool {
        self.blocked().binary_search(jid).is_ok()
    }

    pub fn block(&mut self, jid: Bare) {
        let blocked = &mut self.rare().blocked;
        if let Err(place) = blocked.binary_search(&jid) {
            blocked.insert(place, jid);
        }
    }

    pub fn unblock(&mut self, jid: &Bare) {
        self.rare().blocked.retain(|blocked| blocked != jid);
    }

    pub fn documents(&self) -> &[Document] {
        self.rare.as_ref().map_or(&[], |rare| &rare.documents)
    }

    pub fn document_bytes(&self) -> usize {
        self.documents().iter().map(Document::bytes).sum()
    }

    pub fn mailbox(&self) -> Option<&Mailbox> {
        self.rare.as_ref()?.mailbox.as_deref()
    }

    pub fn last(&self) -> Option<&Last> {
        self.rare.as_ref()?.last.as_ref()
    }

    /// Whether a subscribe was on its way to a contact, with no unsubscribe behind it, when the contact sent this way.
    pub fn was_asking(&self, way: &Way) -> bool {
        let under_way = self.rare.iter().flat_map(|rare| &rare.under_way);
        let was_before = |sent: &&UnderWay, last| way.cluster != sent.cluster || way.sequence <= last;
        let is_unknown = |sent: &&UnderWay| !way.knows_of(sent.sequence) && sent.arrived.is_none_or(|last| was_before(sent, last));
        let mut unknown = under_way.filter(|sent| sent.to == way.from).filter(is_unknown).rev();
        let asked = unknown.find_map(|sent| match sent.kind {
            WayKind::Stanza(action @ (Action::Subscribe | Action::Unsubscribe)) => Some(action),
            _ => None,
        });
        asked == Some(Action::Subscribe)
    }

    /// Keeps in mind that a change is on its way to a contact.
    pub fn sent(&mut self, way: &Way, arrived: Option<u64>) {
        let Way { to, to_user, kind, note, sequence, .. } = way.clone();
        self.rare().under_way.push(UnderWay { to, to_user, kind, note, sequence, cluster: 0, arrived });
    }

    /// Takes out the changes sent to a contact which have arrived there, and which nothing can come behind that was said before:
    /// `is_settled` says so. What a cluster says settles only what has arrived there: each counts by itself.
    pub fn settled(&mut self, contact: &Bare, is_settled: impl Fn(&UnderWay) -> bool) -> Vec<WayName> {
        let User { jid, rare, .. } = self;
        let under_way = rare.iter_mut().flat_map(|rare| rare.under_way.extract_if(.., |way| way.to == *contact && is_settled(way)));
        under_way.map(|way| WayName { from: jid.clone(), to: way.to, sequence: way.sequence, cluster: way.cluster }).collect()
    }

    /// Subscribers that were revoked, and whose homes may not know it yet.
    pub fn unconfirmed(&self) -> Vec<UserId> {
        let under_way = self.rare.iter().flat_map(|rare| &rare.under_way);
        let revoked = under_way.filter(|way| way.kind.revokes() && way.arrived.is_none() && way.to_user != UserId::NOBODY);
        revoked.map(|way| way.to_user).collect()
    }

    /// Where a session stands in `sessions`.
    #[inline]
    pub fn position(&self, id: SessionId) -> Option<usize> {
        self.sessions.iter().position(|session| session.id == id)
    }

    pub fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    pub fn has_available(&self) -> bool {
        self.sessions.iter().any(|session| session.available)
    }

    /// Whether the user's sessions see a contact: subscribed to, with neither blocking the other.
    pub fn sees(&self, item: &Item) -> bool {
        let wanted = item.state.has(State::TO) && !item.state.has(State::BARRED) && item.user != UserId::NOBODY;
        wanted && !self.has_blocked(&item.jid)
    }

    /// The publishers whose presence the user's sessions see.
    pub fn watched(&self) -> Vec<UserId> {
        self.roster.to().filter(|item| self.sees(item)).map(|item| item.user).collect()
    }

    /// Whether this user gets our presence: approved and not blocked.
    pub fn approves(&self, subscriber: UserId) -> bool {
        let item = self.roster.by_user(subscriber);
        item.is_some_and(|item| item.state.has(State::FROM) && !self.has_blocked(&item.jid))
    }

    /// Whether anybody of a cluster gets our presence.
    pub fn approves_some_of(&self, cluster: u16) -> bool {
        self.roster.from().any(|item| item.user.cluster() == cluster && !self.has_blocked(&item.jid))
    }

    /// The same of a user whose number is not known.
    pub fn approves_name(&self, subscriber: &Bare) -> bool {
        self.roster.by_jid(subscriber).is_some_and(|item| item.state.has(State::FROM)) && !self.has_blocked(subscriber)
    }

    /// The frames that tell the user's whole state: each available session, or the last presence.
    pub fn events(&self, events: &mut Events) {
        let mut available = self.sessions.iter().filter(|session| session.available).peekable();
        if let (None, Some(last)) = (available.peek(), self.last()) {
            let head =
                Head { user: self.id, version: last.version, session: last.session, show: Show::Unavailable, flags: event::LAST };
            events.push(head, &last.presence);
        }
        available.for_each(|session| events.push(session.head(self.id, self.epoch), &session.presence));
    }

    /// The frames of the user's available sessions but one.
    pub fn other_events(&self, but: SessionId) -> Events {
        let others = self.sessions.iter().filter(|session| session.available && session.id != but);
        let mut events = Events::default();
        others.for_each(|session| events.push(session.head(self.id, self.epoch), &session.presence));
        events
    }

    pub fn at(&self, slot: u32) -> UserRef {
        UserRef { user: self.id, slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn what_an_update_looks_at_is_one_cache_line_of_the_user_and_two_of_the_session() {
        assert!(offset_of!(User, jid) <= 64, "{}", offset_of!(User, jid));
        assert_eq!(size_of::<Option<User>>(), 128);
        assert!(size_of::<Session>() <= 112, "{}", size_of::<Session>());
    }

    fn way(sequence: u64, from: &str, to: &str, kind: WayKind) -> Way {
        let jid = |name| Bare::new(name).unwrap();
        let (from_user, to_user) = (UserId(1), UserId(2));
        Way { from: jid(from), from_user, to: jid(to), to_user, kind, note: Note::default(), sequence, cluster: 0, knows: vec![] }
    }

    const SUBSCRIBE: WayKind = WayKind::Stanza(Action::Subscribe);

    fn user() -> User {
        User::new(UserId(1), Bare::new("ann@d").unwrap())
    }

    #[test]
    fn an_answer_is_overtaken_while_a_request_is_under_way_and_not_after_an_unsubscribe() {
        let (mut ann, answer) = (user(), way(9, "bob@d", "ann@d", WayKind::Stanza(Action::Subscribed)));
        assert!(!ann.was_asking(&answer));
        ann.sent(&way(1, "ann@d", "bob@d", SUBSCRIBE), None);
        ann.sent(&way(2, "ann@d", "bob@d", WayKind::Show), None);
        ann.sent(&way(3, "ann@d", "eve@d", WayKind::Stanza(Action::Unsubscribe)), None);
        assert!(ann.was_asking(&answer));
        ann.sent(&way(4, "ann@d", "bob@d", WayKind::Stanza(Action::Unsubscribe)), None);
        assert!(!ann.was_asking(&answer));
    }

    #[test]
    fn after_a_start_an_answer_is_overtaken_if_it_was_sent_before_the_request_had_arrived() {
        let mut ann = user();
        ann.sent(&way(1, "ann@d", "bob@d", SUBSCRIBE), Some(40));
        let answer = |sequence| way(sequence, "bob@d", "ann@d", WayKind::Stanza(Action::Subscribed));
        assert!(ann.was_asking(&answer(40)));
        assert!(!ann.was_asking(&answer(41)));
    }

    /// Z8: each cluster counts its ways by itself (seed 301039 of the simulator).
    #[test]
    fn z8_what_one_cluster_has_said_is_not_taken_for_what_another_one_knows() {
        let mut ann = user();
        ann.sent(&way(7, "ann@d", "bob@d", SUBSCRIBE), None);
        let answer = |knows| Way { cluster: 2, knows, ..way(3, "bob@d", "ann@d", WayKind::Stanza(Action::Subscribed)) };
        assert!(ann.was_asking(&answer(vec![(3, 9)])) && ann.was_asking(&answer(vec![(0, 6)])));
        assert!(!ann.was_asking(&answer(vec![(0, 7)])));
        // In this cluster nobody had that name, and its word of that is still to come.
        (ann.rare().under_way[0].arrived, ann.rare().under_way[0].cluster) = (Some(2), 0);
        assert!(ann.was_asking(&answer(vec![])), "that cluster has not been asked");
        ann.rare().under_way[0].cluster = 2;
        assert!(!ann.was_asking(&answer(vec![])));
    }

    #[test]
    fn who_is_blocked_is_found_in_whatever_order_they_were() {
        let (mut ann, jid) = (user(), |n: u32| Bare::new(&format!("u{}@d", n % 10)).unwrap());
        (0..40).for_each(|n| ann.block(jid(n * 7)));
        assert_eq!(ann.blocked().len(), 10);
        (0..5).for_each(|n| ann.unblock(&jid(n)));
        assert!((0..10).all(|n| ann.has_blocked(&jid(n)) == (n >= 5)));
    }

    #[test]
    fn a_revocation_is_unconfirmed_until_it_has_arrived() {
        let mut ann = user();
        ann.sent(&way(1, "ann@d", "bob@d", WayKind::Hide), Some(40));
        ann.sent(&way(2, "ann@d", "bob@d", WayKind::Show), None);
        assert_eq!(ann.unconfirmed(), []);
        ann.sent(&way(3, "ann@d", "bob@d", WayKind::Stanza(Action::Unsubscribed)), None);
        assert_eq!(ann.unconfirmed(), [UserId(2)]);
    }
}
