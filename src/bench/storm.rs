//! `bench storm`: everybody logs in at once and wants to know at once which contacts are there.
//!
//! Lives on: the generator's pinned thread; the node on another processor. Serves G6, and shows J1's one watch per core and
//! publisher. Accounts and subscriptions are made first, by trunk; then nobody is there. A storm begins with the first
//! connection and ends when everybody has seen every contact. Without a rate all want in at the beginning, so that is from when
//! their latency counts, however long they queue; with a rate, each from its own moment of the schedule.

use super::crowd::Crowd;
use super::dialect::Dialect;
use super::graph::Graph;
use super::presences::{Directory, Places, frames, is_there, presence, refused};
use super::progress::Progress;
use super::report::{Report, median};
use super::round::{self, Meter};
use super::server::{Bench, Server};
use super::talk::{STALL, latencies};
use crate::base::id::{CoreId, home_of_slot, slot_of};
use crate::base::reason::Reason;
use crate::wire::decode::{self, ServerFrame};
use crate::wire::event::Event;
use crate::wire::frame::Header;
use crate::wire::native::Show;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

/// Log-ins with connections that are under way at once: fewer than a listener has room for.
const UNDER_WAY: u32 = 4000;
/// Log-ins begun before the generator listens again.
const BURST: u32 = 64;
/// Trunks that carry the set-up.
const SET_UP_TRUNKS: u32 = 4;
/// The kernel counts a thread's time when the thread stops, or a tick ends: the node has long gone to sleep by then.
const ACCOUNTED: Duration = Duration::from_millis(10);
/// The kernel wakes us up to this much later than asked.
const SPIN: Duration = Duration::from_millis(2);

/// What to run.
#[derive(Clone)]
pub struct Plan {
    pub users: u32,
    /// Contacts of each, mutually approved.
    pub contacts: u32,
    /// Log-ins a second; 0: all at once.
    pub rate: f64,
    /// Connections are there before the storm begins, and what they cost is reported apart.
    pub connected: bool,
    /// Storms, at least.
    pub rounds: u32,
    /// How long they go on one after the other, at least.
    pub time: Duration,
    /// Connections that carry all users; 0: each user has one.
    pub trunks: u32,
    pub bench: Bench,
}

impl Plan {
    /// Whether there is another storm after so many.
    fn goes_on(&self, storms: usize, lasted: Duration) -> bool {
        storms < self.rounds as usize || lasted < self.time
    }
}

/// What one storm came to.
struct Passed {
    /// From the first log-in until the last was answered, and until everybody had seen every contact, in seconds.
    log_ins: f64,
    settled: f64,
    cpu_ns: f64,
    /// What the node used for the connections, if they were there before.
    connecting_ns: f64,
    latency: Histogram<u64>,
    /// Contacts that somebody never saw.
    lost: u64,
    /// What the node counted meanwhile.
    counted: BTreeMap<String, u64>,
}

/// What users hear in a storm.
struct Hearing<'a> {
    plan: &'a Plan,
    graph: &'a Graph,
    directory: &'a Directory,
    places: Places,
    began: Instant,
    answered: u32,
    /// When the last log-in was answered.
    last: Instant,
    /// A bit for each user and contact, and how many are set.
    seen: Vec<u64>,
    seen_count: u64,
    /// Nanoseconds from when a user wanted in until it was.
    latency: Histogram<u64>,
    refusal: Option<String>,
}

