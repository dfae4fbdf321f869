//! What a journal is told: where it lies, how large it may become, and who opens it.
//!
//! What SQLite is told stands in [`crate::file`].

use std::path::PathBuf;
use std::time::Duration;

/// How a [`crate::Journal`] works; the defaults are right for production.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The directory; made when it does not exist, for the owner alone.
    pub dir: PathBuf,
    /// Bytes in use at which no further event is accepted. What is accepted can still be worked on above it, so that
    /// the queue can drain. The write-ahead log comes on top, normally up to 16 MiB.
    pub bytes_max: u64,
    /// Requests that may wait for the writer or be in its hands, at most.
    pub window: usize,
    /// The longest that the writer waits for more requests before it commits, and only when the commit before had more.
    pub gather_max: Duration,
    /// How long events wait that are put off for a minute; in production always one minute.
    pub retry_1m: Duration,
    /// How long events wait that are put off for ten minutes; in production always ten minutes.
    pub retry_10m: Duration,
    /// Crashes that an event survives while it is in hand; the next one makes it a dead letter. `None`: any number, for a
    /// journal whose events nobody looks into, so that none of them can be what ends the process.
    pub returns_max: Option<u32>,
    /// What its events are waiting for. A directory serves one purpose for ever.
    pub purpose: Purpose,
    /// A stand-in for a full disk in tests: pages that the file may have. `None` in production.
    #[doc(hidden)]
    pub pages_max: Option<u32>,
}

/// What the events in a journal are waiting for. One that is opened for the other purpose is refused: the events of a
/// spool belong to a broker, and a standalone that took them would hide them from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be worked on here.
    Standalone,
    /// To be handed over to a broker.
    Spool,
}

/// Who opens a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The process that owns the directory. There is one at a time.
    Daemon,
    /// An operator's command, beside a daemon or without one. It makes no file and leaves checkpoints to the daemon; only
    /// where there is none it keeps the log from growing without end.
    Tool,
}

impl JournalConfig {
    /// The defaults, in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            bytes_max: 1 << 30,
            window: 1024,
            gather_max: Duration::from_millis(2),
            retry_1m: Duration::from_secs(60),
            retry_10m: Duration::from_secs(600),
            returns_max: Some(20),
            purpose: Purpose::Standalone,
            pages_max: None,
        }
    }
}
