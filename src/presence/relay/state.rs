//! What a relay takes in of its publisher's state, and what its edges hear of it.
//!
//! Lives on: every core, with its relays. Serves Z7, M4, M5. Invariants: an edge hears what is news, once, and of a presence told
//! by reference when it has come whole; of a publisher whose home is out of reach what is known is kept, and shown as gone.

use super::{Relay, RelayCounters, SLOT};
use crate::base::id::{SessionId, UserId};
use crate::base::time::Time;
use crate::presence::cache::Cache;
use crate::presence::control::{Control, UserRef};
use crate::presence::edge::Edge;
use crate::presence::frame::{self, Events, is_farewell, is_reference};
use crate::presence::missed::Ended;
use crate::presence::outbox::Outbox;
use crate::wire::event::Head;

/// To the edges the publisher is gone from now on.
pub(super) fn hide(relay: &mut Relay, now: Time, edge: &mut Edge, out: &mut Outbox) {
    relay.wanted = Cache::default();
    let kept = frame::frames(relay.cache.bytes()).filter(|frame| !is_farewell(&frame::head(frame)));
    for ended in kept.map(Ended::of).collect::<Vec<_>>() {
        let mut farewell = Events::default();
        ended.tell(relay.user, &mut farewell);
        spread(relay, now, farewell.bytes(), edge, out);
    }
}

/// The publisher is as it was when its home went out of reach.
pub(super) fn show(relay: &Relay, now: Time, edge: &mut Edge, out: &mut Outbox) {
    let there = frame::frames(relay.cache.bytes()).filter(|frame| !is_farewell(&frame::head(frame)));
    there.for_each(|frame| spread(relay, now, frame, edge, out));
}

/// The home is heard again: what it says counts, and to the edges it's news.
pub(super) fn come_back(relay: &mut Relay) {
    relay.in_question = false;
    if std::mem::take(&mut relay.away) {
        relay.cache = Cache::default();
    }
}

/// Takes over a whole state: what is news in it, and what is gone, goes on to the edges.
pub(super) fn catch_up(
    relay: &mut Relay,
    now: Time,
    events: &Events,
    counters: &mut RelayCounters,
    edge: &mut Edge,
    out: &mut Outbox,
) {
    come_back(relay);
    // What was asked for may have been lost. It's asked for again as far as it's still there.
    relay.wanted = Cache::default();
    // The number of a session comes again under another epoch, where another node has taken the user over: it's another session.
    let of = |head: Head| (head.session, head.version.epoch);
    let there: Vec<(SessionId, u32)> = events.iter().map(frame::head).filter(|head| !is_farewell(head)).map(of).collect();
    let kept = frame::frames(relay.cache.bytes()).filter(|frame| !is_farewell(&frame::head(frame)));
    let gone: Vec<Ended> = kept.map(Ended::of).filter(|ended| !there.contains(&(ended.session, ended.version.epoch))).collect();
    for ended in gone {
        relay.cache.forget(ended.session);
        let mut farewell = Events::default();
        ended.tell(relay.user, &mut farewell);
        spread(relay, now, farewell.bytes(), edge, out);
    }
    events.iter().for_each(|frame| _ = take(relay, now, frame, counters, edge, out));
}

/// Takes in a frame of a publisher, whole or by reference. False: it is no news.
pub(super) fn take(
    relay: &mut Relay,
    now: Time,
    frame: &[u8],
    counters: &mut RelayCounters,
    edge: &mut Edge,
    out: &mut Outbox,
) -> bool {
    let head = frame::head(frame);
    if is_reference(&head) {
        return obtain(relay, &head, frame, counters, out);
    }
    if let Some(wanted) = relay.wanted.of_session(head.session) {
        match frame::head(wanted).version <= head.version {
            true => relay.wanted.forget(head.session),
            false => ask_for(relay.user, head.session, counters, out),
        }
    }
    let is_news = relay.cache.put(&head, frame);
    if is_news {
        counters.updates += 1;
        spread(relay, now, frame, edge, out);
    }
    is_news
}

/// A presence is told by reference. It is asked for, unless that has been done: the answer is the newest then. False: it's known.
fn obtain(relay: &mut Relay, head: &Head, frame: &[u8], counters: &mut RelayCounters, out: &mut Outbox) -> bool {
    if relay.cache.of_session(head.session).is_some_and(|kept| frame::head(kept).version >= head.version) {
        return false;
    }
    let is_asked = relay.wanted.of_session(head.session).is_some();
    if !is_asked {
        ask_for(relay.user, head.session, counters, out);
    }
    relay.wanted.put(head, frame) || !is_asked
}

fn ask_for(publisher: UserId, session: SessionId, counters: &mut RelayCounters, out: &mut Outbox) {
    counters.fetched += 1;
    out.send(out.map.home(publisher), Control::Obtain { publisher, session, seat: out.map.here });
}

