//! The frames a server sends, but for events.

use super::{Builder, Encoder, SubscriptionFields, Tag, bytes, text, texts};
use crate::base::id::{SessionId, UserId};
use crate::base::limits::NATIVE_VERSION;
use crate::base::reason::Reason;
use crate::wire::native as n;
use flatbuffers::WIPOffset;

/// The server's answer to Hello.
#[derive(Clone, Copy, Debug)]
pub struct Greeting<'a> {
    pub software: &'a str,
    pub domain: &'a str,
    pub mechanisms: &'a [&'a str],
    /// What those that are bound to the connection can be bound to.
    pub bindings: &'a [&'a str],
    pub max_frame: u32,
}

/// What a client is told when it has logged in.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoggedInAs<'a> {
    pub user: UserId,
    /// The full JID.
    pub jid: &'a str,
    pub session: SessionId,
    /// The token to resume with, and for how many milliseconds it is good.
    pub resume: &'a [u8],
    pub resume_within_ms: u32,
    pub resumed: bool,
    /// SCRAM's proof that the server knows the account.
    pub data: &'a [u8],
}

/// A roster item.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Contact<'a> {
    pub jid: &'a str,
    pub user: UserId,
    pub name: &'a str,
    pub groups: &'a [String],
    pub subscription: n::SubscriptionState,
    pub ask: bool,
    pub approved: bool,
    pub removed: bool,
}

impl Encoder {
    pub fn greeting(&mut self, out: &mut Vec<u8>, tag: Tag, greeting: &Greeting<'_>) {
        self.frame(out, n::Kind::Hello, tag, |b| {
            let args = n::HelloArgs {
                version: NATIVE_VERSION,
                lowest: NATIVE_VERSION,
                software: text(b, greeting.software),
                domain: text(b, greeting.domain),
                mechanisms: texts(b, greeting.mechanisms),
                bindings: texts(b, greeting.bindings),
                max_frame: greeting.max_frame,
            };
            n::Hello::create(b, &args)
        });
    }

    pub fn sasl_challenge(&mut self, out: &mut Vec<u8>, tag: Tag, data: &[u8]) {
        self.frame(out, n::Kind::SaslChallenge, tag, |b| {
            let args = n::SaslChallengeArgs { data: bytes(b, data) };
            n::SaslChallenge::create(b, &args)
        });
    }

    /// `data`: SASL's last word. `token`: one for the next log-in, and when it ends.
    pub fn authenticated(&mut self, out: &mut Vec<u8>, tag: Tag, data: &[u8], token: Option<(&str, u64)>) {
        self.frame(out, n::Kind::Authenticated, tag, |b| {
            let (token, token_until) = token.unwrap_or_default();
            let args = n::AuthenticatedArgs { data: bytes(b, data), token: text(b, token), token_until };
            n::Authenticated::create(b, &args)
        });
    }

    pub fn logged_in(&mut self, out: &mut Vec<u8>, tag: Tag, logged_in: &LoggedInAs<'_>) {
        self.frame(out, n::Kind::LoggedIn, tag, |b| {
            let args = n::LoggedInArgs {
                user: logged_in.user.0,
                jid: Some(b.create_string(logged_in.jid)),
                session: logged_in.session.0,
                resume: bytes(b, logged_in.resume),
                resume_within_ms: logged_in.resume_within_ms,
                resumed: logged_in.resumed,
                data: bytes(b, logged_in.data),
            };
            n::LoggedIn::create(b, &args)
        });
    }

    /// Answers a request that needs no other answer.
    pub fn done(&mut self, out: &mut Vec<u8>, tag: Tag) {
        self.frame(out, n::Kind::Done, tag, |b| n::Done::create(b, &n::DoneArgs {}));
    }

    /// Refuses a request, or says why a session or the connection ends. The text is the reason's own, with the detail.
    pub fn error(&mut self, out: &mut Vec<u8>, tag: Tag, reason: Reason, detail: &str) {
        self.frame(out, n::Kind::Error, tag, |b| {
            let said = match detail {
                "" => text(b, reason.text()),
                detail => text(b, &format!("{} ({detail})", reason.text())),
            };
            let args = n::ErrorArgs { reason: reason as u16, text: said };
            n::Error::create(b, &args)
        });
    }

    pub fn subscription_event(&mut self, out: &mut Vec<u8>, tag: Tag, fields: &SubscriptionFields<'_>) {
        self.frame(out, n::Kind::SubscriptionEvent, tag, |b| {
            let args = n::SubscriptionEventArgs {
                action: fields.action,
                jid: Some(b.create_string(fields.jid)),
                user: fields.user.0,
                note: text(b, fields.note),
                extensions: text(b, fields.extensions),
            };
            n::SubscriptionEvent::create(b, &args)
        });
    }

