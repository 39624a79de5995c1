//! Users who keep changing their presence: a closed loop, which finds the most a server can do, and an open one, which holds a
//! rate.
//!
//! Lives on: the generator's pinned thread. Serves G6. In the open loop an update's latency counts from the moment the schedule
//! meant it to be sent, whenever it really went out, so that a server that stalls can't hide behind a generator that waits for it
//! (coordinated omission). Invariants: every delivery is counted against an update that was sent; what never comes is lost, and
//! what comes too often is told apart from it.

use super::private::Carried;
use super::progress::Progress;
use super::wires::Wires;
use hdrhistogram::Histogram;
use std::io;
use std::time::{Duration, Instant};

/// How long nothing comes before what is missing counts as lost.
pub const STALL: Duration = Duration::from_secs(10);
/// Longest latency told apart; longer ones count as this.
const LONGEST_NS: u64 = 60_000_000_000;
/// In the closed loop one chunk of this many is timed: its own cost would slow the load down.
const TIMED: u32 = 8;
/// Longest wait for the next due update of an open loop.
const NAP: Duration = Duration::from_millis(1);
/// Below this the generator looks instead of sleeping, if it has a processor for itself.
const SPIN: Duration = Duration::from_micros(1500);
/// An open loop whose updates are closer to each other than this sends so often what has become due, since a front end gathers for
/// a moment too. Latency counts from when each update was meant to be sent.
const TICK: Duration = Duration::from_micros(250);

/// What the users say, and how it is recognised where it arrives.
pub trait Traffic {
    /// The connection of a user.
    fn conn(&self, user: u32) -> u32;

    /// Appends a user's next update, which is its `sequence`th.
    fn make(&mut self, user: u32, sequence: u32, into: &mut Vec<u8>);

    /// Finds the whole frames at the start of `bytes`, which came on a connection, and tells of each update who had sent it, its
    /// sequence, and how many users it has reached with this. Gives the length of these frames.
    fn recognise(&mut self, conn: u32, bytes: &[u8], delivered: impl FnMut(u32, u32, u32)) -> usize;

    /// Why the server ends connections, if it has said so.
    fn refusal(&self) -> Option<&str> {
        None
    }

    /// How many users hear of each of a user's updates.
    fn audience(&self, user: u32) -> u32;

    /// Length of an update as a user with a connection of its own gets it.
    fn event_bytes(&self) -> usize;
}

/// When the next update goes out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// A user's next one when fewer than `window` of its own are on their way to somebody.
    Closed { window: u32 },
    /// So many a second over all users, in turn.
    Open { per_second: f64 },
}

/// What was counted in a measured time.
#[derive(Clone, Debug)]
pub struct Counted {
    pub updates: u64,
    pub deliveries: u64,
    pub seconds: f64,
    /// Nanoseconds of each delivery.
    pub latency: Histogram<u64>,
    /// What came inside TLS.
    pub carried: Carried,
}

/// What became of everything that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Balance {
    pub lost: u64,
    /// Deliveries that came more than once, or for no update.
    pub surplus: u64,
}

/// One user's updates.
#[derive(Clone, Copy, Default)]
struct Speaker {
    sent: u32,
    /// Deliveries of each update, and those that are still to come.
    audience: u32,
    outstanding: u32,
    due: bool,
}

/// Users on their connections, and what is on its way between them.
pub struct Talk<T> {
    pub wires: Wires,
    traffic: T,
    pace: Pace,
    /// The generator never looks when it can sleep.
    sleeps: bool,
    speakers: Vec<Speaker>,
    /// Closed loop: when each update on its way was sent, `window` per user, in nanoseconds since `began`.
    sent_at: Vec<u64>,
    /// Open loop: how many were sent since it began.
    scheduled: u64,
    /// What each user had sent before the pace was set.
    before: Vec<u32>,
    began: Instant,
    due: Vec<u32>,
    out: Vec<Vec<u8>>,
    written: Vec<u32>,
    chunks: u32,
    latency: Histogram<u64>,
    updates: u64,
    deliveries: u64,
    surplus: u64,
}

