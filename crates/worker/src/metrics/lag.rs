//! How far behind this process is: since when the oldest event waits that it knows of, and how new its news is.
//!
//! Ages are made at each scrape, so that they grow while the work stands still. What lies in the queue and was not
//! handed to this process it cannot know of.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use porchlight_event::Envelope;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::seconds;
use crate::now_ms;

/// Nothing waits.
const NOTHING: i64 = i64::MAX;
/// Nothing was applied yet.
const NEVER: i64 = i64::MIN;

/// Two points in time, in milliseconds since the epoch.
#[derive(Debug)]
pub(crate) struct Lag {
    waiting_since_ms: AtomicI64,
    newest_applied_ms: AtomicI64,
}

/// Shows them.
#[derive(Debug)]
pub(super) struct LagCollector(pub(super) Arc<Lag>);

/// Since when each piece in hand waits, in the order in which they are settled.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    pieces: VecDeque<i64>,
    /// Given back because the ledger failed: they wait in the queue as long as it does, for all that is known here.
    given_back: Option<i64>,
}

impl Default for Lag {
    fn default() -> Self {
        Self {
            waiting_since_ms: AtomicI64::new(NOTHING),
            newest_applied_ms: AtomicI64::new(NEVER),
        }
    }
}

impl Lag {
    pub(crate) fn set_waiting_since(&self, at_ms: Option<i64>) {
        self.waiting_since_ms.store(at_ms.unwrap_or(NOTHING), Relaxed);
    }

    pub(crate) fn applied(&self, happened_at_ms: i64) {
        self.newest_applied_ms.fetch_max(happened_at_ms, Relaxed);
    }

    fn waiting_ms(&self, now_ms: i64) -> i64 {
        match self.waiting_since_ms.load(Relaxed) {
            NOTHING => 0,
            since_ms => now_ms.saturating_sub(since_ms).max(0),
        }
    }
}

impl Collector for LagCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut put = |name: &str, help: &str, value: f64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        put(
            "oldest_waiting_age_seconds",
            "Age since receipt of the oldest event that this process knows of and has not settled; 0 when there is none",
            seconds(self.0.waiting_ms(now_ms())),
        )?;
        match self.0.newest_applied_ms.load(Relaxed) {
            NEVER => Ok(()),
            at_ms => put(
                "newest_applied_timestamp_seconds",
                "When the newest event happened that was applied or recorded, as Unix time",
                seconds(at_ms),
            ),
        }
    }
}

impl Waits {
    /// A piece was taken; it comes after all that are in hand.
    pub(crate) fn push(&mut self, since_ms: i64) {
        self.pieces.push_back(since_ms);
    }

    /// The oldest piece is no longer in hand.
    pub(crate) fn pop(&mut self) {
        self.pieces.pop_front();
    }

    /// A piece is dropped that `before` others stand before.
    pub(crate) fn remove(&mut self, before: usize) {
        self.pieces.remove(before);
    }

    /// Nothing is in hand any more, and all that was will come again. `ledger` says whether the ledger is to blame.
    pub(crate) fn give_back(&mut self, ledger: bool) {
        if ledger {
            self.given_back = self.oldest();
        }
        self.pieces.clear();
    }

    /// The ledger takes writes again: what was given back is handed out again, or another process has settled it.
    pub(crate) fn ledger_is_back(&mut self) {
        self.given_back = None;
    }

    /// Since when the oldest waits.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.pieces.iter().copied().chain(self.given_back).min()
    }
}

/// Since when an event waits that was taken at `taken_at_ms`: since its receipt. One that was put off or replayed waits
/// only since it was taken: it was received long ago for a reason, and is no sign of a process that lags.
pub(crate) fn waits_since(envelope: &Envelope, taken_at_ms: i64) -> i64 {
    fresh_since(envelope).map_or(taken_at_ms, |at_ms| at_ms.min(taken_at_ms))
}

/// When an event was received that comes straight from there.
pub(crate) fn fresh_since(envelope: &Envelope) -> Option<i64> {
    let is_fresh = envelope.attempt == 0 && envelope.replay == 0;
    envelope.received_at_ms.filter(|_| is_fresh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_age_grows_while_something_waits_and_is_zero_otherwise() {
        let lag = Lag::default();
        assert_eq!(lag.waiting_ms(9_000), 0);
        lag.set_waiting_since(Some(4_000));
        assert_eq!([lag.waiting_ms(5_000), lag.waiting_ms(9_000)], [1_000, 5_000]);
        assert_eq!(lag.waiting_ms(3_000), 0, "another machine's clock is ahead");
        lag.set_waiting_since(None);
        assert_eq!(lag.waiting_ms(9_000), 0);
    }

    #[test]
    fn what_is_settled_dropped_or_given_back_waits_no_more_unless_the_ledger_fails() {
        let mut waits = Waits::default();
        for since in [30, 10, 20] {
            waits.push(since);
        }
        assert_eq!(waits.oldest(), Some(10));
        waits.pop();
        waits.remove(0);
        assert_eq!(waits.oldest(), Some(20));
        waits.give_back(false);
        assert_eq!(waits.oldest(), None);
        waits.push(40);
        waits.give_back(true);
        waits.push(50);
        assert_eq!(waits.oldest(), Some(40), "it waits in the queue");
        waits.ledger_is_back();
        assert_eq!(waits.oldest(), Some(50));
    }

    #[test]
    fn what_was_put_off_or_replayed_waits_since_it_was_taken() {
        let fresh = Envelope {
            received_at_ms: Some(1_000),
            ..Envelope::bare(Bytes::new())
        };
        assert_eq!(waits_since(&fresh, 5_000), 1_000);
        assert_eq!(waits_since(&fresh, 500), 500, "a clock that is ahead");
        let replayed = Envelope {
            replay: 1,
            ..fresh.clone()
        };
        let put_off = Envelope {
            attempt: 1,
            ..fresh.clone()
        };
        let bare = Envelope::bare(Bytes::new());
        assert_eq!(
            [replayed, put_off, bare].map(|one| waits_since(&one, 5_000)),
            [5_000; 3]
        );
    }
}
