//! The numbers of clusters, and where each is: what a directory keeps of them.
//!
//! Lives on: the node that has the directory. Serves Z1 (numbers every cluster so that each number is unique; gives a joining
//! cluster the addresses of all the others). Pure: what is to be stored is given out as rows, and counts once `put` was called
//! after that. Invariants: a number has one holder until an operator takes it away; a cluster keeps its number whatever its
//! addresses become.

use crate::store::rows::{BadRow, Row};
use crate::store::{Table, Write};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Clusters of one directory. At the limit: the next one is refused, `Unnumbered::Full`.
pub const CLUSTERS: usize = 4_096;
/// Addresses of one cluster. At the limit: it's refused, `Unnumbered::Malformed`.
pub const CLUSTER_ADDRESSES: usize = 64;
const CLUSTER_KEY: &[u8] = b"cluster:";

/// A cluster that a directory knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// From 1.
    pub number: u16,
    /// A random number that stays with the cluster's table of owners.
    pub identity: u64,
    /// Where other clusters connect to it: its nodes.
    pub addresses: Vec<SocketAddr>,
}

impl Row for Cluster {}

/// Why a cluster can't have a number. Each names the thing, the reason and the fix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Unnumbered {
    #[error("cluster.number = {number}: another cluster has it, at {by}: give each cluster its own")]
    InUse { number: u16, by: String },
    #[error("cluster.number = {number}: this cluster is number {has} already, and its users carry that: write {has}")]
    HasAnother { number: u16, has: u16 },
    #[error("cluster.number: 0 is nobody's number: write one from 1, or none, to be given one")]
    Zero,
    #[error("the directory has {CLUSTERS} clusters already: have one forgotten that will never return")]
    Full,
    #[error("a cluster has 1 to {CLUSTER_ADDRESSES} addresses: name some of its nodes")]
    Malformed,
}

/// The clusters of a directory by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clusters(BTreeMap<u16, Cluster>);

impl Clusters {
    pub fn get(&self, number: u16) -> Option<&Cluster> {
        self.0.get(&number)
    }

    /// All but this one: what a joining cluster is told.
    pub fn others(&self, number: u16) -> impl Iterator<Item = &Cluster> {
        self.0.values().filter(move |cluster| cluster.number != number)
    }

    /// What the directory would know of a cluster that asks for this number; with `None`: for its own, or the lowest that is free.
    ///
    /// # Errors
    /// It can't have it.
    pub fn claim(&self, number: Option<u16>, identity: u64, addresses: Vec<SocketAddr>) -> Result<Cluster, Unnumbered> {
        if addresses.is_empty() || addresses.len() > CLUSTER_ADDRESSES {
            return Err(Unnumbered::Malformed);
        }
        let mine = self.0.values().find(|cluster| cluster.identity == identity).map(|cluster| cluster.number);
        let number = match (number, mine) {
            (Some(0), _) => return Err(Unnumbered::Zero),
            (Some(number), Some(has)) if number != has => return Err(Unnumbered::HasAnother { number, has }),
            (_, Some(has)) => has,
            (_, None) if self.0.len() >= CLUSTERS => return Err(Unnumbered::Full),
            (Some(number), None) => number,
            (None, None) => (1..=u16::MAX).find(|number| !self.0.contains_key(number)).ok_or(Unnumbered::Full)?,
        };
        match self.get(number) {
            Some(other) if other.identity != identity => {
                Err(Unnumbered::InUse { number, by: other.addresses.first().map(SocketAddr::to_string).unwrap_or_default() })
            }
            _ => Ok(Cluster { number, identity, addresses }),
        }
    }

    /// It's stored: from now on the directory knows it.
    pub fn put(&mut self, cluster: Cluster) {
        self.0.insert(cluster.number, cluster);
    }

    /// An operator says that it will never return: its number is free.
    pub fn forget(&mut self, number: u16) -> Option<Cluster> {
        self.0.remove(&number)
    }

    /// Takes a row of `Meta`; those that are about something else are left out.
    ///
    /// # Errors
    /// It's one of these rows, and can't be read.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadRow> {
        let Some(number) = key.strip_prefix(CLUSTER_KEY) else { return Ok(()) };
        let number = u16::from_be_bytes(number.try_into().map_err(|_| BadRow::Key)?);
        let cluster = Cluster::decode(value)?;
        if cluster.number != number {
            return Err(BadRow::Key);
        }
        self.put(cluster);
        Ok(())
    }
}

impl Cluster {
    /// The row that is to be stored before it's known.
    pub fn write(&self) -> Write {
        Write { table: Table::Meta, key: key(self.number), value: Some(self.encode()) }
    }

    /// The change that is to be stored before it's forgotten.
    pub fn removal(&self) -> Write {
        Write { table: Table::Meta, key: key(self.number), value: None }
    }
}

fn key(number: u16) -> Vec<u8> {
    [CLUSTER_KEY, &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([127, 0, 0, 1], port))]
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
        assert_eq!(join(&mut clusters, Some(0), 99), Err(Unnumbered::Zero));
        assert_eq!(clusters.claim(None, 99, Vec::new()), Err(Unnumbered::Malformed));
        assert_eq!(clusters.others(2).map(|other| other.number).collect::<Vec<_>>(), [1, 3]);
        clusters.put(clusters.claim(Some(2), 20, at(21)).unwrap());
        assert_eq!(clusters.get(2).map(|cluster| cluster.addresses.clone()), Some(at(21)), "it has moved");
        clusters.forget(2);
        assert_eq!(join(&mut clusters, Some(2), 99), Ok(2));
    }

    #[test]
    fn what_was_stored_is_known_again_and_damage_is_an_error() {
        let mut clusters = Clusters::default();
        join(&mut clusters, Some(258), 7).unwrap();
        let write = clusters.get(258).unwrap().write();
        let mut loaded = Clusters::default();
        loaded.load(&write.key, write.value.as_ref().unwrap()).unwrap();
        loaded.load(b"epoch", b"another's row").unwrap();
        assert_eq!(loaded, clusters);
        assert!(loaded.load(b"cluster:1", &[]).is_err() && loaded.load(b"cluster:\0\x01", write.value.as_ref().unwrap()).is_err());
        assert_eq!((clusters.get(258).unwrap().removal().key, clusters.get(258).unwrap().removal().value), (write.key, None));
    }

    #[test]
    fn a_directory_that_is_full_says_so() {
        let mut clusters = Clusters::default();
        (1..=CLUSTERS as u64).for_each(|identity| assert!(join(&mut clusters, None, identity).is_ok()));
        assert_eq!(join(&mut clusters, None, 60_000), Err(Unnumbered::Full));
        assert_eq!(join(&mut clusters, Some(9), 9), Ok(9), "who is in may come back");
    }
}