impl<'a> Hearing<'a> {
    fn new(plan: &'a Plan, graph: &'a Graph, directory: &'a Directory, places: Places) -> Hearing<'a> {
        let (pairs, now) = (graph.pairs() as usize, Instant::now());
        let (seen, seen_count, answered, refusal) = (vec![0; pairs.div_ceil(64)], 0, 0, None);
        Hearing { plan, graph, directory, places, began: now, answered, last: now, seen, seen_count, latency: latencies(), refusal }
    }

    /// When a user wants in.
    fn wants_in(&self, user: u32) -> Instant {
        match self.plan.rate {
            rate if rate > 0.0 => self.began + Duration::from_secs_f64(f64::from(user) / rate),
            _ => self.began,
        }
    }

    fn sort(&mut self, now: Instant, conn: u32, header: Header, body: &[u8]) -> Result<(), Reason> {
        match decode::from_server(header.kind, body)? {
            ServerFrame::LoggedIn(_) => {
                let user = self.places.user_at(conn, header.stream);
                let waited = now.saturating_duration_since(self.wants_in(user));
                self.latency.saturating_record((waited.as_nanos() as u64).max(1));
                (self.answered, self.last) = (self.answered + 1, now);
            }
            ServerFrame::Event(event) => self.see(conn, &event),
            ServerFrame::EventBatch(batch) => {
                for event in batch.iter() {
                    self.see(conn, &event?);
                }
            }
            ServerFrame::Error(_) => self.refusal = refused(body),
            _ => {}
        }
        Ok(())
    }

    fn see(&mut self, conn: u32, event: &Event<'_>) {
        let Some(publisher) = self.directory.find(event.head.user).filter(|_| is_there(event)) else { return };
        if event.streams.is_empty() {
            return self.mark(conn, publisher);
        }
        for stream in event.streams.iter() {
            self.mark(self.places.user_at(conn, stream), publisher);
        }
    }

    fn mark(&mut self, user: u32, publisher: u32) {
        let Some(number) = self.graph.number(user, publisher) else { return };
        let at = user as usize * self.plan.contacts as usize + number as usize;
        let (word, bit) = (&mut self.seen[at / 64], 1 << (at % 64));
        self.seen_count += u64::from(*word & bit == 0);
        *word |= bit;
    }
}

/// A storm under way.
struct Storm<'a> {
    crowd: Crowd,
    hearing: Hearing<'a>,
    /// What each user says: all at once, and then nothing more.
    log_ins: Vec<Vec<u8>>,
    asked: u32,
    out: Vec<u8>,
}

impl Storm<'_> {
    /// Whether users connect when they log in.
    fn connects(&self) -> bool {
        self.hearing.places.trunks == 0 && !self.hearing.plan.connected
    }

    /// Opens all connections; returns when the node has them.
    fn connect(&mut self, server: &Server, progress: &Progress) -> io::Result<()> {
        let before = server.gauge("connections")?;
        progress.begin("connections", self.hearing.plan.users.into());
        for user in 0..self.hearing.plan.users {
            self.crowd.wires.connect()?;
            progress.at(user.into());
        }
        let (all, began) = (before.map(|before| before + u64::from(self.hearing.plan.users)), Instant::now());
        while all.is_some() && server.gauge("connections")? < all {
            if began.elapsed() > STALL {
                return Err(io::Error::other(format!("the node has not taken all connections in {} s", STALL.as_secs())));
            }
        }
        Ok(())
    }

    /// Lets everybody in; returns when all is seen, or nothing comes any more.
    fn run(&mut self, progress: &Progress) -> io::Result<()> {
        let (users, pairs) = (self.hearing.plan.users, self.hearing.graph.pairs());
        progress.begin("storm", pairs);
        let mut heard = Instant::now();
        (self.hearing.began, self.hearing.last) = (heard, heard);
        while (self.hearing.answered < users || self.hearing.seen_count < pairs) && heard.elapsed() < STALL {
            if self.ask()? | self.hear()? {
                heard = Instant::now();
            }
            progress.at(self.hearing.seen_count);
        }
        Ok(())
    }

    /// Those who want in by now ask, a few at once; whether somebody did.
    fn ask(&mut self) -> io::Result<bool> {
        let (now, room, places) = (Instant::now(), self.room(), self.hearing.places);
        let mut asking: Vec<u32> = (self.asked..self.asked + room).take_while(|&user| self.hearing.wants_in(user) <= now).collect();
        let asked = asking.len() as u32;
        if self.connects() {
            asking.iter().try_for_each(|_| self.crowd.wires.connect().map(drop))?;
        }
        self.asked += asked;
        // One write for all who share a connection.
        asking.sort_unstable_by_key(|&user| places.of(user));
        for together in asking.chunk_by(|&a, &b| places.of(a).0 == places.of(b).0) {
            self.out.clear();
            together.iter().for_each(|&user| self.out.extend_from_slice(&self.log_ins[user as usize]));
            self.crowd.wires.send(places.of(together[0]).0, &self.out)?;
        }
        Ok(asked > 0)
    }

    /// How many may ask now.
    fn room(&self) -> u32 {
        let under_way = self.asked - self.hearing.answered;
        let most = if self.connects() { UNDER_WAY - under_way } else { BURST };
        (self.hearing.plan.users - self.asked).min(most).min(BURST)
    }

    /// Listens; whether something came.
    fn hear(&mut self) -> io::Result<bool> {
        let patience = self.patience();
        let Storm { crowd, hearing, .. } = self;
        let heard = crowd.wires.listen(patience, |conn, bytes| {
            let now = Instant::now();
            frames(bytes, |header, body| {
                if let Err(reason) = hearing.sort(now, conn, header, body) {
                    hearing.refusal.get_or_insert_with(|| format!("connection {conn} got a bad frame: {reason:?}"));
                }
            })
        });
        if let Some(refusal) = &hearing.refusal {
            return Err(io::Error::other(format!("the node refused: {refusal}")));
        }
        Ok(heard? > 0)
    }

    /// How long there is nothing to do but listen.
    fn patience(&self) -> Duration {
        if self.room() == 0 {
            return STALL;
        }
        let left = self.hearing.wants_in(self.asked).saturating_duration_since(Instant::now());
        if left > SPIN { left - SPIN } else { Duration::ZERO }
    }
}

