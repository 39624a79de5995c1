//! The node that is measured: a child process of its own on its own processor, or one that runs already.
//!
//! Lives on: the generator's thread, at the start and the end. Serves G6. Invariant: a child never outlives its `Child`.

use super::crowd::Access;
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
/// The line with which a node tells where it listens.
const NATIVE: &str = "native ";
/// The line that tells that it serves.
const SERVING: &str = "serving";
/// How the line with a stopped node's counters begins.
const COUNTED: &str = "counted ";

/// A node started for a benchmark.
pub struct Child {
    process: std::process::Child,
    said: Lines<BufReader<ChildStdout>>,
    dir: PathBuf,
    native: SocketAddr,
}

/// The configuration of a benchmark's node: no limit of a single client is in the way of what is measured.
pub fn config(cores: Vec<u16>, store: StoreKind) -> Config {
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

impl Child {
    /// Starts `fanal serve` from the same executable, in a directory of its own.
    pub fn start(mut config: Config) -> io::Result<Child> {
        let dir = std::env::temp_dir().join(format!("fanal-bench-{}", std::process::id()));
        let dir = (0..).map(|n| dir.with_extension(n.to_string())).find(|dir| !dir.exists()).expect("numbers don't end");
        std::fs::create_dir(&dir)?;
        config.node.data = dir.join("data");
        let file = dir.join("fanal.toml");
        std::fs::write(&file, toml::to_string(&config).map_err(io::Error::other)?)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg("--config").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let said = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut child = Child { process, said, dir, native: config.listen.native };
        child.await_serving()?;
        Ok(child)
    }

    fn await_serving(&mut self) -> io::Result<()> {
        for line in &mut self.said {
            let line = line?;
            if let Some(address) = line.strip_prefix(NATIVE) {
                self.native = address.trim().parse().map_err(io::Error::other)?;
            }
            if line == SERVING {
                return Ok(());
            }
        }
        Err(io::Error::other("the benchmark's own node did not start: it has said why"))
    }

    pub fn access(&self, config: &Config) -> Access {
        let keys = |key| Keys::new([key]).expect("it is long enough");
        let (token_keys, trunk_keys) = (keys(TOKEN_KEY), keys(TRUNK_KEY));
        Access { target: self.native, domain: config.node.domain.clone(), token_keys, trunk_keys }
    }

    pub fn process(&self) -> Process {
        Process::of(self.process.id())
    }

    /// Stops it gracefully; gives what it counted, by name.
    pub fn stop(mut self) -> io::Result<BTreeMap<String, u64>> {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM)?;
        let mut counted = BTreeMap::new();
        for line in &mut self.said {
            let line = line?;
            let Some(counters) = line.strip_prefix(COUNTED) else { continue };
            let pairs = counters.split_whitespace().filter_map(|pair| pair.split_once('='));
            counted.extend(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))));
        }
        let status = self.process.wait()?;
        if status.success() { Ok(counted) } else { Err(io::Error::other(format!("the benchmark's own node ended with {status}"))) }
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
#[derive(Clone)]
pub struct Process {
    dir: PathBuf,
}

impl Process {
    pub fn of(id: u32) -> Process {
        Process { dir: PathBuf::from(format!("/proc/{id}")) }
    }

    /// Nanoseconds of processor time that all its threads have had, kernel included.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(self.dir.join("task"))? {
            sum += thread_cpu_ns(&task?.path())?;
        }
        Ok(sum)
    }

    /// Bytes of memory that belong to it alone and to no file.
    pub fn anonymous_bytes(&self) -> io::Result<u64> {
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
