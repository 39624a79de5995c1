//! Who watches whom at this edge: asks publishers' homes once per publisher (the log-in storm's one probe per core and
//! publisher), answers the second subscriber locally, and lets go with the last.

use super::{Edge, Grant, NO_SESSION, Publisher, TrunkGroup};
use crate::base::id::UserId;
use crate::presence::cache::Cache;
use crate::presence::control::{Control, EdgeRef, Snapshot};
use crate::presence::home::Homes;
use crate::presence::outbox::Outbox;
use smallvec::{SmallVec, smallvec};
use std::hint::black_box;
use thin_vec::ThinVec;

impl Edge {
    /// A session may see these publishers from now on. The states already known go out at once.
    pub fn interest(&mut self, edge: EdgeRef, publishers: &[UserId], homes: &Homes, out: &mut Outbox) {
        if self.get(edge).is_none() {
            return;
        }
        let mut known = Vec::new();
        let slots = self.glance_at_users(publishers);
        if let Some(session) = self.sessions[edge.slot as usize].as_mut() {
            session.watching.reserve(publishers.len());
        }
        let watches_some = self.get(edge).is_some_and(|session| !session.watching.is_empty());
        for (&user, slot) in publishers.iter().zip(slots) {
            let slot = slot.unwrap_or_else(|| self.publisher_slot(user));
            let session = self.sessions[edge.slot as usize].as_mut().expect("got above");
            let subscriber = session.home.map_or(UserId::NOBODY, |home| home.user);
            let publisher = self.publishers[slot as usize].as_mut().expect("just looked up");
            if watches_some && session.watching.contains(&slot) {
                if publisher.waiting().contains(&edge.slot) {
                    // The answer that it waits for may have been given before the publisher approved.
                    self.watch(slot, subscriber, out);
                }
                continue;
            }
            session.watching.push(slot);
            let must_ask = publisher.must_ask(subscriber);
            if publisher.grant == Grant::Given && !must_ask {
                self.counters.local_snapshots += 1;
                self.add_subscriber(slot, edge.slot, out);
                known.push(slot);
                continue;
            }
            let first = publisher.waiting().is_empty() && publisher.grant == Grant::Asked;
            publisher.pending().waiting.push(edge.slot);
            if first || must_ask {
                self.watch(slot, subscriber, out);
            }
        }
        self.send_states(edge.slot, &known, homes, out);
    }

    /// The publisher's home has answered for one subscriber; everyone who waited is served, but those it revoked.
    pub fn snapshot(&mut self, snapshot: Snapshot, homes: &Homes, out: &mut Outbox) {
        self.answered(snapshot.slot, snapshot.subscriber, snapshot.nonce);
        let elsewhere = snapshot.publisher.home(self.cores) != self.here.core;
        let is_older = |nonce: u32| snapshot.nonce.wrapping_sub(nonce) > u32::MAX / 2;
        let Some(publisher) = self.publisher(snapshot.slot, snapshot.publisher).filter(|p| !is_older(p.nonce)) else {
            self.counters.stale_updates += 1;
            return;
        };
        let first = publisher.grant == Grant::Asked;
        publisher.grant = Grant::Given;
        let pending = publisher.pending();
        pending.ask_first.approved(snapshot.subscriber, &snapshot.revoked);
        let waiting = std::mem::take(&mut pending.waiting);
        // A later snapshot tells nothing that the updates don't: were it kept, an update that comes behind it would seem to be an
        // old one, and those who subscribe already would not hear of it.
        if first && elsewhere {
            publisher.cache = Cache::of(&snapshot.events);
            if snapshot.behind > 0 {
                self.behind.insert(snapshot.slot, snapshot.behind);
            }
        }
        self.learn_name(snapshot.publisher, snapshot.jid);
        for session_slot in waiting {
            let user = self.subscriber_of(session_slot);
            let publisher = self.publisher(snapshot.slot, snapshot.publisher).expect("got above");
            if user == snapshot.subscriber || (first && !publisher.must_ask(user)) {
                self.add_subscriber(snapshot.slot, session_slot, out);
                self.send_states(session_slot, &[snapshot.slot], homes, out);
            } else {
                self.publisher(snapshot.slot, snapshot.publisher).expect("got above").pending().waiting.push(session_slot);
                if first {
                    self.watch(snapshot.slot, user, out);
                }
            }
        }
        if let Some(publisher) = self.publisher(snapshot.slot, snapshot.publisher) {
            publisher.tidy();
        }
    }

