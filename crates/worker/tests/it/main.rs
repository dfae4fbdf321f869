//! The worker against a real broker and a real ledger, both private to the test.
//!
//! Bigger ones, with the ingress in front and many processes, are in the top package of tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod binary;
mod callback;
mod commands;
mod copies;
mod file_faults;
mod harness;
mod one_file;
mod outage;
mod outcomes;
mod servers;
mod stop;
mod watching;
