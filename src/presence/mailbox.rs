//! Messages that wait for their recipient (XEP-0160), in the order in which they came.
//!
//! Lives on: the user's home core, aside (`Rare`): only those have one for whom something waits. Serves issue 3's offline messages.
//! Invariants: `rows` names every message that is stored for the user or is being stored, wherever it is now: here, with the store,
//! or sent to a session that has not acknowledged it; what waits here is in the order of its rows.

use super::control::Message;
use std::collections::{BTreeMap, VecDeque};

#[derive(Default, Debug)]
pub struct Mailbox {
    waiting: VecDeque<Box<Message>>,
    /// About the bytes of each, by the sequence in its key.
    rows: BTreeMap<u64, usize>,
    bytes: usize,
    /// Those that are with the store.
    arriving: usize,
}

impl Mailbox {
    /// How many there are, and about their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether some are with the store: what comes behind them waits behind them.
    pub fn is_arriving(&self) -> bool {
        self.arriving > 0
    }

    /// A message goes to the store.
    pub fn arrives(&mut self, message: &Message) {
        self.arriving += 1;
        self.count(message.kept, message.frame_bytes());
    }

    /// The store has it.
    pub fn arrived(&mut self, message: Box<Message>) {
        self.arriving -= 1;
        self.put(message);
    }

    /// The store has not taken one.
    pub fn failed(&mut self) {
        self.arriving -= 1;
    }

    /// A stored message, after a start.
    pub fn restore(&mut self, message: Box<Message>) {
        self.count(message.kept, message.frame_bytes());
        self.put(message);
    }

    /// A message with this number, and about so many bytes, is stored or being stored, wherever it is.
    pub fn count(&mut self, sequence: u64, bytes: usize) {
        self.rows.insert(sequence, bytes);
        self.bytes += bytes;
    }

    /// Whether it is still to reach its recipient.
    pub fn has(&self, sequence: u64) -> bool {
        self.rows.contains_key(&sequence)
    }

    /// A message waits, perhaps again, in its place.
    pub fn put(&mut self, message: Box<Message>) {
        let place = self.waiting.partition_point(|other| other.kept < message.kept);
        self.waiting.insert(place, message);
    }

    /// The next one to be sent. It counts until it's acknowledged.
    pub fn take(&mut self) -> Option<Box<Message>> {
        self.waiting.pop_front()
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes out one that waits.
    pub fn withdraw(&mut self, sequence: u64) -> Option<Box<Message>> {
        let at = self.waiting.iter().position(|message| message.kept == sequence)?;
        self.waiting.remove(at)
    }

    /// A message has reached its recipient, or will never. Gives its bytes; `None`: it had before.
    pub fn forget(&mut self, sequence: u64) -> Option<usize> {
        let bytes = self.rows.remove(&sequence)?;
        self.bytes -= bytes;
        Some(bytes)
    }

    /// The sequences of all, wherever they are.
    pub fn rows(&self) -> impl Iterator<Item = u64> {
        self.rows.keys().copied()
    }
}
