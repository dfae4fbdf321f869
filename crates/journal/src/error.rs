//! Why a journal does not open, and why something is not known to be stored.
//!
//! It does not say what to do about it; that is the caller's.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why a journal cannot be used. Nothing was changed in a file that is refused.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be made or read.
    #[error("'{path}' cannot be used")]
    Path {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another daemon holds the directory.
    #[error(
        "'{path}' is in use by another porchlight; stop that one first, let a tool that is at work end, or give this one a \
         directory of its own"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing to look at: no daemon has ever run on this directory.
    #[error("there is no '{path}'; no daemon has run on this directory yet")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("'{path}' is not a journal of porchlight: {found}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// It is a journal with another purpose.
    #[error("'{path}' is {found}; give this one a directory of its own")]
    OtherPurpose {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It was written by a newer porchlight.
    #[error(
        "'{path}' has schema {found}, and this porchlight knows schemas up to {known}; run the newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest one known.
        known: i64,
    },
    /// The file is damaged. It is left as it is.
    #[error(
        "'{path}' is damaged ({detail}); keep a copy of the directory, restore the file from a backup or move it away"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// SQLite refused for another reason.
    #[error("'{path}' cannot be opened")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A thread could not be started.
    #[error("no thread could be started for the journal")]
    Thread(#[source] std::io::Error),
}

/// Why something is not known to be stored or could not be read. After `TimedOut` it may be stored all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The disk is full, or the journal holds as much as it may.
    #[error("the journal is full")]
    Full,
    /// SQLite or the disk refused; nothing of the request is stored.
    #[error("the journal failed: {0}")]
    Failed(String),
    /// Not done by the deadline.
    #[error("the journal did not answer in time")]
    TimedOut,
    /// Too many requests wait, and no place became free within the wait.
    #[error("too many requests wait for the journal")]
    WindowFull,
    /// Another process keeps the file locked.
    #[error("another process keeps the journal locked")]
    Busy,
    /// It is being closed.
    #[error("the journal is closing")]
    Stopping,
    /// A row holds what this version cannot read.
    #[error("the journal holds {0} that cannot be read")]
    Unreadable(&'static str),
}

impl JournalError {
    /// Whether it speaks of the journal as a whole, so that the next request is likely to fail, too.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Unreadable(_))
    }

    /// A short code for labels and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Failed(_) => "failed",
            Self::TimedOut => "timed_out",
            Self::WindowFull => "window_full",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// Why one request's work failed; it is then undone, and the requests beside it are not touched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// SQLite refused.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// A row holds what this version cannot read.
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
}

impl From<WorkError> for JournalError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Sql(error) => (&error).into(),
            WorkError::Unreadable(what) => Self::Unreadable(what),
        }
    }
}

impl From<&rusqlite::Error> for JournalError {
    fn from(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Whether the connection that said so should not be trusted any longer.
pub(crate) fn spoils_connection(error: &rusqlite::Error) -> bool {
    use ErrorCode as Code;
    let codes = [
        Code::SystemIoFailure,
        Code::CannotOpen,
        Code::ReadOnly,
        Code::DatabaseCorrupt,
        Code::NotADatabase,
        Code::OutOfMemory,
        Code::FileLockingProtocolFailed,
    ];
    error
        .sqlite_error_code()
        .is_some_and(|code| codes.contains(&code))
}
