//! What a core keeps of other clusters' users: which cluster each is of, as the directory said; what waits for it to say so; and
//! what waits for an answer from another cluster.
//!
//! Lives on: every core, for the names whose home it would be. Serves Z1, Z3, Z9. Invariants: the directory is asked once for each
//! name that is known; everything here has a limit and, but for what is known, a time.

use super::border::{Entered, Ticket};
use super::control::{Arrival, Control, EdgeRef, WayName};
use super::directory::Inquiry;
use super::errand::Caller;
use super::outbox::Outbox;
use crate::base::id::{Seat, UserId, first_of_life};
use crate::base::jid::Bare;
use crate::base::time::Time;
use ahash::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Names whose clusters one core knows. At the limit: the one known longest is forgotten, and asked for again.
const KNOWN: usize = 1 << 20;
/// What waits for the directory at one core. At the limit: it is given up, as if the directory were out of reach.
const WAITING: usize = 16_384;
/// What waits for answers at one core, and about its bytes. At the limit: nothing that wants one leaves.
const TICKETS: usize = 65_536;
const TICKET_BYTES: usize = 64 << 20;
/// The directory is asked again after this long, and given up after that.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(20);
/// An answer that takes longer is not waited for.
const ANSWER: Duration = Duration::from_secs(30);

/// What is to be done once the directory has said whose a name is.
#[derive(Debug)]
pub enum Pending {
    /// It is for the user of this name, wherever that is; but not with this cluster (0: none), which has said so.
    Leave(Control, u16),
    /// The same, of a way that its sender is to send again.
    Way(WayName, u16),
    /// That a way has arrived: to its sender.
    Confirm(Box<Arrival>),
    /// It has come under this name.
    Enter(Entered),
    /// It has come for this name.
    Deliver(Entered),
    /// A publisher's state has come under this name: it's asked for again.
    Look(UserId),
    /// Somebody asks whose it is.
    Tell(Caller),
}

impl Pending {
    /// Whether both are the same way, sent once more: by the answer, two might go to two different places.
    fn is_same_way(&self, other: &Pending) -> bool {
        let (Pending::Leave(Control::Way(way), _), Pending::Leave(Control::Way(other), _)) = (self, other) else { return false };
        way.sequence == other.sequence && way.from == other.from
    }
}

/// Something that waits for an answer of another cluster.
#[derive(Debug)]
pub struct Open {
    cluster: u16,
    /// As it was sent here: a message or a question.
    pub sent: Control,
    bytes: usize,
    since: Time,
}

#[derive(Debug)]
struct Asked {
    pending: Vec<Pending>,
    since: Time,
    asked: Time,
}

/// What gateways count.
#[derive(Clone, Copy, Default, Debug)]
pub struct GatewayCounters {
    /// The directory was asked.
    pub asked: u64,
    /// Names forgotten for others.
    pub evicted: u64,
    /// What was given up because the directory said nothing, or too much waited.
    pub given_up: u64,
    /// Answers that did not come in time, or too many that were waited for.
    pub unanswered: u64,
    /// Ways, and that some have arrived, that could not leave now: their homes send them again.
    pub held_back: u64,
    /// What another cluster said and may not.
    pub refused: u64,
    /// Names that were known to be of another cluster than they are.
    pub corrected: u64,
}

pub struct Gateway {
    known: HashMap<Bare, u16, RandomState>,
    /// The same in the order in which they became known.
    order: VecDeque<Bare>,
    waiting: BTreeMap<Bare, Asked>,
    pending: usize,
    tickets: BTreeMap<u32, Open>,
    ticket_bytes: usize,
    next_ticket: u32,
    /// Homes whose ways were not sent because a cluster was out of reach, or its lane full: they are sent again anyway, and at once
    /// when the cluster is found.
    owed: BTreeSet<(u16, Seat)>,
    pub counters: GatewayCounters,
}

impl Gateway {
    /// `epoch`: of the node's life. The numbers of another one are not known.
    pub fn new(hasher: RandomState, epoch: u32) -> Gateway {
        Gateway {
            known: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
            waiting: BTreeMap::new(),
            pending: 0,
            tickets: BTreeMap::new(),
            ticket_bytes: 0,
            next_ticket: first_of_life(epoch),
            owed: BTreeSet::new(),
            counters: GatewayCounters::default(),
        }
    }

    /// The cluster that a user is of, if the directory has said so.
    pub fn known(&self, jid: &Bare) -> Option<u16> {
        self.known.get(jid).copied()
    }

    pub fn known_count(&self) -> usize {
        self.known.len()
    }

    /// What waits for the directory.
    pub fn pending_count(&self) -> usize {
        self.pending
    }

    pub fn ticket_count(&self) -> usize {
        self.tickets.len()
    }

