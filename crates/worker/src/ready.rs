//! Whether the worker can work: subscribed to the queue, with a ledger that answers; and a line in the log whenever that
//! changes.
//!
//! It watches; the parts themselves reconnect.

use std::sync::{Arc, OnceLock};

use porchlight_event::queue::QueueState;
use porchlight_service::{NotReady, ReadyFn};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::WorkerMetrics;

/// What readiness depends on.
#[derive(Clone)]
pub(crate) struct Observer {
    source: watch::Receiver<QueueState>,
    queue: watch::Receiver<QueueState>,
    ledger_up: watch::Receiver<bool>,
    stop: Arc<OnceLock<CancellationToken>>,
}

impl Observer {
    pub(crate) fn new(
        source: watch::Receiver<QueueState>,
        queue: watch::Receiver<QueueState>,
        ledger_up: watch::Receiver<bool>,
    ) -> Self {
        Self {
            source,
            queue,
            ledger_up,
            stop: Arc::default(),
        }
    }

    /// From now on, once `stop` has come, the worker is not ready, for every clone.
    pub(crate) fn stop_with(&self, stop: &CancellationToken) {
        self.stop.get_or_init(|| stop.clone());
    }

    /// The function behind `/readyz`.
    pub(crate) fn into_fn(self) -> ReadyFn {
        Arc::new(move || self.not_ready().into())
    }

    fn not_ready(&self) -> Vec<NotReady> {
        let mut found = Vec::new();
        if self.stop.get().is_some_and(CancellationToken::is_cancelled) {
            found.push(NotReady::new("stopping", "the worker is stopping"));
        }
        if let Some(words) = trouble(&self.source.borrow()) {
            found.push(NotReady::new(
                "consumer",
                format!("not subscribed to the queue: {words}"),
            ));
        }
        if !*self.ledger_up.borrow() {
            found.push(NotReady::new(
                "ledger",
                "the ledger does not answer or takes no writes",
            ));
        }
        found
    }

    /// Keeps gauges and log up to date until `stop`.
    pub(crate) async fn follow(self, metrics: Arc<WorkerMetrics>, stop: CancellationToken) {
        let source = follow_one("consumer", self.source, |ready| metrics.set_consumer_ready(ready));
        let queue = follow_one("publisher", self.queue, |ready| {
            metrics.set_publisher_ready(ready)
        });
        stop.run_until_cancelled(async { tokio::join!(source, queue) })
            .await;
        // A part that ended was asked to; the end of this task would look like a fault.
        stop.cancelled().await;
    }
}

async fn follow_one(part: &'static str, mut states: watch::Receiver<QueueState>, set: impl Fn(bool)) {
    let mut told = String::new();
    loop {
        let state = states.borrow_and_update().clone();
        set(state.is_ready());
        let words = trouble(&state).unwrap_or_else(|| "ready".to_owned());
        // The same failure at every attempt is one line, not one a second.
        if words != told {
            match &state {
                QueueState::Ready => tracing::info!(part, "queue ready"),
                QueueState::Paused => {
                    tracing::info!(part, "away from the queue until the ledger takes writes")
                }
                QueueState::Connecting { last_error: None } | QueueState::Stopped => {}
                _ => tracing::warn!(part, reason = words, "queue not ready"),
            }
            told = words;
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// What keeps a queue from being of use, in words.
fn trouble(state: &QueueState) -> Option<String> {
    Some(match state {
        QueueState::Ready => return None,
        QueueState::Connecting { last_error: None } => "connecting".to_owned(),
        QueueState::Connecting {
            last_error: Some(error),
        } => error.clone(),
        QueueState::Blocked { reason } => format!("it takes nothing now: {reason}"),
        QueueState::Paused => "waiting for the ledger".to_owned(),
        QueueState::Stopped => "closed".to_owned(),
    })
}
