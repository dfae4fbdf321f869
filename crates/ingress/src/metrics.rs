//! What the ingress counts, and the names under which it is shown.
//!
//! Label values come from closed sets: answers, causes, names of keys, states. Nothing that a client sends becomes one.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::body::BodyMemory;
use crate::spool::SpoolStats;
use crate::storage::{SPOOL_STATES, STATES, Storage};

/// Seconds; fine where answers should be, coarse up to the last answer that Ring waits for.
const LATENCY_BUCKETS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 4.5,
];

/// Every answer with every cause that it can have, as [`crate::reply`] gives them.
pub(crate) const ANSWERS: [(u16, &str); 27] = [
    (200, "stored"),
    (200, "spooled"),
    (400, "malformed_http"),
    (401, "signature_missing"),
    (401, "signature_repeated"),
    (401, "signature_malformed"),
    (401, "signature_mismatch"),
    (404, "not_found"),
    (405, "method_not_allowed"),
    (413, "body_too_large"),
    (503, "body_broken"),
    (503, "body_slow"),
    (503, "confirm_timeout"),
    (503, "key_health"),
    (503, "keys_missing"),
    (503, "memory_full"),
    (503, "queue_blocked"),
    (503, "queue_disconnected"),
    (503, "queue_full"),
    (503, "queue_refused"),
    (503, "queue_returned"),
    (503, "queue_unavailable"),
    (503, "spool_failed"),
    (503, "spool_full"),
    (503, "spool_timeout"),
    (503, "stopping"),
    (503, "window_full"),
];
/// Why a connection can end before its time.
const FAILURES: [&str; 4] = ["broken", "tls_handshake", "tls_handshake_slow", "too_slow"];
/// Files that are followed, and what becomes of a content of one.
const FILES: [&str; 2] = ["signing_keys", "certificate"];
const LOADS: [&str; 2] = ["in_force", "refused"];

/// Counted where it happens.
#[derive(Debug)]
pub(crate) struct IngressMetrics {
    requests: Family<RequestLabels, Counter>,
    /// The one label set that nearly every request has; looking it up each time would cost a lock and a hash.
    stored: Counter,
    signatures: Family<KeyLabels, Counter>,
    pub(crate) answer_seconds: Histogram,
    pub(crate) confirm_seconds: Histogram,
    pub(crate) body_bytes: Counter,
    pub(crate) connections: Gauge,
    connections_failed: Family<FailureLabels, Counter>,
    file_loads: Family<LoadLabels, Counter>,
}

/// Read from their owners at each scrape.
#[derive(Debug)]
pub(crate) struct StateCollector {
    pub(crate) storage: Storage,
    pub(crate) memory: Arc<BodyMemory>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    answer: u16,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    key: String,
}

/// Why a connection ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadLabels {
    file: &'static str,
    outcome: &'static str,
}

impl IngressMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let metrics = Self {
            stored: requests.get_or_create_owned(&RequestLabels {
                answer: 200,
                cause: "stored",
            }),
            requests,
            signatures: Family::default(),
            answer_seconds: Histogram::new(LATENCY_BUCKETS),
            confirm_seconds: Histogram::new(LATENCY_BUCKETS),
            body_bytes: Counter::default(),
            connections: Gauge::default(),
            connections_failed: Family::default(),
            file_loads: Family::default(),
        };
        registry.register(
            "requests",
            "Requests by answer and cause",
            metrics.requests.clone(),
        );
        registry.register(
            "signatures",
            "Signatures that matched, by key",
            metrics.signatures.clone(),
        );
        let help = "From a request's first byte to its answer";
        registry.register("answer_seconds", help, metrics.answer_seconds.clone());
        let help = "From handing an event to the queue to its confirm";
        registry.register("confirm_seconds", help, metrics.confirm_seconds.clone());
        registry.register("body_bytes", "Bytes of stored bodies", metrics.body_bytes.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        let help = "Connections that ended before their time, by cause";
        registry.register("connections_failed", help, metrics.connections_failed.clone());
        let help = "Contents of files that were put in force or refused";
        registry.register("file_loads", help, metrics.file_loads.clone());
        metrics.show_from_the_start();
        metrics
    }

    /// Makes every series that can be: one that begins with its first request hides that request from every rate.
    fn show_from_the_start(&self) {
        for (answer, cause) in ANSWERS {
            drop(self.requests.get_or_create(&RequestLabels { answer, cause }));
        }
        for cause in FAILURES {
            drop(self.connections_failed.get_or_create(&FailureLabels { cause }));
        }
        for file in FILES {
            for outcome in LOADS {
                drop(self.file_loads.get_or_create(&LoadLabels { file, outcome }));
            }
        }
    }

    pub(crate) fn count_stored(&self, spooled: bool) {
        if spooled {
            self.count_request(200, "spooled");
        } else {
            self.stored.inc();
        }
    }

    pub(crate) fn count_request(&self, answer: u16, cause: &'static str) {
        self.requests
            .get_or_create(&RequestLabels { answer, cause })
            .inc();
    }

    pub(crate) fn count_failed_connection(&self, cause: &'static str) {
        self.connections_failed
            .get_or_create(&FailureLabels { cause })
            .inc();
    }

    /// Counts a file's content that was put in force, or refused because it is not usable.
    pub(crate) fn count_file_load(&self, file: &'static str, usable: bool) {
        let outcome = if usable { "in_force" } else { "refused" };
        self.file_loads.get_or_create(&LoadLabels { file, outcome }).inc();
    }

    /// The counter of matches of the key with this name.
    pub(crate) fn matched(&self, key: &str) -> Counter {
        self.signatures
            .get_or_create_owned(&KeyLabels { key: key.to_owned() })
    }
}

