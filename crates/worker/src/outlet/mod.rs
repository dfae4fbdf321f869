//! Where commands go: one closed choice, and what the dispatcher must know of it.
//!
//! It retries nothing and tells the ledger nothing; that is the dispatcher's.

mod args;
mod callback;
mod lines;
mod rabbitmq;

use std::time::Duration;

use porchlight_broker::Publisher;
use porchlight_device::Command;
use porchlight_service::Metrics;

pub use args::CallbackArgs;
pub use callback::{BreakerBounds, Callback, CallbackSettings, ReceiverError, ReceiverSettings};
pub use lines::Lines;

/// Where commands go.
#[derive(Debug)]
pub enum Outlet {
    /// The topic exchange, with a confirm for each.
    RabbitMq(Publisher),
    /// Partners' services, with a signed call for each.
    Callback(Callback),
    /// Lines of JSON.
    Lines(Lines),
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
    /// Registers what it counts, under `porchlight_worker_`.
    pub(crate) fn register(&self, metrics: &mut Metrics) {
        match self {
            Self::Callback(callback) => callback.register(metrics),
            Self::RabbitMq(_) | Self::Lines(_) => {}
        }
    }

    /// Whether a command would be taken now. One that takes nothing must not claim either: a claim holds a command
    /// back from every other worker.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::RabbitMq(publisher) => publisher.state().borrow().is_ready(),
            Self::Callback(callback) => callback.is_ready(),
            Self::Lines(_) => true,
        }
    }

    /// Its lanes, at least one.
    pub(crate) fn lanes(&self) -> Vec<Lane> {
        match self {
            Self::RabbitMq(_) | Self::Lines(_) => vec![Lane {
                inflight_max: usize::MAX,
            }],
            Self::Callback(callback) => callback.lanes(),
        }
    }

    /// The lane of a command, as an index into [`Outlet::lanes`].
    pub(crate) fn lane_of(&self, command: &Command) -> usize {
        match self {
            Self::RabbitMq(_) | Self::Lines(_) => 0,
            Self::Callback(callback) => callback.lane_of(&command.kind),
        }
    }

    /// Delivers one command, within a deadline of its own.
    ///
    /// # Cancel safety
    /// Dropped, it may be delivered or not; it stays owed.
    pub(crate) async fn send(&self, command: &Command) -> Result<(), Undelivered> {
        match self {
            Self::RabbitMq(publisher) => rabbitmq::send(publisher, command).await,
            Self::Callback(callback) => callback.send(command).await,
            Self::Lines(lines) => lines.send(command).await,
        }
    }

    /// After which time since it was issued a command that fails once more is given up; `None` is never.
    pub(crate) fn give_up_after(&self) -> Option<Duration> {
        match self {
            Self::Callback(callback) => Some(callback.give_up_after()),
            Self::RabbitMq(_) | Self::Lines(_) => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use porchlight_device::{Action, Cause, Command};

    /// A resume.
    pub(crate) fn command(kind: &str, generation: u64) -> Command {
        Command {
            action: Action::Resume,
            generation,
            operation_id: "o".to_owned(),
            kind: kind.to_owned(),
            params: "null".to_owned(),
            device_id: "d".to_owned(),
            account_id: None,
            cause: Cause {
                event_id: "e".to_owned(),
                request_id: None,
                kind: "device_online".to_owned(),
                timestamp: 1,
                traceparent: None,
            },
            issued_at_ms: 2,
        }
    }
}
