//! The ingress over real sockets: every answer, deadlines, limits, TLS and the stop.
//!
//! Only `frozen`, `outages` and `spool` have a broker. Elsewhere a signed event is answered 503 `queue_unavailable`, which shows that
//! everything before storing let it pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod connections;
mod frozen;
mod key_health;
mod outages;
mod reload;
mod spool;
mod stopping;
mod support;
mod tls;
