//! The frames of a link: one lane between two nodes, as bytes and as values.
//!
//! Lives on: every core of a node that has links. Serves G4, Z5, Z13. Frames have the native header (`wire::frame`) with kinds of
//! their own; its `stream` is the length of the content without padding, its `request` the tag of an update and 0 elsewhere.
//! Numbers are little-endian. Invariants: what `read` takes is exactly what a writer here would write; a length is checked before
//! anything is allocated for it ([`Frames`] keeps what has come, never what was claimed); nothing is copied.
//!
//! | frame | content |
//! | --- | --- |
//! | Hello, Welcome | [`Hello`]: the dialler's first words, and the answer of the node that takes it |
//! | Refusal, Bye | a [`LinkReason`], 2 bytes; the connection closes behind it |
//! | Entry | sequence (8 bytes), bytes: numbered, acknowledged, sent again after a break |
//! | Ack | the sequence up to which all have come (8 bytes) |
//! | Update | bytes, mostly an event frame: not numbered, versions make loss harmless |
//! | Complex | a complex message (`wire::complex`), not numbered |
//! | NumberedComplex | the same, with a sequence: an entry like any other |
//! | Ping, Pong | the asker's own stamp (8 bytes) |
//!
//! [`Frames`]: crate::wire::frame::Frames

use crate::base::id::NodeId;
use crate::base::reason::LinkReason;
use crate::wire::frame::{self, padded, write_counted};
use crate::wire::native::Kind;
use std::fmt;

/// Version of the link protocol.
pub const LINK_VERSION: u16 = 1;
/// What every hello begins with.
const MAGIC: [u8; 4] = *b"fanL";
/// Length of a hello's content.
pub const HELLO_BYTES: usize = 88;
/// Longest content of a frame before a hello was accepted: a hello, and what later versions may add to it.
pub const FIRST_BYTES: u32 = 256;
/// Length of an entry's sequence.
const SEQUENCE_BYTES: usize = 8;

const HELLO: Kind = Kind(128);
const WELCOME: Kind = Kind(129);
const REFUSAL: Kind = Kind(130);
const BYE: Kind = Kind(131);
const ENTRY: Kind = Kind(132);
const ACK: Kind = Kind(133);
const UPDATE: Kind = Kind(134);
const COMPLEX: Kind = Kind(135);
const NUMBERED_COMPLEX: Kind = Kind(136);
const PING: Kind = Kind(137);
const PONG: Kind = Kind(138);

/// A node among all those of all clusters. The lower one of two dials.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Site {
    pub cluster: u16,
    pub node: NodeId,
}

impl Site {
    /// What the certificate of this node calls it, among its alternative names.
    pub fn certified_name(self) -> String {
        format!("node-{}.cluster-{}.fanal", self.node.0, self.cluster)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of cluster {}", self.node, self.cluster)
    }
}

/// Which run of a node: a later one is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Life {
    /// From 1; grows with each start of the node.
    pub epoch: u64,
    /// How often it has given up this link since.
    pub term: u32,
}

/// What the link is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// Two nodes of one cluster.
    Inside = 1,
    /// Two clusters.
    Between = 2,
}

impl Purpose {
    pub fn of(one: Site, other: Site) -> Purpose {
        if one.cluster == other.cluster { Purpose::Inside } else { Purpose::Between }
    }
}

/// Who speaks, to whom, and how far the two had come: the content of Hello and Welcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    pub from: Site,
    /// Who is meant.
    pub to: Site,
    pub purpose: Purpose,
    /// Cores of the speaker's node.
    pub cores: u16,
    pub lane: u16,
    /// Counts the dialler's connections in one life, from 1; a Welcome gives it back.
    pub attempt: u32,
    pub life: Life,
    /// The life of the other that the speaker knows.
    pub known: Option<Life>,
    /// The last entry received from that life.
    pub received: u64,
    /// Of the configuration that both must share.
    pub digest: [u8; 32],
}

