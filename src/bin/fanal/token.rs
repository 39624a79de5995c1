//! `fanal token`: a log-in token, signed with the node's own key.

use crate::failure::Failure;
use crate::settings::WhichNode;
use crate::user;
use fanal::base::config::{Config, Secret};
use fanal::base::time::WallClock;
use fanal::front::token::{Keys, Scope};
use fanal::node::keys::NodeKeys;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal token alice@localhost
  fanal token alice --seconds 86400 --data /var/lib/fanal
  fanal token --trunk lobby-server")]
#[group(id = "whom", required = true, args = ["jid", "trunk"])]
pub struct Args {
    /// The user to let in: local@domain, or the local part alone for the node's own domain.
    jid: Option<String>,
    /// Make a token that authorises a trunk instead. The name shows up in metrics and logs.
    #[arg(long, value_name = "NAME")]
    trunk: Option<String>,
    /// How long it is good for.
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
    seconds: u64,
    #[command(flatten)]
    node: WhichNode,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let config = args.node.load()?;
    let token = match &args.trunk {
        Some(name) => for_trunk(&config, name, args.seconds)?,
        None => {
            let jid = user::read_jid(&args.jid.unwrap_or_default(), &config)?;
            signed(keys(&config, &config.login.token_keys, |made| made.token)?, Scope::User(&jid), args.seconds)?
        }
    };
    writeln!(std::io::stdout(), "{token}").map_err(Failure::line)
}

/// A token that authorises a trunk.
pub fn for_trunk(config: &Config, name: &str, seconds: u64) -> Result<String, Failure> {
    signed(keys(config, &config.login.trunk_keys, |made| made.trunk)?, Scope::Trunk(name), seconds)
}

fn signed(keys: Keys, scope: Scope<'_>, seconds: u64) -> Result<String, Failure> {
    let expiry = WallClock(user::now().0 + seconds * 1000);
    keys.sign(scope, expiry).ok_or_else(|| Failure::line("login: there is no key to sign with: configure one"))
}

/// The configured keys, or those that the node made and keeps in its data directory.
pub fn keys(config: &Config, configured: &[Secret], made: impl Fn(NodeKeys) -> Keys) -> Result<Keys, Failure> {
    if configured.is_empty() {
        let keys = NodeKeys::read(&config.login, &config.node.data).map_err(|error| {
            Failure::line(format!("{error}. A node makes its keys when it first starts: run `fanal serve`, or configure keys"))
        })?;
        return Ok(made(keys));
    }
    Keys::new(configured.iter().map(Secret::reveal)).map_err(Failure::line)
}
