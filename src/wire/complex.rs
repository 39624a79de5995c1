//! Complex messages: everything that waited for one cluster, in one piece, small.
//!
//! Lives on: cores with a connection to another cluster. Serves Z10, Z11. Pure. A complex message is a byte that says how it is
//! compressed, the length of its content, and the content: counts, what is no update (each with its length), the epochs and the
//! distinct presences that updates name by number, and then the updates by columns, so that like stands by like: users as
//! differences of sorted numbers, sessions, epochs (none if there is but one), sequences, marks (show and flags), presences. Every
//! number is a LEB128 varint; each column has its length before it.
//!
//! What is no update comes before all updates, in its order: updates carry versions and need none. Invariants: an update reads back
//! as it was written; what a message claims is held to `COMPLEX_BYTES` and `COMPLEX_ITEMS`, and to what its own bytes could hold,
//! before anything is allocated for it; it is taken whole or not at all; every presence in it has been verified.

mod pack;
mod varint;

pub use pack::{Compression, Packer, Unpacker};

use crate::base::id::{SessionId, UserId, Version};
use crate::base::limits::COMPLEX_ITEMS;
use crate::base::reason::LinkReason;
use crate::wire::event::Head;
use crate::wire::native::Show;
use crate::wire::presence;
use std::ops::Range;
use varint::{Reader, append};

/// Bits of a mark below its flags.
const SHOW_BITS: u32 = 4;
/// Columns of updates: users, sessions, epochs, sequences, marks, presences.
const COLUMNS: usize = 6;

/// An update among others: its presence is the one of this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub head: Head,
    pub presence: u32,
}

/// Working memory of `write`.
#[derive(Default, Debug)]
pub struct Columns {
    columns: [Vec<u8>; COLUMNS],
    epochs: Vec<u32>,
    /// The number in the message of each presence that is in use, and those in their order there.
    numbers: Vec<u32>,
    used: Vec<u32>,
}

impl Columns {
    /// Appends the content of a complex message, and sorts its rows. A presence that no row names is left out.
    ///
    /// Panics when a row names a presence that there is not.
    pub fn write<'o>(
        &mut self,
        out: &mut Vec<u8>,
        others: impl ExactSizeIterator<Item = &'o [u8]>,
        rows: &mut [Row],
        presences: &[impl AsRef<[u8]>],
    ) {
        rows.sort_unstable_by_key(|row| (row.head.user, row.head.session));
        self.fill(rows, presences.len());
        for count in [others.len(), rows.len(), self.epochs.len(), self.used.len()] {
            append(out, count as u64);
        }
        for other in others {
            with_length(out, other);
        }
        self.epochs.iter().for_each(|&epoch| append(out, u64::from(epoch)));
        self.used.iter().for_each(|&presence| with_length(out, presences[presence as usize].as_ref()));
        self.columns.iter().for_each(|column| with_length(out, column));
    }

    fn fill(&mut self, rows: &[Row], presences: usize) {
        const UNUSED: u32 = u32::MAX;
        self.columns.iter_mut().for_each(Vec::clear);
        self.epochs.clear();
        self.used.clear();
        self.numbers.clear();
        self.numbers.resize(presences, UNUSED);
        self.epochs.extend(rows.iter().map(|row| row.head.version.epoch));
        self.epochs.sort_unstable();
        self.epochs.dedup();
        let [users, sessions, epochs, sequences, marks, named] = &mut self.columns;
        let mut before = UserId::NOBODY;
        for Row { head, presence } in rows {
            // The high half is cluster and slot, of which a serial is one.
            let (ahead, serial) = ((head.user.0 >> 32) - (before.0 >> 32), head.user.serial());
            append(users, ahead);
            append(users, u64::from(if ahead == 0 { serial - before.serial() } else { serial }));
            before = head.user;
            append(sessions, u64::from(head.session.0));
            if self.epochs.len() > 1 {
                let epoch = self.epochs.binary_search(&head.version.epoch).expect("all are in the list");
                append(epochs, epoch as u64);
            }
            append(sequences, u64::from(head.version.sequence));
            append(marks, u64::from(head.show.0) | u64::from(head.flags) << SHOW_BITS);
            let number = &mut self.numbers[*presence as usize];
            if *number == UNUSED {
                *number = self.used.len() as u32;
                self.used.push(*presence);
            }
            append(named, u64::from(*number));
        }
    }
}

