//! `fanal bench cluster` and `fanal bench take-over`: several nodes, which are started for it.

use super::{Pacing, check_density, check_pairs, fits, read_number, read_time};
use crate::failure::Failure;
use fanal::bench::progress::Progress;
use fanal::bench::report::Report;
use fanal::bench::{cluster, take_over};
use std::io::{self, IsTerminal};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Cluster {
    /// Clusters: the users of the first one speak, those of the others listen.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=16))]
    clusters: u16,
    /// Nodes of each cluster, each a process on a processor of its own as far as there are any.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// Users of each cluster.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    users: u32,
    /// Subscribers of each user of the first cluster, in each other cluster.
    #[arg(long, value_name = "F", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    #[command(flatten)]
    pacing: Pacing,
    /// Let changes wait for complex messages (link.non_real_time = ["show"]), so that many cross as one.
    #[arg(long)]
    patient: bool,
    /// Let this share of the subscribers, 0 to 1, be inactive (XEP-0352), and news that only inactive ones would see wait
    /// (link.non_real_time = ["inactive"]). Then every user has a connection of its own.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = read_share)]
    inactive: f64,
    /// Put the links inside TLS, by certificates made for it. What crosses can't be read then: its bytes are counted, with --nodes
    /// 1.
    #[arg(long)]
    tls: bool,
    /// Don't lead the links through what reads them: faster, and nothing is known of what crossed.
    #[arg(long)]
    untapped: bool,
    /// Cut the links between the clusters three times for so long, and measure what it takes until everybody sees everybody as they
    /// are: when nobody, one of a hundred and everybody has changed meanwhile. No rounds are taken then.
    #[arg(long, value_name = "S", value_parser = read_time)]
    cut: Option<Duration>,
    /// Let the nodes go before all other processes (SCHED_RR 20, as by chrt), which takes root, CAP_SYS_NICE or `ulimit -r` of 20
    /// or more. By default they take turns with the generator and whatever else runs, and where there are fewer processors than of
    /// them all a node's wait for its turn is part of the latency. The generator sleeps whenever nothing is due, and what goes
    /// out late counts from when it was meant to be sent, either way.
    #[arg(long)]
    nodes_first: bool,
    /// Processor of the load generator. By default the kernel chooses.
    #[arg(long, value_name = "N")]
    load_core: Option<usize>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct TakeOver {
    /// The database, as store.url: an empty one, which is filled and left so, or the same again.
    #[arg(long, value_name = "URL")]
    store: String,
    /// Users of both nodes: half of them are taken over.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(64..))]
    users: u32,
    /// Contacts of each of them, both subscribers and publishers.
    #[arg(long, value_name = "F", default_value_t = 20)]
    subscribers: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

pub fn across(args: Cluster) -> Result<Report, Failure> {
    check_density(args.users, args.subscribers)?;
    if let Some(core) = args.load_core {
        fits("--load-core", &[core])?;
    }
    if args.untapped && args.cut.is_some() {
        return Err(Failure::line("--cut: links that are led through nothing can't be cut: leave --untapped out"));
    }
    if args.tls && !args.untapped && args.nodes > 1 {
        let problem = "--tls: what crosses to another cluster can't be told from what stays within one";
        return Err(Failure::line(format!("{problem}: say --nodes 1, or --untapped")));
    }
    if args.inactive > 0.0 && (args.cut.is_some() || args.pacing.rate == 0.0) {
        return Err(Failure::line("--inactive: it is measured at a steady rate: say --rate, and leave --cut out"));
    }
    let plan = cluster::Plan {
        clusters: args.clusters,
        nodes: args.nodes,
        users: args.users,
        subscribers: args.subscribers,
        schedule: args.pacing.schedule(),
        patient: args.patient,
        inactive: args.inactive,
        tapped: !args.untapped,
        tls: args.tls,
        nodes_first: args.nodes_first,
        cut: args.cut,
        load_processor: args.load_core,
    };
    cluster::run(&plan, &Progress::shown(io::stderr().is_terminal())).map_err(Failure::line)
}

pub fn take_over(args: TakeOver) -> Result<Report, Failure> {
    check_pairs(args.users, args.subscribers)?;
    let plan = take_over::Plan { url: args.store, users: args.users, contacts: args.subscribers };
    take_over::run(&plan, &Progress::shown(io::stderr().is_terminal())).map_err(Failure::line)
}

/// A part of all.
fn read_share(text: &str) -> Result<f64, String> {
    read_number(text).ok().filter(|&share| share <= 1.0).ok_or_else(|| "write a share from 0 to 1".into())
}