impl<T: Traffic> Talk<T> {
    /// `users` users who have said nothing yet.
    pub fn new(wires: Wires, traffic: T, users: u32) -> Talk<T> {
        Talk {
            out: vec![Vec::new(); wires.len()],
            wires,
            speakers: (0..users).map(|user| Speaker { audience: traffic.audience(user), ..Speaker::default() }).collect(),
            traffic,
            pace: Pace::Open { per_second: 0.0 },
            sleeps: false,
            sent_at: Vec::new(),
            scheduled: 0,
            before: vec![0; users as usize],
            began: Instant::now(),
            due: Vec::new(),
            written: Vec::new(),
            chunks: 0,
            latency: latencies(),
            updates: 0,
            deliveries: 0,
            surplus: 0,
        }
    }

    /// From now on the generator sleeps until something is due or comes: what shares its processor can run meanwhile.
    pub fn sleep(&mut self) {
        self.sleeps = true;
    }

    /// Sets the pace; nothing may be on its way.
    pub fn set_pace(&mut self, pace: Pace) {
        (self.pace, self.began, self.scheduled) = (pace, Instant::now(), 0);
        self.due.clear();
        for (speaker, before) in self.speakers.iter_mut().zip(&mut self.before) {
            assert_eq!(speaker.outstanding, 0, "the pace changes between talks");
            (*before, speaker.due) = (speaker.sent, false);
        }
        if let Pace::Closed { window } = pace {
            self.sent_at = vec![0; self.speakers.len() * window as usize];
            self.due = (0..self.speakers.len() as u32).collect();
            self.speakers.iter_mut().for_each(|speaker| speaker.due = true);
        }
    }

