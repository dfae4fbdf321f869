//! Servers and daemons that die, hang, fill up or come late: nothing answered 200 is lost, and all recover alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use porchlight_device::News;
use porchlight_device::model::Ledger;
use porchlight_event::RingEvent;
use porchlight_testbed::{LoadGenerator, Report, RingSchedule, http, wait_for};

use crate::support::{ATTEMPTS, PATIENCE, Pipeline, Plan, WEBHOOK, event, now_ms, quick_answers};

/// No answer may take longer, whatever is broken.
const ANSWER_WITHIN: Duration = Duration::from_millis(4_500);
const DEVICES: u64 = 40;

/// Event `n` of a run: each device goes offline and online in turn.
fn body(begin: i64, n: u64) -> Bytes {
    let kind = if (n / DEVICES).is_multiple_of(2) {
        "device_offline"
    } else {
        "device_online"
    };
    let at = begin + i64::try_from(n).unwrap();
    Bytes::from(event(kind, &format!("d-{}", n % DEVICES), "acct", at))
}

/// A run of `count` events that sends each until it is accepted.
fn persistent_load(pipeline: &Pipeline, begin: i64, count: u64) -> tokio::task::JoinHandle<Report> {
    let load = LoadGenerator::new(pipeline.ingress_addresses(), pipeline.key.clone())
        .connections(16)
        .count(count)
        .rate(400.0)
        .retry(RingSchedule::steady(ATTEMPTS, Duration::from_millis(100)));
    tokio::spawn(load.run(move |n| body(begin, n)))
}

/// Waits for rest and compares every device with the reference.
async fn check(pipeline: &Pipeline, report: &Report, begin: i64, count: u64) {
    assert_eq!(report.accepted.len() as u64, count, "{report}");
    pipeline.settle().await;
    let mut reference = Ledger::default();
    for n in 0..count {
        reference.apply(
            &News::new(&RingEvent::parse(&body(begin, n)).unwrap(), 0).unwrap(),
            0,
        );
    }
    for (id, device) in &reference.devices {
        assert_eq!(pipeline.device(id).await["status"], device.status.code(), "{id}");
    }
    assert_eq!(
        pipeline.broker.ready("porchlight.dead").await,
        0,
        "an outage makes no dead letters"
    );
}

async fn wait_until_unready(admin: SocketAddr) {
    wait_for("readiness to be withdrawn", PATIENCE, async || {
        let ready = http::get(admin, "/readyz").await.unwrap();
        if ready.status == 503 {
            Ok(())
        } else {
            Err(ready.text())
        }
    })
    .await
    .unwrap();
}

