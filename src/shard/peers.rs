//! Other nodes of the cluster: what they say to this core, and what becomes of what hangs on them when they are gone.
//!
//! Lives on: every core. Serves M2, M4, M5, Z4, Z7. A core speaks with another node over a lane of its own; what comes by it is for
//! this core or handed on to the one it is for, in order. Invariants: an answer to a watch that comes from another node is for a
//! relay, never for an edge; of a node that is gone nothing is left: its sessions are not here, its publishers are shown as gone,
//! and it gets nothing that was meant for its earlier life.

use super::batch::Entry;
use super::{EXPECTED, Shard};
use crate::base::id::{CoreId, NodeId, UserId};
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::Control;
use crate::presence::frame::{self, Events};
use crate::presence::outbox::Peer;
use crate::presence::passage::{self, BadPassage};

impl Shard {
    /// Another node can be reached from now on; it has so many cores.
    pub fn peer_found(&mut self, now: Time, node: NodeId, cores: u16) {
        self.out.map.set_cores(node, cores);
        self.out.peers.entry(node).or_default().found = true;
        self.steward_found(node);
        self.homes.ways_again(node, &mut self.out);
        self.homes.documents_again(node, &mut self.out);
        if let Some(cluster) = node.cluster() {
            self.cluster_found(cluster);
        }
        self.compare_with(now, node);
    }

    /// Updates of another node's users may have been lost, and nothing else.
    pub(super) fn compare_with(&mut self, now: Time, node: NodeId) {
        let Shard { homes, out, .. } = self;
        let map = out.map.clone();
        homes.relays.ask_again(|user| map.home(user).node == node, out);
        self.tell_of_homes(node, false);
        self.work_off(now);
    }

    /// Another node has been out of reach for too long, or has started anew.
    pub fn peer_lost(&mut self, now: Time, node: NodeId) {
        self.out.peers.remove(&node);
        let Shard { homes, edge, out, .. } = self;
        let map = out.map.clone();
        homes.node_gone(now, node, edge, out);
        homes.documents_again(node, out);
        homes.relays.lost(now, |user| map.home(user).node == node, edge, out);
        for session in self.edge.sessions_of_homes(|user| map.home(user).node == node) {
            self.session_ended(session, Reason::HomeOutOfReach);
        }
        self.give_up_errands(node);
        self.give_up_asked(node);
        if let Some(cluster) = node.cluster() {
            self.cluster_lost(cluster);
        }
        self.tell_of_homes(node, true);
        self.work_off(now);
    }

    /// Another node's core says something to a core of this one.
    ///
    /// # Errors
    /// It can't be read.
    pub fn from_node(&mut self, now: Time, core: CoreId, bytes: &[u8]) -> Result<(), BadPassage> {
        let control = Box::new(passage::decode(bytes)?);
        if core == self.settings.core {
            self.heard_from_node(now, *control);
        } else if core.0 < self.settings.cores {
            self.put_aside(core, Entry::FromNode(control));
        } else {
            return Err(BadPassage);
        }
        self.work_off(now);
        Ok(())
    }

    /// Updates of another node's publishers, as event frames.
    ///
    /// # Errors
    /// They can't be read.
    pub fn updates_from_node(&mut self, now: Time, frames: Vec<u8>) -> Result<(), BadPassage> {
        let events = Events::try_from(frames).map_err(|_| BadPassage)?;
        self.each_event(&events, |shard, event| {
            shard.update_inside(now, shard.out.map.near(frame::head(event).user).core, event);
        });
        self.work_off(now);
        Ok(())
    }

    /// Takes updates from elsewhere one by one, having looked ahead.
    pub(super) fn each_event(&mut self, events: &Events, mut take: impl FnMut(&mut Shard, &[u8])) {
        let mut ahead = events.iter();
        for (number, event) in events.iter().enumerate() {
            if number % EXPECTED == 0 {
                self.expect_events(ahead.by_ref().take(EXPECTED));
            }
            take(self, event);
        }
    }

    /// An update from elsewhere goes to the core of this node that stands for its publisher.
    pub(super) fn update_inside(&mut self, now: Time, core: CoreId, event: &[u8]) {
        if core == self.settings.core {
            return self.update_from_node(now, event);
        }
        match self.entries[usize::from(core.0)].last_mut() {
            Some(Entry::Updates(block)) => block.append(event),
            _ => {
                let mut block = Events::default();
                block.append(event);
                self.put_aside(core, Entry::Updates(block));
            }
        }
    }

    pub(super) fn update_from_node(&mut self, now: Time, event: &[u8]) {
        if !self.is_welcome(event) {
            return;
        }
        let Shard { homes, edge, out, .. } = self;
        homes.relays.update(now, event, edge, out);
    }

    pub(super) fn heard_from_node(&mut self, now: Time, control: Control) {
        let Shard { homes, out, .. } = self;
        match control {
            Control::Snapshot(snapshot) => {
                let revoked = homes.relays.revoked_by(&snapshot);
                revoked.into_iter().for_each(|subscriber| self.revoke_by_relay(now, snapshot.publisher, subscriber));
                let Shard { homes, edge, out, .. } = self;
                homes.relays.snapshot(now, *snapshot, edge, out);
            }
            Control::Refused { publisher, nonce, .. } => homes.relays.refused(publisher, nonce, out),
            Control::Revoke { publisher, subscriber, .. } => self.revoke_by_relay(now, publisher, subscriber),
            control => self.control_from_elsewhere(now, control),
        }
    }

    /// A home elsewhere has taken an approval back. This core's own edge knows it before anything that the relay tells next, and
    /// behind what the relay has told it: an answer that came later would be taken for a new approval.
    fn revoke_by_relay(&mut self, now: Time, publisher: UserId, subscriber: UserId) {
        self.work_off(now);
        let Shard { homes, edge, out, .. } = self;
        if let Some(slot) = homes.relays.revoke(publisher, subscriber, out) {
            edge.revoke(slot, publisher, subscriber, homes, out);
        }
    }

    /// Whether somebody wants a session whose connection is at a node that has been lost meanwhile: that node has given it up, too.
    pub(super) fn comes_too_late(&self, control: &Control) -> bool {
        let asker = match control {
            Control::Attach(attach) => attach.asker,
            Control::Resume(resume) => resume.asker,
            _ => return false,
        };
        let node = asker.edge.seat.node;
        node != self.out.map.here.node && !self.out.peers.contains_key(&node)
    }

    /// Puts by what nobody knows yet where to go with, and answers what could not be sent because its node can't be reached.
    pub(super) fn give_back(&mut self, now: Time) {
        for control in std::mem::take(&mut self.out.undelivered) {
            match control.slot().is_some_and(|slot| !self.out.map.is_known(slot)) {
                true => self.wait_for_owner(now, control),
                false => self.give_up_control(control),
            }
        }
    }

    /// What there is for another node, if something is.
    pub fn peer(&mut self, now: Time, node: NodeId) -> Option<&mut Peer> {
        if !self.out.peers.get(&node)?.slow {
            self.homes.send_put_off_to(node, now, &mut self.out);
            self.homes.send_wanted_to(node, &mut self.out);
        }
        self.send_lapsed(node);
        self.out.peers.get_mut(&node).filter(|peer| !peer.is_empty())
    }
}
