//! Why the queue is not known to have something.
//!
//! It does not say what to do about it; that is the caller's.

use porchlight_broker::PublishError;
use porchlight_journal::JournalError;

/// Why something is not known to be stored. All are the queue's or ours, and the next attempt may succeed. After
/// `TimedOut`, `Returned` and `Disconnected` it may be stored all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// It cannot be reached now.
    #[error("the queue cannot be reached")]
    Unavailable,
    /// It takes nothing now: a memory or disk alarm, or a disk that is full.
    #[error("the queue takes nothing now")]
    Blocked,
    /// It holds as much as it may.
    #[error("the queue is full")]
    Full,
    /// Too many are being stored, and no place became free within the wait.
    #[error("too many are being stored")]
    WindowFull,
    /// It refused this one, as a queue at its limit does.
    #[error("the queue refused it")]
    Refused,
    /// It found no place for it.
    #[error("the queue returned it as unroutable")]
    Returned,
    /// No confirm by the deadline.
    #[error("the confirm did not come in time")]
    TimedOut,
    /// The connection ended before the confirm.
    #[error("the connection ended before the confirm")]
    Disconnected,
    /// We are closing it.
    #[error("the queue is closing")]
    Stopping,
}

impl From<PublishError> for QueueError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unavailable => Self::Unavailable,
            PublishError::Blocked => Self::Blocked,
            PublishError::WindowFull => Self::WindowFull,
            PublishError::Nacked => Self::Refused,
            PublishError::Returned => Self::Returned,
            PublishError::TimedOut => Self::TimedOut,
            PublishError::Disconnected => Self::Disconnected,
            PublishError::Stopping => Self::Stopping,
        }
    }
}

impl From<JournalError> for QueueError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Full => Self::Full,
            JournalError::Failed(_) | JournalError::Unreadable(_) => Self::Blocked,
            JournalError::Busy => Self::Unavailable,
            JournalError::TimedOut => Self::TimedOut,
            JournalError::WindowFull => Self::WindowFull,
            JournalError::Stopping => Self::Stopping,
        }
    }
}
