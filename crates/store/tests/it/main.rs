//! What is Redis's own, against private servers. What both ledgers must do is tested behind the seam.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod examining;
mod faults;
mod history;
mod marks;
mod support;
