//! How a core's links are, for the operator.
//!
//! Lives on: every core of a node that has links. Serves G5. Nothing that happens depends on it.

use super::Shard;
use crate::base::reason::LinkReason;
use crate::base::time::WallClock;
use crate::link::LinkCounters;
use crate::metrics::fields::{LinkCounts, LinkGauges, Waits};
use crate::wire::link::{Hello, Life, Site};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

/// What one core tells of its links.
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    pub peers: BTreeMap<Site, PeerReport>,
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
    pub waits: Waits,
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
        for (site, more) in other.peers {
            match self.peers.entry(site) {
                Entry::Vacant(vacant) => _ = vacant.insert(more),
                Entry::Occupied(mut known) => known.get_mut().add(&more),
            }
        }
        other.ended.into_iter().for_each(|(reason, count)| *self.ended.entry(reason).or_default() += count);
        self.tls_failed += other.tls_failed;
        self.stranger = self.stranger.take().or(other.stranger);
        self.users += other.users;
        self.relays += other.relays;
        self.across += other.across;
        self.waits.add(other.waits);
    }
}

impl PeerReport {
    /// Adds what another core tells of the same peer, which knows as much as this one of the whole.
    fn add(&mut self, other: &PeerReport) {
        self.counts.add(&other.counts);
        let whole = self.gauges;
        self.gauges.add(&other.gauges);
        self.gauges.link_found = whole.link_found.min(other.gauges.link_found);
        self.gauges.link_lanes = whole.link_lanes.max(other.gauges.link_lanes);
        self.gauges.link_rtt_ns = whole.link_rtt_ns.max(other.gauges.link_rtt_ns);
        self.since = self.since.max(other.since);
        self.life = self.life.max(other.life);
        self.why = self.why.take().or_else(|| other.why.clone());
    }
}

impl Shard {
    /// How this core's links are.
    pub fn link_report(&self) -> LinkReport {
        let peers = self.linked_sites().into_iter().map(|site| (site, self.peer_report(site))).collect();
        LinkReport {
            peers,
            ended: self.link_faults.counts.clone(),
            tls_failed: self.link_faults.tls_failed,
            stranger: self.link_faults.stranger().map(str::to_owned),
            users: self.homes.user_count() as u64,
            relays: self.homes.relays.count() as u64,
            across: self.homes.across(&self.out) as u64,
            waits: self.waits(),
        }
    }

    /// What waits for others, now.
    pub(super) fn waits(&self) -> Waits {
        Waits {
            owners: self.waiting.count() as u64,
            directory: self.gateway.pending_count() as u64,
            answers: self.gateway.ticket_count() as u64,
            unsettled: self.homes.unsettled_count() as u64,
        }
    }

    fn peer_report(&self, site: Site) -> PeerReport {
        let (cores, found, since) = self.links.reach_of(site);
        let lanes = if cores == 0 { 0 } else { Hello::lanes(self.settings.cores, cores) };
        let put_off = self.put_off_for(site);
        let gauges = LinkGauges {
            link_found: found.into(),
            link_lanes: lanes.into(),
            link_updates_waiting: put_off as u64,
            ..LinkGauges::default()
        };
        let why = self.link_faults.why(site).map(str::to_owned);
        let mut report =
            PeerReport { site, address: self.address_of(site), since, life: None, why, gauges, counts: LinkCounts::default() };
        for machine in self.links.lanes_to(site) {
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
        link_overflows: counters.overflows,
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
