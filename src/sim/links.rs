//! The network: each connection is two queues of bytes, cut anywhere, that may stand still for a while. Between nodes it may be cut
//! for longer, in one direction or both: what was sent waits, as TCP sends it again, and nobody is told.
//!
//! Within a connection nothing comes twice or in another order, for it stands for TCP. What does: when one breaks, any part of what
//! was under way may have arrived, and each end finds out for itself; so what its end sends again by the next one has come before,
//! or comes there while the rest of the old one is still read; and several lanes to one node are as late as was drawn for each.
//! `replays` has what comes again of connections long over. Wall clocks are wrong by up to ten minutes (`Shape::skew`).
//!
//! Lives on: the simulator. A link's number stands for the socket's descriptor. Invariant: a queue keeps every byte and its order
//! until it is read or the connection breaks.

use crate::base::random::Random;
use crate::base::time::Time;
use std::collections::{BTreeMap, VecDeque};

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// Nothing can be read before.
    still_until: Time,
}

impl Pipe {
    /// Up to `most` bytes; none when nothing has arrived.
    fn read(&mut self, now: Time, most: usize) -> Vec<u8> {
        if now < self.still_until {
            return Vec::new();
        }
        let count = most.min(self.bytes.len());
        self.bytes.drain(..count).collect()
    }
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Whoever opened it.
    Opener,
    Server,
}

impl End {
    fn far(self) -> End {
        match self {
            End::Opener => End::Server,
            End::Server => End::Opener,
        }
    }
}

/// A connection between a client and a core, or between the cores of two nodes.
struct Link {
    /// From the opener, and from the server.
    pipes: [Pipe; 2],
    /// Whether the opener, and the server, has left.
    gone: [bool; 2],
    /// The nodes of both; an opener that is none is a client.
    nodes: [Option<usize>; 2],
}

impl Link {
    fn new(opener: Option<usize>, server: Option<usize>) -> Link {
        Link { pipes: Default::default(), gone: [false; 2], nodes: [opener, server] }
    }

    fn is_between_nodes(&self) -> bool {
        self.nodes[0].is_some()
    }

    /// From which node to which the bytes that this end reads come.
    fn way_to(&self, end: End) -> Option<(usize, usize)> {
        Some((self.nodes[end.far() as usize]?, self.nodes[end as usize]?))
    }
}

/// All connections.
#[derive(Default)]
pub struct Links {
    links: BTreeMap<i32, Link>,
    next: i32,
    /// From which node to which nothing comes, and until when.
    cuts: BTreeMap<(usize, usize), Time>,
    /// Connections that a node has not accepted yet.
    knocking: VecDeque<(usize, i32)>,
}

impl Links {
    /// A client opens a connection to a node.
    pub fn open(&mut self, to: usize) -> i32 {
        self.insert(Link::new(None, Some(to)))
    }

    /// A node opens a connection to another one, which finds it among those that wait. `None`: there's no way.
    pub fn dial(&mut self, now: Time, from: usize, to: usize) -> Option<i32> {
        if self.is_cut(now, (from, to)) || self.is_cut(now, (to, from)) {
            return None;
        }
        let number = self.insert(Link::new(Some(from), Some(to)));
        self.knocking.push_back((to, number));
        Some(number)
    }

    fn insert(&mut self, link: Link) -> i32 {
        self.next += 1;
        self.links.insert(self.next, link);
        self.next
    }

    /// From which node to which the bytes that this end reads come.
    pub fn way_to(&self, number: i32, end: End) -> Option<(usize, usize)> {
        self.links.get(&number)?.way_to(end)
    }

    pub fn is_between_nodes(&self, number: i32) -> bool {
        self.links.get(&number).is_some_and(Link::is_between_nodes)
    }

    pub fn is_knocking(&self, node: usize) -> bool {
        self.knocking.iter().any(|(to, _)| *to == node)
    }

    /// A connection that another node has opened to this one.
    pub fn knock(&mut self, node: usize) -> Option<i32> {
        let at = self.knocking.iter().position(|(to, _)| *to == node)?;
        self.knocking.remove(at).map(|(_, number)| number)
    }

    /// The link of a number; one that both ends have left is kept as a broken one.
    fn get(&mut self, number: i32) -> &mut Link {
        self.links.entry(number).or_insert_with(|| Link { gone: [true; 2], ..Link::new(None, None) })
    }

