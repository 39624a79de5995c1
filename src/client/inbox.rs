//! What arrived, sorted: answers to requests on one side, events on the other.
//!
//! Lives on: any thread of a client. Sans-IO: what must be sent at once (pongs, acknowledgements) is appended to a buffer.
//! Invariants: a message is handed on once, however often the server sends it; an event older than one handed on is dropped.

use super::codec::Received;
use super::values::{
    Answer, Contact, DirectedPresence, Document, Event, Greeting, LastSeen, LoggedIn, PresenceEvent, Refusal, Roster,
    SubscriptionRequest, bytes, text,
};
use super::versions::Versions;
use crate::base::id::{SessionId, UserId};
use crate::base::reason::Reason;
use crate::wire::decode::ServerFrame;
use crate::wire::encode::{Encoder, Tag};
use crate::wire::event;
use crate::wire::native as n;
use std::collections::{HashMap, VecDeque};

/// Events kept until they are asked for. At the limit: `flood`, and the connection can't be read on.
pub const EVENTS_KEPT: usize = 1 << 20;
/// Answers kept until they are asked for. At the limit: the same.
pub const ANSWERS_KEPT: usize = 1 << 16;

/// Whom an event is for: the streams of a trunk; empty on any other connection.
pub type Streams = Vec<u32>;

/// Sorts what one connection receives.
#[derive(Default)]
pub struct Inbox {
    encoder: Encoder,
    /// Absent on a trunk, where every stream is a subscriber of its own.
    versions: Option<Versions>,
    /// The number of the last message, by stream.
    received: HashMap<u32, u64>,
    pub events: VecDeque<(Streams, Event)>,
    pub answers: VecDeque<(Tag, Answer)>,
    /// Rosters of which only pieces have come, by stream and request.
    rosters: HashMap<Tag, Vec<Contact>>,
    /// Why the server closes the connection, once it has said so.
    pub ended: Option<Refusal>,
}

impl Inbox {
    /// For a connection that carries one session.
    pub fn of_session() -> Inbox {
        Inbox { versions: Some(Versions::default()), ..Inbox::default() }
    }

    /// For a trunk. It keeps no versions: on one connection events of a publisher come in order.
    pub fn of_trunk() -> Inbox {
        Inbox::default()
    }

    /// The number of the last message received on a stream, for Resume.
    pub fn received(&self, stream: u32) -> u64 {
        self.received.get(&stream).copied().unwrap_or(0)
    }

    /// Forgets a stream's messages, and what a session of its own has seen: a new one counts from 1 again, and is told all anew.
    pub fn new_session(&mut self, stream: u32) {
        self.received.remove(&stream);
        if let Some(versions) = &mut self.versions {
            *versions = Versions::default();
        }
    }

    /// Sorts a frame in. What must be sent at once is appended to `out`.
    ///
    /// Errors: `BadFrame` for a batch with a bad event; `Flood` when more is kept than may be.
    pub fn take(&mut self, received: &Received<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        if self.events.len() >= EVENTS_KEPT || self.answers.len() >= ANSWERS_KEPT {
            return Err(Reason::Flood);
        }
        let tag = received.tag;
        if let ServerFrame::Error(error) = received.frame
            && refusal(error).closes()
        {
            self.ended = Some(refusal(error));
        }
        match received.frame {
            ServerFrame::Event(event) => self.presence(&event),
            ServerFrame::EventBatch(batch) => {
                for event in batch.iter() {
                    self.presence(&event?);
                }
            }
            ServerFrame::Ping(ping) => self.encoder.pong(out, Tag::stream(tag.stream), ping.data()),
            ServerFrame::Message(message) => self.message(tag.stream, message, out),
            ServerFrame::SubscriptionEvent(event) => {
                let (user, note) = (UserId(event.user()), text(event.note()));
                let (jid, extensions) = (event.jid().to_owned(), text(event.extensions()));
                let request = SubscriptionRequest { action: event.action(), jid, user, note, extensions };
                self.event(tag.stream, Event::Subscription(request));
            }
            ServerFrame::RosterPush(push) => {
                let contact = Contact { version: text(push.version()), ..push.item().into() };
                self.event(tag.stream, Event::RosterPush(contact));
            }
            ServerFrame::DirectedPresence { from, presence } => {
                let directed = DirectedPresence { from: from.to_owned(), presence: presence.fields().into() };
                self.event(tag.stream, Event::Directed(directed));
            }
            ServerFrame::Roster(roster) => self.roster(tag, roster)?,
            ServerFrame::DocumentChanged(changed) => {
                let (jid, name, data) = (changed.jid().to_owned(), changed.name().to_owned(), bytes(changed.data()));
                self.event(tag.stream, Event::DocumentChanged(Document { jid, name, data, ..Document::default() }));
            }
            ServerFrame::BlockPush(push) => {
                self.event(tag.stream, Event::Blocked { jid: push.jid().to_owned(), blocked: push.blocked() });
            }
            ServerFrame::BlockList(list) if tag.request == 0 => self.event(tag.stream, Event::BlockList(blocked(list))),
            ServerFrame::Transfer(transfer) => self.event(tag.stream, Event::Transfer(transfer.address().to_owned())),
            ServerFrame::Error(error) if tag.request == 0 => self.event(tag.stream, Event::Refused(refusal(error))),
            answer => self.answers.extend(answer_of(answer).map(|answer| (tag, answer))),
        }
        Ok(())
    }

