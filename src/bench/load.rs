//! A closed-loop load generator: many clients on one thread, which send a frame when earlier ones have been heard (see `Pace`).
//!
//! Lives on: the generator's pinned thread. epoll and plain reads and writes, so that the load doesn't depend on what it measures.
//! Reads are big and frames are recognised, not decoded. Serves G6. Invariant: every delivery is counted, so
//! loss shows as a stall, never as speed.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// Clients looked at in one round.
const EVENTS: usize = 1024;
/// How long the generator waits for a delivery before it says that the node has stalled.
const STALL: Duration = Duration::from_secs(10);
const STALL_MS: u16 = 10_000;

/// What the clients say, and how their frames are told apart.
pub trait Traffic {
    /// Appends the next frame of `client`.
    fn make(&mut self, client: u32, into: &mut Vec<u8>);

    /// Finds the whole frames at the start of `bytes`, which `client` got, and says for each update which client had sent it.
    /// Returns the bytes of these frames.
    fn recognise(&mut self, client: u32, bytes: &[u8], delivered: impl FnMut(u32)) -> usize;

    /// How many clients hear of an update of `client`.
    fn audience(&self, client: u32) -> u32;

    /// How many clients `client` hears of: what it gets when each of them sends one frame.
    fn publishers(&self, client: u32) -> u32;
}

/// When a client may send its next frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// When fewer than `window` of its frames are on their way to somebody. Rounds go in lockstep at window 1: server and load take
    /// turns.
    Delivered,
    /// When it has heard as many frames as its publishers send in one round: clients keep each other going, and a server that is
    /// busy finds the next round's frames waiting.
    Heard,
}

struct Client {
    stream: TcpStream,
    /// The start of a frame whose end is still to come.
    rest: Vec<u8>,
    /// What the socket didn't take.
    unsent: Vec<u8>,
    /// `Pace::Delivered`: deliveries of its frames that are still to come.
    outstanding: u32,
    /// `Pace::Heard`: frames it may send, and frames heard towards the next.
    credit: u32,
    heard: u32,
    /// It is in `due`.
    due: bool,
}

/// What was counted in a measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    pub updates: u64,
    pub deliveries: u64,
    pub seconds: f64,
}

/// Clients that are connected, and their traffic.
pub struct Load<T> {
    traffic: T,
    clients: Vec<Client>,
    epoll: Epoll,
    pace: Pace,
    window: u32,
    due: Vec<u32>,
    blocked: Vec<u32>,
    read: Vec<u8>,
    frames: Vec<u8>,
    updates: u64,
    deliveries: u64,
    /// Deliveries that the updates so far will make.
    expected: u64,
}

