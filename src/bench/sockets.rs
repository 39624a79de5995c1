//! The physical limit of a fan-out: the same frames on the same sockets, sent at the same pace, without presence. `bench floor`
//! measures it, and `bench fanout` is held against it.
//!
//! Lives on: the generator's pinned thread; the server (`floor`) on another processor. Serves G6.

use super::floor;
use super::load;
use super::progress::Progress;
use super::report::Report;
use super::round::{Meter, Round, Rounds, Schedule};
use super::talk::{Pace, Talk, Traffic};
use super::wires::Wires;
use crate::drive::{self, pin};
use std::io;
use std::time::Duration;

/// Where a frame has its sender's number and its sequence.
const HEAD_BYTES: usize = 8;
/// Shortest frame.
pub const LEAST_FRAME_BYTES: usize = HEAD_BYTES;

/// What to run.
#[derive(Clone)]
pub struct Plan {
    /// Each has a connection.
    pub users: u32,
    pub subscribers: u32,
    /// At least `LEAST_FRAME_BYTES`.
    pub frame_bytes: usize,
    pub schedule: Schedule,
    pub server_processor: Option<usize>,
    pub load_processor: Option<usize>,
}

/// Frames of one length that begin with their sender's number and sequence.
struct Frames {
    bytes: usize,
    audience: u32,
}

impl Traffic for Frames {
    fn conn(&self, user: u32) -> u32 {
        user
    }

    fn make(&mut self, user: u32, sequence: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + self.bytes, 0);
        into[start..start + 4].copy_from_slice(&user.to_le_bytes());
        into[start + 4..start + HEAD_BYTES].copy_from_slice(&sequence.to_le_bytes());
    }

    #[inline]
    fn recognise(&mut self, _conn: u32, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        let word = |frame: &[u8], at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let frames = bytes.chunks_exact(self.bytes);
        let rest = frames.remainder().len();
        frames.for_each(|frame| delivered(word(frame, 0), word(frame, 4), 1));
        bytes.len() - rest
    }

    fn audience(&self, _: u32) -> u32 {
        self.audience
    }

    fn event_bytes(&self) -> usize {
        self.bytes
    }
}

/// A server without presence and the users who talk over it.
pub struct Sockets {
    server: floor::Server,
    talk: Talk<Frames>,
    users: u32,
}

impl Meter for floor::Server {
    fn cpu_ns(&self) -> io::Result<Option<u64>> {
        self.cpu_ns().map(Some)
    }

    fn sends(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.sends()))
    }
}

impl Sockets {
    /// Starts the server and connects the users.
    ///
    /// # Errors
    /// The plan doesn't fit this machine.
    pub fn start(plan: &Plan) -> io::Result<Sockets> {
        let Plan { users, subscribers: audience, frame_bytes: bytes, .. } = *plan;
        let server = floor::Server::start(&floor::Plan {
            connections: users,
            audience,
            frame_bytes: bytes,
            window: plan.schedule.window,
            pace: load::Pace::Delivered,
            time: plan.schedule.time,
            server_processor: plan.server_processor,
            load_processor: plan.load_processor,
            drive: drive::Config::default(),
        })?;
        let mut wires = Wires::to(server.target, false)?;
        for _ in 0..users {
            wires.connect()?;
        }
        Ok(Sockets { server, talk: Talk::new(wires, Frames { bytes, audience }, users), users })
    }

    /// One measured time.
    pub fn round(&mut self, pace: Pace, time: Duration, progress: &Progress) -> io::Result<Round> {
        Round::run(&mut self.talk, pace, time, progress, &self.server)
    }

    /// Reports what the rounds say of the sockets alone.
    pub fn report(&self, report: &mut Report, rounds: &Rounds) {
        let (cpu, sends) = (rounds.middle(Round::cpu_per_delivery), rounds.middle(Round::sends_per_delivery));
        report.number("floor_cpu_ns_per_delivery", cpu, "the same frames and sockets without presence");
        let to_all = f64::from(self.users) * cpu / sends / 1e3;
        report.number("floor_us_to_send_to_all", to_all, "one send to each connection, on one processor");
    }

    pub fn stop(self) -> io::Result<()> {
        drop(self.talk);
        self.server.stop().map(drop)
    }
}

/// Runs it.
///
/// # Errors
/// The machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    if let Some(processor) = plan.load_processor {
        pin::pin(processor);
    }
    let mut sockets = Sockets::start(plan)?;
    let mut report = Report::new("floor");
    report.count("users", plan.users, "");
    report.count("subscribers", plan.subscribers, "of each");
    report.count("event_bytes", plan.frame_bytes as u64, "of one delivery");
    let mut round = |pace| sockets.round(pace, plan.schedule.time, progress);
    let rounds = plan.schedule.take(&mut [&mut round])?.remove(0);
    rounds.report(&mut report);
    sockets.report(&mut report, &rounds);
    sockets.stop()?;
    rounds.report_balance(&mut report);
    progress.end();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_who_sent_it_and_which_it_is() {
        let mut traffic = Frames { bytes: 24, audience: 1 };
        let mut bytes = Vec::new();
        (1..4).for_each(|sequence| traffic.make(7, sequence, &mut bytes));
        let mut heard = Vec::new();
        assert_eq!(traffic.recognise(0, &bytes[..60], |user, sequence, count| heard.push((user, sequence, count))), 48);
        assert_eq!(heard, [(7, 1, 1), (7, 2, 1)]);
    }
}
