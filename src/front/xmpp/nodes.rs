//! Personal eventing (XEP-0163): each node is a document of one item. Publishing, looking up, taking back and configuring a node
//! begin with a look at what is there; the core then keeps the document and tells those who want to hear of it (`caps`).

use super::documents::node_name;
use super::iq::Asked;
use super::management::Kept;
use super::reasons::{BAD_REQUEST, FORBIDDEN, Failure, NO_SERVICE, NOT_ACCEPTABLE, NOT_FOUND, TOO_BIG, TOO_MANY};
use super::{Question, Turn, Xmpp, names};
use crate::base::limits::DOCUMENT_NAME_BYTES;
use crate::front::translate::Core;
use crate::wire::native::{Access, Document, DocumentChanged};
use crate::wire::xml::{self, Element, is_fragment};

/// The item of a node that names none.
const CURRENT: &str = "current";
/// How an item begins where it is kept.
const ITEM: &str = "<item xmlns='http://jabber.org/protocol/pubsub'";

const UNSUPPORTED: Failure = Failure::new("cancel", "feature-not-implemented");
const NO_NODE: Failure = BAD_REQUEST.with("<nodeid-required xmlns='http://jabber.org/protocol/pubsub#errors'/>");
const NO_ITEM: Failure = BAD_REQUEST.with("<item-required xmlns='http://jabber.org/protocol/pubsub#errors'/>");
/// XEP-0060 7.1.5.
const NOT_MET: Failure =
    Failure::new("cancel", "conflict").with("<precondition-not-met xmlns='http://jabber.org/protocol/pubsub#errors'/>");

/// What is wanted of a node, once it's known what is there.
pub(super) struct Visit {
    id: Box<str>,
    from: Box<str>,
    node: Box<str>,
    what: What,
}

enum What {
    /// Its item; with names, if it has one of them.
    Items(Vec<Box<str>>),
    /// Its configuration.
    Look,
    Publish {
        item: Vec<u8>,
        /// As the client asked for it.
        access: Option<Access>,
    },
    Retract(Box<str>),
    Remove,
    Configure(Option<Access>),
}

impl Xmpp {
    /// A request about a node of an account. `own`: the client's own.
    pub(super) fn node(&mut self, asked: Asked<'_>, own: bool, turn: &mut Turn<'_, '_>) {
        match self.wanted(asked, own) {
            Ok((node, what)) => {
                let [id, from, node] = [asked.id, asked.to, node].map(Box::from);
                let name = node_name(&node);
                let visit = Visit { id, from, node, what };
                let Some(tag) = self.ask_for(asked, turn, Question::Node(Box::new(visit))) else { return };
                turn.frame(|encoder, frames| encoder.document_get(frames, tag, if own { "" } else { asked.to }, &name));
            }
            Err(failure) => self.fail(asked, failure, turn),
        }
    }

