//! Who owns which users, as this core is told; and what waits until it's known, or until a slot has an owner.
//!
//! Lives on: every core of a cluster's node. Serves Z4, M1. Slots that nobody owns are looked after by their steward, the node that
//! keeps the table: there are no users in them, and no names of a directory. Who is to come into being there, and what name is to
//! be settled, waits at the steward until the slot has an owner, and goes there. Invariants: nobody comes into being where no owner
//! is; what was sent to where a slot was before goes on to where it is, and a log-in once more to the owner that comes after that
//! one; what waits is refused in the end, and what can't be, because nobody waits for it, is made good when the owners are known.

use super::{Shard, border};
use crate::base::id::{NodeId, Seat, UserId, slot_of};
use crate::base::map::{Map, Slots};
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::border::Crossing;
use crate::presence::control::{Asker, Control, SessionEvent};
use crate::presence::errand::What;
use crate::store::Table;
use crate::store::rows::slot_of_key;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What may wait, on one core, and as much that was passed on. At the limit: refused, `home_out_of_reach`, or passed on for good.
const WAITING: usize = 16_384;

/// Table, key, value.
pub type Row = (Table, Vec<u8>, Vec<u8>);

/// What a core says to the thread that keeps the table.
#[derive(Debug)]
pub enum Word {
    /// Another node's thread said this to it.
    Heard { from: NodeId, bytes: Vec<u8> },
    /// From now on another node's thread can be spoken to.
    Met(NodeId),
    /// These slots have no owner.
    Wanted(BTreeSet<u16>),
    /// What this core was told to take or give up, it has.
    CaughtUp,
    /// A row that is to be loaded can't be: the slot stays closed.
    Unreadable { slot: u16, why: String },
}

/// What waits for owners.
#[derive(Default)]
pub(super) struct Waiting {
    /// Until when, in order.
    controls: VecDeque<(Time, Control)>,
    /// Log-ins that were passed on to an owner, and until when it's looked whether that stays one; in order.
    passed_on: VecDeque<(Time, Control)>,
    /// Who looks after slots without owners, whether this core has found it or not.
    steward: NodeId,
    /// Slots that have been asked for.
    wanted: BTreeSet<u16>,
    /// Something that nobody waits for was given up.
    missed: bool,
    /// What found no room, and what waited in vain.
    pub refused: u64,
    pub given_up: u64,
}

impl Waiting {
    pub fn count(&self) -> usize {
        self.controls.len()
    }
}

impl Shard {
    /// From now on these own the slots, and this node looks after the others.
    pub(super) fn set_owners(&mut self, now: Time, owners: Arc<[NodeId]>, steward: NodeId) {
        // What was loaded has set out already, and waits for this.
        self.give_back(now);
        let before = self.out.map.clone();
        self.out.map.set_owners(owners);
        self.waiting.steward = steward;
        self.go_by_steward();
        let map = self.out.map.clone();
        self.waiting.wanted.retain(|&slot| !map.is_owned(slot));
        let gained = map.gained_since(&before);
        self.homes.arrive(now, &mut self.edge, &mut self.out);
        self.clusters_loaded(now);
        self.send_waiting();
        self.send_again(&before);
        let Shard { homes, out, waiting, .. } = self;
        let missed = std::mem::take(&mut waiting.missed);
        let moves = |user: UserId| before.home(user).node != map.home(user).node;
        homes.relays.ask_again(|user| missed || map.is_known(user.slot()) && moves(user), out);
        let nodes: BTreeSet<NodeId> = match missed {
            true => out.peers.keys().copied().chain([map.here.node]).collect(),
            false => gained.clone(),
        };
        for node in nodes {
            homes.ways_again(node, out);
            homes.documents_again(node, out);
        }
        // Of a slot that has an owner, the users' sessions stay behind with the one before.
        let has_gone = |user: UserId| before.is_owned(user.slot()) && moves(user);
        for session in self.edge.sessions_of_homes(has_gone) {
            self.session_ended(session, Reason::HomeOutOfReach);
        }
        if gained.contains(&map.here.node) {
            self.tell_of_homes(map.here.node, false);
        }
        self.work_off(now);
    }

    /// The steward is another node that this core has found now.
    pub(super) fn steward_found(&mut self, node: NodeId) {
        if self.waiting.steward == node {
            self.go_by_steward();
            self.send_waiting();
        }
    }

