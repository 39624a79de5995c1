//! One user's roster: the contacts, how the user stands to each, and what the user calls them (RFC 6121 section 2).
//!
//! Lives on: the user's home core. Serves G1, J10. A million rosters of twenty contacts fit into memory, so an item is 40 bytes and
//! its JID, and the two ways to find one are scans of narrow columns (4 and 2 bytes per item) instead of maps: over 200 items a
//! scan costs less than hashing would.
//! Invariants: the columns and the counters follow the items; no JID stands in it twice; a known user id stands in it once.

use super::subscription::State;
use crate::base::id::{UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::limits::{GROUPS_PER_ITEM, TEXT_BYTES};
use crate::base::reason::Reason;

/// What the user calls a contact and where it is sorted. Always valid: see `Detail::new`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Detail {
    name: Box<str>,
    groups: Box<[Box<str>]>,
}

impl Detail {
    /// Checks a name and groups. Nothing to keep gives `None`. Errors: `TooLarge` beyond `TEXT_BYTES` or `GROUPS_PER_ITEM`;
    /// `BadRequest` for control characters, an empty group or a group twice (section 2.3.3).
    pub fn new<'a>(name: &str, groups: impl IntoIterator<Item = &'a str>) -> Result<Option<Box<Detail>>, Reason> {
        check_text(name)?;
        let mut kept: Vec<Box<str>> = Vec::new();
        for group in groups {
            check_text(group)?;
            if kept.len() == GROUPS_PER_ITEM {
                return Err(Reason::TooLarge);
            }
            if group.is_empty() || kept.iter().any(|other| **other == *group) {
                return Err(Reason::BadRequest);
            }
            kept.push(group.into());
        }
        let something = !name.is_empty() || !kept.is_empty();
        Ok(something.then(|| Box::new(Detail { name: name.into(), groups: kept.into() })))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        self.groups.iter().map(|group| &**group)
    }
}

fn check_text(text: &str) -> Result<(), Reason> {
    match text {
        _ if text.len() > TEXT_BYTES => Err(Reason::TooLarge),
        _ if text.chars().any(char::is_control) => Err(Reason::BadRequest),
        _ => Ok(()),
    }
}

/// One contact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The contact's number; `UserId::NOBODY` while it isn't known.
    pub user: UserId,
    pub jid: Bare,
    pub state: State,
    pub detail: Option<Box<Detail>>,
}

