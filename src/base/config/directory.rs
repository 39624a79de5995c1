//! `[directory]`: which cluster keeps the directory of all clusters, and where it is. Without it there are no other clusters.

use super::cluster::Peer;
use super::{Config, Fault};
use serde::{Deserialize, Serialize};

/// Where the directory is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Directory {
    /// The number of the cluster that keeps it; this cluster's own: it's here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<u16>,
    /// Nodes of that cluster, to log in at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Peer>,
}

pub(super) fn check(config: &Config) -> Result<(), Fault> {
    let (directory, cluster) = (&config.directory, &config.cluster);
    let Some(number) = directory.cluster else {
        return match directory.at.is_empty() {
            true => Ok(()),
            false => Err(Fault::new("directory.at", "nothing says whose nodes these are", "write directory.cluster, their number")),
        };
    };
    if cluster.number.is_none() {
        let problem = "this node's own cluster has no number";
        return Err(Fault::new("directory.cluster", problem, "write [cluster] with a number of its own, or take it out"));
    }
    check_at(config, cluster.number == Some(number))
}

fn check_at(config: &Config, is_here: bool) -> Result<(), Fault> {
    let at = &config.directory.at;
    if is_here {
        return match at.is_empty() {
            true => Ok(()),
            false => Err(Fault::new("directory.at", "this cluster keeps the directory itself", "take it out")),
        };
    }
    if at.is_empty() {
        let fix = "write all nodes of that cluster there, like \"1=127.0.0.1:7402\"";
        return Err(Fault::new("directory.at", "nothing says where the directory is", fix));
    }
    for (place, peer) in at.iter().enumerate() {
        if at[..place].iter().any(|other| other.node == peer.node || other.address == peer.address) {
            let problem = format!("{} stands there twice, its number or its address", String::from(*peer));
            return Err(Fault::new("directory.at", problem, "name each node once"));
        }
        if config.cluster.nodes.iter().any(|own| own.address == peer.address) {
            let problem = format!("{} is a node of this cluster itself", peer.address);
            return Err(Fault::new("directory.at", problem, "name nodes of the cluster that keeps the directory"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "[cluster]\nnumber = 2\nnode = 1\nnodes = [\"1=127.0.0.1:7402\"]\n";

    fn fault(text: &str) -> String {
        Config::parse("fanal.toml", text).expect_err("it's wrong").to_string()
    }

    #[test]
    fn z2_a_cluster_keeps_the_directory_or_says_where_it_is() {
        let read = |text: &str| Config::parse("fanal.toml", &format!("{CLUSTER}[directory]\n{text}")).unwrap().directory;
        assert_eq!(read(""), Directory::default());
        assert_eq!(read("cluster = 2"), Directory { cluster: Some(2), at: Vec::new() });
        let elsewhere = read("cluster = 1\nat = [\"1=127.0.0.1:7410\", \"2=127.0.0.1:7411\"]");
        assert_eq!((elsewhere.cluster, elsewhere.at.len()), (Some(1), 2));
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_fix() {
        let with = |text: &str| fault(&format!("{CLUSTER}[directory]\n{text}"));
        assert!(fault("[directory]\ncluster = 1").contains("write [cluster]"));
        assert!(with("at = [\"1=127.0.0.1:7410\"]").contains("write directory.cluster"));
        assert!(with("cluster = 1").contains("write all nodes of that cluster"));
        assert!(with("cluster = 2\nat = [\"1=127.0.0.1:7410\"]").contains("take it out"));
        assert!(with("cluster = 1\nat = [\"1=127.0.0.1:1\", \"1=127.0.0.1:2\"]").contains("1=127.0.0.1:2 stands there twice"));
        assert!(with("cluster = 1\nat = [\"1=127.0.0.1:1\", \"2=127.0.0.1:1\"]").contains("name each node once"));
        assert!(with("cluster = 1\nat = [\"1=127.0.0.1:7402\"]").contains("a node of this cluster itself"));
        assert!(with("cluster = 40000").contains("from 1 to 32767"));
        let etcd = "[cluster]\nnumber = 2\nnode = 1\ncoordination = \"etcd\"\netcd = [\"http://127.0.0.1:2379\"]\n";
        let etcd = format!("{etcd}[link]\naddress = \"127.0.0.1:7402\"\n[directory]\n");
        for directory in ["cluster = 2", "cluster = 1\nat = [\"1=127.0.0.1:7410\"]"] {
            Config::parse("fanal.toml", &format!("{etcd}{directory}")).unwrap();
        }
    }
}
