//! The task that reads queue depths again and again, over one connection that comes back by itself.
//!
//! It shows what it read and keeps it for nobody else.

use std::time::Duration;

use porchlight_event::queue::QueueState;
use porchlight_management::{Management, QueueStats};
use porchlight_queue::{DepthReader, QueueDepth};
use porchlight_service::Metrics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::beat::Beat;
use crate::shown::{QueueCollector, Reading, Row, Shown};

/// For one reading, connecting included. A broker that works answers in milliseconds; what takes longer is not known.
const READ_MAX: Duration = Duration::from_secs(10);
/// What the names of all queues of ours begin with.
const NAMES: &str = "porchlight.";

/// Reads the depths of all queues of ours on an interval.
#[derive(Debug)]
pub struct QueueWatch {
    reader: DepthReader,
    beat: Beat,
    shown: Shown,
    consumer: Option<watch::Receiver<QueueState>>,
    management: Option<Managed>,
    told: Told,
}

/// The management API of the broker that the queues are in.
#[derive(Debug)]
struct Managed {
    api: Management,
    vhost: String,
    up: watch::Sender<bool>,
    told: Told,
}

/// The last trouble that was told, so that each is one line and not one at every attempt.
#[derive(Debug, Default)]
struct Told(Option<String>);

impl QueueWatch {
    /// A watch that reads with `reader` every `interval`; nothing is read yet.
    #[must_use]
    pub fn new(reader: DepthReader, interval: Duration) -> Self {
        Self {
            reader,
            beat: Beat::new(interval),
            shown: Shown::default(),
            consumer: None,
            management: None,
            told: Told::default(),
        }
    }

    /// Where the queue itself counts no consumers, this process is the only one, and this is how it stands.
    #[must_use]
    pub fn consumed_by(mut self, state: watch::Receiver<QueueState>) -> Self {
        self.consumer = Some(state);
        self
    }

    /// Asks the management API, too, for what consumers hold and for bytes. It is asked beside the queue itself and holds
    /// nothing up: while it does not answer only its own figures are absent.
    #[must_use]
    pub fn and_management(mut self, api: Option<Management>, vhost: &str) -> Self {
        self.management = api.map(|api| Managed {
            api,
            vhost: vhost.to_owned(),
            up: watch::Sender::new(false),
            told: Told::default(),
        });
        self
    }

    /// Shows the figures as `porchlight_queue_…` from now on.
    pub fn register(&self, metrics: &mut Metrics) {
        let collector = QueueCollector {
            shown: self.shown.clone(),
            consumer: self.consumer.clone(),
            management: self
                .management
                .as_ref()
                .map(|management| management.up.subscribe()),
        };
        metrics.area("queue").register_collector(Box::new(collector));
    }

    /// Reads until `stop`; after that the figures are absent.
    ///
    /// # Cancel safety
    /// Dropped, the connection is cut and the last figures stay.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.read_for_ever()).await;
        self.shown.set(Reading::None);
        self.reader.close().await;
    }

    async fn read_for_ever(&mut self) {
        self.beat.first().await;
        loop {
            let reading = self.read().await;
            let good = matches!(reading, Reading::Read(_));
            self.shown.set(reading);
            self.beat.pause(good).await;
        }
    }

    async fn read(&mut self) -> Reading {
        let tells_age = self.reader.tells_age();
        let managed = async {
            match &mut self.management {
                Some(management) => management.read().await,
                None => Vec::new(),
            }
        };
        let (read, managed) = tokio::join!(tokio::time::timeout(READ_MAX, self.reader.read()), managed);
        let read = match read {
            Ok(read) => read.map_err(|error| chain(&error)),
            Err(_) => Err(format!("no answer within {READ_MAX:?}")),
        };
        match read {
            Ok(depths) => {
                if self.told.is_news(None) {
                    tracing::info!("queue depths can be read again");
                }
                let row = |depth: QueueDepth| Row::new(&depth, tells_age).completed_by(&managed);
                Reading::Read(depths.into_iter().map(row).collect())
            }
            Err(error) => {
                if self.told.is_news(Some(&error)) {
                    tracing::warn!(error, "queue depths cannot be read; metrics go without them");
                }
                Reading::Failed
            }
        }
    }
}

impl Managed {
    /// What it says of queues of ours; nothing while it does not answer.
    async fn read(&mut self) -> Vec<QueueStats> {
        let asked = self.api.queues(&self.vhost, NAMES).await;
        self.up.send_replace(asked.is_ok());
        match asked {
            Ok(queues) => {
                if self.told.is_news(None) {
                    tracing::info!("the management API answers again");
                }
                queues
            }
            Err(error) => {
                let error = chain(&error);
                if self.told.is_news(Some(&error)) {
                    tracing::warn!(
                        error,
                        "unacked messages and bytes are not known; metrics go without them"
                    );
                }
                Vec::new()
            }
        }
    }
}

impl Told {
    /// Whether this is another trouble than the last, or its end.
    fn is_news(&mut self, trouble: Option<&str>) -> bool {
        let is_news = self.0.as_deref() != trouble;
        if is_news {
            self.0 = trouble.map(str::to_owned);
        }
        is_news
    }
}

/// An error with everything that is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string) {
        // Some errors say again what is behind them.
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

impl Row {
    fn new(depth: &QueueDepth, tells_age: bool) -> Self {
        let counts = depth.counts;
        Self {
            queue: depth.queue,
            exists: counts.is_some(),
            ready: counts.map(|counts| counts.ready),
            unacked: counts.and_then(|counts| counts.in_hand),
            consumers: counts.and_then(|counts| counts.consumers).map(u64::from),
            bytes: counts.and_then(|counts| counts.bytes),
            tells_age,
            oldest_at_ms: counts.and_then(|counts| counts.oldest_at_ms),
        }
    }
    /// With what the management API knows and the queue itself does not tell.
    fn completed_by(mut self, managed: &[QueueStats]) -> Self {
        if let Some(stats) = managed.iter().find(|stats| stats.name == self.queue) {
            self.unacked = self.unacked.or(stats.unacked);
            self.bytes = self.bytes.or(stats.bytes);
        }
        self
    }
}
