//! A core as the simulator drives it: what `drive` and `node::host` do for a shard, in their order, without a kernel.
//!
//! Lives on: the simulator. A turn sends, receives, takes in what others have sent, lets the shard look after time, and hands on
//! what it wants; each part does as little as was drawn. Invariants: a line's buffer is out with at most one connection; a
//! connection leaves only when everything gathered for it was sent.

use super::canaries::{repeat_first, repeat_first_farewell, repeat_first_on_link, spoil};
use super::check::Held;
use super::counts::Happening;
use super::dials::{Dialling, LINK_LISTENER};
use super::disk::Answered;
use super::links::End;
use super::owners::Known;
use super::spy::Spy;
use super::{Canary, Env};
use crate::base::id::{ConnId, CoreId, RawSocket};
use crate::base::time::Time;
use crate::presence::frame;
use crate::ring::exchange::{Inward, Outward};
use crate::shard::batch::Batch;
use crate::shard::{Answer, PasswordTask, Shard, Whose, Worked};
use crate::store::{Completion, Table, rows};
use std::collections::{BTreeMap, VecDeque};

/// Batches of one other core that are read in one turn.
const BATCHES_PER_TURN: u64 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// On its way to another core, once all is sent.
    Leaving,
    /// The shard closed it and all was sent.
    Farewell,
}

struct Conn {
    id: ConnId,
    link: i32,
    end: End,
    state: State,
    sending: Vec<u8>,
    sent: usize,
    /// For a canary: what was sent before.
    before: Vec<u8>,
}

pub struct Core {
    /// Its node.
    pub node: usize,
    pub shard: Shard,
    /// `None`: it knows all owners.
    pub(super) owners: Option<Known>,
    /// By core; `None` for this one.
    to: Vec<Option<Outward<Batch>>>,
    from: Vec<Option<Inward<Batch>>>,
    /// Until when a ring is left unread, by core.
    stalled: Vec<Time>,
    conns: BTreeMap<u32, Conn>,
    answered: VecDeque<(Time, Answered)>,
    worked: VecDeque<(Time, Whose, Worked)>,
    /// Connections to other nodes that are being made.
    pub(super) dialling: Vec<Dialling>,
    /// Lines to look at although nothing new was gathered.
    again: Vec<u32>,
    dirty: Vec<u32>,
    /// Buffers taken from lines and not given back.
    pub buffers_out: usize,
    pub answers: Vec<(u64, Answer)>,
}

impl Core {
    pub fn new(
        node: usize,
        shard: Shard,
        owners: Option<Known>,
        to: Vec<Option<Outward<Batch>>>,
        from: Vec<Option<Inward<Batch>>>,
    ) -> Core {
        Core {
            node,
            shard,
            owners,
            to,
            stalled: vec![Time::ZERO; from.len()],
            from,
            conns: BTreeMap::new(),
            answered: VecDeque::new(),
            worked: VecDeque::new(),
            dialling: Vec::new(),
            again: Vec::new(),
            dirty: Vec::new(),
            buffers_out: 0,
            answers: Vec::new(),
        }
    }

    /// A client connects. False: it was refused.
    pub fn accept(&mut self, env: &Env, link: i32) -> bool {
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        match self.shard.accepted(env.now, peer, 0) {
            None => false,
            Some(id) => {
                self.install(id, link, End::Server);
                true
            }
        }
    }

    /// Another node's words come by a connection that says no more, and is over.
    pub(super) fn hear_again(&mut self, now: Time, bytes: &[u8]) {
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        let Some(id) = self.shard.accepted(now, peer, LINK_LISTENER) else { return };
        self.shard.received(now, id, bytes);
        self.shard.lost(now, id);
        self.shard.out.lines.discard(id.slot);
        self.shard.out.lines.release(id.slot, None);
    }

    pub(super) fn install(&mut self, id: ConnId, link: i32, end: End) {
        let conn = Conn { id, link, end, state: State::Open, sending: Vec::new(), sent: 0, before: Vec::new() };
        assert!(self.conns.insert(id.slot, conn).is_none(), "a line is given to one connection");
    }

    /// The store answers, some time later.
    pub fn answer(&mut self, due: Time, answered: Answered) {
        let due = self.answered.back().map_or(due, |(last, _)| due.max(*last));
        self.answered.push_back((due, answered));
    }

