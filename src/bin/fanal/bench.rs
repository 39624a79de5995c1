//! `fanal bench`: measures a node it starts itself, or one that runs already.

mod clusters;
mod target;

use crate::failure::Failure;
use clusters::{Cluster, TakeOver};
use fanal::base::config::{Config, Fault};
use fanal::bench::fanout::Door;
use fanal::bench::progress::Progress;
use fanal::bench::pub_sub::Bus;
use fanal::bench::report::{Report, Value};
use fanal::bench::round::Schedule;
use fanal::bench::server::Bench;
use fanal::bench::{fanout, idle, memory, sockets, storm};
use fanal::drive::pin;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use target::Target;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal bench fanout --users 1000 --subscribers 50
  fanal bench fanout --trunk 8 --users 200000 --rate 200000 --seconds 10 --json
  fanal bench fanout --target 127.0.0.1:7400 --data fanal-data
  fanal bench fanout --door ws --tls --window 8
  fanal bench storm --users 10000
  fanal bench memory --users 1000000 --subscribers 2
  fanal bench cluster --clusters 2 --nodes 2 --users 1000 --subscribers 20
  fanal bench cluster --users 100000 --subscribers 1 --cut 10
  fanal bench take-over --store postgres://fanal@127.0.0.1/bench --users 200000")]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(clap::Subcommand)]
enum Kind {
    /// Everybody keeps changing presence: what a delivery costs, against the floor of the same run.
    Fanout(Fanout),
    /// Presence without sockets: from an update's bytes to the bytes on its subscribers' lines.
    Memory(Memory),
    /// Everybody logs in at once, natively: what a log-in costs until all have seen all their contacts.
    Storm(Storm),
    /// Everybody is there and says nothing: what a session holds of memory.
    Idle(Idle),
    /// The same frames and sockets without presence: the physical limit of a fan-out.
    Floor(Floor),
    /// A node of two that share a database is killed: how long it takes the other one to load its users, and until they can log in.
    TakeOver(TakeOver),
    /// Users of one cluster change presence, their subscribers are in others: what crosses, read on the wire, and what it takes.
    Cluster(Cluster),
}

/// What every kind takes.
#[derive(clap::Args)]
struct Common {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Processors of the node, one pinned thread on each.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
    cores: Vec<u16>,
    /// Processor of the load generator. By default the first that is not the node's.
    #[arg(long, value_name = "N")]
    load_core: Option<usize>,
}

