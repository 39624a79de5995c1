//! Messages for users who take none now wait in the store (XEP-0160, RFC 6121 8.5.2.2.1) until a session acknowledges them.
//!
//! The sender is answered once it is stored. It goes to one session that takes messages, when there is one, and waits again when
//! that session ends without having acknowledged it; its row is deleted once it is acknowledged. A crash before that deletion
//! sends it again. So nothing is lost, and little comes twice.

use super::Homes;
use super::change::Waits;
use super::message::{Fate, Refusal, give};
use super::reply::{done, refuse};
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Content, Message, UserRef};
use crate::presence::mailbox::Mailbox;
use crate::presence::outbox::Outbox;
use crate::presence::user::{Session, User};
use crate::store::{
    Durability, Table, Write,
    rows::{self, Row},
};
use crate::wire::native::MessageKind;

/// How chat states (XEP-0085) look: alone, they are not worth keeping.
const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
/// A sender's wish that a message be not kept (XEP-0334).
const NO_STORE: &str = "<no-store ";

/// A message that is with the store.
#[derive(Debug)]
pub(super) struct Keeping {
    at: UserRef,
    message: Box<Message>,
    /// Whether the sender waits for an answer.
    answer: bool,
}

impl Keeping {
    /// Whom it's for.
    pub(super) fn to(&self) -> &Bare {
        &self.message.to
    }

    /// Nobody here knows any more what becomes of it.
    pub(super) fn refuse(self, reason: Reason, out: &mut Outbox) {
        refuse(self.message.asker, reason, format!("message {:?}", self.message.content.id), out);
    }
}

impl Homes {
    /// Hands a message to the store, for a user who takes none now.
    pub(super) fn keep(
        &mut self,
        now: Time,
        at: UserRef,
        mut message: Box<Message>,
        answer: bool,
        out: &mut Outbox,
    ) -> Result<Fate, Refusal> {
        if is_fleeting(&message.content) {
            return Ok(Fate::Given);
        }
        let (limits, stamp, all) = (self.place.limits.clone(), self.place.wall(now), self.kept.1);
        let what = || format!("message {:?} to {}", message.content.id, message.to);
        let bytes = message.frame_bytes();
        let user = self.user(at).expect("the caller found it");
        let unsteady = user.rare.as_ref().is_some_and(|rare| {
            rare.leaving || rare.storing.as_ref().is_some_and(|storing| storing.is_creation() || storing.is_removal())
        });
        let most = (limits.offline_messages_per_user as usize, limits.offline_bytes_per_user as usize);
        if unsteady || most.0 == 0 || all + bytes > limits.offline_bytes_per_core as usize {
            return Err((Reason::RecipientUnavailable, what()));
        }
        let there = user.mailbox().map_or((0, 0), Mailbox::size);
        if there.0 >= most.0 || there.1 + bytes > most.1 {
            return Err((Reason::TooManyMessages, what()));
        }
        self.next_message += 1;
        (message.kept, message.stamp) = (self.next_message, stamp);
        let user = self.user(at).expect("found above");
        user.rare().mailbox.get_or_insert_default().arrives(&message);
        self.count_kept(1, bytes as isize);
        let key = rows::message_key(&message.to, message.kept);
        let write = Write { table: Table::Messages, key, value: Some(stored(at.user, &message).encode()) };
        let ticket = out.commit(vec![write], Durability::Synced);
        self.storing.insert(ticket, Waits::Message(Box::new(Keeping { at, message, answer })));
        Ok(Fate::WithTheStore)
    }

