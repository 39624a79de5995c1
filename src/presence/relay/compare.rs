//! What relays know is compared with what homes know, many publishers at a time (Z13): what is the same costs some bytes, and what
//! differs comes whole.
//!
//! Lives on: every core, with its relays. Serves Z13. Invariants: one node's core or cluster is asked about so many publishers at a
//! time, and about the next when those are answered; what a home answers comes before the word that it has; a publisher that is
//! shown as gone is shown again only when its home has said how it is.

use super::state::{hide, show};
use super::{Cache, Relays, answer_owed, send_question, tell_attention};
use crate::base::id::{Seat, UserId};
use crate::base::time::Time;
use crate::presence::border::place_of;
use crate::presence::control::Control;
use crate::presence::edge::{Edge, Grant};
use crate::presence::frame;
use crate::presence::outbox::Outbox;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Publishers that one core asks one other node's core, or cluster, about at once. At the limit: the others wait for the answer.
pub const AT_ONCE: usize = 2_048;

/// What a core knows of publishers: their homes tell the state of those of which it is not so, and then that they have
/// (`Control::Compared`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare {
    /// Whom the answer goes to, and the core in that cluster, as in a ticket.
    pub seat: Seat,
    pub place: u32,
    pub number: u32,
    pub known: Known,
}

/// Publishers in their order, each with what is known of it (`frame::digest`). On the way each is some ten bytes: how far the first
/// half of the number is from the one before, the other half, and the digest.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Packed>", into = "Vec<Packed>")]
pub struct Known(pub Vec<(UserId, u64)>);

type Packed = (u32, u32, [u8; 8]);

impl From<Known> for Vec<Packed> {
    fn from(known: Known) -> Vec<Packed> {
        let mut before = 0;
        let pack = |(user, digest): (UserId, u64)| {
            let high = (user.0 >> 32) as u32;
            let ahead = high.wrapping_sub(std::mem::replace(&mut before, high));
            (ahead, user.0 as u32, digest.to_le_bytes())
        };
        known.0.into_iter().map(pack).collect()
    }
}

impl TryFrom<Vec<Packed>> for Known {
    type Error = &'static str;

    fn try_from(packed: Vec<Packed>) -> Result<Known, &'static str> {
        if packed.len() > AT_ONCE {
            return Err("more than are asked about at once");
        }
        let mut high = 0_u32;
        let unpack = |(ahead, low, digest): Packed| {
            high = high.wrapping_add(ahead);
            (UserId(u64::from(high) << 32 | u64::from(low)), u64::from_le_bytes(digest))
        };
        Ok(Known(packed.into_iter().map(unpack).collect()))
    }
}

/// What is being compared with one other node's core, or a cluster.
#[derive(Default)]
pub(super) struct Comparing {
    waiting: BTreeSet<UserId>,
    /// Those that were asked about last, under which number, and how many of them have not been answered.
    asked: Vec<UserId>,
    number: u32,
    left: usize,
}

impl Relays {
    /// Homes may have changed without a word: their node was out of reach, has started anew, or others own their users now. What
    /// was asked is asked again, and what was granted is compared.
    pub fn ask_again(&mut self, concerns: impl Fn(UserId) -> bool, out: &mut Outbox) {
        let mut seats = BTreeSet::new();
        for user in self.users(concerns) {
            if self.ask_anew(user, out) == Grant::Given {
                let seat = out.map.home(user);
                self.comparing.entry(seat).or_default().waiting.insert(user);
                seats.insert(seat);
            }
        }
        for seat in seats {
            // The answer to what was asked before may never come.
            let comparing = self.comparing.get_mut(&seat).expect("just put there");
            comparing.waiting.extend(std::mem::take(&mut comparing.asked));
            self.compare_next(seat, out);
        }
    }

    /// The same of one publisher.
    pub fn look_again(&mut self, user: UserId, out: &mut Outbox) {
        if self.relays.contains_key(&user) && self.ask_anew(user, out) == Grant::Given {
            self.next_nonce = self.next_nonce.wrapping_add(1);
            let relay = &self.relays[&user];
            // What was on its way may be lost: then the answer tells of it again.
            let is_all = !relay.away && relay.wanted.bytes().is_empty();
            let known = is_all.then(|| frame::digest(relay.cache.bytes()));
            send_question(user, UserId::NOBODY, self.next_nonce, known, out);
            self.attend(user, out);
        }
    }

    /// Whoever is asked takes it that somebody looks.
    fn attend(&mut self, user: UserId, out: &mut Outbox) {
        if let Some(relay) = self.relays.get_mut(&user) {
            relay.is_unheeded = false;
            tell_attention(relay, out);
        }
    }

    /// Asks again what was asked of a publisher's home.
    fn ask_anew(&mut self, user: UserId, out: &mut Outbox) -> Grant {
        let relay = &self.relays[&user];
        for (nonce, question) in &relay.asked {
            send_question(user, question.subscriber, *nonce, None, out);
        }
        relay.grant
    }

    fn compare_next(&mut self, seat: Seat, out: &mut Outbox) {
        let comparing = self.comparing.get_mut(&seat).expect("the caller has it");
        let mut known = Vec::new();
        while known.len() < AT_ONCE
            && let Some(user) = comparing.waiting.pop_first()
        {
            // Nobody may watch it any more, and it may be another one's by now.
            if let Some(relay) = self.relays.get_mut(&user).filter(|relay| relay.grant == Grant::Given) {
                relay.in_question = true;
                known.push((user, frame::digest(relay.cache.bytes())));
            }
        }
        if known.is_empty() {
            self.comparing.remove(&seat);
            return;
        }
        self.next_nonce = self.next_nonce.wrapping_add(1);
        comparing.asked = known.iter().map(|(user, _)| *user).collect();
        (comparing.number, comparing.left) = (self.next_nonce, known.len());
        let here = out.map.here;
        let asked = comparing.asked.clone();
        let compare = Compare { seat: here, place: place_of(here), number: self.next_nonce, known: Known(known) };
        out.send(seat, Control::Compare(Box::new(compare)));
        asked.into_iter().for_each(|user| self.attend(user, out));
    }

