//! One connection as the driver sees it: its state, the operations the kernel still has, and what has to be done next.
//!
//! Lives on: the core of the connection. Invariants: all transitions are in `Conn::next`; the descriptor is closed or handed over
//! only when the kernel has no operation of it any more (pitfall A1: shutdown, cancel by descriptor, wait for every completion,
//! close); the buffer of a send stays here until its completion. A connection costs `size_of::<Conn>()` = 56 bytes at most.

use crate::base::id::ConnId;
use crate::base::sealing::Sealing;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum State {
    /// The slot has no connection.
    #[default]
    Vacant,
    /// Receives and sends.
    Open,
    /// Goes to another core: stops receiving, sends what is gathered, then is handed over.
    Leaving,
    /// The host has ended it and everything was sent: the write side is shut, and what still arrives is thrown away until the
    /// peer's end of stream, so that no reset overtakes the last words.
    Farewell,
    /// Shut both ways: waits for its completions, then closes.
    Closing,
}

/// The operations that the kernel has of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ops {
    pub receive: bool,
    pub send: bool,
    pub cancel: bool,
}

/// What the driver has to do with a connection now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Wait,
    /// Cancel every operation on the descriptor.
    Cancel,
    /// Hand the descriptor to the host.
    Depart,
    /// Close the descriptor and release the line.
    Close,
}

#[derive(Default)]
pub(super) struct Conn {
    pub socket: i32,
    pub generation: u32,
    /// The buffer of the send that the kernel has, and how much of it was sent before.
    pub sending: Vec<u8>,
    pub sent: u32,
    /// What comes behind that buffer is encrypted by the kernel, with this.
    pub sealing: Option<Box<Sealing>>,
    pub state: State,
    pub ops: Ops,
    /// The host's wish to close was seen, and its deadline set.
    pub closing_noted: bool,
    /// The host wants nothing of it for a while: what the peer sends stays in the kernel.
    pub paused: bool,
}

impl Conn {
    pub fn open(socket: i32, generation: u32) -> Conn {
        Conn { socket, generation, state: State::Open, ..Conn::default() }
    }

    /// Whether `id` names this connection and not an earlier tenant of the slot.
    #[inline]
    pub fn is(&self, id: ConnId) -> bool {
        self.state != State::Vacant && self.generation == id.generation
    }

    /// Whether a multishot receive that ended is to be armed again.
    #[inline]
    pub fn receives(&self) -> bool {
        self.state == State::Farewell || self.state == State::Open && !self.paused
    }

    /// What to do next. `unsent`: the line holds bytes that the kernel doesn't have yet.
    pub fn next(&self, unsent: bool) -> Step {
        let idle = !self.ops.receive && !self.ops.send && !self.ops.cancel;
        match self.state {
            State::Vacant | State::Open | State::Farewell => Step::Wait,
            // The receive ends first: while it goes on, the host may find an answer to send for ever. What the cancel does to a
            // send is mended by sending again.
            State::Leaving if self.ops.receive && !self.ops.cancel => Step::Cancel,
            State::Leaving if idle && !unsent => Step::Depart,
            State::Closing if idle => Step::Close,
            State::Closing if !self.ops.cancel => Step::Cancel,
            State::Leaving | State::Closing => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(state: State, receive: bool, send: bool, cancel: bool) -> Conn {
        Conn { state, ops: Ops { receive, send, cancel }, ..Conn::open(3, 1) }
    }

    #[test]
    fn a_descriptor_is_given_up_only_when_the_kernel_has_nothing_of_it() {
        for bits in 0..16 {
            let (receive, send, cancel, unsent) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0);
            let idle = !receive && !send && !cancel;
            for state in [State::Vacant, State::Open, State::Farewell] {
                assert_eq!(conn(state, receive, send, cancel).next(unsent), Step::Wait);
            }
            let leaving = conn(State::Leaving, receive, send, cancel).next(unsent);
            assert_eq!(leaving == Step::Depart, idle && !unsent, "{bits}");
            assert_eq!(leaving == Step::Cancel, receive && !cancel, "only receiving is stopped, sends go on");
            let closing = conn(State::Closing, receive, send, cancel).next(unsent);
            assert_eq!(closing == Step::Close, idle, "{bits}");
            assert_eq!(closing == Step::Cancel, !idle && !cancel, "one cancel at a time, again until all is still");
        }
    }

    #[test]
    fn a_connection_is_small_and_knows_its_own_name() {
        assert!(size_of::<Conn>() <= 56, "{}", size_of::<Conn>());
        let conn = Conn::open(3, 7);
        assert!(conn.is(ConnId { slot: 0, generation: 7 }) && !conn.is(ConnId { slot: 0, generation: 6 }));
        assert!(!Conn::default().is(ConnId { slot: 0, generation: 0 }));
    }
}
