//! How many events a second the ledger takes, against a script that does next to nothing, on a private server.
//!
//! It proves nothing by itself; it is run by hand, in release mode: `cargo run --release -p porchlight-store
//! --example apply_rate -- [events [setting=value …]]`, with settings of the server.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement run by hand"
)]

use porchlight_device::News;
use porchlight_event::RingEvent;
use porchlight_event::sample::Sample;
use porchlight_store::{Store, StoreConfig};
use porchlight_testbed::Redis;
use porchlight_testbed::redis::{Fsync, Reply};
use std::time::{Duration, Instant};

/// Events in one round trip.
const BATCH: usize = 64;
/// Connections, each with one batch on its way.
const LANES: usize = 4;
/// Devices the events are about.
const DEVICES: usize = 2000;
/// A check and a mark: about what any script for an event must do.
const LEAST: &str = "#!lua
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 0 end
redis.call('HSET', KEYS[2], 's', ARGV[2])
return redis.call('SADD', KEYS[1], ARGV[1])";

fn event(n: usize) -> News {
    let at = i64::try_from(n).unwrap();
    let (device_id, request_id) = (
        format!("ava1.ring.device.{}", n % DEVICES),
        format!("request-{n}"),
    );
    let sample = Sample {
        event_type: if (n / DEVICES).is_multiple_of(2) {
            "device_online"
        } else {
            "device_offline"
        },
        device_id: &device_id,
        account_id: "ava1.ring.account.one",
        timestamp_ms: 1_771_025_567_000 + at,
        sent_at_ms: 1_771_025_567_500 + at,
        request_id: &request_id,
    };
    News::new(&RingEvent::parse(&sample.body()).unwrap(), 0).unwrap()
}

async fn ours(store: &Store, events: &[News]) -> Duration {
    let began = Instant::now();
    let lane = |lane: usize| {
        let mine: Vec<News> = events.iter().skip(lane).step_by(LANES).cloned().collect();
        let store = store.clone();
        tokio::spawn(async move {
            for some in mine.chunks(BATCH) {
                let mut results = store.apply_batch(lane, some, 1_771_025_600_000).await;
                while results.iter().any(Result::is_err) {
                    // A machine that is busy otherwise: the same batch again, as a worker would.
                    results = store.apply_batch(lane, some, 1_771_025_600_000).await;
                }
            }
        })
    };
    let lanes: Vec<_> = (0..LANES).map(lane).collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    began.elapsed()
}

async fn least(url: &str, count: usize) -> Duration {
    let client = redis::Client::open(url).unwrap();
    let began = Instant::now();
    let mut lanes = Vec::new();
    for lane in 0..LANES {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        lanes.push(tokio::spawn(async move {
            let hash: String = redis::cmd("SCRIPT")
                .arg("LOAD")
                .arg(LEAST)
                .query_async(&mut connection)
                .await
                .unwrap();
            let mine: Vec<usize> = (0..count).skip(lane).step_by(LANES).collect();
            for some in mine.chunks(BATCH) {
                let mut pipeline = redis::Pipeline::new();
                for n in some {
                    let keys = [format!("least:{}", n / 400), format!("least:d:{}", n % DEVICES)];
                    pipeline
                        .cmd("EVALSHA")
                        .arg(&hash)
                        .arg(2)
                        .arg(&keys)
                        .arg(n)
                        .arg("x".repeat(900));
                }
                let _: Vec<i64> = pipeline.query_async(&mut connection).await.unwrap();
            }
        }));
    }
    for lane in lanes {
        lane.await.unwrap();
    }
    began.elapsed()
}

/// Processor time of this process, in microseconds.
fn own_cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10_000
}

/// One number of what the server says of itself.
fn info(redis: &Redis, section: &str, before: &str) -> f64 {
    let Reply::Bytes(text) = redis.command(&["INFO", section]).unwrap() else {
        return 0.0;
    };
    let text = String::from_utf8(text).unwrap();
    let rest = text.split_once(before).unwrap().1;
    let number = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next();
    number.unwrap().parse().unwrap()
}

/// Processor time of the server's one thread that runs commands, in seconds.
fn server_cpu_s(redis: &Redis) -> f64 {
    info(redis, "cpu", "used_cpu_user_main_thread:") + info(redis, "cpu", "used_cpu_sys_main_thread:")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(200_000);
    let events: Vec<News> = (0..count).map(event).collect();
    for round in 1..=3 {
        let redis = Redis::start_with(Fsync::EverySecond, None).await.unwrap();
        for setting in std::env::args().skip(2) {
            let (name, value) = setting.split_once('=').unwrap();
            redis.command(&["CONFIG", "SET", name, value]).unwrap();
        }
        let store = Store::connect(&StoreConfig::new(redis.url())).unwrap();
        // The devices exist already, as they do on any day but the first.
        let (first, rest) = events.split_at(DEVICES);
        ours(&store, first).await;
        let (cpu, memory) = (own_cpu_us(), info(&redis, "memory", "used_memory:"));
        let server = server_cpu_s(&redis);
        let taken = ours(&store, rest).await;
        let server = server_cpu_s(&redis) - server;
        let (cpu, grown) = (
            own_cpu_us() - cpu,
            info(&redis, "memory", "used_memory:") - memory,
        );
        let floor = least(&redis.url(), rest.len()).await;
        let (many, took, bare) = (rest.len() as f64, taken.as_secs_f64(), floor.as_secs_f64());
        println!(
            "round {round}: {:.0} events/s, {:.1} us of our own each, {:.1} us of the server's, {:.1} bytes each (history included); \
             a least script {:.0}/s; ratio {:.2}",
            many / took,
            cpu as f64 / many,
            server * 1e6 / many,
            grown / many,
            many / bare,
            bare / took,
        );
    }
}
