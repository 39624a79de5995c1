//! How clusters find each other: each logs in to the directory, and hears from it where all the others are.
//!
//! Lives on: the core of lane 0, which is the first of each node; the table that comes of it: every core. Serves Z1, Z2. A
//! cluster's nodes dial those of the directory, by lane 0 only until they are told of them. A cluster is told from any other with
//! its number by what its hello says of its identity: the directory and whoever has been told by it lets no other one in. Of the
//! directory's nodes one gives the numbers (`numbers`), the others believe it. Invariants: nobody but the directory is believed
//! about other clusters; a cluster speaks only for itself when it logs in.

use super::numbers::LOG_INS;
use super::{Lane, LinkTerms, Shard, word};
use crate::base::config::{self, Compression};
use crate::base::id::NodeId;
use crate::base::reason::LinkReason;
use crate::base::time::Time;
use crate::link::classify::Policy;
use crate::ownership::clusters::{self, Cluster, Clusters, Unnumbered};
use crate::presence::passage::BadPassage;
use crate::shard::batch::Entry;
use crate::shard::owners::Word;
use crate::store::{Durability, Write};
use crate::wire::complex::{Packer, Unpacker};
use crate::wire::link::{Hello, Purpose, Site};
use std::net::SocketAddr;
use std::sync::Arc;

/// The lane by which clusters log in.
const LOG_IN_LANE: u16 = 0;

/// What a node is told of other clusters at its start.
#[derive(Clone, Debug)]
pub struct Between {
    /// This cluster, as the others are to know it.
    pub own: Cluster,
    /// What tells it from any other one with its number; the beginning of it is `own.identity`.
    pub identity: [u8; 32],
    /// The cluster that keeps the directory, and its nodes, if that isn't this one.
    pub directory: u16,
    pub at: Vec<(NodeId, SocketAddr)>,
    /// What may wait for a complex message, and how those are made.
    pub policy: Policy,
    pub link: config::Link,
    /// For zstd; empty: none.
    pub dictionary: Vec<u8>,
    /// The nodes of this cluster have one store together.
    pub is_shared: bool,
}

impl Between {
    /// The number by which the directory knows an identity.
    pub fn short(identity: &[u8; 32]) -> u64 {
        u64::from_le_bytes(*identity.first_chunk().expect("it has 32 bytes"))
    }

    /// Whether a node dials another cluster's. Who logs in knows where the directory is, not the other way round.
    pub(super) fn dials(&self, me: Site, site: Site) -> bool {
        match self.directory {
            directory if directory == me.cluster => false,
            directory => directory == site.cluster || me < site,
        }
    }

    /// The nodes of a cluster as far as they are known from the start.
    pub(super) fn at_of(&self, cluster: u16) -> &[(NodeId, SocketAddr)] {
        if cluster == self.directory { &self.at } else { &[] }
    }

    /// # Panics
    /// When zstd has no memory: whoever made this has tried.
    pub(super) fn packer(&self) -> Packer {
        Packer::new(self.link.compression, self.trained()).expect("it was tried at the start")
    }

    /// # Panics
    /// As `packer`.
    pub(super) fn unpacker(&self) -> Unpacker {
        Unpacker::new(&self.dictionary).expect("it was tried at the start")
    }

    /// # Errors
    /// zstd can't use the dictionary, or has no memory.
    pub fn try_out(&self) -> std::io::Result<()> {
        Packer::new(self.link.compression, self.trained()).and(Unpacker::new(&self.dictionary).map(drop))
    }

    fn trained(&self) -> &[u8] {
        if self.link.compression == Compression::Zstd { &self.dictionary } else { &[] }
    }
}

impl Shard {
    /// The other clusters that this core has been told of.
    pub fn clusters(&self) -> &Clusters {
        &self.links.clusters
    }

    /// Whether a node is one that there may be lanes to.
    pub(in crate::shard) fn is_known(&self, site: Site) -> bool {
        let is_awaited = |terms: &LinkTerms| {
            let at = terms.between.as_ref().map_or(&[][..], |between| between.at_of(site.cluster));
            at.iter().any(|(node, _)| *node == site.node)
        };
        self.has_all_lanes(site) || is_awaited(self.terms()) || self.links.log_ins.said.contains_key(&site.cluster)
    }