async fn wait_until_answered(pipeline: &Pipeline, status: u16) {
    let begin = now_ms();
    wait_for(&format!("an answer {status}"), PATIENCE, async || {
        let started = Instant::now();
        let answer = pipeline
            .post(&event("motion_detected", "d-probe", "acct", begin))
            .await;
        assert!(
            started.elapsed() < ANSWER_WITHIN,
            "an answer after {:?}",
            started.elapsed()
        );
        if answer.status == status {
            Ok(())
        } else {
            Err(format!("{} {}", answer.status, answer.text()))
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_under_load_costs_503_and_no_event() {
    let pipeline = Pipeline::start(Plan {
        own_broker: true,
        workers: 2,
        settings: quick_answers(),
        ..Plan::default()
    })
    .await;
    let (begin, count) = (now_ms() - 3_600_000, 3_000);
    let load = persistent_load(&pipeline, begin, count);
    wait_until_answered(&pipeline, 200).await;
    pipeline.broker.node().kill();
    wait_until_answered(&pipeline, 503).await;
    // An event in hand fails with the connection, a moment before the state that readiness shows.
    wait_until_unready(pipeline.ingresses[0].admin).await;
    assert_eq!(
        http::get(pipeline.ingresses[0].admin, "/livez")
            .await
            .unwrap()
            .status,
        200
    );
    pipeline.broker.node().start_again().await.unwrap();
    wait_until_answered(&pipeline, 200).await;
    let report = load.await.unwrap();
    check(&pipeline, &report, begin, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_start_before_their_servers_wait_for_them() {
    let mut pipeline = Pipeline::prepare(Plan {
        own_broker: true,
        ..Plan::default()
    })
    .await;
    pipeline.broker.node().kill();
    pipeline.redis.kill();
    for member in pipeline.members_mut() {
        member.start();
    }
    for member in pipeline.members() {
        let alive = async || match http::get(member.admin, "/livez").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        member.daemon().ready(PATIENCE, alive).await.unwrap();
        assert_eq!(http::get(member.admin, "/readyz").await.unwrap().status, 503);
    }
    let answer = pipeline
        .post(&event("device_online", "d", "acct", now_ms()))
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let ingress = pipeline.ingresses[0].daemon();
    wait_for("the log to tell why", PATIENCE, async || {
        let told = ingress.logs();
        let said = told.contains("events cannot be stored");
        if said { Ok(()) } else { Err(told) }
    })
    .await
    .unwrap();
    pipeline.broker.node().start_again().await.unwrap();
    pipeline.redis.start_again().await.unwrap();
    for member in pipeline.members() {
        member.wait_until_ready().await;
    }
    wait_for("the log to say so", PATIENCE, async || {
        let logs = ingress.logs();
        if logs.contains("the queue takes events") {
            Ok(())
        } else {
            Err(logs)
        }
    })
    .await
    .unwrap();
    pipeline
        .accept(&event("device_online", "d", "acct", now_ms()))
        .await;
    pipeline.settle().await;
    assert_eq!(pipeline.device("d").await["status"], "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_under_load_pauses_the_worker_and_nothing_is_dead_lettered() {
    let pipeline = Pipeline::start(Plan {
        workers: 2,
        settings: quick_answers(),
        ..Plan::default()
    })
    .await;
    let (begin, count) = (now_ms() - 3_600_000, 2_000);
    let load = persistent_load(&pipeline, begin, count);
    wait_until_answered(&pipeline, 200).await;
    pipeline.redis.kill();
    wait_for("events to wait for the store", PATIENCE, async || {
        let ready = http::get(pipeline.workers[0].admin, "/readyz").await.unwrap();
        let waiting = pipeline
            .broker
            .node()
            .queue(pipeline.broker.vhost(), "porchlight.events")
            .await
            .unwrap();
        let held = waiting.ready + waiting.unacked;
        if ready.status == 503 && held > 0 {
            Ok(())
        } else {
            Err(format!("{} {held}", ready.text()))
        }
    })
    .await
    .unwrap();
    wait_until_answered(&pipeline, 200).await;
    pipeline.redis.start_again().await.unwrap();
    let report = load.await.unwrap();
    check(&pipeline, &report, begin, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_waited_for_and_nothing_is_done_twice() {
    let pipeline = Pipeline::start(Plan {
        workers: 2,
        settings: quick_answers(),
        ..Plan::default()
    })
    .await;
    for n in 0..DEVICES {
        pipeline
            .register(&format!("d-{n}"), "nightly", Some("acct"))
            .await;
    }
    let (begin, count) = (now_ms() - 3_600_000, 1_200);
    let load = persistent_load(&pipeline, begin, count);
    for _ in 0..3 {
        wait_until_answered(&pipeline, 200).await;
        pipeline.redis.pause();
        wait_until_unready(pipeline.workers[0].admin).await;
        pipeline.redis.resume();
        for worker in &pipeline.workers {
            worker.wait_until_ready().await;
        }
    }
    let report = load.await.unwrap();
    check(&pipeline, &report, begin, count).await;
    for (id, (_, sent)) in pipeline.commands().await {
        assert_eq!(sent.body["id"], id.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_refuses_whole_steps_and_takes_them_when_there_is_room() {
    let pipeline = Pipeline::start(Plan::default()).await;
    let now = now_ms();
    pipeline
        .accept(&event("device_offline", "d", "acct", now - 2_000))
        .await;
    pipeline.settle().await;
    pipeline
        .redis
        .command(&["CONFIG", "SET", "maxmemory", "1"])
        .unwrap();
    pipeline
        .accept(&event("device_online", "d", "acct", now - 1_000))
        .await;
    wait_until_unready(pipeline.workers[0].admin).await;
    assert_eq!(
        pipeline.device("d").await["status"],
        "offline",
        "reading still works"
    );
    pipeline
        .redis
        .command(&["CONFIG", "SET", "maxmemory", "0"])
        .unwrap();
    pipeline.settle().await;
    assert_eq!(pipeline.device("d").await["status"], "online");
    assert_eq!(pipeline.broker.ready("porchlight.dead").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_broker_is_answered_503_at_once_and_taken_up_again() {
    let pipeline = Pipeline::start(Plan {
        own_broker: true,
        settings: quick_answers(),
        ..Plan::default()
    })
    .await;
    pipeline.broker.node().set_memory_alarm(true).await.unwrap();
    // The broker blocks a connection when it publishes; until then a request may wait for its confirm.
    wait_for("a 503 without a wait", PATIENCE, async || {
        let started = Instant::now();
        let answer = pipeline
            .post(&event("motion_detected", "d", "acct", now_ms()))
            .await;
        let took = started.elapsed();
        let at_once = answer.status == 503 && took < Duration::from_millis(250);
        if at_once {
            Ok(())
        } else {
            Err(format!("{} after {took:?}", answer.status))
        }
    })
    .await
    .unwrap();
    pipeline.broker.node().set_memory_alarm(false).await.unwrap();
    wait_until_answered(&pipeline, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_at_its_limit_is_answered_503() {
    let mut pipeline = Pipeline::prepare(Plan {
        settings: quick_answers(),
        ..Plan::default()
    })
    .await;
    pipeline.ingresses[0].start();
    pipeline.ingresses[0].wait_until_ready().await;
    let node = pipeline.broker.node();
    node.set_policy(
        pipeline.broker.vhost(),
        "small",
        "^porchlight\\.events$",
        r#"{"max-length":5}"#,
    )
    .await
    .unwrap();
    wait_until_answered(&pipeline, 503).await;
    // Lifting the limit alone: 3.10 does not tell its publishers of that, so they have to ask again by themselves.
    node.clear_policy(pipeline.broker.vhost(), "small").await.unwrap();
    wait_until_answered(&pipeline, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_binding_sends_events_to_the_unrouted_queue_and_a_lost_exchange_to_503() {
    let mut pipeline = Pipeline::prepare(Plan::default()).await;
    pipeline.ingresses[0].start();
    pipeline.ingresses[0].wait_until_ready().await;
    let (node, vhost) = (pipeline.broker.node(), pipeline.broker.vhost());
    node.unbind(vhost, "porchlight.events", "porchlight.events")
        .await
        .unwrap();
    pipeline
        .accept(&event("device_online", "d", "acct", now_ms()))
        .await;
    pipeline.broker.wait_for_depth("porchlight.unrouted", 1).await;
    node.delete_exchange(vhost, "porchlight.unrouted").await.unwrap();
    let answer = http::post_signed(pipeline.ingresses[0].listen, WEBHOOK, &pipeline.key, b"{}")
        .await
        .unwrap();
    assert_eq!(
        answer.status,
        503,
        "a message that no queue took is not stored: {}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_and_a_worker_killed_in_the_middle_lose_nothing() {
    let mut pipeline = Pipeline::start(Plan {
        ingresses: 2,
        workers: 1,
        settings: quick_answers(),
        ..Plan::default()
    })
    .await;
    let (begin, count) = (now_ms() - 3_600_000, 2_000);
    let load = persistent_load(&pipeline, begin, count);
    for _ in 0..3 {
        wait_until_answered(&pipeline, 200).await;
        pipeline.ingresses[1].kill9_and_start_again();
        pipeline.workers[0].kill9_and_start_again();
        pipeline.workers[0].wait_until_ready().await;
        pipeline.ingresses[1].wait_until_ready().await;
    }
    let report = load.await.unwrap();
    check(&pipeline, &report, begin, count).await;
}
