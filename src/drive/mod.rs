//! io_uring for one core: sockets in, sockets out, and a `Host` in between that knows what the bytes mean (G1, G4).
//!
//! Lives on: every core; each has a `Driver` of its own, made on its pinned thread. `bridge` runs it as one glommio task; that is
//! the only file that knows glommio, so a bare loop is one file away. The driver knows nothing of presence. A `Host` is the
//! gateway's shard, the `floor` benchmark or a test.
//!
//! One turn (`pump`): complete what the kernel has finished, let the host read its rings and timers, take and give connections,
//! send what the flush policy says (`flush`), enter the kernel once. Bytes to send wait in `wire::lines::Lines`.
//!
//! What a host can rely on: every connection it opened ends with exactly one `lost` or one `departed`; between `accepted` (or
//! `dialled`, or `take_adoptions`) and that, `received` gives its bytes in order; after the host has closed a line it hears only
//! `lost`; a slot is not reused before the kernel has forgotten the connection; every dial is answered by exactly one `dialled`.
//!
//! # What was measured
//!
//! `benches/runs/floor-drive.txt`: two processors with other builds beside it; nanoseconds of server CPU a delivery, 1000
//! connections, 64-byte frames, median of 5. Audience 20, 50, 200 at window 1: 489, 217, 68; at window 8: 55, 41, 49 (18, 24, 20 M
//! deliveries/s).
//! Audience 50, window 2: 77. User space is about 10 ns of each (perf), the rest is the kernel's TCP: 5 to 6.6 us a send with its
//! share of receives. So all depends on frames per send; a closed loop at window 1 keeps them near 0.6 of the audience.
//!
//! | choice | against | why |
//! | --- | --- | --- |
//! | cooperative task run | deferred: 528 for 386 (audience 20) | receives are seen sooner, sends are fuller: 13 frames for 9.6 |
//! | 2048 completions a turn | 256: 302 for 220 | completions of sends held up the receives |
//! | 128 sends at once | 32 to 1024: within the noise | between two bites receives add to the lines still to be sent |
//! | no waiting for what has not come | naps of 50, 200 us: 376, 374 for 386 | not worth its latency or its code |
//! | `hold` 200 us | 0 and 1000: within the noise | bounds the wait on a core that never runs dry |
//! | 1024 buffers of 4 KB | 1 KB, 16 KB: within the noise | trunks fill them |
//! | 16 idle turns | 0 and 256: within the noise | |
//!
//! Idle connections hold no buffer: 56 bytes here and 48 in `Lines`. The observed stages are samples; what they cost is one reading
//! of the clock a receive, about 1 ns a delivery at audience 20.
//!
//! # Pitfalls, and where each is met (`tests/drive` unless another file is named)
//!
//! | pitfall | test or decision |
//! | --- | --- |
//! | A1 buffers outlive cancelled operations | kept by `Conn`: `peers_that_vanish_mid_send_take_nothing_with_them` |
//! | A1 accept that loses to its cancel | its descriptor is closed (`accept`); every test counts what is left at its end |
//! | A1 connect that races its cancel | taken or closed (`dial`): `a_stop_in_the_middle_of_dials_leaves_nothing_behind` |
//! | A1 multishot on AF_UNIX misses the end | TCP only |
//! | A1 late completion, reused slot | generation in the name (`op`), `late_completions` is 0 in every test |
//! | A1 close is not cancel | shutdown, cancel, wait, close: `conn::tests`, `connections_closed_from_both_ends_at_once` |
//! | A1 synchronous cancel races | never used |
//! | A2 completion overflow | sized by `RingSize`, counted, flushed: `a_completion_queue_that_overflows_loses_nothing` |
//! | A2 EBUSY, EAGAIN from enter | "reap first", counted as `enters_refused` (`queue`) |
//! | A3 exhaustion | `starved`, armed again when buffers are back: `many_connections_share_a_handful_of_buffers` |
//! | A3 one busy connection takes all buffers | each is copied from and given back in its turn: the same test |
//! | A3 multishot receive needs provided buffers | every receive has them (`buffers`) |
//! | A3 leak check | the kernel is asked at exit, and the process stops if one is missing (`pump`) |
//! | A3 incremental buffers | not used: flag bugs, and frames are small |
//! | A4 F_MORE | looked at in `Driver::ended` only, for accept and receive: the two tests of A2 and A3 end multishots |
//! | A4 multishot accept on odd kernels | `where_multishot_accept_is_refused_connections_are_accepted_one_by_one` |
//! | A4 accept without descriptors | `node_limits`: `without_descriptors_accepting_pauses_and_nobody_else_notices` |
//! | A4 TCP_FASTOPEN, TCP_DEFER_ACCEPT | never set |
//! | A4 receive bundles | not used: order bugs up to 6.14 |
//! | A5 task work needs an enter | SQ_TASKRUN is asked for and looked at (`setup`, `queue`): `no_wake_up_is_lost` |
//! | A5 flags | `setup` peels them, newest first; made on the core's thread |
//! | A5 nothing to do | no enter (`Queue::submit`) |
//! | A6 order of sends | one in flight per connection: `an_echo_comes_back_whole_and_in_order` |
//! | A6 short sends | submitted again: `a_slow_reader_gets_all_and_holds_up_nobody` |
//! | A6 zero copy, send bundles | not used: frames are far below the sizes where they win |
//! | A6 POLL_FIRST, trying a call before the ring | not used: multishot receives poll by themselves, and lines gather first |
//! | A6 waiting for more completions | measured above: no gain |
//! | A7 SO_REUSEPORT hashes unevenly | to the user's home: `a_connection_moves_between_cores_with_bytes_in_flight_both_ways` |
//! | A7 fairness | budgets per turn: `Config::completions_per_turn`, `FlushPolicy::sends`; a fixed order of sources |
//! | A8 memory lock | `setup::Report`, checked and printed at start |
//! | A9 direct descriptors, registered ring | plain descriptors; why not the ring: `queue` |
//! | A10 waking another core | one eventfd, for the ring and for other cores: `no_wake_up_is_lost` |
//! | A10 an eventfd rings for every completion | silent while awake; order before a sleep: `Driver::may_sleep` |
//! | A11 not always faster | `bench floor` prints this runtime's own cost |
//! | A12 one pump | one turn function, one order |
//! | B5 lost, spurious, stalled wake-ups | `Driver::may_sleep`: `no_wake_up_is_lost`, run with both kinds of task run |

