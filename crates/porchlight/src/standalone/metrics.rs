//! What the journal counts, as `porchlight_journal_…` of `/metrics`.
//!
//! The figures are the journal's own, read when they are asked for.

use porchlight_journal::Journal;
use porchlight_service::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads the journal's figures at each scrape.
#[derive(Debug)]
pub(super) struct JournalCollector(Journal);

impl JournalCollector {
    /// Shows the figures of `journal` from now on.
    pub(super) fn register(journal: &Journal, metrics: &mut Metrics) {
        metrics
            .area("journal")
            .register_collector(Box::new(Self(journal.clone())));
    }
}

impl Collector for JournalCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.0.stats();
        let gauges = [
            ("bytes", "Bytes of the pages in use", stats.bytes_in_use),
            (
                "bytes_max",
                "Bytes in use at which no further event is accepted",
                self.0.config().bytes_max,
            ),
            ("inflight", "Requests with the writer", stats.inflight as u64),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let counters = [
            (
                "requests",
                "Requests that the writer has seen",
                stats.requests_total,
            ),
            ("commits", "Commits, each with one sync", stats.commits_total),
            (
                "failed_commits",
                "Commits that failed, with everything in them",
                stats.failed_commits_total,
            ),
            (
                "refused",
                "Events refused at the limit or while writing fails",
                stats.refused_total,
            ),
            (
                "late",
                "Answers that came after their caller's deadline",
                stats.late_total,
            ),
            (
                "reconnects",
                "Connections made again after a fault",
                stats.reconnects_total,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
