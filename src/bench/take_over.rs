//! `bench take-over`: how long the users of a lost node are away. Of two nodes that share a database one is killed, and the other
//! loads its users from there.
//!
//! Lives on: the generator's thread; each node is a process of its own. Serves G6, M1, Z13. Invariant: what fills the database is
//! written to an empty one only, and stays: the next run with the same numbers finds its users there.

use super::cluster::{LOOK, free_addresses};
use super::graph::Graph;
use super::presences::presence;
use super::progress::Progress;
use super::report::Report;
use super::round::Meter;
use super::server::{self, Server};
use crate::base::config::cluster::Peer;
use crate::base::config::{Config, DatabaseUrl, StoreKind};
use crate::base::id::{NodeId, UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::time::WallClock;
use crate::client::{Client, LogIn};
use crate::drive::{clock, pin};
use crate::front::doors::Speaks;
use crate::front::token::Scope;
use crate::store::memory::Memory;
use crate::store::postgres::{PostgresStore, Settings, TOOL, Target, Writer};
use crate::store::rows::{Account, Contact, LastPresence, Row, encode_u32, pair_key, serial_key, user_key};
use crate::store::{Backend, Commit, Durability, Table, Write, copy};
use crate::wire::native::Show;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Users whose rows are made at once.
const AT_ONCE: u32 = 8_192;
/// How long a transaction of these may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long no user comes before it counts as failed.
const STALL: Duration = Duration::from_secs(60);
/// When nobody has moved for so long, everybody is where they stay.
const SETTLED: Duration = Duration::from_secs(2);
/// Users of the lost node who log in at the other one.
const SAMPLE: usize = 64;
/// Both have approved the other (`rows::Contact`).
const MUTUAL: u8 = 3;
const CLUSTER: u16 = 1;
/// The node that is killed. The other one keeps the table of owners, whose loss would be another matter.
const LOST: NodeId = NodeId(2);

/// What to run.
#[derive(Clone)]
pub struct Plan {
    /// The database, as in `store.url`.
    pub url: String,
    /// Of both nodes.
    pub users: u32,
    /// Of each of them.
    pub contacts: u32,
}

/// Runs it.
///
/// # Errors
/// The database, the nodes or the machine can't; what failed, and the fix.
pub fn run(plan: &Plan, progress: &Progress) -> io::Result<Report> {
    let all = u64::from(plan.users);
    fill(plan, progress)?;
    let [stays, goes] = start(plan, progress)?;
    let some = goes.managed()?.users(None, SAMPLE, Some(LOST.0)).map_err(io::Error::other)?.users;
    let (before, memory, cpu) = (resident(&stays)?, stays.anonymous_bytes()?, stays.cpu_ns()?);
    let (killed, mut noticed) = (Instant::now(), None);
    // Whose process a server is, is killed with it.
    drop(goes);
    progress.begin("users taken over", all - before);
    await_users(|| {
        let there = resident(&stays)?;
        progress.at(there - before);
        if there > before {
            noticed.get_or_insert_with(|| killed.elapsed());
        }
        Ok((there, there == all))
    })?;
    let (loaded, noticed) = (killed.elapsed(), noticed.unwrap_or_default());
    let used = |after: Option<u64>, before: Option<u64>| {
        after.zip(before).map_or(f64::NAN, |(after, before)| after as f64 - before as f64)
    };
    let (cpu, memory) = (used(stays.cpu_ns()?, cpu), used(stays.anonymous_bytes()?, memory));
    some.iter().try_for_each(|user| log_in(&stays, &user.jid))?;
    let back = killed.elapsed();
    stays.stop()?;
    progress.end();
    let (mut report, taken, loading) = (Report::new("take-over"), (all - before) as f64, loaded - noticed);
    report.count("users", plan.users, "of both nodes");
    report.count("contacts", plan.contacts, "of each of them");
    report.count("taken_over", all - before, "users whose node was killed");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    report.number("noticed_ms", ms(noticed), "from the kill until the first of them are there: a lease has to end before");
    report.number("loading_ms", ms(loading), "from then on until all of them are there");
    report.number("back_ms", ms(back), "from the kill until they have logged in at the other node");
    report.number("server_cpu_us_per_user", cpu / 1e3 / taken, "of the node, kernel included; the database has its own");
    report.number("bytes_per_user", memory / taken, "of the node's memory");
    report.count("lost", 0u64, "users who did not come back");
    Ok(report)
}

/// Both nodes, with half of the users each.
fn start(plan: &Plan, progress: &Progress) -> io::Result<[Server; 2]> {
    let addresses = free_addresses(2)?;
    let peers: Vec<Peer> = (1..).zip(&addresses).map(|(node, &address)| Peer { node: NodeId(node), address }).collect();
    let processors = pin::processors();
    let serve = |at: usize| {
        let mut config = server::config(vec![processors[at % processors.len()].id as u16], Speaks::Native);
        (config.cluster.number, config.cluster.node) = (Some(CLUSTER), Some(peers[at].node.0));
        (config.cluster.nodes, config.link.listen) = (peers.clone(), Some(peers[at].address));
        (config.store.kind, config.store.url) = (StoreKind::Postgres, Some(DatabaseUrl(plan.url.clone())));
        Server::of(config, Speaks::Native, false)
    };
    let servers = [serve(0)?, serve(1)?];
    let all = u64::from(plan.users);
    progress.begin("users", all);
    let (mut before, mut since) = ([0; 2], Instant::now());
    await_users(|| {
        let there = [resident(&servers[0])?, resident(&servers[1])?];
        progress.at(there[0] + there[1]);
        if before != there {
            (before, since) = (there, Instant::now());
        }
        let (is_whole, is_fair) = (there[0] + there[1] == all, there[1] > all / 3);
        if is_whole && !is_fair {
            // It is refused while the nodes don't know each other yet.
            let _ = servers[0].managed()?.rebalance();
        }
        Ok((there[1], is_whole && is_fair && since.elapsed() > SETTLED))
    })?;
    Ok(servers)
}

/// Looks until it's done, as long as there is progress.
fn await_users(mut look: impl FnMut() -> io::Result<(u64, bool)>) -> io::Result<()> {
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        let (there, is_done) = look()?;
        if is_done {
            return Ok(());
        }
        if seen.replace(there) != Some(there) {
            since = Instant::now();
        }
        if since.elapsed() > STALL {
            return Err(io::Error::other(format!("{there} users are there, and for {} s no more come", STALL.as_secs())));
        }
        std::thread::sleep(LOOK);
    }
}