    pub fn turn(&mut self, env: &mut Env) -> Held {
        let ended = self.shard.homes.counters.log_outs;
        self.send(env);
        self.receive(env)?;
        self.meet(env);
        self.take_in(env)?;
        self.hear_of_owners(env);
        self.shard.turn(env.now);
        if self.shard.homes.counters.log_outs != ended {
            env.memories.post.session_ended((self.node, env.lives[self.node]), self.shard.settings.core);
        }
        self.hand_over(env);
        self.shard.send_to_peers(env.now);
        self.dial(env);
        let at = (self.node, self.shard.settings.core);
        env.memories.crossings.note_ended(at, self.shard.homes.relays.ended());
        self.publish(env);
        self.move_connections(env);
        self.flush(env);
        self.shard.check();
        Ok(())
    }

    fn slots(&self) -> Vec<u32> {
        self.conns.keys().copied().collect()
    }

    fn send(&mut self, env: &mut Env) {
        for slot in self.slots() {
            let conn = self.conns.get_mut(&slot).expect("listed");
            if conn.sending.is_empty() {
                continue;
            }
            let (link, end) = (conn.link, conn.end);
            if env.links.is_left(link, end, env.now) {
                self.end(env, slot);
                continue;
            }
            let room = (env.mix.window as usize).saturating_sub(env.links.unread(link, end));
            let left = &conn.sending[conn.sent..];
            let most = if env.calm { left.len() } else { 1 + env.random.below(left.len() as u64) as usize };
            let now = most.min(left.len()).min(room);
            env.links.write(link, end, &left[..now]);
            conn.sent += now;
            if now > 0 && env.random.below(1000) < env.mix.net_pause && !env.calm {
                let until = env.now + env.mix.pause.mul_f64(env.random.unit());
                env.links.stand_still(link, end, until);
                env.counts.add(Happening::NetPause, 1);
            }
            if conn.sent == conn.sending.len() {
                self.sent_all(env, slot);
            }
        }
    }

    fn sent_all(&mut self, env: &mut Env, slot: u32) {
        let conn = self.conns.get_mut(&slot).expect("just sent");
        conn.sent = 0;
        let buffer = std::mem::take(&mut conn.sending);
        self.buffers_out -= 1;
        if self.shard.out.lines.sent(slot, buffer) {
            self.again.push(slot);
        } else if self.shard.out.lines.may_close(slot) {
            self.farewell(env, slot);
        }
    }

    fn receive(&mut self, env: &mut Env) -> Held {
        for slot in self.slots() {
            let conn = &self.conns[&slot];
            let (id, state, link, end) = (conn.id, conn.state, conn.link, conn.end);
            if !env.calm && env.random.one_in(3) {
                continue;
            }
            let most = if env.calm { 65_536 } else { 1 + env.random.below(env.mix.piece) as usize };
            let bytes = env.links.read(link, end, env.now, most);
            let (ended, is_left) = (env.links.is_over(link, end, env.now), env.links.is_left(link, end, env.now));
            if !bytes.is_empty() && state != State::Farewell && !self.shard.out.lines.is_closing(slot) {
                Spy::look(env, link, end, &bytes)?;
                env.trace.bytes(u64::from(slot), &bytes);
                self.shard.received(env.now, id, &bytes);
                self.shard.check();
            }
            if ended || (state == State::Farewell && (is_left || env.calm || env.random.one_in(20))) {
                self.end(env, slot);
            }
        }
        Ok(())
    }

    fn take_in(&mut self, env: &mut Env) -> Held {
        let own = self.shard.settings.core;
        for core in 0..self.from.len() {
            if !env.calm && self.leaves_unread(env, core) {
                continue;
            }
            let most = if env.calm { BATCHES_PER_TURN } else { 1 + env.random.below(BATCHES_PER_TURN) };
            let Some(inward) = &mut self.from[core] else { continue };
            let (node, shard, mut held) = (self.node, &mut self.shard, Ok(()));
            for _ in 0..most {
                let more = inward.next(|batch| {
                    held = check_batch(env, (node, own), batch);
                    shard.batch(env.now, batch);
                });
                std::mem::replace(&mut held, Ok(()))?;
                if !more {
                    break;
                }
            }
        }
        while let Some((_, answered)) = self.answered.pop_front_if(|(due, _)| *due <= env.now || env.calm) {
            self.complete(env, answered);
        }
        while let Some((_, whose, worked)) = self.worked.pop_front_if(|(due, ..)| *due <= env.now || env.calm) {
            self.shard.worked(env.now, whose, Some(worked));
        }
        Ok(())
    }

