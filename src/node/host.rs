//! A core as its driver sees it: the shard, its rings, its way to the store, and the orders that come from outside.
//!
//! Lives on: every core. Serves G1, G3. Invariant: everything a turn takes in is worked off before the turn ends, and what it wants
//! of others leaves with it.

use super::hook::Hook;
use super::owners::Desk;
use super::passwords::Passwords;
use super::replies::Reply;
use crate::base::id::{ConnId, CoreId, RawSocket};
use crate::base::sealing::Sealing;
use crate::base::time::Time;
use crate::drive::{Dial, DriveCounters, Host, Stage, Turn, socket};
use crate::metrics::fields::Counters;
use crate::metrics::stage;
use crate::ring::mesh::Counts;
use crate::ring::mesh::Ports;
use crate::shard::batch::{Batch, Command, Order};
use crate::shard::hook::Verdict;
use crate::shard::{Answer, Shard, Whose, Worked};
use crate::store::Completion;
use crate::store::thread::Port;
use crate::wire::lines::Lines;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender};

/// Batches of one other core that are read in one turn.
const BATCHES_PER_TURN: usize = 8;

/// What a core answers to the control thread.
pub struct Answered {
    pub core: CoreId,
    pub ticket: u64,
    pub answer: Answer,
}

pub struct CoreHost {
    pub shard: Shard,
    ports: Ports<Batch>,
    store: Port,
    passwords: Passwords,
    hook: Option<Hook>,
    replies: Receiver<Reply>,
    commands: Receiver<Command>,
    answers: Sender<Answered>,
    owners: Option<Desk>,
    /// What the driver counted, as of its last turn.
    pub drive: DriveCounters,
}

/// What a core is connected to besides its clients.
pub struct Ends {
    pub ports: Ports<Batch>,
    pub store: Port,
    pub passwords: Passwords,
    /// The service outside, if there is one.
    pub hook: Option<Hook>,
    pub replies: Receiver<Reply>,
    pub commands: Receiver<Command>,
    pub answers: Sender<Answered>,
    /// The thread that keeps the table of owners, in a cluster.
    pub owners: Option<Desk>,
}

impl CoreHost {
    pub fn new(shard: Shard, ends: Ends) -> CoreHost {
        let Ends { ports, store, passwords, hook, replies, commands, answers, owners } = ends;
        CoreHost { shard, ports, store, passwords, hook, replies, commands, answers, owners, drive: DriveCounters::default() }
    }

    /// Takes in what came from other threads. True: there may be more.
    fn take_in(&mut self, now: Time) -> bool {
        let shard = &mut self.shard;
        let read = self.ports.receive(BATCHES_PER_TURN, |_, batch| shard.batch(now, batch));
        while let Some(completion) = self.store.take() {
            shard.completed(now, completion);
        }
        while let Ok(Reply { whose, worked }) = self.replies.try_recv() {
            shard.worked(now, whose, Some(worked));
        }
        while let Ok(command) = self.commands.try_recv() {
            if matches!(command.order, Order::Snapshot) {
                count(&mut shard.recorder.counters, &self.drive, &self.ports.counts);
            }
            shard.command(now, command);
        }
        read > 0
    }

    /// Hands over what is for the store, the password checker, the service outside and the control thread.
    fn hand_over(&mut self, now: Time) {
        let shard = &mut self.shard;
        for commit in std::mem::take(&mut shard.out.commits) {
            let ticket = commit.ticket;
            if let Err(refused) = self.store.hand_over(commit) {
                let result = Err(refused.reason.text().to_owned());
                shard.completed(now, Completion { core: shard.settings.core, ticket, result });
            }
        }
        for task in std::mem::take(&mut shard.checks) {
            let whose = task.whose;
            if !self.passwords.take(shard.settings.core, task) {
                shard.worked(now, whose, None);
            }
        }
        let core = shard.settings.core;
        for question in std::mem::take(&mut shard.questions) {
            let whose = Whose::Connection(question.conn);
            if !self.hook.as_ref().is_some_and(|hook| hook.take(core, question)) {
                shard.worked(now, whose, Some(Worked::Judged { verdict: Verdict::Refused, nanos: 0 }));
            }
        }
        for (ticket, answer) in std::mem::take(&mut shard.answers) {
            // The control thread is gone only when the node stops: nobody waits for the answer then.
            _ = self.answers.send(Answered { core, ticket, answer });
        }
        if let Some(owners) = &self.owners {
            owners.take(&mut shard.words);
            owners.note_users(core.0.into(), shard.homes.user_count() + shard.homes.directory.count());
        }
        for remark in shard.take_remarks() {
            match remark.warns {
                true => tracing::warn!("{}", remark.text),
                false => tracing::info!("{}", remark.text),
            }
        }
        for orphan in std::mem::take(&mut shard.orphans) {
            socket::close(orphan);
        }
    }

