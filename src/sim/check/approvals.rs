//! Nobody unapproved ever receives presence: once the publisher's change was stored and the publisher's home was told so, nothing
//! newer than what the publisher had said until then reaches the ex-subscriber.
//!
//! Judges by the stored rows alone (what homes were told is stored), not by what homes make of them.

use super::{Check, Held};
use crate::base::id::{SessionId, UserId, Version};
use crate::base::jid::Bare;
use crate::base::time::{Time, WallClock};
use crate::presence::subscription::State;
use crate::shard::Shard;
use crate::store::memory::Memory;
use crate::store::rows::{self, Row};
use crate::store::{Backend, Commit, Durability, Table, Write};
use crate::wire::event::{Event, LAST};
use std::collections::{BTreeMap, BTreeSet};

/// The newest that a publisher had said when the approval ended.
#[derive(Clone)]
struct Fence {
    /// What has an older one was said in a former life of the home, whose sessions were others, and is repeated at most.
    epoch: u32,
    versions: BTreeMap<SessionId, Version>,
    /// Sessions with lower numbers that are not among them had ended, and said nothing more.
    next_session: SessionId,
    wall: WallClock,
}

impl Fence {
    fn of(shard: &Shard, user: UserId, wall: WallClock) -> Option<Fence> {
        let home = shard.homes.get(shard.homes.by_user(user)?)?;
        let epoch = shard.homes.place.epoch;
        let versions = home.sessions.iter().map(|s| (s.id, Version { epoch, sequence: s.sequence })).collect();
        Some(Fence { epoch, versions, next_session: SessionId(home.next_session), wall })
    }
}

#[derive(Default)]
pub struct Approvals {
    told: Memory,
    /// (publisher, subscriber)
    approved: BTreeSet<(UserId, UserId)>,
    /// The same pairs, as the subscriber has them: who wants to see whom.
    wanted: BTreeSet<(UserId, UserId)>,
    /// How often either ended.
    ends: BTreeMap<(UserId, UserId), usize>,
    fences: BTreeMap<(UserId, UserId), Fence>,
    removed: BTreeSet<UserId>,
    /// By publisher, in the last life of its home.
    last_said: BTreeMap<UserId, Fence>,
}

impl Approvals {
    /// A home's machine stops: nobody who may not see its users any more once it starts again will know more than this.
    pub fn stopped(&mut self, shard: &Shard, now: Time) {
        let wall = shard.homes.place.wall(now);
        for jid in shard.homes.names() {
            let Some(user) = self.user(&jid) else { continue };
            let fence = Fence::of(shard, user, wall);
            self.last_said.extend(fence.map(|fence| (user, fence)));
        }
    }

