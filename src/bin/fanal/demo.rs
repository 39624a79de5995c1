//! `fanal demo`: something to look at. Users come online over one trunk, subscribe to each other and change presence at a
//! human rate. Once that goes on it goes on: whoever's session ends, as when the node of a home is lost, logs in again.

use crate::failure::Failure;
use crate::settings::Settings;
use crate::token;
use fanal::base::config::Config;
use fanal::base::id::UserId;
use fanal::base::random::Random;
use fanal::client::{Answer, Event, Refusal, Trunk, TrunkEvent};
use fanal::presence::subscription::Action;
use fanal::wire::encode::{SubscriptionFields, Tag};
use fanal::wire::native;
use fanal::wire::presence::PresenceFields;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};

/// Longer than a busy node takes to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests sent before their answers are read, so that neither side waits for the other with full buffers.
const REQUESTS_AT_ONCE: usize = 256;
/// Between two log-ins of somebody who is refused.
const PAUSE: Duration = Duration::from_secs(1);
const RESOURCE: &str = "demo";
const SHOWS: [(native::Show, &str); 4] = [
    (native::Show::Available, "here"),
    (native::Show::Chat, "talk to me"),
    (native::Show::Away, "back soon"),
    (native::Show::DoNotDisturb, "in a meeting"),
];

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal demo
  fanal demo --users 5000 --subscribers 50 --rate 2000 --seconds 30")]
pub struct Args {
    /// Users to bring online.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    users: u32,
    /// Contacts who subscribe to each of them.
    #[arg(long, value_name = "F", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    subscribers: u32,
    /// Changes of presence per second, of all users together.
    #[arg(long, value_name = "UPDATES_PER_S", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Stop after this time instead of going on until interrupted.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    #[command(flatten)]
    settings: Settings,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let config = args.settings.load()?;
    let subscribers = args.subscribers.min(args.users - 1);
    let mut demo = Demo::connect(&config, args.users)?;
    say(&format!("{} users are online over one trunk to {}\n", args.users, config.listen.native))?;
    demo.subscribe(subscribers)?;
    say(&format!("each has {subscribers} subscribers; {} changes of presence a second from now on\n", args.rate))?;
    demo.traffic(args.rate, args.seconds.map(Duration::from_secs))
}

struct Demo {
    trunk: Trunk,
    jids: Vec<String>,
    random: Random,
    /// Requests that the node has not answered.
    unanswered: BTreeSet<Tag>,
    /// The streams whose sessions have ended, and when they log in again; `None`: they are at it.
    away: BTreeMap<u32, Option<Instant>>,
    updates: u64,
    deliveries: u64,
    /// Sessions that have ended and requests that were refused since there is traffic, and why the last one; before, the first
    /// one ends the demo.
    refused: Option<(u64, String)>,
}

impl Demo {
    fn connect(config: &Config, users: u32) -> Result<Demo, Failure> {
        let token = token::for_trunk(config, "demo", 3600)?;
        let mut trunk = Trunk::connect(&config.listen.native.to_string(), &token, PATIENCE).map_err(Failure::line)?;
        let jids: Vec<String> = (1..=users).map(|n| format!("demo{n}@{}", config.node.domain)).collect();
        trunk.log_in_all(1, &jids, RESOURCE).map_err(Failure::line)?;
        let mut demo = Demo {
            trunk,
            jids,
            random: Random::new(1),
            unanswered: BTreeSet::new(),
            away: BTreeMap::new(),
            updates: 0,
            deliveries: 0,
            refused: None,
        };
        for user in 0..demo.jids.len() {
            demo.change(user);
            demo.breathe()?;
        }
        demo.settle()?;
        Ok(demo)
    }

    /// Everybody lets the next few in, in advance, and asks the previous few: nobody has to wait for an answer.
    fn subscribe(&mut self, subscribers: u32) -> Result<(), Failure> {
        for (action, step) in [(Action::Subscribed, 1), (Action::Subscribe, self.jids.len() - 1)] {
            for user in 0..self.jids.len() {
                for nth in 1..=subscribers as usize {
                    let contact = self.jids[(user + nth * step) % self.jids.len()].as_str();
                    let fields = SubscriptionFields {
                        action: native::Action(action as u8),
                        jid: contact,
                        user: UserId::NOBODY,
                        note: "",
                        extensions: "",
                    };
                    let tag = self.trunk.send(user as u32 + 1, |encoder, out, tag| encoder.subscription(out, tag, &fields));
                    self.unanswered.insert(tag);
                    self.breathe()?;
                }
            }
            self.settle()?;
        }
        Ok(())
    }

