//! Sends commands: publishes each with a confirm, then tells the ledger that it is no longer owed.
//!
//! It keeps no list of its own. The outbox has every command until then, so one that fails or is dropped here is sent
//! later by the sweeper, under the same identity.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use porchlight_broker::{Outgoing, PublishDeadlines, Publisher};
use porchlight_device::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::metrics::{CommandResult, WorkerMetrics};

/// Header with the operation's generation. Commands may arrive late and in any order, so a receiver remembers the
/// largest (generation, action) it acted on, where pause < resume < cancel, and ignores what is not larger.
const GENERATION: &str = "x-porchlight-generation";
/// Commands waiting for a place in flight: a burst of one removed account; each is up to 20 KiB.
const WAITING_MAX: usize = 1024;
/// For one command to be confirmed. Later the sweeper takes it.
const CONFIRM_MAX: Duration = Duration::from_secs(5);

/// Where commands are handed in. A cheap handle.
#[derive(Clone)]
pub(crate) struct Dispatch {
    sender: mpsc::Sender<Command>,
    metrics: Arc<WorkerMetrics>,
}

/// The task that sends.
pub(crate) struct Dispatcher {
    receiver: mpsc::Receiver<Command>,
    publisher: Publisher,
    ledger: Arc<Ledger>,
    metrics: Arc<WorkerMetrics>,
    inflight_max: usize,
}

impl Dispatch {
    /// Hands in a command if there is room. If not it stays in the outbox for the sweeper.
    pub(crate) fn offer(&self, command: Command) {
        if let Err(refused) = self.sender.try_send(command) {
            self.metrics
                .command(refused.into_inner().action.code(), CommandResult::Left);
        }
    }

    /// Hands in a command when there is room; whether the dispatcher still runs.
    ///
    /// # Cancel safety
    /// A command that was not handed in stays in the outbox.
    pub(crate) async fn give(&self, command: Command) -> bool {
        self.sender.send(command).await.is_ok()
    }

    /// Commands that were handed in and are not confirmed.
    pub(crate) fn left(&self) -> usize {
        let waiting = self.sender.max_capacity() - self.sender.capacity();
        waiting + self.metrics.inflight_commands()
    }
}

impl Dispatcher {
    /// A dispatcher with at most `inflight_max` commands in flight, and the way to it.
    pub(crate) fn new(
        publisher: Publisher,
        ledger: Arc<Ledger>,
        metrics: Arc<WorkerMetrics>,
        inflight_max: usize,
    ) -> (Self, Dispatch) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let dispatch = Dispatch {
            sender,
            metrics: Arc::clone(&metrics),
        };
        (
            Self {
                receiver,
                publisher,
                ledger,
                metrics,
                inflight_max,
            },
            dispatch,
        )
    }

    /// Sends until `stop`; then takes nothing more, and ends when everything handed in before is sent.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let own = (self.publisher, self.ledger, self.metrics);
        let mut inflight = FuturesUnordered::new();
        let mut open = true;
        while open || !inflight.is_empty() {
            tokio::select! {
                () = stop.cancelled(), if !self.receiver.is_closed() => self.receiver.close(),
                Some(()) = inflight.next() => {}
                command = self.receiver.recv(), if open && inflight.len() < self.inflight_max => match command {
                    Some(command) => inflight.push(send(&own.0, &own.1, &own.2, command)),
                    None => open = false,
                },
            }
            own.2.set_inflight_commands(inflight.len());
        }
    }
}

async fn send(publisher: &Publisher, ledger: &Ledger, metrics: &WorkerMetrics, command: Command) {
    let deadlines = PublishDeadlines::within(CONFIRM_MAX);
    let result = match publisher.publish(outgoing(&command), deadlines).await {
        Ok(_) if ledger.confirm(&command).await => CommandResult::Sent,
        Ok(_) => CommandResult::Unnoted,
        Err(error) => {
            tracing::debug!(%error, command.id = command.id(), "a command is not confirmed; the sweeper tries again");
            CommandResult::Failed
        }
    };
    metrics.command(command.action.code(), result);
}

fn outgoing(command: &Command) -> Outgoing {
    let (id, body) = (command.id(), Bytes::from(command.body()));
    let mut outgoing = Outgoing::command(
        &id,
        command.action.code(),
        &command.kind,
        body,
        command.issued_at_ms,
    );
    let generation = i64::try_from(command.generation).unwrap_or(i64::MAX);
    outgoing.headers_mut().set_int(GENERATION, generation);
    outgoing
}

#[cfg(test)]
mod tests {
    use super::*;
    use porchlight_device::{Action, Cause};

    #[test]
    fn a_command_carries_its_generation_in_a_header() {
        let command = Command {
            action: Action::Resume,
            generation: 3,
            operation_id: "o".to_owned(),
            kind: "snapshot".to_owned(),
            params: "null".to_owned(),
            device_id: "d".to_owned(),
            account_id: None,
            cause: Cause {
                event_id: "e".to_owned(),
                request_id: None,
                kind: "device_online".to_owned(),
                timestamp: 1,
            },
            issued_at_ms: 2,
        };
        let mut sent = outgoing(&command);
        assert_eq!(sent.headers_mut().int("x-porchlight-generation"), Some(3));
    }
}
