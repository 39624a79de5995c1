//! Everybody knows the final state: once faults have stopped and all is still, every available session that is approved knows
//! exactly the state of each session of each publisher, and nobody keeps a stale one. No session is there without its client.

use super::{Check, Held};
use crate::base::id::{SessionId, UserId};
use crate::base::jid::Bare;
use crate::presence::subscription::State;
use crate::presence::user::{self, User};
use crate::sim::client::{Client, Known, Said, Seen, Session};
use crate::sim::nodes::Nodes;
use crate::store::Table;
use crate::store::memory::Memory;
use crate::store::rows::{self, Row};
use crate::wire::presence;
use std::collections::{BTreeMap, BTreeSet};

const CHECK: Check = Check::EverybodyKnowsTheFinalState;

type View = BTreeMap<(UserId, SessionId), Seen>;

fn describe(((user, session), seen): (&(UserId, SessionId), &Seen)) -> String {
    format!("{}/{} {:?} {}.{} {}", user.0, session.0, seen.show, seen.version.epoch, seen.version.sequence, seen.status)
}

pub fn check(nodes: &Nodes, clients: &[Client], stored: &Memory) -> Held {
    let mut there = BTreeSet::new();
    for client in clients {
        for session in client.sessions.values().filter(|session| session.open) {
            check_session(nodes, client, session, stored)?;
            there.insert((session.key.user, session.key.session));
        }
    }
    for core in nodes.cores() {
        for jid in core.shard.homes.names() {
            let user = nodes.user(&jid).expect("a listed user");
            let ghost = user.sessions.iter().find(|session| !there.contains(&(user.id, session.id)));
            CHECK.holds(ghost.is_none(), || format!("{jid} has a session without a client: {ghost:?}"))?;
        }
    }
    Ok(())
}

fn check_session(nodes: &Nodes, client: &Client, session: &Session, stored: &Memory) -> Held {
    let who = format!("client {} as {}/{} {:?}", client.number, session.jid, session.resource, session.key);
    let home = nodes.by_id(session.key.user).map(|(user, _)| user);
    let Some((home, at_home)) = home.and_then(|u| Some((u, u.sessions.iter().find(|s| s.id == session.key.session)?))) else {
        return CHECK.holds(false, || format!("{who} is logged in, and its home does not know it"));
    };
    let status = at_home.available.then(|| status(&at_home.presence));
    let believed = match &session.said {
        Said::Unsure => true,
        Said::Offline => status.is_none(),
        Said::Online(said) => status.as_ref() == Some(said),
    };
    CHECK.holds(believed, || format!("{who} said {:?}, and its home has {status:?}", session.said))?;
    if at_home.available {
        let expected = expected_view(nodes, home, at_home.id, stored);
        CHECK.holds(session.view == expected, || {
            let only =
                |a: &View, b: &View| a.iter().filter(|(key, seen)| b.get(key) != Some(seen)).map(describe).collect::<Vec<_>>();
            let (wrong, missing) = (only(&session.view, &expected), only(&expected, &session.view));
            format!("{who} wrongly knows {wrong:?}, and should know {missing:?}")
        })?;
    }
    match &session.roster {
        Some(known) => {
            let expected = expected_roster(home);
            CHECK.holds(*known == expected, || format!("{who} has the roster {known:?}, and it is {expected:?}"))
        }
        None => Ok(()),
    }
}

/// Of a user's own other sessions, and of those of the contacts, each available one.
fn expected_view(nodes: &Nodes, home: &User, own: SessionId, stored: &Memory) -> View {
    let mut view = BTreeMap::new();
    let mut add = |user: &User| {
        let (_, epoch) = nodes.by_id(user.id).expect("it was found");
        for session in user.sessions.iter().filter(|s| s.available && (user.id, s.id) != (home.id, own)) {
            view.insert((user.id, session.id), seen(epoch, session));
        }
    };
    add(home);
    let accounts = stored.rows(Table::Accounts).filter_map(|(key, _)| Bare::new(std::str::from_utf8(key).ok()?));
    for publisher in accounts.filter(|publisher| *publisher != home.jid && sees(stored, &home.jid, publisher)) {
        add(nodes.user(&publisher).expect("a stored user is at home"));
    }
    view
}

fn seen(epoch: u32, session: &user::Session) -> Seen {
    let version = crate::base::id::Version { epoch, sequence: session.sequence };
    Seen { version, show: session.show, status: status(&session.presence) }
}

fn status(bytes: &[u8]) -> String {
    presence::read(bytes).expect("a presence that was taken").fields().status.to_owned()
}

/// Whether the rows let one user see another: wanted, approved, and neither blocks the other.
fn sees(stored: &Memory, subscriber: &Bare, publisher: &Bare) -> bool {
    let has = |owner: &Bare, contact: &Bare, state: State| {
        let row = stored.get(Table::Roster, &rows::pair_key(owner, contact));
        let row = row.map(|row| rows::Contact::decode(row).expect("rows are sound"));
        row.and_then(|row| State::from_bits(row.state)).is_some_and(|known| known.has(state))
    };
    let blocks = |a: &Bare, b: &Bare| stored.get(Table::Blocked, &rows::pair_key(a, b)).is_some();
    has(subscriber, publisher, State::TO)
        && has(publisher, subscriber, State::FROM)
        && !blocks(subscriber, publisher)
        && !blocks(publisher, subscriber)
}

fn expected_roster(home: &User) -> BTreeMap<String, Known> {
    let known = |state: State| u8::from(state.has(State::TO)) | u8::from(state.has(State::FROM)) << 1;
    let items = home.roster.visible().map(|item| {
        let (ask, approved) = (item.state.has(State::PENDING_OUT), item.state.has(State::APPROVED));
        let known = Known { subscription: known(item.state), ask, approved, name: item.name().to_owned() };
        (item.jid.to_string(), known)
    });
    items.collect()
}

/// All is still: every request of a session that is there was answered.
pub fn all_answered(clients: &[Client]) -> Held {
    for client in clients {
        for (stream, session) in &client.sessions {
            let pending = session.pending.iter().next();
            Check::EveryRequestIsAnswered.holds(pending.is_none(), || {
                format!("client {} stream {stream}, {}: no answer to {pending:?}", client.number, session.jid)
            })?;
        }
    }
    Ok(())
}
