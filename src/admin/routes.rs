//! A request -> a response: who may ask, what there is to ask, and what the node answers.
//!
//! Lives on: the thread of the connection, which holds the desk while it answers.

use super::http::{Fault, Request, Response};
use super::{
    ClientList, ClusterStatus, Control, ErrorBody, Location, MemberState, NewUser, NodeStatus, OwnersOrder, OwnersStatus, Refusal,
    TransferOrder, UserEntry, UserLine, UserList, UserPage, read_json,
};
use crate::base::config::Secret;
use crate::base::jid::Bare;
use crate::base::time::WallClock;
use crate::metrics::fields::NodeCount;
use crate::metrics::interval_log::IntervalLog;
use crate::metrics::process::Process;
use crate::metrics::prometheus;
use crate::metrics::table::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// Entries of `GET /clients` and of one page of `GET /users`: what is given when nothing is asked, and at most.
const PAGE: usize = 100;
const MOST_OF_A_PAGE: usize = 1_000;
/// Longest address of a transfer, in bytes: a host name and a port.
const ADDRESS_BYTES: usize = 255 + 6;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Everything a request may need.
pub(super) struct Desk {
    pub(super) control: Box<dyn Control>,
    pub(super) token: Option<Secret>,
    pub(super) log: IntervalLog,
    pub(super) limits: Vec<(&'static str, u64)>,
    pub(super) started: WallClock,
}

/// What the server itself counts.
pub(super) type ServerCounts = [NodeCount; 3];

pub(super) fn json(status: u16, body: &impl Serialize) -> Response {
    let body = simd_json::serde::to_vec(body).expect("the admin API's own types can be written as JSON");
    Response { status, content_type: JSON, allow: None, body }
}

pub(super) fn error(status: u16, text: impl Into<String>) -> Response {
    json(status, &ErrorBody { error: text.into() })
}

impl From<Fault> for Response {
    fn from(fault: Fault) -> Response {
        error(fault.status, fault.text)
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Response {
        match refusal {
            Refusal::Wrong(text) => error(400, text),
            Refusal::Missing(text) => error(404, text),
            Refusal::Conflict(text) => error(409, text),
            Refusal::Unavailable(text) => error(503, text),
        }
    }
}

fn text(content_type: &'static str, body: String) -> Response {
    Response { status: 200, content_type, allow: None, body: body.into_bytes() }
}

/// What can be asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route<'a> {
    Metrics,
    Live,
    Ready,
    Stats,
    Histograms,
    Clients,
    Cluster,
    Users,
    User(&'a str),
    Directory(&'a str),
    Clusters,
    OneCluster(&'a str),
    Drain,
    Rebalance,
    OneNode(&'a str),
    Transfer,
    Certificate,
}

impl Route<'_> {
    fn of(path: &str) -> Option<Route<'_>> {
        Some(match path {
            "/metrics" => Route::Metrics,
            "/healthz" => Route::Live,
            "/readyz" => Route::Ready,
            "/stats" => Route::Stats,
            "/histograms" => Route::Histograms,
            "/clients" => Route::Clients,
            "/cluster" => Route::Cluster,
            "/users" => Route::Users,
            "/clusters" => Route::Clusters,
            "/transfer" => Route::Transfer,
            "/certificate" => Route::Certificate,
            "/cluster/drain" => Route::Drain,
            "/cluster/rebalance" => Route::Rebalance,
            other => match other.get(1..)?.split_once('/')? {
                ("directory", jid) => Route::Directory(jid),
                ("clusters", number) => Route::OneCluster(number),
                ("cluster", number) => Route::OneNode(number),
                ("users", jid) => Route::User(jid),
                _ => return None,
            },
        })
    }

    fn methods(&self) -> &'static [&'static str] {
        match self {
            Route::Users => &["GET", "HEAD", "POST"],
            Route::User(_) | Route::OneCluster(_) | Route::OneNode(_) => &["DELETE"],
            Route::Transfer | Route::Certificate | Route::Drain | Route::Rebalance => &["POST"],
            _ => &["GET", "HEAD"],
        }
    }
}

/// Answers a request. Never fails: what goes wrong is the answer.
pub(super) fn answer(desk: &mut Desk, request: &mut Request, counts: ServerCounts) -> Response {
    try_answer(desk, request, counts).unwrap_or_else(|refused| refused)
}

fn try_answer(desk: &mut Desk, request: &mut Request, counts: ServerCounts) -> Result<Response, Response> {
    let path = std::mem::take(&mut request.path);
    let no_route = || {
        let known = "/metrics, /healthz, /readyz, /stats, /histograms, /clients, /cluster, /cluster/drain, /cluster/rebalance, \
            /cluster/N, /clusters, /clusters/N, /directory/JID, /users, /users/JID, /transfer, /certificate";
        error(404, format!("there is {known} here"))
    };
    let route = Route::of(&path).ok_or_else(no_route)?;
    let methods = route.methods();
    if !methods.contains(&request.method.as_str()) {
        let refused = error(405, format!("{path} takes {} here", methods.join(", ")));
        return Err(Response { allow: Some(methods.join(", ")), ..refused });
    }
    if !matches!(route, Route::Live | Route::Ready) {
        may_ask(desk.token.as_ref(), request)?;
    }
    match (route, request.method.as_str()) {
        (Route::Metrics, _) => metrics(desk, counts),
        (Route::Live, _) => {
            let health = desk.control.health();
            state(health.live, "live", health.why)
        }
        (Route::Ready, _) => {
            let health = desk.control.health();
            state(health.live && health.ready, "ready", health.why)
        }
        (Route::Stats, _) => stats(desk),
        (Route::Histograms, _) => Ok(text(TEXT, desk.log.text())),
        (Route::Clients, _) => list_clients(desk, request),
        (Route::Users, "POST") => add_user(desk, request),
        (Route::Users, _) => list_users(desk, request),
        (Route::User(jid), _) => {
            desk.control.remove_user(&read_jid(jid)?)?;
            Ok(json(200, &serde_of("removed", jid)))
        }
        (Route::Directory(jid), _) => {
            let cluster = desk.control.locate(&read_jid(jid)?)?;
            Ok(json(200, &Location { jid: jid.to_owned(), cluster }))
        }
        (Route::Drain, _) => share_out(desk, OwnersOrder::Drain),
        (Route::Rebalance, _) => share_out(desk, OwnersOrder::Rebalance),
        (Route::OneNode(node), _) => {
            let order = OwnersOrder::Forget { node: number("the node", node)?, force: is_forced(request)? };
            share_out(desk, order)
        }
        (Route::Clusters, _) => Ok(json(200, &desk.control.clusters()?)),
        (Route::OneCluster(number), _) => forget_cluster(desk, number, request),
        (Route::Transfer, _) => transfer(desk, request),
        (Route::Cluster, _) => Ok(json(200, &desk.control.cluster()?)),
        (Route::Certificate, _) => Ok(json(200, &serde_of("certificate", &desk.control.reload_certificate()?))),
    }
}

/// With a token, who knows it may ask. Without one only this machine can reach the port, and a web page that its browser shows is
/// kept out: it can't name the node by an address of this machine, nor send JSON unasked.
fn may_ask(token: Option<&Secret>, request: &Request) -> Result<(), Response> {
    let Some(token) = token else {
        return match request.host.as_deref().is_none_or(is_local_name) {
            true => Ok(()),
            false => {
                Err(error(403, "without an admin token the node must be addressed by IP address or as localhost: set a token"))
            }
        };
    };
    let given = request.token.as_deref().unwrap_or_default();
    match bool::from(given.as_bytes().ct_eq(token.reveal().as_bytes())) {
        true => Ok(()),
        false => Err(error(401, "the admin token is missing or wrong: send Authorization: Bearer TOKEN with listen.admin_token")),
    }
}

/// Whether a Host header names an address, or "localhost".
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn metrics(desk: &mut Desk, counts: ServerCounts) -> Result<Response, Response> {
    let cores = desk.control.snapshots()?;
    let node = desk.control.node_counts().into_iter().chain(counts).collect();
    let (store_syncs, process) = (desk.control.store_syncs(), Process::read().ok());
    let certificate_seconds_left = desk.control.certificate_seconds_left();
    let link_certificate_seconds_left = desk.control.link_certificate_seconds_left();
    let links = links(desk.control.cluster()?);
    let store_up = desk.control.store_up();
    let (limits, started) = (desk.limits.clone(), desk.started);
    let scrape = prometheus::Scrape {
        cores,
        node,
        links,
        store_syncs,
        store_up,
        limits,
        certificate_seconds_left,
        link_certificate_seconds_left,
        process,
        started,
    };
    Ok(text(prometheus::CONTENT_TYPE, prometheus::text(scrape)))
}

fn stats(desk: &mut Desk) -> Result<Response, Response> {
    let mut report = Report::new(&desk.control.snapshots()?, &desk.control.node_counts());
    desk.control.cluster()?.nodes.iter().for_each(|node| report.add_link(&node.counts));
    Ok(json(200, &report))
}

fn links(status: ClusterStatus) -> prometheus::Links {
    let peer = |node: NodeStatus| {
        let name = node.cluster.map_or_else(|| node.node.to_string(), |cluster| format!("{}-of-cluster-{cluster}", node.node));
        (name, node.counts, node.gauges)
    };
    let peers = status.nodes.into_iter().map(peer).collect();
    prometheus::Links { peers, ended: status.ended.into_iter().collect(), owners: status.owners.map(owners) }
}

fn owners(status: OwnersStatus) -> prometheus::Owners {
    let in_state = |state: MemberState| status.members.iter().filter(|member| member.state == state).count() as u64;
    prometheus::Owners {
        up: status.away_since_ms.is_none(),
        joined: status.joined.is_some(),
        epoch: status.epoch,
        free: status.free,
        waiting: status.waiting,
        members: MemberState::ALL.map(|state| (state.name(), in_state(state))).to_vec(),
        slots: status.members.iter().map(|member| (member.node.to_string(), member.slots)).collect(),
    }
}

fn state(good: bool, name: &str, why: String) -> Result<Response, Response> {
    match good {
        true => Ok(json(200, &serde_of("status", name))),
        false => Err(error(503, format!("the node is not {name}: {why}"))),
    }
}

/// `{"name": "value"}`.
fn serde_of(name: &'static str, value: &str) -> std::collections::BTreeMap<&'static str, String> {
    [(name, value.to_owned())].into()
}

fn add_user(desk: &mut Desk, request: &mut Request) -> Result<Response, Response> {
    let NewUser { jid, password } = body(request, "{\"jid\": \"alice@example.org\", \"password\": \"...\"}")?;
    let jid = read_jid(&jid)?;
    desk.control.add_user(&jid, password.as_deref())?;
    Ok(json(201, &serde_of("added", jid.as_str())))
}

/// How many entries a list may have.
fn limit(request: &Request) -> Result<usize, Response> {
    match request.query("limit").map(str::parse) {
        None => Ok(PAGE),
        Some(Ok(limit)) if (1..=MOST_OF_A_PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(error(400, format!("limit is a number from 1 to {MOST_OF_A_PAGE}"))),
    }
}

fn list_clients(desk: &mut Desk, request: &Request) -> Result<Response, Response> {
    Ok(json(200, &ClientList { clients: desk.control.clients(limit(request)?)? }))
}

fn list_users(desk: &mut Desk, request: &Request) -> Result<Response, Response> {
    let limit = limit(request)?;
    let after = request.query("after").map(read_jid).transpose()?;
    let node = request.query("node").map(|node| number("node", node)).transpose()?;
    let UserList { users, more, missing } = desk.control.list_users(after.as_ref(), limit, node)?;
    let entry = |user: UserLine| UserEntry {
        jid: user.jid.as_str().to_owned(),
        id: format!("{:#x}", user.user.0),
        node: user.node,
        sessions: user.sessions,
        contacts: user.contacts,
    };
    let users: Vec<UserEntry> = users.into_iter().map(entry).collect();
    let next = users.last().filter(|_| more).map(|user| user.jid.clone());
    Ok(json(200, &UserPage { users, next, missing }))
}

fn share_out(desk: &mut Desk, order: OwnersOrder) -> Result<Response, Response> {
    Ok(json(200, &serde_of("done", &desk.control.share_out(order)?)))
}

fn forget_cluster(desk: &mut Desk, cluster: &str, request: &Request) -> Result<Response, Response> {
    Ok(json(200, &desk.control.forget_cluster(number("the cluster", cluster)?, is_forced(request)?)?))
}

fn is_forced(request: &Request) -> Result<bool, Response> {
    match request.query("force") {
        None => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(error(400, "force is true, or left out")),
    }
}

fn number(what: &str, text: &str) -> Result<u16, Response> {
    text.parse().map_err(|_| error(400, format!("{text:?}: {what} is a number from 0 to {}", u16::MAX)))
}

fn transfer(desk: &mut Desk, request: &mut Request) -> Result<Response, Response> {
    let TransferOrder { jid, address } = body(request, "{\"jid\": \"alice@example.org\", \"address\": \"host:port\"}")?;
    let jid = read_jid(&jid)?;
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if address.len() > ADDRESS_BYTES || !address.rsplit_once(':').is_some_and(|(host, p)| !host.is_empty() && port(p)) {
        return Err(error(400, format!("{address:?} is no address: write host:port")));
    }
    let told = desk.control.transfer(&jid, &address)?;
    Ok(json(200, &std::collections::BTreeMap::from([("sessions", told)])))
}

fn read_jid(text: &str) -> Result<Bare, Response> {
    Bare::new(text).ok_or_else(|| error(400, format!("{text:?} is no user's JID: write local@domain")))
}

/// Reads a JSON body. `example` is what it should look like.
fn body<T: DeserializeOwned>(request: &mut Request, example: &str) -> Result<T, Response> {
    if !request.is_json {
        return Err(error(415, "the body must be JSON: send Content-Type: application/json"));
    }
    read_json(&mut request.body).map_err(|problem| error(400, format!("the body can't be read ({problem}): send {example}")))
}