/// Users who live on a node.
fn resident(server: &Server) -> io::Result<u64> {
    Ok(server.gauge("users_resident")?.unwrap_or(0))
}

/// A user of the lost node logs in, as soon as it's let in.
fn log_in(server: &Server, jid: &str) -> io::Result<()> {
    let bare = Bare::new(jid).ok_or_else(|| io::Error::other(format!("{jid} is no JID")))?;
    let token = server.access.token_keys.sign(Scope::User(&bare), WallClock(u64::MAX)).expect("the node was given a key");
    let (target, began) = (server.access.target.to_string(), Instant::now());
    loop {
        let entered =
            Client::connect(&target, STALL).and_then(|mut client| client.log_in(jid, LogIn::Token(&token), "b").map(drop));
        match entered {
            Ok(()) => return Ok(()),
            Err(why) if began.elapsed() > STALL => return Err(io::Error::other(format!("{jid} can't log in: {why}"))),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// The users are in the database.
///
/// # Errors
/// Others are there, or it can't be reached.
fn fill(plan: &Plan, progress: &Progress) -> io::Result<()> {
    let target = Target::parse(&plan.url).map_err(io::Error::other)?;
    let (place, writer) = (target.place.clone(), Writer { cluster: CLUSTER, node: TOOL });
    let settings = Settings { target, writer, patience: PATIENCE, seed: clock::wall().0 };
    let mut store = PostgresStore::open_as_tool(settings).map_err(io::Error::other)?;
    let (users, pairs) = (u64::from(plan.users), u64::from(plan.users) * u64::from(plan.contacts));
    match [Table::Accounts, Table::Roster].map(|table| count(&store, table)) {
        [Ok(0), Ok(0)] => {}
        [Ok(accounts), Ok(contacts)] if (accounts, contacts) == (users, pairs) => {
            store.close();
            return Ok(());
        }
        [Ok(accounts), Ok(contacts)] => {
            let held = format!("{place} holds {accounts} users with {contacts} contacts");
            return Err(io::Error::other(format!("{held}: name an empty database, or --users and --subscribers as they were")));
        }
        [Err(why), _] | [_, Err(why)] => return Err(io::Error::other(why)),
    }
    let people = People::new(plan);
    progress.begin("filling", users);
    for first in (0..plan.users).step_by(AT_ONCE as usize) {
        let mut rows = Memory::default();
        let writes = people.rows(first..plan.users.min(first + AT_ONCE));
        let commit = Commit { ticket: 0, writes, durability: Durability::Synced };
        rows.apply(&[commit]).map_err(|why| io::Error::other(why.reason()))?;
        copy::copy(&rows, &mut store, &mut |_, _, _| ()).map_err(io::Error::other)?;
        progress.at(u64::from(first));
    }
    store.close();
    Ok(())
}

fn count(store: &PostgresStore, table: Table) -> Result<u64, String> {
    let mut rows = 0;
    let mut row = |_: &[u8], _: &[u8]| {
        rows += 1;
        Ok(())
    };
    store.load(table, &mut row, &mut |_, _| ())?;
    Ok(rows)
}

/// The users, as rows.
struct People {
    graph: Graph,
    domain: String,
    ids: Vec<UserId>,
    /// Of each slot with users, the last one's.
    serials: BTreeMap<u16, u32>,
    presence: Vec<u8>,
}

impl People {
    fn new(plan: &Plan) -> People {
        let graph = Graph::mutual(plan.users, plan.contacts);
        let mut people = People {
            graph,
            domain: Config::default().node.domain,
            ids: Vec::new(),
            serials: BTreeMap::new(),
            presence: presence(Show::Away),
        };
        for user in 0..plan.users {
            let slot = slot_of(people.jid(user).as_str());
            let serial = people.serials.entry(slot).or_default();
            *serial += 1;
            people.ids.push(UserId::new(CLUSTER, slot, *serial));
        }
        people
    }

    fn jid(&self, user: u32) -> Bare {
        Bare::new(&format!("bench-{user}@{}", self.domain)).expect("a JID")
    }

    /// What is kept of these.
    fn rows(&self, users: Range<u32>) -> Vec<Write> {
        let mut rows = Vec::new();
        let mut put = |table, key, value| rows.push(Write { table, key, value: Some(value) });
        let stamp = clock::wall();
        for user in users {
            let (jid, id) = (self.jid(user), self.ids[user as usize]);
            put(Table::Accounts, user_key(&jid), Account { user: id, scram: None, created: stamp }.encode());
            put(Table::LastPresence, user_key(&jid), LastPresence { stamp, presence: self.presence.clone() }.encode());
            put(Table::Meta, serial_key(id.slot()), encode_u32(self.serials[&id.slot()]));
            for contact in self.graph.subscribers(user) {
                let row = Contact { user: self.ids[contact as usize], state: MUTUAL, ..Contact::default() };
                put(Table::Roster, pair_key(&jid, &self.jid(contact)), row.encode());
            }
        }
        rows
    }
}