    /// The publisher does not know this subscriber: its sessions wait no longer, unless they have asked again since. If others
    /// wait, one of them asks.
    pub fn refused(&mut self, slot: u32, nonce: u32, user: UserId, subscriber: UserId, out: &mut Outbox) {
        if !self.answered(slot, subscriber, nonce) || self.publisher(slot, user).is_none() {
            return;
        }
        for session_slot in self.sessions_of(slot, subscriber) {
            self.unwatch(session_slot, slot, out);
        }
        let Some(publisher) = self.publisher(slot, user) else { return };
        if publisher.grant == Grant::Asked
            && let Some(&next) = publisher.waiting().first()
        {
            let next = self.subscriber_of(next);
            self.watch(slot, next, out);
        }
    }

    /// The publisher took its approval back (or blocked the subscriber): nothing of it reaches the subscriber any more, and the
    /// subscriber's sessions are told that it's gone. They wait until their own home says so too, or the publisher that it has
    /// approved again meanwhile: the word of that may have come here first.
    pub fn revoke(&mut self, slot: u32, user: UserId, subscriber: UserId, homes: &Homes, out: &mut Outbox) {
        let Some(publisher) = self.publisher(slot, user) else { return };
        publisher.pending().ask_first.add(subscriber);
        let sessions = self.sessions_of(slot, subscriber);
        for &session_slot in &sessions {
            self.send_farewells(session_slot, slot, homes, out);
            self.set_waiting(slot, session_slot);
        }
        if !sessions.is_empty() {
            self.watch(slot, subscriber, out);
        }
    }

    /// A session's own home says that it may not see a publisher any more.
    pub fn uninterest(&mut self, edge: EdgeRef, user: UserId, homes: &Homes, out: &mut Outbox) {
        let Some(&slot) = self.by_user.get(&user) else { return };
        let Some(session) = self.get(edge) else { return };
        if session.watching.contains(&slot) {
            self.send_farewells(edge.slot, slot, homes, out);
            self.unwatch(edge.slot, slot, out);
        }
    }

    /// A session wants to be told again what is known of a publisher. One whose grant has not come yet is told with the grant.
    pub fn probed(&mut self, edge: EdgeRef, user: UserId, homes: &Homes, out: &mut Outbox) {
        let (Some(&slot), Some(session)) = (self.by_user.get(&user), self.get(edge)) else { return };
        let waits = self.publishers[slot as usize].as_ref().is_none_or(|publisher| publisher.waiting().contains(&edge.slot));
        if session.watching.contains(&slot) && !waits {
            self.send_states(edge.slot, &[slot], homes, out);
        }
    }

    /// A session is not available any more: it sees nobody.
    pub fn uninterest_all(&mut self, edge: EdgeRef, out: &mut Outbox) {
        if self.get(edge).is_some() {
            self.unwatch_all(edge.slot, out);
        }
    }

    pub(super) fn unwatch_all(&mut self, session_slot: u32, out: &mut Outbox) {
        let watching = std::mem::take(&mut self.sessions[session_slot as usize].as_mut().expect("an open session").watching);
        for slot in watching {
            self.remove_subscriber(slot, session_slot, out);
        }
    }

    fn unwatch(&mut self, session_slot: u32, slot: u32, out: &mut Outbox) {
        let session = self.sessions[session_slot as usize].as_mut().expect("a watching session is open");
        session.watching.retain(|&watched| watched != slot);
        self.remove_subscriber(slot, session_slot, out);
    }

