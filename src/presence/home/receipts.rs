//! What is owed to the senders of messages: one answer each, which says that the message is safe, or that it was not taken.
//!
//! Lives on: the recipient's home core. Serves Z9, J10. A message is safe, and its sender told so, when no crash can lose it any
//! more: a session has acknowledged it, or the store has it. So one that no session acknowledges in time is stored beside being
//! given. What may be dropped without a word is safe at once. What can't be stored, and no session acknowledges, is refused in the
//! end; its receiver may have it nevertheless. Until then whoever has asked counts on no more than that an answer is owed: of
//! another node or cluster that is lost, it tells the sender itself (`shard::asked`, `presence::gateway`). Invariant: a message is
//! answered once.

use super::Homes;
use super::change::Waits;
use super::offline::{is_fleeting, row};
use super::reply::{done, refuse};
use crate::base::id::slot_of;
use crate::base::map::Slots;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Asker, Message, UserRef};
use crate::presence::outbox::Outbox;
use crate::presence::user::User;
use crate::store::Durability;
use crate::wire::native::MessageKind;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Messages of one core that are not safe yet. At the limit: the next one is refused, `overloaded`.
const RECEIPTS: usize = 65_536;
/// So long a session may take to acknowledge a message before it is stored.
const PATIENCE: Duration = Duration::from_millis(500);
/// So long the sender of one that can't be stored waits for a session to acknowledge it: less than others wait for an answer.
const MOST: Duration = Duration::from_secs(10);

/// The answers that a core owes, by the messages' receipts: numbers that are not used again in the node's life.
#[derive(Default)]
pub(super) struct Receipts {
    owed: BTreeMap<u64, Owed>,
    /// Given to sessions: when they are stored unless they are safe by then.
    due: VecDeque<(Time, UserRef, u64)>,
    last: u64,
}

#[derive(Debug)]
struct Owed {
    asker: Asker,
    /// Where the recipient's users are.
    slot: u16,
    /// What can't be stored by then is refused.
    until: Time,
}

/// A message that sessions have, and that is being stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub at: UserRef,
    receipt: u64,
    kept: u64,
}

impl Receipts {
    /// An answer is owed from now on. `None`: there is no room for another one.
    pub fn open(&mut self, now: Time, message: &Message) -> Option<u64> {
        if self.owed.len() >= RECEIPTS {
            return None;
        }
        self.last += 1;
        self.owed.insert(self.last, Owed { asker: message.asker, slot: slot_of(message.to.as_str()), until: now + MOST });
        Some(self.last)
    }

    pub fn is_owed(&self, receipt: u64) -> bool {
        self.owed.contains_key(&receipt)
    }

    /// The message is safe.
    pub fn safe(&mut self, receipt: u64, out: &mut Outbox) {
        if let Some(owed) = self.owed.remove(&receipt) {
            done(owed.asker, out);
        }
    }

    /// It was not taken.
    pub fn refuse(&mut self, receipt: u64, reason: Reason, detail: impl Into<String>, out: &mut Outbox) {
        if let Some(owed) = self.owed.remove(&receipt) {
            refuse(owed.asker, reason, detail, out);
        }
    }

    /// Sessions have it, and it can't be stored now: that is tried again, while its sender may wait.
    fn not_kept(&mut self, now: Time, at: UserRef, receipt: u64, (reason, detail): (Reason, String), out: &mut Outbox) {
        match self.owed.get(&receipt).is_some_and(|owed| owed.until > now) {
            true => self.given(now, at, receipt, true),
            false => self.refuse(receipt, reason, detail, out),
        }
    }

    /// Users go to another node: nobody here knows any more what becomes of what is for them.
    pub fn release(&mut self, slots: &Slots, reason: Reason, out: &mut Outbox) {
        for (_, owed) in self.owed.extract_if(.., |_, owed| slots.has(owed.slot)) {
            refuse(owed.asker, reason, "", out);
        }
    }

    /// Sessions have it; some of them are connected.
    pub fn given(&mut self, now: Time, at: UserRef, receipt: u64, connected: bool) {
        let due = if connected { now + PATIENCE } else { now };
        let place = self.due.partition_point(|(other, ..)| *other <= due);
        self.due.insert(place, (due, at, receipt));
    }

