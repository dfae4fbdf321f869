//! An operation: work of a partner's that is paused while its device is offline, and how it is registered.
//!
//! It does not know of devices beyond their status.

use crate::{Action, Status};

/// Longest operation id, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Longest kind, in bytes: it is one word of a routing key, and a routing key has 255 bytes at most.
pub const KIND_BYTES_MAX: usize = 128;
/// Largest parameters, in bytes of JSON text: they travel in each command.
pub const PARAMS_BYTES_MAX: usize = 16 * 1024;
/// Most operations on one device: one event pauses them all in one atomic step, which must stay short.
pub const OPERATIONS_MAX: usize = 256;

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Going on.
    Running,
    /// Paused: its device is offline.
    Paused,
    /// Its device is back; the command to resume is owed and not yet confirmed as sent.
    Resuming,
    /// Over: the device or the account is gone.
    Cancelled,
}

/// One registered operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The partner's id for it, unique on its device.
    pub id: String,
    /// What it is, as the partner names it; part of the routing key.
    pub kind: String,
    /// Opaque JSON text, handed back in each command.
    pub params: String,
    /// The account it was registered for.
    pub account_id: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Grows with every pause and every new life of the same id; fences late commands.
    pub generation: u64,
}

/// What a partner registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The operation's id.
    pub operation_id: String,
    /// The account; where the device's is known they must agree.
    pub account_id: Option<String>,
    /// 1 to [`KIND_BYTES_MAX`] letters, digits, `_` and `-`.
    pub kind: String,
    /// JSON text of at most [`PARAMS_BYTES_MAX`] bytes.
    pub params: String,
}

/// Why a registration is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The id is empty or too long.
    #[error("the operation id must have 1 to {ID_BYTES_MAX} bytes")]
    BadId,
    /// The kind is not one word.
    #[error("the kind must be 1 to {KIND_BYTES_MAX} letters, digits, dashes or underscores")]
    BadKind,
    /// The parameters are no JSON, or none that a common reader takes.
    #[error(
        "the params are not JSON that every reader takes: nested at most 127 deep, text without lone surrogates, \
         numbers that a double can hold"
    )]
    BadParams,
    /// The parameters are too large.
    #[error("the params must have at most {PARAMS_BYTES_MAX} bytes")]
    ParamsTooLarge,
    /// The device is removed.
    #[error("the device is removed; it takes operations again when it was added again")]
    DeviceRemoved,
    /// The device belongs to another account.
    #[error("the device belongs to another account")]
    AccountMismatch,
    /// The device has [`OPERATIONS_MAX`] already.
    #[error("the device has {OPERATIONS_MAX} operations already")]
    TooMany,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Resuming, Self::Cancelled];

    /// The stored and shown code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads a code back.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

impl Operation {
    /// Brings the operation in line with its device's status; the action that is owed when that changed it.
    pub fn follow(&mut self, status: Status) -> Option<Action> {
        match (status, self.state) {
            (Status::Offline, State::Running | State::Resuming) => {
                self.state = State::Paused;
                self.generation += 1;
                Some(Action::Pause)
            }
            (Status::Online, State::Paused) => {
                self.state = State::Resuming;
                Some(Action::Resume)
            }
            (Status::Removed, State::Running | State::Paused | State::Resuming) => self.cancel(),
            _ => None,
        }
    }

    /// Ends the operation for good; the action that is owed unless it was over already.
    pub fn cancel(&mut self) -> Option<Action> {
        if self.state == State::Cancelled {
            return None;
        }
        self.state = State::Cancelled;
        Some(Action::Cancel)
    }
}

impl Registration {
    /// Checks what can be checked without the device.
    ///
    /// # Errors
    /// [`RegistrationError`]; nothing was changed.
    pub fn check(&self) -> Result<(), RegistrationError> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.operation_id.is_empty() || self.operation_id.len() > ID_BYTES_MAX {
            return Err(RegistrationError::BadId);
        }
        if self.kind.is_empty() || self.kind.len() > KIND_BYTES_MAX || !self.kind.chars().all(word) {
            return Err(RegistrationError::BadKind);
        }
        if self.params.len() > PARAMS_BYTES_MAX {
            return Err(RegistrationError::ParamsTooLarge);
        }
        // Read whole, not only skimmed: what a common reader cannot take would be a command that no receiver can read.
        match serde_json::from_str::<serde_json::Value>(&self.params) {
            Ok(_) => Ok(()),
            Err(_) => Err(RegistrationError::BadParams),
        }
    }
}

impl RegistrationError {
    /// A short code for an API's answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadId => "bad_operation_id",
            Self::BadKind => "bad_kind",
            Self::BadParams => "bad_params",
            Self::ParamsTooLarge => "params_too_large",
            Self::DeviceRemoved => "device_removed",
            Self::AccountMismatch => "account_mismatch",
            Self::TooMany => "too_many_operations",
        }
    }

    /// Whether the request is fine by itself and only the device's state speaks against it.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::DeviceRemoved | Self::AccountMismatch | Self::TooMany)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn registration(kind: &str, params: &str) -> Registration {
        Registration {
            operation_id: "o".to_owned(),
            account_id: None,
            kind: kind.to_owned(),
            params: params.to_owned(),
        }
    }

    #[test]
    fn a_registration_is_checked_at_its_bounds() {
        assert_eq!(registration("snap-shot_1", "null").check(), Ok(()));
        for kind in ["", "a.b", "a b", "#", "ä", &"k".repeat(KIND_BYTES_MAX + 1)] {
            assert_eq!(
                registration(kind, "{}").check(),
                Err(RegistrationError::BadKind),
                "{kind}"
            );
        }
        assert_eq!(registration("k", "{").check(), Err(RegistrationError::BadParams));
        assert_eq!(
            registration("k", "{} {}").check(),
            Err(RegistrationError::BadParams)
        );
        for unreadable in [
            &"[".repeat(200),
            &("[".repeat(200) + &"]".repeat(200)),
            "1e999",
            r#""\ud800""#,
        ] {
            assert_eq!(
                registration("k", unreadable).check(),
                Err(RegistrationError::BadParams),
                "{unreadable}"
            );
        }
        let large = format!("\"{}\"", "x".repeat(PARAMS_BYTES_MAX - 2));
        assert_eq!(registration("k", &large).check(), Ok(()));
        assert_eq!(
            registration("k", &format!("{large} ")).check(),
            Err(RegistrationError::ParamsTooLarge)
        );
        let mut long = registration("k", "1");
        long.operation_id = "x".repeat(ID_BYTES_MAX + 1);
        assert_eq!(long.check(), Err(RegistrationError::BadId));
    }

    #[test]
    fn every_code_reads_back() {
        assert!(
            State::ALL
                .into_iter()
                .all(|state| State::from_code(state.code()) == Some(state))
        );
    }
}
