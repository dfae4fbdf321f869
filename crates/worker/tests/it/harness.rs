//! What the tests share: a broker and a ledger of their own, workers in this process, and looks at all of them.
//!
//! It asserts nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use porchlight_broker::{
    BrokerUrls, Consumer, ConsumerConfig, DeadLetter, Outgoing, PublishDeadlines, Publisher, PublisherConfig,
    TopologyConfig, dead_letter, topology,
};
use porchlight_event::sample::Sample;
use porchlight_event::{Envelope, SigningKeys};
use porchlight_service::{Secret, http};
use porchlight_testbed::http::{Response, request};
use porchlight_testbed::rabbitmq::QueueState;
use porchlight_testbed::redis::Fsync;
use porchlight_testbed::{RabbitMq, Redis, wait_for};
use porchlight_worker::{RunError, WorkSettings, WorkerConfig};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-token-for-the-tests";

/// A virtual host of the shared broker, a Redis of its own, and a publisher into the work queue.
pub(crate) struct Bench {
    pub(crate) broker: &'static RabbitMq,
    pub(crate) vhost: String,
    pub(crate) redis: Redis,
    pub(crate) publisher: Publisher,
}

/// A worker in this process.
pub(crate) struct Running {
    pub(crate) admin: SocketAddr,
    pub(crate) stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

/// A command as a partner's service sees it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message_id: String,
    pub(crate) body: Value,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let redis = Redis::start_with(Fsync::EverySecond, None).await.unwrap();
        Self::with(redis).await
    }

    pub(crate) async fn with(redis: Redis) -> Self {
        Self::at(RabbitMq::shared().await, redis).await
    }

    pub(crate) async fn at(broker: &'static RabbitMq, redis: Redis) -> Self {
        let vhost = broker.vhost().await.unwrap();
        let urls = BrokerUrls::parse(&broker.url_for_vhost(&vhost)).unwrap();
        let config = PublisherConfig {
            topology: short_tiers(),
            ..PublisherConfig::new(urls, "test")
        };
        let publisher = Publisher::start(config, CancellationToken::new());
        publisher
            .state()
            .wait_for(|state| state.is_ready())
            .await
            .unwrap();
        Self {
            broker,
            vhost,
            redis,
            publisher,
        }
    }

    pub(crate) fn urls(&self) -> BrokerUrls {
        BrokerUrls::parse(&self.broker.url_for_vhost(&self.vhost)).unwrap()
    }

    pub(crate) fn config(&self) -> WorkerConfig {
        WorkerConfig {
            amqp: self.urls(),
            topology: short_tiers(),
            redis: Secret::new(self.redis.url()),
            admin_token: Some(Secret::new(TOKEN)),
            keys: watch::channel(None).1,
            work: WorkSettings {
                sweep_interval: Duration::from_millis(100),
                ..WorkSettings::default()
            },
        }
    }

    /// A worker with the usual settings, subscribed and ready.
    pub(crate) async fn worker(&self) -> Running {
        let running = Running::start(self.config());
        running.ready().await;
        running
    }

    pub(crate) async fn publish(&self, envelope: &Envelope) {
        let deadlines = PublishDeadlines::within(PATIENCE);
        self.publisher
            .publish(Outgoing::event(envelope), deadlines)
            .await
            .unwrap();
    }

    pub(crate) async fn publish_all(&self, bodies: impl IntoIterator<Item = Bytes>) {
        let deadlines = PublishDeadlines {
            slot_wait_max: PATIENCE,
            ..PublishDeadlines::within(PATIENCE)
        };
        let envelopes = bodies.into_iter().map(|body| Envelope {
            received_at_ms: Some(now_ms()),
            ..Envelope::bare(body)
        });
        let all = envelopes.map(|envelope| self.publisher.publish(Outgoing::event(&envelope), deadlines));
        for published in futures_util::future::join_all(all).await {
            published.unwrap();
        }
    }

    pub(crate) async fn queue(&self, name: &str) -> Result<QueueState, String> {
        self.broker
            .queue(&self.vhost, name)
            .await
            .map_err(|error| error.to_string())
    }

    /// Waits until nothing of the work is waiting, unacked, or put off.
    pub(crate) async fn drained(&self) {
        let drained = wait_for("all queues of the work to be empty", PATIENCE, async || {
            let queues = self
                .broker
                .queues(&self.vhost)
                .await
                .map_err(|error| error.to_string())?;
            let work = [topology::EVENTS, topology::RETRY_1M, topology::RETRY_10M];
            let left = queues
                .into_iter()
                .find(|q| work.contains(&q.name.as_str()) && q.ready + q.unacked > 0);
            left.map_or(Ok(()), |queue| Err(format!("{queue:?}")))
        });
        drained.await.unwrap();
    }

    /// Waits for so many dead letters and gives them.
    pub(crate) async fn dead(&self, count: usize) -> Vec<DeadLetter> {
        self.dead_when(|letters| letters == count).await
    }

    pub(crate) async fn dead_at_least(&self, count: usize) -> Vec<DeadLetter> {
        self.dead_when(|letters| letters >= count).await
    }

    async fn dead_when(&self, enough: impl Fn(usize) -> bool) -> Vec<DeadLetter> {
        let urls = self.urls();
        let found = wait_for("the dead letters", PATIENCE, async || {
            let mut letters = Vec::new();
            let visit = |letter| {
                letters.push(letter);
                ControlFlow::Continue(())
            };
            dead_letter::list(&urls, "test", 500, visit)
                .await
                .map_err(|error| error.to_string())?;
            if enough(letters.len()) {
                Ok(letters)
            } else {
                Err(format!("{} letters", letters.len()))
            }
        });
        found.await.unwrap()
    }

    /// Takes commands until `enough` says so.
    pub(crate) async fn commands(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let config = ConsumerConfig {
            queue: topology::COMMANDS.to_owned(),
            topology: short_tiers(),
            ..ConsumerConfig::new(self.urls(), "test")
        };
        let mut consumer = Consumer::start(config, CancellationToken::new());
        let mut received = Vec::new();
        let collect = async {
            while !enough(&received) {
                let batch = consumer.next_batch(64).await.unwrap();
                let last = batch.deliveries.last().unwrap().tag;
                received.extend(batch.deliveries.into_iter().map(|delivery| Received {
                    message_id: delivery.envelope.message_id,
                    body: serde_json::from_slice(&delivery.envelope.body).unwrap(),
                }));
                consumer.ack_through(batch.incarnation, last).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, collect).await.is_ok();
        assert!(in_time, "only {} commands came", received.len());
        consumer.close().await;
        received
    }
}

