//! The tables of RFC 6121 Appendix A and section 3.4, every cell, written out by hand; then two servers wired to each other.

use fanal::presence::subscription::{Action, Flow, Outcome, Removal, State, inbound, outbound, removed};
use proptest::prelude::*;
use std::collections::{HashSet, VecDeque};

const N: State = State::NONE;
const N_OUT: State = State::PENDING_OUT;
const N_IN: State = State::PENDING_IN;
const N_OUT_IN: State = State::PENDING_OUT.with(State::PENDING_IN);
const TO: State = State::TO;
const TO_IN: State = State::TO.with(State::PENDING_IN);
const FROM: State = State::FROM;
const FROM_OUT: State = State::FROM.with(State::PENDING_OUT);
const BOTH: State = State::TO.with(State::FROM);
const NINE: [State; 9] = [N, N_OUT, N_IN, N_OUT_IN, TO, TO_IN, FROM, FROM_OUT, BOTH];

/// Existing state, MUST it be routed (A.2) or delivered (A.3), new state.
type Table = [(State, bool, State); 9];

/// A.2.1
const OUT_SUBSCRIBE: Table = [
    (N, true, N_OUT),
    (N_OUT, true, N_OUT),
    (N_IN, true, N_OUT_IN),
    (N_OUT_IN, true, N_OUT_IN),
    (TO, true, TO),
    (TO_IN, true, TO_IN),
    (FROM, true, FROM_OUT),
    (FROM_OUT, true, FROM_OUT),
    (BOTH, true, BOTH),
];
/// A.2.2
const OUT_UNSUBSCRIBE: Table = [
    (N, true, N),
    (N_OUT, true, N),
    (N_IN, true, N_IN),
    (N_OUT_IN, true, N_IN),
    (TO, true, N),
    (TO_IN, true, N_IN),
    (FROM, true, FROM),
    (FROM_OUT, true, FROM),
    (BOTH, true, FROM),
];
/// A.2.3; the three cells of its note (pre-approval) hold the approval besides.
const OUT_SUBSCRIBED: Table = [
    (N, false, N.with(State::APPROVED)),
    (N_OUT, false, N_OUT.with(State::APPROVED)),
    (N_IN, true, FROM),
    (N_OUT_IN, true, FROM_OUT),
    (TO, false, TO.with(State::APPROVED)),
    (TO_IN, true, BOTH),
    (FROM, false, FROM),
    (FROM_OUT, false, FROM_OUT),
    (BOTH, false, BOTH),
];
/// A.2.4
const OUT_UNSUBSCRIBED: Table = [
    (N, false, N),
    (N_OUT, false, N_OUT),
    (N_IN, true, N),
    (N_OUT_IN, true, N_OUT),
    (TO, false, TO),
    (TO_IN, true, TO),
    (FROM, true, N),
    (FROM_OUT, true, N_OUT),
    (BOTH, true, TO),
];
/// A.3.1
const IN_SUBSCRIBE: Table = [
    (N, true, N_IN),
    (N_OUT, true, N_OUT_IN),
    (N_IN, false, N_IN),
    (N_OUT_IN, false, N_OUT_IN),
    (TO, true, TO_IN),
    (TO_IN, false, TO_IN),
    (FROM, false, FROM),
    (FROM_OUT, false, FROM_OUT),
    (BOTH, false, BOTH),
];
/// A.3.2
const IN_UNSUBSCRIBE: Table = [
    (N, false, N),
    (N_OUT, false, N_OUT),
    (N_IN, true, N),
    (N_OUT_IN, true, N_OUT),
    (TO, false, TO),
    (TO_IN, true, TO),
    (FROM, true, N),
    (FROM_OUT, true, N_OUT),
    (BOTH, true, TO),
];
/// A.3.3
const IN_SUBSCRIBED: Table = [
    (N, false, N),
    (N_OUT, true, TO),
    (N_IN, false, N_IN),
    (N_OUT_IN, true, TO_IN),
    (TO, false, TO),
    (TO_IN, false, TO_IN),
    (FROM, false, FROM),
    (FROM_OUT, true, BOTH),
    (BOTH, false, BOTH),
];
/// A.3.4
const IN_UNSUBSCRIBED: Table = [
    (N, false, N),
    (N_OUT, true, N),
    (N_IN, false, N_IN),
    (N_OUT_IN, true, N_IN),
    (TO, true, N),
    (TO_IN, true, N_IN),
    (FROM, false, FROM),
    (FROM_OUT, true, FROM),
    (BOTH, true, FROM),
];

