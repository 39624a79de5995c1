//! What users keep at the server: vCards (XEP-0054) and private storage (XEP-0049). Nodes of personal eventing are documents too,
//! in `nodes`.

use super::iq::Asked;
use super::reasons::{BAD_REQUEST, Failure, NO_SERVICE, NOT_ACCEPTABLE, TOO_BIG};
use super::{Question, Turn, Xmpp, names};
use crate::base::limits::DOCUMENT_NAME_BYTES;
use crate::wire::native::Access;
use crate::wire::xml::{self, Element, is_fragment};

/// The document that is a user's vCard.
const VCARD: &str = "vcard-temp";

/// What stands around a document when it is given out.
pub(super) struct Shelf {
    id: Box<str>,
    from: Box<str>,
    before: Box<str>,
    after: Box<str>,
    /// What the client gets when there is no such document; empty: an error.
    none: Box<str>,
}

impl Xmpp {
    /// Requests about documents. False: it is none. `own`: the client's own account is asked, or nobody by name.
    pub(super) fn documents(&mut self, asked: Asked<'_>, own: bool, turn: &mut Turn<'_, '_>) -> bool {
        match (asked.payload.namespace.as_str(), asked.payload.name.as_str(), asked.sets) {
            (names::VCARD, "vCard", false) => {
                let none = if own { "<vCard xmlns='vcard-temp'/>" } else { "" };
                self.fetch(asked, own, VCARD, ("", "", none), turn);
            }
            (names::VCARD, "vCard", true) if own => self.keep(asked, VCARD, asked.payload, Access::Everyone, turn),
            (names::PRIVATE, "query", false) if own => self.private_get(asked, turn),
            (names::PRIVATE, "query", true) if own => self.private_set(asked, turn),
            (names::PUBSUB | names::PUBSUB_OWNER, "pubsub", _) => self.node(asked, own, turn),
            _ => return false,
        }
        true
    }

    fn fetch(&mut self, asked: Asked<'_>, own: bool, name: &str, around: (&str, &str, &str), turn: &mut Turn<'_, '_>) {
        let (before, after, none) = around;
        let [id, from, before, after, none] = [asked.id, asked.to, before, after, none].map(Box::from);
        let shelf = Shelf { id, from, before, after, none };
        let Some(tag) = self.ask_for(asked, turn, Question::Document(Box::new(shelf))) else { return };
        let jid = if own { "" } else { asked.to };
        turn.frame(|encoder, frames| encoder.document_get(frames, tag, jid, name));
    }

    fn keep(&mut self, asked: Asked<'_>, name: &str, content: &Element, access: Access, turn: &mut Turn<'_, '_>) {
        let mut data = Vec::new();
        if xml::element(&mut data, content, "", self.rules.stanza_bytes).is_err() {
            return self.fail(asked, TOO_BIG, turn);
        }
        self.store(asked, name, &data, access, turn);
    }

    fn store(&mut self, asked: Asked<'_>, name: &str, data: &[u8], access: Access, turn: &mut Turn<'_, '_>) {
        if name.len() > DOCUMENT_NAME_BYTES {
            return self.fail(asked, NOT_ACCEPTABLE, turn);
        }
        let question = Question::Iq { id: asked.id.into(), from: asked.to.into() };
        let Some(tag) = self.ask_for(asked, turn, question) else { return };
        turn.frame(|encoder, frames| encoder.document_set(frames, tag, name, data, access));
    }

    fn private_get(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        let Some(wanted) = asked.payload.children().next() else { return self.fail(asked, BAD_REQUEST, turn) };
        let mut none = QUERY.as_bytes().to_vec();
        if xml::element(&mut none, wanted, names::PRIVATE, self.rules.stanza_bytes).is_err() {
            return self.fail(asked, TOO_BIG, turn);
        }
        none.extend_from_slice(b"</query>");
        let none = String::from_utf8(none).expect("made of text");
        self.fetch(asked, true, &private_name(wanted), (QUERY, "</query>", &none), turn);
    }

    fn private_set(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        let mut contents = asked.payload.children();
        match (contents.next(), contents.next()) {
            (Some(content), None) => self.keep(asked, &private_name(content), content, Access::Own, turn),
            _ => self.fail(asked, BAD_REQUEST, turn),
        }
    }

    /// A document has come. What is not XML was not written by an XMPP client.
    pub(super) fn document(&mut self, shelf: &Shelf, data: &[u8], out: &mut Vec<u8>) {
        match std::str::from_utf8(data).ok().filter(|text| is_fragment(text)) {
            None => self.no_document(shelf, NO_SERVICE, out),
            Some(text) => self.stanza_out(out, |this, out| {
                this.write_result(out, &shelf.id, &shelf.from, |out| {
                    [&*shelf.before, text, &shelf.after].iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
                });
            }),
        }
    }

    pub(super) fn no_document(&mut self, shelf: &Shelf, failure: Failure, out: &mut Vec<u8>) {
        self.stanza_out(out, |this, out| match &*shelf.none {
            "" => this.write_failure(out, "iq", &shelf.id, &shelf.from, failure),
            none => this.write_result(out, &shelf.id, &shelf.from, |out| out.extend_from_slice(none.as_bytes())),
        });
    }
}

const QUERY: &str = "<query xmlns='jabber:iq:private'>";

fn private_name(content: &Element) -> String {
    format!("private {} {}", content.name, content.namespace.as_str())
}

/// The document that is a node (XEP-0163).
pub(super) fn node_name(node: &str) -> String {
    format!("node {node}")
}
