//! What the worker counts, under `porchlight_worker_`: every name, label and bucket in one place.
//!
//! It decides nothing; whoever handles a thing counts it, once.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use porchlight_device::ledger::Backlog;
use porchlight_service::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::now_ms;

/// A label whose values are all known when the program is built, or are Ring's own type names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl prometheus_client::encoding::EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    r#type: Word,
    outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLabels {
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    action: Word,
    result: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: Word,
    status: u16,
}

/// What became of one try to send a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandResult {
    /// Delivered, and the ledger knows it.
    Sent,
    /// Delivered, but the ledger could not be told: it will be sent again under the same identity.
    Unnoted,
    /// Not known to be delivered: the sweeper tries again.
    Failed,
    /// Left to the sweeper: too many were waiting, or its receiver is left alone for a while.
    Left,
    /// Let go of, because the same or a newer one of its operation was in hand.
    Overtaken,
    /// Failed for so long that it is among the dead letters now, and owed no longer.
    GivenUp,
}

/// Every metric of the worker. Cheap to share behind an `Arc`; counting locks at most a read lock.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    events: Family<EventLabels, Counter>,
    dead: Family<DeadLabels, Counter>,
    commands: Family<CommandLabels, Counter>,
    calls: Family<CallLabels, Counter>,
    redelivered: Counter,
    held_tries: Counter,
    given_back: Counter,
    apply_seconds: Histogram,
    batch_events: Histogram,
    lag_seconds: Gauge<f64, AtomicU64>,
    inflight_events: Gauge,
    inflight_commands: Gauge,
    owed_commands: Gauge,
    owed_oldest_seconds: Gauge<f64, AtomicU64>,
    accounts_to_tell: Gauge,
    ledger_up: Gauge,
    consumer_ready: Gauge,
    publisher_ready: Gauge,
}

impl WorkerMetrics {
    /// Makes and registers them.
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let own = Self {
            events: Family::default(),
            dead: Family::default(),
            commands: Family::default(),
            calls: Family::default(),
            redelivered: Counter::default(),
            held_tries: Counter::default(),
            given_back: Counter::default(),
            // 0.5 ms to 4 s: one round trip with an fsync, up to a hold.
            apply_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            lag_seconds: Gauge::default(),
            inflight_events: Gauge::default(),
            inflight_commands: Gauge::default(),
            owed_commands: Gauge::default(),
            owed_oldest_seconds: Gauge::default(),
            accounts_to_tell: Gauge::default(),
            ledger_up: Gauge::default(),
            consumer_ready: Gauge::default(),
            publisher_ready: Gauge::default(),
        };
        let area = metrics.area("worker");
        area.register(
            "events",
            "Events settled, by type and outcome",
            own.events.clone(),
        );
        area.register(
            "dead_letters",
            "Events dead-lettered, by reason",
            own.dead.clone(),
        );
        area.register(
            "commands",
            "Tries to send a command, by action and result",
            own.commands.clone(),
        );
        area.register(
            "api_calls",
            "Control API calls, by call and status",
            own.calls.clone(),
        );
        area.register(
            "redelivered",
            "Deliveries that the queue had delivered before",
            own.redelivered.clone(),
        );
        area.register(
            "held_tries",
            "Tries repeated because ledger or queue failed",
            own.held_tries.clone(),
        );
        area.register(
            "given_back",
            "Deliveries given back after holding them in vain",
            own.given_back.clone(),
        );
        area.register(
            "apply_seconds",
            "From taking a batch to its last reply",
            own.apply_seconds.clone(),
        );
        area.register("batch_events", "Events in a batch", own.batch_events.clone());
        area.register(
            "lag_seconds",
            "Age of the event settled last, since its receipt",
            own.lag_seconds.clone(),
        );
        area.register(
            "inflight_events",
            "Events in hand and not settled",
            own.inflight_events.clone(),
        );
        area.register(
            "inflight_commands",
            "Commands being sent",
            own.inflight_commands.clone(),
        );
        area.register(
            "owed_commands",
            "Commands in the outbox, as last counted",
            own.owed_commands.clone(),
        );
        area.register(
            "owed_oldest_seconds",
            "Age of the oldest command in the outbox",
            own.owed_oldest_seconds.clone(),
        );
        area.register(
            "accounts_to_tell",
            "Accounts whose devices were not all told",
            own.accounts_to_tell.clone(),
        );
        area.register("ledger_up", "1 while the ledger answers", own.ledger_up.clone());
        area.register(
            "consumer_ready",
            "1 while subscribed to the queue",
            own.consumer_ready.clone(),
        );
        area.register(
            "publisher_ready",
            "1 while the queue takes copies",
            own.publisher_ready.clone(),
        );
        own
    }

    /// One event is settled. `kind` is a type's label, never a foreign name.
    pub(crate) fn settled(&self, kind: &'static str, outcome: &'static str) {
        self.events
            .get_or_create(&EventLabels {
                r#type: Word(kind),
                outcome: Word(outcome),
            })
            .inc();
    }

    pub(crate) fn buried(&self, reason: &'static str) {
        self.dead
            .get_or_create(&DeadLabels { reason: Word(reason) })
            .inc();
    }

    pub(crate) fn command(&self, action: &'static str, result: CommandResult) {
        let result = Word(match result {
            CommandResult::Sent => "sent",
            CommandResult::Unnoted => "unnoted",
            CommandResult::Failed => "failed",
            CommandResult::Left => "left",
            CommandResult::Overtaken => "overtaken",
            CommandResult::GivenUp => "given_up",
        });
        self.commands
            .get_or_create(&CommandLabels {
                action: Word(action),
                result,
            })
            .inc();
    }

    pub(crate) fn call(&self, call: &'static str, status: u16) {
        self.calls
            .get_or_create(&CallLabels {
                call: Word(call),
                status,
            })
            .inc();
    }

    pub(crate) fn taken(&self, events: usize, redelivered: usize) {
        self.batch_events.observe(to_f64(events));
        self.redelivered.inc_by(redelivered as u64);
    }

    pub(crate) fn applied(&self, took: Duration) {
        self.apply_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn held_try(&self) {
        self.held_tries.inc();
    }

    pub(crate) fn gave_back(&self, events: usize) {
        self.given_back.inc_by(events as u64);
    }

    pub(crate) fn set_lag(&self, lag_ms: i64) {
        self.lag_seconds.set(seconds(lag_ms));
    }

    pub(crate) fn set_inflight_events(&self, events: usize) {
        self.inflight_events.set(to_i64(events));
    }

    /// One of the senders has `after` commands in flight and had `before`.
    pub(crate) fn add_inflight_commands(&self, before: usize, after: usize) {
        self.inflight_commands.inc_by(to_i64(after) - to_i64(before));
    }

    pub(crate) fn inflight_commands(&self) -> usize {
        usize::try_from(self.inflight_commands.get()).unwrap_or_default()
    }

    pub(crate) fn set_backlog(&self, backlog: &Backlog) {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.owed_commands.set(count(backlog.commands));
        self.accounts_to_tell.set(count(backlog.accounts_to_tell));
        let oldest_age_ms = backlog
            .oldest_ms
            .map_or(0, |oldest_ms| now_ms().saturating_sub(oldest_ms).max(0));
        self.owed_oldest_seconds.set(seconds(oldest_age_ms));
    }

    pub(crate) fn set_ledger_up(&self, up: bool) {
        self.ledger_up.set(i64::from(up));
    }

    pub(crate) fn set_consumer_ready(&self, ready: bool) {
        self.consumer_ready.set(i64::from(ready));
    }

    pub(crate) fn set_publisher_ready(&self, ready: bool) {
        self.publisher_ready.set(i64::from(ready));
    }
}

