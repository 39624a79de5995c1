//! The directory hears of users who come and go: what it does not know yet is stored with the change, until it says that it does.
//! Of users who came before there was a directory it hears once, all of them.
//!
//! Lives on: every core. Serves Z1, Z3. Invariants: of each name the directory hears the last word; it is told of so many at a
//! time, and no more; who is told of an account may count on others finding it, unless the directory takes too long; for other
//! clusters an account is there from when the directory knows it: what they say to it before goes back, and they ask again.

use super::change::{Change, Origin, Storing};
use super::plan::Plan;
use super::reply::refuse;
use super::{Homes, Place, account};
use crate::base::id::{Seat, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Control, UserRef};
use crate::presence::directory::{Directory, Inquiry, read_row, row_key};
use crate::presence::edge::Edge;
use crate::presence::outbox::Outbox;
use crate::presence::user::User;
use crate::store::rows::UNSETTLED_KEY;
use crate::store::{Durability, Table, Write};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// How the keys of those rows in `Meta` begin that say that a core has told the directory of all users from before.
const ALL_KEY: &[u8] = b"settled:";

/// What the directory has not said that it knows, it is told again after this long.
const SETTLE_AGAIN: Duration = Duration::from_secs(5);
/// Names that the directory is told of at a time. At the limit: the others wait for their turn.
const UNDER_WAY: usize = 256;
/// A new account waits so long for the directory. At the limit: it is there, and others find it later.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the directory of all clusters may not know of this core's users.
#[derive(Default)]
pub(super) struct Unsettled {
    /// The last word of each name.
    words: BTreeMap<Bare, UserId>,
    /// Names that the directory was told of and has not answered yet.
    under_way: BTreeSet<Bare>,
    /// The last of `words` that it was told of in turn.
    told: Option<Bare>,
    /// When it is told again.
    again_at: Option<Time>,
    /// The next user from before there was a directory, by place; `None`: it has heard of all.
    sweep: Option<u32>,
    /// Some of them are another cluster's there, and so this one is to be told of them again at the next start.
    is_disputed: bool,
    /// Cores that have told of all, as the store says.
    swept: BTreeSet<Vec<u8>>,
    /// New accounts that wait for the directory, and until when.
    new: VecDeque<(Time, UserRef)>,
    /// Accounts that did not wait any longer, and those that the directory did not let this cluster have.
    pub late: u64,
    pub denied: u64,
}

impl Unsettled {
    /// Whether other clusters may not find an account. They don't believe what it says, and what they say is not for it: as long
    /// as it waits for the directory, and longer, if that takes too long.
    pub fn hides(&self, user: &User, place: &Place, directory: &Directory) -> bool {
        match place.directory == place.cluster {
            true => !directory.may_have(&user.jid, place.cluster),
            false => self.words.get(&user.jid) == Some(&user.id),
        }
    }
}

impl Homes {
    /// The row that is to be stored when a user comes, or (`NOBODY`) goes; `None`: there is no directory.
    pub(super) fn unsettled_row(&self, jid: &Bare, user: UserId) -> Option<Write> {
        let value = Some(user.0.to_le_bytes().to_vec());
        (self.place.directory != 0).then(|| Write { table: Table::Meta, key: row_key(UNSETTLED_KEY, jid), value })
    }

    /// It is stored: the directory is told.
    pub(super) fn settle(&mut self, jid: &Bare, user: UserId, out: &mut Outbox) {
        if self.place.directory == 0 {
            return;
        }
        self.unsettled.words.insert(jid.clone(), user);
        let under_way = &mut self.unsettled.under_way;
        if (under_way.len() < UNDER_WAY || under_way.contains(jid)) && can_tell(out) {
            under_way.insert(jid.clone());
            tell(jid, user, out);
        }
    }

    /// A new account is stored. True: it waits for the directory, which is in another cluster and can be reached.
    pub(super) fn waits_for_directory(&mut self, now: Time, at: UserRef, out: &mut Outbox) -> bool {
        let jid = self.get(at).expect("a user being stored is there").jid.clone();
        self.settle(&jid, at.user, out);
        if out.map.directory == out.map.cluster || !can_tell(out) {
            return false;
        }
        let user = self.user(at).expect("found above");
        user.rare().storing = Some(Box::new(Storing { plan: Plan::default(), origin: Origin::Settling }));
        self.unsettled.new.push_back((now + PATIENCE, at));
        true
    }

    /// Users have come from another node: perhaps the directory has not heard of them all.
    pub fn settle_all_anew(&mut self) {
        if self.place.directory != 0 {
            self.unsettled.sweep = Some(0);
        }
    }

