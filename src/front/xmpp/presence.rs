//! Presence stanzas (RFC 6121 3 and 4), both ways.

use super::iq::{read_utc, utc};
use super::reasons::{BAD_JID, BAD_REQUEST, ELSEWHERE, Failure, TOO_BIG, TOO_MANY};
use super::stanza::{Address, tag_and_children};
use super::{Framing, Mark, Question, Turn, Xmpp, names};
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::limits::TEXT_BYTES;
use crate::front::translate::Core;
use crate::wire::encode::{PresenceFields, SubscriptionFields, Tag};
use crate::wire::event::{self, Event};
use crate::wire::frame;
use crate::wire::native::{Action, Show, SubscriptionEvent};
use crate::wire::xml::{self, Element};

/// What a presence stanza says, in a native presence's fields.
#[derive(Default)]
struct Told {
    show: Show,
    priority: i8,
    status: String,
    idle_since: u64,
    caps: String,
    extensions: String,
}

impl Told {
    fn fields<'a>(&'a self, resource: &'a str) -> PresenceFields<'a> {
        PresenceFields {
            resource,
            show: self.show,
            priority: self.priority,
            status: &self.status,
            idle_since: self.idle_since,
            caps: &self.caps,
            extensions: &self.extensions,
            ..PresenceFields::default()
        }
    }
}

impl Xmpp {
    pub(super) fn presence(&mut self, element: &Element, turn: &mut Turn<'_, '_>) {
        let outcome = match element.attribute("type") {
            None | Some("") => self.tell(element, Show::Available, turn),
            Some("unavailable") => self.tell(element, Show::Unavailable, turn),
            Some("probe") => self.probe(element, turn),
            Some("subscribe") => self.subscription(element, Action::Subscribe, turn),
            Some("subscribed") => self.subscription(element, Action::Subscribed, turn),
            Some("unsubscribe") => self.subscription(element, Action::Unsubscribe, turn),
            Some("unsubscribed") => self.subscription(element, Action::Unsubscribed, turn),
            // RFC 6121 4.7.1: an error is never answered.
            Some("error") => Ok(()),
            Some(_) => Err(BAD_REQUEST),
        };
        if let Err(failure) = outcome {
            self.refuse(element, failure, turn);
        }
    }

    /// Presence to all subscribers, or (4.6) to one user or session.
    fn tell(&mut self, element: &Element, show: Show, turn: &mut Turn<'_, '_>) -> Result<(), Failure> {
        let told = self.told(element, show)?;
        if element.attribute("to").is_some() {
            return self.direct(element, &told, turn);
        }
        let fields = told.fields(self.resource());
        turn.frame(|encoder, frames| encoder.set_presence(frames, Tag::default(), &fields));
        if show != Show::Unavailable {
            // RFC 6121 4.2.2: the session that sent it gets it too.
            turn.core.unhurried += 1;
            turn.say(Mark::Stanza, |out| {
                self.open_tag(out, "presence");
                xml::attribute(out, "to", &self.jid);
                xml::attribute(out, "from", &self.jid);
                write_rest(out, &fields);
            });
            self.announces(&told.caps, turn);
        }
        Ok(())
    }

    fn direct(&mut self, element: &Element, told: &Told, turn: &mut Turn<'_, '_>) -> Result<(), Failure> {
        let to = match self.address(element) {
            Address::Own => self.bare().to_owned(),
            Address::User(user) => user.as_str().to_owned(),
            Address::Session(user, resource) => format!("{user}/{resource}"),
            Address::Server | Address::Nowhere => return Ok(()),
            Address::Elsewhere => return Err(ELSEWHERE),
            Address::Malformed => return Err(BAD_JID),
        };
        let tag = self.about_presence(element)?;
        let fields = told.fields(self.resource());
        turn.frame(|encoder, frames| {
            let presence = encoder.presence(&fields);
            encoder.directed_presence(frames, tag, &to, &presence);
        });
        Ok(())
    }

    /// A request that a presence stanza makes.
    fn about_presence(&mut self, element: &Element) -> Result<Tag, Failure> {
        let attribute = |name| Box::from(element.attribute(name).unwrap_or_default());
        self.ask(Question::Presence { id: attribute("id"), to: attribute("to") }).ok_or(TOO_MANY)
    }

    fn probe(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), Failure> {
        let jid = match self.address(element) {
            Address::Own => self.bare().to_owned(),
            Address::User(user) | Address::Session(user, _) => user.as_str().to_owned(),
            _ => return Ok(()),
        };
        let tag = self.about_presence(element)?;
        turn.frame(|encoder, frames| encoder.probe(frames, tag, &jid));
        Ok(())
    }

