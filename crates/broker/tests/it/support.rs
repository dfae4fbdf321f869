//! What several of these tests need: a ready publisher, a consumer's deliveries, a node to be cruel to.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicGetOptions, BasicRejectOptions},
};
use porchlight_broker::{
    BrokerUrls, Confirmed, ConnectError, Consumer, ConsumerConfig, Link, Outgoing, PublishDeadlines,
    PublishError, Publisher, PublisherConfig, QueueState, TopologyConfig, TopologyError,
    connection::AttemptError, topology,
};
use porchlight_event::Envelope;
use porchlight_testbed::{RabbitMq, wait_for};
use tokio::sync::{Mutex, MutexGuard, OnceCell, watch};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static CRUEL: OnceCell<Mutex<RabbitMq>> = OnceCell::const_new();

/// A node that may be killed, frozen and alarmed; tests take turns with it.
pub(crate) async fn cruel_node() -> MutexGuard<'static, RabbitMq> {
    let node = CRUEL
        .get_or_init(|| async { Mutex::new(RabbitMq::start().await.unwrap()) })
        .await
        .lock()
        .await;
    node.resume();
    if !node.is_running() {
        node.start_again().await.unwrap();
    }
    node
}

/// Raises or clears the alarm, and returns when every connection has been told: what is published from then on meets it.
pub(crate) async fn set_alarm(node: &RabbitMq, raised: bool) {
    node.set_memory_alarm(raised).await.unwrap();
    node.eval("_ = rabbit_alarm:get_alarms(), []").await.unwrap();
}

/// Without a confirm it keeps its connection for as long as the tests have patience.
pub(crate) fn publisher_config(url: &str) -> PublisherConfig {
    PublisherConfig {
        confirm_silence_max: PATIENCE,
        ..PublisherConfig::new(BrokerUrls::parse(url).unwrap(), "test-publisher")
    }
}

pub(crate) async fn publisher(url: &str) -> Publisher {
    started(publisher_config(url)).await
}

pub(crate) async fn started(config: PublisherConfig) -> Publisher {
    let publisher = Publisher::start(config, CancellationToken::new());
    reach(&mut publisher.state(), QueueState::is_ready).await;
    publisher
}

/// Its prefetch stays small.
pub(crate) fn consumer_config(url: &str) -> ConsumerConfig {
    ConsumerConfig {
        healthy_after: Duration::from_secs(3600),
        ..ConsumerConfig::new(BrokerUrls::parse(url).unwrap(), "test-consumer")
    }
}

/// A connection, or why there is none; that a busy machine did not answer in time is no reason.
pub(crate) async fn try_link(url: &str) -> Result<Link, ConnectError> {
    let urls = BrokerUrls::parse(url).unwrap();
    let is_late = |attempt: &AttemptError| matches!(attempt, AttemptError::TimedOut { .. });
    let connect = async || match Link::connect(&urls, "test-link").await {
        Err(error) if error.attempts.iter().any(is_late) => Err(error.to_string()),
        answered => Ok(answered),
    };
    wait_for("an answer", PATIENCE, connect).await.unwrap()
}

pub(crate) async fn link(url: &str) -> Link {
    try_link(url).await.unwrap()
}

/// Declares again where the broker was too slow, as a daemon does.
pub(crate) async fn declare(link: &Link, config: &TopologyConfig) -> Result<(), TopologyError> {
    let declared = async || match topology::declare(link, config).await {
        Err(error @ TopologyError::Lost { .. }) => Err(format!("{error:?}")),
        answered => Ok(answered),
    };
    wait_for("an answer", PATIENCE, declared).await.unwrap()
}

/// Waits for a state, and shows the one it hangs in otherwise.
pub(crate) async fn reach(state: &mut watch::Receiver<QueueState>, wanted: impl Fn(&QueueState) -> bool) {
    let reached = {
        let waiting = tokio::time::timeout(PATIENCE, state.wait_for(|state| wanted(state)));
        matches!(waiting.await, Ok(Ok(_)))
    };
    assert!(reached, "the state stays {:?}", *state.borrow());
}

