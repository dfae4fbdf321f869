//! One watch with its metrics, and the questions that tests ask of them.
//!
//! It asserts nothing about behaviour.

use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::{self as broker, BrokerUrls, Outgoing, PublishDeadlines, Publisher, PublisherConfig};
use porchlight_event::Envelope;
use porchlight_monitor::{Management, QueueWatch};
use porchlight_queue::DepthReader;
use porchlight_service::Metrics;
use porchlight_testbed::wait_for;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; a wait that succeeds never takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Often, so that no test waits for it.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// A running watch.
pub(crate) struct Watched {
    metrics: Metrics,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Watched {
    pub(crate) fn rabbit(url: &str, management: Option<Management>) -> Self {
        let urls = BrokerUrls::parse(url).unwrap();
        let vhost = urls.vhost().to_owned();
        let reader = DepthReader::RabbitMq(broker::DepthReader::new(urls, "test-watch"));
        Self::start(QueueWatch::new(reader, INTERVAL).and_management(management, &vhost))
    }

    pub(crate) fn start(watch: QueueWatch) -> Self {
        let (mut metrics, stop) = (Metrics::new("0", "test"), CancellationToken::new());
        watch.register(&mut metrics);
        let running = tokio::spawn(watch.run(stop.clone()));
        Self {
            metrics,
            stop,
            running,
        }
    }

    /// The value of one series, such as `ready{queue="porchlight.dead"}`; `None` where there is none.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let begin = format!("porchlight_queue_{series} ");
        let shown = self.metrics.encode();
        let line = shown.lines().find_map(|line| line.strip_prefix(&begin));
        line.map(|value| value.parse().unwrap())
    }

    /// How many series of queues there are.
    pub(crate) fn series(&self) -> usize {
        let shown = self.metrics.encode();
        let ours = shown.lines().filter(|line| line.starts_with("porchlight_queue_"));
        ours.count()
    }

    pub(crate) async fn wait(&self, series: &str, wanted: Option<f64>) {
        let what = format!("{series} {wanted:?}");
        let waited = wait_for(&what, PATIENCE, async || match self.value(series) {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:?}")),
        });
        waited.await.unwrap();
    }

    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        (&mut self.running).await.unwrap();
    }
}

/// Declares everything and puts `count` events into the queue.
pub(crate) async fn fill(url: &str, count: usize) {
    let config = PublisherConfig::new(BrokerUrls::parse(url).unwrap(), "test");
    let publisher = Publisher::start(config, CancellationToken::new());
    let mut state = publisher.state();
    state.wait_for(|state| state.is_ready()).await.unwrap();
    for number in 0..count {
        let envelope = Envelope::bare(Bytes::from(format!("body {number}")));
        let deadlines = PublishDeadlines {
            slot_wait_max: PATIENCE,
            confirm_by: Instant::now() + PATIENCE,
        };
        publisher
            .publish(Outgoing::event(&envelope), deadlines)
            .await
            .unwrap();
    }
    publisher.close(PATIENCE).await;
}
