//! `fanal bench`: measures a node it starts itself, or one that runs already.

use crate::failure::Failure;
use crate::settings::WhichNode;
use crate::token;
use fanal::admin::client::Client;
use fanal::base::config::{Config, Secret};
use fanal::bench::crowd::Access;
use fanal::bench::fanout::Door;
use fanal::bench::progress::Progress;
use fanal::bench::pub_sub::Bus;
use fanal::bench::report::{Report, Value};
use fanal::bench::round::Schedule;
use fanal::bench::server::Bench;
use fanal::bench::{fanout, idle, memory, server, sockets, storm};
use fanal::drive::pin;
use fanal::front::token::Keys;
use fanal::node::keys::NodeKeys;
use fanal::store::dir::DataDir;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal bench fanout --users 1000 --subscribers 50
  fanal bench fanout --trunk 8 --users 200000 --rate 200000 --seconds 10 --json
  fanal bench fanout --target 127.0.0.1:7400 --data fanal-data
  fanal bench storm --users 10000
  fanal bench memory --users 1000000 --subscribers 2")]
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
    /// Everybody logs in at once: what a log-in costs until all have seen all their contacts.
    Storm(Storm),
    /// Everybody is there and says nothing: what a session holds of memory.
    Idle(Idle),
    /// The same frames and sockets without presence: the physical limit of a fan-out.
    Floor(Floor),
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

/// A node that runs already. On this machine its data directory tells the rest: its keys and its process.
#[derive(clap::Args)]
struct Target {
    /// Measure the node at this native address instead of starting one. Users bench-0, bench-1, ... come into being there.
    #[arg(long, value_name = "ADDR")]
    target: Option<SocketAddr>,
    #[command(flatten)]
    node: WhichNode,
    /// The target's first key of log-in tokens, when its configuration and data directory aren't here.
    #[arg(long, value_name = "KEY", env = "FANAL_TOKEN_KEY", hide_env_values = true)]
    token_key: Option<String>,
    /// The same of trunk tokens, for --trunk and for storms, which make their users by trunk.
    #[arg(long, value_name = "KEY", env = "FANAL_TRUNK_KEY", hide_env_values = true)]
    trunk_key: Option<String>,
    /// What the target's configuration has as admin_token.
    #[arg(long, value_name = "TOKEN", env = "FANAL_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// The target's process, when it can't be seen from the data directory: its processor time and memory are then measured too.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// When updates go out, and for how long.
#[derive(clap::Args)]
struct Pacing {
    /// Updates a second, sent on time whatever the node does. 0: as many as the window allows.
    #[arg(long, value_name = "UPDATES_PER_S", default_value_t = 0.0)]
    rate: f64,
    /// After the window's rounds, hold this share of what they made and measure latency. 0: don't.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    load: f64,
    /// Updates of one user on their way at once.
    #[arg(long, value_name = "W", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: u32,
    /// Length of each measured time.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
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
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
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
    #[arg(long, value_name = "LOG_INS_PER_S", default_value_t = 0.0)]
    rate: f64,
    /// Open all connections before the storm, so that the generator doesn't slow the log-ins down. Their cost is reported apart.
    #[arg(long)]
    connected: bool,
    /// Storms, at least.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long they go on one after the other, at least.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
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
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// What the users speak: native, xmpp or ws.
    #[arg(long, value_name = "DOOR", value_parser = read_door, default_value = "native")]
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

pub fn run(args: Args) -> Result<(), Failure> {
    let (json, report) = match args.kind {
        Kind::Fanout(args) => (args.common.json, fan_out(args)),
        Kind::Memory(args) => (args.common.json, in_memory(args)),
        Kind::Storm(args) => (args.common.json, storm(args)),
        Kind::Idle(args) => (args.common.json, idle(args)),
        Kind::Floor(args) => (args.common.json, floor(args)),
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
    if args.target.target.is_none() && matches!(args.door, Door::Bus(_)) {
        return Err(Failure::line("--door: name the server that speaks so with --target"));
    }
    let plan = fanout::Plan {
        users: args.users,
        subscribers: args.subscribers,
        schedule: args.pacing.schedule()?,
        trunks: args.trunk,
        bench: args.common.bench(args.target, args.door, args.tls)?,
        floor: !args.no_floor,
        door: args.door,
    };
    fanout::run(&plan, &args.common.progress()).map_err(Failure::line)
}

fn in_memory(args: Memory) -> Result<Report, Failure> {
    check_pairs(args.users, args.subscribers)?;
    let plan = memory::Plan {
        users: args.users,
        subscribers: args.subscribers,
        time: seconds(args.seconds)?,
        rounds: args.rounds,
        batch: args.batch as usize,
        cores: args.common.cores.clone(),
        sample: args.sample,
    };
    Ok(memory::run(&plan, &args.common.progress()))
}

fn storm(args: Storm) -> Result<Report, Failure> {
    check_pairs(args.users, args.subscribers)?;
    let plan = storm::Plan {
        users: args.users,
        contacts: args.subscribers,
        rate: args.rate,
        connected: args.connected,
        rounds: args.rounds,
        time: seconds(args.seconds)?,
        trunks: args.trunk,
        bench: args.common.bench(args.target, Door::Native, false)?,
    };
    storm::run(&plan, &args.common.progress()).map_err(Failure::line)
}

fn idle(args: Idle) -> Result<Report, Failure> {
    let plan = idle::Plan {
        users: args.users,
        time: seconds(args.seconds)?,
        bench: args.common.bench(args.target, args.door, args.tls)?,
        door: args.door,
    };
    idle::run(&plan, &args.common.progress()).map_err(Failure::line)
}

fn floor(args: Floor) -> Result<Report, Failure> {
    check_density(args.users, args.subscribers)?;
    let plan = sockets::Plan {
        users: args.users,
        subscribers: args.subscribers,
        frame_bytes: args.frame as usize,
        schedule: args.pacing.schedule()?,
        server_processor: args.common.cores.first().map(|&core| usize::from(core)),
        load_processor: args.common.load_processor(),
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
    fn schedule(&self) -> Result<Schedule, Failure> {
        let Pacing { rate, load, window, rounds, .. } = *self;
        Ok(Schedule { rate, load, window, time: seconds(self.seconds)?, rounds })
    }
}

fn seconds(seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds).map_err(|error| Failure::line(format!("--seconds {seconds}: {error}")))
}

impl Common {
    fn progress(&self) -> Progress {
        Progress::shown(io::stderr().is_terminal())
    }

    fn bench(&self, target: Target, door: Door, tls: bool) -> Result<Bench, Failure> {
        Ok(Bench {
            target: target.read(door, tls)?,
            server_cores: self.cores.clone(),
            speaks: door.speaks(tls),
            tls,
            load_processor: self.load_processor(),
        })
    }

    fn load_processor(&self) -> Option<usize> {
        let free =
            || pin::processors().into_iter().map(|p| p.id).find(|&id| self.cores.iter().all(|&core| usize::from(core) != id));
        self.load_core.or_else(free)
    }
}

impl Target {
    /// What of the node must be known to measure it: all of it from its configuration and data directory, but for what was said.
    fn read(self, door: Door, tls: bool) -> Result<Option<server::Target>, Failure> {
        let Some(target) = self.target else { return Ok(None) };
        let admin_named = self.node.names_admin();
        let mut config = self.node.load()?;
        if let Some(token) = &self.admin_token {
            config.listen.admin_token = Some(Secret::new(token).ok_or_else(|| too_short("--admin-token"))?);
        }
        let given = Given { token: self.token_key.as_deref(), trunk: self.trunk_key.as_deref() };
        // XMPP users log in with passwords, to whatever server.
        let native = door == Door::Native;
        let (token_keys, trunk_keys) = if native { given.keys(&config)? } else { Default::default() };
        let keys_given = given.any() || !native;
        // Whose keys were in the directory, runs on it.
        let process = self.pid.or_else(|| DataDir::user_of(&config.node.data).filter(|_| !keys_given && target.ip().is_loopback()));
        let admin = (config.listen.admin, config.listen.admin_token);
        let answers = || target == config.listen.native && Client::new(admin.0, admin.1.clone()).get("/healthz").is_ok();
        let admin = if admin_named || answers() { Some(admin) } else { None };
        let access = Access { target, tls, domain: config.node.domain, token_keys, trunk_keys };
        Ok(Some(server::Target { access, admin, process }))
    }
}

/// The keys that were given.
struct Given<'a> {
    token: Option<&'a str>,
    trunk: Option<&'a str>,
}

impl Given<'_> {
    fn any(&self) -> bool {
        self.token.is_some() || self.trunk.is_some()
    }