impl Running {
    pub(crate) fn start(config: WorkerConfig) -> Self {
        let listener = http::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (admin, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(porchlight_worker::run(config, listener, stop.clone()));
        Self { admin, stop, task }
    }

    pub(crate) async fn ready(&self) {
        self.readiness(200).await;
    }

    pub(crate) async fn readiness(&self, wanted: u16) {
        let ready = wait_for("the readiness", PATIENCE, async || {
            let answer = self.call("GET", "/readyz", "").await;
            if answer.status == wanted {
                Ok(())
            } else {
                Err(answer.text())
            }
        });
        ready.await.unwrap();
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Response {
        let token = format!("Bearer {TOKEN}");
        request(
            self.admin,
            method,
            path,
            &[("Authorization", &token)],
            body.as_bytes(),
        )
        .await
        .unwrap()
    }

    pub(crate) async fn register(&self, device: &str, operation: &str) -> Response {
        let path = format!("/v1/devices/{device}/operations/{operation}");
        self.call("PUT", &path, r#"{"kind":"snapshot","params":{"a":1}}"#)
            .await
    }

    pub(crate) async fn device(&self, device: &str) -> Value {
        self.call("GET", &format!("/v1/devices/{device}"), "")
            .await
            .json()
            .unwrap()
    }

    /// Every sample of the metrics page.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let page = self.call("GET", "/metrics", "").await.text();
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// The sum of all samples whose name begins so.
    pub(crate) async fn sum(&self, prefix: &str) -> f64 {
        self.metrics()
            .await
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value)
            .sum()
    }

    pub(crate) async fn wait_sum(&self, prefix: &str, at_least: f64) {
        let waited = wait_for(prefix, PATIENCE, async || {
            let sum = self.sum(prefix).await;
            if sum >= at_least {
                Ok(())
            } else {
                Err(sum.to_string())
            }
        });
        waited.await.unwrap();
    }

    /// Stops it and gives how it ended.
    pub(crate) async fn stop(self) -> Result<(), RunError> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }
}

/// The tiers of the retry queues, in a time that a test can wait for.
pub(crate) fn short_tiers() -> TopologyConfig {
    TopologyConfig {
        retry_1m_ttl: Duration::from_millis(150),
        retry_10m_ttl: Duration::from_millis(200),
    }
}

pub(crate) fn keys(list: &str) -> SigningKeys {
    SigningKeys::parse_list(list).unwrap()
}

pub(crate) fn body(event_type: &str, device_id: &str, timestamp_ms: i64) -> Bytes {
    let request_id = format!("{event_type}/{device_id}/{timestamp_ms}");
    body_with(event_type, device_id, timestamp_ms, &request_id)
}

pub(crate) fn body_with(event_type: &str, device_id: &str, timestamp_ms: i64, request_id: &str) -> Bytes {
    let sample = Sample {
        event_type,
        device_id,
        account_id: "acct",
        timestamp_ms,
        sent_at_ms: timestamp_ms,
        request_id,
    };
    Bytes::from(sample.body())
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
