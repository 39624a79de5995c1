//! What the core's reasons are called in XMPP: one table (RFC 6120 4.9.3, 6.5, 8.3.3).

use super::names::STANZA_ERRORS;
use crate::base::reason::Reason;
use crate::wire::xml;

/// A stanza error: its type and its condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub kind: &'static str,
    pub condition: &'static str,
    /// For people; may be empty.
    pub text: &'static str,
    /// What exactly it is: an element of a document of its own (RFC 6120 8.3.4); may be empty.
    pub detail: &'static str,
}

impl Failure {
    pub const fn new(kind: &'static str, condition: &'static str) -> Failure {
        Failure { kind, condition, text: "", detail: "" }
    }

    pub const fn saying(self, text: &'static str) -> Failure {
        Failure { text, ..self }
    }

    pub const fn with(self, detail: &'static str) -> Failure {
        Failure { detail, ..self }
    }

    /// Appends the `<error/>` element.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<error");
        xml::attribute(out, "type", self.kind);
        out.extend_from_slice(b"><");
        out.extend_from_slice(self.condition.as_bytes());
        xml::attribute(out, "xmlns", STANZA_ERRORS);
        out.extend_from_slice(b"/>");
        if !self.text.is_empty() {
            out.extend_from_slice(b"<text");
            xml::attribute(out, "xmlns", STANZA_ERRORS);
            out.extend_from_slice(b" xml:lang='en'>");
            xml::text(out, self.text);
            out.extend_from_slice(b"</text>");
        }
        out.extend_from_slice(self.detail.as_bytes());
        out.extend_from_slice(b"</error>");
    }
}

pub(super) const BAD_REQUEST: Failure = Failure::new("modify", "bad-request");
pub(super) const BAD_JID: Failure = Failure::new("modify", "jid-malformed");
pub(super) const NO_SERVICE: Failure = Failure::new("cancel", "service-unavailable");
pub(super) const NOT_FOUND: Failure = Failure::new("cancel", "item-not-found");
pub(super) const NOT_ACCEPTABLE: Failure = Failure::new("modify", "not-acceptable");
pub(super) const FORBIDDEN: Failure = Failure::new("auth", "forbidden");
pub(super) const TOO_BIG: Failure =
    Failure::new("modify", "policy-violation").saying("the stanza is longer than this server takes");
pub(super) const ELSEWHERE: Failure =
    Failure::new("cancel", "remote-server-not-found").saying("this server has no connections to other servers");
pub(super) const TOO_MANY: Failure =
    Failure::new("wait", "resource-constraint").saying("too many requests wait for their answers: wait for some");

/// A request's failure as a stanza error.
pub(super) fn failure(reason: Reason) -> Failure {
    use Reason::*;
    let (kind, condition) = match reason {
        BadRequest | WrongResource => ("modify", "bad-request"),
        NotAuthorized | NotLoggedIn | LogInFailed => ("auth", "forbidden"),
        NoSuchUser | RecipientUnavailable => ("cancel", "service-unavailable"),
        BadJid => ("modify", "jid-malformed"),
        NoSuchContact | NotFound => ("cancel", "item-not-found"),
        UserExists => ("cancel", "conflict"),
        RegistrationClosed => ("cancel", "not-allowed"),
        TooLarge => ("modify", "not-acceptable"),
        Blocked => ("cancel", "not-acceptable"),
        NotAvailable => ("wait", "unexpected-request"),
        TooManyContacts | TooManyBlocked | TooManySessions | TooManyDirected => ("cancel", "resource-constraint"),
        TooManyRequests | TooManyPending | Overloaded | TooManyMessages | TooManyDocuments | TooManyRegistrations => {
            ("wait", "resource-constraint")
        }
        StorageFailed => ("wait", "internal-server-error"),
        HomeOutOfReach => ("wait", "remote-server-timeout"),
        Replaced => ("modify", "conflict"),
        _ => ("cancel", "undefined-condition"),
    };
    // XEP-0191 3.3.
    let detail = if reason == Blocked { "<blocked xmlns='urn:xmpp:blocking:errors'/>" } else { "" };
    Failure { kind, condition, text: reason.text(), detail }
}

/// A stream error's condition (RFC 6120 4.9.3).
pub(super) fn stream(reason: Reason) -> &'static str {
    use Reason::*;
    match reason {
        Replaced => "conflict",
        AccountRemoved | LogInFailed | NotLoggedIn | OutOfOrder => "not-authorized",
        LogInTooSlow | Silent | ConnectionLost | NeverReads => "connection-timeout",
        TooManyAttempts | Flood | FrameTooLarge | TlsRequired => "policy-violation",
        TooManyConnections | Overloaded => "resource-constraint",
        ShuttingDown => "system-shutdown",
        SessionWornOut => "reset",
        HomeOutOfReach => "remote-connection-failed",
        _ => "undefined-condition",
    }
}

/// A SASL failure's condition (RFC 6120 6.5).
pub(super) fn sasl(reason: Reason) -> &'static str {
    match reason {
        Reason::LogInFailed | Reason::NoSuchUser | Reason::BadJid => "not-authorized",
        Reason::BadRequest => "malformed-request",
        Reason::TokenExpired => "credentials-expired",
        _ => "temporary-auth-failure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_words_in_xmpp() {
        for &reason in Reason::ALL {
            let mut out = Vec::new();
            failure(reason).write(&mut out);
            let read = xml::Element::parse(&out).expect("well-formed");
            let children = if reason == Reason::Blocked { 3 } else { 2 };
            assert!(read.children().count() == children && read.attribute("type").is_some(), "{reason:?}");
            assert!(!stream(reason).is_empty() && !sasl(reason).is_empty());
        }
    }
}
