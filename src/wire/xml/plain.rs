//! The short way to read a stanza: most have no prefixes, references or comments, and a scanner makes of them in one pass what the
//! parser makes of their tokens and events (`benches/runs/xmpp-perf.txt`: 2 % of a node's time against 14).
//!
//! Lives on: every core. Serves G6. Invariant: what is taken here the parser takes too, and makes the same of it
//! (`read::tests` and the fuzz target read everything both ways); whatever is not plain, too long or not whole is left to it.

use super::{Attribute, Element, Node, TOKEN_BYTES};
use rxml::{Namespace, NcName};

/// Deepest element, most attributes of an element and most nodes in one that are still plain.
const DEPTH: usize = 8;
const ATTRIBUTES: usize = 8;
const NODES: usize = 32;

/// A whole plain element of at most so many bytes at the start, and its length.
pub fn read(bytes: &[u8], most: usize, around: &Namespace<'static>) -> Option<(Element, usize)> {
    let mut scanner = Scanner { bytes: &bytes[..bytes.len().min(most).min(TOKEN_BYTES)], at: 0 };
    let element = scanner.element(around, 1)?;
    Some((element, scanner.at))
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn element(&mut self, around: &Namespace<'static>, depth: usize) -> Option<Element> {
        self.expect(b"<")?;
        let name = self.name()?;
        let mut element = Element { name: named(name)?, namespace: around.clone(), attributes: Vec::new(), nodes: Vec::new() };
        let is_empty = self.attributes(&mut element)?;
        if !is_empty {
            self.content(&mut element, depth)?;
            self.expect(name.as_bytes())?;
            self.skip_space();
            self.expect(b">")?;
        }
        Some(element)
    }

    /// The rest of a tag. True: it was the tag of an empty element.
    fn attributes(&mut self, element: &mut Element) -> Option<bool> {
        let mut declares = false;
        loop {
            let begins = self.skip_space();
            match self.bytes.get(self.at)? {
                b'/' => {
                    self.expect(b"/>")?;
                    break Some(true);
                }
                b'>' => {
                    self.at += 1;
                    break Some(false);
                }
                _ if !begins || element.attributes.len() == ATTRIBUTES => return None,
                _ => {}
            }
            let name = self.name()?;
            self.expect(b"=")?;
            let value = self.value()?;
            if name == "xmlns" {
                // Those of XML itself can't be declared, and the empty one takes a declaration back.
                if std::mem::replace(&mut declares, true) || value.is_empty() || value.starts_with("http://www.w3.org/") {
                    return None;
                }
                element.namespace = Namespace::from(value.to_owned());
                continue;
            }
            // The parser has them in this order.
            let at = element.attributes.binary_search_by(|attribute| attribute.name.as_str().cmp(name)).err()?;
            let attribute = Attribute { name: named(name)?, namespace: Namespace::NONE, value: value.to_owned() };
            element.attributes.insert(at, attribute);
        }
    }

    /// Text and elements up to the name of the closing tag.
    fn content(&mut self, element: &mut Element, depth: usize) -> Option<()> {
        loop {
            let text = self.until(|byte| byte == b'<')?;
            if !text.is_empty() {
                element.nodes.push(Node::Text(text.to_owned()));
            }
            if self.bytes[self.at..].starts_with(b"</") {
                self.at += 2;
                return Some(());
            }
            if depth == DEPTH || element.nodes.len() >= NODES {
                return None;
            }
            let child = self.element(&element.namespace, depth + 1)?;
            element.nodes.push(Node::Element(child));
        }
    }

    fn value(&mut self) -> Option<&'a str> {
        let quote = *self.bytes.get(self.at).filter(|byte| matches!(byte, b'\'' | b'"'))?;
        self.at += 1;
        let value = self.until(|byte| byte == quote)?;
        self.at += 1;
        // The parser makes spaces of these.
        (!value.contains(['\n', '\t'])).then_some(value)
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| !matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_'))?;
        let name = &rest[..length];
        self.at += length;
        name.first().filter(|byte| byte.is_ascii_alphabetic())?;
        std::str::from_utf8(name).ok()
    }

    /// Plain characters up to one that ends them: no markup, references, carriage returns, controls, and nothing near the
    /// noncharacters (U+F000 to U+FFFF).
    fn until(&mut self, is_end: impl Fn(u8) -> bool) -> Option<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| is_end(byte) || is_odd(byte))?;
        if !is_end(rest[length]) {
            return None;
        }
        self.at += length;
        std::str::from_utf8(&rest[..length]).ok()
    }

    /// Leaves out white space; true: there was some.
    fn skip_space(&mut self) -> bool {
        let from = self.at;
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\t')) {
            self.at += 1;
        }
        self.at > from
    }

    fn expect(&mut self, what: &[u8]) -> Option<()> {
        let found = self.bytes[self.at..].starts_with(what);
        self.at += what.len();
        found.then_some(())
    }
}

fn is_odd(byte: u8) -> bool {
    !matches!(byte, b' '..=b'~' | b'\n' | b'\t' | 0x80..=0xee | 0xf0..=0xff) || matches!(byte, b'<' | b'>' | b'&')
}

fn named(name: &str) -> Option<NcName> {
    NcName::try_from(name).ok()
}
