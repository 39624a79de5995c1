//! The stream: its opening, what it offers, how it ends (RFC 6120 4; RFC 7395 3 over WebSocket).

use super::log_in::Entry;
use super::management::Kept;
use super::reasons;
use super::{Framing, Mark, Question, Stage, StartTls, Turn, Xmpp, disco, names};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::xml::{self, Element, Fault, Header, Item};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Longest name of a language that is remembered (RFC 5646 4.4.1), in bytes. At the limit: the stream has none.
const LANGUAGE_BYTES: usize = 35;

/// What an XMPP client calls itself to the core.
const SOFTWARE: &str = "xmpp";

/// Why a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// The stream error; empty: there is none.
    pub condition: &'static str,
    pub text: &'static str,
    /// What the core is told.
    pub reason: Reason,
    /// XEP-0198 4: how many stanzas the client says it has, and how many it was sent.
    pub too_high: Option<(u32, u32)>,
}

impl End {
    /// The client has closed its stream.
    pub const GOOD_BYE: End = End::new("", Reason::LoggedOut);

    pub const fn new(condition: &'static str, reason: Reason) -> End {
        End::saying(condition, "", reason)
    }

    pub const fn saying(condition: &'static str, text: &'static str, reason: Reason) -> End {
        End { condition, text, reason, too_high: None }
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        let reason = if fault == Fault::TooLarge { Reason::FrameTooLarge } else { Reason::BadFrame };
        End::saying(fault.condition(), fault.text(), reason)
    }
}

impl Xmpp {
    /// The peer's opening (RFC 6120 4.7).
    pub(super) fn opened(&mut self, header: &Header, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let tag = &header.tag;
        let is_ours = match self.framing {
            Framing::Stream => tag.is("stream", names::STREAM) && header.content == names::CLIENT,
            Framing::Messages(_) => tag.is("open", names::FRAMING),
        };
        if !is_ours {
            return Err(End::new("invalid-namespace", Reason::BadFrame));
        }
        if !tag.attribute("version").is_some_and(|version| version.starts_with("1.")) {
            return Err(End::saying("unsupported-version", "this server speaks version 1.0", Reason::UnknownVersion));
        }
        if !tag.attribute("to").is_none_or(|to| self.is_domain(to)) {
            return Err(End::saying("host-unknown", "this server has another name", Reason::BadJid));
        }
        self.language = tag.language().filter(|language| is_language(language)).unwrap_or_default().into();
        let id = (turn.core.random)();
        let from = tag.attribute("from").and_then(Bare::new);
        turn.say(Mark::Words, |out| self.write_opening(out, id, from.as_ref()));
        if self.stage == Stage::Proven {
            self.stage = Stage::Unbound;
            turn.say(Mark::Words, |out| self.write_session_features(out));
        } else if self.must_be_private() {
            self.stage = Stage::Open;
            turn.say(Mark::Words, |out| {
                let required = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>";
                self.write_features(out, if self.can_start_tls() { required.as_bytes() } else { b"" })
            });
        } else {
            self.stage = Stage::Greeting;
            self.entry().from = from.map(|from| from.as_str().into());
            let tag = self.ask(Question::Hello).expect("nothing waits on a new stream");
            turn.frame(|encoder, frames| encoder.hello(frames, tag, SOFTWARE));
        }
        Ok(())
    }

    pub(super) fn must_be_private(&self) -> bool {
        !self.private && self.rules.start_tls == StartTls::Required
    }

    /// Whether TLS can begin within the stream: over a WebSocket it can't, and isn't offered (RFC 7395 3.9).
    pub(super) fn can_start_tls(&self) -> bool {
        matches!(self.framing, Framing::Stream)
    }

    /// Whether a name is the one of this server, in whatever case.
    pub(super) fn is_domain(&self, name: &str) -> bool {
        *name == *self.rules.domain
            || Bare::new(&format!("a@{name}")).is_some_and(|prepared| prepared.domain() == &*self.rules.domain)
    }

    /// Over WebSocket, the stream's opening and closing are elements.
    pub(super) fn message_item(&self, element: Element) -> Item {
        match element {
            tag if tag.is("open", names::FRAMING) || matches!(self.stage, Stage::Opening | Stage::Proven) => {
                Item::Header(Header { tag, content: names::CLIENT.to_owned() })
            }
            tag if tag.is("close", names::FRAMING) => Item::End,
            element => Item::Element(element),
        }
    }

