//! The native door: one client connection, from Hello to its end.
//!
//! Lives on: the core that owns the connection. Serves G2, and what the mission asks about bad input. Invariants: a frame is
//! handed out only when it may come now (Hello, then LogIn, Register or Resume, then the rest up to LogOut, then LogIn anew) and
//! its body is verified; whether it may is decided by the frames before it, however they were cut into packets; of a session that
//! the host has ended frames still come; an idle door keeps nothing on the heap.
//!
//! The host calls [`Door::next`] until it has no more for each chunk. After `LogIn`, `Register`, `Resume`, `SaslResponse` and
//! `Bind` the door waits to be told the outcome: [`Door::challenged`], [`Door::authenticated`], [`Door::opened`],
//! [`Door::opened_trunk`], [`Door::registered`] or [`Door::refused`]; or, right there, the connection leaves for another core:
//! [`Door::leave`].

use super::translate::{Core, Next, Translate};
use crate::base::limits::{Limits, NATIVE_VERSION};
use crate::base::reason::Reason;
use crate::wire::decode::{self, ClientFrame};
use crate::wire::encode::Tag;
use crate::wire::form::Form;
use crate::wire::frame::{self, Chunk, Frames, Header};
use crate::wire::native::Kind;

/// Bytes that may arrive for a connection on its way to another core. At the limit: `flood`.
pub const PARTING_BYTES: usize = 1 << 20;

/// What a core holds its client connections to, worked out once from its limits.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    max_frame: u32,
    attempts: u32,
}

impl Rules {
    pub fn new(limits: &Limits) -> Rules {
        Rules { max_frame: limits.frame_bytes, attempts: limits.log_in_attempts }
    }
}

/// A client's frame: verified, allowed and in order.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    pub tag: Tag,
    /// Length of the frame, header included.
    pub bytes: u32,
    /// It came on a trunk, where stream 0 is the connection itself.
    pub on_trunk: bool,
    pub frame: ClientFrame<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// Nothing came yet.
    #[default]
    Connected,
    /// Hello came; nobody is logged in.
    Greeted,
    /// The host decides on a log-in.
    Deciding,
    /// The client was challenged.
    Challenged,
    /// The client has proved who it is, and may bind a session.
    Authenticated,
    /// The host decides on a Bind.
    Binding,
    /// A session is open.
    Open,
    /// The host has ended the session; the client may not know it yet.
    Ended,
    /// The connection is a trunk.
    Trunk,
}

/// The state of one connection. A new one is `Door::default()`.
#[derive(Default, Debug)]
pub struct Door {
    frames: Frames,
    failed: u32,
    stage: Stage,
}

impl Door {
    /// The next frame of a chunk, or `None` when the chunk is used up.
    ///
    /// Errors: the reason to end the connection with; don't call again after one.
    #[inline]
    pub fn next<'s, 'a: 's>(&'s mut self, chunk: &mut Chunk<'a>, rules: &Rules) -> Result<Option<Incoming<'s>>, Reason> {
        let Some(frame) = self.frames.next(chunk, rules.max_frame)? else { return Ok(None) };
        let header = frame.header;
        if self.stage == Stage::Trunk {
            trunk_may_send(header)?;
        } else {
            self.stage = self.stage.after(header)?;
        }
        let incoming = decode::from_client(header.kind, frame.body)?;
        if let ClientFrame::Hello(hello) = incoming
            && !(hello.lowest()..=hello.version()).contains(&NATIVE_VERSION)
        {
            return Err(Reason::UnknownVersion);
        }
        let tag = Tag { stream: header.stream, request: header.request };
        let on_trunk = self.stage == Stage::Trunk;
        Ok(Some(Incoming { tag, bytes: header.frame_bytes() as u32, on_trunk, frame: incoming }))
    }

    /// The client was sent a SaslChallenge.
    pub fn challenged(&mut self) {
        self.decided(Stage::Challenged);
    }

    /// The client was sent Authenticated.
    pub fn authenticated(&mut self) {
        self.decided(Stage::Authenticated);
    }

    /// The client was sent LoggedIn.
    pub fn opened(&mut self) {
        self.decided(Stage::Open);
    }

    /// The connection is a trunk from now on: every frame but Ping, Pong and LogOut names one of its streams.
    pub fn opened_trunk(&mut self) {
        self.decided(Stage::Trunk);
    }

    /// The account was made; the client may log in.
    pub fn registered(&mut self) {
        self.decided(Stage::Greeted);
    }

    /// The log-in, the registration or the Bind failed; the client may try again.
    ///
    /// Errors: `TooManyAttempts`, to end the connection with.
    pub fn refused(&mut self, rules: &Rules) -> Result<(), Reason> {
        self.decided(if self.stage == Stage::Binding { Stage::Authenticated } else { Stage::Greeted });
        self.failed += 1;
        if self.failed < rules.attempts { Ok(()) } else { Err(Reason::TooManyAttempts) }
    }