    fn publish(&mut self, now: Time) {
        let own = self.shard.settings.core;
        for core in (0..self.shard.settings.cores).map(CoreId).filter(|&core| core != own) {
            if self.shard.has_for(core) {
                self.shard.fill(now, core, self.ports.batch(core));
            }
        }
        self.ports.publish_all();
    }

    fn has_for_others(&self) -> bool {
        let own = self.shard.settings.core;
        (0..self.shard.settings.cores).map(CoreId).any(|core| core != own && self.shard.has_for(core))
    }
}

impl Host for CoreHost {
    fn lines(&mut self) -> &mut Lines {
        &mut self.shard.out.lines
    }

    fn accepted(&mut self, now: Time, peer: IpAddr, listener: usize) -> Option<ConnId> {
        self.shard.accepted(now, peer, listener)
    }

    fn refusal(&mut self, now: Time, listener: usize) -> Vec<u8> {
        self.shard.refusal(now, listener)
    }

    fn take(&mut self, now: Time, slot: u32) -> Option<Vec<u8>> {
        self.shard.take(now, slot)
    }

    fn take_sealing(&mut self) -> Option<Box<Sealing>> {
        self.shard.take_sealing()
    }

    fn expect(&self, conns: &[ConnId]) {
        self.shard.expect(conns);
    }

    fn received(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        self.shard.received(now, conn, bytes);
    }

    fn lost(&mut self, now: Time, conn: ConnId) {
        self.shard.lost(now, conn);
    }

    fn take_departures(&mut self, into: &mut Vec<ConnId>) {
        into.append(&mut self.shard.departures);
    }

    fn departed(&mut self, now: Time, conn: ConnId, socket: RawSocket) {
        self.shard.departed(now, conn, socket);
    }

    fn take_pauses(&mut self, into: &mut Vec<(ConnId, bool)>) {
        into.append(&mut self.shard.pauses);
    }

    fn take_adoptions(&mut self, into: &mut Vec<(ConnId, RawSocket)>) {
        into.append(&mut self.shard.adoptions);
    }

    fn take_dials(&mut self, into: &mut Vec<Dial>) {
        into.extend(self.shard.take_dials().into_iter().map(|(token, address)| Dial { token, address, from: None }));
    }

    fn dialled(&mut self, now: Time, token: u64, made: io::Result<SocketAddr>) -> Option<ConnId> {
        self.shard.dialled(now, token, made.ok())
    }

    fn turn(&mut self, now: Time, counters: &DriveCounters) -> Turn {
        self.drive = *counters;
        let more = self.take_in(now);
        let deadline = self.shard.turn(now);
        self.hand_over(now);
        let waiting = self.shard.send_to_peers(now);
        let deadline = [deadline, waiting].into_iter().flatten().min();
        self.publish(now);
        let busy = more || self.has_for_others() || !self.ports.all_sent();
        Turn { busy, deadline, stopping: self.shard.is_stopping() }
    }

    fn about_to_sleep(&mut self) -> bool {
        self.ports.sleeper.announce();
        // The store, those who work for the cores and the control thread ring the bell themselves after each thing they put.
        !self.ports.is_empty()
    }

    fn woke(&mut self) {
        self.ports.sleeper.awake();
    }

    fn observe(&mut self, stage: Stage, nanos: u64) {
        let stage = match stage {
            Stage::Receive => stage::Stage::Receive,
            Stage::FlushWait => stage::Stage::FlushWait,
            Stage::Send => stage::Stage::Send,
        };
        self.shard.recorder.record(stage, nanos);
    }
}

/// Puts what the driver and the rings have counted beside what the shard has.
fn count(counters: &mut Counters, drive: &DriveCounters, rings: &Counts) {
    counters.receives = drive.receives;
    counters.bytes_in = drive.bytes_in;
    counters.sends = drive.sends;
    counters.bytes_out = drive.bytes_out;
    counters.short_sends = drive.short_sends;
    counters.send_errors = drive.send_errors;
    counters.accepts = drive.accepts;
    counters.accepts_refused = drive.refused;
    counters.accepts_failed = drive.accepts_failed;
    counters.dials = drive.dials;
    counters.dials_failed = drive.dials_failed;
    counters.connections_adopted = drive.adopted;
    counters.connections_departed = drive.departed;
    counters.connections_closed = drive.closed;
    counters.connections_cut = drive.cut;
    counters.connections_sealed = drive.sealed;
    counters.seals_failed = drive.seals_failed;
    counters.buffers_starved = drive.starved;
    counters.cq_overflow = drive.cq_overflow;
    counters.late_completions = drive.late_completions;
    counters.cancels = drive.cancels;
    counters.turns = drive.turns;
    counters.enters = drive.enters;
    counters.enters_refused = drive.enters_refused;
    counters.sleeps = drive.sleeps;
    counters.batches = rings.batches;
    counters.batches_read = rings.read;
    counters.ring_full = rings.full;
    counters.doorbells = rings.doorbells;
}
