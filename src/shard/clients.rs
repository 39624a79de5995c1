//! The load of each client, for the operator and for whoever balances (C1): which ones cause how much.
//!
//! A client is a connection: a session of its own, or a trunk with all its sessions. While nobody asks, a client's load is two
//! counts that grow, beside what is touched anyway; while somebody does, each client is looked at once in a round and its load of
//! the last unit of time comes of that.

use super::Shard;
use super::connection::{Connection, Doorway};
use crate::base::id::{ConnId, CoreId};
use crate::base::jid::Bare;
use crate::base::time::Time;
use crate::metrics::meter::{ClientLoad, Load, Marks};
use compact_str::CompactString;
use std::net::IpAddr;
use std::time::Duration;

/// When nobody has asked for this long, and for two units of time, the looks at single clients are given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// One client, for lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientLine {
    pub core: CoreId,
    pub peer: IpAddr,
    /// `None`: a trunk, or nobody has logged in.
    pub user: Option<(Bare, CompactString)>,
    pub is_trunk: bool,
    pub sessions: usize,
    /// What it caused in the last unit of time.
    pub load: ClientLoad,
}

/// The looks at single clients, by connection slot, while somebody asks for them.
pub(super) struct Watched {
    asked: Time,
    marks: Vec<Option<(u32, Marks)>>,
}

impl Shard {
    /// Counts what a chunk of bytes, so many frames, has brought for its client and for the core.
    #[inline]
    pub(super) fn count_taken(&mut self, conn: ConnId, frames: u32) {
        let taken = std::mem::take(&mut self.taken);
        let counters = &mut self.recorder.counters;
        counters.message_units_in += u64::from(taken.units);
        counters.publications += u64::from(taken.publications);
        counters.published_bytes += u64::from(taken.published_bytes);
        if let Some(connection) = self.connection(conn) {
            connection.taken.add(taken);
            connection.purse.spend_frames(frames);
        }
    }

    /// All load since the start.
    pub(super) fn counted(&self) -> Load {
        let counters = &self.recorder.counters;
        Load {
            units_in: counters.message_units_in,
            units_out: self.out.lines.units(),
            publications: counters.publications,
            published_bytes: counters.published_bytes,
        }
    }

    /// The clients with the most load, the heaviest first.
    pub(super) fn heaviest(&mut self, now: Time, most: usize) -> Vec<ClientLine> {
        match &mut self.watched {
            Some(watched) => watched.asked = now,
            None => self.watched = Some(Watched { asked: now, marks: Vec::new() }),
        }
        let loads = (0..self.connections.len()).filter_map(|slot| Some((self.load_of(now, slot)?, slot)));
        let mut loads: Vec<(ClientLoad, usize)> = loads.collect();
        let heavier = |(a, _): &(ClientLoad, usize), (b, _): &(ClientLoad, usize)| b.weight().cmp(&a.weight());
        if loads.len() > most {
            loads.select_nth_unstable_by(most, heavier);
            loads.truncate(most);
        }
        loads.sort_by(heavier);
        loads.into_iter().map(|(load, slot)| self.client_line(slot, load)).collect()
    }

    /// Looks at a client, while somebody asks for their loads.
    pub(super) fn mark(&mut self, now: Time, slot: usize) {
        let Some(watched) = &self.watched else { return };
        let patience = PATIENCE.max(2 * Duration::from_millis(self.settings.units.unit_ms.into()));
        if now.since(watched.asked) > patience.as_nanos() as u64 {
            self.watched = None;
            return;
        }
        if let (Some(mut marks), Some(load)) = (self.marks_of(slot), self.total_of(slot)) {
            marks.look(now, load, &self.settings.units);
            let generation = self.connections[slot].as_ref().expect("it has a load").generation;
            let all = &mut self.watched.as_mut().expect("looked above").marks;
            if all.len() <= slot {
                all.resize(self.connections.len(), None);
            }
            all[slot] = Some((generation, marks));
        }
    }

    fn load_of(&self, now: Time, slot: usize) -> Option<ClientLoad> {
        Some(self.marks_of(slot)?.per_unit(now, self.total_of(slot)?, &self.settings.units))
    }

    /// The marks of a connection; of one not looked at yet, those it began with.
    fn marks_of(&self, slot: usize) -> Option<Marks> {
        let Connection { generation, accepted, .. } = *self.connections[slot].as_ref()?;
        let marks = self.watched.as_ref().and_then(|watched| *watched.marks.get(slot)?);
        let known = marks.filter(|(of, _)| *of == generation).map(|(_, marks)| marks);
        Some(known.unwrap_or_else(|| Marks::new(Time(u64::from(accepted.saturating_sub(1)) * 1_000_000_000))))
    }

    /// What a client has caused since it came to this core.
    fn total_of(&self, slot: usize) -> Option<ClientLoad> {
        let Connection { generation, taken, .. } = *self.connections[slot].as_ref()?;
        Some(ClientLoad { taken, units_out: self.out.lines.units_of(ConnId { slot: slot as u32, generation }) })
    }

    fn client_line(&self, slot: usize, load: ClientLoad) -> ClientLine {
        let connection = self.connections[slot].as_ref().expect("it has a load");
        let user = self.edge.session(slot as u32, 0).and_then(|(_, home)| {
            let user = self.homes.get(home.at())?;
            Some((user.jid.clone(), user.sessions[user.position(home.session)?].resource.clone()))
        });
        ClientLine {
            core: self.settings.core,
            peer: self.peers[slot],
            user,
            is_trunk: matches!(&connection.door, Doorway::Here(door) if door.is_trunk()),
            sessions: self.edge.sessions_on(slot as u32).len(),
            load,
        }
    }
}
