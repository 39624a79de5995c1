//! A connection's life: installed, receiving, sending, leaving, closing.
//!
//! Lives on: the connection's core. What happens next is decided by `Conn::next`; this file does it. See `conn` for the invariants.

use super::conn::{Conn, State, Step};
use super::op::{Kind, SLOTS, pack};
use super::queue::Completion;
use super::{Driver, Host, SAMPLE, Stage, buffers, clock, seal, socket};
use crate::base::id::{ConnId, RawSocket};
use crate::base::sealing::Sealing;
use crate::base::time::Time;
use io_uring::{cqueue, opcode, types::CancelBuilder, types::Fd};
use std::io;
use std::mem;
use std::net::Shutdown;

impl Driver {
    /// Whether this was the operation's last completion. The only place that looks at F_MORE (pitfall A4).
    #[inline]
    pub(super) fn ended(done: Completion) -> bool {
        !cqueue::more(done.flags)
    }

    /// A connection for a line that the host has opened.
    pub(super) fn install(&mut self, id: ConnId, socket: RawSocket) -> io::Result<()> {
        assert!(id.slot < SLOTS, "a core has at most {SLOTS} connections");
        let slot = id.slot as usize;
        if slot >= self.conns.len() {
            self.conns.resize_with(slot + 1, Conn::default);
        }
        assert_eq!(self.conns[slot].state, State::Vacant, "a line is given to one connection");
        self.conns[slot] = Conn::open(socket.0, id.generation);
        self.open += 1;
        self.arm_receive(id)
    }

    pub(super) fn arm_receive(&mut self, id: ConnId) -> io::Result<()> {
        let conn = &mut self.conns[id.slot as usize];
        conn.ops.receive = true;
        let entry = opcode::RecvMulti::new(Fd(conn.socket), buffers::GROUP).build().user_data(pack(Kind::Receive, id));
        // SAFETY: the buffers live as long as the ring; the descriptor is kept until the operation has ended (`Conn::next`).
        unsafe { self.queue.push(&entry, &mut self.counters) }
    }

    /// Arms the receives that ended although their connections go on; all buffers are back by now (pitfall A3).
    pub(super) fn rearm(&mut self) -> io::Result<()> {
        let mut ended = mem::take(&mut self.unarmed);
        for id in ended.drain(..) {
            let conn = &self.conns[id.slot as usize];
            if conn.is(id) && conn.receives() && !conn.ops.receive {
                self.arm_receive(id)?;
            }
        }
        self.unarmed = ended;
        Ok(())
    }

    /// Stops reading the connections that the host wants nothing of for a while, and goes on with those it has paused before.
    pub(super) fn pause<H: Host>(&mut self, host: &mut H) -> io::Result<()> {
        let mut pauses = mem::take(&mut self.pauses);
        host.take_pauses(&mut pauses);
        for (id, paused) in pauses.drain(..) {
            let Some(conn) = self.conns.get_mut(id.slot as usize).filter(|conn| conn.is(id)) else { continue };
            conn.paused = paused;
            if conn.state != State::Open {
                continue;
            }
            if paused && conn.ops.receive && !conn.ops.cancel {
                conn.ops.cancel = true;
                let entry = opcode::AsyncCancel::new(pack(Kind::Receive, id)).build().user_data(pack(Kind::Cancel, id));
                self.counters.cancels += 1;
                // SAFETY: no memory; the descriptor is kept until the cancel itself has ended.
                unsafe { self.queue.push(&entry, &mut self.counters) }?;
            } else if !paused && !conn.ops.receive {
                self.arm_receive(id)?;
            }
        }
        self.pauses = pauses;
        Ok(())
    }

    #[inline]
    fn knows(&mut self, id: ConnId) -> bool {
        let known = self.conns.get(id.slot as usize).is_some_and(|conn| conn.is(id));
        self.counters.late_completions += u64::from(!known);
        known
    }

