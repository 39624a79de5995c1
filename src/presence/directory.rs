//! The directory: which cluster each user is of. First come, first served.
//!
//! Lives on: the cores of the cluster that keeps it, each for the names whose home it would be (`forget`: when a cluster is
//! forgotten). Serves Z1, Z3. The rule: **a name is settled only in a slot that has an owner, and the first name of a slot gets it
//! one, as a first user does**; so names are stored, fenced and taken over with their slots, and whoever looks after slots without
//! owners has no names to keep (`Shard::comes_too_early` holds them back until then). Invariants: a name has one cluster until that
//! gives it up; what was answered, and what anybody acts on, is stored: while something about a name is with the store, whoever
//! asks for it waits.

mod forget;

use super::control::Control;
use super::errand::Caller;
use super::outbox::Outbox;
use crate::base::id::{Seat, UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::map::Map;
use crate::store::rows::DIRECTORY_KEY;
use crate::store::{Durability, Table, Write};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names of one core. At the limit: no more are taken, and clusters go on asking.
pub const NAMES: usize = 1 << 23;

/// What clusters and the directory say to each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Inquiry {
    /// `by`: the cluster that asks.
    Locate { jid: Bare, by: u16 },
    /// 0: of none.
    Located { jid: Bare, cluster: u16 },
    /// A cluster has this user now, or (`NOBODY`) no longer.
    Settle { jid: Bare, user: UserId, by: u16 },
    /// The cluster that has it.
    Settled { jid: Bare, user: UserId, cluster: u16 },
}

/// What cores of the directory say to each other about a cluster that logs in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Numbering {
    /// It wants to have a number, or has moved. `by`: the core where it logs in; `place`: where it is, in its own words.
    Claim { by: Seat, number: u16, identity: u64, place: Vec<u8> },
    /// It can't have it, for this reason, as it is told.
    Denied { number: u16, why: Vec<u8> },
}

impl Inquiry {
    pub fn jid(&self) -> &Bare {
        match self {
            Inquiry::Locate { jid, .. }
            | Inquiry::Located { jid, .. }
            | Inquiry::Settle { jid, .. }
            | Inquiry::Settled { jid, .. } => jid,
        }
    }

    /// The name whose home it is for; `None`: it is for whoever has asked.
    pub fn home(&self) -> Option<&Bare> {
        match self {
            Inquiry::Locate { jid, .. } | Inquiry::Settle { jid, .. } => Some(jid),
            Inquiry::Located { .. } | Inquiry::Settled { .. } => None,
        }
    }

    /// The name that is to be kept from now on, if it is that.
    pub fn settles(&self) -> Option<&Bare> {
        match self {
            Inquiry::Settle { jid, user, .. } if *user != UserId::NOBODY => Some(jid),
            _ => None,
        }
    }

    /// The same, as it comes from a cluster.
    pub fn by(self, cluster: u16) -> Inquiry {
        match self {
            Inquiry::Locate { jid, .. } => Inquiry::Locate { jid, by: cluster },
            Inquiry::Settle { jid, user, .. } => Inquiry::Settle { jid, user, by: cluster },
            answer => answer,
        }
    }

    /// Whether a cluster may say that to this one.
    pub fn check(&self, from: u16, map: &Map) -> bool {
        match self {
            Inquiry::Locate { .. } => map.directory == map.cluster,
            Inquiry::Settle { jid, user, .. } => {
                let own = user.cluster() == from && user.slot() == slot_of(jid.as_str()) && user.serial() != 0;
                map.directory == map.cluster && (own || *user == UserId::NOBODY)
            }
            Inquiry::Located { .. } | Inquiry::Settled { .. } => map.directory == from,
        }
    }
}

/// What waits for the store.
#[derive(Debug)]
enum Storing {
    /// That a user comes, or goes; the cluster is told.
    Settle { jid: Bare, user: UserId, by: u16 },
    /// That names of a forgotten cluster go.
    Forget { caller: Caller, gone: u64, left: u64 },
}

/// A name about which something is with the store.
#[derive(Debug)]
struct Unsure {
    /// The last commit about it, and what is true when that is made.
    ticket: u64,
    user: UserId,
    /// The clusters that wait to hear whose it is.
    asked: BTreeSet<u16>,
}

