//! The translator of `fanal.json.v1`: JSON objects, one in each text message of a WebSocket, for native frames. `schemas/JSON.md`
//! describes them.
//!
//! Lives on: the core that owns the connection, and moves with it. Serves G6. Pure. Invariants: the native Hello is said here,
//! since the sub-protocol's name is the version; a message that can't be understood ends the connection, as a bad native frame
//! does, and is told what was wrong; all that is kept is the session's resource.

mod hear;
mod names;
pub mod read;
mod say;
#[cfg(test)]
mod tests;
pub mod write;

use super::translate::Core;
use super::ws::{OWN, write::text};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::decode::{self, ServerFrame};
use crate::wire::encode::{Encoder, PresenceFields, Tag};
use crate::wire::event::Event;
use crate::wire::frame::{each_whole, write_raw};
use read::{Fault, Reader};
use thin_vec::ThinVec;

/// What the JSON connections of one core share.
#[derive(Default)]
pub struct Memory {
    encoder: Encoder,
    reader: Reader,
}

/// One connection's translator.
#[derive(Default)]
pub struct Json {
    /// The session's, as UTF-8: presence carries it, and clients needn't.
    resource: ThinVec<u8>,
}

impl Json {
    /// A connection that just opened.
    pub fn start(memory: &mut Memory, frames: &mut Vec<u8>) -> Json {
        memory.encoder.hello(frames, Tag::default(), "fanal.json.v1");
        Json::default()
    }

    /// One message of the client becomes one frame.
    ///
    /// Errors: what is wrong with it; the connection must end.
    pub fn received(&mut self, text: &str, memory: &mut Memory, frames: &mut Vec<u8>) -> Result<(), Fault> {
        let resource = std::str::from_utf8(&self.resource).expect("it came as a string");
        hear::message(memory, text, resource, frames)
    }

    /// Server frames become messages, each a WebSocket frame.
    pub fn send(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>) {
        for frame in each_whole(frames) {
            match decode::from_server(frame.header.kind, frame.body).expect("a frame of our own") {
                // The WebSocket around this says it.
                ServerFrame::Ping(_) => {}
                ServerFrame::Event(event) => say_event(out, core, &event),
                ServerFrame::EventBatch(batch) => {
                    batch.iter().for_each(|event| say_event(out, core, &event.expect("an event of our own")));
                }
                said => {
                    if let ServerFrame::LoggedIn(logged_in) = said {
                        let resource = logged_in.jid().split_once('/').map_or("", |(_, resource)| resource);
                        self.resource = resource.as_bytes().into();
                    }
                    text(out, |out| say::frame(out, frame.header.request, &said));
                }
            }
        }
    }

    /// Bytes this holds on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.resource.capacity()
    }
}

/// An event that was not written in this door's form. Nothing is said of a publisher whom nobody can name any more: the session
/// has no use for it.
fn say_event(out: &mut Vec<u8>, core: &Core<'_>, event: &Event<'_>) {
    if let Some(jid) = core.users.jid(event.head.user) {
        write_event(out, jid, event);
    }
}

/// Appends an event as all sessions of a core take it that speak JSON: a whole frame of the WebSocket.
pub fn write_form(out: &mut Vec<u8>, jid: &Bare, event: &Event<'_>) {
    write_raw(out, OWN, |out| write_event(out, jid, event));
}

fn write_event(out: &mut Vec<u8>, jid: &Bare, event: &Event<'_>) {
    let cut_off = PresenceFields { show: event.head.show, ..PresenceFields::default() };
    let presence = event.presence.map_or(cut_off, |presence| presence.fields());
    text(out, |out| say::event(out, jid, &event.head, &presence));
}

impl Fault {
    /// Appends the message that says so.
    pub fn say(&self, out: &mut Vec<u8>) {
        text(out, |out| say::error(out, 0, Reason::BadFrame as u16, &self.text()));
    }

    /// A sentence for whoever wrote the client.
    pub fn text(&self) -> String {
        format!("the message can't be understood: {self}")
    }
}
