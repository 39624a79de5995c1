//! Why something was refused, dropped or ended: one list, numeric on the wire, named in metrics, in words for people.
//!
//! Numbers are for ever. Below 100 the connection goes on; from 100 it closes after the error was sent.

macro_rules! reasons {
    ($(#[$about:meta])* $list:ident: $($name:ident = $number:literal, $metric:literal, $text:literal;)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        #[repr(u16)]
        pub enum $list { $(#[doc = $text] $name = $number,)* }

        impl $list {
            pub const ALL: &'static [$list] = &[$($list::$name),*];

            /// The label in metrics.
            pub fn metric(self) -> &'static str {
                match self { $($list::$name => $metric,)* }
            }

            /// One sentence for the person at the other end: what was wrong and what to do.
            pub fn text(self) -> &'static str {
                match self { $($list::$name => $text,)* }
            }

            pub fn from_number(number: u16) -> Option<$list> {
                match number { $($number => Some($list::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The numbers stand in `Error.reason` of the native protocol and in `schemas/README.md`.
    Reason:
    BadRequest = 1, "bad_request", "the request can't be understood: check its fields against schemas/native.fbs";
    NotAuthorized = 2, "not_authorized", "you are not subscribed to this user, or the user blocked you";
    NoSuchUser = 3, "no_such_user", "there is no such user here";
    RecipientUnavailable = 4, "recipient_unavailable", "the recipient has no session that takes messages now: send it later";
    BadJid = 5, "bad_jid", "not a valid JID: write local@domain or local@domain/resource";
    NoSuchContact = 6, "no_such_contact", "the roster has no such contact";
    TooManyContacts = 7, "too_many_contacts", "the roster is full: remove a contact first";
    TooManyRequests = 8, "too_many_requests", "too many subscription requests wait for this user's answer: try again later";
    TooManyPending = 9, "too_many_pending", "too many requests of this user wait to be stored: wait for their answers";
    StorageFailed = 10, "storage_failed", "the change could not be stored and was not made: try again";
    Overloaded = 11, "overloaded", "the node has too much to do: try again later";
    TooManyMessages = 12, "too_many_messages", "the recipient does not take its messages fast enough: send it later";
    TooLarge = 13, "too_large", "this field is longer than the node's limit";
    WrongResource = 14, "wrong_resource", "presence must name the session's own resource, as LoggedIn told it";
    NotAvailable = 15, "not_available", "send initial presence first";
    TooManyDirected = 16, "too_many_directed", "too many directed presences: go offline first";
    TooManyBlocked = 17, "too_many_blocked", "the block list is full: unblock somebody first";
    TooManySessions = 18, "too_many_sessions", "this user has too many sessions: end one first";
    StreamInUse = 19, "stream_in_use", "this stream of the trunk carries a session already: log it out first";
    NotLoggedIn = 20, "not_logged_in", "log in first";
    LogInFailed = 21, "log_in_failed", "wrong user, password or token";
    ResumeFailed = 22, "resume_failed", "the session to resume has ended: log in anew";
    Replaced = 23, "replaced", "another log-in took this resource";
    LoggedOut = 24, "logged_out", "the session has ended as asked";
    AccountRemoved = 25, "account_removed", "the account was removed";
    TooManyStreams = 26, "too_many_streams", "the number of the stream is above what the node allows: use lower ones";
    SessionWornOut = 27, "session_worn_out", "the session has changed its presence as often as one session can: log in anew";
    NotFound = 28, "not_found", "there is no such thing, or you may not see it";
    TooManyDocuments = 29, "too_many_documents", "too many documents, or too many bytes of them: remove one first";
    RegistrationClosed = 30, "registration_closed", "this node lets nobody make accounts: ask its operator for one";
    UserExists = 31, "user_exists", "there is such a user already: choose another name";
    TooManyRegistrations = 32, "too_many_registrations", "too many new accounts from this address: try again in a minute";
    Blocked = 33, "blocked", "you have blocked this user: unblock first";
    LogInUnavailable = 34, "log_in_unavailable", "the service that decides on log-ins gives no answer now: try again later";
    TokenExpired = 35, "token_expired", "the token has expired: log in with the password";
    HomeOutOfReach = 36, "home_out_of_reach", "the node that keeps this user's state can't be reached now: try again later";

    BadFrame = 100, "bad_frame", "the frame can't be decoded: its length, kind or content is wrong";
    FrameTooLarge = 101, "frame_too_large", "the frame is longer than max_frame in Hello";
    OutOfOrder = 102, "out_of_order", "this frame may not come now: Hello first, then LogIn, then the rest";
    UnknownVersion = 103, "unknown_version", "no protocol version in common: this node speaks version 1";
    TooManyAttempts = 104, "too_many_attempts", "too many failed log-ins on one connection";
    LogInTooSlow = 105, "log_in_too_slow", "the connection did not log in in time";
    Flood = 106, "flood", "more frames or bytes a second than a connection, its user or its address may send";
    NeverReads = 107, "never_reads", "the connection did not read what it was sent in time";
    TooManyConnections = 108, "too_many_connections", "the node holds as many connections as it may";
    ShuttingDown = 109, "shutting_down", "the node is stopping: connect again";
    Silent = 110, "silent", "nothing came from the connection for too long, not even an answer to Ping";
    ConnectionLost = 111, "connection_lost", "the connection broke";
    TlsFailed = 112, "tls_failed", "the TLS handshake failed, or what came then can't be decrypted";
    TlsRequired = 113, "tls_required", "this node speaks with other machines inside TLS only: begin with it";
}

reasons! {
    /// Why a node turns down another one's connection, or ends a link. The numbers stand in `Refusal` and `Bye` of `wire::link`.
    LinkReason:
    Other = 1, "other", "the other node gave a reason that this version does not know: see that node's log";
    WrongVersion = 2, "wrong_version", "the nodes speak different versions of the link protocol: upgrade the older one";
    SameNumbers = 3, "same_numbers", "the other node has this node's own numbers: give each node of a cluster its own";
    WrongCluster = 4, "wrong_cluster", "another cluster answers at this address: check the addresses and the cluster's number";
    WrongNode = 5, "wrong_node", "another node answers at this address: check the addresses and the node's number";
    WrongPurpose = 6, "wrong_purpose", "a link within a cluster met one between clusters: check the cluster's number";
    UnknownPeer = 7, "unknown_peer", "this node is not configured to speak with that one: name it in the configuration of both";
    NotExpected = 8, "not_expected", "the other end of this link dials: this one may not";
    WrongLane = 9, "wrong_lane", "there is no such lane between these nodes: more than both have cores, or another one's";
    OldLife = 10, "old_life", "a later start of the same node was here before: stop the older process";
    OlderDial = 11, "older_dial", "a newer connection of the same lane is there already";
    WrongCertificate = 12, "wrong_certificate", "the other node has the certificate of yet another one: check its link.certificate";
    NotAlike = 13, "not_alike", "one of the nodes speaks inside TLS and the other one in the clear: give both their certificates";
    NumberInUse = 14, "number_in_use", "another cluster has this cluster's number: give each cluster its own (cluster.number)";
    NoRoom = 15, "no_room", "too many clusters log in to the directory at once: it is tried again";
    Untold = 16, "untold", "the directory has not told that cluster of this one yet: it is tried again";

    Leaving = 30, "leaving", "the node is stopping";
    Replaced = 31, "replaced", "a newer connection of the same lane took its place";
    OtherLane = 33, "other_lane", "another lane to the same node was lost: all of them begin anew";
    LaneFull = 34, "lane_full", "more waited on this link than link.entries or link.entry_bytes allow, so both ends begin anew: \
        see which of the nodes is short of processor time, or allow more";
    Silent = 32, "silent", "nothing came for link.silent_ms: the network is cut, or the other process stands still";

    BadFrame = 50, "bad_frame", "a frame can't be decoded: its kind, length or content is wrong";
    TooLong = 51, "too_long", "a frame is longer than it may be";
    OutOfOrder = 52, "out_of_order", "this frame may not come now: a hello first, and only once";
    SequenceGap = 53, "sequence_gap", "entries are missing";
    Replayed = 54, "replayed", "an entry came twice on one connection";
    BadAck = 55, "bad_ack", "what was acknowledged was never sent, or had been acknowledged before";
    Forgot = 56, "forgot", "the other node no longer knows whom it has spoken with, in the same life";
}

impl LinkReason {
    /// Whether the other node broke the rules, so that nothing it said before can be relied on.
    pub fn is_violation(self) -> bool {
        self as u16 >= 50
    }
}

impl Reason {
    /// Whether the connection closes once this has been said.
    pub fn closes(self) -> bool {
        self as u16 >= 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_lead_back() {
        let mut names = std::collections::BTreeSet::new();
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason as u16), Some(reason));
            assert!(names.insert(reason.metric()), "{} twice", reason.metric());
        }
        assert_eq!((Reason::from_number(0), LinkReason::from_number(0)), (None, None));
        names.clear();
        for &reason in LinkReason::ALL {
            assert_eq!(LinkReason::from_number(reason as u16), Some(reason));
            assert!(names.insert(reason.metric()), "{} twice", reason.metric());
        }
    }
}
