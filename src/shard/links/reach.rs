//! How far other nodes can be reached, and by which of its nodes another cluster is spoken to.
//!
//! Lives on: every core of a node that has links. Serves G4, M4, Z2, Z13. What becomes of a lane every core of this node hears.
//! Invariants: a node counts as found, at every core, once all its lanes are up and it has said that the very same are up there
//! (a lane that one end has begun anew is another one), and as gone when one of them is: so no two cores
//! of this node disagree for longer than a turn of their rings; then all its lanes begin anew, so whatever was said to a node while
//! it was found comes there before that one's own loss of the same lane, or never. Of a cluster's nodes one is used, until that is
//! gone; whenever updates from a cluster may have been lost on the way, all cores of this cluster that keep its users' presence
//! compare; a node that can't reach a cluster has those that can say so there, so that its users are not shown in a state that is
//! long past.

use super::{Lane, Shard, word};
use crate::base::id::{CoreId, NodeId};
use crate::base::map::Slots;
use crate::base::random::mix;
use crate::base::time::{Time, WallClock};
use crate::presence::passage::BadPassage;
use crate::shard::batch::Entry;
use crate::wire::link::{Hello, Site};
use std::collections::BTreeMap;
use std::time::Duration;

/// Presence is compared with another cluster's so often at most: what is asked for meanwhile is done once, then.
const COMPARE_EVERY: Duration = Duration::from_millis(200);

/// What a core tells the others of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneNews {
    pub site: Site,
    pub lane: u16,
    pub state: LaneState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneState {
    /// To a node of so many cores, between these two lives of both ends (`Notice::Up`).
    Up { cores: u16, pact: u64 },
    /// The other node can answer by all of its cores, and by these lanes (`Reach::lanes`).
    Ready { lanes: u64 },
    /// After a break; updates may have been lost.
    Resumed,
    /// And if all could be reached before, every lane begins anew: whoever hears that waits for each of them.
    Down { anew: bool },
}

/// How far a node can be reached.
#[derive(Default)]
pub(super) struct Reach {
    pub cores: u16,
    /// Each lane's pact.
    up: BTreeMap<u16, u64>,
    /// By which lanes the other node has said that it's ready, and has been told that this one is. An end may not know yet that the
    /// other one has begun a lane anew: then these are others than its own.
    ready: Option<u64>,
    pub told: Option<u64>,
    pub found: bool,
    /// When it was found or lost last.
    pub since: Option<WallClock>,
}

impl Reach {
    /// Whether they are, at both ends, and the same.
    fn is_agreed(&self, own: u16) -> bool {
        self.is_whole(own) && self.ready == Some(self.lanes())
    }

    /// What both ends have for the lanes that are up, if they are the same at both.
    pub fn lanes(&self) -> u64 {
        self.up.iter().fold(0, |sum, (&lane, &pact)| mix(mix(sum, u64::from(lane)), pact))
    }

    pub fn is_down(&self) -> bool {
        self.up.is_empty()
    }

    /// Whether all lanes are up, at this end.
    pub fn is_whole(&self, own: u16) -> bool {
        self.cores > 0 && (0..Hello::lanes(own, self.cores)).all(|lane| self.up.contains_key(&lane))
    }
}

/// The way to another cluster.
#[derive(Default)]
pub(super) struct Route {
    /// The node by which it's spoken to.
    pub used: Option<NodeId>,
    /// Whose users there is a reason to compare, and when that was done last.
    again: Option<Slots>,
    compared: Option<Time>,
}

/// A cluster's nodes in the order in which a node prefers them: so that those of one cluster spread over those of the other.
fn preferred(nodes: &[NodeId], own: NodeId) -> impl Iterator<Item = NodeId> {
    nodes.iter().copied().cycle().skip(usize::from(own.0) % nodes.len().max(1)).take(nodes.len())
}

impl Shard {
    /// Every core of this node hears of a lane of this core.
    pub(super) fn tell_of_lane(&mut self, now: Time, news: LaneNews) {
        self.tell_cores(|| Entry::Lane(news));
        self.hear_of_lane(now, news);
    }

    /// Tells all other cores of this node something.
    pub(super) fn tell_cores(&mut self, entry: impl Fn() -> Entry) {
        let (own, cores) = (self.settings.core, self.settings.cores);
        (0..cores).map(CoreId).filter(|&core| core != own).for_each(|core| self.put_aside(core, entry()));
    }

