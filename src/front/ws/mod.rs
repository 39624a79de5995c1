//! The WebSocket door (RFC 6455): one connection, from its HTTP request to its Close frame, and what is spoken inside.
//!
//! Lives on: the core that owns the connection, and moves with it. Serves C8, G6. Pure. A client asks for `/ws` (native frames in
//! binary messages, or the JSON of `front::json`), for `/xmpp-websocket` (RFC 7395), or for a page. Invariants: one message in is
//! one call of the translator inside, one message it writes is one frame out; nothing follows our Close frame; a Close frame or an
//! HTTP answer is the last that goes out before the connection closes; every frame of a client counts against its rate, those
//! that only WebSocket knows too.

pub mod pages;
pub mod read;
mod rules;
#[cfg(test)]
mod tests;
pub mod upgrade;
pub mod write;

pub use rules::{Protocol, Rules};

use super::json::Json;
use super::translate::{Core, Next, Translate};
use super::xmpp::Xmpp;
use crate::base::reason::Reason;
use crate::wire::decode::{self, ServerFrame};
use crate::wire::encode::{Encoder, Tag};
use crate::wire::form::Form;
use crate::wire::frame::{Frame, HEADER_BYTES, Header, RAW, each_whole, write_raw};
use crate::wire::native::Kind;
use read::{Incoming, Reader};
use std::sync::Arc;
use thin_vec::ThinVec;
use upgrade::{Refusal, Request};
use write::Opcode;

/// The `request` of a `RAW` frame that holds bytes of the socket: an HTTP answer, a Pong, an event written in JSON at fan-out.
/// Translators inside use other numbers.
pub const OWN: u32 = u32::MAX;
/// The same, and nothing goes out after it.
const LAST_WORD: u32 = u32::MAX - 1;

/// One connection's translator.
pub struct WebSocket {
    rules: Arc<Rules>,
    stage: Stage,
    reader: Reader,
    /// Whether the native door has been greeted: from then on it counts what comes.
    greeted: bool,
    /// Goodbye was decided on: nothing that comes is heard.
    over: bool,
    /// Goodbye has gone out: nothing follows it.
    ended: bool,
    /// TLS is below.
    secure: bool,
}

enum Stage {
    /// The request so far.
    Asking(ThinVec<u8>),
    Open(Inside),
}

/// What is spoken inside.
enum Inside {
    Native,
    Json(Json),
    Xmpp(Box<Xmpp>),
}

impl WebSocket {
    pub fn new(rules: Arc<Rules>) -> WebSocket {
        let stage = Stage::Asking(ThinVec::new());
        WebSocket { rules, stage, reader: Reader::default(), greeted: false, over: false, ended: false, secure: false }
    }

    /// Goes on with the request; then the connection is a WebSocket, or over.
    fn ask(&mut self, input: &mut &[u8], core: &mut Core<'_>, frames: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<(), Reason> {
        let Stage::Asking(kept) = &mut self.stage else { return Ok(()) };
        let (mut reply, scheme) = (Vec::new(), if self.secure { "wss" } else { "ws" });
        let Some(request) = upgrade::read(kept, input, &self.rules, scheme, &mut reply) else { return Ok(()) };
        let Request::Accepted(protocol) = request else {
            write_raw(replies, LAST_WORD, |out| out.extend_from_slice(&reply));
            return Err(self.over());
        };
        write_raw(replies, OWN, |out| out.extend_from_slice(&reply));
        self.stage = Stage::Open(match protocol {
            Protocol::Native => Inside::Native,
            Protocol::Json => Inside::Json(Json::start(core.json, frames)),
            Protocol::Xmpp => Inside::Xmpp(self.xmpp()),
        });
        self.greeted = protocol == Protocol::Json;
        Ok(())
    }

    fn xmpp(&self) -> Box<Xmpp> {
        let rules = self.rules.xmpp.clone().expect("else it is not offered");
        let mut xmpp = Box::new(Xmpp::over_messages(rules, write::wrap_text));
        if self.secure {
            xmpp.secured();
        }
        xmpp
    }

