//! Users that a publisher has revoked: whoever answers in the publisher's place asks the publisher's home before it gives them
//! anything again.
//!
//! Lives on: edges and relays, with the record of a publisher. Serves Z7, Z8. Invariant: a revoked user is asked about until the
//! publisher's home has approved it again.

use crate::base::id::UserId;

/// Revoked users that one record keeps in mind. At the limit: the publisher's home is asked about every new subscriber.
const MOST: usize = 1024;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AskFirst {
    users: Vec<UserId>,
    /// There were more of them than are kept.
    always: bool,
}

impl AskFirst {
    pub fn must_ask(&self, user: UserId) -> bool {
        self.always || self.users.contains(&user)
    }

    pub fn add(&mut self, user: UserId) {
        if self.must_ask(user) {
            return;
        }
        if self.users.len() == MOST {
            *self = AskFirst { users: Vec::new(), always: true };
        } else {
            self.users.push(user);
        }
    }

    /// The publisher has approved a subscriber, and told of those whose homes may not know yet that they were revoked.
    pub fn approved(&mut self, subscriber: UserId, revoked: &[UserId]) {
        self.users.retain(|&user| user != subscriber);
        revoked.iter().filter(|&&user| user != subscriber).for_each(|&user| self.add(user));
    }

    /// Those that are kept in mind by name.
    pub fn users(&self) -> &[UserId] {
        &self.users
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && !self.always
    }

    /// Whether everybody is asked about.
    pub fn is_everybody(&self) -> bool {
        self.always
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_everybody_is_asked_about() {
        let mut first = AskFirst::default();
        (1..=MOST as u64).for_each(|user| first.add(UserId(user)));
        first.add(UserId(1));
        assert!(first.must_ask(UserId(7)) && !first.must_ask(UserId(0)) && !first.is_everybody());
        first.approved(UserId(7), &[UserId(3)]);
        assert!(!first.must_ask(UserId(7)) && first.must_ask(UserId(3)));
        (5000..5002).for_each(|user| first.add(UserId(user)));
        assert!(first.must_ask(UserId(0)) && first.is_everybody());
    }
}
