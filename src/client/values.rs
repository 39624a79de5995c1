//! What a server says, as owned values.
//!
//! Lives on: any thread of a client. Serves the blocking clients; a load generator reads the borrowed frames of `codec` instead.

use crate::base::id::{SessionId, UserId, Version};
use crate::base::reason::Reason;
use crate::wire::encode::PresenceFields;
use crate::wire::event::{self, LAST};
use crate::wire::native::{self as n, Action, MessageKind, Show, SubscriptionState};
use std::fmt;

/// One session's presence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Presence {
    /// Which session; `Client` fills it in.
    pub resource: String,
    pub show: Show,
    pub priority: i8,
    pub status: String,
    /// Milliseconds since 1970; 0 when not idle.
    pub idle_since: u64,
    pub caps: String,
    pub payload: Vec<u8>,
    /// Milliseconds since 1970: when a user who has gone was last here. Only the server writes it.
    pub stamp: u64,
    /// XML elements for XMPP subscribers.
    pub extensions: String,
}

impl Presence {
    /// As the encoder takes it.
    pub fn fields(&self) -> PresenceFields<'_> {
        PresenceFields {
            resource: &self.resource,
            show: self.show,
            priority: self.priority,
            status: &self.status,
            idle_since: self.idle_since,
            caps: &self.caps,
            payload: &self.payload,
            stamp: self.stamp,
            extensions: &self.extensions,
        }
    }
}

impl From<PresenceFields<'_>> for Presence {
    fn from(fields: PresenceFields<'_>) -> Presence {
        Presence {
            resource: fields.resource.to_owned(),
            show: fields.show,
            priority: fields.priority,
            status: fields.status.to_owned(),
            idle_since: fields.idle_since,
            caps: fields.caps.to_owned(),
            payload: fields.payload.to_vec(),
            stamp: fields.stamp,
            extensions: fields.extensions.to_owned(),
        }
    }
}

/// A change of somebody's presence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PresenceEvent {
    /// The publisher, as numbered in the roster.
    pub user: UserId,
    pub session: SessionId,
    pub version: Version,
    pub show: Show,
    /// The last presence of a user who is not online.
    pub last: bool,
    /// Of a session that was cut off it has the resource only.
    pub presence: Option<Presence>,
}

impl From<&event::Event<'_>> for PresenceEvent {
    fn from(event: &event::Event<'_>) -> PresenceEvent {
        PresenceEvent {
            user: event.head.user,
            session: event.head.session,
            version: event.head.version,
            show: event.head.show,
            last: event.head.flags & LAST != 0,
            presence: event.presence.map(|presence| presence.fields().into()),
        }
    }
}

/// Presence that somebody sent to us alone (RFC 6121 4.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectedPresence {
    /// The sender's full JID.
    pub from: String,
    pub presence: Presence,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub from: String,
    pub to: String,
    /// The sender's own name for it.
    pub id: String,
    pub body: Vec<u8>,
    /// Counts the messages sent to this session, from 1.
    pub number: u64,
    pub kind: MessageKind,
    /// XML elements.
    pub extensions: String,
    /// Milliseconds since 1970: when it came, if it had to wait for us; 0 otherwise.
    pub stamp: u64,
    /// A copy of what another session of ours received or sent.
    pub copy: n::Copy,
}

impl From<n::Message<'_>> for Message {
    fn from(message: n::Message<'_>) -> Message {
        Message {
            from: text(message.from()),
            to: text(message.to()),
            id: text(message.id()),
            body: bytes(message.body()),
            number: message.number(),
            kind: message.kind(),
            extensions: text(message.extensions()),
            stamp: message.stamp(),
            copy: message.copy(),
        }
    }
}

/// What another user did about a subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionRequest {
    pub action: Action,
    pub jid: String,
    pub user: UserId,
    pub note: String,
    /// XML elements.
    pub extensions: String,
}

/// A roster item.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contact {
    pub jid: String,
    /// The contact's number in events; 0 while not known.
    pub user: UserId,
    pub name: String,
    pub groups: Vec<String>,
    pub subscription: SubscriptionState,
    /// A request of ours waits for an answer.
    pub ask: bool,
    /// Pre-approved.
    pub approved: bool,
    /// Only in a push: the item is gone.
    pub removed: bool,
    /// Only in a push: what the roster is called with this change.
    pub version: String,
}

