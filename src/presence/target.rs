//! Whose home something is for, wherever that is.

use super::control::Control;
use super::directory::Numbering;
use crate::base::id::slot_of;
use crate::base::jid::Bare;
use crate::store::rows::CLUSTERS_SLOT;

impl Control {
    /// The slot of the user whose home it is for; `None`: it's for an edge, for the users of one core, or may be for a relay.
    pub fn slot(&self) -> Option<u16> {
        let of = |jid: &Bare| Some(slot_of(jid.as_str()));
        match self {
            Control::Errand(errand) => of(&errand.jid),
            Control::Attach(attach) => of(&attach.jid),
            Control::Resume(resume) => of(&resume.jid),
            Control::Detach { at, .. } | Control::Update { at, .. } | Control::Ask { at, .. } => Some(at.user.slot()),
            Control::Way(way) => of(&way.to),
            Control::WayDone(arrival) | Control::WayConfirmed(arrival) => of(&arrival.name.from),
            Control::WayAgain(name) | Control::WayInVain(name) => of(&name.from),
            Control::Astray(astray) => of(&astray.jid),
            Control::WayForgotten(name) | Control::WayArrived { name, .. } => of(&name.to),
            Control::Message(message) => of(&message.to),
            Control::Question(question) => of(&question.about),
            Control::Fetch(fetch) => Some(fetch.publisher.slot()),
            Control::Fetched(fetched) => of(&fetched.fetch.from),
            Control::Directed(directed) => of(&directed.to),
            Control::Directory(inquiry) => inquiry.home().and_then(of),
            Control::Number(said) => matches!(**said, Numbering::Claim { .. }).then_some(CLUSTERS_SLOT),
            Control::Watch { .. }
            | Control::Compare(_)
            | Control::Compared { .. }
            | Control::Unwatch { .. }
            | Control::Obtain { .. }
            | Control::Attention { .. }
            | Control::News(_)
            | Control::Answered { .. }
            | Control::Attached(_)
            | Control::Interest { .. }
            | Control::Uninterest { .. }
            | Control::UninterestAll { .. }
            | Control::Snapshot(_)
            | Control::Refused { .. }
            | Control::Revoke { .. }
            | Control::ToSession { .. }
            | Control::Entered(_)
            | Control::Reply { .. }
            | Control::Missed { .. }
            | Control::WaysAgain { .. }
            | Control::Lapsed(_)
            | Control::Survey(_) => None,
        }
    }
}
