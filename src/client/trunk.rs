//! A trunk: many users' sessions over one connection, blocking.
//!
//! Lives on: the thread of its owner. Requests are pipelined: they are queued, sent together, and their answers come by number.

use super::connection::{Connection, Error, wrong};
use super::inbox::{Inbox, Streams};
use super::tls::Tls;
use super::values::{Answer, Event, Greeting, LoggedIn};
use crate::wire::encode::{Encoder, LogInFields, Tag};
use std::time::{Duration, Instant};

/// Log-ins of `log_in_all` that are under way at once.
const LOG_INS_UNDER_WAY: usize = 1024;

/// What a trunk receives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrunkEvent {
    /// Something happened for the sessions of these streams.
    Event(Streams, Event),
    /// The answer to a request.
    Answer(Tag, Answer),
}

/// A connection that carries many users' sessions.
pub struct Trunk {
    connection: Connection,
    greeting: Greeting,
}

impl Trunk {
    /// Connects and authorises the trunk with its token. `timeout` is the longest wait for the connection and for each answer.
    pub fn connect(address: &str, token: &str, timeout: Duration) -> Result<Trunk, Error> {
        Trunk::open(address, token, None, timeout)
    }

    /// The same, inside TLS.
    pub fn connect_tls(address: &str, token: &str, tls: &Tls, timeout: Duration) -> Result<Trunk, Error> {
        Trunk::open(address, token, Some(tls), timeout)
    }

    fn open(address: &str, token: &str, tls: Option<&Tls>, timeout: Duration) -> Result<Trunk, Error> {
        let (mut connection, greeting) = Connection::open(address, tls, timeout, Inbox::of_trunk())?;
        let log_in = LogInFields { mechanism: "TRUNK", data: token.as_bytes(), ..LogInFields::default() };
        match connection.request(0, |encoder, out, tag| encoder.log_in(out, tag, &log_in))? {
            Answer::Done => Ok(Trunk { connection, greeting }),
            other => Err(wrong(&other)),
        }
    }

    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Logs one user in on a stream, which must be above 0 and free.
    pub fn log_in(&mut self, stream: u32, jid: &str, resource: &str) -> Result<LoggedIn, Error> {
        self.connection.inbox.new_session(stream);
        let log_in = LogInFields { jid, resource, ..LogInFields::default() };
        match self.connection.request(stream, |encoder, out, tag| encoder.log_in(out, tag, &log_in))? {
            Answer::LoggedIn(logged_in) => Ok(logged_in),
            other => Err(wrong(&other)),
        }
    }

    /// Logs many users in, on the streams from `first` on. Events and answers that come meanwhile stay for `next`.
    ///
    /// Errors: the first refusal; log-ins under way then are left to `next`.
    pub fn log_in_all<T: AsRef<str>>(&mut self, first: u32, jids: &[T], resource: &str) -> Result<Vec<LoggedIn>, Error> {
        let mut logged_in = Vec::with_capacity(jids.len());
        for (group, jids) in jids.chunks(LOG_INS_UNDER_WAY).enumerate() {
            let start = first + (group * LOG_INS_UNDER_WAY) as u32;
            let tags: Vec<Tag> =
                (start..).zip(jids).map(|(stream, jid)| self.send_log_in(stream, jid.as_ref(), resource)).collect();
            self.flush()?;
            for tag in tags {
                match self.connection.answer(tag)? {
                    Answer::LoggedIn(one) => logged_in.push(one),
                    other => return Err(wrong(&other)),
                }
            }
        }
        Ok(logged_in)
    }

    /// Queues one user's log-in on a stream, which must be above 0 and free.
    pub fn send_log_in(&mut self, stream: u32, jid: &str, resource: &str) -> Tag {
        self.connection.inbox.new_session(stream);
        let log_in = LogInFields { jid, resource, ..LogInFields::default() };
        self.send(stream, |encoder, out, tag| encoder.log_in(out, tag, &log_in))
    }

    /// Queues a frame for the next `flush`. The tag names the stream and a request number; its answer comes by that tag.
    pub fn send(&mut self, stream: u32, write: impl FnOnce(&mut Encoder, &mut Vec<u8>, Tag)) -> Tag {
        let tag = Tag { stream, request: self.connection.next_request() };
        write(&mut self.connection.encoder, &mut self.connection.out, tag);
        tag
    }

    /// Sends what was queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.connection.flush()
    }

    /// The next answer or event; `None` when there was nothing for that long. Answers come before events.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<TrunkEvent>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some((tag, answer)) = self.connection.inbox.answers.pop_front() {
                return Ok(Some(TrunkEvent::Answer(tag, answer)));
            }
            if let Some((streams, event)) = self.connection.inbox.events.pop_front() {
                return Ok(Some(TrunkEvent::Event(streams, event)));
            }
            if !self.connection.receive(deadline)? {
                return Ok(None);
            }
        }
    }

    /// The socket's own local address, for tests and logs.
    pub fn local_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.connection.local_address()
    }
}
