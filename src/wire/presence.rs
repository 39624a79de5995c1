//! The one flatbuffer of the hot path, read and verified in one go: a Presence.
//!
//! Lives on: every core, and in clients. Serves G2. The general verifier of the flatbuffers crate takes four times as long
//! for this table (86 ns against 23), which every update passes. Invariant: what this takes, that verifier takes too, and reads
//! the same (`tests/wire_fuzz.rs` compares them), so subscribers get nothing that their own library would refuse.

use crate::base::reason::Reason;
use crate::wire::native::{Presence, Show};

/// The fields of a presence. Empty ones are left out on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PresenceFields<'a> {
    pub resource: &'a str,
    pub show: Show,
    pub priority: i8,
    pub status: &'a str,
    /// Milliseconds since 1970; 0 when not idle.
    pub idle_since: u64,
    pub caps: &'a str,
    pub payload: &'a [u8],
    /// Milliseconds since 1970. Only a server writes it.
    pub stamp: u64,
    /// XML elements for XMPP subscribers.
    pub extensions: &'a str,
}

/// A verified presence: its bytes go to the subscribers; of its fields, those that every update is looked at for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PresenceView<'a> {
    pub bytes: &'a [u8],
    pub resource: &'a str,
    pub show: Show,
    pub priority: i8,
}

impl<'a> PresenceView<'a> {
    /// All of its fields, read again.
    pub fn fields(&self) -> PresenceFields<'a> {
        read_fields(self.bytes).expect("it was verified")
    }
}

/// Verifies a presence.
///
/// Errors: `BadFrame` when it's not a sound flatbuffer, names no resource, or its `show` is unknown.
#[inline]
pub fn read(bytes: &[u8]) -> Result<PresenceView<'_>, Reason> {
    let PresenceFields { resource, show, priority, .. } = read_fields(bytes)?;
    Ok(PresenceView { bytes, resource, show, priority })
}

/// The same of one that a client may publish: the stamp is the server's to write.
#[inline]
pub fn read_published(bytes: &[u8]) -> Result<PresenceView<'_>, Reason> {
    let PresenceFields { resource, show, priority, stamp, .. } = read_fields(bytes)?;
    if stamp == 0 { Ok(PresenceView { bytes, resource, show, priority }) } else { Err(Reason::BadFrame) }
}

#[inline]
fn read_fields(bytes: &[u8]) -> Result<PresenceFields<'_>, Reason> {
    Table::root(bytes).and_then(|table| table.presence()).ok_or(Reason::BadFrame)
}

/// A table within a buffer whose vtable lies within it too. Positions count from the start of the buffer.
struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The fields' offsets from `at`, as bytes: two for each field of the schema, in its order.
    offsets: &'a [u8],
}

impl<'a> Table<'a> {
    #[inline]
    fn root(bytes: &'a [u8]) -> Option<Table<'a>> {
        let at = read_u32(bytes, 0)? as usize;
        let back = read_u32(bytes, at)?.cast_signed();
        let vtable = usize::try_from(i64::try_from(at).ok()? - i64::from(back)).ok()?;
        let length = usize::from(read_u16(bytes, vtable)?);
        let whole = bytes.get(vtable..)?.get(..length)?;
        // A vtable starts with its own length and the table's.
        length.is_multiple_of(2).then(|| Table { bytes, at, offsets: whole.get(4..).unwrap_or(&[]) })
    }

    #[inline]
    fn presence(&self) -> Option<PresenceFields<'a>> {
        let show = Show(self.byte(Presence::VT_SHOW)?);
        let fields = PresenceFields {
            resource: self.text(Presence::VT_RESOURCE)??,
            show,
            priority: self.byte(Presence::VT_PRIORITY)?.cast_signed(),
            status: self.text(Presence::VT_STATUS)?.unwrap_or_default(),
            idle_since: self.long(Presence::VT_IDLE_SINCE)?,
            caps: self.text(Presence::VT_CAPS)?.unwrap_or_default(),
            payload: self.vector(Presence::VT_PAYLOAD)?.map_or(&[], |(payload, _)| payload),
            stamp: self.long(Presence::VT_STAMP)?,
            extensions: self.text(Presence::VT_EXTENSIONS)?.unwrap_or_default(),
        };
        (show.0 <= Show::ENUM_MAX).then_some(fields)
    }

    /// Where a field stands; `None` when it was left out.
    #[inline]
    fn field(&self, slot: u16) -> Option<usize> {
        let offset = read_u16(self.offsets, usize::from(slot) - 4)?;
        (offset != 0).then(|| self.at + usize::from(offset))
    }

    /// From here on, the outer `None` means that the buffer is not sound. Every scalar of a Presence is 0 when it's left out.
    #[inline]
    fn byte(&self, slot: u16) -> Option<u8> {
        self.field(slot).map_or(Some(0), |at| self.bytes.get(at).copied())
    }

    #[inline]
    fn long(&self, slot: u16) -> Option<u64> {
        self.field(slot).map_or(Some(0), |at| {
            let bytes = self.bytes.get(at..)?.first_chunk()?;
            at.is_multiple_of(8).then(|| u64::from_le_bytes(*bytes))
        })
    }

    /// A vector of bytes, and what follows it.
    #[inline]
    fn vector(&self, slot: u16) -> Option<Option<(&'a [u8], &'a [u8])>> {
        let Some(at) = self.field(slot) else { return Some(None) };
        let start = at + read_u32(self.bytes, at)? as usize;
        let length = read_u32(self.bytes, start)? as usize;
        Some(Some(self.bytes.get(start + 4..)?.split_at_checked(length)?))
    }

    #[inline]
    fn text(&self, slot: u16) -> Option<Option<&'a str>> {
        let Some((text, after)) = self.vector(slot)? else { return Some(None) };
        if after.first() != Some(&0) {
            return None;
        }
        std::str::from_utf8(text).ok().map(Some)
    }
}

#[inline]
fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let number = bytes.get(at..)?.first_chunk()?;
    at.is_multiple_of(2).then(|| u16::from_le_bytes(*number))
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let number = bytes.get(at..)?.first_chunk()?;
    at.is_multiple_of(4).then(|| u32::from_le_bytes(*number))
}
