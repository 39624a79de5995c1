//! How a core's links come about: connections it makes to other nodes, and those that other nodes make to its own.
//!
//! Lives on: the simulator. Serves G4. Invariant: each dial is answered once, some time later; a node that is down, or to which
//! there's no way, is not reached.

use super::Env;
use super::core::Core;
use super::counts::Happening;
use super::links::End;
use crate::base::time::Time;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The listener of links.
pub const LINK_LISTENER: usize = 1;

/// A connection that is being made.
pub struct Dialling {
    due: Time,
    token: u64,
    address: SocketAddr,
}

impl Core {
    /// Takes the connections that other nodes have made to this one, if it is the core that the kernel gives them to.
    pub(super) fn meet(&mut self, env: &mut Env) {
        while env.links.is_knocking(self.node) && (env.calm || env.random.one_in(2)) {
            let Some(link) = env.links.knock(self.node) else { return };
            match self.shard.accepted(env.now, IpAddr::V4(Ipv4Addr::LOCALHOST), LINK_LISTENER) {
                Some(id) => self.install(id, link, End::Server),
                None => env.links.leave(link, End::Server),
            }
        }
        let is_due = |dialling: &mut Dialling| dialling.due <= env.now || env.calm;
        let due: Vec<Dialling> = self.dialling.extract_if(.., is_due).collect();
        for Dialling { token, address, .. } in due {
            self.dialled(env, token, address);
        }
    }

    fn dialled(&mut self, env: &mut Env, token: u64, address: SocketAddr) {
        let to = env.shape.at(address).filter(|&to| env.is_up[to]);
        let link = to.and_then(|to| env.links.dial(env.now, self.node, to));
        let made = self.shard.dialled(env.now, token, link.map(|_| address));
        env.count(if link.is_some() { Happening::LinkMade } else { Happening::LinkNotMade });
        match (link, made) {
            (Some(link), Some(id)) => self.install(id, link, End::Opener),
            (Some(link), None) => env.links.leave(link, End::Opener),
            (None, _) => {}
        }
    }

    /// Begins the connections that the shard wants.
    pub(super) fn dial(&mut self, env: &mut Env) {
        for (token, address) in self.shard.take_dials() {
            let due = env.now + env.mix.pause.mul_f64(env.random.unit());
            self.dialling.push(Dialling { due, token, address });
        }
    }
}
