//! What the lanes of a publisher share: counts, and the way to say that their connection is of no use any more.
//!
//! It acts on nothing itself; the supervisor does.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize},
};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Counts that outlive a lane; shared by all lanes of a publisher.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) returned: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) nacked: AtomicU64,
    pub(super) timeouts_in_row: AtomicUsize,
    /// Since when the broker has refused everything; `None` after any success.
    refused_since: Mutex<Option<Instant>>,
}

impl Counters {
    /// How long the broker has refused everything.
    pub(super) fn refusing_for(&self) -> Option<Duration> {
        let since = self.refused_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed())
    }

    /// Notes a refusal, or a success.
    pub(super) fn note_refusal(&self, refused: bool) {
        let mut since = self.refused_since.lock().unwrap_or_else(PoisonError::into_inner);
        match (refused, *since) {
            (true, None) => *since = Some(Instant::now()),
            (false, Some(_)) => *since = None,
            _ => {}
        }
    }
}

/// Tells the supervisor, once, why a connection must be given up.
#[derive(Default)]
pub(super) struct Breaker {
    reason: Mutex<Option<String>>,
    broken: Notify,
}

impl Breaker {
    pub(super) fn trip(&self, reason: impl FnOnce() -> String) {
        let mut kept = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            *kept = Some(reason());
            self.broken.notify_one();
        }
    }

    pub(super) async fn tripped(&self) -> String {
        self.broken.notified().await;
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or_default()
    }
}
