//! What can go wrong with the store, told apart by what the caller should do.
//!
//! No variant holds a URL, a key of the server's access control, or any part of an event.

use deadpool_redis::PoolError;
use redis::{RedisError, ServerError};

/// Longest text of the server that is kept in an error, in bytes.
const DETAIL_BYTES_MAX: usize = 200;

/// Why the store did not do what was asked.
///
/// After any of these the call may be made again: every call can be repeated without a second effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection, and none could be made in time.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// No answer in time. Whether the call had its effect is not known.
    #[error("the store did not answer in time")]
    TimedOut,
    /// Its memory is full; nothing was changed.
    #[error("the store is out of memory and takes no writes")]
    Full,
    /// It is a replica, or cannot write its own log, or has too few replicas; nothing was changed.
    #[error("the store takes no writes: {0}")]
    ReadOnly(String),
    /// It is reading its data after a start.
    #[error("the store is still loading its data")]
    Loading,
    /// It refused our name, password or rights.
    #[error("the store denies access: {0}")]
    Denied(String),
    /// The state moved between two steps more often than a call waits for.
    #[error("others kept changing the same state")]
    Contended,
    /// A script failed. Repeating the call will hardly help: this is a defect.
    #[error("a script of the store failed: {0}")]
    Script(String),
    /// What is stored cannot be read: a defect, or another program wrote to our keys.
    #[error("stored state cannot be read: {0}")]
    Unreadable(&'static str),
}

/// Why a store could not be set up. Never about the server: that may come later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Not a Redis URL. The URL is not shown: it may hold a password.
    #[error("not a Redis URL; it has the form redis://[user:password@]host[:port][/database] or rediss://…")]
    BadUrl,
    /// A setting is outside its bounds.
    #[error("{0}")]
    BadSetting(&'static str),
}

impl StoreError {
    /// Whether the store's condition is at fault and not this call: hold the work, wait, try again.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Script(_) | Self::Unreadable(_))
    }

    /// A short code for a metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Full => "full",
            Self::ReadOnly(_) => "read_only",
            Self::Loading => "loading",
            Self::Denied(_) => "denied",
            Self::Contended => "contended",
            Self::Script(_) => "script",
            Self::Unreadable(_) => "unreadable",
        }
    }

    /// Whether the connection should be replaced before it is used again.
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::TimedOut | Self::ReadOnly(_) | Self::Denied(_)
        )
    }

    /// What one element of a pipeline was answered with.
    pub(crate) fn from_server(error: &ServerError) -> Self {
        Self::from_code(error.code(), error.details().unwrap_or_default())
    }

    fn from_code(code: &str, detail: &str) -> Self {
        let text = || format!("{code} {}", clip(detail));
        match code {
            "OOM" => Self::Full,
            "READONLY" | "MISCONF" | "NOREPLICAS" => Self::ReadOnly(text()),
            "LOADING" => Self::Loading,
            "NOPERM" | "NOAUTH" | "WRONGPASS" => Self::Denied(code.to_owned()),
            "BUSY" | "NOSCRIPT" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK"
            | "UNBLOCKED" => Self::Unavailable(text()),
            _ => Self::Script(text()),
        }
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        match error.kind() {
            redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => {
                Self::from_code(error.code().unwrap_or("ERR"), error.detail().unwrap_or_default())
            }
            redis::ErrorKind::AuthenticationFailed => Self::Denied("authentication failed".to_owned()),
            redis::ErrorKind::UnexpectedReturnType | redis::ErrorKind::Parse => {
                Self::Unreadable("an answer of an unexpected form")
            }
            _ => Self::Unavailable(clip(&error.to_string()).to_owned()),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            // No connection was made, so nothing was sent: the outcome is known.
            PoolError::Backend(error) => match Self::from(error) {
                Self::TimedOut => Self::Unavailable("it accepts connections and does not answer".to_owned()),
                other => other,
            },
            PoolError::Timeout(_) => Self::Unavailable("no connection in time".to_owned()),
            other => Self::Unavailable(clip(&other.to_string()).to_owned()),
        }
    }
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_server_is_told_apart() {
        let code = |code: &str| StoreError::from_code(code, "detail").code();
        assert_eq!(
            [
                "OOM",
                "READONLY",
                "MISCONF",
                "LOADING",
                "NOAUTH",
                "BUSY",
                "ERR",
                "WRONGTYPE"
            ]
            .map(code),
            [
                "full",
                "read_only",
                "read_only",
                "loading",
                "denied",
                "unavailable",
                "script",
                "script"
            ]
        );
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        assert_eq!(clip(&"ä".repeat(150)).len(), DETAIL_BYTES_MAX);
        assert_eq!(clip(&format!("x{}", "ä".repeat(150))).len(), DETAIL_BYTES_MAX - 1);
    }
}
