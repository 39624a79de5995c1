//! What clients and the server say of a managed stream (XEP-0198): enable, r, a, resume. The counting is in `management`.

use super::management::{Acknowledged, Added, Counting, Kept, Stream};
use super::stream::End;
use super::{Framing, Mark, NOBODY, Question, Stage, Turn, Xmpp, names};
use crate::base::reason::Reason;
use crate::front::translate::Core;
use crate::wire::encode::Tag;
use crate::wire::native::{LoggedIn, Message};
use crate::wire::xml::{self, Element};

/// A connection whose stream goes on elsewhere.
const TAKEN_OVER: End = End::saying("conflict", "the stream was resumed on another connection", Reason::Replaced);

/// More was acknowledged than was sent.
const fn too_high(handled: u32, sent: u32) -> End {
    let end = End::saying("undefined-condition", "you acknowledged more stanzas than you were sent", Reason::BadRequest);
    End { too_high: Some((handled, sent)), ..end }
}

impl Xmpp {
    /// An element of stream management in a session.
    pub(super) fn manage(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        match element.name.as_str() {
            "enable" => self.enable(element, turn),
            "r" => self.say_handled(turn),
            "a" => return self.acknowledged(element, turn),
            _ => turn.say(Mark::Words, |out| write_failed(out, None, "unexpected-request")),
        }
        Ok(())
    }

    fn enable(&mut self, element: &Element, turn: &mut Turn<'_, '_>) {
        if self.counting.is_some() {
            return turn.say(Mark::Words, |out| write_failed(out, None, "unexpected-request"));
        }
        self.manage_from_now(resumption_wanted(element), turn.core);
        turn.say(Mark::Enabled, |out| self.write_enabled(out));
    }

    /// Begins to manage the stream, which the client wants to resume for so long; `write_enabled` says so.
    pub(super) fn manage_from_now(&mut self, wanted_ms: u32, core: &mut Core<'_>) {
        let within_ms = wanted_ms.min(self.within_ms);
        let (id, token) = ((core.random)(), if within_ms > 0 { &self.token[..] } else { &[] });
        core.xmpp.streams.insert(id, Stream::new(&self.jid, token, within_ms), core.wall_ms);
        self.counting = Some(Box::new(Counting { within_ms, ..Counting::new(id, Stream::FIRST_OWNER) }));
    }

    /// Nothing, if the stream is not managed.
    pub(super) fn write_enabled(&self, out: &mut Vec<u8>) {
        let Some(Counting { id, within_ms, .. }) = self.counting.as_deref() else { return };
        out.extend_from_slice(b"<enabled");
        xml::attribute(out, "xmlns", names::MANAGEMENT);
        if *within_ms > 0 {
            let max = (within_ms / 1000).to_string();
            for (name, value) in [("id", format!("{id:016x}")), ("resume", "true".into()), ("max", max)] {
                xml::attribute(out, name, &value);
            }
            // Another door is elsewhere.
            let is_there = matches!(self.framing, Framing::Stream) && !self.direct;
            if let Some(location) = self.rules.location.as_ref().filter(|_| is_there) {
                xml::attribute(out, "location", location);
            }
        }
        out.extend_from_slice(b"/>");
    }

    fn say_handled(&self, turn: &mut Turn<'_, '_>) {
        let stream = self.counting.as_ref().and_then(|counting| turn.core.xmpp.streams.owned(counting));
        let handled = stream.map_or(0, |stream| stream.handled);
        turn.say(Mark::Words, |out| {
            out.extend_from_slice(b"<a");
            xml::attribute(out, "xmlns", names::MANAGEMENT);
            xml::attribute(out, "h", &handled.to_string());
            out.extend_from_slice(b"/>");
        });
    }

    fn acknowledged(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let Some(handled) = handled(element) else { return Err(End::new("bad-format", Reason::BadRequest)) };
        let stream = self.counting.as_ref().and_then(|counting| turn.core.xmpp.streams.owned(counting));
        match stream.map(|stream| stream.acknowledge(handled)) {
            Some(Acknowledged::Message(number)) => turn.frame(|encoder, frames| encoder.ack(frames, Tag::default(), number)),
            Some(Acknowledged::TooMuch(sent)) => return Err(too_high(handled, sent)),
            Some(Acknowledged::Nothing) | None => {}
        }
        Ok(())
    }

    /// One more stanza of the client was handled.
    pub(super) fn count_handled(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let Some(counting) = &self.counting else { return Ok(()) };
        let stream = turn.core.xmpp.streams.owned(counting).ok_or(TAKEN_OVER)?;
        stream.handled = stream.handled.wrapping_add(1);
        Ok(())
    }

    /// A client that has logged in goes on with its stream.
    pub(super) fn resume(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        if !self.take_over(element, turn.core, turn.frames)? {
            turn.say(Mark::Words, |out| write_failed(out, None, "item-not-found"));
        }
        Ok(())
    }

