//! Each message whose sending was confirmed was handed to a session that could take it, or waits in the store for one, whatever
//! crashed since; of what was refused after that, nothing is heard. It comes once, and in order. What was stored survives crashes.

use super::kept::Wishes;
use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId};
use crate::base::jid::Bare;
use crate::store::Table;
use crate::store::memory::Memory;
use crate::store::rows::{self, Row};
use crate::wire::native::{self, Message};
use std::collections::{BTreeMap, BTreeSet};

const CHECK: Check = Check::EachMessageArrivesOrReturns;

/// A session, in one life of its user's home.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SessionKey {
    /// Counted over all of them.
    pub log_in: u64,
    /// The node of its home, and which of that one's lives it was when the client heard.
    pub life: (usize, u32),
    pub user: UserId,
    pub session: SessionId,
}

struct Letter {
    from: SessionKey,
    /// Whether it names a session.
    full: bool,
    confirmed: bool,
    returned: bool,
    /// For whom it was stored.
    kept_for: Option<Bare>,
    taken_by: Vec<SessionKey>,
}

#[derive(Default)]
pub struct Post {
    letters: Vec<Letter>,
    numbers: BTreeMap<SessionKey, u64>,
    order: BTreeMap<(SessionKey, SessionKey), usize>,
    /// Home cores, by the nodes' lives, on which a session ended: what it had not acknowledged comes to others later.
    disturbed: BTreeSet<((usize, u32), CoreId)>,
    log_ins: u64,
}

impl Post {
    /// A client writes a message. Gives the name to send it under.
    pub fn written(&mut self, from: SessionKey, full: bool) -> usize {
        self.letters.push(Letter { from, full, confirmed: false, returned: false, kept_for: None, taken_by: Vec::new() });
        self.letters.len() - 1
    }

    /// A name for a session that was begun.
    pub fn next_log_in(&mut self) -> u64 {
        self.log_ins += 1;
        self.log_ins
    }

    pub fn confirmed(&mut self, letter: usize) {
        self.letters[letter].confirmed = true;
    }

    /// The sender was told that it did not arrive.
    pub fn returned(&mut self, letter: usize) {
        self.letters[letter].returned = true;
    }

    /// It was stored.
    pub fn kept(&mut self, row: &[u8], for_whom: &str) {
        self.letters[letter_of(row)].kept_for = Bare::new(for_whom);
    }

    pub fn session_ended(&mut self, life: (usize, u32), core: CoreId) {
        self.disturbed.insert((life, core));
    }

    /// A session receives a message. True: it had one of the same sender before. One that has waited may come behind later ones; a
    /// copy is nobody's only one.
    pub fn taken(&mut self, by: SessionKey, home: CoreId, letter: usize, message: &Message<'_>) -> Result<bool, super::Broken> {
        let number = message.number();
        let last = self.numbers.entry(by).or_default();
        CHECK.holds(number == *last + 1, || format!("{by:?} got message {number} after {last}"))?;
        *last = number;
        if message.copy() != native::Copy::None {
            return Ok(false);
        }
        let Letter { from, full, ref mut taken_by, .. } = self.letters[letter];
        CHECK.holds(!taken_by.contains(&by), || format!("{by:?} got message {letter} twice"))?;
        taken_by.push(by);
        if message.stamp() != 0 {
            return Ok(false);
        }
        let before = self.order.insert((from, by), letter);
        let in_order = before.is_none_or(|before| before < letter) || !full || self.disturbed.contains(&(by.life, home));
        CHECK.holds(in_order, || format!("{by:?} got message {letter} of {from:?} after {before:?}"))?;
        Ok(before.is_some())
    }

    /// The number of the last message a session got.
    pub fn number(&self, of: SessionKey) -> u64 {
        self.numbers.get(&of).copied().unwrap_or(0)
    }

    /// All is still.
    pub fn check(&self, stored: &Memory, wishes: &Wishes) -> Held {
        let waiting: BTreeSet<usize> = stored.rows(Table::Messages).map(|(_, row)| letter_of(row)).collect();
        for (number, letter) in self.letters.iter().enumerate() {
            let gone = letter.kept_for.as_ref().is_some_and(|user| wishes.was_removed(user));
            let arrived = !letter.taken_by.is_empty() || letter.returned || waiting.contains(&number) || gone;
            CHECK.holds(arrived || letter.kept_for.is_none(), || {
                format!("message {number} was stored for {:?}, and neither taken nor kept", letter.kept_for)
            })?;
            CHECK.holds(arrived || !letter.confirmed, || {
                format!("message {number} of {:?} was confirmed, and then nothing was heard of it", letter.from)
            })?;
        }
        Ok(())
    }
}

/// Which message a row holds.
fn letter_of(row: &[u8]) -> usize {
    rows::Message::decode(row).expect("rows are sound").id.parse().expect("messages are named by their numbers")
}
