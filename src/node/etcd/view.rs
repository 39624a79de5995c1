//! What is known of a cluster's keys, and the events that their changes are.
//!
//! Lives on: the etcd thread. Invariants: of each key the newest known value counts, in whatever order changes are heard; a
//! member whose key is gone is gone, and known as long as its number is held.

use super::api::{Compare, KeyValue, Keys, Kind, Ranged, Topic, Watched};
use crate::base::id::NodeId;
use crate::ownership::{Assignment, BLOCK, Block, Event, Member, Members, NOBODY, SLOTS, Slots, State, Terms, decode};
use crate::store::rows::Row;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct View {
    pub(super) keys: Keys,
    pub(super) slots: Slots,
    pub(super) members: Members,
    pub(super) terms: Option<Terms>,
    /// When each key was last changed, and the lease on which it hangs.
    known: BTreeMap<Topic, (i64, i64)>,
    /// Everything up to this revision of etcd has been heard.
    pub(super) revision: i64,
}

impl View {
    pub(super) fn new(keys: Keys) -> View {
        let (slots, members) = (Slots::default(), Members::default());
        View { keys, slots, members, terms: None, known: BTreeMap::new(), revision: 0 }
    }

    /// The revision in which a key was last changed; 0: there is none.
    pub(super) fn changed(&self, topic: Topic) -> i64 {
        self.known.get(&topic).map_or(0, |(changed, _)| *changed)
    }

    /// The lease of a member that is there.
    pub(super) fn lease(&self, node: NodeId) -> Option<i64> {
        self.known.get(&Topic::Member(node)).map(|(_, lease)| *lease)
    }

    /// How many keys there are.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// It's still as it's known here.
    pub(super) fn unchanged(&self, topic: Topic) -> Compare {
        Compare::unchanged(self.keys.of(topic), self.changed(topic))
    }

    /// The member is still there, in this very life.
    pub(super) fn held(&self, node: NodeId) -> Compare {
        match self.lease(node) {
            Some(lease) => Compare::held(self.keys.of(Topic::Member(node)), lease),
            None => self.unchanged(Topic::Member(node)),
        }
    }

    /// The stored form of a block after these assignments.
    pub(super) fn block(&self, number: u8, after: &[Assignment]) -> Vec<u8> {
        self.slots.block(number, after).encode()
    }

    /// Takes the answer to a listing of all keys.
    pub(super) fn list(&mut self, ranged: Ranged) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        let listed: BTreeSet<Topic> = ranged.kvs.iter().filter_map(|kv| self.keys.topic(&kv.key.0)).collect();
        for topic in self.known.keys().copied().filter(|topic| !listed.contains(topic)).collect::<Vec<_>>() {
            self.delete(topic, i64::MAX, &mut events);
        }
        for kv in &ranged.kvs {
            self.put(kv, &mut events)?;
        }
        self.revision = self.revision.max(ranged.header.revision.0);
        Ok(events)
    }

    /// Takes what a watch has told.
    pub(super) fn hear(&mut self, watched: Watched) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        for happened in &watched.events {
            match (happened.kind, self.keys.topic(&happened.kv.key.0)) {
                (Kind::Put, _) => self.put(&happened.kv, &mut events)?,
                (Kind::Delete, Some(topic)) => self.delete(topic, happened.kv.mod_revision.0, &mut events),
                (Kind::Delete, None) => {}
            }
        }
        self.revision = self.revision.max(watched.header.revision.0);
        Ok(events)
    }

    /// Lines of the table that this node has written, in this revision of etcd.
    pub(super) fn wrote(&mut self, blocks: &[u8], lines: &[Assignment], revision: i64) -> Event {
        for block in blocks {
            self.known.insert(Topic::Owners(*block), (revision, 0));
        }
        self.assign(lines)
    }

    /// Lines of the table, wherever they come from.
    pub(super) fn assign(&mut self, lines: &[Assignment]) -> Event {
        let revision = lines.iter().map(|line| line.epoch).max().unwrap_or(0);
        Event::Changed(self.slots.advance(lines, revision))
    }

    fn put(&mut self, kv: &KeyValue, events: &mut Vec<Event>) -> Result<(), String> {
        let Some(topic) = self.keys.topic(&kv.key.0) else { return Ok(()) };
        if kv.mod_revision.0 <= self.changed(topic) {
            return Ok(());
        }
        let (name, value) = (kv.key.0.escape_ascii(), &kv.value.0);
        let bad = |why: &dyn std::fmt::Display| format!("{name} in etcd can't be read: {why}");
        match topic {
            Topic::Terms => self.terms = Some(decode(value).ok_or_else(|| bad(&"it is damaged"))?),
            Topic::Member(_) => self.put_member(Member::decode(value).map_err(|why| bad(&why))?, events),
            Topic::Holder(node) => {
                let member = Member::decode(value).map_err(|why| bad(&why))?;
                if self.lease(node).is_none() {
                    self.put_member(Member { state: State::Gone, ..member }, events);
                }
            }
            Topic::Owners(number) => {
                let block = Block::decode(value).map_err(|why| bad(&why))?;
                let lines = block.assignments(number).map_err(|why| bad(&why))?;
                match self.assign(&lines) {
                    Event::Changed(lines) if lines.is_empty() => {}
                    changed => events.push(changed),
                }
            }
        }
        self.known.insert(topic, (kv.mod_revision.0, kv.lease.0));
        Ok(())
    }

    fn put_member(&mut self, member: Member, events: &mut Vec<Event>) {
        if !self.members.get(member.node).is_some_and(|old| old.same(&member)) {
            events.push(Event::Member(member.clone()));
        }
        self.members.put(member);
    }

    fn delete(&mut self, topic: Topic, revision: i64, events: &mut Vec<Event>) {
        if self.known.get(&topic).is_none_or(|(changed, _)| *changed >= revision) {
            return;
        }
        self.known.remove(&topic);
        match topic {
            Topic::Member(node) => {
                let gone = self.members.get(node).map(|member| Member { state: State::Gone, ..member.clone() });
                gone.into_iter().for_each(|gone| self.put_member(gone, events));
            }
            Topic::Holder(node) if self.lease(node).is_none() => {
                events.extend(self.members.remove(node).map(|member| Event::Forgotten(member.node)));
            }
            // Nobody takes these away; what was in them is kept in mind.
            Topic::Holder(_) | Topic::Terms | Topic::Owners(_) => {}
        }
    }
}

/// Owners by block, as they go into transactions.
pub(super) fn by_block(lines: &[(u16, NodeId)]) -> BTreeMap<u8, Vec<(u16, NodeId)>> {
    let mut blocks: BTreeMap<u8, Vec<(u16, NodeId)>> = BTreeMap::new();
    for line in lines {
        blocks.entry(crate::ownership::block_of(line.0)).or_default().push(*line);
    }
    blocks
}

const _: () = assert!(SLOTS / BLOCK == 256 && NOBODY.0 == 0, "a block's number is a byte");
