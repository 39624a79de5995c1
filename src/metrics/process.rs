//! What the operating system says of this process (C1): processor time, memory, descriptors.
//!
//! Lives on: the control thread, which reads `/proc` when asked for metrics.

use std::fs;
use std::io;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Process {
    /// Processor time of all threads, in user and system mode.
    pub cpu: Duration,
    /// Physical memory held.
    pub resident_bytes: u64,
    /// Descriptors open, and how many may be.
    pub open_fds: u64,
    pub max_fds: u64,
}

impl Process {
    /// Reads `/proc/self` and the process's use of the processor.
    pub fn read() -> io::Result<Process> {
        use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let time = |time: nix::sys::time::TimeVal| {
            Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
        };
        let status = fs::read_to_string("/proc/self/status")?;
        Ok(Process {
            cpu: time(usage.user_time()) + time(usage.system_time()),
            resident_bytes: resident_bytes(&status).ok_or_else(|| io::Error::other("/proc/self/status has no VmRSS"))?,
            // The listing's own descriptor is one of them.
            open_fds: fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64,
            max_fds: getrlimit(Resource::RLIMIT_NOFILE)?.0,
        })
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_text() {
        assert_eq!(resident_bytes("Name:\tfanal\nVmRSS:\t    2048 kB\nThreads:\t3\n"), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tfanal\n"), None);
    }

    #[test]
    fn a_living_process_has_memory_processor_time_and_descriptors() {
        let before = Process::read().unwrap();
        let files: Vec<_> = (0..8).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(before.resident_bytes > 1 << 20 && before.max_fds >= before.open_fds);
        assert!(Process::read().unwrap().cpu >= before.cpu);
        assert!(Process::read().unwrap().open_fds >= files.len() as u64);
    }
}