    /// Another node tells the directory of these from now on.
    pub(super) fn release_unsettled(&mut self, goes: impl Fn(&Bare) -> bool) {
        let Unsettled { words, under_way, new, .. } = &mut self.unsettled;
        words.retain(|jid, _| !goes(jid));
        under_way.retain(|jid| !goes(jid));
        let users = &self.users;
        new.retain(|(_, at)| users.get(at.slot as usize).and_then(Option::as_ref).is_some_and(|user| user.id == at.user));
    }

    /// The directory can be reached: it's told of what it may not know.
    pub fn settle_all(&mut self, out: &mut Outbox) {
        if !can_tell(out) {
            return;
        }
        for jid in std::mem::take(&mut self.unsettled.under_way) {
            if let Some(user) = self.last_word(&jid) {
                tell(&jid, user, out);
                self.unsettled.under_way.insert(jid);
            }
        }
        self.unsettled.told = None;
        self.tell_on(out);
    }

    /// What the directory is to know of a name; `None`: nothing, any more.
    fn last_word(&self, jid: &Bare) -> Option<UserId> {
        self.unsettled.words.get(jid).copied().or_else(|| self.by_name(jid).map(|at| at.user))
    }

    /// Tells the directory of some more.
    fn tell_on(&mut self, out: &mut Outbox) {
        while self.unsettled.under_way.len() < UNDER_WAY && can_tell(out) {
            let Unsettled { words, told, .. } = &self.unsettled;
            let from = told.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            if let Some((jid, &user)) = words.range::<Bare, _>((from, Bound::Unbounded)).next() {
                let jid = jid.clone();
                if self.unsettled.under_way.insert(jid.clone()) {
                    tell(&jid, user, out);
                }
                self.unsettled.told = Some(jid);
            } else if !self.sweep(out) {
                return;
            }
        }
    }

    /// Tells of the next user who came before there was a directory. False: there is nobody to tell of.
    fn sweep(&mut self, out: &mut Outbox) -> bool {
        let Some(next) = self.unsettled.sweep else { return false };
        if let Some(place) = self.users.get(next as usize) {
            self.unsettled.sweep = Some(next + 1);
            let unsaid = place.as_ref().filter(|user| !self.unsettled.words.contains_key(&user.jid));
            let unsaid = unsaid.map(|user| (user.jid.clone(), user.id));
            if let Some((jid, user)) = unsaid
                && self.unsettled.under_way.insert(jid.clone())
            {
                tell(&jid, user, out);
            }
            return true;
        }
        if self.unsettled.under_way.is_empty() {
            self.unsettled.sweep = None;
            if !self.unsettled.is_disputed {
                out.commit(vec![Write { value: Some(Vec::new()), ..self.all_row(out) }], Durability::RideAlong);
            }
        }
        false
    }

    /// The deletion of the row that says that a core has told of all: who it is, and whom it has told.
    fn all_row(&self, out: &Outbox) -> Write {
        let (map, place) = (&out.map, &self.place);
        let numbers = [map.here.node.0, map.here.core.0, map.cores, place.cluster, place.directory];
        let key = [ALL_KEY, &numbers.map(u16::to_be_bytes).concat()].concat();
        Write { table: Table::Meta, key, value: None }
    }

    /// The same from time to time: a store may have refused what the directory was told. Gives when it is due next.
    pub fn settle_again(&mut self, now: Time, edge: &mut Edge, out: &mut Outbox) -> Option<Time> {
        while let Some((_, at)) = self.unsettled.new.pop_front_if(|(due, _)| *due <= now) {
            self.unsettled.late += u64::from(self.is_known(now, at, edge, out));
        }
        let Unsettled { words, under_way, sweep, again_at, new, .. } = &mut self.unsettled;
        if words.is_empty() && under_way.is_empty() && sweep.is_none() {
            *again_at = None;
            return None;
        }
        let wait = new.front().map(|(due, _)| *due);
        if again_at.is_some_and(|due| due <= now) {
            *again_at = None;
            self.settle_all(out);
        }
        let again_at = *self.unsettled.again_at.get_or_insert(now + SETTLE_AGAIN);
        Some(wait.map_or(again_at, |wait| wait.min(again_at)))
    }

