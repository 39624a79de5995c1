//! A simulated node: its cores, and how it starts from what was stored, as `node::Node::start` does.
//!
//! Lives on: the simulator. Invariant: what a crash leaves is the disk's rows and nothing else.

use super::check::Held;
use super::core::Core;
use super::counts::{Counts, Happening};
use super::owners::Known;
use super::{Canary, Env};
use crate::base::id::{CoreId, UserId, home_of_slot, slot_of};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::secrets::Secrets;
use crate::base::time::{Time, WallClock};
use crate::front::doors::{Doors, Speaks};
use crate::front::sasl::Decoys;
use crate::front::token::Keys;
use crate::metrics::meter::Units;
use crate::presence::home::Place;
use crate::presence::user::User;
use crate::ring::exchange::exchange;
use crate::shard::batch::{Command, Order};
use crate::shard::{Answer, LinkTerms, Settings, Shard};
use crate::store::rows::{self, Row};
use crate::store::{Backend, Table};
use std::sync::Arc;

pub const DOMAIN: &str = "sim";
/// The wall clock when virtual time stands at 0.
pub const WALL: WallClock = WallClock(1_700_000_000_000);

pub struct Node {
    /// Among all, from 0.
    pub number: usize,
    /// None while it is down.
    pub cores: Vec<Core>,
    /// Counts the node's lives.
    pub epoch: u32,
    /// When it starts again.
    pub down_until: Option<Time>,
}

/// The key that signs all tokens of the simulator.
pub fn keys() -> Keys {
    Keys::new(["the simulator's one key"]).expect("it's long enough")
}

impl Node {
    pub fn start(env: &mut Env, number: usize) -> Node {
        let disk = &mut env.disks[number];
        let epoch = disk.memory.begin_epoch().expect("a disk without faults takes it");
        disk.forgets_each = (env.canary == Some(Canary::CommitForgotten)).then_some(5);
        let mut secrets = Secrets::from_number(env.random.next_u64());
        let terms = env.shape.terms(number, epoch, &env.mix.limits);
        let owners = env.owners.start(&env.shape, number, &env.disks[number].memory);
        let cores = env.shape.cores[number];
        let mut shards: Vec<Shard> =
            (0..cores).map(|core| shard(env, (number, CoreId(core)), epoch, &terms, &mut secrets)).collect();
        if let Some(owners) = &owners {
            shards.iter_mut().for_each(|shard| shard.out.map.set_owners(owners.clone()));
        }
        load(env, number, &mut shards);
        count_ways(env, number);
        env.memories.approvals.started(&env.disks[number].memory, |jid| env.shape.home(jid) == number);
        let cores = shards.len();
        let mut ends: Vec<(Vec<_>, Vec<_>)> =
            (0..cores).map(|_| ((0..cores).map(|_| None).collect(), (0..cores).map(|_| None).collect())).collect();
        for sender in 0..cores {
            for receiver in (0..cores).filter(|&receiver| receiver != sender) {
                let (out, inward) = exchange(env.mix.ring);
                ends[sender].0[receiver] = Some(out);
                ends[receiver].1[sender] = Some(inward);
            }
        }
        let known = || owners.clone().map(Known::new);
        let core = |(shard, (to, from))| Core::new(number, shard, known(), to, from);
        let cores = shards.into_iter().zip(ends).map(core).collect();
        (env.lives[number], env.is_up[number]) = (epoch, true);
        Node { number, cores, epoch, down_until: None }
    }

    /// The machine stops at once.
    pub fn crash(&mut self, env: &mut Env, until: Time) {
        self.count_life(&mut env.counts);
        for core in &self.cores {
            env.memories.approvals.stopped(&core.shard, env.now);
        }
        env.disks[self.number].crash();
        env.links.break_all(self.number);
        env.is_up[self.number] = false;
        self.cores.clear();
        self.down_until = Some(until);
    }

    pub fn home(&self, jid: &Bare) -> usize {
        usize::from(home_of_slot(slot_of(jid.as_str()), self.cores.len() as u16).0)
    }

    /// A user at home.
    pub fn user(&self, jid: &Bare) -> Option<&User> {
        let homes = &self.cores[self.home(jid)].shard.homes;
        homes.get(homes.by_name(jid)?)
    }

    pub fn by_id(&self, user: UserId) -> Option<&User> {
        let homes = &self.cores[usize::from(user.home(self.cores.len() as u16).0)].shard.homes;
        homes.get(homes.by_user(user)?)
    }

    /// The operator wants something of a user's core.
    pub fn order(&mut self, env: &Env, jid: &Bare, order: Order) {
        let home = self.home(jid);
        self.cores[home].shard.command(env.now, Command { ticket: env.trace.step, order });
    }

    /// The disk makes a transaction, if there's one to make, and the cores hear of it later.
    pub fn let_disk_work(&mut self, env: &mut Env) {
        if self.cores.is_empty() {
            return;
        }
        for answered in env.disks[self.number].work(env.now, &mut env.random, &env.mix, env.calm, &mut env.counts) {
            let pause = if env.random.below(1000) < env.mix.disk_pause { env.random.unit() } else { 0.0 };
            let core = usize::from(answered.completion.core.0);
            self.cores[core].answer(env.now + env.mix.pause.mul_f64(pause), answered);
        }
    }

