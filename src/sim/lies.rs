//! A cluster that lies: it speaks in the names of users who are not its own, and for subscribers whom nobody has approved.
//!
//! Lives on: the simulator. Serves Z3, Z6, Z8, Z9. Lies go out where true words do, by the same links. The checks know nothing of
//! them: whoever believed one would break them.

use super::Env;
use super::canaries::smuggle;
use super::counts::Happening;
use super::nodes::Nodes;
use crate::base::id::{Seat, SessionId, UserId, Version, slot_of};
use crate::base::jid::Bare;
use crate::presence::border::Ticket;
use crate::presence::control::{Arrival, Asker, Content, Control, Message, Note, Snapshot, UserRef, Way, WayKind, WayName};
use crate::presence::farewell;
use crate::presence::frame::{self, Events};
use crate::presence::relay::SLOT;
use crate::presence::subscription::Action;
use crate::wire::event::{Head, REFERENCE};
use crate::wire::native::{MessageKind, Show};

/// What a lying update says.
const SHOWS: [Show; 3] = [Show::Chat, Show::Away, Show::Unavailable];

/// The last cluster tells another one something that it may not.
pub fn lie(env: &mut Env, nodes: &mut Nodes) {
    let liar = env.shape.clusters - 1;
    let told = env.random.below(liar as u64) as usize;
    let up: Vec<usize> = env.shape.of_cluster(liar).filter(|&node| env.is_up[node]).collect();
    let honest = |jid: &&Bare| env.shape.cluster_of_user(jid) != liar && env.is_up[env.shape.home(jid)];
    let users: Vec<(Bare, UserId)> =
        env.users.iter().filter(honest).filter_map(|jid| Some((jid.clone(), nodes.user(jid)?.id))).collect();
    let (Some(&node), Some(one), Some(other)) =
        (env.random.pick(&up), env.random.pick(&users).cloned(), env.random.pick(&users).cloned())
    else {
        return;
    };
    let cores = &mut nodes.nodes[node].cores;
    let core = env.random.below(cores.len() as u64) as usize;
    let (seat, out) = (Seat::of_cluster(1 + told as u16), &mut cores[core].shard.out);
    if out.peers.get(&seat.node).is_none_or(|peer| !peer.found) {
        return;
    }
    env.count(Happening::Lie);
    if env.random.one_in(4) {
        let event = draw_update(env, one);
        let head = frame::head(event.bytes());
        env.trace.note(env.now, format_args!("node {node} lies to cluster {}: {head:?}", seat.node.0));
        out.pass_on(seat, SLOT, UserRef { user: head.user, slot: SLOT }, event.bytes());
        return;
    }
    let lie = draw(env, out.map.here, one, other);
    env.trace.note(env.now, format_args!("node {node} lies to cluster {}: {lie:?}", seat.node.0));
    smuggle(env, nodes, told, &lie);
    nodes.nodes[node].cores[core].shard.out.send(seat, lie);
}

/// A number of a cluster under which there has never been a user.
fn nobody(cluster: u16, jid: &Bare) -> UserId {
    UserId::new(cluster, slot_of(jid.as_str()), u32::MAX)
}

/// An update of a user of an honest cluster, or of one whom nobody watches: whole or by reference, and newer than any that will
/// ever come. Of a user of its own whom somebody does watch a cluster may say what it likes.
fn draw_update(env: &mut Env, (jid, user): (Bare, UserId)) -> Events {
    let user = if env.random.one_in(2) { user } else { nobody(env.shape.clusters as u16, &jid) };
    let version = Version { epoch: u32::MAX, sequence: env.random.next_u64() as u32 };
    let (show, flags) = (*env.random.pick(&SHOWS).expect("there are some"), if env.random.one_in(3) { REFERENCE } else { 0 });
    let head = Head { user, version, session: SessionId(1 + env.random.below(3) as u32), show, flags };
    Events::of(head, &farewell::stand_in("a lie", show))
}

/// A lie about two users of honest clusters.
fn draw(env: &mut Env, here: Seat, (jid, user): (Bare, UserId), (other, other_user): (Bare, UserId)) -> Control {
    let liar = env.shape.clusters as u16;
    // A number that the liar could have given out.
    let made_up = UserId::new(liar, slot_of(jid.as_str()), 1 + env.random.below(3) as u32);
    let from_user = if env.random.one_in(2) { user } else { made_up };
    let sequence = env.random.next_u64() >> 20;
    match env.random.below(6) {
        0 => {
            let kind = WayKind::Stanza(*env.random.pick(&Action::ALL).expect("there are four"));
            let (to, to_user, note) = (other, UserId::NOBODY, Note::default());
            Control::Way(Box::new(Way { from: jid, from_user, to, to_user, kind, note, sequence, cluster: 0, knows: vec![] }))
        }
        1 => {
            let content =
                Content { kind: MessageKind::Chat, id: "a lie".to_owned(), body: b"a lie".to_vec(), extensions: String::new() };
            let asker = Asker { edge: Ticket::edge(here, 0), request: 0 };
            let message = Message::new((jid, "desk".into()), (other, None), content, asker);
            Control::Message(Box::new(message))
        }
        2 => {
            let (events, revoked, nonce) = (Events::default(), vec![other_user], 1 + env.random.below(4) as u32);
            let publisher = from_user;
            Control::Snapshot(Box::new(Snapshot {
                publisher,
                jid,
                subscriber: other_user,
                slot: SLOT,
                nonce,
                events,
                behind: 0,
                revoked,
            }))
        }
        3 => Control::Revoke { publisher: user, subscriber: other_user, slot: SLOT },
        4 => {
            let subscriber = nobody(liar, &other);
            let seat = Seat::of_cluster(liar);
            Control::Watch { publisher: user, subscriber, seat, slot: SLOT, nonce: u32::MAX, known: None }
        }
        _ => {
            let name = WayName { from: jid, to: other, sequence, cluster: liar };
            Control::WayDone(Box::new(Arrival { name, before: u64::MAX }))
        }
    }
}
