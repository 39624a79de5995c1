//! All nodes, and who lives where.
//!
//! Lives on: the simulator. Invariant: a user is looked for where the shape says that the home is, and nowhere else.

use super::Env;
use super::check::Held;
use super::core::Core;
use super::node::Node;
use super::shape::Shape;
use crate::base::id::{CoreId, NodeId, UserId};
use crate::base::jid::Bare;
use crate::presence::user::User;
use crate::store::memory::Memory;
use crate::store::rows::{self, Row};
use crate::store::{Backend, Commit, Durability, Table, Write};

pub struct Nodes {
    pub nodes: Vec<Node>,
    shape: Shape,
}

impl Nodes {
    pub fn start(env: &mut Env) -> Nodes {
        let shape = env.shape.clone();
        Nodes { nodes: shape.all().map(|number| Node::start(env, number)).collect(), shape }
    }

    pub fn cores(&self) -> impl Iterator<Item = &Core> {
        self.nodes.iter().flat_map(|node| &node.cores)
    }

    /// A user at home.
    pub fn user(&self, jid: &Bare) -> Option<&User> {
        self.nodes[self.shape.home(jid)].user(jid)
    }

    /// A user at home, and the node's life.
    pub fn by_id(&self, user: UserId) -> Option<(&User, u32)> {
        let node = &self.nodes[self.shape.home_of(user)];
        Some((node.by_id(user)?, node.epoch))
    }

    pub fn let_disks_work(&mut self, env: &mut Env) {
        self.nodes.iter_mut().for_each(|node| node.let_disk_work(env));
    }

    /// Some cores take a turn.
    pub fn turn_some(&mut self, env: &mut Env) -> Held {
        self.nodes.iter_mut().try_for_each(|node| node.turn_some(env))
    }

    /// Everything there is to do at this moment, once around.
    pub fn turn_all(&mut self, env: &mut Env) -> Held {
        self.nodes.iter_mut().try_for_each(|node| node.turn_all(env))
    }

    /// Those whose time has come start.
    pub fn revive(&mut self, env: &mut Env) {
        for number in self.shape.all() {
            if self.nodes[number].down_until.is_some_and(|until| until <= env.now || env.calm) {
                self.nodes[number] = Node::start(env, number);
            }
        }
    }

    /// A core that can't reach another node, or another cluster.
    pub fn apart(&self) -> Option<(usize, CoreId, NodeId)> {
        self.cores().find_map(|core| {
            let own = self.shape.cluster_of(core.node);
            let others = self.shape.of_cluster(own).filter(|&other| other != core.node).map(|other| self.shape.site(other).node);
            let clusters = (0..self.shape.clusters).filter(|&cluster| cluster != own);
            let foreign = clusters.map(|cluster| NodeId::of_cluster(1 + cluster as u16));
            let is_found = |node: &NodeId| core.shard.out.peers.get(node).is_some_and(|peer| peer.found);
            let missing = others.chain(foreign).find(|node| !is_found(node))?;
            Some((core.node, core.shard.settings.core, missing))
        })
    }
}

/// What all disks have, each user's rows at the user's home. A way that has arrived at another node has a row at both ends, of
/// which the sender's may be left where a store did not delete it: what counts is that it has arrived.
pub fn all_stored(env: &Env) -> Memory {
    let mut all = Memory::default();
    for disk in &env.disks {
        let has_arrived = |key: &[u8]| all.get(Table::Ways, key).is_some_and(|row| way(row).arrived.is_some());
        let rows = |table| disk.memory.rows(table).filter(move |(key, _)| table != Table::Ways || !has_arrived(key));
        let write = |table, key: &[u8], value: &[u8]| Write { table, key: key.to_vec(), value: Some(value.to_vec()) };
        let all_rows = |table| rows(table).map(move |(key, value)| write(table, key, value));
        let writes: Vec<Write> = Table::ALL.into_iter().flat_map(all_rows).collect();
        all.apply(&[Commit { ticket: 0, writes, durability: Durability::Synced }]).expect("memory without a fault takes it");
    }
    all
}

fn way(row: &[u8]) -> rows::Way {
    rows::Way::decode(row).expect("rows are sound")
}
