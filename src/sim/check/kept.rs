//! Nothing acknowledged is lost: what was answered with Done is stored, unless something later undid it; both users' rosters tell
//! the same; and what is stored is what the homes have in memory.

use super::{Check, Held};
use crate::base::jid::Bare;
use crate::presence::home::Homes;
use crate::presence::mailbox::Mailbox;
use crate::presence::subscription::{Action, State};
use crate::store::Table;
use crate::store::memory::Memory;
use crate::store::rows::{self, Row};
use std::collections::{BTreeMap, BTreeSet};

const CHECK: Check = Check::NothingAcknowledgedIsLost;

/// What a client wanted changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    Name(String),
    Remove,
    Subscription(Action),
    Block(bool),
}

#[derive(Debug)]
struct Asked {
    wish: Wish,
    asked: u64,
    /// When it was answered, and whether with Done.
    answered: Option<(u64, bool)>,
}

/// Which wish an answer is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WishId {
    pair: (Bare, Bare),
    at: usize,
}

#[derive(Default)]
pub struct Wishes {
    asked: BTreeMap<(Bare, Bare), Vec<Asked>>,
    clock: u64,
    /// Owners whose accounts were removed: what they wanted before means nothing.
    removed: BTreeSet<Bare>,
}

impl Wishes {
    pub fn ask(&mut self, owner: &Bare, contact: &Bare, wish: Wish) -> WishId {
        self.clock += 1;
        let pair = (owner.clone(), contact.clone());
        let asked = self.asked.entry(pair.clone()).or_default();
        asked.push(Asked { wish, asked: self.clock, answered: None });
        WishId { at: asked.len() - 1, pair }
    }

    pub fn answer(&mut self, id: &WishId, done: bool) {
        self.clock += 1;
        self.asked.get_mut(&id.pair).expect("it was asked")[id.at].answered = Some((self.clock, done));
    }

    /// The time by which wishes are ordered.
    pub fn now(&self) -> u64 {
        self.clock
    }

    /// Something that another user sent at some time has reached a user: unless that user knew before that time that the other one
    /// was blocked, and wanted nothing undone since. A wish to undo that was under way together with the one to block may have been
    /// the later one, whichever was asked first: they came over different connections.
    pub fn reached(&self, by: &Bare, from: &Bare, sent: u64) -> Held {
        let asked = self.asked.get(&(by.clone(), from.clone())).map_or(&[][..], |asked| &asked[..]);
        let over_before = |op: &Asked, time| op.answered.is_some_and(|(at, done)| !done || at < time);
        let barred = asked.iter().filter(|op| op.wish == Wish::Block(true)).any(|op| {
            let known = op.answered.is_some_and(|(at, done)| done && at < sent);
            known && asked.iter().all(|other| other.wish != Wish::Block(false) || over_before(other, op.asked))
        });
        let allowed = !barred || self.removed.contains(by);
        Check::NobodyUnapprovedReceives.holds(allowed, || format!("{by} had blocked {from}, who reached {by} nevertheless"))
    }

    /// Whether a user may have blocked another one some time: requests that came meanwhile were dropped.
    fn blocked_ever(&self, by: &Bare, whom: &Bare) -> bool {
        self.asked.get(&(by.clone(), whom.clone())).is_some_and(|asked| asked.iter().any(|op| op.wish == Wish::Block(true)))
    }

    pub fn remove(&mut self, owner: &Bare) {
        self.removed.insert(owner.clone());
    }

    /// Whether the operator may have removed a user some time.
    pub fn was_removed(&self, owner: &Bare) -> bool {
        self.removed.contains(owner)
    }

    /// All is still: what is stored agrees with what was answered.
    pub fn check(&self, stored: &Memory) -> Held {
        for ((owner, contact), asked) in self.asked.iter().filter(|((owner, _), _)| !self.removed.contains(owner)) {
            let key = rows::pair_key(owner, contact);
            let row = stored.get(Table::Roster, &key).map(|row| rows::Contact::decode(row).expect("rows are sound"));
            let name = row.as_ref().map_or(String::new(), |row| row.name.clone());
            let state = row.as_ref().and_then(|row| State::from_bits(row.state)).unwrap_or_default();
            let blocked = stored.get(Table::Blocked, &key).is_some();
            let named = possible(asked, String::new(), |wish| match wish {
                Wish::Name(name) => Some(name.clone()),
                Wish::Remove => Some(String::new()),
                _ => None,
            });
            let barred = possible(asked, false, |wish| if let Wish::Block(blocked) = wish { Some(*blocked) } else { None });
            let gives = possible(asked, false, |wish| granted(wish, Action::Subscribed, Action::Unsubscribed));
            let wants = possible(asked, false, |wish| granted(wish, Action::Subscribe, Action::Unsubscribe));
            let (from, to) = (state.has(State::FROM.with(State::APPROVED)), state.has(State::TO.with(State::PENDING_OUT)));
            let sound = named.contains(&name) && barred.contains(&blocked);
            CHECK.holds(sound && (!from || gives.contains(&true)) && (!to || wants.contains(&true)), || {
                format!("{owner} about {contact}: stored are {row:?}, blocked {blocked}, after {asked:?}")
            })?;
        }
        Ok(())
    }
}

