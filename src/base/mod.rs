//! The words everything else is written in: numbers of users and sessions, JIDs, time as a value, named limits, reasons.
//!
//! Lives on: every core. Imports nothing of fanal.

pub mod config;
pub mod credentials;
pub mod hashed;
pub mod id;
pub mod jid;
pub mod limits;
pub mod map;
pub mod network;
pub mod random;
pub mod rate;
pub mod reason;
pub mod sealing;
pub mod secrets;
pub mod time;
#[cfg(feature = "runtime")]
pub mod trust;
