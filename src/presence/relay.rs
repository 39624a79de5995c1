//! What stands for the publishers of other nodes on this one (Z7, M5): to the edges here a relay is the publisher's home, and to
//! the home it is one edge. So an update crosses to this node once, however many of its cores have subscribers, and the second
//! core is answered from what is kept here.
//!
//! Lives on: the core that a publisher's home would be on, were it this node. Serves Z6, Z7, M4, M5. Invariants: a relay is kept
//! exactly as long as an edge watches its publisher or has asked to; an edge is told of a publisher only for a subscriber that the
//! home has approved; whom the home has revoked it is asked about anew; when the home has been out of reach, no edge keeps a state
//! that the home does not have any more; what the home tells by reference is asked for once, and nobody hears of it before it has
//! come whole: an edge, or another node's relay, that asks before that waits.

mod compare;
mod state;

pub use compare::{Compare, Known};

use super::ask_first::AskFirst;
use super::cache::Cache;
use super::control::{Control, Snapshot};
use super::edge::{Edge, Grant};
use super::frame::{self, Events, is_farewell};
use super::outbox::Outbox;
use super::user::Destination;
use crate::base::id::{Seat, SessionId, UserId};
use crate::base::jid::Bare;
use crate::base::time::Time;
use ahash::RandomState;
use compare::Comparing;
use smallvec::SmallVec;
use state::{catch_up, come_back, show, take};
use std::collections::{BTreeMap, HashMap};
use thin_vec::ThinVec;

/// What an edge has asked: whether a subscriber may see a publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    pub subscriber: UserId,
    pub seat: Seat,
    pub slot: u32,
    pub nonce: u32,
    /// What it knows of the publisher (`frame::digest`); if it's nothing else, it wants no answer.
    pub known: Option<u64>,
}

impl Question {
    fn destination(&self) -> Destination {
        Destination { seat: self.seat, slot: self.slot }
    }

    /// The same, as it's asked of a home.
    pub fn ask(self, publisher: UserId) -> Control {
        let Question { subscriber, seat, slot, nonce, known } = self;
        Control::Watch { publisher, subscriber, seat, slot, nonce, known }
    }
}

/// What relays count. The shard adds it to the core's counters.
#[derive(Clone, Copy, Default, Debug)]
pub struct RelayCounters {
    /// Updates of other nodes' publishers taken in, and those that were no news.
    pub updates: u64,
    pub stale: u64,
    /// Watches answered here, and those asked of homes.
    pub answered: u64,
    pub asked: u64,
    /// Presences asked for that were told by reference.
    pub fetched: u64,
}

/// One publisher of another node.
pub struct Relay {
    user: UserId,
    /// Known once the home has answered, which makes the grant.
    jid: Option<Bare>,
    grant: Grant,
    cache: Cache,
    /// What was told by reference and has not come yet. It is newer than what is in the cache.
    wanted: Cache,
    outbound: SmallVec<[Destination; 2]>,
    /// Of those, the ones where nobody looks at the publisher; and whether the home was told that it's so everywhere.
    unheeded: ThinVec<Destination>,
    is_unheeded: bool,
    /// Questions that the home has not answered yet, by their numbers there.
    asked: Vec<(u32, Question)>,
    /// Questions that wait for the home's first answer.
    waiting: Vec<Question>,
    /// Questions that are granted, and answered when all sessions that the home has told of have come whole.
    owed: Vec<Question>,
    ask_first: AskFirst,
    /// Its home is out of reach: to all edges the publisher is gone, and what is kept is only to be compared.
    away: bool,
    /// What is kept is being compared, and the home has not said that it's otherwise.
    in_question: bool,
}

impl Relay {
    /// What edges are told.
    fn shown(&self) -> &[u8] {
        if self.away { &[] } else { self.cache.bytes() }
    }

