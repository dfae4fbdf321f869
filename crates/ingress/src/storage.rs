//! Has an event stored: the one place that knows what stores it.
//!
//! It retries nothing; Ring does.

use std::time::Duration;

use porchlight_event::Envelope;
use porchlight_event::queue::QueueState;
use porchlight_queue::{Deadlines, Queue, QueueError, QueueStats, Stored};
use porchlight_service::NotReady;
use tokio::time::Instant;

/// For confirms that are outstanding when everything else has ended. Each was waited for by a request already, so that
/// only late ones are left.
const CLOSE_DRAIN_MAX: Duration = Duration::from_secs(1);
/// For the whole close, polite steps included; a queue that hangs must not hold up the end.
const CLOSE_MAX: Duration = Duration::from_secs(8);

/// Where events are kept until a worker takes them. A cheap handle.
#[derive(Debug, Clone)]
pub struct Storage {
    queue: Queue,
    slot_wait_max: Duration,
}

/// Why an event is not known to be stored. All are ours, and Ring's next attempt may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(crate) struct StoreFailure(#[from] pub(crate) QueueError);

impl Storage {
    /// Stores in this queue; an event waits at most `slot_wait_max` for a place among those being stored.
    pub fn new(queue: Queue, slot_wait_max: Duration) -> Self {
        Self { queue, slot_wait_max }
    }

    /// Stores one event, or says by `until` why not.
    ///
    /// # Cancel safety
    /// Once dropped the event may or may not be stored; nothing else is harmed.
    pub(crate) async fn store(&self, envelope: &Envelope, until: Instant) -> Result<Stored, StoreFailure> {
        let deadlines = Deadlines {
            slot_wait_max: self.slot_wait_max,
            until,
        };
        Ok(self.queue.accept(envelope, deadlines).await?)
    }

    /// Why an event could not be stored now, if so.
    pub(crate) fn not_ready(&self) -> Option<NotReady> {
        match &*self.queue.state().borrow() {
            QueueState::Ready => None,
            QueueState::Blocked { reason } => Some(NotReady::new(
                "queue_blocked",
                format!("the queue takes nothing: {reason}"),
            )),
            QueueState::Connecting { last_error } => {
                let why = last_error
                    .as_deref()
                    .unwrap_or("the first connection is being made");
                Some(NotReady::new(
                    "queue_unavailable",
                    format!("the queue cannot be reached: {why}"),
                ))
            }
            _ => Some(NotReady::new("queue_unavailable", "the queue is closed")),
        }
    }

    /// How the queue stands, as a word for metrics.
    pub(crate) fn state(&self) -> &'static str {
        match &*self.queue.state().borrow() {
            QueueState::Ready => "ready",
            QueueState::Blocked { .. } => "blocked",
            QueueState::Connecting { .. } => "connecting",
            _ => "stopped",
        }
    }

    pub(crate) fn stats(&self) -> QueueStats {
        self.queue.stats()
    }

    /// Logs each change of the queue: an ingress that can store nothing, and why, must not be found out from its
    /// answers alone. Returns when the queue has ended.
    pub(crate) async fn tell_changes(self) {
        let (mut states, mut told) = (self.queue.state(), String::new());
        loop {
            let state = states.borrow_and_update().clone();
            let why = self.not_ready().map_or_else(String::new, |reason| reason.message);
            match &state {
                // Between two attempts nothing is new, and the same failure at every attempt is one line.
                QueueState::Connecting { last_error: None } | QueueState::Stopped => {}
                QueueState::Ready if told != "ready" => {
                    tracing::info!("the queue takes events");
                    told = "ready".to_owned();
                }
                QueueState::Ready => {}
                _ if told != why => {
                    tracing::warn!(reason = why, "events cannot be stored");
                    told = why;
                }
                _ => {}
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets go of the queue, politely and in bounded time.
    pub async fn close(&self) {
        if tokio::time::timeout(CLOSE_MAX, self.queue.close(CLOSE_DRAIN_MAX))
            .await
            .is_err()
        {
            tracing::warn!("the queue did not close in time");
        }
    }
}

/// Every word that [`Storage::state`] can give.
pub(crate) const STATES: [&str; 4] = ["ready", "blocked", "connecting", "stopped"];
