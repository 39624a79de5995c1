//! What clients want to hear of (XEP-0163 4.3.2): they announce a hash of what they can do with their presence (XEP-0115), are
//! asked what stands behind it, and each feature `NODE+notify` there is a node whose items they want. The core is told the names.
//!
//! Lives on: every core; what hashes stand for is known to all clients of a core ([`Known`]). Invariants: only a description whose
//! hash is right is kept for others; a client is asked once for what it announces; what is kept is bounded.

use super::disco::joined;
use super::iq::CAPS_ID;
use super::stanza::IqKind;
use super::{Mark, NOBODY, Turn, Xmpp, documents, names};
use crate::base::limits::{DOCUMENT_NAME_BYTES, INTERESTS};
use crate::wire::encode::Tag;
use crate::wire::xml::{self, Element};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Longest capabilities, as in a native presence, that a client is asked about. At the limit: it isn't, and hears of nothing.
const CAPS_BYTES: usize = 512;
/// Behind a node's name in the feature that says that a client wants its items.
const NOTIFY: &str = "+notify";

/// Descriptions that are known, in one generation. At the limit: the older generation is forgotten.
const KNOWN: usize = 512;

/// The names that stand behind hashes, one on a line. Two generations: what is used moves to the young one, and what isn't goes
/// with the old one.
#[derive(Default)]
pub struct Known {
    young: BTreeMap<[u8; 32], Box<str>>,
    old: BTreeMap<[u8; 32], Box<str>>,
}

impl Known {
    fn find(&mut self, key: [u8; 32]) -> Option<&str> {
        if let Some(kept) = self.old.remove(&key) {
            self.put(key, kept);
        }
        self.young.get(&key).map(|names| &**names)
    }

    fn put(&mut self, key: [u8; 32], names: Box<str>) {
        if self.young.len() >= KNOWN {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, names);
    }
}

/// What a client has announced last.
#[derive(Default)]
pub(super) struct Announced {
    /// As in a native presence: "HASH NODE#VER".
    caps: Box<str>,
    /// The number of the question that was put to it; 0: none.
    asked: u32,
}

impl Announced {
    pub fn heap_bytes(&self) -> usize {
        size_of::<Announced>() + self.caps.len()
    }
}

impl Xmpp {
    /// A client's presence has these capabilities.
    pub(super) fn announces(&mut self, caps: &str, turn: &mut Turn<'_, '_>) {
        let Some((hash, node, version)) = parts(caps) else { return };
        let announced = self.announced.get_or_insert_default();
        if *announced.caps == *caps || caps.len() > CAPS_BYTES {
            return;
        }
        (announced.caps, announced.asked) = (caps.into(), 0);
        let known = turn.core.xmpp.known.find(key(hash, version)).map(str::to_owned);
        if let Some(known) = known {
            return wants(&known, turn);
        }
        self.pushes = self.pushes.wrapping_add(1).max(1);
        let (number, to) = (self.pushes, self.rules.domain.clone());
        self.announced.get_or_insert_default().asked = number;
        turn.say(Mark::Stanza, |out| {
            self.open_stanza(out, "iq", "get", &format!("{CAPS_ID}{number}"), &to);
            out.extend_from_slice(b"><query");
            xml::attribute(out, "xmlns", names::DISCO_INFO);
            xml::attribute(out, "node", &format!("{node}#{version}"));
            out.extend_from_slice(b"/></iq>");
        });
    }

    /// It says what stands behind them. What it says counts for itself in any case.
    pub(super) fn describes(&mut self, number: &str, element: &Element, kind: IqKind, turn: &mut Turn<'_, '_>) {
        let asked = self.announced.as_mut().filter(|announced| announced.asked != 0 && number.parse() == Ok(announced.asked));
        let (Some(announced), IqKind::Result) = (asked, kind) else { return };
        announced.asked = 0;
        let Some(query) = element.child("query", names::DISCO_INFO) else { return };
        let names = wanted(query);
        if let Some((hash, _, version)) = parts(&announced.caps)
            && is_verified(query, hash, version)
        {
            turn.core.xmpp.known.put(key(hash, version), names.as_str().into());
        }
        wants(&names, turn);
    }
}

