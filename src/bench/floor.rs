//! `floor`: the physical limit. The node's own runtime, frames and sockets, and no presence logic at all: every frame received is
//! appended to the lines of a fixed audience. Every fan-out figure is divided by this one, taken in the same run.
//!
//! Lives on: a core's thread (the host) and the caller's thread (the load). Serves G6.

use super::load::{Counted, Load, Pace, Traffic};
use super::server::thread_cpu_ns;
use crate::base::id::{ConnId, RawSocket};
use crate::base::time::Time;
use crate::drive::{Bell, Config, DriveCounters, Driver, Host, Stage, Turn, bridge, pin, socket};
use crate::wire::lines::{Lines, Marks};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Marks that a closed loop never reaches.
const MARKS: Marks = Marks { high: u32::MAX, most: u32::MAX };
/// Time before the measured time, for connections, buffers and caches to settle.
const WARM_UP: Duration = Duration::from_millis(500);
/// The frame begins with the number of the client that sent it.
const NUMBER_BYTES: usize = 4;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub connections: u32,
    /// Connections that get each frame.
    pub audience: u32,
    /// Bytes of a frame, at least 4.
    pub frame_bytes: usize,
    /// Frames of one connection that may be on their way, and by which rule.
    pub window: u32,
    pub pace: Pace,
    pub time: Duration,
    pub server_processor: Option<usize>,
    pub load_processor: Option<usize>,
    pub drive: Config,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub counted: Counted,
    /// Processor time of the server's thread, kernel included, in the measured time.
    pub server_cpu_ns: u64,
    /// The driver's counters from start to end.
    pub drive: DriveCounters,
}

impl Outcome {
    pub fn deliveries_per_s(&self) -> f64 {
        self.counted.deliveries as f64 / self.counted.seconds
    }

    pub fn server_cpu_ns_per_delivery(&self) -> f64 {
        self.server_cpu_ns as f64 / self.counted.deliveries.max(1) as f64
    }

    /// Share of its processor that the server used.
    pub fn server_load(&self) -> f64 {
        self.server_cpu_ns as f64 / (self.counted.seconds * 1e9)
    }

    /// Frames in one send, over the whole run.
    pub fn frames_per_send(&self, frame_bytes: usize) -> f64 {
        self.drive.bytes_out as f64 / frame_bytes as f64 / self.drive.sends.max(1) as f64
    }
}

/// Appends every frame to the lines of its audience.
struct Floor {
    lines: Lines,
    frame_bytes: usize,
    audience: u32,
    /// The audience of every slot, one after the other.
    graph: Vec<u32>,
    /// By slot: the start of a frame whose end is still to come.
    rest: Vec<Vec<u8>>,
    connections: u32,
    shared: Arc<Shared>,
}

/// What the server's thread shares with its owner.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sends: AtomicU64,
}

impl Floor {
    fn new(plan: &Plan, shared: Arc<Shared>) -> Floor {
        let rest = (0..plan.connections).map(|_| Vec::new()).collect();
        let graph = graph(plan.connections, plan.audience);
        let Plan { frame_bytes, audience, connections, .. } = *plan;
        Floor { lines: Lines::default(), frame_bytes, audience, graph, rest, connections, shared }
    }

    fn fan_out(&mut self, slot: u32, frames: &[u8]) {
        let first = slot as usize * self.audience as usize;
        let audience = &self.graph[first..first + self.audience as usize];
        for frame in frames.chunks_exact(self.frame_bytes) {
            for &subscriber in audience {
                self.lines.append(subscriber, frame);
            }
        }
    }
}

/// For every slot its audience: a fixed pseudo-random choice, without the slot itself.
fn graph(connections: u32, audience: u32) -> Vec<u32> {
    assert!(audience < connections, "an audience of {audience} needs more than {connections} connections");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut graph = Vec::with_capacity(connections as usize * audience as usize);
    let mut all: Vec<u32> = Vec::new();
    for slot in 0..connections {
        all.clear();
        all.extend((0..connections).filter(|&other| other != slot));
        for chosen in 0..audience as usize {
            let other = chosen + next() as usize % (all.len() - chosen);
            all.swap(chosen, other);
        }
        graph.extend_from_slice(&all[..audience as usize]);
    }
    graph
}

impl Host for Floor {
    fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    fn accepted(&mut self, _: Time, _: IpAddr, _: usize) -> Option<ConnId> {
        (self.lines.len() < self.connections as usize).then(|| self.lines.open(MARKS))
    }

    fn received(&mut self, _: Time, conn: ConnId, bytes: &[u8]) {
        let mut rest = std::mem::take(&mut self.rest[conn.slot as usize]);
        if rest.is_empty() && bytes.len().is_multiple_of(self.frame_bytes) {
            return self.fan_out(conn.slot, bytes);
        }
        rest.extend_from_slice(bytes);
        self.fan_out(conn.slot, &rest);
        rest.drain(..rest.len() - rest.len() % self.frame_bytes);
        self.rest[conn.slot as usize] = rest;
    }

    fn lost(&mut self, _: Time, conn: ConnId) {
        self.rest[conn.slot as usize].clear();
    }

    fn take_departures(&mut self, _: &mut Vec<ConnId>) {}

    fn departed(&mut self, _: Time, _: ConnId, socket: RawSocket) {
        socket::close(socket);
    }

    fn take_adoptions(&mut self, _: &mut Vec<(ConnId, RawSocket)>) {}

