//! How cores talk to each other: one lock-free ring of batches per ordered pair of cores, and a doorbell for the core that sleeps.
//!
//! Lives on: every core; each end of a ring belongs to exactly one. Serves G1 and G3: nothing here waits, takes a lock or (once
//! warm) allocates. A full ring is told to the caller, who conflates. Memory goes back to the core that made it. From the inside
//! out: `spsc` (the ring), `exchange` (one direction of a pair, with the way back for empty batches), `doorbell` (who must be
//! woken), `mesh` (all of it for N cores). `tests/loom/ring_loom.rs` checks every interleaving of the first and third, and of a
//! small mesh.

pub mod doorbell;
pub mod exchange;
pub mod mesh;
pub mod spsc;
mod sync;
