//! The home role of a core: the users it owns, and all that is decided about them (the document's outbound table, Z6; J1, M3).
//!
//! Lives on: every core. Serves G1, Z6, J10, M3, M4. One file per duty: `log_in` (sessions come, go and resume), `update` (presence
//! in, fan-out), `interest` (edges watch and are refused), `change` (what must be stored first: subscriptions, roster, block list),
//! `plan` (what each change does), `message` (point to point), `offline` (messages that wait), `receipts` (what their senders are
//! told), `activity` (inactive sessions), `peers` (other nodes), `again` (what they are told again), `once` (what they say twice),
//! `in_vain` (ways to nobody), `revoked` (who was lately), `question` (last seen, documents), `news` (documents that change),
//! `tokens`, `account` (users come and go), `tenure` (from another node, or to one), `settle` (the directory hears of it),
//! `forgotten` (clusters go), `load` (after a start). Invariants: a user's changes happen one after the other, each after it was
//! stored; what follows from a change happens after it.

mod account;
mod activity;
mod again;
mod change;
mod forgotten;
mod in_vain;
mod interest;
mod load;
mod log_in;
mod message;
mod news;
mod offline;
mod once;
mod peers;
mod plan;
mod question;
mod receipts;
mod reply;
mod revoked;
mod settle;
mod tenure;
mod tokens;
mod update;

pub use change::{Change, Storing};
pub use news::Interests;

use super::control::{UserRef, Way, WayName};
use super::directory::Directory;
use super::errand::Caller;
use super::frame::Events;
use super::relay::Relays;
use super::user::{Session, User};
use crate::base::id::{Seat, SessionId, UserId};
use crate::base::jid::Bare;
use crate::base::limits::Limits;
use crate::base::secrets::Secrets;
use crate::base::time::{Time, WallClock};
use crate::store::Write;
use ahash::RandomState;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

/// What the homes of a core count. The shard adds it to the core's counters.
#[derive(Clone, Copy, Default, Debug)]
pub struct HomeCounters {
    pub updates: u64,
    pub put_off: u64,
    pub log_ins: u64,
    pub registrations: u64,
    pub log_outs: u64,
    pub resumes: u64,
    /// Sessions told to go on elsewhere.
    pub transfers: u64,
    /// Watches answered: one per edge and publisher.
    pub watches: u64,
    pub refused_watches: u64,
    /// Watches of relays that had missed nothing: they are not answered.
    pub watches_same: u64,
    /// Presences told whole to nodes that had heard of them by reference.
    pub told_whole: u64,
    /// Probes by clients.
    pub probes: u64,
    pub changes: u64,
    pub failed_changes: u64,
    /// Subscription requests that found no room at the user asked.
    pub requests_refused: u64,
    pub messages: u64,
    /// Documents read by clients.
    pub document_reads: u64,
    /// Documents that sessions were told of.
    pub documents_told: u64,
    /// Messages stored for users who took none.
    pub messages_kept: u64,
    /// Messages that sessions had, and that were neither acknowledged in time nor stored.
    pub messages_given_up: u64,
    /// What contacts of forgotten clusters would have said with their accounts' removal.
    pub farewells: u64,
    /// Entries for users or sessions that are not there any more.
    pub stale: u64,
}

/// Times one update: the clock is only for this, and what happens never depends on it.
#[derive(Clone, Copy)]
pub struct Stopwatch {
    clock: fn() -> Time,
    started: Time,
    fan_out: Option<Time>,
}

impl Stopwatch {
    pub fn start(clock: fn() -> Time) -> Stopwatch {
        Stopwatch { clock, started: clock(), fan_out: None }
    }

    /// The fan-out begins.
    pub fn lap(&mut self) {
        self.fan_out = Some((self.clock)());
    }

    /// Nanoseconds before the fan-out and in it, and the time now.
    pub fn stop(self) -> (u64, u64, Time) {
        let end = (self.clock)();
        let fan_out = self.fan_out.unwrap_or(end);
        (fan_out.since(self.started), end.since(fan_out), end)
    }
}

/// What is counted over all users when somebody asks.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub online: u64,
    pub detached: u64,
    pub subscriptions: u64,
    pub interest_rows: u64,
}

/// What the homes of every core of a node agree on.
#[derive(Clone)]
pub struct Place {
    pub cluster: u16,
    /// The cluster that keeps the directory of users; 0: there is no cluster but this one.
    pub directory: u16,
    /// The owner's epoch: higher at each start, and when it takes users over.
    pub epoch: u32,
    pub domain: String,
    pub limits: Arc<Limits>,
    /// The wall clock when the monotonic one stood at 0.
    pub wall_at_zero: WallClock,
}

impl Place {
    /// Whether a user of this name may be in a cluster that this one knows of.
    pub fn reaches(&self, jid: &Bare) -> bool {
        self.directory != 0 || jid.domain() == self.domain
    }