    /// Keeps the users talking for `time`.
    ///
    /// # Errors
    /// A connection broke, or no delivery came for a long time.
    pub fn run(&mut self, time: Duration, progress: &Progress) -> io::Result<Counted> {
        let (updates, deliveries, carried) = (self.updates, self.deliveries, self.wires.carried());
        self.latency.reset();
        let began = Instant::now();
        let mut heard = began;
        loop {
            let now = Instant::now();
            if now - began >= time {
                break;
            }
            progress.at_time(now - began);
            self.speak(now)?;
            if self.listen(self.patience(now))? > 0 || matches!(self.pace, Pace::Open { .. }) {
                heard = now;
            } else if now - heard > STALL {
                return Err(io::Error::other(format!("no delivery for {} s: the node has lost one, or stopped", STALL.as_secs())));
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let latency = self.latency.clone();
        let carried = self.wires.carried() - carried;
        Ok(Counted { updates: self.updates - updates, deliveries: self.deliveries - deliveries, seconds, latency, carried })
    }

    /// Updates so far.
    pub fn said(&self) -> u64 {
        self.updates
    }

    /// Deliveries so far.
    pub fn delivered(&self) -> u64 {
        self.deliveries
    }

    /// Says nothing new, waits for what is on its way, and tells what never came.
    pub fn drain(&mut self) -> io::Result<Balance> {
        let mut heard = Instant::now();
        while self.speakers.iter().any(|speaker| speaker.outstanding > 0) && heard.elapsed() < STALL {
            if self.listen(STALL)? > 0 {
                heard = Instant::now();
            }
        }
        let lost = self.speakers.iter_mut().map(|speaker| u64::from(std::mem::take(&mut speaker.outstanding))).sum();
        Ok(Balance { lost, surplus: std::mem::take(&mut self.surplus) })
    }

    /// How long there is nothing to do but listen.
    fn patience(&self, now: Instant) -> Duration {
        let Pace::Open { per_second } = self.pace else { return STALL };
        let since = now - self.began;
        let left = goes_out(meant_s(self.scheduled, per_second), per_second) - since.as_secs_f64();
        let left = Duration::from_secs_f64(left.clamp(0.0, 2.0 * SPIN.as_secs_f64()));
        if self.sleeps || left > SPIN { left.min(NAP) } else { Duration::ZERO }
    }

    /// Sends what is due.
    fn speak(&mut self, now: Instant) -> io::Result<()> {
        let since = now - self.began;
        match self.pace {
            Pace::Open { per_second } => {
                let gathered = gathered_s(since, per_second);
                while meant_s(self.scheduled, per_second) <= gathered {
                    let user = (self.scheduled % self.speakers.len() as u64) as u32;
                    self.say(user);
                    self.scheduled += 1;
                }
            }
            Pace::Closed { window } => {
                let mut due = std::mem::take(&mut self.due);
                for user in due.drain(..) {
                    self.speakers[user as usize].due = false;
                    let audience = self.speakers[user as usize].audience;
                    while self.speakers[user as usize].outstanding + audience <= audience * window {
                        let at = user * window + self.speakers[user as usize].sent % window;
                        self.sent_at[at as usize] = since.as_nanos() as u64;
                        self.say(user);
                    }
                }
                self.due = due;
            }
        }
        for conn in self.written.drain(..) {
            let out = &mut self.out[conn as usize];
            self.wires.send(conn, out)?;
            out.clear();
        }
        Ok(())
    }

    fn say(&mut self, user: u32) {
        let (conn, speaker) = (self.traffic.conn(user), &mut self.speakers[user as usize]);
        speaker.outstanding += speaker.audience;
        speaker.sent += 1;
        let out = &mut self.out[conn as usize];
        if out.is_empty() {
            self.written.push(conn);
        }
        self.traffic.make(user, speaker.sent, out);
        self.updates += 1;
    }

    /// Waits for deliveries and counts what came.
    fn listen(&mut self, patience: Duration) -> io::Result<usize> {
        let Talk { wires, traffic, pace, speakers, sent_at, before, began, due, chunks, latency, deliveries, surplus, .. } = self;
        let users = speakers.len() as u64;
        let window = match *pace {
            Pace::Closed { window } => window,
            Pace::Open { .. } => 0,
        };
        let heard = wires.listen(patience, |conn, bytes| {
            *chunks = chunks.wrapping_add(1);
            let timed = window == 0 || chunks.is_multiple_of(TIMED);
            let now = if timed { began.elapsed().as_nanos() as u64 } else { 0 };
            traffic.recognise(conn, bytes, |user, sequence, count| {
                let speaker = &mut speakers[user as usize];
                if speaker.outstanding < count || sequence > speaker.sent {
                    *surplus += u64::from(count);
                    return;
                }
                *deliveries += u64::from(count);
                speaker.outstanding -= count;
                if timed {
                    let sent = match *pace {
                        Pace::Closed { .. } => sent_at[(user * window + (sequence - 1) % window) as usize],
                        Pace::Open { per_second } => {
                            let turn = u64::from((sequence - 1).saturating_sub(before[user as usize]));
                            (meant_s(turn * users + u64::from(user), per_second) * 1e9) as u64
                        }
                    };
                    latency.saturating_record_n(now.saturating_sub(sent).max(1), u64::from(count));
                }
                if window > 0 && speaker.outstanding <= speaker.audience * (window - 1) && !speaker.due {
                    speaker.due = true;
                    due.push(user);
                }
            })
        });
        match traffic.refusal() {
            Some(refusal) => Err(io::Error::other(format!("the node refused: {refusal}"))),
            None => heard,
        }
    }
}

/// No latencies yet.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are sound")
}

/// The number that these digits write.
pub fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// When the update of this number is meant to be sent, in seconds since an open loop began. A loop without a rate sends none.
fn meant_s(number: u64, per_second: f64) -> f64 {
    if per_second > 0.0 { number as f64 / per_second } else { f64::INFINITY }
}

/// When it goes out: with what else is due in the same tick.
fn goes_out(meant_s: f64, per_second: f64) -> f64 {
    let tick = TICK.as_secs_f64();
    if per_second * tick > 1.0 { (meant_s / tick).ceil() * tick } else { meant_s }
}

/// Until when an open loop sends now what is due, in seconds since it began.
fn gathered_s(since: Duration, per_second: f64) -> f64 {
    match per_second * TICK.as_secs_f64() > 1.0 {
        true => (TICK * (since.as_nanos() / TICK.as_nanos()) as u32).as_secs_f64(),
        false => since.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_sends_each_update_when_it_is_meant_to_be_or_with_the_next_tick() {
        for per_second in [0.5, 100.0, 300.0, 3999.0, 4001.0, 1e6] {
            for number in [0, 1, 2, 99, 1234] {
                let meant = meant_s(number, per_second);
                let late = if per_second * TICK.as_secs_f64() > 1.0 { TICK } else { Duration::from_nanos(1) };
                let goes_out = |seconds: f64| meant <= gathered_s(Duration::from_secs_f64(seconds), per_second);
                assert!(goes_out(meant + late.as_secs_f64()), "{number} of {per_second}/s is late");
                assert!(number == 0 || !goes_out(meant - 1e-9), "{number} of {per_second}/s is early");
            }
        }
        assert!(meant_s(0, 0.0) > gathered_s(Duration::from_secs(3600), 0.0), "no rate, no updates");
    }
}
