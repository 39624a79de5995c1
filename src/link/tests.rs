//! Two machines with a network between them that does what it likes; `hostile`: one with a peer that does what it may not.

mod hostile;

use super::*;
use crate::base::id::NodeId;
use crate::base::random::Random;
use crate::base::time::Time;
use crate::wire::frame::{Chunk, HEADER_BYTES};
use proptest::prelude::*;
use std::collections::VecDeque;

const LOW: Site = Site { cluster: 1, node: NodeId(1) };
const HIGH: Site = Site { cluster: 1, node: NodeId(2) };
const MS: u64 = 1_000_000;

fn settings() -> Settings {
    let link = Link { entries: 40, entry_bytes: 65_536, ..Link::default() };
    Settings::new(&link, &Limits { trunk_high_water_bytes: 4096, ..Limits::default() })
}

fn ends(me: Site, peer: Site, epoch: u64) -> Ends {
    Ends { me, peer, lane: 0, cores: 2, epoch, digest: [0; 32], dials: me < peer }
}

/// One end with its lines, and what its owner has heard and said.
struct End {
    machine: Machine,
    lines: Lines,
    site: Site,
    peer: Site,
    epoch: u64,
    /// Which of its pairs its entries belong to, and how many of them were sent and delivered in it.
    generation: u32,
    sent: u32,
    /// The peer's generation that entries came from last, and the next of its entries.
    heard: Option<(u32, u32)>,
    wants_dial: bool,
    events: Vec<Notice>,
    others: Vec<Vec<u8>>,
}

impl End {
    fn new(site: Site, peer: Site) -> End {
        let machine = Machine::new(Time(0), ends(site, peer, 1), settings(), Random::new(u64::from(site.node.0)));
        let (events, others) = (Vec::new(), Vec::new());
        let (lines, wants_dial, heard) = (Lines::default(), false, None);
        End { machine, lines, site, peer, epoch: 1, generation: 0, sent: 0, heard, wants_dial, events, others }
    }

    fn restart(&mut self, now: Time) {
        self.epoch += 1;
        self.machine = Machine::new(now, ends(self.site, self.peer, self.epoch), settings(), Random::new(self.epoch));
        self.new_pair();
        (self.wants_dial, self.heard) = (false, None);
    }

    fn new_pair(&mut self) {
        (self.generation, self.sent) = (self.generation + 1, 0);
    }

    /// Entries say which they are.
    fn send(&mut self) -> Result<(), Refused> {
        let entry = [self.generation.to_le_bytes(), self.sent.to_le_bytes()].concat();
        self.machine.send(&entry, &mut self.lines)?;
        self.sent += 1;
        Ok(())
    }

    fn received(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let mut chunk = Chunk::new(bytes);
        let mut notices = Vec::new();
        while let Some(incoming) = self.machine.next(now, conn, &mut chunk, &mut self.lines) {
            match incoming {
                Incoming::Entry(entry) => {
                    let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
                    let came = (number(0), number(4));
                    let next =
                        self.heard.filter(|(generation, _)| *generation == came.0).map_or((came.0, 0), |(g, next)| (g, next));
                    assert!(self.heard.is_none_or(|(generation, _)| generation <= came.0), "an older pair's entry");
                    assert_eq!(came, next, "once and in order");
                    self.heard = Some((came.0, came.1 + 1));
                }
                Incoming::Update { bytes, .. } | Incoming::Complex(bytes) => self.others.push(bytes.to_vec()),
                Incoming::Notice(notice) => notices.push(notice),
                Incoming::Nothing => {}
            }
        }
        notices.into_iter().for_each(|notice| self.notice(notice));
    }

    fn notice(&mut self, notice: Notice) {
        match &notice {
            Notice::Dial => self.wants_dial = true,
            Notice::Restarted { unknown, .. } | Notice::Lost { unknown } => {
                assert!(*unknown <= self.sent as usize, "of this pair's");
                self.new_pair();
            }
            _ => {}
        }
        self.events.push(notice);
    }

    fn notices(&mut self) {
        while let Some(notice) = self.machine.notice() {
            self.notice(notice);
        }
    }

    fn tick(&mut self, now: Time) {
        self.machine.tick(now, &mut self.lines);
        self.notices();
    }

    fn events(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.events)
    }
}

