//! The node that is measured: a child process of its own on its own processor, or one that runs already.
//!
//! Lives on: the generator's thread, between measurements. Serves G6. Invariant: a child never outlives its `Server`.

use super::crowd::Access;
use super::progress::Progress;
use super::round::Meter;
use crate::admin::client::{Client, ClientError};
use crate::base::config::{Config, Cores, Secret, StoreKind};
use crate::drive::pin;
use crate::front::doors::Speaks;
use crate::front::token::Keys;
use crate::metrics::table::Report;
use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

/// Keys of a node that lives as long as a benchmark and listens on loopback.
const TOKEN_KEY: &str = "the log-in key of a benchmark's own node";
const TRUNK_KEY: &str = "the trunk key of a benchmark's own node";
/// The lines with which a node tells where it is managed, and that it serves.
const ADMIN: &str = "admin";
const SERVING: &str = "serving";

/// A node that runs already.
#[derive(Clone)]
pub struct Target {
    pub access: Access,
    /// Where it tells its counters.
    pub admin: Option<(SocketAddr, Option<Secret>)>,
    /// Its process, if it is on this machine.
    pub process: Option<u32>,
}

/// What is measured, and from where.
#[derive(Clone)]
pub struct Bench {
    /// A node that runs already; otherwise one is started.
    pub target: Option<Target>,
    /// Processors of the one that is started.
    pub server_cores: Vec<u16>,
    /// The door at which the one that is started is measured.
    pub speaks: Speaks,
    /// Inside TLS.
    pub tls: bool,
    /// The load generator's.
    pub load_processor: Option<usize>,
}

impl Bench {
    /// The node.
    ///
    /// # Errors
    /// It did not start; it has said why on stderr.
    pub fn server(&self) -> io::Result<Server> {
        match &self.target {
            Some(target) => Ok(Server::at(target.clone())),
            None => Server::start(self.server_cores.clone(), self.speaks, self.tls),
        }
    }

    /// Puts the calling thread on the generator's processor. Not before the node was started: a child may use only the processors
    /// of its parent.
    pub fn pin_load(&self) {
        if let Some(processor) = self.load_processor {
            pin::pin(processor);
        }
    }
}

/// A node that is measured.
pub struct Server {
    pub access: Access,
    admin: Option<Client>,
    process: Option<Process>,
    child: Option<Child>,
}

/// A process and its directory, which end with us, in this order.
struct Child {
    process: Running,
    /// Kept open, so that the node can speak to the end.
    said: Lines<BufReader<ChildStdout>>,
    _dir: Dir,
}

struct Running(std::process::Child);

/// A directory that ends with it.
pub(super) struct Dir(PathBuf);

/// The configuration of a benchmark's node: no limit of a single client is in the way of what is measured.
pub fn config(cores: Vec<u16>, speaks: Speaks) -> Config {
    let mut config = Config::default();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    (config.listen.native, config.listen.admin) = (any_port, any_port);
    match speaks {
        Speaks::Native | Speaks::Link => {}
        Speaks::Xmpp => config.listen.xmpp = Some(any_port),
        Speaks::Xmpps => config.listen.xmpps = Some(any_port),
        Speaks::WebSocket => config.listen.ws = Some(any_port),
    }
    config.login.plain = speaks != Speaks::Native;
    config.node.cores = Cores::These(cores);
    config.store.kind = StoreKind::Memory;
    config.login.token_keys = vec![Secret::new(TOKEN_KEY).expect("it is long enough")];
    config.login.trunk_keys = vec![Secret::new(TRUNK_KEY).expect("it is long enough")];
    let limits = &mut config.limits;
    (limits.high_water_bytes, limits.backlog_bytes) = (256 << 20, 512 << 20);
    (limits.trunk_high_water_bytes, limits.trunk_backlog_bytes) = (512 << 20, 1 << 30);
    (limits.frames_per_second, limits.frames_burst) = (16 << 20, 16 << 20);
    (limits.user_frames_per_second, limits.user_frames_burst) = (16 << 20, 16 << 20);
    (limits.bytes_per_second, limits.bytes_burst) = (1 << 30, 1 << 30);
    (limits.user_bytes_per_second, limits.user_bytes_burst) = (1 << 30, 1 << 30);
    (limits.log_in_ms, limits.ping_ms, limits.stalled_ms) = (3_600_000, 3_600_000, 3_600_000);
    config
}

