//! A core with a host for tests, and what is true of every run of it.

use fanal::base::id::{ConnId, RawSocket};
use fanal::base::time::Time;
use fanal::drive::{Bell, Config, Dial, DriveCounters, Driver, Host, Stage, Turn, bridge, socket};
use fanal::ring::doorbell::{Doorbell, Sleeper, doorbell};
use fanal::wire::lines::{Lines, Marks};
use std::io::{self, Read, Write};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const MARKS: Marks = Marks { high: u32::MAX, most: u32::MAX };
/// Longer than anything here takes, so that a hang is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const LAST_WORDS: &[u8] = b"bye";
/// What a host says first to whom it has dialled.
pub const GREETING: &[u8] = b"hi";
/// Every node has an address of its own, which no client ever has, so that its sockets can be told from all others.
static NEXT_ADDRESS: AtomicU8 = AtomicU8::new(2);

/// Sockets on their way to a core, and the bell of that core.
#[derive(Clone)]
pub struct Mailbox {
    pub sockets: Arc<Mutex<Vec<RawSocket>>>,
    pub bell: Bell,
}

/// What the host does with what it receives.
pub enum Script {
    Echo,
    /// Answers each byte with so many.
    Answer(usize),
    /// Echoes, and closes the line once it has received anything.
    Close,
    /// Echoes, and sends the connection to the other core after each so many bytes.
    Wander {
        every: u64,
        other: Mailbox,
    },
    /// Answers after so long, having asked for a later turn before.
    Later(Duration),
    /// Echoes what can wait for so long, on a core that has always something else to do, or never.
    Patiently {
        wait: Duration,
        busy: bool,
    },
    Refuse,
}

/// What a host is to dial, and what came of it.
#[derive(Default)]
pub struct Calls {
    pub asked: Vec<Dial>,
    pub told: Vec<(u64, Result<SocketAddr, io::Error>)>,
}

/// A number that another thread raises, the number the host has seen, and what the driver has counted.
#[derive(Default)]
pub struct Watched {
    pub raised: AtomicU64,
    pub seen: AtomicU64,
    pub accepts_failed: AtomicU64,
    pub dials: AtomicU64,
}

struct TestHost {
    script: Script,
    lines: Lines,
    stop: Arc<AtomicBool>,
    said_goodbye: bool,
    inbox: Mailbox,
    calls: Arc<Mutex<Calls>>,
    watched: Arc<Watched>,
    sleeper: Sleeper,
    conns: Vec<ConnId>,
    departures: Vec<ConnId>,
    since_move: u64,
    answer_at: Option<(Time, ConnId)>,
    seen: Seen,
}

/// What the driver told the host.
#[derive(Default, Clone, Debug)]
pub struct Seen {
    pub opened: u64,
    pub lost: u64,
    pub departed: u64,
    pub stages: Vec<Stage>,
}

impl TestHost {
    fn open(&mut self) -> ConnId {
        let conn = self.lines.open(MARKS);
        self.seen.opened += 1;
        self.conns.push(conn);
        conn
    }

    fn forget(&mut self, conn: ConnId) {
        let known = self.conns.len();
        self.conns.retain(|&other| other != conn);
        assert_eq!(self.conns.len() + 1, known, "a connection ends once");
    }
}

