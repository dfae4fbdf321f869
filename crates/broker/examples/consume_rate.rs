//! Deliveries a second of our consumer beside a bare lapin one, each draining a backlog with acks in multiples.
//!
//! A rough measure for choosing shapes, no benchmark: client and broker share the machine.
//! `cargo run --release -p porchlight-broker --example consume_rate -- [backlog] [amqp-url]`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for the developer's terminal"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use porchlight_broker::{
    BrokerUrls, Consumer, ConsumerConfig, Outgoing, PublishDeadlines, Publisher, PublisherConfig, topology,
};
use porchlight_event::Envelope;
use porchlight_testbed::RabbitMq;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const BODY_BYTES: usize = 620;
const PREFETCH: u16 = 512;
const BATCH: usize = 128;
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let backlog = arguments
        .next()
        .map_or(60_000, |text| text.parse::<usize>().unwrap());
    let private = match arguments.next() {
        Some(url) => Err(url),
        None => Ok(RabbitMq::start().await.unwrap()),
    };
    let url = match &private {
        Ok(node) => node.url(),
        Err(url) => url.clone(),
    };
    for _ in 0..ROUNDS {
        fill(&url, backlog).await;
        report("bare lapin", backlog, bare_lapin(&url, backlog)).await;
        fill(&url, backlog).await;
        report("ours", backlog, our_consumer(&url, backlog)).await;
    }
}

async fn report(name: &str, backlog: usize, draining: impl Future<Output = ()>) {
    let (began, cpu_began) = (Instant::now(), cpu_us());
    draining.await;
    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    let count = backlog as f64;
    let (per_second, cpu) = (
        count / began.elapsed().as_secs_f64(),
        (cpu_us() - cpu_began) / count,
    );
    println!("{name:<12} {per_second:>7.0}/s  {cpu:>5.1} us");
}

async fn fill(url: &str, count: usize) {
    let config = PublisherConfig::new(BrokerUrls::parse(url).unwrap(), "consume-rate");
    let publisher = Publisher::start(config, CancellationToken::new());
    publisher
        .state()
        .wait_for(porchlight_broker::QueueState::is_ready)
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    for share in 0..200 {
        let publisher = publisher.clone();
        let mine = count / 200 + usize::from(share < count % 200);
        tasks.spawn(async move {
            let envelope = Envelope {
                received_at_ms: Some(1_771_025_567_123),
                signature: Some(format!("sha256={}", "ab".repeat(32))),
                ..Envelope::bare(Bytes::from(vec![b'x'; BODY_BYTES]))
            };
            for _ in 0..mine {
                let deadlines = PublishDeadlines::within(Duration::from_secs(20));
                publisher
                    .publish(Outgoing::event(&envelope), deadlines)
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
    publisher.close(Duration::from_secs(2)).await;
}

async fn bare_lapin(url: &str, count: usize) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .basic_qos(PREFETCH, BasicQosOptions { global: false })
        .await
        .unwrap();
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut deliveries = channel
        .basic_consume(topology::EVENTS.into(), "bare".into(), options, table)
        .await
        .unwrap();
    for number in 1..=count {
        let delivery = deliveries.next().await.unwrap().unwrap();
        if number % BATCH == 0 || number == count {
            channel
                .basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true })
                .await
                .unwrap();
        }
    }
    connection.close(200, "done".into()).await.unwrap();
}

async fn our_consumer(url: &str, count: usize) {
    let config = ConsumerConfig {
        prefetch_initial: PREFETCH,
        prefetch_full: PREFETCH,
        ..ConsumerConfig::new(BrokerUrls::parse(url).unwrap(), "consume-rate")
    };
    let mut consumer = Consumer::start(config, CancellationToken::new());
    let mut seen = 0;
    while seen < count {
        let batch = consumer.next_batch(BATCH).await.unwrap();
        seen += batch.deliveries.len();
        let last = batch.deliveries.last().unwrap().tag;
        consumer.ack_through(batch.incarnation, last).await;
    }
    consumer.close().await;
}

/// Processor time of this process so far, from the tenth and eleventh field after its name; ticks are 10 ms.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10_000.0
}