    fn decided(&mut self, stage: Stage) {
        assert!(self.is_deciding(), "a log-in is decided once, after it was asked for");
        self.stage = stage;
    }

    /// The host has ended the session and the connection goes on: the client may log in again, as behind a LogOut of its own.
    pub fn ended(&mut self) {
        assert_eq!(self.stage, Stage::Open, "only an open session ends");
        self.stage = Stage::Ended;
    }

    /// Whether a log-in or a Bind waits for the host's decision.
    pub fn is_deciding(&self) -> bool {
        matches!(self.stage, Stage::Deciding | Stage::Binding)
    }

    /// Whether nothing has come yet.
    pub fn is_new(&self) -> bool {
        self.stage == Stage::Connected && self.frames.is_empty()
    }

    pub fn is_trunk(&self) -> bool {
        self.stage == Stage::Trunk
    }

    /// Takes the connection back to before the LogIn or Resume just handed out, so that another core can go on from there.
    /// `chunk` is the one that frame was read from.
    pub fn leave(mut self, chunk: Chunk<'_>) -> Parting {
        self.decided(Stage::Greeted);
        let unread = std::mem::take(&mut self.frames).unread_last(chunk);
        Parting { door: self, unread }
    }

    /// Goes on with a connection that left another core. Feed the bytes to `next` before anything newly received.
    pub fn resume_from(parting: Parting) -> (Door, Vec<u8>) {
        (parting.door, parting.unread)
    }

    /// Bytes this holds on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.frames.heap_bytes()
    }
}

/// A connection on its way to another core: its door, and every byte that was not acted on.
#[derive(Debug)]
pub struct Parting {
    door: Door,
    unread: Vec<u8>,
}

impl Parting {
    /// Of a connection of which no door has read anything.
    pub fn unread(unread: Vec<u8>) -> Parting {
        Parting { door: Door::default(), unread }
    }

    /// Adds what was received after the door had left.
    ///
    /// Errors: `Flood` above [`PARTING_BYTES`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        if self.unread.len() + bytes.len() > PARTING_BYTES {
            return Err(Reason::Flood);
        }
        self.unread.extend_from_slice(bytes);
        Ok(())
    }
}

impl Stage {
    /// The stage a frame leads to, when it may come now.
    #[inline]
    fn after(self, header: Header) -> Result<Stage, Reason> {
        if header.stream != 0 {
            return Err(Reason::BadFrame);
        }
        let kind = header.kind;
        let begins = matches!(kind, Kind::LogIn | Kind::Resume | Kind::Register);
        match self {
            Stage::Connected if kind == Kind::Hello => Ok(Stage::Greeted),
            Stage::Connected => Err(Reason::OutOfOrder),
            _ if matches!(kind, Kind::Ping | Kind::Pong) => Ok(self),
            Stage::Greeted | Stage::Ended if begins => Ok(Stage::Deciding),
            Stage::Challenged if kind == Kind::SaslResponse => Ok(Stage::Deciding),
            Stage::Authenticated if matches!(kind, Kind::Bind | Kind::Resume) => Ok(Stage::Binding),
            Stage::Open | Stage::Ended if kind == Kind::LogOut => Ok(Stage::Greeted),
            Stage::Open | Stage::Ended if !begins && !matches!(kind, Kind::Hello | Kind::SaslResponse | Kind::Bind) => Ok(self),
            _ => Err(Reason::OutOfOrder),
        }
    }
}

/// A trunk's sessions log in one by one; only the connection's own frames carry stream 0.
#[inline]
fn trunk_may_send(header: Header) -> Result<(), Reason> {
    match header.kind {
        Kind::Hello | Kind::SaslResponse | Kind::Bind | Kind::Register => Err(Reason::OutOfOrder),
        Kind::Ping | Kind::Pong | Kind::LogOut => Ok(()),
        _ if header.stream == 0 => Err(Reason::BadFrame),
        _ => Ok(()),
    }
}

/// The translator of native frames inside TLS: it changes nothing.
pub struct NativeFrames;

impl Translate for NativeFrames {
    fn received(&mut self, bytes: &[u8], _: &mut Core<'_>, frames: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<Next, Reason> {
        frames.extend_from_slice(bytes);
        Ok(Next::Here)
    }

    /// All but the empty words of the TLS below.
    fn send(&mut self, frames: &[u8], _: &mut Core<'_>, out: &mut Vec<u8>) {
        let (mut from, mut at) = (0, 0);
        for frame in frame::each_whole(frames) {
            let end = at + frame.header.frame_bytes();
            if frame.header.kind == frame::RAW {
                out.extend_from_slice(&frames[from..at]);
                from = end;
            }
            at = end;
        }
        out.extend_from_slice(&frames[from..]);
    }

    fn secured(&mut self) {}

    fn form(&self) -> Form {
        Form::Native
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}
