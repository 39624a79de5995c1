//! The border to other clusters: what comes over it is checked and finds its way inside, what is for their users leaves.
//!
//! Lives on: every core. Serves Z3, Z6, Z7, Z8, Z9, Z13. What comes arrives at any core of any node. Where it names who says it, it
//! goes first to the core that knows whose that name is, its gateway, and then to the core that it's for. What is for a name goes
//! to the core that would be its home, and leaves from there if the name is another cluster's. Invariants: nothing that has come
//! from one cluster goes on to another one; what another cluster may not say changes nothing and is counted.

use super::Shard;
use crate::base::id::{NodeId, Seat, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::border::{self, Astray, Crossing, Entered, FAR_SESSIONS, Reply, Strayed};
use crate::presence::control::{Arrival, Asker, Control, SessionEvent, UserRef};
use crate::presence::directory::Inquiry;
use crate::presence::errand::Answer::Located;
use crate::presence::errand::Caller;
use crate::presence::frame::{self, Events};
use crate::presence::gateway::{Open, Pending};
use crate::presence::outbox::Outbox;
use crate::presence::passage::BadPassage;
use crate::presence::relay::{Known, SLOT};

/// Where a user is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// Of this cluster, or of none.
    Ours,
    /// Of another cluster.
    Theirs(u16),
    /// The directory must be asked.
    Unknown,
}

/// A home that another cluster has asked can't be reached, and says that it can when it is (`tell_of_homes`): its users are not to
/// be taken for the same till then, and not to keep others waiting who were asked about with them.
pub(super) fn cannot_compare(cluster: u16, (place, number): (u32, u32), known: &Known, out: &mut Outbox) {
    let (seat, count) = (Seat::of_cluster(cluster), known.0.len() as u32);
    for &(publisher, _) in &known.0 {
        out.send(seat, Control::Refused { publisher, subscriber: UserId::NOBODY, slot: SLOT, nonce: 0 });
    }
    out.send(seat, Control::Compared { place, number, count });
}

impl Shard {
    /// Another cluster says something (`border::encode`), to whichever core it came.
    ///
    /// # Errors
    /// It can't be read.
    pub fn from_cluster(&mut self, now: Time, cluster: u16, bytes: &[u8]) -> Result<(), BadPassage> {
        let crossing = border::decode(bytes)?;
        if self.out.map.cluster == 0 || crossing.check(cluster, &self.out.map, &self.settings.limits).is_err() {
            self.gateway.counters.refused += 1;
            return Ok(());
        }
        for (seat, crossing) in crossing.spread(&self.out.map) {
            let vouched = crossing.speaker().is_none();
            self.out.send(seat, Control::Entered(Box::new(Entered { cluster, vouched, crossing })));
        }
        self.work_off(now);
        Ok(())
    }

    /// Updates of another cluster's publishers, as event frames.
    ///
    /// # Errors
    /// They can't be read.
    pub fn updates_from_cluster(&mut self, now: Time, cluster: u16, frames: Vec<u8>) -> Result<(), BadPassage> {
        self.events_from_cluster(now, cluster, &Events::try_from(frames).map_err(|_| BadPassage)?);
        Ok(())
    }

    /// The same of event frames that have been read already.
    pub(super) fn events_from_cluster(&mut self, now: Time, cluster: u16, events: &Events) {
        let most = self.settings.limits.frame_bytes as usize + border::FRAME_BYTES;
        self.each_event(events, |shard, event| {
            let user = frame::head(event).user;
            if shard.out.map.abroad(user) != Some(cluster) || event.len() > most {
                return shard.gateway.counters.refused += 1;
            }
            let gateway = shard.out.map.gateway(user);
            if gateway.node == shard.settings.node {
                shard.update_inside(now, gateway.core, event);
            } else {
                // What is put off on the way there is lost, and the gateway asks for it (`Control::Missed`).
                shard.out.pass_on(gateway, SLOT, UserRef { user, slot: SLOT }, event);
            }
        });
        self.work_off(now);
    }