    /// A roster, or a piece of one; what `version` it has is said with the last.
    pub fn roster<'a>(
        &mut self,
        out: &mut Vec<u8>,
        tag: Tag,
        contacts: impl IntoIterator<Item = Contact<'a>>,
        version: Option<&str>,
    ) {
        self.frame(out, n::Kind::Roster, tag, |b| {
            let items: Vec<_> = contacts.into_iter().map(|contact| item(b, &contact)).collect();
            let items = Some(b.create_vector(&items));
            let args = n::RosterArgs { items, more: version.is_none(), version: text(b, version.unwrap_or("")), unchanged: false };
            n::Roster::create(b, &args)
        });
    }

    /// The client has kept the roster that there is.
    pub fn roster_unchanged(&mut self, out: &mut Vec<u8>, tag: Tag, version: &str) {
        self.frame(out, n::Kind::Roster, tag, |b| {
            let args = n::RosterArgs { version: text(b, version), unchanged: true, ..Default::default() };
            n::Roster::create(b, &args)
        });
    }

    /// `version`: of the roster with this change.
    pub fn roster_push(&mut self, out: &mut Vec<u8>, tag: Tag, contact: &Contact<'_>, version: &str) {
        self.frame(out, n::Kind::RosterPush, tag, |b| {
            let args = n::RosterPushArgs { item: Some(item(b, contact)), version: text(b, version) };
            n::RosterPush::create(b, &args)
        });
    }

    /// `access`: whom it is for, if it is the client's own.
    pub fn document(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, name: &str, data: &[u8], access: n::Access) {
        self.frame(out, n::Kind::Document, tag, |b| {
            let (jid, name) = (Some(b.create_string(jid)), Some(b.create_string(name)));
            let data = bytes(b, data);
            n::Document::create(b, &n::DocumentArgs { jid, name, data, access })
        });
    }

    /// A document that the session wants to hear of; without data, it was removed.
    pub fn document_changed(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, name: &str, data: &[u8]) {
        self.frame(out, n::Kind::DocumentChanged, tag, |b| {
            let (jid, name) = (Some(b.create_string(jid)), Some(b.create_string(name)));
            let data = bytes(b, data);
            n::DocumentChanged::create(b, &n::DocumentChangedArgs { jid, name, data })
        });
    }

    /// When a user was last here, in seconds before now.
    pub fn last_seen(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, seconds: u64, status: &str) {
        self.frame(out, n::Kind::LastSeen, tag, |b| {
            let args = n::LastSeenArgs { jid: Some(b.create_string(jid)), seconds, status: text(b, status) };
            n::LastSeen::create(b, &args)
        });
    }

    pub fn block_list<T: AsRef<str>>(&mut self, out: &mut Vec<u8>, tag: Tag, jids: &[T]) {
        self.frame(out, n::Kind::BlockList, tag, |b| {
            let args = n::BlockListArgs { jids: texts(b, jids) };
            n::BlockList::create(b, &args)
        });
    }

    /// A user was blocked or unblocked.
    pub fn block_push(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, blocked: bool) {
        self.frame(out, n::Kind::BlockPush, tag, |b| {
            let args = n::BlockPushArgs { jid: Some(b.create_string(jid)), blocked };
            n::BlockPush::create(b, &args)
        });
    }

    /// Directed presence of another user arrives; `from` is a full JID.
    pub fn directed_from(&mut self, out: &mut Vec<u8>, tag: Tag, from: &str, presence: &[u8]) {
        self.frame(out, n::Kind::DirectedPresence, tag, |b| {
            let args = n::DirectedPresenceArgs { to: None, from: text(b, from), presence: Some(b.create_vector(presence)) };
            n::DirectedPresence::create(b, &args)
        });
    }

    pub fn transfer(&mut self, out: &mut Vec<u8>, tag: Tag, address: &str) {
        self.frame(out, n::Kind::Transfer, tag, |b| {
            let args = n::TransferArgs { address: Some(b.create_string(address)) };
            n::Transfer::create(b, &args)
        });
    }
}

fn item(b: &mut Builder, contact: &Contact<'_>) -> WIPOffset<n::RosterItem<'static>> {
    let args = n::RosterItemArgs {
        jid: Some(b.create_string(contact.jid)),
        user: contact.user.0,
        name: text(b, contact.name),
        groups: texts(b, contact.groups),
        subscription: contact.subscription,
        ask: contact.ask,
        approved: contact.approved,
        removed: contact.removed,
    };
    n::RosterItem::create(b, &args)
}
