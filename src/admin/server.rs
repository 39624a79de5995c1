//! The sockets and threads of the admin API: one thread listens and ends the intervals of the log, one serves each connection.
//!
//! Lives on: its own threads. Invariants: at most `CONNECTIONS` connections, each closed when it is silent or slow for too long; a
//! stopped server has no thread left.

use super::Control;
use super::http::{self, Parsed, Request, Response};
use super::routes::{self, Desk, ServerCounts, error};
use crate::base::config::Secret;
use crate::base::time::WallClock;
use crate::metrics::fields::NodeCount;
use crate::metrics::interval_log::{INTERVALS_KEPT, IntervalLog};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Connections at once. At the limit: 503, and the new one closes.
pub const CONNECTIONS: usize = 64;
/// Stack of a connection's thread: it parses, calls and writes, nothing deep.
const STACK_BYTES: usize = 256 << 10;
/// Bytes read at once.
const READ_BYTES: usize = 4096;
/// What is read and thrown away after an error, so that the client gets to see the error before the connection breaks.
const FAREWELL_BYTES: usize = 256 << 10;
/// How long that may take, and how long the last answers may when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pause after the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port 0: any free one, see `Server::address`.
    pub address: SocketAddr,
    /// Required when `address` isn't loopback.
    pub token: Option<Secret>,
    /// Length of an interval of `/histograms` and of the interval log.
    pub interval: Duration,
    /// File that every interval is appended to.
    pub interval_log: Option<PathBuf>,
    /// The node's limits, for the metrics.
    pub limits: Vec<(&'static str, u64)>,
    pub times: Times,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From the first byte of a request to its last. At the limit: 408.
    pub request: Duration,
    /// To read an answer. At the limit the connection closes.
    pub answer: Duration,
    /// Between two requests. At the limit the connection closes.
    pub idle: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times { request: Duration::from_secs(10), answer: Duration::from_secs(30), idle: Duration::from_secs(60) }
    }
}

impl Settings {
    pub fn new(address: SocketAddr, token: Option<Secret>) -> Settings {
        Settings {
            address,
            token,
            interval: Duration::from_secs(10),
            interval_log: None,
            limits: Vec::new(),
            times: Times::default(),
        }
    }
}

/// Why the admin API did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "other machines can reach the admin address {0}, so anybody could manage users: set listen.admin_token, or use 127.0.0.1"
    )]
    TokenNeeded(SocketAddr),
    #[error("the admin address {0} can't be listened on ({1}): choose another listen.admin, or stop what uses it")]
    Listen(SocketAddr, io::Error),
    #[error("the interval log {0} can't be written ({1}): choose another metrics.interval_log, or leave it out")]
    Log(PathBuf, io::Error),
    #[error("the admin API needs threads and descriptors that the system refuses ({0}): raise the limits (ulimit -n, ulimit -u)")]
    System(#[from] io::Error),
}

/// A running admin API. Dropped, it stops.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    desk: Mutex<Desk>,
    /// Open connections by number, so that stopping can end them.
    open: Mutex<HashMap<u64, TcpStream>>,
    /// Told when one of them has closed.
    closed: Condvar,
    stop: EventFd,
    times: Times,
    requests: AtomicU64,
    refused_connections: AtomicU64,
    bad_requests: AtomicU64,
}

impl Server {
    pub fn start(settings: Settings, control: Box<dyn Control>) -> Result<Server, StartError> {
        if settings.token.is_none() && !settings.address.ip().is_loopback() {
            return Err(StartError::TokenNeeded(settings.address));
        }
        let listen = |error| StartError::Listen(settings.address, error);
        let listener = TcpListener::bind(settings.address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let file = settings.interval_log.map(|path| open_log(&path).map_err(|error| StartError::Log(path, error))).transpose()?;
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk {
                control,
                token: settings.token,
                log: IntervalLog::new(INTERVALS_KEPT),
                limits: settings.limits,
                started: wall_clock(),
            }),
            open: Mutex::new(HashMap::new()),
            closed: Condvar::new(),
            stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(io::Error::from)?,
            times: settings.times,
            requests: AtomicU64::new(0),
            refused_connections: AtomicU64::new(0),
            bad_requests: AtomicU64::new(0),
        });
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(io::Error::from)?;
        epoll.add(&shared.stop, EpollEvent::new(EpollFlags::EPOLLIN, 1)).map_err(io::Error::from)?;
        let listening =
            Listening { shared: shared.clone(), listener, epoll, interval: settings.interval, file, threads: HashMap::new() };
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || listening.run())?;
        Ok(Server { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection after the answer it is at, and waits for the threads.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The counter of a fresh eventfd can't overflow by one.
        self.shared.stop.write(1).expect("the stop signal can be raised once");
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by that thread.
            let _ = thread.join();
        }
    }
}