impl Host for TestHost {
    fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    fn accepted(&mut self, _: Time, peer: IpAddr, listener: usize) -> Option<ConnId> {
        assert_eq!((peer, listener), (IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
        (!matches!(self.script, Script::Refuse)).then(|| self.open())
    }

    fn received(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        assert!(self.conns.contains(&conn) && !bytes.is_empty(), "bytes come from open connections");
        match &self.script {
            Script::Answer(size) => self.lines.append(conn.slot, &vec![b'.'; size * bytes.len()]),
            Script::Later(delay) => self.answer_at = Some((now + *delay, conn)),
            Script::Wander { every, .. } => {
                self.lines.append(conn.slot, bytes);
                self.since_move += bytes.len() as u64;
                if self.since_move >= *every {
                    self.since_move = 0;
                    self.departures.push(conn);
                }
            }
            Script::Close => {
                self.lines.append(conn.slot, bytes);
                self.lines.close(conn);
            }
            Script::Patiently { wait, .. } => self.lines.append_patiently(conn.slot, bytes, now + *wait),
            Script::Echo | Script::Refuse => self.lines.append(conn.slot, bytes),
        }
    }

    fn lost(&mut self, _: Time, conn: ConnId) {
        self.seen.lost += 1;
        self.forget(conn);
    }

    fn take_departures(&mut self, into: &mut Vec<ConnId>) {
        into.append(&mut self.departures);
    }

    fn departed(&mut self, _: Time, conn: ConnId, socket: RawSocket) {
        self.seen.departed += 1;
        self.forget(conn);
        let Script::Wander { other, .. } = &self.script else { panic!("nobody was sent away") };
        other.sockets.lock().unwrap().push(socket);
        other.bell.ring();
    }

    fn take_adoptions(&mut self, into: &mut Vec<(ConnId, RawSocket)>) {
        let arrived = mem::take(&mut *self.inbox.sockets.lock().unwrap());
        into.extend(arrived.into_iter().map(|socket| (self.open(), socket)));
    }

    fn take_dials(&mut self, into: &mut Vec<Dial>) {
        into.append(&mut self.calls.lock().unwrap().asked);
    }

    fn dialled(&mut self, _: Time, token: u64, made: io::Result<SocketAddr>) -> Option<ConnId> {
        let conn = made.is_ok().then(|| self.open());
        if let Some(conn) = conn {
            self.lines.append(conn.slot, GREETING);
        }
        self.calls.lock().unwrap().told.push((token, made));
        conn
    }

    fn turn(&mut self, now: Time, counters: &DriveCounters) -> Turn {
        self.watched.dials.store(counters.dials, Ordering::Release);
        self.watched.accepts_failed.store(counters.accepts_failed, Ordering::Release);
        self.watched.seen.store(self.watched.raised.load(Ordering::Acquire), Ordering::Release);
        if let Some((_, conn)) = self.answer_at.take_if(|(at, _)| *at <= now) {
            self.lines.append(conn.slot, b"!");
        }
        let stopping = self.stop.load(Ordering::Acquire);
        if stopping && !mem::replace(&mut self.said_goodbye, true) {
            for &conn in &self.conns {
                self.lines.append(conn.slot, LAST_WORDS);
                self.lines.close(conn);
            }
        }
        // A far deadline first, so that a near one has to move the alarm.
        let far = matches!(self.script, Script::Later(_)).then(|| now + PATIENCE);
        let busy = matches!(self.script, Script::Patiently { busy: true, .. });
        Turn { busy, deadline: self.answer_at.map(|(at, _)| at).or(far), stopping }
    }

    fn about_to_sleep(&mut self) -> bool {
        self.sleeper.announce();
        let unseen = self.watched.raised.load(Ordering::Acquire) != self.watched.seen.load(Ordering::Acquire);
        let called = !self.calls.lock().unwrap().asked.is_empty() || !self.inbox.sockets.lock().unwrap().is_empty();
        unseen || called || self.stop.load(Ordering::Acquire)
    }

    fn woke(&mut self) {
        self.sleeper.awake();
    }

    fn observe(&mut self, stage: Stage, _: u64) {
        if !self.seen.stages.contains(&stage) {
            self.seen.stages.push(stage);
        }
    }
}

/// A core with a test host.
pub struct Node {
    pub address: SocketAddr,
    inbox: Mailbox,
    pub calls: Arc<Mutex<Calls>>,
    stop: Arc<AtomicBool>,
    pub watched: Arc<Watched>,
    pub door: Arc<Doorbell>,
    core: bridge::Core<std::io::Result<(Seen, DriveCounters)>>,
}

pub fn mailbox() -> Mailbox {
    Mailbox { sockets: Arc::default(), bell: Bell::new().unwrap() }
}

pub fn own_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed)), 0))
}

impl Node {
    pub fn start(config: Config, script: Script) -> Node {
        Node::start_with(config, script, mailbox())
    }

