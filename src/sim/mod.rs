//! The simulator: real shards, doors, rings and frames under virtual time, with everything around them simulated and drawn from one
//! seed: network, disk, clients, crashes. It is how correctness is shown (design.md section 5).
//!
//! Lives on: one thread of a test or of `fanal sim`. `mix` draws what a seed is made of; `world` takes the steps; `node` and `core`
//! drive the shards as `node` and `drive` do; `links`, `disk` and `client` are what surrounds them; `owners` says when a node hears
//! whose a slot is; `replays` is what old lives have said, `lies` what a cluster says that it may not; `canaries` are bugs made on
//! purpose; `check` has one file for each invariant; `counts` shows what came up.
//! Invariant: a run depends on its options and on nothing else: no clock, thread, socket or file, no global randomness.

mod canaries;
pub mod check;
mod client;
mod core;
pub mod counts;
mod dials;
mod disk;
mod lies;
mod links;
mod mix;
mod node;
mod nodes;
mod owners;
mod replays;
mod shape;
mod spy;
mod trace;
mod world;

use crate::base::jid::Bare;
use crate::base::random::Random;
use crate::base::time::Time;
pub use canaries::Canary;
use check::{Broken, Check, Memories};
use counts::{Counts, Happening};
use serde::Serialize;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps of a run when nobody says how many.
pub const STEPS: u64 = 3000;
/// Lines of the trace that are shown of a run that failed.
pub const TAIL: usize = 40;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub steps: u64,
    /// How many nodes each cluster has, and how many clusters there are; `None`: drawn.
    pub nodes: Option<usize>,
    pub clusters: Option<usize>,
    pub canary: Option<Canary>,
    /// Lines of the trace to keep for a failure.
    pub tail: usize,
}

impl Options {
    pub fn new(seed: u64) -> Options {
        Options { seed, steps: STEPS, nodes: None, clusters: None, canary: None, tail: TAIL }
    }

    /// The command that runs this.
    pub fn command(&self) -> String {
        let forced = |word: &str, number: Option<usize>| number.map_or(String::new(), |number| format!(" --{word} {number}"));
        let (nodes, clusters) = (forced("nodes", self.nodes), forced("clusters", self.clusters));
        format!("fanal sim --seed {} --steps {}{nodes}{clusters}", self.seed, self.steps)
    }
}

/// What a run that held came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Summary {
    /// Of every input and output, in order.
    pub trace_hash: u64,
    /// What happened, over all lives of the node.
    pub counts: Counts,
}

/// A run that broke an invariant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failed {
    pub seed: u64,
    pub steps: u64,
    pub nodes: Option<usize>,
    pub clusters: Option<usize>,
    /// The step at which it broke.
    pub step: u64,
    pub broken: Broken,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

impl Summary {
    /// Adds a run to those before; the hash is then of all of them, in order.
    pub fn add(&mut self, other: &Summary) {
        self.trace_hash = self.trace_hash.rotate_left(7) ^ other.trace_hash;
        self.counts.add_all(&other.counts);
    }
}

impl Failed {
    /// The command that runs it again.
    pub fn command(&self) -> String {
        let Failed { seed, steps, nodes, clusters, .. } = *self;
        Options { steps, nodes, clusters, ..Options::new(seed) }.command()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} broke at step {}: {}", self.seed, self.step, self.broken)?;
        self.tail.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(f, "replay: {}", self.command())
    }
}

/// Runs one seed to its end.
///
/// # Errors
/// An invariant broke, or something panicked (where panics unwind).
pub fn run(options: Options) -> Result<Summary, Box<Failed>> {
    let mut world = world::World::new(options);
    let broken = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(broken)) => broken,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Broken { check: Check::NothingPanics, what: said.unwrap_or("a panic without a word").to_owned() }
        }
    };
    let Options { seed, steps, nodes, clusters, .. } = options;
    Err(Box::new(Failed { seed, steps, nodes, clusters, step: world.step(), broken, tail: world.tail() }))
}

/// Everything around the nodes and their clients.
pub struct Env {
    now: Time,
    random: Random,
    mix: mix::Mix,
    shape: shape::Shape,
    links: links::Links,
    spy: spy::Spy,
    openings: replays::Openings,
    owners: owners::Owners,
    /// By node, all of these.
    disks: Vec<disk::Disk>,
    /// Each node's life, counted from 1.
    lives: Vec<u32>,
    is_up: Vec<bool>,
    trace: trace::Trace,
    memories: Memories,
    counts: Counts,
    users: Vec<Bare>,
    /// No faults any more, and nothing waits.
    calm: bool,
    canary: Option<Canary>,
    strikes: u64,
}

impl Env {
    /// One of these, as likely as its weight.
    fn draw(&mut self, weights: &[u64]) -> usize {
        let mut drawn = self.random.below(weights.iter().sum::<u64>().max(1));
        for (at, weight) in weights.iter().enumerate() {
            match drawn.checked_sub(*weight) {
                None => return at,
                Some(rest) => drawn = rest,
            }
        }
        0
    }

    fn count(&mut self, happening: Happening) {
        self.counts.add(happening, 1);
    }

    /// Whether this canary does its damage now: each so many-th time that it could.
    fn canary_strikes(&mut self, canary: Canary, each: u64) -> bool {
        let can = self.canary == Some(canary);
        self.strikes += u64::from(can);
        can && self.strikes.is_multiple_of(each)
    }
}