    pub(in crate::shard) fn hear_of_lane(&mut self, now: Time, LaneNews { site, lane, state }: LaneNews) {
        let (peer, inside, wall) = (self.terms().peer(site), self.terms().is_inside(site), self.homes.place.wall(now));
        let reach = self.links.reach.entry(site).or_default();
        match state {
            LaneState::Up { cores, pact } => {
                reach.cores = cores;
                reach.up.insert(lane, pact);
                if inside {
                    self.out.map.set_cores(peer, cores);
                }
                // What answers it may be on its way before all lanes are up; it goes to the right core from the first on.
                self.out.peers.entry(peer).or_default();
                self.link_faults.better(site);
                if self.has_all_lanes(site) {
                    self.open_own_lanes(now, site);
                }
                self.introduce(site, lane);
            }
            LaneState::Ready { lanes } => reach.ready = Some(lanes),
            LaneState::Resumed if reach.found => self.resumed(now, site),
            LaneState::Resumed => {}
            LaneState::Down { anew } => {
                reach.up.retain(|up, _| !anew && *up != lane);
                let was_found = std::mem::take(&mut reach.found);
                reach.since = if was_found { Some(wall) } else { reach.since };
                // What came by one lane while another was lost hangs on it already.
                let hangs_on_it = was_found || inside && self.out.peers.contains_key(&peer);
                let is_away = |(other, reach): (&Site, &Reach)| self.terms().peer(*other) != peer || reach.is_down();
                if self.links.reach.iter().all(is_away) {
                    self.out.peers.remove(&peer);
                }
                if anew {
                    self.renounce_lanes(now, (site, lane));
                }
                if hangs_on_it {
                    self.site_lost(now, site);
                }
                self.log_in_lost(site);
                if !self.is_known(site) {
                    self.links.reach.remove(&site);
                }
            }
        }
        let own = self.settings.cores;
        let Some(reach) = self.links.reach.get_mut(&site) else { return };
        if !reach.found && reach.is_agreed(own) {
            (reach.found, reach.since) = (true, Some(wall));
            let cores = reach.cores;
            self.site_found(now, site, cores);
        }
    }

    fn site_found(&mut self, now: Time, site: Site, cores: u16) {
        self.say_found(site);
        match self.terms().is_inside(site) {
            true => {
                self.peer_found(now, site.node, cores);
                self.nodes_changed();
            }
            false => self.choose(now, site.cluster),
        }
    }

    fn site_lost(&mut self, now: Time, site: Site) {
        self.say_lost(site);
        match self.terms().is_inside(site) {
            true => {
                self.peer_lost(now, site.node);
                self.nodes_changed();
            }
            false => self.choose(now, site.cluster),
        }
    }

    fn resumed(&mut self, now: Time, site: Site) {
        match self.terms().is_inside(site) {
            true => {
                self.compare_with(now, site.node);
                self.nodes_changed();
            }
            // Each core of this node hears of it; the other nodes only here.
            false => {
                self.compare(site.cluster);
                self.ask_nodes_to_compare(site.cluster);
            }
        }
    }

    /// Forgets nodes that are no nodes of their clusters any more, and closes the lanes to them.
    pub(super) fn forget_sites(&mut self, now: Time, is_over: impl Fn(&Shard, &Site) -> bool) {
        let lanes: Vec<Lane> = self.links.lanes.keys().copied().filter(|(site, _)| is_over(self, site)).collect();
        for lane in lanes {
            let machine = self.links.lanes.remove(&lane);
            machine.into_iter().for_each(|mut machine| machine.leave(&mut self.out.lines));
        }
        let sites: Vec<Site> = self.links.reach.keys().copied().filter(|site| is_over(self, site)).collect();
        for site in sites {
            if self.links.reach.remove(&site).is_some_and(|reach| reach.found) {
                self.site_lost(now, site);
            }
        }
    }

    /// Chooses the node by which a cluster is spoken to, if the one that was is gone.
    pub(super) fn choose(&mut self, now: Time, cluster: u16) {
        let own = self.terms().me.node;
        let found = self.links.reach.iter().filter(|(site, reach)| site.cluster == cluster && reach.found);
        let found: Vec<NodeId> = found.map(|(site, _)| site.node).collect();
        let known = self.links.clusters.get(cluster).map_or(&[][..], |cluster| &cluster.place.nodes);
        let nodes: Vec<NodeId> = known.iter().map(|(node, _)| *node).collect();
        let route = self.links.routes.entry(cluster).or_default();
        if route.used.is_some_and(|used| found.contains(&used)) {
            return;
        }
        let before = route.used;
        route.used = preferred(&nodes, own).find(|node| found.contains(node));
        let peer = NodeId::of_cluster(cluster);
        match route.used {
            Some(node) => {
                // What went by the node before may not have arrived.
                self.ask_to_compare(Site { cluster, node });
                self.peer_found(now, peer, 1);
            }
            None if before.is_some() => {
                self.links.crossings.forget(cluster);
                self.peer_lost(now, peer);
                // Each core has lost it; one says so.
                if self.settings.core == CoreId(0) {
                    self.tell_nodes(word::CUT_OFF, cluster);
                }
            }
            None => {}
        }
    }

    /// Other clusters that can be reached.
    pub fn clusters_found(&self) -> usize {
        self.links.routes.values().filter(|route| route.used.is_some()).count()
    }

    /// Another node of this cluster came or went, or its lane broke: what passed through it on the way from other clusters may be
    /// lost. They hear of it otherwise (`tell_clusters`).
    fn nodes_changed(&mut self) {
        self.links.routes.values_mut().for_each(|route| route.again = Some(Slots::all()));
    }

    /// Tells another cluster that updates to it may have been lost.
    fn ask_to_compare(&mut self, site: Site) {
        self.links.words.push((site, word::AGAIN.to_le_bytes().to_vec()));
    }

