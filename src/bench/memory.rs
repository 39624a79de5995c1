//! `bench memory`: shards and rings without sockets. What presence itself costs, from the bytes of an update to the bytes on each
//! subscriber's line.
//!
//! Lives on: one pinned thread per core, made here. Serves G6, G3. Every user has a connection, logs in and becomes available
//! through the protocol's own frames; accounts and rosters are loaded as after a start. Nothing is left out but the kernel: a turn
//! is the host's, and what is on the lines is taken off them, as a driver whose sends never wait would do.

use super::graph::Graph;
use super::presences::presence;
use super::progress::Progress;
use super::report::{Report, median};
use crate::base::config::Config;
use crate::base::id::{ConnId, CoreId, NodeId, UserId, home_of_slot, slot_of};
use crate::base::jid::Bare;
use crate::base::limits::Limits;
use crate::base::random::Random;
use crate::base::secrets::Secrets;
use crate::base::time::{Time, WallClock};
use crate::drive::{clock, pin};
use crate::front::doors::Doors;
use crate::front::sasl::Decoys;
use crate::front::token::{Keys, Scope};
use crate::metrics::meter::Units;
use crate::presence::home::Place;
use crate::presence::subscription::State;
use crate::ring::doorbell::Bell;
use crate::ring::mesh::{Ports, mesh};
use crate::shard::batch::Batch;
use crate::shard::{EXPECTED, Settings, Shard};
use crate::store::rows::{self, Row};
use crate::store::{Completion, Table};
use crate::wire::encode::{Encoder, LogInFields, Tag};
use crate::wire::event;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::native::Show;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const DOMAIN: &str = "localhost";
const KEY: &str = "the log-in key of a benchmark without sockets";
/// Batches of one other core that are read in one turn.
const BATCHES_PER_TURN: usize = 8;
/// Turns that a core's users may be ahead of those of another core.
const LEAD: u64 = 4;
/// Users of one turn of the set-up.
const SET_UP_USERS: usize = 256;
/// Time before each measured time.
const WARM_UP: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone)]
pub struct Plan {
    pub users: u32,
    /// Subscribers of each user, who are its contacts too: subscriptions are mutual.
    pub subscribers: u32,
    pub time: Duration,
    /// Measured times; the median counts.
    pub rounds: u32,
    /// Updates that a core takes in in one turn.
    pub batch: usize,
    /// Processors, one core of the node on each.
    pub cores: Vec<u16>,
    /// One of so many updates is timed; 0: none (`metrics.sample`).
    pub sample: u32,
}

/// One measured time of one core.
#[derive(Clone, Copy, Default)]
struct Counted {
    updates: u64,
    /// Event frames that lay on lines of this core.
    deliveries: u64,
    nanos: u64,
}

/// Where the threads of a run meet.
struct Meeting {
    barrier: Barrier,
    busy: AtomicUsize,
    /// Turns in which each core has taken in updates.
    turns: Vec<AtomicU64>,
}

impl Meeting {
    fn of(cores: usize) -> Meeting {
        let turns = (0..cores).map(|_| AtomicU64::new(0)).collect();
        Meeting { barrier: Barrier::new(cores), busy: AtomicUsize::new(0), turns }
    }

    /// Whether a core is so far ahead of another that its users must wait: all users speak at one rate.
    fn is_ahead(&self, core: CoreId) -> bool {
        let own = self.turns[usize::from(core.0)].load(Ordering::Relaxed);
        self.turns.iter().any(|turns| own > turns.load(Ordering::Relaxed) + LEAD)
    }

