//! What each connection of a core has still to be sent. Pure memory: the driver (or the simulator) takes it from here.
//!
//! Lives on: the core that owns the connection. Serves G2 and the slow-consumer rule of mission.md: above its high-water mark a
//! line is *slow*, and whoever produces presence for it must conflate instead of append. Invariants: at most one buffer of a line
//! is with the driver; a line is in `dirty` at most once, and in `patient` too; buffers come back to the pool.

use super::form::Form;
use crate::base::id::ConnId;
use crate::base::time::Time;
use std::collections::VecDeque;

/// Buffers up to this size go back to the pool; larger ones to the allocator.
const POOLED_BYTES: usize = 8 << 20;
/// Bytes of buffers kept in the pool of one core.
const POOL_BYTES: usize = 32 << 20;
/// Capacity of a fresh buffer.
const FRESH_BYTES: usize = 320;

/// The marks between which a line gathers freely, conflates, and is ended.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Backlog in bytes above which the line is slow.
    pub high: u32,
    /// Backlog in bytes above which it must be ended.
    pub most: u32,
}

#[derive(Default)]
#[repr(align(64))]
struct Line {
    gathered: Vec<u8>,
    in_flight: u32,
    generation: u32,
    high: u32,
    most: u32,
    open: bool,
    dirty: bool,
    slow: bool,
    /// Its client wants no presence for now: it is slow however much it has read.
    held: bool,
    /// Close once everything gathered was sent.
    closing: bool,
    overrun: bool,
    /// It stands in `Lines::patient`.
    patient: bool,
    form: Form,
    /// What was gathered for it since it opened, in units of load (C1).
    units: u32,
}

impl Line {
    fn backlog(&self) -> usize {
        self.gathered.len() + self.in_flight as usize
    }
}

/// All lines of one core.
pub struct Lines {
    lines: Vec<Line>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    /// Lines that gathered something which can wait, and until when; the first ones first.
    patient: VecDeque<(Time, u32)>,
    drained: Vec<ConnId>,
    overrun: Vec<ConnId>,
    pool: Vec<Vec<u8>>,
    /// Capacity of all buffers in `pool`.
    pooled: usize,
    open: usize,
    /// Bytes up to which a message counts as one unit of load (C1).
    unit_bytes: usize,
    units: u64,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines {
            lines: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            patient: VecDeque::new(),
            drained: Vec::new(),
            overrun: Vec::new(),
            pool: Vec::new(),
            pooled: 0,
            open: 0,
            unit_bytes: usize::MAX,
            units: 0,
        }
    }
}

impl Lines {
    /// Lines that count load in units of this many bytes (C1).
    pub fn counting(unit_bytes: u32) -> Lines {
        Lines { unit_bytes: unit_bytes.max(1) as usize, ..Lines::default() }
    }

    /// What was gathered for all lines, in units of load (C1): a longer message counts as several.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// The same of one connection, wrapping round.
    pub fn units_of(&self, conn: ConnId) -> u32 {
        if self.is_open(conn) { self.lines[conn.slot as usize].units } else { 0 }
    }

    /// Bytes waiting on all lines.
    pub fn backlog_bytes(&self) -> usize {
        self.lines.iter().map(Line::backlog).sum()
    }

