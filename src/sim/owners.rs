//! Who owns which slots, and how cores come to hear of it: what the threads of owners of all nodes do (`node::owners`), where
//! nobody takes over.
//!
//! Lives on: the simulator. Serves Z4, M1. Whose a slot is to be stands in the shape. It gets that owner once a core has asked for
//! one and the first node of the cluster, which keeps the table, is up; every other node hears of it at its own time, and its
//! cores soon after. Where the shape says so, all know everything from the start. Invariants: a slot keeps its owner; all hear of
//! owners in one order; a node knows at its start that the slots of those on its disk are its own.

use super::Env;
use super::core::Core;
use super::counts::Happening;
use super::shape::Shape;
use crate::base::id::{CoreId, NodeId, slot_of};
use crate::base::map::SLOTS;
use crate::shard::Word;
use crate::shard::batch::{Command, Order};
use crate::store::Table;
use crate::store::memory::Memory;
use crate::store::rows::{DIRECTORY_KEY, slot_of_key};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The tables.
pub struct Owners {
    /// Each cluster's slots that have owners, in the order in which they got them.
    given: Vec<Vec<u16>>,
    /// The slots for which each node wants owners.
    wanted: Vec<BTreeSet<u16>>,
    /// How many of the slots that have owners each node has heard of; `None`: it does not know the table yet.
    heard: Vec<Option<usize>>,
}

/// What a core knows of its cluster's table.
pub struct Known {
    /// By slot, from its node's start on.
    at_first: Arc<[NodeId]>,
    /// As of its node's, what it has been told.
    heard: Option<usize>,
}

impl Owners {
    pub fn new(shape: &Shape) -> Owners {
        let nodes = shape.cores.len();
        Owners { given: vec![Vec::new(); shape.clusters], wanted: vec![BTreeSet::new(); nodes], heard: vec![None; nodes] }
    }

    /// What the cores of a node know when it starts; `None`: all there is to know.
    pub fn start(&mut self, shape: &Shape, node: usize, disk: &Memory) -> Option<Arc<[NodeId]>> {
        (self.wanted[node], self.heard[node]) = (BTreeSet::new(), None);
        shape.owners_heard?;
        let accounts = disk.rows(Table::Accounts).map(|(key, _)| slot_of(std::str::from_utf8(key).expect("keys are sound")));
        let names = disk.rows(Table::Meta).filter(|(key, _)| key.starts_with(DIRECTORY_KEY));
        let names = names.filter_map(|(key, _)| slot_of_key(Table::Meta, key));
        let mut owners = vec![NodeId::default(); SLOTS];
        for slot in accounts.chain(names) {
            let owner = shape.owner(shape.cluster_of(node), slot);
            assert_eq!(owner, node, "whoever is in slot {slot} came into being where its owner is");
            owners[usize::from(slot)] = shape.site(node).node;
        }
        Some(owners.into())
    }

    /// The slots that nodes of a cluster want owners for get them. Gives how many there were.
    fn give(&mut self, shape: &Shape, cluster: usize) -> usize {
        let wanted: BTreeSet<u16> = shape.of_cluster(cluster).flat_map(|node| std::mem::take(&mut self.wanted[node])).collect();
        let given = &mut self.given[cluster];
        let before = given.len();
        for slot in wanted {
            if !given.contains(&slot) {
                given.push(slot);
            }
        }
        given.len() - before
    }
}

impl Known {
    pub fn new(at_first: Arc<[NodeId]>) -> Known {
        Known { at_first, heard: None }
    }
}

impl Core {
    /// The core says which slots want owners, and hears which have some. The first one does so for its node.
    pub(super) fn hear_of_owners(&mut self, env: &mut Env) {
        let words = std::mem::take(&mut self.shard.words);
        let (Some(known), Some(chance)) = (&mut self.owners, env.shape.owners_heard) else { return };
        for word in words {
            if let Word::Wanted(mut slots) = word {
                env.owners.wanted[self.node].append(&mut slots);
            }
        }
        let cluster = env.shape.cluster_of(self.node);
        let keeper = env.shape.of_cluster(cluster).start;
        if self.shard.settings.core == CoreId(0) {
            let is_keeper = self.node == keeper;
            if is_keeper && (env.calm || env.random.one_in(3)) {
                let given = env.owners.give(&env.shape, cluster);
                env.counts.add(Happening::OwnerGiven, given as u64);
            }
            let (all, before) = (env.owners.given[cluster].len(), env.owners.heard[self.node].unwrap_or_default());
            if is_keeper || env.calm {
                env.owners.heard[self.node] = Some(all);
            } else if env.random.below(1000) < chance {
                env.owners.heard[self.node] = Some(before + env.random.below((all - before) as u64 + 1) as usize);
            }
        }
        let Some(heard) = env.owners.heard[self.node].filter(|&heard| known.heard != Some(heard)) else { return };
        if !env.calm && env.random.one_in(2) {
            return;
        }
        let mut owners = known.at_first.to_vec();
        for &slot in &env.owners.given[cluster][..heard] {
            owners[usize::from(slot)] = env.shape.site(env.shape.owner(cluster, slot)).node;
        }
        known.heard = Some(heard);
        env.trace.note(env.now, format_args!("node {} core {} hears of {heard} owners", self.node, self.shard.settings.core.0));
        let order = Order::Owners { owners: owners.into(), steward: env.shape.site(keeper).node };
        self.shard.command(env.now, Command { ticket: 0, order });
    }

    /// Whether there is something about owners that this core has not heard.
    pub(super) fn has_to_hear_of_owners(&self, env: &Env) -> bool {
        let given = env.owners.given[env.shape.cluster_of(self.node)].len();
        let is_behind = self.owners.as_ref().is_some_and(|known| known.heard != Some(given));
        is_behind || !env.owners.wanted[self.node].is_empty() || !self.shard.words.is_empty()
    }
}
