//! Hands what the spool holds over to the queue, oldest first, and forgets it after the confirm.
//!
//! Killed at any moment it loses nothing: what was confirmed and not yet forgotten is handed over twice, under the same
//! identity.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use porchlight_event::queue::{AckOutcome, Batch, QueueState};
use porchlight_journal::Source;
use porchlight_queue::{Deadlines, Queue, QueueError};
use porchlight_service::trace::{self, Kind, Parent};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// For one event to be confirmed. The worker knows a second copy as a duplicate, so giving up early costs little.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
/// For a place in the window. Events that Ring waits for are asked for in the same window.
const SLOT_WAIT_MAX: Duration = Duration::from_millis(300);
/// First pause after a failure, and the longest; each is cut by chance to between half and all of it, so that many
/// ingresses do not come back at the same moment.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Takes from the spool and gives to the queue.
pub(super) struct Drainer {
    pub(super) source: Source,
    pub(super) target: Queue,
    /// Events in hand at once: a part of the target's window, so that new events find places.
    pub(super) in_hand_max: usize,
    /// Events handed over and forgotten.
    pub(super) handed_over: Arc<AtomicU64>,
    /// The end: what is in hand is finished within its time, and nothing more is taken.
    pub(super) ending: CancellationToken,
}

/// Pauses that grow while nothing succeeds.
struct Backoff(Duration);

impl Drainer {
    /// Runs until `ending`, or until the spool is closed.
    pub(super) async fn run(mut self) {
        let ending = self.ending.clone();
        let mut states = self.target.state();
        while ending.run_until_cancelled(ready(&mut states)).await.is_some() {
            let next = self.source.next_batch(self.in_hand_max);
            let Some(Some(batch)) = ending.run_until_cancelled(next).await else {
                break;
            };
            let confirmed = self.hand_over(&batch, &mut states).await;
            self.forget(&batch, confirmed).await;
        }
        self.source.close().await;
    }

    /// Hands over until the whole batch is confirmed or the end is asked for; gives how many of its first are confirmed.
    async fn hand_over(&self, batch: &Batch, states: &mut watch::Receiver<QueueState>) -> usize {
        let mut open: Vec<usize> = (0..batch.deliveries.len()).collect();
        let mut backoff = Backoff(PAUSE_MIN);
        loop {
            let attempts = open.iter().map(|index| async {
                let deadlines = Deadlines {
                    slot_wait_max: SLOT_WAIT_MAX,
                    until: Instant::now() + CONFIRM_MAX,
                };
                let envelope = &batch.deliveries[*index].envelope;
                let parent = Parent::Carried(envelope.traceparent.as_deref());
                let mut span = trace::begin("hand over", Kind::Producer, parent);
                span.text("messaging.message.id", &envelope.message_id);
                let failure = self.target.accept(envelope, deadlines).await.err();
                if failure.is_some() {
                    span.failed("not_confirmed");
                }
                failure
            });
            let failures: Vec<Option<QueueError>> = join_all(attempts).await;
            let before = open.len();
            let mut kept = failures.iter();
            open.retain(|_| kept.next().is_some_and(Option::is_some));
            let Some(first_open) = open.first() else {
                return batch.deliveries.len();
            };
            if open.len() < before {
                backoff = Backoff(PAUSE_MIN);
            }
            let first = failures.into_iter().flatten().next();
            tracing::debug!(open = open.len(), reason = ?first, "not everything could be handed over");
            let again = async {
                sleep(backoff.next()).await;
                ready(states).await;
            };
            if self.ending.run_until_cancelled(again).await.is_none() {
                return *first_open;
            }
        }
    }

    async fn forget(&self, batch: &Batch, confirmed: usize) {
        let Some(last) = confirmed
            .checked_sub(1)
            .and_then(|last| batch.deliveries.get(last))
        else {
            return;
        };
        match self
            .source
            .handle()
            .ack_through(batch.incarnation, last.tag)
            .await
        {
            AckOutcome::Sent => {
                self.handed_over.fetch_add(confirmed as u64, Relaxed);
            }
            // They come again, and are handed over again.
            AckOutcome::Stale => tracing::warn!(
                events = confirmed,
                "the spool did not forget what was handed over"
            ),
        }
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let span = self.0;
        self.0 = (span * 2).min(PAUSE_MAX);
        span.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Waits until the queue takes events. One that is closed never does.
async fn ready(states: &mut watch::Receiver<QueueState>) {
    if states.wait_for(QueueState::is_ready).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ_by_chance() {
        let mut backoff = Backoff(PAUSE_MIN);
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= PAUSE_MIN / 2 && pauses[0] <= PAUSE_MIN);
        assert!(pauses[1..].iter().all(|pause| *pause <= PAUSE_MAX));
        assert!(pauses[10..].iter().all(|pause| *pause >= PAUSE_MAX / 2));
        assert!(pauses[10..].windows(2).any(|pair| pair[0] != pair[1]));
    }
}
