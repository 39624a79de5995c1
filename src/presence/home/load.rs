//! After a start: users come back from the rows that were stored, and ways that had not arrived set out again.

use super::Homes;
use super::account::as_own;
use crate::base::id::{CoreId, NodeId, Seat};
use crate::base::jid::Bare;
use crate::presence::control::{Asker, Content, Control, EdgeRef, Message, Note, Way, WayKind};
use crate::presence::outbox::Outbox;
use crate::presence::roster::{Detail, Item};
use crate::presence::subscription::State;
use crate::presence::user::{Document, Last, Request, User};
use crate::store::{
    Durability, Table, Write,
    rows::{self, Row},
};
use crate::wire::native::{self, Access, MessageKind};
use std::fmt::Display;

impl Homes {
    /// Takes in one stored row of a user who lives here. Rows come table by table, accounts before what hangs on them.
    ///
    /// Errors: the row can't be read. The caller names the file and stops: a damaged store is never silently emptied.
    pub fn load(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), String> {
        let read = |what: &dyn Display| format!("a row of {table:?} can't be read: {what}");
        match table {
            Table::Meta => {
                if let Some(slot) = rows::split_serial(key) {
                    let serial = rows::decode_u32(value).map_err(|e| read(&e))?;
                    let known = self.serials.entry(slot).or_insert(0);
                    *known = serial.max(*known);
                }
                self.directory.load(key, value).map_err(|e| read(&e))?;
                self.load_unsettled(key, value).map_err(|e| read(&e))?;
                self.load_forgotten(key, value).map_err(|e| read(&e))?;
            }
            Table::Accounts => {
                let jid = jid(rows::split_user(key).map_err(|e| read(&e))?)?;
                let account = rows::Account::decode(value).map_err(|e| read(&e))?;
                let id = as_own(account.user, &self.place);
                let known = self.serials.entry(id.slot()).or_insert(0);
                *known = id.serial().max(*known);
                let mut user = User::new(id, jid);
                user.credentials = account.scram.map(Box::new);
                self.insert(user);
            }
            Table::Roster => {
                let (owner, contact) = rows::split_pair(key).map_err(|e| read(&e))?;
                let row = rows::Contact::decode(value).map_err(|e| read(&e))?;
                let state = State::from_bits(row.state).ok_or_else(|| read(&"an impossible subscription state"))?;
                let detail = Detail::new(&row.name, row.groups.iter().map(String::as_str)).map_err(|e| read(&e.text()))?;
                let item = Item { user: as_own(row.user, &self.place), jid: jid(contact)?, state, detail };
                self.owner(owner)?.roster.restore(item);
            }
            Table::Requests => {
                let (owner, from) = rows::split_pair(key).map_err(|e| read(&e))?;
                let row = rows::Request::decode(value).map_err(|e| read(&e))?;
                let (note, user) = (Note { text: row.note, extensions: row.extensions }, as_own(row.user, &self.place));
                let request = Request { from: jid(from)?, user, note };
                self.owner(owner)?.rare().requests.push(request);
            }
            Table::Blocked => {
                let (owner, blocked) = rows::split_pair(key).map_err(|e| read(&e))?;
                let blocked = jid(blocked)?;
                self.owner(owner)?.block(blocked);
            }
            Table::LastPresence => {
                let owner = rows::split_user(key).map_err(|e| read(&e))?;
                let row = rows::LastPresence::decode(value).map_err(|e| read(&e))?;
                let last =
                    Last { session: Default::default(), version: Default::default(), stamp: row.stamp, presence: row.presence };
                // A crash between an account's removal and that of its last presence leaves one without an owner: it means nothing.
                if let Ok(user) = self.owner(owner) {
                    user.rare().last = Some(last);
                }
            }
            Table::Ways => {
                let (from, to, sequence) = rows::split_way(key).map_err(|e| read(&e))?;
                let row = rows::Way::decode(value).map_err(|e| read(&e))?;
                let kind = WayKind::from_number(row.kind).ok_or_else(|| read(&"an unknown kind of way"))?;
                let rows::Way { note: text, from_user, to_user, arrived, extensions, .. } = row;
                let [from_user, to_user] = [from_user, to_user].map(|user| as_own(user, &self.place));
                let note = Note { text, extensions };
                let cluster = if from_user.cluster() == self.place.cluster { 0 } else { from_user.cluster() };
                let way = Way { from: jid(from)?, from_user, to: jid(to)?, to_user, kind, note, sequence, cluster, knows: vec![] };
                self.set_out.push((way, arrived));
            }
            Table::Messages => self.load_message(key, value)?,
            Table::Documents => self.load_document(key, value)?,
        }
        Ok(())
    }