    /// One frame of the client, when a whole one is there.
    fn step(
        &mut self,
        input: &mut &[u8],
        core: &mut Core<'_>,
        frames: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> Result<Option<Next>, Reason> {
        let Stage::Open(inside) = &mut self.stage else { return Ok(None) };
        let incoming = match self.reader.next(input, self.rules.message_bytes) {
            Ok(incoming) => incoming,
            Err(fault) => return Err(self.close(fault.code, fault.text, Reason::BadFrame, replies)),
        };
        let Some(incoming) = incoming else { return Ok(None) };
        match incoming {
            Incoming::Text(_) | Incoming::Binary(_) => self.greeted = true,
            _ if self.greeted => frames.extend_from_slice(&self.rules.counted),
            _ => {}
        }
        let close = match (incoming, inside) {
            (Incoming::Fragment | Incoming::Pong, _) => return Ok(Some(Next::Here)),
            (Incoming::Ping(data), _) => {
                write_raw(replies, OWN, |out| write::frame(out, Opcode::Pong, data));
                return Ok(Some(Next::Here));
            }
            (Incoming::Text(text), Inside::Json(json)) => match json.received(text, core.json, frames) {
                Ok(()) => return Ok(Some(Next::Here)),
                Err(fault) => {
                    write_raw(replies, OWN, |out| fault.say(out));
                    let text = fault.text();
                    return Err(self.close(read::NOT_SENSE, &text, Reason::BadFrame, replies));
                }
            },
            (Incoming::Text(text), Inside::Xmpp(xmpp)) => {
                let read = xmpp.received_message(text, core, frames, replies).map(Some);
                self.over |= read.is_err();
                return read;
            }
            (Incoming::Binary(bytes), Inside::Native) if is_whole(bytes) => {
                frames.extend_from_slice(bytes);
                return Ok(Some(Next::Here));
            }
            (Incoming::Binary(_), Inside::Native) => (read::NOT_SENSE, "a binary message holds whole frames", Reason::BadFrame),
            (Incoming::Text(_), _) => (read::UNSUPPORTED, "this sub-protocol has binary messages", Reason::BadFrame),
            (Incoming::Binary(_), _) => (read::UNSUPPORTED, "this sub-protocol has text messages", Reason::BadFrame),
            // RFC 6455 5.5.1: the same code comes back. A client that closes has lost its connection: its session may be resumed.
            (Incoming::Close(code), _) => (code.unwrap_or(write::NORMAL), "", Reason::ConnectionLost),
        };
        Err(self.close(close.0, close.1, close.2, replies))
    }

    /// Says goodbye. Gives the reason to end the connection with.
    fn close(&mut self, code: u16, text: &str, reason: Reason, replies: &mut Vec<u8>) -> Reason {
        write_raw(replies, LAST_WORD, |out| write::close(out, code, text));
        self.over();
        reason
    }

    fn over(&mut self) -> Reason {
        self.over = true;
        self.reader = Reader::default();
        Reason::ConnectionLost
    }

    /// Server frames without any that only this layer knows.
    fn send_inside(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>) {
        match &mut self.stage {
            _ if frames.is_empty() => {}
            Stage::Open(Inside::Native) => write::frame(out, Opcode::Binary, frames),
            Stage::Open(Inside::Json(json)) => json.send(frames, core, out),
            Stage::Open(Inside::Xmpp(xmpp)) => {
                xmpp.send(frames, core, out);
                self.over |= core.end.is_some();
            }
            Stage::Asking(_) => {}
        }
    }

    /// The connection ends, and the translator inside has said so.
    fn say_end(&mut self, reason: Reason, out: &mut Vec<u8>) {
        match &self.stage {
            Stage::Asking(_) => Refusal::ended(reason).write(out),
            Stage::Open(_) => write::close(out, write::close_code(reason), reason.text()),
        }
        self.over();
        self.ended = true;
    }
}

impl Translate for WebSocket {
    fn received(&mut self, bytes: &[u8], core: &mut Core<'_>, frames: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<Next, Reason> {
        let mut input = bytes;
        if self.over {
            return Ok(Next::Here);
        }
        self.ask(&mut input, core, frames, replies)?;
        while self.step(&mut input, core, frames, replies)?.is_some() {}
        // TLS is below: nothing inside asks for it.
        Ok(Next::Here)
    }

