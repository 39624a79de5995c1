//! The admin API over real sockets, with a node that is made up: what operators and Prometheus get (G5), and that nobody gets more.
#![cfg(feature = "runtime")]

mod api;
mod bounds;
mod fake;
