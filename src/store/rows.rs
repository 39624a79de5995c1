//! What the bytes of keys and rows mean.
//!
//! Lives on: any thread, it's pure. Serves J10, M3. A row is a version byte and then the fields (postcard); a key is bare JIDs
//! parted by NUL, which no JID contains. Invariants: what was encoded decodes to the same; other bytes give an error, never a
//! panic; the fields of a version never change their order or type (a new field is a new version).

use super::Table;
use crate::base::credentials::ScramCredentials;
use crate::base::id::{UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::time::WallClock;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version byte of rows whose fields have never changed.
pub const ROW_VERSION: u8 = 1;
/// `Meta`: the format of the whole file, a `u32`.
pub const FORMAT_KEY: &[u8] = b"format";
/// `Meta`: how often the deployment was started, a `u32`.
pub const EPOCH_KEY: &[u8] = b"epoch";
/// `Meta`: the start of the keys that hold the last serial given out in a slot of user ids, a `u32` each.
const SERIAL_KEY: &[u8] = b"serial:";

/// `Meta`: the start of the keys of a directory's names: bare JID -> the user's number.
pub const DIRECTORY_KEY: &[u8] = b"directory:";
/// `Meta`: the start of the keys of the clusters that a directory knows: the number, big-endian. They are rows of `CLUSTERS_SLOT`.
pub const CLUSTER_KEY: &[u8] = b"cluster:";
/// Whoever owns this slot gives clusters their numbers.
pub const CLUSTERS_SLOT: u16 = 0;
/// `Meta`: the start of the keys of users of whom the directory does not know yet that they have come or gone: the same.
pub const UNSETTLED_KEY: &[u8] = b"unsettled:";
/// `Meta`: the start of the keys of clusters that were forgotten, by number: what told each from any other one, a `u64`.
pub const FORGOTTEN_KEY: &[u8] = b"forgotten:";

/// Why a key or a row can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRow {
    #[error("it is empty")]
    Empty,
    #[error("its version is {0}, this fanal reads up to {1}: start the newer fanal that wrote it")]
    Version(u8, u8),
    #[error("its fields can't be decoded: it is damaged")]
    Fields,
    #[error("its fields say what can't be: it is damaged")]
    Value,
    #[error("its key does not have the parts its table asks for: it is damaged")]
    Key,
}

/// A value of a table, with its encoding.
pub trait Row: Serialize + DeserializeOwned {
    /// The version byte of such a row written now.
    const VERSION: u8 = ROW_VERSION;

    /// Reads the fields of an older version.
    fn decode_older(version: u8, _fields: &[u8]) -> Result<Self, BadRow> {
        Err(BadRow::Version(version, Self::VERSION))
    }

    fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![Self::VERSION]).expect("rows are plain values, and memory takes them all")
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadRow> {
        let (&version, fields) = bytes.split_first().ok_or(BadRow::Empty)?;
        match version {
            _ if version == Self::VERSION => read_fields(fields),
            _ if version < Self::VERSION => Self::decode_older(version, fields),
            _ => Err(BadRow::Version(version, Self::VERSION)),
        }
    }
}

fn read_fields<T: DeserializeOwned>(fields: &[u8]) -> Result<T, BadRow> {
    match postcard::take_from_bytes(fields) {
        Ok((row, [])) => Ok(row),
        _ => Err(BadRow::Fields),
    }
}

/// A user who may log in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    pub user: UserId,
    /// `None`: the user logs in by token or trunk only.
    pub scram: Option<ScramCredentials>,
    pub created: WallClock,
}

/// A roster item.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Contact {
    /// `UserId::NOBODY` while it's not known.
    pub user: UserId,
    /// Bit 0 to, 1 from, 2 pending out (ask), 3 pending in, 4 pre-approved, 5 hidden by the contact (who blocked the owner).
    pub state: u8,
    pub name: String,
    pub groups: Vec<String>,
}