    /// One that this core has not found yet can't be told anything: what is for slots without owners waits. The thread that
    /// speaks of owners hears of other nodes by whichever core found them first.
    fn go_by_steward(&mut self) {
        let Shard { waiting, out, .. } = self;
        let is_found = waiting.steward == out.map.here.node || out.peers.get(&waiting.steward).is_some_and(|peer| peer.found);
        out.map.set_steward(if is_found { waiting.steward } else { NodeId::default() });
    }

    /// What waits goes on if it's known where to. A node that has not been found yet may still take what it's told now for a part
    /// of the life that it takes for lost.
    fn send_waiting(&mut self) {
        for (until, control) in std::mem::take(&mut self.waiting.controls) {
            let slot = control.slot().filter(|&slot| self.out.map.is_known(slot) && !self.comes_too_early(&control));
            match slot.map(|slot| self.out.map.home_of_slot(slot)) {
                Some(home) if self.out.refusal(home) == Some(Reason::HomeOutOfReach) => self.give_up_control(control),
                Some(home) => self.out.send(home, control),
                None => self.waiting.controls.push_back((until, control)),
            }
        }
    }

    /// What was passed on to an owner that was none any more, though nobody here knew, goes to the next one. If the first one has
    /// answered before it was lost, this is the second answer, and nobody waits for it.
    fn send_again(&mut self, before: &Map) {
        for (until, control) in std::mem::take(&mut self.waiting.passed_on) {
            let owners = control.slot().map(|slot| (before.home_of_slot(slot).node, self.out.map.home_of_slot(slot)));
            match owners {
                Some((was, is)) if was != is.node => self.out.send(is, control),
                _ => self.waiting.passed_on.push_back((until, control)),
            }
        }
    }

    /// Rows of users who are to live here, as another node has left them.
    pub(super) fn take_users(&mut self, now: Time, epoch: u32, rows: Vec<Row>) {
        self.homes.begin_epoch(epoch);
        if rows.iter().any(|(table, ..)| *table == Table::Accounts) {
            self.homes.settle_all_anew();
            self.homes.look_for_forgotten();
        }
        for (table, key, value) in rows {
            if let Err(why) = self.load(table, &key, &value) {
                self.words.push(Word::Unreadable { slot: slot_of_key(table, &key).unwrap_or_default(), why });
            }
        }
        self.words.push(Word::CaughtUp);
        self.work_off(now);
    }

    /// This node has these slots no longer, or what it has loaded of their users is void.
    pub(super) fn give_up_slots(&mut self, now: Time, slots: &Slots, reason: Reason) {
        self.out.map.close(slots);
        self.homes.release(now, slots, reason, &mut self.edge, &mut self.out);
        self.numbers_go(slots);
        self.words.push(Word::CaughtUp);
        self.work_off(now);
    }

    /// The owner of these slots has begun anew: what it was asked is asked again.
    pub(super) fn began_anew(&mut self, now: Time, slots: &Slots) {
        self.homes.relays.ask_again(|user| slots.has(user.slot()), &mut self.out);
        self.work_off(now);
    }

    /// Whether somebody would come into being, or the directory would keep something, in a slot that nobody owns.
    pub(super) fn comes_too_early(&self, control: &Control) -> bool {
        let jid = match control {
            Control::Number(_) => return control.slot().is_some_and(|slot| !self.out.map.is_owned(slot)),
            Control::Attach(attach) if attach.create => &attach.jid,
            Control::Errand(errand) if matches!(errand.what, What::Create(_)) => &errand.jid,
            Control::Directory(inquiry) => match inquiry.settles() {
                Some(jid) => jid,
                None => return false,
            },
            _ => return false,
        };
        !self.out.map.is_owned(slot_of(jid.as_str())) && self.homes.by_name(jid).is_none()
    }

    /// What can't be sent or done waits until more is known, or is refused.
    pub(super) fn wait_for_owner(&mut self, now: Time, control: Control) {
        let is_early = self.comes_too_early(&control);
        let Some(slot) = control.slot().filter(|_| self.waiting.controls.len() < WAITING) else {
            self.waiting.refused += 1;
            return self.give_up_control(control);
        };
        if is_early && self.waiting.wanted.insert(slot) {
            self.want(slot);
        }
        self.waiting.controls.push_back((self.waits_until(now), control));
    }

