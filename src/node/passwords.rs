//! Work with passwords, off the cores: PBKDF2 takes a millisecond, and a core may not stand still that long.
//!
//! Lives on: a thread of its own. Invariant: every task that was taken is answered.

use super::replies::Replies;
use crate::base::id::CoreId;
use crate::shard::PasswordTask;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Tasks that may wait, over all cores. At the limit: `overloaded`.
const WAITING_TASKS: usize = 4096;

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
pub fn start(replies: Replies) -> io::Result<Passwords> {
    let (put, taken) = sync_channel::<(CoreId, PasswordTask)>(WAITING_TASKS);
    let work = move || {
        while let Ok((core, PasswordTask { whose, work })) = taken.recv() {
            replies.put(core, whose, work.run());
        }
    };
    std::thread::Builder::new().name("fanal-passwords".into()).spawn(work)?;
    Ok(Passwords(put))
}