mod accept;
mod bell;
pub mod bridge;
mod buffers;
pub mod clock;
mod conn;
mod dial;
mod flush;
mod life;
mod op;
pub mod pin;
mod pump;
mod queue;
mod seal;
pub mod setup;
pub mod socket;

pub use bell::Bell;
pub use dial::Dial;
pub use flush::FlushPolicy;
pub use pump::Driver;
pub use setup::{RingSize, SetupError, TaskRun};

use crate::base::id::{ConnId, RawSocket};
use crate::base::sealing::Sealing;
use crate::base::time::Time;
use crate::wire::lines::Lines;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a core does with its connections.
pub trait Host {
    /// What each connection has still to be sent.
    fn lines(&mut self) -> &mut Lines;

    /// A connection was accepted by the listener of this number. The host opens a line for it, or refuses it with `None`.
    fn accepted(&mut self, now: Time, peer: IpAddr, listener: usize) -> Option<ConnId>;

    /// What a peer is told whose connection by this listener was refused.
    fn refusal(&mut self, _now: Time, _listener: usize) -> Vec<u8> {
        Vec::new()
    }

    /// What was gathered for a slot's connection, as it goes out. The driver gives it back to the line once it's sent.
    fn take(&mut self, _now: Time, slot: u32) -> Option<Vec<u8>> {
        self.lines().take(slot)
    }

    /// What the kernel needs to encrypt everything that the connection sends behind what was just taken (kTLS).
    fn take_sealing(&mut self) -> Option<Box<Sealing>> {
        None
    }

    /// Bytes of these connections are about to be handed over: a chance to read ahead what they will need. Some may be gone.
    fn expect(&self, _conns: &[ConnId]) {}

    /// Bytes came; they are gone when this returns.
    fn received(&mut self, now: Time, conn: ConnId, bytes: &[u8]);

    /// Nothing more comes from or goes to this connection: the peer ended it, it broke, or the host closed its line and all was
    /// sent (or could not be sent in time). The line is released soon after, by the driver.
    fn lost(&mut self, now: Time, conn: ConnId);

    /// Adds the connections that the host wants to hand to other cores since the last call. The driver stops
    /// receiving, passes on what had arrived, sends what is gathered, and then calls `departed`. A peer that doesn't read delays
    /// it; the host ends such a connection by its own rules.
    fn take_departures(&mut self, into: &mut Vec<ConnId>);

    /// The descriptor of a connection that leaves, now the host's. The line is released when this returns.
    fn departed(&mut self, now: Time, conn: ConnId, socket: RawSocket);

    /// Adds the connections that the host has taken over since the last call, with lines that are open already.
    fn take_adoptions(&mut self, into: &mut Vec<(ConnId, RawSocket)>);

    /// Adds the connections that are not to be read from now on (true), or are again (false), in order, since the last call. What
    /// the kernel has received by then still comes.
    fn take_pauses(&mut self, _into: &mut Vec<(ConnId, bool)>) {}

