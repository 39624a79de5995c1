//! Connections that are over in time, for threads that wait for services outside.
//!
//! Lives on: the threads of `hook` and `etcd`. Invariant: no connect, read or write ends later than it was told.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_slow()) } else { Ok(left) }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it took too long")
}

/// A connection whose every read and write is over in time.
pub(super) struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    /// Connects to the first of these addresses that answers.
    pub(super) fn connect(addresses: impl IntoIterator<Item = SocketAddr>, until: Instant) -> io::Result<Timed> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect_timeout(&address, left(until)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Timed { stream, until });
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The connection itself, for whoever has time.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// The kernel says "try again" when a socket's own time is over; signals (glommio's) only interrupt.
    fn in_time<T>(&mut self, mut act: impl FnMut(&mut TcpStream, Duration) -> io::Result<T>) -> io::Result<T> {
        loop {
            let left = left(self.until)?;
            match act(&mut self.stream, left) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_slow()),
                done => return done,
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.in_time(|stream, left| stream.set_read_timeout(Some(left)).and_then(|()| stream.read(into)))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.in_time(|stream, left| stream.set_write_timeout(Some(left)).and_then(|()| stream.write(bytes)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
