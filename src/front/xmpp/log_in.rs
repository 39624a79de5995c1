//! From an open stream to a session: STARTTLS, SASL (RFC 6120 5 and 6), the resource (7). The core decides; here are the words.

use super::reasons::{self, BAD_REQUEST, Failure};
use super::sasl2::Wish;
use super::stanza::{self, iq_kind};
use super::stream::End;
use super::{Mark, Question, Stage, StartTls, Turn, Xmpp, names};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::front::binding::{END_POINT, EXPORTER};
use crate::front::sasl;
use crate::front::translate::Core;
use crate::wire::encode::{LogInFields, Tag};
use crate::wire::native::{Authenticated, Hello, LoggedIn};
use crate::wire::xml::{self, Element, Reader};
use base64::{Engine, prelude::BASE64_STANDARD};

/// Mechanisms that XMPP clients get to see, the best first. Others in Hello are for native clients.
const MECHANISMS: [&str; 5] = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"];
/// The same of those for tokens (XEP-0484), which are offered with a log-in of SASL 2 alone.
const HASHED: [&str; 2] = ["HT-SHA-256-EXPR", "HT-SHA-256-NONE"];
/// Log-ins of one stream that fail before the core hears of them. At the limit: `policy-violation`.
const FAULTS: u8 = 8;

/// A connection that has no session yet.
#[derive(Default)]
pub(super) struct Entry {
    /// Those of `MECHANISMS` that the core has.
    pub mechanisms: Vec<&'static str>,
    /// Those of `HASHED` that it has.
    pub hashed: Vec<&'static str>,
    /// What the bound ones of `mechanisms` can be bound to.
    bindings: Vec<&'static str>,
    /// The mechanism whose first message was asked for.
    begun: Option<&'static str>,
    /// Who the stream's opening says it's from.
    pub from: Option<Box<str>>,
    /// What is to come with the log-in under way, if it's one of SASL 2.
    pub wish: Option<Box<Wish>>,
    /// The client has given up the exchange that the core is about to end.
    aborted: bool,
    faults: u8,
    /// What came while the core decides.
    held: Vec<u8>,
    /// Over WebSocket: where each of the held messages ends.
    ends: Vec<usize>,
}

impl Entry {
    pub fn heap_bytes(&self) -> usize {
        let wish = self.wish.as_ref().map_or(0, |_| size_of::<Wish>());
        let names = self.mechanisms.capacity() + self.hashed.capacity() + self.bindings.capacity();
        size_of::<Entry>() + wish + self.held.capacity() + names * size_of::<&str>()
    }

    /// RFC 6120 6.4.1, XEP-0440.
    pub fn write_mechanisms(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
        write_names(out, &self.mechanisms);
        out.extend_from_slice(b"</mechanisms>");
        if self.mechanisms.iter().any(|mechanism| mechanism.ends_with("-PLUS")) {
            out.extend_from_slice(b"<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
            for kind in &self.bindings {
                out.extend_from_slice(b"<channel-binding type='");
                out.extend_from_slice(kind.as_bytes());
                out.extend_from_slice(b"'/>");
            }
            out.extend_from_slice(b"</sasl-channel-binding>");
        }
    }
}

/// Those that were offered, in their own order.
fn those_of<'a>(known: &[&'static str], offered: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let offered: Vec<&str> = offered.collect();
    known.iter().copied().filter(|name| offered.contains(name)).collect()
}

pub(super) fn write_names(out: &mut Vec<u8>, mechanisms: &[&str]) {
    for mechanism in mechanisms {
        out.extend_from_slice(b"<mechanism>");
        out.extend_from_slice(mechanism.as_bytes());
        out.extend_from_slice(b"</mechanism>");
    }
}

impl Xmpp {
    pub(super) fn entry(&mut self) -> &mut Entry {
        self.entry.get_or_insert_default()
    }

    /// What comes while the core decides waits; it was sent too early, but not wrongly.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> Result<(), End> {
        let most = self.rules.stanza_bytes;
        if bytes.is_empty() {
            return Ok(());
        }
        let held = &mut self.entry().held;
        if held.len() + bytes.len() > most {
            return Err(End::saying("policy-violation", "too much was sent before the log-in was over", Reason::Flood));
        }
        held.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn hold_message(&mut self, text: &str) -> Result<(), End> {
        self.hold(text.as_bytes())?;
        let entry = self.entry();
        entry.ends.push(entry.held.len());
        Ok(())
    }

