//! Each message whose sending was confirmed is handed to a session that could take it, or its sender is told that it wasn't; once,
//! and in order.

use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId};
use std::collections::{BTreeMap, BTreeSet};

const CHECK: Check = Check::EachMessageArrivesOrReturns;

/// A session, in one life of the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SessionKey {
    pub life: u32,
    pub user: UserId,
    pub session: SessionId,
}

struct Letter {
    from: SessionKey,
    /// Whether it names a session.
    full: bool,
    confirmed: bool,
    returned: bool,
    taken_by: Vec<SessionKey>,
}

#[derive(Default)]
pub struct Post {
    letters: Vec<Letter>,
    numbers: BTreeMap<SessionKey, u64>,
    order: BTreeMap<(SessionKey, SessionKey), usize>,
    /// Home cores, by the node's life, on which a session ended: what it had not acknowledged comes to others later.
    disturbed: BTreeSet<(u32, CoreId)>,
}

impl Post {
    /// A client writes a message. Gives the name to send it under.
    pub fn written(&mut self, from: SessionKey, full: bool) -> usize {
        self.letters.push(Letter { from, full, confirmed: false, returned: false, taken_by: Vec::new() });
        self.letters.len() - 1
    }

    pub fn confirmed(&mut self, letter: usize) {
        self.letters[letter].confirmed = true;
    }

    /// The sender was told that it did not arrive.
    pub fn returned(&mut self, letter: usize) {
        self.letters[letter].returned = true;
    }

    pub fn session_ended(&mut self, life: u32, core: CoreId) {
        self.disturbed.insert((life, core));
    }

    /// A session receives a message. True: it had one of the same sender before.
    pub fn taken(&mut self, by: SessionKey, home: CoreId, number: u64, letter: usize) -> Result<bool, super::Broken> {
        let last = self.numbers.entry(by).or_default();
        CHECK.holds(number == *last + 1, || format!("{by:?} got message {number} after {last}"))?;
        *last = number;
        let Letter { from, full, ref mut taken_by, .. } = self.letters[letter];
        CHECK.holds(!taken_by.contains(&by), || format!("{by:?} got message {letter} twice"))?;
        taken_by.push(by);
        let before = self.order.insert((from, by), letter);
        let in_order = before.is_none_or(|before| before < letter) || !full || self.disturbed.contains(&(by.life, home));
        CHECK.holds(in_order, || format!("{by:?} got message {letter} of {from:?} after {before:?}"))?;
        Ok(before.is_some())
    }

    /// The number of the last message a session got.
    pub fn number(&self, of: SessionKey) -> u64 {
        self.numbers.get(&of).copied().unwrap_or(0)
    }

    /// All is still. `heard` are the senders that have been there all the time, so that they'd know.
    pub fn check(&self, heard: &BTreeSet<SessionKey>) -> Held {
        for (number, letter) in self.letters.iter().enumerate() {
            let arrived = !letter.taken_by.is_empty() || letter.returned;
            CHECK.holds(arrived || !letter.confirmed || !heard.contains(&letter.from), || {
                format!("message {number} of {:?} was confirmed, and then nothing was heard of it", letter.from)
            })?;
        }
        Ok(())
    }
}