    pub(super) fn on_receive<H: Host>(&mut self, host: &mut H, id: ConnId, done: Completion) -> io::Result<()> {
        let known = self.knows(id);
        if let Some(buffer) = cqueue::buffer_select(done.flags) {
            let open = known && matches!(self.conns[id.slot as usize].state, State::Open | State::Leaving);
            if open && done.result > 0 && !host.lines().is_closing(id.slot) {
                self.pass_on(host, id, buffer, done.result as usize);
            }
            self.queue.buffers.give_back(buffer);
        }
        if !known || !Driver::ended(done) {
            return Ok(());
        }
        self.conns[id.slot as usize].ops.receive = false;
        match -done.result {
            0 => self.end(host, id)?,
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => self.unarmed.push(id),
            libc::ENOBUFS => {
                self.counters.starved += 1;
                self.unarmed.push(id);
            }
            ..0 => self.unarmed.push(id),
            _ => self.end(host, id)?,
        }
        self.advance(host, id)
    }

    #[inline]
    fn pass_on<H: Host>(&mut self, host: &mut H, id: ConnId, buffer: u16, len: usize) {
        self.counters.receives += 1;
        self.counters.bytes_in += len as u64;
        let now = clock::now();
        if self.counters.receives.is_multiple_of(SAMPLE) {
            host.observe(Stage::Receive, now.since(self.look_began));
        }
        host.received(now, id, self.queue.buffers.read(buffer, len));
    }