impl Server {
    /// Starts `fanal serve` from the same executable on these processors, in a directory of its own.
    fn start(cores: Vec<u16>, speaks: Speaks, tls: bool) -> io::Result<Server> {
        Server::of(config(cores, speaks), speaks, tls)
    }

    /// Starts a node with this configuration; its data are in a directory of its own.
    ///
    /// # Errors
    /// It did not start; it has said why on stderr.
    pub fn of(mut config: Config, speaks: Speaks, tls: bool) -> io::Result<Server> {
        let dir = Dir::new()?;
        config.node.data = dir.0.join("data");
        std::fs::write(dir.config(), toml::to_string(&config).map_err(io::Error::other)?)?;
        let mut child = Child::spawn(dir)?;
        let (target, admin) = child.await_serving(speaks)?;
        let keys = |key| Keys::new([key]).expect("it is long enough");
        let (token_keys, trunk_keys) = (keys(TOKEN_KEY), keys(TRUNK_KEY));
        Ok(Server {
            access: Access { target, tls, domain: config.node.domain, token_keys, trunk_keys },
            admin: Some(Client::new(admin, None)),
            process: Some(Process(child.process.0.id())),
            child: Some(child),
        })
    }

    /// A node that runs already.
    fn at(target: Target) -> Server {
        let admin = target.admin.map(|(address, token)| Client::new(address, token));
        Server { access: target.access, admin, process: target.process.map(Process), child: None }
    }

    fn stats(&self) -> io::Result<Option<Report>> {
        self.admin.as_ref().map(Client::stats).transpose().map_err(io::Error::other)
    }

    /// What the node has counted, by name; `None` when it isn't known where it tells that.
    pub fn counters(&self) -> io::Result<Option<BTreeMap<String, u64>>> {
        Ok(self.stats()?.map(|stats| stats.all.counters))
    }

    /// Whether it is known where the node is managed.
    pub fn is_managed(&self) -> bool {
        self.admin.is_some()
    }

    /// Where it is managed.
    ///
    /// # Errors
    /// It isn't known.
    pub fn managed(&self) -> io::Result<&Client> {
        self.admin.as_ref().ok_or_else(|| io::Error::other("accounts are made at the admin address: say --admin"))
    }

    /// Whether it has found all nodes that it is to find, of which there are so many.
    pub fn has_found(&self, others: usize) -> io::Result<bool> {
        let Some(admin) = &self.admin else { return Ok(true) };
        let status = admin.cluster().map_err(io::Error::other)?;
        Ok(status.nodes.len() == others && status.nodes.iter().all(|node| node.found))
    }

    /// Makes the accounts of users of the benchmark. Gives how many were not there before.
    ///
    /// # Errors
    /// As `add_user`.
    pub fn add_users(&self, users: Range<u32>, password: Option<&str>, progress: &Progress) -> io::Result<u32> {
        progress.begin("accounts", users.len() as u64);
        let mut made = 0;
        for (at, user) in users.enumerate() {
            made += u32::from(self.add_user(user, password)?);
            progress.at(at as u64);
        }
        Ok(made)
    }

