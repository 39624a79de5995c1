//! One core's driver and its turn.
//!
//! Lives on: the core's pinned thread. The order of a turn is fixed: completions, connections whose receive ended, the host's own
//! turn, hand-overs, dials, deadlines, flush, one enter. Each source has a budget, so none can starve another (pitfall A7). The
//! order before a sleep is fixed too (`may_sleep`), so no wake-up is lost (pitfall B5).

use super::accept::Listener;
use super::conn::{Conn, State};
use super::dial::Dials;
use super::op::{Kind, pack, unpack};
use super::queue::{Completion, Queue};
use super::{Bell, Config, DriveCounters, Host, SetupError, Stage, clock};
use crate::base::id::{ConnId, RawSocket};
use crate::base::time::Time;
use io_uring::opcode;
use io_uring::types::{TimeoutFlags, Timespec};
use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;

/// Completions that the host is told of together, ahead of them.
const EXPECTED: usize = 32;

/// What is to be done after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another turn.
    Again,
    /// Nothing to do before the deadline unless the bell rings.
    Idle(Option<Time>),
    /// Everything is released.
    Done,
}

/// io_uring for one core. `bridge::drive` runs it.
pub struct Driver {
    pub(super) config: Config,
    pub(super) queue: Queue,
    pub(super) bell: Bell,
    pub(super) listeners: Vec<Listener>,
    /// By slot, as the lines are.
    pub(super) conns: Vec<Conn>,
    /// Connections that aren't vacant.
    pub(super) open: usize,
    /// Connections whose multishot receive ended; armed again at the end of the look at the completions.
    pub(super) unarmed: Vec<ConnId>,
    /// Lines with bytes that the host didn't gather just now: a send was under way, or the connection came from another core.
    pub(super) again: Vec<u32>,
    /// Lines whose flush is due.
    ready: VecDeque<u32>,
    /// When the oldest byte that waits for a flush was gathered.
    gathered_since: Option<Time>,
    /// Closed lines and when they are cut, in order of time.
    pub(super) farewells: VecDeque<(Time, ConnId)>,
    pub(super) adoptions: Vec<(ConnId, RawSocket)>,
    pub(super) departures: Vec<ConnId>,
    pub(super) pauses: Vec<(ConnId, bool)>,
    pub(super) dials: Dials,
    /// When a stopping driver stops waiting.
    pub(super) stop_at: Option<Time>,
    /// When the kernel will ring for the next deadline.
    alarm: Option<Time>,
    alarm_time: Box<Timespec>,
    pub(super) timed_send: Option<(ConnId, Time)>,
    /// When the look at the completions began.
    pub(super) look_began: Time,
    completions: Vec<Completion>,
    /// Connections that the next of them bring bytes of.
    expected: Vec<ConnId>,
    dirty: Vec<u32>,
    pub(super) counters: DriveCounters,
}

impl Driver {
    /// Makes the ring: to be called on the core's own pinned thread. `bell` wakes this core.
    ///
    /// # Errors
    /// What this machine lacks, and how to get it.
    pub fn new(config: Config, bell: Bell, listeners: Vec<TcpListener>) -> Result<Driver, SetupError> {
        let mut queue = Queue::new(&config)?;
        queue.attach(bell.as_fd()).map_err(SetupError::Other)?;
        Ok(Driver {
            config,
            queue,
            bell,
            listeners: listeners.into_iter().map(Listener::new).collect(),
            conns: Vec::new(),
            open: 0,
            unarmed: Vec::new(),
            again: Vec::new(),
            ready: VecDeque::new(),
            gathered_since: None,
            farewells: VecDeque::new(),
            adoptions: Vec::new(),
            departures: Vec::new(),
            pauses: Vec::new(),
            dials: Dials::default(),
            stop_at: None,
            alarm: None,
            alarm_time: Box::new(Timespec::new()),
            timed_send: None,
            look_began: Time::ZERO,
            completions: Vec::new(),
            expected: Vec::with_capacity(EXPECTED),
            dirty: Vec::new(),
            counters: DriveCounters::default(),
        })
    }

