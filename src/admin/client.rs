//! The other end of the admin API, for `fanal stats`, `fanal user` and tests: one blocking request per connection.
//!
//! Lives on: the command line's thread. Invariants: an answer is bounded and comes in time, or there is an error that says what
//! to do.

use super::http::percent_encode;
use super::{ClientList, ClusterList, ClusterStatus, ErrorBody, Forgotten, Location, NewUser, TransferOrder, UserPage, read_json};
use crate::base::config::Secret;
use crate::metrics::table::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the node may take to be reached, and to go on with an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer, in bytes.
const ANSWER_BYTES: u64 = 256 << 20;
const HEADERS: usize = 64;

/// A node's admin address.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    token: Option<Secret>,
}

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no node answers at the admin address {0} ({1}): start it with fanal serve, or name its address")]
    Unreachable(SocketAddr, io::Error),
    /// What the node said, with its status.
    #[error("{error} (the node at {address} answered {status})")]
    Refused { address: SocketAddr, status: u16, error: String },
    #[error("what answers at {0} is no fanal node ({1}): name the admin address of one")]
    NotANode(SocketAddr, String),
}

impl Client {
    pub fn new(address: SocketAddr, token: Option<Secret>) -> Client {
        Client { address, token }
    }

    pub fn stats(&self) -> Result<Report, ClientError> {
        self.read_json("GET", "/stats", None)
    }

    /// The interval log.
    pub fn histograms(&self) -> Result<String, ClientError> {
        self.get("/histograms")
    }

    pub fn add_user(&self, jid: &str, password: Option<&str>) -> Result<(), ClientError> {
        let user = NewUser { jid: jid.to_owned(), password: password.map(str::to_owned) };
        self.request("POST", "/users", Some(to_json(&user))).map(drop)
    }

    pub fn remove_user(&self, jid: &str) -> Result<(), ClientError> {
        self.request("DELETE", &format!("/users/{}", percent_encode(jid)), None).map(drop)
    }

    /// A page of users behind `after`: of the whole cluster, or of one of its nodes.
    pub fn users(&self, after: Option<&str>, limit: usize, node: Option<u16>) -> Result<UserPage, ClientError> {
        let after = after.map_or_else(String::new, |after| format!("&after={}", percent_encode(after)));
        let node = node.map_or_else(String::new, |node| format!("&node={node}"));
        self.read_json("GET", &format!("/users?limit={limit}{after}{node}"), None)
    }

    /// The clusters that the node knows of.
    pub fn clusters(&self) -> Result<ClusterList, ClientError> {
        self.read_json("GET", "/clusters", None)
    }

    /// Has a cluster forgotten; when names of it are left, it is to be called again.
    pub fn forget_cluster(&self, number: u16, force: bool) -> Result<Forgotten, ClientError> {
        let force = if force { "?force=true" } else { "" };
        self.read_json("DELETE", &format!("/clusters/{number}{force}"), None)
    }

    /// The clients with the most load, the heaviest first (C1).
    pub fn clients(&self, limit: usize) -> Result<ClientList, ClientError> {
        self.read_json("GET", &format!("/clients?limit={limit}"), None)
    }

    /// How the node finds its cluster.
    pub fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        self.read_json("GET", "/cluster", None)
    }

    /// Has the node given no more users; what it says about it.
    pub fn drain(&self) -> Result<String, ClientError> {
        self.order("POST", "/cluster/drain")
    }

    /// Has users moved from the fullest nodes to the emptiest; what the node says about it.
    pub fn rebalance(&self) -> Result<String, ClientError> {
        self.order("POST", "/cluster/rebalance")
    }

    /// Has a node of the cluster forgotten; what the node that is asked says about it.
    pub fn forget_node(&self, number: u16, force: bool) -> Result<String, ClientError> {
        let force = if force { "?force=true" } else { "" };
        self.order("DELETE", &format!("/cluster/{number}{force}"))
    }

    fn order(&self, method: &str, path: &str) -> Result<String, ClientError> {
        let said: std::collections::BTreeMap<String, String> = self.read_json(method, path, None)?;
        said.get("done").cloned().ok_or_else(|| self.not_a_node("it does not say what was done"))
    }

    /// Tells a user's sessions to go on at another node; how many were told.
    pub fn transfer(&self, jid: &str, address: &str) -> Result<usize, ClientError> {
        let order = TransferOrder { jid: jid.to_owned(), address: address.to_owned() };
        let told: std::collections::BTreeMap<String, usize> = self.read_json("POST", "/transfer", Some(to_json(&order)))?;
        told.get("sessions").copied().ok_or_else(|| self.not_a_node("no number of sessions in the answer"))
    }

    /// Which cluster a user is of.
    pub fn locate(&self, jid: &str) -> Result<Location, ClientError> {
        self.read_json("GET", &format!("/directory/{}", percent_encode(jid)), None)
    }

    /// Has the node read its TLS certificate again; what it says about it.
    pub fn reload_certificate(&self) -> Result<String, ClientError> {
        let said: std::collections::BTreeMap<String, String> = self.read_json("POST", "/certificate", None)?;
        said.get("certificate").cloned().ok_or_else(|| self.not_a_node("no certificate in the answer"))
    }

    /// Any path, as text.
    pub fn get(&self, path: &str) -> Result<String, ClientError> {
        String::from_utf8(self.request("GET", path, None)?).map_err(|_| self.not_a_node("the answer isn't UTF-8"))
    }

    fn read_json<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<T, ClientError> {
        let mut answer = self.request(method, path, body)?;
        read_json(&mut answer).map_err(|error| self.not_a_node(error))
    }

    /// The body of a successful answer.
    fn request(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        let answer = self.exchange(method, path, body).map_err(|error| ClientError::Unreachable(self.address, error))?;
        let (status, mut body) = read_answer(&answer).map_err(|problem| self.not_a_node(problem))?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let ErrorBody { error } = read_json(&mut body).map_err(|error| self.not_a_node(error))?;
        Err(ClientError::Refused { address: self.address, status, error })
    }

    /// Sends a request and reads everything until the node closes.
    fn exchange(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if let Some(token) = &self.token {
            request.push_str(&format!("Authorization: Bearer {}\r\n", token.reveal()));
        }
        if let Some(body) = &body {
            request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend(body.unwrap_or_default());
        stream.write_all(&bytes)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn not_a_node(&self, problem: impl ToString) -> ClientError {
        ClientError::NotANode(self.address, problem.to_string())
    }
}

fn to_json(body: &impl Serialize) -> Vec<u8> {
    simd_json::serde::to_vec(body).expect("the admin API's own types can be written as JSON")
}

/// Status and body of an answer that was read to its end.
fn read_answer(answer: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(answer) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Err("the answer ends within its headers".into()),
        Err(error) => return Err(format!("not HTTP: {error}")),
    };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let body = &answer[head_bytes..];
    match length {
        Some(length) if length == body.len() => Ok((head.code.unwrap_or_default(), body.to_vec())),
        Some(length) => Err(format!("the answer has {} of {length} bytes", body.len())),
        None => Err("the answer has no Content-Length".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_whole() {
        let answer = |text: &str| read_answer(text.as_bytes());
        assert_eq!(answer("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"), Ok((404, b"{}".to_vec())));
        for broken in [
            "",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        ] {
            assert!(answer(broken).is_err(), "{broken:?}");
        }
    }
}