type Side = fn(State, Action) -> Outcome;
const TABLES: [(&str, Side, Action, Table); 8] = [
    ("A.2.1", outbound, Action::Subscribe, OUT_SUBSCRIBE),
    ("A.2.2", outbound, Action::Unsubscribe, OUT_UNSUBSCRIBE),
    ("A.2.3", outbound, Action::Subscribed, OUT_SUBSCRIBED),
    ("A.2.4", outbound, Action::Unsubscribed, OUT_UNSUBSCRIBED),
    ("A.3.1", inbound, Action::Subscribe, IN_SUBSCRIBE),
    ("A.3.2", inbound, Action::Unsubscribe, IN_UNSUBSCRIBE),
    ("A.3.3", inbound, Action::Subscribed, IN_SUBSCRIBED),
    ("A.3.4", inbound, Action::Unsubscribed, IN_UNSUBSCRIBED),
];

#[test]
fn every_cell_of_appendix_a_is_as_written() {
    for (section, side, action, table) in TABLES {
        assert_eq!(table.map(|row| row.0), NINE, "{section} lists the nine states");
        for (old, route, new) in table {
            let outcome = side(old, action);
            assert_eq!((outcome.state, outcome.route), (new, route), "{section}: {old:?}, {action:?}");
        }
    }
}

#[test]
fn a_request_is_answered_at_once_where_it_was_granted_before() {
    for (section, side, action, table) in TABLES {
        for (old, ..) in table {
            let granted = section == "A.3.1" && [FROM, FROM_OUT, BOTH].contains(&old);
            assert_eq!(side(old, action).reply, granted.then_some(Action::Subscribed), "{section}: {old:?}");
        }
    }
}

#[test]
fn presence_starts_and_stops_exactly_where_a_subscription_does() {
    let starts_and_stops: [(&str, &[State], Flow); 6] = [
        ("A.2.2", &[TO, TO_IN, BOTH], Flow::StopTo),
        ("A.2.3", &[N_IN, N_OUT_IN, TO_IN], Flow::StartFrom),
        ("A.2.4", &[FROM, FROM_OUT, BOTH], Flow::StopFrom),
        ("A.3.2", &[FROM, FROM_OUT, BOTH], Flow::StopFrom),
        ("A.3.3", &[N_OUT, N_OUT_IN, FROM_OUT], Flow::StartTo),
        ("A.3.4", &[TO, TO_IN, BOTH], Flow::StopTo),
    ];
    for (section, side, action, table) in TABLES {
        for (old, ..) in table {
            let row = starts_and_stops.iter().find(|(at, states, _)| *at == section && states.contains(&old));
            assert_eq!(side(old, action).flow, row.map(|row| row.2), "{section}: {old:?}");
        }
    }
}

#[test]
fn the_item_is_pushed_where_clients_see_a_change_and_nowhere_else() {
    let pushed: [(&str, &[State]); 8] = [
        ("A.2.1", &[N, N_IN, FROM]),
        ("A.2.2", &[N_OUT, N_OUT_IN, TO, TO_IN, FROM_OUT, BOTH]),
        ("A.2.3", &[N, N_OUT, TO, N_IN, N_OUT_IN, TO_IN]),
        ("A.2.4", &[FROM, FROM_OUT, BOTH]),
        ("A.3.1", &[]),
        ("A.3.2", &[FROM, FROM_OUT, BOTH]),
        ("A.3.3", &[N_OUT, N_OUT_IN, FROM_OUT]),
        ("A.3.4", &[N_OUT, N_OUT_IN, TO, TO_IN, FROM_OUT, BOTH]),
    ];
    for ((section, side, action, table), (at, states)) in TABLES.into_iter().zip(pushed) {
        assert_eq!(section, at);
        for (old, ..) in table {
            assert_eq!(side(old, action).push, states.contains(&old), "{section}: {old:?}");
        }
    }
}

/// Section 3.4: approval in advance.
#[test]
fn an_approval_in_advance_grants_the_next_request_without_asking() {
    for (old, granted) in [(N, FROM), (N_OUT, FROM_OUT), (TO, BOTH)] {
        let approved = outbound(old, Action::Subscribed);
        assert_eq!((approved.route, approved.push, approved.flow), (false, true, None), "{old:?}");
        let again = outbound(approved.state, Action::Subscribed);
        assert_eq!((again.state, again.route, again.push), (approved.state, false, false), "{old:?}");
        let answer = inbound(approved.state, Action::Subscribe);
        let expected = Outcome {
            state: granted.with(State::APPROVED),
            route: false,
            push: true,
            reply: Some(Action::Subscribed),
            flow: Some(Flow::StartFrom),
        };
        assert_eq!(answer, expected, "{old:?}");
    }
}

