//! Every limit has its name here: what it bounds, and what happens at it. The ones an operator may change are defaults of
//! `[limits]` in the configuration.

use super::network::Network;
use serde::{Deserialize, Serialize};

/// What an operator may change. Units stand in the names; without one it's a count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest frame taken from a client, header included. At the limit: `frame_too_large`.
    pub frame_bytes: u32,
    /// Connections of one core. At the limit: `too_many_connections`.
    pub connections_per_core: u32,
    /// Connections of one core from one address (IPv6: from one network of 64 bits). At the limit: `too_many_connections`.
    pub connections_per_address: u32,
    /// Addresses for which nothing is counted: front ends, behind which many users stand.
    pub exempt: Vec<Network>,
    /// Time from accept to log-in. At the limit: `log_in_too_slow`.
    pub log_in_ms: u32,
    /// Failed log-ins of one connection. At the limit: `too_many_attempts`.
    pub log_in_attempts: u32,
    /// New accounts from one address (of IPv6, one /64) in a minute, shared out among the cores. At the limit:
    /// `too_many_registrations`.
    pub registrations_per_minute: u32,
    /// Time that the service of `login.http` has to answer, waiting included. At the limit: `log_in_unavailable`.
    pub http_ms: u32,
    /// Log-ins that it is asked about at once: as many threads.
    pub http_requests: u32,
    /// Log-ins that wait to be asked about, over all cores. At the limit: `overloaded`.
    pub http_waiting: u32,
    /// How long a hashed token is good (XEP-0484). At the limit: `token_expired`; 0: there are none.
    pub hashed_token_hours: u32,
    /// Sessions of one user. At the limit: `too_many_sessions`.
    pub sessions_per_user: u32,
    /// Sessions of one trunk. At the limit: `too_many_streams`.
    pub streams_per_trunk: u32,
    /// Contacts of one user. At the limit: `too_many_contacts`.
    pub contacts_per_user: u32,
    /// About the bytes of one user's roster: JIDs, names and groups. At the limit: `too_many_contacts`.
    pub roster_bytes_per_user: u32,
    /// Subscription requests waiting for one user's answer. At the limit: `too_many_requests` to the asker.
    pub requests_per_user: u32,
    /// Requests of one user waiting for the store. At the limit: `too_many_pending`.
    pub pending_per_user: u32,
    /// Block list entries of one user. At the limit: `too_many_blocked`.
    pub blocked_per_user: u32,
    /// Directed presences a session keeps in mind. At the limit: `too_many_directed`.
    pub directed_per_session: u32,
    /// Messages sent to a session and not acknowledged. At the limit: `too_many_messages` to the sender.
    pub unacknowledged_messages: u32,
    /// About the bytes of those messages, at most one above it: less than `backlog_bytes`, because all of them are sent again at
    /// once when the session is resumed. At the limit: `too_many_messages` to the sender.
    pub unacknowledged_bytes: u32,
    /// Messages that wait for one user who takes none now. At the limit: `too_many_messages` to the sender; with 0,
    /// `recipient_unavailable`.
    pub offline_messages_per_user: u32,
    /// About their bytes. At the limit: `too_many_messages` to the sender.
    pub offline_bytes_per_user: u32,
    /// The same of all users of one core, in memory and in the store. At the limit: `recipient_unavailable` to the sender.
    pub offline_bytes_per_core: u32,
    /// Documents of one user, and the bytes of their names and data. At the limit: `too_many_documents`.
    pub documents_per_user: u32,
    pub document_bytes_per_user: u32,
    /// The same of all users of one core, in memory and in the store. At the limit: `overloaded`.
    pub document_bytes_per_core: u32,
    /// Bytes waiting for one connection above which its presence is conflated (newest per publisher).
    pub high_water_bytes: u32,
    /// What is longer (a roster, the presence of all contacts) goes to a client in frames of about this length, with at most one
    /// item above it. At the limit: the next ones wait until a slow client has read these.
    pub piece_bytes: u32,
    /// Bytes waiting for one connection at which it is ended with `never_reads`, presence having been conflated long before.
    pub backlog_bytes: u32,
    /// The same for a trunk, which carries many sessions.
    pub trunk_high_water_bytes: u32,
    pub trunk_backlog_bytes: u32,
    /// How long a connection with something to read may read nothing. At the limit: `never_reads`.
    pub stalled_ms: u32,
    /// How long a session outlives its broken connection.
    pub resume_ms: u32,
    /// Silence after which a connection is sent a Ping; after twice that, `silent`.
    pub ping_ms: u32,
    /// Bytes and frames a second from one client connection, and the burst above it (a trunk is trusted: no such limit). At the
    /// limit: the connection is not read until there is room again; when that would take longer than `throttle_ms`, `flood`.
    pub bytes_per_second: u32,
    pub bytes_burst: u32,
    pub frames_per_second: u32,
    pub frames_burst: u32,
    /// The same from all sessions of one user.
    pub user_bytes_per_second: u32,
    pub user_bytes_burst: u32,
    pub user_frames_per_second: u32,
    pub user_frames_burst: u32,
    /// The same from all connections that one core has from one address (IPv6: one network of 64 bits).
    pub address_bytes_per_second: u32,
    pub address_bytes_burst: u32,
    pub address_frames_per_second: u32,
    pub address_frames_burst: u32,
    /// The longest that a connection above these rates is not read. At the limit: `flood`.
    pub throttle_ms: u32,
    /// Users resident on one core. At the limit: `overloaded`.
    pub users_per_core: u32,
    /// Batches between two cores that are published and not yet read. At the limit: presence is conflated per publisher.
    pub ring_batches: u32,
    /// Bytes of presence gathered for another core in one batch. At the limit: presence is conflated per publisher.
    pub ring_batch_bytes: u32,
    /// Control entries (requests, answers) waiting for another core. At the limit: requests are refused, `overloaded`.
    pub ring_control: u32,
}

