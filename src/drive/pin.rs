//! Which processors the cores run on, and who goes first where several threads share one.
//!
//! Lives on: the main thread, before any thread is pinned (a pinned thread sees only its own processor). Serves G1, G6.

use crate::base::config::Fault;
use std::collections::BTreeSet;
use std::{fs, io};

/// A processor this process may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    pub id: usize,
    /// The lowest-numbered hardware thread of the same physical core; it is `id` itself for the first.
    pub first_sibling: usize,
}

/// The processors this thread may run on, by number.
pub fn processors() -> Vec<Processor> {
    let mut ids: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    ids.sort_unstable();
    ids.into_iter().map(|id| Processor { id, first_sibling: first_sibling(id) }).collect()
}

fn first_sibling(id: usize) -> usize {
    let path = format!("/sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list");
    fs::read_to_string(path).ok().and_then(|list| lowest(&list)).unwrap_or(id)
}

/// The lowest number of a kernel list such as "3,35" or "0-1".
fn lowest(list: &str) -> Option<usize> {
    list.trim().split([',', '-']).filter_map(|n| n.parse().ok()).min()
}

/// The processors for the cores of a node: those `wanted`, or else the first hardware thread of every physical core.
///
/// # Errors
/// Names the processor that can't be had, and those that can.
pub fn choose(wanted: Option<&[usize]>, available: &[Processor]) -> Result<Vec<usize>, Fault> {
    let fault = |problem: String, fix: String| Err(Fault::new("node.cores", problem, fix));
    let Some(wanted) = wanted else {
        let mut physical = BTreeSet::new();
        let chosen: Vec<usize> = available.iter().filter(|p| physical.insert(p.first_sibling)).map(|p| p.id).collect();
        return if chosen.is_empty() {
            fault("no processor is available to this process".into(), "check its CPU affinity".into())
        } else {
            Ok(chosen)
        };
    };
    let mut seen = BTreeSet::new();
    for &id in wanted {
        if !available.iter().any(|p| p.id == id) {
            let ids: Vec<String> = available.iter().map(|p| p.id.to_string()).collect();
            return fault(format!("processor {id} is not available to this process"), format!("choose among {}", ids.join(",")));
        }
        if !seen.insert(id) {
            return fault(format!("processor {id} stands there twice"), "name each once".into());
        }
    }
    if wanted.is_empty() { fault("the list is empty".into(), "name at least one processor".into()) } else { Ok(wanted.to_vec()) }
}

/// Pins the calling thread. False: the kernel refused.
pub fn pin(id: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id })
}

/// Among threads that go before all others (SCHED_RR, sched(7)): above what the kernel does by such threads itself it's the order
/// that counts, and there is none among ours.
const FIRST: i32 = 20;

/// From now on the calling thread goes before all usual ones, and so do threads and processes that it starts: whoever runs where
/// one of them wakes up is stopped at once.
///
/// # Errors
/// The kernel's: whoever is not root needs CAP_SYS_NICE, or a limit of priorities (`ulimit -r`) that is not 0.
pub fn go_first() -> io::Result<()> {
    schedule(libc::SCHED_RR, FIRST)
}

/// Takes that back for the calling thread, which takes turns again as others do.
///
/// # Errors
/// The kernel's.
pub fn take_turns() -> io::Result<()> {
    schedule(libc::SCHED_OTHER, 0)
}

fn schedule(policy: i32, sched_priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority };
    // SAFETY: the kernel reads the parameter during the call and keeps no pointer; 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, policy, &parameter) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Vec<Processor> {
        [(0, 0), (1, 1), (2, 0), (3, 1)].map(|(id, first_sibling)| Processor { id, first_sibling }).to_vec()
    }

    #[test]
    fn without_a_wish_each_physical_core_is_used_once() {
        assert_eq!(choose(None, &machine()), Ok(vec![0, 1]));
        assert!(choose(None, &[]).unwrap_err().fix.contains("affinity"));
    }

    #[test]
    fn a_wish_is_kept_or_refused_with_what_there_is() {
        assert_eq!(choose(Some(&[3, 0]), &machine()), Ok(vec![3, 0]));
        assert!(choose(Some(&[9]), &machine()).unwrap_err().fix.contains("choose among 0,1,2,3"));
        assert!(choose(Some(&[1, 1]), &machine()).unwrap_err().problem.contains("twice"));
        assert!(choose(Some(&[]), &machine()).is_err());
    }

    #[test]
    fn who_may_go_first_does_so_and_takes_turns_again() {
        let policy = || {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Field 41, counted from behind the name, which may hold spaces (proc_pid_stat(5)).
            stat.rsplit(')').next().unwrap().split_whitespace().nth(41 - 3).unwrap().parse::<i32>().unwrap()
        };
        let tried = std::thread::spawn(move || {
            let first = go_first().map(|()| policy());
            (first, take_turns().map(|()| policy()))
        });
        let (first, then) = tried.join().unwrap();
        assert!(first.is_ok_and(|policy| policy == libc::SCHED_RR) || go_first().is_err());
        assert_eq!(then.unwrap(), libc::SCHED_OTHER);
    }

    #[test]
    fn kernel_lists_are_read() {
        assert_eq!(lowest("3,35\n"), Some(3));
        assert_eq!(lowest("0-1"), Some(0));
        assert_eq!(lowest(""), None);
        assert!(!processors().is_empty());
    }
}
