//! A core whose processor is taken away at the worst moment goes on (`drive::bridge`, the hole in glommio's sleep).

use fanal::drive::bridge;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Longer than glommio's preemption timer and the heartbeat.
const TAKEN: Duration = Duration::from_millis(12);
/// How often it is taken away twice.
const PAIRS: u64 = 200;
/// The last guard comes after 5 s.
const PATIENCE: Duration = Duration::from_secs(15);

static OVER: AtomicU64 = AtomicU64::new(0);

/// Runs on the core's thread, wherever that is: to the executor it looks as if the machine had run something else.
extern "C" fn take_away(_: libc::c_int) {
    let began = Instant::now();
    while began.elapsed() < TAKEN {}
    OVER.fetch_add(1, SeqCst);
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::hint::spin_loop();
    }
}

#[test]
fn a_core_goes_on_wherever_its_processor_is_taken_away() {
    let action = SigAction::new(SigHandler::Handler(take_away), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler reads a clock and adds to an atomic, both of which a handler may do.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let (stop, beats) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (tell, thread) = channel::<libc::pthread_t>();
    let core = {
        let (stop, beats) = (stop.clone(), beats.clone());
        let work = move || async move {
            // SAFETY: it always succeeds.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            while !stop.load(SeqCst) {
                glommio::timer::sleep(Duration::from_millis(1)).await;
                beats.fetch_add(1, SeqCst);
            }
        };
        bridge::on_core("stalled", None, work).unwrap()
    };
    let thread = thread.recv().unwrap();
    // SAFETY: the core's thread lives until it's joined at the end.
    let take_away = || assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
    for pair in 0..PAIRS {
        let over = OVER.load(SeqCst);
        take_away();
        wait("the first is over", || OVER.load(SeqCst) > over);
        // Somewhere on the way from there to the first task.
        let began = Instant::now();
        while began.elapsed() < Duration::from_nanos(pair * 250 % 50_000) {}
        take_away();
        wait("the second is over", || OVER.load(SeqCst) > over + 1);
        let seen = beats.load(SeqCst);
        wait("the core sleeps although it has something to do", || beats.load(SeqCst) > seen + 1);
    }
    stop.store(true, SeqCst);
    core.join().unwrap();
}
