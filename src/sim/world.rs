//! One run: the steps, then calm, then every check.
//!
//! Lives on: the simulator. In each step some cores take a turn, or some clients read, or one actor does one thing, whichever is
//! drawn, and time passes in between: so any order of events comes up, and any delay. Then faults stop, everything comes to
//! rest, and the final state is looked at; so it is once more after a last crash, and when everybody has gone.

use super::check::{Check, Held, converged, gentle, kept, released};
use super::client::Client;
use super::counts::{Counts, Happening};
use super::disk::Disk;
use super::lies::lie;
use super::links::Links;
use super::mix::Mix;
use super::node::Node;
use super::nodes::{Nodes, all_stored};
use super::owners::Owners;
use super::replays::replay;
use super::shape::Shape;
use super::trace::Trace;
use super::{Env, Options, Summary};
use crate::base::credentials::ScramCredentials;
use crate::base::jid::Bare;
use crate::base::random::Random;
use crate::base::time::Time;
use crate::presence::errand::What;
use crate::shard::Answer;
use crate::shard::batch::Order;
use std::time::Duration;

/// Rounds after which what is still busy will never come to rest.
const PATIENCE: u32 = 100_000;

pub struct World {
    env: Env,
    nodes: Nodes,
    clients: Vec<Client>,
    steps: u64,
}

impl World {
    pub fn new(options: Options) -> World {
        let mut random = Random::new(options.seed);
        let mix = Mix::draw(&mut random);
        let shape = Shape::draw(options.seed, mix.cores, options.nodes, options.clusters);
        let users = (0..mix.users).map(|n| shape.user(n)).collect();
        let clients = (0..mix.clients).map(|n| Client::new(n as usize, n < mix.trunks, n as usize % shape.clusters)).collect();
        let all = shape.cores.len();
        let mut env = Env {
            now: Time(1_000_000_000),
            random,
            mix,
            links: Links::default(),
            spy: Default::default(),
            openings: Default::default(),
            owners: Owners::new(&shape),
            disks: (0..all).map(|_| Disk::default()).collect(),
            lives: vec![0; all],
            is_up: vec![false; all],
            trace: Trace::new(options.tail),
            memories: Default::default(),
            counts: Counts::default(),
            users,
            calm: false,
            canary: options.canary,
            strikes: 0,
            shape,
        };
        env.trace.note(env.now, format_args!("{:?}", env.mix));
        env.trace.note(env.now, format_args!("{:?}", env.shape));
        let nodes = Nodes::start(&mut env);
        World { env, nodes, clients, steps: options.steps }
    }

    pub fn step(&self) -> u64 {
        self.env.trace.step
    }

    pub fn tail(&self) -> Vec<String> {
        self.env.trace.tail()
    }

    pub fn run(&mut self) -> Result<Summary, super::check::Broken> {
        for jid in self.env.users.clone() {
            if self.env.random.one_in(2) {
                self.add_user(&jid);
            }
        }
        for step in 1..=self.steps {
            self.env.trace.step = step;
            self.take_step()?;
        }
        self.come_to_rest(self.env.shape.settles_in())?;
        self.say_last_words()?;
        self.check_all(false)?;
        gentle::check(&self.env, &self.nodes)?;
        self.start_over()?;
        self.check_all(true)?;
        self.everybody_leaves()?;
        Ok(self.summary())
    }

    fn take_step(&mut self) -> Held {
        let mix = &self.env.mix;
        let often = [mix.turns, mix.reads, mix.acts, mix.disk_works];
        let seldom = [mix.crashes, mix.drops, mix.leaps, mix.operator, mix.storms];
        let shape = &self.env.shape;
        let between = [shape.cuts, shape.breaks, shape.lies, shape.replays];
        let weights: Vec<u64> = often.into_iter().chain(seldom).chain(between).map(|weight| weight * 10).collect();
        let pace = mix.pace.as_nanos() as u64;
        self.env.now = Time(self.env.now.0 + self.env.random.below(2 * pace));
        let kind = self.env.draw(&weights);
        let client = self.env.random.below(self.clients.len() as u64) as usize;
        match kind {
            0 => self.nodes.turn_some(&mut self.env)?,
            1 => {
                for client in &mut self.clients {
                    if self.env.random.one_in(2) {
                        client.hear(&mut self.env)?;
                    }
                }
            }
            2 => self.clients[client].act(&mut self.env, &mut self.nodes),
            3 => self.nodes.let_disks_work(&mut self.env),
            4 => self.crash(),
            5 => self.clients[client].die(&mut self.env),
            6 => self.env.now = self.env.now + Duration::from_secs(3).mul_f64(self.env.random.unit()),
            7 => self.operate(),
            8 => self.storm(),
            9 => self.cut(),
            10 => self.break_connection(),
            11 => lie(&mut self.env, &mut self.nodes),
            _ => replay(&mut self.env, &mut self.nodes),
        }
        self.nodes.revive(&mut self.env);
        self.note_answers();
        Ok(())
    }