    /// An update of a publisher of another cluster, at its gateway.
    pub(super) fn is_welcome(&mut self, event: &[u8]) -> bool {
        let head = frame::head(event);
        let (publisher, map) = (head.user, &self.out.map);
        let Some(cluster) = map.abroad(publisher).filter(|_| map.gateway(publisher) == map.here) else { return true };
        match self.homes.relays.takes(publisher, head.session, FAR_SESSIONS) {
            Some(true) => true,
            Some(false) => {
                self.gateway.counters.refused += 1;
                false
            }
            None => {
                // Nobody watches it here any more, and its home does not know.
                let seat = self.out.map.here;
                self.out.send(Seat::of_cluster(cluster), Control::Unwatch { publisher, seat, slot: SLOT });
                false
            }
        }
    }

    /// Something has come from another cluster, and is here because this core knows whose name it comes under, or is for this core.
    pub(super) fn entered(&mut self, now: Time, entered: Entered) {
        let Entered { cluster, vouched, crossing } = entered;
        if vouched {
            return self.deliver(now, Entered { cluster, vouched, crossing });
        }
        let Some(speaker) = crossing.speaker().cloned() else { return };
        let whose = if self.gateway.is_asking(&speaker) { Whose::Unknown } else { self.whose(&speaker) };
        match whose {
            Whose::Theirs(known) if known == cluster => self.let_in(now, cluster, crossing),
            Whose::Ours if crossing.takes_leave() && self.homes.by_name(&speaker).is_none() => self.let_in(now, cluster, crossing),
            Whose::Ours => self.not_believed(cluster, crossing),
            Whose::Theirs(_) if self.keeps_directory() => self.not_believed(cluster, crossing),
            // Whoever was another cluster's may be this one's now.
            Whose::Theirs(_) | Whose::Unknown => self.enter_later(now, &speaker, Entered { cluster, vouched, crossing }),
        }
    }

    /// It comes under a name that is not of that cluster. If it's that a way has arrived there, that one is sent to another one
    /// now, and won't come there again: else it would be kept in mind there for ever.
    fn not_believed(&mut self, cluster: u16, crossing: Crossing) {
        self.gateway.counters.refused += 1;
        if let Crossing::WayDone(arrival) = crossing {
            self.out.send(Seat::of_cluster(cluster), Control::WayForgotten(Box::new(arrival.name)));
        }
    }

    /// It may come in, and is for this core.
    fn deliver(&mut self, now: Time, entered: Entered) {
        let missing = entered.crossing.addressee().filter(|jid| self.homes.by_name(jid).is_none()).cloned();
        let Some(jid) = missing else { return self.deliver_here(now, entered) };
        match self.settled(&jid) {
            Some(cluster) => self.deliver_or_return(now, &jid, cluster, entered),
            // What the cluster that sent it knows of the name may be old, and what this one knows too.
            None => {
                if let Err(pending) = self.gateway.wait(now, &jid, Pending::Deliver(entered), &mut self.out) {
                    self.give_up(pending);
                }
            }
        }
    }

    /// It is for somebody who is not here but, as the directory says, in a cluster.
    fn deliver_or_return(&mut self, now: Time, jid: &Bare, whose: u16, entered: Entered) {
        let Entered { cluster, crossing, .. } = entered;
        if whose == 0 || whose == self.out.map.cluster {
            return self.deliver_here(now, Entered { cluster, vouched: true, crossing });
        }
        let what = match crossing.enter(cluster) {
            Control::Way(way) => Strayed::Way(way.name()),
            control => border::asker_of(&control).map_or(Strayed::Directed, |asker| Strayed::Ticket(asker.edge.generation)),
        };
        let astray = Astray { jid: jid.clone(), cluster, what };
        self.out.send(Seat::of_cluster(cluster), Control::Astray(Box::new(astray)));
    }

    fn deliver_here(&mut self, now: Time, Entered { cluster, crossing, .. }: Entered) {
        if let Crossing::Way(way) = &crossing
            && !self.homes.has_room_for_way(&way.to, cluster)
        {
            self.gateway.counters.refused += 1;
            return;
        }
        match crossing.enter(cluster) {
            control @ (Control::Snapshot(_) | Control::Refused { .. } | Control::Revoke { .. }) => {
                self.heard_from_node(now, control)
            }
            Control::Lapsed(lapsed) => self.told_by_cluster(now, lapsed),
            // It does not leave again, whosever the name is.
            control => self.control_here(now, control),
        }
    }

