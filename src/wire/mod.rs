//! (skeleton)

pub mod lines;
