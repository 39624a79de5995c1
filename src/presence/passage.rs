//! What cores say to each other as bytes, for a core of another node of the cluster.
//!
//! Lives on: every core, at the end of a link. Serves M2, M4, G4. Invariants: what was encoded decodes to the same; other bytes
//! give an error, never a panic, and never a value that the code behind takes for one that was verified where it came in: JIDs
//! are prepared, presence is a sound flatbuffer, event frames are whole.

use super::control::Control;
use crate::wire::presence;

/// Bytes that no core of this version has said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what the other node says can't be read: both must be of the same version")]
pub struct BadPassage;

/// Appends an entry.
pub fn encode(control: &Control, into: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(control, into).expect("entries are plain values, and memory takes them all")
}

/// Reads an entry.
///
/// # Errors
/// It is not one.
pub fn decode(bytes: &[u8]) -> Result<Control, BadPassage> {
    let (control, rest) = postcard::take_from_bytes(bytes).map_err(|_| BadPassage)?;
    if rest.is_empty() && is_sound(&control) { Ok(control) } else { Err(BadPassage) }
}

/// Whether the presence in it is what the code behind takes for granted.
fn is_sound(control: &Control) -> bool {
    let sound = |bytes: &[u8]| presence::read(bytes).is_ok();
    match control {
        Control::Update { update, .. } => sound(&update.presence),
        Control::Attach(attach) => attach.presence.is_empty() || sound(&attach.presence),
        Control::Directed(directed) => sound(&directed.presence),
        Control::Entered(entered) => match &entered.crossing {
            super::border::Crossing::Directed(directed) => sound(&directed.presence),
            _ => true,
        },
        Control::ToSession { event: super::control::SessionEvent::Directed(directed), .. } => sound(&directed.presence),
        Control::Ask { ask, .. } => match &**ask {
            super::control::Ask::Directed { presence, .. } => sound(presence),
            _ => true,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hashed::Outcome;
    use crate::base::id::{CoreId, NodeId, Seat, SessionId, UserId, Version};
    use crate::base::jid::Bare;
    use crate::presence::control::{Ask, Asker, Attach, EdgeRef, Note, SessionEvent, Snapshot, Update, UserRef, Way, WayKind};
    use crate::presence::errand::{Answer, Caller, Errand, What, Who};
    use crate::presence::frame::{self, Events};
    use crate::presence::subscription::Action;
    use crate::wire::encode::{Encoder, PresenceFields};
    use crate::wire::event::Head;
    use crate::wire::native::Show;
    use proptest::prelude::*;

    fn presence() -> Vec<u8> {
        Encoder::default().presence(&PresenceFields { resource: "desk", show: Show::Away, ..Default::default() })
    }

    fn controls() -> Vec<Control> {
        let edge = EdgeRef { seat: Seat { node: NodeId(2), core: CoreId(1) }, slot: 7, generation: 9 };
        let (asker, at) = (Asker { edge, request: 3 }, UserRef { user: UserId::new(1, 5, 8), slot: 2 });
        let (ann, bob) = (Bare::new("ann@d").unwrap(), Bare::new("bob@d").unwrap());
        let version = Version { epoch: 1, sequence: 4 };
        let head = Head { user: at.user, version, session: SessionId(1), show: Show::Away, flags: 0 };
        let (events, note) = (Events::of(head, &presence()), Note::new("hello"));
        let kind = WayKind::Stanza(Action::Subscribe);
        let way = Way {
            from: ann.clone(),
            from_user: at.user,
            to: bob.clone(),
            to_user: UserId::NOBODY,
            kind,
            note,
            sequence: 11,
            cluster: 0,
            knows: vec![(2, 7)],
        };
        let (publisher, subscriber) = (at.user, UserId(4));
        let attach = Attach { jid: ann.clone(), resource: "r".into(), create: true, asker, data: vec![1], presence: presence() };
        let session = SessionId(1);
        let caller = Caller { seat: edge.seat, who: Who::Client { slot: 1, generation: 2, nonce: 3 } };
        let what = What::Issue { client: "telescope".into(), bound: true };
        vec![
            Control::Way(Box::new(way)),
            Control::Attach(Box::new(attach)),
            Control::Update { at, session, update: Box::new(Update { presence: presence(), asker }) },
            Control::Ask { at, session, asker, ask: Box::new(Ask::Probe { publisher: bob.clone() }) },
            Control::Snapshot(Box::new(Snapshot {
                publisher,
                jid: ann,
                subscriber,
                slot: 1,
                nonce: 2,
                events: events.clone(),
                behind: 0,
                revoked: vec![],
            })),
            Control::ToSession { edge, event: SessionEvent::Events(events) },
            Control::Errand(Box::new(Errand { jid: bob, caller, what })),
            Control::Answered { who: caller.who, answer: Answer::Checked(Outcome::Good { answer: vec![3], due: true }) },
        ]
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same() {
        for control in controls() {
            let bytes = encode(&control, Vec::new());
            assert_eq!(format!("{:?}", decode(&bytes).unwrap()), format!("{control:?}"));
            assert!(decode(&[&bytes[..], &[0]].concat()).is_err(), "something stands behind it");
        }
    }

    proptest! {
        #[test]
        fn changed_bytes_never_make_unverified_presence(
            which in 0usize..8,
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = encode(&controls()[which], Vec::new());
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            match decode(&bytes) {
                Ok(Control::Update { update, .. }) => prop_assert!(presence::read(&update.presence).is_ok()),
                Ok(Control::Snapshot(snapshot)) => snapshot.events.iter().for_each(|event| _ = frame::event(event)),
                _ => {}
            }
        }
    }
}