    /// Sends `conn.sending` from where the last send stopped.
    pub(super) fn send(&mut self, id: ConnId) -> io::Result<()> {
        let conn = &mut self.conns[id.slot as usize];
        conn.ops.send = true;
        let rest = &conn.sending[conn.sent as usize..];
        let entry = opcode::Send::new(Fd(conn.socket), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(pack(Kind::Send, id));
        self.counters.sends += 1;
        if self.counters.sends.is_multiple_of(SAMPLE) && self.timed_send.is_none() {
            self.timed_send = Some((id, clock::now()));
        }
        // SAFETY: the buffer stays in `conn.sending`, untouched, and the descriptor open, until the operation has ended.
        unsafe { self.queue.push(&entry, &mut self.counters) }
    }

    pub(super) fn on_send<H: Host>(&mut self, host: &mut H, id: ConnId, done: Completion) -> io::Result<()> {
        if !self.knows(id) {
            return Ok(());
        }
        if let Some((_, began)) = self.timed_send.take_if(|(timed, _)| *timed == id) {
            host.observe(Stage::Send, clock::now().since(began));
        }
        let conn = &mut self.conns[id.slot as usize];
        conn.ops.send = false;
        if conn.state == State::Closing {
            return self.advance(host, id);
        }
        match done.result {
            sent @ 0.. => {
                conn.sent += sent as u32;
                self.counters.bytes_out += sent as u64;
                if (conn.sent as usize) < conn.sending.len() {
                    self.counters.short_sends += 1;
                    return self.send(id);
                }
                conn.sent = 0;
                let buffer = mem::take(&mut conn.sending);
                let state = conn.state;
                if let Some(sealing) = conn.sealing.take()
                    && !self.seal(id, &sealing)
                {
                    host.lines().sent(id.slot, buffer);
                    self.end(host, id)?;
                    return self.advance(host, id);
                }
                if host.lines().sent(id.slot, buffer) {
                    self.again.push(id.slot);
                } else if host.lines().may_close(id.slot) {
                    self.farewell(host, id);
                }
                if state == State::Open { Ok(()) } else { self.advance(host, id) }
            }
            error if matches!(-error, libc::EINTR | libc::EAGAIN | libc::ECANCELED) => self.send(id),
            _ => {
                self.counters.send_errors += 1;
                self.end(host, id)?;
                self.advance(host, id)
            }
        }
    }

    /// From here on the kernel encrypts what the connection sends. False: it would not, so nothing may be sent any more.
    fn seal(&mut self, id: ConnId, sealing: &Sealing) -> bool {
        let done = seal::seal(RawSocket(self.conns[id.slot as usize].socket), sealing).is_ok();
        self.counters.sealed += u64::from(done);
        self.counters.seals_failed += u64::from(!done);
        done
    }

    pub(super) fn on_cancel<H: Host>(&mut self, host: &mut H, id: ConnId) -> io::Result<()> {
        if !self.knows(id) {
            return Ok(());
        }
        self.conns[id.slot as usize].ops.cancel = false;
        self.advance(host, id)
    }

    /// The host has closed the line and all was sent: say so to the peer, and wait for its end of stream.
    pub(super) fn farewell<H: Host>(&mut self, host: &mut H, id: ConnId) {
        let conn = &mut self.conns[id.slot as usize];
        conn.state = State::Farewell;
        if !conn.ops.receive {
            self.unarmed.push(id);
        }
        let socket = RawSocket(self.conns[id.slot as usize].socket);
        if self.config.kernel_tls {
            seal::say_goodbye(socket);
        }
        socket::shut(socket, Shutdown::Write);
        host.lost(clock::now(), id);
    }

    /// The connection is over: the peer said so, it broke, or its time is up.
    pub(super) fn end<H: Host>(&mut self, host: &mut H, id: ConnId) -> io::Result<()> {
        let conn = &mut self.conns[id.slot as usize];
        let before = mem::replace(&mut conn.state, State::Closing);
        if before == State::Closing {
            return Ok(());
        }
        socket::shut(RawSocket(conn.socket), Shutdown::Both);
        if before != State::Farewell {
            host.lost(clock::now(), id);
        }
        host.lines().discard(id.slot);
        Ok(())
    }

    /// Does what `Conn::next` says.
    pub(super) fn advance<H: Host>(&mut self, host: &mut H, id: ConnId) -> io::Result<()> {
        let unsent = host.lines().backlog(id) > 0;
        let conn = &mut self.conns[id.slot as usize];
        match conn.next(unsent) {
            Step::Wait => Ok(()),
            Step::Cancel => {
                conn.ops.cancel = true;
                let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(conn.socket)).all()).build();
                self.counters.cancels += 1;
                // SAFETY: no memory; the descriptor is kept until the cancel itself has ended.
                unsafe { self.queue.push(&entry.user_data(pack(Kind::Cancel, id)), &mut self.counters) }
            }
            Step::Depart => {
                let conn = mem::take(conn);
                self.open -= 1;
                self.counters.departed += 1;
                host.departed(clock::now(), id, RawSocket(conn.socket));
                host.lines().release(id.slot, None);
                Ok(())
            }
            Step::Close => {
                let conn = mem::take(conn);
                self.open -= 1;
                self.counters.closed += 1;
                host.lines().release(id.slot, Some(conn.sending));
                socket::close(RawSocket(conn.socket));
                Ok(())
            }
        }
    }

    /// Takes the connections that come from other cores, and lets go those that the host sends there.
    pub(super) fn hand_over<H: Host>(&mut self, host: &mut H) -> io::Result<()> {
        let mut adoptions = mem::take(&mut self.adoptions);
        host.take_adoptions(&mut adoptions);
        for (id, socket) in adoptions.drain(..) {
            self.counters.adopted += 1;
            self.install(id, socket)?;
            self.again.push(id.slot);
        }
        self.adoptions = adoptions;
        let mut departures = mem::take(&mut self.departures);
        host.take_departures(&mut departures);
        for id in departures.drain(..) {
            let leaves = self.conns.get(id.slot as usize).is_some_and(|conn| conn.is(id) && conn.state == State::Open);
            if leaves && !host.lines().is_closing(id.slot) {
                self.conns[id.slot as usize].state = State::Leaving;
                self.again.push(id.slot);
                self.advance(host, id)?;
            }
        }
        self.departures = departures;
        Ok(())
    }

    /// Ends the closed connections whose time is up.
    pub(super) fn cut<H: Host>(&mut self, host: &mut H, now: Time) -> io::Result<()> {
        while let Some(&(deadline, id)) = self.farewells.front() {
            if now < deadline {
                break;
            }
            self.farewells.pop_front();
            let conn = &self.conns[id.slot as usize];
            if conn.is(id) && conn.state != State::Closing {
                self.counters.cut += 1;
                self.end(host, id)?;
                self.advance(host, id)?;
            }
        }
        Ok(())
    }

    /// Ends every connection: the time to drain is over.
    pub(super) fn cut_all<H: Host>(&mut self, host: &mut H) -> io::Result<()> {
        for slot in 0..self.conns.len() as u32 {
            let conn = &self.conns[slot as usize];
            let id = ConnId { slot, generation: conn.generation };
            if !matches!(conn.state, State::Vacant | State::Closing) {
                self.counters.cut += 1;
                self.end(host, id)?;
                self.advance(host, id)?;
            }
        }
        Ok(())
    }
}
