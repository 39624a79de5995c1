//! TLS 1.2 and 1.3 between a socket and a door, or another node's link: the peer's bytes in, plain bytes out, and the other way
//! round.
//!
//! Lives on: the core that owns the connection, and moves with it. Serves C8, G6, Z2; RFC 7590, RFC 8446, RFC 5246. Sans-IO over
//! rustls' unbuffered API. It is behind the feature `runtime`, and the one place of `front` that is no function of its input:
//! aws-lc-rs draws its own randomness, and rustls asks the clock how old a ticket is; the simulator has no TLS.
//!
//! Invariants: records leave in the order in which they were encrypted, because what rustls wants to say by itself (flights,
//! tickets, alerts) waits in `pending` and always goes first; between records no buffer is kept; whatever the peer sends, memory
//! is bounded by [`HANDSHAKE_BYTES`] and [`RECORD_BYTES`], and the peer is told the alert that TLS has for it. Renegotiation is
//! refused (TLS 1.2's `no_renegotiation`; asking twice ends the connection), early data is never taken.

mod end_point;
mod exporter;
mod link;
mod opening;
mod session;
mod terms;
mod validity;

pub use link::{BadCredentials, LinkCredentials, LinkIdentity};
pub use terms::{Application, BadIdentity, Certificates, Identity, Terms};

use crate::base::sealing::Sealing;
use crate::front::binding::{Bindings, EndPoint};
use crate::wire::link::Site;
use exporter::Heard;
use opening::Opening;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::EncryptError;
use rustls::{Error, ProtocolVersion};
use session::{Session, Words};
use std::sync::Arc;

/// Bytes that a handshake may take in all. At the limit: the alert `decode_error`.
pub const HANDSHAKE_BYTES: usize = 32 * 1024;
/// Bytes kept of what is not yet a whole record, or not yet a whole message of TLS itself: the longest record of TLS 1.2.
/// At the limit: the connection ends.
pub const RECORD_BYTES: usize = 5 + 16 * 1024 + 2048;
/// Plain bytes of a full record, and what a record adds to them at most (header, explicit nonce, content type, tag).
const RECORD_PLAIN: usize = 16 * 1024;
const RECORD_EXTRA: usize = 5 + 8 + 1 + 16;
/// Alerts (RFC 5246 7.2).
const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
/// About the microseconds of a core that a whole handshake takes, for budgets: measured with an ECDSA P-256 certificate.
pub const HANDSHAKE_US: u32 = 120;
/// The same for what is left of it once the server has answered: the client's key exchange (TLS 1.2) and Finished.
pub const FINISH_US: u32 = 30;
/// About what rustls keeps of an idle session on the heap (`tests/tls_memory.rs` holds it).
const SESSION_HEAP_BYTES: usize = 2752;
/// The same once the kernel encrypts.
const OPENING_HEAP_BYTES: usize = 1024;

/// Why a connection can't go on. What the peer is to be told is pending.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Tls(#[from] Error),
    #[error("the handshake takes more than {HANDSHAKE_BYTES} bytes")]
    HandshakeTooLong,
    #[error("a message of TLS itself takes more than {RECORD_BYTES} bytes")]
    MessageTooLong,
    /// TLS 1.2 has no way to new keys but a new connection, and nor have kernels.
    #[error("the keys have protected as many records as they may, or the peer says so")]
    KeysUsedUp,
}

/// One connection's TLS.
pub struct Tls {
    /// rustls' half of it; `None` once the kernel encrypts what is sent: then what is received is opened by `opening`.
    session: Option<Session>,
    opening: Option<Box<Opening>>,
    /// Whether the kernel is to encrypt, as soon as it can.
    kernel: bool,
    /// The start of a record, as it came.
    incoming: Vec<u8>,
    /// Records for the peer, made and not yet taken.
    pending: Vec<u8>,
    heard: Arc<Heard>,
    /// What a log-in can be bound to of the certificate.
    end_point: Option<EndPoint>,
    /// What the peer's second flight takes, in microseconds.
    finish_us: u32,
    handshake_bytes: usize,
    peer_closed: bool,
    /// It has failed, or we have closed it: nothing is taken any more, and nothing but what is pending is said.
    over: bool,
}

