//! An update crosses to each other core, node and cluster at most once, however many subscribers it has there.
//!
//! Who has let go of a publisher has forgotten what it was told, and when it watches again it is told anew. What is short is then
//! in the snapshot; what is long it asks for, and that comes as an update, once more for each time that it was asked: to the node
//! or the cluster that asks, and inside that to whoever has not got it any more.
//!
//! Who has lost a publisher's home shows the sessions there as gone under the last versions that it knows, and as back under the
//! same ones. Each of both is a change, and told once; but what could not be told at once is told as it is in the end, which may be
//! how it was: so a state may come once more for each time that the one who tells it has ended a session without the home's word.

use super::{Check, Held};
use crate::base::id::{CoreId, SessionId, UserId, Version};
use crate::wire::event::Head;
use crate::wire::native::Show;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Crossings {
    between: Seen<(usize, usize)>,
    cores: Seen<(usize, CoreId)>,
    /// How often a session's presence was asked for, by who did: once more each time that it may be lost.
    asked: BTreeMap<(Asker, UserId, SessionId), usize>,
    /// How often a state has come to somebody who had asked for it, or for one before it.
    obtained: BTreeMap<(Asker, State), usize>,
    /// Sessions that a node has shown as gone without their home's word; and how many each core had when it was looked at last.
    ended: BTreeMap<(usize, UserId), usize>,
    last_ended: BTreeMap<(usize, CoreId), BTreeMap<UserId, u32>>,
}

/// A node, or a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asker {
    Node(usize),
    Cluster(usize),
}

/// A state of a session.
type State = (UserId, SessionId, Version);

fn state(head: &Head) -> State {
    (head.user, head.session, head.version)
}

/// How often a state has come somewhere without a break, as that of a session that is there, or that is gone: one may follow the
/// other, again and again.
struct Seen<To>(BTreeMap<(To, State), (bool, usize)>);

impl<To: Ord> Default for Seen<To> {
    fn default() -> Seen<To> {
        Seen(BTreeMap::new())
    }
}

impl<To: Ord> Seen<To> {
    /// How often it has come by now.
    fn times(&mut self, to: To, head: &Head) -> usize {
        let gone = head.show == Show::Unavailable;
        let (was_gone, times) = self.0.entry((to, state(head))).or_insert((gone, 0));
        *times = if *was_gone == gone { *times + 1 } else { 1 };
        *was_gone = gone;
        *times
    }

    /// It is told by reference that a session is there.
    fn refer(&mut self, to: To, head: &Head) {
        if let Some(seen) = self.0.get_mut(&(to, state(head))).filter(|(was_gone, _)| *was_gone) {
            *seen = (false, 0);
        }
    }
}

impl Crossings {
    /// A core of a node of a cluster reads an update of another core's user.
    pub fn crossed(&mut self, (node, core): (usize, CoreId), cluster: usize, head: &Head) -> Held {
        let times = self.cores.times((node, core), head);
        let most = 1 + self.obtained_by(&[Asker::Node(node), Asker::Cluster(cluster)], head) + self.ended_by(node, head);
        Check::OneUpdatePerBoundary.holds(times <= most, || format!("{head:?} came to core {core:?} of node {node} {times} times"))
    }

    /// A node hears an update from another one: within a cluster, or as a part of one.
    pub fn linked(&mut self, way: (usize, usize), to: Asker, cluster: usize, head: &Head) -> Held {
        let asked = self.asked.get_mut(&(to, head.user, head.session)).filter(|asked| **asked > 0);
        let times = self.between.times(way, head);
        if let Some(asked) = asked {
            *asked -= usize::from(times > 1);
            *self.obtained.entry((to, state(head))).or_default() += 1;
            return Ok(());
        }
        let inside = if to == Asker::Cluster(cluster) { 0 } else { self.obtained_by(&[Asker::Cluster(cluster)], head) };
        let holds = times <= 1 + inside + self.ended_by(way.0, head);
        Check::OneUpdatePerBoundary.holds(holds, || format!("{head:?} went from node {} to {} {times} times", way.0, way.1))
    }

