//! `fanal user`: accounts of a stopped node, in its data directory.

use crate::failure::Failure;
use crate::settings::Settings;
use fanal::base::config::{Config, StoreKind};
use fanal::base::credentials::{ITERATIONS, SALT_BYTES, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::base::time::WallClock;
use fanal::store::offline::Offline;
use std::io::Write;
use std::time::SystemTime;

/// The cluster of a node that is in none.
const CLUSTER: u16 = 0;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Add a user, or with --replace give one another password.
    Add {
        /// The user: local@domain, or the local part alone for the node's own domain.
        jid: String,
        /// The password. Others on this machine may see it in the list of processes: leave it out to be asked on standard input.
        #[arg(long, value_name = "P", env = "FANAL_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        /// Add a user who logs in by token or trunk only.
        #[arg(long, conflicts_with = "password")]
        no_password: bool,
        /// Change the password of a user who is there already.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Delete a user with everything kept for it.
    Del {
        /// The user: local@domain, or the local part alone for the node's own domain.
        jid: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// List all users: one line each with JID, number and how they log in.
    List {
        #[command(flatten)]
        settings: Settings,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Add { jid, password, no_password, replace, settings } => {
            let config = settings.load()?;
            let jid = read_jid(&jid, &config)?;
            let scram = if no_password { None } else { Some(credentials(&password.map_or_else(ask, Ok)?)?) };
            let mut accounts = open(&config, true)?;
            if replace && accounts.account(&jid).map_err(Failure::line)?.is_some() {
                accounts.set_credentials(&jid, scram).map_err(Failure::line)?;
                return say(&format!("{jid} has another password\n"));
            }
            let user = accounts.add(&jid, CLUSTER, scram, now()).map_err(Failure::line)?;
            say(&format!("added {jid}, number {:#x}\n", user.0))
        }
        Command::Del { jid, settings } => {
            let config = settings.load()?;
            let jid = read_jid(&jid, &config)?;
            open(&config, false)?.remove(&jid).map_err(Failure::line)?;
            say(&format!("deleted {jid}\n"))
        }
        Command::List { settings } => {
            let accounts = open(&settings.load()?, false)?.accounts().map_err(Failure::line)?;
            let line = |(jid, account): &(Bare, fanal::store::rows::Account)| {
                let way = if account.scram.is_some() { "password" } else { "token" };
                format!("{jid}\t{:#x}\t{way}\n", account.user.0)
            };
            say(&accounts.iter().map(line).collect::<String>())
        }
    }
}

fn open(config: &Config, create: bool) -> Result<Offline, Failure> {
    if config.store.kind == StoreKind::Memory {
        return Err(Failure::line("store.kind: this node keeps nothing (memory): write store.kind = \"redb\" to have users"));
    }
    let open = if create { Offline::open_or_create } else { Offline::open };
    open(&config.node.data).map_err(Failure::line)
}

pub fn read_jid(text: &str, config: &Config) -> Result<Bare, Failure> {
    let domain = &config.node.domain;
    let full = if text.contains('@') { text.to_owned() } else { format!("{text}@{domain}") };
    let jid = Bare::new(&full).ok_or_else(|| Failure::line(format!("{text}: not a user: write local@{domain}")))?;
    match jid.domain() == domain {
        true => Ok(jid),
        false => Err(Failure::line(format!("{jid}: this node's users are @{domain}: give --domain, or the node's --config"))),
    }
}

fn ask() -> Result<String, Failure> {
    eprint!("password: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn credentials(password: &str) -> Result<ScramCredentials, Failure> {
    if password.is_empty() {
        return Err(Failure::line("the password is empty: give --password, a line on standard input, or --no-password"));
    }
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(Failure::line)?;
    Ok(ScramCredentials::from_password(password, &salt, ITERATIONS))
}

pub fn now() -> WallClock {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    WallClock(since.map_or(0, |since| since.as_millis() as u64))
}

fn say(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::line)
}