    /// Something was sent to a cluster that its receiver is not of: what was known is wrong, and the directory is asked anew (Z3).
    pub(super) fn astray(&mut self, now: Time, astray: Astray) {
        let Astray { jid, cluster, what } = astray;
        let pending = match what {
            Strayed::Ticket(number) => match self.gateway.redeem(number, cluster) {
                Some(open) => Pending::Leave(open.sent, cluster),
                None => return self.gateway.counters.refused += 1,
            },
            Strayed::Way(name) => Pending::Way(name, cluster),
            Strayed::Directed => return,
        };
        if let Some(whose) = self.settled(&jid) {
            return self.go_on_with(now, pending, &jid, whose);
        }
        if let Err(pending) = self.gateway.wait(now, &jid, pending, &mut self.out) {
            self.give_up(pending);
        }
    }

    fn enter_later(&mut self, now: Time, speaker: &Bare, entered: Entered) {
        let pending = match entered.crossing {
            // What comes behind it would overtake it.
            Crossing::State(state) => {
                self.homes.relays.hears_later(state.publisher);
                Pending::Look(state.publisher)
            }
            crossing => Pending::Enter(Entered { crossing, ..entered }),
        };
        if let Err(pending) = self.gateway.wait(now, speaker, pending, &mut self.out) {
            self.give_up(pending);
        }
    }

    /// It speaks for a user of its cluster.
    fn let_in(&mut self, now: Time, cluster: u16, crossing: Crossing) {
        let seat = crossing.target(&self.out.map);
        let entered = Entered { cluster, vouched: true, crossing };
        match seat == self.out.map.here {
            // Updates that came behind it are taken in next.
            true => self.deliver(now, entered),
            false => self.out.send(seat, Control::Entered(Box::new(entered))),
        }
    }

    /// Where the user of a name is, as far as this core can say, which must be the one that would be the user's home.
    fn whose(&self, jid: &Bare) -> Whose {
        let own = self.out.map.cluster;
        let known = match self.keeps_directory() {
            _ if self.homes.by_name(jid).is_some() => Some(own),
            true => self.settled(jid),
            false => self.gateway.known(jid),
        };
        match known {
            None => Whose::Unknown,
            Some(cluster) if cluster == 0 || cluster == own => Whose::Ours,
            Some(cluster) => Whose::Theirs(cluster),
        }
    }

    /// The cluster of a user (0: none) as the directory has it, if that is here.
    fn settled(&self, jid: &Bare) -> Option<u16> {
        if self.keeps_directory() { self.homes.directory.cluster(jid) } else { None }
    }

    /// Whether there are clusters, and this one keeps their directory.
    pub(super) fn keeps_directory(&self) -> bool {
        self.out.map.directory != 0 && self.out.map.directory == self.out.map.cluster
    }

    /// What is for a name leaves if that is another cluster's. Gives back what stays.
    pub(super) fn leave(&mut self, now: Time, control: Control) -> Option<Control> {
        let jid = match &control {
            Control::Way(way) if self.homes.has_taken(way) => return Some(control),
            Control::Way(way) => way.to.clone(),
            Control::Message(message) => message.to.clone(),
            Control::Question(question) => question.about.clone(),
            Control::Directed(directed) => directed.to.clone(),
            _ => return Some(control),
        };
        let whose = if self.gateway.is_asking(&jid) { Whose::Unknown } else { self.whose(&jid) };
        match whose {
            Whose::Ours => return Some(control),
            Whose::Theirs(cluster) => self.send_to_cluster(now, cluster, control),
            Whose::Unknown => {
                if let Err(pending) = self.gateway.wait(now, &jid, Pending::Leave(control, 0), &mut self.out) {
                    self.give_up(pending);
                }
            }
        }
        None
    }

    /// A way has arrived whose sender is in another cluster. What answers it may not overtake this, nor the other way round.
    pub(super) fn confirm(&mut self, now: Time, arrival: Box<Arrival>) {
        if !self.gateway.is_asking(&arrival.name.from) {
            return self.send_to_cluster(now, arrival.name.cluster, Control::WayDone(arrival));
        }
        let jid = arrival.name.from.clone();
        if let Err(pending) = self.gateway.wait(now, &jid, Pending::Confirm(arrival), &mut self.out) {
            self.give_up(pending);
        }
    }

