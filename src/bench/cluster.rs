//! `bench cluster`: what it takes to tell other clusters, over real links that are read on the wire.
//!
//! Lives on: the generator's pinned thread; each node is a process of its own. Serves G6, Z5, Z6, Z7, Z10, M4. The users of the
//! first cluster change their presence; their subscribers are in the others. Everybody is on a trunk to a node of its cluster (but
//! those who may look away have a connection each), so a user's home is mostly another node than the one it speaks to, as in a real
//! cluster. Links are led through [`Taps`] unless they are to be as fast as they can.

use super::across::{Across, Seating};
use super::crowd::Crowd;
use super::cut;
use super::dialect::Dialect;
use super::graph::Graph;
use super::progress::Progress;
use super::report::Report;
use super::round::{Meter, Round, Schedule};
use super::server::{self, Dir, Server};
use super::steps::{Steps, Until};
use super::talk::{STALL, Talk};
use super::tap::{Crossed, Taps};
use super::wires::Wires;
use crate::base::config::Config;
use crate::base::config::cluster::Peer;
use crate::base::id::NodeId;
use crate::drive::pin;
use crate::front::doors::Speaks;
use crate::node::link_certificates::{make_authority, make_certificate};
use crate::wire::link::Site;
use crate::wire::native::Action;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone)]
pub struct Plan {
    pub clusters: u16,
    /// Of each cluster.
    pub nodes: u16,
    /// Of each cluster: those of the first one speak.
    pub users: u32,
    /// Of each user of the first cluster, in each other one.
    pub subscribers: u32,
    pub schedule: Schedule,
    /// Changes may wait for complex messages.
    pub patient: bool,
    /// This share of the subscribers looks away, and what only they would see may wait: 0 to 1.
    pub inactive: f64,
    /// Links are led through taps.
    pub tapped: bool,
    /// Links are inside TLS.
    pub tls: bool,
    /// The nodes' processes go before all others of the machine.
    pub nodes_first: bool,
    /// The clusters' links are cut for so long, instead of rounds.
    pub cut: Option<Duration>,
    pub load_processor: Option<usize>,
}

/// Nobody must have looked at somebody for so long before his news may wait, and three times that until all nodes know it.
const INACTIVE_MS: u32 = 500;
/// What has gathered at the end has crossed after this.
const GATHERED: Duration = Duration::from_millis(1_500);
/// Days that the certificates of links are good for.
const DAYS: u32 = 2;

impl Plan {
    /// Of each cluster but the first one: users who look away.
    fn away(&self) -> u32 {
        (f64::from(self.users) * self.inactive).round() as u32
    }
}

/// The nodes of all clusters, those of the first one first.
struct Fleet {
    plan: Plan,
    servers: Vec<Server>,
    taps: Taps,
    /// Where the authority of the links' certificates is.
    authority: Option<Dir>,
}

impl Fleet {
    fn start(plan: &Plan) -> io::Result<Fleet> {
        let authority = plan.tls.then(Dir::new).transpose()?;
        if let Some(dir) = &authority {
            make_authority(dir.path(), DAYS).map_err(io::Error::other)?;
        }
        let mut fleet = Fleet { plan: plan.clone(), servers: Vec::new(), taps: Taps::new(plan.tls), authority };
        let addresses = free_addresses(plan.clusters * plan.nodes)?;
        let known: Vec<SocketAddr> = match plan.tapped {
            true => addresses.iter().map(|&to| fleet.taps.lead_to(to)).collect::<io::Result<_>>()?,
            false => addresses.clone(),
        };
        let processors = pin::processors();
        if plan.nodes_first {
            pin::go_first().map_err(|why| {
                let fix = "run it as root, raise `ulimit -r` to 20 (LimitRTPRIO=), or leave --nodes-first out";
                io::Error::other(format!("--nodes-first: the system lets no process of yours go before others ({why}): {fix}"))
            })?;
        }
        for (at, listen) in addresses.iter().enumerate() {
            let core = processors[at % processors.len()].id as u16;
            let (cluster, node) = (at / usize::from(plan.nodes), at % usize::from(plan.nodes));
            let config = fleet.config(cluster, node, core, *listen, &known)?;
            fleet.servers.push(Server::of(config, Speaks::Native, false)?);
        }
        if plan.nodes_first {
            pin::take_turns()?;
        }
        Ok(fleet)
    }

