//! What a relay takes in of its publisher's state, and what its edges hear of it.
//!
//! Lives on: every core, with its relays. Serves Z7, M4, M5. Invariants: an edge hears what is news, once, and of a presence told
//! by reference when it has come whole; a publisher whose home was lost is gone to them until the home has answered what it was
//! asked since, and then they are shown what is known by then. So an update that comes before the answer is kept, and nobody hears
//! of it: of the other sessions, or of this one, what was kept may long be past.

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
    if relay.away {
        return;
    }
    let kept = frame::frames(relay.cache.bytes()).filter(|frame| !is_farewell(&frame::head(frame)));
    for ended in kept.map(Ended::of).collect::<Vec<_>>() {
        let mut farewell = Events::default();
        ended.tell(relay.user, &mut farewell);
        spread(relay, now, farewell.bytes(), edge, out);
    }
    relay.away = true;
}

/// The home has answered: what is known of the publisher is so, and to the edges it's news if they took it for gone.
pub(super) fn show(relay: &mut Relay, now: Time, edge: &mut Edge, out: &mut Outbox) {
    if std::mem::take(&mut relay.away) {
        let there = frame::frames(relay.cache.bytes()).filter(|frame| !is_farewell(&frame::head(frame)));
        there.for_each(|frame| spread(relay, now, frame, edge, out));
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
    relay.in_question = false;
    // The number of a session comes again under another epoch, where another node has taken the user over: it's another session.
    let of = |head: Head| (head.session, head.version.epoch);
    let there: Vec<(SessionId, u32)> = events.iter().map(frame::head).filter(|head| !is_farewell(head)).map(of).collect();
    let wanted: Vec<(SessionId, u32)> = frame::frames(relay.wanted.bytes()).map(|frame| of(frame::head(frame))).collect();
    wanted.into_iter().filter(|wanted| !there.contains(wanted)).for_each(|(session, _)| relay.wanted.forget(session));
    let kept = frame::frames(relay.cache.bytes()).filter(|frame| !is_farewell(&frame::head(frame)));
    let gone: Vec<Ended> = kept.map(Ended::of).filter(|ended| !there.contains(&(ended.session, ended.version.epoch))).collect();
    for ended in gone {
        relay.cache.forget(ended.session);
        let mut farewell = Events::default();
        ended.tell(relay.user, &mut farewell);
        spread(relay, now, farewell.bytes(), edge, out);
    }
    events.iter().for_each(|frame| _ = take(relay, now, frame, counters, edge, out));
    show(relay, now, edge, out);
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
    if relay.away {
        // It's not to be shown as it was.
        relay.cache.forget(head.session);
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

/// Sends a frame to every edge with subscribers, unless the publisher is gone to them.
fn spread(relay: &Relay, now: Time, frame: &[u8], edge: &mut Edge, out: &mut Outbox) {
    for destination in relay.outbound.iter().filter(|_| !relay.away) {
        if destination.seat == out.map.here {
            edge.fan_out(destination.slot, relay.user, frame, &mut out.lines);
        } else {
            out.update(destination.seat, destination.slot, UserRef { user: relay.user, slot: SLOT }, now, frame);
        }
    }
}
