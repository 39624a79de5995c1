//! Who owns which users, as this core is told; and what is for users of slots that nobody owns yet, or not that this core knew.
//!
//! Lives on: every core of a cluster's node. Serves Z4, M1. What is for such a slot waits here, and the slot is asked for; once it
//! has an owner all goes there, in its order. Invariants: nobody comes into being where no owner is; what waits is refused in the
//! end, and what can't be, because nobody waits for it, is made good when the owners are known.

use super::Shard;
use crate::base::id::NodeId;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Asker, Control, SessionEvent};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What may wait for owners, on one core. At the limit: refused, `home_out_of_reach`.
const WAITING: usize = 16_384;

/// What a core says to the thread that keeps the table.
#[derive(Debug)]
pub enum Word {
    /// Another node's thread said this to it.
    Heard { from: NodeId, bytes: Vec<u8> },
    /// From now on another node's thread can be spoken to.
    Met(NodeId),
    /// These slots have no owner.
    Wanted(BTreeSet<u16>),
}

/// What waits for owners.
#[derive(Default)]
pub(super) struct Waiting {
    /// Until when, in order.
    controls: VecDeque<(Time, Control)>,
    /// Slots that have been asked for.
    wanted: BTreeSet<u16>,
    /// Something that nobody waits for was given up.
    missed: bool,
}

impl Shard {
    /// From now on these own the slots.
    pub(super) fn set_owners(&mut self, now: Time, owners: Arc<[NodeId]>) {
        self.out.map.set_owners(owners);
        let (waiting, map) = (std::mem::take(&mut self.waiting.controls), self.out.map.clone());
        self.waiting.wanted.retain(|&slot| !map.is_owned(slot));
        for (until, control) in waiting {
            match control.slot().filter(|&slot| map.is_owned(slot)) {
                Some(slot) => self.out.send(map.home_of_slot(slot), control),
                None => self.waiting.controls.push_back((until, control)),
            }
        }
        if std::mem::take(&mut self.waiting.missed) {
            let Shard { homes, out, .. } = self;
            homes.relays.ask_again(|_| true, out);
            let nodes: Vec<NodeId> = out.peers.keys().copied().chain([map.here.node]).collect();
            nodes.into_iter().for_each(|node| homes.ways_again(node, out));
        }
        self.work_off(now);
    }

    /// Takes in what is for a slot without an owner. Gives it back otherwise, or when too much waits.
    pub(super) fn put_by(&mut self, now: Time, control: Control) -> Option<Control> {
        let Some(slot) = control.slot().filter(|&slot| !self.out.map.is_owned(slot)) else { return Some(control) };
        if self.waiting.controls.len() >= WAITING {
            return Some(control);
        }
        if self.waiting.wanted.insert(slot) {
            self.want(slot);
        }
        let until = now + Duration::from_millis(self.settings.limits.log_in_ms.into());
        self.waiting.controls.push_back((until, control));
        None
    }

    fn want(&mut self, slot: u16) {
        match self.words.last_mut() {
            Some(Word::Wanted(slots)) => _ = slots.insert(slot),
            _ => self.words.push(Word::Wanted(BTreeSet::from([slot]))),
        }
    }

    /// What came from elsewhere for a user of this core, or so it was thought there.
    pub(super) fn control_from_elsewhere(&mut self, now: Time, control: Control) {
        match self.put_by(now, control) {
            Some(control) if control.slot().is_none_or(|slot| self.out.map.home_of_slot(slot).node == self.out.map.here.node) => {
                self.control(now, control);
            }
            Some(control) => self.give_up(control),
            None => {}
        }
    }

    /// Refuses what has waited for too long. Gives when to look again.
    pub(super) fn end_waiting(&mut self, now: Time) -> Option<Time> {
        while let Some((_, control)) = self.waiting.controls.pop_front_if(|(until, _)| *until <= now) {
            if let Some(slot) = control.slot() {
                self.waiting.wanted.remove(&slot);
            }
            self.give_up(control);
        }
        self.waiting.controls.front().map(|(until, _)| *until)
    }

    /// Tells whoever waits for it that the user's home can't be reached.
    pub(super) fn give_up(&mut self, control: Control) {
        let reason = Reason::HomeOutOfReach;
        let asker = match &control {
            Control::Errand(errand) => {
                return errand.caller.refuse(reason, format!("{}: {}", errand.jid, reason.text()), &mut self.out);
            }
            Control::Attach(attach) => attach.asker,
            Control::Resume(resume) => resume.asker,
            Control::Update { update, .. } => update.asker,
            Control::Ask { asker, .. } => *asker,
            Control::Message(message) => message.asker,
            Control::Question(question) => question.asker,
            // Ways are kept until their receiver says that they have arrived; all else is made good when the home can be reached.
            _ => return self.waiting.missed = true,
        };
        let Asker { edge, request } = asker;
        if request != 0 {
            self.out.tell(edge, SessionEvent::Error { request, reason, detail: String::new() });
        }
    }
}
