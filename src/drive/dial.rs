//! Making connections: the host asks for one (`Dial`), the ring connects, and the host hears what came of it.
//!
//! Lives on: every core, which has dials of its own. Serves G4: links between nodes. Invariants: each dial is answered by one
//! `Host::dialled`, also when the driver stops; its descriptor belongs to a connection then, or is closed here; the address stays
//! where it is until the kernel has answered (pitfall A1). No call waits: the socket is made and bound here, which is at once, and
//! the ring does the rest. What the peer doesn't answer in `Config::dial_patience` is cancelled; the kernel's answer still decides,
//! so a connection that was made just then is taken.

use super::op::{Kind, pack};
use super::queue::Completion;
use super::{Driver, Host, socket};
use crate::base::id::{ConnId, RawSocket};
use crate::base::time::Time;
use io_uring::{opcode, types::Fd};
use socket2::SockAddr;
use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::net::SocketAddr;

/// A connection that the host wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dial {
    /// The host's own name for it.
    pub token: u64,
    pub address: SocketAddr,
    /// Where it is to come from; port 0: any. `None`: the kernel chooses.
    pub from: Option<SocketAddr>,
}

/// A connection that the kernel is making.
struct Dialling {
    dial: Dial,
    socket: RawSocket,
    /// `dial.address` as the kernel reads it, at a place of its own.
    _address: Box<SockAddr>,
    /// When it is given up.
    until: Time,
    /// It was: its cancel is on the way.
    given_up: bool,
}

/// The connections that are being made, by number. Numbers grow and are never used twice, so the first gives up first, and a late
/// completion finds nobody.
#[derive(Default)]
pub(super) struct Dials {
    making: BTreeMap<u64, Dialling>,
    last: u64,
    asked: Vec<Dial>,
}

impl Dials {
    pub fn is_empty(&self) -> bool {
        self.making.is_empty()
    }

    /// When the next is given up.
    pub fn deadline(&self) -> Option<Time> {
        self.making.values().find(|dialling| !dialling.given_up).map(|dialling| dialling.until)
    }

    /// Gives up those whose time is over by `now`, or all.
    fn give_up(&mut self, now: Option<Time>) -> Vec<u64> {
        let mut given_up = Vec::new();
        for (&number, dialling) in &mut self.making {
            if now.is_some_and(|now| now < dialling.until) {
                break;
            }
            if !mem::replace(&mut dialling.given_up, true) {
                given_up.push(number);
            }
        }
        given_up
    }
}

/// A dial has no slot: its number takes the place of slot and generation.
fn name(kind: Kind, number: u64) -> u64 {
    pack(kind, ConnId { slot: (number >> 32) as u32, generation: number as u32 })
}

fn number(id: ConnId) -> u64 {
    u64::from(id.slot) << 32 | u64::from(id.generation)
}

fn stopping() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "this node stops")
}

impl Driver {
    /// Begins the dials that the host has asked for, and gives up those whose time is over. True: the host was told of one that
    /// failed at once, so it may have something to say.
    pub(super) fn dial<H: Host>(&mut self, host: &mut H, now: Time) -> io::Result<bool> {
        let mut asked = mem::take(&mut self.dials.asked);
        host.take_dials(&mut asked);
        let mut told = false;
        for dial in asked.drain(..) {
            self.counters.dials += 1;
            let made = if self.stop_at.is_some() { Err(stopping()) } else { socket::dialling(dial.address, dial.from) };
            match made {
                Ok(socket) => self.connect(now, dial, socket)?,
                Err(error) => {
                    told = true;
                    self.failed(host, now, dial.token, error);
                }
            }
        }
        self.dials.asked = asked;
        self.cancel_dials(Some(now))?;
        Ok(told)
    }

    fn connect(&mut self, now: Time, dial: Dial, socket: RawSocket) -> io::Result<()> {
        self.dials.last += 1;
        let (number, address) = (self.dials.last, Box::new(SockAddr::from(dial.address)));
        let entry = opcode::Connect::new(Fd(socket.0), address.as_ptr().cast(), address.len()).build();
        let until = now + self.config.dial_patience;
        self.dials.making.insert(number, Dialling { dial, socket, _address: address, until, given_up: false });
        // SAFETY: address (boxed) and descriptor stay in `making` until the operation has ended (`on_connect`).
        unsafe { self.queue.push(&entry.user_data(name(Kind::Connect, number)), &mut self.counters) }
    }

    /// Cancels the dials whose time is over by `now`, or all; their completions say what became of them.
    pub(super) fn cancel_dials(&mut self, now: Option<Time>) -> io::Result<()> {
        for number in self.dials.give_up(now) {
            self.counters.cancels += 1;
            let entry = opcode::AsyncCancel::new(name(Kind::Connect, number)).build();
            // SAFETY: no memory and no descriptor: a name that is never another's.
            unsafe { self.queue.push(&entry.user_data(name(Kind::CancelConnect, number)), &mut self.counters) }?;
        }
        Ok(())
    }

    pub(super) fn on_connect<H: Host>(&mut self, host: &mut H, now: Time, id: ConnId, done: Completion) -> io::Result<()> {
        let Some(Dialling { dial, socket, given_up, .. }) = self.dials.making.remove(&number(id)) else {
            self.counters.late_completions += 1;
            return Ok(());
        };
        let made = match -done.result {
            _ if self.stop_at.is_some() => Err(stopping()),
            libc::ECANCELED if given_up => Err(self.no_answer()),
            error @ 1.. => Err(io::Error::from_raw_os_error(error)),
            // A port that nobody listens on, and that the kernel has chosen for us, is both ends of what it connects.
            _ if socket::is_own_peer(socket) => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
            _ => Ok(()),
        };
        match made {
            Ok(()) => match host.dialled(now, dial.token, Ok(dial.address)) {
                Some(conn) => return self.install(conn, socket),
                None => socket::close(socket),
            },
            Err(error) => {
                socket::close(socket);
                self.failed(host, now, dial.token, error);
            }
        }
        Ok(())
    }

    fn no_answer(&self) -> io::Error {
        let ms = self.config.dial_patience.as_millis();
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {ms} ms: is the peer there, and lets a firewall through?"))
    }

    fn failed<H: Host>(&mut self, host: &mut H, now: Time, token: u64, error: io::Error) {
        self.counters.dials_failed += 1;
        let line = host.dialled(now, token, Err(error));
        assert!(line.is_none(), "there is no connection that a line could be for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dials_name_leads_back_to_its_number() {
        for wanted in [1, u64::from(u32::MAX), 1 << 32, (1 << 60) - 1] {
            let name = name(Kind::Connect, wanted);
            assert_eq!(super::super::op::unpack(name).map(|(kind, id)| (kind, number(id))), Some((Kind::Connect, wanted)));
        }
    }

    #[test]
    fn dials_are_given_up_once_and_in_the_order_of_their_times() {
        let mut dials = Dials::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for number in 1..=3 {
            let dial = Dial { token: number, address, from: None };
            let (address, until) = (Box::new(SockAddr::from(address)), Time(number * 10));
            dials.making.insert(number, Dialling { dial, socket: RawSocket(-1), _address: address, until, given_up: false });
        }
        assert_eq!((dials.give_up(Some(Time(9))), dials.deadline()), (vec![], Some(Time(10))));
        assert_eq!((dials.give_up(Some(Time(20))), dials.deadline()), (vec![1, 2], Some(Time(30))));
        assert_eq!((dials.give_up(None), dials.give_up(None), dials.deadline()), (vec![3], vec![], None));
        assert!(!dials.is_empty(), "the kernel has them until it says what became of them");
    }
}
