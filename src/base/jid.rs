//! JIDs (RFC 7622): read once where they enter, prepared for comparison, then plain strings.
//!
//! Invariant: a `Bare` is prepared, so equal users have equal bytes, and stays the same when it's read again.

use super::limits::JID_PART_BYTES;
use std::fmt;

/// A prepared bare JID: local@domain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bare(Box<str>);

impl From<Bare> for String {
    fn from(jid: Bare) -> String {
        jid.0.into()
    }
}

impl TryFrom<String> for Bare {
    type Error = &'static str;

    /// Only in its prepared form: in another one, a name could be there twice.
    fn try_from(text: String) -> Result<Bare, &'static str> {
        Bare::new(&text).filter(|jid| jid.as_str() == text).ok_or("not a JID in its prepared form")
    }
}

impl Bare {
    /// Reads and prepares a bare JID. `None`: not a JID, or one with a resource.
    pub fn new(text: &str) -> Option<Bare> {
        if is_plain(text) {
            return Some(Bare(text.into()));
        }
        let jid = ::jid::BareJid::new(text).ok()?;
        jid.node()?;
        // The rules don't come to rest on every text (RFC 8264 section 7), and what goes on changing names another user each time.
        let again = ::jid::BareJid::new(jid.as_str()).ok()?;
        (again == jid).then(|| Bare(jid.as_str().into()))
    }

    /// Reads `local@domain` or `local@domain/resource`.
    pub fn with_resource(text: &str) -> Option<(Bare, Option<&str>)> {
        match text.split_once('/') {
            None => Some((Bare::new(text)?, None)),
            Some((bare, resource)) => {
                let fits = (1..=JID_PART_BYTES).contains(&resource.len()) && !resource.chars().any(char::is_control);
                fits.then_some((Bare::new(bare)?, Some(resource)))
            }
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }

    pub fn local(&self) -> &str {
        self.0.split_once('@').map_or("", |(local, _)| local)
    }
}

/// Lower-case ASCII letters, digits, '.', '-' and '_' around one '@' need no preparation: nearly every JID there is.
fn is_plain(text: &str) -> bool {
    let plain = |part: &str| {
        (1..=JID_PART_BYTES).contains(&part.len())
            && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
    };
    let domain_shape = |domain: &str| {
        domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.contains('_')
                && !label.ends_with('-')
                && !label.starts_with("xn--")
        })
    };
    text.split_once('@').is_some_and(|(local, domain)| plain(local) && plain(domain) && domain_shape(domain))
}

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_jids_of_one_user_are_equal() {
        assert_eq!(Bare::new("Alice@Example.ORG"), Bare::new("alice@example.org"));
        assert_eq!(Bare::new("alice@example.org").unwrap().local(), "alice");
        assert_eq!(Bare::new("alice@example.org").unwrap().domain(), "example.org");
    }

    #[test]
    fn what_is_not_a_users_jid_is_refused() {
        for text in ["", "@", "alice", "alice@", "@example.org", "a@b/c", "a b@example.org", "a@b@c", "a\0@b", "example.org"] {
            assert_eq!(Bare::new(text), None, "{text:?}");
        }
        assert!(Bare::new(&format!("{}@b", "a".repeat(1023))).is_some());
        assert!(Bare::new(&format!("{}@b", "a".repeat(1024))).is_none());
    }

    #[test]
    fn what_goes_on_changing_when_it_is_prepared_is_refused() {
        let once = ::jid::BareJid::new("alic\u{213b}nxn-\u{f6}crrgcc\u{345}\u{f6}crrm@lxx.ll").unwrap();
        assert_ne!(
            ::jid::BareJid::new(once.as_str()).ok().as_ref(),
            Some(&once),
            "still unstable: else this test is about nothing"
        );
        assert_eq!(Bare::new("alic\u{213b}nxn-\u{f6}crrgcc\u{345}\u{f6}crrm@lxx.ll"), None);
        assert!(Bare::new("gr\u{fc}\u{df}e@b\u{fc}cher.example").is_some());
    }

    #[test]
    fn the_plain_path_agrees_with_the_full_preparation() {
        for text in ["alice@localhost", "u-1_2.3@a-b.example.org", "0@0"] {
            assert!(is_plain(text), "{text}");
            assert_eq!(Bare::new(text).unwrap().as_str(), ::jid::BareJid::new(text).unwrap().as_str());
        }
    }

    #[test]
    fn resources_keep_their_case_and_their_slashes() {
        let (bare, resource) = Bare::with_resource("a@b/C/d").unwrap();
        assert_eq!((bare.as_str(), resource), ("a@b", Some("C/d")));
        assert_eq!(Bare::with_resource("a@b/"), None);
    }
}
