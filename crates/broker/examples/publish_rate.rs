//! Confirmed publishes a second of our publisher beside a bare lapin channel, in one run on one broker.
//!
//! A rough measure for choosing shapes, no benchmark: client and broker share the machine.
//! `cargo run --release -p porchlight-broker --example publish_rate -- [seconds] [amqp-url]`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for the developer's terminal"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use porchlight_broker::{BrokerUrls, Outgoing, PublishDeadlines, Publisher, PublisherConfig, topology};
use porchlight_event::{Envelope, envelope::header};
use porchlight_testbed::RabbitMq;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BODY_BYTES: usize = 620;
const ROUNDS: usize = 3;

struct Measured {
    per_second: f64,
    cpu_us: f64,
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(4.0, |text| text.parse::<f64>().unwrap());
    let private = match arguments.next() {
        Some(url) => Err(url),
        None => Ok(RabbitMq::start().await.unwrap()),
    };
    let url = match &private {
        Ok(node) => node.url(),
        Err(url) => url.clone(),
    };
    for inflight in [64, 256] {
        let mut bare = Vec::new();
        let mut ours = [1, 2, 4, 8].map(|channels| (channels, Vec::new()));
        for _ in 0..ROUNDS {
            bare.push(bare_lapin(&url, inflight, seconds).await);
            for (channels, measured) in &mut ours {
                measured.push(our_publisher(&url, inflight, *channels, seconds).await);
            }
        }
        let bare = median(bare);
        println!(
            "{inflight:>4} in flight  bare lapin      {:>7.0}/s  {:>5.1} us",
            bare.per_second, bare.cpu_us
        );
        for (channels, measured) in ours {
            let ours = median(measured);
            let ratio = ours.per_second / bare.per_second;
            println!(
                "{inflight:>4} in flight  ours, {channels} channels {:>7.0}/s  {:>5.1} us  ratio {ratio:.2}",
                ours.per_second, ours.cpu_us
            );
        }
    }
}

async fn bare_lapin(url: &str, inflight: usize, seconds: f64) -> Measured {
    // Declares the topology and empties the queue, so that both begin alike.
    drop(ready_publisher(url, inflight, 1).await);
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_purge(topology::EVENTS.into(), QueuePurgeOptions::default())
        .await
        .unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let shared = Arc::new(channel.clone());
    let measured = measure(inflight, seconds, move || {
        let channel = Arc::clone(&shared);
        async move { publish_bare(&channel).await }
    })
    .await;
    channel
        .queue_purge(topology::EVENTS.into(), QueuePurgeOptions::default())
        .await
        .unwrap();
    connection.close(200, "done".into()).await.unwrap();
    measured
}

async fn publish_bare(channel: &Channel) {
    let properties = same_properties();
    let body = [b'x'; BODY_BYTES];
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let confirm = channel.basic_publish(topology::EVENTS.into(), "".into(), options, &body, properties);
    assert_eq!(confirm.await.unwrap().await.unwrap(), Confirmation::Ack(None));
}

/// What our publisher sends with the same event, so that both carry the same bytes.
fn same_properties() -> BasicProperties {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut headers = FieldTable::default();
    headers.insert(
        header::RECEIVED_AT.into(),
        AMQPValue::LongLongInt(1_771_025_567_123),
    );
    headers.insert(header::KEY_NAME.into(), text("main"));
    headers.insert(
        header::SIGNATURE.into(),
        text(&format!("sha256={}", "ab".repeat(32))),
    );
    headers.insert(header::PUBLISH_ID.into(), text("0123456789abcdef-123456"));
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id("0123456789abcdef".into())
        .with_content_type("application/json".into())
        .with_timestamp(1_771_025_567)
        .with_headers(headers)
}

async fn our_publisher(url: &str, inflight: usize, channels: usize, seconds: f64) -> Measured {
    let publisher = ready_publisher(url, inflight, channels).await;
    let envelope = Arc::new(Envelope {
        received_at_ms: Some(1_771_025_567_123),
        key_name: Some("main".to_owned()),
        signature: Some(format!("sha256={}", "ab".repeat(32))),
        content_type: Some("application/json".to_owned()),
        message_id: "0123456789abcdef".to_owned(),
        ..Envelope::bare(Bytes::from(vec![b'x'; BODY_BYTES]))
    });
    let shared = publisher.clone();
    let measured = measure(inflight, seconds, move || {
        let (publisher, envelope) = (shared.clone(), Arc::clone(&envelope));
        async move {
            let deadlines = PublishDeadlines::within(Duration::from_secs(10));
            publisher
                .publish(Outgoing::event(&envelope), deadlines)
                .await
                .unwrap();
        }
    })
    .await;
    publisher.close(Duration::from_secs(2)).await;
    measured
}

async fn ready_publisher(url: &str, inflight: usize, channels: usize) -> Publisher {
    let config = PublisherConfig {
        channel_count: channels,
        inflight_max: inflight,
        ..PublisherConfig::new(BrokerUrls::parse(url).unwrap(), "publish-rate")
    };
    let publisher = Publisher::start(config, CancellationToken::new());
    publisher
        .state()
        .wait_for(porchlight_broker::QueueState::is_ready)
        .await
        .unwrap();
    publisher
}

/// `inflight` tasks, each awaiting its publish before the next, for `seconds`.
async fn measure<F: Future<Output = ()> + Send + 'static>(
    inflight: usize,
    seconds: f64,
    publish: impl Fn() -> F + Clone + Send + 'static,
) -> Measured {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    let (began, cpu_began) = (Instant::now(), cpu_us());
    for _ in 0..inflight {
        let (stop, count, publish) = (Arc::clone(&stop), Arc::clone(&count), publish.clone());
        tasks.spawn(async move {
            while !stop.load(Relaxed) {
                publish().await;
                count.fetch_add(1, Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    stop.store(true, Relaxed);
    tasks.join_all().await;
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    let count = count.load(Relaxed) as f64;
    Measured {
        per_second: count / began.elapsed().as_secs_f64(),
        cpu_us: (cpu_us() - cpu_began) / count,
    }
}

/// Processor time of this process so far, from the tenth and eleventh field after its name; ticks are 10 ms.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10_000.0
}

fn median(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    measured.swap_remove(measured.len() / 2)
}
