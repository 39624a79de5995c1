//! fanal: an io_uring presence gateway. `ARCHITECTURE.md` is the map; the modules below are its rooms, pure ones first.
//!
//! Everything up to `shard` is a pure function of bytes, values and time. Only `drive`, the back ends of `store` and the binary
//! touch the world, and only with the feature `runtime`.

#[cfg(feature = "runtime")]
pub mod admin;
pub mod base;
#[cfg(feature = "runtime")]
pub mod bench;
pub mod client;
#[cfg(feature = "runtime")]
pub mod drive;
pub mod front;
pub mod link;
pub mod metrics;
#[cfg(feature = "runtime")]
pub mod node;
pub mod ownership;
pub mod presence;
pub mod ring;
pub mod shard;
pub mod sim;
pub mod store;
pub mod wire;
