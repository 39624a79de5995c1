//! What crosses a cluster boundary: presence-related or not, real-time or not (Z5, Z12).
//!
//! Lives on: cores with a connection to another cluster. Pure: the operator's policy and the matter decide, nothing else.
//! Invariant: what takes a right away, and what a log-in waits for, is real-time whatever the policy.

use crate::base::id::{SessionId, UserId};
use crate::wire::event::{Head, REFERENCE};
use crate::wire::native::Show;
use crate::wire::presence::{PresenceFields, PresenceView};
use ahash::RandomState;
use std::collections::HashMap;
use std::hint::black_box;

macro_rules! matters {
    ($($matter:ident = $word:literal, $is_presence:literal, $text:literal;)*) => {
        /// What a message between clusters is about.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Matter { $(#[doc = $text] $matter,)* }

        impl Matter {
            pub const ALL: &'static [Matter] = &[$(Matter::$matter),*];

            /// The word in `link.non_real_time`; "": it can't be put there.
            pub fn word(self) -> &'static str {
                match self { $(Matter::$matter => $word,)* }
            }

            fn is_presence(self) -> bool {
                match self { $(Matter::$matter => $is_presence,)* }
            }
        }
    };
}

matters! {
    Show = "show", true, "Somebody came, went, or is now busy, away, ...";
    StatusText = "status_text", true, "Nothing changed but the status text.";
    Details = "details", true, "Nothing changed but the rest of a presence: since when idle, capabilities, payload, priority.";
    Inactive = "inactive", true, "Any of these, and nobody there is active now (XEP-0352).";
    Subscription = "subscriptions", true, "A subscription is asked for, given, or given up; its way back.";
    Revocation = "", true, "A subscription is taken back, somebody is blocked, an account is gone.";
    Interest = "", true, "A cluster begins or ceases to watch somebody, and what is answered.";
    Message = "messages", false, "Somebody writes to somebody.";
    Question = "questions", false, "A question about somebody, and its answer.";
    Directory = "", false, "Where somebody lives.";
}

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    pub is_presence: bool,
    /// Now, and never behind what isn't. Else: in the next complex message.
    pub is_real_time: bool,
}

/// What the operator lets wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// A bit for each of `Matter::ALL`.
    waits: u16,
}

impl Policy {
    /// Words that mean nothing mean nothing: the configuration's check has refused them.
    pub fn new<'w>(words: impl IntoIterator<Item = &'w str>) -> Policy {
        let named = |word: &str| Matter::ALL.iter().copied().find(|matter| !word.is_empty() && matter.word() == word);
        let waits = words.into_iter().filter_map(named).fold(0, |waits, matter| waits | 1 << matter as u16);
        Policy { waits }
    }

    #[inline]
    pub fn class(self, matter: Matter) -> Class {
        Class { is_presence: matter.is_presence(), is_real_time: self.waits & 1 << matter as u16 == 0 }
    }

    /// The class of an update, for a cluster where somebody is active or nobody is.
    #[inline]
    pub fn class_of_update(self, change: Matter, somebody_is_active: bool) -> Class {
        let inactive = self.class(Matter::Inactive);
        if somebody_is_active || inactive.is_real_time { self.class(change) } else { inactive }
    }

    /// Whether it makes a difference that nobody is active somewhere.
    pub fn minds_activity(self) -> bool {
        !self.class(Matter::Inactive).is_real_time
    }

    /// Whether anything may wait.
    pub fn is_patient(self) -> bool {
        self.waits != 0
    }
}

/// Sessions of which it's known what they looked like. At the limit: all is forgotten, and what comes next is real-time.
pub const FACES: usize = 1 << 20;

/// What each session looked like when a cluster was last told of it, so that a change has a name.
pub struct Faces {
    /// Hashes of who and how available it is, and of everything else but the status text.
    seen: HashMap<(UserId, SessionId), (u64, u64), RandomState>,
    hasher: RandomState,
}

impl Faces {
    pub fn new(hasher: RandomState) -> Faces {
        Faces { seen: HashMap::with_hasher(hasher.clone()), hasher }
    }

    /// Whom they were for is gone.
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// Reads what is known of these before it is asked for, so that the cache misses are under way together.
    pub fn expect(&self, heads: impl Iterator<Item = Head>) {
        let seen = |head: Head| self.seen.get(&(head.user, head.session)).map_or(0, |(look, _)| *look);
        black_box(heads.map(seen).fold(0, |all, one| all ^ one));
    }