    /// Nobody has asked for it yet.
    fn new(user: UserId) -> Relay {
        Relay {
            user,
            jid: None,
            grant: Grant::Asked,
            cache: Cache::default(),
            wanted: Cache::default(),
            outbound: SmallVec::new(),
            unheeded: ThinVec::new(),
            is_unheeded: false,
            asked: Vec::new(),
            waiting: Vec::new(),
            owed: Vec::new(),
            ask_first: AskFirst::default(),
            away: false,
            in_question: false,
        }
    }

    pub fn user(&self) -> UserId {
        self.user
    }

    /// The edges that watch, and what was asked and is not answered.
    pub fn watchers(&self) -> &[Destination] {
        &self.outbound
    }

    pub fn questions(&self) -> impl Iterator<Item = Question> {
        self.asked.iter().map(|(_, question)| question).chain(&self.waiting).chain(&self.owed).copied()
    }

    /// The edges are told of this state, as far as they don't know it.
    pub fn tell(&mut self, now: Time, events: &Events, counters: &mut RelayCounters, edge: &mut Edge, out: &mut Outbox) {
        catch_up(self, now, events, counters, edge, out);
    }

    /// Of each session that the home has told of there is something to tell. Who was told less would take the others for gone, and
    /// who was told of them by reference would ask for what is not here.
    fn is_whole(&self) -> bool {
        frame::frames(self.wanted.bytes()).all(|frame| self.cache.of_session(frame::head(frame).session).is_some())
    }

    /// A question is granted. One of another node's relay takes the place of those before.
    fn owe(&mut self, question: Question) {
        let is_relays = question.subscriber == UserId::NOBODY;
        self.owed.retain(|other| !is_relays || (other.subscriber, other.seat) != (UserId::NOBODY, question.seat));
        self.owed.push(question);
    }

    fn is_idle(&self) -> bool {
        self.outbound.is_empty() && self.asked.is_empty() && self.waiting.is_empty() && self.owed.is_empty()
    }
}

/// All relays of a core.
pub struct Relays {
    relays: HashMap<UserId, Relay, RandomState>,
    next_nonce: u32,
    /// By where their homes are.
    comparing: BTreeMap<Seat, Comparing>,
    pub counters: RelayCounters,
}

impl Relays {
    pub fn new(hasher: RandomState) -> Relays {
        let (relays, comparing) = (HashMap::with_hasher(hasher), BTreeMap::new());
        Relays { relays, next_nonce: 0, comparing, counters: RelayCounters::default() }
    }

    pub fn count(&self) -> usize {
        self.relays.len()
    }

    /// The frames of a publisher's whole state, for an edge on this core.
    pub fn events_of(&self, user: UserId, events: &mut Events) {
        if let Some(relay) = self.relays.get(&user) {
            events.append(relay.shown());
        }
    }

    /// Reads where a publisher's relay is and what it is told next, for the cache: the slot of its record at this core's own edge,
    /// if there is one.
    #[inline]
    pub fn glance(&self, user: UserId, here: Seat) -> Option<u32> {
        let mut destinations = self.relays.get(&user)?.outbound.iter();
        destinations.find(|destination| destination.seat == here).map(|destination| destination.slot)
    }

    /// Reads what is kept of a publisher, for the cache.
    #[inline]
    pub fn glance_at_state(&self, user: UserId) -> u32 {
        self.relays.get(&user).map_or(0, |relay| relay.cache.glance())
    }

    /// An edge of this node wants to watch a publisher. False: the home must be asked.
    pub fn watch(&mut self, publisher: UserId, question: Question, out: &mut Outbox) -> bool {
        let relay = self.relays.entry(publisher).or_insert_with(|| Relay::new(publisher));
        if relay.grant == Grant::Given && !relay.ask_first.must_ask(question.subscriber) {
            self.counters.answered += 1;
            if !relay.is_whole() {
                relay.owe(question);
                return false;
            }
            match question.known == Some(frame::digest(relay.shown())) && relay.ask_first.is_empty() {
                true => add_destination(relay, question.destination(), out),
                false => answer(relay, question, out),
            }
            return true;
        }
        if relay.grant == Grant::Asked && !relay.asked.is_empty() {
            relay.waiting.push(question);
        } else {
            self.counters.asked += 1;
            ask(relay, question, &mut self.next_nonce, out);
        }
        false
    }

