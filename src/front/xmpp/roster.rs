//! The roster (RFC 6121 2).

use super::iq::{Asked, PUSH_ID};
use super::reasons::{BAD_JID, BAD_REQUEST, Failure, NOT_ACCEPTABLE};
use super::{Question, Turn, Xmpp, names};
use crate::base::jid::Bare;
use crate::base::limits::{GROUPS_PER_ITEM, TEXT_BYTES};
use crate::wire::native::{Roster, RosterItem, SubscriptionState};
use crate::wire::xml::{self, Element};

/// A roster on its way: it comes from the core in pieces, and goes out in one stanza.
pub(super) struct Gathering {
    pub id: Box<str>,
    /// Whom the client had asked.
    pub from: Box<str>,
    pub items: Vec<u8>,
    /// Changes that came in between, for afterwards.
    pub pushes: Vec<Vec<u8>>,
}

/// What a client wants of one contact.
struct Change {
    jid: Bare,
    name: String,
    groups: Vec<String>,
    removes: bool,
}

impl Xmpp {
    pub(super) fn roster_get(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        let version = asked.payload.attribute("ver");
        self.versioned |= version.is_some();
        let gathering = Gathering { id: asked.id.into(), from: asked.to.into(), items: Vec::new(), pushes: Vec::new() };
        let Some(tag) = self.ask_for(asked, turn, Question::Roster(Box::new(gathering))) else { return };
        turn.frame(|encoder, frames| encoder.roster_since(frames, tag, version.unwrap_or_default()));
    }

    /// RFC 6121 2.3.1 to 2.5.
    pub(super) fn roster_set(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        let change = match change(asked.payload) {
            Ok(change) => change,
            Err(failure) => return self.fail(asked, failure, turn),
        };
        let question = Question::Iq { id: asked.id.into(), from: asked.to.into() };
        let Some(tag) = self.ask_for(asked, turn, question) else { return };
        turn.frame(|encoder, frames| match &change {
            Change { jid, removes: true, .. } => encoder.roster_remove(frames, tag, jid.as_str()),
            Change { jid, name, groups, .. } => encoder.roster_set(frames, tag, jid.as_str(), name, groups),
        });
    }

    /// The roster, when its last piece has come.
    pub(super) fn write_roster(&mut self, gathering: &Gathering, last: &Roster<'_>, out: &mut Vec<u8>) {
        let version = last.version().filter(|_| self.versioned);
        self.stanza_out(out, |this, out| {
            this.write_result(out, &gathering.id, &gathering.from, |out| {
                if last.unchanged() {
                    return;
                }
                write_query(out, version);
                out.extend_from_slice(&gathering.items);
                out.extend_from_slice(b"</query>");
            });
        });
        for push in &gathering.pushes {
            self.stanza_out(out, |_, out| out.extend_from_slice(push));
        }
    }

    /// RFC 6121 2.1.6. While a roster is being gathered, it comes behind it.
    pub(super) fn roster_push(&mut self, item: RosterItem<'_>, version: Option<&str>, out: &mut Vec<u8>) {
        let id = self.push_id();
        let mut push = Vec::new();
        self.open_stanza(&mut push, "iq", "set", &id, "");
        push.push(b'>');
        write_query(&mut push, version.filter(|_| self.versioned));
        write_item(&mut push, item);
        push.extend_from_slice(b"</query></iq>");
        let gathering = self.waiting.iter_mut().find_map(|(_, question)| match question {
            Question::Roster(gathering) => Some(gathering),
            _ => None,
        });
        match gathering {
            Some(gathering) => gathering.pushes.push(push),
            None => self.stanza_out(out, |_, out| out.extend_from_slice(&push)),
        }
    }
}

impl Xmpp {
    /// The id of the next push.
    pub(super) fn push_id(&mut self) -> String {
        self.pushes = self.pushes.wrapping_add(1);
        format!("{PUSH_ID}{}", self.pushes)
    }
}

fn write_query(out: &mut Vec<u8>, version: Option<&str>) {
    out.extend_from_slice(b"<query xmlns='jabber:iq:roster'");
    if let Some(version) = version {
        xml::attribute(out, "ver", version);
    }
    out.push(b'>');
}

/// Reads a roster set.
fn change(query: &Element) -> Result<Change, Failure> {
    let mut items = query.children().filter(|child| child.is("item", names::ROSTER));
    let (Some(item), None) = (items.next(), items.next()) else { return Err(BAD_REQUEST) };
    let jid = item.attribute("jid").ok_or(BAD_REQUEST)?;
    let jid = Bare::new(jid).ok_or(BAD_JID)?;
    let mut groups: Vec<String> = Vec::new();
    for group in item.children().filter(|child| child.is("group", names::ROSTER)) {
        let group = group.text();
        if groups.contains(&group) {
            return Err(BAD_REQUEST);
        }
        groups.push(group);
    }
    let name = item.attribute("name").unwrap_or_default().to_owned();
    let fits = |text: &String| text.len() <= TEXT_BYTES;
    if groups.len() > GROUPS_PER_ITEM || !groups.iter().all(|group| fits(group) && !group.is_empty()) || !fits(&name) {
        return Err(NOT_ACCEPTABLE);
    }
    Ok(Change { jid, name, groups, removes: item.attribute("subscription") == Some("remove") })
}

/// RFC 6121 2.1.2.
pub(super) fn write_item(out: &mut Vec<u8>, item: RosterItem<'_>) {
    out.extend_from_slice(b"<item");
    xml::attribute(out, "jid", item.jid());
    if let Some(name) = item.name().filter(|name| !name.is_empty()) {
        xml::attribute(out, "name", name);
    }
    let subscription = match item.subscription() {
        _ if item.removed() => "remove",
        SubscriptionState::To => "to",
        SubscriptionState::From => "from",
        SubscriptionState::Both => "both",
        _ => "none",
    };
    xml::attribute(out, "subscription", subscription);
    if item.ask() {
        xml::attribute(out, "ask", "subscribe");
    }
    if item.approved() {
        xml::attribute(out, "approved", "true");
    }
    let groups = item.groups().filter(|groups| !groups.is_empty() && !item.removed());
    let Some(groups) = groups else { return out.extend_from_slice(b"/>") };
    out.push(b'>');
    for group in groups {
        out.extend_from_slice(b"<group>");
        xml::text(out, group);
        out.extend_from_slice(b"</group>");
    }
    out.extend_from_slice(b"</item>");
}
