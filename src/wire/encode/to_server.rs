//! The frames a client sends.

use super::{Encoder, LogInFields, PresenceFields, SubscriptionFields, Tag, bytes, create_presence, text, texts};
use crate::base::limits::NATIVE_VERSION;
use crate::wire::frame::{Header, padded};
use crate::wire::native as n;

impl Encoder {
    pub fn hello(&mut self, out: &mut Vec<u8>, tag: Tag, software: &str) {
        self.frame(out, n::Kind::Hello, tag, |b| {
            let software = text(b, software);
            n::Hello::create(b, &n::HelloArgs { version: NATIVE_VERSION, lowest: NATIVE_VERSION, software, ..Default::default() })
        });
    }

    pub fn log_in(&mut self, out: &mut Vec<u8>, tag: Tag, fields: &LogInFields<'_>) {
        self.frame(out, n::Kind::LogIn, tag, |b| {
            let args = n::LogInArgs {
                jid: text(b, fields.jid),
                mechanism: text(b, fields.mechanism),
                data: bytes(b, fields.data),
                resource: text(b, fields.resource),
                presence: bytes(b, fields.presence),
                bind_later: fields.bind_later,
                client: text(b, fields.client),
                token_for: text(b, fields.token_for),
                token_count: fields.token_count,
                token_invalid: fields.token_invalid,
            };
            n::LogIn::create(b, &args)
        });
    }

    /// After `Authenticated`. `presence` as in a log-in.
    pub fn bind(&mut self, out: &mut Vec<u8>, tag: Tag, resource: &str, presence: &[u8]) {
        self.frame(out, n::Kind::Bind, tag, |b| {
            let args = n::BindArgs { resource: text(b, resource), presence: bytes(b, presence) };
            n::Bind::create(b, &args)
        });
    }

    /// A new account, in place of a log-in.
    pub fn register(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, password: &str) {
        self.frame(out, n::Kind::Register, tag, |b| {
            let args = n::RegisterArgs { jid: Some(b.create_string(jid)), password: Some(b.create_string(password)) };
            n::Register::create(b, &args)
        });
    }

    pub fn password_set(&mut self, out: &mut Vec<u8>, tag: Tag, password: &str) {
        self.frame(out, n::Kind::PasswordSet, tag, |b| {
            let args = n::PasswordSetArgs { password: Some(b.create_string(password)) };
            n::PasswordSet::create(b, &args)
        });
    }

    pub fn account_remove(&mut self, out: &mut Vec<u8>, tag: Tag) {
        self.frame(out, n::Kind::AccountRemove, tag, |b| n::AccountRemove::create(b, &n::AccountRemoveArgs {}));
    }

    pub fn sasl_response(&mut self, out: &mut Vec<u8>, tag: Tag, data: &[u8]) {
        self.frame(out, n::Kind::SaslResponse, tag, |b| {
            let args = n::SaslResponseArgs { data: bytes(b, data) };
            n::SaslResponse::create(b, &args)
        });
    }

    /// `received`: the number of the last Message received.
    pub fn resume(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, token: &[u8], received: u64) {
        self.frame(out, n::Kind::Resume, tag, |b| {
            let args = n::ResumeArgs { jid: Some(b.create_string(jid)), token: Some(b.create_vector(token)), received };
            n::Resume::create(b, &args)
        });
    }

    pub fn log_out(&mut self, out: &mut Vec<u8>, tag: Tag, status: &str) {
        self.frame(out, n::Kind::LogOut, tag, |b| {
            let args = n::LogOutArgs { status: text(b, status) };
            n::LogOut::create(b, &args)
        });
    }

    pub fn set_presence(&mut self, out: &mut Vec<u8>, tag: Tag, presence: &PresenceFields<'_>) {
        self.frame(out, n::Kind::SetPresence, tag, |b| create_presence(b, presence));
    }

    /// The same from a Presence flatbuffer made before (`Encoder::presence`).
    pub fn set_presence_bytes(&mut self, out: &mut Vec<u8>, tag: Tag, presence: &[u8]) {
        let body = padded(presence.len());
        let header = Header { body: body as u32, kind: n::Kind::SetPresence, stream: tag.stream, request: tag.request };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(presence);
        out.resize(out.len() + body - presence.len(), 0);
    }

    /// Presence for one user or session only; `presence` is a flatbuffer made by `Encoder::presence`.
    pub fn directed_presence(&mut self, out: &mut Vec<u8>, tag: Tag, to: &str, presence: &[u8]) {
        self.frame(out, n::Kind::DirectedPresence, tag, |b| {
            let args =
                n::DirectedPresenceArgs { to: Some(b.create_string(to)), from: None, presence: Some(b.create_vector(presence)) };
            n::DirectedPresence::create(b, &args)
        });
    }