    /// An edge watches a publisher no more.
    pub fn unwatch(&mut self, publisher: UserId, gone: Destination, out: &mut Outbox) {
        let Some(relay) = self.relays.get_mut(&publisher) else { return };
        relay.outbound.retain(|destination| *destination != gone);
        relay.unheeded.retain(|destination| *destination != gone);
        let is_its = |question: &Question| question.destination() == gone;
        let asked = relay.asked.extract_if(.., |(_, question)| is_its(question)).map(|(_, question)| question);
        let others = [&mut relay.waiting, &mut relay.owed].into_iter();
        // The edge counts on an answer to each.
        for Question { subscriber, seat, slot, nonce, .. } in
            asked.chain(others.flat_map(|all| all.extract_if(.., |one| is_its(one))))
        {
            out.send(seat, Control::Refused { publisher, subscriber, slot, nonce });
        }
        tell_attention(relay, out);
        self.go_on(publisher, out);
    }

    /// Whether somebody at an edge looks at a publisher of another cluster.
    pub fn attention(&mut self, publisher: UserId, at: Destination, active: bool, out: &mut Outbox) {
        let Some(relay) = self.relays.get_mut(&publisher).filter(|relay| relay.outbound.contains(&at)) else { return };
        relay.unheeded.retain(|destination| *destination != at);
        if !active {
            relay.unheeded.push(at);
        }
        tell_attention(relay, out);
    }

    /// Whose approvals have been taken back, by a snapshot that is about to be taken over.
    pub fn revoked_by(&self, snapshot: &Snapshot) -> Vec<UserId> {
        let Some(relay) = self.relays.get(&snapshot.publisher) else { return Vec::new() };
        let revoked = snapshot.revoked.iter().copied();
        revoked.filter(|&user| user != snapshot.subscriber && !relay.ask_first.must_ask(user)).collect()
    }

    /// The home has approved a subscriber, or whoever was approved before, and tells the publisher's state.
    pub fn snapshot(&mut self, now: Time, snapshot: Snapshot, edge: &mut Edge, out: &mut Outbox) {
        let Snapshot { publisher, jid, subscriber, nonce, events, revoked, .. } = snapshot;
        let Some(relay) = self.relays.get_mut(&publisher) else { return };
        relay.ask_first.approved(subscriber, &revoked);
        relay.jid = Some(jid);
        relay.grant = Grant::Given;
        catch_up(relay, now, &events, &mut self.counters, edge, out);
        if let Some(at) = relay.asked.iter().position(|(asked, _)| *asked == nonce) {
            let (_, question) = relay.asked.swap_remove(at);
            relay.owe(question);
        }
        for question in std::mem::take(&mut relay.waiting) {
            match relay.ask_first.must_ask(question.subscriber) {
                true => ask(relay, question, &mut self.next_nonce, out),
                false => relay.owe(question),
            }
        }
        answer_owed(relay, out);
        self.go_on(publisher, out);
    }

    /// The home has not approved a subscriber.
    pub fn refused(&mut self, publisher: UserId, nonce: u32, out: &mut Outbox) {
        let Some(relay) = self.relays.get_mut(&publisher) else { return };
        let Some(at) = relay.asked.iter().position(|(asked, _)| *asked == nonce) else {
            relay.in_question = false;
            return;
        };
        let (_, Question { subscriber, seat, slot, nonce, .. }) = relay.asked.swap_remove(at);
        out.send(seat, Control::Refused { publisher, subscriber, slot, nonce });
        self.go_on(publisher, out);
    }

    /// Whether a publisher's update may be taken in: somebody watches it here, and it has not more than so many sessions.
    pub fn takes(&self, user: UserId, session: SessionId, most: usize) -> Option<bool> {
        let relay = self.relays.get(&user)?;
        let kept = [&relay.cache, &relay.wanted];
        let is_known = kept.iter().any(|kept| kept.of_session(session).is_some());
        Some(is_known || kept.iter().map(|kept| frame::frames(kept.bytes()).count()).sum::<usize>() < most)
    }