    /// What was held, when the core has decided.
    pub(super) fn held(&mut self) -> Option<(Vec<u8>, Vec<usize>)> {
        let entry = self.entry.as_mut()?;
        if entry.held.is_empty() {
            return None;
        }
        Some((std::mem::take(&mut entry.held), std::mem::take(&mut entry.ends)))
    }

    /// The core's mechanisms.
    pub(super) fn greeted(&mut self, hello: Hello<'_>) {
        let (offered, bindings) = (hello.mechanisms(), hello.bindings());
        let entry = self.entry();
        entry.mechanisms = those_of(&MECHANISMS, offered.into_iter().flatten());
        entry.hashed = those_of(&HASHED, offered.into_iter().flatten());
        entry.bindings = those_of(&[EXPORTER, END_POINT], bindings.into_iter().flatten());
        self.stage = Stage::Open;
    }

    /// An element of a stream that nobody has logged in on.
    pub(super) fn before_log_in(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let name = element.name.as_str();
        match (element.namespace.as_str(), name) {
            (names::TLS, "starttls") => self.start_tls(turn),
            (names::SASL, "auth") if self.stage == Stage::Open && !self.must_be_private() => self.auth(element, turn),
            (names::SASL2, "authenticate") if self.stage == Stage::Open && !self.must_be_private() => {
                self.authenticate(element, turn)
            }
            (ours, "response") if self.stage == Stage::Challenged && ours == self.sasl() => self.respond(element, turn),
            (ours, "abort") if self.stage == Stage::Challenged && ours == self.sasl() => self.abort(turn),
            // RFC 6120 6.5.5.
            (other @ (names::SASL | names::SASL2), "auth" | "authenticate") if self.must_be_private() => {
                self.fail_in(other, "encryption-required", turn.replies)
            }
            (other @ (names::SASL | names::SASL2), _) => self.fail_in(other, "malformed-request", turn.replies),
            _ if self.is_registration(element) => self.registration(element, turn),
            _ => Err(End::saying("not-authorized", "log in first", Reason::OutOfOrder)),
        }
    }

