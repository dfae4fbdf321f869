//! SQLite: the queue and the ledger of one machine, and the ingress's spool; the only owner of rusqlite.
//!
//! It knows neither RabbitMQ nor Redis.
//!
//! - [`Journal`]: one file in one directory, the only thread that writes to it, and the threads that read.
//! - [`JournalError`]: why something is not known to be stored.

mod config;
mod error;
mod file;
mod journal;
#[cfg(test)]
mod journal_tests;
mod reader;
mod schema;
mod work;
mod writer;

pub use config::{JournalConfig, Role};
pub use error::{JournalError, OpenError};
pub use journal::{Journal, JournalStats};
