//! `bench fanout`: what an update costs to get to all its subscribers, over real sockets, beside the `floor` of the same run.
//!
//! Lives on: the generator's pinned thread; the node and the floor on another processor. Serves G6, G2. The node's and the floor's
//! rounds take turns, with one generator for both, and the medians count: so both see the same machine.

use super::crowd::{Crowd, Directory, frames, presence};
use super::floor;
use super::graph::Graph;
use super::progress::Progress;
use super::report::{Report, median};
use super::server::{Server, Target};
use super::talk::{Balance, Counted, Pace, Talk, Traffic};
use super::wires::Wires;
use crate::base::config::StoreKind;
use crate::drive::{self, pin};
use crate::wire::encode::{Encoder, Tag};
use crate::wire::event::{self, Head};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::native::{Kind, Show};
use std::io;
use std::time::Duration;

/// Time before each measured time, for the loop to find its stride.
const WARM_UP: Duration = Duration::from_millis(300);
/// Where a floor's frame has its sender's number and its sequence.
const FLOOR_HEAD: usize = 8;

/// What to run.
#[derive(Clone)]
pub struct Plan {
    pub users: u32,
    pub subscribers: u32,
    /// Updates a second; 0: as many as the closed loop makes.
    pub rate: f64,
    /// After a closed loop, an open one at this share of what it made, for the latency; 0: none.
    pub load: f64,
    pub window: u32,
    pub time: Duration,
    /// Times that node and floor take turns.
    pub rounds: u32,
    /// Connections that carry all users; 0: each user has one.
    pub trunks: u32,
    pub server_cores: Vec<u16>,
    pub load_processor: Option<usize>,
    /// A node that runs already; otherwise one is started.
    pub target: Option<Target>,
    pub floor: bool,
}

/// What the crowd says to a node, and how it hears it.
pub struct Presences<'a> {
    directory: &'a Directory,
    trunks: u32,
    audience: u32,
    encoder: Encoder,
    /// Said in turn.
    presences: [Vec<u8>; 2],
}

impl<'a> Presences<'a> {
    pub fn new(directory: &'a Directory, trunks: u32, audience: u32) -> Presences<'a> {
        let presences = [Show::Away, Show::Chat].map(presence);
        Presences { directory, trunks, audience, encoder: Encoder::default(), presences }
    }

    /// Length of an update as a subscriber with a connection of its own gets it.
    pub fn event_bytes(&self) -> usize {
        HEADER_BYTES + event::HEAD_BYTES + self.presences[0].len()
    }
}

impl Traffic for Presences<'_> {
    fn conn(&self, user: u32) -> u32 {
        if self.trunks == 0 { user } else { user % self.trunks }
    }

    fn make(&mut self, user: u32, sequence: u32, into: &mut Vec<u8>) {
        let stream = user.checked_div(self.trunks).map_or(0, |turn| 1 + turn);
        self.encoder.set_presence_bytes(into, Tag::stream(stream), &self.presences[sequence as usize % 2]);
    }

    #[inline]
    fn recognise(&self, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        frames(bytes, |header, body| {
            if header.kind == Kind::Event
                && let Ok((head, streams)) = Head::read(body)
                && let Some(user) = self.directory.find(head.user)
            {
                // The first presence of the session was its version 1.
                delivered(user, head.version.sequence.saturating_sub(1), streams.max(1) as u32);
            }
        })
    }

    fn audience(&self) -> u32 {
        self.audience
    }
}

/// The same to a floor: frames of one length that begin with their sender's number and sequence.
struct FloorFrames {
    bytes: usize,
    audience: u32,
}

impl Traffic for FloorFrames {
    fn conn(&self, user: u32) -> u32 {
        user
    }

    fn make(&mut self, user: u32, sequence: u32, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + self.bytes, 0);
        into[start..start + 4].copy_from_slice(&user.to_le_bytes());
        into[start + 4..start + FLOOR_HEAD].copy_from_slice(&sequence.to_le_bytes());
    }

    #[inline]
    fn recognise(&self, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        let word = |frame: &[u8], at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let frames = bytes.chunks_exact(self.bytes);
        let rest = frames.remainder().len();
        frames.for_each(|frame| delivered(word(frame, 0), word(frame, 4), 1));
        bytes.len() - rest
    }

    fn audience(&self) -> u32 {
        self.audience
    }
}