    /// RFC 6121 3: always about bare JIDs.
    fn subscription(&mut self, element: &Element, action: Action, turn: &mut Turn<'_, '_>) -> Result<(), Failure> {
        let jid = match self.address(element) {
            Address::User(user) | Address::Session(user, _) => user,
            Address::Own => return Ok(()),
            Address::Elsewhere => return Err(ELSEWHERE),
            Address::Server | Address::Nowhere | Address::Malformed => return Err(BAD_JID),
        };
        let note = element.child("status", names::CLIENT).map(Element::text).unwrap_or_default();
        let note = &note[..note.floor_char_boundary(TEXT_BYTES)];
        let others = element.children().filter(|child| !child.is("status", names::CLIENT) || child.language().is_some());
        let extensions = &self.extensions(element, others).ok_or(TOO_BIG)?;
        let tag = self.about_presence(element)?;
        let fields = SubscriptionFields { action, jid: jid.as_str(), user: UserId::default(), note, extensions };
        turn.frame(|encoder, frames| encoder.subscription(frames, tag, &fields));
        Ok(())
    }

    /// Reads a presence stanza's children. What has no native field goes into the extensions, so nothing is lost.
    fn told(&self, element: &Element, show: Show) -> Result<Told, Failure> {
        let mut told = Told { show, ..Told::default() };
        let mut others = Vec::new();
        for child in element.children() {
            match (child.namespace.as_str(), child.name.as_str()) {
                (names::CLIENT, "show") if show == Show::Available => told.show = read_show(&child.text()).ok_or(BAD_REQUEST)?,
                (names::CLIENT, "show") => {}
                (names::CLIENT, "priority") => told.priority = child.text().trim().parse().map_err(|_| BAD_REQUEST)?,
                (names::CLIENT, "status") if child.language().is_none() && told.status.is_empty() => told.status = child.text(),
                (names::IDLE, "idle") => match child.attribute("since").and_then(read_utc) {
                    Some(since) => told.idle_since = since,
                    None => others.push(child),
                },
                (names::CAPS, "c") => match read_caps(child) {
                    Some(caps) => told.caps = caps,
                    None => others.push(child),
                },
                _ => others.push(child),
            }
        }
        told.extensions = self.extensions(element, others.into_iter()).ok_or(TOO_BIG)?;
        if told.extensions.len() + told.status.len() + told.caps.len() > self.rules.stanza_bytes {
            return Err(TOO_BIG);
        }
        Ok(told)
    }

    /// An event that was not written in this door's form: the state that a session begins with, or goes on with.
    pub(super) fn write_event(&mut self, out: &mut Vec<u8>, event: &Event<'_>, core: &mut Core<'_>) {
        let Some(jid) = core.users.jid(event.head.user) else { return };
        let from = out.len();
        self.open_presence(out, core);
        write_event(out, jid, event);
        self.presence_out(out, from);
    }

    /// An event that was.
    pub(super) fn copy_event(&mut self, out: &mut Vec<u8>, written: &[u8], core: &mut Core<'_>) {
        let from = out.len();
        self.open_presence(out, core);
        out.extend_from_slice(written);
        self.presence_out(out, from);
    }

    fn open_presence(&self, out: &mut Vec<u8>, core: &mut Core<'_>) {
        let opening = &mut core.xmpp.opening;
        if opening.is_empty() {
            self.open_tag(opening, "presence");
            xml::attribute(opening, "to", &self.jid);
        }
        out.extend_from_slice(opening);
    }

    fn presence_out(&mut self, out: &mut Vec<u8>, from: usize) {
        if let Some(counting) = self.counting.as_mut().filter(|counting| counting.on) {
            counting.count(None);
        }
        if let Framing::Messages(frame) = self.framing {
            frame(out, from);
        }
    }

    /// Presence from somebody this client need not know (4.6).
    pub(super) fn write_directed(&self, out: &mut Vec<u8>, from: &str, fields: &PresenceFields<'_>) {
        self.open_tag(out, "presence");
        xml::attribute(out, "to", &self.jid);
        xml::attribute(out, "from", from);
        write_rest(out, fields);
    }

