//! Many connections on one thread: what every benchmark over sockets speaks and listens through.
//!
//! Lives on: the generator's pinned thread. epoll and plain reads and writes, so that the load doesn't depend on what it measures.
//! Serves G6. Invariants: what a socket doesn't take is kept in order and sent when it does; whoever listens gets bytes from the
//! start of a frame, and what he leaves is put before what comes next.

use super::private::{self, Carried, Private};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// Connections looked at in one round.
const EVENTS: usize = 1024;
/// Connections from one loopback address, which has some 28,000 ports: those that linger after an earlier run are never missed.
const CONNECTIONS_PER_SOURCE: usize = 4096;
/// Shortest wait that epoll knows. For shorter ones there is a clock, which epoll calls by a number that no connection has.
const SHORTEST: Duration = Duration::from_millis(1);
const CLOCK: u64 = u64::MAX;
/// Longest wait for a connection to be accepted.
const CONNECT: Duration = Duration::from_secs(20);

struct Wire {
    stream: TcpStream,
    tls: Option<Box<Private>>,
    /// The start of a frame whose end is still to come.
    rest: Vec<u8>,
    /// What the socket didn't take.
    unsent: Vec<u8>,
}

/// Connections, numbered from 0 in the order in which they were opened.
pub struct Wires {
    /// By turns.
    targets: Vec<SocketAddr>,
    wires: Vec<Wire>,
    epoll: Epoll,
    clock: TimerFd,
    blocked: Vec<u32>,
    read: Vec<u8>,
    /// How to shake hands, if everything is said inside TLS; what was said so, as it goes over the socket; what came so, and how
    /// much.
    tls: Option<Arc<ClientConfig>>,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    carried: Carried,
}

impl Wires {
    /// None yet. `tls`: they will begin with a handshake, and everything is said inside.
    pub fn to(target: SocketAddr, tls: bool) -> io::Result<Wires> {
        Wires::to_all(vec![target], tls)
    }

    /// The same to several: connection n is to the target n, counted around.
    ///
    /// # Panics
    /// There is no target.
    pub fn to_all(targets: Vec<SocketAddr>, tls: bool) -> io::Result<Wires> {
        assert!(!targets.is_empty(), "a connection is to somebody");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let clock = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(&clock, EpollEvent::new(EpollFlags::EPOLLIN, CLOCK))?;
        let tls = tls.then(private::config).transpose()?;
        let (wires, blocked, read) = (Vec::new(), Vec::new(), vec![0; READ_BYTES]);
        let (sealed, plain) = (Vec::new(), Vec::new());
        Ok(Wires { targets, wires, epoll, clock, blocked, read, tls, sealed, plain, carried: Carried::default() })
    }

    /// Opens one more.
    ///
    /// # Errors
    /// Names the target and the likely fix.
    pub fn connect(&mut self) -> io::Result<u32> {
        let number = self.wires.len();
        let target = self.targets[number % self.targets.len()];
        let stream = connect(target, number).map_err(|error| {
            let fix = match error.raw_os_error() {
                Some(libc::EMFILE) => "raise the limit with `ulimit -n`, or use fewer users or --trunk",
                _ => "is the node running, and is this the address of the door that is measured?",
            };
            io::Error::other(format!("connection {number} to {target} failed: {error}; {fix}"))
        })?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        let tls = self.tls.clone().map(Private::new).transpose()?.map(Box::new);
        self.wires.push(Wire { stream, tls, rest: Vec::new(), unsent: Vec::new() });
        self.send(number as u32, b"")?;
        Ok(number as u32)
    }

    /// What has come inside TLS on all connections, so far.
    pub fn carried(&self) -> Carried {
        self.carried
    }

    pub fn len(&self) -> usize {
        self.wires.len()
    }

    pub fn is_empty(&self) -> bool {
        self.wires.is_empty()
    }

    /// Whether some socket has not taken all it was given.
    fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Sends, or keeps for `listen` to send what the socket doesn't take.
    pub fn send(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.wires[number as usize].tls else { return self.send_as_it_is(number, bytes) };
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.clear();
        tls.say(bytes, &mut sealed)?;
        let sent = self.send_as_it_is(number, &sealed);
        self.sealed = sealed;
        sent
    }