impl Item {
    pub fn name(&self) -> &str {
        self.detail.as_ref().map_or("", |detail| detail.name())
    }

    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.detail.iter().flat_map(|detail| detail.groups())
    }

    /// A number that changes, as good as surely, with anything that clients see of it.
    fn fingerprint(&self) -> u64 {
        let mut hash = hashed(0xcbf2_9ce4_8422_2325, &self.user.0.to_le_bytes());
        hash = hashed(hash, &[self.state.shown().bits()]);
        for text in [self.jid.as_str(), self.name()].into_iter().chain(self.groups()) {
            // No text holds this byte, so it parts them.
            hash = hashed(hashed(hash, text.as_bytes()), &[0xff]);
        }
        // The last bytes have reached few bits yet.
        (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// About what it takes in a frame.
    fn frame_bytes(&self) -> usize {
        64 + self.jid.as_str().len() + self.name().len() + self.groups().map(|group| group.len() + 12).sum::<usize>()
    }
}

/// Prints a roster's version.
pub fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

/// FNV-1a, continued: stable, so that versions outlive a restart of the node.
fn hashed(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The contacts of one user, in the order in which they came.
#[derive(Clone, Default, Debug)]
pub struct Roster {
    items: Vec<Item>,
    /// `user_key` of each item.
    users: Vec<u32>,
    /// `slot_of` each item's JID.
    slots: Vec<u16>,
    /// Items that clients see.
    visible: u32,
    /// Items whose contact waits for an answer.
    requests: u32,
}

impl Roster {
    /// Adds a contact that isn't there yet. Limits are the caller's business.
    ///
    /// # Panics
    /// When the JID is there already.
    pub fn restore(&mut self, item: Item) {
        assert!(self.find(&item.jid).is_none(), "{} is in the roster already", item.jid);
        self.count(item.state, 1);
        self.users.push(user_key(item.user));
        self.slots.push(slot_of(item.jid.as_str()));
        self.items.push(item);
    }

    /// Adds a contact, or puts it in the place of the one that was there. Limits are the caller's business, too.
    pub fn put(&mut self, item: Item) {
        let Some(at) = self.find(&item.jid) else { return self.restore(item) };
        self.count(self.items[at].state, -1);
        self.count(item.state, 1);
        self.users[at] = user_key(item.user);
        self.items[at] = item;
    }

    /// Takes a contact out; the others keep their order.
    pub fn remove(&mut self, jid: &Bare) -> Option<Item> {
        let at = self.find(jid)?;
        self.users.remove(at);
        self.slots.remove(at);
        let item = self.items.remove(at);
        self.count(item.state, -1);
        Some(item)
    }

    pub fn by_jid(&self, jid: &Bare) -> Option<&Item> {
        self.find(jid).map(|at| &self.items[at])
    }

    /// Whether the roster would take more bytes with this item, in the place of the one it has of that contact. Items of less than
    /// their share can't do that together, so only others are looked into.
    pub fn would_exceed(&self, item: &Item, bytes: usize, contacts: u32) -> bool {
        let old = self.by_jid(&item.jid).map_or(0, Item::frame_bytes);
        let (new, share) = (item.frame_bytes(), bytes / contacts.max(1) as usize);
        new > old.max(share) && self.items.iter().map(Item::frame_bytes).sum::<usize>() - old + new > bytes
    }

    /// Finds a contact by number: about 6 ns over 20 items, 16 ns over 200.
    pub fn by_user(&self, user: UserId) -> Option<&Item> {
        if user == UserId::NOBODY {
            return None;
        }
        find_in(&self.users, user_key(user), |at| self.items[at].user == user).map(|at| &self.items[at])
    }

    /// Sets the state of a contact. `false`: there's no such contact.
    pub fn set_state(&mut self, jid: &Bare, state: State) -> bool {
        self.find(jid).map(|at| self.change_state(at, state)).is_some()
    }

    fn change_state(&mut self, at: usize, state: State) {
        let old = std::mem::replace(&mut self.items[at].state, state);
        self.count(old, -1);
        self.count(state, 1);
    }

    /// Sets what the user calls a contact. `false`: there's no such contact.
    pub fn set_detail(&mut self, jid: &Bare, detail: Option<Box<Detail>>) -> bool {
        self.find(jid).map(|at| self.items[at].detail = detail).is_some()
    }

    /// Notes the number of a contact (`NOBODY`: forgets it). `false`: there's no such contact.
    pub fn set_user(&mut self, jid: &Bare, user: UserId) -> bool {
        let Some(at) = self.find(jid) else { return false };
        self.items[at].user = user;
        self.users[at] = user_key(user);
        true
    }

    /// All items, requests included, in the order in which they came.
    pub fn iter(&self) -> std::slice::Iter<'_, Item> {
        self.items.iter()
    }

    /// What clients are shown (section 2.1.2.2: a mere request isn't in the roster).
    pub fn visible(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.state.is_visible())
    }

    /// What clients are shown, in pieces: visible items of about `bytes` bytes behind the JID `after`, in an order that contacts
    /// which come and go meanwhile don't disturb. True: there are more.
    pub fn piece(&self, after: Option<&Bare>, bytes: usize) -> (Vec<&Item>, bool) {
        let behind = after.map(|jid| (slot_of(jid.as_str()), jid));
        let place = |at: usize| (self.slots[at], &self.items[at].jid);
        let is_behind = |&at: &usize| behind.is_none_or(|behind| place(at) > behind);
        let mut places: Vec<usize> = (0..self.items.len()).filter(is_behind).collect();
        places.sort_unstable_by(|&a, &b| place(a).cmp(&place(b)));
        let mut items = places.into_iter().map(|at| &self.items[at]).filter(|item| item.state.is_visible()).peekable();
        let (mut piece, mut length) = (Vec::new(), 0);
        while let Some(item) = items.next_if(|_| length < bytes) {
            length += item.frame_bytes();
            piece.push(item);
        }
        (piece, items.peek().is_some())
    }

    /// RFC 6121 2.6: what the roster's state is called; the same state has the same name, in whatever order it came about. Looks at
    /// every item.
    pub fn version(&self) -> u64 {
        self.visible().map(Item::fingerprint).fold(u64::from(self.visible), u64::wrapping_add)
    }

    /// The contacts whose presence the user gets.
    pub fn to(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.state.has(State::TO))
    }

    /// The contacts that get the user's presence.
    pub fn from(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.state.has(State::FROM))
    }

    /// The contacts that wait for the user's answer.
    pub fn waiting(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.state.has(State::PENDING_IN))
    }

    /// How many contacts wait for the user's answer.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// How many items clients see.
    pub fn contacts(&self) -> u32 {
        self.visible
    }

    /// All items, requests included.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Gives back memory that growing left over: worth it once a roster is loaded.
    pub fn shrink(&mut self) {
        self.items.shrink_to_fit();
        self.users.shrink_to_fit();
        self.slots.shrink_to_fit();
    }

    fn find(&self, jid: &Bare) -> Option<usize> {
        find_in(&self.slots, slot_of(jid.as_str()), |at| self.items[at].jid == *jid)
    }

    fn count(&mut self, state: State, by: i32) {
        let add = |counter: u32, counts: bool| counter.checked_add_signed(if counts { by } else { 0 });
        self.visible = add(self.visible, state.is_visible()).expect("as many leave as came");
        self.requests = add(self.requests, state.has(State::PENDING_IN)).expect("as many leave as came");
    }
}

