//! Bugs that the simulator makes on purpose, each to prove that a check catches it.
//!
//! Lives on: the simulator. Invariant: without a canary nothing here changes anything.

use super::Env;
use super::counts::Happening;
use super::nodes::Nodes;
use crate::presence::border::{self, Entered};
use crate::presence::control::{Control, SessionEvent};
use crate::presence::passage;
use crate::shard::batch::{Batch, Entry};
use crate::wire;
use crate::wire::event::{Head, LAST};
use crate::wire::frame::each_whole;
use crate::wire::link::{Frame, read};
use crate::wire::native::{Kind, Show};

/// A bug that the simulator makes on purpose, to prove that a check catches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    /// Another core never hears that an approval has ended.
    RevokeLost,
    /// An update that had to wait for a full ring is forgotten.
    PutOffLost,
    /// An update crosses to another core twice.
    UpdateTwice,
    /// A commit is said to be made, and is not.
    CommitForgotten,
    /// A message is lost between two cores.
    MessageLost,
    /// The answer to a request is lost between two cores.
    DoneLost,
    /// A closed connection's line is never released.
    LineKept,
    /// A client is sent what it was sent before.
    OldAgain,
    /// A client is told twice that a session has gone.
    GoneTwice,
    /// An update goes to another node twice.
    LinkUpdateTwice,
    /// A relay misses what another node tells of its publishers, and keeps the state before.
    RelayStale,
    /// A message that has come from another node is taken in twice.
    EntryTwice,
    /// A way from another node is never taken in.
    WayLost,
    /// The border of a cluster lets in what it must refuse.
    BorderOpen,
    /// It lets in what it must refuse of changes of subscriptions, and nothing else.
    WayBelieved,
}

/// Looks at what one core has said to another one before that reads it; the canaries take out of it what they want lost, or put
/// it in once more.
pub(super) fn spoil(env: &mut Env, batch: &mut Batch) {
    let mut again = Vec::new();
    batch.entries.retain(|entry| match entry {
        Entry::Control(Control::Revoke { .. }) => {
            env.count(Happening::Revocation);
            !env.canary_strikes(Canary::RevokeLost, 1)
        }
        Entry::Control(Control::ToSession { event: SessionEvent::Message { .. }, .. }) => {
            !env.canary_strikes(Canary::MessageLost, 3)
        }
        Entry::Control(Control::ToSession { event: SessionEvent::Done { .. }, .. }) => !env.canary_strikes(Canary::DoneLost, 10),
        Entry::FromNode(control) => match &**control {
            // Always the same ones, for what nothing is heard of is sent again.
            Control::Way(way) => env.canary != Some(Canary::WayLost) || way.sequence % 3 != 0,
            Control::Message(_) => {
                if env.canary_strikes(Canary::EntryTwice, 3) {
                    again.push(passage::decode(&passage::encode(control, Vec::new())).expect("just encoded"));
                }
                true
            }
            _ => true,
        },
        Entry::Updates(_) => !env.canary_strikes(Canary::RelayStale, 1),
        _ => true,
    });
    batch.entries.extend(again.into_iter().map(|control| Entry::FromNode(Box::new(control))));
}

/// A cluster has told another one something: it comes in there as if the border had found nothing wrong with it.
pub(super) fn smuggle(env: &mut Env, nodes: &mut Nodes, told: usize, lie: &Control) {
    let up: Vec<usize> = env.shape.of_cluster(told).filter(|&node| env.is_up[node]).collect();
    let is_open =
        matches!(lie, Control::Way(_)) && env.canary_strikes(Canary::WayBelieved, 1) || env.canary_strikes(Canary::BorderOpen, 1);
    let Some(&any) = up.first().filter(|_| is_open) else {
        return;
    };
    let (cluster, again) = (env.shape.clusters as u16, |control| passage::decode(&passage::encode(control, Vec::new())));
    let said = border::encode(again(lie).expect("just encoded"), 1 + told as u16, Vec::new()).expect("it crosses");
    let crossing = border::decode(&said).expect("just encoded");
    let seat = crossing.target(&nodes.nodes[any].cores[0].shard.out.map);
    let Some(home) = up.into_iter().find(|&node| env.shape.site(node).node == seat.node) else { return };
    if let Some(core) = nodes.nodes[home].cores.get_mut(usize::from(seat.core.0)) {
        let entered = Control::Entered(Box::new(Entered { cluster, vouched: true, crossing }));
        core.shard.from_node(env.now, seat.core, &passage::encode(&entered, Vec::new())).expect("just encoded");
    }
}

/// The first update that goes out first goes out again.
pub(super) fn repeat_first(batch: &mut Batch) {
    let first = batch.updates.iter().next().map(|update| (update.slot, update.frame.to_vec()));
    if let (Some((slot, frame)), Some(since)) = (first, batch.updates.since()) {
        batch.updates.push(slot, since, &frame);
    }
}

/// The same of what goes to another node.
pub(super) fn repeat_first_on_link(env: &mut Env, sending: &mut Vec<u8>) {
    repeat_first_frame(env, (Canary::LinkUpdateTwice, 5), sending, |frame| matches!(read(frame), Ok(Frame::Update { .. })));
}

/// The same of the farewells that a client is told.
pub(super) fn repeat_first_farewell(env: &mut Env, sending: &mut Vec<u8>) {
    let is_farewell = |head: Head| head.show == Show::Unavailable && head.flags & LAST == 0;
    repeat_first_frame(env, (Canary::GoneTwice, 3), sending, |frame| {
        frame.header.kind == Kind::Event && Head::read(frame.body).is_ok_and(|(head, _)| is_farewell(head))
    });
}

fn repeat_first_frame(
    env: &mut Env,
    (canary, each): (Canary, u64),
    sending: &mut Vec<u8>,
    is_it: impl Fn(&wire::frame::Frame<'_>) -> bool,
) {
    let mut end = 0;
    let first = each_whole(sending).inspect(|frame| end += frame.header.frame_bytes()).find(is_it);
    let Some(bytes) = first.map(|frame| frame.header.frame_bytes()) else { return };
    if env.canary_strikes(canary, each) {
        let behind = sending.split_off(end);
        sending.extend_from_within(end - bytes..);
        sending.extend(behind);
    }
}
