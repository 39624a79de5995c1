//! The directory hears of users who come and go: what it does not know yet is stored with the change, until it says that it does.
//!
//! Lives on: every core. Serves Z1, Z3. Invariant: of each name the directory hears the last word.

use super::Homes;
use crate::base::id::{Seat, UserId};
use crate::base::jid::Bare;
use crate::base::time::Time;
use crate::presence::control::Control;
use crate::presence::directory::{Inquiry, read_row, row_key};
use crate::presence::outbox::Outbox;
use crate::store::rows::UNSETTLED_KEY;
use crate::store::{Durability, Table, Write};
use std::time::Duration;

/// What the directory has not said that it knows, it is told again after this long.
const SETTLE_AGAIN: Duration = Duration::from_secs(5);

impl Homes {
    /// The row that is to be stored when a user comes, or (`NOBODY`) goes; `None`: there is no directory.
    pub(super) fn unsettled_row(&self, jid: &Bare, user: UserId) -> Option<Write> {
        let value = Some(user.0.to_le_bytes().to_vec());
        (self.place.directory != 0).then(|| Write { table: Table::Meta, key: row_key(UNSETTLED_KEY, jid), value })
    }

    /// It is stored: the directory is told.
    pub(super) fn settle(&mut self, jid: &Bare, user: UserId, out: &mut Outbox) {
        if self.place.directory != 0 {
            self.unsettled.insert(jid.clone(), user);
            send(jid, user, out);
        }
    }

    /// The directory can be reached: it's told of what it may not know.
    pub fn settle_all(&self, out: &mut Outbox) {
        self.unsettled.iter().for_each(|(jid, user)| send(jid, *user, out));
    }

    /// The same from time to time: a store may have refused what the directory was told. Gives when it is due next.
    pub fn settle_again(&mut self, now: Time, out: &mut Outbox) -> Option<Time> {
        if self.unsettled.is_empty() {
            self.settle_at = None;
            return None;
        }
        if self.settle_at.is_some_and(|due| due <= now) {
            self.settle_all(out);
            self.settle_at = None;
        }
        Some(*self.settle_at.get_or_insert(now + SETTLE_AGAIN))
    }

    /// It knows; if it does not agree, because another cluster has this user, it's told again another time.
    pub fn settled(&mut self, jid: Bare, user: UserId, cluster: u16, out: &mut Outbox) {
        let agrees = user == UserId::NOBODY || cluster == self.place.cluster;
        if agrees && self.unsettled.get(&jid) == Some(&user) {
            self.unsettled.remove(&jid);
            out.commit(vec![Write { table: Table::Meta, key: row_key(UNSETTLED_KEY, &jid), value: None }], Durability::RideAlong);
        }
    }

    pub fn unsettled_count(&self) -> usize {
        self.unsettled.len()
    }

    pub(super) fn load_unsettled(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let Some(name) = key.strip_prefix(UNSETTLED_KEY) else { return Ok(()) };
        let (jid, user) = read_row(name, value).ok_or("a user of whom the directory does not know")?;
        self.unsettled.insert(jid, user);
        Ok(())
    }

    pub(super) fn start_settling(&mut self, out: &mut Outbox) {
        self.unsettled.retain(|jid, _| out.map.home_of(jid) == out.map.here);
        if out.map.directory == out.map.cluster {
            self.settle_all(out);
        }
    }
}

/// In the cluster that keeps the directory, the core of a name keeps both.
fn send(jid: &Bare, user: UserId, out: &mut Outbox) {
    let (by, directory) = (out.map.cluster, out.map.directory);
    let seat = if by == directory { out.map.here } else { Seat::of_cluster(directory) };
    out.send(seat, Control::Directory(Box::new(Inquiry::Settle { jid: jid.clone(), user, by })));
}
