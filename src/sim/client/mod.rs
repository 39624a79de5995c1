//! A simulated client: a state machine on the client library's codec, whose connection is two queues of bytes.
//!
//! Lives on: the simulator. `act` is what it does of its own will, `hear` what it makes of what it's told, `session` what it knows.
//! Invariant: it keeps to the protocol, but for a client that talks nonsense on purpose.

mod act;
mod hear;
mod session;

pub use session::{Known, Said, Seen, Session};

use super::Env;
use super::counts::Happening;
use super::links::End;
use super::nodes::Nodes;
use crate::base::time::Time;
use crate::client::codec::Codec;
use crate::wire::encode::{Encoder, Tag};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Greeting,
    /// A trunk waits for the answer to this request.
    Authorising(u32),
    Ready,
}

pub struct Client {
    pub number: usize,
    trunk: bool,
    /// The one whose users it is for, counted from 0.
    pub cluster: usize,
    pub link: Option<i32>,
    stage: Stage,
    codec: Codec,
    encoder: Encoder,
    requests: u32,
    /// By stream; 0 for a connection of its own.
    pub sessions: BTreeMap<u32, Session>,
    /// Sessions whose connection broke, to go on with.
    lost: Vec<Session>,
    /// It reads nothing before.
    reads_from: Time,
}

impl Client {
    pub fn new(number: usize, trunk: bool, cluster: usize) -> Client {
        Client {
            number,
            trunk,
            cluster,
            link: None,
            stage: Stage::Greeting,
            codec: Codec::default(),
            encoder: Encoder::default(),
            requests: 0,
            sessions: BTreeMap::new(),
            lost: Vec::new(),
            reads_from: Time::ZERO,
        }
    }

    fn request(&mut self) -> u32 {
        self.requests += 1;
        self.requests
    }

    /// Sends frames.
    fn say(&mut self, env: &mut Env, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let Some(number) = self.link else { return };
        let mut bytes = Vec::new();
        write(&mut self.encoder, &mut bytes);
        env.links.write(number, End::Opener, &bytes);
        if !env.calm && env.random.below(1000) < env.mix.net_pause {
            let until = env.now + env.mix.pause.mul_f64(env.random.unit());
            env.links.stand_still(number, End::Opener, until);
            env.counts.add(Happening::NetPause, 1);
        }
    }

    /// Connects to a core of a node, whichever takes it, and says Hello.
    pub fn connect(&mut self, env: &mut Env, nodes: &mut Nodes) {
        let up: Vec<usize> = env.shape.of_cluster(self.cluster).filter(|&node| env.is_up[node]).collect();
        let at = if up.len() > 1 { env.random.below(up.len() as u64) as usize } else { 0 };
        let Some(&node) = up.get(at) else { return };
        let cores = &mut nodes.nodes[node].cores;
        let core = env.random.below(cores.len() as u64) as usize;
        let link = env.links.open(node);
        if !cores[core].accept(env, link) {
            env.links.leave(link, End::Server);
            env.links.leave(link, End::Opener);
            return;
        }
        env.trace.note(env.now, format_args!("client {} connects to core {core} of node {node}", self.number));
        self.link = Some(link);
        self.stage = Stage::Greeting;
        let tag = Tag::request(self.request());
        self.say(env, |encoder, out| encoder.hello(out, tag, "sim"));
    }

    /// The connection is gone, whoever ended it. Its sessions may be resumed.
    pub fn lose_connection(&mut self, env: &mut Env) {
        let Some(link) = self.link.take() else { return };
        env.links.leave(link, End::Opener);
        self.codec = Codec::default();
        self.lost.extend(std::mem::take(&mut self.sessions).into_values().filter(|session| session.open));
    }

    /// Its connection breaks without a word.
    pub fn die(&mut self, env: &mut Env) {
        if self.link.is_some() {
            env.trace.note(env.now, format_args!("client {} dies", self.number));
            env.count(Happening::Drop);
            self.lose_connection(env);
        }
    }
}
