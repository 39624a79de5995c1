//! The pages a WebSocket listener serves: the demonstration, its module, and where XMPP clients learn the address (XEP-0156).
//!
//! Lives on: every core. Pure: the pages are part of the program.

use super::{Protocol, Rules};

/// A page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    pub path: &'static str,
    pub content_type: &'static str,
    body: &'static str,
}

/// In whose place a page gets the listener's address.
const URL: &str = "{url}";

const ALL: &[Page] = &[
    Page { path: "/demo", content_type: "text/html; charset=utf-8", body: include_str!("browser/demo.html") },
    Page { path: "/demo/demo.css", content_type: "text/css; charset=utf-8", body: include_str!("browser/demo.css") },
    script("/demo/demo.js", include_str!("browser/demo.js")),
    script("/fanal/fanal.js", include_str!("browser/fanal.js")),
    script("/fanal/contacts.js", include_str!("browser/contacts.js")),
    script("/fanal/scram.js", include_str!("browser/scram.js")),
    script("/fanal/token.js", include_str!("browser/token.js")),
];

const fn script(path: &'static str, body: &'static str) -> Page {
    Page { path, content_type: "text/javascript; charset=utf-8", body }
}

/// Only where XMPP is spoken.
const HOST_META: &[Page] = &[
    Page {
        path: "/.well-known/host-meta",
        content_type: "application/xrd+xml; charset=utf-8",
        body: "<?xml version='1.0' encoding='utf-8'?>\n<XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n  \
               <Link rel='urn:xmpp:alt-connections:websocket' href='{url}/xmpp-websocket'/>\n</XRD>\n",
    },
    Page {
        path: "/.well-known/host-meta.json",
        content_type: "application/json",
        body: "{\"links\":[{\"rel\":\"urn:xmpp:alt-connections:websocket\",\"href\":\"{url}/xmpp-websocket\"}]}\n",
    },
];

/// The page at a path.
pub fn find(path: &str, rules: &Rules) -> Option<&'static Page> {
    let host_meta = if rules.spoken(Protocol::Xmpp.path()).is_empty() { &[][..] } else { HOST_META };
    ALL.iter().chain(host_meta).find(|page| page.path == path)
}

impl Page {
    /// The page as it is served at `url`.
    pub fn body(&self, url: &str) -> String {
        self.body.replace(URL, url)
    }
}
