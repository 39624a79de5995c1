//! The table of owners in etcd: membership by lease, ownership by fenced transactions, on a thread of its own.
//!
//! Lives on: the thread `fanal-etcd`, and one for each watch. Serves Z1, Z4, M1, R7's watching. The same commands and events as
//! the embedded engine (`ownership`). It speaks to etcd's JSON gateway, which is part of etcd: the crate etcd-client would bring
//! 97 crates (tokio, tonic), a compiler of protocol buffers and 4.5 minutes of a processor to a clean build, for six calls.
//!
//! Keys, below `fanal/CLUSTER/`: `terms`; `members/NODE` hangs on the node's lease; `holders/NODE` says who had the number last;
//! `owners/BLOCK` has 256 slots. Invariants: a number is claimed, and a block written, in a transaction that compares what was
//! known before, the writer's own lease and those of the new owners; a watch begins where a listing ended, and when it breaks, is
//! compacted away or misses something, all is listed again; by its own clock this node's lease ends before etcd's; no call to
//! etcd outlasts the lease, so `Fenced` is told in time.

mod api;
mod engine;
mod gateway;
mod view;

use crate::base::config::Endpoint;
use crate::node::trust::Trust;
use crate::ownership::{Command, Event, Myself, Terms};
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Commands and lines of the watch that wait for the thread. At the limit: a command is not taken, a watch begins anew.
pub const ORDERS: usize = 4_096;

/// What the engine is told at its start.
pub struct Settings {
    /// The cluster's number.
    pub cluster: u16,
    pub terms: Terms,
    pub me: Myself,
    /// Slots whose users' rows are on this node's disk: it's to be their owner if nobody is.
    pub claims: Vec<u16>,
    /// etcd's members.
    pub endpoints: Vec<Endpoint>,
    /// How they prove who they are, where they are asked over https.
    pub trust: Option<Trust>,
    /// Of the jitter.
    pub seed: u64,
}

/// Hears the events, on the etcd thread. It may wait for no more than other threads' next turn.
pub type Tell = Box<dyn FnMut(Event) + Send>;

/// The running engine.
pub struct Etcd {
    orders: SyncSender<engine::Order>,
    thread: JoinHandle<()>,
}

impl Etcd {
    /// Starts the thread, which joins the cluster as soon as it can.
    ///
    /// # Errors
    /// An endpoint's name can't be looked up or be a certificate's, or there is no thread to be had.
    pub fn start(mut settings: Settings, tell: Tell) -> io::Result<Etcd> {
        let gateway = gateway::Gateway::new(&settings.endpoints, settings.trust.take())?;
        let (orders, taken) = sync_channel(ORDERS);
        let engine = engine::Engine::new(settings, gateway, (orders.clone(), taken), tell);
        let thread = std::thread::Builder::new().name("fanal-etcd".to_owned()).spawn(move || engine.run())?;
        Ok(Etcd { orders, thread })
    }

    /// Hands over a command. Never waits. False: too many wait.
    pub fn command(&self, command: Command) -> bool {
        self.orders.try_send(engine::Order::Command(command)).is_ok()
    }

    /// Ends the thread. Without `Command::Leave` before, the node's lease is left to run out.
    pub fn stop(self) {
        // Should the thread be gone, `join` says so.
        _ = self.orders.send(engine::Order::Stop);
        self.thread.join().expect("the etcd thread has no reason to panic");
    }
}
