//! Password checks, off the cores: PBKDF2 takes a millisecond, and a core may not stand still that long.
//!
//! Lives on: a thread of its own. Invariant: every check that was taken is answered.

use crate::base::id::{ConnId, CoreId};
use crate::drive::Bell;
use crate::shard::PasswordCheck;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Checks that may wait, over all cores. At the limit: the log-in fails.
const WAITING_CHECKS: usize = 4096;

/// The answer to one check.
pub struct Checked {
    pub conn: ConnId,
    pub right: bool,
}

/// A core's way to the checker.
#[derive(Clone)]
pub struct Passwords(SyncSender<(CoreId, PasswordCheck)>);

impl Passwords {
    /// Hands over a check. False: too many wait.
    pub fn check(&self, core: CoreId, check: PasswordCheck) -> bool {
        self.0.try_send((core, check)).is_ok()
    }
}

/// Starts the checker: it ends when the last core has dropped its way to it.
pub fn start(bells: &[Bell]) -> io::Result<(Passwords, Vec<Receiver<Checked>>)> {
    let (put, taken) = sync_channel::<(CoreId, PasswordCheck)>(WAITING_CHECKS);
    let (answers, receivers): (Vec<Sender<Checked>>, Vec<_>) = bells.iter().map(|_| channel()).unzip();
    let bells = bells.to_vec();
    let work = move || {
        while let Ok((core, PasswordCheck { conn, check })) = taken.recv() {
            let right = check.run();
            let at = usize::from(core.0);
            // A core that has stopped wants no answer.
            if answers[at].send(Checked { conn, right }).is_ok() {
                bells[at].ring();
            }
        }
    };
    std::thread::Builder::new().name("fanal-passwords".into()).spawn(work)?;
    Ok((Passwords(put), receivers))
}
