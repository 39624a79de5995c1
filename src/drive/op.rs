//! The name of an operation in the ring: what it does, for which connection, and which generation of its slot.
//!
//! Lives on: the core of the ring. Invariant: a completion acts on a connection only when slot *and* generation agree, so a late
//! completion can't touch the next tenant of a slot; it is counted as `late_completions` instead.

use crate::base::id::ConnId;

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Receive = 0,
    Send = 1,
    Cancel = 2,
    /// The slot is the listener's number.
    Accept = 3,
    CancelAccept = 4,
    Alarm = 5,
    MoveAlarm = 6,
    /// Slot and generation are the dial's number.
    Connect = 7,
    CancelConnect = 8,
}

const KINDS: [Kind; 9] = [
    Kind::Receive,
    Kind::Send,
    Kind::Cancel,
    Kind::Accept,
    Kind::CancelAccept,
    Kind::Alarm,
    Kind::MoveAlarm,
    Kind::Connect,
    Kind::CancelConnect,
];
const KIND_BITS: u32 = 4;
/// Connection slots that fit beside the kind.
pub(super) const SLOTS: u32 = 1 << (32 - KIND_BITS);

/// `user_data` of an operation on a connection.
#[inline]
pub(super) fn pack(kind: Kind, conn: ConnId) -> u64 {
    debug_assert!(conn.slot < SLOTS, "a slot fits into an operation's name");
    u64::from(conn.generation) << 32 | u64::from(conn.slot) << KIND_BITS | kind as u64
}

/// The reverse of `pack`; `None` for a name that was never given out.
#[inline]
pub(super) fn unpack(name: u64) -> Option<(Kind, ConnId)> {
    let kind = *KINDS.get((name & ((1 << KIND_BITS) - 1)) as usize)?;
    Some((kind, ConnId { slot: (name as u32) >> KIND_BITS, generation: (name >> 32) as u32 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_operation() {
        for kind in KINDS {
            for (slot, generation) in [(0, 0), (1, u32::MAX), (SLOTS - 1, 7)] {
                let conn = ConnId { slot, generation };
                assert_eq!(unpack(pack(kind, conn)), Some((kind, conn)));
            }
        }
        assert_eq!(unpack(15), None);
    }
}
