//! Every key: where it stands, what may be written there, and what it means. The checks, the printed default file and the
//! documentation all come from this list.

use super::{Config, Secret};
use crate::base::id::{MOST_CLUSTER, MOST_NODE};
use crate::base::limits::Limits;
use std::fmt::Write;

/// What may be written as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Number { min: u64, max: u64 },
    Flag,
    Text,
    Address,
    OneOf(&'static [&'static str]),
    Cores,
    Secret,
    Secrets,
    Texts,
    Networks,
    Nodes,
}

impl Shape {
    /// The words for "write ...".
    pub fn expected(self) -> String {
        match self {
            Shape::Number { min, max } => format!("a whole number from {min} to {max}"),
            Shape::Flag => "true or false".into(),
            Shape::Text => "a text in quotes".into(),
            Shape::Address => "an IP address and a port in quotes, like \"127.0.0.1:7400\" or \"[::1]:7400\"".into(),
            Shape::OneOf(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Shape::Cores => "\"all\" or a list of processor numbers, like [0, 1]".into(),
            Shape::Secret => format!("a text in quotes of {} or more characters", Secret::LEAST_BYTES),
            Shape::Texts => "a list of texts in quotes, like [\"https://example.org\"]".into(),
            Shape::Networks => "a list of addresses or networks in quotes, like [\"127.0.0.0/8\", \"2001:db8::7\"]".into(),
            Shape::Nodes => "a list of numbers and addresses in quotes, like [\"1=127.0.0.1:7402\", \"2=127.0.0.2:7402\"]".into(),
            Shape::Secrets => format!("a list of texts in quotes of {} or more characters each", Secret::LEAST_BYTES),
        }
    }
}

/// One key of the file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub shape: Shape,
    /// What it means, in sentences.
    pub doc: &'static str,
    /// A value to show where there is no default.
    pub example: &'static str,
}

/// The sections, in the order of the file, and what each is about.
pub const SECTIONS: &[(&str, &str)] = &[
    ("node", "The process itself."),
    ("listen", "Where it listens. Loopback unless you say otherwise."),
    ("tls", "What the node proves with who it is. Both files are read again on SIGHUP and on POST /certificate; sessions go on."),
    ("login", "How users and trunks prove who they are."),
    ("store", "What outlives the process."),
    (
        "cluster",
        "Which node of which cluster this is. Without it, it's alone. The same on all its nodes, but for node; change what \
        is the same with all of them stopped.",
    ),
    (
        "directory",
        "Which cluster knows the others, and what users each has. Without it there are no other clusters. The same on all nodes.",
    ),
    (
        "link",
        "What nodes and clusters say to each other, on each lane between two of them: one for each core. The same at all nodes, or \
        they warn.",
    ),
    ("presence", "How presence goes to other nodes and clusters."),
    (
        "limits",
        "What one client, user or core may use up. What happens at a limit stands in quotes: the reason that the client is told, \
        which is counted in fanal_dropped_total, or the name of another metric (fanal_NAME_total). fanal_limit tells each value.",
    ),
    ("metrics", "What is measured."),
];

macro_rules! keys {
    ($([$section:literal] $($name:ident: $shape:expr, $doc:literal $(, $example:literal)?;)*)*) => {
        /// Every key, in the order of the file.
        pub const KEYS: &[Key] = &[$($(
            Key { section: $section, name: stringify!($name), shape: $shape, doc: $doc, example: concat!($($example)?) },
        )*)*];
    };
}