    /// Some cores take a turn.
    pub fn turn_some(&mut self, env: &mut Env) -> Held {
        for core in &mut self.cores {
            if env.random.one_in(2) {
                core.turn(env)?;
            }
        }
        Ok(())
    }

    /// Everything there is to do at this moment, once around.
    pub fn turn_all(&mut self, env: &mut Env) -> Held {
        self.let_disk_work(env);
        self.cores.iter_mut().try_for_each(|core| core.turn(env))
    }

    /// Adds what the cores have counted in this life.
    pub fn count_life(&self, counts: &mut Counts) {
        for core in &self.cores {
            let (homes, edge, dropped) = (core.shard.homes.counters, core.shard.edge.counters, &core.shard.recorder.dropped);
            let counted = [
                (Happening::LogIn, homes.log_ins),
                (Happening::LogOut, homes.log_outs),
                (Happening::Resume, homes.resumes),
                (Happening::Update, homes.updates),
                (Happening::PutOff, homes.put_off),
                (Happening::Watch, homes.watches),
                (Happening::WatchRefused, homes.refused_watches),
                (Happening::Probe, homes.probes),
                (Happening::Change, homes.changes),
                (Happening::ChangeFailed, homes.failed_changes),
                (Happening::Message, homes.messages),
                (Happening::DocumentRead, homes.document_reads),
                (Happening::MessageKept, homes.messages_kept),
                (Happening::Delivery, edge.deliveries),
                (Happening::Conflated, edge.conflated),
                (Happening::LocalSnapshot, edge.local_snapshots),
                (Happening::Replaced, dropped.get(Reason::Replaced)),
                (Happening::NeverReads, dropped.get(Reason::NeverReads)),
                (Happening::Silent, dropped.get(Reason::Silent)),
                (Happening::LogInTooSlow, dropped.get(Reason::LogInTooSlow)),
                (Happening::Nonsense, dropped.get(Reason::BadFrame) + dropped.get(Reason::FrameTooLarge)),
                (Happening::Overloaded, dropped.get(Reason::Overloaded)),
                (Happening::TooManyPending, dropped.get(Reason::TooManyPending)),
                (Happening::TooManyContacts, dropped.get(Reason::TooManyContacts)),
                (Happening::TooManyBlocked, dropped.get(Reason::TooManyBlocked)),
                (Happening::TooManyDirected, dropped.get(Reason::TooManyDirected)),
                (Happening::TooManyMessages, dropped.get(Reason::TooManyMessages)),
                (Happening::TooManySessions, dropped.get(Reason::TooManySessions)),
            ];
            counted.into_iter().for_each(|(happening, times)| counts.add(happening, times));
        }
    }

    pub fn take_answers(&mut self) -> Vec<(u64, Answer)> {
        self.cores.iter_mut().flat_map(|core| std::mem::take(&mut core.answers)).collect()
    }
}

type Terms = Option<Arc<LinkTerms>>;

fn shard(env: &Env, (number, core): (usize, CoreId), epoch: u32, terms: &Terms, secrets: &mut Secrets) -> Shard {
    let (shape, domain, limits) = (&env.shape, DOMAIN.to_owned(), Arc::new(env.mix.limits.clone()));
    let (site, cores) = (shape.site(number), shape.cores[number]);
    let wall_at_zero = WallClock(WALL.0.saturating_add_signed(shape.skew(number)));
    let (cluster, directory) = (site.cluster, shape.directory());
    let place = Place { cluster, directory, epoch, domain: domain.clone(), limits: limits.clone(), wall_at_zero };
    let decoys = Decoys::new([7; 32]);
    let (token_keys, trunk_keys, units) = (keys(), keys(), Units::default());
    let settings = Settings {
        links: terms.clone(),
        node: site.node,
        core,
        cores,
        domain,
        limits,
        token_keys,
        trunk_keys,
        doors: Doors { listeners: vec![Speaks::Native, Speaks::Link], ..Doors::default() },
        plain: true,
        open_registration: true,
        hook: false,
        decoys,
        sample: 0,
        units,
        clock: || Time::ZERO,
    };
    let mut shard = Shard::new(settings, place, secrets.fork());
    if !shape.is_alone() {
        shard.out.map.set_owners(shape.owners());
    }
    shard
}

/// Subscription changes that a crash has caught on their way.
fn count_ways(env: &mut Env, number: usize) {
    for (_, row) in env.disks[number].memory.rows(Table::Ways) {
        env.counts.add(Happening::WayAgain, 1);
        let arrived = rows::Way::decode(row).expect("rows are sound").arrived.is_some();
        env.counts.add(Happening::WayArrivedBefore, u64::from(arrived));
    }
}

fn load(env: &Env, number: usize, shards: &mut [Shard]) {
    let cores = shards.len() as u16;
    for table in Table::ALL {
        let mut row = |key: &[u8], value: &[u8]| {
            let owner = key.split(|&byte| byte == 0).next().unwrap_or_default();
            let home = home_of_slot(slot_of(std::str::from_utf8(owner).unwrap_or_default()), cores);
            for shard in shards.iter_mut().filter(|shard| table == Table::Meta || shard.settings.core == home) {
                shard.load(table, key, value).unwrap_or_else(|why| panic!("a stored row can't be loaded: {why}"));
            }
            Ok(())
        };
        env.disks[number].memory.load(table, &mut row, &mut |_, _| ()).expect("memory has no bad rows");
    }
    shards.iter_mut().for_each(|shard| shard.homes.start(&mut shard.out));
}
