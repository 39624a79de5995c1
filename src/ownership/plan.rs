//! What one commit changes in the table and among the members, and how both are stored.
//!
//! Serves Z1, Z4. Pure. The rows are in `Meta`: `owners:` and the number of a block, a byte, -> `Block`; `member:` and the number
//! of a node, big-endian, -> `Member`.

use super::members::{Member, Members, State};
use super::slots::{Assignment, Block, Slots, block_of};
use crate::base::id::NodeId;
use crate::store::rows::{BadRow, Row};
use crate::store::{Table, Write};
use std::collections::{BTreeMap, BTreeSet};

const BLOCK_KEY: &[u8] = b"owners:";
const MEMBER_KEY: &[u8] = b"member:";

/// Changes that are stored together, under one epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Plan {
    pub(super) epoch: u32,
    /// Who joins, and when each asked, by its own clock, knowing the table up to which revision.
    pub(super) joins: Vec<(Member, u64, u32)>,
    pub(super) forgotten: Vec<(NodeId, NodeId)>,
    /// Slots that were asked for, for the case that it fails.
    pub(super) asked: Vec<u16>,
    /// Slots that are given up in this plan, and who is to have each later.
    pub(super) moves: BTreeMap<u16, NodeId>,
    lines: BTreeMap<u16, NodeId>,
}

impl Plan {
    pub(super) fn new(epoch: u32) -> Plan {
        Plan { epoch, ..Plan::default() }
    }

    /// A slot gets one owner in a plan: the first that is named.
    pub(super) fn assign(&mut self, lines: impl IntoIterator<Item = (u16, NodeId)>) {
        for (slot, node) in lines {
            self.lines.entry(slot).or_insert(node);
        }
    }

    pub(super) fn has(&self, slot: u16) -> bool {
        self.lines.contains_key(&slot)
    }

    pub(super) fn joins(&self, node: NodeId) -> bool {
        self.joins.iter().any(|(member, ..)| member.node == node)
    }

    pub(super) fn moves_nothing(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.joins.is_empty() && self.forgotten.is_empty()
    }

    pub(super) fn assignments(&self) -> Vec<Assignment> {
        self.lines.iter().map(|(&slot, &node)| Assignment { slot, node, epoch: self.epoch }).collect()
    }

    /// The rows of the changed blocks and members.
    pub(super) fn writes(&self, slots: &Slots) -> Vec<Write> {
        let lines = self.assignments();
        let blocks: BTreeSet<u8> = lines.iter().map(|line| block_of(line.slot)).collect();
        let put = |key, value| Write { table: Table::Meta, key, value };
        let forgotten = self.forgotten.iter().map(|(node, _)| put(member_key(*node), None));
        let joined = self.joins.iter().map(|(member, ..)| put(member_key(member.node), Some(member.encode())));
        let changed = blocks.into_iter().map(|number| {
            let of_block = &lines[lines.partition_point(|line| block_of(line.slot) < number)..];
            let end = of_block.partition_point(|line| block_of(line.slot) == number);
            put([BLOCK_KEY, &[number]].concat(), Some(slots.block(number, &of_block[..end]).encode()))
        });
        forgotten.chain(joined).chain(changed).collect()
    }
}

fn member_key(node: NodeId) -> Vec<u8> {
    [MEMBER_KEY, &node.0.to_be_bytes()].concat()
}

/// The table and the members as they were stored: what a coordinator starts with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    pub(super) slots: Slots,
    pub(super) members: Members,
}

impl Stored {
    /// Takes a row of `Meta`; those that are about something else are left out.
    ///
    /// # Errors
    /// It's one of these rows, and can't be read.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRow> {
        if let Some(number) = key.strip_prefix(BLOCK_KEY) {
            let &[number] = number else { return Err(BadRow::Key) };
            self.slots.load(number, &Block::decode(value)?)?;
        } else if let Some(node) = key.strip_prefix(MEMBER_KEY) {
            let node = NodeId(u16::from_be_bytes(node.try_into().map_err(|_| BadRow::Key)?));
            let member = Member::decode(value)?;
            if member.node != node {
                return Err(BadRow::Key);
            }
            // Whether it's still there shows within a lease.
            self.members.put(Member { state: State::Serving, ..member });
        }
        Ok(())
    }
}
