//! What the server's frames become: answers, events, goodbyes.

use super::reasons::failure;
use super::{Mark, Question, Stage, Turn, Xmpp, roster};
use crate::base::reason::Reason;
use crate::front::translate::Core;
use crate::wire::decode::{self, ServerFrame};
use crate::wire::encode::Tag;
use crate::wire::frame::{self, Frame};
use crate::wire::native::Roster;

impl Xmpp {
    /// Frames of the core become stanzas.
    pub(super) fn translate(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>) {
        let mut received = None;
        core.xmpp.opening.clear();
        for frame in frame::each_whole(frames) {
            if self.stage == Stage::Closed {
                return;
            }
            match frame.header.kind {
                frame::RAW if frame.header.request == Mark::Presence as u32 => self.copy_event(out, frame.raw(), core),
                frame::RAW => self.own_words(&frame, out),
                kind => match decode::from_server(kind, frame.body).expect("a frame of our own") {
                    ServerFrame::Message(message) => {
                        self.write_counted_message(out, &message);
                        received = Some(message.number());
                    }
                    frame_of_server => self.one(frame.header.request, frame_of_server, core, out),
                },
            }
        }
        if let Some(received) = received.filter(|_| self.counting.is_none()) {
            core.xmpp.encoder.ack(core.follow, Tag::default(), received);
        }
    }

    /// What came too early is read when its time has come.
    pub(super) fn go_on(&mut self, core: &mut Core<'_>, out: &mut Vec<u8>) {
        while !self.waits()
            && let Some((bytes, ends)) = self.held()
        {
            let (mut frames, mut replies) = (std::mem::take(core.follow), Vec::new());
            let mut turn = Turn { core, frames: &mut frames, replies: &mut replies };
            let read = match ends.is_empty() {
                true => self.read(&bytes, &mut turn),
                false => self.read_messages(&bytes, &ends, &mut turn),
            };
            if let Err(reason) = self.concluded(read, &mut replies) {
                core.end = Some(reason);
            }
            *core.follow = frames;
            self.translate(&replies, core, out);
        }
        if self.stage == Stage::Bound {
            self.entry = None;
        }
    }

    fn read_messages(&mut self, bytes: &[u8], ends: &[usize], turn: &mut Turn<'_, '_>) -> Result<(), super::End> {
        let mut start = 0;
        for &end in ends {
            let text = std::str::from_utf8(&bytes[start..end]).expect("it came as text");
            self.read_message(text, turn)?;
            start = end;
        }
        Ok(())
    }

    fn own_words(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        const STANZA: u32 = Mark::Stanza as u32;
        const LAST: u32 = Mark::Last as u32;
        const ENABLED: u32 = Mark::Enabled as u32;
        match frame.header.request {
            STANZA => return self.stanza_out(out, |_, out| out.extend_from_slice(frame.raw())),
            LAST => self.stage = Stage::Closed,
            ENABLED => self.counting.iter_mut().for_each(|counting| counting.on = true),
            _ => {}
        }
        self.message_out(out, |_, out| out.extend_from_slice(frame.raw()));
    }

