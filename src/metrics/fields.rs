//! The names of everything that is counted or gauged, each written once, with its meaning (G5, C1).
//!
//! Lives on: every core, inside its `Recorder`. Invariants: a counter only grows; the order of `FIELDS` is that of `values`.

use crate::base::reason::Reason;
use serde::{Deserialize, Serialize};

/// What an operator is told about a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// `fanal_NAME_total` for a counter and `fanal_NAME` for a gauge in Prometheus.
    pub name: &'static str,
    pub unit: &'static str,
    pub help: &'static str,
}

/// A count of the node as a whole, which no core owns: of the store or of the admin server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeCount {
    /// `fanal_NAME_total` in Prometheus.
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}

macro_rules! fields {
    ($(#[$about:meta])* $group:ident { $($name:ident, $unit:literal, $help:literal;)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $group { $(#[doc = $help] pub $name: u64,)* }

        impl $group {
            pub const FIELDS: &'static [Field] = &[$(Field { name: stringify!($name), unit: $unit, help: $help }),*];

            /// The numbers in the order of `FIELDS`.
            pub fn values(&self) -> impl Iterator<Item = u64> {
                [$(self.$name),*].into_iter()
            }

            /// Adds another core's numbers.
            pub fn add(&mut self, other: &$group) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }

            /// What came on top since `earlier`; 0 where that was more.
            pub fn since(&self, earlier: &$group) -> $group {
                $group { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }
    };
}

fields! {
    /// What happened since the core started.
    Counters {
        updates, "updates", "Changes of presence applied at their home core";
        put_off, "updates", "Updates for another core replaced by a newer one because its ring or batch was full";
        deliveries, "deliveries", "Presence events handed to subscribers' sessions";
        conflated, "deliveries", "Presence events replaced by a newer one because the subscriber reads slowly";
        local_snapshots, "snapshots", "Last presences answered from what the subscriber's core knew already";
        stale_updates, "updates", "Updates that arrived older than what was known, or for a publisher nobody watches any more";
        stale_entries, "entries", "Entries from other cores for users or sessions that are gone";
        relay_updates, "updates", "Updates of other nodes' publishers taken in";
        relay_stale, "updates", "Of them, those that were no news";
        relay_answered, "watches", "Interests in publishers of other nodes answered from what is kept here";
        relay_asked, "watches", "Interests in publishers of other nodes that their homes were asked about";
        relay_fetched, "presences", "Presences told by reference that were asked for, once for this node";
        updates_referred, "updates", "Updates told to other nodes by reference, being longer than presence.inline_max";
        presences_told_whole, "presences", "Presences that other nodes asked for because they had been told by reference";
        links_refused, "connections", "Links turned away or ended, whoever dialled: fanal_link_ended tells why";
        links_tls_failed, "connections", "Links whose TLS has failed";
        farewells_overrun, "connections", "Slow connections that could not be told of every user who left";
        watches, "watches", "Interests of a core in a publisher that were granted, one per core and publisher";
        watches_refused, "watches", "Interests of a core in a publisher that no approved subscription allows";
        probes, "probes", "Probes by clients";
        changes_stored, "changes", "Changes of accounts, subscriptions, rosters and block lists made durable";
        changes_failed, "changes", "The same that could not be stored, and so were not made";
        requests_refused, "requests", "Subscription requests refused because too many waited for the user's answer";
        farewells, "changes", "Ends of subscriptions with users of clusters that were forgotten";
        messages, "messages", "Messages taken for delivery";
        document_reads, "documents", "Documents read by clients";
        documents_told, "documents", "Documents that sessions were told of";
        messages_kept, "messages", "Of them, stored for a recipient who took none";
        messages_given_up, "messages", "Of them, refused because no session acknowledged them in time and they could not be stored";
        message_units_in, "units", "Load from clients: a message longer than the meter's unit counts as several";
        message_units_out, "units", "Load to clients: a message longer than the meter's unit counts as several";
        publications, "updates", "Changes of presence published by clients";
        published_bytes, "bytes", "Bytes of presence published by clients";
        stanzas_refused, "stanzas", "Stanzas refused because too many of their client's waited for answers, or they were too long";
        hook_asked, "log-ins", "Log-ins that the service of login.http was to decide";
        hook_allowed, "log-ins", "Of them, let in";
        hook_denied, "log-ins", "Of them, not let in";
        hook_failed, "log-ins", "Of them, undecided: it gave no answer, none in time, or none that is known";
        hook_refused, "log-ins", "Of them, not asked about because too many waited";
        registrations, "accounts", "Accounts that people made for themselves";
        log_ins, "sessions", "Sessions that began";
        log_outs, "sessions", "Sessions that ended";
        resumes, "sessions", "Sessions taken up again after their connection broke";
        transfers, "sessions", "Sessions told to go to another node";
        throttled_connection_bytes, "pauses", "Times a connection was not read because it was above limits.bytes_per_second";
        throttled_connection_frames, "pauses", "The same for limits.frames_per_second";
        throttled_user_bytes, "pauses", "The same because its user was above limits.user_bytes_per_second";
        throttled_user_frames, "pauses", "The same for limits.user_frames_per_second";
        throttled_address_bytes, "pauses", "The same because its address was above limits.address_bytes_per_second";
        throttled_address_frames, "pauses", "The same for limits.address_frames_per_second";
        across_updates, "updates", "Updates sent to other clusters at once: one to each, whoever subscribes there";
        across_entries, "entries", "Everything else sent to other clusters at once";
        gathered_updates, "updates", "Updates to other clusters that might wait (link.non_real_time)";
        gathered_inactive, "updates", "Of them, those that wait only because nobody there is active (link.non_real_time: inactive)";
        gathered_replaced, "updates", "Of them, those that took the place of an older one";
        gathered_overtaken, "updates", "Of them, those that one which might not wait made needless";
        gathered_entries, "entries", "Everything else that might wait";
        complex_messages, "messages", "Complex messages sent to other clusters";
        complex_updates, "updates", "Updates in them";
        complex_bytes, "bytes", "Bytes of them";
        complex_received, "messages", "Complex messages received from other clusters";
        border_refused, "entries", "What another cluster said and may not: it changed nothing";
        ways_held_back, "entries", "Subscription changes that could not leave for another cluster now: they are sent again";
        lapses_joined, "words", "Words of homes that are out of reach, back or new that joined one that still waited for its link";
        border_unanswered, "entries", "What was asked of other clusters and not answered in time, or could not wait for an answer";
        directory_asked, "names", "Questions to the directory: which cluster a user is of";
        directory_given_up, "entries", "What waited for the directory's answer in vain, or found no room to wait";
        directory_evicted, "names", "Users whose clusters were forgotten to make room for others";
        directory_corrected, "names", "Users who were of another cluster than was known";
        owners_refused, "entries", "What found no room to wait until it's known who owns a user";
        owners_given_up, "entries", "What waited for that in vain";
        settles_late, "accounts", "Accounts that did not wait any longer until the directory knew of them";
        settles_denied, "accounts", "New accounts taken back because the directory has their names for another cluster";
        names_located, "names", "Questions answered as the directory";
        names_settled, "names", "Users who came to a cluster, or went, in this directory";
        names_denied, "names", "Users that a cluster wanted and another one has, or that are not of its domains";
        watches_same, "watches", "Relays that asked again and had missed nothing";
        receives, "receives", "Receives completed";
        bytes_in, "bytes", "Bytes received from connections";
        sends, "sends", "Sends completed";
        bytes_out, "bytes", "Bytes sent to connections";
        short_sends, "sends", "Sends that took only a part of the bytes";
        send_errors, "sends", "Sends that failed";
        accepts, "connections", "Connections accepted";
        accepts_refused, "connections", "Connections accepted and refused at once";
        accepts_failed, "connections", "Accepts that failed, mostly for want of descriptors";
        dials, "connections", "Connections to other nodes that were to be made";
        dials_failed, "connections", "Of them, those that were not: refused, unreachable or not answered in time";
        connections_adopted, "connections", "Connections taken over from another core";
        connections_departed, "connections", "Connections handed to another core";
        connections_closed, "connections", "Connections closed";
        connections_cut, "connections", "Closed connections that did not read their last bytes in time";
        connections_sealed, "connections", "Connections whose sends the kernel has begun to encrypt (kTLS)";
        seals_failed, "connections", "Connections that ended because the kernel would not encrypt what they send";
        buffers_starved, "receives", "Receives that found no buffer";
        cq_overflow, "completions", "Completions the kernel could not queue; above 0 the ring is too small";
        late_completions, "completions", "Completions for a connection that is gone; above 0 is a bug";
        cancels, "operations", "Operations cancelled";
        turns, "turns", "Turns of the core's loop";
        enters, "calls", "System calls into the ring";
        enters_refused, "calls", "System calls into the ring refused because completions had to be read first";
        sleeps, "sleeps", "Times the core had nothing to do and slept";
        batches, "batches", "Batches sent to other cores";
        batches_read, "batches", "Batches read from other cores";
        ring_full, "batches", "Batches that had to stay because the ring to a core was full";
        doorbells, "rings", "Sleeping cores woken";
    }
}

fields! {
    /// What is there now.
    Gauges {
        users_resident, "users", "Users whose state this core holds";
        users_online, "users", "Users with at least one available session";
        sessions, "sessions", "Sessions, detached ones included";
        sessions_detached, "sessions", "Sessions whose connection broke and that may still be resumed";
        connections, "connections", "Open connections";
        connections_throttled, "connections", "Open connections that are not read, being above a rate";
        trunks, "connections", "Open connections that carry many users' sessions";
        subscriptions, "subscriptions", "Approved subscriptions to users of this core";
        publishers_watched, "publishers", "Publishers with at least one subscriber's session on this core";
        interest_rows, "rows", "Users of this core that another core watches, counted once per core";
        backlog_bytes, "bytes", "Bytes gathered for connections and not yet sent";
        buffers_in_use, "buffers", "Receive buffers held by the core";
        messages_waiting, "messages", "Messages that wait for a recipient of this core to take and acknowledge them";
        messages_waiting_bytes, "bytes", "About the bytes of those messages";
        documents_bytes, "bytes", "Bytes of the documents of users of this core";
        commits_waiting, "commits", "Commits handed to the store and not answered yet";
        clusters_known, "clusters", "Other clusters that the directory has told of";
        clusters_found, "clusters", "Of them, those that can be reached";
        owners_waiting, "entries", "What waits until it's known who owns a user, or until somebody does";
        directory_waiting, "entries", "What waits for the directory to say which cluster a user is of";
        answers_waiting, "entries", "Messages and questions that another cluster has not answered yet";
        users_unsettled, "users", "Users who came or went and of whom the directory does not know yet";
        names_known, "names", "Users of other clusters whose cluster is known here";
        names_kept, "names", "Users whose cluster is kept here, as the directory";
        relays, "relays", "Publishers of other nodes that are watched here";
        publishers_unheeded, "publishers", "Publishers of other clusters watched by inactive clients only, as those were told";
        publishers_across, "users", "Users of this node who are watched at other nodes";
        load_in, "units", "Load from clients in the last unit of time, metrics.meter_unit_ms";
        load_out, "units", "Load to clients in the last unit of time";
        load_publications, "updates", "Changes of presence published in the last unit of time";
        load_published_bytes, "bytes", "Bytes of presence published in the last unit of time";
    }
}

fields! {
    /// What has happened on the links to one other node since this one started, over all lanes.
    LinkCounts {
        link_entries_sent, "entries", "Requests and answers sent to another node";
        link_entries_received, "entries", "Requests and answers received from another node";
        link_entries_repeated, "entries", "Of those sent, sent once more after a break";
        link_entries_dropped, "entries", "Received once more, and dropped";
        link_entries_returned, "entries", "Not acknowledged by a node that is gone";
        link_entries_refused, "entries", "Refused at link.entries or link.entry_bytes";
        link_overflows, "lanes", "Given up because something that must not be lost was refused there: both ends begin anew";
        link_updates_sent, "messages", "Messages with updates sent to another node";
        link_updates_received, "messages", "Messages with updates received from another node";
        link_put_off, "messages", "Messages with updates put off: no connection, or a slow one";
        link_complex_sent, "messages", "Complex messages sent";
        link_complex_received, "messages", "Complex messages received";
        link_bytes_sent, "bytes", "Bytes of all of those, before they are encrypted";
        link_bytes_received, "bytes", "The same of what was received";
        link_dials, "connections", "Connections asked for";
        link_dials_failed, "connections", "Of them, those that were not, or were not agreed on";
        link_connections, "connections", "Connections agreed on";
        link_resumed, "connections", "Of them, those that went on where another had broken";
        link_silences, "connections", "Connections ended because nothing came";
        link_refusals, "connections", "Connections refused at either end before anything was agreed on";
        link_violations, "connections", "Connections ended because the other node broke the rules";
        link_losses, "losses", "Times that a lane was given up, or another life of the node came";
    }
}

fields! {
    /// How the links to one other node are.
    LinkGauges {
        link_found, "nodes", "1 while the node can be reached by all of its lanes";
        link_lanes, "lanes", "Lanes that there are to the node, as far as it is known";
        link_lanes_up, "lanes", "Of them, those that are up";
        link_rtt_ns, "nanoseconds", "The longest of the lanes' last round trips";
        link_entries_waiting, "entries", "Requests and answers that the node has not acknowledged";
        link_entry_bytes_waiting, "bytes", "Their bytes";
        link_updates_waiting, "updates", "Sessions whose newest state waits for the link";
    }
}

/// What waits for others than this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Until it's known who owns a user.
    pub owners: u64,
    /// Until the directory says which cluster a user is of.
    pub directory: u64,
    /// For an answer of another cluster.
    pub answers: u64,
    /// Users who came or went, until the directory knows of them.
    pub unsettled: u64,
}

impl Waits {
    /// Adds another core's numbers.
    pub fn add(&mut self, other: Waits) {
        self.owners += other.owners;
        self.directory += other.directory;
        self.answers += other.answers;
        self.unsettled += other.unsettled;
    }
}

/// What was refused, dropped or ended, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped([u64; Reason::ALL.len()]);

impl Default for Dropped {
    fn default() -> Dropped {
        Dropped([0; Reason::ALL.len()])
    }
}

impl Dropped {
    /// From counts in the order of `Reason::ALL`.
    ///
    /// # Panics
    /// When there isn't one count per reason.
    pub fn from_counts(counts: &[u64]) -> Dropped {
        Dropped(counts.try_into().expect("one count per reason"))
    }

    pub fn count(&mut self, reason: Reason) {
        self.0[place(reason)] += 1;
    }

    pub fn get(&self, reason: Reason) -> u64 {
        self.0[place(reason)]
    }

    /// Every reason with its number, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().copied().zip(self.0)
    }

    pub fn add(&mut self, other: &Dropped) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, more)| *mine = mine.saturating_add(more));
    }

    pub fn since(&self, earlier: &Dropped) -> Dropped {
        let mut since = *self;
        since.0.iter_mut().zip(earlier.0).for_each(|(now, then)| *now = now.saturating_sub(then));
        since
    }
}

