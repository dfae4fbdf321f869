//! The tool as its user meets it: run as a program, judged by exit code and output.
//!
//! Servers are private to the test process. How the parts decide is tested beside them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod beside;
mod dead;
mod dead_file;
mod dead_kills;
mod dead_pages;
mod demo;
mod doctor;
mod ends;
mod forms;
mod help;
mod ledger;
mod moving;
mod places;
mod predict;
mod simulate;
mod site;
mod standalone;
mod status;
mod tool;
mod watch;
