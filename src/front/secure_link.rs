//! Another node's link inside TLS, in which both ends prove who they are.
//!
//! Lives on: the core that owns the connection, and moves with it. Serves Z2, G4. What the lane's machine says before the handshake
//! is done waits here: it is a hello. Invariants: nothing that came in the clear is read as a link's; a peer that speaks without
//! TLS hears, in the clear, that this is why there will be nothing. A link's end is said inside (`Bye`), so nothing hangs on
//! close_notify.

use super::binding::Bindings;
use super::native::NativeFrames;
use super::tls::{Fault, HANDSHAKE_US, LinkCredentials, Tls};
use super::translate::{Channel, Core, HANDSHAKE, Next, Translate};
use crate::base::reason::{LinkReason, Reason};
use crate::wire::form::Form;
use crate::wire::frame;
use crate::wire::link::{Frame, Site};
use std::sync::Arc;

/// Bytes that may wait for the handshake: a hello. At the limit the rest is dropped, and the peer finds a gap in it.
const WAITING_BYTES: usize = 1024;
/// The first byte of an alert (RFC 8446 5.1).
const ALERT: u8 = 21;

/// One connection of a link.
pub struct SecureLink {
    stage: Stage,
    /// What waits for the handshake.
    waiting: Vec<u8>,
    ending: bool,
    inner: NativeFrames,
}

enum Stage {
    /// Another node has dialled; nothing has come yet.
    Accepted(Arc<LinkCredentials>),
    Tls {
        tls: Box<Tls>,
        has_heard: bool,
    },
    /// The peer speaks without TLS. It hears so once.
    Clear {
        is_told: bool,
    },
}

impl SecureLink {
    /// A connection that another node has made.
    pub fn accepted(credentials: Arc<LinkCredentials>) -> SecureLink {
        SecureLink::at(Stage::Accepted(credentials))
    }

    /// A connection that was made to this node.
    ///
    /// # Errors
    /// rustls can't begin.
    pub fn dialled(credentials: &LinkCredentials, to: Site) -> Result<SecureLink, Fault> {
        let tls = Box::new(Tls::link_dialled(credentials, to)?);
        Ok(SecureLink::at(Stage::Tls { tls, has_heard: false }))
    }

    fn at(stage: Stage) -> SecureLink {
        SecureLink { stage, waiting: Vec::new(), ending: false, inner: NativeFrames }
    }
}

impl Translate for SecureLink {
    fn received(&mut self, bytes: &[u8], core: &mut Core<'_>, frames: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<Next, Reason> {
        let is_first = !matches!(self.stage, Stage::Tls { has_heard: true, .. });
        if is_first && !matches!(bytes.first(), Some(&(HANDSHAKE | ALERT))) {
            self.stage = Stage::Clear { is_told: matches!(self.stage, Stage::Clear { is_told: true }) };
            core.fault = Some(LinkReason::NotAlike.text().to_owned());
            frame::write_raw(replies, 0, |_| ());
            return Err(Reason::TlsFailed);
        }
        if let Stage::Accepted(credentials) = &self.stage {
            let tls = Tls::link_accepted(credentials).map(Box::new).map_err(|_| Reason::TlsFailed)?;
            self.stage = Stage::Tls { tls, has_heard: true };
        }
        let Stage::Tls { tls, has_heard } = &mut self.stage else { return Err(Reason::TlsFailed) };
        *has_heard = true;
        let taken = tls.received(bytes, frames);
        if tls.has_pending() || !tls.is_handshaking() && !self.waiting.is_empty() {
            // An empty word, so that the line is looked at.
            frame::write_raw(replies, 0, |_| ());
        }
        match taken {
            Err(fault) => {
                core.fault = Some(fault.to_string());
                Err(Reason::TlsFailed)
            }
            Ok(()) if tls.peer_closed() => Err(Reason::ConnectionLost),
            Ok(()) => Ok(Next::Here),
        }
    }

    fn send(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>) {
        let tls = match &mut self.stage {
            Stage::Tls { tls, .. } => tls,
            Stage::Clear { is_told } if !*is_told => {
                *is_told = true;
                return out.extend_from_slice(&Frame::Refusal(LinkReason::NotAlike).encode());
            }
            Stage::Accepted(_) | Stage::Clear { .. } => return,
        };
        let mut plain = std::mem::take(&mut self.waiting);
        plain.reserve_exact(frames.len());
        self.inner.send(frames, core, &mut plain);
        if tls.is_handshaking() {
            plain.truncate(WAITING_BYTES);
            self.waiting = plain;
            plain = Vec::new();
        }
        if tls.send(&plain, out).is_err() {
            core.end = core.end.or(Some(Reason::ConnectionLost));
        }
        if self.ending {
            tls.close(out);
        }
    }

    fn secured(&mut self) {}

    fn ending(&mut self) {
        self.ending = true;
    }

    fn form(&self) -> Form {
        Form::Native
    }

    fn channel(&self) -> Channel {
        match &self.stage {
            Stage::Tls { tls, .. } if !tls.is_handshaking() => Channel::Private(Bindings::default()),
            _ => Channel::Clear,
        }
    }

    fn is_peer(&self, site: Site) -> bool {
        matches!(&self.stage, Stage::Tls { tls, .. } if tls.is_peer(site))
    }

    fn handshake_us(&self) -> u32 {
        match &self.stage {
            Stage::Accepted(_) => HANDSHAKE_US,
            Stage::Tls { tls, .. } => tls.cost_us(),
            Stage::Clear { .. } => 0,
        }
    }

    fn heap_bytes(&self) -> usize {
        let tls = if let Stage::Tls { tls, .. } = &self.stage { size_of::<Tls>() + tls.heap_bytes() } else { 0 };
        size_of::<SecureLink>() + self.waiting.capacity() + tls
    }
}