/// When updates go out, and for how long.
#[derive(clap::Args)]
struct Pacing {
    /// Updates a second over all users, sent on time whatever the node does, in one measured time. 0: as many as the window allows,
    /// and only then --load, --window and --rounds count.
    #[arg(long, value_name = "UPDATES_PER_S", default_value_t = 0.0, value_parser = read_number)]
    rate: f64,
    /// After the window's rounds, hold this share of what they made and measure latency. 0: don't.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = read_number)]
    load: f64,
    /// Updates of one user on their way at once.
    #[arg(long, value_name = "W", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// Length of each measured time.
    #[arg(long = "seconds", value_name = "S", default_value = "3", value_parser = read_time)]
    time: Duration,
    /// Measured times of the closed loop.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[derive(clap::Args)]
struct Fanout {
    /// Users logged in.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    users: u32,
    /// Subscribers of each of them.
    #[arg(long, value_name = "F", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    #[command(flatten)]
    pacing: Pacing,
    /// Carry all users on this many trunk connections. 0: each user has a connection.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 0)]
    trunk: u32,
    /// What the users speak: native, xmpp, or ws (JSON over WebSocket). With xmpp the target may be any XMPP server that registers
    /// users in band. redis and nats are for comparison: their channels, without presence.
    #[arg(long, value_name = "DOOR", value_parser = read_door, default_value = "native")]
    door: Door,
    /// Say everything inside TLS (1.3, AES-128-GCM), from the first byte: at a target this is the port for that.
    #[arg(long)]
    tls: bool,
    /// Leave the floor out.
    #[arg(long)]
    no_floor: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Memory {
    /// Users, each with a connection.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(4..))]
    users: u32,
    /// Subscribers of each of them; they subscribe to each other.
    #[arg(long, value_name = "F", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Length of each measured time.
    #[arg(long = "seconds", value_name = "S", default_value = "2", value_parser = read_time)]
    time: Duration,
    /// Measured times; the median counts.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Updates that a core takes in in one turn.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Time one of so many updates, as metrics.sample of a node's configuration; 0: none.
    #[arg(long, value_name = "N", default_value_t = Config::default().metrics.sample)]
    sample: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Storm {
    /// Users who log in.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    users: u32,
    /// Contacts of each of them, both subscribers and publishers.
    #[arg(long, value_name = "F", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Log-ins a second, on time whatever the node does. 0: all at once.
    #[arg(long, value_name = "LOG_INS_PER_S", default_value_t = 0.0, value_parser = read_number)]
    rate: f64,
    /// Open all connections before the storm, so that the generator doesn't slow the log-ins down. Their cost is reported apart.
    #[arg(long)]
    connected: bool,
    /// Storms, at least.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long they go on one after the other, at least.
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = read_number)]
    seconds: f64,
    /// Carry all users on this many trunk connections. 0: each user has a connection.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 0)]
    trunk: u32,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Idle {
    /// Users logged in, each with a connection.
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// How long memory may settle each time, and idle processor time is measured.
    #[arg(long = "seconds", value_name = "S", default_value = "3", value_parser = read_time)]
    time: Duration,
    /// What the users speak: native, xmpp, or ws (JSON over WebSocket).
    #[arg(long, value_name = "DOOR", value_parser = read_own_door, default_value = "native")]
    door: Door,
    /// Say everything inside TLS (1.3, AES-128-GCM), from the first byte: at a target this is the port for that.
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Floor {
    /// Users, each with a connection.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    users: u32,
    /// Subscribers of each of them.
    #[arg(long, value_name = "F", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Length of a frame, the same in both directions.
    #[arg(long, value_name = "BYTES", default_value_t = 72, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    frame: u32,
    #[command(flatten)]
    pacing: Pacing,
    #[command(flatten)]
    common: Common,
}

/// The greatest number taken on the command line.
const MOST: f64 = 1e9;

pub fn run(args: Args) -> Result<(), Failure> {
    let (json, report) = match args.kind {
        Kind::Fanout(args) => (args.common.json, fan_out(args)),
        Kind::Memory(args) => (args.common.json, in_memory(args)),
        Kind::Storm(args) => (args.common.json, storm(args)),
        Kind::Idle(args) => (args.common.json, idle(args)),
        Kind::Floor(args) => (args.common.json, floor(args)),
        Kind::TakeOver(args) => (args.json, clusters::take_over(args)),
        Kind::Cluster(args) => (args.json, clusters::across(args)),
    };
    let report = report?;
    let text = if json { report.json() + "\n" } else { report.table() };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::line)?;
    match report.get("lost") {
        Some(Value::Count(lost)) if *lost > 0 => Err(Failure::line(format!("{lost} were lost: see the figures above"))),
        _ => Ok(()),
    }
}

fn fan_out(args: Fanout) -> Result<Report, Failure> {
    check_density(args.users, args.subscribers)?;
    if args.trunk > 0 && args.door != Door::Native {
        return Err(Failure::line("--trunk: only native users share connections: leave it out, or --door"));
    }
    if let Door::Bus(_) = args.door {
        if args.target.target.is_none() {
            return Err(Failure::line("--door: a node does not speak that: name the server that does with --target"));
        }
        if args.tls {
            return Err(Failure::line("--tls: redis and nats are spoken to without TLS: leave it out"));
        }
    }
    let plan = fanout::Plan {
        users: args.users,
        subscribers: args.subscribers,
        schedule: args.pacing.schedule(),
        trunks: args.trunk,
        bench: args.common.bench(args.target, args.door, args.tls)?,
        floor: !args.no_floor,
        door: args.door,
    };
    fanout::run(&plan, &args.common.progress()).map_err(Failure::line)
}

fn in_memory(args: Memory) -> Result<Report, Failure> {
    check_pairs(args.users, args.subscribers)?;
    args.common.check_cores()?;
    let plan = memory::Plan {
        users: args.users,
        subscribers: args.subscribers,
        time: args.time,
        rounds: args.rounds,
        batch: args.batch as usize,
        cores: args.common.cores.clone(),
        sample: args.sample,
    };
    Ok(memory::run(&plan, &args.common.progress()))
}

fn storm(args: Storm) -> Result<Report, Failure> {
    check_pairs(args.users, args.subscribers)?;
    if args.connected && args.trunk > 0 {
        return Err(Failure::line("--connected: trunks are always open before a storm: leave it out, or --trunk"));
    }
    let plan = storm::Plan {
        users: args.users,
        contacts: args.subscribers,
        rate: args.rate,
        connected: args.connected,
        rounds: args.rounds,
        time: Duration::from_secs_f64(args.seconds),
        trunks: args.trunk,
        bench: args.common.bench(args.target, Door::Native, false)?,
    };
    storm::run(&plan, &args.common.progress()).map_err(Failure::line)
}

fn idle(args: Idle) -> Result<Report, Failure> {
    let plan = idle::Plan {
        users: args.users,
        time: args.time,
        bench: args.common.bench(args.target, args.door, args.tls)?,
        door: args.door,
    };
    idle::run(&plan, &args.common.progress()).map_err(Failure::line)
}

fn floor(args: Floor) -> Result<Report, Failure> {
    check_density(args.users, args.subscribers)?;
    args.common.check_cores()?;
    let plan = sockets::Plan {
        users: args.users,
        subscribers: args.subscribers,
        frame_bytes: args.frame as usize,
        schedule: args.pacing.schedule(),
        server_processor: args.common.cores.first().map(|&core| usize::from(core)),
        load_processor: args.common.load_processor()?,
    };
    sockets::run(&plan, &args.common.progress()).map_err(Failure::line)
}

fn check_density(users: u32, subscribers: u32) -> Result<(), Failure> {
    if subscribers < users { Ok(()) } else { Err(Failure::line("--subscribers: must be fewer than --users")) }
}

fn check_pairs(users: u32, subscribers: u32) -> Result<(), Failure> {
    check_density(users, subscribers)?;
    if users.is_multiple_of(2) || subscribers.is_multiple_of(2) {
        return Ok(());
    }
    Err(Failure::line("--subscribers: with an odd number of users it must be even, since contacts are mutual"))
}

impl Pacing {
    fn schedule(&self) -> Schedule {
        let Pacing { rate, load, window, time, rounds } = *self;
        Schedule { rate, load, window, time, rounds }
    }
}

impl Common {
    fn progress(&self) -> Progress {
        Progress::shown(io::stderr().is_terminal())
    }