    /// Of one node. `known`: where the others connect to each.
    fn config(&self, cluster: usize, node: usize, core: u16, listen: SocketAddr, known: &[SocketAddr]) -> io::Result<Config> {
        let mut config = server::config(vec![core], Speaks::Native);
        let peers = |cluster: usize| -> Vec<Peer> {
            let addresses = known.chunks(usize::from(self.plan.nodes)).nth(cluster).expect("every cluster has nodes");
            (1..).zip(addresses).map(|(node, &address)| Peer { node: NodeId(node), address }).collect()
        };
        (config.cluster.number, config.cluster.node) = (Some(cluster as u16 + 1), Some(node as u16 + 1));
        config.cluster.nodes = peers(cluster);
        config.link.listen = Some(listen);
        config.limits.pending_per_user = (2 * self.plan.subscribers).max(config.limits.pending_per_user);
        config.directory.cluster = Some(1);
        if cluster > 0 {
            config.directory.at = peers(0);
        }
        if self.plan.patient {
            config.link.non_real_time.push("show".into());
        }
        if self.plan.inactive > 0.0 {
            config.link.non_real_time.push("inactive".into());
            config.link.inactive_ms = INACTIVE_MS;
        }
        if let Some(dir) = &self.authority {
            let site = Site { cluster: cluster as u16 + 1, node: NodeId(node as u16 + 1) };
            let files = make_certificate(dir.path(), &dir.path().join(site.certified_name()), site, DAYS);
            [config.link.ca, config.link.certificate, config.link.key] = files.map_err(io::Error::other)?.map(Some);
        }
        Ok(config)
    }