    /// One turn.
    pub(super) fn turn<H: Host>(&mut self, host: &mut H) -> io::Result<Next> {
        self.counters.turns += 1;
        let now = clock::now();
        self.look_began = now;
        let full = self.look(host, now)?;
        self.rearm()?;
        let said = host.turn(now, &self.counters);
        if said.stopping && self.stop_at.is_none() {
            self.stop_at = Some(now + self.config.drain);
            self.cancel_listeners()?;
            self.cancel_dials(None)?;
        }
        self.pause(host)?;
        self.hand_over(host)?;
        let told = self.dial(host, now)?;
        self.cut(host, now)?;
        match self.stop_at {
            None => self.arm_listeners(now)?,
            Some(at) if now >= at => self.cut_all(host)?,
            Some(_) => {}
        }
        host.lines().hasten(now);
        let more = full || said.busy || told || self.queue.has_completions();
        self.flush(host, more)?;
        self.queue.submit(&mut self.counters)?;
        let more = more || !self.ready.is_empty() || self.gathered_since.is_some() || self.queue.has_completions();
        Ok(match self.is_done(host, now) {
            true => Next::Done,
            false if more => Next::Again,
            false => Next::Idle(self.deadline(said.deadline)),
        })
    }

    /// Handles what the kernel has completed, up to the turn's budget. True: the budget was used up.
    fn look<H: Host>(&mut self, host: &mut H, now: Time) -> io::Result<bool> {
        let mut completions = std::mem::take(&mut self.completions);
        self.queue.reap(&mut completions, self.config.completions_per_turn as usize);
        for (number, &done) in completions.iter().enumerate() {
            if number % EXPECTED == 0 {
                self.expect(host, &completions[number..]);
            }
            match unpack(done.name) {
                Some((Kind::Send, id)) => self.on_send(host, id, done)?,
                Some((Kind::Receive, id)) => self.on_receive(host, id, done)?,
                Some((Kind::Cancel, id)) => self.on_cancel(host, id)?,
                Some((Kind::Accept, id)) => self.on_accept(host, now, id.slot as usize, done)?,
                Some((Kind::Connect, id)) => self.on_connect(host, now, id, done)?,
                Some((Kind::Alarm, _)) => self.alarm = None,
                Some((Kind::CancelAccept | Kind::CancelConnect | Kind::MoveAlarm, _)) => {}
                None => self.counters.late_completions += 1,
            }
        }
        self.queue.buffers.publish();
        let full = completions.len() == self.config.completions_per_turn as usize;
        self.completions = completions;
        Ok(full)
    }

    /// Lets the host see which connections the next completions are receives of.
    fn expect<H: Host>(&mut self, host: &mut H, completions: &[Completion]) {
        self.expected.clear();
        let names = completions.iter().take(EXPECTED).filter_map(|done| unpack(done.name));
        self.expected.extend(names.filter(|(kind, _)| *kind == Kind::Receive).map(|(_, id)| id));
        if self.expected.len() > 1 {
            host.expect(&self.expected);
        }
    }

    /// Sends what is gathered, if the policy says so, up to the turn's budget.
    fn flush<H: Host>(&mut self, host: &mut H, more: bool) -> io::Result<()> {
        if self.ready.is_empty() {
            if !host.lines().has_dirty() && self.again.is_empty() {
                return Ok(());
            }
            let now = clock::now();
            let since = *self.gathered_since.get_or_insert(now);
            if !self.config.flush.is_due(now, since, more) {
                return Ok(());
            }
            host.observe(Stage::FlushWait, now.since(since));
            self.gathered_since = None;
            self.ready.extend(self.again.drain(..));
            host.lines().take_dirty(&mut self.dirty);
            self.ready.extend(&self.dirty);
        }
        for _ in 0..self.config.flush.sends {
            let Some(slot) = self.ready.pop_front() else { break };
            self.flush_line(host, slot)?;
        }
        Ok(())
    }

    fn flush_line<H: Host>(&mut self, host: &mut H, slot: u32) -> io::Result<()> {
        // A line without a connection yet is flushed when the connection is adopted.
        let Some(conn) = self.conns.get_mut(slot as usize) else { return Ok(()) };
        if matches!(conn.state, State::Vacant | State::Closing) {
            return Ok(());
        }
        let id = ConnId { slot, generation: conn.generation };
        let lines = host.lines();
        if lines.is_closing(slot) && !conn.closing_noted {
            conn.closing_noted = true;
            self.farewells.push_back((clock::now() + self.config.farewell, id));
        }
        if conn.ops.send || conn.state == State::Farewell {
            return Ok(());
        }
        if let Some(buffer) = host.take(self.look_began, slot) {
            let conn = &mut self.conns[slot as usize];
            conn.sending = buffer;
            conn.sent = 0;
            conn.sealing = host.take_sealing();
            self.send(id)
        } else if host.lines().may_close(slot) {
            self.farewell(host, id);
            Ok(())
        } else {
            self.advance(host, id)
        }
    }

