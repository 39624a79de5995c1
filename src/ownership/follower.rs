//! A node's own view: the table as far as it's known, and whether this node may act as the owner of its slots.
//!
//! Lives on: the coordination thread of each node. Serves Z4, M1, R7's watching. Pure. Invariants: it counts itself the owner
//! only of what was assigned to it since it joined, and, where others would take over, only while its lease holds by its own
//! clock; the table that is known goes on to be used while the coordinator is away; what was lost on the way is asked for with
//! the next beat.

use super::members::{Life, Member, Members, Refusal, State};
use super::message::{Ask, Tell};
use super::slots::{Applied, DELTA_ASSIGNMENTS, Slots};
use super::{Command, Event, Terms};
use crate::base::id::NodeId;
use crate::base::time::Time;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What a node says of itself when it joins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Myself {
    pub node: NodeId,
    /// See `Life`.
    pub identity: u64,
    pub start: u64,
    /// See `Member`.
    pub keeps: bool,
    pub cores: u16,
    pub link: SocketAddr,
    pub doors: Vec<(String, SocketAddr)>,
}

impl Myself {
    /// As a member in its first life here.
    pub fn member(self) -> Member {
        let life = Life { identity: self.identity, start: self.start, join: 1 };
        let Myself { node, keeps, cores, link, doors, .. } = self;
        Member { node, life, state: State::Serving, keeps, cores, link, doors, users: 0, free: 0 }
    }
}

/// The parts of a list of members that have come.
#[derive(Default)]
struct Gathering {
    stamp: (u64, u64),
    members: Vec<Member>,
    next: u16,
}

/// The machine.
pub struct Follower {
    terms: Terms,
    me: Member,
    slots: Slots,
    members: Members,
    /// Of which list the members are.
    stamp: (u64, u64),
    gathering: Gathering,
    /// From which epoch on assignments to this node count; `None`: it has not joined.
    joined: Option<u32>,
    lease_until: Time,
    heard: Time,
    is_away: bool,
    has_left: bool,
    next_beat: Time,
    wanted: BTreeSet<u16>,
    /// Slots whose users' rows are here.
    claims: BTreeSet<u16>,
    /// What was said last about why it can't join.
    said: Option<Refusal>,
    asks: Vec<Ask>,
    events: Vec<Event>,
}

impl Follower {
    /// It asks to join at once.
    pub fn new(now: Time, terms: Terms, me: Myself) -> Follower {
        let mut follower = Follower {
            terms,
            me: me.member(),
            slots: Slots::default(),
            members: Members::default(),
            stamp: (0, 0),
            gathering: Gathering::default(),
            joined: None,
            lease_until: Time::ZERO,
            heard: now,
            is_away: false,
            has_left: false,
            next_beat: now,
            wanted: BTreeSet::new(),
            claims: BTreeSet::new(),
            said: None,
            asks: Vec::new(),
            events: Vec::new(),
        };
        follower.tick(now);
        follower
    }

    /// The rows of these slots' users are on this node's disk: it's to be their owner if nobody is.
    pub fn claim(&mut self, slots: impl IntoIterator<Item = u16>) {
        self.claims.extend(slots);
    }

    /// The coordinator can be reached now: what is not answered yet is asked again.
    pub fn met(&mut self, now: Time) {
        if self.joined.is_none() {
            self.next_beat = now;
        }
        self.tick(now);
    }

    /// The table as far as it's known.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The epoch under which this node owns a slot now; `None`: it does not, and may not act as if.
    pub fn owns(&self, now: Time, slot: u16) -> Option<u32> {
        let since = self.joined.filter(|_| !self.terms.take_over || now < self.lease_until)?;
        let (node, epoch) = self.slots.owner(slot)?;
        (node == self.me.node && epoch >= since).then_some(epoch)
    }

    /// Where nodes take over: from when on the lease is so short that it's time to ask the database what the coordinator does not
    /// say.
    pub fn confirm_at(&self) -> Time {
        match self.joined {
            Some(_) if self.terms.take_over => self.lease_until - self.terms.confirmed_lease(),
            _ => Time::MAX,
        }
    }

    /// The database has said, to a question asked at this time, that nobody has taken this node's place: whoever takes it does not
    /// act in it before `Terms::before_acting` is over.
    pub fn confirm(&mut self, asked: Time) {
        if self.joined.is_some() {
            self.lease_until = self.lease_until.max(asked + self.terms.confirmed_lease());
        }
    }

    /// What to send to the coordinator, in this order.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// What the node must hear, in this order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// When to call `tick` at the latest.
    pub fn next(&self) -> Time {
        let fence = if self.joined.is_some() && self.terms.take_over { self.lease_until } else { Time::MAX };
        if self.has_left { Time::MAX } else { self.next_beat.min(fence) }
    }

    /// Takes a command of the node.
    pub fn command(&mut self, now: Time, command: Command) {
        let life = self.me.life;
        match command {
            Command::Assign(slot) if self.slots.owner(slot).is_none() => {
                if self.wanted.insert(slot) && self.joined.is_some() {
                    self.asks.push(Ask::Assign { life, slots: vec![slot] });
                }
            }
            Command::Assign(_) => {}
            Command::Report { users, free } => (self.me.users, self.me.free) = (users, free),
            Command::Drain => self.me.state = State::Draining,
            Command::Leave => {
                self.asks.push(Ask::Leave { life });
                self.has_left = true;
                self.fence();
            }
            Command::Rejoin => self.rejoin(now),
            Command::Rebalance => self.asks.push(Ask::Rebalance { life }),
            Command::Forget(node) => self.asks.push(Ask::Forget { life, node }),
        }
        self.tick(now);
    }