/// One frame, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    Hello(Hello),
    Welcome(Hello),
    Refusal(LinkReason),
    Bye(LinkReason),
    Entry { sequence: u64, bytes: &'a [u8] },
    Ack(u64),
    Update { tag: u32, bytes: &'a [u8] },
    Complex { sequence: Option<u64>, bytes: &'a [u8] },
    Ping(u64),
    Pong(u64),
}

/// Reads a frame that was found.
///
/// Errors: `WrongVersion` for a hello of another version; `BadFrame`.
#[inline]
pub fn read<'a>(frame: &frame::Frame<'a>) -> Result<Frame<'a>, LinkReason> {
    let header = frame.header;
    let content = content(frame).ok_or(LinkReason::BadFrame)?;
    if header.kind != UPDATE && header.request != 0 {
        return Err(LinkReason::BadFrame);
    }
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).map_err(|_| LinkReason::BadFrame);
    let reason = || {
        let number = u16::from_le_bytes(content.try_into().map_err(|_| LinkReason::BadFrame)?);
        Ok(LinkReason::from_number(number).unwrap_or(LinkReason::Other))
    };
    let numbered = || {
        let (sequence, bytes) = content.split_first_chunk::<SEQUENCE_BYTES>().ok_or(LinkReason::BadFrame)?;
        Ok((u64::from_le_bytes(*sequence), bytes))
    };
    match header.kind {
        UPDATE => Ok(Frame::Update { tag: header.request, bytes: content }),
        ENTRY => numbered().map(|(sequence, bytes)| Frame::Entry { sequence, bytes }),
        COMPLEX => Ok(Frame::Complex { sequence: None, bytes: content }),
        NUMBERED_COMPLEX => numbered().map(|(sequence, bytes)| Frame::Complex { sequence: Some(sequence), bytes }),
        ACK => number(content).map(Frame::Ack),
        PING => number(content).map(Frame::Ping),
        PONG => number(content).map(Frame::Pong),
        HELLO => Hello::read(content).map(Frame::Hello),
        WELCOME => Hello::read(content).map(Frame::Welcome),
        REFUSAL => reason().map(Frame::Refusal),
        BYE => reason().map(Frame::Bye),
        _ => Err(LinkReason::BadFrame),
    }
}

/// A frame's content without its padding, which is zeros.
#[inline]
fn content<'a>(frame: &frame::Frame<'a>) -> Option<&'a [u8]> {
    let (content, padding) = frame.body.split_at_checked(frame.header.stream as usize)?;
    let is_sound = padded(content.len()) == frame.body.len() && padding.iter().all(|&byte| byte == 0);
    is_sound.then_some(content)
}

/// What reading frames found wrong, in a link's words.
pub fn fault(reason: crate::base::reason::Reason) -> LinkReason {
    match reason {
        crate::base::reason::Reason::FrameTooLarge => LinkReason::TooLong,
        _ => LinkReason::BadFrame,
    }
}

impl Hello {
    /// Lanes between the two nodes of this many cores each; the core `lane % cores` has a lane at either end.
    pub fn lanes(cores: u16, others: u16) -> u16 {
        cores.max(others)
    }

    /// The hello with which a connection begins, as soon as it is whole, so that its owner can tell whose it is. Takes nothing out
    /// of the bytes: the lane's machine reads them again.
    ///
    /// Errors: `WrongVersion`, `BadFrame`, `TooLong`, `OutOfOrder` when the first frame is another one.
    pub fn peek(bytes: &[u8]) -> Result<Option<Hello>, LinkReason> {
        let (mut frames, mut chunk) = (frame::Frames::default(), frame::Chunk::new(bytes));
        match frames.next(&mut chunk, frame::HEADER_BYTES as u32 + FIRST_BYTES).map_err(fault)? {
            None => Ok(None),
            Some(frame) => match read(&frame)? {
                Frame::Hello(hello) => Ok(Some(hello)),
                _ => Err(LinkReason::OutOfOrder),
            },
        }
    }

    fn read(bytes: &[u8]) -> Result<Hello, LinkReason> {
        let (&magic, rest) = bytes.split_first_chunk().ok_or(LinkReason::BadFrame)?;
        let (&version, mut rest) = rest.split_first_chunk().ok_or(LinkReason::BadFrame)?;
        if magic != MAGIC {
            return Err(LinkReason::BadFrame);
        }
        if u16::from_le_bytes(version) != LINK_VERSION {
            return Err(LinkReason::WrongVersion);
        }
        let hello = (bytes.len() == HELLO_BYTES).then(|| Hello::fields(&mut rest)).flatten();
        hello.filter(|hello| hello.life.epoch != 0 && hello.cores != 0).ok_or(LinkReason::BadFrame)
    }

