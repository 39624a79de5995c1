//! What one seed is made of: how big the world is, its limits, and how often what happens and what goes wrong. Every seed mixes
//! its own, so that some have no faults of a kind at all and others hardly anything else (swarm testing).
//!
//! Lives on: the simulator. Pure.

use crate::base::limits::Limits;
use crate::base::random::Random;
use std::time::Duration;

/// Chances are in thousandths, weights are relative to each other.
#[derive(Clone, Debug)]
pub struct Mix {
    pub cores: u16,
    pub users: u64,
    pub clients: u64,
    /// How many of the clients are trunks.
    pub trunks: u64,
    /// Streams that one trunk uses.
    pub streams: u64,
    pub limits: Limits,
    /// Bytes that a socket takes before the other end reads.
    pub window: u64,
    /// Longest piece that one read gives.
    pub piece: u64,
    /// Batches that a ring holds.
    pub ring: usize,
    /// Commits of one core that the disk takes.
    pub port: usize,
    /// Mean time between two steps.
    pub pace: Duration,
    /// Longest pause of a socket, a ring, a client, the disk or a password check.
    pub pause: Duration,
    /// Chance that a socket pauses when something is put into it.
    pub net_pause: u64,
    pub slow_reader: u64,
    /// Chance that the disk refuses a transaction, and that it leaves one in doubt.
    pub disk_refuses: u64,
    pub disk_doubts: u64,
    pub disk_pause: u64,
    /// Chance of a core to leave a ring unread in a turn, and to leave it unread for a while from then on.
    pub unread_ring: u64,
    pub ring_stall: u64,
    /// Weights of the steps.
    pub turns: u64,
    pub reads: u64,
    pub acts: u64,
    pub disk_works: u64,
    pub crashes: u64,
    pub drops: u64,
    pub leaps: u64,
    pub operator: u64,
    pub storms: u64,
    pub acting: Acting,
}

/// How likely a client does what.
#[derive(Clone, Debug)]
pub struct Acting {
    pub presence: u64,
    pub subscription: u64,
    pub roster: u64,
    pub block: u64,
    pub message: u64,
    pub directed: u64,
    pub probe: u64,
    pub ping: u64,
    pub log_out: u64,
    pub nonsense: u64,
    pub activity: u64,
    pub carbons: u64,
    pub documents: u64,
    /// Chances: to answer a subscription request with yes, no (else with nothing); to acknowledge a message at once; to come back
    /// with the token instead of logging in; to log in with a password.
    pub approve: u64,
    pub deny: u64,
    pub acknowledge: u64,
    pub resume: u64,
    pub password: u64,
    /// To log in with a first presence.
    pub present: u64,
    /// Chance to want a resource that others of the user want too.
    pub same_resource: u64,
}

impl Mix {
    pub fn draw(random: &mut Random) -> Mix {
        let cores = 1 + random.below(4) as u16;
        let users = 2 + random.below(6);
        let clients = 2 + random.below(8);
        let limits = draw_limits(random);
        Mix {
            cores,
            users,
            clients,
            trunks: if random.one_in(2) { random.below(clients + 1) } else { 0 },
            streams: 1 + random.below(6),
            limits,
            window: one_of(random, &[96, 512, 4096, 65_536]),
            piece: one_of(random, &[9, 60, 300, 4096]),
            ring: one_of(random, &[1, 2, 8, 64]) as usize,
            port: one_of(random, &[2, 64, 4096]) as usize,
            pace: Duration::from_micros(one_of(random, &[20, 300, 3000])),
            pause: Duration::from_millis(one_of(random, &[2, 50, 800])),
            net_pause: seldom(random, 100),
            slow_reader: seldom(random, 60),
            disk_refuses: seldom(random, 200),
            disk_doubts: seldom(random, 60),
            disk_pause: seldom(random, 300),
            unread_ring: seldom(random, 700),
            ring_stall: seldom(random, 30),
            turns: 400,
            reads: 100 + random.below(300),
            acts: 100 + random.below(400),
            disk_works: 20 + random.below(200),
            crashes: seldom(random, 3),
            drops: seldom(random, 10),
            leaps: seldom(random, 10),
            operator: seldom(random, 6),
            storms: seldom(random, 2),
            acting: Acting::draw(random),
        }
    }
}

