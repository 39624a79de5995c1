//! Which door each of a node's listeners has.
//!
//! Lives on: every core. Serves G6, C8.

use super::json;
#[cfg(feature = "runtime")]
use super::native::NativeFrames;
#[cfg(feature = "runtime")]
use super::secure::Secure;
#[cfg(feature = "runtime")]
use super::secure_link::SecureLink;
#[cfg(feature = "runtime")]
use super::tls::{Application, LinkCredentials, Terms};
use super::translate::{Channel, Translate};
use super::ws::{self, WebSocket};
use super::xmpp::{self, Xmpp};
use crate::base::reason::Reason;
use crate::wire::form::{Form, Writer};
use crate::wire::link::Site;
use std::net::IpAddr;
use std::sync::Arc;

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// Native frames, inside TLS or not, as the client begins. Without it the connection needs no translator.
    Native,
    /// XMPP over TCP, made private by STARTTLS.
    Xmpp,
    /// XMPP inside TLS (XEP-0368).
    Xmpps,
    /// WebSocket, inside TLS or not, as the client begins.
    WebSocket,
    /// Other nodes' links: no door for clients.
    Link,
}

impl Speaks {
    /// The key of its address in the configuration, and the name people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Speaks::Native => "native",
            Speaks::Xmpp => "xmpp",
            Speaks::Xmpps => "xmpps",
            Speaks::WebSocket => "ws",
            Speaks::Link => "link",
        }
    }
}

/// Who writes the forms of events that doors have beside the native one.
pub const FORMS: &[(Form, Writer)] = &[(Form::Xmpp, xmpp::write_form), (Form::Json, json::write_form)];

/// What the node's listeners speak, by their numbers.
#[derive(Clone, Default)]
pub struct Doors {
    pub listeners: Vec<Speaks>,
    /// Whether peers on other machines must speak inside TLS: else `tls_required`.
    pub private: bool,
    /// What XMPP clients are held to; `None` where no door speaks it.
    pub xmpp: Option<Arc<xmpp::Rules>>,
    /// What WebSocket clients are held to; `None` where there is no such door.
    pub ws: Option<Arc<ws::Rules>>,
    /// The terms of handshakes; `None` where there is no TLS.
    #[cfg(feature = "runtime")]
    pub tls: Option<Terms>,
    /// How links prove who they are; `None`: they go in the clear.
    #[cfg(feature = "runtime")]
    pub links: Option<Arc<LinkCredentials>>,
}

impl Doors {
    /// The translator of a new connection; `None`: it speaks native frames.
    ///
    /// Panics when the listener's door lacks what it needs: whoever opened it had to see to that.
    pub fn open(&self, listener: usize) -> Option<Box<dyn Translate>> {
        let xmpp = || Box::new(Xmpp::new(self.xmpp.clone().expect("an XMPP door has its rules")));
        match self.listeners.get(listener)? {
            Speaks::Native => None,
            Speaks::Link => self.accept_link(),
            Speaks::Xmpp => Some(self.until_asked(xmpp())),
            Speaks::Xmpps => Some(self.at_once(xmpp())),
            Speaks::WebSocket => {
                let rules = self.ws.clone().expect("a WebSocket door has its rules");
                Some(self.as_it_begins(Box::new(WebSocket::new(rules))))
            }
        }
    }

    /// Whether a peer may say Hello.
    pub fn admits(&self, peer: IpAddr, channel: Channel) -> bool {
        !self.private || channel != Channel::Clear || peer.to_canonical().is_loopback()
    }

    /// Whether a door tells its peers the JIDs of publishers.
    pub fn name_publishers(&self) -> bool {
        self.listeners.iter().any(|speaks| !matches!(speaks, Speaks::Native | Speaks::Link))
    }
}

#[cfg(feature = "runtime")]
impl Doors {
    /// The translator of a native connection that begins with a handshake; `None`: there is no TLS.
    pub fn open_native_tls(&self) -> Option<Box<dyn Translate>> {
        let terms = self.tls.clone()?;
        Some(Box::new(Secure::direct(terms, Application::Native, Box::new(NativeFrames))))
    }

    fn accept_link(&self) -> Option<Box<dyn Translate>> {
        let credentials = self.links.clone()?;
        Some(Box::new(SecureLink::accepted(credentials)))
    }

    /// The translator of a connection to another node; `None`: it goes in the clear.
    ///
    /// Errors: `TlsFailed`: it may not go in the clear, and can't begin otherwise.
    pub fn dial_link(&self, to: Site) -> Result<Option<Box<dyn Translate>>, Reason> {
        let Some(credentials) = &self.links else { return Ok(None) };
        let dialled = SecureLink::dialled(credentials, to).map_err(|_| Reason::TlsFailed)?;
        Ok(Some(Box::new(dialled)))
    }

    fn until_asked(&self, inner: Box<Xmpp>) -> Box<dyn Translate> {
        match &self.tls {
            Some(terms) => Box::new(Secure::later(terms.clone(), Application::Xmpp, inner)),
            None => inner,
        }
    }

    fn at_once(&self, inner: Box<Xmpp>) -> Box<dyn Translate> {
        let terms = self.tls.clone().expect("a TLS door has its terms");
        Box::new(Secure::direct(terms, Application::Xmpp, inner))
    }

    fn as_it_begins(&self, inner: Box<WebSocket>) -> Box<dyn Translate> {
        match &self.tls {
            Some(terms) => Box::new(Secure::either(terms.clone(), Application::Http, inner)),
            None => inner,
        }
    }
}

/// The pure core has no TLS.
#[cfg(not(feature = "runtime"))]
impl Doors {
    pub fn open_native_tls(&self) -> Option<Box<dyn Translate>> {
        None
    }

    fn accept_link(&self) -> Option<Box<dyn Translate>> {
        None
    }

    pub fn dial_link(&self, _to: Site) -> Result<Option<Box<dyn Translate>>, Reason> {
        Ok(None)
    }

    fn until_asked(&self, inner: Box<Xmpp>) -> Box<dyn Translate> {
        inner
    }

    fn at_once(&self, _inner: Box<Xmpp>) -> Box<dyn Translate> {
        unreachable!("no listener is there")
    }

    fn as_it_begins(&self, inner: Box<WebSocket>) -> Box<dyn Translate> {
        inner
    }
}
