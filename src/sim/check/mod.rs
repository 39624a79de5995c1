//! What must hold, whatever happens: one file for each invariant of design.md section 5.
//!
//! Lives on: the simulator. Some watch every step (`approvals`, `once`, `messages`, and the clients' own versions), some look when
//! all is still (`converged`, `gentle`, `kept`, `released`).

pub mod approvals;
pub mod converged;
pub mod gentle;
pub mod kept;
pub mod messages;
pub mod once;
pub mod released;

use std::fmt;

/// The invariants, named by what they say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub enum Check {
    NobodyUnapprovedReceives,
    EverybodyKnowsTheFinalState,
    OneUpdatePerBoundary,
    NothingAcknowledgedIsLost,
    EachMessageArrivesOrReturns,
    EverythingIsReturned,
    VersionsOnlyGrow,
    /// However a session went, by its own word or with its node: who was told so is not told it again, unless an approval or a
    /// subscription ended as well.
    NobodyGoesTwice,
    EveryRequestIsAnswered,
    FramesAreSound,
    ShortBreaksGoUnnoticed,
    AllComesToRest,
    NothingPanics,
}

/// What broke.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Broken {
    pub check: Check,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.what)
    }
}

pub type Held = Result<(), Broken>;

impl Check {
    /// Breaks unless `holds`.
    pub fn holds(self, holds: bool, what: impl FnOnce() -> String) -> Held {
        if holds { Ok(()) } else { Err(Broken { check: self, what: what() }) }
    }
}

/// Everything the checks remember of a run.
#[derive(Default)]
pub struct Memories {
    pub approvals: approvals::Approvals,
    pub crossings: once::Crossings,
    pub post: messages::Post,
    pub wishes: kept::Wishes,
}
