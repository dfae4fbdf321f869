//! What becomes of each kind of event, as ledger, queues and metrics show it.

use std::sync::Arc;

use bytes::Bytes;
use porchlight_broker::topology;
use porchlight_event::Envelope;
use porchlight_event::sample::SAMPLES;
use porchlight_testbed::redis::Reply;
use tokio::sync::watch;

use crate::harness::{Form, Setup, body, in_every_form, keys, now_ms};
use crate::servers::Bench;

in_every_form!(
    every_outcome_is_settled_and_counted,
    every_documented_sample_is_settled_without_a_dead_letter,
    poison_goes_to_the_dead_letters_whole_with_reason_stage_and_detail,
    an_event_from_the_far_future_is_put_off_five_times_and_then_dead,
    an_event_a_little_too_far_ahead_is_applied_when_its_time_has_come,
    a_worker_with_keys_buries_what_they_did_not_sign,
);

async fn every_outcome_is_settled_and_counted(bench: impl Form) {
    let worker = bench.worker().await;
    let first = now_ms() - 1000;
    for (kind, at) in [
        ("device_online", first),
        ("device_online", first),
        ("device_offline", first - 1),
        ("motion_detected", first),
        ("device_removed", first + 10),
        ("device_online", first + 5),
        ("a_type_to_come", first),
    ] {
        bench.publish_all([body(kind, "d", at)]).await;
        bench.drained().await;
    }
    let metrics = worker.metrics().await;
    for (kind, outcome, count) in [
        ("device_online", "applied", 1.0),
        ("device_online", "duplicate", 1.0),
        ("device_offline", "stale", 1.0),
        ("motion_detected", "recorded", 1.0),
        ("device_removed", "applied", 1.0),
        ("device_online", "refused", 1.0),
        ("other", "recorded", 1.0),
    ] {
        let name = format!("porchlight_worker_events_total{{type=\"{kind}\",outcome=\"{outcome}\"}}");
        assert_eq!(metrics.get(&name), Some(&count), "{name}");
    }
    assert_eq!(worker.device("d").await["status"], "removed");
    worker.stop().await.unwrap();
}

async fn every_documented_sample_is_settled_without_a_dead_letter(bench: impl Form) {
    let worker = bench.worker().await;
    bench
        .publish_all(SAMPLES.map(|(_, body)| Bytes::from_static(body.as_bytes())))
        .await;
    bench.drained().await;
    worker
        .wait_sum("porchlight_worker_events_total", SAMPLES.len() as f64)
        .await;
    assert_eq!(bench.letters().await.unwrap().len(), 0);
    worker.stop().await.unwrap();
}

async fn poison_goes_to_the_dead_letters_whole_with_reason_stage_and_detail(bench: impl Form) {
    let worker = bench.worker().await;
    let poison = [
        &b"\xff\x00 no json"[..],
        br#"{"data":{"type":"device_online","id":"e-1"}}"#,
    ];
    let sent = poison.map(|body| Envelope {
        received_at_ms: Some(5),
        signature: Some("sha256=feed".to_owned()),
        ..Envelope::bare(Bytes::from_static(body))
    });
    for envelope in &sent {
        bench.publish(envelope).await;
    }
    // A good one between them is not held up.
    bench.publish_all([body("device_online", "d", now_ms())]).await;
    let mut dead = bench.dead(2).await;
    bench.drained().await;
    dead.sort_by_key(|letter| letter.envelope.body.len());
    let found: Vec<_> = dead
        .iter()
        .map(|l| (l.reason.as_str(), l.stage.as_deref().unwrap()))
        .collect();
    assert_eq!(found, [("not_json", "parse"), ("no_device", "news")]);
    for (letter, sent) in dead.iter().zip(&sent) {
        assert!(letter.envelope == *sent, "{:?} is not {sent:?}", letter.envelope);
        assert!(letter.detail.is_some() && letter.dead_at_ms.unwrap() > now_ms() - 60_000);
    }
    assert_eq!(worker.device("d").await["status"], "online");
    assert_eq!(worker.sum("porchlight_worker_dead_letters_total").await, 2.0);
    worker.stop().await.unwrap();
}

