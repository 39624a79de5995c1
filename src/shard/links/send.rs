//! What goes to other nodes, by this core's own lanes.
//!
//! Lives on: every core of a node that has links. Serves M4, G4. Invariants: a node gets what is for it in order, and what is for
//! a cluster goes to the one node of it that is used; what can't go now is put off (presence) or ends the lane, so that both ends
//! begin anew.

use super::{Shard, word};
use crate::base::id::NodeId;
use crate::base::time::Time;
use crate::link::Machine;
use crate::presence::frame;
use crate::presence::outbox::Parcel;
use crate::presence::passage;
use crate::wire::link::Site;

/// Updates that go to another node as one.
const RUN_BYTES: usize = 64 << 10;

impl Shard {
    /// Sends what there is for other nodes: last in a turn, for whatever was done before may add to it. Gives when it must again.
    pub fn send_to_peers(&mut self, now: Time) -> Option<Time> {
        let core = self.settings.core.0;
        let words = std::mem::take(&mut self.links.words);
        let sites: Vec<Site> = self.links.lanes.keys().filter(|(_, lane)| *lane == core).map(|(site, _)| *site).collect();
        let mut next = None;
        for site in sites {
            let Some(mut machine) = self.links.lanes.remove(&(site, core)) else { continue };
            if machine.is_up() {
                let own = words.iter().filter(|(to, _)| *to == site);
                own.for_each(|(_, words)| self.must_send(words, &mut machine));
                let again = self.send_to(now, site, &mut machine);
                next = [next, again, Some(machine.deadline())].into_iter().flatten().min();
            }
            self.links.lanes.insert((site, core), machine);
        }
        next
    }

    /// Says something about owners to another node, by the first lane. While that is not up it is lost, and said again.
    pub(in crate::shard) fn say_of_owners(&mut self, node: NodeId, bytes: &[u8]) {
        let site = Site { node, ..self.terms().me };
        self.links.words.push((site, [&word::OWNERS.to_le_bytes(), bytes].concat()));
    }

    /// Sends an entry. If more waits than may, or it is longer than a frame, both ends begin anew.
    pub(super) fn must_send(&mut self, entry: &[u8], machine: &mut Machine) {
        if let Err(refused) = machine.send(entry, &mut self.out.lines) {
            machine.overflow(refused);
        }
    }

    fn send_to(&mut self, now: Time, site: Site, machine: &mut Machine) -> Option<Time> {
        let (own, node) = (self.settings.cores, self.terms().peer(site));
        if let Some(reach) = self.links.reach.get_mut(&site).filter(|reach| reach.is_whole(own)) {
            let lanes = reach.lanes();
            let ready = [&word::READY.to_le_bytes()[..], &lanes.to_le_bytes()].concat();
            if reach.told != Some(lanes) && machine.send(&ready, &mut self.out.lines).is_ok() {
                reach.told = Some(lanes);
            }
        }
        let is_used = |cluster| self.links.routes.get(&cluster).is_some_and(|route| route.used == Some(site.node));
        if node.cluster().is_some_and(|cluster| !is_used(cluster)) {
            return None;
        }
        let is_ready = machine.is_ready(&self.out.lines);
        let peer = self.out.peers.get_mut(&node)?;
        (peer.slow, peer.full) = (!is_ready, machine.is_pressed());
        let taken = self.peer(now, node).map(|peer| peer.take());
        let next = match node.cluster() {
            Some(cluster) => self.send_across(now, cluster, taken, machine),
            None => {
                self.send_inside(node, taken.unwrap_or_default(), machine);
                None
            }
        };
        let waits = self.out.peers.get(&node).is_some_and(|peer| !peer.lapses.is_empty());
        // Room comes with what the other end says.
        if waits && !machine.is_pressed() { Some(now) } else { next }
    }

    fn send_inside(&mut self, node: NodeId, (parcels, updates): (Vec<Parcel>, Vec<u8>), machine: &mut Machine) {
        let mut rest = &updates[..];
        let mut words = Vec::new();
        for parcel in parcels {
            match parcel {
                Parcel::Control(core, control) => {
                    words.clear();
                    words.extend_from_slice(&core.0.to_le_bytes());
                    words = passage::encode(&control, words);
                    self.must_send(&words, machine);
                }
                Parcel::Updates(bytes) => {
                    let (run, behind) = rest.split_at(bytes);
                    rest = behind;
                    self.send_updates(node, run, machine);
                }
            }
        }
    }

    /// Sends event frames, a run of them as one; what can't go now is put off.
    pub(super) fn send_updates(&mut self, node: NodeId, mut run: &[u8], machine: &mut Machine) {
        while !run.is_empty() {
            let mut bytes = 0;
            for frame in frame::frames(run) {
                if bytes > 0 && bytes + frame.len() > RUN_BYTES {
                    break;
                }
                bytes += frame.len();
            }
            let (now, behind) = run.split_at(bytes);
            if !machine.update(0, now, &mut self.out.lines) {
                frame::frames(now).for_each(|frame| self.homes.put_off_for(node, frame, &mut self.out));
            }
            run = behind;
        }
    }
}
