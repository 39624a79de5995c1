//! How a core's links are, for the operator.
//!
//! Lives on: every core of a node that has links. Serves G5, Z2. Nothing that happens depends on it.

use super::Shard;
use crate::base::reason::LinkReason;
use crate::base::time::WallClock;
use crate::link::LinkCounters;
use crate::metrics::fields::{LinkCounts, LinkGauges};
use crate::wire::link::{Hello, Life, Site};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What one core tells of its links.
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    pub peers: Vec<PeerReport>,
    /// Connections turned away or ended, by reason.
    pub ended: BTreeMap<LinkReason, u64>,
    /// Connections whose TLS has failed.
    pub tls_failed: u64,
    /// Why the last connection of nobody who is configured came to nothing.
    pub stranger: Option<String>,
    /// Users whose home is this core.
    pub users: u64,
    pub relays: u64,
    pub across: u64,
}

/// What one core tells of one peer, by the lanes that it owns.
#[derive(Clone, Debug)]
pub struct PeerReport {
    pub site: Site,
    pub address: Option<SocketAddr>,
    /// When it was found or lost last.
    pub since: Option<WallClock>,
    pub life: Option<Life>,
    /// Why the last connection came to nothing.
    pub why: Option<String>,
    pub gauges: LinkGauges,
    pub counts: LinkCounts,
}

impl LinkReport {
    /// Adds what another core tells.
    pub fn add(&mut self, other: LinkReport) {
        for peer in other.peers {
            match self.peers.iter_mut().find(|known| known.site == peer.site) {
                Some(known) => known.add(&peer),
                None => self.peers.push(peer),
            }
        }
        other.ended.into_iter().for_each(|(reason, count)| *self.ended.entry(reason).or_default() += count);
        self.tls_failed += other.tls_failed;
        self.stranger = self.stranger.take().or(other.stranger);
        self.users += other.users;
        self.relays += other.relays;
        self.across += other.across;
    }
}

impl PeerReport {
    /// Adds what another core tells of the same peer, which knows as much as this one of the whole.
    fn add(&mut self, other: &PeerReport) {
        self.counts.add(&other.counts);
        let whole = self.gauges;
        self.gauges.add(&other.gauges);
        self.gauges.link_found = whole.link_found.min(other.gauges.link_found);
        self.gauges.link_used = whole.link_used.max(other.gauges.link_used);
        self.gauges.link_lanes = whole.link_lanes.max(other.gauges.link_lanes);
        self.gauges.link_rtt_ns = whole.link_rtt_ns.max(other.gauges.link_rtt_ns);
        self.since = self.since.max(other.since);
        self.life = self.life.max(other.life);
        self.address = self.address.or(other.address);
        self.why = self.why.take().or_else(|| other.why.clone());
    }
}

impl Shard {
    /// How this core's links are.
    pub(in crate::shard) fn link_report(&self) -> LinkReport {
        let peers = self.settings.links.iter().flat_map(|_| self.sites()).map(|(site, at)| self.peer_report(site, at)).collect();
        LinkReport {
            peers,
            ended: self.link_faults.counts.clone(),
            tls_failed: self.link_faults.tls_failed,
            stranger: self.link_faults.stranger().map(str::to_owned),
            users: self.homes.user_count() as u64,
            relays: self.homes.relays.count() as u64,
            across: self.homes.across(&self.out) as u64,
        }
    }

    /// All nodes that there are to be lanes to, and where they are, as far as that is known.
    fn sites(&self) -> BTreeMap<Site, Option<SocketAddr>> {
        let terms = self.terms();
        let inside = terms.peers.iter().map(|&(node, address)| (terms.inside(node), Some(address)));
        let lanes = self.links.lanes.keys().map(|(site, _)| (*site, None));
        let directory = terms.between.iter().flat_map(|between| {
            between.at.iter().map(|&(node, address)| (Site { cluster: between.directory, node }, Some(address)))
        });
        let told = self.links.clusters.others(terms.me.cluster).flat_map(|other| {
            other.place.nodes.iter().map(|&(node, address)| (Site { cluster: other.number, node }, Some(address)))
        });
        lanes.chain(directory).chain(told).chain(inside).collect()
    }

    fn peer_report(&self, site: Site, address: Option<SocketAddr>) -> PeerReport {
        let reach = self.links.reach.get(&site);
        let cores = reach.map_or(0, |reach| reach.cores);
        let lanes = if cores == 0 { 0 } else { Hello::lanes(self.settings.cores, cores) };
        let is_used = self.links.routes.get(&site.cluster).is_some_and(|route| route.used == Some(site.node));
        let is_near = self.terms().is_inside(site) || is_used;
        let peer = self.out.peers.get(&self.terms().peer(site)).filter(|_| is_near);
        let put_off = peer.map_or(0, |peer| peer.put_off.len());
        let gauges = LinkGauges {
            link_found: reach.is_some_and(|reach| reach.found).into(),
            link_used: is_near.into(),
            link_lanes: lanes.into(),
            link_updates_waiting: put_off as u64,
            ..LinkGauges::default()
        };
        let why = self.link_faults.why(site).map(str::to_owned);
        let since = reach.and_then(|reach| reach.since);
        let mut report = PeerReport { site, address, since, life: None, why, gauges, counts: LinkCounts::default() };
        for machine in self.links.lanes.range((site, 0)..=(site, u16::MAX)).map(|(_, machine)| machine) {
            let (entries, bytes) = machine.kept();
            report.counts.add(&counts(machine.counters()));
            report.life = report.life.max(machine.peer_life());
            let gauges = &mut report.gauges;
            gauges.link_lanes_up += u64::from(machine.conn().is_some());
            gauges.link_rtt_ns = gauges.link_rtt_ns.max(machine.counters().rtt_ns);
            gauges.link_entries_waiting += entries as u64;
            gauges.link_entry_bytes_waiting += bytes as u64;
        }
        report
    }
}

fn counts(counters: &LinkCounters) -> LinkCounts {
    LinkCounts {
        link_entries_sent: counters.entries_sent,
        link_entries_received: counters.entries_received,
        link_entries_repeated: counters.entries_repeated,
        link_entries_dropped: counters.entries_dropped,
        link_entries_returned: counters.entries_returned,
        link_entries_refused: counters.refused,
        link_updates_sent: counters.updates_sent,
        link_updates_received: counters.updates_received,
        link_put_off: counters.put_off,
        link_complex_sent: counters.complex_sent,
        link_complex_received: counters.complex_received,
        link_bytes_sent: counters.bytes_sent,
        link_bytes_received: counters.bytes_received,
        link_dials: counters.dials,
        link_dials_failed: counters.dials_failed,
        link_connections: counters.connections,
        link_resumed: counters.resumed,
        link_silences: counters.silences,
        link_refusals: counters.refusals,
        link_violations: counters.violations,
        link_losses: counters.losses,
    }
}
