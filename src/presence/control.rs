//! What homes and edges say to each other, on one core or between cores: everything but presence updates of watched publishers,
//! which travel as bytes (`Outbox::updates`).
//!
//! Lives on: every core. Serves G1, G3, Z8. Invariants: entries between two cores keep their order; an entry names its target by
//! a reference with a generation, so a late one never reaches a successor.

use super::border::{Astray, Entered, Reply};
use super::directory::{Inquiry, Numbering};
use super::errand::{self, Errand, Who};
use super::frame::Events;
use super::lapsed::Lapsed;
use super::relay::Compare;
use super::subscription::{Action, State};
use super::survey::Survey;
pub use super::talk::{Content, Directed, Fetch, Fetched, Message, News, Question, Wanted};
pub use super::way::{Arrival, FAREWELL, Note, Way, WayKind, WayName};
use crate::base::credentials::ScramCredentials;
use crate::base::id::{ConnId, Seat, SessionId, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::native::{Access, Show};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// A session's place at the core that owns its socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EdgeRef {
    pub seat: Seat,
    pub slot: u32,
    pub generation: u32,
}

/// A user's place at its home: the number, and where it is found without a look-up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct UserRef {
    pub user: UserId,
    pub slot: u32,
}

/// A session that waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asker {
    pub edge: EdgeRef,
    /// The client's number for the request; 0: tell only errors.
    pub request: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Control {
    // Any core to a user's home, and back.
    Errand(Box<Errand>),
    /// The operator to any core.
    Survey(Box<Survey>),
    Answered {
        who: Who,
        answer: errand::Answer,
    },

    // Edge to a user's home.
    Attach(Box<Attach>),
    Resume(Box<Resume>),
    Detach {
        at: UserRef,
        session: SessionId,
        edge: EdgeRef,
        end: SessionEnd,
    },
    Update {
        at: UserRef,
        session: SessionId,
        update: Box<Update>,
    },
    Ask {
        at: UserRef,
        session: SessionId,
        asker: Asker,
        ask: Box<Ask>,
    },
    /// An edge has its first subscriber of a publisher (Z6); or must ask for this one because it was revoked once.
    Watch {
        publisher: UserId,
        subscriber: UserId,
        seat: Seat,
        slot: u32,
        nonce: u32,
        /// Whoever asks was granted the publisher before and knows this of it (`frame::digest`): if it's so, no answer is wanted.
        known: Option<u64>,
    },
    /// A relay, or another node's or cluster's, was granted publishers before, and asks what has become of them.
    Compare(Box<Compare>),
    /// So many of them have been answered.
    Compared {
        place: u32,
        number: u32,
        count: u32,
    },
    /// An edge has no subscriber of a publisher any more.
    Unwatch {
        publisher: UserId,
        seat: Seat,
        slot: u32,
    },

    /// A relay has heard of a session's presence by reference, and wants the whole of it: it comes as an update (M5).
    Obtain {
        publisher: UserId,
        session: SessionId,
        seat: Seat,
    },

    /// Whether anybody of those who watch a publisher of another cluster looks at what is told of it (XEP-0352).
    Attention {
        publisher: UserId,
        seat: Seat,
        slot: u32,
        active: bool,
    },

    // Home to home.
    Way(Box<Way>),
    /// The receiver of a way has stored it: its sender need not keep it in mind. It comes before anything that follows from it.
    WayDone(Box<Arrival>),
    /// A way has found nobody: its receiver's slot has no owner. It will have one day, so nothing is kept of the way where this was
    /// found.
    WayInVain(Box<WayName>),
    /// The sender of a way, on another node, has stored that it has arrived, and will not send it again.
    WayForgotten(Box<WayName>),
    /// After a start: this way had arrived before. The receiver's home says so once more, behind all that it had sent before.
    WayArrived {
        name: Box<WayName>,
        /// The number of the last way that the receiver's core had sent by then.
        last: u64,
    },
    Message(Box<Message>),
    /// A user asks about another one.
    Question(Box<Question>),
    /// A document has changed.
    News(Box<News>),
    /// A session is to be told of documents.
    Fetch(Box<Fetch>),
    Fetched(Box<Fetched>),
    Directed(Box<Directed>),

    // Home to edge.
    Attached(Box<Attached>),
    /// A session may now see these publishers.
    Interest {
        edge: EdgeRef,
        publishers: Vec<UserId>,
    },
    /// A session may not see this publisher any more, and is told that it's gone.
    Uninterest {
        edge: EdgeRef,
        publisher: UserId,
    },
    /// A session that is not available sees nobody.
    UninterestAll {
        edge: EdgeRef,
    },
    /// The answer to Watch: the publisher's state (Z7, M5).
    Snapshot(Box<Snapshot>),
    /// The answer to Watch when the publisher has not approved the subscriber.
    Refused {
        publisher: UserId,
        subscriber: UserId,
        slot: u32,
        nonce: u32,
    },
    /// A subscriber lost the publisher's approval; it takes effect before any later update of the publisher.
    Revoke {
        publisher: UserId,
        subscriber: UserId,
        slot: u32,
    },
    ToSession {
        edge: EdgeRef,
        event: SessionEvent,
    },

    // Between the cores of a cluster, of other clusters.
    /// Something has come from another cluster.
    Entered(Box<Entered>),
    /// The answer of another cluster to what this core has a number for.
    Reply {
        number: u32,
        cluster: u16,
        answer: Reply,
    },
    /// To the gateway: updates of this publisher were lost on their way through this cluster.
    Missed {
        publisher: UserId,
    },
    /// To a home: ways to another cluster were lost while it was out of reach, and it's back.
    WaysAgain {
        cluster: u16,
    },
    /// To a gateway: a way of this other cluster's user has arrived here. It leaves behind all that was for that user before.
    WayConfirmed(Box<Arrival>),
    /// To a home: this way was sent to a cluster that its receiver is no longer of.
    WayAgain(Box<WayName>),
    /// To a gateway: something was sent to a cluster that this user is no longer of.
    Astray(Box<Astray>),
    /// To another node: homes of another cluster may have forgotten who watches them.
    Lapsed(Box<Lapsed>),
    /// To and from the directory.
    Directory(Box<Inquiry>),
    /// A core where a cluster logs in to whoever gives clusters their numbers, and back.
    Number(Box<Numbering>),
}

