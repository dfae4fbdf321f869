//! End-to-end tests: whole pipelines of real processes on private servers, and the rules of the house.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alerts;
mod answers;
mod attacks;
mod crash;
mod delivery;
mod manifests;
mod metrics;
mod oracle;
mod outage;
mod outage_clock;
mod shutdown;
mod site;
mod spool;
mod storm;
mod support;
mod tidy;
mod traces;
