//! What goes to other clusters and comes from them: each thing classified, what may wait gathered into complex messages.
//!
//! Lives on: every core of a node that has links. Serves Z5, Z9, Z10, Z11, Z12, M4. Invariants: what is real-time goes at once,
//! whatever waits; what waits and is no update keeps its order, and nothing that takes a right away gets ahead of it; what comes in
//! a complex message is taken as if it had come alone.

use super::{Lane, Shard, word};
use crate::base::id::{NodeId, UserId};
use crate::base::time::Time;
use crate::link::classify::{Faces, Matter};
use crate::link::gather::{Gather, GatherCounters};
use crate::link::{Machine, Refused};
use crate::presence::border;
use crate::presence::control::{Control, WayKind};
use crate::presence::frame::{self, Events};
use crate::presence::outbox::Parcel;
use crate::presence::passage::BadPassage;
use crate::presence::subscription::Action;
use crate::shard::EXPECTED;
use crate::wire::complex::{Packer, Unpacker};
use ahash::RandomState;
use std::collections::{BTreeMap, HashSet};

/// What waits for one cluster, and what it was told last.
struct Crossing {
    gather: Gather,
    faces: Faces,
    /// Users of this core whom it watches and nobody there looks at.
    unheeded: HashSet<UserId, RandomState>,
}

#[derive(Default)]
pub(super) struct Crossings {
    /// By cluster; only where something may wait at all.
    waiting: BTreeMap<u16, Crossing>,
    packer: Option<Packer>,
    unpacker: Option<Unpacker>,
    updates: u64,
    entries: u64,
    inactive: u64,
    received: u64,
}

/// What went across, and came, as the core counts it.
#[derive(Default)]
pub struct Crossed {
    /// At once: updates, and everything else.
    pub updates: u64,
    pub entries: u64,
    /// Updates that wait because nobody there is active.
    pub inactive: u64,
    /// Complex messages.
    pub received: u64,
    pub gathered: GatherCounters,
}

impl Crossings {
    /// A cluster is gone, and with it what waited for it.
    pub fn forget(&mut self, cluster: u16) {
        if let Some(crossing) = self.waiting.get_mut(&cluster) {
            crossing.gather.clear();
            crossing.faces.clear();
            crossing.unheeded.clear();
        }
    }

    /// Somebody of a cluster looks at a publisher.
    pub fn heed(&mut self, cluster: u16, publisher: UserId) {
        if let Some(crossing) = self.waiting.get_mut(&cluster) {
            crossing.unheeded.remove(&publisher);
        }
    }
}

/// What an entry is about.
fn matter_of(control: &Control) -> Matter {
    match control {
        Control::Way(way) => match way.kind {
            WayKind::Stanza(Action::Subscribe | Action::Subscribed) => Matter::Subscription,
            _ => Matter::Revocation,
        },
        Control::WayDone(_) | Control::WayForgotten(_) | Control::WayArrived { .. } => Matter::Subscription,
        Control::Revoke { .. } => Matter::Revocation,
        Control::Message(_) | Control::Directed(_) => Matter::Message,
        Control::Question(_) | Control::News(_) | Control::Fetch(_) | Control::Fetched(_) => Matter::Question,
        Control::ToSession { .. } => Matter::Question,
        Control::Watch { .. } | Control::Unwatch { .. } | Control::Obtain { .. } | Control::Attention { .. } => Matter::Interest,
        Control::Snapshot(_) | Control::Refused { .. } => Matter::Interest,
        Control::Compare(_) | Control::Compared { .. } => Matter::Interest,
        _ => Matter::Directory,
    }
}