    /// Whether each core may have lanes to it: it's of this cluster, or the directory has told of it.
    pub(super) fn has_all_lanes(&self, site: Site) -> bool {
        match self.terms().is_inside(site) {
            true => self.is_peer(site.node),
            false => self.links.clusters.get(site.cluster).is_some_and(|other| other.place.address(site.node).is_some()),
        }
    }

    /// Takes a row that was stored: every core has all that are about clusters.
    ///
    /// # Errors
    /// It's one of those, and can't be read.
    pub fn load_cluster(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let unreadable = |why| format!("a row about another cluster can't be read: {why}");
        self.links.stored.load(key, value).map_err(unreadable)
    }

    /// The first words with the directory; or with all that log in here, if this is where it is kept.
    pub(super) fn begin_between(&mut self, now: Time) {
        if self.keeps_directory() {
            let mut table = std::mem::take(&mut self.links.stored);
            // Another core may have had its first turn, and have heard of some, before this one.
            self.links.clusters.others(0).for_each(|cluster| _ = table.put(cluster.clone()));
            self.take_clusters(now, Arc::new(table));
        }
        let Some(between) = self.terms().between.clone().filter(|_| self.settings.core.0 == LOG_IN_LANE) else { return };
        for (node, _) in between.at {
            self.open_lane(now, (Site { cluster: between.directory, node }, LOG_IN_LANE));
        }
    }

    /// Whether another cluster's node may have a lane here.
    pub(super) fn admit_cluster(&mut self, hello: &Hello) -> Result<(), LinkReason> {
        let Site { cluster, node } = hello.from;
        let keeps_directory = self.keeps_directory();
        if self.terms().between.is_none() || hello.purpose != Purpose::Between {
            return Err(LinkReason::WrongCluster);
        }
        let identity = Between::short(&hello.digest);
        let logs_in = keeps_directory && hello.lane == LOG_IN_LANE;
        let log_ins = &mut self.links.log_ins.said;
        let known = self.links.clusters.get(cluster);
        match known.map(|known| known.identity).or_else(|| log_ins.get(&cluster).copied()) {
            Some(known) if known != identity => Err(LinkReason::NumberInUse),
            Some(_) if logs_in || known.is_some_and(|known| known.place.address(node).is_some()) => Ok(()),
            Some(_) => Err(LinkReason::Untold),
            None if !logs_in => Err(LinkReason::Untold),
            None if log_ins.len() >= LOG_INS => Err(LinkReason::NoRoom),
            None => {
                log_ins.insert(cluster, identity);
                Ok(())
            }
        }
    }

    /// A lane is up: what there is to say about clusters is said.
    pub(super) fn introduce(&mut self, site: Site, lane: u16) {
        if lane != LOG_IN_LANE || self.settings.core.0 != LOG_IN_LANE {
            return;
        }
        if self.terms().is_inside(site) {
            self.words.push(Word::Met(site.node));
        }
        match self.keeps_directory() {
            true if self.terms().is_inside(site) && self.gives_numbers() => self.tell_table(site),
            false if self.is_directory(site) => self.say_place(site),
            _ => {}
        }
    }

    /// Tells a node of the directory where this cluster is.
    fn say_place(&mut self, site: Site) {
        let Some(own) = self.own_cluster() else { return };
        let place = clusters::write_place(&own.place, word::JOIN.to_le_bytes().to_vec());
        self.links.words.push((site, place));
    }

    /// Other nodes than before are of this cluster: the directory is to know, or tells all others.
    pub(super) fn has_moved(&mut self) {
        if self.settings.core.0 != LOG_IN_LANE {
            return;
        }
        for site in self.links.reach.keys().copied().collect::<Vec<_>>() {
            match self.keeps_directory() {
                true if !self.terms().is_inside(site) => self.tell_table(site),
                false if self.is_directory(site) => self.say_place(site),
                _ => {}
            }
        }
    }

    /// This cluster, as the others are to know it.
    fn own_cluster(&self) -> Option<Cluster> {
        let mut own = self.terms().between.as_ref()?.own.clone();
        if let Some(nodes) = &self.links.nodes {
            own.place.nodes = nodes.to_vec();
        }
        Some(own)
    }