    /// All behind the version.
    fn fields(rest: &mut &[u8]) -> Option<Hello> {
        let purpose = match take(rest)? {
            [1, 0] => Purpose::Inside,
            [2, 0] => Purpose::Between,
            _ => return None,
        };
        let from = Site { cluster: u16::from_le_bytes(take(rest)?), node: NodeId(u16::from_le_bytes(take(rest)?)) };
        let to = Site { cluster: u16::from_le_bytes(take(rest)?), node: NodeId(u16::from_le_bytes(take(rest)?)) };
        let (cores, lane) = (u16::from_le_bytes(take(rest)?), u16::from_le_bytes(take(rest)?));
        let attempt = u32::from_le_bytes(take(rest)?);
        let life = Life { epoch: u64::from_le_bytes(take(rest)?), term: u32::from_le_bytes(take(rest)?) };
        let known = Life { term: u32::from_le_bytes(take(rest)?), epoch: u64::from_le_bytes(take(rest)?) };
        if known.epoch == 0 && known.term != 0 {
            return None;
        }
        let known = (known.epoch != 0).then_some(known);
        let (received, digest) = (u64::from_le_bytes(take(rest)?), take(rest)?);
        Some(Hello { from, to, purpose, cores, lane, attempt, life, known, received, digest })
    }

    fn append(&self, out: &mut Vec<u8>) {
        let known = self.known.unwrap_or_default();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&LINK_VERSION.to_le_bytes());
        out.extend_from_slice(&[self.purpose as u8, 0]);
        for half in [self.from.cluster, self.from.node.0, self.to.cluster, self.to.node.0, self.cores, self.lane] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        out.extend_from_slice(&self.attempt.to_le_bytes());
        out.extend_from_slice(&self.life.epoch.to_le_bytes());
        out.extend_from_slice(&self.life.term.to_le_bytes());
        out.extend_from_slice(&known.term.to_le_bytes());
        out.extend_from_slice(&known.epoch.to_le_bytes());
        out.extend_from_slice(&self.received.to_le_bytes());
        out.extend_from_slice(&self.digest);
    }
}

/// The next bytes of these.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