    fn spoke(&self, core: CoreId) {
        self.turns[usize::from(core.0)].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether any core says so. All cores ask together.
    fn any(&self, busy: bool) -> bool {
        self.busy.fetch_add(usize::from(busy), Ordering::AcqRel);
        self.barrier.wait();
        let any = self.busy.load(Ordering::Acquire) > 0;
        if self.barrier.wait().is_leader() {
            self.busy.store(0, Ordering::Release);
        }
        self.barrier.wait();
        any
    }
}

/// Rings nobody: a core of this benchmark never sleeps.
struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

/// One core of the node, and what its users do.
struct Core {
    shard: Shard,
    ports: Ports<Batch>,
    /// The users at home here, in the order in which they speak.
    users: Vec<u32>,
    conns: Vec<ConnId>,
    /// Two states, said in turn.
    updates: [Vec<u8>; 2],
    next: usize,
    event_bytes: usize,
    dirty: Vec<u32>,
    counted: Counted,
}

impl Core {
    fn new(shard: Shard, ports: Ports<Batch>, plan: &Plan) -> Core {
        let core = shard.settings.core;
        let cores = plan.cores.len() as u16;
        let here = |&user: &u32| home_of_slot(slot_of(name(user).as_str()), cores) == core;
        let mut users: Vec<u32> = (0..plan.users).filter(here).collect();
        Random::new(u64::from(core.0)).shuffle(&mut users);
        let updates = [Show::Away, Show::Chat].map(|show| {
            let mut frame = Vec::new();
            Encoder::default().set_presence_bytes(&mut frame, Tag::default(), &presence(show));
            frame
        });
        let event_bytes = HEADER_BYTES + event::HEAD_BYTES + presence(Show::Away).len();
        let (conns, dirty) = (Vec::with_capacity(users.len()), Vec::new());
        Core { shard, ports, users, conns, updates, next: 0, event_bytes, dirty, counted: Counted::default() }
    }

    /// Accounts and rosters, as from a store.
    fn load(&mut self, graph: &Graph, cores: u16) {
        let homes = &mut self.shard.homes;
        for &user in &self.users {
            let account = rows::Account { user: number(user), scram: None, created: WallClock(0) };
            let loaded = homes.load(Table::Accounts, &rows::user_key(&name(user)), &account.encode());
            loaded.expect("a row made by the rows' own encoder");
        }
        for &user in &self.users {
            for contact in graph.subscribers(user) {
                let row =
                    rows::Contact { user: number(contact), state: State::TO.with(State::FROM).bits(), ..rows::Contact::default() };
                let loaded = homes.load(Table::Roster, &rows::pair_key(&name(user), &name(contact)), &row.encode());
                loaded.expect("a row made by the rows' own encoder");
            }
        }
        assert!(self.users.iter().all(|&user| number(user).home(cores) == self.shard.settings.core));
    }

    /// Everyone connects, logs in, and becomes available.
    fn log_in(&mut self, meeting: &Meeting, progress: Option<&Progress>) {
        let keys = self.shard.settings.token_keys.clone();
        let mut encoder = Encoder::default();
        let mut bytes = Vec::new();
        for at in 0..self.users.len() {
            let now = clock::now();
            let jid = name(self.users[at]);
            let token = keys.sign(Scope::User(&jid), WallClock(u64::MAX)).expect("there is a key");
            bytes.clear();
            encoder.hello(&mut bytes, Tag::default(), "fanal bench");
            let log_in = LogInFields {
                jid: jid.as_str(),
                mechanism: "TOKEN",
                data: token.as_bytes(),
                resource: "b",
                ..LogInFields::default()
            };
            encoder.log_in(&mut bytes, Tag::request(1), &log_in);
            let conn = self.shard.accepted(now, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).expect("the limits allow it");
            self.shard.received(now, conn, &bytes);
            self.conns.push(conn);
            if at % SET_UP_USERS == 0 {
                self.turn(now);
                progress.inspect(|progress| progress.at(at as u64));
            }
        }
        self.settle(meeting);
        assert_eq!(self.shard.homes.session_count(), self.users.len(), "everyone is logged in");
        for at in 0..self.users.len() {
            let now = clock::now();
            self.speak(now, 1);
            if at % SET_UP_USERS == 0 {
                self.turn(now);
                progress.inspect(|progress| progress.at(at as u64));
            }
        }
        self.settle(meeting);
    }

    /// The next users change presence.
    fn speak(&mut self, now: Time, count: usize) {
        for said in 0..count {
            let (round, at) = (self.next / self.conns.len(), self.next % self.conns.len());
            if said % EXPECTED == 0 {
                self.shard.expect(&self.conns[at..]);
            }
            self.shard.received(now, self.conns[at], &self.updates[round % 2]);
            self.next += 1;
        }
        self.counted.updates += count as u64;
    }

