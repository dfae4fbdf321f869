//! Watching the ledger: devices by status and what its server says of itself, read again and again for `/metrics`.
//!
//! It judges nothing, and the work never waits for it. Whether the ledger takes events is the clerk's to say.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use porchlight_device::Status;
use porchlight_ledger::{Ledger, LedgerFacts};
use porchlight_monitor::Beat;
use porchlight_service::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio_util::sync::CancellationToken;

/// For one question; a ledger that works answers in milliseconds.
const READ_MAX: Duration = Duration::from_secs(10);

/// Reads the ledger's figures on an interval.
#[derive(Debug)]
pub(crate) struct LedgerWatch {
    ledger: Ledger,
    beat: Beat,
    shown: Shown,
}

/// The last reading; what could not be read is `None`.
#[derive(Debug, Clone, Default)]
struct Reading {
    devices: Option<BTreeMap<Status, u64>>,
    facts: LedgerFacts,
}

#[derive(Debug, Clone, Default)]
struct Shown(Arc<Mutex<Reading>>);

/// Shows the devices.
#[derive(Debug)]
struct DeviceCollector(Shown);

/// Shows what the ledger says of itself.
#[derive(Debug)]
struct FactCollector(Shown);

impl LedgerWatch {
    /// Shows the figures as `porchlight_worker_devices` and `porchlight_ledger_…` from now on; nothing is read yet.
    pub(crate) fn new(ledger: Ledger, interval: Duration, metrics: &mut Metrics) -> Self {
        let shown = Shown::default();
        let devices = DeviceCollector(shown.clone());
        metrics.area("worker").register_collector(Box::new(devices));
        let facts = FactCollector(shown.clone());
        metrics.area("ledger").register_collector(Box::new(facts));
        Self {
            ledger,
            beat: Beat::new(interval),
            shown,
        }
    }

    /// Reads until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let reading = async {
            loop {
                let reading = self.read().await;
                let good = reading.devices.is_some();
                *self.shown.lock() = reading;
                self.beat.pause(good).await;
            }
        };
        stop.run_until_cancelled(reading).await;
        *self.shown.lock() = Reading::default();
    }

    async fn read(&self) -> Reading {
        let counts = tokio::time::timeout(READ_MAX, self.ledger.counts());
        let facts = tokio::time::timeout(READ_MAX, self.ledger.facts());
        let (counts, facts) = tokio::join!(counts, facts);
        // Why it fails is in the log already: whoever works with the ledger says so.
        Reading {
            devices: counts.ok().and_then(Result::ok),
            facts: facts.ok().and_then(Result::ok).unwrap_or_default(),
        }
    }
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for DeviceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(devices) = self.0.lock().devices.clone() else {
            return Ok(());
        };
        let help = "Devices by status, in the whole ledger; of several replicas take the max by status";
        let mut family = encoder.encode_descriptor("devices", help, None, MetricType::Gauge)?;
        for (status, count) in devices {
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            count.encode(family.encode_family(&[("status", status.code())])?)?;
        }
        Ok(())
    }
}

impl Collector for FactCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let LedgerFacts {
            memory_bytes,
            memory_bytes_max,
            persistence_ok,
            evicts,
        } = self.0.lock().facts;
        let number = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
        let gauges = [
            (
                "memory_bytes",
                "Memory that the ledger's server has taken for data",
                number(memory_bytes),
            ),
            (
                "memory_max_bytes",
                "Memory that it may take; absent where there is no limit",
                number(memory_bytes_max),
            ),
            (
                "persistence_ok",
                "1 while what the ledger takes comes to a disk without errors",
                persistence_ok.map(i64::from),
            ),
            (
                "evicts",
                "1 when the ledger's server may drop data while its memory is full",
                evicts.map(i64::from),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}