impl Frame<'_> {
    /// Appends the frame.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        let numbered = |out: &mut Vec<u8>, kind, sequence: u64, bytes: &[u8]| {
            write_counted(out, kind, 0, |out| {
                out.extend_from_slice(&sequence.to_le_bytes());
                out.extend_from_slice(bytes);
            });
        };
        let bytes = |out: &mut Vec<u8>, kind, tag, bytes: &[u8]| write_counted(out, kind, tag, |out| out.extend_from_slice(bytes));
        match *self {
            Frame::Update { tag, bytes: update } => bytes(out, UPDATE, tag, update),
            Frame::Entry { sequence, bytes } => numbered(out, ENTRY, sequence, bytes),
            Frame::Complex { sequence: Some(sequence), bytes } => numbered(out, NUMBERED_COMPLEX, sequence, bytes),
            Frame::Complex { sequence: None, bytes: complex } => bytes(out, COMPLEX, 0, complex),
            Frame::Ack(sequence) => bytes(out, ACK, 0, &sequence.to_le_bytes()),
            Frame::Ping(stamp) => bytes(out, PING, 0, &stamp.to_le_bytes()),
            Frame::Pong(stamp) => bytes(out, PONG, 0, &stamp.to_le_bytes()),
            Frame::Hello(hello) => write_counted(out, HELLO, 0, |out| hello.append(out)),
            Frame::Welcome(hello) => write_counted(out, WELCOME, 0, |out| hello.append(out)),
            Frame::Refusal(reason) => bytes(out, REFUSAL, 0, &(reason as u16).to_le_bytes()),
            Frame::Bye(reason) => bytes(out, BYE, 0, &(reason as u16).to_le_bytes()),
        }
    }

    /// The frame by itself.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Chunk, Frames};
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            from: Site { cluster: 1, node: NodeId(2) },
            to: Site { cluster: 3, node: NodeId(4) },
            purpose: Purpose::Between,
            cores: 5,
            lane: 6,
            attempt: 7,
            life: Life { epoch: 8, term: 9 },
            known: Some(Life { epoch: 10, term: 11 }),
            received: 12,
            digest: [13; 32],
        }
    }

    fn read_one(bytes: &[u8]) -> Result<Frame<'_>, LinkReason> {
        let header = frame::Header::decode(bytes.first_chunk().unwrap(), u32::MAX).unwrap();
        read(&frame::Frame { header, body: &bytes[frame::HEADER_BYTES..] })
    }

    #[test]
    fn every_frame_reads_back_as_it_was_written() {
        let frames = [
            Frame::Hello(hello()),
            Frame::Welcome(Hello { known: None, purpose: Purpose::Inside, ..hello() }),
            Frame::Refusal(LinkReason::WrongNode),
            Frame::Bye(LinkReason::Leaving),
            Frame::Entry { sequence: 1 << 40, bytes: b"entry" },
            Frame::Ack(u64::MAX),
            Frame::Update { tag: 77, bytes: b"" },
            Frame::Update { tag: 0, bytes: &[1; 40] },
            Frame::Complex { sequence: None, bytes: b"complex" },
            Frame::Complex { sequence: Some(3), bytes: b"complex" },
            Frame::Ping(1),
            Frame::Pong(2),
        ];
        for frame in frames {
            let bytes = frame.encode();
            assert!(bytes.len().is_multiple_of(8));
            assert_eq!(read_one(&bytes), Ok(frame));
        }
    }

    #[test]
    fn a_hello_is_seen_as_soon_as_it_is_whole_and_nothing_else_may_come_before_it() {
        let bytes = [Frame::Hello(hello()).encode(), Frame::Ping(1).encode()].concat();
        let whole = frame::HEADER_BYTES + HELLO_BYTES;
        for cut in 0..bytes.len() {
            assert_eq!(Hello::peek(&bytes[..cut]), Ok((cut >= whole).then(hello)), "{cut}");
        }
        assert_eq!(Hello::peek(&Frame::Ping(1).encode()), Err(LinkReason::OutOfOrder));
        assert_eq!(Hello::peek(&Frame::Update { tag: 0, bytes: &[0; 300] }.encode()), Err(LinkReason::TooLong));
    }

    #[test]
    fn another_version_is_told_from_garbage_whatever_it_adds() {
        let changed = |at: usize, value: u8| {
            let mut bytes = Frame::Hello(hello()).encode();
            bytes[frame::HEADER_BYTES + at] = value;
            Hello::peek(&bytes)
        };
        assert_eq!(changed(0, 0), Err(LinkReason::BadFrame));
        assert_eq!(changed(4, 2), Err(LinkReason::WrongVersion));
        assert_eq!(changed(6, 3), Err(LinkReason::BadFrame));
        let mut longer = Vec::new();
        write_counted(&mut longer, HELLO, 0, |out| out.extend_from_slice(&[&MAGIC[..], &[2, 0], &[9; 150]].concat()));
        assert_eq!(Hello::peek(&longer), Err(LinkReason::WrongVersion));
    }

    #[test]
    fn a_reason_of_a_later_version_is_another_one() {
        let mut bytes = Frame::Bye(LinkReason::Leaving).encode();
        bytes[frame::HEADER_BYTES..frame::HEADER_BYTES + 2].copy_from_slice(&999u16.to_le_bytes());
        assert_eq!(read_one(&bytes), Ok(Frame::Bye(LinkReason::Other)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What is read is what a writer would write, bar reasons of later versions.
        #[test]
        fn bytes_are_refused_or_read_the_one_way(kind in 120u8..145, stream in 0u32..120, request in 0u32..2, body: Vec<u8>) {
            let mut bytes = frame::Header { body: padded(body.len()) as u32, kind: Kind(kind), stream, request }.encode().to_vec();
            bytes.extend_from_slice(&body);
            bytes.resize(frame::HEADER_BYTES + padded(body.len()), 0);
            let (mut frames, mut chunk) = (Frames::default(), Chunk::new(&bytes));
            let found = frames.next(&mut chunk, 1 << 20).unwrap().unwrap();
            match read(&found) {
                Err(_) | Ok(Frame::Refusal(LinkReason::Other) | Frame::Bye(LinkReason::Other)) => {}
                Ok(frame) => prop_assert_eq!(frame.encode(), bytes),
            }
        }
    }
}
