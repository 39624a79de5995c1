//! Messages for users who take none now wait in the store (XEP-0160, RFC 6121 8.5.2.2.1) until a session acknowledges them.
//!
//! It goes to one session that takes messages, when there is one, and waits again when that session ends without having
//! acknowledged it; its row is deleted once it is acknowledged. A crash before that deletion sends it again. So nothing is lost,
//! and little comes twice.

use super::Homes;
use super::change::Waits;
use super::message::{Fate, Refusal, give};
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
}

impl Keeping {
    /// Whom it's for.
    pub(super) fn to(&self) -> &Bare {
        &self.message.to
    }
}

impl Homes {
    /// Hands a message to the store, for a user who takes none now.
    pub(super) fn keep(&mut self, now: Time, at: UserRef, mut message: Box<Message>, out: &mut Outbox) -> Result<Fate, Refusal> {
        if is_fleeting(&message.content) {
            return Ok(Fate::Safe);
        }
        let (bytes, stamp) = (message.frame_bytes(), self.place.wall(now));
        if let Err(reason) = self.room_to_keep(at, bytes) {
            return Err((reason, format!("message {:?} to {}", message.content.id, message.to)));
        }
        self.next_message += 1;
        (message.kept, message.stamp) = (self.next_message, stamp);
        let user = self.user(at).expect("the caller found it");
        user.rare().mailbox.get_or_insert_default().arrives(&message);
        self.count_kept(1, bytes as isize);
        let ticket = out.commit(vec![row(at.user, &message)], Durability::Synced);
        self.storing.insert(ticket, Waits::Message(Box::new(Keeping { at, message })));
        Ok(Fate::UnderWay)
    }

    /// Whether another message of this length may be stored for a user.
    pub(super) fn room_to_keep(&self, at: UserRef, bytes: usize) -> Result<(), Reason> {
        let Some(user) = self.get(at) else { return Err(Reason::RecipientUnavailable) };
        let limits = &self.place.limits;
        let unsteady = user.rare.as_ref().is_some_and(|rare| {
            rare.leaving || rare.storing.as_ref().is_some_and(|storing| storing.is_creation() || storing.is_removal())
        });
        let most = (limits.offline_messages_per_user as usize, limits.offline_bytes_per_user as usize);
        if unsteady || most.0 == 0 || self.kept.1 + bytes > limits.offline_bytes_per_core as usize {
            return Err(Reason::RecipientUnavailable);
        }
        let there = user.mailbox().map_or((0, 0), Mailbox::size);
        match there.0 >= most.0 || there.1 + bytes > most.1 {
            true => Err(Reason::TooManyMessages),
            false => Ok(()),
        }
    }

    /// The store has answered about a message.
    pub(super) fn kept(&mut self, keeping: Keeping, result: Result<(), String>, out: &mut Outbox) {
        let Keeping { at, message } = keeping;
        let (receipt, sequence, what) = (message.receipt, message.kept, format!("message {:?}", message.content.id));
        let Some(mailbox) = self.user(at).and_then(|user| user.rare().mailbox.as_mut()) else {
            // The account has gone, and with it all that waited.
            return self.receipts.refuse(receipt, Reason::RecipientUnavailable, what, out);
        };
        match result {
            Ok(()) => {
                mailbox.arrived(message);
                self.counters.messages_kept += 1;
                self.receipts.safe(receipt, out);
                self.hand_out(at, out);
            }
            Err(why) => {
                mailbox.failed();
                self.forget_kept(at, &[sequence]);
                self.receipts.refuse(receipt, Reason::StorageFailed, why, out);
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

    /// A session has received these: they need not be kept any more, and there is room for others.
    pub(super) fn acknowledged(&mut self, at: UserRef, received: Vec<Message>, out: &mut Outbox) {
        let Some(user) = self.get(at) else { return };
        let (jid, has_mailbox) = (user.jid.clone(), user.mailbox().is_some());
        received.iter().for_each(|message| self.receipts.safe(message.receipt, out));
        if !has_mailbox {
            return;
        }
        let kept: Vec<u64> = received.iter().map(|message| message.kept).filter(|&kept| kept != 0).collect();
        let delete = |&sequence| Write { table: Table::Messages, key: rows::message_key(&jid, sequence), value: None };
        if !kept.is_empty() {
            out.commit(kept.iter().map(delete).collect(), Durability::RideAlong);
        }
        self.hand_out(at, out);
        self.forget_kept(at, &kept);
    }

    /// These don't wait any more.
    pub(super) fn forget_kept(&mut self, at: UserRef, sequences: &[u64]) {
        let Some(user) = self.user(at) else { return };
        let Some(mailbox) = user.rare().mailbox.as_mut() else { return user.tidy() };
        let bytes: Vec<usize> = sequences.iter().filter_map(|&sequence| mailbox.forget(sequence)).collect();
        if mailbox.is_empty() {
            user.rare().mailbox = None;
            user.tidy();
        }
        self.count_kept(-(bytes.len() as isize), -(bytes.iter().sum::<usize>() as isize));
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

/// The row of a message.
pub(super) fn row(user: UserId, message: &Message) -> Write {
    let Content { kind, id, body, extensions } = message.content.clone();
    let row = rows::Message {
        user,
        from: message.from.to_string(),
        from_resource: message.from_resource.to_string(),
        to_resource: message.to_resource.clone(),
        kind: kind.0,
        id,
        body,
        extensions,
        stamp: message.stamp,
    };
    Write { table: Table::Messages, key: rows::message_key(&message.to, message.kept), value: Some(row.encode()) }
}

/// Whether a message means nothing later on.
pub(super) fn is_fleeting(content: &Content) -> bool {
    let Content { kind, body, extensions, .. } = content;
    let only_state = *kind == MessageKind::Chat && body.is_empty() && extensions.contains(CHAT_STATES);
    only_state && !extensions.contains("urn:xmpp:receipts") || extensions.contains(NO_STORE)
}
