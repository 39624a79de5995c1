//! A made-up node, and raw HTTP to its admin API.

use fanal::admin::server::{Server, Settings};
use fanal::admin::{ClientEntry, ClusterList, ClusterStatus, Control, Forgotten, Health, OwnersOrder, Refusal, UserLine, UserList};
use fanal::base::config::Secret;
use fanal::base::id::{CoreId, UserId};
use fanal::base::jid::Bare;
use fanal::base::time::Time;
use fanal::metrics::fields::NodeCount;
use fanal::metrics::recorder::Recorder;
use fanal::metrics::snapshot::Snapshot;
use fanal::metrics::stage::{Stage, stage_histogram};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

/// What the made-up node knows; tests look in from outside.
#[derive(Default)]
pub struct State {
    pub users: BTreeMap<Bare, Option<String>>,
    /// Why it takes no clients.
    pub not_ready: Option<String>,
    pub not_live: Option<String>,
    pub overloaded: bool,
    pub bad_certificate: bool,
    readings: u64,
}

pub struct Node(pub Arc<Mutex<State>>);

impl Control for Node {
    fn snapshots(&mut self) -> Result<Vec<Snapshot>, Refusal> {
        let mut state = self.0.lock().unwrap();
        if state.overloaded {
            return Err(Refusal::Unavailable("core 0 did not answer in 10 s: look at its load".into()));
        }
        // Each reading shows one more event and one more second.
        state.readings += 1;
        let core = |core| {
            let mut recorder = Recorder::new(CoreId(core), 1, Time(0));
            recorder.record_many(Stage::EndToEnd, 5_000, state.readings);
            recorder.counters.updates = state.readings;
            *recorder.snapshot(Time(state.readings * 1_000_000_000))
        };
        Ok(vec![core(0), core(1)])
    }

    fn node_counts(&mut self) -> Vec<NodeCount> {
        vec![NodeCount { name: "store_rows", help: "Rows written", value: 42 }]
    }

    fn store_syncs(&mut self) -> Histogram<u64> {
        stage_histogram()
    }

    fn store_up(&mut self) -> bool {
        true
    }

    fn certificate_seconds_left(&mut self) -> Option<i64> {
        Some(86_400)
    }

    fn link_certificate_seconds_left(&mut self) -> Option<i64> {
        None
    }

    fn cluster(&mut self) -> Result<ClusterStatus, Refusal> {
        Ok(ClusterStatus::default())
    }

    fn share_out(&mut self, order: OwnersOrder) -> Result<String, Refusal> {
        match order {
            OwnersOrder::Drain => Ok("node 4 is given no more users".into()),
            OwnersOrder::Rebalance => Err(Refusal::Conflict("users stay: write store.kind".into())),
            OwnersOrder::Forget { node: 3, force } => Ok(format!("node 3 is forgotten, by force: {force}")),
            OwnersOrder::Forget { node, .. } => Err(Refusal::Missing(format!("there is no node {node}: look at the numbers"))),
        }
    }

    fn health(&mut self) -> Health {
        let state = self.0.lock().unwrap();
        let why = state.not_live.clone().or(state.not_ready.clone()).unwrap_or_default();
        Health { live: state.not_live.is_none(), ready: state.not_ready.is_none(), why }
    }

    fn add_user(&mut self, jid: &Bare, password: Option<&str>) -> Result<(), Refusal> {
        let mut state = self.0.lock().unwrap();
        if jid.domain() != "localhost" {
            return Err(Refusal::Wrong(format!("{jid} is not of this node's domain: use localhost")));
        }
        if state.users.contains_key(jid) {
            return Err(Refusal::Conflict(format!("{jid} exists already: choose another name")));
        }
        state.users.insert(jid.clone(), password.map(str::to_owned));
        Ok(())
    }

    fn remove_user(&mut self, jid: &Bare) -> Result<(), Refusal> {
        match self.0.lock().unwrap().users.remove(jid) {
            Some(_) => Ok(()),
            None => Err(Refusal::Missing(format!("there is no user {jid}: look at the list"))),
        }
    }