impl Shard {
    /// Sends what there is for another cluster, by the node that is used. Gives when something that waits can wait no longer.
    pub(super) fn send_across(
        &mut self,
        now: Time,
        cluster: u16,
        taken: Option<(Vec<Parcel>, Vec<u8>)>,
        machine: &mut Machine,
    ) -> Option<Time> {
        let mut crossing = self.crossing(cluster);
        let (parcels, updates) = taken.unwrap_or_default();
        let mut rest = &updates[..];
        for parcel in parcels {
            match parcel {
                Parcel::Control(_, control) => self.cross(now, cluster, control, crossing.as_mut(), machine),
                Parcel::Updates(bytes) => {
                    let (run, behind) = rest.split_at(bytes);
                    rest = behind;
                    self.cross_updates(now, cluster, run, crossing.as_mut(), machine);
                }
            }
        }
        let mut crossing = crossing?;
        if crossing.gather.is_due(now) {
            self.send_gathered(&mut crossing.gather, machine);
        }
        let next = Some(crossing.gather.deadline()).filter(|&deadline| deadline > now && deadline < Time::MAX);
        self.links.crossings.waiting.insert(cluster, crossing);
        next
    }

    /// What went across, and came.
    pub fn crossings(&self) -> Crossed {
        let Crossings { updates, entries, inactive, received, .. } = self.links.crossings;
        let mut gathered = GatherCounters::default();
        self.links.crossings.waiting.values().for_each(|crossing| gathered.add(crossing.gather.counters()));
        Crossed { updates, entries, inactive, received, gathered }
    }

    /// A cluster says whether anybody there looks at a publisher of this core.
    pub(in crate::shard) fn attention_of(&mut self, cluster: u16, publisher: UserId, active: bool) {
        if !active && !self.homes.is_watched_at(publisher, NodeId::of_cluster(cluster)) {
            self.gateway.counters.refused += 1;
            return;
        }
        let Some(mut crossing) = self.crossing(cluster) else { return };
        match active {
            true => crossing.unheeded.remove(&publisher),
            false => crossing.unheeded.insert(publisher),
        };
        self.links.crossings.waiting.insert(cluster, crossing);
    }

    /// What waits for a cluster, out of its place while it is worked with; `None`: nothing ever waits here.
    fn crossing(&mut self, cluster: u16) -> Option<Crossing> {
        let between = self.settings.links.as_ref()?.between.as_ref().filter(|between| between.policy.is_patient())?;
        let known = self.links.crossings.waiting.remove(&cluster);
        Some(known.unwrap_or_else(|| {
            let hasher = RandomState::with_seeds(u64::from(cluster), between.own.identity, 1, 2);
            Crossing {
                gather: Gather::new(&between.link, hasher.clone()),
                faces: Faces::new(hasher.clone()),
                unheeded: HashSet::with_hasher(hasher),
            }
        }))
    }

    fn is_real_time(&self, matter: Matter) -> bool {
        self.terms().between.as_ref().is_none_or(|between| between.policy.class(matter).is_real_time)
    }

    /// Whether an update is real-time for a cluster.
    fn must_go(&mut self, change: Matter, publisher: UserId, unheeded: &HashSet<UserId, RandomState>) -> bool {
        let Some(policy) = self.terms().between.as_ref().map(|between| between.policy) else { return true };
        let must_go = policy.class_of_update(change, !unheeded.contains(&publisher)).is_real_time;
        self.links.crossings.inactive += u64::from(!must_go && policy.class(change).is_real_time);
        must_go
    }

    fn cross_at_once(&mut self, entry: &[u8], machine: &mut Machine) {
        self.links.crossings.entries += 1;
        self.must_send(entry, machine);
    }

    fn cross(&mut self, now: Time, cluster: u16, control: Control, crossing: Option<&mut Crossing>, machine: &mut Machine) {
        let matter = matter_of(&control);
        let mut crossing = crossing;
        if let (Control::Snapshot(snapshot), Some(Crossing { faces, .. })) = (&control, &mut crossing) {
            let events = snapshot.events.iter().map(|event| (frame::head(event), frame::event(event).presence));
            events.for_each(|(head, presence)| _ = faces.change(head, presence));
        }
        let Some(entry) = border::encode(control, cluster, word::CROSSING.to_le_bytes().to_vec()) else { return };
        let Some(Crossing { gather, .. }) = crossing else { return self.cross_at_once(&entry, machine) };
        if self.is_real_time(matter) {
            // What takes a right away must not come before what gave it, which may wait.
            if matter == Matter::Revocation && !gather.is_empty() {
                self.send_gathered(gather, machine);
            }
            self.cross_at_once(&entry, machine);
        } else if !gather.other(now, &entry) {
            self.send_gathered(gather, machine);
            if !gather.other(now, &entry) {
                self.cross_at_once(&entry, machine);
            }
        }
    }

