//! The node that `fanal bench` measures, when it runs already: what must be known of it.

use crate::failure::Failure;
use crate::settings::WhichNode;
use crate::token;
use fanal::admin::client::Client;
use fanal::base::config::{Config, Secret};
use fanal::bench::crowd::Access;
use fanal::bench::fanout::Door;
use fanal::bench::server;
use fanal::front::token::Keys;
use fanal::node::keys::NodeKeys;
use fanal::store::dir::DataDir;
use std::net::SocketAddr;

/// A node that runs already. On this machine its data directory tells the rest: its keys and its process.
#[derive(clap::Args)]
pub struct Target {
    /// Measure the node with this address instead of starting one: that of the door which is measured, natively if nothing else is
    /// said. Users bench-0, bench-1, ... come into being there.
    #[arg(long, value_name = "ADDR")]
    pub target: Option<SocketAddr>,
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

impl Target {
    /// What of the node must be known to measure it: all of it from its configuration and data directory, but for what was said.
    pub fn read(self, door: Door, tls: bool) -> Result<Option<server::Target>, Failure> {
        let Some(target) = self.target else {
            return match self.pid {
                Some(_) => Err(Failure::line("--pid: it is of a node that runs already: say where it listens with --target")),
                None => Ok(None),
            };
        };
        let admin_named = self.node.names_admin();
        let mut config = self.node.load()?;
        if let Some(token) = &self.admin_token {
            config.listen.admin_token = Some(Secret::new(token).ok_or_else(|| too_short("--admin-token"))?);
        }
        let given = Given { token: self.token_key.as_deref(), trunk: self.trunk_key.as_deref() };
        // Others log in with passwords or not at all, to whatever server.
        let by_token = matches!(door, Door::Native | Door::Ws);
        let (token_keys, trunk_keys) = if by_token { given.keys(&config)? } else { Default::default() };
        let keys_given = given.any() || !by_token;
        // Whose keys were in the directory, runs on it.
        let process = self.pid.or_else(|| DataDir::user_of(&config.node.data).filter(|_| !keys_given && target.ip().is_loopback()));
        let listen = config.listen;
        let doors = [Some(listen.native), listen.xmpp, listen.xmpps, listen.ws];
        let admin = (listen.admin, listen.admin_token);
        let answers = || doors.contains(&Some(target)) && Client::new(admin.0, admin.1.clone()).get("/healthz").is_ok();
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

fn too_short(name: &str) -> Failure {
    Failure::line(format!("{name}: a key has at least {} characters", Secret::LEAST_BYTES))
}
