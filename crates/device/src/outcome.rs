//! What becomes of an event in the ledger, why, and the status a device has after it.
//!
//! The codes are stored and shown; a script spells the same ones.

use crate::Command;

/// What the ledger made of an event. What never reaches the ledger (poison, the far future) has no outcome here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Newest news: state changed.
    Applied,
    /// The same event or request was seen before; nothing changed.
    Duplicate,
    /// Older than what is known.
    Stale,
    /// The device or its account was removed.
    Refused,
    /// A type with no effect of its own.
    Recorded,
}

/// Why the ledger decided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The newest of its class.
    Newest,
    /// The event or its request id carries a mark.
    Seen,
    /// News of the same class and a larger order is known.
    OlderThanKnown,
    /// A removal that an addition has already overtaken.
    AddedSince,
    /// The device is removed and was not added again.
    DeviceRemoved,
    /// The account is removed and was not added again.
    AccountRemoved,
    /// The device or account was removed after this event happened.
    RemovedLater,
    /// The type changes nothing.
    NoEffect,
}

/// Where a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Known, with no online or offline news since it was added.
    Unknown,
    /// Online.
    Online,
    /// Offline.
    Offline,
    /// Removed, by itself or with its account.
    Removed,
}

/// An outcome with its reason and the commands that it newly owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What became of the event.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// Commands owed by this event, already in the outbox.
    pub commands: Vec<Command>,
}

impl Decision {
    pub(crate) fn without_commands(outcome: Outcome, reason: Reason) -> Self {
        Self {
            outcome,
            reason,
            commands: Vec::new(),
        }
    }
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Applied,
        Self::Duplicate,
        Self::Stale,
        Self::Refused,
        Self::Recorded,
    ];

    /// The stored and shown code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Recorded => "recorded",
        }
    }

    /// Reads a code back.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Newest,
        Self::Seen,
        Self::OlderThanKnown,
        Self::AddedSince,
        Self::DeviceRemoved,
        Self::AccountRemoved,
        Self::RemovedLater,
        Self::NoEffect,
    ];

    /// The stored code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Seen => "seen",
            Self::OlderThanKnown => "older_than_known",
            Self::AddedSince => "added_since",
            Self::DeviceRemoved => "device_removed",
            Self::AccountRemoved => "account_removed",
            Self::RemovedLater => "removed_later",
            Self::NoEffect => "no_effect",
        }
    }

    /// Reads a code back.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// One clause for a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::Newest => "the newest news of its kind",
            Self::Seen => "the same event or request was seen before",
            Self::OlderThanKnown => "newer news of its kind is already known",
            Self::AddedSince => "the device was added again after this removal",
            Self::DeviceRemoved => "the device is removed and was not added again",
            Self::AccountRemoved => "the account is removed and was not added again",
            Self::RemovedLater => "the device or its account was removed after this event",
            Self::NoEffect => "events of this type are only recorded",
        }
    }
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Online, Self::Offline, Self::Removed];

    /// The stored and shown code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Removed => "removed",
        }
    }

    /// Reads a code back.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        assert!(
            Outcome::ALL
                .into_iter()
                .all(|outcome| Outcome::from_code(outcome.code()) == Some(outcome))
        );
        assert!(
            Reason::ALL
                .into_iter()
                .all(|reason| Reason::from_code(reason.code()) == Some(reason))
        );
        assert!(
            Status::ALL
                .into_iter()
                .all(|status| Status::from_code(status.code()) == Some(status))
        );
        assert_eq!(Outcome::from_code("Applied"), None);
    }
}
