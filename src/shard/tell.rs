//! What a home tells a session, as frames of the native protocol on the session's connection or stream.

use super::Shard;
use super::asked::request_of;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::presence::control::{Ask, Asker, Attached, Contact, Content, EdgeRef, SessionEvent};
use crate::presence::edge::{Home, Rest};
use crate::presence::roster::version_text;
use crate::presence::subscription::State;
use crate::wire::encode::{self, Encoder, LoggedInAs, MessageFields, SubscriptionFields, Tag};
use crate::wire::native;

impl Shard {
    /// A home has attached (or resumed) a session whose connection is here.
    pub(super) fn attached(&mut self, attached: Attached) {
        let Attached { asker, at, session, jid, resource, resume, resumed, data } = attached;
        self.asked.answered(asker.edge, asker.request);
        let Some(at_edge) = self.edge.get(asker.edge).filter(|at_edge| at_edge.home.is_none()) else {
            // The connection went while the home was at work, or has its session already: this one goes.
            return self.detach_unseen(asker.edge, at, session);
        };
        let (conn, stream) = (at_edge.conn, at_edge.stream);
        self.edge.attach(asker.edge, Home { user: at.user, slot: at.slot, session });
        self.log_in_ended(conn, stream);
        let jid = full(&jid, &resource);
        let fields = LoggedInAs {
            user: at.user,
            jid: &jid,
            session,
            resume: &resume,
            resume_within_ms: self.settings.limits.resume_ms,
            resumed,
            data: &data,
        };
        self.frames.clear();
        self.encoder.logged_in(&mut self.frames, Tag { stream, request: asker.request }, &fields);
        self.out.lines.append(conn.slot, &self.frames);
    }

    /// A home has something for a session.
    pub(super) fn tell(&mut self, edge: EdgeRef, event: SessionEvent) {
        if !self.asked.answered(edge, request_of(&event)) {
            return;
        }
        let Some(session) = self.edge.get(edge) else { return };
        let (conn, stream) = (session.conn, session.stream);
        self.frames.clear();
        let (out, encoder) = (&mut self.frames, &mut self.encoder);
        match event {
            // Only the answer about an account comes unasked.
            SessionEvent::Done { request: 0 } => return,
            SessionEvent::Error { request, reason, detail } => {
                return self.request_failed(edge, request, reason, &detail);
            }
            SessionEvent::Roster { request, items, version } => {
                let text = version.map(version_text);
                encoder.roster(out, Tag { stream, request }, items.iter().map(contact), text.as_deref());
                self.out.lines.append(conn.slot, &self.frames);
                if let Some(last) = items.last().filter(|_| version.is_none()) {
                    let ask = Box::new(Ask::RosterGet { after: Some(last.jid.clone()), kept: String::new() });
                    self.edge.goes_on(Rest { asker: Asker { edge, request }, ask }, &mut self.out);
                }
                return;
            }
            SessionEvent::Pause(ask) => {
                return self.edge.goes_on(Rest { asker: Asker { edge, request: 0 }, ask }, &mut self.out);
            }
            SessionEvent::Events(events) => return self.edge.send_events(edge.slot, &events, &mut self.out),
            SessionEvent::Probed { publisher } => return self.edge.probed(edge, publisher, &self.homes, &mut self.out),
            SessionEvent::Ended(reason) => return self.session_ended(edge, reason),
            event => write(encoder, out, stream, event),
        }
        self.out.lines.append(conn.slot, &self.frames);
    }

    /// Sends an error frame; one whose reason closes also ends the connection.
    pub(super) fn say_error(&mut self, conn: crate::base::id::ConnId, tag: Tag, reason: Reason, detail: &str) {
        self.recorder.dropped.count(reason);
        self.frames.clear();
        self.encoder.error(&mut self.frames, tag, reason, detail);
        self.out.lines.append(conn.slot, &self.frames);
    }
}

/// What becomes one frame and nothing else.
fn write(encoder: &mut Encoder, out: &mut Vec<u8>, stream: u32, event: SessionEvent) {
    let tag = Tag::stream(stream);
    match event {
        SessionEvent::Done { request } => encoder.done(out, Tag { stream, request }),
        SessionEvent::Subscription { action, from, user, note } => {
            let fields = SubscriptionFields {
                action: native::Action(action as u8),
                jid: from.as_str(),
                user,
                note: &note.text,
                extensions: &note.extensions,
            };
            encoder.subscription_event(out, tag, &fields);
        }
        SessionEvent::RosterUnchanged { request, version } => {
            encoder.roster_unchanged(out, Tag { stream, request }, &version_text(version));
        }
        SessionEvent::RosterPush { item, version } => encoder.roster_push(out, tag, &contact(&item), &version_text(version)),
        SessionEvent::Document { request, jid, name, data, access } => {
            encoder.document(out, Tag { stream, request }, jid.as_str(), &name, &data, access);
        }
        SessionEvent::DocumentChanged { jid, name, data } => encoder.document_changed(out, tag, jid.as_str(), &name, &data),
        SessionEvent::LastSeen { request, jid, seconds, status } => {
            encoder.last_seen(out, Tag { stream, request }, jid.as_str(), seconds, &status);
        }
        SessionEvent::BlockList { request, jids } => {
            let jids: Vec<&str> = jids.iter().map(Bare::as_str).collect();
            encoder.block_list(out, Tag { stream, request }, &jids);
        }
        SessionEvent::BlockPush { jid, blocked } => encoder.block_push(out, tag, jid.as_str(), blocked),
        SessionEvent::Message { number, message } => {
            let to = message.to_resource.as_ref().map_or(message.to.to_string(), |resource| full(&message.to, resource));
            let from = full(&message.from, &message.from_resource);
            let Content { kind, id, body, extensions } = &message.content;
            let (kind, stamp, copy) = (*kind, message.stamp.0, message.copy);
            let fields = MessageFields { from: &from, to: &to, id, body, number, kind, extensions, stamp, copy };
            encoder.message(out, tag, &fields);
        }
        SessionEvent::Directed(directed) => {
            let from = full(&directed.from, &directed.from_resource);
            encoder.directed_from(out, tag, &from, &directed.presence);
        }
        SessionEvent::Transfer { address } => encoder.transfer(out, tag, &address),
        SessionEvent::Roster { .. }
        | SessionEvent::Error { .. }
        | SessionEvent::Events(_)
        | SessionEvent::Pause(_)
        | SessionEvent::Probed { .. }
        | SessionEvent::Ended(_) => unreachable!("the caller handles these itself"),
    }
}

/// A full JID.
fn full(bare: &Bare, resource: &str) -> String {
    format!("{bare}/{resource}")
}

fn contact(item: &Contact) -> encode::Contact<'_> {
    let subscription = match (item.state.has(State::TO), item.state.has(State::FROM)) {
        (false, false) => native::SubscriptionState::None,
        (true, false) => native::SubscriptionState::To,
        (false, true) => native::SubscriptionState::From,
        (true, true) => native::SubscriptionState::Both,
    };
    encode::Contact {
        jid: item.jid.as_str(),
        user: item.user,
        name: &item.name,
        groups: &item.groups,
        subscription,
        ask: item.state.has(State::PENDING_OUT),
        approved: item.state.has(State::APPROVED),
        removed: item.removed,
    }
}
