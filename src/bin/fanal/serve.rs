//! `fanal serve`: a node in the foreground, until it's told to stop.

use crate::failure::Failure;
use crate::settings::Settings;
use fanal::base::config::{Config, Endpoint, StoreKind};
use fanal::node::Node;
use fanal::store::postgres::Target;
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use tracing_subscriber::EnvFilter;

#[derive(clap::Args)]
#[command(after_help = "\
What goes wrong while it runs goes to stderr, as much of it as FANAL_LOG says (error, warn, info, ...).

Examples:
  fanal serve
  fanal serve --cores 0,1 --data /var/lib/fanal --domain example.org
  fanal serve --xmpp 0.0.0.0:5222 --xmpps 0.0.0.0:5223 --ws 0.0.0.0:7480 --domain example.org
  fanal serve --config fanal.toml --native 0.0.0.0:7400")]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let config = args.settings.load()?;
    keep_log();
    let ends = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    let signals = SigSet::from_iter(ends.iter().chain([Signal::SIGHUP]));
    // Before any thread is there, so that every one inherits it and the wait below gets the signal.
    signals.thread_block().map_err(|error| Failure::line(format!("signals can't be held back: {error}")))?;
    let mut node = Node::start(&config).map_err(Failure::line)?;
    let admin = node.start_admin(&config).map_err(Failure::line)?;
    say(&greeting(&config, &node, admin))?;
    tell_systemd(NotifyState::Ready);

    let signal = loop {
        match signals.wait().map_err(|error| Failure::line(format!("can't wait for signals: {error}")))? {
            Signal::SIGHUP => reload(&node)?,
            end => break end,
        }
    };
    // A second signal ends the process at once.
    ends.thread_unblock().map_err(|error| Failure::line(format!("signals can't be let through: {error}")))?;
    tell_systemd(NotifyState::Stopping);
    say(&format!("{signal}: closing every session; again to end at once\n"))?;
    node.stop().map_err(|error| Failure::line(format!("a core had failed: {error}. The log above says where")))?;
    say("stopped\n")
}

/// Lines for stderr from here on.
fn keep_log() {
    let filter = std::env::var("FANAL_LOG").unwrap_or_else(|_| "warn,fanal=info".into());
    let filter = EnvFilter::builder().parse_lossy(filter);
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(ansi).with_target(false).with_env_filter(filter).init();
}

/// A certificate that can't be used is no reason to end: the old one still works.
fn reload(node: &Node) -> Result<(), Failure> {
    match node.reload_certificate() {
        Ok(said) => say(&format!("SIGHUP: TLS goes by {said}\n")),
        Err(error) => {
            eprintln!("warning: {error}. The certificate stays as it was");
            Ok(())
        }
    }
}

fn greeting(config: &Config, node: &Node, admin: SocketAddr) -> String {
    let kept = match config.store.kind {
        StoreKind::Redb => format!("data in {}", config.node.data.display()),
        // The URL has been read before: a node runs.
        StoreKind::Postgres => config
            .store
            .url
            .as_ref()
            .and_then(|url| Target::parse(&url.0).ok())
            .map_or(String::new(), |database| format!("data in {}, keys in {}", database.place, config.node.data.display())),
        StoreKind::Memory => "keeping nothing".into(),
    };
    let cores = if node.cores == 1 { "1 core".into() } else { format!("{} cores", node.cores) };
    let mut text = format!("fanal {}: {cores}, users @{}, {kept}\n", env!("CARGO_PKG_VERSION"), config.node.domain);
    text += &format!("{}\n", node.report);
    if config.login.token_keys.is_empty() || config.login.trunk_keys.is_empty() {
        text += match config.store.kind {
            StoreKind::Redb | StoreKind::Postgres => {
                "not all log-in keys are configured: using random ones, kept in the data directory\n"
            }
            StoreKind::Memory => "not all log-in keys are configured: using random ones, forgotten when the node stops\n",
        };
    }
    if config.store.url.is_some() && config.store.kind != StoreKind::Postgres {
        text += "warning: store.url is not used: for the database write store.kind = \"postgres\"\n";
    }
    text += &format!("TLS goes by {}\n", node.certificate);
    if let Some(service) = config.login.http.as_deref().and_then(|url| Endpoint::parse(url).ok()).filter(Endpoint::is_exposed) {
        let service = service.authority;
        text += &format!("warning: passwords go to {service} as they are, for all on the way to read: make login.http https\n");
    }
    for door in &node.listening {
        text += &format!("{:7} {}\n", door.speaks.name(), door.address);
    }
    text + &format!("admin   http://{admin}\nserving\n")
}

/// Under systemd, tells it; elsewhere there is nobody to tell.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        eprintln!("warning: systemd can't be told: {error}");
    }
}

fn say(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::line)
}