    /// So many publishers have been answered: those of which nothing else was said are as they were known to be.
    pub fn compared(&mut self, now: Time, number: u32, count: u32, edge: &mut Edge, out: &mut Outbox) {
        let is_it = |(_, comparing): &(&Seat, &mut Comparing)| comparing.number == number && comparing.left > 0;
        let Some((&seat, comparing)) = self.comparing.iter_mut().find(is_it) else { return };
        comparing.left = comparing.left.saturating_sub(count as usize);
        if comparing.left > 0 {
            return;
        }
        for user in std::mem::take(&mut comparing.asked) {
            let Some(relay) = self.relays.get_mut(&user).filter(|relay| relay.in_question) else { continue };
            relay.in_question = false;
            if std::mem::take(&mut relay.away) {
                show(relay, now, edge, out);
            }
            // What else it was told of by reference has gone.
            relay.wanted = Cache::default();
            answer_owed(relay, out);
        }
        self.compare_next(seat, out);
    }

    /// The nodes of these publishers are down: they are shown as gone, until their homes say otherwise.
    pub fn lost(&mut self, now: Time, concerns: impl Fn(UserId) -> bool, edge: &mut Edge, out: &mut Outbox) {
        for user in self.users(&concerns) {
            let relay = self.relays.get_mut(&user).expect("listed");
            relay.in_question = false;
            if !std::mem::replace(&mut relay.away, true) {
                hide(relay, now, edge, out);
                answer_owed(relay, out);
            }
        }
        self.comparing.values_mut().for_each(|comparing| comparing.waiting.retain(|&user| !concerns(user)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{CoreId, NodeId};
    use crate::base::jid::Bare;
    use crate::base::limits::Limits;
    use crate::base::map::Map;
    use crate::presence::control::Snapshot;
    use crate::presence::frame::Events;
    use crate::presence::outbox::Parcel;
    use crate::presence::relay::{Question, SLOT};
    use ahash::RandomState;

    #[test]
    fn z13_what_is_known_of_a_publisher_is_ten_bytes_and_reads_back() {
        let user = |n: u64| (UserId::new(2, (n * 7) as u16, (n % 3) as u32), n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let known = Known((1..1000).map(user).collect());
        let bytes = postcard::to_allocvec(&known).unwrap();
        assert!(bytes.len() < 1000 * 10 + 8, "{}", bytes.len());
        assert_eq!(postcard::from_bytes::<Known>(&bytes).unwrap(), known);
    }

    #[test]
    fn z13_many_publishers_are_compared_some_at_a_time_and_those_that_are_the_same_are_shown_again() {
        let mut map = Map::of_node(NodeId(1), CoreId(0), 1);
        map.cluster = 1;
        let mut out = Outbox::new(map.clone(), &Limits::default(), 1500);
        let hasher = RandomState::with_seed(1);
        let (mut relays, mut edge) = (Relays::new(hasher.clone()), Edge::new(&map, hasher));
        let peer = Seat::of_cluster(2).node;
        out.peers.entry(peer).or_default();
        let users: Vec<UserId> = (0..AT_ONCE as u64 * 2 + 5).map(|n| UserId::new(2, n as u16, 1)).collect();
        for &publisher in &users {
            let (subscriber, seat) = (UserId::new(1, 1, 1), out.map.here);
            relays.watch(publisher, Question { subscriber, seat, slot: 0, nonce: 1, known: None }, &mut out);
            let (jid, events, revoked) = (Bare::new("a@d").unwrap(), Events::default(), Vec::new());
            let nonce = relays.next_nonce;
            let snapshot = Snapshot { publisher, jid, subscriber, slot: SLOT, nonce, events, behind: 0, revoked };
            relays.snapshot(Time(1), snapshot, &mut edge, &mut out);
        }
        out.peers.get_mut(&peer).unwrap().take();
        relays.lost(Time(1), |_| true, &mut edge, &mut out);
        relays.ask_again(|_| true, &mut out);
        let mut asked = Vec::new();
        loop {
            let (parcels, _) = out.peers.get_mut(&peer).unwrap().take();
            let Some(Parcel::Control(_, Control::Compare(compare))) = parcels.into_iter().next() else { break };
            let away = relays.relays.values().filter(|relay| relay.away).count();
            assert_eq!(away, users.len() - asked.len(), "none is shown before its home has answered");
            asked.extend(compare.known.0.iter().map(|(user, _)| *user));
            // By two homes.
            relays.compared(Time(1), compare.number, 1, &mut edge, &mut out);
            relays.compared(Time(1), compare.number, compare.known.0.len() as u32 - 1, &mut edge, &mut out);
        }
        assert_eq!(asked, users);
        assert!(relays.comparing.is_empty() && relays.relays.values().all(|relay| !relay.away));
    }

    #[test]
    fn z13_more_than_are_asked_about_at_once_are_refused() {
        let known = Known((0..=AT_ONCE as u64).map(|n| (UserId(n), n)).collect());
        assert!(postcard::from_bytes::<Known>(&postcard::to_allocvec(&known).unwrap()).is_err());
    }
}
