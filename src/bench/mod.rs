//! The benchmark: load generators and what they are held against. Runs against real nodes and real sockets.
//!
//! Serves G6. `server` starts the node that is measured, `crowd` logs users in on `wires` and subscribes them as `graph` says,
//! `talk` lets them speak; `fanout`, `storm` and `idle` are what is measured so. `floor` is the same path without presence;
//! `load` its closed loop. `memory` is presence without sockets. `report` says what was found.

pub mod crowd;
pub mod fanout;
pub mod floor;
pub mod graph;
pub mod load;
pub mod memory;
pub mod progress;
pub mod report;
pub mod server;
pub mod talk;
pub mod wires;