    /// A cluster logs in.
    pub(super) fn join(&mut self, now: Time, (site, lane): Lane, said: &[u8]) -> Result<(), BadPassage> {
        if lane != LOG_IN_LANE || !self.keeps_directory() {
            return Err(BadPassage);
        }
        let place = clusters::read_place(said).ok_or(BadPassage)?;
        let known = self.links.clusters.get(site.cluster).map(|known| known.identity);
        let identity = known.or_else(|| self.links.log_ins.said.get(&site.cluster).copied()).ok_or(BadPassage)?;
        let cluster = Cluster { number: site.cluster, identity, place };
        match self.links.clusters.get(site.cluster) == Some(&cluster) {
            true => self.tell_table(site),
            false => self.ask_for_number(now, cluster),
        }
        Ok(())
    }

    /// The directory has said no.
    pub(super) fn denied(&mut self, (site, lane): Lane, said: &[u8]) -> Result<(), BadPassage> {
        if lane != LOG_IN_LANE || !self.is_directory(site) {
            return Err(BadPassage);
        }
        let why: Unnumbered = postcard::from_bytes(said).map_err(|_| BadPassage)?;
        self.link_faults.warn(format!("this cluster can't log in to the directory, cluster {}: {why}", site.cluster));
        Ok(())
    }

    fn is_directory(&self, site: Site) -> bool {
        self.terms().between.as_ref().is_some_and(|between| between.directory == site.cluster)
    }

    /// The directory tells of clusters; or one of its nodes another one.
    pub(super) fn told_of_clusters(&mut self, now: Time, (site, lane): Lane, said: &[u8]) -> Result<(), BadPassage> {
        if lane != LOG_IN_LANE || !self.is_directory(site) {
            return Err(BadPassage);
        }
        let told = clusters::read_clusters(said).ok_or(BadPassage)?;
        let (terms, gives_numbers) = (self.terms(), self.gives_numbers());
        let is_believed = |cluster: &Cluster| cluster.number != terms.me.cluster && (!terms.is_inside(site) || !gives_numbers);
        let believed: Vec<Cluster> = told.into_iter().filter(is_believed).collect();
        self.keep_copies(believed.iter().map(|cluster| (cluster.number, Some(cluster))));
        self.learn(now, believed);
        Ok(())
    }