fn with_length(out: &mut Vec<u8>, bytes: &[u8]) {
    append(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A complex message, read whole. Its memory serves for the next one.
#[derive(Default, Debug)]
struct Content {
    others: Vec<Range<u32>>,
    epochs: Vec<u32>,
    presences: Vec<Range<u32>>,
    rows: Vec<Row>,
}

impl Content {
    /// Errors: `BadFrame`, `TooLong`.
    fn read(&mut self, bytes: &[u8]) -> Result<(), LinkReason> {
        let mut reader = Reader::new(bytes);
        let mut count = || {
            let count = reader.number().ok_or(LinkReason::BadFrame)?;
            if count > u64::from(COMPLEX_ITEMS) {
                return Err(LinkReason::TooLong);
            }
            // Each takes a byte at least.
            if count > bytes.len() as u64 { Err(LinkReason::BadFrame) } else { Ok(count as usize) }
        };
        let [others, rows, epochs, presences] = [count()?, count()?, count()?, count()?];
        self.fields(&mut reader, [others, rows, epochs, presences]).filter(|()| reader.is_empty()).ok_or(LinkReason::BadFrame)?;
        self.presences.iter().try_for_each(|at| match &bytes[at.start as usize..at.end as usize] {
            [] => Ok(()),
            some => presence::read(some).map(drop).map_err(|_| LinkReason::BadFrame),
        })
    }

    fn fields(&mut self, reader: &mut Reader<'_>, [others, rows, epochs, presences]: [usize; 4]) -> Option<()> {
        self.others.clear();
        self.epochs.clear();
        self.presences.clear();
        self.rows.clear();
        for _ in 0..others {
            self.others.push(reader.with_length()?.0);
        }
        for _ in 0..epochs {
            self.epochs.push(reader.small()?);
        }
        for _ in 0..presences {
            self.presences.push(reader.with_length()?.0);
        }
        let mut columns = [Reader::default(); COLUMNS];
        for column in &mut columns {
            *column = Reader::new(reader.with_length()?.1);
        }
        self.rows.reserve(rows);
        let mut before = UserId::NOBODY;
        for _ in 0..rows {
            let row = self.row(&mut columns, before)?;
            before = row.head.user;
            self.rows.push(row);
        }
        columns.iter().all(Reader::is_empty).then_some(())
    }

    fn row(&self, [users, sessions, epochs, sequences, marks, named]: &mut [Reader<'_>; COLUMNS], before: UserId) -> Option<Row> {
        let (ahead, serial) = (users.number()?, users.small()?);
        let high = u32::try_from((before.0 >> 32).checked_add(ahead)?).ok()?;
        let serial = if ahead == 0 { before.serial().checked_add(serial)? } else { serial };
        let session = SessionId(sessions.small()?);
        let epoch = if self.epochs.len() > 1 { epochs.small()? } else { 0 };
        let version = Version { epoch: *self.epochs.get(epoch as usize)?, sequence: sequences.small()? };
        let mark = marks.small()?;
        let (show, flags) = (Show(mark as u8 & ((1 << SHOW_BITS) - 1)), u8::try_from(mark >> SHOW_BITS).ok()?);
        let presence = named.small()?;
        let is_known = (presence as usize) < self.presences.len() && show.0 <= Show::ENUM_MAX;
        let head = Head { user: UserId(u64::from(high) << 32 | u64::from(serial)), version, session, show, flags };
        is_known.then_some(Row { head, presence })
    }
}

/// What was in a complex message.
#[derive(Clone, Copy, Debug)]
pub struct Complex<'a> {
    bytes: &'a [u8],
    content: &'a Content,
}

impl<'a> Complex<'a> {
    /// What is no update, in order: to be worked off before the updates.
    pub fn others(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.content.others.iter().map(move |at| self.piece(at))
    }

    /// The updates, by user and session, and the verified presence of each; empty: none.
    pub fn updates(self) -> impl ExactSizeIterator<Item = (Head, &'a [u8])> {
        self.content.rows.iter().map(move |row| (row.head, self.piece(&self.content.presences[row.presence as usize])))
    }

    fn piece(self, at: &Range<u32>) -> &'a [u8] {
        &self.bytes[at.start as usize..at.end as usize]
    }
}
