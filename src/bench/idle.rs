//! `bench idle`: what a session costs that says nothing: bytes of the node's memory, the kernel's share, processor time.
//!
//! Lives on: the generator's pinned thread; the node on another processor. Serves G6. A user's *account* is stored state, and in
//! memory whether the user is there or not; a *session* is what a log-in adds. To tell them apart the accounts are made first, by
//! the admin API. An allocator uses again what was given back, so memory that making them left behind hides a part of the sessions.
//! Hence a second node, new and empty, where everybody's first log-in makes both: less than that, a session can't but cost.

use super::crowd::{Access, Crowd};
use super::dialect::Dialect;
use super::fanout::Door;
use super::json::Pages;
use super::progress::Progress;
use super::report::Report;
use super::round::Meter;
use super::server::{Bench, Server};
use super::xmpp::{self, Clients};
use std::fs;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How often the node is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(200);
const PAGE_BYTES: u64 = 4096;

/// What to run.
#[derive(Clone)]
pub struct Plan {
    pub users: u32,
    /// How long memory may settle each time, and processor time is measured.
    pub time: Duration,
    pub bench: Bench,
    pub door: Door,
}

/// The node's own memory at the stations of a run; not a number when its process isn't known.
struct Memory {
    empty: f64,
    /// Accounts that were made for it.
    made: u32,
    /// With all accounts.
    offline: f64,
    /// With the sessions of a third of the users.
    some: f64,
    all: f64,
}

/// Runs it.
///
/// # Errors
/// The node or the machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    match plan.door {
        Door::Native => {
            let accounts = |server: &Server, users| server.add_users(users, None, progress);
            measured(plan, progress, accounts, |access, users| Crowd::new(access, users, 0))
        }
        Door::Ws => {
            let accounts = |server: &Server, users| server.add_users(users, None, progress);
            measured(plan, progress, accounts, Pages::new)
        }
        Door::Xmpp => {
            let accounts = |server: &Server, users| xmpp::accounts(server, users, progress);
            measured(plan, progress, accounts, |access, users| Clients::of(access, users, false))
        }
        Door::Bus(_) => Err(io::Error::other("--door: write native, xmpp or ws")),
    }
}

/// `accounts` makes those of users and says how many were new; `of` gives users who are not there yet.
fn measured<D: Dialect>(
    plan: &Plan,
    progress: &Progress,
    accounts: impl Fn(&Server, Range<u32>) -> io::Result<u32>,
    of: impl Fn(Access, Range<u32>) -> io::Result<D>,
) -> io::Result<Report> {
    let server = plan.bench.server()?;
    // Only native users come into being by logging in.
    let has_second = plan.bench.target.is_none() && plan.door == Door::Native;
    let unused = has_second.then(|| plan.bench.server()).transpose()?;
    plan.bench.pin_load();
    let mut report = Report::new("idle");
    report.count("users", plan.users, "each with one connection and one available session, and no contacts");
    let (kernel, sessions) = (kernel_bytes(), server.gauge("sessions")?);
    let (memory, crowds) = fill(plan, &server, progress, Some(&accounts), &of)?;
    report_memory(plan, &memory, &mut report);
    if let Some((after, before)) = kernel_bytes().zip(kernel) {
        let about = "of the kernel's memory, both ends of the connection (Slab of /proc/meminfo, mem of /proc/net/sockstat)";
        report.number("kernel_bytes_per_connection", (after as f64 - before as f64) / f64::from(plan.users), about);
    }
    idle_cpu(plan, &server, progress, &mut report)?;
    if let Some((after, before)) = server.gauge("sessions")?.zip(sessions) {
        report.count("lost", u64::from(plan.users).saturating_sub(after - before), "sessions that ended by themselves");
    }
    log_out(crowds)?;
    server.stop()?;
    if let Some(server) = unused {
        let (memory, crowds) = fill(plan, &server, progress, None, &of)?;
        let about = "account and session together, in a node that had neither";
        report.number("bytes_per_new_user", (memory.all - memory.empty) / f64::from(plan.users), about);
        let further = (memory.all - memory.some) / f64::from(plan.users - plan.users / 3);
        report.number("bytes_per_further_new_user", further, "the same of the last two thirds");
        log_out(crowds)?;
        server.stop()?;
    }
    progress.end();
    Ok(report)
}