    /// The home has taken an approval back: every edge must know before the next update. Gives the publisher's slot at this core's
    /// own edge, which updates reach at once.
    pub fn revoke(&mut self, publisher: UserId, subscriber: UserId, out: &mut Outbox) -> Option<u32> {
        let relay = self.relays.get_mut(&publisher)?;
        relay.ask_first.add(subscriber);
        for question in relay.owed.extract_if(.., |question| question.subscriber == subscriber).collect::<Vec<_>>() {
            ask(relay, question, &mut self.next_nonce, out);
        }
        let (own, others): (Vec<_>, Vec<_>) = relay.outbound.iter().partition(|destination| destination.seat == out.map.here);
        for Destination { seat, slot } in others {
            out.send(seat, Control::Revoke { publisher, subscriber, slot });
        }
        own.first().map(|destination| destination.slot)
    }

    /// An update of a publisher of another node, as an event frame.
    pub fn update(&mut self, now: Time, frame: &[u8], edge: &mut Edge, out: &mut Outbox) {
        let head = frame::head(frame);
        let mut relay = self.relays.get_mut(&head.user).filter(|relay| relay.grant == Grant::Given);
        if let Some(relay) = relay.as_deref_mut().filter(|relay| relay.away) {
            // A home that has been asked may have said already that all the rest is as it's known here.
            match relay.in_question {
                true => {
                    relay.away = false;
                    show(relay, now, edge, out);
                }
                false => come_back(relay),
            }
        }
        let is_news = relay.as_deref_mut().is_some_and(|relay| take(relay, now, frame, &mut self.counters, edge, out));
        self.counters.stale += u64::from(!is_news);
        relay.into_iter().for_each(|relay| answer_owed(relay, out));
    }

    /// What was put off for a core while its ring was full: the newest state of a session; `None`: it's not kept any more.
    pub fn state_of(&self, user: UserId, session: SessionId, watches: impl Fn(&Destination) -> bool) -> Option<Option<&[u8]>> {
        let relay = self.relays.get(&user).filter(|relay| relay.outbound.iter().any(watches))?;
        Some(relay.cache.of_session(session).filter(|frame| !relay.away && !is_farewell(&frame::head(frame))))
    }

    /// The homes of these publishers are on this core from now on: what stood for them, in the order of their numbers.
    pub fn take(&mut self, concerns: impl Fn(UserId) -> bool) -> Vec<Relay> {
        self.users(concerns).into_iter().map(|user| self.relays.remove(&user).expect("listed")).collect()
    }

    /// A publisher's home is elsewhere from now on; those who watched it here still do.
    pub fn put(&mut self, user: UserId, jid: Bare, events: &Events, outbound: SmallVec<[Destination; 2]>) {
        if !outbound.is_empty() {
            let (cache, grant) = (Cache::of(events), Grant::Given);
            let relay = Relay { jid: Some(jid), grant, cache, outbound, ..Relay::new(user) };
            self.relays.insert(user, relay);
        }
    }

    fn users(&self, concerns: impl Fn(UserId) -> bool) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.relays.keys().copied().filter(|&user| concerns(user)).collect();
        users.sort_unstable();
        users
    }

    /// Asks what is to be asked next, or lets go of a publisher that nobody watches.
    fn go_on(&mut self, publisher: UserId, out: &mut Outbox) {
        let Some(relay) = self.relays.get_mut(&publisher) else { return };
        if relay.is_idle() {
            self.relays.remove(&publisher);
            out.send(out.map.home(publisher), Control::Unwatch { publisher, seat: out.map.here, slot: SLOT });
        } else if relay.grant == Grant::Asked && relay.asked.is_empty() {
            let question = relay.waiting.remove(0);
            self.counters.asked += 1;
            ask(relay, question, &mut self.next_nonce, out);
        }
    }
}

