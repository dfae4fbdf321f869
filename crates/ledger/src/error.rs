//! What can go wrong with a ledger, told apart by what the caller should do.
//!
//! No variant holds an address with a password, or any part of an event.

use porchlight_device::RegistrationError;
use porchlight_journal::JournalError;
use porchlight_store::StoreError;

/// Why the ledger did not do what was asked. After any of these the call may be made again: every call can be
/// repeated without a second effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Redis.
    #[error(transparent)]
    Redis(#[from] StoreError),
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] JournalError),
}

/// Why an operation was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The registration is not acceptable; nothing was changed.
    #[error(transparent)]
    Refused(#[from] RegistrationError),
    /// The ledger failed; the operation may or may not be registered. Registering again is right.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The cursor is none that an earlier page gave.
    #[error("the cursor is not one that an earlier page gave")]
    BadCursor,
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl LedgerError {
    /// Whether the ledger's condition is at fault and not this call: hold the work, wait, try again.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_fault(),
            Self::Sqlite(error) => error.is_fault(),
        }
    }

    /// A short code for a metric label.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Redis(error) => error.code(),
            Self::Sqlite(error) => error.code(),
        }
    }
}

impl From<porchlight_store::RegisterError> for RegisterError {
    fn from(error: porchlight_store::RegisterError) -> Self {
        match error {
            porchlight_store::RegisterError::Refused(error) => Self::Refused(error),
            porchlight_store::RegisterError::Store(error) => Self::Ledger(error.into()),
        }
    }
}

impl From<porchlight_store::PageError> for PageError {
    fn from(error: porchlight_store::PageError) -> Self {
        match error {
            porchlight_store::PageError::BadCursor => Self::BadCursor,
            porchlight_store::PageError::Store(error) => Self::Ledger(error.into()),
        }
    }
}

impl From<porchlight_journal::ledger::RegisterError> for RegisterError {
    fn from(error: porchlight_journal::ledger::RegisterError) -> Self {
        match error {
            porchlight_journal::ledger::RegisterError::Refused(error) => Self::Refused(error),
            porchlight_journal::ledger::RegisterError::Journal(error) => Self::Ledger(error.into()),
        }
    }
}

impl From<porchlight_journal::ledger::PageError> for PageError {
    fn from(error: porchlight_journal::ledger::PageError) -> Self {
        match error {
            porchlight_journal::ledger::PageError::BadCursor => Self::BadCursor,
            porchlight_journal::ledger::PageError::Journal(error) => Self::Ledger(error.into()),
        }
    }
}
