//! Hashed tokens of users' clients ([`crate::base::hashed`]). They are kept as a document that no client can name, so that they are
//! stored, bounded, loaded and removed with the user as documents are.
//!
//! Invariant: nothing is written for a user while a change of that user is with the store: it could be the user's removal.

use super::Homes;
use crate::base::hashed::{Clients, Owner};
use crate::presence::control::UserRef;
use crate::presence::outbox::Outbox;
use crate::presence::user::Document;
use crate::store::{
    Durability, Table, Write,
    rows::{self, Row},
};
use crate::wire::native::Access;

/// A name that the check of documents' names refuses.
const NAME: &str = "\u{1}tokens";

impl Homes {
    /// Looks at a user's tokens, and keeps what becomes of them: at once, and in the store with the next commit that's synced.
    /// `None`: not now, because a change of the user is being stored; or there is no such user.
    pub fn with_tokens<T>(&mut self, at: UserRef, out: &mut Outbox, work: impl FnOnce(&mut Clients, Owner<'_>) -> T) -> Option<T> {
        let user = self.user(at)?;
        if user.rare.as_ref().is_some_and(|rare| rare.leaving || rare.storing.is_some()) {
            return None;
        }
        let known = user.documents().iter().position(|document| *document.name == *NAME);
        let before = known.and_then(|known| Clients::decode(&user.documents()[known].data)).unwrap_or_default();
        let mut after = before.clone();
        let mark = user.credentials.as_ref().map_or(&[][..], |credentials| &credentials.stored_key[..]);
        let done = work(&mut after, Owner { jid: &user.jid, mark });
        if after == before {
            return Some(done);
        }
        let bytes = user.document_bytes();
        let documents = &mut user.rare().documents;
        documents.retain(|document| *document.name != *NAME);
        let data = after.encode();
        if !after.is_empty() {
            documents.push(Document { name: NAME.into(), data: data.clone().into(), access: Access::Own });
        }
        let value = (!after.is_empty()).then(|| rows::Document { data, access: Access::Own.0 }.encode());
        let write = Write { table: Table::Documents, key: rows::document_key(&user.jid, NAME), value };
        let now = user.document_bytes();
        self.document_bytes = self.document_bytes - bytes + now;
        out.commit(vec![write], Durability::RideAlong);
        Some(done)
    }
}
