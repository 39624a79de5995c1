//! Writing frames: one small method for each kind, `to_client` and `to_server`. Events are written by `wire::event`.
//!
//! Lives on: every core, one `Encoder` each, and in clients. Invariant: what is appended is one whole frame, padded to 8 bytes.

mod to_client;
mod to_server;

pub use to_client::{Contact, Greeting, LoggedInAs};

use crate::base::id::UserId;
use crate::wire::frame::{HEADER_BYTES, Header, padded};
use crate::wire::native as n;
pub use crate::wire::presence::PresenceFields;
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, WIPOffset};

/// Which session of a trunk (0 elsewhere) and which request (0: none) a frame is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tag {
    pub stream: u32,
    pub request: u32,
}

impl Tag {
    pub fn stream(stream: u32) -> Tag {
        Tag { stream, request: 0 }
    }

    pub fn request(request: u32) -> Tag {
        Tag { stream: 0, request }
    }
}

/// The fields of a log-in. Empty ones are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogInFields<'a> {
    pub jid: &'a str,
    pub mechanism: &'a str,
    /// The mechanism's first message.
    pub data: &'a [u8],
    /// The server makes up an empty one.
    pub resource: &'a str,
    /// A first presence, made by `Encoder::presence`.
    pub presence: &'a [u8],
    /// Only prove who we are; Bind makes the session.
    pub bind_later: bool,
    /// What the client calls itself to have hashed tokens.
    pub client: &'a str,
    /// The mechanism that a token is wanted for.
    pub token_for: &'a str,
    pub token_count: u32,
    pub token_invalid: bool,
}

/// The fields of a message. Empty ones are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessageFields<'a> {
    /// Only a server writes it.
    pub from: &'a str,
    pub to: &'a str,
    pub id: &'a str,
    pub body: &'a [u8],
    /// Only a server writes it.
    pub number: u64,
    pub kind: n::MessageKind,
    pub extensions: &'a str,
    /// Milliseconds since 1970; 0: it did not have to wait. Only a server writes it.
    pub stamp: u64,
    /// Only a server writes it.
    pub copy: n::Copy,
}

/// The fields of a Subscription, and of a SubscriptionEvent. Empty ones are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SubscriptionFields<'a> {
    pub action: n::Action,
    pub jid: &'a str,
    /// Only a server writes it.
    pub user: UserId,
    pub note: &'a str,
    pub extensions: &'a str,
}

/// Writes frames, re-using its working memory.
#[derive(Default)]
pub struct Encoder {
    builder: Builder,
}

impl Encoder {
    pub fn ping(&mut self, out: &mut Vec<u8>, tag: Tag, data: u64) {
        self.frame(out, n::Kind::Ping, tag, |b| n::Ping::create(b, &n::PingArgs { data }));
    }

    /// Answers a Ping with its own data.
    pub fn pong(&mut self, out: &mut Vec<u8>, tag: Tag, data: u64) {
        self.frame(out, n::Kind::Pong, tag, |b| n::Pong::create(b, &n::PongArgs { data }));
    }

    pub fn message(&mut self, out: &mut Vec<u8>, tag: Tag, message: &MessageFields<'_>) {
        self.frame(out, n::Kind::Message, tag, |b| {
            let args = n::MessageArgs {
                from: text(b, message.from),
                to: text(b, message.to),
                id: text(b, message.id),
                body: bytes(b, message.body),
                number: message.number,
                kind: message.kind,
                extensions: text(b, message.extensions),
                stamp: message.stamp,
                copy: message.copy,
            };
            n::Message::create(b, &args)
        });
    }

    /// A Presence flatbuffer, padded: the body of SetPresence and the tail of events.
    pub fn presence(&mut self, presence: &PresenceFields<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.append(&mut out, |b| create_presence(b, presence));
        out
    }

    fn frame<T>(&mut self, out: &mut Vec<u8>, kind: n::Kind, tag: Tag, create: impl FnOnce(&mut Builder) -> WIPOffset<T>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        self.append(out, create);
        let body = (out.len() - start - HEADER_BYTES) as u32;
        let header = Header { body, kind, stream: tag.stream, request: tag.request };
        out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
    }

    fn append<T>(&mut self, out: &mut Vec<u8>, create: impl FnOnce(&mut Builder) -> WIPOffset<T>) {
        self.builder.reset();
        let root = create(&mut self.builder);
        self.builder.finish_minimal(root);
        let data = self.builder.finished_data();
        out.extend_from_slice(data);
        out.resize(out.len() + padded(data.len()) - data.len(), 0);
    }
}

fn create_presence(b: &mut Builder, presence: &PresenceFields<'_>) -> WIPOffset<n::Presence<'static>> {
    let args = n::PresenceArgs {
        resource: Some(b.create_string(presence.resource)),
        show: presence.show,
        priority: presence.priority,
        status: text(b, presence.status),
        idle_since: presence.idle_since,
        caps: text(b, presence.caps),
        payload: bytes(b, presence.payload),
        stamp: presence.stamp,
        extensions: text(b, presence.extensions),
    };
    n::Presence::create(b, &args)
}

type Builder = FlatBufferBuilder<'static>;

/// A string that is left out when it is empty.
fn text(b: &mut Builder, text: &str) -> Option<WIPOffset<&'static str>> {
    (!text.is_empty()).then(|| b.create_string(text))
}

/// Bytes that are left out when there are none.
fn bytes(b: &mut Builder, bytes: &[u8]) -> Option<WIPOffset<Vector<'static, u8>>> {
    (!bytes.is_empty()).then(|| b.create_vector(bytes))
}

type Texts = WIPOffset<Vector<'static, ForwardsUOffset<&'static str>>>;

/// A list that is left out when it is empty.
fn texts<T: AsRef<str>>(b: &mut Builder, texts: &[T]) -> Option<Texts> {
    if texts.is_empty() {
        return None;
    }
    let offsets: Vec<_> = texts.iter().map(|text| b.create_string(text.as_ref())).collect();
    Some(b.create_vector(&offsets))
}
