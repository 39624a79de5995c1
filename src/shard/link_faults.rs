//! What the log hears of links: who is found and who is out of reach, and why a link comes to nothing, which is counted by reason
//! and kept for whoever asks after a node.
//!
//! Lives on: every core of a node that has links. Serves Z2, G4, G5. Invariants: what strangers do is counted and said, and never
//! kept by their names; the log hears why of one peer every [`QUIET`] at most, and of the same reason once until it was better;
//! of who is found and lost it hears from one core.

use super::Shard;
use super::connection::Doorway;
use super::links::{Far, Lane};
use crate::base::id::{ConnId, CoreId};
use crate::base::reason::LinkReason;
use crate::base::time::Time;
use crate::front::translate::Translate;
use crate::link::refuse;
use crate::wire::link::Site;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long the log hears nothing more of a peer.
const QUIET: Duration = Duration::from_secs(10);

/// What a core knows of them.
#[derive(Default)]
pub(super) struct Faults {
    /// Connections turned away or ended, by reason, and whose TLS has failed.
    pub counts: BTreeMap<LinkReason, u64>,
    pub tls_failed: u64,
    /// By configured peer; one place for everybody else.
    said: BTreeMap<Option<Site>, Said>,
    remarks: Vec<Remark>,
}

/// A line for the log.
#[derive(PartialEq, Eq, Debug)]
pub struct Remark {
    pub text: String,
    /// Something for an operator to look at.
    pub warns: bool,
}

/// What was said of a peer last.
struct Said {
    why: String,
    /// When the log heard of it.
    logged: Option<Time>,
    is_new: bool,
}

impl Faults {
    /// Why the last connection of a peer came to nothing.
    pub fn why(&self, site: Site) -> Option<&str> {
        self.said.get(&Some(site)).map(|said| &*said.why)
    }

    /// The same of whoever is not configured, or has not said who it is.
    pub fn stranger(&self) -> Option<&str> {
        self.said.get(&None).map(|said| &*said.why)
    }

    /// A peer's link is up.
    pub fn better(&mut self, site: Site) {
        self.said.remove(&Some(site));
    }

    /// The log is to hear this, and an operator to look at it.
    pub fn warn(&mut self, text: String) {
        self.remarks.push(Remark { text, warns: true });
    }

    /// The log is to hear this.
    fn note(&mut self, text: String) {
        self.remarks.push(Remark { text, warns: false });
    }

    fn say(&mut self, now: Time, peer: Option<Site>, from: Option<IpAddr>, why: &str) {
        let why = from.map_or_else(|| why.to_owned(), |from| format!("from {from}: {why}"));
        let said = self.said.entry(peer).or_insert_with(|| Said { why: String::new(), logged: None, is_new: true });
        if said.why != why {
            (said.why, said.is_new) = (why, true);
        }
        if said.is_new && said.logged.is_none_or(|logged| logged + QUIET <= now) {
            (said.logged, said.is_new) = (Some(now), false);
            let remark = match peer {
                Some(peer) => format!("the link with {peer}: {}", said.why),
                None => format!("a link {}", said.why),
            };
            self.warn(remark);
        }
    }
}

impl Shard {
    /// What is to be said in the log.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.link_faults.remarks)
    }

    /// A node is found: each core knows, one says so.
    pub(super) fn say_found(&mut self, site: Site) {
        if self.settings.core == CoreId(0) {
            let at = self.address_of(site).map(|address| format!(" at {address}")).unwrap_or_default();
            self.link_faults.note(format!("{site} is found{at}"));
        }
    }

    /// A node that was found is out of reach.
    pub(super) fn say_lost(&mut self, site: Site) {
        if self.settings.core == CoreId(0) {
            self.link_faults.warn(format!("{site} is out of reach"));
        }
    }

    /// The translator of a connection that was made for a lane. `None`: there can be none, and the lane knows it.
    pub(super) fn dial_securely(&mut self, now: Time, lane: Lane) -> Option<Option<Box<dyn Translate>>> {
        let machine = self.links.lane(lane)?;
        let dialled = self.settings.doors.dial_link(machine.ends().peer);
        dialled.inspect_err(|_| machine.dial_failed(now)).ok()
    }

    /// Refuses a connection that is no lane's. `from`: who it says to be.
    pub(super) fn turn_away(&mut self, now: Time, conn: ConnId, from: Option<Site>, reason: LinkReason) {
        refuse(conn, reason, &mut self.out.lines);
        self.translators.end(conn.slot);
        *self.link_faults.counts.entry(reason).or_default() += 1;
        let known = from.filter(|from| self.is_known(*from));
        self.link_faults.say(now, known, Some(self.peers[conn.slot as usize]), reason.text());
    }

    /// A lane's connection was refused, or has ended.
    pub(super) fn link_ended(&mut self, now: Time, site: Site, reason: LinkReason) {
        *self.link_faults.counts.entry(reason).or_default() += 1;
        let is_ordinary = matches!(
            reason,
            LinkReason::Replaced | LinkReason::OlderDial | LinkReason::Untold | LinkReason::Leaving | LinkReason::OtherLane
        );
        if !is_ordinary {
            self.link_faults.say(now, Some(site), None, reason.text());
        }
    }

    /// What lies between a connection and its peer has failed, or has ended. False: it's no link's.
    pub(super) fn link_broken(&mut self, now: Time, conn: ConnId, fault: Option<String>) -> bool {
        let known = match self.connection(conn).map(|connection| &connection.door) {
            Some(&Doorway::Link(Far::Lane(site, lane))) => {
                self.link_lost(now, conn, site, lane);
                Some(site)
            }
            Some(Doorway::Link(Far::Unknown(_))) => None,
            _ => return false,
        };
        if let Some(why) = fault {
            self.link_faults.tls_failed += 1;
            let from = known.is_none().then(|| self.peers[conn.slot as usize]);
            self.link_faults.say(now, known, from, &format!("TLS has failed: {why}"));
        }
        self.shut(conn);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::NodeId;

    #[test]
    fn the_log_hears_of_each_thing_once_and_of_nobody_too_often() {
        let (mut faults, later) = (Faults::default(), Time::ZERO + QUIET);
        let mut say = |now, peer, why: &str| {
            faults.say(now, peer, None, why);
            faults.remarks.drain(..).count()
        };
        let site = |node| Site { cluster: 1, node: NodeId(node) };
        let two = Some(site(2));
        assert_eq!([say(Time::ZERO, two, "a"), say(Time::ZERO, two, "a"), say(later, two, "a")], [1, 0, 0]);
        assert_eq!([say(Time::ZERO, None, "a"), say(Time::ZERO, None, "b"), say(Time::ZERO, None, "c")], [1, 0, 0]);
        assert_eq!([say(later, None, "c"), say(later + QUIET, None, "c")], [1, 0], "what was left out is said later");
        assert_eq!([faults.why(site(2)), faults.why(site(3)), faults.stranger()], [Some("a"), None, Some("c")]);
        faults.better(site(2));
        assert_eq!((faults.why(site(2)), faults.said.len()), (None, 1), "and strangers have one place");
    }
}
