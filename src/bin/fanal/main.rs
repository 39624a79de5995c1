//! The command line: reads arguments, calls the library, prints. One file per subcommand.
//!
//! Errors go to stderr as one line with the fix, and where a file is to blame, the place in it; the exit status is then 1.

mod bench;
mod cluster;
mod config;
mod demo;
mod directory;
mod failure;
mod link;
mod serve;
mod settings;
mod sim;
mod stats;
mod store;
mod token;
mod user;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// Fan-out makes and frees small blocks all day, on every core at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An io_uring presence gateway: tells millions of users, at once and cheaply, who is there.
#[derive(Parser)]
#[command(name = "fanal", version, max_term_width = 100, arg_required_else_help = true, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node in the foreground until it is told to stop.
    Serve(serve::Args),
    /// Measure a node: one started for it, or one that runs.
    Bench(bench::Args),
    /// Manage the users of a node, running or stopped.
    User(user::Args),
    /// Move what a stopped node keeps between a data directory and a database, or check it.
    Store(store::Args),
    /// Show how a running node finds the others of its cluster.
    Cluster(cluster::Args),
    /// Show which cluster a user is of, and which clusters there are; have one forgotten.
    Directory(directory::Args),
    /// Make certificates by which the nodes of a cluster prove to each other who they are.
    Link(link::Args),
    /// Show what a running node is doing.
    Stats(stats::Args),
    /// Make a log-in token for a user or a trunk, as a log-in service would.
    Token(token::Args),
    /// Make traffic on a running node: users who change their presence now and then, and contacts who hear of it.
    Demo(demo::Args),
    /// Run the simulator: real cores under virtual time, with faults and crashes drawn from a seed.
    Sim(sim::Args),
    /// Print a configuration file with every key, its meaning and its default.
    Config(config::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Bench(args) => bench::run(args),
        Command::User(args) => user::run(args),
        Command::Store(args) => store::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Directory(args) => directory::run(args),
        Command::Link(args) => link::run(args),
        Command::Stats(args) => stats::run(args),
        Command::Token(args) => token::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Config(args) => config::run(args),
    };
    result.map_or_else(|failure: Failure| failure.report(), |()| ExitCode::SUCCESS)
}
