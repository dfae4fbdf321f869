//! Servers that fail under the worker: events are held, never nacked, and nothing is lost.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use porchlight_broker::topology;
use porchlight_testbed::redis::Fsync;
use porchlight_testbed::{Redis, wait_for};
use porchlight_worker::WorkSettings;

use crate::harness::{Form, PATIENCE, Running, Setup, body, now_ms};
use crate::servers::Bench;

const EVENTS: usize = 300;
const SETTLED: &str = "porchlight_worker_events_total";

async fn publish(bench: &Bench, count: usize) {
    let at = now_ms() - 60_000;
    bench
        .publish_all((0..count).map(|n| body("device_online", &format!("d{n}"), at)))
        .await;
}

/// Events went in while the ledger failed: none is settled, none went back, and all are once it works again.
async fn held_and_then_settled(bench: &Bench, worker: &Running, repair: impl AsyncFnOnce()) {
    publish(bench, EVENTS).await;
    worker.readiness(503).await;
    worker.wait_sum("porchlight_worker_held_tries_total", 3.0).await;
    assert_eq!(bench.queue_of(topology::DEAD).await.unwrap().ready, 0);
    repair().await;
    worker.wait_sum(SETTLED, EVENTS as f64).await;
    worker.ready().await;
    bench.drained().await;
    assert_eq!(
        worker.sum("porchlight_worker_redelivered_total").await,
        0.0,
        "a delivery went back to the queue"
    );
    assert_eq!(bench.queue_of(topology::DEAD).await.unwrap().ready, 0);
}

#[tokio::test]
async fn a_killed_ledger_is_waited_for() {
    let bench = Bench::start().await;
    let worker = bench.worker().await;
    bench.redis.kill();
    held_and_then_settled(&bench, &worker, async || bench.redis.start_again().await.unwrap()).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_frozen_ledger_is_waited_for() {
    let bench = Bench::start().await;
    let worker = bench.start(Setup::for_frozen_ledger());
    worker.ready().await;
    bench.redis.pause();
    held_and_then_settled(&bench, &worker, async || bench.redis.resume()).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_ledger_is_waited_for() {
    let bench = Bench::start().await;
    let worker = bench.worker().await;
    bench.redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let repair = async || {
        bench.redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    };
    held_and_then_settled(&bench, &worker, repair).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn after_holding_in_vain_everything_goes_back_once_and_the_queue_is_left_alone() {
    let bench = Bench::start().await;
    let mut setup = Setup::default();
    setup.work = WorkSettings {
        hold_max: Duration::from_secs(1),
        ..setup.work
    };
    let worker = bench.start(setup);
    worker.ready().await;
    bench.redis.kill();
    publish(&bench, EVENTS).await;
    worker.wait_sum("porchlight_worker_given_back_total", 1.0).await;
    let back = wait_for("everything to be back in the queue", PATIENCE, async || {
        let queue = bench.queue_of(topology::EVENTS).await?;
        if (queue.ready, queue.consumers) == (EVENTS as u64, 0) {
            Ok(())
        } else {
            Err(format!("{queue:?}"))
        }
    });
    back.await.unwrap();
    bench.redis.start_again().await.unwrap();
    worker.wait_sum(SETTLED, EVENTS as f64).await;
    bench.drained().await;
    let redelivered = worker.sum("porchlight_worker_redelivered_total").await;
    assert!(
        (1.0..=8.0).contains(&redelivered),
        "{redelivered} were in hand; the first prefetch is 8"
    );
    assert_eq!(bench.queue_of(topology::DEAD).await.unwrap().ready, 0);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_starts_before_the_ledger_takes_nothing_until_it_is_there() {
    let bench = Bench::with(Redis::prepare(Fsync::EverySecond, None).unwrap()).await;
    publish(&bench, 10).await;
    let worker = bench.start(Setup::default());
    worker.readiness(503).await;
    assert_eq!(bench.queue_of(topology::EVENTS).await.unwrap().ready, 10);
    bench.redis.start_again().await.unwrap();
    worker.wait_sum(SETTLED, 10.0).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn connections_to_the_broker_that_are_cut_under_load_lose_nothing() {
    let bench = Bench::start().await;
    let worker = bench.worker().await;
    let count = 4000;
    let cutting = async {
        for seen in [500.0, 1500.0, 2500.0] {
            worker.wait_sum(SETTLED, seen).await;
            bench.broker.close_all_connections(&bench.vhost).await.unwrap();
        }
    };
    let publishing = async {
        let at = now_ms() - 60_000;
        // Some side by side: a disk that is slow to confirm takes its time once for all of them.
        let publish = async |n| {
            // A publish that is cut off is repeated, as the sender of a webhook would.
            let envelope = porchlight_event::Envelope::bare(body("device_online", &format!("d{n}"), at));
            let sent = wait_for("a confirm", PATIENCE, async || {
                let deadlines = porchlight_broker::PublishDeadlines::within(Duration::from_secs(2));
                let outgoing = porchlight_broker::Outgoing::event(&envelope);
                bench
                    .publisher
                    .publish(outgoing, deadlines)
                    .await
                    .map_err(|error| error.to_string())
            });
            sent.await.unwrap();
        };
        stream::iter(0..count).for_each_concurrent(16, publish).await;
    };
    tokio::join!(cutting, publishing);
    bench.drained().await;
    let applied = worker
        .sum("porchlight_worker_events_total{type=\"device_online\",outcome=\"applied\"}")
        .await;
    assert_eq!(applied, f64::from(count));
    worker.stop().await.unwrap();
}

/// Deliveries whose connection is gone come again on the next; holding them would only keep a place from those.
#[tokio::test]
async fn what_is_held_when_its_connection_ends_is_let_go_at_once() {
    let bench = Bench::start().await;
    let worker = bench.start(Setup::for_frozen_ledger());
    worker.ready().await;
    bench.redis.pause();
    publish(&bench, 8).await;
    worker.wait_sum("porchlight_worker_held_tries_total", 1.0).await;
    bench.broker.close_all_connections(&bench.vhost).await.unwrap();
    let empty = wait_for("empty hands", PATIENCE, async || {
        match worker.sum("porchlight_worker_inflight_events").await {
            0.0 => Ok(()),
            held => Err(format!("{held} are held")),
        }
    });
    empty.await.unwrap();
    // With nothing in hand the ledger is still asked whether it is back.
    bench.redis.resume();
    worker.wait_sum(SETTLED, 8.0).await;
    worker.ready().await;
    bench.drained().await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn the_full_prefetch_comes_when_the_ramp_is_over_and_not_before() {
    for (ramp, wanted) in [(Duration::from_secs(600), 8), (Duration::ZERO, EVENTS as u64)] {
        let bench = Bench::start().await;
        let setup = Setup {
            prefetch_ramp: ramp,
            ..Setup::for_frozen_ledger()
        };
        let worker = bench.start(setup);
        worker.ready().await;
        bench.redis.pause();
        publish(&bench, EVENTS).await;
        worker.wait_sum("porchlight_worker_held_tries_total", 1.0).await;
        // Less than the ramp that is the default.
        let taken = wait_for("the prefetch", Duration::from_secs(25), async || {
            match bench.queue_of(topology::EVENTS).await?.unacked {
                unacked if unacked == wanted => Ok(()),
                other => Err(format!("{other} of {wanted} are unacked")),
            }
        });
        taken.await.unwrap();
        bench.redis.resume();
        worker.wait_sum(SETTLED, EVENTS as f64).await;
        worker.stop().await.unwrap();
    }
}
