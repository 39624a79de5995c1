//! Entries and updates find the part of a core that they are for; what goes to other cores is put into their batches.

use super::batch::{Batch, Entry};
use super::{EXPECTED, Shard};
use crate::base::id::CoreId;
use crate::base::time::Time;
use crate::presence::control::Control;
use crate::presence::relay::Question;
use crate::presence::user::Destination;
use crate::store::Completion;
use crate::wire::presence;

impl Shard {
    /// Reads a batch of another core in place.
    pub fn batch(&mut self, now: Time, batch: &mut Batch) {
        for entry in batch.entries.drain(..) {
            match entry {
                Entry::Control(control) => self.control_from_elsewhere(now, control),
                Entry::FromNode(control) => self.heard_from_node(now, *control),
                Entry::Lane(news) => self.hear_of_lane(now, news),
                Entry::Clusters(clusters) => self.take_clusters(now, clusters),
                Entry::Forgotten(cluster, identity) => self.homes.forget_cluster(cluster, identity, &mut self.out),
                Entry::Compare(cluster) => self.compare(cluster),
                Entry::Lapsed(lapsed) => self.lapsed(now, &lapsed),
                Entry::Updates(events) => self.each_event(&events, |shard, event| shard.update_from_node(now, event)),
                Entry::Adopt(adoption) => self.adopt(now, *adoption),
                Entry::Command(command) => self.command(now, *command),
            }
        }
        let mut ahead = batch.updates.iter();
        for (number, update) in batch.updates.iter().enumerate() {
            if number % EXPECTED == 0 {
                self.expect_updates(ahead.by_ref().take(EXPECTED));
            }
            if !self.edge.is_behind(update.slot, number) {
                self.edge.fan_out_remote(update.slot, update.frame, &mut self.out.lines);
            }
        }
        self.edge.batch_read();
        self.batch_read(batch.updates.since(), now, batch.updates.len() as u64);
        self.work_off(now);
    }

    /// The store has answered.
    pub fn completed(&mut self, now: Time, completion: Completion) {
        let (ticket, is_stored) = (completion.ticket, completion.result.is_ok());
        let is_known = self.homes.directory.complete(ticket, is_stored, &mut self.out) || self.numbered(now, ticket, is_stored);
        if !is_known {
            self.homes.complete(now, completion, &mut self.edge, &mut self.out);
        }
        self.work_off(now);
    }

    /// Works off what this core has for itself, and puts aside what is for others.
    pub(super) fn work_off(&mut self, now: Time) {
        loop {
            let mut controls = std::mem::take(&mut self.out.controls);
            if controls.is_empty() {
                break;
            }
            for (core, control) in controls.drain(..) {
                if core == self.settings.core {
                    self.control(now, control);
                } else {
                    self.put_aside(core, Entry::Control(control));
                }
            }
        }
        self.give_back(now);
        self.tell_doors();
        if !self.out.controls.is_empty() {
            self.work_off(now);
        }
    }

    /// Keeps an entry for another core until its batch takes it.
    pub(super) fn put_aside(&mut self, core: CoreId, entry: Entry) {
        let at = usize::from(core.0);
        self.entries[at].push(entry);
        self.out.bound[at].waiting += 1;
    }

    /// An entry for this core; what is for a name may be for another cluster.
    pub(super) fn control(&mut self, now: Time, control: Control) {
        match control {
            Control::Way(_) | Control::Message(_) | Control::Question(_) | Control::Directed(_) if self.out.map.cluster != 0 => {
                if let Some(control) = self.leave(now, control) {
                    self.control_here(now, control);
                }
            }
            control => self.control_here(now, control),
        }
    }

    pub(super) fn control_here(&mut self, now: Time, control: Control) {
        if self.comes_too_early(&control) {
            return self.wait_for_owner(now, control);
        }
        if !self.comes_too_late(&control) {
            self.carry_out(now, control);
        }
    }

