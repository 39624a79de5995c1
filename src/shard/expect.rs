//! What the next updates will look at is read ahead of them, so that its cache misses overlap.
//!
//! Lives on: every core. Serves G1, G2. An update leads from its connection to the session, to the user, to the publisher's record,
//! to its subscribers' lines, each telling where the next one is: with a million users that is a chain of misses. Taken step
//! by step for many updates at a time, the misses of a step are under way together. Invariant: nothing happens here, and
//! nothing later depends on it.

use super::Shard;
use crate::base::id::{ConnId, UserId};
use crate::presence::edge::{Edge, NO_SESSION};
use crate::presence::frame;
use crate::presence::outbox::UpdateEntry;
use crate::wire::frame::Chunk;
use std::hint::black_box;

/// Updates looked at together: more than a processor's ten or so misses at once, few enough to stay in the first cache.
pub const EXPECTED: usize = 32;

/// Places of records, one for each expected update. `NOWHERE`: there's none.
type Places = [u32; EXPECTED];
const NOWHERE: u32 = NO_SESSION;

impl Shard {
    /// Something of these connections is about to be read. Looks at the first [`EXPECTED`] of them.
    pub fn expect(&self, conns: &[ConnId]) {
        let mut sessions = [NOWHERE; EXPECTED];
        let mut seen = 0;
        for (session, conn) in sessions.iter_mut().zip(conns) {
            let slot = conn.slot as usize;
            seen ^= self.connections.get(slot).and_then(Option::as_ref).map_or(0, |connection| connection.generation);
            *session = self.edge.session_slot(conn.slot);
        }
        black_box(seen);
        self.expect_sessions(sessions);
    }

    /// These frames of a trunk are about to be read.
    pub(super) fn expect_streams(&self, conn: ConnId, chunk: &Chunk<'_>) {
        let mut sessions = [NOWHERE; EXPECTED];
        for (session, stream) in sessions.iter_mut().zip(chunk.streams()) {
            *session = self.edge.stream_slot(conn.slot, stream);
        }
        self.expect_sessions(sessions);
    }

    fn expect_sessions(&self, mut places: Places) {
        let here = |place: u32| place != NOWHERE;
        for place in places.iter_mut().filter(|place| here(**place)) {
            let home = self.edge.at_slot(*place).and_then(|session| session.home);
            *place = home.filter(|home| self.out.map.home(home.user) == self.out.map.here).map_or(NOWHERE, |home| home.slot);
        }
        let mut seen = 0;
        for &place in places.iter().filter(|place| here(**place)) {
            seen ^= self.homes.glance(place);
        }
        for place in places.iter_mut().filter(|place| here(**place)) {
            seen ^= self.homes.glance_at_session(*place);
            *place = self.homes.publisher_slot(*place, self.out.map.here).unwrap_or(NOWHERE);
        }
        black_box(seen);
        self.expect_publishers(places);
    }

    /// These updates of another core are about to be read.
    pub(super) fn expect_updates<'a>(&self, updates: impl Iterator<Item = UpdateEntry<'a>>) {
        let mut publishers = [NOWHERE; EXPECTED];
        for (publisher, update) in publishers.iter_mut().zip(updates) {
            *publisher = update.slot;
        }
        self.expect_publishers(publishers);
    }

    /// These updates of publishers of other nodes, as event frames, are about to be read.
    pub(super) fn expect_events<'a>(&self, events: impl Iterator<Item = &'a [u8]>) {
        let (mut users, mut publishers) = ([UserId::NOBODY; EXPECTED], [NOWHERE; EXPECTED]);
        for (user, event) in users.iter_mut().zip(events) {
            *user = frame::head(event).user;
        }
        let relays = &self.homes.relays;
        for (publisher, &user) in publishers.iter_mut().zip(&users) {
            *publisher = relays.glance(user, self.out.map.here).unwrap_or(NOWHERE);
        }
        black_box(users.iter().fold(0, |seen, &user| seen ^ relays.glance_at_state(user)));
        self.expect_publishers(publishers);
    }

    fn expect_publishers(&self, places: Places) {
        let mut seen = 0;
        for step in [Edge::glance, Edge::glance_at_cache] {
            for &place in places.iter().filter(|place| **place != NOWHERE) {
                seen ^= step(&self.edge, place);
            }
        }
        for &place in places.iter().filter(|place| **place != NOWHERE) {
            seen ^= self.edge.glance_at_lines(place, &self.out.lines);
        }
        black_box(seen);
    }
}