    /// Those of tokens and of trunks; which weren't given are the node's own. When one was given and the other can't be had, it may
    /// not be needed.
    fn keys(&self, config: &Config) -> Result<(Keys, Keys), Failure> {
        let keys = |name: &str, given: Option<&str>, configured: &[Secret], made: fn(NodeKeys) -> Keys| match given {
            Some(key) if Secret::new(key).is_none() => Err(too_short(name)),
            Some(key) => Keys::new([key]).map_err(Failure::line),
            None => match token::keys(config, configured, made) {
                Err(_) if self.any() => Ok(Keys::default()),
                Err(Failure::Line(line)) => {
                    Err(Failure::line(format!("{line}; of a node that runs, name --data or --config, or give {name}")))
                }
                keys => keys,
            },
        };
        let token = keys("--token-key", self.token, &config.login.token_keys, |made| made.token)?;
        Ok((token, keys("--trunk-key", self.trunk, &config.login.trunk_keys, |made| made.trunk)?))
    }
}

fn read_door(text: &str) -> Result<Door, String> {
    match text {
        "native" => Ok(Door::Native),
        "xmpp" => Ok(Door::Xmpp),
        "ws" => Ok(Door::Ws),
        "redis" => Ok(Door::Bus(Bus::Redis)),
        "nats" => Ok(Door::Bus(Bus::Nats)),
        _ => Err("write native, xmpp, ws, redis or nats".into()),
    }
}

fn too_short(name: &str) -> Failure {
    Failure::line(format!("{name}: a key has at least {} characters", Secret::LEAST_BYTES))
}
