//! What crosses a cluster boundary: presence-related or not, real-time or not (Z5, Z12).
//!
//! Lives on: cores with a connection to another cluster. Pure: the operator's policy and the matter decide, nothing else.
//! Invariant: what takes a right away, and what a log-in waits for, is real-time whatever the policy.

use crate::wire::event::Head;
use crate::wire::presence::{PresenceFields, PresenceView};

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

    /// Whether anything may wait.
    pub fn is_patient(self) -> bool {
        self.waits != 0
    }
}

/// What changed from one update of a session to the next, as far as it's known.
pub fn change(last: Option<(Head, PresenceView<'_>)>, new: (Head, PresenceView<'_>)) -> Matter {
    let Some((last_head, last)) = last else { return Matter::Show };
    let (head, new) = new;
    if (last_head.show, last_head.flags) != (head.show, head.flags) || last.resource != new.resource {
        return Matter::Show;
    }
    let (last, new) = (last.fields(), new.fields());
    let is_but_text = PresenceFields { status: "", ..last } == PresenceFields { status: "", ..new };
    if is_but_text && last.status != new.status { Matter::StatusText } else { Matter::Details }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{SessionId, UserId, Version};
    use crate::wire::encode::Encoder;
    use crate::wire::native::Show;
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
    fn a_change_of_text_alone_is_told_from_others() {
        let head = |show, flags| Head { user: UserId(1), version: Version::default(), session: SessionId(1), show, flags };
        let fields = PresenceFields { resource: "desk", status: "lunch", caps: "c", ..Default::default() };
        let encode = |fields| Encoder::default().presence(&fields);
        let old = encode(fields);
        let change = |show, flags, fields| {
            let new = encode(fields);
            let of = |bytes| read(bytes).unwrap();
            super::change(Some((head(Show::Away, 0), of(&old))), (head(show, flags), of(&new)))
        };
        assert_eq!(change(Show::Away, 0, PresenceFields { status: "back", ..fields }), Matter::StatusText);
        assert_eq!(change(Show::Away, 0, PresenceFields { status: "back", caps: "d", ..fields }), Matter::Details);
        assert_eq!(change(Show::Away, 0, PresenceFields { idle_since: 5, ..fields }), Matter::Details);
        assert_eq!(change(Show::Chat, 0, PresenceFields { status: "back", ..fields }), Matter::Show);
        assert_eq!(change(Show::Away, 2, fields), Matter::Show);
        assert_eq!(change(Show::Away, 0, PresenceFields { resource: "phone", ..fields }), Matter::Show);
        let first = (head(Show::Away, 0), read(&old).unwrap());
        assert_eq!(super::change(None, first), Matter::Show);
    }
}
