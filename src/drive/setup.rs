//! Makes the ring, and says in plain words what this machine lacks and how to get it (pitfalls A5, A8).
//!
//! Lives on: the core's own pinned thread (a DEFER_TASKRUN ring belongs to the thread that makes it); `probe` on any thread.
//! Flags are asked for all at once and peeled off newest first when the kernel doesn't know them; what was peeled is in the
//! `Report`. Below Linux 6.0 there is no multishot receive and fanal does not run.

use super::seal;
use io_uring::{IoUring, opcode, register::Probe};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fmt;
use std::io;

/// Memory that glommio registers with the kernel for each of its three rings, which counts against the lock limit.
pub const EXECUTOR_MEMORY: usize = 1 << 20;
const EXECUTOR_RINGS: u64 = 3;
/// Lock limit below which glommio refuses to start.
const EXECUTOR_LEAST_LOCK: u64 = 512 << 10;
/// Descriptors of a node beside its connections: listeners, rings, files, the store.
const OTHER_DESCRIPTORS: u64 = 512;

/// How completions get to the ring; the figures are in `drive`'s module text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskRun {
    /// At the core's next system call.
    Cooperative,
    /// When the core asks for completions, all together.
    Deferred,
}

/// Why the driver can't work here. Its text names the thing, the reason and the fix.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("io_uring is not in this kernel ({kernel}): boot Linux 6.1 or newer, built with CONFIG_IO_URING")]
    NoRing { kernel: String },
    #[error(
        "io_uring is forbidden here: run `sysctl -w kernel.io_uring_disabled=0`, or, in a container, allow io_uring_setup, \
         io_uring_enter and io_uring_register in its seccomp profile"
    )]
    Forbidden,
    #[error("this kernel ({kernel}) has io_uring but not {what}: boot Linux {since} or newer (6.12 or newer is best)")]
    TooOld { kernel: String, what: &'static str, since: &'static str },
    #[error(
        "memory that may be locked is {limit} bytes and {needed} are needed: set `LimitMEMLOCK=infinity` in the systemd unit, or \
         run `ulimit -l unlimited` before the start"
    )]
    LockLimit { limit: u64, needed: u64 },
    #[error(
        "no descriptor left for the ring (limit {limit}): set `LimitNOFILE=1048576` in the systemd unit, or run `ulimit -n` with a \
         higher number before the start"
    )]
    Descriptors { limit: u64 },
    #[error(
        "no memory is left that may be locked: all processes of this user may lock {limit} bytes together: set \
         `LimitMEMLOCK=infinity` in the systemd unit, or run `ulimit -l unlimited` before the start, or use fewer cores"
    )]
    Locked { limit: u64 },
    #[error("the ring could not be made: {0}")]
    Other(#[source] io::Error),
}

impl SetupError {
    /// Nothing is left of what may be locked.
    pub fn locked() -> SetupError {
        SetupError::Locked { limit: limit(Resource::RLIMIT_MEMLOCK) }
    }
}

/// What the machine offers, for the log at start.
#[derive(Clone, Debug)]
pub struct Report {
    pub kernel: String,
    /// Ring flags that the kernel didn't know.
    pub peeled: Vec<&'static str>,
    /// Bytes that may be locked, and what the cores lock.
    pub lock_limit: u64,
    pub lock_needed: u64,
    /// Descriptors that may be open.
    pub descriptors: u64,
    /// Whether the kernel could encrypt (kTLS), and whether it does.
    pub kernel_tls: bool,
    pub seals: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}: io_uring works", self.kernel)?;
        if !self.peeled.is_empty() {
            write!(f, ", without {} (a newer kernel is faster)", self.peeled.join(" and "))?;
        }
        let room = self.descriptors.saturating_sub(OTHER_DESCRIPTORS);
        write!(f, "; room for {room} connections (descriptor limit {}: LimitNOFILE= raises it)", self.descriptors)?;
        match self.lock_needed > self.lock_limit {
            true => write!(
                f,
                "; lock limit {} is below {} bytes, so files are read without registered memory: LimitMEMLOCK=infinity raises it",
                self.lock_limit, self.lock_needed
            ),
            false => write!(f, "; locks {} of {} bytes", self.lock_needed, self.lock_limit),
        }?;
        let tls = match (self.kernel_tls, self.seals) {
            (true, true) => "what TLS sends is encrypted by the kernel",
            (true, false) => "TLS in user space, the kernel's (CONFIG_TLS) is there and not used",
            (false, _) => "TLS in user space, the kernel has none",
        };
        write!(f, "; {tls}")
    }
}

/// Sizes and flags of one core's ring.
#[derive(Clone, Copy, Debug)]
pub struct RingSize {
    /// Submissions between two looks at the kernel.
    pub submissions: u32,
    /// Completions that may wait unread; above it the kernel keeps them aside, slowly (counter `cq_overflow`).
    pub completions: u32,
}

