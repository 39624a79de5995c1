//! `fanal bench`: measures a node it starts itself, or one that runs already.

use crate::failure::Failure;
use fanal::base::config::{Config, Secret};
use fanal::bench::crowd::Access;
use fanal::bench::progress::Progress;
use fanal::bench::report::{Report, Value};
use fanal::bench::server;
use fanal::bench::{fanout, memory};
use fanal::drive::pin;
use fanal::front::token::Keys;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(clap::Args)]
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

/// A node that runs already.
#[derive(clap::Args)]
struct Target {
    /// Measure the node at this native address instead of starting one. Users bench-0, bench-1, ... come into being there.
    #[arg(long, value_name = "ADDR")]
    target: Option<SocketAddr>,
    /// The part behind the @ of its users.
    #[arg(long, value_name = "DOMAIN", default_value = "localhost")]
    domain: String,
    /// Its first key of log-in tokens.
    #[arg(long, value_name = "KEY", env = "FANAL_TOKEN_KEY", hide_env_values = true, default_value = "")]
    token_key: String,
    /// Its first key of trunk tokens.
    #[arg(long, value_name = "KEY", env = "FANAL_TRUNK_KEY", hide_env_values = true, default_value = "")]
    trunk_key: String,
    /// Its admin address, for its counters.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// What its configuration has as admin_token.
    #[arg(long, value_name = "TOKEN", env = "FANAL_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Its process, if it is on this machine: its processor time and memory are then measured too.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

#[derive(clap::Args)]
struct Fanout {
    /// Users logged in.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    users: u32,
    /// Subscribers of each of them.
    #[arg(long, value_name = "F", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
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
    /// Times that node and floor take turns.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Carry all users on this many trunk connections. 0: each user has a connection.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 0)]
    trunk: u32,
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
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Time one of so many updates, as metrics.sample of a node's configuration; 0: none.
    #[arg(long, value_name = "N", default_value_t = Config::default().metrics.sample)]
    sample: u32,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let (json, report) = match args.kind {
        Kind::Fanout(args) => (args.common.json, fan_out(args)),
        Kind::Memory(args) => (args.common.json, in_memory(args)),
    };
    let report = report.map_err(Failure::line)?;
    let text = if json { report.json() + "\n" } else { report.table() };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::line)?;
    match report.get("lost") {
        Some(Value::Count(lost)) if *lost > 0 => Err(Failure::line(format!("{lost} deliveries were lost: see the figures above"))),
        _ => Ok(()),
    }
}

fn fan_out(args: Fanout) -> io::Result<Report> {
    if args.subscribers >= args.users {
        return Err(io::Error::other("--subscribers: must be fewer than --users"));
    }
    let plan = fanout::Plan {
        users: args.users,
        subscribers: args.subscribers,
        rate: args.rate,
        load: args.load,
        window: args.window,
        time: seconds(args.seconds)?,
        rounds: args.rounds,
        trunks: args.trunk,
        load_processor: args.common.load_processor(),
        target: args.target.read()?,
        floor: !args.no_floor,
        server_cores: args.common.cores.clone(),
    };
    fanout::run(&plan, &args.common.progress())
}

fn in_memory(args: Memory) -> io::Result<Report> {
    let odd = !args.subscribers.is_multiple_of(2) && !args.users.is_multiple_of(2);
    if args.subscribers >= args.users || odd {
        return Err(io::Error::other("--subscribers: must be fewer than --users, and one of both even"));
    }
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

fn seconds(seconds: f64) -> io::Result<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| io::Error::other(format!("--seconds {seconds}: {error}")))
}

impl Common {
    fn progress(&self) -> Progress {
        Progress::shown(io::stderr().is_terminal())
    }

    fn load_processor(&self) -> Option<usize> {
        let free =
            || pin::processors().into_iter().map(|p| p.id).find(|&id| self.cores.iter().all(|&core| usize::from(core) != id));
        self.load_core.or_else(free)
    }
}

impl Target {
    fn read(&self) -> io::Result<Option<server::Target>> {
        let Some(target) = self.target else { return Ok(None) };
        let keys = |key: &str, name: &str| match key {
            "" => Ok(Keys::default()),
            key if Secret::new(key).is_none() => Err(too_short(name)),
            key => Keys::new([key]).map_err(io::Error::other),
        };
        let (token_keys, trunk_keys) = (keys(&self.token_key, "--token-key")?, keys(&self.trunk_key, "--trunk-key")?);
        let access = Access { target, domain: self.domain.clone(), token_keys, trunk_keys };
        let admin_token = self.admin_token.as_deref().map(|token| Secret::new(token).ok_or_else(|| too_short("--admin-token")));
        let admin_token = admin_token.transpose()?;
        Ok(Some(server::Target { access, admin: self.admin.map(|admin| (admin, admin_token)), process: self.pid }))
    }
}

fn too_short(name: &str) -> io::Error {
    io::Error::other(format!("{name}: a key has at least {} characters", Secret::LEAST_BYTES))
}
