//! What is shown of outages and of the keys' health, beside the counts of requests.
//!
//! It counts and keeps; when something is an outage is decided elsewhere.

use porchlight_event::diagnosis::Diagnosis;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Set and counted where it happens.
#[derive(Debug, Default)]
pub(crate) struct HealthMetrics {
    pub(crate) ring_shaped_rejected: Counter,
    pub(crate) key_breaker_open: Gauge,
    pub(crate) last_match: Gauge,
    diagnoses: Family<DiagnosisLabels, Counter>,
    pub(crate) outage: Gauge,
    pub(crate) outage_started: Gauge,
    pub(crate) outage_first_loss: Gauge,
    pub(crate) outage_forgotten: Gauge,
    pub(crate) outage_answers: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DiagnosisLabels {
    diagnosis: &'static str,
}

impl HealthMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Requests with a well-formed signature that no key matched, whatever the answer";
        registry.register("ring_shaped_rejected", help, metrics.ring_shaped_rejected.clone());
        let help = "1 while a signature that no key matches is answered 503 in place of 401";
        registry.register("key_breaker_open", help, metrics.key_breaker_open.clone());
        let help = "When a signature last matched; 0 before the first";
        registry.register("last_match_timestamp_seconds", help, metrics.last_match.clone());
        let help = "Refused signatures that are right but for one thing, by what that is; a sample of them";
        registry.register("signature_diagnoses", help, metrics.diagnoses.clone());
        for diagnosis in Diagnosis::ALL {
            metrics.diagnosed(diagnosis);
        }
        let help = "1 while requests that may be Ring's are answered 5xx";
        registry.register("outage", help, metrics.outage.clone());
        let help = "When the outage began; 0 without one";
        registry.register(
            "outage_started_timestamp_seconds",
            help,
            metrics.outage_started.clone(),
        );
        let help = "When Ring gives up on the first event, if the outage goes on; 0 without one";
        registry.register(
            "outage_first_loss_timestamp_seconds",
            help,
            metrics.outage_first_loss.clone(),
        );
        let help = "When Ring forgets the first event that it gave up on; 0 without an outage";
        registry.register(
            "outage_forgotten_timestamp_seconds",
            help,
            metrics.outage_forgotten.clone(),
        );
        let help = "Answers 5xx to requests that may be Ring's";
        registry.register("outage_answers", help, metrics.outage_answers.clone());
        metrics
    }

    /// The counter of refused signatures with this diagnosis.
    pub(crate) fn diagnosed(&self, diagnosis: Diagnosis) -> Counter {
        let diagnosis = diagnosis.code();
        self.diagnoses.get_or_create_owned(&DiagnosisLabels { diagnosis })
    }

    /// Shows the times of an outage, in milliseconds since the epoch, or that there is none.
    pub(crate) fn show_outage(&self, times_ms: Option<[i64; 3]>) {
        let [started, first_loss, forgotten] = times_ms.unwrap_or_default();
        self.outage.set(i64::from(times_ms.is_some()));
        self.outage_started.set(started / 1_000);
        self.outage_first_loss.set(first_loss / 1_000);
        self.outage_forgotten.set(forgotten / 1_000);
    }
}