    /// What changes with an update, as far as it's known. Without a presence it's a session that was cut off.
    pub fn change(&mut self, head: Head, presence: Option<PresenceView<'_>>) -> Matter {
        let key = (head.user, head.session);
        let Some(presence) = presence.filter(|_| head.show != Show::Unavailable) else {
            self.seen.remove(&key);
            return Matter::Show;
        };
        let fields = presence.fields();
        let look = self.hasher.hash_one((head.show.0, head.flags & !REFERENCE, fields.resource));
        let PresenceFields { priority, idle_since, caps, payload, stamp, extensions, .. } = fields;
        let rest = match head.flags & REFERENCE {
            0 => self.hasher.hash_one((priority, idle_since, caps, payload, stamp, extensions)),
            // What the rest is will be asked.
            _ => self.hasher.hash_one(head.version),
        };
        if self.seen.len() >= FACES {
            self.seen.clear();
        }
        match self.seen.insert(key, (look, rest)) {
            Some((before, _)) if before != look => Matter::Show,
            Some((_, before)) if before == rest => Matter::StatusText,
            Some(_) => Matter::Details,
            None => Matter::Show,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Version;
    use crate::wire::encode::Encoder;
    use crate::wire::presence::read;

    #[test]
    fn z5_everything_is_real_time_until_the_operator_says_otherwise() {
        let policies = [Policy::default(), Policy::new(["", "revocation", "interest"])];
        for &matter in Matter::ALL {
            assert!(policies.iter().all(|policy| policy.class(matter).is_real_time && !policy.is_patient()), "{matter:?}");
        }
        let unrelated = [Matter::Message, Matter::Question, Matter::Directory];
        assert!(Matter::ALL.iter().all(|matter| Policy::default().class(*matter).is_presence != unrelated.contains(matter)));
    }

    #[test]
    fn z12_what_the_policy_names_waits_and_nothing_else() {
        for &matter in Matter::ALL {
            let policy = Policy::new([matter.word()]);
            let waiting: Vec<Matter> = Matter::ALL.iter().copied().filter(|other| !policy.class(*other).is_real_time).collect();
            assert_eq!(waiting, if matter.word().is_empty() { vec![] } else { vec![matter] });
        }
        let policy = Policy::new(["inactive"]);
        assert_eq!([true, false].map(|active| policy.class_of_update(Matter::Show, active).is_real_time), [true, false]);
        let policy = Policy::new(["status_text"]);
        assert_eq!(
            [Matter::Show, Matter::StatusText].map(|change| policy.class_of_update(change, false).is_real_time),
            [true, false]
        );
    }

    #[test]
    fn z12_a_change_of_text_alone_is_told_from_others() {
        let head = |show, flags| Head { user: UserId(1), version: Version::default(), session: SessionId(1), show, flags };
        let fields = fields();
        let change = |show, flags, next: PresenceFields<'_>| {
            let mut faces = Faces::new(RandomState::with_seeds(1, 2, 3, 4));
            let [first, next] = [fields, next].map(|fields| Encoder::default().presence(&fields));
            assert_eq!(faces.change(head(Show::Away, 0), Some(read(&first).unwrap())), Matter::Show, "it's the first");
            faces.change(head(show, flags), Some(read(&next).unwrap()))
        };
        assert_eq!(change(Show::Away, 0, PresenceFields { status: "back", ..fields }), Matter::StatusText);
        assert_eq!(change(Show::Away, 0, PresenceFields { status: "back", caps: "d", ..fields }), Matter::Details);
        assert_eq!(change(Show::Away, 0, PresenceFields { idle_since: 5, ..fields }), Matter::Details);
        assert_eq!(change(Show::Chat, 0, PresenceFields { status: "back", ..fields }), Matter::Show);
        assert_eq!(change(Show::Away, 2, fields), Matter::Show);
        assert_eq!(change(Show::Away, 0, PresenceFields { resource: "phone", ..fields }), Matter::Show);
        assert_eq!(change(Show::Unavailable, 0, fields), Matter::Show);
        let reference = PresenceFields { resource: "desk", ..Default::default() };
        assert_eq!(change(Show::Away, REFERENCE, reference), Matter::Details, "nobody knows what");
        assert_eq!(change(Show::Chat, REFERENCE, reference), Matter::Show);
    }

    fn fields() -> PresenceFields<'static> {
        PresenceFields { resource: "desk", status: "lunch", caps: "c", ..Default::default() }
    }

    #[test]
    fn who_comes_back_is_news_whatever_was_known() {
        let bytes = Encoder::default().presence(&fields());
        let head = |show| Head { user: UserId(1), version: Version::default(), session: SessionId(1), show, flags: 0 };
        let mut faces = Faces::new(RandomState::with_seeds(1, 2, 3, 4));
        for (show, presence) in [(Show::Away, true), (Show::Unavailable, false), (Show::Away, true)] {
            assert_eq!(faces.change(head(show), presence.then(|| read(&bytes).unwrap())), Matter::Show);
        }
    }
}
