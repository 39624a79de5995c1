//! A blocking connection: a socket, what was received and sorted, and what waits to be sent.
//!
//! Lives on: the thread of its owner. Invariant: every wait has an end.

use super::codec::Codec;
use super::inbox::Inbox;
use super::sasl::SaslError;
use super::tls::{Socket, Tls};
use super::values::{Answer, Greeting, Refusal};
use crate::base::reason::Reason;
use crate::wire::encode::{Encoder, Tag};
use crate::wire::frame::Chunk;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use thiserror::Error;

/// What can go wrong with a connection.
#[derive(Debug, Error)]
pub enum Error {
    #[error("can't connect to {address}: {error}; is the node running, and is this its native port?")]
    Connect { address: String, error: io::Error },
    #[error("TLS with {address} failed: {error}; is its certificate the one that was expected?")]
    Tls { address: String, error: io::Error },
    #[error("the connection broke: {0}; Client::resume goes on with the session")]
    Broken(io::Error),
    #[error("the server closed the connection; Client::resume goes on with the session")]
    Closed,
    #[error("the server refused: {0}")]
    Refused(Refusal),
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    #[error("the server sent what this client does not understand: {}", .0.text())]
    Protocol(Reason),
    #[error("the server answered {0}, which does not answer the request")]
    WrongAnswer(&'static str),
    #[error(transparent)]
    Sasl(#[from] SaslError),
    #[error("{0:?} is not a bare JID: write local@domain")]
    BadJid(String),
    #[error("log in first")]
    NotLoggedIn,
}

impl Error {
    /// The server's reason, if that is what this is.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Error::Refused(refusal) => refusal.reason(),
            _ => None,
        }
    }
}

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 << 10;

pub(super) struct Connection {
    socket: Socket,
    codec: Codec,
    pub(super) inbox: Inbox,
    pub(super) encoder: Encoder,
    /// Frames to be sent by the next `flush`.
    pub(super) out: Vec<u8>,
    buffer: Box<[u8]>,
    requests: u32,
    /// Longest wait for an answer.
    pub(super) timeout: Duration,
}

impl Connection {
    /// Connects and says Hello, inside TLS if it is to be.
    pub(super) fn open(address: &str, tls: Option<&Tls>, timeout: Duration, inbox: Inbox) -> Result<(Connection, Greeting), Error> {
        let socket = connect(address, timeout).map_err(|error| Error::Connect { address: address.to_owned(), error })?;
        let socket = match tls {
            None => Socket::Clear(socket),
            Some(tls) => tls.begin(socket).map_err(|error| Error::Tls { address: address.to_owned(), error })?,
        };
        let mut connection = Connection {
            socket,
            codec: Codec::default(),
            inbox,
            encoder: Encoder::default(),
            out: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            requests: 0,
            timeout,
        };
        let software = concat!("fanal-client ", env!("CARGO_PKG_VERSION"));
        match connection.request(0, |encoder, out, tag| encoder.hello(out, tag, software))? {
            Answer::Greeting(greeting) => Ok((connection, greeting)),
            other => Err(wrong(&other)),
        }
    }

    /// A number for a request that wants an answer.
    pub(super) fn next_request(&mut self) -> u32 {
        self.requests = self.requests.checked_add(1).unwrap_or(1);
        self.requests
    }

    /// Sends a request and waits for its answer; a refusal is an error.
    pub(super) fn request(&mut self, stream: u32, write: impl FnOnce(&mut Encoder, &mut Vec<u8>, Tag)) -> Result<Answer, Error> {
        let tag = Tag { stream, request: self.next_request() };
        write(&mut self.encoder, &mut self.out, tag);
        self.flush()?;
        self.answer(tag)
    }

    /// Waits for the answer to a request that was sent; a refusal is an error.
    pub(super) fn answer(&mut self, tag: Tag) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let answered = self.inbox.answers.iter().position(|(answered, _)| *answered == tag);
            match answered.and_then(|at| self.inbox.answers.remove(at)) {
                Some((_, Answer::Refused(refusal))) => return Err(Error::Refused(refusal)),
                Some((_, answer)) => return Ok(answer),
                None if !self.receive(deadline)? => return Err(Error::NoAnswer(self.timeout)),
                None => {}
            }
        }
    }

    /// Sends everything written to `out`.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        if !self.out.is_empty() {
            let patience = Some(self.timeout.max(Duration::from_millis(1)));
            self.socket.tcp().set_write_timeout(patience).map_err(Error::Broken)?;
            let sent = self.socket.write_all(&self.out).and_then(|()| self.socket.flush());
            self.out.clear();
            // What the server said before it closed is a better answer than a broken pipe.
            if let Err(error) = sent {
                while let Ok(true) = self.receive(Instant::now() + Duration::from_millis(1)) {}
                return Err(self.ended(Error::Broken(error)));
            }
        }
        Ok(())
    }

    /// Reads once and sorts in what came. False: nothing came before the deadline.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<bool, Error> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        self.socket.tcp().set_read_timeout(Some(left)).map_err(Error::Broken)?;
        let length = match self.socket.read(&mut self.buffer) {
            Ok(0) => return Err(self.ended(Error::Closed)),
            // TLS says so of an end without goodbye.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.ended(Error::Closed)),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(self.ended(Error::Broken(error))),
        };
        let mut chunk = Chunk::new(&self.buffer[..length]);
        while let Some(received) = self.codec.next(&mut chunk).map_err(Error::Protocol)? {
            self.inbox.take(&received, &mut self.out).map_err(Error::Protocol)?;
        }
        if self.inbox.ended.is_none() {
            self.flush()?;
        }
        Ok(true)
    }

    pub(super) fn local_address(&self) -> io::Result<std::net::SocketAddr> {
        self.socket.tcp().local_addr()
    }

    /// What SCRAM's -PLUS mechanisms bind to.
    pub(super) fn binding(&self) -> Option<[u8; 32]> {
        self.socket.binding()
    }

    pub(super) fn break_off(&mut self) {
        // A socket that is broken already is as broken as was asked for.
        let _broken_already = self.socket.tcp().shutdown(std::net::Shutdown::Both);
    }

    /// The reason the server gave for closing, if it gave one.
    fn ended(&mut self, otherwise: Error) -> Error {
        self.inbox.ended.take().map_or(otherwise, Error::Refused)
    }
}

fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name leads to no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout.max(Duration::from_millis(1))) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                // For the handshake; each wait sets its own.
                socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The error for an answer of the wrong kind.
pub(super) fn wrong(answer: &Answer) -> Error {
    Error::WrongAnswer(match answer {
        Answer::Done => "Done",
        Answer::Greeting(_) => "Hello",
        Answer::Challenge(_) => "SaslChallenge",
        Answer::Authenticated(..) => "Authenticated",
        Answer::LoggedIn(_) => "LoggedIn",
        Answer::Roster(_) => "Roster",
        Answer::Document(_) => "Document",
        Answer::LastSeen(_) => "LastSeen",
        Answer::BlockList(_) => "BlockList",
        Answer::Pong => "Pong",
        Answer::Refused(_) => "Error",
    })
}
