//! What an agreed peer says on the connection in use, and what is said to it by the way.
//!
//! Lives on: every core of a node that has links, in a [`Machine`](super::Machine). Serves G4. Invariants: what breaks the rules
//! ends the connection, and has no other effect; an entry is given on once.

use super::pair::Pair;
use super::{Incoming, LinkCounters};
use crate::base::id::ConnId;
use crate::base::reason::LinkReason;
use crate::base::time::Time;
use crate::wire::lines::Lines;
use crate::wire::link::Frame;

/// The connection in use.
#[derive(Debug)]
pub(super) struct Talk {
    pub conn: ConnId,
    pub since: Time,
    pub ping_at: Time,
    /// The number of the last entry that came on it.
    pub before: Option<u64>,
    pub owes_ack: bool,
}

/// How the connection in use ends, once the frame that says so has been read.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The peer broke the rules.
    Broke(LinkReason),
    /// The peer said goodbye.
    Bye(LinkReason),
}

impl Talk {
    /// What an agreed peer says.
    pub fn hear<'f>(
        &mut self,
        now: Time,
        frame: Frame<'f>,
        pair: &mut Pair,
        counters: &mut LinkCounters,
        lines: &mut Lines,
    ) -> Result<Incoming<'f>, End> {
        match frame {
            Frame::Update { tag, bytes } => {
                counters.updates_received += 1;
                return Ok(Incoming::Update { tag, bytes });
            }
            Frame::Entry { sequence, bytes } => {
                if self.is_new(sequence, pair, counters)? {
                    return Ok(Incoming::Entry(bytes));
                }
            }
            Frame::Complex { sequence, bytes } => {
                if sequence.map_or(Ok(true), |sequence| self.is_new(sequence, pair, counters))? {
                    counters.complex_received += 1;
                    return Ok(Incoming::Complex(bytes));
                }
            }
            Frame::Ack(up_to) => pair.acknowledge(up_to).map_err(End::Broke)?,
            // Whoever floods us with pings and reads nothing gets no answers.
            Frame::Ping(_) if lines.is_slow(self.conn.slot) => {}
            Frame::Ping(stamp) => say(counters, self.conn, &Frame::Pong(stamp), lines),
            Frame::Pong(stamp) if (self.since..=now).contains(&Time(stamp)) => counters.rtt_ns = now.since(Time(stamp)),
            Frame::Pong(_) => return Err(End::Broke(LinkReason::BadFrame)),
            Frame::Bye(reason) => return Err(End::Bye(reason)),
            Frame::Hello(_) | Frame::Welcome(_) | Frame::Refusal(_) => return Err(End::Broke(LinkReason::OutOfOrder)),
        }
        Ok(Incoming::Nothing)
    }

    /// Whether an entry had not come before.
    fn is_new(&mut self, sequence: u64, pair: &mut Pair, counters: &mut LinkCounters) -> Result<bool, End> {
        let is_new = pair.receive(sequence, self.before).map_err(End::Broke)?;
        (self.before, self.owes_ack) = (Some(sequence), true);
        counters.entries_received += u64::from(is_new);
        counters.entries_dropped += u64::from(!is_new);
        Ok(is_new)
    }
}

pub(super) fn say(counters: &mut LinkCounters, conn: ConnId, frame: &Frame<'_>, lines: &mut Lines) {
    if lines.is_open(conn) {
        let bytes = frame.encode();
        counters.bytes_sent += bytes.len() as u64;
        lines.append(conn.slot, &bytes);
    }
}

/// The last words on a connection.
pub(super) fn part(counters: &mut LinkCounters, conn: ConnId, frame: &Frame<'_>, lines: &mut Lines) {
    say(counters, conn, frame, lines);
    lines.close(conn);
}