    /// RFC 6120 5.4.2.
    fn start_tls(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        if self.private || self.rules.start_tls == StartTls::No || !self.can_start_tls() || self.stage != Stage::Open {
            turn.say(Mark::Words, |out| out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
            self.stage = Stage::Closing;
            self.write_closing(turn.replies);
            return Err(End::new("", Reason::OutOfOrder));
        }
        turn.say(Mark::Words, |out| out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        self.stage = Stage::Securing;
        Ok(())
    }

    /// RFC 6120 6.4.2.
    fn auth(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        self.start(element.attribute("mechanism").unwrap_or_default(), Some(element), turn)
    }

    /// A log-in by a mechanism whose first message may be there.
    pub(super) fn start(&mut self, wanted: &str, first: Option<&Element>, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let by_token = self.shows_token();
        let entry = self.entry();
        let known = if by_token { &entry.hashed } else { &entry.mechanisms };
        let Some(mechanism) = known.iter().copied().find(|known| *known == wanted) else {
            return self.fail_log_in("invalid-mechanism", turn.replies);
        };
        let Some(first) = first.filter(|first| !first.text().trim().is_empty()) else {
            // The client speaks first in all of them (RFC 6120 6.4.2): an empty challenge asks it to.
            self.entry().begun = Some(mechanism);
            self.stage = Stage::Challenged;
            turn.say(Mark::Words, |out| write_sasl(out, self.sasl(), "challenge", &[]));
            return Ok(());
        };
        match decoded(first) {
            None => self.fail_log_in("incorrect-encoding", turn.replies),
            Some(data) => self.begin(mechanism, &data, turn),
        }
    }

    /// The mechanism's first message: it names the user.
    fn begin(&mut self, mechanism: &'static str, data: &[u8], turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let Some(name) = user_name(mechanism, data) else { return self.fail_log_in("malformed-request", turn.replies) };
        let jid = Bare::new(&name)
            .filter(|jid| jid.domain() == &*self.rules.domain)
            .or_else(|| Bare::new(&format!("{name}@{}", self.rules.domain)));
        let Some(jid) = jid.filter(|jid| self.is_from(jid)) else {
            return self.fail_log_in("not-authorized", turn.replies);
        };
        self.jid = jid.as_str().into();
        self.stage = Stage::Deciding;
        let tag = self.ask(Question::LogIn).expect("nothing else waits before a log-in");
        let fields = LogInFields { jid: jid.as_str(), mechanism, data, bind_later: true, ..LogInFields::default() };
        let wish = self.entry.as_ref().and_then(|entry| entry.wish.as_ref());
        let fields = wish.map_or(fields, |wish| wish.add_to(fields));
        turn.frame(|encoder, frames| encoder.log_in(frames, tag, &fields));
        Ok(())
    }

    /// RFC 6120 6.4.3.
    fn respond(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let data = decoded(element);
        match (self.entry().begun.take(), data) {
            (Some(mechanism), Some(data)) => {
                self.stage = Stage::Open;
                self.begin(mechanism, &data, turn)
            }
            (Some(_), None) => {
                self.stage = Stage::Open;
                self.fail_log_in("incorrect-encoding", turn.replies)
            }
            // The core must hear of it either way: its exchange goes on or ends.
            (None, data) => {
                self.prove(&data.unwrap_or_default(), turn);
                Ok(())
            }
        }
    }

    fn prove(&mut self, data: &[u8], turn: &mut Turn<'_, '_>) {
        self.stage = Stage::Deciding;
        let tag = self.ask(Question::LogIn).expect("nothing else waits before a log-in");
        turn.frame(|encoder, frames| encoder.sasl_response(frames, tag, data));
    }

    /// RFC 6120 6.4.4.
    fn abort(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        if self.entry().begun.take().is_some() {
            self.stage = Stage::Open;
            return self.fail_log_in("aborted", turn.replies);
        }
        self.entry().aborted = true;
        self.prove(&[], turn);
        Ok(())
    }

    /// A log-in fails before the core hears of it.
    pub(super) fn fail_log_in(&mut self, condition: &str, replies: &mut Vec<u8>) -> Result<(), End> {
        self.fail_in(self.sasl(), condition, replies)
    }

    fn fail_in(&mut self, sasl: &str, condition: &str, replies: &mut Vec<u8>) -> Result<(), End> {
        crate::wire::frame::write_raw(replies, Mark::Words as u32, |out| write_failure(out, sasl, condition, ""));
        let is_over = self.stage == Stage::Open;
        let entry = self.entry();
        if is_over {
            entry.wish = None;
        }
        entry.faults += 1;
        if entry.faults < FAULTS {
            return Ok(());
        }
        Err(End::saying("policy-violation", Reason::TooManyAttempts.text(), Reason::TooManyAttempts))
    }

    pub(super) fn challenged(&mut self, data: &[u8], out: &mut Vec<u8>) {
        self.stage = Stage::Challenged;
        self.message_out(out, |this, out| write_sasl(out, this.sasl(), "challenge", data));
    }

    /// The log-in succeeded: the client opens its stream anew (RFC 6120 6.4.6).
    pub(super) fn authenticated(&mut self, authenticated: Authenticated<'_>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        if self.is_second() {
            return self.proven(authenticated, core, out);
        }
        let data = authenticated.data().map_or(&[][..], |data| data.bytes());
        self.message_out(out, |_, out| write_sasl(out, names::SASL, "success", data));
        self.stage = Stage::Proven;
        self.reader = Reader::default();
    }

    pub(super) fn log_in_refused(&mut self, reason: Reason, out: &mut Vec<u8>) {
        self.stage = Stage::Open;
        let condition = if std::mem::take(&mut self.entry().aborted) { "aborted" } else { reasons::sasl(reason) };
        let text = if condition == "aborted" { "" } else { reason.text() };
        self.message_out(out, |this, out| write_failure(out, this.sasl(), condition, text));
        self.entry().wish = None;
    }

    /// The namespace of the log-in under way.
    fn sasl(&self) -> &'static str {
        if self.is_second() { names::SASL2 } else { names::SASL }
    }

    /// An element of a stream whose client has logged in and has no session yet (RFC 6120 7).
    pub(super) fn before_session(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        if element.is("resume", names::MANAGEMENT) {
            return self.resume(element, turn);
        }
        let bind = element.child("bind", names::BIND);
        let (Some(bind), true) = (bind, element.is("iq", names::CLIENT) && iq_kind(element) == Some(stanza::IqKind::Set)) else {
            return Err(End::saying("not-authorized", "bind a resource first", Reason::OutOfOrder));
        };
        let id = element.attribute("id").unwrap_or_default();
        let wanted = bind.child("resource", names::BIND).map(Element::text).unwrap_or_default();
        let Some(resource) = prepared_resource(&wanted) else {
            turn.say(Mark::Stanza, |out| self.write_early_failure(out, id, BAD_REQUEST));
            return Ok(());
        };
        let tag: Tag = self.ask(Question::Bind { id: id.into() }).expect("nothing else waits before a session");
        self.stage = Stage::Binding;
        turn.frame(|encoder, frames| encoder.bind(frames, tag, &resource, &[]));
        Ok(())
    }

