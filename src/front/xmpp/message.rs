//! Message stanzas (RFC 6121 5, 8.5), and IQ stanzas from one session to another (RFC 6120 8.2.3).

use super::iq::utc;
use super::reasons::{BAD_JID, ELSEWHERE, Failure, NO_SERVICE, TOO_BIG, TOO_MANY};
use super::stanza::{Address, IqKind, tag_and_children};
use super::{NOBODY, Question, Turn, Xmpp, names};
use crate::wire::encode::{MessageFields, Tag};
use crate::wire::native::{Message, MessageKind};
use crate::wire::xml::{self, Element};

impl Xmpp {
    pub(super) fn message(&mut self, element: &Element, turn: &mut Turn<'_, '_>) {
        let kind = match element.attribute("type") {
            Some("chat") => MessageKind::Chat,
            Some("groupchat") => MessageKind::GroupChat,
            Some("headline") => MessageKind::Headline,
            Some("error") => MessageKind::Error,
            _ => MessageKind::Normal,
        };
        let to = match self.recipient(element) {
            Ok(to) => to,
            Err(failure) => return self.refuse(element, failure, turn),
        };
        let is_body = |child: &Element| child.is("body", names::CLIENT) && child.language().is_none() && !child.text().is_empty();
        let body = element.children().position(is_body);
        let others = element.children().enumerate().filter(|(at, _)| Some(*at) != body).map(|(_, child)| child);
        let said = body.and_then(|at| element.children().nth(at)).map(Element::text).unwrap_or_default();
        let extensions = self.extensions(element, others).filter(|others| others.len() + said.len() <= self.rules.stanza_bytes);
        let Some(extensions) = extensions else { return self.refuse(element, TOO_BIG, turn) };
        let id = element.attribute("id").unwrap_or_default();
        let fields =
            MessageFields { to: &to, id, body: said.as_bytes(), kind, extensions: &extensions, ..MessageFields::default() };
        self.pass_on(element, &fields, turn);
    }

    /// The address of a message, as the core wants it. RFC 6121 8.1: without one, it is to the sender's own account.
    fn recipient(&self, element: &Element) -> Result<String, Failure> {
        match self.address(element) {
            Address::Own => Ok(self.bare().to_owned()),
            Address::User(user) => Ok(user.as_str().to_owned()),
            Address::Session(user, resource) => Ok(format!("{user}/{resource}")),
            Address::Server | Address::Nowhere => Err(NO_SERVICE),
            Address::Elsewhere => Err(ELSEWHERE),
            Address::Malformed => Err(BAD_JID),
        }
    }

    /// Hands a message to the core, and keeps in mind what an error would be about.
    fn pass_on(&mut self, element: &Element, fields: &MessageFields<'_>, turn: &mut Turn<'_, '_>) {
        let (id, to) = (Box::from(fields.id), Box::from(element.attribute("to").unwrap_or_default()));
        let tag = match fields.kind {
            MessageKind::Normal | MessageKind::Chat | MessageKind::GroupChat => self.ask(Question::Message { id, to }),
            MessageKind::Get | MessageKind::Set => self.ask(Question::Asking { id, to }),
            _ => Some(Tag::request(NOBODY)),
        };
        match tag {
            Some(tag) => turn.frame(|encoder, frames| encoder.message(frames, tag, fields)),
            None => self.refuse(element, TOO_MANY, turn),
        }
    }

    /// A question to a session of somebody.
    pub(super) fn session_asked(&mut self, element: &Element, turn: &mut Turn<'_, '_>) {
        let kind = if element.attribute("type") == Some("set") { MessageKind::Set } else { MessageKind::Get };
        self.between_sessions(element, kind, turn);
    }

    /// A client's answer to a session that asked.
    pub(super) fn session_answered(&mut self, element: &Element, kind: IqKind, turn: &mut Turn<'_, '_>) {
        let kind = if kind == IqKind::Result { MessageKind::Result } else { MessageKind::Failure };
        self.between_sessions(element, kind, turn);
    }

    fn between_sessions(&mut self, element: &Element, kind: MessageKind, turn: &mut Turn<'_, '_>) {
        let Ok(to) = self.recipient(element) else { return };
        let Some(extensions) = self.extensions(element, element.children()) else { return self.refuse(element, TOO_BIG, turn) };
        let id = element.attribute("id").unwrap_or_default();
        let fields = MessageFields { to: &to, id, kind, extensions: &extensions, ..MessageFields::default() };
        self.pass_on(element, &fields, turn);
    }

    /// What somebody sent to this client.
    pub(super) fn write_message(&self, out: &mut Vec<u8>, message: &Message<'_>) {
        let (name, kind) = match message.kind() {
            MessageKind::Chat => ("message", "chat"),
            MessageKind::GroupChat => ("message", "groupchat"),
            MessageKind::Headline => ("message", "headline"),
            MessageKind::Error => ("message", "error"),
            MessageKind::Get => ("iq", "get"),
            MessageKind::Set => ("iq", "set"),
            MessageKind::Result => ("iq", "result"),
            MessageKind::Failure => ("iq", "error"),
            _ => ("message", ""),
        };
        self.open_tag(out, name);
        let to = message.to().filter(|to| name == "message" && !to.is_empty()).unwrap_or(&self.jid);
        for (attribute, value) in
            [("type", kind), ("id", message.id().unwrap_or_default()), ("from", message.from().unwrap_or_default()), ("to", to)]
        {
            if !value.is_empty() {
                xml::attribute(out, attribute, value);
            }
        }
        let (tag, children) = tag_and_children(message.extensions().unwrap_or_default());
        out.extend_from_slice(tag.as_bytes());
        out.push(b'>');
        let body = message.body().map_or(&[][..], |body| body.bytes());
        if !body.is_empty() {
            out.extend_from_slice(b"<body>");
            xml::text(out, &String::from_utf8_lossy(body));
            out.extend_from_slice(b"</body>");
        }
        out.extend_from_slice(children.as_bytes());
        if message.stamp() != 0 {
            self.write_delay(out, message.stamp());
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(name.as_bytes());
        out.push(b'>');
    }

    /// XEP-0203.
    fn write_delay(&self, out: &mut Vec<u8>, stamp: u64) {
        out.extend_from_slice(b"<delay");
        xml::attribute(out, "xmlns", names::DELAY);
        xml::attribute(out, "from", &self.rules.domain);
        xml::attribute(out, "stamp", &utc(stamp));
        out.extend_from_slice(b"/>");
    }
}
