//! Why a call of the ledger did not do what was asked, where more can be said than that the journal failed.
//!
//! It does not say what to do about it.

use porchlight_device::RegistrationError;

use crate::error::JournalError;

/// Why an operation was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The registration is not acceptable; nothing was changed.
    #[error(transparent)]
    Refused(#[from] RegistrationError),
    /// The journal failed; the operation may or may not be registered. Registering again is right.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The cursor is none that an earlier page gave.
    #[error("the cursor is not one that an earlier page gave")]
    BadCursor,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
