//! The subscription state machine of RFC 6121: what the two users' servers do with subscribe, subscribed, unsubscribe and
//! unsubscribed. The whole of sections 2.5, 3.1 to 3.4 and Appendix A; `tests/subscription_table.rs` holds its tables.
//!
//! Lives on: the home core of the user whose roster item it is. Pure: a state and an action in, an `Outcome` out. Serves G1, Z8.
//! Each user's home keeps its own half, and the halves agree because every action is routed, in order, to the other one.
//! Invariants: `to` and `pending_out` are never both set, nor `from` and `pending_in`; nobody becomes `from` without the
//! user's own subscribed, given in answer to a request or in advance.

use std::fmt;

/// How a user stands to one contact, as five independent bits and one that belongs to the roster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub struct State(u8);

impl From<State> for u8 {
    fn from(state: State) -> u8 {
        state.0
    }
}

impl TryFrom<u8> for State {
    type Error = String;
    fn try_from(bits: u8) -> Result<State, String> {
        State::from_bits(bits).ok_or_else(|| format!("{bits:#x} is not a subscription state"))
    }
}

impl State {
    /// "None": no subscription either way.
    pub const NONE: State = State(0);
    /// The user gets the contact's presence.
    pub const TO: State = State(1);
    /// The contact gets the user's presence.
    pub const FROM: State = State(1 << 1);
    /// The user asked and has no answer yet ("ask" in the roster).
    pub const PENDING_OUT: State = State(1 << 2);
    /// The contact asked and has no answer yet. Never shown in the roster.
    pub const PENDING_IN: State = State(1 << 3);
    /// The contact's next request is approved in advance (section 3.4). Holds until the user sends unsubscribed.
    pub const APPROVED: State = State(1 << 4);
    /// The item exists for its request alone and is not in the user's roster. No transition changes it: the roster's owner sets it.
    pub const HIDDEN: State = State(1 << 5);

    /// The contact has blocked the user: it is not watched while that lasts. No transition changes it.
    pub const BARRED: State = State(1 << 6);

    /// There is, or may be, a subscription.
    pub const BOUND: State = State::TO.with(State::FROM).with(State::PENDING_OUT).with(State::PENDING_IN);

    /// What the user's clients are shown of a state.
    const SHOWN: State = State::TO.with(State::FROM).with(State::PENDING_OUT).with(State::APPROVED);

    /// From its stored form. `None`: bits that are not defined, or two that exclude each other.
    pub fn from_bits(bits: u8) -> Option<State> {
        let state = State(bits);
        let both = |a: State, b: State| state.has(a) && state.has(b);
        let sound = bits < 1 << 7 && !both(State::TO, State::PENDING_OUT) && !both(State::FROM, State::PENDING_IN);
        sound.then_some(state)
    }

    /// The part of it that clients are shown.
    pub fn shown(self) -> State {
        State(self.0 & State::SHOWN.0)
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether any of these bits is set.
    pub const fn has(self, bits: State) -> bool {
        self.0 & bits.0 != 0
    }

    #[must_use]
    pub const fn with(self, bits: State) -> State {
        State(self.0 | bits.0)
    }

    #[must_use]
    pub const fn without(self, bits: State) -> State {
        State(self.0 & !bits.0)
    }

    /// Whether the item belongs into the roster that clients see (section 2.1.2.2: not while it is only a request).
    pub fn is_visible(self) -> bool {
        !self.has(State::HIDDEN) || self.has(State::SHOWN)
    }

    /// Whether there's nothing left that the item would have to be kept for, but for having been put into the roster.
    pub fn is_idle(self) -> bool {
        self.without(State::HIDDEN.with(State::BARRED)) == State::NONE
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.has(State::TO), self.has(State::FROM)) {
            (false, false) => "None",
            (true, false) => "To",
            (false, true) => "From",
            (true, true) => "Both",
        };
        f.write_str(name)?;
        let rest = [
            (State::PENDING_OUT, "out"),
            (State::PENDING_IN, "in"),
            (State::APPROVED, "approved"),
            (State::HIDDEN, "hidden"),
            (State::BARRED, "barred"),
        ];
        rest.iter().filter(|(bit, _)| self.has(*bit)).try_for_each(|(_, name)| write!(f, "+{name}"))
    }
}

/// The four subscription stanzas, numbered as in `schemas/native.fbs`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Action {
    /// "Let me have your presence."
    Subscribe = 0,
    /// "You may have my presence", also in advance.
    Subscribed = 1,
    /// "I no longer want your presence."
    Unsubscribe = 2,
    /// "You may not, or no longer, have my presence."
    Unsubscribed = 3,
}

impl Action {
    pub const ALL: [Action; 4] = [Action::Subscribe, Action::Subscribed, Action::Unsubscribe, Action::Unsubscribed];

    pub fn from_number(number: u8) -> Option<Action> {
        Action::ALL.get(usize::from(number)).copied()
    }
}