    fn turn(&mut self, _: Time, counters: &DriveCounters) -> Turn {
        self.shared.sends.store(counters.sends, Ordering::Relaxed);
        let stopping = self.shared.stop.load(Ordering::Relaxed);
        if stopping {
            for slot in 0..self.connections.min(self.rest.len() as u32) {
                if (slot as usize) < self.lines.slots() {
                    let conn = self.lines.conn(slot);
                    self.lines.close(conn);
                }
            }
        }
        Turn { stopping, ..Turn::default() }
    }

    fn about_to_sleep(&mut self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn woke(&mut self) {}

    fn observe(&mut self, _: Stage, _: u64) {}
}

/// Frames of a fixed size that begin with their sender's number.
struct Frames {
    bytes: usize,
    audience: u32,
    /// By client: how many others it hears of.
    publishers: Vec<u32>,
}

impl Frames {
    fn new(plan: &Plan) -> Frames {
        let mut publishers = vec![0; plan.connections as usize];
        graph(plan.connections, plan.audience).iter().for_each(|&subscriber| publishers[subscriber as usize] += 1);
        Frames { bytes: plan.frame_bytes, audience: plan.audience, publishers }
    }
}

impl Traffic for Frames {
    fn make(&mut self, client: u32, into: &mut Vec<u8>) {
        into.extend_from_slice(&client.to_le_bytes());
        into.resize(into.len() + self.bytes - NUMBER_BYTES, 0);
    }

    fn recognise(&mut self, _: u32, bytes: &[u8], mut delivered: impl FnMut(u32)) -> usize {
        let frames = bytes.chunks_exact(self.bytes);
        let rest = frames.remainder().len();
        for frame in frames {
            delivered(u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]));
        }
        bytes.len() - rest
    }

    fn audience(&self, _: u32) -> u32 {
        self.audience
    }

    fn publishers(&self, client: u32) -> u32 {
        self.publishers[client as usize].max(1)
    }
}

/// The running server.
pub struct Server {
    pub target: SocketAddr,
    thread: PathBuf,
    shared: Arc<Shared>,
    bell: Bell,
    core: bridge::Core<io::Result<DriveCounters>>,
}

impl Server {
    /// Starts it on its processor.
    ///
    /// # Errors
    /// The plan doesn't fit this machine.
    pub fn start(plan: &Plan) -> io::Result<Server> {
        assert!(plan.frame_bytes >= NUMBER_BYTES && plan.window > 0, "frames of at least 4 bytes, a window of at least 1");
        let plan = *plan;
        let listeners = socket::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1)?;
        let target = listeners[0].local_addr()?;
        let (shared, bell) = (Arc::<Shared>::default(), Bell::new()?);
        let (tell_thread, thread) = mpsc::channel();
        let (server_shared, server_bell) = (shared.clone(), bell.clone());
        let core = bridge::on_core("floor", plan.server_processor, move || async move {
            let driver = Driver::new(plan.drive, server_bell, listeners).map_err(io::Error::other)?;
            tell_thread.send(std::fs::read_link("/proc/thread-self")?).map_err(io::Error::other)?;
            bridge::drive(driver, Floor::new(&plan, server_shared)).await.map(|(_, counters)| counters)
        })?;
        match thread.recv() {
            Ok(thread) => Ok(Server { target, thread: Path::new("/proc").join(thread), shared, bell, core }),
            Err(_) => Err(core.join()?.err().unwrap_or_else(|| io::Error::other("the floor's core ended at once"))),
        }
    }

    /// Nanoseconds of processor time that its thread has had.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        thread_cpu_ns(&self.thread)
    }

    /// Sends completed up to its latest turn.
    pub fn sends(&self) -> u64 {
        self.shared.sends.load(Ordering::Relaxed)
    }

    pub fn stop(self) -> io::Result<DriveCounters> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.bell.ring();
        self.core.join()?
    }
}

/// Runs server and load, each on its processor, and measures.
///
/// # Errors
/// The plan doesn't fit this machine, or a delivery was lost.
pub fn run(plan: Plan) -> io::Result<Outcome> {
    let server = Server::start(&plan)?;
    let measured = measure(&plan, &server);
    let drive = server.stop()?;
    let (counted, server_cpu_ns) = measured?;
    Ok(Outcome { counted, server_cpu_ns, drive })
}

fn measure(plan: &Plan, server: &Server) -> io::Result<(Counted, u64)> {
    if let Some(processor) = plan.load_processor {
        pin::pin(processor);
    }
    let mut load = Load::connect(server.target, plan.connections, (plan.pace, plan.window), Frames::new(plan))?;
    load.run(WARM_UP)?;
    let before = server.cpu_ns()?;
    let counted = load.run(plan.time)?;
    let server_cpu_ns = server.cpu_ns()? - before;
    load.drain()?;
    Ok((counted, server_cpu_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_an_audience_of_others_without_repeats() {
        let graph = graph(50, 20);
        for (slot, audience) in graph.chunks(20).enumerate() {
            let distinct: std::collections::BTreeSet<_> = audience.iter().collect();
            assert!(distinct.len() == 20 && !distinct.contains(&(slot as u32)) && audience.iter().all(|&other| other < 50));
        }
    }

    #[test]
    fn frames_are_told_apart_wherever_the_bytes_break() {
        let mut frames = Frames { bytes: 8, audience: 1, publishers: vec![1; 3] };
        let mut bytes = Vec::new();
        (0..3).for_each(|client| frames.make(client, &mut bytes));
        let mut heard = Vec::new();
        assert_eq!(frames.recognise(0, &bytes[..20], |publisher| heard.push(publisher)), 16);
        assert_eq!(heard, [0, 1]);
    }
}
