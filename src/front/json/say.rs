//! What a server says in native frames, as JSON messages.
//!
//! Lives on: every core. Pure. Invariants: a frame becomes one message, a batch of events one for each event; users are named by
//! their JIDs (their numbers don't survive JSON, whose numbers are often doubles).

use super::names::{self, name};
use super::write::{Object, string};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::decode::ServerFrame;
use crate::wire::event::{Head, LAST};
use crate::wire::native as n;
use crate::wire::presence::PresenceFields;

fn proven(o: &mut Object<'_>, authenticated: n::Authenticated<'_>) {
    o.data_if_any("data", authenticated.data().map_or(&[], |data| data.bytes()));
    o.text_if_any("hashed_token", authenticated.token().unwrap_or_default());
    o.number_if_any("token_until", authenticated.token_until());
}

/// Appends a message that starts with `type`, and `id` when it answers a request.
fn say(out: &mut Vec<u8>, kind: &str, id: u32, members: impl FnOnce(&mut Object<'_>)) {
    Object::write(out, |o| {
        o.text("type", kind);
        o.number_if_any("id", id);
        members(o);
    });
}

/// Appends the message that a frame means, but for Ping, which WebSocket has itself, and events.
pub fn frame(out: &mut Vec<u8>, id: u32, frame: &ServerFrame<'_>) {
    match *frame {
        ServerFrame::Hello(hello) => say(out, "hello", id, |o| {
            o.text_if_any("software", hello.software().unwrap_or_default());
            o.text("domain", hello.domain().unwrap_or_default());
            o.list("mechanisms", hello.mechanisms().into_iter().flatten(), string);
            if let Some(bindings) = hello.bindings() {
                o.list("bindings", bindings.iter(), string);
            }
            o.number("max_frame", hello.max_frame());
        }),
        ServerFrame::Pong(_) => say(out, "pong", id, |_| {}),
        ServerFrame::Done => say(out, "done", id, |_| {}),
        ServerFrame::Message(message) => say(out, "message", id, |o| chat(o, message)),
        ServerFrame::SaslChallenge(challenge) => {
            say(out, "sasl_challenge", id, |o| o.data("data", challenge.data().map_or(&[], |data| data.bytes())));
        }
        ServerFrame::Authenticated(authenticated) => {
            say(out, "authenticated", id, |o| proven(o, authenticated));
        }
        ServerFrame::LoggedIn(logged_in) => say(out, "logged_in", id, |o| session(o, logged_in)),
        ServerFrame::Error(said) => error(out, id, said.reason(), said.text().unwrap_or_default()),
        ServerFrame::SubscriptionEvent(event) => say(out, "subscription_event", id, |o| {
            o.text("action", name(names::ACTION, event.action().0));
            o.text("jid", event.jid());
            o.text_if_any("note", event.note().unwrap_or_default());
            o.text_if_any("extensions", event.extensions().unwrap_or_default());
        }),
        ServerFrame::Roster(roster) => say(out, "roster", id, |o| {
            o.list("items", roster.items().into_iter().flatten(), |out, item| Object::write(out, |o| contact(o, item)));
            o.flag_if_set("more", roster.more());
            o.text_if_any("version", roster.version().unwrap_or_default());
            o.flag_if_set("unchanged", roster.unchanged());
        }),
        ServerFrame::RosterPush(push) => say(out, "roster_push", id, |o| {
            o.object("item", |o| contact(o, push.item()));
            o.text_if_any("version", push.version().unwrap_or_default());
        }),
        ServerFrame::BlockList(list) => {
            say(out, "block_list", id, |o| o.list("jids", list.jids().into_iter().flatten(), string));
        }
        ServerFrame::BlockPush(push) => say(out, "block_push", id, |o| {
            o.text("jid", push.jid());
            o.flag("blocked", push.blocked());
        }),
        ServerFrame::Document(d) => document(out, "document", id, (d.jid(), d.name()), d.data(), d.access()),
        ServerFrame::DocumentChanged(d) => document(out, "document_changed", id, (d.jid(), d.name()), d.data(), n::Access::Own),
        ServerFrame::LastSeen(seen) => say(out, "last_seen", id, |o| {
            o.text("jid", seen.jid());
            o.number("seconds", seen.seconds());
            o.text_if_any("status", seen.status().unwrap_or_default());
        }),
        ServerFrame::Transfer(transfer) => say(out, "transfer", id, |o| o.text("address", transfer.address())),
        ServerFrame::DirectedPresence { from, presence: shown } => say(out, "directed_presence", id, |o| {
            o.text("from", from);
            o.object("presence", |o| presence(o, &shown.fields()));
        }),
        ServerFrame::Ping(_) | ServerFrame::Event(_) | ServerFrame::EventBatch(_) => unreachable!("said elsewhere"),
    }
}

/// Appends a document, or that it has changed. For whom it is goes without saying when it's for its user alone.
fn document(
    out: &mut Vec<u8>,
    kind: &str,
    id: u32,
    (jid, called): (&str, &str),
    data: Option<flatbuffers::Vector<'_, u8>>,
    access: n::Access,
) {
    say(out, kind, id, |o| {
        o.text("jid", jid);
        o.text("name", called);
        o.text_or_data("data", "data_base64", data.map_or(&[], |data| data.bytes()));
        if access != n::Access::Own {
            o.text("access", name(names::ACCESS, access.0));
        }
    });
}

/// Appends the message of an event.
pub fn event(out: &mut Vec<u8>, jid: &Bare, head: &Head, fields: &PresenceFields<'_>) {
    say(out, "event", 0, |o| {
        o.text("jid", jid.as_str());
        o.number("session", head.session.0);
        o.number("epoch", head.version.epoch);
        o.number("sequence", head.version.sequence);
        o.flag_if_set("last", head.flags & LAST != 0);
        o.object("presence", |o| presence(o, fields));
    });
}

/// Appends an error. The name of a reason is easier to read in a program than its number.
pub fn error(out: &mut Vec<u8>, id: u32, reason: u16, text: &str) {
    say(out, "error", id, |o| {
        o.number("reason", reason);
        o.text("name", Reason::from_number(reason).map_or("unknown", Reason::metric));
        o.text("text", text);
    });
}

fn presence(o: &mut Object<'_>, presence: &PresenceFields<'_>) {
    o.text_if_any("resource", presence.resource);
    o.text("show", name(names::SHOW, presence.show.0));
    o.number_if_any("priority", presence.priority);
    o.text_if_any("status", presence.status);
    o.number_if_any("idle_since", presence.idle_since);
    o.text_if_any("caps", presence.caps);
    o.text_or_data("payload", "payload_base64", presence.payload);
    o.number_if_any("stamp", presence.stamp);
    o.text_if_any("extensions", presence.extensions);
}

fn session(o: &mut Object<'_>, logged_in: n::LoggedIn<'_>) {
    o.text("jid", logged_in.jid());
    o.number("session", logged_in.session());
    o.data("resume", logged_in.resume().map_or(&[], |token| token.bytes()));
    o.number("resume_within_ms", logged_in.resume_within_ms());
    o.flag("resumed", logged_in.resumed());
    o.data_if_any("data", logged_in.data().map_or(&[], |data| data.bytes()));
}

fn chat(o: &mut Object<'_>, message: n::Message<'_>) {
    o.number("number", message.number());
    o.text("from", message.from().unwrap_or_default());
    o.text("to", message.to().unwrap_or_default());
    o.text_if_any("message_id", message.id().unwrap_or_default());
    o.text("kind", name(names::MESSAGE_KIND, message.kind().0));
    o.text_or_data("body", "body_base64", message.body().map_or(&[], |body| body.bytes()));
    o.text_if_any("extensions", message.extensions().unwrap_or_default());
    o.number_if_any("stamp", message.stamp());
    if message.copy() != n::Copy::None {
        o.text("copy", name(names::COPY, message.copy().0));
    }
}

fn contact(o: &mut Object<'_>, item: n::RosterItem<'_>) {
    o.text("jid", item.jid());
    o.text_if_any("name", item.name().unwrap_or_default());
    let groups = item.groups().unwrap_or_default();
    if !groups.is_empty() {
        o.list("groups", groups, string);
    }
    o.text("subscription", name(names::SUBSCRIPTION, item.subscription().0));
    o.flag_if_set("ask", item.ask());
    o.flag_if_set("approved", item.approved());
    o.flag_if_set("removed", item.removed());
}
