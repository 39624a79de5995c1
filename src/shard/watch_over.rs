//! Time-outs and limits that nobody's frame triggers: slow log-ins, silent and never-reading clients, sessions not resumed in time.
//!
//! Connections are looked at in turn, a few each time, so that a million of them cost no pause.

use super::Shard;
use super::connection::{Doorway, seconds};
use super::links::Far;
use crate::base::id::ConnId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::wire::encode::Tag;
use std::time::Duration;

/// Each connection is looked at once in this time.
const ROUND: Duration = Duration::from_millis(1000);
/// The core looks this often while it has connections.
const LOOK: Duration = Duration::from_millis(50);

impl Shard {
    /// Looks after what time has done. Gives when it must look again.
    pub(super) fn watch_over(&mut self, now: Time) -> Option<Time> {
        self.end_overrun();
        self.send_to_drained();
        let detached = self.homes.end_detached(now, &mut self.edge, &mut self.out);
        let retries = self.homes.retry(now, &mut self.edge, &mut self.out);
        let unacknowledged = self.homes.keep_given(now, &mut self.out);
        let waiting = self.end_waiting(now);
        let asked = self.look_at_asked(now);
        let next_look = self.look_round(now);
        let attention = self.look_after_attention(now);
        [detached, retries, unacknowledged, waiting, asked, next_look, attention].into_iter().flatten().min()
    }

    /// Finds out at whom nobody looks here, if that makes a difference.
    fn look_after_attention(&mut self, now: Time) -> Option<Time> {
        let between = self.settings.links.as_ref()?.between.as_ref().filter(|between| between.policy.minds_activity())?;
        let after = Duration::from_millis(between.link.inactive_ms.into());
        self.edge.look_after_attention(now, after, &mut self.out)
    }

    /// Clients that never read: presence has been conflated for them, and still there is too much.
    fn end_overrun(&mut self) {
        for conn in self.out.lines.take_overrun() {
            self.recorder.dropped.count(Reason::NeverReads);
            self.frames.clear();
            self.encoder.error(&mut self.frames, Tag::default(), Reason::NeverReads, "");
            self.out.lines.last_words(conn, &self.frames);
            self.drop_sessions(conn, Reason::NeverReads);
            self.shut(conn);
        }
    }

    fn send_to_drained(&mut self) {
        for conn in self.out.lines.take_drained() {
            if let Some(connection) = self.connection(conn) {
                connection.slow_since = 0;
                self.edge.drained(conn, &self.homes, &mut self.out);
            }
        }
    }

    fn look_round(&mut self, now: Time) -> Option<Time> {
        let count = self.connections.len();
        if count == 0 {
            return None;
        }
        let passed = now.since(self.looked_at);
        if passed >= LOOK.as_nanos() as u64 {
            self.meter.look(now, self.counted());
            let share = (count as u128 * u128::from(passed)).div_ceil(ROUND.as_nanos()) as usize;
            for _ in 0..share.min(count) {
                self.look_next = (self.look_next + 1) % count;
                self.look_at(now, self.look_next);
            }
            self.looked_at = now;
        }
        Some(self.looked_at + LOOK)
    }

    fn look_at(&mut self, now: Time, slot: usize) {
        let limits = self.settings.limits.clone();
        let whole = |ms: u32| ms.div_ceil(1000).max(1);
        let second = seconds(now);
        let is_slow = self.connections[slot].is_some() && self.out.lines.is_behind(slot as u32);
        let session = self.edge.find(slot as u32, 0).is_some_and(|edge| self.edge.get(edge).is_some_and(|s| s.home.is_some()));
        self.mark(now, slot);
        let Some(connection) = self.connections[slot].as_mut() else { return };
        let conn = ConnId { slot: slot as u32, generation: connection.generation };
        let logged_in = match &connection.door {
            Doorway::Here(door) => session || door.is_trunk(),
            Doorway::Leaving { .. } | Doorway::Link(Far::Unknown(_)) => false,
            // Its lane looks after it.
            Doorway::Link(Far::Lane(..)) | Doorway::Closing => return,
        };
        if !logged_in {
            if second.saturating_sub(connection.accepted) > whole(limits.log_in_ms) {
                self.end_connection(conn, Reason::LogInTooSlow, "");
            }
            return;
        }
        if self.rates.is_paused(conn) {
            return;
        }
        if is_slow {
            if connection.slow_since == 0 {
                connection.slow_since = second;
            } else if second.saturating_sub(connection.slow_since) > whole(limits.stalled_ms) {
                self.out.lines.give_up(slot as u32);
            }
            return;
        }
        let silent = second.saturating_sub(connection.heard);
        if silent > 2 * whole(limits.ping_ms) {
            self.end_connection(conn, Reason::Silent, "");
        } else if silent > whole(limits.ping_ms) && !connection.pinged {
            connection.pinged = true;
            self.frames.clear();
            self.encoder.ping(&mut self.frames, Tag::default(), u64::from(second));
            self.out.lines.append(conn.slot, &self.frames);
        }
    }
}
