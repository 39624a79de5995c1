//! `bench fanout`: what an update costs to get to all its subscribers, over real sockets, beside the `floor` of the same run.
//!
//! Lives on: the generator's pinned thread; the node and the floor on another processor. Serves G6, G2. The node's and the floor's
//! rounds take turns, with one generator for both, at the same pace, and the medians count: so both see the same machine.

use super::crowd::Crowd;
use super::dialect::Dialect;
use super::graph::Graph;
use super::json::Pages;
use super::private::encryption_ns;
use super::progress::Progress;
use super::pub_sub::{Bus, Members};
use super::report::{Report, median};
use super::round::{self, Round, Rounds, Schedule};
use super::server::{Bench, Server};
use super::sockets::{self, Sockets};
use super::talk::{Pace, Talk, Traffic};
use super::wires::Wires;
use super::xmpp::Clients;
use crate::front::doors::Speaks;
use std::io;

/// What to run.
#[derive(Clone)]
pub struct Plan {
    pub users: u32,
    pub subscribers: u32,
    pub schedule: Schedule,
    /// Connections that carry all users; 0: each user has one.
    pub trunks: u32,
    pub bench: Bench,
    pub floor: bool,
    pub door: Door,
}

/// What the users speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    Native,
    /// To any XMPP server that registers users in band.
    Xmpp,
    /// JSON over WebSocket.
    Ws,
    /// To something without presence, for comparison.
    Bus(Bus),
}

impl Door {
    /// Which of a node's doors it is.
    pub fn speaks(self, tls: bool) -> Speaks {
        match self {
            Door::Xmpp if tls => Speaks::Xmpps,
            Door::Native | Door::Bus(_) => Speaks::Native,
            Door::Xmpp => Speaks::Xmpp,
            Door::Ws => Speaks::WebSocket,
        }
    }
}

/// Runs it.
///
/// # Errors
/// The node or the machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    let server = plan.bench.server()?;
    plan.bench.pin_load();
    let access = server.access.clone();
    match plan.door {
        Door::Native => measured(plan, server, Crowd::new(access, 0..plan.users, plan.trunks)?, progress),
        Door::Xmpp => {
            let users = Clients::new(&server, 0..plan.users, progress)?;
            measured(plan, server, users, progress)
        }
        Door::Ws => measured(plan, server, Pages::new(access, 0..plan.users)?, progress),
        Door::Bus(bus) => measured(plan, server, Members::new(bus, access.target, plan.users)?, progress),
    }
}

fn measured<D: Dialect>(plan: &Plan, server: Server, mut users: D, progress: &Progress) -> io::Result<Report> {
    let empty = server.anonymous_bytes()?;
    users.log_in(progress)?;
    users.become_available(progress)?;
    users.subscribe(&Graph::new(plan.users, plan.subscribers), progress)?;
    let before = server.counters()?;
    let full = server.anonymous_bytes()?;
    let (wires, traffic) = users.begin(plan.subscribers);
    let mut report = Report::new("fanout");
    report.count("users", plan.users, "");
    report.count("subscribers", plan.subscribers, "of each");
    report.count("connections", if plan.trunks == 0 { plan.users } else { plan.trunks }, "");
    report.count("event_bytes", traffic.event_bytes() as u64, "of one delivery");
    if plan.schedule.rate <= 0.0 {
        report.count("window", plan.schedule.window, "updates of one user on their way at once");
    }
    let rounds = rounds::<D>(plan, &server, traffic, wires, progress, &mut report)?;
    if let Some((empty, full)) = empty.zip(full) {
        let per_user = (full as f64 - empty as f64) / f64::from(plan.users);
        report.number("bytes_per_session", per_user, "of the node's memory: connection, session, account and subscriptions");
    }
    let counters = server.counters()?.zip(before);
    for (name, about) in [("conflated", "deliveries replaced by newer ones"), ("put_off", "updates replaced on the way to a core")]
    {
        if let Some((after, before)) = &counters {
            report.count(name, after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0), about);
        }
    }
    server.stop()?;
    rounds.report_balance(&mut report);
    progress.end();
    Ok(report)
}