impl<T: Traffic> Load<T> {
    /// Connects `clients` clients, each of which may have `window` frames on their way, by the rule of `pace`.
    pub fn connect(target: SocketAddr, clients: u32, (pace, window): (Pace, u32), traffic: T) -> io::Result<Load<T>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connected = Vec::with_capacity(clients as usize);
        for number in 0..clients {
            let stream = TcpStream::connect(target)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(number)))?;
            connected.push(Client {
                stream,
                rest: Vec::new(),
                unsent: Vec::new(),
                outstanding: 0,
                credit: window,
                heard: 0,
                due: true,
            });
        }
        Ok(Load {
            traffic,
            clients: connected,
            epoll,
            pace,
            window,
            due: (0..clients).collect(),
            blocked: Vec::new(),
            read: vec![0; READ_BYTES],
            frames: Vec::new(),
            updates: 0,
            deliveries: 0,
            expected: 0,
        })
    }

    /// Keeps the clients talking for `time`.
    ///
    /// # Errors
    /// A connection broke, or no delivery came for `STALL`.
    pub fn run(&mut self, time: Duration) -> io::Result<Counted> {
        let (updates, deliveries) = (self.updates, self.deliveries);
        let began = Instant::now();
        while began.elapsed() < time {
            self.speak()?;
            self.listen()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(Counted { updates: self.updates - updates, deliveries: self.deliveries - deliveries, seconds })
    }

    /// Says nothing new and waits until every frame has reached its audience: nothing was lost.
    pub fn drain(&mut self) -> io::Result<()> {
        while self.deliveries < self.expected {
            self.listen()?;
        }
        Ok(())
    }

    /// Sends what the windows allow.
    fn speak(&mut self) -> io::Result<()> {
        for number in std::mem::take(&mut self.blocked) {
            let unsent = std::mem::take(&mut self.clients[number as usize].unsent);
            self.send(number, &unsent)?;
        }
        let mut due = std::mem::take(&mut self.due);
        let mut frames = std::mem::take(&mut self.frames);
        for number in due.drain(..) {
            let audience = self.traffic.audience(number);
            let client = &mut self.clients[number as usize];
            client.due = false;
            frames.clear();
            let allowed = match self.pace {
                Pace::Delivered => self.window - client.outstanding.div_ceil(audience),
                Pace::Heard => std::mem::take(&mut client.credit),
            };
            for _ in 0..allowed {
                self.traffic.make(number, &mut frames);
            }
            client.outstanding += audience * allowed;
            self.updates += u64::from(allowed);
            self.expected += u64::from(audience * allowed);
            self.send(number, &frames)?;
        }
        (self.due, self.frames) = (due, frames);
        Ok(())
    }

    fn send(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        let client = &mut self.clients[number as usize];
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = match client.unsent.is_empty() {
            true => match (&client.stream).write(bytes) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            },
            false => 0,
        };
        if sent < bytes.len() {
            if client.unsent.is_empty() {
                self.blocked.push(number);
            }
            client.unsent.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    /// Waits for deliveries and counts what came.
    fn listen(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let patience = if self.blocked.is_empty() { EpollTimeout::from(STALL_MS) } else { EpollTimeout::ZERO };
        let count = match self.epoll.wait(&mut events, patience) {
            Err(nix::errno::Errno::EINTR) => return Ok(()),
            result => result?,
        };
        if count == 0 && self.blocked.is_empty() {
            return Err(io::Error::other(format!("no delivery for {} s: the node has lost one, or stopped", STALL.as_secs())));
        }
        for event in &events[..count] {
            self.hear(event.data() as u32)?;
        }
        Ok(())
    }

    fn hear(&mut self, number: u32) -> io::Result<()> {
        let mut read = std::mem::take(&mut self.read);
        let result = self.hear_into(&mut read, number);
        self.read = read;
        result
    }

    fn hear_into(&mut self, read: &mut [u8], number: u32) -> io::Result<()> {
        let client = &mut self.clients[number as usize];
        let kept = client.rest.len();
        read[..kept].copy_from_slice(&client.rest);
        client.rest.clear();
        let got = match (&client.stream).read(&mut read[kept..]) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the node closed client {number}"))),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let bytes = &read[..kept + got];
        let (clients, due, traffic) = (&mut self.clients, &mut self.due, &mut self.traffic);
        let room = match self.pace {
            Pace::Delivered => traffic.audience(number) * (self.window - 1),
            Pace::Heard => 0,
        };
        let mut heard = 0;
        let used = traffic.recognise(number, bytes, |publisher| {
            heard += 1;
            let client = &mut clients[publisher as usize];
            client.outstanding -= 1;
            if self.pace == Pace::Delivered && client.outstanding <= room && !client.due {
                client.due = true;
                due.push(publisher);
            }
        });
        self.deliveries += u64::from(heard);
        let (client, round) = (&mut clients[number as usize], traffic.publishers(number));
        client.heard += heard;
        if self.pace == Pace::Heard && client.heard >= round {
            client.credit += client.heard / round;
            client.heard %= round;
            if !client.due {
                client.due = true;
                due.push(number);
            }
        }
        clients[number as usize].rest.extend_from_slice(&bytes[used..]);
        Ok(())
    }
}
