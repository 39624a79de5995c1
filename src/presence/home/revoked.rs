//! Whom the users of a core have revoked lately. The homes of those know it by now, but what they had told an edge of another node
//! before, that it may see the publisher, may still be on its way there: whoever answers in the publisher's place must ask first.
//!
//! Lives on: every core. Serves Z7, Z8. Invariant: who was revoked is among them for as long as a lane may hold something back.

use crate::base::id::UserId;
use crate::base::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long they are kept: a lane that has been silent for its grace (`link.grace_ms`, 2.5 s unless an operator sets more) is lost,
/// and the sessions at its end with it.
const KEPT: Duration = Duration::from_secs(60);
/// So many are kept. At the limit: those that were revoked first are forgotten.
const MOST: usize = 65_536;

#[derive(Default)]
pub(super) struct Revoked {
    by: BTreeMap<UserId, Vec<UserId>>,
    /// Until when, in order: publisher, subscriber.
    until: VecDeque<(Time, UserId, UserId)>,
}

impl Revoked {
    pub fn note(&mut self, now: Time, publisher: UserId, subscriber: UserId) {
        self.by.entry(publisher).or_default().push(subscriber);
        self.until.push_back((now + KEPT, publisher, subscriber));
        if self.until.len() > MOST {
            let oldest = self.until.pop_front();
            self.forget(oldest);
        }
    }

    pub fn by(&self, publisher: UserId) -> &[UserId] {
        self.by.get(&publisher).map_or(&[], Vec::as_slice)
    }

    pub fn forget_old(&mut self, now: Time) {
        while let Some(oldest) = self.until.pop_front_if(|(until, ..)| *until <= now) {
            self.forget(Some(oldest));
        }
    }

    fn forget(&mut self, oldest: Option<(Time, UserId, UserId)>) {
        let Some((_, publisher, subscriber)) = oldest else { return };
        let Some(all) = self.by.get_mut(&publisher) else { return };
        all.iter().position(|&one| one == subscriber).into_iter().for_each(|at| _ = all.swap_remove(at));
        if all.is_empty() {
            self.by.remove(&publisher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z8_who_was_revoked_is_kept_for_a_while_and_no_more_of_them_than_there_may_be() {
        let mut revoked = Revoked::default();
        let at = |seconds: u64| Time::ZERO + Duration::from_secs(seconds);
        [(0, 5), (10, 6), (20, 5)].into_iter().for_each(|(seconds, user)| revoked.note(at(seconds), UserId(1), UserId(user)));
        assert_eq!((revoked.by(UserId(1)), revoked.by(UserId(5))), (&[UserId(5), UserId(6), UserId(5)][..], &[][..]));
        revoked.forget_old(at(70));
        assert_eq!(revoked.by(UserId(1)), [UserId(5)], "it was revoked again");
        revoked.forget_old(at(80));
        assert!(revoked.by.is_empty() && revoked.until.is_empty());
        (0..=MOST as u64).for_each(|user| revoked.note(at(100), UserId(user), UserId(7)));
        assert_eq!((revoked.by.len(), revoked.by(UserId(0)).len(), revoked.by(UserId(1)).len()), (MOST, 0, 1));
    }
}