impl Limits {
    /// Longest XMPP stanza taken, in bytes: its native frame must fit. The configuration's check sees to
    /// [`LEAST_STANZA_BYTES`].
    pub fn stanza_bytes(&self) -> usize {
        self.frame_bytes.saturating_sub(STANZA_FRAME_BYTES) as usize
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frame_bytes: 65_536,
            connections_per_core: 1_048_576,
            connections_per_address: 1_000,
            exempt: ["127.0.0.0/8", "::1"].into_iter().filter_map(Network::parse).collect(),
            log_in_ms: 15_000,
            log_in_attempts: 3,
            registrations_per_minute: 10,
            http_ms: 5_000,
            http_requests: 32,
            http_waiting: 4_096,
            hashed_token_hours: 14 * 24,
            sessions_per_user: 32,
            streams_per_trunk: 1_048_576,
            contacts_per_user: 10_000,
            roster_bytes_per_user: 4 << 20,
            requests_per_user: 1_000,
            pending_per_user: 256,
            blocked_per_user: 1_000,
            directed_per_session: 256,
            unacknowledged_messages: 256,
            unacknowledged_bytes: 1 << 20,
            offline_messages_per_user: 128,
            offline_bytes_per_user: 512 << 10,
            offline_bytes_per_core: 256 << 20,
            documents_per_user: 64,
            document_bytes_per_user: 256 << 10,
            document_bytes_per_core: 256 << 20,
            high_water_bytes: 256 << 10,
            piece_bytes: 64 << 10,
            backlog_bytes: 4 << 20,
            trunk_high_water_bytes: 16 << 20,
            trunk_backlog_bytes: 256 << 20,
            stalled_ms: 30_000,
            resume_ms: 30_000,
            ping_ms: 60_000,
            bytes_per_second: 1 << 20,
            bytes_burst: 16 << 20,
            frames_per_second: 1_000,
            frames_burst: 20_000,
            user_bytes_per_second: 4 << 20,
            user_bytes_burst: 64 << 20,
            user_frames_per_second: 4_000,
            user_frames_burst: 40_000,
            address_bytes_per_second: 16 << 20,
            address_bytes_burst: 128 << 20,
            address_frames_per_second: 50_000,
            address_frames_burst: 500_000,
            throttle_ms: 10_000,
            users_per_core: 8_388_608,
            ring_batches: 64,
            ring_batch_bytes: 4 << 20,
            ring_control: 262_144,
        }
    }
}

/// Changes of presence of one session: versions are never used again. At the limit: the session ends, `session_worn_out`. One more
/// is left for the farewell.
pub const LAST_SEQUENCE: u32 = u32::MAX - 1;
/// Longest part of a JID (RFC 7622 3.1), in bytes.
pub const JID_PART_BYTES: usize = 1023;
/// Longest name, note or group of a roster item, in bytes.
pub const TEXT_BYTES: usize = 1024;
/// Longest extensions of a subscription stanza, in bytes: they are stored with it. At the limit: `too_large`.
pub const SUBSCRIPTION_EXTENSION_BYTES: usize = 4096;
/// Longest password that a user may set, in bytes. At the limit: `too_large`.
pub const PASSWORD_BYTES: usize = 1024;
/// Longest name of a document, in bytes. At the limit: `too_large`.
pub const DOCUMENT_NAME_BYTES: usize = 256;
/// Names of documents that one session hears of: the bits of a number. At the limit: `too_large`.
pub const INTERESTS: usize = 64;
/// Groups of one roster item.
pub const GROUPS_PER_ITEM: usize = 16;
/// What a native frame needs beside the text of the XMPP stanza it was, at most.
pub const STANZA_FRAME_BYTES: u32 = 16 << 10;
/// A stanza so long must be taken (RFC 6120 13.12).
pub const LEAST_STANZA_BYTES: u32 = 10_000;
/// Longest frame of a link, header included: room for the longest frame of a client, and for what nodes add. At the limit: what is
/// to be sent is refused, `too_large`; what comes ends the connection, `too_long`.
pub const LINK_FRAME_BYTES: u32 = 17 << 20;
/// Longest content of a complex message, unpacked. At the limit: the message ends the connection, `too_long`.
pub const COMPLEX_BYTES: u32 = 4 << 20;
/// Things of one kind in a complex message. At the limit: the same.
pub const COMPLEX_ITEMS: u32 = 65_536;
/// Version of the native protocol.
pub const NATIVE_VERSION: u16 = 1;
