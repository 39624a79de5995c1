//! One run: the steps, then calm, then every check.
//!
//! Lives on: the simulator. In each step some cores take a turn, or some clients read, or one actor does one thing, whichever is
//! drawn, and time passes in between: so any order of events comes up, and any delay. Then faults stop, everything comes to
//! rest, and the final state is looked at; so it is once more after a last crash, and when everybody has gone.

use super::check::{Check, Held, converged, kept, released};
use super::client::Client;
use super::counts::{Counts, Happening};
use super::disk::Disk;
use super::links::Links;
use super::mix::Mix;
use super::node::{DOMAIN, Node};
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
    node: Node,
    clients: Vec<Client>,
    steps: u64,
}

impl World {
    pub fn new(options: Options) -> World {
        let mut random = Random::new(options.seed);
        let mix = Mix::draw(&mut random);
        let users = (0..mix.users).map(|n| Bare::new(&format!("u{n}@{DOMAIN}")).expect("a JID")).collect();
        let clients = (0..mix.clients).map(|n| Client::new(n as usize, n < mix.trunks)).collect();
        let mut env = Env {
            now: Time(1_000_000_000),
            random,
            mix,
            links: Links::default(),
            disk: Disk::default(),
            trace: Trace::new(options.tail),
            memories: Default::default(),
            counts: Counts::default(),
            users,
            life: 1,
            calm: false,
            canary: options.canary,
            strikes: 0,
        };
        env.trace.note(env.now, format_args!("{:?}", env.mix));
        let node = Node::start(&mut env);
        World { env, node, clients, steps: options.steps }
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
        self.come_to_rest()?;
        self.say_last_words()?;
        self.check_all(false)?;
        self.start_over()?;
        self.check_all(true)?;
        self.everybody_leaves()?;
        Ok(self.summary())
    }

    fn take_step(&mut self) -> Held {
        let mix = &self.env.mix;
        let often = [mix.turns, mix.reads, mix.acts, mix.disk_works];
        let seldom = [mix.crashes, mix.drops, mix.leaps, mix.operator, mix.storms];
        let weights: Vec<u64> = often.into_iter().chain(seldom).map(|weight| weight * 10).collect();
        let pace = mix.pace.as_nanos() as u64;
        self.env.now = Time(self.env.now.0 + self.env.random.below(2 * pace));
        let kind = self.env.draw(&weights);
        let client = self.env.random.below(self.clients.len() as u64) as usize;
        match kind {
            0 => self.node.turn_some(&mut self.env)?,
            1 => {
                for client in &mut self.clients {
                    if self.env.random.one_in(2) {
                        client.hear(&mut self.env)?;
                    }
                }
            }
            2 => self.clients[client].act(&mut self.env, &mut self.node),
            3 => self.node.let_disk_work(&mut self.env),
            4 => self.crash(),
            5 => self.clients[client].die(&mut self.env),
            6 => self.env.now = self.env.now + Duration::from_secs(3).mul_f64(self.env.random.unit()),
            7 => self.operate(),
            _ => self.storm(),
        }
        self.note_answers();
        Ok(())
    }

    /// Everybody is cut off, and is back at once.
    fn storm(&mut self) {
        self.env.trace.note(self.env.now, format_args!("everybody is cut off"));
        self.env.count(Happening::Storm);
        for client in &mut self.clients {
            client.die(&mut self.env);
            client.connect(&mut self.env, &mut self.node);
        }
    }

    fn add_user(&mut self, jid: &Bare) {
        let credentials = ScramCredentials::from_password("secret", b"sixteen bytes of", 1);
        self.node.order(&self.env, jid, Order::Errand { jid: jid.clone(), what: What::Create(Some(Box::new(credentials))) });
    }

