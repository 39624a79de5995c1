//! The node that is measured: a child process of its own on its own processor, or one that runs already.
//!
//! Lives on: the generator's thread, between measurements. Serves G6. Invariant: a child never outlives its `Server`.

use super::crowd::Access;
use crate::admin::client::Client;
use crate::base::config::{Config, Cores, Secret, StoreKind};
use crate::front::token::Keys;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};

/// Keys of a node that lives as long as a benchmark and listens on loopback.
const TOKEN_KEY: &str = "the log-in key of a benchmark's own node";
const TRUNK_KEY: &str = "the trunk key of a benchmark's own node";
/// The lines with which a node tells where it listens, and that it serves.
const NATIVE: &str = "native ";
const ADMIN: &str = "admin ";
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

/// A node that is measured.
pub struct Server {
    pub access: Access,
    admin: Option<Client>,
    process: Option<Process>,
    child: Option<Child>,
}

/// A process that ends with us, and its directory.
struct Child {
    process: std::process::Child,
    /// Kept open, so that the node can speak to the end.
    said: Lines<BufReader<ChildStdout>>,
    dir: PathBuf,
}

/// The configuration of a benchmark's node: no limit of a single client is in the way of what is measured.
fn config(cores: Vec<u16>, store: StoreKind) -> Config {
    let mut config = Config::default();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    (config.listen.native, config.listen.admin) = (any_port, any_port);
    config.node.cores = Cores::These(cores);
    config.store.kind = store;
    config.login.token_keys = vec![Secret::new(TOKEN_KEY).expect("it is long enough")];
    config.login.trunk_keys = vec![Secret::new(TRUNK_KEY).expect("it is long enough")];
    let limits = &mut config.limits;
    (limits.high_water_bytes, limits.backlog_bytes) = (256 << 20, 512 << 20);
    (limits.trunk_high_water_bytes, limits.trunk_backlog_bytes) = (512 << 20, 1 << 30);
    (limits.frames_per_second, limits.frames_burst) = (16 << 20, 16 << 20);
    (limits.log_in_ms, limits.ping_ms, limits.stalled_ms) = (3_600_000, 3_600_000, 3_600_000);
    config
}

impl Server {
    /// Starts `fanal serve` from the same executable on these processors, in a directory of its own. Do it before the calling
    /// thread is pinned: a child may use only its parent's processors.
    ///
    /// # Errors
    /// It did not start; it has said why on stderr.
    pub fn start(cores: Vec<u16>, store: StoreKind) -> io::Result<Server> {
        let mut config = config(cores, store);
        let mut child = Child::spawn(&mut config)?;
        let (native, admin) = child.await_serving()?;
        let keys = |key| Keys::new([key]).expect("it is long enough");
        let (token_keys, trunk_keys) = (keys(TOKEN_KEY), keys(TRUNK_KEY));
        Ok(Server {
            access: Access { target: native, domain: config.node.domain, token_keys, trunk_keys },
            admin: Some(Client::new(admin, None)),
            process: Some(Process::of(child.process.id())),
            child: Some(child),
        })
    }

    /// A node that runs already.
    pub fn at(target: Target) -> Server {
        let admin = target.admin.map(|(address, token)| Client::new(address, token));
        Server { access: target.access, admin, process: target.process.map(Process::of), child: None }
    }

    /// What the node has counted, by name; `None` when it isn't known where it tells that.
    pub fn counters(&self) -> io::Result<Option<BTreeMap<String, u64>>> {
        let stats = self.admin.as_ref().map(Client::stats).transpose().map_err(io::Error::other)?;
        Ok(stats.map(|stats| stats.all.counters))
    }

    /// Nanoseconds of processor time that all its threads have had, kernel included; `None` when its process isn't known.
    pub fn cpu_ns(&self) -> io::Result<Option<u64>> {
        self.process.as_ref().map(Process::cpu_ns).transpose()
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

impl Child {
    fn spawn(config: &mut Config) -> io::Result<Child> {
        let dir = std::env::temp_dir().join(format!("fanal-bench-{}", std::process::id()));
        let dir = (0..).map(|n| dir.with_extension(n.to_string())).find(|dir| !dir.exists()).expect("numbers don't end");
        std::fs::create_dir(&dir)?;
        config.node.data = dir.join("data");
        let file = dir.join("fanal.toml");
        std::fs::write(&file, toml::to_string(config).map_err(io::Error::other)?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let said = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Ok(Child { process, said, dir })
    }

    /// Where it listens: native and admin address.
    fn await_serving(&mut self) -> io::Result<(SocketAddr, SocketAddr)> {
        let (mut native, mut admin) = (None, None);
        for line in &mut self.said {
            let line = line?;
            if let Some(address) = line.strip_prefix(NATIVE) {
                native = address.trim().parse().ok();
            } else if let Some(address) = line.strip_prefix(ADMIN) {
                admin = address.trim().trim_start_matches("http://").parse().ok();
            } else if line == SERVING {
                return native.zip(admin).ok_or_else(|| io::Error::other("the node did not say where it listens"));
            }
        }
        Err(io::Error::other("the benchmark's own node did not start: see above"))
    }

    fn stop(mut self) -> io::Result<()> {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM)?;
        self.said.by_ref().try_for_each(|line| line.map(drop))?;
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("the benchmark's own node ended with {status}"))) }
    }
}

impl Drop for Child {
    /// Whatever went wrong, nothing stays behind. Killing a process that has ended does nothing.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What the kernel tells about a process or a thread.
struct Process {
    dir: PathBuf,
}

impl Process {
    fn of(id: u32) -> Process {
        Process { dir: PathBuf::from(format!("/proc/{id}")) }
    }

    fn cpu_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(self.dir.join("task"))? {
            sum += thread_cpu_ns(&task?.path())?;
        }
        Ok(sum)
    }

    fn anonymous_bytes(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(self.dir.join("smaps_rollup"))?;
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
