//! The benchmark: load generators and what they are held against. Runs against real nodes and real sockets.
//!
//! Serves G6. `server` starts the node that is measured; `crowd` logs users in on `wires`, in `steps`, and subscribes them as
//! `graph` says, and so do the other `dialect`s, `xmpp` (`stanzas` are what it hears), `json` and `pub_sub`; `talk` lets them speak
//! (`presences` is what they say natively), and a `round` is one measured time of that. `fanout`, `storm` and `idle` are what is
//! measured so; `sockets` is `fanout` without presence, on the server that `floor` is. `load` is the closed loop of the runtime's
//! own sweep (`benches/floor.rs`). `memory` is presence without sockets. `cluster` is several nodes and clusters
//! (`across` is who is where in them, `tap` reads what crosses, `cut` cuts it), and `take_over` what the loss of one takes.
//! `private` is what `wires` put below all of that when it is said inside TLS. `report` says what was found.

mod across;
pub mod cluster;
pub mod crowd;
mod cut;
pub mod dialect;
pub mod fanout;
pub mod floor;
pub mod graph;
pub mod idle;
pub mod json;
pub mod load;
pub mod memory;
mod presences;
pub mod private;
pub mod progress;
pub mod pub_sub;
pub mod report;
pub mod round;
pub mod server;
pub mod sockets;
mod stanzas;
pub mod steps;
pub mod storm;
pub mod take_over;
pub mod talk;
mod tap;
pub mod wires;
pub mod xmpp;