    fn list_users(&mut self, after: Option<&Bare>, limit: usize, node: Option<u16>) -> Result<UserList, Refusal> {
        let state = self.0.lock().unwrap();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let line = |(n, (jid, _)): (usize, (&Bare, _))| UserLine {
            jid: jid.clone(),
            user: UserId::new(1, 2, n as u32 + 1),
            node: 4,
            sessions: 1,
            contacts: 20,
        };
        let mut behind = state.users.range::<Bare, _>((from, Bound::Unbounded)).filter(|_| node.is_none_or(|node| node == 4));
        let users = behind.by_ref().take(limit).enumerate().map(line).collect();
        Ok(UserList { users, more: behind.next().is_some(), missing: vec![5] })
    }

    fn clusters(&mut self) -> Result<ClusterList, Refusal> {
        Ok(ClusterList { cluster: 1, directory: 1, clusters: Vec::new(), missing: Vec::new() })
    }

    fn forget_cluster(&mut self, number: u16, force: bool) -> Result<Forgotten, Refusal> {
        match force {
            true => Ok(Forgotten { gone: number.into(), left: 0 }),
            false => Err(Refusal::Conflict(format!("cluster {number} has users"))),
        }
    }

    fn clients(&mut self, most: usize) -> Result<Vec<ClientEntry>, Refusal> {
        let client = |n: usize| ClientEntry {
            core: 0,
            peer: IpAddr::from([127, 0, 0, 1]),
            jid: Some(format!("user{n}@localhost/phone")),
            trunk: false,
            sessions: 1,
            units_in: 100 - n as u32,
            units_out: 10,
            publications: 3,
            published_bytes: 300,
        };
        Ok((0..most.min(100)).map(client).collect())
    }

    fn locate(&mut self, jid: &Bare) -> Result<Option<u16>, Refusal> {
        Ok(self.0.lock().unwrap().users.contains_key(jid).then_some(7))
    }

    fn transfer(&mut self, jid: &Bare, _address: &str) -> Result<usize, Refusal> {
        Ok(usize::from(self.0.lock().unwrap().users.contains_key(jid)) * 3)
    }

    fn reload_certificate(&mut self) -> Result<String, Refusal> {
        match self.0.lock().unwrap().bad_certificate {
            true => Err(Refusal::Conflict("a.pem can't be read: put it there. The certificate stays as it was".into())),
            false => Ok("the certificate in a.pem".into()),
        }
    }
}

pub fn loopback() -> Settings {
    Settings::new(SocketAddr::from(([127, 0, 0, 1], 0)), None)
}

pub fn secret() -> Secret {
    Secret::new("a token that nobody guesses, 32+ bytes").unwrap()
}

/// A node with its admin API at a free port.
pub fn start(settings: Settings) -> (Server, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State::default()));
    let server = Server::start(settings, Box::new(Node(state.clone()))).unwrap();
    (server, state)
}

/// An answer as it stood on the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    /// Checks that it is an error that says something.
    pub fn is_error(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json");
        assert!(self.body.starts_with("{\"error\":\"") && self.body.contains(words), "{words:?} in {self:?}");
    }
}

/// A raw connection.
pub struct Wire(pub BufReader<TcpStream>);

impl Wire {
    pub fn new(address: SocketAddr) -> Wire {
        Wire(BufReader::new(TcpStream::connect(address).unwrap()))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Reads one answer. `None`: the node closed instead, or broke the connection off.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to(false)
    }

    pub fn answer_to(&mut self, head: bool) -> Option<Answer> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let status = line.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) => drop(headers.insert(name.to_lowercase(), value.to_owned())),
                None => break,
            }
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if head { 0 } else { length }];
        self.0.read_exact(&mut body).unwrap();
        Some(Answer { status, headers, body: String::from_utf8(body).unwrap() })
    }

    /// Whether the node has closed, after everything it sent.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    let mut wire = Wire::new(address);
    wire.send(request(method, target, headers, body));
    wire.answer_to(method == "HEAD").expect("an answer")
}

pub fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, "", "")
}

pub fn post(address: SocketAddr, target: &str, body: &str) -> Answer {
    ask(address, "POST", target, "Content-Type: application/json\r\n", body)
}

pub fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}{headers}\r\n{body}")
}
