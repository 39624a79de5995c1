//! The numbers of clusters, and where each is: what a directory keeps of them, and what it tells all clusters.
//!
//! Lives on: every core of a node that knows of other clusters. Serves Z1 (numbers every cluster so that each number is unique;
//! gives a joining cluster the addresses of all the others). Pure. The directory's nodes store the table, in `Meta`: `cluster:` and
//! the number, big-endian, -> `Cluster`; the others keep what they were told. Invariants: a number has one holder until the
//! operator has that forgotten; a cluster keeps its number whatever its nodes become.

use crate::base::id::{MOST_CLUSTER, NodeId};
use crate::store::rows::{BadRow, CLUSTER_KEY, Row};
use crate::store::{Table, Write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Clusters of one directory. At the limit: the next one is refused, `Unnumbered::Full`.
pub const CLUSTERS: usize = 4_096;
/// Nodes of one cluster. At the limit: it's refused, `Unnumbered::Malformed`.
pub const CLUSTER_NODES: usize = 64;
/// Domains of one cluster's users. At the limit: the same.
pub const CLUSTER_DOMAINS: usize = 16;
const NUMBERS: std::ops::RangeInclusive<u16> = 1..=MOST_CLUSTER;
/// Bytes of a domain. At the limit: the same.
const DOMAIN_BYTES: usize = 1023;

/// A cluster that a directory knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// From 1.
    pub number: u16,
    /// What tells it from any other one that is configured with the same number.
    pub identity: u64,
    pub place: Place,
}

impl Row for Cluster {
    const VERSION: u8 = 1;
}

/// Where a cluster is, and whose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The part behind the @ of its users.
    pub domains: Vec<String>,
    /// Its nodes, and where others connect to each.
    pub nodes: Vec<(NodeId, SocketAddr)>,
}

impl Place {
    fn is_sound(&self) -> bool {
        let Place { domains, nodes } = self;
        let mut numbers: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let are_nodes = numbers.iter().all(|node| node.0 > 0 && node.cluster().is_none());
        (1..=CLUSTER_NODES).contains(&nodes.len())
            && (numbers.len() == nodes.len() && are_nodes)
            && (1..=CLUSTER_DOMAINS).contains(&domains.len())
            && domains.iter().all(|domain| (1..=DOMAIN_BYTES).contains(&domain.len()))
    }

    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.nodes.iter().find(|(known, _)| *known == node).map(|(_, address)| *address)
    }
}

/// What a cluster says of itself when it logs in, as bytes.
pub fn write_place(place: &Place, into: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(place, into).expect("a place is plain values")
}

/// Reads that. `None`: it can't be read.
pub fn read_place(bytes: &[u8]) -> Option<Place> {
    postcard::from_bytes(bytes).ok()
}

/// What the directory tells of clusters, as bytes.
pub fn write_clusters<'a>(clusters: impl Iterator<Item = &'a Cluster>, into: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(&clusters.collect::<Vec<_>>(), into).expect("clusters are plain values")
}

/// Reads that. `None`: it can't be read, or one of them makes no sense.
pub fn read_clusters(bytes: &[u8]) -> Option<Vec<Cluster>> {
    let told: Vec<Cluster> = postcard::from_bytes(bytes).ok()?;
    let sound = |cluster: Cluster| Clusters::default().claim(Some(cluster.number), cluster.identity, cluster.place).ok();
    told.into_iter().map(sound).collect()
}

/// The row of a number: what is known of the cluster, or that there is none.
pub fn row(number: u16, cluster: Option<&Cluster>) -> Write {
    let key = [CLUSTER_KEY, &number.to_be_bytes()].concat();
    Write { table: Table::Meta, key, value: cluster.map(Cluster::encode) }
}