/// A connection: a line at either end, and what is under way to it.
struct Wire {
    at: [Option<ConnId>; 2],
    under_way: [VecDeque<u8>; 2],
    /// Nothing gets through to this end until the cut is healed.
    cut: [bool; 2],
}

struct World {
    now: Time,
    ends: [End; 2],
    wires: Vec<Wire>,
}

impl World {
    fn new() -> World {
        World { now: Time(1), ends: [End::new(LOW, HIGH), End::new(HIGH, LOW)], wires: Vec::new() }
    }

    fn dial(&mut self) {
        let marks = settings().marks();
        let [low, high] = &mut self.ends;
        low.wants_dial = false;
        let at = [low.lines.open(marks), high.lines.open(marks)];
        low.machine.dialled(self.now, at[0], &mut low.lines);
        high.machine.accepted(self.now, at[1], &mut high.lines);
        self.wires.push(Wire { at: at.map(Some), under_way: Default::default(), cut: [false; 2] });
    }

    /// Puts what an end has gathered for a connection on its way, and up to `most` bytes of it into the other end.
    fn carry(&mut self, wire: usize, to: usize, most: usize) {
        let Wire { at, under_way, cut } = &mut self.wires[wire];
        let sender = &mut self.ends[1 - to].lines;
        if let Some(conn) = at[1 - to]
            && let Some(bytes) = sender.take(conn.slot)
        {
            under_way[to].extend(&bytes);
            sender.sent(conn.slot, bytes);
        }
        let count = if cut[to] { 0 } else { most.min(under_way[to].len()) };
        let bytes: Vec<u8> = under_way[to].drain(..count).collect();
        if let Some(conn) = at[to] {
            self.ends[to].received(self.now, conn, &bytes);
        }
        self.sweep(wire);
    }

    /// Closes what asked for it, and tells the other end when everything before has come.
    fn sweep(&mut self, wire: usize) {
        for from in [0, 1] {
            let Wire { at, under_way, cut } = &mut self.wires[wire];
            let lines = &mut self.ends[from].lines;
            if let Some(conn) = at[from].take_if(|conn| lines.may_close(conn.slot)) {
                lines.release(conn.slot, None);
                self.ends[from].machine.disconnected(self.now, conn);
            }
            if at[from].is_none() && under_way[1 - from].is_empty() && !cut[1 - from] {
                self.drop_end(wire, 1 - from);
            }
        }
    }

    fn drop_end(&mut self, wire: usize, end: usize) {
        if let Some(conn) = self.wires[wire].at[end].take() {
            let end = &mut self.ends[end];
            end.lines.release(conn.slot, None);
            end.machine.disconnected(self.now, conn);
            end.notices();
        }
    }

    fn restart(&mut self, end: usize) {
        for wire in 0..self.wires.len() {
            // Its kernel closes what it had.
            self.wires[wire].at[end].take().into_iter().for_each(|conn| self.ends[end].lines.release(conn.slot, None));
        }
        self.ends[end].restart(self.now);
    }

    /// A network that works, for so long.
    fn calm(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now = Time(self.now.0 + 10 * MS);
            self.ends.iter_mut().for_each(|end| end.tick(self.now));
            if self.ends[0].wants_dial {
                self.dial();
            }
            for wire in 0..self.wires.len() {
                for to in [0, 1, 0, 1] {
                    self.carry(wire, to, usize::MAX);
                }
            }
            self.wires.retain(|wire| wire.at != [None, None]);
        }
    }

    fn up() -> World {
        let mut world = World::new();
        world.calm(500);
        for end in &mut world.ends {
            assert!(matches!(end.events().last(), Some(Notice::Up { alike: true, .. })));
        }
        world
    }

    fn delivered_all(&self) -> bool {
        (0..2).all(|from| {
            let (sender, receiver) = (&self.ends[from], &self.ends[1 - from]);
            sender.sent == 0 || receiver.heard == Some((sender.generation, sender.sent))
        })
    }
}