    fn send_as_it_is(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        let wire = &mut self.wires[number as usize];
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = if wire.unsent.is_empty() { write(&wire.stream, bytes)? } else { 0 };
        if sent < bytes.len() {
            if wire.unsent.is_empty() {
                self.blocked.push(number);
            }
            wire.unsent.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    fn send_kept(&mut self) -> io::Result<()> {
        for number in std::mem::take(&mut self.blocked) {
            let unsent = std::mem::take(&mut self.wires[number as usize].unsent);
            self.send_as_it_is(number, &unsent)?;
        }
        Ok(())
    }

    /// Sends the same last words on every connection and ends it, then reads until the other side has ended each.
    pub fn farewell(mut self, bytes: &[u8]) -> io::Result<()> {
        for wire in &mut self.wires {
            wire.stream.set_nonblocking(false)?;
            wire.stream.set_read_timeout(Some(CONNECT))?;
            let mut words = std::mem::take(&mut wire.unsent);
            match &mut wire.tls {
                Some(tls) => tls.say(bytes, &mut words)?,
                None => words.extend_from_slice(bytes),
            }
            wire.stream.write_all(&words)?;
            wire.stream.shutdown(Shutdown::Write)?;
        }
        for wire in &mut self.wires {
            while wire.stream.read(&mut self.read)? > 0 {}
        }
        Ok(())
    }

    /// Waits so long for bytes and hands them over, connection by connection; `heard` says how many of them it took. Gives the
    /// number of connections that had something.
    ///
    /// # Errors
    /// A connection broke or was closed.
    pub fn listen(&mut self, patience: Duration, mut heard: impl FnMut(u32, &[u8]) -> usize) -> io::Result<usize> {
        self.send_kept()?;
        let mut events = [EpollEvent::empty(); EVENTS];
        let patience = if self.is_blocked() { Duration::ZERO } else { patience };
        if !patience.is_zero() && patience < SHORTEST {
            self.clock.set(Expiration::OneShot(patience.into()), TimerSetTimeFlags::empty())?;
        }
        let patience = if patience.is_zero() { patience } else { patience.max(SHORTEST) };
        let patience = EpollTimeout::try_from(patience).map_err(io::Error::other)?;
        let count = match self.epoll.wait(&mut events, patience) {
            Err(nix::errno::Errno::EINTR) => 0,
            result => result?,
        };
        let mut rung = 0;
        for event in &events[..count] {
            if event.data() == CLOCK {
                self.clock.wait()?;
                rung = 1;
                continue;
            }
            let number = event.data() as u32;
            let Some(length) = self.receive(number)? else { continue };
            let bytes = if self.tls.is_some() { &self.plain } else { &self.read[..length] };
            let used = heard(number, bytes);
            let rest = &mut self.wires[number as usize].rest;
            rest.clear();
            rest.extend_from_slice(&bytes[used..]);
        }
        Ok(count - rung)
    }

    /// Reads from a connection, behind what was left of it before; gives the length of both. `None`: there is nothing.
    fn receive(&mut self, number: u32) -> io::Result<Option<usize>> {
        let wire = &mut self.wires[number as usize];
        let kept = wire.rest.len();
        if self.read.len() < kept + READ_BYTES {
            self.read.resize(kept + READ_BYTES, 0);
        }
        self.read[..kept].copy_from_slice(&wire.rest);
        let got = match (&wire.stream).read(&mut self.read[kept..kept + READ_BYTES]) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the node closed connection {number}"))),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(io::Error::new(error.kind(), format!("connection {number} broke: {error}"))),
        };
        let Some(tls) = &mut wire.tls else { return Ok(Some(kept + got)) };
        self.plain.clear();
        self.plain.extend_from_slice(&self.read[..kept]);
        let carried = tls.hear(&self.read[kept..kept + got], &mut self.plain);
        self.carried += carried.map_err(|error| io::Error::other(format!("TLS of connection {number} failed: {error}")))?;
        // The handshake may have an answer.
        self.send(number, b"")?;
        Ok(Some(self.plain.len()))
    }
}

fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

fn connect(target: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    if target.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        // The port is then chosen by `connect`, which may take one that lingers after an earlier connection.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        let source = Ipv4Addr::new(127, 0, 1, 1 + (number / CONNECTIONS_PER_SOURCE) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect_timeout(&target.into(), CONNECT)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_a_listener_leaves_comes_again_before_what_follows() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut wires = Wires::to(listener.local_addr().unwrap(), false).unwrap();
        let number = wires.connect().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut heard = Vec::new();
        for part in ["abc", "de"] {
            peer.write_all(part.as_bytes()).unwrap();
            while heard.last().is_none_or(|last: &Vec<u8>| !last.ends_with(part.as_bytes())) {
                wires
                    .listen(Duration::from_secs(10), |_, bytes| {
                        heard.push(bytes.to_vec());
                        bytes.len() - 1
                    })
                    .unwrap();
            }
        }
        assert_eq!(heard.last().unwrap(), b"cde");
        assert_eq!(number, 0);
    }

    #[test]
    fn what_a_socket_does_not_take_at_once_arrives_in_order() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut wires = Wires::to(listener.local_addr().unwrap(), false).unwrap();
        wires.connect().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let bytes: Vec<u8> = (0..32 << 20).map(|n: u32| (n % 251) as u8).collect();
        for part in bytes.chunks(1 << 20) {
            wires.send(0, part).unwrap();
        }
        assert!(wires.is_blocked());
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 32 << 20];
            peer.read_exact(&mut all).unwrap();
            // The peer comes back too: its end would be an error to whoever still listens.
            (all, peer)
        });
        while wires.is_blocked() {
            wires.listen(Duration::ZERO, |_, bytes| bytes.len()).unwrap();
        }
        assert!(reader.join().unwrap().0 == bytes);
    }
}