/// Hash function, node and version.
fn parts(caps: &str) -> Option<(&str, &str, &str)> {
    let (hash, rest) = caps.split_once(' ')?;
    rest.split_once('#').map(|(node, version)| (hash, node, version))
}

fn key(hash: &str, version: &str) -> [u8; 32] {
    Sha256::digest(format!("{hash} {version}")).into()
}

/// The core is told the names, one on a line. Nobody waits for an answer.
fn wants(names: &str, turn: &mut Turn<'_, '_>) {
    let names: Vec<&str> = names.lines().collect();
    turn.frame(|encoder, frames| encoder.interests(frames, Tag::request(NOBODY), &names));
}

/// The documents of which a client that can do this wants to hear, one on a line.
fn wanted(query: &Element) -> String {
    let features = query.children().filter(|child| child.is("feature", names::DISCO_INFO));
    let nodes = features.filter_map(|feature| feature.attribute("var")?.strip_suffix(NOTIFY));
    let mut names: Vec<String> = nodes.map(documents::node_name).collect();
    names.retain(|name| name.len() <= DOCUMENT_NAME_BYTES && !name.chars().any(char::is_control));
    names.sort_unstable();
    names.dedup();
    names.truncate(INTERESTS);
    names.join("\n")
}

/// Whether a client's description is the one whose hash it announced (XEP-0115 5.4). Descriptions that are ill-formed, or in which
/// the mark between parts stands as text, are not: another one could have the same hash. Nor are those of hash functions other
/// than SHA-1 and SHA-256.
pub(super) fn is_verified(query: &Element, hash: &str, version: &str) -> bool {
    let Some(text) = verification(query) else { return false };
    let digest = match hash {
        "sha-1" => Sha1::digest(text).to_vec(),
        "sha-256" => Sha256::digest(text).to_vec(),
        _ => return false,
    };
    BASE64_STANDARD.encode(digest) == version
}

/// XEP-0115 5.1. `None`: the description is ill-formed.
fn verification(query: &Element) -> Option<String> {
    let children = |name: &'static str| query.children().filter(move |child| child.is(name, names::DISCO_INFO));
    let identity = |child: &Element| {
        let part = |name| child.attribute(name).unwrap_or_default();
        format!("{}/{}/{}/{}", part("category"), part("type"), child.language().unwrap_or_default(), part("name"))
    };
    let mut parts = distinct(children("identity").map(identity).collect())?;
    parts.append(&mut distinct(children("feature").map(|child| child.attribute("var").unwrap_or_default().to_owned()).collect())?);
    let forms = query.children().filter(|child| child.is("x", names::DATA)).filter_map(form).collect::<Option<Vec<_>>>()?;
    let types = distinct(forms.iter().map(|form| form[0].clone()).collect())?;
    for of in types {
        parts.extend(forms.iter().find(|form| form[0] == of).cloned().into_iter().flatten());
    }
    parts.iter().all(|part| !part.contains('<')).then(|| joined(&parts))
}

/// In order. `None`: one is there twice.
fn distinct(mut parts: Vec<String>) -> Option<Vec<String>> {
    parts.sort_unstable();
    parts.windows(2).all(|pair| pair[0] != pair[1]).then_some(parts)
}

