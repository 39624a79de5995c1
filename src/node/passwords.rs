//! Work with passwords, off the cores: PBKDF2 takes a millisecond, and a core may not stand still that long.
//!
//! Lives on: a thread of its own. Invariant: every task that was taken is answered.

use crate::base::id::CoreId;
use crate::drive::Bell;
use crate::shard::{PasswordTask, Whose, Worked};
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Tasks that may wait, over all cores. At the limit: the log-in fails, or `overloaded`.
const WAITING_TASKS: usize = 4096;

/// The answer to one task.
pub struct Checked {
    pub whose: Whose,
    pub worked: Worked,
}

/// A core's way to the checker.
#[derive(Clone)]
pub struct Passwords(SyncSender<(CoreId, PasswordTask)>);

impl Passwords {
    /// Hands over a task. False: too many wait.
    pub fn take(&self, core: CoreId, task: PasswordTask) -> bool {
        self.0.try_send((core, task)).is_ok()
    }
}

/// Starts the checker: it ends when the last core has dropped its way to it.
pub fn start(bells: &[Bell]) -> io::Result<(Passwords, Vec<Receiver<Checked>>)> {
    let (put, taken) = sync_channel::<(CoreId, PasswordTask)>(WAITING_TASKS);
    let (answers, receivers): (Vec<Sender<Checked>>, Vec<_>) = bells.iter().map(|_| channel()).unzip();
    let bells = bells.to_vec();
    let work = move || {
        while let Ok((core, PasswordTask { whose, work })) = taken.recv() {
            let worked = work.run();
            let at = usize::from(core.0);
            // A core that has stopped wants no answer.
            if answers[at].send(Checked { whose, worked }).is_ok() {
                bells[at].ring();
            }
        }
    };
    std::thread::Builder::new().name("fanal-passwords".into()).spawn(work)?;
    Ok((Passwords(put), receivers))
}