    fn carry_out(&mut self, now: Time, control: Control) {
        let Shard { homes, edge, out, .. } = self;
        match control {
            Control::Errand(errand) => self.errand(now, *errand),
            Control::Survey(survey) => homes.survey(*survey, out),
            Control::Answered { who, answer } => self.answered(who, answer),
            Control::Attach(attach) => homes.attach(now, *attach, edge, out),
            Control::Resume(resume) => homes.resume(*resume, out),
            Control::Detach { at, session, edge: from, end } => homes.detach(now, at, session, from, end, edge, out),
            Control::Update { at, session, update } => {
                let view = presence::read(&update.presence).expect("it was verified where it entered");
                homes.update(now, at, session, &view, update.asker, edge, out);
            }
            Control::Ask { at, session, asker, ask } => homes.ask(now, at, session, asker, ask, edge, out),
            Control::Watch { publisher, subscriber, seat, slot, nonce, known } => {
                // Until it says otherwise, somebody there looks.
                self.links.heed(seat.node.cluster(), publisher);
                homes.watch(publisher, Question { subscriber, seat, slot, nonce, known }, out);
            }
            Control::Compare(compare) => {
                let cluster = compare.seat.node.cluster();
                compare.known.0.iter().for_each(|(publisher, _)| self.links.heed(cluster, *publisher));
                homes.compare(*compare, out);
            }
            Control::Compared { number, count, .. } => homes.relays.compared(now, number, count, edge, out),
            Control::Obtain { publisher, session, seat } => homes.obtain(publisher, session, seat.node, out),
            Control::Attention { publisher, seat, slot, active } => match seat.node.cluster() {
                Some(cluster) => self.attention_of(cluster, publisher, active),
                None => homes.relays.attention(publisher, Destination { seat, slot }, active, out),
            },
            Control::Unwatch { publisher, seat, slot } => {
                self.links.heed(seat.node.cluster(), publisher);
                homes.unwatch(publisher, Destination { seat, slot }, out)
            }
            Control::Way(way) => homes.way(now, way, edge, out),
            Control::WayDone(arrival) => homes.way_done(now, arrival, edge, out),
            Control::WayInVain(name) => homes.way_in_vain(now, name, edge, out),
            Control::WayForgotten(name) => homes.way_forgotten(now, name, edge, out),
            Control::WayArrived { name, last } => homes.way_arrived(*name, last, out),
            Control::Message(message) => homes.message(now, message, out),
            Control::Question(question) => homes.question(now, *question, out),
            Control::News(news) => homes.news(&news, out),
            Control::Fetch(fetch) => homes.fetch(*fetch, out),
            Control::Fetched(fetched) => homes.fetched(*fetched, out),
            Control::Directed(directed) => homes.directed(directed, out),
            Control::Interest { edge: session, publishers } => edge.interest(session, &publishers, homes, out),
            Control::Uninterest { edge: session, publisher } => edge.uninterest(session, publisher, homes, out),
            Control::UninterestAll { edge: session } => edge.uninterest_all(session, out),
            Control::Snapshot(snapshot) => edge.snapshot(*snapshot, homes, out),
            Control::Refused { publisher, subscriber, slot, nonce } => edge.refused(slot, nonce, publisher, subscriber, out),
            Control::Revoke { publisher, subscriber, slot } => edge.revoke(slot, publisher, subscriber, homes, out),
            Control::Attached(attached) => self.attached(*attached),
            Control::ToSession { edge, event } => self.tell(edge, event),
            Control::Entered(entered) => self.entered(now, *entered),
            Control::Reply { number, cluster, answer } => self.answered_by(cluster, number, answer),
            Control::Missed { publisher } => self.missed(publisher),
            Control::WaysAgain { cluster } => self.ways_again(cluster),
            Control::WayConfirmed(arrival) => self.confirm(now, arrival),
            Control::WayAgain(name) => homes.way_again(&name, out),
            Control::Astray(astray) => self.astray(now, *astray),
            Control::Lapsed(lapsed) => self.told_of_homes(now, lapsed),
            Control::Directory(inquiry) => self.directory(now, *inquiry),
            Control::Number(said) => self.numbering(*said),
        }
    }

    /// Moves what is for another core into the batch that goes there next; into a batch that still waits, nothing: what has
    /// gathered here stays here, within limits.
    pub fn fill(&mut self, now: Time, core: CoreId, batch: &mut Batch) {
        let at = usize::from(core.0);
        if !batch.entries.is_empty() || !batch.updates.is_empty() {
            return;
        }
        std::mem::swap(&mut batch.entries, &mut self.entries[at]);
        self.out.bound[at].waiting = 0;
        std::mem::swap(&mut batch.updates, &mut self.out.bound[at].updates);
        if !self.out.bound[at].put_off.is_empty() {
            self.homes.send_put_off(core, now, &mut self.out);
            self.work_off(now);
        }
    }

    /// Whether there is something for another core.
    pub fn has_for(&self, core: CoreId) -> bool {
        let bound = &self.out.bound[usize::from(core.0)];
        !self.entries[usize::from(core.0)].is_empty() || !bound.updates.is_empty() || !bound.put_off.is_empty()
    }
}