    /// The server's own opening; `to`: who the client's says it is from (RFC 6120 4.7.2).
    fn write_opening(&self, out: &mut Vec<u8>, id: u64, to: Option<&Bare>) {
        match self.framing {
            Framing::Stream => {
                out.extend_from_slice(b"<?xml version='1.0'?><stream:stream");
                xml::attribute(out, "xmlns", names::CLIENT);
                xml::attribute(out, "xmlns:stream", names::STREAM);
            }
            Framing::Messages(_) => {
                out.extend_from_slice(b"<open");
                xml::attribute(out, "xmlns", names::FRAMING);
            }
        }
        xml::attribute(out, "from", &self.rules.domain);
        if let Some(to) = to {
            xml::attribute(out, "to", to.as_str());
        }
        xml::attribute(out, "id", &BASE64_URL_SAFE_NO_PAD.encode(id.to_le_bytes()));
        out.extend_from_slice(b" version='1.0' xml:lang='en'");
        out.extend_from_slice(if matches!(self.framing, Framing::Stream) { b">" } else { b"/>" });
    }

    pub(super) fn write_features(&self, out: &mut Vec<u8>, features: &[u8]) {
        self.stream_tag(out, "features");
        out.extend_from_slice(features);
        out.extend_from_slice(b"</stream:features>");
    }

    /// What is offered before a log-in, with these mechanisms.
    pub(super) fn write_log_in_features(&self, out: &mut Vec<u8>, entry: &Entry) {
        let mut features = Vec::new();
        if !self.private && self.rules.start_tls == StartTls::Offered && self.can_start_tls() {
            features.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        }
        entry.write_mechanisms(&mut features);
        entry.write_authentication(&mut features);
        if self.rules.registration {
            features.extend_from_slice(b"<register xmlns='http://jabber.org/features/iq-register'/>");
        }
        self.write_limits(&mut features);
        self.write_features(out, &features);
    }

    /// What is offered to who has logged in.
    pub(super) fn write_session_features(&self, out: &mut Vec<u8>) {
        self.write_features_of_session(
            out,
            b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
              <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session><sm xmlns='urn:xmpp:sm:3'/>",
        );
    }

    /// What is offered to who has a session already.
    pub(super) fn write_bound_features(&self, out: &mut Vec<u8>) {
        self.write_features_of_session(out, b"");
    }

    fn write_features_of_session(&self, out: &mut Vec<u8>, to_have_one: &[u8]) {
        let mut features = to_have_one.to_vec();
        features.extend_from_slice(
            b"<sub xmlns='urn:xmpp:features:pre-approval'/><ver xmlns='urn:xmpp:features:rosterver'/>\
              <csi xmlns='urn:xmpp:csi:0'/>",
        );
        disco::write_own(&mut features);
        self.write_limits(&mut features);
        self.write_features(out, &features);
    }

    /// XEP-0478.
    fn write_limits(&self, out: &mut Vec<u8>) {
        let limits =
            format!("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>{}</max-bytes></limits>", self.rules.stanza_bytes);
        out.extend_from_slice(limits.as_bytes());
    }

    /// An element whose name has the stream's prefix, up to its content.
    fn stream_tag(&self, out: &mut Vec<u8>, name: &str) {
        out.extend_from_slice(b"<stream:");
        out.extend_from_slice(name.as_bytes());
        if let Framing::Messages(_) = self.framing {
            xml::attribute(out, "xmlns:stream", names::STREAM);
        }
        out.push(b'>');
    }

    pub(super) fn write_error(&self, out: &mut Vec<u8>, end: &End) {
        let End { condition, text, too_high, .. } = *end;
        self.stream_tag(out, "error");
        out.push(b'<');
        out.extend_from_slice(condition.as_bytes());
        xml::attribute(out, "xmlns", names::STREAM_ERRORS);
        out.extend_from_slice(b"/>");
        if !text.is_empty() {
            out.extend_from_slice(b"<text");
            xml::attribute(out, "xmlns", names::STREAM_ERRORS);
            out.extend_from_slice(b" xml:lang='en'>");
            xml::text(out, text);
            out.extend_from_slice(b"</text>");
        }
        if let Some((handled, sent)) = too_high {
            let counts = format!("<handled-count-too-high xmlns='{}' h='{handled}' send-count='{sent}'/>", names::MANAGEMENT);
            out.extend_from_slice(counts.as_bytes());
        }
        out.extend_from_slice(b"</stream:error>");
    }