impl Collector for StateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.storage.stats();
        let gauges = [
            (
                "inflight_publishes",
                "Events handed to the queue and not settled, late ones included",
                stats.inflight as u64,
            ),
            (
                "publish_window",
                "Most events in flight at once",
                stats.inflight_max as u64,
            ),
            (
                "body_memory_bytes",
                "Memory taken by bodies",
                self.memory.taken() as u64,
            ),
        ];
        put_gauges(&mut encoder, &gauges)?;
        let counters = [
            (
                "confirms_late",
                "Confirms that came after the answer",
                stats.late_total,
            ),
            (
                "publishes_returned",
                "Events that found no place",
                stats.returned_total,
            ),
            (
                "publishes_refused",
                "Events that the queue refused",
                stats.refused_total,
            ),
            (
                "queue_reconnects",
                "Connections made after the first",
                stats.reconnects_total,
            ),
        ];
        put_counters(&mut encoder, &counters)?;
        let help = "1 for the state that the queue is in";
        put_state(&mut encoder, "queue_state", help, &STATES, self.storage.state())?;
        match self.storage.spool() {
            Some((state, stats)) => put_spool(&mut encoder, state, stats),
            None => Ok(()),
        }
    }
}

fn put_spool(
    encoder: &mut DescriptorEncoder<'_>,
    state: &'static str,
    stats: SpoolStats,
) -> Result<(), fmt::Error> {
    let help = "Seconds for which the oldest event has been in the spool";
    let gauges = [
        ("spool_events", "Events in the spool", stats.events),
        ("spool_bytes", "Bytes in use in the spool's file", stats.bytes),
        ("spool_oldest_age_seconds", help, stats.oldest_age_seconds),
    ];
    put_gauges(encoder, &gauges)?;
    let help = "Events that were handed over from the spool to the queue";
    let counters = [
        (
            "spool_stored",
            "Events that were stored in the spool",
            stats.stored_total,
        ),
        ("spool_handed_over", help, stats.handed_over_total),
    ];
    put_counters(encoder, &counters)?;
    let help = "1 for the state that the spool is in";
    put_state(encoder, "spool_state", help, &SPOOL_STATES, state)
}

fn put_gauges(encoder: &mut DescriptorEncoder<'_>, gauges: &[(&str, &str, u64)]) -> Result<(), fmt::Error> {
    for (name, help, value) in gauges {
        let value = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
        value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    Ok(())
}

fn put_counters(
    encoder: &mut DescriptorEncoder<'_>,
    counters: &[(&str, &str, u64)],
) -> Result<(), fmt::Error> {
    for (name, help, value) in counters {
        let value = ConstCounter::new(*value);
        value.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    Ok(())
}

fn put_state(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &[&'static str],
    now: &str,
) -> Result<(), fmt::Error> {
    let mut states = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for state in all {
        let gauge = ConstGauge::new(i64::from(*state == now));
        gauge.encode(states.encode_family(&[("state", *state)])?)?;
    }
    Ok(())
}