fn wall_clock() -> WallClock {
    WallClock(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

/// Opens the interval log for appending and gives a new one its header.
fn open_log(path: &PathBuf) -> io::Result<File> {
    let mut file = File::options().create(true).append(true).open(path)?;
    if file.metadata()?.len() == 0 {
        file.write_all(IntervalLog::header().as_bytes())?;
    }
    Ok(file)
}

/// The listening thread.
struct Listening {
    shared: Arc<Shared>,
    listener: TcpListener,
    epoll: Epoll,
    interval: Duration,
    file: Option<File>,
    threads: HashMap<u64, JoinHandle<()>>,
}

impl Listening {
    fn run(mut self) {
        let mut next_interval = Instant::now() + self.interval;
        let mut number = 0;
        loop {
            let left = next_interval.saturating_duration_since(Instant::now());
            let mut events = [EpollEvent::empty(); 2];
            // Rounded up: a wait that ends early would spin until the interval is over.
            let wait = EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX);
            let ready = match self.epoll.wait(&mut events, wait) {
                Ok(ready) => ready,
                Err(nix::Error::EINTR) => 0,
                Err(error) => panic!("the admin thread's own epoll is sound: {error}"),
            };
            if events[..ready].iter().any(|event| event.data() == 1) {
                break;
            }
            if ready > 0 {
                number += 1;
                self.accept(number);
            }
            if Instant::now() >= next_interval {
                next_interval = Instant::now() + self.interval;
                self.end_interval();
            }
        }
        self.end_connections();
    }

    /// What is being answered may still go out for a moment: first only the reading sides are closed.
    fn end_connections(mut self) {
        let open = lock(&self.shared.open);
        open.values().for_each(|stream| drop(stream.shutdown(Shutdown::Read)));
        let waited = self.shared.closed.wait_timeout_while(open, FAREWELL, |open| !open.is_empty());
        let (open, _) = waited.expect("no thread of the admin API has panicked");
        open.values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        drop(open);
        self.threads.drain().for_each(|(_, thread)| drop(thread.join()));
    }

    fn accept(&mut self, number: u64) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => return,
            Err(error) => {
                tracing::warn!(%error, "the admin API can't take a connection: raise ulimit -n");
                std::thread::sleep(ACCEPT_PAUSE);
                return;
            }
        };
        let finished: Vec<u64> =
            self.threads.iter().filter(|(_, thread)| thread.is_finished()).map(|(&number, _)| number).collect();
        for number in finished {
            drop(self.threads.remove(&number).map(JoinHandle::join));
        }
        if let Err(error) = self.serve(number, stream) {
            lock(&self.shared.open).remove(&number);
            tracing::warn!(%error, "the admin API can't serve a connection");
        }
    }

    fn serve(&mut self, number: u64, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        {
            let mut open = lock(&self.shared.open);
            if open.len() >= CONNECTIONS {
                drop(open);
                self.shared.refused_connections.fetch_add(1, Relaxed);
                return refuse(stream);
            }
            open.insert(number, stream.try_clone()?);
        }
        let shared = self.shared.clone();
        let connection = std::thread::Builder::new().name(format!("admin-{number}")).stack_size(STACK_BYTES);
        let thread = connection.spawn(move || {
            // A client that went away is nobody's fault.
            let _ = Connection { shared: &shared, stream, buffer: Vec::new() }.run();
            lock(&shared.open).remove(&number);
            shared.closed.notify_one();
        })?;
        self.threads.insert(number, thread);
        Ok(())
    }

    fn end_interval(&mut self) {
        let mut desk = lock(&self.shared.desk);
        let Ok(snapshots) = desk.control.snapshots() else { return };
        let lines = desk.log.push(snapshots, wall_clock());
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(lines.as_bytes())
        {
            tracing::error!(%error, "the interval log can't be written any more: free space and start the node anew");
            self.file = None;
        }
    }
}

