//! The broker crate against real private RabbitMQ nodes, a faulty network, and a scripted peer.
//!
//! What needs no server is tested beside the code.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod consuming;
mod dead_letters;
mod depths;
mod examining;
mod outages;
mod publishing;
mod scripted_peer;
mod support;
mod topology;
mod traps;
