//! A core whose processor is taken away at the worst moment goes on (`drive::bridge`, the hole in glommio's sleep).

use fanal::drive::bridge;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// It is taken away twice: for longer than the heartbeat's timer, and then for longer than glommio's preemption timer.
const TAKEN_MS: [u64; 2] = [12, 110];
/// How often.
const PAIRS: u64 = 150;
/// Far beyond the guards that one pair can spend.
const PATIENCE: Duration = Duration::from_secs(15);

static TAKE_MS: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicU64 = AtomicU64::new(0);

/// Runs on the core's thread, wherever that is: to the executor it looks as if the machine had run something else.
extern "C" fn take_away(_: libc::c_int) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(TAKE_MS.load(SeqCst)) {}
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
    // SAFETY: the handler reads a clock and uses atomics, all of which a handler may.
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
    let take_away = |for_ms| {
        let over = OVER.load(SeqCst);
        TAKE_MS.store(for_ms, SeqCst);
        // SAFETY: the core's thread lives until it's joined at the end.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
        wait("the thread runs again", || OVER.load(SeqCst) > over);
    };
    for pair in 0..PAIRS {
        take_away(TAKEN_MS[0]);
        // Somewhere on the way from there to the first task.
        let began = Instant::now();
        while began.elapsed() < Duration::from_nanos(pair * 500 % 75_000) {}
        take_away(TAKEN_MS[1]);
        let seen = beats.load(SeqCst);
        wait("the core sleeps although it has something to do", || beats.load(SeqCst) > seen + 1);
    }
    stop.store(true, SeqCst);
    core.join().unwrap();
}