    fn leaves_unread(&mut self, env: &mut Env, core: usize) -> bool {
        if env.random.below(1000) < env.mix.ring_stall {
            self.stalled[core] = env.now + env.mix.pause.mul_f64(env.random.unit());
            env.count(Happening::RingStall);
        }
        env.now < self.stalled[core] || env.random.below(1000) < env.mix.unread_ring
    }

    fn complete(&mut self, env: &mut Env, Answered { completion, writes }: Answered) {
        env.trace.note(env.now, format_args!("node {} core {} hears {completion:?}", self.node, completion.core.0));
        if completion.result.is_ok() {
            for write in &writes {
                let row = (write.table.name(), write.key.escape_ascii(), write.value.as_ref().map(|value| value.escape_ascii()));
                env.trace.note(env.now, format_args!("  {} {}: {:?}", row.0, row.1, row.2.map(|value| value.to_string())));
                match (write.table, &write.value) {
                    (Table::Accounts, Some(_)) => env.count(Happening::UserAdded),
                    (Table::Accounts, None) => env.count(Happening::UserRemoved),
                    (Table::Blocked, Some(_)) => env.count(Happening::Blocked),
                    (Table::Messages, Some(row)) => {
                        let (whose, _) = rows::split_message(&write.key).expect("keys are sound");
                        env.memories.post.kept(row, whose);
                    }
                    _ => {}
                }
            }
            let wall = self.shard.homes.place.wall(env.now);
            env.memories.approvals.tell(&writes, &self.shard, wall);
        }
        self.shard.completed(env.now, completion);
    }

    fn hand_over(&mut self, env: &mut Env) {
        let core = self.shard.settings.core;
        for commit in std::mem::take(&mut self.shard.out.commits) {
            let most = if env.calm { usize::MAX } else { env.mix.port };
            if let Err(commit) = env.disks[self.node].hand_over(env.now, core, commit, most) {
                env.count(Happening::PortFull);
                let completion = Completion { core, ticket: commit.ticket, result: Err("too much to do".into()) };
                self.complete(env, Answered { completion, writes: Vec::new() });
            }
        }
        for PasswordTask { whose, work } in std::mem::take(&mut self.shard.checks) {
            let due = env.now + env.mix.pause.mul_f64(env.random.unit());
            self.worked.push_back((due, whose, work.run()));
        }
        self.answers.append(&mut self.shard.answers);
        for RawSocket(link) in std::mem::take(&mut self.shard.orphans) {
            env.links.leave(link, End::Server);
        }
    }

    fn publish(&mut self, env: &mut Env) {
        for (at, outward) in self.to.iter_mut().enumerate() {
            let Some(outward) = outward else { continue };
            let core = CoreId(at as u16);
            if self.shard.has_for(core) {
                let put_off = &mut self.shard.out.bound[at].put_off;
                if !put_off.is_empty() && env.canary_strikes(Canary::PutOffLost, 3) {
                    put_off.pop_first();
                }
                self.shard.fill(env.now, core, outward.batch());
                if !outward.batch().updates.is_empty() && env.canary_strikes(Canary::UpdateTwice, 20) {
                    repeat_first(outward.batch());
                }
            }
            outward.publish();
        }
    }

    fn move_connections(&mut self, env: &mut Env) {
        for (id, RawSocket(link)) in std::mem::take(&mut self.shard.adoptions) {
            env.count(Happening::Adoption);
            self.install(id, link, End::Server);
            self.again.push(id.slot);
        }
        // Nobody here sends so much as to be held up.
        self.shard.pauses.clear();
        for id in std::mem::take(&mut self.shard.departures) {
            let lines = &self.shard.out.lines;
            if let Some(conn) = self.conns.get_mut(&id.slot).filter(|conn| conn.id == id)
                && conn.state == State::Open
                && !lines.is_closing(id.slot)
            {
                conn.state = State::Leaving;
            }
        }
        for slot in self.slots() {
            let conn = &self.conns[&slot];
            let still = conn.sending.is_empty() && self.shard.out.lines.backlog(conn.id) == 0;
            if conn.state == State::Leaving && still && (env.calm || env.random.one_in(2)) {
                let conn = self.conns.remove(&slot).expect("just seen");
                self.shard.departed(env.now, conn.id, RawSocket(conn.link));
                self.shard.out.lines.release(slot, None);
            }
        }
    }