    fn cross_updates(&mut self, now: Time, cluster: u16, run: &[u8], crossing: Option<&mut Crossing>, machine: &mut Machine) {
        let node = NodeId::of_cluster(cluster);
        let Some(Crossing { gather, faces, unheeded }) = crossing else {
            return self.update_at_once(node, run, machine);
        };
        let (mut at_once, mut ahead) = (Vec::new(), frame::frames(run));
        for (number, update) in frame::frames(run).enumerate() {
            if number % EXPECTED == 0 {
                faces.expect(ahead.by_ref().take(EXPECTED).map(frame::head));
            }
            let head = frame::head(update);
            if !gather.yields_to(&head) {
                self.send_gathered(gather, machine);
            }
            // A long one goes because it was asked for.
            if !gather.yields_to(&head) {
                self.homes.put_off_for(node, update, &mut self.out);
            } else if self.out.is_long(update)
                || self.must_go(faces.change(head, frame::event(update).presence), head.user, unheeded)
            {
                gather.overtaken(head.user, head.session);
                at_once.extend_from_slice(update);
            } else if !gather.update(now, head, frame::presence(update)) {
                self.send_gathered(gather, machine);
                if !gather.update(now, head, frame::presence(update)) {
                    self.homes.put_off_for(node, update, &mut self.out);
                }
            }
        }
        self.update_at_once(node, &at_once, machine);
    }

    fn update_at_once(&mut self, node: NodeId, run: &[u8], machine: &mut Machine) {
        self.links.crossings.updates += frame::frames(run).count() as u64;
        self.send_updates(node, run, machine);
    }

    /// Sends what has gathered. Updates alone wait until the lane takes them.
    fn send_gathered(&mut self, gather: &mut Gather, machine: &mut Machine) {
        if gather.is_empty() || !gather.must_arrive() && !machine.is_ready(&self.out.lines) {
            return;
        }
        let Some(between) = self.settings.links.as_ref().and_then(|terms| terms.between.as_ref()) else { return };
        let packer = self.links.crossings.packer.get_or_insert_with(|| between.packer());
        let mut message = Vec::new();
        let sent = match gather.take(packer, &mut message) {
            true => machine.send_complex(&message, &mut self.out.lines),
            false if machine.complex(&message, &mut self.out.lines) => Ok(()),
            // The lane was ready for it.
            false => Err(Refused::TooLong),
        };
        if let Err(refused) = sent {
            machine.overflow(refused);
        }
    }

    /// A complex message has come: each thing in it is taken as if it had come alone.
    pub(super) fn complex(&mut self, now: Time, lane: Lane, message: &[u8]) -> Result<(), BadPassage> {
        let between = self.terms().between.clone().filter(|_| !self.terms().is_inside(lane.0)).ok_or(BadPassage)?;
        self.links.crossings.received += 1;
        let mut unpacker = self.links.crossings.unpacker.take().unwrap_or_else(|| between.unpacker());
        let read = unpacker.unpack(message).map_err(|_| BadPassage).and_then(|complex| {
            complex.others().try_for_each(|entry| match entry.split_first_chunk() {
                Some((&kind, said)) if u16::from_le_bytes(kind) == word::CROSSING => self.from_cluster(now, lane.0.cluster, said),
                _ => Err(BadPassage),
            })?;
            let mut events = Events::default();
            complex.updates().for_each(|(head, presence)| events.push(head, presence));
            self.events_from_cluster(now, lane.0.cluster, &events);
            Ok(())
        });
        self.links.crossings.unpacker = Some(unpacker);
        read
    }
}