    pub fn wall(&self, now: Time) -> WallClock {
        WallClock(self.wall_at_zero.0 + now.0 / 1_000_000)
    }
}

/// All users whose home is this core.
pub struct Homes {
    pub place: Place,
    /// What stands for publishers whose homes are on other nodes.
    pub relays: Relays,
    /// Which user is of which cluster, if this one keeps that.
    pub directory: Directory,
    /// What the directory may not know of these users.
    unsettled: settle::Unsettled,
    forgotten: forgotten::Forgotten,
    users: Vec<Option<User>>,
    free: Vec<u32>,
    by_name: HashMap<Bare, u32, RandomState>,
    by_user: HashMap<UserId, u32, RandomState>,
    /// Highest serial given out in each slot.
    serials: HashMap<u16, u32, RandomState>,
    /// Changes with the store, by ticket.
    storing: BTreeMap<u64, change::Waits>,
    /// Users whose changes are tried again, when.
    retries: VecDeque<(Time, UserRef)>,
    /// Ways to users who don't exist, by name: one after the other, the first of each is with the store or is tried again. What
    /// comes for such a user meanwhile waits behind them.
    strays: BTreeMap<Bare, VecDeque<Change>>,
    stray_retries: VecDeque<(Time, Bare)>,
    /// Who waits for an account to be stored.
    creations: Vec<(Caller, UserRef)>,
    /// Ways found in the store at the start; with a number those that had arrived before.
    set_out: Vec<(Way, Option<u64>)>,
    /// Ways whose senders are gone, or never were, by sender, receiver and number: nobody else sends them again.
    adrift: BTreeMap<(Bare, Bare, u64), Way>,
    /// Between whom ways are under way that a link may lose.
    far_ways: again::FarWays,
    /// Ways from other nodes that have arrived, as long as they may come again: the number of the last that had been sent by then.
    heard: BTreeMap<WayName, u64>,
    /// The last of them between each two users, also when they don't come again.
    once: once::Once,
    /// How many of `heard` are from each other cluster.
    heard_from: BTreeMap<u16, usize>,
    revoked: revoked::Revoked,
    /// Who waits for what documents elsewhere say.
    asked_elsewhere: news::AskedElsewhere,
    /// Deletions of what the start found and nobody needs.
    leftover: Vec<Write>,
    /// Sessions whose connection broke, in the order in which they end.
    detached: BinaryHeap<Reverse<(Time, UserRef, SessionId)>>,
    next_way: u64,
    next_message: u64,
    /// Messages that wait for users of this core, and about their bytes.
    kept: (usize, usize),
    /// Bytes of all documents.
    document_bytes: usize,
    /// What is owed to the senders of messages.
    receipts: receipts::Receipts,
    secrets: Secrets,
    scratch: Vec<u8>,
    sessions: usize,
    /// Times the update that is being applied, when it is one of the sample.
    pub stopwatch: Option<Stopwatch>,
    pub counters: HomeCounters,
}

impl Homes {
    pub fn new(place: Place, hasher: RandomState, secrets: Secrets) -> Homes {
        Homes {
            // Higher in each life than in those before, and no life gets through so many.
            next_way: u64::from(place.epoch) << 40 | first_way(place.cluster),
            next_message: u64::from(place.epoch) << 40,
            kept: (0, 0),
            document_bytes: 0,
            place,
            relays: Relays::new(hasher.clone()),
            directory: Directory::new(hasher.clone()),
            unsettled: settle::Unsettled::default(),
            revoked: revoked::Revoked::default(),
            forgotten: forgotten::Forgotten::default(),
            users: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::with_hasher(hasher.clone()),
            by_user: HashMap::with_hasher(hasher.clone()),
            serials: HashMap::with_hasher(hasher),
            storing: BTreeMap::new(),
            retries: VecDeque::new(),
            strays: BTreeMap::new(),
            stray_retries: VecDeque::new(),
            creations: Vec::new(),
            set_out: Vec::new(),
            adrift: BTreeMap::new(),
            far_ways: again::FarWays::default(),
            heard: BTreeMap::new(),
            once: once::Once::default(),
            heard_from: BTreeMap::new(),
            asked_elsewhere: news::AskedElsewhere::default(),
            leftover: Vec::new(),
            detached: BinaryHeap::new(),
            receipts: receipts::Receipts::default(),
            secrets,
            scratch: Vec::new(),
            sessions: 0,
            stopwatch: None,
            counters: HomeCounters::default(),
        }
    }

    /// The user a reference means; `None` when the account is gone.
    fn user(&mut self, at: UserRef) -> Option<&mut User> {
        let found = self.users.get_mut(at.slot as usize).and_then(Option::as_mut).filter(|user| user.id == at.user);
        if found.is_none() {
            self.counters.stale += 1;
        }
        found
    }

    pub fn by_name(&self, jid: &Bare) -> Option<UserRef> {
        let slot = *self.by_name.get(jid)?;
        Some(self.users[slot as usize].as_ref().expect("a named user is there").at(slot))
    }