#[test]
fn z13_a_short_break_shows_nothing_and_loses_nothing() {
    let mut world = World::up();
    world.ends.iter_mut().for_each(|end| (0..5).for_each(|_| end.send().unwrap()));
    world.carry(0, 1, 61);
    world.drop_end(0, 0);
    world.drop_end(0, 1);
    world.ends.iter_mut().for_each(|end| end.send().unwrap());
    world.calm(1000);
    assert!(world.delivered_all());
    for end in &mut world.ends {
        assert_eq!(end.events().into_iter().filter(|event| *event != Notice::Dial).collect::<Vec<_>>(), [Notice::Resumed]);
        let counters = end.machine.counters();
        assert_eq!((counters.resumed, counters.losses, end.machine.kept()), (1, 0, (0, 0)));
        assert!(counters.rtt_ns > 0 || counters.entries_repeated > 0);
    }
}

#[test]
fn z13_a_peer_that_is_silent_for_longer_than_the_grace_is_lost_once_within_three_seconds_at_both_ends() {
    let mut world = World::up();
    world.ends[0].send().unwrap();
    let since = world.now;
    world.wires[0].cut = [true; 2];
    world.carry(0, 1, 0);
    let mut lost = [None; 2];
    while world.now < since + Duration::from_secs(10) {
        world.now = Time(world.now.0 + 10 * MS);
        for (at, end) in world.ends.iter_mut().enumerate() {
            end.tick(world.now);
            for event in end.events() {
                if let Notice::Lost { unknown } = event {
                    assert_eq!((lost[at].replace(world.now), unknown), (None, 1 - at));
                }
            }
        }
    }
    assert!(lost.iter().all(|at| at.is_some_and(|at| at - since < Duration::from_secs(3))), "{lost:?}");
    assert_eq!(world.ends[0].send(), Err(Refused::Down));
}

#[test]
fn a_cut_in_one_direction_is_noticed_at_both_ends() {
    for deaf in [0, 1] {
        let mut world = World::up();
        world.wires[0].cut[deaf] = true;
        let mut ended = [false; 2];
        for _ in 0..170 {
            world.now = Time(world.now.0 + 10 * MS);
            for (at, ended) in ended.iter_mut().enumerate() {
                world.ends[at].tick(world.now);
                *ended |= world.ends[at].events().contains(&Notice::Ended(LinkReason::Silent));
            }
            [0, 1].into_iter().for_each(|to| world.carry(0, to, usize::MAX));
            for (at, ended) in ended.iter_mut().enumerate() {
                *ended |= world.ends[at].events().contains(&Notice::Ended(LinkReason::Silent));
            }
        }
        assert_eq!(ended, [true; 2]);
    }
}

#[test]
fn an_end_that_stood_still_does_not_blame_its_peer() {
    let mut world = World::up();
    world.now = world.now + Duration::from_secs(20);
    world.ends[1].tick(world.now);
    assert_eq!(world.ends[1].events(), []);
    assert!(world.ends[1].machine.conn().is_some());
}

#[test]
fn a_peer_that_has_restarted_is_another_one_and_what_it_never_acknowledged_is_counted() {
    let mut world = World::up();
    world.ends[0].send().unwrap();
    world.restart(1);
    world.calm(1000);
    let events = world.ends[0].events();
    let restarted: Vec<_> = events.iter().filter(|event| matches!(event, Notice::Restarted { .. })).collect();
    assert!(matches!(restarted[..], [Notice::Restarted { life: Life { epoch: 2, .. }, unknown: 1, .. }]));
    assert!(matches!(world.ends[1].events().last(), Some(Notice::Up { .. })));
    world.ends.iter_mut().for_each(|end| end.send().unwrap());
    world.calm(100);
    assert!(world.delivered_all());
}

/// Found by the property below: the peer would have gone on with the old numbers, and taken the new entries for old ones.
#[test]
fn a_welcome_to_a_life_that_was_given_up_meanwhile_is_not_taken() {
    let mut world = World::up();
    world.ends[0].send().unwrap();
    world.calm(50);
    world.dial();
    world.ends[0].machine.accuse(LinkReason::BadFrame);
    world.ends[0].tick(world.now);
    world.calm(3000);
    assert!(world.ends[1].events().iter().any(|event| matches!(event, Notice::Restarted { .. })));
    world.ends.iter_mut().for_each(|end| end.send().unwrap());
    world.calm(100);
    assert!(world.delivered_all());
}

#[test]
fn one_that_leaves_is_lost_at_once() {
    let mut world = World::up();
    let [_, high] = &mut world.ends;
    high.machine.leave(&mut high.lines);
    world.carry(0, 0, usize::MAX);
    world.ends[0].notices();
    assert_eq!(world.ends[0].events()[..2], [Notice::Ended(LinkReason::Leaving), Notice::Lost { unknown: 0 }]);
}

