//! What an operator decides about WebSockets, and the sub-protocols there are.
//!
//! Lives on: every core, one copy of a node. Invariant: a page of another site may open a WebSocket only if the operator lists it.

use crate::front::xmpp;
use std::sync::Arc;

/// What is spoken inside a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Native frames, whole ones, one or more in each binary message (`schemas/README.md`).
    Native,
    /// JSON, one object in each text message (`schemas/JSON.md`).
    Json,
    /// XMPP, RFC 7395.
    Xmpp,
}

impl Protocol {
    pub const ALL: [Protocol; 3] = [Protocol::Json, Protocol::Native, Protocol::Xmpp];

    /// The name in `Sec-WebSocket-Protocol`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Native => "fanal.fb.v1",
            Protocol::Json => "fanal.json.v1",
            Protocol::Xmpp => "xmpp",
        }
    }

    /// Where it is spoken.
    pub fn path(self) -> &'static str {
        match self {
            Protocol::Native | Protocol::Json => "/ws",
            Protocol::Xmpp => "/xmpp-websocket",
        }
    }
}

/// What all WebSockets of a listener are held to.
pub struct Rules {
    /// Origins whose pages may connect, as browsers write them (`https://example.org`); `*` lets all in. Pages of the host that
    /// the request names may always, and so may programs, which send no Origin.
    pub origins: Vec<String>,
    /// What clients call this listener, for host-meta (XEP-0156): `wss://example.org`. `None`: what they call it themselves.
    pub url: Option<String>,
    /// Longest message, in bytes. At the limit: close code 1009.
    pub message_bytes: u32,
    /// What XMPP clients are held to; `None`: XMPP is not offered.
    pub xmpp: Option<Arc<xmpp::Rules>>,
    /// What a frame without native meaning counts as.
    pub(super) counted: Vec<u8>,
}

impl Rules {
    /// Rules of a listener that is open to its own pages, and to programs.
    pub fn new(message_bytes: u32) -> Rules {
        Rules { origins: Vec::new(), url: None, message_bytes, xmpp: None, counted: super::counted() }
    }

    /// The sub-protocols of a path, those preferred first.
    pub(super) fn spoken(&self, path: &str) -> Vec<Protocol> {
        let offered = |protocol: &Protocol| *protocol != Protocol::Xmpp || self.xmpp.is_some();
        Protocol::ALL.into_iter().filter(|protocol| protocol.path() == path && offered(protocol)).collect()
    }

    /// Whether a page of this origin may connect (RFC 6455 10.2). `host`: what the client calls us.
    pub(super) fn lets_in(&self, origin: &str, host: &str) -> bool {
        let own = || origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        own() || self.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}