    fn one(&mut self, request: u32, frame: ServerFrame<'_>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        match frame {
            ServerFrame::Event(event) => self.write_event(out, &event, core),
            ServerFrame::EventBatch(batch) => {
                batch.iter().flatten().for_each(|event| self.write_event(out, &event, core));
            }
            ServerFrame::Done => match self.asked(request) {
                Some(Question::Iq { id, from }) => {
                    self.stanza_out(out, |this, out| this.write_result(out, &id, &from, |_| {}));
                }
                Some(Question::Block(blocking)) => self.blocked(request, blocking, None, out),
                Some(Question::Published { id, from, node, item }) => self.published(&id, &from, &node, &item, out),
                Some(Question::Register { id }) => self.registered(&id, None, out),
                _ => {}
            },
            ServerFrame::Document(document) => match self.asked(request) {
                Some(Question::Document(shelf)) => self.document(&shelf, document.data().map_or(&[][..], |data| data.bytes()), out),
                Some(Question::Node(visit)) => self.visited(*visit, Some(document), core, out),
                _ => {}
            },
            ServerFrame::DocumentChanged(changed) => self.news(&changed, out),
            ServerFrame::BlockPush(push) => self.push_blocks(std::iter::once(push.jid()), push.blocked(), out),
            ServerFrame::BlockList(list) if request == 0 => self.push_block_list(&list, out),
            ServerFrame::BlockList(list) => {
                if let Some(Question::BlockList { id, from }) = self.asked(request) {
                    self.stanza_out(out, |this, out| this.write_block_list(out, &id, &from, &list));
                }
            }
            ServerFrame::LastSeen(seen) => match self.asked(request) {
                Some(Question::LastSeen { id, from }) => {
                    self.stanza_out(out, |this, out| this.write_last_seen(out, &id, &from, &seen));
                }
                Some(Question::Account { id, from, node }) => self.account_asked((&id, &from, &node), None, out),
                _ => {}
            },
            ServerFrame::Error(error) => {
                let reason = Reason::from_number(error.reason()).unwrap_or(Reason::BadRequest);
                self.failed(request, reason, core, out);
            }
            ServerFrame::Roster(roster) => self.roster_piece(request, &roster, out),
            ServerFrame::RosterPush(push) => self.roster_push(push.item(), push.version(), out),
            ServerFrame::SubscriptionEvent(event) => self.stanza_out(out, |this, out| this.write_subscription(out, &event)),
            ServerFrame::DirectedPresence { from, presence } => {
                self.stanza_out(out, |this, out| this.write_directed(out, from, &presence.fields()));
            }
            ServerFrame::Ping(ping) => self.ping(ping.data(), out),
            ServerFrame::Transfer(transfer) => self.transfer(transfer.address(), core, out),
            frame => self.entering(request, frame, core, out),
        }
    }

    /// What is said to who has no session yet.
    fn entering(&mut self, request: u32, frame: ServerFrame<'_>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        let question = self.asked(request);
        match (frame, question) {
            (ServerFrame::Hello(hello), Some(Question::Hello)) => {
                self.greeted(hello);
                self.message_out(out, |this, out| this.write_log_in_features(out, this.entry.as_ref().expect("just greeted")));
            }
            (ServerFrame::SaslChallenge(challenge), Some(Question::LogIn)) => {
                self.challenged(challenge.data().map_or(&[][..], |data| data.bytes()), out);
            }
            (ServerFrame::Authenticated(authenticated), Some(Question::LogIn)) => {
                self.authenticated(authenticated, core, out);
            }
            (ServerFrame::LoggedIn(logged_in), Some(Question::Bind { id })) => self.bound(&id, logged_in, core, out),
            (ServerFrame::LoggedIn(logged_in), Some(Question::Resume)) => self.resumed(logged_in, core, out),
            _ => {}
        }
    }

    fn failed(&mut self, request: u32, reason: Reason, core: &mut Core<'_>, out: &mut Vec<u8>) {
        if reason.closes() || request == 0 && ends_session(reason) {
            if !reason.closes() {
                core.end = Some(reason);
            }
            return self.ended(reason, out);
        }
        let question = self.asked(request);
        match question {
            Some(Question::LogIn) => self.log_in_refused(reason, out),
            Some(Question::Bind { id }) => self.bind_refused(&id, reason, out),
            Some(Question::Resume) => self.not_resumed(core, out),
            Some(Question::Register { id }) => self.registered(&id, Some(reason), out),
            Some(Question::Block(blocking)) => self.blocked(request, blocking, Some(reason), out),
            Some(Question::Document(shelf)) => self.no_document(&shelf, failure(reason), out),
            Some(Question::Node(visit)) if reason == Reason::NotFound => self.visited(*visit, None, core, out),
            Some(Question::Node(visit)) => self.not_visited(*visit, failure(reason), out),
            Some(
                Question::Published { id, from, .. }
                | Question::Iq { id, from }
                | Question::BlockList { id, from }
                | Question::LastSeen { id, from },
            ) => self.say_failure(out, "iq", &id, &from, reason),
            Some(Question::Account { id, from, node }) => self.account_asked((&id, &from, &node), Some(reason), out),
            Some(Question::Asking { id, to }) => self.say_failure(out, "iq", &id, &to, reason),
            Some(Question::Roster(gathering)) => self.say_failure(out, "iq", &gathering.id, &gathering.from, reason),
            Some(Question::Message { id, to }) => self.say_failure(out, "message", &id, &to, reason),
            // RFC 6121 4.3.2 and 4.6: a server says nothing about users that the client may know nothing of.
            Some(Question::Presence { .. }) if matches!(reason, Reason::NotAuthorized | Reason::NoSuchUser) => {}
            Some(Question::Presence { id, to }) => self.say_failure(out, "presence", &id, &to, reason),
            Some(Question::Hello) => {}
            // Only presence to all is sent without a number.
            None if request == 0 && self.stage == Stage::Bound => self.say_failure(out, "presence", "", "", reason),
            None => {}
        }
    }

    fn say_failure(&mut self, out: &mut Vec<u8>, name: &str, id: &str, from: &str, reason: Reason) {
        self.stanza_out(out, |this, out| this.write_failure(out, name, id, from, failure(reason)));
    }

    fn roster_piece(&mut self, request: u32, piece: &Roster<'_>, out: &mut Vec<u8>) {
        let found =
            self.waiting.iter().position(|(number, question)| *number == request && matches!(question, Question::Roster(_)));
        let Some(at) = found else {
            // After a resumption the roster comes unasked: pushes may have been missed.
            return piece.items().into_iter().flatten().for_each(|item| self.roster_push(item, None, out));
        };
        if let Question::Roster(gathering) = &mut self.waiting[at].1 {
            piece.items().into_iter().flatten().for_each(|item| roster::write_item(&mut gathering.items, item));
        }
        if !piece.more()
            && let Some(Question::Roster(gathering)) = self.asked(request)
        {
            self.write_roster(&gathering, piece, out);
        }
    }

    /// XEP-0199. A client without a session has nothing to answer with.
    fn ping(&mut self, data: u64, out: &mut Vec<u8>) {
        if self.stage == Stage::Bound {
            self.stanza_out(out, |this, out| {
                this.open_stanza(out, "iq", "get", &format!("{}{data:x}", super::iq::PING_ID), &this.rules.domain);
                out.extend_from_slice(b"><ping xmlns='urn:xmpp:ping'/></iq>");
            });
        }
    }

    /// RFC 6120 4.9.3.19; RFC 7395 3.6.1 over WebSocket.
    fn transfer(&mut self, address: &str, core: &mut Core<'_>, out: &mut Vec<u8>) {
        self.message_out(out, |this, out| this.write_other_host(out, address));
        self.stage = Stage::Closed;
        core.end = Some(Reason::ConnectionLost);
    }
}

/// Whether a session is over, though its connection is not.
fn ends_session(reason: Reason) -> bool {
    matches!(reason, Reason::Replaced | Reason::AccountRemoved | Reason::SessionWornOut | Reason::LoggedOut)
}
