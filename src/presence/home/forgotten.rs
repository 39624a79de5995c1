//! Users of a cluster that was forgotten are gone: whoever has them as contacts hears so, as if each account had been removed.
//!
//! Lives on: every core. Serves Z8, Z1. Invariants: which clusters were forgotten is stored until one logs in under that number, so
//! whatever breaks, this goes on; each contact's farewell is a change like any other, stored before anybody is told; so many users
//! at a time; doing it again changes nothing.

use super::Homes;
use super::change::{Change, way_row};
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::time::Time;
use crate::presence::control::{FAREWELL, Note, UserRef, Way, WayKind, WayName};
use crate::presence::edge::Edge;
use crate::presence::outbox::Outbox;
use crate::presence::subscription::{Action, State};
use crate::store::rows::FORGOTTEN_KEY;
use crate::store::{Durability, Table, Write};
use std::collections::BTreeMap;
use std::time::Duration;

/// Users who hear of it at a time, and users looked at for that.
const AT_ONCE: usize = 256;
const LOOKED_AT: usize = 4_096;
/// How long the next ones wait.
const PAUSE: Duration = Duration::from_millis(50);

/// Clusters that were forgotten, and how far their users' contacts have heard of it.
#[derive(Default)]
pub(super) struct Forgotten {
    /// With what told each from any other one of its number.
    clusters: BTreeMap<u16, u64>,
    /// The next user, by place; `None`: all have heard.
    next: Option<u32>,
    due: Option<Time>,
}

fn row(cluster: u16, identity: Option<u64>) -> Write {
    let key = [FORGOTTEN_KEY, &cluster.to_be_bytes()].concat();
    Write { table: Table::Meta, key, value: identity.map(|identity| identity.to_le_bytes().to_vec()) }
}

impl Homes {
    /// A cluster is forgotten: its users are gone.
    pub fn forget_cluster(&mut self, cluster: u16, identity: u64, out: &mut Outbox) {
        if self.forgotten.clusters.insert(cluster, identity) == Some(identity) {
            return;
        }
        out.commit(vec![row(cluster, Some(identity))], Durability::Synced);
        self.forgotten.next = Some(0);
        // It will not say that they won't come again.
        let heard: Vec<WayName> = self.heard.keys().filter(|name| name.cluster == cluster).cloned().collect();
        for name in heard {
            out.commit(vec![way_row(&name)], Durability::RideAlong);
            self.forget_heard(&name, out);
        }
        self.heard_from.remove(&cluster);
        self.once.forget(cluster);
    }

    /// A cluster has logged in under this number.
    pub fn know_cluster(&mut self, cluster: u16, out: &mut Outbox) {
        if self.forgotten.clusters.remove(&cluster).is_some() {
            out.commit(vec![row(cluster, None)], Durability::Synced);
        }
    }

    /// The clusters that were forgotten, each with what told it from any other one of its number.
    pub fn forgotten_clusters(&self) -> impl Iterator<Item = (u16, u64)> {
        self.forgotten.clusters.iter().map(|(&cluster, &identity)| (cluster, identity))
    }

    pub(super) fn load_forgotten(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let Some(cluster) = key.strip_prefix(FORGOTTEN_KEY) else { return Ok(()) };
        let (Ok(cluster), Ok(identity)) = (cluster.try_into(), value.try_into()) else { return Err("a forgotten cluster") };
        self.forgotten.clusters.insert(u16::from_be_bytes(cluster), u64::from_le_bytes(identity));
        self.look_for_forgotten();
        Ok(())
    }

    /// There may be users here who have not heard yet.
    pub fn look_for_forgotten(&mut self) {
        self.forgotten.next = (!self.forgotten.clusters.is_empty()).then_some(0);
    }

    /// Tells some more users. Gives when the next ones are due.
    pub(super) fn say_farewells(&mut self, now: Time, edge: &mut Edge, out: &mut Outbox) -> Option<Time> {
        let first = self.forgotten.next?;
        if let Some(due) = self.forgotten.due.filter(|&due| due > now) {
            return Some(due);
        }
        let mut concerned: Vec<(UserRef, Vec<Way>)> = Vec::new();
        let mut next = first;
        while concerned.len() < AT_ONCE && next < first.saturating_add(LOOKED_AT as u32) && (next as usize) < self.users.len() {
            let ways = self.farewells(next);
            let at = self.users[next as usize].as_ref().filter(|_| !ways.is_empty()).map(|user| user.at(next));
            concerned.extend(at.map(|at| (at, ways)));
            next += 1;
        }
        let is_over = next as usize >= self.users.len();
        (self.forgotten.next, self.forgotten.due) = ((!is_over).then_some(next), (!is_over).then_some(now + PAUSE));
        for (at, ways) in concerned {
            self.counters.farewells += ways.len() as u64;
            let user = self.user(at).expect("looked at above");
            // Nothing that was said before they arrived will come any more.
            let settled = ways.iter().flat_map(|way| user.settled(&way.from, |way| way.arrived.is_some()));
            let settled: Vec<Write> = settled.map(|name| way_row(&name)).collect();
            if !settled.is_empty() {
                out.commit(settled, Durability::RideAlong);
            }
            user.rare().waiting.extend(ways.into_iter().map(|way| Change::Way(Box::new(way))));
            self.run_changes(now, at, edge, out);
        }
        self.forgotten.due
    }

    /// What a user's contacts of such clusters would have said with their accounts' removal.
    fn farewells(&self, place: u32) -> Vec<Way> {
        let Some(user) = self.users[place as usize].as_ref() else { return Vec::new() };
        let gone = user.roster.iter().filter(|item| self.forgotten.clusters.contains_key(&item.user.cluster()));
        let says = |(contact, state): (&Bare, State)| {
            let way = |kind| Way {
                from: contact.clone(),
                from_user: UserId::NOBODY,
                to: user.jid.clone(),
                to_user: user.id,
                kind,
                note: Note::default(),
                sequence: FAREWELL,
                cluster: 0,
                // Nobody answers what is under way there.
                knows: vec![(0, u64::MAX)],
            };
            let shows = state.has(State::BARRED).then_some(WayKind::Show);
            let leaves = [Action::Unsubscribe, Action::Unsubscribed].map(WayKind::Stanza);
            shows.into_iter().chain(leaves).map(way).collect::<Vec<_>>()
        };
        gone.flat_map(|item| says((&item.jid, item.state))).collect()
    }
}
