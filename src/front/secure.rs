//! A translator behind TLS: from the first byte on (XEP-0368, wss), or once its peer has asked for it (STARTTLS).
//!
//! Lives on: the core that owns the connection, and moves with it. Serves C8; RFC 6120 5. Invariants: nothing that came in the
//! clear counts once a connection is private; what ends the connection ends TLS properly (close_notify), so that nobody on the
//! way can pretend it.

use super::tls::{Application, HANDSHAKE_US, Terms, Tls};
use super::translate::{Channel, Core, HANDSHAKE, Next, Translate};
use crate::base::reason::Reason;
use crate::wire::form::Form;
use crate::wire::frame;

/// A door inside TLS.
pub struct Secure {
    terms: Terms,
    application: Application,
    stage: Stage,
    /// What is said now is the last.
    ending: bool,
    inner: Box<dyn Translate>,
}

enum Stage {
    /// The first byte tells.
    First,
    /// The peer may ask for TLS.
    Clear,
    /// It has asked, or need not: what comes next is a handshake.
    Asked,
    Handshake(Box<Tls>),
    Private(Box<Tls>),
}

impl Secure {
    /// A connection that begins with a handshake.
    pub fn direct(terms: Terms, application: Application, inner: Box<dyn Translate>) -> Secure {
        Secure { terms, application, stage: Stage::Asked, ending: false, inner }
    }

    /// A connection whose first byte tells whether it begins with a handshake.
    pub fn either(terms: Terms, application: Application, inner: Box<dyn Translate>) -> Secure {
        Secure { terms, application, stage: Stage::First, ending: false, inner }
    }

    /// One whose translator says when TLS begins, by [`Next::Secure`].
    pub fn later(terms: Terms, application: Application, inner: Box<dyn Translate>) -> Secure {
        Secure { terms, application, stage: Stage::Clear, ending: false, inner }
    }

    fn decrypted(
        &mut self,
        bytes: &[u8],
        core: &mut Core<'_>,
        frames: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> Result<Next, Reason> {
        let (Stage::Handshake(tls) | Stage::Private(tls)) = &mut self.stage else { unreachable!("the caller looked") };
        let mut plain = Vec::with_capacity(bytes.len());
        let taken = tls.received(bytes, &mut plain);
        if tls.has_pending() {
            // An empty word, so that the line is looked at.
            frame::write_raw(replies, 0, |_| ());
        }
        let (is_done, is_over) = (!tls.is_handshaking(), tls.peer_closed());
        let mut next = Next::Here;
        if is_done && matches!(self.stage, Stage::Handshake(_)) {
            let Stage::Handshake(tls) = std::mem::replace(&mut self.stage, Stage::Clear) else { unreachable!("just matched") };
            self.stage = Stage::Private(tls);
            self.inner.secured();
            next = Next::Private;
        }
        if !plain.is_empty() {
            self.inner.received(&plain, core, frames, replies)?;
        }
        match taken {
            Err(_) => Err(Reason::TlsFailed),
            Ok(()) if is_over => Err(Reason::ConnectionLost),
            Ok(()) => Ok(next),
        }
    }
}

fn begin(terms: &Terms, application: Application) -> Result<Box<Tls>, Reason> {
    Tls::new(terms, application).map(Box::new).map_err(|_| Reason::TlsFailed)
}

impl Translate for Secure {
    fn received(&mut self, bytes: &[u8], core: &mut Core<'_>, frames: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<Next, Reason> {
        if matches!(self.stage, Stage::First) {
            self.stage = if bytes.starts_with(&[HANDSHAKE]) { Stage::Asked } else { Stage::Clear };
        }
        match self.stage {
            Stage::First | Stage::Clear => {
                if self.inner.received(bytes, core, frames, replies)? == Next::Secure {
                    self.stage = Stage::Asked;
                }
                return Ok(Next::Here);
            }
            Stage::Asked => self.stage = Stage::Handshake(begin(&self.terms, self.application)?),
            Stage::Handshake(_) | Stage::Private(_) => {}
        }
        self.decrypted(bytes, core, frames, replies)
    }

    fn send(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>) {
        let (Stage::Handshake(tls) | Stage::Private(tls)) = &mut self.stage else {
            return self.inner.send(frames, core, out);
        };
        // Events stand there in the peer's words already: room for all at once is cheaper than growing.
        let mut plain = Vec::with_capacity(frames.len());
        self.inner.send(frames, core, &mut plain);
        if tls.send(&plain, out).is_err() {
            // It can't be encrypted any more. Whoever can comes back to his session.
            core.end = core.end.or(Some(Reason::ConnectionLost));
        } else if !plain.is_empty() {
            core.sealing = tls.hand_over();
        }
        if self.ending {
            tls.close(out);
        }
    }

    fn secured(&mut self) {
        self.inner.secured();
    }

    fn ending(&mut self) {
        self.ending = true;
    }

    fn lost(&mut self, core: &mut Core<'_>) {
        self.inner.lost(core);
    }

    fn resumable_ms(&self) -> u32 {
        self.inner.resumable_ms()
    }

    fn form(&self) -> Form {
        self.inner.form()
    }

    fn channel(&self) -> Channel {
        match &self.stage {
            Stage::Private(tls) => Channel::Private(tls.bindings()),
            Stage::First | Stage::Clear | Stage::Asked | Stage::Handshake(_) => Channel::Clear,
        }
    }

    fn handshake_us(&self) -> u32 {
        match &self.stage {
            Stage::First | Stage::Asked => HANDSHAKE_US,
            Stage::Handshake(tls) => tls.cost_us(),
            Stage::Clear | Stage::Private(_) => 0,
        }
    }

    fn heap_bytes(&self) -> usize {
        let tls = match &self.stage {
            Stage::First | Stage::Clear | Stage::Asked => 0,
            Stage::Handshake(tls) | Stage::Private(tls) => size_of::<Tls>() + tls.heap_bytes(),
        };
        size_of::<Secure>() + tls + self.inner.heap_bytes()
    }
}
