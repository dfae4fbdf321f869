//! What is counted of callbacks, by receiver. A receiver's label is its kind, `default`, or `none` where a kind has no
//! receiver, so the settings bound how many there are.
//!
//! It decides nothing.

use porchlight_service::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    receiver: String,
    action: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverLabels {
    receiver: String,
}

/// All of them.
#[derive(Debug)]
pub(super) struct CallbackMetrics {
    attempts: Family<AttemptLabels, Counter>,
    seconds: Family<ReceiverLabels, Histogram, fn() -> Histogram>,
    inflight: Family<ReceiverLabels, Gauge>,
    breaker: Family<ReceiverLabels, Gauge>,
}

/// Those of one receiver.
#[derive(Debug)]
pub(super) struct ReceiverMetrics {
    pub(super) seconds: Histogram,
    pub(super) breaker: Gauge,
    inflight: Gauge,
}

/// Counts one in flight until it is dropped.
pub(super) struct Inflight<'m>(&'m Gauge);

impl Default for CallbackMetrics {
    fn default() -> Self {
        Self {
            attempts: Family::default(),
            // 1 ms to 16 s: a service next door, up to past the usual deadline.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15))),
            inflight: Family::default(),
            breaker: Family::default(),
        }
    }
}

impl CallbackMetrics {
    pub(super) fn register(&self, metrics: &mut Metrics) {
        let area = metrics.area("worker");
        area.register(
            "callback_attempts",
            "Commands that came to a receiver's turn, by action and result",
            self.attempts.clone(),
        );
        area.register(
            "callback_seconds",
            "From calling a receiver to its status or the failure",
            self.seconds.clone(),
        );
        area.register("callback_inflight", "Calls under way", self.inflight.clone());
        area.register(
            "callback_breaker",
            "A receiver's circuit breaker: 0 closed, 1 probing, 2 open",
            self.breaker.clone(),
        );
    }

    pub(super) fn attempt(&self, receiver: &str, action: &'static str, result: &'static str) {
        let receiver = receiver.to_owned();
        self.attempts
            .get_or_create(&AttemptLabels {
                receiver,
                action,
                result,
            })
            .inc();
    }

    pub(super) fn receiver(&self, label: &str) -> ReceiverMetrics {
        let labels = ReceiverLabels {
            receiver: label.to_owned(),
        };
        ReceiverMetrics {
            seconds: self.seconds.get_or_create_owned(&labels),
            breaker: self.breaker.get_or_create_owned(&labels),
            inflight: self.inflight.get_or_create_owned(&labels),
        }
    }
}

impl ReceiverMetrics {
    pub(super) fn count_inflight(&self) -> Inflight<'_> {
        self.inflight.inc();
        Inflight(&self.inflight)
    }
}

impl Drop for Inflight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