/// Why a cluster can't have a number. Each names the thing, the reason and the fix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Unnumbered {
    #[error("cluster.number = {number}: another cluster has it, at {by}: give each cluster its own")]
    InUse { number: u16, by: String },
    #[error("cluster.number = {number}: this cluster is number {has} already, and its users carry that: write {has}")]
    HasAnother { number: u16, has: u16 },
    #[error("cluster.number: {0} is nobody's number: write one from 1 to {MOST_CLUSTER}, or none, to be given one")]
    Nobodys(u16),
    #[error("the directory has {CLUSTERS} clusters already: have one forgotten that will never return")]
    Full,
    #[error("a cluster has 1 to {CLUSTER_NODES} nodes with numbers of their own, and 1 to {CLUSTER_DOMAINS} domains: name some")]
    Malformed,
}

/// The clusters of a directory by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clusters(BTreeMap<u16, Cluster>);

impl Clusters {
    pub fn get(&self, number: u16) -> Option<&Cluster> {
        self.0.get(&number)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// All but this one: what a joining cluster is told.
    pub fn others(&self, number: u16) -> impl Iterator<Item = &Cluster> {
        self.0.values().filter(move |cluster| cluster.number != number)
    }

    /// What the directory would know of a cluster that asks for this number; with `None`: for its own, or the lowest that is free.
    ///
    /// # Errors
    /// It can't have it.
    pub fn claim(&self, number: Option<u16>, identity: u64, place: Place) -> Result<Cluster, Unnumbered> {
        if !place.is_sound() {
            return Err(Unnumbered::Malformed);
        }
        let mine = self.0.values().find(|cluster| cluster.identity == identity).map(|cluster| cluster.number);
        let number = match (number, mine) {
            (Some(number), _) if !NUMBERS.contains(&number) => return Err(Unnumbered::Nobodys(number)),
            (Some(number), Some(has)) if number != has => return Err(Unnumbered::HasAnother { number, has }),
            (_, Some(has)) => has,
            (_, None) if self.0.len() >= CLUSTERS => return Err(Unnumbered::Full),
            (Some(number), None) => number,
            (None, None) => NUMBERS.into_iter().find(|number| !self.0.contains_key(number)).ok_or(Unnumbered::Full)?,
        };
        match self.get(number) {
            Some(other) if other.identity != identity => Err(Unnumbered::InUse { number, by: other.place.nodes[0].1.to_string() }),
            _ => Ok(Cluster { number, identity, place }),
        }
    }

    /// From now on nobody has this number. False: nobody had it.
    pub fn remove(&mut self, number: u16) -> bool {
        self.0.remove(&number).is_some()
    }

    /// Takes a row of `Meta`; those that are about something else are left out.
    ///
    /// # Errors
    /// It's one of these rows, and can't be read.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRow> {
        let Some(number) = key.strip_prefix(CLUSTER_KEY) else { return Ok(()) };
        let number = u16::from_be_bytes(number.try_into().map_err(|_| BadRow::Key)?);
        let Cluster { identity, place, .. } = Cluster::decode(value)?;
        let cluster = Clusters::default().claim(Some(number), identity, place).map_err(|_| BadRow::Value)?;
        self.put(cluster);
        Ok(())
    }