    fn want(&mut self, slot: u16) {
        match self.words.last_mut() {
            Some(Word::Wanted(slots)) => _ = slots.insert(slot),
            _ => self.words.push(Word::Wanted(BTreeSet::from([slot]))),
        }
    }

    /// What came from elsewhere for a user of this core, or so it was thought there: it goes on to the owner, or waits until this
    /// core knows of that, too.
    pub(super) fn control_from_elsewhere(&mut self, now: Time, control: Control) {
        let map = &self.out.map;
        let slot = control.slot().filter(|&slot| map.home_of_slot(slot).node != map.here.node);
        match slot {
            None => self.control(now, control),
            Some(slot) if map.is_owned(slot) => self.pass_on(now, map.home_of_slot(slot), control),
            Some(_) => self.wait_for_owner(now, control),
        }
    }

    /// Whoever sent this either has not heard yet that another node is the owner, or has heard already that it is one no more, and
    /// this node is to be. Nobody but this core would notice then that a log-in was lost with that node.
    fn pass_on(&mut self, now: Time, owner: Seat, control: Control) {
        if let Some(copy) = log_in(&control) {
            match self.waiting.passed_on.len() < WAITING {
                true => self.waiting.passed_on.push_back((self.waits_until(now), copy)),
                false => self.waiting.refused += 1,
            }
        }
        self.out.send(owner, control);
    }

    fn waits_until(&self, now: Time) -> Time {
        now + Duration::from_millis(self.settings.limits.log_in_ms.into())
    }

    /// Refuses what has waited for too long. Gives when to look again.
    pub(super) fn end_waiting(&mut self, now: Time) -> Option<Time> {
        while self.waiting.passed_on.pop_front_if(|(until, _)| *until <= now).is_some() {}
        while let Some((_, control)) = self.waiting.controls.pop_front_if(|(until, _)| *until <= now) {
            if let Some(slot) = control.slot() {
                self.waiting.wanted.remove(&slot);
                if self.out.map.is_coming(slot) && matches!(control, Control::Watch { .. }) {
                    // Nobody asks again.
                    self.wait_for_owner(now, control);
                    continue;
                }
            }
            self.waiting.given_up += 1;
            self.give_up_control(control);
        }
        let Waiting { controls, passed_on, .. } = &self.waiting;
        [controls.front(), passed_on.front()].into_iter().flatten().map(|(until, _)| *until).min()
    }

    /// Tells whoever waits for it that the user's home can't be reached.
    pub(super) fn give_up_control(&mut self, control: Control) {
        let reason = Reason::HomeOutOfReach;
        let asker = match &control {
            Control::Errand(errand) => {
                return errand.caller.refuse(reason, format!("{}: {}", errand.jid, reason.text()), &mut self.out);
            }
            Control::Survey(survey) => {
                return survey.caller.refuse(reason, reason.text().to_owned(), &mut self.out);
            }
            Control::Attach(attach) => attach.asker,
            Control::Resume(resume) => resume.asker,
            Control::Update { update, .. } => update.asker,
            Control::Ask { asker, .. } => *asker,
            Control::Message(message) => message.asker,
            Control::Question(question) => question.asker,
            Control::Entered(entered) => match (&entered.crossing, entered.crossing.asker(entered.cluster)) {
                (Crossing::Compare { place, number, known }, _) => {
                    return border::cannot_compare(entered.cluster, (*place, *number), known, &mut self.out);
                }
                (_, Some(asker)) => asker,
                _ => return,
            },
            // Whoever has heard nothing of the directory asks again.
            Control::Directory(_) | Control::Number(_) => return,
            // Ways are kept until their receiver says that they have arrived; all else is made good when the home can be reached.
            _ => return self.waiting.missed = true,
        };
        let Asker { edge, request } = asker;
        if request != 0 || edge.seat.node.cluster().is_some() {
            self.out.tell(edge, SessionEvent::Error { request, reason, detail: String::new() });
        }
    }
}

/// The same once more, if it's a step of a log-in. What a session asks ends with the session, when its home is lost.
fn log_in(control: &Control) -> Option<Control> {
    match control {
        Control::Attach(attach) => Some(Control::Attach(attach.clone())),
        Control::Resume(resume) => Some(Control::Resume(resume.clone())),
        Control::Errand(errand) if matches!(errand.what, What::Keys | What::Check(_) | What::Issue { .. }) => {
            Some(Control::Errand(errand.clone()))
        }
        _ => None,
    }
}