/// What a core of the directory knows.
#[derive(Debug)]
pub struct Directory {
    /// As stored.
    names: HashMap<Bare, UserId, ahash::RandomState>,
    /// Answers that wait for the store.
    storing: BTreeMap<u64, Storing>,
    /// The names among them.
    unsure: BTreeMap<Bare, Unsure>,
    /// The domains of each cluster; of one that isn't here, any.
    domains: BTreeMap<u16, BTreeSet<String>>,
    /// Names asked for, settled, and not given to a cluster because of another one or of their domain.
    pub located: u64,
    pub settled: u64,
    pub denied: u64,
}

impl Directory {
    pub fn new(hasher: ahash::RandomState) -> Directory {
        let (storing, unsure, domains) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Directory { names: HashMap::with_hasher(hasher), storing, unsure, domains, located: 0, settled: 0, denied: 0 }
    }

    /// The domains of each cluster that has logged in: it gets no names of others.
    pub fn set_domains(&mut self, domains: BTreeMap<u16, BTreeSet<String>>) {
        self.domains = domains;
    }

    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// The cluster of a user; 0: of none. `None`: that is with the store.
    pub fn cluster(&self, jid: &Bare) -> Option<u16> {
        (!self.unsure.contains_key(jid)).then(|| self.names.get(jid).map_or(0, |user| user.cluster()))
    }

    /// The cluster that has a name, or is about to: no other one gets it.
    pub fn holder(&self, jid: &Bare) -> u16 {
        self.user(jid).cluster()
    }

    /// Whether a cluster has a name, or no other one has it.
    pub fn may_have(&self, jid: &Bare, cluster: u16) -> bool {
        [0, cluster].contains(&self.holder(jid))
    }

    /// Who has a name, or is about to.
    fn user(&self, jid: &Bare) -> UserId {
        let unsure = self.unsure.get(jid).map(|unsure| unsure.user);
        unsure.or_else(|| self.names.get(jid).copied()).unwrap_or(UserId::NOBODY)
    }

    /// Takes a row of `Meta`, if it's one of these.
    ///
    /// # Errors
    /// It is, and can't be read.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let Some(name) = key.strip_prefix(DIRECTORY_KEY) else { return Ok(()) };
        let (jid, user) = read_row(name, value).ok_or("a name of the directory")?;
        self.names.insert(jid, user);
        Ok(())
    }

    /// Everything is loaded: what other cores of the node look after is left to them.
    pub fn start(&mut self, map: &Map) {
        self.names.retain(|jid, _| map.is_near(jid));
    }

    /// Another node looks after these names from now on, and has their rows.
    pub fn release(&mut self, goes: impl Fn(&Bare) -> bool) {
        self.names.retain(|jid, _| !goes(jid));
        self.unsure.retain(|jid, _| !goes(jid));
        self.storing.retain(|_, storing| match storing {
            Storing::Settle { jid, .. } => !goes(jid),
            Storing::Forget { .. } => true,
        });
    }

    /// A cluster asks. `is_here`: the user lives on this core, which the directory may not have been told yet.
    pub fn locate(&mut self, jid: Bare, by: u16, is_here: bool, out: &mut Outbox) {
        self.located += 1;
        let own = out.map.cluster;
        let is_own = is_here && self.may_have(&jid, own);
        match self.unsure.get_mut(&jid).filter(|_| !is_own) {
            Some(unsure) => _ = unsure.asked.insert(by),
            None => {
                let cluster = if is_own { own } else { self.holder(&jid) };
                answer(Inquiry::Located { jid, cluster }, by, out);
            }
        }
    }

    /// A cluster has a user, or no longer.
    pub fn settle(&mut self, jid: Bare, user: UserId, by: u16, out: &mut Outbox) {
        let (holder, before) = (self.holder(&jid), self.user(&jid));
        let is_foreign = self.domains.get(&by).is_some_and(|domains| !domains.contains(jid.domain()));
        let is_gone = user == UserId::NOBODY;
        if self.unsure.contains_key(&jid) && before == user {
            // Said again before it is stored: the answer comes with that.
            return;
        }
        if is_gone && holder != by || before == user {
            return answer(Inquiry::Settled { jid, user, cluster: holder }, by, out);
        }
        if is_foreign || holder != 0 && holder != by {
            self.denied += 1;
            return answer(Inquiry::Settled { jid, user, cluster: holder }, by, out);
        }
        if !is_gone && self.names.len() >= NAMES {
            self.denied += 1;
            return;
        }
        let value = (!is_gone).then(|| user.0.to_le_bytes().to_vec());
        let ticket = out.commit(vec![row(&jid, value)], Durability::Synced);
        let unsure = self.unsure.entry(jid.clone()).or_insert_with(|| Unsure { ticket, user, asked: BTreeSet::new() });
        (unsure.ticket, unsure.user) = (ticket, user);
        self.storing.insert(ticket, Storing::Settle { jid, user, by });
    }

    /// The store has answered. False: it was about something else.
    pub fn complete(&mut self, ticket: u64, stored: bool, out: &mut Outbox) -> bool {
        match self.storing.remove(&ticket) {
            None => return false,
            Some(Storing::Settle { jid, user, by }) => self.settle_stored(ticket, (jid, user, by), stored, out),
            Some(Storing::Forget { caller, gone, left }) => forget::forgotten(caller, gone, left, stored, out),
        }
        true
    }

    fn settle_stored(&mut self, ticket: u64, (jid, user, by): (Bare, UserId, u16), stored: bool, out: &mut Outbox) {
        if stored {
            match user == UserId::NOBODY {
                true => _ = self.names.remove(&jid),
                false => _ = self.names.insert(jid.clone(), user),
            }
        }
        let is_last = self.unsure.get(&jid).is_some_and(|unsure| unsure.ticket == ticket);
        let asked = if is_last { self.unsure.remove(&jid).map(|unsure| unsure.asked) } else { None };
        let cluster = self.names.get(&jid).map_or(0, |user| user.cluster());
        for other in asked.into_iter().flatten() {
            answer(Inquiry::Located { jid: jid.clone(), cluster }, other, out);
        }
        if stored {
            self.settled += 1;
            let cluster = if user == UserId::NOBODY { 0 } else { by };
            answer(Inquiry::Settled { jid, user, cluster }, by, out);
        }
    }
}