/// A log-in that was authenticated where the connection is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attach {
    pub jid: Bare,
    /// Empty: make one up.
    pub resource: String,
    /// Whether an unknown user comes into being: tokens and trunks speak for the operator, who knows.
    pub create: bool,
    pub asker: Asker,
    /// SASL's last word, passed through to LoggedIn.
    pub data: Vec<u8>,
    /// The session's first presence, which names the resource; empty: none yet.
    pub presence: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resume {
    pub jid: Bare,
    pub token: Vec<u8>,
    pub received: u64,
    pub asker: Asker,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Attached {
    pub asker: Asker,
    pub at: UserRef,
    pub session: SessionId,
    pub jid: Bare,
    pub resource: CompactString,
    pub resume: [u8; 16],
    pub resumed: bool,
    pub data: Vec<u8>,
}

/// How a session came to its end at its edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SessionEnd {
    /// The connection broke: the session may be resumed for a while, and for so many milliseconds at most.
    Lost { within_ms: u32 },
    /// The client said good-bye, with its last status.
    LoggedOut { status: String },
    /// The node ends it for good.
    Ended,
}

/// A session's new presence: the publisher's own bytes, verified where they entered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Update {
    pub presence: Vec<u8>,
    pub asker: Asker,
}

/// A client's request to its home.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    Subscription {
        action: Action,
        contact: Bare,
        note: Note,
    },
    /// The roster from behind this contact on, or from its beginning, unless it has the version that the client has kept.
    RosterGet {
        after: Option<Bare>,
        kept: String,
    },
    LastSeen {
        jid: Bare,
    },
    DocumentSet {
        name: String,
        data: Vec<u8>,
        access: Access,
    },
    /// `None`: one's own.
    DocumentGet {
        jid: Option<Bare>,
        name: String,
    },
    /// The documents to hear of. `None`: the same as before, once more.
    Interests {
        names: Option<Vec<String>>,
    },
    /// The session's edge asks: the client has read what it was told of documents.
    GoOn,
    /// Another password: its keys.
    Credentials(Box<ScramCredentials>),
    /// One's own account goes.
    AccountRemove,
    Carbons {
        enabled: bool,
    },
    Activity {
        active: bool,
    },
    RosterSet {
        contact: Bare,
        name: String,
        groups: Vec<String>,
    },
    RosterRemove {
        contact: Bare,
    },
    Block {
        jid: Bare,
        blocked: bool,
    },
    UnblockAll,
    BlockListGet,
    Message {
        to: Bare,
        resource: Option<String>,
        content: Content,
    },
    Directed {
        to: Bare,
        resource: Option<String>,
        show: Show,
        presence: Vec<u8>,
    },
    Probe {
        publisher: Bare,
    },
    Ack {
        received: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub publisher: UserId,
    pub jid: Bare,
    pub subscriber: UserId,
    pub slot: u32,
    pub nonce: u32,
    /// One event frame for each available session; or the last presence of a user who has none.
    pub events: Events,
    /// So many updates of the batch that it comes in are older.
    pub behind: usize,
    /// Subscribers whose revocation their own homes may not know yet.
    pub revoked: Vec<UserId>,
}

/// What a home tells one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SessionEvent {
    Done {
        request: u32,
    },
    Error {
        request: u32,
        reason: Reason,
        detail: String,
    },
    Subscription {
        action: Action,
        from: Bare,
        user: UserId,
        note: Note,
    },
    Roster {
        request: u32,
        items: Vec<Contact>,
        /// `None`: there are more behind the last one.
        version: Option<u64>,
    },
    /// The client has kept what there is.
    RosterUnchanged {
        request: u32,
        version: u64,
    },
    RosterPush {
        item: Contact,
        version: u64,
    },
    Document {
        request: u32,
        jid: Bare,
        name: String,
        data: Vec<u8>,
        access: Access,
    },
    DocumentChanged {
        jid: Bare,
        name: Box<str>,
        data: Vec<u8>,
    },
    /// When the client has read what is on its line, this is asked in its name.
    Pause(Box<Ask>),
    LastSeen {
        request: u32,
        jid: Bare,
        seconds: u64,
        status: String,
    },
    BlockList {
        request: u32,
        jids: Vec<Bare>,
    },
    BlockPush {
        jid: Bare,
        blocked: bool,
    },
    Message {
        number: u64,
        message: Box<Message>,
    },
    Directed(Box<Directed>),
    /// Event frames of the user's own other sessions.
    Events(Events),
    /// The answer to a probe: what the edge knows of this publisher, if the session watches it.
    Probed {
        publisher: UserId,
    },
    Transfer {
        address: String,
    },
    /// The session is over; the connection (or the trunk's stream) ends with this reason.
    Ended(Reason),
}

/// A roster item as clients see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contact {
    pub jid: Bare,
    pub user: UserId,
    pub name: String,
    pub groups: Vec<String>,
    pub state: State,
    /// Only in a push: the item is gone.
    pub removed: bool,
}

/// A connection, for those who only have the slot of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamRef {
    pub conn: ConnId,
    /// 0 except on a trunk.
    pub stream: u32,
}
