//! Figures of the asynchronous runtime: how busy its threads are, and what waits for them.
//!
//! They come from the runtime's own counters, at each scrape.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::runtime::RuntimeMetrics;

/// Shows them.
#[derive(Debug)]
pub(super) struct RuntimeCollector(pub(super) RuntimeMetrics);

impl Collector for RuntimeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let runtime = &self.0;
        let gauges = [
            ("threads", "Threads that run tasks", runtime.num_workers()),
            ("tasks", "Tasks that have not ended", runtime.num_alive_tasks()),
            (
                "queued_tasks",
                "Tasks that wait for any thread; many of them mean that there is too little processor time",
                runtime.global_queue_depth(),
            ),
        ];
        for (name, help, count) in gauges {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let busy: Duration = (0..runtime.num_workers())
            .map(|thread| runtime.worker_total_busy_duration(thread))
            .sum();
        let help = "Time for which threads were busy with tasks, all together";
        let metric = encoder.encode_descriptor("busy_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(busy.as_secs_f64()).encode(metric)
    }
}