#[test]
fn a_lane_that_is_renounced_begins_anew_at_both_ends() {
    for is_connected in [true, false] {
        let mut world = World::up();
        world.ends[0].send().unwrap();
        if !is_connected {
            let conn = world.ends[0].machine.conn().unwrap();
            world.ends[0].machine.disconnected(world.now, conn);
        }
        let end = &mut world.ends[0];
        end.machine.renounce(world.now, LinkReason::OtherLane, &mut end.lines);
        assert!(!end.machine.is_up());
        end.notices();
        assert_eq!(end.events().last(), Some(&Notice::Lost { unknown: 1 }));
        world.calm(3000);
        assert!(world.ends[1].events().iter().any(|event| matches!(event, Notice::Restarted { .. })), "{is_connected}");
        world.ends.iter_mut().for_each(|end| end.send().unwrap());
        world.calm(100);
        assert!(world.delivered_all());
    }
}

#[test]
fn of_two_connections_the_one_dialled_later_wins_in_whichever_order_they_come() {
    for order in [[0, 1], [1, 0]] {
        let mut world = World::up();
        world.dial();
        world.dial();
        let [low, high] = &mut world.ends;
        let newest = world.wires[2].at;
        // The acceptor hears of both at once; only the last is on trial.
        for wire in order {
            let hello = low.lines.take(world.wires[1 + wire].at[0].unwrap().slot).unwrap_or_default();
            let conn = world.wires[1 + wire].at[1].unwrap();
            high.received(world.now, conn, &hello);
            low.lines.sent(world.wires[1 + wire].at[0].unwrap().slot, hello);
        }
        assert_eq!(high.machine.conn(), newest[1]);
        world.calm(100);
        assert_eq!([0, 1].map(|end| world.ends[end].machine.conn()), newest);
        world.ends.iter_mut().for_each(|end| end.send().unwrap());
        world.calm(100);
        assert!(world.delivered_all());
    }
}

#[test]
fn what_waits_is_bounded_and_updates_stop_while_the_line_is_slow() {
    let mut world = World::up();
    world.wires[0].cut = [true; 2];
    let [low, _] = &mut world.ends;
    assert_eq!((0..).find_map(|sent| low.send().err().map(|refused| (sent, refused))), Some((40, Refused::Full)));
    assert_eq!((low.machine.counters().refused, Refused::Full.reason()), (1, Reason::Overloaded));
    let taken = (0..1000).filter(|_| low.machine.update(7, &[0; 80], &mut low.lines)).count();
    assert!((20..60).contains(&taken), "{taken}");
    assert_eq!(low.machine.counters().put_off, 1000 - taken as u64);
    assert_eq!((low.machine.is_ready(&low.lines), low.lines.take_overrun()), (false, Vec::new()));
    assert_eq!(low.machine.send(&vec![0; 18 << 20], &mut low.lines), Err(Refused::TooLong));
}

/// Z13: whoever can't say what must not be lost says nothing more, and both ends begin anew.
#[test]
fn z13_a_lane_that_is_full_ends_for_that_reason_and_nothing_goes_out_behind_what_was_lost() {
    let full = |world: &mut World| {
        while world.ends[0].send().is_ok() {}
        world.ends[0].machine.overflow(Refused::Full);
        assert_eq!(world.ends[0].machine.deadline(), Time::ZERO, "at once");
        let End { machine, lines, .. } = &mut world.ends[0];
        assert_eq!((machine.send(b"behind", lines), machine.update(0, b"behind", lines)), (Err(Refused::Down), false));
        world.ends[0].tick(world.now);
        let counters = world.ends[0].machine.counters();
        assert_eq!((counters.overflows, counters.violations, counters.entries_returned), (1, 0, 40));
        let events = world.ends[0].events();
        assert!(events.ends_with(&[Notice::Ended(LinkReason::LaneFull), Notice::Lost { unknown: 40 }]), "{events:?}");
    };
    let mut world = World::up();
    world.wires[0].cut = [true; 2];
    full(&mut world);
    world.wires[0].cut = [false; 2];
    world.calm(1000);
    assert!(world.ends[1].events().contains(&Notice::Ended(LinkReason::LaneFull)), "the other end hears why");
    assert!(world.ends.iter().all(|end| end.machine.is_ready(&end.lines)));
    assert!(world.ends[1].others.is_empty());
    let mut world = World::up();
    [0, 1].into_iter().for_each(|end| world.drop_end(0, end));
    full(&mut world);
    world.calm(1000);
    assert!(world.ends[1].events().iter().any(|event| matches!(event, Notice::Restarted { .. })), "during a short break, too");
}