/// Sends a frame to every edge with subscribers.
fn spread(relay: &Relay, now: Time, frame: &[u8], edge: &mut Edge, out: &mut Outbox) {
    for destination in &relay.outbound {
        if destination.seat == out.map.here {
            edge.fan_out(destination.slot, relay.user, frame, &mut out.lines);
        } else {
            out.update(destination.seat, destination.slot, UserRef { user: relay.user, slot: SLOT }, now, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{CoreId, NodeId, Seat, Version};
    use crate::base::jid::Bare;
    use crate::base::limits::Limits;
    use crate::base::map::Map;
    use crate::presence::control::Snapshot;
    use crate::presence::outbox::Parcel;
    use crate::presence::relay::{Question, Relays};
    use crate::wire::native::Show;
    use ahash::RandomState;

    const PUBLISHER: UserId = UserId(2 << 48 | 7 << 32 | 1);

    /// The gateway of another cluster's publisher, which another node's relay asks.
    struct Gateway {
        relays: Relays,
        edge: Edge,
        out: Outbox,
    }

    impl Gateway {
        fn asked_by(seat: Seat) -> Gateway {
            let mut map = Map::of_node(NodeId(1), CoreId(0), 1);
            map.cluster = 1;
            let (hasher, mut out) = (RandomState::with_seed(1), Outbox::new(map.clone(), &Limits::default(), 1500));
            [seat.node, Seat::of_cluster(2).node].into_iter().for_each(|node| _ = out.peers.entry(node).or_default());
            let (mut relays, edge) = (Relays::new(hasher.clone()), Edge::new(&map, hasher));
            let subscriber = UserId::new(1, 1, 1);
            assert!(!relays.watch(PUBLISHER, Question { subscriber, seat, slot: SLOT, nonce: 9, known: None }, &mut out));
            Gateway { relays, edge, out }
        }

        /// The publisher's cluster says how it is: these sessions, by reference.
        fn is_told(&mut self, sessions: &[u32]) {
            let mut events = Events::default();
            sessions.iter().for_each(|&session| events.append(frame::reference(presence(session, Show::Away).bytes()).bytes()));
            let (jid, subscriber, nonce) = (Bare::new("ann@d").unwrap(), UserId::new(1, 1, 1), 1);
            let snapshot =
                Snapshot { publisher: PUBLISHER, jid, subscriber, slot: SLOT, nonce, events, behind: 0, revoked: vec![] };
            self.relays.snapshot(Time(1), snapshot, &mut self.edge, &mut self.out);
        }

        fn hears(&mut self, session: u32, show: Show) {
            self.relays.update(Time(1), presence(session, show).bytes(), &mut self.edge, &mut self.out);
        }

        /// What the other node has been told: sessions by states, and by updates.
        fn has_told(&mut self, node: NodeId) -> (Option<Vec<u32>>, Vec<u32>) {
            let sessions = |block: &[u8]| frame::frames(block).map(|frame| frame::head(frame).session.0).collect();
            let (parcels, updates) = self.out.peers.get_mut(&node).unwrap().take();
            let state = parcels.into_iter().find_map(|parcel| match parcel {
                Parcel::Control(_, Control::Snapshot(snapshot)) => Some(sessions(snapshot.events.bytes())),
                _ => None,
            });
            (state, sessions(&updates))
        }

        /// The sessions that the publisher's cluster has been asked for.
        fn has_asked_for(&mut self) -> Vec<u32> {
            let (parcels, _) = self.out.peers.get_mut(&Seat::of_cluster(2).node).unwrap().take();
            let asked = parcels.into_iter().filter_map(|parcel| match parcel {
                Parcel::Control(_, Control::Obtain { session, .. }) => Some(session.0),
                _ => None,
            });
            asked.collect()
        }
    }

    fn presence(session: u32, show: Show) -> Events {
        let version = Version { epoch: 1, sequence: if show == Show::Unavailable { 2 } else { 1 } };
        Events::of(Head { user: PUBLISHER, version, session: SessionId(session), show, flags: 0 }, &[7; 64])
    }

    #[test]
    fn m5_nobody_is_told_of_sessions_by_reference_that_have_not_come_whole() {
        let seat = Seat { node: NodeId(2), core: CoreId(0) };
        let mut gateway = Gateway::asked_by(seat);
        gateway.is_told(&[1, 2, 3]);
        assert_eq!((gateway.has_asked_for(), gateway.has_told(seat.node)), (vec![1, 2, 3], (None, vec![])));
        gateway.hears(1, Show::Away);
        assert_eq!(gateway.has_told(seat.node), (None, vec![]), "who hears of one only would take the others for gone");
        gateway.hears(2, Show::Unavailable);
        gateway.hears(3, Show::Away);
        assert_eq!(gateway.has_told(seat.node), (Some(vec![1, 3]), vec![]));
        gateway.hears(4, Show::Away);
        assert_eq!(gateway.has_told(seat.node), (None, vec![4]));
    }

    #[test]
    fn m5_what_has_not_come_whole_is_asked_for_anew_when_it_may_be_lost() {
        let seat = Seat { node: NodeId(2), core: CoreId(0) };
        let mut gateway = Gateway::asked_by(seat);
        gateway.is_told(&[1, 2]);
        gateway.hears(1, Show::Away);
        gateway.has_asked_for();
        gateway.relays.look_again(PUBLISHER, &mut gateway.out);
        gateway.hears(5, Show::Away);
        assert_eq!(gateway.has_told(seat.node), (None, vec![]), "the answer is not there yet");
        gateway.is_told(&[1, 2, 5]);
        assert_eq!(gateway.has_asked_for(), [2]);
        gateway.hears(2, Show::Away);
        assert_eq!(gateway.has_told(seat.node), (Some(vec![1, 5, 2]), vec![]));
    }

    #[test]
    fn m5_who_is_revoked_while_a_presence_is_fetched_is_asked_about_and_told_nothing() {
        let seat = Seat { node: NodeId(2), core: CoreId(0) };
        let mut gateway = Gateway::asked_by(seat);
        gateway.is_told(&[1]);
        gateway.relays.revoke(PUBLISHER, UserId::new(1, 1, 1), &mut gateway.out);
        gateway.hears(1, Show::Away);
        assert_eq!(gateway.has_told(seat.node), (None, vec![]));
        gateway.relays.refused(PUBLISHER, 2, &mut gateway.out);
        assert_eq!(gateway.relays.count(), 0);
    }
}