async fn an_event_from_the_far_future_is_put_off_five_times_and_then_dead(bench: impl Form) {
    let worker = bench.worker().await;
    let far = body("device_offline", "d", now_ms() + 3_600_000);
    bench.publish_all([far.clone()]).await;
    let dead = bench.dead(1).await;
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].stage.as_deref()),
        ("future", Some("later"))
    );
    assert_eq!((dead[0].envelope.attempt, &dead[0].envelope.body), (5, &far));
    bench.drained().await;
    assert_eq!(
        worker
            .sum("porchlight_worker_events_total{type=\"device_offline\",outcome=\"later\"}")
            .await,
        5.0
    );
    assert_eq!(worker.call("GET", "/v1/devices/d", "").await.status, 404);
    worker.stop().await.unwrap();
}

async fn an_event_a_little_too_far_ahead_is_applied_when_its_time_has_come(bench: impl Form) {
    let worker = bench.worker().await;
    bench
        .publish_all([body("device_offline", "d", now_ms() + 303_000)])
        .await;
    worker
        .wait_sum(
            "porchlight_worker_events_total{type=\"device_offline\",outcome=\"applied\"}",
            1.0,
        )
        .await;
    assert!(
        worker
            .sum("porchlight_worker_events_total{type=\"device_offline\",outcome=\"later\"}")
            .await
            >= 1.0
    );
    assert_eq!(worker.device("d").await["status"], "offline");
    bench.drained().await;
    worker.stop().await.unwrap();
}

async fn a_worker_with_keys_buries_what_they_did_not_sign(bench: impl Form) {
    let own = keys("main=secret");
    let setup = Setup {
        keys: watch::channel(Some(Arc::new(own.clone()))).1,
        ..Setup::default()
    };
    let worker = bench.start(setup);
    let body = body("device_online", "d", now_ms());
    let signed = |signature| Envelope {
        signature,
        ..Envelope::bare(body.clone())
    };
    bench.publish(&signed(None)).await;
    bench
        .publish(&signed(Some(keys("x=other").iter().next().unwrap().sign(&body))))
        .await;
    let dead = bench.dead(2).await;
    assert!(
        dead.iter().all(|letter| letter.reason == "bad_signature"),
        "{dead:?}"
    );
    bench
        .publish(&signed(Some(own.iter().next().unwrap().sign(&body))))
        .await;
    worker
        .wait_sum(
            "porchlight_worker_events_total{type=\"device_online\",outcome=\"applied\"}",
            1.0,
        )
        .await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn deliveries_that_were_returned_often_are_applied_too() {
    let bench = Bench::start().await;
    let at = now_ms() - 60_000;
    bench
        .publish_all((0..20).map(|n| body("device_online", &format!("d{n}"), at)))
        .await;
    for _ in 0..4 {
        let mut consumer = bench.consumer(topology::EVENTS);
        assert!(consumer.next_batch(8).await.is_some());
        consumer.close().await;
    }
    let worker = bench.worker().await;
    bench.drained().await;
    worker
        .wait_sum(
            "porchlight_worker_events_total{type=\"device_online\",outcome=\"applied\"}",
            20.0,
        )
        .await;
    assert!(worker.sum("porchlight_worker_redelivered_total").await >= 8.0);
    worker.stop().await.unwrap();
}

/// The ledger fails on one device, always: its event is buried after some tries, and those beside it are applied.
#[tokio::test]
async fn an_event_that_the_ledger_cannot_take_is_buried_alone() {
    let bench = Bench::start().await;
    let worker = bench.worker().await;
    let at = now_ms() - 60_000;
    bench.publish_all([body("device_online", "broken", at)]).await;
    worker.wait_sum("porchlight_worker_events_total", 1.0).await;
    let Reply::List(keys) = bench.redis.command(&["KEYS", "porchlight:*:h:*"]).unwrap() else {
        panic!("no keys")
    };
    let [Reply::Bytes(history)] = &keys[..] else {
        panic!("{keys:?}")
    };
    let history = std::str::from_utf8(history).unwrap();
    bench.redis.command(&["SET", history, "not a list"]).unwrap();
    let others = (0..6).map(|n| body("device_online", &format!("d{n}"), at));
    bench
        .publish_all(others.chain([body("device_offline", "broken", at + 1)]))
        .await;
    let dead = bench.dead(1).await;
    let letter = &dead[0];
    assert_eq!(
        (letter.reason.as_str(), letter.stage.as_deref()),
        ("ledger_refused", Some("apply"))
    );
    assert_eq!(letter.envelope.body, body("device_offline", "broken", at + 1));
    bench.drained().await;
    let online = "porchlight_worker_events_total{type=\"device_online\",outcome=\"applied\"}";
    assert_eq!(worker.sum(online).await, 7.0);
    assert_eq!(worker.call("GET", "/readyz", "").await.status, 200);
    worker.stop().await.unwrap();
}