    fn load_message(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let read = |what: &dyn Display| format!("a row of {:?} can't be read: {what}", Table::Messages);
        let (owner, sequence) = rows::split_message(key).map_err(|e| read(&e))?;
        let row = rows::Message::decode(value).map_err(|e| read(&e))?;
        let whose = as_own(row.user, &self.place);
        let message = kept(owner, sequence, row)?;
        let bytes = message.frame_bytes();
        match self.owner(owner) {
            Ok(user) if user.id == whose => {
                user.rare().mailbox.get_or_insert_default().restore(Box::new(message));
                self.count_kept(1, bytes as isize);
            }
            // It was acknowledged or its receiver was removed, and its deletion was not made.
            _ => self.leftover.push(Write { table: Table::Messages, key: key.to_vec(), value: None }),
        }
        Ok(())
    }

    fn load_document(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let read = |what: &dyn Display| format!("a row of {:?} can't be read: {what}", Table::Documents);
        let (owner, name) = rows::split_document(key).map_err(|e| read(&e))?;
        let rows::Document { data, access } = rows::Document::decode(value).map_err(|e| read(&e))?;
        if access > Access::ENUM_MAX {
            return Err(read(&"nobody knows whom it is for"));
        }
        let document = Document { name: name.into(), data: data.into(), access: Access(access) };
        let bytes = document.bytes();
        self.owner(owner)?.rare().documents.push(document);
        self.document_bytes += bytes;
        Ok(())
    }

    fn owner(&mut self, name: &str) -> Result<&mut User, String> {
        let at = self.by_name(&jid(name)?).ok_or_else(|| format!("a row belongs to {name}, who has no account"))?;
        Ok(self.user(at).expect("found by name"))
    }

    /// Everything is loaded: the ways that were on their way set out again, in their old order.
    pub fn start(&mut self, out: &mut Outbox) {
        self.directory.start(&out.map);
        self.start_settling(out);
        self.set_all_out(out);
    }

    /// The ways that were loaded set out, and what nobody needs is deleted.
    pub(super) fn set_all_out(&mut self, out: &mut Outbox) {
        let leftover = std::mem::take(&mut self.leftover);
        if !leftover.is_empty() {
            out.commit(leftover, Durability::RideAlong);
        }
        let mut ways = std::mem::take(&mut self.set_out);
        ways.sort_by_key(|(way, _)| way.sequence);
        for (way, arrived) in ways {
            if let Some(at) = self.by_name(&way.from) {
                self.user(at).expect("found by name").sent(&way, arrived);
            } else if arrived.is_none() && !self.leave_behind(&way, out) {
                continue;
            }
            match arrived {
                None => self.set_out(Box::new(way), out),
                Some(last) => {
                    out.send(out.map.home_of(&way.to), Control::WayArrived { name: Box::new(way.name()), last });
                }
            }
        }
    }
}

/// A message that waits. Nobody waits for an answer about it any more.
fn kept(to: &str, sequence: u64, row: rows::Message) -> Result<Message, String> {
    let rows::Message { user: _, from, from_resource, to_resource, kind, id, body, extensions, stamp } = row;
    if kind > MessageKind::ENUM_MAX {
        return Err(format!("a message to {to} is of no known kind"));
    }
    let content = Content { kind: MessageKind(kind), id, body, extensions };
    let nobody = EdgeRef { seat: Seat { node: NodeId(0), core: CoreId(0) }, slot: u32::MAX, generation: 0 };
    Ok(Message {
        from: jid(&from)?,
        from_resource: from_resource.into(),
        to: jid(to)?,
        to_resource,
        content,
        asker: Asker { edge: nobody, request: 0 },
        given: Vec::new(),
        stamp,
        kept: sequence,
        receipt: 0,
        copy: native::Copy::None,
    })
}

/// Rows are written with JIDs in their prepared form: in another one, a name could stand in a table twice.
fn jid(text: &str) -> Result<Bare, String> {
    let prepared = Bare::new(text).filter(|jid| jid.as_str() == text);
    prepared.ok_or_else(|| format!("a row names {text:?}, which is not a JID in its prepared form"))
}
