//! `fanal user`: the accounts of a node, in the data directory or database of a stopped one, through the admin address of a running
//! one.

use crate::failure::Failure;
use crate::settings::WhichNode;
use fanal::admin::UserEntry;
use fanal::admin::client::{Client, ClientError};
use fanal::base::config::{Config, StoreKind};
use fanal::base::credentials::{ITERATIONS, SALT_BYTES, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::base::limits::PASSWORD_BYTES;
use fanal::base::time::WallClock;
use fanal::node::database;
use fanal::store::dir::{DataDir, OpenError};
use fanal::store::offline::{Offline, OfflineError};
use fanal::store::postgres::{PostgresStore, TOOL};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::SystemTime;

/// Users asked for at a time.
const PAGE: usize = 1_000;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal user add alice@localhost
  fanal user add alice --no-password --data /var/lib/fanal
  fanal user list --admin 127.0.0.1:7401
  fanal user del alice@localhost")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Each goes to the node at --admin when that is given; else to the data directory or database, or to the node that runs on it.
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
        /// Change the password of a user who is there already; for this the node must be stopped.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        node: WhichNode,
    },
    /// Delete a user with everything kept for it.
    Del {
        /// The user: local@domain, or the local part alone for the node's own domain.
        jid: String,
        #[command(flatten)]
        node: WhichNode,
    },
    /// List all users: JID, number, and how they log in (stopped node), or node, sessions and contacts (running node, whichever
    /// of its cluster is asked).
    List {
        /// Of a running cluster, the users of this node alone.
        #[arg(long, value_name = "NODE")]
        of: Option<u16>,
        #[command(flatten)]
        node: WhichNode,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Add { jid, password, no_password, replace, node } => {
            let target = Target::of(node)?;
            let jid = target.read_jid(&jid)?;
            let password = if no_password { None } else { Some(password.map_or_else(ask, Ok)?) };
            password.as_deref().map_or(Ok(()), check)?;
            say(&target.open(Offline::open_or_create)?.add(&jid, password.as_deref(), replace)?)
        }
        Command::Del { jid, node } => {
            let target = Target::of(node)?;
            let jid = target.read_jid(&jid)?;
            say(&target.open(Offline::open)?.remove(&jid)?)
        }
        Command::List { of, node } => Target::of(node)?.open(Offline::open)?.list(of),
    }
}

/// Where the accounts must be looked for.
struct Target {
    config: Config,
    /// At the admin address, and nowhere else.
    node_only: bool,
}

impl Target {
    fn of(node: WhichNode) -> Result<Target, Failure> {
        let named = node.names_admin();
        let config = node.load()?;
        Ok(Target { node_only: named || config.store.kind == StoreKind::Memory, config })
    }

    /// A running node knows its own domain and refuses others'; for a data directory the configuration must.
    fn read_jid(&self, text: &str) -> Result<Bare, Failure> {
        if self.node_only { any_jid(text, &self.config) } else { read_jid(text, &self.config) }
    }

    /// Takes the database, or the data directory with `open`; when a node runs on it, that node.
    fn open(&self, open: impl Fn(&Path) -> Result<Offline, OfflineError>) -> Result<Accounts, Failure> {
        let listen = &self.config.listen;
        let client = || Client::new(listen.admin, listen.admin_token.clone());
        let data = &self.config.node.data;
        if self.node_only {
            return Ok(Accounts::Running(client()));
        }
        if let Some(settings) = database(&self.config, TOOL, seed()?).map_err(Failure::line)? {
            return match DataDir::user_of(data) {
                Some(_) => Ok(Accounts::Running(client())),
                None => {
                    let store = PostgresStore::open_as_tool(settings).map_err(Failure::line)?;
                    Ok(self.stopped(Offline::on(Box::new(store))))
                }
            };
        }
        match open(data) {
            Err(OfflineError::Open(busy @ OpenError::Busy { .. })) => match client().get("/healthz") {
                Err(ClientError::Unreachable(address, _)) => Err(Failure::line(format!(
                    "{busy}. Its admin address is not {address}: give it with --admin or the node's --config"
                ))),
                _ => Ok(Accounts::Running(client())),
            },
            opened => opened.map(|accounts| self.stopped(accounts)).map_err(Failure::line),
        }
    }

    fn stopped(&self, accounts: Offline) -> Accounts {
        let Config { cluster, directory, .. } = &self.config;
        let accounts = accounts.with_directory(directory.cluster.is_some());
        Accounts::Stopped { accounts, cluster: cluster.number.unwrap_or_default() }
    }
}

/// The accounts, where they are.
enum Accounts {
    /// `cluster`: 0 of a node that is in none.
    Stopped {
        accounts: Offline,
        cluster: u16,
    },
    Running(Client),
}

