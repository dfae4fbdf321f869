//! Stopping: nothing is left unacknowledged, and what was not begun is still in the queue.

use std::time::Duration;

use porchlight_broker::topology;
use porchlight_device::Status;
use porchlight_service::Secret;
use porchlight_store::{Store, StoreConfig};
use porchlight_testbed::{Redis, Relay};
use porchlight_worker::{RunError, WorkerConfig};

use crate::harness::{Bench, Running, body, now_ms};

/// The broker may deliver between a cancel and its answer: that is processed, too. What it sends to a consumer that is
/// gone it takes back by itself; at the most that is a window full.
#[tokio::test]
async fn a_stop_under_load_leaves_nothing_unacked_and_loses_nothing() {
    for (ramp, window) in [(Duration::from_secs(600), 8.0), (Duration::ZERO, 512.0)] {
        let bench = Bench::start().await;
        let mut config = bench.config();
        config.work.prefetch_ramp = ramp;
        let count: u64 = 3000;
        let at = now_ms() - 60_000;
        bench
            .publish_all((0..count).map(|n| body("device_online", &format!("d{n}"), at)))
            .await;
        let mut rest = count;
        let (mut stops, mut redelivered) = (0.0, 0.0);
        while rest > 500 && stops < 5.0 {
            let worker = Running::start(WorkerConfig {
                amqp: config.amqp.clone(),
                topology: config.topology.clone(),
                redis: config.redis.clone(),
                keys: config.keys.clone(),
                admin_token: None,
                work: config.work,
            });
            worker.wait_sum("porchlight_worker_events_total", 100.0).await;
            redelivered += worker.sum("porchlight_worker_redelivered_total").await;
            worker.stop().await.unwrap();
            stops += 1.0;
            let queue = bench.queue(topology::EVENTS).await.unwrap();
            assert_eq!((queue.unacked, queue.consumers), (0, 0), "{queue:?}");
            rest = queue.ready;
        }
        assert!(
            redelivered <= stops * window,
            "{redelivered} came back in {stops} stops"
        );
        let last = bench.worker().await;
        bench.drained().await;
        // Each device was heard of exactly when its event was applied; none may be missing.
        let store = Store::connect(&StoreConfig::new(bench.redis.url())).unwrap();
        assert_eq!(store.counts().await.unwrap()[&Status::Online], count);
        assert_eq!(bench.queue(topology::DEAD).await.unwrap().ready, 0);
        let duplicates = "porchlight_worker_events_total{type=\"device_online\",outcome=\"duplicate\"}";
        assert_eq!(
            last.sum(duplicates).await,
            0.0,
            "an event was applied and not acked"
        );
        last.stop().await.unwrap();
    }
}

#[tokio::test]
async fn commands_that_a_stop_has_no_time_for_are_counted_and_sent_by_the_next_worker() {
    let bench = Bench::start().await;
    // Each confirmation takes its time, one after the other.
    let relay = Relay::start(bench.redis.address()).await.unwrap();
    let mut config = bench.config();
    config.redis = Secret::new(Redis::url_at(relay.address()));
    config.work.commands_inflight_max = 1;
    config.work.stop_grace = Duration::from_secs(1);
    let worker = Running::start(config);
    worker.ready().await;
    let operations = 40;
    for n in 0..operations {
        worker.register("d", &format!("o{n}")).await;
    }
    relay.delay(Duration::from_millis(100));
    bench
        .publish_all([body("device_offline", "d", now_ms() - 1000)])
        .await;
    worker.wait_sum("porchlight_worker_commands_total", 1.0).await;
    let error = worker.stop().await.unwrap_err();
    let RunError::Grace { events: 0, commands } = error else {
        panic!("{error}")
    };
    assert!((2..=operations).contains(&commands), "{commands} were in hand");
    assert_eq!(bench.queue(topology::EVENTS).await.unwrap().unacked, 0);
    let next = bench.worker().await;
    let identities = |all: &[crate::harness::Received]| {
        let ids: std::collections::BTreeSet<_> = all.iter().map(|one| one.message_id.clone()).collect();
        ids.len()
    };
    let received = bench.commands(|all| identities(all) == operations).await;
    assert!(received.iter().all(|one| one.body["action"] == "pause"));
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_while_the_ledger_is_away_gives_everything_back_and_says_so() {
    let bench = Bench::start().await;
    let mut config = bench.config();
    config.work.stop_grace = Duration::from_secs(1);
    let worker = Running::start(config);
    worker.ready().await;
    bench.redis.kill();
    bench.publish_all([body("device_online", "d", now_ms())]).await;
    worker.wait_sum("porchlight_worker_held_tries_total", 1.0).await;
    let error = worker.stop().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not everything was finished in time: 1 events and 0 commands were in hand"
    );
    let queue = bench.queue(topology::EVENTS).await.unwrap();
    assert_eq!((queue.ready, queue.unacked), (1, 0));
}