    /// A node has loaded these rows, of the users who live there. What it had said in its former life may still be under way.
    pub fn started(&mut self, stored: &Memory, lives_there: impl Fn(&Bare) -> bool) {
        let is_its = |key: &[u8]| key.split(|&byte| byte == 0).next().and_then(name).is_some_and(|owner| lives_there(&owner));
        let (before, mut writes) = (self.told.clone(), Vec::new());
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
            let old = before.rows(table).filter(|(key, _)| is_its(key));
            writes.extend(old.map(|(key, _)| Write { table, key: key.to_vec(), value: None }));
            let new = stored.rows(table);
            writes.extend(new.map(|(key, value)| Write { table, key: key.to_vec(), value: Some(value.to_vec()) }));
        }
        let users = |told: &Approvals| -> Vec<(Bare, UserId)> {
            let owners = told.told.rows(Table::Accounts).filter_map(|(key, _)| name(key));
            owners.filter_map(|owner| Some((owner.clone(), told.user(&owner)?))).collect()
        };
        let had = users(self);
        self.told.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }]).expect("a copy has no faults");
        let has = users(self);
        self.removed.extend(had.iter().map(|(_, user)| *user).filter(|user| !has.iter().any(|(_, there)| there == user)));
        let approved: BTreeSet<(UserId, UserId)> = has
            .iter()
            .flat_map(|(owner, user)| self.subscribers(owner).into_iter().map(|subscriber| (*user, subscriber)))
            .collect();
        let wanted = has.iter().flat_map(|(owner, user)| self.publishers(owner).into_iter().map(|publisher| (publisher, *user)));
        let wanted: BTreeSet<(UserId, UserId)> = wanted.collect();
        for &pair in self.approved.difference(&approved) {
            self.fences.extend(self.last_said.get(&pair.0).map(|fence| (pair, fence.clone())));
        }
        for &pair in self.approved.difference(&approved).chain(self.wanted.difference(&wanted)) {
            *self.ends.entry(pair).or_default() += 1;
        }
        self.fences.retain(|pair, _| !approved.contains(pair));
        (self.approved, self.wanted) = (approved, wanted);
    }

    /// A home is about to be told that these writes are stored.
    pub fn tell(&mut self, writes: &[Write], shard: &Shard, wall: WallClock) {
        let owners: BTreeSet<Bare> = writes.iter().filter_map(|write| name(write.key.split(|&byte| byte == 0).next()?)).collect();
        let before: Vec<(Bare, Option<UserId>)> = owners.into_iter().map(|owner| (owner.clone(), self.user(&owner))).collect();
        let commit = Commit { ticket: 0, writes: writes.to_vec(), durability: Durability::Synced };
        self.told.apply(&[commit]).expect("a copy has no faults");
        for (owner, user_before) in before {
            match (user_before, self.user(&owner)) {
                (Some(user), None) => {
                    self.removed.insert(user);
                    let both = self.approved.iter().filter(|pair| pair.0 == user).chain(&self.wanted);
                    for &pair in both.filter(|pair| pair.0 == user || pair.1 == user) {
                        *self.ends.entry(pair).or_default() += 1;
                    }
                    self.wanted.retain(|pair| pair.1 != user);
                }
                (_, Some(user)) => self.look_again(user, &owner, shard, wall),
                (None, None) => {}
            }
        }
    }

    fn look_again(&mut self, user: UserId, owner: &Bare, shard: &Shard, wall: WallClock) {
        let now: BTreeSet<UserId> = self.subscribers(owner).into_iter().collect();
        let had = self.approved.range((user, UserId(0))..=(user, UserId(u64::MAX))).map(|pair| pair.1);
        let ended: Vec<UserId> = had.filter(|subscriber| !now.contains(subscriber)).collect();
        for subscriber in ended {
            self.approved.remove(&(user, subscriber));
            *self.ends.entry((user, subscriber)).or_default() += 1;
            self.fences.extend(Fence::of(shard, user, wall).map(|fence| ((user, subscriber), fence)));
        }
        for subscriber in now {
            if self.approved.insert((user, subscriber)) {
                self.fences.remove(&(user, subscriber));
            }
        }
        let now: BTreeSet<(UserId, UserId)> = self.publishers(owner).into_iter().map(|publisher| (publisher, user)).collect();
        for &pair in self.wanted.iter().filter(|pair| pair.1 == user && !now.contains(pair)) {
            *self.ends.entry(pair).or_default() += 1;
        }
        self.wanted.retain(|pair| pair.1 != user);
        self.wanted.extend(now);
    }

    /// How often a subscriber's sight of a publisher has ended, by either side's doing.
    pub fn ends(&self, publisher: UserId, subscriber: UserId) -> usize {
        self.ends.get(&(publisher, subscriber)).copied().unwrap_or(0)
    }

    fn user(&self, jid: &Bare) -> Option<UserId> {
        let row = self.told.get(Table::Accounts, &rows::user_key(jid))?;
        Some(rows::Account::decode(row).expect("rows are sound").user)
    }

    /// Who may see a user, by the rows.
    fn subscribers(&self, owner: &Bare) -> Vec<UserId> {
        self.contacts(owner, |state| state.has(State::FROM))
    }

    /// Whom a user wants to see, and is not kept from seeing, by the rows.
    fn publishers(&self, owner: &Bare) -> Vec<UserId> {
        self.contacts(owner, |state| state.has(State::TO) && !state.has(State::BARRED))
    }

    /// A user's contacts of whom something holds, but for those whom the user has blocked.
    fn contacts(&self, owner: &Bare, holds: impl Fn(State) -> bool) -> Vec<UserId> {
        let prefix = rows::owner_prefix(owner);
        let items = self.told.rows(Table::Roster).filter(|(key, _)| key.starts_with(&prefix));
        let contacts = items.filter_map(|(key, value)| {
            let row = rows::Contact::decode(value).expect("rows are sound");
            let is_one = State::from_bits(row.state).is_some_and(&holds) && self.told.get(Table::Blocked, key).is_none();
            is_one.then_some(row.user)
        });
        contacts.collect()
    }

    /// A client of this user has received an event.
    pub fn received(&self, subscriber: UserId, event: &Event<'_>) -> Held {
        let head = event.head;
        let pair = (head.user, subscriber);
        if head.user == subscriber || self.approved.contains(&pair) || self.removed.contains(&head.user) {
            return Ok(());
        }
        let allowed = self.fences.get(&pair).is_some_and(|fence| match head.flags & LAST != 0 {
            true => event.presence.is_none_or(|presence| presence.fields().stamp <= fence.wall.0),
            false if head.version.epoch < fence.epoch => true,
            false => {
                let last = fence.versions.get(&head.session);
                last.map_or(head.session < fence.next_session, |version| head.version <= *version)
            }
        });
        Check::NobodyUnapprovedReceives.holds(allowed, || {
            let until = self.fences.get(&pair).map(|fence| &fence.versions);
            format!("{subscriber:?} received {head:?}, but may not know more than {until:?}")
        })
    }

    /// What homes were told is stored.
    pub fn told(&self) -> &Memory {
        &self.told
    }
}

fn name(key: &[u8]) -> Option<Bare> {
    Bare::new(std::str::from_utf8(key).ok()?)
}
