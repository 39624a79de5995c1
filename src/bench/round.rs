//! Measured times: what was said and heard in one, what the server used for it, and in which order they are taken.
//!
//! Lives on: the generator's pinned thread. Serves G6. Invariant: reading the server's counters stays outside the measured time,
//! since it would disturb it.

use super::progress::Progress;
use super::report::{Report, median};
use super::talk::{Balance, Counted, Pace, Talk, Traffic};
use hdrhistogram::Histogram;
use std::io;
use std::time::Duration;

/// Time before each measured time, for the loop to find its stride.
const WARM_UP: Duration = Duration::from_millis(300);

/// What a server tells of itself.
pub trait Meter {
    /// Nanoseconds of processor time so far, kernel included; `None` when it can't be known.
    fn cpu_ns(&self) -> io::Result<Option<u64>>;

    /// Sends so far; `None` when it can't be known.
    fn sends(&self) -> io::Result<Option<u64>>;
}

/// One measured time with what the server used in it.
pub struct Round {
    pub counted: Counted,
    pub balance: Balance,
    cpu_ns: Option<u64>,
    sends_per_delivery: f64,
}

impl Round {
    /// Lets the users talk at this pace: a warm-up, the measured time, and until everything has arrived.
    ///
    /// # Errors
    /// As `Talk::run`; or the server can't be asked.
    pub fn run<T: Traffic>(
        talk: &mut Talk<T>,
        pace: Pace,
        time: Duration,
        progress: &Progress,
        meter: &impl Meter,
    ) -> io::Result<Round> {
        talk.set_pace(pace);
        let sends = meter.sends()?;
        let before = talk.delivered();
        progress.begin_time("warm-up", WARM_UP);
        talk.run(WARM_UP, progress)?;
        progress.begin_time("measuring", time);
        let cpu_ns = meter.cpu_ns()?;
        let counted = talk.run(time, progress)?;
        let cpu_ns = meter.cpu_ns()?.zip(cpu_ns).map(|(after, before)| after - before);
        let balance = talk.drain()?;
        let sends = meter.sends()?.zip(sends).map_or(f64::NAN, |(after, before)| (after - before) as f64);
        let sends_per_delivery = sends / (talk.delivered() - before).max(1) as f64;
        Ok(Round { counted, balance, cpu_ns, sends_per_delivery })
    }

    pub fn deliveries_per_s(&self) -> f64 {
        self.counted.deliveries as f64 / self.counted.seconds
    }

    pub fn updates_per_s(&self) -> f64 {
        self.counted.updates as f64 / self.counted.seconds
    }

    /// Nanoseconds; not a number when the server's time can't be known.
    pub fn cpu_per_delivery(&self) -> f64 {
        self.cpu_ns.map_or(f64::NAN, |nanos| nanos as f64 / self.counted.deliveries.max(1) as f64)
    }

    /// Share of a processor's time that the server used; above 1 when it has several.
    pub fn server_load(&self) -> f64 {
        self.cpu_ns.map_or(f64::NAN, |nanos| nanos as f64 / (self.counted.seconds * 1e9))
    }

    pub fn sends_per_delivery(&self) -> f64 {
        self.sends_per_delivery
    }
}

/// Which rounds are taken.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Updates a second of the only round, an open loop; 0: rounds of the closed loop.
    pub rate: f64,
    /// After the closed loop, an open one at this share of what it made, for the latency; 0: none.
    pub load: f64,
    /// Of the closed loop.
    pub window: u32,
    /// Length of a round.
    pub time: Duration,
    /// Rounds of the closed loop.
    pub rounds: u32,
}

/// The rounds of one of those that are compared.
pub struct Rounds {
    closed: Vec<Round>,
    open: Option<Round>,
}

impl Schedule {
    /// Takes the rounds of all that are `compared` by turns, so that they see the same machine. The first one's closed loop says at
    /// which rate all of them take the open one.
    ///
    /// # Errors
    /// Those of the rounds.
    ///
    /// # Panics
    /// When nothing is compared.
    pub fn take(&self, compared: &mut [&mut dyn FnMut(Pace) -> io::Result<Round>]) -> io::Result<Vec<Rounds>> {
        let mut taken: Vec<Rounds> = compared.iter().map(|_| Rounds { closed: Vec::new(), open: None }).collect();
        let mut rate = self.rate;
        if rate <= 0.0 {
            for _ in 0..self.rounds {
                for (taken, round) in taken.iter_mut().zip(compared.iter_mut()) {
                    taken.closed.push(round(Pace::Closed { window: self.window })?);
                }
            }
            rate = taken[0].middle(Round::updates_per_s) * self.load;
        }
        if rate > 0.0 {
            for (taken, round) in taken.iter_mut().zip(compared) {
                taken.open = Some(round(Pace::Open { per_second: rate })?);
            }
        }
        Ok(taken)
    }
}

impl Rounds {
    /// The rounds whose throughput counts: the closed loop's, or the only one of a given rate.
    pub fn steady(&self) -> &[Round] {
        if self.closed.is_empty() { self.open.as_slice() } else { &self.closed }
    }

    /// The median of a figure over the steady rounds.
    pub fn middle(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.steady().iter().map(figure).collect())
    }

    /// The open loop that followed the closed one.
    pub fn after(&self) -> Option<&Round> {
        self.open.as_ref().filter(|_| !self.closed.is_empty())
    }

    /// The latencies of the open loop; without one, of the last closed round.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.open.as_ref().or(self.closed.last()).expect("at least one round is taken").counted.latency
    }

    fn balance(&self) -> Balance {
        self.closed.iter().chain(&self.open).fold(Balance::default(), |sum, round| Balance {
            lost: sum.lost + round.balance.lost,
            surplus: sum.surplus + round.balance.surplus,
        })
    }

    /// Reports throughput, and what the open loop held.
    pub fn report(&self, report: &mut Report) {
        report.number("updates_per_s", self.middle(Round::updates_per_s), "");
        report.number("deliveries_per_s", self.middle(Round::deliveries_per_s), "");
        report.number("server_cpu_ns_per_delivery", self.middle(Round::cpu_per_delivery), "kernel included");
        report.number("server_load", self.middle(Round::server_load), "of a processor's time");
        report.number("sends_per_delivery", self.middle(Round::sends_per_delivery), "");
        if let Some(open) = self.after() {
            report.number("open_loop_updates_per_s", open.updates_per_s(), "held for the latency below");
            report.number("open_loop_server_load", open.server_load(), "of a processor's time");
            report.number("open_loop_sends_per_delivery", open.sends_per_delivery(), "");
        }
        latency(
            report,
            ["p50_us", "p99_us", "p999_us", "max_us"],
            self.latency(),
            "from when it was meant to be sent to its arrival",
        );
    }

    /// Reports what became of everything that was sent.
    pub fn report_balance(&self, report: &mut Report) {
        let Balance { lost, surplus } = self.balance();
        report.count("lost", lost, "deliveries that never came");
        report.count("surplus", surplus, "deliveries that came twice or for nothing");
    }
}

/// Reports these shares of a histogram of nanoseconds, in microseconds: the median, 99 %, 99.9 % and all.
pub fn latency(report: &mut Report, names: [&'static str; 4], latency: &Histogram<u64>, about: &'static str) {
    for (name, share) in names.into_iter().zip([0.5, 0.99, 0.999, 1.0]) {
        report.number(name, latency.value_at_quantile(share) as f64 / 1e3, about);
    }
}