pub(crate) fn event(text: &str) -> Outgoing {
    Outgoing::event(&Envelope::bare(Bytes::from(text.to_owned())))
}

pub(crate) async fn publish(publisher: &Publisher, outgoing: Outgoing) -> Result<Confirmed, PublishError> {
    let deadlines = PublishDeadlines {
        slot_wait_max: PATIENCE,
        ..PublishDeadlines::within(PATIENCE)
    };
    publisher.publish(outgoing, deadlines).await
}

/// As [`publish`], and sees that the answer comes without any wait.
pub(crate) fn publish_at_once(publisher: &Publisher, outgoing: Outgoing) -> Result<Confirmed, PublishError> {
    publish(publisher, outgoing)
        .now_or_never()
        .expect("an answer at once")
}

/// A plain lapin channel, to look at the broker from outside.
pub(crate) async fn plain(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Takes the next message of a queue for good, waiting for it.
pub(crate) async fn take(channel: &Channel, queue: &str) -> Delivery {
    wait_for(&format!("a message in {queue}"), PATIENCE, async || {
        let got = channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true })
            .await
            .unwrap();
        got.map(|message| message.delivery)
            .ok_or_else(|| "nothing".to_owned())
    })
    .await
    .unwrap()
}

/// Gives the only message of a queue back, as a failing consumer would, until the queue's limit dead-letters it.
/// Returns how often it was delivered.
pub(crate) async fn exhaust(channel: &Channel, queue: &str) -> u64 {
    let mut seen = 0;
    wait_for(&format!("{queue} to give its message up"), PATIENCE, async || {
        while let Some(message) = channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: false })
            .await
            .unwrap()
        {
            seen += 1;
            let options = BasicRejectOptions { requeue: true };
            channel
                .basic_reject(message.delivery.delivery_tag, options)
                .await
                .unwrap();
        }
        if seen > 20 {
            Ok(seen)
        } else {
            Err(format!("{seen} deliveries"))
        }
    })
    .await
    .unwrap()
}

/// Waits until the queue holds exactly this, ready and unacked.
pub(crate) async fn settle_at(node: &RabbitMq, vhost: &str, queue: &str, ready: u64, unacked: u64) {
    wait_for(
        &format!("{queue} at {ready} ready, {unacked} unacked"),
        PATIENCE,
        async || {
            let state = node
                .queue(vhost, queue)
                .await
                .map_err(|error| error.to_string())?;
            if (state.ready, state.unacked) == (ready, unacked) {
                Ok(())
            } else {
                Err(format!("{state:?}"))
            }
        },
    )
    .await
    .unwrap();
}

/// Takes batches until `count` deliveries are there; returns their bodies and the last batch's incarnation and tag.
pub(crate) async fn gather(consumer: &mut Consumer, count: usize) -> (Vec<String>, u64, u64) {
    let mut bodies = Vec::new();
    loop {
        let batch = tokio::time::timeout(PATIENCE, consumer.next_batch(count - bodies.len()));
        let batch = batch
            .await
            .expect("no delivery came")
            .expect("the consumer has ended");
        for delivery in &batch.deliveries {
            bodies.push(String::from_utf8(delivery.envelope.body.to_vec()).unwrap());
        }
        if bodies.len() >= count {
            return (bodies, batch.incarnation, batch.deliveries.last().unwrap().tag);
        }
    }
}

/// A vhost of the shared node with our topology in it, and its URL.
pub(crate) async fn fresh() -> (&'static RabbitMq, String, String) {
    let node = RabbitMq::shared().await;
    let vhost = node.vhost().await.unwrap();
    let url = node.url_for_vhost(&vhost);
    (node, vhost, url)
}

pub(crate) const EVENTS: &str = topology::EVENTS;

/// Waits until the publisher has its second connection.
pub(crate) async fn reconnected(publisher: &Publisher) {
    wait_for("a second connection", PATIENCE, async || {
        match publisher.stats() {
            stats if stats.reconnects_total == 1 => Ok(()),
            stats => Err(format!("{stats:?}")),
        }
    })
    .await
    .unwrap();
}
