//! What all stanzas have: their addresses, their kinds, their errors (RFC 6120 8).

use super::reasons::Failure;
use super::stream::End;
use super::{Framing, Mark, Turn, Xmpp, names};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::xml::{self, Element};

/// RFC 6120 8.2.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IqKind {
    Get,
    Set,
    Result,
    Error,
}

/// `None`: it has no such kind.
pub(super) fn iq_kind(element: &Element) -> Option<IqKind> {
    match element.attribute("type")? {
        "get" => Some(IqKind::Get),
        "set" => Some(IqKind::Set),
        "result" => Some(IqKind::Result),
        "error" => Some(IqKind::Error),
        _ => None,
    }
}

/// Whom a stanza is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// The sender's own account: no address, or its own bare JID.
    Own,
    /// This server itself.
    Server,
    User(Bare),
    Session(Bare, String),
    /// A resource of this server: there is none.
    Nowhere,
    /// Another server.
    Elsewhere,
    Malformed,
}

impl Xmpp {
    pub(super) fn address(&self, element: &Element) -> Address {
        let Some(to) = element.attribute("to") else { return Address::Own };
        self.address_of(to)
    }

    pub(super) fn address_of(&self, to: &str) -> Address {
        let (bare, resource) = to.split_once('/').map_or((to, None), |(bare, resource)| (bare, Some(resource)));
        if !bare.contains('@') {
            return match (self.is_domain(bare), resource) {
                (true, None) => Address::Server,
                (true, Some(_)) => Address::Nowhere,
                (false, _) if Bare::new(&format!("a@{bare}")).is_some() => Address::Elsewhere,
                (false, _) => Address::Malformed,
            };
        }
        match Bare::with_resource(to) {
            None => Address::Malformed,
            Some((user, _)) if user.domain() != &*self.rules.domain => Address::Elsewhere,
            Some((user, None)) if user.as_str() == self.bare() => Address::Own,
            Some((user, None)) => Address::User(user),
            Some((user, Some(resource))) => Address::Session(user, resource.to_owned()),
        }
    }

    /// RFC 6120 8.1.2.1: a client may name itself as the sender, and nobody else.
    pub(super) fn check_sender(&self, element: &Element) -> Result<(), End> {
        let Some(from) = element.attribute("from") else { return Ok(()) };
        let own = from == &*self.jid
            || Bare::with_resource(from).is_some_and(|(bare, resource)| {
                bare.as_str() == self.bare() && resource.is_none_or(|resource| resource == self.resource())
            });
        if own { Ok(()) } else { Err(End::saying("invalid-from", "nobody speaks for another user here", Reason::NotAuthorized)) }
    }

    /// Begins a stanza's tag.
    pub(super) fn open_tag(&self, out: &mut Vec<u8>, name: &str) {
        out.push(b'<');
        out.extend_from_slice(name.as_bytes());
        if let Framing::Messages(_) = self.framing {
            xml::attribute(out, "xmlns", names::CLIENT);
        }
    }

    /// Begins a stanza to this client; attributes may follow.
    pub(super) fn open_stanza(&self, out: &mut Vec<u8>, name: &str, kind: &str, id: &str, from: &str) {
        self.open_tag(out, name);
        for (attribute, value) in [("type", kind), ("id", id), ("from", from), ("to", &self.jid)] {
            if !value.is_empty() {
                xml::attribute(out, attribute, value);
            }
        }
    }

    /// A stanza that reports the failure of one of this client's. Answers, errors, are never answered.
    pub(super) fn write_failure(&self, out: &mut Vec<u8>, name: &str, id: &str, from: &str, failure: Failure) {
        self.open_stanza(out, name, "error", id, from);
        out.push(b'>');
        failure.write(out);
        out.extend_from_slice(b"</");
        out.extend_from_slice(name.as_bytes());
        out.push(b'>');
    }

    /// Refuses a stanza at once.
    pub(super) fn refuse(&self, element: &Element, failure: Failure, turn: &mut Turn<'_, '_>) {
        let attribute = |name| element.attribute(name).unwrap_or_default();
        if attribute("type") == "error" {
            return;
        }
        let (id, to) = (attribute("id"), attribute("to"));
        turn.count(failure);
        turn.say(Mark::Stanza, |out| self.write_failure(out, element.name.as_str(), id, to, failure));
    }

    /// Elements as text that any stanza can carry; the stanza's language stands before them: its own, or the stream's (RFC 6120
    /// 8.1.5).
    /// `None`: longer than a stanza may be.
    pub(super) fn extensions<'e>(&self, stanza: &Element, children: impl Iterator<Item = &'e Element>) -> Option<String> {
        let mut out = Vec::new();
        let language = stanza.language().unwrap_or(&self.language);
        if !language.is_empty() {
            out.extend_from_slice(LANGUAGE.as_bytes());
            xml::attribute(&mut out, "xml:lang", language);
            out.extend_from_slice(b"/>");
        }
        for child in children {
            let room = self.rules.stanza_bytes.saturating_sub(out.len());
            xml::element(&mut out, child, "", room).ok()?;
        }
        Some(String::from_utf8(out).expect("made of text"))
    }
}

/// How the language of a whole stanza stands in front of its extensions.
const LANGUAGE: &str = "<stanza xmlns='urn:fanal:stanza'";

/// The extensions without what stood in the stanza's own tag, which is given beside them, ready to be written there. What is not
/// a sequence of elements is left out: native clients may have written it.
pub(super) fn tag_and_children(extensions: &str) -> (&str, &str) {
    if extensions.is_empty() || !xml::is_fragment(extensions) {
        return ("", "");
    }
    extensions
        .strip_prefix(LANGUAGE)
        .and_then(|rest| rest.split_once("/>"))
        .filter(|(tag, _)| is_language(tag))
        .map_or(("", extensions), |(tag, children)| (tag, children))
}

/// Whether this is an xml:lang and nothing else, as `Xmpp::extensions` writes it.
fn is_language(tag: &str) -> bool {
    let value = tag.strip_prefix(" xml:lang='").and_then(|rest| rest.strip_suffix('\''));
    value.is_some_and(|value| !value.contains('\''))
}
