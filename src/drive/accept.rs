//! Accepting connections: one multishot accept per listener.
//!
//! Lives on: every core, which has listeners of its own. Invariants: a descriptor that the kernel made belongs to a connection, or
//! is closed here, also when its accept lost a race against the stop (pitfall A1). Without descriptors or memory accepting pauses
//! for `Config::accept_pause`; the kernel keeps the peers waiting meanwhile.

use super::op::{Kind, pack};
use super::queue::Completion;
use super::{Driver, Host, socket};
use crate::base::id::{ConnId, RawSocket};
use crate::base::time::Time;
use io_uring::{opcode, types::CancelBuilder, types::Fd};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

pub(super) struct Listener {
    socket: TcpListener,
    armed: bool,
    /// One accept makes many connections. Kernels that refuse it get one accept at a time.
    multishot: bool,
    paused_until: Option<Time>,
}

impl Listener {
    pub fn new(socket: TcpListener) -> Listener {
        Listener { socket, armed: false, multishot: true, paused_until: None }
    }

    pub fn is_armed(&self) -> bool {
        self.armed
    }
}

fn name(kind: Kind, listener: usize) -> u64 {
    pack(kind, ConnId { slot: listener as u32, generation: 0 })
}

impl Driver {
    /// Arms the listeners that aren't and don't have to wait.
    pub(super) fn arm_listeners(&mut self, now: Time) -> io::Result<()> {
        for index in 0..self.listeners.len() {
            let listener = &mut self.listeners[index];
            if listener.armed || listener.paused_until.is_some_and(|until| now < until) {
                continue;
            }
            let fd = Fd(listener.socket.as_raw_fd());
            let entry = match listener.multishot {
                true => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
                false => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(libc::SOCK_CLOEXEC).build(),
            };
            (listener.armed, listener.paused_until) = (true, None);
            // SAFETY: no memory; the listener is kept until its accept has ended (`is_done`).
            unsafe { self.queue.push(&entry.user_data(name(Kind::Accept, index)), &mut self.counters) }?;
        }
        Ok(())
    }

    pub(super) fn cancel_listeners(&mut self) -> io::Result<()> {
        for index in 0..self.listeners.len() {
            if self.listeners[index].armed {
                let builder = CancelBuilder::fd(Fd(self.listeners[index].socket.as_raw_fd())).all();
                let entry = opcode::AsyncCancel2::new(builder).build().user_data(name(Kind::CancelAccept, index));
                // SAFETY: no memory, as above.
                unsafe { self.queue.push(&entry, &mut self.counters) }?;
            }
        }
        Ok(())
    }

    /// When a paused listener wants to be armed again.
    pub(super) fn accept_deadline(&self) -> Option<Time> {
        self.listeners.iter().filter_map(|listener| listener.paused_until).min()
    }

    pub(super) fn on_accept<H: Host>(&mut self, host: &mut H, now: Time, index: usize, done: Completion) -> io::Result<()> {
        let listener = &mut self.listeners[index];
        if Driver::ended(done) {
            listener.armed = false;
        }
        match done.result {
            descriptor @ 0.. => self.welcome(host, now, index, RawSocket(descriptor)),
            error => {
                match -error {
                    libc::EINVAL if listener.multishot => listener.multishot = false,
                    libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ECONNABORTED => {}
                    _ => {
                        self.counters.accepts_failed += 1;
                        listener.paused_until = Some(now + self.config.accept_pause);
                    }
                }
                Ok(())
            }
        }
    }

    fn welcome<H: Host>(&mut self, host: &mut H, now: Time, listener: usize, socket: RawSocket) -> io::Result<()> {
        self.counters.accepts += 1;
        let welcome = match self.stop_at {
            None => host.accepted(now, socket::peer(socket), listener),
            Some(_) => None,
        };
        match welcome {
            Some(conn) => self.install(conn, socket),
            None => {
                self.counters.refused += 1;
                socket::tell(socket, &host.refusal(now, listener));
                socket::close(socket);
                Ok(())
            }
        }
    }
}
