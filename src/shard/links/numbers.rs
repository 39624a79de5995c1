//! Who gives clusters their numbers: of the directory's nodes the owner of one slot (`CLUSTERS_SLOT`), where their rows are.
//!
//! Lives on: the first core of each node of the directory. Serves Z1, Z2. A node where a cluster logs in asks the owner, until it
//! has heard what becomes of it; the owner stores what it gives and then tells everybody. So the table is fenced, and taken over,
//! with that slot, as users are. Invariants: a number is given by one node at a time, and told to nobody before it is stored.

use super::{Shard, word};
use crate::base::id::Seat;
use crate::base::map::Slots;
use crate::base::time::Time;
use crate::ownership::clusters::{self, Cluster, Clusters};
use crate::presence::control::Control;
use crate::presence::directory::Numbering;
use crate::store::Durability;
use crate::store::rows::CLUSTERS_SLOT;
use crate::wire::link::Site;
use std::collections::BTreeMap;
use std::time::Duration;

/// Clusters that have said hello to the directory and no more. At the limit: the next one is refused, `NoRoom`.
pub(super) const LOG_INS: usize = 64;
/// The owner is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct LogIns {
    /// Clusters that are about to log in here, and what their hellos said of their identities.
    pub said: BTreeMap<u16, u64>,
    /// Those whose number, or new place, the owner was asked for, and when.
    asked: BTreeMap<u16, (Time, Cluster)>,
    /// What this node gives as the owner, and is being stored; by ticket.
    giving: BTreeMap<u64, Cluster>,
}

impl Shard {
    /// Whether it's this core.
    pub(super) fn gives_numbers(&self) -> bool {
        let map = &self.out.map;
        map.is_owned(CLUSTERS_SLOT) && map.home_of_slot(CLUSTERS_SLOT) == map.here
    }

    /// A cluster has logged in that is not known, or not to be there.
    pub(super) fn ask_for_number(&mut self, now: Time, cluster: Cluster) {
        let Cluster { number, identity, ref place } = cluster;
        let (by, place) = (self.out.map.here, clusters::write_place(place, Vec::new()));
        self.links.log_ins.asked.insert(number, (now, cluster));
        let claim = Numbering::Claim { by, number, identity, place };
        self.out.send(self.out.map.home_of_slot(CLUSTERS_SLOT), Control::Number(Box::new(claim)));
    }

    /// The same again as long as nothing is heard. Gives when it is due next.
    pub(in crate::shard) fn go_on_with_log_ins(&mut self, now: Time) -> Option<Time> {
        let asked = &self.links.log_ins.asked;
        let due = asked.values().filter(|(at, _)| *at + ASK_AGAIN <= now).map(|(_, cluster)| cluster.clone());
        due.collect::<Vec<_>>().into_iter().for_each(|cluster| self.ask_for_number(now, cluster));
        self.links.log_ins.asked.values().map(|(at, _)| *at + ASK_AGAIN).min()
    }

    /// Another core of the directory says something.
    pub(in crate::shard) fn numbering(&mut self, said: Numbering) {
        match said {
            Numbering::Denied { number, why } => self.denied_number(number, &why),
            Numbering::Claim { by, number, identity, ref place } if self.gives_numbers() => {
                self.give_number(by, number, identity, place);
            }
            // Another one gives them since.
            claim => self.out.send(self.out.map.home_of_slot(CLUSTERS_SLOT), Control::Number(Box::new(claim))),
        }
    }

    fn give_number(&mut self, by: Seat, number: u16, identity: u64, place: &[u8]) {
        let Some(place) = clusters::read_place(place).filter(|_| self.keeps_directory()) else { return };
        if self.links.log_ins.giving.values().any(|cluster| cluster.number == number) {
            return;
        }
        match self.links.clusters.claim(Some(number), identity, place) {
            Ok(cluster) if self.links.clusters.get(number) != Some(&cluster) => {
                let ticket = self.out.commit(vec![clusters::row(number, Some(&cluster))], Durability::Synced);
                self.links.log_ins.giving.insert(ticket, cluster);
            }
            // Whoever asks has missed it.
            Ok(_) => self.tell_table(self.terms().inside(by.node)),
            Err(why) => {
                let why = postcard::to_stdvec(&why).expect("a reason is plain values");
                self.out.send(by, Control::Number(Box::new(Numbering::Denied { number, why })));
            }
        }
    }

    /// The store has answered. False: it was about something else.
    pub(in crate::shard) fn numbered(&mut self, now: Time, ticket: u64, is_stored: bool) -> bool {
        let Some(cluster) = self.links.log_ins.giving.remove(&ticket) else { return false };
        if is_stored {
            self.learn(now, vec![cluster]);
        }
        true
    }

    /// The owner has said no.
    fn denied_number(&mut self, number: u16, why: &[u8]) {
        if self.links.log_ins.asked.remove(&number).is_none() {
            return;
        }
        if let Ok(why) = postcard::from_bytes::<clusters::Unnumbered>(why) {
            self.link_faults.warn(format!("cluster {number} can't log in: {why}"));
        }
        let says = [&word::DENIED.to_le_bytes(), why].concat();
        let sites: Vec<Site> = self.links.reach.keys().copied().filter(|site| site.cluster == number).collect();
        self.links.words.extend(sites.into_iter().map(|site| (site, says.clone())));
    }

    /// A cluster has its number. Another one may be about to log in here with the same.
    pub(super) fn twin_goes(&mut self, now: Time, cluster: &Cluster) {
        if self.links.log_ins.said.get(&cluster.number).is_some_and(|said| *said != cluster.identity) {
            self.links.log_ins.asked.remove(&cluster.number);
            self.forget_sites(now, |_, site| site.cluster == cluster.number);
        }
    }

    /// That is known of a cluster now.
    pub(super) fn log_in_done(&mut self, cluster: &Cluster) {
        self.links.log_ins.said.remove(&cluster.number);
        self.links.log_ins.asked.retain(|_, (_, asked)| asked != cluster);
    }

    /// A lane of a cluster is gone: with the last one it may begin anew, or another one of its number.
    pub(super) fn log_in_lost(&mut self, site: Site) {
        if self.links.reach.iter().all(|(other, reach)| other.cluster != site.cluster || reach.is_down()) {
            self.links.log_ins.said.remove(&site.cluster);
            self.links.log_ins.asked.remove(&site.cluster);
        }
    }

    /// The rows of clusters were loaded with their slot: they say what was given last.
    pub(in crate::shard) fn clusters_loaded(&mut self, now: Time) {
        if self.started.is_some() && self.gives_numbers() {
            let stored = std::mem::take(&mut self.links.stored);
            self.learn(now, stored.others(0).cloned().collect());
        }
    }

    /// Another node gives the numbers from now on, if that slot is among these.
    pub(in crate::shard) fn numbers_go(&mut self, slots: &Slots) {
        if slots.has(CLUSTERS_SLOT) {
            self.links.log_ins.giving.clear();
            self.links.stored = Clusters::default();
        }
    }
}
