//! What the operator wants of every core of a cluster: whose users each has, and what it keeps as the directory.
//!
//! Lives on: every core. Serves Z1. A survey goes to one core, wherever that is, and one answer comes back, as an errand's does.
//! Invariant: an answer fits into an entry of a link, however much there is to tell.

use super::errand::{Answer, Caller};
use super::home::Homes;
use super::outbox::Outbox;
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes of the names in one answer. At the limit: there is more behind it.
const NAME_BYTES: usize = 65_536;

/// Something that the operator wants of a core.
#[derive(Debug, Serialize, Deserialize)]
pub struct Survey {
    pub caller: Caller,
    pub inspect: Inspect,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Inspect {
    /// Its users behind this name, in the order of their names, so many at most.
    Users { after: Option<Bare>, most: usize },
    /// How many names of each cluster it keeps as the directory.
    Names,
    /// The same of one cluster: they go, so many at most.
    Forget { cluster: u16, most: usize },
}

/// What a core says of that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Found {
    /// `more`: there are some behind the last.
    Users { users: Vec<UserLine>, more: bool },
    /// By cluster.
    Names(BTreeMap<u16, u64>),
    /// So many are gone for good, so many are left.
    Forgotten { gone: u64, left: u64 },
}

/// One user, for lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserLine {
    pub jid: Bare,
    pub user: UserId,
    pub sessions: usize,
    pub contacts: usize,
}

impl Homes {
    /// Answers a survey of this core; what must be stored first is answered then.
    pub fn survey(&mut self, Survey { caller, inspect }: Survey, out: &mut Outbox) {
        let found = match inspect {
            Inspect::Names | Inspect::Forget { .. } if out.map.is_any_coming() => {
                let why = "names are on their way to another node: try again";
                return caller.refuse(Reason::HomeOutOfReach, why.to_owned(), out);
            }
            Inspect::Users { after, most } => self.list(after.as_ref(), most),
            Inspect::Names => Found::Names(self.directory.counts()),
            Inspect::Forget { cluster, most } => return self.directory.forget(cluster, most, caller, out),
        };
        caller.answer(Answer::Found(Box::new(found)), out);
    }

    fn list(&self, after: Option<&Bare>, most: usize) -> Found {
        let (mut users, mut bytes) = (Vec::new(), 0);
        let (names, mut more) = self.names_behind(after, most);
        for jid in names {
            if bytes + jid.as_str().len() > NAME_BYTES && !users.is_empty() {
                more = true;
                break;
            }
            bytes += jid.as_str().len();
            let user = self.by_name(&jid).and_then(|at| self.get(at)).expect("it was found by its name");
            users.push(UserLine { user: user.id, sessions: user.sessions.len(), contacts: user.roster.contacts() as usize, jid });
        }
        Found::Users { users, more }
    }
}

/// What several cores tell of their users, as one page of at most so many; and whether there are more behind it.
pub fn merge<T>(parts: Vec<(T, Vec<UserLine>, bool)>, most: usize) -> (Vec<(T, UserLine)>, bool)
where
    T: Copy,
{
    // Behind the last name of a core that has more, that core's next ones might be missing.
    let ends = parts.iter().filter(|(_, _, more)| *more).filter_map(|(_, users, _)| users.last());
    let end = ends.map(|user| user.jid.clone()).min();
    let has_more = end.is_some();
    let all = parts.into_iter().flat_map(|(of, users, _)| users.into_iter().map(move |user| (of, user)));
    let mut page: Vec<(T, UserLine)> = all.filter(|(_, user)| end.as_ref().is_none_or(|end| user.jid <= *end)).collect();
    page.sort_unstable_by(|(_, one), (_, other)| one.jid.cmp(&other.jid));
    let is_cut = page.len() > most;
    page.truncate(most);
    (page, has_more || is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> UserLine {
        UserLine { jid: Bare::new(name).unwrap(), user: UserId::new(1, 1, 1), sessions: 0, contacts: 0 }
    }

    #[test]
    fn a_page_leaves_nobody_out_whoever_was_cut_short() {
        let part = |node: u16, names: &[&str], more| (node, names.iter().map(|name| line(name)).collect(), more);
        let page = |parts, most| {
            let (page, more) = merge(parts, most);
            (page.into_iter().map(|(node, user)| format!("{node}{}", user.jid)).collect::<Vec<_>>().join(" "), more)
        };
        let parts = || vec![part(1, &["a@d", "d@d"], false), part(2, &["b@d", "c@d"], true)];
        assert_eq!(page(parts(), 9), ("1a@d 2b@d 2c@d".into(), true), "what is behind c@d at the second is not known yet");
        assert_eq!(page(parts(), 2), ("1a@d 2b@d".into(), true));
        assert_eq!(page(vec![part(1, &["a@d"], false), part(2, &[], false)], 9), ("1a@d".into(), false));
        assert_eq!(page(vec![part(1, &["a@d"], false)], 1), ("1a@d".into(), false));
    }
}
