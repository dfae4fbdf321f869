//! What is shown of queues, under `porchlight_queue_`: the last reading, and nothing where there is none.
//!
//! A figure that is not known is absent and never zero: an alert on a depth must not take an outage for an empty queue.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use porchlight_event::queue::QueueState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

/// The queue with the work, which a process may consume itself.
const EVENTS: &str = "porchlight.events";

/// The last reading, shared between who reads and who shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<Reading>>);

/// What is known now.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Reading {
    /// Nothing was read yet, or nobody reads any more.
    #[default]
    None,
    /// The last attempt failed.
    Failed,
    /// The last attempt succeeded.
    Read(Vec<Row>),
}

/// One queue. What is `None` is not known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) queue: &'static str,
    /// Whether there is such a queue.
    pub(crate) exists: bool,
    pub(crate) ready: Option<u64>,
    pub(crate) unacked: Option<u64>,
    pub(crate) consumers: Option<u64>,
    pub(crate) bytes: Option<u64>,
    /// Whether ages can be told at all.
    pub(crate) tells_age: bool,
    pub(crate) oldest_at_ms: Option<i64>,
}

/// Shows the last reading at each scrape.
#[derive(Debug)]
pub(crate) struct QueueCollector {
    pub(crate) shown: Shown,
    /// How this process itself consumes, where nobody else can.
    pub(crate) consumer: Option<watch::Receiver<QueueState>>,
    /// Whether the management API answers, where one is set.
    pub(crate) management: Option<watch::Receiver<bool>>,
}

impl Shown {
    pub(crate) fn set(&self, reading: Reading) {
        *self.lock() = reading;
    }

    fn get(&self) -> Reading {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for QueueCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = match self.shown.get() {
            Reading::None => return Ok(()),
            Reading::Failed => {
                put_up(&mut encoder, false)?;
                Vec::new()
            }
            Reading::Read(rows) => {
                put_up(&mut encoder, true)?;
                rows
            }
        };
        if let Some(management) = &self.management {
            let up = ConstGauge::new(i64::from(*management.borrow()));
            let help = "1 while the management API answers, which tells unacked messages and bytes";
            up.encode(encoder.encode_descriptor("management_up", help, None, MetricType::Gauge)?)?;
        }
        let now_ms = now_ms();
        let help = "1 where there is such a queue, 0 where it is missing";
        put(&mut encoder, "exists", help, &rows, |row| {
            Some(f64::from(u8::from(row.exists)))
        })?;
        let help = "Messages ready to be taken; of several replicas take the max by queue";
        put(&mut encoder, "ready", help, &rows, |row| row.ready.map(to_f64))?;
        let help = "Messages taken and not acked; of several replicas take the max by queue";
        put(&mut encoder, "unacked", help, &rows, |row| {
            row.unacked.map(to_f64)
        })?;
        let help = "Consumers; of several replicas take the max by queue";
        put(&mut encoder, "consumers", help, &rows, |row| {
            self.consumers(row).map(to_f64)
        })?;
        let help = "Bytes of the bodies, those in hand included; of several replicas take the max by queue";
        put(&mut encoder, "bytes", help, &rows, |row| row.bytes.map(to_f64))?;
        let help = "Age of the oldest, since it was stored here; 0 when there is none";
        put(&mut encoder, "oldest_age_seconds", help, &rows, |row| {
            row.age_seconds(now_ms)
        })
    }
}

impl QueueCollector {
    fn consumers(&self, row: &Row) -> Option<u64> {
        let own = || {
            let consumer = self.consumer.as_ref().filter(|_| row.queue == EVENTS)?;
            Some(u64::from(consumer.borrow().is_ready()))
        };
        row.consumers.or_else(own)
    }
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "more than 2^53 ms is a wrong clock")]
    fn age_seconds(&self, now_ms: i64) -> Option<f64> {
        let age_ms = |at_ms: i64| now_ms.saturating_sub(at_ms).max(0);
        (self.tells_age && self.exists).then(|| self.oldest_at_ms.map_or(0, age_ms) as f64 / 1000.0)
    }
}

fn put_up(encoder: &mut DescriptorEncoder<'_>, up: bool) -> Result<(), fmt::Error> {
    let help = "1 while queue depths can be read; without it they are absent";
    let gauge = ConstGauge::new(i64::from(up));
    gauge.encode(encoder.encode_descriptor("watch_up", help, None, MetricType::Gauge)?)
}

/// One gauge with a series for each queue whose figure is known; nothing at all where none is.
fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: &[Row],
    figure: impl Fn(&Row) -> Option<f64>,
) -> Result<(), fmt::Error> {
    let known: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row.queue, figure(row)?)))
        .collect();
    if known.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (queue, value) in known {
        ConstGauge::new(value).encode(family.encode_family(&[("queue", queue)])?)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "no queue holds 2^53 messages or bytes")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use porchlight_service::Metrics;

    fn shown(reading: Reading, consumer: Option<QueueState>) -> String {
        let shown = Shown::default();
        shown.set(reading);
        let collector = QueueCollector {
            shown,
            consumer: consumer.map(|state| watch::channel(state).1),
            management: None,
        };
        let mut metrics = Metrics::new("0", "test");
        metrics.area("queue").register_collector(Box::new(collector));
        let text = metrics.encode();
        let ours = text.lines().filter(|line| line.starts_with("porchlight_queue_"));
        ours.collect::<Vec<_>>().join("\n")
    }

    fn row(queue: &'static str) -> Row {
        Row {
            queue,
            exists: true,
            ready: Some(7),
            ..Row::default()
        }
    }

    #[test]
    fn what_is_not_known_is_absent_and_never_zero() {
        assert_eq!(shown(Reading::None, None), "");
        assert_eq!(shown(Reading::Failed, None), "porchlight_queue_watch_up 0");
        let gone = Row {
            exists: false,
            ready: None,
            ..row("porchlight.dead")
        };
        assert_eq!(
            shown(Reading::Read(vec![row("porchlight.events"), gone]), None),
            "porchlight_queue_watch_up 1\n\
             porchlight_queue_exists{queue=\"porchlight.events\"} 1.0\n\
             porchlight_queue_exists{queue=\"porchlight.dead\"} 0.0\n\
             porchlight_queue_ready{queue=\"porchlight.events\"} 7.0"
        );
    }

    #[test]
    fn an_age_grows_between_readings_and_is_zero_for_an_empty_queue() {
        let aged = Row {
            tells_age: true,
            oldest_at_ms: Some(1_000),
            ..row("porchlight.events")
        };
        assert_eq!(aged.age_seconds(3_500), Some(2.5));
        assert_eq!(aged.age_seconds(500), Some(0.0), "a clock that was set back");
        let empty = Row {
            oldest_at_ms: None,
            ..aged
        };
        assert_eq!(empty.age_seconds(3_500), Some(0.0));
        assert_eq!(row("porchlight.events").age_seconds(3_500), None);
    }

    #[test]
    fn a_process_that_consumes_by_itself_counts_as_a_consumer_of_the_work_alone() {
        let rows = || Reading::Read(vec![row("porchlight.events"), row("porchlight.dead")]);
        let consumers = |state| {
            let text = shown(rows(), Some(state));
            let lines = text.lines().filter(|line| line.contains("_consumers"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            consumers(QueueState::Ready),
            ["porchlight_queue_consumers{queue=\"porchlight.events\"} 1.0"]
        );
        assert_eq!(
            consumers(QueueState::Paused),
            ["porchlight_queue_consumers{queue=\"porchlight.events\"} 0.0"]
        );
    }
}