    fn wanted<'e>(&self, asked: Asked<'e>, own: bool) -> Result<(&'e str, What), Failure> {
        let is_owner = asked.payload.namespace.as_str() == names::PUBSUB_OWNER;
        let action = asked.payload.children().next().ok_or(BAD_REQUEST)?;
        let verb = (action.name.as_str(), is_owner, asked.sets);
        if !own && verb != ("items", false, false) {
            return Err(if asked.sets { FORBIDDEN } else { UNSUPPORTED });
        }
        let is_known = matches!(
            verb,
            ("items", false, false)
                | ("publish" | "retract", false, true)
                | ("configure", true, _)
                | ("delete" | "purge", true, true)
        );
        if !is_known || action.namespace != asked.payload.namespace {
            return Err(UNSUPPORTED);
        }
        let node = action.attribute("node").filter(|node| !node.is_empty()).ok_or(NO_NODE)?;
        if node_name(node).len() > DOCUMENT_NAME_BYTES || node.chars().any(char::is_control) {
            return Err(NOT_ACCEPTABLE);
        }
        let items = || action.children().filter(|child| child.is("item", names::PUBSUB));
        let what = match verb.0 {
            "items" => What::Items(items().filter_map(|item| item.attribute("id")).map(Box::from).collect()),
            "publish" => {
                let (item, None) = (items().next().ok_or(NO_ITEM)?, items().nth(1)) else { return Err(BAD_REQUEST) };
                let options = asked.payload.child("publish-options", names::PUBSUB);
                let access = options.and_then(|options| options.child("x", names::DATA)).map(access).transpose();
                What::Publish { item: self.kept_item(item)?, access: access.map_err(|()| NOT_MET)?.flatten() }
            }
            "retract" => What::Retract(items().next().and_then(|item| item.attribute("id")).ok_or(NO_ITEM)?.into()),
            "configure" if !asked.sets => What::Look,
            "configure" => {
                let form = action.child("x", names::DATA).ok_or(BAD_REQUEST)?;
                let access = if form.attribute("type") == Some("cancel") { Ok(None) } else { access(form) };
                What::Configure(access.map_err(|()| NOT_ACCEPTABLE)?)
            }
            _ => What::Remove,
        };
        Ok((node, what))
    }

    /// An item as it is kept.
    fn kept_item(&self, item: &Element) -> Result<Vec<u8>, Failure> {
        let mut data = ITEM.as_bytes().to_vec();
        xml::attribute(&mut data, "id", item.attribute("id").filter(|id| !id.is_empty()).unwrap_or(CURRENT));
        data.push(b'>');
        for child in item.children() {
            let room = self.rules.stanza_bytes.saturating_sub(data.len());
            xml::element(&mut data, child, "", room).map_err(|_| TOO_BIG)?;
        }
        data.extend_from_slice(b"</item>");
        Ok(data)
    }

    /// It's known what is there: `None`, no such node, or none that the client may see.
    pub(super) fn visited(&mut self, visit: Visit, found: Option<Document<'_>>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        let Visit { id, from, node, what } = visit;
        let (kept, old) = match &found {
            Some(document) => (document.data().map_or(&[][..], |data| data.bytes()), Some(document.access())),
            None => (&[][..], None),
        };
        let Some(item) = std::str::from_utf8(kept).ok().filter(|text| is_fragment(text)) else {
            return self.say_node_failure(out, &id, &from, NO_SERVICE);
        };
        let is_absent = old.is_none() && !matches!(what, What::Publish { .. });
        match what {
            _ if is_absent => self.say_node_failure(out, &id, &from, NOT_FOUND),
            What::Items(ids) => {
                let is_named = ids.is_empty() || ids.iter().any(|id| **id == *item_id(item));
                self.stanza_out(out, |this, out| {
                    this.write_result(out, &id, &from, |out| write_items(out, &node, if is_named { item } else { "" }))
                });
            }
            What::Look => self.stanza_out(out, |this, out| {
                this.write_result(out, &id, &from, |out| write_configuration(out, &node, old.unwrap_or_default()))
            }),
            What::Publish { access, .. } if access.is_some() && old.is_some() && access != old => {
                self.say_node_failure(out, &id, &from, NOT_MET)
            }
            What::Publish { item, access } => {
                let access = old.or(access).unwrap_or(Access::Contacts);
                let published: Box<str> = item_id(&String::from_utf8_lossy(&item)).into();
                let question = Question::Published { id, from, node: node.clone(), item: published };
                self.keep_node(question, &node, &item, access, core, out);
            }
            What::Retract(wanted) if *wanted != *item_id(item) => self.say_node_failure(out, &id, &from, NOT_FOUND),
            What::Retract(_) | What::Remove => {
                self.keep_node(Question::Iq { id, from }, &node, &[], Access::Own, core, out);
            }
            What::Configure(access) => {
                let access = access.or(old).unwrap_or_default();
                self.keep_node(Question::Iq { id, from }, &node, kept, access, core, out);
            }
        }
    }

    /// The core can't say what is there.
    pub(super) fn not_visited(&mut self, visit: Visit, failure: Failure, out: &mut Vec<u8>) {
        self.say_node_failure(out, &visit.id, &visit.from, failure);
    }

    fn keep_node(&mut self, question: Question, node: &str, data: &[u8], access: Access, core: &mut Core<'_>, out: &mut Vec<u8>) {
        let (id, from) = match &question {
            Question::Iq { id, from } | Question::Published { id, from, .. } => (id.clone(), from.clone()),
            _ => return,
        };
        match self.ask(question) {
            Some(tag) => core.xmpp.encoder.document_set(core.follow, tag, &node_name(node), data, access),
            None => {
                core.xmpp.refused += 1;
                self.say_node_failure(out, &id, &from, TOO_MANY);
            }
        }
    }

    /// XEP-0060 7.1.2: the client is told what its item is called.
    pub(super) fn published(&mut self, id: &str, from: &str, node: &str, item: &str, out: &mut Vec<u8>) {
        self.stanza_out(out, |this, out| {
            this.write_result(out, id, from, |out| {
                out.extend_from_slice(b"<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish");
                xml::attribute(out, "node", node);
                out.extend_from_slice(b"><item");
                xml::attribute(out, "id", item);
                out.extend_from_slice(b"/></publish></pubsub>");
            });
        });
    }

    fn say_node_failure(&mut self, out: &mut Vec<u8>, id: &str, from: &str, failure: Failure) {
        self.stanza_out(out, |this, out| this.write_failure(out, "iq", id, from, failure));
    }

    /// XEP-0163 4.3: a document that the client wants to hear of. Those that are no items of nodes were not written by XMPP
    /// clients. A node whose item was taken back is empty (XEP-0060 8.5).
    pub(super) fn news(&mut self, changed: &DocumentChanged<'_>, out: &mut Vec<u8>) {
        let Some(node) = changed.name().strip_prefix(&node_name("")) else { return };
        let text = std::str::from_utf8(changed.data().map_or(&[][..], |data| data.bytes())).unwrap_or(" ");
        let item = text.strip_prefix(ITEM).filter(|_| is_fragment(text));
        if item.is_none() && !text.is_empty() {
            return;
        }
        if let Some(counting) = self.counting.as_mut().filter(|counting| counting.on) {
            counting.count(Some(Kept::News));
        }
        self.message_out(out, |this, out| {
            this.open_stanza(out, "message", "headline", "", changed.jid());
            out.extend_from_slice(b"><event xmlns='http://jabber.org/protocol/pubsub#event'>");
            out.extend_from_slice(if item.is_some() { b"<items" } else { b"<purge" });
            xml::attribute(out, "node", node);
            match item {
                Some(item) => {
                    out.extend_from_slice(b"><item");
                    out.extend_from_slice(item.as_bytes());
                    out.extend_from_slice(b"</items>");
                }
                None => out.extend_from_slice(b"/>"),
            }
            out.extend_from_slice(b"</event></message>");
        });
    }
}