fn report_memory(plan: &Plan, memory: &Memory, report: &mut Report) {
    let each = |bytes: f64, users: u32| bytes / f64::from(users);
    let about = "that logging in and becoming available adds to the node's memory";
    report.number("bytes_per_session", each(memory.all - memory.offline, plan.users), about);
    let about = "the same of the last two thirds: without what a node needs but once, such as its receive buffers";
    report.number("bytes_per_further_session", each(memory.all - memory.some, plan.users - plan.users / 3), about);
    // Accounts of an earlier benchmark on the same node took their memory then.
    let per_account = if memory.made > 0 { each(memory.offline - memory.empty, memory.made) } else { f64::NAN };
    report.number("bytes_per_account", per_account, "of a user who is not there: name, number, roster");
}

/// How the accounts of users are made.
type Accounts<'a> = &'a dyn Fn(&Server, Range<u32>) -> io::Result<u32>;

/// Everybody becomes a user of a node and is there; their accounts are made before, or by the first log-in.
fn fill<D: Dialect>(
    plan: &Plan,
    server: &Server,
    progress: &Progress,
    accounts: Option<Accounts<'_>>,
    of: impl Fn(Access, Range<u32>) -> io::Result<D>,
) -> io::Result<(Memory, [D; 2])> {
    let online = |users| {
        let mut crowd = of(server.access.clone(), users)?;
        crowd.log_in(progress)?;
        crowd.become_available(progress)?;
        io::Result::Ok(crowd)
    };
    let empty = settled(plan, server, progress)?;
    let made = accounts.map_or(Ok(0), |make| make(server, 0..plan.users))?;
    let offline = settled(plan, server, progress)?;
    let third = plan.users / 3;
    let first = online(0..third)?;
    let some = settled(plan, server, progress)?;
    let others = online(third..plan.users)?;
    let all = settled(plan, server, progress)?;
    Ok((Memory { empty, made, offline, some, all }, [first, others]))
}

/// Everybody leaves; returns when the node has ended every connection.
fn log_out<D: Dialect>(crowds: [D; 2]) -> io::Result<()> {
    crowds.into_iter().try_for_each(|crowd| crowd.begin(0).0.farewell(&D::last_words()))
}

/// The node's own memory when it has given back what it doesn't need; `None` when its process isn't known. An allocator gives back
/// some time later, and only if its thread does something, so the node is asked for its counters meanwhile.
fn settled(plan: &Plan, server: &Server, progress: &Progress) -> io::Result<f64> {
    progress.begin_time("settling", plan.time);
    let began = Instant::now();
    let mut least = server.anonymous_bytes()?;
    while began.elapsed() < plan.time {
        progress.at_time(began.elapsed());
        std::thread::sleep(LOOK.min(plan.time.saturating_sub(began.elapsed())));
        server.counters()?;
        least = least.min(server.anonymous_bytes()?);
    }
    Ok(least.map_or(f64::NAN, |bytes| bytes as f64))
}

/// Processor time of the node while nobody says anything.
fn idle_cpu(plan: &Plan, server: &Server, progress: &Progress, report: &mut Report) -> io::Result<()> {
    progress.begin_time("idle", plan.time);
    let (began, before) = (Instant::now(), server.cpu_ns()?);
    while began.elapsed() < plan.time {
        progress.at_time(began.elapsed());
        std::thread::sleep(LOOK.min(plan.time.saturating_sub(began.elapsed())));
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
