//! How far behind a worker says that it is, and what it shows of its ledger.

use std::time::Duration;

use porchlight_event::Envelope;
use porchlight_testbed::wait_for;
use porchlight_worker::WorkSettings;

use crate::harness::{Form, PATIENCE, Running, Setup, body, in_every_form, now_ms};
use crate::servers::Bench;

in_every_form!(
    what_waited_is_shown_once_it_is_settled_and_nothing_waits_then,
    a_replayed_event_is_no_sign_of_a_lag,
    devices_are_counted_by_status,
);

const WAITING: &str = "porchlight_worker_oldest_waiting_age_seconds";
const AGES: &str = "porchlight_worker_event_age_seconds_count";

fn quick() -> Setup {
    let usual = Setup::default();
    Setup {
        work: WorkSettings {
            watch_interval: Duration::from_millis(100),
            ..usual.work
        },
        ..usual
    }
}

async fn started(bench: &impl Form, setup: Setup) -> Running {
    let worker = bench.start(setup);
    worker.ready().await;
    worker
}

async fn wait_value(worker: &Running, name: &str, wanted: Option<f64>) {
    let waited = wait_for(name, PATIENCE, async || {
        match worker.metrics().await.get(name).copied() {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
    waited.await.unwrap();
}

async fn what_waited_is_shown_once_it_is_settled_and_nothing_waits_then(bench: impl Form) {
    let worker = started(&bench, quick()).await;
    let newest = "porchlight_worker_newest_applied_timestamp_seconds";
    assert_eq!(
        worker.metrics().await.get(newest),
        None,
        "nothing was applied yet"
    );
    let happened_at_ms = now_ms() - 60_000;
    let received = |body| Envelope {
        received_at_ms: Some(now_ms() - 20_000),
        ..Envelope::bare(body)
    };
    for at_ms in [happened_at_ms, happened_at_ms - 5_000] {
        bench.publish(&received(body("device_online", "d", at_ms))).await;
    }
    worker.wait_sum(AGES, 2.0).await;
    let metrics = worker.metrics().await;
    assert_eq!(
        metrics[newest],
        happened_at_ms as f64 / 1000.0,
        "the stale one is older"
    );
    assert_eq!(
        metrics["porchlight_worker_event_age_seconds_bucket{le=\"10.0\"}"],
        0.0
    );
    assert_eq!(
        metrics["porchlight_worker_event_age_seconds_bucket{le=\"300.0\"}"],
        2.0
    );
    assert!(metrics["porchlight_worker_lag_seconds"] >= 20.0);
    assert_eq!(metrics[WAITING], 0.0);
    worker.stop().await.unwrap();
}

async fn a_replayed_event_is_no_sign_of_a_lag(bench: impl Form) {
    let worker = started(&bench, quick()).await;
    let replayed = Envelope {
        received_at_ms: Some(now_ms() - 86_400_000),
        replay: 1,
        ..Envelope::bare(body("device_online", "d", now_ms() - 86_400_000))
    };
    bench.publish(&replayed).await;
    worker.wait_sum("porchlight_worker_events_total", 1.0).await;
    let metrics = worker.metrics().await;
    assert_eq!(
        (metrics[AGES], metrics["porchlight_worker_lag_seconds"]),
        (0.0, 0.0)
    );
    worker.stop().await.unwrap();
}

async fn devices_are_counted_by_status(bench: impl Form) {
    let worker = started(&bench, quick()).await;
    let at_ms = now_ms() - 1000;
    let kinds = ["device_online", "device_online", "device_offline"];
    let events = kinds.iter().zip(["a", "b", "c"]);
    bench
        .publish_all(events.map(|(kind, device)| body(kind, device, at_ms)))
        .await;
    for (status, count) in [("online", 2.0), ("offline", 1.0), ("removed", 0.0)] {
        let name = format!("porchlight_worker_devices{{status=\"{status}\"}}");
        wait_value(&worker, &name, Some(count)).await;
    }
    wait_value(&worker, "porchlight_ledger_persistence_ok", Some(1.0)).await;
    wait_value(&worker, "porchlight_ledger_evicts", Some(0.0)).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn while_the_ledger_is_away_the_oldest_event_ages_also_after_it_was_given_back() {
    let bench = Bench::start().await;
    let mut setup = quick();
    setup.work.hold_max = Duration::from_secs(1);
    let worker = started(&bench, setup).await;
    bench.redis.kill();
    let event = Envelope {
        received_at_ms: Some(now_ms() - 20_000),
        ..Envelope::bare(body("device_online", "d", now_ms() - 20_000))
    };
    bench.publish(&event).await;
    worker.wait_sum(WAITING, 20.0).await;
    worker.wait_sum("porchlight_worker_given_back_total", 1.0).await;
    let before = worker.sum(WAITING).await;
    assert!(before >= 20.0, "given back, it waits all the same: {before}");
    worker.wait_sum(WAITING, before + 0.01).await;
    wait_value(&worker, "porchlight_worker_devices{status=\"online\"}", None).await;
    wait_value(&worker, "porchlight_ledger_memory_bytes", None).await;
    bench.redis.start_again().await.unwrap();
    worker.wait_sum(AGES, 1.0).await;
    wait_value(&worker, WAITING, Some(0.0)).await;
    wait_value(&worker, "porchlight_worker_devices{status=\"online\"}", Some(1.0)).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn what_redis_says_of_itself_is_shown() {
    let bench = Bench::start().await;
    let worker = started(&bench, quick()).await;
    let set = |name: &str, value: &str| {
        bench.redis.command(&["CONFIG", "SET", name, value]).unwrap();
    };
    worker.wait_sum("porchlight_ledger_memory_bytes", 1.0).await;
    wait_value(&worker, "porchlight_ledger_memory_max_bytes", None).await;
    set("maxmemory", "104857600");
    wait_value(&worker, "porchlight_ledger_memory_max_bytes", Some(104_857_600.0)).await;
    set("maxmemory-policy", "volatile-lru");
    wait_value(&worker, "porchlight_ledger_evicts", Some(1.0)).await;
    set("appendonly", "no");
    wait_value(&worker, "porchlight_ledger_persistence_ok", Some(0.0)).await;
    worker.stop().await.unwrap();
}