    /// Lets the lease run out, and says what is due.
    pub fn tick(&mut self, now: Time) {
        if self.has_left {
            return;
        }
        if self.joined.is_some() && self.terms.take_over && now >= self.lease_until {
            self.rejoin(now);
        }
        if now.since(self.heard) > self.terms.lease().as_nanos() as u64 && !self.is_away {
            self.is_away = true;
            self.events.push(Event::Away(format!("not heard for {} ms", self.terms.lease_ms)));
        }
        if now >= self.next_beat {
            self.beat(now);
        }
    }

    fn beat(&mut self, now: Time) {
        self.next_beat = now + self.terms.beat();
        let (life, revision, sent) = (self.me.life, self.slots.revision(), now.0);
        if self.joined.is_none() {
            return self.asks.push(Ask::Join { member: self.me.clone(), terms: self.terms, revision, sent });
        }
        let Member { users, free, state, .. } = self.me;
        let draining = state == State::Draining;
        self.asks.push(Ask::Beat { life, sent, revision, members: self.stamp, users, free, draining });
        if !self.wanted.is_empty() {
            self.asks.push(Ask::Assign { life, slots: self.wanted.iter().take(DELTA_ASSIGNMENTS).copied().collect() });
        }
        if !self.claims.is_empty() {
            self.asks.push(Ask::Claim { life, slots: self.claims.iter().take(DELTA_ASSIGNMENTS).copied().collect() });
        }
    }

    /// Takes what the coordinator tells.
    pub fn hear(&mut self, now: Time, tell: Tell) {
        if self.has_left {
            return;
        }
        self.heard = now;
        if std::mem::take(&mut self.is_away) {
            self.events.push(Event::Back);
        }
        let is_mine = |life: Life| life == self.me.life;
        match tell {
            Tell::Welcome { life, sent, epoch } if is_mine(life) => self.welcome(now, sent, epoch),
            Tell::Held { life, sent } if is_mine(life) && self.joined.is_some() => self.hold(sent),
            Tell::Rejoin { life } if is_mine(life) => self.rejoin(now),
            Tell::NotJoined { life, why } if is_mine(life) => self.not_joined(why),
            // About a lease of another life: void.
            Tell::Welcome { .. } | Tell::Held { .. } | Tell::Rejoin { .. } | Tell::NotJoined { .. } => {}
            Tell::Delta(delta) => match self.slots.apply(&delta) {
                Applied::New(lines) if !lines.is_empty() => {
                    lines.iter().for_each(|line| _ = self.wanted.remove(&line.slot) | self.claims.remove(&line.slot));
                    self.events.push(Event::Changed(lines));
                }
                // The next beat says up to where the table is known.
                Applied::New(_) | Applied::Old | Applied::Gap => {}
            },
            Tell::Members { stamp, part, parts, members } => self.gather(stamp, part, parts, members),
            Tell::NotAssigned { slots, why } => {
                for slot in slots.into_iter().filter(|slot| self.wanted.remove(slot)) {
                    self.events.push(Event::Refused(Command::Assign(slot), why.clone()));
                }
            }
            Tell::Refused { command, why } => self.events.push(Event::Refused(command.into(), why)),
        }
        self.tick(now);
    }

    fn welcome(&mut self, now: Time, sent: u64, epoch: u32) {
        if self.joined.is_some() {
            return self.hold(sent);
        }
        // An answer that comes when its lease is over is none.
        let until = Time(sent) + self.terms.own_lease();
        if self.terms.take_over && until <= now {
            return;
        }
        (self.joined, self.lease_until, self.said) = (Some(epoch), until, None);
        self.next_beat = now;
        self.events.push(Event::Joined { epoch });
    }

    fn hold(&mut self, sent: u64) {
        self.lease_until = self.lease_until.max(Time(sent) + self.terms.own_lease());
    }

    fn fence(&mut self) {
        if self.joined.take().is_some() {
            self.events.push(Event::Fenced);
        }
    }

    fn rejoin(&mut self, now: Time) {
        self.fence();
        self.me.life.join += 1;
        self.next_beat = now;
    }

    fn not_joined(&mut self, why: Refusal) {
        self.fence();
        if self.said.as_ref() != Some(&why) {
            self.said = Some(why.clone());
            self.events.push(Event::NotJoined(why));
        }
    }

    fn gather(&mut self, stamp: (u64, u64), part: u16, parts: u16, members: Vec<Member>) {
        if part == 0 {
            self.gathering = Gathering { stamp, members: Vec::new(), next: 0 };
        }
        if stamp <= self.stamp || (self.gathering.stamp, self.gathering.next) != (stamp, part) {
            return;
        }
        self.gathering.members.extend(members);
        self.gathering.next += 1;
        if self.gathering.next < parts {
            return;
        }
        self.stamp = stamp;
        let mut before = std::mem::take(&mut self.members);
        for member in std::mem::take(&mut self.gathering).members {
            if !before.remove(member.node).is_some_and(|old| old.same(&member)) {
                self.events.push(Event::Member(member.clone()));
            }
            self.members.put(member);
        }
        self.events.extend(before.iter().map(|gone| Event::Forgotten(gone.node)));
    }
}
