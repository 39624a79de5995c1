//! What the operator asks of the thread of owners: how things are, and to change who owns what.
//!
//! Lives on: the thread `fanal-owners`, and the control thread that asks. Serves Z4, M1, G5. Invariant: each question is answered,
//! or whoever asked learns that the thread is gone or busy.

use super::{Desk, Engine, Heard, Keeper, Said};
use crate::admin::{self, MemberState, MemberStatus, OwnersOrder, OwnersStatus};
use crate::base::id::NodeId;
use crate::base::time::Time;
use crate::ownership::{Command, Member, NOBODY, Refusal, State};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How long the control thread waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where an answer goes.
type Reply<T> = SyncSender<T>;

/// What the control thread wants.
pub(super) enum Question {
    Status(Reply<OwnersStatus>),
    Order(OwnersOrder, Reply<Result<String, admin::Refusal>>),
}

/// A node that is to be forgotten, and who wants to hear of it.
pub(super) struct Forgetting {
    node: NodeId,
    reply: Reply<Result<String, admin::Refusal>>,
}

impl Desk {
    /// Who owns which users.
    ///
    /// # Errors
    /// The thread does not answer.
    pub fn status(&self) -> Result<OwnersStatus, admin::Refusal> {
        let (reply, answer) = sync_channel(1);
        self.ask(Question::Status(reply), &answer)
    }

    /// Changes it. What there is to say about that.
    ///
    /// # Errors
    /// It can't be done; the thread does not answer.
    pub fn share_out(&self, order: OwnersOrder) -> Result<String, admin::Refusal> {
        let (reply, answer) = sync_channel(1);
        self.ask(Question::Order(order, reply), &answer)?
    }

    fn ask<T>(&self, question: Question, answer: &Receiver<T>) -> Result<T, admin::Refusal> {
        let slow = || admin::Refusal::Unavailable("the thread that knows who owns which users does not answer: try again".into());
        self.put.try_send(Heard::Question(question)).map_err(|_| slow())?;
        answer.recv_timeout(PATIENCE).map_err(|_| slow())
    }
}

impl Keeper {
    pub(super) fn answer(&mut self, now: Time, question: Question) {
        // Whoever asked may have gone meanwhile.
        match question {
            Question::Status(reply) => _ = reply.try_send(self.status()),
            Question::Order(OwnersOrder::Forget { node, force }, reply) => match self.may_forget(NodeId(node), force) {
                Ok(()) => {
                    let node = NodeId(node);
                    self.forgetting = Some(Forgetting { node, reply });
                    if !self.command(now, Command::Forget(node)) {
                        self.forgot(node, Err(admin::Refusal::Unavailable("etcd's thread is busy: try again".into())));
                    }
                }
                Err(why) => _ = reply.try_send(Err(why)),
            },
            Question::Order(order, reply) => _ = reply.try_send(self.share_out(now, order)),
        }
    }

    fn share_out(&mut self, now: Time, order: OwnersOrder) -> Result<String, admin::Refusal> {
        let (command, said) = match order {
            OwnersOrder::Drain => (Command::Drain, format!("{} is given no more users until it is started again", self.node)),
            _ if !self.terms.take_over => return Err(admin::Refusal::Conflict(Refusal::Stays.to_string())),
            _ => (Command::Rebalance, "users are moving from the fullest nodes to the emptiest".to_owned()),
        };
        if !self.command(now, command) {
            return Err(admin::Refusal::Unavailable("etcd's thread is busy: try again".into()));
        }
        if let (Engine::Etcd(_), Command::Rebalance) = (&self.engine, command) {
            self.say_to(self.others(), &Said::Rebalance);
        }
        Ok(said)
    }

    fn may_forget(&self, node: NodeId, force: bool) -> Result<(), admin::Refusal> {
        let slots = self.slots(node);
        match self.members.get(node) {
            None => Err(admin::Refusal::Missing(Refusal::Unknown(node).to_string())),
            Some(member) if member.is_there() => Err(admin::Refusal::Conflict(Refusal::StillThere(node).to_string())),
            Some(_) if slots > 0 && !self.terms.take_over && !force => Err(admin::Refusal::Conflict(format!(
                "{node} owns {slots} slots of users, whose data are on its disk: they would begin anew, with nothing. Start it \
                 again; or, if that disk is lost, say so with --force (force=true)"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// What has become of forgetting a node, for whoever wanted it.
    pub(super) fn forgot(&mut self, node: NodeId, result: Result<(), admin::Refusal>) {
        if let Some(forgetting) = self.forgetting.take_if(|forgetting| forgetting.node == node) {
            _ = forgetting.reply.try_send(result.map(|()| format!("{node} is forgotten: its number and its slots are free")));
        }
    }

    fn slots(&self, node: NodeId) -> u32 {
        self.owners.iter().filter(|owner| **owner == node).count() as u32
    }

    fn status(&self) -> OwnersStatus {
        let member = |member: &Member| MemberStatus {
            node: member.node.0,
            address: member.link.to_string(),
            state: match member.state {
                State::Serving => MemberState::Serving,
                State::Draining => MemberState::Draining,
                State::Gone => MemberState::Gone,
            },
            slots: self.slots(member.node),
        };
        OwnersStatus {
            kept_by: self.engine.name(),
            irreplaceable: self.irreplaceable.map(|node| node.0),
            away_since_ms: self.away.as_ref().map(|(since, _)| since.0),
            why: self.away.as_ref().map(|(_, why)| why).or(self.not_joined.as_ref()).cloned(),
            joined: self.joined,
            epoch: self.epoch,
            steward: self.steward.0,
            free: self.slots(NOBODY),
            waiting: self.wanted.len() as u32,
            members: self.members.iter().map(member).collect(),
        }
    }
}