    /// Adds the connections that the host wants to have made since the last call. Each is answered by one `dialled`.
    fn take_dials(&mut self, _into: &mut Vec<Dial>) {}

    /// What came of the dial with this token: a connection to this address, for which the host opens a line, or which it gives up
    /// with `None`; or why there is none (refused, unreachable, no answer in `Config::dial_patience`, this node stops).
    fn dialled(&mut self, _now: Time, _token: u64, _made: io::Result<SocketAddr>) -> Option<ConnId> {
        None
    }

    /// Called once a turn: drain the rings from other cores, completions of the store, timers.
    fn turn(&mut self, now: Time, counters: &DriveCounters) -> Turn;

    /// The core is about to sleep: announce it to the doorbell and look at every input once more. True: there's something to do.
    fn about_to_sleep(&mut self) -> bool;

    /// The core is awake again.
    fn woke(&mut self);

    /// How long a stage took, sampled.
    fn observe(&mut self, stage: Stage, nanos: u64);
}

/// What the host says at its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// More work waits: don't sleep.
    pub busy: bool,
    /// When the host wants its next turn at the latest.
    pub deadline: Option<Time>,
    /// The node stops: accept nothing more, and end when all lines are released or `Config::drain` is over. The host closes its
    /// lines itself, with a reason; it may keep saying so, but not take it back.
    pub stopping: bool,
}

/// The stages that only the driver sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// From the start of the look at the completions until the host got the bytes. One of 64 receives.
    Receive,
    /// From the first byte gathered until the flush. Every flush.
    FlushWait,
    /// From a send's start until its completion was seen. One of 64 sends.
    Send,
}

/// Every how many receives and sends a stage is observed.
const SAMPLE: u64 = 64;

/// The knobs of one core's driver. `Default` is what the module text gives the reasons for.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub ring: RingSize,
    pub task_run: TaskRun,
    /// Buffers that receives may fill between two looks, a power of two. When they run out: `starved`.
    pub buffers: u16,
    /// Bytes of one such buffer.
    pub buffer_bytes: u32,
    pub flush: FlushPolicy,
    /// Completions handled in one turn. Well above `FlushPolicy::sends`, or the completions of sends hold up the receives.
    pub completions_per_turn: u32,
    /// Turns with nothing to do before the core sleeps.
    pub idle_turns: u32,
    /// How long a line that the host closed may take to send the rest and see the peer's end of stream. Then it is cut.
    pub farewell: Duration,
    /// How long a stopping driver waits for its lines.
    pub drain: Duration,
    /// Whether sockets may be such that the kernel encrypts: then it is asked for TLS's goodbye before the end of the stream.
    pub kernel_tls: bool,
    /// How long a peer may take to answer a dial.
    pub dial_patience: Duration,
    /// Pause after the system had no descriptor or memory for a new connection.
    pub accept_pause: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ring: RingSize { submissions: 1024, completions: 16_384 },
            task_run: TaskRun::Cooperative,
            buffers: 1024,
            buffer_bytes: 4096,
            flush: FlushPolicy { hold: Duration::from_micros(200), sends: 128 },
            completions_per_turn: 2048,
            idle_turns: 16,
            farewell: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            kernel_tls: false,
            dial_patience: Duration::from_secs(5),
            accept_pause: Duration::from_millis(100),
        }
    }
}

/// What a driver has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriveCounters {
    pub turns: u64,
    pub enters: u64,
    /// Enters that the kernel refused because completions had to be read first.
    pub enters_refused: u64,
    pub sleeps: u64,
    pub accepts: u64,
    /// Connections the host refused.
    pub refused: u64,
    /// Accepts that failed, mostly for want of descriptors.
    pub accepts_failed: u64,
    /// Connections the host wanted to have made.
    pub dials: u64,
    /// Of them, those that were not.
    pub dials_failed: u64,
    pub receives: u64,
    pub bytes_in: u64,
    /// Receives that found no buffer.
    pub starved: u64,
    pub sends: u64,
    pub bytes_out: u64,
    pub short_sends: u64,
    pub send_errors: u64,
    /// Times the completion queue was seen to be full. Above 0: raise `RingSize::completions`.
    pub cq_overflow: u64,
    /// Completions for a connection that is gone. Above 0: a bug.
    pub late_completions: u64,
    pub cancels: u64,
    /// Connections whose sends the kernel has begun to encrypt, and those where it would not.
    pub sealed: u64,
    pub seals_failed: u64,
    pub adopted: u64,
    pub departed: u64,
    pub closed: u64,
    /// Closed connections that did not read their last bytes in time.
    pub cut: u64,
}
