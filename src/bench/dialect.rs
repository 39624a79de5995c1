//! How a benchmark's users speak through a door: what gets them there, and what they say once they are.
//!
//! Serves G6. `crowd` speaks native frames, `xmpp` XML, `json` JSON over WebSocket, and `pub_sub` what buses without presence do.

use super::graph::Graph;
use super::progress::Progress;
use super::talk::Traffic;
use super::wires::Wires;
use std::io;

/// Users on their connections, as one door has them.
pub trait Dialect {
    type Traffic: Traffic;

    /// Everybody connects and logs in.
    ///
    /// # Errors
    /// What failed, in the server's words where it had some.
    fn log_in(&mut self, progress: &Progress) -> io::Result<()>;

    /// Everybody sets a first presence.
    ///
    /// # Errors
    /// As above.
    fn become_available(&mut self, progress: &Progress) -> io::Result<()>;

    /// Makes the graph; returns when every subscriber has seen every publisher.
    ///
    /// # Errors
    /// As above.
    fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()>;

    /// The connections, and what is said on them from now on; every update reaches `audience` users.
    fn begin(self, audience: u32) -> (Wires, Self::Traffic);

    /// What ends all sessions of a connection.
    fn last_words() -> Vec<u8>;
}
