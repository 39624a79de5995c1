//! Who may see whom, and who is there. Pure: no clock, no socket, no disk.

pub mod roster;
pub mod subscription;
