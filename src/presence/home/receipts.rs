//! What is owed to the senders of messages: one answer each, which says that the message is safe, or that it was not taken.
//!
//! Lives on: the recipient's home core. Serves Z9, J10. A message is safe, and its sender told so, when no crash can lose it any
//! more: a session has acknowledged it, or the store has it. So one that no session acknowledges in time is stored beside being
//! given. What may be dropped without a word is safe at once. What can't be stored, or is of a kind that never is, and no session
//! acknowledges, is refused in the end; its receiver may have it nevertheless, and an acknowledgement that comes later changes
//! nothing. Until then whoever has asked counts on no more than that an answer is owed: of another node or cluster that is lost, it
//! tells the sender itself (`shard::asked`, `presence::gateway`). Invariants: a message is answered once; what is due is owed.

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
use std::collections::BTreeMap;
use std::time::Duration;

/// Messages of one core that are not safe yet. At the limit: the next one is refused, `overloaded`.
const RECEIPTS: usize = 65_536;
/// So long a session may take to acknowledge a message before it is stored.
const PATIENCE: Duration = Duration::from_millis(500);
/// So long the sender of one that is not stored waits for a session to acknowledge it: less than others wait for an answer.
const MOST: Duration = Duration::from_secs(10);

/// The answers that a core owes, by the messages' receipts: numbers that are not used again in the node's life.
#[derive(Default)]
pub(super) struct Receipts {
    owed: BTreeMap<u64, Owed>,
    /// Given to sessions: when they are stored, or given up, unless they are safe by then.
    due: BTreeMap<(Time, u64), UserRef>,
    last: u64,
}

#[derive(Debug)]
struct Owed {
    asker: Asker,
    /// Where the recipient's users are.
    slot: u16,
    /// What can't be stored by then is refused.
    until: Time,
    /// Where it is in `due`.
    due: Option<Time>,
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
        let slot = slot_of(message.to.as_str());
        self.owed.insert(self.last, Owed { asker: message.asker, slot, until: now + MOST, due: None });
        Some(self.last)
    }

    pub fn is_owed(&self, receipt: u64) -> bool {
        self.owed.contains_key(&receipt)
    }

    /// The message is safe.
    pub fn safe(&mut self, receipt: u64, out: &mut Outbox) {
        if let Some(asker) = self.close(receipt) {
            done(asker, out);
        }
    }

    /// It was not taken.
    pub fn refuse(&mut self, receipt: u64, reason: Reason, detail: impl Into<String>, out: &mut Outbox) {
        if let Some(asker) = self.close(receipt) {
            refuse(asker, reason, detail, out);
        }
    }

    /// An answer is owed no longer.
    fn close(&mut self, receipt: u64) -> Option<Asker> {
        let Owed { asker, due, .. } = self.owed.remove(&receipt)?;
        due.and_then(|due| self.due.remove(&(due, receipt)));
        Some(asker)
    }

    /// Users go to another node: nobody here knows any more what becomes of what is for them.
    pub fn release(&mut self, slots: &Slots, reason: Reason, out: &mut Outbox) {
        let released: Vec<u64> = self.owed.iter().filter(|(_, owed)| slots.has(owed.slot)).map(|(&receipt, _)| receipt).collect();
        released.into_iter().for_each(|receipt| self.refuse(receipt, reason, "", out));
    }

    /// Sessions have a message, and are waited for until then.
    fn wait(&mut self, at: UserRef, receipt: u64, due: Time) {
        let Some(owed) = self.owed.get_mut(&receipt) else { return };
        owed.due.replace(due).and_then(|before| self.due.remove(&(before, receipt)));
        self.due.insert((due, receipt), at);
    }

    /// The next one that no session has acknowledged by now.
    fn late(&mut self, now: Time) -> Option<(UserRef, u64)> {
        let entry = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, receipt), at) = entry.remove_entry();
        self.owed.get_mut(&receipt).expect("what is due is owed").due = None;
        Some((at, receipt))
    }
}