    /// What a host and its driver do in a turn, without a kernel.
    fn turn(&mut self, now: Time) {
        let shard = &mut self.shard;
        self.ports.receive(BATCHES_PER_TURN, |_, batch| shard.batch(now, batch));
        shard.turn(now);
        let core = shard.settings.core;
        for commit in std::mem::take(&mut shard.out.commits) {
            shard.completed(now, Completion { core, ticket: commit.ticket, result: Ok(()) });
        }
        for other in (0..shard.settings.cores).map(CoreId).filter(|&other| other != core) {
            if shard.has_for(other) {
                shard.fill(now, other, self.ports.batch(other));
            }
        }
        self.ports.publish_all();
        self.drain();
    }

    /// Takes what was gathered off the lines.
    fn drain(&mut self) {
        let lines = &mut self.shard.out.lines;
        lines.take_dirty(&mut self.dirty);
        for &slot in &self.dirty {
            if let Some(buffer) = lines.take(slot) {
                self.counted.deliveries += (buffer.len() / self.event_bytes) as u64;
                lines.sent(slot, buffer);
            }
        }
    }

    /// Whether something is still on its way.
    fn is_busy(&self) -> bool {
        let own = self.shard.settings.core;
        let others = (0..self.shard.settings.cores).map(CoreId).filter(|&core| core != own);
        let has_for_others = others.into_iter().any(|core| self.shard.has_for(core));
        has_for_others || !self.ports.is_empty() || !self.ports.all_sent()
    }

    /// Turns until nothing is on its way anywhere.
    fn settle(&mut self, meeting: &Meeting) {
        loop {
            self.turn(clock::now());
            meeting.barrier.wait();
            if !meeting.any(self.is_busy()) {
                return;
            }
        }
    }

    /// Everyone speaks for some time. A core whose word to another could not leave takes nothing new in, as the clients of a closed
    /// loop would have it.
    fn run(&mut self, time: Duration, batch: usize, meeting: &Meeting) {
        let core = self.shard.settings.core;
        let began = Instant::now();
        while began.elapsed() < time {
            let now = clock::now();
            if self.ports.all_sent() && !meeting.is_ahead(core) {
                self.speak(now, batch);
                meeting.spoke(core);
            }
            self.turn(now);
        }
        self.counted.nanos += began.elapsed().as_nanos() as u64;
    }

    fn measure(&mut self, plan: &Plan, meeting: &Meeting) -> Vec<Counted> {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            meeting.barrier.wait();
            self.run(WARM_UP, plan.batch, meeting);
            self.settle(meeting);
            self.counted = Counted::default();
            meeting.barrier.wait();
            self.run(plan.time, plan.batch, meeting);
            self.settle(meeting);
            rounds.push(std::mem::take(&mut self.counted));
        }
        rounds
    }
}

fn name(user: u32) -> Bare {
    Bare::new(&format!("bench-{user}@{DOMAIN}")).expect("it is a JID")
}

fn number(user: u32) -> UserId {
    UserId::new(0, slot_of(name(user).as_str()), 1 + user)
}

fn shards(plan: &Plan) -> Vec<Shard> {
    let huge = u32::MAX;
    let limits = Limits { frames_per_second: 1 << 30, frames_burst: 1 << 30, ping_ms: huge, stalled_ms: huge, ..Limits::default() };
    let limits = Arc::new(Limits { high_water_bytes: huge, backlog_bytes: huge, log_in_ms: huge, ..limits });
    let mut secrets = Secrets::from_number(1);
    let keys = Keys::new([KEY]).expect("it is long enough");
    let cores = plan.cores.len() as u16;
    let shard = |core| {
        let (core, domain, limits) = (CoreId(core), DOMAIN.to_owned(), limits.clone());
        let wall_at_zero = WallClock(1);
        let place = Place { cluster: 0, directory: 0, epoch: 1, domain: domain.clone(), limits: limits.clone(), wall_at_zero };
        let units = Units { unit_bytes: Config::default().metrics.meter_unit_bytes, ..Units::default() };
        let settings = Settings {
            links: None,
            node: NodeId::default(),
            core,
            cores,
            domain,
            limits,
            token_keys: keys.clone(),
            trunk_keys: Keys::default(),
            doors: Doors::default(),
            plain: false,
            open_registration: false,
            hook: false,
            decoys: Decoys::new([7; 32]),
            sample: plan.sample,
            units,
            clock: clock::now,
        };
        Shard::new(settings, place, secrets.fork())
    };
    (0..cores).map(shard).collect()
}