    fn bench(&self, target: Target, door: Door, tls: bool) -> Result<Bench, Failure> {
        if target.target.is_none() {
            self.check_cores()?;
        }
        Ok(Bench {
            target: target.read(door, tls)?,
            server_cores: self.cores.clone(),
            speaks: door.speaks(tls),
            tls,
            load_processor: self.load_processor()?,
        })
    }

    fn check_cores(&self) -> Result<(), Failure> {
        fits("--cores", &self.cores.iter().map(|&core| usize::from(core)).collect::<Vec<_>>())
    }

    fn load_processor(&self) -> Result<Option<usize>, Failure> {
        if let Some(core) = self.load_core {
            fits("--load-core", &[core])?;
            return Ok(Some(core));
        }
        let others = |id: &usize| self.cores.iter().all(|&core| usize::from(core) != *id);
        Ok(pin::processors().into_iter().map(|processor| processor.id).find(others))
    }
}

/// Whether this machine has these processors.
fn fits(option: &str, wanted: &[usize]) -> Result<(), Failure> {
    let chosen = pin::choose(Some(wanted), &pin::processors());
    chosen.map(drop).map_err(|fault| Fault { key: option.into(), ..fault }.into())
}

/// A number that may be 0.
fn read_number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=MOST).contains(number));
    number.ok_or_else(|| format!("write a number from 0 to {MOST}"))
}

/// A time in seconds.
fn read_time(text: &str) -> Result<Duration, String> {
    let seconds = read_number(text).ok().filter(|&seconds| seconds > 0.0);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("write seconds, above 0 and up to {MOST}"))
}

fn read_door(text: &str) -> Result<Door, String> {
    match text {
        "redis" => Ok(Door::Bus(Bus::Redis)),
        "nats" => Ok(Door::Bus(Bus::Nats)),
        own => read_own_door(own).map_err(|_| "write native, xmpp, ws, redis or nats".into()),
    }
}

/// A door that a node has.
fn read_own_door(text: &str) -> Result<Door, String> {
    match text {
        "native" => Ok(Door::Native),
        "xmpp" => Ok(Door::Xmpp),
        "ws" => Ok(Door::Ws),
        _ => Err("write native, xmpp or ws".into()),
    }
}