    pub fn start_with(config: Config, script: Script, inbox: Mailbox) -> Node {
        Node::start_on(config, script, inbox, socket::listen(own_address(), 1).unwrap())
    }

    pub fn start_on(config: Config, script: Script, inbox: Mailbox, listeners: Vec<TcpListener>) -> Node {
        let address = listeners[0].local_addr().unwrap();
        let (stop, watched, calls): (Arc<AtomicBool>, Arc<Watched>, Arc<Mutex<Calls>>) = Default::default();
        let (door, sleeper) = doorbell(Arc::new(inbox.bell.clone()));
        let (core_stop, core_inbox, core_watched, core_calls) = (stop.clone(), inbox.clone(), watched.clone(), calls.clone());
        let core = bridge::on_core("test", None, move || async move {
            let host = TestHost {
                script,
                lines: Lines::default(),
                stop: core_stop,
                said_goodbye: false,
                inbox: core_inbox,
                calls: core_calls,
                watched: core_watched,
                sleeper,
                conns: Vec::new(),
                departures: Vec::new(),
                since_move: 0,
                answer_at: None,
                seen: Seen::default(),
            };
            let driver = Driver::new(config, host.inbox.bell.clone(), listeners).map_err(std::io::Error::other)?;
            let (host, counters) = bridge::drive(driver, host).await?;
            assert!(host.lines.is_empty(), "every line is released");
            Ok((host.seen, counters))
        });
        Node { address, inbox, calls, stop, watched, door, core: core.unwrap() }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Lets the host dial.
    pub fn dial(&self, dials: impl IntoIterator<Item = Dial>) {
        self.calls.lock().unwrap().asked.extend(dials);
        self.inbox.bell.ring();
    }

    /// Dials from the node's own address.
    pub fn dials(&self, tokens: Range<u64>, address: SocketAddr) -> impl Iterator<Item = Dial> + use<> {
        let from = Some(SocketAddr::new(self.address.ip(), 0));
        tokens.map(move |token| Dial { token, address, from })
    }

    /// Waits until so many dials were answered, and takes the answers.
    pub fn told(&self, count: usize) -> Vec<(u64, io::Result<SocketAddr>)> {
        until("the dials are answered", || self.calls.lock().unwrap().told.len() >= count);
        mem::take(&mut self.calls.lock().unwrap().told)
    }

    /// Stops the node and checks what is true of every run: nothing is left of any connection.
    pub fn stop(self) -> (Seen, DriveCounters) {
        self.stop.store(true, Ordering::Release);
        self.inbox.bell.ring();
        let (seen, counters) = self.core.join().unwrap().unwrap();
        assert_eq!(counters.late_completions, 0, "{counters:?}");
        assert_eq!(seen.opened, seen.lost + seen.departed, "each connection ends once: {seen:?}");
        assert_eq!((counters.closed, counters.departed), (seen.lost, seen.departed));
        let made = counters.accepts - counters.refused + counters.dials - counters.dials_failed + counters.adopted;
        assert_eq!(seen.opened, made, "{counters:?}");
        assert_eq!(sockets_on(self.address), 0, "no descriptor is left behind");
        (seen, counters)
    }
}

/// Sockets that are held open on a node's address, by the kernel's table: an inode means somebody has a descriptor.
pub fn sockets_on(address: SocketAddr) -> usize {
    let IpAddr::V4(ip) = address.ip() else { panic!("nodes have IPv4 addresses") };
    let local = format!("{:08X}:", u32::from_ne_bytes(ip.octets()));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let held = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].starts_with(&local) && fields[9] != "0"
    };
    table.lines().skip(1).filter(held).count()
}

/// Bytes that tell their place: the n-th differs from its neighbours and from those some power of two away.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

/// Writes and reads at once, until as much came back as was sent.
pub fn round_trip(stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(|| (&mut &*stream).write_all(bytes).unwrap());
        let mut back = vec![0; bytes.len()];
        (&mut &*stream).read_exact(&mut back).unwrap();
        back
    })
}

pub fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}
