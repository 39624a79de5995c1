//! One end of a TLS connection as rustls has it, server or client: what comes is worked off, and what goes is encrypted, in the
//! same way.
//!
//! Lives on: the core that owns the connection. Serves C8, Z2.

use super::{Fault, fill};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error};
use std::ops::Deref;

/// Which end.
pub(super) enum Session {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What is to be encrypted.
#[derive(Clone, Copy)]
pub(super) enum Words<'w> {
    Plain(&'w [u8]),
    /// close_notify.
    Goodbye,
}

/// What the two ends have in common but no name for.
trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Process for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Process for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Deref for Session {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        match self {
            Session::Server(session) => session,
            Session::Client(session) => session,
        }
    }
}

impl Session {
    /// Bytes of its own record.
    pub fn size(&self) -> usize {
        match self {
            Session::Server(_) => size_of::<UnbufferedServerConnection>(),
            Session::Client(_) => size_of::<UnbufferedClientConnection>(),
        }
    }

    /// All whole records that are there; those for the peer are appended to `pending`. True: the peer will say no more.
    pub fn work_off(&mut self, incoming: &mut Vec<u8>, pending: &mut Vec<u8>, plain: &mut Vec<u8>) -> (bool, Result<(), Fault>) {
        match self {
            Session::Server(session) => work_off(&mut **session, incoming, pending, plain),
            Session::Client(session) => work_off(&mut **session, incoming, pending, plain),
        }
    }

    /// Appends what rustls has to say before it looks at bytes that came.
    pub fn flush(&mut self, pending: &mut Vec<u8>) {
        match self {
            Session::Server(session) => flush(&mut **session, pending),
            Session::Client(session) => flush(&mut **session, pending),
        }
    }

    /// Encrypts something behind what is in `out`. `room` is about what it takes; `incoming` what has come of the next record.
    pub fn write(&mut self, incoming: &mut [u8], words: Words<'_>, room: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Session::Server(session) => write(&mut **session, incoming, words, room, out),
            Session::Client(session) => write(&mut **session, incoming, words, room, out),
        }
    }
}

fn work_off(
    session: &mut impl Process,
    incoming: &mut Vec<u8>,
    pending: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> (bool, Result<(), Fault>) {
    let (mut at, mut closed) = (0, false);
    let mut outcome = Ok(true);
    while let Ok(true) = outcome {
        let UnbufferedStatus { discard, state } = session.process(&mut incoming[at..]);
        at += discard;
        outcome = match state {
            Ok(ConnectionState::ReadTraffic(mut records)) => loop {
                match records.next_record() {
                    Some(Ok(record)) => {
                        at += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    Some(Err(error)) => break Err(error.into()),
                    None => break Ok(true),
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut record)) => {
                encode(&mut record, pending);
                Ok(true)
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                Ok(true)
            }
            Ok(ConnectionState::PeerClosed) => {
                closed = true;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => Err(error.into()),
        };
    }
    incoming.drain(..at);
    (closed, outcome.map(|_| ()))
}

fn flush<S: Process + Deref<Target: Deref<Target = CommonState>>>(session: &mut S, pending: &mut Vec<u8>) {
    while session.wants_write() {
        match session.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut record)) => encode(&mut record, pending),
            _ => break,
        }
    }
}

fn write(session: &mut impl Process, incoming: &mut [u8], words: Words<'_>, room: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    loop {
        // With what has come of the next record: rustls may know where in it a message of its own begins.
        let UnbufferedStatus { state, .. } = session.process(incoming);
        match state? {
            ConnectionState::EncodeTlsData(mut record) => encode(&mut record, out),
            ConnectionState::TransmitTlsData(sent) => sent.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                return fill(out, room, |room| match words {
                    Words::Plain(plain) => traffic.encrypt(plain, room),
                    Words::Goodbye => traffic.queue_close_notify(room),
                });
            }
            _ => return Err(Error::HandshakeNotComplete.into()),
        }
    }
}

/// Appends a record that rustls has made.
fn encode<Data>(record: &mut EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = record.encode(&mut []) {
        out.resize(start + required_size, 0);
        let written = record.encode(&mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
    }
}
