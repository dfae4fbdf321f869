//! Where commands go: one closed choice, and what the dispatcher must know of it.
//!
//! It retries nothing and tells the ledger nothing; that is the dispatcher's.

mod rabbitmq;

use std::time::Duration;

use porchlight_broker::Publisher;
use porchlight_device::Command;

/// Where commands go.
pub enum Outlet {
    /// The topic exchange, with a confirm for each.
    RabbitMq(Publisher),
}

/// A stretch of an outlet that goes its own pace: none holds up another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    /// Most commands that it has in flight; the whole outlet may be bound more narrowly.
    pub(crate) inflight_max: usize,
}

/// Why a command is not known to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// It was not tried, because its lane is known to fail.
    HeldBack,
    /// It was tried. The words are for a person and hold nothing of the body and no secret.
    Failed(String),
}

impl Outlet {
    /// Whether a command would be taken now. One that takes nothing must not claim either: a claim holds a command
    /// back from every other worker.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::RabbitMq(publisher) => publisher.state().borrow().is_ready(),
        }
    }

    /// Its lanes, at least one.
    pub(crate) fn lanes(&self) -> Vec<Lane> {
        match self {
            Self::RabbitMq(_) => vec![Lane {
                inflight_max: usize::MAX,
            }],
        }
    }

    /// The lane of a command, as an index into [`Outlet::lanes`].
    pub(crate) fn lane_of(&self, _command: &Command) -> usize {
        match self {
            Self::RabbitMq(_) => 0,
        }
    }

    /// Delivers one command, within a deadline of its own.
    ///
    /// # Cancel safety
    /// Dropped, it may be delivered or not; it stays owed.
    pub(crate) async fn send(&self, command: &Command) -> Result<(), Undelivered> {
        match self {
            Self::RabbitMq(publisher) => rabbitmq::send(publisher, command).await,
        }
    }

    /// After which time since it was issued a command that fails once more is given up; `None` is never.
    pub(crate) fn give_up_after(&self) -> Option<Duration> {
        match self {
            Self::RabbitMq(_) => None,
        }
    }
}