fn place(reason: Reason) -> usize {
    Reason::ALL.iter().position(|&other| other == reason).expect("every reason is in the list")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_prometheus() {
        let mut seen = std::collections::BTreeSet::new();
        for field in Counters::FIELDS.iter().chain(Gauges::FIELDS).chain(LinkCounts::FIELDS).chain(LinkGauges::FIELDS) {
            assert!(seen.insert(field.name), "{} twice", field.name);
            assert!(field.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", field.name);
            assert!(!field.name.ends_with("_total") && !field.help.is_empty() && !field.help.ends_with('.'), "{}", field.name);
        }
    }

    #[test]
    fn values_stand_in_the_order_of_their_names() {
        let counters = Counters { deliveries: 7, sleeps: 9, ..Counters::default() };
        let named: Vec<_> =
            Counters::FIELDS.iter().map(|field| field.name).zip(counters.values()).filter(|&(_, n)| n > 0).collect();
        assert_eq!(named, [("deliveries", 7), ("sleeps", 9)]);
        assert_eq!(Counters::FIELDS.len(), counters.values().count());
    }

    #[test]
    fn sums_and_differences_go_field_by_field() {
        let mut total = Counters { updates: 5, turns: 2, ..Counters::default() };
        let earlier = total;
        total.add(&Counters { updates: 3, sleeps: 1, ..Counters::default() });
        assert_eq!(total.since(&earlier), Counters { updates: 3, sleeps: 1, ..Counters::default() });
    }

    #[test]
    fn drops_are_counted_by_reason() {
        let mut dropped = Dropped::default();
        dropped.count(Reason::Flood);
        let earlier = dropped;
        dropped.count(Reason::Flood);
        dropped.count(Reason::TooManyStreams);
        assert_eq!((dropped.get(Reason::Flood), dropped.since(&earlier).get(Reason::Flood)), (2, 1));
        dropped.add(&earlier);
        assert_eq!(dropped.iter().filter(|&(_, n)| n > 0).collect::<Vec<_>>(), [(Reason::TooManyStreams, 1), (Reason::Flood, 3)]);
        let counts: Vec<u64> = dropped.iter().map(|(_, n)| n).collect();
        assert_eq!(Dropped::from_counts(&counts), dropped);
    }
}