    /// Asks a publisher's home about a subscriber. It answers each question once.
    fn watch(&mut self, slot: u32, subscriber: UserId, out: &mut Outbox) {
        self.next_nonce = self.next_nonce.wrapping_add(1);
        let (nonce, seat) = (self.next_nonce, out.map.here);
        self.asked.insert((slot, subscriber), nonce);
        let publisher = self.publishers[slot as usize].as_ref().expect("a watched publisher is kept").user;
        out.send(out.map.near(publisher), Control::Watch { publisher, subscriber, seat, slot, nonce, known: None });
    }

    /// Whether an answer is to the latest question about a subscriber.
    fn answered(&mut self, slot: u32, subscriber: UserId, nonce: u32) -> bool {
        let latest = self.asked.get(&(slot, subscriber)) == Some(&nonce);
        if latest {
            self.asked.remove(&(slot, subscriber));
        }
        latest
    }

    fn subscriber_of(&self, session_slot: u32) -> UserId {
        let session = self.sessions[session_slot as usize].as_ref().expect("a listed session is open");
        session.home.map_or(UserId::NOBODY, |home| home.user)
    }

    /// The publisher in a slot, if it's still this one.
    pub(super) fn publisher(&mut self, slot: u32, user: UserId) -> Option<&mut Publisher> {
        self.publishers.get_mut(slot as usize)?.as_mut().filter(|publisher| publisher.user == user)
    }

    /// Reads the records of these publishers, for the cache. Gives the slots of those that are watched already.
    fn glance_at_users(&self, publishers: &[UserId]) -> Vec<Option<u32>> {
        let slots: Vec<_> = publishers.iter().map(|user| self.by_user.get(user).copied()).collect();
        black_box(slots.iter().flatten().fold(0, |seen, &slot| seen ^ self.glance(slot)));
        slots
    }

    fn publisher_slot(&mut self, user: UserId) -> u32 {
        if let Some(&slot) = self.by_user.get(&user) {
            return slot;
        }
        self.next_nonce = self.next_nonce.wrapping_add(1);
        let publisher = Publisher {
            user,
            nonce: self.next_nonce,
            grant: Grant::Asked,
            direct: SmallVec::new(),
            trunks: ThinVec::new(),
            cache: Cache::default(),
            pending: None,
        };
        let slot = match self.free_publishers.pop() {
            Some(slot) => {
                self.publishers[slot as usize] = Some(publisher);
                slot
            }
            None => {
                self.publishers.push(Some(publisher));
                (self.publishers.len() - 1) as u32
            }
        };
        self.by_user.insert(user, slot);
        slot
    }

    fn add_subscriber(&mut self, slot: u32, session_slot: u32, out: &mut Outbox) {
        let session = self.sessions[session_slot as usize].as_ref().expect("an open session subscribes");
        let (conn, stream) = (session.conn.slot, session.stream);
        let publisher = self.publishers[slot as usize].as_mut().expect("a watched publisher is kept");
        if stream == 0 {
            publisher.direct.push(conn);
        } else if let Some(group) = publisher.trunks.iter_mut().find(|group| group.conn == conn) {
            group.streams.push(stream);
        } else {
            publisher.trunks.push(TrunkGroup { conn, streams: smallvec![stream] });
        }
        if stream != 0 || !out.lines.is_held(conn) {
            self.heed(slot, out);
        }
    }

    /// Takes a session out of a publisher's lists; with the last one the publisher goes too.
    fn remove_subscriber(&mut self, slot: u32, session_slot: u32, out: &mut Outbox) {
        self.take_out(slot, session_slot);
        let publisher = self.publishers[slot as usize].as_ref().expect("a watched publisher is kept");
        if !publisher.is_watched() {
            let user = publisher.user;
            self.publishers[slot as usize] = None;
            self.free_publishers.push(slot);
            self.by_user.remove(&user);
            self.unheed(slot);
            self.name_gone(user);
            out.send(out.map.near(user), Control::Unwatch { publisher: user, seat: out.map.here, slot });
        }
    }