    /// Asks the core for the session of a stream to resume. False: there is no such stream.
    pub(super) fn take_over(&mut self, element: &Element, core: &mut Core<'_>, frames: &mut Vec<u8>) -> Result<bool, End> {
        let id = element.attribute("previd").and_then(|id| u64::from_str_radix(id, 16).ok());
        let (Some(id), Some(handled)) = (id, handled(element)) else { return Ok(false) };
        let found = core.xmpp.streams.take_over(id, &self.jid, handled);
        let Some((counting, stream, acknowledged)) = found else { return Ok(false) };
        let token = stream.token.clone();
        let received = match acknowledged {
            Acknowledged::Message(number) => number,
            Acknowledged::Nothing => 0,
            Acknowledged::TooMuch(sent) => return Err(too_high(handled, sent)),
        };
        self.counting = Some(Box::new(counting));
        self.stage = Stage::Binding;
        let tag = self.ask(Question::Resume).expect("nothing else waits before a session");
        core.xmpp.encoder.resume(frames, tag, &self.jid, &token, received);
        Ok(true)
    }

    /// The core has given the session to this connection. Presence and messages follow by themselves.
    pub(super) fn resumed(&mut self, logged_in: LoggedIn<'_>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        self.in_session_as(logged_in);
        let mut counting = self.counting.take().expect("a resumption counts");
        let Some(stream) = core.xmpp.streams.owned(&counting) else { return };
        stream.token = self.token.into();
        let (handled, again, has_lost_news) = (stream.handled, stream.rewind(), stream.has_lost_news());
        if has_lost_news {
            core.xmpp.encoder.interests_again(core.follow, Tag::request(NOBODY));
        }
        let write_resumed = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"<resumed");
            xml::attribute(out, "xmlns", names::MANAGEMENT);
            xml::attribute(out, "previd", &format!("{:016x}", counting.id));
            xml::attribute(out, "h", &handled.to_string());
            out.extend_from_slice(b"/>");
        };
        if self.is_second() {
            self.write_second_success(out, |_, out| write_resumed(out));
            self.message_out(out, |this, out| this.write_bound_features(out));
        } else {
            self.message_out(out, |_, out| write_resumed(out));
        }
        counting.on = true;
        self.counting = Some(counting);
        for stanza in again {
            self.stanza_out(out, |_, out| out.extend_from_slice(&stanza));
        }
    }

    /// The session is over; the client may bind a new one.
    pub(super) fn not_resumed(&mut self, core: &mut Core<'_>, out: &mut Vec<u8>) {
        self.stage = Stage::Unbound;
        let stream = self.counting.take().and_then(|counting| core.xmpp.streams.remove(&counting));
        let handled = stream.map(|stream| stream.handled);
        if self.is_second() {
            return self.binds_instead(handled, core, out);
        }
        self.message_out(out, |_, out| write_failed(out, handled, "item-not-found"));
    }

    /// Ends the stream for good: the client has closed it.
    pub(super) fn forget_stream(&mut self, core: &mut Core<'_>) {
        if let Some(counting) = self.counting.take() {
            core.xmpp.streams.remove(&counting);
        }
    }

    /// A message that the core keeps until it is acknowledged.
    pub(super) fn write_counted_message(&mut self, out: &mut Vec<u8>, message: &Message<'_>) {
        if let Some(counting) = self.counting.as_mut().filter(|counting| counting.on) {
            counting.count(Some(Kept::Message(message.number())));
        }
        self.message_out(out, |this, out| this.write_message(out, message));
    }

    /// What went out is noted with the stream, and the client is asked whether it has it.
    pub(super) fn tell_stream(&mut self, core: &mut Core<'_>, out: &mut Vec<u8>) {
        let Some(counting) = self.counting.as_mut().filter(|counting| counting.sent > 0) else { return };
        match core.xmpp.streams.add(counting) {
            Added::Ours { asks: false } => {}
            Added::Ours { asks: true } => self.message_out(out, |_, out| out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>")),
            Added::NotOurs => {
                self.stage = Stage::Closed;
                core.end = Some(Reason::Replaced);
            }
            Added::TooMuch if self.stage != Stage::Closed => {
                self.ended(Reason::Flood, out);
                core.end = Some(Reason::NeverReads);
            }
            Added::TooMuch => {}
        }
    }
}

/// XEP-0198 3: for how many milliseconds at most a stream that is to be managed is to be resumable; 0: not at all.
pub(super) fn resumption_wanted(enable: &Element) -> u32 {
    let max = enable.attribute("max").and_then(|seconds| seconds.parse::<u32>().ok());
    match enable.attribute("resume") {
        Some("true" | "1") => max.map_or(u32::MAX, |seconds| seconds.saturating_mul(1000)),
        _ => 0,
    }
}

/// How many stanzas the client has handled. `None`: it does not say.
fn handled(element: &Element) -> Option<u32> {
    element.attribute("h")?.parse().ok()
}

pub(super) fn write_failed(out: &mut Vec<u8>, handled: Option<u32>, condition: &str) {
    out.extend_from_slice(b"<failed");
    xml::attribute(out, "xmlns", names::MANAGEMENT);
    if let Some(handled) = handled {
        xml::attribute(out, "h", &handled.to_string());
    }
    out.extend_from_slice(b"><");
    out.extend_from_slice(condition.as_bytes());
    xml::attribute(out, "xmlns", names::STANZA_ERRORS);
    out.extend_from_slice(b"/></failed>");
}