    pub fn probe(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str) {
        self.frame(out, n::Kind::Probe, tag, |b| {
            let args = n::ProbeArgs { jid: Some(b.create_string(jid)) };
            n::Probe::create(b, &args)
        });
    }

    /// Ignores `fields.user`.
    pub fn subscription(&mut self, out: &mut Vec<u8>, tag: Tag, fields: &SubscriptionFields<'_>) {
        self.frame(out, n::Kind::Subscription, tag, |b| {
            let args = n::SubscriptionArgs {
                action: fields.action,
                jid: Some(b.create_string(fields.jid)),
                note: text(b, fields.note),
                extensions: text(b, fields.extensions),
            };
            n::Subscription::create(b, &args)
        });
    }

    pub fn roster_get(&mut self, out: &mut Vec<u8>, tag: Tag) {
        self.roster_since(out, tag, "");
    }

    /// The roster, unless it still has this version, which the client has kept.
    pub fn roster_since(&mut self, out: &mut Vec<u8>, tag: Tag, version: &str) {
        self.frame(out, n::Kind::RosterGet, tag, |b| {
            let args = n::RosterGetArgs { version: text(b, version) };
            n::RosterGet::create(b, &args)
        });
    }

    pub fn carbons(&mut self, out: &mut Vec<u8>, tag: Tag, enabled: bool) {
        self.frame(out, n::Kind::Carbons, tag, |b| n::Carbons::create(b, &n::CarbonsArgs { enabled }));
    }

    pub fn activity(&mut self, out: &mut Vec<u8>, tag: Tag, active: bool) {
        self.frame(out, n::Kind::Activity, tag, |b| n::Activity::create(b, &n::ActivityArgs { active }));
    }

    /// Keeps a document; without data, removes it.
    pub fn document_set(&mut self, out: &mut Vec<u8>, tag: Tag, name: &str, data: &[u8], access: n::Access) {
        self.frame(out, n::Kind::DocumentSet, tag, |b| {
            let args = n::DocumentSetArgs { name: Some(b.create_string(name)), data: bytes(b, data), access };
            n::DocumentSet::create(b, &args)
        });
    }

    /// `jid` is empty for one's own.
    pub fn document_get(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, name: &str) {
        self.frame(out, n::Kind::DocumentGet, tag, |b| {
            let args = n::DocumentGetArgs { jid: text(b, jid), name: Some(b.create_string(name)) };
            n::DocumentGet::create(b, &args)
        });
    }

    /// The documents to hear of from now on.
    pub fn interests<T: AsRef<str>>(&mut self, out: &mut Vec<u8>, tag: Tag, names: &[T]) {
        self.frame(out, n::Kind::Interests, tag, |b| {
            let args = n::InterestsArgs { names: texts(b, names), again: false };
            n::Interests::create(b, &args)
        });
    }

    /// The same as before, once more.
    pub fn interests_again(&mut self, out: &mut Vec<u8>, tag: Tag) {
        self.frame(out, n::Kind::Interests, tag, |b| n::Interests::create(b, &n::InterestsArgs { names: None, again: true }));
    }

    pub fn last_seen_get(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str) {
        self.frame(out, n::Kind::LastSeenGet, tag, |b| {
            let args = n::LastSeenGetArgs { jid: Some(b.create_string(jid)) };
            n::LastSeenGet::create(b, &args)
        });
    }

    /// Names and groups a contact.
    pub fn roster_set<T: AsRef<str>>(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, name: &str, groups: &[T]) {
        self.frame(out, n::Kind::RosterSet, tag, |b| {
            let args =
                n::RosterSetArgs { jid: Some(b.create_string(jid)), name: text(b, name), groups: texts(b, groups), remove: false };
            n::RosterSet::create(b, &args)
        });
    }

    /// Removes a contact, and both subscriptions with it.
    pub fn roster_remove(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str) {
        self.frame(out, n::Kind::RosterSet, tag, |b| {
            let args = n::RosterSetArgs { jid: Some(b.create_string(jid)), remove: true, ..Default::default() };
            n::RosterSet::create(b, &args)
        });
    }

    pub fn block(&mut self, out: &mut Vec<u8>, tag: Tag, jid: &str, blocked: bool) {
        self.frame(out, n::Kind::Block, tag, |b| {
            let args = n::BlockArgs { jid: Some(b.create_string(jid)), blocked };
            n::Block::create(b, &args)
        });
    }

    pub fn block_list_get(&mut self, out: &mut Vec<u8>, tag: Tag) {
        self.frame(out, n::Kind::BlockListGet, tag, |b| n::BlockListGet::create(b, &n::BlockListGetArgs {}));
    }

    /// `received`: the number of the last Message received.
    pub fn ack(&mut self, out: &mut Vec<u8>, tag: Tag, received: u64) {
        self.frame(out, n::Kind::Ack, tag, |b| n::Ack::create(b, &n::AckArgs { received }));
    }
}