    /// A node of the directory that has a store of its own keeps there what another one has told it.
    fn keep_copies<'a>(&mut self, told: impl Iterator<Item = (u16, Option<&'a Cluster>)>) {
        let is_shared = self.terms().between.as_ref().is_some_and(|between| between.is_shared);
        let told = told.filter(|(number, cluster)| self.links.clusters.get(*number) != *cluster);
        let rows: Vec<Write> = told.map(|(number, cluster)| clusters::row(number, cluster)).collect();
        if self.keeps_directory() && !is_shared && !rows.is_empty() {
            self.out.commit(rows, Durability::Synced);
        }
    }

    /// Takes in what is true of clusters from now on, and tells all who are to know.
    pub(super) fn learn(&mut self, now: Time, clusters: Vec<Cluster>) {
        let mut table = (*self.links.clusters).clone();
        let news: Vec<Cluster> = clusters.into_iter().filter(|cluster| table.put(cluster.clone())).collect();
        if news.is_empty() {
            return;
        }
        news.iter().for_each(|cluster| self.twin_goes(now, cluster));
        self.change_table(now, table);
        news.iter().for_each(|cluster| self.log_in_done(cluster));
        if self.keeps_directory() {
            let gives_numbers = self.gives_numbers();
            let hears = |site: &Site| gives_numbers || !self.terms().is_inside(*site);
            let sites: Vec<Site> = self.links.reach.keys().copied().filter(hears).collect();
            sites.into_iter().for_each(|site| self.tell_table(site));
        }
    }

    /// What is known of clusters is another thing from now on.
    fn change_table(&mut self, now: Time, table: Clusters) {
        let table = Arc::new(table);
        self.tell_cores(|| Entry::Clusters(table.clone()));
        self.take_clusters(now, table);
    }

    /// The operator of the directory has a cluster forgotten: everybody who is there hears of it.
    ///
    /// # Errors
    /// It is not known here, or this is not the directory.
    pub(in crate::shard) fn forget_cluster(&mut self, now: Time, number: u16) -> Result<(), String> {
        let Some(identity) = self.links.clusters.get(number).filter(|_| self.keeps_directory()).map(|known| known.identity) else {
            return Err(format!("no cluster {number} is known here"));
        };
        let sites: Vec<Site> = self.links.reach.keys().copied().filter(|site| site.cluster != number).collect();
        self.links.words.extend(sites.into_iter().map(|site| (site, forgotten(number, identity))));
        // First of all it is stored that there is something to go on with, whatever breaks.
        self.homes.forget_cluster(number, identity, &mut self.out);
        self.out.commit(vec![clusters::row(number, None)], Durability::Synced);
        self.forget(now, number, identity);
        Ok(())
    }

    /// The directory has forgotten a cluster.
    pub(super) fn told_to_forget(&mut self, now: Time, (site, lane): Lane, said: &[u8]) -> Result<(), BadPassage> {
        if lane != LOG_IN_LANE || !self.is_directory(site) {
            return Err(BadPassage);
        }
        let (number, identity) = said.split_first_chunk().ok_or(BadPassage)?;
        let number = u16::from_le_bytes(*number);
        let identity = identity.try_into().map(u64::from_le_bytes).map_err(|_| BadPassage)?;
        let is_another = self.links.clusters.get(number).is_some_and(|known| known.identity != identity);
        if !is_another && number != self.terms().me.cluster {
            self.homes.forget_cluster(number, identity, &mut self.out);
            self.keep_copies([(number, None)].into_iter());
            self.forget(now, number, identity);
        }
        Ok(())
    }

    fn forget(&mut self, now: Time, number: u16, identity: u64) {
        let mut table = (*self.links.clusters).clone();
        if table.remove(number) {
            self.change_table(now, table);
        }
        self.tell_cores(|| Entry::Forgotten(number, identity));
    }

    /// Tells a node of all clusters but its own, and of those that were forgotten: only the directory does.
    pub(super) fn tell_table(&mut self, site: Site) {
        let Some(own) = self.own_cluster() else { return };
        let others = self.links.clusters.others(site.cluster).chain((site.cluster != own.number).then_some(&own));
        let told = clusters::write_clusters(others, word::CLUSTERS.to_le_bytes().to_vec());
        self.links.words.push((site, told));
        // Another node of the directory may not know yet that one has come back.
        if self.terms().is_inside(site) || !self.gives_numbers() {
            return;
        }
        let gone: Vec<_> = self.homes.forgotten_clusters().filter(|(number, _)| *number != site.cluster).collect();
        self.links.words.extend(gone.into_iter().map(|(number, identity)| (site, forgotten(number, identity))));
    }

    /// Every core has the same table: lanes are opened to whom it names, and closed to whom it doesn't name any more.
    pub(in crate::shard) fn take_clusters(&mut self, now: Time, table: Arc<Clusters>) {
        let before = std::mem::replace(&mut self.links.clusters, table.clone());
        let was_another = |site: &Site| {
            let identity = |clusters: &Clusters| clusters.get(site.cluster).map(|cluster| cluster.identity);
            identity(&before).is_some_and(|before| identity(&table) != Some(before))
        };
        // A cluster that logs in is known to one core alone until it has.
        let was_told = |site: &Site| before.get(site.cluster).is_some_and(|cluster| cluster.place.address(site.node).is_some());
        let is_over = |shard: &Shard, site: &Site| was_another(site) || was_told(site) && !shard.is_known(*site);
        self.forget_sites(now, is_over);
        let me = self.terms().me.cluster;
        for gone in before.others(me).filter(|cluster| table.get(cluster.number).is_none()) {
            self.gateway.forget(gone.number);
        }
        let domains = |cluster: &Cluster| (cluster.number, cluster.place.domains.iter().cloned().collect());
        self.homes.directory.set_domains(table.others(me).map(domains).collect());
        for cluster in table.others(me) {
            self.homes.know_cluster(cluster.number, &mut self.out);
            for &(node, _) in &cluster.place.nodes {
                self.open_own_lanes(now, Site { cluster: cluster.number, node });
            }
            self.choose(now, cluster.number);
        }
    }
}

/// What says that a cluster is forgotten.
fn forgotten(number: u16, identity: u64) -> Vec<u8> {
    [&word::FORGOTTEN.to_le_bytes()[..], &number.to_le_bytes(), &identity.to_le_bytes()].concat()
}