/// 32 bits of a user id, in which neighbours differ. Equal keys still need the ids compared.
fn user_key(user: UserId) -> u32 {
    (user.0 ^ (user.0 >> 32)) as u32
}

/// Columns are compared this many at a time, so that the compiler uses vector instructions.
const STRIDE: usize = 16;

/// The first place where the column holds `key` and `is_it` agrees.
fn find_in<T: Copy + Eq>(column: &[T], key: T, is_it: impl Fn(usize) -> bool) -> Option<usize> {
    let mut start = 0;
    for chunk in column.chunks(STRIDE) {
        if chunk.iter().fold(false, |any, &k| any | (k == key)) {
            let hit = (start..start + chunk.len()).find(|&at| column[at] == key && is_it(at));
            if hit.is_some() {
                return hit;
            }
        }
        start += chunk.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(n: u32) -> Bare {
        Bare::new(&format!("user{n}@localhost")).unwrap()
    }

    fn item(n: u32, state: State) -> Item {
        let jid = jid(n);
        Item { user: UserId::new(1, slot_of(jid.as_str()), n + 1), jid, state, detail: None }
    }

    fn roster_of(n: u32) -> Roster {
        let mut roster = Roster::default();
        for i in 0..n {
            roster.restore(item(i, State::TO));
        }
        roster
    }

    #[test]
    fn long_names_fill_a_roster_before_there_are_too_many_contacts() {
        let long = |n| Item { detail: Detail::new(&"n".repeat(1000), []).unwrap(), ..item(n, State::NONE) };
        let mut roster = Roster::default();
        let mut took = Vec::new();
        for n in 0..5 {
            took.push(!roster.would_exceed(&long(n), 4000, 100));
            roster.put(if took[n as usize] { long(n) } else { item(n, State::NONE) });
        }
        assert_eq!(took, [true, true, true, false, false]);
        assert!(!roster.would_exceed(&long(0), 4000, 100), "what is there already may stay");
    }

    #[test]
    fn every_contact_is_found_by_jid_and_by_number_at_every_size() {
        for size in [0, 1, 15, 16, 17, 200, 1000] {
            let roster = roster_of(size);
            for n in 0..size {
                let expected = item(n, State::TO);
                assert_eq!(roster.by_jid(&expected.jid), Some(&expected));
                assert_eq!(roster.by_user(expected.user), Some(&expected));
            }
            let stranger = item(size, State::TO);
            assert_eq!((roster.by_jid(&stranger.jid), roster.by_user(stranger.user)), (None, None));
        }
    }

    #[test]
    fn pieces_have_every_contact_once_though_others_come_and_go() {
        let mut roster = roster_of(1000);
        let (mut seen, mut after) = (Vec::new(), None);
        for round in 0.. {
            let (piece, more) = roster.piece(after.as_ref(), 5_000);
            assert!((1..100).contains(&piece.len()));
            seen.extend(piece.iter().map(|item| item.jid.clone()));
            after = seen.last().cloned();
            if !more {
                break;
            }
            roster.remove(&jid(round));
            roster.remove(seen.last().unwrap());
            roster.restore(item(2000 + round, State::TO));
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count, "none twice");
        assert!(roster.iter().filter(|item| item.user.serial() <= 1000).all(|item| seen.binary_search(&item.jid).is_ok()));
        assert_eq!(Roster::default().piece(None, 5_000), (vec![], false));
    }

    #[test]
    fn a_version_names_what_clients_see_and_nothing_else() {
        let (mut roster, mut other) = (roster_of(3), Roster::default());
        (0..3).rev().for_each(|n| other.restore(item(n, State::TO)));
        let version = roster.version();
        assert_eq!(other.version(), version, "the order means nothing");
        roster.restore(item(9, State::HIDDEN.with(State::PENDING_IN)));
        assert_eq!(roster.version(), version, "a mere request is not in the roster");
        let mut seen = vec![version, Roster::default().version()];
        roster.set_detail(&jid(1), Detail::new("Bob", ["work"]).unwrap());
        seen.push(roster.version());
        roster.set_detail(&jid(1), Detail::new("Bobwork", []).unwrap());
        seen.push(roster.version());
        roster.set_state(&jid(2), State::TO.with(State::FROM));
        seen.push(roster.version());
        roster.remove(&jid(0));
        seen.push(roster.version());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn nobody_is_never_found() {
        let mut roster = Roster::default();
        roster.restore(Item { user: UserId::NOBODY, ..item(0, State::TO) });
        assert_eq!(roster.by_user(UserId::NOBODY), None);
        assert!(roster.set_user(&jid(0), UserId(7)));
        assert_eq!(roster.by_user(UserId(7)).unwrap().jid, jid(0));
        assert!(roster.set_user(&jid(0), UserId::NOBODY));
        assert_eq!(roster.by_user(UserId(7)), None);
    }

    #[test]
    fn users_with_equal_keys_are_told_apart() {
        let (a, b) = (UserId(0x0000_0001_0000_0002), UserId(0x0000_0002_0000_0001));
        assert_eq!(user_key(a), user_key(b));
        let mut roster = Roster::default();
        roster.restore(Item { user: a, ..item(0, State::TO) });
        roster.restore(Item { user: b, ..item(1, State::TO) });
        assert_eq!((roster.by_user(a).unwrap().jid.clone(), roster.by_user(b).unwrap().jid.clone()), (jid(0), jid(1)));
    }

    #[test]
    fn removal_keeps_the_order_and_the_ways_to_find_the_rest() {
        let mut roster = roster_of(40);
        for n in (0..40).step_by(3) {
            assert_eq!(roster.remove(&jid(n)), Some(item(n, State::TO)));
            assert_eq!(roster.remove(&jid(n)), None);
        }
        let left: Vec<u32> = (0..40).filter(|n| n % 3 != 0).collect();
        assert_eq!(
            roster.iter().map(|item| item.jid.clone()).collect::<Vec<_>>(),
            left.iter().map(|&n| jid(n)).collect::<Vec<_>>()
        );
        assert!(left.iter().all(|&n| roster.by_user(item(n, State::TO).user) == Some(&item(n, State::TO))));
        assert_eq!(roster.contacts() as usize, left.len());
    }

    #[test]
    fn contacts_and_requests_are_counted_apart() {
        let mut roster = Roster::default();
        roster.restore(item(0, State::TO));
        roster.restore(item(1, State::HIDDEN.with(State::PENDING_IN)));
        roster.restore(item(3, State::NONE));
        assert_eq!(roster.visible().map(|item| item.jid.clone()).collect::<Vec<_>>(), [jid(0), jid(3)]);
        assert_eq!(roster.waiting().map(|item| item.jid.clone()).collect::<Vec<_>>(), [jid(1)]);

        assert!(roster.set_state(&jid(1), State::FROM));
        assert_eq!((roster.contacts(), roster.requests(), roster.len()), (3, 0, 3));
        assert!(!roster.set_state(&jid(9), State::FROM));
        assert_eq!(roster.from().count() + roster.to().count(), 2);
    }

    #[test]
    fn names_and_groups_are_checked() {
        let long = "x".repeat(TEXT_BYTES);
        let longer = "x".repeat(TEXT_BYTES + 1);
        assert_eq!(Detail::new("", []), Ok(None));
        assert_eq!(Detail::new(&long, [&*long]).unwrap().unwrap().name(), long);
        assert_eq!(Detail::new(&longer, []), Err(Reason::TooLarge));
        assert_eq!(Detail::new("", [&*longer]), Err(Reason::TooLarge));
        assert_eq!(Detail::new("a\u{7}", []), Err(Reason::BadRequest));
        assert_eq!(Detail::new("", [""]), Err(Reason::BadRequest));
        assert_eq!(Detail::new("", ["friends", "friends"]), Err(Reason::BadRequest));
        let many: Vec<String> = (0..=GROUPS_PER_ITEM).map(|n| n.to_string()).collect();
        assert!(Detail::new("", many[1..].iter().map(|g| &**g)).is_ok());
        assert_eq!(Detail::new("", many.iter().map(|g| &**g)), Err(Reason::TooLarge));
    }

    #[test]
    fn what_the_user_calls_a_contact_is_kept() {
        let mut roster = roster_of(2);
        assert!(roster.set_detail(&jid(1), Detail::new("Bob", ["work", "climbing"]).unwrap()));
        let bob = roster.by_jid(&jid(1)).unwrap();
        assert_eq!((bob.name(), bob.groups().collect::<Vec<_>>()), ("Bob", vec!["work", "climbing"]));
        assert_eq!(roster.by_jid(&jid(0)).unwrap().name(), "");
        assert!(!roster.set_detail(&jid(2), None));
    }

    #[test]
    #[should_panic(expected = "in the roster already")]
    fn the_same_contact_twice_is_a_bug_of_the_caller() {
        roster_of(2).restore(item(1, State::FROM));
    }

    #[test]
    fn an_item_stays_small() {
        assert_eq!(size_of::<Item>(), 40);
        assert!(size_of::<Roster>() <= 80);
    }
}
