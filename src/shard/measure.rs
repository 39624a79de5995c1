//! What a core measures of itself (G5, C1): sampled stages of an update's way, counters, gauges.
//!
//! Nothing that happens depends on what is measured here.

use super::Shard;
use crate::base::time::Time;
use crate::metrics::fields::Gauges;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::stage::Stage;

impl Shard {
    /// A frame that is timed was decoded: if it is an update, its other stages are timed too.
    #[inline]
    pub(super) fn decoded(&mut self, started: Option<Time>) {
        self.homes.stopwatch = None;
        if let Some(started) = started {
            let now = (self.settings.clock)();
            self.recorder.record(Stage::Decode, now.since(started));
            self.homes.stopwatch = Some(crate::presence::home::Stopwatch::start(self.settings.clock));
        }
    }

    /// An update has been applied and has reached the last subscriber of this core.
    #[inline]
    pub(super) fn applied(&mut self, received: Time) {
        if let Some(stopwatch) = self.homes.stopwatch.take() {
            let (apply, fan_out, end) = stopwatch.stop();
            self.recorder.record(Stage::Apply, apply);
            self.recorder.record(Stage::FanOut, fan_out);
            self.recorder.record(Stage::EndToEnd, end.since(received));
        }
    }

    /// A batch of another core was read; its first update stands for all of them.
    pub(super) fn batch_read(&mut self, waited_since: Option<Time>, read_at: Time, updates: u64) {
        if let Some(since) = waited_since
            && self.recorder.is_recording()
        {
            self.recorder.record_many(Stage::RingWait, read_at.since(since), updates);
            self.recorder.record_many(Stage::EndToEnd, (self.settings.clock)().since(since), updates);
        }
    }

    /// What has to do with other clusters.
    fn count_clusters(&mut self) {
        let counters = &mut self.recorder.counters;
        let (gateway, directory) = (self.gateway.counters, &self.homes.directory);
        counters.border_refused = gateway.refused;
        counters.ways_held_back = gateway.held_back;
        counters.border_unanswered = gateway.unanswered;
        counters.directory_asked = gateway.asked;
        counters.directory_given_up = gateway.given_up;
        counters.directory_evicted = gateway.evicted;
        counters.directory_corrected = gateway.corrected;
        counters.names_located = directory.located;
        counters.names_settled = directory.settled;
        counters.names_denied = directory.denied;
        (counters.settles_late, counters.settles_denied) = self.homes.settle_counts();
        counters.owners_refused = self.waiting.refused;
        counters.owners_given_up = self.waiting.given_up;
    }

    /// What has happened on the way to other nodes and clusters.
    fn count_links(&mut self) {
        let (crossings, relays) = (self.crossings(), self.homes.relays.counters);
        let (referred, told_whole) = (self.out.referred, self.homes.counters.told_whole);
        let counters = &mut self.recorder.counters;
        (counters.updates_referred, counters.presences_told_whole, counters.relay_fetched) = (referred, told_whole, relays.fetched);
        counters.relay_updates = relays.updates;
        counters.relay_stale = relays.stale;
        counters.relay_answered = relays.answered;
        counters.relay_asked = relays.asked;
        counters.links_refused = self.link_faults.counts.values().sum();
        counters.links_tls_failed = self.link_faults.tls_failed;
        counters.lapses_joined = self.out.lapses_joined;
        counters.across_updates = crossings.updates;
        counters.across_entries = crossings.entries;
        counters.complex_received = crossings.received;
        counters.gathered_updates = crossings.gathered.updates;
        counters.gathered_inactive = crossings.inactive;
        counters.gathered_replaced = crossings.gathered.replaced;
        counters.gathered_overtaken = crossings.gathered.overtaken;
        counters.gathered_entries = crossings.gathered.others;
        counters.complex_messages = crossings.gathered.messages;
        counters.complex_updates = crossings.gathered.packed_updates;
        counters.complex_bytes = crossings.gathered.packed_bytes;
    }

    /// What has happened to users at their homes, and at this edge.
    fn count_users(&mut self) {
        let (homes, edge) = (self.homes.counters, self.edge.counters);
        let counters = &mut self.recorder.counters;
        counters.updates = homes.updates;
        counters.put_off = homes.put_off;
        counters.registrations = homes.registrations;
        counters.log_ins = homes.log_ins;
        counters.log_outs = homes.log_outs;
        counters.resumes = homes.resumes;
        counters.transfers = homes.transfers;
        counters.watches = homes.watches;
        counters.watches_refused = homes.refused_watches;
        counters.watches_same = homes.watches_same;
        counters.probes = homes.probes;
        counters.changes_stored = homes.changes;
        counters.changes_failed = homes.failed_changes;
        counters.requests_refused = homes.requests_refused;
        counters.farewells = homes.farewells;
        counters.messages = homes.messages;
        counters.document_reads = homes.document_reads;
        counters.documents_told = homes.documents_told;
        counters.messages_kept = homes.messages_kept;
        counters.messages_given_up = homes.messages_given_up;
        counters.stanzas_refused = self.translators.stanzas_refused();
        counters.stale_entries = homes.stale;
        counters.deliveries = edge.deliveries;
        counters.conflated = edge.conflated;
        counters.local_snapshots = edge.local_snapshots;
        counters.stale_updates = edge.stale_updates;
        counters.farewells_overrun = edge.farewells_overrun;
        counters.message_units_out = self.out.lines.units();
    }

    /// All of it, now. The driver's counters are the host's to fill in before.
    pub fn snapshot(&mut self, now: Time) -> Box<Snapshot> {
        self.count_users();
        self.count_links();
        self.count_clusters();
        let counted = self.counted();
        self.meter.look(now, counted);
        let load = self.meter.rate(now);
        let (tally, waits) = (self.homes.tally(), self.waits());
        self.recorder.gauges = Gauges {
            users_resident: self.homes.user_count() as u64,
            users_online: tally.online,
            sessions: self.homes.session_count() as u64,
            sessions_detached: tally.detached,
            connections: self.out.lines.len() as u64,
            connections_throttled: self.rates.paused() as u64,
            trunks: self.trunk_count() as u64,
            subscriptions: tally.subscriptions,
            publishers_watched: self.edge.publisher_count() as u64,
            interest_rows: tally.interest_rows,
            backlog_bytes: self.out.lines.backlog_bytes() as u64,
            messages_waiting: self.homes.kept_size().0 as u64,
            messages_waiting_bytes: self.homes.kept_size().1 as u64,
            documents_bytes: self.homes.document_bytes() as u64,
            commits_waiting: self.homes.storing_count() as u64,
            clusters_known: self.clusters().count() as u64,
            clusters_found: self.clusters_found() as u64,
            owners_waiting: waits.owners,
            directory_waiting: waits.directory,
            answers_waiting: waits.answers,
            users_unsettled: waits.unsettled,
            names_known: self.gateway.known_count() as u64,
            names_kept: self.homes.directory.count() as u64,
            relays: self.homes.relays.count() as u64,
            publishers_unheeded: self.edge.unheeded_count() as u64,
            publishers_across: self.homes.across(&self.out) as u64,
            load_in: load.units_in,
            load_out: load.units_out,
            load_publications: load.publications,
            load_published_bytes: load.published_bytes,
            ..self.recorder.gauges
        };
        self.recorder.snapshot(now)
    }
}