/// What a transition means for presence itself. At most one of the two directions changes in one transition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// The contact gets the user's presence from now on: send the current one.
    StartFrom,
    /// The contact gets it no longer: send unavailable for every available session.
    StopFrom,
    /// The user gets the contact's presence from now on.
    StartTo,
    /// The user gets it no longer.
    StopTo,
}

/// What a server has to do about one action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub state: State,
    /// Outbound: send the action on to the contact. Inbound: deliver it to the user (for subscribe: now, and at each log-in
    /// until it is answered).
    pub route: bool,
    /// The item changed in what the user's clients see of it: push it.
    pub push: bool,
    /// Answer the contact with this, in the user's name.
    pub reply: Option<Action>,
    /// What follows for presence.
    pub flow: Option<Flow>,
}

impl Outcome {
    fn new(old: State, state: State, route: bool) -> Outcome {
        let flow = match (old.has(State::TO), state.has(State::TO), old.has(State::FROM), state.has(State::FROM)) {
            (false, true, _, _) => Some(Flow::StartTo),
            (true, false, _, _) => Some(Flow::StopTo),
            (_, _, false, true) => Some(Flow::StartFrom),
            (_, _, true, false) => Some(Flow::StopFrom),
            _ => None,
        };
        let unseen = State::PENDING_IN.with(State::HIDDEN).with(State::BARRED);
        Outcome { state, route, push: old.without(unseen) != state.without(unseen), reply: None, flow }
    }
}

/// The user sends an action to the contact (Appendix A.2).
pub fn outbound(old: State, action: Action) -> Outcome {
    match action {
        Action::Subscribe if old.has(State::TO) => Outcome::new(old, old, true),
        Action::Subscribe => Outcome::new(old, old.with(State::PENDING_OUT), true),
        Action::Unsubscribe => Outcome::new(old, old.without(State::TO.with(State::PENDING_OUT)), true),
        Action::Subscribed if old.has(State::PENDING_IN) => {
            Outcome::new(old, old.without(State::PENDING_IN).with(State::FROM), true)
        }
        Action::Subscribed if old.has(State::FROM) => Outcome::new(old, old, false),
        Action::Subscribed => Outcome::new(old, old.with(State::APPROVED), false),
        Action::Unsubscribed => {
            let asked_or_granted = old.has(State::FROM.with(State::PENDING_IN));
            Outcome::new(old, old.without(State::FROM.with(State::PENDING_IN).with(State::APPROVED)), asked_or_granted)
        }
    }
}

/// An action of the contact arrives (Appendix A.3).
pub fn inbound(old: State, action: Action) -> Outcome {
    match action {
        Action::Subscribe if old.has(State::FROM) => Outcome { reply: Some(Action::Subscribed), ..Outcome::new(old, old, false) },
        Action::Subscribe if old.has(State::APPROVED) => {
            let granted = old.without(State::PENDING_IN).with(State::FROM);
            Outcome { reply: Some(Action::Subscribed), ..Outcome::new(old, granted, false) }
        }
        Action::Subscribe => Outcome::new(old, old.with(State::PENDING_IN), !old.has(State::PENDING_IN)),
        Action::Unsubscribe => {
            let ended = State::FROM.with(State::PENDING_IN);
            Outcome::new(old, old.without(ended), old.has(ended))
        }
        Action::Subscribed if old.has(State::PENDING_OUT) => {
            Outcome::new(old, old.without(State::PENDING_OUT).with(State::TO), true)
        }
        Action::Subscribed => Outcome::new(old, old, false),
        Action::Unsubscribed => {
            let ended = State::TO.with(State::PENDING_OUT);
            Outcome::new(old, old.without(ended), old.has(ended))
        }
    }
}

/// An answer of the contact arrives that was given before the user's latest subscribe reached the contact. The stanzas do not say
/// what they answer, so it is taken for what it was: out of date. The answer to the latest one follows.
pub fn overtaken(old: State, action: Action) -> Outcome {
    match action {
        Action::Unsubscribed if old.has(State::TO) => Outcome::new(old, old.without(State::TO).with(State::PENDING_OUT), false),
        Action::Subscribed | Action::Unsubscribed => Outcome::new(old, old, false),
        Action::Subscribe | Action::Unsubscribe => inbound(old, action),
    }
}

/// What the removal of a roster item entails (section 2.5). The item is gone afterwards; a request that waited is denied,
/// because nothing would be left to keep it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removal {
    /// Send unsubscribe to the contact: the user got, or asked for, its presence.
    pub unsubscribe: bool,
    /// Send unsubscribed to the contact: it got, or asked for, the user's presence.
    pub unsubscribed: bool,
    /// The user gets the contact's presence no longer.
    pub stop_to: bool,
    /// The contact gets the user's presence no longer: send unavailable.
    pub stop_from: bool,
}

/// The user removes the contact from the roster.
pub fn removed(old: State) -> Removal {
    Removal {
        unsubscribe: old.has(State::TO.with(State::PENDING_OUT)),
        unsubscribed: old.has(State::FROM.with(State::PENDING_IN)),
        stop_to: old.has(State::TO),
        stop_from: old.has(State::FROM),
    }
}
