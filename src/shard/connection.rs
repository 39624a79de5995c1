//! What a core keeps of each connection.

use super::links::Far;
use crate::base::id::CoreId;
use crate::base::time::Time;
use crate::front::native::{Door, Parting};
use crate::metrics::meter::Taken;

/// What a connection may use before its rates are looked at.
const PURSE: Purse = Purse { bytes: 16 << 10, frames: 64 };
/// One connection of this core: one cache line.
#[repr(align(64))]
pub(super) struct Connection {
    pub generation: u32,
    /// When a core first had it, in seconds of the node's clock.
    pub accepted: u32,
    /// When something last came.
    pub heard: u32,
    pub pinged: bool,
    /// Since when it has been slow; 0: it isn't.
    pub slow_since: u32,
    /// C1: the client's part of its load. What went out to it stands with its line.
    pub taken: Taken,
    /// What it may still send before its rates are looked at.
    pub purse: Purse,
    pub door: Doorway,
}

pub(super) enum Doorway {
    Here(Door),
    /// No client: another node.
    Link(Far),
    /// On its way to another core.
    Leaving {
        to: CoreId,
        parting: Box<Parting>,
        is_link: bool,
    },
    /// It was told why and closes: what it still says is not heard.
    Closing,
}

/// What is left to a connection; below 0 it is spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Purse {
    bytes: i32,
    frames: i32,
}

impl Purse {
    pub fn full() -> Purse {
        PURSE
    }

    #[inline]
    pub fn is_spent(self) -> bool {
        (self.bytes | self.frames) < 0
    }

    #[inline]
    pub fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub_unsigned(bytes as u32);
    }

    #[inline]
    pub fn spend_frames(&mut self, frames: u32) {
        self.frames = self.frames.saturating_sub_unsigned(frames);
    }

    /// Bytes and frames that were used of a full one.
    pub fn used(self) -> [u64; 2] {
        [(PURSE.bytes, self.bytes), (PURSE.frames, self.frames)].map(|(full, left)| u64::from(full.abs_diff(left)))
    }
}

/// Whole seconds of the node's clock, from 1.
pub(super) fn seconds(now: Time) -> u32 {
    (now.0 / 1_000_000_000) as u32 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_one_cache_line() {
        assert_eq!(size_of::<Option<Connection>>(), 64);
    }
}
