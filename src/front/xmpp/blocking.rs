//! Users that a client does not want to hear of (XEP-0191). What blocking means is the core's.

use super::iq::Asked;
use super::reasons::{BAD_JID, BAD_REQUEST, ELSEWHERE, failure};
use super::stanza::Address;
use super::{Question, Turn, Xmpp, names};
use crate::base::reason::Reason;
use crate::wire::native::BlockList;
use crate::wire::xml;

/// Users named in one request. At the limit: `bad-request`.
const NAMED: usize = 1000;

/// A request about several users: each is one for the core.
pub(super) struct Blocking {
    id: Box<str>,
    from: Box<str>,
    /// Answers of the core that are still to come.
    left: usize,
    failed: Option<Reason>,
}

impl Xmpp {
    pub(super) fn block_list(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        let question = Question::BlockList { id: asked.id.into(), from: asked.to.into() };
        let Some(tag) = self.ask_for(asked, turn, question) else { return };
        turn.frame(|encoder, frames| encoder.block_list_get(frames, tag));
    }

    pub(super) fn write_block_list(&self, out: &mut Vec<u8>, id: &str, from: &str, list: &BlockList<'_>) {
        self.write_result(out, id, from, |out| {
            out.extend_from_slice(b"<blocklist xmlns='urn:xmpp:blocking'>");
            list.jids().into_iter().flatten().for_each(|jid| write_item(out, jid));
            out.extend_from_slice(b"</blocklist>");
        });
    }

    /// Blocks or unblocks the users named.
    pub(super) fn block(&mut self, asked: Asked<'_>, blocked: bool, turn: &mut Turn<'_, '_>) {
        let mut jids = Vec::new();
        for item in asked.payload.children().filter(|child| child.is("item", names::BLOCKING)) {
            match self.address_of(item.attribute("jid").unwrap_or_default()) {
                Address::User(user) | Address::Session(user, _) => jids.push(user),
                Address::Elsewhere => return self.fail(asked, ELSEWHERE, turn),
                _ => return self.fail(asked, BAD_JID, turn),
            }
        }
        if jids.is_empty() && blocked || jids.len() > NAMED {
            return self.fail(asked, BAD_REQUEST, turn);
        }
        let blocking = Blocking { id: asked.id.into(), from: asked.to.into(), left: jids.len().max(1), failed: None };
        let Some(tag) = self.ask_for(asked, turn, Question::Block(Box::new(blocking))) else { return };
        if jids.is_empty() {
            // XEP-0191 3.5: everybody.
            turn.frame(|encoder, frames| encoder.block(frames, tag, "", false));
        }
        for jid in jids {
            turn.frame(|encoder, frames| encoder.block(frames, tag, jid.as_str(), blocked));
        }
    }

    /// One of a request's answers has come. The client gets its own with the last of them.
    pub(super) fn blocked(&mut self, request: u32, mut blocking: Box<Blocking>, failed: Option<Reason>, out: &mut Vec<u8>) {
        blocking.left -= 1;
        blocking.failed = blocking.failed.or(failed);
        if blocking.left > 0 {
            return self.waiting.push((request, Question::Block(blocking)));
        }
        if let Some(reason) = blocking.failed {
            return self.stanza_out(out, |this, out| this.write_failure(out, "iq", &blocking.id, &blocking.from, failure(reason)));
        }
        self.stanza_out(out, |this, out| this.write_result(out, &blocking.id, &blocking.from, |_| {}));
    }

    /// XEP-0191 3.3: the list has changed. Nobody named: all of it.
    pub(super) fn push_blocks<'a>(&mut self, jids: impl Iterator<Item = &'a str>, blocked: bool, out: &mut Vec<u8>) {
        let (id, name) = (self.push_id(), if blocked { "block" } else { "unblock" });
        self.stanza_out(out, |this, out| {
            this.open_stanza(out, "iq", "set", &id, "");
            out.extend_from_slice(format!("><{name} xmlns='{}'>", names::BLOCKING).as_bytes());
            jids.for_each(|jid| write_item(out, jid));
            out.extend_from_slice(format!("</{name}></iq>").as_bytes());
        });
    }

    /// After a resumption the list comes unasked: pushes may have been missed.
    pub(super) fn push_block_list(&mut self, list: &BlockList<'_>, out: &mut Vec<u8>) {
        self.push_blocks(std::iter::empty(), false, out);
        let jids = list.jids().unwrap_or_default();
        if !jids.is_empty() {
            self.push_blocks(jids.iter(), true, out);
        }
    }
}

fn write_item(out: &mut Vec<u8>, jid: &str) {
    out.extend_from_slice(b"<item");
    xml::attribute(out, "jid", jid);
    out.extend_from_slice(b"/>");
}
