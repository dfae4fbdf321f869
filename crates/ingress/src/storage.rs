//! Has an event stored: the one place that knows what stores it.
//!
//! It retries nothing; Ring does.

use std::time::Duration;

use porchlight_event::Envelope;
use porchlight_event::queue::QueueState;
use porchlight_journal::JournalError;
use porchlight_queue::{Deadlines, Queue, QueueError, QueueStats};
use porchlight_service::{NotReady, Readiness};
use tokio::time::Instant;

use crate::spool::{Spool, SpoolStats};

/// For confirms that are outstanding when everything else has ended. Each was waited for by a request already, so that
/// only late ones are left.
const CLOSE_DRAIN_MAX: Duration = Duration::from_secs(1);
/// For the whole close, polite steps included; a queue that hangs must not hold up the end.
const CLOSE_MAX: Duration = Duration::from_secs(8);

/// Time to answer that is kept for the spool, while the queue is waited for. A commit on a busy disk takes some 10 ms.
const SPOOL_RESERVE: Duration = Duration::from_millis(500);
/// Where the time to answer is short, the spool's part of it is one of so many.
const SPOOL_PART: u32 = 4;

/// Where events are kept until a worker takes them. A cheap handle.
#[derive(Debug, Clone)]
pub struct Storage {
    queue: Queue,
    slot_wait_max: Duration,
    spool: Option<Spool>,
}

/// Where an event is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored {
    /// In the queue.
    Queue {
        /// From handing it over to the confirm.
        latency: Duration,
    },
    /// On this machine's disk, until the queue takes it.
    Spool,
}

impl Stored {
    /// The place, as a word.
    pub(crate) fn place(&self) -> &'static str {
        match self {
            Self::Queue { .. } => "queue",
            Self::Spool => "spool",
        }
    }
}

/// Why an event is not known to be stored. All are ours, and Ring's next attempt may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreFailure {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("{queue}, and the spool did not take it: {spool}")]
    Spool { queue: QueueError, spool: JournalError },
}

impl Storage {
    /// Stores in this queue; an event waits at most `slot_wait_max` for a place among those being stored.
    pub fn new(queue: Queue, slot_wait_max: Duration) -> Self {
        Self {
            queue,
            slot_wait_max,
            spool: None,
        }
    }

    /// Stores in `spool` what the queue does not take, and begins to hand over what is there. To be called within a
    /// runtime.
    #[must_use]
    pub fn with_spool(mut self, spool: Spool) -> Self {
        spool.begin(self.queue.clone());
        self.spool = Some(spool);
        self
    }

    /// Stores one event, or says by `until` why not.
    ///
    /// # Cancel safety
    /// Once dropped the event may or may not be stored; nothing else is harmed.
    pub(crate) async fn store(&self, envelope: &Envelope, until: Instant) -> Result<Stored, StoreFailure> {
        let Some(spool) = &self.spool else {
            return Ok(self.queue_up(envelope, until).await?);
        };
        match self.queue_up(envelope, until - reserve(until)).await {
            Ok(stored) => Ok(stored),
            Err(queue) if is_away(queue) => match spool.store(envelope, until).await {
                Ok(()) => Ok(Stored::Spool),
                Err(spool) => Err(StoreFailure::Spool { queue, spool }),
            },
            Err(queue) => Err(queue.into()),
        }
    }

    async fn queue_up(&self, envelope: &Envelope, until: Instant) -> Result<Stored, QueueError> {
        let deadlines = Deadlines {
            slot_wait_max: self.slot_wait_max,
            until,
        };
        let stored = self.queue.accept(envelope, deadlines).await?;
        Ok(Stored::Queue {
            latency: stored.latency,
        })
    }

    /// Whether an event could be stored now, in the queue or in the spool.
    pub(crate) fn readiness(&self) -> Readiness {
        let queue = self.not_ready();
        let Some(spool) = &self.spool else {
            return Vec::from_iter(queue).into();
        };
        let notes = if queue.is_some() || spool.stats().events > 0 {
            vec![spool.note()]
        } else {
            Vec::new()
        };
        let reasons = match (queue, spool.not_ready()) {
            (Some(queue), Some(spool)) => vec![spool, queue],
            _ => Vec::new(),
        };
        Readiness { reasons, notes }
    }

    /// Why the queue could not take an event now, if so.
    fn not_ready(&self) -> Option<NotReady> {
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

    /// Where the spool stands, as a word for metrics, and its numbers.
    pub(crate) fn spool(&self) -> Option<(&'static str, SpoolStats)> {
        let spool = self.spool.as_ref()?;
        let stats = spool.stats();
        let state = if spool.not_ready().is_some() {
            "full"
        } else if stats.events == 0 {
            "empty"
        } else if self.not_ready().is_none() {
            "draining"
        } else {
            "holding"
        };
        Some((state, stats))
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
                    let kept = if self.spool.is_some() {
                        "go to the spool"
                    } else {
                        "cannot be stored"
                    };
                    tracing::warn!(reason = why, "events {kept}");
                    told = why;
                }
                _ => {}
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets go of the queue, politely and in bounded time. Before that the spool is handed over as far as `grace` goes.
    pub async fn close(&self, grace: Duration) {
        if let Some(spool) = &self.spool {
            spool.close(&self.queue, grace).await;
        }
        if tokio::time::timeout(CLOSE_MAX, self.queue.close(CLOSE_DRAIN_MAX))
            .await
            .is_err()
        {
            tracing::warn!("the queue did not close in time");
        }
    }
}

/// What of the time until `until` is the spool's.
fn reserve(until: Instant) -> Duration {
    SPOOL_RESERVE.min(until.saturating_duration_since(Instant::now()) / SPOOL_PART)
}

/// Whether the spool should have the event. A window that stays full is among the reasons: a broker that takes messages
/// and confirms none looks just like that until the connection is given up.
fn is_away(error: QueueError) -> bool {
    match error {
        QueueError::Unavailable
        | QueueError::Blocked
        | QueueError::Full
        | QueueError::Refused
        | QueueError::Returned
        | QueueError::TimedOut
        | QueueError::WindowFull
        | QueueError::Disconnected => true,
        QueueError::Stopping => false,
    }
}

/// Every word that [`Storage::state`] can give.
pub(crate) const STATES: [&str; 4] = ["ready", "blocked", "connecting", "stopped"];
/// Every word that [`Storage::spool`] can give.
pub(crate) const SPOOL_STATES: [&str; 4] = ["empty", "holding", "draining", "full"];
