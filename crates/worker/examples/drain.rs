//! How fast one worker empties a backlog, and what each event costs it and Redis, on private servers.
//!
//! It proves nothing by itself; it is run by hand, in release mode: `cargo run --release -p porchlight-worker
//! --example drain -- [events] [devices] [prefetch] [batch size] [batches at once] [rounds]`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement run by hand"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use porchlight_broker::{BrokerUrls, Outgoing, PublishDeadlines, Publisher, PublisherConfig, TopologyConfig};
use porchlight_event::Envelope;
use porchlight_event::sample::Sample;
use porchlight_service::http;
use porchlight_store::StoreConfig;
use porchlight_testbed::redis::{Fsync, Reply};
use porchlight_testbed::{RabbitMq, Redis};
use porchlight_worker::{WorkSettings, WorkerConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks at how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

fn event(n: usize, devices: usize) -> Bytes {
    let at = 1_771_025_567_000 + i64::try_from(n).unwrap();
    let sample = Sample {
        event_type: ["device_online", "device_offline"][(n / devices) % 2],
        device_id: &format!("ava1.ring.device.{}", n % devices),
        account_id: "ava1.ring.account.one",
        timestamp_ms: at,
        sent_at_ms: at + 500,
        request_id: &format!("request-{n}"),
    };
    Bytes::from(sample.body())
}

async fn fill(url: &str, count: usize, devices: usize) {
    let config = PublisherConfig::new(BrokerUrls::parse(url).unwrap(), "drain");
    let publisher = Publisher::start(config, CancellationToken::new());
    publisher
        .state()
        .wait_for(|state| state.is_ready())
        .await
        .unwrap();
    let publish = async |n| {
        let envelope = Envelope {
            received_at_ms: Some(1_771_025_568_000),
            signature: Some(format!("sha256={}", "ab".repeat(32))),
            ..Envelope::bare(event(n, devices))
        };
        let deadlines = PublishDeadlines::within(Duration::from_secs(20));
        publisher
            .publish(Outgoing::event(&envelope), deadlines)
            .await
            .unwrap();
    };
    stream::iter(0..count).for_each_concurrent(200, publish).await;
    publisher.close(Duration::from_secs(2)).await;
}

async fn settled(admin: SocketAddr) -> usize {
    let page = porchlight_testbed::http::get(admin, "/metrics")
        .await
        .unwrap()
        .text();
    let counts = page
        .lines()
        .filter(|line| line.starts_with("porchlight_worker_events_total"));
    counts
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok())
        .sum()
}

/// Processor time of a process, in microseconds.
fn cpu_us(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * 10_000.0
}

fn info(redis: &Redis, section: &str, field: &str) -> String {
    let Reply::Bytes(text) = redis.command(&["INFO", section]).unwrap() else {
        return String::new();
    };
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
}

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .map(|text| text.parse::<usize>().unwrap());
    let mut number = |default| numbers.next().unwrap_or(default);
    let (count, devices) = (number(50_000), number(2000));
    let work = WorkSettings {
        prefetch: u16::try_from(number(512)).unwrap(),
        batch_size: number(64),
        batches_max: number(4),
        ..WorkSettings::default()
    };
    let rounds = number(3);
    let broker = RabbitMq::start().await.unwrap();
    for _ in 0..rounds {
        let redis = Redis::start_with(Fsync::EverySecond, None).await.unwrap();
        fill(&broker.url(), count, devices).await;
        let listener = http::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (admin, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let config = WorkerConfig {
            amqp: BrokerUrls::parse(&broker.url()).unwrap(),
            topology: TopologyConfig::default(),
            redis: StoreConfig::new(redis.url()),
            admin_token: None,
            keys: watch::channel(None).1,
            prefetch_ramp: Duration::ZERO,
            management: None,
            trace: None,
            work,
            callback: None,
        };
        println!("filled; now draining");
        let redis_process = info(&redis, "server", "process_id");
        redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
        let worker = tokio::spawn(porchlight_worker::run(config, listener, stop.clone()));
        // The clock begins when the first events are through: connecting is not draining.
        while settled(admin).await == 0 {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let already = settled(admin).await;
        let (began, own, theirs) = (Instant::now(), cpu_us("self"), cpu_us(&redis_process));
        while settled(admin).await < count {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let done = (count - already) as f64;
        println!(
            "{:>7.0} events/s  {:>5.1} us of the worker  {:>5.1} us of Redis each; {}",
            done / began.elapsed().as_secs_f64(),
            (cpu_us("self") - own) / done,
            (cpu_us(&redis_process) - theirs) / done,
            info(&redis, "commandstats", "cmdstat_evalsha"),
        );
        stop.cancel();
        worker.await.unwrap().unwrap();
    }
}