    /// Makes the account of a user of the benchmark. False: it's there already, from an earlier one. (Should the node have another
    /// domain, the log-in says so.)
    ///
    /// # Errors
    /// It isn't known where the node takes that.
    pub fn add_user(&self, user: u32, password: Option<&str>) -> io::Result<bool> {
        match self.managed()?.add_user(&self.access.jid(user), password) {
            Ok(()) => Ok(true),
            Err(ClientError::Refused { status: 409, .. }) => Ok(false),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// How many cores it has; `None` when it isn't known where it tells that.
    pub fn cores(&self) -> io::Result<Option<u16>> {
        Ok(self.stats()?.map(|stats| stats.cores.len() as u16))
    }

    /// What the node counts now; `None` when it isn't known where it tells that.
    pub fn gauge(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.stats()?.and_then(|stats| stats.all.gauges.get(name).copied()))
    }

    /// Bytes of memory that belong to it alone and to no file.
    pub fn anonymous_bytes(&self) -> io::Result<Option<u64>> {
        self.process.as_ref().map(Process::anonymous_bytes).transpose()
    }

    /// Stops it if it was started here.
    ///
    /// # Errors
    /// It ended badly.
    pub fn stop(self) -> io::Result<()> {
        self.child.map_or(Ok(()), Child::stop)
    }
}

impl Meter for Server {
    /// `None` when its process isn't known.
    fn cpu_ns(&self) -> io::Result<Option<u64>> {
        self.process.as_ref().map(Process::cpu_ns).transpose()
    }

    /// `None` when it isn't known where it tells that.
    fn sends(&self) -> io::Result<Option<u64>> {
        Ok(self.counters()?.and_then(|counters| counters.get("sends").copied()))
    }
}

impl Child {
    fn spawn(dir: Dir) -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--config").arg(dir.config()).stdin(Stdio::null()).stdout(Stdio::piped());
        // That nodes come and go is no news here; what goes wrong is.
        if std::env::var_os("FANAL_LOG").is_none() {
            command.env("FANAL_LOG", "error");
        }
        let mut process = command.spawn()?;
        let said = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Ok(Child { process: Running(process), said, _dir: dir })
    }

    /// Where it listens: the address of this door, and the admin address.
    fn await_serving(&mut self, speaks: Speaks) -> io::Result<(SocketAddr, SocketAddr)> {
        let (mut door, mut admin) = (None, None);
        for line in &mut self.said {
            let line = line?;
            let (name, address) = line.split_once(' ').unwrap_or((&line, ""));
            if name == speaks.name() {
                door = address.trim().parse().ok();
            } else if name == ADMIN {
                admin = address.trim().trim_start_matches("http://").parse().ok();
            } else if line == SERVING {
                return door.zip(admin).ok_or_else(|| io::Error::other("the node did not say where it listens"));
            }
        }
        Err(io::Error::other("the benchmark's own node did not start: see above"))
    }

    fn stop(mut self) -> io::Result<()> {
        kill(Pid::from_raw(self.process.0.id() as i32), Signal::SIGTERM)?;
        self.said.by_ref().try_for_each(|line| line.map(drop))?;
        let status = self.process.0.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the benchmark's own node ended with {status}"))) }
    }
}

impl Drop for Running {
    /// Whatever went wrong, nothing stays behind. Killing a process that has ended does nothing.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Dir {
    pub fn new() -> io::Result<Dir> {
        let dir = std::env::temp_dir().join(format!("fanal-bench-{}", std::process::id()));
        let dir = (0..).map(|n| dir.with_extension(n.to_string())).find(|dir| !dir.exists()).expect("numbers don't end");
        std::fs::create_dir(&dir)?;
        Ok(Dir(dir))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn config(&self) -> PathBuf {
        self.0.join("fanal.toml")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the kernel tells about a process.
struct Process(u32);

impl Process {
    fn cpu_ns(&self) -> io::Result<u64> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.0 as i32))?;
        Ok(Duration::from(clock.now()?).as_nanos() as u64)
    }

    fn anonymous_bytes(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        let kilobytes: Option<u64> = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        kilobytes.map(|kilobytes| kilobytes << 10).ok_or_else(|| io::Error::other("the kernel does not tell anonymous memory"))
    }
}

/// Nanoseconds that a thread has had of a processor, by its directory below /proc.
pub fn thread_cpu_ns(dir: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(dir.join("schedstat"))?;
    let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
    nanos.ok_or_else(|| io::Error::other("schedstat tells no processor time: boot a kernel with CONFIG_SCHED_INFO"))
}