    /// A line for a new connection.
    pub fn open(&mut self, marks: Marks) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.lines.push(Line::default());
            (self.lines.len() - 1) as u32
        });
        let line = &mut self.lines[slot as usize];
        assert!(!line.open, "a free line is not open");
        *line = Line {
            generation: line.generation.wrapping_add(1),
            high: marks.high,
            most: marks.most,
            open: true,
            patient: line.patient,
            ..Line::default()
        };
        self.open += 1;
        ConnId { slot, generation: line.generation }
    }

    /// A connection turned out to be a trunk: other marks.
    pub fn set_marks(&mut self, conn: ConnId, marks: Marks) {
        if let Some(line) = self.get(conn) {
            (line.high, line.most) = (marks.high, marks.most);
        }
    }

    fn get(&mut self, conn: ConnId) -> Option<&mut Line> {
        self.lines.get_mut(conn.slot as usize).filter(|line| line.open && line.generation == conn.generation)
    }

    pub fn is_open(&self, conn: ConnId) -> bool {
        self.lines.get(conn.slot as usize).is_some_and(|line| line.open && line.generation == conn.generation)
    }

    /// How many lines are open.
    pub fn len(&self) -> usize {
        self.open
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// How many slots there are, open or free.
    pub fn slots(&self) -> usize {
        self.lines.len()
    }

    /// The connection now in a slot.
    pub fn conn(&self, slot: u32) -> ConnId {
        ConnId { slot, generation: self.lines[slot as usize].generation }
    }

    /// From now on its presence events are taken in this form.
    pub fn set_form(&mut self, conn: ConnId, form: Form) {
        if let Some(line) = self.get(conn) {
            line.form = form;
        }
    }

    #[inline]
    pub fn form(&self, slot: u32) -> Form {
        self.lines[slot as usize].form
    }

    /// Whether presence for this line must be conflated.
    #[inline]
    pub fn is_slow(&self, slot: u32) -> bool {
        self.lines[slot as usize].slow
    }

    /// Whether its client reads more slowly than it is written for.
    pub fn is_behind(&self, slot: u32) -> bool {
        let line = &self.lines[slot as usize];
        line.slow && (!line.held || line.backlog() > line.high as usize)
    }

    /// Whether its client wants no presence for now.
    pub fn is_held(&self, slot: u32) -> bool {
        self.lines[slot as usize].held
    }

    /// Conflates presence for a line until it's let go, as if it were slow.
    pub fn hold(&mut self, conn: ConnId, held: bool) {
        let Some(line) = self.get(conn) else { return };
        let (was_held, still) = (std::mem::replace(&mut line.held, held), line.backlog() == 0);
        line.slow |= held;
        if was_held && !held && still {
            self.drained.push(conn);
        }
    }

    /// Reads a line and the end of what it has gathered, for the cache.
    #[inline]
    pub fn glance(&self, slot: u32) -> u32 {
        let line = &self.lines[slot as usize];
        line.gathered.last().map_or(line.generation, |&last| u32::from(last))
    }

    /// Bytes waiting for a connection, with the driver or not.
    pub fn backlog(&self, conn: ConnId) -> usize {
        if self.is_open(conn) { self.lines[conn.slot as usize].backlog() } else { 0 }
    }

    /// Gathers bytes for a line. A closing or closed line takes none.
    #[inline]
    pub fn append(&mut self, slot: u32, bytes: &[u8]) {
        if let Some(buffer) = self.gather(slot, bytes.len()) {
            buffer.extend_from_slice(bytes);
        }
    }

    /// Gathers bytes that can wait for company: they go out with the next that can't, when the core has nothing else to do, or at
    /// this time. What costs most is a send, not its bytes.
    pub fn append_patiently(&mut self, slot: u32, bytes: &[u8], until: Time) {
        let Some(buffer) = self.gather_as::<false>(slot, bytes.len()) else { return };
        buffer.extend_from_slice(bytes);
        let line = &mut self.lines[slot as usize];
        if !line.dirty && !std::mem::replace(&mut line.patient, true) {
            self.patient.push_back((until, slot));
        }
    }

    /// What could wait until `now` can wait no longer.
    pub fn hasten(&mut self, now: Time) {
        while let Some(&(until, slot)) = self.patient.front()
            && until <= now
        {
            self.patient.pop_front();
            let line = &mut self.lines[slot as usize];
            line.patient = false;
            if line.open && !line.dirty && !line.gathered.is_empty() {
                line.dirty = true;
                self.dirty.push(slot);
            }
        }
    }

    /// The buffer to write `more` bytes to, for producers that splice.
    #[inline]
    pub fn gather(&mut self, slot: u32, more: usize) -> Option<&mut Vec<u8>> {
        self.gather_as::<true>(slot, more)
    }

    #[inline]
    fn gather_as<const HURRIES: bool>(&mut self, slot: u32, more: usize) -> Option<&mut Vec<u8>> {
        let line = &mut self.lines[slot as usize];
        if !line.open || line.closing || line.overrun {
            return None;
        }
        let backlog = line.gathered.len() + line.in_flight as usize + more;
        if backlog > line.high as usize {
            line.slow = true;
            if backlog > line.most as usize {
                line.overrun = true;
                self.overrun.push(ConnId { slot, generation: line.generation });
                return None;
            }
        }
        let units = if more <= self.unit_bytes { 1 } else { more.div_ceil(self.unit_bytes) };
        line.units = line.units.wrapping_add(units as u32);
        self.units += units as u64;
        if HURRIES && !line.dirty {
            line.dirty = true;
            self.dirty.push(slot);
        }
        if line.gathered.capacity() == 0 {
            line.gathered = self.pool.pop().unwrap_or_default();
            self.pooled -= line.gathered.capacity();
            line.gathered.reserve(FRESH_BYTES.max(more));
        }
        Some(&mut line.gathered)
    }

    /// Sends what was gathered, then closes.
    pub fn close(&mut self, conn: ConnId) {
        let Some(line) = self.get(conn) else { return };
        line.closing = true;
        if !line.dirty {
            line.dirty = true;
            self.dirty.push(conn.slot);
        }
    }

    /// Gathers the last words of a line that takes no more: what waited behind them is dropped.
    pub fn last_words(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(line) = self.get(conn) {
            line.overrun = false;
            line.gathered.clear();
            line.most = u32::MAX;
            self.append(conn.slot, bytes);
        }
    }

    /// Marks a line as one to be ended, whatever its backlog: it can't be told all it must be told.
    pub fn give_up(&mut self, slot: u32) {
        let line = &mut self.lines[slot as usize];
        if line.open && !line.overrun {
            line.overrun = true;
            self.overrun.push(ConnId { slot, generation: line.generation });
        }
    }

    /// The connections whose backlog passed the upper mark since the last call; the caller ends them.
    pub fn take_overrun(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.overrun)
    }

    /// The slow connections that have sent all they had: conflated presence may go out, but for those that are held. They count as
    /// slow until now, so that nothing newer goes out before it.
    pub fn take_drained(&mut self) -> Vec<ConnId> {
        let mut drained = std::mem::take(&mut self.drained);
        drained.retain(|&conn| self.get(conn).is_some_and(|line| std::mem::replace(&mut line.slow, line.held)));
        drained
    }

    // For the driver from here on.

    /// The slots that have something to do since the last call: bytes to send, or a close.
    pub fn take_dirty(&mut self, into: &mut Vec<u32>) {
        into.clear();
        std::mem::swap(into, &mut self.dirty);
        for &slot in into.iter() {
            self.lines[slot as usize].dirty = false;
        }
    }

    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What was gathered for a slot, if the driver holds no buffer of it. The driver gives it back with `sent`.
    pub fn take(&mut self, slot: u32) -> Option<Vec<u8>> {
        let line = &mut self.lines[slot as usize];
        if !line.open || line.in_flight != 0 || line.gathered.is_empty() {
            return None;
        }
        line.in_flight = line.gathered.len() as u32;
        Some(std::mem::take(&mut line.gathered))
    }

    /// A buffer that `take` gave was sent whole. True when more was gathered meanwhile.
    pub fn sent(&mut self, slot: u32, buffer: Vec<u8>) -> bool {
        let line = &mut self.lines[slot as usize];
        line.in_flight = 0;
        let more = !line.gathered.is_empty();
        if line.slow && !more {
            self.drained.push(ConnId { slot, generation: line.generation });
        }
        self.recycle(buffer);
        more
    }

    /// Whether the host asked for a close: nothing that still arrives concerns it.
    #[inline]
    pub fn is_closing(&self, slot: u32) -> bool {
        self.lines[slot as usize].closing
    }

    /// Whether the driver may close the socket: the host asked for it and everything was sent.
    pub fn may_close(&self, slot: u32) -> bool {
        let line = &self.lines[slot as usize];
        line.open && line.closing && line.backlog() == 0
    }

    /// The socket is gone: what was gathered is lost, and nothing more is taken. The slot stays taken until `release`.
    pub fn discard(&mut self, slot: u32) {
        let line = &mut self.lines[slot as usize];
        line.closing = true;
        let gathered = std::mem::take(&mut line.gathered);
        self.recycle(gathered);
    }

    /// The driver has no operation of this connection any more: the slot may serve another. `unsent` is the buffer it held.
    pub fn release(&mut self, slot: u32, unsent: Option<Vec<u8>>) {
        let line = &mut self.lines[slot as usize];
        assert!(line.open, "a line is released once");
        line.open = false;
        line.in_flight = 0;
        let gathered = std::mem::take(&mut line.gathered);
        self.open -= 1;
        self.free.push(slot);
        self.recycle(gathered);
        if let Some(buffer) = unsent {
            self.recycle(buffer);
        }
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if (FRESH_BYTES..=POOLED_BYTES).contains(&buffer.capacity()) && self.pooled + buffer.capacity() <= POOL_BYTES {
            buffer.clear();
            self.pooled += buffer.capacity();
            self.pool.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_cache_line() {
        assert_eq!(size_of::<Line>(), 64);
    }

    const MARKS: Marks = Marks { high: 100, most: 200 };

    #[test]
    fn bytes_are_gathered_while_one_buffer_is_with_the_driver() {
        let mut lines = Lines::default();
        let conn = lines.open(MARKS);
        lines.append(conn.slot, b"one");
        let first = lines.take(conn.slot).unwrap();
        lines.append(conn.slot, b"two");
        assert_eq!(lines.take(conn.slot), None);
        assert!(lines.sent(conn.slot, first));
        assert_eq!(lines.take(conn.slot).unwrap(), b"two");
    }

    #[test]
    fn what_can_wait_goes_out_with_what_cannot_or_when_its_time_has_come() {
        let (mut lines, mut dirty) = (Lines::default(), Vec::new());
        let [alone, joined] = [(); 2].map(|()| lines.open(MARKS).slot);
        for slot in [alone, joined, joined] {
            lines.append_patiently(slot, b"echo", Time(10));
        }
        lines.hasten(Time(9));
        assert!(!lines.has_dirty());
        lines.append(joined, b"news");
        lines.take_dirty(&mut dirty);
        assert_eq!((&dirty[..], &lines.take(joined).unwrap()[..]), (&[joined][..], &b"echoechonews"[..]));
        lines.hasten(Time(10));
        lines.take_dirty(&mut dirty);
        assert_eq!((&dirty[..], &lines.take(alone).unwrap()[..]), (&[alone][..], &b"echo"[..]));
        lines.hasten(Time::MAX);
        assert!(!lines.has_dirty(), "each is noted once");
    }

    #[test]
    fn a_line_above_its_mark_is_slow_until_it_has_sent_all() {
        let mut lines = Lines::default();
        let conn = lines.open(MARKS);
        lines.append(conn.slot, &[0; 101]);
        assert!(lines.is_slow(conn.slot));
        let buffer = lines.take(conn.slot).unwrap();
        assert!(!lines.sent(conn.slot, buffer));
        assert_eq!(lines.take_drained(), [conn]);
        assert!(!lines.is_slow(conn.slot));
    }

    #[test]
    fn a_line_that_is_held_is_slow_until_it_is_let_go_and_has_sent_all() {
        let mut lines = Lines::default();
        let conn = lines.open(MARKS);
        lines.hold(conn, true);
        assert!(lines.is_slow(conn.slot) && !lines.is_behind(conn.slot));
        lines.append(conn.slot, b"a message");
        let buffer = lines.take(conn.slot).unwrap();
        lines.sent(conn.slot, buffer);
        assert_eq!(lines.take_drained(), [conn], "what is no presence may go on");
        assert!(lines.is_slow(conn.slot));
        lines.append(conn.slot, &[0; 101]);
        assert!(lines.is_behind(conn.slot));
        lines.hold(conn, false);
        assert_eq!(lines.take_drained(), []);
        let buffer = lines.take(conn.slot).unwrap();
        lines.sent(conn.slot, buffer);
        assert_eq!((lines.take_drained(), lines.is_slow(conn.slot)), (vec![conn], false));
        lines.hold(conn, true);
        lines.hold(conn, false);
        assert_eq!((lines.take_drained(), lines.is_slow(conn.slot)), (vec![conn], false));
    }

    #[test]
    fn a_line_above_its_upper_mark_takes_no_more_and_is_reported_once() {
        let mut lines = Lines::default();
        let conn = lines.open(MARKS);
        lines.append(conn.slot, &[0; 150]);
        lines.append(conn.slot, &[0; 51]);
        lines.append(conn.slot, &[0; 1]);
        assert_eq!(lines.backlog(conn), 150);
        assert_eq!(lines.take_overrun(), [conn]);
        assert_eq!(lines.take_overrun(), []);
    }

    #[test]
    fn an_old_connection_of_a_reused_slot_is_not_open() {
        let mut lines = Lines::default();
        let old = lines.open(MARKS);
        lines.release(old.slot, None);
        let new = lines.open(MARKS);
        assert_eq!(old.slot, new.slot);
        assert!(!lines.is_open(old) && lines.is_open(new));
        lines.close(old);
        assert!(!lines.may_close(new.slot));
        lines.close(new);
        assert!(lines.may_close(new.slot));
    }
}