    /// An IQ's failure, said to who has no session yet.
    pub(super) fn write_early_failure(&self, out: &mut Vec<u8>, id: &str, failure: Failure) {
        self.open_tag(out, "iq");
        xml::attribute(out, "type", "error");
        xml::attribute(out, "id", id);
        out.push(b'>');
        failure.write(out);
        out.extend_from_slice(b"</iq>");
    }

    pub(super) fn bind_refused(&mut self, id: &str, reason: Reason, out: &mut Vec<u8>) {
        if self.is_second() {
            return self.succeeded_unbound(out);
        }
        self.stage = Stage::Unbound;
        self.message_out(out, |this, out| this.write_early_failure(out, id, reasons::failure(reason)));
    }

    /// Keeps what the core says of the session.
    pub(super) fn in_session_as(&mut self, logged_in: LoggedIn<'_>) {
        self.jid = logged_in.jid().into();
        self.stage = Stage::Bound;
        if let Some(token) = logged_in.resume().and_then(|token| token.bytes().try_into().ok()) {
            (self.token, self.within_ms) = (token, logged_in.resume_within_ms());
        }
    }

    /// The session is there.
    pub(super) fn bound(&mut self, id: &str, logged_in: LoggedIn<'_>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        if self.is_second() {
            return self.bound_as_wished(logged_in, core, out);
        }
        self.in_session_as(logged_in);
        let jid = logged_in.jid();
        self.message_out(out, |this, out| {
            this.open_tag(out, "iq");
            xml::attribute(out, "type", "result");
            xml::attribute(out, "id", id);
            out.extend_from_slice(b"><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>");
            xml::text(out, jid);
            out.extend_from_slice(b"</jid></bind></iq>");
        });
    }
}

/// What stands in a SASL element. `None`: it's not base64. A single "=" means: nothing, but said (RFC 6120 6.4.2).
fn decoded(element: &Element) -> Option<Vec<u8>> {
    match element.text().trim() {
        "=" => Some(Vec::new()),
        text => BASE64_STANDARD.decode(text).ok(),
    }
}

/// Who wants in, by a mechanism's first message. `None`: it can't be read.
fn user_name(mechanism: &str, data: &[u8]) -> Option<String> {
    if HASHED.contains(&mechanism) {
        return String::from_utf8(data.split(|&byte| byte == 0).next()?.to_vec()).ok();
    }
    let message = std::str::from_utf8(data).ok()?;
    if mechanism == "PLAIN" {
        return message.split('\0').nth(1).map(str::to_owned);
    }
    let bare = message.splitn(3, ',').nth(2)?;
    sasl::unescape(bare.split(',').next()?.strip_prefix("n=")?)
}

/// A resource in its prepared form (RFC 7622 3.4). Empty stays empty.
fn prepared_resource(wanted: &str) -> Option<String> {
    if wanted.is_empty() {
        return Some(String::new());
    }
    jid::ResourcePart::new(wanted).ok().map(|resource| resource.as_str().to_owned())
}

fn write_sasl(out: &mut Vec<u8>, sasl: &str, name: &str, data: &[u8]) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    xml::attribute(out, "xmlns", sasl);
    if data.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    out.extend_from_slice(BASE64_STANDARD.encode(data).as_bytes());
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// RFC 6120 6.5; in SASL 2 the conditions are still those of the first (XEP-0388 2.6.2).
fn write_failure(out: &mut Vec<u8>, sasl: &str, condition: &str, text: &str) {
    out.extend_from_slice(b"<failure");
    xml::attribute(out, "xmlns", sasl);
    out.extend_from_slice(b"><");
    out.extend_from_slice(condition.as_bytes());
    if sasl != names::SASL {
        xml::attribute(out, "xmlns", names::SASL);
    }
    out.extend_from_slice(b"/>");
    if !text.is_empty() {
        out.extend_from_slice(b"<text xml:lang='en'>");
        xml::text(out, text);
        out.extend_from_slice(b"</text>");
    }
    out.extend_from_slice(b"</failure>");
}
