//! The store against private Redis servers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod faults;
mod marks;
mod model;
mod outbox;
mod pages;
mod support;
