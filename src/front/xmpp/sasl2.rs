//! A log-in in one go: SASL 2 (XEP-0388), with the session bound (XEP-0386) or resumed (XEP-0198) in the same breath.
//!
//! Invariants: nothing that came with the log-in is done before it has succeeded; a resumption goes before a binding, and makes it
//! needless; the client hears of all of it in one element, with the features of what the stream is then behind it.

use super::iq::utc;
use super::log_in::{Entry, write_names};
use super::managed::{resumption_wanted, write_failed};
use super::stream::End;
use super::{Question, Stage, Turn, Xmpp, names};
use crate::base::hashed::CLIENT_BYTES;
use crate::base::jid::Bare;
use crate::front::translate::Core;
use crate::wire::encode::{LogInFields, Tag};
use crate::wire::native::{Authenticated, LoggedIn};
use crate::wire::xml::{self, Element};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

/// Longest tag that a client may put into its resource, in bytes. At the limit: it is left out.
const TAG_BYTES: usize = 128;
/// Letters of a resource that are not the client's.
const LETTERS: usize = 12;

/// What is to come with a log-in.
#[derive(Default)]
pub(super) struct Wish {
    bind: Option<Bind>,
    resume: Option<Element>,
    /// Which client it is (XEP-0388 2.3 user-agent); empty: it does not say.
    agent: Box<str>,
    /// XEP-0484: the mechanism that a token is wanted for; empty: none is.
    token_for: Box<str>,
    /// The client shows a token; how often it has, and whether it is to be the last time.
    shows: Option<(u32, bool)>,
    /// The token that comes with success, and when it ends, in milliseconds since 1970.
    token: Option<(Box<str>, u64)>,
    /// What the mechanism said with its success.
    proof: Vec<u8>,
    /// The stream to resume was not there; how much of it was handled, if that's known.
    not_resumed: Option<Option<u32>>,
}

impl Wish {
    /// What the core is to know of it.
    pub fn add_to<'a>(&'a self, fields: LogInFields<'a>) -> LogInFields<'a> {
        let (token_count, token_invalid) = self.shows.unwrap_or_default();
        LogInFields { client: &self.agent, token_for: &self.token_for, token_count, token_invalid, ..fields }
    }
}

/// XEP-0386: the session wanted, and what is to be on in it.
struct Bind {
    tag: String,
    carbons: bool,
    /// For how many milliseconds it is to be resumable, if it's to be managed.
    manage: Option<u32>,
    /// XEP-0352.
    active: bool,
}

impl Bind {
    fn read(element: &Element) -> Bind {
        let manage = element.child("enable", names::MANAGEMENT).map(resumption_wanted);
        Bind {
            tag: element.child("tag", names::BIND2).map(Element::text).unwrap_or_default(),
            carbons: element.child("enable", names::CARBONS).is_some(),
            manage,
            active: element.child("inactive", names::ACTIVITY).is_none(),
        }
    }
}

impl Entry {
    /// What is offered with the log-in (XEP-0388 2.1, XEP-0386 3.1).
    pub fn write_authentication(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<authentication xmlns='urn:xmpp:sasl:2'>");
        write_names(out, &self.mechanisms);
        out.extend_from_slice(
            b"<inline><bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:carbons:2'/>\
              <feature var='urn:xmpp:csi:0'/><feature var='urn:xmpp:sm:3'/></inline></bind><sm xmlns='urn:xmpp:sm:3'/>",
        );
        if !self.hashed.is_empty() {
            out.extend_from_slice(b"<fast xmlns='urn:xmpp:fast:0'>");
            write_names(out, &self.hashed);
            out.extend_from_slice(b"</fast>");
        }
        out.extend_from_slice(b"</inline></authentication>");
    }
}

