//! `fanal token`: a log-in token, signed with the node's own key.

use crate::failure::Failure;
use crate::settings::Settings;
use crate::{keys, user};
use fanal::base::time::WallClock;
use fanal::front::token::{Keys, Scope};
use std::io::Write;

#[derive(clap::Args)]
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
    settings: Settings,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let mut config = args.settings.load()?;
    let jid = args.jid.map(|jid| user::read_jid(&jid, &config)).transpose()?;
    for line in keys::fill_in(&mut config)? {
        eprintln!("{line}");
    }
    let (scope, secrets) = match (&jid, &args.trunk) {
        (Some(jid), _) => (Scope::User(jid), &config.login.token_keys),
        (None, name) => (Scope::Trunk(name.as_deref().unwrap_or_default()), &config.login.trunk_keys),
    };
    let keys = Keys::new(secrets.iter().map(|secret| secret.reveal())).map_err(Failure::line)?;
    let expiry = WallClock(user::now().0 + args.seconds * 1000);
    let token = keys.sign(scope, expiry).ok_or_else(|| Failure::line("login: there is no key to sign with: configure one"))?;
    writeln!(std::io::stdout(), "{token}").map_err(Failure::line)
}
