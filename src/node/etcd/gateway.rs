//! Calls to etcd over its gateway: one HTTP request each, to one of its members.
//!
//! Lives on: the etcd thread, and one thread for each watch. Invariants: a call is over in time; a member that fails is not asked
//! first the next time; no answer is longer than `ANSWER_BYTES`.

use super::api::{Line, Watch, Watched};
use crate::base::config::Endpoint;
use crate::node::timed::Timed;
use crate::node::trust::Trust;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::thread::JoinHandle;
use std::time::Instant;

/// Longest answer in bytes: a whole table is about 0.6 MB. At the limit: the call has failed.
pub(super) const ANSWER_BYTES: u64 = 16 << 20;
const HEADERS: usize = 64;

/// One of etcd's members.
struct Place {
    authority: String,
    /// In its certificate.
    name: ServerName<'static>,
    addresses: Vec<SocketAddr>,
}

/// The way to etcd.
pub(super) struct Gateway {
    places: Vec<Place>,
    at: usize,
    /// `None`: in the clear.
    trust: Option<Trust>,
}

/// A connection to one of them.
enum Stream {
    Plain(Timed),
    Private(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Stream {
    /// The same without an end to the time that it has, and what it goes over.
    fn without_end(self) -> io::Result<(Box<dyn Read + Send>, TcpStream)> {
        let endless = |timed: Timed| -> io::Result<(TcpStream, TcpStream)> {
            let stream = timed.into_stream();
            stream.set_read_timeout(None)?;
            Ok((stream.try_clone()?, stream))
        };
        Ok(match self {
            Stream::Plain(timed) => {
                let (stream, below) = endless(timed)?;
                (Box::new(stream), below)
            }
            Stream::Private(private) => {
                let StreamOwned { conn, sock } = *private;
                let (stream, below) = endless(sock)?;
                (Box::new(StreamOwned::new(conn, stream)), below)
            }
        })
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(into),
            Stream::Private(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Private(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Private(stream) => stream.flush(),
        }
    }
}

impl Gateway {
    /// Looks up the names of the endpoints, once.
    ///
    /// # Errors
    /// None of a name's addresses can be found, or no certificate could have the name.
    pub(super) fn new(endpoints: &[Endpoint], trust: Option<Trust>) -> io::Result<Gateway> {
        let place = |endpoint: &Endpoint| {
            let addresses = (endpoint.host.as_str(), endpoint.port).to_socket_addrs()?.collect();
            let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
            Ok(Place { authority: endpoint.authority.clone(), name, addresses })
        };
        Ok(Gateway { places: endpoints.iter().map(place).collect::<io::Result<Vec<_>>>()?, at: 0, trust })
    }

    /// The member that is asked, for people.
    pub(super) fn name(&self) -> &str {
        &self.places[self.at].authority
    }

    /// Asks another member from now on.
    pub(super) fn turn(&mut self) {
        self.at = (self.at + 1) % self.places.len();
    }

    /// Makes a call. `Err`: it may have been done or not.
    pub(super) fn call<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize, until: Instant) -> io::Result<T> {
        let answer = self.request(path, body, until).and_then(|mut reader| {
            let mut answer = Vec::new();
            reader.by_ref().take(ANSWER_BYTES).read_to_end(&mut answer)?;
            simd_json::serde::from_slice(&mut answer).map_err(io::Error::other)
        });
        if answer.is_err() {
            self.turn();
        }
        answer
    }

    /// A request's answer, its head taken off. HTTP/1.0, so that its body ends where the connection does.
    fn request(&self, path: &str, body: &impl Serialize, until: Instant) -> io::Result<BufReader<Stream>> {
        let Place { authority, name, addresses } = &self.places[self.at];
        let body = simd_json::serde::to_vec(body).map_err(io::Error::other)?;
        let head = format!(
            "POST /v3/{path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = Timed::connect(addresses.iter().copied(), until)?;
        let mut stream = match &self.trust {
            None => Stream::Plain(stream),
            Some(trust) => Stream::Private(Box::new(StreamOwned::new(trust.session(name)?, stream))),
        };
        stream.write_all(&[head.into_bytes(), body].concat())?;
        stream.flush()?;
        let mut reader = BufReader::new(stream);
        let (mut head, mut limited) = (Vec::new(), reader.by_ref().take(16 << 10));
        while !head.ends_with(b"\r\n\r\n") {
            if limited.read_until(b'\n', &mut head)? == 0 {
                return Err(io::Error::other("its answer has no whole head"));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        answer.parse(&head).map_err(io::Error::other)?;
        if answer.code == Some(200) {
            return Ok(reader);
        }
        let mut why = String::new();
        reader.take(1_024).read_to_string(&mut why)?;
        Err(io::Error::other(format!("{path} was answered with status {}: {why}", answer.code.unwrap_or(0))))
    }

    /// Starts a watch: `hear` gets each of its lines, or why there is none, and says whether to go on.
    pub(super) fn watch(
        &mut self,
        from: &Watch,
        until: Instant,
        mut hear: impl FnMut(Result<Watched, String>) -> bool + Send + 'static,
    ) -> io::Result<Watching> {
        let started = self.request("watch", from, until).and_then(|reader| {
            // What was read ahead belongs to the first lines.
            let ahead = reader.buffer().to_vec();
            let (stream, ours) = reader.into_inner().without_end()?;
            let mut lines = BufReader::new(io::Cursor::new(ahead).chain(stream));
            let work = move || {
                while hear(next_line(&mut lines).map_err(|error| error.to_string())) {}
            };
            Ok(Watching { stream: ours, thread: Some(std::thread::Builder::new().name("fanal-etcd-watch".into()).spawn(work)?) })
        });
        if started.is_err() {
            self.turn();
        }
        started
    }
}

fn next_line(lines: &mut impl BufRead) -> io::Result<Watched> {
    let mut line = Vec::new();
    lines.take(ANSWER_BYTES).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line: Line<Watched> = simd_json::serde::from_slice(&mut line).map_err(io::Error::other)?;
    line.result.ok_or_else(|| io::Error::other("the watch was refused"))
}

/// A watch under way. It ends when this is dropped.
pub(super) struct Watching {
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a watch has no reason to panic");
        }
    }
}