/// One connection too many. The answer fits into the socket's buffer, so this doesn't wait.
fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let text = format!("{CONNECTIONS} admin connections are open, which is all there may be: close one, or try again later");
    stream.set_nonblocking(true)?;
    stream.write_all(&error(503, text).encode(false, true))?;
    stream.shutdown(Shutdown::Write)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of the admin API has panicked")
}

/// One connection on its thread.
struct Connection<'a> {
    shared: &'a Shared,
    stream: TcpStream,
    /// What was read and isn't used yet; after a request, the beginning of the next.
    buffer: Vec<u8>,
}

impl Connection<'_> {
    fn run(mut self) -> io::Result<()> {
        loop {
            let (response, head, close) = match self.next_request()? {
                None => return Ok(()),
                Some(Ok(mut request)) => {
                    self.shared.requests.fetch_add(1, Relaxed);
                    let (head, close) = (request.method == "HEAD", !request.keep_alive);
                    let counts = self.shared.counts();
                    (routes::answer(&mut lock(&self.shared.desk), &mut request, counts), head, close)
                }
                Some(Err(response)) => {
                    self.shared.bad_requests.fetch_add(1, Relaxed);
                    (response, false, true)
                }
            };
            self.write(&response.encode(head, close))?;
            if close {
                return self.farewell();
            }
        }
    }

    /// `None`: the client is done, or silent between two requests.
    fn next_request(&mut self) -> io::Result<Option<Result<Request, Response>>> {
        let mut until = Instant::now() + if self.buffer.is_empty() { self.shared.times.idle } else { self.shared.times.request };
        let mut continued = false;
        loop {
            match http::parse(&self.buffer) {
                Err(fault) => return Ok(Some(Err(fault.into()))),
                Ok(Parsed::Whole(request, bytes)) => {
                    self.buffer.drain(..bytes);
                    return Ok(Some(Ok(*request)));
                }
                Ok(Parsed::MoreBody { waits: true }) if !continued => {
                    continued = true;
                    self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                Ok(Parsed::More | Parsed::MoreBody { .. }) => {}
            }
            let begun = !self.buffer.is_empty();
            match self.read(until)? {
                Some(0) => return Ok(None),
                Some(_) if !begun => until = Instant::now() + self.shared.times.request,
                Some(_) => {}
                None if begun => return Ok(Some(Err(error(408, "the request did not come in time: send it at once")))),
                None => return Ok(None),
            }
        }
    }

    /// Reads what there is into the buffer. `None`: nothing came until then.
    fn read(&mut self, until: Instant) -> io::Result<Option<usize>> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; READ_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Ok(Some(read))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read(until),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let until = Instant::now() + self.shared.times.answer;
        while !bytes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes so that the client reads the last answer even when it is still sending.
    fn farewell(mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        let until = Instant::now() + FAREWELL;
        let mut thrown_away = 0;
        while thrown_away < FAREWELL_BYTES {
            self.buffer.clear();
            match self.read(until)? {
                None | Some(0) => break,
                Some(bytes) => thrown_away += bytes,
            }
        }
        Ok(())
    }
}

impl Shared {
    fn counts(&self) -> ServerCounts {
        let count = |name, help, value: &AtomicU64| NodeCount { name, help, value: value.load(Relaxed) };
        [
            count("admin_requests", "Requests to the admin API", &self.requests),
            count("admin_bad_requests", "Bytes to the admin API that were no request", &self.bad_requests),
            count("admin_connections_refused", "Connections to the admin API beyond the limit", &self.refused_connections),
        ]
    }
}