    /// Everybody is cut off, and is back at once.
    fn storm(&mut self) {
        self.env.trace.note(self.env.now, format_args!("everybody is cut off"));
        self.env.count(Happening::Storm);
        for client in &mut self.clients {
            client.die(&mut self.env);
            client.connect(&mut self.env, &mut self.nodes);
        }
    }

    fn add_user(&mut self, jid: &Bare) {
        let credentials = ScramCredentials::from_password("secret", b"sixteen bytes of", 1);
        self.order(jid, What::Create(Some(Box::new(credentials))));
    }

    /// The operator speaks with a node of the user's cluster, mostly the one that keeps the user.
    fn order(&mut self, jid: &Bare, what: What) {
        let env = &mut self.env;
        let home = env.shape.home(jid);
        let up: Vec<usize> = env.shape.of_cluster(env.shape.cluster_of(home)).filter(|&node| env.is_up[node]).collect();
        let asked = if up.len() > 1 && env.random.one_in(4) { env.random.pick(&up).copied() } else { Some(home) };
        if let Some(node) = asked.filter(|node| up.contains(node)) {
            self.nodes.nodes[node].order(env, jid, Order::Errand { jid: jid.clone(), what });
        }
    }

    fn operate(&mut self) {
        let jid = self.env.random.pick(&self.env.users).expect("there are users").clone();
        match self.env.random.below(3) {
            0 => self.add_user(&jid),
            1 => {
                self.env.memories.wishes.remove(&jid);
                self.order(&jid, What::Remove);
            }
            _ => self.order(&jid, What::Transfer { address: "elsewhere:5290".into() }),
        }
        self.env.trace.note(self.env.now, format_args!("the operator wants something of {jid}"));
    }

    fn note_answers(&mut self) {
        for (ticket, answer) in self.nodes.nodes.iter_mut().flat_map(Node::take_answers) {
            if let Answer::Transferred(sessions) = answer {
                self.env.counts.add(Happening::Transferred, sessions as u64);
            }
            self.env.trace.note(self.env.now, format_args!("the operator's order {ticket} is answered: {answer:?}"));
        }
    }

    /// A node's machine stops at once, and starts again.
    fn crash(&mut self) {
        if self.env.shape.is_gentle {
            return;
        }
        let number = if self.env.shape.is_alone() { 0 } else { self.env.random.below(self.env.shape.cores.len() as u64) as usize };
        let down = self.env.shape.down;
        let down = if down.is_zero() { down } else { down.mul_f64(self.env.random.unit()) };
        self.crash_node(number, down);
    }

    fn crash_node(&mut self, number: usize, down: Duration) {
        if self.nodes.nodes[number].down_until.is_some() {
            return;
        }
        self.env.trace.note(self.env.now, format_args!("node {number} crashes"));
        self.env.count(Happening::Crash);
        let until = self.env.now + down;
        self.nodes.nodes[number].crash(&mut self.env, until);
        self.nodes.revive(&mut self.env);
    }

    /// For a while nothing gets from a node to another one, or in neither direction.
    fn cut(&mut self) {
        let env = &mut self.env;
        let all = env.shape.cores.len() as u64;
        let from = env.random.below(all);
        let (from, to) = (from as usize, ((from + 1 + env.random.below(all - 1)) % all) as usize);
        let (until, both) = (env.now + env.shape.cut.mul_f64(env.random.unit()), env.random.one_in(2));
        env.trace.note(env.now, format_args!("nothing gets from node {from} to {to} until {until:?}, nor back: {both}"));
        env.count(if both { Happening::Cut } else { Happening::OneWayCut });
        env.links.cut(from, to, until);
        if both {
            env.links.cut(to, from, until);
        }
    }