    /// Waits until every node has found all others that it is to find.
    fn find_each_other(&self, progress: &Progress) -> io::Result<()> {
        progress.begin("links", self.servers.len() as u64);
        let began = Instant::now();
        while !self.have_found_each_other()? {
            if began.elapsed() > STALL {
                return Err(io::Error::other(format!("the nodes have not found each other in {} s", STALL.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
        progress.at(self.servers.len() as u64);
        Ok(())
    }

    fn have_found_each_other(&self) -> io::Result<bool> {
        let others = self.servers.len() - 1;
        self.servers.iter().try_fold(true, |found, server| Ok(found && server.has_found(others)?))
    }

    /// Publishers at whom nobody looks, at each node where they are watched.
    fn unheeded(&self) -> io::Result<u64> {
        self.servers.iter().map(|server| Ok(server.gauge("publishers_unheeded")?.unwrap_or(0))).sum()
    }

    fn of_cluster(&self, cluster: u16) -> &[Server] {
        let nodes = usize::from(self.plan.nodes);
        &self.servers[usize::from(cluster) * nodes..][..nodes]
    }
}

/// How the nodes share processors with the generator and whatever else runs, where there are fewer of these than of them.
const HOW_SHARED: [&str; 2] =
    ["the nodes take turns with all else: --nodes-first changes that", "the nodes go before all else (SCHED_RR)"];
/// How often it is looked whether the nodes have found each other.
pub(super) const LOOK: Duration = Duration::from_millis(20);

impl Meter for Fleet {
    fn cpu_ns(&self) -> io::Result<Option<u64>> {
        sum(&self.servers, Server::cpu_ns)
    }

    fn sends(&self) -> io::Result<Option<u64>> {
        sum(&self.servers, Server::sends)
    }
}

fn sum(servers: &[Server], figure: impl Fn(&Server) -> io::Result<Option<u64>>) -> io::Result<Option<u64>> {
    servers.iter().map(figure).sum()
}

/// Addresses that nobody uses: all are held until all are found, and they are of a part of the loopback network that only this
/// process has, so that no node's other doors, which are on 127.0.0.1, can be given the same port meanwhile.
pub(super) fn free_addresses(count: u16) -> io::Result<Vec<SocketAddr>> {
    let [low, high, ..] = std::process::id().to_le_bytes();
    let own = Ipv4Addr::new(127, high, low, 1);
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind((own, 0))).collect::<io::Result<_>>()?;
    held.iter().map(TcpListener::local_addr).collect()
}

/// Runs it.
///
/// # Errors
/// The nodes or the machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    let fleet = Fleet::start(plan)?;
    if let Some(processor) = plan.load_processor {
        pin::pin(processor);
    }
    fleet.find_each_other(progress)?;
    let seating = Seating { clusters: plan.clusters.into(), nodes: plan.nodes.into() };
    let (mut wires, mut traffic) = set_up(plan, &fleet, seating, progress)?;
    let mut report = Report::new("cluster");
    for (name, value, about) in [
        ("clusters", u32::from(plan.clusters), ""),
        ("nodes", plan.nodes.into(), "of each cluster"),
        ("users", plan.users, "of the first cluster, who speak"),
        ("subscribers", plan.subscribers, "of each, in each other cluster"),
        ("nodes_first", plan.nodes_first.into(), HOW_SHARED[usize::from(plan.nodes_first)]),
        ("tls", plan.tls.into(), ["the links are in the clear", "the links are inside TLS"][usize::from(plan.tls)]),
    ] {
        report.count(name, value, about);
    }
    match plan.cut {
        Some(time) => {
            let found = || fleet.have_found_each_other();
            cut::run(&mut report, (&mut wires, &mut traffic), &fleet.taps, &found, plan.users, time)?;
            // A node waits a while for clients to say good-bye.
            drop(wires);
        }
        None => rounds(&mut report, plan, &fleet, wires, traffic, progress)?,
    }
    fleet.servers.into_iter().try_for_each(Server::stop)?;
    progress.end();
    Ok(report)
}

/// Everybody talks.
fn rounds(report: &mut Report, plan: &Plan, fleet: &Fleet, wires: Wires, traffic: Across, progress: &Progress) -> io::Result<()> {
    let mut talk = Talk::new(wires, traffic, plan.users);
    // Most machines have fewer processors than this has nodes.
    talk.sleep();
    let crossed = fleet.taps.crossed()?;
    let mut clusters = vec![0; usize::from(plan.clusters)];
    let mut round = |pace| {
        let before = cpu_by_cluster(fleet)?;
        let round = Round::run(&mut talk, pace, plan.schedule.time, progress, fleet);
        clusters
            .iter_mut()
            .zip(cpu_by_cluster(fleet)?.iter().zip(before))
            .for_each(|(sum, (after, before))| *sum += after - before);
        round
    };
    let taken = plan.schedule.take(&mut [&mut round])?;
    taken[0].report(report);
    let updates = talk.said();
    if plan.inactive > 0.0 {
        report.count("inactive", plan.away(), "users of each other cluster who look away");
        report.count(
            "unheeded",
            fleet.unheeded()?,
            "publishers at whom nobody looks at a node where they are watched, summed over nodes",
        );
        std::thread::sleep(GATHERED);
    }
    if plan.tapped {
        across(report, plan, updates, fleet.taps.crossed()? - crossed);
    }
    let per_update = |nanos: u64| nanos as f64 / updates.max(1) as f64;
    report.number("sending_cpu_ns_per_update", per_update(clusters[0]), "of the first cluster's nodes, warm-up and all");
    let receiving = clusters[1..].iter().sum::<u64>() / u64::from(plan.clusters - 1);
    report.number("receiving_cpu_ns_per_update", per_update(receiving), "of each other cluster's nodes");
    taken[0].report_balance(report);
    Ok(())
}

fn cpu_by_cluster(fleet: &Fleet) -> io::Result<Vec<u64>> {
    let of = |cluster| Ok(sum(fleet.of_cluster(cluster), Server::cpu_ns)?.unwrap_or_default());
    (0..fleet.plan.clusters).map(of).collect()
}

/// Everybody is there, and everybody's subscribers in the other clusters see it.
fn set_up(plan: &Plan, fleet: &Fleet, seating: Seating, progress: &Progress) -> io::Result<(Wires, Across)> {
    let targets = fleet.servers.iter().map(|server| server.access.target).collect();
    // Streams of a trunk are never inactive.
    let trunks = if plan.inactive > 0.0 { 0 } else { fleet.servers.len() as u32 };
    let users = seating.users(plan.users);
    let mut crowd = Crowd::at(targets, fleet.servers[0].access.clone(), 0..users, trunks)?;
    crowd.log_in(progress)?;
    crowd.become_available(progress)?;
    let graph = Graph::new(plan.users, plan.subscribers);
    let others = u64::from(plan.clusters - 1);
    let pairs = graph.pairs() * others;
    let cluster = |number: u64| 1 + (number % others) as u32;
    crowd.step("approvals", Until::Answered(pairs), progress, |crowd, number| {
        let (user, subscriber) = graph.approval(number / others);
        crowd.say_subscription(seating.user(0, user), Action::Subscribed, seating.user(cluster(number), subscriber))
    })?;
    // Much goes on in the clusters behind an answer: so many at a time until they are seen.
    crowd.step("subscriptions", Until::Seen(pairs), progress, |crowd, number| {
        let (user, publisher) = graph.subscription(number / others);
        crowd.say_subscription(seating.user(cluster(number), user), Action::Subscribe, seating.user(0, publisher))
    })?;
    if plan.inactive > 0.0 {
        let away = u64::from(plan.away()) * others;
        crowd.step("inactive clients", Until::Answered(away), progress, |crowd, number| {
            crowd.say_activity(seating.user(cluster(number), (number / others) as u32), false)
        })?;
        std::thread::sleep(Duration::from_millis(3 * u64::from(INACTIVE_MS)));
    }
    let (wires, said) = crowd.begin(plan.subscribers);
    Ok((wires, Across::new(said, seating, &graph, plan.away())))
}

/// What was seen on the wire.
fn across(report: &mut Report, plan: &Plan, updates: u64, crossed: Crossed) {
    let boundaries = (updates * u64::from(plan.clusters - 1)).max(1) as f64;
    let about = "all bytes of the links, both ways, seen on the wire";
    report.number("bytes_per_update_across", crossed.bytes as f64 / boundaries, about);
    if plan.tls {
        return;
    }
    let about = "seen on the wire, to each cluster with subscribers";
    report.number("messages_per_update_across", crossed.updates as f64 / boundaries, about);
    report.number(
        "gathered",
        crossed.gathered as f64 / crossed.updates.max(1) as f64,
        "share of them that came in complex messages",
    );
    if crossed.complex > 0 {
        report.number("updates_per_complex", crossed.gathered as f64 / crossed.complex as f64, "updates in each of those");
    }
    report.count("others_across", crossed.others, "everything else, beside acknowledgements and pings");
}