    /// Puts the pieces of a roster together.
    fn roster(&mut self, tag: Tag, roster: n::Roster<'_>) -> Result<(), Reason> {
        let mut contacts = self.rosters.remove(&tag).unwrap_or_default();
        contacts.extend(roster.items().into_iter().flatten().map(Contact::from));
        if roster.more() {
            let kept: usize = self.rosters.values().map(Vec::len).sum();
            if kept + contacts.len() > EVENTS_KEPT || self.rosters.len() >= ANSWERS_KEPT {
                return Err(Reason::Flood);
            }
            self.rosters.insert(tag, contacts);
            return Ok(());
        }
        let roster = Roster { contacts, version: text(roster.version()), unchanged: roster.unchanged() };
        match tag.request {
            0 => self.event(tag.stream, Event::Roster(roster)),
            _ => self.answers.push_back((tag, Answer::Roster(roster))),
        }
        Ok(())
    }

    /// The session goes on over another connection: what the old one did not finish does not come.
    pub fn reconnected(&mut self) {
        self.rosters.clear();
        self.ended = None;
    }

    fn event(&mut self, stream: u32, event: Event) {
        let streams = if stream == 0 { Streams::new() } else { vec![stream] };
        self.events.push_back((streams, event));
    }

    fn presence(&mut self, event: &event::Event<'_>) {
        if self.versions.as_mut().is_none_or(|versions| versions.is_news(&event.head)) {
            self.events.push_back((event.streams.iter().collect(), Event::Presence(PresenceEvent::from(event))));
        }
    }

    fn message(&mut self, stream: u32, message: n::Message<'_>, out: &mut Vec<u8>) {
        let last = self.received.entry(stream).or_default();
        let new = message.number() > *last;
        *last = message.number().max(*last);
        self.encoder.ack(out, Tag::stream(stream), *last);
        if new {
            self.event(stream, Event::Message(message.into()));
        }
    }
}

fn refusal(error: n::Error<'_>) -> Refusal {
    Refusal { number: error.reason(), text: text(error.text()) }
}

fn blocked(list: n::BlockList<'_>) -> Vec<String> {
    list.jids().into_iter().flatten().map(str::to_owned).collect()
}

/// The frames that answer a request; the others have been sorted out before.
fn answer_of(frame: ServerFrame<'_>) -> Option<Answer> {
    Some(match frame {
        ServerFrame::Done => Answer::Done,
        ServerFrame::Pong(_) => Answer::Pong,
        ServerFrame::Error(error) => Answer::Refused(refusal(error)),
        ServerFrame::SaslChallenge(challenge) => Answer::Challenge(bytes(challenge.data())),
        ServerFrame::Authenticated(authenticated) => {
            let token = authenticated.token().map(|token| (token.to_owned(), authenticated.token_until()));
            Answer::Authenticated(bytes(authenticated.data()), token)
        }
        ServerFrame::Document(document) => Answer::Document(Document {
            jid: document.jid().to_owned(),
            name: document.name().to_owned(),
            data: bytes(document.data()),
            access: document.access(),
        }),
        ServerFrame::LastSeen(seen) => {
            Answer::LastSeen(LastSeen { jid: seen.jid().to_owned(), seconds: seen.seconds(), status: text(seen.status()) })
        }
        ServerFrame::BlockList(list) => Answer::BlockList(blocked(list)),
        ServerFrame::Hello(hello) => Answer::Greeting(Greeting {
            version: hello.version(),
            software: text(hello.software()),
            domain: text(hello.domain()),
            mechanisms: hello.mechanisms().into_iter().flatten().map(str::to_owned).collect(),
            bindings: hello.bindings().into_iter().flatten().map(str::to_owned).collect(),
            max_frame: hello.max_frame(),
        }),
        ServerFrame::LoggedIn(logged_in) => Answer::LoggedIn(LoggedIn {
            user: UserId(logged_in.user()),
            jid: logged_in.jid().to_owned(),
            session: SessionId(logged_in.session()),
            resume: bytes(logged_in.resume()),
            resume_within_ms: logged_in.resume_within_ms(),
            resumed: logged_in.resumed(),
            data: bytes(logged_in.data()),
        }),
        _ => return None,
    })
}
