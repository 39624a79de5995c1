//! Delivery to the sessions of this edge: the same bytes to every subscriber (G2), the newest state only to those that are slow.

use super::{Edge, Rest};
use crate::base::id::{ConnId, UserId};
use crate::presence::cache::News;
use crate::presence::control::Control;
use crate::presence::frame::{self, Events, is_farewell};
use crate::presence::home::Homes;
use crate::presence::missed::{Ended, Missed};
use crate::presence::outbox::Outbox;
use crate::wire::lines::Lines;
use smallvec::SmallVec;
use std::hint::black_box;

/// Sessions of one publisher that may end while one connection is slow; at the limit the connection is ended, since it could not
/// be told of all.
const FAREWELLS_PER_PUBLISHER: usize = 64;

/// Lines that are looked at together before something is appended to them.
const TOGETHER: usize = 16;

impl Edge {
    /// An update of a publisher of this core goes to its subscribers here.
    #[inline]
    pub fn fan_out(&mut self, slot: u32, user: UserId, frame: &[u8], news: News, lines: &mut Lines) {
        self.deliver(slot, user, frame, lines);
        if !self.slow.is_empty() {
            self.put_off(slot, frame, news, lines);
        }
    }

    /// To all who are not slow. What the update is to the others is not known here: a word more to keep costs an instruction for
    /// each delivery.
    fn deliver(&mut self, slot: u32, user: UserId, frame: &[u8], lines: &mut Lines) {
        let Some(publisher) = self.publishers.get(slot as usize).and_then(Option::as_ref).filter(|p| p.user == user) else {
            self.counters.stale_updates += 1;
            return;
        };
        let mut delivered = publisher.direct.len();
        self.forms.begin();
        for conns in publisher.direct.chunks(TOGETHER) {
            // All misses of these lines at once, before the first waits for its own.
            black_box(conns.iter().fold(0, |seen, &conn| seen ^ lines.glance(conn)));
            for &conn in conns {
                if lines.is_slow(conn) {
                    self.slow.push(conn);
                    continue;
                }
                lines.append(conn, self.forms.get(lines.form(conn), frame, self.names.as_ref()));
            }
        }
        for group in &publisher.trunks {
            if lines.is_slow(group.conn) {
                self.slow.push(group.conn);
                continue;
            }
            delivered += group.streams.len();
            if let Some(gathered) = lines.gather(group.conn, frame::addressed_len(frame, group.streams.len())) {
                frame::append_addressed(gathered, frame, &group.streams);
            }
        }
        self.counters.deliveries += delivered as u64;
    }

    /// Whether the update with this number in the batch that is being read is older than the snapshot of a new record. It was meant
    /// for an earlier record of the same publisher in the same slot.
    #[inline]
    pub fn is_behind(&self, slot: u32, number: usize) -> bool {
        !self.behind.is_empty() && self.behind.get(&slot).is_some_and(|&older| number < older)
    }

    /// A batch of another core was read to its end.
    pub fn batch_read(&mut self) {
        self.behind.clear();
    }

    /// The same for a publisher of another core, whose state is kept for those who subscribe later.
    pub fn fan_out_remote(&mut self, slot: u32, frame: &[u8], lines: &mut Lines) {
        let head = frame::head(frame);
        let news = self.publisher(slot, head.user).map_or(News::Old, |publisher| publisher.cache.put(&head, frame));
        if news == News::Old {
            self.counters.stale_updates += 1;
            return;
        }
        self.fan_out(slot, head.user, frame, news, lines);
    }

    /// Remembers for each connection that was slow before this update that the publisher has news. Those that carry a session of
    /// their own were counted as told.
    #[cold]
    fn put_off(&mut self, slot: u32, frame: &[u8], news: News, lines: &mut Lines) {
        let slow = std::mem::take(&mut self.slow);
        for &conn in &slow {
            self.counters.conflated += 1;
            let missed = self.put_off.entry(conn).or_default().publishers.entry(slot).or_default();
            missed.note(frame, news == News::Coming);
            if missed.ended().len() > FAREWELLS_PER_PUBLISHER {
                self.counters.farewells_overrun += 1;
                lines.give_up(conn);
            }
        }
        let publisher = self.publishers[slot as usize].as_ref().expect("fan-out found it");
        let direct = slow.iter().filter(|conn| publisher.direct.contains(conn)).count();
        self.slow = slow;
        self.slow.clear();
        self.counters.deliveries -= direct as u64;
    }

    /// A slow connection has sent all it had: what was put off for it goes out, newest states only, until it's slow again.
    pub fn drained(&mut self, conn: ConnId, homes: &Homes, out: &mut Outbox) {
        for rest in self.rests.remove(&conn.slot).into_iter().flatten() {
            self.ask_for_rest(rest, out);
        }
        let Some(mut put_off) = self.put_off.remove(&conn.slot) else { return };
        while !out.lines.is_slow(conn.slot)
            && let Some((slot, missed)) = put_off.take_next()
        {
            self.send_put_off(conn.slot, slot, missed.ended(), homes, out);
        }
        if !put_off.publishers.is_empty() {
            self.put_off.insert(conn.slot, put_off);
        }
    }

    fn send_put_off(&mut self, conn: u32, slot: u32, farewells: &[Ended], homes: &Homes, out: &mut Outbox) {
        let mut events = Events::default();
        self.states_of(slot, homes, &mut events);
        let publisher = self.publishers[slot as usize].as_ref().expect("a freed publisher is put off for nobody");
        for ended in farewells {
            if !events.iter().map(frame::head).any(|head| head.session == ended.session && !is_farewell(&head)) {
                ended.tell(publisher.user, &mut events);
            }
        }
        let group = publisher.trunks.iter().find(|group| group.conn == conn);
        for frame in events.iter() {
            match group {
                None => out.lines.append(conn, frame),
                Some(group) => {
                    if let Some(gathered) = out.lines.gather(conn, frame::addressed_len(frame, group.streams.len())) {
                        frame::append_addressed(gathered, frame, &group.streams);
                    }
                }
            }
        }
        self.counters.deliveries += (events.iter().count() * group.map_or(1, |group| group.streams.len())) as u64;
    }