#[test]
fn unsubscribed_takes_an_approval_back_and_the_contact_is_told_only_of_what_it_knew() {
    for old in NINE {
        let outcome = outbound(old.with(State::APPROVED), Action::Unsubscribed);
        let plain = outbound(old, Action::Unsubscribed);
        assert_eq!((outcome.state, outcome.route, outcome.flow), (plain.state, plain.route, plain.flow), "{old:?}");
        assert!(outcome.push, "{old:?}: the approval was visible");
    }
}

#[test]
fn the_other_actions_leave_an_approval_as_it_is() {
    for (section, side, action, table) in TABLES {
        let decides = matches!((section, action), ("A.2.4", _) | ("A.3.1", _));
        for (old, route, new) in table.into_iter().filter(|_| !decides) {
            let outcome = side(old.with(State::APPROVED), action);
            assert_eq!((outcome.state, outcome.route), (new.with(State::APPROVED), route), "{section}: {old:?}");
        }
    }
}

#[test]
fn the_rosters_own_bit_changes_nothing_and_is_not_changed() {
    for (section, side, action, table) in TABLES {
        for old in table.into_iter().flat_map(|row| [row.0, row.0.with(State::APPROVED)]) {
            let plain = side(old, action);
            let expected = Outcome { state: plain.state.with(State::HIDDEN), ..plain };
            assert_eq!(side(old.with(State::HIDDEN), action), expected, "{section}: {old:?}");
        }
    }
}

#[test]
fn removing_an_item_ends_what_there_was() {
    let rows = [
        (N, false, false),
        (N_OUT, true, false),
        (N_IN, false, true),
        (N_OUT_IN, true, true),
        (TO, true, false),
        (TO_IN, true, true),
        (FROM, false, true),
        (FROM_OUT, true, true),
        (BOTH, true, true),
    ];
    for (old, unsubscribe, unsubscribed) in rows {
        let expected = Removal {
            unsubscribe,
            unsubscribed,
            stop_to: [TO, TO_IN, BOTH].contains(&old),
            stop_from: [FROM, FROM_OUT, BOTH].contains(&old),
        };
        assert_eq!(removed(old), expected, "{old:?}");
        assert_eq!(removed(old.with(State::APPROVED)), expected, "{old:?} approved");
    }
}

#[test]
fn only_sound_states_can_be_read_back() {
    let sound: HashSet<u8> = NINE
        .into_iter()
        .flat_map(|s| [s, s.with(State::APPROVED), s.with(State::HIDDEN), s.with(State::APPROVED.with(State::HIDDEN))])
        .flat_map(|s| [s, s.with(State::BARRED)])
        .map(State::bits)
        .collect();
    assert_eq!(sound.len(), 72);
    for bits in 0..=255 {
        assert_eq!(State::from_bits(bits).map(State::bits), sound.contains(&bits).then_some(bits));
    }
}

#[test]
fn a_mere_request_is_not_in_the_roster() {
    assert!(!State::HIDDEN.with(N_IN).is_visible());
    assert!(N.is_visible() && N_IN.is_visible(), "put there by the user");
    assert!(State::HIDDEN.with(FROM).is_visible(), "a subscription is always shown");
    assert!(State::HIDDEN.is_idle() && !N_IN.is_idle());
}

/// Two homes, each with its half, and the two loss-free queues between them.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Pair {
    state: [State; 2],
    queue: [VecDeque<Action>; 2],
    /// Whether the user granted its presence (in advance or in answer) since it last took it back.
    willing: [bool; 2],
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Act(usize, Action),
    Remove(usize),
    Deliver(usize),
}