/// What an item that is kept is called; empty: it was not written by an XMPP client.
fn item_id(item: &str) -> String {
    let id = Element::parse(item.as_bytes()).ok().and_then(|item| item.attribute("id").map(str::to_owned));
    id.unwrap_or_default()
}

/// What a form wants of a node (XEP-0060 16.4.4, XEP-0223), which has one item, kept and told to those who may see it: who that is,
/// if it says so. Errors: something that nodes here don't do.
fn access(form: &Element) -> Result<Option<Access>, ()> {
    let mut access = None;
    for field in form.children().filter(|child| child.is("field", names::DATA)) {
        let value = field.child("value", names::DATA).map(Element::text).unwrap_or_default();
        match (field.attribute("var").unwrap_or_default(), value.as_str()) {
            ("pubsub#access_model", "open") => access = Some(Access::Everyone),
            ("pubsub#access_model", "presence") => access = Some(Access::Contacts),
            ("pubsub#access_model", "whitelist") => access = Some(Access::Own),
            ("pubsub#persist_items" | "pubsub#deliver_payloads" | "pubsub#presence_based_delivery", "true" | "1") => {}
            ("pubsub#max_items", "1") | ("pubsub#send_last_published_item", "on_sub_and_presence") => {}
            ("FORM_TYPE" | "pubsub#title" | "pubsub#type", _) => {}
            _ => return Err(()),
        }
    }
    Ok(access)
}

fn write_items(out: &mut Vec<u8>, node: &str, item: &str) {
    out.extend_from_slice(b"<pubsub xmlns='http://jabber.org/protocol/pubsub'><items");
    xml::attribute(out, "node", node);
    out.push(b'>');
    out.extend_from_slice(item.as_bytes());
    out.extend_from_slice(b"</items></pubsub>");
}

/// XEP-0060 8.2.
fn write_configuration(out: &mut Vec<u8>, node: &str, access: Access) {
    let model = match access {
        Access::Everyone => "open",
        Access::Contacts => "presence",
        _ => "whitelist",
    };
    out.extend_from_slice(b"<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure");
    xml::attribute(out, "node", node);
    out.extend_from_slice(b"><x xmlns='jabber:x:data' type='form'>");
    for (name, kind, value) in [
        ("FORM_TYPE", "hidden", "http://jabber.org/protocol/pubsub#node_config"),
        ("pubsub#access_model", "list-single", model),
        ("pubsub#persist_items", "boolean", "1"),
        ("pubsub#max_items", "text-single", "1"),
        ("pubsub#deliver_payloads", "boolean", "1"),
        ("pubsub#send_last_published_item", "list-single", "on_sub_and_presence"),
    ] {
        out.extend_from_slice(format!("<field var='{name}' type='{kind}'><value>{value}</value>").as_bytes());
        let options: &[&str] = if name == "pubsub#access_model" { &["open", "presence", "whitelist"] } else { &[] };
        options.iter().for_each(|option| {
            out.extend_from_slice(format!("<option><value>{option}</value></option>").as_bytes());
        });
        out.extend_from_slice(b"</field>");
    }
    out.extend_from_slice(b"</x></configure></pubsub>");
}