/// A ring with the newest flags this kernel knows, and the names of those it doesn't.
pub(super) fn make_ring(size: RingSize, task_run: TaskRun) -> Result<(IoUring, Vec<&'static str>), SetupError> {
    let mut peeled = Vec::new();
    for (array, deferred) in [(false, task_run == TaskRun::Deferred), (true, task_run == TaskRun::Deferred), (true, false)] {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(size.completions).setup_clamp().setup_submit_all().setup_single_issuer().setup_taskrun_flag();
        builder.dontfork();
        if !array {
            builder.setup_no_sqarray();
        }
        if deferred {
            builder.setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        match builder.build(size.submissions) {
            Ok(ring) => return Ok((ring, peeled)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                peeled = if array { vec!["NO_SQARRAY", "DEFER_TASKRUN"] } else { vec!["NO_SQARRAY"] };
            }
            Err(error) => return Err(explain(error, &kernel(), limit(Resource::RLIMIT_NOFILE))),
        }
    }
    Err(SetupError::TooOld { kernel: kernel(), what: "single-issuer rings and multishot receive", since: "6.0" })
}

/// Says what a failed ring means for the operator.
fn explain(error: io::Error, kernel: &str, descriptors: u64) -> SetupError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => SetupError::NoRing { kernel: kernel.into() },
        Some(libc::EPERM | libc::EACCES) => SetupError::Forbidden,
        Some(libc::EMFILE | libc::ENFILE) => SetupError::Descriptors { limit: descriptors },
        Some(libc::ENOMEM) => SetupError::locked(),
        _ => SetupError::Other(error),
    }
}

/// Asks the kernel, before any core starts, for all that the driver needs; raises the soft descriptor limit to the hard one.
pub fn probe(cores: usize, task_run: TaskRun) -> Result<Report, SetupError> {
    let (ring, peeled) = make_ring(RingSize { submissions: 8, completions: 16 }, task_run)?;
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known).map_err(SetupError::Other)?;
    check_operations(&known)?;
    let lock_limit = limit(Resource::RLIMIT_MEMLOCK);
    if lock_limit < EXECUTOR_LEAST_LOCK {
        return Err(SetupError::LockLimit { limit: lock_limit, needed: EXECUTOR_LEAST_LOCK });
    }
    Ok(Report {
        kernel: kernel(),
        peeled,
        lock_limit,
        lock_needed: cores as u64 * EXECUTOR_RINGS * EXECUTOR_MEMORY as u64,
        descriptors: raise_descriptor_limit(),
        kernel_tls: seal::is_there(),
        seals: false,
    })
}

fn check_operations(known: &Probe) -> Result<(), SetupError> {
    let needed = [
        (opcode::Accept::CODE, "accepting connections", "5.5"),
        (opcode::Connect::CODE, "making connections", "5.5"),
        (opcode::Recv::CODE, "receiving", "5.6"),
        (opcode::Send::CODE, "sending", "5.6"),
        (opcode::AsyncCancel::CODE, "cancelling", "5.5"),
        (opcode::Timeout::CODE, "timers", "5.4"),
        (opcode::SendZc::CODE, "the socket operations of Linux 6.0", "6.0"),
    ];
    match needed.iter().find(|(code, ..)| !known.is_supported(*code)) {
        Some(&(_, what, since)) => Err(SetupError::TooOld { kernel: kernel(), what, since }),
        None => Ok(()),
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        true => hard,
        false => soft,
    }
}

fn limit(of: Resource) -> u64 {
    getrlimit(of).map_or(0, |(soft, _)| soft)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(errno: i32) -> String {
        explain(io::Error::from_raw_os_error(errno), "4.18.0", 1024).to_string()
    }

    #[test]
    fn what_is_missing_is_said_with_its_fix() {
        assert!(text(libc::ENOSYS).contains("4.18.0") && text(libc::ENOSYS).contains("boot Linux 6.1"));
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled=0") && text(libc::EPERM).contains("seccomp"));
        assert!(text(libc::EMFILE).contains("LimitNOFILE") && text(libc::EMFILE).contains("1024"));
        assert!(text(libc::ENOMEM).contains("LimitMEMLOCK") && text(libc::ENOMEM).contains("fewer cores"));
        let lock = SetupError::LockLimit { limit: 65_536, needed: 524_288 }.to_string();
        assert!(lock.contains("LimitMEMLOCK") && lock.contains("65536"));
    }

    #[test]
    fn an_old_kernels_missing_operation_is_named() {
        let error = check_operations(&Probe::new()).unwrap_err().to_string();
        assert!(error.contains("accepting connections") && error.contains("boot Linux 5.5"), "{error}");
    }

    #[test]
    fn the_report_names_what_was_peeled_and_what_the_limits_allow() {
        let report = Report {
            kernel: "6.1.0".into(),
            peeled: vec!["NO_SQARRAY"],
            lock_limit: 8 << 20,
            lock_needed: 9 << 20,
            descriptors: 20_000,
            kernel_tls: true,
            seals: false,
        };
        let text = report.to_string();
        for part in ["6.1.0", "NO_SQARRAY", "room for 19488", "LimitNOFILE", "LimitMEMLOCK", "CONFIG_TLS"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