/// The row of a name; `None`: it goes.
fn row(jid: &Bare, value: Option<Vec<u8>>) -> Write {
    Write { table: Table::Meta, key: row_key(DIRECTORY_KEY, jid), value }
}

fn answer(inquiry: Inquiry, to: u16, out: &mut Outbox) {
    let seat = if to == out.map.cluster { out.map.here } else { Seat::of_cluster(to) };
    out.send(seat, Control::Directory(Box::new(inquiry)));
}

/// The key of a row of `Meta` that belongs to a name.
pub fn row_key(prefix: &[u8], jid: &Bare) -> Vec<u8> {
    [prefix, jid.as_str().as_bytes()].concat()
}

/// The name and the number in such a row.
pub fn read_row(name: &[u8], value: &[u8]) -> Option<(Bare, UserId)> {
    let jid = Bare::try_from(std::str::from_utf8(name).ok()?.to_owned()).ok()?;
    Some((jid, UserId(u64::from_le_bytes(value.try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::CoreId;
    use crate::base::limits::Limits;
    use ahash::RandomState;

    fn directory() -> (Directory, Outbox) {
        let mut map = Map::alone(CoreId(0), 1);
        (map.cluster, map.directory) = (1, 1);
        (Directory::new(RandomState::with_seed(1)), Outbox::new(map, &Limits::default(), 1500))
    }

    /// What became of a name that a cluster says it has, or (`NOBODY`) gives up; `None`: nothing was answered yet.
    fn settle(directory: &mut Directory, out: &mut Outbox, jid: &str, by: u16, serial: u32, stored: bool) -> Option<u16> {
        let jid = Bare::new(jid).unwrap();
        let user = if serial == 0 { UserId::NOBODY } else { UserId::new(by, slot_of(jid.as_str()), serial) };
        out.peers.entry(Seat::of_cluster(by).node).or_default();
        directory.settle(jid, user, by, out);
        for commit in std::mem::take(&mut out.commits) {
            assert!(directory.complete(commit.ticket, stored, out));
        }
        let (mut parcels, _) = out.peers.get_mut(&Seat::of_cluster(by).node).unwrap().take();
        match parcels.pop()? {
            crate::presence::outbox::Parcel::Control(_, Control::Directory(inquiry)) => match *inquiry {
                Inquiry::Settled { cluster, .. } => Some(cluster),
                other => panic!("{other:?}"),
            },
            _ => panic!("only the directory speaks here"),
        }
    }

    #[test]
    fn z1_a_name_is_of_the_cluster_that_came_first_until_that_gives_it_up() {
        let (mut directory, mut out) = directory();
        assert_eq!(settle(&mut directory, &mut out, "ann@d", 2, 1, false), None, "it could not be stored");
        assert_eq!(settle(&mut directory, &mut out, "ann@d", 2, 1, true), Some(2));
        assert_eq!(settle(&mut directory, &mut out, "ann@d", 3, 1, true), Some(2));
        assert_eq!(settle(&mut directory, &mut out, "ann@d", 3, 0, true), Some(2), "nobody gives up what is another's");
        assert_eq!(settle(&mut directory, &mut out, "ann@d", 2, 0, true), Some(0));
        assert_eq!(settle(&mut directory, &mut out, "ann@d", 3, 1, true), Some(3));
        assert_eq!((directory.count(), directory.denied), (1, 1));
    }

    #[test]
    fn z1_a_cluster_gets_names_of_its_own_domains_only() {
        let (mut directory, mut out) = directory();
        directory.set_domains(BTreeMap::from([(2, BTreeSet::from(["two.example".to_owned()]))]));
        assert_eq!(settle(&mut directory, &mut out, "ann@one.example", 2, 1, true), Some(0));
        assert_eq!(settle(&mut directory, &mut out, "ann@two.example", 2, 1, true), Some(2));
    }

    #[test]
    fn what_was_stored_is_known_again_and_damage_is_an_error() {
        let (mut directory, mut out) = directory();
        let ann = Bare::new("ann@d").unwrap();
        out.peers.entry(Seat::of_cluster(2).node).or_default();
        directory.settle(ann.clone(), UserId::new(2, slot_of(ann.as_str()), 1), 2, &mut out);
        let write = out.commits[0].writes[0].clone();
        let mut loaded = Directory::new(RandomState::with_seed(1));
        loaded.load(&write.key, write.value.as_ref().unwrap()).unwrap();
        loaded.load(b"epoch", b"another's row").unwrap();
        assert_eq!((loaded.cluster(&ann), loaded.count()), (Some(2), 1));
        assert!(loaded.load(b"directory:Ann@d", write.value.as_ref().unwrap()).is_err() && loaded.load(&write.key, b"1").is_err());
    }

    #[test]
    fn z1_a_name_is_not_said_to_be_settled_before_it_is_stored_however_often_it_is_said() {
        let mut out = Outbox::new(Map::alone(CoreId(0), 1), &Limits::default(), 1500);
        let mut directory = Directory::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let (jid, user) = (Bare::new("ann@d").unwrap(), UserId::new(2, 1, 1));
        directory.settle(jid.clone(), user, 0, &mut out);
        directory.settle(jid.clone(), user, 0, &mut out);
        assert_eq!((out.commits.len(), out.controls.len()), (1, 0));
        assert!(directory.complete(out.commits[0].ticket, false, &mut out));
        assert!(out.controls.is_empty(), "the store has refused it");
        directory.settle(jid, user, 0, &mut out);
        assert!(directory.complete(out.commits[1].ticket, true, &mut out));
        assert_eq!(out.controls.len(), 1);
    }

    /// Z3: what a cluster's user has asked for under a name that the store then refuses, somebody else would be answered (seed
    /// 315257 of the simulator).
    #[test]
    fn z3_whoever_asks_for_a_name_that_is_with_the_store_hears_what_is_stored() {
        let (mut directory, mut out) = directory();
        let located = |out: &mut Outbox| {
            let located = std::mem::take(&mut out.controls).into_iter().map(|(_, control)| match control {
                Control::Directory(inquiry) => match *inquiry {
                    Inquiry::Located { cluster, .. } => cluster,
                    other => panic!("{other:?}"),
                },
                _ => panic!("only the directory speaks here"),
            });
            located.collect::<Vec<_>>()
        };
        let ann = Bare::new("ann@d").unwrap();
        let user = UserId::new(2, slot_of(ann.as_str()), 1);
        // It comes, in vain; it comes; it goes, in vain; it goes.
        for (user, stored, is_of) in [(user, false, 0), (user, true, 2), (UserId::NOBODY, false, 2), (UserId::NOBODY, true, 0)] {
            directory.settle(ann.clone(), user, 2, &mut out);
            directory.locate(ann.clone(), 1, false, &mut out);
            directory.locate(ann.clone(), 1, false, &mut out);
            assert_eq!((directory.cluster(&ann), directory.holder(&ann)), (None, user.cluster()));
            assert!(located(&mut out).is_empty(), "it is not stored yet");
            let ticket = out.commits.pop().expect("it is to be stored").ticket;
            assert!(directory.complete(ticket, stored, &mut out));
            assert_eq!((located(&mut out), directory.cluster(&ann)), (vec![is_of], Some(is_of)));
        }
    }
}
