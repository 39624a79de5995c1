//! The files of fanal that loom checks, as they are: `cfg(loom)` gives them loom's atomics and cells (`src/ring/sync.rs`).

#[path = "../../src/base"]
pub mod base {
    pub mod id;
}
#[path = "../../src/ring/mod.rs"]
pub mod ring;
