//! Who owns which users, as a node knows it: a part of `GET /cluster`; and what an operator may want of that.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The table of owners and whoever keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OwnersStatus {
    /// "node 1", or "etcd".
    pub kept_by: String,
    /// The node from which nobody takes users over, though the nodes share a database: it keeps the table itself.
    pub irreplaceable: Option<u16>,
    /// Since when that does not answer, in milliseconds since 1970.
    pub away_since_ms: Option<u64>,
    /// What is assigned to this node from this epoch on counts; `None`: it has not joined.
    pub joined: Option<u32>,
    /// Why it does not answer, or this node can't join.
    pub why: Option<String>,
    /// The highest epoch of the table, as it is known here.
    pub epoch: u32,
    /// The node that looks after slots that nobody owns; 0: that is not known.
    pub steward: u16,
    /// Slots that nobody owns.
    pub free: u32,
    /// Slots that this node wants an owner for, and that have none yet.
    pub waiting: u32,
    pub members: Vec<MemberStatus>,
}

/// One of the nodes that the table knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    pub node: u16,
    /// Where other nodes connect to it.
    pub address: String,
    pub state: MemberState,
    /// Slots that it owns, of 65,536.
    pub slots: u32,
}

/// Whether a member is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It is given users.
    Serving,
    /// It is given no more users.
    Draining,
    /// Its lease is over.
    Gone,
}

impl MemberState {
    pub const ALL: [MemberState; 3] = [MemberState::Serving, MemberState::Draining, MemberState::Gone];

    pub fn name(self) -> &'static str {
        match self {
            MemberState::Serving => "serving",
            MemberState::Draining => "draining",
            MemberState::Gone => "gone",
        }
    }
}

/// What an operator wants of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnersOrder {
    /// The node that is asked is given no more users.
    Drain,
    /// Users move from the fullest nodes to the emptiest.
    Rebalance,
    /// A node will never return; with `force` also if its users' data are lost with it.
    Forget { node: u16, force: bool },
}

impl OwnersStatus {
    /// Some lines for people. `ago`: how long ago a time in milliseconds since 1970 was.
    pub(super) fn table(&self, ago: impl Fn(u64) -> String) -> String {
        let OwnersStatus { kept_by, epoch, steward, free, waiting, .. } = self;
        let away = self.away_since_ms.map_or_else(String::new, |since| format!(", AWAY for {}", ago(since)));
        let joined = match self.joined {
            Some(joined) => format!("this node has joined as of epoch {joined}"),
            None => "this node has NOT joined".to_owned(),
        };
        let mut text = format!("\nusers are shared out by {kept_by}{away}, epoch {epoch}; {joined}\n");
        if let Some(why) = &self.why {
            let _ = writeln!(text, "{kept_by}: {why}");
        }
        if let Some(node) = self.irreplaceable {
            let _ =
                writeln!(text, "nobody takes over the users of node {node}: with cluster.coordination = \"etcd\" any node's are");
        }
        for member in &self.members {
            let name = format!("node {}", member.node);
            let slots = if member.slots == 1 { "slot" } else { "slots" };
            let _ = writeln!(text, "{name:<22} {:<22} {:<10} {:>6} {slots}", member.address, member.state.name(), member.slots);
        }
        let after = if *steward == 0 { "nobody".to_owned() } else { format!("node {steward}") };
        let _ = writeln!(text, "{free} slots have no owner yet, {after} looks after them; {waiting} wait for one");
        text
    }
}