impl Homes {
    /// Sessions have it; some of them are connected.
    pub(super) fn given(&mut self, now: Time, at: UserRef, message: &Message, connected: bool) {
        let patience = match (may_wait(message), connected) {
            (false, _) => MOST,
            (true, true) => PATIENCE,
            (true, false) => Duration::ZERO,
        };
        self.receipts.wait(at, message.receipt, now + patience);
    }

    /// Sessions have it, and it can't be stored now: that is tried again, while its sender may wait.
    fn not_kept(&mut self, now: Time, at: UserRef, receipt: u64, (reason, detail): (Reason, String), out: &mut Outbox) {
        match self.receipts.owed.get(&receipt) {
            None => {}
            Some(owed) if owed.until > now => self.receipts.wait(at, receipt, now + PATIENCE),
            Some(_) => {
                self.counters.messages_given_up += 1;
                self.receipts.refuse(receipt, reason, detail, out);
            }
        }
    }

    /// Stores what no session has acknowledged in time, or gives it up. Gives when the next one is due.
    pub fn keep_given(&mut self, now: Time, out: &mut Outbox) -> Option<Time> {
        while let Some((at, receipt)) = self.receipts.late(now) {
            self.keep_one_given(now, at, receipt, out);
        }
        self.receipts.due.first_key_value().map(|((due, _), _)| *due)
    }

    fn keep_one_given(&mut self, now: Time, at: UserRef, receipt: u64, out: &mut Outbox) {
        let message = self.get(at).and_then(|user| unacknowledged(user, receipt)).filter(|message| message.kept == 0);
        let Some(message) = message else { return };
        let (bytes, write) = (message.frame_bytes(), message.clone());
        let room = if may_wait(&write) { self.room_to_keep(at, bytes) } else { Err(Reason::RecipientUnavailable) };
        if let Err(reason) = room {
            let detail = format!("message {:?} to {}", write.content.id, write.to);
            return self.not_kept(now, at, receipt, (reason, detail), out);
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
        let is_withdrawn = mailbox.and_then(|mailbox| mailbox.withdraw(kept)).is_some();
        self.forget_kept(at, &[kept]);
        match is_withdrawn {
            // The sessions that had it have ended meanwhile.
            true => self.receipts.refuse(receipt, Reason::StorageFailed, why, out),
            false => self.not_kept(now, at, receipt, (Reason::StorageFailed, why), out),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{CoreId, NodeId, Seat, UserId};
    use crate::base::jid::Bare;
    use crate::base::limits::Limits;
    use crate::base::map::Map;
    use crate::presence::control::{Content, EdgeRef};

    /// Z9: those that were answered behind one that is not would be as many as come in ten seconds.
    #[test]
    fn z9_nothing_waits_that_is_answered() {
        let (mut receipts, mut out) = (Receipts::default(), Outbox::new(Map::alone(CoreId(0), 1), &Limits::default(), 1500));
        let edge = EdgeRef { seat: Seat { node: NodeId(0), core: CoreId(0) }, slot: 1, generation: 1 };
        let (at, user) = (UserRef { user: UserId(1), slot: 0 }, Bare::new("bob@d").unwrap());
        let content = Content { kind: MessageKind::Get, id: String::new(), body: Vec::new(), extensions: String::new() };
        let asker = Asker { edge, request: 1 };
        let message = Message::new((Bare::new("ann@d").unwrap(), "desk".into()), (user, None), content, asker);
        let mut given = || {
            let receipt = receipts.open(Time(1), &message).expect("there is room");
            receipts.wait(at, receipt, Time(7));
            receipts.wait(at, receipt, Time(5));
            receipt
        };
        let all = [given(), given(), given(), given()];
        receipts.safe(all[1], &mut out);
        receipts.refuse(all[2], Reason::Blocked, "", &mut out);
        assert_eq!(receipts.due.keys().copied().collect::<Vec<_>>(), [(Time(5), all[0]), (Time(5), all[3])]);
        assert_eq!((receipts.late(Time(4)), receipts.late(Time(5))), (None, Some((at, all[0]))));
        receipts.release(&Slots::of(|_| true), Reason::HomeOutOfReach, &mut out);
        assert!(receipts.due.is_empty() && receipts.owed.is_empty());
    }
}