/// A form's type, and then its fields with their values, in order. `Some(None)`: its type is not one, so the description is
/// ill-formed. `None`: it has none, and does not count.
fn form(x: &Element) -> Option<Option<Vec<String>>> {
    let values = |field: &Element| {
        let values = field.children().filter(|child| child.is("value", names::DATA)).map(Element::text);
        let mut values: Vec<String> = values.collect();
        values.sort_unstable();
        values
    };
    let fields = || x.children().filter(|child| child.is("field", names::DATA));
    let kind = fields().find(|field| field.attribute("var") == Some("FORM_TYPE"))?;
    if kind.attribute("type") != Some("hidden") {
        return None;
    }
    let mut kinds = values(kind);
    kinds.dedup();
    let [kind] = &kinds[..] else { return Some(None) };
    let others = fields().filter(|field| field.attribute("var") != Some("FORM_TYPE"));
    let mut others: Vec<(String, Vec<String>)> =
        others.map(|field| (field.attribute("var").unwrap_or_default().to_owned(), values(field))).collect();
    others.sort_unstable();
    let rest = others.into_iter().flat_map(|(name, values)| [name].into_iter().chain(values));
    Some(Some([kind.clone()].into_iter().chain(rest).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XEP-0115 5.2 and 5.3.
    const SIMPLE: &str = "<query xmlns='http://jabber.org/protocol/disco#info' node='x#y'>\
         <identity category='client' type='pc' name='Exodus 0.9.1'/>\
         <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>\
         <feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/></query>";
    const COMPLEX: &str = "<query xmlns='http://jabber.org/protocol/disco#info'>\
         <identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>\
         <identity xml:lang='el' category='client' name='\u{3a8} 0.11' type='pc'/>\
         <feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>\
         <feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>\
         <x xmlns='jabber:x:data' type='result'>\
         <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>\
         <field var='ip_version'><value>ipv4</value><value>ipv6</value></field><field var='os'><value>Mac</value></field>\
         <field var='os_version'><value>10.5.1</value></field><field var='software'><value>Psi</value></field>\
         <field var='software_version'><value>0.11</value></field></x></query>";

    #[test]
    fn what_is_known_is_bounded_and_what_is_used_stays() {
        let mut known = Known::default();
        let key = |number: usize| Sha256::digest(number.to_le_bytes()).into();
        for number in 1..10 * KNOWN {
            known.put(key(number), "a".into());
            if number == 1 {
                known.put(key(0), "used".into());
            }
            assert_eq!(known.find(key(0)), Some("used"));
            assert!(known.young.len() + known.old.len() <= 2 * KNOWN);
        }
        assert_eq!(known.find(key(1)), None);
    }

    fn is_verified_text(text: &str, version: &str) -> bool {
        is_verified(&Element::parse(text.as_bytes()).unwrap(), "sha-1", version)
    }

    #[test]
    fn xep_0115_5_2_and_5_3_the_examples_have_the_hashes_that_the_document_prints() {
        assert!(is_verified_text(SIMPLE, "QgayPKawpkPSDYmwT/WM94uAlu0="));
        assert!(is_verified_text(COMPLEX, "q07IKJEyjvHSyhy//CH0CxmKi8w="));
        let simple = Element::parse(SIMPLE.as_bytes()).unwrap();
        assert!(!is_verified(&simple, "md5", "QgayPKawpkPSDYmwT/WM94uAlu0="));
        assert!(!is_verified_text(&SIMPLE.replace("muc", "cum"), "QgayPKawpkPSDYmwT/WM94uAlu0="));
    }

    #[test]
    fn xep_0115_5_4_descriptions_that_could_be_taken_for_others_are_not_believed() {
        let query = |inside: &str| format!("<query xmlns='http://jabber.org/protocol/disco#info'>{inside}</query>");
        let form = |value: &str| {
            format!("<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>{value}</value></field></x>")
        };
        let ill_formed = [
            "<feature var='a'/><feature var='a'/>".to_owned(),
            "<identity category='a' type='b'/><identity category='a' type='b'/>".to_owned(),
            "<feature var='a&lt;b'/>".to_owned(),
            form("a") + &form("a"),
            form("a</value><value>b"),
        ];
        for inside in ill_formed {
            assert_eq!(verification(&Element::parse(query(&inside).as_bytes()).unwrap()), None, "{inside}");
        }
        let ignored = "<x xmlns='jabber:x:data'><field var='FORM_TYPE'><value>a</value></field></x><feature var='f'/>";
        assert_eq!(verification(&Element::parse(query(ignored).as_bytes()).unwrap()).as_deref(), Some("f<"));
    }
}