impl Accounts {
    fn add(&mut self, jid: &Bare, password: Option<&str>, replace: bool) -> Result<String, Failure> {
        match self {
            Accounts::Running(_) if replace => Err(Failure::line(format!(
                "{jid}: a running node doesn't replace passwords: stop it first, or delete and add the user"
            ))),
            Accounts::Running(node) => {
                node.add_user(jid.as_str(), password).map_err(Failure::line)?;
                Ok(format!("added {jid} to the running node\n"))
            }
            Accounts::Stopped { accounts, cluster } => {
                let scram = password.map(credentials).transpose()?;
                if replace && accounts.account(jid).map_err(Failure::line)?.is_some() {
                    accounts.set_credentials(jid, scram).map_err(Failure::line)?;
                    return Ok(format!("{jid} has another password\n"));
                }
                let user = accounts.add(jid, *cluster, scram, now()).map_err(Failure::line)?;
                Ok(format!("added {jid}, number {:#x}\n", user.0))
            }
        }
    }

    fn remove(&mut self, jid: &Bare) -> Result<String, Failure> {
        match self {
            Accounts::Stopped { accounts, .. } => {
                accounts.remove(jid).map_err(Failure::line)?;
                Ok(format!("deleted {jid}\n"))
            }
            Accounts::Running(node) => {
                node.remove_user(jid.as_str()).map_err(Failure::line)?;
                Ok(format!("deleted {jid} on the running node\n"))
            }
        }
    }

    fn list(&self, of: Option<u16>) -> Result<(), Failure> {
        match self {
            Accounts::Stopped { .. } if of.is_some() => {
                Err(Failure::line("--of: the node is stopped, and knows of no others: leave it out"))
            }
            Accounts::Stopped { accounts, .. } => {
                let line = |(jid, account): (Bare, fanal::store::rows::Account)| {
                    let way = if account.scram.is_some() { "password" } else { "token" };
                    format!("{jid}\t{:#x}\t{way}\n", account.user.0)
                };
                say(&accounts.accounts().map_err(Failure::line)?.into_iter().map(line).collect::<String>())
            }
            Accounts::Running(node) => {
                let (mut after, mut missing) = (None, BTreeSet::new());
                loop {
                    let page = node.users(after.as_deref(), PAGE, of).map_err(Failure::line)?;
                    say(&page.users.iter().map(line).collect::<String>())?;
                    missing.extend(page.missing.iter().map(u16::to_string));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                match missing.is_empty() {
                    true => Ok(()),
                    false => Err(Failure::line(format!(
                        "the list is not whole: node {} of the cluster can't be reached: see fanal cluster status",
                        missing.into_iter().collect::<Vec<_>>().join(", ")
                    ))),
                }
            }
        }
    }
}

/// A user of a running cluster, or (node 0) of a node that is alone.
fn line(user: &UserEntry) -> String {
    let node = if user.node == 0 { String::new() } else { format!("node {}\t", user.node) };
    format!("{}\t{}\t{node}{} sessions\t{} contacts\n", user.jid, user.id, user.sessions, user.contacts)
}

/// A user of this node: the domain must be the configured one.
pub fn read_jid(text: &str, config: &Config) -> Result<Bare, Failure> {
    let (jid, domain) = (any_jid(text, config)?, &config.node.domain);
    match jid.domain() == domain {
        true => Ok(jid),
        false => Err(Failure::line(format!("{jid}: this node's users are @{domain}: give --domain, or the node's --config"))),
    }
}

/// A user by the whole JID, or by the local part alone for the configured domain.
pub fn any_jid(text: &str, config: &Config) -> Result<Bare, Failure> {
    let domain = &config.node.domain;
    let full = if text.contains('@') { text.to_owned() } else { format!("{text}@{domain}") };
    Bare::new(&full).ok_or_else(|| Failure::line(format!("{text}: not a user: write local@{domain}")))
}

/// Holds a password to the bounds of those that users set themselves.
fn check(password: &str) -> Result<(), Failure> {
    match password.len() {
        0 => Err(Failure::line("the password is empty: give --password, a line on standard input, or --no-password")),
        bytes if bytes > PASSWORD_BYTES => {
            Err(Failure::line(format!("the password is {bytes} bytes long: give one of at most {PASSWORD_BYTES}")))
        }
        _ => Ok(()),
    }
}

fn ask() -> Result<String, Failure> {
    let _unseen = std::io::stdin().is_terminal().then(Unseen::begin).transpose().map_err(Failure::line)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a password; the terminal shows nothing of what is typed until this is dropped.
struct Unseen(Termios);

impl Unseen {
    fn begin() -> nix::Result<Unseen> {
        let before = tcgetattr(std::io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &unseen)?;
        eprint!("password: ");
        Ok(Unseen(before))
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        eprintln!();
        if let Err(error) = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0) {
            eprintln!("warning: the terminal does not show what is typed ({error}): run `stty echo`");
        }
    }
}

fn credentials(password: &str) -> Result<ScramCredentials, Failure> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(Failure::line)?;
    Ok(ScramCredentials::from_password(password, &salt, ITERATIONS))
}

/// For what is left to chance and no secret.
pub fn seed() -> Result<u64, Failure> {
    getrandom::u64().map_err(Failure::line)
}

pub fn now() -> WallClock {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    WallClock(since.map_or(0, |since| since.as_millis() as u64))
}

fn say(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::line)
}
