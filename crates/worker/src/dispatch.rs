//! Sends commands: gives each to the outlet, then tells the ledger that it is no longer owed.
//!
//! It keeps no list of its own. The outbox has every command until then, so one that fails or is dropped here is sent
//! later by the sweeper, under the same identity.

mod in_hand;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use porchlight_device::Command;
use porchlight_event::TraceParent;
use porchlight_event::queue::DeathNote;
use porchlight_queue::{CommandLetter, Deadlines, Queue};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use crate::clerk::Clerk;
use crate::metrics::{CommandResult, WorkerMetrics};
use crate::outlet::{Outlet, Undelivered};
use crate::{now_ms, shown};

use in_hand::{Entry, InHand};

/// Commands waiting for a place in flight, in each lane: a burst of one removed account; each is up to 20 KiB.
const WAITING_MAX: usize = 1024;
/// For a command that is given up to be among the dead letters. Later it is tried once more, and given up then.
const BURY_MAX: Duration = Duration::from_secs(5);
/// With which a command is among the dead letters: what happened, and where.
const GAVE_UP: (&str, &str) = ("callback_gave_up", "callback");

/// Where commands are handed in. A cheap handle.
#[derive(Clone)]
pub(crate) struct Dispatch {
    lanes: Arc<[mpsc::Sender<Waiting>]>,
    shared: Arc<Shared>,
}

/// The task that sends.
pub(crate) struct Dispatcher {
    lanes: Vec<LaneQueue>,
    shared: Arc<Shared>,
}

struct Shared {
    outlet: Outlet,
    /// For what is given up.
    queue: Queue,
    clerk: Arc<Clerk>,
    metrics: Arc<WorkerMetrics>,
    in_hand: InHand,
}

struct LaneQueue {
    receiver: mpsc::Receiver<Waiting>,
    inflight_max: usize,
}

/// A command that was handed in.
struct Waiting {
    command: Command,
    entry: Entry,
}

impl Dispatch {
    /// Hands in a command if there is room. If not it stays in the outbox for the sweeper.
    pub(crate) fn offer(&self, command: Command) {
        let lane = &self.lanes[self.shared.outlet.lane_of(&command)];
        match lane.try_reserve() {
            Ok(place) => self.shared.hand_in(place, command),
            Err(TrySendError::Full(()) | TrySendError::Closed(())) => {
                self.shared.count(&command, CommandResult::Left);
            }
        }
    }

    /// Whether commands would be sent now; if not, do not claim any.
    pub(crate) fn is_ready(&self) -> bool {
        self.shared.outlet.is_ready()
    }

    /// Hands in a command when there is room; whether the dispatcher still runs. Where there are several lanes none is
    /// waited for, so that a full one does not hold up the others.
    ///
    /// # Cancel safety
    /// A command that was not handed in stays in the outbox.
    pub(crate) async fn give(&self, command: Command) -> bool {
        if let [lane] = &*self.lanes {
            match lane.reserve().await {
                Ok(place) => self.shared.hand_in(place, command),
                Err(_) => return false,
            }
        } else {
            self.offer(command);
        }
        !self.lanes[0].is_closed()
    }

    /// Commands that were handed in and are not confirmed.
    pub(crate) fn left(&self) -> usize {
        let waiting = |lane: &mpsc::Sender<Waiting>| lane.max_capacity() - lane.capacity();
        self.lanes.iter().map(waiting).sum::<usize>() + self.shared.metrics.inflight_commands()
    }
}

impl Dispatcher {
    /// A dispatcher with at most `inflight_max` commands in flight, or one for each lane, and the way to it. What the
    /// outlet gives up goes to the dead letters of `queue`.
    pub(crate) fn new(
        outlet: Outlet,
        queue: Queue,
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
            queue,
            clerk,
            metrics,
            in_hand: InHand::default(),
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
                waiting = self.receiver.recv(), if open && inflight.len() < self.inflight_max => match waiting {
                    Some(waiting) => inflight.push(shared.send(waiting)),
                    None => open = false,
                },
            }
            shared.metrics.add_inflight_commands(before, inflight.len());
        }
    }
}

impl Shared {
    /// What is in hand already, or older than what is, is let go of: the outbox has the newest.
    fn hand_in(&self, place: mpsc::Permit<'_, Waiting>, command: Command) {
        match self.in_hand.enter(&command) {
            Some(entry) => place.send(Waiting { command, entry }),
            None => self.count(&command, CommandResult::Overtaken),
        }
    }

    async fn send(&self, Waiting { command, entry }: Waiting) {
        let result = if self.in_hand.is_newest(&entry) {
            self.try_send(&command).await
        } else {
            CommandResult::Overtaken
        };
        self.in_hand.leave(&entry);
        self.count(&command, result);
    }

    async fn try_send(&self, command: &Command) -> CommandResult {
        let begun_ms = now_ms();
        match self.outlet.send(command).await {
            Ok(()) => {
                log_sent(command);
                if self.clerk.confirm(command).await {
                    CommandResult::Sent
                } else {
                    CommandResult::Unnoted
                }
            }
            Err(Undelivered::HeldBack) => CommandResult::Left,
            Err(Undelivered::Failed(words)) => {
                let age_ms = begun_ms.saturating_sub(command.issued_at_ms);
                let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or_default());
                if self.outlet.give_up_after().is_some_and(|after| age >= after) {
                    self.give_up(command, &words).await
                } else {
                    tracing::debug!(
                        error = words,
                        command.id = command.id(),
                        "a command is not delivered; the sweeper tries again"
                    );
                    CommandResult::Failed
                }
            }
        }
    }

    /// A copy among the dead letters first; struck off only when that is stored.
    async fn give_up(&self, command: &Command, words: &str) -> CommandResult {
        let (id, body, (reason, stage)) = (command.id(), command.body(), GAVE_UP);
        let traceparent = command.cause.traceparent.as_ref();
        let letter = CommandLetter {
            id: &id,
            action: command.action.code(),
            kind: &command.kind,
            body: &body,
            traceparent: traceparent.map(TraceParent::as_str),
        };
        let note = DeathNote {
            reason,
            stage,
            detail: words,
            at_ms: now_ms(),
        };
        if let Err(error) = self
            .queue
            .bury_command(letter, note, Deadlines::within(BURY_MAX))
            .await
        {
            tracing::debug!(%error, command.id = id, "a command could not be given up; it is tried again");
            return CommandResult::Failed;
        }
        self.metrics.buried(reason);
        tracing::warn!(
            command.id = id,
            error = words,
            trace.id = traceparent.map(TraceParent::trace_id),
            "a command was given up; it is among the dead letters"
        );
        if self.clerk.give_up(command).await {
            CommandResult::GivenUp
        } else {
            CommandResult::Unnoted
        }
    }

    fn count(&self, command: &Command, result: CommandResult) {
        self.metrics.command(command.action.code(), result);
    }
}

fn log_sent(command: &Command) {
    let cause = &command.cause;
    tracing::debug!(
        command.id = command.id(),
        action = command.action.code(),
        generation = command.generation,
        operation.id = shown(&command.operation_id),
        device.id = shown(&command.device_id),
        event.id = shown(&cause.event_id),
        trace.id = cause.traceparent.as_ref().map(TraceParent::trace_id),
        "command sent"
    );
}