    fn break_connection(&mut self) {
        if self.env.links.break_one(&mut self.env.random) {
            self.env.trace.note(self.env.now, format_args!("a connection between nodes breaks"));
            self.env.count(Happening::LinkBroken);
        }
    }

    /// Faults stop, and everything under way gets done, time-outs included: those between nodes within `settle`.
    fn come_to_rest(&mut self, settle: Duration) -> Held {
        let env = &mut self.env;
        env.calm = true;
        env.links.calm();
        let until = env.now + Duration::from_millis(u64::from(env.mix.limits.resume_ms) + 3000) + settle;
        for _ in 0..PATIENCE {
            self.env.links.calm();
            self.nodes.revive(&mut self.env);
            self.nodes.turn_all(&mut self.env)?;
            for client in &mut self.clients {
                client.hear(&mut self.env)?;
            }
            self.note_answers();
            let busy = self.is_busy();
            if !busy && self.env.now >= until {
                return Ok(());
            }
            self.env.now = self.env.now + if busy { Duration::from_millis(1) } else { self.env.shape.idles_for() };
        }
        Check::AllComesToRest.holds(false, || {
            let (apart, links) = (self.nodes.apart(), self.env.links.are_busy());
            let cores: Vec<usize> = self.nodes.cores().filter(|core| core.is_busy()).map(|core| core.node).collect();
            format!("after {PATIENCE} rounds there is still something to do: apart {apart:?}, links {links}, cores of {cores:?}")
        })
    }

    fn is_busy(&self) -> bool {
        self.nodes.apart().is_some()
            || self.env.links.are_busy()
            || self.env.disks.iter().any(Disk::is_busy)
            || self.nodes.cores().any(|core| core.is_busy() || core.has_to_hear_of_owners(&self.env))
    }

    /// Everybody looks at their clients, says what has come, and once more how they are.
    fn say_last_words(&mut self) -> Held {
        for client in &mut self.clients {
            let streams: Vec<u32> = client.sessions.iter().filter(|(_, s)| s.may_ask()).map(|(&stream, _)| stream).collect();
            for stream in streams {
                client.acknowledge(&mut self.env, stream);
                client.set_active(&mut self.env, stream, true);
                client.change_presence(&mut self.env, stream);
            }
        }
        self.come_to_rest(Duration::ZERO)
    }

    /// A last crash; then everybody who can logs in and goes online.
    fn start_over(&mut self) -> Held {
        self.env.shape.all().for_each(|number| self.crash_node(number, Duration::ZERO));
        self.come_to_rest(self.env.shape.meets_in())?;
        for _ in 0..3 {
            for client in &mut self.clients {
                client.act(&mut self.env, &mut self.nodes);
            }
            self.come_to_rest(Duration::ZERO)?;
        }
        self.say_last_words()
    }

    fn everybody_leaves(&mut self) -> Held {
        for client in &mut self.clients {
            client.die(&mut self.env);
        }
        self.come_to_rest(Duration::ZERO)?;
        released::check(&self.env, &self.nodes)
    }

    /// `faultless`: nothing has gone wrong since the last start.
    fn check_all(&self, faultless: bool) -> Held {
        let stored = &all_stored(&self.env);
        converged::all_answered(&self.clients)?;
        kept::rosters_agree(stored, &self.env.memories.wishes, faultless)?;
        self.env.memories.wishes.check(stored)?;
        self.nodes.cores().try_for_each(|core| kept::memory_is_what_is_stored(&core.shard.homes, stored))?;
        converged::check(&self.nodes, &self.clients, stored)?;
        self.env.memories.post.check(stored, &self.env.memories.wishes)
    }

    fn summary(&mut self) -> Summary {
        self.nodes.nodes.iter().for_each(|node| node.count_life(&mut self.env.counts));
        Summary { trace_hash: self.env.trace.hash(), counts: self.env.counts }
    }
}
