//! The testbed's own tests: servers that are killed keep their data, and the relay does what it says.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod daemons;
mod load;
mod mortality;
mod rabbitmq;
mod redis;
mod relay;
