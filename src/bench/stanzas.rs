//! Stanzas as a benchmark recognises them: found whole in what came and told apart, not parsed. The server is trusted to write
//! well-formed XML, and a figure to be sound only if every delivery was recognised.
//!
//! Lives on: the generator's pinned thread. Serves G6. User 5 is `bench-5@domain`.

use memchr::memchr;
use memchr::memmem::{self, Finder};

const END: &[u8] = b"</presence>";

/// Finds stanzas, and updates among them. What is looked for in each is prepared once: a slow generator would be what is measured.
pub struct Scanner {
    end: Finder<'static>,
    from: Finder<'static>,
    status: Finder<'static>,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner { end: Finder::new(END), from: Finder::new(" from="), status: Finder::new("<status>") }
    }
}

impl Scanner {
    /// Hands over the whole stanzas at the start of `bytes`, stream headers and declarations among them; gives the length of all.
    #[inline]
    pub fn stanzas<'a>(&self, bytes: &'a [u8], mut each: impl FnMut(&'a [u8])) -> usize {
        let mut used = 0;
        while let Some(length) = self.stanza_bytes(&bytes[used..]) {
            each(bytes[used..used + length].trim_ascii_start());
            used += length;
        }
        used
    }

    /// Length of the first stanza, with white space before it; `None`: its end has not come.
    #[inline]
    fn stanza_bytes(&self, bytes: &[u8]) -> Option<usize> {
        if !bytes.starts_with(b"<presence ") {
            return any_stanza_bytes(bytes);
        }
        // Nearly all that comes. No presence has another in it.
        let tag = memchr(b'>', bytes)?;
        let is_empty = bytes[tag - 1] == b'/';
        if is_empty { Some(tag + 1) } else { self.end.find(&bytes[tag..]).map(|at| tag + at + END.len()) }
    }

    /// Whose update a presence is, and which.
    #[inline]
    pub fn update(&self, stanza: &[u8]) -> Option<(u32, u32)> {
        if !stanza.starts_with(b"<presence") {
            return None;
        }
        let from = &stanza[self.from.find(stanza)? + " from=".len()..];
        let user = from[1..].strip_prefix(b"bench-").and_then(|jid| number(jid, b'@'))?;
        let status = &stanza[self.status.find(stanza)? + "<status>".len()..];
        Some((user, number(status, b'<')?))
    }
}

fn any_stanza_bytes(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        let start = at + memchr(b'<', &bytes[at..])?;
        let end = start + memchr(b'>', &bytes[start..])?;
        let tag = &bytes[start..=end];
        at = end + 1;
        match tag {
            [b'<', b'?' | b'!', ..] => return Some(at),
            [b'<', b'/', ..] => depth -= 1,
            [.., b'/', b'>'] => {}
            _ if tag.starts_with(b"<stream:stream") => return Some(at),
            _ => depth += 1,
        }
        if depth <= 0 {
            return Some(at);
        }
    }
}

/// The number at the start of `bytes`, if `end` comes right behind it.
#[inline]
fn number(bytes: &[u8], end: u8) -> Option<u32> {
    let mut number = None;
    for &byte in bytes {
        match byte {
            b'0'..=b'9' => number = Some(number.unwrap_or(0_u32).checked_mul(10)?.checked_add(u32::from(byte - b'0'))?),
            _ if byte == end => return number,
            _ => return None,
        }
    }
    None
}

/// The number of a user of the benchmark.
pub fn user(jid: &[u8]) -> Option<u32> {
    number(jid.strip_prefix(b"bench-")?, b'@')
}

/// The value of an attribute of the first tag.
pub fn attribute<'a>(stanza: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let tag = &stanza[..memchr(b'>', stanza)?];
    let mut found = memmem::find_iter(tag, name.as_bytes());
    let is_whole = |&at: &usize| at > 0 && matches!(tag[at - 1], b' ' | b'\n') && tag.get(at + name.len()) == Some(&b'=');
    let value = &tag[found.find(is_whole)? + name.len() + 1..];
    let (&quote, value) = value.split_first()?;
    Some(&value[..memchr(quote, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_found_whole_and_told_apart() {
        let text = b"<?xml version='1.0'?><stream:stream id='a'><stream:features><a/><b>x</b></stream:features>\n\
                     <presence from='bench-7@d/b' to='bench-8@d'><show>away</show><status>00000042</status></presence><iq";
        let scanner = Scanner::default();
        let mut found = Vec::new();
        let used = scanner.stanzas(text, |stanza| found.push(stanza));
        assert_eq!(&text[used..], b"<iq");
        assert_eq!(found.len(), 4);
        assert!(found[2].starts_with(b"<stream:features"));
        assert_eq!(scanner.update(found[3]), Some((7, 42)));
        assert_eq!(attribute(found[3], "to"), Some(&b"bench-8@d"[..]));
        assert_eq!(attribute(found[3], "o"), None);
    }

    #[test]
    fn a_presence_that_is_no_update_is_not_taken_for_one() {
        let scanner = Scanner::default();
        let none = [
            "<presence to='bench-1@d' from='bench-2@d/b'/>",
            "<presence from='bench-2@d/b'><status>out</status></presence>",
            "<presence from='bench-2@d/b'><status></status></presence>",
            "<presence from='other@d/b'><status>1</status></presence>",
            "<presence from='bench-99999999999@d/b'><status>1</status></presence>",
            "<message from='bench-2@d/b'><status>1</status></message>",
        ];
        none.iter().for_each(|text| assert_eq!(scanner.update(text.as_bytes()), None, "{text}"));
        let delayed = b"<presence xml:lang='en' from=\"bench-2@d/b\" to='bench-1@d'><delay/><status>3</status></presence>";
        assert_eq!(scanner.update(delayed), Some((2, 3)));
    }

    #[test]
    fn a_stanza_that_is_cut_waits_for_its_end() {
        let scanner = Scanner::default();
        for text in ["<presence from='bench-1@d/b'><status>1</status></presence>", "<presence from='a'/>", "<iq><a/><b>c</b></iq>"]
        {
            for cut in 0..text.len() {
                assert_eq!(scanner.stanzas(&text.as_bytes()[..cut], |_| panic!("it is not whole")), 0);
            }
            let twice = text.repeat(2);
            assert_eq!(scanner.stanzas(twice.as_bytes(), |stanza| assert_eq!(stanza, text.as_bytes())), 2 * text.len());
        }
    }
}
