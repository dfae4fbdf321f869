//! What the worker counts, under `porchlight_worker_`: every name, label and bucket in one place.
//!
//! It decides nothing; whoever handles a thing counts it, once.

mod labels;
mod lag;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use porchlight_device::ledger::Backlog;
use porchlight_service::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

pub(crate) use labels::{CommandResult, type_label};
pub(crate) use lag::{Waits, fresh_since, waits_since};

use crate::now_ms;
use labels::{ACTIONS, CallLabels, CommandLabels, DeadLabels, EventLabels, REASONS, Word, settlements};
use lag::{Lag, LagCollector};

/// Seconds from an event's receipt until it is settled: milliseconds when all is well, an hour after a long outage.
const AGE_BUCKETS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

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
    event_age_seconds: Histogram,
    lag_seconds: Gauge<f64, AtomicU64>,
    pub(crate) lag: Arc<Lag>,
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
            event_age_seconds: Histogram::new(AGE_BUCKETS),
            lag_seconds: Gauge::default(),
            lag: Arc::default(),
            inflight_events: Gauge::default(),
            inflight_commands: Gauge::default(),
            owed_commands: Gauge::default(),
            owed_oldest_seconds: Gauge::default(),
            accounts_to_tell: Gauge::default(),
            ledger_up: Gauge::default(),
            consumer_ready: Gauge::default(),
            publisher_ready: Gauge::default(),
        };
        own.show_from_the_start();
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
            "event_age_seconds",
            "From an event's receipt until it was settled, but for those put off or replayed",
            own.event_age_seconds.clone(),
        );
        area.register(
            "lag_seconds",
            "Age of the event settled last, when it was, since its receipt",
            own.lag_seconds.clone(),
        );
        area.register_collector(Box::new(LagCollector(Arc::clone(&own.lag))));
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

    /// Makes every series that can be: one that begins with its first event hides that event from every rate.
    fn show_from_the_start(&self) {
        for (kind, outcome) in settlements() {
            let labels = EventLabels {
                r#type: Word(kind),
                outcome: Word(outcome),
            };
            drop(self.events.get_or_create(&labels));
        }
        for reason in REASONS {
            drop(self.dead.get_or_create(&DeadLabels { reason: Word(reason) }));
        }
        for action in ACTIONS {
            for result in CommandResult::ALL {
                let labels = CommandLabels {
                    action: Word(action),
                    result: Word(result.word()),
                };
                drop(self.commands.get_or_create(&labels));
            }
        }
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
        let result = Word(result.word());
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

    /// Events were settled just now that had been received at these times, the last one last.
    pub(crate) fn settled_after(&self, received_at_ms: &[i64]) {
        let now_ms = now_ms();
        let age = |at_ms: &i64| seconds(now_ms.saturating_sub(*at_ms).max(0));
        for at_ms in received_at_ms {
            self.event_age_seconds.observe(age(at_ms));
        }
        if let Some(last) = received_at_ms.last() {
            self.lag_seconds.set(age(last));
        }
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
            "porchlight_worker_oldest_waiting_age_seconds 0.0",
            r#"porchlight_worker_dead_letters_total{reason="panic"} 0"#,
        ] {
            assert!(
                shown.lines().any(|shown| shown == line),
                "{line} is not in {shown}"
            );
        }
    }
}
