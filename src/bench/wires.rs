//! Many connections on one thread: what every benchmark over sockets speaks and listens through.
//!
//! Lives on: the generator's pinned thread. epoll and plain reads and writes, so that the load doesn't depend on what it measures.
//! Serves G6. Invariants: what a socket doesn't take is kept in order and sent when it does; whoever listens gets bytes from the
//! start of a frame, and what he leaves is put before what comes next.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// Connections looked at in one round.
const EVENTS: usize = 1024;
/// Connections from one loopback address, which has some 28,000 ports: those that linger after an earlier run are never missed.
const CONNECTIONS_PER_SOURCE: usize = 4096;
/// Longest wait for a connection to be accepted.
const CONNECT: Duration = Duration::from_secs(20);

struct Wire {
    stream: TcpStream,
    /// The start of a frame whose end is still to come.
    rest: Vec<u8>,
    /// What the socket didn't take.
    unsent: Vec<u8>,
}

/// Connections, numbered from 0 in the order in which they were opened.
pub struct Wires {
    target: SocketAddr,
    wires: Vec<Wire>,
    epoll: Epoll,
    blocked: Vec<u32>,
    read: Vec<u8>,
}

impl Wires {
    /// None yet.
    pub fn to(target: SocketAddr) -> io::Result<Wires> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Wires { target, wires: Vec::new(), epoll, blocked: Vec::new(), read: vec![0; READ_BYTES] })
    }

    /// Opens one more.
    ///
    /// # Errors
    /// Names the target and the likely fix.
    pub fn connect(&mut self) -> io::Result<u32> {
        let number = self.wires.len();
        let stream = connect(self.target, number).map_err(|error| {
            let fix = match error.raw_os_error() {
                Some(libc::EMFILE) => "raise the limit with `ulimit -n`, or use fewer users or --trunk",
                _ => "is the node running, and is this its native address?",
            };
            io::Error::other(format!("connection {number} to {} failed: {error}; {fix}", self.target))
        })?;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        self.wires.push(Wire { stream, rest: Vec::new(), unsent: Vec::new() });
        Ok(number as u32)
    }

    pub fn len(&self) -> usize {
        self.wires.len()
    }

    pub fn is_empty(&self) -> bool {
        self.wires.is_empty()
    }

    /// Whether some socket has not taken all it was given.
    pub fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Sends, or keeps for `listen` to send what the socket doesn't take.
    pub fn send(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
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
            self.send(number, &unsent)?;
        }
        Ok(())
    }

    /// Sends the same last words on every connection and ends it, then reads until the other side has ended each.
    pub fn farewell(mut self, bytes: &[u8]) -> io::Result<()> {
        for wire in &mut self.wires {
            wire.stream.set_nonblocking(false)?;
            wire.stream.set_read_timeout(Some(CONNECT))?;
            wire.stream.write_all(&wire.unsent)?;
            wire.stream.write_all(bytes)?;
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
        let patience = EpollTimeout::try_from(patience).map_err(io::Error::other)?;
        let count = match self.epoll.wait(&mut events, patience) {
            Err(nix::errno::Errno::EINTR) => 0,
            result => result?,
        };
        for event in &events[..count] {
            let number = event.data() as u32;
            let wire = &mut self.wires[number as usize];
            let kept = wire.rest.len();
            if self.read.len() < kept + READ_BYTES {
                self.read.resize(kept + READ_BYTES, 0);
            }
            self.read[..kept].copy_from_slice(&wire.rest);
            let got = match (&wire.stream).read(&mut self.read[kept..]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the node closed connection {number}"))),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(io::Error::new(error.kind(), format!("connection {number} broke: {error}"))),
            };
            let bytes = &self.read[..kept + got];
            let used = heard(number, bytes);
            wire.rest.clear();
            wire.rest.extend_from_slice(&bytes[used..]);
        }
        Ok(count)
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
        let mut wires = Wires::to(listener.local_addr().unwrap()).unwrap();
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
        let mut wires = Wires::to(listener.local_addr().unwrap()).unwrap();
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