    fn send_to_cluster(&mut self, now: Time, cluster: u16, mut control: Control) {
        let seat = Seat::of_cluster(cluster);
        let refusal = match &control {
            _ if !self.out.peers.contains_key(&seat.node) => Some(Reason::HomeOutOfReach),
            // What answers the way may be behind it already.
            Control::WayDone(_) => None,
            _ => self.out.is_full(seat).then_some(Reason::Overloaded),
        };
        if let Some(reason) = refusal {
            return self.refuse_to_leave(cluster, control, reason);
        }
        if let Some(edge) = self.gateway.issue(now, cluster, &control, self.out.map.here) {
            match &mut control {
                Control::Message(message) => message.asker.edge = edge,
                Control::Question(question) => question.asker.edge = edge,
                _ => {}
            }
        } else if border::asker_of(&control).is_some() {
            return self.refuse_to_leave(cluster, control, Reason::Overloaded);
        }
        self.out.send(seat, control);
    }

    /// It does not get there: whoever waits is told, and what must get there will be sent again.
    fn refuse_to_leave(&mut self, cluster: u16, control: Control, reason: Reason) {
        let home = match &control {
            Control::Way(way) => Some(self.out.map.home_of(&way.from)),
            Control::WayDone(arrival) => Some(self.out.map.home_of(&arrival.name.to)),
            _ => None,
        };
        if let Some(home) = home {
            self.gateway.counters.held_back += 1;
            self.gateway.owe(cluster, home);
        } else if let Some(Asker { edge, request }) = border::asker_of(&control) {
            self.out.tell(edge, SessionEvent::Error { request, reason, detail: String::new() });
        }
    }

    /// The directory says nothing. What came from another cluster is lost: ways are sent again when their clusters meet.
    fn give_up(&mut self, pending: Pending) {
        match pending {
            Pending::Leave(control, _) => self.refuse_to_leave(self.out.map.directory, control, Reason::HomeOutOfReach),
            Pending::Confirm(arrival) => {
                self.refuse_to_leave(arrival.name.cluster, Control::WayDone(arrival), Reason::HomeOutOfReach);
            }
            Pending::Enter(entered) | Pending::Deliver(entered) => {
                let Entered { cluster, crossing, .. } = entered;
                if let Some(Asker { edge, request }) = border::asker_of(&crossing.enter(cluster)) {
                    let reason = Reason::HomeOutOfReach;
                    self.out.tell(edge, SessionEvent::Error { request, reason, detail: String::new() });
                }
            }
            Pending::Tell(caller) => {
                let why = "the directory can't be reached now: see `fanal cluster status`";
                caller.refuse(Reason::HomeOutOfReach, why.to_owned(), &mut self.out);
            }
            Pending::Way(..) | Pending::Look(_) => {}
        }
    }

    /// Somebody asks which cluster a user is of.
    pub(super) fn look_up(&mut self, now: Time, jid: Bare, caller: Caller) {
        let whose = if self.out.map.cluster == 0 { Whose::Ours } else { self.whose(&jid) };
        match whose {
            Whose::Ours => {
                let own = self.homes.by_name(&jid).map(|_| self.homes.place.cluster);
                caller.answer(Located(own), &mut self.out);
            }
            Whose::Theirs(cluster) => caller.answer(Located(Some(cluster)), &mut self.out),
            Whose::Unknown => {
                if let Err(pending) = self.gateway.wait(now, &jid, Pending::Tell(caller), &mut self.out) {
                    self.give_up(pending);
                }
            }
        }
    }

    /// A word of the directory, or for it.
    pub(super) fn directory(&mut self, now: Time, inquiry: Inquiry) {
        let home = inquiry.home().map(|jid| self.out.map.home_of(jid)).filter(|home| *home != self.out.map.here);
        if let Some(home) = home {
            // Another core keeps this name since.
            return self.out.send(home, Control::Directory(Box::new(inquiry)));
        }
        let Shard { homes, edge, out, .. } = self;
        match inquiry {
            Inquiry::Locate { jid, by } => {
                let is_here = homes.by_name(&jid).is_some();
                homes.directory.locate(jid, by, is_here, out);
            }
            Inquiry::Settle { jid, user, by } => homes.directory.settle(jid, user, by, out),
            Inquiry::Settled { jid, user, cluster } => homes.settled(now, (jid, user, cluster), edge, out),
            Inquiry::Located { jid, cluster } => self.located(now, jid, cluster),
        }
    }

    fn located(&mut self, now: Time, jid: Bare, cluster: u16) {
        let is_theirs = cluster != self.out.map.cluster && self.homes.by_name(&jid).is_none();
        let whose = if is_theirs { cluster } else { 0 };
        for pending in self.gateway.located(&jid, whose) {
            self.go_on_with(now, pending, &jid, whose);
        }
    }

