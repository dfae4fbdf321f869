//! Watching real queues: what is shown of them while they fill, while the broker is away, and when it is back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod away;
mod bench;
mod figures;