    fn ask_nodes_to_compare(&mut self, cluster: u16) {
        self.tell_nodes(word::AGAIN, cluster);
    }

    /// Tells the other nodes of this cluster something about another one.
    fn tell_nodes(&mut self, word: u16, cluster: u16) {
        let terms = self.terms();
        let inside = self.links.reach.iter().filter(|(site, reach)| terms.is_inside(**site) && reach.found);
        let sites: Vec<Site> = inside.map(|(site, _)| *site).collect();
        let says = [word.to_le_bytes(), cluster.to_le_bytes()].concat();
        self.links.words.extend(sites.into_iter().map(|site| (site, says.clone())));
    }

    /// Another node of this cluster can't reach another one. If this node can, that is to know: it hears nothing of those users.
    pub(super) fn cut_off(&mut self, node: NodeId, said: &[u8]) -> Result<(), BadPassage> {
        let cluster = said.try_into().map(u16::from_le_bytes).map_err(|_| BadPassage)?;
        if self.links.routes.get(&cluster).is_some_and(|route| route.used.is_some()) {
            self.tell_of_one_cut_off(cluster, node);
        }
        Ok(())
    }

    /// Updates from another cluster may have been lost: that, or another node of this one, says so.
    pub(super) fn asked_again(&mut self, site: Site, said: &[u8]) -> Result<(), BadPassage> {
        let cluster = match (self.terms().is_inside(site), said) {
            (true, &[low, high]) => u16::from_le_bytes([low, high]),
            (false, []) => site.cluster,
            _ => return Err(BadPassage),
        };
        self.tell_cores(|| Entry::Compare(cluster));
        self.compare(cluster);
        if cluster == site.cluster {
            self.ask_nodes_to_compare(cluster);
        }
        Ok(())
    }

    /// Compares with a cluster what is kept of it, soon.
    pub(in crate::shard) fn compare(&mut self, cluster: u16) {
        self.compare_slots(cluster, &Slots::all());
    }

    /// The same of these users alone.
    pub(super) fn compare_slots(&mut self, cluster: u16, slots: &Slots) {
        self.links.routes.entry(cluster).or_default().again.get_or_insert_default().add(slots);
    }

    /// Compares what there is to compare. Gives when there will be more of it.
    pub(super) fn compare_again(&mut self, now: Time) -> Option<Time> {
        let (mut due, mut next) = (Vec::new(), None);
        for (&cluster, route) in &mut self.links.routes {
            let at = route.compared.map_or(now, |compared| compared + COMPARE_EVERY);
            if at <= now
                && let Some(slots) = route.again.take()
            {
                route.compared = Some(now);
                due.push((NodeId::of_cluster(cluster), slots));
            } else if route.again.is_some() {
                next = Some(next.map_or(at, |next: Time| next.min(at)));
            }
        }
        due.retain(|(peer, _)| self.out.peers.get(peer).is_some_and(|peer| peer.found));
        for (peer, slots) in due {
            let map = self.out.map.clone();
            self.homes.relays.ask_again(|user| map.home(user).node == peer && slots.has(user.slot()), &mut self.out);
            self.work_off(now);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z2_nodes_of_a_cluster_prefer_different_nodes_of_another() {
        let order = |nodes: &[u16], own| {
            let nodes: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
            preferred(&nodes, NodeId(own)).map(|node| node.0).collect::<Vec<_>>()
        };
        assert_eq!([1, 2, 3, 4].map(|own| order(&[3, 5, 9], own)), [[5, 9, 3], [9, 3, 5], [3, 5, 9], [5, 9, 3]]);
        assert_eq!((order(&[7], 2), order(&[], 2)), (vec![7], vec![]));
    }

    /// Z2: else each end may find the other by a lane that the other one has begun anew, begin all lanes anew when it hears of
    /// that, and so on for ever (seed 20263260979 of the simulator as it was).
    #[test]
    fn z2_a_node_that_is_ready_by_other_lanes_than_these_is_not_found() {
        let up = |pacts: [u64; 2]| (0..).zip(pacts).collect::<BTreeMap<u16, u64>>();
        let there = Reach { cores: 2, up: up([7, 9]), ..Reach::default() };
        let mut here = Reach { cores: 2, up: up([7, 8]), ready: Some(there.lanes()), ..Reach::default() };
        assert!(!here.is_agreed(1), "its word overtook the news of the second lane");
        here.up = up([7, 9]);
        assert!(here.is_agreed(1));
        here.up = up([9, 7]);
        assert!(!here.is_agreed(1));
    }

    #[test]
    fn a_node_is_whole_when_each_lane_of_either_end_is_up() {
        let reach = |cores, up: &[u16]| Reach { cores, up: up.iter().map(|&lane| (lane, 1)).collect(), ..Reach::default() };
        assert!(!reach(0, &[]).is_whole(1) && reach(1, &[0]).is_whole(1) && !reach(1, &[0]).is_whole(2));
        assert!(reach(1, &[0, 1]).is_whole(2) && !reach(3, &[0, 2]).is_whole(1) && reach(3, &[0, 1, 2]).is_whole(1));
    }
}