    /// The directory has said which other cluster a user is of; 0: of none.
    fn go_on_with(&mut self, now: Time, pending: Pending, jid: &Bare, whose: u16) {
        match pending {
            Pending::Leave(control, 0) if whose == 0 => self.control_here(now, control),
            Pending::Leave(control, but) if whose == but => self.refuse_to_leave(whose, control, Reason::NoSuchUser),
            Pending::Leave(control, _) if whose == 0 => self.control(now, control),
            Pending::Leave(control, _) => self.send_to_cluster(now, whose, control),
            Pending::Confirm(arrival) => self.send_to_cluster(now, arrival.name.cluster, Control::WayDone(arrival)),
            Pending::Way(name, but) if whose != but => {
                let home = self.out.map.home_of(&name.from);
                self.out.send(home, Control::WayAgain(Box::new(name)));
            }
            Pending::Enter(entered) if whose != 0 && entered.cluster == whose => self.let_in(now, whose, entered.crossing),
            Pending::Enter(entered) if whose == 0 && entered.crossing.takes_leave() && self.homes.by_name(jid).is_none() => {
                self.let_in(now, entered.cluster, entered.crossing);
            }
            Pending::Deliver(entered) => self.deliver_or_return(now, jid, whose, entered),
            Pending::Look(publisher) if whose != 0 && publisher.cluster() == whose => self.missed(publisher),
            Pending::Enter(entered) => self.not_believed(entered.cluster, entered.crossing),
            Pending::Look(_) => self.gateway.counters.refused += 1,
            Pending::Tell(caller) => caller.answer(Located(Some(whose).filter(|&whose| whose != 0)), &mut self.out),
            Pending::Way(..) => {}
        }
    }

    /// A cluster has answered what a session here, or at another core, has asked.
    pub(super) fn answered_by(&mut self, cluster: u16, number: u32, answer: Reply) {
        let Some(open) = self.gateway.redeem(number, cluster) else { return self.gateway.counters.refused += 1 };
        let Some(asker) = border::asker_of(&open.sent) else { return };
        match answer.event(&open.sent) {
            Some(SessionEvent::Done { request: 0 }) => {}
            Some(event) => self.out.tell(asker.edge, event),
            None => self.gateway.counters.refused += 1,
        }
    }

    /// Another cluster can be reached again.
    pub(super) fn cluster_found(&mut self, cluster: u16) {
        for home in self.gateway.owed(cluster) {
            self.out.send(home, Control::WaysAgain { cluster });
        }
        if cluster == self.out.map.directory {
            self.homes.settle_all(&mut self.out);
        }
    }

    /// Another cluster is out of reach.
    pub(super) fn cluster_lost(&mut self, cluster: u16) {
        let (open, errands) = self.gateway.lost(cluster, self.out.map.directory);
        self.tell_in_vain(open);
        errands.into_iter().for_each(|pending| self.give_up(pending));
    }

    /// Looks after the time of what waits for other clusters. Gives when it must again.
    pub(super) fn go_on_with_clusters(&mut self, now: Time) -> Option<Time> {
        let (late, errands, next) = self.gateway.tick(now, &mut self.out);
        self.tell_in_vain(late);
        errands.into_iter().for_each(|pending| self.give_up(pending));
        let settled = self.homes.settle_again(now, &mut self.edge, &mut self.out);
        [next, settled].into_iter().flatten().min()
    }

    /// No answer will come. Who wanted to hear only of errors hears nothing: there may have been none.
    fn tell_in_vain(&mut self, open: Vec<Open>) {
        for asker in open.iter().filter_map(|open| border::asker_of(&open.sent)).filter(|asker| asker.request != 0) {
            let (request, reason) = (asker.request, Reason::HomeOutOfReach);
            self.out.tell(asker.edge, SessionEvent::Error { request, reason, detail: String::new() });
        }
    }

    /// Updates of another cluster's publisher were lost on their way to this core.
    pub(super) fn missed(&mut self, publisher: UserId) {
        self.homes.relays.look_again(publisher, &mut self.out);
    }

    /// Ways to users of another cluster set out again.
    pub(super) fn ways_again(&mut self, cluster: u16) {
        self.homes.ways_again(NodeId::of_cluster(cluster), &mut self.out);
    }
}
