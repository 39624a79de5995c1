//! Connections whose peers don't speak native frames: what comes passes their translators, and so does what goes.
//!
//! Lives on: every core; a translator moves with its connection. Serves C8, G6. Invariants: what a translator makes of its peer's
//! bytes goes the way of native frames, with the same rules; a connection without a translator pays one look at a table.

use super::Shard;
use super::connection::Doorway;
use crate::base::id::{ConnId, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::sealing::Sealing;
use crate::base::time::Time;
use crate::front::json;
use crate::front::native::Door;
use crate::front::translate::{Channel, Core, Next, Translate, Users};
use crate::front::xmpp::Memory;
use crate::presence::edge::Edge;
use crate::wire::form::Form;
use crate::wire::frame::each_whole;
use crate::wire::link::Site;
use std::time::Duration;

/// The translators of a core's connections, and buffers that they share.
#[derive(Default)]
pub(super) struct Translators {
    /// By slot of the connection; shorter than the connections where no translator is.
    by_slot: Vec<Option<Box<dyn Translate>>>,
    frames: Vec<u8>,
    replies: Vec<u8>,
    /// A buffer whose content has been translated, for the next that is.
    spare: Vec<u8>,
    xmpp: Memory,
    json: json::Memory,
}

/// Longest buffer kept for the next use, in bytes.
const KEPT_BYTES: usize = 1 << 16;

/// How long a busy core keeps an answer that nobody waits for, so that it shares a send with what else comes.
const COMPANY: Duration = Duration::from_millis(10);

/// What a translator has asked for.
pub(super) struct After {
    end: Option<Reason>,
    /// Why another node's TLS has failed.
    fault: Option<String>,
    /// Replies that can wait.
    unhurried: usize,
}

impl Translators {
    pub fn set(&mut self, conn: ConnId, translator: Option<Box<dyn Translate>>) {
        let slot = conn.slot as usize;
        if translator.is_some() && self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.by_slot.get_mut(slot) {
            *place = translator;
        }
    }

    #[inline]
    pub fn has(&self, slot: u32) -> bool {
        self.by_slot.get(slot as usize).is_some_and(Option::is_some)
    }

    pub fn take(&mut self, slot: u32) -> Option<Box<dyn Translate>> {
        self.by_slot.get_mut(slot as usize)?.take()
    }

    /// What the connection is given to say next is the last.
    pub fn end(&mut self, slot: u32) {
        if let Some(translator) = self.by_slot.get_mut(slot as usize).and_then(Option::as_mut) {
            translator.ending();
        }
    }

    /// For how many milliseconds at most a peer whose connection breaks can come back to its session.
    pub fn resumable_ms(&self, slot: u32) -> u32 {
        let translator = self.by_slot.get(slot as usize).and_then(Option::as_ref);
        translator.map_or(u32::MAX, |translator| translator.resumable_ms())
    }

    /// About the microseconds that a handshake may take with a connection's next bytes; 0: none is to come.
    pub fn handshake_us(&self, slot: u32) -> u32 {
        let translator = self.by_slot.get(slot as usize).and_then(Option::as_ref);
        translator.map_or(0, |translator| translator.handshake_us())
    }

    /// How a connection's events are to stand on its line.
    pub fn form(&self, slot: u32) -> Form {
        let translator = self.by_slot.get(slot as usize).and_then(Option::as_ref);
        translator.map_or(Form::Native, |translator| translator.form())
    }

    /// Stanzas that the XMPP door has refused by itself, for its own limits.
    pub fn stanzas_refused(&self) -> u64 {
        self.xmpp.refused
    }

    /// Whether a connection's peer can be this node. One that need not prove it can be any.
    pub fn is_peer(&self, slot: u32, site: Site) -> bool {
        let translator = self.by_slot.get(slot as usize).and_then(Option::as_ref);
        translator.is_none_or(|translator| translator.is_peer(site))
    }

    /// What lies between a connection and its peer.
    pub fn channel(&self, slot: u32) -> Channel {
        let translator = self.by_slot.get(slot as usize).and_then(Option::as_ref);
        translator.map_or(Channel::Clear, |translator| translator.channel())
    }
}

impl Users for Edge {
    fn jid(&self, user: UserId) -> Option<&Bare> {
        self.name(user)
    }
}

impl Shard {
    /// Bytes of a peer that has a translator.
    pub(super) fn received_foreign(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let Some(mut translator) = self.translators.take(conn.slot) else { return };
        let mut frames = std::mem::take(&mut self.translators.frames);
        let mut replies = std::mem::take(&mut self.translators.replies);
        let mut follow = Vec::new();
        let (read, after) = self.lend(now, &mut follow, |core| translator.received(bytes, core, &mut frames, &mut replies));
        self.translators.set(conn, Some(translator));
        if !replies.is_empty() {
            // What is answered here reaches no door, and counts all the same.
            let count = each_whole(&replies).count();
            self.count_taken(conn, count as u32);
            match count == after.unhurried {
                true => self.out.lines.append_patiently(conn.slot, &replies, now + COMPANY),
                false => self.out.lines.append(conn.slot, &replies),
            }
        }
        if read == Ok(Next::Private) && self.hears(conn) {
            self.set_door(conn, Doorway::Here(Door::default()));
        }
        if !frames.is_empty() {
            self.received_native(now, conn, &frames);
        }
        if let Err(reason) = read
            && self.hears(conn)
            && !self.link_broken(now, conn, after.fault)
        {
            self.end_connection(conn, reason, "");
        }
        self.translators.frames = emptied(frames);
        self.translators.replies = emptied(replies);
    }

    /// What was gathered for a connection, in its peer's words. The driver gives it back to the lines once it's sent.
    #[inline]
    pub fn take(&mut self, now: Time, slot: u32) -> Option<Vec<u8>> {
        let gathered = self.out.lines.take(slot)?;
        if self.translators.has(slot) { self.take_foreign(now, slot, gathered) } else { Some(gathered) }
    }

    /// What the kernel needs to encrypt everything that this connection sends behind what was just taken.
    #[inline]
    pub fn take_sealing(&mut self) -> Option<Box<Sealing>> {
        self.sealing.take()
    }

    fn take_foreign(&mut self, now: Time, slot: u32, gathered: Vec<u8>) -> Option<Vec<u8>> {
        let mut translator = self.translators.take(slot).expect("the caller looked");
        let mut said = std::mem::take(&mut self.translators.spare);
        let mut follow = std::mem::take(&mut self.translators.frames);
        let ((), after) = self.lend(now, &mut follow, |core| translator.send(&gathered, core, &mut said));
        self.translators.by_slot[slot as usize] = Some(translator);
        self.translators.spare = emptied(gathered);
        self.follow_up(now, slot, &follow, after.end);
        self.translators.frames = emptied(follow);
        if said.is_empty() {
            // There was nothing in it for this peer.
            self.out.lines.sent(slot, said);
            return None;
        }
        Some(said)
    }

    /// What follows from words that go out.
    fn follow_up(&mut self, now: Time, slot: u32, frames: &[u8], end: Option<Reason>) {
        let generation = self.connections[slot as usize].as_ref().map(|connection| connection.generation);
        let Some(conn) = generation.map(|generation| ConnId { slot, generation }) else { return };
        if !frames.is_empty() {
            self.received_native(now, conn, frames);
        }
        if let Some(reason) = end
            && self.hears(conn)
            && !self.link_broken(now, conn, None)
        {
            self.end_connection(conn, reason, "");
        }
        if !frames.is_empty() || end.is_some() {
            self.work_off(now);
        }
    }

    /// A connection has ended.
    pub(super) fn translator_lost(&mut self, now: Time, conn: ConnId) {
        if let Some(mut translator) = self.translators.take(conn.slot) {
            self.lend(now, &mut Vec::new(), |core| translator.lost(core));
        }
    }

    pub(super) fn lend<T>(&mut self, now: Time, follow: &mut Vec<u8>, work: impl FnOnce(&mut Core<'_>) -> T) -> (T, After) {
        let secrets = &mut self.secrets;
        let mut random = || u64::from_le_bytes(*secrets.bytes16().first_chunk().expect("sixteen bytes"));
        let uptime_ms = now.since(*self.started.get_or_insert(now)) / 1_000_000;
        let (wall_ms, users, translators) = (self.homes.place.wall(now).0, &self.edge, &mut self.translators);
        let (xmpp, json) = (&mut translators.xmpp, &mut translators.json);
        let mut core = Core { wall_ms, uptime_ms, ..Core::lending(&mut random, users, (xmpp, json), follow) };
        let done = work(&mut core);
        let (after, sealing) = (After { end: core.end, fault: core.fault, unhurried: core.unhurried }, core.sealing);
        self.sealing = sealing.or(self.sealing.take());
        (done, after)
    }
}

fn emptied(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    if buffer.capacity() > KEPT_BYTES { Vec::new() } else { buffer }
}