/// A type's label: Ring's own names as they are, `other` for all to come, so that no sender can make labels.
pub(crate) fn type_label(event_type: &str) -> &'static str {
    const KNOWN: [&str; 10] = [
        "device_online",
        "device_offline",
        "device_added",
        "device_removed",
        "motion_detected",
        "button_press",
        "app_integration_added",
        "app_integration_removed",
        "subscription_activated",
        "subscription_deactivated",
    ];
    KNOWN
        .into_iter()
        .find(|known| *known == event_type)
        .unwrap_or("other")
}

#[expect(clippy::cast_precision_loss, reason = "more than 2^53 ms is a wrong clock")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use porchlight_event::EventType;

    #[test]
    fn every_documented_type_has_its_own_label() {
        for known in EventType::KNOWN {
            assert_eq!(type_label(known.as_str()), known.label());
        }
        assert_eq!(type_label("device_onlin"), "other");
    }

    #[test]
    fn names_carry_prefix_unit_and_labels() {
        let mut metrics = Metrics::new("0", "worker");
        let own = WorkerMetrics::register(&mut metrics);
        own.settled("device_online", "applied");
        own.command("resume", CommandResult::Sent);
        own.buried("not_json");
        own.call("show", 404);
        let shown = metrics.encode();
        for line in [
            r#"porchlight_worker_events_total{type="device_online",outcome="applied"} 1"#,
            r#"porchlight_worker_commands_total{action="resume",result="sent"} 1"#,
            r#"porchlight_worker_dead_letters_total{reason="not_json"} 1"#,
            r#"porchlight_worker_api_calls_total{call="show",status="404"} 1"#,
            "porchlight_worker_ledger_up 0",
        ] {
            assert!(
                shown.lines().any(|shown| shown == line),
                "{line} is not in {shown}"
            );
        }
    }
}