/// A subscription request that waits for its answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    pub note: String,
    /// The asker.
    pub user: UserId,
    pub stamp: WallClock,
    pub extensions: String,
}

/// What a user's last session left behind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastPresence {
    pub stamp: WallClock,
    /// A flatbuffer `Presence`.
    pub presence: Vec<u8>,
}

/// A subscription change on its way to the other user's home, or one that has arrived and whose sender does not know it yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Way {
    /// `Action` of the native protocol, and two more for the block list.
    pub kind: u8,
    pub note: String,
    pub from_user: UserId,
    /// `NOBODY` when the sender does not know it.
    pub to_user: UserId,
    /// Once it has arrived: the number of the last way that the receiver's core had sent before.
    pub arrived: Option<u64>,
    pub extensions: String,
}

/// A message that waits for its receiver.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// The receiver's number: a later user of the same name is another one.
    pub user: UserId,
    /// The sender's bare JID.
    pub from: String,
    pub from_resource: String,
    /// The session it was sent to.
    pub to_resource: Option<String>,
    /// `MessageKind` of the native protocol.
    pub kind: u8,
    pub id: String,
    pub body: Vec<u8>,
    pub extensions: String,
    /// When it came.
    pub stamp: WallClock,
}

impl Row for Account {
    const VERSION: u8 = 2;

    /// Version 1 had keys for SHA-256 alone.
    fn decode_older(version: u8, fields: &[u8]) -> Result<Account, BadRow> {
        #[derive(Deserialize)]
        struct Scram {
            salt: Vec<u8>,
            iterations: u32,
            stored_key: [u8; 32],
            server_key: [u8; 32],
        }
        if version != 1 {
            return Err(BadRow::Version(version, Self::VERSION));
        }
        let (user, scram, created): (UserId, Option<Scram>, WallClock) = read_fields(fields)?;
        let scram = scram.map(|Scram { salt, iterations, stored_key, server_key }| ScramCredentials {
            salt,
            iterations,
            stored_key,
            server_key,
            sha1: None,
        });
        Ok(Account { user, scram, created })
    }
}

/// Something that a user keeps here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Document {
    pub data: Vec<u8>,
    /// `Access` of the native protocol.
    pub access: u8,
}

impl Row for Contact {}
impl Row for LastPresence {}
impl Row for Message {}
impl Row for Document {}

impl Row for Request {
    const VERSION: u8 = 2;

    /// Version 1 had no extensions.
    fn decode_older(version: u8, fields: &[u8]) -> Result<Request, BadRow> {
        if version != 1 {
            return Err(BadRow::Version(version, Self::VERSION));
        }
        let (note, user, stamp) = read_fields(fields)?;
        Ok(Request { note, user, stamp, extensions: String::new() })
    }
}

impl Row for Way {
    const VERSION: u8 = 2;

    /// Version 1 had no extensions.
    fn decode_older(version: u8, fields: &[u8]) -> Result<Way, BadRow> {
        if version != 1 {
            return Err(BadRow::Version(version, Self::VERSION));
        }
        let (kind, note, from_user, to_user, arrived) = read_fields(fields)?;
        Ok(Way { kind, note, from_user, to_user, arrived, extensions: String::new() })
    }
}

/// The key of a user's own row: `Accounts`, `LastPresence`.
pub fn user_key(user: &Bare) -> Vec<u8> {
    user.as_str().as_bytes().to_vec()
}

/// The user that `user_key` named.
pub fn split_user(key: &[u8]) -> Result<&str, BadRow> {
    part(key)
}

/// The key of a row about a user and another one: `Roster`, `Requests`, `Blocked`.
pub fn pair_key(owner: &Bare, other: &Bare) -> Vec<u8> {
    join(owner, other.as_str().as_bytes())
}

