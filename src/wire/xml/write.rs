//! Writing: escaped text, and elements as text that stands alone.

use super::{Element, Node};
use rxml::Namespace;

/// What an element became is longer than allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

/// What stands for a character that XML can't carry at all: U+FFFD.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Appends character data. Control characters and the two noncharacters that XML 1.0 has no way to write become U+FFFD: a
/// client's parser would end its stream on one.
pub fn text(out: &mut Vec<u8>, text: &str) {
    escape(out, text, false);
}

/// Appends a space, the name, and the value in quotes. The name is written as it is.
pub fn attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    attribute_of(out, name, &[value]);
}

/// The same, of a value in parts.
pub fn attribute_of(out: &mut Vec<u8>, name: &str, value: &[&str]) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    value.iter().for_each(|part| escape(out, part, true));
    out.push(b'\'');
}

/// Whether nothing of a text need be written in another way, wherever it stands. No branches, so that the compiler looks at many
/// bytes at once: nearly all texts are such.
fn is_plain(bytes: &[u8]) -> bool {
    let is_odd = |byte: u8| u8::from(matches!(byte, 0..0x20 | b'&' | b'<' | b'>' | b'\'' | b'"' | 0xef));
    bytes.iter().fold(0, |odd, &byte| odd | is_odd(byte)) == 0
}

fn escape(out: &mut Vec<u8>, text: &str, in_attribute: bool) {
    let bytes = text.as_bytes();
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let (instead, length): (&[u8], usize) = match byte {
            b'&' => (b"&amp;", 1),
            b'<' => (b"&lt;", 1),
            b'>' => (b"&gt;", 1),
            b'\'' if in_attribute => (b"&apos;", 1),
            b'"' if in_attribute => (b"&quot;", 1),
            b'\t' if in_attribute => (b"&#9;", 1),
            b'\n' if in_attribute => (b"&#10;", 1),
            b'\r' => (b"&#13;", 1),
            b'\t' | b'\n' => continue,
            0..0x20 => (REPLACEMENT, 1),
            0xef if matches!(bytes.get(at..at + 3), Some([0xef, 0xbf, 0xbe | 0xbf])) => (REPLACEMENT, 3),
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        out.extend_from_slice(instead);
        written = at + length;
    }
    out.extend_from_slice(&bytes[written..]);
}

/// Appends an element as it may stand where `around` is the default namespace (empty: none, or not known) and no prefix is known.
/// Prefixes are made anew, so the text may be longer than it came.
///
/// Errors: it became longer than `most` bytes; `out` then has a part of it.
pub fn element(out: &mut Vec<u8>, element: &Element, around: &str, most: usize) -> Result<(), TooLong> {
    let end = out.len().saturating_add(most);
    write(out, element, around, end)
}

fn write(out: &mut Vec<u8>, element: &Element, around: &str, end: usize) -> Result<(), TooLong> {
    let (name, namespace) = (element.name.as_str(), element.namespace.as_str());
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    if namespace != around {
        attribute(out, "xmlns", namespace);
    }
    for (number, a) in element.attributes.iter().enumerate() {
        if a.namespace.is_none() {
            attribute(out, a.name.as_str(), &a.value);
        } else if a.namespace == Namespace::XML {
            attribute(out, &format!("xml:{}", a.name), &a.value);
        } else {
            attribute(out, &format!("xmlns:n{number}"), a.namespace.as_str());
            attribute(out, &format!("n{number}:{}", a.name), &a.value);
        }
        if out.len() > end {
            return Err(TooLong);
        }
    }
    if element.nodes.is_empty() {
        out.extend_from_slice(b"/>");
    } else {
        out.push(b'>');
        for node in &element.nodes {
            match node {
                Node::Element(child) => write(out, child, namespace, end)?,
                Node::Text(said) => text(out, said),
            }
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(name.as_bytes());
        out.push(b'>');
    }
    if out.len() > end { Err(TooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        element(&mut out, &Element::parse(text.as_bytes()).expect("an element"), "", usize::MAX).expect("no limit");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn namespaces_survive_whatever_prefixes_they_had() {
        let pairs = [
            ("<a xmlns='x'><b/><c xmlns=''><d xmlns='x'/></c></a>", "<a xmlns='x'><b/><c xmlns=''><d xmlns='x'/></c></a>"),
            ("<p:a xmlns:p='x' p:b='1' b='2' xml:lang='de'/>", "<a xmlns='x' b='2' xml:lang='de' xmlns:n2='x' n2:b='1'/>"),
            ("<a xmlns='x'>1 &lt; 2<b/> &amp; 3</a>", "<a xmlns='x'>1 &lt; 2<b/> &amp; 3</a>"),
        ];
        for (from, to) in pairs {
            assert_eq!(
                Element::parse(from.as_bytes()).map(|mut e| sorted(&mut e)),
                Element::parse(to.as_bytes()).map(|mut e| sorted(&mut e))
            );
            assert_eq!(written(from), written(to), "{from}");
        }
    }

    fn sorted(element: &mut Element) -> Element {
        element.attributes.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        element.clone()
    }

    #[test]
    fn many_prefixes_of_a_long_namespace_stay_within_the_limit() {
        let long = "n".repeat(5000);
        let text = format!("<a xmlns:p='{long}'>{}</a>", "<p:b/>".repeat(1000));
        let element_of = Element::parse(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        assert_eq!(element(&mut out, &element_of, "", 20_000), Err(TooLong));
        assert!(out.len() < 30_000);
    }

    #[test]
    fn what_xml_cannot_carry_is_replaced() {
        let mut out = Vec::new();
        text(&mut out, "a\0b\u{1f}\u{fffe}\u{ffff}\u{fffd}]]>\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}]]&gt;&#13;\n");
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(said in "[^\u{0}-\u{8}\u{b}\u{c}\u{e}-\u{1f}\u{fffe}\u{ffff}]{0,60}") {
            let mut out = b"<a".to_vec();
            attribute(&mut out, "b", &said);
            out.push(b'>');
            text(&mut out, &said);
            out.extend_from_slice(b"</a>");
            let read = Element::parse(&out).unwrap();
            prop_assert_eq!(read.attribute("b"), Some(said.as_str()));
            prop_assert_eq!(read.text(), said);
        }

        #[test]
        fn any_text_at_all_is_well_formed(said in ".{0,60}") {
            let mut out = b"<a".to_vec();
            attribute(&mut out, "b", &said);
            out.push(b'>');
            text(&mut out, &said);
            out.extend_from_slice(b"</a>");
            prop_assert!(Element::parse(&out).is_ok());
        }
    }
}