/// The rounds of the node, with those of the sockets alone by turns.
fn rounds<D: Dialect>(
    plan: &Plan,
    server: &Server,
    traffic: D::Traffic,
    wires: Wires,
    progress: &Progress,
    report: &mut Report,
) -> io::Result<Rounds> {
    let time = plan.schedule.time;
    let mut sockets = sockets(plan, traffic.event_bytes())?;
    let mut talk = Talk::new(wires, traffic, plan.users);
    let mut of_node = |pace| Round::run(&mut talk, pace, time, progress, server);
    let mut of_sockets = sockets.as_mut().map(|sockets| |pace| sockets.round(pace, time, progress));
    let mut compared: Vec<&mut dyn FnMut(Pace) -> io::Result<Round>> = vec![&mut of_node];
    if let Some(of_sockets) = &mut of_sockets {
        compared.push(of_sockets);
    }
    let mut taken = plan.schedule.take(&mut compared)?.into_iter();
    let node = taken.next().expect("the node's come first");
    node.report(report);
    if plan.bench.tls {
        against_encryption(report, &node);
    }
    if let Some((sockets, floor)) = sockets.zip(taken.next()) {
        sockets.report(report, &floor);
        against_floor(report, &node, &floor);
        sockets.stop()?;
    }
    if plan.bench.target.is_some() {
        // A node that goes on would keep their sessions for a while, in case they come back.
        talk.wires.farewell(&D::last_words())?;
    }
    Ok(node)
}

/// What of the node's time encryption alone would take: the same bytes in records of the same length.
fn against_encryption(report: &mut Report, node: &Rounds) {
    let record_bytes = node.middle(|round| round.counted.carried.record_bytes());
    let records = node.middle(|round| round.counted.carried.records() / round.counted.deliveries.max(1) as f64);
    report.number("tls_record_bytes", record_bytes, "of a record, without what TLS adds");
    report.number("tls_records_per_delivery", records, "");
    let about = "what AES-128-GCM takes for the same bytes in the same records, and nothing else";
    report.number("tls_encryption_ns_per_delivery", encryption_ns(record_bytes as usize) * records, about);
}

fn against_floor(report: &mut Report, node: &Rounds, floor: &Rounds) {
    report.number("floor_deliveries_per_s", floor.middle(Round::deliveries_per_s), "");
    report.number("floor_load", floor.middle(Round::server_load), "of a processor's time");
    report.number("floor_sends_per_delivery", floor.middle(Round::sends_per_delivery), "");
    let pairs = node.steady().iter().zip(floor.steady());
    let ratios = pairs.map(|(node, floor)| floor.cpu_per_delivery() / node.cpu_per_delivery());
    report.number("floor_ratio", median(ratios.collect()), "1 would be a node that costs nothing");
    if let Some(open) = floor.after() {
        report.number("open_loop_floor_load", open.server_load(), "of a processor's time");
        report.number("open_loop_floor_sends_per_delivery", open.sends_per_delivery(), "");
    }
    let names = ["floor_p50_us", "floor_p99_us", "floor_p999_us", "floor_max_us"];
    round::latency(report, names, floor.latency(), "the sockets alone at the same pace");
}

/// The sockets alone; `None`: they weren't asked for, or users are on trunks, which carry an update once for many.
fn sockets(plan: &Plan, frame_bytes: usize) -> io::Result<Option<Sockets>> {
    if !plan.floor || plan.trunks > 0 {
        return Ok(None);
    }
    let plan = sockets::Plan {
        users: plan.users,
        subscribers: plan.subscribers,
        frame_bytes,
        schedule: plan.schedule,
        server_processor: plan.bench.server_cores.first().map(|&core| usize::from(core)),
        load_processor: plan.bench.load_processor,
    };
    Sockets::start(&plan).map(Some)
}
