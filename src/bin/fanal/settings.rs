//! From the command line and the file to a sound configuration.

use crate::failure::Failure;
use fanal::base::config::{Config, Cores, Fault};
use fanal::node::processors;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a node's configuration comes from. What stands on the command line overrides the file.
#[derive(clap::Args)]
pub struct Settings {
    /// Processors to use, one pinned thread on each: "all", or numbers like 0,1 [default: all].
    #[arg(long, value_name = "LIST", value_parser = read_cores)]
    cores: Option<Cores>,
    /// Address and port of the native protocol, with and without TLS [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDR", value_parser = read_address)]
    native: Option<SocketAddr>,
    /// Address and port for XMPP clients, who are to ask for TLS (STARTTLS). Without it that door is closed.
    #[arg(long, value_name = "ADDR", value_parser = read_address)]
    xmpp: Option<SocketAddr>,
    /// Address and port for XMPP clients that begin with TLS.
    #[arg(long, value_name = "ADDR", value_parser = read_address)]
    xmpps: Option<SocketAddr>,
    /// Address and port for WebSocket clients and browsers, with and without TLS.
    #[arg(long, value_name = "ADDR", value_parser = read_address)]
    ws: Option<SocketAddr>,
    /// Let clients log in without TLS from anywhere, also with passwords as they are (SASL PLAIN).
    #[arg(long)]
    allow_plaintext: bool,
    /// Let people make their own accounts (XEP-0077).
    #[arg(long)]
    open_registration: bool,
    /// A service of your own that decides who may log in: it gets a JSON POST for each log-in, and answers 200 or 403.
    #[arg(long, value_name = "URL")]
    login_http: Option<String>,
    #[command(flatten)]
    which: WhichNode,
}

/// What a command has to know of a node to find it, running or stopped.
#[derive(clap::Args)]
pub struct WhichNode {
    /// The node's configuration file; `fanal config` prints one to start from. Without it everything has its default.
    #[arg(long, value_name = "FILE", env = "FANAL_CONFIG")]
    config: Option<PathBuf>,
    /// Address and port of metrics, health and administration [default: 127.0.0.1:7401].
    #[arg(long, value_name = "ADDR", value_parser = read_address)]
    admin: Option<SocketAddr>,
    /// The node's directory for everything that is kept [default: fanal-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The part behind the @ of every user [default: localhost].
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
}

impl Settings {
    /// Reads the file, lays the command line over it and checks the whole.
    pub fn load(self) -> Result<Config, Failure> {
        let overridden = self.cores.is_some();
        let lay_over = |config: &mut Config| {
            if let Some(cores) = self.cores {
                config.node.cores = cores;
            }
            let listen = &mut config.listen;
            listen.native = self.native.unwrap_or(listen.native);
            listen.xmpp = self.xmpp.or(listen.xmpp);
            listen.xmpps = self.xmpps.or(listen.xmpps);
            listen.ws = self.ws.or(listen.ws);
            config.login.plain |= self.allow_plaintext;
            config.login.open_registration |= self.open_registration;
            config.login.http = self.login_http.or(config.login.http.take());
        };
        let config = self.which.load_with(lay_over, |config| if overridden { Ok(()) } else { fits(config) })?;
        fits(&config)?;
        Ok(config)
    }
}

impl WhichNode {
    /// Whether the admin address was given on the command line.
    pub fn names_admin(&self) -> bool {
        self.admin.is_some()
    }

    /// Reads the file, lays the command line over it and checks the whole.
    pub fn load(self) -> Result<Config, Failure> {
        self.load_with(|_| (), |_| Ok(()))
    }

    fn load_with(self, lay_over: impl FnOnce(&mut Config), fits: impl Fn(&Config) -> Result<(), Fault>) -> Result<Config, Failure> {
        let mut config = self.config.map_or_else(|| Ok(Config::default()), |file| read(file, fits))?;
        lay_over(&mut config);
        if let Some(admin) = self.admin {
            config.listen.admin = admin;
        }
        if let Some(data) = self.data {
            config.node.data = data;
        }
        if let Some(domain) = self.domain {
            config.node.domain = domain;
        }
        config.check()?;
        Ok(config)
    }
}

/// Whether this machine has the processors that are wanted.
fn fits(config: &Config) -> Result<(), Fault> {
    processors(&config.node.cores).map(drop)
}

fn read(file: PathBuf, fits: impl Fn(&Config) -> Result<(), Fault>) -> Result<Config, Failure> {
    let name = file.display().to_string();
    let cannot = |why: std::io::Error| {
        Failure::line(format!("{name}: can't read the configuration: {why}. Check the path given with --config"))
    };
    let bytes = std::fs::read(&file).map_err(cannot)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Failure::line(format!("{name}:{line}: the file: this line is not UTF-8 text: save the file as UTF-8"))
    })?;
    Config::parse_for(&name, &text, fits).map_err(|error| Failure::Config { error: Box::new(error), text })
}

fn read_cores(text: &str) -> Result<Cores, String> {
    if text == "all" {
        return Ok(Cores::All);
    }
    let number = |part: &str| part.trim().parse().map_err(|_| format!("\"{part}\" is no processor number: write all, or 0,1"));
    text.split(',').map(number).collect::<Result<_, _>>().map(Cores::These)
}

fn read_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, like 127.0.0.1:7400 or [::1]:7400".into())
}
