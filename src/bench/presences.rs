//! What the crowd says on the native protocol, and how it hears it.
//!
//! Lives on: the generator's pinned thread. Serves G6, G2.

use super::crowd::{self, Crowd, Directory, Places, frames, presence, refused};
use super::dialect::Dialect;
use super::graph::Graph;
use super::progress::Progress;
use super::talk::Traffic;
use super::wires::Wires;
use crate::wire::encode::{Encoder, Tag};
use crate::wire::event::{self, Head};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::native::{Kind, Show};
use std::io;

impl Dialect for Crowd {
    type Traffic = Presences;

    fn log_in(&mut self, progress: &Progress) -> io::Result<()> {
        Crowd::log_in(self, progress)
    }

    fn become_available(&mut self, progress: &Progress) -> io::Result<()> {
        Crowd::become_available(self, progress)
    }

    fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()> {
        Crowd::subscribe(self, graph, progress)
    }

    fn begin(self, audience: u32) -> (Wires, Presences) {
        let places = self.places;
        let (wires, directory) = self.into_parts();
        (wires, Presences::new(directory, places, audience))
    }

    fn last_words() -> Vec<u8> {
        crowd::last_words()
    }
}

/// What the crowd says to a node, and how it hears it.
pub struct Presences {
    directory: Directory,
    places: Places,
    audience: u32,
    encoder: Encoder,
    /// Said in turn.
    presences: [Vec<u8>; 2],
    refusal: Option<String>,
}

impl Presences {
    fn new(directory: Directory, places: Places, audience: u32) -> Presences {
        let presences = [Show::Away, Show::Chat].map(presence);
        Presences { directory, places, audience, encoder: Encoder::default(), presences, refusal: None }
    }
}

impl Traffic for Presences {
    fn conn(&self, user: u32) -> u32 {
        self.places.of(user).0
    }

    fn make(&mut self, user: u32, sequence: u32, into: &mut Vec<u8>) {
        self.encoder.set_presence_bytes(into, Tag::stream(self.places.of(user).1), &self.presences[sequence as usize % 2]);
    }

    #[inline]
    fn recognise(&mut self, _conn: u32, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        let Presences { directory, refusal, .. } = self;
        frames(bytes, |header, body| {
            if header.kind == Kind::Event
                && let Ok((head, streams)) = Head::read(body)
                && let Some(user) = directory.find(head.user)
            {
                // The first presence of the session was its version 1.
                delivered(user, head.version.sequence.saturating_sub(1), streams.max(1) as u32);
            } else if header.kind == Kind::Error {
                *refusal = refused(body);
            }
        })
    }

    fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    fn audience(&self) -> u32 {
        self.audience
    }

    fn event_bytes(&self) -> usize {
        HEADER_BYTES + event::HEAD_BYTES + self.presences[0].len()
    }
}
