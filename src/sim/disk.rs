//! The store: the memory back end behind a queue, slow and faulty as drawn. It does what the storage thread does, under virtual
//! time: one transaction for all that waits, ride-along commits with the next synced one, nothing else while one is in doubt.
//!
//! Lives on: the simulator. Invariants: a core's commits are answered in their order; what is queued is lost in a crash, what was
//! applied is not.

use super::counts::{Counts, Happening};
use super::mix::Mix;
use crate::base::id::CoreId;
use crate::base::random::Random;
use crate::base::time::Time;
use crate::store::memory::{Fault, Memory};
use crate::store::{Backend, Commit, Completion, Durability, Failure, RIDE_ALONG_MS, Settled, Write};
use std::collections::VecDeque;
use std::time::Duration;

/// A commit's answer, with what it wrote.
pub struct Answered {
    pub completion: Completion,
    pub writes: Vec<Write>,
}

struct Waiting {
    since: Time,
    core: CoreId,
    commit: Commit,
}

#[derive(Default)]
pub struct Disk {
    pub memory: Memory,
    queue: VecDeque<Waiting>,
    /// Commits whose fate is unknown until the disk works again, and all since.
    doubt: Option<(Time, Vec<Waiting>)>,
    busy_until: Time,
    /// For a canary: every so many-th transaction is said to be made and isn't.
    pub forgets_each: Option<u64>,
    transactions: u64,
}

impl Disk {
    /// Takes a commit, or gives it back when the core has too many under way.
    pub fn hand_over(&mut self, now: Time, core: CoreId, commit: Commit, most: usize) -> Result<(), Commit> {
        let waiting = self.queue.iter().chain(self.doubt.iter().flat_map(|(_, commits)| commits));
        if waiting.filter(|waiting| waiting.core == core).count() >= most {
            return Err(commit);
        }
        self.queue.push_back(Waiting { since: now, core, commit });
        Ok(())
    }

    /// One transaction, if it's time for one.
    pub fn work(&mut self, now: Time, random: &mut Random, mix: &Mix, calm: bool, counts: &mut Counts) -> Vec<Answered> {
        if now < self.busy_until && !calm {
            return Vec::new();
        }
        if self.doubt.is_some() {
            return self.settle_doubt(now, random, calm);
        }
        let due = |waiting: &Waiting| waiting.commit.durability == Durability::Synced || now.since(waiting.since) >= ride_along();
        if !self.queue.iter().any(due) {
            return Vec::new();
        }
        let count = if calm || random.one_in(2) { self.queue.len() } else { 1 + random.below(self.queue.len() as u64) as usize };
        let group: Vec<Waiting> = self.queue.drain(..count).collect();
        if random.below(1000) < mix.disk_pause {
            self.busy_until = now + mix.pause.mul_f64(random.unit());
            counts.add(Happening::DiskPause, 1);
        }
        self.memory.fault = match random.below(1000) {
            _ if calm => Fault::None,
            n if n < mix.disk_refuses => Fault::Refuse("the disk is full: make room".into()),
            n if n < mix.disk_refuses + mix.disk_doubts => Fault::Doubt("the disk does not answer: look after it".into()),
            _ => Fault::None,
        };
        self.transactions += 1;
        if self.forgets_each.is_some_and(|each| self.transactions.is_multiple_of(each)) {
            return answers(group, &Ok(()));
        }
        let commits: Vec<Commit> = group.iter().map(|waiting| waiting.commit.clone()).collect();
        match self.memory.apply(&commits) {
            Ok(_) => answers(group, &Ok(())),
            Err(Failure::Refused(why)) => {
                counts.add(Happening::DiskRefusal, 1);
                answers(group, &Err(why))
            }
            Err(Failure::InDoubt(_)) => {
                counts.add(Happening::DiskDoubt, 1);
                self.doubt = Some((now + mix.pause.mul_f64(random.unit()), group));
                Vec::new()
            }
        }
    }

    /// Refuses what came meanwhile, and says what became of the transaction in doubt when that is known: it may be there or not.
    fn settle_doubt(&mut self, now: Time, random: &mut Random, calm: bool) -> Vec<Answered> {
        let refused = Err("the disk did not answer: try again".into());
        let came = std::mem::take(&mut self.queue).into_iter();
        let (new, late): (Vec<_>, Vec<_>) = came.partition(|waiting| waiting.commit.durability == Durability::Synced);
        self.queue.extend(late);
        let mut answered = answers(new, &refused);
        let Some((_, commits)) = self.doubt.take_if(|(settled_at, _)| calm || now >= *settled_at) else { return answered };
        self.memory.fault = Fault::None;
        let healed = self.memory.heal().expect("a disk without a fault heals");
        assert_eq!(healed, Settled::NotMade, "memory makes nothing that it reports as in doubt");
        if random.one_in(2) {
            let made: Vec<Commit> = commits.iter().map(|waiting| waiting.commit.clone()).collect();
            self.memory.apply(&made).expect("there is no fault");
            answered.extend(answers(commits, &Ok(())));
        } else {
            answered.extend(answers(commits, &refused));
        }
        answered
    }

    /// The process is gone: what was not applied is lost.
    pub fn crash(&mut self) {
        self.queue.clear();
        self.doubt = None;
        self.busy_until = Time::ZERO;
        self.memory.fault = Fault::None;
    }

    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty() || self.doubt.is_some()
    }
}

fn ride_along() -> u64 {
    Duration::from_millis(RIDE_ALONG_MS).as_nanos() as u64
}

fn answers(group: Vec<Waiting>, result: &Result<(), String>) -> Vec<Answered> {
    let synced = group.into_iter().filter(|waiting| waiting.commit.durability == Durability::Synced);
    synced
        .map(|Waiting { core, commit, .. }| Answered {
            completion: Completion { core, ticket: commit.ticket, result: result.clone() },
            writes: commit.writes,
        })
        .collect()
}
