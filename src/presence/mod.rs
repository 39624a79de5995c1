//! Presence itself (RFC 6121): who is there, who may know, and who is told.
//!
//! Lives on: every core, inside `shard`. Pure. `home` decides (state, subscriptions, interest granted), `edge` delivers (sessions,
//! what they watch), `relay` stands for publishers of other nodes, `control` is what they say to each other, `outbox` what a step
//! wants done elsewhere. Serves Z6-Z8, J1, J6, J10, M3, M4, G1, G2.

pub mod ask_first;
pub mod border;
pub mod cache;
pub mod control;
pub mod directory;
pub mod edge;
pub mod errand;
pub mod farewell;
pub mod frame;
pub mod gateway;
pub mod home;
pub mod lapsed;
pub mod mailbox;
pub mod missed;
pub mod outbox;
pub mod passage;
pub mod relay;
pub mod roster;
pub mod subscription;
pub mod survey;
mod talk;
mod target;
pub mod user;
pub mod way;
