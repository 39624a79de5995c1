//! glommio as the host of the driver: a pinned thread, a task queue that may not be kept waiting, and a sleep that both the ring
//! and other cores can end.
//!
//! Lives on: every core. The only file that knows glommio. glommio 0.9 has no readiness API (pitfall B5), so the sleep is a read of
//! the bell's eventfd as a file. While there's work the pump only yields, so that glommio's other tasks (admin, store, batches) get
//! their share; the yields cost nothing that could be measured. The first sleep of an executor costs 30-80 ms (pitfall B1), so each
//! sleeps once before it accepts.
//!
//! glommio 0.9 has a hole, seen here as hangs: when its preemption timer fires after it looked for events and before it ran the
//! first task (the machine took the processor away for that long), it takes "ran nothing" for "has nothing to run" and sleeps
//! although tasks are ready (`run_task_queues` and `run` in its `executor/mod.rs`). Two things close it: the timer is long
//! (`PREEMPTION`; the pump yields by itself), and a heartbeat ends such a sleep. When the heartbeat is itself among the tasks that
//! were ready, its timer is spent; so each beat leaves later timers behind (`GUARDS`), which only such a sleep lets fire. Each
//! fall into the hole takes one of them.

use super::pump::Next;
use super::setup::EXECUTOR_MEMORY;
use super::{Bell, DriveCounters, Driver, Host};
use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, executor, spawn_local, spawn_local_into};
use std::array;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// How long glommio lets its tasks run before it looks for events of its own (timers, files), unless they finish before. Only a
/// core that sleeps waits for such events, and it has no tasks that run.
const PREEMPTION: Duration = Duration::from_millis(100);
/// The longest sleep of an executor; see above. It costs an idle core 0.7 % of its time.
const HEARTBEAT: Duration = Duration::from_millis(10);
/// When something ends a sleep that should not be, if the next beat doesn't come: so long after a beat, and so often after twice
/// the time before (20 ms to 41 s). The first that is not over yet when the processor comes back does it; the rest are for falling
/// into the hole again.
const GUARD: Duration = Duration::from_millis(20);
const GUARDS: usize = 12;
/// The pump's shares of the core; glommio's default queue has 100.
const PUMP_SHARES: usize = 1000;
/// Operations that glommio's own rings hold.
const EXECUTOR_DEPTH: usize = 128;

/// A core's thread. Dropping it does not end the thread.
pub struct Core<T: Send + 'static>(glommio::ExecutorJoinHandle<T>);

impl<T: Send + 'static> Core<T> {
    /// Waits for the core's work to end.
    pub fn join(self) -> io::Result<T> {
        self.0.join().map_err(|error| io::Error::other(format!("a core's thread ended badly: {error}")))
    }
}

/// Starts a core: a thread called `name`, pinned to `processor` (or not pinned), with a glommio executor that runs `work`.
pub fn on_core<F, W, T>(name: &str, processor: Option<usize>, work: W) -> io::Result<Core<T>>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let placement = processor.map_or(Placement::Unbound, Placement::Fixed);
    let builder = LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(EXECUTOR_MEMORY)
        .ring_depth(EXECUTOR_DEPTH)
        .preempt_timer(PREEMPTION);
    let alive = move || async move {
        let heartbeat = spawn_local(async {
            loop {
                let mut guards: [Timer; GUARDS] = array::from_fn(|guard| Timer::new(GUARD * (1 << guard)));
                let _pending = poll_fn(|task| Poll::Ready(guards.each_mut().map(|guard| Pin::new(guard).poll(task)))).await;
                glommio::timer::sleep(HEARTBEAT).await;
            }
        });
        let result: T = work().await;
        let _never: Option<()> = heartbeat.cancel().await;
        result
    };
    let thread = builder.spawn(alive).map_err(|error| io::Error::other(format!("core {name} can't start: {error}")))?;
    Ok(Core(thread))
}

/// Runs the driver until the host has stopped. To be awaited on a core's executor; the pump gets a task queue of its own.
///
/// # Errors
/// The kernel refused something that it may not refuse: the node must stop.
pub async fn drive<H: Host + 'static>(mut driver: Driver, mut host: H) -> io::Result<(H, DriveCounters)> {
    let queue = executor().create_task_queue(Shares::Static(PUMP_SHARES), Latency::Matters(PREEMPTION), "pump");
    let task = async move {
        pump(&mut driver, &mut host).await?;
        Ok((host, driver.into_counters()))
    };
    match spawn_local_into(task, queue) {
        Ok(task) => task.await,
        Err(error) => Err(io::Error::other(format!("the pump can't start: {error}"))),
    }
}

async fn pump<H: Host>(driver: &mut Driver, host: &mut H) -> io::Result<()> {
    glommio::timer::sleep(Duration::from_millis(1)).await;
    let bell = Rest::new(&driver.bell)?;
    let mut idle_turns = 0;
    loop {
        match driver.turn(host)? {
            Next::Done => break,
            Next::Again => idle_turns = 0,
            Next::Idle(_) if idle_turns < driver.config.idle_turns => idle_turns += 1,
            Next::Idle(deadline) => {
                if driver.may_sleep(host, deadline)? {
                    bell.wait().await?;
                    driver.slept(host);
                }
                idle_turns = 0;
                continue;
            }
        }
        executor().yield_task_queue_now().await;
    }
    bell.close().await
}

/// The bell as glommio can wait for it.
struct Rest(BufferedFile);

impl Rest {
    fn new(bell: &Bell) -> io::Result<Rest> {
        let own = bell.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is open, and the file becomes its only owner.
        Ok(Rest(unsafe { BufferedFile::from_raw_fd(own.into_raw_fd()) }))
    }

    /// Waits until the bell was rung since the last wait.
    async fn wait(&self) -> io::Result<()> {
        self.0
            .read_at(0, size_of::<u64>())
            .await
            .map(drop)
            .map_err(|error| io::Error::other(format!("the bell can't be read: {error}")))
    }

    async fn close(self) -> io::Result<()> {
        self.0.close().await.map_err(|error| io::Error::other(format!("the bell can't be closed: {error}")))
    }
}