impl Pair {
    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Act(user, action) => {
                self.willing[user] = match action {
                    Action::Subscribed => true,
                    Action::Unsubscribed => false,
                    _ => self.willing[user],
                };
                let outcome = outbound(self.state[user], action);
                self.state[user] = outcome.state;
                self.queue[user].extend(outcome.route.then_some(action));
            }
            Turn::Remove(user) => {
                let removal = removed(self.state[user]);
                self.willing[user] = false;
                self.state[user] = State::NONE;
                self.queue[user].extend(removal.unsubscribe.then_some(Action::Unsubscribe));
                self.queue[user].extend(removal.unsubscribed.then_some(Action::Unsubscribed));
            }
            Turn::Deliver(from) => {
                if let Some(action) = self.queue[from].pop_front() {
                    let to = 1 - from;
                    let outcome = inbound(self.state[to], action);
                    self.state[to] = outcome.state;
                    self.queue[to].extend(outcome.reply);
                }
            }
        }
    }

    fn drain(&mut self) {
        for _ in 0..1000 {
            if self.is_quiet() {
                return;
            }
            self.take(Turn::Deliver(0));
            self.take(Turn::Deliver(1));
        }
        panic!("the two servers answer each other for ever");
    }

    fn is_quiet(&self) -> bool {
        self.queue.iter().all(VecDeque::is_empty)
    }

    /// Nobody hears of a user who isn't willing, and both never hold excluding bits.
    fn check_always(&self) {
        for user in [0, 1] {
            assert!(!self.state[user].has(State::FROM) || self.willing[user], "from without consent: {:?}", self.state);
            assert!(State::from_bits(self.state[user].bits()).is_some(), "unsound: {:?}", self.state);
        }
    }

    fn agree(&self, subscriber: usize) -> bool {
        let (mine, theirs) = (self.state[subscriber], self.state[1 - subscriber]);
        mine.has(State::TO) == theirs.has(State::FROM) && mine.has(State::PENDING_OUT) == theirs.has(State::PENDING_IN)
    }
}

fn a_turn() -> impl Strategy<Value = Turn> {
    let action = prop::sample::select(Action::ALL.to_vec());
    prop_oneof![
        6 => (0..2usize, action).prop_map(|(user, action)| Turn::Act(user, action)),
        1 => (0..2usize).prop_map(Turn::Remove),
        6 => (0..2usize).prop_map(Turn::Deliver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    /// One at a time: the two halves are mirror images after each action.
    #[test]
    fn without_crossing_actions_the_halves_always_agree(turns in prop::collection::vec(a_turn(), 0..60)) {
        let mut pair = Pair::default();
        for turn in turns {
            pair.take(turn);
            pair.drain();
            pair.check_always();
            prop_assert!(pair.agree(0) && pair.agree(1), "{turn:?} led to {:?}", pair.state);
        }
    }

    /// Stanzas carry no numbers, so an answer to an older request can be taken for that to a newer one while they cross. What
    /// still holds at rest: who believes to be subscribed is, or waits for an answer; and the subscriber's next subscribe or
    /// unsubscribe makes both agree again.
    #[test]
    fn crossing_actions_come_to_rest_and_the_next_word_of_the_subscriber_heals(
        turns in prop::collection::vec(a_turn(), 0..80), subscriber in 0..2usize,
    ) {
        let mut pair = Pair::default();
        for turn in turns {
            pair.take(turn);
            pair.check_always();
        }
        pair.drain();
        pair.check_always();
        let (mine, theirs) = (pair.state[subscriber], pair.state[1 - subscriber]);
        prop_assert!(!mine.has(State::TO) || theirs.has(State::FROM.with(State::PENDING_IN)), "{:?}", pair.state);
        for word in [Action::Subscribe, Action::Unsubscribe] {
            let mut healed = pair.clone();
            healed.take(Turn::Act(subscriber, word));
            healed.drain();
            let (mine, theirs) = (healed.state[subscriber], healed.state[1 - subscriber]);
            let still_waits = mine.has(State::TO) && theirs.has(State::PENDING_IN);
            prop_assert!(healed.agree(subscriber) || still_waits, "{word:?} from {:?}: {:?}", pair.state, healed.state);
            if still_waits {
                healed.take(Turn::Act(1 - subscriber, Action::Unsubscribed));
                healed.drain();
                prop_assert!(healed.agree(subscriber), "a denial reaches who believed to be subscribed: {:?}", healed.state);
            }
        }
    }
}

/// Every interleaving with up to three actions under way in each direction, not a sample of them.
#[test]
fn no_interleaving_lets_presence_flow_without_consent() {
    let mut seen = HashSet::from([Pair::default()]);
    let mut open = vec![Pair::default()];
    while let Some(pair) = open.pop() {
        pair.check_always();
        let acts = Action::ALL.into_iter().flat_map(|a| [Turn::Act(0, a), Turn::Act(1, a)]);
        for turn in acts.chain([Turn::Remove(0), Turn::Remove(1), Turn::Deliver(0), Turn::Deliver(1)]) {
            let mut next = pair.clone();
            next.take(turn);
            if next.queue.iter().all(|q| q.len() <= 3) && seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    assert!(seen.len() > 10_000, "the search was too narrow to mean anything: {}", seen.len());
}
