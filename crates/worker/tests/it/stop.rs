//! Stopping: nothing is left unacknowledged, and what was not begun is still in the queue.

use std::time::Duration;

use porchlight_testbed::{Redis, Relay, wait_for};
use porchlight_worker::RunError;

use crate::harness::{Form, PATIENCE, Setup, body, in_every_form, now_ms};
use crate::servers::Bench;

in_every_form!(a_stop_under_load_leaves_nothing_unacked_and_loses_nothing);

/// The queue may deliver between the wish to stop and its answer: that is processed, too. What it sends to a consumer
/// that is gone it takes back by itself; at the most that is a window full.
async fn a_stop_under_load_leaves_nothing_unacked_and_loses_nothing(bench: impl Form) {
    for (ramp, window) in [(Duration::from_secs(600), 8.0), (Duration::ZERO, 512.0)] {
        let setup = Setup {
            prefetch_ramp: ramp,
            ..Setup::default()
        };
        let count: u64 = 3000;
        let at = now_ms() - 60_000;
        let device = |n| format!("d{n}-{window}");
        bench
            .publish_all((0..count).map(|n| body("device_online", &device(n), at)))
            .await;
        let mut rest = count;
        let (mut stops, mut redelivered) = (0.0, 0.0);
        while rest > 500 && stops < 5.0 {
            let worker = bench.start(setup.clone());
            worker.wait_sum("porchlight_worker_events_total", 100.0).await;
            redelivered += worker.sum("porchlight_worker_redelivered_total").await;
            worker.stop().await.unwrap();
            stops += 1.0;
            rest = left_waiting(&bench).await;
        }
        assert!(
            redelivered <= stops * window,
            "{redelivered} came back in {stops} stops"
        );
        let last = bench.worker().await;
        bench.drained().await;
        // Each device was heard of exactly when its event was applied; none may be missing.
        let ledger = bench.ledger();
        for n in 0..count {
            assert!(
                ledger.device(&device(n)).await.unwrap().is_some(),
                "{n} is missing"
            );
        }
        assert_eq!(bench.letters().await.unwrap().len(), 0);
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
    let mut bench = Bench::start().await;
    // Each confirmation takes its time, one after the other.
    let relay = Relay::start(bench.redis.address()).await.unwrap();
    let own_url = std::mem::replace(&mut bench.redis_url, Redis::url_at(relay.address()));
    let mut setup = Setup::default();
    setup.work.commands_inflight_max = 1;
    setup.work.stop_grace = Duration::from_secs(5);
    let worker = bench.start(setup);
    worker.ready().await;
    let operations = 40;
    for n in 0..operations {
        worker.register("d", &format!("o{n}")).await;
    }
    relay.delay(Duration::from_millis(300));
    bench
        .publish_all([body("device_offline", "d", now_ms() - 1000)])
        .await;
    worker.wait_sum("porchlight_worker_commands_total", 1.0).await;
    let error = worker.stop().await.unwrap_err();
    let RunError::Grace { events: 0, commands } = error else {
        panic!("{error}")
    };
    assert!((2..=operations).contains(&commands), "{commands} were in hand");
    assert_eq!(left_waiting(&bench).await, 0);
    bench.redis_url = own_url;
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
    let mut setup = Setup::default();
    setup.work.stop_grace = Duration::from_secs(1);
    let worker = bench.start(setup);
    worker.ready().await;
    bench.redis.kill();
    bench.publish_all([body("device_online", "d", now_ms())]).await;
    worker.wait_sum("porchlight_worker_held_tries_total", 1.0).await;
    let error = worker.stop().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "not everything was finished in time: 1 events and 0 commands were in hand"
    );
    assert_eq!(left_waiting(&bench).await, 1);
}

/// How many events wait when the worker is gone. A broker takes back what was unacked only a moment later.
async fn left_waiting(bench: &impl Form) -> u64 {
    let all_back = wait_for("everything to be back", PATIENCE, async || bench.waiting().await);
    all_back.await.unwrap()
}
