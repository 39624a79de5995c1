//! Names leave a core of the directory: for the one that looks after them now, or for good, because their cluster is forgotten.
//!
//! Lives on: the cores of the cluster that keeps the directory. Serves Z1. Invariants: a name stays here, and its row with it,
//! until the other core has stored it; so many are on their way at a time, and no more.

use super::{Directory, Inquiry, NAMES, Storing, row};
use crate::base::id::{Seat, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::presence::control::Control;
use crate::presence::errand::{Answer, Caller};
use crate::presence::outbox::Outbox;
use crate::presence::survey::Found;
use crate::store::Durability;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names on their way to the cores that look after them now. At the limit: the others wait for their turn.
const UNDER_WAY: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Moving {
    /// Names that are another core's, in turn.
    waiting: VecDeque<Bare>,
    /// Those that it was told of and has not stored yet.
    under_way: BTreeSet<Bare>,
    /// Other nodes read and write the same rows.
    is_shared: bool,
}

impl Directory {
    /// The nodes of this cluster have one store together: nobody deletes what another one has taken over.
    pub fn share_store(&mut self) {
        self.moving.is_shared = true;
    }

    /// Others look after some names from now on, or may be told of them only now.
    pub fn hand_over(&mut self, out: &mut Outbox) {
        let theirs = |jid: &&Bare| out.map.home_of(jid) != out.map.here;
        self.moving.under_way.clear();
        let mut waiting: Vec<Bare> = self.names.keys().filter(theirs).cloned().collect();
        waiting.sort_unstable();
        self.moving.waiting = waiting.into();
        self.hand_on(out);
    }

    /// Whether some names are not where they should be.
    pub fn is_handing_over(&self) -> bool {
        !self.moving.waiting.is_empty() || !self.moving.under_way.is_empty()
    }

    /// Another core may have begun to look after a name while it was with the store.
    pub(super) fn hand_on_stored(&mut self, jid: Bare, out: &mut Outbox) {
        if out.map.home_of(&jid) != out.map.here && self.names.contains_key(&jid) {
            self.moving.waiting.push_back(jid);
            self.hand_on(out);
        }
    }

    fn hand_on(&mut self, out: &mut Outbox) {
        let Moving { waiting, under_way, .. } = &mut self.moving;
        let mut stay = VecDeque::new();
        while under_way.len() < UNDER_WAY
            && let Some(jid) = waiting.pop_front()
        {
            let (seat, here) = (out.map.home_of(&jid), out.map.here);
            let Some(&user) = self.names.get(&jid).filter(|_| seat != here) else { continue };
            let can_go = seat.node == here.node || out.peers.contains_key(&seat.node);
            if !can_go || self.unsure.contains_key(&jid) {
                stay.push_back(jid);
                continue;
            }
            under_way.insert(jid.clone());
            out.send(seat, Control::Directory(Box::new(Inquiry::Given { jid, user, by: here })));
        }
        waiting.append(&mut stay);
    }

    /// Another core has kept a name that is looked after here. Whoever has it here already came later, and keeps it.
    pub fn given(&mut self, jid: Bare, user: UserId, by: Seat, out: &mut Outbox) {
        if out.map.home_of(&jid) != out.map.here || self.unsure.contains_key(&jid) {
            // It will be given again, wherever it's to go then.
            return;
        }
        if self.names.contains_key(&jid) {
            return taken(jid, user, by, out);
        }
        if self.names.len() >= NAMES {
            self.denied += 1;
            return;
        }
        let ticket = out.commit(vec![row(&jid, Some(user.0.to_le_bytes().to_vec()))], Durability::Synced);
        self.names.insert(jid.clone(), user);
        self.unsure.insert(jid.clone(), ticket);
        self.storing.insert(ticket, Storing::Given { jid, user, by });
    }

    pub(super) fn given_stored(&mut self, ticket: u64, (jid, user, by): (Bare, UserId, Seat), stored: bool, out: &mut Outbox) {
        let is_last = self.unsure.get(&jid) == Some(&ticket);
        if is_last {
            self.unsure.remove(&jid);
        }
        match stored {
            true => taken(jid, user, by, out),
            false if is_last => _ = self.names.remove(&jid),
            false => {}
        }
    }

    /// The core that looks after a name has stored it.
    pub fn taken(&mut self, jid: Bare, user: UserId, out: &mut Outbox) {
        let seat = out.map.home_of(&jid);
        self.moving.under_way.remove(&jid);
        if self.names.get(&jid) == Some(&user) && seat != out.map.here && !self.unsure.contains_key(&jid) {
            self.names.remove(&jid);
            if seat.node != out.map.here.node && !self.moving.is_shared {
                out.commit(vec![row(&jid, None)], Durability::RideAlong);
            }
        }
        self.hand_on(out);
    }

    /// How many names each cluster has here. Those that are about to be another core's count there.
    pub fn counts(&self) -> BTreeMap<u16, u64> {
        let mut counts = BTreeMap::new();
        self.names.values().for_each(|user| *counts.entry(user.cluster()).or_default() += 1);
        counts
    }

    /// Some names of a cluster go for good.
    pub fn forget(&mut self, cluster: u16, most: usize, caller: Caller, out: &mut Outbox) {
        let (names, unsure) = (&self.names, &self.unsure);
        let of_it = |(jid, user): &(&Bare, &UserId)| user.cluster() == cluster && !unsure.contains_key(*jid);
        let gone: Vec<Bare> = names.iter().filter(of_it).take(most).map(|(jid, _)| jid.clone()).collect();
        gone.iter().for_each(|jid| _ = self.names.remove(jid));
        let left = self.names.values().filter(|user| user.cluster() == cluster).count() as u64;
        if gone.is_empty() {
            return forgotten(caller, 0, left, true, out);
        }
        let ticket = out.commit(gone.iter().map(|jid| row(jid, None)).collect(), Durability::Synced);
        self.storing.insert(ticket, Storing::Forget { caller, gone: gone.len() as u64, left });
    }
}

fn taken(jid: Bare, user: UserId, by: Seat, out: &mut Outbox) {
    out.send(by, Control::Directory(Box::new(Inquiry::Taken { jid, user })));
}

/// Names of a cluster are gone, or (they come back at the next start) are not.
pub(super) fn forgotten(caller: Caller, gone: u64, left: u64, stored: bool, out: &mut Outbox) {
    match stored {
        true => caller.answer(Answer::Found(Box::new(Found::Forgotten { gone, left })), out),
        false => caller.refuse(Reason::StorageFailed, "the store has refused it: try again".to_owned(), out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{CoreId, NodeId, slot_of};
    use crate::base::limits::Limits;
    use crate::base::map::{Map, SLOTS};
    use crate::presence::outbox::Parcel;
    use ahash::RandomState;

    /// A core of the directory, alone on its node, which owns the slots that nobody else is named for.
    fn core(node: u16) -> (Directory, Outbox) {
        let mut out = Outbox::new(Map::of_node(NodeId(node), CoreId(0), 1), &Limits::default(), 1500);
        (out.map.cluster, out.map.directory) = (1, 1);
        (Directory::new(RandomState::with_seed(1)), out)
    }

    fn jid(name: &str) -> Bare {
        Bare::new(name).unwrap()
    }

    fn of_two(name: &str) -> UserId {
        UserId::new(2, slot_of(name), 1)
    }

    /// What one core says to another one's node.
    fn said(out: &mut Outbox, to: u16) -> Vec<Inquiry> {
        let (parcels, _) = out.peers.get_mut(&NodeId(to)).unwrap().take();
        let inquiry = |parcel| match parcel {
            Parcel::Control(_, Control::Directory(inquiry)) => *inquiry,
            _ => panic!("only the directory speaks here"),
        };
        parcels.into_iter().map(inquiry).collect()
    }

    fn store(directory: &mut Directory, out: &mut Outbox) -> Vec<crate::store::Commit> {
        let commits = std::mem::take(&mut out.commits);
        commits.iter().for_each(|commit| _ = directory.complete(commit.ticket, true, out));
        commits
    }

    #[test]
    fn z1_names_go_to_whoever_looks_after_them_now_and_leave_no_row_behind() {
        let ((mut first, mut out), (mut second, mut other)) = (core(1), core(2));
        let names: Vec<String> = (0..UNDER_WAY + 9).map(|n| format!("n{n}@d")).collect();
        for name in &names {
            first.settle(jid(name), of_two(name), 2, &mut out);
        }
        store(&mut first, &mut out);
        let all_of = |node| (0..SLOTS).map(|_| NodeId(node)).collect();
        out.map.set_owners(all_of(2));
        first.hand_over(&mut out);
        assert_eq!((first.count(), first.is_handing_over()), (names.len(), true), "nobody can be told yet");
        out.peers.entry(NodeId(2)).or_default();
        other.peers.entry(NodeId(1)).or_default();
        first.hand_over(&mut out);
        let (mut given, mut rounds) = (said(&mut out, 2), 0);
        assert_eq!(given.len(), UNDER_WAY);
        while !given.is_empty() {
            for inquiry in given {
                let Inquiry::Given { jid, user, by } = inquiry else { panic!("{inquiry:?}") };
                second.given(jid, user, by, &mut other);
            }
            assert!(said(&mut other, 1).is_empty(), "nothing is stored there yet");
            store(&mut second, &mut other);
            for inquiry in said(&mut other, 1) {
                let Inquiry::Taken { jid, user } = inquiry else { panic!("{inquiry:?}") };
                first.taken(jid, user, &mut out);
            }
            (given, rounds) = (said(&mut out, 2), rounds + 1);
        }
        assert_eq!((first.count(), first.is_handing_over(), second.count(), rounds), (0, false, names.len(), 2));
        let deleted = out.commits.iter().flat_map(|commit| &commit.writes).filter(|write| write.value.is_none());
        assert_eq!(deleted.count(), names.len());
    }

    #[test]
    fn z1_what_came_later_stays_and_a_shared_store_keeps_its_rows() {
        let (mut directory, mut out) = core(2);
        let by = Seat { node: NodeId(1), core: CoreId(0) };
        out.peers.entry(by.node).or_default();
        let newer = UserId::new(3, slot_of("ann@d"), 4);
        directory.settle(jid("ann@d"), newer, 3, &mut out);
        store(&mut directory, &mut out);
        directory.given(jid("ann@d"), of_two("ann@d"), by, &mut out);
        assert_eq!(said(&mut out, 1), [Inquiry::Taken { jid: jid("ann@d"), user: of_two("ann@d") }]);
        assert_eq!(directory.cluster(&jid("ann@d")), 3);
        directory.share_store();
        out.map.set_owners((0..SLOTS).map(|_| NodeId(1)).collect());
        directory.taken(jid("ann@d"), newer, &mut out);
        assert_eq!((directory.count(), out.commits.len()), (0, 0));
    }

    #[test]
    fn z1_names_of_a_forgotten_cluster_go_in_pieces() {
        let (mut directory, mut out) = core(1);
        for name in ["ann@d", "bob@d", "eve@d"] {
            directory.settle(jid(name), of_two(name), 2, &mut out);
        }
        directory.settle(jid("zoe@d"), UserId::new(3, slot_of("zoe@d"), 1), 3, &mut out);
        store(&mut directory, &mut out);
        out.controls.clear();
        let caller = Caller { seat: out.map.here, who: crate::presence::errand::Who::Operator { ticket: 1 } };
        let found = |out: &mut Outbox| match out.controls.pop() {
            Some((_, Control::Answered { answer: Answer::Found(found), .. })) => *found,
            other => panic!("{other:?}"),
        };
        for (gone, left) in [(2, 1), (1, 0), (0, 0)] {
            directory.forget(2, 2, caller, &mut out);
            assert!(gone == 0 || out.controls.is_empty(), "it is not stored yet");
            store(&mut directory, &mut out);
            assert_eq!(found(&mut out), Found::Forgotten { gone, left });
        }
        assert_eq!(directory.counts(), BTreeMap::from([(3, 1)]));
    }
}
