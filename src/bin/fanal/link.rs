//! `fanal link`: certificates by which the nodes of a cluster prove to each other who they are.

use crate::failure::Failure;
use fanal::base::id::{MOST_CLUSTER, MOST_NODE, NodeId};
use fanal::node::link_certificates::{make_authority, make_certificate};
use fanal::wire::link::Site;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "\
Links between nodes on different machines go inside TLS, and both ends prove which node they are. Make an authority once for each
cluster, and with it a certificate for each node; keep ca.key away from the nodes. A node needs ca.pem, node.pem and node.key.
For links to other clusters put their ca.pem behind your own in the same file.

Examples:
  fanal link ca --out authority
  fanal link certificate --ca authority --cluster 1 --node 2 --out node-2
  fanal link certificate --ca authority --cluster 1 --node 2 --out renewed --days 90")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make an authority for the nodes of a cluster: ca.pem and ca.key. What is there is never written over.
    Ca {
        /// The directory for both; it's made if it's missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is good for.
        #[arg(long, value_name = "D", default_value_t = 7300, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Print where the files are as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a node's certificate: node.pem and node.key. Prints what to write below [link]. What is there is never written over.
    Certificate {
        /// The directory with the authority's ca.pem and ca.key.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The cluster's number, as cluster.number.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_CLUSTER)))]
        cluster: u16,
        /// The node's number, as cluster.node.
        #[arg(long, value_name = "M", value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_NODE)))]
        node: u16,
        /// The directory for both; it's made if it's missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is good for. The node warns 14 days before.
        #[arg(long, value_name = "D", default_value_t = 398, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Print where the files are as JSON.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    let said = match args.command {
        Command::Ca { out, days, json } => {
            let [certificate, key] = make_authority(&out, days).map_err(Failure::line)?;
            match json {
                true => as_json(&[("ca", &certificate), ("key", &key)]),
                false => format!(
                    "{}: the authority's certificate, for every node\n{}: its key: keep it away from the nodes\n",
                    certificate.display(),
                    key.display()
                ),
            }
        }
        Command::Certificate { ca, cluster, node, out, days, json } => {
            let site = Site { cluster, node: NodeId(node) };
            let [ca, certificate, key] = make_certificate(&ca, &out, site, days).map_err(Failure::line)?;
            let files = [("ca", &*ca), ("certificate", &certificate), ("key", &key)];
            match json {
                true => as_json(&files),
                false => files.iter().fold(
                    format!("# {}, for {days} days. In the configuration of that node:\n[link]\n", site.certified_name()),
                    |said, (name, path)| said + &format!("{name} = {:?}\n", path.display().to_string()),
                ),
            }
        }
    };
    std::io::stdout().write_all(said.as_bytes()).map_err(Failure::line)
}

/// One object of paths.
fn as_json(files: &[(&str, &Path)]) -> String {
    let paths: std::collections::BTreeMap<&str, String> =
        files.iter().map(|(name, path)| (*name, path.display().to_string())).collect();
    simd_json::to_string(&paths).expect("texts can be written") + "\n"
}