    /// A node hears by reference of a state.
    pub fn referred(&mut self, way: (usize, usize), head: &Head) {
        self.between.refer(way, head);
    }

    /// A core is about to tell others what it has to tell: how many sessions of each publisher it has shown as gone by itself.
    pub fn note_ended(&mut self, at: (usize, CoreId), ended: impl Iterator<Item = (UserId, u32)>) {
        let before = self.last_ended.remove(&at).unwrap_or_default();
        let now: BTreeMap<UserId, u32> = ended.filter(|(_, ended)| *ended > 0).collect();
        for (user, ended) in &now {
            // With fewer than before it is another relay of the same publisher.
            let more = before.get(user).and_then(|before| ended.checked_sub(*before)).unwrap_or(*ended);
            *self.ended.entry((at.0, *user)).or_default() += more as usize;
        }
        self.last_ended.insert(at, now);
    }

    fn ended_by(&self, node: usize, head: &Head) -> usize {
        self.ended.get(&(node, head.user)).copied().unwrap_or(0)
    }

    /// Somebody asks for a presence.
    pub fn asked(&mut self, asker: Asker, publisher: UserId, session: SessionId) {
        *self.asked.entry((asker, publisher, session)).or_default() += 1;
    }

    fn obtained_by(&self, askers: &[Asker], head: &Head) -> usize {
        askers.iter().filter_map(|asker| self.obtained.get(&(*asker, state(head)))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head =
        Head { user: UserId(7), version: Version { epoch: 1, sequence: 3 }, session: SessionId(4), show: Show::Chat, flags: 0 };

    /// Nodes 1 and 2 are the cluster 1, and node 2 stands for the publisher, of node 0, there.
    #[test]
    fn what_was_asked_for_again_comes_again_and_goes_on_inside_as_often_and_not_once_more() {
        let (mut crossings, cluster) = (Crossings::default(), Asker::Cluster(1));
        let across = |crossings: &mut Crossings| crossings.linked((0, 1), cluster, 1, &HEAD);
        let inside = |crossings: &mut Crossings| crossings.linked((1, 2), Asker::Node(2), 1, &HEAD);
        let core = |crossings: &mut Crossings| crossings.crossed((2, CoreId(1)), 1, &HEAD);
        assert!(across(&mut crossings).is_ok() && inside(&mut crossings).is_ok() && core(&mut crossings).is_ok());
        let mut more = crossings;
        more.asked(cluster, HEAD.user, HEAD.session);
        assert!(across(&mut more).is_ok() && inside(&mut more).is_ok() && core(&mut more).is_ok());
        assert!(across(&mut more).is_err() && inside(&mut more).is_err() && core(&mut more).is_err());
    }

    #[test]
    fn z13_what_a_core_has_shown_as_gone_by_itself_may_come_once_more_for_each_time() {
        let mut crossings = Crossings::default();
        let core = |crossings: &mut Crossings| crossings.crossed((2, CoreId(1)), 1, &HEAD);
        let by_itself = |crossings: &mut Crossings, ended| crossings.note_ended((2, CoreId(0)), [(HEAD.user, ended)].into_iter());
        by_itself(&mut crossings, 0);
        assert!(core(&mut crossings).is_ok());
        by_itself(&mut crossings, 1);
        by_itself(&mut crossings, 1);
        assert!(core(&mut crossings).is_ok() && core(&mut crossings).is_err());
        crossings.note_ended((2, CoreId(0)), std::iter::empty());
        by_itself(&mut crossings, 2);
        assert!(core(&mut crossings).is_ok() && core(&mut crossings).is_err());
    }

    #[test]
    fn z13_a_session_that_is_back_by_reference_may_go_again() {
        let (mut crossings, gone) = (Crossings::default(), Head { show: Show::Unavailable, ..HEAD });
        let goes = |crossings: &mut Crossings| crossings.linked((1, 2), Asker::Node(2), 1, &gone);
        assert!(goes(&mut crossings).is_ok());
        crossings.referred((1, 2), &HEAD);
        assert!(goes(&mut crossings).is_ok() && goes(&mut crossings).is_err());
    }
}