    pub fn by_user(&self, user: UserId) -> Option<UserRef> {
        self.slot_of(user).map(|slot| UserRef { user, slot })
    }

    pub fn slot_of(&self, user: UserId) -> Option<u32> {
        self.by_user.get(&user).copied()
    }

    /// Reads a user's record, for the cache.
    #[inline]
    pub fn glance(&self, slot: u32) -> u32 {
        self.users.get(slot as usize).and_then(Option::as_ref).map_or(0, |user| user.next_session)
    }

    /// Reads a user's first session, for the cache.
    #[inline]
    pub fn glance_at_session(&self, slot: u32) -> u32 {
        self.first_session(slot).map_or(0, |session| session.sequence)
    }

    /// Reads the presence of that, for the cache.
    #[inline]
    pub fn glance_at_presence(&self, slot: u32) -> u32 {
        self.first_session(slot).and_then(|session| session.presence.last()).map_or(0, |&last| u32::from(last))
    }

    fn first_session(&self, slot: u32) -> Option<&Session> {
        self.users.get(slot as usize)?.as_ref()?.sessions.first()
    }

    /// Where this core's edge keeps a user's record.
    #[inline]
    pub fn publisher_slot(&self, slot: u32, here: Seat) -> Option<u32> {
        let user = self.users.get(slot as usize)?.as_ref()?;
        user.outbound.iter().find(|destination| destination.seat == here).map(|destination| destination.slot)
    }

    pub fn get(&self, at: UserRef) -> Option<&User> {
        self.users.get(at.slot as usize)?.as_ref().filter(|user| user.id == at.user)
    }

    /// Users who are watched at other nodes.
    pub fn across(&self, out: &super::outbox::Outbox) -> usize {
        let here = out.map.here.node;
        let is_across = |user: &&User| user.outbound.iter().any(|destination| destination.seat.node != here);
        self.users.iter().flatten().filter(is_across).count()
    }

    /// All users, in the order of their names.
    pub fn names(&self) -> Vec<Bare> {
        let mut names: Vec<Bare> = self.by_name.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The first so many users behind a name, in the order of their names; and whether there are more behind them.
    pub fn names_behind(&self, after: Option<&Bare>, most: usize) -> (Vec<Bare>, bool) {
        let mut names: BinaryHeap<&Bare> = BinaryHeap::new();
        let mut more = false;
        for jid in self.by_name.keys().filter(|jid| after.is_none_or(|after| *jid > after)) {
            if names.len() < most || names.peek().is_some_and(|last| jid < *last) {
                names.push(jid);
            } else {
                more = true;
            }
            if names.len() > most {
                names.pop();
                more = true;
            }
        }
        (names.into_sorted_vec().into_iter().cloned().collect(), more)
    }

    pub fn user_count(&self) -> usize {
        self.by_user.len()
    }

    pub fn session_count(&self) -> usize {
        self.sessions
    }

    pub fn detached_count(&self) -> usize {
        self.detached.len()
    }

    /// Messages that wait for users of this core, and about their bytes.
    pub fn kept_size(&self) -> (usize, usize) {
        self.kept
    }

    /// Changes and messages that are with the store.
    pub fn storing_count(&self) -> usize {
        self.storing.len()
    }

    /// The frames of a user's whole state, for an edge on this core.
    pub fn events_of(&self, user: UserId, events: &mut Events) {
        match self.slot_of(user) {
            Some(slot) => self.events_at(slot, events),
            None => self.relays.events_of(user, events),
        }
    }

    /// The same of the user in a slot.
    pub fn events_at(&self, slot: u32, events: &mut Events) {
        if let Some(user) = &self.users[slot as usize] {
            user.events(events);
        }
    }

    /// Counts over all users.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for user in self.users.iter().flatten() {
            tally.online += u64::from(user.has_available());
            tally.detached += user.sessions.iter().filter(|session| session.edge.is_none()).count() as u64;
            tally.subscriptions += user.roster.from().count() as u64;
            tally.interest_rows += user.outbound.len() as u64;
        }
        tally
    }

    fn insert(&mut self, mut user: User) -> UserRef {
        user.epoch = self.place.epoch;
        let (id, jid) = (user.id, user.jid.clone());
        let slot = match self.free.pop() {
            Some(slot) => {
                self.users[slot as usize] = Some(user);
                slot
            }
            None => {
                self.users.push(Some(user));
                (self.users.len() - 1) as u32
            }
        };
        self.by_name.insert(jid, slot);
        self.by_user.insert(id, slot);
        UserRef { user: id, slot }
    }
}

/// Where a cluster begins to count ways: elsewhere than others, for another cluster may answer in the place of a user who is not
/// there, and that way has the names that the user's own may have.
fn first_way(cluster: u16) -> u64 {
    u64::from(cluster).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 26
}
