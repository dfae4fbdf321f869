//! The ingress over real sockets and without a broker: every answer but 200, deadlines, limits, TLS and the stop.
//!
//! A signed event is answered 503 `broker_unavailable` here, which shows that everything before storing let it pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod connections;
mod reload;
mod stopping;
mod support;
mod tls;