    pub fn write(&mut self, number: i32, end: End, bytes: &[u8]) {
        let link = self.get(number);
        if !link.gone[end.far() as usize] {
            link.pipes[end as usize].bytes.extend(bytes);
        }
    }

    /// Bytes that this end has written and the other one has not read.
    pub fn unread(&mut self, number: i32, end: End) -> usize {
        self.get(number).pipes[end as usize].bytes.len()
    }

    /// What this end writes can't be read before.
    pub fn stand_still(&mut self, number: i32, end: End, until: Time) {
        let pipe = &mut self.get(number).pipes[end as usize];
        pipe.still_until = pipe.still_until.max(until);
    }

    /// Up to `most` bytes for this end; none when nothing has arrived.
    pub fn read(&mut self, number: i32, end: End, now: Time, most: usize) -> Vec<u8> {
        if self.hears_nothing(number, end, now) {
            return Vec::new();
        }
        self.get(number).pipes[end.far() as usize].read(now, most)
    }

    /// Whether this end can know that the other one has left; it may have said something before.
    pub fn is_left(&mut self, number: i32, end: End, now: Time) -> bool {
        !self.hears_nothing(number, end, now) && self.get(number).gone[end.far() as usize]
    }

    /// Whether the other end has left and this one has read all that it said.
    pub fn is_over(&mut self, number: i32, end: End, now: Time) -> bool {
        self.is_left(number, end, now) && self.unread(number, end.far()) == 0
    }

    /// This end lets go.
    pub fn leave(&mut self, number: i32, end: End) {
        self.get(number).gone[end as usize] = true;
        if self.links.get(&number).is_some_and(|link| link.gone == [true; 2]) {
            self.links.remove(&number);
        }
    }

    /// A node's machine has crashed: every connection breaks, and what was under way is lost.
    pub fn break_all(&mut self, node: usize) {
        self.knocking.retain(|(to, _)| *to != node);
        for link in self.links.values_mut() {
            for end in [End::Opener, End::Server] {
                if link.nodes[end as usize] == Some(node) {
                    link.gone[end as usize] = true;
                    link.pipes = Default::default();
                }
            }
        }
        self.links.retain(|_, link| link.gone != [true; 2]);
    }

    /// A connection between nodes breaks, and some of what was under way is lost. Each end finds out for itself.
    /// False: there's none.
    pub fn break_one(&mut self, random: &mut Random) -> bool {
        let between = self.links.iter().filter(|(_, link)| link.is_between_nodes() && link.gone == [false; 2]);
        let numbers: Vec<i32> = between.map(|(number, _)| *number).collect();
        let Some(number) = random.pick(&numbers) else { return false };
        let link = self.links.get_mut(number).expect("just listed");
        link.gone = [true; 2];
        for pipe in &mut link.pipes {
            let kept = random.below(pipe.bytes.len() as u64 + 1) as usize;
            pipe.bytes.truncate(kept);
        }
        true
    }

    /// Nothing comes from a node to another one for some time.
    pub fn cut(&mut self, from: usize, to: usize, until: Time) {
        let cut = self.cuts.entry((from, to)).or_default();
        *cut = until.max(*cut);
    }

    fn is_cut(&self, now: Time, way: (usize, usize)) -> bool {
        self.cuts.get(&way).is_some_and(|until| now < *until)
    }

    fn hears_nothing(&mut self, number: i32, end: End, now: Time) -> bool {
        let way = self.get(number).way_to(end);
        way.is_some_and(|way| self.is_cut(now, way))
    }

    /// Whether bytes are under way that somebody will still read.
    pub fn are_busy(&self) -> bool {
        let is_read = |link: &Link, end: End| !link.pipes[end.far() as usize].bytes.is_empty() && !link.gone[end as usize];
        !self.knocking.is_empty() || self.links.values().any(|link| is_read(link, End::Opener) || is_read(link, End::Server))
    }

    /// Clients' connections whose server end is open.
    pub fn held_by_servers(&self) -> usize {
        self.links.values().filter(|link| !link.is_between_nodes() && !link.gone[End::Server as usize]).count()
    }

    /// Takes every delay away, and every cut.
    pub fn calm(&mut self) {
        self.cuts.clear();
        for link in self.links.values_mut() {
            link.pipes.iter_mut().for_each(|pipe| pipe.still_until = Time::ZERO);
        }
    }
}