/// One measured time with what the server used in it.
struct Round {
    counted: Counted,
    cpu_ns: Option<u64>,
    balance: Balance,
}

impl Round {
    fn deliveries_per_s(&self) -> f64 {
        self.counted.deliveries as f64 / self.counted.seconds
    }

    fn updates_per_s(&self) -> f64 {
        self.counted.updates as f64 / self.counted.seconds
    }

    fn cpu_per_delivery(&self) -> f64 {
        self.cpu_ns.map_or(f64::NAN, |nanos| nanos as f64 / self.counted.deliveries.max(1) as f64)
    }

    fn server_load(&self) -> f64 {
        self.cpu_ns.map_or(f64::NAN, |nanos| nanos as f64 / (self.counted.seconds * 1e9))
    }
}

fn round<T: Traffic>(
    talk: &mut Talk<T>,
    pace: Pace,
    time: Duration,
    progress: &Progress,
    cpu: impl Fn() -> io::Result<Option<u64>>,
) -> io::Result<Round> {
    talk.set_pace(pace);
    progress.begin_time("warm-up", WARM_UP);
    talk.run(WARM_UP, progress)?;
    progress.begin_time("measuring", time);
    let before = cpu()?;
    let counted = talk.run(time, progress)?;
    let after = cpu()?;
    let balance = talk.drain()?;
    Ok(Round { counted, cpu_ns: before.zip(after).map(|(before, after)| after - before), balance })
}

/// Runs it.
///
/// # Errors
/// The node or the machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    let server = match &plan.target {
        Some(target) => Server::at(target.clone()),
        None => Server::start(plan.server_cores.clone(), StoreKind::Memory)?,
    };
    // Not earlier: a child may use only the processors of its parent.
    if let Some(processor) = plan.load_processor {
        pin::pin(processor);
    }
    let empty = server.anonymous_bytes()?;
    let graph = Graph::new(plan.users, plan.subscribers);
    let mut crowd = Crowd::new(server.access.clone(), plan.users, plan.trunks)?;
    crowd.log_in(progress)?;
    crowd.become_available(progress)?;
    crowd.subscribe(&graph, progress)?;
    let counters = server.counters()?;
    let full = server.anonymous_bytes()?;
    let (wires, directory) = crowd.into_parts();
    let traffic = Presences::new(&directory, plan.trunks, plan.subscribers);
    let event_bytes = traffic.event_bytes();
    let mut talk = Talk::new(wires, traffic, plan.users);
    let node_cpu = || server.cpu_ns();
    let mut report = Report::new("fanout");
    report.count("users", plan.users, "");
    report.count("subscribers", plan.subscribers, "of each");
    report.count("connections", if plan.trunks == 0 { plan.users } else { plan.trunks }, "");
    report.count("event_bytes", event_bytes as u64, "of one delivery");
    let mut lost = Balance::default();
    let mut add = |balance: Balance| (lost.lost, lost.surplus) = (lost.lost + balance.lost, lost.surplus + balance.surplus);

    let latency = if plan.rate > 0.0 {
        let round = round(&mut talk, Pace::Open { per_second: plan.rate }, plan.time, progress, node_cpu)?;
        add(round.balance);
        throughput(&mut report, &[&round]);
        round.counted.latency
    } else {
        let floor = Floor::start(plan, event_bytes)?;
        let (mut nodes, mut floors) = (Vec::new(), Vec::new());
        let pace = Pace::Closed { window: plan.window };
        let mut floor_talk = floor.as_ref().map(|floor| floor.talk(plan, event_bytes)).transpose()?;
        for _ in 0..plan.rounds {
            nodes.push(round(&mut talk, pace, plan.time, progress, node_cpu)?);
            if let Some((floor, talk)) = floor.as_ref().zip(floor_talk.as_mut()) {
                floors.push(round(talk, pace, plan.time, progress, || floor.0.cpu_ns().map(Some))?);
            }
        }
        report.count("window", plan.window, "updates of one user on their way at once");
        throughput(&mut report, &nodes.iter().collect::<Vec<_>>());
        nodes.iter().for_each(|round| add(round.balance));
        drop(floor_talk);
        if let Some(floor) = floor {
            floor.0.stop()?;
            against_floor(&mut report, &nodes, &floors);
        }
        let rate = median(nodes.iter().map(Round::updates_per_s).collect()) * plan.load;
        if rate > 0.0 {
            let round = round(&mut talk, Pace::Open { per_second: rate }, plan.time, progress, node_cpu)?;
            add(round.balance);
            report.number("open_loop_updates_per_s", round.updates_per_s(), "held for the latency below");
            report.number("open_loop_server_load", round.server_load(), "of the server's processor time");
            round.counted.latency
        } else {
            nodes.pop().expect("there is at least one round").counted.latency
        }
    };
    for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999), ("max_us", 1.0)] {
        report.number(name, latency.value_at_quantile(share) as f64 / 1e3, "from when it was meant to be sent to its arrival");
    }
    if let Some((empty, full)) = empty.zip(full) {
        let per_user = (full - empty) as f64 / f64::from(plan.users);
        report.number("bytes_per_session", per_user, "of the node's memory: connection, account and subscriptions");
    }
    for (name, about) in [("conflated", "deliveries replaced by newer ones"), ("put_off", "updates replaced on the way to a core")]
    {
        if let Some((after, before)) = server.counters()?.as_ref().zip(counters.as_ref()) {
            report.count(name, after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0), about);
        }
    }
    drop(talk);
    server.stop()?;
    report.count("lost", lost.lost, "deliveries that never came");
    report.count("surplus", lost.surplus, "deliveries that came twice or for nothing");
    progress.end();
    Ok(report)
}

