//! What the crowd says on the native protocol, and how it hears it.
//!
//! Lives on: the generator's pinned thread. Serves G6, G2. Frames are recognised, not verified: the node is trusted to write sound
//! ones, and a figure to be sound only if every delivery was recognised.

use super::talk::Traffic;
use crate::base::id::UserId;
use crate::wire::decode::{self, ServerFrame};
use crate::wire::encode::{Encoder, PresenceFields, Tag};
use crate::wire::event::{self, Event, Head, LAST};
use crate::wire::frame::{HEADER_BYTES, Header};
use crate::wire::native::{Kind, Show};

/// What every user of the crowd calls its session.
pub const RESOURCE: &str = "b";
/// Longest frame a server may send.
const FRAME_BYTES: u32 = 64 << 20;

/// Where users are: each on a connection of the same number, or with `trunks` above 0 all on streams of these.
#[derive(Clone, Copy)]
pub struct Places {
    pub trunks: u32,
}

impl Places {
    /// The connection and stream of a user.
    pub fn of(self, user: u32) -> (u32, u32) {
        match self.trunks {
            0 => (user, 0),
            trunks => (user % trunks, 1 + user / trunks),
        }
    }

    pub fn user_at(self, conn: u32, stream: u32) -> u32 {
        match self.trunks {
            0 => conn,
            trunks => (stream - 1) * trunks + conn,
        }
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
    pub fn new(directory: Directory, places: Places, audience: u32) -> Presences {
        let presences = [Show::Away, Show::Chat].map(presence);
        Presences { directory, places, audience, encoder: Encoder::default(), presences, refusal: None }
    }
}

impl Presences {
    /// Finds the whole frames at the start of `bytes`, and tells of each state in them: whose it is, which of the user's updates
    /// (0: the first presence), whether the user is there, and how many users have heard of it with this. Gives the frames' length.
    pub fn states(&self, bytes: &[u8], mut state: impl FnMut(u32, u32, bool, u32)) -> usize {
        let mut tell = |event: Event<'_>| {
            if let Some(user) = self.directory.find(event.head.user) {
                let sequence = event.head.version.sequence.saturating_sub(1);
                state(user, sequence, is_there(&event), event.streams.len().max(1) as u32);
            }
        };
        frames(bytes, |header, body| match decode::from_server(header.kind, body) {
            Ok(ServerFrame::Event(event)) => tell(event),
            Ok(ServerFrame::EventBatch(batch)) => batch.iter().flatten().for_each(&mut tell),
            _ => {}
        })
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

    fn audience(&self, _: u32) -> u32 {
        self.audience
    }

    fn event_bytes(&self) -> usize {
        HEADER_BYTES + event::HEAD_BYTES + self.presences[0].len()
    }
}

/// A presence of the crowd, as a flatbuffer.
pub fn presence(show: Show) -> Vec<u8> {
    Encoder::default().presence(&PresenceFields { resource: RESOURCE, show, ..PresenceFields::default() })
}

/// Whether an event says that its publisher is there.
pub fn is_there(event: &Event<'_>) -> bool {
    event.head.show != Show::Unavailable && event.head.flags & LAST == 0
}

/// What an Error frame says.
pub fn refused(body: &[u8]) -> Option<String> {
    match decode::from_server(Kind::Error, body) {
        Ok(ServerFrame::Error(error)) => Some(format!("{} (reason {})", error.text().unwrap_or_default(), error.reason())),
        _ => None,
    }
}

/// Hands over the whole frames at the start of `bytes`; gives the length of them all.
pub fn frames(bytes: &[u8], mut each: impl FnMut(Header, &[u8])) -> usize {
    let mut used = 0;
    while let Some(start) = bytes[used..].first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::decode(start, FRAME_BYTES) else { return bytes.len() };
        let Some(frame) = bytes[used..].get(..header.frame_bytes()) else { break };
        each(header, &frame[HEADER_BYTES..]);
        used += header.frame_bytes();
    }
    used
}

/// From the nodes' numbers of users to ours: two reads of small tables, since the generator asks for every delivery.
#[derive(Default)]
pub struct Directory {
    /// By cluster, of which there are few.
    clusters: Vec<Numbers>,
}

/// The numbers of one cluster's users.
struct Numbers {
    cluster: u16,
    /// By slot: where its users begin, and the lowest serial among them.
    slots: Vec<(u32, u32)>,
    users: Vec<u32>,
}

const NO_USER: u32 = u32::MAX;

impl Directory {
    /// Of users by our number and the node's.
    pub fn new(mut ids: Vec<(u32, UserId)>) -> Directory {
        ids.sort_unstable_by_key(|(_, id)| id.cluster());
        Directory { clusters: ids.chunk_by(|(_, one), (_, other)| one.cluster() == other.cluster()).map(Numbers::new).collect() }
    }

    /// Our number of a user; `None` when it's none of the crowd.
    #[inline]
    pub fn find(&self, id: UserId) -> Option<u32> {
        self.clusters.iter().find(|numbers| numbers.cluster == id.cluster())?.find(id)
    }
}

impl Numbers {
    /// Of at least one user.
    fn new(ids: &[(u32, UserId)]) -> Numbers {
        let mut ranges = vec![(u32::MAX, 0); 1 << 16];
        for (_, id) in ids {
            let (least, most) = &mut ranges[usize::from(id.slot())];
            (*least, *most) = ((*least).min(id.serial()), (*most).max(id.serial()));
        }
        let mut slots = Vec::with_capacity(ranges.len());
        let mut start = 0;
        for (least, most) in ranges {
            slots.push((start, least));
            start += if least <= most { most - least + 1 } else { 0 };
        }
        let mut users = vec![NO_USER; start as usize];
        for &(user, id) in ids {
            let (start, least) = slots[usize::from(id.slot())];
            users[(start + id.serial() - least) as usize] = user;
        }
        Numbers { cluster: ids[0].1.cluster(), slots, users }
    }

    #[inline]
    fn find(&self, id: UserId) -> Option<u32> {
        let (start, least) = self.slots[usize::from(id.slot())];
        let at = u64::from(start) + u64::from(id.serial().checked_sub(least)?);
        self.users.get(at as usize).copied().filter(|&user| user != NO_USER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_is_found_by_its_number_and_nobody_else() {
        let id = |user: u32| UserId::new((user % 2) as u16, (user / 2 % 300) as u16, 7 + user / 600);
        let ids: Vec<_> = (0..1000).map(|user| (user, id(user))).collect();
        let directory = Directory::new(ids.clone());
        for (user, id) in ids {
            assert_eq!(directory.find(id), Some(user));
        }
        assert_eq!(directory.find(UserId::new(2, 5, 7)), None, "of another cluster");
        assert_eq!(directory.find(UserId::new(0, 5, 1)), None);
        assert_eq!(directory.find(UserId::new(0, 40_000, 1)), None);
    }
}