    /// The earliest of the host's deadline and the driver's own.
    fn deadline(&self, host: Option<Time>) -> Option<Time> {
        let farewell = self.farewells.front().map(|&(at, _)| at);
        [host, farewell, self.accept_deadline(), self.dials.deadline(), self.stop_at].into_iter().flatten().min()
    }

    /// A stopping driver has nothing left: no connection, accept or dial, and no line, or no patience for lines without
    /// connections.
    fn is_done<H: Host>(&self, host: &mut H, now: Time) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        let asks = self.listeners.iter().any(Listener::is_armed) || !self.dials.is_empty();
        let idle = self.open == 0 && !asks && self.ready.is_empty();
        idle && (host.lines().is_empty() || now >= stop_at)
    }

    /// Prepares to sleep on the bell: announce, set the alarm, enable the bell, let the kernel post what it holds back, look once
    /// more. Only in this order no event falls between (pitfall B5, traps 1 and 3). False: there is something to do after all.
    pub(super) fn may_sleep<H: Host>(&mut self, host: &mut H, deadline: Option<Time>) -> io::Result<bool> {
        if deadline.is_some_and(|at| at <= clock::now()) {
            return Ok(false);
        }
        host.lines().hasten(Time::MAX);
        if host.lines().has_dirty() {
            return Ok(false);
        }
        if host.about_to_sleep() {
            host.woke();
            return Ok(false);
        }
        self.set_alarm(deadline)?;
        self.queue.enable_bell();
        self.queue.enter(&mut self.counters)?;
        if self.queue.has_completions() {
            self.slept(host);
            return Ok(false);
        }
        self.counters.sleeps += 1;
        Ok(true)
    }

    /// The core is awake: the bell is silent again. A ring that is left over ends the next sleep early, once (trap 2).
    pub(super) fn slept<H: Host>(&mut self, host: &mut H) {
        self.queue.disable_bell();
        host.woke();
    }

    /// Makes the kernel ring at the deadline. An alarm that would ring sooner is left alone: it costs one turn.
    fn set_alarm(&mut self, deadline: Option<Time>) -> io::Result<()> {
        let Some(at) = deadline else { return Ok(()) };
        if self.alarm.is_some_and(|armed| armed <= at) {
            return Ok(());
        }
        *self.alarm_time = Timespec::new().sec(at.0 / 1_000_000_000).nsec((at.0 % 1_000_000_000) as u32);
        let alarm = pack(Kind::Alarm, ConnId { slot: 0, generation: 0 });
        let entry = match self.alarm {
            None => opcode::Timeout::new(&raw const *self.alarm_time).flags(TimeoutFlags::ABS).build().user_data(alarm),
            Some(_) => opcode::TimeoutUpdate::new(alarm, &raw const *self.alarm_time)
                .flags(TimeoutFlags::ABS)
                .build()
                .user_data(pack(Kind::MoveAlarm, ConnId { slot: 0, generation: 0 })),
        };
        self.alarm = Some(at);
        // SAFETY: the kernel copies the time when it takes the entry; until then the box keeps it.
        unsafe { self.queue.push(&entry, &mut self.counters) }
    }

    /// Checks that nothing was left behind, and returns what was counted.
    ///
    /// # Panics
    /// When the kernel says that a buffer is missing: a bug of the driver.
    pub(super) fn into_counters(self) -> DriveCounters {
        let missing = self.queue.missing_buffers().unwrap_or(0);
        assert_eq!(missing, 0, "every receive buffer is back when the driver ends");
        self.counters
    }
}

impl Drop for Driver {
    /// A driver that ends by an error may leave operations with the kernel. Their memory is then kept for good: the process is
    /// about to stop.
    fn drop(&mut self) {
        if self.conns.iter().any(|conn| conn.ops.receive || conn.ops.send) {
            std::mem::forget(std::mem::take(&mut self.conns));
            self.queue.buffers.keep();
        }
        if !self.dials.is_empty() {
            std::mem::forget(std::mem::take(&mut self.dials));
        }
    }
}