    /// The next one that is to be stored by now.
    fn late(&mut self, now: Time) -> Option<(UserRef, u64)> {
        let Receipts { owed, due, .. } = self;
        while due.pop_front_if(|(_, _, receipt)| !owed.contains_key(receipt)).is_some() {}
        due.pop_front_if(|(due, ..)| *due <= now).map(|(_, at, receipt)| (at, receipt))
    }
}

impl Homes {
    /// Stores what no session has acknowledged in time. Gives when the next one is due.
    pub fn keep_given(&mut self, now: Time, out: &mut Outbox) -> Option<Time> {
        while let Some((at, receipt)) = self.receipts.late(now) {
            self.keep_one_given(now, at, receipt, out);
        }
        self.receipts.due.front().map(|(due, ..)| *due)
    }

    /// What may not be stored is safe once it is acknowledged.
    fn keep_one_given(&mut self, now: Time, at: UserRef, receipt: u64, out: &mut Outbox) {
        let may_be_kept = |message: &&Message| message.kept == 0 && may_wait(message);
        let Some(message) = self.get(at).and_then(|user| unacknowledged(user, receipt)).filter(may_be_kept) else { return };
        let (bytes, write) = (message.frame_bytes(), message.clone());
        if let Err(reason) = self.room_to_keep(at, bytes) {
            let detail = format!("message {:?} to {}", write.content.id, write.to);
            return self.receipts.not_kept(now, at, receipt, (reason, detail), out);
        }
        self.next_message += 1;
        let (kept, stamp) = (self.next_message, self.place.wall(now));
        let user = self.user(at).expect("it has the message");
        for message in copies(user, receipt) {
            (message.kept, message.stamp) = (kept, stamp);
        }
        user.rare().mailbox.get_or_insert_default().count(kept, bytes);
        self.count_kept(1, bytes as isize);
        let ticket = out.commit(vec![row(at.user, &Message { kept, stamp, ..write })], Durability::Synced);
        self.storing.insert(ticket, Waits::Given(Given { at, receipt, kept }));
    }

    /// The store has answered about one of them.
    pub(super) fn given_is_kept(&mut self, now: Time, given: Given, result: Result<(), String>, out: &mut Outbox) {
        let Given { at, receipt, kept } = given;
        let Err(why) = result else {
            self.counters.messages_kept += 1;
            return self.receipts.safe(receipt, out);
        };
        let Some(user) = self.user(at) else { return };
        for message in copies(user, receipt) {
            message.kept = 0;
        }
        let mailbox = user.rare().mailbox.as_mut();
        if mailbox.and_then(|mailbox| mailbox.withdraw(kept)).is_some() {
            // The sessions that had it have ended meanwhile.
            self.receipts.refuse(receipt, Reason::StorageFailed, why.clone(), out);
        }
        self.forget_kept(at, &[kept]);
        self.receipts.not_kept(now, at, receipt, (Reason::StorageFailed, why), out);
    }
}

/// Whether a message may be stored for its recipient, whichever session that has then.
fn may_wait(message: &Message) -> bool {
    matches!(message.content.kind, MessageKind::Normal | MessageKind::Chat)
}

/// Whether a message may be lost without a word.
pub(super) fn may_be_lost(message: &Message) -> bool {
    let kinds = [MessageKind::Headline, MessageKind::Error, MessageKind::Result, MessageKind::Failure];
    kinds.contains(&message.content.kind) || is_fleeting(&message.content)
}

fn unacknowledged(user: &User, receipt: u64) -> Option<&Message> {
    let sent = user.sessions.iter().filter_map(|session| session.extra.as_ref()).flat_map(|extra| &extra.unacknowledged);
    sent.map(|(_, message)| &**message).find(|message| message.receipt == receipt)
}

/// What each session has of a message.
fn copies(user: &mut User, receipt: u64) -> impl Iterator<Item = &mut Message> {
    let extras = user.sessions.iter_mut().filter_map(|session| session.extra.as_mut());
    let sent = extras.flat_map(|extra| &mut extra.unacknowledged).map(|(_, message)| &mut **message);
    sent.filter(move |message| message.receipt == receipt)
}