    fn flush(&mut self, env: &mut Env) {
        let mut slots = std::mem::take(&mut self.dirty);
        self.shard.out.lines.hasten(Time::MAX);
        self.shard.out.lines.take_dirty(&mut slots);
        slots.append(&mut self.again);
        for &slot in &slots {
            let Some(conn) = self.conns.get_mut(&slot).filter(|conn| conn.state != State::Farewell) else { continue };
            if !conn.sending.is_empty() {
                continue;
            }
            if let Some(buffer) = self.shard.take(env.now, slot) {
                env.trace.bytes(u64::from(slot) | 1 << 32, &buffer);
                self.buffers_out += 1;
                conn.sending = buffer;
                if env.links.is_between_nodes(conn.link) {
                    repeat_first_on_link(env, &mut conn.sending);
                } else if env.canary_strikes(Canary::OldAgain, 10) {
                    conn.sending.append(&mut conn.before.clone());
                } else {
                    conn.before = conn.sending.clone();
                    repeat_first_farewell(env, &mut conn.sending);
                }
            } else if self.shard.out.lines.may_close(slot) {
                self.farewell(env, slot);
            }
        }
        self.dirty = slots;
    }

    /// The shard closed the connection and all was sent.
    fn farewell(&mut self, env: &mut Env, slot: u32) {
        let conn = self.conns.get_mut(&slot).expect("the caller has it");
        if conn.state != State::Farewell {
            conn.state = State::Farewell;
            let (id, link, end) = (conn.id, conn.link, conn.end);
            env.links.leave(link, end);
            self.shard.lost(env.now, id);
        }
    }

    /// The connection is over.
    fn end(&mut self, env: &mut Env, slot: u32) {
        let conn = self.conns.remove(&slot).expect("the caller has it");
        if conn.state != State::Farewell {
            self.shard.lost(env.now, conn.id);
        }
        env.links.leave(conn.link, conn.end);
        env.spy.forget(conn.link, conn.end);
        self.shard.out.lines.discard(slot);
        if !conn.sending.is_empty() {
            self.buffers_out -= 1;
        }
        if !env.canary_strikes(Canary::LineKept, 3) {
            self.shard.out.lines.release(slot, (!conn.sending.is_empty()).then_some(conn.sending));
        }
    }

    /// Connections that the driver holds.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Of them, those to other nodes: their lines are open as long as the nodes are.
    pub fn links(&self, env: &Env) -> usize {
        self.conns.values().filter(|conn| env.links.is_between_nodes(conn.link)).count()
    }

    /// Whether there is something to do that needs no more time to pass.
    pub fn is_busy(&self) -> bool {
        let others = (0..self.to.len() as u16).map(CoreId).filter(|&core| core != self.shard.settings.core);
        !self.answered.is_empty()
            || !self.worked.is_empty()
            || !self.dialling.is_empty()
            || !self.again.is_empty()
            || self.shard.out.lines.has_dirty()
            || self.conns.values().any(|conn| !conn.sending.is_empty() || conn.state != State::Open)
            || self.from.iter().flatten().any(|inward| !inward.is_empty())
            || self.to.iter().flatten().any(|outward| !outward.is_sent())
            || others.into_iter().any(|core| self.shard.has_for(core))
            || !self.shard.out.commits.is_empty()
    }
}

/// Looks at a batch before it is read.
fn check_batch(env: &mut Env, to: (usize, CoreId), batch: &mut Batch) -> Held {
    spoil(env, batch);
    for update in batch.updates.iter() {
        let head = frame::head(update.frame);
        env.trace.bytes(u64::from(to.1.0) | 2 << 32, update.frame);
        env.memories.crossings.crossed(to, env.shape.cluster_of(to.0), &head)?;
        env.count(Happening::Crossing);
    }
    Ok(())
}