    /// One user, at random somewhere in a day.
    fn change(&mut self, user: usize) {
        let (show, status) = SHOWS[self.random.below(SHOWS.len() as u64) as usize];
        let fields = PresenceFields { resource: RESOURCE, show, status, ..PresenceFields::default() };
        let tag = self.trunk.send(user as u32 + 1, |encoder, out, tag| encoder.set_presence(out, tag, &fields));
        self.unanswered.insert(tag);
        self.updates += 1;
    }

    fn traffic(&mut self, rate: u64, limit: Option<Duration>) -> Result<(), Failure> {
        let start = Instant::now();
        let (mut due, mut told) = (0u64, start);
        (self.updates, self.deliveries, self.refused) = (0, 0, Some((0, String::new())));
        while limit.is_none_or(|limit| start.elapsed() < limit) {
            let now = (start.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
            for _ in due..now {
                let user = self.random.below(self.jids.len() as u64) as usize;
                if !self.away.contains_key(&(user as u32 + 1)) {
                    self.change(user);
                }
            }
            due = now;
            self.log_in_again();
            self.trunk.flush().map_err(Failure::line)?;
            let pause = Instant::now() + Duration::from_millis(5);
            while Instant::now() < pause {
                self.read(pause.saturating_duration_since(Instant::now()))?;
            }
            if told.elapsed() >= Duration::from_secs(5) {
                told = Instant::now();
                self.report(start)?;
            }
        }
        self.settle()?;
        self.report(start)
    }

    fn report(&self, start: Instant) -> Result<(), Failure> {
        let seconds = start.elapsed().as_secs();
        let refused = match &self.refused {
            Some((refused @ 1.., why)) => format!("; {} are offline, {refused} refused so far: {why}", self.away.len()),
            _ => String::new(),
        };
        say(&format!("{seconds} s: {} changes of presence, {} deliveries{refused}\n", self.updates, self.deliveries))
    }

    fn log_in_again(&mut self) {
        let now = Instant::now();
        for (&stream, at) in self.away.iter_mut().filter(|(_, at)| at.is_some_and(|at| at <= now)) {
            *at = None;
            self.unanswered.insert(self.trunk.send_log_in(stream, &self.jids[stream as usize - 1], RESOURCE));
        }
    }

    fn breathe(&mut self) -> Result<(), Failure> {
        if self.unanswered.len() >= REQUESTS_AT_ONCE { self.settle() } else { Ok(()) }
    }

    /// Sends what is queued and reads until all of it is answered.
    fn settle(&mut self) -> Result<(), Failure> {
        self.trunk.flush().map_err(Failure::line)?;
        while !self.unanswered.is_empty() {
            if !self.read(PATIENCE)? {
                return Err(Failure::line("the node does not answer: look at its log, or lower --rate"));
            }
        }
        Ok(())
    }

    /// Takes one thing that the node sent. False: nothing came for this long.
    fn read(&mut self, patience: Duration) -> Result<bool, Failure> {
        match self.trunk.next(patience).map_err(Failure::line)? {
            None => return Ok(false),
            Some(TrunkEvent::Event(streams, Event::Presence(_))) => self.deliveries += streams.len() as u64,
            Some(TrunkEvent::Event(streams, Event::Refused(refusal))) => {
                self.refuse(&refusal)?;
                self.unanswered.retain(|tag| !streams.contains(&tag.stream));
                self.away.extend(streams.iter().map(|&stream| (stream, Some(Instant::now()))));
            }
            // Of a session that has ended no answer matters.
            Some(TrunkEvent::Answer(tag, answer)) if self.unanswered.remove(&tag) => self.answered(tag.stream, &answer)?,
            Some(TrunkEvent::Event(..) | TrunkEvent::Answer(..)) => {}
        }
        Ok(true)
    }

    fn answered(&mut self, stream: u32, answer: &Answer) -> Result<(), Failure> {
        match answer {
            Answer::Refused(refusal) => {
                self.refuse(refusal)?;
                if let Some(at) = self.away.get_mut(&stream) {
                    *at = Some(Instant::now() + PAUSE);
                }
            }
            Answer::LoggedIn(_) => {
                self.away.remove(&stream);
                self.change(stream as usize - 1);
            }
            _ => {}
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: &Refusal) -> Result<(), Failure> {
        match &mut self.refused {
            Some((refused, why)) if !refusal.closes() => (*refused, *why) = (*refused + 1, refusal.to_string()),
            _ => return Err(Failure::line(format!("the node refused: {refusal}"))),
        }
        Ok(())
    }
}

fn say(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::line)
}