    /// A session that was granted a publisher waits for another grant.
    fn set_waiting(&mut self, slot: u32, session_slot: u32) {
        self.take_out(slot, session_slot);
        self.publishers[slot as usize].as_mut().expect("a watched publisher is kept").pending().waiting.push(session_slot);
    }

    fn take_out(&mut self, slot: u32, session_slot: u32) {
        let session = self.sessions[session_slot as usize].as_ref().expect("an open session");
        let (conn, stream) = (session.conn.slot, session.stream);
        let publisher = self.publishers[slot as usize].as_mut().expect("a watched publisher is kept");
        if let Some(pending) = &mut publisher.pending {
            pending.waiting.retain(|&waiting| waiting != session_slot);
        }
        let mut last_of_conn = stream == 0;
        if stream == 0 {
            if let Some(at) = publisher.direct.iter().position(|&direct| direct == conn) {
                publisher.direct.swap_remove(at);
            }
        } else if let Some(at) = publisher.trunks.iter().position(|group| group.conn == conn) {
            let streams = &mut publisher.trunks[at].streams;
            if let Some(at) = streams.iter().position(|&s| s == stream) {
                streams.swap_remove(at);
            }
            if streams.is_empty() {
                publisher.trunks.swap_remove(at);
                last_of_conn = true;
            }
        }
        if let Some(put_off) = self.put_off.get_mut(&conn).filter(|_| last_of_conn) {
            put_off.publishers.remove(&slot);
        }
    }

    /// The sessions of a user that are in a publisher's lists, granted or waiting.
    fn sessions_of(&self, slot: u32, subscriber: UserId) -> Vec<u32> {
        let publisher = self.publishers[slot as usize].as_ref().expect("a watched publisher is kept");
        let direct = publisher.direct.iter().filter_map(|&conn| self.session_of_conn(conn));
        let mut found: Vec<u32> =
            direct.chain(publisher.waiting().iter().copied()).filter(|&s| self.subscriber_of(s) == subscriber).collect();
        for group in &publisher.trunks {
            let sessions = group.streams.iter().filter_map(|&stream| self.session_of_stream(group.conn, stream));
            found.extend(sessions.filter(|&s| self.subscriber_of(s) == subscriber));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The invariants of this table; the simulator calls it after every step.
    pub fn check(&self) {
        for (slot, publisher) in self.publishers.iter().enumerate().filter_map(|(slot, p)| Some((slot as u32, p.as_ref()?))) {
            assert_eq!(self.by_user.get(&publisher.user), Some(&slot), "a publisher is found under its number");
            for &conn in &publisher.direct {
                let session = self.session_of_conn(conn).expect("a subscriber's connection carries a session");
                assert!(self.sessions[session as usize].as_ref().is_some_and(|s| s.watching.contains(&slot)), "both lists agree");
            }
            assert!(publisher.is_watched(), "a publisher is watched");
        }
        for session in self.sessions.iter().flatten() {
            for &slot in &session.watching {
                let publisher = self.publishers[slot as usize].as_ref().expect("a watched publisher is kept");
                let waiting = publisher
                    .waiting()
                    .iter()
                    .any(|&s| self.sessions[s as usize].as_ref().is_some_and(|w| w.generation == session.generation));
                let granted = match session.stream {
                    0 => publisher.direct.contains(&session.conn.slot),
                    stream => publisher.trunks.iter().any(|g| g.conn == session.conn.slot && g.streams.contains(&stream)),
                };
                assert!(waiting != granted, "a watcher waits or is granted, not both");
            }
        }
        assert!(self.by_conn.iter().all(|&slot| slot == NO_SESSION || self.sessions[slot as usize].is_some()));
    }
}