fn throughput(report: &mut Report, rounds: &[&Round]) {
    let middle = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(|round| figure(round)).collect());
    report.number("updates_per_s", middle(&Round::updates_per_s), "");
    report.number("deliveries_per_s", middle(&Round::deliveries_per_s), "");
    report.number("server_cpu_ns_per_delivery", middle(&Round::cpu_per_delivery), "kernel included");
    report.number("server_load", middle(&Round::server_load), "of the server's processor time");
}

fn against_floor(report: &mut Report, nodes: &[Round], floors: &[Round]) {
    let floor = median(floors.iter().map(Round::cpu_per_delivery).collect());
    report.number("floor_deliveries_per_s", median(floors.iter().map(Round::deliveries_per_s).collect()), "");
    report.number("floor_cpu_ns_per_delivery", floor, "the same frames and sockets without presence");
    report.number("floor_load", median(floors.iter().map(Round::server_load).collect()), "of the floor's processor time");
    let ratios = nodes.iter().zip(floors).map(|(node, floor)| floor.cpu_per_delivery() / node.cpu_per_delivery());
    report.number("floor_ratio", median(ratios.collect()), "1 would be a node that costs nothing");
}

/// The floor of the same run.
struct Floor(floor::Server);

impl Floor {
    /// `None`: none was asked for, or there is none for trunks, which carry an update once for many.
    fn start(plan: &Plan, frame_bytes: usize) -> io::Result<Option<Floor>> {
        if !plan.floor || plan.trunks > 0 {
            return Ok(None);
        }
        let plan = floor::Plan {
            connections: plan.users,
            audience: plan.subscribers,
            frame_bytes,
            window: plan.window,
            pace: super::load::Pace::Delivered,
            time: plan.time,
            server_processor: plan.server_cores.first().map(|&core| usize::from(core)),
            load_processor: plan.load_processor,
            drive: drive::Config::default(),
        };
        Ok(Some(Floor(floor::Server::start(&plan)?)))
    }

    fn talk(&self, plan: &Plan, bytes: usize) -> io::Result<Talk<FloorFrames>> {
        let mut wires = Wires::to(self.0.target)?;
        for _ in 0..plan.users {
            wires.connect()?;
        }
        Ok(Talk::new(wires, FloorFrames { bytes, audience: plan.subscribers }, plan.users))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_frame_says_who_sent_it_and_which_it_is() {
        let mut traffic = FloorFrames { bytes: 24, audience: 1 };
        let mut bytes = Vec::new();
        (1..4).for_each(|sequence| traffic.make(7, sequence, &mut bytes));
        let mut heard = Vec::new();
        assert_eq!(traffic.recognise(&bytes[..60], |user, sequence, count| heard.push((user, sequence, count))), 48);
        assert_eq!(heard, [(7, 1, 1), (7, 2, 1)]);
    }
}
