//! That homes of a cluster began anew, have come back or are out of reach, as another cluster, or another node there, is to hear.
//!
//! Lives on: every core. Serves G4, Z7, Z13. Such a word is long, a bit for each slot, and of one node that is lost all others of
//! its cluster say it to all nodes of all others. Sent as they come, these words fill lanes, which are lost with it, and that makes
//! more of them. So of each cluster what has not been sent is one, and it waits while the lane has much to carry; what joins it is
//! counted (`lapses_joined`). Invariant: of a slot that waits, what was said last is told.

use crate::base::map::Slots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Homes of a cluster that began anew, have come back or (`gone`) are out of its own reach.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lapsed {
    pub cluster: u16,
    pub gone: bool,
    pub slots: Slots,
}

/// What waits to be told to one node or cluster: of each cluster those that are gone, and those that are not, 16 KB at most.
#[derive(Default, Debug)]
pub struct Lapses(BTreeMap<(u16, bool), Slots>);

impl Lapses {
    /// Whether something of that cluster waited already, which this joins.
    pub fn add(&mut self, lapsed: &Lapsed) -> bool {
        let Lapsed { cluster, gone, slots } = lapsed;
        let joins = [true, false].iter().any(|&gone| self.0.contains_key(&(*cluster, gone)));
        self.0.entry((*cluster, *gone)).or_default().add(slots);
        if let Some(others) = self.0.get_mut(&(*cluster, !gone)) {
            others.remove(slots);
            if others.is_empty() {
                self.0.remove(&(*cluster, !gone));
            }
        }
        joins
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take_one(&mut self) -> Option<Lapsed> {
        self.0.pop_first().map(|((cluster, gone), slots)| Lapsed { cluster, gone, slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lapsed(cluster: u16, gone: bool, slots: std::ops::Range<u16>) -> Lapsed {
        Lapsed { cluster, gone, slots: Slots::of(|slot| slots.contains(&slot)) }
    }

    /// G4: else the words about lanes that are lost fill others, which are lost for it (seeds 302258 and 311523 of the simulator).
    #[test]
    fn g4_of_a_slot_that_waits_one_word_is_left_and_it_is_the_last() {
        let mut lapses = Lapses::default();
        let words = [lapsed(1, true, 0..20), lapsed(1, false, 10..30), lapsed(2, true, 5..6), lapsed(2, false, 5..6)];
        let joined = (0..100).flat_map(|_| &words).filter(|word| lapses.add(word)).count();
        assert_eq!(joined, 398, "all but the first of each cluster");
        let told: Vec<Lapsed> = std::iter::from_fn(|| lapses.take_one()).collect();
        assert_eq!(told, [lapsed(1, false, 10..30), lapsed(1, true, 0..10), lapsed(2, false, 5..6)]);
    }
}