impl From<n::RosterItem<'_>> for Contact {
    fn from(item: n::RosterItem<'_>) -> Contact {
        Contact {
            jid: item.jid().to_owned(),
            user: UserId(item.user()),
            name: text(item.name()),
            groups: item.groups().into_iter().flatten().map(str::to_owned).collect(),
            subscription: item.subscription(),
            ask: item.ask(),
            approved: item.approved(),
            removed: item.removed(),
            version: String::new(),
        }
    }
}

/// A whole roster, or the news that the one we kept is right.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roster {
    pub contacts: Vec<Contact>,
    /// What this state of it is called.
    pub version: String,
    /// The version we asked about is the present one; `contacts` is empty.
    pub unchanged: bool,
}

/// Something a user keeps at the server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Document {
    pub jid: String,
    pub name: String,
    pub data: Vec<u8>,
    /// Whom our own is for.
    pub access: n::Access,
}

/// When a user was last here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LastSeen {
    pub jid: String,
    /// So long ago; 0: the user is here.
    pub seconds: u64,
    pub status: String,
}

/// The server's answer to Hello.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Greeting {
    pub version: u16,
    pub software: String,
    pub domain: String,
    pub mechanisms: Vec<String>,
    /// What those that are bound to the connection can be bound to, the best first.
    pub bindings: Vec<String>,
    /// Longest frame the server takes, header included.
    pub max_frame: u32,
}

/// Who we are, once logged in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoggedIn {
    pub user: UserId,
    /// The full JID.
    pub jid: String,
    pub session: SessionId,
    /// What to resume with, and for how many milliseconds after the connection broke.
    pub resume: Vec<u8>,
    pub resume_within_ms: u32,
    pub resumed: bool,
    /// SASL data that came with success.
    pub data: Vec<u8>,
}

impl LoggedIn {
    /// The JID without its resource.
    pub fn bare_jid(&self) -> &str {
        self.jid.split('/').next().unwrap_or_default()
    }

    pub fn resource(&self) -> &str {
        self.jid.split_once('/').map_or("", |(_, resource)| resource)
    }
}

/// What lets a client in again without its password (XEP-0484; schemas/README.md, hashed tokens). It is never sent, and as good as
/// a password: keep it as safe.
#[derive(Clone, PartialEq, Eq)]
pub struct HashedToken {
    /// What the client calls itself: the token is good for no other.
    pub client: String,
    /// It's good inside TLS 1.3 only, where what is shown of it holds for that connection alone.
    pub bound: bool,
    pub text: String,
    /// Milliseconds since 1970 at which it ends.
    pub until: u64,
    /// How often it was shown: what was shown before is of no use to whoever has heard it.
    pub count: u32,
}

impl fmt::Debug for HashedToken {
    /// Without what is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HashedToken { client, bound, until, count, .. } = self;
        write!(f, "HashedToken {{ client: {client:?}, bound: {bound}, until: {until}, count: {count} }}")
    }
}

/// Why the server refused a request, or ended a session or the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// See the table in schemas/README.md. From 100 the connection closes.
    pub number: u16,
    pub text: String,
}

impl Refusal {
    /// The reason, if this version of fanal knows it.
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_number(self.number)
    }

    pub fn closes(&self) -> bool {
        self.number >= 100
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (reason {})", self.text, self.number)
    }
}

/// What the server tells without being asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Presence(PresenceEvent),
    Message(Message),
    Subscription(SubscriptionRequest),
    RosterPush(Contact),
    /// The whole roster, after a session was resumed: pushes may have been missed.
    Roster(Roster),
    Directed(DirectedPresence),
    /// A document that we want to hear of; without data, it was removed.
    DocumentChanged(Document),
    /// The block list has changed, which we have asked for.
    Blocked {
        jid: String,
        blocked: bool,
    },
    /// The whole block list, after a session was resumed: changes may have been missed.
    BlockList(Vec<String>),
    /// The session is to go on at this address: `Client::follow`.
    Transfer(String),
    /// A request that wanted no answer failed, or the session has ended.
    Refused(Refusal),
}

/// What answers a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    Greeting(Greeting),
    Challenge(Vec<u8>),
    /// After a log-in with `bind_later`: SASL's last word, and a hashed token with its end, if there is one.
    Authenticated(Vec<u8>, Option<(String, u64)>),
    LoggedIn(LoggedIn),
    Roster(Roster),
    LastSeen(LastSeen),
    Document(Document),
    BlockList(Vec<String>),
    Pong,
    Refused(Refusal),
}

pub(super) fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

pub(super) fn bytes(bytes: Option<flatbuffers::Vector<'_, u8>>) -> Vec<u8> {
    bytes.map_or(Vec::new(), |bytes| bytes.bytes().to_vec())
}