    /// From now on it's known. False: it was, like this.
    pub fn put(&mut self, cluster: Cluster) -> bool {
        let is_news = self.get(cluster.number) != Some(&cluster);
        self.0.insert(cluster.number, cluster);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Place {
        Place { domains: vec!["example.org".into()], nodes: vec![(NodeId(1), SocketAddr::from(([127, 0, 0, 1], port)))] }
    }

    fn join(clusters: &mut Clusters, number: Option<u16>, identity: u64) -> Result<u16, Unnumbered> {
        let cluster = clusters.claim(number, identity, at(identity as u16))?;
        let number = cluster.number;
        clusters.put(cluster);
        Ok(number)
    }

    #[test]
    fn z1_each_cluster_has_a_number_of_its_own_and_keeps_it() {
        let mut clusters = Clusters::default();
        assert_eq!(join(&mut clusters, Some(2), 20), Ok(2));
        assert_eq!(join(&mut clusters, None, 10), Ok(1), "the lowest that is free");
        assert_eq!(join(&mut clusters, None, 30), Ok(3));
        assert_eq!(join(&mut clusters, None, 20), Ok(2), "its own again");
        let by = "127.0.0.1:20".to_owned();
        assert_eq!(join(&mut clusters, Some(2), 99), Err(Unnumbered::InUse { number: 2, by }));
        assert_eq!(join(&mut clusters, Some(7), 20), Err(Unnumbered::HasAnother { number: 7, has: 2 }));
        for number in [0, MOST_CLUSTER + 1] {
            assert_eq!(join(&mut clusters, Some(number), 99), Err(Unnumbered::Nobodys(number)));
        }
        assert_eq!(clusters.others(2).map(|other| other.number).collect::<Vec<_>>(), [1, 3]);
        let moved = clusters.claim(Some(2), 20, at(21)).unwrap();
        assert!(clusters.put(moved.clone()) && !clusters.put(moved));
        assert_eq!(clusters.get(2).map(|cluster| cluster.place.clone()), Some(at(21)), "it has moved");
    }

    #[test]
    fn z1_what_was_stored_of_clusters_is_known_again_until_they_are_forgotten_and_damage_is_an_error() {
        let mut clusters = Clusters::default();
        for (number, identity) in [(2, 20), (3, 30)] {
            join(&mut clusters, Some(number), identity).unwrap();
        }
        let stored = |clusters: &Clusters| {
            let mut loaded = Clusters::default();
            let rows = [2, 3].map(|number| row(number, clusters.get(number)));
            for (key, value) in rows.iter().filter_map(|row| Some((&row.key, row.value.as_ref()?))) {
                loaded.load(key, value).unwrap();
            }
            loaded.load(b"epoch", b"another's row").unwrap();
            loaded
        };
        assert_eq!(stored(&clusters), clusters);
        let row = row(2, clusters.get(2));
        assert!(clusters.remove(2) && !clusters.remove(2));
        assert_eq!(stored(&clusters), clusters);
        assert_eq!(join(&mut clusters, Some(2), 99), Ok(2), "its number is free");
        let value = row.value.unwrap();
        for (key, value) in [(&b"cluster:"[..], &value[..]), (&row.key, &value[1..]), (b"cluster:\0\0", &value)] {
            assert!(Clusters::default().load(key, value).is_err());
        }
    }

    #[test]
    fn a_place_that_makes_no_sense_is_refused() {
        let [one, other] = [1, 2].map(|port| at(port).nodes[0]);
        let place = |nodes: Vec<_>, domains: &[&str]| Place { nodes, domains: domains.iter().map(|&d| d.to_owned()).collect() };
        let many: Vec<_> = (1..=CLUSTER_NODES as u16 + 1).map(|node| (NodeId(node), one.1)).collect();
        let wrong = [
            place(vec![], &["d"]),
            place(many, &["d"]),
            place(vec![one, other], &["d"]),
            place(vec![(NodeId(0), one.1)], &["d"]),
            place(vec![(NodeId::of_cluster(1), one.1)], &["d"]),
            place(vec![one], &[]),
            place(vec![one], &[""]),
            place(vec![one], &["d"; CLUSTER_DOMAINS + 1]),
            place(vec![one], &[&"d".repeat(DOMAIN_BYTES + 1)]),
        ];
        for place in wrong {
            assert_eq!(Clusters::default().claim(Some(1), 1, place.clone()), Err(Unnumbered::Malformed), "{place:?}");
        }
    }

    #[test]
    fn a_directory_that_is_full_says_so() {
        let mut clusters = Clusters::default();
        (1..=CLUSTERS as u64).for_each(|identity| assert!(join(&mut clusters, None, identity).is_ok()));
        assert_eq!(join(&mut clusters, None, 60_000), Err(Unnumbered::Full));
        assert_eq!(join(&mut clusters, Some(9), 9), Ok(9), "who is in may come back");
    }
}