    pub(super) fn close_tag(&self) -> &'static [u8] {
        match self.framing {
            Framing::Stream => b"</stream:stream>",
            Framing::Messages(_) => b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
        }
    }

    pub(super) fn write_closing(&self, replies: &mut Vec<u8>) {
        crate::wire::frame::write_raw(replies, Mark::Last as u32, |out| out.extend_from_slice(self.close_tag()));
    }

    /// Ends the stream for a fault of the peer: the stream error, behind an opening if there was none (RFC 6120 4.9.1.2).
    pub(super) fn end(&mut self, end: &End, replies: &mut Vec<u8>) {
        if end.condition.is_empty() {
            return;
        }
        let mut say = |mark: Mark, write: &dyn Fn(&mut Vec<u8>)| crate::wire::frame::write_raw(replies, mark as u32, write);
        if matches!(self.stage, Stage::Opening | Stage::Proven) {
            say(Mark::Words, &|out| self.write_opening(out, 0, None));
        }
        say(Mark::Words, &|out| self.write_error(out, end));
        self.write_closing(replies);
        self.stage = Stage::Closing;
    }

    /// Ends the stream because the core says so: appended to what goes out.
    pub(super) fn ended(&mut self, reason: Reason, out: &mut Vec<u8>) {
        if matches!(self.stage, Stage::Opening | Stage::Proven) {
            self.message_out(out, |this, out| this.write_opening(out, 0, None));
        }
        self.message_out(out, |this, out| this.write_error(out, &End::saying(reasons::stream(reason), reason.text(), reason)));
        self.message_out(out, |this, out| out.extend_from_slice(this.close_tag()));
        self.stage = Stage::Closed;
    }

    /// The stream goes on at another address (RFC 6120 4.9.3.19; RFC 7395 3.6.1 over WebSocket, where it is a URI: an address
    /// without a scheme stands for the same door there).
    pub(super) fn write_other_host(&self, out: &mut Vec<u8>, address: &str) {
        if let Framing::Messages(_) = self.framing {
            out.extend_from_slice(b"<close");
            xml::attribute(out, "xmlns", names::FRAMING);
            let uri = match address.contains("://") {
                true => address.to_owned(),
                false => format!("{}://{address}/xmpp-websocket", if self.private { "wss" } else { "ws" }),
            };
            xml::attribute(out, "see-other-uri", &uri);
            return out.extend_from_slice(b"/>");
        }
        out.extend_from_slice(b"<stream:error><see-other-host");
        xml::attribute(out, "xmlns", names::STREAM_ERRORS);
        out.push(b'>');
        xml::text(out, address);
        out.extend_from_slice(b"</see-other-host></stream:error></stream:stream>");
    }

    /// Appends a stanza. A managed stream counts it, and keeps it until the client has it.
    pub(super) fn stanza_out(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&Xmpp, &mut Vec<u8>)) {
        let from = out.len();
        write(self, out);
        if let Some(counting) = self.counting.as_mut().filter(|counting| counting.on) {
            counting.count(Some(Kept::Stanza(out[from..].into())));
        }
        if let Framing::Messages(frame) = self.framing {
            frame(out, from);
        }
    }

    /// Appends one element, as a message of its own where there are messages.
    pub(super) fn message_out(&self, out: &mut Vec<u8>, write: impl FnOnce(&Xmpp, &mut Vec<u8>)) {
        let from = out.len();
        write(self, out);
        if let Framing::Messages(frame) = self.framing {
            frame(out, from);
        }
    }
}

/// Whether a text can be the name of a language (RFC 5646 2.1).
fn is_language(text: &str) -> bool {
    let is_subtag = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LANGUAGE_BYTES && text.split('-').all(is_subtag)
}