/// Relays are found by their publishers' numbers, not by slots.
pub const SLOT: u32 = 0;

/// Asks the home.
fn ask(relay: &mut Relay, question: Question, next_nonce: &mut u32, out: &mut Outbox) {
    *next_nonce = next_nonce.wrapping_add(1);
    relay.asked.push((*next_nonce, question));
    send_question(relay.user, question.subscriber, *next_nonce, None, out);
}

fn send_question(publisher: UserId, subscriber: UserId, nonce: u32, known: Option<u64>, out: &mut Outbox) {
    out.send(out.map.home(publisher), Control::Watch { publisher, subscriber, seat: out.map.here, slot: SLOT, nonce, known });
}

fn add_destination(relay: &mut Relay, destination: Destination, out: &mut Outbox) {
    relay.unheeded.retain(|unheeded| *unheeded != destination);
    if !relay.outbound.contains(&destination) {
        relay.outbound.push(destination);
    }
    tell_attention(relay, out);
}

/// Tells the home if nobody looks at the publisher any more, or somebody does again.
fn tell_attention(relay: &mut Relay, out: &mut Outbox) {
    let is_unheeded = !relay.outbound.is_empty() && relay.unheeded.len() == relay.outbound.len();
    if std::mem::replace(&mut relay.is_unheeded, is_unheeded) != is_unheeded {
        let (publisher, seat, active) = (relay.user, out.map.here, !is_unheeded);
        out.send(out.map.home(publisher), Control::Attention { publisher, seat, slot: SLOT, active });
    }
}

/// Answers what is owed, if all is there now.
fn answer_owed(relay: &mut Relay, out: &mut Outbox) {
    if relay.owed.is_empty() || !relay.is_whole() {
        return;
    }
    std::mem::take(&mut relay.owed).into_iter().for_each(|question| answer(relay, question, out));
}

/// Answers an edge from what is kept.
fn answer(relay: &mut Relay, question: Question, out: &mut Outbox) {
    add_destination(relay, question.destination(), out);
    let Question { subscriber, seat, slot, nonce, .. } = question;
    let mut events = Events::default();
    events.append(relay.shown());
    let (behind, revoked) = (out.updates_for(seat), relay.ask_first.users().to_vec());
    let jid = relay.jid.clone().expect("a relay that was granted its publisher knows the name");
    let snapshot = Snapshot { publisher: relay.user, jid, subscriber, slot, nonce, events, behind, revoked };
    out.send_state(seat, snapshot);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{CoreId, NodeId, Seat};
    use crate::base::limits::Limits;
    use crate::base::map::Map;
    use crate::presence::outbox::Parcel;

    #[test]
    fn z7_each_question_is_answered_also_when_the_edge_watches_no_more() {
        let mut map = Map::of_node(NodeId(1), CoreId(0), 1);
        map.cluster = 1;
        let mut out = Outbox::new(map, &Limits::default(), 1500);
        let seat = Seat { node: NodeId(2), core: CoreId(0) };
        out.peers.entry(seat.node).or_default();
        let mut relays = Relays::new(RandomState::with_seed(1));
        let (publisher, subscribers) = (UserId::new(2, 7, 1), [1, 2].map(|slot| UserId::new(1, slot, 1)));
        for (nonce, subscriber) in (1..).zip(subscribers) {
            relays.watch(publisher, Question { subscriber, seat, slot: 3, nonce, known: None }, &mut out);
        }
        relays.unwatch(publisher, Destination { seat, slot: 3 }, &mut out);
        let (parcels, _) = out.peers.get_mut(&seat.node).unwrap().take();
        let refused = parcels.into_iter().map(|parcel| match parcel {
            Parcel::Control(_, Control::Refused { subscriber, slot: 3, nonce, .. }) => (nonce, subscriber),
            _ => panic!("something else was said"),
        });
        assert_eq!(refused.collect::<Vec<_>>(), [(1, subscribers[0]), (2, subscribers[1])]);
        assert_eq!(relays.count(), 0);
    }
}