#[test]
fn updates_and_complex_messages_arrive_as_they_are() {
    let mut world = World::up();
    let End { machine, lines, .. } = &mut world.ends[0];
    assert!(machine.update(9, b"update", lines) && machine.complex(b"loose", lines));
    machine.send_complex(b"tight", lines).unwrap();
    world.calm(50);
    assert_eq!(world.ends[1].others, [&b"update"[..], b"loose", b"tight"]);
    assert_eq!(world.ends[0].machine.kept(), (0, 0), "the numbered one was acknowledged");
}

/// What the network does next.
#[derive(Clone, Debug)]
enum Step {
    Send { end: usize, count: usize },
    Carry { wire: usize, to: usize, most: usize },
    Cut { wire: usize, to: usize },
    Drop { wire: usize, end: usize },
    Wait { end: usize, ms: u64 },
    DialAgain,
    Restart { end: usize },
    Calm { ms: u64 },
    Noise { wire: usize, to: usize, byte: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (end, wire) = (0..2usize, 0..4usize);
    prop_oneof![
        4 => (end.clone(), 1..20usize).prop_map(|(end, count)| Step::Send { end, count }),
        8 => (wire.clone(), end.clone(), 1..200usize).prop_map(|(wire, to, most)| Step::Carry { wire, to, most }),
        1 => (wire.clone(), end.clone()).prop_map(|(wire, to)| Step::Cut { wire, to }),
        2 => (wire.clone(), end.clone()).prop_map(|(wire, end)| Step::Drop { wire, end }),
        4 => (end.clone(), 1..900u64).prop_map(|(end, ms)| Step::Wait { end, ms }),
        2 => Just(Step::DialAgain),
        1 => end.clone().prop_map(|end| Step::Restart { end }),
        3 => (10..3000u64).prop_map(|ms| Step::Calm { ms }),
        1 => (wire, end, any::<u8>()).prop_map(|(wire, to, byte)| Step::Noise { wire, to, byte }),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        let wires = self.wires.len().max(1);
        match *step {
            Step::Send { end, count } => (0..count).for_each(|_| self.ends[end].send().unwrap_or_default()),
            Step::DialAgain => self.dial(),
            Step::Restart { end } => self.restart(end),
            Step::Calm { ms } => self.calm(ms),
            // One end's clock goes, and the other's stands still.
            Step::Wait { end, ms } => {
                self.now = Time(self.now.0 + ms * MS);
                self.ends[end].tick(self.now);
            }
            _ if self.wires.is_empty() => {}
            Step::Carry { wire, to, most } => self.carry(wire % wires, to, most),
            Step::Cut { wire, to } => self.wires[wire % wires].cut[to] = true,
            Step::Drop { wire, end } => self.drop_end(wire % wires, end),
            Step::Noise { wire, to, byte } => self.wires[wire % wires].under_way[to].extend([byte; HEADER_BYTES]),
        }
        self.ends.iter_mut().for_each(End::notices);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the network does: within one life entries come once and in order (`End::received` asserts it), what is kept is
    /// bounded, and when the network behaves again everything sent since arrives.
    #[test]
    fn entries_arrive_once_and_in_order_whatever_the_network_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            for end in &world.ends {
                let (entries, bytes) = end.machine.kept();
                prop_assert!(entries <= 40 && bytes <= 65_536);
            }
        }
        world.wires.iter_mut().for_each(|wire| wire.cut = [false; 2]);
        world.calm(20_000);
        for end in &mut world.ends {
            prop_assert!(end.machine.is_up() && end.machine.conn().is_some());
            prop_assert!(end.send().is_ok());
        }
        world.calm(1_000);
        prop_assert!(world.delivered_all(), "{:?}", world.ends.each_ref().map(|end| (end.generation, end.sent, end.heard)));
    }
}
