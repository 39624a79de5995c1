//! Connections by the address they come from: nobody takes a node's connections for himself.
//!
//! Lives on: every core. Invariant: a connection is counted from its accept or adoption until it's lost or leaves for another core.
//! Exempt addresses aren't counted: front ends stand there. Whoever finds no room is told so, and costs no connection.

use super::Shard;
use crate::base::network::Network;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::front::doors::Speaks;
use crate::wire::encode::Tag;
use ahash::RandomState;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

pub(super) struct Addresses {
    counts: HashMap<IpAddr, u32, RandomState>,
    exempt: Vec<Network>,
}

impl Addresses {
    pub fn new(hasher: RandomState, exempt: Vec<Network>) -> Addresses {
        Addresses { counts: HashMap::with_hasher(hasher), exempt }
    }

    pub fn is_exempt(&self, peer: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.has(peer))
    }

    /// Connections from there.
    pub fn count(&self, peer: IpAddr) -> u32 {
        self.counts.get(&network(peer)).copied().unwrap_or(0)
    }

    pub fn came(&mut self, peer: IpAddr) {
        if !self.is_exempt(peer) {
            *self.counts.entry(network(peer)).or_default() += 1;
        }
    }

    /// # Panics
    /// When nobody from there was counted.
    pub fn went(&mut self, peer: IpAddr) {
        if self.is_exempt(peer) {
            return;
        }
        let network = network(peer);
        let count = self.counts.get_mut(&network).expect("it was counted when it came");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&network);
        }
    }
}

impl Shard {
    pub(super) fn has_room_for(&self, peer: IpAddr) -> bool {
        let limits = &self.settings.limits;
        let is_full = self.out.lines.len() >= limits.connections_per_core as usize;
        !is_full && self.addresses.count(peer) < limits.connections_per_address
    }

    pub(super) fn no_room(&self) -> Reason {
        if self.stopping { Reason::ShuttingDown } else { Reason::TooManyConnections }
    }

    /// What a connection is told that was not let in, in the words of its door: nothing where TLS comes first, or another node.
    pub fn refusal(&mut self, now: Time, listener: usize) -> Vec<u8> {
        let (mut error, mut said) = (Vec::new(), Vec::new());
        if matches!(self.settings.doors.listeners.get(listener), Some(Speaks::Xmpps | Speaks::Link)) {
            return said;
        }
        let reason = self.no_room();
        self.encoder.error(&mut error, Tag::default(), reason, "");
        let Some(mut translator) = self.settings.doors.open(listener) else { return error };
        self.lend(now, &mut Vec::new(), |core| translator.send(&error, core, &mut said));
        said
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(peer) => match peer.to_ipv4_mapped() {
            Some(peer) => IpAddr::V4(peer),
            None => IpAddr::V6(Ipv6Addr::from_bits(peer.to_bits() >> 64 << 64)),
        },
    }
}
