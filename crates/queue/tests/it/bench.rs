//! One queue of its own for one test, whichever implementation it is.

use std::time::Duration;

use bytes::Bytes;
use porchlight_broker::{
    BrokerUrls, Consumer, ConsumerConfig, DepthReader as BrokerDepths, Publisher, PublisherConfig,
    TopologyConfig,
};
use porchlight_event::Envelope;
use porchlight_event::queue::{Batch, QueueState};
use porchlight_journal::{self as journal, Journal, JournalConfig, Role};
use porchlight_queue::{DeadLetters, Deadlines, DepthReader, Queue, Source};
use porchlight_testbed::{RabbitMq, wait_for};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// What events wait that are put off, by tier: so far apart that the longer is the later, also where storing takes long.
pub(crate) const TIERS: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(4)];

/// A queue with everything that belongs to it.
pub(crate) struct Bench {
    pub(crate) queue: Queue,
    pub(crate) letters: DeadLetters,
    pub(crate) depths: DepthReader,
    form: Form,
}

enum Form {
    RabbitMq(BrokerUrls),
    Sqlite(
        Journal,
        #[expect(dead_code, reason = "the directory goes with it")] TempDir,
    ),
}

impl Bench {
    pub(crate) async fn rabbitmq() -> Self {
        let node = RabbitMq::shared().await;
        let vhost = node.vhost().await.unwrap();
        let urls = BrokerUrls::parse(&node.url_for_vhost(&vhost)).unwrap();
        let config = PublisherConfig {
            topology: topology(),
            confirm_silence_max: PATIENCE,
            ..PublisherConfig::new(urls.clone(), "test")
        };
        let publisher = Publisher::start(config.clone(), CancellationToken::new());
        let mut state = publisher.state();
        let ready = timeout(PATIENCE, state.wait_for(QueueState::is_ready));
        ready.await.unwrap().unwrap();
        Self {
            queue: Queue::RabbitMq(publisher),
            letters: DeadLetters::RabbitMq(Box::new(config)),
            depths: DepthReader::RabbitMq(BrokerDepths::new(urls.clone(), "test")),
            form: Form::RabbitMq(urls),
        }
    }

    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig {
            retry_1m: TIERS[0],
            retry_10m: TIERS[1],
            ..JournalConfig::new(dir.path())
        };
        let journal = Journal::open(config, Role::Daemon).unwrap();
        let queue = journal::Queue::new(&journal);
        Self {
            queue: Queue::Sqlite(queue.clone()),
            letters: DeadLetters::Sqlite(queue.clone()),
            depths: DepthReader::Sqlite(queue),
            form: Form::Sqlite(journal, dir),
        }
    }

    pub(crate) fn source(&self) -> Source {
        self.source_with(false, CancellationToken::new())
    }

    pub(crate) fn source_with(&self, begin_paused: bool, stop: CancellationToken) -> Source {
        match &self.form {
            Form::RabbitMq(urls) => {
                let config = ConsumerConfig {
                    topology: topology(),
                    prefetch_initial: 512,
                    begin_paused,
                    ..ConsumerConfig::new(urls.clone(), "test")
                };
                Source::RabbitMq(Consumer::start(config, stop))
            }
            Form::Sqlite(journal, _) => {
                let config = journal::SourceConfig {
                    begin_paused,
                    ..journal::SourceConfig::default()
                };
                Source::Sqlite(journal::Source::start(journal, config, stop))
            }
        }
    }

    pub(crate) async fn accept(&self, text: &str) {
        self.queue.accept(&event(text), soon()).await.unwrap();
    }

    pub(crate) async fn accept_all(&self, texts: &[&str]) {
        for text in texts {
            self.accept(text).await;
        }
    }

    /// Waits until so many are ready in the queues whose name begins so.
    pub(crate) async fn settle_at(&mut self, queue: &str, ready: u64) {
        let depths = tokio::sync::Mutex::new(&mut self.depths);
        let what = format!("{queue} at {ready}");
        let look = async || {
            let depths = depths
                .lock()
                .await
                .read()
                .await
                .map_err(|error| error.to_string())?;
            let named = depths.iter().filter(|depth| depth.queue.starts_with(queue));
            let found: u64 = named
                .filter_map(|depth| depth.counts)
                .map(|counts| counts.ready)
                .sum();
            if found == ready {
                Ok(())
            } else {
                Err(format!("{found}"))
            }
        };
        wait_for(&what, PATIENCE, look).await.unwrap();
    }
}

pub(crate) fn soon() -> Deadlines {
    Deadlines::within(PATIENCE)
}

pub(crate) fn event(text: &str) -> Envelope {
    Envelope::bare(Bytes::from(text.to_owned()))
}

/// Takes until so many are in hand, all of one incarnation.
pub(crate) async fn take(source: &mut Source, count: usize) -> Batch {
    let mut all: Option<Batch> = None;
    loop {
        let missing = count - all.as_ref().map_or(0, |batch| batch.deliveries.len());
        let more = timeout(PATIENCE, source.next_batch(missing)).await;
        let more = more.expect("no delivery came").expect("the source has ended");
        match &mut all {
            Some(batch) => {
                assert_eq!(more.incarnation, batch.incarnation);
                batch.deliveries.extend(more.deliveries);
            }
            None => all = Some(more),
        }
        if let Some(batch) = all.take_if(|batch| batch.deliveries.len() >= count) {
            return batch;
        }
    }
}

pub(crate) fn texts(batch: &Batch) -> Vec<String> {
    let text = |body: &Bytes| String::from_utf8(body.to_vec()).unwrap();
    batch.deliveries.iter().map(|d| text(&d.envelope.body)).collect()
}

pub(crate) fn last_tag(batch: &Batch) -> u64 {
    batch.deliveries.last().unwrap().tag
}

fn topology() -> TopologyConfig {
    TopologyConfig {
        retry_1m_ttl: TIERS[0],
        retry_10m_ttl: TIERS[1],
    }
}
