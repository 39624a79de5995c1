//! `bench idle`: what a session costs that says nothing: bytes of the node's memory, the kernel's share, processor time.
//!
//! Lives on: the generator's pinned thread; the node on another processor. Serves G6. A user's *account* is stored state, and in
//! memory whether the user is there or not; a *session* is what a log-in adds. To tell them apart the accounts are made first, and
//! the node is started anew on what it has stored: then nothing that the first log-ins left behind is used again by those that are
//! measured.

use super::crowd::Crowd;
use super::progress::Progress;
use super::report::Report;
use super::round::Meter;
use super::server::{Server, Target};
use crate::base::config::StoreKind;
use crate::drive::pin;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// How long memory must stay the same before it counts as settled, and how long it may take.
const STEADY: Duration = Duration::from_millis(300);
const SETTLING: Duration = Duration::from_secs(5);
/// How often the progress is told while nothing happens.
const LOOK: Duration = Duration::from_millis(200);
const PAGE_BYTES: u64 = 4096;

/// What to run.
#[derive(Clone)]
pub struct Plan {
    pub users: u32,
    /// How long processor time is measured.
    pub time: Duration,
    pub server_cores: Vec<u16>,
    pub load_processor: Option<usize>,
    /// A node that runs already; otherwise one is started.
    pub target: Option<Target>,
}

/// Runs it.
///
/// # Errors
/// The node or the machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    let server = match &plan.target {
        Some(target) => Server::at(target.clone()),
        None => Server::start(plan.server_cores.clone(), StoreKind::Redb)?,
    };
    let mut report = Report::new("idle");
    report.count("users", plan.users, "each with one connection and one available session, and no contacts");
    let per_user = |after: u64, before: u64| (after as f64 - before as f64) / f64::from(plan.users);
    let empty = settled(&server)?;
    let crowd = online(&server, plan.users, progress)?;
    let first = settled(&server)?;
    crowd.log_out()?;
    let (server, anew) = server.restart()?;
    if let Some(processor) = plan.load_processor {
        pin::pin(processor);
    }
    let offline = settled(&server)?;
    let (kernel, sessions) = (kernel_bytes(), server.gauge("sessions")?);
    let mut crowd = online(&server, plan.users, progress)?;
    let online = settled(&server)?;
    if let Some((online, offline)) = online.zip(offline) {
        report.number(
            "bytes_per_session",
            per_user(online, offline),
            "that logging in and becoming available adds to the node's memory",
        );
    }
    if let Some((offline, empty)) = offline.zip(empty).filter(|_| anew) {
        report.number(
            "bytes_per_account",
            per_user(offline, empty),
            "of a user who is not there: name, number, roster, last presence",
        );
    }
    if let Some((first, empty)) = first.zip(empty) {
        report.number("bytes_per_new_user", per_user(first, empty), "account and session together, in a node that had neither");
    }
    if let Some((after, before)) = kernel_bytes().zip(kernel) {
        let about = "of the kernel's memory, both ends of the connection (Slab of /proc/meminfo, mem of /proc/net/sockstat)";
        report.number("kernel_bytes_per_connection", per_user(after, before), about);
    }
    idle_cpu(plan, &mut crowd, &server, progress, &mut report)?;
    if let Some((after, before)) = server.gauge("sessions")?.zip(sessions) {
        report.count("lost", u64::from(plan.users).saturating_sub(after - before), "sessions that ended by themselves");
    }
    crowd.log_out()?;
    server.stop()?;
    progress.end();
    Ok(report)
}

/// Everybody there, each on a connection.
fn online(server: &Server, users: u32, progress: &Progress) -> io::Result<Crowd> {
    let mut crowd = Crowd::new(server.access.clone(), users, 0)?;
    crowd.log_in(progress)?;
    crowd.become_available(progress)?;
    Ok(crowd)
}

/// The node's own memory once it stays the same; `None` when its process isn't known.
fn settled(server: &Server) -> io::Result<Option<u64>> {
    let began = Instant::now();
    let (mut bytes, mut since) = (server.anonymous_bytes()?, began);
    while bytes.is_some() && since.elapsed() < STEADY && began.elapsed() < SETTLING {
        std::thread::sleep(STEADY / 6);
        let now = server.anonymous_bytes()?;
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
    }
    Ok(bytes)
}

/// Processor time of the node while nobody says anything.
fn idle_cpu(plan: &Plan, crowd: &mut Crowd, server: &Server, progress: &Progress, report: &mut Report) -> io::Result<()> {
    progress.begin_time("idle", plan.time);
    let (began, before) = (Instant::now(), server.cpu_ns()?);
    while began.elapsed() < plan.time {
        progress.at_time(began.elapsed());
        crowd.wires.listen(plan.time.saturating_sub(began.elapsed()).min(LOOK), |_, bytes| bytes.len())?;
    }
    let seconds = began.elapsed().as_secs_f64();
    if let Some((after, before)) = server.cpu_ns()?.zip(before) {
        let micros = (after - before) as f64 / 1e3 / seconds;
        report.number(
            "idle_server_cpu_us_per_s",
            micros,
            "processor time in a second in which nobody says anything and no ping is due",
        );
    }
    Ok(())
}

/// What the kernel tells of its memory for sockets: small objects of all kinds, and pages of their buffers.
fn kernel_bytes() -> Option<u64> {
    let (memory, sockets) = (fs::read_to_string("/proc/meminfo").ok()?, fs::read_to_string("/proc/net/sockstat").ok()?);
    let slab: u64 = memory.lines().find_map(|line| line.strip_prefix("Slab:"))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let tcp = sockets.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let pages: u64 = tcp.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()?;
    Some((slab << 10) + pages * PAGE_BYTES)
}