impl Acting {
    fn draw(random: &mut Random) -> Acting {
        Acting {
            presence: 100 + random.below(400),
            subscription: 50 + random.below(300),
            roster: seldom(random, 100),
            block: seldom(random, 100),
            message: seldom(random, 200),
            directed: seldom(random, 80),
            probe: seldom(random, 60),
            ping: seldom(random, 40),
            log_out: seldom(random, 40),
            nonsense: seldom(random, 6),
            activity: seldom(random, 80),
            carbons: seldom(random, 30),
            documents: seldom(random, 60),
            approve: one_of(random, &[0, 300, 700, 1000]),
            deny: seldom(random, 200),
            acknowledge: one_of(random, &[0, 500, 1000]),
            resume: one_of(random, &[0, 500, 900]),
            password: seldom(random, 500),
            present: seldom(random, 500),
            same_resource: seldom(random, 500),
        }
    }
}

fn draw_limits(random: &mut Random) -> Limits {
    let small = |random: &mut Random, few: u64, many: u32| if random.one_in(3) { 1 + random.below(few) as u32 } else { many };
    let plenty = Limits::default();
    let high_water_bytes = one_of(random, &[200, 1000, 8000, 262_144]) as u32;
    let trunk_high_water_bytes = one_of(random, &[400, 4000, 16_777_216]) as u32;
    let log_in_ms = one_of(random, &[3000, 15_000]) as u32;
    Limits {
        log_in_ms,
        sessions_per_user: small(random, 4, plenty.sessions_per_user),
        contacts_per_user: small(random, 6, plenty.contacts_per_user),
        roster_bytes_per_user: if random.one_in(6) { 600 } else { plenty.roster_bytes_per_user },
        requests_per_user: small(random, 3, plenty.requests_per_user),
        pending_per_user: small(random, 4, plenty.pending_per_user),
        blocked_per_user: small(random, 2, plenty.blocked_per_user),
        directed_per_session: small(random, 2, plenty.directed_per_session),
        unacknowledged_messages: small(random, 4, plenty.unacknowledged_messages),
        offline_messages_per_user: small(random, 4, plenty.offline_messages_per_user),
        offline_bytes_per_user: if random.one_in(6) { 1000 } else { plenty.offline_bytes_per_user },
        unacknowledged_bytes: if random.one_in(6) { 400 } else { plenty.unacknowledged_bytes },
        high_water_bytes,
        piece_bytes: high_water_bytes / 2,
        backlog_bytes: high_water_bytes * 8 + 4000,
        trunk_high_water_bytes,
        trunk_backlog_bytes: trunk_high_water_bytes * 8 + 16_000,
        stalled_ms: one_of(random, &[1000, 30_000]) as u32,
        resume_ms: one_of(random, &[0, 1000, 10_000]) as u32,
        ping_ms: one_of(random, &[2000, 60_000]) as u32,
        ring_batch_bytes: one_of(random, &[150, 1000, 1 << 20]) as u32,
        ring_control: one_of(random, &[4, 1000, 262_144]) as u32,
        ..plenty
    }
}

pub fn one_of(random: &mut Random, choices: &[u64]) -> u64 {
    *random.pick(choices).expect("there is a choice")
}

/// 0 in one seed of three; otherwise up to `most`, small numbers more likely.
pub fn seldom(random: &mut Random, most: u64) -> u64 {
    match random.below(3) {
        0 => 0,
        1 => random.below(most / 4 + 2),
        _ => random.below(most + 1),
    }
}