/// Runs it.
///
/// # Errors
/// The node or the machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    let server = plan.bench.server()?;
    plan.bench.pin_load();
    let graph = Graph::mutual(plan.users, plan.contacts);
    let directory = set_up(plan, &server, &graph, progress)?;
    let (mut passed, began) = (Vec::new(), Instant::now());
    while plan.goes_on(passed.len(), began.elapsed()) {
        passed.push(pass(plan, &server, &graph, &directory, progress)?);
    }
    let report = report(plan, &server, &graph, &passed)?;
    server.stop()?;
    progress.end();
    Ok(report)
}

/// Makes everybody's account and subscriptions, by trunk. Nobody is there afterwards.
fn set_up(plan: &Plan, server: &Server, graph: &Graph, progress: &Progress) -> io::Result<Directory> {
    let mut crowd = Crowd::new(server.access.clone(), 0..plan.users, SET_UP_TRUNKS)?;
    crowd.log_in(progress)?;
    crowd.become_available(progress)?;
    crowd.subscribe(graph, progress)?;
    crowd.log_out()
}

/// One storm, from nobody there to nobody there.
fn pass(plan: &Plan, server: &Server, graph: &Graph, directory: &Directory, progress: &Progress) -> io::Result<Passed> {
    let mut crowd = Crowd::new(server.access.clone(), 0..plan.users, plan.trunks)?;
    crowd.open_trunks(progress)?;
    let places = crowd.places;
    let (presence, mut log_ins) = (presence(Show::Available), vec![Vec::new(); plan.users as usize]);
    for (user, log_in) in (0..).zip(&mut log_ins) {
        crowd.write_log_in(user, &presence, log_in)?;
    }
    let hearing = Hearing::new(plan, graph, directory, places);
    let mut storm = Storm { crowd, hearing, log_ins, asked: 0, out: Vec::new() };
    let idle_ns = server.cpu_ns()?;
    if plan.connected && plan.trunks == 0 {
        storm.connect(server, progress)?;
    }
    let (counted, began_ns) = (server.counters()?, server.cpu_ns()?);
    storm.run(progress)?;
    let settled = storm.hearing.began.elapsed().as_secs_f64();
    std::thread::sleep(ACCOUNTED);
    let used =
        |after: Option<u64>, before: Option<u64>| after.zip(before).map_or(f64::NAN, |(after, before)| (after - before) as f64);
    let (cpu_ns, connecting_ns) = (used(server.cpu_ns()?, began_ns), used(began_ns, idle_ns));
    let counted = server.counters()?.zip(counted).map_or_else(BTreeMap::new, |(after, before)| since(after, &before));
    let Storm { crowd, hearing, .. } = storm;
    crowd.log_out()?;
    let log_ins = (hearing.last - hearing.began).as_secs_f64();
    Ok(Passed {
        log_ins,
        settled,
        cpu_ns,
        connecting_ns,
        latency: hearing.latency,
        lost: graph.pairs() - hearing.seen_count,
        counted,
    })
}

fn since(mut after: BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after.iter_mut().for_each(|(name, count)| *count -= before.get(name).copied().unwrap_or(0));
    after
}

