//! The network: each connection is two queues of bytes, cut anywhere, that may stand still for a while.
//!
//! Lives on: the simulator. A link's number stands for the socket's descriptor. Invariant: a queue keeps every byte and its order
//! until it is read or the connection breaks.

use crate::base::time::Time;
use std::collections::{BTreeMap, VecDeque};

/// One direction.
#[derive(Default)]
pub struct Pipe {
    bytes: VecDeque<u8>,
    /// Nothing can be read before.
    still_until: Time,
}

impl Pipe {
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    pub fn stand_still(&mut self, until: Time) {
        self.still_until = self.still_until.max(until);
    }

    /// Up to `most` bytes; none when nothing has arrived.
    pub fn read(&mut self, now: Time, most: usize) -> Vec<u8> {
        if now < self.still_until {
            return Vec::new();
        }
        let count = most.min(self.bytes.len());
        self.bytes.drain(..count).collect()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A connection between a client and a core.
#[derive(Default)]
pub struct Link {
    pub up: Pipe,
    pub down: Pipe,
    pub client_gone: bool,
    pub server_gone: bool,
}

/// All connections.
#[derive(Default)]
pub struct Links {
    links: BTreeMap<i32, Link>,
    next: i32,
}

impl Links {
    pub fn open(&mut self) -> i32 {
        self.next += 1;
        self.links.insert(self.next, Link::default());
        self.next
    }

    /// The link of a number; one that both ends have left is kept as a broken one.
    pub fn get(&mut self, number: i32) -> &mut Link {
        self.links.entry(number).or_insert_with(|| Link { client_gone: true, server_gone: true, ..Link::default() })
    }

    /// The server lets go of its end.
    pub fn leave_server(&mut self, number: i32) {
        self.get(number).server_gone = true;
        self.forget(number);
    }

    pub fn leave_client(&mut self, number: i32) {
        self.get(number).client_gone = true;
        self.forget(number);
    }

    fn forget(&mut self, number: i32) {
        if self.links.get(&number).is_some_and(|link| link.client_gone && link.server_gone) {
            self.links.remove(&number);
        }
    }

    /// The server's machine has crashed: every connection breaks, and what was under way is lost.
    pub fn break_all(&mut self) {
        self.links.retain(|_, link| !link.client_gone);
        for link in self.links.values_mut() {
            *link = Link { server_gone: true, ..Link::default() };
        }
    }

    /// Whether bytes are under way that somebody will still read.
    pub fn are_busy(&self) -> bool {
        self.links.values().any(|link| (!link.up.is_empty() && !link.server_gone) || (!link.down.is_empty() && !link.client_gone))
    }

    /// Connections whose server end is open.
    pub fn held_by_server(&self) -> usize {
        self.links.values().filter(|link| !link.server_gone).count()
    }

    /// Takes every delay away.
    pub fn calm(&mut self) {
        for link in self.links.values_mut() {
            (link.up.still_until, link.down.still_until) = (Time::ZERO, Time::ZERO);
        }
    }
}