    fn operate(&mut self) {
        let jid = self.env.random.pick(&self.env.users).expect("there are users").clone();
        match self.env.random.below(3) {
            0 => self.add_user(&jid),
            1 => {
                self.env.memories.wishes.remove(&jid);
                self.node.order(&self.env, &jid, Order::Errand { jid: jid.clone(), what: What::Remove });
            }
            _ => self.node.order(
                &self.env,
                &jid,
                Order::Errand { jid: jid.clone(), what: What::Transfer { address: "elsewhere:5290".into() } },
            ),
        }
        self.env.trace.note(self.env.now, format_args!("the operator wants something of {jid}"));
    }

    fn note_answers(&mut self) {
        for (ticket, answer) in self.node.take_answers() {
            if let Answer::Transferred(sessions) = answer {
                self.env.counts.add(Happening::Transferred, sessions as u64);
            }
            self.env.trace.note(self.env.now, format_args!("the operator's order {ticket} is answered: {answer:?}"));
        }
    }

    /// The node's machine stops at once, and starts again.
    fn crash(&mut self) {
        self.env.trace.note(self.env.now, format_args!("the node crashes"));
        self.node.count_life(&mut self.env.counts);
        self.env.count(Happening::Crash);
        self.env.disk.crash();
        self.env.links.break_all();
        self.node = Node::start(&mut self.env);
        self.env.life = self.node.epoch;
    }

    /// Faults stop, and everything under way gets done, time-outs included.
    fn come_to_rest(&mut self) -> Held {
        let env = &mut self.env;
        env.calm = true;
        env.links.calm();
        let until = env.now + Duration::from_millis(u64::from(env.mix.limits.resume_ms) + 3000);
        for _ in 0..PATIENCE {
            self.env.links.calm();
            self.node.turn_all(&mut self.env)?;
            for client in &mut self.clients {
                client.hear(&mut self.env)?;
            }
            self.note_answers();
            let busy = self.is_busy();
            if !busy && self.env.now >= until {
                return Ok(());
            }
            self.env.now = self.env.now + Duration::from_millis(if busy { 1 } else { 50 });
        }
        Check::AllComesToRest.holds(false, || format!("after {PATIENCE} rounds there is still something to do"))
    }

    fn is_busy(&self) -> bool {
        self.env.links.are_busy() || self.env.disk.is_busy() || self.node.cores.iter().any(|core| core.is_busy())
    }

    /// Everybody looks at their clients, and says once more how they are.
    fn say_last_words(&mut self) -> Held {
        for client in &mut self.clients {
            let streams: Vec<u32> = client.sessions.iter().filter(|(_, s)| s.may_ask()).map(|(&stream, _)| stream).collect();
            for stream in streams {
                client.set_active(&mut self.env, stream, true);
                client.change_presence(&mut self.env, stream);
            }
        }
        self.come_to_rest()
    }

    /// A last crash; then everybody who can logs in and goes online.
    fn start_over(&mut self) -> Held {
        self.crash();
        self.come_to_rest()?;
        for _ in 0..3 {
            for client in &mut self.clients {
                client.act(&mut self.env, &mut self.node);
            }
            self.come_to_rest()?;
        }
        self.say_last_words()
    }

    fn everybody_leaves(&mut self) -> Held {
        for client in &mut self.clients {
            client.die(&mut self.env);
        }
        self.come_to_rest()?;
        released::check(&self.env, &self.node)
    }

    /// `faultless`: nothing has gone wrong since the last start.
    fn check_all(&self, faultless: bool) -> Held {
        let stored = &self.env.disk.memory;
        let heard = converged::all_answered(&self.clients)?;
        kept::rosters_agree(stored, &self.env.memories.wishes, faultless)?;
        self.env.memories.wishes.check(stored)?;
        self.node.cores.iter().try_for_each(|core| kept::memory_is_what_is_stored(&core.shard.homes, stored))?;
        converged::check(&self.node, &self.clients, stored)?;
        self.env.memories.post.check(&heard, stored, &self.env.memories.wishes)
    }

    fn summary(&mut self) -> Summary {
        self.node.count_life(&mut self.env.counts);
        Summary { trace_hash: self.env.trace.hash(), counts: self.env.counts }
    }
}
