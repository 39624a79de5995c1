//! The one relation: slot -> node and epoch, of all 65,536 slots of a cluster.
//!
//! Lives on: the coordination thread of each node, and as a copy on each core (384 KiB). Serves Z4, M1, R7. Pure. Invariants: the
//! epoch of a slot only grows, so assignments may come twice and in any order; a table at revision R holds every assignment whose
//! epoch is at most R; the counts are those of the table.

use crate::base::id::NodeId;
use crate::store::rows::{BadRow, Row};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Slots of a cluster.
pub const SLOTS: usize = 1 << 16;
/// Slots that are stored in one row.
pub const BLOCK: usize = 256;
/// Most assignments in one `Delta`. At the limit: the rest comes in the next part.
pub const DELTA_ASSIGNMENTS: usize = 8_192;
/// The node of a slot that belongs to nobody.
pub const NOBODY: NodeId = NodeId(0);

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Assignment {
    pub slot: u16,
    /// `NOBODY`: given up.
    pub node: NodeId,
    /// Grows with every change of owner, and with every life of the owner: what was done under a lower one is void.
    pub epoch: u32,
}

/// Lines of the table on their way to another copy: all that changed since a revision, in as many parts as it takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delta {
    /// Everything that changed after this revision ...
    pub since: u32,
    /// ... up to this one is in the parts.
    pub revision: u32,
    /// Counted from 0.
    pub part: u16,
    pub parts: u16,
    pub assignments: Vec<Assignment>,
}

/// What became of a part of a delta.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// These lines are new; `revision` has grown if it was the last part.
    New(Vec<Assignment>),
    /// All that is known already.
    Old,
    /// Something before it is missing: ask for what follows `revision`.
    Gap,
}

/// The table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slots {
    nodes: Box<[NodeId]>,
    epochs: Box<[u32]>,
    counts: BTreeMap<NodeId, u32>,
    revision: u32,
    gathering: Option<Gathering>,
}

/// The parts of a delta that have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gathering {
    since: u32,
    revision: u32,
    parts: u16,
    next: u16,
}

impl Default for Slots {
    fn default() -> Slots {
        let counts = BTreeMap::from([(NOBODY, SLOTS as u32)]);
        Slots { nodes: vec![NOBODY; SLOTS].into(), epochs: vec![0; SLOTS].into(), counts, revision: 0, gathering: None }
    }
}

impl Slots {
    /// Owner and epoch of a slot; `None`: nobody owns it.
    #[inline]
    pub fn owner(&self, slot: u16) -> Option<(NodeId, u32)> {
        let line = self.line(slot);
        (line.node != NOBODY).then_some((line.node, line.epoch))
    }

    /// The line of a slot, whoever owns it.
    #[inline]
    pub fn line(&self, slot: u16) -> Assignment {
        let at = usize::from(slot);
        Assignment { slot, node: self.nodes[at], epoch: self.epochs[at] }
    }

    /// Everything up to this revision is known.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The slots of a node in their order; those of nobody are the slots of `NOBODY`.
    pub fn slots_of(&self, node: NodeId) -> impl Iterator<Item = u16> {
        self.nodes.iter().zip(0..=u16::MAX).filter_map(move |(owner, slot)| (*owner == node).then_some(slot))
    }

    /// How many slots a node owns.
    pub fn count(&self, node: NodeId) -> u32 {
        self.counts.get(&node).copied().unwrap_or(0)
    }

    /// Takes over the lines that are newer than its own, and gives those.
    pub fn merge(&mut self, assignments: &[Assignment]) -> Vec<Assignment> {
        assignments.iter().copied().filter(|line| self.take(*line)).collect()
    }

    fn take(&mut self, line: Assignment) -> bool {
        let at = usize::from(line.slot);
        if line.epoch <= self.epochs[at] {
            return false;
        }
        let before = std::mem::replace(&mut self.nodes[at], line.node);
        self.epochs[at] = line.epoch;
        let count = self.counts.entry(before).or_default();
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&before);
        }
        *self.counts.entry(line.node).or_default() += 1;
        true
    }

    /// The same, and everything up to this revision is known with it.
    pub fn advance(&mut self, assignments: &[Assignment], revision: u32) -> Vec<Assignment> {
        self.revision = self.revision.max(revision);
        self.merge(assignments)
    }

    /// Takes a part of a delta; parts come in order.
    pub fn apply(&mut self, delta: &Delta) -> Applied {
        if delta.revision <= self.revision {
            return Applied::Old;
        }
        let this = Gathering { since: delta.since, revision: delta.revision, parts: delta.parts, next: delta.part };
        let expected = if delta.part == 0 { Some(this) } else { self.gathering };
        if delta.since > self.revision || expected != Some(this) {
            return Applied::Gap;
        }
        let next = delta.part.saturating_add(1);
        let done = next >= delta.parts;
        self.gathering = (!done).then_some(Gathering { next, ..this });
        let new = self.merge(&delta.assignments);
        if done {
            self.revision = delta.revision;
        }
        Applied::New(new)
    }

    /// All that changed after a revision, for a copy that knows everything up to it. From 0: the whole table.
    pub fn since(&self, since: u32) -> Vec<Delta> {
        let changed = (0..=u16::MAX).map(|slot| self.line(slot)).filter(|line| line.epoch > since);
        self.deltas(since, &changed.collect::<Vec<_>>())
    }

    /// The same from lines that are known to be all of them.
    pub fn deltas(&self, since: u32, lines: &[Assignment]) -> Vec<Delta> {
        if since >= self.revision {
            return Vec::new();
        }
        let parts = lines.len().div_ceil(DELTA_ASSIGNMENTS).max(1) as u16;
        let lines_of = |part: u16| lines.chunks(DELTA_ASSIGNMENTS).nth(part.into()).unwrap_or_default().to_vec();
        let delta = |part| Delta { since, revision: self.revision, part, parts, assignments: lines_of(part) };
        (0..parts).map(delta).collect()
    }

    /// The stored form of the block with this number, as it's after these assignments.
    pub fn block(&self, number: u8, after: &[Assignment]) -> Block {
        let first = usize::from(number) * BLOCK;
        let mut lines: Vec<(NodeId, u32)> = (first..first + BLOCK).map(|at| (self.nodes[at], self.epochs[at])).collect();
        for line in after.iter().filter(|line| block_of(line.slot) == number) {
            lines[usize::from(line.slot) - first] = (line.node, line.epoch);
        }
        Block { lines }
    }

    /// Takes a stored block.
    ///
    /// # Errors
    /// It has another number of lines than a block has.
    pub fn load(&mut self, number: u8, block: &Block) -> Result<Vec<Assignment>, BadRow> {
        let new = self.merge(&block.assignments(number)?);
        self.revision = new.iter().map(|line| line.epoch).fold(self.revision, u32::max);
        Ok(new)
    }
}

/// The block in which a slot is stored.
pub fn block_of(slot: u16) -> u8 {
    (slot >> 8) as u8
}

/// The stored form of `BLOCK` slots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Block {
    lines: Vec<(NodeId, u32)>,
}

impl Block {
    /// Its lines, as the block with this number.
    ///
    /// # Errors
    /// There are more or fewer than `BLOCK`.
    pub fn assignments(&self, number: u8) -> Result<Vec<Assignment>, BadRow> {
        if self.lines.len() != BLOCK {
            return Err(BadRow::Fields);
        }
        let first = u16::from(number) << 8;
        Ok((first..=u16::MAX).zip(&self.lines).map(|(slot, &(node, epoch))| Assignment { slot, node, epoch }).collect())
    }
}

impl Row for Block {}
