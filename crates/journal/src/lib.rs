//! SQLite: the queue and the ledger of one machine, and the ingress's spool; the only owner of rusqlite.
//!
//! It knows neither RabbitMQ nor Redis.
//!
//! - [`Journal`]: one file in one directory, the only thread that writes to it, and the threads that read.
//! - [`Queue`]: putting events in, and dead letters. [`Source`]: taking events out.
//! - [`Ledger`]: devices, operations, owed commands and the marks of events.
//! - [`JournalError`]: why something is not known to be stored.

mod config;
mod error;
mod file;
mod journal;
#[cfg(test)]
mod journal_tests;
pub mod ledger;
mod lock;
mod look;
mod queue;
mod reader;
mod schema;
mod source;
#[cfg(test)]
mod source_tests;
mod work;
mod writer;

pub use config::{JournalConfig, Purpose, Role};
pub use error::{JournalError, OpenError};
pub use journal::{Journal, JournalStats};
pub use ledger::{Ledger, LedgerConfig};
pub use look::Look;
pub use queue::{Command, Depth, LetterPage, Limits, Numbered, Pile, Queue, Waiting};
pub use source::{Source, SourceConfig, SourceHandle};