    fn send(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>) {
        let (mut from, mut at) = (0, 0);
        for frame in each_whole(frames) {
            let start = at;
            at += frame.header.frame_bytes();
            match self.meant_for_us(&frame) {
                Meant::Inside => continue,
                _ if self.ended => return,
                Meant::Bytes => {
                    self.send_inside(&frames[from..start], core, out);
                    out.extend_from_slice(frame.raw());
                    self.ended = frame.header.request == LAST_WORD;
                }
                Meant::Ping => {
                    self.send_inside(&frames[from..start], core, out);
                    write::frame(out, Opcode::Ping, b"");
                }
                Meant::End(reason) => {
                    self.send_inside(&frames[from..at], core, out);
                    self.say_end(reason, out);
                }
            }
            from = at;
        }
        if !self.ended {
            self.send_inside(&frames[from..], core, out);
        }
    }

    fn secured(&mut self) {
        self.secure = true;
    }

    fn lost(&mut self, core: &mut Core<'_>) {
        if let Stage::Open(Inside::Xmpp(xmpp)) = &mut self.stage {
            xmpp.lost(core);
        }
    }

    fn resumable_ms(&self) -> u32 {
        match &self.stage {
            Stage::Open(Inside::Xmpp(xmpp)) => xmpp.resumable_ms(),
            Stage::Open(Inside::Native | Inside::Json(_)) | Stage::Asking(_) => u32::MAX,
        }
    }

    fn form(&self) -> Form {
        match &self.stage {
            Stage::Open(Inside::Xmpp(xmpp)) => xmpp.form(),
            Stage::Open(Inside::Json(_)) => Form::Json,
            Stage::Open(Inside::Native) | Stage::Asking(_) => Form::Native,
        }
    }

    fn heap_bytes(&self) -> usize {
        let inside = match &self.stage {
            Stage::Asking(kept) => kept.capacity(),
            Stage::Open(Inside::Json(json)) => json.heap_bytes(),
            Stage::Open(Inside::Xmpp(xmpp)) => xmpp.heap_bytes(),
            Stage::Open(Inside::Native) => 0,
        };
        size_of::<WebSocket>() + self.reader.heap_bytes() + inside
    }
}

/// What a server frame is to this layer.
enum Meant {
    Inside,
    /// Bytes of the socket.
    Bytes,
    /// The client is to show that it is there: WebSocket has a frame for that, which browsers answer by themselves.
    Ping,
    End(Reason),
}

impl WebSocket {
    fn meant_for_us(&self, frame: &Frame<'_>) -> Meant {
        match frame.header.kind {
            // The empty word of the TLS below, so that the line is looked at: for those inside it would be a message.
            RAW if frame.header.request >= LAST_WORD || frame.raw().is_empty() => Meant::Bytes,
            Kind::Ping if !matches!(self.stage, Stage::Open(Inside::Native)) => Meant::Ping,
            Kind::Error => end(frame, self.over).map_or(Meant::Inside, Meant::End),
            _ => Meant::Inside,
        }
    }
}

/// The reason of an Error that ends the connection: any does, once a translator has said goodbye.
fn end(frame: &Frame<'_>, over: bool) -> Option<Reason> {
    let Ok(ServerFrame::Error(error)) = decode::from_server(frame.header.kind, frame.body) else { return None };
    Reason::from_number(error.reason()).filter(|reason| reason.closes() || over && frame.header.request == 0)
}

/// Whether bytes are whole native frames, by their lengths alone: the native door looks at the rest.
fn is_whole(mut bytes: &[u8]) -> bool {
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let rest = Header::decode(header, u32::MAX).ok().and_then(|header| bytes.get(header.frame_bytes()..));
        let Some(rest) = rest else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

/// A frame that does nothing but count against the client's rate.
fn counted() -> Vec<u8> {
    let mut frame = Vec::new();
    Encoder::default().pong(&mut frame, Tag::default(), 0);
    frame
}
