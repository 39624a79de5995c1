//! The border to other clusters: what comes over it is checked and finds its way inside, what is for them leaves.
//!
//! Lives on: every core. Serves Z3, Z6, Z7, Z8, Z9.

use super::Shard;
use crate::base::time::Time;
use crate::presence::passage::BadPassage;

impl Shard {
    /// Another cluster says something (`border::encode`), to whichever core it came.
    ///
    /// # Errors
    /// It can't be read.
    pub fn from_cluster(&mut self, now: Time, cluster: u16, bytes: &[u8]) -> Result<(), BadPassage> {
        _ = (now, cluster, bytes);
        Ok(())
    }

    /// Updates of another cluster's publishers, as event frames.
    ///
    /// # Errors
    /// They can't be read.
    pub fn updates_from_cluster(&mut self, now: Time, cluster: u16, frames: Vec<u8>) -> Result<(), BadPassage> {
        _ = (now, cluster, frames);
        Ok(())
    }
}
