//! Names leave the directory for good, because their cluster is forgotten.
//!
//! Lives on: the cores of the cluster that keeps the directory. Serves Z1. Invariant: nobody is told that names are gone before
//! that is stored.

use super::{Directory, Storing, row};
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::presence::errand::{Answer, Caller};
use crate::presence::outbox::Outbox;
use crate::presence::survey::Found;
use crate::store::Durability;
use std::collections::BTreeMap;

impl Directory {
    /// How many names each cluster has here.
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
    use crate::base::id::{CoreId, slot_of};
    use crate::base::limits::Limits;
    use crate::base::map::Map;
    use crate::presence::control::Control;
    use crate::presence::errand::Who;
    use ahash::RandomState;

    fn store(directory: &mut Directory, out: &mut Outbox) {
        std::mem::take(&mut out.commits).iter().for_each(|commit| _ = directory.complete(commit.ticket, true, out));
    }

    #[test]
    fn z1_names_of_a_forgotten_cluster_go_in_pieces() {
        let mut map = Map::alone(CoreId(0), 1);
        (map.cluster, map.directory) = (1, 1);
        let (mut directory, mut out) = (Directory::new(RandomState::with_seed(1)), Outbox::new(map, &Limits::default(), 1500));
        let mut settle = |name: &str, cluster| {
            let user = UserId::new(cluster, slot_of(name), 1);
            directory.settle(Bare::new(name).unwrap(), user, cluster, &mut out);
        };
        ["ann@d", "bob@d", "eve@d"].into_iter().for_each(|name| settle(name, 2));
        settle("zoe@d", 3);
        store(&mut directory, &mut out);
        out.controls.clear();
        let caller = Caller { seat: out.map.here, who: Who::Operator { ticket: 1 } };
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
