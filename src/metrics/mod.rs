//! What a node tells about itself (G5, C1): per core, plain memory that only the core writes, read as snapshots.
//!
//! Lives on: `recorder`, `stage` and `meter` on every core, the rest on the control thread and in the command line. Everything but
//! `prometheus` and `process` is pure. Invariants: recording takes no lock and touches no other core's memory; reading a snapshot
//! changes nothing on the core, so that any number of readers see the same totals; an interval is the difference of two snapshots.

pub mod fields;
pub mod interval_log;
pub mod meter;
pub mod recorder;
pub mod snapshot;
pub mod stage;
pub mod table;

#[cfg(feature = "runtime")]
pub mod process;
#[cfg(feature = "runtime")]
pub mod prometheus;
