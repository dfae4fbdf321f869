//! Sends commands: gives each to the outlet, then tells the ledger that it is no longer owed.
//!
//! It keeps no list of its own. The outbox has every command until then, so one that fails or is dropped here is sent
//! later by the sweeper, under the same identity.

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use porchlight_device::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clerk::Clerk;
use crate::metrics::{CommandResult, WorkerMetrics};
use crate::outlet::{Outlet, Undelivered};

/// Commands waiting for a place in flight, in each lane: a burst of one removed account; each is up to 20 KiB.
const WAITING_MAX: usize = 1024;

/// Where commands are handed in. A cheap handle.
#[derive(Clone)]
pub(crate) struct Dispatch {
    lanes: Arc<[mpsc::Sender<Command>]>,
    shared: Arc<Shared>,
}

/// The task that sends.
pub(crate) struct Dispatcher {
    lanes: Vec<LaneQueue>,
    shared: Arc<Shared>,
}

struct Shared {
    outlet: Outlet,
    clerk: Arc<Clerk>,
    metrics: Arc<WorkerMetrics>,
}

struct LaneQueue {
    receiver: mpsc::Receiver<Command>,
    inflight_max: usize,
}

impl Dispatch {
    /// Hands in a command if there is room. If not it stays in the outbox for the sweeper.
    pub(crate) fn offer(&self, command: Command) {
        let lane = &self.lanes[self.shared.outlet.lane_of(&command)];
        if let Err(refused) = lane.try_send(command) {
            let action = refused.into_inner().action;
            self.shared.metrics.command(action.code(), CommandResult::Left);
        }
    }

    /// Whether commands would be sent now; if not, do not claim any.
    pub(crate) fn is_ready(&self) -> bool {
        self.shared.outlet.is_ready()
    }

    /// Hands in a command when there is room; whether the dispatcher still runs.
    ///
    /// # Cancel safety
    /// A command that was not handed in stays in the outbox.
    pub(crate) async fn give(&self, command: Command) -> bool {
        let lane = &self.lanes[self.shared.outlet.lane_of(&command)];
        lane.send(command).await.is_ok()
    }

    /// Commands that were handed in and are not confirmed.
    pub(crate) fn left(&self) -> usize {
        let waiting = |lane: &mpsc::Sender<Command>| lane.max_capacity() - lane.capacity();
        self.lanes.iter().map(waiting).sum::<usize>() + self.shared.metrics.inflight_commands()
    }
}

impl Dispatcher {
    /// A dispatcher with at most `inflight_max` commands in flight, and the way to it.
    pub(crate) fn new(
        outlet: Outlet,
        clerk: Arc<Clerk>,
        metrics: Arc<WorkerMetrics>,
        inflight_max: usize,
    ) -> (Self, Dispatch) {
        let lanes = outlet.lanes();
        // A lane that hangs keeps its share and no more.
        let share = (inflight_max / lanes.len()).max(1);
        let (senders, lanes) = lanes
            .into_iter()
            .map(|lane| {
                let (sender, receiver) = mpsc::channel(WAITING_MAX);
                let inflight_max = lane.inflight_max.min(share);
                (
                    sender,
                    LaneQueue {
                        receiver,
                        inflight_max,
                    },
                )
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let shared = Arc::new(Shared {
            outlet,
            clerk,
            metrics,
        });
        let dispatch = Dispatch {
            lanes: senders.into(),
            shared: Arc::clone(&shared),
        };
        (Self { lanes, shared }, dispatch)
    }

    /// Sends until `stop`; then takes nothing more, and ends when everything handed in before is sent.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let lanes = self.lanes.into_iter();
        join_all(lanes.map(|lane| lane.run(&self.shared, &stop))).await;
    }
}

impl LaneQueue {
    async fn run(mut self, shared: &Shared, stop: &CancellationToken) {
        let mut inflight = FuturesUnordered::new();
        let mut open = true;
        while open || !inflight.is_empty() {
            let before = inflight.len();
            tokio::select! {
                () = stop.cancelled(), if !self.receiver.is_closed() => self.receiver.close(),
                Some(()) = inflight.next() => {}
                command = self.receiver.recv(), if open && inflight.len() < self.inflight_max => match command {
                    Some(command) => inflight.push(shared.send(command)),
                    None => open = false,
                },
            }
            shared.metrics.add_inflight_commands(before, inflight.len());
        }
    }
}

impl Shared {
    async fn send(&self, command: Command) {
        let result = match self.outlet.send(&command).await {
            Ok(()) if self.clerk.confirm(&command).await => CommandResult::Sent,
            Ok(()) => CommandResult::Unnoted,
            Err(Undelivered::HeldBack) => CommandResult::Left,
            Err(Undelivered::Failed(words)) => {
                tracing::debug!(
                    error = words,
                    command.id = command.id(),
                    "a command is not delivered; the sweeper tries again"
                );
                CommandResult::Failed
            }
        };
        self.metrics.command(command.action.code(), result);
    }
}
