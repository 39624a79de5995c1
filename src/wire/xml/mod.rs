//! XML as XMPP uses it (RFC 6120 section 11): streams and stanzas read and written, small pieces checked.
//!
//! Lives on: every core; one [`Reader`] per connection of a door that speaks XML. Serves C8. Invariants: what is read has no
//! document types, entities, processing instructions or comments, and is bounded in depth, size and number of its parts; what is
//! written is well-formed whatever the text; between stanzas a reader keeps nothing on the heap. rxml finds the tokens and
//! resolves namespaces; it has no limits on depth, number and size, so those are kept here. `plain` reads what needs neither.

mod plain;
mod read;
mod write;

pub use read::{Bounds, HEADER_BYTES, Header, Item, Parsers, Reader, is_fragment};
pub use write::{TooLong, attribute, attribute_of, element, text};

use rxml::{Namespace, NcName};

/// Deepest element of a stanza; the stanza itself is level 1. At the limit: [`Fault::TooDeep`].
pub const DEPTH: usize = 64;
/// Attributes of one element, without declarations of namespaces. At the limit: [`Fault::TooMany`].
pub const ATTRIBUTES: usize = 64;
/// Elements of one stanza. At the limit: [`Fault::TooMany`].
pub const ELEMENTS: usize = 4096;
/// Longest name and attribute value, in bytes; rxml's own limit. At the limit: [`Fault::TooLarge`].
pub const TOKEN_BYTES: usize = 8192;

/// Why XML was refused. The stream can't be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    NotWellFormed,
    /// A document type, entity, processing instruction or comment.
    Restricted,
    /// Not UTF-8.
    Encoding,
    /// A prefix that was not declared.
    Prefix,
    /// Text between stanzas.
    Stray,
    TooLarge,
    TooDeep,
    TooMany,
}

impl Fault {
    /// The stream error's condition (RFC 6120 4.9.3).
    pub fn condition(self) -> &'static str {
        match self {
            Fault::NotWellFormed => "not-well-formed",
            Fault::Restricted => "restricted-xml",
            Fault::Encoding => "unsupported-encoding",
            Fault::Prefix => "bad-namespace-prefix",
            Fault::Stray => "bad-format",
            Fault::TooLarge | Fault::TooDeep | Fault::TooMany => "policy-violation",
        }
    }

    /// One sentence for the person at the other end; empty where the condition says it all.
    pub fn text(self) -> &'static str {
        match self {
            Fault::TooLarge => "the stanza, or a name or an attribute in it, is longer than this server takes",
            Fault::TooDeep => "the stanza's elements are nested deeper than this server takes",
            Fault::TooMany => "the stanza has more elements, or one of them more attributes, than this server takes",
            Fault::Stray => "there may be no text between stanzas",
            Fault::NotWellFormed | Fault::Restricted | Fault::Encoding | Fault::Prefix => "",
        }
    }
}

/// An element with all that is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    pub name: NcName,
    /// Empty: it is in no namespace.
    pub namespace: Namespace<'static>,
    pub attributes: Vec<Attribute>,
    pub nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    pub name: NcName,
    pub namespace: Namespace<'static>,
    pub value: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// Reads one element that stands alone and declares its namespaces itself.
    ///
    /// Errors: as a stanza that is no longer than the text.
    pub fn parse(text: &[u8]) -> Result<Element, Fault> {
        let mut elements = read::elements(text)?.into_iter();
        match (elements.next(), elements.next()) {
            (Some(element), None) => Ok(element),
            _ => Err(Fault::NotWellFormed),
        }
    }

    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.name.as_str() == name && self.namespace.as_str() == namespace
    }

    /// The value of an attribute that is in no namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|attribute| attribute.name.as_str() == name && attribute.namespace.is_none());
        found.map(|attribute| attribute.value.as_str())
    }

    /// Its xml:lang.
    pub fn language(&self) -> Option<&str> {
        let is_language = |attribute: &&Attribute| attribute.name.as_str() == "lang" && attribute.namespace == Namespace::XML;
        self.attributes.iter().find(is_language).map(|attribute| attribute.value.as_str())
    }

    /// The elements right in it.
    pub fn children(&self) -> impl Iterator<Item = &Element> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Element(child) => Some(child),
            Node::Text(_) => None,
        })
    }

    pub fn child(&self, name: &str, namespace: &str) -> Option<&Element> {
        self.children().find(|child| child.is(name, namespace))
    }

    /// The text right in it, whatever stands between.
    pub fn text(&self) -> String {
        self.nodes.iter().fold(String::new(), |all, node| match node {
            Node::Text(text) => all + text,
            Node::Element(_) => all,
        })
    }
}
