//! A door that doesn't speak native frames is a translator: what comes becomes a native client's frames, and the server's native
//! frames become what goes out.
//!
//! Lives on: the core that owns the connection, and moves with it. Serves C8, G6. Pure. Invariants: rules, order, limits and
//! fan-out have one place, the native door and what is behind it; a translator adds none of its own but those of its protocol's
//! grammar. Whatever a translator wants to say by itself goes through the connection's line like any frame, as a frame of kind
//! `wire::frame::RAW`, so that everything goes out in the order in which it was decided.

use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::sealing::Sealing;
use crate::front::binding::Bindings;
use crate::front::json;
use crate::front::xmpp::Memory;
use crate::wire::form::Form;
use crate::wire::link::Site;

/// The first byte of a TLS handshake (RFC 8446 5.1). Nothing that is spoken in the clear begins so: the length of a native frame's
/// body is a multiple of 8, and everything else is text.
pub const HANDSHAKE: u8 = 22;

/// What is to happen with the peer's next bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// They come here.
    Here,
    /// They are TLS, once what was replied has gone out (RFC 6120 5.4.2.3).
    Secure,
    /// They come here, and the connection is private from now on. Its native door is a new one: nothing that was said before counts
    /// (RFC 6120 5.4.3.3).
    Private,
}

/// What lies between a peer and its door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Whoever is on the way can read and change it.
    Clear,
    /// TLS, with what a log-in can be bound to.
    Private(Bindings),
}

impl Channel {
    /// What SCRAM's -PLUS mechanisms bind to; they are offered where there is any.
    pub fn bindings(self) -> Bindings {
        match self {
            Channel::Clear => Bindings::default(),
            Channel::Private(bindings) => bindings,
        }
    }
}

/// One connection's translator.
pub trait Translate: Send {
    /// Bytes of the peer, cut anywhere. Appends native client frames (whole) to `frames`, and server frames, mostly `RAW` ones, to
    /// `replies`; they are taken as if the shard had said them.
    ///
    /// Errors: the reason to end the connection with, once `frames` and `replies` have been worked off. The shard then says it in
    /// an `Error` frame, which comes back through `send`.
    fn received(&mut self, bytes: &[u8], core: &mut Core<'_>, frames: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<Next, Reason>;

    /// Server frames (whole) become the peer's bytes, appended to `out`. An `Error` with a reason of 100 or more is the last one:
    /// the translator says it in its protocol's words, and the protocol's goodbye.
    fn send(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>);

    /// The connection is private from here on, and its native door is a new one: nothing that was said before counts (RFC 6120
    /// 5.4.3.3).
    fn secured(&mut self);

    /// The connection ends: what `send` is given next is the last.
    fn ending(&mut self) {}

    /// The connection has broken, or is over.
    fn lost(&mut self, _core: &mut Core<'_>) {}

    /// For how many milliseconds a peer whose connection breaks can come back to its session, if the core keeps it so long. 0: the
    /// session ends with the connection.
    fn resumable_ms(&self) -> u32 {
        u32::MAX
    }

    /// How the peer's presence events are to stand on its line, once it has a session.
    fn form(&self) -> Form;

    /// What lies between the peer and its door.
    fn channel(&self) -> Channel {
        Channel::Clear
    }

    /// Whether the peer has proved to be this node.
    fn is_peer(&self, _site: Site) -> bool {
        false
    }

    /// About the microseconds of a core that a handshake may take with the peer's next bytes; 0: none is to come.
    fn handshake_us(&self) -> u32 {
        0
    }

    /// Bytes this holds on the heap, itself included.
    fn heap_bytes(&self) -> usize;
}

/// What the core lends a translator.
pub struct Core<'a> {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// Milliseconds since this core's start.
    pub uptime_ms: u64,
    /// Fresh random numbers, for identifiers.
    pub random: &'a mut dyn FnMut() -> u64,
    /// The users whose events come.
    pub users: &'a dyn Users,
    /// What the XMPP connections of this core share.
    pub xmpp: &'a mut Memory,
    /// The same of those that speak JSON.
    pub json: &'a mut json::Memory,
    /// Client frames that follow from what `send` was given (an `Ack` for messages that went out): worked off behind it, as those
    /// of `received` are.
    pub follow: &'a mut Vec<u8>,
    /// Counted by `received`: replies that can wait for company, since nobody waits for them.
    pub unhurried: usize,
    /// Set by `received` where another node's TLS has failed: why, for the operator.
    pub fault: Option<String>,
    /// Set by `send`: what the kernel needs to encrypt everything that goes out behind what was appended.
    pub sealing: Option<Box<Sealing>>,
    /// Set by `send`: the reason to end the connection with, once what was appended has gone out and `follow` was worked off. The
    /// translator has said its goodbye.
    pub end: Option<Reason>,
}

impl<'a> Core<'a> {
    /// What a core lends, at the beginning of all times; nothing is asked for yet.
    pub fn lending(
        random: &'a mut dyn FnMut() -> u64,
        users: &'a dyn Users,
        (xmpp, json): (&'a mut Memory, &'a mut json::Memory),
        follow: &'a mut Vec<u8>,
    ) -> Core<'a> {
        Core { wall_ms: 0, uptime_ms: 0, random, users, xmpp, json, follow, unhurried: 0, fault: None, sealing: None, end: None }
    }

    /// Lends what a core of no node would.
    #[cfg(test)]
    pub(super) fn with<T>(users: &dyn Users, work: impl FnOnce(&mut Core<'_>) -> T) -> T {
        let (mut xmpp, mut json, mut follow) = (Memory::default(), json::Memory::default(), Vec::new());
        work(&mut Core::lending(&mut || 4, users, (&mut xmpp, &mut json), &mut follow))
    }
}

/// Who the publishers of events are.
pub trait Users {
    fn jid(&self, user: UserId) -> Option<&Bare>;
}