    pub(super) fn write_subscription(&self, out: &mut Vec<u8>, event: &SubscriptionEvent<'_>) {
        let kind = match event.action() {
            Action::Subscribed => "subscribed",
            Action::Unsubscribe => "unsubscribe",
            Action::Unsubscribed => "unsubscribed",
            _ => "subscribe",
        };
        self.open_tag(out, "presence");
        for (name, value) in [("type", kind), ("from", event.jid()), ("to", self.bare())] {
            xml::attribute(out, name, value);
        }
        let (tag, children) = tag_and_children(event.extensions().unwrap_or_default());
        out.extend_from_slice(tag.as_bytes());
        out.push(b'>');
        write_text(out, "status", event.note().unwrap_or_default());
        out.extend_from_slice(children.as_bytes());
        out.extend_from_slice(b"</presence>");
    }
}

/// Appends an event as all XMPP sessions of a core take it: without its addressee.
pub fn write_form(out: &mut Vec<u8>, jid: &Bare, event: &Event<'_>) {
    frame::write_raw(out, Mark::Presence as u32, |out| write_event(out, jid, event));
}

/// Writes an event from behind its name and addressee on.
fn write_event(out: &mut Vec<u8>, jid: &Bare, event: &Event<'_>) {
    let fields = event.presence.map(|presence| presence.fields()).unwrap_or_default();
    let slash = if fields.resource.is_empty() { "" } else { "/" };
    xml::attribute_of(out, "from", &[jid.as_str(), slash, fields.resource]);
    // The head's show counts: a session that was cut off leaves no words.
    let stamp = if event.head.flags & event::LAST == 0 { 0 } else { fields.stamp };
    write_rest(out, &PresenceFields { show: event.head.show, stamp, ..fields });
}

/// RFC 6121 4.7.2.1. `None`: there is no such state.
fn read_show(text: &str) -> Option<Show> {
    Some(match text.trim() {
        "" => Show::Available,
        "chat" => Show::Chat,
        "away" => Show::Away,
        "xa" => Show::ExtendedAway,
        "dnd" => Show::DoNotDisturb,
        _ => return None,
    })
}

fn show_text(show: Show) -> &'static str {
    match show {
        Show::Chat => "chat",
        Show::Away => "away",
        Show::ExtendedAway => "xa",
        Show::DoNotDisturb => "dnd",
        _ => "",
    }
}

/// XEP-0115 as one string: "HASH NODE#VER". `None`: it has another form, as before version 1.4.
fn read_caps(c: &Element) -> Option<String> {
    let attribute = |name| c.attribute(name).filter(|value| !value.is_empty() && !value.contains(['#', ' ']));
    let (hash, node, ver) = (attribute("hash")?, attribute("node")?, attribute("ver")?);
    (c.attributes.len() == 3).then(|| format!("{hash} {node}#{ver}"))
}

/// Writes a presence stanza from behind its name and addressee on.
fn write_rest(out: &mut Vec<u8>, fields: &PresenceFields<'_>) {
    if fields.show == Show::Unavailable {
        xml::attribute(out, "type", "unavailable");
    }
    let (tag, children) = tag_and_children(fields.extensions);
    out.extend_from_slice(tag.as_bytes());
    out.push(b'>');
    write_text(out, "show", show_text(fields.show));
    write_text(out, "status", fields.status);
    if fields.priority != 0 && fields.show != Show::Unavailable {
        write_text(out, "priority", &fields.priority.to_string());
    }
    if fields.idle_since != 0 {
        out.extend_from_slice(b"<idle");
        xml::attribute(out, "xmlns", names::IDLE);
        xml::attribute(out, "since", &utc(fields.idle_since));
        out.extend_from_slice(b"/>");
    }
    if let Some((hash, (node, ver))) = fields.caps.split_once(' ').and_then(|(hash, rest)| Some((hash, rest.split_once('#')?))) {
        out.extend_from_slice(b"<c");
        for (name, value) in [("xmlns", names::CAPS), ("hash", hash), ("node", node), ("ver", ver)] {
            xml::attribute(out, name, value);
        }
        out.extend_from_slice(b"/>");
    }
    out.extend_from_slice(children.as_bytes());
    if fields.stamp != 0 {
        out.extend_from_slice(b"<delay");
        xml::attribute(out, "xmlns", names::DELAY);
        xml::attribute(out, "stamp", &utc(fields.stamp));
        out.extend_from_slice(b"/>");
    }
    out.extend_from_slice(b"</presence>");
}

/// A child with text, unless the text is empty.
fn write_text(out: &mut Vec<u8>, name: &str, text: &str) {
    if !text.is_empty() {
        out.push(b'<');
        out.extend_from_slice(name.as_bytes());
        out.push(b'>');
        xml::text(out, text);
        out.extend_from_slice(b"</");
        out.extend_from_slice(name.as_bytes());
        out.push(b'>');
    }
}
