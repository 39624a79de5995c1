//! What users say to and ask of each other, whichever homes they have.
//!
//! Lives on: every core; between cores, nodes and clusters as [`super::control::Control`]. Serves Z9. Invariant: each says whose it
//! is, and, if somebody waits for the answer, whom to tell.

use super::control::Asker;
use crate::base::id::{SessionId, UserId};
use crate::base::jid::Bare;
use crate::base::time::WallClock;
use crate::wire::native::{self, MessageKind};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// A sender's wish that a message be not copied (XEP-0280 7, XEP-0334).
const PRIVATE: &str = "<private xmlns='urn:xmpp:carbons:2'";
const NO_COPY: &str = "<no-copy ";

/// One user asks about another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    pub from: Bare,
    pub from_user: UserId,
    pub about: Bare,
    pub what: Wanted,
    pub asker: Asker,
}

/// What one user wants to know of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Wanted {
    LastSeen,
    /// The document of this name.
    Document(String),
}

/// A user's document of this name has changed: users of one core who may hear of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct News {
    pub publisher: UserId,
    pub name: Box<str>,
    pub subscribers: Vec<UserId>,
}

/// A session that is to be told of documents asks what they say.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fetch {
    pub publisher: UserId,
    pub from: Bare,
    pub from_user: UserId,
    pub session: SessionId,
    /// Which question of the session's it is.
    pub number: u32,
    /// True: it's to be told that there is none, too.
    pub names: Vec<(Box<str>, bool)>,
}

/// The answer: those that it may see; of one that is gone, no data.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fetched {
    pub fetch: Fetch,
    pub documents: Vec<(Box<str>, Vec<u8>)>,
}

/// What a message says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Content {
    pub kind: MessageKind,
    pub id: String,
    pub body: Vec<u8>,
    /// XML elements.
    pub extensions: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    pub from: Bare,
    pub from_resource: CompactString,
    pub to: Bare,
    pub to_resource: Option<String>,
    pub content: Content,
    /// The sender's session and request, for the answer.
    pub asker: Asker,
    /// The recipient's sessions it was given to.
    pub given: Vec<SessionId>,
    /// When it came, if it has had to wait for its recipient.
    pub stamp: WallClock,
    /// What its row in the store is called; 0: it has none.
    pub kept: u64,
    /// By which its recipient's home knows what it owes the sender; 0: nothing.
    pub receipt: u64,
    /// Whose copy it is.
    pub copy: native::Copy,
}

impl Message {
    /// On its way to its recipient's home: given to nobody yet, nor stored.
    pub fn new(
        (from, from_resource): (Bare, CompactString),
        (to, to_resource): (Bare, Option<String>),
        content: Content,
        asker: Asker,
    ) -> Message {
        let (given, stamp, copy) = (Vec::new(), WallClock::default(), native::Copy::None);
        Message { from, from_resource, to, to_resource, content, asker, given, stamp, kept: 0, receipt: 0, copy }
    }

    /// XEP-0280: what people say to each other, unless they want it to stay between two sessions.
    pub fn is_copied(&self) -> bool {
        let Content { kind, body, extensions, .. } = &self.content;
        let said = *kind == MessageKind::Chat || *kind == MessageKind::Normal && !body.is_empty();
        said && !extensions.contains(PRIVATE) && !extensions.contains(NO_COPY)
    }

    /// About what it takes in a frame.
    pub fn frame_bytes(&self) -> usize {
        let from = self.from.as_str().len() + self.from_resource.len();
        let Content { id, body, extensions, .. } = &self.content;
        128 + from + self.to.as_str().len() + id.len() + body.len() + extensions.len()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Directed {
    pub from: Bare,
    pub from_resource: CompactString,
    pub to: Bare,
    pub to_resource: Option<String>,
    pub presence: Vec<u8>,
}