impl Xmpp {
    /// XEP-0388 2.3.
    pub(super) fn authenticate(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let agent = element.child("user-agent", names::SASL2).and_then(|agent| agent.attribute("id")).unwrap_or_default();
        let wish = Wish {
            bind: element.child("bind", names::BIND2).map(Bind::read),
            resume: element.child("resume", names::MANAGEMENT).cloned(),
            agent: agent.into(),
            shows: element.child("fast", names::FAST).map(shown),
            ..Wish::default()
        };
        self.entry().wish = Some(Box::new(wish));
        let token_for = element.child("request-token", names::FAST).map(|asked| asked.attribute("mechanism").unwrap_or_default());
        let is_known = token_for.is_none_or(|name| self.entry().hashed.contains(&name) && !agent.is_empty());
        if agent.len() > CLIENT_BYTES || !is_known {
            return self.fail_log_in("malformed-request", turn.replies);
        }
        self.wish().token_for = token_for.unwrap_or_default().into();
        // Nothing to upgrade to was announced.
        let wanted = element.attribute("mechanism").filter(|_| element.attribute("upgrade").is_none());
        let first = element.child("initial-response", names::SASL2);
        self.start(wanted.unwrap_or_default(), first, turn)
    }

    /// XEP-0388 2.1: whoever names itself in the stream's opening must be that very user.
    pub(super) fn is_from(&mut self, jid: &Bare) -> bool {
        let entry = self.entry();
        entry.wish.is_none() || entry.from.as_deref().is_none_or(|from| from == jid.as_str())
    }

    /// The log-in has succeeded: on to the session, if one is wanted.
    pub(super) fn proven(&mut self, authenticated: Authenticated<'_>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        let wish = self.wish();
        wish.proof = authenticated.data().map_or(&[][..], |data| data.bytes()).to_vec();
        wish.token = authenticated.token().map(|token| (token.into(), authenticated.token_until()));
        let Some(resume) = wish.resume.take() else { return self.bind_as_wished(core, out) };
        let mut frames = std::mem::take(core.follow);
        let taken = self.take_over(&resume, core, &mut frames);
        *core.follow = frames;
        match taken {
            Ok(true) => {}
            Ok(false) => {
                self.wish().not_resumed = Some(None);
                self.bind_as_wished(core, out);
            }
            Err(end) => {
                self.message_out(out, |this, out| this.write_error(out, &end));
                self.message_out(out, |this, out| out.extend_from_slice(this.close_tag()));
                self.stage = Stage::Closed;
                core.end = Some(end.reason);
            }
        }
    }

    /// The stream that was to be resumed is gone.
    pub(super) fn binds_instead(&mut self, handled: Option<u32>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        self.wish().not_resumed = Some(handled);
        self.bind_as_wished(core, out);
    }

    fn bind_as_wished(&mut self, core: &mut Core<'_>, out: &mut Vec<u8>) {
        let jid = self.jid.clone();
        let Wish { bind: Some(Bind { tag, .. }), agent, .. } = self.wish() else { return self.succeeded_unbound(out) };
        let resource = resource(tag, agent, (core.random)(), &jid);
        let tag = self.ask(Question::Bind { id: Box::default() }).expect("nothing else waits before a session");
        self.stage = Stage::Binding;
        core.xmpp.encoder.bind(core.follow, tag, &resource, &[]);
    }

    /// The user is known and has no session: one can be bound as ever (RFC 6120 7), without opening the stream anew.
    pub(super) fn succeeded_unbound(&mut self, out: &mut Vec<u8>) {
        self.stage = Stage::Unbound;
        self.write_second_success(out, |_, _| {});
        self.message_out(out, |this, out| this.write_session_features(out));
    }

    /// The session is there, with all that was wished for in it.
    pub(super) fn bound_as_wished(&mut self, logged_in: LoggedIn<'_>, core: &mut Core<'_>, out: &mut Vec<u8>) {
        self.in_session_as(logged_in);
        let Some(Bind { carbons, manage, active, .. }) = self.wish().bind.take() else { return };
        if let Some(wanted_ms) = manage {
            self.manage_from_now(wanted_ms, core);
        }
        self.write_second_success(out, |this, out| {
            out.extend_from_slice(b"<bound xmlns='urn:xmpp:bind:0'>");
            this.write_enabled(out);
            out.extend_from_slice(b"</bound>");
        });
        self.counting.iter_mut().for_each(|counting| counting.on = true);
        self.message_out(out, |this, out| this.write_bound_features(out));
        if carbons {
            core.xmpp.encoder.carbons(core.follow, Tag::default(), true);
        }
        if !active {
            core.xmpp.encoder.activity(core.follow, Tag::default(), false);
        }
    }

