//! What a session is told of its own requests.
//!
//! Lives on: the user's home core. Invariant: nothing is changed here.

use crate::base::reason::Reason;
use crate::presence::control::{Asker, SessionEvent};
use crate::presence::outbox::Outbox;

/// Tells whoever asked.
pub(super) fn tell(asker: Asker, event: SessionEvent, out: &mut Outbox) {
    out.tell(asker.edge, event);
}

/// Its request failed.
pub(super) fn refuse(asker: Asker, reason: Reason, detail: impl Into<String>, out: &mut Outbox) {
    tell(asker, SessionEvent::Error { request: asker.request, reason, detail: detail.into() }, out);
}

/// Its request was carried out, if it wants to know.
pub(super) fn done(asker: Asker, out: &mut Outbox) {
    if asker.request != 0 {
        tell(asker, SessionEvent::Done { request: asker.request }, out);
    }
}