impl Tls {
    pub fn new(terms: &Terms, application: Application) -> Result<Tls, Fault> {
        let heard = Arc::new(Heard::default());
        let (config, identity) = terms.for_connection(application, heard.clone());
        let session = Session::Server(Box::new(UnbufferedServerConnection::new(config)?));
        Ok(Tls { kernel: terms.kernel(), heard, end_point: identity.end_point, ..Tls::of(session, FINISH_US) })
    }

    fn of(session: Session, finish_us: u32) -> Tls {
        Tls {
            session: Some(session),
            opening: None,
            kernel: false,
            incoming: Vec::new(),
            pending: Vec::new(),
            heard: Arc::default(),
            end_point: None,
            finish_us,
            handshake_bytes: 0,
            peer_closed: false,
            over: false,
        }
    }

    /// A link that another node has dialled.
    pub fn link_accepted(credentials: &LinkCredentials) -> Result<Tls, Fault> {
        let session = UnbufferedServerConnection::new(credentials.server())?;
        // What comes then is a certificate and its proof.
        Ok(Tls::of(Session::Server(Box::new(session)), HANDSHAKE_US))
    }

    /// A link that this node has dialled, to the node of these numbers and no other. What begins it is pending.
    pub fn link_dialled(credentials: &LinkCredentials, to: Site) -> Result<Tls, Fault> {
        let session = UnbufferedClientConnection::new(credentials.client(), link::name(to))?;
        let mut tls = Tls::of(Session::Client(Box::new(session)), HANDSHAKE_US);
        tls.received(&[], &mut Vec::new())?;
        Ok(tls)
    }

    /// Whether the peer has proved to be this node, once the handshake is done.
    pub fn is_peer(&self, site: Site) -> bool {
        let certificate = self.session.as_ref().and_then(|session| session.peer_certificates()?.first());
        !self.is_handshaking() && certificate.is_some_and(|certificate| link::is_for(certificate, site))
    }

    /// Takes bytes of the peer, cut anywhere. What they say is appended to `plain`. Records for the peer may be pending then.
    ///
    /// Errors: the connection can't go on; what was said before is in `plain`. Later bytes are dropped.
    pub fn received(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Fault> {
        if self.over || self.peer_closed {
            return Ok(());
        }
        if self.is_handshaking() {
            self.handshake_bytes += bytes.len();
        }
        self.incoming.extend_from_slice(bytes);
        let outcome = self.work_off(plain).and_then(|()| self.within_bounds());
        if outcome.is_err() {
            self.take_alert();
            self.end();
        } else if self.incoming.is_empty() || self.peer_closed {
            self.incoming = Vec::new();
        }
        outcome
    }

    /// Appends to `out` what is pending, and then `plain` in as few records as can be. Before the handshake is done, and after
    /// the end, there is nobody to read `plain`: it is dropped.
    ///
    /// Errors: the connection can't go on.
    pub fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        self.flush(out);
        if plain.is_empty() || self.over || self.is_handshaking() {
            return Ok(());
        }
        if let Some(opening) = &mut self.opening {
            out.extend_from_slice(plain);
            let sent = opening.count(plain.len().div_ceil(RECORD_PLAIN));
            return sent.inspect_err(|_| self.end());
        }
        let room = plain.len() + plain.len().div_ceil(RECORD_PLAIN) * RECORD_EXTRA;
        let sent = self.write(out, room, Words::Plain(plain));
        if sent.is_err() {
            self.end();
        }
        sent
    }