    /// A piece of something has gone out: the next one is asked for now, or when a slow connection has read this one.
    pub fn goes_on(&mut self, rest: Rest, out: &mut Outbox) {
        let Some(session) = self.get(rest.asker.edge) else { return };
        match out.lines.is_behind(session.conn.slot) {
            true => self.rests.entry(session.conn.slot).or_default().push(rest),
            false => self.ask_for_rest(rest, out),
        }
    }

    fn ask_for_rest(&self, Rest { asker, ask }: Rest, out: &mut Outbox) {
        if let Some(home) = self.get(asker.edge).and_then(|session| session.home.as_ref()) {
            out.send(out.map.home(home.user), Control::Ask { at: home.at(), session: home.session, asker, ask });
        }
    }

    /// Sends one session the states of publishers it may now see, in batches; those for which it is too slow, later.
    pub(super) fn send_states(&mut self, session_slot: u32, publishers: &[u32], homes: &Homes, out: &mut Outbox) {
        let Some(conn) = self.at_slot(session_slot).map(|session| session.conn.slot) else { return };
        let mut events = std::mem::take(&mut self.scratch);
        for slots in publishers.chunks(TOGETHER) {
            let at_home = self.glance_at_states(slots, homes);
            for (&slot, at_home) in slots.iter().zip(at_home) {
                if out.lines.is_slow(conn) {
                    self.counters.conflated += 1;
                    self.put_off.entry(conn).or_default().publishers.entry(slot).or_default();
                    continue;
                }
                match at_home {
                    Some(user) => homes.events_at(user, &mut events),
                    None => self.states_of(slot, homes, &mut events),
                }
                if events.bytes().len() >= homes.place.limits.piece_bytes as usize {
                    self.send_events(session_slot, &events, out);
                    events.clear();
                }
            }
        }
        self.send_events(session_slot, &events, out);
        events.clear();
        self.scratch = events;
    }

    /// Sends event frames to one session.
    pub fn send_events(&mut self, session_slot: u32, events: &Events, out: &mut Outbox) {
        let Some(session) = self.at_slot(session_slot) else { return };
        let (conn, stream) = (session.conn.slot, session.stream);
        let count = events.iter().count();
        self.counters.deliveries += count as u64;
        match count {
            0 => {}
            1 if stream == 0 => out.lines.append(conn, events.bytes()),
            _ => {
                if let Some(gathered) = out.lines.gather(conn, frame::batch_len(events.bytes())) {
                    frame::batch(gathered, stream, events.bytes());
                }
            }
        }
    }

    /// Tells a session that all sessions of a publisher have gone, those among them that it was not told of while it was slow.
    /// One that still waits for the publisher's leave knows of none.
    pub(super) fn send_farewells(&mut self, session_slot: u32, slot: u32, homes: &Homes, out: &mut Outbox) {
        if self.publishers[slot as usize].as_ref().is_none_or(|publisher| publisher.waiting().contains(&session_slot)) {
            return;
        }
        let mut states = Events::default();
        self.states_of(slot, homes, &mut states);
        let mut gone: Vec<Ended> = states.iter().filter(|state| !is_farewell(&frame::head(state))).map(Ended::of).collect();
        let conn = self.at_slot(session_slot).map(|session| session.conn.slot);
        if let Some(put_off) = conn.and_then(|conn| self.put_off.get(&conn)) {
            let ended = put_off.publishers.get(&slot).into_iter().flat_map(Missed::ended);
            let ended: Vec<_> = ended.filter(|ended| gone.iter().all(|other| other.session != ended.session)).cloned().collect();
            gone.extend(ended);
        }
        let user = self.publishers[slot as usize].as_ref().expect("a watched publisher is kept").user;
        let mut farewells = Events::default();
        gone.iter().for_each(|ended| ended.tell(user, &mut farewells));
        self.send_events(session_slot, &farewells, out);
    }

    /// The frames that tell a publisher's whole state.
    fn states_of(&self, slot: u32, homes: &Homes, events: &mut Events) {
        let publisher = self.publishers[slot as usize].as_ref().expect("a watched publisher is kept");
        if publisher.user.home(self.cores) == self.here.core {
            homes.events_of(publisher.user, events);
        } else {
            events.append(publisher.cache.bytes());
        }
    }

    /// Reads what `states_of` will read for these publishers, for the cache: the misses of a step are under way together. Gives the
    /// slots at home of those of this core.
    fn glance_at_states(&self, slots: &[u32], homes: &Homes) -> SmallVec<[Option<u32>; TOGETHER]> {
        let mut seen = 0;
        let at_home = slots.iter().map(|&slot| {
            let publisher = self.publishers[slot as usize].as_ref()?;
            seen ^= publisher.cache.glance();
            (publisher.user.home(self.cores) == self.here.core).then(|| homes.slot_of(publisher.user)).flatten()
        });
        let at_home: SmallVec<[Option<u32>; TOGETHER]> = at_home.collect();
        for step in [Homes::glance, Homes::glance_at_session, Homes::glance_at_presence] {
            seen = at_home.iter().flatten().fold(seen, |seen, &user| seen ^ step(homes, user));
        }
        black_box(seen);
        at_home
    }
}