    /// The store has answered about a message.
    pub(super) fn kept(&mut self, keeping: Keeping, result: Result<(), String>, out: &mut Outbox) {
        let Keeping { at, message, answer } = keeping;
        let (asker, sequence, what) = (message.asker, message.kept, format!("message {:?}", message.content.id));
        let Some(mailbox) = self.user(at).and_then(|user| user.rare().mailbox.as_mut()) else {
            // The account has gone, and with it all that waited.
            return refuse(asker, Reason::RecipientUnavailable, what, out);
        };
        match result {
            Ok(()) => {
                mailbox.arrived(message);
                self.counters.messages_kept += 1;
                if answer {
                    done(asker, out);
                }
                self.hand_out(at, out);
            }
            Err(why) => {
                let bytes = mailbox.failed(sequence);
                self.count_kept(-1, -(bytes as isize));
                self.tidy_mailbox(at);
                refuse(asker, Reason::StorageFailed, why, out);
            }
        }
    }

    /// Sends what waits to a session that takes messages, as much as it may be sent.
    pub(super) fn hand_out(&mut self, at: UserRef, out: &mut Outbox) {
        let limits = self.place.limits.clone();
        let Some(user) = self.user(at) else { return };
        while user.mailbox().is_some_and(Mailbox::is_waiting) {
            let room = |session: &&Session| session.extra.as_ref().is_none_or(|extra| extra.has_room(&limits));
            let willing = user.sessions.iter().filter(|session| session.is_willing()).filter(room);
            let Some(id) = willing.max_by_key(|session| session.priority).map(|session| session.id) else { return };
            let mailbox = user.rare().mailbox.as_mut().expect("just looked");
            let mut message = mailbox.take().expect("just looked");
            message.given = vec![id];
            give(user.session(id).expect("chosen from the list"), message, out);
        }
    }

    /// These have been acknowledged: they need not be kept any more, and there is room for others.
    pub(super) fn acknowledged(&mut self, at: UserRef, sequences: Vec<u64>, out: &mut Outbox) {
        let Some(user) = self.user(at) else { return };
        let jid = user.jid.clone();
        let delete = |sequence| Write { table: Table::Messages, key: rows::message_key(&jid, sequence), value: None };
        let writes: Vec<Write> = sequences.iter().map(|&sequence| delete(sequence)).collect();
        let mailbox = user.rare.as_mut().and_then(|rare| rare.mailbox.as_mut());
        let bytes: usize = mailbox.map_or(0, |mailbox| sequences.iter().map(|&sequence| mailbox.forget(sequence)).sum());
        self.count_kept(-(sequences.len() as isize), -(bytes as isize));
        if !writes.is_empty() {
            out.commit(writes, Durability::RideAlong);
        }
        self.hand_out(at, out);
        self.tidy_mailbox(at);
    }

    fn tidy_mailbox(&mut self, at: UserRef) {
        let Some(user) = self.user(at) else { return };
        if user.mailbox().is_some_and(Mailbox::is_empty) {
            user.rare().mailbox = None;
            user.tidy();
        }
    }

    /// Keeps count of what waits on this core.
    pub(super) fn count_kept(&mut self, messages: isize, bytes: isize) {
        self.kept = (self.kept.0.saturating_add_signed(messages), self.kept.1.saturating_add_signed(bytes));
    }

    /// All that waited for a user goes with the account.
    pub(super) fn drop_mailbox(&mut self, user: &User) {
        let (messages, bytes) = user.mailbox().map_or((0, 0), Mailbox::size);
        self.count_kept(-(messages as isize), -(bytes as isize));
    }
}

fn stored(user: UserId, message: &Message) -> rows::Message {
    let Content { kind, id, body, extensions } = message.content.clone();
    rows::Message {
        user,
        from: message.from.to_string(),
        from_resource: message.from_resource.to_string(),
        to_resource: message.to_resource.clone(),
        kind: kind.0,
        id,
        body,
        extensions,
        stamp: message.stamp,
    }
}

/// Whether a message means nothing later on.
fn is_fleeting(content: &Content) -> bool {
    let Content { kind, body, extensions, .. } = content;
    let only_state = *kind == MessageKind::Chat && body.is_empty() && extensions.contains(CHAT_STATES);
    only_state && !extensions.contains("urn:xmpp:receipts") || extensions.contains(NO_STORE)
}