    /// Appends to `out` what is pending, and that nothing more will come (close_notify). A peer whose handshake is not done is
    /// told nothing. What it sends later is dropped.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.flush(out);
        // Where the kernel encrypts, the driver says goodbye.
        if !self.over && !self.is_handshaking() && self.opening.is_none() {
            // A session that can't encrypt its goodbye leaves without one.
            _ = self.write(out, RECORD_EXTRA + 2, Words::Goodbye);
        }
        self.end();
    }

    /// Whether `send` has something to say although there are no plain bytes.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the peer has said that nothing more will come from it (close_notify).
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    pub fn is_handshaking(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_handshaking())
    }

    /// What the kernel needs to encrypt everything that is sent from now on, if it is to and can; once. Ask when all that was
    /// encrypted here has been taken. What `send` appends then is plain.
    pub fn hand_over(&mut self) -> Option<Box<Sealing>> {
        if !self.kernel || self.over || self.has_pending() {
            return None;
        }
        let Some(Session::Server(session)) = self.session.take_if(|session| opening::fits(session)) else { return None };
        match opening::take_apart(*session) {
            Ok((sealing, opening)) => {
                self.opening = Some(Box::new(opening));
                Some(Box::new(sealing))
            }
            // It was looked at before: nothing is left to speak with.
            Err(_) => {
                self.end();
                None
            }
        }
    }

    /// About the microseconds that the peer's next bytes may take at most, besides what is said in them.
    pub fn cost_us(&self) -> u32 {
        match &self.session {
            Some(session) if !self.over && session.is_handshaking() => match session.protocol_version() {
                Some(_) => self.finish_us,
                None => HANDSHAKE_US,
            },
            _ => 0,
        }
    }

    /// What a log-in can be bound to, once the handshake is done. In TLS 1.2 there is no tls-exporter: clients don't agree there
    /// what an empty context is (RFC 5705 4), and so would fail to log in.
    pub fn bindings(&self) -> Bindings {
        match self.is_handshaking() {
            true => Bindings::default(),
            false => Bindings { exporter: self.heard.binding(), end_point: self.end_point },
        }
    }

    /// What client and server have agreed to speak inside (ALPN), once it is known.
    pub fn application_protocol(&self) -> Option<&[u8]> {
        self.session.as_ref()?.alpn_protocol()
    }

    /// Bytes on the heap: its own, and about those of rustls.
    pub fn heap_bytes(&self) -> usize {
        let session = match &self.session {
            Some(session) => session.size() + SESSION_HEAP_BYTES,
            None => size_of::<Opening>() + OPENING_HEAP_BYTES,
        };
        self.incoming.capacity() + self.pending.capacity() + size_of::<Heard>() + session
    }

    /// All whole records that are there.
    fn work_off(&mut self, plain: &mut Vec<u8>) -> Result<(), Fault> {
        if let Some(opening) = &mut self.opening {
            self.peer_closed |= opening.work_off(&mut self.incoming, plain)?;
            return Ok(());
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        let (closed, outcome) = session.work_off(&mut self.incoming, &mut self.pending, plain);
        self.peer_closed |= closed;
        outcome
    }

    fn within_bounds(&self) -> Result<(), Fault> {
        if self.is_handshaking() && self.handshake_bytes > HANDSHAKE_BYTES {
            return Err(Fault::HandshakeTooLong);
        }
        if !self.is_handshaking() && self.incoming.len() > RECORD_BYTES {
            return Err(Fault::MessageTooLong);
        }
        Ok(())
    }

    /// After a fault: the alert that rustls has for the peer, or one of ours while it can be said in the clear.
    fn take_alert(&mut self) {
        let before = self.pending.len();
        // Nothing is read any more: rustls gives what it has to say before it looks at the bytes that came.
        let Some(session) = &mut self.session else { return };
        session.flush(&mut self.pending);
        if self.pending.len() == before && session.is_handshaking() {
            match session.protocol_version() {
                None => self.pending.extend_from_slice(&[21, 3, 3, 0, 2, 2, DECODE_ERROR]),
                // rustls says nothing where TLS 1.2 leaves no signature that our key could make.
                Some(ProtocolVersion::TLSv1_2) => self.pending.extend_from_slice(&[21, 3, 3, 0, 2, 2, HANDSHAKE_FAILURE]),
                Some(_) => {}
            }
        }
    }

    fn end(&mut self) {
        self.over = true;
        self.incoming = Vec::new();
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            std::mem::swap(out, &mut self.pending);
        } else {
            out.extend_from_slice(&self.pending);
        }
        self.pending = Vec::new();
    }

    fn write(&mut self, out: &mut Vec<u8>, room: usize, words: Words<'_>) -> Result<(), Fault> {
        let Some(session) = &mut self.session else { return Err(Error::HandshakeNotComplete.into()) };
        session.write(&mut self.incoming, words, room, out)
    }
}

/// Appends what is encrypted into the room it needs.
fn fill(
    out: &mut Vec<u8>,
    mut room: usize,
    mut encrypt: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Fault> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        let written = encrypt(&mut out[start..]);
        match written {
            Err(EncryptError::InsufficientSize(needed)) if needed.required_size > room => room = needed.required_size,
            written => {
                out.truncate(start + written.as_ref().unwrap_or(&0));
                return written.map(|_| ()).map_err(|_| Fault::KeysUsedUp);
            }
        }
    }
}
