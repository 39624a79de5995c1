//! The service outside that decides on log-ins (`login.http`): one HTTP request for each, on threads of their own, because a core
//! may not wait.
//!
//! Lives on: `limits.http_requests` threads. Invariants: every question that was taken is answered, in `limits.http_ms` of when it
//! was asked; more than `limits.http_waiting` never wait; only the status 200 lets anybody in; neither passwords nor tokens are
//! logged.

use super::names::Name;
use super::replies::Replies;
use super::timed::Timed;
use super::trust::{Trust, Unusable};
use crate::base::config::{Config, Endpoint};
use crate::base::id::CoreId;
use crate::shard::hook::{Proof, Question, Verdict};
use crate::shard::{Whose, Worked};
use rustls::StreamOwned;
use rustls::pki_types::ServerName;
use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest head of an answer, in bytes. At the limit: no answer that is known.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// The log tells of failures this often at most.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// Why the service can't be asked. Each names the key, the reason and the fix.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("login.http: {0}. Write it like http://127.0.0.1:9000/check")]
    Address(&'static str),
    #[error("login.http: {0} is no name that a certificate can have. Write the service's name, or its IP address")]
    Name(String),
    #[error("login.http_ca: {path} can't be used: {why}. Put the certificates to trust there, as PEM")]
    Trust { path: String, why: String },
    #[error("login.http: a thread can't be started: {0}. Raise the limit of threads (ulimit -u), or lower limits.http_requests")]
    Thread(#[from] io::Error),
}

struct Asked {
    core: CoreId,
    question: Question,
    at: Instant,
}

/// A core's way to the service.
#[derive(Clone)]
pub struct Hook(SyncSender<Asked>);

impl Hook {
    /// Hands over a question. False: too many wait.
    pub fn take(&self, core: CoreId, question: Question) -> bool {
        self.0.try_send(Asked { core, question, at: Instant::now() }).is_ok()
    }
}

/// Starts the threads, if there is a service to ask: they end when the last core has dropped its way to them.
pub fn start(config: &Config, replies: &Replies) -> Result<Option<Hook>, HookError> {
    let Some(url) = &config.login.http else { return Ok(None) };
    let endpoint = Endpoint::parse(url).map_err(HookError::Address)?;
    let tls = match &config.login.http_ca {
        Some(trusted) if endpoint.is_private => {
            let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| HookError::Name(endpoint.host.clone()))?;
            let trust = Trust::new(trusted, None).map_err(|Unusable { path, why }| HookError::Trust { path, why })?;
            Some(Tls { trust, name })
        }
        _ => None,
    };
    let limits = &config.limits;
    let patience = Duration::from_millis(limits.http_ms.into());
    let name = Name::new(&endpoint.host, endpoint.port);
    let service = Arc::new(Service { endpoint, name, tls, patience, said: Mutex::new(None) });
    let (put, taken) = sync_channel(limits.http_waiting as usize);
    let taken = Arc::new(Mutex::new(taken));
    for thread in 0..limits.http_requests {
        let (service, taken, replies) = (service.clone(), taken.clone(), replies.clone());
        std::thread::Builder::new().name(format!("fanal-hook-{thread}")).spawn(move || service.serve(&taken, &replies))?;
    }
    Ok(Some(Hook(put)))
}

/// How the service is reached.
struct Service {
    endpoint: Endpoint,
    name: Name,
    tls: Option<Tls>,
    patience: Duration,
    /// When the log last told of a failure.
    said: Mutex<Option<Instant>>,
}

struct Tls {
    trust: Trust,
    name: ServerName<'static>,
}

/// What the service gets.
#[derive(Serialize)]
struct Body<'a> {
    jid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    address: IpAddr,
}

impl Service {
    fn serve(&self, taken: &Mutex<Receiver<Asked>>, replies: &Replies) {
        loop {
            // One thread waits for a question, the others for their turn to wait.
            let next = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Asked { core, question, at }) = next else { return };
            let verdict = self.decide(&question, at + self.patience);
            let nanos = at.elapsed().as_nanos().try_into().unwrap_or(u64::MAX);
            replies.put(core, Whose::Connection(question.conn), Worked::Judged { verdict, nanos });
        }
    }

    fn decide(&self, question: &Question, until: Instant) -> Verdict {
        let why = match self.ask(question, until) {
            Ok(200) => return Verdict::Allowed,
            Ok(401 | 403) => return Verdict::Denied,
            Ok(status) => format!("it answered with status {status}, where 200, 401 and 403 mean something"),
            Err(error) => error.to_string(),
        };
        self.say(&question.jid, &why);
        Verdict::Failed
    }

    fn say(&self, jid: &impl std::fmt::Display, why: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            *said = Some(Instant::now());
            let Endpoint { authority, .. } = &self.endpoint;
            tracing::warn!("{jid} can't log in now: the service of login.http at {authority} gave no verdict: {why}");
        }
    }

    /// The status that it answers with.
    fn ask(&self, question: &Question, until: Instant) -> io::Result<u16> {
        let request = self.request(question);
        let mut stream = Timed::connect(self.name.addresses(until)?, until)?;
        match &self.tls {
            None => exchange(&mut stream, &request),
            Some(tls) => exchange(&mut StreamOwned::new(tls.trust.session(&tls.name)?, stream), &request),
        }
    }

    fn request(&self, Question { jid, proof, address, .. }: &Question) -> Vec<u8> {
        let (password, token) = match proof {
            Proof::Password(password) => (Some(password.as_str()), None),
            Proof::Token(token) => (None, Some(token.as_str())),
        };
        let body = Body { jid: jid.as_str(), password, token, address: *address };
        let body = simd_json::serde::to_vec(&body).expect("texts and an address can be written as JSON");
        let Endpoint { authority, path, .. } = &self.endpoint;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: fanal\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    }
}

/// Sends the request and reads the answer's head; what comes behind it is of no interest.
fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<u16> {
    stream.write_all(request)?;
    stream.flush()?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    while answer.len() < HEAD_BYTES {
        let read = match stream.read(&mut piece)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed before it had answered")),
            read => read,
        };
        answer.extend_from_slice(&piece[..read]);
        if let Some(status) = status(&answer).map_err(|error| io::Error::other(format!("it doesn't speak HTTP: {error}")))? {
            return Ok(status);
        }
    }
    Err(io::Error::other(format!("the head of its answer is longer than {HEAD_BYTES} bytes")))
}

/// The status of an answer; `None`: its head is not whole yet.
fn status(answer: &[u8]) -> Result<Option<u16>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    Ok(head.parse(answer)?.is_complete().then_some(head.code).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, and what there is to read.
    struct Wire(Vec<u8>, io::Cursor<Vec<u8>>);

    impl Read for Wire {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            // One byte at a time, as an unkind network would.
            self.1.read(&mut into[..1])
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_whole_head_is_an_answer_and_an_endless_one_is_none() {
        let answered = |text: &str| exchange(&mut Wire(Vec::new(), io::Cursor::new(text.into())), b"POST").ok();
        assert_eq!(answered("HTTP/1.1 200 OK\r\n\r\n"), Some(200));
        assert_eq!(answered("HTTP/1.0 403 No\r\nContent-Length: 5\r\n\r\nab"), Some(403));
        for broken in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/2 200\r\n\r\n"] {
            assert_eq!(answered(broken), None, "{broken:?}");
        }
        assert_eq!(answered(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES))), None);
        assert_eq!(answered(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(HEADERS + 1))), None);
    }
}
