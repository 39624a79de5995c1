//! The benchmark harness (G6).
//!
//! Lives on: the generator's thread, pinned to another processor than the node it drives.

pub mod floor;
pub mod load;
