//! How often what happened in a run: so that people and `tests/sim.rs` see that every fault and every part of the protocol really
//! comes up.
//!
//! Lives on: the simulator. Nothing that happens depends on it.

use serde::{Serialize, Serializer};

macro_rules! happenings {
    ($($name:ident, $key:literal, $text:literal;)*) => {
        /// What is counted.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Happening { $(#[doc = $text] $name,)* }

        impl Happening {
            pub const ALL: &'static [Happening] = &[$(Happening::$name),*];

            /// Its name in JSON.
            pub fn key(self) -> &'static str {
                match self { $(Happening::$name => $key,)* }
            }

            /// For people, behind the number.
            pub fn text(self) -> &'static str {
                match self { $(Happening::$name => $text,)* }
            }
        }
    };
}

happenings! {
    Crash, "crashes", "crashes of a node";
    Cut, "cuts", "times that two nodes were cut off from each other for a while";
    OneWayCut, "one_way_cuts", "times that nothing got from a node to another one, and did the other way round";
    LinkMade, "links_made", "connections that nodes have made to each other";
    LinkNotMade, "links_not_made", "connections between nodes that could not be made";
    LinkUpdate, "link_updates", "updates that went from a node to another one";
    Referred, "references", "updates told by reference, to be asked for";
    Crossed, "crossed", "entries that crossed to another cluster";
    Complex, "complex", "complex messages to another cluster";
    Lie, "lies", "lies that a cluster told another one";
    Replayed, "replays", "connections of old lives of nodes that came again";
    OwnerGiven, "owners_given", "slots that got an owner";
    LinkBroken, "links_broken", "connections between nodes that broke, with what was under way";
    Drop, "drops", "connections cut without a word";
    Storm, "storms", "times that everybody was cut off and came back at once";
    SlowReader, "slow_readers", "times that a client stopped reading for a while";
    NetPause, "net_pauses", "times that the network stood still between a client and its core";
    RingStall, "ring_stalls", "times that a core left another core's ring unread for a while";
    DiskPause, "disk_pauses", "times that the disk was slow";
    DiskRefusal, "disk_refusals", "transactions that the disk refused";
    DiskDoubt, "disk_doubts", "transactions whose fate was unknown for a while";
    PortFull, "port_full", "commits that the store had no room for";

    LogIn, "log_ins", "log-ins";
    StreamLogIn, "stream_log_ins", "of them on a trunk's stream";
    PasswordLogIn, "password_log_ins", "of them by password";
    PresentLogIn, "present_log_ins", "of them with a first presence";
    LogOut, "log_outs", "sessions that ended";
    Resume, "resumes", "sessions that were resumed";
    Adoption, "adoptions", "connections that moved to another core";
    Replaced, "replaced", "sessions whose resource another log-in took";
    NeverReads, "never_reads", "connections ended because their client did not read";
    Silent, "silent", "connections ended because nothing came from them";
    LogInTooSlow, "log_in_too_slow", "connections ended because nobody logged in";
    Nonsense, "nonsense", "connections ended because of frames that mean nothing";

    Update, "updates", "updates of presence";
    Crossing, "crossings", "of them to another core, counted for each";
    Delivery, "deliveries", "deliveries of them";
    Conflated, "conflated", "updates kept back for a slow connection";
    PutOff, "put_off", "updates put off because a ring was full";
    Watch, "watches", "publishers that an edge began to watch";
    WatchRefused, "watches_refused", "publishers that an edge was refused";
    LocalSnapshot, "local_snapshots", "subscribers served with what their edge knew already";
    Inactive, "inactive", "times that nobody looked at a client any more";
    Revocation, "revocations", "revocations that another core heard of";
    Probe, "probes", "probes";
    Directed, "directed", "directed presences that arrived";

    Change, "changes", "stored changes";
    ChangeFailed, "changes_failed", "changes that the store did not make";
    WayAgain, "ways_again", "subscription changes that set out again after a crash";
    WayArrivedBefore, "ways_arrived_before", "of them, those that had arrived before";
    Blocked, "blocked", "users blocked";
    UserAdded, "users_added", "users added by the operator";
    UserRemoved, "users_removed", "users removed by the operator";
    Transferred, "transferred", "sessions told to go to another node";

    Message, "messages", "messages";
    MessageTaken, "messages_taken", "of them, taken by a session, counted for each";
    MessageOrdered, "messages_ordered", "of them, taken after another one of the same sender";
    MessageResumed, "messages_resumed", "of them, taken by a session that had been resumed";
    MessageKept, "messages_kept", "of them, stored for a user who took none";
    MessageWaited, "messages_waited", "of them, taken after they had waited";
    DocumentRead, "documents_read", "documents read";
    Carbon, "carbons", "copies of them, taken by another session of the sender or the recipient";
    QuestionTaken, "questions_taken", "of them, questions of one session to another, taken by it";
    MessageReturned, "messages_returned", "messages refused";

    Overloaded, "overloaded", "requests refused because another core had too much to do";
    TooManyPending, "too_many_pending", "changes refused because too many of the same user waited";
    TooManyContacts, "too_many_contacts", "contacts refused because the roster was full";
    TooManyRequests, "too_many_requests", "subscription requests refused because too many waited";
    TooManyBlocked, "too_many_blocked", "blocks refused because the list was full";
    TooManyDirected, "too_many_directed", "directed presences refused because too many are kept in mind";
    TooManyMessages, "too_many_messages", "messages refused because too many were not acknowledged";
    TooManySessions, "too_many_sessions", "log-ins refused because the user had too many sessions";
}

/// One number for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts([u64; Happening::ALL.len()]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; Happening::ALL.len()])
    }
}

impl Counts {
    pub fn add(&mut self, happening: Happening, times: u64) {
        self.0[happening as usize] += times;
    }

    pub fn add_all(&mut self, other: &Counts) {
        self.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.0.iter_mut()
    }

    pub fn of(&self, happening: Happening) -> u64 {
        self.0[happening as usize]
    }

    /// All of them, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = (Happening, u64)> {
        Happening::ALL.iter().copied().zip(self.0)
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(happening, times)| (happening.key(), times)))
    }
}
