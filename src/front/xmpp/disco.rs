//! What the server and its accounts are and can do (XEP-0030), and the short name of the server's description (XEP-0115).

use super::iq::Asked;
use super::reasons::{NO_SERVICE, NOT_FOUND, failure};
use super::{Question, Turn, Xmpp, names};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::xml;
use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::Sha1;
use sha2::Digest;

/// What the server calls its software in XEP-0115.
const NODE: &str = "urn:fanal";

/// Of whom a description is.
pub(super) struct Identity {
    /// Category, type and name.
    identities: &'static [(&'static str, &'static str, &'static str)],
    features: &'static [&'static str],
}

pub(super) const SERVER: Identity = Identity {
    identities: &[("server", "im", "fanal")],
    features: &[
        names::DISCO_INFO,
        names::DISCO_ITEMS,
        names::CAPS,
        names::PING,
        names::ROSTER,
        names::VERSION,
        names::TIME,
        names::BLOCKING,
        names::CARBONS,
        names::VCARD,
        names::PRIVATE,
        names::LAST,
        // XEP-0160.
        "msgoffline",
        "urn:xmpp:features:pre-approval",
    ],
};

pub(super) const ACCOUNT: Identity = Identity {
    identities: &[("account", "registered", "fanal"), ("pubsub", "pep", "")],
    features: &[
        names::DISCO_INFO,
        names::DISCO_ITEMS,
        names::VCARD,
        names::PUBSUB,
        "http://jabber.org/protocol/pubsub#access-open",
        "http://jabber.org/protocol/pubsub#access-presence",
        "http://jabber.org/protocol/pubsub#access-whitelist",
        "http://jabber.org/protocol/pubsub#auto-create",
        "http://jabber.org/protocol/pubsub#auto-subscribe",
        "http://jabber.org/protocol/pubsub#config-node",
        "http://jabber.org/protocol/pubsub#delete-nodes",
        "http://jabber.org/protocol/pubsub#filtered-notifications",
        "http://jabber.org/protocol/pubsub#item-ids",
        "http://jabber.org/protocol/pubsub#last-published",
        "http://jabber.org/protocol/pubsub#persistent-items",
        "http://jabber.org/protocol/pubsub#presence-notifications",
        "http://jabber.org/protocol/pubsub#publish",
        "http://jabber.org/protocol/pubsub#publish-options",
        "http://jabber.org/protocol/pubsub#purge-nodes",
        "http://jabber.org/protocol/pubsub#retract-items",
        "http://jabber.org/protocol/pubsub#retrieve-items",
    ],
};

impl Identity {
    /// The children of the answer.
    fn write(&self, out: &mut Vec<u8>) {
        for (category, kind, name) in self.identities {
            out.extend_from_slice(format!("<identity category='{category}' type='{kind}'").as_bytes());
            if !name.is_empty() {
                xml::attribute(out, "name", name);
            }
            out.extend_from_slice(b"/>");
        }
        for feature in self.features {
            out.extend_from_slice(b"<feature");
            xml::attribute(out, "var", feature);
            out.extend_from_slice(b"/>");
        }
    }

    /// XEP-0115 5.1, by SHA-1: the only function that all clients know.
    fn version(&self) -> String {
        let identity = |(category, kind, name): &(&str, &str, &str)| format!("{category}/{kind}//{name}");
        let mut identities: Vec<String> = self.identities.iter().map(identity).collect();
        let mut features: Vec<String> = self.features.iter().map(ToString::to_string).collect();
        identities.sort_unstable();
        features.sort_unstable();
        identities.append(&mut features);
        BASE64_STANDARD.encode(Sha1::digest(joined(&identities)))
    }
}

impl Xmpp {
    pub(super) fn disco(&mut self, asked: Asked<'_>, identity: &Identity, turn: &mut Turn<'_, '_>) {
        let node = node(asked);
        let is_own = |node: &str| identity.features == SERVER.features && node == format!("{NODE}#{}", SERVER.version());
        let namespace = asked.payload.namespace.as_str();
        if !node.is_empty() && (namespace == names::DISCO_ITEMS || !is_own(node)) {
            return self.fail(asked, NOT_FOUND, turn);
        }
        self.result(asked, turn, |out| {
            out.extend_from_slice(b"<query");
            xml::attribute(out, "xmlns", namespace);
            if !node.is_empty() {
                xml::attribute(out, "node", node);
            }
            out.push(b'>');
            if namespace == names::DISCO_INFO {
                identity.write(out);
            }
            out.extend_from_slice(b"</query>");
        });
    }

    /// What another user's account is. Only who may see the user may know that there is one (XEP-0030 8), and the core knows who.
    pub(super) fn disco_of_user(&mut self, asked: Asked<'_>, user: &Bare, turn: &mut Turn<'_, '_>) {
        let [id, from, node] = [asked.id, asked.to, node(asked)].map(Box::from);
        let Some(tag) = self.ask_for(asked, turn, Question::Account { id, from, node }) else { return };
        turn.frame(|encoder, frames| encoder.last_seen_get(frames, tag, user.as_str()));
    }

    /// The core has answered; `refused`: why it did not say when the user was last here.
    pub(super) fn account_asked(&mut self, (id, from, node): (&str, &str, &str), refused: Option<Reason>, out: &mut Vec<u8>) {
        self.stanza_out(out, |this, out| match refused {
            // Nobody was there yet: it may be known.
            None | Some(Reason::NotFound) if node.is_empty() => this.write_result(out, id, from, |out| {
                out.extend_from_slice(b"<query xmlns='http://jabber.org/protocol/disco#info'>");
                ACCOUNT.write(out);
                out.extend_from_slice(b"</query>");
            }),
            None | Some(Reason::NotFound) => this.write_failure(out, "iq", id, from, NOT_FOUND),
            Some(Reason::NotAuthorized | Reason::NoSuchUser) => this.write_failure(out, "iq", id, from, NO_SERVICE),
            Some(reason) => this.write_failure(out, "iq", id, from, failure(reason)),
        });
    }
}

/// The part of an entity that is asked about; empty: all of it.
fn node<'e>(asked: Asked<'e>) -> &'e str {
    asked.payload.attribute("node").unwrap_or_default()
}

/// XEP-0115 6.3: the server's own description, among the stream's features.
pub(super) fn write_own(out: &mut Vec<u8>) {
    out.extend_from_slice(b"<c");
    for (name, value) in [("xmlns", names::CAPS), ("hash", "sha-1"), ("node", NODE), ("ver", &SERVER.version())] {
        xml::attribute(out, name, value);
    }
    out.extend_from_slice(b"/>");
}

/// The parts of a verification string, each with the mark behind it.
pub(super) fn joined(parts: &[String]) -> String {
    parts.iter().flat_map(|part| [part, "<"]).collect()
}