fn report(plan: &Plan, server: &Server, graph: &Graph, passed: &[Passed]) -> io::Result<Report> {
    let users = f64::from(plan.users);
    let cores = server.cores()?;
    let middle = |figure: &dyn Fn(&Passed) -> f64| median(passed.iter().map(figure).collect());
    let mut report = Report::new("storm");
    report.count("users", plan.users, "");
    report.count("contacts", plan.contacts, "of each, mutual");
    report.count("connections", if plan.trunks == 0 { plan.users } else { plan.trunks }, "");
    report.count("storms", passed.len() as u64, "the medians count");
    report.number("log_in_s", middle(&|passed| passed.log_ins), "seconds until everybody was in");
    report.number("settled_s", middle(&|passed| passed.settled), "seconds until everybody had seen every contact");
    report.number("log_ins_per_s", middle(&|passed| users / passed.settled), "until everybody had seen every contact");
    if let Some(cores) = cores {
        report.number("log_ins_per_s_per_core", middle(&|passed| users / passed.settled / f64::from(cores)), "");
    }
    if plan.connected && plan.trunks == 0 {
        let about = "opened before the storm, at the generator's speed, and in none of the figures below";
        report.number("server_cpu_us_per_connection", middle(&|passed| passed.connecting_ns / users / 1e3), about);
    }
    report.number("server_cpu_us_per_log_in", middle(&|passed| passed.cpu_ns / users / 1e3), "kernel included");
    report.number(
        "log_ins_per_server_cpu_s",
        middle(&|passed| users / passed.cpu_ns * 1e9),
        "what a core makes that is never idle",
    );
    report.number("server_load", middle(&|passed| passed.cpu_ns / 1e9 / passed.settled), "of a processor's time");
    let deliveries = graph.pairs() as f64;
    report.number("deliveries_per_s", middle(&|passed| deliveries / passed.settled), "contacts seen");
    report.number("server_cpu_ns_per_delivery", middle(&|passed| passed.cpu_ns / deliveries), "log-in and all");
    let counted = |name: &'static str| {
        let known = passed.iter().map(|passed| passed.counted.get(name).map_or(f64::NAN, |&count| count as f64));
        median(known.collect())
    };
    report.number("sends_per_log_in", counted("sends") / users, "");
    report.number("watches", counted("watches"), "contacts' homes asked");
    report.number("answered_locally", counted("local_snapshots"), "contacts' presence known to the core already");
    if let Some(cores) = cores {
        let pairs = watched(plan, server, graph, cores);
        report.count("cores_and_publishers", pairs, "a core with a subscriber's connection, and the publisher");
        let most = passed.iter().filter_map(|passed| passed.counted.get("watches")).max();
        let ratio = most.map_or(f64::NAN, |&most| most as f64 / pairs as f64);
        report.number("watches_per_core_and_publisher", ratio, "the most of a storm; 1 is one question each");
    }
    let mut latency = latencies();
    passed.iter().for_each(|passed| latency.add(&passed.latency).expect("the bounds are the same"));
    let about = "from when a user wanted in until it was; without a rate, all want in at the beginning";
    round::latency(&mut report, ["p50_us", "p99_us", "p999_us", "max_us"], &latency, about);
    report.count("lost", passed.iter().map(|passed| passed.lost).sum::<u64>(), "contacts that somebody never saw");
    Ok(report)
}

/// Pairs of a core and a publisher with a subscriber's connection there. A connection is at its user's home; where a trunk is
/// isn't known, so at most one core for each.
fn watched(plan: &Plan, server: &Server, graph: &Graph, cores: u16) -> u64 {
    if plan.trunks > 0 {
        return u64::from(plan.users) * u64::from(plan.trunks.min(u32::from(cores)));
    }
    let homes: Vec<CoreId> = (0..plan.users).map(|user| home_of_slot(slot_of(&server.access.jid(user)), cores)).collect();
    let distinct = |user| graph.subscribers(user).map(|subscriber| homes[subscriber as usize]).collect::<BTreeSet<_>>().len();
    (0..plan.users).map(|user| distinct(user) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storms_go_on_until_there_were_enough_and_they_lasted_long_enough() {
        let bench = Bench {
            target: None,
            server_cores: vec![0],
            speaks: crate::front::doors::Speaks::Native,
            tls: false,
            load_processor: None,
        };
        let time = Duration::from_secs(2);
        let plan = Plan { users: 2, contacts: 1, rate: 0.0, connected: false, rounds: 3, time, trunks: 0, bench };
        assert!(plan.goes_on(2, time) && plan.goes_on(3, time / 2));
        assert!(!plan.goes_on(3, time));
    }
}