const fn number(min: u64, max: u64) -> Shape {
    Shape::Number { min, max }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const HOUR_MS: u64 = 3_600_000;

keys! {
    ["node"]
    domain: Shape::Text, "The part behind the @ of every user of this node.";
    cores: Shape::Cores, "Processors to use, one pinned thread on each. \"all\" takes one hardware thread of each that the \
        process may run on.";
    data: Shape::Text, "Directory for everything that is kept. It is made if it's missing.";

    ["listen"]
    native: Shape::Address, "Native protocol: clients and trunks, with and without TLS.";
    xmpp: Shape::Address, "XMPP clients, who are to ask for TLS (STARTTLS). Without this key that door is closed.",
        "\"0.0.0.0:5222\"";
    xmpp_location: Shape::Text, "What clients on other machines call that door of this very node, with its port: they are told to \
        resume their sessions there (XEP-0198). Without it: where they find a node.", "\"node1.example.org:5222\"";
    xmpps: Shape::Address, "XMPP clients that begin with TLS (XEP-0368).", "\"0.0.0.0:5223\"";
    ws: Shape::Address, "WebSocket clients, with and without TLS: /ws and /xmpp-websocket; and for browsers /demo.",
        "\"0.0.0.0:7480\"";
    ws_origins: Shape::Texts, "Origins of web pages that may open WebSockets here, besides those of the same host; [\"*\"] lets \
        all in.";
    ws_url: Shape::Text, "What clients call the WebSocket door, for host-meta (XEP-0156). Without it: what they call it \
        themselves.", "\"wss://example.org\"";
    admin: Shape::Address, "Metrics, health and user administration over HTTP. An address other machines can reach needs \
        admin_token.";
    admin_token: Shape::Secret, "Administration requests must then carry it. /healthz and /readyz stay open.", "\"...\"";

    ["tls"]
    certificate: Shape::Text, "File with the domain's certificate and behind it its issuers', as PEM. Without it the node signs a \
        certificate itself and keeps it in the data directory.", "\"fullchain.pem\"";
    key: Shape::Text, "File with the certificate's private key, as PEM, not encrypted.", "\"privkey.pem\"";
    kernel: Shape::OneOf(&["auto", "off"]), "auto: the kernel encrypts what TLS 1.3 sends, if it can (CONFIG_TLS; the node \
        says so at its start). off: the node does it itself.";

    ["login"]
    token_keys: Shape::Secrets, "Keys of users' log-in tokens. The first one signs; all are accepted, so that a key can be \
        changed without a gap. Without one a random key is made and kept in the data directory.";
    trunk_keys: Shape::Secrets, "The same for the tokens with which front ends and game servers open trunks.";
    plain: Shape::Flag, "Whether clients may log in without TLS, and send passwords as they are (SASL PLAIN). Without it XMPP \
        clients must use TLS, and all others unless they are on this machine: 'tls_required'. Only behind something that encrypts.";
    open_registration: Shape::Flag, "Whether people may make their own accounts (XEP-0077). 'registration_closed' if not.";
    http: Shape::Text, "A service of your own that decides who may log in: it gets {\"jid\", \"password\" or \"token\", \
        \"address\"} as a JSON POST and answers 200 (let in) or 401 or 403 (not). It is asked about users without a password \
        here. Not together with open_registration.", "\"https://login.example.org/check\"";
    http_ca: Shape::Text, "File with the certificates, as PEM, by one of which that service's is signed. For https.",
        "\"/etc/ssl/certs/ca-certificates.crt\"";

    ["store"]
    kind: Shape::OneOf(&["redb", "postgres", "memory"]), "redb: a file in the data directory. postgres: a database, which many \
        nodes may share. memory: nothing is kept, for tests and measurements.";
    url: Shape::Text, "Where the database is. One on another machine needs sslmode=verify-full and sslrootcert=FILE, or \
        sslmode=require, or sslmode=disable. A password that doesn't stand here is taken from PGPASSWORD.",
        "\"postgres://fanal:...@db.example.org/fanal?sslmode=verify-full&sslrootcert=ca.pem\"";
    timeout_ms: number(100, HOUR_MS), "How long a change may wait for the database, in milliseconds. 'storage_failed', and \
        nothing was stored. Presence goes on.";

    ["cluster"]
    number: number(1, MOST_CLUSTER as u64), "The cluster's number: each cluster has its own.", "1";
    node: number(1, MOST_NODE as u64), "This node's number: each node of the cluster has its own, and keeps it with its data.", "1";
    nodes: Shape::Nodes, "All nodes of the cluster: their numbers, and where the others connect to each. For embedded.",
        "[\"1=127.0.0.1:7402\"]";
    coordination: Shape::OneOf(&["embedded", "etcd"]), "Who keeps the table that says which node owns which users. embedded: the \
        node with the lowest number, in its store. etcd: an etcd of 3 or 5 members, which outlives the loss of any node; there the \
        nodes find each other, too.";
    etcd: Shape::Texts, "Where etcd's members are, the same on all nodes. \"http://127.0.0.1:2379\" is one.";
    etcd_ca: Shape::Text, "File with the certificates (PEM) of the authorities that vouch for etcd's members. For https.",
        "\"etcd-ca.pem\"";
    etcd_certificate: Shape::Text, "File with the certificate, as PEM, that this node shows etcd, if that wants to see one.",
        "\"etcd-client.pem\"";
    etcd_key: Shape::Text, "File with that certificate's private key, as PEM, not encrypted.", "\"etcd-client.key\"";
    lease_ms: number(500, 60_000), "How long a node that is not heard is believed to be there, in milliseconds; with etcd, in \
        whole seconds. Then, where all nodes share a database (store.kind = \"postgres\"), the others take its users over; with a \
        store of its own, its users wait for it.";

    ["directory"]
    cluster: number(1, MOST_CLUSTER as u64), "The number of the cluster that keeps the directory. This cluster's own number: it's \
        here.", "2";
    at: Shape::Nodes, "That cluster's nodes, as they stand in its cluster.nodes: here this cluster logs in, and hears where all \
        the others are. Not where the directory is here.", "[\"1=127.0.0.1:7412\"]";

    ["link"]
    listen: Shape::Address, "Where this node takes the links of others. Without it: at its own address in cluster.nodes, or with \
        etcd at link.address.", "\"0.0.0.0:7402\"";
    address: Shape::Address, "With etcd: where the others connect to this node. It says so there. Without it: at link.listen.",
        "\"127.0.0.1:7402\"";
    ca: Shape::Text, "File with the certificates (PEM) of the authorities that vouch for nodes: of this cluster (`fanal link ca` \
        makes one), and of the clusters that it is linked with. With ca, certificate and key links go inside TLS.", "\"ca.pem\"";
    certificate: Shape::Text, "File with this node's certificate for links, as PEM (`fanal link certificate`): it names the node \
        as node-1.cluster-1.fanal. Read again on SIGHUP and on POST /certificate; links that are up stay.", "\"node.pem\"";
    key: Shape::Text, "File with that certificate's private key, as PEM, not encrypted.", "\"node.key\"";
    plain: Shape::Flag, "Whether links may leave this machine without TLS. Only inside something that encrypts.";
    heartbeat_ms: number(10, HOUR_MS), "How often a connection is pinged, in milliseconds.";
    silent_ms: number(20, HOUR_MS), "Silence at which a connection is ended and another one dialled, in milliseconds.";
    backoff_ms: number(1, HOUR_MS), "The longest wait before the first dial after a loss, in milliseconds; it doubles with each \
        failure. The wait is drawn between nothing and that.";
    backoff_max_ms: number(1, HOUR_MS), "The longest wait before any dial, in milliseconds.";
    entries: number(16, 16 * MIB), "Requests and answers that the other node has not acknowledged. Beyond half of it requests are \
        refused, 'overloaded'; if it is reached all the same, the link begins anew (fanal_link_ended, lane_full).";
    entry_bytes: number(65_536, GIB), "Bytes of those. 'overloaded'.";
    grace_ms: number(100, HOUR_MS), "Silence at which the other node counts as lost, in milliseconds: its users are shown offline. \
        A shorter break shows nothing.";
    non_real_time: Shape::Texts, "What may wait before it goes to another cluster, so that many things go as one small message. \
        show: who comes, goes, is busy or away. status_text, details: changes of nothing but the status text, or of the rest. \
        inactive: any change, while nobody there is active. subscriptions: requests and answers; taking one back never waits. \
        messages, questions: between users, presence-unrelated.";
    inactive_ms: number(16, HOUR_MS), "How long all clients of a cluster who watch somebody must have been inactive (XEP-0352) \
        before that counts, in milliseconds. One that becomes active counts at once.";
    complex_count: number(1, 65_536), "Things at which such a message goes.";
    complex_bytes: number(1024, 2 * MIB), "Bytes, before they are packed, at which it goes.";
    complex_ms: number(1, HOUR_MS), "The longest that anything waits for it, in milliseconds.";
    compression: Shape::OneOf(&["lz4", "zstd", "none"]), "How such messages are packed. lz4 is quick; zstd packs smaller, for long \
        distances. All are taken, whatever stands here.";
    dictionary: Shape::Text, "File with a dictionary (`zstd --train`) by which zstd packs smaller still; all nodes of all clusters \
        must have the same one.", "\"presence.dictionary\"";

    ["presence"]
    inline_max: number(256, 16 * MIB), "Bytes of a presence above which another node or cluster with subscribers is only told that \
        there is a new one, and asks for it, once and for the newest. Shorter ones go at once.";

    ["limits"]
    frame_bytes: number(1024, 16 * MIB), "Longest frame taken from a client, header included; a stanza of XMPP may have 16,384 \
        bytes less. 'frame_too_large'.";
    connections_per_core: number(1, 16 * MIB), "Connections of one core. 'too_many_connections'.";
    connections_per_address: number(1, 16 * MIB), "Connections of one core from one address (IPv6: from one network of 64 bits). \
        'too_many_connections'.";
    exempt: Shape::Networks, "Addresses for which no connections, bytes and frames are counted: front ends, behind which many \
        users stand.";
    log_in_ms: number(100, HOUR_MS), "Time from connecting to log-in, in milliseconds. 'log_in_too_slow'.";
    log_in_attempts: number(1, 1000), "Failed log-ins of one connection. 'too_many_attempts'.";
    registrations_per_minute: number(1, MIB), "New accounts from one address in a minute, where open_registration lets people \
        make them. Each core takes its share. 'too_many_registrations'.";
    http_ms: number(10, HOUR_MS), "Time that the service of login.http has to answer, in milliseconds; looking up its \
        name is part of it. 'log_in_unavailable'.";
    http_requests: number(1, 1024), "Log-ins that it is asked about at once, each on a thread. The next ones wait. \
        'log_in_unavailable'.";
    http_waiting: number(1, MIB), "Log-ins that wait for one of those to be over. 'overloaded'.";
    hashed_token_hours: number(0, 366 * 24), "How long a client gets in without its password by the token it was given last \
        (XEP-0484), in hours; half of that later it gets a new one. 'token_expired'. 0: no tokens are given.";
    sessions_per_user: number(1, 65_535), "Sessions of one user. 'too_many_sessions'.";
    streams_per_trunk: number(1, 16 * MIB), "Sessions of one trunk. 'too_many_streams'.";
    contacts_per_user: number(1, MIB), "Contacts in one roster. 'too_many_contacts'.";
    roster_bytes_per_user: number(1024, GIB), "About the bytes of one roster: JIDs, names and groups. 'too_many_contacts'.";
    requests_per_user: number(1, MIB), "Subscription requests that wait for the answer of one user. The next one is turned \
        down with a note. 'requests_refused'.";
    pending_per_user: number(1, MIB), "Requests of one user waiting for the store. 'too_many_pending'.";
    blocked_per_user: number(1, MIB), "Entries of one block list. 'too_many_blocked'.";
    directed_per_session: number(1, MIB), "Directed presences that one session keeps in mind. 'too_many_directed'.";
    unacknowledged_messages: number(1, MIB), "Messages sent to a session and not acknowledged. 'too_many_messages' to the \
        sender.";
    unacknowledged_bytes: number(1024, GIB), "About the bytes of those messages. Less than backlog_bytes: a resumed session \
        gets them all at once. 'too_many_messages' to the sender.";
    offline_messages_per_user: number(0, MIB), "Messages that wait for one user who takes none now. 'too_many_messages' to the \
        sender. 0: none wait, 'recipient_unavailable'.";
    offline_bytes_per_user: number(1024, GIB), "About the bytes of those messages. 'too_many_messages' to the sender.";
    offline_bytes_per_core: number(1024, GIB), "The same of all users of one core; they are kept in memory, too. \
        'recipient_unavailable' to the sender.";
    documents_per_user: number(0, MIB), "Documents that one user keeps here (vCards, private storage). 'too_many_documents'.";
    document_bytes_per_user: number(0, GIB), "Bytes of those documents. 'too_many_documents'.";
    document_bytes_per_core: number(0, GIB), "The same of all users of one core; they are kept in memory, too. 'overloaded'.";
    high_water_bytes: number(1024, GIB), "Bytes waiting for one connection above which it gets only the newest presence of \
        each contact. 'conflated'.";
    piece_bytes: number(1024, 16 * MIB), "Length at which what is long (a roster, the presence of all contacts) is cut into \
        several frames. A client that reads slowly gets the next ones when it has read these. 'backlog_bytes'.";
    backlog_bytes: number(1024, GIB), "Bytes waiting for one connection at which it is ended. 'never_reads'.";
    trunk_high_water_bytes: number(1024, GIB), "The same as high_water_bytes for a trunk, which carries many sessions. \
        'conflated'.";
    trunk_backlog_bytes: number(1024, GIB), "The same as backlog_bytes for a trunk. 'never_reads'.";
    stalled_ms: number(100, HOUR_MS), "How long a connection with something to read may read nothing, in milliseconds. \
        'never_reads'.";
    resume_ms: number(0, 24 * HOUR_MS), "How long a session outlives its broken connection, in milliseconds. 0: not at all. \
        'sessions_detached'.";
    ping_ms: number(1000, HOUR_MS), "Silence after which a connection is pinged, in milliseconds; after twice that it is \
        ended. 'silent'.";
    bytes_per_second: number(1024, GIB), "Bytes a second from one client connection; trunks are trusted. Above it the connection \
        is not read until there is room again, at most throttle_ms: 'throttled_connection_bytes'. Then 'flood'.";
    bytes_burst: number(1024, GIB), "Bytes at once from one client connection, above the steady rate. \
        'throttled_connection_bytes'.";
    frames_per_second: number(1, 16 * MIB), "The same for frames: requests, messages, stanzas. 'throttled_connection_frames'.";
    frames_burst: number(1, 16 * MIB), "Frames at once from one client connection, above the steady rate. \
        'throttled_connection_frames'.";
    user_bytes_per_second: number(1024, GIB), "The same as bytes_per_second for all sessions of one user. 'throttled_user_bytes'.";
    user_bytes_burst: number(1024, GIB), "The same as bytes_burst for all sessions of one user. 'throttled_user_bytes'.";
    user_frames_per_second: number(1, 16 * MIB), "The same as frames_per_second for all sessions of one user. \
        'throttled_user_frames'.";
    user_frames_burst: number(1, 16 * MIB), "The same as frames_burst for all sessions of one user. 'throttled_user_frames'.";
    address_bytes_per_second: number(1024, GIB), "The same as bytes_per_second for all connections of one core from one address \
        (IPv6: from one network of 64 bits). 'throttled_address_bytes'.";
    address_bytes_burst: number(1024, GIB), "The same as bytes_burst for one address. 'throttled_address_bytes'.";
    address_frames_per_second: number(1, 16 * MIB), "The same as frames_per_second for one address. 'throttled_address_frames'.";
    address_frames_burst: number(1, 16 * MIB), "The same as frames_burst for one address. 'throttled_address_frames'.";
    throttle_ms: number(1, 60_000), "How long a connection above these rates is not read, at most, in milliseconds. Whoever would \
        have to wait longer is ended. 'flood'.";
    users_per_core: number(1, 64 * MIB), "Users with state on one core. 'overloaded'.";
    ring_batches: number(2, 65_536), "Batches between two cores that wait to be read. Beyond it presence is conflated per \
        publisher. 'ring_full'.";
    ring_batch_bytes: number(4096, GIB), "Bytes of presence gathered for another core in one batch. Beyond it presence is \
        conflated per publisher. 'put_off'.";
    ring_control: number(1, 16 * MIB), "Requests and answers waiting for another core. 'overloaded'.";

    ["metrics"]
    sample: number(1, MIB), "One of this many events is timed. 1 times all of them.";
    interval_log: Shape::Text, "File for an HdrHistogram interval log. None is written without it.", "\"fanal.hlog\"";
    interval_seconds: number(1, 3600), "Length of one interval in that log.";
    meter_unit_bytes: number(64, MIB), "A message longer than this counts as several in the load of a client and of the node.";
    meter_unit_ms: number(1000, 24 * HOUR_MS), "Load is messages per this time, in milliseconds.";
}

/// The key of this name in this section.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The limits that are numbers, by their keys.
pub fn limits(limits: &Limits) -> Vec<(&'static str, u64)> {
    let values = toml::Table::try_from(limits).expect("limits can be written as TOML");
    let value = |name: &str| u64::try_from(values.get(name)?.as_integer()?).ok();
    KEYS.iter().filter(|key| key.section == "limits").filter_map(|key| Some((key.name, value(key.name)?))).collect()
}

/// Width of the comments in the printed file.
const WIDTH: usize = 96;

pub(super) fn default_file() -> String {
    let defaults = toml::Table::try_from(Config::default()).expect("the defaults can be written as TOML");
    let mut file = String::new();
    comment(&mut file, "fanal.toml: every key with its default. Take the # off a line to change it.");
    for (section, about) in SECTIONS {
        file.push('\n');
        comment(&mut file, about);
        let _ = writeln!(file, "[{section}]");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            comment(&mut file, &format!("{} Write {}.", key.doc, key.shape.expected()));
            let default = defaults.get(*section).and_then(|section| section.get(key.name));
            let value = default.map_or_else(|| key.example.to_owned(), toml::Value::to_string);
            let _ = writeln!(file, "#{} = {value}", key.name);
        }
    }
    file
}

fn comment(file: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split(' ') {
        if width == 0 || width + 1 + word.len() > WIDTH {
            file.push_str(if width == 0 { "#" } else { "\n#" });
            width = 1;
        }
        file.push(' ');
        file.push_str(word);
        width += 1 + word.len();
    }
    file.push('\n');
}
