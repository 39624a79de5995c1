//! From a frame's kind and body to a verified table: what a client may send, and what a server may send.
//!
//! Lives on: every core (`from_client`), and in clients (`from_server`). Serves G2: here, and for Presence in `presence`, a
//! flatbuffer from outside is verified. Invariant: every table view, enum and nested presence in the values returned is sound and
//! in range.

use crate::base::reason::Reason;
use crate::wire::event::{self, Batch, Event};
use crate::wire::native::{self, *};
use crate::wire::presence::{self, PresenceView};
use flatbuffers::{Follow, Vector, Verifiable, VerifierOptions};

/// Deepest nesting of tables that the schema has, and room to grow.
const DEPTH: usize = 8;
/// Tables in one frame of a client.
const CLIENT_TABLES: usize = 4096;
/// Tables in one frame of a server: a roster has one for each contact.
const SERVER_TABLES: usize = 1 << 20;
/// A flatbuffer may use the same bytes twice, but what is read may not outgrow what was sent by more than this.
const SHARING: usize = 4;
/// The verifier counts some bytes of each table twice; this lets the smallest frames through.
const SLACK_BYTES: usize = 1024;

/// What a client may send.
#[derive(Clone, Copy)]
pub enum ClientFrame<'a> {
    Hello(Hello<'a>),
    Ping(Ping<'a>),
    Pong(Pong<'a>),
    Message(Message<'a>),
    LogIn { log_in: LogIn<'a>, presence: Option<PresenceView<'a>> },
    Bind { resource: &'a str, presence: Option<PresenceView<'a>> },
    SaslResponse(SaslResponse<'a>),
    Resume(Resume<'a>),
    LogOut(LogOut<'a>),
    SetPresence(PresenceView<'a>),
    DirectedPresence { to: &'a str, presence: PresenceView<'a> },
    Probe(Probe<'a>),
    Subscription(Subscription<'a>),
    RosterGet(RosterGet<'a>),
    RosterSet(RosterSet<'a>),
    Block(Block<'a>),
    BlockListGet,
    Ack(Ack<'a>),
    LastSeenGet(LastSeenGet<'a>),
    Interests(Interests<'a>),
    Carbons(Carbons<'a>),
    Register(Register<'a>),
    PasswordSet(PasswordSet<'a>),
    AccountRemove,
    DocumentSet(DocumentSet<'a>),
    DocumentGet(DocumentGet<'a>),
    Activity(Activity<'a>),
}

/// What a server may send.
#[derive(Clone, Copy)]
pub enum ServerFrame<'a> {
    Hello(Hello<'a>),
    Ping(Ping<'a>),
    Pong(Pong<'a>),
    Message(Message<'a>),
    SaslChallenge(SaslChallenge<'a>),
    LoggedIn(LoggedIn<'a>),
    Authenticated(Authenticated<'a>),
    Done,
    Error(Error<'a>),
    Event(Event<'a>),
    EventBatch(Batch<'a>),
    SubscriptionEvent(SubscriptionEvent<'a>),
    Roster(Roster<'a>),
    RosterPush(RosterPush<'a>),
    BlockList(BlockList<'a>),
    BlockPush(BlockPush<'a>),
    Transfer(Transfer<'a>),
    LastSeen(LastSeen<'a>),
    Document(Document<'a>),
    DocumentChanged(DocumentChanged<'a>),
    DirectedPresence { from: &'a str, presence: PresenceView<'a> },
}

/// Reads the body of a frame that a client sent.
///
/// Errors: `BadFrame` when a client doesn't send this kind, or the body is not a sound flatbuffer of it.
#[inline]
pub fn from_client(kind: Kind, body: &[u8]) -> Result<ClientFrame<'_>, Reason> {
    // Nearly every frame is this one.
    if kind == Kind::SetPresence {
        return Ok(ClientFrame::SetPresence(presence::read_published(body)?));
    }
    Ok(match kind {
        Kind::Hello => ClientFrame::Hello(client_table(body)?),
        Kind::Ping => ClientFrame::Ping(client_table(body)?),
        Kind::Pong => ClientFrame::Pong(client_table(body)?),
        Kind::Message => ClientFrame::Message(message(client_table(body)?)?),
        Kind::LogIn => {
            let log_in: LogIn = client_table(body)?;
            ClientFrame::LogIn { log_in, presence: first_presence(log_in.presence())? }
        }
        Kind::Bind => {
            let bind: Bind = client_table(body)?;
            ClientFrame::Bind { resource: bind.resource().unwrap_or_default(), presence: first_presence(bind.presence())? }
        }
        Kind::SaslResponse => ClientFrame::SaslResponse(client_table(body)?),
        Kind::Resume => ClientFrame::Resume(client_table(body)?),
        Kind::LogOut => ClientFrame::LogOut(client_table(body)?),
        Kind::DirectedPresence => {
            let table: DirectedPresence = client_table(body)?;
            ClientFrame::DirectedPresence {
                to: table.to().ok_or(Reason::BadFrame)?,
                presence: presence::read_published(table.presence().bytes())?,
            }
        }
        Kind::Probe => ClientFrame::Probe(client_table(body)?),
        Kind::Subscription => {
            let table: Subscription = client_table(body)?;
            in_range(table.action().0, Action::ENUM_MAX)?;
            ClientFrame::Subscription(table)
        }
        Kind::RosterGet => ClientFrame::RosterGet(client_table(body)?),
        Kind::RosterSet => ClientFrame::RosterSet(client_table(body)?),
        Kind::Block => ClientFrame::Block(client_table(body)?),
        Kind::BlockListGet => client_table::<BlockListGet>(body).map(|_| ClientFrame::BlockListGet)?,
        Kind::Ack => ClientFrame::Ack(client_table(body)?),
        Kind::DocumentSet => {
            let table: DocumentSet = client_table(body)?;
            in_range(table.access().0, Access::ENUM_MAX)?;
            ClientFrame::DocumentSet(table)
        }
        Kind::DocumentGet => ClientFrame::DocumentGet(client_table(body)?),
        Kind::Register => ClientFrame::Register(client_table(body)?),
        Kind::PasswordSet => ClientFrame::PasswordSet(client_table(body)?),
        Kind::AccountRemove => client_table::<AccountRemove>(body).map(|_| ClientFrame::AccountRemove)?,
        Kind::Carbons => ClientFrame::Carbons(client_table(body)?),
        Kind::Activity => ClientFrame::Activity(client_table(body)?),
        Kind::LastSeenGet => ClientFrame::LastSeenGet(client_table(body)?),
        Kind::Interests => ClientFrame::Interests(client_table(body)?),
        _ => return Err(Reason::BadFrame),
    })
}

/// Reads the body of a frame that a server sent.
///
/// Errors: `BadFrame`, as `from_client`. The events of a batch are verified as they are read.
#[inline]
pub fn from_server(kind: Kind, body: &[u8]) -> Result<ServerFrame<'_>, Reason> {
    Ok(match kind {
        Kind::Event => ServerFrame::Event(event::read(body)?),
        Kind::EventBatch => ServerFrame::EventBatch(Batch::new(body)),
        Kind::Hello => ServerFrame::Hello(server_table(body)?),
        Kind::Ping => ServerFrame::Ping(server_table(body)?),
        Kind::Pong => ServerFrame::Pong(server_table(body)?),
        Kind::Message => ServerFrame::Message(message(server_table(body)?)?),
        Kind::SaslChallenge => ServerFrame::SaslChallenge(server_table(body)?),
        Kind::LoggedIn => ServerFrame::LoggedIn(server_table(body)?),
        Kind::Authenticated => ServerFrame::Authenticated(server_table(body)?),
        Kind::Done => server_table::<Done>(body).map(|_| ServerFrame::Done)?,
        Kind::Error => ServerFrame::Error(server_table(body)?),
        Kind::SubscriptionEvent => {
            let table: SubscriptionEvent = server_table(body)?;
            in_range(table.action().0, Action::ENUM_MAX)?;
            ServerFrame::SubscriptionEvent(table)
        }
        Kind::Roster => {
            let table: Roster = server_table(body)?;
            for item in table.items().into_iter().flatten() {
                in_range(item.subscription().0, SubscriptionState::ENUM_MAX)?;
            }
            ServerFrame::Roster(table)
        }
        Kind::RosterPush => {
            let table: RosterPush = server_table(body)?;
            in_range(table.item().subscription().0, SubscriptionState::ENUM_MAX)?;
            ServerFrame::RosterPush(table)
        }
        Kind::BlockList => ServerFrame::BlockList(server_table(body)?),
        Kind::BlockPush => ServerFrame::BlockPush(server_table(body)?),
        Kind::Transfer => ServerFrame::Transfer(server_table(body)?),
        Kind::Document => {
            let table: Document = server_table(body)?;
            in_range(table.access().0, Access::ENUM_MAX)?;
            ServerFrame::Document(table)
        }
        Kind::DocumentChanged => ServerFrame::DocumentChanged(server_table(body)?),
        Kind::LastSeen => ServerFrame::LastSeen(server_table(body)?),
        Kind::DirectedPresence => {
            let table: DirectedPresence = server_table(body)?;
            let from = table.from().ok_or(Reason::BadFrame)?;
            ServerFrame::DirectedPresence { from, presence: presence::read(table.presence().bytes())? }
        }
        _ => return Err(Reason::BadFrame),
    })
}

fn first_presence(presence: Option<Vector<'_, u8>>) -> Result<Option<PresenceView<'_>>, Reason> {
    presence.map(|presence| presence::read_published(presence.bytes())).transpose()
}

fn message(message: Message<'_>) -> Result<Message<'_>, Reason> {
    in_range(message.kind().0, MessageKind::ENUM_MAX)?;
    in_range(message.copy().0, native::Copy::ENUM_MAX).map(|()| message)
}

#[inline]
fn in_range(number: u8, most: u8) -> Result<(), Reason> {
    if number <= most { Ok(()) } else { Err(Reason::BadFrame) }
}

#[inline]
fn client_table<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(body: &'a [u8]) -> Result<T, Reason> {
    table::<T>(body, CLIENT_TABLES)
}

#[inline]
fn server_table<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(body: &'a [u8]) -> Result<T, Reason> {
    table::<T>(body, SERVER_TABLES)
}

#[inline]
fn table<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(body: &'a [u8], max_tables: usize) -> Result<T, Reason> {
    let options = VerifierOptions {
        max_depth: DEPTH,
        max_tables,
        max_apparent_size: body.len() * SHARING + SLACK_BYTES,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, body).map_err(|_| Reason::BadFrame)
}