fn granted(wish: &Wish, yes: Action, no: Action) -> Option<bool> {
    match wish {
        Wish::Subscription(action) if *action == yes => Some(true),
        Wish::Subscription(action) if *action == no => Some(false),
        Wish::Remove => Some(false),
        _ => None,
    }
}

/// The values something may have after these requests, some of which were never answered and some of which were under way together.
fn possible<T>(asked: &[Asked], first: T, effect: impl Fn(&Wish) -> Option<T>) -> Vec<T> {
    let made = || asked.iter().filter(|op| op.answered.is_none_or(|(_, done)| done)).filter_map(|op| Some((op, effect(&op.wish)?)));
    let later = |at: u64| made().any(|(op, _)| op.asked > at && op.answered.is_some());
    let mut values: Vec<T> =
        made().filter(|(op, _)| !op.answered.is_some_and(|(at, _)| later(at))).map(|(_, value)| value).collect();
    if !later(0) {
        values.push(first);
    }
    values
}

/// All is still: nothing is on its way between users, and each of two users knows what the other knows. Rows of ways that have
/// arrived may be left (a store that has too much to do does not delete them), but not after a start without faults.
pub fn rosters_agree(stored: &Memory, wishes: &Wishes, faultless: bool) -> Held {
    let row = |value: &[u8]| rows::Way::decode(value).expect("rows are sound");
    let ways = stored.rows(Table::Ways).map(|(key, value)| (rows::split_way(key).expect("keys are sound"), row(value)));
    let left: Vec<_> = ways.filter(|(_, way)| faultless || way.arrived.is_none()).collect();
    CHECK.holds(left.is_empty(), || format!("ways have not arrived: {left:?}"))?;
    let state = |owner: &Bare, contact: &Bare| {
        let row = stored.get(Table::Roster, &rows::pair_key(owner, contact));
        row.and_then(|row| State::from_bits(rows::Contact::decode(row).expect("rows are sound").state)).unwrap_or_default()
    };
    for (key, _) in stored.rows(Table::Roster) {
        let (owner, contact) = rows::split_pair(key).expect("keys are sound");
        let (owner, contact) = (Bare::new(owner).expect("a JID"), Bare::new(contact).expect("a JID"));
        let (mine, theirs) = (state(&owner, &contact), state(&contact, &owner));
        let blocked = |a: &Bare, b: &Bare| stored.get(Table::Blocked, &rows::pair_key(a, b)).is_some();
        let asks = !mine.has(State::PENDING_OUT) || theirs.has(State::PENDING_IN) || wishes.blocked_ever(&contact, &owner);
        let bars = !mine.has(State::TO) || mine.has(State::BARRED) == blocked(&contact, &owner);
        let agree = mine.has(State::TO) == theirs.has(State::FROM) && mine.has(State::FROM) == theirs.has(State::TO);
        CHECK.holds(agree && asks && bars, || format!("{owner} has {contact} as {mine:?}, the other way it is {theirs:?}"))?;
    }
    Ok(())
}

/// All is still: the homes of a core have in memory what is stored.
pub fn memory_is_what_is_stored(homes: &Homes, stored: &Memory) -> Held {
    for jid in homes.names() {
        let user = homes.by_name(&jid).and_then(|at| homes.get(at)).expect("a listed user");
        let prefix = rows::owner_prefix(&jid);
        let of = |table| stored.rows(table).filter(|(key, _)| key.starts_with(&prefix));
        let items: BTreeMap<String, (u8, String)> = of(Table::Roster)
            .map(|(key, value)| {
                let row = rows::Contact::decode(value).expect("rows are sound");
                (rows::split_pair(key).expect("keys are sound").1.to_owned(), (row.state, row.name))
            })
            .collect();
        let known: BTreeMap<String, (u8, String)> =
            user.roster.iter().map(|item| (item.jid.to_string(), (item.state.bits(), item.name().to_owned()))).collect();
        let other = |table| of(table).map(|(key, _)| rows::split_pair(key).expect("keys are sound").1.to_owned());
        let (blocked, requests): (BTreeSet<_>, BTreeSet<_>) = (other(Table::Blocked).collect(), other(Table::Requests).collect());
        let same = items == known
            && blocked == user.blocked().iter().map(|jid| jid.to_string()).collect()
            && requests == user.requests().iter().map(|request| request.from.to_string()).collect();
        CHECK.holds(same, || {
            let (in_memory, waiting) = (user.blocked(), user.requests());
            format!("{jid}: stored {items:?}, {blocked:?}, {requests:?}; in memory {known:?}, {in_memory:?}, {waiting:?}")
        })?;
        let stored_documents = of(Table::Documents).map(|(key, _)| rows::split_document(key).expect("keys are sound").1.to_owned());
        let documents: BTreeSet<String> = user.documents().iter().map(|document| document.name.to_string()).collect();
        CHECK.holds(stored_documents.collect::<BTreeSet<_>>() == documents, || format!("{jid} has other documents stored"))?;
        let lost = user
            .mailbox()
            .into_iter()
            .flat_map(Mailbox::rows)
            .find(|&sequence| stored.get(Table::Messages, &rows::message_key(&jid, sequence)).is_none());
        CHECK.holds(lost.is_none(), || format!("{jid}: message {lost:?} waits, and is not stored"))?;
    }
    Ok(())
}
