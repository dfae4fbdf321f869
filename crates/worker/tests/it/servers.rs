//! The scaled form: a virtual host of a broker and a Redis, with all that a test may do to them.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::future::BoxFuture;
use porchlight_broker::{
    BrokerUrls, Consumer, ConsumerConfig, Publisher, PublisherConfig, TopologyConfig, dead_letter, topology,
};
use porchlight_ledger::Ledger;
use porchlight_queue::Queue;
use porchlight_store::{Store, StoreConfig};
use porchlight_testbed::rabbitmq::QueueState;
use porchlight_testbed::redis::Fsync;
use porchlight_testbed::{RabbitMq, Redis};
use porchlight_worker::{RunError, WorkerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{Form, LEDGER_PATIENCE, Letter, PATIENCE, Received, Setup, TIERS};

/// A virtual host of the shared broker, a Redis of its own, and a publisher into the work queue.
pub(crate) struct Bench {
    pub(crate) broker: &'static RabbitMq,
    pub(crate) vhost: String,
    pub(crate) redis: Redis,
    /// Where workers find Redis.
    pub(crate) redis_url: String,
    pub(crate) publisher: Publisher,
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
            redis_url: redis.url(),
            redis,
            publisher,
        }
    }

    pub(crate) fn urls(&self) -> BrokerUrls {
        BrokerUrls::parse(&self.broker.url_for_vhost(&self.vhost)).unwrap()
    }

    pub(crate) async fn queue_of(&self, name: &str) -> Result<QueueState, String> {
        self.broker
            .queue(&self.vhost, name)
            .await
            .map_err(|error| error.to_string())
    }

    pub(crate) async fn dead_at_least(&self, count: usize) -> Vec<Letter> {
        self.dead_when(|letters| letters >= count).await
    }

    /// A consumer of one queue of ours.
    pub(crate) fn consumer(&self, queue: &str) -> Consumer {
        let config = ConsumerConfig {
            queue: queue.to_owned(),
            topology: short_tiers(),
            ..ConsumerConfig::new(self.urls(), "test")
        };
        Consumer::start(config, CancellationToken::new())
    }
}

impl Form for Bench {
    fn queue(&self) -> Queue {
        Queue::RabbitMq(self.publisher.clone())
    }

    fn ledger(&self) -> Ledger {
        let config = patient(self.redis.url(), LEDGER_PATIENCE);
        Ledger::Redis(Store::connect(&config).unwrap())
    }

    fn run(
        &self,
        setup: Setup,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        let config = WorkerConfig {
            amqp: self.urls(),
            topology: short_tiers(),
            redis: patient(self.redis_url.clone(), setup.ledger_answer_max),
            admin_token: setup.token,
            keys: setup.keys,
            prefetch_ramp: setup.prefetch_ramp,
            management: None,
            trace: None,
            callback: setup.callback,
            work: setup.work,
        };
        Box::pin(porchlight_worker::run(config, listener, stop))
    }

    async fn undone(&self) -> Result<Option<String>, String> {
        let queues = self
            .broker
            .queues(&self.vhost)
            .await
            .map_err(|error| error.to_string())?;
        let work = [topology::EVENTS, topology::RETRY_1M, topology::RETRY_10M];
        let left = queues
            .into_iter()
            .find(|q| work.contains(&q.name.as_str()) && q.ready + q.unacked > 0);
        Ok(left.map(|queue| format!("{queue:?}")))
    }

    async fn waiting(&self) -> Result<u64, String> {
        match self.queue_of(topology::EVENTS).await? {
            queue if (queue.unacked, queue.consumers) == (0, 0) => Ok(queue.ready),
            queue => Err(format!("{queue:?}")),
        }
    }

    async fn letters(&self) -> Result<Vec<Letter>, String> {
        let mut letters = Vec::new();
        let visit = |letter: porchlight_broker::DeadLetter| {
            letters.push(Letter {
                envelope: letter.envelope,
                reason: letter.reason,
                stage: letter.stage,
                detail: letter.detail,
                dead_at_ms: letter.dead_at_ms,
            });
            ControlFlow::Continue(())
        };
        dead_letter::list(&self.urls(), "test", 500, visit)
            .await
            .map_err(|error| error.to_string())?;
        Ok(letters)
    }

    async fn commands(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let mut consumer = self.consumer(topology::COMMANDS);
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

/// A ledger at this address that may take so long for an answer, or for a connection.
fn patient(url: String, answer_max: Duration) -> StoreConfig {
    let usual = StoreConfig::new(url);
    StoreConfig {
        response_timeout: answer_max,
        connect_timeout: answer_max.max(usual.connect_timeout),
        ..usual
    }
}

fn short_tiers() -> TopologyConfig {
    TopologyConfig {
        retry_1m_ttl: TIERS[0],
        retry_10m_ttl: TIERS[1],
    }
}
