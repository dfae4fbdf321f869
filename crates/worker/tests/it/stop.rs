//! Stopping: nothing is left unacknowledged, and what was not begun is still in the queue.

use std::io::Read as _;
use std::process::{Command, Stdio};

use porchlight_broker::topology;
use porchlight_testbed::{free_port, wait_for};

use crate::harness::{Bench, PATIENCE, body, now_ms};

#[tokio::test]
async fn a_stop_under_load_leaves_nothing_unacked_and_nothing_twice() {
    let bench = Bench::start().await;
    let count = 3000;
    let at = now_ms() - 60_000;
    bench
        .publish_all((0..count).map(|n| body("device_online", &format!("d{n}"), at)))
        .await;
    let worker = bench.worker().await;
    worker.wait_sum("porchlight_worker_events_total", 100.0).await;
    worker.stop().await.unwrap();
    let queue = bench.queue(topology::EVENTS).await.unwrap();
    assert_eq!((queue.unacked, queue.consumers), (0, 0), "{queue:?}");
    let next = bench.worker().await;
    bench.drained().await;
    // The broker answers a cancel before it has stopped delivering, and takes back what no consumer is there for.
    let redelivered = next.sum("porchlight_worker_redelivered_total").await;
    assert!(
        redelivered <= 8.0,
        "{redelivered} came back; the first prefetch is 8"
    );
    assert_eq!(
        next.sum("porchlight_worker_events_total{type=\"device_online\",outcome=\"duplicate\"}")
            .await,
        0.0
    );
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_while_the_ledger_is_away_gives_everything_back_and_says_so() {
    let bench = Bench::start().await;
    let mut config = bench.config();
    config.work.stop_grace = std::time::Duration::from_secs(1);
    let worker = crate::harness::Running::start(config);
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

#[tokio::test]
async fn the_binary_ends_with_success_on_sigterm() {
    let bench = Bench::start().await;
    // The topology that the bench declared has other times for its tiers than the binary wants.
    let vhost = bench.broker.vhost().await.unwrap();
    let port = free_port();
    let mut child = Command::new(env!("CARGO_BIN_EXE_porchlight-worker"))
        .env("PORCHLIGHT_AMQP_URL", bench.broker.url_for_vhost(&vhost))
        .env("PORCHLIGHT_REDIS_URL", bench.redis.url())
        .env("PORCHLIGHT_ADMIN_LISTEN", format!("127.0.0.1:{port}"))
        .env("PORCHLIGHT_ADMIN_TOKEN", "quite-a-secret-token")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = wait_for("the binary to be ready", PATIENCE, async || {
        let answer = porchlight_testbed::http::get(([127, 0, 0, 1], port).into(), "/readyz").await;
        match answer {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    ready.await.unwrap();
    assert!(
        Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    let ended = wait_for("the binary to end", PATIENCE, async || {
        child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
    });
    assert_eq!(ended.await.unwrap().code(), Some(0));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(
        log.contains("stopped cleanly") && !log.contains("quite-a-secret-token"),
        "{log}"
    );
}

#[test]
fn the_binary_refuses_wrong_settings_with_code_64() {
    let output = Command::new(env!("CARGO_BIN_EXE_porchlight-worker"))
        .args(["--prefetch=1", "--settle=5"])
        .env("PORCHLIGHT_REDIS_URL", "http://user:hush@host")
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{shown}");
    assert!(
        shown.contains("3 settings are wrong") && !shown.contains("hush"),
        "{shown}"
    );
}