/// Owner and other user of a `pair_key`.
pub fn split_pair(key: &[u8]) -> Result<(&str, &str), BadRow> {
    let (owner, other) = cut(key)?;
    Ok((part(owner)?, part(other)?))
}

/// How the keys of all pairs and ways of one owner begin.
pub fn owner_prefix(owner: &Bare) -> Vec<u8> {
    join(owner, &[])
}

/// The key of a `Way`. Keys of one sender and receiver sort by sequence.
pub fn way_key(from: &Bare, to: &Bare, sequence: u64) -> Vec<u8> {
    let mut key = pair_key(from, to);
    key.push(0);
    key.extend(sequence.to_be_bytes());
    key
}

/// Sender, receiver and sequence of a `way_key`.
pub fn split_way(key: &[u8]) -> Result<(&str, &str, u64), BadRow> {
    let (from, rest) = cut(key)?;
    let (to, sequence) = cut(rest)?;
    Ok((part(from)?, part(to)?, u64::from_be_bytes(sequence.try_into().map_err(|_| BadRow::Key)?)))
}

/// The key of a `Message`. Keys of one receiver sort by sequence.
pub fn message_key(to: &Bare, sequence: u64) -> Vec<u8> {
    join(to, &sequence.to_be_bytes())
}

/// Receiver and sequence of a `message_key`.
pub fn split_message(key: &[u8]) -> Result<(&str, u64), BadRow> {
    let (to, sequence) = cut(key)?;
    Ok((part(to)?, u64::from_be_bytes(sequence.try_into().map_err(|_| BadRow::Key)?)))
}

/// The key of a `Document`. Its name has no NUL.
pub fn document_key(owner: &Bare, name: &str) -> Vec<u8> {
    join(owner, name.as_bytes())
}

/// Owner and name of a `document_key`.
pub fn split_document(key: &[u8]) -> Result<(&str, &str), BadRow> {
    split_pair(key)
}

/// The `Meta` key of the last serial given out in a slot of user ids: serials are never given out again, even when the user is
/// gone, because other users' rows may still name them.
pub fn serial_key(slot: u16) -> Vec<u8> {
    [SERIAL_KEY, &slot.to_be_bytes()].concat()
}

/// The slot of a `serial_key`; `None` for other keys of `Meta`.
pub fn split_serial(key: &[u8]) -> Option<u16> {
    key.strip_prefix(SERIAL_KEY)?.try_into().ok().map(u16::from_be_bytes)
}

/// The slot of the user whose row this is; `None`: the row is the deployment's.
pub fn slot_of_key(table: Table, key: &[u8]) -> Option<u16> {
    match table {
        Table::Meta if key.starts_with(CLUSTER_KEY) => Some(CLUSTERS_SLOT),
        Table::Meta => split_serial(key).or_else(|| {
            let name = [DIRECTORY_KEY, UNSETTLED_KEY].iter().find_map(|prefix| key.strip_prefix(*prefix))?;
            Some(slot_of(std::str::from_utf8(name).unwrap_or_default()))
        }),
        _ => {
            let owner = key.split(|&byte| byte == 0).next().unwrap_or_default();
            Some(slot_of(std::str::from_utf8(owner).unwrap_or_default()))
        }
    }
}

/// A number of `Meta`.
pub fn encode_u32(number: u32) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

pub fn decode_u32(bytes: &[u8]) -> Result<u32, BadRow> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| BadRow::Fields)
}

fn join(first: &Bare, rest: &[u8]) -> Vec<u8> {
    [first.as_str().as_bytes(), &[0], rest].concat()
}

fn cut(key: &[u8]) -> Result<(&[u8], &[u8]), BadRow> {
    let nul = key.iter().position(|&byte| byte == 0).ok_or(BadRow::Key)?;
    Ok((&key[..nul], &key[nul + 1..]))
}

fn part(bytes: &[u8]) -> Result<&str, BadRow> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(text),
        _ => Err(BadRow::Key),
    }
}