    /// It knows; if it does not agree, because another cluster has this user, it's told again another time. A new account that
    /// nobody has been told of goes instead.
    pub fn settled(&mut self, now: Time, inquiry: (Bare, UserId, u16), edge: &mut Edge, out: &mut Outbox) {
        let (jid, user, cluster) = inquiry;
        let agrees = user == UserId::NOBODY || cluster == self.place.cluster;
        self.unsettled.under_way.remove(&jid);
        let is_last = self.unsettled.words.get(&jid) == Some(&user);
        let at = self.by_name(&jid).filter(|at| at.user == user);
        if agrees && is_last {
            self.unsettled.words.remove(&jid);
            out.commit(vec![Write { table: Table::Meta, key: row_key(UNSETTLED_KEY, &jid), value: None }], Durability::RideAlong);
        } else if !agrees && !self.unsettled.words.contains_key(&jid) {
            self.unsettled.is_disputed = true;
        }
        match at {
            Some(at) if agrees => _ = self.is_known(now, at, edge, out),
            Some(at) => self.retract(now, at, edge, out),
            None => {}
        }
        self.tell_on(out);
    }

    /// A new account that has waited for the directory is there. False: it hasn't waited.
    fn is_known(&mut self, now: Time, at: UserRef, edge: &mut Edge, out: &mut Outbox) -> bool {
        if !self.stops_waiting(at) {
            return false;
        }
        self.created(at, out);
        self.run_changes(now, at, edge, out);
        true
    }

    /// The name of a new account is another cluster's, as the directory says: it goes, before anybody was told of it.
    fn retract(&mut self, now: Time, at: UserRef, edge: &mut Edge, out: &mut Outbox) {
        if !self.stops_waiting(at) {
            return;
        }
        self.unsettled.denied += 1;
        let reason = Reason::UserExists;
        let user = self.user(at).expect("it has waited");
        let jid = user.jid.clone();
        let is_log_in = |change: &mut Change| matches!(change, Change::Attach(_));
        while let Some(Change::Attach(attach)) = user.rare().waiting.pop_front_if(is_log_in) {
            refuse(attach.asker, reason, "", out);
        }
        user.rare().waiting.push_front(Change::Retract);
        for (caller, _) in self.creations.extract_if(.., |(_, of)| *of == at) {
            let why = format!("{jid}: the directory has this name for another cluster: `fanal directory lookup {jid}` says which");
            caller.refuse(reason, why, out);
        }
        self.run_changes(now, at, edge, out);
    }

    fn stops_waiting(&mut self, at: UserRef) -> bool {
        let Some(user) = self.users.get_mut(at.slot as usize).and_then(Option::as_mut).filter(|user| user.id == at.user) else {
            return false;
        };
        user.rare.as_mut().is_some_and(|rare| rare.storing.take_if(|storing| storing.is_settling()).is_some())
    }

    /// Users of whom the directory may not know.
    pub fn unsettled_count(&self) -> usize {
        let Unsettled { words, sweep, .. } = &self.unsettled;
        words.len() + sweep.map_or(0, |next| self.users.len().saturating_sub(next as usize))
    }

    /// New accounts that did not wait any longer for the directory, and those that it did not let this cluster have.
    pub fn settle_counts(&self) -> (u64, u64) {
        (self.unsettled.late, self.unsettled.denied)
    }

    pub(super) fn load_unsettled(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if key.starts_with(ALL_KEY) {
            self.unsettled.swept.insert(key.to_vec());
        }
        let Some(name) = key.strip_prefix(UNSETTLED_KEY) else { return Ok(()) };
        let (jid, user) = read_row(name, value).ok_or("a user of whom the directory does not know")?;
        self.unsettled.words.insert(jid, account::as_own(user, &self.place));
        Ok(())
    }

    pub(super) fn start_settling(&mut self, out: &mut Outbox) {
        self.unsettled.words.retain(|jid, _| out.map.is_near(jid));
        let swept = std::mem::take(&mut self.unsettled.swept);
        if self.place.directory != 0 && !swept.contains(&self.all_row(out).key) {
            self.unsettled.sweep = Some(0);
        }
        // With the first turn.
        self.unsettled.again_at = Some(Time::ZERO);
    }
}

/// In the cluster that keeps the directory, the core of a name keeps both.
fn directory(out: &Outbox) -> Seat {
    if out.map.cluster == out.map.directory { out.map.here } else { Seat::of_cluster(out.map.directory) }
}

fn can_tell(out: &Outbox) -> bool {
    let seat = directory(out);
    out.map.directory != 0 && (seat == out.map.here || out.peers.contains_key(&seat.node))
}

fn tell(jid: &Bare, user: UserId, out: &mut Outbox) {
    let settle = Inquiry::Settle { jid: jid.clone(), user, by: out.map.cluster };
    out.send(directory(out), Control::Directory(Box::new(settle)));
}