    /// XEP-0388 2.6.1: what has become of the log-in, with `more` of the session.
    pub(super) fn write_second_success(&mut self, out: &mut Vec<u8>, more: impl FnOnce(&Xmpp, &mut Vec<u8>)) {
        let Some(wish) = self.entry().wish.take() else { return };
        self.message_out(out, |this, out| {
            out.extend_from_slice(b"<success xmlns='urn:xmpp:sasl:2'>");
            if !wish.proof.is_empty() {
                out.extend_from_slice(b"<additional-data>");
                out.extend_from_slice(BASE64_STANDARD.encode(&wish.proof).as_bytes());
                out.extend_from_slice(b"</additional-data>");
            }
            out.extend_from_slice(b"<authorization-identifier>");
            xml::text(out, &this.jid);
            out.extend_from_slice(b"</authorization-identifier>");
            if let Some(handled) = wish.not_resumed {
                write_failed(out, handled, "item-not-found");
            }
            more(this, out);
            if let Some((token, until)) = &wish.token {
                out.extend_from_slice(b"<token");
                xml::attribute(out, "xmlns", names::FAST);
                xml::attribute(out, "token", token);
                xml::attribute(out, "expiry", &utc(*until));
                out.extend_from_slice(b"/>");
            }
            out.extend_from_slice(b"</success>");
        });
    }

    /// Whether the log-in under way is one of SASL 2.
    pub(super) fn is_second(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.wish.is_some())
    }

    /// Whether it is by a token that the client wants in.
    pub(super) fn shows_token(&self) -> bool {
        self.entry.as_ref().and_then(|entry| entry.wish.as_ref()).is_some_and(|wish| wish.shows.is_some())
    }

    fn wish(&mut self) -> &mut Wish {
        self.entry().wish.get_or_insert_default()
    }
}

/// XEP-0484 3.4 and 3.6: how often a token was shown, and whether it is to be the last time.
fn shown(fast: &Element) -> (u32, bool) {
    let count = fast.attribute("count").and_then(|count| count.parse().ok()).unwrap_or(0);
    (count, matches!(fast.attribute("invalidate"), Some("true" | "1")))
}

/// The resource of a session: the client's tag, and letters that are always the same for one client of a user, so that it takes the
/// place of its own older session (XEP-0386 3.2.1).
fn resource(tag: &str, agent: &str, random: u64, jid: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut hash = Sha256::new().chain_update(jid).chain_update("\0").chain_update(agent);
    if agent.is_empty() {
        hash = hash.chain_update(random.to_le_bytes());
    }
    let letters: String = hash.finalize().iter().take(LETTERS).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    let tagged = Some(tag).filter(|tag| !tag.is_empty() && tag.len() <= TAG_BYTES).and_then(|tag| {
        let resource = jid::ResourcePart::new(&format!("{tag}/{letters}")).ok()?.as_str().to_owned();
        Some(resource)
    });
    tagged.unwrap_or(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xep_0386_a_clients_resource_is_always_the_same_and_tells_nothing_of_its_identifier() {
        let of = |tag: &str, agent, random| resource(tag, agent, random, "a@b");
        assert_eq!(of("App", "1", 1), of("App", "1", 2));
        assert_ne!(of("App", "1", 1), of("App", "2", 1));
        assert_ne!(of("App", "", 1), of("App", "", 2));
        assert_ne!(of("App", "1", 1), resource("App", "1", 1, "c@b"));
        assert!(of("App", "1", 1).starts_with("App/") && of("App", "1", 1).len() == 4 + LETTERS);
        for unfit in [String::new(), "x".repeat(TAG_BYTES + 1), "a\u{7}b".into()] {
            assert_eq!(of(&unfit, "1", 1).len(), LETTERS, "{unfit:?}");
        }
    }
}