/// Runs on all cores of the plan; gives each core's rounds.
fn run_cores(plan: &Plan, progress: &Progress) -> Vec<Vec<Counted>> {
    let graph = Graph::mutual(plan.users, plan.subscribers);
    let bells = plan.cores.iter().map(|_| Arc::new(Silent) as Arc<dyn Bell>).collect();
    let ports = mesh(Limits::default().ring_batches as usize, bells);
    let meeting = Meeting::of(plan.cores.len());
    let (graph, meeting) = (&graph, &meeting);
    progress.begin("log-ins", u64::from(plan.users) / plan.cores.len() as u64);
    thread::scope(|scope| {
        let run = |(shard, (ports, &processor))| {
            scope.spawn(move || {
                pin::pin(usize::from(processor));
                let mut core = Core::new(shard, ports, plan);
                let first = core.shard.settings.core == CoreId(0);
                core.load(graph, plan.cores.len() as u16);
                core.log_in(meeting, first.then_some(progress));
                if first {
                    progress.begin_time("measuring", (plan.time + WARM_UP) * plan.rounds);
                }
                core.measure(plan, meeting)
            })
        };
        let threads: Vec<_> = shards(plan).into_iter().zip(ports.into_iter().zip(&plan.cores)).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("a core does not panic")).collect()
    })
}

/// Runs it: on one core, and when the plan has more, on all of them too.
pub fn run(plan: &Plan, progress: &Progress) -> Report {
    let mut report = Report::new("memory");
    report.count("users", plan.users, "each with a connection");
    report.count("subscribers", plan.subscribers, "of each");
    report.count("cores", plan.cores.len() as u64, "");
    report.count("batch", plan.batch as u64, "updates of one turn");
    let alone = (plan.cores.len() > 1).then(|| {
        let plan = Plan { cores: plan.cores[..1].to_vec(), ..plan.clone() };
        Rates::of(&run_cores(&plan, progress))
    });
    let cores = run_cores(plan, progress);
    let rates = Rates::of(&cores);
    report.number("updates_per_s", rates.updates, "");
    report.number("deliveries_per_s", rates.deliveries, "");
    report.number("server_cpu_ns_per_delivery", plan.cores.len() as f64 * 1e9 / rates.deliveries, "all of it user space");
    report.number("server_cpu_ns_per_update", plan.cores.len() as f64 * 1e9 / rates.updates, "");
    if let Some(alone) = alone {
        report.number("one_core_updates_per_s", alone.updates, "the same on one core");
        report.number("times_one_core", rates.updates / alone.updates, "");
    }
    let all = cores.iter().flatten();
    let (updates, deliveries) = all.fold((0, 0), |sum, round| (sum.0 + round.updates, sum.1 + round.deliveries));
    let expected = updates * u64::from(plan.subscribers);
    report.count("lost", expected.saturating_sub(deliveries), "deliveries that never came");
    report.count("surplus", deliveries.saturating_sub(expected), "deliveries that came twice or for nothing");
    progress.end();
    report
}

/// Medians over the rounds, of all cores together.
struct Rates {
    updates: f64,
    deliveries: f64,
}

impl Rates {
    fn of(cores: &[Vec<Counted>]) -> Rates {
        let rounds = cores[0].len();
        let sum = |of: &dyn Fn(&Counted) -> u64| {
            let round = |at: usize| cores.iter().map(|rounds| of(&rounds[at]) as f64 * 1e9 / rounds[at].nanos as f64).sum();
            median((0..rounds).map(round).collect())
        };
        Rates { updates: sum(&|counted| counted.updates), deliveries: sum(&|counted| counted.deliveries) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Value;

    #[test]
    fn every_delivery_is_on_its_line_on_one_core_and_on_two() {
        for cores in [vec![0], vec![0, 0]] {
            let time = Duration::from_millis(20);
            let plan = Plan { users: 200, subscribers: 6, time, rounds: 1, batch: 32, cores, sample: 16 };
            let report = run(&plan, &Progress::shown(false));
            assert_eq!((report.get("lost"), report.get("surplus")), (Some(&Value::Count(0)), Some(&Value::Count(0))));
            assert!(matches!(report.get("deliveries_per_s"), Some(Value::Number(rate)) if *rate > 0.0));
        }
    }
}
