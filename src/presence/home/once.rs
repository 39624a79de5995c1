//! That a way is carried out once, even after its sender has said that it won't come again: a copy may have taken another path.
//!
//! Lives on: every core. Serves Z8. Ways between two users come in the order of their numbers, since the next one sets out when the
//! one before is confirmed. So one that is not above the last was carried out before, or is older than it. Invariant: of each
//! pair the highest number counts, while the pair is known.

use crate::base::jid::Bare;
use crate::presence::control::{FAREWELL, Way, WayName};
use std::collections::{BTreeMap, VecDeque};

/// Pairs of users that one core knows of. At the limit: the one known longest is forgotten.
const PAIRS: usize = 65_536;

/// The sender, the receiver, and the sender's cluster.
type Pair = (Bare, Bare, u16);

/// The last way that was carried out of each pair.
#[derive(Default)]
pub(super) struct Once {
    last: BTreeMap<Pair, u64>,
    order: VecDeque<Pair>,
}

fn pair(name: &WayName) -> Pair {
    (name.from.clone(), name.to.clone(), name.cluster)
}

impl Once {
    /// A way has been carried out.
    pub fn note(&mut self, name: &WayName) {
        let last = self.last.entry(pair(name)).or_insert_with(|| {
            self.order.push_back(pair(name));
            0
        });
        *last = name.sequence.max(*last);
        if self.order.len() > PAIRS
            && let Some(oldest) = self.order.pop_front()
        {
            self.last.remove(&oldest);
        }
    }

    /// Whether a way has been carried out; `heard` are those that may come again.
    pub fn has(&self, way: &Way, heard: &BTreeMap<WayName, u64>) -> bool {
        let name = way.name();
        way.sequence != FAREWELL && (heard.contains_key(&name) || self.is_old(&name))
    }

    /// Whether a way with this number or a later one has been carried out.
    pub fn is_old(&self, name: &WayName) -> bool {
        !self.last.is_empty() && self.last.get(&pair(name)).is_some_and(|&last| name.sequence <= last)
    }

    /// A cluster is forgotten: another one of its number counts anew.
    pub fn forget(&mut self, cluster: u16) {
        self.last.retain(|(.., of), _| *of != cluster);
        self.order.retain(|(.., of)| *of != cluster);
    }

    /// Another node looks after these receivers from now on.
    pub fn release(&mut self, goes: impl Fn(&Bare) -> bool) {
        self.last.retain(|(_, to, _), _| !goes(to));
        self.order.retain(|(_, to, _)| !goes(to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(sequence: u64, cluster: u16) -> WayName {
        WayName { from: Bare::new("ann@d").unwrap(), to: Bare::new("bob@d").unwrap(), sequence, cluster }
    }

    #[test]
    fn z8_what_is_not_above_the_last_of_the_same_pair_is_old() {
        let mut once = Once::default();
        assert!(!once.is_old(&way(7, 1)));
        once.note(&way(7, 1));
        once.note(&way(5, 1));
        assert_eq!([6, 7, 8].map(|sequence| once.is_old(&way(sequence, 1))), [true, true, false]);
        assert!(!once.is_old(&way(7, 2)), "another cluster counts by itself");
        once.release(|to| to.as_str() == "bob@d");
        assert!(!once.is_old(&way(7, 1)));
    }

    #[test]
    fn pairs_are_bounded_and_the_oldest_goes() {
        let mut once = Once::default();
        let name = |n: usize| WayName { from: Bare::new(&format!("u{n}@d")).unwrap(), ..way(1, 0) };
        (0..=PAIRS).for_each(|n| once.note(&name(n)));
        assert!(!once.is_old(&name(0)) && once.is_old(&name(1)) && once.is_old(&name(PAIRS)));
        assert_eq!((once.last.len(), once.order.len()), (PAIRS, PAIRS));
    }
}
