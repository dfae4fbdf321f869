//! SIGTERM under load: every request that was begun is answered, nothing stays unacked, nothing is lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use porchlight_testbed::http::{RawConnection, encode};
use porchlight_testbed::{LoadGenerator, RingSchedule, Signal, http, wait_for};

use crate::support::{ATTEMPTS, PATIENCE, Pipeline, Plan, WEBHOOK, event, now_ms};

/// The longest that an ingress can be told to wait for a body.
const BODY_WITHIN: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_that_is_told_to_stop_answers_every_request_it_has_begun_to_read() {
    let pipeline = Pipeline::start(Plan {
        settings: vec![
            ("PORCHLIGHT_DRAIN_DELAY", "500ms".to_owned()),
            ("PORCHLIGHT_BODY_TIMEOUT", format!("{}s", BODY_WITHIN.as_secs())),
            ("PORCHLIGHT_ANSWER_TIMEOUT", "4300ms".to_owned()),
        ],
        ..Plan::default()
    })
    .await;
    let ingress = &pipeline.ingresses[0];
    let begun_at = Instant::now();
    let mut halves = Vec::new();
    for n in 0..20 {
        let body = event("device_online", &format!("d-{n}"), "acct", now_ms());
        let signature = pipeline.key.sign(&body);
        let bytes = encode("POST", WEBHOOK, &[("X-Signature", &signature)], &body);
        let (first, second) = bytes.split_at(bytes.len() - 7);
        let mut connection = RawConnection::open(ingress.listen).await.unwrap();
        connection.send(first).await.unwrap();
        halves.push((connection, second.to_vec()));
    }
    // One request that is answered shows that the twenty before it were accepted and read.
    pipeline
        .accept(&event("device_online", "d-last", "acct", now_ms()))
        .await;
    ingress.daemon().signal(Signal::Terminate);
    wait_for("readiness to be withdrawn", PATIENCE, async || {
        match http::get(ingress.admin, "/readyz").await {
            Ok(answer) if answer.status == 503 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    for (connection, rest) in &mut halves {
        connection.send(rest).await.unwrap();
    }
    let mut stored = Vec::new();
    for (connection, _) in &mut halves {
        let answer = connection.response().await.unwrap();
        // A request that a busy machine brings too late has an answer all the same.
        let is_late = answer.status == 503 && begun_at.elapsed() > BODY_WITHIN;
        assert!(
            answer.status == 200 || is_late,
            "{} {}",
            answer.status,
            answer.text()
        );
        stored.push(answer.status == 200);
    }
    let status = ingress.daemon().wait(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}\n{}", ingress.daemon().logs());
    pipeline.settle().await;
    for (n, _) in stored.iter().enumerate().filter(|(_, stored)| **stored) {
        assert_eq!(pipeline.device(&format!("d-{n}")).await["status"], "online");
    }
    assert_eq!(pipeline.device("d-last").await["status"], "online");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_everything_under_load_loses_nothing_and_leaves_nothing_unacked() {
    let mut pipeline = Pipeline::start(Plan {
        ingresses: 2,
        workers: 2,
        settings: vec![("PORCHLIGHT_DRAIN_DELAY", "200ms".to_owned())],
        ..Plan::default()
    })
    .await;
    let begin = now_ms() - 3_600_000;
    let count = 3_000;
    let load = LoadGenerator::new(pipeline.ingress_addresses(), pipeline.key.clone())
        .connections(16)
        .count(count)
        .rate(500.0)
        .retry(RingSchedule::steady(ATTEMPTS, Duration::from_millis(50)));
    let load = tokio::spawn(load.run(move |n| {
        let kind = if n.is_multiple_of(2) {
            "device_offline"
        } else {
            "device_online"
        };
        Bytes::from(event(
            kind,
            &format!("d-{}", n % 50),
            "acct",
            begin + i64::try_from(n).unwrap(),
        ))
    }));
    for member in pipeline.members_mut() {
        let status = member.daemon().terminate(PATIENCE).await.unwrap();
        assert!(status.success(), "{status}\n{}", member.daemon().logs());
        member.start();
        member.wait_until_ready().await;
    }
    let report = load.await.unwrap();
    assert_eq!(report.accepted.len() as u64, count, "{report}");
    pipeline.settle().await;
    for worker in &pipeline.workers {
        worker.daemon().signal(Signal::Terminate);
        assert!(worker.daemon().wait(PATIENCE).await.unwrap().success());
    }
    pipeline.broker.wait_for_depth("porchlight.events", 0).await;
    assert_eq!(pipeline.broker.ready("porchlight.dead").await, 0);
}