    /// The directory has said which other cluster a user is of; 0: of none.
    fn learn(&mut self, jid: &Bare, cluster: u16) {
        let before = match cluster {
            0 => self.known.remove(jid),
            cluster => self.known.insert(jid.clone(), cluster),
        };
        self.counters.corrected += u64::from(before.is_some_and(|before| before != cluster));
        if before.is_none() && cluster != 0 {
            self.order.push_back(jid.clone());
        }
        // A name that was forgotten, and learnt again, stands there twice: then it goes early.
        while self.order.len() > KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.counters.evicted += u64::from(self.known.remove(&oldest).is_some());
        }
    }

    /// Nobody is of this cluster any more, as far as is known.
    pub fn forget(&mut self, cluster: u16) {
        self.known.retain(|_, known| *known != cluster);
    }

    /// Something waits until the directory has said whose a name is.
    ///
    /// # Errors
    /// There is no room, or the directory can't be reached: gives it back.
    pub fn wait(&mut self, now: Time, jid: &Bare, pending: Pending, out: &mut Outbox) -> Result<(), Pending> {
        if self.pending >= WAITING || !out.peers.contains_key(&directory_of(jid, out).node) && !keeps_directory(out) {
            self.counters.given_up += 1;
            return Err(pending);
        }
        if let Some(asked) = self.waiting.get_mut(jid) {
            if !asked.pending.iter().any(|waiting| waiting.is_same_way(&pending)) {
                self.pending += 1;
                asked.pending.push(pending);
            }
            return Ok(());
        }
        self.pending += 1;
        self.counters.asked += 1;
        ask(jid, out);
        self.waiting.insert(jid.clone(), Asked { pending: vec![pending], since: now, asked: now });
        Ok(())
    }

    /// Whether something waits for a name: what comes behind it waits, too.
    pub fn is_asking(&self, jid: &Bare) -> bool {
        self.waiting.contains_key(jid)
    }

    /// The directory has answered, with another cluster or (0) none: what has waited for it, in order.
    pub fn located(&mut self, jid: &Bare, cluster: u16) -> Vec<Pending> {
        self.learn(jid, cluster);
        let pending = self.waiting.remove(jid).map(|asked| asked.pending).unwrap_or_default();
        self.pending -= pending.len();
        pending
    }

    /// Keeps in mind what waits for an answer from a cluster, and gives it a number. `None`: there is no room, or no answer.
    pub fn issue(&mut self, now: Time, cluster: u16, control: &Control, here: Seat) -> Option<EdgeRef> {
        let (sent, bytes) = match control {
            Control::Message(message) => (Control::Message(message.clone()), message.frame_bytes()),
            Control::Question(question) => (Control::Question(question.clone()), size_of::<Open>()),
            _ => return None,
        };
        if self.tickets.len() >= TICKETS || self.ticket_bytes + bytes > TICKET_BYTES {
            self.counters.unanswered += 1;
            return None;
        }
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.ticket_bytes += bytes;
        self.tickets.insert(self.next_ticket, Open { cluster, sent, bytes, since: now });
        Some(Ticket::edge(here, self.next_ticket))
    }

    /// A cluster has answered. `None`: nobody waits for that from it.
    pub fn redeem(&mut self, number: u32, cluster: u16) -> Option<Open> {
        let open = self.tickets.get(&number).filter(|open| open.cluster == cluster)?;
        self.ticket_bytes -= open.bytes;
        self.tickets.remove(&number)
    }

    /// A cluster is out of reach: what waits for its answers, and for its directory.
    pub fn lost(&mut self, cluster: u16, directory: u16) -> (Vec<Open>, Vec<Pending>) {
        let numbers: Vec<u32> =
            self.tickets.iter().filter(|(_, open)| open.cluster == cluster).map(|(&number, _)| number).collect();
        let open = numbers.into_iter().filter_map(|number| self.redeem(number, cluster)).collect();
        let pending = if cluster == directory { self.give_up(|_| true) } else { Vec::new() };
        (open, pending)
    }

    /// A home's way could not be sent to a cluster.
    pub fn owe(&mut self, cluster: u16, home: Seat) {
        self.owed.insert((cluster, home));
    }

    /// A cluster is back: the homes that are to send their ways again.
    pub fn owed(&mut self, cluster: u16) -> Vec<Seat> {
        self.owed.extract_if(.., |(of, _)| *of == cluster).map(|(_, home)| home).collect()
    }

    /// What was waited for too long, and when to look again.
    pub fn tick(&mut self, now: Time, out: &mut Outbox) -> (Vec<Open>, Vec<Pending>, Option<Time>) {
        let mut late = Vec::new();
        while let Some(first) = self.tickets.first_entry().filter(|first| first.get().since + ANSWER <= now) {
            self.counters.unanswered += 1;
            self.ticket_bytes -= first.get().bytes;
            late.push(first.remove());
        }
        let pending = self.give_up(|asked| asked.since + GIVE_UP <= now);
        for (jid, asked) in self.waiting.iter_mut().filter(|(_, asked)| asked.asked + ASK_AGAIN <= now) {
            asked.asked = now;
            ask(jid, out);
        }
        let ticket = self.tickets.first_key_value().map(|(_, open)| open.since + ANSWER);
        let question = self.waiting.values().map(|asked| asked.asked + ASK_AGAIN).min();
        (late, pending, [ticket, question].into_iter().flatten().min())
    }

    fn give_up(&mut self, which: impl Fn(&Asked) -> bool) -> Vec<Pending> {
        let pending: Vec<Pending> =
            self.waiting.extract_if(.., |_, asked| which(asked)).flat_map(|(_, asked)| asked.pending).collect();
        self.pending -= pending.len();
        self.counters.given_up += pending.len() as u64;
        pending
    }
}

fn ask(jid: &Bare, out: &mut Outbox) {
    let inquiry = Inquiry::Locate { jid: jid.clone(), by: out.map.cluster };
    out.send(directory_of(jid, out), Control::Directory(Box::new(inquiry)));
}

fn keeps_directory(out: &Outbox) -> bool {
    out.map.directory == out.map.cluster
}

/// Whoever knows whose a name is.
fn directory_of(jid: &Bare, out: &Outbox) -> Seat {
    if keeps_directory(out) { out.map.home_of(jid) } else { Seat::of_cluster(out.map.directory) }
}
